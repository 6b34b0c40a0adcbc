"""Runs that must agree, or differ: the same bytes in messages, the same weights bit for bit.

Real node and world processes, forked by one nursery for the whole module; the test itself takes the place of the command, and
where it must be known what an agent was shown, of the world too.
"""

import contextlib
import hashlib
import itertools
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest
import zmq
from numpy.typing import NDArray

from coordinator.plan import make_run_dir, plan
from scenarios.loading import load
from scenarios.schema import Scenario
from topology.control import Control, Fault, Finished, Hello, Progress, RoundReport, Start, decode_control, encode_control
from topology.deployment import Deployment
from topology.ledger import Row, merge
from topology.links import Context, RouterLinks, ipc_endpoint, new_context
from topology.neighbourhood import audiences, ball, diameter, visible
from topology.routes import routes
from topology.wire import Kind, shaped
from topology.world_plane import END_TERMINATED, END_TRUNCATED, WorldHub, pack_sense

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]

UP_S = 90.0  # a nursery takes 2 s to be ready on a machine of its own, a run 1 s
SMALL = [
    "env.name=network_lq", "env.partition=5x1", "topology.kind=line", "env.copies=2", "rollout.steps=20", "budget.env_steps=80",
    "env.horizon=15", "algorithm.hidden=[8]", "algorithm.minibatches=2", "algorithm.epochs=2", "supervision.deadline_s=60",
]  # fmt: skip
CHEETAH = ["env.name=safe_halfcheetah", "env.partition=3x2", "topology.kind=kinematic", "env.threads=1"]


class Nursery:
    """The process that forks nodes and worlds, as the command has it."""

    def __init__(self, log: Path) -> None:
        self._log = log.open("wb")
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "coordinator.nursery"],
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
            assert data, "the nursery has died"
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
        copies, n_costs = self._scenario.env.copies, len(self._deployment.cost_limits)
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
        hub.show(shown, round_=round_, step=step, send_time=0.0)

    def gather(self, hub: WorldHub, kind: Kind, round_: int, step: int, done: Done) -> None:
        found: dict[int, NDArray[np.float32]] = {}
        deadline = time.monotonic() + UP_S
        while len(found) < self._deployment.n_agents:
            message = hub.receive(1.0)
            assert time.monotonic() < deadline, f"no {kind.name} {round_} {step} from all but {sorted(found)}"
            if message is not None:
                header = message.header
                assert (header.kind, header.round, header.step) == (kind, round_, step)
                width = self._deployment.act_dims[header.sender] if kind is Kind.ACT else 0
                found[header.sender] = shaped(message, self._scenario.env.copies, width)
        for agent, action in found.items():
            done.actions.setdefault(agent, hashlib.sha256()).update(action.tobytes())

    def run(self, hub: WorldHub, done: Done) -> None:
        self.gather(hub, Kind.JOIN, 0, 0, done)
        self.show(hub, 0, 0)
        steps = self._scenario.rollout.steps
        for round_, step in itertools.product(range(self._scenario.n_rounds), range(steps)):
            self.gather(hub, Kind.ACT, round_, step, done)
            self.show(hub, *((round_, step + 1) if step + 1 < steps else (round_ + 1, 0)))


