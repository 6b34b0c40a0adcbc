"""Schedules: stages of a link, events, faults by chance that depend on nothing but seed and place, and mistakes told early."""

import math
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scenarios.schema import Edge, Network
from topology.link.model import Fate, LinkModel
from topology.link.presets import named
from topology.link.schedule import Downtime, Schedule


def schedule(graph: Any = None, seed: int = 0, **network: Any) -> Schedule:
    return Schedule(Network.model_validate(network), graph if graph is not None else nx.path_graph(4), seed)


def fate(model: LinkModel, *moments: float) -> list[Fate]:
    found = []
    for moment in moments:
        passage = model.carry(1, np.array([float(moment)]), reliable=False)
        found.append(Fate(int(passage.fate[0])))
    return found


OK, OUT, OFF, CRASH = Fate.ARRIVES, Fate.OUTAGE, Fate.NOT_SENT, Fate.CRASH

# -------------------------------------------------------------------------------------------------------------------- stages


def test_an_ideal_network_is_known_to_be() -> None:
    assert schedule().is_ideal
    assert schedule(events=[{"do": "slow", "agent": 0, "factor": 2, "from_s": 0}]).is_ideal
    for values in (
        {"preset": "lan"},
        {"latency_ms": 1},
        {"edges": [{"between": [1, 2], "loss_prob": 0.1}]},
        {"events": [{"do": "change", "from_s": 5, "rate_bps": 1000}]},
        {"events": [{"do": "outage", "between": [0, 1], "from_s": 5}]},
        {"events": [{"do": "crash", "agent": 3, "from_s": 5}]},
        {"random_outages": {"mean_up_s": 1, "mean_down_s": 1}},
        {"churn": {"mean_on_s": 1, "mean_off_s": 1}},
    ):
        assert not schedule(**values).is_ideal


def test_a_preset_starts_afresh_and_attributes_change_what_holds() -> None:
    plan = schedule(
        preset="lan",
        latency_ms=7,
        edges=[
            {"between": [0, 1], "loss_prob": 0.1},
            {"between": [2, 1], "preset": "lte", "one_way": True},
            {"between": [1, 2], "retries": 3},
        ],
    )
    (_, first), *rest = plan.segments(0, 1)
    assert (first.rate_bps, first.delay_s, first.loss_prob, rest) == (1e9, 0.007, 0.1, [])
    assert plan.segments(1, 0) == plan.segments(0, 1)
    (_, up), (_, down) = plan.segments(2, 1)[0], plan.segments(1, 2)[0]
    assert (up.rate_bps, up.delay_s, up.retries) == (50e6, 0.09, 3)
    assert (down.rate_bps, down.delay_s, down.retries) == (1e9, 0.007, 3)
    assert plan.segments(2, 3)[0][1].loss_prob == 0


def test_changes_hold_while_they_last_and_lie_one_on_the_other() -> None:
    plan = schedule(
        preset="lan",
        events=[
            {"do": "change", "from_s": 10, "until_s": 30, "loss_prob": 0.1},
            {"do": "change", "from_s": 20, "until_s": 40, "preset": "gprs", "between": [0, 1]},
            {"do": "change", "from_s": 35, "latency_ms": 900, "agents": [0]},
        ],
    )
    lan, gprs = named("lan"), named("gprs")
    assert [(start, spec.rate_bps, spec.loss_prob, spec.delay_s) for start, spec in plan.segments(0, 1)] == [
        (0, 1e9, 0, 0.0002),
        (10, 1e9, 0.1, 0.0002),
        (20, gprs.rate_bps, gprs.loss_prob, gprs.delay_s),
        (30, gprs.rate_bps, gprs.loss_prob, gprs.delay_s),
        (35, gprs.rate_bps, gprs.loss_prob, 0.9),
        (40, 1e9, 0, 0.9),
    ]
    assert [start for start, _ in plan.segments(2, 3)] == [0, 10, 30]
    assert plan.segments(2, 3)[2][1] == lan


def test_a_trace_may_be_the_preset(tmp_path: Path) -> None:
    (tmp_path / "up").write_text("1\n2\n")
    plan = schedule(preset=f"trace:{tmp_path / 'up'}")
    assert plan.link(0, 1, copies=1).carry(1500, np.zeros(1), reliable=False).arrive == pytest.approx([0.001])


# -------------------------------------------------------------------------------------------------------------------- events


