"""Networks and their optimiser: initialisation, forward pass, flat views, and equality with torch's own Adam."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from node.numerics.networks import MLP, Trainer, require_all_finite
from topology.finite import NotFiniteError


def mlp(n_in: int = 5, hidden: Sequence[int] = (16, 8), n_out: int = 2, *, seed: int = 0, **more: Any) -> MLP:
    settings: dict[str, Any] = {"activation": "tanh", "layer_norm": False, "input_layer_norm": False, "head_gain": 0.5} | more
    return MLP(n_in, hidden, n_out, generator=torch.Generator().manual_seed(seed), **settings)


def inputs(rows: int = 7, width: int = 5, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((rows, width)).astype(np.float32))


def matrices(module: nn.Module) -> list[Tensor]:
    """The weights in order, the head's last."""
    return [parameter.detach() for parameter in module.parameters() if parameter.ndim == 2]


# --- initialisation -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("activation", "gain"), [("relu", math.sqrt(2.0)), ("tanh", 5.0 / 3.0)])
@pytest.mark.parametrize("head_gain", [0.01, 1.0])
def test_weights_start_orthogonal_with_their_gains_and_biases_at_zero(activation: str, gain: float, head_gain: float) -> None:
    net = mlp(activation=activation, head_gain=head_gain)
    *hidden, head = matrices(net)
    for weight, expected in [*((w, gain) for w in hidden), (head, head_gain)]:
        small = weight if weight.shape[0] <= weight.shape[1] else weight.T
        torch.testing.assert_close(small @ small.T, expected**2 * torch.eye(len(small)), rtol=1e-5, atol=1e-6)
    for parameter in net.parameters():
        assert parameter.ndim == 2 or not parameter.any()


def test_generator_alone_decides_the_weights() -> None:
    first = [weight.clone() for weight in matrices(mlp(seed=3))]
    torch.rand(17)
    assert all(torch.equal(a, b) for a, b in zip(first, matrices(mlp(seed=3)), strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, matrices(mlp(seed=4)), strict=True))


# --- forward pass ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("hidden", [(), (16,), (16, 8, 4)])
def test_forward_is_linear_maps_with_the_activation_between(activation: str, hidden: tuple[int, ...]) -> None:
    net = mlp(hidden=hidden, activation=activation)
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.ndim == 1:
                parameter.copy_(torch.linspace(-1, 1, len(parameter)))
    expected = inputs()
    weights = matrices(net)
    biases = [parameter.detach() for parameter in net.parameters() if parameter.ndim == 1]
    for place, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        expected = expected @ weight.T + bias
        if place < len(hidden):
            expected = torch.relu(expected) if activation == "relu" else torch.tanh(expected)
    torch.testing.assert_close(net(inputs()).detach(), expected, rtol=1e-5, atol=1e-6)


def test_input_layer_norm_makes_the_scale_of_inputs_irrelevant() -> None:
    net, plain = mlp(input_layer_norm=True, head_gain=1.0), mlp(head_gain=1.0)
    x = inputs()
    torch.testing.assert_close(net(x), net(10.0 * x + 3.0), rtol=1e-3, atol=1e-4)
    normed = (x - x.mean(-1, keepdim=True)) / x.std(-1, correction=0, keepdim=True)
    torch.testing.assert_close(net(x), plain(normed), rtol=1e-3, atol=1e-4)


def test_layer_norm_standardises_what_the_head_sees() -> None:
    net = mlp(hidden=(16,), layer_norm=True, head_gain=1.0)
    first, head = matrices(net)
    seen = torch.tanh(inputs() @ first.T)
    seen = (seen - seen.mean(-1, keepdim=True)) / torch.sqrt(seen.var(-1, correction=0, keepdim=True) + 1e-5)
    torch.testing.assert_close(net(inputs()).detach(), seen @ head.T, rtol=1e-4, atol=1e-5)


# --- the optimiser --------------------------------------------------------------------------------------------------------


def trainer(module: nn.Module, *, lr: float = 1e-2, max_grad_norm: float = 1e9) -> Trainer:
    return Trainer(module, lr=lr, eps=1e-5, max_grad_norm=max_grad_norm)


def backward(module: nn.Module, rows: Tensor) -> None:
    (module(rows) ** 2).sum().backward()


def flat(module: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().reshape(-1) for parameter in module.parameters()])


def test_becoming_flat_changes_no_output() -> None:
    net = mlp()
    before = net(inputs()).detach().clone()
    optimiser = trainer(net)
    assert torch.equal(net(inputs()).detach(), before)
    assert torch.equal(optimiser.weights.detach(), flat(net))


