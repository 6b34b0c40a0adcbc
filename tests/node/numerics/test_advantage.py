"""Advantages: against sums over explicit episodes, and against the exact answers of small tabular games."""

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from node.numerics.advantage import gae, standardised

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


# --- the recursion ----------------------------------------------------------------------------------------------------


def mixture_of_returns(
    reward: Floats, value: Floats, next_value: Floats, terminated: Bools, truncated: Bools, *, gamma: float, lam: float
) -> Floats:
    """The definition by episodes, of one copy: the lam-weighted mean of all k-step returns minus the value."""
    advantage = np.zeros(len(reward))
    for t in range(len(reward)):
        ended = np.flatnonzero((terminated | truncated)[t:])
        steps = int(ended[0]) + 1 if len(ended) else len(reward) - t
        paid, total = 0.0, 0.0
        for k in range(1, steps + 1):
            last = t + k - 1
            paid += gamma ** (k - 1) * reward[last]
            estimate = paid + (0.0 if terminated[last] else gamma**k * next_value[last]) - value[t]
            total += estimate * (lam ** (k - 1) if k == steps else (1 - lam) * lam ** (k - 1))
        advantage[t] = total
    return advantage


@st.composite
def samples(draw: st.DrawFn) -> dict[str, Any]:
    shape = (draw(st.integers(1, 12)), draw(st.integers(1, 3)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    end = rng.choice(3, size=shape, p=draw(st.sampled_from([(1.0, 0.0, 0.0), (0.6, 0.2, 0.2), (0.1, 0.5, 0.4), (0.0, 0.0, 1.0)])))
    value, beyond = rng.normal(size=shape), rng.normal(size=shape)
    follows = np.concatenate((value[1:], beyond[-1:]))  # V(x_{t+1}) is in the buffer, except after an end and after the last step
    return {
        "reward": rng.normal(size=shape),
        "value": value,
        "next_value": np.where(end > 0, beyond, follows),
        "terminated": end == 1,
        "truncated": end == 2,
    }


unit = st.sampled_from([0.0, 0.3, 0.9, 0.99, 1.0])


@given(data=samples(), gamma=unit, lam=unit)
def test_recursion_is_the_mean_of_returns_of_each_episode(data: dict[str, Any], gamma: float, lam: float) -> None:
    found = gae(**data, gamma=gamma, lam=lam)
    for copy in range(found.shape[1]):
        expected = mixture_of_returns(**{name: array[:, copy] for name, array in data.items()}, gamma=gamma, lam=lam)
        np.testing.assert_allclose(found[:, copy], expected, rtol=1e-12, atol=1e-12)


@given(data=samples(), gamma=unit)
def test_no_trace_gives_one_step_errors(data: dict[str, Any], gamma: float) -> None:
    error = data["reward"] + gamma * np.where(data["terminated"], 0.0, data["next_value"]) - data["value"]
    np.testing.assert_array_equal(gae(**data, gamma=gamma, lam=0.0), error)


@given(data=samples(), gamma=unit, lam=unit)
def test_weights_of_one_leave_the_trace_and_weights_of_nothing_cut_it(data: dict[str, Any], gamma: float, lam: float) -> None:
    ones = np.ones_like(data["reward"])
    np.testing.assert_array_equal(gae(**data, gamma=gamma, lam=lam, weight=ones), gae(**data, gamma=gamma, lam=lam))
    np.testing.assert_array_equal(gae(**data, gamma=gamma, lam=lam, weight=0 * ones), gae(**data, gamma=gamma, lam=0.0))


def test_weighted_trace_is_the_sum_of_products_of_weights() -> None:
    """A_t = sum over m of gamma^m·prod_{j=1..m}(lam·w_{t+j})·delta_{t+m}."""
    rng = np.random.default_rng(0)
    reward, value, weight = rng.normal(size=5), rng.normal(size=5), rng.random(5)
    follows, never = np.append(value[1:], 0.7), np.zeros(5, np.bool_)
    delta = reward + 0.9 * follows - value
    expected = [sum(0.9**m * np.prod(0.8 * weight[t + 1 : t + m + 1]) * delta[t + m] for m in range(5 - t)) for t in range(5)]
    np.testing.assert_allclose(gae(reward, value, follows, never, never, gamma=0.9, lam=0.8, weight=weight), expected, rtol=1e-12)


def test_full_trace_gives_discounted_returns_minus_values() -> None:
    rng = np.random.default_rng(0)
    reward, value, beyond = rng.normal(size=5), rng.normal(size=5), 3.0
    follows = np.append(value[1:], beyond)
    never = np.zeros(5, np.bool_)
    returns = [sum(0.9 ** (k - t) * reward[k] for k in range(t, 5)) + 0.9 ** (5 - t) * beyond for t in range(5)]
    found = gae(reward, value, follows, never, never, gamma=0.9, lam=1.0)
    np.testing.assert_allclose(found, np.array(returns) - value, rtol=1e-12)


def test_truncation_bootstraps_and_termination_does_not() -> None:
    def last_advantage(next_value: float, *, terminated: bool, truncated: bool) -> float:
        ends = (np.array([False, terminated]), np.array([False, truncated]))
        return float(gae(np.ones(2), np.zeros(2), np.array([0.0, next_value]), *ends, gamma=0.5, lam=0.5)[1])

    assert last_advantage(8.0, terminated=False, truncated=True) == 5.0
    assert last_advantage(8.0, terminated=True, truncated=False) == 1.0
    assert last_advantage(np.nan, terminated=True, truncated=False) == 1.0  # an absorbing state's value is not even looked at


@pytest.mark.parametrize("name", ["terminated", "truncated"])
def test_nothing_of_an_episode_reaches_the_one_before(name: str) -> None:
    ends = {"terminated": np.zeros(4, np.bool_), "truncated": np.zeros(4, np.bool_)}
    ends[name][1] = True

    def found(after: float) -> Floats:
        reward = np.array([1.0, 2.0, after, after])
        return gae(reward, np.zeros(4), np.full(4, 0.5), ends["terminated"], ends["truncated"], gamma=0.9, lam=0.9)

    np.testing.assert_array_equal(found(0.0)[:2], found(1e6)[:2])
    assert (found(0.0)[2:] != found(1e6)[2:]).all()


def test_single_precision_inputs_are_added_up_in_double() -> None:
    many = 20_000
    reward, none, never = np.full(many, 0.1, np.float32), np.zeros(many), np.zeros(many, np.bool_)
    found = gae(reward, none, none, never, never, gamma=1.0, lam=1.0)
    assert found.dtype == np.float64
    assert found[0] == pytest.approx(many * float(np.float32(0.1)), rel=1e-9)


def test_discount_and_trace_outside_the_unit_interval_are_refused(subtests: pytest.Subtests) -> None:
    for name in ("gamma", "lam"):
        for bad in (-0.01, 1.01, np.nan):
            with subtests.test(name=name, bad=bad):
                none, never = np.zeros(1), np.zeros(1, np.bool_)
                settings = {"gamma": 0.9, "lam": 0.9, name: bad}
                with pytest.raises(ValueError, match=rf"{name}: got .*, expected a number in \[0, 1\]"):
                    gae(none, none, none, never, never, gamma=settings["gamma"], lam=settings["lam"])


# --- scaling ----------------------------------------------------------------------------------------------------------


def test_standardised_has_mean_zero_and_spread_one_whatever_the_units() -> None:
    x = np.random.default_rng(1).gamma(2.0, 3.0, 1000)
    scaled = standardised(x)
    assert scaled.mean() == pytest.approx(0.0, abs=1e-12)
    assert scaled.std() == pytest.approx(1.0, rel=1e-5)
    np.testing.assert_allclose(standardised(40.0 * x - 7.0), scaled, rtol=1e-4, atol=1e-5)


def test_standardising_a_constant_gives_zeros() -> None:
    np.testing.assert_array_equal(standardised(np.full(7, 3.25)), np.zeros(7))


# --- exact games: every transition of a game with 4 states and 2 agents as one sample ---------------------------------

N_STATES, GAMMA = 4, 0.9


class Game:
    """A random game of two agents; policies are tables (state, own action)."""

    def __init__(self, seed: int, act_dim: int = 3) -> None:
        rng = np.random.default_rng(seed)
        self.reward = rng.uniform(-5, 5, (N_STATES, act_dim, act_dim))
        logits = rng.uniform(-2, 2, (*self.reward.shape, N_STATES))
        self.move = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        self.start = np.full(N_STATES, 1 / N_STATES)
        tables = rng.uniform(0.1, 1.0, (4, N_STATES, act_dim))
        self.policies, self.others = np.split(tables / tables.sum(-1, keepdims=True), 2)

    @staticmethod
    def joint(policies: Floats) -> Floats:
        return np.asarray(np.einsum("sa,sb->sab", *policies))

    def value(self, policies: Floats) -> Floats:
        joint = self.joint(policies)
        passage = np.einsum("sab,sabt->st", joint, self.move)
        return np.linalg.solve(np.eye(N_STATES) - GAMMA * passage, (joint * self.reward).sum((1, 2)))

    def visits(self, policies: Floats) -> Floats:
        """Discounted number of visits to each state, its sum 1/(1 - gamma)."""
        passage = np.einsum("sab,sabt->st", self.joint(policies), self.move)
        return np.linalg.solve(np.eye(N_STATES) - GAMMA * passage.T, self.start)

    def errors(self, value: Floats) -> Floats:
        """One-step advantages by `gae` of all transitions (s, a, b, s') at once: time has length one, each is a copy."""
        s, a, b, t = np.indices(self.move.shape).reshape(4, -1)
        never = np.zeros((1, len(s)), np.bool_)
        found = gae(self.reward[s, a, b][None], value[s][None], value[t][None], never, never, gamma=GAMMA, lam=0.7)
        return np.asarray((found.reshape(self.move.shape) * self.move).sum(-1))


@pytest.mark.parametrize("seed", range(5))
def test_own_critic_has_the_joint_value_as_its_fixed_point(seed: int) -> None:
    game = Game(seed)
    value = game.value(game.policies)
    advantage = game.errors(value)
    first, second = game.policies
    q = game.reward + GAMMA * game.move @ value
    for own, marginal, expected in (
        (first, np.einsum("sab,sb->sa", advantage, second), np.einsum("sab,sb->sa", q, second)),
        (second, np.einsum("sab,sa->sb", advantage, first), np.einsum("sab,sa->sb", q, first)),
    ):
        np.testing.assert_allclose((own * marginal).sum(-1), 0.0, atol=1e-12)  # no mean error left: V^i = V^pi
        np.testing.assert_allclose(marginal + value[:, None], expected, atol=1e-12)  # Q^i = E over the other's actions


@pytest.mark.parametrize("seed", range(5))
def test_performance_difference_is_the_visited_advantage(seed: int) -> None:
    game = Game(seed)
    advantage = game.errors(game.value(game.policies))
    gained = game.start @ (game.value(game.others) - game.value(game.policies))
    weighted = game.visits(game.others) @ (game.joint(game.others) * advantage).sum((1, 2))
    assert weighted == pytest.approx(gained, abs=1e-11)


def test_traces_leave_the_expected_advantage_alone_where_the_value_is_exact() -> None:
    """E[A_t | s_t, a_t] does not depend on lam if V = V^pi: all histories of two steps, weighted by their probability."""
    game = Game(7, act_dim=2)
    value, joint = game.value(game.policies), game.joint(game.policies)
    steps = list(product(*map(range, game.move.shape)))
    x, y = (np.array(column).T for column in zip(*[(x, y) for x in steps for y in steps if x[3] == y[0]], strict=True))
    weight = game.move[tuple(x)] * joint[tuple(y[:3])] * game.move[tuple(y)]
    reward = np.stack((game.reward[tuple(x[:3])], game.reward[tuple(y[:3])]))
    now, after = np.stack((x[0], y[0])), np.stack((x[3], y[3]))
    never = np.zeros(reward.shape, np.bool_)
    for lam in (0.0, 0.5, 1.0):
        found = gae(reward, value[now], value[after], never, never, gamma=GAMMA, lam=lam)[0]
        mean = np.zeros(game.reward.shape)
        np.add.at(mean, tuple(x[:3]), weight * found)
        np.testing.assert_allclose(mean, game.errors(value), atol=1e-12)


def test_corrected_by_ratios_the_trace_values_the_policies_that_others_have_now() -> None:
    """With the value of the new pair, E[A_t | s_t, a_t] is its one-step advantage whatever lam, if ratios are not cut at 1."""
    game = Game(3, act_dim=2)
    moved = np.stack((game.others[0], game.policies[1]))  # the first agent has moved, the second is to learn
    value, behaviour = game.value(moved), game.joint(game.policies)
    steps = list(product(*map(range, game.move.shape)))
    x, y = (np.array(column).T for column in zip(*[(x, y) for x in steps for y in steps if x[3] == y[0]], strict=True))
    probability = game.move[tuple(x)] * behaviour[tuple(y[:3])] * game.move[tuple(y)]
    ratio = moved[0][y[0], y[1]] / game.policies[0][y[0], y[1]]
    reward = np.stack((game.reward[tuple(x[:3])], game.reward[tuple(y[:3])]))
    now, after = np.stack((x[0], y[0])), np.stack((x[3], y[3]))
    never = np.zeros(reward.shape, np.bool_)
    for lam in (0.0, 0.5, 1.0):
        weight = np.stack((np.ones_like(ratio), ratio))
        found = gae(reward, value[now], value[after], never, never, gamma=GAMMA, lam=lam, weight=weight)[0]
        mean = np.zeros(game.reward.shape)
        np.add.at(mean, tuple(x[:3]), probability * found)
        np.testing.assert_allclose(mean, game.errors(value), atol=1e-12)


def test_an_ignored_truncated_step_has_no_advantage_and_passes_none_back() -> None:
    reward, value, next_value = np.array([1.0, 100.0, 2.0]), np.array([0.5, 3.0, 0.25]), np.array([3.0, 7.0, 0.5])
    truncated = np.array([False, True, False])
    found = gae(reward, value, next_value, np.zeros(3, bool), truncated, gamma=0.5, lam=0.5, bootstrap=False)
    np.testing.assert_allclose(found, [1.0 + 0.5 * 3.0 - 0.5, 0.0, 2.0 + 0.5 * 0.5 - 0.25])
