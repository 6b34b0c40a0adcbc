"""What an experiment claims, and whether its runs bear it out.

A claim is about interquartile means over seeds. It holds where its 95 % interval lies on one side, does not hold where the
interval lies on the other, and is not decided in between. With one seed there is no interval, and nothing is decided.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from coordinator.study.statistics import CONFIDENCE, Interval, interquartile_mean, mean_interval, resampled

Outcome = Literal["holds", "does not hold", "not decided"]
Scores = Mapping[str, NDArray[np.float64]]
"""By row of the experiment: what each seed came to."""

_SEED = 0  # of the resampling


@dataclass(frozen=True, slots=True)
class Finding:
    """One comparison that a claim makes.

    Attributes:
        text: What is compared.
        difference: By how much the claimed side is ahead.
        interval: 95 % interval of that.
        outcome: What follows.
    """

    text: str
    difference: float
    interval: Interval
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Above:
    """Each row but the last has a greater mean of a measure than the row after it, less a tolerance.

    Attributes:
        measure: Which measure.
        rows: Rows by descending mean.
        tolerance: By how much the greater may fall short.
    """

    measure: str
    rows: tuple[str, ...]
    tolerance: float = 0.0

    def findings(self, scores: Scores) -> list[Finding]:
        """One per pair of neighbours."""
        found = []
        for high, low in zip(self.rows, self.rows[1:], strict=False):
            difference = float(interquartile_mean(scores[high][:, None]) - interquartile_mean(scores[low][:, None]))
            text = f"{high} above {low}" + (f" or at most {self.tolerance:g} below" if self.tolerance else "")
            found.append(_finding(text, difference + self.tolerance, scores[high], scores[low]))
        return found


@dataclass(frozen=True, slots=True)
class Within:
    """The mean of a measure lies between two numbers in every one of some rows.

    Attributes:
        measure: Which measure.
        rows: The rows.
        low: Least; None: there is none.
        high: Greatest; None: there is none.
    """

    measure: str
    rows: tuple[str, ...]
    low: float | None = None
    high: float | None = None

    def findings(self, scores: Scores) -> list[Finding]:
        """One per row and end."""
        found = []
        for row in self.rows:
            mean = float(interquartile_mean(scores[row][:, None]))
            if self.low is not None:
                found.append(_finding(f"{row} at least {self.low:g}", mean - self.low, scores[row]))
            if self.high is not None:
                found.append(_finding(f"{row} at most {self.high:g}", self.high - mean, scores[row]))
        return found


Claim = Above | Within


def _finding(text: str, difference: float, *samples: NDArray[np.float64]) -> Finding:
    interval = _around(difference, samples)
    if interval.low >= 0:
        outcome: Outcome = "holds"
    else:
        outcome = "does not hold" if interval.high < 0 else "not decided"
    return Finding(text, difference, interval, outcome)


def _around(centre: float, samples: tuple[NDArray[np.float64], ...]) -> Interval:
    """Interval of a difference of interquartile means: t times the bootstrap errors of both, as in `mean_interval`."""
    if min(len(one) for one in samples) < 2 or np.isnan(centre):
        return Interval(np.nan, np.nan)
    rng = np.random.default_rng(_SEED)
    variance = sum(resampled(interquartile_mean, one[:, None], rng=rng).var() * len(one) / (len(one) - 1) for one in samples)
    degrees = sum(len(one) - 1 for one in samples)
    reach = float(stats.t.ppf(0.5 + CONFIDENCE / 2, degrees) * np.sqrt(variance))
    return Interval(centre - reach, centre + reach)


def row_interval(scores: NDArray[np.float64]) -> tuple[float, Interval]:
    """Interquartile mean of a row over its seeds, and the interval of that."""
    return float(interquartile_mean(scores[:, None])), mean_interval(scores[:, None], np.random.default_rng(_SEED))
