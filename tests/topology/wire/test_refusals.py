"""Refusals: every one is counted, however many there are, and the first are kept word for word."""

from hypothesis import given
from hypothesis import strategies as st

from topology.wire.refusals import KEPT, KEPT_IN_ALL, Refusals


@given(pages=st.lists(st.integers(0, 2 * KEPT), max_size=4))
def test_all_are_counted_the_first_are_kept_and_a_new_page_begins(pages: list[int]) -> None:
    refusals = Refusals()
    for count in pages:
        for number in range(count):
            refusals.add(f"reason {number}")
        assert refusals.total == count
        assert refusals.drain() == (count, tuple(f"reason {number}" for number in range(min(count, KEPT))))
    assert refusals.drain() == (0, ())


def test_a_flood_that_lasts_fills_no_database() -> None:
    refusals, told = Refusals(), 0
    for _ in range(200):
        for _ in range(2 * KEPT):
            refusals.add("again")
        total, texts = refusals.drain()
        told += len(texts)
        assert total == 2 * KEPT
    assert told == KEPT_IN_ALL


def test_a_flood_fills_no_memory() -> None:
    refusals = Refusals()
    for _ in range(100_000):
        refusals.add("again")
    assert len(refusals.texts) == KEPT
    assert refusals.total == 100_000
