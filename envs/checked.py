"""A world from outside, watched: an error about a value that no agent could use names world, agent, step and what was expected.

Theory of operation. Our own worlds are held to the contract by tests (`envs.contract`). A world of a package or a program may be
wrong in its first step or after an hour, and a number that is not finite or an array of another shape would be found far from its
cause. So `Checked` looks at everything that such a world returns before any other part does. It costs some microseconds
per agent and step, which our own worlds do not pay.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.interface import EnvSpec, Floats, Transition, VecEnv
from topology.snapshot import State

_PARTS = ("spec", "num_envs", "reset", "step", "state", "restore", "close")


class WorldError(ValueError):
    """What is wrong with what a world gave; the text names world, agent, step and what was expected."""


class Checked:
    """A world whose answers are checked.

    Args:
        name: What scenarios call it.
        world: The world.
        spec: What it said of itself before it was built.
        copies: E.

    Raises:
        WorldError: the world is not the one that its spec describes.
    """

    def __init__(self, name: str, world: VecEnv, spec: EnvSpec, copies: int) -> None:
        self._name = name
        self._world = world
        self._step = 0
        self.spec = spec
        self.num_envs = copies
        if not isinstance(world, VecEnv):
            lacks = [part for part in _PARTS if not hasattr(world, part)]
            raise WorldError(f"world {name!r}: make gave {type(world).__name__} without {', '.join(lacks)}; expected a VecEnv")
        for what, got, expected in (("spec", world.spec, spec), ("num_envs", world.num_envs, copies)):
            if got != expected:
                raise WorldError(f"world {name!r}: {what}: got {got}; expected {expected}, as before it was built")

    def __getattr__(self, name: str) -> Any:
        """What a baseline or a film may want of the world itself."""
        return getattr(self._world, name)

    def reset(self, limits: Sequence[int] | None = None) -> list[Floats]:
        """See `VecEnv.reset`."""
        self._step = 0
        try:
            obs = self._world.reset(limits)
        except Exception as error:
            raise self._raised("reset", error) from error
        self._check_agents("observation", obs)
        return obs

    def step(self, actions: Sequence[Floats]) -> Transition:
        """See `VecEnv.step`."""
        self._step += 1
        try:
            found = self._world.step(actions)
        except Exception as error:
            raise self._raised("step", error) from error
        self._check(found)
        return found

    def frame(self, copy: int) -> NDArray[np.uint8]:
        """See `Drawable.frame`."""
        try:
            picture = self._world.frame(copy)  # type: ignore[attr-defined]  # its `World.drawable` says so
        except Exception as error:
            raise self._raised("frame", error) from error
        return checked_frame(picture, self._place(None))

    def state(self) -> State:
        """See `VecEnv.state`."""
        try:
            return {"step": self._step, "world": self._world.state()}
        except Exception as error:
            raise self._raised("state", error) from error

    def restore(self, state: State) -> None:
        """See `VecEnv.restore`."""
        self._step = state["step"]
        try:
            self._world.restore(state["world"])
        except Exception as error:
            raise self._raised("restore", error) from error

    def close(self) -> None:
        """See `VecEnv.close`."""
        self._world.close()

    def _check(self, found: Transition) -> None:
        if not isinstance(found, Transition):
            raise self._wrong("step", type(found).__name__, "an envs.interface.Transition")
        n, e, m = self.spec.n_agents, self.num_envs, self.spec.n_costs
        self._check_agents("observation", found.obs)
        self._check_array("reward", found.reward, (n, e), by_agent=True)
        self._check_array("cost", found.cost, (n, e, m), by_agent=True)
        for name in ("terminated", "truncated", "faults"):
            self._check_array(name, getattr(found, name), (e,), dtype=np.bool_)
        if (both := np.flatnonzero(found.terminated & found.truncated)).size:
            raise self._wrong("truncated", f"copy {both[0]} terminated and truncated", "one of them alone")
        ended = np.flatnonzero(found.terminated | found.truncated).tolist()
        if found.final_obs is not None:
            self._check_agents("final_obs", found.final_obs)
        if (found.final_obs is not None) != bool(ended):
            given = "None" if found.final_obs is None else "observations"
            raise self._wrong(
                "final_obs", f"{given} where {len(ended)} episodes ended", "observations where an episode ended, else None"
            )
        told = [episode.copy for episode in found.episodes]
        if told != ended:
            raise self._wrong("episodes", f"episodes of the copies {told}", f"those that ended, {ended}, ascending")
        for episode in found.episodes:
            if len(episode.cost) != m:
                raise self._wrong("episodes", f"{len(episode.cost)} costs", f"{m}, as cost_limits has")

    def _check_agents(self, what: str, blocks: Sequence[Floats]) -> None:
        if not isinstance(blocks, list) or len(blocks) != self.spec.n_agents:
            got = f"{len(blocks)} blocks" if isinstance(blocks, list) else type(blocks).__name__
            raise self._wrong(what, got, f"a list of {self.spec.n_agents}, one per agent")
        for agent, (block, width) in enumerate(zip(blocks, self.spec.obs_dims, strict=True)):
            self._check_array(what, block, (self.num_envs, width), agent=agent)

    def _check_array(
        self,
        what: str,
        array: NDArray[Any],
        shape: tuple[int, ...],
        *,
        dtype: type[np.generic] = np.float32,
        agent: int | None = None,
        by_agent: bool = False,
    ) -> None:
        if not isinstance(array, np.ndarray):
            raise self._wrong(what, type(array).__name__, f"an array {shape} of {dtype.__name__}", agent)
        if array.shape != shape:
            raise self._wrong(what, f"shape {array.shape}", f"{shape}", agent)
        if array.dtype != dtype:
            raise self._wrong(what, f"{array.dtype}", f"{dtype.__name__}", agent)
        if dtype is np.float32 and not np.isfinite(array).all():
            place = np.argwhere(~np.isfinite(array))[0].tolist()
            whose, copy = (place[0], place[1]) if by_agent else (agent, place[0])
            raise self._wrong(what, f"{array[tuple(place)]} in copy {copy}", "finite numbers", whose)

    def _wrong(self, what: str, got: str, expected: str, agent: int | None = None) -> WorldError:
        return WorldError(f"{self._place(agent)}: {what}: got {got}; expected {expected}")

    def _raised(self, what: str, error: Exception) -> WorldError:
        return WorldError(f"{self._place(None)}: {what} raised {type(error).__name__}: {error}; expected no error")

    def _place(self, agent: int | None) -> str:
        who = "" if agent is None else f", agent {agent}"
        return f"world {self._name!r}{who}, step {self._step}"


def checked_frame(picture: Any, place: str) -> NDArray[np.uint8]:
    """A world's picture.

    Args:
        picture: What it gave.
        place: Which world, and when, for the message.

    Raises:
        WorldError: it is none.
    """
    got = type(picture).__name__
    if isinstance(picture, np.ndarray):
        if picture.ndim == 3 and picture.shape[2] == 3 and picture.dtype == np.uint8 and picture.size:
            return picture
        got = f"{picture.dtype} {picture.shape}"
    raise WorldError(f"{place}: frame: got {got}; expected a picture, uint8 (height, width, 3)")
