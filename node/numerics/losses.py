"""Losses and steps of the on-policy family as pure functions of tensors.

Symbols: rho ratio of new to old probability of the action taken; H the (Lagrangian) advantage; F product of the final
ratios of agents that updated earlier; eps clip width; mult Lagrange multiplier; B samples, A action dimensions.
"""

import math

import torch
from torch import Tensor


def clip_objective(rho: Tensor, advantage: Tensor, *, clip: float) -> Tensor:
    """min(rho·H, clip(rho, 1-eps, 1+eps)·H), sample by sample.

    Args:
        rho: (B,) or, per action dimension, (B, A).
        advantage: H·F, shaped to broadcast against rho. F is positive, so it commutes with the minimum.
        clip: eps in (0, 1).

    Returns:
        The objective, shape of rho; to be maximised.

    Source:
        Schulman et al. 2017 (arXiv:1707.06347), eq. 7; with F: Kuba et al. 2022 (arXiv:2109.11251), HAPPO.
    """
    return torch.minimum(rho * advantage, rho.clamp(1.0 - clip, 1.0 + clip) * advantage)


def double_clip_objective(rho: Tensor, others: Tensor, advantage: Tensor, *, clip: float, clip_others: float) -> Tensor:
    """min(l·H, clip(l, 1-eps, 1+eps)·H) of the joint ratio l = rho·clip(others, 1-eps_o, 1+eps_o), sample by sample.

    Args:
        rho: The agent's own ratio, (B,) or, per action dimension, (B, A).
        others: Product of other agents' ratios, shaped to broadcast against rho; carries no gradient.
        advantage: H, shaped to broadcast against rho.
        clip: eps, width for the joint ratio.
        clip_others: eps_o, width for the others' product, below eps.

    Returns:
        The objective, shape of rho; to be maximised.

    Source:
        CoPPO (arXiv:2111.04051) with the others' ratios as they are at the minibatch; A2PO (arXiv:2302.06205) with the
        final ratios of earlier agents. CoPPO's public code differs from its formula (raw joint product, gradients
        through all ratios); this is the formula.
    """
    return clip_objective(rho * others.clamp(1.0 - clip_others, 1.0 + clip_others), advantage, clip=clip)


def ramped_clip(clip: float, *, place: int, n: int, ramp: float) -> float:
    """Clip width of the agent that is `place`-th (from 1) of n to update: eps·(ramp + (1 - ramp)·place/n).

    Early agents, whose moves all later ones have to correct for, are given less room.

    Source:
        A2PO (arXiv:2302.06205), the adaptive clipping parameter; ramp 0.5 is that code's.

    Example:
        >>> [ramped_clip(0.2, place=k, n=4, ramp=0.5) for k in (1, 4)]
        [0.125, 0.2]
    """
    return clip * (ramp + (1.0 - ramp) * place / n)


def focops_objective(gain: Tensor, kl: Tensor, *, temperature: float, bound: float, masks_kl: bool = True) -> Tensor:
    """1{KL <= delta}·(rho·H/lambda - KL), sample by sample; to be maximised.

    Its gradient is that of -KL(new ‖ best), where best ∝ old·exp(H/lambda) is the best policy within the bound.

    Args:
        gain: rho·H·F, (B,).
        kl: KL(new ‖ old), (B,); new first, other than elsewhere. Carries a gradient as the gain does.
        temperature: lambda.
        bound: delta; samples beyond it neither pull nor push.
        masks_kl: False leaves the divergence of samples beyond the bound in, as MAFOCOPS prints it.

    Source:
        FOCOPS (arXiv:2002.06506), eq. 10 and its indicator on both terms; MAFOCOPS prints the indicator on the
        advantage's term alone.
    """
    near = kl.detach() <= bound
    return near * gain / temperature - (near * kl if masks_kl else kl)


def divergence_price(kl: Tensor, *, root_coef: float, coef: float) -> Tensor:
    """root_coef·√(KL + 1e-12) + coef·KL, sample by sample: what DPO pays for divergence.

    The offset keeps the root's slope finite, and zero where the policies are equal; divergences that rounding has made
    negative count as zero.

    Source:
        DPO (arXiv:2211.03032), eq. 9, the root inside the mean over states as in the theory and the public code.
    """
    kl = kl.clamp(min=0.0)
    return root_coef * torch.sqrt(kl + 1e-12) + coef * kl


def adapted_price(price: float, measured: float, target: float) -> float:
    """The next round's price of a divergence: doubled if it was over 1.5 targets, halved if it was under 1/1.5.

    Kept within [1e-3, 1e3].

    Source:
        The public DPO code: δ = 1.5, ω = 2 and these bounds.

    Example:
        >>> [adapted_price(1.0, measured, 0.01) for measured in (0.016, 0.01, 0.006)]
        [2.0, 1.0, 0.5]
    """
    if measured > 1.5 * target:
        price *= 2.0
    elif measured < target / 1.5:
        price /= 2.0
    return min(max(price, 1e-3), 1e3)


