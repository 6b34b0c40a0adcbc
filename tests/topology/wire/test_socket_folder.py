"""The folder of a run's sockets: private, and removed once no process uses it."""

import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from topology.wire.socket_folder import PREFIX, remove_abandoned, socket_folder


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_folder_is_private_and_goes_with_all_that_is_in_it(temporary: Path) -> None:
    with socket_folder() as (folder, _):
        assert folder.parent == temporary
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        (folder / "control").touch()
    assert list(temporary.iterdir()) == []


def test_a_folder_that_was_left_behind_goes_at_the_next_start(temporary: Path) -> None:
    (temporary / f"{PREFIX}left" / "below").mkdir(parents=True)
    with socket_folder() as (folder, _):
        assert list(temporary.iterdir()) == [folder]


def test_a_folder_stays_for_as_long_as_any_process_of_its_run_lives(temporary: Path) -> None:
    with socket_folder() as (folder, lock):
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=(lock,))
        os.dup2(os.open(os.devnull, os.O_RDONLY), lock)  # this process's own share of the lock is gone, as when it is killed
        remove_abandoned()
        assert folder.is_dir()
        child.communicate(b"\n", timeout=30)
        remove_abandoned()
        assert not folder.exists()


def test_what_only_has_such_a_name_stays(temporary: Path) -> None:
    elsewhere = temporary / "elsewhere"
    elsewhere.mkdir()
    (temporary / f"{PREFIX}link").symlink_to(elsewhere)
    (temporary / f"{PREFIX}file").touch()
    remove_abandoned()
    assert {path.name for path in temporary.iterdir()} == {"elsewhere", f"{PREFIX}link", f"{PREFIX}file"}
    assert elsewhere.is_dir()
