"""The peer plane: what is booked is what crosses the links, and only those who may speak are heard."""

import contextlib
import select
import socket
import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

import networkx as nx
import numpy as np
import pytest
from numpy.typing import NDArray

from topology.ledger import Row, merge, wire_bytes
from topology.links import Context, MemoryLinks, ZmqLinks, new_context
from topology.peer_plane import PeerPlane
from topology.wire import Header, Kind, Message, encode_header

LINE: "nx.Graph[int]" = nx.path_graph(4)


def planes(n: int = 4, *, direct: bool = False, copies: int = 2) -> list[PeerPlane]:
    hears = [[j for j in range(n) if j != i] if direct else sorted(LINE.neighbors(i)) for i in range(n)]
    return [
        PeerPlane(i, LINE, carrier, hears=hears[i], direct=direct, copies=copies) for i, carrier in enumerate(MemoryLinks.mesh(n))
    ]


def send(plane: PeerPlane, to: int, data: NDArray[np.float32], **changes: Any) -> None:
    usual: dict[str, Any] = {
        "origin": plane._agent, "round_": 0, "step": 3, "hops_left": 0, "send_time": 0.15, "addressed": True,
    }  # fmt: skip
    plane.send(Kind.STATE, data, to=to, **(usual | changes))


def taken(plane: PeerPlane) -> Message:
    message = plane.receive(0.0)
    assert message is not None
    plane.taken(message.header)
    return message


STATE = np.arange(6, dtype=np.float32).reshape(2, 3)


def test_a_message_arrives_as_it_was_sent_with_its_number_on_the_link() -> None:
    mine, other, *_ = planes()
    for number in range(3):
        send(mine, 1, STATE, step=number)
        message = taken(other)
        assert message.header[3:] == (0, 0, 0, number, 0, number, 0.15)
        assert message.arrays[0].tobytes() == STATE.tobytes()


def test_delivered_rows_equal_sent_rows() -> None:
    a, b, c, _ = planes()
    send(a, 1, STATE)
    send(b, 2, STATE, origin=0)
    send(b, 0, STATE)
    taken(b), taken(c), taken(a)
    rows = merge([*a.drain(), *b.drain(), *c.drain()])
    assert [(row.src, row.dst, row.messages, row.delivered, row.dropped) for row in rows] == [
        ("0", "1", 1, 1, 0), ("1", "0", 1, 1, 0), ("1", "2", 1, 1, 0),
    ]  # fmt: skip


def test_payload_counts_only_where_it_reaches_somebody_who_uses_it() -> None:
    a, b, c, _ = planes()
    send(a, 1, STATE, addressed=False)
    send(b, 2, STATE, origin=0, addressed=True)
    rows = merge([*a.drain(), *b.drain(), *c.drain()])
    assert [row.payload_bytes for row in rows] == [0, 24]
    assert all(row.wire_bytes > 24 for row in rows)


def test_an_overlay_message_is_booked_on_every_link_of_the_shortest_path() -> None:
    a, _, _, d = planes(direct=True)
    send(a, 3, STATE)
    sent = a.drain()
    assert [(row.src, row.dst, row.payload_bytes) for row in sent] == [("0", "1", 0), ("1", "2", 0), ("2", "3", 24)]
    assert len({row.wire_bytes for row in sent}) == 1
    taken(d)
    both = merge([*sent, *d.drain()])
    assert all(row.messages == row.delivered == 1 for row in both)


def test_relay_and_overlay_book_the_same_payload_and_messages_for_the_same_path() -> None:
    a, b, c, d = planes()
    send(a, 1, STATE, addressed=False)
    send(b, 2, STATE, origin=0, addressed=False)
    send(c, 3, STATE, origin=0, addressed=True)
    relayed = merge([*a.drain(), *b.drain(), *c.drain(), *d.drain()])
    overlay = planes(direct=True)[0]
    send(overlay, 3, STATE)
    assert [row[:7] for row in relayed] == [row[:7] for row in overlay.drain()]


def test_copies_are_charged_as_so_many_deployments() -> None:
    (plane, *_), (one, *_) = planes(copies=2), planes(copies=1)
    send(plane, 1, STATE)
    send(one, 1, STATE[:1])
    (two_rows,), (one_row,) = plane.drain(), one.drain()
    assert two_rows.wire_bytes == 2 * one_row.wire_bytes
    assert two_rows.payload_bytes == 2 * one_row.payload_bytes == 24


def test_copies_that_send_different_amounts_are_charged_each_its_own() -> None:
    plane, *_ = planes(copies=3)
    send(plane, 1, np.zeros(5, np.float32), copy_bytes=[8, 0, 12])
    (row,) = plane.drain()
    size = len(encode_header(Header(1, 1, 1, 0, 0, 0, 3, 0, 0, 0.15)))
    assert row.wire_bytes == sum(wire_bytes(size, part) for part in (8, 0, 12))
    assert row.payload_bytes == 20


