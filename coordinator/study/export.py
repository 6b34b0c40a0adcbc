"""Handing results to other programs: tidy tables as CSV or Parquet, and the JSON that marl-eval reads.

Theory of operation. Each table is that of the runs' databases, all runs one below the other, with columns before it that
say which run a row is of: `run` (its folder), `cell`, `seed`, and one column per setting that sets cells apart. `runs` has a
row per run with the metrics that it reported. Numbers that a run did not know stay empty.
"""

import json
import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from coordinator.run.collector import spoken
from coordinator.run.metrics import latest
from coordinator.study.runs import Cell, Run, TableName, cells, find, judged_by, shown
from scenarios.loading import ScenarioError

Format = Literal["csv", "parquet", "marl-eval"]
TABLES: tuple[TableName, ...] = ("evaluations", "evaluation_traffic", "episodes", "rounds", "traffic", "ages", "events")
POINTS = 20  # evaluations per run in marl-eval's JSON, at most
_FIGURES = (
    "env_steps", "wall_s", "env_steps_per_s", "return_mean", "progress_mean", "cost_mean", "cost_limit", "faulty_episodes",
    "eval_return_mean", "eval_cost_mean", "eval_episodes", "best_return_mean", "best_cost_mean", "best_round",
    "payload_bytes", "wire_bytes", "bytes_per_agent_step", "weights_sha256", "ledger_sha256",
)  # fmt: skip
_WRITERS: dict[str, Callable[[Any, Path], None]] = {
    "csv": lambda table, path: pyarrow.csv.write_csv(table, path),
    "parquet": lambda table, path: pyarrow.parquet.write_table(table, path),
}


def export(places: Sequence[Path], form: Format, out: Path, *, training: bool = False) -> list[Path]:
    """Write the runs of some folders for other programs.

    Args:
        places: Runs, sweeps, or folders of such.
        form: `csv` and `parquet` make a folder with a file per table, `marl-eval` one file.
        out: What to make; it must not exist yet, or be an empty folder.
        training: Whether `marl-eval` is given the episodes of the training, even where there are evaluations.

    Returns:
        The files written.

    Raises:
        ScenarioError: there is nothing to export, it does not fit the format, or `out` cannot be written.
    """
    sorted_in = cells(find(places))
    try:
        if out.exists() and (form == "marl-eval" or not out.is_dir() or any(out.iterdir())):
            raise ScenarioError(f"--out: {out} exists already; give a new name")
        if form == "marl-eval":
            content = json.dumps(marl_eval(sorted_in, training=training), indent=1, allow_nan=False)
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(content, encoding="utf-8")
            return [out]
        out.mkdir(parents=True, exist_ok=True)
        written = []
        for name, table in tables(sorted_in).items():
            written.append(out / f"{name}.{form}")
            _WRITERS[form](table, written[-1])
        return written
    except OSError as error:
        raise ScenarioError(f"--out: cannot write {out} ({error.strerror or error})") from None


def tables(sorted_in: Sequence[Cell]) -> dict[str, pa.Table]:
    """`runs` and the tables of `TABLES`, of all runs, each row with the keys of its run."""
    runs = [(cell, run) for cell in sorted_in for run in cell.runs]
    keys = [_keys(cell, run) for cell, run in runs]
    metrics = [
        {"complete": run.is_complete, "diverged": _diverged(run)} | {name: run.metrics.get(name) for name in _FIGURES}
        for _, run in runs
    ]
    found = {"runs": pa.Table.from_pylist([key | figure for key, figure in zip(keys, metrics, strict=True)])}
    keyed = pa.Table.from_pylist(keys)  # all at once, so that a column has one type in all runs
    for name in TABLES:
        parts = []
        for place, (_, run) in enumerate(runs):
            own = run.table(name)
            if not own:  # older runs have no evaluations
                continue
            if name == "episodes" and (bonus := run.deployment.alive_bonus):
                own["progress"] = own["return"] - bonus * own["length"]
            n_rows = len(next(iter(own.values())))
            part = keyed.slice(place, 1).take(pa.array(np.zeros(n_rows, dtype=np.int64)))
            for column, values in own.items():
                # prefixed where a setting has the same name, as may be
                part = part.append_column(f"{name}.{column}" if column in keyed.column_names else column, _array(values))
            parts.append(part)
        if parts:
            found[name] = pa.concat_tables(parts, promote_options="default")
    return found


