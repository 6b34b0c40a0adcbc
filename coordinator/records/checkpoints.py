"""Stored states of a run: when one is complete, which to keep, and what a run can go on from.

Theory of operation. After every `record.state_rounds` rounds each node and the world store what they need to go on
(`topology.snapshot`) in `RUN/checkpoints/state-N/`, N the number of rounds done, and say so. They do it between two rounds:
the node when it has reported the round and before it says READY, the world when it has shown the round to its end; so no
message is under way but those whose fate is known already, and these are part of a node's state. A report travels on the
same socket before the word that the state is stored. So when all have said it, all of the round is in the database, and the
coordinator commits that and writes `state.json`, the state's index: without this file a state does not count. Of complete
states the last two are kept. A state that a process cannot store (a full disk) never counts; the run goes on, and keeps those
before it.

The index says whose state it is (the run, its scenario, its deployment), of which round, and the digest of each process's
file. `latest_good` checks all of that before anything starts. So a flipped bit, files of two agents exchanged, the state of
another run or an edited seed cannot lead to other weights in silence: the state before is taken, or the run is refused.

Data recorded after the state that a run goes on from is deleted (`Recorder`) and recorded again, the same.

A finished run may go on too, with a larger budget (`extend`). Its state then gets a new index, for the scenario with that budget.
The policies that were best by the state's round lie in the state's folder, because a finished run keeps no others.
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from coordinator.records.plan import MANIFEST_FILE
from coordinator.records.weights import FINAL
from envs.process import ROLE
from scenarios.loading import ScenarioError, dump
from scenarios.schema import Scenario
from topology.deployment import CHECKPOINTS, DEPLOYMENT_FILE, SCENARIO_FILE, Deployment, policies_folder, state_folder
from topology.files import replace
from topology.planes.control import Stored
from topology.wire.keys import COORDINATOR, role_of

COMPLETE_FILE = "state.json"
FORMAT = 6  # of the index and of what processes store; it grows with every change to either
BEST = "best"  # folder of the weights that evaluations found best
KEPT = 2  # complete states; one would do, were it certain that it stays as it was written


class Checkpoints:
    """The states that the processes of one run are storing.

    Args:
        run_dir: The run's directory, with scenario and deployment.
    """

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._owner = _owner(run_dir)
        self._roles = _roles(run_dir)
        self._stored: dict[int, dict[str, Stored]] = {}

    def has_all(self, report: Stored) -> bool:
        """Take in a process's report of its state of a round; whether it was the last to come."""
        reports = self._stored.setdefault(report.round, {})
        reports[report.role] = report
        return reports.keys() == self._roles

    def complete(self, round_: int) -> Stored | None:
        """Let a state count from now on, and drop those that are no longer needed.

        Returns:
            What there is to report if it cannot count: the first problem that was met with it.
        """
        reports, folder = self._stored.pop(round_), state_folder(self._run_dir, round_)
        failed = next((report for report in reports.values() if report.problem), None)
        if failed is None:
            index = {
                "format": FORMAT, "round": round_, **self._owner,
                "files": {role: reports[role].sha256 for role in sorted(reports)},
            }  # fmt: skip
            try:
                _sign(folder, index)
            except OSError as error:
                told = f"{folder.name}/{COMPLETE_FILE}: {error.strerror or error}"
                failed = Stored(role=COORDINATOR, round=round_, problem=told)
        if failed is not None:
            _drop(folder)  # what there is of it takes up room
            return failed
        for old in complete_rounds(self._run_dir)[:-KEPT]:
            _drop(state_folder(self._run_dir, old))
        return None


def extend(run_dir: Path, round_: int, scenario: Scenario) -> None:
    """Let a run go on from a state to a larger budget: its scenario, the state's index, and the best policies so far.

    The index is written before the scenario. A command that is killed between the two leaves the run as it was, with the state
    before this one to go on from.

    Raises:
        OSError: something cannot be written.
    """
    folder, told = state_folder(run_dir, round_), dump(scenario).encode()
    index = json.loads((folder / COMPLETE_FILE).read_text(encoding="utf-8"))["index"]
    _sign(folder, index | {SCENARIO_FILE: hashlib.sha256(told).hexdigest()})
    replace(run_dir / SCENARIO_FILE, told)
    for name in (FINAL, BEST):  # they are those of the budget before
        shutil.rmtree(run_dir / CHECKPOINTS / name, ignore_errors=True)
    for kept in folder.glob(f"{BEST}-*"):
        shutil.copytree(kept, policies_folder(run_dir, int(kept.name.removeprefix(f"{BEST}-")) - 1), dirs_exist_ok=True)


