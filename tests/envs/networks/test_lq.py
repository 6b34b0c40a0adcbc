"""The LQ network: its exact answers against published figures, finite differences and its own simulation."""

import networkx as nx
import numpy as np
import pytest

from envs.interface import VecEnv
from envs.networks.lq import (
    LINE_BETA,
    best_local_gain,
    coupling,
    dynamics,
    gain_cost,
    gain_gradient,
    kappa_curve,
    largest_stable_beta,
    limited_cost,
    optimal_cost,
    within,
)
from envs.networks.settings import LQ
from envs.registry import make, outlook, section, spec

PATH20 = nx.path_graph(20)
WEAK = LQ(alpha=0.5, beta=0.27, control_weight=30.0)
BIPARTITE = LQ(alpha=0.0, beta=0.5, control_weight=10.0)
GRID = nx.convert_node_labels_to_integers(nx.grid_2d_graph(5, 5))


def test_optimum_of_the_path_of_twenty() -> None:
    cost, _ = optimal_cost(dynamics(PATH20, WEAK), 30.0)
    assert cost == pytest.approx(2.392, rel=1e-3)
    assert np.abs(np.linalg.eigvalsh(dynamics(PATH20, WEAK))).max() == pytest.approx(1.034, rel=1e-3)


@pytest.mark.parametrize(
    ("graph", "lq", "ratios"),
    [
        (PATH20, WEAK, [1.157, 1.0275, 1.0054, 1.0007, 1.0001]),
        (PATH20, BIPARTITE, [3.736, 1.0113, 1.0113, 1.0003]),
        (GRID, LQ(alpha=0.2, beta=0.23, control_weight=30.0), [1.137, 1.023, 1.007, 1.0011]),
    ],
    ids=["path", "bipartite", "grid"],
)
def test_kappa_curve_matches_the_published_ratios(graph: nx.Graph, lq: LQ, ratios: list[float]) -> None:
    assert kappa_curve(graph, lq, range(len(ratios))) == pytest.approx(ratios, rel=1e-3)


def test_truncating_the_optimal_gain_is_worse_than_optimising_the_truncated_one() -> None:
    a = dynamics(PATH20, WEAK)
    best, gain = optimal_cost(a, 30.0)
    truncated = [gain_cost(a, np.where(within(PATH20, kappa), gain, 0.0), 30.0) / best for kappa in range(4)]
    assert truncated == pytest.approx([1.691, 1.039, 1.006, 1.001], rel=1e-3)


def test_all_hops_reach_the_optimum() -> None:
    assert kappa_curve(PATH20, WEAK, [19]) == pytest.approx([1.0], abs=1e-9)


def test_cost_of_a_scalar_system_has_its_closed_form() -> None:
    a, k, r = np.array([[0.9]]), np.array([[0.4]]), 2.0
    assert gain_cost(a, k, r, 3.0) == pytest.approx(9.0 * (1.0 + 2.0 * 0.16) / (1.0 - 0.25))


def test_unstable_gain_costs_infinity_and_has_no_gradient() -> None:
    a = dynamics(PATH20, WEAK)
    assert gain_cost(a, 0.0 * a, 30.0) == float("inf")
    with pytest.raises(ValueError, match="not stable"):
        gain_gradient(a, 0.0 * a, 30.0)


