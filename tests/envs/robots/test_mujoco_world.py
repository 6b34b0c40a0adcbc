"""The robots' worlds: against plain MuJoCo, gymnasium and published figures."""

import importlib.util
import os
import sys
import types
from pathlib import Path
from typing import Any

import mujoco  # type: ignore[import-untyped]
import networkx as nx
import numpy as np
import pytest

from envs.interface import Floats
from envs.registry import make, section, spec
from envs.robots.mujoco_world import MujocoWorld
from envs.robots.rules import GapRule, Step
from envs.robots.tasks import TASKS


def world_of(seed: int = 0, **settings: Any) -> MujocoWorld:
    env = section(**{"num_envs": 2, "threads": 1, **settings})
    world = make(env, nx.empty_graph(spec(env).n_agents), seed)
    assert isinstance(world, MujocoWorld)
    return world


def random_actions(world: MujocoWorld, rng: np.random.Generator, scale: float = 1.0) -> list[Floats]:
    return [rng.uniform(-scale, scale, (world.num_envs, width)).astype(np.float32) for width in world.spec.act_dims]


def still(world: MujocoWorld) -> list[Floats]:
    return [np.zeros((world.num_envs, width), np.float32) for width in world.spec.act_dims]


def driven(world: MujocoWorld, e: int = 0) -> dict[str, float]:
    """Which control each joint got in the last step."""
    joints = world.model.actuator_trnid[:, 0]
    return {world.model.joint(joint).name: float(control) for joint, control in zip(joints, world.batch.ctrl[e], strict=True)}


# --- physics against a plain loop -----------------------------------------------------------------------------------


@pytest.mark.exact
@pytest.mark.parametrize(
    "settings",
    [
        {"name": "safe_halfcheetah", "partition": "6x1"},
        {"name": "safe_ant", "partition": "4x2"},
        {"name": "safe_ant", "partition": "4x2", "walls": "free"},
        {"name": "safe_manyagent_ant", "partition": "6x1", "walls": "static"},
    ],
    ids=lambda settings: "-".join(settings.values()),
)
@pytest.mark.parametrize("threads", [1, 2])
def test_batch_is_bitwise_a_loop_over_mj_step(settings: dict[str, Any], threads: int) -> None:
    world = world_of(**settings, num_envs=3, threads=threads)
    world.reset()
    data = [mujoco.MjData(world.model) for _ in range(3)]
    for e, d in enumerate(data):
        d.qpos[:], d.qvel[:] = world.batch.qpos[e], world.batch.qvel[e]
    rng = np.random.default_rng(1)
    for _ in range(8):
        out = world.step(random_actions(world, rng))
        assert not out.terminated.any()
        for e, d in enumerate(data):
            d.ctrl[:] = world.batch.ctrl[e]
            mujoco.mj_step(world.model, d, round(world.spec.dt / world.model.opt.timestep))
            assert (d.qpos == world.batch.qpos[e]).all()
            assert (d.qvel == world.batch.qvel[e]).all()


@pytest.mark.exact
def test_state_copied_out_and_in_continues_bitwise() -> None:
    world = world_of(name="safe_ant", partition="8x1")
    world.reset()
    rng = np.random.default_rng(2)
    world.step(random_actions(world, rng))
    saved = world.batch.state.copy()
    actions = [random_actions(world, rng) for _ in range(5)]
    once = [world.step(a).obs for a in actions]
    world.batch.state[:] = saved
    again = [world.step(a).obs for a in actions]
    assert all((x == y).all() for one, two in zip(once, again, strict=True) for x, y in zip(one, two, strict=True))


@pytest.mark.parametrize(
    ("name", "partition", "asset", "hidden"),
    [
        ("velocity_halfcheetah", "6x1", "half_cheetah.xml", 1),
        ("velocity_ant", "4x2", "ant.xml", 2),
        ("safe_ant", "4x2", "ant.xml", 2),
    ],
)
@pytest.mark.filterwarnings("ignore:compiler attribute 'settotalmass'")
def test_robot_moves_as_gymnasiums_untouched_asset(name: str, partition: str, asset: str, hidden: int) -> None:
    found = importlib.util.find_spec("gymnasium")
    assert found is not None
    assert found.origin is not None
    model = mujoco.MjModel.from_xml_path(str(Path(found.origin).parent / "envs" / "mujoco" / "assets" / asset))
    data = mujoco.MjData(model)
    world = world_of(name=name, partition=partition, observation="full", action_map="reference")
    obs = world.reset()
    data.qpos[:], data.qvel[:] = world.batch.qpos[0], world.batch.qvel[0]
    rng = np.random.default_rng(3)
    width = model.nq + model.nv - hidden
    for _ in range(10):
        np.testing.assert_allclose(obs[0][0, :width], [*data.qpos[hidden:], *data.qvel], rtol=1e-5, atol=1e-6)
        actions = random_actions(world, rng)
        data.ctrl[:] = np.concatenate([a[0] for a in actions])
        mujoco.mj_step(model, data, 5)
        obs = world.step(actions).obs


