"""The agent's state machine: whole networks of them, in every order of delivery, honest and otherwise.

The network here is the machines with a queue per directed link, and a world that shows the next step once all have acted.
Nothing else happens by itself: what happens next is drawn.
"""

import copy
import random
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.agenda import Agenda
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
from scenarios.schema import Scenario
from topology.deployment import Deployment
from topology.neighbourhood import distances
from topology.wire import Kind

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
    seed: int = 0
    learns: bool = True

    def agendas(self) -> list[Agenda]:
        scenario = Scenario.model_validate(
            {
                "kappa": self.kappa, "kappa_unit": self.unit, "routing": self.routing, "seed": self.seed,
                "algorithm": {"factor": self.factor, "order": self.order, "critic_scope": self.critic, "reward": self.reward},
            }
        )  # fmt: skip
        deployment = Deployment(
            obs_dims=(1,) * self.n,
            act_dims=(1,) * self.n,
            cost_limits=(),
            dt=1.0,
            edges=tuple(sorted(self.edges)),
            learns=self.learns,
        )
        return [Agenda(scenario, deployment, i) for i in range(self.n)]


def line(n: int, **more: Any) -> Setting:
    return Setting(n, tuple((i, i + 1) for i in range(n - 1)), **more)


def star(n: int, **more: Any) -> Setting:
    return Setting(n, tuple((0, i) for i in range(1, n)), **more)


@st.composite
def settings(draw: st.DrawFn) -> Setting:
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
        factor=draw(st.sampled_from(["none", "khop", "global"])),
        order=draw(st.sampled_from(["fixed", "random"])),
        critic=draw(st.sampled_from(["local", "khop", "global"])),
        reward=draw(st.sampled_from(["own", "khop_mean"])),
        rounds=draw(st.integers(1, 3)),
        steps=draw(st.integers(1, 3)),
        seed=draw(st.integers(0, 9)),
        learns=draw(st.integers(0, 4)) > 0,
    )


Move = tuple[str, int, int]  # what, to whom, from whom


