"""The clock: until when a message counts, in virtual time and in real time."""

import time

import pytest

from node.runtime.clock import Clock


def test_in_virtual_time_patience_counts_from_now_however_long_it_really_takes() -> None:
    clock = Clock(lockstep=True, patience_s=0.5)
    clock.now = 7.0
    assert clock.deadline() == 7.5
    clock.offset_s = 100.0  # which is of no concern
    assert clock.deadline() == 7.5


def test_on_the_wall_clock_a_wait_that_has_ended_is_over_now() -> None:
    clock = Clock(lockstep=False, patience_s=0.5)
    clock.offset_s = 1000.0 - time.monotonic()  # the world says: it is 1000 s
    assert clock.deadline() == pytest.approx(1000.0, abs=1.0)
    assert clock.deadline() <= clock.world_time()
