"""A sweep: every cell of a grid, once per seed, so many at a time, each run a command of its own.

Theory of operation. A run lies in `OUT/CELL/seed=N/` as `kappahop run --out` makes it; beside it, `seed=N.log` takes what the
command says and `seed=N.json` what it prints. The latter appears by renaming, when the command has succeeded or found that
the run diverged, and at no other moment: the run is then over, and would end alike if it were begun again. A sweep that is
started again therefore passes over what is done, goes on with what failed or was interrupted where it last stored its state
(`coordinator.records.checkpoints`), and begins the rest. `OUT/sweep.json` says what belongs there.

A run is a child process, so that its crash harms no other run. It dies with the sweep (PDEATHSIG, for which it asks itself: code
between fork and exec could hang where the sweep's program has threads). It has a session of its own, so that Ctrl-C reaches it
through the sweep only, which then lets it stop cleanly. The children inherit a lock on the folder:
a sweep that was killed outright leaves it locked until the last of them is gone, and no second one works there meanwhile.

One thread does all this; it waits on the children's process descriptors.
"""

import fcntl
import json
import math
import os
import select
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from coordinator.exit_codes import EXIT_DIVERGED
from coordinator.records.checkpoints import latest_good
from coordinator.records.packs import pack_size
from coordinator.records.plan import changes_since, manifest
from coordinator.run.collector import spoken
from coordinator.study.grid import Cell
from scenarios.loading import ScenarioError, load
from scenarios.registry import environment
from scenarios.schema import Scenario
from topology.deployment import SCENARIO_FILE
from topology.files import fresh, read_json, replace
from topology.process import PARENT, STOP, StopFlag

MANIFEST_FILE = "sweep.json"
LOCK_FILE = "sweep.lock"
FORMAT = 1
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
LOOK_S = 0.5  # how often the display is told that nothing has happened
STOP_S = 12.0  # a run may take `supervision.stop_s` (at most 8 s) to stop its nodes, and a little more for itself

State = Literal["waiting", "running", "done", "diverged", "failed"]


@dataclass(slots=True)
class Job:
    """One run of a sweep.

    Attributes:
        cell: The point of the grid.
        seed: Its seed.
        folder: The run's directory.
        state: How far it is.
        error: What it said when it failed or diverged, in one line.
        wall_s: Seconds it took, or has taken so far; 0 if it was done before.
    """

    cell: Cell
    seed: int
    folder: Path
    state: State = "waiting"
    error: str = ""
    wall_s: float = 0.0

    @property
    def result(self) -> Path:
        """The file whose presence says that the run is over: done, or diverged."""
        return self.folder.parent / f"{self.folder.name}.json"

    @property
    def can_go_on(self) -> bool:
        """Whether it has been begun, by this very code, and has stored a state to go on from."""
        try:
            begun = load(str(self.folder / SCENARIO_FILE))
            is_same = begun.is_same_as(self.cell.seeded(self.seed)) and not changes_since(self.folder, begun)
            return is_same and latest_good(self.folder)[0] is not None
        except ScenarioError:
            return False

    @property
    def log(self) -> Path:
        """What the command said."""
        return self.folder.parent / f"{self.folder.name}.log"


@dataclass(slots=True)
class Sweep:
    """What is to be run, where, and how.

    Attributes:
        source: The scenario as it was given.
        out: The sweep's folder.
        in_process: Whether each run has all its agents in one process.
        jobs: Every run, cell by cell, each cell by ascending seed.
    """

    source: str
    out: Path
    in_process: bool
    jobs: list[Job] = field(default_factory=list)

    def command(self, job: Job) -> list[str]:
        """The words of a run after `kappahop`."""
        words = ["run", self.source, *job.cell.overrides, "--seed", str(job.seed), "--out", str(job.folder)]
        if job.can_go_on:
            words = ["resume", str(job.folder)]
        return [*words, "--json", "--quiet", *(["--in-process"] if self.in_process else [])]


def plan_sweep(source: str, cells: Sequence[Cell], seeds: Sequence[int], out: Path, *, in_process: bool) -> Sweep:
    """The runs of a grid, with those recognised that are done already.

    Raises:
        ScenarioError: a run that is done there had another scenario.
    """
    sweep = Sweep(source, out, in_process)
    for cell in cells:
        for seed in seeds:
            job = Job(cell, seed, out / cell.name / f"seed={seed}")
            if job.result.exists():
                _check_same(cell.seeded(seed), job.folder)
                _recognise(job)
            sweep.jobs.append(job)
    return sweep


