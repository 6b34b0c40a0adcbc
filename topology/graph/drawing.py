"""Pictures of communication graphs, as SVG or PNG.

Where a node stands follows from the graph alone: positions it carries (grids, random geometric graphs, files; a node without
one stands beside its neighbours, and one that would cover another a little aside), a row for a line, a circle for rings and
complete graphs, rings around the centre for trees and for graphs too large for springs, else springs from a fixed start. The
same graph gives the same file, byte for byte. Colours are from *cividis*, which reads alike with and without colour vision, and
the number that a colour stands for is in the legend.
"""

import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import matplotlib
import networkx as nx
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from topology.graph import neighbourhood

Place = tuple[float, float]

SPRINGS_UP_TO = 150  # nodes; beyond, networkx takes over a second (and from 500 on it would need scipy)
NAMES_UP_TO = 150  # nodes; beyond, ids in the circles are too small to read
APART = 0.05  # of the picture's width; nodes that would stand nearer to each other than half of it are moved aside
LABEL_UP_TO = 24  # characters of a label
LEGEND_UP_TO = 9  # colours listed; more are shown by their ends and a few between


def draw(
    graph: nx.Graph,
    path: Path,
    title: str,
    *,
    colour: Literal["reach", "centre"] = "reach",
) -> None:
    """Writes a picture of the graph; the suffix of the path decides between .svg and .png.

    Args:
        graph: A connected graph on 0..n-1. The attribute `label` of a node stands beneath it.
        path: Where to write; an existing file is replaced.
        title: Stands above the picture; may be empty.
        colour: Nodes are coloured by |N^1|, the size of their ball of one hop, or by their hop distance from the
            centre.

    Raises:
        ValueError: the path ends in neither .svg nor .png, or the graph is empty or not connected.
    """
    if path.suffix not in {".svg", ".png"}:
        raise ValueError(f"got {path.name}; expected a name that ends in .svg or .png")
    places = layout(graph)
    values = {i: len(neighbourhood.ball(graph, i, 1)) for i in graph} if colour == "reach" else _from_centre(graph)
    wide, high = _size(places)
    labels = nx.get_node_attributes(graph, "label")
    # names may be in any script, and a browser finds a font for each if they stay text
    kind = "none" if labels else "path"
    with (
        matplotlib.rc_context({"svg.hashsalt": "kappahop", "font.family": "DejaVu Sans", "svg.fonttype": kind}),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=(wide, high), dpi=150, layout="constrained")
        axes = figure.add_subplot()
        axes.set_axis_off()
        axes.set_aspect("equal")
        left, right, bottom, top = _bounds(places)
        axes.set_xlim(left, right)
        axes.set_ylim(bottom, top)
        if title:
            axes.set_title(title, fontsize=12, parse_math=False)
        n = len(graph)
        radius = min(13.0, 45.0 / math.sqrt(n) + 2.0)  # points; small enough for 1024 nodes, large enough to hold two digits
        segments = [(places[a], places[b]) for a, b in graph.edges]
        faint = 1.0 if len(segments) <= 4 * n else 0.35
        axes.add_collection(LineCollection(segments, colors="#6b6b6b", linewidths=1.3, alpha=faint, zorder=1))
        shades = _shades(sorted(set(values.values())))
        nodes = sorted(graph)
        axes.scatter(
            [places[i][0] for i in nodes],
            [places[i][1] for i in nodes],
            s=(2 * radius) ** 2,
            c=[shades[values[i]] for i in nodes],
            edgecolors="black",
            linewidths=0.8,
            zorder=2,
        )
        for i in nodes:
            if n <= NAMES_UP_TO:
                ink = "white" if _is_dark(shades[values[i]]) else "black"
                axes.annotate(str(i), places[i], color=ink, fontsize=min(11.0, radius), ha="center", va="center", zorder=3)
            if n <= NAMES_UP_TO and i in labels:
                below = (0.0, -radius - 3.0)
                halo = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.8}
                axes.annotate(
                    labels[i] if len(labels[i]) <= LABEL_UP_TO else f"{labels[i][: LABEL_UP_TO - 1]}…",
                    places[i],
                    below,
                    textcoords="offset points",
                    fontsize=8,
                    ha="center",
                    va="top",
                    zorder=4,
                    parse_math=False,
                    bbox=halo,
                )
        _legend(figure, shades, "agents within one hop" if colour == "reach" else "hops from the centre")
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else {"Software": None})


def layout(graph: nx.Graph) -> dict[int, Place]:
    """Where each node stands, x to the right and y upwards, in units of no meaning.

    Raises:
        ValueError: the graph is empty or not connected.
    """
    n = len(graph)
    neighbourhood.diameter(graph)  # refuses what has no layout
    degrees = sorted(degree for _, degree in graph.degree)
    carried = {i: (float(x), float(y)) for i, (x, y) in nx.get_node_attributes(graph, "pos").items()}
    if len(set(carried.values())) >= min(n, 2):
        return _completed(graph, carried)
    if n <= 2 or (graph.number_of_edges() == n - 1 and degrees[-1] == 2):
        return _row(graph)
    if degrees[0] == degrees[-1] in {2, n - 1}:
        return _circle(graph)
    if graph.number_of_edges() == n - 1 or n > SPRINGS_UP_TO:
        return _radial(graph)
    # springs start from a circle by id: a random start folds chains now and then
    springs = nx.spring_layout(graph, pos=_circle(graph), seed=1, iterations=300)
    return {i: (float(springs[i][0]), float(springs[i][1])) for i in sorted(graph)}


