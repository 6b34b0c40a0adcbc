"""Evaluations: training does not notice them, each is made once, and the best policies are those that it says."""

import contextlib
import math
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coordinator.evaluation.evaluations import AT_END, Evaluated, Evaluations, Job, Result, ignore
from coordinator.evaluation.play import make_evaluations, play
from coordinator.records.checkpoints import complete_rounds, drop_others
from coordinator.records.database import Recorder, Results
from coordinator.records.plan import Plan, frozen, make_run_dir, plan, reopened
from coordinator.records.run_sqlite import DATABASE
from coordinator.run import in_process
from coordinator.run.collector import Outcome
from coordinator.run.metrics import evaluated
from scenarios.loading import ScenarioError, load
from topology.deployment import CHECKPOINTS, policies_folder
from topology.planes.control import Control, EpisodeRow, RoundReport
from topology.process import StopRequested
from topology.wire.ledger import Row

SMALL = [
    "env.num_envs=2", "rollout.steps=8", "budget.env_steps=112", "algorithm.hidden=[6]", "algorithm.epochs=2",
    "algorithm.minibatches=2", "record.tensorboard=false", "record.state_rounds=2",
    "evaluation.every_rounds=2", "evaluation.episodes=3",
]  # fmt: skip
ROUNDS, EPISODES = 7, 3
LQ = ["env.name=network_lq", "env.agents=4", "topology.kind=line", "env.horizon=11"]
LIMITED = [*LQ, "env.control_limit=0.001"]
GAME = ["env.name=stochastic_game", "env.agents=3", "topology.kind=line", "env.horizon=5"]
LOSSY = ["network.preset=wifi-campus", "network.loss_prob=0.2", "network.latency_ms=700", "network.jitter_ms=300"]
VALUES = ["algorithm.off_policy.warm_up_steps=16", "algorithm.off_policy.batch=8", "algorithm.off_policy.buffer=50"]
LEARNERS = {
    "policies, lossy links": [*LIMITED, *LOSSY, "algorithm.name=scal_mappo_l", "algorithm.factor=khop"],
    "policies in turn": [*GAME, "algorithm.name=alternating_ppo"],
    "values": [*GAME, *VALUES, "algorithm.name=ma2ql"],
    "tables": [*GAME, *VALUES, "algorithm.name=iql", "algorithm.off_policy.representation=table"],
    "led": [*GAME, *VALUES, "algorithm.name=qmix"],
    "model": [*GAME, "algorithm.world_model.window=2", "algorithm.world_model.latent=2", "algorithm.name=mdpo"],
    "central critic": [*LQ, "algorithm.name=mappo", "algorithm.critic_scope=central"],
    "one policy": [
        *LQ, "topology.kind=ring", "algorithm.name=mappo", "algorithm.critic_scope=central", "algorithm.input_norm=layer",
        "algorithm.share_policy=true",
    ],
}  # fmt: skip


def begun(folder: Path, *words: str) -> Plan:
    ready = plan(load("quickstart", [*SMALL, *words]))
    make_run_dir(folder, ready)
    return ready


def perform(ready: Plan, folder: Path, watch: Any = ignore) -> Outcome:
    per_round = ready.scenario.env.num_envs * ready.scenario.rollout.steps
    with contextlib.closing(
        Recorder(folder, env_steps_per_round=per_round, resumed_after=ready.deployment.resumed_after)
    ) as recorder:
        outcome = in_process.run(ready, folder, recorder, lambda report: None, watch_evaluations=watch)
        outcome.conclude()
        return outcome


def rows(folder: Path, table: str) -> list[tuple[Any, ...]]:
    with contextlib.closing(sqlite3.connect(folder / DATABASE)) as database:
        at = {"rounds": 3, "events": 0}.get(table)  # where the wall time is, which is never the same
        found = database.execute(f"SELECT * FROM {table}").fetchall()
    return found if at is None else [row[:at] + row[at + 1 :] for row in found]


