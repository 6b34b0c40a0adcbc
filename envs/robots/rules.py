"""What a robot is paid and charged for, and when its episode ends: plain functions of arrays over copies.

Theory of operation. A *rule* is the part of a task that is about safety: it charges a cost, adds numbers to the observation and
may drive an obstacle. Three rules exist: stay off the corridor's lines (`CorridorRule`), keep a gap to a moving obstacle
(`GapRule`, and `PairGapRule` for two bodies), do not run too fast (`SpeedRule`); tasks without cost have `NoRule`, or
`TiedRule`. A *posture* says when an episode may go on. A rule sees a `Step`, which holds positions only, a posture the
coordinates; neither knows MuJoCo, so each can be tested with a line of numbers.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from envs.robots.corridor import near_line, offset

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

MIN_UPRIGHT = -0.7  # R_zz: lower means the ant lies on its back
CONTACT_CAP = 10.0  # what a humanoid's contacts cost at most per step
OBSTACLE_START = 10.0  # m: world x of the obstacle when its joint is at 0


@dataclass(slots=True, kw_only=True)
class Step:
    """One control period of all copies, or the start of an episode (then before equals after).

    Attributes:
        x0: The robot's x before [m], (E,): its torso's, or its mass centre's where the task says so.
        y0: The robot's y before [m], (E,).
        x: The robot's x after [m], (E,).
        y: The robot's y after [m], (E,).
        time: Simulated time after [s], (E,).
        dt: Control period [s].
        obstacle: Position of the obstacle's joint after [m], (E,); None without obstacle.
        trunks: x of each body after [m], (E,) each, where the robot is several; x is then their mean.
        tendon: Length [m] and rate [m/s] after of the tendon between them, (E,) each; None without.
    """

    x0: Array
    y0: Array
    x: Array
    y: Array
    time: Array
    dt: float
    obstacle: Array | None = None
    trunks: tuple[Array, ...] = ()
    tendon: tuple[Array, Array] | None = None


@runtime_checkable
class Rule(Protocol):
    """The safety part of a task."""

    extras: ClassVar[tuple[str, ...]]
    charges_falls: ClassVar[bool]

    def cost(self, step: Step) -> Mask:
        """Where the team is charged 1, (E,)."""
        ...

    def cost_at(self, x: Array, y: Array) -> Mask | None:
        """Where a body at (x, y), (E, P), would be charged; None if this rule is about the whole robot only."""
        ...

    def sense(self, step: Step) -> Sequence[Array]:
        """The numbers named by `extras`, each (E,)."""
        ...


@dataclass(frozen=True, slots=True)
class CorridorRule:
    """Charges a torso, or a foot, nearer than 1.8 m to one of the corridor's lines.

    Attributes:
        half_width: h [m].
    """

    half_width: float
    extras: ClassVar[tuple[str, ...]] = ("x/5", "y_off")
    charges_falls: ClassVar[bool] = True

    def cost(self, step: Step) -> Mask:
        """Where the torso is near a line, (E,)."""
        return near_line(offset(step.x, step.y), self.half_width)

    def cost_at(self, x: Array, y: Array) -> Mask | None:
        """Where the given places are near a line, (E, P)."""
        return near_line(offset(x, y), self.half_width)

    def sense(self, step: Step) -> Sequence[Array]:
        """x/5 and y_off [m]."""
        return step.x / 5.0, offset(step.x, step.y)


@dataclass(frozen=True, slots=True)
class GapRule:
    """Charges a torso nearer than the clearance, along x, to the moving obstacle.

    Attributes:
        clearance: m.
    """

    clearance: float = 9.0
    extras: ClassVar[tuple[str, ...]] = ("u_wall", "gap")
    charges_falls: ClassVar[bool] = False

    def cost(self, step: Step) -> Mask:
        """Where |x_obstacle - x| is below the clearance, (E,)."""
        return np.abs(_gap(step, step.x)) < self.clearance

    def cost_at(self, x: Array, y: Array) -> Mask | None:
        """None: the obstacle is wider than the robot is long, feet do not matter."""
        return None

    def sense(self, step: Step) -> Sequence[Array]:
        """The obstacle's control now and the gap in tens of metres, clipped to ±5."""
        return obstacle_drive(step.time), np.clip(_gap(step, step.x) / 10.0, -5.0, 5.0)


@dataclass(frozen=True, slots=True)
class PairGapRule:
    """Charges a pair of bodies of which at least one is nearer than the clearance, along x, to the moving obstacle.

    Attributes:
        clearance: m.
    """

    clearance: float = 9.0
    extras: ClassVar[tuple[str, ...]] = ("u_wall", "first_gap", "second_gap", "tendon", "tendon_rate")
    charges_falls: ClassVar[bool] = False

    def cost(self, step: Step) -> Mask:
        """Where any body's |x_obstacle - x| is below the clearance, (E,)."""
        return np.asarray(np.any([np.abs(_gap(step, x)) < self.clearance for x in step.trunks or (step.x,)], axis=0))

    def cost_at(self, x: Array, y: Array) -> Mask | None:
        """None: bodies are charged as wholes."""
        return None

    def sense(self, step: Step) -> Sequence[Array]:
        """The obstacle's control now, each body's gap in tens of metres, clipped to ±5, and the tendon [m, m/s]."""
        gaps = (np.clip(_gap(step, x) / 10.0, -5.0, 5.0) for x in step.trunks)
        return (obstacle_drive(step.time), *gaps, *_tendon(step))


