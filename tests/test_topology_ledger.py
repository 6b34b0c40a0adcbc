"""The ledger: what is booked comes out once, and adds up."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from topology.ledger import Ledger, Row, merge, wire_bytes
from topology.wire import framed

ids = st.sampled_from(["0", "1", "10", "2"])
entries = st.lists(
    st.tuples(
        st.sampled_from(["sent", "delivered", "dropped"]), st.integers(0, 2), ids, ids, st.sampled_from(["STATE", "RATIO"]),
        st.integers(0, 900), st.integers(0, 900),
    ),
    max_size=40,
)  # fmt: skip


def booked(done: list[tuple[str, int, str, str, str, int, int]]) -> Ledger:
    ledger = Ledger("peer")
    for what, round_, src, dst, kind, payload, wire in done:
        if what == "sent":
            ledger.sent(round_, src, dst, kind, payload, wire)
        else:
            getattr(ledger, what)(round_, src, dst, kind)
    return ledger


def totals(rows: list[Row]) -> Counter[str]:
    found: Counter[str] = Counter()
    for row in rows:
        for name in Row._fields[5:]:
            found[name] += getattr(row, name)
    return found


@given(done=entries)
def test_everything_booked_comes_out_once_and_a_new_page_begins(done: list[tuple[str, int, str, str, str, int, int]]) -> None:
    ledger = booked(done)
    rows = ledger.drain()
    assert ledger.drain() == []
    assert len({row[:5] for row in rows}) == len(rows)
    assert all(row.plane == "peer" for row in rows)
    sent = [entry for entry in done if entry[0] == "sent"]
    expected = {
        "messages": len(sent),
        "payload_bytes": sum(entry[5] for entry in sent),
        "wire_bytes": sum(entry[6] for entry in sent),
        "delivered": sum(entry[0] == "delivered" for entry in done),
        "dropped": sum(entry[0] == "dropped" for entry in done),
    }
    assert {name: totals(rows)[name] for name in expected} == expected


@given(done=entries, where=st.lists(st.integers(0, 3), min_size=40, max_size=40), data=st.data())
def test_merged_pages_do_not_depend_on_who_booked_or_in_which_order(
    done: list[tuple[str, int, str, str, str, int, int]], where: list[int], data: st.DataObject
) -> None:
    pages = [row for part in range(4) for row in booked([e for e, w in zip(done, where, strict=False) if w == part]).drain()]
    assert merge(data.draw(st.permutations(pages))) == merge(booked(done).drain())
    assert merge(pages) == sorted(merge(pages))


def test_wire_bytes_are_copies_times_header_and_bodies_with_their_framing() -> None:
    assert wire_bytes(30, 52) == framed(30) + framed(52) == 86
    assert wire_bytes(30, 52, 300, copies=10) == 10 * (32 + 54 + 309)
    assert wire_bytes(19, 0) == 19 + 2 + 2