@pytest.mark.parametrize("name", LEARNERS)
def test_training_does_not_notice_evaluations(tmp_path: Path, name: str) -> None:
    """Weights, ledger and every table of the training are the same, byte for byte."""
    off = perform(begun(tmp_path / "off", *LEARNERS[name], "evaluation.every_rounds=0"), tmp_path / "off")
    on = perform(begun(tmp_path / "on", *LEARNERS[name]), tmp_path / "on")
    assert on.error is None
    assert on.weights == off.weights
    for table in ("episodes", "rounds", "traffic", "ages", "events"):
        assert rows(tmp_path / "on", table) == rows(tmp_path / "off", table), table
    assert not rows(tmp_path / "off", "evaluations")
    assert not (tmp_path / "off" / CHECKPOINTS / "best").exists()
    with contextlib.closing(Results(tmp_path / "on")) as results:
        found = results.evaluations()
    counts = {key: len(episodes) for key, episodes in found.items()}
    assert {key: count for key, count in counts.items() if not key[1]} == {(k, False): EPISODES for k in (1, 3, 5, 6)}
    assert counts[ROUNDS - 1, True] == AT_END * EPISODES
    assert rows(tmp_path / "on", "evaluation_traffic")
    horizon = 11 if "env.horizon=11" in LEARNERS[name] else 5
    assert {row[6] for row in rows(tmp_path / "on", "evaluations")} == {horizon}  # no copy begins staggered
    (tmp_path / "on" / CHECKPOINTS / "best" / "agent-0.safetensors").stat()
    assert not list((tmp_path / "on" / CHECKPOINTS).glob("policies-*"))


def test_an_evaluation_has_no_exploration_unless_policies_are_to_draw_their_actions(tmp_path: Path) -> None:
    """Of the final policies, on the same chance; with exploration they are worth less."""
    more = [*LQ, "algorithm.name=ippo", "algorithm.std_init=2.0", "env.control_weight=1.0"]
    worth = []
    for name, word in (("mean", "true"), ("drawn", "false")):
        perform(begun(tmp_path / name, *more, f"evaluation.deterministic={word}"), tmp_path / name)
        with contextlib.closing(Results(tmp_path / name)) as results:
            worth.append(np.mean([ret for ret, _ in results.evaluations()[ROUNDS - 1, True]]))
    assert worth[0] > worth[1]


@pytest.mark.parametrize(
    ("words", "draws"),
    [
        (LQ, False),
        (LIMITED, True),
        ([*LIMITED, "evaluation.deterministic=true"], False),
        ([*LQ, "evaluation.deterministic=false"], True),
    ],
)
def test_where_a_cost_has_a_limit_policies_draw_their_actions(tmp_path: Path, words: list[str], draws: bool) -> None:
    """The limit is kept by the policy that draws; and whatever is evaluated later acts alike."""
    ready = begun(tmp_path, *words)
    perform(ready, tmp_path)
    assert ready.draws is draws
    assert frozen(ready, tmp_path / CHECKPOINTS / "final", copies=2, episodes=2).deployment.samples is draws
    with contextlib.closing(Results(tmp_path)) as results:
        assert evaluated(ready, results, None)["eval_drawn"] is draws


@pytest.mark.parametrize("at", range(1, 6))
def test_an_evaluation_is_made_once_however_often_the_run_is_interrupted(tmp_path: Path, at: int) -> None:
    words = ["algorithm.name=scal_mappo_l", *LIMITED]
    made: list[Evaluated] = []
    perform(begun(tmp_path / "whole", *words), tmp_path / "whole", made.append)
    jobs = [one.job for one in made if one.ret is not None]
    assert len(jobs) == len(set(jobs)) >= 4

    class Interrupter:
        """A request to stop during one of the evaluations."""

        def __init__(self, at: int) -> None:
            self.left = at
            self.made: list[Job] = []

        def __call__(self, evaluated: Evaluated) -> None:
            if evaluated.ret is not None:
                self.made.append(evaluated.job)
            elif evaluated.done == 1.0:
                self.left -= 1
                if self.left == 0:
                    raise StopRequested

    folder = tmp_path / "broken"
    first, second = Interrupter(min(at, len(jobs))), Interrupter(-1)
    assert perform(begun(folder, *words), folder, first).interrupted
    if at >= len(jobs):  # training is over
        again = reopened(folder, None)
        with contextlib.closing(Recorder(folder, env_steps_per_round=16, reopened=True)) as recorder:
            left = Evaluations(again, folder, recorder, note=pytest.fail, watch=second, rounds_done=ROUNDS)
            left.end_training()
            make_evaluations(again, folder, left)
            left.conclude()
    else:
        rounds = complete_rounds(folder)
        if not rounds:  # such a run begins again
            return
        round_ = rounds[-1]
        drop_others(folder, round_)
        again = reopened(folder, round_)
        again.deployment.write(folder)
        assert perform(again, folder, second).error is None
        again_made = [job for job in second.made if job in first.made]
        assert all(job.round > round_ for job in again_made)
    for table in ("evaluations", "evaluation_traffic"):
        assert rows(folder, table) == rows(tmp_path / "whole", table)
    names = [sorted(path.name for path in (one / CHECKPOINTS / "best").iterdir()) for one in (folder, tmp_path / "whole")]
    assert names[0] == names[1]


