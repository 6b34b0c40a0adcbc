"""The loop of a node: carries out what the protocol decides, over real sockets, and feeds back what happens.

All decisions are in `node.protocol.machine`, all numbers in `node.learners`. Messages are kept in `node.runtime.mailbox`, made
and used in `node.runtime.exchange`, and sent by `node.runtime.outbox`. `node.runtime.waiting` has the waits,
`node.runtime.learning` what happens when the agent learns. Here are the effects, virtual time and the rounds; of peers' kinds
none but STATE is named, which alone may be under way at the end. The world sends the time of every step; an
agent acts `rollout.slack_frac` of a control period later, on what has arrived by then (`node.protocol.neighbour_cache`).
Between rounds the clock moves on with what learning costs and with what the agent has to wait for: to the arrival of what
comes, or by `network.patience_s` for what does not.

With `clock: wall` there is no virtual arrival: what is not here at the deadline is missing, and time is the world's, in
real seconds since its first step.
"""

import time
from collections.abc import Callable

import numpy as np

from node.learners.interface import AgentLearner
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
from node.protocol.routing import AgentRouting
from node.runtime.clock import Clock
from node.runtime.compute_time import ComputeTime
from node.runtime.exchange import Exchange
from node.runtime.learning import Learning
from node.runtime.mailbox import Floats, Mailbox
from node.runtime.outbox import Outbox
from node.runtime.waiting import Waiting
from scenarios.kinds import Kind
from scenarios.schema import Scenario
from topology.deployment import Deployment
from topology.finite import DivergedError, NotFiniteError, require_finite
from topology.link.schedule import Schedule
from topology.planes.control import AgeRow, Reports, RoundReport, Stored
from topology.planes.peer import PeerPlane
from topology.planes.world import END_NONE, Sense, WorldPort
from topology.snapshot import State, Stateful
from topology.wire.frame import KINDS, Message, ProtocolError, decode_delivery
from topology.wire.sockets import PeerLostError


