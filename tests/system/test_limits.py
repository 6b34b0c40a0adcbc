"""Links with limits, whole runs: what repeats, what must agree, who gets through to the end."""

import multiprocessing
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from coordinator.records.database import Recorder, Results
from coordinator.records.plan import make_run_dir, plan
from coordinator.run import in_process
from scenarios.loading import load
from tests.system.stage import SMALL, Done, Stage
from topology.planes.control import Control, RoundReport
from topology.wire.ledger import Row, imbalance

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]

LOSSY = ["network.loss_prob=0.2", "network.latency_ms=400", "network.jitter_ms=300", "network.rate_bps=4000"]  # dt is 1 s


class Alone:
    """A run within this process: what it came to."""

    def __init__(self, folder: Path, *overrides: str) -> None:
        scenario = load("quickstart", [*SMALL, *overrides])
        self.ready = ready = plan(scenario)
        make_run_dir(folder, ready)
        recorder = Recorder(folder, env_steps_per_round=1)
        self.reports: dict[tuple[int, int], RoundReport] = {}
        outcome = in_process.run(ready, folder, recorder, self._watch)
        recorder.close()
        assert outcome.error is None
        self.weights = {int(role.partition("-")[2]): digest for role, digest in outcome.weights.items()}
        results = Results(folder)
        self.rows = results.traffic()
        assert results.imbalance() is None
        results.close()

    def _watch(self, message: Control) -> None:
        if isinstance(message, RoundReport):
            self.reports[message.agent, message.round] = message

    def told(self) -> dict[tuple[int, int], tuple[Any, ...]]:
        """All that nodes reported of their rounds, traffic apart."""
        return {key: told(each) for key, each in self.reports.items()}

    def age(self, agent: int, round_: int, origin: int) -> float:
        return next(age.max_s for age in self.reports[agent, round_].ages if age.origin == origin)


def told(report: RoundReport) -> tuple[Any, ...]:
    return report.virtual_s, report.metrics, report.ages, report.incidents, report.refused


def counted(rows: list[Row], *fields: str) -> dict[tuple[str, str, str, int], tuple[int, ...]]:
    return {(row.src, row.dst, row.kind, row.round): tuple(getattr(row, name) for name in fields) for row in rows}


# ------------------------------------------------------------------------------------------ the same, however it is run


@pytest.fixture
def busy_core() -> Any:
    """Somebody else's work on one core."""
    worker = multiprocessing.get_context("spawn").Process(target=_spin, daemon=True)
    worker.start()
    yield
    worker.kill()
    worker.join()


def _spin() -> None:
    while True:
        pass


@pytest.mark.parametrize("kappa", [0, 1, 2])
@pytest.mark.parametrize("routing", ["relay", pytest.param("direct", marks=pytest.mark.slow)])
@pytest.mark.parametrize("links", [pytest.param([], id="ideal", marks=pytest.mark.slow), pytest.param(LOSSY, id="lossy")])
def test_processes_in_any_order_beside_a_busy_core_do_what_one_process_does(
    stage: Stage, tmp_path: Path, busy_core: None, links: list[str], routing: str, kappa: int
) -> None:
    overrides = [*links, f"routing={routing}", f"kappa={kappa}", "algorithm.factor=khop", "algorithm.reward=khop_mean"]
    alone = Alone(tmp_path / "run", *overrides)
    many: Done = stage.perform(*overrides, shuffle=kappa)
    assert many.weights == alone.weights
    assert many.rows == alone.rows
    assert {key: told(report) for key, report in many.reports.items()} == alone.told()
    assert sum(row.dropped for row in many.rows) > 0 or not links or kappa == 0
    assert imbalance(many.rows) is None


