"""Whole runs on a world with a limit: what is safe stays within it and uses it, what is not exceeds it."""

from pathlib import Path

import pytest

from benchmarks.constrained import SAFE, SHARED, UNSAFE, train

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("algorithm", SAFE)
def test_constrained_algorithms_end_within_a_tenth_of_the_limit(tmp_path: Path, algorithm: str, seed: int) -> None:
    outcome = train(algorithm, seed, tmp_path)
    assert 0.85 <= outcome.spent <= 1.01  # 0.90 to 0.99 on one type of processor; others round differently
    assert outcome.cost <= 1.4  # 1.8 at the start


@pytest.mark.parametrize("seed", range(3))
def test_agents_that_share_a_budget_keep_it_together_and_not_each(tmp_path: Path, seed: int) -> None:
    outcome = train(SHARED, seed, tmp_path)
    assert 0.9 <= outcome.spent <= 1.02
    assert outcome.most >= 1.03
    assert outcome.cost <= 1.4


@pytest.mark.parametrize("seed", range(3))
def test_an_unconstrained_one_exceeds_it(tmp_path: Path, seed: int) -> None:
    outcome = train(UNSAFE, seed, tmp_path)
    assert outcome.spent > 1.5
    assert outcome.cost < 1.1
