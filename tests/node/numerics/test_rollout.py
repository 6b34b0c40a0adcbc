"""The buffer: what is stored per step, where it is cut, and whose observation is valued there."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.numerics.rollout import Rollout
from scenarios.kinds import Kind
from topology.planes.world import END_FAULT, END_NONE, END_TERMINATED, END_TRUNCATED, Sense, pack_sense
from topology.wire.frame import FLOAT32, VERSION, WORLD, Header, Message

WIDTH, N_COSTS = 2, 1


def sense(step: int, end: list[float], *, final: bool = True) -> Sense:
    """What an agent is told after `step`: copy e senses step + e/10; at an end it sensed -(step + e/10) before the restart."""
    copies = len(end)
    obs = np.repeat(step + np.arange(copies)[:, None] / 10, WIDTH, axis=1).astype(np.float32)
    rows = pack_sense(obs, 100 + obs[:, 0], 200 + obs[:, :1], np.array(end, np.float32))
    bodies = [rows.tobytes()]
    if final and any(end):
        bodies.append((-obs).tobytes())
    header = Header(VERSION, int(Kind.SENSE), FLOAT32, WORLD, WORLD, 0, step, 0, 0, 0.0)
    return Sense(Message(header, tuple(bodies)), copies=copies, obs_dim=WIDTH, n_costs=N_COSTS)


def record(ends: list[list[float]]) -> Rollout:
    rollout = Rollout.make(len(ends), len(ends[0]), WIDTH, 1, N_COSTS)
    for step, end in enumerate(ends):
        rollout.record_outcome(step, sense(step, end))
    return rollout


def test_outcomes_are_stored_at_their_step() -> None:
    rollout = record([[END_NONE, END_TERMINATED], [END_TRUNCATED, END_NONE]])
    np.testing.assert_allclose(rollout.reward, [[100.0, 100.1], [101.0, 101.1]], rtol=1e-6)
    np.testing.assert_allclose(rollout.cost[:, :, 0], [[200.0, 200.1], [201.0, 201.1]], rtol=1e-6)
    np.testing.assert_array_equal(rollout.terminated, [[False, True], [False, False]])
    np.testing.assert_array_equal(rollout.truncated, [[False, False], [True, False]])


def test_cuts_are_truncations_and_the_last_step_of_episodes_that_go_on() -> None:
    rollout = record([
        [END_TRUNCATED, END_NONE, END_TERMINATED],
        [END_NONE, END_TERMINATED, END_NONE],
        [END_NONE, END_TRUNCATED, END_TERMINATED],
    ])
    assert rollout.cuts().tolist() == [[0, 0], [2, 0], [2, 1]]


def test_own_blocks_at_cuts_are_those_before_the_restart() -> None:
    rollout = record([[END_TRUNCATED, END_NONE], [END_NONE, END_TERMINATED], [END_NONE, END_TRUNCATED]])
    assert rollout.cuts().tolist() == [[0, 0], [2, 0], [2, 1]]
    expected = [[0.0, 0.0], [2.0, 2.0], [-2.1, -2.1]]  # cut; goes on beyond the round; cut at the last step
    np.testing.assert_allclose(rollout.own_cut_blocks(), expected, rtol=1e-6)


@pytest.mark.parametrize("copies", [1, 3])
def test_round_whose_last_step_terminates_everywhere_has_no_cut(copies: int) -> None:
    rollout = record([[END_NONE] * copies, [END_TERMINATED] * copies])
    assert rollout.cuts().shape == (0, 2)
    assert rollout.own_cut_blocks().shape == (0, WIDTH)
    assert rollout.own_cut_blocks().dtype == np.float32


@given(
    ends=st.integers(1, 4).flatmap(
        lambda copies: st.lists(
            st.lists(st.sampled_from([END_NONE, END_TERMINATED, END_TRUNCATED]), min_size=copies, max_size=copies),
            min_size=1, max_size=6,
        )
    )
)  # fmt: skip
def test_every_step_has_its_successor_in_the_buffer_or_at_a_cut_or_is_absorbing(ends: list[list[float]]) -> None:
    rollout = record(ends)
    cuts = {(int(step), int(copy)) for step, copy in rollout.cuts()}
    blocks = rollout.own_cut_blocks()
    assert len(blocks) == len(cuts)
    for (step, copy), block in zip(sorted(cuts), blocks, strict=True):  # by step, then copy
        sign = -1.0 if ends[step][copy] == END_TRUNCATED else 1.0
        assert block[0] == pytest.approx(sign * (step + copy / 10), rel=1e-6)
    for step, row in enumerate(ends):
        for copy, end in enumerate(row):
            follows = step + 1 < len(ends) and end == END_NONE
            assert [follows, (step, copy) in cuts, end == END_TERMINATED].count(True) == 1


def test_a_fault_terminates_and_is_known_as_one_until_the_round_is_over() -> None:
    rollout = record([[END_NONE, END_TERMINATED], [END_FAULT, END_NONE]])
    assert rollout.terminated.tolist() == [[False, True], [True, False]]
    assert {step: faults.tolist() for step, faults in rollout.faults.items()} == {1: [True, False]}
    rollout.clear()
    assert not rollout.faults


def test_a_cleared_buffer_keeps_no_cut_of_the_round_before() -> None:
    rollout = record([[END_TRUNCATED, END_NONE], [END_NONE, END_TERMINATED]])
    rollout.clear()
    for step in range(2):
        rollout.record_outcome(step, sense(step + 10, [END_NONE, END_NONE]))
    assert rollout.cuts().tolist() == [[1, 0], [1, 1]]
    np.testing.assert_allclose(rollout.own_cut_blocks()[:, 0], [11.0, 11.1], rtol=1e-6)
