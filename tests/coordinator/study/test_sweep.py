"""Sweeps: what is done is kept, what fails harms nobody, and whatever ends a sweep ends its runs."""

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from coordinator.cli import app as command
from coordinator.study.grid import Cell, cells
from coordinator.study.runs import find
from coordinator.study.sweep import (
    MANIFEST_FILE,
    Job,
    Sweep,
    check_at_once,
    jobs_at_once,
    open_sweep,
    plan_sweep,
    read_manifest,
    run,
)
from scenarios.loading import ScenarioError

RecordRun = Callable[..., Path]
LQ = ["env.name=network_lq", "env.agents=2", "topology.kind=line", "env.num_envs=1", "rollout.steps=10"]
SMALL = [*LQ, "algorithm.hidden=[4]", "algorithm.epochs=1", "algorithm.minibatches=1", "record.tensorboard=false"]


def grid(*words: str, seeds: tuple[int, ...] = (0,)) -> list[Cell]:
    return cells("quickstart", [*LQ, "budget.env_steps=40", *words], list(seeds))


def finish(job: Job, record_run: RecordRun, *words: str, episodes: int = 8) -> None:
    """As if the run had been done."""
    record_run(job.folder, *job.cell.overrides, f"seed={job.seed}", *words, returns=[1.0] * episodes)
    job.result.write_text("{}")


# ------------------------------------------------------------------ planning


def test_a_sweep_has_a_run_per_cell_and_seed_each_in_a_folder_of_its_own(tmp_path: Path) -> None:
    sweep = plan_sweep("quickstart", grid("kappa=0,1"), [0, 4], tmp_path, in_process=False)
    assert [str(job.folder.relative_to(tmp_path)) for job in sweep.jobs] == [
        f"kappa={kappa}/seed={seed}" for kappa in (0, 1) for seed in (0, 4)
    ]
    words = sweep.command(sweep.jobs[3])
    assert words[:2] == ["run", "quickstart"]
    assert {"kappa=1", "--json", "--quiet"} <= set(words)
    assert words[words.index("--seed") + 1] == "4"
    assert words[words.index("--out") + 1] == str(tmp_path / "kappa=1" / "seed=4")
    assert "--in-process" not in words
    assert "--in-process" in Sweep("quickstart", tmp_path, True).command(sweep.jobs[0])


def test_what_is_done_is_kept_and_what_is_half_done_is_not(tmp_path: Path, record_run: RecordRun) -> None:
    first, second, third = plan_sweep("quickstart", grid("kappa=0,1,2"), [0], tmp_path, in_process=False).jobs
    finish(first, record_run)
    record_run(second.folder, *second.cell.overrides)
    again = plan_sweep("quickstart", grid("kappa=0,1,2"), [0], tmp_path, in_process=False)
    assert [job.state for job in again.jobs] == ["done", "waiting", "waiting"]
    assert not third.folder.exists()


def test_a_finished_run_of_another_scenario_is_not_taken_for_this_one(tmp_path: Path, record_run: RecordRun) -> None:
    (job,) = plan_sweep("quickstart", grid(), [0], tmp_path, in_process=False).jobs
    finish(job, record_run, "algorithm.clip=0.3")
    with pytest.raises(ScenarioError, match=r"seed=0 holds a finished run of another scenario; give a new directory"):
        plan_sweep("quickstart", grid(), [0], tmp_path, in_process=False)


def test_the_folder_says_what_belongs_there_and_may_be_extended(tmp_path: Path) -> None:
    out = tmp_path / "sweep"
    for words, seeds in ((["kappa=0,1"], [0, 1]), (["kappa=1,2"], [1, 2])):
        sweep = plan_sweep("quickstart", grid(*words), seeds, out, in_process=False)
        with open_sweep(sweep, ["sweep", "quickstart", *words]):
            pass
    found = read_manifest(out)
    assert found["scenario"] == "quickstart"
    assert found["commands"] == ["kappahop sweep quickstart kappa=0,1", "kappahop sweep quickstart kappa=1,2"]
    assert {cell["name"]: cell["seeds"] for cell in found["cells"]} == {
        "kappa=0": [0, 1],
        "kappa=1": [0, 1, 2],
        "kappa=2": [1, 2],
    }
    assert found["cells"][2]["keys"]["kappa"] == 2
    assert found["made_with"]["packages"]["torch"]


