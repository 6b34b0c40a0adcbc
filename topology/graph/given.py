"""Graphs that are given, by a file or as a networkx object, made fit for a run.

Theory of operation. A reader lists what a file holds (`topology.graph.files`). Here that becomes one simple, undirected,
connected graph on 0..n-1. Nodes that are named exactly 0..n-1 keep their numbers; otherwise a node's id is its place in the
file, and its name stays with it as a label. Edges that join the same two nodes become one, whatever their direction, and edges
from a node to itself are dropped. The graph carries the rest as attributes:

    graph.graph["notes"]        what was merged, dropped and taken, as sentences
    graph.graph["period_s"]     after how many seconds the contacts repeat, if they do
    graph.nodes[i]["label"]     what people call the node: a text of one line, no two alike; missing if it is its id
    graph.nodes[i]["pos"]       (x, y), y upwards, in any unit; missing if the file gives none
    graph.edges[a, b]["latency_ms"], ["rate_bps"]   if the scenario takes them from an attribute
    graph.edges[a, b]["contacts"]                   when the edge can be used, ascending and apart; missing: always

Of edges that become one, the least delay and the greatest rate hold for both directions. Files are read as data from strangers:
regular files of at most 8 MiB, no evaluation, no entities; whatever is wrong becomes one `GraphError` of one line.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import networkx as nx

from scenarios.schema import DelayFrom, RateFrom, Topology
from topology.foreign import UnreadableError, bytes_of, number, quoted
from topology.graph.files import contacts, edge_list, gml, graphml, markup, matpower, node_link, sumo, table
from topology.graph.files.listed import Interval, Listed, counted, lookup, named

MAX_FILE_BYTES = 1 << 23  # the largest city of OSMnx's examples is 6 MiB
MAX_LABEL = 60  # characters; a name in a picture is no longer
_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9, "m": 5e-9, "km": 5e-6}
_BITS = {"bit/s": 1.0, "kbit/s": 1e3, "Mbit/s": 1e6, "Gbit/s": 1e9}
_LONGEST_S, _FASTEST_BPS = 1e6, 1e15  # of links; beyond, a number is a mistake
_FARTHEST = 1e9  # of places, from the origin; beyond, a number is a mistake
_PLACES = (("longitude", "latitude"), ("lon", "lat"), ("lng", "lat"), ("long", "lat"))


class GraphError(ValueError):
    """A communication graph that cannot be had; one line with the key, the value and what is expected."""


def read_graph(spec: Topology) -> nx.Graph:
    """The graph of `topology.file`, `topology.schedule`, or of both together.

    Args:
        spec: The `topology` section, of kind `file`.

    Returns:
        A simple undirected connected graph on 0..n-1, with the attributes that the module tells of.

    Raises:
        GraphError: a file cannot be read or is not what its suffix says, the graph is in parts, or an attribute is not there.
    """
    where = f"topology.file: {spec.file}" if spec.file is not None else f"topology.schedule: {spec.schedule}"
    at = where
    try:
        listed = Listed() if spec.file is None else _listed(Path(spec.file))
        if spec.schedule is not None:
            at = f"topology.schedule: {spec.schedule}"
            _schedule(listed, contacts.read(bytes_of(Path(spec.schedule), MAX_FILE_BYTES)), spec)
    except UnreadableError as error:
        raise GraphError(f"{at} {error}") from None
    return _simple(listed, spec, where)


def from_networkx(graph: nx.Graph, spec: Topology | None = None) -> nx.Graph:
    """The graph of a run from any networkx graph: directed or not, with parallel edges, with any names and attributes.

    Args:
        graph: Its nodes are named by texts, numbers or tuples of these.
        spec: Of the `topology` section `component`, `delay_from` and `rate_from` count; None: the defaults.

    Returns:
        A simple undirected connected graph on 0..n-1, with the attributes that the module tells of.

    Raises:
        GraphError: as `read_graph`.

    Example:
        >>> found = from_networkx(nx.Graph([("Oslo", "Bergen"), ("Bergen", "Voss")]))
        >>> list(found.edges), [found.nodes[i]["label"] for i in found]
        ([(0, 1), (1, 2)], ['Oslo', 'Bergen', 'Voss'])
    """
    listed = Listed(is_directed=graph.is_directed())
    try:
        for node, attributes in graph.nodes(data=True):
            listed.add_node(node, dict(attributes))
        for a, b, attributes in graph.edges(data=True):
            listed.edges.append((named(a), named(b), dict(attributes)))
    except UnreadableError as error:
        raise GraphError(f"graph: {error}") from None
    return _simple(listed, spec or Topology(), "graph:")


# Files ---------------------------------------------------------------------------------------------------------------------


def _listed(path: Path) -> Listed:
    suffix = path.suffix.lower()
    if suffix not in _READERS:
        raise UnreadableError(f"ends in {path.suffix!r}, expected one of {', '.join(_READERS)}")
    return _READERS[suffix](bytes_of(path, MAX_FILE_BYTES))


def _xml(data: bytes) -> Listed:
    root = markup.root_of(data, "XML")
    readers = {"net": sumo.read, "graphml": graphml.read}
    if root.tag not in readers:
        raise UnreadableError(f"begins with <{root.tag[:40]}>, expected <net> of SUMO or <graphml>")
    return readers[root.tag](root)


_READERS: dict[str, Callable[[bytes], Listed]] = {
    ".edges": edge_list.read,
    ".edgelist": edge_list.read,
    ".txt": edge_list.read,
    ".csv": table.read,
    ".tsv": table.read,
    ".gml": gml.read,
    ".graphml": lambda data: graphml.read(markup.root_of(data, "GraphML")),
    ".json": node_link.read,
    ".cyjs": node_link.read,
    ".m": matpower.read,
    ".xml": _xml,
}


def _schedule(listed: Listed, found: contacts.Contacts, spec: Topology) -> None:
    """Edges of the schedule join those of the file; they can be used in their contacts alone.

    Raises:
        UnreadableError: a node is not of the file.
        GraphError: a contact reaches beyond the period.
    """
    joined = {frozenset((a, b)) for a, b, _ in listed.edges}
    for (a, b), intervals in found.items():
        for name in (a, b):
            if spec.file is not None and name not in listed.nodes:
                raise UnreadableError(f"has a node {quoted(name)}, which is not among the nodes of topology.file")
            listed.nodes.setdefault(name, {})
        latest = max(begin if end == math.inf else end for begin, end in intervals)
        if spec.schedule_period_s is not None and latest > spec.schedule_period_s:
            raise GraphError(
                f"topology.schedule_period_s: got {spec.schedule_period_s:g}; a contact of {quoted(a)} and {quoted(b)} reaches "
                f"to {latest:g} s, so the period must be at least as long"
            )
        if frozenset((a, b)) not in joined:
            listed.edges.append((a, b, {}))
        listed.contacts[a, b] = intervals


# From what a file lists to a graph -----------------------------------------------------------------------------------------

Names = tuple[str, str]
Edge = tuple[int, int]


def _simple(listed: Listed, spec: Topology, where: str) -> nx.Graph:
    if not listed.nodes:
        raise GraphError(f"{where} has no nodes, expected at least 1")
    notes = list(listed.notes)
    merged: dict[Names, list[dict[str, Any]]] = {}
    loops = 0
    for a, b, attributes in listed.edges:
        if a == b:
            loops += 1
        else:
            merged.setdefault((b, a) if (b, a) in merged else (a, b), []).append(attributes)
    notes.extend(_merging(listed, len(merged), loops))
    kept = _component(listed.nodes, merged, spec, where, notes)
    ids = _ids(kept)
    edges = {_edge(ids, pair): carried for pair, carried in merged.items() if pair[0] in ids}
    graph = nx.Graph()
    graph.add_nodes_from(range(len(ids)))
    graph.add_edges_from(sorted(edges))
    nodes = {i: listed.nodes[name] for name, i in ids.items()}
    _label(graph, ids, nodes)
    _place(graph, nodes, notes)
    if spec.delay_from is not None:
        _take(graph, edges, spec.delay_from, notes)
    if spec.rate_from is not None:
        _take(graph, edges, spec.rate_from, notes)
    if listed.contacts:
        for pair, intervals in listed.contacts.items():
            if pair[0] in ids:
                graph.edges[_edge(ids, pair)]["contacts"] = _apart(intervals)
        graph.graph["period_s"] = spec.schedule_period_s
        limited = len(nx.get_edge_attributes(graph, "contacts"))
        again = "" if spec.schedule_period_s is None else f", repeated every {spec.schedule_period_s:g} s"
        notes.append(f"{limited} of {counted(len(edges), 'edge')} can be used in their contacts alone{again}")
    graph.graph["notes"] = tuple(notes)
    return graph


def _merging(listed: Listed, n_edges: int, loops: int) -> Iterable[str]:
    doubles = len(listed.edges) - loops - n_edges
    if not listed.edges or not (listed.is_directed or doubles or loops):
        return
    had = counted(len(listed.edges), "directed edge" if listed.is_directed else "edge")
    words = [f"{doubles} merged with another edge of the same two nodes"] if doubles else []
    words += [f"{loops} from a node to itself dropped"] if loops else []
    yield f"{had} given, {counted(n_edges, 'undirected edge')} in the graph{': ' if words else ''}{', '.join(words)}"


def _component(nodes: Iterable[str], merged: Iterable[Names], spec: Topology, where: str, notes: list[str]) -> list[str]:
    # the nodes that are kept, in the order of the file
    graph = nx.Graph()
    graph.add_nodes_from(nodes)
    graph.add_edges_from(merged)
    parts = sorted(nx.connected_components(graph), key=len, reverse=True)  # of parts of one size the one that is listed first
    if len(parts) <= 1:
        return list(graph)
    sizes = ", ".join(str(len(part)) for part in parts[:8]) + (", ..." if len(parts) > 8 else "")
    if spec.component == "all":
        raise GraphError(
            f"{where} falls into {len(parts)} parts of {sizes} nodes, expected a connected graph; set topology.component: "
            f"largest to keep the part of {len(parts[0])}"
        )
    notes.append(f"the graph falls into {len(parts)} parts of {sizes} nodes; the largest is kept")
    return [name for name in graph if name in parts[0]]


def _ids(names: list[str]) -> dict[str, int]:
    numbers = [str(i) for i in range(len(names))]
    return {name: i for i, name in enumerate(numbers if set(numbers) == set(names) else names)}


def _edge(ids: Mapping[str, int], pair: Names) -> Edge:
    a, b = ids[pair[0]], ids[pair[1]]
    return min(a, b), max(a, b)


def _apart(intervals: Iterable[Interval]) -> tuple[Interval, ...]:
    found: list[Interval] = []
    for begin, end in sorted(intervals):
        if found and begin <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((begin, end))
    return tuple(found)


# Labels and places ---------------------------------------------------------------------------------------------------------


def _label(graph: nx.Graph, ids: Mapping[str, int], nodes: Mapping[int, Mapping[str, Any]]) -> None:
    names = {i: _line(name) for name, i in ids.items()}
    wanted = {}
    for i in graph:
        text = lookup(nodes[i], "label", "name")
        wanted[i] = _line(text) if isinstance(text, str) else ""
    uses = Counter(wanted.values())
    labels = {i: names[i] if not text else text if uses[text] == 1 else f"{text} ({names[i]})" for i, text in wanted.items()}
    if len(set(labels.values())) < len(labels):  # long names that are alike when they are cut
        labels = {i: f"{text} ({i})" for i, text in labels.items()}
    if any(label != str(i) for i, label in labels.items()):
        nx.set_node_attributes(graph, labels, "label")


def _line(text: str) -> str:
    # nothing that a terminal, a page or a file could take for more than text
    plain = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return plain if len(plain) <= MAX_LABEL else plain[: MAX_LABEL - 1] + "…"


def _place(graph: nx.Graph, nodes: Mapping[int, Mapping[str, Any]], notes: list[str]) -> None:
    places = {i: place for i in graph if (place := _place_of(nodes[i])) is not None}
    if not places:
        return
    if all(_is_on_earth(nodes[i]) for i in places):
        # a degree of longitude is shorter than one of latitude, by the cosine of the latitude
        middle = math.cos(math.radians(sum(y for _, y in places.values()) / len(places)))
        places = {i: (x * middle, y) for i, (x, y) in places.items()}
    nx.set_node_attributes(graph, places, "pos")
    if len(places) < len(graph):
        notes.append(f"{len(graph) - len(places)} of {len(graph)} nodes have no place; pictures put them beside their neighbours")


def _is_on_earth(attributes: Mapping[str, Any]) -> bool:
    return any(lookup(attributes, x) is not None and lookup(attributes, y) is not None for x, y in _PLACES)


def _place_of(attributes: Mapping[str, Any]) -> tuple[float, float] | None:
    found: list[object] = []
    for x_name, y_name in (*_PLACES, ("x", "y")):
        found = [lookup(attributes, x_name), lookup(attributes, y_name)]
        if None not in found:
            break
    else:
        pos, picture = lookup(attributes, "pos", "position"), lookup(attributes, "graphics")
        if isinstance(pos, str):
            found = list(pos.strip("[]()! ").replace(",", " ").split())
        elif isinstance(pos, Iterable) and not isinstance(pos, dict):
            found = list(pos)
        elif isinstance(picture, dict):  # on a page y grows downwards
            down = number(lookup(picture, "y"))
            found = [lookup(picture, "x"), None if down is None else -down]
    x, y = (number(value) for value in found[:2]) if len(found) >= 2 else (None, None)
    return None if x is None or y is None or max(abs(x), abs(y)) > _FARTHEST else (x, y)


# Delays and rates ----------------------------------------------------------------------------------------------------------


def _take(graph: nx.Graph, edges: Mapping[Edge, list[dict[str, Any]]], source: DelayFrom | RateFrom, notes: list[str]) -> None:
    is_delay = isinstance(source, DelayFrom)
    key = "topology.delay_from" if is_delay else "topology.rate_from"
    scale = (_SECONDS if is_delay else _BITS)[source.unit] * source.factor
    taken = 0
    for (a, b), carried in edges.items():
        found = [attributes[source.attribute] for attributes in carried if attributes.get(source.attribute) not in (None, "")]
        values = []
        for value in found:
            amount = number(value)
            if amount is None or not (0 <= amount * scale <= _LONGEST_S if is_delay else 0 < amount * scale <= _FASTEST_BPS):
                ends = " – ".join(str(graph.nodes[i].get("label", i)) for i in (a, b))
                wanted = f"0 to {_LONGEST_S:g} s" if is_delay else f"above 0 to {_FASTEST_BPS:g} bit/s"
                raise GraphError(
                    f"{key}.attribute: got {quoted(source.attribute)}, which is {quoted(value)} [{source.unit}] on the edge "
                    f"{ends}; expected {wanted}"
                )
            values.append(amount * scale)
        if values and is_delay:
            graph.edges[a, b]["latency_ms"] = 1000 * min(values)
        elif values:
            graph.edges[a, b]["rate_bps"] = max(values)
        taken += bool(values)
    if not taken:
        there = sorted({str(name) for carried in edges.values() for attributes in carried for name in attributes})
        shown = ", ".join(name[:30] for name in there[:12]) + (", ..." if len(there) > 12 else "") if there else "none"
        raise GraphError(f"{key}.attribute: got {quoted(source.attribute)}; no edge has it, the attributes of edges are: {shown}")
    what = "delay" if is_delay else "rate"
    rest = "" if taken == len(edges) else "; the others have it from network"
    notes.append(f"the {what} of {taken} of {counted(len(edges), 'edge')} is taken from {source.attribute} [{source.unit}]{rest}")
