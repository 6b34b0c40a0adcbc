"""Networks of an agent, each with its parameters in one flat vector.

The flat vector makes an optimiser step, a gradient norm and a hash one operation each instead of one per layer; the
layers see views of it.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from node.numerics import products
from node.numerics.seeds import stream
from topology.finite import NotFiniteError, require_finite
from topology.snapshot import Stateful

_GAIN = {"relu": math.sqrt(2.0), "tanh": 5.0 / 3.0}


class MLP(nn.Module):
    """x -> [LayerNorm] -> (linear -> activation [-> LayerNorm])* -> linear.

    Orthogonal weights (gain √2 for ReLU, 5/3 for tanh, `head_gain` at the end), zero biases, as in the on-policy
    family.
    """

    def __init__(
        self,
        n_in: int,
        hidden: Sequence[int],
        n_out: int,
        *,
        activation: Literal["relu", "tanh"],
        layer_norm: bool,
        input_layer_norm: bool,
        head_gain: float,
        generator: torch.Generator,
    ) -> None:
        products.check()  # every learner has a network, and makes it before it computes
        super().__init__()
        self._activation = torch.relu_ if activation == "relu" else torch.tanh_  # in place: autograd keeps the output only
        self._entry = nn.LayerNorm(n_in) if input_layer_norm else None
        widths = [n_in, *hidden]
        linears = [nn.Linear(a, b) for a, b in pairwise(widths)]
        self._hidden = nn.ModuleList(linears)
        norms = [nn.LayerNorm(b) for b in hidden] if layer_norm else []
        self._norms = nn.ModuleList(norms)
        self.head = nn.Linear(widths[-1], n_out)
        for layer in [*linears, self.head]:
            gain = head_gain if layer is self.head else _GAIN[activation]
            nn.init.orthogonal_(layer.weight, gain, generator=generator)
            nn.init.zeros_(layer.bias)
        # plain tuples of the same parameters: going through modules costs as much per call as the arithmetic of a small batch
        norm_parameters = [_of_norm(norm) for norm in norms] if layer_norm else [None] * len(linears)
        self._layers = [(layer.weight, layer.bias, own) for layer, own in zip(linears, norm_parameters, strict=True)]
        self._ends = None if self._entry is None else _of_norm(self._entry), self.head.weight, self.head.bias

    @property
    def first(self) -> Tensor:
        """The weights (U, n_in) of the layer that takes the inputs."""
        layer = self._hidden[0] if len(self._hidden) else self.head
        assert isinstance(layer, nn.Linear), "all of them are"
        return layer.weight

    def forward(self, x: Tensor) -> Tensor:
        """(B, n_in) -> (B, n_out)."""
        entry, head_weight, head_bias = self._ends
        if entry is not None:
            x = torch.layer_norm(x, *entry)
        for weight, bias, norm in self._layers:
            x = self._activation(functional.linear(x, weight, bias))
            if norm is not None:
                x = torch.layer_norm(x, *norm)
        return functional.linear(x, head_weight, head_bias)

    def everywhere(self, x: Tensor, chunk: int) -> Tensor:
        """The same for any number of rows, `chunk` rows at a time."""
        return torch.cat([self.forward(piece) for piece in x.split(chunk)]) if len(x) > chunk else self.forward(x)


def _of_norm(norm: nn.LayerNorm) -> tuple[tuple[int, ...], Tensor, Tensor]:
    """What `torch.layer_norm` wants to know; `functional.layer_norm` looks at every flag of the library on the way there."""
    return norm.normalized_shape, norm.weight, norm.bias


def chunks(rows: Tensor, size: int) -> Sequence[Tensor]:
    """Row numbers (M,) in pieces of `size`; most minibatches are one piece, and need no cutting."""
    return (rows,) if len(rows) <= size else rows.split(size)


def require_all_finite(metrics: Mapping[str, float], weights: Mapping[str, Tensor]) -> None:
    """Make sure that what a round of learning has come to is finite: its metrics (losses among them) and all weights, by name.

    Raises:
        NotFiniteError: something is not; the text names it.
    """
    for name, figure in metrics.items():
        if not math.isfinite(figure):
            raise NotFiniteError(f"{name} of the round is {figure}")
    for name, tensor in weights.items():
        require_finite(tensor.numpy(), f"{name} among its weights")


class Trainer(Stateful):
    """A module with its parameters and gradients in flat vectors, and Adam on them.

    Args:
        module: Its parameters become views of one vector.
        lr: Adam step at the start.
        eps: Adam's epsilon.
        max_grad_norm: Gradients are scaled down to this norm.
        name: Of the module, for messages.
    """

    STATE = ("weights", "_first", "_second", "_steps")

    def __init__(self, module: nn.Module, *, lr: float, eps: float, max_grad_norm: float, name: str = "a network") -> None:
        parameters = list(module.parameters())
        flat = torch.cat([parameter.detach().reshape(-1) for parameter in parameters])
        self.gradient = torch.zeros_like(flat)
        start = 0
        for parameter in parameters:
            stop = start + parameter.numel()
            parameter.data = flat[start:stop].view_as(parameter)
            parameter.grad = self.gradient[start:stop].view_as(parameter)
            start = stop
        self.weights = nn.Parameter(flat)
        self.weights.grad = self.gradient
        self._flat = self.weights.detach()  # the same numbers, known to no graph
        self._name = name
        self._lr = lr
        self._step_size = lr
        self._eps = eps
        self._max_grad_norm = max_grad_norm
        self._first, self._second = torch.zeros_like(flat), torch.zeros_like(flat)
        self._steps = torch.zeros(())

    def step(self) -> float:
        """One Adam step on the gradient gathered since the last; returns the gradient's norm before clipping.

        Raises:
            NotFiniteError: the norm is none; the parameters are as they were.
        """
        norm = float(torch.linalg.vector_norm(self.gradient))  # what Tensor.norm comes to, without its detour through Python
        if not math.isfinite(norm):
            raise NotFiniteError(f"the gradient of {self._name} is not finite")
        if norm > self._max_grad_norm:
            self.gradient.mul_(self._max_grad_norm / norm)
        self._steps += 1
        # the kernel of torch.optim.Adam(fused=True); the class itself imports torch's compiler, more than a second
        torch._fused_adam_(
            [self._flat],
            [self.gradient],
            [self._first],
            [self._second],
            [],
            [self._steps],
            lr=self._step_size,
            beta1=0.9,
            beta2=0.999,
            weight_decay=0.0,
            eps=self._eps,
            amsgrad=False,
            maximize=False,
        )
        self.gradient.zero_()
        return norm

    def decay(self, fraction: float) -> None:
        """Set the step to this fraction of the one at the start."""
        self._step_size = self._lr * fraction

    def take(self, weights: Tensor) -> None:
        """Go on with other weights, (P,); Adam's moments and its count of steps stay as they are."""
        with torch.no_grad():
            self.weights.copy_(weights)


def torch_stream(seed: int, *key: int) -> torch.Generator:
    """A generator of torch for a key of `node.numerics.seeds`, seeded from the key's numpy stream."""
    return torch.Generator().manual_seed(int(stream(seed, *key).integers(2**63)))
