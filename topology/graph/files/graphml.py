"""GraphML: of networkx, yEd, Cytoscape, OSMnx, the Topology Zoo; with or without namespace and types.

An attribute has the name that its key declares, or the key's id where it declares none. Values stay texts.
"""

from collections.abc import Iterator
from typing import Any
from xml.etree.ElementTree import Element

from topology.foreign import UnreadableError
from topology.graph.files.listed import Listed


def read(root: Element) -> Listed:
    """The graph of a GraphML document.

    Raises:
        UnreadableError: it has no graph, or more than one, or hyperedges.
    """
    graphs = list(root.iter("graph"))
    if len(graphs) != 1:
        found = "has more than one <graph>" if graphs else "is not GraphML: it has no <graph>"
        raise UnreadableError(f"{found}, expected a single flat one")
    (graph,) = graphs
    if next(graph.iter("hyperedge"), None) is not None:
        raise UnreadableError("has a <hyperedge>, expected edges between two nodes")
    keys = {key.get("id", ""): key for key in root.iter("key")}
    is_directed = graph.get("edgedefault", "undirected") == "directed"
    listed = Listed(is_directed=is_directed)
    for node in graph.iter("node"):
        listed.add_node(_field(node, "id"), dict(_attributes(node, keys, "node")))
    for edge in graph.iter("edge"):
        listed.add_edge(_field(edge, "source"), _field(edge, "target"), dict(_attributes(edge, keys, "edge")))
        listed.is_directed |= edge.get("directed", "false") in {"true", "1"}
    return listed


def _attributes(element: Element, keys: dict[str, Element], domain: str) -> Iterator[tuple[str, Any]]:
    for key in keys.values():
        default = key.findtext("default")
        if default is not None and key.get("for", "all") in {domain, "all"}:
            yield _name(key), default.strip()
    for data in element.findall("data"):
        identity = data.get("key", "")
        if len(data):  # a picture of yEd's
            label, box = data.find(".//NodeLabel"), data.find(".//Geometry")
            if label is not None and (label.text or "").strip():
                yield "label", (label.text or "").strip()
            if box is not None:
                yield "graphics", dict(box.attrib)
        elif data.text is not None:
            yield _name(keys[identity]) if identity in keys else identity, data.text.strip()


def _name(key: Element) -> str:
    return key.get("attr.name", key.get("id", ""))


def _field(element: Element, name: str) -> str:
    value = element.get(name)
    if value is None:
        raise UnreadableError(f"has {'an' if element.tag == 'edge' else 'a'} <{element.tag}> without {name!r}")
    return value
