"""Node-link JSON: of networkx of any age (`edges` or `links`), d3 (ends by place), topohub, and Cytoscape (`elements`)."""

import json
from typing import Any

from topology.foreign import UnreadableError, text_of, told
from topology.graph.files.listed import Listed, named


def read(data: bytes) -> Listed:
    """The graph of a JSON file.

    Raises:
        UnreadableError: it is not JSON, or does not list nodes and edges.
    """
    try:
        document = json.loads(text_of(data))
    except (ValueError, RecursionError) as error:
        raise UnreadableError(f"is not JSON: {told(error)}") from None
    if not isinstance(document, dict):
        raise UnreadableError("is not node-link JSON: expected an object with 'nodes' and 'edges'")
    elements = document.get("elements")
    if isinstance(elements, dict):
        document = document | elements
    nodes = _objects(document, "nodes", document.get("nodes"))
    edges = _objects(document, "edges", document.get("edges", document.get("links")))
    listed = Listed(is_directed=document.get("directed") is True)
    has_ids = any("id" in node for node in nodes)
    for place, node in enumerate(nodes):
        if has_ids and "id" not in node:
            raise UnreadableError("has a node without 'id'")
        listed.add_node(node["id"] if has_ids else place, {key: value for key, value in node.items() if key != "id"})
    ends = [(_end(edge, "source"), _end(edge, "target")) for edge in edges]
    names = list(listed.nodes)
    if _are_places(ends, names):
        ends = [(names[a], names[b]) for a, b in ends]
    for (a, b), edge in zip(ends, edges, strict=True):
        listed.add_edge(a, b, {key: value for key, value in edge.items() if key not in {"source", "target"}})
    return listed


def _are_places(ends: list[tuple[Any, Any]], names: list[str]) -> bool:
    # networkx 1 and d3 give the ends of an edge by their places in the list of nodes
    flat = [end for pair in ends for end in pair]
    if not all(type(end) is int and 0 <= end < len(names) for end in flat):
        return False
    known = set(names)
    return any(named(end) not in known for end in flat)


def _objects(document: dict[str, Any], key: str, value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, list):
        raise UnreadableError(f"is not node-link JSON: expected {key!r} to be a list of objects")
    found = []
    for item in value:
        if not isinstance(item, dict):
            raise UnreadableError(f"is not node-link JSON: expected {key!r} to be a list of objects")
        inner = item.get("data")
        # Cytoscape keeps names and attributes under `data`, and the place on the page beside it
        found.append(inner | {"graphics": item.get("position")} if "elements" in document and isinstance(inner, dict) else item)
    return found


def _end(edge: dict[str, Any], key: str) -> Any:
    if key not in edge:
        raise UnreadableError(f"has an edge without {key!r}")
    end = edge[key]
    return end["id"] if isinstance(end, dict) and "id" in end else end  # d3 writes back whole nodes
