"""Advantage estimates: pure functions on arrays, time first."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]


def gae(
    reward: Array,
    value: Array,
    next_value: Array,
    terminated: NDArray[np.bool_],
    truncated: NDArray[np.bool_],
    *,
    gamma: float,
    lam: float,
    bootstrap: bool = True,
    weight: Array | None = None,
) -> NDArray[np.float64]:
    """Generalised advantage estimates, bootstrapped at truncation but not at termination.

    Computes A_t = sum_l (gamma·lam)^l delta_{t+l} with
    delta_t = r_t + gamma·(1 - terminated_t)·next_value_t - value_t, the sum cut where an episode ends.

    Args:
        reward: r_t, shape (T, ...), in reward (or cost) units.
        value: V(x_t), shape (T, ...).
        next_value: V of the true successor of step t, shape (T, ...). Where an episode was cut at t this is the value
            of the
            observation before the restart, so it differs from value[t+1].
        terminated: True where the successor is absorbing: its value counts as 0. Broadcasts against reward.
        truncated: True where a time limit ended the episode: next_value still counts. Broadcasts against reward.
        gamma: Discount per step, in [0, 1].
        lam: Trace decay, in [0, 1]: 0 gives TD(0) errors, 1 gives returns minus values.
        bootstrap: False ignores truncated steps, as some public codes do: their A_t is 0, and so is what they pass back.
        weight: w_t in [0, 1], shape (T, ...): the trace that reaches back from step t is multiplied by it, so that
            A_t = delta_t + gamma·lam·w_{t+1}·A_{t+1}. With w = min(1, R), R the ratio with which agents that have moved
            would take the actions taken, this is PreOPC. None: 1 everywhere.

    Returns:
        A_t, shape (T, ...), in the units of reward.

    Raises:
        ValueError: gamma or lam is outside [0, 1].

    Source:
        Schulman et al. 2016 (arXiv:1506.02438), section 3. Differs in treating truncation and termination apart
        (Pardo et al. 2018, arXiv:1712.00378). PreOPC: Wang et al. 2023 (arXiv:2302.06205), eq. 6.

    Example:
        >>> no = np.zeros(2, dtype=bool)
        >>> gae(np.ones(2), np.zeros(2), np.zeros(2), no, no, gamma=1.0, lam=1.0)
        array([2., 1.])
    """
    for name, number in (("gamma", gamma), ("lam", lam)):
        if not 0.0 <= number <= 1.0:
            raise ValueError(f"{name}: got {number}, expected a number in [0, 1]")
    delta = reward + gamma * np.where(terminated, 0.0, next_value) - value
    if not bootstrap:
        delta = np.where(truncated, 0.0, delta)
    trace = np.broadcast_to(gamma * lam * ~(terminated | truncated), delta.shape)
    if weight is not None:
        trace = trace * np.concatenate((weight[1:], np.ones_like(weight[:1])))  # nothing is behind the last step
    advantage = np.empty(delta.shape, dtype=np.float64)
    ahead = np.zeros(delta.shape[1:], dtype=np.float64)
    for t in range(len(delta) - 1, -1, -1):
        ahead = delta[t] + trace[t] * ahead
        advantage[t] = ahead
    return advantage


def standardised(x: Array) -> NDArray[np.float64]:
    """(x - mean)/(std + 1e-5) over all entries, as the public MAPPO-L code scales its advantages."""
    return np.asarray((x - x.mean()) / (x.std() + 1e-5), dtype=np.float64)
