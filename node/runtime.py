"""The thin shell of a node: carries out what the protocol decides, over real sockets, and feeds back what happens.

All decisions are in `node.protocol`, all numbers in `node.learner`; here is only the traffic between them and the
planes. Every wait is cut into slices, so that a request to stop is heard, and ends at a deadline with a message that
names who was silent.
"""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from node.agenda import Agenda
from node.learner import Learner, Shape
from node.protocol import (
    Act,
    Arrived,
    DeadlinePassed,
    Effect,
    EndRound,
    GiveUp,
    LearnPolicy,
    LearnValues,
    Phase,
    PolicyLearned,
    Protocol,
    Refuse,
    Send,
    Sensed,
    ValuesLearned,
)
from node.rollout import Rollout
from scenarios.schema import Scenario
from topology.control import Reports, RoundReport, Stop
from topology.deployment import Deployment
from topology.links import PeerLostError
from topology.peer_plane import PeerPlane
from topology.process import StopRequested
from topology.wire import PEER_KINDS, Header, Kind, Message, ProtocolError, shaped
from topology.world_plane import Sense, WorldPort

WORLD_PATIENCE = 1.5  # a node waits longer for the world than for a peer: whoever waits for the silent one itself speaks first
SLICE_S = 0.25  # how long a wait goes on before control messages are looked at

Key = tuple[Kind, int, int, int]  # kind, origin, round, step


