"""Routes: whoever follows them brings every message to its audience, and to nobody else, once, and in one order per link."""

import math
from collections import Counter
from itertools import pairwise

import networkx as nx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from topology.graph.neighbourhood import audiences, distances, visible
from topology.graph.routes import Routes, routes

Audiences = tuple[tuple[int, ...], ...]
Need = tuple[str, int] | Audiences


@st.composite
def connected(draw: st.DrawFn) -> nx.Graph:
    """A random tree on 1..9 nodes with random further edges."""
    n = draw(st.integers(1, 9))
    graph: nx.Graph = nx.Graph()
    graph.add_nodes_from(range(n))
    graph.add_edges_from((draw(st.integers(0, i - 1)), i) for i in range(1, n))
    pairs = [(i, j) for i in range(n) for j in range(i + 1, n)]
    if pairs:
        graph.add_edges_from(draw(st.lists(st.sampled_from(pairs), max_size=6)))
    return graph


@st.composite
def networks(draw: st.DrawFn) -> "tuple[nx.Graph, Need]":
    """A graph and whose message is needed by whom: by κ in hops or in agents, or any audience at all."""
    graph = draw(connected())
    n = len(graph)
    how = draw(st.sampled_from(["hops", "agents", "any"]))
    if how != "any":
        return graph, (how, draw(st.integers(how == "agents", n)))
    others = [[i for i in range(n) if i != j] for j in range(n)]
    return graph, tuple(tuple(sorted(draw(st.sets(st.sampled_from(other))))) if other else () for other in others)


def audiences_of(graph: nx.Graph, need: Need) -> Audiences:
    # called by the tests, not while drawing: checked code consults `random`, which strategies must not
    match need:
        case ("hops" | "agents" as unit, int(kappa)):
            return audiences(visible(graph, kappa, unit))
        case _:
            return need  # type: ignore[return-value]


def flood(parts: list[Routes], origin: int) -> tuple[Counter[int], list[tuple[int, int, int]]]:
    """Who got the message of `origin` how often, and what crossed which link with which budget left."""
    got: Counter[int] = Counter()
    crossed = []
    waiting = [(origin, parts[origin].hops_left.get(origin, 0))]
    while waiting:
        node, budget = waiting.pop()
        for child in parts[node].next_hops.get(origin, ()):
            crossed.append((node, child, budget - 1))
            got[child] += 1
            assert got[child] == 1, "a message went round in circles"
            waiting.append((child, budget - 1))
    return got, crossed


@given(network=networks(), direct=st.booleans())
def test_following_the_routes_reaches_exactly_those_who_await_it_once(network: "tuple[nx.Graph, Need]", direct: bool) -> None:
    graph, need = network
    needed_by = audiences_of(graph, need)
    parts = [routes(graph, i, needed_by, direct=direct) for i in graph]
    for origin in graph:
        got, crossed = flood(parts, origin)
        assert set(got) == {i for i in graph if origin in parts[i].awaited}
        assert {i for i in graph if origin in parts[i].uses} == set(needed_by[origin]) <= set(got)
        for src, dst, budget in crossed:
            assert budget == parts[dst].hops_left[origin] >= 0
            assert direct or graph.has_edge(src, dst)
            assert ((origin, dst) in parts[src].addressed) == (dst in needed_by[origin])
        addressed = [(src, dst) for src, dst, _ in crossed if (origin, dst) in parts[src].addressed]
        assert len(addressed) == len(needed_by[origin])


@given(network=networks())
def test_a_relayed_message_takes_a_shortest_path_and_its_budget_ends_with_the_farthest_member(
    network: "tuple[nx.Graph, Need]",
) -> None:
    graph, need = network
    needed_by = audiences_of(graph, need)
    parts = [routes(graph, i, needed_by, direct=False) for i in graph]
    for origin in graph:
        hops = distances(graph, origin)
        _, crossed = flood(parts, origin)
        assert all(hops[dst] == hops[src] + 1 for src, dst, _ in crossed)
        if needed_by[origin]:
            radius = max(hops[member] for member in needed_by[origin])
            assert min(budget for _, _, budget in crossed) == 0
            assert parts[origin].hops_left[origin] == radius


@given(network=networks())
def test_leaves_of_the_flood_are_members_so_that_no_link_is_crossed_in_vain(network: "tuple[nx.Graph, Need]") -> None:
    graph, need = network
    needed_by = audiences_of(graph, need)
    for i in graph:
        part = routes(graph, i, needed_by, direct=False)
        for origin in part.awaited - part.uses:
            assert part.next_hops[origin]


@given(network=networks())
def test_direct_routes_go_straight_from_origin_to_audience(network: "tuple[nx.Graph, Need]") -> None:
    graph, need = network
    needed_by = audiences_of(graph, need)
    for i in graph:
        part = routes(graph, i, needed_by, direct=True)
        assert part.awaited == part.uses == {j for j in graph if i in needed_by[j]}
        assert part.next_hops == ({i: needed_by[i]} if needed_by[i] else {})


