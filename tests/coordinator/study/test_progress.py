"""Progress: the return less what the world pays per step for not having ended."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import networkx as nx
import numpy as np
import pytest

from coordinator.report import tables
from coordinator.report.page import document
from coordinator.study.comparison import compare
from coordinator.study.export import export
from coordinator.study.runs import Run
from envs.registry import make, spec
from scenarios.loading import load
from tests.builders import printed

RecordRun = Callable[..., Path]
ANT = ("env.name=safe_ant", "env.partition=2x4", "topology.kind=kinematic")


@pytest.mark.parametrize(
    ("name", "bonus"),
    [("safe_ant_4x2", 1.0), ("safe_manyagent_ant_6x1", 1.0), ("mamujoco_walker2d_2x3", 1.0), ("safe_halfcheetah_6x1", 0.0)],
)
def test_a_world_says_its_alive_bonus(name: str, bonus: float) -> None:
    assert spec(load(name).env).alive_bonus == bonus


def test_an_idle_ant_gets_its_bonus_and_makes_no_progress() -> None:
    scenario = load("safe_ant_4x2", ["env.horizon=40", "env.num_envs=2"])
    shape = spec(scenario.env)
    world = make(scenario.env, nx.cycle_graph(4), 0)
    world.reset()
    still = [np.zeros((2, width), np.float32) for width in shape.act_dims]
    episodes = [episode for _ in range(40) for episode in world.step(still).episodes]
    world.close()
    assert [episode.length for episode in episodes] == [40, 40]
    for episode in episodes:
        assert episode.ret == pytest.approx(40, abs=5)
        assert abs(episode.ret - shape.alive_bonus * episode.length) < 5


def test_progress_is_told_wherever_the_return_is(tmp_path: Path, record_run: RecordRun) -> None:
    for kappa in (0, 1):
        record_run(tmp_path / f"ended{kappa}", *ANT, f"kappa={kappa}", returns=[7.0 + kappa] * 8)
    run = Run(tmp_path / "ended1", load(str(tmp_path / "ended1" / "scenario.yaml")))
    assert run.metrics["progress_mean"] == 8.0 - 5 * 1.0
    assert run.curve.length.tolist() == [5.0] * 4
    found = compare([tmp_path])
    assert [row.progress for row in found.rows] == [2.0, 3.0]
    assert [cell["progress_iqm"] for cell in found.as_json()["cells"]] == [2.0, 3.0]
    json.dumps(found.as_json())
    assert "progress" in printed(tables.comparison(found))
    assert "<th>progress</th>" in document([tmp_path]).replace(' scope="col"', "").replace(' class="number"', "")
    export([tmp_path], "csv", tmp_path / "csv")
    rows = list(csv.DictReader((tmp_path / "csv" / "episodes.csv").read_text().splitlines()))
    assert {float(row["progress"]) for row in rows} == {2.0, 3.0}
    assert {row["progress_mean"] for row in csv.DictReader((tmp_path / "csv" / "runs.csv").read_text().splitlines())} == {
        "2",
        "3",
    }


def test_a_run_that_goes_on_tells_its_progress_so_far(tmp_path: Path, record_run: RecordRun) -> None:
    folder = record_run(tmp_path / "run", *ANT, "budget.env_steps=80", returns=[6.0] * 8, ended=False)
    assert Run(folder, load(str(folder / "scenario.yaml"))).so_far["progress_mean"] == 1.0


def test_where_no_bonus_is_paid_there_is_no_such_figure(tmp_path: Path, record_run: RecordRun) -> None:
    folder = record_run(tmp_path / "run", returns=[6.0] * 8)
    assert Run(folder, load(str(folder / "scenario.yaml"))).metrics["progress_mean"] is None
    found = compare([folder])
    assert found.rows[0].progress is None
    assert "progress" not in printed(tables.comparison(found))
