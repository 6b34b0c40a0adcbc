"""One policy for all agents, by the central node: what it costs, that all act by the same weights, who keeps his own."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from coordinator.records.plan import plan
from node.protocol.kinds import policy_size
from scenarios.loading import ScenarioError, load
from tests.system.stage import SMALL, Stage
from tests.system.test_limits import LOSSY, Alone, told

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]

N, COPIES, ROUNDS = 5, 2, 2  # of SMALL on a line
CENTRAL = ["algorithm.name=mappo", "algorithm.critic_scope=central", "algorithm.input_norm=layer"]
SHARING = [*CENTRAL, "algorithm.share_policy=true", "record.checkpoint_rounds=1"]


def actors(folder: Path, round_: int, n: int = N) -> list[np.ndarray]:
    return [load_file(folder / "checkpoints" / f"round-{round_}" / f"agent-{i}.safetensors")["actor"] for i in range(n)]


def on_central_plane(run: Alone) -> Counter[str]:
    found: Counter[str] = Counter()
    for row in run.rows:
        if row.plane == "central":
            found[row.kind] += row.payload_bytes
    return found


def test_all_agents_act_by_the_same_weights_after_every_round(tmp_path: Path) -> None:
    Alone(tmp_path / "run", *SHARING)
    Alone(tmp_path / "own", *CENTRAL, "record.checkpoint_rounds=1")
    before = None
    for round_ in sorted(int(path.name.partition("-")[2]) for path in (tmp_path / "run" / "checkpoints").glob("round-*")):
        first, *others = actors(tmp_path / "run", round_)
        assert all((first == other).all() for other in others)
        assert before is None or (first != before).any()
        before = first
        assert (actors(tmp_path / "own", round_)[0] != actors(tmp_path / "own", round_)[1]).any()


def test_they_are_the_mean_of_what_each_has_learnt(tmp_path: Path) -> None:
    one_round = ["budget.env_steps=40", "compute.policy_ms=1000", "network.patience_s=5", *SHARING]
    Alone(tmp_path / "run", *one_round)
    # each keeps what it has learnt where the links to the central node are cut before anybody has done with learning
    Alone(tmp_path / "alone", *one_round, f"network.events=[{{do: outage, agents: [{N}], from_s: 20.5}}]")
    folder = min((tmp_path / "run" / "checkpoints").glob("round-*")).name.partition("-")[2]
    apart = actors(tmp_path / "alone", int(folder))
    assert len({each.tobytes() for each in apart}) == N
    np.testing.assert_allclose(actors(tmp_path / "run", int(folder))[0], np.mean(apart, axis=0), rtol=2.4e-7, atol=1e-8)  # 2 ulp


@pytest.mark.parametrize("place", ["null", "2"])
def test_sharing_costs_its_closed_form_on_the_central_plane(tmp_path: Path, place: str) -> None:
    run = Alone(tmp_path / "run", *SHARING, f"central.at={place}")
    algorithm = run.ready.scenario.algorithm
    weights = policy_size(1, 1, 0, algorithm)
    assert weights == 2 * 1 + (1 * 8 + 8) + (8 + 1) + 1  # LayerNorm of the input, hidden layer, head, spread
    found = on_central_plane(run)
    assert found["PARAMETERS"] == found["SHARED"] == 4 * weights * COPIES * ROUNDS * N
    assert not any(row.kind in ("PARAMETERS", "SHARED") for row in run.rows if row.plane != "central")


def test_with_one_agent_it_changes_nothing(tmp_path: Path) -> None:
    alone = ["env.agents=1"]
    assert Alone(tmp_path / "a", *SHARING, *alone).weights == Alone(tmp_path / "b", *CENTRAL, *alone).weights


@pytest.mark.parametrize("links", [[], LOSSY], ids=["ideal", "lossy"])
def test_processes_do_what_one_process_does(stage: Stage, tmp_path: Path, links: list[str]) -> None:
    overrides = [*links, *SHARING, "central.at=1"]
    alone, many = Alone(tmp_path / "run", *overrides), stage.perform(*overrides, shuffle=1)
    assert many.weights == alone.weights
    assert many.rows == alone.rows
    assert {key: told(report) for key, report in many.reports.items()} == alone.told()


@pytest.mark.parametrize("down", [2, N])
def test_it_completes_with_losses_and_somebody_down(tmp_path: Path, down: int) -> None:
    hard = ["network.loss_prob=0.1", "network.delivery.policy=datagram", "network.patience_s=8"]
    crash = f"network.events=[{{do: crash, agent: {down}, from_s: 5, until_s: 45}}]"
    run = Alone(tmp_path / "run", *SHARING, *hard, crash, "budget.env_steps=120")
    assert len(run.reports) == (N + 1) * 3
    if down == 2:
        assert run.reports[N, 0].metrics["missing_parameters"] >= COPIES
        assert run.reports[2, 0].metrics["missing_shared"] == COPIES


WRONG = {
    "no central critic": (["algorithm.name=mappo"], "algorithm.critic_scope: got 'global' with share_policy"),
    "ratios are told": (
        ["algorithm.name=happo", "algorithm.critic_scope=central", "algorithm.input_norm=layer"],
        "algorithm.factor: got 'global' with share_policy",
    ),
    "own statistics": ([*CENTRAL, "algorithm.input_norm=running"], "algorithm.input_norm: got 'running' with share_policy"),
    "other widths": ([*CENTRAL, "algorithm.actor_scope=khop"], "algorithm.actor_scope: got 'khop' with share_policy"),
    "wall clock": (
        [*CENTRAL, "clock=wall", "network.patience_s=5"],
        "clock: got 'wall'; with critic_scope 'central' it must be 'virtual'",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_shared_is_refused(case: str) -> None:
    words, reason = WRONG[case]
    with pytest.raises(ScenarioError) as refusal:
        load("quickstart", [*SMALL, *words, "algorithm.share_policy=true"])
    assert reason in str(refusal.value)


def test_agents_that_observe_differently_share_nothing() -> None:
    robot = ["env.name=mamujoco_humanoid", "env.partition=9|8"]
    with pytest.raises(ScenarioError, match=r"share_policy: got true; agents of this mamujoco_humanoid observe differently"):
        plan(load("quickstart", [*robot, *CENTRAL, "algorithm.share_policy=true"]))