@given(graph=connected(), kappa=st.integers(1, 9), unit=st.sampled_from(["hops", "agents"]))
def test_whoever_relays_for_a_ball_is_in_it(graph: nx.Graph, kappa: int, unit: str) -> None:
    # in agents too: what is nearer to the relay than the origin, or as near with a lower id, is so to those behind it as well
    needed_by = audiences_of(graph, (unit, kappa))
    for i in graph:
        part = routes(graph, i, needed_by, direct=False)
        assert part.awaited == part.uses


def test_between_an_origin_and_its_audience_a_node_passes_on_what_it_does_not_use() -> None:
    part = routes(nx.path_graph(3), 1, [(2,), (), ()], direct=False)
    assert part.awaited == {0}
    assert not part.uses
    assert part.next_hops == {0: (2,)}
    assert part.addressed == {(0, 2)}


@pytest.mark.parametrize("direct", [False, True])
def test_an_empty_audience_costs_nothing(direct: bool) -> None:
    part = routes(nx.path_graph(3), 1, [(), (), ()], direct=direct)
    assert not part.awaited
    assert not part.next_hops
    assert math.prod(part.hops_left.values()) == 1


@given(network=networks(), direct=st.booleans(), data=st.data())
def test_what_leaves_over_a_link_is_what_is_sent_on_there_nearest_origin_first_or_in_the_order_given(
    network: "tuple[nx.Graph, Need]", direct: bool, data: st.DataObject
) -> None:
    graph, need = network
    needed_by = audiences_of(graph, need)
    order = data.draw(st.none() | st.permutations(sorted(graph)))
    for i in graph:
        part = routes(graph, i, needed_by, direct=direct, order=order)
        expected: dict[int, list[int]] = {}
        for origin, hops in part.next_hops.items():
            for to in hops:
                expected.setdefault(to, []).append(origin)
        assert [to for to, _ in part.outgoing] == sorted(expected)
        for to, origins in part.outgoing:
            assert sorted(origins) == sorted(expected[to])
            if order is not None:
                assert [order.index(origin) for origin in origins] == sorted(order.index(origin) for origin in origins)
            else:
                come = [0 if direct else nx.shortest_path_length(graph, origin, i) for origin in origins]
                assert list(zip(come, origins, strict=True)) == sorted(zip(come, origins, strict=True))


# of two shortest ways the tree of 0 takes that through 2 and 3, the tree of 5 that through 4 and 1
HEXAGON: nx.Graph = nx.Graph({0: [1, 2], 1: [4], 2: [3], 3: [5], 4: [5], 5: []})


@given(network=networks(), direct=st.booleans())
@example(network=(HEXAGON, ("hops", 3)), direct=False)
def test_a_message_came_through_all_whom_the_flood_took_it_through(network: "tuple[nx.Graph, Need]", direct: bool) -> None:
    graph, need = network
    needed_by = audiences_of(graph, need)
    parts = [routes(graph, i, needed_by, direct=direct) for i in graph]
    assert all(part.via.keys() == part.awaited for part in parts)
    for origin in graph:
        came_from = {dst: src for src, dst, _ in flood(parts, origin)[1]}
        for i in came_from:
            crossed, at = set(), i
            while at != origin:
                at = came_from[at]
                crossed.add(at)
            assert parts[i].via[origin] == crossed


@given(network=networks(), direct=st.booleans())
def test_waiting_for_ones_turn_on_a_link_never_goes_round_in_circles(network: "tuple[nx.Graph, Need]", direct: bool) -> None:
    # a departure (link, origin) needs the message to be there, so its departure over the link before; and what goes first to go
    graph, need = network
    needed_by = audiences_of(graph, need)
    parts = [routes(graph, i, needed_by, direct=direct) for i in graph]
    before: nx.DiGraph[tuple[int, int, int]] = nx.DiGraph()
    for i, part in enumerate(parts):
        for to, origins in part.outgoing:
            before.add_edges_from(((i, to, a), (i, to, b)) for a, b in pairwise(origins))
            before.add_edges_from(
                ((i, to, origin), (to, on, origin)) for origin in origins for on in parts[to].next_hops.get(origin, ())
            )
    assert nx.is_directed_acyclic_graph(before)


def test_nearer_origins_leave_first_over_a_link_however_they_are_numbered() -> None:
    graph: nx.Graph = nx.Graph([(0, 1), (1, 3), (2, 3), (3, 4)])
    part = routes(graph, 3, [(4,), (4,), (4,), (4,), ()], direct=False)
    assert part.outgoing == ((4, (3, 1, 2, 0)),)
    assert part.via == {0: {0, 1}, 1: {1}, 2: {2}}
    assert routes(graph, 3, [(4,), (4,), (4,), (4,), ()], direct=False, order=(2, 0, 3, 1, 4)).outgoing == ((4, (2, 0, 3, 1)),)
