"""What doing nothing brings and costs: a team that gives the zero action, on copies of the world of their own.

A team that has learnt should be better than that, and on some tasks standing still is hard to beat. A limit below what it costs
asks agents to act against what the world does by itself (Safe HalfCheetah: 34 of 30). The measurement takes no part of the run:
world, copies and random streams are its own.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from coordinator.records.plan import Plan
from envs.interface import Episode
from envs.registry import make
from topology.deployment import seed_for

COPIES = 10  # at most
SHARE = 20  # of the run's steps at most 1/SHARE are spent on it; a run too short for one episode measures nothing


class Idle(NamedTuple):
    """Means over the episodes of a team that does nothing: return, and each cost (agents' own: of the one that pays most)."""

    ret: float
    costs: list[float]


def measure(ready: Plan) -> Idle | None:
    """What doing nothing brings and costs in a run's world.

    Returns:
        None where an action is a choice (none of which means nothing), where it is too dear, or if a fault ended an episode.
    """
    scenario, spec = ready.scenario, ready.spec
    copies = min(COPIES, scenario.budget.env_steps // (SHARE * spec.horizon))
    if any(spec.n_discrete) or not copies:
        return None
    world = make(scenario.env.model_copy(update={"num_envs": copies}), ready.deployment.graph(), seed_for("idle", scenario.seed))
    try:
        world.reset()
        still = [np.zeros((copies, width), np.float32) for width in spec.act_dims]
        first: dict[int, Episode] = {}  # of each copy: of all that end within a horizon, short ones would be too many
        charged = np.zeros((spec.n_agents, copies, spec.n_costs))  # with costs of their own: each agent, until then
        for _ in range(spec.horizon):
            step = world.step(still)
            if spec.own_costs:
                under_way = [copy for copy in range(copies) if copy not in first]
                charged[:, under_way] += step.cost[:, under_way]
            for episode in step.episodes:
                first.setdefault(episode.copy, episode)
    finally:
        world.close()
    found = list(first.values())
    if not all(np.isfinite([episode.ret, *episode.cost]).all() for episode in found):
        return None
    if spec.own_costs:
        each = charged.mean(axis=1)
        costs = each.mean(axis=0) if scenario.algorithm.shares_budget else each.max(axis=0)
    else:
        costs = np.mean([episode.cost for episode in found], axis=0) if spec.n_costs else np.zeros(0)
    return Idle(float(np.mean([episode.ret for episode in found])), [float(mean) for mean in costs])


def above_their_limits(ready: Plan, idle: Sequence[float] | None) -> list[str]:
    """A sentence for each limit that a team which does nothing would exceed."""
    limits = ready.deployment.cost_limits
    return [
        f"doing nothing costs {cost:.3g} per episode, above the limit of {limit:g}: agents must act to keep it"
        for cost, limit in zip(idle or (), limits, strict=False)
        if cost > limit
    ]
