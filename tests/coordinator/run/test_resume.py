"""Interrupted and resumed equals never interrupted: the same weights, the same ledger, the same tables."""

import contextlib
import hashlib
import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coordinator.records.checkpoints import (
    COMPLETE_FILE,
    FORMAT,
    Checkpoints,
    claim_run,
    complete_rounds,
    drop_others,
    latest_good,
)
from coordinator.records.database import Recorder
from coordinator.records.plan import Plan, make_run_dir, plan, reopened
from coordinator.records.run_sqlite import DATABASE
from coordinator.run import in_process
from coordinator.run.collector import Outcome
from coordinator.session import resumption
from scenarios.loading import ScenarioError, load
from topology import snapshot
from topology.deployment import DEPLOYMENT_FILE, SCENARIO_FILE, state_folder
from topology.planes.control import Control, Stored
from topology.process import StopRequested

SMALL = [
    "env.num_envs=2", "rollout.steps=8", "budget.env_steps=112", "algorithm.hidden=[6]", "algorithm.epochs=2",
    "algorithm.minibatches=2", "record.tensorboard=false", "record.state_rounds=2",
    "evaluation.every_rounds=3", "evaluation.episodes=2",
]  # fmt: skip
ROUNDS = 7
LQ = ["env.name=network_lq", "env.agents=4", "topology.kind=line", "env.horizon=11"]
GAME = ["env.name=stochastic_game", "env.agents=3", "topology.kind=line", "env.horizon=5"]
CHEETAH = ["env.name=safe_halfcheetah", "env.partition=3x2", "env.threads=1", "topology.kind=line", "env.horizon=11"]
CHAIN = ["env.name=truncation_chain", "env.agents=3", "topology.kind=line"]
LOSSY = [
    "network.preset=wifi-campus", "network.loss_prob=0.2", "network.loss_burst=3", "network.rate_bps=2e4", "kappa=2",
    "network.queue_bytes=600", "network.latency_ms=700", "network.jitter_ms=300",
]  # fmt: skip
SLOW = ["network.latency_ms=40", "network.jitter_ms=30", "network.loss_prob=0.1", "kappa=2"]
VALUES = ["algorithm.off_policy.warm_up_steps=16", "algorithm.off_policy.batch=8", "algorithm.off_policy.buffer=50"]
MODEL = ["algorithm.world_model.window=2", "algorithm.world_model.latent=2", "algorithm.world_model.passes=2"]
TABLE = [*VALUES, "algorithm.off_policy.representation=table"]
CASES = {
    "lq": [*LQ, "algorithm.name=scal_mappo_l"],
    "lq, bad links": [*LQ, *LOSSY, "algorithm.name=scal_mappo_l", "algorithm.factor=khop"],
    "lq, bad links, overlay": [*LQ, *LOSSY, "routing=direct", "algorithm.name=dpo"],
    "lq, sparse states, crash": [
        *LQ, "kappa=2", "network.state_threshold=0.4", "network.churn={mean_on_s: 20, mean_off_s: 9}", "algorithm.name=hatrpo",
        "algorithm.factor=khop",
    ],
    "game": [*GAME, "algorithm.name=dpo", "kappa=1"],
    "chain": [*CHAIN, "algorithm.name=hatrpo", "algorithm.factor=khop", "algorithm.order=random"],
    "lq, planes": [*LQ, "env.control_limit=0.22", "algorithm.name=macpo"],
    "cheetah": [*CHEETAH, "algorithm.name=mafocops", "algorithm.mult_kd=1"],
    "cheetah, slow links": [*CHEETAH, *SLOW, "algorithm.name=scal_mappo_l", "algorithm.factor=khop"],
    "cheetah, quirks": [*CHEETAH, "algorithm.name=mappo_l", "algorithm.quirks=[shared_return_norm]"],
    "lq, central critic": [*LQ, "algorithm.name=mappo", "algorithm.critic_scope=central"],
    "lq, central critic, bad links": [*LQ, *LOSSY, "algorithm.name=mappo_l", "algorithm.critic_scope=central", "central.at=1"],
    "lq, consensus, bad links": [
        *LQ, *LOSSY, "algorithm.name=ippo", "algorithm.consensus=both", "network.delivery.consensus=datagram",
        "env.control_limit=0.05", "env.cost=local", "algorithm.constraint=pid_lagrangian", "algorithm.constraint_scope=consensus",
        "algorithm.consensus_every=2", "network.queue_bytes=0",
    ],
    "game, ideal tables": [*GAME, *TABLE, "algorithm.name=i2q"],
    "game, turns, bad links": [*GAME, *LOSSY, *TABLE, "algorithm.name=ma2ql", "algorithm.off_policy.turn_rounds=2"],
    "game, networks": [*GAME, *VALUES, "algorithm.name=iql"],
    "game, mixed values": [*GAME, *VALUES, "algorithm.name=qmix"],
    "game, mixed values, bad links": [*GAME, *LOSSY, *VALUES, "network.delivery.policy=datagram", "algorithm.name=qmix"],
    "game, memories in turn": [
        *GAME, *VALUES, "algorithm.name=ma2ql", "algorithm.off_policy.representation=recurrent", "algorithm.off_policy.burn_in=3",
    ],
    "lq, ideal numbers": [*LQ, *VALUES, "algorithm.name=i2q"],
    "game, model": [*GAME, *MODEL, "algorithm.name=mdpo"],
    "lq, model, bad links": [*LQ, *LOSSY, *MODEL, "algorithm.name=mdpo", "algorithm.actor_scope=khop",
        "algorithm.critic_scope=khop", "algorithm.objective=clip"],
}  # fmt: skip
LATER = {  # `make slow`
    "lq, bad links, overlay", "cheetah, slow links", "cheetah, quirks", "lq, central critic, bad links",
    "game, mixed values, bad links", "lq, model, bad links", "lq, sparse states, crash", "game, memories in turn",
}  # fmt: skip
TABLES = ("episodes", "rounds", "traffic", "ages", "events", "evaluations", "evaluation_traffic")


