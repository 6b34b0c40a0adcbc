"""A stage for runs: real node and world processes, forked by one fork server, with the test in the place of the command.

Where it must be known what an agent was shown, the test takes the place of the world too (`Script`).
"""

import contextlib
import hashlib
import itertools
import json
import os
import random
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq
from numpy.typing import NDArray

from coordinator.records.plan import make_run_dir, plan
from scenarios.kinds import Kind
from scenarios.loading import load
from scenarios.schema import Scenario
from topology.deployment import Deployment
from topology.planes.control import (
    Control,
    Fault,
    Finished,
    Hello,
    Progress,
    RoundReport,
    decode_control,
    encode_control,
    start_of,
)
from topology.planes.world import END_TERMINATED, END_TRUNCATED, WorldHub, pack_sense
from topology.wire.frame import table
from topology.wire.ledger import Row
from topology.wire.sockets import Context, RouterLinks, ipc_endpoint

UP_S = 90.0  # a fork server takes 2 s to be ready on a machine of its own, a run 1 s
SMALL = [
    "env.name=network_lq", "env.agents=5", "topology.kind=line", "env.num_envs=2", "rollout.steps=20", "budget.env_steps=80",
    "env.horizon=15", "algorithm.hidden=[8]", "algorithm.minibatches=2", "algorithm.epochs=2", "supervision.deadline_s=60",
]  # fmt: skip


