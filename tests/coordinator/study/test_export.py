"""Exporting: what other programs read is what the runs recorded."""

import csv
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest

from coordinator.records.run_sqlite import DATABASE
from coordinator.study.export import POINTS, export
from scenarios.loading import ScenarioError

RecordRun = Callable[..., Path]
RETURNS = [1.0, 2.0, None, None, 5.0, 6.0, 7.0, 8.0]


@pytest.fixture
def runs(tmp_path: Path, record_run: RecordRun) -> Path:
    root = tmp_path / "runs"
    for kappa in (0, 1):
        for seed in (0, 1):
            record_run(root / f"{kappa}-{seed}", f"kappa={kappa}", f"seed={seed}", returns=RETURNS, round_bytes=[kappa * 10] * 4)
    return root


def rows(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        return [dict(row) for row in pyarrow.parquet.read_table(path).to_pylist()]
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_tables_hold_every_row_with_the_keys_of_its_run(runs: Path, tmp_path: Path, form: Any) -> None:
    written = export([runs], form, tmp_path / "out")
    found = {path.stem: rows(path) for path in written}
    assert {name: len(table) for name, table in found.items()} == {
        "runs": 4, "episodes": 32, "rounds": 32, "traffic": 32, "ages": 0, "events": 0,
            "evaluations": 0, "evaluation_traffic": 0,
    }  # fmt: skip
    for table in (found["runs"], found["episodes"], found["rounds"], found["traffic"]):
        assert {(row["cell"], str(row["seed"]), str(row["kappa"])) for row in table} == {
            (f"kappa={kappa}", str(seed), str(kappa)) for kappa in (0, 1) for seed in (0, 1)
        }
        assert {row["run"] for row in table} == {str(runs / f"{kappa}-{seed}") for kappa in (0, 1) for seed in (0, 1)}
    one = [row for row in found["episodes"] if row["run"].endswith("1-0")]
    assert [None if row["return"] in ("", None) else float(row["return"]) for row in one] == RETURNS
    sent = sum(int(row["wire_bytes"]) for row in found["traffic"] if row["plane"] == "peer")
    assert sent == sum(int(row["wire_bytes"]) for row in found["runs"]) == 2 * 4 * 10
    assert {str(row["complete"]).lower() for row in found["runs"]} == {"true"}


def test_a_column_has_one_type_in_all_runs(tmp_path: Path, record_run: RecordRun) -> None:
    record_run(tmp_path / "runs" / "a", "budget.env_steps=40", "algorithm.cost_limit=3", returns=RETURNS)
    record_run(tmp_path / "runs" / "b", "algorithm.cost_limit=2.5", "algorithm.hidden=[4]", ended=False)
    record_run(tmp_path / "runs" / "c", "algorithm.cost_limit=null", "topology.kind=ring", returns=RETURNS)
    for form in ("csv", "parquet"):
        written = export([tmp_path / "runs"], form, tmp_path / form)
        found = {path.stem: rows(path) for path in written}
        assert [row["algorithm.hidden"] for row in found["runs"]].count("[4]") == 1
        assert sorted(str(row["algorithm.cost_limit"] or "none") for row in found["runs"])[:2] == [
            "2.5",
            "3.0" if form == "parquet" else "3",
        ]
        assert len(found["episodes"]) == 16


def test_marl_eval_gets_what_its_reader_expects(runs: Path, tmp_path: Path) -> None:
    (path,) = export([runs], "marl-eval", tmp_path / "new" / "out.json")
    found = json.loads(path.read_text(encoding="utf-8"))
    assert list(found) == ["network_lq"]
    assert list(found["network_lq"]) == ["2"]
    algorithms = found["network_lq"]["2"]
    assert list(algorithms) == ["scal_mappo_l kappa=0", "scal_mappo_l kappa=1"]
    shapes = set()
    for by_seed in algorithms.values():
        assert list(by_seed) == ["seed_0", "seed_1"]
        for steps in by_seed.values():
            assert list(steps)[-1] == "absolute_metrics"
            assert all(set(entry) - {"step_count"} == {"return", "cost"} for entry in steps.values())
            assert all(len(entry["return"]) == len(entry["cost"]) > 0 for entry in steps.values())
            shapes.add(tuple((name, entry.get("step_count")) for name, entry in steps.items()))
    assert len(shapes) == 1  # all runs alike


def test_marl_eval_steps_hold_the_episodes_since_the_step_before(runs: Path, tmp_path: Path) -> None:
    (path,) = export([runs], "marl-eval", tmp_path / "out.json")
    run = json.loads(path.read_text(encoding="utf-8"))["network_lq"]["2"]["scal_mappo_l kappa=1"]["seed_0"]
    steps = [entry for name, entry in run.items() if name != "absolute_metrics"]
    assert [entry["step_count"] for entry in steps] == [5, 10, 15, 20, 25, 30, 35, 40]  # the first episode ends in step 5
    assert [entry["return"] for entry in steps] == [[1.0], [2.0], [2.0], [2.0], [5.0], [6.0], [7.0], [8.0]]
    assert run["absolute_metrics"] == {"return": [8.0], "cost": [0.5]}


def test_marl_eval_has_no_more_than_so_many_steps(tmp_path: Path, record_run: RecordRun) -> None:
    record_run(tmp_path / "run", returns=[float(i) for i in range(100)], round_bytes=[0] * 50)
    (path,) = export([tmp_path / "run"], "marl-eval", tmp_path / "out.json")
    run = json.loads(path.read_text(encoding="utf-8"))["network_lq"]["2"]["scal_mappo_l"]["seed_0"]
    assert len(run) == POINTS + 1
    told = [value for name, entry in run.items() if name != "absolute_metrics" for value in entry["return"]]
    assert np.array_equal(told, np.arange(100.0))


def test_marl_eval_tells_worlds_and_recipes_apart(tmp_path: Path, record_run: RecordRun) -> None:
    for copies in (1, 2):
        for name in ("ippo", "mappo_l"):
            words = [f"env.horizon={copies}", f"algorithm.name={name}"]
            record_run(tmp_path / "runs" / f"{copies}-{name}", *words, returns=RETURNS)
    (path,) = export([tmp_path / "runs"], "marl-eval", tmp_path / "out.json")
    found = json.loads(path.read_text(encoding="utf-8"))
    assert {task: list(entry) for task, entry in found["network_lq"].items()} == {
        "2 env.horizon=1": ["ippo", "mappo_l"],
        "2 env.horizon=2": ["ippo", "mappo_l"],
    }


def test_marl_eval_gets_evaluations_and_those_of_the_best_policies(tmp_path: Path, record_run: RecordRun) -> None:
    for kind in ("line", "ring"):
        for kappa in (0, 1):
            words = [f"kappa={kappa}", f"topology.kind={kind}", "env.agents=3", "evaluation.episodes=2"]
            record_run(tmp_path / "runs" / f"{kind}-{kappa}", *words, returns=RETURNS, evaluated={1: kappa - 1.0, 3: kappa + 1.0})
    (path,) = export([tmp_path / "runs"], "marl-eval", tmp_path / "out.json")
    found = json.loads(path.read_text(encoding="utf-8"))["network_lq"]
    assert {task: list(entry) for task, entry in found.items()} == {
        f"3 topology.kind={kind}": ["scal_mappo_l kappa=0", "scal_mappo_l kappa=1"] for kind in ("line", "ring")
    }
    assert found["3 topology.kind=line"]["scal_mappo_l kappa=1"]["seed_0"] == {
        "step_0": {"step_count": 20, "return": [-0.5, 0.5], "cost": [0.25, 0.25]},
        "step_1": {"step_count": 40, "return": [1.5, 2.5], "cost": [0.25, 0.25]},
        "absolute_metrics": {"return": [1.5, 2.5, 1.5, 2.5], "cost": [0.25] * 4},
    }
    (path,) = export([tmp_path / "runs"], "marl-eval", tmp_path / "training.json", training=True)
    trained = json.loads(path.read_text(encoding="utf-8"))["network_lq"]["3 topology.kind=line"]["scal_mappo_l kappa=1"]["seed_0"]
    assert trained["absolute_metrics"] == {"return": [8.0], "cost": [0.5]}


@pytest.mark.parametrize(
    ("words", "changes", "told"),
    [
        (["kappa=7"], {"ended": False}, "new: unfinished; marl-eval needs runs of equal length"),
        (["kappa=7"], {"round_bytes": [0]}, "new: 10; marl-eval needs runs of equal length"),
        (["kappa=7"], {}, "kappa=7: seeds [0], kappa=0: seeds [0, 1]; marl-eval needs the same for all"),
        (["seed=2"], {"returns": []}, "seeds [0, 1, 2]"),
    ],
)
def test_what_marl_eval_could_not_read_is_refused(
    runs: Path, tmp_path: Path, record_run: RecordRun, words: list[str], changes: dict[str, Any], told: str
) -> None:
    record_run(runs / "new", *words, **{"returns": RETURNS, **changes})
    with pytest.raises(ScenarioError) as refused:
        export([runs], "marl-eval", tmp_path / "out.json")
    assert told in str(refused.value)
    assert not (tmp_path / "out.json").exists()


def test_a_run_without_an_episode_has_nothing_to_evaluate(tmp_path: Path, record_run: RecordRun) -> None:
    record_run(tmp_path / "run")
    with pytest.raises(ScenarioError, match="run: no episode ended"):
        export([tmp_path / "run"], "marl-eval", tmp_path / "out.json")


def test_a_run_that_diverged_is_told_in_tables_and_refused_where_every_run_needs_a_return(
    tmp_path: Path, record_run: RecordRun
) -> None:
    record_run(tmp_path / "run", returns=[1.0, 2.0, None])
    told = "the simulation diverged at step 15: 1 of the last 1 episodes ended in a fault"
    with pytest.raises(ScenarioError, match=f"run: {told}; marl-eval has no word for a run without a return"):
        export([tmp_path / "run"], "marl-eval", tmp_path / "out.json")
    export([tmp_path / "run"], "csv", tmp_path / "tables")
    with (tmp_path / "tables" / "runs.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["complete"], row["diverged"], row["return_mean"], row["faulty_episodes"]) == ("false", told, "", "1")


@pytest.mark.parametrize("form", ["csv", "parquet", "marl-eval"])
def test_nothing_is_written_over_what_is_there(runs: Path, tmp_path: Path, form: Any) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.txt").write_text("all of it")
    (tmp_path / "file").write_text("x")
    for name in ("taken", "file"):
        with pytest.raises(ScenarioError, match=r"^--out: .* exists already"):
            export([runs], form, tmp_path / name)
    with pytest.raises(ScenarioError, match=r"^--out: cannot write "):
        export([runs], form, tmp_path / "file" / "below")
    assert (tmp_path / "taken" / "thesis.txt").read_text() == "all of it"


def test_marl_eval_does_not_take_runs_whose_best_policies_are_not_known(tmp_path: Path, record_run: RecordRun) -> None:
    run = record_run(tmp_path / "run", returns=RETURNS, evaluated={1: 9.0, 3: 6.0})
    with closing(sqlite3.connect(run / DATABASE)) as database:
        database.execute("UPDATE meta SET value = 'null' WHERE key = 'best_round'")
        database.commit()
    with pytest.raises(ScenarioError, match="its best policies were not evaluated at the end; kappahop resume makes up for it"):
        export([run], "marl-eval", tmp_path / "out.json")
    assert export([run], "marl-eval", tmp_path / "out.json", training=True)
