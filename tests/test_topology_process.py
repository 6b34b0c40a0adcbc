"""How started processes ask for the processor."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from topology.process import settle

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux's scheduler")


def told_by_a_child(tell: Callable[[], str]) -> str:
    """What a forked process has to say, which must not touch this one."""
    out, into = os.pipe()
    if (pid := os.fork()) == 0:
        try:
            os.write(into, tell().encode())
        finally:
            os._exit(0)
    os.close(into)
    with os.fdopen(out) as words:
        said = words.read()
    os.waitpid(pid, 0)
    return said


def turn_ms() -> float:
    """This thread's turn, where the kernel tells."""
    told = Path("/proc/self/sched")
    for line in told.read_text().splitlines() if told.exists() else ():
        if line.startswith("se.slice"):
            return float(line.split(":")[1]) / 1e6
    return float("nan")


def scheduled(*, lockstep: bool) -> str:
    settle("test", None, lockstep=lockstep)
    return f"{os.sched_getscheduler(0) == os.SCHED_BATCH} {turn_ms():g}"


def test_in_lockstep_a_process_takes_long_turns() -> None:
    batch, turn = told_by_a_child(lambda: scheduled(lockstep=True)).split()
    assert batch == "True"
    if turn == "nan" or tuple(map(int, os.uname().release.split(".")[:2])) < (6, 12):
        pytest.skip("this kernel has no turns of a process's own, or does not tell")
    assert turn == "20"


def test_on_the_wall_clock_it_is_scheduled_as_others_are() -> None:
    assert told_by_a_child(lambda: scheduled(lockstep=False)) == f"False {turn_ms():g}"
