"""The agent's protocol: a state machine without I/O that decides what to send, when to act and when to learn.

Theory of operation. Events go in (`handle`), effects come out; `node.runtime.loop` carries them out over sockets and hands
back what happened. The machine knows ids, rounds and steps, never data, and no virtual time either: what a message that
is lost or late means for the data is the runtime's business. One round k runs

    SENSING ─Sensed(k,t)─► GATHERING ─all STATE(k,t)─► Act ─► SENSING …                      for t = 0 … T-1
    SENSING ─Sensed(k+1,0)─► CLOSING ─all BOOTSTRAP, REWARD─► LearnValues ─► ESTIMATING
    ESTIMATING ─ValuesLearned─► WAITING ─all RATIO of earlier agents I depend on─► LearnPolicy ─► IMPROVING
    IMPROVING ─PolicyLearned─► send RATIO, TOKEN, PARAMETERS, CONSENSUS, MULTIPLIER ─► RELAYING
    RELAYING ─all that pass through me─► EndRound, Ready ─► STARTING
    STARTING ─Started(k+1)─► SENSING of the next round; after the last round ENDED

Two recipes put more between ESTIMATING and IMPROVING. Where the order of updates depends on scores (`ranked`):

    ESTIMATING ─ValuesLearned─► send SCORE ─► SCORING ─all SCORE─► Rank ─► RANKING ─Ranked─► WAITING …

and where agents learn at the same time on each other's ratios (`coupled`, the number of minibatches m of a round):

    ESTIMATING ─ValuesLearned─► Step(0) ─► STEPPING ─Stepped─► send RATIO_MB(m) ─► COUPLING ─all RATIO_MB(m)─► Step(m+1) …
    COUPLING ─all RATIO_MB of the last─► LearnPolicy ─► IMPROVING

With a central critic an agent also sends it its part of the round (JOINT), and between CLOSING and ESTIMATING it is ADVISED:
it waits until what the critic answers (ADVANTAGE, or POLICY where the critic learns for all) is here, its own and what
passes through it. Where all share one policy the critic receives the weights of each (PARAMETERS) when it has learned, and an
agent is RELAYING until their mean (SHARED) is here too.

Rules that couple the agents and must not change:
1. Inboxes are read while an agent waits for peers and between the minibatches of its learning; so no agent waits for
one that merely learns.
2. An agent leaves a step, and a round, only after it has handled every message that comes its way (`Routes.awaited`),
used or relayed.
3. What the world sends after the last step of a round is the first observation of the next: it ends one round, and once
all agents have learned (`Started`) it begins another.
4. In lockstep, all messages leave over a link in one order, and one that comes before its turn waits. Those of one kind
and moment leave in the order of `Routes.outgoing`; those at the end of a round first by kind: BOOTSTRAP, REWARD, JOINT,
ADVANTAGE, POLICY, SCORE, RATIO, TOKEN, PARAMETERS, CONSENSUS, MULTIPLIER, SHARED. The link model needs that order to be the
same in every run. This order cannot deadlock: an agent sends a kind only after it has processed all messages of the kinds
before it.
RATIO_MB of successive minibatches leave one after the other, because over every link that carries any an agent's own goes
first.
5. A RATIO that comes before the order is known cannot be judged: it is handed back (`Later`) and in again after `Ranked`.

Because of rule 2 a STATE can be early by one step at most; it is kept until its time. A duplicate, a stale message,
one from outside the ball, or one with the wrong hop budget is refused and changes nothing. An agent that has died
(`Died`) is waited for no longer, nor is any agent whose messages would have to come through it.
tests/node/protocol/test_machine.py drives whole networks of these machines through orders of delivery that hypothesis makes.

On the wall clock (`lockstep=False`) nothing is certain to come: `DeadlinePassed` ends a wait with what is there instead
of giving up, messages are passed on as they come, and a STATE that is late is still accepted while its round lasts.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from scenarios.kinds import Kind, Moment, at
from topology.graph.routes import NO_ROUTES, Routes


class Sensed(NamedTuple):
    """The world has shown step `step` of round `round`."""

    round: int
    step: int


class Arrived(NamedTuple):
    """A peer's message has come in."""

    kind: Kind
    origin: int
    round: int
    step: int
    hops_left: int


