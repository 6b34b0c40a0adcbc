"""The peer plane: what is booked is what crosses the links, and only those who may speak are heard."""

import contextlib
from collections.abc import Iterator
from typing import Any

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from scenarios.kinds import Kind
from tests.wiretap import Wiretap
from topology.link.model import LinkModel, LinkSpec
from topology.planes.peer import LinkPath, PeerPlane, link_paths
from topology.wire.codec import DType, encode
from topology.wire.frame import Delivery, Header, Message, decode_delivery, encode_delivery, encode_header, framed
from topology.wire.ledger import REASONS, Row, imbalance, wire_bytes
from topology.wire.refusals import KEPT
from topology.wire.sockets import Context, MemoryLinks, ZmqLinks, new_context

LINE: nx.Graph = nx.path_graph(4)
NEVER = float("inf")
IDEAL = LinkSpec()
LOST = LinkSpec(loss_prob=1.0)
Specs = dict[tuple[int, int], LinkSpec]


def all_roads(agent: int, specs: Specs, *, direct: bool, copies: int, seed: int = 0) -> dict[int, LinkPath]:
    sends_to = [j for j in LINE if j != agent] if direct else sorted(LINE.neighbors(agent))

    def model(src: int, dst: int, on: tuple[int, ...]) -> LinkModel:
        return LinkModel([(0.0, specs.get((src, dst), IDEAL))], copies=copies, seed=seed, stream=(src, dst, *on))

    return link_paths(LINE, agent, sends_to, direct=direct, model=model)


def planes(
    specs: Specs | None = None,
    *,
    direct: bool = False,
    copies: int = 2,
    reliable: frozenset[Kind] = frozenset(),
    seed: int = 0,
    frame_extra: int = 0,
) -> list[PeerPlane]:
    return [
        PeerPlane(
            i,
            LINE,
            carrier,
            receives_from=[j for j in LINE if j != i] if direct else sorted(LINE.neighbors(i)),
            direct=direct,
            link_paths=all_roads(i, specs or {}, direct=direct, copies=copies, seed=seed),
            reliable=reliable,
            copies=copies,
            frame_extra=frame_extra,
        )
        for i, carrier in enumerate(MemoryLinks.mesh(len(LINE)))
    ]


def send(plane: PeerPlane, to: int, data: NDArray[np.float32], kind: Kind = Kind.STATE, **changes: Any) -> None:
    usual: dict[str, Any] = {
        "dtype": DType.FLOAT32, "origin": plane._agent, "round_": 0, "step": 3, "hops_left": 0, "time": 0.15,
        "addressed": True, "copy_bytes": 4 * data.shape[1],
    }  # fmt: skip
    called = usual | changes
    plane.send(kind, encode(data, called["dtype"]), to=to, **called)


def taken(plane: PeerPlane) -> tuple[Message, Delivery | None]:
    """The next message, booked for every copy that arrives."""
    refused = plane.refused.total
    while (message := plane.receive(0.0)) is None:
        assert plane.refused.total > refused, "nothing came"
        refused = plane.refused.total
    delivery = decode_delivery(message, plane._copies)
    plane.taken(message.header, plane._copies if delivery is None else int(np.isfinite(delivery.arrive).sum()))
    return message, delivery


def passed_on(
    plane: PeerPlane, to: int, message: Message, delivery: Delivery | None, data: NDArray[np.float32], **changes: Any
) -> None:
    """What a relay does with a message: its numbers and marks as they came."""
    usual = {"origin": message.header.origin, "time": message.header.send_time, "delivery": delivery}
    send(
        plane,
        to,
        np.frombuffer(message.bodies[0], np.float32).reshape(data.shape) if message.bodies[0] else data,
        **usual | changes,
    )


