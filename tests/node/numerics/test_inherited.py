"""What a network takes over from one of other inputs: its outputs do not change, whatever new inputs hold."""

import numpy as np
import pytest
import torch
from torch import Tensor

from node.numerics.inherited import Inherited, InputMap
from node.numerics.networks import MLP, Trainer
from node.numerics.normalise import InputNorm, ValueNorm

MAP = InputMap(here=np.array([0, 3, 4]), there=np.array([2, 0, 1]), width=5, other_width=3)


def mlp(n_in: int, hidden: tuple[int, ...], seed: int) -> MLP:
    generator = torch.Generator().manual_seed(seed)
    return MLP(n_in, hidden, 2, activation="tanh", layer_norm=True, input_layer_norm=False, head_gain=1.0, generator=generator)


@pytest.mark.parametrize("hidden", [(8, 4), ()])
@pytest.mark.parametrize("more", [0, 2])
def test_outputs_are_those_of_the_other_network_whatever_new_inputs_hold(hidden: tuple[int, ...], more: int) -> None:
    other, net = mlp(3 + more, hidden, 0), mlp(5 + more, hidden, 1)
    theirs, mine = (Trainer(one, lr=0.1, eps=1e-5, max_grad_norm=1.0) for one in (other, net))
    mine.take(Inherited({"q": theirs.weights.detach()}, MAP, 1).network("q", net, net.first, more=more))
    x = torch.randn((6, 5 + more), generator=torch.Generator().manual_seed(2))
    known = torch.cat((x[:, [3, 4, 0]], x[:, 5:]), 1)
    torch.testing.assert_close(net(x), other(known))
    x[:, [1, 2]] = 1e3
    torch.testing.assert_close(net(x), other(known))


def test_weights_of_another_size_are_refused_by_name() -> None:
    net = mlp(5, (8,), 0)
    with pytest.raises(ValueError, match=r"^q needs shape \(\d+,\), found \(4,\)$"):
        Inherited({"q": torch.zeros(4)}, MAP, 1).network("q", net, net.first)
    with pytest.raises(ValueError, match=r"^inputs needs shape \(2, 3\), found nothing$"):
        Inherited({}, MAP, 1).statistics("inputs")


def seen(rows: np.ndarray) -> InputNorm:
    norm = InputNorm(rows.shape[1], running=True)
    norm.update(rows)
    return norm


def test_known_inputs_keep_their_statistics_and_new_ones_begin_with_the_first_round() -> None:
    rng = np.random.default_rng(0)
    before, after = (rng.normal(5, 3, (400, 3)).astype(np.float32), rng.normal(1, 2, (100, 5)).astype(np.float32))
    norm = InputNorm(5, running=True)
    norm.inherit(seen(before).weights(), MAP, 400)
    known = seen(before).weights()[:, [2, 0, 1]]
    torch.testing.assert_close(norm.weights()[:, [0, 3, 4]], known, rtol=0, atol=0)
    torch.testing.assert_close(norm.weights()[:, [1, 2]], Tensor([[0.0, 0.0], [1.0, 1.0]]), rtol=0, atol=0)
    norm.update(after)
    both = seen(np.concatenate((before[:, [2, 0, 1]], after[:, [0, 3, 4]])))
    torch.testing.assert_close(norm.weights()[:, [0, 3, 4]], both.weights(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(norm.weights()[:, [1, 2]], seen(after[:, [1, 2]]).weights())


def test_statistics_of_returns_go_on_from_where_they_were() -> None:
    norm, other = (ValueNorm(enabled=True, beta=0.9) for _ in range(2))
    for returns in (np.arange(50.0), np.arange(20.0)):
        other.update(returns)
    norm.begin(other.mu, other.sigma)
    assert norm.update(np.full(10, other.mu))[1] == pytest.approx(0.0)  # the mean does not move
    assert norm.sigma == pytest.approx(np.sqrt(0.9) * other.sigma)
