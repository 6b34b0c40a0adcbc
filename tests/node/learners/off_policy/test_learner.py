"""Off-policy learners: what they put into replay, how they explore, what they learn, and turns through a whole run."""

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from coordinator.records.database import Recorder, Results
from coordinator.records.plan import make_run_dir, plan
from coordinator.run import in_process
from envs.games.games import build
from envs.games.settings import StageGame
from envs.games.tabular import optimum
from node.learners.off_policy.action_values import ActionValues, Batch, DoubleQ, Ideal, Lagging, Samples, TwinDelayed
from node.learners.off_policy.learner import OffPolicyLearner, make_values, networks
from node.numerics.critics import Shape
from node.numerics.networks import MLP
from node.numerics.normalise import InputNorm
from node.numerics.rollout import Rollout
from node.process import digest
from node.protocol.turns import holder
from scenarios.kinds import Kind
from scenarios.loading import load
from scenarios.registry import REPRESENTATIONS
from scenarios.schema import Algorithm
from tests.builders import shape
from topology.planes.world import END_TERMINATED, END_TRUNCATED, Sense, pack_sense
from topology.snapshot import read, write
from topology.wire.frame import FLOAT32, VERSION, WORLD, Header, Message

T, E = 6, 4


def algorithm(name: str = "iql", **off_policy: Any) -> Algorithm:
    return Algorithm.model_validate({
        "name": name, "hidden": [16], "input_norm": "none", "critic_lr": 0.01, "actor_lr": 0.005,
        "max_grad_norm": 10.0, "off_policy": off_policy,
    })  # fmt: skip


def learner(n_discrete: int, width: int = 1, name: str = "iql", **off_policy: Any) -> OffPolicyLearner:
    sizes = shape(agent=1, seed=3, steps=T, copies=E, width=width, n_discrete=n_discrete)
    return OffPolicyLearner(sizes, slice(0, width), algorithm(name, **off_policy))


def sensed(obs: np.ndarray, end: np.ndarray, final: np.ndarray | None) -> Sense:
    zeros = np.zeros(E, np.float32)
    header = Header(VERSION, int(Kind.SENSE), FLOAT32, WORLD, WORLD, 0, 0, 0, 0, 0.0)
    bodies = [pack_sense(obs, zeros, np.zeros((E, 0), np.float32), end).tobytes(), *([] if final is None else [final.tobytes()])]
    return Sense(Message(header, tuple(bodies)), copies=E, obs_dim=1, n_costs=0)


# --- samples ----------------------------------------------------------------------------------------------------------


def test_what_followed_is_the_next_sight_the_cut_or_what_was_seen_at_the_very_end() -> None:
    rollout, state = Rollout.make(T, E, 1, 1, 0), np.zeros((E, 1), np.float32)
    for step in range(T):
        rollout.observation[step] = state
        following = state + 1.0
        end = np.zeros(E, np.float32)
        if step == 2:
            end[1], end[2] = END_TERMINATED, END_TRUNCATED
        final = following.copy() if end.any() else None
        state = np.where(end[:, None] > 0, 100.0, following).astype(np.float32)
        rollout.record_outcome(step, sensed(state, end, final))
    rollout.cut_observation = rollout.own_cut_blocks()
    one = learner(2)
    samples = one._samples(rollout, rollout.reward)
    np.testing.assert_array_equal(samples.following, samples.observation + 1.0)
    assert samples.terminated.reshape(T, E).nonzero() == (np.array([2]), np.array([1]))
    begins = np.zeros((T, E), np.bool_)
    begins[0] = begins[3, 1] = begins[3, 2] = True
    np.testing.assert_array_equal(samples.is_first.reshape(T, E), begins)
    rollout.truncated[-1, 0] = rollout.terminated[-1, 3] = True
    one.sit_out(rollout)
    rollout.cut_blocks[T - 1] = rollout.observation[-1]
    rollout.cut_observation = np.zeros((len(rollout.cuts()), 1), np.float32)
    after = one._samples(rollout, rollout.reward)
    np.testing.assert_array_equal(after.is_first.reshape(T, E)[0], [True, False, False, True])


