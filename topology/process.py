"""What every started process does first: name itself, watch its parent, and listen to requests to stop.

A signal that asks a process to stop only sets a flag (`STOP`). Every receive and every slice of a wait looks at the flag and
raises `StopRequested`. A handler must not raise: Python may run it inside a destructor, where an exception is printed
("Exception ignored in ...") and lost. ZeroMQ's frames have such destructors, and one request in twenty was lost there.

A node and the world are started by the coordinator's fork server, which ends them when the command is gone. If the fork server
itself dies, the kernel kills them, whatever they are doing; so a killed command leaves no orphan.

Many processes share few cores, and what a change of process costs is above all cold caches: six learners on two cores take a
sixth more processor time than one after the other. So in lockstep, where no process gains by being served at once, each asks the
scheduler for long turns, and for its ZeroMQ thread for short ones: what has been sent is carried before any process goes on
computing. What else may be asked for while no other program uses the machine is the coordinator's business
(`coordinator.run.scheduling`).
"""

import contextlib
import ctypes
import os
import platform
import signal
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from setproctitle import setproctitle

_PR_SET_PDEATHSIG = 1
_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}  # the system call's number; C libraries do not know it yet
LONG_TURN_NS = 20_000_000  # usual are 3 ms; the most is 100 ms, which gains no more
SHORT_TURN_NS = 100_000  # the least; a process that wants little is served first
PARENT = "KAPPAHOP_PARENT"  # variable of the environment: the process id of what started this one
SLICE_S = 0.25  # the longest part of a wait: then requests to stop, and orders, are looked at


class StopRequested(BaseException):
    """The process was asked to end; it should give up its sockets and go."""


class StopFlag:
    """A request to stop what goes on in this process: all of it (`STOP`), or one run.

    Attributes:
        asked: Whether there is a request; looked at by whatever computes or waits.
        count: How many requests there have been.
        reason: Where it comes from, as the beginning of a sentence.
    """

    __slots__ = ("_wake", "asked", "count", "reason")

    def __init__(self) -> None:
        self.asked = False
        self.count = 0
        self.reason = "interrupted"
        self._wake: Callable[[str], object] | None = None

    def ask(self, reason: str = "interrupted") -> None:
        """Ask, from any thread or from a signal's handler."""
        self.asked, self.reason = True, reason
        self.count += 1
        if (wake := self._wake) is not None:
            wake(reason)

    def heed(self) -> None:
        """Look at the flag.

        Raises:
            StopRequested: there is a request.
        """
        if self.asked:
            raise StopRequested

    @contextlib.contextmanager
    def waking(self, wake: Callable[[str], object]) -> Iterator[None]:
        """Within the block, call `wake` with the reason of every request: for what waits, and cannot look at the flag."""
        self._wake = wake
        if self.asked:
            wake(self.reason)
        try:
            yield
        finally:
            self._wake = None


STOP = StopFlag()  # what asks the process as a whole
heed_stop = STOP.heed


@contextlib.contextmanager
def stopped_by(*numbers: signal.Signals, stop: StopFlag = STOP, twice_kills: bool = True) -> Iterator[None]:
    """Let signals ask to stop, within the block.

    Args:
        numbers: Which signals.
        stop: What they ask.
        twice_kills: Whether a second signal of the same number ends the process at once. Without, a second SIGINT asks again,
            and other signals count once: timeout(1) sends SIGTERM twice.
    """

    def ask(number: int, frame: FrameType | None) -> None:
        if twice_kills:
            signal.signal(number, signal.SIG_DFL)
        elif stop.asked and number != signal.SIGINT:
            return
        stop.ask(f"interrupted by {signal.Signals(number).name}")

    before = {number: signal.signal(number, ask) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        stop.asked = False


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


def how_it_ended(status: int) -> str:
    """How a process ended, for a sentence about it.

    Args:
        status: Its exit code; minus the signal's number if a signal ended it.

    Example:
        >>> how_it_ended(-9)
        'was killed by SIGKILL'
    """
    if status < 0:
        return f"was killed by {signal.Signals(-status).name}"
    return "ended before its work was done" if status == 0 else f"exited with status {status}"


def die_with_starter() -> None:
    """Where the environment names the process that started this one (`PARENT`), ask for SIGTERM when that process dies.

    Raises:
        StopRequested: it has died already.
    """
    if (parent := os.environ.pop(PARENT, "")).isdecimal():
        when_parent_dies(int(parent), signal.SIGTERM)


def _ask(signum: int, frame: FrameType | None) -> None:
    STOP.asked = True
