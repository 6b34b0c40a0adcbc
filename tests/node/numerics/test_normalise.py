"""Running statistics: equal to numpy's over all that was seen, debiased, and without effect on what a critic predicts."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from node.numerics.normalise import INPUT_CLIP, InputNorm, RunningMoments, RunningScale, ValueNorm

# --- inputs ---------------------------------------------------------------------------------------------------------------


@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=6), offset=st.sampled_from([0.0, 5.0, 1000.0]))
def test_moments_are_those_of_everything_seen(sizes: list[int], offset: float) -> None:
    rng = np.random.default_rng(sum(sizes))
    batches = [(offset + (1 + k) * rng.normal(size=(size, 3))).astype(np.float32) for k, size in enumerate(sizes)]
    moments = RunningMoments(3)
    for batch in batches:
        moments.update(batch)
    seen = np.concatenate(batches).astype(np.float64)
    np.testing.assert_array_equal(moments.count, [len(seen)] * 3)
    np.testing.assert_allclose(moments.mean, seen.mean(axis=0), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(moments.std, np.maximum(seen.std(axis=0), 1e-2), rtol=1e-7)


def test_nothing_seen_and_nothing_varying_give_usable_spreads() -> None:
    moments = RunningMoments(2)
    np.testing.assert_array_equal(moments.std, [1.0, 1.0])
    moments.update(np.full((10, 2), 3.0, np.float32))
    np.testing.assert_array_equal(moments.std, [1e-2, 1e-2])


def test_inputs_pass_unchanged_until_the_first_round_has_ended() -> None:
    x = torch.tensor([[1.0, -2.0]])
    torch.testing.assert_close(InputNorm(2, running=True)(x), x, rtol=0, atol=0)


def test_inputs_are_standardised_by_what_was_seen_and_clipped() -> None:
    rows = np.random.default_rng(0).normal([5.0, -1.0], [3.0, 0.1], (1000, 2)).astype(np.float32)
    norm = InputNorm(2, running=True)
    norm.update(rows)
    scaled = norm(torch.from_numpy(rows)).numpy()
    np.testing.assert_allclose(scaled.mean(axis=0), 0.0, atol=1e-5)
    np.testing.assert_allclose(scaled.std(axis=0), 1.0, rtol=1e-5)
    far = norm(torch.tensor([[1e6, -1e6]]))
    assert far.tolist() == [[INPUT_CLIP, -INPUT_CLIP]]


def test_normalising_leaves_the_stored_inputs_alone() -> None:
    rows = np.random.default_rng(0).normal(5.0, 3.0, (10, 2)).astype(np.float32)
    kept = rows.copy()
    norm = InputNorm(2, running=True)
    norm.update(rows)
    norm(torch.from_numpy(rows))
    np.testing.assert_array_equal(rows, kept)


def test_without_running_statistics_inputs_are_never_touched() -> None:
    norm = InputNorm(1, running=False)
    norm.update(np.full((5, 1), 100.0, np.float32))
    assert float(norm(torch.tensor([[1e6]]))) == 1e6


def test_a_restored_norm_treats_inputs_as_the_stored_one_did() -> None:
    norm, other = InputNorm(3, running=True), InputNorm(3, running=True)
    norm.update(np.random.default_rng(0).normal(2.0, 4.0, (50, 3)).astype(np.float32))
    other.load(norm.weights())
    x = torch.from_numpy(np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32))
    assert torch.equal(other(x), norm(x))


# --- returns --------------------------------------------------------------------------------------------------------------


def returns(k: int) -> np.ndarray:
    return np.random.default_rng(k).normal(10.0 * k, 1.0 + k, 200)


def test_first_round_is_taken_at_its_full_weight() -> None:
    norm = ValueNorm(enabled=True, beta=0.99999)
    norm.update(returns(3))
    assert norm.mu == pytest.approx(returns(3).mean(), rel=1e-9)
    assert norm.sigma == pytest.approx(returns(3).std(), rel=1e-6)
    scaled = norm.normalise(returns(3))
    assert (scaled.mean(), scaled.std()) == pytest.approx((0.0, 1.0), abs=1e-6)


@pytest.mark.parametrize("beta", [0.0, 0.5, 0.9])
def test_averages_are_exponential_and_debiased(beta: float) -> None:
    norm = ValueNorm(enabled=True, beta=beta)
    for k in range(5):
        norm.update(returns(k))
    weights = np.array([beta ** (4 - k) for k in range(5)])
    mean = np.average([returns(k).mean() for k in range(5)], weights=weights)
    square = np.average([(returns(k) ** 2).mean() for k in range(5)], weights=weights)
    assert norm.mu == pytest.approx(mean, rel=1e-9)
    assert norm.sigma == pytest.approx(np.sqrt(square - mean**2), rel=1e-9)


def test_raw_predictions_do_not_move_when_the_statistics_do() -> None:
    norm = ValueNorm(enabled=True, beta=0.9)
    for k in range(5):
        predicted = np.linspace(-3, 3, 7)
        before = norm.denormalise(predicted)
        scale, shift = norm.update(returns(k))
        np.testing.assert_allclose(norm.denormalise(scale * predicted + shift), before, rtol=1e-12, atol=1e-12)


def test_normalise_and_restore_are_inverse() -> None:
    norm = ValueNorm(enabled=True, beta=0.9)
    norm.update(returns(2))
    np.testing.assert_allclose(norm.denormalise(norm.normalise(returns(4))), returns(4), rtol=1e-12)


def test_equal_returns_do_not_blow_up_the_scale() -> None:
    norm = ValueNorm(enabled=True, beta=0.9)
    norm.update(np.full(10, 7.0))
    assert norm.sigma == pytest.approx(0.1)  # the square root of the least variance, 1e-2


def test_switched_off_it_changes_nothing() -> None:
    norm = ValueNorm(enabled=False, beta=0.9)
    assert norm.update(returns(3)) == (1.0, 0.0)
    np.testing.assert_array_equal(norm.normalise(returns(3)), returns(3))
    np.testing.assert_array_equal(norm.denormalise(returns(3)), returns(3))


# --- scales ---------------------------------------------------------------------------------------------------------------


def test_running_scale_counts_the_first_batch_in_full_and_forgets_slowly() -> None:
    scale = RunningScale(keep=0.9, floor=0.01)
    loud, quiet = np.array([-2.0, 2.0]), np.zeros(2)
    assert scale.take(loud) == pytest.approx(2.0)
    assert scale.take(quiet) == pytest.approx(2.0 * (0.09 / 0.19) ** 0.5)
    assert [scale.take(quiet) for _ in range(500)][-1] == 0.01


def test_running_scale_does_not_mind_where_a_signal_lies_and_goes_on_from_its_state() -> None:
    one, other = RunningScale(keep=0.5, floor=0.0), RunningScale(keep=0.5, floor=0.0)
    batches = np.random.default_rng(0).normal(size=(4, 20))
    for batch in batches[:2]:
        one.take(batch)
    other.restore(one.state())
    assert [other.take(batch + 7.0) for batch in batches[2:]] == pytest.approx([one.take(batch) for batch in batches[2:]])
