"""Reading runs: what is found, how runs are sorted into cells, and what was known when."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coordinator.records.run_sqlite import DATABASE
from coordinator.study.runs import Run, cells, find, recorded, shown
from scenarios.loading import ScenarioError, load

RecordRun = Callable[..., Path]


def only(folder: Path) -> Run:
    (run,) = find([folder])
    return run


def test_runs_are_found_wherever_they_lie_but_not_within_each_other(tmp_path: Path, record_run: RecordRun) -> None:
    first, second = record_run(tmp_path / "b" / "run"), record_run(tmp_path / "a", "seed=1")
    record_run(second / "evaluation-1")
    (tmp_path / "loop").symlink_to(tmp_path)
    assert [run.folder for run in find([tmp_path])] == [second, first]
    assert [run.folder for run in find([first, tmp_path])] == [first, second]
    assert [run.folder for run in find([second / "evaluation-1"])] == [second / "evaluation-1"]


def test_where_there_is_no_run_that_is_told(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ScenarioError, match=r"^no run in .*expected folders with scenario.yaml and run.sqlite$"):
            find([place])


def test_a_broken_database_is_told_in_one_line(tmp_path: Path, record_run: RecordRun) -> None:
    (record_run(tmp_path / "run") / DATABASE).write_bytes(b"no database" * 999)
    with pytest.raises(ScenarioError, match=r"run\.sqlite: cannot be read \(file is not a database\)$"):
        find([tmp_path])


def test_a_database_that_is_only_being_made_is_no_run_yet(tmp_path: Path, record_run: RecordRun) -> None:
    begun = record_run(tmp_path / "run")
    (begun / DATABASE).unlink()
    with closing(sqlite3.connect(begun / DATABASE)) as database:
        database.execute("CREATE TABLE meta(key TEXT)")
    with pytest.raises(ScenarioError, match="no run in"):
        find([tmp_path])


def test_a_run_is_complete_when_it_has_ended_with_all_its_steps(tmp_path: Path, record_run: RecordRun) -> None:
    assert only(record_run(tmp_path / "whole")).is_complete
    going_on = only(record_run(tmp_path / "going-on", ended=False))
    assert not going_on.is_complete
    assert (going_on.steps_done, going_on.planned_steps) == (40, 40)
    assert not only(record_run(tmp_path / "cut", "budget.env_steps=50")).is_complete


def test_a_path_may_hold_signs_that_mean_something_in_addresses(tmp_path: Path, record_run: RecordRun) -> None:
    moved = record_run(tmp_path / "run").rename(tmp_path / "a?b=c&d #%20")
    assert only(moved).is_complete


def test_cells_are_what_differs_in_more_than_the_seed(tmp_path: Path, record_run: RecordRun) -> None:
    for kappa in (10, 2):
        for kind in ("ring", "line"):
            for seed in (1, 0):
                record_run(tmp_path / f"{kappa}-{kind}-{seed}", f"kappa={kappa}", f"topology.kind={kind}", f"seed={seed}")
    found = cells(find([tmp_path]))
    assert [cell.name for cell in found] == [
        f"topology.kind={kind} kappa={kappa}" for kind in ("line", "ring") for kappa in (2, 10)
    ]
    assert found[0].settings == {"topology.kind": "line", "kappa": 2}
    assert all([run.scenario.seed for run in cell.runs] == [0, 1] for cell in found)


def test_a_single_cell_bears_its_scenarios_name(tmp_path: Path, record_run: RecordRun) -> None:
    record_run(tmp_path / "a")
    record_run(tmp_path / "b", "seed=1", "record.state_rounds=0")  # what is written besides makes it no other run
    (cell,) = cells(find([tmp_path]))
    assert cell.name == "quickstart"
    assert len(cell.runs) == 2


FOUR = ["env.agents=4", "topology.kind=line"]
EDGES = ["{between: [0, 1], latency_ms: 5}", "{between: [1, 2], latency_ms: 7}", "{between: [2, 3], one_way: true}"]


def test_of_sections_names_show_what_is_set_and_no_name_is_long(tmp_path: Path, record_run: RecordRun) -> None:
    for count in (0, 1, 2, 3):
        record_run(tmp_path / str(count), *FOUR, f"network.edges=[{','.join(EDGES[:count])}]")
    first, second = "{latency_ms: 5.0, between: [0,1]}", "{latency_ms: 7.0, between: [1,2]}"
    cut = f"network.edges={f'[{first},{second}'[:59]}…"
    names = [cell.name for cell in cells(find([tmp_path]))]
    assert names == ["network.edges=[]", f"{cut} (1)", f"{cut} (2)", f"network.edges=[{first}]"]


def test_a_label_names_a_cell_with_what_tells_it_from_others_of_its_label(tmp_path: Path, record_run: RecordRun) -> None:
    for edges, label in zip(EDGES, ("slow", "'far, slower'", "''"), strict=True):
        for kappa in (0, 1):
            record_run(tmp_path / f"{label}{kappa}", *FOUR, f"network.edges=[{edges}]", f"kappa={kappa}", f"label={label}")
    one_way = "network.edges=[{between: [2,3], one_way: true}]"
    groups = (one_way, "slow", "far, slower")
    assert [(cell.group, cell.name) for cell in cells(find([tmp_path]))] == [
        (group, f"{group} kappa={kappa}") for group in groups for kappa in (0, 1)
    ]


def test_a_label_is_all_that_is_said_of_the_only_cell_that_has_it(tmp_path: Path, record_run: RecordRun) -> None:
    for kappa, label in enumerate(("deaf", "near")):
        record_run(tmp_path / label, f"kappa={kappa}", f"label={label}")
    found = cells(find([tmp_path]))
    assert [cell.name for cell in found] == ["deaf", "near"]
    assert [cell.group for cell in found] == ["", ""]  # they differ in κ alone, whatever they are called


def test_the_same_run_twice_is_refused(tmp_path: Path, record_run: RecordRun) -> None:
    record_run(tmp_path / "a")
    record_run(tmp_path / "b")
    with pytest.raises(ScenarioError, match="hold the same run: same scenario, same seed"):
        cells(find([tmp_path]))


def test_a_setting_is_shown_as_it_is_typed(subtests: pytest.Subtests) -> None:
    rows: list[str] = ["kappa=3", "algorithm.hidden=[64,64]", "record.tensorboard=false", "topology.file=null", "name=x"]
    for word in rows:
        with subtests.test(word=word):
            key, _, text = word.partition("=")
            assert shown(recorded(load("quickstart", [word]), key)) == text


def test_tables_come_with_all_their_columns_and_with_nan_for_what_is_missing(tmp_path: Path, record_run: RecordRun) -> None:
    run = only(record_run(tmp_path / "run", returns=[1.0, None, 3.0]))
    with closing(sqlite3.connect(run.folder / DATABASE)) as database:
        database.execute("ALTER TABLE traffic ADD COLUMN luck INTEGER NOT NULL DEFAULT 7")
        database.commit()
    episodes, traffic, rounds = run.table("episodes"), run.table("traffic"), run.table("rounds")
    assert np.array_equal(episodes["return"], [1.0, np.nan, 3.0], equal_nan=True)
    assert episodes["env_step"].tolist() == [5, 10, 15]
    assert episodes["env_step"].dtype == np.int64
    assert traffic["luck"].tolist() == [7] * 8
    assert set(traffic["plane"]) == {"peer", "world"}
    assert np.isnan(rounds["entropy"]).all()
    assert rounds["kl"].tolist() == [0.1] * 8
    assert run.table("events")["wall_s"].shape == (0,)


def test_a_curve_holds_what_was_known_after_each_round(tmp_path: Path, record_run: RecordRun) -> None:
    # steps 10, 20, 30, 40: the last tenths begin after 9, 18, 27 and 36
    returns = [None, None, None, 4.0, 5.0, None, 7.0, 8.0]
    curve = only(record_run(tmp_path / "run", returns=returns, round_bytes=(100, 0, 50, 1))).curve
    assert curve.env_step.tolist() == [10, 20, 30, 40]
    assert curve.virtual_s.tolist() == [2.5, 5.0, 7.5, 10.0]
    assert curve.wire_bytes.tolist() == [100, 100, 150, 151]  # of the peer plane alone
    assert np.array_equal(curve.ret, [np.nan, 4.0, np.nan, 8.0], equal_nan=True)  # the last of the third round diverged
    assert np.array_equal(curve.cost, [np.nan, 0.5, np.nan, 0.5], equal_nan=True)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(returns=st.lists(st.one_of(st.none(), st.floats(-99, 99)), min_size=8, max_size=8), rounds=st.integers(1, 4))
def test_a_curves_last_point_is_what_the_run_reports(
    returns: list[float | None], rounds: int, record_run: RecordRun, tmp_path_factory: pytest.TempPathFactory
) -> None:
    known = [3.0, *returns[1 : 2 * rounds]]
    run = only(record_run(tmp_path_factory.mktemp("runs") / "run", returns=known, round_bytes=[5] * rounds))
    mean = run.metrics["return_mean"]
    assert run.curve.ret[-1] == pytest.approx(np.nan if mean is None else mean, nan_ok=True)
    assert bool(run.diverged) == (mean is None) != run.is_complete
    assert run.curve.wire_bytes[-1] == run.metrics["wire_bytes"]


def test_rounds_of_a_run_with_a_central_critic_count_when_it_has_reported_too(tmp_path: Path, record_run: RecordRun) -> None:
    run = only(record_run(tmp_path / "run", "algorithm.critic_scope=central", returns=[1.0] * 8, ended=False))
    assert run.curve.ret.shape == (0,)
    with closing(sqlite3.connect(run.folder / DATABASE)) as database:
        database.execute(
            "INSERT INTO rounds (round, agent, env_step, wall_s, virtual_s, more) "
            "SELECT round, 2, env_step, wall_s, virtual_s + 1, more FROM rounds WHERE agent = 0 AND round < 3"
        )
        database.commit()
    assert only(run.folder).curve.virtual_s.tolist() == [3.5, 6.0, 8.5]


def test_a_run_that_has_ended_has_a_curve_to_its_end_though_an_agent_died(tmp_path: Path, record_run: RecordRun) -> None:
    run = only(record_run(tmp_path / "run", returns=[1.0] * 8))
    with closing(sqlite3.connect(run.folder / DATABASE)) as database:
        database.execute("DELETE FROM rounds WHERE round > 1 AND agent = 0")
        database.commit()
    assert run.curve.env_step.tolist() == [10, 20, 30, 40]


def test_the_age_of_an_episode_is_that_of_the_rounds_it_ran_through(tmp_path: Path, record_run: RecordRun) -> None:
    # rounds of ten steps; episodes of five end in steps 5, 10, ..., and are then made to be of 15
    run = only(record_run(tmp_path / "run", returns=[1.0, 1.0, 1.0, None, 1.0, 1.0]))
    with closing(sqlite3.connect(run.folder / DATABASE)) as database:
        database.execute("INSERT INTO ages VALUES (0, 0, 1, 10, 0, 0.1, 1), (0, 1, 0, 30, 0, 0.5, 1), (2, 0, 1, 10, 0, 0.6, 1)")
        database.execute("UPDATE episodes SET cost = env_step")
        database.commit()
    ages, costs = only(run.folder).ages_and_costs()
    assert costs.tolist() == [5, 10, 25, 30], "in the second round nobody acted on states of others"
    assert ages.tolist() == [0.4, 0.4, 0.6, 0.6]
    with closing(sqlite3.connect(run.folder / DATABASE)) as database:
        database.execute("UPDATE episodes SET length = 15 WHERE env_step >= 15")
        database.commit()
    ages, costs = only(run.folder).ages_and_costs()
    assert costs.tolist() == [5, 10, 15, 25, 30]
    assert ages.tolist() == [0.4, 0.4, 0.4, 0.6, 0.6]  # steps 11 to 25 and 16 to 30 begin in the second round


def test_a_round_counts_when_all_agents_have_reported_it(tmp_path: Path, record_run: RecordRun) -> None:
    run = only(record_run(tmp_path / "run", returns=[1.0] * 8, ended=False))
    with closing(sqlite3.connect(run.folder / DATABASE)) as database:
        database.execute("DELETE FROM rounds WHERE round = 3 AND agent = 0")
        database.commit()
    assert run.curve.env_step.tolist() == [10, 20, 30]


def test_figures_so_far_are_those_at_the_end_of_the_curve_and_then_those_reported(tmp_path: Path, record_run: RecordRun) -> None:
    returns = [None, 1.0, None, 2.0, None, 3.0, None, 4.0]
    going, ended = (only(record_run(tmp_path / str(e), returns=returns, round_bytes=(8,) * 4, ended=e)) for e in (False, True))
    assert ended.so_far == ended.metrics
    assert going.so_far == {key: ended.metrics[key] for key in going.so_far}
    assert going.so_far["bytes_per_agent_step"] == 32 / (2 * 40)


def test_a_run_that_has_just_begun_has_an_empty_curve(tmp_path: Path, record_run: RecordRun) -> None:
    run = only(record_run(tmp_path / "run", ended=False))
    with closing(sqlite3.connect(run.folder / DATABASE)) as database:
        database.execute("DELETE FROM rounds")
        database.commit()
    assert run.curve.ret.shape == (0,)
    assert run.steps_done == 0
    assert np.isnan(run.so_far["return_mean"])
