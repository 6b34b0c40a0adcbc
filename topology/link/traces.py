"""Capacity traces: how many bytes a measured link could take, from moment to moment.

Theory of operation. The capacity between two moments is a difference of one continuous, non-decreasing function C. A message
of b bytes that begins at s is through at the earliest moment e with C(e) = C(s) + b. So small messages take their share,
nothing is lost between two of them, and a full opportunity goes by only while there is nothing to send. A trace repeats for
ever. Two forms of files give C:

*Opportunities*, as Mahimahi writes them: one line for each, the millisecond at which the link could take 1500 more bytes; the
last line is the period. The bytes of a millisecond t come evenly over (t − 1, t], which is as fine as the file says anything.

*Columns* of times and rates. A rate holds from its time until the time of the next row, however long that is; the last holds as
long as the one before. The first time is 0. Of rows with the same time the mean counts. A row whose rate is missing is left out,
so the rate before it goes on.

Files are read as data from strangers: regular files of at most 16 MiB, decimal numbers, ascending; whatever is wrong with them
becomes one `TraceError` of one line.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from urllib.parse import parse_qsl

import numpy as np
from numpy.typing import NDArray

from topology.foreign import UnreadableError, bytes_of, number, quoted
from topology.lines import Line, read_lines

OPPORTUNITY_BYTES = 1500  # Mahimahi's, whatever the MTU
MAX_FILE_BYTES = 1 << 24  # 10 minutes at 200 Mbit/s are 7 MiB
_ROUNDING_BYTES = 1e-6  # what sums of seconds may be off by; without it a message could miss the very opportunity that fits it
_PLAIN = re.compile(rb"[\r\n]*[0-9][0-9\r\n]*")
_OPPORTUNITY = re.compile(r"[0-9]{1,9}")
_BITS = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9}
_UNIT = re.compile(r"(?<![a-z])([kmg]?)(?:bits?/s|bps|bit/sec|bits/sec)(?![a-z])", re.IGNORECASE)
_TIMES = (
    "time",
    "timestamp",
    "seconds",
    "second",
    "sec",
    "s",
    "t",
    "ts",
    "time_s",
    "t_s",
    "time_ms",
    "t_ms",
    "ms",
    "timestamp_ms",
)
_RATE = re.compile(r"rate|throughput|bandwidth|capacity", re.IGNORECASE)
_LONGEST_S, _FASTEST_BPS = 1e12, 1e15  # beyond, sums of bytes lose what small messages take
_MISSING = {"", "-", "na", "n/a", "nan", "null", "none"}
_OPTIONS = ("column", "time", "unit")
_DATES = ("%Y.%m.%d_%H.%M.%S", "%Y/%m/%d %H:%M:%S")  # besides ISO 8601


class TraceError(ValueError):
    """A file that is no capacity trace; one line with the file, the line and what is expected."""


class Trace:
    """The capacity of a link over time.

    Args:
        times_s: Moments from 0 on, ascending; the last is the period, above 0. At least two.
        filled_bytes: How many bytes the link could take up to each of them, from 0 on, not descending, the last above 0.

    Attributes:
        period_s: After this it starts again, in seconds.
        mean_rate_bps: Bits per second over a period.
    """

    def __init__(self, times_s: NDArray[np.float64], filled_bytes: NDArray[np.float64]) -> None:
        self._times_s, self._bytes = times_s, filled_bytes
        self.period_s = float(times_s[-1])
        self.mean_rate_bps = float(filled_bytes[-1]) * 8 / self.period_s

    @classmethod
    def of_opportunities(cls, opportunities_ms: Sequence[int]) -> "Trace":
        """The trace of a link that could take 1500 more bytes at these milliseconds, ascending from 0; the last is the period.

        Raises:
            ValueError: no opportunities, not ascending, negative, or all at 0.

        Source:
            Mahimahi (Netravali et al., USENIX ATC 2015), mm-link's file format. Differs in that bytes come evenly within
            their millisecond and are never lost to a message that is smaller than an opportunity.

        Example:
            >>> twelve_mbps = Trace.of_opportunities([1])
            >>> twelve_mbps.mean_rate_bps, round(float(twelve_mbps.finish(np.array([0.25]), 3000)[0]), 9)
            (12000000.0, 0.252)
        """
        times = np.asarray(opportunities_ms, dtype=np.int64)
        if times.size == 0 or times[0] < 0 or times[-1] == 0 or (np.diff(times) < 0).any():
            raise ValueError("opportunities_ms: expected ascending milliseconds from 0, the last above 0")
        times = np.where(times == 0, times[-1], times)  # a period's start is the end of the one before
        ends, counts = np.unique(times, return_counts=True)
        filled = np.cumsum(counts) * float(OPPORTUNITY_BYTES)
        return cls(
            np.stack([ends - 1, ends], axis=1).ravel() / 1000,
            np.stack([filled - counts * OPPORTUNITY_BYTES, filled], axis=1).ravel(),
        )

    @classmethod
    def of_rates(cls, times_s: Sequence[float], rates_bps: Sequence[float]) -> "Trace":
        """The trace of a link whose rate changes at some moments, as the module says of columns.

        Args:
            times_s: When each rate begins, not descending, from any moment on.
            rates_bps: As many, bit/s, at least 0.

        Raises:
            ValueError: no rates, times that descend, or rates that are negative or all 0.

        Example:
            >>> trace = Trace.of_rates([100.0, 101.0], [8e6, 0.0])
            >>> trace.period_s, trace.mean_rate_bps
            (2.0, 4000000.0)
        """
        given = np.asarray(times_s, dtype=np.float64)
        rates = np.asarray(rates_bps, dtype=np.float64)
        if given.size == 0 or given.size != rates.size or (np.diff(given) < 0).any() or (rates < 0).any() or not rates.any():
            raise ValueError("times_s, rates_bps: expected ascending times and as many rates from 0 on, one of them above 0")
        times, place = np.unique(given, return_inverse=True)
        means = np.bincount(place, weights=rates) / np.bincount(place)
        last_s = times[-1] - times[-2] if times.size > 1 else 1.0
        moments = np.append(times, times[-1] + last_s) - times[0]
        return cls(moments, np.concatenate([[0.0], np.cumsum(means * np.diff(moments) / 8)]))

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


def read_trace(source: str) -> Trace:
    """The trace of a file of either form.

    Args:
        source: A path; behind a `?` may follow what its first line does not say, as `log.csv?column=DL_bitrate&unit=kbit/s`:
            `column` and `time`, the names of the columns of rates and times, and `unit`, the unit of the rates.

    Raises:
        TraceError: the file cannot be read, is too large, or is no trace.
    """
    path, _, words = source.partition("?")
    try:
        options = dict(parse_qsl(words, keep_blank_values=True, strict_parsing=bool(words)))
    except ValueError:
        options = {words: ""}
    for key in options:
        if key not in _OPTIONS:
            raise TraceError(f"{path}: got {quoted(key)} behind the '?'; expected {', '.join(_OPTIONS)}, as in ?unit=Mbit/s")
    try:
        data = bytes_of(Path(path), MAX_FILE_BYTES)
        if not options and _PLAIN.fullmatch(data) and (plain := _ascending(data.split())):
            return Trace.of_opportunities(plain)
        lines = read_lines(data)  # ten times as slow, but it knows which line is wrong
        if options or (lines and len(lines[0].fields) > 1):
            return _columns(lines, options)
        return _opportunities(lines)
    except UnreadableError as error:
        raise TraceError(f"{path}: {error}") from None


def _ascending(words: Sequence[bytes]) -> list[int]:
    # nothing where they are no opportunities
    times = [int(word) for word in words if len(word) <= 9]
    is_sound = len(times) == len(words) and times[-1] > 0 and all(a <= b for a, b in pairwise(times))
    return times if is_sound else []


def _opportunities(lines: Sequence[Line]) -> Trace:
    times: list[int] = []
    for line in lines:
        word = line.text.strip()
        if not _OPPORTUNITY.fullmatch(word):
            raise UnreadableError(
                f"line {line.number}: got {quoted(word)}, expected milliseconds, a whole number of at most 9 digits"
            )
        times.append(int(word))
        if len(times) > 1 and times[-1] < times[-2]:
            raise UnreadableError(f"line {line.number}: got {times[-1]} after {times[-2]}, expected ascending milliseconds")
    if not times or times[-1] == 0:
        raise UnreadableError("expected at least one opportunity later than 0 ms")
    return Trace.of_opportunities(times)


def _columns(lines: Sequence[Line], options: Mapping[str, str]) -> Trace:
    if not lines:
        raise UnreadableError("expected rows of a time and a rate")
    header = lines[0].fields if not any(_moment(field) is not None for field in lines[0].fields) else ()
    time, rate = _place_of_time(header, options), _place_of_rate(header, options)
    scale = _scale(header[rate] if header else "", options)
    seconds = 1e-3 if header and header[time].casefold().endswith("ms") else 1.0
    times: list[float] = []
    rates: list[float] = []
    for line in lines[1:] if header else lines:
        if len(line.fields) <= max(time, rate):
            raise UnreadableError(f"line {line.number}: got {quoted(line.text)}, expected a time and a rate")
        begin, value = _moment(line.fields[time]), number(line.fields[rate])
        if begin is None or abs(begin) > _LONGEST_S:
            raise UnreadableError(
                f"line {line.number}: got the time {quoted(line.fields[time])}, expected seconds or a date and time"
            )
        if value is None and line.fields[rate].casefold() in _MISSING:
            continue
        if value is None or not 0 <= value * scale <= _FASTEST_BPS:
            raise UnreadableError(
                f"line {line.number}: got the rate {quoted(line.fields[rate])}, expected a number of 0 or more, or -, at most "
                "1 Pbit/s"
            )
        if times and begin * seconds < times[-1]:
            raise UnreadableError(f"line {line.number}: got the time {line.fields[time]}, earlier than the line before")
        times.append(begin * seconds)
        rates.append(value * scale)
    if sum(rates) < 1e-3:
        raise UnreadableError("expected at least one rate above 0")
    return Trace.of_rates(times, rates)


def _place_of_time(header: Sequence[str], options: Mapping[str, str]) -> int:
    if "time" in options:
        return _place(header, options["time"], "time")
    return next((at for at, name in enumerate(header) if name.casefold() in _TIMES), 0)


def _place_of_rate(header: Sequence[str], options: Mapping[str, str]) -> int:
    if "column" in options:
        return _place(header, options["column"], "column")
    time = _place_of_time(header, options)
    if len(header) == 1:
        raise UnreadableError(f"got one column, {quoted(header[0])}; expected times and rates")
    if len(header) <= 2:
        return 1 - time if time < 2 else 0
    named = [at for at, name in enumerate(header) if at != time and (_UNIT.search(name) or _RATE.search(name))]
    if len(named) != 1:
        names = ", ".join(header[at] for at in named) or ", ".join(header[:12])
        raise UnreadableError(f"expected one column of rates; say which, as in ?column={header[(named or [1])[0]]}: {names}")
    return named[0]


def _place(header: Sequence[str], name: str, option: str) -> int:
    if name not in header:
        there = ", ".join(header[:12]) or "none, for the file has no first line with names"
        raise UnreadableError(f"got {option}={name[:40]}; expected one of its columns: {there}")
    return header.index(name)


def _scale(name: str, options: Mapping[str, str]) -> float:
    found = _UNIT.search(options.get("unit", name))
    if found is None:
        got = f"got unit={options['unit'][:40]}" if "unit" in options else "got no unit of its rates"
        raise UnreadableError(
            f"{got}; expected bit/s, kbit/s, Mbit/s or Gbit/s in its first line or behind the path: ?unit=Mbit/s"
        )
    return _BITS[found[1].lower()]


def _moment(field: str) -> float | None:
    seconds = number(field)
    if seconds is not None:
        return seconds
    try:
        return datetime.fromisoformat(field).replace(tzinfo=UTC).timestamp()
    except ValueError:
        pass
    for form in _DATES:
        try:
            return datetime.strptime(field, form).replace(tzinfo=UTC).timestamp()
        except ValueError:
            continue
    return None
