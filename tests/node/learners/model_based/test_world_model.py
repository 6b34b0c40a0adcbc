"""The world model: its window, what it learns of categories, numbers and ends, and what its prediction is good for."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from node.learners.model_based.world_model import WorldModel
from node.learners.off_policy.action_values import Samples
from scenarios.schema import Algorithm
from tests.builders import shape
from topology.snapshot import read, write

Floats = NDArray[np.float32]
B, S = 400, 4


def model(width: int = S, *, n_discrete: int = 2, one_hot: bool = True, seed: int = 0, **settings: Any) -> WorldModel:
    parts = (slice(0, width),) if one_hot else ()
    sizes = shape(seed=seed, steps=20, copies=B // 20, rounds=20, width=width, n_discrete=n_discrete, one_hot=parts)
    settings = {"latent": 4, "hidden": [32, 32], "lr": 1e-3} | settings
    return WorldModel(sizes, Algorithm.model_validate({"name": "mdpo", "world_model": settings}))


def learn(one: WorldModel, samples: Samples, round_: int) -> None:
    draw = np.random.default_rng(round_)
    one.take(samples, draw)
    for _ in one.fit(draw):
        pass


def test_the_models_steps_fall_with_those_of_the_policy() -> None:
    one = model()
    samples = of_others(0.0, np.random.default_rng(0))
    learn(one, samples, 0)
    before = {key: tensor.clone() for key, tensor in one.weights().items() if key != "model_inputs"}
    one.decay(0.0)
    learn(one, samples, 1)
    assert all(torch.equal(one.weights()[key], before[key]) for key in ("model", "latent_0", "predictor"))


def shown(state: NDArray[np.intp]) -> Floats:
    return np.eye(S, dtype=np.float32)[state]


WORTH = np.array([1.0, -1.0, 0.5, 2.0])


def of_others(drift: float, rng: np.random.Generator) -> Samples:
    """A round in which the others bring the team to state 0 and pay it, both the more the further they have drifted."""
    state = rng.integers(S, size=B)
    following = np.where(rng.random(B) < 0.1 + 0.06 * drift, 0, rng.integers(S, size=B))
    return Samples(
        observation=shown(state),
        action=rng.integers(2, size=(B, 1)).astype(np.float32),
        reward=(0.3 * drift * WORTH[state] + 0.3 * rng.normal(size=B)).astype(np.float32),
        following=shown(following),
        terminated=np.zeros(B, np.bool_),
    )


# --- the window -------------------------------------------------------------------------------------------------------


def test_after_k_rounds_there_are_the_last_l_of_them_each_with_its_own_latent() -> None:
    one = model(window=3, passes=1)
    for k in range(6):
        samples = of_others(0.0, np.random.default_rng(k))
        samples.reward[:] = k
        before = copy.deepcopy(one.weights())
        one.take(samples, np.random.default_rng(k))
        kept = one.state()["window"]
        assert [float(reward.mean()) for _, _, reward, _, _ in kept] == list(range(max(0, k - 2), k + 1))
        assert one.metrics().get("model_rounds", 0) == min(k, 3)  # of the fit before
        after = one.weights()
        newest, shift = min(k, 2), k >= 3
        if k:
            assert torch.equal(after[f"latent_{newest}"], before[f"latent_{newest if shift else newest - 1}"])
        for j in range(newest):
            assert torch.equal(after[f"latent_{j}"], before[f"latent_{j + shift}"])
        for _ in one.fit(np.random.default_rng(k)):
            pass
        assert len({tuple(one.weights()[f"latent_{j}"].tolist()) for j in range(newest + 1)}) == newest + 1


def test_samples_of_a_round_stay_together() -> None:
    one, rng = model(), np.random.default_rng(0)
    state = np.arange(B) % S
    samples = of_others(0.0, rng)
    samples.observation[:], samples.following[:] = shown(state), shown((state + 1) % S)
    samples.action[:, 0], samples.reward[:] = state, state
    samples.terminated[:] = state == 2
    one.take(samples, rng)
    ((observation, action, reward, following, terminated),) = one.state()["window"]
    assert not np.array_equal(observation, samples.observation)  # shuffled
    state = observation.argmax(1)
    np.testing.assert_array_equal(action[:, 0], state)
    np.testing.assert_array_equal(reward, state)
    np.testing.assert_array_equal(following.argmax(1), (state + 1) % S)
    np.testing.assert_array_equal(terminated, state == 2)


@pytest.mark.exact
@pytest.mark.parametrize("kind", ["categories", "numbers"])
def test_a_model_taken_back_to_where_another_was_goes_on_as_that_would(tmp_path: Path, kind: str) -> None:
    sizes: dict[str, Any] = {"width": S} if kind == "categories" else {"width": 2, "n_discrete": 0, "one_hot": False}

    def learn_rounds(one: WorldModel, *rounds: int) -> None:
        for k in rounds:
            rng = np.random.default_rng(k)
            learn(one, of_others(k, rng) if kind == "categories" else of_numbers(rng, B), k)

    whole, half, again = (model(**sizes, window=2, passes=2) for _ in range(3))
    learn_rounds(whole, 0, 1, 2, 3, 4)
    learn_rounds(half, 0, 1, 2)
    write(tmp_path / "state", half.state())
    again.restore(read(tmp_path / "state"))
    learn_rounds(again, 3, 4)
    assert again.metrics() == whole.metrics()
    for name, tensor in whole.weights().items():
        assert torch.equal(again.weights()[name], tensor), name
    asked = np.eye(S, sizes["width"], dtype=np.float32), np.zeros((S, 1), np.float32)
    for mine, theirs in zip(*(one.step(*asked, np.random.default_rng(0)) for one in (whole, again)), strict=True):
        np.testing.assert_array_equal(mine, theirs)


# --- what it learns ---------------------------------------------------------------------------------------------------


def test_categories_are_drawn_as_often_as_they_follow_and_ends_as_often_as_they_come() -> None:
    """A chain that moves on with choice 1 and stays with 0, slips to any state a fifth of the time, and may end in state 3."""
    one, rng = model(lr=3e-3, passes=100), np.random.default_rng(0)
    for k in range(3):
        state, action = rng.integers(S, size=4 * B), rng.integers(2, size=4 * B)
        slips = rng.random(4 * B) < 0.2
        following = np.where(slips, rng.integers(S, size=4 * B), (state + action) % S)
        ended = (state == 3) & (rng.random(4 * B) < 0.4)
        following[ended] = 0  # of no meaning, and not to be learnt
        reward = (state - 2 * action).astype(np.float32)
        learn(one, Samples(shown(state), action[:, None].astype(np.float32), reward, shown(following), ended), k)
    for here in range(S):
        for taken in range(2):
            asked = shown(np.full(4000, here)), np.full((4000, 1), taken, np.float32)
            following, reward, ended = one.step(*asked, np.random.default_rng(1))
            assert set(np.unique(following)) <= {0.0, 1.0}
            np.testing.assert_array_equal(following.sum(1), 1.0)
            expected = np.full(S, 0.05) + 0.8 * np.eye(S)[(here + taken) % S]
            np.testing.assert_allclose(following.mean(axis=0), expected, atol=0.07)
            assert reward.mean() == pytest.approx(here - 2 * taken, abs=0.15)
            assert ended.mean() == pytest.approx(0.4 if here == 3 else 0.0, abs=0.06)


def of_numbers(rng: np.random.Generator, size: int = 4 * B) -> Samples:
    """x' = 0.8 x + a + 0.5 w, and a column of millions that hardly moves; the reward is what x is."""
    x, action, noise = rng.normal(size=(3, size))
    far = 1e6 + 10 * rng.normal(size=size)
    observation = np.stack((x, far), axis=1).astype(np.float32)
    following = np.stack((0.8 * x + action + 0.5 * noise, far + 1.0), axis=1).astype(np.float32)
    return Samples(observation, action[:, None].astype(np.float32), x.astype(np.float32), following, np.zeros(size, np.bool_))


