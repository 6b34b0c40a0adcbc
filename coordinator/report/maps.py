"""The topology as inline SVG, with what every link carried, over the run as a whole and in stretches of it.

Theory of operation. An edge is two directed links, drawn side by side, each to the left of its direction as traffic that
keeps left. How much a link carried is told by one of `LEVELS` steps of width and colour, the same for all maps of a page,
each a range that the page's legend names. A link bears its level of the whole run as a class, and those of the stretches in an
attribute, a digit each, from which the page's script takes the class for the stretch that is looked at; without a script,
and in print, the whole run is what one sees.
"""

import math
from collections.abc import Mapping
from functools import lru_cache

import networkx as nx
import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from scipy import spatial

from coordinator.report.words import size
from topology.graph.drawing import Place, layout

Array = NDArray[np.float64]

LEVELS = 6  # besides nothing at all
WIDTH = 420.0
_TALLEST = 320.0
_MARGIN = 26.0
_LARGEST = 13.0  # radius of a node
_NAMED_FROM = 7.0  # a smaller circle does not hold two digits
_APART = 3.2  # half the distance between the two links of an edge


def levels(rates: Array, most: float) -> NDArray[np.int64]:
    """How strongly links are drawn: 0 where nothing was sent, else which of `LEVELS` equal parts of the range a rate is in.

    Args:
        rates: Any shape, at least 0.
        most: End of the range, at least every rate.

    Example:
        >>> levels(np.array([0.0, 1.0, 10.0, 60.0]), 60.0).tolist()
        [0, 1, 1, 6]
    """
    if most <= 0:
        return np.zeros(rates.shape, dtype=np.int64)
    return np.where(rates > 0, np.clip(np.ceil(rates / most * LEVELS), 1, LEVELS), 0).astype(np.int64)


def traffic_map(
    graph: nx.Graph, links: Mapping[tuple[int, int], Array], lengths: NDArray[np.int64], most: float, title: str
) -> Markup:
    """A graph with its links as wide and as coloured as what they carried.

    Args:
        graph: A connected graph on 0..n-1.
        links: By directed link, what it carried per round in each stretch of the run, shape (stretches,).
        lengths: Rounds in each stretch, shape (stretches,).
        most: Where the strongest level ends, in the units of `links`.
        title: What is shown, as text for screen readers.

    Raises:
        ValueError: the graph is empty or not connected.
    """
    stands = tuple(graph.nodes[i].get("pos") for i in range(len(graph)))
    places, height, radius = _fitted(len(graph), tuple(sorted(graph.edges)), stands)
    unused = np.zeros(len(lengths))
    parts = []
    for src, dst in sorted((*graph.edges, *((b, a) for a, b in graph.edges))):
        rates = links.get((src, dst), unused)
        mean = float(np.average(rates, weights=lengths)) if len(lengths) else 0.0
        parts.append(
            Markup('<path class="link w{}" data-levels="{}" d="{}"><title>{} → {}: {} per round</title></path>').format(
                levels(np.array(mean), most),
                "".join(map(str, levels(rates, most).tolist())),
                _beside(places[src], places[dst], min(_APART, 0.5 * radius)),
                _called(graph, src),
                _called(graph, dst),
                size(mean),
            )
        )
    for i in sorted(graph):
        x, y = places[i]
        circle = Markup('<circle class="node" cx="{:.1f}" cy="{:.1f}" r="{:.1f}"><title>{}</title></circle>')
        parts.append(circle.format(x, y, radius, _called(graph, i)))
        if radius >= _NAMED_FROM:
            font = radius * (1.0 if i < 100 else 0.75)
            name = Markup('<text class="id" x="{:.1f}" y="{:.1f}" font-size="{:.1f}" text-anchor="middle">{}</text>')
            parts.append(name.format(x, y + 0.36 * font, font, i))
    picture = Markup('<svg class="map" viewBox="0 0 {:.0f} {:.0f}" role="img" aria-label="{}">{}</svg>')
    return picture.format(WIDTH, height, title, Markup("").join(parts))


def _called(graph: nx.Graph, i: int) -> str:
    label = graph.nodes[i].get("label")
    return str(i) if label is None else f"{i} ({label})"


def _beside(here: Place, there: Place, apart: float) -> str:
    (x, y), (u, v) = here, there
    length = math.hypot(u - x, v - y) or 1.0
    dx, dy = apart * (v - y) / length, apart * (x - u) / length
    return f"M{x + dx:.1f} {y + dy:.1f}L{u + dx:.1f} {v + dy:.1f}"


@lru_cache(maxsize=64)
def _fitted(
    n: int, edges: tuple[tuple[int, int], ...], stands: tuple[Place | None, ...]
) -> tuple[dict[int, Place], float, float]:
    # places within the picture, y downwards, how tall it must be for them, and how large circles can be without touching
    graph = nx.Graph()
    graph.add_nodes_from((i, {} if place is None else {"pos": place}) for i, place in enumerate(stands))
    graph.add_edges_from(edges)
    raw = layout(graph)
    points = np.array([raw[i] for i in range(n)])
    low, spans = points.min(axis=0), np.ptp(points, axis=0)
    rooms = np.array([WIDTH, _TALLEST]) - 2 * _MARGIN
    scale = min((room / span for room, span in zip(rooms.tolist(), spans.tolist(), strict=True) if span > 0), default=0.0)
    across, up = (scale * (points - low)).T
    places = {
        i: ((WIDTH - scale * float(spans[0])) / 2 + float(across[i]), _MARGIN + scale * float(spans[1]) - float(up[i]))
        for i in range(n)
    }
    apart = spatial.distance.pdist(scale * points)
    return places, scale * float(spans[1]) + 2 * _MARGIN, min(_LARGEST, 0.38 * float(apart.min(initial=WIDTH)))
