"""The thin shell of a node: carries out what the protocol decides, over real sockets, and feeds back what happens.

All decisions are in `node.protocol.machine`, all numbers in `node.learners.on_policy.learner`; here is only the traffic between
them and the planes, and the agent's virtual clock. The world tells the time of every step; an agent acts `rollout.slack_frac` of
a control period later, on what has arrived by then (`node.protocol.neighbour_cache`). Between rounds the clock moves on with
what learning costs and with what the agent has to wait for: to the arrival of what comes, or by `network.patience_s` for what
does not.

On real sockets every wait is cut into slices, so that a request to stop is heard, and ends at a deadline with a message
that names who was silent. With `clock: wall` there is no virtual arrival: what is not here at the deadline is missing, and
time is the world's, in real seconds since its first step.
"""

import contextlib
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from node.learners.led import Executor
from node.learners.model_based.mdpo import ImaginingLearner
from node.learners.off_policy.learner import OffPolicyLearner
from node.learners.on_policy.learner import Learner
from node.numerics.critics import Shape
from node.numerics.networks import require_all_finite
from node.numerics.rollout import Rollout
from node.protocol.kinds import ROWS, sizes_of
from node.protocol.machine import (
    Act,
    Arrived,
    DeadlinePassed,
    Died,
    Effect,
    EndRound,
    GiveUp,
    Later,
    LearnPolicy,
    LearnValues,
    Phase,
    PolicyLearned,
    Protocol,
    Rank,
    Ranked,
    Ready,
    Refuse,
    Send,
    Sensed,
    Started,
    Step,
    Stepped,
    ValuesLearned,
)
from node.protocol.neighbour_cache import Hearing
from node.protocol.routing import Agenda
from node.protocol.turns import token
from node.runtime.compute_time import Task, Thinking
from scenarios.kinds import PEER_KINDS, Kind
from scenarios.schema import Scenario
from topology.deployment import Deployment
from topology.finite import DivergedError, NotFiniteError, require_finite
from topology.link.schedule import Schedule
from topology.link.treatment import dtype_of
from topology.planes.control import AgeRow, Gone, Reports, RoundReport, Stop, Stored
from topology.planes.peer import PeerPlane
from topology.planes.world import END_NONE, END_TERMINATED, END_TRUNCATED, Sense, WorldPort
from topology.process import SLICE_S, StopRequested
from topology.snapshot import State
from topology.wire.codec import DType, encode, row_bytes
from topology.wire.frame import KINDS, Marks, Message, ProtocolError, decode_marks, table
from topology.wire.sockets import PeerLostError

WORLD_PATIENCE = 1.5  # a node waits longer for the world than for a peer: whoever waits for the silent one itself speaks first
WALL_SLICE_S = 0.002  # on the wall clock: how long a node listens to the world before it passes on what peers sent
EARLY = 4  # messages per agent that may wait for the order of updates to be found: twice what honest ones send
WALL_GULP = 1000  # on the wall clock: how many messages are taken in at once before the deadline is looked at again

Key = tuple[Kind, int, int, int]  # kind, origin, round, step
AnyLearner = Learner | OffPolicyLearner | Executor
Floats = NDArray[np.float32]


class Letter(NamedTuple):
    """A peer's message, as it is kept until it has been used and passed on.

    Attributes:
        body: Its numbers as they came.
        dtype: How they are encoded.
        time: Virtual time of what it tells.
        sender: Who brought it.
        marks: When each copy arrives here, if not all at once.
        data: Its numbers, one row per copy or sample.
    """

    body: bytes
    dtype: DType
    time: float
    sender: int
    marks: Marks | None
    data: Floats