def booked(*them: PeerPlane) -> dict[tuple[str, str], Row]:
    """What all have booked, by link: the rows of both ends added up (as the record does)."""
    found: dict[tuple[str, str], Row] = {}
    for row in [row for plane in them for row in plane.drain()]:
        before = found.get((row.src, row.dst))
        if before is None:
            found[row.src, row.dst] = row
        else:
            assert before[:5] == row[:5]
            sums = (a + b for a, b in zip(before[5:], row[5:], strict=True))
            found[row.src, row.dst] = Row._make((*row[:5], *sums))
    return found


STATE = np.arange(1, 7, dtype=np.float32).reshape(2, 3)
HEADER_BYTES = len(encode_header(Header(1, 1, 1, 0, 0, 0, 3, 0, 0, 0.15)))
WIRE = wire_bytes(HEADER_BYTES, 12)  # of one copy of STATE


def test_a_message_arrives_as_it_was_sent_with_its_number_on_the_link() -> None:
    mine, other, *_ = planes()
    for number in range(3):
        send(mine, 1, STATE, step=number)
        message, delivery = taken(other)
        assert message.header[3:] == (0, 0, 0, number, 0, number, 0.15)
        assert message.bodies == (STATE.tobytes(),)
        assert delivery is None


def test_delivered_rows_equal_sent_rows() -> None:
    a, b, c, _ = planes()
    send(a, 1, STATE)
    send(b, 2, STATE, origin=0)
    send(b, 0, STATE)
    taken(b), taken(c), taken(a)
    rows = booked(a, b, c)
    assert {link: (row.messages, row.delivered, row.dropped) for link, row in rows.items()} == {
        ("0", "1"): (2, 2, 0), ("1", "0"): (2, 2, 0), ("1", "2"): (2, 2, 0),
    }  # fmt: skip


def test_payload_counts_only_where_it_reaches_somebody_who_uses_it() -> None:
    a, b, c, _ = planes()
    send(a, 1, STATE, addressed=False)
    send(b, 2, STATE, origin=0, addressed=True)
    rows = booked(a, b, c)
    assert [row.payload_bytes for row in rows.values()] == [0, 24]
    assert all(row.wire_bytes == 2 * WIRE for row in rows.values())


def test_an_overlay_message_is_booked_on_every_link_of_the_shortest_path() -> None:
    a, _, _, d = planes(direct=True)
    send(a, 3, STATE)
    sent = a.drain()
    assert [(row.src, row.dst, row.payload_bytes) for row in sent] == [("0", "1", 0), ("1", "2", 0), ("2", "3", 24)]
    assert {row.wire_bytes for row in sent} == {2 * WIRE}
    taken(d)
    assert imbalance(sent[:2]) is None
    (last,) = d.drain()
    assert (last.src, last.dst, last.delivered) == ("2", "3", 2)


def test_relay_and_overlay_book_the_same_for_the_same_path() -> None:
    a, b, c, d = planes()
    send(a, 1, STATE, addressed=False)
    taken(b)
    send(b, 2, STATE, origin=0, addressed=False)
    taken(c)
    send(c, 3, STATE, origin=0, addressed=True)
    taken(d)
    relayed = booked(a, b, c, d)
    overlay = planes(direct=True)
    send(overlay[0], 3, STATE)
    taken(overlay[3])
    assert relayed == booked(*overlay)


def test_copies_are_charged_as_so_many_deployments() -> None:
    (plane, *_), (one, *_) = planes(copies=2), planes(copies=1)
    send(plane, 1, STATE)
    send(one, 1, STATE[:1])
    (two_rows,), (one_row,) = plane.drain(), one.drain()
    assert two_rows[5:] == tuple(2 * count for count in one_row[5:])
    assert (one_row.messages, one_row.payload_bytes, one_row.wire_bytes) == (1, 12, WIRE)


