"""Comparing cells: what each reaches, how sure that is, and what it costs on the links.

Theory of operation. Complete runs only: what broke off would stand for a shorter budget, and what diverged for nothing. A
cell of which a run diverged is the best only if there is no other kind, since its other seeds are those that happened to go
well. A run's score is the mean return of its last evaluation. A run without an evaluation is left out, and named: its training
returns hold the price of exploration. Where no run has an evaluation, or the training is asked for, all are judged by the
training episodes that ended last. A cell's score is the interquartile mean over its seeds.
Cells that spent differently are also compared where all have spent the same: each run is read off at the smallest budget
(steps, bytes or virtual seconds) that any run used; of bytes, at the smallest of the runs that sent any. The resampling is
seeded, so the same runs give the same table.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from coordinator.evaluation.baselines import kept as kept_baselines
from coordinator.run.collector import spoken
from coordinator.run.verdict import how_evaluated
from coordinator.study.optimum import optimum
from coordinator.study.runs import Cell, Curve, Judged, Run, cells, find, judged_by
from coordinator.study.statistics import (
    Interval,
    Violations,
    crossing,
    improvement_interval,
    improvement_prob,
    interquartile_mean,
    known_at,
    mean_interval,
    median_crossing,
    performance_profile,
    violations_by_age,
)
from scenarios.loading import ScenarioError

Array = NDArray[np.float64]
Axis = Literal["env_step", "wire_bytes", "virtual_s"]
_HOW_RUN = frozenset({"env.num_envs", "env.threads", "env.stagger"})  # of the section env, but not of the world
AXES: tuple[Axis, ...] = ("env_step", "wire_bytes", "virtual_s")


@dataclass(frozen=True, slots=True)
class Reached:
    """When a cell's runs reached a threshold.

    Attributes:
        runs: How many did.
        median: By axis, the position by which half are estimated to have; inf if that was not seen.
    """

    runs: int
    median: dict[Axis, float]


class Known(NamedTuple):
    """Return and cost of an episode, as far as known."""

    ret: float
    cost: float


@dataclass(frozen=True, slots=True)
class Row:
    """One cell's numbers.

    Attributes:
        cell: The cell, its complete runs only.
        ret: Each run's return, by evaluations or by the training as the comparison says, shape (runs, 1).
        iqm: Their interquartile mean.
        interval: 95 % confidence interval of it.
        progress: Interquartile mean of the runs' returns less the alive bonus; None where the world pays none, or a run did not
            record it.
        cost: Interquartile mean of the runs' costs.
        cost_limit: What it should stay below; None: nothing.
        bytes_per_agent_step: Wire bytes between agents, mean over runs.
        equal: Interquartile means of return and cost where all have spent the same, by axis; nan where a run knew nothing yet.
        violations: How often episodes cost more than the limit, by how old the information was that agents acted on in the
            rounds of the episode; of the whole training. Nothing without a limit, or if no agent received from others.
        reached: When the threshold was reached; None: none was asked for.
        diverged: How many further runs of the cell diverged.
        optimum: The best return that a team of this κ can be expected to reach, where it is known of the world.
    """

    cell: Cell
    ret: Array
    iqm: float
    interval: Interval
    progress: float | None
    cost: float
    cost_limit: float | None
    bytes_per_agent_step: float
    equal: dict[Axis, Known]
    violations: list[Violations]
    reached: Reached | None
    diverged: int
    optimum: float | None

    @property
    def exceeds(self) -> bool:
        """Whether its cost is above the limit."""
        return self.cost_limit is not None and self.cost > self.cost_limit


@dataclass(frozen=True, slots=True)
class Answer:
    """Which κ to take among cells that differ in nothing else.

    Attributes:
        group: What they have in common, as on a command line; "" if nothing was varied besides.
        best: The cell of the highest return, among those of which no run diverged if there are any.
        frugal: The cheapest that the best does not surely beat; the best itself if there is none.
        improvement: Probability that a run of the best scores higher than one of the frugal; None: one of them has a single run,
            which tells nothing of the chance of others.
        cells: How many were compared.
    """

    group: str
    best: Row
    frugal: Row
    improvement: float | None
    cells: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """Cells side by side.

    Attributes:
        rows: One per cell with a complete run.
        answers: One per group of cells that differ in κ only; if κ does not vary, one per world.
        overall: One over all groups; None if there is only one, or if they differ in their world (of which the graph is a part
            with network_lq): returns then say nothing of each other.
        positions: Where the cells are compared as to what they knew by then, by axis.
        uneven: The axes on which runs went differently far.
        threshold: The return that `reached` is about; None: none.
        judged: By which episodes.
        how: The same in words, with what policies did in evaluations.
        unevaluated: Runs without an evaluation, where evaluations were asked for: they are left out, or all runs are such.
        idle: What a team that does nothing gets, by world as on a command line ("" if there is one), where it was measured.
        baselines: What the world's own policies get that were played in one of the runs' worlds, by world likewise and by name.
        left_out: Folders of runs that are not complete.
        diverged: Runs that diverged, each with the name of its cell.
    """

    rows: list[Row]
    answers: list[Answer]
    overall: Answer | None
    positions: dict[Axis, float]
    uneven: list[Axis]
    threshold: float | None
    judged: Judged
    how: str
    unevaluated: list[Path] = field(default_factory=list)
    idle: dict[str, Known] = field(default_factory=dict)
    baselines: dict[str, dict[str, Known]] = field(default_factory=dict)
    left_out: list[Path] = field(default_factory=list)
    diverged: list[tuple[str, Run]] = field(default_factory=list)

    @property
    def knows_optimum(self) -> bool:
        """Whether the best is known of a world of the cells."""
        return any(row.optimum is not None for row in self.rows)

    @property
    def has_progress(self) -> bool:
        """Whether a world of the cells pays an alive bonus, so that returns alone say little."""
        return any(row.progress is not None for row in self.rows)

    @property
    def has_costs(self) -> bool:
        """Whether there is a limit on costs, or an episode that cost anything."""
        return any(row.cost_limit is not None or row.cost for row in self.rows)

    @property
    def ages_differ(self) -> bool:
        """Whether there is anything to say of violations against age: episodes with a limit, acted on news of several ages."""
        return len({one.age_s for row in self.rows for one in row.violations}) > 1

    def as_json(self) -> dict[str, Any]:
        """Everything as plain data, with each run's metrics, profiles, and every cell's probability of improving on each."""
        levels = np.unique(np.concatenate([row.ret[:, 0] for row in self.rows]))
        return {
            "positions": self.positions,
            "threshold": self.threshold,
            "judged": self.judged,
            "how": self.how,
            "unevaluated": [str(folder) for folder in self.unevaluated],
            "idle": {world: known._asdict() for world, known in self.idle.items()},
            "baselines": {
                world: {name: known._asdict() for name, known in each.items()} for world, each in self.baselines.items()
            },
            "left_out": [str(folder) for folder in self.left_out],
            "diverged": [
                {"cell": cell, "seed": run.scenario.seed, "run": str(run.folder), **one}
                for cell, run in self.diverged
                for one in run.diverged
            ],
            "profile_levels": levels.tolist(),
            "cells": [
                {
                    "cell": row.cell.name,
                    "settings": row.cell.settings,
                    "seeds": [run.scenario.seed for run in row.cell.runs],
                    "diverged": row.diverged,
                    "return": row.ret[:, 0].tolist(),
                    "return_iqm": row.iqm,
                    "return_interval": [_finite(end) for end in row.interval],
                    "progress_iqm": row.progress,
                    "optimum": row.optimum,
                    "cost_iqm": row.cost,
                    "cost_limit": row.cost_limit,
                    "bytes_per_agent_step": row.bytes_per_agent_step,
                    "return_at_equal": {axis: _finite(known.ret) for axis, known in row.equal.items()},
                    "cost_at_equal": {axis: _finite(known.cost) for axis, known in row.equal.items()},
                    "violations": [
                        {**one._asdict(), "interval": [_finite(end) for end in one.interval]} for one in row.violations
                    ],
                    "reached": None
                    if row.reached is None
                    else {"runs": row.reached.runs, **{axis: _finite(value) for axis, value in row.reached.median.items()}},
                    "profile": performance_profile(row.ret, levels).tolist(),
                    "improves_on": {other.cell.name: _improvement(row, other) for other in self.rows},
                }
                for row in self.rows
            ],
            "answers": [_plain(answer) for answer in self.answers],
            "overall": None if self.overall is None else _plain(self.overall),
        }


def compare(places: Sequence[Path], *, threshold: float | None = None, held: int = 1, training: bool = False) -> Comparison:
    """The complete runs in some folders, cell by cell.

    Args:
        places: Sweeps, runs, or folders of such.
        threshold: Return of an episode whose reaching is timed.
        held: Rounds in a row for which it must hold.
        training: Whether runs are judged by the episodes of their training, even if they have evaluations.

    Raises:
        ScenarioError: there is no complete run with an ended episode.
    """
    found = find(places)
    whole = complete(found, training=training)
    diverged = [run for run in found if run.diverged]
    left_out = [run.folder for run in found if run not in whole and run not in diverged]
    if not whole:
        told = [f"{len(left_out)} unfinished or without an episode"] if left_out else []
        if diverged:
            told.append(f"{len(diverged)} diverged, first {diverged[0].folder}: {spoken(diverged[0].diverged[0])}")
        raise ScenarioError(f"no complete run in {', '.join(map(str, places))}; {', '.join(told)}")
    return compare_runs(whole, threshold=threshold, held=held, left_out=left_out, diverged=diverged, training=training)


def complete(runs: Sequence[Run], *, training: bool) -> list[Run]:
    """Of some runs those that are complete and have come to a return, of which some may lack the evaluation of it."""
    whole = [run for run in runs if run.is_complete]
    judged = judged_by(whole, training=training)
    return [run for run in whole if run.is_judged(judged) or run.is_judged("training")]


def compare_runs(
    runs: Sequence[Run],
    *,
    threshold: float | None = None,
    held: int = 1,
    left_out: Sequence[Path] = (),
    diverged: Sequence[Run] = (),
    training: bool = False,
) -> Comparison:
    """Runs cell by cell, those that still go on as far as they have come; of each an episode must have ended.

    Args:
        runs: What is compared.
        threshold: Return of an episode whose reaching is timed.
        held: Rounds in a row for which it must hold.
        left_out: Folders of further runs, to be named.
        diverged: Further runs, which diverged: they count against their cells and for nothing.
        training: Whether runs are judged by the episodes of their training, even if they have evaluations.

    Raises:
        ScenarioError: two runs are of the same scenario and seed, or some are trainings and others evaluations.
    """
    learns = {run.deployment.learns: run.folder for run in (*runs, *diverged)}
    if len(learns) > 1:
        raise ScenarioError(f"{learns[True]} is a training and {learns[False]} an evaluation; compare one kind at a time")
    judged = judged_by(runs, training=training)
    lacking = [] if training else [run.folder for run in runs if not run.is_judged("evaluated")]
    runs = [run for run in runs if run.is_judged(judged)]
    every = cells([*runs, *diverged])
    sorted_in = [whole for cell in every if (whole := replace(cell, runs=[run for run in cell.runs if run in runs])).runs]
    lost = [(cell.name, run) for cell in every for run in cell.runs if run in diverged]
    curves = {run.folder: run.course(judged) for run in runs}
    ends: dict[Axis, list[float]] = {axis: [float(getattr(curve, axis)[-1]) for curve in curves.values()] for axis in AXES}
    positions = {axis: _least(places) for axis, places in ends.items()}
    uneven = [axis for axis, places in ends.items() if len(set(places)) > 1]
    rows = [
        _row(
            cell,
            [curves[run.folder] for run in cell.runs],
            judged,
            positions,
            threshold,
            held,
            sum(name == cell.name for name, _ in lost),
        )
        for cell in sorted_in
    ]
    groups = grouped(rows)
    answers = [_answer(name, members) for name, members in groups.items()]
    overall = _answer("of all", rows) if len(groups) > 1 and not _worlds(rows) else None
    how = (
        "in training, exploration included" if judged == "training" else f"evaluated {how_evaluated([run.draws for run in runs])}"
    )
    idle = _idle(rows)
    baselines = _baselines(rows)
    return Comparison(
        rows, answers, overall, positions, uneven, threshold, judged, how, lacking, idle, baselines, list(left_out), lost
    )


def _idle(rows: Sequence[Row]) -> dict[str, Known]:
    found: dict[str, list[Known]] = {}
    for row in rows:
        for run in row.cell.runs:
            if (ret := run.metrics.get("idle_return")) is not None:
                cost = sum(run.metrics["idle_costs"] or ())
                found.setdefault(world_of(rows, row), []).append(Known(ret, cost))
    return {world: _mean(each) for world, each in found.items()}


def _baselines(rows: Sequence[Row]) -> dict[str, dict[str, Known]]:
    """The mean over runs beside which a baseline was kept: each was played with the seed of its run."""
    found: dict[str, dict[str, list[Known]]] = {}
    for row in rows:
        for run in row.cell.runs:
            for name, played in kept_baselines(run.folder).items():
                known = Known(played.ret.mean, sum(cost.mean for cost in played.costs))
                found.setdefault(world_of(rows, row), {}).setdefault(name, []).append(known)
    return {world: {name: _mean(known) for name, known in each.items()} for world, each in found.items()}


def _mean(known: Sequence[Known]) -> Known:
    return Known(float(np.mean([one.ret for one in known])), float(np.mean([one.cost for one in known])))


def world_of(rows: Sequence[Row], row: Row) -> str:
    """The world of one of some rows, as on a command line; "" if all are in one."""
    return row.cell.said(_worlds(rows))


def grouped(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows that differ in κ only, by what they have in common as on a command line; if κ does not vary, rows of one world."""
    groups: dict[str, list[Row]] = {}
    worlds = _worlds(rows)
    for row in rows:
        groups.setdefault(row.cell.group if "kappa" in row.cell.settings else row.cell.said(worlds), []).append(row)
    return groups


