"""Edge lists and tables: a line `a b` for an edge, or `a` alone for a node.

A first line such as `source,target,dist` names the columns, and those beyond the two ends are attributes. Without one, what
follows the two names is numbers (the first is kept as `weight`) or the attributes that networkx writes in braces.
"""

import re
from collections.abc import Sequence
from typing import Any

from topology.foreign import UnreadableError, number, quoted
from topology.graph.files.listed import Listed, named
from topology.lines import Line, columns, read_lines

SOURCE = ("source", "src", "from", "from_node", "node1", "node_1")
TARGET = ("target", "dst", "destination", "dest", "to", "to_node", "node2", "node_2")
_BRACED = re.compile(r"""['"](\w+)['"]\s*:\s*(?:['"]([^'"]*)['"]|([-+.\w]+))""")


def read(data: bytes) -> Listed:
    """The graph of an edge list.

    Raises:
        UnreadableError: a line is not an edge, a node or a comment.
    """
    return of_lines(read_lines(data))


def of_lines(lines: Sequence[Line]) -> Listed:
    """The graph of an edge list whose lines are read already.

    Raises:
        UnreadableError: as `read`.
    """
    listed = Listed()
    header = lines[0].fields if lines else ()
    ends = columns(header, SOURCE, TARGET)
    for line in lines[1:] if ends else lines:
        if ends:
            names, attributes = _by_header(line, header, ends)
        else:
            names, attributes = _plain(line)
        for name in names:
            if not name:
                raise UnreadableError(f"line {line.number}: got {quoted(line.text)}, expected two node names")
            listed.nodes.setdefault(named(name), {})
        if len(names) == 2:
            listed.edges.append((names[0], names[1], attributes))
    return listed


def _by_header(line: Line, header: Sequence[str], ends: Sequence[int]) -> tuple[Sequence[str], dict[str, Any]]:
    if len(line.fields) != len(header):
        raise UnreadableError(f"line {line.number}: got {len(line.fields)} fields, expected the {len(header)} of the first line")
    attributes = {name: field for at, (name, field) in enumerate(zip(header, line.fields, strict=True)) if at not in ends}
    return [line.fields[at] for at in ends], attributes


def _plain(line: Line) -> tuple[Sequence[str], dict[str, Any]]:
    if "{" in line.text:  # as networkx writes edges with attributes
        ends = line.text.partition("{")[0].split()
        if len(ends) == 2:
            return ends, {key: text or bare for key, text, bare in _BRACED.findall(line.text)}
    names, more = line.fields[:2], [field for field in line.fields[2:] if field]
    if any(number(field) is None for field in more):
        raise UnreadableError(
            f"line {line.number}: got {quoted(line.text)}, expected two node names; "
            "to read further columns, name all in a first line: source target ..."
        )
    return [name for name in names if name] if len(names) == 1 else names, {"weight": more[0]} if more else {}
