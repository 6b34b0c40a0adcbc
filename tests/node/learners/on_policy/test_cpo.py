"""The best step within a region cut by cost planes: against brute force in the plane, and its closed forms for one cost."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from node.learners.on_policy.cpo import Step, best_step

Floats = NDArray[np.float64]
DELTA = 0.02


class Problem:
    """A random problem in two dimensions: slopes g and b, excesses c, metric H."""

    def __init__(self, seed: int, n_costs: int) -> None:
        rng = np.random.default_rng([seed, n_costs])
        root = rng.normal(size=(2, 2)) + 1.5 * np.eye(2)
        self.metric = root @ root.T
        self.g = rng.normal(size=2)
        self.b = rng.normal(size=(2, n_costs))
        self.c = 0.25 * rng.normal(size=n_costs)
        inverse = np.linalg.inv(self.metric)
        self.q, self.r, self.s = self.g @ inverse @ self.g, self.b.T @ inverse @ self.g, self.b.T @ inverse @ self.b
        self.directions = inverse @ self.g, inverse @ self.b

    def solve(self) -> Step:
        return best_step(float(self.q), self.r, self.s, self.c, DELTA)

    def move(self, step: Step) -> Floats:
        along, costs = self.directions
        return np.asarray(step.reward * along - costs @ step.costs)

    def grid(self) -> Floats:
        """Points that fill the region, (N, 2)."""
        radius, angle = np.meshgrid(np.linspace(0, math.sqrt(2 * DELTA), 60), np.linspace(0, 2 * math.pi, 400))
        disc = np.stack((radius * np.cos(angle), radius * np.sin(angle)), -1).reshape(-1, 2)
        return np.asarray(disc @ np.linalg.inv(np.linalg.cholesky(self.metric)))  # x with ½xᵀHx = ½|disc|²


@pytest.mark.parametrize("n_costs", [1, 2, 3])
def test_step_is_the_best_of_all_points_of_the_plane(n_costs: int) -> None:
    recovered = 0
    for seed in range(100):
        problem = Problem(seed, n_costs)
        points = problem.grid()
        room = problem.c + points @ problem.b
        feasible = points[(room <= 0).all(-1)]
        step = problem.solve()
        move = problem.move(step)
        assert 0.5 * move @ problem.metric @ move <= DELTA * (1 + 1e-9)
        if step.recovers:
            recovered += 1
            assert len(feasible) == 0
            continue
        assert (problem.c + move @ problem.b <= 1e-9).all()
        if len(feasible):  # the feasible part may be too small for the grid
            best = float((feasible @ problem.g).max())
            assert move @ problem.g >= best - 1e-9
            assert move @ problem.g <= best + 0.02 * math.sqrt(2 * DELTA * problem.q)
    assert 5 < recovered < 95


def test_planes_that_cannot_bind_leave_the_trust_regions_own_step() -> None:
    alone = best_step(3.0, np.zeros(0), np.zeros((0, 0)), np.zeros(0), DELTA)
    far = best_step(3.0, np.array([0.5, 0.1]), np.array([[2.0, 0.3], [0.3, 1.0]]), np.array([-9.0, -9.0]), DELTA)
    assert alone.reward == far.reward == math.sqrt(2 * DELTA / 3.0)
    assert not far.costs.any()
    assert not alone.recovers


def test_one_binding_cost_gives_the_published_dual() -> None:
    """ν = (λc + r)/s and λ = √(A/B) with A = q - r²/s, B = 2δ - c²/s."""
    seen = 0
    for seed in range(100):
        problem = Problem(seed, 1)
        step = problem.solve()
        if step.recovers or not step.costs.any():
            continue
        seen += 1
        q, r, s, c = problem.q, problem.r[0], problem.s[0, 0], problem.c[0]
        lam = math.sqrt((q - r**2 / s) / (2 * DELTA - c**2 / s))
        assert step.reward == pytest.approx(1 / lam)
        assert step.costs[0] == pytest.approx((lam * c + r) / s / lam)
    assert seen > 10


def test_without_a_feasible_point_the_step_goes_straight_against_the_worst_cost() -> None:
    step = best_step(1.0, np.array([0.2, 0.4]), np.diag([1.0, 4.0]), np.array([1.0, 1.5]), DELTA)
    assert step.recovers
    assert step.reward == 0.0
    np.testing.assert_allclose(step.costs, [math.sqrt(2 * DELTA), 0.0])  # 1/√1 stands further off than 1.5/√4


def test_costs_that_cannot_be_steered_are_let_be() -> None:
    step = best_step(1.0, np.zeros(1), np.zeros((1, 1)), np.array([5.0]), DELTA)
    assert step == Step(math.sqrt(2 * DELTA), step.costs, False)
    assert not step.costs.any()


def test_the_same_cost_twice_changes_nothing() -> None:
    for seed in range(50):
        problem = Problem(seed, 1)
        once = problem.solve()
        twice = best_step(
            float(problem.q), np.repeat(problem.r, 2), np.full((2, 2), problem.s[0, 0]), np.repeat(problem.c, 2), DELTA
        )
        assert once.recovers == twice.recovers
        assert twice.reward == pytest.approx(once.reward)
        assert twice.costs.sum() == pytest.approx(once.costs.sum())


def test_nothing_to_gain_and_nothing_to_lower_is_no_step() -> None:
    step = best_step(0.0, np.zeros(1), np.eye(1), np.array([-1.0]), DELTA)
    assert (step.reward, step.recovers) == (0.0, False)
    assert not step.costs.any()