def test_one_that_fails_is_told_and_the_run_goes_on(tmp_path: Path) -> None:
    ready, told, ended = begun(tmp_path, *LQ), list[Evaluated](), list[int]()

    def spoil(report: Control) -> None:
        if isinstance(report, RoundReport) and report.round == 3:
            ended.append(report.agent)
            if len(ended) == 4:
                (policies_folder(tmp_path, 3) / "agent-1.safetensors").unlink()

    with contextlib.closing(Recorder(tmp_path, env_steps_per_round=16)) as recorder:
        outcome = in_process.run(ready, tmp_path, recorder, spoil, watch_evaluations=told.append)
    assert outcome.error is None
    problems = [one.problem for one in told if one.problem is not None]
    assert len(problems) == 1
    assert problems[0].startswith("the policies after round 3 could not be evaluated: ")
    assert problems[0].endswith("policies-4: no stored weights of agents [1]")
    assert problems[0] in [event[1] for event in rows(tmp_path, "events")]
    assert {round_ for round_, *_ in rows(tmp_path, "evaluations")} == {1, 5, 6}


class Kept:
    """A run's evaluations without the run."""

    def __init__(self, folder: Path, *words: str, rounds_done: int = 0) -> None:
        ready = begun(folder, *words)
        self.folder = folder
        self.recorder = Recorder(folder, env_steps_per_round=16)
        self.notes: list[str] = []
        self.made = Evaluations(ready, folder, self.recorder, note=self.notes.append, rounds_done=rounds_done)

    def store(self, round_: int) -> None:
        policies_folder(self.folder, round_).mkdir(parents=True)
        for agent in range(4):
            report = RoundReport(role=f"node-{agent}", agent=agent, round=round_, virtual_s=0.0, metrics={}, traffic=())
            self.made.stored(report)

    def evaluate(self, ret: float, cost: float = 0.0, own: tuple[float, ...] = ()) -> Job:
        job = self.made.next()
        assert job is not None
        episodes = tuple(
            EpisodeRow(round=0, env_step=0, copy_index=copy, ret=ret, cost=(cost,), length=11, own=(own,) if own else ())
            for copy in range(job.episodes)
        )
        self.made.record(job, Result(episodes, (Row(0, "peer", "", "", "STATE", 3, 2, 1),)))
        return job


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    found = Kept(tmp_path, *LIMITED, "algorithm.name=scal_mappo_l")
    yield found
    found.recorder.close()


@pytest.mark.parametrize(
    ("means", "best"),
    [
        ([(5.0, 0.0), (9.0, 0.0), (7.0, 0.0)], 3),
        ([(5.0, 0.0), (9.0, 0.2), (7.0, 0.0)], 5),  # the limit is 0.011 an episode
        ([(5.0, 3.0), (9.0, 2.0), (7.0, 4.0)], 3),  # nothing keeps it: what exceeds it least
        ([(5.0, 0.0), (math.nan, 0.0), (4.0, 0.0)], 1),
        ([(5.0, 0.0), (5.0, 0.0), (5.0, 0.0)], 5),
    ],
)
def test_the_best_are_those_of_the_highest_return_that_keep_the_limits(
    kept: Kept, means: list[tuple[float, float]], best: int
) -> None:
    for round_, mean in zip((1, 3, 5), means, strict=True):
        kept.store(round_)
        kept.evaluate(*mean)
    assert kept.made.best() == best
    kept.made.end_training()
    assert kept.evaluate(-1.0, 9.0) == Job(ROUNDS - 1, False, EPISODES, "final")
    assert kept.evaluate(99.0) == Job(ROUNDS - 1, True, AT_END * EPISODES, "final")  # which judges and does not choose
    assert kept.made.best() == best
    assert kept.evaluate(1.0) == Job(best, True, AT_END * EPISODES, policies_folder(kept.folder, best).name)
    assert kept.made.next() is None
    kept.made.conclude()
    assert sorted(path.name for path in (kept.folder / CHECKPOINTS).iterdir()) == ["best"]


