"""A new kind of message: two rows in the catalogues, one `gives` and one `takes`; the runtime needs no change."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import node.process
from coordinator.records.database import Recorder, Results
from coordinator.records.plan import make_run_dir, plan
from coordinator.run import in_process
from node.learners.interface import Bools, Floats
from node.learners.making import shape_of
from node.learners.off_policy.learner import OffPolicyLearner
from node.learners.on_policy.learner import Learner
from node.protocol.kinds import ROWS, Row
from scenarios.kinds import FACTS, Facts, Kind, Moment
from scenarios.loading import load
from topology.graph.neighbourhood import audiences
from topology.wire import frame

ROUNDS, COPIES, WIDTH = 3, 2, 5
WORDS = [
    "env.name=network_lq", "env.agents=3", "topology.kind=line", "kappa=1", f"env.num_envs={COPIES}", "rollout.steps=4",
    f"budget.env_steps={ROUNDS * COPIES * 4}", "algorithm.hidden=[4]", "record.tensorboard=false", "algorithm.minibatches=1",
]  # fmt: skip


@pytest.fixture
def gossip(monkeypatch: pytest.MonkeyPatch) -> Kind:
    """A kind that the product does not have."""
    kind = int.__new__(Kind, 99)
    kind._name_, kind._value_ = "GOSSIP", 99
    facts = Facts("peer", Moment.ROLLOUT_END, "five numbers of the sender, to its neighbours", "state")
    monkeypatch.setitem(FACTS, kind, facts)
    monkeypatch.setitem(ROWS, kind, Row(lambda scopes: audiences(scopes.visible), lambda sizes, agent: WIDTH))
    monkeypatch.setitem(frame.KINDS, 99, kind)
    monkeypatch.setitem(frame.KIND_NAMES, 99, "GOSSIP")
    return kind


@pytest.mark.parametrize("links", [[], ["network.latency_ms=100", "network.jitter_ms=50"]], ids=["ideal", "limited"])
def test_a_kind_of_a_test_reaches_the_learners_of_all_neighbours(
    gossip: Kind, links: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[tuple[int, int, float]] = []

    class Gossiping(Learner):
        def gives(self, kind: Kind) -> Floats:
            if kind is not gossip:
                return super().gives(kind)
            return np.full((COPIES, WIDTH), 10.0 * self._shape.agent, np.float32)

        def takes(self, kind: Kind, origin: int, data: Floats, came: Bools) -> None:
            assert kind is gossip
            assert came.all()
            assert data.shape == (COPIES, WIDTH)
            taken.append((self._shape.agent, origin, float(data[0, 0])))

    def make(scenario: Any, deployment: Any, agent: int, routing: Any) -> Gossiping:
        return Gossiping(shape_of(scenario, deployment, agent, routing), scenario.algorithm)

    monkeypatch.setattr(node.process, "make_learner", make)
    ready = plan(load("quickstart", [*WORDS, *links]))
    make_run_dir(tmp_path / "run", ready)
    recorder = Recorder(tmp_path / "run", env_steps_per_round=8, sinks=[])
    outcome = in_process.run(ready, tmp_path / "run", recorder, lambda *_: None)
    recorder.commit()
    results = Results(tmp_path / "run")
    sent = {row.kind: row for row in results.by_kind() if row.plane == "peer"}
    imbalance = results.imbalance(frozenset())
    results.close()
    recorder.close()
    assert outcome.error is None
    assert imbalance is None
    assert sorted(taken) == sorted([(0, 1, 10.0), (1, 0, 0.0), (1, 2, 20.0), (2, 1, 10.0)] * ROUNDS)
    assert "GOSSIP" in sent


def test_a_learner_without_that_kind_says_so() -> None:
    learner = OffPolicyLearner.__new__(OffPolicyLearner)  # what it has learnt is of no account here
    with pytest.raises(LookupError, match="OffPolicyLearner has no use for TOKEN of agent 3"):
        learner.takes(Kind.TOKEN, 3, np.zeros((1, 1), np.float32), np.ones(1, np.bool_))
