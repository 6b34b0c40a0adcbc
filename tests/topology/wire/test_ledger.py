"""The ledger: what is booked comes out once, adds up, and accounts for every message."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topology.link.model import Fate
from topology.wire.frame import framed
from topology.wire.ledger import REASONS, Ledger, Row, imbalance, wire_bytes

COUNTS = Row._fields[5:]
ids = st.sampled_from(["0", "1", "10", "2"])
keys = st.tuples(st.integers(0, 2), ids, ids, st.sampled_from(["STATE", "RATIO"]))
fates = st.sampled_from(["delivered", "in_flight", *REASONS])
Sent = tuple[tuple[int, str, str, str], int, int, int, list[str]]
# per message frame: its link, payload, wire and repeated bytes, and what becomes of each copy
traffic = st.lists(
    st.tuples(keys, st.integers(0, 900), st.integers(0, 900), st.integers(0, 90), st.lists(fates, min_size=1, max_size=4)),
    max_size=20,
)


def booked(done: list[Sent]) -> Ledger:
    ledger = Ledger("peer")
    for key, payload, wire, resent, ends in done:
        ledger.sent(*key, len(ends), payload, wire, resent)
        for end, count in Counter(ends).items():
            if end in REASONS:
                ledger.dropped(*key, REASONS.index(end), count)
            else:
                ledger.delivered(*key, count)
        if "in_flight" in ends:
            ledger.in_flight(*key, ends.count("in_flight"))
        ledger.nulls(*key, len(ends) // 2)
    return ledger


def totals(rows: list[Row]) -> dict[str, int]:
    return {name: sum(getattr(row, name) for row in rows) for name in COUNTS}


@given(done=traffic)
def test_everything_booked_comes_out_once_and_a_new_page_begins(done: list[Sent]) -> None:
    ledger = booked(done)
    rows = ledger.drain()
    assert ledger.drain() == []
    assert rows == sorted(rows)
    assert {row[:5] for row in rows} == {(key[0], "peer", *key[1:]) for key, *_ in done}
    assert len({row[:5] for row in rows}) == len(rows)
    ends = Counter(end for *_, them in done for end in them)
    assert totals(rows) == {
        "messages": ends.total(),
        "payload_bytes": sum(payload for _, payload, *_ in done),
        "wire_bytes": sum(wire for _, _, wire, *_ in done),
        "resent_bytes": sum(resent for _, _, _, resent, _ in done),
        "delivered": ends["delivered"],
        "dropped": sum(ends[reason] for reason in REASONS),
        "nulls": sum(len(them) // 2 for *_, them in done),
        **{reason: ends[reason] for reason in REASONS},
        "in_flight": ends["in_flight"],
    }


@given(done=traffic)
def test_books_balance_when_every_message_is_accounted_for(done: list[Sent]) -> None:
    assert imbalance(booked(done).drain()) is None


@given(done=traffic, key=keys, leak=st.sampled_from(["messages", "delivered", "dropped", "in_flight", *REASONS]), data=st.data())
def test_a_leak_of_any_kind_in_any_row_is_found_and_told(done: list[Sent], key: Any, leak: str, data: st.DataObject) -> None:
    rows = booked([*done, (key, 1, 2, 0, ["delivered", "loss"])]).drain()
    place = data.draw(st.integers(0, len(rows) - 1))
    by = data.draw(st.sampled_from([-1, 1, 7]))
    rows[place] = row = rows[place]._replace(**{leak: getattr(rows[place], leak) + by})
    told = imbalance(rows)
    assert told is not None
    assert f"peer {row.kind} {row.src} -> {row.dst}, round {row.round}: {row.messages} sent, {row.delivered} delivered" in told


def test_links_do_not_make_up_for_each_other() -> None:
    ledger = Ledger("world")
    ledger.sent(0, "0", "world", "ACT", 2, 8, 80)
    ledger.delivered(0, "1", "world", "ACT", 2)
    told = imbalance(ledger.drain())
    assert told == (
        "the ledger does not balance: world ACT 0 -> world, round 0: "
        "2 sent, 0 delivered, 0 dropped (0 with a reason), 0 in flight"
    )


def test_reasons_are_those_of_the_link_model_in_its_order_and_then_lateness() -> None:
    assert [reason.upper() for reason in REASONS] == [*(fate.name for fate in Fate if fate >= Fate.LOSS), "LATE"]


def test_wire_bytes_are_copies_times_header_and_bodies_with_their_framing() -> None:
    assert wire_bytes(30, 52) == framed(30) + framed(52) == 86
    assert wire_bytes(30, 52, 300, copies=10) == 10 * (32 + 54 + 309)
    assert wire_bytes(19, 0) == 19 + 2 + 2


@pytest.mark.parametrize("extra", [0, 33])
def test_encryption_adds_to_every_frame_before_it_is_framed(extra: int) -> None:
    assert wire_bytes(30, 223, frame_extra=extra) == framed(30 + extra) + framed(223 + extra)
