"""The agent's state machine: whole networks of them, in every order of delivery, honest and otherwise.

The network here is the machines with a queue per directed link, and a world that shows the next step once all have acted,
and begins the next round once all are ready. Nothing else happens by itself: what happens next is drawn, be it a delivery,
the end of somebody's learning, a death, the news of one, or a deadline.
"""

import copy
import dataclasses
import functools
import random
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st

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
from scenarios.kinds import Kind, peer_kinds
from scenarios.schema import Scenario
from topology.deployment import Deployment
from topology.graph.neighbourhood import distances
from topology.graph.routes import Routes, answers

Edges = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Setting:
    """A small network and what its agents are to do."""

    n: int
    edges: Edges
    kappa: int = 1
    unit: str = "hops"
    routing: str = "relay"
    factor: str = "none"
    order: str = "fixed"
    critic: str = "khop"
    reward: str = "own"
    rounds: int = 2
    steps: int = 2
    minibatches: int = 2
    seed: int = 0
    learns: bool = True
    lockstep: bool = True
    center: tuple[int, ...] = ()  # agents with an edge to a central critic

    @functools.cache  # noqa: B019  (settings live as long as the tests)
    def routings(self) -> list[AgentRouting]:
        scenario = Scenario.model_validate(
            {
                "kappa": self.kappa, "kappa_unit": self.unit, "routing": "relay" if self.center else self.routing,
                "seed": self.seed,
                "algorithm": {
                    "factor": self.factor, "order": self.order, "critic_scope": "central" if self.center else self.critic,
                    "reward": self.reward,
                    "objective": "double_clip" if self.is_coupled else "clip", "constraint": "none",
                },
            }
        )  # fmt: skip
        deployment = Deployment(
            obs_dims=(1,) * self.n,
            act_dims=(1,) * self.n,
            cost_limits=(),
            dt=1.0,
            edges=tuple(sorted(self.edges)),
            critic_edges=self.center,
            learns=self.learns,
        )
        return [AgentRouting(scenario, deployment, i) for i in range(self.n)]

    @property
    def is_coupled(self) -> bool:
        return self.order == "simultaneous" and self.factor != "none"

    def protocol(self, i: int, routing: AgentRouting) -> Protocol:
        return Protocol(
            i, rounds=self.rounds, steps=self.steps, routes=routing.routes, learns=self.learns, lockstep=self.lockstep,
            ranked=self.order == "semi_greedy" and self.factor != "none", coupled=self.minibatches * self.is_coupled,
        )  # fmt: skip


def line(n: int, **more: Any) -> Setting:
    return Setting(n, tuple((i, i + 1) for i in range(n - 1)), **more)


def star(n: int, **more: Any) -> Setting:
    return Setting(n, tuple((0, i) for i in range(1, n)), **more)


FACTORS = ["none", "khop", "global"]
NO_SCORES = ("fixed", "random", "simultaneous", "alternating")  # of what may be lost for good, the order must not depend on


@st.composite
def settings(
    draw: st.DrawFn, orders: Sequence[str] = ("fixed", "random", "simultaneous", "semi_greedy", "alternating")
) -> Setting:
    n = draw(st.integers(1, 6))
    tree = {(draw(st.integers(0, i - 1)), i) for i in range(1, n)}
    pairs = [(i, j) for i in range(n) for j in range(i + 1, n)]
    more = set(draw(st.lists(st.sampled_from(pairs), max_size=4))) if pairs else set()
    unit = draw(st.sampled_from(["hops", "agents"]))
    return Setting(
        n,
        tuple(sorted(tree | more)),
        kappa=draw(st.integers(unit == "agents", 4)),
        unit=unit,
        routing=draw(st.sampled_from(["relay", "direct"])),
        factor="none" if (order := draw(st.sampled_from(orders))) == "alternating" else draw(st.sampled_from(FACTORS)),
        order=order,
        critic=draw(st.sampled_from(["local", "khop", "global"])),
        reward=draw(st.sampled_from(["own", "khop_mean"])),
        rounds=draw(st.integers(1, 3)),
        steps=draw(st.integers(1, 3)),
        minibatches=draw(st.integers(1, 3)),
        seed=draw(st.integers(0, 9)),
        learns=draw(st.integers(0, 4)) > 0,
    )