def _completed(graph: nx.Graph, carried: Mapping[int, Place]) -> dict[int, Place]:
    """Places for all nodes, where some carry one, no two alike."""
    xs, ys = zip(*carried.values(), strict=True)
    low, span = (min(xs), min(ys)), max(max(xs) - min(xs), max(ys) - min(ys)) or 1.0
    places = dict(carried)
    # outwards from the nodes with a place: each node at the mean of its neighbours that have one
    ring = sorted(carried)
    while ring:
        ring = sorted({j for i in ring for j in graph.adj[i]} - set(places))
        had = dict(places)
        for i in ring:
            near = [had[j] for j in graph.adj[i] if j in had]
            places[i] = (sum(x for x, _ in near) / len(near), sum(y for _, y in near) / len(near))
    taken: set[Place] = set()
    for i in sorted(places, key=lambda i: (i not in carried, i)):
        x, y = places[i]
        step = 0
        while _cell(places[i], low, span) in taken:
            step += 1  # a sunflower's spiral: turns of the golden angle, outwards
            reach, turn = APART * span * math.sqrt(step), step * math.pi * (3 - math.sqrt(5))
            places[i] = (x + reach * math.cos(turn), y + reach * math.sin(turn))
        taken.add(_cell(places[i], low, span))
    return {i: places[i] for i in sorted(places)}


def _cell(place: Place, low: Place, span: float) -> tuple[int, int]:
    edge = APART * span / 2
    return round((place[0] - low[0]) / edge), round((place[1] - low[1]) / edge)


def _row(graph: nx.Graph) -> dict[int, Place]:
    end = min(i for i, degree in graph.degree if degree <= 1)
    hops = neighbourhood.distances(graph, end)
    return {i: (float(hops[i]), 0.0) for i in hops}


def _circle(graph: nx.Graph) -> dict[int, Place]:
    # along the ring where there is one, so that its edges do not cross; by id otherwise
    order = _around(graph) if all(degree == 2 for _, degree in graph.degree) else sorted(graph)
    turn = 2 * math.pi / len(order)
    return {i: (math.sin(at * turn), math.cos(at * turn)) for at, i in enumerate(order)}


def _around(graph: nx.Graph) -> list[int]:
    order = [min(graph)]
    seen = set(order)
    while ahead := sorted(set(graph.adj[order[-1]]) - seen):
        order.append(ahead[0])
        seen.add(ahead[0])
    return order


def _radial(graph: nx.Graph) -> dict[int, Place]:
    centre = _centre(graph)
    parents = neighbourhood.tree_parents(graph, centre)
    hops = neighbourhood.distances(graph, centre)
    children: dict[int, list[int]] = {i: [] for i in graph}
    for child, parent in parents.items():
        children[parent].append(child)
    leaves: dict[int, int] = {}
    for i in sorted(graph, key=lambda i: -hops[i]):
        leaves[i] = sum(leaves[child] for child in children[i]) or 1
    start = {centre: 0.0}
    places: dict[int, Place] = {}
    for i in sorted(graph, key=lambda i: (hops[i], i)):
        width = 2 * math.pi / leaves[centre]
        angle = start[i] + leaves[i] * width / 2
        places[i] = (hops[i] * math.sin(angle), hops[i] * math.cos(angle))
        at = start[i]
        for child in children[i]:
            start[child] = at
            at += leaves[child] * width
    return places


def _centre(graph: nx.Graph) -> int:
    reach = {i: max(neighbourhood.distances(graph, i).values()) for i in sorted(graph)}
    centre: int = min(reach, key=lambda i: (reach[i], i))
    return centre


def _from_centre(graph: nx.Graph) -> dict[int, int]:
    return neighbourhood.distances(graph, _centre(graph))


def _bounds(places: Mapping[int, Place]) -> tuple[float, float, float, float]:
    # left, right, bottom, top, with room for the circles and the words beneath them
    xs, ys = zip(*places.values(), strict=True)
    room = 0.12 * max(max(xs) - min(xs), max(ys) - min(ys)) or 1.0
    return min(xs) - room, max(xs) + room, min(ys) - room, max(ys) + room


def _size(places: Mapping[int, Place]) -> tuple[float, float]:
    # inches: as wide as the picture needs, within what fits a page
    left, right, bottom, top = _bounds(places)
    longest = max(right - left, top - bottom)
    edge = min(10.0, 4.5 + 0.06 * len(places))
    return max(3.0, edge * (right - left) / longest) + 1.4, max(1.0, edge * (top - bottom) / longest) + 0.6


def _shades(values: list[int]) -> dict[int, tuple[float, float, float, float]]:
    colours = matplotlib.colormaps["cividis"]
    shades = {}
    for at, value in enumerate(values):
        red, green, blue, alpha = (float(part) for part in colours(at / max(1, len(values) - 1)))
        shades[value] = (red, green, blue, alpha)
    return shades


def _is_dark(shade: tuple[float, float, float, float]) -> bool:
    return 0.299 * shade[0] + 0.587 * shade[1] + 0.114 * shade[2] < 0.5


def _legend(figure: Figure, shades: Mapping[int, tuple[float, float, float, float]], meaning: str) -> None:
    values = list(shades)
    if len(values) > LEGEND_UP_TO:
        values = [values[round(at * (len(values) - 1) / (LEGEND_UP_TO - 1))] for at in range(LEGEND_UP_TO)]
    delivery = [
        Line2D([], [], linestyle="none", marker="o", markersize=9, color=shades[value], markeredgecolor="black", label=str(value))
        for value in values
    ]
    title = meaning.replace(" ", "\n", 1)
    figure.legend(handles=delivery, title=title, loc="outside right upper", frameon=False, fontsize=9, title_fontsize=9)
