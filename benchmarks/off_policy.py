"""Learning of values by agents of their own, on robots: `python benchmarks/off_policy.py`.

Sweeps IQL, I2Q and MA2QL over seeds on two robots without costs (`kappahop sweep`, which keeps what is finished and goes on
with the rest), draws the learning curves to docs/figures/off_policy.svg and prints the table that docs/results/index.md quotes.

`--rate` measures instead how much of the machine the loop turns into learning, as `throughput.py` does:

    efficiency = (CPU seconds of world, acting and updates of all agents, each alone) / cores / wall seconds of training
"""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from results import FIGURES, curve
from rich.console import Console
from rich.table import Table
from throughput import WARM_UP_ROUNDS, learning_alone, seconds_per_round, world_alone

import kappahop
from coordinator.records.database import Results
from coordinator.records.plan import plan
from scenarios.loading import load

TASKS = {"HalfCheetah 2x3": "mamujoco_halfcheetah_2x3", "Walker2d 2x3": "mamujoco_walker2d_2x3"}
ALGORITHMS = {"iql": "#D55E00", "i2q": "#0072B2", "ma2ql": "#009E73"}  # Okabe and Ito: told apart by colour-blind readers
STYLES = ("-", "--", ":")
SETTINGS = ("env.num_envs=5", "rollout.steps=200", "algorithm.off_policy.replay=rolling", "algorithm.off_policy.turn_rounds=10")
WARM_UP = "algorithm.off_policy.warm_up_steps"


def swept(scenario: str, env_steps: int, seeds: Sequence[int], root: Path) -> Path:
    """The folder of a task's runs, all of them finished."""
    out = root / scenario
    same = dict(setting.split("=") for setting in SETTINGS) | {WARM_UP: 10_000, "record.state_rounds": 50}
    kappahop.sweep(
        scenario, {"algorithm.name": ALGORITHMS}, seeds=seeds, jobs=1, out=out, progress=True,
        **{"budget.env_steps": env_steps}, **same,
    )  # fmt: skip
    return out


def show(root: Path) -> str:
    """Draw the curves of all finished sweeps; the table, as Markdown."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    lines = ["| task | algorithm | seed | return, first → last tenth | B per agent, step |", "|---|---|---|---|---|"]
    for axis, (task, scenario) in zip(figure.subplots(1, len(TASKS)), TASKS.items(), strict=True):
        for algorithm, colour in ALGORITHMS.items():
            for folder in sorted((root / scenario / f"algorithm.name={algorithm}").glob("seed=*/")):
                seed = folder.name.removeprefix("seed=")
                steps, returns = curve(folder, "return")
                tenth = max(1, len(returns) // 10)
                results = Results(folder)
                sent = sum(part.wire_bytes for part in results.by_kind() if part.plane == "peer")
                results.close()
                per_step = sent / (plan(load(scenario)).spec.n_agents * steps[-1])
                told = f"{returns[:tenth].mean():.0f} → {returns[-tenth:].mean():.0f}"
                lines.append(f"| {task} | {algorithm} | {seed} | {told} | {per_step:.3g} |")
                axis.plot(steps / 1e3, returns, STYLES[int(seed) % 3], color=colour, label=f"{algorithm}, seed {seed}")
        axis.set(xlabel="environment steps, thousands", ylabel="return of an episode", title=task)
        axis.legend(fontsize=8)
        axis.grid(alpha=0.3)
    FIGURES.mkdir(parents=True, exist_ok=True)
    figure.savefig(FIGURES / "off_policy.svg", metadata={"Date": None})
    return "\n".join(lines)


def rate(rounds: int) -> Table:
    """How fast the loop and its parts are, by task and algorithm; algorithms with turns leave cores idle and are left out."""
    cores = len(os.sched_getaffinity(0))
    table = Table(title=f"off-policy, {cores} cores, CPU seconds per round of 1000 steps")
    for heading in ("task", "algorithm", "world", "acting", "updates", "steps/s", "efficiency"):
        table.add_column(heading, justify="left" if heading in ("task", "algorithm") else "right")
    for task, scenario in TASKS.items():
        for algorithm in ("iql", "i2q"):
            budget = f"budget.env_steps={(rounds + WARM_UP_ROUNDS) * 1000}"
            words = [f"algorithm.name={algorithm}", *SETTINGS, f"{WARM_UP}=0", budget, "record.tensorboard=false"]
            ready = plan(load(scenario, words))
            parts = world_alone(ready)[1], *learning_alone(ready)
            wall_s = seconds_per_round(ready, learns=True)
            table.add_row(
                task, algorithm, *(f"{part:.2f}" for part in parts), f"{1000 / wall_s:,.0f}", f"{sum(parts) / cores / wall_s:.2f}"
            )
    return table


def main() -> None:
    """Sweep, draw, print; or measure the rate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path("runs/off_policy"), help="folder of the runs (default %(default)s)")
    parser.add_argument("--env-steps", type=int, default=300_000, help="of each run (default %(default)s)")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1], help="(default %(default)s)")
    parser.add_argument("--rate", action="store_true", help="measure the rate instead")
    parser.add_argument("--rounds", type=int, default=6, help="rounds measured per run with --rate (default %(default)s)")
    given = parser.parse_args()
    if given.rate:
        Console(width=110).print(rate(given.rounds))
        return
    for scenario in TASKS.values():
        swept(scenario, given.env_steps, given.seeds, given.root)
    print(show(given.root))


if __name__ == "__main__":
    main()
