"""A run whose numbers are no longer finite: it ends, says so wherever runs are told of, and never counts."""

import contextlib
import json
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from coordinator.cli import app as command
from coordinator.records.database import Results

FAST = [
    "env.num_envs=2", "rollout.steps=20", "env.horizon=10", "algorithm.hidden=[8]", "record.tensorboard=false",
    "record.state_rounds=0", "--in-process", "-q",
]  # fmt: skip
LQ = ["quickstart", "env.name=network_lq", "env.agents=3", "topology.kind=line", "budget.env_steps=400", *FAST]
GAME = ["quickstart", "env.name=stochastic_game", "env.agents=3", "topology.kind=line", "budget.env_steps=400", *FAST]
WILD = ["algorithm.actor_lr=1e12", "algorithm.critic_lr=1e12"]
UNSTABLE = [
    "env.alpha=30",
    "env.beta=0.1",
    "algorithm.epochs=1",
]  # x grows thirtyfold per step: every episode ends in a fault at step 7


class Ran(NamedTuple):
    """What a command line did."""

    code: object
    out: str
    err: str


Call = Callable[..., Ran]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Call:
    """The command in this process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "300")

    def run(*words: str) -> Ran:
        monkeypatch.setattr(sys, "argv", ["kappahop", *words])
        with pytest.raises(SystemExit) as left:
            command.main()
        return Ran(left.value.code or 0, *capsys.readouterr())

    return run


def printed(ran: Ran) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(ran.out)
    return found


@pytest.mark.parametrize(
    ("words", "who"),
    [
        pytest.param([*LQ, *WILD], "agent", id="clip"),
        pytest.param([*LQ, *WILD, "algorithm.name=mappo_l"], "agent", id="sequential"),
        pytest.param(
            [*LQ, "algorithm.critic_lr=1e38", "algorithm.name=mappo", "algorithm.critic_scope=central"],
            "the central critic",
            id="central",
        ),
        pytest.param([*LQ, *WILD, "algorithm.name=hatrpo", "algorithm.critic_lr=1e38"], "agent", id="trust region"),
        pytest.param([*LQ, *WILD, "algorithm.name=i2q", "algorithm.off_policy.warm_up_steps=0"], "agent", id="twin delayed"),
        pytest.param([*GAME, "algorithm.critic_lr=1e38", "algorithm.name=iql"], "agent", id="double q"),
        pytest.param(
            [*GAME, "algorithm.critic_lr=1e38", "algorithm.name=iql", "algorithm.critic_scope=central"],
            "the central critic",
            id="qmix",
        ),
        pytest.param(
            [*GAME, "algorithm.critic_lr=1e38", "algorithm.name=iql", "algorithm.off_policy.representation=recurrent"],
            "agent",
            id="recurrent",
        ),
        pytest.param([*GAME, "algorithm.name=mdpo", "algorithm.world_model.lr=1e38"], "agent", id="world model"),
    ],
)
def test_a_run_ends_with_a_sentence_once_numbers_are_not_finite(call: Call, words: list[str], who: str) -> None:
    """With actor_lr=1e12 the linear network's agents "returned" -1.1, the healthy ones -49."""
    ran = call("run", *words, "algorithm.off_policy.warm_up_steps=0", "--json", "--out", "run")
    assert ran.code == 3
    final = printed(ran)
    (one,) = final["diverged"]
    assert one["who"].startswith(who)
    assert one["who"] == ("the central critic" if one["agent"] is None else f"agent {one['agent']}")
    assert one["env_step"] <= 400
    assert final["return_mean"] is None
    assert ran.err.startswith(
        f"kappahop: {one['who']} diverged at step {one['env_step']:,}: {one['text']}; what was recorded is in run"
    )
    assert "to go on" not in ran.err


def test_episodes_that_end_in_a_fault_have_no_return(call: Call) -> None:
    ran = call("run", *LQ, *UNSTABLE, "--out", "run")
    assert ran.code == 3
    assert "the simulation diverged at step " in ran.err
    assert "no return: the run diverged" in ran.out
    results = Results(Path("run"))
    assert all(quarter.faulty == quarter.episodes for quarter in results.quarters())
    assert "diverged" in ran.out
    results.close()


def test_what_a_fault_has_ended_is_in_no_mean_that_agents_hold_against_a_limit(call: Call) -> None:
    assert call("run", *LQ, *UNSTABLE, "env.control_limit=0.1", "--out", "run").code == 3
    with contextlib.closing(sqlite3.connect("run/run.sqlite")) as database:
        assert set(database.execute("SELECT episode_cost_0 FROM rounds")) == {(None,)}


def test_early_faults_are_counted_and_the_return_is_that_of_the_last_episodes(
    tmp_path: Path, record_run: Callable[..., Path], call: Call
) -> None:
    record_run(tmp_path / "run", returns=[None, None, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0])
    found = printed(call("compare", "run", "--json"))
    assert found["diverged"] == []
    assert found["cells"][0]["return"] == [10.0]


