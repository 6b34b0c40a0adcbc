"""Differential games: landscapes by hand, and how the point moves."""

from typing import Any

import networkx as nx
import numpy as np
import pytest

from envs.games.differential import DISC, basin, ring
from envs.interface import Floats, VecEnv
from envs.registry import make, section, spec


def world_of(agents: int, **settings: Any) -> VecEnv:
    env = section("differential_game", agents=agents, num_envs=3, **settings)
    return make(env, nx.empty_graph(spec(env).n_agents), 0)


def at(z: float, n: int) -> float:
    """Pay at normalised distance z, along a diagonal."""
    return float(ring(np.full((1, n), z / np.sqrt(2.0)))[0])


def test_ring_pays_most_in_the_centre_nothing_in_the_gap_and_little_beyond(subtests: pytest.Subtests) -> None:
    for n in DISC:
        with subtests.test(n=n):
            assert at(0.0, n) == 1.0
            assert at(DISC[n] / 2, n) == pytest.approx(0.5)
            assert at(DISC[n], n) == pytest.approx(0.0, abs=1e-6)
            assert at((DISC[n] + 0.6) / 2, n) == 0.0
            assert at(0.8, n) == pytest.approx(0.3)
            assert at(1.01, n) == 0.0
            assert max(at(z, n) for z in np.linspace(DISC[n], 1.4, 500)) <= 0.3


def test_ring_depends_on_the_distance_only() -> None:
    turned = np.array([[0.3, 0.4], [0.5, 0.0], [-0.4, 0.3]])
    np.testing.assert_allclose(ring(turned), ring(turned)[0])


def test_basin_has_a_narrow_high_top_and_a_wide_low_one() -> None:
    found = basin(np.array([[5.0, 5.0], [-5.0, -5.0], [5.0, 8.0], [-5.0, -2.0], [-8.0, -8.0]]))
    assert found.tolist() == pytest.approx([10.0, 0.0, 1.0, -0.8, -1.6])
    grid = np.stack(np.meshgrid(np.linspace(-9, 9, 181), np.linspace(-9, 9, 181)), axis=-1).reshape(-1, 2)
    assert grid[np.argmax(basin(grid))] == pytest.approx([5.0, 5.0])
    assert (basin(grid) > 0).mean() < 0.15  # who starts anywhere sees the wide one


def step_of(world: VecEnv, *numbers: float) -> Any:
    return world.step([np.full((3, 1), u, np.float32) for u in numbers])


def test_point_moves_a_tenth_of_the_clipped_action_and_stays_in_the_box() -> None:
    world = world_of(2, observation="full")
    x: Floats = world.reset()[0].copy()
    assert (np.abs(x) <= 1).all()
    for u in (0.5, -3.0, 1.0):
        out = step_of(world, u, 0.0)
        paid = ring(x.astype(np.float64))
        np.testing.assert_allclose(out.reward, [paid, paid], atol=1e-5)  # for where the point was
        x[:, 0] = np.clip(x[:, 0] + 0.1 * np.clip(u, -1, 1), -1, 1)
        np.testing.assert_allclose(out.obs[0], x, atol=1e-6)
    corner = [step_of(world, 1.0, 1.0) for _ in range(30)][-1]
    assert (corner.obs[0] == 1.0).all()


def test_agent_senses_its_own_coordinate() -> None:
    own, full = world_of(4).reset(), world_of(4, observation="full").reset()
    np.testing.assert_array_equal(np.concatenate(own, axis=1), full[3])


def test_centre_pays_a_hundred_in_an_episode() -> None:
    world = world_of(3, observation="full", horizon=200)
    x = world.reset()[0]
    total = np.zeros(3)
    for t in range(120):
        out = world.step([np.clip(-10 * x[:, [i]], -1, 1) for i in range(3)])
        x = out.obs[0]
        total += out.reward[0] if t >= 20 else 0.0
    np.testing.assert_allclose(total, 100.0, rtol=1e-5)


def test_basin_is_played_once() -> None:
    world = world_of(2, landscape="basin")
    assert world.reset()[0].tolist() == [[1.0]] * 3
    out = step_of(world, 5.0, 4.0)
    assert (out.reward == 9.0).all()
    assert out.terminated.all()
    assert [episode.ret for episode in out.episodes] == [9.0] * 3


def test_divergence_is_a_fault_and_ends_the_copy(subtests: pytest.Subtests) -> None:
    for landscape in ("ring", "basin"):
        for bad in (np.nan, np.inf, 1e12):
            with subtests.test(landscape=landscape, bad=bad):
                world = world_of(2, landscape=landscape)
                world.reset()
                action = np.zeros((3, 1), np.float32)
                action[1] = bad
                out = world.step([action, np.zeros((3, 1), np.float32)])
                assert out.faults.tolist() == [False, True, False]
                assert out.terminated[1]
                assert (out.reward[:, 1] == 0).all()
                (ended,) = (episode for episode in out.episodes if episode.copy == 1)
                assert np.isnan(ended.ret)  # what it would have come to is not known
                assert np.isfinite(out.reward).all()
