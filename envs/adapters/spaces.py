"""What agents of other packages observe and do, as rows of numbers."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

Row = NDArray[np.float32]
MASK = "action_mask"


@dataclass(frozen=True, slots=True, kw_only=True)
class Senses:
    """One agent's observation: what it observes, then its action mask if it has one, then its presence if that is told.

    Attributes:
        space: Of the observation itself.
        is_masked_dict: Whether the environment wraps it as {"observation", "action_mask"}.
        width: Numbers of the observation itself.
        n_mask: Entries of the action mask, 0: there is none.
    """

    space: spaces.Space[Any]
    is_masked_dict: bool
    width: int
    n_mask: int

    def row(self, observation: Any) -> Row:
        """The observation itself as numbers.

        Raises:
            ValueError: it has another size than its space, or is not finite.
        """
        told = observation.get("observation") if self.is_masked_dict and isinstance(observation, dict) else observation
        try:
            if isinstance(self.space, spaces.Box):
                flat = np.asarray(told, np.float32).reshape(-1)
            else:
                flat = np.asarray(spaces.flatten(self.space, told), np.float32)
        except Exception as error:
            why = f"{type(error).__name__}: {error}"
            raise ValueError(f"observation: got {_shown(told)} ({why}); expected {self.space}") from error
        if len(flat) != self.width:
            raise ValueError(f"observation: got {_shown(told)}; expected {self.space}, {self.width} numbers")
        if not np.isfinite(flat).all():
            raise ValueError(f"observation: got {flat[~np.isfinite(flat)][0]}; expected finite numbers")
        return flat

    def mask(self, observation: Any, info: Any) -> NDArray[np.bool_]:
        """The actions that can be taken.

        Raises:
            ValueError: there is no mask, it has another length, or it allows nothing.
        """
        source = observation if self.is_masked_dict else info
        told = source.get(MASK) if isinstance(source, dict) else None
        mask = np.zeros(0, np.bool_) if told is None else np.asarray(told).reshape(-1).astype(np.bool_)
        if len(mask) != self.n_mask or not mask.any():
            got = "none" if told is None else f"{len(mask)} entries, {int(mask.sum())} of them true"
            raise ValueError(f"action mask: got {got}; expected {self.n_mask} entries at every step, not all false")
        return mask


@dataclass(frozen=True, slots=True, kw_only=True)
class Deeds:
    """One agent's action.

    Attributes:
        n_discrete: How many choices; 0: numbers.
        width: Numbers; 1 where it is a choice.
        start: The first choice's number in the environment.
        low: Where -1 goes, (width,).
        high: Where 1 goes.
        shape: As the environment takes it.
        dtype: Likewise.
    """

    n_discrete: int
    width: int
    start: int
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def of(self, row: Row) -> Any:
        """The environment's action for ours, (width,): a choice, or numbers within ±1 spread over the bounds.

        An open bound stays open: such a number is given as it is.
        """
        if self.n_discrete:
            return self.start + int(row[0])
        is_open = ~np.isfinite(self.low + self.high)
        middle, half = np.where(is_open, 0.0, (self.low + self.high) / 2), np.where(is_open, 1.0, (self.high - self.low) / 2)
        number = np.where(is_open, np.clip(row, self.low, self.high), middle + half * np.clip(row, -1.0, 1.0))
        return number.astype(self.dtype).reshape(self.shape)


def senses(space: spaces.Space[Any], n_choices: int, info: Any, *, flatten: bool, who: str) -> Senses:
    """What an agent observes.

    Args:
        space: Its observation space.
        n_choices: Its discrete actions.
        info: What it was told at a reset, where its mask may be.
        flatten: Whether to lay out images and dictionaries as rows.
        who: The agent, for messages.

    Raises:
        ValueError: the space is no row of numbers, or of a kind that cannot be one.
    """
    is_masked = isinstance(space, spaces.Dict) and set(space.spaces) == {"observation", MASK}
    inner = space["observation"] if is_masked and isinstance(space, spaces.Dict) else space
    is_row = (isinstance(inner, spaces.Box) and len(inner.shape) <= 1) or isinstance(
        inner, spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary
    )
    if not is_row and not flatten:
        what = f"an image, {inner.shape}" if isinstance(inner, spaces.Box) else f"a {type(inner).__name__}"
        raise ValueError(f"env.make: {who} observes {what}; expected a row of numbers (env.flatten=true makes one of it)")
    try:
        width = int(spaces.flatdim(inner))
    except (NotImplementedError, ValueError) as error:
        raise ValueError(f"env.make: {who} observes a {type(inner).__name__}, which has no fixed width ({error})") from None
    has_mask = is_masked or (isinstance(info, dict) and MASK in info)
    if has_mask and not n_choices:
        raise ValueError(f"env.make: {who} has an action mask, but its action is no choice")
    return Senses(space=inner, is_masked_dict=is_masked, width=width, n_mask=n_choices if has_mask else 0)


def deeds(space: spaces.Space[Any], who: str) -> Deeds:
    """What an agent does.

    Raises:
        ValueError: the space is neither a choice nor numbers.
    """
    if isinstance(space, spaces.Discrete):
        none = np.zeros(0)
        return Deeds(
            n_discrete=int(space.n), width=1, start=int(space.start), low=none, high=none, shape=(), dtype=np.dtype(np.int64)
        )
    if isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating):
        low, high = space.low.astype(np.float64).reshape(-1), space.high.astype(np.float64).reshape(-1)
        return Deeds(n_discrete=0, width=len(low), start=0, low=low, high=high, shape=space.shape, dtype=space.dtype)
    raise ValueError(f"env.make: {who} acts in {space}; expected Discrete, or a Box of numbers with a fraction")


def _shown(told: Any) -> str:
    """What was given instead of numbers, in few words."""
    return f"an array {told.shape} of {told.dtype}" if isinstance(told, np.ndarray) else f"{type(told).__name__} {str(told)[:40]}"
