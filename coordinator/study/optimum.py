"""What the best team could reach, in worlds that know it: a yardstick for returns of teams that have learnt.

Of a linear network it is the best linear policy that sees no further than the team's actors do, which is κ hops for most
recipes; so cells of different κ have different ones;
of games, where every agent sees the state, the best of all. Where costs are limited, or rewards are not the team's to share
(a game with continuous actions), nothing is known.
"""

from functools import lru_cache

import networkx as nx

from coordinator.study.runs import Run
from envs.games.games import build
from envs.games.settings import TabularGame
from envs.games.tabular import best_return as best_of_game
from envs.networks.lq import best_return
from envs.networks.settings import LQ

_MOST_ENTRIES = 10_000_000  # of a game's table of transitions: beyond that it takes seconds


def optimum(run: Run) -> float | None:
    """The greatest expected return of an episode in a run's world, for a team of its κ; None where it is not known."""
    env, deployment = run.scenario.env, run.deployment
    if not deployment.horizon:  # an older run, which does not say how long its episodes are
        return None
    if isinstance(env, LQ) and env.control_limit is None and run.scenario.kappa_unit == "hops":
        hops = deployment.n_agents if env.observation == "full" else _hops(run)
        return _of_network(deployment.edges, deployment.n_agents, env, hops, deployment.horizon)
    if isinstance(env, TabularGame):
        return _of_game(env, deployment.horizon)
    return None


def _hops(run: Run) -> int:
    """How far actors see: at most as many hops as there are agents."""
    scenario, n = run.scenario, run.deployment.n_agents
    return {"local": 0, "khop": scenario.kappa, "global": n}[scenario.algorithm.recipe.actor_scope]


@lru_cache(maxsize=64)
def _of_network(edges: tuple[tuple[int, int], ...], n: int, lq: LQ, kappa: int, horizon: int) -> float | None:
    graph: nx.Graph = nx.empty_graph(n)
    graph.add_edges_from(edges)
    try:
        return best_return(graph, lq, kappa, horizon)
    except (ArithmeticError, ValueError):  # an unstable network that no local policy holds
        return None


@lru_cache(maxsize=64)
def _of_game(env: TabularGame, horizon: int) -> float | None:
    game = build(env)
    if game.n_states**2 * game.team().shape[1] > _MOST_ENTRIES:
        return None
    return best_of_game(game, horizon)
