"""What doing nothing costs: a team that gives the zero action, on copies of the world of their own.

A limit below that asks agents to act against what the world does by itself; on some tasks standing still is above the limit
(Safe HalfCheetah: 34 of 30). The measurement takes no part of the run: world, copies and random streams are its own.
"""

import hashlib
from collections.abc import Sequence

import numpy as np

from coordinator.run.plan import Plan
from envs.registry import make

COPIES = 10  # at most
SHARE = 20  # of the run's steps at most 1/SHARE are spent on it; a run too short for one episode measures nothing


def idle_costs(ready: Plan) -> list[float] | None:
    """Mean cost of an idle episode, per cost.

    Returns:
        None where there are no limits, where an action is a choice (none of which means nothing), or where it is too dear.
    """
    scenario, spec = ready.scenario, ready.spec
    copies = min(COPIES, scenario.budget.env_steps // (SHARE * spec.horizon))
    if not spec.n_costs or any(spec.choices) or not copies:
        return None
    world = make(scenario.env.model_copy(update={"copies": copies}), ready.deployment.graph(), _seed(scenario.seed))
    try:
        world.reset()
        still = [np.zeros((copies, width), np.float32) for width in spec.act_dims]
        found = [
            episode.cost for _ in range(spec.horizon) for episode in world.step(still).episodes if np.isfinite(episode.cost).all()
        ]
    finally:
        world.close()
    return [float(mean) for mean in np.mean(found, axis=0)] if found else None


def above_their_limits(ready: Plan, idle: Sequence[float] | None) -> list[str]:
    """A sentence for each limit that a team which does nothing would exceed."""
    limits = ready.deployment.cost_limits
    return [
        f"doing nothing costs {cost:.3g} per episode, above the limit of {limit:g}: agents must act to keep it"
        for cost, limit in zip(idle or (), limits, strict=False)
        if cost > limit
    ]


def _seed(seed: int) -> int:
    """Root of the world's random streams: of 64 bits, so it is the root of no training."""
    return 1 << 63 | int.from_bytes(hashlib.sha256(f"idle {seed}".encode()).digest()[:8], "little")
