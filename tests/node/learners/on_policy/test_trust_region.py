"""The trust region: conjugate gradients, the Fisher matrix and the step against closed forms; the bound on real samples."""

import math
from collections.abc import Generator, Sequence
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from torch import Tensor

from node.learners.on_policy.trust_region import Region, conjugate_gradient
from node.numerics.networks import MLP, Trainer
from node.numerics.policies import Actor, CategoricalActor, GaussianActor
from topology.finite import NotFiniteError

Result = TypeVar("Result")


def result(generator: Generator[None, None, Result]) -> Result:
    try:
        while True:
            next(generator)
    except StopIteration as end:
        value: Result = end.value
        return value


def make(kind: str, hidden: Sequence[int] = (8,), n_in: int = 3, *, seed: int = 0) -> Actor:
    net = MLP(
        n_in, hidden, 2 if kind == "gaussian" else 3, activation="tanh", layer_norm=False, input_layer_norm=False,
        head_gain=0.5, generator=torch.Generator().manual_seed(seed),
    )  # fmt: skip
    return GaussianActor(net, 2, std="exp", std_init=0.5) if kind == "gaussian" else CategoricalActor(net, 3)


def region_of(
    actor: Actor, *, rows: int = 60, n_in: int = 3, costs: int = 0, excess: Sequence[float] = (), seed: int = 0, **settings: Any
) -> Region:
    """A region around an actor with actions of its own and random advantages."""
    rng = np.random.default_rng(seed)
    weights = Trainer(actor, lr=0.0, eps=1e-5, max_grad_norm=1.0).weights
    x = torch.from_numpy(rng.normal(size=(rows, n_in)).astype(np.float32))
    with torch.no_grad():
        output = actor.net(x).numpy()
        old = actor(x).kept()
    action = torch.from_numpy(actor.action(output, actor.noise(rng, rows, 1)[:, 0]))
    advantages = [torch.from_numpy(rng.normal(size=rows).astype(np.float32)) for _ in range(1 + costs)]
    usual: dict[str, Any] = {"bound": 0.01, "damping": 0.1, "backtrack": 0.8, "chunk": 16}
    return Region(
        actor=actor, weights=weights, x=x, action=action, old=old, advantages=advantages, excess=list(excess), **usual | settings
    )


def dense(region: Region) -> Tensor:
    return torch.stack([region.fisher(row) for row in torch.eye(len(region.weights))])


KINDS = ["gaussian", "categorical"]

# --- pieces -----------------------------------------------------------------------------------------------------------------


def test_conjugate_gradients_solve_exactly_in_as_many_steps_as_dimensions() -> None:
    rng = np.random.default_rng(0)
    root = torch.from_numpy(rng.normal(size=(6, 6)))
    matrix, b = root @ root.T + torch.eye(6), torch.from_numpy(rng.normal(size=6))
    found = result(conjugate_gradient(lambda v: matrix @ v, b, iterations=6))
    torch.testing.assert_close(matrix @ found, b, rtol=1e-8, atol=1e-8)
    assert not result(conjugate_gradient(lambda v: matrix @ v, torch.zeros(6))).any()


@pytest.mark.parametrize("kind", KINDS)
def test_natural_gradient_of_a_small_network_is_solved_to_a_ten_thousandth(kind: str) -> None:
    region = region_of(make(kind, hidden=()))
    slope = region.gradient(region.advantages[0])
    found = result(conjugate_gradient(region.fisher, slope))
    assert float((region.fisher(found) - slope).norm()) <= 1e-4 * float(slope.norm())