@pytest.mark.parametrize(("rest", "code"), [("stop", 3), ("continue", 3)])
def test_an_agent_ends_the_run_or_itself_as_set(call: Call, rest: str, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from node.learners.on_policy.learner import Learner

    end_round = Learner.end_round

    def poisoned(self: Learner, rollout: Any) -> Any:
        if self._shape.agent == 1 and self._steps_seen > 3:  # type: ignore[attr-defined]
            return {**end_round(self, rollout), "value_loss": np.inf}
        return end_round(self, rollout)

    begin_round = Learner.begin_round

    def counted(self: Learner, round_: int, *, explore: bool = True) -> None:
        self._steps_seen = round_  # type: ignore[attr-defined]
        begin_round(self, round_, explore=explore)

    monkeypatch.setattr(Learner, "end_round", poisoned)
    monkeypatch.setattr(Learner, "begin_round", counted)
    ran = call("run", *LQ, f"supervision.on_node_death={rest}", "--json", "--out", "run")
    assert ran.code == code
    final = printed(ran)
    assert final["diverged"] == [{"who": "agent 1", "agent": 1, "env_step": 200, "text": "value_loss of the round is inf"}]
    assert final["env_steps"] == (400 if rest == "continue" else 200)
    assert final["return_mean"] is None
    assert call("resume", "run").code == 2
    refused = call("compare", "run")
    assert refused.code == 2
    assert "agent 1 diverged at step 200: value_loss of the round is inf" in refused.err


def test_agents_that_diverge_once_they_need_not_wait_for_one_that_did_end_likewise(call: Call) -> None:
    """The others wait for the ratios of agent 0, which diverges before it sends any."""
    ran = call("run", *LQ, *WILD, "algorithm.name=mappo_l", "supervision.on_node_death=continue", "--json", "--out", "run")
    assert ran.code == 3
    assert sorted(one["agent"] for one in printed(ran)["diverged"]) == [0, 1, 2]


def test_a_team_with_weights_that_are_not_finite_is_not_evaluated(call: Call) -> None:
    """It scored -0.94, where the healthy team has -18.9."""
    assert call("run", *LQ, "--out", "run").code == 0
    path = Path("run/checkpoints/final/agent-1.safetensors")
    tensors = load_file(path)
    tensors["actor"][0] = np.nan
    save_file(tensors, path)
    for words in (["evaluate", "run", "--in-process"], ["decay", "run"]):
        ran = call(*words)
        assert ran.code == 2
        assert "weights of agents [1] are not finite, so this team has diverged" in ran.err


def test_many_runs_tell_those_that_diverged_and_none_of_them_wins(call: Call) -> None:
    words = ["sweep", *LQ, "algorithm.actor_lr=0.001,1e12", "--seeds", "0,1", "--jobs", "2", "--out", "sweep"]
    ran = call(*words)
    assert ran.code == 0
    lines = ran.out.splitlines()
    assert any(line.startswith("return ") and "with algorithm.actor_lr=0.001" in line for line in lines)
    for seed in (0, 1):
        assert any(line.startswith(f"algorithm.actor_lr=1000000000000.0, seed {seed}: agent ") for line in lines)
    assert "2 of 4 runs diverged" in ran.err
    page = Path("sweep/report.html").read_text(encoding="utf-8")
    assert "diverged at step" in page
    found = printed(call("compare", "sweep", "--json"))
    assert [cell["cell"] for cell in found["cells"]] == ["algorithm.actor_lr=0.001"]
    assert [(one["seed"], one["who"][:5]) for one in found["diverged"]] == [(0, "agent"), (1, "agent")]
    logs = {path: path.stat().st_mtime_ns for path in Path("sweep").rglob("seed=*.log")}
    again = call(*words)  # what has diverged is over: nothing is run again
    assert again.code == 0
    assert {path: path.stat().st_mtime_ns for path in Path("sweep").rglob("seed=*.log")} == logs
    assert "2 of 4 runs diverged" in again.err


def test_a_cell_of_which_a_run_diverged_is_not_the_best(tmp_path: Path, record_run: Callable[..., Path], call: Call) -> None:
    for seed in (0, 1, 2):
        well = [1.0 + seed] * 8
        record_run(tmp_path / "runs" / f"a{seed}", f"seed={seed}", "algorithm.actor_lr=0.001", returns=well)
        wild = [None] * 8 if seed == 1 else [100.0] * 8
        record_run(tmp_path / "runs" / f"b{seed}", f"seed={seed}", "algorithm.actor_lr=0.5", returns=wild)
    ran = call("compare", "runs")
    assert ran.code == 0
    assert "highest return 2 [" in ran.out
    assert "with algorithm.actor_lr=0.001" in ran.out
    assert (
        "algorithm.actor_lr=0.5, seed 1: the simulation diverged at step 40: 1 of the last 1 episodes ended in a fault" in ran.out
    )
    rows = {cell["cell"]: cell["diverged"] for cell in printed(call("compare", "runs", "--json"))["cells"]}
    assert rows == {"algorithm.actor_lr=0.001": 0, "algorithm.actor_lr=0.5": 1}


def test_a_report_of_a_run_that_diverged_says_so_and_is_not_under_way(
    tmp_path: Path, record_run: Callable[..., Path], call: Call
) -> None:
    record_run(tmp_path / "run", returns=[1.0, None])
    assert call("report", "run").code == 0
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "the simulation diverged at step 10: 1 of the last 1 episodes ended in a fault" in page
    assert "Unfinished" not in page


def test_a_robots_team_that_diverges_looks_neither_safe_nor_done(call: Call) -> None:
    """It ended with "return 0.0, cost 1.0 (limit 30)" and exit code 0."""
    small = ["env.num_envs=2", "rollout.steps=20", "budget.env_steps=400", "algorithm.hidden=[8]", "env.horizon=10"]
    ran = call("run", "quickstart", *small, *WILD, "record.tensorboard=false", "--in-process", "-q", "--json", "--out", "run")
    assert ran.code == 3
    final = printed(ran)
    assert (final["return_mean"], final["cost_mean"]) == (None, None)
    assert final["diverged"][0]["who"].startswith("agent ")
