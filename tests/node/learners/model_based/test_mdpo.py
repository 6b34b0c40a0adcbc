"""MDPO's learner: how branches become a rollout, and that samples of a perfect model pull the policy where real ones do."""

from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from coordinator.records.plan import plan
from envs.games.games import stochastic_game
from envs.games.settings import StochasticGame
from envs.games.tabular import Array, chain, joint, values
from node.learners.making import make_on_policy_learner
from node.learners.model_based.mdpo import ImaginingLearner, Model, branched
from node.learners.on_policy.learner import Learner
from node.numerics.rollout import Rollout
from node.protocol.routing import AgentRouting
from scenarios.loading import load
from scenarios.schema import Algorithm
from tests.builders import shape

Floats = NDArray[np.float32]


# --- branches ---------------------------------------------------------------------------------------------------------


class Counting:
    """Every step adds 1 to the observation and pays it; an episode terminates where it would reach `end`."""

    def __init__(self, end: float) -> None:
        self._end = end

    def step(self, observation: Floats, action: Floats, draw: np.random.Generator) -> tuple[Floats, Floats, NDArray[np.bool_]]:
        np.testing.assert_array_equal(action, 2 * observation)
        return observation + 1, observation[:, 0].copy(), observation[:, 0] + 1 >= self._end


@given(steps=st.integers(1, 14), copies=st.integers(1, 4), branch=st.integers(1, 6), end=st.sampled_from([3, 102, 1000]))
def test_branches_lie_end_to_end_and_are_cut_or_terminated(steps: int, copies: int, branch: int, end: int) -> None:
    starts = np.array([[0.0], [100.0]], np.float32) if end > 3 else np.array([[0.0]], np.float32)
    rollout = branched(
        Counting(end), lambda observation, _: 2 * observation, starts, steps=steps, copies=copies, branch=branch,
        draw=np.random.default_rng(0),
    )  # fmt: skip
    assert rollout.observation.shape == (steps, copies, 1)
    assert rollout.reward.shape == rollout.terminated.shape == rollout.truncated.shape == (steps, copies)
    assert rollout.cost.shape == (steps, copies, 0)
    observation, last = rollout.observation[:, :, 0], np.arange(steps) % branch == branch - 1
    np.testing.assert_array_equal(rollout.reward, observation)
    np.testing.assert_array_equal(rollout.action[:, :, 0], 2 * observation)
    np.testing.assert_array_equal(rollout.terminated, observation + 1 >= end)
    np.testing.assert_array_equal(rollout.truncated, last[:, None] & ~rollout.terminated)
    over = (rollout.terminated | rollout.truncated)[:-1]
    np.testing.assert_array_equal(observation[1:][~over], observation[:-1][~over] + 1)
    assert np.isin(observation[1:][over], starts).all()
    assert np.isin(observation[0], starts).all()
    cuts = rollout.cuts()
    np.testing.assert_array_equal(rollout.cut_observation[:, 0], observation[cuts[:, 0], cuts[:, 1]] + 1)


# --- a perfect model --------------------------------------------------------------------------------------------------

GAMMA, S, A, STEPS, COPIES = 0.9, 3, 3, 10, 200