def test_an_outage_of_an_edge_is_both_ways_unless_one_way() -> None:
    both = schedule(events=[{"do": "outage", "between": [1, 0], "from_s": 5, "until_s": 9}])
    assert fate(both.link(0, 1, 1), 4.9, 5, 8.9, 9) == fate(both.link(1, 0, 1), 4.9, 5, 8.9, 9) == [OK, OUT, OUT, OK]
    assert fate(both.link(1, 2, 1), 5) == [OK]
    one = schedule(events=[{"do": "outage", "between": [1, 0], "from_s": 5, "one_way": True}])
    assert fate(one.link(1, 0, 1), 4, 5, 1e9) == [OK, OUT, OUT]
    assert fate(one.link(0, 1, 1), 4, 5, 1e9) == [OK, OK, OK]


def test_an_outage_of_agents_takes_all_their_links() -> None:
    plan = schedule(events=[{"do": "outage", "agents": [1], "from_s": 0}])
    down = {link for link in ((0, 1), (1, 0), (1, 2), (2, 1), (2, 3), (3, 2)) if fate(plan.link(*link, 1), 1) == [OUT]}
    assert down == {(0, 1), (1, 0), (1, 2), (2, 1)}
    assert not plan.off(1, 1.0)


@pytest.mark.parametrize(("one_way", "cut"), [("none", {(1, 2), (2, 1)}), ("in", {(2, 1)}), ("out", {(1, 2)})])
def test_a_partition_cuts_the_links_between_its_sides(one_way: str, cut: set[tuple[int, int]]) -> None:
    plan = schedule(events=[{"do": "partition", "agents": [0, 1], "one_way": one_way, "from_s": 3, "until_s": 6}])
    directed = [link for a, b in nx.path_graph(4).edges for link in ((a, b), (b, a))]
    assert {link for link in directed if fate(plan.link(*link, 1), 4) == [OUT]} == cut
    assert all(fate(plan.link(*link, 1), 2, 6) == [OK, OK] for link in directed)


def test_a_crashed_agent_neither_sends_nor_hears_until_it_is_back() -> None:
    plan = schedule(events=[{"do": "crash", "agent": 1, "from_s": 5, "until_s": 9}, {"do": "crash", "agent": 1, "from_s": 20}])
    assert fate(plan.link(1, 2, 1), 4, 5, 8, 9, 20, 1e6) == [OK, OFF, OFF, OK, OFF, OFF]
    assert fate(plan.link(0, 1, 1), 4, 5, 8, 9, 20, 1e6) == [OK, CRASH, CRASH, OK, CRASH, CRASH]
    assert [plan.off(1, moment) for moment in (4.9, 5.0, 8.9, 9.0, 20.0, 1e6)] == [False, True, True, False, True, True]
    assert not plan.off(0, 6.0)


def test_slow_agents_take_their_factor_and_several_multiply() -> None:
    plan = schedule(
        events=[
            {"do": "slow", "agent": 2, "factor": 3, "from_s": 5, "until_s": 9},
            {"do": "slow", "agent": 2, "factor": 0.5, "from_s": 8},
        ]
    )
    assert [plan.slow_factor(2, moment) for moment in (4.9, 5.0, 8.0, 9.0)] == [1, 3, 1.5, 0.5]
    assert plan.slow_factor(1, 6.0) == 1


# ------------------------------------------------------------------------------------------------------------------ by chance

CHANCE: dict[str, Any] = {
    "random_outages": {"mean_up_s": 9.0, "mean_down_s": 3.0},
    "churn": {"mean_on_s": 40.0, "weibull_shape": 0.7, "mean_off_s": 10.0},
}


def down(plan: Schedule, until_s: float = 4000.0) -> dict[Any, list[bool]]:
    moments = np.arange(0.0, until_s)
    found: dict[Any, list[bool]] = {agent: [plan.off(agent, float(moment)) for moment in moments] for agent in (0, 1)}
    (outage,) = [fault for fault in plan.faults(1, 2) if fault.fate == Fate.OUTAGE]
    return found | {"edge": outage.strikes(moments, moments).tolist()}


def test_chance_takes_down_the_part_of_the_time_that_its_means_say() -> None:
    graph = nx.path_graph(60)
    moments = np.arange(0.0, 3000.0, 3.0)
    plan = schedule(graph, random_outages={"mean_up_s": 9.0, "mean_down_s": 3.0}, churn=CHANCE["churn"])
    edges = [next(f for f in plan.faults(i, i + 1) if f.fate == Fate.OUTAGE).strikes(moments, moments).mean() for i in range(59)]
    # of a cycle of 12 s a quarter, over 250 cycles an edge
    assert np.mean(edges) == pytest.approx(0.25, rel=0.03)
    late = moments[300:]  # all are on at first
    agents = [plan.faults(i, i + 1)[0].silences(late).mean() for i in range(59)]
    assert np.mean(agents) == pytest.approx(10 / 50, rel=0.1)


