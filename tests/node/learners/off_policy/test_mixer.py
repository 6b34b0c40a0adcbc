"""QMIX's mixer: what it promises for every state, and the game that no such function can describe."""

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.values import mixed_fit
from node.learners.off_policy.action_values import Samples
from node.learners.off_policy.mixer import Flags, Mixer, Team
from scenarios.schema import Algorithm
from topology.deployment import Deployment
from topology.snapshot import read, write

N, WIDTH, ACTIONS = 3, 4, 3


def mixer(seed: int) -> tuple[Mixer, torch.Generator]:
    draw = torch.Generator().manual_seed(seed)
    return Mixer(N, WIDTH, draw), draw


@pytest.mark.parametrize("seed", range(5))
def test_the_team_never_loses_where_an_agent_gains(seed: int) -> None:
    mix, draw = mixer(seed)
    q = (3.0 * torch.randn(200, N, generator=draw)).requires_grad_()
    mix(q, torch.randn(200, WIDTH, generator=draw)).sum().backward()
    assert q.grad is not None
    assert (q.grad >= 0).all()
    assert (q.grad > 0).any(dim=0).all()


@pytest.mark.parametrize("seed", range(5))
def test_the_best_joint_action_is_what_each_agent_likes_best(seed: int) -> None:
    mix, draw = mixer(seed)
    state, own = torch.randn(50, WIDTH, generator=draw), torch.randn(50, N, ACTIONS, generator=draw)
    joint = list(product(range(ACTIONS), repeat=N))
    with torch.no_grad():
        values = torch.stack([mix(own[:, range(N), list(action)], state) for action in joint], dim=1)
        greedy = mix(own.max(dim=2).values, state)
    assert (values <= greedy[:, None]).all()
    assert torch.equal(values.max(dim=1).values, greedy)


def test_value_depends_on_the_state_and_the_state_turns_the_weights() -> None:
    mix, draw = mixer(0)
    q = torch.randn(1, N, generator=draw)
    with torch.no_grad():
        gains = [mix(q + 1.0, state[None]) - mix(q, state[None]) for state in torch.randn(5, WIDTH, generator=draw)]
    assert len({round(float(gain), 4) for gain in gains}) == 5


@pytest.mark.slow
def test_no_mixer_describes_the_game_of_minus_twenty() -> None:
    payoff = np.array([[8.0, -20.0, -20.0], [-20.0, 0.0, 0.0], [-20.0, 0.0, 0.0]])
    table = mixed_fit(payoff, 0)
    error = float(((table - payoff) ** 2).sum())
    assert 627.1 <= error < 660.0  # 627.2: the best that any monotone function does
    assert payoff.flat[table.argmax()] == 0.0
    easy = np.add.outer([0.0, 1.0, 5.0], [2.0, 0.0, -3.0])
    assert np.abs(mixed_fit(easy, 0) - easy).max() < 0.1


def team(seed: int, **settings: Any) -> Team:
    settings = {
        "name": "qmix",
        "hidden": [5],
        "head_gain": 1.0,
        "critic_lr": 0.05,
        "off_policy": {"target_keep": 0.9},
        **settings,
    }
    return Team((2, 1), (3, 2), Algorithm.model_validate(settings), seed)


def minibatch(draw: np.random.Generator, size: int) -> tuple[np.ndarray, ...]:
    action = np.stack([draw.integers(3, size=size), draw.integers(2, size=size)], axis=1).astype(np.float32)
    observation, following = draw.normal(size=(2, size, 3)).astype(np.float32)
    return observation, action, draw.normal(size=size).astype(np.float32), following, draw.random(size) < 0.3


@pytest.mark.parametrize("seed", range(3))
def test_the_target_is_what_the_lagging_team_makes_of_the_joint_action_that_the_learning_one_likes_best(seed: int) -> None:
    draw, one = np.random.default_rng(seed), team(seed, gamma=0.7)
    for _ in range(10):
        one.step(*minibatch(draw, 20))
    observation, action, reward, following, terminated = minibatch(draw, 50)
    joint = torch.tensor(list(product(range(3), range(2))))
    lagging = one._lagging.module
    total = 0.0
    with torch.no_grad():
        for k in range(50):
            after = torch.from_numpy(following[k]).expand(len(joint), -1)
            best = one.value(after, joint).argmax()  # over all joint actions at once, by no agent's leave
            onward = 0.0 if terminated[k] else 0.7 * float(lagging(after, joint)[best])
            said = one.value(torch.from_numpy(observation[k])[None], torch.from_numpy(action[k]).long()[None])
            total += (float(said) - float(reward[k]) - onward) ** 2
    assert one.step(observation, action, reward, following, terminated) == pytest.approx(total / 50, rel=1e-4)


