"""The platoon: its physics by hand and in closed form, its collision rule, and the published figures of controllers."""

from collections.abc import Callable
from itertools import pairwise

import networkx as nx
import numpy as np
import pytest

from envs.interface import Episode, Floats
from envs.networks.platoon import BASELINES, HEADWAY, SPEED, STEP_S, Platoon, PlatoonEnv, advance, ahead, constant, optimal_speed
from envs.registry import section

Policy = Callable[[Platoon], list[Floats]]


def platoon(seed: int = 0, **settings: object) -> Platoon:
    env = section(**{"name": "cacc_catchup", "num_envs": 2, **settings})  # type: ignore[arg-type]
    assert isinstance(env, PlatoonEnv)
    return Platoon(env, nx.path_graph(env.n_agents), seed)


def always(value: float, width: int = 1) -> Policy:
    return lambda world: [np.full((world.num_envs, width), value, np.float32)] * world.spec.n_agents


def test_a_step_by_hand() -> None:
    h, v, u = advance(
        np.array([[10.0, 30.0]]), np.array([[10.0, 29.9]]), np.array([[-9.0, 2.0]]), np.array([12.0]), np.array([11.0])
    )
    np.testing.assert_allclose(u, [[-2.5, 1.0]])  # limited by ±2.5 m/s², and by 30 m/s
    np.testing.assert_allclose(v, [[9.75, 30.0]])
    np.testing.assert_allclose(h, [[10 + 0.05 * (12 + 11 - 10 - 9.75), 30 + 0.05 * (10 + 9.75 - 29.9 - 30)]])


def test_the_optimal_speed_at_the_goal_is_the_goal() -> None:
    np.testing.assert_allclose(optimal_speed(np.array([1.0, 5.0, 12.5, HEADWAY, 35.0, 90.0])), [0, 0, 4.393398, SPEED, 30, 30])


@pytest.mark.parametrize(("period", "factor"), [(10.0, 1.14), (15.0, 1.10), (25.0, 1.04)])
def test_a_small_swing_grows_along_the_platoon_as_the_transfer_function_says(period: float, factor: float) -> None:
    s, stiff = 2j * np.pi / period, 0.5 * np.pi / 2
    exact = abs((0.5 * s + stiff) / (s**2 + s + stiff))  # per follower, α = β = 0.5, continuous time
    assert exact == pytest.approx(factor, abs=0.01)
    h, v, spread = np.full((1, 2), HEADWAY), np.full((1, 2), SPEED), []
    swing = [np.array([SPEED + 0.1 * np.sin(2 * np.pi / period * STEP_S * t)]) for t in range(round(12 * period / STEP_S))]
    for now, then in pairwise(swing):
        h, v, _ = advance(h, v, 0.5 * (optimal_speed(h) - v) + 0.5 * (ahead(v, now) - v), now, then)
        spread.append(v[0])
    first, second = np.std(spread[-round(6 * period / STEP_S) :], axis=0)
    assert second / first == pytest.approx(exact, rel=0.02)


@pytest.mark.parametrize(
    ("name", "policy", "reward", "cost"),
    [
        ("cacc_catchup", "hold", -430.0, 0.0),
        ("cacc_catchup", "constant", -80.6, 13.0),
        ("cacc_slowdown", "constant", -486.0, 0.4),
        pytest.param("cacc_catchup", "random", -5297.0, None, marks=pytest.mark.slow),
        pytest.param("cacc_slowdown", "random", -4329.0, None, marks=pytest.mark.slow),
    ],
)
def test_controllers_earn_what_is_published(name: str, policy: str, reward: float, cost: float | None) -> None:
    world = platoon(name=name, num_envs=400 if cost is None else 150)
    control = BASELINES[policy](section(name), nx.path_graph(8))  # type: ignore[arg-type]
    world.reset()
    first: dict[int, Episode] = {}
    for _ in range(world.spec.horizon):
        for episode in world.step(control(world)).episodes:
            first.setdefault(episode.copy, episode)
    # published: the sum over 8 vehicles per step, where a collided platoon is charged until the end of the 600 steps
    paid = [8 * (episode.ret - 1000.0 * (600 - episode.length)) / 600 for episode in first.values()]
    assert np.mean(paid) == pytest.approx(reward, rel=0.05)
    if cost is None:
        assert np.mean([episode.measures[0] for episode in first.values()]) > 0.93
        assert all((episode.length < 600) == episode.measures[0] for episode in first.values() if episode.length < 541)
    else:
        assert {episode.length for episode in first.values()} == {600}
        assert np.mean([8 * episode.cost[0] for episode in first.values()]) == pytest.approx(cost, rel=0.05, abs=0.2)


