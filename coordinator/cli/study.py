"""The verbs about many runs, or about what κ is worth: sweep, compare, report, figures, watch, export, decay."""

import dataclasses
import json
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from coordinator.cli.options import AllowCodeOption, InProcessOption, ScenarioArgument, refusals, refuse
from coordinator.cli.terminal import terminal, warning
from coordinator.exit_codes import EXIT_FAILED, EXIT_INTERRUPTED
from topology.process import StopFlag, stopped_by

if TYPE_CHECKING:
    from coordinator.study.comparison import Comparison

REPORT_FILE = "report.html"
TrainingOption = Annotated[
    bool, typer.Option("--training", help="Judge by the episodes of the training, exploration included, not by evaluations.")
]
PlacesArgument = Annotated[
    list[Path], typer.Argument(metavar="RUN|SWEEP...", help="Runs, sweeps, or folders of such.", show_default=False)
]


def sweep(
    scenario: ScenarioArgument,
    grid: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=A,B,C]...", help="Values to try, e.g. `kappa=0,1,2 topology.kind=line,ring`.", show_default=False
        ),
    ] = None,
    seeds: Annotated[str, typer.Option(help="Seeds of every cell, e.g. `0..4` or `0,3,7`.")] = "0..2",
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Runs at a time. Default: what the cores carry.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Directory of the sweep; an old one is gone on with.", show_default="runs/SCENARIO-sweep")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object at the end instead of a table.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    in_process: InProcessOption = False,
    training: TrainingOption = False,
    allow_code: AllowCodeOption = False,
) -> None:
    """Run every combination of some settings' values, several seeds each, and compare them.

    The same command again goes on where it was stopped: runs that are done are kept. A run that diverged is over too, and
    counts for nothing. Exit code 0: all are over; 1: some runs failed, the others are over; 2: wrong input; 130: interrupted.
    """
    from coordinator.report.tables import SweepProgress
    from coordinator.study import grid as cells
    from coordinator.study import sweep as sweeping
    from coordinator.study.runs import reading

    console = terminal(stderr=True)
    with refusals():
        numbers = cells.seeds(seeds)
        points = cells.cells(scenario, grid or [], numbers, in_process=in_process)
        for doubt in () if quiet else dict.fromkeys(text for point in points for text in point.doubts):
            console.print(warning(doubt), highlight=False, soft_wrap=True)
        at_once = jobs or sweeping.jobs_at_once(points, in_process=in_process)
        sweeping.check_at_once(points, at_once, in_process=in_process)
        place = out or Path("runs") / f"{points[0].scenario.name}-sweep"
        with reading(place):
            plan = sweeping.plan_sweep(scenario, points, numbers, place, in_process=in_process)
        stop = StopFlag()
        asking = stopped_by(signal.SIGINT, signal.SIGTERM, stop=stop, twice_kills=False)
        with sweeping.open_sweep(plan, sys.argv[1:]) as lock, SweepProgress(console, plan, quiet=quiet) as progress, asking:
            went_through = sweeping.run(plan, lock, at_once=at_once, watch=progress.watch, stop=stop)
    done, diverged = (sum(job.state == state for job in plan.jobs) for state in ("done", "diverged"))
    if not went_through:
        refuse(f"interrupted; {done + diverged} of {len(plan.jobs)} runs are done, the same command goes on", EXIT_INTERRUPTED)
    if done or diverged:
        what = "comparison"
        try:
            _compare([place], threshold=None, held=1, as_json=as_json, training=training)
            what = "report"
            _report([place], place / REPORT_FILE, console, training=training)
        except ValueError as error:  # the runs are what was asked for, and they are done
            console.print(f"no {what}: {error}", highlight=False, soft_wrap=True, markup=False)
    if diverged:
        console.print(f"{diverged} of {len(plan.jobs)} runs diverged", highlight=False, soft_wrap=True, markup=False)
    if failed := [job for job in plan.jobs if job.state == "failed"]:
        refuse(
            f"{len(failed)} of {len(plan.jobs)} runs failed, first {failed[0].folder}: {failed[0].error} (see {failed[0].log})",
            EXIT_FAILED,
        )


@refusals()
def compare(
    places: PlacesArgument,
    threshold: Annotated[
        float | None, typer.Option(help="Also tell when this return of an episode was reached.", show_default=False)
    ] = None,
    held: Annotated[int, typer.Option(min=1, help="Rounds in a row for which it must hold.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")] = False,
    training: TrainingOption = False,
) -> None:
    """Compare runs: return with its interval over seeds, cost, bytes, and which κ to take at what price.

    Returns and costs are those of the evaluations. A run without an evaluation is left out and named. If no run has one, all are
    judged by their training.
    """
    if held > 1 and threshold is None:
        refuse(f"--held: got {held} without --threshold; it says for how long the threshold must hold")
    _compare(places, threshold=threshold, held=held, as_json=as_json, training=training)


@refusals()
def report(
    places: PlacesArgument,
    out: Annotated[
        Path | None,
        typer.Option(
            help=f"File to write; an old one is replaced. Default: {REPORT_FILE} in the first folder.", show_default=False
        ),
    ] = None,
    training: TrainingOption = False,
) -> None:
    """Write one HTML file with the curves, what bytes buy, the links' traffic, every table, and how to repeat it.

    It needs no network and no other file: send it, print it, keep it. Of runs that go on, see `kappahop watch`.
    """
    _report(places, out or places[0] / REPORT_FILE, terminal(), training=training)


