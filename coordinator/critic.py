"""The central critic: one value function for all agents, on a host of its own, for centralised baselines.

Theory of operation. It is a node of the network, behind the last agent: with an edge to every agent, or to one by whose
links all reach it (`central.at`). Its messages are routed, delayed, lost and charged like any other, on a plane of their
own in the books ("central"). A round of it is

    all JOINT and BOOTSTRAP of the round ─► value everything seen, train ─► ADVANTAGE to every agent

after which agents improve their policies as the recipe says. It values the mean of what agents are rewarded, and of what
each cost is to them: with `env.reward: team`, the team's. Input is every agent's block, ascending.

In virtual time it waits for half of `network.patience_s` after the last agent has spoken, so that agents, who wait for
all of it, hear of it even if somebody is silent. What has not come then enters as zeros, and as nothing into the means.
When it is down itself (`crash` of agent n) it learns nothing.

In wall time its wait has no end of its own, since agents are silent for as long as a round takes; whoever supervises the
run ends it. If the critic dies the run stops and says so. Runs without it have no such process.
"""

import os
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from node.agenda import CENTRAL, joint_width, n_signals
from node.compute import Thinking
from node.critics import Critics, Shape
from node.process import digest
from node.rollout import Rollout
from node.seeds import Purpose, stream
from scenarios.loading import load
from scenarios.schema import Scenario
from topology.codec import encode, row_bytes
from topology.control import ControlPort, Fault, Finished, Hello, Reports, RoundReport, Start, Stop, Stored, refused_at
from topology.deployment import LOGS, SCENARIO_FILE, Deployment, state_folder
from topology.keys import Keyring, frame_extra, role_of
from topology.kinds import dtype_of, reliable_kinds
from topology.links import Links, PeerLostError, ZmqLinks, new_context
from topology.peer_plane import PeerPlane, roads
from topology.process import StopRequested, settle
from topology.routes import answers
from topology.schedule import Schedule
from topology.snapshot import read, write
from topology.wire import Kind, Marks, Message, ProtocolError, decode_marks, table
from topology.world_plane import END_TERMINATED, END_TRUNCATED

PATIENCE = 0.5  # of what agents have
SLICE_S = 0.25
Floats = NDArray[np.float32]


def run_critic(run_dir: Path, control: str, bind: str) -> int:
    """Be the central critic of a run, from hello to farewell.

    Args:
        run_dir: The run's directory, with scenario and deployment.
        control: Address of the coordinator's control plane.
        bind: Where its inbox listens.

    Returns:
        The process's exit code: 0 done or asked to stop, 1 failed (and the coordinator was told why).
    """  # noqa: DOC501  (what is raised inside is caught inside)
    scenario = load(str(run_dir / SCENARIO_FILE))
    deployment = Deployment.read(run_dir)
    role = role_of(deployment.n_agents)
    settle("critic", run_dir / LOGS / "critic.log")
    torch.set_num_threads(1)
    keys = Keyring.of(run_dir, role, scenario.network)
    context = new_context()
    port = ControlPort(context, role, control, keys=keys)
    links: ZmqLinks | None = None
    try:
        deadline_s, depth = scenario.supervision.deadline_s, 4 * deployment.n_agents + 16
        links = ZmqLinks(context, bind, deadline_s=deadline_s, depth=depth, keys=keys, hears=deployment.critic_edges)
        critic = CentralCritic(run_dir, scenario, deployment, links, port)
        port.send(Hello(role=role, pid=os.getpid(), endpoint=links.endpoint))
        start = port.receive(scenario.supervision.start_s)
        if not isinstance(start, Start):
            raise StopRequested
        links.connect({to: start.peers[to] for to in deployment.critic_edges})
        critic.run()
        for refused in refused_at(links.gate, role):  # before the last report, which may end the run
            port.send(refused)
        port.send(critic.conclude())
    except StopRequested:
        return 0
    except (PeerLostError, ProtocolError) as error:
        port.send(Fault(role=role, text=str(error)))
        return 1
    except Exception as error:  # noqa: BLE001  (the last line of defence: the coordinator must learn why)
        traceback.print_exc()
        port.send(Fault(role=role, text=f"{type(error).__name__}: {error} (see {LOGS}/critic.log)"))
        return 1
    finally:
        if links is not None:
            links.close()
        port.close()
        context.term()
    return 0