@pytest.mark.parametrize("reward", ["team", "local"])
def test_a_collision_stops_all_vehicles_and_ends_the_episode_at_the_next_sixtieth_step(reward: str) -> None:
    world = platoon(name="cacc_slowdown", num_envs=1, reward=reward, horizon=400)
    world.reset()
    collided: int | None = None
    t = 0
    while True:
        t += 1
        before = world.headway.copy(), world.speed.copy()
        out = world.step(always(0)(world))  # hold the speed while the leader brakes
        if out.terminated[0]:
            break
        if collided is not None:
            np.testing.assert_array_equal(before[0], world.headway)
            np.testing.assert_array_equal(before[1], world.speed)
            assert (out.reward == -1000.0).all()
        elif world.headway.min() < 1.0:
            assert (out.reward == -1000.0).all()
            collided = t
    assert collided is not None
    assert collided <= t < collided + 60
    assert t % 60 == 0
    assert out.episodes[0].length == t
    assert out.episodes[0].measures[0] == 1.0  # collisions
    assert (world.headway == HEADWAY).all()
    assert not out.faults.any()


def test_actions_are_gains_or_the_acceleration_itself() -> None:
    worlds = {actions: platoon(actions=actions) for actions in ("gains", "continuous", "acceleration")}
    for world in worlds.values():
        world.reset()
    h, v = worlds["gains"].headway.copy(), worlds["gains"].speed.copy()
    law = 0.5 * (optimal_speed(h) - v) + 0.0
    worlds["gains"].step(always(1)(worlds["gains"]))  # (0.5, 0): only the headway counts
    both = np.array([[0.0, -1.0]] * 2, np.float32)  # the same pair on the scale of ±1
    worlds["continuous"].step([both] * 8)
    worlds["acceleration"].step([np.asarray(law[:, [i]] / 2.5, np.float32) for i in range(8)])
    for world in worlds.values():
        np.testing.assert_allclose(world.acceleration, np.clip(law, -2.5, 2.5), atol=1e-5)


@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_constant_gains_drive_alike_in_every_form_of_action(alpha: float) -> None:
    worlds = [platoon(name="cacc_slowdown", actions=actions) for actions in ("gains", "continuous", "acceleration")]
    for world in worlds:
        world.reset()
        for _ in range(30):
            world.step(constant(world, alpha, 0.5))
    for world in worlds[1:]:
        np.testing.assert_allclose(world.headway, worlds[0].headway, atol=1e-4)
    assert np.ptp(worlds[0].headway) > 0.1


def test_a_control_that_is_not_finite_is_a_fault() -> None:
    world = platoon(actions="acceleration", num_envs=3)
    world.reset()
    actions = [np.zeros((3, 1), np.float32) for _ in range(8)]
    actions[4][1] = np.nan
    out = world.step(actions)
    assert out.faults.tolist() == out.terminated.tolist() == [False, True, False]


def test_observations_are_as_tabled() -> None:
    near, far = platoon(name="cacc_slowdown", seed=3), platoon(name="cacc_slowdown", seed=3, sensors="odometer")
    near.reset()
    far.reset()
    for _ in range(39):
        near.step(always(3)(near))
        far.step(always(3)(far))
    seen, short = near.step(always(3)(near)).obs, far.step(always(3)(far)).obs
    h, v, u = near.headway[:, 2], near.speed[:, 2], near.acceleration[:, 2]
    closing = near.speed[:, 1] - v
    expected = [
        (v - 15) / 15,
        np.clip(closing / 5, -2, 2),
        np.clip((optimal_speed(h) - v) / 5, -2, 2),
        (h + closing * 0.1 - 20) / 20,
        u / 2.5,
    ]
    np.testing.assert_allclose(seen[2], np.stack(expected, axis=1), rtol=1e-6)
    np.testing.assert_allclose(seen[0][:, 1], np.clip((near.leader() - near.speed[:, 0]) / 5, -2, 2), rtol=1e-6)
    np.testing.assert_allclose(short[2], np.stack([(v - 15) / 15, (h - 20) / 20, u / 2.5], axis=1), rtol=1e-6)