class Runtime:
    """One node at work.

    Args:
        scenario: The scenario.
        deployment: Sizes and graph.
        agent: This agent.
        agenda: Its scopes and routes.
        learner: Its learner.
        peers: Its end of the peer plane.
        world: Its end of the world plane.
        control: Its end of the control plane.
        schedule: What happens to links and agents when.
        checkpoint: Called at the end of a round with the round's number; gives why no weights were stored, if so.
        store: Called with a round's number and what this node needs to go on after it; gives what there is to report.
    """

    def __init__(
        self,
        scenario: Scenario,
        deployment: Deployment,
        agent: int,
        agenda: Agenda,
        *,
        learner: AnyLearner,
        peers: PeerPlane,
        world: WorldPort,
        control: Reports,
        schedule: Schedule,
        checkpoint: Callable[[int], str],
        store: Callable[[int, State], Stored],
    ) -> None:
        self._scenario = scenario
        self._agent = agent
        self._agenda = agenda
        self._learner = learner
        self._peers = peers
        self._world = world
        self._control = control
        self._schedule = schedule
        self._checkpoint = checkpoint
        self._store = store
        self._deployment = deployment
        self._dims = deployment.obs_dims
        self._n_costs = len(deployment.cost_limits)
        self._copies = scenario.env.copies
        self._is_advised = deployment.critic is not None
        self._is_sharing = self._is_advised and scenario.algorithm.share_policy
        self._steps = scenario.rollout.steps
        self._slack_s = scenario.rollout.slack_frac * deployment.dt
        self._patience_s = scenario.network.patience_s
        self._learns = deployment.learns
        self._lockstep = scenario.clock == "virtual"
        algorithm = scenario.algorithm
        self._minibatches = algorithm.epochs * algorithm.minibatches if algorithm.recipe.is_coupled else 0
        self._protocol = Protocol(
            agent,
            rounds=scenario.n_rounds,
            steps=self._steps,
            routes=agenda.routes,
            ranked=algorithm.recipe.is_ranked,
            coupled=self._minibatches,
            learns=deployment.learns,
            lockstep=self._lockstep,
        )
        self._rollout = Rollout.make(self._steps, self._copies, agenda.sight.width, deployment.act_dims[agent], self._n_costs)
        others = {origin: self._dims[origin] for origin in agenda.sight.places if origin != agent}
        self._hearing = Hearing(others, self._copies, hold=scenario.network.on_missing == "hold_last")
        self._thinking = Thinking(scenario.compute, agent, lambda now: schedule.slow_factor(agent, now))
        self._sizes = sizes_of(scenario, deployment)
        self._signals = self._sizes.signals
        agents = range(deployment.n_agents)
        self._widths = {kind: [row.width(self._sizes, origin) for origin in agents] for kind, row in ROWS.items()}
        self._rows_per = {kind: row.per for kind, row in ROWS.items()}
        self._codecs = {kind: dtype_of(scenario.network, kind) for kind in PEER_KINDS}
        self._threshold = scenario.network.state_threshold
        self._said = np.full((self._copies, self._dims[agent]), np.inf, np.float32)  # the STATE rows last sent
        self._null: NDArray[np.bool_] | None = None  # copies whose STATE of this step says nothing new
        self._obs: Floats = np.zeros((self._copies, self._dims[agent]), np.float32)
        self._cut_copies = np.zeros(0, np.intp)  # the copy of each cut of the round
        self._kept: dict[Key, Letter] = {}
        self._missing: dict[str, float] = {}
        self._incidents: list[tuple[float, str]] = []
        self._clock = 0.0
        self._off = False  # down at this step
        self._was_off = False  # down at some step of this round
        self._figures: Mapping[str, float] | None = None  # of a round that this agent has sat out
        self._early: list[Message] = []  # to be judged once the order of updates is known
        self._coupling: Generator[Floats, Sequence[Floats], None] | None = None
        self._row_copies: list[NDArray[np.intp]] = []  # the copy of every row, by minibatch
        self._score = 0.0
        self._own_ratios = np.zeros(0, np.float32)  # on the minibatch
        self._given_up: set[int] = set()  # whose ratios on a minibatch have not come in this round
        self._moment: tuple[Phase, int, int] | None = None  # on the wall clock: what is waited for, and until when
        self._until_s = 0.0
        self._offset_s = 0.0  # from this host's clock to the world's

    def run(self) -> None:
        """Take part in every round of the run.

        Raises:
            PeerLostError: somebody was silent beyond the deadline.
            StopRequested: the coordinator said stop.
            DivergedError: what this agent learns or says is no longer finite.
        """
        try:
            self.begin()
            while not self.is_over:
                message = self._wait() if self._lockstep else self._wait_by_the_wall()
                if message is not None:
                    self._handle(message)
        except NotFiniteError as error:
            raise self._diverged(error) from None

    def begin(self) -> None:
        """Tell the world that this node is there: to begin, or, where it goes on, to begin the next round."""
        if self._protocol.phase is Phase.STARTING:
            self._begin_round(self._protocol.round)
            self._say_ready(self._protocol.round)
            return
        self._world.send(Kind.JOIN, np.zeros(0, np.float32), round_=0, step=0, send_time=0.0)
        self._begin_round(0)

    def state(self) -> State:
        """All that later rounds depend on, as it is when a round has just been ended and reported."""
        return {
            "clock": self._clock,
            "off": self._off,
            "obs": self._obs,
            "said": self._said,
            "hearing": self._hearing.state(),
            "learner": self._learner.state(),
            "peers": self._peers.state(),
            "world": self._world.state(),
        }

    def restore(self, round_: int, state: State) -> None:
        """Be as a node of the same agent and scenario was after a round; to be called before `begin`."""
        self._protocol.resume(round_ + 1)
        self._clock, self._off = state["clock"], state["off"]
        self._obs, self._said = state["obs"], state["said"]
        self._hearing.restore(state["hearing"])
        self._learner.restore(state["learner"])
        self._peers.restore(state["peers"])
        self._world.restore(state["world"])

    @property
    def is_over(self) -> bool:
        """Whether this node has taken part in every round."""
        return self._protocol.phase is Phase.ENDED

    def turn(self) -> bool:
        """Handle the next message that this node waits for, if it is there; whether it was.

        Raises:
            DivergedError: what this agent learns or says is no longer finite.
        """
        message = self._receive(0.0)
        if message is not None:
            try:
                self._handle(message)
            except NotFiniteError as error:
                raise self._diverged(error) from None
        return message is not None

    def lose(self, agent: int) -> None:
        """Another agent is gone for good, and the run goes on without it."""
        self._do(self._protocol.handle(Died(agent)))

    def _diverged(self, error: NotFiniteError) -> DivergedError:
        return DivergedError(str(error), (self._protocol.round * self._steps + self._protocol.step) * self._copies)

    def _receive(self, timeout_s: float) -> Message | None:
        return (self._peers if self._protocol.waits_for_peers else self._world).receive(timeout_s)

    def _handle(self, message: Message) -> None:
        self._do(self._take(message) if self._protocol.waits_for_peers else self._told(message))

    # --------------------------------------------------------------- waiting

    def _wait(self) -> Message | None:
        """The next message of whoever is waited for; None if the wait has ended otherwise."""
        began = time.monotonic()
        while (message := self._receive(SLICE_S)) is None:
            if self._heed_control():
                return None
            patience = 1.0 if self._protocol.waits_for_peers else WORLD_PATIENCE
            if time.monotonic() - began >= patience * self._scenario.supervision.deadline_s:
                self._do(self._protocol.handle(DeadlinePassed()))
        return message

    def _wait_by_the_wall(self) -> Message | None:
        """The same in real time: peers are heard at all times, and a wait for them ends at its deadline."""
        moment, now = self._protocol.moment, time.monotonic()
        if moment != self._moment:
            self._moment, self._until_s = moment, now + self._allowance_s()
        left = self._until_s - now
        if self._protocol.waits_for_peers:
            message = self._peers.receive(min(left, SLICE_S)) if left > 0 else None
            if left <= 0:
                self._catch_up()
        else:
            message = self._world.receive(WALL_SLICE_S)
            closing = moment[:2] == (Phase.SENSING, self._steps)  # what follows needs the world's word
            if message is None and not closing:
                self._catch_up()
        if message is None:
            if left <= 0 and self._protocol.moment == moment:
                self._do(self._protocol.handle(DeadlinePassed()))
            self._heed_control()
        return message

    def _allowance_s(self) -> float:
        """How long the wait that begins now may take."""
        if not self._protocol.waits_for_peers:
            return WORLD_PATIENCE * self._scenario.supervision.deadline_s
        return self._slack_s if self._protocol.phase is Phase.GATHERING else self._patience_s

    def _catch_up(self) -> None:
        """Take in what peers have sent by now, until that changes what is waited for."""
        moment = self._protocol.moment
        for _ in range(WALL_GULP):
            if self._protocol.moment != moment or (message := self._peers.receive(0.0)) is None:
                return
            self._do(self._take(message))

    def _heed_control(self) -> bool:
        """Look at what the coordinator has to say; whether it changed anything."""  # noqa: DOC501  (what `run` raises)
        order = self._control.receive(0.0)
        if isinstance(order, Stop):
            raise StopRequested
        if isinstance(order, Gone):
            self.lose(order.agent)
            return True
        return False

    # ---------------------------------------------------------------- events

    def _told(self, message: Message) -> list[Effect]:
        """What follows from a message of the world.

        Raises:
            ProtocolError: it is none that the world may send.
        """
        header = message.header
        self._offset_s = header.send_time - time.monotonic()
        if header.kind == Kind.GO:
            self._clock = header.send_time
            self._look(self._obs)
            return self._protocol.handle(Started(header.round))
        if header.kind != Kind.SENSE:
            raise ProtocolError(f"the world sent {Kind(header.kind).name} of round {header.round}, step {header.step}")
        sense = Sense(message, copies=self._copies, obs_dim=self._dims[self._agent], n_costs=self._n_costs)
        if (sense.round, sense.step) != (0, 0):
            self._rollout.record_outcome((sense.step - 1) % self._steps, sense)
            if isinstance(self._learner, OffPolicyLearner):
                self._learner.forget(sense.end != END_NONE)
        self._clock = sense.time
        closes = sense.step == 0 and sense.round == self._protocol.round + 1
        if closes:
            self._obs = sense.obs
            self._cut_copies = self._rollout.cuts()[:, 1]
        else:
            self._look(sense.obs)
        return self._protocol.handle(Sensed(sense.round, sense.step))

    def _look(self, obs: Floats) -> None:
        """A step begins: what this agent senses, whether it is up, and what of it is news to others."""
        self._obs = obs
        off = self._schedule.off(self._agent, self._clock)
        if off != self._off:
            self._incidents.append((self._clock, "down: limp, silent and deaf" if off else "up again"))
        self._off = off
        self._was_off |= off
        self._peers.forget(self._clock)
        if self._threshold > 0:
            news = np.abs(obs - self._said).max(axis=1) > self._threshold
            self._said[news] = obs[news]
            self._null = None if news.all() else ~news

    def _take(self, message: Message) -> list[Effect]:
        """Hand an arrived message to the protocol; keep its data if it is accepted."""
        header = message.header
        kind = KINDS[header.kind]
        try:
            marks = decode_marks(message, self._copies)
            copies = self._copies if marks is None else int(np.isfinite(marks.arrive).sum())
            is_over = header.round < self._protocol.round  # and its size was that round's
            letter = None if is_over else self._open(kind, message, marks)
        except ProtocolError as error:
            self._peers.refuse(str(error))
            return []
        effects = self._protocol.handle(Arrived(kind, header.origin, header.round, header.step, header.hops_left))
        if effects and isinstance(refusal := effects[0], Refuse):
            if refusal.late:
                self._peers.late(header, copies)
            else:
                self._peers.refuse(refusal.reason)
            return []
        if effects and isinstance(effects[0], Later):
            if len(self._early) < EARLY * len(self._dims):
                self._early.append(message)
            else:
                self._peers.refuse(f"{kind.name} of agent {header.origin}, round {header.round}: one too many before its time")
            return []
        assert letter is not None, "what belongs to a round that is over is refused"
        self._kept[kind, header.origin, header.round, header.step] = letter
        self._peers.taken(header, copies)
        return effects

    def _open(self, kind: Kind, message: Message, marks: Marks | None) -> Letter:
        header = message.header
        if kind not in PEER_KINDS or header.origin >= len(self._dims):
            raise ProtocolError(f"{kind.name} of {header.origin} from {header.sender}: no such message on the peer plane")
        if header.dtype != self._codecs[kind]:
            raise ProtocolError(
                f"{kind.name} of {header.origin} from {header.sender}: dtype {header.dtype} is not the agreed one"
            )
        rows, width = self._size(kind, header.origin, header.step)
        blank = marks is not None and not message.bodies[0]  # in no copy anything to read
        data = np.zeros((rows, width), np.float32) if blank else table(message, rows, width)
        if kind is Kind.TOKEN and not blank and (data[0] != self._token(header.round)).any():
            raise ProtocolError(f"TOKEN of {header.origin} from {header.sender}, round {header.round}: got {data[0].tolist()}")
        return Letter(message.bodies[0], self._codecs[kind], header.send_time, header.sender, marks, data)

    def _size(self, kind: Kind, origin: int, step: int) -> tuple[int, int]:
        """Rows and numbers per row of a message."""
        per = self._rows_per[kind]
        width = self._widths[kind][origin]
        if per == "copy":
            return self._copies, width
        return len(self._cut_copies) if per == "cut" else self._sizes.samples(step), width

    # --------------------------------------------------------------- effects

    def _do(self, effects: list[Effect]) -> None:
        stack = effects[::-1]
        while stack:
            effect = stack.pop()
            match effect:
                case Send():
                    self._send(effect)
                case Act():
                    self._act(effect)
                case LearnValues():
                    self._learn_values(effect.round)
                    stack += self._protocol.handle(ValuesLearned())[::-1]
                case Rank():
                    self._rank(effect.round)
                    stack += self._ranked()[::-1]
                case Step():
                    self._take_step(effect)
                    stack += self._protocol.handle(Stepped())[::-1]
                case LearnPolicy():
                    self._learn_policy(effect.round)
                    stack += self._protocol.handle(PolicyLearned())[::-1]
                case EndRound():
                    self._end_round(effect.round)
                case Ready():
                    self._say_ready(effect.round)
                case Refuse() | Later():
                    raise AssertionError(f"only an arrival is judged: {effect}")
                case GiveUp():
                    raise PeerLostError(effect.reason)

    def _say_ready(self, round_: int) -> None:
        self._world.send(Kind.READY, np.zeros(0, np.float32), round_=round_, step=0, send_time=self._clock)

    def _send(self, effect: Send) -> None:
        kind, origin = effect.kind, effect.origin
        dtype = self._codecs[kind]
        if origin == self._agent:
            data = self._own(kind, effect.round)
            if kind is not Kind.STATE:  # which is what the world has shown; the learner has no part in it
                require_finite(data, f"its {kind.name}")
            null = self._null if kind is Kind.STATE else None
            body, said_at = encode(data, dtype), self._clock
            marks = None if null is None else Marks(np.full(self._copies, said_at), null)
        else:
            letter = self._kept[kind, origin, effect.round, effect.step]
            data, body, said_at, marks = letter.data, letter.body, letter.time, letter.marks
            if marks is not None and not body:
                body = bytes(len(data) * row_bytes(data.shape[1], dtype))
        size = row_bytes(data.shape[1], dtype)
        row_copy = None
        if (per := self._rows_per[kind]) != "copy":
            row_copy = self._cut_copies if per == "cut" else self._row_copies[effect.step]
        self._peers.send(
            kind,
            body,
            dtype=dtype,
            to=effect.to,
            origin=origin,
            round_=effect.round,
            step=effect.step,
            hops_left=effect.hops_left,
            time=said_at,
            addressed=effect.addressed,
            copy_bytes=size if row_copy is None else np.bincount(row_copy, minlength=self._copies) * size,
            row_copy=row_copy,
            marks=marks,
        )

    def _own(self, kind: Kind, round_: int) -> Floats:
        """This agent's own message, one row per copy, per cut, or per sample of the minibatch."""
        if kind is Kind.STATE:
            return self._obs
        if kind is Kind.BOOTSTRAP:
            return self._rollout.own_cut_blocks()
        if kind is Kind.REWARD:
            return self._rollout.reward.T
        if kind is Kind.RATIO_MB:
            return self._own_ratios[:, None]
        if kind is Kind.JOINT:
            return self._joint()
        if kind is Kind.SCORE:
            return np.full((self._copies, 1), self._score, np.float32)
        if kind is Kind.TOKEN:
            return np.tile(self._token(round_), (self._copies, 1))
        assert isinstance(self._learner, Learner), "off-policy learners have neither ratios nor a policy to tell"
        if kind is Kind.PARAMETERS:
            return np.tile(self._learner.policy(), (self._copies, 1))
        return self._learner.log_ratio().reshape(self._steps, self._copies).T

    def _act(self, effect: Act) -> None:
        now, until = self._clock, self._clock + self._slack_s
        if effect.step == 0 and self._learns and self._agenda.begins_turn(effect.round):
            self._incidents.append((now, "turn begins"))
        self._let_in(effect)
        if self._off:
            action, took_s = np.zeros_like(self._rollout.action[effect.step]), 0.0
            self._rollout.sight[effect.step] = 0.0
            self._hearing.pass_over(until)
        else:
            sight = self._rollout.sight[effect.step]
            for origin, place in self._agenda.sight.places.items():
                sight[:, place] = self._obs if origin == self._agent else self._hearing.recall(origin, now, until)
            began = time.perf_counter()
            action = self._learner.act(effect.step, sight)
            took_s = time.perf_counter() - began
            require_finite(action, "its action")
        self._rollout.action[effect.step] = action
        acts_at = until + self._thinking("forward", now, took_s)
        self._world.send(Kind.ACT, action, round_=effect.round, step=effect.step, send_time=acts_at)

    def _let_in(self, effect: Act) -> None:
        """Hand the blocks of this step to the memory; on the wall clock those of earlier steps that have come since."""
        if not self._kept:
            return
        for key in sorted(key for key in self._kept if key[0] is Kind.STATE and key[2:] <= (effect.round, effect.step)):
            _, origin, round_, _ = key
            letter = self._kept.pop(key)
            if origin in self._agenda.sight.places:
                self._hearing.take(origin, letter.time, letter.data, letter.marks, label=(round_, letter.sender))

    def _learn_values(self, round_: int) -> None:
        if self._minibatches:
            assert isinstance(self._learner, Learner), "off-policy learners know no others' ratios"
            parts = self._scenario.algorithm.minibatches
            self._row_copies = [
                rows % self._copies
                for permutation in self._learner.permutations(round_)
                for rows in np.array_split(permutation, parts)
            ]
        self._score = 0.0
        if not self._agenda.has_turn(round_):
            self._figures = self._learner.sit_out(self._rollout)
            return
        if self._is_advised:
            self._take_answer(round_)
            return
        assert not isinstance(self._learner, Executor), "executors learn nothing themselves"
        self._rollout.cut_sight = self._sight_at_cuts(round_)
        reward = self._reward(round_)
        if self._was_off:
            self._figures = self._learner.sit_out(self._rollout)
            return
        self._attend("values", self._learner.learn_values(round_, self._rollout, reward))
        if self._scenario.algorithm.recipe.is_ranked:
            assert isinstance(self._learner, Learner), "off-policy learners have no scores to tell"
            self._score = self._learner.score(self._rollout)

    def _joint(self) -> Floats:
        """What the world has told this agent in a round, as the central critic wants it: (E, T·w)."""
        rollout, own = self._rollout, self._agenda.sight.places[self._agent]
        end = rollout.terminated * END_TERMINATED + rollout.truncated * END_TRUNCATED
        costs = rollout.cost[:, :, : self._signals - 1]
        actions = rollout.action if isinstance(self._learner, Executor) else rollout.action[:, :, :0]
        told = (rollout.sight[:, :, own], rollout.reward[:, :, None], costs, actions, end[:, :, None])
        return np.concatenate(told, axis=2, dtype=np.float32).transpose(1, 0, 2).reshape(self._copies, -1)

    def _take_answer(self, round_: int) -> None:
        """Take what the central critic has answered; where it has not come, advantages are 0, or weights stay as they are."""
        kind = Kind.POLICY if isinstance(self._learner, Executor) else Kind.ADVANTAGE
        there = self._await(kind, [self._agent], round_)[self._agent]
        data = self._kept[kind, self._agent, round_, 0].data
        if isinstance(self._learner, Executor):
            self._learner.take_policy(data, there)
        if self._was_off:
            self._figures = self._learner.sit_out(self._rollout)
        if self._was_off or isinstance(self._learner, Executor):
            return
        assert isinstance(self._learner, Learner), "learners of own values ask no central critic"
        data = data.reshape(self._copies, self._steps, self._signals)
        signals = np.where(there[:, None, None], data.astype(np.float64), 0.0).transpose(2, 1, 0).reshape(self._signals, -1)
        self._learner.take_advantages(round_, self._rollout, signals[0], list(signals[1:]))

    def _share(self, round_: int) -> None:
        """Take the policy that all share, if it has come in any copy: copies feed one learner; otherwise keep one's own."""
        assert isinstance(self._learner, Learner), "values of actions are not shared"
        there = self._await(Kind.SHARED, [self._agent], round_)[self._agent]
        if there.any():
            self._learner.take_policy(self._kept[Kind.SHARED, self._agent, round_, 0].data[there.argmax()].copy())

    def _rank(self, round_: int) -> None:
        """Find the order of updates: what scores say counts, however late or lost they are (decision 0012)."""
        others = sorted(self._agenda.routes(Kind.SCORE, round_).uses)
        self._await(Kind.SCORE, others, round_)
        scores = {origin: float(self._kept[Kind.SCORE, origin, round_, 0].data[0, 0]) for origin in others}
        self._agenda.rank(round_, {**scores, self._agent: float(np.float32(self._score))})

    def _ranked(self) -> list[Effect]:
        """What follows from the order being known: first of all, early ratios are judged."""
        effects = self._protocol.handle(Ranked())
        early, self._early = self._early, []
        for message in early:
            self._do(self._take(message))
        return effects

    def _take_step(self, effect: Step) -> None:
        """Learn from the others' ratios on the minibatch before, and know one's own on this one."""
        others = self._others_ratios(effect.round, effect.minibatch - 1) if effect.minibatch else []
        began = time.perf_counter()
        if self._figures is not None:
            self._own_ratios = np.zeros(len(self._row_copies[effect.minibatch]), np.float32)
            return
        if self._coupling is None:
            assert isinstance(self._learner, Learner), "off-policy learners know no others' ratios"
            self._coupling = self._learner.learn_coupled(self._rollout)
            self._own_ratios = next(self._coupling)
        else:
            self._own_ratios = self._coupling.send(others)
        self._clock += self._thinking("policy", self._clock, time.perf_counter() - began, part=1 / self._minibatches)

    def _learn_policy(self, round_: int) -> None:
        if self._minibatches:
            others = self._others_ratios(round_, self._minibatches - 1)
            if self._coupling is not None:
                with contextlib.suppress(StopIteration):
                    self._coupling.send(others)
            self._coupling = None
            return
        ratios = self._earlier_ratios(round_)
        if self._figures is None:
            self._attend("policy", self._learner.learn_policy(self._rollout, ratios))

    def _attend(self, task: Task, learning: Iterator[None]) -> None:
        """Let the learner work, passing messages on between its minibatches; what it takes moves the clock on."""
        took_s, began = 0.0, time.perf_counter()
        for _ in learning:
            took_s += time.perf_counter() - began
            while (message := self._peers.receive(0.0)) is not None:
                self._do(self._take(message))
            began = time.perf_counter()
        self._clock += self._thinking(task, self._clock, took_s + time.perf_counter() - began)

    def _end_round(self, round_: int) -> None:
        metrics: Mapping[str, float] = {}
        self._await(Kind.TOKEN, sorted(self._agenda.routes(Kind.TOKEN, round_).uses) if self._learns else (), round_)
        if self._is_sharing:
            self._share(round_)
        if self._learns:
            metrics = self._learner.end_round(self._rollout) if self._figures is None else self._figures
            require_all_finite(metrics, self._learner.weights())
        if not self._lockstep:
            self._clock = time.monotonic() + self._offset_s
        if self._learns and self._agenda.ends_turn(round_):
            self._incidents.append((self._clock, "turn ends"))
        self._rollout.clear()
        self._forget(lambda key: key[2] <= round_)
        if problem := self._checkpoint(round_):
            self._incidents.append((self._clock, problem))
        is_last = round_ == self._scenario.n_rounds - 1
        if is_last:
            for (born_in, sender), copies in self._hearing.under_way(self._clock):
                self._peers.in_flight(sender, born_in, Kind.STATE, copies)
        refused, texts = self._peers.refused.drain()
        self._control.send(
            RoundReport(
                role=f"node-{self._agent}",
                agent=self._agent,
                round=round_,
                virtual_s=self._clock,
                metrics={**metrics, **self._missing},
                traffic=(*self._peers.drain(), *self._world.drain(None if is_last else round_)),
                ages=tuple(AgeRow(*age) for age in self._hearing.ages()),
                incidents=tuple(self._incidents),
                refused=refused,
                refusals=texts,
            )
        )
        self._missing = {}
        self._incidents = []
        self._figures = None
        self._given_up.clear()
        self._was_off = False
        if self._scenario.stores_after(round_):
            self._control.send(self._store(round_, self.state()))
        self._begin_round(round_ + 1)

    def _begin_round(self, round_: int) -> None:
        # a Gaussian or categorical policy is itself only with its chance; values explore beyond it, which is the turn's right
        explores = self._agenda.has_turn(round_) or isinstance(self._learner, Learner)
        self._learner.begin_round(round_, explore=self._learns and explores)

    # ---------------------------------------------------------------- pieces

    def _await(self, kind: Kind, origins: Sequence[int], round_: int, step: int = 0) -> dict[int, NDArray[np.bool_]]:
        """Per origin, in which copies its message has come; the clock moves to the last that did, or to the end of patience."""
        if self._lockstep:
            clock, deadline = self._clock, self._clock + self._patience_s
        else:  # the wait is over
            clock = deadline = time.monotonic() + self._offset_s
        there: dict[int, NDArray[np.bool_]] = {}
        for origin in origins:
            letter = self._kept.get((kind, origin, round_, step))
            if letter is None:
                there[origin] = np.zeros(self._copies, np.bool_)
            elif letter.marks is None:
                there[origin] = np.ones(self._copies, np.bool_)
                clock = max(clock, letter.time) if self._lockstep else clock
            else:
                there[origin] = letter.marks.arrive <= deadline
                clock = max(clock, float(letter.marks.arrive[there[origin]].max(initial=clock)))
            absent = int((~there[origin]).sum())
            if absent:
                clock = deadline
                self._miss(kind, absent)
                self._incidents.append((deadline, f"{kind.name} of agent {origin} missing in {absent} of {self._copies} copies"))
        self._clock = clock
        return there

    def _token(self, round_: int) -> Floats:
        return token(round_, len(self._dims), self._scenario.algorithm.turn_rounds)

    def _miss(self, kind: Kind, copies: int) -> None:
        name = f"missing_{kind.name.lower()}"
        self._missing[name] = self._missing.get(name, 0.0) + copies

    def _sight_at_cuts(self, round_: int) -> Floats:
        own = self._rollout.own_cut_blocks()
        sight = np.zeros((len(self._cut_copies), self._agenda.sight.width), np.float32)
        others = [origin for origin in self._agenda.critic_agents if origin != self._agent]
        there = self._await(Kind.BOOTSTRAP, others, round_)
        for origin in self._agenda.critic_agents:
            place = self._agenda.sight.places[origin]
            if origin == self._agent:
                sight[:, place] = own
            elif there[origin].all():
                sight[:, place] = self._kept[Kind.BOOTSTRAP, origin, round_, 0].data
            else:
                instead = self._hearing.held(origin)[self._cut_copies]
                letter = self._kept.get((Kind.BOOTSTRAP, origin, round_, 0))
                came = there[origin][self._cut_copies][:, None]
                sight[:, place] = instead if letter is None else np.where(came, letter.data, instead)
        return sight

    def _reward(self, round_: int) -> Floats:
        if self._scenario.algorithm.reward == "own":
            return self._rollout.reward
        others = [origin for origin in self._agenda.visible[self._agent] if origin != self._agent]
        there = self._await(Kind.REWARD, others, round_)
        total = np.zeros_like(self._rollout.reward, dtype=np.float64)
        count = np.ones(self._copies)
        for origin in self._agenda.visible[self._agent]:
            if origin == self._agent:
                total += self._rollout.reward
            elif there[origin].any():
                total += np.where(there[origin], self._kept[Kind.REWARD, origin, round_, 0].data.T, 0.0)
                count += there[origin]
        return (total / count).astype(np.float32)

    def _earlier_ratios(self, round_: int) -> list[Floats]:
        uses = self._agenda.routes(Kind.RATIO, round_).uses
        earlier = [origin for origin in self._agenda.order(round_) if origin in uses]
        there = self._await(Kind.RATIO, earlier, round_)
        ratios = []
        for origin in earlier:
            if there[origin].any():
                data = self._kept[Kind.RATIO, origin, round_, 0].data.T
                ratios.append(np.where(there[origin], data, np.float32(0.0)).reshape(-1))
        return ratios

    def _others_ratios(self, round_: int, minibatch: int) -> list[Floats]:
        """The others' log-ratios (M,) on a minibatch, ascending; 0 in copies where they are missing.

        Whoever has been missing once is not waited for again in this round, or a round of many minibatches would cost
        patience as many times; what still comes of it by the time the others have is used.
        """
        origins = sorted(self._agenda.routes(Kind.RATIO_MB, round_).uses)
        there = self._await(Kind.RATIO_MB, [j for j in origins if j not in self._given_up], round_, minibatch)
        lacking = {origin for origin, came in there.items() if not came.all()}
        copies, ratios = self._row_copies[minibatch], []
        for origin in origins:
            letter = self._kept.pop((Kind.RATIO_MB, origin, round_, minibatch), None)
            if letter is None:
                came = np.zeros(self._copies, np.bool_)
            elif origin in there:
                came = there[origin]
            else:
                came = np.ones(self._copies, np.bool_) if letter.marks is None else letter.marks.arrive <= self._clock
            if origin in self._given_up and not came.all():
                self._miss(Kind.RATIO_MB, int((~came).sum()))
            ratios.append(np.where(came[copies], 0.0 if letter is None else letter.data[:, 0], 0.0).astype(np.float32))
        self._given_up |= lacking
        return ratios

    def _forget(self, over: Callable[[Key], bool]) -> None:
        for key in [key for key in self._kept if over(key)]:
            del self._kept[key]