@st.composite
def centralised(draw: st.DrawFn) -> Setting:
    """A setting with a central critic, hanging on one agent or joined to all."""
    setting = draw(settings(NO_SCORES))
    center = draw(st.sampled_from([tuple(range(setting.n)), *((i,) for i in range(setting.n))]))
    return dataclasses.replace(setting, center=center, reward="own", routing="relay")


Move = tuple[str, int, int]  # what, to whom, from whom or about whom
Said = tuple[Kind, int, int, int]  # kind, round, step, origin
WORLD = -1


@dataclass
class World:
    """Shows a step, waits until all who live have acted, and between rounds until they are ready."""

    n: int
    rounds: int
    steps: int
    round: int = 0
    step: int = 0
    acting: bool = True
    heard: set[int] = field(default_factory=set)
    gone: set[int] = field(default_factory=set)
    shown: dict[int, deque[Sensed | Started]] = field(default_factory=lambda: defaultdict(deque))

    def hear(self, i: int, effect: Act | Ready) -> None:
        assert effect == (Act(self.round, self.step) if self.acting else Ready(self.round))
        self.heard.add(i)
        self.go_on()

    def go_on(self) -> None:
        if len(self.heard | self.gone) < self.n or self.round == self.rounds:
            return
        self.heard.clear()
        if not self.acting:
            self.acting = True
            return self.tell(Started(self.round))
        self.round, self.step = divmod(self.round * self.steps + self.step + 1, self.steps)
        self.acting = self.step > 0
        return self.tell(Sensed(self.round, self.step))

    def tell(self, event: Sensed | Started) -> None:
        for i in set(range(self.n)) - self.gone:
            self.shown[i].append(event)


