"""What is said of links before a run: held against the link model itself."""

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from coordinator.cli.app import app
from coordinator.records.plan import Plan, plan
from coordinator.study.forecast import Load, crossing, duration, link_specs, loads, objections, warnings
from scenarios.kinds import Kind
from scenarios.loading import load
from tests.system.test_limits import Alone
from topology.link.model import Fate, LinkModel, LinkSpec
from topology.link.presets import PRESETS


def ready(*overrides: str) -> Plan:
    return plan(load("quickstart", list(overrides)))


STATE = Load(kind=Kind.STATE, wire_bytes=700, per_link=1, reliable=False, due_s=1.0)
SPECS = [
    LinkSpec(rate_bps=1e5, delay_s=0.01, loss_prob=0.1, mtu_bytes=100),
    LinkSpec(rate_bps=1e5, delay_s=0.01, loss_prob=0.1, loss_burst=3.0, mtu_bytes=200),
    LinkSpec(rate_bps=1e6, spread=((0.0, 0.0), (0.9, 0.2), (1.0, 0.4)), loss_prob=0.02, mtu_bytes=1500),
    LinkSpec(rate_bps=1e5, duty=0.1, mtu_bytes=1500, loss_prob=0.3),
    LinkSpec(rate_bps=1e5, duty=0.1, mtu_bytes=400),
    LinkSpec(rate_bps=1e5, duty=0.01, mtu_bytes=350),
]


@pytest.mark.parametrize("spec", SPECS)
def test_the_forecast_of_one_message_is_what_the_model_does_to_many(spec: LinkSpec) -> None:
    copies = 40_000
    passage = LinkModel([(0.0, spec)], copies=copies, seed=0, stream=(0, 1)).carry(
        STATE.wire_bytes, np.zeros(copies), reliable=False
    )
    told = crossing(STATE, spec)
    lost = float((passage.fate == Fate.LOSS).mean())
    assert lost == pytest.approx(told.loss_prob, abs=2.6 * (lost * (1 - lost) / copies) ** 0.5)
    arrived = passage.arrive[np.isfinite(passage.arrive)]
    assert np.quantile(arrived, (0.5, 0.9, 0.99)) == pytest.approx(told.delay_s, rel=0.02)


def test_a_link_is_busy_for_its_airtime_with_each_message() -> None:
    for spec in SPECS:
        link = LinkModel([(0.0, LinkSpec(rate_bps=spec.rate_bps, duty=spec.duty, mtu_bytes=spec.mtu_bytes))],
                         copies=1, seed=0, stream=(0, 1))  # fmt: skip
        first, second = (float(link.carry(STATE.wire_bytes, np.zeros(1), reliable=False).arrive[0]) for _ in range(2))
        assert second - first == pytest.approx(crossing(STATE, spec).airtime_s)


def test_kinds_and_sizes_are_those_of_the_scenario() -> None:
    by_kind = {each.kind: each for each in loads(ready("kappa=2", "algorithm.factor=khop", "rollout.steps=10000"))}
    assert by_kind.keys() == {Kind.STATE, Kind.BOOTSTRAP, Kind.RATIO}
    assert by_kind[Kind.STATE].per_link == 2  # a path: over each link the next agent's and the one's behind it
    assert 40_000 < by_kind[Kind.RATIO].wire_bytes < 40_060
    assert by_kind[Kind.RATIO].reliable
    assert not by_kind[Kind.STATE].reliable
    halved = {each.kind: each for each in loads(ready("kappa=2", "network.codec.state=float16"))}
    assert halved[Kind.STATE].wire_bytes < by_kind[Kind.STATE].wire_bytes
    assert loads(ready("kappa=0")) == []
    (token,) = loads(ready("kappa=0", "algorithm.name=ma2ql", "algorithm.off_policy.turn_rounds=3"))
    assert (token.kind, token.per_link, token.reliable) == (Kind.TOKEN, 1, True)
    assert 32 < token.wire_bytes < 100
    assert max(each.per_link for each in loads(ready("kappa=5", "routing=direct"))) == 9  # 3 left of the middle to 3 right


