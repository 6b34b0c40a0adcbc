"""What a picture of a world shows, as numbers: where things are, and values on named scales. A drawer makes the picture.

Theory of operation. A world that has pictures gives a function of itself and a copy, `envs.interface.World.scene`. It returns
layers of points or lines, the lowest first. Each point or line has a value, which a drawer shows as a colour of the layer's
scale; where `marked` is true it stands out, with the words of `mark`. A scene draws nothing and imports no library for it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import networkx as nx
import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Scale:
    """What values are, and the range that a picture has colours for.

    Attributes:
        what: The values, in a few words.
        low: Where the range begins; a smaller value looks like it.
        high: Where it ends, above `low`.
        unit: Of the values, or what they stand for; "" for none.
    """

    what: str
    low: float
    high: float
    unit: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """Points or lines of one kind.

    Attributes:
        scale: Of the values.
        at: Where the points are, (K, 2), or the ends of the lines, (K, 2, 2): to the right and up, in any unit.
        values: (K,).
        size: Of a point or a line, as a multiple of a common one.
        marked: Which ones stand out, (K,); None: none.
        mark: What that means.
    """

    scale: Scale
    at: Matrix
    values: Matrix
    size: float = 1.0
    marked: Mask | None = None
    mark: str = ""

    @property
    def is_lines(self) -> bool:
        """Whether it has lines; else points."""
        return self.at.ndim == 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One copy of a world at one moment.

    Attributes:
        layers: The lowest first.
        agents: Where the agents are, (n, 2), in the unit of the layers.
        box: What is seen: left, low, right, high. None: all that the layers have; a world that moves gives it.
    """

    layers: Sequence[Layer]
    agents: Matrix
    box: tuple[float, float, float, float] | None = None


def tree_places(upstream: Sequence[int]) -> Matrix:
    """Places for the nodes of a tree: to the right by hops from the root, ends one above the other, no two lines cross.

    Args:
        upstream: Of each node but the root, node 0, the one before it.

    Returns:
        (nodes, 2), within 4 to the right and 3 up.

    Example:
        >>> tree_places([0, 0, 1]).tolist()
        [[0.0, 1.5], [2.0, 0.0], [2.0, 3.0], [4.0, 0.0]]
    """
    behind: list[list[int]] = [[] for _ in range(len(upstream) + 1)]
    for node, before in enumerate(upstream, start=1):
        behind[before].append(node)
    places, ends = np.zeros((len(behind), 2)), 0
    order = [0]
    for node in order:
        order += behind[node]
        places[behind[node], 0] = places[node, 0] + 1
    depth_first, stack = [], [0]
    while stack:
        depth_first.append(node := stack.pop())
        stack += reversed(behind[node])
    for node in depth_first:
        if not behind[node]:
            places[node, 1], ends = ends, ends + 1
    for node in reversed(order):
        if behind[node]:
            places[node, 1] = places[behind[node], 1].mean()
    return np.asarray(places / np.maximum(places.max(axis=0), 1.0) * (4.0, 3.0))


def graph_places(n: int, edges: Sequence[tuple[int, int]]) -> Matrix:
    """Places for the nodes of a graph on 0..n-1, as in pictures of graphs, (n, 2)."""
    return _graph_places(n, tuple(sorted((min(edge), max(edge)) for edge in edges)))


@lru_cache(maxsize=16)
def _graph_places(n: int, edges: tuple[tuple[int, int], ...]) -> Matrix:
    from topology.graph.drawing import layout  # loads matplotlib, which only pictures need

    graph = nx.empty_graph(n)
    graph.add_edges_from(edges)
    found = layout(graph)
    return np.array([found[node] for node in range(n)], float)


def ends(places: Matrix, edges: Sequence[tuple[int, int]]) -> Matrix:
    """The lines between pairs of places, (K, 2, 2)."""
    return places[np.array(edges, np.intp).reshape(-1, 2)]


def upper(adjacency: NDArray[np.floating]) -> list[tuple[int, int]]:
    """The pairs i < j of neighbours in an adjacency matrix, (n, n)."""
    return [(int(i), int(j)) for i, j in np.argwhere(np.triu(adjacency, 1) > 0)]