def gaussian_log_prob(action: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """Log-density of a diagonal Gaussian per action dimension, (B, A)."""
    z = (action - mean) * torch.exp(-log_std)
    return -0.5 * z * z - log_std - 0.5 * math.log(2 * math.pi)


def gaussian_entropy(log_std: Tensor) -> Tensor:
    """Entropy of a diagonal Gaussian with a state-independent spread: a scalar, summed over dimensions."""
    return (log_std + 0.5 * (1.0 + math.log(2 * math.pi))).sum()


def gaussian_kl(mean: Tensor, log_std: Tensor, new_mean: Tensor, new_log_std: Tensor) -> Tensor:
    """KL(old ‖ new) of diagonal Gaussians, summed over dimensions, (B,)."""
    variance, new_variance = torch.exp(2 * log_std), torch.exp(2 * new_log_std)
    return (new_log_std - log_std + (variance + (mean - new_mean) ** 2) / (2 * new_variance) - 0.5).sum(-1)


def value_loss(
    value: Tensor,
    old_value: Tensor,
    target: Tensor,
    *,
    value_clip: float | None,
    huber_delta: float | None,
    signed: bool = False,
) -> Tensor:
    """Mean loss of value predictions, never smaller for having moved far from the old prediction.

    loss = mean max(H(R - V), H(R - V_old - clip(V - V_old, ±value_clip))), H Huber with threshold huber_delta.

    Args:
        value: V, (B,), in normalised units; carries the gradient.
        old_value: V before the round's training, (B,).
        target: R, (B,), normalised returns.
        value_clip: Largest move that counts; None: no clipping.
        huber_delta: Huber threshold; None: ½e².
        signed: Test the error e = R - V against the threshold by its sign, as one public MAPPO-L code does: e far below
            minus the threshold counts squared.

    Source:
        The clipped Huber regression of the public MAPPO code (arXiv:2103.01955, appendix).
    """

    def loss(prediction: Tensor) -> Tensor:
        if huber_delta is None:
            return 0.5 * (target - prediction) ** 2
        if signed:
            error = target - prediction
            return torch.where(error <= huber_delta, 0.5 * error**2, huber_delta * (error - 0.5 * huber_delta))
        # functional.huber_loss ends here too (0: unreduced), but broadcasts before, at a cost in both directions
        return torch._C._nn.huber_loss(prediction, target, 0, huber_delta)  # type: ignore[arg-type]  # where the stub says str

    if value_clip is None:
        return loss(value).mean()
    near = old_value + (value - old_value).clamp(-value_clip, value_clip)
    return torch.maximum(loss(value), loss(near)).mean()


def multiplier_step(
    mult: float, *, episode_cost: float, limit: float, gamma: float, mean_ratio_cost: float, lr: float, top: float
) -> float:
    """One dual ascent step of a Lagrange multiplier.

    mult <- clip(mult + lr·((J - b)·(1 - gamma) + mean(rho·A_c)), 0, top).

    Args:
        mult: The multiplier now, ≥ 0.
        episode_cost: J, mean undiscounted cost of the last episodes.
        limit: b.
        gamma: Discount; (1 - gamma) rescales an episode's cost to a step's.
        mean_ratio_cost: Mean over the minibatch of ratio times scaled cost advantage.
        lr: Step size.
        top: Largest value allowed.

    Source:
        The public MAPPO-L code, whose rule the Scal-MAPPO-L paper defers to; `top` is ours.

    Example:
        >>> multiplier_step(0.5, episode_cost=30.0, limit=20.0, gamma=0.9, mean_ratio_cost=0.0, lr=0.1, top=10.0)
        0.6
    """
    return min(max(0.0, mult + lr * ((episode_cost - limit) * (1.0 - gamma) + mean_ratio_cost)), top)


def pid_step(
    integral: float,
    *,
    episode_cost: float,
    limit: float,
    before: float | None,
    share: float,
    gains: tuple[float, float, float],
    top: float,
) -> tuple[float, float, float]:
    """One step of a Lagrange multiplier under proportional-integral-derivative control of the relative excess e.

    e = clip((J - b)/max(b, 1), -1, 1); I <- clip(I + k_i·e·share, 0, top);
    mult = clip(k_p·e + k_d·max(0, e - e_before) + I, 0, top).

    Args:
        integral: I, ≥ 0. Its own bounds keep it from winding up while the multiplier is at a bound.
        episode_cost: J, mean undiscounted cost of the last E whole episodes.
        limit: b.
        before: e of the step before; None: this is the first.
        share: How many of those E episodes are new since that step, as a part of E, at most 1.
        gains: k_p, per unit of relative excess; k_i, per unit and E episodes; k_d, per unit of change.
        top: Largest value allowed.

    Returns:
        The multiplier, I, and e.

    Source:
        Stooke, Achiam, Abbeel 2020 (arXiv:2007.03964), algorithm 2; the relative excess and its bounds, the bound on I and the
        count of new episodes are ours.

    Example:
        >>> pid_step(0.5, episode_cost=45.0, limit=30.0, before=None, share=0.2, gains=(2.0, 0.5, 0.0), top=20.0)
        (1.55, 0.55, 0.5)
    """
    k_p, k_i, k_d = gains
    excess = min(max((episode_cost - limit) / max(limit, 1.0), -1.0), 1.0)
    integral = min(max(integral + k_i * excess * share, 0.0), top)
    change = 0.0 if before is None else max(0.0, excess - before)
    return min(max(k_p * excess + k_d * change + integral, 0.0), top), integral, excess
