"""Policies: both kinds against torch's own distributions, their noise against the probabilities they stand for."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, distributions

from node.numerics.networks import MLP
from node.numerics.policies import Actor, Categorical, CategoricalActor, Distribution, Gaussian, GaussianActor


def mlp(n_out: int = 2, *, head_gain: float = 0.5) -> MLP:
    return MLP(
        5, (16,), n_out, activation="tanh", layer_norm=False, input_layer_norm=False, head_gain=head_gain,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip


def inputs(rows: int = 7, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((rows, 5)).astype(np.float32))


def logits(rows: int = 50, n_discrete: int = 4, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(0.0, 2.0, (rows, n_discrete)))


# --- the actor's spread -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("std", ["sigmoid", "exp"])
def test_spread_starts_as_asked(std: Any) -> None:
    actor = GaussianActor(mlp(), 2, std=std, std_init=0.3655)
    torch.testing.assert_close(torch.exp(actor.log_std()).detach(), torch.full((2,), 0.3655))


def test_published_spread_is_half_the_sigmoid_of_one() -> None:
    assert float(GaussianActor(mlp(), 2, std="sigmoid", std_init=0.3655).spread.detach()[0]) == pytest.approx(1.0, abs=1e-3)


def test_sigmoid_spread_stays_below_a_half_whatever_its_parameter() -> None:
    actor = GaussianActor(mlp(), 3, std="sigmoid", std_init=0.3)
    with torch.no_grad():
        actor.spread.copy_(torch.tensor([-30.0, 0.0, 30.0]))
    found = torch.exp(actor.log_std()).detach()
    torch.testing.assert_close(found, torch.tensor([0.5 * math.exp(-30.0), 0.25, 0.5]), rtol=1e-5, atol=0.0)


# --- choices ----------------------------------------------------------------------------------------------------------------


def test_log_probability_entropy_and_divergence_of_choices_are_those_of_torch() -> None:
    old, new = Categorical.of(logits()), Categorical.of(logits(seed=1))
    theirs, others = (distributions.Categorical(logits=table) for table in (logits(), logits(seed=1)))
    choice = torch.from_numpy(np.random.default_rng(2).integers(4, size=50))
    index = choice[:, None].to(torch.float32)  # as it is stored and sent
    torch.testing.assert_close(old.log_prob(index), theirs.log_prob(choice)[:, None])
    torch.testing.assert_close(old.entropy(), theirs.entropy().mean())
    torch.testing.assert_close(old.kl(new), distributions.kl_divergence(theirs, others))


def test_choices_that_are_not_available_have_no_probability_and_no_slope() -> None:
    table = logits().requires_grad_()
    available = torch.from_numpy(np.random.default_rng(3).random((50, 4)) < 0.6)
    available[:, 0] = True
    found = Categorical.of(table, available)
    assert not found.log_p.detach().exp()[~available].any()
    torch.testing.assert_close(found.log_p.exp().sum(-1).detach(), torch.ones(50, dtype=torch.float64))
    (slope,) = torch.autograd.grad(found.entropy() + found.log_prob(torch.zeros(50, 1)).sum(), table)
    assert torch.isfinite(slope).all()
    assert not slope[~available].any()
    alone = Categorical.of(table[:1, available[0]])
    torch.testing.assert_close(found.log_p[0, available[0]], alone.log_p[0])


def test_noise_makes_choices_as_often_as_they_are_probable() -> None:
    actor = CategoricalActor(mlp(3), 3)
    output = np.log(np.array([0.6, 0.3, 0.1], np.float32))
    noise = actor.noise(np.random.default_rng(0), 100, 400)
    made = np.stack([actor.action(np.broadcast_to(output, (400, 3)), step) for step in noise])
    assert made.shape == (100, 400, 1)
    assert made.dtype == np.float32
    shares = np.bincount(made.astype(int).ravel(), minlength=3) / made.size
    np.testing.assert_allclose(shares, [0.6, 0.3, 0.1], atol=4 * 0.5 / math.sqrt(made.size))


def test_without_noise_the_likeliest_choice_is_made() -> None:
    actor = CategoricalActor(mlp(3), 3)
    output = np.array([[0.0, 2.0, 1.0], [3.0, 2.0, 1.0]], np.float32)
    np.testing.assert_array_equal(actor.action(output, actor.noise(None, 4, 2)[1]), [[1.0], [0.0]])


# --- what both kinds have in common ------------------------------------------------------------------------------------------

ACTORS: dict[str, Callable[[], Actor]] = {
    "gaussian": lambda: GaussianActor(mlp(2), 2, std="exp", std_init=0.5),
    "categorical": lambda: CategoricalActor(mlp(3), 3),
}


@pytest.fixture(params=ACTORS)
def actor(request: pytest.FixtureRequest) -> Actor:
    return ACTORS[str(request.param)]()


def parts(distribution: Distribution) -> tuple[Tensor, ...]:
    if isinstance(distribution, Gaussian):
        return distribution.mean, distribution.log_std
    assert isinstance(distribution, Categorical)
    return (distribution.log_p,)


def test_piece_by_piece_it_is_the_same_policy(actor: Actor) -> None:
    whole = actor(inputs())
    for a, b in zip(parts(whole), parts(actor.everywhere(inputs(), 3)), strict=True):
        torch.testing.assert_close(a, b)
    action = torch.ones(7, 2) if isinstance(whole, Gaussian) else torch.ones(7, 1)
    rows = torch.tensor([4, 1, 6])
    torch.testing.assert_close(whole.rows(rows).log_prob(action[rows]), whole.log_prob(action)[rows])
    pieces = [piece.log_prob(a) for piece, a in zip(whole.split(3), action.split(3), strict=True)]
    torch.testing.assert_close(torch.cat(pieces), whole.log_prob(action))


def test_what_is_kept_does_not_move_with_the_parameters(actor: Actor) -> None:
    with torch.no_grad():
        kept, before = actor(inputs()).kept(), actor(inputs())
        before_parts = [part.clone() for part in parts(before)]
        for parameter in actor.parameters():
            parameter.add_(0.5)
        moved = actor(inputs())
    for a, b in zip(parts(kept), before_parts, strict=True):
        assert torch.equal(a, b)
    assert (kept.kl(moved) > 0).all()
    torch.testing.assert_close(kept.kl(kept), torch.zeros(7), rtol=0, atol=1e-7)


def test_kinds_do_not_mix() -> None:
    with torch.no_grad(), pytest.raises(AssertionError):
        ACTORS["gaussian"]()(inputs()).kl(ACTORS["categorical"]()(inputs()))
