"""Requests to stop, under load: each is heard, whatever the process is doing.

`KAPPAHOP_STOPS` says how many (`make chaos`: 2,000).
"""

import contextlib
import itertools
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from coordinator.records.plan import make_run_dir, plan
from scenarios.loading import load
from tests.system.stage import UP_S, ForkServer
from topology.planes.control import Hello, RoundReport, decode_control, encode_control, start_of
from topology.wire.sockets import Context, ipc_endpoint, new_context

STOPS = int(os.environ.get("KAPPAHOP_STOPS", "48"))
AGENTS = 11
GONE_S = 30.0  # 0.25 s to hear of it, 2 s for what is still to be sent, and a busy machine; a lost request costs `deadline_s`
WORDS = [
    "env.name=network_lq", f"env.agents={AGENTS}", "topology.kind=line", "env.num_envs=2", "rollout.steps=20",
    "budget.env_steps=1e8", "algorithm.hidden=[8]", "algorithm.minibatches=2", "algorithm.epochs=2", "record.state_rounds=3",
    "supervision.deadline_s=120",
]  # fmt: skip

pytestmark = [pytest.mark.slow, pytest.mark.system, pytest.mark.timeout(max(300, 4 * STOPS))]


@pytest.fixture
def context() -> Iterator[Context]:
    opened = new_context()
    yield opened
    opened.destroy(linger=0)


@pytest.fixture
def fork_server(tmp_path: Path) -> Iterator[ForkServer]:
    opened = ForkServer(tmp_path / "fork_server.log")
    yield opened
    opened.close()
    assert (tmp_path / "fork_server.log").read_text() == ""


@pytest.fixture
def load_on_all_cores() -> Iterator[None]:
    spinners = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
    yield
    for spinner in spinners:
        spinner.kill()
        spinner.wait()


class Company:
    """A run's processes at work, with the test in the place of the command."""

    def __init__(self, folder: Path, fork_server: ForkServer, context: Context) -> None:
        ready = plan(load("quickstart", WORDS))
        self.run_dir = folder / "run"
        make_run_dir(self.run_dir, ready)
        self.pids: dict[str, int] = {}
        self._fork_server = fork_server
        self._control = context.socket(zmq.ROUTER)
        self._control.bind(control := ipc_endpoint(folder, "c"))
        roles = ["world", *(f"node-{agent}" for agent in range(AGENTS))]
        for role in roles:
            order: dict[str, object] = {"role": role, "run_dir": str(self.run_dir), "control": control}
            order["binds"] = [ipc_endpoint(folder, role)]
            fork_server.fork(order if role == "world" else order | {"agents": [int(role.removeprefix("node-"))], "critic": False})
        hellos: dict[str, Hello] = {}
        while len(hellos) < len(roles):
            message = self._heard(UP_S)
            assert isinstance(message, Hello)
            hellos[message.role] = message
        self.pids = {role: hello.pid for role, hello in hellos.items()}
        for role in roles:
            start = start_of(hellos[role], hellos, hellos["world"].endpoint)
            self._control.send_multipart([role.encode(), encode_control(start)])

    def _heard(self, within_s: float) -> object:
        return decode_control(self._control.recv_multipart()[1]) if self._control.poll(int(1000 * within_s)) else None

    def work(self, for_s: float) -> None:
        """Let it work, from the first round's end on."""
        while not isinstance(message := self._heard(UP_S), RoundReport):
            assert message is not None, "no round was ended"
        end = time.monotonic() + for_s
        while (left := end - time.monotonic()) > 0:
            self._heard(left)

    def stop(self) -> dict[str, int]:
        """Ask all to stop; the exit status of those that did."""
        for pid in self.pids.values():
            os.kill(pid, signal.SIGTERM)
        ended: dict[str, int] = {}
        deadline = time.monotonic() + GONE_S
        while len(ended) < len(self.pids) and time.monotonic() < deadline:
            ended |= {event["dead"]: event["status"] for event in self._fork_server.events(0.5) if "dead" in event}
        return ended

    def close(self) -> None:
        self._control.close(linger=0)


def test_every_request_to_stop_is_heard(
    tmp_path_factory: pytest.TempPathFactory, fork_server: ForkServer, context: Context, load_on_all_cores: None
) -> None:
    draw = random.Random(1)
    stopped = 0
    for number in itertools.count():
        company = Company(tmp_path_factory.mktemp("s"), fork_server, context)
        with contextlib.closing(company):
            company.work(draw.uniform(0.0, 0.5))
            ended = company.stop()
        logs = "".join(path.read_text() for path in (company.run_dir / "logs").iterdir())
        assert logs == "", f"company {number}"
        assert ended == dict.fromkeys(company.pids, 0), f"company {number}, after {stopped} stops"
        stopped += len(ended)
        if stopped >= STOPS:
            break