@dataclass(frozen=True, slots=True)
class SpeedRule:
    """Charges a torso whose mean horizontal speed over the control period is above the limit.

    Attributes:
        limit: m/s.
    """

    limit: float
    extras: ClassVar[tuple[str, ...]] = ()
    charges_falls: ClassVar[bool] = False

    def cost(self, step: Step) -> Mask:
        """Where the speed is above the limit, (E,)."""
        return np.hypot(step.x - step.x0, step.y - step.y0) / step.dt > self.limit

    def cost_at(self, x: Array, y: Array) -> Mask | None:
        """None: the speed is the robot's."""
        return None

    def sense(self, step: Step) -> Sequence[Array]:
        """Nothing."""
        return ()


@dataclass(frozen=True, slots=True)
class NoRule:
    """Charges nothing; a task with this rule has no cost at all."""

    extras: ClassVar[tuple[str, ...]] = ()
    charges_falls: ClassVar[bool] = False

    def cost(self, step: Step) -> Mask:
        """Nowhere, (E,)."""
        return np.zeros(len(step.x), bool)

    def cost_at(self, x: Array, y: Array) -> Mask | None:
        """None: there is nothing to be near to."""
        return None

    def sense(self, step: Step) -> Sequence[Array]:
        """Nothing."""
        return ()


@dataclass(frozen=True, slots=True)
class TiedRule(NoRule):
    """Charges nothing; lets a pair of bodies sense the tendon between them."""

    extras: ClassVar[tuple[str, ...]] = ("tendon", "tendon_rate")

    def sense(self, step: Step) -> Sequence[Array]:
        """Length [m] and rate [m/s] of the tendon."""
        return _tendon(step)


@runtime_checkable
class Posture(Protocol):
    """What a robot must keep for its episode to go on."""

    def kept(self, qpos: Array, qvel: Array) -> Mask:
        """Whether the episode goes on, (E,), from coordinates (E, nq) and velocities (E, nv) that begin with the root's."""
        ...


@dataclass(frozen=True, slots=True)
class FreePosture:
    """Of a robot on a free joint (x, y, z, quaternion w, x, y, z): height and how upright.

    Attributes:
        heights: Least and greatest z [m].
        min_upright: Least R_zz = 1 - 2 (q_x² + q_y²); -inf leaves the tilt free.
    """

    heights: tuple[float, float]
    min_upright: float = -math.inf

    def kept(self, qpos: Array, qvel: Array) -> Mask:
        """Whether height and tilt are in range, (E,); False where a number is not finite."""
        z, qx, qy = qpos[:, 2], qpos[:, 4], qpos[:, 5]
        low, high = self.heights
        return np.asarray((z >= low) & (z <= high) & (1.0 - 2.0 * (qx * qx + qy * qy) >= self.min_upright))


@dataclass(frozen=True, slots=True)
class PlanarPosture:
    """Of a robot that moves in a plane (x, z, pitch): height, pitch and a bound on everything but x and z.

    Attributes:
        heights: z lies strictly between these [m].
        pitch: |pitch| is below this [rad].
        bound: |coordinate| and |velocity| are below this [rad, m/s, rad/s].
    """

    heights: tuple[float, float]
    pitch: float
    bound: float = math.inf

    def kept(self, qpos: Array, qvel: Array) -> Mask:
        """Whether all are in range, (E,); False where a number is not finite."""
        z, pitch = qpos[:, 1], qpos[:, 2]
        low, high = self.heights
        bounded = (np.abs(qpos[:, 2:]) < self.bound).all(axis=1) & (np.abs(qvel) < self.bound).all(axis=1)
        return np.asarray((low < z) & (z < high) & (np.abs(pitch) < self.pitch) & bounded)


def _gap(step: Step, x: Array) -> Array:
    assert step.obstacle is not None, "the gap rule needs a robot with an obstacle"
    return OBSTACLE_START + step.obstacle - x


def _tendon(step: Step) -> tuple[Array, Array]:
    assert step.tendon is not None, "this rule needs two bodies tied by a tendon"
    return step.tendon


def obstacle_drive(time: Array) -> Array:
    """Open-loop control of the cheetah's obstacle, u = 0.02 sin²(t/3) - 0.004 (times gear 120 N).

    Args:
        time: Simulated time [s].

    Returns:
        u, dimensionless, same shape.

    Example:
        >>> float(obstacle_drive(np.array(0.0)))
        -0.004
    """
    return np.asarray(0.02 * np.sin(time / 3.0) ** 2 - 0.004, dtype=np.float64)


def contact_price(cfrc_ext: Array) -> Array:
    """5e-4 times the sum of squared contact forces and torques, each clipped to ±1.

    Args:
        cfrc_ext: External wrench on each body [N·m, N], (E, bodies, 6).

    Returns:
        (E,), reward units.
    """
    clipped = np.clip(cfrc_ext, -1.0, 1.0).reshape(len(cfrc_ext), -1)
    return np.asarray(5e-4 * np.einsum("ek,ek->e", clipped, clipped))


def capped_contact_price(cfrc_ext: Array) -> Array:
    """5e-7 times the sum of squared contact forces and torques, at most 10: the humanoid's.

    Args:
        cfrc_ext: External wrench on each body [N·m, N], (E, bodies, 6).

    Returns:
        (E,), reward units.
    """
    flat = cfrc_ext.reshape(len(cfrc_ext), -1)
    return np.asarray(np.minimum(5e-7 * np.einsum("ek,ek->e", flat, flat), CONTACT_CAP))
