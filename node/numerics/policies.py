"""Policies: networks whose output is a distribution over one agent's actions, Gaussian or categorical.

Symbols: B samples, A action dimensions (1 if the action is a choice), C choices.

The learner uses a policy only through what both kinds have in common: the log-probability of the action taken, the
entropy, the divergence of two of them, and how an action is drawn from noise that was drawn beforehand. A chosen action
is stored and sent as its index, one float32.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from node.numerics.losses import gaussian_entropy, gaussian_kl, gaussian_log_prob
from node.numerics.networks import MLP

UNAVAILABLE = -1e10  # logit of a choice that cannot be made, as in the public codes


class Distribution(ABC):
    """Distributions over actions, one per sample."""

    @abstractmethod
    def log_prob(self, action: Tensor) -> Tensor:
        """Log-probability (or density) of actions (B, A), per action dimension, (B, A)."""

    @abstractmethod
    def entropy(self) -> Tensor:
        """Mean entropy over samples, summed over dimensions: a scalar."""

    @abstractmethod
    def kl(self, new: "Distribution") -> Tensor:
        """KL(self ‖ new) per sample, (B,); both of one kind."""

    @abstractmethod
    def kept(self) -> "Distribution":
        """The distributions as they are, whatever becomes of the policy's parameters."""

    @abstractmethod
    def rows(self, rows: Tensor) -> "Distribution":
        """The distributions of some of the samples."""

    @abstractmethod
    def split(self, size: int) -> Iterator["Distribution"]:
        """The distributions in pieces of `size` samples."""


@dataclass(frozen=True, slots=True)
class Gaussian(Distribution):
    """Diagonal Gaussians: means (B, A) and one log standard deviation per dimension, (A,), for all of them."""

    mean: Tensor
    log_std: Tensor

    def log_prob(self, action: Tensor) -> Tensor:
        """Log-density per dimension, (B, A)."""
        return gaussian_log_prob(action, self.mean, self.log_std)

    def entropy(self) -> Tensor:
        """Entropy, the same for every sample."""
        return gaussian_entropy(self.log_std)

    def kl(self, new: Distribution) -> Tensor:
        """KL(self ‖ new), (B,)."""
        assert isinstance(new, Gaussian)
        return gaussian_kl(self.mean, self.log_std, new.mean, new.log_std)

    def kept(self) -> "Gaussian":
        """As they are: the spread may be the very parameter."""
        return Gaussian(self.mean, self.log_std.clone())

    def rows(self, rows: Tensor) -> "Gaussian":
        """Those of some samples."""
        return Gaussian(self.mean[rows], self.log_std)

    def split(self, size: int) -> Iterator["Gaussian"]:
        """Those of all samples, piece by piece."""
        return (Gaussian(mean, self.log_std) for mean in self.mean.split(size))


@dataclass(frozen=True, slots=True)
class Categorical(Distribution):
    """Log-probabilities of the choices, (B, C)."""

    log_p: Tensor

    @classmethod
    def of(cls, logits: Tensor, available: Tensor | None = None) -> "Categorical":
        """From logits (B, C), with probability 0 where `available` (B, C) is false.

        Example:
            >>> Categorical.of(torch.zeros(1, 3), torch.tensor([[True, False, True]])).log_p.exp()
            tensor([[0.5000, 0.0000, 0.5000]])
        """
        if available is not None:
            logits = logits.masked_fill(~available, UNAVAILABLE)
        return cls(torch.log_softmax(logits, -1))

    def log_prob(self, action: Tensor) -> Tensor:
        """Log-probability of the indices (B, 1), (B, 1)."""
        return self.log_p.gather(-1, action.long())

    def entropy(self) -> Tensor:
        """Mean entropy over samples."""
        return -(self.log_p.exp() * self.log_p).sum(-1).mean()

    def kl(self, new: Distribution) -> Tensor:
        """KL(self ‖ new), (B,), from all probabilities and not from the choices made."""
        assert isinstance(new, Categorical)
        return (self.log_p.exp() * (self.log_p - new.log_p)).sum(-1)

    def kept(self) -> "Categorical":
        """As they are."""
        return self

    def rows(self, rows: Tensor) -> "Categorical":
        """Those of some samples."""
        return Categorical(self.log_p[rows])

    def split(self, size: int) -> Iterator["Categorical"]:
        """Those of all samples, piece by piece."""
        return (Categorical(log_p) for log_p in self.log_p.split(size))


