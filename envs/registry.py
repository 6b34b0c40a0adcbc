"""From a scenario's section to a world: the one place where names become code."""

from collections.abc import Callable
from typing import NamedTuple

import networkx as nx

from envs.games import differential, games
from envs.interface import EnvSpec, Outlook, VecEnv
from envs.networks import lq
from envs.robots import tasks
from scenarios.schema import Env


def _robot(env: Env, graph: nx.Graph, seed: int) -> VecEnv:
    from envs.robots.mujoco_world import MujocoWorld  # MuJoCo costs 0.15 s and 30 MB, which only the world's process should pay

    return MujocoWorld(env, seed)


class Entry(NamedTuple):
    """How to describe a world and how to build it; where its physics depends on the graph, also what that comes to."""

    spec: Callable[[Env], EnvSpec]
    make: Callable[[Env, nx.Graph, int], VecEnv]
    outlook: Callable[[Env, nx.Graph], Outlook] | None = None


WORLDS: dict[str, Entry] = {
    "safe_ant": Entry(tasks.spec, _robot),
    "safe_halfcheetah": Entry(tasks.spec, _robot),
    "safe_manyagent_ant": Entry(tasks.spec, _robot),
    "velocity_ant": Entry(tasks.spec, _robot),
    "velocity_halfcheetah": Entry(tasks.spec, _robot),
    "mamujoco_ant": Entry(tasks.spec, _robot),
    "mamujoco_halfcheetah": Entry(tasks.spec, _robot),
    "mamujoco_hopper": Entry(tasks.spec, _robot),
    "mamujoco_walker2d": Entry(tasks.spec, _robot),
    "mamujoco_humanoid": Entry(tasks.spec, _robot),
    "mamujoco_swimmer": Entry(tasks.spec, _robot),
    "network_lq": Entry(lq.spec, lq.NetworkLQ, lq.outlook),
    "matrix_game": Entry(games.spec, games.GameWorld),
    "sharing_game": Entry(games.spec, games.GameWorld),
    "stage_game": Entry(games.spec, games.GameWorld),
    "stochastic_game": Entry(games.spec, games.GameWorld),
    "truncation_chain": Entry(games.spec, games.GameWorld),
    "differential_game": Entry(differential.spec, differential.DifferentialGame),
}


def spec(env: Env) -> EnvSpec:
    """The shape of a world, without building it.

    Args:
        env: The scenario's section.

    Returns:
        Its spec.

    Raises:
        ValueError: The world has no such partition, or a setting makes no sense there; the text names field, value and choices.
    """
    return WORLDS[env.name].spec(env)


def outlook(env: Env, graph: nx.Graph) -> Outlook:
    """What the graph makes of a world, without building it.

    Args:
        env: The scenario's section.
        graph: Communication graph on 0..n-1.

    Returns:
        Nothing where the graph is no part of the world's physics.
    """
    told = WORLDS[env.name].outlook
    return Outlook() if told is None else told(env, graph)


def make(env: Env, graph: nx.Graph, seed: int) -> VecEnv:
    """Build a world.

    Args:
        env: The scenario's section.
        graph: Communication graph on 0..n-1; only network_lq's dynamics depend on it.
        seed: Root of all its randomness.

    Returns:
        The world; call `reset` first and `close` at last.

    Raises:
        ValueError: As `spec`; or the graph's nodes are not 0..n-1.
    """
    expected = spec(env).n_agents
    if set(graph) != set(range(expected)):
        raise ValueError(
            f"topology: got a graph of {len(graph)} nodes; {env.name} {env.partition} needs the nodes 0..{expected - 1}"
        )
    return WORLDS[env.name].make(env, graph, seed)
