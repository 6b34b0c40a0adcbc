"""From what a file lists to the graph of a run: ids, labels, what is merged, parts, places, delays, rates, contacts."""

import contextlib
import json
import math
import re
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scenarios.schema import Topology
from topology.deployment import Deployment, graph_fields
from topology.graph.drawing import layout
from topology.graph.given import GraphError, from_networkx, read_graph


def of(tmp_path: Path, content: str, name: str = "g.edges", **keys: Any) -> nx.Graph:
    (tmp_path / name).write_text(content, encoding="utf-8")
    return read_graph(Topology(kind="file", file=str(tmp_path / name), **keys))


def labels(graph: nx.Graph) -> list[str]:
    return [graph.nodes[i].get("label", str(i)) for i in graph]


def test_nodes_that_are_numbered_keep_their_numbers_and_others_are_numbered_in_order(tmp_path: Path) -> None:
    numbered = of(tmp_path, "2 1\n0 1\n")
    assert set(numbered.edges) == {(0, 1), (1, 2)}
    assert not nx.get_node_attributes(numbered, "label")
    assert labels(of(tmp_path, "2 1\n3 1\n")) == ["2", "1", "3"]
    assert labels(of(tmp_path, "007 1\n1 0\n")) == ["007", "1", "0"]


def test_edges_that_join_the_same_nodes_become_one_and_one_sentence_counts_them(tmp_path: Path) -> None:
    graph = of(tmp_path, "0 1\n1 0\n1 1\n0 1\n1 2\n")
    assert set(graph.edges) == {(0, 1), (1, 2)}
    assert graph.graph["notes"] == (
        "5 edges given, 2 undirected edges in the graph: 2 merged with another edge of the same two nodes, "
        "1 from a node to itself dropped",
    )
    directed = from_networkx(nx.MultiDiGraph([(0, 1), (1, 0), (1, 2)]))
    assert set(directed.edges) == {(0, 1), (1, 2)}
    assert directed.graph["notes"][0].startswith("3 directed edges given, 2 undirected edges in the graph: 1 merged")
    assert of(tmp_path, "0 1\n1 2\n").graph["notes"] == ()


def test_of_a_graph_in_parts_the_largest_can_be_kept(tmp_path: Path) -> None:
    text = "a b\nx y\ny z\nq\n"
    with pytest.raises(GraphError, match=re.escape("falls into 3 parts of 3, 2, 1 nodes, expected a connected graph; set topology.component: largest to keep the part of 3")):  # fmt: skip  # noqa: E501
        of(tmp_path, text)
    kept = of(tmp_path, text, component="largest")
    assert (labels(kept), list(kept.edges)) == (["x", "y", "z"], [(0, 1), (1, 2)])
    assert kept.graph["notes"] == ("the graph falls into 3 parts of 3, 2, 1 nodes; the largest is kept",)
    assert labels(of(tmp_path, "c d\na b\n", component="largest")) == ["c", "d"], "of parts of one size the first"


def test_labels_are_one_line_each_and_no_two_are_alike() -> None:
    graph = nx.path_graph(6)
    names = ["Cork", "Cork", "a\x1b[31m\nb", "", "x" * 100, "\ud800"]
    nx.set_node_attributes(graph, dict(enumerate(names)), "Label")
    assert labels(from_networkx(graph)) == ["Cork (0)", "Cork (1)", "a [31m b", "3", "x" * 59 + "…", "5"]
    alike = from_networkx(nx.Graph([("y" * 99 + "1", "y" * 99 + "2")]))
    assert labels(alike) == ["y" * 59 + "… (0)", "y" * 59 + "… (1)"]


def test_a_networkx_graph_may_have_any_names() -> None:
    grid = from_networkx(nx.grid_2d_graph(2, 2))
    assert labels(grid) == ["(0, 0)", "(0, 1)", "(1, 0)", "(1, 1)"]
    numbers = from_networkx(nx.Graph([(np.int64(5), np.int64(7))]))
    assert labels(numbers) == ["5", "7"]
    with pytest.raises(GraphError, match="graph: has a node named frozenset"):
        from_networkx(nx.Graph([(frozenset({1}), 0)]))


@pytest.mark.parametrize(
    "attributes",
    [
        {"Longitude": -3.0, "Latitude": 0.0}, {"lon": "-3", "lat": "0"}, {"lng": -3, "lat": 0}, {"x": "-3.0", "y": "0"},
        {"pos": [-3, 0]}, {"pos": np.array([-3, 0])}, {"pos": "-3,0!"}, {"graphics": {"x": -3, "y": 0.0, "w": 9}},
    ],
)  # fmt: skip
def test_places_are_found_under_the_names_that_people_use(attributes: dict[str, Any]) -> None:
    graph = nx.path_graph(2)
    graph.nodes[0].update(attributes)
    assert from_networkx(graph).nodes[0]["pos"] == (-3.0, 0.0)