def test_with_costs_of_their_own_the_agent_that_pays_most_decides(tmp_path: Path) -> None:
    """The team's cost is below the limit of 0.011 both times. The same is known once the run goes on."""
    kept = Kept(tmp_path, *LIMITED, "env.cost=local", "algorithm.name=scal_mappo_l")
    for round_, ret, own in ((1, 5.0, (0.005,) * 4), (3, 9.0, (0.0, 0.0, 0.02, 0.0))):
        kept.store(round_)
        kept.evaluate(ret, 0.005, own)
    assert kept.made.best() == 1
    kept.recorder.close()
    with contextlib.closing(Recorder(tmp_path, env_steps_per_round=16, reopened=True)) as recorder:
        again = Evaluations(reopened(tmp_path, None), tmp_path, recorder, note=pytest.fail, rounds_done=4)
        assert again.best() == 1


def test_without_a_constraint_limits_do_not_matter(tmp_path: Path) -> None:
    kept = Kept(tmp_path, *LIMITED, "algorithm.name=mappo")
    for round_, mean in zip((1, 3), ((5.0, 0.0), (9.0, 2.0)), strict=True):
        kept.store(round_)
        kept.evaluate(*mean)
    assert kept.made.best() == 3
    kept.recorder.close()


def test_policies_lie_there_until_they_are_evaluated_and_the_best_until_the_end(kept: Kept) -> None:
    for round_, ret in ((1, 5.0), (3, 9.0), (5, 7.0)):
        kept.store(round_)
        assert policies_folder(kept.folder, round_).is_dir()
        kept.evaluate(ret)
    assert [path.name for path in (kept.folder / CHECKPOINTS).iterdir()] == ["policies-4"]


def test_an_evaluation_waits_for_the_policies_of_all_agents(kept: Kept) -> None:
    for agent in (0, 1, 3, 4):  # 4 is a central critic's number
        kept.made.stored(RoundReport(role="", agent=agent, round=1, virtual_s=0.0, metrics={}, traffic=()))
    assert kept.made.next() is None
    kept.made.stored(RoundReport(role="", agent=2, round=1, virtual_s=0.0, metrics={}, traffic=()))
    assert kept.made.next() == Job(1, False, EPISODES, "policies-2")


def test_what_could_not_be_evaluated_is_told_and_tried_again_when_the_run_is_gone_on_with(kept: Kept) -> None:
    kept.store(1)
    job = kept.made.next()
    assert job is not None
    kept.made.fail(job, "its process was killed by SIGKILL")
    assert kept.notes == ["the policies after round 1 could not be evaluated: its process was killed by SIGKILL"]
    assert kept.made.next() is None
    kept.made.end_training()
    kept.evaluate(3.0)
    kept.made.conclude()
    assert policies_folder(kept.folder, 1).is_dir()
    again = Evaluations(reopened(kept.folder, None), kept.folder, kept.recorder, note=pytest.fail, rounds_done=2)
    assert again.next() == job


def test_a_team_that_lost_an_agent_is_evaluated_only_as_it_was_before(kept: Kept) -> None:
    kept.store(1)
    kept.made.lose()
    kept.evaluate(3.0)
    policies_folder(kept.folder, 3).mkdir()  # of those that are left
    kept.made.end_training()
    assert kept.made.next() is None
    assert kept.notes == ["the last policies are not evaluated: the team is no longer whole"]
    kept.made.conclude()
    assert [path.name for path in (kept.folder / CHECKPOINTS).iterdir()] == ["best"]


