"""The ledger: what crossed every directed link, by plane and kind, and what became of it.

Theory of operation. A row belongs to a directed link (src, dst), a plane and a kind. The sender that puts a message on a link
books `messages`, `payload_bytes` and `wire_bytes`, and what the link did to it: the link model's verdict is known at
once. The receiver that takes it off books `delivered`. What is accepted but lies in the future when the run ends is `in_flight`.
So for every row of a whole run

    messages = delivered + dropped + in_flight,    dropped = the sum of its reasons,

which the command checks when a run is over (`imbalance`). `payload_bytes` counts the application's bytes on the link
where they reach an agent that they are meant for, so their sum does not depend on the routing; `wire_bytes` counts everything
that a link carries, headers, framing, transit and retransmissions included.

A frame carries E copies of a message; the books count each, in sizes that one deployed copy would send.
"""

from collections import defaultdict
from collections.abc import Iterable
from functools import lru_cache
from typing import Literal, NamedTuple

from topology.snapshot import State
from topology.wire.frame import framed

Plane = Literal["peer", "world", "central"]
REASONS = ("loss", "queue", "outage", "crash", "gave_up", "late")  # in the order of `link_model.Fate`, from Fate.LOSS on


class Row(NamedTuple):
    """One line of the ledger.

    Attributes:
        round: The round that the messages belong to.
        plane: `peer`, `world` or `central`.
        src: The sender: an agent id, "world" or "critic".
        dst: The receiver.
        kind: Name of the message kind.
        messages: Messages put on the link.
        payload_bytes: Application bytes that reached their addressee over this link.
        wire_bytes: All bytes on the link.
        resent_bytes: The part of `wire_bytes` that repeated what had been lost.
        delivered: Messages taken off the link.
        dropped: Messages that did not arrive, for one of the reasons that follow.
        loss: Lost on the way.
        queue: Refused by a full queue.
        outage: Sent while the link was down.
        crash: Sent to a node that was down.
        gave_up: Retransmitted as often as allowed, without success.
        late: Too late to be of use (on the wall clock, or when an agent has died).
        in_flight: On the way when the run ended.
        nulls: The part of `messages` that said only that nothing had changed (event-triggered states).
    """

    round: int
    plane: str
    src: str
    dst: str
    kind: str
    messages: int = 0
    payload_bytes: int = 0
    wire_bytes: int = 0
    resent_bytes: int = 0
    delivered: int = 0
    dropped: int = 0
    loss: int = 0
    queue: int = 0
    outage: int = 0
    crash: int = 0
    gave_up: int = 0
    late: int = 0
    in_flight: int = 0
    nulls: int = 0

    @property
    def counts(self) -> tuple[int, ...]:
        """All that is counted, `messages` first."""
        return tuple(count for count in self[_KEY:] if isinstance(count, int))


_KEY = 5
_COUNTS = Row._fields[_KEY:]
_MESSAGES, _PAYLOAD, _WIRE, _RESENT, _DELIVERED, _DROPPED = range(6)
_FIRST_REASON = _COUNTS.index(REASONS[0])
_IN_FLIGHT = _COUNTS.index("in_flight")
_NULLS = _COUNTS.index("nulls")


class Ledger:
    """One process's books. `drain` hands them over once per round and starts a new page."""

    def __init__(self, plane: Plane) -> None:
        self._plane = plane
        self._rows: defaultdict[tuple[int, str, str, str], list[int]] = defaultdict(lambda: [0] * len(_COUNTS))

    def sent(
        self,
        round_: int,
        src: str,
        dst: str,
        kind: str,
        messages: int,
        payload_bytes: int,
        wire_bytes: int,
        resent_bytes: int = 0,
    ) -> None:
        """Book messages put on a link."""
        row = self._rows[round_, src, dst, kind]
        row[_MESSAGES] += messages
        row[_PAYLOAD] += payload_bytes
        row[_WIRE] += wire_bytes
        row[_RESENT] += resent_bytes

    def nulls(self, round_: int, src: str, dst: str, kind: str, messages: int) -> None:
        """Book that messages put on a link say only that nothing has changed."""
        self._rows[round_, src, dst, kind][_NULLS] += messages

    def delivered(self, round_: int, src: str, dst: str, kind: str, messages: int) -> None:
        """Book messages taken off a link and used or relayed."""
        self._rows[round_, src, dst, kind][_DELIVERED] += messages

    def dropped(self, round_: int, src: str, dst: str, kind: str, reason: int, messages: int) -> None:
        """Book messages that the link, or the clock, has swallowed, by place of the reason in `REASONS`."""
        row = self._rows[round_, src, dst, kind]
        row[_DROPPED] += messages
        row[_FIRST_REASON + reason] += messages

    def in_flight(self, round_: int, src: str, dst: str, kind: str, messages: int) -> None:
        """The run is over: messages booked as delivered turn out to be still on the way."""
        row = self._rows[round_, src, dst, kind]
        row[_DELIVERED] -= messages
        row[_IN_FLIGHT] += messages

    def drain(self, through: int | None = None) -> list[Row]:
        """The rows booked since the last call, in a fixed order; those of rounds after `through` are kept for the next."""
        keys = sorted(key for key in self._rows if through is None or key[0] <= through)
        rows = []
        for key in keys:
            round_, src, dst, kind = key
            rows.append(Row(round_, self._plane, src, dst, kind, *self._rows.pop(key)))
        return rows

    def state(self) -> State:
        """What has been booked and not been handed over."""
        return {"rows": [[*key, *counts] for key, counts in sorted(self._rows.items())]}

    def restore(self, state: State) -> None:
        """Take up books where they were left."""
        self._rows.clear()
        for round_, src, dst, kind, *counts in state["rows"]:
            self._rows[round_, src, dst, kind] = counts


def imbalance(rows: Iterable[Row]) -> str | None:
    """The first row whose messages are not all accounted for, as a sentence; None if the books balance."""
    for row in rows:
        reasons = row.loss + row.queue + row.outage + row.crash + row.gave_up + row.late
        if row.messages != row.delivered + row.dropped + row.in_flight or row.dropped != reasons:
            return (
                f"the ledger does not balance: {row.plane} {row.kind} {row.src} -> {row.dst}, round {row.round}: "
                f"{row.messages} sent, {row.delivered} delivered, {row.dropped} dropped ({reasons} with a reason), "
                f"{row.in_flight} in flight"
            )
    return None


@lru_cache(maxsize=4096)  # a run knows a few sizes, and asks once per message
def wire_bytes(header_bytes: int, *bodies: int, copies: int = 1, frame_extra: int = 0) -> int:
    """Bytes on the wire of one message, as `copies` deployments would send it.

    Args:
        header_bytes: Length of the header frame.
        bodies: Length of each further frame of one copy.
        copies: E.
        frame_extra: What encryption adds to each frame.

    Example:
        >>> wire_bytes(30, 52), wire_bytes(30, 52, copies=10)
        (86, 860)
    """
    return copies * (framed(header_bytes + frame_extra) + sum(framed(size + frame_extra) for size in bodies))
