"""Contacts: a file that says when which edge can be used.

A line is a contact `from_s until_s a b`, or what a first line says: `a,b,from_s,until_s` in any order, or snapshots
`time_s,a,b`, each of which holds from its time until the next, the last for ever. Times are seconds of virtual time from the
start of the run. An `until_s` that is empty, '-' or 'inf' has no end. A contact holds both ways.
"""

import math
from collections.abc import Sequence

from topology.foreign import UnreadableError, number, quoted
from topology.graph.files.edge_list import SOURCE, TARGET
from topology.graph.files.listed import Interval
from topology.lines import Line, columns, read_lines

MAX_CONTACTS = 200_000  # every process of a run reads them
_FROM = ("from_s", "start_s", "begin_s", "start", "begin")
_UNTIL = ("until_s", "end_s", "stop_s", "until", "end", "stop")
_TIME = ("time_s", "t_s", "time", "t", "seconds")
_A, _B = ("a", "u", *SOURCE), ("b", "v", *TARGET)
_NO_END = {"", "-", "inf"}

Contacts = dict[tuple[str, str], list[Interval]]


def read(data: bytes) -> Contacts:
    """When each edge can be used, by its names as the file first gives them; intervals as listed, they may overlap.

    Raises:
        UnreadableError: a line is not a contact, or there are too many.
    """
    lines = read_lines(data)
    if not lines:
        raise UnreadableError("has no contacts, expected lines: from_s until_s a b")
    if len(lines) > MAX_CONTACTS:
        raise UnreadableError(f"has {len(lines)} lines, expected at most {MAX_CONTACTS}")
    header = lines[0].fields
    if places := columns(header, _FROM, _UNTIL, _A, _B):
        return _listed(lines[1:], places, len(header))
    if places := columns(header, _TIME, _A, _B):
        return _snapshots(lines[1:], places, len(header))
    if number(header[0]) is None:
        raise UnreadableError(
            f"line {lines[0].number}: got {quoted(lines[0].text)}, expected: from_s until_s a b, or a first line that names "
            "these columns, or time_s, a and b"
        )
    return _listed(lines, [0, 1, 2, 3], 4)


def _listed(lines: Sequence[Line], places: Sequence[int], width: int) -> Contacts:
    contacts: Contacts = {}
    for line in lines:
        _check(line, width)
        begin, end, a, b = (line.fields[at] for at in places)
        from_s = _moment(line, begin)
        until_s = math.inf if end.casefold() in _NO_END else _moment(line, end)
        if until_s <= from_s:
            raise UnreadableError(f"line {line.number}: got a contact until {end} s, expected an end later than {begin} s")
        _edge(contacts, line, a, b).append((from_s, until_s))
    return contacts


def _snapshots(lines: Sequence[Line], places: Sequence[int], width: int) -> Contacts:
    rows = []
    for line in lines:
        _check(line, width)
        time, a, b = (line.fields[at] for at in places)
        rows.append((_moment(line, time), line, a, b))
    moments = sorted({moment for moment, *_ in rows})
    until = dict(zip(moments, [*moments[1:], math.inf], strict=True))
    contacts: Contacts = {}
    for moment, line, a, b in rows:
        _edge(contacts, line, a, b).append((moment, until[moment]))
    return contacts


def _edge(contacts: Contacts, line: Line, a: str, b: str) -> list[Interval]:
    if not a or not b or a == b:
        raise UnreadableError(f"line {line.number}: got {quoted(line.text)}, expected two different nodes")
    return contacts.setdefault((b, a) if (b, a) in contacts else (a, b), [])


def _check(line: Line, width: int) -> None:
    if len(line.fields) != width:
        raise UnreadableError(f"line {line.number}: got {len(line.fields)} fields, expected {width}")


def _moment(line: Line, field: str) -> float:
    value = number(field)
    if value is None or value < 0:
        raise UnreadableError(f"line {line.number}: got {quoted(field)}, expected seconds of 0 or more")
    return value