def marl_eval(sorted_in: Sequence[Cell], *, training: bool = False) -> dict[str, Any]:
    """Runs in the nested JSON that marl-eval reads: environment, task, algorithm, seed, step, metric, list of values.

    Environment is the world; task its partition with whatever else of the world was varied, the graph and the links; algorithm
    the recipe with whatever else was varied, κ above all. A step's values are those of an evaluation, and `absolute_metrics`
    those of the best policies, which were evaluated on ten times as many episodes.

    Where a run has no evaluations, or the training is asked for, a step's values are the training episodes that ended since the
    step before; if none did, those of the step before. There are then as many steps as every run has episodes for, at most
    `POINTS`, and `absolute_metrics` are the episodes that ended last. Episodes that a fault of the simulation ended have no
    values; in a run that did not diverge none of the last has.

    Raises:
        ScenarioError: runs are unfinished, differ in budget or seeds (marl-eval needs them alike), or ended no episode.

    Source:
        Gorsane et al. 2022 (arXiv:2209.10485); the structure is that of the README of marl-eval, with `absolute_metrics`
        last, as its code takes a run's last entry for them, and environment, task and metric in lower case, as it looks
        them up so.
    """
    runs = [run for cell in sorted_in for run in cell.runs]
    for run in runs:
        if run.diverged:
            raise ScenarioError(f"{run.folder}: {_diverged(run)}; marl-eval has no word for a run without a return, leave it out")
        if not run.is_complete:
            raise ScenarioError(f"{run.folder}: unfinished; marl-eval needs runs of equal length")
        if run.planned_steps != runs[0].planned_steps:
            raise ScenarioError(
                f"{run.folder}: {run.planned_steps:,} steps, {runs[0].folder}: {runs[0].planned_steps:,}; "
                "marl-eval needs runs of equal length"
            )
    seeds = [[run.scenario.seed for run in cell.runs] for cell in sorted_in]
    for cell, own in zip(sorted_in, seeds, strict=True):
        if own != seeds[0]:
            raise ScenarioError(
                f"{cell.name}: seeds {own}, {sorted_in[0].name}: seeds {seeds[0]}; marl-eval needs the same for all"
            )
    evaluated = judged_by(runs, training=training) == "evaluated" and all(run.deployment.learns for run in runs)
    for run in runs if evaluated else ():
        if run.metrics.get("best_round") is None:
            raise ScenarioError(
                f"{run.folder}: its best policies were not evaluated at the end; kappahop resume makes up for it, "
                "--training does without"
            )
    entries = [_evaluations(run) for run in runs] if evaluated else _of_training(runs)
    if len(steps := {tuple(step.get("step_count") for step in entry.values()) for entry in entries}) > 1:
        raise ScenarioError(
            f"runs are evaluated after other steps than others ({len(steps)} ways); marl-eval needs the same for all"
        )
    by_run = {run.folder: entry for run, entry in zip(runs, entries, strict=True)}
    found: dict[str, Any] = {}
    for cell in sorted_in:
        env, task, algorithm = _names(cell)
        entry = found.setdefault(env, {}).setdefault(task, {}).setdefault(algorithm, {})
        for run in cell.runs:
            entry[f"seed_{run.scenario.seed}"] = by_run[run.folder]
    return found