class Actor(nn.Module, ABC):
    """A network and what its outputs mean."""

    net: MLP

    @abstractmethod
    def of(self, output: Tensor) -> Distribution:
        """The distributions that network outputs (B, ...) stand for."""

    @abstractmethod
    def noise(self, draw: np.random.Generator | None, steps: int, copies: int) -> NDArray[np.float32]:
        """What chance adds to each step's outputs, (T, E, ...); None: nothing."""

    @abstractmethod
    def action(self, output: NDArray[np.float32], noise: NDArray[np.float32]) -> NDArray[np.float32]:
        """Actions (E, A) from one step's outputs and noise."""

    @abstractmethod
    def metrics(self) -> Mapping[str, float]:
        """What is worth telling of the policy itself, by name."""

    def forward(self, x: Tensor) -> Distribution:
        """(B, n_in) -> the distributions over actions."""
        return self.of(self.net.forward(x))

    def everywhere(self, x: Tensor, chunk: int) -> Distribution:
        """The same for any number of rows, chunk by chunk."""
        return self.of(self.net.everywhere(x, chunk))


class GaussianActor(Actor):
    """A Gaussian policy: mean from an MLP, spread independent of the state.

    The spread is exp(p), or 0.5·sigmoid(p) (always below 0.5, as HARL and the MAPPO-L code have it).
    """

    def __init__(self, mean: MLP, act_dim: int, *, std: Literal["sigmoid", "exp"], std_init: float) -> None:
        super().__init__()
        self.net = mean
        self._sigmoid = std == "sigmoid"
        start = math.log(2 * std_init / (1 - 2 * std_init)) if self._sigmoid else math.log(std_init)
        self.spread = nn.Parameter(torch.full((act_dim,), start))

    def log_std(self) -> Tensor:
        """Log standard deviation per action dimension, (A,)."""
        return functional.logsigmoid(self.spread) + math.log(0.5) if self._sigmoid else self.spread

    def of(self, output: Tensor) -> Gaussian:
        """Gaussians around the outputs."""
        return Gaussian(output, self.log_std())

    def noise(self, draw: np.random.Generator | None, steps: int, copies: int) -> NDArray[np.float32]:
        """Normal noise of the policy's spread."""
        size = (steps, copies, len(self.spread))
        if draw is None:
            return np.zeros(size, np.float32)
        with torch.no_grad():
            std = torch.exp(self.log_std()).numpy()
        return np.asarray(std * draw.standard_normal(size, dtype=np.float32))

    def action(self, output: NDArray[np.float32], noise: NDArray[np.float32]) -> NDArray[np.float32]:
        """Mean plus noise."""
        return output + noise

    def metrics(self) -> Mapping[str, float]:
        """The mean standard deviation."""
        with torch.no_grad():
            return {"std": float(torch.exp(self.log_std()).mean())}


class CategoricalActor(Actor):
    """A policy that chooses one of C actions, its logits from an MLP.

    A choice is drawn as the largest logit after adding Gumbel noise, so that chance is drawn before the round and the
    likeliest choice is what remains without it.

    Args:
        logits: The network.
        n_discrete: C.
        is_masked: Whether behind the inputs of each sample stand C numbers, 1 for every choice that can be made.
    """

    def __init__(self, logits: MLP, n_discrete: int, *, is_masked: bool = False) -> None:
        super().__init__()
        self.net = logits
        self._n_discrete = n_discrete
        self._is_masked = is_masked

    def of(self, output: Tensor) -> Categorical:
        """The choices' distributions."""
        return Categorical.of(output)

    def forward(self, x: Tensor) -> Distribution:
        """See `Actor.forward`; choices that cannot be made have probability 0."""
        if not self._is_masked:
            return super().forward(x)
        inputs, mask = x[:, : -self._n_discrete], x[:, -self._n_discrete :]
        return Categorical.of(self.net.forward(inputs), mask > 0.5)

    def everywhere(self, x: Tensor, chunk: int) -> Distribution:
        """See `Actor.everywhere`."""
        if not self._is_masked:
            return super().everywhere(x, chunk)
        inputs, mask = x[:, : -self._n_discrete], x[:, -self._n_discrete :]
        return Categorical.of(self.net.everywhere(inputs, chunk), mask > 0.5)

    def noise(self, draw: np.random.Generator | None, steps: int, copies: int) -> NDArray[np.float32]:
        """Gumbel noise per choice, (T, E, C)."""
        size = (steps, copies, self._n_discrete)
        return np.zeros(size, np.float32) if draw is None else draw.gumbel(size=size).astype(np.float32)

    def action(self, output: NDArray[np.float32], noise: NDArray[np.float32]) -> NDArray[np.float32]:
        """Indices of the choices, (E, 1)."""
        return np.asarray((output + noise).argmax(-1, keepdims=True), np.float32)

    def metrics(self) -> Mapping[str, float]:
        """Nothing: what there is to tell is the entropy."""
        return {}