class Runtime(Stateful):
    """One node at work.

    Args:
        scenario: The scenario.
        deployment: Sizes and graph.
        agent: This agent.
        routing: Its scopes and routes.
        learner: Its learner.
        peers: Its end of the peer plane.
        world: Its end of the world plane.
        control: Its end of the control plane.
        schedule: What happens to links and agents when.
        checkpoint: Called at the end of a round with the round's number; gives why no weights were stored, if so.
        store: Called with a round's number and what this node needs to go on after it; gives what there is to report.
    """

    STATE = ("_clock", "_off", "_exchange", "_learner", "_peers", "_world")

    def __init__(
        self,
        scenario: Scenario,
        deployment: Deployment,
        agent: int,
        routing: AgentRouting,
        *,
        learner: AgentLearner,
        peers: PeerPlane,
        world: WorldPort,
        control: Reports,
        schedule: Schedule,
        checkpoint: Callable[[int], str],
        store: Callable[[int, State], Stored],
    ) -> None:
        self._scenario = scenario
        self._agent = agent
        self._routing = routing
        self._learner = learner
        self._peers = peers
        self._world = world
        self._control = control
        self._schedule = schedule
        self._checkpoint = checkpoint
        self._store = store
        self._obs_dim = deployment.obs_dims[agent]
        self._n_costs = len(deployment.cost_limits)
        self._copies = scenario.env.num_envs
        self._steps = scenario.rollout.steps
        self._slack_s = scenario.rollout.slack_frac * deployment.dt
        self._learns = deployment.learns
        self._samples = deployment.samples
        self._clock = Clock(lockstep=scenario.clock == "virtual", patience_s=scenario.network.patience_s)
        self._lockstep = self._clock.lockstep
        self._mailbox = Mailbox(scenario, deployment)
        self._exchange = Exchange(scenario, deployment, agent, routing, learner, self._mailbox, self._clock)
        self._outbox = Outbox(agent, self._copies, exchange=self._exchange, mailbox=self._mailbox, clock=self._clock, peers=peers)
        self._compute_time = ComputeTime(scenario.compute, agent, lambda now: schedule.slow_factor(agent, now))
        self._learning = Learning(
            scenario,
            deployment,
            routing,
            learner=learner,
            exchange=self._exchange,
            clock=self._clock,
            compute_time=self._compute_time,
            pause=self._pass_on,
        )
        self._protocol = Protocol(
            agent,
            rounds=scenario.n_rounds,
            steps=self._steps,
            routes=routing.routes,
            ranked=scenario.algorithm.recipe.is_ranked,
            coupled=self._learning.minibatches,
            learns=deployment.learns,
            lockstep=self._lockstep,
        )
        self._off = False  # down at this step
        self._was_off = False  # down at some step of this round
        self._waiting = Waiting(
            scenario,
            deployment,
            self._protocol,
            self._clock,
            peers=peers,
            world=world,
            control=control,
            take=lambda message: self._do(self._take(message)),
            expire=lambda: self._do(self._protocol.handle(DeadlinePassed())),
            lose=self.lose,
        )

    def run(self) -> None:
        """Take part in every round of the run.

        Raises:
            PeerLostError: a peer was silent beyond the deadline.
            StopRequested: the coordinator said stop.
            DivergedError: what this agent learns or sends is no longer finite.
        """
        try:
            self.begin()
            while not self.is_over:
                message = self._waiting.next()
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

    def resume(self, round_: int, state: State) -> None:
        """Be as a node of the same agent and scenario was after a round; to be called before `begin`."""
        self._protocol.resume(round_ + 1)
        self.restore(state)

    @property
    def is_over(self) -> bool:
        """Whether this node has taken part in every round."""
        return self._protocol.phase is Phase.ENDED

    def turn(self) -> bool:
        """Handle the next message that this node waits for, if it is there; whether it was.

        Raises:
            DivergedError: what this agent learns or sends is no longer finite.
        """
        message = self._waiting.receive(0.0)
        if message is not None:
            try:
                self._handle(message)
            except NotFiniteError as error:
                raise self._diverged(error) from None
        return message is not None

    @property
    def waits_for_peers(self) -> bool:
        """Whether the next message that this node waits for is a peer's; else it is the world's."""
        return self._protocol.waits_for_peers

    def review(self, began: float) -> None:
        """Nothing that this node waits for has come for a while: heed the coordinator and the deadline.

        Args:
            began: When the wait began, by `time.monotonic`.

        Raises:
            PeerLostError: a peer was silent beyond the deadline.
            StopRequested: the coordinator said stop.
        """
        try:
            self._waiting.review(began)
        except NotFiniteError as error:
            raise self._diverged(error) from None

    def lose(self, agent: int) -> None:
        """Another agent is gone for good, and the run goes on without it.

        Raises:
            DivergedError: what this agent learns or sends, now that it waits for less, is no longer finite.
        """
        try:
            self._do(self._protocol.handle(Died(agent)))
        except NotFiniteError as error:
            raise self._diverged(error) from None

    def _diverged(self, error: NotFiniteError) -> DivergedError:
        return DivergedError(str(error), (self._protocol.round * self._steps + self._protocol.step) * self._copies)

    def _handle(self, message: Message) -> None:
        self._do(self._take(message) if self._protocol.waits_for_peers else self._told(message))

    # ---------------------------------------------------------------- events

    def _told(self, message: Message) -> list[Effect]:
        """What follows from a message of the world.

        Raises:
            ProtocolError: it is none that the world may send.
        """
        header = message.header
        self._clock.offset_s = header.send_time - time.monotonic()
        if header.kind == Kind.GO:
            self._clock.now = header.send_time
            self._look(self._exchange.obs)
            return self._protocol.handle(Started(header.round))
        if header.kind != Kind.SENSE:
            raise ProtocolError(f"the world sent {Kind(header.kind).name} of round {header.round}, step {header.step}")
        sense = Sense(message, copies=self._copies, obs_dim=self._obs_dim, n_costs=self._n_costs)
        if (sense.round, sense.step) != (0, 0):
            self._exchange.rollout.record_outcome((sense.step - 1) % self._steps, sense)
            self._learner.forget(sense.end != END_NONE)
        self._clock.now = sense.time
        if sense.step == 0 and sense.round == self._protocol.round + 1:
            self._exchange.close(sense)
        else:
            self._look(sense.obs)
        return self._protocol.handle(Sensed(sense.round, sense.step))

    def _look(self, obs: Floats) -> None:
        """A step begins: what this agent senses, and whether it is up."""
        now = self._clock.now
        off = self._schedule.off(self._agent, now)
        if off != self._off:
            self._mailbox.incidents.append((now, "down: limp, silent and deaf" if off else "up again"))
        self._off = off
        self._was_off |= off
        self._peers.forget(now)
        self._exchange.sense(obs)

    def _take(self, message: Message) -> list[Effect]:
        """Hand an arrived message to the protocol; keep its data if it is accepted."""
        header = message.header
        kind = KINDS[header.kind]
        try:
            delivery = decode_delivery(message, self._copies)
            copies = self._copies if delivery is None else int(np.isfinite(delivery.arrive).sum())
            is_over = header.round < self._protocol.round  # and its size was that round's
            received = None if is_over else self._mailbox.open(kind, message, delivery)
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
            if not self._mailbox.lay_aside(message):
                self._peers.refuse(f"{kind.name} of agent {header.origin}, round {header.round}: one too many before its time")
            return []
        assert received is not None, "what belongs to a round that is over is refused"
        self._mailbox.keep(kind, header, received)
        self._peers.taken(header, copies)
        return effects

    # --------------------------------------------------------------- effects

    def _do(self, effects: list[Effect]) -> None:
        stack = effects[::-1]
        while stack:
            effect = stack.pop()
            match effect:
                case Send():
                    self._outbox.send(effect)
                case Act():
                    self._act(effect)
                case LearnValues():
                    self._learning.values(effect.round, was_off=self._was_off)
                    stack += self._protocol.handle(ValuesLearned())[::-1]
                case Rank():
                    self._exchange.rank(effect.round)
                    stack += self._ranked()[::-1]
                case Step():
                    self._learning.step(effect.round, effect.minibatch)
                    stack += self._protocol.handle(Stepped())[::-1]
                case LearnPolicy():
                    self._learning.policy(effect.round)
                    stack += self._protocol.handle(PolicyLearned())[::-1]
                case EndRound():
                    self._end_round(effect.round)
                case Ready():
                    self._say_ready(effect.round)
                case Refuse() | Later():
                    raise AssertionError(f"only an arrival is judged: {effect}")
                case GiveUp():
                    raise PeerLostError(effect.reason)

    def _pass_on(self) -> None:
        """Handle what peers have sent by now; while the agent learns, others wait for what passes through it."""
        while (message := self._peers.receive(0.0)) is not None:
            self._do(self._take(message))

    def _say_ready(self, round_: int) -> None:
        self._world.send(Kind.READY, np.zeros(0, np.float32), round_=round_, step=0, send_time=self._clock.now)

    def _act(self, effect: Act) -> None:
        now = self._clock.now
        until = now + self._slack_s
        if effect.step == 0 and self._learns and self._routing.begins_turn(effect.round):
            self._mailbox.incidents.append((now, "turn begins"))
        self._exchange.let_in(effect.round, effect.step)
        if self._off:
            action, took_s = self._exchange.observe_nothing(effect.step, until), 0.0
        else:
            observation = self._exchange.observe(effect.step, until)
            began = time.perf_counter()
            action = self._learner.act(effect.step, observation)
            took_s = time.perf_counter() - began
            require_finite(action, "its action")
        self._exchange.rollout.action[effect.step] = action
        acts_at = until + self._compute_time("forward", now, took_s)
        self._world.send(Kind.ACT, action, round_=effect.round, step=effect.step, send_time=acts_at)

    def _ranked(self) -> list[Effect]:
        """What follows from the order being known: first of all, early ratios are judged."""
        effects = self._protocol.handle(Ranked())
        for message in self._mailbox.take_early():
            self._do(self._take(message))
        return effects

    def _end_round(self, round_: int) -> None:
        metrics = self._learning.end_round(round_)
        if not self._lockstep:
            self._clock.now = self._clock.world_time()
        if self._learns and self._routing.ends_turn(round_):
            self._mailbox.incidents.append((self._clock.now, "turn ends"))
        self._exchange.end_round(round_)
        if problem := self._checkpoint(round_):
            self._mailbox.incidents.append((self._clock.now, problem))
        is_last = round_ == self._scenario.n_rounds - 1
        if is_last:
            for (born_in, sender), copies in self._exchange.cache.under_way(self._clock.now):
                self._peers.in_flight(sender, born_in, Kind.STATE, copies)
        refused, texts = self._peers.refused.drain()
        self._control.send(
            RoundReport(
                role=f"node-{self._agent}",
                agent=self._agent,
                round=round_,
                virtual_s=self._clock.now,
                metrics={**metrics, **self._mailbox.missing},
                traffic=(*self._peers.drain(), *self._world.drain(None if is_last else round_)),
                ages=tuple(AgeRow(*age) for age in self._exchange.cache.ages()),
                incidents=tuple(self._mailbox.incidents),
                agreeing={name: weights.tobytes() for name, weights in self._learner.agreeing().items()},
                refused=refused,
                refusals=texts,
            )
        )
        self._mailbox.missing, self._mailbox.incidents = {}, []
        self._was_off = False
        if self._scenario.stores_after(round_):
            self._control.send(self._store(round_, self.state()))
        self._begin_round(round_ + 1)

    def _begin_round(self, round_: int) -> None:
        by_nature = self._learner.always_explores and (self._learns or self._samples)
        in_turn = self._learns and self._routing.has_turn(round_)
        self._learner.begin_round(round_, explore=by_nature or in_turn)
