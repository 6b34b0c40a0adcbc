"""Corridor geometry, costs and ends, on lines of numbers."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.robots.corridor import near_line, offset, wall_poses
from envs.robots.rules import (
    MIN_UPRIGHT,
    CorridorRule,
    FreePosture,
    GapRule,
    PlanarPosture,
    SpeedRule,
    Step,
    capped_contact_price,
    contact_price,
    obstacle_drive,
)

T30 = 1.0 / math.sqrt(3.0)


def off(x: float, y: float = 0.0) -> float:
    return float(offset(np.array([x]), np.array([y]))[0])


def standing(x: float, y: float = 0.0, obstacle: float | None = None, x0: float | None = None, y0: float | None = None) -> Step:
    one = np.ones(1)
    return Step(
        x0=(x if x0 is None else x0) * one, y0=(y if y0 is None else y0) * one, x=x * one, y=y * one, time=0 * one, dt=0.05,
        obstacle=None if obstacle is None else obstacle * one,
    )  # fmt: skip


def test_middle_line_folds_at_20_60_and_100(subtests: pytest.Subtests) -> None:
    rows: list[tuple[int, int]] = [
        (-10, -10),
        (0, 0),
        (10, 10),
        (20, 20),
        (30, 10),
        (40, 0),
        (50, -10),
        (60, -20),
        (70, -10),
        (80, 0),
        (100, 20),
        (120, 20),
        (500, 20),
    ]
    for x, middle in rows:
        with subtests.test(x=x):
            assert off(float(x), middle * T30) == pytest.approx(0.0, abs=1e-12)


@given(st.floats(-50, 200), st.floats(0, 1e-3))
def test_offset_is_continuous(x: float, step: float) -> None:
    assert abs(off(x + step) - off(x)) <= T30 * step + 1e-9


def test_cost_band(subtests: pytest.Subtests) -> None:
    for middle_at in ((0.0, 0.0), (40.0, 0.0), (120.0, 20 * T30)):
        for side in (1.0, -1.0):
            for half_width, band in ((5.0, (3.2, 6.8)), (4.5, (2.7, 6.3))):
                with subtests.test(middle_at=middle_at, side=side, half_width=half_width):
                    x, middle = middle_at
                    rule = CorridorRule(half_width)
                    places = [edge + nudge for edge in band for nudge in (-0.01, 0.01)]
                    costs = [bool(rule.cost(standing(x, middle + side * y))[0]) for y in places]
                    assert costs == [False, True, True, False]


def test_middle_of_the_corridor_and_far_outside_are_free() -> None:
    assert not near_line(np.array([0.0, 100.0, -7.0]), 5.0).any()


def test_walls_stand_on_the_lines() -> None:
    for x, y, yaw in wall_poses(5.0):
        for along in (-17.0, 0.0, 17.0):  # walls cross the folds a little, as the public ones do
            assert abs(off(x + along * math.cos(yaw), y + along * math.sin(yaw))) == pytest.approx(5.0, abs=1e-9)


def test_gap_counts_along_x_in_front_and_behind() -> None:
    rule = GapRule()
    costs = [bool(rule.cost(standing(x, obstacle=0.0))[0]) for x in (0.99, 1.01, 18.99, 19.01)]
    assert costs == [False, True, True, False]


def test_gap_is_sensed_in_tens_of_metres_and_clipped() -> None:
    _, near = GapRule().sense(standing(0.0, obstacle=0.0))
    _, far = GapRule().sense(standing(-200.0, obstacle=0.0))
    assert (near[0], far[0]) == (1.0, 5.0)


def test_speed_is_horizontal_displacement_per_period() -> None:
    rule = SpeedRule(2.5)
    assert not rule.cost(standing(0.12, x0=0.0))[0]  # 2.4 m/s
    assert rule.cost(standing(0.12, x0=0.0, y=0.05, y0=0.0))[0]  # 2.6 m/s
    assert rule.cost(standing(-0.13, x0=0.0))[0]


def test_obstacle_is_driven_with_a_period_of_three_pi_seconds() -> None:
    time = np.linspace(0, 3 * math.pi, 1001)
    drive = obstacle_drive(time)
    assert 120 * drive.min() == pytest.approx(-0.48)
    assert 120 * drive.max() == pytest.approx(1.92, rel=1e-4)
    np.testing.assert_allclose(obstacle_drive(time + 3 * math.pi), drive, atol=1e-12)


def test_ant_is_healthy_between_two_heights_and_not_on_its_back(subtests: pytest.Subtests) -> None:
    rows: list[tuple[float, float, bool]] = [
        (0.2, 0.0, True),
        (0.19, 0.0, False),
        (1.0, 0.0, True),
        (1.01, 0.0, False),
        (0.5, 134.0, True),
        (0.5, 135.0, False),
        (math.nan, 0.0, False),
    ]
    for z, tilt, fine in rows:
        with subtests.test(z=z):
            half = math.sin(math.radians(tilt) / 2)  # cos 134° = -0.695, cos 135° = -0.707
            posture, qvel = FreePosture((0.2, 1.0), MIN_UPRIGHT), np.zeros((1, 6))
            assert bool(posture.kept(np.array([[0, 0, z, 0, half, 0, 0]], float), qvel)[0]) is fine
            assert bool(posture.kept(np.array([[0, 0, z, 0, 0, half, 0]], float), qvel)[0]) is fine


def test_hopper_stands_high_straight_and_bounded(subtests: pytest.Subtests) -> None:
    rows: list[tuple[float, float, float, float, bool]] = [
        (1.2, 0.0, 0.0, 0.0, True),
        (0.69, 0.0, 0.0, 0.0, False),
        (9.0, -0.19, 0.0, 0.0, True),
        (1.2, 0.21, 0.0, 0.0, False),
        (1.2, 0.0, -101.0, 0.0, False),
        (1.2, 0.0, 0.0, 101.0, False),
        (1.2, math.nan, 0.0, 0.0, False),
    ]
    for z, pitch, joint, speed, fine in rows:
        with subtests.test(z=z):
            posture = PlanarPosture((0.7, math.inf), 0.2, bound=100.0)
            qpos, qvel = np.array([[500.0, z, pitch, joint]]), np.array([[0.0, 0.0, speed]])
            assert bool(posture.kept(qpos, qvel)[0]) is fine


def test_contact_forces_are_clipped_before_squaring() -> None:
    forces = np.zeros((2, 3, 6))
    forces[0, 1, 2], forces[0, 2, 5] = -50.0, 0.5
    np.testing.assert_allclose(contact_price(forces), [5e-4 * 1.25, 0.0])


def test_humanoids_contact_price_is_capped_and_not_clipped() -> None:
    forces = np.zeros((2, 3, 6))
    forces[0, 1, 2], forces[1, 0, 0] = -1000.0, 1e6
    np.testing.assert_allclose(capped_contact_price(forces), [0.5, 10.0])
