"""Balls and trees against networkx's own answers, on random connected graphs."""

from itertools import pairwise

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from topology.graph import neighbourhood as nb


@st.composite
def connected(draw: st.DrawFn) -> nx.Graph:
    """A random tree on 1..14 nodes with random further edges."""
    n = draw(st.integers(1, 14))
    graph = nx.Graph()
    graph.add_nodes_from(range(n))
    graph.add_edges_from((draw(st.integers(0, i - 1)), i) for i in range(1, n))
    pairs = [(i, j) for i in range(n) for j in range(i + 1, n)]
    if pairs:
        graph.add_edges_from(draw(st.lists(st.sampled_from(pairs), max_size=12)))
    mixed = draw(st.permutations(range(n)))
    return nx.relabel_nodes(graph, dict(enumerate(mixed)))  # nodes and neighbours in no particular order


def is_ascending(ids: tuple[int, ...]) -> bool:
    return list(ids) == sorted(set(ids))


@given(graph=connected())
def test_distances_and_balls_agree_with_networkx(graph: nx.Graph) -> None:
    for i in graph:
        hops = nb.distances(graph, i)
        assert hops == nx.single_source_shortest_path_length(graph, i)
        assert list(hops) == sorted(hops)
        for k in range(len(graph) + 1):
            ball = nb.ball(graph, i, k)
            assert is_ascending(ball)
            assert set(ball) == set(nx.ego_graph(graph, i, radius=k))


@given(graph=connected())
def test_diameter_agrees_with_networkx_and_makes_every_ball_global(graph: nx.Graph) -> None:
    widest = nb.diameter(graph)
    assert widest == nx.diameter(graph)
    assert set(nb.visible(graph, widest, "hops")) == {tuple(range(len(graph)))}


@given(graph=connected(), count=st.integers(1, 16))
def test_nearest_are_the_fewest_hops_then_the_lowest_ids(graph: nx.Graph, count: int) -> None:
    for i in graph:
        chosen = nb.nearest(graph, i, count)
        hops = nx.single_source_shortest_path_length(graph, i)
        assert is_ascending(chosen)
        assert len(chosen) == min(count, len(graph))
        assert i in chosen
        rest = set(graph) - set(chosen)
        assert all((hops[j], j) < (hops[left], left) for j in chosen for left in rest)


@given(graph=connected())
def test_trees_run_along_shortest_paths_through_the_lowest_ids(graph: nx.Graph) -> None:
    for origin in graph:
        parents = nb.tree_parents(graph, origin)
        hops = nx.single_source_shortest_path_length(graph, origin)
        assert list(parents) == sorted(set(graph) - {origin})
        for j, parent in parents.items():
            assert parent == min(p for p in graph[j] if hops[p] == hops[j] - 1)
            route = nb.path(graph, origin, j)
            assert (route[0], route[-1], len(route)) == (origin, j, hops[j] + 1)
            assert nx.is_path(graph, route)
        assert nb.path(graph, origin, origin) == (origin,)


@given(graph=connected(), kappa=st.integers(0, 5))
def test_hop_visibility_is_symmetric_and_costs_one_tree_edge_per_member(graph: nx.Graph, kappa: int) -> None:
    visible = nb.visible(graph, kappa, "hops")
    heard_by = nb.audiences(visible)
    assert heard_by == tuple(tuple(j for j in ball if j != i) for i, ball in enumerate(visible))
    edges = 0
    for origin, audience in enumerate(heard_by):
        tree = nb.relay_tree(graph, origin, audience).children
        assert set(tree) == set(visible[origin])
        edges += sum(len(children) for children in tree.values())
    assert edges == sum(len(ball) - 1 for ball in visible)