class Stage:
    """Where runs are performed."""

    def __init__(self, folder: Path, nursery: Nursery, context: Context) -> None:
        self._folder, self._nursery, self._context = folder, nursery, context
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
    ) -> Done:
        """Performs a run.

        Args:
            overrides: Of the scenario `SMALL`.
            shape: What the deployment shall say instead of what follows from the scenario.
            disturbed: None: a real world; otherwise a `Script` that disturbs these agents.
            by_hand: Agents started as `python -m node` instead of by the nursery.
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
                hub = WorldHub(router, n_agents=deployment.n_agents, copies=scenario.env.copies)
                stack.callback(hub.close)
            roles = [*([] if hub else ["world"]), *(f"node-{i}" for i in range(deployment.n_agents))]
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
                    order = {"role": role, "run_dir": str(done.run_dir), "control": ipc_endpoint(folder, "c"), "bind": bind}
                    self._nursery.fork(order | ({"agent": agent} if agent >= 0 else {}))
            hellos: dict[str, Hello] = {}
            while len(hellos) < len(roles):
                message = hear(control, done)
                if isinstance(message, Hello):
                    hellos[message.role] = message
            world = router.endpoint if router else hellos["world"].endpoint
            peers = tuple(hellos[f"node-{i}"].endpoint for i in range(deployment.n_agents))
            for role in roles:
                control.send_multipart([role.encode(), encode_control(Start(world=world, peers=peers))])
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
            done.rows = merge(rows)
            forked = set(roles) - {f"node-{i}" for i in by_hand}
            deadline = time.monotonic() + UP_S
            while forked and time.monotonic() < deadline:
                for event in self._nursery.events(1.0):
                    if "dead" in event:
                        assert event["status"] == 0
                        forked.remove(event["dead"])
        return done


def hear(control: "zmq.Socket[bytes]", done: Done) -> Control:
    if not control.poll(int(UP_S * 1000)):
        logs = {path.name: path.read_text() for path in (done.run_dir / "logs").iterdir()}
        pytest.fail(f"no process said anything: {logs}")
    message = decode_control(control.recv_multipart()[1])
    assert not isinstance(message, Fault), message
    return message


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("s")
    context = new_context()
    nursery = Nursery(folder / "nursery.log")
    yield Stage(folder, nursery, context)
    nursery.close()
    context.destroy(linger=0)


# ------------------------------------------------------------------------------------------ closed forms of traffic

GRAPHS: "dict[str, nx.Graph[int]]" = {"line": nx.path_graph(5), "ring": nx.cycle_graph(5), "star": nx.star_graph(4)}
TALKS = [
    (name, kappa, routing, copies)
    for name, graph in GRAPHS.items()
    for kappa in range(diameter(graph) + 1)
    for routing, copies in (("relay", 3), ("direct", 1) if kappa % 2 else ("relay", 1))
]
TALKS += [("line", 4, "direct", 3), ("star", 2, "direct", 2)]


def talk(stage: Stage, name: str, kappa: int, routing: str, copies: int) -> Done:
    return stage.run(
        f"topology.kind={name}", f"kappa={kappa}", f"routing={routing}", f"env.copies={copies}", "rollout.steps=7",
        f"budget.env_steps={14 * copies}", "algorithm.minibatches=1", "algorithm.epochs=1",
    )  # fmt: skip


@pytest.mark.parametrize(("name", "kappa", "routing", "copies"), TALKS)
def test_state_payload_is_four_bytes_per_number_sample_and_peer_exactly(
    stage: Stage, name: str, kappa: int, routing: str, copies: int
) -> None:
    done = talk(stage, name, kappa, routing, copies)
    graph = GRAPHS[name]
    samples = 14 * copies
    (width,) = set(done.deployment.obs_dims)
    assert done.payload("STATE") == 4 * width * samples * sum(len(ball(graph, j, kappa)) - 1 for j in graph)
    needed_by = audiences(visible(graph, kappa, "hops"))
    parts = [routes(graph, i, needed_by, direct=False) for i in graph]
    for src, dst in graph.to_directed().edges:
        on_link = [row.messages for row in done.peer_rows if (row.src, row.dst, row.kind) == (str(src), str(dst), "STATE")]
        if routing == "relay":
            assert sum(on_link) == 14 * sum(dst in hops for hops in parts[src].next_hops.values())
    for row in done.rows:
        assert row.messages == row.delivered + row.dropped, row
        assert row.dropped == 0
    assert {row.kind for row in done.peer_rows} == ({"STATE", "BOOTSTRAP"} if kappa else set())


@pytest.mark.parametrize("routing", ["relay", "direct"])
def test_ratio_payload_is_four_bytes_per_sample_and_pair_within_kappa_whatever_the_order(stage: Stage, routing: str) -> None:
    # nodes between an origin and a later agent may themselves be earlier: they pass on what is not meant for them
    done = stage.run("kappa=2", "algorithm.factor=khop", "algorithm.order=random", f"routing={routing}")
    pairs = sum(len(ball(GRAPHS["line"], j, 2)) - 1 for j in range(5)) // 2
    assert done.payload("RATIO") == 4 * 80 * pairs


def test_relay_and_direct_routing_carry_the_same_payload_and_teach_the_same(stage: Stage) -> None:
    relay, direct = (talk(stage, "line", 4, routing, 3) for routing in ("relay", "direct"))
    assert relay.weights == direct.weights
    for kind in ("STATE", "BOOTSTRAP"):
        assert relay.payload(kind) == direct.payload(kind)
    assert sum(row.wire_bytes for row in relay.peer_rows) < sum(row.wire_bytes for row in direct.peer_rows)


# ------------------------------------------------------------------------------------------ the same, twice


def test_the_same_seed_gives_the_same_weights_and_ledger_and_another_seed_others(stage: Stage) -> None:
    once, again, other = stage.run(), stage.perform(), stage.run("seed=1")
    assert (once.weights, once.rows) == (again.weights, again.rows)
    assert once.metrics == again.metrics
    assert not set(once.weights.values()) & set(other.weights.values())
    assert len(set(once.weights.values())) == 5


def test_tcp_gives_the_same_weights_and_ledger_as_ipc(stage: Stage) -> None:
    ipc, tcp = stage.run(), stage.run("network.transport=tcp")
    assert (ipc.weights, ipc.rows) == (tcp.weights, tcp.rows)


# ------------------------------------------------------------------------------------------ equal algorithms


@pytest.mark.parametrize("world", [[], CHEETAH], ids=["lq", "cheetah"])
def test_kappa_of_the_diameter_is_global_bit_for_bit(stage: Stage, world: list[str]) -> None:
    wide = stage.run(*world, "kappa=4")
    everything = stage.run(*world, "kappa=0", "algorithm.critic_scope=global", "algorithm.actor_scope=global")
    assert wide.weights == everything.weights
    assert wide.rows == everything.rows
    assert stage.run(*world).weights != wide.weights


def test_scal_mappo_l_with_a_factor_and_kappa_of_the_diameter_is_mappo_l(stage: Stage) -> None:
    scal = stage.run(*CHEETAH, "kappa=4", "algorithm.name=scal_mappo_l", "algorithm.factor=khop")
    mappo = stage.run(*CHEETAH, "kappa=0", "algorithm.name=mappo_l", "algorithm.order=fixed")
    assert scal.weights == mappo.weights
    assert scal.rows == mappo.rows
    assert scal.payload("RATIO") == 4 * 80 * (2 + 1)  # every agent to all later ones
    without = stage.run(*CHEETAH, "kappa=0", "algorithm.name=mappo_l", "algorithm.order=fixed", "algorithm.factor=none")
    assert without.weights == stage.run(*CHEETAH, "kappa=4").weights != mappo.weights


def test_without_a_factor_the_order_changes_nothing_with_one_it_does(stage: Stage) -> None:
    assert stage.run("algorithm.order=random").weights == stage.run("algorithm.order=fixed").weights
    assert stage.run("algorithm.order=random").rows == stage.run("algorithm.order=fixed").rows
    fixed, random = (
        stage.run(f"algorithm.order={order}", "algorithm.factor=khop", "seed=3").weights for order in ("fixed", "random")
    )
    assert fixed != random


# ------------------------------------------------------------------------------------------ locality

SHAPE: dict[str, Any] = {"obs_dims": (2, 3, 1, 2, 4), "act_dims": (1, 2, 1, 1, 3), "cost_limits": (5.0, 1.0)}


@pytest.fixture(scope="module")
def undisturbed(stage: Stage) -> Done:
    return stage.perform("kappa=1", shape=SHAPE, disturbed=[])


def changed(a: Done, b: Done) -> tuple[set[int], set[int]]:
    """Agents whose weights differ, and agents whose actions differ."""
    return (
        {i for i in a.weights if a.weights[i] != b.weights[i]},
        {i for i in a.actions if a.actions[i].digest() != b.actions[i].digest()},
    )


def test_what_an_agent_senses_changes_its_ball_and_nobody_else_bit_for_bit(stage: Stage, undisturbed: Done) -> None:
    disturbed = stage.perform("kappa=1", shape=SHAPE, disturbed=[4])
    assert changed(undisturbed, disturbed) == ({3, 4}, {3, 4})
    both = stage.perform("kappa=1", shape=SHAPE, disturbed=[0])
    assert changed(undisturbed, both) == ({0, 1}, {0, 1})


def test_at_kappa_zero_it_changes_the_agent_alone(stage: Stage) -> None:
    runs = [stage.perform("kappa=0", shape=SHAPE, disturbed=who) for who in ([], [2])]
    assert changed(*runs) == ({2}, {2})


def test_ratios_carry_a_disturbance_to_later_neighbours_and_no_further_within_a_round(stage: Stage) -> None:
    # agent 4 is disturbed; 3 sees it, but updates before it in ascending order; 2 does not see it and hears ratios of 1 only
    one_round = ("kappa=1", "algorithm.factor=khop", "budget.env_steps=40")
    runs = [stage.perform(*one_round, shape=SHAPE, disturbed=who) for who in ([], [4])]
    assert changed(*runs) == ({3, 4}, {3, 4})
    # agent 0 comes first: its own change is in its ratio, so 1 changes by sight and ratio, 2 by 1's ratio, and so on
    runs = [runs[0], stage.perform(*one_round, shape=SHAPE, disturbed=[0])]
    assert changed(*runs)[0] == {0, 1, 2, 3, 4}
    assert changed(*runs)[1] == {0, 1}


def test_a_node_started_by_hand_takes_part_like_any_other(stage: Stage, undisturbed: Done) -> None:
    again = stage.perform("kappa=1", shape=SHAPE, disturbed=[], by_hand=[2])
    assert changed(undisturbed, again) == (set(), set())
    assert again.rows == undisturbed.rows
    log = (again.run_dir / "logs" / "node-2.log").read_text()
    assert log == ""
