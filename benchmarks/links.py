"""What limits on links cost in wall time: `make bench`, or `python benchmarks/links.py`.

The same run, with all its processes and all its learning, on ideal links and on links with limits: Safe HalfCheetah 6x1,
κ = 1, 10 copies x 200 steps a round, everything else by default. The presets take turns within one go, so that whatever
else the machine does falls on all of them alike; each turn gives one ratio to the ideal run beside it, and the median of
the ratios counts. Seconds are wall seconds per round, the start and the first round left out.
"""

import argparse
import os
from statistics import median

from rich.console import Console
from rich.table import Table
from throughput import WARM_UP_ROUNDS, seconds_per_round

from coordinator.records.plan import plan
from scenarios.loading import load

SETTINGS = ("kappa=1", "env.num_envs=10", "rollout.steps=200", "record.tensorboard=false")
IDEAL = "ideal"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", action="append", help="links compared with ideal ones (default wifi-campus and uav-mesh)")
    parser.add_argument("--turns", type=int, default=7, help="runs per preset (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds measured per run (default %(default)s)")
    arguments = parser.parse_args()
    presets = [IDEAL, *(arguments.preset or ("wifi-campus", "uav-mesh"))]
    budget = f"budget.env_steps={(arguments.rounds + WARM_UP_ROUNDS) * 2000}"
    ready = {preset: plan(load("safe_halfcheetah_6x1", [*SETTINGS, budget, f"network.preset={preset}"])) for preset in presets}
    seconds: dict[str, list[float]] = {preset: [] for preset in presets}
    for turn in range(arguments.turns):
        for preset in presets if turn % 2 == 0 else presets[::-1]:
            seconds[preset].append(seconds_per_round(ready[preset], learns=True))
    table = Table(title=f"wall seconds per round of 2000 steps, {len(os.sched_getaffinity(0))} cores, {arguments.turns} turns")
    for heading in ("links", "median", "least", "ratio to ideal: median", "least", "greatest"):
        table.add_column(heading, justify="left" if heading == "links" else "right")
    for preset in presets:
        ratios = [each / ideal for each, ideal in zip(seconds[preset], seconds[IDEAL], strict=True)]
        figures = (median(seconds[preset]), min(seconds[preset]), median(ratios), min(ratios), max(ratios))
        table.add_row(preset, *(f"{figure:.2f}" for figure in figures))
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
