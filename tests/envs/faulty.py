"""A world with one fault, chosen by a setting: what a person's first own world may look like."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np

from envs.episodes import Episodes
from envs.interface import EnvSpec, Floats, Transition, World
from envs.settings import TeamEnv, team
from scenarios.schema import setting
from topology.snapshot import State

BEGINS = 7  # the step from which on the world is wrong


class FaultyEnv(TeamEnv):
    """A world with a fault."""

    default_agents = 3

    name: str = setting("faulty", "Which world.")
    agents: int | None = team(3, 2, 4)
    fault: str = setting("none", "What is wrong.")
    noted: str = setting("", "File that tells when it went wrong, on the clock that all processes share.")


def spec(env: FaultyEnv) -> EnvSpec:
    n = env.n_agents
    if env.fault == "spec raises":
        raise KeyError("agents")
    edges = () if env.fault == "spec" else tuple((i, i + 1) for i in range(n - 1))
    return EnvSpec(obs_dims=(2,) * n, act_dims=(1,) * n, n_discrete=(0,) * n, cost_limits=(), horizon=10, dt=1.0, edges=edges)


class Faulty:
    def __init__(self, env: FaultyEnv, graph: nx.Graph, seed: int) -> None:
        if env.fault == "make raises":
            raise FileNotFoundError("map.json")
        self.spec, self.num_envs = spec(env), env.num_envs
        if env.fault == "another spec":
            self.spec = replace(self.spec, obs_dims=(3, 3, 3))
        self._fault, self._step, self._noted = env.fault, 0, env.noted
        self._start = np.random.default_rng(seed).normal(size=(env.num_envs, env.n_agents)).astype(np.float32)
        self._x = self._start.copy()
        self._episodes = Episodes(env.num_envs, 10, restart=self._restart, observe=self._observe)

    def reset(self, limits: Sequence[int] | None = None) -> list[Floats]:
        obs = self._episodes.begin(limits)
        return [block[:, :1] for block in obs] if self._fault == "first shape" else obs

    def step(self, actions: Sequence[Floats]) -> Any:
        self._step += 1
        if self._step == BEGINS and self._noted:
            Path(self._noted).write_text(str(time.monotonic()), encoding="ascii")
        self._x = self._x + np.concatenate(actions, axis=1)
        never = np.zeros(self.num_envs, bool)
        found = self._episodes.conclude(np.zeros(self.num_envs), np.zeros((3, self.num_envs), np.float32), never, never)
        return FAULTS[self._fault](found) if self._step >= BEGINS and self._fault in FAULTS else found

    def state(self) -> State:
        return {"x": self._x.copy(), "step": self._step, "episodes": self._episodes.state()}

    def restore(self, state: State) -> None:
        self._x, self._step = state["x"], state["step"]
        self._episodes.restore(state["episodes"])

    def frame(self, copy: int) -> Any:
        picture = np.full((2, 3, 3), copy, np.uint8)
        return picture / 2 if self._fault == "frame" else picture

    def close(self) -> None:
        pass

    def _restart(self, copies: Any) -> None:
        self._x[copies] = self._start[copies]

    def _observe(self) -> list[Floats]:
        return [np.stack([self._x[:, i], self._x[:, i]], axis=1) for i in range(3)]


def _block(found: Transition, change: Callable[[Floats], Any]) -> Transition:
    """The transition with another observation of agent 1."""
    return replace(found, obs=[found.obs[0], change(found.obs[1]), found.obs[2]])


def _at(array: Floats, place: tuple[int, ...], value: float) -> Floats:
    array = array.copy()
    array[place] = value
    return array


FAULTS: dict[str, Callable[[Transition], Any]] = {
    "shape": lambda found: _block(found, lambda block: block[:1]),
    "width": lambda found: _block(found, lambda block: np.concatenate([block, block], axis=1)),
    "dtype": lambda found: _block(found, lambda block: block.astype(np.float64)),
    "nan": lambda found: _block(found, lambda block: _at(block, (1, 0), np.nan)),
    "a list": lambda found: _block(found, lambda block: block.tolist()),
    "an agent less": lambda found: replace(found, obs=found.obs[:2]),
    "reward": lambda found: replace(found, reward=found.reward[0]),
    "infinite reward": lambda found: replace(found, reward=_at(found.reward, (2, 1), np.inf)),
    "cost": lambda found: replace(found, cost=np.zeros((3, 2, 1), np.float32)),
    "flags": lambda found: replace(found, terminated=np.zeros(2, np.int64)),
    "no end": lambda found: replace(found, terminated=np.ones(2, bool), truncated=np.zeros(2, bool)),
    "a tuple": lambda found: (found.obs, found.reward),
    "exception": lambda found: 1 / 0,
}
WORLD = World(settings=FaultyEnv, spec=spec, make=Faulty, drawable=Faulty)