@pytest.mark.parametrize(("name", "replay", "kept"), [("ma2ql", "per_turn", 2), ("ma2ql", "rolling", 4), ("iql", "per_turn", 4)])
def test_a_new_turn_forgets_what_was_seen_in_the_last_one(name: str, replay: str, kept: int) -> None:
    one = learner(2, name=name, replay=replay, warm_up_steps=0, updates_per_step=0.001)
    rollout = Rollout.make(T, E, 1, 1, 0)
    rollout.cut_observation = rollout.observation[-1]
    for round_, has_turn in enumerate((True, True, False, False, True, True)):
        one.begin_round(round_, explore=has_turn)
        if has_turn:
            for _ in one.learn_values(round_, rollout, rollout.reward):
                pass
        else:
            one.sit_out(rollout)
    assert one.end_round(rollout)["replay"] == kept * T * E


# --- exploration ------------------------------------------------------------------------------------------------------


def test_choices_are_random_as_often_as_epsilon_says_and_liked_otherwise() -> None:
    one = learner(3, epsilon_start=0.9, epsilon_end=0.3, epsilon_steps=4 * T * E, warm_up_steps=T * E)
    observation = np.zeros((E, 1), np.float32)
    one.begin_round(0, explore=False)
    liked = one.act(0, observation)
    for round_, epsilon in ((0, 1.0), (1, 0.75), (2, 0.6), (4, 0.3), (99, 0.3)):
        one.begin_round(round_)
        assert one._exploration.epsilon == pytest.approx(epsilon)
    other = []
    for round_ in range(9, 109):
        one.begin_round(round_)
        other += [one.act(step, observation) != liked for step in range(T)]
    assert np.mean(other) == pytest.approx(0.3 * 2 / 3, abs=0.03)


def test_continuous_actions_are_uniform_at_first_then_near_what_is_liked_and_never_beyond_the_bound() -> None:
    one = learner(0, action_bound=2.0, noise_std=0.1, warm_up_steps=50 * T * E)
    observation = np.zeros((E, 1), np.float32)
    one.begin_round(0, explore=False)
    liked = one.act(0, observation)
    early: list[np.ndarray] = []
    late: list[np.ndarray] = []
    for round_ in range(100):
        one.begin_round(round_)
        (early if round_ < 50 else late).extend(
            one.act(step, observation) - (liked if round_ >= 50 else 0.0) for step in range(T)
        )
    assert np.abs(early).max() <= 2.0
    assert np.std(early) == pytest.approx(4.0 / np.sqrt(12.0), rel=0.05)
    assert np.std(late) == pytest.approx(0.2, rel=0.1)


def test_with_turns_every_agent_explores_as_much_as_the_first() -> None:
    """Its own turns count, not the rounds of others: three agents, two rounds a turn."""
    settings = {"epsilon_start": 0.9, "epsilon_end": 0.3, "epsilon_steps": 4 * T * E, "warm_up_steps": T * E, "turn_rounds": 2}
    told = []
    for agent in range(3):
        shape = replace(learner(2)._shape, agent=agent, n_agents=3)
        one = OffPolicyLearner(shape, slice(0, 1), algorithm("ma2ql", **settings))
        rollout = Rollout.make(T, E, 1, 1, 0)
        rollout.cut_observation = rollout.observation[-1]
        held = []
        for round_ in range(18):
            one.begin_round(round_)
            if holder(round_, 3, 2) == agent:
                learnt = sum(1 for _ in one.learn_values(round_, rollout, rollout.reward))
                held.append((round(one._exploration.epsilon, 6), learnt > 0))
        told.append(held)
    assert told[0] == [(1.0, False), (0.75, True), (0.6, True), (0.45, True), (0.3, True), (0.3, True)]
    assert told[1] == told[2] == told[0]


