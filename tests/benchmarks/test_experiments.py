"""Experiments: claims by hand-made numbers, pages that are what their stored numbers say, and rows that can be run."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.experiments import pages
from benchmarks.experiments.__main__ import DOCS, make
from benchmarks.experiments.catalogue import EXPERIMENTS, Experiment, Row
from benchmarks.experiments.claims import Above, Within, row_interval
from benchmarks.experiments.measures import eval_return
from coordinator.records.plan import plan
from scenarios.loading import load

WRITTEN = [name for name in EXPERIMENTS if (DOCS / f"{name}.md").exists()]


def around(mean: float, spread: float, seeds: int = 10) -> np.ndarray:
    return mean + spread * np.linspace(-1, 1, seeds)


@pytest.mark.parametrize(
    ("high", "low", "tolerance", "outcome"),
    [
        (around(10, 1), around(5, 1), 0.0, "holds"),
        (around(5, 1), around(10, 1), 0.0, "does not hold"),
        (around(5.1, 1), around(5, 1), 0.0, "not decided"),
        (around(5, 1), around(6, 1), 3.0, "holds"),
        (around(10, 0, 1), around(5, 0, 1), 0.0, "not decided"),  # one seed
    ],
)
def test_an_order_holds_where_intervals_say_so(high: np.ndarray, low: np.ndarray, tolerance: float, outcome: str) -> None:
    (found,) = Above("return", ("a", "b"), tolerance).findings({"a": high, "b": low})
    assert found.outcome == outcome
    assert found.difference == pytest.approx(high.mean() - low.mean() + tolerance)


def test_a_range_is_judged_at_each_end_and_in_each_row() -> None:
    found = Within("cost", ("a", "b"), low=0.9, high=1.0).findings({"a": around(0.95, 0.01), "b": around(1.2, 0.01)})
    assert [one.outcome for one in found] == ["holds", "holds", "holds", "does not hold"]
    assert [one.difference for one in found] == pytest.approx([0.05, 0.05, 0.3, -0.2])


def test_a_mean_is_as_far_from_its_bound_as_its_interval_is_wide() -> None:
    scores = np.random.default_rng(0).normal(0.0, 1.0, 10)
    (found,) = Within("x", ("a",), low=-100.0).findings({"a": scores})
    mean, interval = row_interval(scores)
    assert (found.interval.low, found.interval.high) == pytest.approx((interval.low + 100, interval.high + 100))
    assert found.difference == pytest.approx(mean + 100)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_row_of_an_experiment_can_be_run(name: str) -> None:
    experiment = EXPERIMENTS[name]
    rows = [row.name for row in experiment.rows]
    assert len(set(rows)) == len(rows)
    assert all(set(claim.rows) <= set(rows) and claim.measure in experiment.measures for claim in experiment.claims)
    for row in experiment.rows:
        plan(load(row.scenario or experiment.scenario, [*experiment.common, *row.words]))


@pytest.mark.parametrize("name", WRITTEN)
def test_a_page_is_what_its_stored_numbers_say(name: str) -> None:
    numbers, processor = pages.read(name, EXPERIMENTS[name], DOCS)
    assert (DOCS / f"{name}.md").read_text(encoding="utf-8") == pages.page(name, EXPERIMENTS[name], numbers, processor=processor)


def test_numbers_come_back_as_they_were_stored(tmp_path: Path) -> None:
    experiment = Experiment("T?", "X.", "lq_line20", (Row("a"), Row("b", ("kappa=0",))), {"return": eval_return}, ())
    numbers = {"return": {"a": np.array([0.1, 1 / 3]), "b": np.array([-2.0, np.nan])}}
    pages.write("t", experiment, numbers, tmp_path, processor="P")
    found, processor = pages.read("t", experiment, tmp_path)
    np.testing.assert_equal(found, numbers)
    assert processor == "P"
    text = (tmp_path / "t.md").read_text(encoding="utf-8")
    assert "**Only 2 seeds per row.**" in text
    assert "`kappa=0`" in text
    assert "<svg" in (tmp_path / "data" / "t.svg").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.system
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_runs_and_writes_its_page(name: str, tmp_path: Path) -> None:
    experiment = replace(EXPERIMENTS[name], rows=EXPERIMENTS[name].rows[:1], claims=())
    numbers = make(experiment, tmp_path / "runs", seeds=1, rounds=2, jobs=1)
    assert {len(scores) for rows in numbers.values() for scores in rows.values()} == {1}
    pages.write(name, experiment, numbers, tmp_path, processor="P")
    text = (tmp_path / f"{name}.md").read_text(encoding="utf-8")
    assert text.startswith(f"# {experiment.title}\n\n**A single run per row")
    assert all(row.name in text for row in experiment.rows)