TWENTY = [
    ["network.preset=wifi-campus"],
    ["network.preset=wifi-busy", "kappa=2"],
    ["network.preset=uav-mesh", "kappa=3"],
    ["network.preset=lte", "routing=direct", "kappa=2"],
    ["network.preset=802.15.4"],
    ["network.preset=lora-sf7"],
    ["network.preset=leo", "network.delivery.state=reliable"],
    ["network.preset=uav-mesh", "network.on_missing=zero"],
    ["network.preset=wifi-campus", "network.codec.state=int8", "network.codec.ratio=float16", "algorithm.factor=khop"],
    ["network.preset=wifi-campus", "network.state_threshold=0.5", "kappa=2"],
    ["network.codec.state=bfloat16", "network.codec.bootstrap=bfloat16"],
    ["network.loss_prob=0.5", "network.loss_burst=4", "topology.kind=ring", "kappa=2"],
    ["network.loss_prob=0.3", "topology.kind=star", "kappa=2", "network.retries=1", "algorithm.factor=khop"],
    ["network.edges=[{between: [1, 2], preset: wifi-busy}]", "kappa=4"],
    ["network.events=[{do: outage, between: [0, 1], from_s: 5, until_s: 25}]", "kappa=2"],
    ["network.events=[{do: partition, agents: [0, 1], one_way: out, from_s: 5, until_s: 25}]", "kappa=2"],
    ["network.events=[{do: crash, agent: 2, from_s: 5, until_s: 25}]", "kappa=2", "algorithm.factor=khop"],
    ["network.events=[{do: change, preset: lora-sf7, from_s: 10, until_s: 30}]", "kappa=1"],
    ["network.random_outages={mean_up_s: 10, mean_down_s: 3}", "network.churn={mean_on_s: 20, mean_off_s: 5}", "kappa=2"],
    ["compute.forward_ms=700", "compute.policy_ms=3000", "network.events=[{do: slow, agent: 1, factor: 3, from_s: 0}]",
     "network.latency_ms=600"],
]  # fmt: skip


@pytest.mark.parametrize(
    "overrides",
    [*TWENTY[:8], *(pytest.param(overrides, marks=pytest.mark.slow) for overrides in TWENTY[8:])],
    ids=lambda overrides: " ".join(overrides)[:60],
)
def test_a_scenario_run_twice_is_the_same_run(tmp_path: Path, overrides: list[str]) -> None:
    once, again = (Alone(tmp_path / name, *overrides) for name in ("once", "again"))
    assert once.weights == again.weights
    assert once.rows == again.rows
    assert once.told() == again.told()


def test_another_seed_has_other_losses(tmp_path: Path) -> None:
    dropped = [counted(Alone(tmp_path / str(seed), *LOSSY, f"seed={seed}").rows, "dropped") for seed in (0, 1)]
    assert dropped[0] != dropped[1]


# ------------------------------------------------------------------------------------------ who gets through


@pytest.mark.parametrize("graph", ["line", pytest.param("ring", marks=pytest.mark.slow)])
@pytest.mark.parametrize("round_", [0, 1])
@pytest.mark.parametrize("victim", range(5))
def test_a_run_ends_with_any_agent_down_from_any_round_on(tmp_path: Path, graph: str, round_: int, victim: int) -> None:
    crash = f"network.events=[{{do: crash, agent: {victim}, from_s: {20 * round_}}}]"
    run = Alone(tmp_path / "run", f"topology.kind={graph}", "kappa=2", "algorithm.factor=khop", crash)
    sent: defaultdict[tuple[str, int], int] = defaultdict(int)
    for row in run.rows:
        if row.plane == "peer":
            sent[row.src, row.round] += row.messages
    assert all((sent[str(victim), k] > 0) == (k < round_) for k in range(2))
    assert sum(row.crash for row in run.rows if row.dst == str(victim)) > 0
    # the others wait for its last states and ratios of the round before, in vain, as long as patience lasts
    assert run.reports[victim, round_].incidents[0] == (80.0 * round_, "down: limp, silent and deaf")
    waited = {text for each in run.reports.values() for _, text in each.incidents}
    assert f"BOOTSTRAP of agent {victim} missing in 2 of 2 copies" in waited
    learned = {agent for (agent, k), report in run.reports.items() if k == 1 and "kl" in report.metrics}
    assert learned == set(range(5)) - {victim}


EDGES = {"line": [(i, i + 1) for i in range(4)], "ring": [(i, (i + 1) % 5) for i in range(5)]}


