"""The ledger: what crossed every directed link, by plane and kind, and what became of it.

Theory of operation. A row belongs to a directed link (src, dst), a plane and a kind. Whoever puts a message on the wire
books `messages`, `payload_bytes` and `wire_bytes`; whoever takes it off books `delivered`, or `dropped` with a reason.
`payload_bytes` counts the application's bytes on the link where they reach somebody they are meant for, so their sum
does not depend on the routing; `wire_bytes` counts everything that a link carries, headers and framing and transit
included.

Sizes are those that one deployed copy would send, summed over the E copies that a frame carries.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from topology.wire import framed

Plane = Literal["peer", "world"]


class Row(NamedTuple):
    """One line of the ledger.

    Attributes:
        round: The round that the messages belong to.
        plane: `peer` or `world`.
        src: Who sent: an agent id, or "world".
        dst: Who received.
        kind: Name of the message kind.
        messages: Messages put on the link.
        payload_bytes: Application bytes that reached their addressee over this link.
        wire_bytes: All bytes on the link.
        delivered: Messages taken off the link.
        dropped: Messages that were lost or refused.
    """

    round: int
    plane: str
    src: str
    dst: str
    kind: str
    messages: int
    payload_bytes: int
    wire_bytes: int
    delivered: int
    dropped: int


@dataclass(slots=True)
class Ledger:
    """One process's books. `drain` hands them over once per round and starts a new page."""

    plane: Plane
    _sent: defaultdict[tuple[int, str, str, str], list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0, 0]))
    _received: defaultdict[tuple[int, str, str, str], list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0]))

    def sent(self, round_: int, src: str, dst: str, kind: str, payload_bytes: int, wire_bytes: int) -> None:
        """Book one message put on a link."""
        row = self._sent[round_, src, dst, kind]
        row[0] += 1
        row[1] += payload_bytes
        row[2] += wire_bytes

    def delivered(self, round_: int, src: str, dst: str, kind: str) -> None:
        """Book one message taken off a link and used or relayed."""
        self._received[round_, src, dst, kind][0] += 1

    def dropped(self, round_: int, src: str, dst: str, kind: str) -> None:
        """Book one message taken off a link and refused."""
        self._received[round_, src, dst, kind][1] += 1

    def drain(self) -> list[Row]:
        """The rows booked since the last call, in a fixed order."""
        rows = []
        for key in sorted(self._sent.keys() | self._received.keys()):
            messages, payload, wire = self._sent.get(key, (0, 0, 0))
            delivered, dropped = self._received.get(key, (0, 0))
            round_, src, dst, kind = key
            rows.append(Row(round_, self.plane, src, dst, kind, messages, payload, wire, delivered, dropped))
        self._sent.clear()
        self._received.clear()
        return rows


def merge(rows: Iterable[Row]) -> list[Row]:
    """Rows of many processes added up per round, plane, link and kind, in a fixed order."""
    total: dict[tuple[int, str, str, str, str], list[int]] = {}
    for row in rows:
        sums = total.setdefault(row[:5], [0, 0, 0, 0, 0])
        for place, value in enumerate(row[5:]):
            sums[place] += value
    return [Row(*key, *sums) for key, sums in sorted(total.items())]


def wire_bytes(header_bytes: int, *arrays: int, copies: int = 1) -> int:
    """Bytes on the wire of one message, as `copies` deployments would send it.

    Args:
        header_bytes: Length of the header frame.
        arrays: Length of each array frame of one copy.
        copies: E.

    Example:
        >>> wire_bytes(30, 52), wire_bytes(30, 52, copies=10)
        (86, 860)
    """
    return copies * (framed(header_bytes) + sum(framed(size) for size in arrays))
