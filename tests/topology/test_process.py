"""How started processes ask for the processor, and how they are asked to stop."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import zmq

from topology.planes.control import CONTROL_DEPTH, ControlPort, Fault
from topology.process import SLICE_S, StopRequested, settle, stopped_by, when_parent_dies
from topology.wire.sockets import DealerLinks, ZmqLinks, new_context

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
    niceness = os.nice(0)
    assert told_by_a_child(lambda: scheduled(lockstep=True)) == f"20 at {niceness}, 0.1 at {niceness}"


def test_a_run_stays_as_nice_as_it_was_started(usual: str) -> None:
    def scheduled_nicely() -> str:
        os.nice(7)
        return scheduled(lockstep=True)

    niceness = min(os.nice(0) + 7, 19)
    assert told_by_a_child(scheduled_nicely) == f"20 at {niceness}, 0.1 at {niceness}"


def test_on_the_wall_clock_a_process_is_scheduled_as_others_are(usual: str) -> None:
    assert told_by_a_child(lambda: scheduled(lockstep=False)) == f"{usual}, {usual}"


# ------------------------------------------------------------------------------------------------------- requests to stop


class Doomed:
    """What asks this process to stop while it is destroyed; Python drops an exception that is raised there."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        signal.getsignal(signal.SIGTERM)  # handlers run between two operations, so here at the latest


def lost_in_a_destructor(folder: Path) -> str:
    settle("test", folder / "log")
    links = ZmqLinks(new_context(), f"ipc://{folder}/inbox", deadline_s=1.0, depth=10)
    try:
        for _ in range(3):
            doomed = Doomed()
            links.receive(0.0)
            del doomed
    except StopRequested:
        return "stopped"
    return "went on"


def test_a_request_to_stop_that_comes_within_a_destructor_is_not_lost(tmp_path: Path) -> None:
    assert told_by_a_child(lambda: lost_in_a_destructor(tmp_path)) == "stopped"
    assert (tmp_path / "log").read_text() == ""


def repeated(times: int, act: Callable[[], object]) -> Callable[[], None]:
    def acts() -> None:
        for _ in range(times):
            act()

    return acts


def full_outbox(folder: Path) -> Callable[[], object]:
    links = ZmqLinks(new_context(), f"ipc://{folder}/a", deadline_s=60.0, depth=1)
    links.connect({7: f"ipc://{folder}/nobody"})
    return repeated(10, lambda: links.send(7, (b"x",)))


def full_way_to_the_world(folder: Path) -> Callable[[], object]:
    links = DealerLinks(new_context(), 0, f"ipc://{folder}/nobody", deadline_s=60.0)
    return repeated(100, lambda: links.send(0, (b"x",)))


def no_start(folder: Path) -> Callable[[], object]:
    port = ControlPort(new_context(), "node-0", f"ipc://{folder}/nobody")
    return lambda: port.receive(60.0)


def no_room_for_reports(folder: Path) -> Callable[[], object]:
    port = ControlPort(new_context(), "node-0", f"ipc://{folder}/nobody")
    return repeated(CONTROL_DEPTH + 10, lambda: port.send(Fault(role="node-0", text="")))


def no_peer(folder: Path) -> Callable[[], object]:
    links = ZmqLinks(new_context(), f"ipc://{folder}/a", deadline_s=60.0, depth=1)
    return repeated(240, lambda: links.receive(SLICE_S))


@pytest.mark.parametrize("wait", [full_outbox, full_way_to_the_world, no_start, no_room_for_reports, no_peer])
def test_every_wait_ends_soon_when_the_process_is_asked_to_stop(
    wait: Callable[[Path], Callable[[], object]], tmp_path: Path
) -> None:
    def waited() -> str:
        settle("test", tmp_path / "log")
        waiting = wait(tmp_path)
        # from another thread, so that the wait itself is not interrupted
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
        began = time.monotonic()
        try:
            waiting()
        except StopRequested:
            took = time.monotonic() - began
            return "soon" if took < DEADLINE_S else f"after {took:.1f} s"
        return "never"

    assert told_by_a_child(waited) == "soon"
    assert (tmp_path / "log").read_text() == ""


def test_a_second_signal_of_a_kind_ends_the_process_at_once() -> None:
    def asked_twice() -> str:
        with stopped_by(signal.SIGINT):
            signal.raise_signal(signal.SIGINT)
            os.write(2, b"still here\n")
            signal.raise_signal(signal.SIGINT)
        return "still there"

    assert told_by_a_child(asked_twice) == ""
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_what_hears_nothing_dies_with_its_parent_all_the_same() -> None:
    out, into = os.pipe()
    if (middle := os.fork()) == 0:
        if os.fork() == 0:
            when_parent_dies(os.getppid(), signal.SIGKILL)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            os.write(into, b"ready")
            while True:
                signal.pause()
        os.read(out, 5)
        os._exit(0)
    os.close(into)
    os.waitpid(middle, 0)
    with os.fdopen(out, "rb") as words:
        assert words.read() == b""  # the grandchild held the other end
