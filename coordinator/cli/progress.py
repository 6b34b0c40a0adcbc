"""What a person sees of a run: a progress bar while it goes on, a table when it is over."""

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import replace
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from coordinator.evaluation.baselines import Played
from coordinator.evaluation.evaluations import Evaluated
from coordinator.records.database import Results
from coordinator.records.plan import Plan
from coordinator.report.words import size
from coordinator.study.forecast import Load, crossing, duration
from scenarios.kinds import sent_by
from scenarios.recipes import AXES, RECIPES
from topology.link.model import LinkSpec
from topology.planes.control import Control, RoundReport, Stored
from topology.planes.control import Progress as WorldProgress

LAST_EPISODES = 20
LINES = 10  # how many progress lines a run prints where there is no terminal


class Display:
    """Progress of a run on a console; plain lines where the console is no terminal, nothing if quiet."""

    def __init__(self, console: Console, *, total_steps: int, quiet: bool) -> None:
        self._console = console
        self._total = total_steps
        self._quiet = quiet
        self._episodes: deque[tuple[float, float]] = deque(maxlen=LAST_EPISODES)
        self._faulty = 0
        self._evaluated = ""
        self._wire_bytes = 0
        self._steps = self._first_steps = 0
        self._lines = 0
        self._has_warned = False
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("steps"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[metrics]}"),
            console=console,
            disable=quiet or not console.is_terminal,
        )
        self._task = self._bar.add_task("starting", total=total_steps, metrics="")

    def __enter__(self) -> Self:
        """Start drawing."""
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Stop drawing."""
        self._bar.stop()

    def say(self, text: str) -> None:
        """Print a line that the person must see, above the bar."""
        self._console.print(text, highlight=False, soft_wrap=True, markup=False)

    def watch(self, report: Control) -> None:
        """Take in one report and show where the run is."""
        if isinstance(report, RoundReport):
            self._wire_bytes += sum(row.wire_bytes for row in report.traffic if row.plane != "world")
        elif isinstance(report, WorldProgress):
            if self._steps == 0:  # speed counts from the first report, not from start-up
                self._bar.reset(self._task, total=self._total, metrics="")
                self._first_steps = report.env_step
            self._steps = report.env_step
            known = [episode for episode in report.episodes if math.isfinite(episode.ret)]
            self._episodes.extend((episode.ret, sum(episode.cost)) for episode in known)
            self._faulty += len(report.episodes) - len(known)
            self._bar.update(self._task, description="running", completed=self._steps, metrics=self._metrics())
            self._print_line()
        elif isinstance(report, Stored) and report.problem and not (self._quiet or self._has_warned):
            self._has_warned = True
            self.say(f"warning: no state stored ({report.problem}); the run goes on, kappahop resume has the state before")

    def watch_evaluations(self, evaluated: Evaluated) -> None:
        """Take in how far an evaluation is, or what it has come to."""
        if evaluated.problem is not None:
            if not self._quiet:
                self.say(f"warning: {evaluated.problem}; kappahop resume tries again")
        elif evaluated.ret is not None and evaluated.cost is not None:
            self._evaluated = f"evaluated {evaluated.ret:.1f}, cost {evaluated.cost:.1f}"
            if evaluated.job.at_end and not self._console.is_terminal and not self._quiet:
                self._console.print(f"{evaluated.job}: {self._evaluated}", highlight=False)
        elif evaluated.job.at_end:
            self._bar.update(self._task, description=f"evaluating ({evaluated.done:.0%})")

    def _metrics(self) -> str:
        task = self._bar.tasks[0]
        elapsed = task.elapsed or 0.0
        parts = []
        if self._episodes:
            returns, costs = zip(*self._episodes, strict=True)
            parts.append(f"return {sum(returns) / len(returns):.1f}  cost {sum(costs) / len(costs):.1f}")
        if self._faulty:
            parts.append(f"{self._faulty:,} episodes diverged")
        if self._evaluated:
            parts.append(self._evaluated)
        if self._steps > self._first_steps and elapsed > 0:
            parts.append(f"{(self._steps - self._first_steps) / elapsed:,.0f} steps/s  {size(self._wire_bytes / elapsed)}/s")
        return "  ".join(parts)

    def _print_line(self) -> None:
        if self._quiet or self._console.is_terminal:
            return
        done = self._steps * LINES // self._total
        if done > self._lines:
            self._lines = done
            self._console.print(f"{self._steps:,} of {self._total:,} steps  {self._metrics()}", highlight=False)


def summary(results: Results, *, cost_limit: float | None) -> Table:
    """Return and cost by quarter of the episodes."""
    table = Table(title="by quarter of the episodes")
    limit = "no limit" if cost_limit is None else f"limit {cost_limit:g}"
    quarters = results.quarters()
    are_faulty = any(quarter.faulty for quarter in quarters)
    for heading in ("quarter", "episodes", *(["diverged"] if are_faulty else []), "return", f"cost ({limit})"):
        table.add_column(heading, justify="right")
    for place, quarter in enumerate(quarters, start=1):
        counts = [quarter.episodes, *([quarter.faulty] if are_faulty else [])]
        means = ("–" if math.isnan(mean) else f"{mean:.1f}" for mean in (quarter.ret, quarter.cost))
        table.add_row(str(place), *map(str, counts), *means)
    return table


def baseline(found: Played, ready: Plan) -> Table:
    """What a baseline of the world came to."""
    table = Table(title=f"{ready.scenario.name}: {found.policy}, {found.episodes} episodes")
    for heading in ("of an episode", "mean", "standard deviation", "unit"):
        table.add_column(heading, justify="left" if heading in ("of an episode", "unit") else "right")
    limits = ready.deployment.cost_limits
    rows = [
        ("return", found.ret, "reward"),
        *(("cost", cost, f"limit {limit:g}") for cost, limit in zip(found.costs, limits, strict=True)),
        *((measure.name, found.measures[measure.name], measure.unit) for measure in ready.spec.measures),
    ]
    for name, spread, unit in rows:
        table.add_row(name, f"{spread.mean:,.4g}", f"{spread.std:,.3g}", unit)
    return table


def traffic(results: Results) -> Table:
    """Messages and bytes by plane and kind."""
    table = Table(title="traffic")
    for heading in ("plane", "kind", "messages", "arrived", "payload", "on the wire"):
        table.add_column(heading, justify="left" if heading in ("plane", "kind") else "right")
    for row in results.by_kind():
        arrived = f"{row.delivered / row.messages:.1%}" if row.messages else ""
        sizes = size(row.payload_bytes), size(row.wire_bytes)
        table.add_row(row.plane, row.kind, f"{row.messages:,}", arrived, *sizes)
    return table


def failure(text: str) -> Text:
    """An error as one line."""
    return Text(f"kappahop: {' '.join(text.split())}", style="bold red")


def crossings(name: str, spec: LinkSpec, loads: Iterable[Load]) -> Table:
    """What one kind of link does to each kind of message."""
    digits = 0 if spec.mean_rate_bps >= 100 else 1
    rate = "unlimited" if spec.mean_rate_bps == math.inf else f"{spec.mean_rate_bps:,.{digits}f} bit/s"
    table = Table(title=f"{name}: {rate}", title_justify="left")
    for heading in ("kind", "bytes", "airtime", "delay 50 %", "90 %", "99 %", "loss"):
        table.add_column(heading, justify="left" if heading == "kind" else "right", overflow="fold")
    for load in loads:
        one = crossing(load, spec)
        table.add_row(
            load.kind.name + (" (r)" if load.reliable else ""),
            f"{load.wire_bytes:,}",
            duration(one.airtime_s),
            *(duration(value) for value in one.delay_s),
            f"{one.loss_prob:.2%}",
        )
    return table


def algorithms(width: int) -> Table:
    """The recipe table, with what agents send each other and whether the critic may, or must, be the coordinator's.

    Args:
        width: Characters in a line; where a column per axis does not fit, a row says `axis=value` for each.
    """
    wide = width >= 150
    table = Table(title="algorithms: a row each, every axis a key of `algorithm`", title_justify="left", show_lines=not wide)
    for heading in ("name", *(AXES if wide else ("axes",)), "agents say", "central critic"):
        width_here = None if wide else {"agents say": 9, "central critic": 7}.get(heading)
        table.add_column(heading.replace("_", " "), no_wrap=heading == "name", width=width_here)
    for name, recipe in RECIPES.items():
        may = "may" if replace(recipe, critic_scope="central").conflict() is None else "cannot"
        central = "needed" if recipe.critic_scope == "central" else may
        says = " ".join(kind.name for kind in sent_by(recipe)) or "nothing"
        axes = [str(getattr(recipe, axis)) for axis in AXES]
        cells = axes if wide else [" ".join(f"{axis}={value}" for axis, value in zip(AXES, axes, strict=True))]
        table.add_row(name, *cells, says, central)
    return table
