"""Capacity traces: how many bytes a measured link could take, millisecond by millisecond.

Theory of operation. A file in Mahimahi's form has one line per opportunity: the millisecond at which the link could take
1500 more bytes. It repeats for ever, its last line being its period. We take the bytes of a millisecond t to come evenly
over (t − 1, t], which is as fine as the file says anything, and the capacity between two moments is then a difference of
one continuous, non-decreasing function C. A message of b bytes that begins at s is through at the earliest moment e with
C(e) = C(s) + b. So small messages take their share, nothing is lost between two of them, and a full opportunity goes by
only while there is nothing to send.

Files are read as data from strangers: regular files of at most 16 MiB, plain decimal numbers, ascending; whatever is
wrong with them becomes one `TraceError` of one line.
"""

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

OPPORTUNITY_BYTES = 1500  # Mahimahi's, whatever the MTU
MAX_FILE_BYTES = 1 << 24  # 10 minutes at 200 Mbit/s are 7 MiB
_ROUNDING_BYTES = 1e-6  # what sums of seconds may be off by; without it a message could miss the very opportunity that fits it
_TIME = re.compile(rb"[0-9]{1,9}")


class TraceError(ValueError):
    """A file that is no capacity trace; one line with the file, the line and what is expected."""


class Trace:
    """The capacity of a link over time.

    Args:
        opportunities_ms: When 1500 more bytes could be taken, ascending from 0; the last is the period, above 0.

    Attributes:
        period_s: After this it starts again, in seconds.
        mean_rate_bps: Bits per second over a period.

    Raises:
        ValueError: no opportunities, not ascending, negative, or all at 0.

    Source:
        Mahimahi (Netravali et al., USENIX ATC 2015), mm-link's file format. Differs in that bytes come evenly within
        their millisecond and are never lost to a message that is smaller than an opportunity.

    Example:
        >>> twelve_mbps = Trace([1])
        >>> twelve_mbps.mean_rate_bps, round(float(twelve_mbps.finish(np.array([0.25]), 3000)[0]), 9)
        (12000000.0, 0.252)
    """

    def __init__(self, opportunities_ms: list[int]) -> None:
        times = np.asarray(opportunities_ms, dtype=np.int64)
        if times.size == 0 or times[0] < 0 or times[-1] == 0 or (np.diff(times) < 0).any():
            raise ValueError("opportunities_ms: expected ascending milliseconds from 0, the last above 0")
        times = np.where(times == 0, times[-1], times)  # a period's start is the end of the one before
        ends, counts = np.unique(times, return_counts=True)
        filled = np.cumsum(counts) * float(OPPORTUNITY_BYTES)
        self._times_s = np.stack([ends - 1, ends], axis=1).ravel() / 1000
        self._bytes = np.stack([filled - counts * OPPORTUNITY_BYTES, filled], axis=1).ravel()
        self.period_s = float(ends[-1]) / 1000
        self.mean_rate_bps = float(filled[-1]) * 8 / self.period_s

    def finish(self, begin: NDArray[np.float64], size_bytes: int | NDArray[np.int64]) -> NDArray[np.float64]:
        """When messages that begin at `begin` are through, in seconds; inf where they never begin.

        Args:
            begin: Any shape, seconds from the start of the run, at least 0; inf is allowed.
            size_bytes: At least 0, broadcastable to it.
        """
        never = np.isinf(begin)
        begun = np.where(never, 0.0, begin)
        per_period = self._bytes[-1]
        cycle = np.floor(begun / self.period_s)
        within = np.interp(begun - cycle * self.period_s, self._times_s, self._bytes)
        target = within + size_bytes - _ROUNDING_BYTES
        more = np.maximum(np.ceil(target / per_period) - 1, 0.0)
        target -= more * per_period
        right = np.clip(np.searchsorted(self._bytes, target, side="left"), 1, len(self._bytes) - 1)
        low, high = self._bytes[right - 1], self._bytes[right]
        part = np.clip((target - low) / np.where(high > low, high - low, 1.0), 0.0, 1.0)
        times = self._times_s[right - 1] + part * (self._times_s[right] - self._times_s[right - 1])
        gone = np.maximum((cycle + more) * self.period_s + times, begun)
        return np.where(never, np.inf, np.where(np.asarray(size_bytes) > 0, gone, begun))


def read_mahimahi(path: str) -> Trace:
    """The trace of a file in Mahimahi's form.

    Raises:
        TraceError: the file cannot be read, is too large, or is no such trace.
    """
    times: list[int] = []
    for number, line in enumerate(_read(path).split(), start=1):
        if not _TIME.fullmatch(line):
            shown = line[:20].decode("latin-1")
            raise TraceError(f"{path}: entry {number}: got {shown!r}, expected milliseconds, a whole number of at most 9 digits")
        times.append(int(line))
        if len(times) > 1 and times[-1] < times[-2]:
            raise TraceError(f"{path}: entry {number}: got {times[-1]} after {times[-2]}, expected ascending milliseconds")
    if not times or times[-1] == 0:
        raise TraceError(f"{path}: expected at least one opportunity later than 0 ms")
    return Trace(times)


def _read(path: str) -> bytes:
    file = Path(path)
    try:
        if not file.is_file():
            raise TraceError(f"{path}: no such file")
        size = file.stat().st_size
        if size > MAX_FILE_BYTES:
            raise TraceError(f"{path}: has {size} bytes, expected at most {MAX_FILE_BYTES}")
        return file.read_bytes()
    except OSError as error:
        raise TraceError(f"{path}: cannot be read: {error}") from None