def test_only_a_sweep_of_the_same_scenario_is_gone_on_with(tmp_path: Path) -> None:
    sweep = plan_sweep("quickstart", grid(), [0], tmp_path / "sweep", in_process=False)
    with open_sweep(sweep, ["sweep"]):
        pass
    sweep.source = "lq_line20"
    with pytest.raises(ScenarioError, match="holds a sweep of quickstart, not of lq_line20"), open_sweep(sweep, ["sweep"]):
        pass


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["kappa=0,1", "routing=relay,direct"], "holds a sweep in which routing is not set, so these runs do not belong there"),
        ([], "holds a sweep in which kappa is set, so these runs do not belong there"),
        (["kappa=1"], "holds the runs of 'quickstart' as 'kappa=1'; give a new directory"),
    ],
)
def test_what_belongs_to_another_grid_is_not_put_into_a_sweeps_folder(tmp_path: Path, words: list[str], told: str) -> None:
    out = tmp_path / "sweep"
    with open_sweep(plan_sweep("quickstart", grid("kappa=0,1"), [0], out, in_process=False), ["sweep"]):
        pass
    before = (out / MANIFEST_FILE).read_text()
    other = plan_sweep("quickstart", grid(*words), [0], out, in_process=False)
    with pytest.raises(ScenarioError, match=rf"^--out: .* {told}"), open_sweep(other, ["sweep"]):
        pass
    assert (out / MANIFEST_FILE).read_text() == before


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("all of it")
    for out in (tmp_path, tmp_path / "thesis.txt"):
        sweep = plan_sweep("quickstart", grid(), [0], out, in_process=False)
        with (
            pytest.raises(ScenarioError, match=r"^--out: .* already holds something other than a sweep"),
            open_sweep(sweep, ["sweep"]),
        ):
            pass
    sweep = plan_sweep("quickstart", grid(), [0], tmp_path / "thesis.txt" / "below", in_process=False)
    with pytest.raises(ScenarioError, match=r"^--out: cannot write "), open_sweep(sweep, ["sweep"]):
        pass
    assert list(tmp_path.iterdir()) == [tmp_path / "thesis.txt"]


@pytest.mark.parametrize("text", ["", "[]", '{"format": 99}', "{"])
def test_a_manifest_that_cannot_be_read_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / MANIFEST_FILE).write_text(text)
    with pytest.raises(ScenarioError, match=r"sweep\.json: "):
        read_manifest(tmp_path)


def test_two_sweeps_do_not_work_in_one_folder(tmp_path: Path) -> None:
    sweep = plan_sweep("quickstart", grid(), [0], tmp_path / "sweep", in_process=False)
    with (
        open_sweep(sweep, ["sweep"]),
        pytest.raises(ScenarioError, match="another sweep is at work in"),
        open_sweep(sweep, ["sweep"]),
    ):
        pass
    (tmp_path / "sweep" / MANIFEST_FILE).unlink()  # as if killed before it was written
    with open_sweep(sweep, ["sweep"]):
        pass


def test_runs_at_a_time_leave_a_core_per_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coordinator.study.sweep.cores", lambda: 12)
    found = cells("quickstart", ["env.name=network_lq", "env.agents=2,3"], [0])
    assert jobs_at_once(found, in_process=True) == 12
    assert jobs_at_once(found, in_process=False) == 3
    packed = cells("quickstart", ["env.name=network_lq", "env.agents=3", "supervision.agents_per_process=2"], [0])
    assert jobs_at_once(packed, in_process=False) == 4
    assert jobs_at_once(cells("quickstart", ["env.name=network_lq", "env.agents=16"], [0]), in_process=False) == 1


def test_fixed_ports_are_not_shared() -> None:
    found = grid("network.transport=tcp", "network.port=6000")
    with pytest.raises(ScenarioError, match=r"^network.port: got 6000; 2 runs at a time cannot share ports"):
        check_at_once(found, 2, in_process=False)
    check_at_once(found, 2, in_process=True)


# ------------------------------------------------------------------- running


@pytest.mark.parametrize(("episodes", "told"), [(8, "highest return 1 "), (0, "no comparison: no complete run in sweep")])
def test_a_sweep_that_is_done_starts_nothing_and_compares_what_there_is(
    tmp_path: Path,
    record_run: RecordRun,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    episodes: int,
    told: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("coordinator.study.sweep._begin", lambda *_: pytest.fail("a run was about to be started"))
    sweep = plan_sweep("quickstart", grid("kappa=0,1"), [0, 1], Path("sweep"), in_process=False)
    with open_sweep(sweep, ["sweep"]):
        for job in sweep.jobs:
            finish(job, record_run, episodes=episodes)
    words = ["sweep", "quickstart", *LQ, "budget.env_steps=40", "kappa=0,1", "--seeds", "0..1", "--out", "sweep"]
    monkeypatch.setattr(sys, "argv", ["kappahop", *words])
    with pytest.raises(SystemExit) as left:
        command.main()
    assert not left.value.code
    assert told in "".join(capsys.readouterr())
    page = Path("sweep", "report.html")
    assert page.exists() is bool(episodes)
    assert not episodes or "kappahop sweep" in page.read_text(encoding="utf-8")


@contextmanager
def sweeping(*words: str, cwd: Path) -> Iterator["subprocess.Popen[str]"]:
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "kappahop", "sweep", "quickstart", *SMALL, *words, "--out", "sweep", "--jobs", "2"],
        cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


