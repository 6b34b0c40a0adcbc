"""Numbers that are no longer finite: how that is found, and how it is told.

Theory of operation. A learner that diverges does so silently: NaN goes through every sum. Therefore numbers are looked at
where they pass by anyway: the norm of every gradient, the weights and the metrics of a round, every message before it leaves,
every table that arrives. Code that only knows numbers raises `NotFiniteError`; the node or the central critic, which knows
where the run is, makes a `DivergedError` of it, and that ends the run or the agent (`supervision.on_node_death`).
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray


class NotFiniteError(ArithmeticError):
    """A number is NaN or infinite; the text names what it belongs to."""


class DivergedError(Exception):
    """What a process works with is no longer finite; the text names what.

    Attributes:
        env_step: Environment steps of the run, over all copies, at which that was noticed.
    """

    def __init__(self, text: str, env_step: int) -> None:
        super().__init__(text)
        self.env_step = env_step


def is_finite(table: NDArray[np.floating[Any]]) -> bool:
    """Whether all numbers are finite.

    One product takes half the time of a test number by number; only where it overflows, which finite numbers beyond 1e19 may
    do too, is every number looked at.

    Example:
        >>> is_finite(np.array([1.0, 3e38], np.float32)), is_finite(np.array([1.0, np.inf], np.float32))
        (True, False)
    """
    return math.isfinite(np.vdot(table, table)) or bool(np.isfinite(table).all())


def require_finite(table: NDArray[np.floating[Any]], what: str) -> None:
    """Make sure that all numbers are finite.

    Raises:
        NotFiniteError: they are not; the text begins with `what`.
    """
    if not is_finite(table):
        raise NotFiniteError(f"{what} is not finite")
