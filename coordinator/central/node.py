"""The central node: receives from all agents what they send of a round and answers each, for centralised baselines.

Theory of operation. It is a node of the network, behind the last agent: with an edge to every agent, or to one by whose
links all reach it (`central.at`). Its messages are routed, delayed, lost and charged like any other, on a plane of their
own in the books ("central"). A round of it is

    all JOINT and BOOTSTRAP of the round ─► its mind learns from them ─► an answer to every agent
    where agents share one policy, then: all PARAMETERS of the round ─► their mean to every agent (SHARED)

What it learns, and what the answer is, is its mind's: `coordinator.central.critic` estimates advantages (ADVANTAGE), with which
agents improve their policies as the recipe says; `coordinator.central.qmix` learns for all, and agents act by the weights that
it sends (POLICY). Nothing here depends on which.

In virtual time it waits for half of `network.patience_s` after the last agent has spoken, so that agents, which wait for
all of it, get the answer even if an agent is silent. What has not come then is 0, and the central learner gets that as a flag.
When it is down itself (`crash` of agent n) it learns nothing.

In wall time its wait has no end of its own, since agents are silent for as long as a round takes; the supervisor of the
run ends it. If it dies the run stops and says so. Runs without it have no such process.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from node.numerics.inherited import Inherited
from node.numerics.networks import require_all_finite
from node.numerics.rollout import Rollout
from node.process import digest, store_weights
from node.protocol.kinds import ROWS, joint_width, sizes_of
from node.protocol.routing import CENTRAL
from node.runtime.compute_time import ComputeTime
from scenarios.kinds import Kind
from scenarios.schema import Scenario
from topology.deployment import CENTRAL_WEIGHTS, CHECKPOINTS, Deployment
from topology.finite import DivergedError, NotFiniteError, require_finite
from topology.graph.routes import answers
from topology.link.schedule import Schedule
from topology.link.treatment import dtype_of, reliable_kinds
from topology.planes.control import Finished, Reports, RoundReport, Stop, store
from topology.planes.peer import PeerPlane, link_paths
from topology.planes.world import END_TERMINATED, END_TRUNCATED
from topology.process import SLICE_S, StopRequested
from topology.snapshot import Stateful, read
from topology.wire.codec import encode, row_bytes
from topology.wire.frame import KINDS, Delivery, Message, ProtocolError, decode_delivery, table
from topology.wire.keys import frame_extra, role_of
from topology.wire.sockets import Links

PATIENCE = 0.5  # of what agents have
_TOLD, _LEARNT = (Kind.JOINT, Kind.BOOTSTRAP), (Kind.PARAMETERS,)  # what it receives in a round, one after the other
Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Told:
    """A round as agents have sent it; what has not come is 0.

    Attributes:
        rollout: All agents' blocks, ascending, in `observation` and `cut_observation`; all agents' actions, where they are sent;
        in `cost`
            the mean of each cost over the agents that sent it.
        reward: (T, E), the mean of what they were rewarded.
        is_whole: (E,), whether every agent's part of the round has come.
        has_last: (E,), whether every agent's last observation has.
    """

    rollout: Rollout
    reward: Floats
    is_whole: Bools
    has_last: Bools


class Mind(Stateful, ABC):
    """What a central node learns, and what it answers."""

    @abstractmethod
    def learn(self, round_: int, told: Told) -> None:
        """Learn from a round."""

    @abstractmethod
    def rest(self) -> None:
        """A round in which the node is down."""

    @abstractmethod
    def answer(self, agent: int) -> Floats:
        """What an agent is sent at the end of a round, the same number of rows as there are copies."""

    @abstractmethod
    def metrics(self) -> Mapping[str, float]:
        """Metrics of the round's learning, by name."""

    @abstractmethod
    def weights(self) -> dict[str, Tensor]:
        """All that is learnt, by name, in a fixed order."""

    @abstractmethod
    def inherit(self, theirs: Inherited) -> None:
        """Begin with what the central node of another run has learnt.

        Raises:
            ValueError: it does not fit.
        """