@pytest.mark.exact
def test_a_team_taken_back_to_where_another_was_learns_on_as_that_would(tmp_path: Path) -> None:
    def rounds(one: Team, *which: int) -> dict[str, torch.Tensor]:
        for round_ in which:
            draw = np.random.default_rng(round_)
            one.take(Samples(*minibatch(draw, 30)))
            one.learn(5, draw)
            one.end(minibatch(draw, 30)[0])
        return {name: tensor.clone() for name, tensor in one.weights().items()}

    small = {"off_policy": {"batch": 8, "buffer": 40}}
    whole, half, again = (team(0, **small) for _ in range(3))
    wanted = rounds(whole, *range(4))
    rounds(half, 0, 1)
    write(tmp_path / "state", half.state())
    again.restore(read(tmp_path / "state"))
    found = rounds(again, 2, 3)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_without_anything_to_learn_from_nothing_is_learnt() -> None:
    one = team(0)
    before = one.weights()["team"].clone()
    nothing = Samples(*(part[:0] for part in minibatch(np.random.default_rng(0), 1)))
    one.take(nothing)
    one.learn(0, np.random.default_rng(0))
    one.end(nothing.observation)
    assert torch.equal(one.weights()["team"], before)
    assert one.metrics() == {"value_loss": 0.0, "replay": 0.0}


INPUTS, FLAGS = 2, Flags(masks=(slice(2, 5), None), presence=(5, 7))  # blocks: two inputs, a mask of 3, presence; input, presence


def flagged(seed: int) -> tuple[Team, list[np.ndarray]]:
    """A team with flags, and a minibatch in which all agents take part and can do everything."""
    settings = {"name": "qmix", "hidden": [5], "head_gain": 1.0, "critic_lr": 0.05, "input_norm": "none"}
    one = Team((6, 2), (3, 2), Algorithm.model_validate(settings), seed, FLAGS)
    columns = [np.array(column) for column in minibatch(np.random.default_rng(seed), 20)]
    for place in (0, 3):
        columns[place] = np.concatenate(
            [columns[place][:, :2], np.ones((20, 4)), columns[place][:, 2:], np.ones((20, 1))], axis=1
        )
        columns[place] = columns[place].astype(np.float32)
    return one, columns


def test_an_agent_that_has_ended_has_no_part_in_the_teams_value() -> None:
    losses, moved = [], []
    for action in (0.0, 1.0):
        one, columns = flagged(0)
        columns[0][:, 7] = columns[3][:, 7] = [0.0] * 10 + [-1.0] * 10
        columns[1][:, 1] = action
        before = [part.detach().clone() for part in one.value.own[1].parameters()]
        losses.append(one.step(*columns))
        moved.append(any(not torch.equal(a, b) for a, b in zip(before, one.value.own[1].parameters(), strict=True)))
    assert losses[0] == losses[1]
    assert moved == [False, False]
    one, columns = flagged(0)
    others = losses[0]
    assert one.step(*columns) != others


def test_what_follows_is_worth_nothing_that_cannot_be_chosen() -> None:
    one, columns = flagged(0)
    plain = one.step(*columns)
    losses = []
    for can in (1.0, 0.0):
        one, columns = flagged(0)
        columns[3][:, 2] = can
        teams: list[Any] = [one.value, one._lagging.module]
        with torch.no_grad():
            for each in teams:
                each.own[0].head.bias[0] = 100.0
        columns[1][:, 0] = 1.0
        losses.append(one.step(*columns))
    assert losses[0] > 100 * losses[1]
    assert losses[1] < 100 * plain


def test_flags_stand_at_the_end_of_each_block() -> None:
    sizes: dict[str, Any] = {"obs_dims": (6, 2), "act_dims": (1, 1), "n_discrete": (3, 2), "cost_limits": (), "dt": 1.0}
    sizes |= {"alive_bonus": 0.0, "horizon": 5, "edges": ((0, 1),)}
    assert Flags.of(Deployment(**sizes, masked=(True, False), presence=True)) == FLAGS
    assert Flags.of(Deployment(**sizes)) == Flags(masks=(None, None))