def _keys(cell: Cell, run: Run) -> dict[str, Any]:
    settings = {key: setting(value) for key, value in cell.settings.items()}
    return {"run": str(run.folder), "scenario": run.scenario.name, "cell": cell.name, "seed": run.scenario.seed} | settings


def setting(value: Any) -> int | float | str | None:
    """A setting's value as a table holds it: as a number where it is one, else as it is typed on a command line."""
    return value if isinstance(value, int | float | str | None) else shown(value)


def _array(values: Any) -> pa.Array:
    return pa.array(values, type=pa.string() if values.dtype == object else None, from_pandas=True)


def _diverged(run: Run) -> str | None:
    return "; ".join(map(spoken, run.diverged)) or None


def _names(cell: Cell) -> tuple[str, str, str]:
    scenario = cell.runs[0].scenario
    settings = {key: f"{key}={shown(value)}" for key, value in cell.settings.items()}
    own = {"env.name", "env.partition", "env.agents", "algorithm.name"}
    team = str(scenario.env.model_dump().get("partition", cell.runs[0].deployment.n_agents))
    of_task = ("env.", "topology.", "network.")
    task = [team, *(word for key, word in settings.items() if key.startswith(of_task) and key not in own)]
    algorithm = [
        scenario.algorithm.name,
        *(word for key, word in settings.items() if not key.startswith(of_task) and key not in own),
    ]
    return scenario.env.name, " ".join(task).lower(), " ".join(algorithm)


def _evaluations(run: Run) -> dict[str, Any]:
    """A step per evaluation, as many episodes each; then those of the best policies."""
    table = run.table("evaluations")
    last, count = run.scenario.n_rounds - 1, run.scenario.evaluation.episodes
    entry: dict[str, Any] = {}
    for round_ in np.unique(table["round"]):
        at = (table["round"] == round_) & (table["at_end"] == (round_ == last)) & (table["copy"] < count)
        step = int(table["env_step"][at][0])
        entry[f"step_{len(entry)}"] = {
            "step_count": step,
            "return": _known(table["return"][at]),
            "cost": _known(table["cost"][at]),
        }
    best = (table["round"] == run.metrics["best_round"]) & (table["at_end"] == 1)
    entry["absolute_metrics"] = {"return": _known(table["return"][best]), "cost": _known(table["cost"][best])}
    return entry


def _known(values: Any) -> list[float]:
    return [float(value) for value in values if np.isfinite(value)]


def _of_training(runs: Sequence[Run]) -> list[dict[str, Any]]:
    episodes = [_episodes(run) for run in runs]
    total = runs[0].planned_steps
    points = min(POINTS, *(math.floor(total / own[0, 0]) for own in episodes))
    return [_ended(own, total, points, learns=run.deployment.learns) for run, own in zip(runs, episodes, strict=True)]


def _episodes(run: Run) -> Any:
    table = run.table("episodes")
    found = np.stack([table["env_step"].astype(np.float64), table["return"], table["cost"]], axis=1)
    found = found[np.isfinite(found).all(axis=1)]
    if not len(found):
        raise ScenarioError(f"{run.folder}: no episode ended, so there is nothing to evaluate")
    return found


def _ended(episodes: Any, total: int, points: int, *, learns: bool) -> dict[str, Any]:
    entry: dict[str, Any] = {}
    edges = [total * place // points for place in range(points + 1)]
    known = episodes[:0]
    for place, (first, last) in enumerate(pairwise(edges)):
        fresh = episodes[(episodes[:, 0] > first) & (episodes[:, 0] <= last)]
        known = fresh if len(fresh) else known
        entry[f"step_{place}"] = {"step_count": last, **_metrics(known)}
    (first,), (behind,) = latest(episodes[:, 0], np.array([float(total)]), learns=learns)
    entry["absolute_metrics"] = _metrics(episodes[first:behind])
    return entry


def _metrics(episodes: Any) -> dict[str, list[float]]:
    return {"return": episodes[:, 1].tolist(), "cost": episodes[:, 2].tolist()}