@dataclass
class Network:
    """The machines, the queues between them, the world, and what came of it.

    `deaths` says after how many moves somebody dies. What it has sent survives in part; the others and the world are told
    some time later. `loses` says whether a message is lost. With `hasty` deadlines pass at any time, otherwise (and only
    without lockstep) when nothing else can happen.
    """

    setting: Setting
    deaths: dict[int, int] = field(default_factory=dict)
    loses: Callable[[], bool] = lambda: False
    hasty: bool = False
    after_each: Callable[["Network"], None] = lambda network: None
    graph: nx.Graph = field(init=False)
    routings: list[AgentRouting] = field(init=False)
    nodes: list[Protocol] = field(init=False)
    world: World = field(init=False)
    links: dict[tuple[int, int], deque[Arrived]] = field(default_factory=lambda: defaultdict(deque))
    learning: dict[int, ValuesLearned | Ranked | Stepped | PolicyLearned] = field(default_factory=dict)
    dead: set[int] = field(default_factory=set)
    news: set[tuple[int, int]] = field(default_factory=set)  # who is still to be told of whose death
    acted: dict[int, list[tuple[int, int]]] = field(default_factory=lambda: defaultdict(list))
    stepped: dict[int, list[tuple[int, int]]] = field(default_factory=lambda: defaultdict(list))
    ended: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    had: dict[int, list[Arrived]] = field(default_factory=lambda: defaultdict(list))
    refused: list[tuple[int, int, Arrived, Refuse]] = field(default_factory=list)  # by whom, in which round of its
    improved: set[tuple[int, int]] = field(default_factory=set)
    said: dict[tuple[int, int], list[Said]] = field(default_factory=lambda: defaultdict(list))
    crossings: Counter[tuple[Kind, bool]] = field(default_factory=Counter)
    early: dict[int, list[Arrived]] = field(default_factory=lambda: defaultdict(list))
    found: dict[tuple[int, Kind, int], Routes] = field(default_factory=dict)
    made: int = 0

    def __post_init__(self) -> None:
        self.graph = nx.Graph(self.setting.edges)
        self.graph.add_nodes_from(range(self.setting.n))
        self.graph.add_edges_from((i, self.setting.n) for i in self.setting.center)
        self.routings = [copy.copy(routing) for routing in self.setting.routings()]  # what they know of orders is each run's own
        self.nodes = [self.setting.protocol(i, routing) for i, routing in enumerate(self.routings)]
        self.world = World(self.setting.n, self.setting.rounds, self.setting.steps)
        self.world.tell(Sensed(0, 0))

    def moves(self) -> list[Move]:
        """All that could happen next."""
        possible = [("deliver", to, src) for (src, to), queue in self.links.items() if queue]
        possible += [("sense", i, WORLD) for i, queue in self.world.shown.items() if queue and i not in self.dead]
        possible += [("learn", i, i) for i in self.learning]
        possible += [("told", i, of) for i, of in self.news]
        if self.hasty or (not possible and not self.setting.lockstep):
            waiting = [i for i, node in enumerate(self.nodes) if node.waits_for_peers and i not in self.dead]
            possible += [("deadline", i, i) for i in waiting]
        return possible

    def make(self, move: Move) -> None:
        what, i, other = move
        if what == "deliver":
            self._deliver(i, self.links[other, i].popleft())
        elif what == "sense":
            self._carry_out(i, self.nodes[i].handle(self.world.shown[i].popleft()))
        elif what == "told":
            self.news.remove((i, other))
            if i == WORLD:
                self.world.gone.add(other)
                self.world.go_on()
            else:
                self._carry_out(i, self.nodes[i].handle(Died(other)))
        elif what == "deadline":
            self._carry_out(i, self.nodes[i].handle(DeadlinePassed()))
        else:
            learned = self.learning.pop(i)
            if type(learned) is Ranked:
                self._rank(i)
            if type(learned) is PolicyLearned:
                self.improved.add((i, self.nodes[i].round))
            self._carry_out(i, self.nodes[i].handle(learned))
        self.made += 1
        if self.made in self.deaths:
            self._die(self.deaths[self.made])
        self.after_each(self)

    def run(self, choose: Callable[[list[Move]], Move]) -> None:
        while moves := self.moves():
            self.make(choose(sorted(moves)))

    def living(self) -> list[int]:
        return [i for i in range(self.setting.n) if i not in self.dead]

    def _die(self, dying: int) -> None:
        if dying in self.dead:
            return
        self.dead.add(dying)
        self.learning.pop(dying, None)
        for (src, to), queue in self.links.items():
            if to == dying:
                queue.clear()
            elif src == dying:
                for _ in range(len(queue) - self.made % (len(queue) + 1)):
                    queue.pop()
        self.news = {(i, of) for i, of in self.news if i != dying}
        self.news |= {(i, dying) for i in (WORLD, *self.living())}

    def _rank(self, i: int) -> None:
        """Agent i finds the order of updates; what came before its time is judged after it."""
        round_ = self.nodes[i].round
        known = {i, *self._has(i, Kind.SCORE, round_, 0)}
        assert known == set(range(self.setting.n))
        self.routings[i].rank(round_, {j: float(hash((j, round_, self.setting.seed)) % 7) for j in known})
        self.found[i, Kind.RATIO, round_] = self.routings[i].routes(Kind.RATIO, round_)
        self.links[i, i].extend(self.early.pop(i, []))

    def _tell_critic(self, event: Arrived) -> None:
        """The central critic, agent n, answers all once it has heard all."""
        n = self.setting.n
        assert event.kind in (Kind.JOINT, Kind.BOOTSTRAP)
        assert event.hops_left == 0
        self.had[n].append(event)
        round_ = event.round
        if not all(self._has(n, kind, round_, 0) == set(range(n)) for kind in (Kind.JOINT, Kind.BOOTSTRAP)):
            return
        part = answers(self.graph, n, n)
        for to, addressees in part.outgoing:
            for i in addressees:
                self.crossings[Kind.ADVANTAGE, (i, to) in part.addressed] += 1
                self.links[n, to].append(Arrived(Kind.ADVANTAGE, i, round_, 0, part.hops_left[i] - 1))

    def _deliver(self, i: int, event: Arrived) -> None:
        if i == self.setting.n:
            return self._tell_critic(event)
        round_ = self.nodes[i].round
        effects = self.nodes[i].handle(event)
        if effects and isinstance(effects[0], Refuse):
            assert len(effects) == 1
            self.refused.append((i, round_, event, effects[0]))
            return None
        if effects and isinstance(effects[0], Later):
            assert len(effects) == 1
            self.early[i].append(event)
            return None
        self.had[i].append(event)
        return self._carry_out(i, effects)

    def routes(self, i: int, kind: Kind, round_: int) -> Routes:
        """The part of agent i, by the order that was found in the round."""
        return self.found.get((i, kind, round_)) or self.routings[i].routes(kind, round_)

    def _has(self, i: int, kind: Kind, round_: int, step: int) -> set[int]:
        return {event.origin for event in self.had[i] if (event.kind, event.round, event.step) == (kind, round_, step)}

    def _complete(self, i: int, kind: Kind, round_: int, step: int = 0) -> bool:
        """Whether agent i has of a kind all that is meant for it, but for what the dead keep from it."""
        part = self.routes(i, kind, round_)
        known = {of for of in self.dead if (i, of) not in self.news}
        return all(not known.isdisjoint(part.via[origin]) for origin in part.uses - self._has(i, kind, round_, step))

    def _carry_out(self, i: int, effects: list[Effect]) -> None:
        strict = self.setting.lockstep
        for effect in effects:
            match effect:
                case Send():
                    assert effect.hops_left >= 0
                    assert self.setting.routing == "direct" or self.graph.has_edge(i, effect.to)
                    assert effect.to not in self.dead or (i, effect.to) in self.news
                    self.crossings[effect.kind, effect.addressed] += 1
                    self.said[i, effect.to].append((effect.kind, effect.round, effect.step, effect.origin))
                    if effect.to not in self.dead and not self.loses():
                        self.links[i, effect.to].append(
                            Arrived(effect.kind, effect.origin, effect.round, effect.step, effect.hops_left)
                        )
                case Act(round_, step):
                    assert self._complete(i, Kind.STATE, round_, step) or not strict
                    self.acted[i].append((round_, step))
                    self.world.hear(i, effect)
                case LearnValues(round_):
                    assert self._complete(i, Kind.ADVANTAGE, round_) or not strict
                    assert (self._complete(i, Kind.BOOTSTRAP, round_) and self._complete(i, Kind.REWARD, round_)) or not strict
                    self.learning[i] = ValuesLearned()
                case Rank(round_):
                    assert self._complete(i, Kind.SCORE, round_)
                    self.learning[i] = Ranked()
                case Step(round_, minibatch):
                    assert not minibatch or self._complete(i, Kind.RATIO_MB, round_, minibatch - 1) or not strict
                    self.stepped[i].append((round_, minibatch))
                    self.learning[i] = Stepped()
                case LearnPolicy(round_):
                    last = self.setting.minibatches - 1
                    assert not self.setting.is_coupled or self._complete(i, Kind.RATIO_MB, round_, last) or not strict
                    assert self._complete(i, Kind.RATIO, round_) or not strict
                    earlier = self.routes(i, Kind.RATIO, round_).uses & self._has(i, Kind.RATIO, round_, 0)
                    assert {(j, round_) for j in earlier} <= self.improved
                    self.learning[i] = PolicyLearned()
                case EndRound(round_):
                    if self.setting.learns:
                        assert self._complete(i, Kind.TOKEN, round_) or not strict
                    self.ended[i].append(round_)
                case Ready():
                    self.world.hear(i, effect)
                case _:
                    pytest.fail(f"agent {i}: {effect}")

    def check_end(self) -> None:
        """All who live have done all their work, and no message is left over."""
        for i in self.living():
            node = self.nodes[i]
            assert node.phase is Phase.ENDED, node.handle(DeadlinePassed())
            assert self.acted[i] == [(k, t) for k in range(self.setting.rounds) for t in range(self.setting.steps)]
            assert self.ended[i] == list(range(self.setting.rounds))
            assert not self.early[i]
            minibatches = self.setting.minibatches if self.setting.is_coupled and self.setting.learns else 0
            assert self.stepped[i] == [(k, m) for k in range(self.setting.rounds) for m in range(minibatches)]
            assert not node._arrived
            assert not node._left
        assert not any(self.links.values())

    def check_honest(self) -> None:
        """The same, and nobody had anything to refuse."""
        self.check_end()
        assert not self.refused


