"""Who acts by weights of somebody else: which ones a copy acts by, and that they are what was learnt."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from node.learners.led import Executor
from node.learners.off_policy.action_values import Samples
from node.learners.off_policy.learner import OffPolicyLearner
from node.learners.off_policy.mixer import Team
from node.numerics.critics import Shape
from node.numerics.rollout import Rollout
from node.protocol.kinds import policy_width
from scenarios.schema import Algorithm
from tests.builders import shape
from topology.snapshot import read, write

E, WIDTHS, CHOICES, SEED = 4, (2, 3), (3, 2), 7


def algorithm(name: str = "qmix", **settings: Any) -> Algorithm:
    return Algorithm.model_validate({"name": name, "hidden": [6], "head_gain": 1.0, "critic_lr": 0.05, **settings})


def sizes(agent: int) -> Shape:
    return shape(agent=agent, seed=SEED, copies=E, width=WIDTHS[agent], n_discrete=CHOICES[agent])


def executor(agent: int = 0, **settings: Any) -> Executor:
    one = Executor(sizes(agent), algorithm(**settings))
    one.begin_round(0, explore=False)
    return one


def taught(**settings: Any) -> Team:
    """A team that has learnt something of nothing in particular, and seen inputs far from standard."""
    draw, team = np.random.default_rng(0), Team(WIDTHS, CHOICES, algorithm(**settings), SEED)
    observation = (5.0 + 3.0 * draw.normal(size=(200, sum(WIDTHS)))).astype(np.float32)
    action = np.stack([draw.integers(count, size=200) for count in CHOICES], axis=1).astype(np.float32)
    team.take(Samples(observation, action, draw.normal(size=200).astype(np.float32), observation[::-1], np.zeros(200, np.bool_)))
    team.learn(20, draw)
    team.end(observation)
    return team


def liked(team: Team, observation: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return np.asarray(team.value.liked(team._norm(torch.from_numpy(observation))).numpy())


@pytest.mark.parametrize("settings", [
    {}, {"input_norm": "none"}, {"input_norm": "layer"}, {"layer_norm": True}, {"hidden": []}, {"hidden": [5, 4]},
], ids=str)  # fmt: skip
def test_weights_that_are_sent_make_an_agent_do_what_the_team_likes(settings: dict[str, Any]) -> None:
    team, observation = taught(**settings), (5.0 + 3.0 * np.random.default_rng(1).normal(size=(E, 5))).astype(np.float32)
    for agent, place in enumerate((slice(0, 2), slice(2, 5))):
        sent = team.policy(agent)
        assert len(sent) == policy_width(WIDTHS[agent], CHOICES[agent], algorithm(**settings))
        one = executor(agent, **settings)
        differs = False
        for shift in range(20):
            block = observation[:, place] + np.float32(shift - 10)
            whole = np.zeros((E, 5), np.float32)
            whole[:, place] = block
            before = one.act(0, block)
            one.take_policy(np.tile(sent, (E, 1)), np.ones(E, np.bool_))
            after = one.act(0, block)
            np.testing.assert_array_equal(after[:, 0], liked(team, whole)[:, agent])
            differs |= bool((before != after).any())
            one = executor(agent, **settings)
        assert differs


def test_before_anything_is_sent_agents_and_the_team_like_the_same() -> None:
    team, observation = Team(WIDTHS, CHOICES, algorithm(), SEED), np.random.default_rng(2).normal(size=(E, 5)).astype(np.float32)
    for agent, place in enumerate((slice(0, 2), slice(2, 5))):
        np.testing.assert_array_equal(executor(agent).act(0, observation[:, place])[:, 0], liked(team, observation)[:, agent])


def constant(choice: int) -> np.ndarray:
    """Weights by which an agent without hidden layers takes one choice, whatever it sees."""
    bias = np.zeros(3, np.float32)
    bias[choice] = 1.0
    return np.concatenate((np.zeros(6, np.float32), bias, np.zeros(2, np.float32), np.ones(2, np.float32)))


def test_a_copy_acts_by_what_has_reached_it_and_forgotten_is_what_none_acts_by(tmp_path: Path) -> None:
    one, nothing = executor(hidden=[]), np.zeros((E, 2), np.float32)
    one.take_policy(np.tile(constant(1), (E, 1)), np.ones(E, np.bool_))
    blanked = np.tile(constant(2), (E, 1))
    blanked[[0, 3]] = 0.0
    one.take_policy(blanked, np.array([False, True, True, False]))
    assert one.act(0, nothing)[:, 0].tolist() == [1, 2, 2, 1]
    assert one.end_round(Rollout.make(1, E, 2, 1, 0))["versions"] == 2
    np.testing.assert_array_equal(one.weights()["q"], constant(2)[:9])
    write(tmp_path / "state", one.state())
    again = executor(hidden=[])
    again.restore(read(tmp_path / "state"))
    for each in (one, again):
        assert each.act(0, nothing)[:, 0].tolist() == [1, 2, 2, 1]
        each.take_policy(np.zeros((E, 13), np.float32), np.zeros(E, np.bool_))
        assert each.act(0, nothing)[:, 0].tolist() == [1, 2, 2, 1]
        each.take_policy(np.tile(constant(0), (E, 1)), np.array([True, False, False, True]))
        assert each.act(0, nothing)[:, 0].tolist() == [0, 2, 2, 0]
        assert each.end_round(Rollout.make(1, E, 2, 1, 0))["versions"] == 2
        each.take_policy(np.tile(constant(1), (E, 1)), np.ones(E, np.bool_))
        assert each.act(0, nothing)[:, 0].tolist() == [1] * E
        assert each.end_round(Rollout.make(1, E, 2, 1, 0))["versions"] == 1


def test_a_checkpoint_of_it_is_one_of_independent_learning_and_what_does_not_fit_is_refused() -> None:
    one, observation = executor(), np.random.default_rng(3).normal(size=(E, 2)).astype(np.float32)
    one.take_policy(np.tile(taught().policy(0), (E, 1)), np.ones(E, np.bool_))
    alone = OffPolicyLearner(sizes(0), slice(0, 2), algorithm("iql"))
    other = executor()
    for each in (alone, other):
        each.load_policy(one.weights())
        each.begin_round(0, explore=False)
        np.testing.assert_array_equal(each.act(0, observation), one.act(0, observation))
        with pytest.raises(ValueError, match="checkpoint of agent 0: q needs shape"):
            each.load_policy(executor(1).weights())


def test_choices_that_cannot_be_made_are_neither_liked_nor_drawn() -> None:
    """An agent that sees an input and a mask of three."""
    sized = shape(seed=SEED, steps=50, copies=E, width=4, n_discrete=3, mask=slice(1, 4), actor_mask=slice(1, 4))
    one = Executor(sized, algorithm(hidden=[], off_policy={"epsilon_start": 0.5, "warm_up_steps": 0}))
    likes_0 = np.concatenate((np.zeros(12), [100.0, 0.0, 1.0], np.zeros(4), np.ones(4))).astype(np.float32)
    one.take_policy(np.tile(likes_0, (E, 1)), np.ones(E, np.bool_))
    observation = np.tile(np.array([0.0, 0.0, 1.0, 1.0], np.float32), (E, 1))
    one.begin_round(0, explore=False)
    assert set(one.act(0, observation).ravel()) == {2.0}
    one.begin_round(0)
    assert set(np.concatenate([one.act(step, observation).ravel() for step in range(50)])) == {1.0, 2.0}
