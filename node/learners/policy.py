"""A stored policy that acts on arrays, away from any run: for notebooks and for other programs.

Theory of operation. An agent's learner is made as in a run, takes the stored weights, and acts. A learner has a fixed number of
environment copies, so one is made for each number of rows that is asked for; the one used last is kept.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from node.learners.interface import AgentLearner
from node.learners.making import make_learner
from node.numerics import products
from node.protocol.routing import AgentRouting
from scenarios.schema import Scenario
from topology.deployment import Deployment

Floats = NDArray[np.float32]


class Policy:
    """One agent's policy.

    Args:
        scenario: The scenario that the agent was trained in.
        deployment: Sizes and graph.
        agent: Which agent.
        tensors: Its stored weights.

    Raises:
        ValueError: the weights do not fit.

    Attributes:
        agent: Which agent.
        agents: The agents whose observations the policy takes, ascending: itself, and those whose states its actor takes.
        width: D, how many numbers that is.
        act_dim: A, the width of an action; 1 where it is a choice.
        n_discrete: How many choices there are; 0: actions are continuous.
        is_exact: Whether products in this process round as in a run, so that actions are those of the run to the last bit.
    """

    def __init__(self, scenario: Scenario, deployment: Deployment, agent: int, tensors: dict[str, Tensor]) -> None:
        self._scenario = scenario
        self._deployment = deployment
        self._tensors = tensors
        self._routing = AgentRouting(scenario, deployment, agent)
        self._columns = self._routing.observation.columns(self._routing.actor_agents)
        self._drawn = 0
        self.agent = agent
        self.agents = tuple(sorted(self._routing.actor_agents))
        self.width = sum(deployment.obs_dims[i] for i in self.agents)
        self.act_dim, self.n_discrete = deployment.act_dims[agent], deployment.n_discrete[agent]
        self.is_exact = True
        self._copies, self._learner = 1, self._made(1)

    def __call__(self, observation: NDArray[np.floating], *, deterministic: bool = True) -> Floats:
        """Actions for observations.

        Args:
            observation: The observations of `agents` side by side, (B, D) or (D,).
            deterministic: Whether it takes the mean or likeliest action; else it draws one, as in training. Draws repeat with
                the scenario's seed.

        Returns:
            (B, A) or (A,), as a world's `step` takes them; a choice is its index.

        Raises:
            ValueError: the observation has another width, or the policy is one that draws nothing.
        """
        rows = np.atleast_2d(np.asarray(observation, np.float32))
        if rows.ndim != 2 or rows.shape[1] != self.width:
            raise ValueError(
                f"observation: got shape {np.shape(observation)}; expected (B, {self.width}), the observations of agents "
                f"{', '.join(map(str, self.agents))} side by side"
            )
        if not (deterministic or self._learner.always_explores):
            raise ValueError("deterministic: got False; this policy is made of values of actions, and draws nothing")
        if len(rows) != self._copies:
            self._copies, self._learner = len(rows), self._made(len(rows))
        if not deterministic:
            self._drawn += 1
        self._learner.begin_round(self._drawn, explore=not deterministic)
        whole = np.zeros((len(rows), self._routing.observation.width), np.float32)
        whole[:, self._columns] = rows
        actions = self._learner.act(0, whole)
        return actions if np.ndim(observation) == 2 else actions[0]

    def gather(self, observations: Sequence[NDArray[np.floating]]) -> Floats:
        """Of all agents' observations, (B, d_i) each, what this policy takes, (B, D)."""
        return np.concatenate([np.asarray(observations[i], np.float32) for i in self.agents], axis=-1)

    def reset(self) -> None:
        """An episode begins in every row: a policy with a memory empties it."""
        self._learner.forget(np.ones(self._copies, np.bool_))

    @property
    def module(self) -> nn.Module:
        """Its torch module: (B, D) to means of actions, or to logits or values of choices; it has the inputs' statistics.

        Raises:
            LookupError: the policy is a table, or has a memory.
        """
        return self._learner.module()

    def _made(self, copies: int) -> AgentLearner:
        scenario = self._scenario.model_copy(
            update={
                "env": self._scenario.env.model_copy(update={"num_envs": copies}),
                "rollout": self._scenario.rollout.model_copy(update={"steps": 1}),
                "algorithm": self._scenario.algorithm.model_copy(update={"minibatches": 1}),
            }
        )
        with products.tolerated() as self.is_exact:
            learner = make_learner(scenario, self._deployment.model_copy(update={"first_limits": ()}), self.agent, self._routing)
        learner.load_policy(self._tensors)
        return learner