def chooser(seed: int, starved: int) -> Callable[[list[Move]], Move]:
    """Picks at random; but agent `starved` gets nothing as long as anything else can happen."""
    rng = random.Random(seed)

    def choose(moves: list[Move]) -> Move:
        return rng.choice([move for move in moves if move[1] != starved] or moves)

    return choose


orders = st.builds(chooser, st.integers(0, 2**32), st.integers(-1, 5))


@given(setting=settings(), choose=orders)
def test_every_honest_run_ends_with_all_work_done_and_nothing_refused(
    setting: Setting, choose: Callable[[list[Move]], Move]
) -> None:
    network = Network(setting)
    network.run(choose)
    network.check_honest()


@effort(max_examples=60)
@given(setting=centralised(), first=orders, second=orders)
def test_with_a_central_critic_everybody_ends_and_links_carry_the_same_in_every_run(
    setting: Setting, first: Callable[[list[Move]], Move], second: Callable[[list[Move]], Move]
) -> None:
    one, other = Network(setting), Network(setting)
    one.run(first)
    other.run(second)
    for network in (one, other):
        network.check_honest()
        for kind in (Kind.JOINT, Kind.BOOTSTRAP, Kind.ADVANTAGE):
            assert network.crossings[kind, True] == setting.n * setting.rounds * setting.learns
    assert one.said == other.said