class Started(NamedTuple):
    """All agents are ready: the world has opened round `round`."""

    round: int


@dataclass(frozen=True, slots=True)
class ValuesLearned:
    """The critics have been trained and the advantages are known."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """The order of the round's updates has been found."""


@dataclass(frozen=True, slots=True)
class Stepped:
    """The agent's own ratios on a minibatch are known."""


@dataclass(frozen=True, slots=True)
class PolicyLearned:
    """The actor has been trained and the final ratios are known."""


@dataclass(frozen=True, slots=True)
class DeadlinePassed:
    """What the machine waits for has not come in time."""


class Died(NamedTuple):
    """An agent is gone for good."""

    agent: int


Event = Sensed | Arrived | Started | ValuesLearned | Ranked | Stepped | PolicyLearned | DeadlinePassed | Died


class Send(NamedTuple):
    """Send a message of `origin` on to a node; another agent's message exactly as it came."""

    kind: Kind
    origin: int
    to: int
    round: int
    step: int
    hops_left: int
    addressed: bool


class Act(NamedTuple):
    """All that will be known at this step is known: act."""

    round: int
    step: int


class LearnValues(NamedTuple):
    """The rollout is complete: estimate advantages and train the critics."""

    round: int


class Rank(NamedTuple):
    """Every score is here: find the order of updates."""

    round: int


class Step(NamedTuple):
    """Let the actor step on the others' ratios on the minibatch before this one, and have its own on this one."""

    round: int
    minibatch: int


class LearnPolicy(NamedTuple):
    """Every ratio this agent depends on is here: train the actor, or with minibatches let it take the last step."""

    round: int


class EndRound(NamedTuple):
    """The round is over for this agent."""

    round: int


class Ready(NamedTuple):
    """Tell the world that this agent is ready for a round."""

    round: int


class Refuse(NamedTuple):
    """The message just handed in breaks a rule, or is too late (wall clock, or a death on its way): count it, forget it."""

    reason: str
    late: bool = False


class Later(NamedTuple):
    """The message just handed in cannot be judged yet: hand it in again once the order of updates is known."""


class GiveUp(NamedTuple):
    """Nothing more can be done; the text says which process was silent."""

    reason: str


Effect = Send | Act | LearnValues | Rank | Step | LearnPolicy | EndRound | Ready | Refuse | Later | GiveUp


class Phase(Enum):
    """Where in a round the agent is.

    Attributes:
        story: The same in words.
        waits_for_peers: Whether the next event must come from a peer.
    """

    SENSING = "sensing", False
    GATHERING = "gathering", True
    CLOSING = "closing", True
    ADVISED = "waiting for the central critic", True
    ESTIMATING = "estimating", False
    SCORING = "waiting for scores", True
    RANKING = "ranking", False
    WAITING = "waiting for ratios", True
    STEPPING = "stepping", False
    COUPLING = "waiting for ratios of a minibatch", True
    IMPROVING = "improving", False
    RELAYING = "relaying", True
    STARTING = "waiting for the others to end their round", False
    ENDED = "ended", False

    def __init__(self, story: str, waits_for_peers: bool) -> None:
        self.story = story
        self.waits_for_peers = waits_for_peers


_RANKED = frozenset({Phase.WAITING, Phase.IMPROVING, Phase.RELAYING})  # phases in which an order that is found is known
Key = tuple[Kind, int, int]  # kind, round, step