@pytest.mark.parametrize(
    ("name", "partition", "counterpart"),
    [
        ("mamujoco_ant", "4x2", "Ant-v5"),
        ("mamujoco_halfcheetah", "2x3", "HalfCheetah-v5"),
        ("mamujoco_hopper", "3x1", "Hopper-v5"),
        ("mamujoco_walker2d", "2x3", "Walker2d-v5"),
        ("mamujoco_humanoid", "9|8", "Humanoid-v5"),
        ("mamujoco_swimmer", "2x1", "Swimmer-v5"),
    ],
)
@pytest.mark.filterwarnings("ignore:compiler attribute 'settotalmass'")
def test_world_without_cost_is_gymnasiums(name: str, partition: str, counterpart: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "imageio", types.ModuleType("imageio"))  # only drawing needs it
    import gymnasium

    theirs: Any = gymnasium.make(counterpart).unwrapped
    world = world_of(name=name, partition=partition, observation="full", action_map="reference", num_envs=1)
    assert world.spec.dt == pytest.approx(theirs.dt)
    obs = world.reset()[0][0]
    theirs.reset(seed=0)
    theirs.set_state(world.batch.qpos[0].copy(), world.batch.qvel[0].copy())
    scale = theirs.action_space.high[0]  # agents act in ±1, the humanoid's motors in ±0.4
    price = TASKS[name].contact_price
    rng, ended = np.random.default_rng(1), 0
    for _ in range(80):
        actions = random_actions(world, rng)
        before = float(theirs.data.qpos[0])
        out = world.step(actions)
        seen, reward, terminated, _, parts = theirs.step(scale * np.concatenate([a[0] for a in actions]).astype(np.float64))
        obs = (out.final_obs or out.obs)[0][0]
        np.testing.assert_allclose(obs, seen[: len(obs)], rtol=1e-5, atol=1e-6)
        assert bool(out.terminated[0]) == bool(terminated)
        if price is not None and not terminated:  # theirs are the contact forces of RK4's last stage, ours of its first
            reward -= parts["reward_contact"] + float(price(np.asarray(world.batch.cfrc_ext))[0])
        if name == "mamujoco_ant":  # their torso's place, too, is that of the last stage
            reward += (float(theirs.data.qpos[0]) - before) / world.spec.dt - parts["reward_forward"]
        if price is None or not terminated:  # a restart has cleared our contact forces
            assert out.reward[0, 0] == pytest.approx(reward, abs=5e-3 if name == "mamujoco_humanoid" else 1e-5)
        else:
            assert out.reward[0, 0] < reward + 0.5  # no bonus for falling
        if terminated:
            ended += 1
            theirs.set_state(world.batch.qpos[0].copy(), world.batch.qvel[0].copy())
    assert (ended > 0) == (TASKS[name].posture is not None)
    theirs.close()


# --- rewards --------------------------------------------------------------------------------------------------------


def test_ant_is_paid_progress_life_and_charged_effort_and_contacts() -> None:
    world = world_of(name="safe_ant", partition="2x4", num_envs=1)
    world.reset()
    rng = np.random.default_rng(5)
    seen = 0.0
    for _ in range(10):
        world.batch.qpos[0, 2] = 0.5  # low enough to touch the ground, high enough to go on
        before = float(world.batch.qpos[0, 0])
        actions = random_actions(world, rng, scale=2.0)  # beyond the motors' range, priced in full
        out = world.step(actions)
        assert not out.terminated[0]
        reward = out.reward[:, 0]
        effort = sum(float(np.sum(np.float64(a) ** 2)) for a in actions)
        contact = 5e-4 * float(np.sum(np.clip(world.batch.cfrc_ext[0], -1, 1) ** 2))
        progress = (float(world.batch.qpos[0, 0]) - before) / 0.05
        assert reward == pytest.approx([progress + 1.0 - 0.5 * effort - contact] * 2, rel=1e-5, abs=1e-5)
        seen += contact
    assert seen > 0.0


