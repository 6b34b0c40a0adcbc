"""Running statistics: of the inputs of a network, and of the returns that a critic predicts."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from node.numerics.inherited import InputMap
from topology.snapshot import Stateful

INPUT_CLIP = 10.0  # standard deviations; what the public codes use


class RunningMoments(Stateful):
    """Mean and variance per column over everything seen, merged batch by batch.

    Source:
        Chan, Golub, LeVeque 1979, the pairwise update of sums of squares.
    """

    STATE = ("count", "mean", "_squares")

    def __init__(self, width: int) -> None:
        self.count = np.zeros(width, np.int64)  # by column: one that another run did not have begins later
        self.mean = np.zeros(width)
        self._squares = np.zeros(width)

    def update(self, rows: NDArray[np.float32]) -> None:
        """Take in rows of shape (B, width)."""
        n = len(rows)
        mean = rows.mean(axis=0, dtype=np.float64)
        squares = ((rows - mean) ** 2).sum(axis=0)
        total = self.count + n
        shift = mean - self.mean
        self.mean = self.mean + shift * n / total
        self._squares = self._squares + squares + shift**2 * self.count * n / total
        self.count = total

    @property
    def variance(self) -> NDArray[np.float64]:
        """Variance per column; 1 before anything was seen."""
        return np.where(self.count > 0, self._squares / np.maximum(self.count, 1), 1.0)

    def put(self, mean: NDArray[np.float64], variance: NDArray[np.float64]) -> None:
        """Go on with other moments, as if as many rows as were seen had had them."""
        self.mean, self._squares = mean, np.maximum(variance, 0.0) * self.count

    @property
    def std(self) -> NDArray[np.float64]:
        """Standard deviation per column, at least 1e-2; 1 before anything was seen."""
        return np.maximum(np.sqrt(self.variance), 1e-2)

    def begin(self, mean: NDArray[np.float64], std: NDArray[np.float64], count: NDArray[np.int64]) -> None:
        """Take these for the statistics of so many rows, all by column."""
        self.count = count
        self.put(mean, std**2)


class RunningScale(Stateful):
    """Root of a running variance of a signal that is taken in batch by batch; the first batch counts in full.

    A single batch whose values hardly differ is therefore not blown up to spread 1.

    Args:
        keep: Memory per batch.
        floor: Smallest scale, in the signal's units.
    """

    STATE = ("_variance", "_weight")

    def __init__(self, *, keep: float, floor: float) -> None:
        self._keep = keep
        self._floor = floor
        self._variance = self._weight = 0.0

    def take(self, batch: NDArray[np.float64]) -> float:
        """Take in a batch; the scale with it."""
        self._variance = self._keep * self._variance + (1.0 - self._keep) * float(batch.var())
        self._weight = self._keep * self._weight + (1.0 - self._keep)
        return max(math.sqrt(self._variance / self._weight), self._floor)


class InputNorm(Stateful):
    """x -> clip((x - mean)/std, ±10) with statistics that stay frozen until `update`, once per round."""

    STATE = ("_moments", "_offset", "_scale")

    def __init__(self, width: int, *, running: bool) -> None:
        self._moments = RunningMoments(width) if running else None
        self._offset = torch.zeros(width)  # -mean/std
        self._scale = torch.ones(width)  # 1/std

    def __call__(self, x: Tensor) -> Tensor:
        """The normalised inputs, shape of x."""
        if self._moments is None:
            return x
        return torch.addcmul(self._offset, x, self._scale).clamp_(-INPUT_CLIP, INPUT_CLIP)

    def update(self, rows: NDArray[np.float32]) -> None:
        """Take in a round's inputs, (B, width)."""
        if self._moments is not None and len(rows):
            self._moments.update(rows)
            self._adopt()

    @property
    def moments(self) -> NDArray[np.float64] | None:
        """Mean, then standard deviation per column, (2, width); None: inputs are taken as they are."""
        if self._moments is None:
            return None
        return np.stack((self._moments.mean, np.sqrt(self._moments.variance)))

    def put(self, moments: NDArray[np.float64]) -> None:
        """Go on with other moments, (2, width), where there are any."""
        if self._moments is not None:
            self._moments.put(moments[0], moments[1] ** 2)
            self._adopt()

    def weights(self) -> Tensor:
        """Offset and scale as one (2, width) tensor, for checkpoints."""
        return torch.stack((self._offset, self._scale))

    def load(self, weights: Tensor) -> None:
        """Take offset and scale from a checkpoint."""
        self._offset, self._scale = weights[0].clone(), weights[1].clone()

    def inherit(self, weights: Tensor, inputs: InputMap, samples: int) -> None:
        """Begin with the statistics of a network of other inputs; those of columns that it had not are fresh.

        Args:
            weights: Its offset and scale, (2, other_width).
            inputs: Which inputs both have.
            samples: How many samples they stand for, against those to come.
        """
        self.load(inputs.carry(weights, self.weights()))
        if self._moments is not None:
            count = np.zeros(inputs.width, np.int64)
            count[inputs.here] = samples
            offset, scale = self._offset.double().numpy(), self._scale.double().numpy()
            self._moments.begin(-offset / scale, 1.0 / scale, count)

    def _adopt(self) -> None:
        assert self._moments is not None
        scale = 1.0 / self._moments.std
        self._offset = torch.from_numpy((-self._moments.mean * scale).astype(np.float32))
        self._scale = torch.from_numpy(scale.astype(np.float32))


