"""Worlds that play games: against the tables they are made of."""

from typing import Any

import networkx as nx
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from envs.actions import taken
from envs.games.games import GameWorld, build, chain_policies, stage_game
from envs.games.settings import TabularGame
from envs.games.tabular import Policies, constant, expected_return, optimum, split, uniform
from envs.interface import Floats
from envs.registry import make, section, spec
from topology.wire.frame import ProtocolError


def env_of(name: str, agents: int, **settings: Any) -> TabularGame:
    env = section(name, **{"agents": agents, "num_envs": 64, **settings})
    assert isinstance(env, TabularGame)
    return env


def world_of(env: TabularGame, seed: int = 0) -> GameWorld:
    world = make(env, nx.empty_graph(spec(env).n_agents), seed)
    assert isinstance(world, GameWorld)
    return world


def states_of(world: GameWorld, obs: list[Floats]) -> np.ndarray:
    """The numbers of the states shown with `encoding: index` and `observation: full`."""
    return (
        np.ravel_multi_index(tuple(obs[0].astype(int).T), (2,) * obs[0].shape[1])
        if obs[0].shape[1] > 1
        else obs[0][:, 0].astype(int)
    )


def simulated_return(env: TabularGame, policies: Policies, episodes: int) -> tuple[float, float]:
    """Mean and standard error of the return of policies that see the state."""
    world, rng = world_of(env), np.random.default_rng(7)
    obs = world.reset()
    found: list[float] = []
    while len(found) < episodes:
        state = states_of(world, obs)
        chance = rng.random((len(policies), world.num_envs, 1))
        chosen = [(u > np.cumsum(policy[state], axis=1)[:, :-1]).sum(axis=1) for u, policy in zip(chance, policies, strict=True)]
        out = world.step([action.astype(np.float32)[:, None] for action in chosen])
        found += [episode.ret for episode in out.episodes]
        obs = out.obs
    return float(np.mean(found)), float(np.std(found) / np.sqrt(len(found)))


@pytest.mark.parametrize(
    ("name", "agents", "settings"),
    [
        ("stochastic_game", 3, {"seed": 2}),
        ("truncation_chain", 5, {"observation": "full", "seed": 2}),
        ("sharing_game", 4, {}),
        ("stage_game", 2, {"seed": 2}),
    ],
)
def test_simulated_returns_are_the_exact_ones(name: str, agents: int, settings: dict[str, Any]) -> None:
    env = env_of(name, agents, encoding="index", **settings)
    game = build(env)
    policies = chain_policies(5, 2) if name == "truncation_chain" else uniform(game)
    mean, error = simulated_return(env, policies, 3000)
    assert abs(mean - expected_return(game, policies, spec(env).horizon)) < 4 * error


def test_best_team_of_a_deterministic_game_earns_its_optimum_exactly() -> None:
    env = env_of("stage_game", 2, encoding="index")
    value, action = optimum(build(env), 1.0)
    mean, error = simulated_return(env, constant(build(env), split(build(env), action)), 64)
    assert mean == pytest.approx(value[0], abs=1e-5)
    assert error < 1e-9


def test_moves_are_as_frequent_as_the_table_says() -> None:
    env = env_of("stochastic_game", 2, num_envs=2000, states=5, n_discrete=2, encoding="index", seed=1)
    game, world = build(env), world_of(env)
    world.reset()
    out = world.step([np.ones((2000, 1), np.float32), np.zeros((2000, 1), np.float32)])  # joint action 2 in the first state
    share = np.bincount(out.obs[0][:, 0].astype(int), minlength=5) / 2000
    np.testing.assert_allclose(share, game.probability[0, 2], atol=0.05)
    assert (out.reward == np.float32(game.reward[0, 0, 2])).all()


def test_one_hot_and_index_show_the_same_state() -> None:
    worlds = [world_of(env_of("truncation_chain", 3, observation="full", encoding=encoding)) for encoding in ("one_hot", "index")]
    rng = np.random.default_rng(3)
    shown = [world.reset()[1] for world in worlds]
    for _ in range(20):
        np.testing.assert_array_equal(shown[0].reshape(64, 3, 2).argmax(axis=2), shown[1])
        assert (shown[0].sum(axis=1) == 3).all()
        actions = [rng.integers(2, size=(64, 1)).astype(np.float32) for _ in range(3)]
        shown = [world.step(actions).obs[1] for world in worlds]


