"""Wireless access: rules by hand, the published figures of controllers, and the exact answers of small cases."""

from collections.abc import Callable
from typing import Any

import networkx as nx
import numpy as np
import pytest

from envs.games import tabular
from envs.interface import Floats
from envs.networks.wireless import BASELINES, WirelessAccess, WirelessEnv, access, aloha, as_game, matching
from envs.registry import section, spec

Policy = Callable[[WirelessAccess], list[Floats]]


def section_of(**settings: object) -> WirelessEnv:
    env = section("wireless", **settings)
    assert isinstance(env, WirelessEnv)
    return env


def users(seed: int = 0, **settings: object) -> WirelessAccess:
    env = section_of(**{"num_envs": 1, **settings})
    world = WirelessAccess(env, nx.path_graph(env.rows * env.columns), seed)
    world.reset()
    return world


def choose(world: WirelessAccess, *choices: int) -> list[Floats]:
    return [np.full((world.num_envs, 1), choice, np.float32) for choice in choices]


def returns(world: WirelessAccess, policy: Policy, gamma: float = 1.0) -> np.ndarray:
    """Discounted return of the mean over users, per copy, over one horizon."""
    return np.asarray(
        np.sum([gamma**t * world.step(policy(world)).reward.mean(axis=0) for t in range(world.spec.horizon)], axis=0)
    )


def test_users_reach_the_access_points_at_their_corners_and_hear_those_who_share_one() -> None:
    assert access(2, 3) == [[0], [0, 1], [1], [0], [0, 1], [1]]
    shape = spec(section_of())
    assert sorted(set(shape.n_discrete)) == [2, 3, 5]
    graph = nx.Graph(shape.edges)
    king = nx.Graph((a, b) for a in range(25) for b in range(a) if max(abs(a // 5 - b // 5), abs(a % 5 - b % 5)) == 1)
    assert set(map(frozenset, graph.edges)) == set(map(frozenset, king.edges))
    assert nx.diameter(graph) == 4


def test_only_a_sender_that_is_alone_succeeds_and_an_empty_one_still_disturbs() -> None:
    world = users(rows=2, columns=3, success_prob=1.0, arrival_prob=0.0, reward="local")
    world.packets[0, :, :] = [[1, 1], [0, 1], [0, 0], [1, 0], [0, 0], [0, 1]]
    out = world.step(choose(world, 1, 2, 0, 0, 0, 0))  # user 0 to point 0, user 1 to point 1
    assert out.reward[:, 0].tolist() == [1, 1, 0, 0, 0, 0]
    assert world.packets[0].tolist() == [
        [True, False],
        [False, False],
        [False, False],
        [False, False],
        [False, False],
        [True, False],
    ]
    out = world.step(choose(world, 1, 1, 0, 0, 0, 1))  # user 1 has nothing and meets user 0 at point 0
    assert out.reward[:, 0].tolist() == [0, 0, 0, 0, 0, 1]
    assert [float(obs[0, -1]) for obs in out.obs] == [-1, -1, 0, 0, 0, 1]


@pytest.mark.parametrize(("charged", "expected"), [("energy", [1, 1, 0, 0]), ("drops", [1, 0, 0, 1])])
def test_costs_are_steps_of_sending_or_packets_lost(charged: str, expected: list[int]) -> None:
    world = users(rows=2, columns=2, success_prob=1.0, arrival_prob=0.0, cost="local", charged=charged)
    world.packets[0, :, :] = [[1, 0], [0, 1], [0, 0], [1, 1]]
    assert world.step(choose(world, 1, 1, 0, 0)).cost[:, 0, 0].tolist() == expected


@pytest.mark.parametrize(
    ("policy", "published"),
    [
        ("aloha_30", 0.284),
        ("aloha_50", 0.376),
        ("aloha_70", 0.412),
        ("aloha_100", 0.399),
        ("aloha_even", 0.418),
        ("matching", 0.906),
    ],
)
def test_controllers_earn_what_is_published(policy: str, published: float) -> None:
    world = users(num_envs=2000, horizon=10)
    assert world.success_prob.mean() == pytest.approx(0.5075, abs=1e-4)
    control = BASELINES[policy](section_of(), nx.empty_graph(25))
    assert returns(world, control, 0.7).mean() == pytest.approx(published, rel=0.03)


@pytest.mark.parametrize("settings", [{"columns": 2}, {"columns": 3, "deadline": 1, "arrival_prob": "uniform"}], ids=str)
def test_the_simulation_agrees_with_the_table(settings: dict[str, Any]) -> None:
    """Users that send with probability 0.3 whenever they hold a packet, to any point they reach."""
    world = users(rows=2, num_envs=4000, horizon=8, **settings)
    game = as_game(section_of(rows=2, horizon=8, **settings))
    np.testing.assert_allclose(game.probability.sum(axis=-1), 1.0)
    n, d = world.spec.n_agents, world.packets.shape[2]
    holds = (np.arange(game.n_states)[:, None] >> (d * np.arange(n)[::-1])) % 2**d > 0
    policies = [
        np.where(holds[:, [i]], [[0.7] + [0.3 / (count - 1)] * (count - 1)], np.eye(count)[[0]])
        for i, count in enumerate(game.n_discrete)
    ]
    rng = np.random.default_rng(2)
    found = returns(world, lambda world: aloha(world, rng, 0.3, weighted=False))
    exact = tabular.expected_return(game, policies, 8)
    assert found.mean() == pytest.approx(exact, abs=3 * found.std() / np.sqrt(len(found)))
    assert found.std() / np.sqrt(len(found)) < 0.02 * exact


def test_matching_is_nearly_the_best_that_four_users_can_do_and_never_better() -> None:
    env = section_of(rows=2, columns=2, success_prob=0.6)
    best = tabular.best_return(as_game(env), 10)
    world = users(rows=2, columns=2, success_prob=0.6, num_envs=4000, horizon=10)
    found = returns(world, matching)
    assert 0.98 * best < found.mean() < best + 3 * found.std() / np.sqrt(len(found))


def test_large_cases_have_no_exact_answer() -> None:
    with pytest.raises(ValueError, match=r"env\.deadline: got 2 for 6 users; users x deadline is at most 10"):
        as_game(section_of(rows=2, columns=3))


def test_costs_of_their_own_need_something_that_costs() -> None:
    assert spec(section_of()).n_costs == 0
    with pytest.raises(ValueError, match=r"cost: got 'local'; without charged this world has no cost"):
        section_of(cost="local")