def test_every_kind_that_a_run_sends_is_forecast_with_its_size(tmp_path: Path) -> None:
    # one copy: then a message is a deployment's own, and the forecast its very bytes (headers grow with round and step)
    for number, words in enumerate([
        ["algorithm.name=coppo"], ["algorithm.name=a2po"], ["algorithm.name=alternating_ppo"],
        ["algorithm.name=mappo_l", "algorithm.critic_scope=central"],
        ["algorithm.name=mappo", "algorithm.critic_scope=central", "central.at=3"],
        ["algorithm.name=ippo", "algorithm.consensus=both", "network.codec.consensus=float16"],
        ["algorithm.constraint_scope=consensus", "env.control_limit=1", "env.cost=local"],
        ["algorithm.name=qmix", "env.name=stochastic_game", "env.states=4", "env.n_discrete=2"],
    ]):  # fmt: skip
        run = Alone(tmp_path / str(number), *words, "env.num_envs=1", "env.horizon=7", "budget.env_steps=20")
        rows = [row for row in run.rows if row.plane != "world"]
        told = {each.kind.name: each for each in loads(run.ready)}
        assert told.keys() == {row.kind for row in rows}
        for kind, one in told.items():
            of = [row for row in rows if row.kind == kind]
            per_round = one.per_link * (20 if kind == "STATE" else 1)
            assert max(row.messages for row in of) == per_round
            if kind != "BOOTSTRAP":  # as many rows as there are cuts, told before the run for one
                assert max(row.wire_bytes / row.messages for row in of) == pytest.approx(one.wire_bytes, abs=12)


def test_a_ratio_of_40_kb_over_lora_is_told_before_the_run() -> None:
    lora = ready("network.preset=lora-sf7", "algorithm.factor=khop", "rollout.steps=10000")
    told = warnings(lora)
    assert any("RATIO of 40,0" in text and "111 min" in text and "network.patience_s" in text for text in told), told
    assert any("STATE a step" in text for text in told)
    assert warnings(ready("network.preset=lan", "algorithm.factor=khop", "rollout.steps=10000")) == []
    assert warnings(ready()) == []


def test_states_that_are_always_late_and_messages_that_fit_no_queue_are_told() -> None:
    late = ready("network.latency_ms=30")
    assert any("agents act on older ones" in text for text in warnings(late))
    assert warnings(ready("network.latency_ms=20")) == []
    (spec,) = link_specs(ready("network.queue_bytes=50"))
    assert any("never fits the queue" in text for text in objections(late, spec, loads(late)))


def test_a_link_that_loses_everything_is_told() -> None:
    assert warnings(ready("network.loss_prob=1")) == [
        "link 0-1 and 9 more: every message is lost (loss_prob 1), however often it is sent"
    ]


def test_links_that_differ_are_told_apart_and_in_time() -> None:
    scenario = ready(
        "network.edges=[{between: [0, 1], latency_ms: 50}]",
        "network.events=[{do: change, between: [3, 4], preset: lora-sf7, from_s: 60}]",
    )
    told = warnings(scenario)
    assert any(text.startswith("link 0-1 and 1 more:") for text in told)
    assert any(text.startswith("link 3-4 and 1 more from 60 s on:") for text in told)


def test_the_command_shows_every_preset_and_kind() -> None:
    shown = CliRunner().invoke(app, ["links", "quickstart", "algorithm.factor=khop", "--presets"], env={"COLUMNS": "200"})
    assert shown.exit_code == 0
    assert all(name in shown.stdout for name in PRESETS)
    assert shown.stdout.count("RATIO (r)") == len(PRESETS)
    silent = CliRunner().invoke(app, ["links", "quickstart", "kappa=0"])
    assert "no agent sends anything" in silent.stdout


def test_durations_read_well(subtests: pytest.Subtests) -> None:
    rows: list[tuple[float, str]] = [(1e-5, "0.01 ms"), (119.0, "119 s"), (121.0, "2.02 min"), (7200.0, "2 h")]
    for seconds, text in rows:
        with subtests.test(seconds=seconds):
            assert duration(seconds) == text