@pytest.mark.parametrize("round_", [0, 1])
@pytest.mark.parametrize(
    ("graph", "edge"),
    [
        *(("line", edge) for edge in EDGES["line"]),
        *(pytest.param("ring", edge, marks=pytest.mark.slow) for edge in EDGES["ring"]),
    ],
)
def test_a_run_ends_with_any_link_down_from_any_round_on(tmp_path: Path, graph: str, edge: tuple[int, int], round_: int) -> None:
    outage = f"network.events=[{{do: outage, between: {list(edge)}, from_s: {20 * round_}}}]"
    run = Alone(tmp_path / "run", f"topology.kind={graph}", "kappa=2", "algorithm.factor=khop", outage)
    ends = {str(agent) for agent in edge}
    for row in run.rows:
        if row.plane == "peer":
            said_at = 20 * (row.round + (row.kind != "STATE"))  # at the end of the round all but states
            struck = {row.src, row.dst} == ends and (said_at >= 20 * round_)
            assert row.delivered == (0 if struck else row.messages), row
    assert all("kl" in report.metrics for report in run.reports.values())


def test_a_partition_that_heals_shows_in_the_age_of_information_and_on_the_links_it_cut(tmp_path: Path) -> None:
    rounds = ["budget.env_steps=160", "kappa=1"]  # four rounds of twenty steps
    whole = Alone(tmp_path / "whole", *rounds)
    cut = Alone(tmp_path / "cut", *rounds, "network.events=[{do: partition, agents: [0, 1], from_s: 25, until_s: 35}]")
    for agent in range(5):
        for origin in {agent - 1, agent + 1} & set(range(5)):
            across = {agent, origin} == {1, 2}
            ages = [cut.age(agent, k, origin) for k in range(4)]
            assert ages == ([0.0, 10.0, 0.0, 0.0] if across else [0.0] * 4)
    fields = ("messages", "payload_bytes", "wire_bytes", "delivered", "dropped", "in_flight")
    before, after = counted(whole.rows, *fields), counted(cut.rows, *fields)
    assert before.keys() == after.keys()
    differ = {key for key in before if before[key] != after[key]}
    assert differ == {("1", "2", "STATE", 1), ("2", "1", "STATE", 1)}
    copies = 2
    for key in differ:
        assert after[key][0] == before[key][0]
        assert after[key][4] == 10 * copies
    assert whole.told().keys() == cut.told().keys()
    assert all(whole.reports[key].virtual_s == cut.reports[key].virtual_s for key in whole.reports)


# ------------------------------------------------------------------------------------------ time


def test_thinking_stretches_steps_and_rounds(tmp_path: Path) -> None:
    think = ["compute.forward_ms=800", "compute.values_ms=500", "compute.policy_ms=1000"]
    run = Alone(tmp_path / "run", *think)
    # a step lasts half a period until the deadline, then 0.8 s; a round twenty of them and 1.5 s of learning
    assert run.reports[0, 0].virtual_s == pytest.approx(20 * 1.3 + 1.5)
    assert run.reports[0, 1].virtual_s == pytest.approx(2 * (20 * 1.3 + 1.5))


def test_a_slow_agent_holds_everybody_up(tmp_path: Path) -> None:
    slow = "network.events=[{do: slow, agent: 3, factor: 2, from_s: 0}]"
    run = Alone(tmp_path / "run", "compute.policy_ms=1000", slow)
    assert [run.reports[agent, 0].virtual_s for agent in (0, 3)] == pytest.approx([21.0, 22.0])
    assert [run.reports[agent, 1].virtual_s for agent in (0, 3)] == pytest.approx([43.0, 44.0])


def test_ratios_on_slow_links_make_a_round_longer_one_after_the_other(tmp_path: Path) -> None:
    links = ["network.rate_bps=8000", "algorithm.factor=khop", "algorithm.order=fixed", "algorithm.critic_scope=local",
             "algorithm.actor_scope=local"]  # fmt: skip
    run = Alone(tmp_path / "run", *links)
    ratios = [row for row in run.rows if row.kind == "RATIO" and row.round == 0]
    copies, per_copy = 2, {row.wire_bytes // 2 for row in ratios}
    assert len(per_copy) == 1
    assert all(row.messages == copies for row in ratios)
    hop_s = per_copy.pop() * 8 / 8000
    ends = [run.reports[agent, 0].virtual_s for agent in range(5)]
    assert ends == pytest.approx([20 + hop_s * place for place in range(5)])