class CentralCritic:
    """The central critic at work.

    Args:
        run_dir: The run's directory.
        scenario: The scenario.
        deployment: Sizes and graph, with the critic's edges.
        links: Carrier of the critic's messages.
        control: Where it reports.

    Attributes:
        is_over: Whether it has answered every round of the run.

    Raises:
        ValueError: a stored state cannot be read.
    """

    def __init__(self, run_dir: Path, scenario: Scenario, deployment: Deployment, links: Links, control: Reports) -> None:
        self._run_dir = run_dir
        self._scenario = scenario
        self._dims = deployment.obs_dims
        self._n = n = deployment.n_agents
        self._control = control
        self._copies, self._steps = scenario.env.copies, scenario.rollout.steps
        self._signals = n_signals(scenario, deployment)
        graph = deployment.wires()
        self._routes = answers(graph, n, n)
        self._schedule = schedule = Schedule(scenario.network, graph, scenario.seed)
        self._thinking = Thinking(scenario.compute.model_copy(update={"agents": ()}), n, lambda now: schedule.slow_factor(n, now))
        self._peers = PeerPlane(
            n,
            graph,
            links,
            hears=deployment.critic_edges,
            direct=False,
            roads=roads(
                graph,
                n,
                deployment.critic_edges,
                direct=False,
                model=lambda src, dst, stream: schedule.link(src, dst, scenario.env.copies, stream),
                critic=n,
            ),
            reliable=reliable_kinds(scenario.network),
            copies=self._copies,
            frame_extra=frame_extra(scenario.network),
            critic=n,
            central=CENTRAL,
        )
        width = sum(self._dims)
        self._ends = np.cumsum(self._dims)
        shape = Shape(
            agent=n,
            seed=scenario.seed,
            steps=self._steps,
            copies=self._copies,
            rounds=scenario.n_rounds,
            actor_columns=slice(0),
            critic_columns=slice(None),
            actor_width=0,
            critic_width=width,
            n_actions=0,
            cost_limits=deployment.cost_limits if self._signals > 1 else (),
        )
        self._critics = Critics(shape, scenario.algorithm)
        self._rollout = Rollout.make(self._steps, self._copies, width, 0, self._signals - 1)
        self._heard: dict[tuple[Kind, int], tuple[Message, Marks | None]] = {}
        self._missing = 0
        self._round = 0
        self.is_over = False
        stored = deployment.state_file(run_dir, role_of(n))
        if stored is not None and deployment.resumed_after is not None:
            state = read(stored)
            self._round = deployment.resumed_after + 1
            self._critics.restore(state["critics"])
            self._peers.restore(state["peers"])

    def run(self) -> None:
        """Answer every round of the run.

        Raises:
            StopRequested: the coordinator said stop.
            PeerLostError: an agent took nothing before the deadline.
        """
        while not self.is_over:
            message = self._peers.receive(SLICE_S)
            if message is not None:
                self._take(message)
            elif isinstance(self._control.receive(0.0), Stop):
                raise StopRequested

    def turn(self) -> bool:
        """Handle the next message, if it is there; whether it was."""
        message = self._peers.receive(0.0)
        if message is not None:
            self._take(message)
        return message is not None

    def conclude(self) -> Finished:
        """What there is to report at the end."""
        return Finished(role=role_of(self._n), weights_sha256=digest(self._critics.weights()))

    # --------------------------------------------------------------- hearing

    def _take(self, message: Message) -> None:
        header = message.header
        key = Kind(header.kind), header.origin
        try:
            told = f"{key[0].name} of {header.origin}, round {header.round}"
            if key[0] not in (Kind.JOINT, Kind.BOOTSTRAP) or header.origin >= self._n or header.hops_left != 0:
                raise ProtocolError(f"{told}: not for the central critic")
            if (header.round, header.step) != (self._round, 0) or key in self._heard:
                raise ProtocolError(f"{told}: out of time or twice, the central critic is at round {self._round}")
            if header.dtype != dtype_of(self._scenario.network, key[0]):
                raise ProtocolError(f"{told}: dtype {header.dtype} is not the agreed one")
            marks = decode_marks(message, self._copies)
            if key[0] is Kind.JOINT:
                self._joint(message, marks)  # a size that does not fit shows here
        except ProtocolError as error:
            self._peers.refuse(str(error))
            return
        self._peers.taken(header, self._copies if marks is None else int(np.isfinite(marks.arrive).sum()))
        self._heard[key] = message, marks
        if len(self._heard) == 2 * self._n:
            self._answer()

    def _joint(self, message: Message, marks: Marks | None) -> Floats:
        """What an agent was told in a round, (E, T, w)."""
        width = joint_width(self._dims[message.header.origin], self._signals)
        shape = (self._copies, self._steps, width)
        if marks is not None and not message.bodies[0]:
            return np.zeros(shape, np.float32)
        return table(message, self._copies, self._steps * width).reshape(shape)

    # -------------------------------------------------------------- learning

    def _answer(self) -> None:
        """Everything of the round is here: learn from it, tell every agent its advantages, and be ready for the next."""
        began = time.perf_counter()
        spoken = max(message.header.send_time for message, _ in self._heard.values())
        clock, there = self._arrived(spoken)
        is_off = self._schedule.off(self._n, clock)
        signals = [np.zeros(self._steps * self._copies)] * self._signals
        if not is_off:
            if self._scenario.algorithm.lr_decay == "linear":
                self._critics.decay(1.0 - self._round / self._scenario.n_rounds)
            reward = self._fill(there)
            self._critics.begin(self._rollout)
            estimates = self._critics.advantages(self._rollout, reward)
            self._critics.adopt(estimates)
            draw = stream(self._scenario.seed, Purpose.SHUFFLE, self._n, self._round)
            for _ in self._critics.train(self._minibatches(draw)):
                pass
            self._critics.end(self._rollout)
            signals = [estimate.advantage for estimate in estimates]
        clock += self._thinking("values", clock, time.perf_counter() - began)
        self._tell(signals, clock)
        self._report(clock, {} if is_off else dict(self._critics.figures()))
        self._heard.clear()
        self._missing = 0
        self._rollout.clear()
        if self._scenario.stores_after(self._round):
            state = {"critics": self._critics.state(), "peers": self._peers.state()}
            write(state_folder(self._run_dir, self._round) / f"{role_of(self._n)}.safetensors", state)
            self._control.send(Stored(role=role_of(self._n), round=self._round))
        self._round += 1
        self.is_over = self._round == self._scenario.n_rounds

    def _arrived(self, spoken: float) -> tuple[float, dict[tuple[Kind, int], NDArray[np.bool_]]]:
        """When the wait is over, and per message in which copies it has come by then."""
        deadline = spoken + PATIENCE * self._scenario.network.patience_s
        clock, there = spoken, {}
        for key, (_, marks) in sorted(self._heard.items()):
            came = np.ones(self._copies, np.bool_) if marks is None else marks.arrive <= deadline
            if marks is not None:
                clock = max(clock, float(marks.arrive[came].max(initial=clock)))
            self._missing += int((~came).sum())
            there[key] = came
        return deadline if self._missing else clock, there

    def _fill(self, there: dict[tuple[Kind, int], NDArray[np.bool_]]) -> Floats:
        """Put the round together; the mean reward, (T, E)."""
        rollout, places = self._rollout, np.split(np.arange(self._ends[-1]), self._ends[:-1])
        rewards = np.zeros((self._signals, self._steps, self._copies))
        count = np.zeros(self._copies)
        for agent, columns in enumerate(places):
            came = there[Kind.JOINT, agent]
            told = np.where(came[:, None, None], self._joint(*self._heard[Kind.JOINT, agent]), np.float32(0.0))
            told = told.transpose(1, 0, 2)
            dim = len(columns)
            rollout.sight[:, :, columns] = told[:, :, :dim]
            rewards += told[:, :, dim:-1].transpose(2, 0, 1)
            count += came
            rollout.terminated |= told[:, :, -1] == END_TERMINATED
            rollout.truncated |= told[:, :, -1] == END_TRUNCATED
        rewards /= np.maximum(count, 1.0)
        rollout.cost[:] = rewards[1:].transpose(1, 2, 0)
        cuts = rollout.cuts()
        rollout.cut_sight = np.zeros((len(cuts), int(self._ends[-1])), np.float32)
        for agent, columns in enumerate(places):
            message, marks = self._heard[Kind.BOOTSTRAP, agent]
            if marks is not None and not message.bodies[0]:
                continue
            try:
                last = table(message, len(cuts), len(columns))
            except ProtocolError as error:
                self._peers.refuse(str(error))
                continue
            rollout.cut_sight[:, columns] = np.where(there[Kind.BOOTSTRAP, agent][cuts[:, 1]][:, None], last, np.float32(0.0))
        mean: Floats = rewards[0].astype(np.float32)
        return mean

    def _minibatches(self, draw: np.random.Generator) -> "list[torch.Tensor]":
        algorithm, batch = self._scenario.algorithm, self._steps * self._copies
        passes = [torch.from_numpy(draw.permutation(batch)) for _ in range(algorithm.epochs)]
        return [rows for permutation in passes for rows in permutation.tensor_split(algorithm.minibatches)]

    # --------------------------------------------------------------- telling

    def _tell(self, signals: Sequence[NDArray[np.float64]], clock: float) -> None:
        """Send every agent its advantages: the same to all, one row per copy."""
        rows = np.stack(signals).reshape(self._signals, self._steps, self._copies).transpose(2, 1, 0)
        data = np.ascontiguousarray(rows, np.float32).reshape(self._copies, -1)
        dtype = dtype_of(self._scenario.network, Kind.ADVANTAGE)
        for to, addressees in self._routes.outgoing:
            for addressee in addressees:
                self._peers.send(
                    Kind.ADVANTAGE,
                    encode(data, dtype),
                    dtype=dtype,
                    to=to,
                    origin=addressee,
                    round_=self._round,
                    step=0,
                    hops_left=self._routes.hops_left[addressee] - 1,
                    time=clock,
                    addressed=(addressee, to) in self._routes.addressed,
                    copy_bytes=row_bytes(data.shape[1], dtype),
                )

    def _report(self, clock: float, metrics: dict[str, float]) -> None:
        refused, texts = self._peers.refused.drain()
        self._control.send(
            RoundReport(
                role=role_of(self._n),
                agent=self._n,
                round=self._round,
                virtual_s=clock,
                metrics=metrics | ({"missing_joint": float(self._missing)} if self._missing else {}),
                traffic=tuple(self._peers.drain()),
                refused=refused,
                refusals=texts,
            )
        )
