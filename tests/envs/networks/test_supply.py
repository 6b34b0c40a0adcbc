"""The supply network: a step by hand, goods that are never lost, the recursion of Clark and Scarf, and published costs."""

from collections.abc import Callable

import networkx as nx
import numpy as np
import pytest
from scipy import stats

from envs.interface import Floats
from envs.networks.supply import BASELINES, Chains, SupplyEnv, SupplyNetwork, fill_echelons, fill_up, optimum, orders
from envs.registry import section

Policy = Callable[[SupplyNetwork], list[Floats]]
TREE = nx.Graph([(0, 2), (1, 2), (2, 4), (3, 4)])  # 4 supplies 2 and 3, and 2 supplies 0 and 1


def section_of(**settings: object) -> SupplyEnv:
    env = section("supply", **settings)
    assert isinstance(env, SupplyEnv)
    return env


def network(graph: nx.Graph | None = None, **settings: object) -> SupplyNetwork:
    env = section_of(**{"num_envs": 1, **settings})
    world = SupplyNetwork(env, nx.path_graph(env.n_agents) if graph is None else graph, 0)
    world.reset()
    return world


def order(world: SupplyNetwork, *amounts: int) -> list[Floats]:
    return [np.full((world.num_envs, 1), amount, np.float32) for amount in amounts]


def measured(world: SupplyNetwork, policy: Policy) -> np.ndarray:
    """The measures of one episode of every copy, (E, 3)."""
    for _ in range(world.spec.horizon - 1):
        world.step(policy(world))
    return np.array([episode.measures for episode in world.step(policy(world)).episodes])


def test_goods_are_sent_as_far_as_there_are_any_and_arrive_after_the_lead_time() -> None:
    world = network(agents=2, reward="local", cost="local")
    world.stock[:], world.pipeline[:] = [3, 4], 0
    world._demand._block[:], world._demand._used = 5, 0
    out = world.step(order(world, 6, 7))
    assert (world.stock[0].tolist(), world.unmet[0].tolist(), world.awaited[0].tolist()) == ([0, 0], [2, 0], [2, 0])
    assert world.pipeline[0].tolist() == [[0, 4], [0, 7]]
    assert out.reward[:, 0].tolist() == [-10.0, 0.0]
    assert out.cost[:, 0, 0].tolist() == [1.0, 0.0]
    np.testing.assert_allclose([obs[0] for obs in out.obs], [[0, 0.2, 0.2, 0, 0.4, 0.5], [0, 0.2, 0, 0, 0.7, 0.6]], rtol=1e-6)
    world._demand._block[:] = 0
    world.step(order(world, 0, 0))
    assert world.stock[0].tolist() == [0, 0]
    world.step(order(world, 0, 0))  # 4 arrive of which 2 are owed; 7 arrive of which 2 are owed
    assert (world.stock[0].tolist(), world.unmet[0].tolist(), world.awaited[0].tolist()) == ([2, 5], [0, 0], [0, 0])


def test_stock_costs_in_equal_parts_from_the_source_and_trees_follow_the_shortest_ways() -> None:
    chain = Chains(section_of(), nx.path_graph(4))
    assert chain.holding.tolist() == [1, 0.75, 0.5, 0.25]
    tree = Chains(section_of(agents=5, suppliers="links"), TREE)
    assert tree.supplier.tolist() == [2, 2, 4, 4, 5]
    assert tree.retailers.tolist() == [0, 1, 3]
    assert tree.echelon[2].tolist() == [1, 1, 1, 0, 0]


def test_goods_are_neither_made_nor_lost_on_a_tree() -> None:
    world, rng = network(TREE, agents=5, suppliers="links", num_envs=8), np.random.default_rng(3)
    for _ in range(90):
        inside = (world.stock + world.pipeline.sum(axis=2)).sum(axis=1)
        unmet, awaited = world.unmet.copy(), world.awaited.copy()
        amounts = rng.integers(0, 20, (5, 8))
        world.step(order_each(amounts))
        demand = world.requested[:, world.chains.retailers].sum(axis=1)
        sold = unmet.sum(axis=1) + demand - world.unmet.sum(axis=1)
        entered = (awaited[:, 4] + amounts[4]) - world.awaited[:, 4]
        np.testing.assert_array_equal((world.stock + world.pipeline.sum(axis=2)).sum(axis=1), inside + entered - sold)
        assert min(world.stock.min(), world.unmet.min(), world.awaited.min(), sold.min()) >= 0


def order_each(amounts: np.ndarray) -> list[Floats]:
    return [row.astype(np.float32)[:, None] for row in amounts]


def test_a_single_node_is_the_newsvendor() -> None:
    levels, cost = optimum([0.25], 5.0, 8.0, 2)
    assert levels == [stats.poisson.ppf(5.0 / 5.25, 24.0)]
    demand = np.arange(200)
    paid = np.where(demand > levels[0], 5.0 * (demand - levels[0]), 0.25 * (levels[0] - demand))
    assert cost == pytest.approx(paid @ stats.poisson.pmf(demand, 24.0))


def test_the_best_chain_costs_what_the_recursion_says_and_others_more() -> None:
    holding = [1.0, 0.75, 0.5, 0.25]
    levels, cost = optimum(holding, 5.0, 8.0, 2)
    assert levels == [33, 50, 66, 82]

    def paid(target: list[int]) -> np.ndarray:
        world = network(num_envs=200, horizon=300, start_stock=0)
        return measured(world, lambda world: orders(world, fill_echelons(world, target)))[:, 0]

    best = paid(levels)
    assert best.mean() == pytest.approx(cost, abs=4 * best.std() / np.sqrt(len(best)))
    assert best.std() / np.sqrt(len(best)) < 0.01 * cost
    assert paid([level + 2 for level in levels]).mean() > best.mean() < paid([level - 2 for level in levels]).mean()


@pytest.mark.parametrize(
    ("policy", "published"),
    [
        (BASELINES["pass_on"], 40.0),
        (lambda env, graph: lambda world: orders(world, fill_up(world, (34.4, 24.4, 25.4, 25.4))), 15.06),
        (lambda env, graph: lambda world: orders(world, fill_echelons(world, (33.9, 50.9, 66.5, 82.8))), 13.64),
    ],
    ids=["order as requested", "local base stock", "echelon base stock"],
)
def test_controllers_cost_what_is_published(policy: Callable[..., Policy], published: float) -> None:
    world = network(num_envs=500)
    assert measured(world, policy(section_of(), nx.path_graph(4)))[:, 0].mean() == pytest.approx(published, rel=0.02)


def test_orders_by_echelon_pass_demand_on_as_it_is_and_random_ones_do_not() -> None:
    def bullwhip(name: str) -> float:
        world = network(num_envs=200, start_stock=0)
        return float(measured(world, BASELINES[name](section_of(), nx.path_graph(4)))[:, 2].mean())

    assert bullwhip("echelon") == pytest.approx(1.1, abs=0.1)  # the first order alone fills up the chain
    assert bullwhip("random") == pytest.approx((52 + 16) / 8, rel=0.02)  # evenly from 0..24: variance 52, 4 above the mean demand