@refusals()
def figures(
    places: PlacesArgument,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder; files of the same names are replaced. Default: figures in the first folder.", show_default=False
        ),
    ] = None,
    training: TrainingOption = False,
) -> None:
    """Write every figure of the report as SVG, PDF and PNG for a paper, and their numbers as CSV, Parquet and LaTeX."""
    from coordinator.report.figures import write
    from coordinator.study.runs import reading

    with reading(*places):
        for path in write(places, out or places[0] / "figures", training=training):
            typer.echo(path)


@refusals()
def watch(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run's directory.", show_default=False)],
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on this machine; 0: any that is free.")] = 0,
) -> None:
    """Show the report of a run while it goes on, in a browser on this machine, until Ctrl-C.

    The address that it prints holds a secret; without it the page cannot be seen.
    """
    from coordinator.report.watch import serve
    from coordinator.study.sweep import one_run

    one_run(folder)
    serve(folder, port, lambda url: terminal().print(f"{url}  (Ctrl-C ends it)", highlight=False, soft_wrap=True))


@refusals()
def export(
    places: PlacesArgument,
    out: Annotated[Path, typer.Option(help="What to make; must not exist yet.", show_default=False)],
    form: Annotated[
        str,
        typer.Option("--format", metavar="FORMAT", help="`csv` or `parquet`: a folder of tables; `marl-eval`: one JSON file."),
    ] = "csv",
    training: TrainingOption = False,
) -> None:
    """Write episodes, evaluations, rounds, traffic and ages of runs as tables, or evaluations as the JSON that marl-eval reads.

    The tables hold everything; --training is about marl-eval.
    """
    from typing import get_args

    from coordinator.study.export import Format
    from coordinator.study.export import export as write
    from coordinator.study.runs import reading

    if form not in get_args(Format):
        refuse(f"--format: got {form!r}, expected {', '.join(get_args(Format))}")
    with reading(*places):
        for path in write(places, form, out, training=training):  # type: ignore[arg-type]
            typer.echo(path)


def _report(places: list[Path], out: Path, console: Console, *, training: bool) -> None:
    from coordinator.report.page import write
    from coordinator.study.runs import reading

    with reading(*places):
        write(places, out, training=training)
    console.print(f"report: {out}", highlight=False, soft_wrap=True, markup=False)


@refusals()
def decay(
    place: Annotated[
        str, typer.Argument(metavar="RUN|SCENARIO", help="A finished run, or a scenario of a world with exact answers.")
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Overrides of the scenario.", show_default=False)
    ] = None,
    part: Annotated[
        float, typer.Option(min=0, max=1, help="Largest share of the influence at κ = 0 that the suggested κ may miss.")
    ] = 0.05,
    episodes: Annotated[int, typer.Option(min=1, help="RUN: at least so many episodes per κ.")] = 20,
    seed: Annotated[int, typer.Option(min=0, help="RUN: seed of the world.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
) -> None:
    """Measure how fast the influence of others fades with hops, and what κ that speaks for.

    Of a run: how much the team's actions change, and what it earns, without what lies beyond κ hops. Of network_lq and
    truncation_chain: the exact curves.
    """
    from coordinator.report.tables import fading as table
    from coordinator.study import decay as fading
    from coordinator.study.runs import reading
    from scenarios.loading import load
    from topology.deployment import SCENARIO_FILE

    if (Path(place) / SCENARIO_FILE).is_file():
        if overrides:
            refuse(f"overrides: got {overrides[0]!r}; a run is what it is")
        with reading(place):
            found = fading.of_team(Path(place), episodes=episodes, seed=seed)
    else:
        found = fading.exact(load(place, overrides or []))
    suggested = found.suggested(part)
    if as_json:
        typer.echo(json.dumps({**dataclasses.asdict(found), "phi": found.phi, "suggested_kappa": suggested}))
        return
    console = terminal()
    console.print(table(found, suggested))
    phi = "no φ can be fitted to so few" if found.phi is None else f"it falls as φ^κ with φ = {found.phi:.3g}"
    told = f"{phi}; the smallest κ that leaves at most {part:.0%} of it is {suggested}"
    console.print(f"{found.what}: {told if found.remains[0] else 'none, κ = 0 is enough'}", highlight=False, soft_wrap=True)


def _compare(places: list[Path], *, threshold: float | None, held: int, as_json: bool, training: bool) -> None:
    from coordinator.study.comparison import compare as compared
    from coordinator.study.runs import reading

    with reading(*places):
        found = compared(places, threshold=threshold, held=held, training=training)
        _show(found, threshold=threshold, as_json=as_json)


def _show(found: "Comparison", *, threshold: float | None, as_json: bool) -> None:
    from coordinator.report import tables

    if as_json:
        typer.echo(json.dumps(found.as_json()))
        return
    console = terminal()
    console.print(tables.comparison(found))
    if threshold is not None:
        console.print(tables.reaching(found))
    if found.ages_differ:
        console.print(tables.violating(found))
    for sentence in [*tables.unevaluated(found), *tables.answers(found), *tables.divergences(found)]:
        console.print(sentence, highlight=False, soft_wrap=True, markup=False)
    if found.left_out:
        left_out = f"left out, unfinished or without an episode: {', '.join(map(str, found.left_out))}"
        console.print(left_out, highlight=False, soft_wrap=True, markup=False)
