"""Pictures: same graph, same bytes; every node apart from the others; nothing drawn outside the page."""

import math
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import networkx as nx
import pytest

from scenarios.schema import Topology
from topology.graph.drawing import draw, layout
from topology.graph.generators import build

KINDS = [
    "line", "ring", "star", "complete", "grid", "tree", "erdos_renyi", "watts_strogatz", "barabasi_albert", "random_geometric",
]  # fmt: skip


def test_layouts_are_deterministic_finite_and_keep_nodes_apart(subtests: pytest.Subtests) -> None:
    kind: Any
    for kind in KINDS:
        for n in (1, 2, 9, 30):
            with subtests.test(kind=kind, n=n):
                graph = build(Topology(kind=kind, degree=2, attach=1, radius=1.0, edge_prob=0.5), n, []) if (kind, n) != (
                    "watts_strogatz", 2,
                ) else nx.path_graph(2)  # fmt: skip
                places = layout(graph)
                assert places == layout(graph)
                assert sorted(places) == sorted(graph)
                assert all(math.isfinite(x) and math.isfinite(y) for x, y in places.values())
                assert len(set(places.values())) == n


def test_lines_and_rings_are_laid_along_their_edges_whatever_the_ids() -> None:
    line = layout(nx.Graph([(2, 0), (0, 3), (3, 1)]))
    assert [line[i] for i in (1, 3, 0, 2)] == [(0, 0), (1, 0), (2, 0), (3, 0)]
    ring = layout(nx.Graph([(0, 2), (2, 1), (1, 3), (3, 0)]))
    assert math.dist(ring[0], ring[2]) == pytest.approx(math.dist(ring[1], ring[3])) == pytest.approx(math.sqrt(2))


def test_pictures_are_the_same_bytes_each_time(tmp_path: Path, subtests: pytest.Subtests) -> None:
    colour: Any
    for suffix in (".svg", ".png"):
        for colour in ("reach", "centre"):
            with subtests.test(suffix=suffix, colour=colour):
                graph = build(Topology(kind="tree"), 7, [])
                graph.nodes[0]["label"] = "root"
                for name in ("a", "b"):
                    draw(graph, tmp_path / f"{name}{suffix}", "seven agents", colour=colour)
                first = (tmp_path / f"a{suffix}").read_bytes()
                assert first == (tmp_path / f"b{suffix}").read_bytes()
                assert first.startswith(b"\x89PNG") == (suffix == ".png")


def test_svg_is_sound_xml_even_with_hostile_labels(tmp_path: Path) -> None:
    graph = nx.path_graph(3)
    nx.set_node_attributes(graph, {0: "</svg><script>", 1: "$\\nonsense$", 2: "東京"}, "label")
    draw(graph, tmp_path / "g.svg", "<a> & $\\x$")
    assert ElementTree.parse(tmp_path / "g.svg").getroot().tag.endswith("svg")


def test_large_graphs_are_drawn_without_scipy(tmp_path: Path) -> None:
    draw(build(Topology(kind="watts_strogatz"), 512, []), tmp_path / "g.png", "512 agents")
    assert (tmp_path / "g.png").stat().st_size > 10_000


def test_what_cannot_be_drawn_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^got g\.pdf; expected a name that ends in "):
        draw(nx.path_graph(2), tmp_path / "g.pdf", "")
    with pytest.raises(ValueError, match="not connected"):
        draw(nx.Graph([(0, 1), (2, 3)]), tmp_path / "g.png", "")
    assert not list(tmp_path.iterdir())
