"""The last state received from each other agent: late blocks, lost blocks, and how old they are.

Theory of operation. A peer's block of step t was true at time t·dt. It is of use from the moment at which it arrives in
virtual time, which on real links is later, differs between environment copies, and may be never. So per origin and copy
there is the newest block that has arrived, and a list of those still on their way. `recall` is asked at the moment an
agent acts: it lets in what has arrived by then and gives the block to act on. Where the block of this very step is not
among it, `on_missing` decides: the last one that came (`hold_last`; zeros before the first), or zeros.

A null message (event-triggered STATE) says that nothing has changed much. It brings no numbers, so the last block that
came stays, and so does its age: what was lost before it is not healed by it.

Age of information is the time from the moment a block was true to the moment it is used by an agent sensing at t·dt, per
step and copy; before the first block it counts from the start of the run.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from topology.snapshot import State
from topology.wire.frame import Delivery

Floats = NDArray[np.float32]


class _Pending:
    """A block that has not arrived in every copy yet."""

    __slots__ = ("arrive", "block", "born", "earliest", "label", "null")

    def __init__(self, born: float, delivery: Delivery, block: Floats, label: tuple[int, int]) -> None:
        self.born = born
        self.arrive, self.null = delivery.arrive.copy(), delivery.null  # inf: never, or already there
        self.earliest = delivery.arrive.min()
        self.block = block
        self.label = label

    def state(self) -> State:
        return {
            "born": self.born, "arrive": self.arrive.copy(), "null": self.null, "block": self.block, "label": self.label,
        }  # fmt: skip

    @classmethod
    def of(cls, state: State) -> "_Pending":
        return cls(state["born"], Delivery(state["arrive"], state["null"]), state["block"], tuple(state["label"]))


class _Tally:
    """Age of what was used of one origin."""

    __slots__ = ("aged", "count", "missing", "oldest")

    def __init__(self) -> None:
        self.count = self.missing = 0
        self.aged = self.oldest = 0.0


class Age(NamedTuple):
    """How old the news of one origin was, over a round.

    Attributes:
        origin: Whose blocks.
        used: Blocks used, one per step and copy.
        missing: Those of them that were not the block of the step.
        mean_s: Mean age when used.
        max_s: Greatest age.
    """

    origin: int
    used: int
    missing: int
    mean_s: float
    max_s: float


class NeighbourCache:
    """One agent's memory of the blocks of others.

    Args:
        widths: Block width of every origin that it receives states of.
        copies: E.
        hold: Whether a missing block is replaced by the last one that came, or by zeros.
    """

    def __init__(self, widths: Mapping[int, int], copies: int, *, hold: bool) -> None:
        self._copies = copies
        self._hold = hold
        self._held = {origin: np.zeros((copies, width), np.float32) for origin, width in widths.items()}
        self._born = {origin: np.full(copies, -np.inf) for origin in widths}
        self._fresh: dict[int, tuple[float, Floats]] = {}
        self._pending: dict[int, list[_Pending]] = {origin: [] for origin in widths}
        self._tallies = {origin: _Tally() for origin in widths}

    def take(self, origin: int, born: float, block: Floats, delivery: Delivery | None, *, label: tuple[int, int]) -> None:
        """Take in a block (E, d) of `origin` that was true at `born`; without a delivery it has arrived everywhere at once.

        `label` comes back from `under_way`: the round it belongs to and the agent that delivered it, for the books.
        """
        if delivery is None and not self._pending[origin]:
            self._fresh[origin] = born, block
        elif delivery is None:
            at_once = Delivery(np.zeros(self._copies), np.zeros(self._copies, np.bool_))
            self._pending[origin].append(_Pending(born, at_once, block, label))
        else:
            self._pending[origin].append(_Pending(born, delivery, block, label))

    def recall(self, origin: int, now: float, until: float) -> Floats:
        """The block (E, d) of `origin` to act on at a step sensed at `now`, from what has arrived by `until`."""
        tally = self._tallies[origin]
        tally.count += self._copies
        fresh = self._fresh.pop(origin, None)
        if fresh is not None:  # the usual case on links without limits
            self._held[origin] = fresh[1]
            self._born[origin].fill(fresh[0])
            if fresh[0] == now:
                return fresh[1]
        if self._pending[origin]:
            self._let_in(origin, until)
        born = self._born[origin]
        missing = int(np.count_nonzero(born != now))
        if missing == 0:
            return self._held[origin]
        age = now - np.maximum(born, 0.0)
        tally.missing += missing
        tally.aged += float(age.sum())
        tally.oldest = max(tally.oldest, float(age.max()))
        if self._hold:
            return self._held[origin]
        return np.where((born == now)[:, None], self._held[origin], np.float32(0.0))

    def pass_over(self, until: float) -> None:
        """Let in what arrives by `until` without using any of it."""
        for origin, (born, block) in self._fresh.items():
            self._held[origin] = block
            self._born[origin].fill(born)
        self._fresh.clear()
        for origin in self._pending:
            self._let_in(origin, until)

    def held(self, origin: int) -> Floats:
        """The last block (E, d) that came of `origin`, zeros where none did."""
        return self._held[origin]

    def ages(self) -> tuple[Age, ...]:
        """How old the news was since the last call, by origin."""
        ages = tuple(
            Age(origin, tally.count, tally.missing, tally.aged / tally.count, tally.oldest)
            for origin, tally in sorted(self._tallies.items())
            if tally.count
        )
        self._tallies = {origin: _Tally() for origin in self._tallies}
        return ages

    def under_way(self, after: float) -> list[tuple[tuple[int, int], int]]:
        """Label and number of copies of what will only arrive after a time."""
        return [
            (entry.label, late)
            for _, entries in sorted(self._pending.items())
            for entry in entries
            if (late := int(np.count_nonzero((entry.arrive > after) & (entry.arrive < np.inf))))
        ]

    def state(self) -> State:
        """What is held and under way, as it is between two rounds: then nothing is fresh, and ages have been told."""
        return {
            "held": [held for _, held in sorted(self._held.items())],
            "born": [born for _, born in sorted(self._born.items())],
            "pending": [[entry.state() for entry in entries] for _, entries in sorted(self._pending.items())],
        }

    def restore(self, state: State) -> None:
        """Take the state of a cache of the same origins."""
        for origin, held, born, entries in zip(sorted(self._held), state["held"], state["born"], state["pending"], strict=True):
            self._held[origin], self._born[origin] = held, born
            self._pending[origin] = [_Pending.of(entry) for entry in entries]

    def _let_in(self, origin: int, until: float) -> None:
        held, born = self._held[origin], self._born[origin]
        waiting = []
        for entry in self._pending[origin]:
            if entry.earliest <= until:
                due = entry.arrive <= until
                news = due & (born < entry.born) & ~entry.null
                if (count := np.count_nonzero(news)) == self._copies:
                    held = entry.block
                    born.fill(entry.born)
                elif count:
                    if not held.flags.writeable:  # a frame's own buffer
                        held = held.copy()
                    np.copyto(held, entry.block, where=news[:, None])
                    born[news] = entry.born
                entry.arrive[due] = np.inf
                entry.earliest = entry.arrive.min()
            if entry.earliest < np.inf:
                waiting.append(entry)
        self._held[origin], self._pending[origin] = held, waiting
