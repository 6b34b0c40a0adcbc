"""Simple policy optimisation: instead of cutting the ratio off, a parabola keeps it near 1.

    gain = rho * H - |H| / (2 eps) * (rho - 1)^2

rho is the ratio of new to old probability, H the advantage, eps the setting `algorithm.clip`. For one sample the gain is greatest
where |rho - 1| = eps, so the gradient leads back from beyond, while PPO's clipped ratio has no gradient there.

Source: Xie et al. 2024, arXiv:2401.16025, simple policy optimization.
"""

from torch import Tensor

from node.learners.on_policy.objectives import Clip


class SimplePolicy(Clip):
    """The objective; `Clip` keeps `algorithm.clip` as `width`."""

    def gain(self, rho: Tensor, advantage: Tensor, factor: Tensor | None) -> Tensor:
        """What each sample adds, shape of rho."""
        weighed = advantage if factor is None else advantage * factor
        return rho * weighed - weighed.abs() / (2 * self.width) * (rho - 1.0) ** 2
