"""The world `pettingzoo`: any PettingZoo `ParallelEnv`, named by the function that makes it."""

from functools import lru_cache

import networkx as nx

from envs.adapters.imported import Contents, ImportedWorld, Instance, built, examine, with_pictures
from envs.adapters.settings import ImportedEnv, PettingZooEnv
from envs.interface import Drawable, EnvSpec, VecEnv, World


def instance(env: ImportedEnv) -> Instance:
    """One environment.

    Raises:
        ValueError: as `built`, or it is no ParallelEnv.
    """
    one: Instance = built(env)
    if not all(hasattr(one, name) for name in ("possible_agents", "observation_space", "action_space", "step", "reset")):
        raise ValueError(f"env.make: {env.make} makes a {type(one).__name__}; expected a ParallelEnv with possible_agents")
    if hasattr(one, "agent_iter"):
        raise ValueError(f"env.make: {env.make} makes an AEC environment, in which agents act in turns; use its parallel_env")
    return one


@lru_cache(maxsize=16)
def _contents(told: str) -> Contents:
    return examine(PettingZooEnv.model_validate_json(told), instance)


def contents(env: PettingZooEnv) -> Contents:
    """What the environment of a scenario is; looked at once per process."""
    return _contents(env.model_dump_json())


def spec(env: PettingZooEnv) -> EnvSpec:
    """Its shape, from one instance.

    Raises:
        ValueError: as `examine`.
    """
    return contents(env).spec


def make(env: PettingZooEnv, graph: nx.Graph, seed: int) -> VecEnv:
    """The world; the communication graph is no part of its physics."""
    return ImportedWorld(env, seed, instance, contents(env))


def drawable(env: PettingZooEnv, graph: nx.Graph, seed: int) -> Drawable:
    """The world, of environments that render."""
    return ImportedWorld(with_pictures(env), seed, instance, contents(env))


WORLD: World[PettingZooEnv] = World(settings=PettingZooEnv, spec=spec, make=make, drawable=drawable)