# --- steps ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "n_discrete", "representation"), [
    ("iql", 2, "table"), ("i2q", 2, "table"), ("iql", 2, "network"), ("i2q", 2, "network"), ("i2q", 0, "network"),
    ("iql", 2, "recurrent"),
])  # fmt: skip
def test_steps_fall_to_nothing_where_they_are_asked_to_and_only_there(name: str, n_discrete: int, representation: str) -> None:
    moved: dict[str | None, set[str]] = {}
    learnt: set[str] = set()
    for decay in (None, "none", "linear"):
        settings = algorithm(name, warm_up_steps=0, representation=representation, batch=8, updates_per_step=1.0)
        one = OffPolicyLearner(learner(n_discrete)._shape, slice(0, 1), settings.model_copy(update={"lr_decay": decay}))
        rollout = Rollout.make(T, E, 1, 1, 0)
        rollout.observation[:] = np.random.default_rng(0).integers(3, size=(T, E, 1))
        rollout.action[:] = np.random.default_rng(1).integers(2, size=(T, E, 1))
        rollout.cut_observation = rollout.observation[-1]
        reward = np.random.default_rng(2).normal(size=(T, E)).astype(np.float32)
        one.begin_round(0)
        for _ in one.learn_values(0, rollout, reward):
            pass
        before = {key: tensor.clone() for key, tensor in one.weights().items()}
        one.begin_round(9)  # of nine: one past the last, where the steps are 0
        for _ in one.learn_values(9, rollout, reward):
            pass
        moved[decay] = {key for key, tensor in one.weights().items() if not torch.equal(tensor, before[key])}
        learnt = before.keys() - {"inputs", "observations"}
    assert moved["linear"] == set()
    assert moved[None] == moved["none"] == learnt


def test_a_table_of_an_older_run_is_read() -> None:
    stored = {"q": torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64), "sights": torch.tensor([[5.0], [7.0]])}
    one = learner(2, representation="table")
    one.load_policy(stored)
    weights = one.weights()
    assert torch.equal(weights["observations"], stored["sights"])
    assert torch.equal(weights["q"], stored["q"])
    with pytest.raises(ValueError, match="observations is missing"):
        one.load_policy({"q": stored["q"]})


# --- networks ---------------------------------------------------------------------------------------------------------


def one_step_samples(draw: np.random.Generator, size: int, *, n_discrete: int) -> Samples:
    """One-step episodes at observations o in [-1, 1]: choice 1 pays o, 0 nothing; a number a pays -(a - o/2)²."""
    observation = draw.uniform(-1, 1, (size, 1)).astype(np.float32)
    if n_discrete:
        action = draw.integers(n_discrete, size=(size, 1)).astype(np.float32)
        reward = (action * observation)[:, 0]
    else:
        action = draw.uniform(-1, 1, (size, 1)).astype(np.float32)
        reward = -((action - observation / 2)[:, 0] ** 2)
    return Samples(observation, action, reward, observation, np.ones(size, np.bool_))


PROBE = np.linspace(-0.9, 0.9, 10, dtype=np.float32)[:, None]


@pytest.mark.parametrize("name", ["iql", "i2q"])
def test_networks_learn_what_pays_where(name: str) -> None:
    draw = np.random.default_rng(0)
    choosing = DoubleQ(1, 2, algorithm(name), torch.Generator().manual_seed(0))
    choosing.take(one_step_samples(draw, 500, n_discrete=2))
    for _ in choosing.learn(200, draw):
        pass
    np.testing.assert_array_equal(choosing.best(PROBE)[:, 0], PROBE[:, 0] > 0)


def test_a_policy_of_numbers_climbs_its_critics() -> None:
    draw = np.random.default_rng(0)
    naming = TwinDelayed(1, 1, algorithm(), torch.Generator().manual_seed(0))
    naming.take(one_step_samples(draw, 1000, n_discrete=0))
    for _ in naming.learn(500, draw):
        pass
    np.testing.assert_allclose(naming.best(PROBE), PROBE / 2, atol=0.15)


def test_bootstrapping_multiplies_by_gamma_and_stops_at_the_end() -> None:
    """A chain of two states, each paying 1: values 1 at its end, 1 + gamma before it."""
    settings = algorithm(target_keep=0.9).model_copy(update={"gamma": 0.5})
    values = DoubleQ(1, 1, settings, torch.Generator().manual_seed(0))
    observation = np.array([[0.0], [1.0]] * 50, np.float32)
    ends = observation[:, 0] == 1.0
    values.take(Samples(observation, np.zeros_like(observation), np.ones(100, np.float32), np.ones_like(observation), ends))
    for _ in values.learn(300, np.random.default_rng(0)):
        pass
    with torch.no_grad():
        found = values._net(torch.tensor([[0.0], [1.0]]))[:, 0]
    torch.testing.assert_close(found, torch.tensor([1.5, 1.0]), atol=0.02, rtol=0.0)


