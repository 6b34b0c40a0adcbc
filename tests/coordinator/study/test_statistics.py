"""Statistics: against another library, against closed forms, and against what an interval promises."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from rliable import library, metrics

from coordinator.study import statistics
from coordinator.study.statistics import (
    Crossing,
    crossing,
    curve_interval,
    improvement_interval,
    improvement_prob,
    interquartile_mean,
    known_at,
    mean_interval,
    median_crossing,
    performance_profile,
    resampled,
    survival,
    violations_by_age,
)

Array = NDArray[np.float64]
SETS = 2000


@st.composite
def score_matrices(draw: st.DrawFn, tasks: int | None = None) -> Array:
    shape = draw(st.integers(1, 9)), draw(st.integers(1, 4)) if tasks is None else tasks
    found: Array = draw(arrays(np.float64, shape, elements=st.integers(-50, 50).map(lambda value: value / 4)))  # ties are common
    return found


@given(scores=score_matrices())
def test_interquartile_mean_agrees_with_rliable(scores: Array) -> None:
    assert float(interquartile_mean(scores)) == pytest.approx(metrics.aggregate_iqm(scores), abs=1e-9)


def test_what_is_not_known_of_one_run_is_not_cut_off_as_its_worst() -> None:
    stack = np.array([[[1.0], [2.0], [3.0], [4.0], [np.nan]], [[1.0], [2.0], [3.0], [4.0], [5.0]]])
    found = interquartile_mean(stack)
    assert np.isnan(found[0])
    assert found[1] == 3.0


@given(data=st.data(), tasks=st.integers(1, 4))
def test_probability_of_improvement_agrees_with_rliable(data: st.DataObject, tasks: int) -> None:
    ours, theirs = data.draw(score_matrices(tasks)), data.draw(score_matrices(tasks))
    assert float(improvement_prob(ours, theirs)) == pytest.approx(metrics.probability_of_improvement(ours, theirs), abs=1e-9)


@given(scores=score_matrices(), levels=arrays(np.float64, 5, elements=st.integers(-50, 50).map(lambda value: value / 4)))
def test_performance_profile_agrees_with_rliable(scores: Array, levels: Array) -> None:
    assert performance_profile(scores, levels) == pytest.approx(library.score_distributions(scores, levels), abs=1e-9)


@given(stack=arrays(np.float64, (3, 6, 2), elements=st.floats(-9, 9)))
def test_a_stack_of_matrices_gives_what_each_gives_alone(stack: Array) -> None:
    levels = np.array([0.0, 1.0])
    assert interquartile_mean(stack) == pytest.approx([float(interquartile_mean(one)) for one in stack])
    assert improvement_prob(stack, stack[::-1]) == pytest.approx([
        float(improvement_prob(stack[i], stack[2 - i])) for i in range(3)
    ])
    assert performance_profile(stack, levels) == pytest.approx(np.array([performance_profile(one, levels) for one in stack]))


@pytest.mark.parametrize(
    ("runs", "tasks"),
    [(3, 1), *(pytest.param(*sizes, marks=pytest.mark.slow) for sizes in ((10, 1), (20, 1), (10, 3), (5, 5)))],
)
def test_95_per_cent_intervals_hold_the_truth_in_93_to_97_per_cent_of_sets(runs: int, tasks: int) -> None:
    rng = np.random.default_rng(runs * 100 + tasks)
    sets = rng.normal(3.0, 2.0, size=(SETS, runs, tasks))
    intervals = np.array([mean_interval(scores, rng, resamples=400) for scores in sets])
    covered = np.mean((intervals[:, 0] <= 3.0) & (intervals[:, 1] >= 3.0))
    assert 0.93 <= covered <= 0.97


def test_wanting_more_confidence_costs_width() -> None:
    scores = np.random.default_rng(0).normal(size=(8, 2))
    widths = []
    for confidence in (0.5, 0.9, 0.99):
        low, high = mean_interval(scores, np.random.default_rng(1), confidence=confidence)
        assert low < float(interquartile_mean(scores)) < high
        widths.append(high - low)
    assert widths == sorted(widths)


def test_a_curves_interval_is_that_of_each_of_its_points() -> None:
    curves = np.random.default_rng(0).normal(size=(6, 5)).cumsum(axis=1)
    low, high = curve_interval(curves, np.random.default_rng(1))
    for place in range(5):
        own = mean_interval(curves[:, place, None], np.random.default_rng(1))
        assert (low[place], high[place]) == pytest.approx(own)
    curves[0, 2] = np.nan
    low, _ = curve_interval(curves, np.random.default_rng(1))
    assert np.isnan(low).tolist() == [False, False, True, False, False]
    assert low[3] == pytest.approx(mean_interval(curves[:, 3, None], np.random.default_rng(1)).low)
    assert np.isnan(curve_interval(np.full((3, 2), np.nan), np.random.default_rng(1))).all()
    assert np.isnan(curve_interval(curves[:1], np.random.default_rng(1))).all()


def test_many_points_in_blocks_are_the_same_as_few(monkeypatch: pytest.MonkeyPatch) -> None:
    curves = np.random.default_rng(0).normal(size=(4, 9))
    at_once = curve_interval(curves, np.random.default_rng(1), resamples=50)
    monkeypatch.setattr(statistics, "_AT_ONCE", 300)
    np.testing.assert_allclose(curve_interval(curves, np.random.default_rng(1), resamples=50), at_once, rtol=1e-12)


def test_a_single_run_has_no_interval() -> None:
    rng = np.random.default_rng(0)
    one, many = np.ones((1, 3)), np.zeros((5, 3))
    assert np.isnan(mean_interval(one, rng)).all()
    assert np.isnan(improvement_interval(one, many, rng)).all()
    assert np.isnan(improvement_interval(many, one, rng)).all()


def test_improvement_interval_is_certain_of_what_never_overlaps_and_not_of_what_does() -> None:
    rng = np.random.default_rng(0)
    low, high = np.arange(5.0)[:, None], 10 + np.arange(5.0)[:, None]
    assert improvement_interval(high, low, rng) == (1.0, 1.0)
    assert improvement_interval(low, high, rng) == (0.0, 0.0)
    same = improvement_interval(low, low, rng)
    assert same.low < 0.5 < same.high


def test_resampling_is_stratified_repeatable_and_draws_every_run() -> None:
    scores = np.arange(4.0)[:, None] + np.array([0.0, 100.0])

    def drawn(seed: int) -> Array:
        return resampled(lambda stack: stack, scores, rng=np.random.default_rng(seed), resamples=200)

    found = drawn(1)
    assert found.shape == (200, 4, 2)
    assert set(found[..., 0].ravel()) == {0.0, 1.0, 2.0, 3.0}
    assert set(found[..., 1].ravel()) == {100.0, 101.0, 102.0, 103.0}
    assert any((one[:, 0] + 100 != one[:, 1]).any() for one in found)  # each task's runs are drawn by themselves
    assert np.array_equal(found, drawn(1))
    assert not np.array_equal(found, drawn(2))


def test_two_samples_are_drawn_apart() -> None:
    ours, theirs = np.zeros((2, 1)), np.ones((5, 1))
    shapes: list[tuple[int, ...]] = []

    def shape(first: Array, second: Array) -> Array:
        shapes.extend([first.shape, second.shape])
        return np.asarray(first.mean(axis=(-2, -1)) - second.mean(axis=(-2, -1)))

    found = resampled(shape, ours, theirs, rng=np.random.default_rng(0), resamples=7)
    assert shapes == [(7, 2, 1), (7, 5, 1)]
    assert found.tolist() == [-1.0] * 7


def test_a_curve_is_known_in_steps() -> None:
    positions, values = np.array([10.0, 20.0, 20.0, 30.0]), np.array([1.0, 2.0, 3.0, 4.0])
    asked = np.array([0.0, 9.9, 10.0, 19.9, 20.0, 29.0, 30.0, 1e9])
    found = known_at(positions, values, asked)
    assert np.isnan(found[:2]).all()
    assert found[2:].tolist() == [1.0, 1.0, 3.0, 3.0, 4.0, 4.0]


def test_who_sends_nothing_knows_at_once_what_it_will_ever_know() -> None:
    assert known_at(np.zeros(3), np.array([1.0, 2.0, 3.0]), np.array([0.0, 5.0])).tolist() == [3.0, 3.0]


def test_of_an_empty_curve_nothing_is_known() -> None:
    assert np.isnan(known_at(np.array([]), np.array([]), np.array([0.0, 5.0]))).all()


def test_a_threshold_counts_as_reached_when_it_is_held() -> None:
    at, curve = np.array([1.0, 2.0, 3.0, 4.0, 5.0]), np.array([0.0, 7.0, np.nan, 5.0, 6.0])
    assert crossing(at, curve, 5.0) == Crossing(2.0, True)
    assert crossing(at, curve, 5.0, held=2) == Crossing(4.0, True)
    assert crossing(at, curve, 5.0, held=3) == Crossing(5.0, False)
    assert crossing(at, curve, 8.0) == Crossing(5.0, False)
    assert crossing(at[:2], curve[:2], 0.0, held=9) == Crossing(2.0, False)


def test_survival_keeps_censored_runs() -> None:
    # Kaplan-Meier by hand: at 2 one of 4 reaches, at 3 one leaves unseen, at 5 one of the 2 that are left reaches
    runs = [Crossing(2.0, True), Crossing(3.0, False), Crossing(5.0, True), Crossing(9.0, False)]
    at, share = survival(runs)
    assert at.tolist() == [2.0, 3.0, 5.0, 9.0]
    assert share == pytest.approx([3 / 4, 3 / 4, 3 / 8, 3 / 8])
    assert median_crossing(runs) == 5.0


@given(times=st.lists(st.integers(1, 9), min_size=1, max_size=12))
def test_survival_of_runs_that_all_arrive_is_the_share_not_yet_there(times: list[int]) -> None:
    at, share = survival([Crossing(float(time), True) for time in times])
    assert share == pytest.approx([np.mean([time > place for time in times]) for place in at])


def test_if_fewer_than_half_arrive_the_median_is_never() -> None:
    assert median_crossing([Crossing(1.0, True), Crossing(4.0, False), Crossing(4.0, False)]) == np.inf
    assert median_crossing([Crossing(4.0, False)]) == np.inf


def test_violations_are_counted_by_age_and_runs_count_alike() -> None:
    ages = [np.array([0.1, 0.1, 0.3, 0.3]), np.array([0.3, 0.1])]
    broke = [np.array([False, True, True, True]), np.array([False, False])]
    young, old = violations_by_age(ages, broke)
    assert [one.age_s for one in (young, old)] == pytest.approx([0.1, 0.3])
    assert [(one.rate, one.episodes) for one in (young, old)] == [(0.25, 3), (0.5, 3)]
    assert (young.interval, old.interval) == ((0.0, 1.0), (0.0, 1.0)), "of two runs hardly anything is known"


def test_the_interval_of_a_share_is_that_of_students_t_over_runs() -> None:
    shares = [0.2, 0.3, 0.4, 0.5]
    runs = [np.arange(10) < 10 * share for share in shares]
    (found,) = violations_by_age([np.full(10, 0.5)] * 4, runs)
    assert found.rate == pytest.approx(0.35)
    expected = scipy.stats.ttest_1samp(shares, 0.0).confidence_interval(0.95)
    assert found.interval == pytest.approx((expected.low, expected.high))


def test_shares_that_do_not_vary_say_nothing_of_their_spread() -> None:
    for runs in ([np.zeros(5, bool)] * 3, [np.arange(5) < 2]):
        (found,) = violations_by_age([np.ones(5)] * len(runs), runs)
        assert np.isnan(found.interval).all()
    assert violations_by_age([np.empty(0)], [np.empty(0, bool)]) == []


@given(ages=st.lists(st.lists(st.integers(0, 20), min_size=0, max_size=30), min_size=1, max_size=4), bins=st.integers(1, 6))
def test_every_episode_is_in_one_bin_and_bins_ascend(ages: list[list[int]], bins: int) -> None:
    runs = [np.array(own, dtype=np.float64) for own in ages]
    found = violations_by_age(runs, [own > 10 for own in runs], bins=bins)
    total = sum(map(len, ages))
    assert sum(one.episodes for one in found) == total
    assert len(found) <= bins
    assert [one.age_s for one in found] == sorted({one.age_s for one in found})
    assert sum(one.age_s * one.episodes for one in found) == pytest.approx(sum(map(sum, ages)))
    if len(found) > 1:
        assert min(one.episodes for one in found) >= total / bins / 2


@given(st.integers(1, 5), st.integers(1, 40))
def test_bins_of_ages_that_all_differ_hold_as_many_each(bins: int, each: int) -> None:
    ages = np.arange(bins * each, dtype=np.float64)[::-1].copy()
    assert [one.episodes for one in violations_by_age([ages], [ages > 3], bins=bins)] == [each] * bins
