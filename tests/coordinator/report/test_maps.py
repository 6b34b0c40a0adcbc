"""Maps: what is drawn for what a link carried, and on which side."""

import re
from collections.abc import Mapping
from xml.etree import ElementTree

import networkx as nx
import numpy as np
import pytest
from numpy.typing import NDArray

from coordinator.report.maps import LEVELS, levels, traffic_map

LINE = nx.path_graph(3)


def drawn(
    links: Mapping[tuple[int, int], NDArray[np.float64]], lengths: list[int], most: float, graph: nx.Graph = LINE
) -> dict[str, ElementTree.Element]:
    """Links by what they are called, such as `0 → 1`."""
    root = ElementTree.fromstring(traffic_map(graph, links, np.array(lengths, dtype=np.int64), most, "a map"))
    return {(path.findtext("title") or "").partition(":")[0]: path for path in root.iter("path")}


def test_levels_are_equal_parts_of_the_range_and_nothing_is_apart() -> None:
    rates = np.array([0.0, 1e-9, 10.0, 10.1, 59.9, 60.0])
    assert levels(rates, 60.0).tolist() == [0, 1, 1, 2, LEVELS, LEVELS]
    assert levels(rates * 0, 0.0).tolist() == [0] * 6


def test_each_direction_is_drawn_by_what_it_carried_in_each_stretch_and_in_all() -> None:
    found = drawn({(0, 1): np.array([60.0, 0.0]), (1, 0): np.array([10.0, 20.0])}, [1, 2], 60.0)
    assert found.keys() == {"0 → 1", "1 → 0", "1 → 2", "2 → 1"}
    assert {name: link.get("data-levels") for name, link in found.items()} == {
        "0 → 1": "60", "1 → 0": "12", "1 → 2": "00", "2 → 1": "00"
    }  # fmt: skip
    # over the run (60 + 2·0) / 3 = 20 and (10 + 2·20) / 3 = 16.7: both in the second sixth of 60
    assert {name: link.get("class") for name, link in found.items()} == {
        "0 → 1": "link w2", "1 → 0": "link w2", "1 → 2": "link w0", "2 → 1": "link w0"
    }  # fmt: skip
    assert found["0 → 1"].findtext("title") == "0 → 1: 20 B per round"


def test_traffic_keeps_left() -> None:
    found = drawn({}, [1], 1.0)
    for name, ahead in (("0 → 1", 1), ("1 → 0", -1)):
        x, y, u, _ = (float(word) for word in re.findall(r"[\d.]+", found[name].get("d", "")))
        assert (u - x) * ahead > 0
        # y grows downwards: to the right, left is above the line of nodes
        centre = 26.0
        assert (y - centre) * ahead < 0


def test_circles_neither_touch_nor_leave_the_picture(subtests: pytest.Subtests) -> None:
    rows: list[nx.Graph] = [
        nx.complete_graph(1),
        nx.path_graph(2),
        nx.grid_2d_graph(10, 10),
        nx.star_graph(60),
        nx.cycle_graph(200),
    ]
    for graph in rows:
        with subtests.test(graph=graph):
            plain = nx.convert_node_labels_to_integers(graph)
            root = ElementTree.fromstring(traffic_map(plain, {}, np.array([1], dtype=np.int64), 1.0, "a map"))
            _, _, wide, tall = map(float, root.get("viewBox", "").split())
            circles = [tuple(float(one.get(key, "")) for key in ("cx", "cy", "r")) for one in root.iter("circle")]
            assert len(circles) == len(plain)
            places = np.array(circles)
            radius = places[0, 2]
            assert (places[:, :2] >= radius).all()
            assert (places[:, 0] <= wide - radius).all()
            assert (places[:, 1] <= tall - radius).all()
            gaps = np.linalg.norm(places[:, None, :2] - places[None, :, :2], axis=-1) + np.eye(len(places)) * 1e9
            assert gaps.min() > 2 * radius


def test_ids_are_left_out_where_circles_are_too_small() -> None:
    for n, named in ((8, True), (200, False)):
        root = ElementTree.fromstring(traffic_map(nx.cycle_graph(n), {}, np.array([1], dtype=np.int64), 1.0, "a map"))
        assert [text.text for text in root.iter("text")] == ([str(i) for i in range(n)] if named else [])