def test_the_ideal_hopes_for_what_its_own_action_can_lead_to_and_not_for_less_than_it_got() -> None:
    """From 0 an action leads to +1 or -1 as the others please; pairs that end at +1 are worth 1, at -1 nothing."""
    draw, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
    settings = algorithm("i2q", ideal_weight=1.0)
    ideal = Ideal(1, 1, settings, InputNorm(1, running=False), generator)
    for _ in range(300):
        following = torch.from_numpy(draw.choice([-1.0, 1.0], size=(64, 1)).astype(np.float32))
        batch = Batch(torch.zeros(64, 1), torch.ones(64, 1), (following[:, 0] > 0).float(), following, torch.zeros(64))
        ideal.learn(batch, torch.ones(64, 1))
    start, ends = torch.zeros(2, 1), torch.tensor([[1.0], [-1.0]])
    with torch.no_grad():
        torch.testing.assert_close(ideal.worth(start, ends), torch.tensor([1.0, 0.0]), atol=0.1, rtol=0.0)
        assert float(ideal.guess(start[:1], torch.ones(1, 1))) > 0.1  # the mean of what followed is 0
    chosen = ideal.successor(Batch(start, torch.ones(2, 1), torch.zeros(2), ends, torch.zeros(2)))
    assert chosen[0] == 1.0 or ideal.worth(start[:1], chosen[:1]) >= ideal.worth(start[:1], ends[:1])
    assert chosen[1] > -1.0


