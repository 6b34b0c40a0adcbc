"""Values that remember: what they forget when, what they learn from, and a task that cannot be done without memory."""

from typing import Any

import numpy as np
import pytest
import torch

from node.learners.off_policy.action_values import DoubleQ, Samples
from node.learners.off_policy.recurrent import UNITS, RecurrentQ
from scenarios.schema import Algorithm

LENGTH, COPIES = 4, 16  # of an episode; of the world


def algorithm(**off_policy: Any) -> Algorithm:
    return Algorithm.model_validate({
        "name": "iql", "hidden": [], "input_norm": "none", "critic_lr": 0.005, "max_grad_norm": 10.0, "gamma": 0.9,
        "head_gain": 1.0, "off_policy": {"representation": "recurrent", "batch": 128, "target_keep": 0.9, **off_policy},
    })  # fmt: skip


def values(steps: int, width: int = 2, n_discrete: int = 2, **off_policy: Any) -> RecurrentQ:
    return RecurrentQ(width, n_discrete, steps, COPIES, algorithm(**off_policy), torch.Generator().manual_seed(0))


def recalled(draw: np.random.Generator, steps: int, rounds: int) -> list[Samples]:
    """Random play where at an episode's last step the choice pays 1 that was shown as ±1 at its first, and nothing else does.

    What is seen besides is how far the episode is. Copies are at different places of their episodes.
    """
    total = rounds * steps
    place = (np.arange(total + 1)[:, None] + np.arange(COPIES)) % LENGTH
    shown = draw.integers(2, size=(total + LENGTH, COPIES))
    start = np.arange(total + 1)[:, None] + LENGTH - place  # row of `shown` that an episode began with
    secret = np.take_along_axis(np.concatenate((shown, shown)), start, axis=0)
    observation = np.stack((np.where(place == 0, 2.0 * secret - 1.0, 0.0), place / LENGTH), axis=2).astype(np.float32)
    action = draw.integers(2, size=(total, COPIES)).astype(np.float32)
    ends = place[:-1] == LENGTH - 1
    reward = (ends & (action == secret[:-1])).astype(np.float32)
    return [
        Samples(
            observation=observation[:-1][part].reshape(-1, 2), action=action[part].reshape(-1, 1),
            reward=reward[part].reshape(-1), following=observation[1:][part].reshape(-1, 2), terminated=ends[part].reshape(-1),
            is_first=(place[:-1] == 0)[part].reshape(-1),
        )
        for part in (slice(k * steps, (k + 1) * steps) for k in range(rounds))
    ]  # fmt: skip


def liked_at_the_end(one: RecurrentQ | DoubleQ, secret: int) -> float:
    """The choice in an episode's last step."""
    action = np.zeros((COPIES, 1), np.float32)
    for place in range(LENGTH):
        observation = np.tile(np.array([2.0 * secret - 1.0 if place == 0 else 0.0, place / LENGTH], np.float32), (COPIES, 1))
        action = one.best(observation)
    if isinstance(one, RecurrentQ):
        one.forget(np.ones(COPIES, np.bool_))
    assert len(np.unique(action)) == 1
    return float(action[0, 0])


@pytest.mark.slow
@pytest.mark.parametrize("steps", [8, 6], ids=["whole episodes", "episodes over the ends of stretches"])
def test_what_was_shown_first_is_remembered_to_the_end(steps: int) -> None:
    draw, one = np.random.default_rng(0), values(steps, burn_in=LENGTH - 1)
    for fresh in recalled(draw, steps, 20):
        one.take(fresh)
    for _ in one.learn(250, draw):
        pass
    assert [liked_at_the_end(one, secret) for secret in (0, 1)] == [0.0, 1.0]
    assert one.metrics()["value_loss"] < 0.1


def test_without_memory_it_cannot_be_done() -> None:
    draw = np.random.default_rng(0)
    one = DoubleQ(2, 2, algorithm(), torch.Generator().manual_seed(0))
    for fresh in recalled(draw, 8, 20):
        one.take(fresh)
    for _ in one.learn(250, draw):
        pass
    assert liked_at_the_end(one, 0) == liked_at_the_end(one, 1)


def test_nothing_is_remembered_over_the_beginning_of_an_episode() -> None:
    one, draw = values(7), torch.Generator().manual_seed(1)
    observation = torch.randn(3, 7, 2, generator=draw).requires_grad_()
    is_first = torch.zeros(3, 7, dtype=torch.bool)
    is_first[1, 4] = True
    memory = one.net.read(observation, is_first)
    alone = one.net.read(observation[:, 4:], torch.zeros(3, 3, dtype=torch.bool))
    torch.testing.assert_close(memory[1, 4:], alone[1])
    assert not torch.allclose(memory[0, 4:], alone[0])
    memory[:, 4:].sum().backward()
    assert observation.grad is not None
    assert (observation.grad[1, :4] == 0).all()
    assert (observation.grad[0, :4] != 0).any()


def test_acting_step_by_step_reads_what_learning_reads() -> None:
    one, draw = values(9, n_discrete=5), np.random.default_rng(2)
    observation = draw.normal(size=(9, COPIES, 2)).astype(np.float32)
    ended = draw.random((9, COPIES)) < 0.3
    liked = []
    for step in range(9):
        liked.append(one.best(observation[step])[:, 0])
        one.forget(ended[step])
    is_first = np.concatenate((np.ones((1, COPIES), np.bool_), ended[:-1]))
    with torch.no_grad():
        read = one.net(one.net.read(torch.from_numpy(observation.swapaxes(0, 1)), torch.from_numpy(is_first.T)))
    np.testing.assert_array_equal(np.stack(liked, axis=1), read.argmax(2).numpy())


@pytest.mark.parametrize("burn_in", [0, 2, 9])
def test_loss_is_over_samples_whose_memory_is_whole_or_burnt_in_and_targets_come_from_what_followed(burn_in: int) -> None:
    draw, one = np.random.default_rng(3), values(6, n_discrete=3, burn_in=burn_in, target_keep=0.5)

    def stretches() -> list[torch.Tensor]:
        observation, following = draw.normal(size=(2, 4, 6, 2)).astype(np.float32)
        action, reward = draw.integers(3, size=(4, 6)).astype(np.float32), draw.normal(size=(4, 6)).astype(np.float32)
        terminated, is_first = draw.random((2, 4, 6)) < 0.3
        return [torch.from_numpy(part) for part in (observation, action, reward, following, terminated, is_first)]

    for _ in range(5):
        one.step(*stretches())
    observation, action, reward, following, terminated, is_first = told = stretches()
    lagging, errors = one.lagging, []
    with torch.no_grad():
        for s in range(4):
            for t in range(6):
                begun = [k for k in range(t + 1) if is_first[s, k]]
                if not begun and t < burn_in:
                    continue
                since = max(begun, default=0)  # read afresh from there, by either network
                own, theirs = torch.zeros(1, UNITS), torch.zeros(1, UNITS)
                for k in range(since, t + 1):
                    own, theirs = one.net.after(observation[s, k][None], own), lagging.after(observation[s, k][None], theirs)
                said = one.net(own)[0, int(action[s, t])]
                own, theirs = one.net.after(following[s, t][None], own), lagging.after(following[s, t][None], theirs)
                onward = 0.0 if terminated[s, t] else 0.9 * float(lagging(theirs)[0, int(one.net(own).argmax())])
                errors.append(float(said) - float(reward[s, t]) - onward)
    assert one.step(*told) == pytest.approx(np.mean(np.square(errors)) if errors else 0.0, rel=1e-4)
