"""A run with a larger budget: the same as one that had it from the start, and no step size ever rises."""

import contextlib
import sqlite3
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import kappahop as kh
from coordinator.records.run_sqlite import DATABASE
from coordinator.session import resumption
from scenarios.schema.rollout import left

SMALL: dict[str, Any] = {
    "env": {"name": "network_lq", "agents": 3, "num_envs": 2, "horizon": 11},
    "topology": {"kind": "line"},
    "network": {"preset": "wifi-campus", "latency_ms": 700, "loss_prob": 0.2},
    "rollout": {"steps": 8},
    "algorithm": {"name": "scal_mappo_l", "hidden": [6], "epochs": 2, "minibatches": 2},
    "record": {"tensorboard": False, "state_rounds": 2},
    "evaluation": {"every_rounds": 2, "episodes": 2},
}
SHORT, LONG = {"env_steps": 7 * 16}, {"env_steps": 12 * 16}
TABLES = ("episodes", "rounds", "traffic", "ages", "events", "evaluations", "evaluation_traffic")


def tables(run: kh.Run) -> Iterator[tuple[str, list[Any]]]:
    """All that was recorded, but for how long it took."""
    with contextlib.closing(sqlite3.connect(run.folder / DATABASE)) as database:
        for table in TABLES:
            names = [row[1] for row in database.execute(f"PRAGMA table_info({table})") if row[1] != "wall_s"]
            yield table, sorted(database.execute(f"SELECT {', '.join(names)} FROM {table}"), key=repr)


@pytest.mark.exact
@pytest.mark.parametrize("decay", ["none", "linear"])
def test_an_extended_run_is_the_unbroken_run_of_its_scenario(tmp_path: Path, decay: str) -> None:
    same = SMALL | {"algorithm": SMALL["algorithm"] | {"lr_decay": decay}}
    finished = kh.run("quickstart", out=tmp_path / "run", in_process=True, budget=SHORT, **same)
    assert finished.is_complete
    kh.resume(finished, in_process=True, budget=LONG, on_round=lambda one: one.round < 8)  # and is interrupted on the way
    extended = kh.resume(finished.folder, in_process=True)
    assert extended.scenario.budget.extended == ((6, 7),)
    unbroken = (
        kh.run("quickstart", out=tmp_path / "long", in_process=True, budget=LONG, **same)
        if decay == "none"
        else kh.run(str(extended.folder / "scenario.yaml"), out=tmp_path / "long", in_process=True)
    )
    for key in ("weights_sha256", "ledger_sha256", "eval_return_mean", "best_round", "best_return_mean", "limits"):
        assert extended.metrics[key] == unbroken.metrics[key], key
    for (table, found), (_, expected) in zip(tables(extended), tables(unbroken), strict=True):
        if table == "events":
            found = [row for row in found if "coordinator" not in row]
        assert found == expected, table
    for name in ("final", "best"):
        for path in sorted((unbroken.folder / "checkpoints" / name).iterdir()):
            assert (extended.folder / "checkpoints" / name / path.name).read_bytes() == path.read_bytes()


def test_step_sizes_fall_from_the_value_reached_to_nothing_at_the_new_end() -> None:
    before = [left(k, 10) for k in range(10)]
    extended = [left(k, 40, ((8, 10), (20, 30))) for k in range(41)]
    assert extended[:8] == before[:8]
    assert extended[8] == pytest.approx(before[8])
    assert all(later < earlier for earlier, later in pairwise(extended))
    assert extended[-1] == 0


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> kh.Run:
    quick = SMALL | {"evaluation": {"every_rounds": 0}}
    folder = tmp_path_factory.mktemp("stopped") / "run"
    run = kh.run("quickstart", out=folder, in_process=True, budget=SHORT, **quick)
    return kh.resume(run, in_process=True, budget=LONG, on_round=lambda one: False)


def test_an_extension_that_never_began_leaves_no_trace_in_the_next(stopped: kh.Run) -> None:
    assert stopped.scenario.budget.extended == ((6, 7),)
    ready = resumption(stopped.folder, ["budget.env_steps=400"]).plan
    assert ready is not None
    assert ready.scenario.budget.extended == ((6, 7),)
    assert ready.scenario.n_rounds == 25


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"kappa": 0}, r"^kappa: got 0; a run goes on with 1, with which it began; only budget\.env_steps"),
        ({"budget": {"env_steps": 176}}, r"^budget\.env_steps: got 176; expected at least the 192"),
        ({"budget.extended": [[3, 5]]}, r"^budget\.extended: got \(\(3, 5\),\)"),
        ({"budget.extended": [[5, 5]]}, r"extended: got \[\[5, 5\]\]; expected first rounds that ascend"),
    ],
)
def test_only_a_larger_budget_is_taken(stopped: kh.Run, settings: dict[str, Any], told: str) -> None:
    with pytest.raises(kh.ScenarioError, match=told):
        kh.resume(stopped, in_process=True, **settings)