def test_the_models_error_is_a_mean_over_columns_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that α means the same for states of any width."""
    ideal = Ideal(3, 1, algorithm("i2q", ideal_weight=0.0), InputNorm(3, running=False), torch.Generator().manual_seed(0))
    draw = torch.Generator().manual_seed(1)
    observation, following = torch.randn(8, 3, generator=draw), torch.randn(8, 3, generator=draw)
    batch = Batch(observation, torch.ones(8, 1), torch.zeros(8), following, torch.ones(8))
    seen: list[torch.Tensor] = []
    trainer = ideal._model_trainer
    monkeypatch.setattr(trainer, "step", lambda: seen.append(trainer.gradient.clone()))
    ideal.learn(batch, torch.ones(8, 1))
    trainer.gradient.zero_()
    ((ideal.guess(observation, torch.ones(8, 1)) - following) ** 2).mean().backward()
    torch.testing.assert_close(seen[0], trainer.gradient)


def test_a_lagging_copy_goes_part_of_the_way_and_leaves_its_module_alone() -> None:
    net = MLP(
        2, (3,), 1, activation="relu", layer_norm=False, input_layer_norm=False, head_gain=1.0,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    copy = Lagging(net, 0.75)
    before = [parameter.detach().clone() for parameter in net.parameters()]
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(4.0)
    copy.follow()
    for mine, old, new in zip(copy.module.parameters(), before, net.parameters(), strict=True):
        torch.testing.assert_close(mine, old + 1.0)
        torch.testing.assert_close(new, old + 4.0)


# --- whole runs -------------------------------------------------------------------------------------------------------


def run(folder: Path, scenario: str, *words: str, weights: Path | None = None) -> tuple[Results, Any]:
    ready = plan(load(scenario, ["record.tensorboard=false", "algorithm.hidden=[8]", *words]), weights=weights)
    make_run_dir(folder, ready)
    size = ready.scenario.env.num_envs * ready.scenario.rollout.steps
    recorder = Recorder(folder, env_steps_per_round=size)
    outcome = in_process.run(ready, folder, recorder, lambda report: None)
    recorder.close()
    assert outcome.error is None, outcome.error
    return Results(folder), outcome


TABLE = "algorithm.off_policy.representation=table"
RECURRENT = "algorithm.off_policy.representation=recurrent"
TURNS = ("stochastic_game", "algorithm.name=ma2ql", TABLE, "algorithm.off_policy.turn_accuracy=0.01", "env.num_envs=40",
         "rollout.steps=30", "env.states=6", "env.n_discrete=3", "topology.kind=line",
         "algorithm.off_policy.warm_up_steps=0")  # fmt: skip


def token_bytes(results: Results) -> int:
    return sum(row.payload_bytes for row in results.by_kind() if (row.plane, row.kind) == ("peer", "TOKEN"))


@pytest.mark.parametrize("turn_rounds", [1, 3])
def test_a_turn_costs_one_token_of_32_bytes_and_nothing_else_is_said(tmp_path: Path, turn_rounds: int) -> None:
    words = (f"algorithm.off_policy.turn_rounds={turn_rounds}", f"budget.env_steps={9 * 40 * 30}")
    results, _ = run(tmp_path / "run", *TURNS, *words)
    assert token_bytes(results) == 32 * 40 * (9 // turn_rounds)
    assert {row.kind for row in results.by_kind() if row.plane == "peer"} == {"TOKEN"}
    results.close()


def test_lost_tokens_cost_patience_and_change_nothing_that_is_learnt(tmp_path: Path) -> None:
    words = (f"budget.env_steps={9 * 40 * 30}", "network.patience_s=5")
    whole, first = run(tmp_path / "whole", *TURNS, *words)
    lossy, second = run(tmp_path / "lossy", *TURNS, *words, "network.loss_prob=1.0", "network.retries=1")
    assert first.weights == second.weights
    assert token_bytes(lossy) == 0
    whole.close()
    lossy.close()
    ends = []
    for name in ("whole", "lossy"):
        with closing(sqlite3.connect(tmp_path / name / "run.sqlite")) as database:
            ends.append(database.execute("SELECT MAX(virtual_s) FROM rounds").fetchone()[0])
    assert ends[1] == pytest.approx(ends[0] + 9 * 5.0)


def test_a_holder_that_is_down_loses_its_turn_and_the_others_go_on(tmp_path: Path) -> None:
    words = (f"budget.env_steps={6 * 40 * 30}", "network.patience_s=5")
    down = "network.events=[{do: crash, agent: 1, from_s: 30, until_s: 60}]"  # its first turn
    whole, crashed = (run(tmp_path / str(k), *TURNS, *words, *more)[0] for k, more in enumerate(((), (down,))))
    turns = []
    for results, name in ((whole, "0"), (crashed, "1")):
        with closing(sqlite3.connect(tmp_path / name / "run.sqlite")) as database:
            rows = database.execute("SELECT round, agent, more FROM rounds ORDER BY round, agent").fetchall()
        turns.append([(round_, agent) for round_, agent, more in rows if "table_change" in (more or "")])
        results.close()
    assert turns[0] == [(round_, round_ % 3) for round_ in range(6)]
    assert turns[1] == [turn for turn in turns[0] if turn != (1, 1)]


@pytest.mark.parametrize("words", [
    ("stage_game", "algorithm.name=iql", TABLE), ("stage_game", "algorithm.name=i2q", TABLE),
    ("stage_game", "algorithm.name=iql", RECURRENT),
    ("stochastic_game", "algorithm.name=iql"), ("stochastic_game", "algorithm.name=i2q"),
    ("differential_game", "algorithm.name=iql"), ("differential_game", "algorithm.name=i2q"),
], ids=" ".join)  # fmt: skip
def test_independent_learners_say_nothing_and_repeat_themselves_bit_by_bit(tmp_path: Path, words: tuple[str, ...]) -> None:
    size = ("env.num_envs=4", "rollout.steps=10", "budget.env_steps=160", "algorithm.off_policy.warm_up_steps=40")
    runs = [run(tmp_path / str(k), *words, *size, "seed=5") for k in range(2)]
    for results, _ in runs:
        assert not [row.kind for row in results.by_kind() if row.plane == "peer"]
        results.close()
    assert runs[0][1].weights == runs[1][1].weights


def test_ideal_tables_come_through_a_run_and_its_checkpoint_to_the_best_path(tmp_path: Path) -> None:
    words = ("algorithm.name=i2q", TABLE, "env.num_envs=50", "rollout.steps=9", "algorithm.gamma=1.0",
             "algorithm.off_policy.epsilon_start=0.5", "algorithm.off_policy.epsilon_end=0.5",
             "algorithm.off_policy.table_step=0.9", "algorithm.off_policy.updates_per_step=0.05")  # fmt: skip
    learnt, _ = run(tmp_path / "learnt", "stage_game", *words, "budget.env_steps=13500")
    learnt.close()
    weights = tmp_path / "learnt" / "checkpoints" / "final"
    greedy, _ = run(tmp_path / "greedy", "stage_game", *words, "budget.env_steps=450", weights=weights)
    game = build(StageGame())
    returns = [value for _, value in greedy.episodes("return")]
    greedy.close()
    assert returns == pytest.approx([float(optimum(game, 1.0)[0][0])] * len(returns))


def test_stored_values_act_as_they_did(tmp_path: Path) -> None:
    kinds: list[tuple[int, dict[str, Any]]] = [
        (2, {"representation": "table"}), (2, {}), (0, {}), (2, {"representation": "recurrent"}),
    ]  # fmt: skip
    for n_discrete, settings in kinds:
        one = learner(n_discrete, warm_up_steps=0, **settings)
        rollout = Rollout.make(T, E, 1, 1, 0)
        rollout.observation[:] = np.random.default_rng(0).integers(3, size=(T, E, 1))
        rollout.action[:] = np.random.default_rng(1).integers(2, size=(T, E, 1))
        rollout.cut_observation = rollout.observation[-1]
        one.begin_round(0)
        for _ in one.learn_values(0, rollout, np.random.default_rng(2).normal(size=(T, E)).astype(np.float32)):
            pass
        other = learner(n_discrete, warm_up_steps=0, **settings)
        other.load_policy(one.weights())
        for each in (one, other):
            each.begin_round(1, explore=False)
        np.testing.assert_array_equal(one.act(0, rollout.observation[0]), other.act(0, rollout.observation[0]))
        with pytest.raises(ValueError, match="checkpoint of agent 1: "):
            other.load_policy({})
        assert digest(one.weights()) != digest(learner(n_discrete, warm_up_steps=0, **settings).weights())


@pytest.mark.exact
@pytest.mark.parametrize("input_norm", ["running", pytest.param("none", marks=pytest.mark.slow)])
@pytest.mark.parametrize(("name", "n_discrete", "representation"), [
    *((name, *kind) for name in ("iql", "i2q", "ma2ql") for kind in ((2, "table"), (2, "network"), (0, "network"))),
    ("iql", 2, "recurrent"), ("ma2ql", 2, "recurrent"),
])  # fmt: skip
def test_a_learner_taken_back_to_where_another_was_learns_on_as_that_would(
    name: str, n_discrete: int, representation: str, input_norm: str, tmp_path: Path
) -> None:
    settings = {"representation": representation, "warm_up_steps": 0, "updates_per_step": 0.3, "batch": 8, "buffer": 40,
             "table_step": 0.3}  # fmt: skip

    def rounds(one: OffPolicyLearner, *which: int) -> list[dict[str, float]]:
        found = []
        for round_ in which:
            draw = np.random.default_rng(round_)
            rollout = Rollout.make(T, E, 1, 1, 0)
            rollout.cut_observation = np.full((E, 1), round_, np.float32)
            rollout.truncated[-1, :2] = True  # in the other copies episodes go on
            one.begin_round(round_)
            for step in range(T):
                rollout.observation[step] = draw.integers(round_ + 2, size=(E, 1))  # some of which are new in every round
                rollout.action[step] = one.act(step, rollout.observation[step])
            one.forget(rollout.truncated[-1])
            if name == "ma2ql" and round_ % 2:
                found.append(dict(one.sit_out(rollout)))
                continue
            for _ in one.learn_values(round_, rollout, draw.normal(size=(T, E)).astype(np.float32)):
                pass
            found.append(dict(one.end_round(rollout)))
        return found

    def fresh() -> OffPolicyLearner:
        chosen = algorithm(name, **settings).model_copy(update={"input_norm": input_norm})
        return OffPolicyLearner(learner(n_discrete)._shape, slice(0, 1), chosen)

    for stop in (1, 2, 3):
        whole, half, again = fresh(), fresh(), fresh()
        metrics = rounds(whole, *range(6))
        rounds(half, *range(stop))
        write(tmp_path / "state", half.state())
        again.restore(read(tmp_path / "state"))
        assert rounds(again, *range(stop, 6)) == metrics[stop:]
        assert digest(again.weights()) == digest(whole.weights())


def test_a_registered_representation_holds_the_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(REPRESENTATIONS, "_added", {})
    made = []

    def mine(shape: Shape, algorithm: Algorithm) -> ActionValues:
        made.append(shape.agent)
        return networks(shape, algorithm)

    REPRESENTATIONS.register("mine", mine)
    words = ["env.name=network_lq", "env.agents=3", "algorithm.name=iql", "algorithm.off_policy.representation=mine"]
    chosen = plan(load("quickstart", words)).scenario.algorithm  # continuous actions too: what it can do is its own
    values = make_values(shape(agent=2), chosen)
    assert made == [2]
    assert values.best(np.zeros((1, 1), np.float32)).shape == (1, 1)
