"""A natural-gradient step of a policy within a bound on its divergence: HATRPO's, and with costs MACPO's.

Theory of operation. One step per round, on all B samples:

1. g = ∇ mean[rho·F·H], and per cost b_u = ∇ mean[rho·F·A_u], at the policy that acted.
2. H⁻¹g and H⁻¹b_u by conjugate gradients, H the Fisher matrix (the second derivative of mean KL(old ‖ new) at old) plus
`damping` on its diagonal; it is never formed, only multiplied with.
3. The step of `node.learners.on_policy.cpo` in their span; without costs it is √(2δ/gᵀH⁻¹g)·H⁻¹g.
4. Line search: the whole step, then ever smaller parts of it, until the true mean KL is within δ, the surrogate has
risen by at least half of what its slope promised, and no cost's surrogate has risen above what its limit leaves. Where
a cost is already above its limit the reward may fall. If no part will do, the parameters are put back as they were,
bit for bit.

Everything is a generator that pauses between passes over the samples, so that messages are passed on meanwhile.

Source:
    Schulman et al. 2015 (arXiv:1502.05477); with F: Kuba et al. 2022 (arXiv:2109.11251), algorithm 1; with costs: Gu et
    al. 2021 (arXiv:2110.02793), algorithm 1, and `node.learners.on_policy.cpo`.
"""

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from node.learners.on_policy.cpo import best_step
from node.numerics.policies import Actor, Distribution
from topology.finite import NotFiniteError

CG_ITERATIONS = 10  # of HATRPO's and MACPO's codes
TRIES = 10  # of the line search, in the same codes
LEAST_GAIN = 0.5  # part of the promised gain that must come true, HATRPO's


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """One round's problem of one agent.

    Attributes:
        actor: The policy, at the parameters that acted.
        weights: All its parameters as one vector; the actor's are views of it.
        x: Inputs, (B, D).
        action: Actions taken, (B, A).
        old: The policy that acted.
        advantages: Of the reward and of each cost that binds, times the earlier agents' factor, (B,) each.
        excess: Per such cost, how far it stands above its limit, in the units of its advantage.
        bound: delta.
        damping: Added to the diagonal of the Fisher matrix.
        backtrack: Part of the last try that the next one is.
        chunk: Samples per forward and backward piece.
    """

    actor: Actor
    weights: Tensor
    x: Tensor
    action: Tensor
    old: Distribution
    advantages: Sequence[Tensor]
    excess: Sequence[float]
    bound: float
    damping: float
    backtrack: float
    chunk: int

    def improve(self) -> Generator[None, None, dict[str, float]]:
        """Move the policy; returns the step's metrics by name.

        `step_frac` is the part of the step that was taken, 0 if none; `recovery` whether it only lowered a cost.

        Raises:
            NotFiniteError: a gradient is not finite, which the line search would take for a step that will not do.
        """
        slopes = [self.gradient(advantage) for advantage in self.advantages]
        norms = [float(slope.norm()) for slope in slopes]
        if not all(map(math.isfinite, norms)):
            raise NotFiniteError("the gradient of the actor is not finite")
        directions = list(slopes)
        for place, slope in enumerate(slopes):
            directions[place] = yield from conjugate_gradient(self.fisher, slope)
        inner = np.array([[float(a.double() @ b.double()) for b in directions] for a in slopes])
        inner = (inner + inner.T) / 2
        step = best_step(float(inner[0, 0]), inner[1:, 0], inner[1:, 1:], np.array(self.excess), self.bound)
        move = step.reward * directions[0]
        for weight, direction in zip(step.costs, directions[1:], strict=True):
            move = move - float(weight) * direction
        promised = float(slopes[0].double() @ move.double())
        taken = yield from self._search(move, promised, must_gain=not any(excess > 0 for excess in self.excess))
        return {"grad_norm": norms[0], "step_frac": taken, "recovery": float(step.recovers)}

    def gradient(self, advantage: Tensor) -> Tensor:
        """∇ mean[rho·advantage] at the present parameters, flat."""
        total = torch.zeros_like(self.weights)
        pieces = zip(
            *(tensor.split(self.chunk) for tensor in (self.x, self.action, advantage)), self.old.split(self.chunk), strict=True
        )
        for x, action, weight, old in pieces:
            gain = (_ratio(self.actor(x), old, action) * weight).sum() / len(self.x)
            total += self._flat(torch.autograd.grad(gain, list(self.actor.parameters())))
        return total

    def fisher(self, vector: Tensor) -> Tensor:
        """(Fisher matrix + damping)·vector."""
        parameters = list(self.actor.parameters())
        total = self.damping * vector
        for x, old in zip(self.x.split(self.chunk), self.old.split(self.chunk), strict=True):
            kl = old.kl(self.actor(x)).sum() / len(self.x)
            slope = self._flat(torch.autograd.grad(kl, parameters, create_graph=True))
            total = total + self._flat(torch.autograd.grad(slope @ vector, parameters))
        return total

    def measure(self) -> tuple[float, list[float]]:
        """Mean KL(old ‖ new), and mean rho·advantage of the reward and of each cost, at the present parameters."""
        with torch.no_grad():
            new = self.actor.everywhere(self.x, self.chunk)
            ratio = _ratio(new, self.old, self.action)
            return float(self.old.kl(new).mean()), [float((ratio * weight).mean()) for weight in self.advantages]

    def _search(self, move: Tensor, promised: float, *, must_gain: bool) -> Generator[None, None, float]:
        _, (reward, *costs) = self.measure()

        def is_fine() -> bool:
            kl, (new_reward, *new_costs) = self.measure()
            gained = new_reward - reward
            risen = [new - old for new, old in zip(new_costs, costs, strict=True)]
            return (
                kl <= self.bound
                and (not must_gain or gained > max(0.0, LEAST_GAIN * part * promised))
                and all(rise <= max(-excess, 0.0) for rise, excess in zip(risen, self.excess, strict=True))
            )

        start = self.weights.detach().clone()
        part = 1.0
        for _ in range(TRIES):
            with torch.no_grad():
                self.weights.copy_(start + part * move)
            if is_fine():
                return part
            part *= self.backtrack
            yield
        with torch.no_grad():
            self.weights.copy_(start)
        return 0.0

    @staticmethod
    def _flat(gradients: Sequence[Tensor]) -> Tensor:
        return torch.cat([gradient.reshape(-1) for gradient in gradients])


def conjugate_gradient(
    product: Callable[[Tensor], Tensor], b: Tensor, iterations: int = CG_ITERATIONS
) -> Generator[None, None, Tensor]:
    """The x with H·x = b, approximately; pauses after every product.

    Args:
        product: v -> H·v, H symmetric and positive definite.
        b: Right side, flat.
        iterations: Products at most; ends early where the residual is negligible.

    Source:
        Hestenes and Stiefel 1952.
    """
    x = torch.zeros_like(b)
    residual = b.clone()
    direction = b.clone()
    squared = float(residual @ residual)
    enough = 1e-10 * squared
    for _ in range(iterations):
        if squared <= enough:
            break
        image = product(direction)
        length = squared / float(direction @ image)
        x += length * direction
        residual -= length * image
        before, squared = squared, float(residual @ residual)
        direction = residual + squared / before * direction
        yield
    return x


def _ratio(new: Distribution, old: Distribution, action: Tensor) -> Tensor:
    return torch.exp((new.log_prob(action) - old.log_prob(action)).sum(-1))