def test_gradient_agrees_with_finite_differences() -> None:
    a = dynamics(nx.path_graph(4), WEAK)
    rng = np.random.default_rng(0)
    k = 0.5 * a + 0.05 * rng.standard_normal(a.shape)
    step = 1e-6
    numeric = np.zeros_like(k)
    for entry in np.ndindex(*k.shape):
        up, down = k.copy(), k.copy()
        up[entry] += step
        down[entry] -= step
        numeric[entry] = (gain_cost(a, up, 30.0, 0.7) - gain_cost(a, down, 30.0, 0.7)) / (2 * step)
    np.testing.assert_allclose(gain_gradient(a, k, 30.0, 0.7), numeric, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("price", [1e-3, 1.0, 1e4])
def test_optimum_of_a_symmetric_network_has_its_closed_form(price: float) -> None:
    """Along each eigenvector of A the Riccati equation is p² + p (r - 1 - λ² r) - r = 0."""
    a = dynamics(GRID, LQ(alpha=0.9, beta=0.1, control_weight=price))
    values = np.linalg.eigvalsh(a)
    half = (price - 1 - values**2 * price) / 2
    cost, gain = optimal_cost(a, price, 0.5)
    assert cost == pytest.approx(0.25 * np.mean(-half + np.sqrt(half**2 + price)), rel=1e-9)
    assert gain_cost(a, gain, price, 0.5) == pytest.approx(cost, rel=1e-9)


@pytest.mark.parametrize("lq", [WEAK, LQ(alpha=1.3, beta=0.27, control_weight=30.0)], ids=["weak", "strong"])
@pytest.mark.parametrize("kappa", [0, 1])
def test_the_best_local_gain_is_at_rest(lq: LQ, kappa: int) -> None:
    """In the strong network with kappa = 0 the first step of the search leads to a gain that is not stable."""
    cost, gain = best_local_gain(GRID, kappa, lq)
    slope = gain_gradient(dynamics(GRID, lq), gain, lq.control_weight)[within(GRID, kappa)]
    assert np.abs(slope).max() < 1e-6 * cost


def test_without_a_stable_start_no_local_gain_is_told() -> None:
    with pytest.raises(ValueError, match=r"no stabilising gain known for kappa=0, alpha=0\.0, beta=0\.5"):
        best_local_gain(GRID, 0, BIPARTITE)


def test_local_gain_uses_no_state_beyond_kappa_hops() -> None:
    _, gain = best_local_gain(PATH20, 2, WEAK)
    far = np.abs(np.subtract.outer(np.arange(20), np.arange(20))) > 2
    assert (gain[far] == 0).all()
    assert (gain[~far] != 0).all()


def average_cost(world: VecEnv, gain: np.ndarray, steps: int, skip: int) -> float:
    x = np.concatenate(world.reset(), axis=1)
    paid = []
    for _ in range(steps):
        u = (-x @ gain.T).astype(np.float32)
        out = world.step([u[:, [i]] for i in range(world.spec.n_agents)])
        paid.append(-out.reward[0].mean())
        x = np.concatenate(out.obs, axis=1)
    return float(np.mean(paid[skip:]))


def test_simulated_average_cost_is_the_exact_one() -> None:
    env = LQ(agents=20, num_envs=64, horizon=10_000)
    _, gain = best_local_gain(PATH20, 1, env)
    simulated = average_cost(make(env, PATH20, 3), gain, 1500, 100)
    assert simulated == pytest.approx(gain_cost(dynamics(PATH20, env), gain, 30.0), rel=0.01)  # standard error about 0.3 %


def test_rewards_are_those_of_the_state_acted_on() -> None:
    lq = LQ(alpha=0.5, beta=0.1, control_weight=2.0, noise_std=0.0)
    env = lq.model_copy(update={"agents": 2, "num_envs": 1, "reward": "local"})
    world = make(env, nx.path_graph(2), 0)
    x = np.concatenate(world.reset(), axis=1)[0]
    out = world.step([np.array([[1.0]], np.float32), np.array([[-3.0]], np.float32)])
    np.testing.assert_allclose(out.reward[:, 0], [-(x[0] ** 2 + 2.0), -(x[1] ** 2 + 18.0)], rtol=1e-5)
    expected = [0.5 * x[0] + 0.1 * x[1] + 1.0, 0.5 * x[1] + 0.1 * x[0] - 3.0]
    np.testing.assert_allclose(np.concatenate(out.obs, axis=1)[0], expected, rtol=1e-5)


def test_team_reward_is_the_mean_of_the_local_ones() -> None:
    outs = []
    for reward in ("team", "local"):
        world = make(section("network_lq", agents=4, num_envs=2, reward=reward), nx.star_graph(3), 5)
        world.reset()
        outs.append(world.step([np.full((2, 1), 0.3, np.float32)] * 4).reward)
    np.testing.assert_allclose(outs[0][0], outs[1].mean(axis=0), rtol=1e-6)


def test_world_is_coupled_along_the_given_graph_only() -> None:
    env = LQ(agents=4, num_envs=1, noise_std=0.0)
    quiet = [np.zeros((1, 1), np.float32)] * 4
    pushed = [np.ones((1, 1), np.float32), *quiet[1:]]
    ends = []
    for first in (quiet, pushed):
        world = make(env, nx.Graph([(0, 3), (3, 1), (1, 2)]), 0)
        world.reset()
        world.step(first)
        ends.append(np.concatenate(world.step(quiet).obs, axis=1)[0])
    assert list(np.flatnonzero(ends[0] != ends[1])) == [0, 3]


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e12])
def test_divergence_is_a_fault_and_ends_the_copy(bad: float) -> None:
    world = make(LQ(agents=2, num_envs=2), nx.path_graph(2), 0)
    world.reset()
    action = np.zeros((2, 1), np.float32)
    action[1] = bad
    out = world.step([action, np.zeros((2, 1), np.float32)])
    assert list(out.faults) == [False, True]
    assert list(out.terminated) == [False, True]
    assert np.isnan(next(episode.ret for episode in out.episodes if episode.copy == 1))  # what it would have come to is not known
    assert np.isfinite(out.reward).all()
    assert all(np.isfinite(block).all() for block in out.obs)