@pytest.mark.parametrize("limited", [False, True])
def test_copies_that_send_different_amounts_are_charged_each_its_own(limited: bool) -> None:
    plane, *_ = planes({(0, 1): LinkSpec(delay_s=0.1)} if limited else {}, copies=3)
    send(plane, 1, np.zeros((5, 1), np.float32), copy_bytes=np.array([8, 0, 12]), row_copy=np.array([0, 0, 2, 2, 2]))
    (row,) = plane.drain()
    assert row.wire_bytes == sum(wire_bytes(HEADER_BYTES, part) for part in (8, 0, 12))
    assert (row.messages, row.payload_bytes) == (3, 20)


def test_smaller_numbers_are_charged_at_their_size(subtests: pytest.Subtests) -> None:
    for dtype in DType:
        with subtests.test(dtype=dtype):
            plane, other, *_ = planes()
            size = len(encode(STATE[:1], dtype))
            send(plane, 1, STATE, dtype=dtype, copy_bytes=size)
            assert taken(other)[0].header.dtype == dtype
            (row,) = plane.drain()
            assert (row.payload_bytes, row.wire_bytes) == (2 * size, 2 * wire_bytes(HEADER_BYTES, size))


# ------------------------------------------------------------------------------------------------------- links with limits


def test_links_without_limits_need_no_marks_and_no_model() -> None:
    assert all(road.models == () for road in all_roads(1, {}, direct=True, copies=2).values())
    found = all_roads(0, {(1, 2): LinkSpec(delay_s=1.0)}, direct=True, copies=2)
    assert [len(found[to].models) for to in (1, 2, 3)] == [0, 2, 3]  # one hop with limits, and all of the way are modelled
    assert found[3].hops == (("0", "1"), ("1", "2"), ("2", "3"))


def test_a_slow_link_says_when_each_copy_arrives() -> None:
    a, b, *_ = planes({(0, 1): LinkSpec(rate_bps=8.0 * WIRE, delay_s=0.25)})
    for step, arrive in ((3, 1.4), (4, 2.4)):  # one second each on the wire, one after the other
        send(a, 1, STATE, step=step)
        message, delivery = taken(b)
        assert delivery is not None
        assert delivery.arrive.tolist() == pytest.approx([arrive] * 2)
        assert not delivery.null.any()
        assert message.bodies[0] == STATE.tobytes()
        assert message.header.send_time == 0.15  # what it tells of, not when it came
    (row,) = booked(a, b).values()
    assert (row.messages, row.delivered, row.dropped, row.payload_bytes, row.wire_bytes) == (4, 4, 0, 48, 4 * WIRE)


def test_a_lost_copys_numbers_do_not_travel() -> None:
    a, b, *_ = planes({(0, 1): LinkSpec(loss_prob=0.5)}, copies=64)
    data = np.full((64, 3), 7.0, np.float32)
    send(a, 1, data)
    message, delivery = taken(b)
    assert delivery is not None
    lost = np.isinf(delivery.arrive)
    assert 0 < lost.sum() < 64
    found = np.frombuffer(message.bodies[0], np.float32).reshape(64, 3)
    assert (found[lost] == 0).all()
    assert (found[~lost] == 7).all()
    assert (delivery.arrive[~lost] == 0.15).all()
    (row,) = booked(a, b).values()
    there = int((~lost).sum())
    assert row == Row(
        0, "peer", "0", "1", "STATE", messages=64, payload_bytes=12 * there, wire_bytes=64 * WIRE, delivered=there,
        dropped=64 - there, loss=64 - there,
    )  # fmt: skip


def test_a_frame_all_of_whose_copies_are_lost_still_comes_so_that_nobody_waits_for_it() -> None:
    a, b, *_ = planes({(0, 1): LOST})
    send(a, 1, STATE)
    message, delivery = taken(b)
    assert message.bodies[0] == b""
    assert delivery is not None
    assert np.isinf(delivery.arrive).all()
    (row,) = booked(a, b).values()
    assert (row.messages, row.delivered, row.loss, row.payload_bytes) == (2, 0, 2, 0)
    assert imbalance([row]) is None


