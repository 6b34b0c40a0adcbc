"""Tables and sentences of many runs: how numbers are worded, and how far a sweep is."""

from collections.abc import Callable
from pathlib import Path

import pytest

from coordinator.report import tables
from coordinator.report.tables import SweepProgress, amount, fading, figure, interval
from coordinator.study.decay import Decay
from coordinator.study.grid import cells
from coordinator.study.runs import Run
from coordinator.study.statistics import Interval
from coordinator.study.sweep import Job, Sweep
from tests.builders import Screen, cells_of

NAN = float("nan")


def test_numbers_have_the_digits_that_a_person_reads() -> None:
    assert [figure(value) for value in (None, NAN, 0.0, 0.12345, -9.8765, 10.04, 99999.9, 1234567.8)] == [
        "–", "–", "0.0", "0.1235", "-9.877", "10.0", "99999.9", "1.235e+06",
    ]  # fmt: skip
    assert [interval(ends) for ends in (Interval(NAN, NAN), Interval(-1.5, 20.0))] == ["–", "[-1.5, 20.0]"]
    spent = [amount("env_step", 12_000.4), amount("wire_bytes", 12_340), amount("virtual_s", 1234.56)]
    assert spent == ["12,000 steps", "12.3 kB", "1,235 s"]
    assert amount("wire_bytes", float("inf")) == "never"


def test_what_fades_has_a_line_per_kappa_and_a_mark_at_the_suggested_one() -> None:
    decay = Decay(what="change", remains=(4.0, 1.0, 0.1), payload_bytes=(0.0, 8.0, 12.0), returns=(1.0, 2.5, 3.0))
    headings, *lines = cells_of(fading(decay, decay.suggested(0.05)))
    assert headings == ["κ", "change", "of that at κ = 0", "STATE bytes per agent, step", "return"]
    assert lines == [
        ["0", "4", "100.00%", "0.0", "1.00"],
        ["1", "1", "25.00%", "8.0", "2.50"],
        ["2 ◂", "0.1", "2.50%", "12.0", "3.00"],
    ]
    nothing = Decay(what="change", remains=(0.0, 0.0), payload_bytes=(0.0, 8.0))
    assert [line[2] for line in cells_of(fading(nothing, 0))[1:]] == ["-", "-"]


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    """Two cells of two seeds each."""
    points = cells("lq_line20", ["kappa=0,1", "budget.env_steps=1"], [0, 1])
    jobs = [Job(cell, seed, tmp_path / cell.name / f"seed={seed}") for cell in points for seed in (0, 1)]
    return Sweep(source="lq_line20", out=tmp_path, in_process=True, jobs=jobs)


def end(job: Job, **facts: object) -> None:
    for name, value in facts.items():
        setattr(job, name, value)


def test_where_there_is_no_terminal_each_run_that_ends_has_one_line(sweep: Sweep) -> None:
    sweep.jobs[3].state = "done"  # by an earlier command
    screen = Screen()
    with SweepProgress(screen.console, sweep, quiet=False) as progress:
        progress.watch(sweep)
        end(sweep.jobs[0], state="done", wall_s=12.34)
        progress.watch(sweep)
        end(sweep.jobs[1], state="failed", error="no [red] room")
        end(sweep.jobs[2], state="diverged", error="agent 0 diverged")
        progress.watch(sweep)
        progress.watch(sweep)
    assert screen.lines == [
        "[1/3] kappa=0 seed=0: 12.3 s",
        "[2/3] kappa=0 seed=1: failed: no [red] room",
        "[3/3] kappa=1 seed=0: agent 0 diverged",
    ]


def test_on_a_terminal_there_is_a_line_per_unfinished_cell(sweep: Sweep, record_run: Callable[..., Path]) -> None:
    job = sweep.jobs[2]
    record_run(job.folder, returns=[1.0] * 8, round_bytes=[0] * 4, ended=False)
    run = Run(job.folder, job.cell.scenario)
    assert 0 < run.steps_done < run.planned_steps
    end(sweep.jobs[0], state="done")
    end(sweep.jobs[1], state="done")
    end(sweep.jobs[2], state="running")
    end(sweep.jobs[3], state="failed", error="x")
    table = SweepProgress(Screen(is_terminal=True).console, sweep, quiet=False)._table(sweep)
    assert str(table.title).startswith("2 of 4 runs done")
    assert cells_of(table)[1:] == [["kappa=1", "0 of 2", f"seed 0 {run.steps_done / run.planned_steps:.0%}", "1", ""]]


def test_quiet_is_quiet(sweep: Sweep) -> None:
    screen = Screen(is_terminal=True)
    with SweepProgress(screen.console, sweep, quiet=True) as progress:
        end(sweep.jobs[0], state="done")
        progress.watch(sweep)
    assert screen.text == ""


def test_of_many_unfinished_cells_the_first_are_shown_and_the_rest_is_counted(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "MOST_ROWS", 1)
    table = SweepProgress(Screen(is_terminal=True).console, sweep, quiet=False)._table(sweep)
    assert [line[0] for line in cells_of(table)[1:]] == ["kappa=0", "… and 1 more"]