def test_both_directions_of_an_edge_go_down_together_and_edges_by_themselves() -> None:
    plan = schedule(random_outages=CHANCE["random_outages"])
    moments = np.arange(0.0, 500.0)
    struck = {link: plan.faults(*link)[0].strikes(moments, moments).tolist() for link in ((0, 1), (1, 0), (1, 2))}
    assert struck[0, 1] == struck[1, 0]
    assert struck[0, 1] != struck[1, 2]


def test_chance_depends_on_seed_and_place_only() -> None:
    told = down(schedule(**CHANCE))
    assert told == down(schedule(**CHANCE))
    backwards = schedule(nx.complete_graph(9), **CHANCE, preset="lan")
    for moment in (3999.0, 100.0, 2000.0):
        assert backwards.off(1, moment) == told[1][int(moment)]
    assert down(backwards) == told
    other = down(schedule(seed=1, **CHANCE))
    assert all(other[who] != told[who] for who in told)
    assert told[0] != told[1]


spans = st.lists(st.tuples(st.integers(0, 50), st.integers(1, 20)).map(lambda s: (float(s[0]), float(s[0] + s[1]))), max_size=8)


@given(spans=spans, begin=st.integers(0, 80), length=st.integers(0, 10))
def test_downtime_is_the_union_of_its_intervals(spans: list[tuple[float, float]], begin: int, length: int) -> None:
    end = begin + length
    halves = np.arange(begin, end + 0.25, 0.5)
    touched = any(start <= half < until for start, until in spans for half in halves)
    found = [Downtime(spans), Downtime(drawn=iter([*apart(spans), (1e6, 2e6)]))]
    for downtime in found:
        assert downtime.touches(np.array([float(begin)]), np.array([float(end)])).tolist() == [touched]
        assert not downtime.covers(np.array([math.inf]))[0]


def apart(spans: list[tuple[float, float]]) -> list[tuple[float, float]]:
    seconds = sorted({second for start, until in spans for second in range(int(start), int(until))})
    return [(float(second), float(second + 1)) for second in seconds]


def test_what_is_down_for_ever_has_no_end() -> None:
    downtime = Downtime([(5.0, math.inf), (1.0, 2.0), (7.0, 9.0)])
    assert downtime.covers(np.array([0.0, 1.0, 2.0, 5.0, 1e12, math.inf])).tolist() == [False, True, False, True, True, False]


# ----------------------------------------------------------------------------------------------------------------- mistakes


def test_what_cannot_be_is_told_when_the_schedule_is_made_or_its_links_are_asked_for(subtests: pytest.Subtests) -> None:
    rows: list[tuple[dict[str, Any], str]] = [
        ({"preset": "lann"}, "network.preset: got 'lann', did you mean 'lan'?"),
        ({"preset": "trace:nowhere"}, "network.preset: nowhere: does not exist"),
        ({"jitter_ms": 3}, "network.jitter_ms: got 3.0"),
        ({"loss_prob": 0.9, "loss_burst": 2}, "network.loss_prob: got 0.9 in bursts of 2.0"),
        ({"edges": [{"between": [0, 1]}, {"between": [0, 2]}]}, "network.edges[1].between: got [0, 2]; no edge joins them, the "),
        ({"edges": [{"between": [0, 4]}]}, "network.edges[0].between: got 4; the agents are 0..3"),
        ({"edges": [{"between": [0, 1], "preset": "x"}]}, "network.edges[0].preset: got 'x'"),
        (
            {"preset": "wan", "edges": [{"between": [0, 1], "latency_ms": 1}]},
            "network.edges[0].latency_ms: got 1.0; delays would",
        ),
        ({"events": [{"do": "outage", "between": [3, 1], "from_s": 1}]}, "network.events[0].between: got [3, 1]; no edge joins"),
        ({"events": [{"do": "change", "between": [3, 1], "from_s": 1}]}, "network.events[0].between: got [3, 1]; no edge joins"),
        ({"events": [{"do": "outage", "agents": [1, 7], "from_s": 1}]}, "network.events[0].agents: got 7; the agents are 0..3"),
        ({"events": [{"do": "change", "agents": [7], "from_s": 1}]}, "network.events[0].agents: got 7"),
        ({"events": [{"do": "partition", "agents": [4], "from_s": 1}]}, "network.events[0].agents: got 4"),
        ({"events": [{"do": "partition", "agents": [3, 2, 1, 0], "from_s": 1}]}, "these are all agents, expected some"),
        ({"events": [{"do": "crash", "agent": 4, "from_s": 1}]}, "network.events[0].agent: got 4; the agents are 0..3"),
        ({"events": [{"do": "slow", "agent": 4, "factor": 2, "from_s": 1}]}, "network.events[0].agent: got 4"),
        ({"events": [{"do": "change", "preset": "x", "from_s": 1}]}, "network.events[0].preset: got 'x'"),
        ({"events": [{"do": "change", "jitter_ms": 9, "from_s": 1}]}, "network.events[0].jitter_ms: got 9.0"),
    ]
    for network, told in rows:
        with subtests.test(network=network):
            with pytest.raises(ValueError) as error:
                _ = schedule(**network).is_ideal
            assert told in str(error.value)
            assert "\n" not in str(error.value)


