"""The example of a graph from a file: it runs, and its links do what its files say."""

import sqlite3
from pathlib import Path

import pytest
from typer.testing import CliRunner

from coordinator.cli.app import app
from scenarios.loading import load
from topology.deployment import Deployment
from topology.link.schedule import Schedule

EXAMPLE = str(Path(__file__).parents[2] / "examples" / "04_own_graph_and_links.yaml")
SMALL = ("budget.env_steps=200", "evaluation.every_rounds=0", "algorithm.epochs=1", "kappa=1", "record.tensorboard=false")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own") / "run"
    done = CliRunner().invoke(app, ["run", EXAMPLE, *SMALL, "--in-process", "--out", str(folder)])
    assert done.exit_code == 0, done.output
    return folder


def test_links_that_are_up_in_turns_lose_what_meets_them_down_and_no_others_do(run: Path) -> None:
    sql = "SELECT DISTINCT src, dst FROM traffic WHERE plane = 'peer' AND outage > 0"
    with sqlite3.connect(run / "run.sqlite") as database:
        struck = {(int(src), int(dst)) for src, dst in database.execute(sql)}
    assert struck == {(0, 7), (7, 0), (1, 5), (5, 1)}


def test_lengths_and_capacities_become_delays_and_rates_unless_the_scenario_says_otherwise(run: Path) -> None:
    deployment = Deployment.read(run)
    assert (deployment.called(1), deployment.called(7)) == ("1 (Brückheim)", "7 (Hollin)")
    schedule = Schedule(load(EXAMPLE).network, deployment.graph(), seed=0)

    def link(a: int, b: int) -> tuple[float, float]:
        ((_, spec),) = schedule.segments(a, b)
        return 1000 * spec.delay_s, spec.rate_bps

    assert link(2, 4) == pytest.approx((171 * 0.005, 2e6))
    assert link(3, 6) == link(6, 3) == pytest.approx((94 * 0.005, 10e6)), "the least delay and the greatest rate of two"
    assert link(5, 6) == pytest.approx((25, 128e3)), "what the scenario says of an edge"
    assert link(1, 5) == (0, float("inf")), "of the schedule alone: as the network is"