class Team:
    """Two agents on a random game in its stationary state; the first one learns, and is shown the state."""

    def __init__(self) -> None:
        self.game = game = stochastic_game(2, StochasticGame(states=S, n_discrete=A, seed=4))
        self.learner = Learner(SHAPE, Algorithm.model_validate(LINEAR))
        rng = np.random.default_rng(5)
        flat = torch.from_numpy(rng.normal(size=S * A + A).astype(np.float32))
        self.learner.load_policy({**self.learner.weights(), "actor": flat})
        logits = flat[: S * A].view(A, S).T.double().numpy() + flat[S * A :].double().numpy()
        self.own: Array = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        self.other: Array = rng.dirichlet(np.ones(A), S)
        policies = (self.own, self.other)
        self.value = values(game, policies, GAMMA)[0]
        with torch.no_grad():
            critic = self.learner.weights()["critic_0"]  # no copy: the critic becomes exact, and stays so
            critic.copy_(torch.from_numpy(np.append(self.value, 0.0).astype(np.float32)))
        moves = chain(game, joint(policies))
        self.visits: Array = np.linalg.matrix_power(moves, 500)[0]

    def seen_by_one(self, other: Array) -> "Perfect":
        """What the game is to the first agent while the second has that policy: a perfect model."""
        pairs = self.game.probability.reshape(S, A, A, S)
        paid = self.game.reward[0].reshape(S, A, A)
        return Perfect(np.einsum("sb,sabt->sat", other, pairs), np.einsum("sb,sab->sa", other, paid))

    def gradient(self) -> Array:
        """Of the loss, in closed form: -d(s)·pi(a|s)·A(s, a) of the weights (A, S), and its sums over s of the biases."""
        model = self.seen_by_one(self.other)
        advantage = model.paid + GAMMA * model.move @ self.value - self.value[:, None]
        slope = -(self.visits[:, None] * self.own * advantage).T
        return np.append(slope.ravel(), slope.sum(1))

    def played(self, draw: np.random.Generator) -> Rollout:
        """A round of the game itself."""
        rollout = Rollout.make(STEPS, COPIES, S, 1, 0)
        state = draw.choice(S, size=COPIES, p=self.visits)
        for step in range(STEPS):
            rollout.observation[step] = np.eye(S, dtype=np.float32)[state]
            rollout.action[step] = self.learner.sampled(rollout.observation[step], draw)
            theirs = (draw.random(COPIES)[:, None] > np.cumsum(self.other, axis=1)[state]).sum(axis=1)
            act = rollout.action[step, :, 0].astype(int) * A + theirs
            rollout.reward[step] = self.game.reward[0, state, act]
            state = (draw.random(COPIES)[:, None] > np.cumsum(self.game.probability, axis=2)[state, act]).sum(axis=1)
        rollout.cut_observation = np.eye(S, dtype=np.float32)[state]
        return rollout

    def imagined(self, other: Array, draw: np.random.Generator) -> Rollout:
        """A round of the model, from where the game was."""
        observations = self.played(draw).observation.reshape(-1, S)
        policy = self.learner.sampled
        return branched(self.seen_by_one(other), policy, observations, steps=STEPS, copies=COPIES, branch=4, draw=draw)

    def pull(self, rollout: Rollout) -> Array:
        """The gradient by which training would set out from a rollout, in units of the reward."""
        learner = self.learner
        assert list(learner.learn_values(0, rollout, rollout.reward))
        samples, rows = learner._samples(rollout), torch.arange(STEPS * COPIES)
        learner._training._actor_step(samples, rows, None)
        found = learner._actor_trainer.gradient.double().numpy() * learner._metrics["advantage_std"]
        learner._actor_trainer.gradient.zero_()
        return found


class Perfect:
    """A model that knows all: P(s' | s, a), (S, A, S), and the mean reward, (S, A)."""

    def __init__(self, move: Array, paid: Array) -> None:
        self.move, self.paid = move, paid

    def step(self, observation: Floats, action: Floats, draw: np.random.Generator) -> tuple[Floats, Floats, NDArray[np.bool_]]:
        state, act = observation.argmax(1), action[:, 0].astype(int)
        following = (draw.random(len(observation))[:, None] > np.cumsum(self.move, axis=2)[state, act]).sum(axis=1)
        never = np.zeros(len(observation), np.bool_)
        return np.eye(S, dtype=np.float32)[following], self.paid[state, act].astype(np.float32), never


SHAPE = shape(steps=STEPS, copies=COPIES, rounds=10, width=S, n_discrete=A, one_hot=(slice(0, S),))
LINEAR: dict[str, Any] = {
    "name": "ippo", "hidden": [], "input_norm": "none", "value_norm": False, "critic_lr": 0.0, "gamma": GAMMA,
    "epochs": 1, "minibatches": 1,
}  # fmt: skip


def test_samples_of_a_perfect_model_have_ippos_gradient_and_those_of_a_wrong_one_have_not() -> None:
    """Real and imagined rounds set out along E[A·grad log pi]; a model of other others does not. Five standard errors."""
    team, draw, rounds = Team(), np.random.default_rng(0), 40
    exact = team.gradient()
    found = {
        "real": [team.pull(team.played(draw)) for _ in range(rounds)],
        "model": [team.pull(team.imagined(team.other, draw)) for _ in range(rounds)],
        "wrong": [team.pull(team.imagined(np.roll(team.other, 1, axis=1), draw)) for _ in range(rounds)],
    }
    far = {}
    for name, pulls in found.items():
        error = np.std(pulls, axis=0, ddof=1) / np.sqrt(rounds)
        assert error.max() < 0.1 * np.abs(exact).max()  # or the comparison would say little
        far[name] = (np.abs(np.mean(pulls, axis=0) - exact) / error).max()
    assert far["real"] < 5
    assert far["model"] < 5
    assert far["wrong"] > 10