class Central:
    """The central node at work.

    Args:
        run_dir: The run's directory.
        scenario: The scenario.
        deployment: Sizes and graph, with the node's edges.
        mind: What learns.
        links: Carrier of its messages.
        control: Where it reports.

    Attributes:
        is_over: Whether it has answered every round of the run.

    Raises:
        ValueError: a stored state cannot be read.
    """

    def __init__(
        self, run_dir: Path, scenario: Scenario, deployment: Deployment, mind: Mind, links: Links, control: Reports
    ) -> None:
        self._run_dir = run_dir
        self._scenario = scenario
        self._mind = mind
        self._dims = deployment.obs_dims
        self._n = n = deployment.n_agents
        self._control = control
        self._copies, self._steps = scenario.env.num_envs, scenario.rollout.steps
        sizes = sizes_of(scenario, deployment)
        self._signals = sizes.signals
        self._joint_widths = [joint_width(sizes, agent) for agent in range(n)]
        self._kind = Kind[scenario.algorithm.recipe.answer]
        self._receives_from: tuple[Kind, ...] = _TOLD
        algorithm = scenario.algorithm
        self._is_sharing = algorithm.share_policy
        self._n_weights = ROWS[Kind.PARAMETERS].width(sizes, 0)
        graph = deployment.wires()
        self._routes = answers(graph, n, n)
        self._schedule = schedule = Schedule(scenario.network, graph, deployment.seed(scenario), scenario.presets)
        self._compute_time = ComputeTime(
            scenario.compute.model_copy(update={"agents": ()}), n, lambda now: schedule.slow_factor(n, now)
        )
        self._peers = PeerPlane(
            n,
            graph,
            links,
            receives_from=deployment.critic_edges,
            direct=False,
            link_paths=link_paths(
                graph,
                n,
                deployment.critic_edges,
                direct=False,
                model=lambda src, dst, stream: schedule.link(src, dst, scenario.env.num_envs, stream),
                critic=n,
            ),
            reliable=reliable_kinds(scenario.network),
            copies=self._copies,
            frame_extra=frame_extra(scenario.network),
            critic=n,
            central=CENTRAL,
        )
        told_actions = [width - dim - self._signals - 1 for width, dim in zip(self._joint_widths, self._dims, strict=True)]
        self._places = list(zip(_places(self._dims), _places(told_actions), strict=True))
        self._rollout = Rollout.make(self._steps, self._copies, sum(self._dims), sum(told_actions), self._signals - 1)
        self._heard: dict[tuple[Kind, int], tuple[Message, Delivery | None]] = {}
        self._metrics: dict[str, float] = {}
        self._round = 0
        self.is_over = False
        stored = deployment.state_file(run_dir, role_of(n))
        if stored is not None and deployment.resumed_after is not None:
            state = read(stored)
            self._round = deployment.resumed_after + 1
            mind.restore(state["mind"])
            self._peers.restore(state["peers"])

    def run(self) -> None:
        """Answer every round of the run.

        Raises:
            StopRequested: the coordinator said stop.
            PeerLostError: an agent took nothing before the deadline.
            DivergedError: what is learnt is no longer finite.
        """
        while not self.is_over:
            message = self._peers.receive(SLICE_S)
            if message is not None:
                self._take(message)
            elif isinstance(self._control.receive(0.0), Stop):
                raise StopRequested

    def turn(self) -> bool:
        """Handle the next message, if it is there; whether it was.

        Raises:
            DivergedError: what is learnt is no longer finite.
        """
        message = self._peers.receive(0.0)
        if message is not None:
            self._take(message)
        return message is not None

    def conclude(self) -> Finished:
        """Store the final weights; what there is to report at the end."""
        store_weights(self._run_dir / CHECKPOINTS / "final" / CENTRAL_WEIGHTS, self._mind.weights())
        return Finished(role=role_of(self._n), weights_sha256=digest(self._mind.weights()))

    # ------------------------------------------------------------- receiving

    def _take(self, message: Message) -> None:
        header = message.header
        key = KINDS[header.kind], header.origin
        try:
            told = f"{key[0].name} of {header.origin}, round {header.round}"
            if key[0] not in (*_TOLD, *_LEARNT) or header.origin >= self._n or header.hops_left != 0:
                raise ProtocolError(f"{told}: not for the central critic")
            if (header.round, header.step) != (self._round, 0) or key in self._heard or key[0] not in self._receives_from:
                raise ProtocolError(f"{told}: out of time or twice, the central critic is at round {self._round}")
            if header.dtype != dtype_of(self._scenario.network, key[0]):
                raise ProtocolError(f"{told}: dtype {header.dtype} is not the agreed one")
            delivery = decode_delivery(message, self._copies)
            if key[0] is Kind.JOINT:
                self._joint(message, delivery)  # a size that does not fit shows here
            elif key[0] is Kind.PARAMETERS:
                self._parameters(message, delivery)
        except ProtocolError as error:
            self._peers.refuse(str(error))
            return
        self._peers.taken(header, self._copies if delivery is None else int(np.isfinite(delivery.arrive).sum()))
        self._heard[key] = message, delivery
        if len(self._heard) == len(self._receives_from) * self._n:
            try:
                if self._receives_from is _TOLD:
                    self._answer()
                else:
                    self._share()
            except NotFiniteError as error:
                raise DivergedError(str(error), (self._round + 1) * self._steps * self._copies) from None

    def _joint(self, message: Message, delivery: Delivery | None) -> Floats:
        """What an agent was sent in a round, (E, T, w)."""
        width = self._joint_widths[message.header.origin]
        shape = (self._copies, self._steps, width)
        if delivery is not None and not message.bodies[0]:
            return np.zeros(shape, np.float32)
        return table(message, self._copies, self._steps * width).reshape(shape)

    def _parameters(self, message: Message, delivery: Delivery | None) -> Floats:
        """The weights of an agent's policy, (E, P), the same in every copy in which they have come."""
        if delivery is not None and not message.bodies[0]:
            return np.zeros((self._copies, self._n_weights), np.float32)
        return table(message, self._copies, self._n_weights)

    # -------------------------------------------------------------- learning

    def _answer(self) -> None:
        """Everything of the round is here: learn from it, answer every agent, and be ready for the next."""
        began = time.perf_counter()
        spoken = max(message.header.send_time for message, _ in self._heard.values())
        clock, there = self._arrived(spoken)
        is_off = self._schedule.off(self._n, clock)
        if is_off:
            self._mind.rest()
        else:
            self._mind.learn(self._round, self._told(there))
        clock += self._compute_time("values", clock, time.perf_counter() - began)
        self._tell(self._kind, self._mind.answer, clock)
        if not is_off:
            self._metrics |= self._mind.metrics()
        self._heard.clear()
        self._rollout.clear()
        if self._is_sharing:
            self._receives_from = _LEARNT
        else:
            self._end_round(clock)

    def _share(self) -> None:
        """All agents' weights are here: send all agents the mean of those that have come in any copy; copies feed one learner."""
        clock, there = self._arrived(max(message.header.send_time for message, _ in self._heard.values()))
        came = [
            self._parameters(message, delivery)[there[key].argmax()]
            for key, (message, delivery) in sorted(self._heard.items())
            if there[key].any()
        ]
        mean = np.mean(came, axis=0, dtype=np.float64) if came else np.zeros(self._n_weights)
        data = np.tile(mean.astype(np.float32), (self._copies, 1))
        nothing = Delivery(np.full(self._copies, np.inf), np.zeros(self._copies, np.bool_))  # to be sent: agents keep their own
        self._tell(Kind.SHARED, lambda _: data, clock, None if came else nothing)
        self._heard.clear()
        self._receives_from = _TOLD
        self._end_round(clock)

    def _end_round(self, clock: float) -> None:
        """Report the round, store what is to be stored, be ready for the next."""
        require_all_finite(self._metrics, self._mind.weights())
        self._report(clock)
        self._metrics.clear()
        if self._scenario.stores_after(self._round):
            state = {"mind": self._mind.state(), "peers": self._peers.state()}
            self._control.send(store(self._run_dir, role_of(self._n), self._round, state))
        self._round += 1
        self.is_over = self._round == self._scenario.n_rounds

    def _arrived(self, spoken: float) -> tuple[float, dict[tuple[Kind, int], Bools]]:
        """When the wait is over, and per message in which copies it has come by then."""
        deadline = spoken + PATIENCE * self._scenario.network.patience_s
        clock, there, missing = spoken, {}, 0
        for key, (_, delivery) in sorted(self._heard.items()):
            came = np.ones(self._copies, np.bool_) if delivery is None else delivery.arrive <= deadline
            if delivery is not None:
                clock = max(clock, float(delivery.arrive[came].max(initial=clock)))
            missing += int((~came).sum())
            there[key] = came
        if missing:
            self._metrics["missing_joint" if self._receives_from is _TOLD else "missing_parameters"] = float(missing)
        return deadline if missing else clock, there

    def _told(self, there: Mapping[tuple[Kind, int], Bools]) -> Told:
        """Put the round together."""
        rollout = self._rollout
        rewards = np.zeros((self._signals, self._steps, self._copies))
        count = np.zeros(self._copies)
        for agent, (columns, actions) in enumerate(self._places):
            came = there[Kind.JOINT, agent]
            told = np.where(came[:, None, None], self._joint(*self._heard[Kind.JOINT, agent]), np.float32(0.0))
            observation, reward, action, end = np.split(told.transpose(1, 0, 2), self._parts(agent), axis=2)
            rollout.observation[:, :, columns] = observation
            rollout.action[:, :, actions] = action
            rewards += reward.transpose(2, 0, 1)
            count += came
            rollout.terminated |= end[:, :, 0] == END_TERMINATED
            rollout.truncated |= end[:, :, 0] == END_TRUNCATED
        rewards /= np.maximum(count, 1.0)
        rollout.cost[:] = rewards[1:].transpose(1, 2, 0)
        cuts = rollout.cuts()
        rollout.cut_observation = np.zeros((len(cuts), rollout.observation.shape[2]), np.float32)
        has_last = np.ones(self._copies, np.bool_)
        for agent, (columns, _) in enumerate(self._places):
            came = there[Kind.BOOTSTRAP, agent]
            has_last &= came & self._take_last(agent, came, cuts[:, 1], columns)
        return Told(rollout, rewards[0].astype(np.float32), count == self._n, has_last)

    def _parts(self, agent: int) -> tuple[int, int, int]:
        """Where in a JOINT rewards, actions and the end flag begin."""
        dim, width = self._dims[agent], self._joint_widths[agent]
        return dim, dim + self._signals, width - 1

    def _take_last(self, agent: int, came: Bools, copies: NDArray[np.intp], columns: slice) -> bool:
        """Put an agent's last observations in their place; whether there was anything to read."""
        message, delivery = self._heard[Kind.BOOTSTRAP, agent]
        if delivery is not None and not message.bodies[0]:
            return False
        try:
            last = table(message, len(copies), columns.stop - columns.start)
        except ProtocolError as error:
            self._peers.refuse(str(error))
            return False
        self._rollout.cut_observation[:, columns] = np.where(came[copies][:, None], last, np.float32(0.0))
        return True

    # --------------------------------------------------------------- telling

    def _tell(self, kind: Kind, data_for: Callable[[int], Floats], clock: float, delivery: Delivery | None = None) -> None:
        """Send every agent what is for it, one row per copy."""
        dtype = dtype_of(self._scenario.network, kind)
        for to, addressees in self._routes.outgoing:
            for addressee in addressees:
                data = data_for(addressee)
                require_finite(data, f"its {kind.name}")
                self._peers.send(
                    kind,
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
                    delivery=delivery,
                )

    def _report(self, clock: float) -> None:
        refused, texts = self._peers.refused.drain()
        self._control.send(
            RoundReport(
                role=role_of(self._n),
                agent=self._n,
                round=self._round,
                virtual_s=clock,
                metrics=dict(self._metrics),
                traffic=tuple(self._peers.drain()),
                refused=refused,
                refusals=texts,
            )
        )


def _places(widths: Sequence[int]) -> list[slice]:
    """Slices of those widths, one behind the other."""
    ends = np.cumsum(widths).tolist()
    return [slice(end - width, end) for end, width in zip(ends, widths, strict=True)]
