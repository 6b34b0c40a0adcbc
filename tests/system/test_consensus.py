"""Neighbours that average their networks, whole runs: bytes, agreement, losses, and the same however a run is carried out."""

from pathlib import Path

import numpy as np
import pytest

from coordinator.records.database import Results
from coordinator.records.plan import plan
from node.protocol.kinds import policy_size
from scenarios.loading import ScenarioError, load
from tests.system.stage import SMALL, Stage
from tests.system.test_limits import LOSSY, Alone, told

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]

N, COPIES, EDGES = 5, 2, 4  # of SMALL on a line
ALIKE = ["algorithm.actor_scope=local", "algorithm.critic_scope=local"]
BOTH = [*ALIKE, "algorithm.consensus=both"]
DATAGRAMS = ["network.delivery.consensus=datagram", "network.mtu_bytes=2000"]


def apart(folder: Path, name: str) -> list[float]:
    """Mean over agents of their distance from the mean, by round."""
    results = Results(folder)
    found = [*results.by_round(f"disagreement_{name}")]
    results.close()
    return found


@pytest.mark.parametrize(("every", "times"), [(1, 4), (3, 1)])
def test_bytes_are_their_closed_form(tmp_path: Path, every: int, times: int) -> None:
    run = Alone(tmp_path / "run", *BOTH, f"algorithm.consensus_every={every}", "budget.env_steps=160")
    statistics = 2 * 1  # mean and spread of the one input
    actor = policy_size(1, 1, 0, run.ready.scenario.algorithm) + statistics
    critic = (1 * 8 + 8) + (8 + 1) + statistics
    rows = [row for row in run.rows if row.kind == "CONSENSUS"]
    assert sum(row.payload_bytes for row in rows) == 4 * (1 + actor + critic) * 2 * EDGES * times * COPIES
    assert len({(row.src, row.dst) for row in rows}) == 2 * EDGES
    assert {row.round for row in rows} == set(range(every - 1, 4, every))
    assert {row.plane for row in rows} == {"peer"}


def test_agents_of_a_complete_graph_agree_to_the_last_digits_and_others_come_closer(tmp_path: Path) -> None:
    runs = {
        "complete": [*BOTH, "topology.kind=complete"],
        "line": BOTH,
        "line, seldom": [*BOTH, "algorithm.consensus_every=4"],
    }
    found = {}
    for name, words in runs.items():
        Alone(tmp_path / name, *words, "budget.env_steps=320")
        found[name] = {network: apart(tmp_path / name, network) for network in ("policy", "critic")}
        assert all(len(course) == 8 for course in found[name].values())
    for network in ("policy", "critic"):
        assert max(found["complete"][network]) < 1e-5
        assert np.mean(found["line"][network]) < 0.75 * np.mean(found["line, seldom"][network])


LONG = [
    *BOTH, "algorithm.lr_decay=none", "budget.env_steps=300", "rollout.steps=5", "env.horizon=5", "evaluation.every_rounds=0",
]  # fmt: skip


