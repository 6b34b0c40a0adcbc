"""QMIX's coordinator: which transitions it learns from, and what comes of it in games that are known exactly."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coordinator.central.node import Told
from coordinator.central.qmix import team_samples
from coordinator.records.database import Recorder, Results
from coordinator.records.plan import make_run_dir, plan
from coordinator.run import in_process
from envs.games.games import build
from envs.games.settings import StageGame
from envs.games.tabular import optimum
from node.numerics.rollout import Rollout
from scenarios.kinds import Kind, sent_by
from scenarios.loading import ScenarioError, load

T, E, N = 4, 5, 2


def told(is_whole: list[bool], has_last: list[bool]) -> Told:
    """Sights that count steps, in copies a hundred apart; copy 1 ends at step 1, copy 2 is cut there."""
    rollout = Rollout.make(T, E, N, N, 0)
    rollout.observation[:] = (np.arange(T)[:, None] + 100.0 * np.arange(E))[:, :, None]
    rollout.action[:] = np.arange(N)
    rollout.terminated[1, 1] = rollout.truncated[1, 2] = True
    rollout.cut_observation = rollout.observation[rollout.cuts()[:, 0], rollout.cuts()[:, 1]] + 1.0
    reward = rollout.observation[:, :, 0] / 2.0
    return Told(rollout, reward, np.array(is_whole), np.array(has_last))


def test_only_what_everybody_has_told_is_learnt_from() -> None:
    all_of_it = team_samples(told([True] * E, [True] * E))
    assert len(all_of_it.reward) == T * E
    ends = all_of_it.terminated
    np.testing.assert_array_equal(all_of_it.following[~ends], all_of_it.observation[~ends] + 1.0)
    np.testing.assert_array_equal(all_of_it.reward, all_of_it.observation[:, 0] / 2.0)
    assert all_of_it.observation[ends].tolist() == [[101.0] * N]
    some = team_samples(told([True, True, True, False, True], [True, False, False, True, True]))
    assert sorted(some.observation[:, 0].tolist()) == [
        0, 1, 2, 3,
        100, 101, 102,  # without its last observation the last sample is left out, and the end at 101 needs none
        200, 202,  # without the one at the cut neither
        400, 401, 402, 403,
    ]  # fmt: skip
    ends = some.terminated
    np.testing.assert_array_equal(some.following[~ends], some.observation[~ends] + 1.0)


# --- games ------------------------------------------------------------------------------------------------------------

UNIFORM = ["env.num_envs=10", "rollout.steps=20", "algorithm.gamma=1.0", "algorithm.off_policy.epsilon_start=1",
           "algorithm.off_policy.epsilon_end=1", "algorithm.off_policy.warm_up_steps=0"]  # fmt: skip
MIXED = [*UNIFORM, "algorithm.name=qmix", "algorithm.hidden=[]", "algorithm.input_norm=none", "algorithm.critic_lr=0.02",
         "algorithm.max_grad_norm=1000", "algorithm.off_policy.target_keep=0.95"]  # fmt: skip
IDEAL = [*UNIFORM, "algorithm.name=i2q", "algorithm.off_policy.representation=table", "algorithm.off_policy.table_step=0.9",
         "algorithm.off_policy.updates_per_step=0.05"]  # fmt: skip


def returns(folder: Path, scenario: str, words: list[str], env_steps: int) -> list[float]:
    """Of greedy episodes after a run."""
    for name, weights, steps in (("learnt", None, env_steps), ("greedy", folder / "learnt" / "checkpoints" / "final", 200)):
        ready = plan(load(scenario, ["record.tensorboard=false", *words, f"budget.env_steps={steps}"]), weights=weights)
        make_run_dir(folder / name, ready)
        recorder = Recorder(folder / name, env_steps_per_round=200)
        assert in_process.run(ready, folder / name, recorder, lambda report: None).error is None
        recorder.close()
    results = Results(folder / "greedy")
    found = [value for _, value in results.episodes("return")]
    results.close()
    return found


def test_the_team_misses_the_eight_that_no_mixer_can_describe(tmp_path: Path) -> None:
    assert set(returns(tmp_path, "matrix_climbing", [*MIXED, "env.payoff=non_monotone"], 1600)) == {0.0}


@pytest.mark.slow
def test_the_team_misses_the_best_path_where_ideal_learners_find_it(tmp_path: Path) -> None:
    game = ["env.stages=2", "env.seed=5"]
    best = float(optimum(build(StageGame(stages=2, seed=5)), 1.0)[0][0])
    ideal = returns(tmp_path / "ideal", "stage_game", [*IDEAL, *game], 2000)
    mixed = returns(tmp_path / "mixed", "stage_game", [*MIXED, *game], 2000)
    assert ideal == pytest.approx([best] * len(ideal))
    assert max(mixed) < best - 1.0


def test_a_world_of_numbers_is_refused_by_name() -> None:
    with pytest.raises(ScenarioError, match=r"got 'central' with target 'q'; values .* safe_halfcheetah has"):
        plan(load("quickstart", ["algorithm.name=qmix"]))
    with pytest.raises(ScenarioError, match=r"off_policy\.representation: got 'table'; with critic_scope 'central' it must"):
        load("stage_game", ["algorithm.name=qmix", "algorithm.off_policy.representation=table"])


@pytest.mark.parametrize("axis", [["algorithm.name=qmix"], ["algorithm.name=iql", "algorithm.critic_scope=central"]], ids=str)
def test_independent_learners_with_a_central_critic_are_the_same_team(axis: list[str]) -> None:
    recipes: list[Any] = [load("stage_game", words).algorithm.recipe for words in (axis, ["algorithm.name=qmix"])]
    assert sent_by(recipes[0]) == sent_by(recipes[1]) == (Kind.BOOTSTRAP, Kind.JOINT, Kind.POLICY)
    assert recipes[0].is_led