def test_the_best_have_figures_once_they_have_played_as_many_episodes_as_the_last(kept: Kept) -> None:
    def found() -> Any:
        with contextlib.closing(Results(kept.folder)) as results:
            return evaluated(reopened(kept.folder, None), results, kept.made.best())

    kept.store(1)
    kept.evaluate(9.0)
    kept.made.end_training()
    kept.evaluate(3.0)
    kept.evaluate(4.0)
    assert (found()["eval_return_mean"], found()["best_round"], found()["best_return_mean"]) == (4.0, None, None)
    kept.evaluate(8.0)
    assert (found()["eval_return_mean"], found()["best_round"], found()["best_return_mean"]) == (4.0, 1, 8.0)


def test_best_policies_that_cannot_be_stored_under_their_name_stay_where_they_are(kept: Kept) -> None:
    kept.store(1)
    kept.evaluate(9.0)
    kept.made.end_training()
    kept.evaluate(3.0)
    kept.evaluate(4.0)
    kept.evaluate(8.0)
    (kept.folder / CHECKPOINTS / "best").touch()
    kept.made.conclude()
    assert kept.notes == ["the best policies stay in policies-2, as best cannot be written: File exists"]
    assert policies_folder(kept.folder, 1).is_dir()


def test_a_run_that_is_killed_before_its_metrics_are_written_ends_with_the_same_best_policies(tmp_path: Path) -> None:
    """All evaluations are recorded, and the run is not known to be finished: it goes on from a state."""
    words = [*LQ, "algorithm.name=ippo", "algorithm.actor_lr=0.3", "algorithm.std_init=2.0", "evaluation.deterministic=true"]
    perform(begun(tmp_path / "whole", *words), tmp_path / "whole")
    folder = tmp_path / "killed"
    ready = begun(folder, *words)
    with contextlib.closing(Recorder(folder, env_steps_per_round=16)) as recorder:
        assert in_process.run(ready, folder, recorder, lambda report: None).error is None
    round_ = complete_rounds(folder)[-1]
    drop_others(folder, round_)
    again = reopened(folder, round_)
    again.deployment.write(folder)
    outcome = perform(again, folder)
    assert outcome.error is None
    assert outcome.best_round is not None
    assert outcome.best_round <= round_, "else this test tells nothing"
    assert rows(folder, "evaluations") == rows(tmp_path / "whole", "evaluations")
    found = [(one / CHECKPOINTS / "best" / "agent-0.safetensors").read_bytes() for one in (folder, tmp_path / "whole")]
    assert found[0] == found[1]


def test_the_episodes_that_choose_the_best_are_none_of_those_that_judge_it(tmp_path: Path) -> None:
    """Of the same policies after the last round, and with as many episodes as were compared."""
    ready = begun(tmp_path, *LQ)
    perform(ready, tmp_path)
    jobs = [Job(ROUNDS - 1, at_end, EPISODES, "final") for at_end in (False, True)]
    chooses, judges = (play(ready, tmp_path, job, lambda done: None) for job in jobs)
    assert {episode.ret for episode in chooses.episodes}.isdisjoint(episode.ret for episode in judges.episodes)
    recorded = {row[3] for row in rows(tmp_path, "evaluations") if row[0] == ROUNDS - 1 and not row[7]}
    assert recorded == {episode.ret for episode in chooses.episodes}


def test_how_often_follows_from_what_it_costs(subtests: pytest.Subtests) -> None:
    rows: list[tuple[list[str], int]] = [
        (["env.horizon=8", "budget.env_steps=16000"], 100),  # ten times at most
        (["env.horizon=80", "budget.env_steps=16000"], 100),
        (["env.horizon=800", "budget.env_steps=16000"], 1000),  # once, at the end
        (["evaluation.every_rounds=7"], 7),
        (["evaluation.every_rounds=0"], 0),
        (["clock=wall"], 0),
    ]
    for words, every in rows:
        with subtests.test(words=words):
            words = [word for word in SMALL if not word.startswith("evaluation.every")] + ["env.name=network_lq", *words]
            assert plan(load("quickstart", words)).deployment.evaluate_rounds == every


def test_on_the_wall_clock_there_are_none() -> None:
    with pytest.raises(ScenarioError, match=r"evaluation\.every_rounds: got 3 with clock 'wall'"):
        load("quickstart", ["clock=wall", "evaluation.every_rounds=3"])
