"""Differential games: continuous actions, a narrow best place and a broad worse one that invites agents to stay.

Theory of operation. In `ring` the agents' numbers make a point x that they move; what is paid depends on the normalised
distance z from the centre alone: up to 1 in a small disc around it, up to 0.3 on a ring beyond a gap that pays nothing. So the
best a step can pay is 1, at x = 0, and the trap 0.3, at z = 0.8. In `basin` there is no state: two agents each name a number
once, and are paid 10 at (5, 5), on a narrow paraboloid, or 0 at (-5, -5), the top of a wide one.

Sources: ring, Jiang & Lu 2022 (I2Q) and its public code; basin, Su & Lu 2022 (DPO).
"""

from collections.abc import Sequence
from typing import ClassVar

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from envs.copies import Copies
from envs.games.settings import DifferentialGame as Settings
from envs.interface import Bools, EnvSpec, Floats, Transition, World

Array = NDArray[np.float64]
DISC = {1: 0.10, 2: 0.12, 3: 0.25, 4: 0.38, 5: 0.51}  # z at which the centre's pay has fallen to 0, by number of agents
STEP = 0.1  # how far a full action moves its coordinate
RING_EPISODE = 100  # steps
DIVERGED = 1e9  # an action beyond this is a fault; its square still fits float32


def ring(x: Array) -> Array:
    """What the point x pays.

    Args:
        x: (E, n) in [-1, 1].

    Returns:
        (E,), in [0, 1].
    """
    n = x.shape[1]
    z = np.sqrt(2.0 / n * np.sum(x * x, axis=1))
    centre = 0.5 * (np.cos(np.pi * z / DISC[n]) + 1.0)
    beyond = 0.15 * (np.cos(15.0 * (z - 0.8)) + 1.0)
    return np.select([z < DISC[n], (z >= 0.6) & (z < 1.0)], [centre, beyond], 0.0)


def basin(u: Array) -> Array:
    """What two named numbers pay.

    Args:
        u: (E, 2).

    Returns:
        (E,), at most 10.
    """
    wide = -0.8 * np.sum(((u + 5.0) / 3.0) ** 2, axis=1)
    narrow = 10.0 - np.sum((u - 5.0) ** 2, axis=1)
    return np.asarray(np.maximum(wide, narrow), np.float64)


def spec(env: Settings) -> EnvSpec:
    """Shape of a differential game; without a graph given, `kinematic` means the complete one.

    Args:
        env: The scenario's section.

    Returns:
        No costs; one number named per agent; in the ring one number sensed, or all with `observation: full`; time unit 1.
    """
    moves, n = env.landscape == "ring", env.n_agents
    return EnvSpec(
        obs_dims=(n if moves and env.observation == "full" else 1,) * n,
        act_dims=(1,) * n,
        n_discrete=(0,) * n,
        cost_limits=(),
        horizon=(RING_EPISODE if moves else 1) if env.horizon is None else env.horizon,
        dt=1.0,
        edges=tuple((i, j) for i in range(n) for j in range(i + 1, n)),
    )


class DifferentialGame(Copies):
    """E copies of a differential game.

    Observation: own x_i, or all of x (`full`); in the basin always 1. Action: ring, how far to move, clipped to ±1 and then a
    tenth of it; basin, the number named, not clipped. Reward: the same for all; the ring pays for where the point was before the
    move. Ends: ring, truncation after 100 steps; basin, termination after one; an action that is not finite or beyond 1e9 is
    a fault, terminates and is paid 0. Start: x uniform in [-1, 1]^n.
    """

    STATE: ClassVar[tuple[str, ...]] = ("_x",)

    def __init__(self, env: Settings, graph: nx.Graph, seed: int) -> None:
        """Set up all copies; call `reset` before `step`.

        Args:
            env: The scenario's section.
            graph: Communication graph, which the game does not depend on.
            seed: Root of the copies' random streams.
        """
        super().__init__(spec(env), env.num_envs, seed)
        self._moves = env.landscape == "ring"
        self._full = env.observation == "full"
        self._x = np.ones((env.num_envs, self.spec.n_agents))

    def step(self, actions: Sequence[Floats]) -> Transition:
        """Advance all copies one step under each agent's action, (E, 1)."""
        u = np.concatenate(actions, axis=1, dtype=np.float64)
        faults: Bools = np.any(~(np.abs(u) < DIVERGED), axis=1)
        u[faults] = 0.0
        paid = np.where(faults, 0.0, ring(self._x) if self._moves else basin(u))
        if self._moves:
            self._x = np.clip(self._x + STEP * np.clip(u, -1.0, 1.0), -1.0, 1.0)
        terminated = faults if self._moves else np.ones(self.num_envs, bool)
        reward = np.empty((self.spec.n_agents, self.num_envs), np.float32)
        reward[:] = paid
        return self._episodes.conclude(paid, reward, terminated, faults)

    def _restart(self, ids: NDArray[np.intp]) -> None:
        if self._moves:
            for e in ids:
                self._x[e] = self._rngs[e].uniform(-1.0, 1.0, self._x.shape[1])

    def _observe(self) -> list[Floats]:
        x = self._x.astype(np.float32)
        if self._moves and self._full:
            return [x.copy() for _ in range(x.shape[1])]
        return [column.reshape(-1, 1) for column in np.ascontiguousarray(x.T)]


WORLD: World[Settings] = World(settings=Settings, spec=spec, make=DifferentialGame)