def test_numbers_follow_with_their_mean_and_spread_whatever_their_units() -> None:
    one, rng = model(2, n_discrete=0, one_hot=False, lr=3e-3), np.random.default_rng(0)
    for k in range(2):
        learn(one, of_numbers(rng), k)
    for x, action in ((0.0, 0.0), (1.0, -0.5), (-1.0, 1.0)):
        observation = np.tile(np.array([x, 1e6], np.float32), (4000, 1))
        following, reward, ended = one.step(observation, np.full((4000, 1), action, np.float32), np.random.default_rng(1))
        assert following[:, 0].mean() == pytest.approx(0.8 * x + action, abs=0.1)
        assert following[:, 0].std() == pytest.approx(0.5, rel=0.15)
        assert following[:, 1].mean() == pytest.approx(1e6 + 1, abs=0.5)
        assert reward.mean() == pytest.approx(x, abs=0.1)
        assert not ended.any()


# --- what prediction is good for --------------------------------------------------------------------------------------


def distance(one: Floats, other: Floats) -> float:
    """Kolmogorov and Smirnov's: the greatest between two empirical distributions."""
    everywhere = np.sort(np.concatenate((one, other)))
    below = [np.searchsorted(np.sort(sample), everywhere, side="right") / len(sample) for sample in (one, other)]
    return float(np.abs(below[0] - below[1]).max())


@pytest.mark.slow
@pytest.mark.parametrize("drift", [0.0, 0.5])
def test_with_others_that_stand_still_prediction_makes_no_difference_and_with_others_that_move_it_does(drift: float) -> None:
    """Two samples of one round's size; 0.115 is what Kolmogorov and Smirnov's distance exceeds once in a hundred times."""
    found = []
    for prediction in (True, False):
        one = model(2, n_discrete=0, one_hot=False, prediction=prediction, hidden=[16], passes=20, lr=3e-3)
        for k in range(6):
            rng = np.random.default_rng(k)
            samples = of_numbers(rng, B)
            samples.following[:, 0] += drift * k
            learn(one, samples, k)
        asked = of_numbers(np.random.default_rng(99), B)
        found.append(one.step(asked.observation, asked.action, np.random.default_rng(prediction)))
    critical = 1.63 * (2 / B) ** 0.5
    assert (distance(found[0][0][:, 0], found[1][0][:, 0]) > critical) is (drift > 0)
    assert distance(found[0][1], found[1][1]) < critical  # rewards are the agent's own


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_prediction_is_nearer_to_the_round_to_come_than_the_last_one_is(seed: int) -> None:
    errors: dict[bool, list[float]] = {True: [], False: []}
    states = np.repeat(np.arange(S), 250)
    for prediction, error in errors.items():
        one = model(seed=seed, prediction=prediction)
        rng = np.random.default_rng(seed)
        for k in range(10):
            learn(one, of_others(k, rng), k)
            if k >= 4:
                _, reward, _ = one.step(shown(states), np.zeros((len(states), 1), np.float32), np.random.default_rng(0))
                error.append(float(np.abs(reward.reshape(S, -1).mean(1) - 0.3 * (k + 1) * WORTH).mean()))
    assert np.mean(errors[True]) < 0.9 * np.mean(errors[False])