def keep_best(run_dir: Path, state: int, best: int, source: Path) -> None:
    """Keep the policies that were best by the round of a state beside it.

    Raises:
        OSError: they cannot be written.
    """
    shutil.copytree(source, state_folder(run_dir, state) / f"{BEST}-{best + 1}", dirs_exist_ok=True)


def complete_rounds(run_dir: Path) -> list[int]:
    """After which rounds a run has stored complete states, ascending; whether they are good, `latest_good` says."""
    names = (path.parent.name.removeprefix("state-") for path in (run_dir / CHECKPOINTS).glob(f"state-*/{COMPLETE_FILE}"))
    return sorted(int(name) - 1 for name in names if name.isascii() and name.isdecimal())


def latest_good(run_dir: Path) -> tuple[int | None, list[str]]:
    """After which round a run has the last state that it can go on from, None: it has none; and what is wrong with later ones."""
    wrong: list[str] = []
    for round_ in reversed(complete_rounds(run_dir)):
        objection = _objection(run_dir, round_)
        if objection is None:
            return round_, wrong
        wrong.append(f"{state_folder(run_dir, round_).name}: {objection}")
    return None, wrong


def _objection(run_dir: Path, round_: int) -> str | None:
    """Why a run cannot go on from a state."""
    folder = state_folder(run_dir, round_)
    try:
        told = json.loads((folder / COMPLETE_FILE).read_text(encoding="utf-8"))
        index = told["index"] if told.get("format") is None else told  # format 1 was flat
        if index["format"] != FORMAT:
            got = str(index["format"])[:20]
            return f"{COMPLETE_FILE}: got format {got}; expected {FORMAT} (the commit in {MANIFEST_FILE} can resume it)"
        if told["sha256"] != _digest(index):
            return f"{COMPLETE_FILE} has changed since it was written"
        files = dict(index["files"])
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        return f"{COMPLETE_FILE} cannot be read ({' '.join(str(error).split())[:200]})"
    if index["round"] != round_:
        return f"it is the state of another round ({str(index['round'])[:20]})"
    for key, value in _owner(run_dir).items():
        if index[key] != value:
            return "it is a state of another run" if key == "run" else f"{key} has changed since it was stored"
    if files.keys() != _roles(run_dir):
        return "it lacks a process, or has one that the run has not"
    for role, digest in files.items():
        name = f"{role}.safetensors"
        try:
            if hashlib.sha256((folder / name).read_bytes()).hexdigest() != digest:
                return f"{name} has changed since it was stored"
        except OSError as error:
            return f"{name} cannot be read ({error.strerror})"
    return None


def _owner(run_dir: Path) -> dict[str, str]:
    """Whose states a run's are: other ones would go on to other weights."""
    deployment = Deployment.read(run_dir)
    return {
        "run": deployment.run,
        SCENARIO_FILE: hashlib.sha256((run_dir / SCENARIO_FILE).read_bytes()).hexdigest(),
        DEPLOYMENT_FILE: _digest(deployment.model_dump(mode="json", exclude={"resumed_after"}, exclude_defaults=True)),
    }


def _sign(folder: Path, index: dict[str, Any]) -> None:
    replace(folder / COMPLETE_FILE, json.dumps({"index": index, "sha256": _digest(index)}, indent=1).encode())


def _roles(run_dir: Path) -> set[str]:
    return {ROLE, *map(role_of, range(Deployment.read(run_dir).n_nodes))}


def _digest(tree: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()


def drop_others(run_dir: Path, kept: int) -> None:
    """Drop states of rounds after one: those of a run that is about to go on from it."""
    for folder in (run_dir / CHECKPOINTS).glob("state-*"):
        if folder not in [state_folder(run_dir, round_) for round_ in complete_rounds(run_dir) if round_ <= kept]:
            _drop(folder)


@contextmanager
def claim_run(run_dir: Path) -> Iterator[None]:
    """A run's directory, for this process alone.

    Raises:
        ScenarioError: another command is at work there.
    """
    lock = os.open(run_dir, os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ScenarioError(f"{run_dir}: this run still goes on") from None
        yield
    finally:
        os.close(lock)


def _drop(folder: Path) -> None:
    (folder / COMPLETE_FILE).unlink(missing_ok=True)  # first: half a state must not count
    shutil.rmtree(folder, ignore_errors=True)