def test_rows_belong_to_copies_as_told() -> None:
    a, b, *_ = planes()
    data = np.arange(1, 6, dtype=np.float32)[:, None]
    gone = Delivery(np.array([0.0, NEVER]), np.zeros(2, np.bool_))
    send(a, 1, data, Kind.BOOTSTRAP, copy_bytes=np.array([8, 12]), row_copy=np.array([0, 1, 1, 0, 1]), delivery=gone)
    message, _ = taken(b)
    assert np.frombuffer(message.bodies[0], np.float32).tolist() == [1, 0, 0, 4, 0]
    (row,) = booked(a, b).values()
    assert (row.messages, row.delivered, row.payload_bytes) == (1, 1, 8)


def test_a_relay_passes_on_what_has_come_and_when_it_came() -> None:
    a, b, c, _ = planes({(0, 1): LinkSpec(loss_prob=0.5, delay_s=1.0), (1, 2): LinkSpec(delay_s=0.5)}, copies=64)
    data = np.full((64, 3), 7.0, np.float32)
    send(a, 1, data, addressed=False)
    message, first = taken(b)
    passed_on(b, 2, message, first, data)
    there, second = taken(c)
    assert first is not None
    assert second is not None
    assert (np.isinf(second.arrive) == np.isinf(first.arrive)).all()
    came = np.isfinite(first.arrive)
    assert second.arrive[came].tolist() == pytest.approx((first.arrive[came] + 0.5).tolist())
    assert there.bodies[0] == message.bodies[0]
    assert (there.header.origin, there.header.send_time) == (0, 0.15)
    rows = booked(a, b, c)
    assert rows["1", "2"].messages == rows["0", "1"].delivered == came.sum()
    assert rows["1", "2"].wire_bytes == came.sum() * WIRE
    assert [row.payload_bytes for row in rows.values()] == [0, 12 * came.sum()]
    assert imbalance(rows.values()) is None


def test_over_an_ideal_link_marks_go_on_as_they_are() -> None:
    a, b, *_ = planes(copies=3)
    delivery = Delivery(np.array([0.5, NEVER, 0.75]), np.array([False, False, True]))
    send(a, 1, np.ones((3, 3), np.float32), delivery=delivery)
    message, found = taken(b)
    assert found is not None
    assert found.arrive.tolist() == delivery.arrive.tolist()
    assert found.null.tolist() == delivery.null.tolist()
    assert np.frombuffer(message.bodies[0], np.float32).reshape(3, 3).tolist() == [[1.0] * 3, [0.0] * 3, [0.0] * 3]
    (row,) = booked(a, b).values()
    assert (row.messages, row.delivered, row.payload_bytes) == (2, 2, 12)
    assert row.wire_bytes == WIRE + wire_bytes(HEADER_BYTES, 0)  # nothing new: a header and an empty frame


@pytest.mark.parametrize("nth", [0, 1, 2])
def test_an_overlay_message_is_lost_on_the_hop_that_loses_it_and_goes_no_further(nth: int) -> None:
    a, _, _, d = everybody = planes({(nth, nth + 1): LOST}, direct=True)
    send(a, 3, STATE)
    _, delivery = taken(d)
    assert delivery is not None
    assert np.isinf(delivery.arrive).all()
    rows = [*booked(*everybody).values()]
    travelled = [row for row in rows if row.messages]
    assert [(row.src, row.dst) for row in travelled] == [(str(i), str(i + 1)) for i in range(nth + 1)]
    assert [(row.delivered, row.loss) for row in travelled] == [*[(2, 0)] * nth, (0, 2)]
    assert sum(row.payload_bytes for row in rows) == 0
    assert imbalance(rows) is None


def test_delays_of_an_overlays_hops_add_up() -> None:
    a, _, c, _ = planes({(0, 1): LinkSpec(delay_s=0.25), (1, 2): LinkSpec(delay_s=0.5)}, direct=True)
    send(a, 2, STATE)
    _, delivery = taken(c)
    assert delivery is not None
    assert delivery.arrive.tolist() == pytest.approx([0.9, 0.9])