class Runtime:
    """One node at work.

    Args:
        scenario: The scenario.
        deployment: Sizes and graph.
        agent: This agent.
        agenda: Its scopes and routes.
        peers: Its end of the peer plane.
        world: Its end of the world plane.
        control: Its end of the control plane.
        checkpoint: Called at the end of a round with the round's number.
    """

    def __init__(
        self,
        scenario: Scenario,
        deployment: Deployment,
        agent: int,
        agenda: Agenda,
        *,
        learner: Learner,
        peers: PeerPlane,
        world: WorldPort,
        control: Reports,
        checkpoint: Callable[[int], None],
    ) -> None:
        self._scenario = scenario
        self._agent = agent
        self._agenda = agenda
        self._learner = learner
        self._peers = peers
        self._world = world
        self._control = control
        self._checkpoint = checkpoint
        self._dims = deployment.obs_dims
        self._n_costs = len(deployment.cost_limits)
        self._copies = scenario.env.copies
        self._steps = scenario.rollout.steps
        self._dt = deployment.dt
        self._learns = deployment.learns
        self._protocol = Protocol(
            agent, rounds=scenario.n_rounds, steps=self._steps, routes=agenda.routes, learns=deployment.learns
        )
        self._rollout = Rollout.make(self._steps, self._copies, agenda.sight.width, deployment.act_dims[agent], self._n_costs)
        self._obs: NDArray[np.float32] = np.zeros((self._copies, self._dims[agent]), np.float32)
        self._cut_counts = np.zeros(self._copies, np.int64)
        self._kept: dict[Key, NDArray[np.float32]] = {}

    def run(self) -> None:
        """Take part in every round of the run.

        Raises:
            PeerLostError: somebody was silent beyond the deadline.
            StopRequested: the coordinator said stop.
        """
        self.begin()
        while not self.is_over:
            self._handle(self._wait())

    def begin(self) -> None:
        """Tell the world that this node is ready."""
        self._world.send(Kind.JOIN, np.zeros(0, np.float32), round_=0, step=0, send_time=0.0)
        self._learner.begin_round(0, explore=self._learns)

    @property
    def is_over(self) -> bool:
        """Whether this node has taken part in every round."""
        return self._protocol.phase is Phase.ENDED

    def turn(self) -> bool:
        """Handle the next message that this node waits for, if it is there; whether it was."""
        message = self._receive(0.0)
        if message is not None:
            self._handle(message)
        return message is not None

    def _receive(self, timeout_s: float) -> Message | None:
        return (self._peers if self._protocol.waits_for_peers else self._world).receive(timeout_s)

    def _handle(self, message: Message) -> None:
        self._do(self._take(message) if self._protocol.waits_for_peers else self._sense(message))

    # ---------------------------------------------------------------- events

    def _wait(self) -> Message:
        waited = 0.0
        while (message := self._receive(SLICE_S)) is None:
            waited += SLICE_S
            order = self._control.receive(0.0)
            if isinstance(order, Stop):
                raise StopRequested
            patience = 1.0 if self._protocol.waits_for_peers else WORLD_PATIENCE
            if waited >= patience * self._scenario.supervision.deadline_s:
                self._do(self._protocol.handle(DeadlinePassed()))
        return message

    def _sense(self, message: Message) -> list[Effect]:
        sense = Sense(message, copies=self._copies, obs_dim=self._dims[self._agent], n_costs=self._n_costs)
        if (sense.round, sense.step) != (0, 0):
            self._rollout.record_outcome((sense.step - 1) % self._steps, sense)
        self._obs = sense.obs
        if sense.step == 0 and sense.round == self._protocol.round + 1:
            cuts = self._rollout.cuts()
            self._cut_counts = np.bincount(cuts[:, 1], minlength=self._copies)
        return self._protocol.handle(Sensed(sense.round, sense.step))

    def _take(self, message: Message) -> list[Effect]:
        """Hand an arrived message to the protocol; keep its data if it is accepted."""
        header = message.header
        try:
            kind = Kind(header.kind)
            data = shaped(message, *self._shape_of(kind, header))
        except ProtocolError as error:
            self._peers.refuse(header, str(error))
            return []
        effects = self._protocol.handle(Arrived(kind, header.origin, header.round, header.step, header.hops_left))
        if effects and type(effects[0]) is Refuse:
            self._peers.refuse(header, effects[0].reason)
            return []
        self._kept[kind, header.origin, header.round, header.step] = data
        self._peers.taken(header)
        return effects

    def _shape_of(self, kind: Kind, header: Header) -> tuple[int, ...]:
        if kind not in PEER_KINDS or header.origin >= len(self._dims):
            raise ProtocolError(f"{kind.name} of {header.origin} from {header.sender}: no such message on the peer plane")
        if kind is Kind.STATE:
            return (self._copies, self._dims[header.origin])
        if kind is Kind.BOOTSTRAP:
            return (int(self._cut_counts.sum()), self._dims[header.origin])
        return (self._steps, self._copies)

    # --------------------------------------------------------------- effects

    def _do(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Send():
                    self._send(effect)
                case Act():
                    self._act(effect)
                case LearnValues():
                    self._rollout.cut_sight = self._sight_at_cuts(effect.round)
                    self._attend(self._learner.learn_values(effect.round, self._rollout, self._reward(effect.round)))
                    self._do(self._protocol.handle(ValuesLearned()))
                case LearnPolicy():
                    self._attend(self._learner.learn_policy(self._rollout, self._earlier_ratios(effect.round)))
                    self._do(self._protocol.handle(PolicyLearned()))
                case EndRound():
                    self._end_round(effect.round)
                case Refuse():
                    raise AssertionError(f"only an arrival can be refused: {effect.reason}")
                case GiveUp():
                    raise PeerLostError(effect.reason)

    def _send(self, effect: Send) -> None:
        kind, origin, round_, step = effect.kind, effect.origin, effect.round, effect.step
        data = self._own(kind) if origin == self._agent else self._kept[kind, origin, round_, step]
        self._peers.send(
            kind,
            data,
            to=effect.to,
            origin=origin,
            round_=round_,
            step=step,
            hops_left=effect.hops_left,
            send_time=self._virtual_time(round_, step if kind is Kind.STATE else self._steps),
            addressed=effect.addressed,
            copy_bytes=[int(count) * 4 * self._dims[origin] for count in self._cut_counts] if kind is Kind.BOOTSTRAP else None,
        )

    def _own(self, kind: Kind) -> NDArray[np.float32]:
        if kind is Kind.STATE:
            return self._obs
        if kind is Kind.BOOTSTRAP:
            return self._rollout.own_cut_blocks()
        return self._rollout.reward if kind is Kind.REWARD else self._learner.log_ratio()

    def _act(self, effect: Act) -> None:
        sight = self._rollout.sight[effect.step]
        for origin, place in self._agenda.sight.places.items():
            if origin == self._agent:
                sight[:, place] = self._obs
            else:
                sight[:, place] = self._kept[Kind.STATE, origin, effect.round, effect.step]
        if self._kept:
            self._forget(lambda key: key[0] is Kind.STATE and key[2:] == (effect.round, effect.step))
        action = self._learner.act(effect.step, sight)
        self._rollout.action[effect.step] = action
        self._world.send(
            Kind.ACT,
            action,
            round_=effect.round,
            step=effect.step,
            send_time=self._virtual_time(effect.round, effect.step + self._scenario.rollout.slack_frac),
        )

    def _attend(self, learning: Iterator[None]) -> None:
        """Let the learner work, passing messages on between its minibatches."""
        for _ in learning:
            while (message := self._peers.receive(0.0)) is not None:
                self._do(self._take(message))

    def _end_round(self, round_: int) -> None:
        metrics = dict(self._learner.end_round(self._rollout)) if self._learns else {}
        self._rollout.clear()
        self._forget(lambda key: key[2] <= round_)
        self._checkpoint(round_)
        refused, self._peers.refused = self._peers.refused, []
        self._control.send(
            RoundReport(
                role=f"node-{self._agent}",
                agent=self._agent,
                round=round_,
                virtual_s=self._virtual_time(round_ + 1, 0),
                metrics=metrics,
                traffic=(*self._peers.drain(), *self._world.drain()),
                refused=tuple(refused[:100]),
            )
        )
        self._learner.begin_round(round_ + 1, explore=self._learns)

    # ---------------------------------------------------------------- pieces

    def _sight_at_cuts(self, round_: int) -> NDArray[np.float32]:
        own = self._rollout.own_cut_blocks()
        sight = np.zeros((int(self._cut_counts.sum()), self._agenda.sight.width), np.float32)
        for origin in self._agenda.critic_agents:
            place = self._agenda.sight.places[origin]
            sight[:, place] = own if origin == self._agent else self._kept[Kind.BOOTSTRAP, origin, round_, 0]
        return sight

    def _reward(self, round_: int) -> NDArray[np.float32]:
        if self._scenario.algorithm.reward == "own":
            return self._rollout.reward
        ball = self._agenda.visible[self._agent]
        total = np.zeros_like(self._rollout.reward, dtype=np.float64)
        for origin in ball:
            total += self._rollout.reward if origin == self._agent else self._kept[Kind.REWARD, origin, round_, 0]
        return (total / len(ball)).astype(np.float32)

    def _earlier_ratios(self, round_: int) -> list[NDArray[np.float32]]:
        uses = self._agenda.routes(Kind.RATIO, round_).uses
        return [self._kept[Kind.RATIO, j, round_, 0].reshape(-1) for j in self._agenda.order(round_) if j in uses]

    def _forget(self, over: Callable[[Key], bool]) -> None:
        for key in [key for key in self._kept if over(key)]:
            del self._kept[key]

    def _virtual_time(self, round_: int, step: int | float) -> float:
        return (round_ * self._steps + step) * self._dt


def make_learner(scenario: Scenario, deployment: Deployment, agent: int, agenda: Agenda) -> Learner:
    """The learner of one agent, sized to what it sees."""
    width = {i: deployment.obs_dims[i] for i in range(deployment.n_agents)}
    constrained = scenario.algorithm.recipe.constraint == "lagrangian"
    shape = Shape(
        agent=agent,
        seed=scenario.seed,
        steps=scenario.rollout.steps,
        copies=scenario.env.copies,
        rounds=scenario.n_rounds,
        actor_columns=agenda.sight.columns(agenda.actor_agents),
        critic_columns=agenda.sight.columns(agenda.critic_agents),
        actor_width=sum(width[i] for i in agenda.actor_agents),
        critic_width=sum(width[i] for i in agenda.critic_agents),
        n_actions=deployment.act_dims[agent],
        cost_limits=deployment.cost_limits if constrained else (),
    )
    return Learner(shape, scenario.algorithm)
