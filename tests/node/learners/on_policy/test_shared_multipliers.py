"""A budget that all agents share: neighbours alone come to the price that a coordinator with all costs would set."""

from collections.abc import Sequence

import networkx as nx
import numpy as np
import pytest
from numpy.typing import NDArray

from node.learners.on_policy.consensus import Gossip, Prices
from node.learners.on_policy.multipliers import EpisodeCosts, Multipliers, SharedMultipliers
from node.numerics.rollout import Rollout
from scenarios.schema import Algorithm

BUDGET = 1.0  # on the mean over agents
NEEDS = np.array([0.5, 1.0, 6.0, 9.0, 2.0])  # what agents would spend at no price
SPEED = 0.2  # part of the way to what a price asks for that an agent goes in a round
PRICE = np.sqrt(NEEDS.mean() / BUDGET) - 1.0  # at which the mean of `spent` is the budget


def spent(needs: NDArray[np.float64], price: NDArray[np.float64]) -> NDArray[np.float64]:
    """What agents spend in the long run at a price, (n,)."""
    return needs / (1.0 + price) ** 2


def priced(kind: type[Multipliers], agents: int, **settings: float | str) -> list[Multipliers]:
    algorithm = Algorithm.model_validate({"name": "mappo_l", "mult_max": 50.0, **settings})
    return [kind(algorithm, [BUDGET], 1) for _ in range(agents)]


def play(
    mults: Sequence[Multipliers],
    rounds: int,
    *,
    graph: nx.Graph | None = None,
    loss: float = 0.0,
    needs: NDArray[np.float64] = NEEDS,
) -> NDArray[np.float64]:
    """What agents spend in each round, (rounds, n), when prices move by it and agents, as learners do, follow prices slowly."""
    draw, course = np.random.default_rng(0), []
    n = len(mults)
    costs = [EpisodeCosts(1, 1) for _ in range(n)]
    now = needs
    for _ in range(rounds):
        now = now + SPEED * (spent(needs, np.array([each.values[0] for each in mults])) - now)
        course.append(now)
        for one, cost, mult in zip(costs, now, mults, strict=True):
            rollout = Rollout.make(1, 1, 1, 1, 1)
            rollout.cost[:], rollout.truncated[:] = cost, True
            one.take(rollout)
            mult.step(one)
            mult.ascend(one, [0.0])
        if graph is not None:
            gossip = [
                Gossip([Prices(mult)], graph.degree[i]) for i, mult in enumerate(mults) if isinstance(mult, SharedMultipliers)
            ]
            told = [each.gives() for each in gossip]
            for i, each in enumerate(gossip):
                for j in sorted(graph.neighbors(i)):
                    each.takes(told[j], float(draw.random() >= loss))
    return np.array(course)


@pytest.mark.parametrize(
    "rule",
    [
        {"mult_kp": 0.0, "mult_ki": 0.05},
        {"mult_kp": 0.5, "mult_ki": 0.05},
        {"constraint": "lagrangian", "mult_lr": 0.05, "gamma": 0.0},
        {"constraint": "focops", "objective": "focops", "mult_lr": 0.05},
    ],
    ids=["integral", "proportional too", "lagrangian", "focops"],
)
def test_all_agents_come_to_the_one_price_at_which_the_budget_is_just_spent(rule: dict[str, float | str]) -> None:
    mults = priced(SharedMultipliers, 5, **rule)
    course = play(mults, 600, graph=nx.path_graph(5))
    assert course[-1].mean() == pytest.approx(BUDGET, rel=0.01)
    prices = np.array([mult.values[0] for mult in mults])
    np.testing.assert_allclose(prices, PRICE, rtol=0.25)
    assert prices.mean() == pytest.approx(PRICE, rel=0.05)
    assert np.ptp(course[-1]) > BUDGET  # some spend much more than others
    own = priced(Multipliers, 5, **rule)
    play(own, 600)
    assert np.ptp([mult.values[0] for mult in own]) > 1.0  # each keeps the limit for itself


def test_on_a_complete_graph_it_is_the_multiplier_of_a_coordinator() -> None:
    mults, one = priced(SharedMultipliers, 5, mult_ki=0.05, mult_kp=0.0), priced(Multipliers, 1, mult_ki=0.05, mult_kp=0.0)
    shared = play(mults, 300, graph=nx.complete_graph(5), needs=np.full(5, 4.0))
    central = play(one, 300, needs=np.array([4.0]))
    np.testing.assert_allclose(shared, np.repeat(central, 5, axis=1), rtol=1e-6)


@pytest.mark.parametrize("loss", [0.2, 0.5])
def test_with_losses_the_budget_is_met_all_the_same(loss: float) -> None:
    course = play(priced(SharedMultipliers, 5, mult_ki=0.05, mult_kp=0.5), 1500, graph=nx.path_graph(5), loss=loss)
    assert course[-900:].mean() == pytest.approx(BUDGET, rel=0.05)


def test_estimates_keep_the_mean_of_what_all_are_charged_with() -> None:
    mults = priced(SharedMultipliers, 5, mult_ki=0.0, mult_kp=0.0)
    course = play(mults, 40, graph=nx.path_graph(5))
    estimates = np.array([mult.estimates[0] for mult in mults if isinstance(mult, SharedMultipliers)])
    assert estimates.mean() == pytest.approx(course[-1].mean(), rel=1e-6)
    assert np.ptp(estimates) < 0.5 * np.ptp(NEEDS)


def test_no_price_that_a_neighbour_claims_leaves_the_bounds() -> None:
    (mult,) = priced(SharedMultipliers, 1, mult_max=3.0)
    assert isinstance(mult, SharedMultipliers)
    gossip = Gossip([Prices(mult)], 1)
    gossip.gives()
    gossip.takes(np.array([1.0, 1.0, 1e30], np.float32), 1.0)
    assert mult.agreed_on[1] == 3.0
    gossip.gives()
    gossip.takes(np.array([1.0, 1.0, -1e30], np.float32), 1.0)
    assert mult.agreed_on[1] == 0.0
