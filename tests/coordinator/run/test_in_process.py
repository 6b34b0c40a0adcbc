"""Runs within one process: what agents tell each other, in closed form, for every κ, graph and routing."""

import contextlib
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coordinator.records.database import Recorder, Results
from coordinator.records.plan import make_run_dir, plan
from coordinator.records.run_sqlite import DATABASE
from coordinator.run import in_process
from scenarios.loading import load
from topology.deployment import CHECKPOINTS, evaluation_seed
from topology.graph.neighbourhood import ball
from topology.process import StopFlag

N, STEPS, ROUNDS = 5, 6, 2
SMALL = [
    "env.name=network_lq", f"env.agents={N}", f"rollout.steps={STEPS}", "algorithm.hidden=[4]", "algorithm.epochs=1",
    "algorithm.minibatches=1", "record.tensorboard=false",
]  # fmt: skip
DIAMETER = {"line": 4, "ring": 2, "star": 2}
CASES = [(kind, kappa) for kind, across in DIAMETER.items() for kappa in range(across + 1)]


@pytest.fixture(params=[1, 3], ids=lambda copies: f"{copies} copies")
def copies(request: pytest.FixtureRequest) -> int:
    found: int = request.param
    return found


@pytest.mark.parametrize("routing", ["relay", "direct"])
@pytest.mark.parametrize(("kind", "kappa"), CASES)
def test_state_payload_is_the_closed_form(tmp_path: Path, kind: str, kappa: int, routing: str, copies: int) -> None:
    words = [f"topology.kind={kind}", f"kappa={kappa}", f"routing={routing}", f"env.num_envs={copies}"]
    ready = plan(load("quickstart", [*SMALL, *words, f"budget.env_steps={copies * STEPS * ROUNDS}"]))
    make_run_dir(tmp_path / "run", ready)
    recorder = Recorder(tmp_path / "run", env_steps_per_round=copies * STEPS)
    outcome = in_process.run(ready, tmp_path / "run", recorder, lambda report: None)
    recorder.close()
    assert outcome.error is None
    results = Results(tmp_path / "run")
    payload = {row.kind: row.payload_bytes for row in results.by_kind() if row.plane == "peer"}
    results.close()
    graph = ready.deployment.graph()
    peers = sum(len(ball(graph, i, kappa)) - 1 for i in range(N))
    assert payload.get("STATE", 0) == 4 * 1 * (copies * STEPS * ROUNDS) * peers


def test_an_interrupted_run_keeps_what_it_recorded(tmp_path: Path) -> None:
    ready = plan(load("quickstart", [*SMALL, "env.num_envs=1", f"budget.env_steps={100 * STEPS}"]))
    make_run_dir(tmp_path / "run", ready)
    recorder = Recorder(tmp_path / "run", env_steps_per_round=STEPS)
    seen, stop = 0, StopFlag()

    def watch(report: object) -> None:
        nonlocal seen
        seen += 1
        if seen == 40:
            stop.ask()

    outcome = in_process.run(ready, tmp_path / "run", recorder, watch, stop=stop)
    recorder.close()
    assert outcome.interrupted
    assert outcome.error is not None
    assert outcome.error.startswith("interrupted in round ")
    results = Results(tmp_path / "run")
    assert results.by_kind()
    results.close()


def test_an_evaluation_draws_from_streams_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its team would else be judged on the very start states and link faults that it learnt from."""
    words = [*SMALL, "topology.kind=ring", "network.preset=uav-mesh", "seed=3", f"budget.env_steps={STEPS}", "env.num_envs=1"]
    words.append("evaluation.every_rounds=0")
    drawn: list[list[int]] = []

    class Watched(np.random.SeedSequence):
        def __init__(self, entropy: int | list[int] | None = None, **more: Any) -> None:
            drawn.append(list(entropy) if isinstance(entropy, list) else [entropy or 0])
            super().__init__(entropy, **more)

    def run(name: str, weights: Path | None) -> tuple[list[list[int]], str]:
        ready = plan(load("quickstart", words), weights=weights)
        make_run_dir(tmp_path / name, ready)
        drawn.clear()
        with contextlib.closing(Recorder(tmp_path / name, env_steps_per_round=STEPS)) as recorder:
            outcome = in_process.run(ready, tmp_path / name, recorder, lambda report: None)
        assert outcome.error is None
        with contextlib.closing(Results(tmp_path / name)) as results:
            return drawn.copy(), results.ledger_sha256()

    monkeypatch.setattr(np.random, "SeedSequence", Watched)
    trained, _ = run("trained", None)
    first, again = (run(name, tmp_path / "trained" / CHECKPOINTS / "final") for name in ("first", "again"))
    assert {keys[0] for keys in trained} == {3}
    assert {keys[0] for keys in first[0]} == {evaluation_seed(3)}
    assert first == again


def test_first_episodes_that_are_cut_short_are_not_recorded_and_every_round_sees_another_phase(tmp_path: Path) -> None:
    words = ["env.num_envs=4", "env.horizon=24", "rollout.steps=6", "budget.env_steps=288", "topology.kind=line"]
    ready = plan(load("quickstart", [*SMALL, *words]))
    make_run_dir(tmp_path / "run", ready)
    recorder = Recorder(tmp_path / "run", env_steps_per_round=24)
    in_process.run(ready, tmp_path / "run", recorder, lambda report: None)
    recorder.close()
    with contextlib.closing(sqlite3.connect(tmp_path / "run" / DATABASE)) as database:
        found = database.execute("SELECT env_step / 4, copy, length FROM episodes ORDER BY env_step, copy").fetchall()
    # copies 0, 1, 2 are cut after 6, 12, 18 steps and start again; 72 steps in all
    assert found == [
        (24, 3, 24),
        (30, 0, 24),
        (36, 1, 24),
        (42, 2, 24),
        (48, 3, 24),
        (54, 0, 24),
        (60, 1, 24),
        (66, 2, 24),
        (72, 3, 24),
    ]


def test_what_agents_are_charged_is_the_mean_over_the_same_episodes(tmp_path: Path) -> None:
    words = [
        "env.num_envs=4", "env.horizon=24", "rollout.steps=6", "budget.env_steps=288", "topology.kind=line",
        "env.control_limit=0.1",
    ]  # fmt: skip
    ready = plan(load("quickstart", [*SMALL, *words]))
    make_run_dir(tmp_path / "run", ready)
    recorder = Recorder(tmp_path / "run", env_steps_per_round=24)
    in_process.run(ready, tmp_path / "run", recorder, lambda report: None)
    recorder.close()
    with contextlib.closing(sqlite3.connect(tmp_path / "run" / DATABASE)) as database:
        costs = [cost for (cost,) in database.execute("SELECT cost FROM episodes ORDER BY env_step, copy")]
        told = [each for (each,) in database.execute("SELECT episode_cost_0 FROM rounds WHERE agent = 2 ORDER BY round")]
    assert told[:3] == [None] * 3
    # one episode ends in every round from the fourth on, and the last four (copies) count
    assert told[3:] == pytest.approx([np.mean(costs[max(0, k - 3) : k + 1]) for k in range(9)], rel=1e-5)
