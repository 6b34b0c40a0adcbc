"""The communication graph of a run: generators by name, and files.

Theory of operation. `build` turns the `topology` section of a scenario into one simple, undirected, connected networkx
graph on the nodes 0..n-1, inserted in ascending order. Every process of a run builds it anew and must get the same
graph, so nothing here depends on anything but the section, n and the world's own edges: random graphs draw from
`topology.seed` alone. A random graph that comes out disconnected is drawn again, from a seed derived from
`topology.seed` and the number of the try. Files are read as data from strangers: regular files of at most 1 MiB, parsed
without entity expansion or evaluation; whatever is wrong with them becomes one `GraphError` of one line.
"""

import json
import math
import random
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.parsers import expat

import networkx as nx

from scenarios.schema import Topology

MAX_FILE_BYTES = 1 << 20  # the complete graph on 400 nodes is 0.6 MiB as an edge list
MAX_TRIES = 100  # a generator that fails so often would need luck, not patience
_NODE = re.compile(r"0|[1-9][0-9]{0,8}")  # plain decimal, so that '007', '1_0' or a 5000-digit number is no name
_SHOWN = 40  # characters of foreign text that an error quotes

Edges = Iterable[tuple[int, int]]


class GraphError(ValueError):
    """A communication graph that cannot be had; one line with the key, the value and what is expected."""


def build(spec: Topology, n: int, kinematic: Sequence[tuple[int, int]]) -> nx.Graph:
    """The communication graph that the scenario asks for.

    Grid and random geometric graphs carry node positions as attribute `pos` (two floats), for drawing.

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


@dataclass(slots=True)
class _Listed:
    """What a file lists, names as written: int or str."""

    nodes: list[Any]
    edges: list[tuple[Any, Any]]


def _from_file(spec: Topology, n: int) -> nx.Graph:
    path = Path(spec.file or "")
    where = f"topology.file: {spec.file}"
    parse = _PARSERS.get(path.suffix.lower())
    if parse is None:
        raise GraphError(f"{where} ends in {path.suffix!r}, expected one of {', '.join(_PARSERS)}")
    try:
        listed = parse(_read(path))
    except _UnreadableError as error:
        raise GraphError(f"{where} {error}") from None
    edges = [(_node(a, where, n), _node(b, where, n)) for a, b in listed.edges]
    nodes = {_node(name, where, n) for name in listed.nodes}.union(*edges)
    if len(nodes) != n:
        raise GraphError(f"{where} has {_count(len(nodes), 'node')}, the world has {_count(n, 'agent')}")
    strangers = sorted(nodes - set(range(n)))
    if strangers:
        raise GraphError(f"{where} has a node {_quoted(strangers[0])}, expected the ids {_ids(n)}")
    loops = sorted(a for a, b in edges if a == b)
    if loops:
        raise GraphError(f"{where} joins node {loops[0]} to itself, expected edges between different nodes")
    return _connected(_simple(n, edges), where)


class _UnreadableError(Exception):
    """The rest of the sentence that begins with the file's name."""


def _read(path: Path) -> bytes:
    try:
        if not path.exists():
            raise _UnreadableError("does not exist")
        if not path.is_file():
            raise _UnreadableError("is not a regular file")
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise _UnreadableError(f"has {size} bytes, expected at most {MAX_FILE_BYTES}")
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL
        raise _UnreadableError(f"cannot be read: {_shown(error)}") from None


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _UnreadableError(f"is not UTF-8 text (byte {error.start})") from None


def _edge_list(data: bytes) -> _Listed:
    # lines `a b`, or `a` alone for a node; commas count as blanks and # starts a comment
    listed = _Listed([], [])
    for number, line in enumerate(_text(data).splitlines(), start=1):
        words = line.partition("#")[0].replace(",", " ").split()
        if len(words) == 2:
            listed.edges.append((words[0], words[1]))
        elif len(words) == 1:
            listed.nodes.append(words[0])
        elif words:
            raise _UnreadableError(f"line {number}: got {_quoted(line)}, expected two node ids")
    return listed


def _graphml(data: bytes) -> _Listed:
    # the nodes and edges of the one graph; attributes and data are left aside
    listed = _Listed([], [])
    graphs = 0

    def doctype(*_: Any) -> None:
        raise _UnreadableError("has a DOCTYPE, expected GraphML without one (entities are not expanded)")

    def start(tag: str, attributes: Mapping[str, str]) -> None:
        nonlocal graphs
        element = tag.rpartition("|")[2]
        if element == "graph":
            graphs += 1
            if graphs > 1:
                raise _UnreadableError("has more than one <graph>, expected a single flat one")
            if attributes.get("edgedefault", "undirected") != "undirected":
                raise _UnreadableError("is a directed graph, expected edgedefault='undirected'")
        elif element == "node":
            listed.nodes.append(_field(attributes, "id", "a <node>"))
        elif element == "edge":
            if attributes.get("directed", "false") not in {"false", "0"}:
                raise _UnreadableError("has a directed edge, expected undirected ones")
            listed.edges.append((_field(attributes, "source", "an <edge>"), _field(attributes, "target", "an <edge>")))
        elif element == "hyperedge":
            raise _UnreadableError("has a <hyperedge>, expected edges between two nodes")

    parser = expat.ParserCreate(namespace_separator="|")
    parser.StartDoctypeDeclHandler = doctype
    parser.StartElementHandler = start
    try:
        parser.Parse(data, True)
    except (expat.ExpatError, ValueError, LookupError) as error:
        raise _UnreadableError(f"is not GraphML: {_shown(error)}") from None
    if graphs == 0:
        raise _UnreadableError("is not GraphML: it has no <graph>")
    return listed


def _node_link(data: bytes) -> _Listed:
    # Node-link JSON as networkx writes it, with `edges` (3.4 and later) or `links` (before)
    try:
        document = json.loads(_text(data))
    except (ValueError, RecursionError) as error:
        raise _UnreadableError(f"is not JSON: {_shown(error)}") from None
    if not isinstance(document, dict):
        raise _UnreadableError("is not node-link JSON: expected an object with 'nodes' and 'edges'")
    if document.get("directed", False) is not False:
        raise _UnreadableError("is a directed graph, expected 'directed': false")
    nodes = document.get("nodes")
    edges = document.get("edges", document.get("links"))
    for key, value in (("nodes", nodes), ("edges", edges)):
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise _UnreadableError(f"is not node-link JSON: expected {key!r} to be a list of objects")
    assert isinstance(nodes, list)
    assert isinstance(edges, list)
    return _Listed(
        [_field(item, "id", "a node") for item in nodes],
        [(_field(item, "source", "an edge"), _field(item, "target", "an edge")) for item in edges],
    )


_PARSERS: dict[str, Callable[[bytes], _Listed]] = {
    ".edges": _edge_list,
    ".txt": _edge_list,
    ".graphml": _graphml,
    ".json": _node_link,
}


def _field(item: Mapping[str, Any], key: str, owner: str) -> Any:
    if key not in item:
        raise _UnreadableError(f"has {owner} without {key!r}")
    return item[key]


def _node(name: Any, where: str, n: int) -> int:
    if isinstance(name, int) and not isinstance(name, bool):
        return name
    if isinstance(name, str) and _NODE.fullmatch(name):
        return int(name)
    raise GraphError(f"{where} has a node named {_quoted(name)}, expected the ids {_ids(n)}")


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


def _ids(n: int) -> str:
    return f"0..{n - 1}" if n > 1 else "0"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _quoted(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def _shown(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 2 * _SHOWN else text[: 2 * _SHOWN - 3] + "..."
