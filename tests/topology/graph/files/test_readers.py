"""Readers of graph files: each format with what is peculiar in it, and one line about everything that is wrong."""

import contextlib
import itertools
import json
import re
import time
from pathlib import Path
from typing import Any

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scenarios.schema import Topology
from topology.graph.given import MAX_FILE_BYTES, GraphError, read_graph

ZOO = Path(__file__).parents[3] / "data" / "graphs"
SUFFIXES = (".edges", ".csv", ".gml", ".graphml", ".json", ".m", ".xml")


def read(path: Path, **keys: Any) -> nx.Graph:
    return read_graph(Topology(kind="file", file=str(path), **keys))


def of(tmp_path: Path, name: str, content: str, **keys: Any) -> nx.Graph:
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    return read(path, **keys)


def joined(graph: nx.Graph) -> set[tuple[str, str]]:
    """Edges by the labels of their ends, in alphabetical order."""
    label = {i: graph.nodes[i].get("label", str(i)) for i in graph}
    return {(min(label[a], label[b]), max(label[a], label[b])) for a, b in graph.edges}


@pytest.mark.parametrize(
    ("name", "n", "edges", "label", "placed"),
    [
        ("Heanet.graphml", 7, 11, "Galway", 7),
        ("Abilene.gml", 11, 14, "New York", 11),
        ("polska.sndlib.json", 12, 18, "Gdansk", 12),
        ("pglib_opf_case14_ieee.m", 14, 20, "1", 0),
    ],
)
def test_published_graphs(name: str, n: int, edges: int, label: str, placed: int) -> None:
    graph = read(ZOO / name)
    assert (len(graph), graph.number_of_edges(), graph.nodes[0]["label"]) == (n, edges, label)
    assert len(nx.get_node_attributes(graph, "pos")) == placed


@settings(max_examples=20)
@given(n=st.integers(2, 9), seed=st.integers(0, 1000))
def test_graphs_that_networkx_writes_come_back(tmp_path_factory: pytest.TempPathFactory, n: int, seed: int) -> None:
    folder = tmp_path_factory.mktemp("formats")
    graph = nx.gnp_random_graph(n, 0.7, seed=seed)
    graph.add_edges_from((0, i) for i in range(1, n))
    for a, b in graph.edges:
        graph.edges[a, b]["dist"] = float(a + b)
    nx.write_edgelist(graph, folder / "g.edges")
    nx.write_graphml_xml(graph, folder / "g.graphml")
    nx.write_gml(graph, folder / "g.gml")
    for key in ("edges", "links"):
        (folder / f"{key}.json").write_text(json.dumps(nx.node_link_data(graph, edges=key)))
    for name in ("g.edges", "g.graphml", "g.gml", "edges.json", "links.json"):
        found = read(folder / name, delay_from={"attribute": "dist", "unit": "ms"})
        assert {(a, b): d["latency_ms"] for a, b, d in found.edges(data=True)} == pytest.approx({
            (min(a, b), max(a, b)): float(a + b) for a, b in graph.edges
        })
        assert list(found) == list(range(n))


EDGES = {("Ærø", "Fyn"), ("Fyn", "Zealand Sjælland")}


