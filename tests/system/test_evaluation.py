"""A process that makes an evaluation: what the coordinator hears of it."""

from pathlib import Path
from typing import Any

from coordinator.evaluation.evaluations import Job, Result, order
from coordinator.records.plan import make_run_dir, plan
from scenarios.loading import load
from tests.system.stage import SMALL, UP_S, ForkServer


def test_an_evaluation_that_cannot_be_made_is_told_in_a_sentence_as_in_one_process(no_leaks: None, tmp_path: Path) -> None:
    make_run_dir(tmp_path / "run", plan(load("quickstart", SMALL)))
    fork_server = ForkServer(tmp_path / "fork_server.log")
    fork_server.fork(order(tmp_path / "run", Job(1, False, 2, "policies-2"), beside_training=True))
    told: list[dict[str, Any]] = []
    while not told or "dead" not in told[-1]:
        told += fork_server.events(UP_S)
    fork_server.close()
    assert [sorted(one) for one in told] == [["born", "pid"], ["evaluating"], ["dead", "status"]]
    assert told[1]["evaluating"].endswith("policies-2: no stored weights of agents [0, 1, 2, 3, 4]")
    assert told[2]["status"] == 1
    assert (tmp_path / "run" / "logs" / "evaluation.log").read_text() == ""
    assert Result.take(tmp_path / "run") is None