@dataclass
class Network:
    """The machines, the queues between them, the world, and what came of it."""

    setting: Setting
    agendas: list[Agenda] = field(init=False)
    nodes: list[Protocol] = field(init=False)
    links: dict[tuple[int, int], deque[Arrived]] = field(default_factory=lambda: defaultdict(deque))
    shown: dict[int, deque[Sensed]] = field(default_factory=lambda: defaultdict(deque))
    learning: dict[int, ValuesLearned | PolicyLearned] = field(default_factory=dict)
    acted: dict[int, list[tuple[int, int]]] = field(default_factory=lambda: defaultdict(list))
    ended: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    had: dict[int, list[Arrived]] = field(default_factory=lambda: defaultdict(list))
    improved: set[tuple[int, int]] = field(default_factory=set)
    crossings: Counter[tuple[Kind, bool]] = field(default_factory=Counter)
    after_each: Callable[["Network"], None] = lambda network: None

    def __post_init__(self) -> None:
        self.agendas = self.setting.agendas()
        self.nodes = [
            Protocol(i, rounds=self.setting.rounds, steps=self.setting.steps, routes=agenda.routes, learns=self.setting.learns)
            for i, agenda in enumerate(self.agendas)
        ]
        self._show(0, 0)

    def moves(self) -> list[Move]:
        """All that could happen next."""
        possible = [("deliver", to, src) for (src, to), queue in self.links.items() if queue]
        possible += [("sense", i, -1) for i, queue in self.shown.items() if queue]
        return possible + [("learn", i, -1) for i in self.learning]

    def make(self, move: Move) -> None:
        what, i, src = move
        if what == "deliver":
            event = self.links[src, i].popleft()
            self.had[i].append(event)
            self._carry_out(i, self.nodes[i].handle(event))
        elif what == "sense":
            self._carry_out(i, self.nodes[i].handle(self.shown[i].popleft()))
        else:
            learned = self.learning.pop(i)
            if type(learned) is PolicyLearned:
                self.improved.add((i, self.nodes[i].round))
            self._carry_out(i, self.nodes[i].handle(learned))
        self.after_each(self)

    def run(self, choose: Callable[[list[Move]], Move]) -> None:
        while moves := self.moves():
            self.make(choose(sorted(moves)))

    def _show(self, round_: int, step: int) -> None:
        for i in range(self.setting.n):
            self.shown[i].append(Sensed(round_, step))

    def _has(self, i: int, kind: Kind, round_: int, step: int) -> set[int]:
        return {event.origin for event in self.had[i] if (event.kind, event.round, event.step) == (kind, round_, step)}

    def _carry_out(self, i: int, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Send():
                    assert effect.hops_left >= 0
                    assert self.setting.routing == "direct" or tuple(sorted((i, effect.to))) in self.setting.edges
                    self.crossings[effect.kind, effect.addressed] += 1
                    self.links[i, effect.to].append(
                        Arrived(effect.kind, effect.origin, effect.round, effect.step, effect.hops_left)
                    )
                case Act(round_, step):
                    assert self.agendas[i].routes(Kind.STATE, round_).uses <= self._has(i, Kind.STATE, round_, step)
                    self.acted[i].append((round_, step))
                    if all(self.acted[j][-1:] == [(round_, step)] for j in range(self.setting.n)):
                        last = step + 1 == self.setting.steps
                        self._show(round_ + last, 0 if last else step + 1)
                case LearnValues(round_):
                    for kind in (Kind.BOOTSTRAP, Kind.REWARD):
                        assert self.agendas[i].routes(kind, round_).uses <= self._has(i, kind, round_, 0)
                    self.learning[i] = ValuesLearned()
                case LearnPolicy(round_):
                    earlier = self.agendas[i].routes(Kind.RATIO, round_).uses
                    assert earlier <= self._has(i, Kind.RATIO, round_, 0)
                    assert {(j, round_) for j in earlier} <= self.improved
                    self.learning[i] = PolicyLearned()
                case EndRound(round_):
                    self.ended[i].append(round_)
                case _:
                    pytest.fail(f"agent {i}: {effect}")

    def check_end(self) -> None:
        """All have done all their work, and no message is left over."""
        for i, node in enumerate(self.nodes):
            assert node.phase is Phase.ENDED, node.handle(DeadlinePassed())
            assert self.acted[i] == [(k, t) for k in range(self.setting.rounds) for t in range(self.setting.steps)]
            assert self.ended[i] == list(range(self.setting.rounds))
            assert not node._arrived
        assert not any(self.links.values())


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
    network.check_end()


@given(setting=settings(), choose=orders)
def test_addressed_crossings_are_as_many_as_there_are_addressees(setting: Setting, choose: Callable[[list[Move]], Move]) -> None:
    network = Network(setting)
    network.run(choose)
    rounds, agendas = range(setting.rounds), network.agendas
    for kind, per_round in ((Kind.STATE, setting.steps), (Kind.BOOTSTRAP, 1), (Kind.REWARD, 1), (Kind.RATIO, 1)):
        uses = sum(len(agenda.routes(kind, k).uses) for agenda in agendas for k in rounds)
        expected = uses * per_round if setting.learns or kind is Kind.STATE else 0
        assert network.crossings[kind, True] == expected


@given(setting=settings(), choose=orders)
def test_no_agent_learns_its_policy_beside_one_that_its_factor_depends_on(
    setting: Setting, choose: Callable[[list[Move]], Move]
) -> None:
    network = Network(setting)

    def look(network: Network) -> None:
        busy = {i for i, node in enumerate(network.nodes) if node.phase is Phase.IMPROVING}
        for i in busy:
            assert not busy & network.agendas[i].routes(Kind.RATIO, network.nodes[i].round).uses

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
        return line(3, order="random", seed=seed).agendas()[0].order(0)

    seed = next(seed for seed in range(99) if order(seed) == (0, 2, 1))
    passed: list[Arrived] = []

    def look(network: Network) -> None:
        if network.nodes[1].phase in (Phase.ESTIMATING, Phase.WAITING) and (0, 0) in network.improved:
            passed.extend(event for event in network.links[1, 2] if event.kind is Kind.RATIO and event.origin == 0)

    network = Network(line(3, kappa=2, factor="khop", rounds=1, steps=1, order="random", seed=seed), after_each=look)
    network.run(lambda moves: next((move for move in moves if move[:2] != ("learn", 1)), moves[0]))
    network.check_end()
    assert passed


# ------------------------------------------------------------------------------------------------------------- dishonest ones


def state_of(node: Protocol) -> dict[str, Any]:
    return {name: copy.deepcopy(value) for name, value in vars(node).items() if name not in ("_per_round", "_routes_of")}


def forged(network: Network, i: int, rng: random.Random) -> Arrived:
    """A message that agent i must refuse, whatever it is doing."""
    node, setting = network.nodes[i], network.setting
    hops = distances(nx.Graph([(0, 0), *setting.edges]), i)
    stranger = Arrived(rng.choice([*Kind]), rng.choice([setting.n, 65535, i]), node.round, rng.randrange(setting.steps), 0)
    choices = [stranger, Arrived(rng.choice([Kind.SENSE, Kind.ACT, Kind.JOIN]), rng.choice([*hops]), node.round, 0, 0)]
    if network.had[i]:
        old = rng.choice(network.had[i])
        choices.append(old)
        choices.append(Arrived(old.kind, old.origin, old.round, old.step, old.hops_left + rng.choice([1, -1, 7])))
        choices.append(Arrived(old.kind, old.origin, old.round, setting.steps + rng.randrange(1, 9), old.hops_left))
        ahead, step = divmod(node.step + 2 + rng.randrange(9), setting.steps)  # one step early is still accepted, two are not
        choices.append(Arrived(Kind.STATE, old.origin, node.round + ahead, step, old.hops_left))
        if old.kind is not Kind.STATE:
            choices.append(Arrived(old.kind, old.origin, node.round + 1, 0, old.hops_left))
            choices.append(Arrived(old.kind, old.origin, old.round, 1, old.hops_left))
    return rng.choice(choices)


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
    return Protocol(i, rounds=setting.rounds, steps=setting.steps, routes=setting.agendas()[i].routes)


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
    assert silence(node) == "agent 1, sensing in round 0, step 0: heard nothing in time from the world"
    node.handle(Sensed(0, 0))
    assert silence(node) == "agent 1, gathering in round 0, step 0: heard nothing in time from agents [0, 2, 3]"
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