@pytest.mark.parametrize(
    ("name", "partition", "price"),
    [
        ("safe_ant", "8x1", 0.5),
        ("safe_halfcheetah", "3x2", 0.1),
        ("safe_manyagent_ant", "3x2", 0.5),
        ("velocity_ant", "2x4", 0.5),
        ("mamujoco_walker2d", "6x1", 1e-3),
        ("mamujoco_humanoid", "9|8", 0.1 * 0.4**2),
    ],
)
def test_local_rewards_sum_to_the_teams_and_differ_by_own_effort(name: str, partition: str, price: float) -> None:
    team, local = (world_of(name=name, partition=partition, reward=reward) for reward in ("team", "local"))
    team.reset()
    local.reset()
    rng = np.random.default_rng(6)
    for _ in range(5):
        actions = random_actions(team, rng)
        whole, shares = team.step(actions).reward, local.step(actions).reward
        np.testing.assert_allclose(shares.sum(axis=0), whole[0], rtol=1e-4, atol=1e-4)
        effort = np.array([price * np.sum(a * a, axis=1) for a in actions])
        spread = shares + effort
        np.testing.assert_allclose(spread, np.broadcast_to(spread[0], spread.shape), rtol=1e-4, atol=1e-4)


# --- who drives what ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "partition", "agent", "action_map", "joints"),
    [
        ("safe_ant", "4x2", 0, "by_name", {"hip_1", "ankle_1"}),
        ("safe_ant", "4x2", 0, "reference", {"hip_4", "ankle_4"}),
        ("safe_ant", "2x4", 1, "by_name", {"hip_3", "ankle_3", "hip_4", "ankle_4"}),
        ("safe_ant", "2x4d", 1, "by_name", {"hip_2", "ankle_2", "hip_4", "ankle_4"}),
        ("safe_ant", "2x4d", 1, "reference", {"hip_2", "ankle_2", "hip_3", "ankle_3"}),
        ("safe_ant", "8x1", 3, "by_name", {"ankle_2"}),
        ("safe_halfcheetah", "3x2", 1, "by_name", {"bthigh", "ffoot"}),
        ("safe_halfcheetah", "3x2", 1, "reference", {"bfoot", "fthigh"}),
        ("safe_manyagent_ant", "8x1", 2, "by_name", {"hip1_2", "ankle1_2", "hip2_2", "ankle2_2"}),
    ],
)
def test_agent_drives_its_joints(name: str, partition: str, agent: int, action_map: str, joints: set[str]) -> None:
    world = world_of(name=name, partition=partition, action_map=action_map)
    world.reset()
    actions = still(world)
    actions[agent][:] = 0.25 + np.arange(world.spec.act_dims[agent]) / 100
    world.step(actions)
    got = {joint: control for joint, control in driven(world).items() if control != 0 and joint != "obstacle"}
    assert set(got) == joints
    if name == "safe_ant" and action_map == "by_name":  # hip before ankle, leg by leg
        assert [float(c) for c in actions[agent][0]] == [got[j] for j in sorted(joints, key=lambda j: (j[-1], j[0] == "a"))]


def test_reference_map_makes_the_two_leg_splits_the_same_task() -> None:
    worlds = [world_of(name="safe_ant", partition=p, action_map="reference", observation="full") for p in ("2x4", "2x4d")]
    firsts = [world.reset()[0] for world in worlds]
    assert (firsts[0] == firsts[1]).all()
    actions = random_actions(worlds[0], np.random.default_rng(7))
    a, b = (world.step(actions).obs[0] for world in worlds)
    assert (a == b).all()


# --- what is sensed -------------------------------------------------------------------------------------------------


def test_ant_senses_own_joints_then_torso_then_corridor() -> None:
    world = world_of(name="safe_ant", partition="4x2", walls="free")
    obs = world.reset()
    data = world.batch
    joint = world.model.joint
    e = 1
    for agent, leg in enumerate((1, 2, 3, 4)):
        q = [data.qpos[e, joint(f"{part}_{leg}").qposadr[0]] for part in ("hip", "ankle")]
        v = [data.qvel[e, joint(f"{part}_{leg}").dofadr[0]] for part in ("hip", "ankle")]
        x, y = data.qpos[e, :2]
        expected = [*q, *v, *data.qpos[e, 2:7], *data.qvel[e, :6], x / 5, y - x * np.tan(np.pi / 6)]
        np.testing.assert_allclose(obs[agent][e], expected, rtol=1e-6)