class Standardised(nn.Module):
    """A network with the statistics of its inputs: from inputs as they are to what the network makes of them.

    Args:
        norm: The inputs' statistics, as they are now.
        net: The network.
    """

    def __init__(self, norm: InputNorm, net: nn.Module) -> None:
        super().__init__()
        self.norm = norm
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """(B, n_in) -> (B, n_out)."""
        output: Tensor = self.net(self.norm(x))
        return output


class ValueNorm(Stateful):
    """Running mean and spread of returns, with the critic's last layer rescaled so that its predictions do not move.

    Exponential averages with debiasing: after k updates with rate beta, m_k = sum of weights·batch means / sum of
    weights.

    Source:
        PopArt, van Hasselt et al. 2016 (arXiv:1602.07714): W <- W·s/s', b <- (s·b + mu - mu')/s'. The public MAPPO
        codes keep the averages but do not rescale the layer; we do.
    """

    STATE = ("_mean", "_square", "_weight", "mu", "sigma")

    MIN_VARIANCE = 1e-2

    def __init__(self, *, enabled: bool, beta: float) -> None:
        self._enabled = enabled
        self._beta = beta
        self._mean = self._square = self._weight = 0.0
        self.mu, self.sigma = 0.0, 1.0

    def update(self, returns: NDArray[np.float64]) -> tuple[float, float]:
        """Take in a round's returns; the factor and shift that keep raw predictions where they were.

        Returns:
            (a, b) such that a·v + b in new units is v in old units: a = s/s', b = (mu - mu')/s'.
        """
        if not self._enabled:
            return 1.0, 0.0
        keep = self._beta
        self._mean = keep * self._mean + (1 - keep) * float(returns.mean())
        self._square = keep * self._square + (1 - keep) * float((returns**2).mean())
        self._weight = keep * self._weight + (1 - keep)
        mu = self._mean / self._weight
        sigma = math.sqrt(max(self._square / self._weight - mu**2, self.MIN_VARIANCE))
        scale, shift = self.sigma / sigma, (self.mu - mu) / sigma
        self.mu, self.sigma = mu, sigma
        return scale, shift

    def begin(self, mu: float, sigma: float) -> None:
        """Begin with the statistics of another run, as if they had been averaged for long."""
        self.mu, self.sigma = mu, sigma
        self._mean, self._square, self._weight = mu, sigma**2 + mu**2, 1.0

    def normalise(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Raw returns to the critic's units."""
        return (x - self.mu) / self.sigma

    def denormalise(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """The critic's units to raw values."""
        return x * self.sigma + self.mu
