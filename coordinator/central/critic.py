"""The central critic: one value function for all agents, for centralised baselines.

It values the mean of what agents are rewarded, and of what each cost is to them: with `env.reward: team`, the team's. Input is
every agent's block, ascending. Every agent is answered with the same advantages. What has not come enters as zeros, and as
nothing into the means.

Where agents may end before the others, the team's episode is the copy's. An agent that has ended is paid 0, and its block tells
the critic so. All samples of the team are learnt from; an agent uses only the advantages of those in which it took part. Its own
limit of time is like an end to the team: nothing is paid to it any more, and the critic values just that.
"""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coordinator.central.node import Mind, Told
from node.numerics.critics import Critics, Shape
from node.numerics.inherited import Inherited
from node.numerics.seeds import Purpose, stream
from node.protocol.kinds import sizes_of
from scenarios.schema import Scenario
from topology.deployment import Deployment

Floats = NDArray[np.float32]


class CentralCritic(Mind):
    """Critics of all agents' rewards and costs.

    Args:
        scenario: The scenario.
        deployment: Sizes.
    """

    STATE = ("_critics",)

    def __init__(self, scenario: Scenario, deployment: Deployment) -> None:
        self._scenario = scenario
        self._n = n = deployment.n_agents
        self._size = scenario.rollout.steps, scenario.env.num_envs
        self._signals = sizes_of(scenario, deployment).signals
        shape = Shape(
            agent=n,
            seed=scenario.seed,
            steps=scenario.rollout.steps,
            copies=scenario.env.num_envs,
            rounds=scenario.n_rounds,
            actor_columns=slice(0),
            critic_columns=slice(None),
            actor_width=0,
            critic_width=sum(deployment.obs_dims),
            act_dim=0,
            cost_limits=deployment.cost_limits if self._signals > 1 else (),
        )
        self._critics = Critics(shape, scenario.algorithm)
        self._advantages = np.zeros((0, 0), np.float32)
        self.rest()

    def learn(self, round_: int, told: Told) -> None:
        """Estimate the round's advantages, and train the critics on it."""
        self._critics.decay(self._scenario.step_fraction(round_))
        self._critics.begin(told.rollout)
        estimates = self._critics.advantages(told.rollout, told.reward)
        self._critics.adopt(estimates)
        draw = stream(self._scenario.seed, Purpose.SHUFFLE, self._n, round_)
        for _ in self._critics.train(self._minibatches(draw)):
            pass
        self._critics.end(told.rollout)
        rows = np.stack([each.advantage for each in estimates]).reshape(self._signals, *self._size).transpose(2, 1, 0)
        self._advantages = np.ascontiguousarray(rows, np.float32).reshape(len(rows), -1)

    def rest(self) -> None:
        """No advantages."""
        steps, copies = self._size
        self._advantages = np.zeros((copies, steps * self._signals), np.float32)

    def answer(self, agent: int) -> Floats:
        """The advantages of a copy's samples, of reward and costs each."""
        return self._advantages

    def metrics(self) -> Mapping[str, float]:
        """The critics' losses."""
        return self._critics.metrics()

    def weights(self) -> dict[str, Tensor]:
        """The critics."""
        return self._critics.weights()

    def inherit(self, theirs: Inherited) -> None:
        """Begin with the critics of another run."""
        self._critics.inherit(theirs)

    def _minibatches(self, draw: np.random.Generator) -> "list[torch.Tensor]":
        algorithm, batch = self._scenario.algorithm, self._size[0] * self._size[1]
        passes = [torch.from_numpy(draw.permutation(batch)) for _ in range(algorithm.epochs)]
        return [rows for permutation in passes for rows in permutation.tensor_split(algorithm.minibatches)]