@effort(max_examples=50)
@given(setting=settings(), first=orders, second=orders)
def test_what_leaves_over_a_link_is_the_same_in_every_run_and_in_the_order_of_the_routes(
    setting: Setting, first: Callable[[list[Move]], Move], second: Callable[[list[Move]], Move]
) -> None:
    one, other = Network(setting), Network(setting)
    one.run(first)
    other.run(second)
    assert one.said == other.said
    for (i, to), said in one.said.items():
        minibatches = [(round_, step) for kind, round_, step, _ in said if kind is Kind.RATIO_MB]
        assert minibatches == sorted(minibatches)
        by_moment: dict[tuple[Kind, int, int], list[int]] = defaultdict(list)
        for kind, round_, step, origin in said:
            by_moment[kind, round_, step].append(origin)
        for (kind, round_, _), origins in by_moment.items():
            assert tuple(origins) == dict(one.routes(i, kind, round_).outgoing)[to]


@effort(max_examples=50)
@given(setting=settings(), choose=orders)
def test_addressed_crossings_are_as_many_as_there_are_addressees(setting: Setting, choose: Callable[[list[Move]], Move]) -> None:
    network = Network(setting)
    network.run(choose)
    rounds = range(setting.rounds)
    per_round = dict.fromkeys(peer_kinds(), 1) | {Kind.STATE: setting.steps, Kind.RATIO_MB: setting.minibatches}
    for kind, times in per_round.items():
        uses = sum(len(network.routes(i, kind, k).uses) for i in range(setting.n) for k in rounds)
        expected = uses * times if setting.learns or kind is Kind.STATE else 0
        assert network.crossings[kind, True] == expected


@effort(max_examples=50)
@given(setting=settings(), choose=orders)
def test_no_agent_learns_its_policy_beside_one_that_its_factor_depends_on(
    setting: Setting, choose: Callable[[list[Move]], Move]
) -> None:
    network = Network(setting)

    def look(network: Network) -> None:
        busy = {i for i, node in enumerate(network.nodes) if node.phase is Phase.IMPROVING}
        for i in busy:
            assert not busy & network.routes(i, Kind.RATIO, network.nodes[i].round).uses

    network.after_each = look
    network.run(choose)


def test_agents_more_than_kappa_apart_may_learn_at_the_same_time_but_neighbours_never() -> None:
    met: set[tuple[int, int]] = set()

    def look(network: Network) -> None:
        busy = [i for i, node in enumerate(network.nodes) if node.phase is Phase.IMPROVING]
        met.update((i, j) for i in busy for j in busy if i < j)

    for seed in range(30):
        network = Network(star(4, factor="khop"), after_each=look)
        network.run(chooser(seed, -1))
    assert met == {(1, 2), (1, 3), (2, 3)}  # the leaves, two hops from each other; the hub is everybody's neighbour


def test_with_a_global_factor_agents_learn_one_after_the_other() -> None:
    def look(network: Network) -> None:
        assert sum(node.phase is Phase.IMPROVING for node in network.nodes) <= 1

    for seed in range(10):
        network = Network(star(4, factor="global", order="random"), after_each=look)
        network.run(chooser(seed, -1))
        network.check_end()