def one_run(folder: Path) -> None:
    """Make sure that a folder is no sweep where a single run is asked for.

    Raises:
        ScenarioError: it is one; the text names one of its runs.
    """
    if (folder / MANIFEST_FILE).is_file():
        some = next((run for run in sorted(folder.glob("*/seed=*")) if run.is_dir()), folder / "CELL" / "seed=N")
        raise ScenarioError(f"{folder}: a sweep, not a run; give one of its runs, e.g. {some}")


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def jobs_at_once(cells: Sequence[Cell], *, in_process: bool) -> int:
    """How many runs at a time fill the cores: one per core in one process each, else as many as have a core per process."""
    sizes = (pack_size(cell.scenario.supervision.agents_per_process, cell.n_agents) for cell in cells)
    most = max(math.ceil(cell.n_agents / size) for cell, size in zip(cells, sizes, strict=True))
    return cores() if in_process else max(1, cores() // (1 + most))


def check_at_once(cells: Sequence[Cell], at_once: int, *, in_process: bool) -> None:
    """Make sure that so many runs can go on at a time.

    Raises:
        ScenarioError: they would want the same tcp ports.
    """
    if in_process:
        return
    for cell in cells:
        if at_once > 1 and cell.scenario.network.transport == "tcp" and cell.scenario.network.port:
            raise ScenarioError(
                f"network.port: got {cell.scenario.network.port}; {at_once} runs at a time cannot share ports, "
                "so give network.port=0 or --jobs 1"
            )


def _is_sweep_or_empty(out: Path) -> bool:
    return (out / MANIFEST_FILE).is_file() or all(path.name == LOCK_FILE for path in out.iterdir())


@contextmanager
def open_sweep(sweep: Sweep, command: Sequence[str]) -> Iterator[int]:
    """The sweep's folder, made, locked and described; what is yielded is the lock's descriptor.

    Raises:
        ScenarioError: another sweep is at work there, the folder holds something else, or it cannot be written.
    """
    out = sweep.out
    try:
        if out.exists() and (not out.is_dir() or not _is_sweep_or_empty(out)):
            raise ScenarioError(f"--out: {out} already holds something other than a sweep; give a new or empty directory")
        out.mkdir(parents=True, exist_ok=True)
        lock = os.open(out / LOCK_FILE, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise ScenarioError(f"--out: cannot write {out} ({error.strerror})") from None
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ScenarioError(f"--out: another sweep is at work in {out}, or its last runs are still ending") from None
        _describe(sweep, command)
        yield lock
    finally:
        os.close(lock)


def run(sweep: Sweep, lock: int, *, at_once: int, watch: Callable[[Sweep], None], stop: StopFlag = STOP) -> bool:
    """Run what is not done yet.

    Args:
        sweep: The plan; its jobs' states are kept up to date.
        lock: Descriptor from `open_sweep`.
        at_once: Runs at a time, at least 1.
        watch: Called whenever a run began or ended, and every `LOOK_S`.
        stop: Ends the sweep when it is asked to; asked again, it waits for no run that is ending.

    Returns:
        False if it was asked to stop; runs that were under way then are waiting again.
    """
    waiting = [job for job in sweep.jobs if job.state == "waiting"]
    children: dict[int, _Child] = {}
    ends = select.poll()
    try:
        while (waiting or children) and not stop.asked:
            while waiting and len(children) < at_once:
                child = _begin(sweep, waiting.pop(0), lock)
                children[child.descriptor] = child
                ends.register(child.descriptor, select.POLLIN)
            watch(sweep)
            for descriptor, _ in ends.poll(LOOK_S * 1000):
                ends.unregister(descriptor)
                _conclude(children.pop(descriptor))
            for child in children.values():
                child.job.wall_s = time.monotonic() - child.began
    finally:
        _stop(list(children.values()), stop)
    watch(sweep)
    return not stop.asked


@dataclass(frozen=True, slots=True)
class _Child:
    job: Job
    process: "subprocess.Popen[bytes]"
    descriptor: int
    began: float

    @property
    def answer(self) -> Path:
        return _answer(self.job)


def _answer(job: Job) -> Path:
    return job.result.parent / f"{job.result.name}.part"


def _begin(sweep: Sweep, job: Job, lock: int) -> _Child:
    job.result.unlink(missing_ok=True)
    if not job.can_go_on:
        shutil.rmtree(job.folder, ignore_errors=True)
    job.folder.parent.mkdir(parents=True, exist_ok=True)
    with fresh(job.log) as log, fresh(_answer(job)) as answer:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "kappahop", *sweep.command(job)],
            stdin=subprocess.DEVNULL,
            stdout=answer,
            stderr=log,
            env={**os.environ, **environment(), **ONE_THREAD, PARENT: str(os.getpid())},
            start_new_session=True,
            pass_fds=(lock,),
        )
    job.state = "running"
    return _Child(job, process, os.pidfd_open(process.pid), time.monotonic())


def _conclude(child: _Child) -> None:
    job = child.job
    os.close(child.descriptor)
    status = child.process.wait()
    job.wall_s = time.monotonic() - child.began
    if status in (0, EXIT_DIVERGED):
        os.replace(child.answer, job.result)
        _recognise(job)
        return
    child.answer.unlink()
    said = job.log.read_text(encoding="utf-8", errors="replace").split("\n")
    last = next((line.strip() for line in reversed(said) if line.strip()), "")
    how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"exited with status {status}"
    job.state, job.error = "failed", last.removeprefix("kappahop: ") or how


