"""The link model: when a message arrives over one directed link, or why it does not. Pure: no socket, no clock.

Theory of operation. A `LinkModel` is a medium, described by a `LinkSpec` that may change from moment to moment, and faults
on top of it. `carry` takes one message, E copies of it at once, each with its own moment of sending and its own fate:

1.  A copy with nothing to send, or whose sender is down, is NOT_SENT.
2.  The spec in force at the moment of sending holds for the whole message.
3.  *Queue.* A datagram that would bring the bytes waiting or in transmission, its own included, above `queue_bytes` is
    dropped at once (QUEUE): it never reaches the wire. A reliable message is never dropped here: its sender is held back, as
    a blocking socket holds it.
4.  *Link time.* `begin = max(send, when the link is free)`; the link is then taken for as long as the bytes need at its
    rate. There is no credit: 50 bytes at 1000 byte/s take 0.05 s however long the link was idle. A duty cycle adds silence
    after each fragment, so that the link is busy for 1/duty times as long as it transmits.
5.  `arrive = end of transmission + delay + spread(u)`, not before anything that began earlier unless `reorder`.
6.  *Loss.* Each fragment of `mtu_bytes` is lost with `loss_prob`, independently (Bernoulli) or in bursts (Gilbert: a
    two-state chain that steps once per fragment and loses in its bad state only). One lost fragment loses the datagram. A
    lost message has used the link all the same. Fragments have no headers of their own.
7.  *Faults* judge what was put on the wire: each may strike a transmission whatever the medium made of it. The first that
    strikes gives the reason.
8.  *Repeats.* A reliable message sends its missing fragments again, all of them together, when the time-out has passed
    since its last transmission ended. The n-th repeat waits 2^(n−1) time-outs, at most 60 s (RFC 6298, 5.5 and 2.5). It
    costs bytes and link time again. A time-out is longer than a burst, so repeats are lost independently. After `retries`
    repeats it is given up (GAVE_UP), whatever the reason of each loss.

For one fragment that is lost m times on an idle link, by 4, 5 and 8:

    arrive = send + (m + 1)·tx + Σ_{n<m} min(2^n·timeout, 60 s) + delay + spread(u)

*Order of calls.* Messages need not be handed in by their moment of sending: one that is relayed may be sent after one that
is handed in next. Transmissions that lie in the future are therefore kept as reservations, and each new one takes the
first gap that it fits into: never two at once, and the link never idles while something that fits waits. Order is kept
against what begins earlier and is known; a message handed in late cannot hold up what has already been told to arrive.
`forget` says up to when nothing more will be sent.

*Order of arrival.* Datagrams keep the order of the medium, and are not held up by repeats; a reliable message also waits
for the reliable ones before it, as in a stream.

*Randomness.* A Philox stream per (seed, link), addressed by copy, message index and use. So no number depends on other
links, on the number of copies, on how many fragments another message had, or on what was forgotten.

What may be changed freely: how reservations are kept. What must not: that each number has its own address, and that what
was reserved is never moved.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from topology.link.traces import Trace
from topology.snapshot import State, Stateful

MAX_TIMEOUT_S = 60.0  # RFC 6298, 2.5: a maximum may be placed on the time-out if it is at least 60 s
Times = NDArray[np.float64]
Flags = NDArray[np.bool_]
Sizes = NDArray[np.int64]


class Fate(IntEnum):
    """What became of a message over one link; in lower case, its name in the records."""

    ARRIVES = 0
    NOT_SENT = 1  # nothing to send, or the sender is down
    LOSS = 2  # the medium lost a fragment of a datagram
    QUEUE = 3  # no room before the link
    OUTAGE = 4  # the link was down
    CRASH = 5  # the receiver was down, or the sender went down before the message was out
    GAVE_UP = 6  # a reliable message ran out of repeats


class Passage(NamedTuple):
    """The verdict on one message over one directed link.

    Attributes:
        arrive: Virtual seconds of arrival per copy, shape (E,); inf where it does not arrive.
        fate: `Fate` per copy, shape (E,).
        sent_bytes: Bytes put on the wire by all copies together, repeats included. None for NOT_SENT, none for QUEUE:
            such a message was sent, but its bytes were not.
        resent_bytes: The part of them that are repeats.
    """

    arrive: Times
    fate: NDArray[np.int8]
    sent_bytes: int
    resent_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkSpec:
    """What a medium is like for as long as it does not change.

    Attributes:
        rate_bps: Bits per second, above 0; inf: transmission takes no time.
        delay_s: Base of the one-way delay, at least 0.
        spread: What is added to it, as a table of quantiles: pairs of probability and seconds, both ascending, from
            probability 0 to 1. Between two entries the quantile is interpolated linearly, so delays are uniform there.
            Empty: nothing. `delay_s` plus the first must not be negative.
        loss_prob: π: Part of the fragments that are lost, in [0, 1].
        loss_burst: L: Mean number of fragments lost in a row, at least 1; 0: losses are independent.
        mtu_bytes: Size of a fragment, at least 1.
        queue_bytes: Room for bytes waiting or in transmission; inf: all there is.
        duty: Part of the time that it may transmit, in (0, 1].
        reorder: Whether a later message may arrive first.
        retries: How often a reliable message repeats what was lost.
        trace: Capacity over time, in place of `rate_bps`.

    Raises:
        ValueError: a value is out of its range; the text begins with its name.

    Source:
        Gilbert 1960 as parametrised by Haßlinger & Hohlfeld 2008: r = 1/L leaves the bad state, p = π·r/(1 − π) enters
        it, losses in the bad state only.
    """

    rate_bps: float = np.inf
    delay_s: float = 0.0
    spread: tuple[tuple[float, float], ...] = ()
    loss_prob: float = 0.0
    loss_burst: float = 0.0
    mtu_bytes: int = 1500
    queue_bytes: int | float = np.inf
    duty: float = 1.0
    reorder: bool = False
    retries: int = 15  # Linux's tcp_retries2
    trace: Trace | None = None

    def __post_init__(self) -> None:  # noqa: D105
        for name, low, high in (("loss_prob", 0, 1), ("delay_s", 0, np.inf), ("retries", 0, np.inf), ("mtu_bytes", 1, np.inf)):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"{name}: got {value}; expected {low}..{high}")
        for name in ("rate_bps", "queue_bytes", "duty"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}: got {getattr(self, name)}; expected more than 0")
        if self.duty > 1 or (self.duty < 1 and self.trace is not None):
            raise ValueError(f"duty: got {self.duty}; expected at most 1, and 1 with a trace")
        if self.loss_burst and (self.loss_burst < 1 or self.loss_prob * (self.loss_burst + 1) > self.loss_burst):
            top = self.loss_burst / (self.loss_burst + 1)
            raise ValueError(
                f"loss_prob: got {self.loss_prob} in bursts of {self.loss_burst}; a burst is at least 1, and then at most "
                f"{top:.4g} can be lost"
            )
        if self.spread:
            probabilities, seconds = zip(*self.spread, strict=True)
            if (probabilities[0], probabilities[-1]) != (0, 1) or sorted(self.spread) != list(self.spread):
                raise ValueError(f"spread: got {self.spread}; expected ascending quantiles from probability 0 to 1")
            if list(seconds) != sorted(seconds) or self.delay_s + seconds[0] < 0:
                raise ValueError(
                    f"spread: got {seconds[0]} to {seconds[-1]} s around a delay of {self.delay_s} s; "
                    "expected ascending seconds and no delay below 0"
                )

    @property
    def is_ideal(self) -> bool:
        """Whether every message arrives at the moment it is sent."""
        unlimited = self.rate_bps == np.inf and self.trace is None and self.queue_bytes == np.inf
        return unlimited and self.delay_s == 0 and not self.spread and self.loss_prob == 0

    @property
    def mean_rate_bps(self) -> float:
        """Bits per second in the long run."""
        return (self.rate_bps if self.trace is None else self.trace.mean_rate_bps) * self.duty

    @property
    def timeout_s(self) -> float:
        """First wait of a reliable message for what is missing, in seconds.

        Transmission of one fragment, and twice the delay that 9 of 10 messages stay below.
        """
        rate_bps = self.rate_bps if self.trace is None else self.trace.mean_rate_bps
        return self.mtu_bytes * 8 / rate_bps + 2 * (self.delay_s + self.quantile(0.9))

    def quantile(self, probability: float) -> float:
        """The spread that this part of the messages stays below, in seconds."""
        if not self.spread:
            return 0.0
        probabilities, seconds = np.array(self.spread).T
        return float(np.interp(probability, probabilities, seconds))


IDEAL = LinkSpec()


@runtime_checkable
class Fault(Protocol):
    """A rule on top of the medium.

    Attributes:
        fate: The reason it gives.
        lasting: A message that it strikes is gone, repeats or not.
    """

    fate: Fate
    lasting: bool

    def silences(self, send: Times) -> Flags:
        """Which copies, shape (E,), cannot send at `send`; where that is inf, nothing is asked."""
        ...

    def strikes(self, begin: Times, arrive: Times) -> Flags:
        """Which transmissions, shape (E,), begun at `begin` and due at `arrive`, come to nothing; inf: none."""
        ...


class LinkModel(Stateful):
    """One directed link with its state, for E copies.

    Args:
        segments: From when on (seconds, ascending, the first 0) which spec holds.
        faults: Rules on top, asked in this order.
        copies: E.
        seed: The run's.
        stream: What tells this link from all others: (src, dst), with more numbers where two links may cross one edge.

    Raises:
        ValueError: segments that do not begin at 0 or are not ascending.

    Example:
        >>> link = LinkModel([(0.0, LinkSpec(rate_bps=8000.0))], copies=1, seed=0, stream=(0, 1))
        >>> [float(link.carry(50, np.zeros(1), reliable=False).arrive[0]) for _ in range(2)]
        [0.05, 0.1]
    """

    STATE = ("_media", "_reserved", "_medium_order", "_stream_order", "_horizon_s", "_messages")

    def __init__(
        self,
        segments: Sequence[tuple[float, LinkSpec]],
        faults: Sequence[Fault] = (),
        *,
        copies: int,
        seed: int,
        stream: tuple[int, ...],
    ) -> None:
        starts = [start for start, _ in segments]
        if starts[:1] != [0.0] or starts != sorted(set(starts)):
            raise ValueError(f"segments: got {starts}; expected ascending seconds from 0")
        self._starts = np.array(starts)
        self._media = [_Medium(spec, copies) for _, spec in segments]
        self._faults = tuple(faults)
        self._draws = _Draws(seed, stream, copies)
        self._reserved = _Reservations(copies)
        self._medium_order = _Order(copies)
        self._stream_order = _Order(copies)
        self._horizon_s = -np.inf
        self._messages = 0
        self._copies = copies

    @property
    def is_ideal(self) -> bool:
        """Whether every message arrives at the moment it is sent, always."""
        return not self._faults and all(medium.spec.is_ideal for medium in self._media)

    def forget(self, before_s: float) -> None:
        """Promise that nothing more is sent before `before_s`."""
        self._horizon_s = before_s

    def carry(self, wire_bytes: int | Sizes, send: Times, *, reliable: bool) -> Passage:
        """Put one message on the link.

        Args:
            wire_bytes: Its size on the wire, of every copy or per copy, shape (E,); at least 1.
            send: When each copy is sent, seconds, shape (E,); inf: this copy sends nothing.
            reliable: Whether what is lost is sent again.

        Returns:
            When and whether each copy arrives.
        """
        message = self._messages
        self._messages += 1
        for fault in self._faults:
            send = np.where(fault.silences(send), np.inf, send)
        if len(self._media) == 1:
            return self._pass(self._media[0], wire_bytes, send, message, reliable)
        which = np.searchsorted(self._starts, send, side="right") - 1
        passage = Passage(np.full(self._copies, np.inf), np.full(self._copies, Fate.NOT_SENT, np.int8), 0, 0)
        for place in np.unique(which[send < np.inf]):
            here = which == place
            part = self._pass(self._media[place], wire_bytes, np.where(here, send, np.inf), message, reliable)
            passage = Passage(
                np.where(here, part.arrive, passage.arrive),
                np.where(here, part.fate, passage.fate),
                passage.sent_bytes + part.sent_bytes,
                passage.resent_bytes + part.resent_bytes,
            )
        return passage

    def _pass(self, medium: "_Medium", size: int | Sizes, send: Times, message: int, reliable: bool) -> Passage:
        spec = medium.spec
        sends = send < np.inf
        fate = (~sends).astype(np.int8)  # ARRIVES and NOT_SENT are 0 and 1
        if not reliable and spec.queue_bytes < np.inf:
            full = sends & (self._reserved.waiting(send) + size > spec.queue_bytes)
            if np.count_nonzero(full):
                fate[full] = Fate.QUEUE
                sends = sends & ~full
                send = np.where(sends, send, np.inf)
        jitter, luck = self._draws.first(message)
        delay = medium.delay(jitter)
        trip = self._transmit(spec, send, size, delay)
        missing = medium.lose(luck, sends, size, self._draws, message)
        struck = self._strike(trip, sends)
        sent_bytes, resent_bytes = _total(size, sends), 0
        arrive = trip.arrive
        if reliable:
            if missing is not None or struck is not None:
                missing = np.zeros((medium.fragments(size), 1), np.bool_) if missing is None else missing
                arrive, fate, resent_bytes = self._repeat(medium, trip, size, sends, missing, struck, delay, message)
                fate[~sends] = Fate.NOT_SENT
            arrive = self._stream_order.keep(trip.begin, arrive, self._horizon_s, reorder=spec.reorder)
        else:
            if missing is not None:
                fate[missing.any(axis=0)] = Fate.LOSS
            if struck is not None:
                fate = np.where(struck.fate > 0, struck.fate, fate)
            if missing is not None or struck is not None:
                arrive = np.where(fate == Fate.ARRIVES, arrive, np.inf)
        return Passage(arrive, fate, sent_bytes + resent_bytes, resent_bytes)

    def _repeat(
        self,
        medium: "_Medium",
        first: "_Trip",
        size: int | Sizes,
        sends: Flags,
        missing: Flags,
        struck: "_Struck | None",
        delay: float | Times,
        message: int,
    ) -> tuple[Times, NDArray[np.int8], int]:
        # step 8: (arrive, fate, repeated bytes) of a reliable message whose first transmission lacks the fragments `missing`
        spec, trip = medium.spec, first
        pieces = medium.pieces(size)
        fate = np.full(self._copies, Fate.ARRIVES, np.int8)
        arrive = np.where(sends, first.arrive, np.inf)
        resent_bytes = 0
        for attempt in range(spec.retries + 1):
            if struck is not None:
                missing = missing | ((struck.fate > 0) & (pieces > 0))
                fate = np.where(struck.lasting, struck.fate, fate)
            open_ = sends & missing.any(axis=0) & (fate == Fate.ARRIVES)
            if attempt == spec.retries:
                fate[open_] = Fate.GAVE_UP
            if attempt == spec.retries or not open_.any():
                break
            wait_s = min(spec.timeout_s * 2.0**attempt, MAX_TIMEOUT_S)
            left = np.where(open_, (missing * pieces).sum(axis=0), 0)
            trip = self._transmit(spec, np.where(open_, trip.gone + wait_s, np.inf), left, delay)
            resent_bytes += int(left.sum())
            arrive = np.where(open_, trip.arrive, arrive)
            missing = missing & (self._draws.more(message, _REPEAT + attempt, len(pieces), open_) < spec.loss_prob)
            struck = self._strike(trip, open_)
        return np.where(fate == Fate.ARRIVES, arrive, np.inf), fate, resent_bytes

    def _transmit(self, spec: LinkSpec, ready: Times, size: int | Sizes, delay: float | Times) -> "_Trip":
        begin, gone = self._reserved.take(spec, ready, size, self._horizon_s)
        return _Trip(begin, gone, self._medium_order.keep(begin, gone + delay, self._horizon_s, reorder=spec.reorder))

    def _strike(self, trip: "_Trip", sends: Flags) -> "_Struck | None":
        found = None
        for fault in self._faults:
            hit = fault.strikes(trip.begin, trip.arrive) & sends
            if np.count_nonzero(hit):
                if found is None:
                    found = _Struck(np.zeros(self._copies, np.int8), np.zeros(self._copies, np.bool_))
                hit &= found.fate == 0
                found.fate[hit] = fault.fate
                found.lasting[hit] = fault.lasting
        return found


class _Struck(NamedTuple):
    """What faults made of one transmission, per copy: the reason, 0 for none, and whether repeating helps."""

    fate: NDArray[np.int8]
    lasting: Flags


class _Trip(NamedTuple):
    """One transmission, per copy: when it begins, is out of the sender, and would arrive; inf: none."""

    begin: Times
    gone: Times
    arrive: Times


class _Medium(Stateful):
    """A spec with the state of its Gilbert chain, per copy.

    Attributes:
        spec: The spec.
        bad: Probability that the chain is in its bad state, (E,): at first the stationary one.
    """

    STATE = ("bad",)

    def __init__(self, spec: LinkSpec, copies: int) -> None:
        self.spec = spec
        self._quantiles = np.array(spec.spread, dtype=np.float64).reshape(-1, 2).T
        self._leave = 1 / spec.loss_burst if spec.loss_burst else 1 - spec.loss_prob
        self._enter = spec.loss_prob * self._leave / (1 - spec.loss_prob) if spec.loss_burst else spec.loss_prob
        self.bad = np.full(copies, spec.loss_prob)

    def delay(self, u: Times) -> float | Times:
        """Seconds from the end of a transmission to its arrival; u in [0, 1), shape (E,)."""
        if not self.spec.spread:
            return self.spec.delay_s
        delay: Times = np.interp(u, self._quantiles[0], self._quantiles[1]) + self.spec.delay_s
        return delay

    def fragments(self, size: int | Sizes) -> int:
        """How many fragments a message has, that of the largest copy."""
        largest = size if isinstance(size, int) else int(size.max())
        return max(-(-largest // self.spec.mtu_bytes), 1)

    def pieces(self, size: int | Sizes) -> Sizes:
        """Sizes of the fragments in bytes, shape (k, 1) or (k, E); 0 where a copy has fewer."""
        mtu = self.spec.mtu_bytes
        before = np.arange(self.fragments(size), dtype=np.int64)[:, None] * mtu
        return np.clip(np.atleast_1d(size) - before, 0, mtu)

    def lose(self, luck: Times, sends: Flags, size: int | Sizes, draws: "_Draws", message: int) -> Flags | None:
        """Which fragments are lost, shape (k, E), or None if none is; the chain goes on by those that are sent."""
        if self.spec.loss_prob == 0:
            return None
        count = self.fragments(size)
        if count == 1:
            lost = (luck < self._risk()) & sends
            self._step(lost, sends)
            return lost[None] if np.count_nonzero(lost) else None
        u = np.concatenate([luck[None], draws.more(message, _FRAGMENT, count - 1, sends)])
        there = (self.pieces(size) > 0) & sends
        if not self.spec.loss_burst:
            return (u < self.spec.loss_prob) & there
        lost = np.empty(u.shape, np.bool_)
        for k in range(count):
            lost[k] = (u[k] < self._risk()) & there[k]
            self._step(lost[k], there[k])
        return lost

    def _risk(self) -> float | Times:
        # the next fragment is lost if the chain is in its bad state then
        if not self.spec.loss_burst:
            return self.spec.loss_prob
        risk: Times = self.bad * (1 - self._leave) + (1 - self.bad) * self._enter
        return risk

    def _step(self, lost: Flags, sent: Flags) -> None:
        if self.spec.loss_burst:
            self.bad = np.where(sent, lost, self.bad)


class _Log:
    """Rows of numbers per copy, in the order of booking; the oldest are dropped when room runs out.

    Attributes:
        live: The rows, shape (columns, rows, E).
    """

    def __init__(self, columns: int, copies: int) -> None:
        self._room = np.empty((columns, 32, copies))
        self.live = self._room[:, :0]

    @property
    def is_full(self) -> bool:
        """Whether `append` needs `keep` first."""
        return bool(self.live.shape[1] == self._room.shape[1])

    def append(self, *values: int | float | Times | Sizes) -> None:
        """Book one row, a value per column, each for all copies or per copy."""
        row = self.live.shape[1]
        for column, value in enumerate(values):
            self._room[column, row] = value
        self.live = self._room[:, : row + 1]

    def keep(self, rows: Flags) -> None:
        """Drop all other rows; makes room for as many again if few are dropped."""
        kept = self.live[:, rows]
        columns, room, copies = self._room.shape
        if 2 * kept.shape[1] > room:
            self._room = np.empty((columns, 2 * room, copies))
        self._room[:, : kept.shape[1]] = kept
        self.live = self._room[:, : kept.shape[1]]

    def state(self) -> State:
        """The rows, and for how many there is room, on which it depends when rows are dropped."""
        return {"rows": self.live.copy(), "room": self._room.shape[1]}

    def restore(self, state: State) -> None:
        """Take the rows of another log."""
        columns, count, copies = state["rows"].shape
        self._room = np.empty((columns, state["room"], copies))
        self._room[:, :count] = state["rows"]
        self.live = self._room[:, :count]


class _Reservations(Stateful):
    """Which times of the link are taken, per copy.

    A row is one transmission: for when it was handed in, when it begins, until when the link is busy with it, when its last
    byte is out, and its bytes. The usual case, where nothing is sent before the last contiguous block of reservations
    began, needs no look at the rows.
    """

    STATE = ("_log", "_block", "_free", "_out")

    def __init__(self, copies: int) -> None:
        self._log = _Log(5, copies)
        self._block = self._free = self._out = np.full(copies, -np.inf)  # the last block's begin and end; all bytes out

    def waiting(self, send: Times) -> float | Times:
        """Bytes that wait or are in transmission at `send`."""
        if _all(send >= self._out):
            return 0.0
        sent, _, _, gone, size = self._log.live
        waiting: Times = (size * ((sent <= send) & (gone > send))).sum(axis=0)
        return waiting

    def take(self, spec: LinkSpec, ready: Times, size: int | Sizes, horizon: float) -> tuple[Times, Times]:
        """Begin and end of transmission in the first gap from `ready` on that fits; inf: none."""
        if _all(ready >= self._block):
            begin = np.maximum(ready, self._free)
            gone, busy = _occupied(spec, begin, size)
        else:
            begin, gone, busy = self._first_gap(spec, ready, size)
        self._book(ready, begin, busy, gone, size, horizon)
        return begin, gone

    def _first_gap(self, spec: LinkSpec, ready: Times, size: int | Sizes) -> tuple[Times, Times, Times]:
        live = self._log.live
        _, taken, ended, _, _ = live[:, (live[2] > ready).any(axis=1)]  # the others are over and in the way of none
        copies = np.arange(len(ready))
        order = np.argsort(taken, axis=0, kind="stable")
        taken, ended = taken[order, copies], np.maximum.accumulate(ended[order, copies], axis=0)
        # a gap lies before each reservation and after the last
        begins = np.concatenate([ready[None], np.maximum(ready, ended)])
        limits = np.concatenate([taken, np.full((1, len(ready)), np.inf)])
        gone, busy = _occupied(spec, begins, size)
        gap = np.argmax(busy <= limits, axis=0)
        return begins[gap, copies], gone[gap, copies], busy[gap, copies]

    def _book(self, ready: Times, begin: Times, busy: Times, gone: Times, size: int | Sizes, horizon: float) -> None:
        sends = ready < np.inf
        if not _all(sends):
            busy, gone, size = np.where(sends, busy, -np.inf), np.where(sends, gone, -np.inf), np.where(sends, size, 0)
        if self._log.is_full:
            self._log.keep((self._log.live[2] > horizon).any(axis=1))
        self._log.append(ready, begin, busy, gone, size)
        opens = sends & (begin > self._free)
        self._block = np.where(opens, begin, self._block)
        self._free = np.maximum(self._free, busy)
        self._out = np.maximum(self._out, gone)


class _Order(Stateful):
    """Keeps what arrives in the order in which it began, per copy; rows are begin and arrival."""

    STATE = ("_log", "_last", "_latest", "_dropped")

    def __init__(self, copies: int) -> None:
        self._log = _Log(2, copies)
        self._last = self._latest = self._dropped = np.full(copies, -np.inf)  # begin; arrival, of all, of dropped rows

    def keep(self, begin: Times, arrive: Times, horizon: float, *, reorder: bool) -> Times:
        """The arrival, put off until all that began no later has arrived unless `reorder`; inf: none."""
        if not reorder:
            arrive = np.maximum(arrive, self._floor(begin))
        arrives = arrive < np.inf
        booked = begin, arrive
        if not _all(arrives):
            booked = np.where(arrives, begin, -np.inf), np.where(arrives, arrive, -np.inf)
        if self._log.is_full:
            kept = (self._log.live[0] > horizon).any(axis=1)
            self._dropped = np.maximum(self._dropped, self._log.live[1, ~kept].max(axis=0, initial=-np.inf))
            self._log.keep(kept)
        self._log.append(*booked)
        self._last, self._latest = np.maximum(self._last, booked[0]), np.maximum(self._latest, booked[1])
        return arrive

    def _floor(self, begin: Times) -> Times:
        if _all(begin >= self._last):
            return self._latest
        begun, arrived = self._log.live
        floor: Times = np.where(begun <= begin, arrived, -np.inf).max(axis=0, initial=-np.inf)
        found: Times = np.maximum(floor, self._dropped)
        return found


def _occupied(spec: LinkSpec, begin: Times, size: int | Sizes) -> tuple[Times, Times]:
    # when the last byte is out, and until when the link is busy; shape as begin
    if spec.trace is not None:
        gone = spec.trace.finish(begin, size)
        return gone, gone
    busy_s = size * 8 / spec.rate_bps
    if spec.duty == 1:
        gone = begin + busy_s
        return gone, gone
    final = (size - 1) % spec.mtu_bytes + 1  # the silence after the last fragment is the link's, not the message's
    final_s = final * 8 / spec.rate_bps
    gone = begin + (busy_s - final_s) / spec.duty + final_s
    return gone, begin + busy_s / spec.duty


def _all(flags: Flags) -> bool:
    return int(np.count_nonzero(flags)) == flags.size  # a quarter of the time of `all()`, several times per message


def _total(size: int | Sizes, sends: Flags) -> int:
    return size * int(np.count_nonzero(sends)) if isinstance(size, int) else int(size[sends].sum())


_FRAGMENT, _REPEAT = 1, 2  # uses of draws, after the first: further fragments, and repeats from here on


class _Draws:
    """Uniform numbers in [0, 1), each with its own address: link, copy, message, use.

    Counter words of Philox: the running number, the message, the copy, the use. The two numbers that every message needs
    (spread, and loss of the first fragment) lie side by side, so that a block of messages is drawn at once.
    """

    def __init__(self, seed: int, stream: tuple[int, ...], copies: int) -> None:
        key = np.random.SeedSequence([seed, len(stream), *stream]).generate_state(2, np.uint64)
        self._philox = np.random.Philox(key=key)
        self._generator = np.random.Generator(self._philox)
        self._state = self._philox.state
        self._copies = copies
        self._length = max(16, 1024 // copies * 2)  # messages; even, as a counter yields the numbers of two
        self._block = np.empty((self._length, 2, copies))
        self._drawn = -1

    def first(self, message: int) -> NDArray[np.float64]:
        """The two numbers of each copy, shape (2, E)."""
        number, place = divmod(message, self._length)
        if number != self._drawn:
            for copy in range(self._copies):
                self._block[:, :, copy] = self._at(number * self._length // 2, 0, copy, 0).random((self._length, 2))
            self._drawn = number
        found: NDArray[np.float64] = self._block[place]
        return found

    def more(self, message: int, use: int, count: int, needed: Flags) -> NDArray[np.float64]:
        """Further numbers, shape (count, E); 1 in copies that need none."""
        found = np.ones((count, self._copies))
        for copy in np.flatnonzero(needed).tolist():
            found[:, copy] = self._at(0, message, copy, use).random(count)
        return found

    def _at(self, running: int, message: int, copy: int, use: int) -> np.random.Generator:
        self._state["state"]["counter"][:] = (running, message, copy, use)
        self._state["buffer_pos"] = 4  # nothing of another address left
        self._philox.state = self._state
        return self._generator