def perform(ready: Plan, folder: Path, watch: Callable[[Control], None] = lambda report: None) -> Outcome:
    scenario = ready.scenario
    per_round = scenario.env.num_envs * scenario.rollout.steps
    with contextlib.closing(
        Recorder(folder, env_steps_per_round=per_round, resumed_after=ready.deployment.resumed_after)
    ) as recorder:
        return in_process.run(ready, folder, recorder, watch)


def begun(folder: Path, *words: str) -> Plan:
    ready = plan(load("quickstart", [*SMALL, *words]))
    make_run_dir(folder, ready)
    return ready


class Interrupter:
    """A request to stop after so many reports."""

    def __init__(self, reports: int) -> None:
        self._left = reports

    def __call__(self, report: Control) -> None:
        self._left -= 1
        if self._left == 0:
            raise StopRequested


def tables(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """All that was recorded, without how long it took and without the word of the interruption."""
    found = {}
    with contextlib.closing(sqlite3.connect(folder / DATABASE)) as database:
        database.row_factory = sqlite3.Row
        for table in TABLES:
            rows = [dict(row) for row in database.execute(f"SELECT * FROM {table}")]
            for row in rows:
                row.pop("wall_s", None)
            found[table] = sorted((row for row in rows if row.get("role") != "coordinator"), key=repr)
    return found


@pytest.mark.exact
@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] if name in LATER else []) for name in CASES])
def test_interrupted_and_resumed_is_never_interrupted(tmp_path: Path, name: str) -> None:
    ready = begun(tmp_path / "whole", *CASES[name])
    reports: list[Control] = []
    whole = perform(ready, tmp_path / "whole", reports.append)
    assert whole.error is None
    assert len(tables(tmp_path / "whole")["rounds"]) == ROUNDS * ready.deployment.n_nodes
    folder = tmp_path / "broken"
    broken = perform(begun(folder, *CASES[name]), folder, Interrupter(round(0.55 * len(reports))))
    assert broken.interrupted
    outcome, rounds = broken, []
    for share in (0.5, 2.0):  # and once more on the way
        rounds.append(complete_rounds(folder)[-1])
        drop_others(folder, rounds[-1])
        again = reopened(folder, rounds[-1])
        again.deployment.write(folder)
        outcome = perform(again, folder, Interrupter(round(share * len(reports))))
    assert rounds[0] in (1, 3)
    assert rounds[1] in (3, 5)
    assert rounds[1] > rounds[0]
    assert outcome.error is None
    assert outcome.weights == whole.weights
    assert outcome.env_steps == whole.env_steps
    whole_tables, found = tables(tmp_path / "whole"), tables(folder)
    for table in TABLES:
        assert found[table] == whole_tables[table], table


# ------------------------------------------------------------------ what is stored, and when it counts


def say_stored(states: Checkpoints, round_: int, folder: Path, **problems: str) -> bool:
    """All three processes of a run store a state; whether it is complete with the last and not before."""
    state_folder(folder, round_).mkdir(parents=True, exist_ok=True)
    done = []
    for role in ("node-0", "node-0", "world", "node-1"):
        assert round_ not in complete_rounds(folder)
        (state_folder(folder, round_) / f"{role}.safetensors").write_bytes(role.encode())
        digest = hashlib.sha256(role.encode()).hexdigest()
        done.append(states.has_all(Stored(role=role, round=round_, sha256=digest, problem=problems.get(role, ""))))
    return done == [False, False, False, True]