limits = st.fixed_dictionaries({
    "rate_bps": st.sampled_from([NEVER, 1e3, 1e5]),
    "delay_s": st.sampled_from([0.0, 0.01]),
    "loss_prob": st.sampled_from([0.0, 0.3, 1.0]),
    "mtu_bytes": st.sampled_from([40, 1500]),
    "queue_bytes": st.sampled_from([NEVER, 200.0]),
    "retries": st.sampled_from([0, 1, 15]),
})


@given(
    first=limits,
    second=limits,
    direct=st.booleans(),
    resends=st.booleans(),
    seed=st.integers(0, 99),
    null=st.lists(st.booleans(), min_size=4, max_size=4),
)
def test_books_balance_whatever_the_links_do(
    first: dict[str, Any], second: dict[str, Any], direct: bool, resends: bool, seed: int, null: list[bool]
) -> None:
    specs = {(0, 1): LinkSpec(**first), (1, 2): LinkSpec(**second)}
    reliable = frozenset({Kind.STATE}) if resends else frozenset()
    a, b, c, _ = everybody = planes(specs, direct=direct, copies=4, reliable=reliable, seed=seed)
    data = np.ones((4, 3), np.float32)
    arrived = 0
    for step in range(5):
        delivery = Delivery(np.full(4, 0.1 * step), np.array(null)) if any(null) else None
        if direct:
            send(a, 2, data, step=step, time=0.1 * step, delivery=delivery)
        else:
            send(a, 1, data, step=step, time=0.1 * step, delivery=delivery, addressed=False)
            message, at_relay = taken(b)
            passed_on(b, 2, message, at_relay, data, step=step)
        last = taken(c)[1]
        arrived += int((np.ones(4) if last is None else np.isfinite(last.arrive) & ~last.null).sum())
    rows = [*booked(*everybody).values()]
    assert imbalance(rows) is None
    assert sum(row.payload_bytes for row in rows) == 12 * arrived
    assert all(row.resent_bytes <= row.wire_bytes for row in rows)
    assert all(row.resent_bytes == 0 for row in rows) or resends


def test_what_is_repeated_is_charged_again_and_told_apart() -> None:
    a, b, *_ = planes({(0, 1): LinkSpec(loss_prob=0.5, delay_s=0.01, retries=100)}, copies=64, reliable=frozenset({Kind.RATIO}))
    send(a, 1, np.ones((64, 3), np.float32), Kind.RATIO)
    _, delivery = taken(b)
    assert delivery is not None
    assert np.isfinite(delivery.arrive).all()
    (row,) = booked(a, b).values()
    assert (row.messages, row.delivered, row.dropped) == (64, 64, 0)
    assert row.resent_bytes == row.wire_bytes - 64 * WIRE > 0
    assert row.payload_bytes == 64 * 12


def test_what_is_repeated_in_vain_is_given_up() -> None:
    a, b, *_ = planes({(0, 1): LinkSpec(loss_prob=1.0, delay_s=0.01, retries=2)}, reliable=frozenset({Kind.RATIO}))
    send(a, 1, STATE, Kind.RATIO)
    taken(b)
    (row,) = booked(a, b).values()
    assert (row.dropped, row.gave_up, row.loss) == (2, 2, 0)
    assert row.resent_bytes == 2 * row.wire_bytes // 3


def test_what_a_full_queue_refuses_was_sent_but_used_no_bytes() -> None:
    a, b, *_ = planes({(0, 1): LinkSpec(rate_bps=80.0, queue_bytes=WIRE)})
    for step in range(3):
        send(a, 1, STATE, step=step)
        taken(b)
    (row,) = booked(a, b).values()
    assert (row.messages, row.delivered, row.queue, row.wire_bytes) == (6, 2, 4, 2 * WIRE)


