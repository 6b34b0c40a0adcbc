"""The agent's protocol: a state machine without I/O that decides what to send, when to act and when to learn.

Theory of operation. Events go in (`handle`), effects come out; `node.runtime` carries them out over sockets and hands
back what happened. The machine knows ids, rounds and steps, never data. One round k runs

    SENSING ─Sensed(k,t)─► GATHERING ─all STATE(k,t)─► Act ─► SENSING …                      for t = 0 … T-1
    SENSING ─Sensed(k+1,0)─► CLOSING ─all BOOTSTRAP, REWARD─► LearnValues ─► ESTIMATING
    ESTIMATING ─ValuesLearned─► WAITING ─all RATIO of earlier agents I depend on─► LearnPolicy ─► IMPROVING
    IMPROVING ─PolicyLearned─► send RATIO ─► RELAYING ─all RATIO that pass through me─► EndRound ─► next round, or ENDED

Three rules couple the agents and must not change:
1. A message is passed on the moment it is read, and inboxes are read while an agent waits for peers and between the
minibatches of its learning; so nobody waits for somebody who merely learns.
2. An agent leaves a step, and a round, only after it has handled every message that comes its way (`Routes.awaited`),
used or relayed.
3. What the world sends after the last step of a round is the first observation of the next: it ends one round and
begins another.

Because of rule 2 a message can be early by one step at most (by one round, between rounds); it is kept until its time.
A duplicate, a stale message, one from outside the ball, or one with the wrong hop budget is refused and changes
nothing. tests/test_node_protocol.py drives whole networks of these machines through every order of delivery that
hypothesis can think of.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from topology.routes import NOBODY, Routes
from topology.wire import Kind


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


@dataclass(frozen=True, slots=True)
class ValuesLearned:
    """The critics have been trained and the advantages are known."""


@dataclass(frozen=True, slots=True)
class PolicyLearned:
    """The actor has been trained and the final ratios are known."""


@dataclass(frozen=True, slots=True)
class DeadlinePassed:
    """What the machine waits for has not come in time."""


Event = Sensed | Arrived | ValuesLearned | PolicyLearned | DeadlinePassed


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


class LearnPolicy(NamedTuple):
    """Every ratio this agent depends on is here: train the actor."""

    round: int


class EndRound(NamedTuple):
    """The round is over for this agent."""

    round: int


class Refuse(NamedTuple):
    """The message just handed in breaks a rule: count it and forget it."""

    reason: str


class GiveUp(NamedTuple):
    """Nothing more can be done; the text says who was silent."""

    reason: str


Effect = Send | Act | LearnValues | LearnPolicy | EndRound | Refuse | GiveUp


class Phase(Enum):
    """Where in a round the agent is."""

    SENSING = "sensing"
    GATHERING = "gathering"
    CLOSING = "closing"
    ESTIMATING = "estimating"
    WAITING = "waiting for ratios"
    IMPROVING = "improving"
    RELAYING = "relaying"
    ENDED = "ended"


WAITS_FOR_PEERS = frozenset({Phase.GATHERING, Phase.CLOSING, Phase.WAITING, Phase.RELAYING})
_PER_ROUND = (Kind.BOOTSTRAP, Kind.REWARD)


class Protocol:
    """One agent's state machine.

    Args:
        agent: This agent's id.
        rounds: Rounds in the run.
        steps: T, steps per round.
        routes: The agent's part in each kind of message, per round (only RATIO may differ between rounds).
        learns: False for a run that only acts: a round then ends after its last step.
    """

    def __init__(
        self, agent: int, *, rounds: int, steps: int, routes: Callable[[Kind, int], Routes], learns: bool = True
    ) -> None:
        self._agent = agent
        self._rounds = rounds
        self._steps = steps
        self._routes_of = routes
        self._learns = learns
        self._state = routes(Kind.STATE, 0)
        self._per_round: dict[tuple[Kind, int], Routes] = {}
        self._arrived: dict[tuple[Kind, int, int], set[int]] = {}
        self.phase = Phase.SENSING
        self.round = 0
        self.step = 0

    @property
    def waits_for_peers(self) -> bool:
        """Whether the next event must come from a peer (otherwise from the world, or from the agent's own learning)."""
        return self.phase in WAITS_FOR_PEERS

    def handle(self, event: Event) -> list[Effect]:
        """The effects of one event, in the order in which they are to be carried out."""
        if type(event) is Arrived:
            return self._on_arrived(event)
        if type(event) is Sensed:
            return self._on_sensed(event)
        if type(event) is ValuesLearned:
            self._expect(event, Phase.ESTIMATING)
            self.phase = Phase.WAITING
            return self._advance()
        if type(event) is PolicyLearned:
            self._expect(event, Phase.IMPROVING)
            self.phase = Phase.RELAYING
            return [*self._own(Kind.RATIO, self.round, 0), *self._advance()]
        return [GiveUp(self._silence())]

    def _on_sensed(self, event: Sensed) -> list[Effect]:
        self._expect(event, Phase.SENSING)
        if (event.round, event.step) == (self.round, self.step) and event.step < self._steps:
            self.phase = Phase.GATHERING
            return [*self._own(Kind.STATE, self.round, self.step), *self._advance()]
        if (event.round, event.step) == (self.round + 1, 0) and self.step == self._steps:
            if not self._learns:
                return self._end_round()
            self.phase = Phase.CLOSING
            own = [effect for kind in _PER_ROUND for effect in self._own(kind, self.round, 0)]
            return [*own, *self._advance()]
        raise AssertionError(f"{self._story()}: the world showed round {event.round}, step {event.step}")

    def _on_arrived(self, event: Arrived) -> list[Effect]:
        routes = self._routes(event.kind, event.round)
        key = (event.kind, event.round, event.step)
        reason = self._objection(event, routes, key)
        if reason is not None:
            return [Refuse(f"{event.kind.name} of agent {event.origin}, round {event.round}, step {event.step}: {reason}")]
        self._arrived.setdefault(key, set()).add(event.origin)
        onward = [
            Send(
                event.kind, event.origin, to, event.round, event.step, event.hops_left - 1, (event.origin, to) in routes.addressed
            )
            for to in routes.next_hops.get(event.origin, ())
        ]
        return [*onward, *self._advance()]

    def _objection(self, event: Arrived, routes: Routes, key: tuple[Kind, int, int]) -> str | None:
        if event.origin not in routes.awaited:
            return "does not come this way"
        if event.hops_left != routes.hops_left[event.origin]:
            return f"hop budget {event.hops_left}, expected {routes.hops_left[event.origin]}"
        if event.origin in self._arrived.get(key, ()):
            return "came twice"
        if event.kind is Kind.STATE:
            now = self.round * self._steps + self.step
            if not now <= event.round * self._steps + event.step <= now + 1 or event.step >= self._steps:
                return f"out of time, agent {self._agent} is at round {self.round}, step {self.step}"
        elif event.round != self.round or event.step != 0:
            return f"out of time, agent {self._agent} is in round {self.round}"
        return None

    def _advance(self) -> list[Effect]:
        """Whatever follows now that something has come in, been learned or been sensed."""
        if self.phase is Phase.GATHERING and self._complete(Kind.STATE, self.step, self._state.awaited):
            effect = Act(self.round, self.step)
            self.step += 1
            self.phase = Phase.SENSING
            return [effect]
        if self.phase is Phase.CLOSING and all(self._has(kind, self._routes(kind, self.round).awaited) for kind in _PER_ROUND):
            self.phase = Phase.ESTIMATING
            return [LearnValues(self.round)]
        if self.phase is Phase.WAITING and self._has(Kind.RATIO, self._routes(Kind.RATIO, self.round).uses):
            self.phase = Phase.IMPROVING
            return [LearnPolicy(self.round)]
        if self.phase is Phase.RELAYING and self._has(Kind.RATIO, self._routes(Kind.RATIO, self.round).awaited):
            return self._end_round()
        return []

    def _end_round(self) -> list[Effect]:
        effects: list[Effect] = [EndRound(self.round)]
        for key in [key for key in self._arrived if key[1] == self.round]:
            del self._arrived[key]
        for per_round in [key for key in self._per_round if key[1] == self.round]:
            del self._per_round[per_round]
        self.round += 1
        self.step = 0
        if self.round == self._rounds:
            self.phase = Phase.ENDED
            return effects
        self.phase = Phase.SENSING  # rule 3: the observation that closed the old round opens the new one
        return [*effects, *self._on_sensed(Sensed(self.round, 0))]

    def _own(self, kind: Kind, round_: int, step: int) -> list[Effect]:
        routes = self._routes(kind, round_)
        me = self._agent
        return [
            Send(kind, me, to, round_, step, routes.hops_left[me] - 1, (me, to) in routes.addressed)
            for to in routes.next_hops.get(me, ())
        ]

    def _complete(self, kind: Kind, step: int, awaited: frozenset[int]) -> bool:
        """Whether all of `awaited` are here; if so they are forgotten, their time being over."""
        if not awaited:
            return True
        key = (kind, self.round, step)
        if len(self._arrived.get(key, ())) < len(awaited):
            return False
        del self._arrived[key]
        return True

    def _has(self, kind: Kind, awaited: frozenset[int]) -> bool:
        return awaited <= self._arrived.get((kind, self.round, 0), set())

    def _routes(self, kind: Kind, round_: int) -> Routes:
        if kind is Kind.STATE:
            return self._state
        if kind not in (*_PER_ROUND, Kind.RATIO) or round_ != self.round or not self._learns:
            return NOBODY
        found = self._per_round.get((kind, round_))
        if found is None:
            found = self._per_round[kind, round_] = self._routes_of(kind, round_)
        return found

    def _missing(self) -> list[int]:
        if self.phase is Phase.GATHERING:
            return sorted(self._state.awaited - self._arrived.get((Kind.STATE, self.round, self.step), set()))
        kinds = _PER_ROUND if self.phase is Phase.CLOSING else (Kind.RATIO,)
        absent = {
            origin
            for kind in kinds
            for origin in self._routes(kind, self.round).awaited - self._arrived.get((kind, self.round, 0), set())
        }
        return sorted(absent)

    def _silence(self) -> str:
        who = f"agents {self._missing()}" if self.waits_for_peers else "the world"
        return f"{self._story()}: heard nothing in time from {who}"

    def _story(self) -> str:
        return f"agent {self._agent}, {self.phase.value} in round {self.round}, step {self.step}"

    def _expect(self, event: Event, phase: Phase) -> None:
        assert self.phase is phase, f"{self._story()}: {event} does not belong here"
