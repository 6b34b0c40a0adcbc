"""The running episodes of a world without a robot: how old they are, what they have come to, and how a step ends some."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from envs.interface import Bools, Episode, Floats, Measure, Transition
from topology.snapshot import State


class Episodes:
    """One running episode per copy.

    Args:
        copies: E.
        horizon: Steps after which an episode is cut.
        restart: Begins again in the copies given by index.
        observe: Per agent the observation of all copies, (E, d_i), in memory of its own.
        n_costs: m, how many costs the world has.
        measures: The world's own metrics.
    """

    def __init__(
        self,
        copies: int,
        horizon: int,
        *,
        restart: Callable[[NDArray[np.intp]], None],
        observe: Callable[[], list[Floats]],
        n_costs: int = 0,
        measures: Sequence[Measure] = (),
    ) -> None:
        self._horizon = horizon
        self._restart = restart
        self._observe = observe
        self._age = np.zeros(copies, np.int64)
        self._limit = np.full(copies, horizon, np.int64)
        self._ret = np.zeros(copies)
        self._cost = np.zeros((copies, n_costs))
        self._is_mean = np.array([not measure.is_sum for measure in measures], bool)
        self._measured = np.zeros((copies, len(measures)))

    @property
    def age(self) -> NDArray[np.int64]:
        """Steps that each copy's episode has made, (E,)."""
        return self._age

    def begin(self, limits: Sequence[int] | None = None) -> list[Floats]:
        """Start every copy, with limits as `VecEnv.reset` takes them; the first observations."""
        self._begin(np.arange(len(self._age)))
        if limits is not None:
            self._limit[:] = limits
        return self._observe()

    def conclude(
        self,
        paid: NDArray[np.float64],
        reward: Floats,
        terminated: Bools,
        faults: Bools,
        *,
        spent: NDArray[np.float64] | None = None,
        cost: Floats | None = None,
        measured: NDArray[np.float64] | None = None,
        cut: Bools | None = None,
    ) -> Transition:
        """What a step that has been made comes to: episodes that are over begin again.

        Args:
            paid: (E,) what the step adds to an episode's return.
            reward: (n, E) what each agent is sent of it.
            terminated: (E,) where the episode reached an end of its own.
            faults: (E,) where the simulation diverged.
            spent: (E, m) what the step adds to an episode's costs; None in a world without.
            cost: (n, E, m) what each agent is sent of them; None in a world without.
            measured: (E, M) the step's value of each measure; None in a world without.
            cut: (E,) where the world itself has run into a limit of time; None: only the horizon ends an episode so.
        """
        self._age += 1
        self._ret += paid
        if spent is not None:
            self._cost += spent
        if measured is not None:
            self._measured += measured
        truncated = (self._age >= self._limit) & ~terminated
        if cut is not None:
            truncated |= cut & ~terminated
        obs = self._observe()
        final: list[Floats] | None = None
        episodes: tuple[Episode, ...] = ()
        ended = np.flatnonzero(terminated | truncated)
        if len(ended):
            episodes = tuple(
                Episode.ended(
                    copy=int(e),
                    ret=float(self._ret[e]),
                    cost=tuple(map(float, self._cost[e])),
                    length=int(self._age[e]),
                    is_whole=bool(self._limit[e] == self._horizon),
                    is_faulty=bool(faults[e]),
                    measures=tuple(map(float, np.where(self._is_mean, self._measured[e] / self._age[e], self._measured[e]))),
                )
                for e in ended
            )
            final = obs
            self._begin(ended)
            obs = self._observe()
        told = np.zeros((*reward.shape, 0), np.float32) if cost is None else cost
        return Transition(
            obs=obs, reward=reward, cost=told, terminated=terminated.copy(), truncated=truncated, final_obs=final,
            episodes=episodes, faults=faults,
        )  # fmt: skip

    def state(self) -> State:
        """Age, limit, return, costs and measures of every copy's episode."""
        return {
            "age": self._age.copy(), "limit": self._limit.copy(), "ret": self._ret.copy(), "cost": self._cost.copy(),
            "measured": self._measured.copy(),
        }  # fmt: skip

    def restore(self, state: State) -> None:
        """Take the episodes of a world made alike."""
        self._age, self._limit, self._ret, self._cost = state["age"], state["limit"], state["ret"], state["cost"]
        self._measured = state["measured"]

    def _begin(self, ids: NDArray[np.intp]) -> None:
        self._restart(ids)
        self._age[ids] = 0
        self._limit[ids] = self._horizon
        self._ret[ids] = 0.0
        self._cost[ids] = 0.0
        self._measured[ids] = 0.0


def dealt(own: NDArray[np.float64], is_local: bool) -> Floats:
    """What each agent is sent of the agents' own rewards or costs: its own, or the mean over all.

    Args:
        own: (E, n).
        is_local: Whether it is its own.

    Returns:
        (n, E).
    """
    told = np.empty(own.shape[::-1], np.float32)
    told[:] = own.T if is_local else own.mean(axis=1)
    return told
