"""Agents that end before the others, and actions that cannot be taken: neither must leave a trace in what is learnt."""

from typing import Any

import numpy as np
import pytest
import torch

from node.learners.interface import AgentLearner
from node.learners.off_policy.learner import OffPolicyLearner
from node.learners.on_policy.learner import Learner
from node.numerics.rollout import Floats, Rollout
from scenarios.kinds import Kind
from scenarios.schema import Algorithm
from tests.builders import shape

T, E, C = 12, 3, 3
INPUTS = 2
D = INPUTS + C + 1  # inputs, action mask, presence
MASK, PRESENCE = slice(INPUTS, INPUTS + C), D - 1
RECIPES: list[tuple[str, dict[str, Any], int]] = [
    ("scal_mappo_l", {"input_norm": "running"}, 1),
    ("ippo", {"input_norm": "running", "entropy_coef": 0.01, "ratio": "joint"}, 0),
    ("hatrpo", {}, 0),
    ("macpo", {}, 1),
    ("mafocops", {}, 1),
    ("dpo", {}, 0),
    ("coppo", {}, 0),
    ("a2po", {}, 0),
    ("mappo", {"critic_scope": "central"}, 0),
    ("iql", {"off_policy": {"batch": 8, "warm_up_steps": 0}}, 0),
    ("iql", {"off_policy": {"batch": 8, "warm_up_steps": 0, "representation": "table"}}, 0),
    ("i2q", {"off_policy": {"batch": 8, "warm_up_steps": 0}}, 0),
]


def learner_of(name: str, settings: dict[str, Any], n_costs: int = 0) -> AgentLearner:
    sizes = shape(
        steps=T, copies=E, width=D, n_discrete=C, cost_limits=(1.0,) * n_costs, reach=3, mask=MASK, actor_mask=MASK,
        presence=PRESENCE,
    )  # fmt: skip
    chosen = Algorithm.model_validate({"name": name, "hidden": [6], "epochs": 2, "head_gain": 1.0} | settings)
    return Learner(sizes, chosen) if chosen.recipe.target == "advantage" else OffPolicyLearner(sizes, slice(0, D), chosen)


def there_of(*, ever: bool = True) -> np.ndarray:
    """Copy 0 goes on; in copy 1 the agent ends after 5 steps, in copy 2 its time is up after 3."""
    there = np.ones((T, E), bool)
    there[5:, 1] = there[3:, 2] = False
    return there if ever else np.zeros((T, E), bool)


def rollout_of(learner: AgentLearner, n_costs: int, *, rubbish: int, ever: bool = True, masked: float = 0.0) -> Rollout:
    """A round in which all that belongs to absent samples is drawn from `rubbish`."""
    rng, noise, there = np.random.default_rng(0), np.random.default_rng(rubbish), there_of(ever=ever)
    learner.begin_round(0)
    rollout = Rollout.make(T, E, D, 1, n_costs)
    rollout.observation[..., :INPUTS] = rng.integers(3, size=(T, E, INPUTS))
    rollout.observation[..., MASK] = rng.permuted(np.array([1.0, 1.0, masked]) * np.ones((T, E, 1)), axis=2)
    rollout.reward[:], rollout.cost[:] = rng.normal(size=(T, E)), rng.uniform(size=rollout.cost.shape)
    rollout.observation[~there, :INPUTS] = noise.normal(size=(int((~there).sum()), INPUTS))
    rollout.observation[5, 1, :INPUTS] = 0.0  # where I2Q's model says that an end leads to
    rollout.reward[~there] = noise.normal(size=int((~there).sum()))
    rollout.observation[..., PRESENCE] = there
    if ever:
        rollout.observation[3, 2, PRESENCE] = -1.0
        rollout.observation[3, 2, :INPUTS] = 2.0  # what it saw when its time was up counts
    for step in range(T):
        rollout.action[step] = learner.act(step, rollout.observation[step])
    rollout.action[~there] = noise.integers(C, size=(int((~there).sum()), 1))
    rollout.cut_blocks[T - 1] = np.concatenate((rng.normal(size=(E, D - 1)), there[-1:].T), axis=1).astype(np.float32)
    rollout.cut_observation = rollout.cut_blocks[T - 1][rollout.cuts()[:, 1]]
    return rollout


def learnt(learner: AgentLearner, rollout: Rollout) -> tuple[dict[str, torch.Tensor], dict[str, float], Floats]:
    if isinstance(learner, Learner) and learner._critics is None:  # the central critic's answer, rubbish included
        learner.takes(Kind.ADVANTAGE, 0, rollout.reward.T.copy(), np.ones(E, np.bool_))
    for _ in learner.learn_values(0, rollout, rollout.reward):
        pass
    ratios: Floats = np.zeros(0, np.float32)
    if isinstance(learner, Learner):
        if learner._recipe.is_coupled:
            passes = learner._algorithm.epochs * learner._algorithm.minibatches
            for turn in range(passes + 1):
                learner.step_coupled(rollout, [0.1 * learner._own_ratios] if turn else [])
        else:
            for _ in learner.learn_policy(rollout, [np.linspace(-0.1, 0.1, T * E, dtype=np.float32)]):
                pass
        ratios = learner.log_ratio().reshape(T, E)
    metrics = dict(learner.end_round(rollout))
    return {name: tensor.clone() for name, tensor in learner.weights().items()}, metrics, ratios


