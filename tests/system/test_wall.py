"""Runs on the wall clock: nobody waits for the late beyond a deadline, and on a real wire the ledger's bytes are the wire's."""

import contextlib
import json
import os
import shlex
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq

from coordinator.plan import make_run_dir, plan
from scenarios.loading import load
from tests.system.stage import UP_S, Done, Nursery, hear, summed
from topology.control import Finished, Hello, RoundReport, Start, encode_control
from topology.ledger import Row, imbalance
from topology.links import RouterLinks, ipc_endpoint, new_context
from topology.wire import Kind
from topology.world_plane import WorldHub, pack_sense

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]

END_S = 90.0
DT = 0.02  # control period of the swiftest world that has a robot of four agents
WALL = [
    "clock=wall", "env.name=safe_manyagent_ant", "env.partition=4x2", "topology.kind=line", "algorithm.hidden=[8]",
    "algorithm.minibatches=2", "algorithm.epochs=1", "algorithm.factor=khop", "algorithm.reward=khop_mean",
    "record.tensorboard=false",
]  # fmt: skip


def command(out: Path, *more: str, before: Collection[str] = ()) -> "subprocess.Popen[str]":
    words = [*before, sys.executable, "-P", "-m", "coordinator", "run", "quickstart", *WALL, *more, "--json", "-q"]
    return subprocess.Popen([*words, "--out", str(out)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@contextlib.contextmanager
def ending(process: "subprocess.Popen[str]") -> Iterator["subprocess.Popen[str]"]:
    """Sees to it that a process has ended, whatever the test comes to."""
    with process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(10)
                process.kill()


def result(process: "subprocess.Popen[str]") -> dict[str, Any]:
    out, err = process.communicate(timeout=END_S)
    assert (process.returncode, err) == (0, "")
    found: dict[str, Any] = json.loads(out)
    return found


def query(run_dir: Path, sql: str) -> list[tuple[Any, ...]]:
    with contextlib.closing(sqlite3.connect(f"file:{run_dir / 'run.sqlite'}?mode=ro", uri=True)) as database:
        return database.execute(sql).fetchall()


# --------------------------------------------------------------------------------------------------- real time


@pytest.mark.parametrize(
    "how",
    [["kappa=2", "env.copies=2"], ["kappa=2", "routing=direct", "network.transport=tcp"], ["kappa=0", "supervision.deadline_s=1.5"]],
    ids=lambda how: " ".join(how),
)
def test_a_round_takes_the_control_periods_that_it_has_and_not_less(tmp_path: Path, no_leaks: None, how: list[str]) -> None:
    steps = 120  # without peers a round that outlasts the patience with the world, which speaks at every step
    copies = 2 if "env.copies=2" in how else 1
    budget = [f"rollout.steps={steps}", f"budget.env_steps={2 * steps * copies}", "env.horizon=50"]
    with ending(command(tmp_path / "run", *how, "env.copies=1", *how, *budget)) as process:
        told = result(process)
    assert told["env_steps"] == 2 * steps * copies
    rounds = query(tmp_path / "run", "SELECT round, agent, virtual_s, wall_s FROM rounds")
    assert len(rounds) == 2 * 4
    assert all((round_ + 1) * steps * DT <= virtual_s <= wall_s for round_, _, virtual_s, wall_s in rounds)
    assert told["virtual_s"] == max(virtual_s for _, _, virtual_s, _ in rounds)
    used = query(tmp_path / "run", "SELECT used FROM ages")
    assert used == [(steps * copies,)] * (0 if "kappa=0" in how else 2 * (2 + 3 + 3 + 2))


# --------------------------------------------------------------------------------------------------- the late


@dataclass
class Play:
    """Real nodes whose world and coordinator the test is: it knows who is awake when, and what it has shown to whom."""

    done: Done
    hub: WorldHub
    pids: dict[int, int]
    rows: list[Row] = field(default_factory=list)

    def show(self, round_: int, step: int) -> None:
        """The step at which everybody senses how many seconds the run is old."""
        now, copies = float(round_ * self.done.scenario.rollout.steps + step), self.done.scenario.env.copies
        nothing = np.zeros(copies, np.float32)
        rows = pack_sense(np.full((copies, 1), now, np.float32), nothing, np.zeros((copies, 0), np.float32), nothing)
        self.hub.show([[rows]] * len(self.pids), round_=round_, step=step, send_time=now)

    def gather(self, kind: Kind, round_: int, step: int, agents: Collection[int]) -> None:
        """Hear from exactly these agents."""
        awaited, deadline = set(agents), time.monotonic() + UP_S
        while awaited:
            assert time.monotonic() < deadline, f"no {kind.name} {round_} {step} from {awaited}"
            if (message := self.hub.receive(1.0)) is not None:
                header = message.header
                assert (header.kind, header.round, header.step) == (kind, round_, step)
                awaited.remove(header.sender)
                self.hub.taken(header)

    @contextlib.contextmanager
    def asleep(self, agent: int) -> Iterator[None]:
        os.kill(self.pids[agent], signal.SIGSTOP)
        yield
        os.kill(self.pids[agent], signal.SIGCONT)


@pytest.fixture
def play(tmp_path: Path, no_leaks: None) -> Iterator[Play]:
    """Three agents in a line, two hops in sight of each other, for two rounds of six steps, each 2 s long: they act after 1 s."""
    scenario = load("quickstart", [
        *WALL, "env.name=network_lq", "env.partition=3x1", "env.copies=2", "kappa=2", "rollout.steps=6", "budget.env_steps=24",
        "algorithm.order=fixed", "network.patience_s=1",
    ])  # fmt: skip
    ready = plan(scenario)
    deployment = ready.deployment.model_copy(update={"dt": 2.0})
    make_run_dir(tmp_path / "run", ready)
    deployment.write(tmp_path / "run")
    done = Done(scenario, deployment, tmp_path / "run")
    with contextlib.ExitStack() as stack:
        context = new_context()
        stack.callback(context.destroy, linger=0)
        nursery = Nursery(tmp_path / "nursery.log")
        stack.callback(nursery.close)
        control = context.socket(zmq.ROUTER)
        control.bind(ipc_endpoint(tmp_path, "c"))
        router = RouterLinks(context, ipc_endpoint(tmp_path, "w"), deadline_s=UP_S)
        for agent in range(3):
            nursery.fork({
                "role": f"node-{agent}", "agent": agent, "run_dir": str(done.run_dir), "control": ipc_endpoint(tmp_path, "c"),
                "bind": ipc_endpoint(tmp_path, f"node-{agent}"),
            })  # fmt: skip
        hellos = [hear(control, done) for _ in range(3)]
        found = {int(hello.role.partition("-")[2]): hello for hello in hellos if isinstance(hello, Hello)}
        pids = {agent: found[agent].pid for agent in range(3)}
        stack.callback(lambda: [_awake(pid) for pid in pids.values()])
        peers = tuple(found[agent].endpoint for agent in range(3))
        for agent in range(3):
            control.send_multipart([b"node-%d" % agent, encode_control(Start(world=router.endpoint, peers=peers))])
        played = Play(done, WorldHub(router, n_agents=3, copies=2), pids)
        yield played
        finished = 0
        while finished < 3:
            message = hear(control, done)
            finished += isinstance(message, Finished)
        alive = set(pids)
        while alive:
            for event in nursery.events(END_S):
                if "dead" in event:
                    assert event["status"] == 0
                    alive.remove(int(event["dead"].partition("-")[2]))


def _awake(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)
