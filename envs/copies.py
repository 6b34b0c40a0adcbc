"""What worlds that compute with numpy share: a random stream and a running episode per copy, numbers drawn ahead, their state."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from envs.episodes import Episodes
from envs.interface import EnvSpec, Floats
from topology.snapshot import Stateful


class Copies(Stateful):
    """E copies of a world, but for its physics: a world derives from it and has `step`, `_restart` and `_observe`.

    A world names what else its steps depend on in `STATE`.

    Args:
        spec: Shape of the world.
        num_envs: E.
        seed: Root of the copies' random streams.
    """

    STATE: ClassVar[tuple[str, ...]] = ("_rngs", "_episodes")

    def __init__(self, spec: EnvSpec, num_envs: int, seed: int) -> None:
        self.spec = spec
        self.num_envs = num_envs
        self._rngs = [np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(num_envs)]
        self._episodes = Episodes(
            num_envs, spec.horizon, restart=self._restart, observe=self._observe, n_costs=spec.n_costs, measures=spec.measures
        )

    def reset(self, limits: Sequence[int] | None = None) -> list[Floats]:
        """See `VecEnv.reset`."""
        return self._episodes.begin(limits)

    def close(self) -> None:
        """Nothing to release."""

    def _restart(self, ids: NDArray[np.intp]) -> None:
        """Begin an episode in the copies given by index."""
        raise NotImplementedError

    def _observe(self) -> list[Floats]:
        """Per agent the observation of all copies, (E, d_i), in memory of its own."""
        raise NotImplementedError


class Ahead(Stateful):
    """Random numbers of every step, of which each copy's stream draws a block of steps at a time: one call draws many.

    Args:
        rngs: The copies' streams.
        shape: Of one step's numbers of one copy.
        draw: Fills an array (steps, *shape) from a stream.
        steps: Steps in a block.
        dtype: Of the numbers.
    """

    STATE: ClassVar[tuple[str, ...]] = ("_block", "_used")

    def __init__(
        self,
        rngs: Sequence[np.random.Generator],
        shape: tuple[int, ...],
        draw: Callable[[np.random.Generator, NDArray[Any]], object],
        *,
        steps: int,
        dtype: DTypeLike = np.float64,
    ) -> None:
        self._rngs, self._draw, self._steps = rngs, draw, steps
        self._block: NDArray[Any] = np.zeros((len(rngs), steps, *shape), dtype)
        self._used = steps

    def step(self) -> NDArray[Any]:
        """The next step's numbers of all copies, (E, *shape); the next call may overwrite them."""
        if self._used == self._steps:
            for rng, block in zip(self._rngs, self._block, strict=True):
                self._draw(rng, block)
            self._used = 0
        self._used += 1
        return self._block[:, self._used - 1]


def uniform(rng: np.random.Generator, out: NDArray[Any]) -> None:
    """Draw from [0, 1)."""
    rng.random(out=out)


def normal(rng: np.random.Generator, out: NDArray[Any]) -> None:
    """Draw from the standard normal distribution."""
    rng.standard_normal(out=out)