def _worlds(rows: Sequence[Row]) -> list[str]:
    """Keys in which the worlds of rows differ: returns of different ones say nothing of each other."""
    networks = any(run.scenario.env.name == "network_lq" for row in rows for run in row.cell.runs)  # the graph is a part of them
    made_of = ("env.", "topology.") if networks else ("env.",)
    return [key for key in rows[0].cell.settings if key.startswith(made_of) and key not in _HOW_RUN]


def _least(ends: Sequence[float]) -> float:
    return min((end for end in ends if end > 0), default=0.0)


def _row(
    cell: Cell,
    curves: Sequence[Curve],
    judged: Judged,
    positions: dict[Axis, float],
    threshold: float | None,
    held: int,
    diverged: int,
) -> Row:
    metrics = [run.reached(judged) for run in cell.runs]
    ret = _column([one["return_mean"] for one in metrics])
    equal = {}
    for axis, place in positions.items():
        returns = [known_at(getattr(curve, axis), curve.ret, np.array([place]))[0] for curve in curves]
        costs = [known_at(getattr(curve, axis), curve.cost, np.array([place]))[0] for curve in curves]
        equal[axis] = Known(float(interquartile_mean(_column(returns))), float(interquartile_mean(_column(costs))))
    return Row(
        cell=cell,
        ret=ret,
        iqm=float(interquartile_mean(ret)),
        interval=mean_interval(ret, np.random.default_rng(0)),
        progress=_progress([one.get("progress_mean") for one in metrics]),
        cost=float(interquartile_mean(_column([one["cost_mean"] for one in metrics]))),
        cost_limit=metrics[0]["cost_limit"],
        bytes_per_agent_step=float(np.mean([one["bytes_per_agent_step"] for one in metrics])),
        equal=equal,
        violations=[] if (limit := metrics[0]["cost_limit"]) is None else _violations(cell, limit),
        reached=None if threshold is None else _reached(curves, threshold, held),
        diverged=diverged,
        optimum=optimum(cell.runs[0]),
    )


