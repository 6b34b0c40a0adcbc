"""How far agents are from agreeing: known when all have reported, each round once."""

import numpy as np
import pytest

from coordinator.run.disagreement import Disagreement
from topology.planes.control import RoundReport


def report(agent: int, round_: int, *weights: float) -> RoundReport:
    agreeing = {"policy": np.array(weights, "<f4").tobytes()} if weights else {}
    return RoundReport(
        role=f"node-{agent}", agent=agent, round=round_, virtual_s=0.0, metrics={}, traffic=(), agreeing=agreeing
    )  # fmt: skip


def test_the_distance_of_each_from_the_mean_once_all_have_reported() -> None:
    found = Disagreement(2)
    found.take(report(0, 0, 1.0, 2.0))
    assert list(found.known()) == []
    found.take(report(0, 1, 0.0, 0.0))
    found.take(report(1, 0, 7.0, 10.0))
    assert list(found.known()) == [((0, 0), {"disagreement_policy": 5.0}), ((0, 1), {"disagreement_policy": 5.0})]
    assert list(found.known()) == []


def test_agents_that_are_gone_are_not_waited_for() -> None:
    found = Disagreement(3)
    for agent, weight in ((0, 1.0), (1, 3.0)):
        found.take(report(agent, 4, weight))
    assert dict(found.known({2})) == {(4, 0): {"disagreement_policy": 1.0}, (4, 1): {"disagreement_policy": 1.0}}


@pytest.mark.parametrize("strange", [report(1, 0, 1.0, 2.0), report(1, 0, 1.0).model_copy(update={"agreeing": {"policy": b"x"}})])
def test_weights_of_another_size_are_left_out(strange: RoundReport) -> None:
    found = Disagreement(2)
    found.take(report(0, 0, 1.0))
    found.take(strange)
    assert dict(found.known()) == {(0, 0): {}, (0, 1): {}}


def test_runs_without_consensus_keep_nothing() -> None:
    found = Disagreement(2)
    for agent in (0, 1):
        found.take(report(agent, 0))
    assert list(found.known()) == []
