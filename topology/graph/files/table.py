"""CSV: an adjacency matrix, with or without names in its first row and column, or a table of edges.

A first line that names `source` and `target` makes it a table of edges. A square of numbers is a matrix: an entry other than 0
is an edge, with the entry as its `weight`; an empty entry, nan and inf are none. Anything else is read as an edge list.
"""

import math
from collections.abc import Sequence

from topology.foreign import UnreadableError, quoted
from topology.graph.files import edge_list
from topology.graph.files.listed import Listed
from topology.lines import Line, columns, read_lines


def read(data: bytes) -> Listed:
    """The graph of a CSV file.

    Raises:
        UnreadableError: it is neither a matrix nor a list of edges.
    """
    lines = read_lines(data)
    if not lines or columns(lines[0].fields, edge_list.SOURCE, edge_list.TARGET):
        return edge_list.of_lines(lines)
    width = max(len(line.fields) for line in lines)
    try:
        has_header, has_column = _margins(lines, width)
        return _matrix(lines[0].fields if has_header else (), lines[has_header:], has_column=has_column)
    except UnreadableError:
        if width <= 3:  # two names and perhaps a weight
            return edge_list.of_lines(lines)
        raise


def _margins(lines: Sequence[Line], width: int) -> tuple[bool, bool]:
    """Whether the first row, and whether the first column holds names.

    Raises:
        UnreadableError: the rows make no square.
    """
    first, rows = lines[0].fields, len(lines)
    above = any(_entry(field) is None for field in first[1:]) or not first[0] or len(first) < width
    beside = any(_entry(line.fields[0]) is None for line in lines[1:])
    if rows == width:
        return (above or beside,) * 2
    if rows == width + 1 and (above or width > 3):
        return True, False
    if rows == width - 1 and (beside or _entry(first[0]) is None):
        return False, True
    raise UnreadableError(
        f"has {rows} rows and {width} columns, expected a matrix with as many rows as columns, with or without names, or a first "
        "line that names source and target"
    )


def _matrix(header: Sequence[str], body: Sequence[Line], *, has_column: bool) -> Listed:
    size = len(body)
    names = [line.fields[0] for line in body] if has_column else list(header) or [str(at) for at in range(size)]
    if has_column and header and list(header[-size:]) != names:
        raise UnreadableError("names its rows otherwise than its columns, expected the same names in the same order")
    listed = Listed()
    for name in names:
        listed.add_node(name, {})
    entries: dict[tuple[int, int], float] = {}
    for row, line in enumerate(body):
        fields = line.fields[has_column:]
        if len(fields) != size:
            raise UnreadableError(f"line {line.number}: got {len(fields)} entries, expected {size}")
        for column, field in enumerate(fields):
            value = _entry(field)
            if value is None:
                raise UnreadableError(f"line {line.number}: got {quoted(field)}, expected a number")
            if value and math.isfinite(value):
                entries[row, column] = value
    listed.is_directed = any(entries.get((b, a)) != value for (a, b), value in entries.items())
    for (a, b), value in entries.items():
        if listed.is_directed or a <= b:
            listed.add_edge(names[a], names[b], {"weight": value})
    return listed


def _entry(field: str) -> float | None:
    if not field:
        return 0.0
    try:
        return float(field)
    except ValueError:
        return None
