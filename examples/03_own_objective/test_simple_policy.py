"""The objective is greatest at the edge of the region, and a run with it learns."""

import torch

from scenarios.loading import load
from scenarios.registry import OBJECTIVES

SCENARIO = ["algorithm.name=simple_policy", "algorithm.clip=0.2"]


def objective():
    return OBJECTIVES.resolve("simple_policy")(load("quickstart", SCENARIO).algorithm)


def test_the_best_ratio_of_one_sample_is_one_plus_or_minus_the_width():
    rho = torch.linspace(0.5, 1.5, 1001)
    for sign in (1.0, -1.0):
        best = rho[objective().gain(rho, torch.full_like(rho, sign), None).argmax()]
        assert abs(float(best) - (1.0 + 0.2 * sign)) < 2e-3


def test_other_agents_ratios_weigh_the_advantage():
    rho = torch.tensor([1.1])
    once = objective().gain(rho, torch.tensor([2.0]), torch.tensor([0.5]))
    assert torch.allclose(once, objective().gain(rho, torch.tensor([1.0]), None))


def test_the_recipe_names_it():
    assert load("quickstart", SCENARIO).algorithm.recipe.objective == "simple_policy"
