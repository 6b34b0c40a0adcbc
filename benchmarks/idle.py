"""What a team gets that does nothing: `python benchmarks/idle.py SCENARIO...`.

All agents give the zero action; ten copies, their first episodes each, no learning. A table of algorithms that lacks this row can
hide that none of them is better than standing still.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from coordinator.records.plan import plan
from envs.registry import make
from scenarios.loading import load

COPIES = 10


@dataclass(frozen=True, slots=True)
class Idle:
    """Means over the episodes of a team that does nothing.

    Attributes:
        ret: Return.
        progress: The same less the alive bonus; None where the world pays none.
        cost: Sum over costs.
        cost_limit: What it is held against; None where the world has no costs.
    """

    ret: float
    progress: float | None
    cost: float
    cost_limit: float | None


def idle(scenario: str, overrides: Sequence[str] = (), seed: int = 0) -> Idle:
    """What doing nothing brings in a scenario whose actions are numbers.

    Raises:
        ValueError: actions are choices, none of which means nothing.
    """
    ready = plan(load(scenario, [*overrides, f"env.num_envs={COPIES}"]))
    if any(ready.spec.n_discrete):
        raise ValueError(f"{scenario}: actions are choices, and none of them means to do nothing")
    world = make(ready.scenario.env, ready.deployment.graph(), seed)
    try:
        world.reset()
        still = [np.zeros((COPIES, width), np.float32) for width in ready.spec.act_dims]
        episodes = [episode for _ in range(ready.spec.horizon) for episode in world.step(still).episodes]
    finally:
        world.close()
    ret, length, cost = np.mean([(episode.ret, episode.length, sum(episode.cost)) for episode in episodes], axis=0)
    return Idle(float(ret), ready.deployment.progress(ret, length), float(cost), sum(ready.deployment.cost_limits) or None)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenarios", nargs="+")
    print("| scenario | return | progress | cost (limit) |\n|---|---|---|---|")
    for name in parser.parse_args().scenarios:
        still = idle(name)
        progress = "–" if still.progress is None else f"{still.progress:.1f}"
        limit = "" if still.cost_limit is None else f" ({still.cost_limit:g})"
        print(f"| {name} | {still.ret:.1f} | {progress} | {still.cost:.1f}{limit} |")


if __name__ == "__main__":
    main()
