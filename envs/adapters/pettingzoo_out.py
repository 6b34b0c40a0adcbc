"""A world of ours as a PettingZoo `ParallelEnv`: one copy, dictionaries by agent.

Theory of operation. `Parallel` steps one copy of a `VecEnv`. A `VecEnv` begins a new episode by itself; a `ParallelEnv` waits for
`reset`. So the first observation of the next episode is kept, and `reset` without a seed shows it. `reset` with a seed builds a
new world. All agents of our worlds end together: after the last step `agents` is empty.

Costs are in `infos[agent]["cost"]`, (m,), and their limits are the attribute `cost_limits`. The attribute `graph` is the world's
own graph of agents.
"""

from collections.abc import Callable
from typing import Any

import networkx as nx
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from pettingzoo import ParallelEnv

from envs.interface import EnvSpec, Floats, VecEnv
from topology.snapshot import State

Array = NDArray[Any]


class Parallel(ParallelEnv[str, Any, Any]):  # type: ignore[misc]  # PettingZoo has no types for others
    """One copy of a world.

    Args:
        build: Makes the world from a seed, with one copy.
        seed: What the world is made from until `reset` gives a seed.
        name: Of the world.

    Attributes:
        possible_agents: `agent_0` to `agent_{n-1}`.
        agents: Those that take part in the episode: all, or none when it has ended.
        cost_limits: Limit of each cost on an episode's sum, (m,).
        graph: The world's own graph on 0..n-1.
    """

    metadata = {"render_modes": [], "name": "kappahop", "is_parallelizable": True}  # noqa: RUF012  (PettingZoo reads it so)
    render_mode = None

    def __init__(self, build: Callable[[int], VecEnv], seed: int = 0, name: str = "kappahop") -> None:
        self.metadata = {**self.metadata, "name": name}
        self._build = build
        self._world = build(seed)
        if self._world.num_envs != 1:
            raise ValueError(f"env.num_envs: got {self._world.num_envs}; a ParallelEnv has one copy")
        self._first: list[Floats] | None = None
        self._obs: list[Floats] = []
        spec = self.spec
        self.possible_agents = [f"agent_{i}" for i in range(spec.n_agents)]
        self.agents: list[str] = []
        self.cost_limits = spec.cost_limits
        self.graph = nx.Graph(spec.edges)
        self.graph.add_nodes_from(range(spec.n_agents))
        self._observation_spaces = {
            agent: spaces.Box(-np.inf, np.inf, (width,), np.float32)
            for agent, width in zip(self.possible_agents, spec.obs_dims, strict=True)
        }
        self._action_spaces: dict[str, spaces.Space[Any]] = {
            agent: spaces.Discrete(count) if count else spaces.Box(-1.0, 1.0, (width,), np.float32)
            for agent, count, width in zip(self.possible_agents, spec.n_discrete, spec.act_dims, strict=True)
        }
        self.state_space = spaces.Box(-np.inf, np.inf, (sum(spec.obs_dims),), np.float32)

    @property
    def spec(self) -> EnvSpec:
        """The world's shape as kappahop has it."""
        return self._world.spec

    def observation_space(self, agent: str) -> spaces.Space[Any]:
        """Any numbers, (d_i,)."""
        return self._observation_spaces[agent]

    def action_space(self, agent: str) -> spaces.Space[Any]:
        """Numbers within ±1, (a_i,), or one of several choices."""
        return self._action_spaces[agent]

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict[str, Array], dict[str, Any]]:
        """Begin an episode.

        Args:
            seed: Builds a new world from this seed; None: the random streams continue.
            options: Means nothing here.

        Returns:
            Observations and, empty, infos by agent.
        """
        if seed is not None:
            self._world.close()
            self._world, self._first = self._build(seed), None
        self._obs = self._world.reset() if self._first is None else self._first
        self._first = None
        self.agents = list(self.possible_agents)
        return self._shown(), {agent: {} for agent in self.agents}

    def step(
        self, actions: dict[str, Any]
    ) -> tuple[dict[str, Array], dict[str, float], dict[str, bool], dict[str, bool], dict[str, Any]]:
        """Advance one control period.

        Args:
            actions: Of every agent.

        Returns:
            Observations, rewards, terminations, truncations and infos, each by agent.

        Raises:
            ValueError: the episode has ended, or an agent has no action or one of another shape.
        """
        if not self.agents:
            raise ValueError("step: the episode has ended, or none has begun; call reset first")
        taken = self._world.step([self._row(agent, actions) for agent in self.agents])
        ended = bool(taken.terminated[0] | taken.truncated[0])
        if ended:
            assert taken.final_obs is not None, "a world shows what was seen last where an episode ends"
            self._obs, self._first = taken.final_obs, taken.obs
        else:
            self._obs = taken.obs
        live = self.agents
        if ended:
            self.agents = []
        return (
            self._shown(),
            {agent: float(reward[0]) for agent, reward in zip(live, taken.reward, strict=True)},
            dict.fromkeys(live, bool(taken.terminated[0])),
            dict.fromkeys(live, bool(taken.truncated[0])),
            {
                agent: {"cost": cost[0].copy()} if len(self.cost_limits) else {}
                for agent, cost in zip(live, taken.cost, strict=True)
            },
        )

    def state(self) -> Array:
        """What all agents see, one after the other, (sum of d_i,)."""
        return np.concatenate([block[0] for block in self._obs])

    def snapshot(self) -> State:
        """All that the steps to come depend on; `restore` of an environment made alike takes it."""
        return {"world": self._world.state(), "obs": self._obs, "first": self._first, "runs": bool(self.agents)}

    def restore(self, state: State) -> None:
        """Go on as the environment would have that gave the snapshot."""
        self._world.restore(state["world"])
        self._obs, self._first = state["obs"], state["first"]
        self.agents = list(self.possible_agents) if state["runs"] else []

    def close(self) -> None:
        """Release the world."""
        self._world.close()

    def _shown(self) -> dict[str, Array]:
        return {agent: block[0].copy() for agent, block in zip(self.possible_agents, self._obs, strict=True)}

    def _row(self, agent: str, actions: dict[str, Any]) -> Floats:
        if agent not in actions:
            raise ValueError(f"step: no action of {agent}; expected one of each of {', '.join(self.agents)}")
        row = np.asarray(actions[agent], np.float32).reshape(1, -1)
        width = self.spec.act_dims[self.possible_agents.index(agent)]
        if row.shape[1] != width:
            raise ValueError(f"step: the action of {agent} has {row.shape[1]} numbers; expected {width}")
        return row
