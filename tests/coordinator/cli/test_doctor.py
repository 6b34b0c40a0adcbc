"""The doctor: all well here, and every kind of trouble told rather than raised."""

import os
import resource
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from coordinator.cli import doctor, guard
from topology.wire import probe


def one(name: str) -> doctor.Check:
    return next(check for check in doctor.checks() if check.name == name)


@pytest.fixture
def no_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_tried", lambda *_: (True, "not tried"))


@pytest.mark.system
def test_this_machine_is_fit(no_leaks: None) -> None:
    found = doctor.checks()
    assert [check for check in found if not check.ok] == []
    assert len({check.name for check in found}) == len(found) == 12
    assert all(check.detail and "\n" not in check.detail for check in found)


@pytest.mark.usefixtures("no_tries")
def test_missing_and_outdated_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = metadata.version

    def version(name: str) -> str:
        if name == "msgpack":
            raise metadata.PackageNotFoundError(name)
        return "1.26.4" if name == "numpy" else real(name)

    monkeypatch.setattr(metadata, "version", version)
    check = one("packages")
    assert not check.ok
    assert check.detail == "numpy is 1.26.4, needs >=2; msgpack>=1.2.3 is not installed; run make setup"


@pytest.mark.usefixtures("no_tries")
def test_an_untested_version_is_mentioned_but_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    real = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "99.0" if name == "rich" else real(name))
    check = one("packages")
    assert check.ok
    assert "rich 99.0 (tested: " in check.detail


@pytest.mark.usefixtures("no_tries")
def test_strangers_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "strangers", lambda: ["'node' would be imported from /elsewhere"])
    assert one("origin") == doctor.Check("origin", False, "'node' would be imported from /elsewhere")


@pytest.mark.usefixtures("no_tries")
def test_want_of_memory_disk_or_descriptors_is_told_with_a_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=100 << 20))
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=7 << 20))
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 4096))
    found = {check.name: check for check in doctor.checks()}
    assert not any(found[name].ok for name in ("memory", "disk", "open files"))
    assert found["memory"].detail.startswith("100 MB free; at least 1024 MB")
    assert found["disk"].detail.startswith(f"7 MB free in {os.getcwd()}; at least 512 MB")
    assert found["open files"].detail == "256 per process; at least 1024 are wanted: ulimit -n 1024"


@pytest.mark.usefixtures("no_tries")
def test_a_check_that_breaks_is_a_failed_check(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("two\nlines")

    monkeypatch.setattr(psutil, "virtual_memory", broken)
    assert one("memory") == doctor.Check("memory", False, "RuntimeError: two lines")


@pytest.mark.system
def test_programs_that_fail_crash_or_hang_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor._tried("raise ImportError('no such thing')", "") == (False, "ImportError: no such thing; run make setup")
    assert doctor._tried("import os; os.abort()", "")[1] == "ended with code -6; run make setup"
    monkeypatch.setattr(doctor, "TRY_S", 0.2)
    assert doctor._tried("import time; time.sleep(20)", "") == (False, "gave no answer within 0 s")


@pytest.mark.system
@pytest.mark.parametrize("transport", ["ipc", "tcp"])
def test_sockets_answer_and_are_gone_afterwards(transport: Any, no_leaks: None) -> None:
    assert 0 < probe.round_trip(transport) < 1  # a second is what no loopback needs, however loaded


def test_sockets_that_cannot_be_made_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 120)  # a socket's path holds 107 characters
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    with pytest.raises(probe.ProbeError, match="ipc: "):
        probe.round_trip("ipc")
    assert list(deep.iterdir()) == []