def _recognise(job: Job) -> None:
    """Tell from what a run that is over has printed whether it is done or diverged.

    Raises:
        ScenarioError: that cannot be read.
    """
    try:
        diverged = json.loads(job.result.read_text(encoding="utf-8")).get("diverged")
    except (OSError, ValueError, AttributeError):
        raise ScenarioError(f"{job.result}: cannot be read; delete it, and the run is done again") from None
    job.state, job.error = ("diverged", spoken(diverged[0])) if diverged else ("done", "")


def _stop(children: list[_Child], stop: StopFlag) -> None:
    """End the runs that are under way: SIGTERM, and SIGKILL when patience or the user's is over. They will go on."""
    for child in children:
        child.process.terminate()
    deadline, asked = time.monotonic() + STOP_S, stop.count
    for child in children:
        while child.process.poll() is None and time.monotonic() < deadline and stop.count == asked:
            select.select([child.descriptor], [], [], 0.1)
        if child.process.poll() is None:
            os.killpg(child.process.pid, signal.SIGKILL)
        _conclude(child)
        if child.job.state == "failed":
            child.job.state, child.job.error = "waiting", ""


def _check_same(scenario: Scenario, folder: Path) -> None:
    if not load(str(folder / SCENARIO_FILE)).is_same_as(scenario):
        raise ScenarioError(f"--out: {folder} holds a finished run of another scenario; give a new directory")


def _check_belong(new: Iterable[Cell], cells: Sequence[dict[str, Any]], out: Path) -> None:
    """Make sure that cells set the same settings as those of a sweep, and are none of them by another name.

    Raises:
        ScenarioError: it is not so.
    """
    names = {_comparable(cell["keys"]): cell["name"] for cell in cells}
    for cell in new:
        if cells and (others := sorted(cells[0]["keys"].keys() ^ cell.keys.keys())):
            raise ScenarioError(
                f"--out: {out} holds a sweep in which {others[0]} is {'not set' if others[0] in cell.keys else 'set'}, "
                "so these runs do not belong there; give a new directory"
            )
        if (name := names.get(_comparable(cell.keys), cell.name)) != cell.name:
            raise ScenarioError(f"--out: {out} holds the runs of {cell.name!r} as {name!r}; give a new directory")


def _comparable(keys: dict[str, Any]) -> str:
    return json.dumps(keys, sort_keys=True)


def _describe(sweep: Sweep, command: Sequence[str]) -> None:
    path = sweep.out / MANIFEST_FILE
    before: dict[str, Any] = (
        read_manifest(sweep.out) if path.exists() else {"scenario": sweep.source, "commands": [], "cells": []}
    )
    if before["scenario"] != sweep.source:
        raise ScenarioError(
            f"--out: {sweep.out} holds a sweep of {before['scenario']}, not of {sweep.source}; give a new directory"
        )
    cells = {cell["name"]: cell for cell in before["cells"]}
    _check_belong({job.cell.name: job.cell for job in sweep.jobs}.values(), before["cells"], sweep.out)
    for job in sweep.jobs:
        entry = cells.setdefault(job.cell.name, {"name": job.cell.name, "keys": job.cell.keys, "seeds": []})
        entry["seeds"] = sorted({*entry["seeds"], job.seed})
    line = shlex.join(["kappahop", *command])
    commands = before["commands"] + [line] * (line not in before["commands"])
    content = {
        "format": FORMAT,
        "scenario": sweep.source,
        "commands": commands,
        "made_with": manifest(sweep.jobs[0].cell.scenario),
        "cells": list(cells.values()),
    }
    replace(path, json.dumps(content, indent=1, ensure_ascii=False).encode())


def read_manifest(out: Path) -> dict[str, Any]:
    """What a sweep's folder says of itself.

    Raises:
        ScenarioError: it cannot be read, or is of a format that this version does not know.
    """
    found = read_json(out / MANIFEST_FILE)
    if found.get("format") != FORMAT:
        raise ScenarioError(f"{out / MANIFEST_FILE}: not a sweep of format {FORMAT}")
    commands, cells = found.get("commands"), found.get("cells")
    is_whole = isinstance(commands, list) and all(isinstance(one, str) for one in commands) and isinstance(cells, list)
    for cell in cells if isinstance(cells, list) else ():
        is_whole &= isinstance(cell, dict) and isinstance(cell.get("name"), str) and isinstance(cell.get("keys"), dict)
        is_whole = is_whole and isinstance(cell.get("seeds"), list) and all(isinstance(seed, int) for seed in cell["seeds"])
    if not (is_whole and isinstance(found.get("scenario"), str)):
        raise ScenarioError(f"{out / MANIFEST_FILE}: cannot be read (it is not as a sweep writes it)")
    return found
