"""The world `gymnasium`: Gymnasium environments of several agents, whose spaces are tuples, or dictionaries by agent.

rware and lbforaging are of the first kind, mobile-env is of the second. An episode ends for all agents at once.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import networkx as nx
import numpy as np
from gymnasium import spaces

from envs.adapters.imported import Contents, ImportedWorld, built, examine, with_pictures
from envs.adapters.settings import GymnasiumEnv, ImportedEnv
from envs.interface import Drawable, EnvSpec, VecEnv, World


class ByAgent:
    """A Gymnasium environment with the interface of a ParallelEnv.

    Args:
        one: The environment.
        make: Its name, for messages.

    Raises:
        ValueError: its spaces are of one agent.
    """

    def __init__(self, one: Any, make: str) -> None:
        seen: Any = getattr(one, "observation_space", None)
        done: Any = getattr(one, "action_space", None)
        self._is_tuple = isinstance(seen, spaces.Tuple) and isinstance(done, spaces.Tuple)
        if not self._is_tuple and not (isinstance(seen, spaces.Dict) and isinstance(done, spaces.Dict)):
            raise ValueError(
                f"env.make: {make} has spaces {seen} and {done}; expected a Tuple or a Dict with a space per agent each"
            )
        keys = range(len(seen.spaces)) if self._is_tuple else list(done.spaces)
        self._one = one
        self._seen: dict[Any, spaces.Space[Any]] = (
            dict(zip(keys, seen.spaces, strict=True)) if self._is_tuple else dict(seen.spaces)
        )
        self._done: dict[Any, spaces.Space[Any]] = (
            dict(zip(keys, done.spaces, strict=True)) if self._is_tuple else dict(done.spaces)
        )
        self.possible_agents = list(keys)
        self.agents: list[Any] = []
        self.spec = getattr(one, "spec", None)
        self.unwrapped = getattr(one, "unwrapped", one)
        for name in ("cost_limits", "graph"):
            if (given := getattr(self.unwrapped, name, None)) is not None:
                setattr(self, name, given)

    def observation_space(self, agent: Any) -> spaces.Space[Any]:
        """Of an agent."""
        return self._seen[agent]

    def action_space(self, agent: Any) -> spaces.Space[Any]:
        """Of an agent."""
        return self._done[agent]

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, Any]:
        """Begin an episode."""
        obs, info = self._one.reset(seed=seed)
        self.agents = list(self.possible_agents)
        return self._dealt(obs), self._infos(info)

    def step(self, actions: dict[Any, Any]) -> tuple[Any, Any, Any, Any, Any]:
        """One step of all agents."""
        acts = tuple(actions[agent] for agent in self.possible_agents) if self._is_tuple else actions
        obs, reward, ended, cut, info = self._one.step(acts)
        live = self.agents
        is_ended, is_cut = self._all(ended), self._all(cut)
        if is_ended or is_cut:
            self.agents = []
        rewards = dict.fromkeys(live, reward) if np.ndim(reward) == 0 and not isinstance(reward, Mapping) else self._dealt(reward)
        return self._dealt(obs), rewards, dict.fromkeys(live, is_ended), dict.fromkeys(live, is_cut), self._infos(info)

    def render(self) -> Any:
        """A picture."""
        return self._one.render()

    def close(self) -> None:
        """Release it."""
        self._one.close()

    def _dealt(self, each: Any) -> dict[Any, Any]:
        return dict(each) if isinstance(each, Mapping) else dict(zip(self.possible_agents, each, strict=True))

    def _infos(self, info: Any) -> dict[Any, Any]:
        """What is told of each agent, where the environment tells it by agent; else what it tells, for all."""
        if not isinstance(info, Mapping):
            return self._dealt(info)
        return {agent: info[agent] if isinstance(info.get(agent), Mapping) else info for agent in self.possible_agents}

    @staticmethod
    def _all(flag: Any) -> bool:
        if isinstance(flag, Mapping):
            return bool(flag["__all__"]) if "__all__" in flag else all(flag.values())
        return bool(np.all(flag))


def instance(env: ImportedEnv) -> ByAgent:
    """One environment.

    Raises:
        ValueError: as `built` and `ByAgent`.
    """
    return ByAgent(built(env), env.make)


@lru_cache(maxsize=16)
def _contents(told: str) -> Contents:
    return examine(GymnasiumEnv.model_validate_json(told), instance)


def spec(env: GymnasiumEnv) -> EnvSpec:
    """Its shape, from one instance.

    Raises:
        ValueError: as `examine`.
    """
    return _contents(env.model_dump_json()).spec


def make(env: GymnasiumEnv, graph: nx.Graph, seed: int) -> VecEnv:
    """The world; the communication graph is no part of its physics."""
    return ImportedWorld(env, seed, instance, _contents(env.model_dump_json()))


def drawable(env: GymnasiumEnv, graph: nx.Graph, seed: int) -> Drawable:
    """The world, of environments that render."""
    return ImportedWorld(with_pictures(env), seed, instance, _contents(env.model_dump_json()))


WORLD: World[GymnasiumEnv] = World(settings=GymnasiumEnv, spec=spec, make=make, drawable=drawable)