def test_kinematic_is_a_path() -> None:
    assert spec(LQ(agents=3)).edges == ((0, 1), (1, 2))
    assert spec(LQ(agents=3)).horizon == 100


def test_thousand_nodes_step() -> None:
    world = make(LQ(agents=1024, num_envs=2), nx.path_graph(1024), 0)
    world.reset()
    assert world.step([np.zeros((2, 1), np.float32)] * 1024).reward.shape == (1024, 2)


def test_least_cost_within_a_limit_lies_on_the_curve_of_prices() -> None:
    a = dynamics(nx.path_graph(4), WEAK)
    free, gain = optimal_cost(a, 0.3)
    spent = [limited_cost(a, LQ(control_weight=0.3, control_limit=limit)) for limit in (0.02, 0.05, 0.1, 10.0)]
    assert [part for _, part in spent[:3]] == pytest.approx([0.02, 0.05, 0.1])
    costs = [cost for cost, _ in spent]
    assert costs == sorted(costs, reverse=True)
    assert costs[3] == pytest.approx(free)  # a limit that does not bind
    # the envelope theorem: a limit's price is r' - r, and -d cost / d limit
    step = 1e-4
    up, down = (limited_cost(a, LQ(control_weight=0.3, control_limit=0.05 + each))[0] for each in (step, -step))
    price = -(up - down) / (2 * step)
    dearer = optimal_cost(a, 0.3 + price)[0]
    assert dearer == pytest.approx(costs[1] + price * 0.05, rel=1e-6)
    assert gain_cost(a, gain, 0.3) == pytest.approx(free)


def test_a_limit_that_no_controller_can_keep_is_refused() -> None:
    a = np.array([[1.2]])
    with pytest.raises(ValueError, match=r"env\.control_limit: got 0\.001"):
        limited_cost(a, LQ(control_weight=0.3, control_limit=0.001))
    with pytest.raises(ValueError, match=r"env\.control_limit: got null"):
        limited_cost(a, LQ())


@pytest.mark.parametrize("cost", ["team", "local"])
def test_where_control_is_limited_it_is_a_cost(cost: str) -> None:
    env = section("network_lq", agents=2, num_envs=1, horizon=3, cost=cost, control_limit=0.2)
    assert spec(env).own_costs == (cost == "local")
    world = make(env, nx.path_graph(2), 0)
    assert world.spec.cost_limits == pytest.approx((0.6,))
    world.reset()
    steps = [world.step([np.array([[1.0]], np.float32), np.array([[-3.0]], np.float32)]) for _ in range(3)]
    told = [5.0, 5.0] if cost == "team" else [1.0, 9.0]
    assert [step.cost[:, 0, 0].tolist() for step in steps] == [told] * 3
    assert steps[-1].episodes[0].cost == pytest.approx((15.0,))


