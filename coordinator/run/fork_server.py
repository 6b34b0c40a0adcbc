"""The nursery: a small process that has imported what a node needs, and forks one child per node and the world.

Theory of operation. Importing torch takes seconds and hundreds of megabytes; forking from a process that has imported
it, but has run no operation, started no thread and opened no socket, takes 0.15 s and 15 MB of private memory. The
nursery runs as `python -P -m coordinator.run.fork_server FOLDER` and speaks lines of JSON over a pair of pipes: commands in,
`{"born": role, "pid": p}` and `{"dead": role, "status": s}` out. When its input closes, the command is gone: it removes
the folder of the sockets and ends, and the kernel then sends its children SIGTERM (`topology.process.die_with_parent`).

It must stay single-threaded and must open no ZeroMQ context before forking; tests/system/test_processes.py kills each
part in turn.
"""

import json
import os
import select
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from setproctitle import setproctitle

from topology.process import StopRequested, die_with_parent


def main() -> None:
    """Serve until the command closes the pipe."""
    setproctitle("kappahop: nursery")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _preload()
    wake_out, wake_in = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake_in, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    _say({"ready": os.getpid()})
    children: dict[int, str] = {}
    pending = b""
    while True:
        readable, _, _ = select.select([0, wake_out], [], [])
        if wake_out in readable:
            os.read(wake_out, 4096)
        _reap(children)
        if 0 in readable:
            data = os.read(0, 1 << 16)
            if not data:
                shutil.rmtree(sys.argv[1], ignore_errors=True)  # the sockets' folder, which a killed command leaves behind
                return
            *lines, pending = (pending + data).split(b"\n")
            for line in lines:
                order = json.loads(line)
                pid = _fork(order)
                children[pid] = order["role"]
                _say({"born": order["role"], "pid": pid})


def _preload() -> None:
    import torch  # noqa: F401

    import coordinator.central.process  # noqa: F401
    import envs.process  # noqa: F401
    import node.process  # noqa: F401


def _fork(order: dict[str, Any]) -> int:
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.close(0)
        os.open(os.devnull, os.O_RDONLY)
        die_with_parent(parent)
        status = _entry(order)()
    except StopRequested:
        status = 0
    except BaseException:  # noqa: BLE001  (a child never returns into the nursery's loop; its log says why it ended)
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _entry(order: dict[str, Any]) -> Callable[[], int]:
    from coordinator.central.process import run_central
    from envs.process import run_world
    from node.process import run_node

    run_dir = Path(order["run_dir"])
    if order["role"] == "world":
        return lambda: run_world(run_dir, order["control"], order["bind"])
    if order.get("critic"):
        return lambda: run_central(run_dir, order["control"], order["bind"])
    return lambda: run_node(run_dir, order["agent"], order["control"], order["bind"])


def _reap(children: dict[int, str]) -> None:
    for pid in list(children):
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            _say({"dead": children.pop(pid), "status": os.waitstatus_to_exitcode(status)})


def _say(message: dict[str, Any]) -> None:
    os.write(1, json.dumps(message).encode() + b"\n")


if __name__ == "__main__":
    main()
