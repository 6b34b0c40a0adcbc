"""Power networks of MATPOWER (.m): the agents are the buses, the edges the branches that are in service.

Only the matrices `mpc.bus` and `mpc.branch` and the names `mpc.bus_name` are read, as text; nothing is evaluated.

Source:
    MATPOWER User's Manual, appendix B: a bus begins with its number; a branch has from, to, r, x, b, rateA, rateB, rateC,
    ratio, angle, status. r, x and b are per unit, rateA is in MVA.
"""

import re

from topology.foreign import UnreadableError, number, quoted, text_of
from topology.graph.files.listed import Listed, counted

_COLUMNS = {"r": 2, "x": 3, "b": 4, "rateA": 5}
_STATUS = 10
_NAME = re.compile(r"'([^']*)'")


def read(data: bytes) -> Listed:
    """The graph of a MATPOWER case.

    Raises:
        UnreadableError: it has no buses, or a row that is not of numbers.
    """
    text = "\n".join(line.partition("%")[0] for line in text_of(data).splitlines())
    buses, branches = _matrix(text, "bus"), _matrix(text, "branch")
    names = _NAME.findall(_between(text, "bus_name", "{", "}") or "")
    listed = Listed()
    for place, bus in enumerate(buses):
        listed.add_node(_bus(bus[0]), {"name": names[place]} if len(names) == len(buses) else {})
    out = 0
    for branch in branches:
        if len(branch) < 2:
            raise UnreadableError(f"has a branch of {counted(len(branch), 'column')}, expected its two buses first")
        if len(branch) > _STATUS and branch[_STATUS] == 0:
            out += 1
            continue
        listed.add_edge(_bus(branch[0]), _bus(branch[1]), {name: branch[at] for name, at in _COLUMNS.items() if at < len(branch)})
    if out:
        listed.notes.append(f"{counted(out, 'branch').replace('branchs', 'branches')} out of service left out")
    return listed


def _bus(value: float) -> str:
    if value != int(value):
        raise UnreadableError(f"has a bus number {value:g}, expected a whole one")
    return str(int(value))


def _between(text: str, name: str, opening: str, closing: str) -> str | None:
    # by plain search: a pattern for all of it would take time in the square of the file's size on hostile ones
    found = re.search(rf"\bmpc\.{name}\s*=\s*{re.escape(opening)}", text)
    if found is None:
        return None
    end = text.find(closing, found.end())
    return text[found.end() : end] if end >= 0 else None


def _matrix(text: str, name: str) -> list[list[float]]:
    body = _between(text, name, "[", "]")
    if body is None:
        raise UnreadableError(f"is not a MATPOWER case: it has no 'mpc.{name} = [...];'")
    rows = []
    for row in re.split(r"[;\n]", body):
        words = row.replace(",", " ").split()
        values = [number(word) for word in words]
        if None in values and any(word.casefold() not in {"inf", "-inf", "nan"} for word in words if number(word) is None):
            raise UnreadableError(f"mpc.{name}: got the row {quoted(row.strip())}, expected numbers")
        if values:
            rows.append([0.0 if value is None else value for value in values])
    if not rows:
        raise UnreadableError(f"mpc.{name}: got no rows, expected at least one")
    return rows
