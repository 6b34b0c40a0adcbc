"""Stored states of a run: when one is complete, which to keep, and what a run can go on from.

Theory of operation. After every `record.state_rounds` rounds each node and the world store what they need to go on
(`topology.snapshot`) in `RUN/checkpoints/state-N/`, N the number of rounds done, and say so. They do it between two rounds:
the node when it has reported the round and before it says READY, the world when it has shown the round to its end; so no
message is under way but those whose fate is known already, and these are part of a node's state. A report travels on the
same socket before the word that the state is stored. So when all have said it, all of the round is in the database, and the
coordinator commits that and writes `state.json`: without this file a state does not count. Of complete states the last two
are kept.

What a run has recorded beyond the state that it goes on from is dropped (`Recorder`), and comes again the same.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scenarios.loading import ScenarioError
from topology.deployment import CHECKPOINTS, state_folder

COMPLETE_FILE = "state.json"
FORMAT = 1
KEPT = 2  # complete states; one would do, were it certain that it can be read


class States:
    """The states that the processes of one run are storing.

    Args:
        run_dir: The run's directory.
        n_roles: Processes that store.
    """

    def __init__(self, run_dir: Path, n_roles: int) -> None:
        self._run_dir = run_dir
        self._n_roles = n_roles
        self._stored: dict[int, set[str]] = {}

    def has_all(self, role: str, round_: int) -> bool:
        """Take in that a process has stored its state of a round; whether it was the last to do so."""
        roles = self._stored.setdefault(round_, set())
        roles.add(role)
        return len(roles) == self._n_roles

    def complete(self, round_: int) -> None:
        """Let a state count from now on, and drop those that are no longer needed."""
        path = state_folder(self._run_dir, round_) / COMPLETE_FILE
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps({"format": FORMAT, "round": round_}), encoding="utf-8")
        partial.replace(path)
        del self._stored[round_]
        for old in complete_rounds(self._run_dir)[:-KEPT]:
            _drop(state_folder(self._run_dir, old))


def complete_rounds(run_dir: Path) -> list[int]:
    """After which rounds a run has complete states that this version can read, ascending."""
    found = []
    for path in (run_dir / CHECKPOINTS).glob(f"state-*/{COMPLETE_FILE}"):
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(told, dict) and told.get("format") == FORMAT and isinstance(told.get("round"), int):
            found.append(told["round"])
    return sorted(found)


def drop_others(run_dir: Path, kept: int) -> None:
    """Drop states of rounds after one: those of a run that is about to go on from it."""
    for folder in (run_dir / CHECKPOINTS).glob("state-*"):
        if folder not in [state_folder(run_dir, round_) for round_ in complete_rounds(run_dir) if round_ <= kept]:
            _drop(folder)


@contextmanager
def claimed(run_dir: Path) -> Iterator[None]:
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