def test_a_relay_passes_messages_on_while_it_learns() -> None:
    # 0 comes before 2, which hears it through 1; and 1 does not get to learn before nothing else can happen
    def order(seed: int) -> tuple[int, ...]:
        return line(3, order="random", seed=seed).routings()[0].order(0)

    seed = next(seed for seed in range(99) if order(seed) == (0, 2, 1))
    passed: list[Arrived] = []

    def look(network: Network) -> None:
        if network.nodes[1].phase in (Phase.ESTIMATING, Phase.WAITING) and (0, 0) in network.improved:
            passed.extend(event for event in network.links[1, 2] if event.kind is Kind.RATIO and event.origin == 0)

    network = Network(line(3, kappa=2, factor="khop", rounds=1, steps=1, order="random", seed=seed), after_each=look)
    network.run(lambda moves: next((move for move in moves if move[:2] != ("learn", 1)), moves[0]))
    network.check_end()
    assert passed


def test_a_ratio_that_comes_before_the_order_is_known_waits_for_it() -> None:
    # 1 lacks the score of 0 for as long as anything else can happen; 2 does not, learns, and tells 1 its ratio
    laid_aside: set[Arrived] = set()
    for seed in range(5):
        triangle = Setting(3, ((0, 1), (0, 2), (1, 2)), factor="global", order="semi_greedy", rounds=1, steps=1, seed=seed)
        network = Network(triangle, after_each=lambda network: laid_aside.update(network.early[1]))

        def last(moves: list[Move], network: Network = network) -> Move:
            scores = [move for move in moves if move[0] == "deliver" and network.links[0, 1] and move[1:] == (1, 0)]
            held = {move for move in scores if network.links[0, 1][0].kind is Kind.SCORE}
            return next((move for move in moves if move not in held), moves[0])

        network.run(last)
        network.check_honest()
    assert (Kind.RATIO, 2) in {(event.kind, event.origin) for event in laid_aside}


# --------------------------------------------------------------------------------------------------- the dead and the silent


lives = st.dictionaries(st.integers(1, 150), st.integers(0, 5), max_size=2)  # after how many moves who dies


@given(setting=settings(NO_SCORES), choose=orders, deaths=lives)
def test_whoever_dies_whenever_the_others_end_with_all_that_the_dead_do_not_keep_from_them(
    setting: Setting, choose: Callable[[list[Move]], Move], deaths: dict[int, int]
) -> None:
    network = Network(setting, deaths={when: who % setting.n for when, who in deaths.items()})
    network.run(choose)
    network.check_end()
    for i, _, event, refusal in network.refused:
        # what the dead had said, or passed on, came when agent i had already gone on without it
        assert refusal.late
        assert not network.dead.isdisjoint(network.routings[i].routes(event.kind, event.round).via[event.origin])


@effort(max_examples=60)
@given(
    setting=settings(NO_SCORES),
    choose=orders,
    seed=st.integers(0, 2**32),
    part=st.sampled_from([0.0, 0.2, 0.9]),
    hasty=st.booleans(),
)
def test_on_the_wall_clock_everybody_ends_whatever_is_lost_and_whenever_deadlines_pass(
    setting: Setting, choose: Callable[[list[Move]], Move], seed: int, part: float, hasty: bool
) -> None:
    rng = random.Random(seed)
    setting = dataclasses.replace(setting, lockstep=False)
    network = Network(setting, loses=lambda: rng.random() < part, hasty=hasty)
    network.run(choose)
    network.check_end()
    for _, round_, event, refusal in network.refused:
        assert refusal.late
        assert event.round < round_ or event.kind is Kind.RATIO_MB  # a minibatch that is over is late within its round
    if part == 0.0 and not hasty:
        assert not network.refused
        for i, routing in enumerate(network.routings):
            for k in range(setting.rounds):
                assert all(routing.routes(Kind.STATE, k).uses <= network._has(i, Kind.STATE, k, t) for t in range(setting.steps))


@effort(max_examples=40)
@given(setting=settings(NO_SCORES), choose=orders, seed=st.integers(0, 2**32), deaths=lives)
def test_on_the_wall_clock_deaths_hold_nobody_up_either(
    setting: Setting, choose: Callable[[list[Move]], Move], seed: int, deaths: dict[int, int]
) -> None:
    rng = random.Random(seed)
    setting = dataclasses.replace(setting, lockstep=False)
    deaths = {when: who % setting.n for when, who in deaths.items()}
    network = Network(setting, deaths=deaths, loses=lambda: rng.random() < 0.1)
    network.run(choose)
    network.check_end()
    assert all(refusal.late for *_, refusal in network.refused)


def arrive(node: Protocol, *message: Any) -> list[Effect]:
    return node.handle(Arrived(*message))