def _progress(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(interquartile_mean(_column(known))) if known and len(known) == len(values) else None


def _violations(cell: Cell, limit: float) -> list[Violations]:
    ages, costs = zip(*(run.ages_and_costs() for run in cell.runs), strict=True)
    return violations_by_age(ages, [cost > limit for cost in costs])


def _reached(curves: Sequence[Curve], threshold: float, held: int) -> Reached:
    median: dict[Axis, float] = {}
    runs = 0
    for axis in AXES:
        times = [crossing(getattr(curve, axis), curve.ret, threshold, held=held) for curve in curves]
        runs = sum(time.reached for time in times)
        median[axis] = median_crossing(times)
    return Reached(runs, median)


def _answer(group: str, members: Sequence[Row]) -> Answer:
    rows = [row for row in members if not row.diverged] or members
    best = max(rows, key=lambda row: row.iqm)
    equals = [best]
    for row in rows:
        low = improvement_interval(best.ret, row.ret, np.random.default_rng(0)).low
        if np.isnan(low) or low <= 0.5:
            equals.append(row)
    frugal = min(equals, key=lambda row: row.bytes_per_agent_step)
    return Answer(group, best, frugal, _improvement(best, frugal), len(members))


def _improvement(one: Row, other: Row) -> float | None:
    return float(improvement_prob(one.ret, other.ret)) if min(len(one.ret), len(other.ret)) > 1 else None


def _plain(answer: Answer) -> dict[str, Any]:
    return {
        "group": answer.group,
        "best": answer.best.cell.name,
        "frugal": answer.frugal.cell.name,
        "improvement": answer.improvement,
    }


def _column(values: Sequence[float]) -> Array:
    return np.array(values, dtype=np.float64)[:, None]


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
