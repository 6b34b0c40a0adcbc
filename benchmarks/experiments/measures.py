"""What an experiment reads from a finished run: one number each."""

from collections.abc import Callable

import networkx as nx
import numpy as np

import kappahop
from coordinator.study import runs as stored
from coordinator.study.optimum import optimum
from envs.games.games import build
from envs.games.settings import TabularGame
from envs.games.tabular import constant
from envs.games.tabular import nash_gap as gap_of
from envs.networks.lq import dynamics, limited_cost
from envs.networks.settings import LQ

Measure = Callable[[kappahop.Run], float]


def eval_return(run: kappahop.Run) -> float:
    """Mean return of the evaluation at the end."""
    return _number(run, "eval_return_mean")


def eval_cost(run: kappahop.Run) -> float:
    """Mean cost of an episode of the evaluation at the end."""
    return _number(run, "eval_cost_mean")


def spent(run: kappahop.Run) -> float:
    """The same as a part of the limit."""
    return _number(run, "eval_cost_mean") / _number(run, "cost_limit")


def progress(run: kappahop.Run) -> float:
    """Mean return of the evaluation at the end less the alive bonus of its steps."""
    last = run.evaluations()
    at_end = last["round"] == last["round"].max()
    bonus = stored.Run(run.folder, run.scenario).deployment.alive_bonus
    return float(np.mean(last["return"][at_end] - bonus * last["length"][at_end]))


def bytes_per_step(run: kappahop.Run) -> float:
    """Wire bytes that an agent sends per step."""
    return _number(run, "bytes_per_agent_step")


def of_best(run: kappahop.Run) -> float:
    """Mean return of the evaluation at the end as a part of the best possible.

    Raises:
        ValueError: the best is not known.
    """
    best = optimum(stored.Run(run.folder, run.scenario))
    if not best:
        raise ValueError(f"{run.folder}: the best return of {run.scenario.env.name} is not known")
    return eval_return(run) / best


def over_least(run: kappahop.Run) -> float:
    """What a limited linear network costs, as a multiple of the least within its limit.

    Raises:
        ValueError: the world is another.
    """
    env, deployment = run.scenario.env, stored.Run(run.folder, run.scenario).deployment
    if not isinstance(env, LQ) or not deployment.horizon:
        raise ValueError(f"env.name: got {env.name!r}; expected 'network_lq'")
    graph: nx.Graph = nx.empty_graph(deployment.n_agents)
    graph.add_edges_from(deployment.edges)
    return -eval_return(run) / deployment.horizon / limited_cost(dynamics(graph, env), env)[0]


def nash_gap(run: kappahop.Run) -> float:
    """The most that one agent could gain alone against the final greedy policies, as a part of the reward's range.

    Raises:
        ValueError: the world is no game whose whole state every agent sees in one part.
    """
    env = run.scenario.env
    if not isinstance(env, TabularGame):
        raise ValueError(f"env.name: got {env.name!r}; expected a finite game")
    game = build(env)
    states = np.eye(game.n_states, dtype=np.float32) if env.encoding == "one_hot" else np.arange(game.n_states)[:, None]
    actions = [run.policy(agent)(np.asarray(states, np.float32))[:, 0].astype(np.intp) for agent in range(game.n_agents)]
    gap = gap_of(game, constant(game, actions), run.scenario.algorithm.gamma)
    return gap / float(np.ptp(game.reward))


def _number(run: kappahop.Run, name: str) -> float:
    found = run.metrics[name]
    return float("nan") if found is None else float(found)
