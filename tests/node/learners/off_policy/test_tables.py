"""Tables of values: single updates by hand, fixed points against exact solutions, and learning on games that are known."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.values import stage_ratios, turns
from envs.games.games import matrix_game, one_shot, stage_game, stochastic_game
from envs.games.settings import MatrixGame, StochasticGame
from envs.games.tabular import Game, best_response, constant, nash_gap, optimum, performance, respond
from node.learners.off_policy.tables import IdealQ, Transitions, iterate, move, replay, sweeps_needed

GAMMA = 0.9


def transitions(rows: list[tuple[int, int, float, int, bool]]) -> Transitions:
    state, action, reward, following, terminated = zip(*rows, strict=True)
    return Transitions(
        state=np.array(state),
        action=np.array(action),
        reward=np.array(reward, np.float64),
        following=np.array(following),
        terminated=np.array(terminated),
    )


def every_move(game: Game, agent: int, *, times: int = 1) -> Transitions:
    """Each joint action in each state once, as one agent sees it, in a deterministic game."""
    state, joint = (part.ravel() for part in np.indices(game.reward.shape[1:]))
    return Transitions(
        state=np.tile(state, times),
        action=np.tile(np.unravel_index(joint, game.n_discrete)[agent], times),
        reward=np.tile(game.reward[agent, state, joint], times),
        following=np.tile(game.successor[state, joint, 0], times),
        terminated=np.tile(game.probability[state, joint].sum(axis=1) == 0.0, times),
    )


# --- single updates ---------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 2), st.floats(-5, 5)), min_size=1, max_size=8), st.floats(0.05, 1.0))
def test_one_target_each_is_a_plain_step_and_many_equal_ones_are_many_steps(told: list[tuple[int, float]], step: float) -> None:
    place, target = np.array([p for p, _ in told]), np.array([5.0 * (p + 1) for p, _ in told])
    values, one_by_one = np.array([1.0, -2.0, 3.0]), np.array([1.0, -2.0, 3.0])
    move(values, place, target, step)
    for p, y in zip(place, target, strict=True):
        one_by_one[p] += step * (y - one_by_one[p])
    np.testing.assert_allclose(values, one_by_one, rtol=1e-12)


def test_no_number_of_targets_throws_a_value_beyond_them() -> None:
    values = np.zeros(1)
    move(values, np.zeros(100, int), np.linspace(1.0, 3.0, 100), 0.1)
    assert values[0] == pytest.approx(2.0 * (1 - 0.9**100))


def test_a_minibatch_bootstraps_unless_it_terminated() -> None:
    q = np.array([[0.0, 0.0], [2.0, 4.0]])
    replay(q, transitions([(0, 0, 1.0, 1, False), (0, 1, 1.0, 1, True)]), gamma=0.5, step=1.0)
    np.testing.assert_array_equal(q, [[3.0, 1.0], [2.0, 4.0]])


# --- fixed points -----------------------------------------------------------------------------------------------------


def test_iteration_ends_within_the_accuracy_of_the_best_response_to_what_the_others_do() -> None:
    game = stochastic_game(1, StochasticGame(states=6, n_discrete=3, transition="dirichlet"))
    weight = np.rint(game.probability * 1000).astype(int)  # an empirical model that is almost the true one
    state, action = (part.ravel() for part in np.indices(weight.shape[:2]))
    count = weight.sum(axis=2).ravel()
    past = Transitions(
        state=np.repeat(state, count),
        action=np.repeat(action, count),
        reward=np.repeat(game.reward[0].ravel(), count),
        following=np.concatenate([np.repeat(np.arange(6), w) for w in weight.reshape(-1, 6)]),
        terminated=np.zeros(count.sum(), bool),
    )
    counted = Game(
        n_discrete=game.n_discrete, reward=game.reward, successor=game.successor, start=game.start,
        probability=weight / weight.sum(axis=2, keepdims=True),
    )  # fmt: skip
    best, _ = optimum(counted, GAMMA)
    for accuracy in (1.0, 1e-2, 1e-6):
        q = np.random.default_rng(0).uniform(size=(6, 3))
        taken = iterate(q, past, gamma=GAMMA, accuracy=accuracy, sweeps=10_000)
        assert np.abs(q.max(axis=1) - best).max() <= accuracy
        assert taken <= sweeps_needed(accuracy, float(np.abs(game.reward).max()), GAMMA)


def test_iteration_leaves_alone_what_it_has_not_seen_and_stops_at_its_limit() -> None:
    q = np.zeros((2, 2))
    assert iterate(q, transitions([(0, 0, 1.0, 0, False)]), gamma=0.5, accuracy=1e-9, sweeps=3) == 3
    np.testing.assert_array_equal(q, [[1.75, 0.0], [0.0, 0.0]])
    ends = np.zeros((1, 1))
    assert iterate(ends, transitions([(0, 0, 4.0, 0, True), (0, 0, 2.0, 0, True)]), gamma=1.0, accuracy=1e-9, sweeps=9) == 2
    assert ends[0, 0] == 3.0


def test_one_agent_alone_learns_the_optimum() -> None:
    game = stage_game(2, 0)
    alone = Game(
        n_discrete=(9,), reward=game.reward[:1], successor=game.successor, probability=game.probability, start=game.start
    )  # fmt: skip
    past, best = every_move(alone, 0), optimum(alone, GAMMA)[0]
    q, ideal = np.zeros((alone.n_states, 9)), IdealQ(np.zeros((alone.n_states, 9)), np.random.default_rng(0))
    place = ideal.note(past)
    for _ in range(20):
        replay(q, past, gamma=GAMMA, step=1.0)
        ideal.replay(past, place, gamma=GAMMA, step=1.0)
    np.testing.assert_allclose(q.max(axis=1), best, atol=1e-12)
    np.testing.assert_allclose(ideal.q, q, atol=1e-12)


@pytest.mark.parametrize("agent", [0, 1])
def test_ideal_values_are_the_optimal_joint_ones(agent: int) -> None:
    game = stage_game(3, 4)
    ideal, past = IdealQ(np.zeros((game.n_states, 3)), np.random.default_rng(0)), every_move(game, agent)
    place = ideal.note(past)
    for _ in range(30):
        ideal.replay(past, place, gamma=GAMMA, step=1.0)
    best, _ = optimum(game, GAMMA)
    np.testing.assert_allclose(ideal.best_successor_values(), best, atol=1e-12)
    np.testing.assert_allclose(ideal.q.max(axis=1), best, atol=1e-12)
    joint = (game.team() + GAMMA * game.expect(best)).reshape(-1, 3, 3)
    np.testing.assert_allclose(ideal.q, joint.max(axis=2 - agent), atol=1e-12)


def test_chance_makes_an_optimist_of_it() -> None:
    past = transitions([(0, 0, 0.0, 1, False), (0, 0, 0.0, 2, False), (1, 0, 1.0, 1, True), (2, 0, -1.0, 2, True)])
    ideal, plain = IdealQ(np.zeros((3, 1)), np.random.default_rng(0)), np.zeros((3, 1))
    place = ideal.note(past)
    for _ in range(5):
        ideal.replay(past, place, gamma=1.0, step=1.0)
        replay(plain, past, gamma=1.0, step=1.0)
    assert ideal.q[0, 0] == 1.0
    assert plain[0, 0] == 0.0


def test_what_is_noted_in_pieces_and_grown_is_what_is_noted_at_once() -> None:
    game = stage_game(2, 1)
    past = every_move(game, 0)
    whole = IdealQ(np.zeros((game.n_states, 3)), np.random.default_rng(0))
    grown = IdealQ(np.zeros((10, 3)), np.random.default_rng(0))
    first = past.state == 0
    parts = [Transitions(**{name: getattr(past, name)[rows] for name in past.__slots__}) for rows in (first, ~first)]
    at_once, pieces = whole.note(past), [grown.note(parts[0])]
    grown.extend(np.zeros((game.n_states - 10, 3)))
    pieces.append(grown.note(parts[1]))
    np.testing.assert_array_equal(np.concatenate(pieces), np.concatenate([at_once[first], at_once[~first]]))
    for _ in range(5):
        whole.replay(past, at_once, gamma=1.0, step=1.0)
        for part, place in zip(parts, pieces, strict=True):
            grown.replay(part, place, gamma=1.0, step=1.0)
    np.testing.assert_allclose(grown.q, whole.q, atol=1e-12)


# --- learning ---------------------------------------------------------------------------------------------------------


def test_ideal_learners_find_the_optimum_of_stage_games_and_independent_ones_do_not() -> None:
    games = [stage_game(3, seed) for seed in range(20)]
    ideal = stage_ratios("i2q", games, 15_000, 0, every=200, step=0.5)
    plain = stage_ratios("iql", games, 15_000, 0)
    assert np.isclose(ideal, 1.0).mean() >= 0.95
    assert np.isclose(plain, 1.0).mean() <= 0.5
    assert plain.mean() <= ideal.mean() - 0.03


@pytest.mark.slow
def test_the_same_at_four_stages() -> None:
    games = [stage_game(4, seed) for seed in range(8)]
    ideal = stage_ratios("i2q", games, 100_000, 0, every=1000, step=0.9)
    plain = stage_ratios("iql", games, 20_000, 0)
    assert np.isclose(ideal, 1.0).mean() >= 0.95
    assert np.isclose(plain, 1.0).mean() <= 0.5
    assert plain.mean() <= ideal.mean() - 0.03


@pytest.mark.slow
def test_converged_turns_come_near_the_optimum_and_rest_in_an_equilibrium() -> None:
    game = stochastic_game(3, StochasticGame())
    best = float(game.start @ optimum(game, 0.99)[0])
    converged = list(turns(game, "converged", 15, 0))
    cut_short = list(turns(game, "one_step", 15, 0, episodes=100))
    at_once = list(turns(game, "simultaneous", 15, 0))
    value, gap = converged[-1]
    assert value >= 0.87 * best
    assert gap <= 0.02 * best
    assert cut_short[-1][0] <= value - 0.1 * best  # the theorem needs responses that are best up to ε
    assert at_once[-1][0] <= value - 0.1 * best
    assert max(gap for _, gap in at_once[-3:]) > 0.2 * best


def test_exact_turns_never_lose_and_end_in_an_equilibrium() -> None:
    for seed in range(3):
        game = stochastic_game(3, StochasticGame(seed=seed))
        rng = np.random.default_rng(seed)
        start = constant(game, [rng.integers(5, size=30) for _ in range(3)])
        path = [performance(game, policies, 0.99) for policies in respond(game, start, 0.99, turns="alternating")]
        assert all(later >= earlier - 1e-9 for earlier, later in pairwise(path))
        *_, last = respond(game, start, 0.99, turns="alternating")
        assert nash_gap(game, last, 0.99) < 1e-6


def test_a_turn_taken_to_its_end_is_the_exact_best_response() -> None:
    game = stage_game(3, 2)
    rng = np.random.default_rng(5)
    others = rng.integers(3, size=game.n_states)
    policies = constant(game, [np.zeros(game.n_states, int), others])
    past = every_move(game, 0)
    played = Transitions(**{
        name: getattr(past, name)[np.unravel_index(np.tile(np.arange(9), game.n_states), (3, 3))[1] == others[past.state]]
        for name in past.__slots__
    })  # fmt: skip
    q = np.zeros((game.n_states, 3))
    iterate(q, played, gamma=1.0, accuracy=1e-12, sweeps=10)
    np.testing.assert_allclose(q.max(axis=1), best_response(game, policies, 0, 1.0)[0], atol=1e-12)


def test_ideal_learners_find_the_eight_where_joint_actions_show_and_independent_ones_avoid_it() -> None:
    payoff = np.array([[8.0, -20.0, -20.0], [-20.0, 0.0, 0.0], [-20.0, 0.0, 0.0]])
    assert np.array_equal(matrix_game(MatrixGame(payoff="non_monotone")).reward[0, 0], payoff.ravel())
    flat = one_shot(payoff)
    shown = Game(  # the joint action leads to a state of its own, which pays it
        n_discrete=(3, 3), reward=np.broadcast_to(np.append(0.0, payoff)[None, :, None], (2, 10, 9)),
        successor=np.where(np.arange(10)[:, None] == 0, 1 + np.arange(9), 0)[:, :, None],
        probability=np.broadcast_to((np.arange(10) == 0).astype(float)[:, None, None], (10, 9, 1)), start=np.eye(10)[0],
    )  # fmt: skip
    for agent in (0, 1):
        q = np.zeros((1, 3))
        past = every_move(flat, agent)
        for _ in range(50):
            replay(q, past, gamma=1.0, step=0.1)
        assert q[0].argmax() != 0
        ideal, past = IdealQ(np.zeros((10, 3)), np.random.default_rng(0)), every_move(shown, agent)
        place = ideal.note(past)
        for _ in range(50):
            ideal.replay(past, place, gamma=1.0, step=0.5)
        assert ideal.q[0].argmax() == 0
        assert ideal.q[0, 0] == pytest.approx(8.0, abs=1e-6)
