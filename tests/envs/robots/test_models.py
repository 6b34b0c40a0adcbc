"""Sizes, masses and mechanisms of the models."""

from typing import Any

import mujoco  # type: ignore[import-untyped]
import numpy as np
import pytest

from envs.robots import models


def test_sizes(subtests: pytest.Subtests) -> None:
    rows: list[tuple[Any, int, int, int]] = [
        (lambda: models.ant(), 15, 14, 8),
        (lambda: models.ant("static"), 15, 14, 8),
        (lambda: models.ant("free"), 57, 50, 8),
        (lambda: models.half_cheetah(), 10, 10, 7),
        (lambda: models.half_cheetah(obstacle=False), 9, 9, 6),
        (lambda: models.plain("hopper.xml"), 6, 6, 3),
        (lambda: models.plain("walker2d_v5.xml"), 9, 9, 6),
        (lambda: models.plain("humanoid.xml", contacts=True), 24, 23, 17),
        (lambda: models.plain("swimmer.xml"), 5, 5, 2),
        (lambda: models.many_ant(6), 31, 30, 24),
        (lambda: models.many_ant(6, "free"), 45, 42, 24),
        (lambda: models.many_ant(8), 39, 38, 32),
        (lambda: models.many_ant(8, "free"), 53, 50, 32),
    ]
    for build, nq, nv, nu in rows:
        with subtests.test(build=build):
            model = build()
            assert (model.nq, model.nv, model.nu) == (nq, nv, nu)


def test_masses(subtests: pytest.Subtests) -> None:
    rows: list[tuple[Any, float]] = [
        (lambda: models.ant(), 0.9109),
        (lambda: models.half_cheetah(), 14.0),
        (lambda: models.many_ant(6), 19.47),
        (lambda: models.many_ant(8), 27.14),
    ]
    for build, mass in rows:
        with subtests.test(build=build):
            assert build().body_mass.sum() == pytest.approx(mass, abs=6e-3 if mass > 15 else 5e-5)


def test_obstacle_is_light_and_damped() -> None:
    model = models.half_cheetah()
    assert model.body("obstacle").mass[0] == pytest.approx(1.58e-4, rel=1e-3)
    assert model.joint("obstacle").damping[0] == 0.2
    assert model.joint("obstacle").stiffness[0] == 0.0
    assert model.actuator("obstacle").gear[0] == 120.0


@pytest.mark.parametrize(("walls", "mass"), [("free", 1.12e-6), ("static", 1.12e-6)])
def test_walls_weigh_a_milligram(walls: models.Walls, mass: float) -> None:
    assert models.ant(walls).body("wall0").mass[0] == pytest.approx(mass)


def test_limits_and_motors_of_the_many_legged_ant() -> None:
    model = models.many_ant(6)
    assert np.degrees(model.joint("hip2_3").range) == pytest.approx([-30, 30])
    assert np.degrees(model.joint("ankle1_0").range) == pytest.approx([30, 70])
    assert np.degrees(model.joint("ankle1_4").range) == pytest.approx([-70, -30])
    assert [model.joint(model.actuator_trnid[k, 0]).name for k in range(4)] == ["hip1_0", "ankle1_0", "hip2_0", "ankle2_0"]
    assert (model.actuator_gear[:, 0] == 150).all()
    assert model.opt.integrator == mujoco.mjtIntegrator.mjINT_RK4
    assert model.opt.timestep == 0.005


def test_many_legged_ant_stands_mirrored_and_in_line() -> None:
    model = models.many_ant(6)
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    for s in range(6):
        left, right = data.body(f"shin1_{s}").xpos, data.body(f"shin2_{s}").xpos
        np.testing.assert_allclose(left * [1, -1, 1], right, atol=1e-12)
        assert data.body(f"torso_{s}").xpos[0] == pytest.approx(-s)


def test_bent_legs_of_the_many_legged_ant_reach_down() -> None:
    model = models.many_ant(8)
    data = mujoco.MjData(model)
    for s in range(8):
        for leg in (1, 2):
            ankle = model.joint(f"ankle{leg}_{s}")
            data.qpos[ankle.qposadr[0]] = ankle.range.mean()
    mujoco.mj_kinematics(model, data)
    for s in range(8):
        for leg in (1, 2):
            shin = model.body(f"shin{leg}_{s}")
            drop = data.xpos[shin.id, 2] - data.geom_xpos[shin.geomadr[0], 2]
            assert drop == pytest.approx(np.hypot(0.2, 0.2) * np.sin(np.radians(50)), rel=1e-6)


@pytest.mark.parametrize(("walls", "height", "upright"), [("free", 0.72, 1.0), ("static", 0.72, 1.0)])
def test_walls_come_to_stand(walls: models.Walls, height: float, upright: float) -> None:
    model = models.ant(walls)
    data = mujoco.MjData(model)
    for _ in range(100):
        mujoco.mj_step(model, data)
    for k in range(6):
        assert data.body(f"wall{k}").xpos[2] == pytest.approx(height, abs=0.02)
        assert data.body(f"wall{k}").xmat[8] == pytest.approx(upright, abs=0.01)


@pytest.mark.parametrize("walls", ["none", "static", "free"])
def test_static_walls_confine_and_free_ones_topple(walls: models.Walls) -> None:
    model = models.ant(walls)
    data = mujoco.MjData(model)
    mujoco.mj_step(model, data, 100)
    data.joint("root").qpos[:2] = [0.0, 3.5]
    data.joint("root").qvel[:] = [0, 5, 2, 0, 0, 0]
    least = 1.0
    for _ in range(200):
        mujoco.mj_step(model, data)
        least = min(least, data.body("wall0").xmat[8]) if walls != "none" else least
    reached = data.joint("root").qpos[1]
    assert (reached < 5.0) == (walls == "static"), reached
    assert (least < 0.7) == (walls == "free"), least


def test_contact_forces_are_filled_without_asking() -> None:
    model = models.ant()
    data = mujoco.MjData(model)
    mujoco.mj_step(model, data, 100)
    assert np.abs(data.cfrc_ext).max() > 0.1
