"""What a policy maximises in first-order steps: one object per value of the axis `objective`, found by its registered name.

Theory of operation. The learner's loop meets an objective at four points, and knows no more of it: `begin` at the start
of an update, `gain` for every piece of a minibatch, `priced` where the divergence from the policy that acted matters,
and `is_done` between passes. What an objective remembers from round to round (the prices of `KLPenalty`) is its own.
The numbers are in `node.numerics.losses`; the trust region, which takes no first-order steps, is in
`node.learners.on_policy.trust_region`.

Symbols: rho ratio of new to old probability, (M,) or per action dimension (M, A); F product of other agents' ratios;
H advantage with costs priced in; M samples of a piece.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from node.numerics.losses import (
    adapted_price,
    clip_objective,
    divergence_price,
    double_clip_objective,
    focops_objective,
    ramped_clip,
)
from node.numerics.policies import Distribution
from scenarios.registry import OBJECTIVES, RegistryError
from scenarios.schema import Algorithm
from topology.snapshot import Stateful

START_PRICE = 0.05  # of DPO's divergences: from 1, the public code's, rounds 0 to 3 stand still (KL 1e-4) while it is halved


class Clip(Stateful):
    """PPO's clipped ratio; also the frame that the others fill in.

    Attributes:
        width: eps, beyond which a ratio counts as clipped in the round's metrics.
        needs_divergence: Whether `priced` wants the policy that acted.
        stops_early: Whether `is_done` is to be asked.
    """

    STATE: ClassVar[tuple[str, ...]] = ()

    needs_divergence = False
    stops_early = False

    def __init__(self, algorithm: Algorithm) -> None:
        self.width = algorithm.clip

    def begin(self, place: int, reach: int) -> None:
        """Start an update as the `place`-th (from 1) of `reach` agents."""

    def gain(self, rho: Tensor, advantage: Tensor, factor: Tensor | None) -> Tensor:
        """What each sample adds, shape of rho; advantage and factor are shaped to broadcast against it."""
        return clip_objective(rho, advantage if factor is None else advantage * factor, clip=self.width)

    def priced(self, gain: Tensor, old: Distribution, new: Distribution) -> Tensor:
        """The gain (M,) less what it costs to move from the old distributions to the new."""
        return gain

    def is_done(self, old: Distribution, new: Distribution) -> bool:
        """Whether to stop before the next pass over the samples."""
        return False

    def metrics(self) -> Mapping[str, float]:
        """What held in the round and changes from round to round, by name."""
        return {}

    def end(self, kl: Tensor) -> None:
        """Learn from KL(old ‖ new) of the round's samples, (B,)."""


class DoubleClip(Clip):
    """The clipped joint ratio of CoPPO, and in turn of A2PO, where the width grows with an agent's place."""

    def __init__(self, algorithm: Algorithm) -> None:
        super().__init__(algorithm)
        self._clip = algorithm.clip
        self._ramp = algorithm.clip_ramp
        self._others_frac = algorithm.clip_others_frac

    def begin(self, place: int, reach: int) -> None:
        """Set the width of this place."""
        assert place <= reach, f"{place - 1} agents updated earlier, but this one depends on {reach - 1} at most"
        self.width = ramped_clip(self._clip, place=place, n=reach, ramp=self._ramp)

    def gain(self, rho: Tensor, advantage: Tensor, factor: Tensor | None) -> Tensor:
        """The doubly clipped joint ratio times the advantage."""
        if factor is None:
            return super().gain(rho, advantage, None)
        return double_clip_objective(rho, factor, advantage, clip=self.width, clip_others=self._others_frac * self.width)


class KLPenalty(Clip):
    """DPO: no clip, but prices on the divergence and on its root, adapted from round to round."""

    STATE = ("root_coef", "coef")

    needs_divergence = True

    def __init__(self, algorithm: Algorithm) -> None:
        super().__init__(algorithm)
        self._target = algorithm.kl_target
        self.root_coef = self.coef = START_PRICE

    def gain(self, rho: Tensor, advantage: Tensor, factor: Tensor | None) -> Tensor:
        """Ratio times advantage."""
        return rho * (advantage if factor is None else advantage * factor)

    def priced(self, gain: Tensor, old: Distribution, new: Distribution) -> Tensor:
        """Less both prices of KL(old ‖ new)."""
        return gain - divergence_price(old.kl(new), root_coef=self.root_coef, coef=self.coef)

    def metrics(self) -> Mapping[str, float]:
        """Both prices."""
        return {"root_kl_price": self.root_coef, "kl_price": self.coef}

    def end(self, kl: Tensor) -> None:
        """Adapt each price by its own statistic and target."""
        kl = kl.clamp(min=0.0)  # rounding makes tiny ones negative
        self.root_coef = adapted_price(self.root_coef, float(torch.sqrt(kl).mean()), self._target**0.5)
        self.coef = adapted_price(self.coef, float(kl.mean()), self._target)


class Focops(Clip):
    """FOCOPS: towards the best policy within a bound, samples beyond the bound masked, passes ended at the bound."""

    needs_divergence = True
    stops_early = True

    def __init__(self, algorithm: Algorithm) -> None:
        super().__init__(algorithm)
        self._temperature = algorithm.focops_temperature
        self._bound = algorithm.kl_bound
        self._masks_kl = "unmasked_divergence" not in algorithm.quirks

    def gain(self, rho: Tensor, advantage: Tensor, factor: Tensor | None) -> Tensor:
        """Ratio times advantage."""
        return rho * (advantage if factor is None else advantage * factor)

    def priced(self, gain: Tensor, old: Distribution, new: Distribution) -> Tensor:
        """The divergence from the best policy, up to sign and a constant."""
        kl = new.kl(old)
        return focops_objective(gain, kl, temperature=self._temperature, bound=self._bound, masks_kl=self._masks_kl)

    def is_done(self, old: Distribution, new: Distribution) -> bool:
        """Whether the mean divergence has reached the bound."""
        return float(new.kl(old).mean()) > self._bound


def objective_of(algorithm: Algorithm) -> Clip:
    """The objective that the recipe names.

    Raises:
        RegistryError: the name stands for something else than an objective of first-order steps.
    """
    name = algorithm.recipe.objective
    kind = OBJECTIVES.resolve(name)
    if not (isinstance(kind, type) and issubclass(kind, Clip)):
        raise RegistryError(f"objective {name!r}: got {kind!r}; expected a subclass of node.learners.on_policy.objectives.Clip")
    return kind(algorithm)