def is_under_way(folder: Path) -> bool:
    try:
        return find([folder])[0].steps_done > 0
    except ScenarioError:  # not even begun
        return False


def until(holds: Callable[[], bool]) -> None:
    for _ in range(400):
        if holds():
            return
        select.select([], [], [], 0.1)
    pytest.fail("it never came to hold")


@pytest.mark.slow
@pytest.mark.system
@pytest.mark.timeout(300)
def test_runs_that_fail_are_told_and_the_others_done_and_kept(tmp_path: Path, no_leaks: None) -> None:
    words = ("budget.env_steps=400", "--seeds", "0..1", "--in-process", "--json")
    blocked = tmp_path / "sweep" / "quickstart" / "seed=1"
    blocked.parent.mkdir(parents=True)
    blocked.write_text("a file where a folder should be")
    (tmp_path / "sweep" / MANIFEST_FILE).write_text('{"format": 1, "scenario": "quickstart", "commands": [], "cells": []}')
    with sweeping(*words, cwd=tmp_path) as process:
        out, err = process.communicate(timeout=100)
    assert process.returncode == 1, err
    assert "1 of 2 runs failed, first sweep/quickstart/seed=1: --out: sweep/quickstart/seed=1 already holds something" in err
    assert [cell["seeds"] for cell in json.loads(out)["cells"]] == [[0]]
    done = blocked.parent / "seed=0.json"
    before = done.stat().st_mtime_ns
    blocked.unlink()
    with sweeping(*words, cwd=tmp_path) as process:
        out, err = process.communicate(timeout=100)
    assert process.returncode == 0, err
    assert [cell["seeds"] for cell in json.loads(out)["cells"]] == [[0, 1]]
    assert done.stat().st_mtime_ns == before
    assert err.count("[1/1] quickstart seed=1: ") == 1
    assert json.loads(done.read_text())["env_steps"] == 400
    assert not list((tmp_path / "sweep").rglob("*.part"))


@pytest.mark.slow
@pytest.mark.system
@pytest.mark.timeout(300)
@pytest.mark.parametrize("in_process", [True, False])
def test_ctrl_c_stops_the_runs_cleanly_and_is_told(tmp_path: Path, no_leaks: None, in_process: bool) -> None:
    words = ("budget.env_steps=9_000_000", "kappa=0,1", "--seeds", "0", *(["--in-process"] if in_process else []))
    with sweeping(*words, cwd=tmp_path) as process:
        folders = [tmp_path / "sweep" / f"kappa={kappa}" / "seed=0" for kappa in (0, 1)]
        until(lambda: all(map(is_under_way, folders)))
        runs = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted; 0 of 2 runs are done, the same command goes on" in err
    assert not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in runs)
    assert all(run.metrics["env_steps"] > 0 and not run.is_complete for run in find(folders))  # recorded, and reported
    assert not list((tmp_path / "sweep").rglob("seed=0.json*"))


@pytest.mark.slow
@pytest.mark.system
@pytest.mark.timeout(300)
def test_a_killed_sweep_leaves_no_run_behind_and_its_folder_locked_until_then(tmp_path: Path, no_leaks: None) -> None:
    with sweeping("budget.env_steps=9_000_000", "kappa=0,1", "--seeds", "0", cwd=tmp_path) as process:
        folder = tmp_path / "sweep" / "kappa=1" / "seed=0"
        until(lambda: is_under_way(folder))
        (child, *_) = psutil.Process(process.pid).children()
        child.suspend()  # too stunned to die at once
        try:
            process.kill()
            process.wait(10)
            sweep = plan_sweep("quickstart", grid(), [0], tmp_path / "sweep", in_process=False)
            with pytest.raises(ScenarioError, match="or its last runs are still ending"), open_sweep(sweep, []):
                pass
        finally:
            child.resume()
        until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


@pytest.mark.slow
@pytest.mark.system
@pytest.mark.timeout(300)
def test_a_run_that_is_killed_is_told_with_how(tmp_path: Path, no_leaks: None) -> None:
    sweep = plan_sweep(
        "quickstart", cells("quickstart", [*SMALL, "budget.env_steps=9_000_000"], [0]), [0], tmp_path / "sweep", in_process=True
    )

    def watch(now: Sweep) -> None:
        (job,) = now.jobs
        if job.state == "running" and (job.folder / "run.sqlite").exists():
            for child in psutil.Process().children():
                if "--in-process" in child.cmdline():
                    os.kill(child.pid, signal.SIGKILL)

    with open_sweep(sweep, ["sweep"]) as lock:
        assert run(sweep, lock, at_once=1, watch=watch)
    assert [(job.state, job.error) for job in sweep.jobs] == [("failed", "was killed by SIGKILL")]