def make_learner(scenario: Scenario, deployment: Deployment, agent: int, agenda: Agenda) -> Learner:
    """The on-policy learner of one agent, sized to what it sees."""
    kind = Learner if scenario.algorithm.recipe.model == "none" else ImaginingLearner
    return kind(_shape(scenario, deployment, agent, agenda), scenario.algorithm)


def make_off_policy_learner(
    scenario: Scenario, deployment: Deployment, agent: int, agenda: Agenda
) -> OffPolicyLearner | Executor:
    """The off-policy learner of one agent, sized to what it sees; where the coordinator learns for all, an executor."""
    if scenario.algorithm.recipe.is_led:
        return Executor(_shape(scenario, deployment, agent, agenda), scenario.algorithm)
    own = agenda.sight.places[agent]
    return OffPolicyLearner(_shape(scenario, deployment, agent, agenda), own, scenario.algorithm)


def _shape(scenario: Scenario, deployment: Deployment, agent: int, agenda: Agenda) -> Shape:
    width = {i: deployment.obs_dims[i] for i in range(deployment.n_agents)}
    recipe = scenario.algorithm.recipe
    return Shape(
        agent=agent,
        seed=deployment.seed(scenario),
        steps=scenario.rollout.steps,
        copies=scenario.env.copies,
        rounds=scenario.n_rounds,
        actor_columns=agenda.sight.columns(agenda.actor_agents),
        critic_columns=agenda.sight.columns(agenda.critic_agents),
        actor_width=sum(width[i] for i in agenda.actor_agents),
        critic_width=sum(width[i] for i in agenda.critic_agents),
        n_actions=deployment.act_dims[agent],
        choices=deployment.choices[agent],
        one_hot=_one_hot(deployment, agenda),
        cost_limits=() if recipe.constraint == "none" else deployment.cost_limits,
        cut_copies=deployment.cut_copies,
        n_agents=deployment.n_agents,
        reach={"none": 1, "khop": len(agenda.visible[agent]), "global": deployment.n_agents}[recipe.factor],
    )


def _one_hot(deployment: Deployment, agenda: Agenda) -> tuple[slice, ...]:
    """The columns of every one-hot part of what an agent sees."""
    if not deployment.one_hot:
        return ()
    columns = []
    for origin, place in agenda.sight.places.items():
        ends = np.cumsum((place.start, *deployment.one_hot[origin])).tolist()
        columns += [slice(start, stop) for start, stop in pairwise(ends)]
    return tuple(columns)
