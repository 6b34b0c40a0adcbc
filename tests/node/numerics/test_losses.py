"""Losses and steps: hand-computed values and gradients, invariances, torch's own distributions, small exact games."""

import math
from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Independent, Normal, kl_divergence

from node.numerics.losses import (
    clip_objective,
    gaussian_entropy,
    gaussian_kl,
    gaussian_log_prob,
    multiplier_step,
    pid_step,
    value_loss,
)


def normals(*shape: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


# --- clipped objective --------------------------------------------------------------------------------------------------

CLIP_CASES = [  # ratio, advantage, objective, its slope in the ratio; clip 0.2
    (1.0, 2.0, 2.0, 2.0),
    (1.0, -2.0, -2.0, -2.0),
    (1.1, 2.0, 2.2, 2.0),
    (1.5, 2.0, 2.4, 0.0),
    (0.5, 2.0, 1.0, 2.0),
    (1.5, -2.0, -3.0, -2.0),
    (0.5, -2.0, -1.6, 0.0),
    (0.9, -2.0, -1.8, -2.0),
    (3.0, 0.0, 0.0, 0.0),
]


def test_objective_and_its_slope_by_hand(subtests: pytest.Subtests) -> None:
    for ratio, advantage, objective, slope in CLIP_CASES:
        with subtests.test(ratio=ratio):
            rho = torch.tensor([ratio], dtype=torch.float64, requires_grad=True)
            found = clip_objective(rho, torch.tensor([advantage], dtype=torch.float64), clip=0.2)
            (gradient,) = torch.autograd.grad(found.sum(), rho)
            assert float(found.detach()) == pytest.approx(objective)
            assert float(gradient) == pytest.approx(slope)


def test_positive_factor_commutes_with_the_minimum() -> None:
    rho, advantage = torch.exp(normals(500)), normals(500, seed=1)
    factor = torch.exp(2.0 * normals(500, seed=2))
    inside = clip_objective(rho, factor * advantage, clip=0.2)
    torch.testing.assert_close(inside, factor * clip_objective(rho, advantage, clip=0.2), rtol=1e-12, atol=0.0)


@given(log_ratio=st.floats(-3, 3), advantage=st.floats(-10, 10), clip=st.floats(0.01, 0.9))
def test_objective_never_promises_more_than_the_unclipped_one(log_ratio: float, advantage: float, clip: float) -> None:
    rho, h = torch.tensor([math.exp(log_ratio)]), torch.tensor([advantage])
    assert float(clip_objective(rho, h, clip=clip)) <= float(rho * h)


def test_each_action_dimension_is_clipped_alone() -> None:
    rho = torch.tensor([[1.0, 1.5], [0.5, 1.0]])
    found = clip_objective(rho, torch.tensor([[2.0], [-2.0]]), clip=0.2)
    torch.testing.assert_close(found, torch.tensor([[2.0, 2.4], [-1.6, -2.0]]))


# --- exact games through the objective ------------------------------------------------------------------------------------


def best_pure(payoff: Tensor, own: Tensor, other: Tensor, factor: Tensor) -> int:
    """The own action whose pure policy maximises mean[F·min(rho·A, clip(rho)·A)], all joint actions as weighted samples."""
    weight = own[:, None] * other[None, :]
    advantage = payoff - (weight * payoff).sum()
    values = []
    for action in range(len(own)):
        rho = torch.nn.functional.one_hot(torch.tensor(action), len(own)) / own
        values.append(float((weight * clip_objective(rho[:, None].expand_as(payoff), factor * advantage, clip=0.2)).sum()))
    return int(np.argmax(values))


def test_full_steps_at_once_miscoordinate_and_one_after_the_other_do_not() -> None:
    payoff = torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
    policy = torch.tensor([0.6, 0.4], dtype=torch.float64)
    assert float(policy @ payoff @ policy) == pytest.approx(0.48)

    ones = torch.ones_like(payoff)
    first = best_pure(payoff, policy, policy, ones)
    at_once = best_pure(payoff.T, policy, policy, ones)
    assert (first, at_once) == (1, 1)
    assert float(payoff[first, at_once]) == 0.0

    ratio_of_first = torch.nn.functional.one_hot(torch.tensor(first), 2) / policy
    in_turn = best_pure(payoff.T, policy, policy, ratio_of_first[None, :].expand(2, 2))
    assert float(payoff[first, in_turn]) == 1.0


def test_small_steps_at_once_do_not_miscoordinate() -> None:
    payoff = torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
    old = torch.tensor([0.6, 0.4], dtype=torch.float64)
    weight = old[:, None] * old[None, :]
    advantage = payoff - (weight * payoff).sum()
    logit = torch.log(old).requires_grad_()
    rho = torch.softmax(logit, 0) / old
    (uphill,) = torch.autograd.grad((weight * clip_objective(rho[:, None].expand(2, 2), advantage, clip=0.2)).sum(), logit)
    new = torch.softmax(logit.detach() + 1e-3 * uphill, 0)  # the game is symmetric: both move alike
    assert float(new @ payoff @ new) > 0.48


def test_factored_objectives_add_up_to_the_joint_gain_in_every_order() -> None:
    """Sum over agents of E[(rho_m - 1)·F_m·A] = E_new[A]: the sequential advantages decompose the joint one."""
    n, actions = 3, 3
    rng = np.random.default_rng(3)
    old = torch.from_numpy(rng.dirichlet(np.ones(actions), n))
    ratios = 1.0 + 0.1 * torch.from_numpy(rng.uniform(-1, 1, (n, actions)))
    new = old * ratios / (old * ratios).sum(-1, keepdim=True)
    payoff = torch.from_numpy(rng.normal(size=(actions,) * n))

    def joint(policies: Tensor) -> Tensor:
        return torch.einsum("a,b,c->abc", *policies)

    advantage = payoff - (joint(old) * payoff).sum()
    gain = float((joint(new) * advantage).sum())
    for order in permutations(range(n)):
        factor, total = torch.ones_like(payoff), 0.0
        for agent in order:
            shape = [1] * n
            shape[agent] = actions
            rho = (new / old)[agent].reshape(shape).expand_as(payoff)
            step = clip_objective(rho, factor * advantage, clip=0.5) - factor * advantage
            total += float((joint(old) * step).sum())
            factor = factor * rho
        assert total == pytest.approx(gain, abs=1e-14)


# --- Gaussian policies ----------------------------------------------------------------------------------------------------


def test_log_density_entropy_and_divergence_are_those_of_torch() -> None:
    mean, new_mean, action = normals(50, 4), normals(50, 4, seed=1), normals(50, 4, seed=2)
    log_std, new_log_std = normals(4, seed=3), normals(4, seed=4)
    old = Normal(mean, torch.exp(log_std))
    new = Normal(new_mean, torch.exp(new_log_std))
    torch.testing.assert_close(gaussian_log_prob(action, mean, log_std), old.log_prob(action))
    torch.testing.assert_close(gaussian_entropy(log_std), Independent(old, 1).entropy()[0])
    torch.testing.assert_close(
        gaussian_kl(mean, log_std, new_mean, new_log_std), kl_divergence(Independent(old, 1), Independent(new, 1))
    )


def test_divergence_is_zero_for_equal_policies_and_has_no_slope_there() -> None:
    mean, log_std = normals(10, 3), normals(3, seed=1)
    new_mean, new_log_std = mean.clone().requires_grad_(), log_std.clone().requires_grad_()
    divergence = gaussian_kl(mean, log_std, new_mean, new_log_std)
    torch.testing.assert_close(divergence.detach(), torch.zeros(10, dtype=torch.float64), rtol=0, atol=1e-14)
    for slope in torch.autograd.grad(divergence.sum(), (new_mean, new_log_std)):
        torch.testing.assert_close(slope, torch.zeros_like(slope), rtol=0, atol=1e-14)


# --- value loss -----------------------------------------------------------------------------------------------------------

VALUE_CASES = [  # value, old value, target, clip, huber, loss, its slope in the value
    (1.0, 0.0, 3.0, None, None, 2.0, -2.0),
    (1.0, 0.0, 3.0, None, 10.0, 2.0, -2.0),
    (1.0, 0.0, 3.0, None, 0.5, 0.5 * (2.0 - 0.25), -0.5),
    (1.0, 0.0, -3.0, None, 0.5, 0.5 * (4.0 - 0.25), 0.5),
    (1.0, 0.0, 3.0, 0.2, None, 0.5 * 2.8**2, 0.0),  # moved far towards the target: counts as if it had moved 0.2
    (1.0, 0.0, 0.5, 0.2, None, 0.125, 0.5),  # moved beyond the target: the true error is the larger one
    (0.1, 0.0, 3.0, 0.2, None, 0.5 * 2.9**2, -2.9),  # moved a little: no clip
    (-1.0, 0.0, 3.0, 0.2, None, 8.0, -4.0),  # moved away: the true error is the larger one
    (1.0, 0.0, 3.0, 0.2, 1.0, 2.8 - 0.5, 0.0),
]


def test_value_loss_and_its_slope_by_hand(subtests: pytest.Subtests) -> None:
    for value, old, target, clip, huber, loss, slope in VALUE_CASES:
        with subtests.test(value=value):
            v = torch.tensor([value], dtype=torch.float64, requires_grad=True)
            fixed = (torch.tensor([number], dtype=torch.float64) for number in (old, target))
            found = value_loss(v, *fixed, value_clip=clip, huber_delta=huber)
            (gradient,) = torch.autograd.grad(found, v)
            assert float(found.detach()) == pytest.approx(loss)
            assert float(gradient) == pytest.approx(slope)


def test_signed_threshold_lets_large_negative_errors_through_as_squares() -> None:
    value, none = torch.zeros(3), torch.zeros(3)
    target = torch.tensor([3.0, -3.0, 0.4])
    each = [value_loss(value[[k]], none[[k]], target[[k]], value_clip=None, huber_delta=0.5, signed=True) for k in range(3)]
    torch.testing.assert_close(torch.stack(each), torch.tensor([0.5 * (3.0 - 0.25), 4.5, 0.08]))


@pytest.mark.parametrize("huber", [None, 0.5, 10.0])
def test_clipped_value_loss_is_never_below_the_unclipped(huber: float | None) -> None:
    value, old, target = normals(60), normals(60, seed=1), normals(60, seed=2)
    for v, o, t in zip(value.split(1), old.split(1), target.split(1), strict=True):
        clipped = value_loss(v, o, t, value_clip=0.2, huber_delta=huber)
        assert float(clipped) >= float(value_loss(v, o, t, value_clip=None, huber_delta=huber))


def test_value_loss_is_the_mean_over_samples() -> None:
    value, old, target = normals(6), normals(6, seed=1), normals(6, seed=2)
    each = [value_loss(value[[k]], old[[k]], target[[k]], value_clip=0.2, huber_delta=1.0) for k in range(6)]
    torch.testing.assert_close(
        value_loss(value, old, target, value_clip=0.2, huber_delta=1.0), torch.stack(each).mean(), rtol=1e-12, atol=0.0
    )


# --- multiplier -----------------------------------------------------------------------------------------------------------


@given(
    mult=st.floats(0, 5), cost=st.floats(0, 200), limit=st.floats(0, 200), gamma=st.floats(0, 0.999),
    noise=st.floats(-1, 1), lr=st.floats(0, 1),
)  # fmt: skip
def test_multiplier_moves_with_the_excess_and_stays_between_zero_and_top(
    mult: float, cost: float, limit: float, gamma: float, noise: float, lr: float
) -> None:
    found = multiplier_step(mult, episode_cost=cost, limit=limit, gamma=gamma, mean_ratio_cost=noise, lr=lr, top=5.0)
    assert 0.0 <= found <= 5.0
    excess = (cost - limit) * (1.0 - gamma)
    if abs(excess) > abs(noise):
        assert found >= mult if excess > 0 else found <= mult


def test_multiplier_steps_by_hand() -> None:
    def step(mult: float, cost: float) -> float:
        return multiplier_step(mult, episode_cost=cost, limit=10.0, gamma=0.9, mean_ratio_cost=0.5, lr=0.1, top=2.0)

    assert step(1.0, 20.0) == pytest.approx(1.0 + 0.1 * (10.0 * 0.1 + 0.5))
    assert step(0.01, 0.0) == 0.0  # 0.01 - 0.05 would be below
    assert step(1.9, 200.0) == 2.0


@given(
    integral=st.floats(0, 5), cost=st.floats(0, 1e4), limit=st.floats(0, 200), before=st.floats(-1, 1), share=st.floats(0, 1),
    gains=st.tuples(*[st.floats(0, 10)] * 3),
)  # fmt: skip
def test_controlled_multiplier_and_its_integral_stay_between_zero_and_top(
    integral: float, cost: float, limit: float, before: float, share: float, gains: tuple[float, float, float]
) -> None:
    mult, moved, excess = pid_step(integral, episode_cost=cost, limit=limit, before=before, share=share, gains=gains, top=5.0)
    assert 0.0 <= mult <= 5.0
    assert 0.0 <= moved <= 5.0
    assert abs(moved - integral) <= gains[1] * share + 1e-12
    assert -1.0 <= excess <= 1.0
    assert (moved - integral) * (cost - limit) >= 0.0


def test_controlled_multiplier_by_hand() -> None:
    def step(integral: float, cost: float, before: float | None = None, share: float = 1.0, limit: float = 10.0) -> object:
        gains = (2.0, 0.5, 1.0)
        return pid_step(integral, episode_cost=cost, limit=limit, before=before, share=share, gains=gains, top=3.0)

    assert step(1.0, 12.0) == pytest.approx((1.5, 1.1, 0.2))
    assert step(1.0, 12.0, share=0.1) == pytest.approx((1.41, 1.01, 0.2))
    assert step(1.0, 12.0, before=-0.1) == pytest.approx((1.8, 1.1, 0.2))
    assert step(1.0, 12.0, before=0.5) == pytest.approx((1.5, 1.1, 0.2))  # a fall counts for nothing
    assert step(1.0, 99.0) == pytest.approx((3.0, 1.5, 1.0))  # three times over the limit is as bad as twice
    assert step(0.2, 0.0) == pytest.approx((0.0, 0.0, -1.0))  # and at once free again: neither winds up
    assert step(3.0, 99.0)[1:] == pytest.approx((3.0, 1.0))  # type: ignore[index]
    assert step(0.0, 0.5, limit=0.0) == pytest.approx((1.25, 0.25, 0.5))


def test_published_step_size_leaves_the_multiplier_where_it_is() -> None:
    """0.0125 over 625 rounds of 200 minibatches with a bracket of 1: the published runs have in effect a constant penalty."""
    mult = 0.78
    for _ in range(200):
        mult = multiplier_step(mult, episode_cost=101.0, limit=1.0, gamma=0.99, mean_ratio_cost=0.0, lr=1e-7, top=20.0)
    assert 625 * (mult - 0.78) == pytest.approx(0.0125, rel=1e-6)
