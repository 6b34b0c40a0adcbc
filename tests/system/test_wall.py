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
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq

from coordinator.records.plan import make_run_dir, plan
from scenarios.kinds import Kind
from scenarios.loading import load
from tests.system.stage import UP_S, Done, ForkServer, hear, summed
from topology.planes.control import Finished, Hello, RoundReport, encode_control, start_of
from topology.planes.world import WorldHub, pack_sense
from topology.wire.ledger import imbalance
from topology.wire.sockets import RouterLinks, ipc_endpoint, new_context

pytestmark = [pytest.mark.slow, pytest.mark.system, pytest.mark.timeout(180)]

END_S = 90.0
DT = 0.02  # control period of the swiftest world that has a robot of four agents
WALL = [
    "clock=wall", "env.name=safe_manyagent_ant", "env.partition=4x2", "topology.kind=line", "algorithm.hidden=[8]",
    "algorithm.minibatches=2", "algorithm.epochs=1", "algorithm.factor=khop", "algorithm.reward=khop_mean",
    "record.tensorboard=false",
]  # fmt: skip


def command(out: Path, *more: str, before: Collection[str] = ()) -> "subprocess.Popen[str]":
    words = [*before, sys.executable, "-P", "-m", "kappahop", "run", "quickstart", *WALL, *more, "--json", "-q"]
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
    ("how", "dt", "steps", "rounds", "heard"),
    [
        (["kappa=2", "env.name=network_lq", "env.agents=4"], 1.0, 2, 2, 2 + 3 + 3 + 2),
        (["kappa=2", "routing=direct", "network.transport=tcp"], DT, 100, 2, 2 + 3 + 3 + 2),
        # nobody to wait for but the world, whose rounds outlast what a node's patience with it would be if it were silent
        (["kappa=0", "supervision.deadline_s=3", "network.patience_s=1"], DT, 240, 1, 0),
    ],
    ids=["relay", "direct", "alone"],
)
def test_a_round_takes_the_control_periods_that_it_has_and_not_less(
    tmp_path: Path, no_leaks: None, how: list[str], dt: float, steps: int, rounds: int, heard: int
) -> None:
    words = [*how, "env.num_envs=2", f"rollout.steps={steps}", f"budget.env_steps={2 * rounds * steps}"]
    with ending(command(tmp_path / "run", *words)) as process:
        told = result(process)
    assert told["env_steps"] == 2 * rounds * steps
    times = query(tmp_path / "run", "SELECT round, virtual_s, wall_s FROM rounds")
    assert len(times) == 4 * rounds
    assert all(virtual_s <= wall_s for _, virtual_s, wall_s in times)
    begin = 0.0
    for now in range(rounds):
        ends = [virtual_s for round_, virtual_s, _ in times if round_ == now]
        assert min(ends) >= begin + steps * dt
        begin = max(ends)  # or later: the next round begins when all have ended this one
    ages = query(tmp_path / "run", "SELECT used, missing, max_s FROM ages")
    assert [used for used, _, _ in ages] == [2 * steps] * heard * rounds
    assert all(missing and max_s >= dt for _, missing, max_s in ages if max_s > 0)


# --------------------------------------------------------------------------------------------------- the late