# --- the learner ------------------------------------------------------------------------------------------------------


def imagining(**world_model: Any) -> ImaginingLearner:
    settings = {"window": 2, "latent": 2, "hidden": [8], "passes": 2} | world_model
    return ImaginingLearner(SHAPE, Algorithm.model_validate({**LINEAR, "name": "mdpo", "world_model": settings}))


def round_of(learner: Learner, round_: int) -> tuple[dict[str, float], dict[str, Tensor]]:
    """A round in a world that pays the choice and moves at random; its metrics and the weights after it."""
    rng = np.random.default_rng(round_)
    rollout = Rollout.make(STEPS, COPIES, S, 1, 0)
    learner.begin_round(round_)
    for step in range(STEPS):
        rollout.observation[step] = np.eye(S, dtype=np.float32)[rng.integers(S, size=COPIES)]
        rollout.action[step] = learner.act(step, rollout.observation[step])
    rollout.reward[:] = rollout.action[:, :, 0]
    rollout.cut_observation = np.eye(S, dtype=np.float32)[rng.integers(S, size=COPIES)]
    for learning in (learner.learn_values(round_, rollout, rollout.reward), learner.learn_policy(rollout, ())):
        for _ in learning:
            pass
    return dict(learner.end_round(rollout)), {name: tensor.clone() for name, tensor in learner.weights().items()}


def test_what_the_policy_is_trained_on_is_what_the_model_makes_up(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = imagining()

    def forbidding(observation: Floats, action: Floats, draw: np.random.Generator) -> tuple[Floats, Floats, NDArray[np.bool_]]:
        return observation, -100.0 * action[:, 0], np.ones(len(observation), np.bool_)

    monkeypatch.setattr(cast(Model, learner._model), "step", forbidding)
    round_of(learner, 0)
    taken = learner._imagined.action.reshape(-1)
    log_ratio = learner.log_ratio()
    assert log_ratio[taken == 0].min() > 0 > log_ratio[taken == 2].max()  # though the world pays choice 2 best


def test_policy_learns_what_the_world_pays_by_way_of_the_model() -> None:
    settings = {"window": 2, "latent": 2, "hidden": [16], "passes": 10, "lr": 3e-3}
    settings = {"name": "mdpo", "epochs": 10, "actor_lr": 0.05, "kl_target": 0.1, "world_model": settings}
    learner = ImaginingLearner(SHAPE, Algorithm.model_validate(LINEAR | settings))
    for round_ in range(8):
        round_of(learner, round_)
    learner.begin_round(8)
    chosen = [learner.act(step, np.eye(S, dtype=np.float32)[np.arange(COPIES) % S]) for step in range(STEPS)]
    assert np.mean(chosen) > 1.8  # evenly: 1; at best: 2


def test_prediction_changes_nothing_before_the_window_is_full_and_something_after() -> None:
    one, other = imagining(window=3, prediction=True), imagining(window=3, prediction=False)
    for round_ in range(4):
        (metrics, mine), (_, theirs) = round_of(one, round_), round_of(other, round_)
        assert torch.equal(mine["actor"], theirs["actor"]) is (round_ < 2)
        assert ("predictor_loss" in metrics) is (round_ >= 2)


KHOP = ["algorithm.actor_scope=khop", "algorithm.critic_scope=khop"]


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["stochastic_game"], [(0, 30)]),
        (["stochastic_game", "env.encoding=index"], []),
        (["truncation_chain", "env.agents=3"], [(0, 2)]),
        (["truncation_chain", "env.agents=3", "env.observation=full"], [(0, 2), (2, 4), (4, 6)]),
        (["truncation_chain", "env.agents=3", *KHOP], [(0, 2), (2, 4)]),
        (["quickstart"], []),
    ],
    ids=str,
)  # fmt: skip
def test_the_model_is_told_which_columns_are_categories(words: list[str], parts: list[tuple[int, int]]) -> None:
    ready = plan(load(words[0], ["algorithm.name=mdpo", "kappa=1", *words[1:]]))
    learner = make_on_policy_learner(ready.scenario, ready.deployment, 0, AgentRouting(ready.scenario, ready.deployment, 0))
    assert isinstance(learner, ImaginingLearner)
    assert [(part.start, part.stop) for part in learner._model._categories] == parts


def test_equal_seeds_make_the_same_up() -> None:
    one, other = imagining(), imagining()
    for round_ in range(3):
        (_, mine), (_, theirs) = round_of(one, round_), round_of(other, round_)
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)