def test_forms_in_which_people_have_graphs(tmp_path: Path, subtests: pytest.Subtests) -> None:
    rows = [
        ("g.edges", '# islands\n\nÆrø Fyn # ferry\nFyn "Zealand Sjælland" 12.5\n', EDGES),
        ("g.edges", "Ærø\tFyn\nFyn\tZealand Sjælland\n", EDGES),
        ("g.txt", "% konect\nÆrø|Fyn|-1\nFyn|Zealand Sjælland|0\n", EDGES),
        ("g.csv", "Source;dist;Target\nÆrø;1;Fyn\nFyn;2;Zealand Sjælland\n", EDGES),
        ("g.csv", ",Ærø,Fyn,Zealand Sjælland\nÆrø,0,3,\nFyn,3,0,1\nZealand Sjælland,,1,inf\n", EDGES),
        ("g.csv", "Ærø,Fyn,Zealand Sjælland\n0,3,0\n3,0,1\n0,1,0\n", EDGES),
        ("g.csv", "Ærø,0,1,0\nFyn,1,0,1\nZealand Sjælland,0,1,0\n", EDGES),
        ("g.csv", "0,1,0\n1,0,1\n0,1,0\n", {("0", "1"), ("1", "2")}),
        ("g.csv", "0,1\n1,2\n2,3\n", {("0", "1"), ("1", "2"), ("2", "3")}),
        (
            "g.gml",
            'graph [\n node [ id 7 label "Ærø" ]\n node [ id 3 label "Fyn" ]\n edge [ source 7 target 3 ]\n]',
            {("Fyn", "Ærø")},
        ),
        (  # no namespace, a key without type, another that is declared nowhere, an attribute of mixed type
            "g.graphml",
            "<graphml><key id='d0' for='node' attr.name='label'/><graph><node id='a'><data key='d0'>Ærø</data></node>"
            "<node id='b'><data key='d0'>Fyn</data><data key='x'>1</data></node><edge source='a' target='b'/></graph></graphml>",
            {("Fyn", "Ærø")},
        ),
        (  # as yEd writes names
            "g.graphml",
            "<graphml xmlns='http://graphml.graphdrawing.org/xmlns' xmlns:y='http://www.yworks.com/xml/graphml'>"
            "<key for='node' id='d6' yfiles.type='nodegraphics' xmlns:yfiles='u'/><graph edgedefault='directed'>"
            "<node id='n0'><data key='d6'><y:ShapeNode><y:Geometry x='1.0' y='2.0'/><y:NodeLabel>Ærø<y:LabelModel/></y:NodeLabel>"
            "</y:ShapeNode></data></node><node id='n1'/><edge source='n0' target='n1'/></graph></graphml>",
            {("n1", "Ærø")},
        ),
        (  # integers beyond 64 bits, names that repeat
            "g.json",
            '{"nodes": [{"id": 123456789012345678901, "name": "Ærø"}, {"id": 5, "name": "Fyn"}, {"id": 6, "name": "Fyn"}], '
            '"links": [{"source": 123456789012345678901, "target": 5}, {"source": 5, "target": 6}]}',
            {("Fyn (5)", "Ærø"), ("Fyn (5)", "Fyn (6)")},
        ),
        ("g.json", '{"nodes": [{"name": "Ærø"}, {"name": "Fyn"}], "links": [{"source": 0, "target": 1}]}', {("Fyn", "Ærø")}),
        ("g.json", '{"nodes": [{"id": "x"}, {"id": "y"}], "links": [{"source": 1, "target": 0}]}', {("x", "y")}),
        (
            "g.cyjs",
            '{"elements": {"nodes": [{"data": {"id": "1", "name": "Ærø"}, "position": {"x": 1, "y": 2}}, {"data": {"id": "2"}}], '
            '"edges": [{"data": {"source": "1", "target": "2"}}]}}',
            {("2", "Ærø")},
        ),
        (
            "case.m",
            "mpc.bus = [ 10 3 0; 20 1 0 % a load\n 30 1 0 ];\nmpc.branch = [\n"
            "10 20 .1 .2 0 9 9 9 0 0 1;\n20 30 .1 .2 0 9 9 9 0 0 1;\n10 30 .1 .2 0 9 9 9 0 0 0;\n];\n"
            "mpc.bus_name = { 'Ærø'; 'Fyn'; 'Mors' };",
            {("Fyn", "Ærø"), ("Fyn", "Mors")},
        ),
    ]
    for name, content, edges in rows:
        with subtests.test(name=name, content=content):
            assert joined(of(tmp_path, name, content)) == {(min(edge), max(edge)) for edge in edges}


