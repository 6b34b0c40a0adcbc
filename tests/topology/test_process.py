"""How started processes ask for the processor."""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import zmq

from topology.wire.sockets import new_context

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux's scheduler")
DEADLINE_S = 5.0


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


def turns_ms() -> str:
    """The turns of this thread and of ZeroMQ's, and how nice both are, as far as the kernel tells."""
    turns = {}
    for task in Path("/proc/self/task").iterdir():
        own = [line.split(":")[1] for line in (task / "sched").read_text().splitlines() if line.startswith("se.slice")]
        nice = os.getpriority(os.PRIO_PROCESS, int(task.name))
        # a new thread has its process's name until it gives itself one
        name = "main" if int(task.name) == os.getpid() else (task / "comm").read_text()
        turns[name] = f"{float(own[0]) / 1e6:g} at {nice}"
    return f"{turns['main']}, {next((turn for name, turn in turns.items() if name.startswith('ZMQbg/IO')), 'none')}"


def scheduled(*, lockstep: bool) -> str:
    context = new_context(lockstep=lockstep)
    context.socket(zmq.PAIR).close()  # starts ZeroMQ's thread, which takes a moment to give itself a name
    deadline = time.monotonic() + DEADLINE_S
    while (told := turns_ms()).endswith("none") and time.monotonic() < deadline:
        pass
    return told


@pytest.fixture
def usual() -> str:
    """How threads are scheduled that ask for nothing."""
    if not Path("/proc/self/sched").exists() or tuple(map(int, os.uname().release.split(".")[:2])) < (6, 12):
        pytest.skip("this kernel has no turns of a thread's own, or does not tell")
    return told_by_a_child(turns_ms).split(",")[0]


def test_in_lockstep_computing_takes_long_turns_and_carrying_short_ones(usual: str) -> None:
    assert not usual.startswith("20 ")
    assert told_by_a_child(lambda: scheduled(lockstep=True)) == "20 at 0, 0.1 at 0"


def test_a_run_stays_as_nice_as_it_was_started(usual: str) -> None:
    def scheduled_nicely() -> str:
        os.nice(7)
        return scheduled(lockstep=True)

    assert told_by_a_child(scheduled_nicely) == "20 at 7, 0.1 at 7"


def test_on_the_wall_clock_a_process_is_scheduled_as_others_are(usual: str) -> None:
    assert told_by_a_child(lambda: scheduled(lockstep=False)) == f"{usual}, {usual}"