@pytest.mark.parametrize(("name", "settings", "n_costs"), RECIPES)
def test_samples_without_the_agent_change_nothing(name: str, settings: dict[str, Any], n_costs: int) -> None:
    results = []
    for rubbish in (1, 2):
        learner = learner_of(name, settings, n_costs)
        results.append(learnt(learner, rollout_of(learner, n_costs, rubbish=rubbish)))
    (weights, metrics, ratios), (others, other_metrics, _) = results
    has_table = "representation" in settings.get("off_policy", {})
    kept = set(weights) - {"observations", "q"} if has_table else weights
    assert all(torch.equal(weights[key], others[key]) for key in kept)
    assert metrics == other_metrics
    assert all(np.isfinite(value) for value in metrics.values())
    if len(ratios):
        assert not ratios[~there_of()].any()
        assert ratios[there_of()].any()


@pytest.mark.parametrize(("name", "settings", "n_costs"), RECIPES)
def test_a_round_without_the_agent_changes_nothing_at_all(name: str, settings: dict[str, Any], n_costs: int) -> None:
    learner = learner_of(name, settings, n_costs)
    before = {key: tensor.clone() for key, tensor in learner.weights().items()}
    weights, _, ratios = learnt(learner, rollout_of(learner, n_costs, rubbish=1, ever=False))
    assert not ratios.any()
    if "observations" not in before:  # a table has a row for every observation that it was asked about
        assert all(torch.equal(before[key], weights[key]) for key in before)


@pytest.mark.parametrize(("name", "settings", "n_costs"), RECIPES)
def test_actions_that_cannot_be_taken_are_never_taken(name: str, settings: dict[str, Any], n_costs: int) -> None:
    learner = learner_of(name, settings, n_costs)
    rollout = rollout_of(learner, n_costs, rubbish=1)
    chosen = np.take_along_axis(rollout.observation[..., MASK], rollout.action.astype(int), axis=2)[..., 0]
    assert chosen[there_of()].all()
    assert len(np.unique(rollout.action)) == C


def test_ends_of_the_agents_own_are_found_before_those_of_the_copies() -> None:
    learner = learner_of("ippo", {})
    rollout = rollout_of(learner, 0, rubbish=1)
    terminated, truncated = rollout.own_ends(PRESENCE)
    assert np.argwhere(terminated).tolist() == [[4, 1]]
    assert np.argwhere(truncated).tolist() == [[2, 2]]
    rollout.truncated[-1, 0] = True
    assert np.argwhere(rollout.own_ends(PRESENCE)[1]).tolist() == [[2, 2], [T - 1, 0]]
    assert rollout.own_ends(None)[0] is rollout.terminated


def test_what_an_action_leads_to_is_worth_the_best_that_can_be_done_there() -> None:
    """Two steps: the second has a rich action that is masked; its value must not come into the first."""
    settings = {"off_policy": {"batch": 64, "warm_up_steps": 0, "representation": "table", "updates_per_step": 4.0}, "gamma": 1.0}
    learner = learner_of("iql", settings)
    assert isinstance(learner, OffPolicyLearner)
    rollout = Rollout.make(T, E, D, 1, 0)
    for round_ in range(20):
        learner.begin_round(round_)
        rollout.observation[..., PRESENCE] = rollout.observation[..., MASK] = 1.0
        rollout.observation[1::2, :, 0] = 1.0  # the second step
        rollout.observation[1::2, :, INPUTS] = 0.0  # where action 0 cannot be taken
        rollout.action[1::2] = 1 + np.arange(E)[:, None] % 2
        rollout.reward[1::2] = 1.0
        rollout.terminated[1::2] = True
        for step in range(1, T, 2):
            rollout.cut_blocks[step] = rollout.observation[step]
        rollout.cut_observation = np.zeros((0, D), np.float32)
        for _ in learner.learn_values(round_, rollout, rollout.reward):
            pass
    table: Any = learner._values
    first, second = (table._rows[rollout.observation[step, 0].tobytes()] for step in (0, 1))
    assert table._q[first, 0] == pytest.approx(1.0, abs=0.05)
    assert table._q[second, 0] < -1e9
    assert learner.act(1, rollout.observation[1]).min() >= 1.0


def test_a_network_of_values_finds_no_maximum_at_an_action_that_cannot_be_taken() -> None:
    learner = learner_of("iql", {"off_policy": {"batch": 8, "warm_up_steps": 0, "updates_per_step": 1 / (T * E)}})
    assert isinstance(learner, OffPolicyLearner)
    values: Any = learner._values
    with torch.no_grad():
        for net in (values._net, values._lagging.module):
            net.head.bias[0] = 100.0
    learner.begin_round(0, explore=False)
    rollout = Rollout.make(T, E, D, 1, 0)
    rollout.observation[..., PRESENCE] = 1.0
    rollout.observation[..., MASK] = [0.0, 1.0, 1.0]
    for step in range(T):
        rollout.action[step] = learner.act(step, rollout.observation[step])
    assert rollout.action.min() >= 1.0
    rollout.cut_blocks[T - 1] = rollout.observation[-1]
    rollout.cut_observation = rollout.observation[-1]
    for _ in learner.learn_values(0, rollout, rollout.reward):
        pass
    assert 0.0 < learner.end_round(rollout)["value_loss"] < 10.0  # with action 0 in the target it were near 100²