def test_full_cheetah_state_has_the_published_order() -> None:
    world = world_of(name="safe_halfcheetah", partition="2x3", observation="full")
    world.reset()
    out = world.step(random_actions(world, np.random.default_rng(8)))
    q, v = world.batch.qpos[0], world.batch.qvel[0]  # here the obstacle comes last: rootx, rootz, rooty, 6 joints, obstacle
    gap = 10 + q[9] - q[0]
    expected = [*q[1:9], *v[:9], v[9], 0.02 * np.sin(0.05 / 3) ** 2 - 0.004, gap / 10]
    np.testing.assert_allclose(out.obs[0][0], expected, rtol=1e-5, atol=1e-7)


def test_reference_observation_is_standardised_with_the_agents_id() -> None:
    world = world_of(name="safe_ant", partition="4x2", observation="reference")
    plain = world_of(name="safe_ant", partition="4x2", observation="full")
    obs, full = world.reset(), plain.reset()[0]
    for agent, block in enumerate(obs):
        np.testing.assert_allclose(block.mean(axis=1), 0, atol=1e-6)
        np.testing.assert_allclose(block.std(axis=1), 1, rtol=1e-5)
        assert list(block[0, 29:].argsort())[-1] == agent
        slope = np.polyfit(full[0], block[0, :29], 1)
        np.testing.assert_allclose(np.polyval(slope, full[0]), block[0, :29], atol=1e-5)


# --- starts and ends ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("walls", "robot"), [("none", 15), ("free", 15)])
def test_start_is_the_models_with_noise_on_the_robot_only(walls: str, robot: int) -> None:
    world = world_of(name="safe_ant", partition="4x2", walls=walls, num_envs=400)
    world.reset()
    spread = world.batch.qpos - world.model.qpos0
    assert np.abs(spread).max() <= 0.1
    assert (spread[:, :robot].max(axis=0) > 0.09).all()
    assert (spread[:, :robot].min(axis=0) < -0.09).all()
    assert (spread[:, robot:] == 0).all()
    assert (world.batch.qvel[:, robot - 1 :] == 0).all()
    np.testing.assert_allclose(world.batch.qvel[:, : robot - 1].std(axis=0), 0.1, rtol=0.2)


@pytest.mark.parametrize(
    ("name", "partition", "bound", "moves"),
    [
        ("mamujoco_hopper", "3x1", 0.005, "uniform"),
        ("mamujoco_walker2d", "6x1", 0.005, "uniform"),
        ("mamujoco_humanoid", "17x1", 0.01, "uniform"),
        ("mamujoco_swimmer", "2x1", 0.1, "uniform"),
        ("mamujoco_halfcheetah", "2x3", 0.1, "normal"),
    ],
)
def test_starts_are_as_noisy_as_gymnasiums(name: str, partition: str, bound: float, moves: str) -> None:
    world = world_of(name=name, partition=partition, num_envs=400)
    world.reset()
    poses, motions = world.batch.qpos - world.model.qpos0, np.asarray(world.batch.qvel)
    for noise in (poses, motions) if moves == "uniform" else (poses,):
        assert np.abs(noise).max() <= bound
        assert (noise.max(axis=0) > 0.9 * bound).all()
        assert (noise.min(axis=0) < -0.9 * bound).all()
    if moves == "normal":
        np.testing.assert_allclose(motions.std(axis=0), bound, rtol=0.2)


def test_hopper_senses_clipped_velocities() -> None:
    world = world_of(name="mamujoco_hopper", partition="3x1", observation="full", num_envs=1)
    world.reset()
    world.batch.qvel[0] = [0, 0, 0, 30.0, -30.0, 0]
    out = world.step(still(world))
    seen = (out.final_obs or out.obs)[0][0, 5:]
    assert np.abs(seen).max() == 10.0
    assert np.abs(world.batch.qvel).max() > 10.0 or out.terminated[0]


