"""One round's samples of one agent, as they were when it acted.

Shapes: T steps, E copies, D columns of observation, A action dimensions, m costs. A *cut* is a step whose successor is not in
the buffer but still has a value: a step at which the time limit ended an episode, or the last step of the rollout if
the episode goes on.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from topology.planes.world import END_FAULT, END_NONE, END_TERMINATED, END_TRUNCATED, Sense

Floats = NDArray[np.float32]


@dataclass(slots=True)
class Rollout:
    """The buffer; `make` sizes it, the runtime fills it step by step.

    Attributes:
        observation: (T, E, D) everything seen.
        action: (T, E, A) as sent, unclipped.
        reward: (T, E).
        cost: (T, E, m).
        terminated: (T, E), by faults of the simulation too.
        truncated: (T, E).
        cut_blocks: Own observation before the restart, per step at which an episode was cut short or the rollout ended:
            (E, d).
        cut_observation: (number of cuts, D), the observation at each of `cuts()`.
        faults: (E,) where a fault of the simulation ended an episode, per step at which one did.
    """

    observation: Floats
    action: Floats
    reward: Floats
    cost: Floats
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    cut_blocks: dict[int, Floats] = field(default_factory=dict)
    cut_observation: Floats = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    faults: dict[int, NDArray[np.bool_]] = field(default_factory=dict)

    @classmethod
    def make(cls, steps: int, copies: int, width: int, act_dim: int, n_costs: int) -> "Rollout":
        """An empty buffer for T = steps and E = copies."""
        return cls(
            observation=np.zeros((steps, copies, width), np.float32),
            action=np.zeros((steps, copies, act_dim), np.float32),
            reward=np.zeros((steps, copies), np.float32),
            cost=np.zeros((steps, copies, n_costs), np.float32),
            terminated=np.zeros((steps, copies), np.bool_),
            truncated=np.zeros((steps, copies), np.bool_),
        )

    def record_outcome(self, step: int, sense: Sense) -> None:
        """Store what the world sends of `step`, which comes with the observation that follows it."""
        self.reward[step] = sense.reward
        self.cost[step] = sense.cost
        if sense.final_obs is not None:
            faults = sense.end == END_FAULT
            self.terminated[step] = (sense.end == END_TERMINATED) | faults
            if faults.any():
                self.faults[step] = faults
            self.truncated[step] = sense.end == END_TRUNCATED
            self.cut_blocks[step] = np.where((sense.end != END_NONE)[:, None], sense.final_obs, sense.obs)
        elif step == len(self.reward) - 1:
            self.cut_blocks[step] = sense.obs

    def cuts(self) -> NDArray[np.intp]:
        """(number of cuts, 2): step and copy of every cut, by step, then copy. The same for every agent."""
        cut = self.truncated.copy()
        cut[-1] |= ~self.terminated[-1]
        return np.argwhere(cut)

    def own_ends(self, presence: int | None) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Where the agent's own episode terminated, and where a limit of time ended it, (T, E) each.

        Args:
            presence: Column of the observation that tells whether the agent takes part, the last of its own; None: its episodes
                are those of the copies.
        """
        if presence is None:
            return self.terminated, self.truncated
        after = np.concatenate((self.observation[1:, :, presence], self.observation[-1:, :, presence]))
        for step, block in self.cut_blocks.items():
            after[step] = block[:, -1]
        there = self.observation[:, :, presence] == 1.0
        terminated = there & (self.terminated | (after == 0.0))
        return terminated, there & ~terminated & (self.truncated | (after < 0.0))

    def own_cut_blocks(self) -> Floats:
        """(number of cuts, d): this agent's own blocks at the cuts, which its peers need too."""
        cuts = self.cuts()
        blocks = np.zeros((len(cuts), self.cut_blocks[len(self.reward) - 1].shape[1]), np.float32)
        for row, (step, copy) in enumerate(cuts):  # none at all if the last step terminated every copy
            blocks[row] = self.cut_blocks[step][copy]
        return blocks

    def following(self) -> Floats:
        """(T, E, D), the observation after every sample, before any restart; where an episode terminated, of no meaning."""
        following = np.concatenate((self.observation[1:], self.observation[-1:]))
        cuts = self.cuts()
        following[cuts[:, 0], cuts[:, 1]] = self.cut_observation
        return following

    def clear(self) -> None:
        """Make ready for the next round."""
        self.cut_blocks.clear()
        self.faults.clear()
        self.terminated[:] = False
        self.truncated[:] = False
