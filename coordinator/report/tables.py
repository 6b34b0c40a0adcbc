"""What a person sees of many runs: how far a sweep is, and how its cells compare."""

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import numpy as np
from rich.console import Console
from rich.live import Live
from rich.table import Table

from coordinator.report.words import size
from coordinator.run.collector import spoken
from coordinator.study.comparison import AXES, Axis, Comparison, Row
from coordinator.study.decay import Decay
from coordinator.study.runs import Run
from coordinator.study.statistics import Interval, Violations
from coordinator.study.sweep import Job, Sweep
from scenarios.loading import ScenarioError

MOST_ROWS = 20  # of unfinished cells; a table longer than the window could not be redrawn in place


class SweepProgress:
    """Progress of a sweep on a console; a line per run where the console is no terminal, nothing if quiet."""

    def __init__(self, console: Console, sweep: Sweep, *, quiet: bool) -> None:
        self._console = console
        self._quiet = quiet
        self._began = time.monotonic()
        self._todo = [job for job in sweep.jobs if job.state == "waiting"]
        self._told: set[int] = set()
        # redrawn by `watch` alone: a thread that draws would make forking unsafe
        self._live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal and not quiet else None

    def __enter__(self) -> Self:
        """Start drawing."""
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Stop drawing."""
        if self._live is not None:
            self._live.stop()

    def watch(self, sweep: Sweep) -> None:
        """Show how far the sweep is."""
        for place, job in enumerate(self._todo):
            if job.state in ("done", "diverged", "failed") and place not in self._told:
                self._told.add(place)
                if not self._quiet:
                    self._console.print(self._line(job), highlight=False, soft_wrap=True, markup=False)
        if self._live is not None:
            self._live.update(self._table(sweep), refresh=True)

    def _line(self, job: Job) -> str:
        how = {"done": f"{job.wall_s:.1f} s", "diverged": job.error}.get(job.state, f"failed: {job.error}")
        return f"[{len(self._told)}/{len(self._todo)}] {job.cell.name} seed={job.seed}: {how}"

    def _table(self, sweep: Sweep) -> Table:
        total, done = len(sweep.jobs), sum(job.state in ("done", "diverged") for job in sweep.jobs)
        table = Table(title=f"{done} of {total} runs done{self._remaining()}")
        for heading in ("cell", "done", "under way", "failed", "diverged"):
            table.add_column(heading, justify="left" if heading in ("cell", "under way") else "right")
        by_cell: dict[str, list[Job]] = {}
        for job in sweep.jobs:
            by_cell.setdefault(job.cell.name, []).append(job)
        unfinished = {name: jobs for name, jobs in by_cell.items() if any(job.state not in ("done", "diverged") for job in jobs)}
        for name, jobs in list(unfinished.items())[:MOST_ROWS]:
            n_done, n_failed, n_diverged = (sum(job.state == state for job in jobs) for state in ("done", "failed", "diverged"))
            under_way = ", ".join(f"seed {job.seed} {_done_frac(job):.0%}" for job in jobs if job.state == "running")
            table.add_row(name, f"{n_done} of {len(jobs)}", under_way, str(n_failed or ""), str(n_diverged or ""))
        if len(unfinished) > MOST_ROWS:
            table.add_row(f"… and {len(unfinished) - MOST_ROWS} more", "", "", "", "")
        return table

    def _remaining(self) -> str:
        done = sum(job.state in ("done", "diverged", "failed") for job in self._todo)
        under_way = sum(_done_frac(job) for job in self._todo if job.state == "running")
        if not done:
            return ""
        left_s = (time.monotonic() - self._began) * (len(self._todo) - done - under_way) / (done + under_way)
        return f", about {left_s / 60:.0f} min left" if left_s > 90 else f", about {left_s:.0f} s left"


def _done_frac(job: Job) -> float:
    run = Run(job.folder, job.cell.scenario)
    try:
        return run.steps_done / run.planned_steps
    except ScenarioError:  # it has no database yet
        return 0.0


def comparison(found: Comparison) -> Table:
    """The words of `cell_words` on a console, where each setting that sets cells apart has a column of its own."""
    table = Table(title=f"return of an episode, {found.how}; interquartile mean over seeds")
    headings, lines = cell_words(found)
    _add_columns(table, found, headings)
    names = [_names(found, row) for row in found.rows]
    names += [[name, *[""] * (len(names[0]) - 1)] for name, _ in lines[len(names) :]]
    for told, (_, words) in zip(names, lines, strict=True):
        table.add_row(*told, *words)
    return table


def cell_words(found: Comparison) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """A table of cells, with the same words in the terminal, in the page and in LaTeX.

    Costs are among the columns if there is a limit or an episode that cost anything. Of the axes of spending, those are on which
    some run went further than another.

    Returns:
        Headings; a line per cell, and then one per world of what doing nothing brings, each a name and as many words as there
        are headings.
    """
    with_cost = found.has_costs
    what = "return, cost" if with_cost else "return"
    have_diverged = any(row.diverged for row in found.rows)
    headings = [
        "seeds",
        *(["diverged"] if have_diverged else []),
        "return",
        "95 % interval",
        *(["best possible"] if found.knows_optimum else []),
        *(["progress"] if found.has_progress else []),
        "B per agent, step",
        *(f"{what} at {amount(axis, found.positions[axis])}" for axis in found.uneven),
        *(["cost (limit)"] if with_cost else []),
    ]
    lines = []
    for row in found.rows:
        words = [str(len(row.ret)), *([str(row.diverged)] if have_diverged else [])]
        words += [figure(row.iqm), interval(row.interval)]
        words += [figure(row.optimum)] if found.knows_optimum else []
        words += [figure(row.progress)] if found.has_progress else []
        words.append(f"{row.bytes_per_agent_step:.1f}")
        known = [row.equal[axis] for axis in found.uneven]
        words += [f"{figure(one.ret)}, {figure(one.cost)}" if with_cost else figure(one.ret) for one in known]
        if with_cost:
            words.append(figure(row.cost) + ("" if row.cost_limit is None else f" ({row.cost_limit:g})"))
        lines.append((row.cell.name, words))
    yardsticks = [("does nothing", world, idle) for world, idle in found.idle.items()]
    for world, each in found.baselines.items():
        yardsticks += [(f"baseline {name}", world, played) for name, played in each.items()]
    for name, world, yardstick in yardsticks:
        words = ["–", *(["–"] if have_diverged else []), figure(yardstick.ret)]
        words += [*["–"] * (1 + found.knows_optimum + found.has_progress), "0.0", *["–"] * len(found.uneven)]
        lines.append((f"{name}{f' ({world})' if world else ''}", words + ([figure(yardstick.cost)] if with_cost else [])))
    return headings, lines


def reaching(found: Comparison) -> Table:
    """One line per cell: how many runs reached the threshold, and by what half of them are estimated to have."""
    table = Table(title=f"half of the runs reach a return of {found.threshold:g} by")
    _add_columns(table, found, ["seeds", "steps", "bytes", "virtual s", "seen to"])
    for row in found.rows:
        if row.reached is not None:
            medians = [amount(axis, row.reached.median[axis]) for axis in AXES]
            table.add_row(*_names(found, row), str(len(row.ret)), *medians, f"{row.reached.runs} of {len(row.ret)}")
    return table


def violating(found: Comparison) -> Table:
    """A few lines per cell: how often episodes cost more than their limit, by how old the information was."""
    table = Table(title="episodes of the training above their cost limit, by age of what agents acted on")
    _add_columns(table, found, ["seeds", "mean age", "episodes", "above the limit", "95 % interval"])
    for row in found.rows:
        for place, one in enumerate(row.violations):
            told = [*_names(found, row), str(len(row.ret))]
            told = told if place == 0 else [""] * len(told)
            table.add_row(*told, *violation_words(one), end_section=place == len(row.violations) - 1)
    return table


def violation_words(one: Violations) -> list[str]:
    """Mean age, number of episodes, share of them above the limit, and its interval."""
    ends = "–" if np.isnan(one.interval.low) else f"[{100 * one.interval.low:.1f}, {100 * one.interval.high:.1f}] %"
    return [f"{1000 * one.age_s:,.4g} ms", f"{one.episodes:,}", f"{100 * one.rate:.1f} %", ends]


def _add_columns(table: Table, found: Comparison, headings: Sequence[str]) -> None:
    for key in _columns(found):
        table.add_column("κ" if key == "kappa" else key, overflow="fold")  # where a line is too short nothing is cut off
    for heading in headings:
        table.add_column(heading, justify="right", overflow="fold", no_wrap=heading == "95 % interval")


def _columns(found: Comparison) -> list[str]:
    """What tells the lines of a table apart: a column per setting, or, where a cell has a label, one for all but κ."""
    settings = found.rows[0].cell.settings
    if any(row.cell.label for row in found.rows):
        return ["cell", *(["kappa"] if "kappa" in settings else [])]
    return list(settings) or ["scenario"]


def _names(found: Comparison, row: Row) -> list[str]:
    words = {"cell": row.cell.heading or row.cell.name, "scenario": row.cell.name, **row.cell.words}
    return [words[key] for key in _columns(found)]


def answers(found: Comparison) -> list[str]:
    """Which κ on which graph at what price: a sentence per group of cells that differ in κ only, and one over all."""
    told = []
    for answer in [*found.answers, *([] if found.overall is None else [found.overall])]:
        best, frugal = answer.best, answer.frugal
        where = f"{answer.group}: " if answer.group else ""
        whole = answer is found.overall
        sentence = f"{where}{'highest return' if answer.cells > 1 else 'return'} {_priced(best, whole=whole)}"
        if frugal is not best:
            sure = "a single seed gives no probability"
            if answer.improvement is not None:
                sure = f"P(best > this) = {answer.improvement:.2f}"
            sentence += f"; no significant difference: {_priced(frugal, whole=whole)}, {sure}"
        told.append(sentence)
    return told


def unevaluated(found: Comparison) -> list[str]:
    """Which runs have no evaluation, and what follows from it."""
    if not found.unevaluated:
        return []
    if found.judged == "training":
        return ["judged by training returns, exploration included: no run has an evaluation"]
    more = f" and {len(found.unevaluated) - 1} more runs have" if len(found.unevaluated) > 1 else " has"
    return [f"left out: {found.unevaluated[0]}{more} no evaluation (--training compares all by their training returns)"]


def divergences(found: Comparison) -> list[str]:
    """Which runs diverged, and when: a sentence each, or as many as a person reads."""
    told = [f"{cell}, seed {run.scenario.seed}: {spoken(run.diverged[0])}" for cell, run in found.diverged]
    return [*told[:MOST_ROWS], *([f"… and {len(told) - MOST_ROWS} more runs diverged"] if len(told) > MOST_ROWS else [])]


def interval(ends: Interval) -> str:
    """Both ends; a dash where they are not known."""
    return "–" if np.isnan(ends.low) else f"[{figure(ends.low)}, {figure(ends.high)}]"


def _priced(row: Row, *, whole: bool) -> str:
    which = row.cell.name if whole or "kappa" not in row.cell.settings else f"κ={row.cell.settings['kappa']}"
    lost = f" ({row.diverged} of its {len(row.ret) + row.diverged} runs diverged)" if row.diverged else ""
    over = f" (its cost {figure(row.cost)} is above the limit {row.cost_limit:g})" if row.exceeds else ""
    priced = f"at {row.bytes_per_agent_step:.1f} B per agent and step"
    return f"{figure(row.iqm)} {interval(row.interval)} with {which} {priced}{over}{lost}"


def figure(value: float | None) -> str:
    """A return or a cost; a dash where it is not known."""
    if value is None or np.isnan(value):
        return "–"
    return f"{value:.4g}" if abs(value) >= 1e5 or 0 < abs(value) < 10 else f"{value:.1f}"


def amount(axis: Axis, value: float) -> str:
    """A place on an axis of spending, with its unit."""
    if np.isinf(value):
        return "never"
    if axis == "virtual_s":
        return f"{value:,.4g} s"
    if axis == "env_step":
        return f"{value:,.0f} steps"
    return size(value)


def fading(decay: Decay, suggested: int) -> Table:
    """What matters beyond each κ, and what κ costs; the suggested one is marked."""
    table = Table()
    for heading in ("κ", decay.what, "of that at κ = 0", "STATE bytes per agent, step", *(["return"] if decay.returns else [])):
        table.add_column(heading, justify="right")
    for kappa, (left, paid) in enumerate(zip(decay.remains, decay.payload_bytes, strict=True)):
        part = f"{left / decay.remains[0]:.2%}" if decay.remains[0] else "-"
        returns = [f"{decay.returns[kappa]:.2f}"] if decay.returns else []
        table.add_row(f"{kappa}{' ◂' if kappa == suggested else ''}", f"{left:.4g}", part, f"{paid:.1f}", *returns)
    return table
