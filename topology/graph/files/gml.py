"""GML, read by networkx: of the Topology Zoo, topohub, yEd, Gephi."""

import re
from typing import Any

import networkx as nx

from topology.foreign import UnreadableError, text_of, told
from topology.graph.files.listed import Listed, named

_GRAPH = re.compile(r"^(\s*graph\s*\[)", re.MULTILINE)


def read(data: bytes) -> Listed:
    """The graph of a GML file.

    Raises:
        UnreadableError: it is not GML.
    """
    # whatever the file says of itself, an edge may be listed twice; a key that is given twice is read as true
    text, found = _GRAPH.subn(r"\1 multigraph 1 ", text_of(data), count=1)
    if not found:
        raise UnreadableError("is not GML: it has no line 'graph ['")
    try:
        graph = nx.parse_gml(text, label=None)
    except (nx.NetworkXError, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise UnreadableError(f"is not GML: {told(error)}") from None
    listed = Listed(is_directed=graph.is_directed())
    for name, attributes in graph.nodes(data=True):
        listed.add_node(name, dict(attributes))
    for a, b, attributes in graph.edges(data=True):
        listed.edges.append((named(a), named(b), _flat(attributes)))
    return listed


def _flat(attributes: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in attributes.items() if not isinstance(value, dict | list)}