def test_degrees_of_longitude_shrink_with_latitude_and_pages_grow_downwards() -> None:
    graph = nx.path_graph(2)
    nx.set_node_attributes(graph, {0: {"lon": 10, "lat": 60}, 1: {"lon": 20, "lat": 60}})
    assert from_networkx(graph).nodes[1]["pos"] == pytest.approx((10.0, 60.0))
    nx.set_node_attributes(page := nx.path_graph(2), {0: {"graphics": {"x": 1, "y": 5}}})
    assert from_networkx(page).nodes[0]["pos"] == (1, -5)


def test_nodes_without_a_place_stand_beside_their_neighbours_and_none_covers_another() -> None:
    graph = nx.Graph([(0, 1), (1, 2), (2, 3), (2, 4), (4, 5), (0, 6)])
    nx.set_node_attributes(graph, {0: (0, 0), 2: (10, 0), 6: (0, 0)}, "pos")
    found = from_networkx(graph)
    assert "4 of 7 nodes have no place" in found.graph["notes"][0]
    places = layout(found)
    assert (places[0], places[1], places[2]) == ((0, 0), (5, 0), (10, 0))
    apart = [math.dist(places[i], places[j]) for i in places for j in places if i < j]
    assert min(apart) > 0.2
    assert all(math.dist(places[i], places[2]) < 2 for i in (3, 4, 5))


def test_delays_and_rates_come_from_attributes_in_their_units() -> None:
    graph = nx.MultiGraph()
    graph.add_edge("a", "b", dist="100", speed=1e9)
    graph.add_edge("b", "a", dist=300.0, speed=2e9)
    graph.add_edge("b", "c", dist=0)
    keys = {
        "delay_from": {"attribute": "dist", "unit": "km"},
        "rate_from": {"attribute": "speed", "unit": "bit/s", "factor": 0.5},
    }
    found = from_networkx(graph, Topology.model_validate(keys))
    assert found.edges[0, 1] == {"latency_ms": pytest.approx(0.5), "rate_bps": 1e9}, "the least delay, the greatest rate"
    assert found.edges[1, 2] == {"latency_ms": 0.0}
    assert found.graph["notes"][1:] == (
        "the delay of 2 of 2 edges is taken from dist [km]",
        "the rate of 1 of 2 edges is taken from speed [bit/s]; the others have it from network",
    )


def test_attributes_that_are_no_delay_or_rate_are_refused(subtests: pytest.Subtests) -> None:
    rows: list[tuple[dict[str, Any], str, str]] = [
        (
            {"dist": 1},
            "delay_from",
            "delay_from.attribute: got 'delay'; no edge has it, the attributes of edges are: dist",
        ),
        ({}, "rate_from", "no edge has it, the attributes of edges are: none"),
        ({"delay": "10 Gbps"}, "delay_from", "which is '10 Gbps' [ms] on the edge Oslo – Voss; expected 0 to 1e+06 s"),
        ({"delay": -1}, "delay_from", "which is -1 [ms] on the edge Oslo – Voss"),
        ({"delay": 0}, "rate_from", "which is 0 [Mbit/s] on the edge Oslo – Voss; expected above 0 to 1e+15 bit/s"),
        ({"delay": 1e308}, "rate_from", "which is 1e+308 [Mbit/s]"),
        ({"delay": True}, "delay_from", "which is True [ms] on the edge"),
    ]
    for attributes, key, told in rows:
        with subtests.test(attributes=attributes, key=key):
            graph = nx.Graph()
            graph.add_edge("Oslo", "Voss", **attributes)
            unit = {"delay_from": "ms", "rate_from": "Mbit/s"}[key]
            with pytest.raises(GraphError, match=re.escape(told)):
                from_networkx(graph, Topology.model_validate({key: {"attribute": "delay", "unit": unit}}))


# Contacts ------------------------------------------------------------------------------------------------------------------


def scheduled(tmp_path: Path, content: str, **keys: Any) -> nx.Graph:
    (tmp_path / "c.csv").write_text(content)
    return read_graph(Topology(kind="file", schedule=str(tmp_path / "c.csv"), **keys))


@pytest.mark.parametrize(
    "content",
    [
        "# passes\n0 5 s1 s2\n3 7.5 s2 s1\n20 inf s1 s2\n4 9 s2 s3\n",
        "a,b,from_s,until_s\ns1,s2,0,7.5\ns1,s2,20,\ns2,s3,4,9\n",
        "source\ttarget\tstart\tend\ns1\ts2\t0\t7.5\ns1\ts2\t20\t-\ns2\ts3\t4\t9\n",
    ],
)
def test_contact_lists_give_the_union_of_their_edges(tmp_path: Path, content: str) -> None:
    graph = scheduled(tmp_path, content)
    assert labels(graph) == ["s1", "s2", "s3"]
    assert nx.get_edge_attributes(graph, "contacts") == {(0, 1): ((0, 7.5), (20, math.inf)), (1, 2): ((4, 9),)}
    assert graph.graph["notes"] == ("2 of 2 edges can be used in their contacts alone",)