def test_a_state_counts_once_everybody_has_stored_and_the_last_two_are_kept(tmp_path: Path) -> None:
    begun(tmp_path, *LQ, "env.agents=2")
    states = Checkpoints(tmp_path)
    for round_ in (1, 3, 5):
        assert say_stored(states, round_, tmp_path)
        assert states.complete(round_) is None
        assert complete_rounds(tmp_path) == [one for one in (1, 3, 5) if round_ - 2 <= one <= round_]
        assert latest_good(tmp_path) == (round_, [])
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["state-4", "state-6"]


def test_a_state_that_a_process_could_not_store_never_counts_and_is_told(tmp_path: Path) -> None:
    begun(tmp_path, *LQ, "env.agents=2")
    states = Checkpoints(tmp_path)
    assert say_stored(states, 1, tmp_path)
    assert states.complete(1) is None
    assert say_stored(states, 3, tmp_path, world="no room")
    failed = states.complete(3)
    assert failed is not None
    assert (failed.role, failed.problem) == ("world", "no room")
    assert latest_good(tmp_path) == (1, [])
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["state-2"]


@pytest.mark.parametrize("text", ["", "[]", "{", '{"format": 99, "round": 5}', '{"format": 1}', "[" * 100_000, '{"index": {}}'])
def test_a_state_that_this_version_cannot_read_is_not_good(tmp_path: Path, text: str) -> None:
    begun(tmp_path, *LQ)
    state_folder(tmp_path, 5).mkdir(parents=True)
    (state_folder(tmp_path, 5) / COMPLETE_FILE).write_text(text)
    round_, (why,) = latest_good(tmp_path)
    assert round_ is None
    assert why.startswith("state-6: ")
    assert len(why) < 300


def test_states_of_another_format_are_refused_with_both_formats_and_how_to_go_on(tmp_path: Path) -> None:
    perform(begun(tmp_path, *LQ), tmp_path, Interrupter(150))
    rounds = complete_rounds(tmp_path)[::-1]
    for round_ in rounds:
        index_file = state_folder(tmp_path, round_) / COMPLETE_FILE
        index = {**json.loads(index_file.read_text())["index"], "format": FORMAT - 1}
        digest = hashlib.sha256(json.dumps(index, sort_keys=True).encode()).hexdigest()
        index_file.write_text(json.dumps({"index": index, "sha256": digest}))
    said = f"state.json: got format {FORMAT - 1}; expected {FORMAT} (the commit in manifest.json can resume it)"
    told = "; ".join(f"state-{round_ + 1}: {said}" for round_ in rounds)
    with pytest.raises(ScenarioError) as refused:
        resumption(tmp_path)
    assert rounds
    assert str(refused.value) == (
        f"{tmp_path}: no stored state to go on from ({told}); to begin again: kappahop run {tmp_path / SCENARIO_FILE}"
    )


def flip(path: Path, place: float = 0.5) -> None:
    """Change one bit of a file."""
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1
    path.write_bytes(content)


def exchange(folder: Path) -> None:
    """Swap the files of two agents."""
    one, two = (folder / f"node-{agent}.safetensors" for agent in (0, 1))
    first = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(first)


def from_elsewhere(folder: Path, seed: int) -> None:
    """Put the state of another run in the place of a run's own."""
    other = folder.parents[2] / "other"
    perform(begun(other, *LQ, f"seed={seed}"), other)
    shutil.rmtree(folder)
    shutil.copytree(state_folder(other, 5), folder)


def from_before(folder: Path) -> None:
    """Put the state before in the place of the last."""
    shutil.rmtree(folder)
    shutil.copytree(folder.parent / "state-4", folder)


HARMS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a bit in data": (lambda folder: flip(folder / "node-2.safetensors", 0.9), "node-2.safetensors has changed"),
    "a bit in the tree": (lambda folder: flip(folder / "world.safetensors", 0.1), "world.safetensors has changed"),
    "a bit in the index": (lambda folder: flip(folder / COMPLETE_FILE, 0.7), "state.json"),
    "cut off": (lambda folder: (folder / "node-0.safetensors").write_bytes(b""), "node-0.safetensors has changed"),
    "missing": (lambda folder: (folder / "node-3.safetensors").unlink(), "node-3.safetensors cannot be read"),
    "two agents exchanged": (exchange, "node-0.safetensors has changed"),
    "another seed's": (lambda folder: from_elsewhere(folder, 8), "it is a state of another run"),
    "another run's of the same seed": (lambda folder: from_elsewhere(folder, 0), "it is a state of another run"),
    "the one before": (from_before, "it is the state of another round"),
}