def test_a_link_has_the_stream_of_its_ends_unless_told() -> None:
    def arrivals(plan: Schedule, src: int, dst: int, stream: tuple[int, ...] | None = None) -> bytes:
        found: bytes = plan.link(src, dst, 3, stream).carry(1, np.zeros(3), reliable=False).arrive.tobytes()
        return found

    plan = schedule(preset="wifi-campus")
    assert arrivals(plan, 0, 1) == arrivals(plan, 0, 1) == arrivals(schedule(preset="wifi-campus"), 0, 1, (0, 1))
    told = {
        arrivals(plan, 0, 1), arrivals(plan, 1, 0), arrivals(plan, 0, 1, (0, 3, 0, 1)),
        arrivals(schedule(preset="wifi-campus", seed=1), 0, 1),
    }  # fmt: skip
    assert len(told) == 4
    with pytest.raises(KeyError):
        plan.link(0, 3, 1)


# From the graph's file -----------------------------------------------------------------------------------------------------


def contact_fates(contacts: tuple[tuple[float, float], ...], period_s: float | None, moments: list[float]) -> list[bool]:
    graph = nx.Graph(period_s=period_s)
    graph.add_edge(0, 1, contacts=contacts)
    graph.add_edge(1, 2)
    schedule = Schedule(Network(), graph, seed=0)
    found = [schedule.link(*link, copies=len(moments)).carry(100, np.array(moments), reliable=False) for link in ((0, 1), (1, 0))]
    assert (found[0].fate == found[1].fate).all()
    assert set(np.unique(found[0].fate)) <= {Fate.ARRIVES, Fate.OUTAGE}
    always = schedule.link(1, 2, copies=1).carry(100, np.array([50.0]), reliable=False)
    assert always.fate[0] == Fate.ARRIVES
    return [fate == Fate.ARRIVES for fate in found[0].fate]


def test_an_edge_carries_in_its_contacts_alone() -> None:
    contacts = ((1.0, 2.0), (4.0, math.inf))
    assert contact_fates(contacts, None, [0.0, 0.9, 1.0, 1.9, 2.0, 3.9, 4.0, 1e6]) == [
        False, False, True, True, False, False, True, True
    ]  # fmt: skip
    assert contact_fates(((0.0, math.inf),), None, [0.0, 1e9]) == [True, True]
    assert contact_fates(((0.0, 3.0),), None, [0.0, 3.0, 1e9]) == [True, False, False]


def test_contacts_repeat_after_their_period() -> None:
    for contacts in (((1.0, 2.0), (4.0, 5.0)), ((0.0, 2.0), (4.0, 5.0)), ((1.0, 2.0), (4.0, 10.0)), ((0.0, 10.0),)):
        moments = [number / 4 for number in range(200)]
        expected = [any(start <= moment % 10 < end for start, end in contacts) for moment in moments]
        assert contact_fates(contacts, 10.0, moments) == expected


def test_delays_and_rates_of_the_graphs_file_hold_unless_the_scenario_says_otherwise() -> None:
    graph = nx.Graph()
    graph.add_edge(0, 1, latency_ms=3.0)
    graph.add_edge(1, 2, latency_ms=4.0, rate_bps=5e6)
    edges = (Edge(between=(1, 2), latency_ms=9.0, one_way=True),)
    schedule = Schedule(Network(preset="lan", edges=edges), graph, seed=0)
    (_, first), (_, there), (_, back) = (schedule.segments(*link)[0] for link in ((1, 0), (1, 2), (2, 1)))
    assert (first.delay_s, first.rate_bps) == (0.003, 1e9)
    assert (there.delay_s, there.rate_bps, back.delay_s, back.rate_bps) == (0.009, 5e6, 0.004, 5e6)
