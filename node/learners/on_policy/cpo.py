"""The best step within a trust region cut by cost planes, in closed form.

Theory of operation. Near the present policy the reward's surrogate rises by gᵀx, the u-th cost stands at c_u + b_uᵀx
against 0, and the divergence is ½xᵀHx. The step sought is

    maximise gᵀx   subject to   c_u + b_uᵀx <= 0 for every u,   ½xᵀHx <= delta.

It lies in the span of H⁻¹g and the H⁻¹b_u, so a handful of inner products decides it, however many parameters there
are. If a set W of costs is binding, stationarity g - Bν = λHx gives

    x = (H⁻¹g - H⁻¹B_W ν_W)/λ,   ν_W = S_W⁻¹(r_W + λc_W),   λ² = (q - r_WᵀS_W⁻¹r_W) / (2delta - c_WᵀS_W⁻¹c_W),

with q = gᵀH⁻¹g, r = BᵀH⁻¹g, S = BᵀH⁻¹B. The problem is convex, so the set whose step breaks no other plane and whose
ν is nowhere negative is the answer; with few costs all sets are tried, fewest first. If there is none, the region holds
no feasible point, and the step goes straight against the worst cost.

Source:
    Achiam et al. 2017 (arXiv:1705.10528), theorem 2 and eq. 14, of one cost; per agent: MACPO, Gu et al. 2021
    (arXiv:2110.02793). Several costs are ours; for one they give the paper's dual, λ and recovery.
"""

from itertools import chain, combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
TINY = 1e-8  # a cost whose gradient is this much smaller than the reward's cannot be steered


class Step(NamedTuple):
    """x = reward·H⁻¹g - sum_u costs[u]·H⁻¹b_u.

    Attributes:
        reward: Weight of the reward's direction, 1/λ.
        costs: Weight of each cost's direction, ν/λ, (m,).
        recovers: Whether there was no feasible step, and this one only lowers the worst cost.
    """

    reward: float
    costs: Array
    recovers: bool


def best_step(q: float, r: Array, s: Array, c: Array, delta: float) -> Step:
    """The best step within the region and the planes.

    Args:
        q: gᵀH⁻¹g >= 0.
        r: BᵀH⁻¹g, (m,).
        s: BᵀH⁻¹B, (m, m), symmetric and positive semidefinite.
        c: Excess of each cost over its limit, (m,), in the units of the surrogate; positive where violated.
        delta: Bound on ½xᵀHx.

    Returns:
        The step's coordinates. Without costs, or where none can bind, it is that of TRPO: reward = √(2·delta/q).

    Example:
        >>> best_step(2.0, np.zeros(0), np.zeros((0, 0)), np.zeros(0), 0.01).reward
        0.1
    """
    m = len(c)
    steered = [u for u in range(m) if s[u, u] > TINY * max(q, TINY)]
    for binding in chain.from_iterable(combinations(steered, size) for size in range(len(steered) + 1)):
        step = _with_binding(list(binding), q, r, s, c, delta)
        if step is not None and all(c[u] + step.reward * r[u] - s[u] @ step.costs <= _slack(c[u]) for u in steered):
            return step
    # the empty set of planes is feasible unless some cost is steered, so here there is one
    worst = max(steered, key=lambda u: c[u] / s[u, u] ** 0.5)
    costs = np.zeros(m)
    costs[worst] = (2.0 * delta / s[worst, worst]) ** 0.5
    return Step(0.0, costs, True)


def _with_binding(binding: list[int], q: float, r: Array, s: Array, c: Array, delta: float) -> Step | None:
    """The step with these planes binding; None if they do not meet within the region, or a price is negative."""
    costs = np.zeros(len(c))
    if not binding:
        return Step((2.0 * delta / q) ** 0.5 if q > 0.0 else 0.0, costs, False)
    inner = s[np.ix_(binding, binding)]
    if np.linalg.cond(inner) > 1 / TINY:  # planes as good as parallel: one of them alone does it
        return None
    to_plane, along = np.linalg.solve(inner, c[binding]), np.linalg.solve(inner, r[binding])
    room = 2.0 * delta - float(c[binding] @ to_plane)
    rest = q - float(r[binding] @ along)
    if room < 0.0:
        return None
    inside = rest <= TINY * q  # where the planes meet there is nothing left to gain: the region's edge does not bind
    reward = 0.0 if inside else (room / rest) ** 0.5
    prices = to_plane + reward * along
    multipliers = along if inside else prices
    if (multipliers < -_slack(float(np.abs(multipliers).max()))).any():
        return None
    costs[binding] = prices
    return Step(reward, costs, False)


def _slack(size: float) -> float:
    """Rounding to forgive in a number of this size."""
    return 1e-9 * (1.0 + abs(size))
