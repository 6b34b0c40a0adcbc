"""Whether limits hold: `python benchmarks/limits_hold.py TASK...` makes the runs of a task, or only prints those that are there.

Tasks: `quickstart` (240 000 steps, the algorithm of `make demo`), `halfcheetah` and `ant` (safe_halfcheetah_6x1 and
safe_ant_4x2, 10⁶ steps, four algorithms). Five seeds each. A task is a sweep: the same command goes on where it was stopped,
and the runs lie in `runs/limits-TASK`. Per run it prints cost by tenth of the steps, final return and cost, the multiplier (or
MACPO's margin) at the end, and what the run says of its limit; per algorithm the interquartile means over seeds. All of it is
stored as `limits-TASK.json` beside the sweep. Where evaluations were recorded they are what counts as final; else the last
tenth, exploration included.

On two cores, a run at a time on each: quickstart about 10 minutes, halfcheetah and ant about 3 hours each.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import kappahop
from coordinator.records.database import Results
from coordinator.study.runs import Run, find
from coordinator.study.statistics import interquartile_mean

ALGORITHMS = ("scal_mappo_l", "mappo_l", "macpo", "mafocops")
TASKS: dict[str, tuple[str, tuple[str, ...]]] = {
    "quickstart": ("quickstart", ("scal_mappo_l",)),
    "halfcheetah": ("safe_halfcheetah_6x1", ALGORITHMS),
    "ant": ("safe_ant_4x2", ALGORITHMS),
}
SEEDS = range(5)
TENTHS = 10


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one run came to.

    Attributes:
        algorithm: Its name.
        seed: Its seed.
        costs: Mean cost of the episodes that ended in each tenth of the steps; nan where none did.
        returns: The same of returns.
        ret: Final return.
        cost: Final cost.
        price: Mean multiplier over agents in the last tenth of the rounds, of MACPO the margin; nan without either.
        limit: b.
        text: What the run says of its limit.
    """

    algorithm: str
    seed: int
    costs: tuple[float, ...]
    returns: tuple[float, ...]
    ret: float
    cost: float
    price: float
    limit: float
    text: str


def sweep(task: str, root: Path, *, jobs: int | None) -> Path:
    """Make what is missing of a task; its folder."""
    folder = root / f"limits-{task}"
    scenario, algorithms = TASKS[task]
    kappahop.sweep(scenario, {"algorithm.name": algorithms}, seeds=SEEDS, jobs=jobs, out=folder, in_process=True, progress=True)
    return folder


def outcome(run: Run) -> Outcome:
    """What a finished run recorded."""
    results = Results(run.folder)
    tenths = {name: _by_tenth(results.episodes(name), run.planned_steps) for name in ("return", "cost")}
    kind = "margin_0" if run.scenario.algorithm.recipe.constraint == "cpo" else "multiplier_0"
    prices = [price for agent, price in results.by_agent(kind).items() if agent < run.deployment.n_agents]
    results.close()
    figures = run.metrics
    evaluated = figures.get("eval_cost_mean") is not None
    return Outcome(
        algorithm=run.scenario.algorithm.name,
        seed=run.scenario.seed,
        costs=tenths["cost"],
        returns=tenths["return"],
        ret=figures["eval_return_mean" if evaluated else "return_mean"],
        cost=figures["eval_cost_mean" if evaluated else "cost_mean"],
        price=float(np.mean(prices)) if prices else float("nan"),
        limit=figures["cost_limit"],
        text="; ".join(verdict["text"] for verdict in figures["limits"]),
    )


def _by_tenth(episodes: Sequence[tuple[int, float]], steps: int) -> tuple[float, ...]:
    ends, values = (np.array(column, np.float64) for column in zip(*episodes, strict=True))
    places = np.ceil(ends * TENTHS / steps) - 1
    return tuple(float(values[places == k].mean()) if (places == k).any() else float("nan") for k in range(TENTHS))


def aggregate(found: Sequence[Outcome]) -> dict[str, Any]:
    """Interquartile means over seeds of the final return and cost, and how many seeds kept the limit."""
    final = np.array([[one.ret, one.cost] for one in found])
    ret, cost = (float(interquartile_mean(column[:, None])) for column in final.T)
    limit = found[0].limit
    return {
        "algorithm": found[0].algorithm,
        "seeds": len(found),
        "return_iqm": ret,
        "cost_iqm": cost,
        "cost_mean": float(final[:, 1].mean()),
        "cost_worst": float(final[:, 1].max()),
        "limit": limit,
        "kept": int((final[:, 1] <= limit).sum()),
    }


def table(found: Sequence[Outcome]) -> str:
    """Both tables in Markdown."""
    lines = [
        "| algorithm | seed | cost by tenth of the steps | return | cost | multiplier, margin |",
        "|---|---|---|---|---|---|",
    ]
    for one in found:
        by_tenth = " ".join("–" if np.isnan(cost) else f"{cost:.3g}" for cost in one.costs)
        lines.append(f"| {one.algorithm} | {one.seed} | {by_tenth} | {one.ret:.0f} | {one.cost:.1f} | {one.price:.2f} |")
    lines += [
        "",
        "| algorithm | seeds | return, IQM | cost, IQM | cost, mean | worst seed | limit | kept by |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(one.algorithm for one in found):
        whole = aggregate([one for one in found if one.algorithm == name])
        lines.append(
            f"| {name} | {whole['seeds']} | {whole['return_iqm']:.0f} | {whole['cost_iqm']:.1f} | {whole['cost_mean']:.1f} "
            f"| {whole['cost_worst']:.1f} | {whole['limit']:g} | {whole['kept']} of {whole['seeds']} |"
        )
    return "\n".join([*lines, "", *(f"{one.algorithm}, seed {one.seed}: {one.text}." for one in found)])


def main() -> None:
    """Make what is missing, print the tables, store them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", choices=[*TASKS, []], metavar="TASK", help=f"which of {', '.join(TASKS)} to run")
    parser.add_argument("--root", type=Path, default=Path("runs"), help="folder of the sweeps (default %(default)s)")
    parser.add_argument("--jobs", type=int, help="runs at a time (default: what the cores carry)")
    given = parser.parse_args()
    for task in given.tasks:
        sweep(task, given.root, jobs=given.jobs)
    for task in TASKS:
        folder = given.root / f"limits-{task}"
        if not folder.is_dir():
            continue
        found = [outcome(run) for run in find([folder]) if run.is_complete and run.metrics["return_mean"] is not None]
        found.sort(key=lambda one: (TASKS[task][1].index(one.algorithm), one.seed))
        if found:
            print(f"## {task}\n\n{table(found)}\n", flush=True)
            stored = [{name: getattr(one, name) for name in Outcome.__slots__} for one in found]
            folder.with_suffix(".json").write_text(json.dumps(stored, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