class Play:
    """Real nodes whose world and coordinator the test is: it shows what it likes to whoever may be asleep.

    Three agents in a line, two hops in sight of each other, for two rounds of six steps. A step lasts 2 s, so they act after
    one; the times that they are told are step numbers.
    """

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        self._stack = stack
        scenario = load("quickstart", [
            *WALL, "env.name=network_lq", "env.agents=3", "env.num_envs=2", "kappa=2", "rollout.steps=6",
            "budget.env_steps=24", "algorithm.order=fixed", "network.patience_s=1",
        ])  # fmt: skip
        ready = plan(scenario)
        make_run_dir(folder / "run", ready)
        deployment = ready.deployment.model_copy(update={"dt": 2.0})
        deployment.write(folder / "run")
        self.done = Done(scenario, deployment, folder / "run")
        self.reports: dict[tuple[int, int], RoundReport] = {}
        context = new_context()
        stack.callback(context.destroy, linger=0)
        self._fork_server = ForkServer(folder / "fork_server.log")
        stack.callback(self._fork_server.close)
        self._control = context.socket(zmq.ROUTER)
        self._control.bind(ipc_endpoint(folder, "c"))
        router = RouterLinks(context, ipc_endpoint(folder, "w"), deadline_s=UP_S)
        self._hub = WorldHub(router, n_agents=3, copies=2)
        for agent in range(3):
            self._fork_server.fork({
                "role": f"node-{agent}", "agents": [agent], "critic": False, "run_dir": str(self.done.run_dir),
                "control": ipc_endpoint(folder, "c"), "binds": [ipc_endpoint(folder, f"node-{agent}")],
            })  # fmt: skip
        said = [hear(self._control, self.done) for _ in range(3)]
        hellos = {hello.role: hello for hello in said if isinstance(hello, Hello)}
        self._pids = [hellos[f"node-{agent}"].pid for agent in range(3)]
        for role, hello in hellos.items():
            self._control.send_multipart([role.encode(), encode_control(start_of(hello, hellos, router.endpoint))])
        self.gather(Kind.JOIN, 0, 0, range(3))

    def show(self, round_: int, step: int) -> None:
        now, nothing = float(6 * round_ + step), np.zeros(2, np.float32)
        rows = pack_sense(np.full((2, 1), now, np.float32), nothing, np.zeros((2, 0), np.float32), nothing)
        self._hub.show([[rows]] * 3, round_=round_, step=step, send_time=now)

    def go(self, round_: int) -> None:
        self._hub.go(round_=round_, send_time=6.0 * round_)

    def gather(self, kind: Kind, round_: int, step: int, agents: Collection[int]) -> None:
        """Hear from these agents and nobody else."""
        awaited, deadline = set(agents), time.monotonic() + UP_S
        while awaited:
            assert time.monotonic() < deadline, f"no {kind.name} {round_} {step} from {awaited}"
            if (message := self._hub.receive(1.0)) is not None:
                header = message.header
                assert (header.kind, header.round, header.step) == (kind, round_, step)
                awaited.remove(header.sender)
                self._hub.taken(header)

    @contextlib.contextmanager
    def asleep(self, agent: int) -> Iterator[None]:
        os.kill(self._pids[agent], signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self._pids[agent], signal.SIGCONT)

    def finish(self) -> None:
        """Hear the last reports, and see every node end well."""
        finished, rows = 0, self._hub.drain()
        while finished < 3:
            message = hear(self._control, self.done)
            if isinstance(message, RoundReport):
                self.reports[message.agent, message.round] = message
                rows += message.traffic
            finished += isinstance(message, Finished)
        self.done.rows = summed(rows)
        alive = {0, 1, 2}
        while alive:
            events = self._fork_server.events(END_S)
            assert events, f"not ended: {alive}"
            for event in events:
                if "dead" in event:
                    assert event["status"] == 0
                    alive.remove(int(event["dead"].partition("-")[2]))
        self._hub.close()


def test_who_is_late_is_missing_and_nobody_waits_for_it_beyond_the_deadline(
    tmp_path_factory: pytest.TempPathFactory, no_leaks: None
) -> None:
    with contextlib.ExitStack() as stack:
        play = Play(tmp_path_factory.mktemp("w"), stack)
        awake, late = (1, 2), 0
        play.show(0, 0)
        play.gather(Kind.ACT, 0, 0, range(3))
        with play.asleep(late):
            for step in (1, 2):
                play.show(0, step)
                play.gather(Kind.ACT, 0, step, awake)
        for step in (1, 2):
            play.gather(Kind.ACT, 0, step, [late])
        for step in (3, 4, 5):
            play.show(0, step)
            play.gather(Kind.ACT, 0, step, range(3))
        with play.asleep(late):
            play.show(1, 0)
            play.gather(Kind.READY, 1, 0, awake)  # they have learned without it
        play.gather(Kind.READY, 1, 0, [late])
        play.go(1)
        for step in range(6):
            play.gather(Kind.ACT, 1, step, range(3))
            play.show(*divmod(6 + step + 1, 6))
        play.finish()

    copies = 2
    ages = {key: {age.origin: tuple(age)[1:] for age in report.ages} for key, report in play.reports.items()}
    fresh = (6 * copies, 0, 0.0, 0.0)
    for agent in awake:
        assert ages[agent, 0] == {3 - agent: fresh, late: (6 * copies, 2 * copies, (1 + 2) / 6, 2.0)}
        assert ages[agent, 1] == {3 - agent: fresh, late: fresh}
        missing = {name: count for name, count in play.reports[agent, 0].metrics.items() if name.startswith("missing")}
        # agent 2 gives up on the ratio of agent 1, which waits just as long before it has one, at about the time when it comes
        ratios = missing.pop("missing_ratio")
        assert ratios == copies or (agent == 2 and ratios == 2 * copies)
        assert missing == {"missing_bootstrap": copies, "missing_reward": copies}
        assert not [name for name in play.reports[agent, 1].metrics if name.startswith("missing")]
    assert ages[late, 0] == ages[late, 1] == {1: fresh, 2: fresh}
    assert not [name for name in play.reports[late, 0].metrics if name.startswith("missing")]
    assert all(report.refused == 0 for report in play.reports.values())

    said_in_vain = {(row.src, row.dst, row.kind, row.round): row.late for row in play.done.peer_rows if row.late}
    said_in_vain.pop(("1", "2", "RATIO", 0), None)
    assert said_in_vain == {("0", "1", kind, 0): copies for kind in ("BOOTSTRAP", "REWARD", "RATIO")}
    assert imbalance(play.done.rows) is None


