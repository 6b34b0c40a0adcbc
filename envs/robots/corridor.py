"""The folded corridor of the Safe Ant family, as pure functions of positions.

Theory of operation. The corridor runs along +x and turns by 60 degrees at x = 20, 60 and 100, where it goes on straight. A
point's *offset* is its distance from the corridor's middle line measured along y, not perpendicular to it, so in the slanted
legs a perpendicular distance is cos 30° times as long. The cost knows only the two lines at offset ±h; the boxes of
`wall_poses` are what a robot can bump into.

Source: chauncygu/Safe-Multi-Agent-Mujoco, the environments of Ant and ManyAgent Ant (read, not copied).
"""

import math

import numpy as np
from numpy.typing import NDArray

SLOPE = math.tan(math.radians(30.0))
CLEARANCE = 1.8  # m along y: nearer than this to a line costs
WALL_HALF_SIZE = (20.0, 0.01, 0.7)  # m
WALL_DENSITY = 1e-6  # kg/m³: a wall of 1.12 mg, knocked over by a touch
FREE_HEIGHT = 1.0  # m: free walls are dropped from here, as in the public code
STATIC_HEIGHT = 0.72  # m: where a dropped wall comes to rest, so that welded ones stand on the floor


def offset(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Signed distance from the middle line, measured along y.

    The middle line is the polygon through (0, 0), (20, 20 tan 30°), (60, -20 tan 30°), (100, 20 tan 30°), constant beyond x =
    100 and continued straight for x < 0.

    Args:
        x: Positions along the corridor [m], any shape.
        y: Positions across [m], same shape.

    Returns:
        y_off [m], same shape.

    Source:
        As the public code, but continuous at x = 60, where that code's strict comparisons fall through to its last case for
        exactly that one number.

    Example:
        >>> offset(np.array([0.0, 40.0, 120.0]), np.array([1.0, 1.0, 1.0])).round(3).tolist()
        [1.0, 1.0, -10.547]
    """
    # a triangle wave: |((x - 20) mod 80) - 40| falls from 40 at x = 20 to 0 at x = 60 and is back at 40 from x = 100 on
    fold = np.minimum(x, 100.0)
    middle = np.where(fold < 20.0, fold, np.abs(np.mod(fold - 20.0, 80.0) - 40.0) - 20.0)
    return np.asarray(y - SLOPE * middle)


def near_line(y_off: NDArray[np.float64], half_width: float) -> NDArray[np.bool_]:
    """Whether a point is nearer than 1.8 m to one of the two lines at ±half_width.

    Args:
        y_off: Offsets [m], any shape.
        half_width: h [m].

    Returns:
        True where h - 1.8 < |y_off| < h + 1.8; outside the corridor altogether is free again.

    Example:
        >>> near_line(np.array([3.19, 3.21, -6.79, 6.81]), 5.0).tolist()
        [False, True, True, False]
    """
    return np.abs(np.abs(y_off) - half_width) < CLEARANCE


def wall_poses(half_width: float, count: int = 6) -> list[tuple[float, float, float]]:
    """Where the wall boxes stand: (x, y, yaw) of the first `count` of six.

    Args:
        half_width: h [m].
        count: How many, 0..6; two per straight piece.

    Returns:
        Centres [m] and yaws [rad], the left wall (y > 0) of each piece first.

    Example:
        >>> [(x, y) for x, y, _ in wall_poses(5.0, 3)]
        [(0.0, 5.0), (0.0, -5.0), (40.0, 5.0)]
    """
    pieces = ((0.0, 1.0), (40.0, -1.0), (80.0, 1.0))
    return [(x, side * half_width, turn * math.radians(30.0)) for x, turn in pieces for side in (1.0, -1.0)][:count]
