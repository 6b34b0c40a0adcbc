"""Action values kept in tables: independent Q-learning, Q-iteration to the end of a turn, and Q-learning on ideal transitions.

Theory of operation. States are rows of a table; which observation a row stands for is the caller's business, and so is whose
row it is: the tables of many agents, or of many games, may lie below each other in one, and everything here works on all of
them at once. An agent has its own action only, so to each of them the others are part of the world.

`replay` is one minibatch of Q-learning (IQL, and MA2QL by samples). `iterate` takes everything that was replayed to the
fixed point instead: it is what a turn of MA2QL needs, whose theorem asks for responses that are best up to an accuracy.
`IdealQ` (I2Q) remembers which successors each of its own actions has led to, learns what each of them is worth if all do their
best from there, and lets its Q believe that the best of them will follow. That is the truth where transitions are deterministic
and one joint action is best; chance makes it an optimist.

Symbols: S rows, A own actions, B transitions, W successors kept per row.

Sources: independent Q-learning, Tan 1993; MA2QL, Su et al. 2022 (arXiv:2209.08244); I2Q, Jiang and Lu 2022, the tabular form
with the reward of the transition that is believed in, r(s, s'*), where the paper's games pay by the state left alone.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from topology.snapshot import Stateful

Array = NDArray[np.float64]
Indices = NDArray[np.intp]
Bools = NDArray[np.bool_]
_BY_ROW = ("_degree", "_next", "_reward", "_ends", "_reached")
_IDEAL_TABLES = ("q", "_qss", *_BY_ROW)


@dataclass(frozen=True, slots=True, kw_only=True)
class Transitions:
    """What happened, one row per transition.

    Attributes:
        state: Row of the state left, (B,).
        action: Own action, (B,).
        reward: (B,).
        following: Row of the state reached, (B,); where the episode terminated that of what was seen last.
        terminated: Whether nothing is to come, (B,).
    """

    state: Indices
    action: Indices
    reward: Array
    following: Indices
    terminated: Bools


def move(values: Array, place: Indices, target: Array, step: float) -> None:
    """Move entries towards their targets, in place, as if the targets came one after the other in an average order.

    An entry with c targets goes 1 - (1 - step)^c of the way to their mean: a state that fills half the minibatch, as the first
    one of every episode does, must not be thrown beyond them.

    Args:
        values: One-dimensional view of a table.
        place: Which entry, (B,), any number of times.
        target: Where to, (B,).
        step: Part of the way that one target alone takes, in (0, 1].

    Example:
        >>> values = np.zeros(2)
        >>> move(values, np.array([0, 0, 1]), np.array([1.0, 1.0, 4.0]), 0.5)
        >>> values
        array([0.75, 2.  ])
    """
    places, inverse, count = np.unique(place, return_inverse=True, return_counts=True)
    mean = np.bincount(inverse, target) / count
    values[places] += (1.0 - (1.0 - step) ** count) * (mean - values[places])


def replay(q: Array, batch: Transitions, *, gamma: float, step: float) -> None:
    """One minibatch of Q-learning, in place: Q(s, a) towards r + gamma·(1 - term)·max_a' Q(s', a').

    Args:
        q: (S, A), C order.
        batch: The minibatch.
        gamma: Discount.
        step: Of `move`.
    """
    target = batch.reward + gamma * np.where(batch.terminated, 0.0, q[batch.following].max(axis=1))
    move(q.reshape(-1), batch.state * q.shape[1] + batch.action, target, step)


def iterate(q: Array, past: Transitions, *, gamma: float, accuracy: float, sweeps: int) -> int:
    """Q-iteration, in place, on what transitions tell of the world, until Q is the fixed point up to `accuracy`.

    The world's model is the mean reward and the frequencies of successors of each pair (s, a) in `past`; pairs that are not in
    it keep their values. A sweep that changes nothing by more than accuracy·(1 - gamma)/gamma leaves Q within `accuracy`.

    Args:
        q: (S, A), C order.
        past: The transitions, at least one.
        gamma: Discount; with 1 it goes on until nothing changes by more than `accuracy`.
        accuracy: ε [reward units], above 0.
        sweeps: The most that are taken.

    Returns:
        How many were taken.
    """
    pairs, inverse, count = np.unique(past.state * q.shape[1] + past.action, return_inverse=True, return_counts=True)
    reward = np.bincount(inverse, past.reward) / count
    goes_on = np.where(past.terminated, 0.0, gamma) / count[inverse]
    seen, following = np.unique(past.following, return_inverse=True)
    onward = sparse.csr_array((goes_on, (inverse, following)), shape=(len(pairs), len(seen)))
    flat = q.reshape(-1)
    enough = accuracy * (1.0 - gamma) / gamma if 0.0 < gamma < 1.0 else accuracy
    for sweep in range(1, sweeps + 1):
        improved = reward + onward @ q[seen].max(axis=1)
        change = float(np.abs(improved - flat[pairs]).max())
        flat[pairs] = improved
        if change <= enough:
            return sweep
    return sweeps


def sweeps_needed(accuracy: float, reward_bound: float, gamma: float) -> int:
    """How many sweeps of Q-iteration bring any table within ±R/(1 - gamma) to within `accuracy` of the fixed point.

    Args:
        accuracy: ε [reward units], above 0.
        reward_bound: R, no reward is larger in size.
        gamma: Discount, in (0, 1).

    Returns:
        The least t with t ≥ [log((1 - gamma)·ε) - log(2R + 2ε)]/log gamma.

    Source:
        Su et al. 2022 (MA2QL), the condition of the convergence theorem.

    Example:
        >>> sweeps_needed(0.1, 5.0, 0.99), sweeps_needed(0.1, 5.0, 0.9)
        (919, 66)
    """
    return math.ceil((math.log((1.0 - gamma) * accuracy) - math.log(2.0 * (reward_bound + accuracy))) / math.log(gamma))


class IdealQ(Stateful):
    """I2Q's tables: Q(s, a), the successors that have been seen, and Q_ss(s, s'), what they are worth.

    Args:
        q: Q at the start, (S, A), C order; changed in place.
        draw: For the values that Q_ss starts from, U(-½, ½) as the paper's games have it.
    """

    STATE = _IDEAL_TABLES

    def __init__(self, q: Array, draw: np.random.Generator) -> None:
        self.q = q
        self._draw = draw
        self._degree = np.zeros(len(q), np.intp)  # successors known of each row
        self._next = np.zeros((len(q), 0), np.intp)
        self._reward = np.zeros((len(q), 0))
        self._ends = np.zeros((len(q), 0), np.bool_)
        self._qss = np.zeros((len(q), 0))  # -inf where no successor is known
        self._reached = np.zeros((*q.shape, 0), np.bool_)  # by which own action

    def extend(self, rows: Array) -> None:
        """Add rows of Q, (rows, A), for states that nothing is known of."""
        self.q = np.concatenate((self.q, rows))
        width = self._next.shape[1]
        for name in _BY_ROW:
            old = getattr(self, name)
            setattr(self, name, np.concatenate((old, np.zeros((len(rows), *old.shape[1:]), old.dtype))))
        self._qss = np.concatenate((self._qss, np.full((len(rows), width), -np.inf)))

    def note(self, fresh: Transitions) -> Indices:
        """Remember which successors own actions lead to; of a pair (s, s') the last reward told counts.

        Returns:
            The place of each transition's successor among those of its state, (B,), for `replay`.
        """
        size = len(self.q)
        key = np.unique(fresh.state * size + fresh.following)
        state, following = np.divmod(key, size)
        new = ~((self._next[state] == following[:, None]) & self._known(state)).any(axis=1)
        state, following = state[new], following[new]
        if len(state):
            place = self._degree[state] + np.arange(len(state)) - np.searchsorted(state, state)
            self._widen(int(place.max()) + 1)
            self._next[state, place] = following
            self._qss[state, place] = self._draw.uniform(-0.5, 0.5, len(state))
            np.add.at(self._degree, state, 1)
        found = (self._next[fresh.state] == fresh.following[:, None]) & self._known(fresh.state)
        place = np.asarray(found.argmax(axis=1), np.intp)
        self._reward[fresh.state, place] = fresh.reward
        self._ends[fresh.state, place] = fresh.terminated
        self._reached[fresh.state, fresh.action, place] = True
        return place

    def replay(self, batch: Transitions, place: Indices, *, gamma: float, step: float) -> None:
        """One minibatch, of transitions that have been noted.

        Q_ss(s, s') goes towards r + gamma·(1 - term)·max_s'' Q_ss(s', s'') over the successors known of s', if any are; then
        Q(s, a) towards r(s, s'*) + gamma·(1 - term)·max_a' Q(s'*, a'), where s'* is the best successor known of (s, a).

        Args:
            batch: The minibatch.
            place: What `note` said of it, (B,).
            gamma: Discount.
            step: Of `move`.
        """
        state = batch.state
        ripe = batch.terminated | (self._degree[batch.following] > 0)
        best = self._qss[batch.following].max(axis=1)
        target = batch.reward + gamma * np.where(batch.terminated, 0.0, best)
        move(self._qss.reshape(-1), (state * self._qss.shape[1] + place)[ripe], target[ripe], step)
        ideal = np.where(self._reached[state, batch.action], self._qss[state], -np.inf).argmax(axis=1)
        onward = np.where(self._ends[state, ideal], 0.0, self.q[self._next[state, ideal]].max(axis=1))
        target = self._reward[state, ideal] + gamma * onward
        move(self.q.reshape(-1), state * self.q.shape[1] + batch.action, target, step)

    def best_successor_values(self) -> Array:
        """max_s' Q_ss(s, s') of every row, (S,); -inf where no successor is known."""
        return np.asarray(self._qss.max(axis=1, initial=-np.inf), np.float64)

    def _known(self, state: Indices) -> Bools:
        """Which of the places of some rows are taken, (B, W)."""
        return np.arange(self._next.shape[1]) < self._degree[state][:, None]

    def _widen(self, width: int) -> None:
        """Make room for `width` successors of every row."""
        size, old = self._next.shape
        if width <= old:
            return
        more = (size, width - old)
        self._next = np.concatenate((self._next, np.zeros(more, np.intp)), axis=1)
        self._reward = np.concatenate((self._reward, np.zeros(more)), axis=1)
        self._ends = np.concatenate((self._ends, np.zeros(more, np.bool_)), axis=1)
        self._qss = np.concatenate((self._qss, np.full(more, -np.inf)), axis=1)
        self._reached = np.concatenate((self._reached, np.zeros((*self.q.shape, width - old), np.bool_)), axis=2)