def test_agent_of_the_chain_sees_its_own_bit() -> None:
    own, full = (world_of(env_of("truncation_chain", 4, observation=observation)).reset() for observation in ("own", "full"))
    np.testing.assert_array_equal(np.concatenate(own, axis=1), full[2])


def test_local_rewards_are_the_agents_own_and_average_to_the_teams() -> None:
    actions = [np.full((64, 1), i % 2, np.float32) for i in range(4)]
    paid = []
    for reward in ("local", "team"):
        world = world_of(env_of("truncation_chain", 4, reward=reward))
        world.reset()
        paid.append(world.step(actions).reward)
    assert np.unique(paid[0][1]).size == 2  # agent 1 takes action 1: its reward depends on its own bit alone
    np.testing.assert_allclose(paid[0].mean(axis=0), paid[1][0], rtol=1e-6)


def test_game_depends_on_its_own_seed_and_the_run_on_the_other() -> None:
    env = env_of("stochastic_game", 2)
    first, other = build(env), build(env_of("stochastic_game", 2, seed=1))
    assert (first.reward != other.reward).any()
    worlds = [world_of(env, seed) for seed in (0, 1)]
    still = [np.zeros((64, 1), np.float32)] * 2
    for world in worlds:
        world.reset()
    a, b = (world.step(still) for world in worlds)
    assert (a.reward == b.reward).all()  # the same game, in its first state
    assert any((x != y).any() for x, y in zip(a.obs, b.obs, strict=True))


def test_one_shot_games_end_at_once_and_pay_the_table() -> None:
    world = world_of(env_of("matrix_game", 2, num_envs=9, horizon=100))
    world.reset()
    rows, columns = np.divmod(np.arange(9), 3)
    out = world.step([rows.astype(np.float32)[:, None], columns.astype(np.float32)[:, None]])
    assert out.reward[0].tolist() == [11, -30, 0, -30, 7, 6, 0, 0, 5]
    assert out.terminated.all()
    assert not out.truncated.any()


def test_stage_game_walks_down_its_tree() -> None:
    world = world_of(env_of("stage_game", 2, num_envs=1, encoding="index"))
    paid = stage_game(3, 0).reward[0, :, 0]
    world.reset()
    node, moves = 0, [(1, 2), (0, 0), (2, 1)]
    for t, (a, b) in enumerate(moves):
        out = world.step([np.full((1, 1), a, np.float32), np.full((1, 1), b, np.float32)])
        assert out.reward[0, 0] == np.float32(paid[node])
        node = 9 * node + 3 * a + b + 1
        assert bool(out.terminated[0]) == (t == 2)
        assert (out.final_obs or out.obs)[0][0, 0] == node
        assert out.obs[0][0, 0] == (0.0 if t == 2 else node)
    assert 91 <= node < 820


def test_random_games_may_start_anywhere() -> None:
    firsts = [
        world_of(env_of("stochastic_game", 2, num_envs=500, states=4, start=start)).reset()[0].mean(axis=0)
        for start in ("first", "uniform")
    ]
    assert firsts[0].tolist() == [1, 0, 0, 0]
    np.testing.assert_allclose(firsts[1], 0.25, atol=0.08)


@given(st.floats(width=32), st.integers(0, 2))
@example(3.0, 0)
@example(-1.0, 1)
@example(2.0, 2)
def test_what_is_no_choice_is_refused_by_name(value: float, agent: int) -> None:
    actions = [np.zeros((4, 1), np.float32) for _ in range(3)]
    actions[agent][2] = value
    if value in (0.0, 1.0, 2.0):
        assert taken(actions, (3, 3, 3))[agent].tolist() == [0, 0, int(value), 0]
        return
    with pytest.raises(ProtocolError, match=rf"agent {agent} chose \S+ in copy 2; its choices are 0\.\.2"):
        taken(actions, (3, 3, 3))


def test_world_refuses_before_it_moves() -> None:
    world = world_of(env_of("stochastic_game", 2, encoding="index"))
    world.reset()
    with pytest.raises(ProtocolError, match=r"agent 1 chose 0\.5"):
        world.step([np.zeros((64, 1), np.float32), np.full((64, 1), 0.5, np.float32)])
    fine = world.step([np.zeros((64, 1), np.float32)] * 2)
    assert all(episode.length == 1 for episode in fine.episodes)
