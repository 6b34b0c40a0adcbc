"""Packs: several agents in a process give the same bytes as a process each, and die together."""

import json
import shutil
import subprocess
from typing import Any

import pytest

from coordinator.records.checkpoints import complete_rounds
from tests.coordinator.run.test_diverged import LQ, WILD
from tests.system.test_processes import COMMAND, END_S, FINITE, UP_S, Run
from tests.system.test_processes import start as start  # a fixture

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]
BAD = ["network.loss_prob=0.2", "network.latency_ms=300", "network.jitter_ms=200", "network.patience_s=0.5", "kappa=2"]


def packed(size: int | str) -> str:
    return f"supervision.agents_per_process={size}"


@pytest.mark.parametrize(
    ("size", "more"),
    [
        pytest.param(3, [*BAD, "algorithm.factor=khop"], id="3 of 4"),
        pytest.param(2, ["network.transport=tcp", "env.agents=5"], id="tcp with keys"),
        pytest.param(4, ["algorithm.name=i2q"], id="all", marks=pytest.mark.slow),
        pytest.param(2, ["algorithm.name=mappo", "algorithm.critic_scope=central"], id="central", marks=pytest.mark.slow),
        pytest.param(2, ["routing=direct", "kappa=3", *BAD[:-1]], id="direct", marks=pytest.mark.slow),
    ],
)
def test_packs_change_neither_weights_nor_ledger(start: Any, size: int, more: list[str]) -> None:
    told = []
    for way in ([packed(size)], ["--in-process"]):
        code, out, err = start(*FINITE, *more, *way).ended(UP_S)
        assert (code, err) == (0, "")
        told.append(json.loads(out))
        shutil.rmtree(told[-1]["run_dir"])
    apart, together = told
    for key in ("weights_sha256", "ledger_sha256", "return_mean", "virtual_s", "wire_bytes", "mean_age_s"):
        assert apart[key] == together[key]
    assert len(set(apart["node_pids"])) == -(-len(apart["node_pids"]) // size)


def test_a_pack_that_is_killed_is_told_as_the_agents_it_held(start: Any) -> None:
    run: Run = start(packed(3))
    members = run.until_running()
    assert sorted(members) == ["kappahop: fork server", "kappahop: node 3", "kappahop: nodes 0-2", "kappahop: world"]
    killed = members["kappahop: nodes 0-2"]
    killed.kill()
    code, out, err = run.ended(END_S)
    assert (code, out) == (1, "")
    assert err.startswith(f"kappahop: nodes 0-2 (pid {killed.pid}) was killed by SIGKILL in round "), err


def test_others_go_on_without_a_pack_that_was_killed(start: Any) -> None:
    rounds = 150
    run: Run = start(
        packed(2), "env.agents=5", "kappa=2", "algorithm.factor=khop", "supervision.on_node_death=continue",
        f"budget.env_steps={rounds * 40}",
    )  # fmt: skip
    killed = run.until_running()["kappahop: nodes 2-3"]
    killed.kill()
    code, _, err = run.ended(UP_S)
    assert (code, err) == (0, "")
    texts = [text for (text,) in run.query("SELECT text FROM events WHERE role = 'coordinator'")]
    assert len(texts) == 2
    assert all(text.startswith(f"nodes 2-3 (pid {killed.pid}) was killed by SIGKILL in round ") for text in texts)
    done = dict(run.query("SELECT agent, count(*) FROM rounds GROUP BY agent"))
    assert done[2] < rounds > done[3]
    assert [done[agent] for agent in (0, 1, 4)] == [rounds] * 3


def test_agents_of_a_pack_diverge_one_by_one_where_the_others_may_go_on(start: Any) -> None:
    """Agents 1 and 2 wait for the ratios of agent 0, which diverges first; they hear that it is gone, and diverge too."""
    run: Run = start(*LQ[1:], *WILD, "algorithm.name=mappo_l", "supervision.on_node_death=continue", packed(3))
    code, out, _ = run.ended(UP_S)
    assert code == 3
    assert sorted(one["agent"] for one in json.loads(out)["diverged"]) == [0, 1, 2]


def test_an_interrupted_run_goes_on_in_other_packs_with_the_same_bytes(start: Any) -> None:
    words = ["budget.env_steps=4000", "env.horizon=15", "record.state_rounds=2", *BAD]
    out = start(*words, "--in-process").ended(UP_S)[1]
    whole = json.loads(out)
    shutil.rmtree(whole["run_dir"])
    run: Run = start(*words, packed(3))
    run.until_running(4)["kappahop: nodes 0-2"].kill()
    assert run.ended(END_S)[0] == 1
    assert complete_rounds(run.dir)
    resumed = subprocess.run(
        [*COMMAND, "resume", str(run.dir), packed(2), "--json", "-q"], capture_output=True, text=True, timeout=UP_S, check=False
    )
    assert resumed.returncode == 0, resumed.stderr
    found = json.loads(resumed.stdout)
    for key in ("weights_sha256", "ledger_sha256", "return_mean", "virtual_s", "wire_bytes"):
        assert found[key] == whole[key]
    assert len(set(found["node_pids"])) == 2
