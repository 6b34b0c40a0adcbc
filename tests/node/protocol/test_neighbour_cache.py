"""What an agent has heard, against a memory that keeps every copy of every message and looks through all of them."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from node.protocol.neighbour_cache import Age, NeighbourCache
from topology.wire.frame import Delivery

DT, SLACK = 1.0, 0.5
WIDTH = {3: 2, 7: 1}
NEVER = float("inf")


@dataclass(frozen=True)
class Sent:
    """One block of one origin, all copies: when it was true, when each copy arrives, and whether it says anything."""

    origin: int
    step: int
    marked: bool
    arrive: tuple[float, ...]
    null: tuple[bool, ...]

    @property
    def born(self) -> float:
        return self.step * DT

    def block(self) -> NDArray[np.float32]:
        rows = np.arange(len(self.arrive))[:, None] + 10.0 * np.arange(WIDTH[self.origin]) + 100.0 * (self.step + 1)
        block = rows.astype(np.float32)
        block.flags.writeable = False
        return block

    def delivery(self) -> Delivery | None:
        return Delivery(np.array(self.arrive), np.array(self.null)) if self.marked else None


class Naive:
    """The definition, copy by copy: the newest block that has arrived, and how long ago it was true."""

    def __init__(self, sent: list[Sent], *, hold: bool) -> None:
        self._sent = sent
        self._hold = hold

    def of(self, origin: int, copy: int, step: int) -> tuple[list[float], bool, float]:
        """What is acted on at a step, whether it is not the block of that step, and its age."""
        there = [
            sent
            for sent in self._sent
            if sent.origin == origin and sent.step <= step and not (sent.marked and sent.null[copy])
            if not sent.marked or sent.arrive[copy] <= step * DT + SLACK
        ]
        newest = max(there, key=lambda sent: sent.step, default=None)
        born = 0.0 if newest is None else newest.born
        missing = newest is None or newest.step != step
        if newest is None or (missing and not self._hold):
            return [0.0] * WIDTH[origin], missing, step * DT - born
        return newest.block()[copy].tolist(), missing, step * DT - born


@st.composite
def histories(draw: st.DrawFn) -> tuple[int, int, list[Sent]]:
    """E, number of steps, and what was sent: at most one block per origin and step, as it comes from the wire."""
    copies, steps = draw(st.integers(1, 3)), draw(st.integers(1, 8))
    sent = []
    for step in range(steps):
        for origin in WIDTH:
            how = draw(st.sampled_from(["plain", "plain", "marked", "marked", "absent"]))
            delays = st.sampled_from([0.0, 0.25, SLACK, SLACK + 0.01, 1.2, 1.5, 1.7, 3.3, 6.0, NEVER])
            delay = draw(st.tuples(*[delays] * copies))
            null = draw(st.tuples(*[st.sampled_from([False, False, True])] * copies))
            if how != "absent":
                sent.append(Sent(origin, step, how == "marked", tuple(step * DT + late for late in delay), null))
    return copies, steps, sent


def told(cache: NeighbourCache, sent: Sent) -> None:
    cache.take(sent.origin, sent.born, sent.block(), sent.delivery(), label=(sent.step, sent.origin + 100))


@given(history=histories(), hold=st.booleans(), report_every=st.integers(1, 9))
def test_what_is_recalled_is_the_newest_that_has_arrived_and_ages_count_from_when_it_was_true(
    history: tuple[int, int, list[Sent]], hold: bool, report_every: int
) -> None:
    copies, steps, sent = history
    cache, naive = NeighbourCache(WIDTH, copies, hold=hold), Naive(sent, hold=hold)
    seen: dict[int, list[tuple[bool, float]]] = {origin: [] for origin in WIDTH}
    for step in range(steps):
        for one in sent:
            if one.step == step:
                told(cache, one)
        for origin in WIDTH:
            expected = [naive.of(origin, copy, step) for copy in range(copies)]
            assert cache.recall(origin, step * DT, step * DT + SLACK).tolist() == [block for block, _, _ in expected]
            seen[origin] += [(missing, age) for _, missing, age in expected]
        if (step + 1) % report_every == 0:
            for found, (origin, them) in zip(cache.ages(), seen.items(), strict=True):
                ages = [age for _, age in them]
                assert found[:3] == (origin, len(them), sum(missing for missing, _ in them))
                assert (found.mean_s, found.max_s) == pytest.approx((sum(ages) / len(ages), max(ages)))
            seen = {origin: [] for origin in WIDTH}


@given(history=histories(), after=st.floats(0, 12))
def test_under_way_is_every_copy_that_will_still_arrive(history: tuple[int, int, list[Sent]], after: float) -> None:
    copies, steps, sent = history
    cache = NeighbourCache(WIDTH, copies, hold=True)
    for step in range(steps):
        for one in sent:
            if one.step == step:
                told(cache, one)
        for origin in WIDTH:
            cache.recall(origin, step * DT, step * DT + SLACK)
    after = max(after, (steps - 1) * DT + SLACK)  # never earlier than the last step
    expected = [
        ((one.step, one.origin + 100), late)
        for one in sorted(sent, key=lambda one: (one.origin, one.step))
        if one.marked and (late := sum(after < arrive < NEVER for arrive in one.arrive))
    ]
    assert cache.under_way(after) == expected


def block(*values: float, writeable: bool = False) -> NDArray[np.float32]:
    made = np.array(values, np.float32)[:, None]
    made.flags.writeable = writeable
    return made


def cache(copies: int = 2, *, hold: bool = True) -> NeighbourCache:
    return NeighbourCache({0: 1}, copies, hold=hold)


def delivery(*arrive: float, null: tuple[bool, ...] | None = None) -> Delivery:
    return Delivery(np.array(arrive), np.array(null or [False] * len(arrive)))


def test_before_the_first_block_there_are_zeros_as_old_as_the_run() -> None:
    one = cache()
    assert one.recall(0, 2.0, 2.5).tolist() == [[0.0], [0.0]]
    assert one.ages() == (Age(0, 2, 2, 2.0, 2.0),)
    assert one.ages() == ()


def test_a_block_that_has_come_everywhere_is_used_as_it_is_without_a_copy() -> None:
    one, sent = cache(), block(1, 2)
    one.take(0, 1.0, sent, None, label=(0, 0))
    assert one.recall(0, 1.0, 1.5) is sent
    assert one.held(0) is sent
    assert one.ages() == (Age(0, 2, 0, 0.0, 0.0),)


def test_the_buffer_of_a_frame_is_never_written_to() -> None:
    one, first, second = cache(), block(1, 2), block(3, 4)
    one.take(0, 0.0, first, None, label=(0, 0))
    one.recall(0, 0.0, 0.5)
    one.take(0, 1.0, second, delivery(1.2, NEVER), label=(0, 0))
    assert one.recall(0, 1.0, 1.5).tolist() == [[3.0], [2.0]]
    assert first.tolist() == [[1.0], [2.0]]
    assert second.tolist() == [[3.0], [4.0]]


@pytest.mark.parametrize(("hold", "expected"), [(True, [[3.0], [2.0]]), (False, [[3.0], [0.0]])])
def test_where_a_block_is_late_the_last_one_stays_or_zeros_take_its_place(hold: bool, expected: list[list[float]]) -> None:
    one = cache(hold=hold)
    one.take(0, 0.0, block(1, 2), None, label=(0, 0))
    one.recall(0, 0.0, 0.5)
    one.take(0, 1.0, block(3, 4), delivery(1.5, 1.6), label=(0, 0))
    assert one.recall(0, 1.0, 1.5).tolist() == expected
    assert one.held(0).tolist() == [[3.0], [2.0]]
    one.take(0, 2.0, block(5, 6), delivery(NEVER, NEVER), label=(0, 0))
    assert one.recall(0, 2.0, 2.5).tolist() == ([[3.0], [4.0]] if hold else [[0.0], [0.0]])
    assert one.ages() == (Age(0, 6, 3, 0.5, 1.0),)


def test_what_is_overtaken_does_not_come_back() -> None:
    one = cache(1)
    one.take(0, 0.0, block(1), delivery(2.2), label=(0, 0))
    one.take(0, 1.0, block(2), delivery(1.1), label=(0, 0))
    assert one.recall(0, 1.0, 1.5).tolist() == [[2.0]]
    assert one.recall(0, 2.0, 2.5).tolist() == [[2.0]]


def test_a_null_message_changes_neither_the_block_nor_its_age_and_heals_no_loss() -> None:
    one = cache(1)
    one.take(0, 0.0, block(1), delivery(0.1), label=(0, 0))
    one.take(0, 1.0, block(2), delivery(NEVER), label=(0, 0))
    one.take(0, 2.0, block(0), delivery(2.0, null=(True,)), label=(0, 0))
    for now in (0.0, 1.0, 2.0):
        assert one.recall(0, now, now + 0.5).tolist() == [[1.0]]
    assert one.ages() == (Age(0, 3, 2, 1.0, 2.0),)


def test_a_null_message_under_way_is_a_message_under_way() -> None:
    one = cache(2)
    one.take(0, 0.0, block(0, 0), delivery(5.0, NEVER, null=(True, True)), label=(4, 9))
    one.recall(0, 0.0, 0.5)
    assert one.under_way(1.0) == [((4, 9), 1)]
    assert one.under_way(5.0) == []


def test_once_all_that_was_late_has_come_nothing_is_kept_of_it_and_blocks_are_used_without_a_copy_again() -> None:
    one, sent = cache(), block(5, 6)
    one.take(0, 0.0, block(1, 2), delivery(1.2, NEVER), label=(0, 0))
    one.recall(0, 0.0, 0.5)
    one.recall(0, 1.0, 1.5)
    one.take(0, 2.0, sent, None, label=(0, 0))
    assert one.recall(0, 2.0, 2.5) is sent