def test_gradients_gather_in_the_flat_vector_over_backward_passes() -> None:
    net, twin = mlp(), mlp()
    optimiser = trainer(net)
    for rows in inputs(8).split(3):
        backward(net, rows)
    backward(twin, inputs(8))
    expected = torch.cat([parameter.grad.reshape(-1) for parameter in twin.parameters() if parameter.grad is not None])
    torch.testing.assert_close(optimiser.gradient, expected, rtol=1e-5, atol=1e-6)


def test_layers_stay_views_of_the_flat_weights_step_after_step() -> None:
    net = mlp()
    optimiser = trainer(net)
    for _ in range(3):
        before = net(inputs()).detach().clone()
        backward(net, inputs())
        optimiser.step()
        assert not optimiser.gradient.any()
        assert torch.equal(flat(net), optimiser.weights.detach())
        assert not torch.equal(net(inputs()).detach(), before)
    with torch.no_grad():
        optimiser.weights.zero_()
    assert not net(inputs()).detach().any()


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("max_grad_norm", [0.5, 1e9], ids=["clipped", "free"])
def test_training_equals_torch_adam_on_the_module(max_grad_norm: float, layer_norm: bool) -> None:
    net, twin = (mlp(layer_norm=layer_norm, input_layer_norm=layer_norm) for _ in range(2))
    optimiser = trainer(net, max_grad_norm=max_grad_norm)
    adam = torch.optim.Adam(twin.parameters(), lr=1e-2, eps=1e-5)
    for k in range(20):
        rows = inputs(seed=k)
        backward(net, rows)
        norm = optimiser.step()
        adam.zero_grad()
        backward(twin, rows)
        expected = torch.nn.utils.clip_grad_norm_(twin.parameters(), max_grad_norm)
        adam.step()
        assert norm == pytest.approx(float(expected), rel=1e-4)
    torch.testing.assert_close(flat(net), flat(twin), rtol=1e-4, atol=1e-5)


def test_gradients_are_scaled_to_the_largest_norm_and_the_true_norm_is_told() -> None:
    """From rest and with eps = 1 Adam moves every weight by lr·g/(|g| + 1), so the clipped gradient can be read off."""
    net, twin = mlp(), mlp()
    optimiser = Trainer(net, lr=1.0, eps=1.0, max_grad_norm=0.25)
    backward(net, inputs())
    backward(twin, inputs())
    gradient = torch.cat([parameter.grad.reshape(-1) for parameter in twin.parameters() if parameter.grad is not None])
    assert float(gradient.norm()) > 0.25
    before = optimiser.weights.detach().clone()
    assert optimiser.step() == pytest.approx(float(gradient.norm()), rel=1e-5)
    clipped = gradient * 0.25 / gradient.norm()
    torch.testing.assert_close(before - optimiser.weights.detach(), clipped / (clipped.abs() + 1.0), rtol=1e-4, atol=1e-6)


def test_decay_scales_the_first_step_size_not_the_last() -> None:
    moved = []
    for fractions in ((1.0,), (0.5,), (0.1, 0.5)):
        net = mlp()
        optimiser = trainer(net)
        before = optimiser.weights.detach().clone()
        for fraction in fractions:
            optimiser.decay(fraction)
        backward(net, inputs())
        optimiser.step()
        moved.append(optimiser.weights.detach() - before)
    torch.testing.assert_close(moved[1], 0.5 * moved[0], rtol=1e-3, atol=1e-7)
    assert torch.equal(moved[1], moved[2])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_gradient_that_is_not_finite_changes_nothing_and_is_told(bad: float) -> None:
    net = nn.Linear(3, 2)
    optimiser = Trainer(net, lr=1.0, eps=1.0, max_grad_norm=0.25, name="the actor")
    before = optimiser.weights.detach().clone()
    optimiser.gradient[2] = bad
    with pytest.raises(NotFiniteError, match="the gradient of the actor is not finite"):
        optimiser.step()
    assert torch.equal(optimiser.weights, before)


def test_figures_and_weights_of_a_round_must_be_finite() -> None:
    require_all_finite({"kl": 0.1}, {"q": torch.tensor([3e38]), "empty": torch.zeros(0)})
    with pytest.raises(NotFiniteError, match="value_loss of the round is nan"):
        require_all_finite({"kl": 0.1, "value_loss": np.nan}, {})
    with pytest.raises(NotFiniteError, match="q among its weights is not finite"):
        require_all_finite({}, {"q": torch.tensor([[0.0], [-np.inf]], dtype=torch.float64)})