def test_without_a_limit_there_are_no_costs_to_be_local() -> None:
    with pytest.raises(ValueError, match=r"cost: got 'local'; without control_limit this world has no cost"):
        LQ(agents=2, cost="local")


GRAPHS: "dict[str, nx.Graph]" = {
    "ring": nx.cycle_graph(6),
    "star": nx.star_graph(5),
    "grid": nx.convert_node_labels_to_integers(nx.grid_2d_graph(2, 4)),
    "tree": nx.balanced_tree(2, 3),
    "complete": nx.complete_graph(8),
    "random": nx.erdos_renyi_graph(30, 0.3, seed=1),
}


def radius(graph: nx.Graph, lq: LQ) -> float:
    return float(np.abs(np.linalg.eigvalsh(dynamics(graph, lq))).max())


def test_beta_auto_is_stable_on_every_graph_but_the_line_and_never_stronger_than_there(subtests: pytest.Subtests) -> None:
    for name in GRAPHS:
        for alpha in (-0.7, 0.0, 0.5, 0.9):
            with subtests.test(name=name, alpha=alpha):
                lq = LQ(alpha=alpha)
                assert coupling(GRAPHS[name], lq) <= LINE_BETA
                assert radius(GRAPHS[name], lq) < 1


def test_beta_auto_on_a_line_is_what_it_has_always_been(subtests: pytest.Subtests) -> None:
    rows: list[nx.Graph] = [nx.empty_graph(1), nx.path_graph(2), PATH20, nx.relabel_nodes(nx.path_graph(4), {0: 2, 2: 0})]
    for line in rows:
        with subtests.test(line=line):
            assert np.array_equal(dynamics(line, LQ()), dynamics(line, LQ(beta=0.27)))


def test_the_largest_stable_beta_is_where_the_radius_is_one(subtests: pytest.Subtests) -> None:
    for name in GRAPHS:
        for alpha in (-0.7, 0.0, 0.5, 0.9):
            with subtests.test(name=name, alpha=alpha):
                most = largest_stable_beta(GRAPHS[name], alpha)
                assert radius(GRAPHS[name], LQ(alpha=alpha, beta=most)) == pytest.approx(1.0, abs=1e-7)
                assert radius(GRAPHS[name], LQ(alpha=alpha, beta=0.99 * most)) < 1


def test_exact_answers_are_those_of_the_beta_in_force() -> None:
    star = GRAPHS["star"]
    in_force = LQ(agents=6, beta=coupling(star, LQ()))
    assert kappa_curve(star, LQ(), [0, 1]) == kappa_curve(star, in_force, [0, 1])
    world, same = (make(lq.model_copy(update={"num_envs": 2}), star, 0) for lq in (LQ(agents=6), in_force))
    world.reset(), same.reset()
    actions = [np.zeros((2, 1), np.float32)] * 6
    for _ in range(5):
        assert np.array_equal(world.step(actions).reward, same.step(actions).reward)


def test_an_unstable_network_is_doubted_with_its_radius_and_the_largest_stable_beta() -> None:
    env = LQ(agents=6, beta=0.27)
    (doubt,) = outlook(env, GRAPHS["star"]).doubts
    assert "ρ(αI + βA) = 1.104" in doubt
    assert "stable for 0 ≤ env.beta < 0.2236" in doubt
    assert "1.9e+04-fold in an episode of 100 steps" in doubt
    calm = outlook(LQ(agents=6), GRAPHS["star"])
    assert not calm.doubts
    assert calm.in_force["env.beta"] == pytest.approx(0.95 * 0.5 / 5**0.5)
    assert not outlook(section("safe_ant", partition="4x2"), nx.cycle_graph(4)).in_force


def test_without_decay_auto_has_no_answer() -> None:
    with pytest.raises(ValueError, match=r"alpha: got 1\.0 with beta 'auto'"):
        LQ(alpha=1.0)
    assert largest_stable_beta(PATH20, 1.0) == 0.0
    env = LQ(agents=20, alpha=1.0, beta=0.1)
    assert "no β is stable with env.alpha = 1" in outlook(env, PATH20).doubts[0]