def test_encryption_is_charged_and_takes_link_time() -> None:
    plain, sealed = (planes({(0, 1): LinkSpec(rate_bps=8.0)}, frame_extra=extra) for extra in (0, 33))
    arrivals = []
    for a, b, *_ in (plain, sealed):
        send(a, 1, STATE)
        _, delivery = taken(b)
        assert delivery is not None
        arrivals.append(delivery.arrive[0])
    assert arrivals[1] - arrivals[0] == pytest.approx(66)
    assert sealed[0].drain()[0].wire_bytes - plain[0].drain()[0].wire_bytes == 2 * 66


def test_what_comes_too_late_is_dropped_for_that_reason() -> None:
    a, b, *_ = planes()
    send(a, 1, STATE)
    message = b.receive(0.0)
    assert message is not None
    b.late(message.header, 2)
    (row,) = booked(a, b).values()
    assert (row.messages, row.delivered, row.dropped, row.late) == (2, 0, 2, 2)
    assert imbalance([row]) is None
    assert REASONS[-1] == "late"


@pytest.mark.parametrize("direct", [False, True])
def test_what_is_under_way_at_the_end_is_neither_delivered_nor_lost(direct: bool) -> None:
    a, b, c, _ = everybody = planes(direct=direct)
    send(a if direct else b, 2, STATE, origin=0)
    message, _ = taken(c)
    c.in_flight(message.header.sender, 0, Kind.STATE, 1)
    row = booked(*everybody)["1", "2"]
    assert (row.messages, row.delivered, row.in_flight) == (2, 1, 1)
    assert imbalance([row]) is None


# ------------------------------------------------------------------------------------------------------------ what is refused


def test_whoever_may_not_be_heard_is_refused_counted_and_harms_nobody() -> None:
    carriers = MemoryLinks.mesh(4)
    a, b, c, d = (
        PeerPlane(
            i,
            LINE,
            carrier,
            receives_from=sorted(LINE[i]),
            direct=False,
            link_paths=all_roads(i, {}, direct=True, copies=2),
            copies=2,
        )
        for i, carrier in enumerate(carriers)
    )
    send(d, 1, STATE)  # three is no neighbour of one
    send(c, 1, STATE)
    assert b.receive(0.0) is None
    message = b.receive(0.0)
    assert message is not None
    assert message.header.sender == 2
    assert b.refused.drain() == (1, ("message from 3, which may not send to agent 1",))
    assert a.refused.total == c.refused.total == 0


def test_whoever_speaks_in_anothers_name_is_refused() -> None:
    carriers = MemoryLinks.mesh(4)
    b = PeerPlane(1, LINE, carriers[1], receives_from=[0, 2], direct=False, link_paths={}, copies=1)
    carriers[2].send(1, [encode_header(Header(1, 1, 1, 0, 0, 0, 0, 0, 0, 0.0)), b""])
    assert b.receive(0.0) is None
    assert b.refused.drain() == (1, ("message of 2 that claims to be from 0",))


def test_garbage_is_refused_counted_and_harms_nobody() -> None:
    carriers = MemoryLinks.mesh(2)
    plane = PeerPlane(1, LINE, carriers[1], receives_from=[0], direct=False, link_paths={}, copies=2)
    for frames in ([b"\xc1", b""], [b""], [b"x"] * 9, [b"\x91" * 90, b"abcd"]):
        carriers[0].send(1, frames)
    mine = PeerPlane(
        0, LINE, carriers[0], receives_from=[], direct=False, link_paths=all_roads(0, {}, direct=False, copies=2), copies=2
    )
    send(mine, 1, STATE)
    assert taken(plane)[0].bodies[0] == STATE.tobytes()
    assert plane.refused.total == 4


def test_a_flood_of_garbage_is_counted_but_not_kept() -> None:
    carriers = MemoryLinks.mesh(2)
    plane = PeerPlane(1, LINE, carriers[1], receives_from=[0], direct=False, link_paths={}, copies=2)
    for _ in range(5 * KEPT):
        carriers[0].send(1, [b"", b""])
        assert plane.receive(0.0) is None
    plane.refuse("came twice")
    total, texts = plane.refused.drain()
    assert (total, len(texts)) == (5 * KEPT + 1, KEPT)