def test_a_death_ends_the_wait_for_the_dead_and_for_those_behind_it() -> None:
    node = lone(line(4, kappa=3), 0)
    node.handle(Sensed(0, 0))
    assert arrive(node, Kind.STATE, 1, 0, 0, 1) == []
    assert node.handle(Died(2)) == [Act(0, 0)]  # 2 is gone, and 3 is heard through 2 only


def test_a_death_lets_go_what_had_to_wait_behind_the_dead_ones_message() -> None:
    node = lone(line(4, kappa=3), 2)
    node.handle(Sensed(0, 0))
    assert arrive(node, Kind.STATE, 0, 0, 0, 1) == []  # nearer ones go first to 3: its own has, that of 1 has not
    assert node.handle(Died(1)) == [Send(Kind.STATE, 0, 3, 0, 0, 0, True)]
    assert arrive(node, Kind.STATE, 3, 0, 0, 2) == [Act(0, 0)]  # and nothing is sent to 1


def test_on_the_wall_clock_a_late_state_counts_while_its_round_lasts() -> None:
    node = lone(line(3, kappa=2, steps=2, rounds=2, lockstep=False, learns=False), 1)
    node.handle(Sensed(0, 0))
    assert node.handle(DeadlinePassed()) == [Act(0, 0)]
    node.handle(Sensed(0, 1))
    assert arrive(node, Kind.STATE, 0, 0, 0, 1) == [Send(Kind.STATE, 0, 2, 0, 0, 0, True)]  # passed on, late as it is
    assert refusal(node, Kind.STATE, 0, 0, 0, 1).endswith("came twice")
    assert node.handle(DeadlinePassed()) == [Act(0, 1)]
    node.handle(Sensed(1, 0))
    node.handle(Started(1))
    (effect,) = arrive(node, Kind.STATE, 2, 0, 1, 1)
    assert effect == Refuse("STATE of agent 2, round 0, step 1: out of time, agent 1 is at round 1, step 0", late=True)


def test_on_the_wall_clock_only_the_worlds_silence_ends_the_run() -> None:
    node = lone(line(3, lockstep=False), 1)
    assert silence(node) == "agent 1, sensing in round 0, step 0: received nothing in time from the world"


# ------------------------------------------------------------------------------------------------------------- dishonest ones


def state_of(node: Protocol) -> dict[str, Any]:
    return {name: copy.deepcopy(value) for name, value in vars(node).items() if name not in ("_per_round", "_routes_of")}


def forged(network: Network, i: int, rng: random.Random) -> Arrived:
    """A message that agent i must refuse, whatever it is doing."""
    node, setting = network.nodes[i], network.setting
    hops = distances(nx.Graph([(0, 0), *setting.edges]), i)
    stranger = Arrived(rng.choice([*Kind]), rng.choice([setting.n, 65535, i]), node.round, rng.randrange(setting.steps), 0)
    choices = [
        stranger,
        Arrived(rng.choice([Kind.SENSE, Kind.ACT, Kind.JOIN, Kind.READY, Kind.GO]), rng.choice([*hops]), node.round, 0, 0),
    ]
    if network.had[i]:
        old = rng.choice(network.had[i])
        choices.append(old)
        choices.append(Arrived(old.kind, old.origin, old.round, old.step, old.hops_left + rng.choice([1, -1, 7])))
        choices.append(
            Arrived(old.kind, old.origin, old.round, setting.steps + setting.minibatches + rng.randrange(9), old.hops_left)
        )
        ahead, step = divmod(node.step + 2 + rng.randrange(9), setting.steps)  # one step early is still accepted, two are not
        choices.append(Arrived(Kind.STATE, old.origin, node.round + ahead, step, old.hops_left))
        if old.kind is not Kind.STATE:
            choices.append(Arrived(old.kind, old.origin, node.round + 1, 0, old.hops_left))
            after_all = setting.minibatches if old.kind is Kind.RATIO_MB else 1
            choices.append(Arrived(old.kind, old.origin, old.round, after_all, old.hops_left))
    return rng.choice(choices)


