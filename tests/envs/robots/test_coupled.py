"""The coupled half-cheetahs against the world they are modelled on, and how both bodies are charged."""

import numpy as np
import pytest

from envs.registry import make, section, spec
from envs.robots import models
from envs.robots.mujoco_world import MujocoWorld
from envs.robots.rules import PairGapRule, Step
from scenarios.schema import Topology
from topology.graph.generators import build


def world(name: str, **settings: object) -> MujocoWorld:
    env = section(name, **{"num_envs": 1, "partition": "1p1", **settings})
    shape = spec(env)
    made = make(env, build(Topology(), shape.n_agents, shape.edges), 0)
    assert isinstance(made, MujocoWorld)
    return made


def test_model_and_reward_are_those_of_multi_agent_mujoco() -> None:
    theirs = pytest.importorskip("gymnasium_robotics.envs.multiagent_mujoco.coupled_half_cheetah")

    class Plain(theirs.CoupledHalfCheetahEnv):  # type: ignore[misc, name-defined]
        def _get_obs(self) -> np.ndarray:  # theirs reads a dense Jacobian, which MuJoCo no longer has
            return np.zeros(40)

    original, ours = Plain(), world("coupled_halfcheetah")
    original.reset(seed=0)
    ours.reset()
    qpos, qvel = ours.batch.bind("qpos"), ours.batch.bind("qvel")
    original.set_state(qpos[0].copy(), qvel[0].copy())
    rng = np.random.default_rng(0)
    for _ in range(500):
        action = rng.uniform(-1.0, 1.0, 12).astype(np.float32)
        reward = original.step(action.astype(np.float64))[1]
        out = ours.step([action[None, :6], action[None, 6:]])
        assert out.reward[0, 0] == pytest.approx(reward, abs=1e-6)
    np.testing.assert_allclose(qpos[0], original.data.qpos, atol=1e-6)


def test_either_body_near_the_obstacle_is_charged_and_with_own_costs_only_that_one() -> None:
    near, far = np.array([1.5]), np.array([0.5])
    step = Step(
        x0=far, y0=far, x=far, y=far, time=far, dt=0.05, obstacle=np.zeros(1), trunks=(near, far), tendon=(far, far)
    )  # the obstacle is at 10 m, and 9 m must be kept
    assert PairGapRule().cost(step).tolist() == [True]
    team, own = (world("safe_coupled_halfcheetah", cost=cost, partition="4x3") for cost in ("team", "local"))
    charged = []
    for one in (team, own):
        one.reset()
        first, second = (one.model.joint(f"{which}_rootx").qposadr[0] for which in ("first", "second"))
        one.batch.bind("qpos")[0, [first, second]] = 1.5, 0.5
        charged.append(one.step([np.zeros((1, 3), np.float32)] * 4).cost[:, 0, 0].tolist())
        one.close()
    assert charged == [[1.0] * 4, [1.0, 1.0, 0.0, 0.0]]


def test_agents_are_joined_across_the_tendon_and_sense_their_own_cheetah() -> None:
    assert spec(section("coupled_halfcheetah", partition="1p1")).edges == ((0, 1),)
    shape = spec(section("safe_coupled_halfcheetah", partition="4x3"))
    assert set(shape.edges) == {(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)}
    assert set(spec(section("coupled_halfcheetah", partition="12x1")).edges) >= {(0, 6), (3, 9), (0, 3)}
    assert shape.obs_dims == (6 + 5 + 5,) * 4  # joints, root; obstacle's speed and drive, own gap, tendon and its rate


def test_a_stretched_tendon_pulls_the_cheetahs_together_and_is_sensed() -> None:
    made = world("coupled_halfcheetah")
    made.reset()
    first, second = (made.model.joint(f"{which}_rootx").qposadr[0] for which in ("first", "second"))
    qpos, qvel = made.batch.bind("qpos"), made.batch.bind("qvel")
    qpos[0], qvel[0] = models.coupled_half_cheetah().qpos0, 0.0
    qpos[0, second] = 3.5  # the torsos are 2 m abreast, so the tendon is 4.03 m long, and 3.5 m are free
    still = [np.zeros((1, 6), np.float32)] * 2
    apart, sensed = [], []
    for _ in range(10):
        out = made.step(still)
        apart.append(qpos[0, second] - qpos[0, first])
        sensed.append(out.obs[0][0, -2])
    assert apart[-1] < 3.0
    assert sensed[0] == pytest.approx(np.hypot(apart[0], 2.0), rel=0.01)  # but for the difference of heights
    made.close()