def test_snapshots_hold_until_the_next_and_the_last_for_ever(tmp_path: Path) -> None:
    graph = scheduled(tmp_path, "time_s,a,b\n0,0,1\n0,1,2\n10,0,1\n15,1,2\n")
    assert nx.get_edge_attributes(graph, "contacts") == {(0, 1): ((0, 15),), (1, 2): ((0, 10), (15, math.inf))}


def test_a_schedule_limits_edges_of_a_file_and_adds_some(tmp_path: Path) -> None:
    (tmp_path / "c.txt").write_text("1 2 b c\n3 4 c a\n")
    graph = of(tmp_path, "a b\nb c\n", schedule=str(tmp_path / "c.txt"), schedule_period_s=10)
    assert {edge: graph.edges[edge].get("contacts") for edge in graph.edges} == {
        (0, 1): None, (0, 2): ((3, 4),), (1, 2): ((1, 2),)
    }  # fmt: skip
    assert graph.graph["period_s"] == 10
    assert graph.graph["notes"] == ("2 of 3 edges can be used in their contacts alone, repeated every 10 s",)


def test_what_is_wrong_with_a_schedule_is_one_line(tmp_path: Path, subtests: pytest.Subtests) -> None:
    rows: list[tuple[str, dict[str, Any], str]] = [
        ("", {}, "c.csv has no contacts, expected lines: from_s until_s a b"),
        ("0 5 a\n", {}, "c.csv line 1: got 3 fields, expected 4"),
        ("0 5 a b\n5 4 a b\n", {}, "c.csv line 2: got a contact until 4 s, expected an end later than 5 s"),
        ("0 5 a b\n-1 4 a b\n", {}, "c.csv line 2: got '-1', expected seconds of 0 or more"),
        ("0 5 a a\n", {}, "c.csv line 1: got '0 5 a a', expected two different nodes"),
        ("when,a,b\n0,a,b\n", {}, "c.csv line 1: got 'when,a,b', expected: from_s until_s a b, or a first line"),
        ("0 12 a b\n", {"schedule_period_s": 10}, "topology.schedule_period_s: got 10; a contact of 'a' and 'b' reaches to 12 s"),
        ("0 1 a b\n0 1 c d\n", {}, "c.csv falls into 2 parts of 2, 2 nodes"),
    ]
    for content, keys, told in rows:
        with subtests.test(told=told):
            with pytest.raises(GraphError, match=re.escape(told)) as caught:
                scheduled(tmp_path, content, **keys)
            assert str(caught.value).startswith("topology.schedule")


@settings(max_examples=50)
@given(data=st.one_of(st.binary(max_size=60), st.text("01ab .,-\n#inft_s", max_size=60).map(str.encode)))
def test_any_bytes_give_contacts_or_a_graph_error(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "c"
    path.write_bytes(data)
    with contextlib.suppress(GraphError):
        graph = read_graph(Topology(kind="file", schedule=str(path), component="largest"))
        assert all(begin < end for _, _, contacts in graph.edges(data="contacts") for begin, end in contacts)


def test_a_schedule_names_nodes_of_its_file(tmp_path: Path) -> None:
    (tmp_path / "c.txt").write_text("0 5 a z\n")
    with pytest.raises(GraphError, match=r"topology\.schedule: .*c\.txt has a node 'z', which is not among the nodes"):
        of(tmp_path, "a b\n", schedule=str(tmp_path / "c.txt"))


def test_a_deployment_keeps_all_that_a_graph_carries(tmp_path: Path) -> None:
    document = {
        "nodes": [{"id": "a", "pos": [1, 2]}, {"id": "b"}, {"id": "c"}],
        "edges": [{"source": "a", "target": "b", "d": 1, "r": 2}, {"source": "b", "target": "c", "d": 3}],
    }
    (tmp_path / "c.txt").write_text("0 5 a b\n7 inf a b\n")
    keys: dict[str, Any] = {"delay_from": {"attribute": "d", "unit": "ms"}, "rate_from": {"attribute": "r", "unit": "kbit/s"}}
    graph = of(tmp_path, json.dumps(document), "g.json", schedule=str(tmp_path / "c.txt"), schedule_period_s=9, **keys)
    deployment = Deployment(obs_dims=(1,) * 3, act_dims=(1,) * 3, cost_limits=(), dt=1.0, **graph_fields(graph))
    deployment.write(tmp_path)
    again = Deployment.read(tmp_path).graph()
    assert again.graph == graph.graph
    assert dict(again.nodes(data=True)) == dict(graph.nodes(data=True))
    assert {edge: again.edges[edge] for edge in again.edges} == {edge: graph.edges[edge] for edge in graph.edges}
    assert graph_fields(again) == graph_fields(graph)
