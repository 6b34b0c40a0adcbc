"""Graphs by name and from files: shapes, determinism, and a one-line answer to everything that is wrong."""

import re
from pathlib import Path
from typing import Any

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scenarios.schema import Topology
from topology.graph.generators import build
from topology.graph.given import GraphError

CHAIN = [(0, 1), (1, 2), (0, 3), (3, 4), (4, 5)]
GENERATED = ["line", "ring", "star", "complete", "grid", "tree"]
RANDOM = ["erdos_renyi", "watts_strogatz", "barabasi_albert", "random_geometric"]


def edges(graph: nx.Graph) -> set[tuple[int, int]]:
    return {(min(edge), max(edge)) for edge in graph.edges}


def is_sound(graph: nx.Graph, n: int) -> bool:
    return (
        type(graph) is nx.Graph
        and list(graph) == list(range(n))
        and nx.number_of_selfloops(graph) == 0
        and nx.is_connected(graph)
    )


@given(kind=st.sampled_from(GENERATED), n=st.integers(1, 40))
def test_every_regular_kind_is_connected_on_ascending_nodes_for_any_n(kind: Any, n: int) -> None:
    assert is_sound(build(Topology(kind=kind), n, []), n)


@given(kind=st.sampled_from(RANDOM), n=st.integers(1, 30), seed=st.integers(0, 2**40))
def test_random_kinds_are_connected_and_depend_on_their_seed_alone(kind: Any, n: int, seed: int) -> None:
    settings: dict[str, Any] = {"edge_prob": 0.5, "degree": 2, "rewire_prob": 0.1, "attach": 1, "radius": 0.8}
    spec = Topology(kind=kind, seed=seed, **settings)
    if kind == "watts_strogatz" and n == 2:
        with pytest.raises(GraphError, match="must be below 2"):
            build(spec, n, [])
        return
    graph = build(spec, n, [])
    assert is_sound(graph, n)
    again = build(spec, n, CHAIN)
    assert list(graph.edges) == list(again.edges)


def test_shapes_of_the_regular_kinds() -> None:
    def of(n: int, **settings: Any) -> set[tuple[int, int]]:
        return edges(build(Topology(**settings), n, []))

    assert of(4, kind="line") == {(0, 1), (1, 2), (2, 3)}
    assert of(4, kind="ring") == {(0, 1), (1, 2), (2, 3), (0, 3)}
    assert of(4, kind="star") == {(0, 1), (0, 2), (0, 3)}
    assert of(4, kind="complete") == {(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)}
    assert of(6, kind="grid") == {(0, 1), (1, 2), (3, 4), (4, 5), (0, 3), (1, 4), (2, 5)}
    assert of(6, kind="grid", rows=3) == {(0, 1), (2, 3), (4, 5), (0, 2), (2, 4), (1, 3), (3, 5)}
    assert of(6, kind="tree") == {(0, 1), (0, 2), (1, 3), (1, 4), (2, 5)}
    assert of(6, kind="tree", branching=3) == {(0, 1), (0, 2), (0, 3), (1, 4), (1, 5)}
    assert of(6, kind="tree", branching=1) == of(6, kind="line")


def test_one_agent_is_a_graph(subtests: pytest.Subtests) -> None:
    kind: Any
    for kind in [*GENERATED, *RANDOM, "kinematic"]:
        with subtests.test(kind=kind):
            assert is_sound(build(Topology(kind=kind), 1, []), 1)


def test_small_rings_have_no_double_edge() -> None:
    assert edges(build(Topology(kind="ring"), 2, [])) == {(0, 1)}
    assert build(Topology(kind="ring"), 3, []).number_of_edges() == 3