@dataclass(frozen=True, slots=True)
class _Order:
    """The kinds at the end of a round, in the order in which they leave, and which of them a phase waits for."""

    rollout_end: tuple[Kind, ...]
    answers: tuple[Kind, ...]
    scores: tuple[Kind, ...]
    policy_end: tuple[Kind, ...]  # what an agent sends when it has learned
    to_the_end: tuple[Kind, ...]  # what it has to have handled before its round is over

    @classmethod
    def of_catalogue(cls) -> "_Order":
        last = at(Moment.POLICY_END)
        return cls(at(Moment.ROLLOUT_END), at(Moment.ANSWER), at(Moment.VALUES_END), last, (*last, *at(Moment.MEAN)))

    @property
    def all(self) -> tuple[Kind, ...]:
        return (*self.rollout_end, *self.answers, *self.scores, *self.to_the_end)

    def awaited(self, phase: Phase) -> tuple[Kind, ...]:
        return {
            Phase.CLOSING: self.rollout_end,
            Phase.ADVISED: self.answers,
            Phase.SCORING: self.scores,
            Phase.WAITING: (Kind.RATIO,),
            Phase.RELAYING: self.to_the_end,
        }[phase]


class Protocol:
    """One agent's state machine.

    Args:
        agent: This agent's id.
        rounds: Rounds in the run.
        steps: T, steps per round.
        routes: The agent's part in each kind of message, per round; that of STATE and RATIO_MB never changes.
        ranked: Whether the order of updates depends on scores.
        coupled: Minibatches on which agents exchange ratios in a round; 0: none.
        learns: False for a run that only acts: a round then ends after its last step.
        lockstep: False on the wall clock.
    """

    def __init__(
        self,
        agent: int,
        *,
        rounds: int,
        steps: int,
        routes: Callable[[Kind, int], Routes],
        ranked: bool = False,
        coupled: int = 0,
        learns: bool = True,
        lockstep: bool = True,
    ) -> None:
        self._order = _Order.of_catalogue()
        self._at_the_end = self._order.all
        self._agent = agent
        self._rounds = rounds
        self._steps = steps
        self._routes_of = routes
        self._learns = learns
        self._lockstep = lockstep
        self._ranked = ranked
        self._coupled = coupled
        self._state = routes(Kind.STATE, 0)
        self._ratios = routes(Kind.RATIO_MB, 0) if learns else NO_ROUTES
        self._per_round: dict[tuple[Kind, int], Routes] = {}
        self._arrived: dict[Key, set[int]] = {}  # origins, this agent too once it has said its own
        self._left: dict[Key, list[int]] = {}  # per outgoing link, how many messages have left or will never come
        self._dead: frozenset[int] = frozenset()
        self.phase = Phase.SENSING
        self.round = 0
        self.step = 0
        self.minibatch = 0

    @property
    def moment(self) -> tuple[Phase, int, int]:
        """What the machine is doing: phase, step, minibatch."""
        return self.phase, self.step, self.minibatch

    def resume(self, round_: int) -> None:
        """Be where a machine is that has ended the round before `round_` and said so."""
        self.round = round_
        self.phase = Phase.STARTING

    @property
    def waits_for_peers(self) -> bool:
        """Whether the next event must come from a peer (otherwise from the world, or from the agent's own learning)."""
        return self.phase.waits_for_peers

    def handle(self, event: Event) -> list[Effect]:
        """The effects of one event, in the order in which they are to be carried out."""
        if type(event) is Arrived:
            return self._on_arrived(event)
        if type(event) is Sensed:
            return self._on_sensed(event)
        if type(event) is Started:
            self._expect(event, Phase.STARTING)
            self.phase = Phase.SENSING  # rule 3: the observation that closed the old round opens the new one
            return self._on_sensed(Sensed(event.round, 0))
        if type(event) is ValuesLearned:
            self._expect(event, Phase.ESTIMATING)
            if self._coupled:
                return self._take_step()
            if self._ranked:
                self.phase = Phase.SCORING
                return [*self._say(Kind.SCORE, 0), *self._advance()]
            self.phase = Phase.WAITING
            return self._advance()
        if type(event) is Ranked:
            self._expect(event, Phase.RANKING)
            self.phase = Phase.WAITING
            return self._advance()
        if type(event) is Stepped:
            self._expect(event, Phase.STEPPING)
            self.phase = Phase.COUPLING
            return [*self._say(Kind.RATIO_MB, self.minibatch), *self._advance()]
        if type(event) is PolicyLearned:
            self._expect(event, Phase.IMPROVING)
            self.phase = Phase.RELAYING
            return [effect for kind in self._order.policy_end for effect in self._say(kind, 0)] + self._advance()
        if type(event) is Died:
            self._dead |= {event.agent}
            return [*self._pass_on_all(), *self._advance()]
        return self._on_deadline()

    def _on_sensed(self, event: Sensed) -> list[Effect]:
        self._expect(event, Phase.SENSING)
        if (event.round, event.step) == (self.round, self.step) and event.step < self._steps:
            self.phase = Phase.GATHERING
            return [*self._say(Kind.STATE, self.step), *self._advance()]
        if (event.round, event.step) == (self.round + 1, 0) and self.step == self._steps:
            if not self._learns:
                return self._end_round()
            self.phase = Phase.CLOSING
            own = [effect for kind in self._order.rollout_end for effect in self._say(kind, 0)]
            return [*own, *self._advance()]
        raise AssertionError(f"{self._story()}: the world showed round {event.round}, step {event.step}")

    def _on_arrived(self, event: Arrived) -> list[Effect]:
        if event.kind is Kind.RATIO and self._is_to_be_judged_later(event):
            return [Later()]
        routes = self._routes(event.kind, event.round)
        key = (event.kind, event.round, event.step)
        reason = self._objection(event, routes, key)
        if reason is not None:
            story = f"{event.kind.name} of agent {event.origin}, round {event.round}, step {event.step}: {reason}"
            return [Refuse(story, late=self._is_late(event))]
        self._arrived.setdefault(key, set()).add(event.origin)
        passed_on = self._pass_on(key, routes, event.origin) if event.origin in routes.next_hops else ()
        return [*passed_on, *self._advance()]

    def _is_to_be_judged_later(self, event: Arrived) -> bool:
        unknown = self._ranked and self.phase in (Phase.SCORING, Phase.RANKING)
        awaited = self._routes(Kind.SCORE, self.round).awaited
        return unknown and (event.round, event.step) == (self.round, 0) and event.origin in awaited

    def _objection(self, event: Arrived, routes: Routes, key: Key) -> str | None:
        if event.origin not in routes.awaited:
            return "does not come this way"
        if event.hops_left != routes.hops_left[event.origin]:
            return f"hop budget {event.hops_left}, expected {routes.hops_left[event.origin]}"
        if event.origin in self._arrived.get(key, ()):
            return "came twice"
        if event.kind is Kind.STATE:
            now = self.round * self._steps + self.step
            earliest = now if self._lockstep else self.round * self._steps
            if not earliest <= event.round * self._steps + event.step <= now + 1 or event.step >= self._steps:
                return f"out of time, agent {self._agent} is at round {self.round}, step {self.step}"
        elif event.kind is Kind.RATIO_MB:
            if event.round != self.round or not self.minibatch <= event.step < self._coupled:
                return f"out of time, agent {self._agent} is in round {self.round}, minibatch {self.minibatch}"
        elif event.round != self.round or event.step != 0:
            return f"out of time, agent {self._agent} is in round {self.round}"
        return None

    def _is_late(self, event: Arrived) -> bool:
        """Whether this agent may have gone on without the message: past a deadline, or past a death."""
        if self._lockstep and not self._dead:
            return False
        step = self.minibatch if event.kind is Kind.RATIO_MB else 0
        if self._lockstep and event.kind is Kind.STATE:
            step = self.step
        return (event.round, event.step) < (self.round, step)

    def _on_deadline(self) -> list[Effect]:
        if self._lockstep or not self.waits_for_peers:
            return [GiveUp(self._silence())]
        return self._advance(enough=True)

    def _advance(self, *, enough: bool = False) -> list[Effect]:
        """Whatever follows now that something has come in, been learned or been sensed; `enough`: or not come in."""
        if self.phase is Phase.GATHERING:
            key = (Kind.STATE, self.round, self.step)
            if enough or self._has(key, self._state, self._state.awaited):
                if self._lockstep:
                    self._arrived.pop(key, None)
                    self._left.pop(key, None)
                self.step += 1
                self.phase = Phase.SENSING
                return [Act(self.round, self.step - 1)]
        elif self.phase is Phase.CLOSING:
            if enough or all(self._has_all(kind) for kind in self._order.rollout_end):
                self.phase = Phase.ADVISED
                return self._advance()
        elif self.phase is Phase.ADVISED:
            if enough or all(self._has_all(kind) for kind in self._order.answers):
                self.phase = Phase.ESTIMATING
                return [LearnValues(self.round)]
        elif self.phase is Phase.SCORING:
            if enough or self._has_all(Kind.SCORE):
                self.phase = Phase.RANKING
                return [Rank(self.round)]
        elif self.phase is Phase.COUPLING:
            key = (Kind.RATIO_MB, self.round, self.minibatch)
            if enough or self._has(key, self._ratios, self._ratios.awaited):
                self._arrived.pop(key, None)
                self._left.pop(key, None)
                self.minibatch += 1
                return self._take_step()
        elif self.phase is Phase.WAITING:
            routes = self._routes(Kind.RATIO, self.round)
            if enough or self._has((Kind.RATIO, self.round, 0), routes, routes.uses):
                self.phase = Phase.IMPROVING
                return [LearnPolicy(self.round)]
        elif self.phase is Phase.RELAYING and (enough or all(self._has_all(kind) for kind in self._order.to_the_end)):
            return self._end_round()
        return []

    def _take_step(self) -> list[Effect]:
        """The next minibatch, or the end of the last."""
        if self.minibatch == self._coupled:
            self.phase = Phase.IMPROVING
            return [LearnPolicy(self.round)]
        self.phase = Phase.STEPPING
        return [Step(self.round, self.minibatch)]

    def _end_round(self) -> list[Effect]:
        effects: list[Effect] = [EndRound(self.round)]
        for table in (self._arrived, self._left):
            for key in [key for key in table if key[1] == self.round]:
                del table[key]
        self._per_round.clear()
        self.round += 1
        self.step = self.minibatch = 0
        if self.round == self._rounds:
            self.phase = Phase.ENDED
            return effects
        self.phase = Phase.STARTING
        return [*effects, Ready(self.round)]

    # ---------------------------------------------------------------- sending

    def _say(self, kind: Kind, step: int) -> list[Effect]:
        """Send this agent's own message, and whatever had to wait for it."""
        routes = self._routes(kind, self.round)
        if not routes.outgoing:
            return []
        key = (kind, self.round, step)
        self._arrived.setdefault(key, set()).add(self._agent)
        return self._pass_on(key, routes, self._agent)

    def _pass_on(self, key: Key, routes: Routes, origin: int) -> list[Effect]:
        """What may leave now that the message of `origin` is here."""
        if not self._lockstep:
            return [self._send(key, routes, origin, to) for to in routes.next_hops.get(origin, ()) if to not in self._dead]
        blocked: set[int] = set()
        if key[0] in (Kind.STATE, Kind.RATIO_MB):
            return self._depart(key, routes, blocked)
        round_ = key[1]
        return [
            effect for kind in self._at_the_end for effect in self._depart((kind, round_, 0), self._routes(kind, round_), blocked)
        ]

    def _depart(self, key: Key, routes: Routes, blocked: set[int]) -> list[Effect]:
        """What may leave of one kind and moment, over links not yet blocked; those where something is missing become so."""
        if not routes.outgoing:
            return []
        arrived = self._arrived.get(key, set())
        left = self._left.setdefault(key, [0] * len(routes.outgoing))
        effects: list[Effect] = []
        for place, (to, origins) in enumerate(routes.outgoing):
            if to in blocked:
                continue
            count = left[place]
            while count < len(origins) and (origins[count] in arrived or self._cut_off(routes, origins[count])):
                if origins[count] in arrived and to not in self._dead:
                    effects.append(self._send(key, routes, origins[count], to))
                count += 1
            left[place] = count
            if count < len(origins):
                blocked.add(to)
        return effects

    def _pass_on_all(self) -> list[Effect]:
        """What may leave now that an agent has died whose message others had to wait for."""
        if not self._lockstep:
            return []
        return [effect for key in sorted(self._left) for effect in self._pass_on(key, self._routes(key[0], key[1]), self._agent)]

    def _send(self, key: Key, routes: Routes, origin: int, to: int) -> Send:
        kind, round_, step = key
        return Send(kind, origin, to, round_, step, routes.hops_left[origin] - 1, (origin, to) in routes.addressed)

    # ---------------------------------------------------------------- waiting

    def _has(self, key: Key, routes: Routes, wanted: frozenset[int]) -> bool:
        """Whether everything of `wanted` that can still come is here."""
        arrived = self._arrived.get(key, set())
        if not self._dead:
            return wanted <= arrived
        return all(origin in arrived or self._cut_off(routes, origin) for origin in wanted)

    def _has_all(self, kind: Kind) -> bool:
        routes = self._routes(kind, self.round)
        return self._has((kind, self.round, 0), routes, routes.awaited)

    def _cut_off(self, routes: Routes, origin: int) -> bool:
        """Whether the message of `origin` can no longer come, because it, or a node on its way here, is dead."""
        return bool(self._dead) and origin != self._agent and not self._dead.isdisjoint(routes.via[origin])

    def _routes(self, kind: Kind, round_: int) -> Routes:
        if kind is Kind.STATE:
            return self._state
        if kind is Kind.RATIO_MB:
            return self._ratios
        if kind is Kind.RATIO and self._ranked and self.phase not in _RANKED:
            return NO_ROUTES
        if kind not in self._at_the_end or round_ != self.round or not self._learns:
            return NO_ROUTES
        found = self._per_round.get((kind, round_))
        if found is None:
            found = self._per_round[kind, round_] = self._routes_of(kind, round_)
        return found

    # ---------------------------------------------------------------- telling

    def _missing(self) -> list[int]:
        if self.phase is Phase.GATHERING:
            return sorted(self._state.awaited - self._arrived.get((Kind.STATE, self.round, self.step), set()))
        if self.phase is Phase.COUPLING:
            return sorted(self._ratios.awaited - self._arrived.get((Kind.RATIO_MB, self.round, self.minibatch), set()))
        absent = {
            origin
            for kind in self._order.awaited(self.phase)
            for origin in self._routes(kind, self.round).awaited - self._arrived.get((kind, self.round, 0), set())
        }
        return sorted(absent)

    def _silence(self) -> str:
        who = f"agents {self._missing()}" if self.waits_for_peers else "the world"
        if self.phase is Phase.ADVISED:
            who = "the central critic"
        return f"{self._story()}: received nothing in time from {who}"

    def _story(self) -> str:
        where = f"minibatch {self.minibatch}" if self.phase in (Phase.STEPPING, Phase.COUPLING) else f"step {self.step}"
        return f"agent {self._agent}, {self.phase.story} in round {self.round}, {where}"

    def _expect(self, event: Event, phase: Phase) -> None:
        assert self.phase is phase, f"{self._story()}: {event} does not belong here"