@pytest.mark.parametrize("kind", KINDS)
def test_fisher_matrix_is_the_mean_outer_product_of_scores(kind: str) -> None:
    """E over actions of ∇log π ∇log πᵀ: for choices summed exactly, for the Gaussian's spread 2 per dimension."""
    actor = make(kind, hidden=())
    region = region_of(actor, rows=5, damping=0.0)
    found = dense(region)
    torch.testing.assert_close(found, found.T, rtol=1e-4, atol=1e-6)
    if kind == "gaussian":
        torch.testing.assert_close(found[:2, :2], 2.0 * torch.eye(2), rtol=1e-4, atol=1e-5)
        assert not found[:2, 2:].abs().max() > 1e-5
        return
    expected = torch.zeros_like(found)
    for choice in range(3):
        for row in range(5):
            log_p = actor(region.x[row : row + 1]).log_prob(torch.full((1, 1), float(choice))).squeeze()
            score = torch.cat([s.reshape(-1) for s in torch.autograd.grad(log_p, list(actor.parameters()))])
            expected += float(torch.exp(log_p.detach())) * torch.outer(score, score) / 5
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_pieces_of_the_samples_add_up(kind: str) -> None:
    whole, pieces = (region_of(make(kind), chunk=chunk) for chunk in (1000, 7))
    advantage = whole.advantages[0]
    torch.testing.assert_close(whole.gradient(advantage), pieces.gradient(advantage), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(whole.fisher(advantage[:1].repeat(len(whole.weights))),
                               pieces.fisher(advantage[:1].repeat(len(whole.weights))), rtol=1e-3, atol=1e-5)  # fmt: skip


def test_tabular_step_is_the_closed_form_natural_gradient() -> None:
    """One state, softmax over logits θ: F = diag(p) - ppᵀ, so F⁻¹∇J = A up to a constant that changes no probability."""
    actor = make("categorical", hidden=(), n_in=1)
    with torch.no_grad():
        actor.net.head.weight.zero_()
        actor.net.head.bias.copy_(torch.tensor([0.3, -0.2, 0.1]))
    delta = 1e-4
    region = region_of(actor, n_in=1, rows=600, bound=delta, damping=1e-7)
    region.x.zero_()
    p = torch.softmax(torch.tensor([0.3, -0.2, 0.1], dtype=torch.float64), 0).numpy()
    # as many samples of each choice as it is probable, so that the sample mean is the expectation
    counts = np.round(600 * p).astype(int)
    counts[0] += 600 - counts.sum()
    region.action[:, 0] = torch.from_numpy(np.repeat(np.arange(3), counts).astype(np.float32))
    with torch.no_grad():
        object.__setattr__(region, "old", actor(region.x).kept())
    value = np.array([1.0, -0.5, 0.25])
    region.advantages[0][:] = (
        region.action[:, 0].long().apply_(lambda choice: choice) * 0.0
        + torch.from_numpy(value.astype(np.float32))[region.action[:, 0].long()]
    )
    metrics = result(region.improve())
    assert metrics["step_frac"] == 1.0
    advantage = value - (counts / 600) @ value
    fisher = np.diag(p) - np.outer(p, p)
    slope = counts / 600 * value - p * ((counts / 600) @ value)
    direction = np.linalg.lstsq(fisher, slope, rcond=None)[0]
    step = math.sqrt(2 * delta / (slope @ direction)) * direction
    moved = actor.net.head.bias.detach().double().numpy() - np.array([0.3, -0.2, 0.1])
    np.testing.assert_allclose(moved - moved.mean(), step - step.mean(), rtol=0.02, atol=1e-4)
    np.testing.assert_allclose(np.corrcoef(moved, advantage)[0, 1], 1.0, atol=1e-3)


# --- the step ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bound", [1e-4, 0.01, 0.3])
def test_accepted_steps_raise_the_surrogate_and_stay_within_the_bound(kind: str, bound: float) -> None:
    accepted = 0
    for seed in range(10):
        region = region_of(make(kind, seed=seed), seed=seed, bound=bound)
        before = region.weights.detach().clone()
        _, (start,) = region.measure()
        metrics = result(region.improve())
        kl, (now,) = region.measure()
        if metrics["step_frac"]:
            accepted += 1
            assert kl <= bound
            assert now > start
        else:
            assert torch.equal(region.weights, before)
    assert accepted >= 9


@pytest.mark.exact
def test_rejected_step_leaves_the_parameters_bit_for_bit() -> None:
    """A bound far beyond what the quadratic model can tell, and a line search that hardly shortens: no part of it will do."""
    region = region_of(make("gaussian"), bound=50.0, backtrack=0.999)
    before = region.weights.detach().clone()
    tried = [not torch.equal(region.weights, before) for _ in region.improve()]
    assert sum(tried) == 10
    assert torch.equal(region.weights, before)
    assert torch.equal(torch.cat([p.detach().reshape(-1) for p in region.actor.parameters()]), before)


@pytest.mark.parametrize("kind", KINDS)
def test_costs_far_below_their_limits_change_nothing(kind: str) -> None:
    ends = []
    for costs, excess in ((0, ()), (2, (-50.0, -50.0))):
        region = region_of(make(kind), costs=costs, excess=excess)
        result(region.improve())
        ends.append(region.weights.detach().clone())
    assert torch.equal(*ends)


@pytest.mark.parametrize("kind", KINDS)
def test_a_cost_at_its_limit_does_not_rise_and_a_violated_one_falls(kind: str) -> None:
    fell = 0
    for seed in range(10):
        for excess in (0.0, 5.0):
            region = region_of(make(kind, seed=seed), seed=seed, costs=1, excess=(excess,))
            _, (_, start) = region.measure()
            metrics = result(region.improve())
            kl, (_, now) = region.measure()
            assert now <= start
            assert kl <= region.bound
            assert (metrics["recovery"] == 1.0) is (excess == 5.0)
            fell += excess == 5.0 and now < start
    assert fell >= 9


def test_region_bends_the_step_only_as_far_as_needed() -> None:
    region = region_of(make("gaussian"), costs=1, excess=(-0.01,), bound=0.02)
    _, (start, cost) = region.measure()
    result(region.improve())
    _, (now, new_cost) = region.measure()
    assert now > start
    assert new_cost - cost <= 0.01


def test_it_pauses_between_passes_over_the_samples() -> None:
    assert len(list(region_of(make("gaussian")).improve())) >= 10


@pytest.mark.parametrize("place", [0, 1])
def test_an_advantage_that_is_not_finite_is_a_fault_and_no_step_that_will_not_do(place: int) -> None:
    region = region_of(make("gaussian"), costs=1, excess=[-1.0])
    region.advantages[place][3] = np.nan
    with pytest.raises(NotFiniteError, match="the gradient of the actor is not finite"):
        result(region.improve())