@pytest.mark.parametrize("name", HARMS)
def test_a_broken_state_is_told_and_the_one_before_is_taken_to_the_same_weights(
    tmp_path: Path, whole_lq: Outcome, name: str
) -> None:
    folder, (harm, why) = tmp_path / "run", HARMS[name]
    perform(begun(folder, *LQ), folder)
    assert complete_rounds(folder) == [3, 5]
    harm(state_folder(folder, 5))
    round_, (told,) = latest_good(folder)
    assert round_ == 3
    assert told.startswith(f"state-6: {why}")
    drop_others(folder, round_)
    again = reopened(folder, round_)
    again.deployment.write(folder)
    assert perform(again, folder).weights == whole_lq.weights


@pytest.fixture(scope="module")
def whole_lq(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    folder = tmp_path_factory.mktemp("whole") / "run"
    return perform(begun(folder, *LQ), folder)


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        (SCENARIO_FILE, "seed: 0", "seed: 1"),
        (SCENARIO_FILE, "- 6", "- 7"),
        (DEPLOYMENT_FILE, "   2,\n   3\n", "   1,\n   3\n"),
        (DEPLOYMENT_FILE, '"dt": ', '"dt": 1'),
    ],
)
def test_what_a_run_was_begun_with_cannot_be_changed(tmp_path: Path, name: str, old: str, new: str) -> None:
    perform(begun(tmp_path, *LQ), tmp_path)
    before = (tmp_path / name).read_text()
    assert old in before
    (tmp_path / name).write_text(before.replace(old, new))
    assert latest_good(tmp_path) == (None, [f"state-{place}: {name} has changed since it was stored" for place in (6, 4)])


def test_a_run_whose_states_cannot_be_stored_goes_on(tmp_path: Path, whole_lq: Outcome, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, state: snapshot.State) -> str:
        if "state-4" in str(path) and path.name == "node-1.safetensors":
            raise OSError(28, "No space left on device", str(path))
        return snapshot.write(path, state)

    monkeypatch.setattr("topology.planes.control.write", full)
    reports: list[Control] = []
    outcome = perform(begun(tmp_path, *LQ), tmp_path, reports.append)
    assert outcome.error is None
    assert outcome.weights == whole_lq.weights
    assert complete_rounds(tmp_path) == [1, 5]
    problem = "state-4/node-1.safetensors: No space left on device"
    assert {report.problem for report in reports if isinstance(report, Stored)} == {"", problem}
    with contextlib.closing(sqlite3.connect(tmp_path / DATABASE)) as database:
        assert database.execute("SELECT role, text FROM events").fetchall() == [("node-1", f"no state stored: {problem}")]


def test_what_is_half_stored_or_later_is_dropped_before_a_run_goes_on(tmp_path: Path) -> None:
    for round_ in (1, 3, 5, 7):
        state_folder(tmp_path, round_).mkdir(parents=True)
        if round_ != 7:
            (state_folder(tmp_path, round_) / COMPLETE_FILE).write_text(json.dumps({"format": 1, "round": round_}))
    drop_others(tmp_path, 3)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["state-2", "state-4"]


def test_nothing_counts_before_the_coordinator_has_heard_of_everybody(tmp_path: Path) -> None:
    ready = begun(tmp_path, *LQ)

    def stop(report: Control) -> None:
        if isinstance(report, Stored):
            assert complete_rounds(tmp_path) == []
            raise StopRequested

    assert perform(ready, tmp_path, stop).interrupted
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["state-2"]
    assert complete_rounds(tmp_path) == []


def test_a_run_goes_on_only_once_it_has_ended(tmp_path: Path) -> None:
    with claim_run(tmp_path), pytest.raises(ScenarioError, match="this run still goes on"), claim_run(tmp_path):
        pass
    with claim_run(tmp_path):
        pass


def test_a_state_that_cannot_be_read_ends_the_run_with_its_name(tmp_path: Path) -> None:
    perform(begun(tmp_path, *LQ), tmp_path)
    (round_,) = complete_rounds(tmp_path)[-1:]
    (state_folder(tmp_path, round_) / "node-2.safetensors").write_bytes(b"no such thing")
    again = reopened(tmp_path, round_)
    again.deployment.write(tmp_path)
    assert "node-2.safetensors: not a stored state" in str(perform(again, tmp_path).error)
