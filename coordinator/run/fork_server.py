"""The fork server: a small process that has imported what a node needs, and forks one child per node and the world.

Theory of operation. Importing torch takes seconds and hundreds of megabytes; forking from a process that has imported
it, but has run no operation, started no thread and opened no socket, takes 0.15 s and 15 MB of private memory. The
fork server runs as `python -P -m coordinator.run.fork_server FOLDER` and speaks lines of JSON over a pair of pipes: commands in,
`{"born": role, "pid": p}` and `{"dead": role, "status": s}` out. When its input closes, the command is gone: it ends its
children (SIGTERM, then SIGKILL), removes the folder of the sockets and ends.

No process outlives the command, whatever state it is in. If the fork server itself is killed, the kernel kills its children
(`topology.process.when_parent_dies`): SIGKILL, as a child that is stuck or was stopped reacts to nothing else. If the command
is killed while the fork server is stopped, the kernel lets the fork server continue, which then finds its input closed. A program
that uses the Python API may have forked children of its own, which hold that input open. So the fork server also looks whether
its parent is still there.

It must stay single-threaded and must open no ZeroMQ context before forking; tests/system/test_processes.py kills each
part in turn.
"""

import contextlib
import json
import os
import select
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from setproctitle import setproctitle

from topology.process import StopRequested, when_parent_dies

STOP_S = 3.0  # what children are given to end by themselves, once the command is gone


def main() -> None:
    """Serve until the command closes the pipe."""
    setproctitle("kappahop: fork server")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    children: dict[int, str] = {}
    try:
        parent = os.getppid()
        when_parent_dies(parent, signal.SIGCONT)
        _preload()
        wake_out, wake_in = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake_in, warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, signal.SIGCONT):
            signal.signal(number, lambda *_: None)
        _say({"ready": os.getpid()})
        _serve(children, wake_out, parent)
        _end(children, wake_out)
    finally:
        shutil.rmtree(sys.argv[1], ignore_errors=True)  # the sockets' folder, which a killed command leaves behind


def _serve(children: dict[int, str], wake_out: int, parent: int) -> None:
    """Fork as told, and tell of deaths, until the input closes or the parent is gone."""
    pending = b""
    while True:
        readable = _wait(wake_out, 0)
        _reap(children)
        if os.getppid() != parent:
            return
        if 0 in readable:
            data = os.read(0, 1 << 16)
            if not data:
                return
            *lines, pending = (pending + data).split(b"\n")
            for line in lines:
                order = json.loads(line)
                pid = _fork(order)
                children[pid] = order["role"]
                _say({"born": order["role"], "pid": pid})


def _end(children: dict[int, str], wake_out: int) -> None:
    """End all children, first as they like, then at once."""
    for number, patience_s in ((signal.SIGTERM, STOP_S), (signal.SIGKILL, STOP_S)):
        for pid in children:
            os.kill(pid, number)  # it has not been waited for, so the number is still its own
        deadline = time.monotonic() + patience_s
        while children and (left_s := deadline - time.monotonic()) > 0:
            _wait(wake_out, timeout_s=left_s)
            _reap(children)


def _wait(wake_out: int, *others: int, timeout_s: float | None = None) -> list[int]:
    """Wait for a death or for something to read; what there is to read."""
    readable, _, _ = select.select([wake_out, *others], [], [], timeout_s)
    if wake_out in readable:
        os.read(wake_out, 4096)
    return readable


def _preload() -> None:
    import torch  # noqa: F401

    import coordinator.central.process  # noqa: F401
    import envs.process  # noqa: F401
    import node.pack  # noqa: F401


def _fork(order: dict[str, Any]) -> int:
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGCONT):
            signal.signal(number, signal.SIG_DFL)
        os.close(0)
        os.open(os.devnull, os.O_RDONLY)
        when_parent_dies(parent, signal.SIGKILL)
        status = _entry(order)()
    except StopRequested:
        status = 0
    except BaseException:  # noqa: BLE001  (a child never returns into the fork server's loop; its log says why it ended)
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _entry(order: dict[str, Any]) -> Callable[[], int]:
    from coordinator.central.process import run_central
    from envs.process import run_world
    from node.pack import run_pack
    from node.process import run_node

    run_dir = Path(order["run_dir"])
    if order["role"] == "evaluation":
        from coordinator.evaluation.evaluations import Job
        from coordinator.evaluation.process import run_evaluator

        return lambda: run_evaluator(run_dir, Job(**order["job"]), beside_training=order["beside_training"])
    if order["role"] == "world":
        return lambda: run_world(run_dir, order["control"], order["binds"][0])
    if order["critic"]:
        return lambda: run_central(run_dir, order["control"], order["binds"][0])
    if len(order["agents"]) == 1:
        return lambda: run_node(run_dir, order["agents"][0], order["control"], order["binds"][0])
    return lambda: run_pack(run_dir, order["agents"], order["control"], order["binds"])


def _reap(children: dict[int, str]) -> None:
    for pid in list(children):
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            _say({"dead": children.pop(pid), "status": os.waitstatus_to_exitcode(status)})


def _say(message: dict[str, Any]) -> None:
    with contextlib.suppress(BrokenPipeError):  # the command is gone, as the input will say
        os.write(1, json.dumps(message).encode() + b"\n")


if __name__ == "__main__":
    main()