@given(graph=connected(), kappa=st.integers(1, 15))
def test_every_member_hears_once_over_a_shortest_path_even_past_deaf_relays(graph: nx.Graph, kappa: int) -> None:
    visible = nb.visible(graph, kappa, "agents")
    assert visible == tuple(nb.nearest(graph, i, kappa) for i in range(len(graph)))
    for origin, audience in enumerate(nb.audiences(visible)):
        assert is_ascending(audience)
        assert set(audience) == {j for j, seen in enumerate(visible) if origin in seen and j != origin}
        tree = nb.relay_tree(graph, origin, audience).children
        arrival = {origin: 0}
        queue = [origin]
        for node in queue:
            assert is_ascending(tree[node])
            for child in tree[node]:
                assert graph.has_edge(node, child)
                assert child not in arrival, "heard twice"
                arrival[child] = arrival[node] + 1
                queue.append(child)
        assert list(tree) == sorted(arrival)
        hops = nx.single_source_shortest_path_length(graph, origin)
        assert arrival == {j: hops[j] for j in arrival}
        assert set(audience) <= set(arrival)
        assert all(node in audience or node == origin for node, children in tree.items() if not children), "a leaf nobody needs"
        for member in audience:
            route = nb.path(graph, origin, member)
            assert all(below in tree[above] for above, below in pairwise(route))


@given(graph=connected(), kappa=st.integers(0, 4), data=st.data())
def test_critical_path_is_the_longest_path_of_the_dag(graph: nx.Graph, kappa: int, data: st.DataObject) -> None:
    order = data.draw(st.permutations(sorted(graph)))
    visible = nb.visible(graph, kappa, "hops")
    dag = nx.DiGraph()
    dag.add_nodes_from(order)
    place = {i: at for at, i in enumerate(order)}
    dag.add_edges_from((j, i) for i in order for j in visible[i] if place[j] < place[i])
    assert nb.critical_path(order, visible) == nx.dag_longest_path_length(dag) + 1


def test_critical_path_at_its_ends() -> None:
    n = 6
    alone = [(i,) for i in range(n)]
    everyone = [tuple(range(n))] * n
    assert nb.critical_path(range(n), alone) == 1
    assert nb.critical_path(range(n), everyone) == n
    assert nb.critical_path([], everyone) == 0
    # odd agents first: on a line at one hop they are out of each other's sight, so two waves do
    assert nb.critical_path([1, 3, 5, 0, 2, 4], nb.visible(nx.path_graph(n), 1, "hops")) == 2


def test_kinematic_graph_of_the_half_cheetah_has_the_known_balls() -> None:
    cheetah = nx.Graph([(0, 1), (1, 2), (0, 3), (3, 4), (4, 5)])
    assert nb.diameter(cheetah) == 5
    assert [len(ball) for ball in nb.visible(cheetah, 1, "hops")] == [3, 3, 2, 3, 3, 2]
    assert [len(nb.ball(cheetah, i, 2)) for i in range(3)] == [5, 4, 3]


def test_ties_go_to_the_lower_id() -> None:
    ring = nx.cycle_graph(4)
    assert nb.path(ring, 0, 2) == (0, 1, 2)
    assert nb.path(ring, 3, 1) == (3, 0, 1)
    assert nb.nearest(ring, 2, 2) == (1, 2)


def test_nobody_to_hear_is_a_tree_of_one() -> None:
    graph = nx.path_graph(3)
    assert nb.relay_tree(graph, 1, []).children == {1: ()}
    assert nb.relay_tree(graph, 1, [1]).children == {1: ()}


def test_wrong_questions_are_refused() -> None:
    split = nx.Graph([(0, 1), (2, 3)])
    with pytest.raises(ValueError, match="agent: got 9"):
        nb.distances(split, 9)
    with pytest.raises(ValueError, match="kappa: got -1"):
        nb.ball(split, 0, -1)
    with pytest.raises(ValueError, match="count: got 0"):
        nb.nearest(split, 0, 0)
    with pytest.raises(ValueError, match="not connected"):
        nb.diameter(split)
    with pytest.raises(ValueError, match="no nodes"):
        nb.diameter(nx.Graph())
    with pytest.raises(ValueError, match="got 3; not reachable from 0"):
        nb.path(split, 0, 3)
    with pytest.raises(ValueError, match="got 3; not reachable from 0"):
        nb.relay_tree(split, 0, [1, 3])
