"""What a graph file lists, in the same shape for every format, before it becomes the graph of a run.

Names are texts: an integer of any size is its digits. Attributes keep the type that the file gives them; GraphML, edge lists
and tables give texts. `topology.foreign.number` reads either.
"""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

from topology.foreign import UnreadableError, quoted

Interval = tuple[float, float]  # [from, until) in seconds; until may be inf
MAX_NAME = 200  # characters


@dataclass(slots=True)
class Listed:
    """Nodes and edges as a file lists them.

    Attributes:
        nodes: Attributes by name, in the order of the file.
        edges: Two names and the attributes, in the order of the file; an edge may be listed twice, or join a node to itself.
        is_directed: Whether an edge has a direction.
        notes: What the reader left out, as sentences.
        contacts: When an edge can be used, by its two names; an edge without an entry can always be used.
    """

    nodes: dict[str, dict[str, Any]] = field(default_factory=dict)
    edges: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    is_directed: bool = False
    notes: list[str] = field(default_factory=list)
    contacts: dict[tuple[str, str], list[Interval]] = field(default_factory=dict)

    def add_node(self, name: object, attributes: dict[str, Any]) -> None:
        """Add a node of a section that lists each node once.

        Raises:
            UnreadableError: the name is not one, or is taken.
        """
        key = named(name)
        if key in self.nodes:
            raise UnreadableError(f"has two nodes named {quoted(key)}, expected a name of its own for each")
        self.nodes[key] = attributes

    def add_edge(self, a: object, b: object, attributes: dict[str, Any]) -> None:
        """Add an edge between nodes that are listed.

        Raises:
            UnreadableError: an end is not among the nodes.
        """
        ends = named(a), named(b)
        for key in ends:
            if key not in self.nodes:
                raise UnreadableError(f"has an edge to {quoted(key)}, which is not among its nodes")
        self.edges.append((*ends, attributes))


def named(name: object) -> str:
    """The text that a name is known by; a tuple, as networkx names the nodes of its grids, counts as a name.

    Raises:
        UnreadableError: it is not a text, a number or a tuple of these.
    """
    if isinstance(name, str) and 0 < len(name.strip()) <= MAX_NAME:
        return name.strip()
    if isinstance(name, Real) and not isinstance(name, bool):
        with contextlib.suppress(ValueError):  # Python refuses to write thousands of digits
            return named(str(name))
    if isinstance(name, list | tuple) and name and all(isinstance(part, str | Real) for part in name):
        return f"({', '.join(named(part) for part in name)})"
    raise UnreadableError(f"has a node named {quoted(name)}, expected a text of at most {MAX_NAME} characters or a number")


def lookup(attributes: Mapping[str, Any], *names: str) -> Any:
    """The attribute of the first of these names that is there, in upper or lower case; None: there is none."""
    folded = {str(key).casefold(): value for key, value in attributes.items()}
    return next((folded[name] for name in names if folded.get(name) is not None), None)


def counted(number_: int, noun: str) -> str:
    """A number and its noun, in the plural where it is one.

    Example:
        >>> counted(1, "node"), counted(2, "node")
        ('1 node', '2 nodes')
    """
    return f"{number_} {noun}{'' if number_ == 1 else 's'}"