# ------------------------------------------------------------------------------------------- against the bytes on a socket


@pytest.fixture
def over_tcp() -> Iterator[tuple[PeerPlane, PeerPlane, Wiretap]]:
    context: Context = new_context()
    with contextlib.ExitStack() as stack:
        stack.callback(context.destroy, 0)
        receiver = ZmqLinks(context, "tcp://127.0.0.1:*", deadline_s=5.0, depth=50)
        stack.callback(receiver.close)
        tap = stack.enter_context(Wiretap(receiver.endpoint))
        sender = ZmqLinks(context, "tcp://127.0.0.1:*", deadline_s=5.0, depth=50)
        sender.connect({1: tap.endpoint})
        stack.callback(sender.close)
        yield (
            PeerPlane(
                0, LINE, sender, receives_from=[], direct=False, link_paths=all_roads(0, {}, direct=False, copies=1), copies=1
            ),
            PeerPlane(1, LINE, receiver, receives_from=[0], direct=False, link_paths={}, copies=1),
            tap,
        )


def test_with_one_copy_the_ledger_is_what_passes_over_the_socket_byte_for_byte(
    over_tcp: tuple[PeerPlane, PeerPlane, Wiretap],
) -> None:
    here, there, tap = over_tcp
    before = tap.settled()
    assert before > 0, "no handshake came by"
    kinds: list[tuple[Kind, tuple[int, int], DType]] = [
        (Kind.STATE, (1, 13), DType.FLOAT32),
        (Kind.STATE, (1, 13), DType.INT8),
        (Kind.STATE, (1, 63), DType.FLOAT32),  # 252 bytes: the last size with a short length
        (Kind.STATE, (1, 64), DType.FLOAT32),  # 256: the first with a long one
        (Kind.STATE, (1, 127), DType.BFLOAT16),
        (Kind.RATIO, (1, 1000), DType.FLOAT32),
        (Kind.REWARD, (1, 1000), DType.FLOAT16),
        (Kind.BOOTSTRAP, (3, 13), DType.FLOAT32),
        (Kind.BOOTSTRAP, (0, 13), DType.FLOAT32),
    ]
    booked_rows: list[Row] = []
    for round_, (kind, shape, dtype) in enumerate(kinds):
        data = np.zeros(shape, np.float32)
        size = len(encode(data, dtype))
        send(
            here, 1, data, kind, dtype=dtype, round_=300 * round_, step=70 * round_, hops_left=round_, time=0.05 * round_,
            copy_bytes=np.array([size]) if kind is Kind.BOOTSTRAP else size,
        )  # fmt: skip
        message = there.receive(10.0)
        assert message is not None
        there.taken(message.header, 1)
        rows = here.drain()
        booked_rows += rows
        assert tap.settled(0.1) - before == rows[0].wire_bytes, kind
        assert rows[0].payload_bytes == size
        before = len(tap.heard)
    assert sum(row.delivered for row in there.drain()) == len(kinds)


def test_a_message_that_says_nothing_new_is_its_header_and_an_empty_frame_and_only_its_marks_are_free(
    over_tcp: tuple[PeerPlane, PeerPlane, Wiretap],
) -> None:
    here, there, tap = over_tcp
    before = tap.settled()
    for step, null in enumerate([True, False, True]):
        delivery = Delivery(np.array([0.05 * step]), np.array([null]))
        send(here, 1, np.ones((1, 13), np.float32), step=step, time=0.05 * step, delivery=delivery)
        message = there.receive(10.0)
        assert message is not None
        assert (message.bodies[0] == b"") == null
        (row,) = here.drain()
        assert tap.settled(0.1) - before == row.wire_bytes + framed(len(encode_delivery(delivery)))
        assert row.payload_bytes == (0 if null else 52)
        assert row.nulls == null
        before = len(tap.heard)