@pytest.mark.parametrize(
    ("name", "height", "quaternion", "ends"),
    [
        ("safe_ant", 1.5, (1, 0, 0, 0), True),
        ("safe_ant", 0.7, (0, 1, 0, 0), True),
        ("safe_ant", 0.7, (1, 0, 0, 0), False),
        ("velocity_ant", 1.5, (1, 0, 0, 0), True),
        ("velocity_ant", 0.7, (0, 1, 0, 0), False),
    ],
)
def test_ant_terminates_when_unhealthy(name: str, height: float, quaternion: tuple[float, ...], ends: bool) -> None:
    world = world_of(name=name, partition="4x2")
    world.reset()
    world.batch.qpos[1, 2] = height
    world.batch.qpos[1, 3:7] = quaternion
    world.batch.qvel[1] = 0
    out = world.step(still(world))
    assert list(out.terminated) == [False, ends]
    assert not out.truncated.any()
    assert not out.faults.any()
    assert out.cost[0, 1, 0] == float(ends and name == "safe_ant")
    if ends:
        assert out.final_obs is not None
        sensed = out.final_obs[0][1, 4]  # height, after two positions and two velocities of own joints
        assert sensed == pytest.approx(height, abs=0.1)
        assert 0.6 < out.obs[0][1, 4] < 0.9
        assert [episode.copy for episode in out.episodes] == [1]
        assert out.episodes[0].length == 1


def test_falling_at_the_time_limit_is_termination() -> None:
    world = world_of(name="safe_ant", partition="4x2", horizon=1)
    world.reset()
    world.batch.qpos[1, 2] = 1.5
    out = world.step(still(world))
    assert list(out.terminated) == [False, True]
    assert list(out.truncated) == [True, False]


def test_fall_of_one_copy_does_not_change_the_starts_of_another() -> None:
    seen: list[list[Floats]] = []
    for fall in (False, True):
        world = world_of(name="safe_ant", partition="4x2", horizon=4)
        world.reset()
        seen.append([])
        for t in range(9):
            if fall and t < 2:
                world.batch.qpos[0, 2] = 1.5
            seen[-1].append(world.step(still(world)).obs[0])
    assert any((a[0] != b[0]).any() for a, b in zip(*seen, strict=True))
    assert all((a[1] == b[1]).all() for a, b in zip(*seen, strict=True))


def test_cheetah_is_truncated_at_the_horizon_and_never_terminates() -> None:
    world = world_of(name="safe_halfcheetah", partition="6x1", horizon=30)
    world.reset()
    rng = np.random.default_rng(9)
    for t in range(1, 91):
        out = world.step(random_actions(world, rng, scale=3.0))
        assert not out.terminated.any()
        assert out.truncated.all() == (t % 30 == 0)


def test_diverged_copy_is_reported_and_restarted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, subtests: pytest.Subtests
) -> None:
    robots = [
        ("safe_ant", "4x2"),
        ("safe_halfcheetah", "6x1"),
        ("safe_manyagent_ant", "6x1"),
        ("mamujoco_humanoid", "9|8"),
        ("mamujoco_hopper", "3x1"),
    ]
    # 1e12: finite, and beyond what MuJoCo takes for a number; a finite action it clamps
    harms = [("qpos", np.nan), ("qpos", 1e12), ("qvel", np.nan), ("qvel", 1e12), ("action", np.nan)]
    for name, partition in robots:
        for where, bad in harms:
            with subtests.test(name=name, where=where, bad=bad):
                monkeypatch.chdir(tmp_path)
                world = world_of(name=name, partition=partition, num_envs=3)
                other = world_of(name=name, partition=partition, num_envs=3)
                world.reset()
                other.reset()
                actions = still(world)
                if where == "action":
                    actions[0][1] = bad
                else:
                    getattr(world.batch, where)[1, 3] = bad
                out, untouched = world.step(actions), other.step(still(other))
                assert list(out.faults) == list(out.terminated) == [False, True, False]
                assert (out.reward[:, 1] == 0).all()
                assert (out.cost[:, 1] == 1).all()
                assert [(episode.copy, episode.length) for episode in out.episodes] == [(1, 1)]
                assert np.isnan([out.episodes[0].ret, *out.episodes[0].cost]).all()
                assert all(np.isfinite(block).all() for block in [*out.obs, *(out.final_obs or [])])
                for mine, theirs in zip(out.obs, untouched.obs, strict=True):
                    assert (mine[[0, 2]] == theirs[[0, 2]]).all()
                after = world.step(still(world))
                assert not after.faults.any()
                assert not after.terminated.any()
                assert os.listdir(tmp_path) == []


# --- costs ----------------------------------------------------------------------------------------------------------