def test_lights_of_a_road_network_are_joined_by_roads_that_pass_no_other_light(tmp_path: Path) -> None:
    # A –300 m– b –200 m– C –100 m– D, b without a light; C is two junctions under one light
    def road(name: str, a: str, b: str, length: float) -> str:
        return f"<edge id='{name}' from='{a}' to='{b}'><lane id='{name}_0' length='{length}'/></edge>"

    net = (
        "<net><edge id=':A_0' function='internal'><lane length='9'/></edge>"
        + road("ab", "A", "b", 300) + road("bc", "b", "c1", 200) + road("cc", "c1", "c2", 20) + road("cd", "c2", "D", 100)
        + "<tlLogic id='A'/><tlLogic id='C'/><tlLogic id='D'/><tlLogic id='A' programID='2'/>"
        + "<junction id='A' x='0' y='0'/><junction id='b' x='300' y='0'/><junction id='c1' x='500' y='0'/>"
        + "<junction id='c2' x='520' y='0'/><junction id='D' x='620' y='0'/>"
        + "<connection from='bc' to='cc' tl='C'/><connection from='cc' to='cd' tl='C'/><connection from=':x' to='cd'/></net>"
    )  # fmt: skip
    graph = of(tmp_path, "town.net.xml", net, delay_from={"attribute": "length", "unit": "km", "factor": 0.001})
    assert joined(graph) == {("A", "C"), ("C", "D")}
    assert [graph.nodes[i]["pos"] for i in graph] == [(0, 0), (510, 0), (620, 0)]
    assert [graph.edges[edge]["latency_ms"] for edge in graph.edges] == pytest.approx([500 * 5e-6, 100 * 5e-6])


BOMB = (
    '<?xml version="1.0"?><!DOCTYPE g [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><graphml><graph><node id="&b;"/></graph></graphml>'
)


def test_what_is_wrong_with_a_file_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, subtests: pytest.Subtests
) -> None:
    rows: list[tuple[str, str | bytes, str]] = [
        ("g.edges", "", "has no nodes"),
        ("g.edges", "0 1\nthis is no graph\n", "line 2: got 'this is no graph', expected two node names"),
        ("g.edges", "0,1\n0,\n", "line 2: got '0,', expected two node names"),
        (
            "g.edges",
            "0 1\n2 3\n4 5\n5 6",
            "falls into 3 parts of 3, 2, 2 nodes, expected a connected graph; set topology",
        ),
        ("g.edges", b"\xff\xfe0", "is not UTF-8 text (byte 0)"),
        ("g.yaml", "", "ends in '.yaml', expected one of .edges, "),
        ("g", "0 1", "ends in '', expected one of"),
        ("g.csv", "source,target\n0,1,2\n", "line 2: got 3 fields, expected the 2 of the first line"),
        ("g.csv", "0,1,1,1\n1,0,1,1\n", "has 2 rows and 4 columns, expected a matrix with as many rows as columns"),
        ("g.csv", "0,1,1,1\n1,0\n1,1,0,0\n1,1,0,0\n", "line 2: got 2 entries, expected 4"),
        ("g.csv", ",a,b,c\na,0,x,0\nb,1,0,0\nc,1,0,0", "line 2: got 'x', expected a number"),
        ("g.csv", ",a,b,c\nb,0,1,1\na,1,0,1\nc,1,1,0\n", "names its rows otherwise than its columns"),
        ("g.gml", "nodes [ ]", "is not GML: it has no line 'graph ['"),
        ("g.gml", "graph [ node [ label 3 ] ]", "is not GML"),
        ("g.gml", "graph [ " + "a [ " * 5000, "is not GML"),
        ("g.graphml", BOMB, "has a DOCTYPE"),
        ("g.graphml", BOMB.encode("utf-16"), "has a DOCTYPE"),
        ("g.graphml", "<graphml><graph>", "is not GraphML: no element found"),
        ("g.graphml", '<?xml version="1.0" encoding="no-such"?><a/>', "is not GraphML"),
        ("g.graphml", "<html/>", "is not GraphML: it has no <graph>"),
        ("g.graphml", "<a>" * 1000, "is nested more than 100 deep"),
        ("g.graphml", "<graphml><graph><node/></graph></graphml>", "has a <node> without 'id'"),
        ("g.graphml", "<graphml><graph><edge source='0'/></graph></graphml>", "has an <edge> without 'target'"),
        (
            "g.graphml",
            "<graphml><graph><node id='0'/><edge source='0' target='1'/></graph></graphml>",
            "has an edge to '1',",
        ),
        ("g.graphml", "<graphml><graph/><graph/></graphml>", "has more than one <graph>"),
        ("g.graphml", "<graphml><graph><hyperedge/></graph></graphml>", "has a <hyperedge>"),
        ("g.xml", "<html/>", "begins with <html>, expected <net> of SUMO or <graphml>"),
        ("g.net.xml", "<net/>", "has no traffic light"),
        ("g.json", "{", "is not JSON"),
        ("g.json", "[" * 100_000, "is not JSON"),
        ("g.json", "[]", "is not node-link JSON: expected an object"),
        ("g.json", "{}", "is not node-link JSON: expected 'nodes' to be a list of objects"),
        ("g.json", '{"nodes": [{"id": 0}], "edges": [3]}', "expected 'edges' to be a list of objects"),
        ("g.json", '{"nodes": [{"id": 0}, {"name": 1}], "edges": []}', "has a node without 'id'"),
        ("g.json", '{"nodes": [{"id": 0}, {"id": "0"}], "edges": []}', "has two nodes named '0'"),
        (
            "g.json",
            '{"nodes": [{"id": true}], "edges": []}',
            "has a node named True, expected a text of at most 200",
        ),
        ("g.json", '{"nodes": [{"id": [[]]}], "edges": []}', "has a node named [[]]"),
        ("g.json", '{"nodes": [{"id": 0}], "edges": [{"source": 0, "target": {"id": [0]}}]}', "has an edge to '(0)'"),
        ("g.m", "mpc.branch = [1 2]", "is not a MATPOWER case: it has no 'mpc.bus = [...];'"),
        ("g.m", "mpc.bus = [1 x];", "mpc.bus: got the row '1 x', expected numbers"),
        ("g.m", "mpc.bus = [1];mpc.branch = [1 9];", "has an edge to '9', which is not among its nodes"),
    ]
    monkeypatch.chdir(tmp_path)
    for name, content, told in rows:
        with subtests.test(name=name, told=told):
            Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
            with pytest.raises(GraphError, match=re.escape(told)) as caught:
                read(Path(name))
            assert str(caught.value).startswith("topology.file: g")
            assert "\n" not in str(caught.value)
            assert len(str(caught.value)) < 220