def test_whoever_may_not_be_heard_is_refused_counted_and_harms_nobody() -> None:
    a, b, c, d = planes()
    send(d, 1, STATE)  # three is no neighbour of one
    send(c, 1, STATE)
    message = b.receive(0.0)
    assert message is not None
    assert message.header.sender == 2
    assert b.refused == ["message from 3, whom agent 1 may not hear"]
    assert b.receive(0.0) is None
    assert a.refused == c.refused == []


def test_garbage_is_refused_counted_and_harms_nobody() -> None:
    carriers = MemoryLinks.mesh(2)
    plane = PeerPlane(1, LINE, carriers[1], hears=[0], direct=False, copies=1)
    for frames in ([b"\xc1", b""], [b""], [b"x"] * 9, [b"\x91" * 90, b"abcd"]):
        carriers[0].send(1, frames)
    send(PeerPlane(0, LINE, carriers[0], hears=[], direct=False, copies=1), 1, STATE)
    assert taken(plane).arrays[0].tobytes() == STATE.tobytes()
    assert len(plane.refused) == 4


def test_a_message_refused_later_is_booked_as_dropped_not_delivered() -> None:
    a, b, *_ = planes()
    send(a, 1, STATE)
    message = b.receive(0.0)
    assert message is not None
    b.refuse(message.header, "came twice")
    assert b.refused == ["came twice"]
    (row,) = merge([*a.drain(), *b.drain()])
    assert (row.messages, row.delivered, row.dropped) == (1, 0, 1)


# ------------------------------------------------------------------------------------------- against the bytes on a socket


class CountingProxy:
    """Passes bytes between one tcp client and a server, and counts those of the client."""

    def __init__(self, server: tuple[str, int]) -> None:
        self._server = server
        self._door = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._door.getsockname()[1]
        self.count = 0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._end.set()
        self._thread.join()

    def settled(self, quiet_s: float = 0.3) -> int:
        """The count, once it has stood still for a while."""
        deadline = time.monotonic() + 10
        before, since = self.count, time.monotonic()
        while time.monotonic() < deadline and time.monotonic() - since < quiet_s:
            self._end.wait(0.02)
            if self.count != before:
                before, since = self.count, time.monotonic()
        return before

    def _serve(self) -> None:
        with self._door:
            self._door.settimeout(10)
            client, _ = self._door.accept()
        with client, socket.create_connection(self._server) as server:
            while not self._end.is_set():
                for readable in select.select([client, server], [], [], 0.02)[0]:
                    data = readable.recv(1 << 16)
                    if not data:
                        return
                    if readable is client:
                        self.count += len(data)
                    (server if readable is client else client).sendall(data)


@pytest.fixture
def over_tcp() -> Iterator[tuple[PeerPlane, PeerPlane, CountingProxy]]:
    context: Context = new_context()
    with contextlib.ExitStack() as stack:
        stack.callback(context.destroy, 0)
        receiver = ZmqLinks(context, "tcp://127.0.0.1:*", deadline_s=5.0, depth=50)
        stack.callback(receiver.close)
        proxy = stack.enter_context(CountingProxy(("127.0.0.1", int(receiver.endpoint.rpartition(":")[2]))))
        sender = ZmqLinks(context, "tcp://127.0.0.1:*", deadline_s=5.0, depth=50)
        sender.connect({1: f"tcp://127.0.0.1:{proxy.port}"})
        stack.callback(sender.close)
        yield (
            PeerPlane(0, LINE, sender, hears=[], direct=False, copies=1),
            PeerPlane(1, LINE, receiver, hears=[0], direct=False, copies=1),
            proxy,
        )


def test_with_one_copy_the_ledger_is_what_passes_over_the_socket_byte_for_byte(
    over_tcp: tuple[PeerPlane, PeerPlane, CountingProxy],
) -> None:
    here, there, proxy = over_tcp
    before = proxy.settled()
    assert before > 0, "no handshake came by"
    kinds = [
        (Kind.STATE, np.zeros((1, 13), np.float32), None),
        (Kind.STATE, np.zeros((1, 63), np.float32), None),  # 252 bytes: the last size with a short length
        (Kind.STATE, np.zeros((1, 64), np.float32), None),  # 256: the first with a long one
        (Kind.RATIO, np.zeros((1000, 1), np.float32), None),
        (Kind.REWARD, np.zeros((1000, 1), np.float32), None),
        (Kind.BOOTSTRAP, np.zeros((3, 13), np.float32), [3 * 4 * 13]),
        (Kind.BOOTSTRAP, np.zeros((0, 13), np.float32), [0]),
    ]
    booked: list[Row] = []
    for round_, (kind, data, copy_bytes) in enumerate(kinds):
        here.send(
            kind, data, to=1, origin=0, round_=300 * round_, step=70 * round_, hops_left=round_, send_time=0.05 * round_,
            addressed=True, copy_bytes=copy_bytes,
        )  # fmt: skip
        message = there.receive(10.0)
        assert message is not None
        there.taken(message.header)
        rows = here.drain()
        booked += rows
        assert proxy.settled(0.1) - before == rows[0].wire_bytes, kind
        before = proxy.count
    assert [row.payload_bytes for row in booked] == [data.nbytes for _, data, _ in kinds]
    assert sum(row.delivered for row in there.drain()) == len(kinds)
