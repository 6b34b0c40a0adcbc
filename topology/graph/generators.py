"""The communication graph of a run: generators by name, and files.

Theory of operation. `build` turns the `topology` section of a scenario into one simple, undirected, connected networkx
graph on the nodes 0..n-1, inserted in ascending order. Every process of a run builds it again and must get the same
graph, so nothing here depends on anything but the section, n and the world's own edges: random graphs draw from
`topology.seed` alone. A random graph that comes out disconnected is drawn again, from a seed derived from
`topology.seed` and the number of the try. Files are read by `topology.graph.given`.
"""

import math
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import networkx as nx

from scenarios.schema import Topology
from topology.graph.files.listed import counted
from topology.graph.given import GraphError, read_graph

MAX_TRIES = 100  # a generator that fails so often would need luck, not patience

Edges = Iterable[tuple[int, int]]


def build(spec: Topology, n: int, kinematic: Sequence[tuple[int, int]]) -> nx.Graph:
    """The communication graph that the scenario asks for.

    Grid and random geometric graphs carry node positions as attribute `pos` (two floats), for drawing; graphs from files may
    carry more, see `topology.graph.given`.

    Args:
        spec: The `topology` section.
        n: Number of agents, at least 1.
        kinematic: Edges by the world's mechanics, used by kind `kinematic` only.

    Returns:
        A simple undirected connected graph on 0..n-1, nodes in ascending order.

    Raises:
        ValueError: n is below 1.
        GraphError: the kind cannot give a connected graph on n nodes, or the file is not one.

    Example:
        >>> sorted(build(Topology(kind="ring"), 4, []).edges)
        [(0, 1), (0, 3), (1, 2), (2, 3)]
    """
    if n < 1:
        raise ValueError(f"n: got {n}; a graph has at least 1 agent")
    if spec.kind == "file":
        return _from_file(spec, n)
    if spec.kind == "kinematic":
        return _from_kinematic(n, kinematic)
    if spec.kind in _RANDOM:
        return _from_chance(spec, n)
    graph = _simple(n, _REGULAR[spec.kind](spec, n))
    if spec.kind == "grid":
        columns = n // _rows(spec, n)
        for node in graph:
            graph.nodes[node]["pos"] = (float(node % columns), -float(node // columns))
    return graph


# Regular graphs ------------------------------------------------------------------------------------------------------------


def _line(_: Topology, n: int) -> Edges:
    return ((i, i + 1) for i in range(n - 1))


def _ring(spec: Topology, n: int) -> Edges:
    return [*_line(spec, n), *([(0, n - 1)] if n > 2 else [])]


def _star(_: Topology, n: int) -> Edges:
    return ((0, i) for i in range(1, n))


def _complete(_: Topology, n: int) -> Edges:
    return ((i, j) for i in range(n) for j in range(i + 1, n))


def _grid(spec: Topology, n: int) -> Edges:
    columns = n // _rows(spec, n)
    across = [(i, i + 1) for i in range(n) if (i + 1) % columns]
    down = [(i, i + columns) for i in range(n - columns)]
    return across + down


def _rows(spec: Topology, n: int) -> int:
    if spec.rows is None:
        return max(rows for rows in range(1, math.isqrt(n) + 1) if n % rows == 0)
    if n % spec.rows:
        raise GraphError(f"topology.rows: got {spec.rows}; it must divide the world's number of agents, {n}")
    return spec.rows


def _tree(spec: Topology, n: int) -> Edges:
    return (((i - 1) // spec.branching, i) for i in range(1, n))


_REGULAR: dict[str, Callable[[Topology, int], Edges]] = {
    "line": _line,
    "ring": _ring,
    "star": _star,
    "complete": _complete,
    "grid": _grid,
    "tree": _tree,
}


# Random graphs -------------------------------------------------------------------------------------------------------------


def _erdos_renyi(spec: Topology, n: int, rng: random.Random) -> nx.Graph:
    return nx.gnp_random_graph(n, spec.edge_prob, seed=rng)


def _watts_strogatz(spec: Topology, n: int, rng: random.Random) -> nx.Graph:
    if spec.degree >= n:
        raise GraphError(f"topology.degree: got {spec.degree}; the world has {n} agents, so it must be below {n}")
    if spec.degree % 2:
        raise GraphError(f"topology.degree: got {spec.degree}; it must be even, half the neighbours lie on either side")
    return nx.watts_strogatz_graph(n, spec.degree, spec.rewire_prob, seed=rng)


def _barabasi_albert(spec: Topology, n: int, rng: random.Random) -> nx.Graph:
    if spec.attach >= n:
        raise GraphError(f"topology.attach: got {spec.attach}; the world has {n} agents, so it must be below {n}")
    return nx.barabasi_albert_graph(n, spec.attach, seed=rng)


def _random_geometric(spec: Topology, n: int, rng: random.Random) -> nx.Graph:
    # networkx's own takes another code path where scipy is installed; the graph must not depend on that
    places = [(rng.random(), rng.random()) for _ in range(n)]
    graph = nx.Graph()
    graph.add_nodes_from((i, {"pos": place}) for i, place in enumerate(places))
    graph.add_edges_from((i, j) for i in range(n) for j in range(i) if math.dist(places[i], places[j]) < spec.radius)
    return graph


@dataclass(frozen=True, slots=True)
class _Chance:
    """A random generator, the setting that decides whether it comes out connected, and which way to turn it."""

    draw: Callable[[Topology, int, random.Random], nx.Graph]
    setting: str
    cure: str


_RANDOM: dict[str, _Chance] = {
    "erdos_renyi": _Chance(_erdos_renyi, "edge_prob", "raise it"),
    "watts_strogatz": _Chance(_watts_strogatz, "degree", "raise it, or lower topology.rewire_prob"),
    "barabasi_albert": _Chance(_barabasi_albert, "attach", "raise it"),
    "random_geometric": _Chance(_random_geometric, "radius", "raise it"),
}


def _from_chance(spec: Topology, n: int) -> nx.Graph:
    if n == 1:
        return _simple(1, [])
    chance = _RANDOM[spec.kind]
    for attempt in range(MAX_TRIES):
        # the first try is what networkx itself gives for this seed, so that others can rebuild the graph
        drawn = chance.draw(spec, n, random.Random(f"{spec.seed}/{attempt}" if attempt else spec.seed))
        if nx.is_connected(drawn):
            graph = _simple(n, drawn.edges)
            graph.add_nodes_from(drawn.nodes(data=True))
            return graph
    value = getattr(spec, chance.setting)
    raise GraphError(
        f"topology.{chance.setting}: got {value}; none of {MAX_TRIES} {spec.kind} graphs on {n} nodes was connected, "
        f"{chance.cure}"
    )


# The world's own graph -----------------------------------------------------------------------------------------------------


def _from_kinematic(n: int, edges: Sequence[tuple[int, int]]) -> nx.Graph:
    if n > 1 and not edges:
        raise GraphError(f"topology.kind: got kinematic; this world couples none of its {n} agents, choose another kind")
    strangers = [edge for edge in edges if edge[0] == edge[1] or not all(0 <= node < n for node in edge)]
    if strangers:
        raise GraphError(
            f"topology.kind: got kinematic; the world's edge {strangers[0]} does not join two of the agents 0..{n - 1}"
        )
    return _connected(_simple(n, edges), "topology.kind: got kinematic; the world's graph")


# Files ---------------------------------------------------------------------------------------------------------------------


def _from_file(spec: Topology, n: int) -> nx.Graph:
    graph = read_graph(spec)
    if len(graph) != n:
        key, file = ("schedule", spec.schedule) if spec.file is None else ("file", spec.file)
        raise GraphError(f"topology.{key}: {file} has {counted(len(graph), 'node')}, the world has {counted(n, 'agent')}")
    return graph


# Shared --------------------------------------------------------------------------------------------------------------------


def _simple(n: int, edges: Edges) -> nx.Graph:
    graph = nx.Graph()
    graph.add_nodes_from(range(n))
    graph.add_edges_from(sorted({(min(a, b), max(a, b)) for a, b in edges}))
    return graph


def _connected(graph: nx.Graph, subject: str) -> nx.Graph:
    parts = sorted((len(part) for part in nx.connected_components(graph)), reverse=True)
    if len(parts) == 1:
        return graph
    sizes = ", ".join(str(size) for size in parts[:8]) + (", ..." if len(parts) > 8 else "")
    raise GraphError(f"{subject} falls into {len(parts)} parts of {sizes} nodes, expected a connected one")
