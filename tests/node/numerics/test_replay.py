"""Replay: a ring that keeps the last transitions, whole."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from node.numerics.replay import Replay


@given(st.lists(st.integers(0, 7), min_size=1, max_size=8), st.integers(1, 10))
def test_the_last_ones_are_kept_and_their_columns_stay_together(sizes: list[int], capacity: int) -> None:
    replay, told = Replay(capacity), 0
    for size in sizes:
        fresh = np.arange(told, told + size)
        replay.add(fresh, np.stack((fresh, -fresh), axis=1))
        told += size
        assert len(replay) == min(told, capacity)
    number, pair = replay.everything()
    assert sorted(number) == list(range(max(0, told - capacity), told))
    np.testing.assert_array_equal(pair, np.stack((number, -number), axis=1))


def test_minibatches_are_drawn_from_all_there_is_and_from_nothing_forgotten() -> None:
    replay, draw = Replay(50), np.random.default_rng(0)
    replay.add(np.arange(20), np.arange(20) * 2.0)
    number, double = replay.sample(1000, draw)
    assert set(number) == set(range(20))
    np.testing.assert_array_equal(double, number * 2.0)
    replay.clear()
    assert len(replay) == 0
    replay.add(np.arange(100, 103), np.zeros(3))
    assert set(replay.sample(100, draw)[0]) == {100, 101, 102}