def free_run(steps: int) -> np.ndarray:
    """The obstacle's world x after each step, started exactly at rest, (steps,)."""
    world = world_of(name="safe_halfcheetah", partition="6x1", num_envs=1, horizon=steps + 1)
    world.reset()
    world.batch.qpos[:] = world.model.qpos0
    world.batch.qvel[:] = 0
    address = world.model.joint("obstacle").qposadr[0]
    track = []
    for _ in range(steps):
        world.step(still(world))
        track.append(10.0 + world.batch.qpos[0, address])
    return np.array(track)


def test_obstacle_runs_free_as_tabled() -> None:
    track = free_run(1000)
    tabled = {1: 9.99, 20: 8.78, 50: 8.76, 100: 24.80, 200: 43.66, 400: 76.50, 600: 109.86, 800: 144.11, 1000: 179.52}
    assert [track[t - 1] for t in tabled] == pytest.approx(list(tabled.values()), abs=0.02)
    speed = np.diff(track) / 0.05
    assert (speed.min(), speed.max(), speed.mean()) == pytest.approx((-2.09, 9.29, 3.39), abs=0.03)
    time = 0.05 * np.arange(1.0, 1001.0)
    costs = []
    for pace in (0.0, 3.5, 4.0):
        x = np.asarray(pace * time, np.float64)
        step = Step(x0=x, y0=0 * x, x=x, y=0 * x, time=time, dt=0.05, obstacle=track - 10.0)
        costs.append(int(GapRule().cost(step).sum()))
    assert costs == [34, 465, 689]


def test_local_cost_is_that_of_the_own_foot() -> None:
    world = world_of(name="safe_ant", partition="4x2", cost="local", horizon=5)
    world.reset()
    world.batch.qpos[0] = world.model.qpos0
    world.batch.qvel[0] = 0
    world.batch.qpos[0, 1] = 3.1  # ankles at (± 0.4, 3.1 ± 0.4): legs 1 and 2 are beyond 3.2, the torso and legs 3 and 4 are not
    out = world.step(still(world))
    assert list(out.cost[:, 0, 0]) == [1, 1, 0, 0]
    assert not out.cost[:, 1].any()
    for _ in range(4):
        out = world.step(still(world))
    assert out.episodes[0].cost == (0.0,)  # the team's cost is still the torso's


def test_feet_are_where_they_are_after_the_step() -> None:
    world = world_of(name="safe_ant", partition="4x2", cost="local")
    world.reset()
    world.step(random_actions(world, np.random.default_rng(10)))
    data = mujoco.MjData(world.model)
    data.qpos[:] = world.batch.qpos[0]
    mujoco.mj_kinematics(world.model, data)
    np.testing.assert_allclose(world.batch.xpos[0], data.xpos, atol=1e-12)


def test_agent_without_an_ankle_answers_for_its_hip() -> None:
    world = world_of(name="safe_ant", partition="8x1", cost="local")
    world.reset()
    world.batch.qpos[0] = world.model.qpos0
    world.batch.qvel[0] = 0
    world.batch.qpos[0, 1] = 3.05  # hips at (± 0.2, 3.05 ± 0.2), ankles twice as far out
    assert list(world.step(still(world)).cost[:, 0, 0]) == [0, 1, 1, 1, 0, 0, 0, 0]


def test_speeding_costs() -> None:
    world = world_of(name="velocity_halfcheetah", partition="6x1")
    world.reset()
    world.batch.qvel[:, 0] = [4.0, 0.5]
    assert list(world.step(still(world)).cost[0, :, 0]) == [1, 0]


@pytest.mark.parametrize(("name", "partition", "line"), [("safe_manyagent_ant", "6x1", 2.7), ("safe_ant", "2x4d", 3.2)])
def test_corridor_cost_follows_the_torso(name: str, partition: str, line: float) -> None:
    world = world_of(name=name, partition=partition)
    world.reset()
    world.batch.qpos[:] = world.model.qpos0
    world.batch.qvel[:] = 0
    world.batch.qpos[:, 1] = [line - 0.05, line + 0.05]
    assert list(world.step(still(world)).cost[0, :, 0]) == [0, 1]


# --- resources ------------------------------------------------------------------------------------------------------


def test_close_releases_the_threads() -> None:
    def count() -> int:
        return len(os.listdir("/proc/self/task"))

    before = count()
    world = world_of(name="safe_ant", partition="4x2", threads=2)
    world.reset()
    assert count() == before + 1
    world.close()
    assert count() == before
