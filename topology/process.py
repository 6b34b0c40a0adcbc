"""What every started process does first: say who it is, mind its parent, and listen to requests to stop.

A signal that asks a process to stop only sets a flag (`STOP`). Every receive and every slice of a wait looks at the flag and
raises `StopRequested`. A handler must not raise: Python may run it inside a destructor, where an exception is printed
("Exception ignored in ...") and lost. ZeroMQ's frames have such destructors, and one request in twenty was lost there.

A node and the world are started by the coordinator's fork server, which ends them when the command is gone. If the fork server
itself dies, the kernel kills them, whatever they are doing; so a killed command leaves no orphan.

Many processes share few cores, and what a change of process costs is above all cold caches: six learners on two cores take a
sixth more processor time than one after the other. So in lockstep, where nobody gains by being served at once, each asks the
scheduler for long turns, and for its ZeroMQ thread for short ones: what has been sent is carried before anybody goes on
computing. What else may be asked for while nobody else uses the machine is the coordinator's business
(`coordinator.run.scheduling`).
"""

import contextlib
import ctypes
import os
import platform
import signal
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from setproctitle import setproctitle

_PR_SET_PDEATHSIG = 1
_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}  # the system call's number; C libraries do not know it yet
LONG_TURN_NS = 20_000_000  # usual are 3 ms; the most is 100 ms, which gains no more
SHORT_TURN_NS = 100_000  # the least; who wants little is served first
SLICE_S = 0.25  # the longest part of a wait: then requests to stop, and orders, are looked at


class StopRequested(BaseException):
    """The process was asked to end; it should give up its sockets and go."""


class Stop:
    """Whether this process has been asked to stop.

    Attributes:
        asked: Set by signals; looked at by whatever waits.
    """

    __slots__ = ("asked",)

    def __init__(self) -> None:
        self.asked = False


STOP = Stop()  # signals concern a process as a whole, so there is one


def heed_stop() -> None:
    """Look at the flag.

    Raises:
        StopRequested: the process has been asked to stop.
    """
    if STOP.asked:
        raise StopRequested


@contextlib.contextmanager
def stopped_by(*numbers: signal.Signals) -> Iterator[None]:
    """Let signals ask this process to stop, within the block. A second signal of the same number ends the process at once."""
    before = {number: signal.signal(number, _ask_once) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        STOP.asked = False


def settle(role: str, log: Path | None) -> None:
    """Take on a role: process title, log file, signals.

    Args:
        role: `node 3`, `world`.
        log: File that takes standard output and errors; None keeps them.
    """
    setproctitle(f"kappahop: {role}")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the command's business
    signal.signal(signal.SIGTERM, _ask)
    if log is not None:
        with log.open("ab", buffering=0) as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]


def take_turns(turn_ns: int) -> None:
    """Ask the scheduler for turns of this length for this thread; else (another system, an older kernel) do without."""
    number = _SCHED_SETATTR.get(platform.machine())
    if sys.platform == "linux" and number is not None:
        # size, policy and niceness (as they are), priority, runtime (here: the turn), deadline, period
        wish = struct.pack("=IIQiIQQQ", 48, os.sched_getscheduler(0), 0, os.nice(0), 0, turn_ns, 0, 0)
        ctypes.CDLL(None).syscall(number, 0, ctypes.c_char_p(wish), 0)


def when_parent_dies(parent: int, number: signal.Signals) -> None:
    """Ask the kernel for a signal when the parent dies (Linux).

    Raises:
        StopRequested: the parent has died already.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(number))
    if os.getppid() != parent:
        raise StopRequested


def _ask(signum: int, frame: FrameType | None) -> None:
    STOP.asked = True


def _ask_once(signum: int, frame: FrameType | None) -> None:
    STOP.asked = True
    signal.signal(signum, signal.SIG_DFL)