class ForkServer:
    """The process that forks nodes and worlds, as the command has it."""

    def __init__(self, log: Path) -> None:
        self._log = log.open("wb")
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "coordinator.run.fork_server", str(log.parent / "sockets")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            bufsize=0,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        self._pending = b""
        assert "ready" in self.events(UP_S)[0]

    def fork(self, order: dict[str, object]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")

    def events(self, timeout_s: float) -> list[dict[str, Any]]:
        """What it has said since, waiting for something for at most so long."""
        assert self._process.stdout is not None
        while select.select([self._process.stdout], [], [], timeout_s)[0]:
            data = self._process.stdout.read(1 << 16)
            assert data, "the fork server has died"
            *lines, self._pending = (self._pending + data).split(b"\n")
            if lines:
                return [json.loads(line) for line in lines]
        return []

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()
        self._log.close()


@dataclass
class Done:
    """What a run came to."""

    scenario: Scenario
    deployment: Deployment
    run_dir: Path
    rows: list[Row] = field(default_factory=list)
    weights: dict[int, str] = field(default_factory=dict)
    actions: dict[int, "hashlib._Hash"] = field(default_factory=dict)
    metrics: dict[tuple[int, int], dict[str, float]] = field(default_factory=dict)
    reports: dict[tuple[int, int], RoundReport] = field(default_factory=dict)

    @property
    def peer_rows(self) -> list[Row]:
        return [row for row in self.rows if row.plane == "peer"]

    def payload(self, kind: str) -> int:
        return sum(row.payload_bytes for row in self.peer_rows if row.kind == kind)


class Script:
    """A world that shows what it was told to, whatever the agents do, and notes what they do.

    Args:
        disturbed: Agents whose observations differ from those of the undisturbed script.
    """

    def __init__(self, deployment: Deployment, scenario: Scenario, disturbed: Sequence[int]) -> None:
        self._deployment, self._scenario, self._disturbed = deployment, scenario, disturbed

    def show(self, hub: WorldHub, round_: int, step: int) -> None:
        copies, n_costs = self._scenario.env.num_envs, len(self._deployment.cost_limits)
        now = round_ * self._scenario.rollout.steps + step
        draw = np.random.Generator(np.random.PCG64([now]))
        end = np.zeros(copies, np.float32)
        if now % 7 == 5:
            end[0] = END_TERMINATED
        if now % 9 == 8:
            end[-1] = END_TRUNCATED
        if step == 0 and round_ == 1:
            end[:] = END_TERMINATED  # a rollout whose last step ends every copy
        shown = []
        for agent, dim in enumerate(self._deployment.obs_dims):
            obs, last = draw.standard_normal((2, copies, dim)).astype(np.float32)
            reward = draw.standard_normal(copies).astype(np.float32)
            cost = draw.random((copies, n_costs)).astype(np.float32)
            if agent in self._disturbed:
                obs, last = obs + 0.5, last - 0.25
            shown.append([pack_sense(obs, reward, cost, end), *([last] if end.any() else [])])
        hub.show(shown, round_=round_, step=step, send_time=float(now))

    def gather(self, hub: WorldHub, kind: Kind, round_: int, step: int, done: Done) -> None:
        found: dict[int, NDArray[np.float32]] = {}
        deadline = time.monotonic() + UP_S
        while len(found) < self._deployment.n_agents:
            message = hub.receive(1.0)
            assert time.monotonic() < deadline, f"no {kind.name} {round_} {step} from all but {sorted(found)}"
            if message is not None:
                header = message.header
                assert (header.kind, header.round, header.step) == (kind, round_, step)
                hub.taken(header)
                width = self._deployment.act_dims[header.sender] if kind is Kind.ACT else 0
                found[header.sender] = table(message, self._scenario.env.num_envs, width)
        for agent, action in found.items():
            done.actions.setdefault(agent, hashlib.sha256()).update(action.tobytes())

    def run(self, hub: WorldHub, done: Done) -> None:
        self.gather(hub, Kind.JOIN, 0, 0, done)
        self.show(hub, 0, 0)
        steps = self._scenario.rollout.steps
        for round_, step in itertools.product(range(self._scenario.n_rounds), range(steps)):
            self.gather(hub, Kind.ACT, round_, step, done)
            self.show(hub, *((round_, step + 1) if step + 1 < steps else (round_ + 1, 0)))
            if step + 1 == steps and round_ + 1 < self._scenario.n_rounds:
                self.gather(hub, Kind.READY, round_ + 1, 0, done)
                hub.go(round_=round_ + 1, send_time=float((round_ + 1) * steps))


class Stage:
    """Where runs are performed."""

    def __init__(self, folder: Path, fork_server: ForkServer, context: Context) -> None:
        self._folder, self._fork_server, self._context = folder, fork_server, context
        self._count = itertools.count()
        self._known: dict[tuple[str, ...], Done] = {}

    def run(self, *overrides: str) -> Done:
        """The run of a scenario; one that was performed before is not performed again."""
        if overrides not in self._known:
            self._known[overrides] = self.perform(*overrides)
        return self._known[overrides]

    def perform(
        self,
        *overrides: str,
        shape: dict[str, Any] | None = None,
        disturbed: Sequence[int] | None = None,
        by_hand: Sequence[int] = (),
        shuffle: int | None = None,
    ) -> Done:
        """Performs a run.

        Args:
            overrides: Of the scenario `SMALL`.
            shape: What the deployment shall say instead of what follows from the scenario.
            disturbed: None: a real world; otherwise a `Script` that disturbs these agents.
            by_hand: Agents started as `python -m node` instead of by the fork server.
            shuffle: Seed of the order in which processes are started; None: the world first, then by id.
        """
        scenario = load("quickstart", [*SMALL, *overrides])
        ready = plan(scenario)
        deployment = ready.deployment.model_copy(update=shape or {})
        folder = self._folder / str(next(self._count))
        make_run_dir(folder / "run", ready)
        deployment.write(folder / "run")
        done = Done(scenario, deployment, folder / "run")
        with contextlib.ExitStack() as stack:
            control = self._context.socket(zmq.ROUTER)
            stack.callback(control.close, linger=500)
            control.bind(ipc_endpoint(folder, "c"))
            hub = router = None
            if disturbed is not None:
                router = RouterLinks(self._context, ipc_endpoint(folder, "w"), deadline_s=UP_S)
                hub = WorldHub(router, n_agents=deployment.n_agents, copies=scenario.env.num_envs)
                stack.callback(hub.close)
            roles = [*([] if hub else ["world"]), *(f"node-{i}" for i in range(deployment.n_nodes))]
            if shuffle is not None:
                random.Random(shuffle).shuffle(roles)
            for role in roles:
                agent = int(role.partition("-")[2] or -1)
                tcp = scenario.network.transport == "tcp"
                bind = "tcp://127.0.0.1:*" if tcp else ipc_endpoint(folder, role)
                if agent in by_hand:
                    words = [
                        "--run",
                        str(done.run_dir),
                        "--agent",
                        str(agent),
                        "--control",
                        ipc_endpoint(folder, "c"),
                        "--bind",
                        bind,
                    ]
                    process = subprocess.Popen([sys.executable, "-P", "-m", "node", *words])
                    stack.callback(process.wait, 10)
                else:
                    order = {"role": role, "run_dir": str(done.run_dir), "control": ipc_endpoint(folder, "c"), "binds": [bind]}
                    critic = {"critic": agent == deployment.critic}
                    self._fork_server.fork(order | ({"agents": [agent], **critic} if agent >= 0 else {}))
            hellos: dict[str, Hello] = {}
            while len(hellos) < len(roles):
                message = hear(control, done)
                if isinstance(message, Hello):
                    hellos[message.role] = message
            world = router.endpoint if router else hellos["world"].endpoint
            for role in roles:
                control.send_multipart([role.encode(), encode_control(start_of(hellos[role], hellos, world))])
            rows: list[Row] = []
            if hub:
                assert disturbed is not None
                Script(deployment, scenario, disturbed).run(hub, done)
                rows += hub.drain()
            finished: set[str] = set()
            while len(finished) < len(roles):
                message = hear(control, done)
                if isinstance(message, Finished):
                    finished.add(message.role)
                    rows += message.traffic
                    if message.role != "world":
                        done.weights[int(message.role.partition("-")[2])] = message.weights_sha256
                if isinstance(message, Progress | RoundReport):
                    rows += message.traffic
                if isinstance(message, RoundReport):
                    assert not message.refused
                    done.metrics[message.agent, message.round] = message.metrics
                    done.reports[message.agent, message.round] = message
            done.rows = summed(rows)
            forked = set(roles) - {f"node-{i}" for i in by_hand}
            deadline = time.monotonic() + UP_S
            while forked and time.monotonic() < deadline:
                for event in self._fork_server.events(1.0):
                    if "dead" in event:
                        assert event["status"] == 0
                        forked.remove(event["dead"])
        return done


def summed(rows: Sequence[Row]) -> list[Row]:
    """The rows of all processes, added up by link."""
    total: dict[tuple[Any, ...], NDArray[np.int64]] = {}
    for row in rows:
        total[row[:5]] = total.get(row[:5], 0) + np.array(row[5:])
    return [Row(*key, *map(int, total[key])) for key in sorted(total)]


def hear(control: "zmq.Socket[bytes]", done: Done) -> Control:
    if not control.poll(int(UP_S * 1000)):
        logs = {path.name: path.read_text() for path in (done.run_dir / "logs").iterdir()}
        pytest.fail(f"no process said anything: {logs}")
    message = decode_control(control.recv_multipart()[1])
    assert not isinstance(message, Fault), message
    return message
