"""What every started process does first: say who it is, mind its parent, and turn a request to stop into an exception.

A node and the world are started by the coordinator's nursery. If that dies, the kernel sends them SIGTERM; so a killed
command leaves no orphan.
"""

import contextlib
import ctypes
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import NoReturn

from setproctitle import setproctitle

_PR_SET_PDEATHSIG = 1


class StopRequested(BaseException):
    """The process was asked to end; it should give up its sockets and go."""


def settle(role: str, log: Path | None) -> None:
    """Take on a role: process title, log file, signals.

    Args:
        role: `node 3`, `world`.
        log: File that takes standard output and errors; None keeps them.
    """
    setproctitle(f"kappahop: {role}")
    if hasattr(os, "SCHED_BATCH"):  # in lockstep nobody gains by cutting in when woken; longer turns keep caches warm
        with contextlib.suppress(OSError):  # some sandboxes forbid it
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the command's business
    signal.signal(signal.SIGTERM, _on_sigterm)
    if log is not None:
        with log.open("ab", buffering=0) as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]


def die_with_parent(parent: int) -> None:
    """Ask the kernel for SIGTERM when the parent dies (Linux).

    Raises:
        StopRequested: the parent has died already.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))
    if os.getppid() != parent:
        raise StopRequested


def _on_sigterm(signum: int, frame: FrameType | None) -> NoReturn:
    raise StopRequested