@effort(max_examples=50)
@given(setting=settings(), choose=orders, seed=st.integers(0, 2**32))
def test_duplicates_stale_premature_and_foreign_messages_are_refused_and_change_nothing(
    setting: Setting, choose: Callable[[list[Move]], Move], seed: int
) -> None:
    rng = random.Random(seed)

    def forge(network: Network) -> None:
        i = rng.randrange(setting.n)
        before = state_of(network.nodes[i])
        event = forged(network, i, rng)
        effects = network.nodes[i].handle(event)
        assert [type(effect) for effect in effects] == [Refuse], (event, effects)
        assert state_of(network.nodes[i]) == before

    network = Network(setting, after_each=forge)
    network.run(choose)
    network.check_end()


def lone(setting: Setting, i: int) -> Protocol:
    return setting.protocol(i, setting.routings()[i])


def refusal(node: Protocol, *message: Any) -> str:
    (effect,) = node.handle(Arrived(*message))
    assert isinstance(effect, Refuse)
    return effect.reason


def test_a_refusal_says_which_message_and_why() -> None:
    node = lone(line(4, kappa=2), 1)
    node.handle(Sensed(0, 0))
    assert refusal(node, Kind.STATE, 9, 0, 0, 0) == "STATE of agent 9, round 0, step 0: does not come this way"
    assert refusal(node, Kind.STATE, 3, 0, 0, 1) == "STATE of agent 3, round 0, step 0: hop budget 1, expected 0"
    assert node.handle(Arrived(Kind.STATE, 3, 0, 0, 0)) == []
    assert refusal(node, Kind.STATE, 3, 0, 0, 0) == "STATE of agent 3, round 0, step 0: came twice"
    assert refusal(node, Kind.STATE, 2, 1, 0, 1).endswith("out of time, agent 1 is at round 0, step 0")
    assert refusal(node, Kind.BOOTSTRAP, 2, 1, 0, 1).endswith("does not come this way")


def test_a_message_one_step_early_is_kept_until_its_time() -> None:
    node = lone(line(2, steps=2), 0)
    node.handle(Sensed(0, 0))
    assert node.handle(Arrived(Kind.STATE, 1, 0, 1, 0)) == []
    assert node.handle(Arrived(Kind.STATE, 1, 0, 0, 0)) == [Act(0, 0)]
    assert node.handle(Sensed(0, 1)) == [Send(Kind.STATE, 0, 1, 0, 1, 0, True), Act(0, 1)]


def silence(node: Protocol) -> str:
    (effect,) = node.handle(DeadlinePassed())
    assert isinstance(effect, GiveUp)
    return effect.reason


def test_a_passed_deadline_names_whoever_was_silent() -> None:
    node = lone(line(4, kappa=2, factor="khop", steps=1, rounds=1), 1)
    assert silence(node) == "agent 1, sensing in round 0, step 0: received nothing in time from the world"
    node.handle(Sensed(0, 0))
    assert silence(node) == "agent 1, gathering in round 0, step 0: received nothing in time from agents [0, 2, 3]"
    node.handle(Arrived(Kind.STATE, 2, 0, 0, 1))
    assert silence(node).endswith("from agents [0, 3]")
    node.handle(Arrived(Kind.STATE, 0, 0, 0, 1))
    node.handle(Arrived(Kind.STATE, 3, 0, 0, 0))
    node.handle(Sensed(1, 0))
    assert silence(node).startswith("agent 1, closing in round 0")
    assert silence(node).endswith("from agents [0, 2, 3]")
    for origin, hops in ((0, 1), (2, 1), (3, 0)):
        node.handle(Arrived(Kind.BOOTSTRAP, origin, 0, 0, hops))
    node.handle(ValuesLearned())
    assert silence(node).startswith("agent 1, waiting for ratios in round 0")
    assert silence(node).endswith("from agents [0]")  # the only earlier one in the order; 2 and 3 come later


def test_an_event_that_cannot_be_is_our_own_mistake_and_told_with_the_story() -> None:
    node = lone(line(2), 0)
    with pytest.raises(AssertionError, match=r"agent 0, sensing in round 0, step 0: PolicyLearned\(\) does not belong here"):
        node.handle(PolicyLearned())
    with pytest.raises(AssertionError, match="the world showed round 0, step 1"):
        node.handle(Sensed(0, 1))


def test_a_run_that_only_acts_sends_nothing_but_states() -> None:
    network = Network(line(3, factor="global", reward="khop_mean", learns=False))
    network.run(chooser(0, -1))
    network.check_end()
    assert {kind for kind, _ in network.crossings} == {Kind.STATE}