def test_missing_folders_and_outsized_files_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(GraphError, match=r"no\.edges does not exist"):
        read(tmp_path / "no.edges")
    (tmp_path / "d.edges").mkdir()
    with pytest.raises(GraphError, match=r"d\.edges is not a regular file"):
        read(tmp_path / "d.edges")
    big = tmp_path / "big.edges"
    with big.open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    monkeypatch.setattr(Path, "read_bytes", lambda _: pytest.fail("read before its size was checked"))
    with pytest.raises(GraphError, match=f"big.edges has {MAX_FILE_BYTES + 1} bytes, expected at most {MAX_FILE_BYTES}"):
        read(big)


WORDS = st.sampled_from(
    ["graph", "[", "]", "node", "edge", "id", "source", "target", "0", "1", '"', "<graph>", "</graph>", "<net>", "<node id='0'/>",
     "{", "}", '"nodes":', '"edges":', ":", ",", "\n", " ", "mpc.bus = [", "mpc.branch = [", ";", "nan", "-1e999", "label", "é",
     "\\", "&#9;"]
)  # fmt: skip


@settings(max_examples=50)
@given(data=st.one_of(st.binary(max_size=200), st.lists(WORDS, max_size=40).map(lambda words: " ".join(words).encode())))
def test_any_bytes_give_a_graph_or_a_graph_error(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    for suffix in SUFFIXES:
        path = folder / f"g{suffix}"
        path.write_bytes(data)
        try:
            outcome: nx.Graph | str = read(path)
        except GraphError as error:
            outcome = str(error)
        assert "\n" not in outcome if isinstance(outcome, str) else nx.is_connected(outcome)


def test_large_nonsense_takes_no_long_time(tmp_path: Path, subtests: pytest.Subtests) -> None:
    for suffix, filler in itertools.product(SUFFIXES, ("[", "{", "a ", "node [ ", '"\n', "<a>", "mpc.bus = [", "1;")):
        with subtests.test(suffix=suffix, filler=filler):
            path = tmp_path / f"g{suffix}"
            path.write_text("graph [\n" * (suffix == ".gml") + filler * (50_000 // len(filler)))
            begun = time.process_time()
            with contextlib.suppress(GraphError):
                read(path)
            assert time.process_time() - begun < 2
