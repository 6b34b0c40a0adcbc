"""From a scenario's section to a world: the one place where names become code."""

from typing import Any

import networkx as nx

from envs.checked import Checked, WorldError
from envs.contract import spec_is_sound
from envs.interface import EnvSpec, Outlook, VecEnv, World
from scenarios.loading import world_settings
from scenarios.registry import WORLDS
from scenarios.schema import DEFAULT_WORLD, Env


def section(name: str = DEFAULT_WORLD, **settings: Any) -> Env:
    """The section `env` of a scenario, from Python.

    Args:
        name: Which world.
        settings: Its settings, where they are not the defaults.

    Returns:
        The world's own settings.

    Raises:
        ValueError: There is no such world or no such setting, or a value is out of range.

    Example:
        >>> section("network_lq", agents=3).num_envs
        10
    """
    return world_settings(name).model_validate({"name": name, **settings})


def world_of(env: Env) -> World[Any]:
    """The world that a section names.

    Args:
        env: The scenario's section.

    Returns:
        The registered world.

    Raises:
        ValueError: There is no such world, or the section has not been read with its settings.
    """
    world: World[Any] = WORLDS.resolve(env.name)
    if not isinstance(world, World):
        raise ValueError(f"world {env.name!r}: got {type(world).__name__}; expected an envs.interface.World")
    if not isinstance(env, world.settings):
        raise ValueError(f"env: got {type(env).__name__}; the settings of {env.name} are {world.settings.__name__}")
    return world


def spec(env: Env) -> EnvSpec:
    """The shape of a world, without building it.

    Args:
        env: The scenario's section.

    Returns:
        Its spec.

    Raises:
        ValueError: The world has no such partition, or a setting makes no sense there; the text names field, value and choices.
        WorldError: A world from outside does not describe itself.
    """
    world = world_of(env)
    if WORLDS.plugin(env.name) is None:
        return world.spec(env)
    try:
        found = world.spec(env)
    except ValueError:
        raise
    except Exception as error:
        raise WorldError(f"world {env.name!r}: spec raised {type(error).__name__}: {error}; expected an EnvSpec") from error
    if not isinstance(found, EnvSpec):
        raise WorldError(f"world {env.name!r}: spec: got {type(found).__name__}; expected an EnvSpec")
    if not spec_is_sound(found):
        raise WorldError(f"world {env.name!r}: spec: got {found}; expected an entry per agent in each list, edges that join all")
    return found


def outlook(env: Env, graph: nx.Graph) -> Outlook:
    """What the graph makes of a world, without building it.

    Args:
        env: The scenario's section.
        graph: Communication graph on 0..n-1.

    Returns:
        Nothing where the graph is no part of the world's physics.
    """
    told = world_of(env).outlook
    return Outlook() if told is None else told(env, graph)


def make(env: Env, graph: nx.Graph, seed: int, *, drawable: bool = False) -> VecEnv:
    """Build a world.

    Args:
        env: The scenario's section.
        graph: Communication graph on 0..n-1; of the worlds that have an `outlook`, the dynamics depend on it.
        seed: Root of all its randomness.
        drawable: Whether it must be an `envs.interface.Drawable`.

    Returns:
        The world; call `reset` first and `close` at last.

    Raises:
        ValueError: As `spec`; or the graph's nodes are not 0..n-1; or the world cannot be drawn.
        WorldError: A world from outside cannot be built.
    """
    described = spec(env)
    expected = described.n_agents
    if set(graph) != set(range(expected)):
        raise ValueError(f"topology: got a graph of {len(graph)} nodes; this {env.name} needs the nodes 0..{expected - 1}")
    build = world_of(env).drawable if drawable else world_of(env).make
    if build is None:
        raise ValueError(f"env.name: got {env.name!r}, a world that has no pictures")
    if WORLDS.plugin(env.name) is None:
        return build(env, graph, seed)
    try:
        world = build(env, graph, seed)
    except ValueError:
        raise
    except Exception as error:
        raise WorldError(f"world {env.name!r}: make raised {type(error).__name__}: {error}; expected no error") from error
    return Checked(env.name, world, described, env.num_envs)
