"""Replay: the last transitions of one agent, column by column, and minibatches drawn from them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from topology.snapshot import State

Column = NDArray[Any]


class Replay:
    """A ring of transitions.

    Args:
        capacity: How many are kept; each new one then takes the place of the oldest.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._columns: tuple[Column, ...] = ()
        self._added = 0

    def __len__(self) -> int:
        """How many there are."""
        return min(self._added, self._capacity)

    def add(self, *columns: Column) -> None:
        """Keep transitions; their columns, (B, ...) each, are the same in kind and width at every call."""
        if not self._columns:
            self._columns = tuple(np.zeros((self._capacity, *column.shape[1:]), column.dtype) for column in columns)
        fresh = min(len(columns[0]), self._capacity)
        self._added += len(columns[0])
        places = np.arange(self._added - fresh, self._added) % self._capacity
        for kept, column in zip(self._columns, columns, strict=True):
            kept[places] = column[len(column) - fresh :]

    def sample(self, size: int, draw: np.random.Generator) -> tuple[Column, ...]:
        """Columns of `size` transitions, each drawn from all; some may come twice."""
        rows = draw.integers(len(self), size=size)
        return tuple(column[rows] for column in self._columns)

    def everything(self) -> tuple[Column, ...]:
        """Columns of all transitions."""
        return tuple(column[: len(self)] for column in self._columns)

    def state(self) -> State:
        """What is kept, and where the next ones go."""
        return {"added": self._added, "columns": [column.copy() for column in self.everything()]}

    def restore(self, state: State) -> None:
        """Take the state of a replay of the same capacity."""
        self.clear()
        if state["columns"]:
            self.add(*state["columns"])
        self._added = state["added"]

    def clear(self) -> None:
        """Forget all."""
        self._added = 0