def test_grid_takes_the_divisor_nearest_below_the_root() -> None:
    for n, rows in ((7, 1), (12, 3), (16, 4), (30, 5)):
        grid = build(Topology(kind="grid"), n, [])
        assert nx.is_isomorphic(grid, nx.grid_2d_graph(rows, n // rows))


def test_first_try_of_a_random_graph_is_the_one_networkx_gives() -> None:
    spec = Topology(kind="erdos_renyi", edge_prob=0.6, seed=5)
    assert edges(build(spec, 12, [])) == edges(nx.gnp_random_graph(12, 0.6, seed=5))


def test_disconnected_draws_are_drawn_again() -> None:
    spec = Topology(kind="erdos_renyi", edge_prob=0.2, seed=0)
    seeds = [seed for seed in range(20) if not nx.is_connected(nx.gnp_random_graph(12, 0.2, seed=seed))]
    assert seeds
    assert all(is_sound(build(spec.model_copy(update={"seed": seed}), 12, []), 12) for seed in seeds)


def test_random_geometric_joins_exactly_the_near() -> None:
    graph = build(Topology(kind="random_geometric", radius=0.5, seed=3), 15, [])
    place = nx.get_node_attributes(graph, "pos")
    near = {
        (i, j)
        for i in graph
        for j in graph
        if i < j and sum((a - b) ** 2 for a, b in zip(place[i], place[j], strict=True)) < 0.25
    }
    assert edges(graph) == near


def test_kinematic_is_the_worlds_own_graph() -> None:
    assert edges(build(Topology(), 6, CHAIN)) == {(min(e), max(e)) for e in CHAIN}
    assert edges(build(Topology(), 2, [(1, 0), (0, 1)])) == {(0, 1)}


def test_what_cannot_be_built_says_so_in_one_line(subtests: pytest.Subtests) -> None:
    rows: list[tuple[dict[str, Any], int, list[tuple[int, int]], str]] = [
        ({"kind": "grid", "rows": 4}, 6, [], "topology.rows: got 4; it must divide the world's number of agents, 6"),
        ({"kind": "watts_strogatz", "degree": 6}, 6, [], "topology.degree: got 6; the world has 6 agents, so it must be below 6"),
        ({"kind": "watts_strogatz", "degree": 3}, 6, [], "topology.degree: got 3; it must be even"),
        ({"kind": "barabasi_albert", "attach": 6}, 6, [], "topology.attach: got 6; the world has 6 agents"),
        (
            {"kind": "erdos_renyi", "edge_prob": 0.001},
            6,
            [],
            "topology.edge_prob: got 0.001; none of 100 erdos_renyi graphs on 6",
        ),
        ({"kind": "random_geometric", "radius": 0.001}, 6, [], "topology.radius: got 0.001; none of 100"),
        ({"kind": "kinematic"}, 3, [], "topology.kind: got kinematic; this world couples none of its 3 agents"),
        ({"kind": "kinematic"}, 4, [(0, 1), (2, 3)], "falls into 2 parts of 2, 2 nodes"),
        ({"kind": "kinematic"}, 2, [(0, 2)], "edge (0, 2) does not join two of the agents 0..1"),
        ({"kind": "kinematic"}, 2, [(1, 1)], "edge (1, 1) does not join"),
    ]
    for settings, n, kinematic, message in rows:
        with subtests.test(message=message):
            with pytest.raises(GraphError, match=re.escape(message)) as caught:
                build(Topology(**settings), n, kinematic)
            assert "\n" not in str(caught.value)


def test_no_agents_is_refused() -> None:
    with pytest.raises(ValueError, match="n: got 0"):
        build(Topology(kind="line"), 0, [])


# Files ---------------------------------------------------------------------------------------------------------------------


def test_a_file_must_have_as_many_nodes_as_the_world_has_agents(tmp_path: Path) -> None:
    path = tmp_path / "g.edges"
    path.write_text("0 1\n1 2\n")
    assert is_sound(build(Topology(kind="file", file=str(path)), 3, []), 3)
    for n, told in ((2, "g.edges has 3 nodes, the world has 2 agents"), (1, "3 nodes, the world has 1 agent")):
        with pytest.raises(GraphError, match=told):
            build(Topology(kind="file", file=str(path)), n, [])