# --------------------------------------------------------------------------------------------------- a wire

PORT = 7400  # of the world; then the nodes', then the coordinator's
HEADERS = 14 + 20 + 32  # bytes of Ethernet, IPv4, and TCP with time stamps


def ip(*words: str, tool: str = "ip") -> str:
    return subprocess.run([tool, *words], check=True, capture_output=True, text=True, timeout=10).stdout


class Hosts:
    """Two hosts, each a network namespace, and two cables: a slow one for agents and world, another for the coordinator."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self.names = [f"kappahop-{os.getpid()}-{side}" for side in "ab"]
        for name in self.names:
            ip("netns", "add", name)
            stack.callback(ip, "netns", "del", name)
        near, far = self.names
        for net, cable in ((77, "data"), (78, "control")):
            ip("-n", near, "link", "add", cable, "type", "veth", "peer", "name", cable, "netns", far)
            for host, name in enumerate(self.names, 1):
                ip("-n", name, "link", "set", cable, "addrgenmode", "none")  # no IPv6, which would have something to say
                ip("-n", name, "addr", "add", f"10.{net}.0.{host}/24", "dev", cable)
                ip("-n", name, "link", "set", cable, "up")
        for name in self.names:
            ip("-n", name, "link", "set", "lo", "up")
            bucket = ["rate", "4mbit", "burst", "2kb", "latency", "200ms"]
            ip("-n", name, "qdisc", "add", "dev", "data", "root", "tbf", *bucket, tool="tc")
        ip("-n", far, "rule", "add", "ipproto", "tcp", "dport", str(PORT + 5), "lookup", "100")
        ip("-n", far, "route", "add", "10.77.0.1", "dev", "control", "src", "10.78.0.2", "table", "100")

    def at(self, host: int) -> list[str]:
        """What to say before a command."""
        return ["ip", "netns", "exec", self.names[host]]

    def carried(self, cable: str) -> int:
        """Bytes of TCP payload that a cable has carried, both ways."""
        total = 0
        for name in self.names:
            sent = json.loads(ip("-n", name, "-s", "-j", "link", "show", cable))[0]["stats64"]["tx"]
            total += sent["bytes"] - HEADERS * sent["packets"]
        return total


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    with contextlib.ExitStack() as stack:
        try:
            made = Hosts(stack)
        except FileNotFoundError as error:
            pytest.skip(f"no network namespaces here: {error}")
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no network namespaces here: {shlex.join(error.cmd)}: {error.stderr.strip()}")
        yield made


@pytest.mark.parametrize("routing", ["relay", "direct"])
def test_the_bytes_in_the_ledger_are_those_on_the_wire(tmp_path: Path, no_leaks: None, hosts: Hosts, routing: str) -> None:
    words = [
        "kappa=2", f"routing={routing}", "env.num_envs=1", "rollout.steps=200", "budget.env_steps=400", "network.transport=tcp",
        "network.host=10.77.0.1", f"network.port={PORT}", "--by-hand", "2,3",
    ]  # fmt: skip
    with contextlib.ExitStack() as stack:
        process = stack.enter_context(ending(command(tmp_path / "run", *words, before=hosts.at(0))))
        assert process.stderr is not None
        for _ in range(2):
            line = process.stderr.readline()
            assert " -m node " in line, line + process.stderr.read()
            there = shlex.split(line.replace("--bind tcp://10.77.0.1:", "--bind tcp://10.77.0.2:"))
            stack.enter_context(ending(subprocess.Popen([*hosts.at(1), *there], text=True)))
        told = result(process)
    carried = hosts.carried("data")
    assert told["env_steps"] == 400
    assert told["wall_s"] >= 400 * DT
    crossing = "(src IN ('2', '3')) != (dst IN ('2', '3'))"
    booked = query(tmp_path / "run", f"SELECT plane, sum(wire_bytes) FROM traffic WHERE {crossing} GROUP BY plane")
    assert [plane for plane, _ in booked] == ["peer", "world"]
    assert min(wire for _, wire in booked) > 0.1 * carried  # both are weighed
    assert sum(wire for _, wire in booked) == pytest.approx(carried, rel=0.02)
    assert hosts.carried("control") > 0