@pytest.fixture(scope="module")
def never(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose agents never average anything, but start alike."""
    folder = tmp_path_factory.mktemp("never") / "run"
    Alone(folder, *LONG, "algorithm.consensus_every=1000")
    return folder


@pytest.mark.parametrize("loss", [0.2, 0.5])
def test_with_losses_disagreement_stays_bounded_and_the_run_repeats(tmp_path: Path, never: Path, loss: float) -> None:
    once, again = (Alone(tmp_path / name, *LONG, *DATAGRAMS, f"network.loss_prob={loss}") for name in ("once", "again"))
    assert once.weights == again.weights
    assert once.rows == again.rows
    assert once.told() == again.told()
    sent = sum(row.messages for row in once.rows if row.kind == "CONSENSUS")  # of every copy
    missing = sum(report.metrics.get("missing_consensus", 0.0) for report in once.reports.values())
    assert missing / sent == pytest.approx(loss, abs=0.06)
    for network in ("policy", "critic"):
        course, alone = apart(tmp_path / "once", network), apart(never, network)
        assert course == apart(tmp_path / "again", network)
        assert max(course) < 0.6 * max(alone)
        assert np.mean(course[-10:]) < 0.5 * np.mean(alone[-10:])


@pytest.mark.parametrize("links", [[], [*LOSSY, *DATAGRAMS]], ids=["ideal", "lossy"])
def test_processes_do_what_one_process_does(stage: Stage, tmp_path: Path, links: list[str]) -> None:
    words = [*BOTH, *links, "network.codec.consensus=float16"]
    alone, many = Alone(tmp_path / "run", *words), stage.perform(*words, shuffle=1)
    assert many.weights == alone.weights
    assert many.rows == alone.rows
    assert {key: told(report) for key, report in many.reports.items()} == alone.told()
    assert {key: report.agreeing for key, report in many.reports.items()} == {
        key: report.agreeing for key, report in alone.reports.items()
    }


SHARED = [
    "env.control_limit=0.05", "env.cost=local", "algorithm.name=scal_mappo_l", "algorithm.constraint_scope=consensus",
]  # fmt: skip


def test_multipliers_cost_their_closed_form(tmp_path: Path) -> None:
    run = Alone(tmp_path / "run", *SHARED, "algorithm.consensus_every=9")
    rows = [row for row in run.rows if row.kind == "MULTIPLIER"]
    assert sum(row.payload_bytes for row in rows) == 4 * (1 + 2) * 2 * EDGES * 2 * COPIES  # degree, estimate, price; two rounds
    assert not any(row.kind == "CONSENSUS" for row in run.rows)


def test_agents_come_to_one_price_that_none_would_have_alone(tmp_path: Path) -> None:
    limits = ["algorithm.mult_kp=0", "algorithm.mult_init=0.5", "env.horizon=5", "budget.env_steps=200"]
    spread = {}
    for scope in ("own", "consensus"):
        run = Alone(tmp_path / scope, *SHARED, *limits, f"algorithm.constraint_scope={scope}", "topology.kind=complete")
        last = max(round_ for _, round_ in run.reports)
        spread[scope] = np.ptp([run.reports[agent, last].metrics["multiplier_0"] for agent in range(N)])
        assert ("mean_cost_0" in run.reports[0, last].metrics) == (scope == "consensus")
    assert spread["consensus"] < 0.4 * spread["own"]


@pytest.mark.parametrize("links", [[], [*LOSSY, "network.delivery.multiplier=datagram"]], ids=["ideal", "lossy"])
def test_processes_agree_on_prices_as_one_process_does(stage: Stage, tmp_path: Path, links: list[str]) -> None:
    alone, many = Alone(tmp_path / "run", *SHARED, *links), stage.perform(*SHARED, *links, shuffle=2)
    assert many.weights == alone.weights
    assert many.rows == alone.rows
    assert {key: told(report) for key, report in many.reports.items()} == alone.told()


def test_it_completes_with_an_agent_down(tmp_path: Path) -> None:
    crash = "network.events=[{do: crash, agent: 2, from_s: 5, until_s: 45}]"
    run = Alone(tmp_path / "run", *BOTH, crash, "network.patience_s=8", "budget.env_steps=120")
    assert run.reports[1, 0].metrics["missing_consensus"] == COPIES
    assert "missing_consensus" not in run.reports[1, 2].metrics
    assert "missing_consensus" not in run.reports[0, 0].metrics


WRONG = {
    "no multipliers": ([*SHARED, "algorithm.name=macpo"], "constraint: got 'cpo' with constraint_scope 'consensus'"),
    "all costs are at one place": (
        [*SHARED, "algorithm.critic_scope=central", "algorithm.actor_scope=local"],
        "critic_scope: got 'central' with constraint_scope 'consensus'",
    ),
    "turns": (["algorithm.name=alternating_ppo", "algorithm.consensus=critic"], "got 'critic' with order 'alternating'"),
    "values": (["algorithm.name=iql", "algorithm.consensus=policy"], "got 'policy' with target 'q'; values of"),
    "ratios": (["algorithm.name=happo", "algorithm.consensus=both"], "consensus: got 'both' with factor 'global'"),
    "no critic": (
        ["algorithm.name=mappo", "algorithm.critic_scope=central", "algorithm.consensus=critic"],
        "consensus: got 'critic' with critic_scope 'central'",
    ),
    "one scale": ([*BOTH, "network.codec.consensus=int8"], "network.codec.consensus: got 'int8'"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_averaged_is_refused(case: str) -> None:
    words, reason = WRONG[case]
    with pytest.raises(ScenarioError) as refusal:
        load("quickstart", [*SMALL, *words])
    assert reason in str(refusal.value)


def test_networks_of_unequal_width_are_refused_with_agents_and_widths() -> None:
    with pytest.raises(ScenarioError, match=r"critics take 2 numbers \(agents 0, 4\) and 3 numbers \(agents 1, 2, 3\)"):
        plan(load("quickstart", [*SMALL, "algorithm.consensus=critic"]))
    robot = ["env.name=mamujoco_humanoid", "env.partition=9|8", *ALIKE]
    with pytest.raises(ScenarioError, match=r"actors take \d+ numbers \(agent 0\) and \d+ numbers \(agent 1\)"):
        plan(load("quickstart", [*robot, "algorithm.consensus=policy"]))
    plan(load("quickstart", [*SMALL, "algorithm.consensus=both", "topology.kind=ring"]))  # where all balls are alike


def test_a_budget_that_agents_cannot_share_is_refused() -> None:
    with pytest.raises(ScenarioError, match=r"constraint_scope: got 'consensus'; .* no limited costs of their own to share"):
        plan(load("quickstart", [*SMALL, *SHARED, "env.cost=team"]))


def test_networks_too_large_to_be_averaged_are_refused() -> None:
    with pytest.raises(ScenarioError, match=r"algorithm.hidden: got \[1000, 1000, 1000\] .* at most 2,097,152 are averaged"):
        plan(load("quickstart", [*SMALL, *BOTH, "algorithm.hidden=[1000,1000,1000]"]))
