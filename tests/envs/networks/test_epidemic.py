"""The epidemic: single steps by hand, the exact answer of eight nodes, and what controllers come to."""

import networkx as nx
import numpy as np
import pytest

from envs.interface import Floats
from envs.networks.epidemic import BASELINES, Epidemic, EpidemicEnv, chain, expected, rationed, states
from envs.registry import section, spec


def section_of(**settings: object) -> EpidemicEnv:
    env = section("sis", **settings)
    assert isinstance(env, EpidemicEnv)
    return env


def nodes(graph: nx.Graph | None = None, **settings: object) -> Epidemic:
    env = section_of(**{"num_envs": 1, **settings})
    world = Epidemic(env, nx.path_graph(env.n_agents) if graph is None else graph, 0)
    world.reset()
    return world


def doses(world: Epidemic, *taken: int) -> list[Floats]:
    return [np.full((world.num_envs, 1), dose, np.float32) for dose in taken]


CERTAIN = {"infect_prob": 1.0, "recover_prob": 0.0, "outside_prob": 0.0, "efficacy": 1.0, "reward": "local", "cost": "local"}


@pytest.mark.parametrize(
    ("contacts", "after"), [("ring", [1, 1, 0, 0, 1]), ("links", [1, 1, 1, 1, 1])], ids=["ring", "star of links"]
)
def test_the_disease_spreads_over_contacts_and_no_further(contacts: str, after: list[int]) -> None:
    world = nodes(nx.star_graph(4), agents=5, contacts=contacts, **CERTAIN)
    world.infected[:] = [1, 0, 0, 0, 0]
    out = world.step(doses(world, 0, 0, 0, 0, 0))
    assert world.infected[0].tolist() == [bool(ill) for ill in after]
    assert out.reward[:, 0].tolist() == [-ill for ill in after]


def test_a_dose_costs_one_and_protects_the_healthy_for_one_step() -> None:
    world = nodes(agents=4, dose_price=0.25, **CERTAIN)
    world.infected[:] = [1, 0, 0, 0]
    out = world.step(doses(world, 1, 1, 0, 0))  # wasted on the first; the last is infected
    assert out.cost[:, 0, 0].tolist() == [1, 1, 0, 0]
    assert out.reward[:, 0].tolist() == [-1.25, -0.25, 0, -1]
    assert [obs[0].tolist() for obs in out.obs] == [[1, 1], [0, 1], [0, 0], [1, 0]]
    world.step(doses(world, 0, 0, 0, 0))
    assert world.infected[0].tolist() == [True, True, True, True]


def test_the_table_of_two_nodes_is_the_one_worked_out_by_hand() -> None:
    env = section_of(agents=2, infect_prob=0.5, recover_prob=0.3, outside_prob=0.2, efficacy=0.75)
    found = chain(env, nx.path_graph(2), np.array([[0, 0], [1, 0], [0, 0], [0, 0]], float))
    # healthy and alone: 0.2; healthy beside an infected one: 1 - 0.8 · 0.5 = 0.6, with a dose 0.15; infected stays so: 0.7
    np.testing.assert_allclose(found[0], [0.64, 0.16, 0.16, 0.04])
    np.testing.assert_allclose(found[1], [0.85 * 0.3, 0.85 * 0.7, 0.15 * 0.3, 0.15 * 0.7])
    np.testing.assert_allclose(found[2], [0.3 * 0.4, 0.3 * 0.6, 0.7 * 0.4, 0.7 * 0.6])
    np.testing.assert_allclose(found[3], [0.09, 0.21, 0.21, 0.49])


@pytest.mark.parametrize("policy", ["none", "random", "exposed"])
def test_the_simulation_of_eight_nodes_agrees_with_the_table(policy: str) -> None:
    env = section_of(agents=8)
    infected = states(8)
    beside_the_ill = np.roll(infected, 1, axis=1) | np.roll(infected, -1, axis=1)
    dose_prob = {"none": np.zeros((256, 8)), "random": np.full((256, 8), 0.5), "exposed": 1.0 * (beside_the_ill & ~infected)}
    world, control = nodes(agents=8, horizon=30, num_envs=3000), BASELINES[policy](env, nx.path_graph(8))
    for _ in range(29):
        world.step(control(world))
    measured = np.array([episode.measures for episode in world.step(control(world)).episodes])
    exact = expected(env, nx.path_graph(8), dose_prob[policy], 30)
    error = measured.std(axis=0) / np.sqrt(len(measured))
    assert (np.abs(measured.mean(axis=0) - exact) <= 4 * error).all()  # six figures
    assert error.max() < 0.003


def test_rationed_doses_go_where_the_risk_is_greatest_and_no_further_than_the_budget() -> None:
    world = nodes(agents=6, budget=0.34)  # two doses
    world.infected[:] = [1, 0, 1, 0, 0, 0]
    assert rationed(world)[0].tolist() == [False, True, False, True, False, False]
    world.infected[:] = [1, 1, 1, 1, 1, 0]
    assert rationed(world)[0].tolist() == [False, False, False, False, False, True]


@pytest.mark.parametrize(
    ("policy", "infected", "taken"),
    [
        ("none", 0.567, 0.0),
        ("random", 0.183, 0.5),
        ("everyone", 0.018, 1.0),
        ("exposed", 0.0575, 0.0967),
        ("rationed", 0.302, 0.1),
    ],
)
def test_controllers_come_to_what_the_page_says(policy: str, infected: float, taken: float) -> None:
    world = nodes(num_envs=500)
    control = BASELINES[policy](section_of(), nx.empty_graph(20))
    for _ in range(99):
        world.step(control(world))
    out = world.step(control(world))
    assert np.mean([episode.measures for episode in out.episodes], axis=0) == pytest.approx([infected, taken], rel=0.05)
    assert np.mean([episode.cost[0] for episode in out.episodes]) == pytest.approx(100 * taken, rel=0.05)


def test_large_networks_have_no_exact_answer() -> None:
    with pytest.raises(ValueError, match=r"env\.agents: got 11; exact answers are for at most 10 nodes"):
        chain(section_of(agents=11), nx.path_graph(11), np.zeros((1, 11)))


def test_the_limit_is_the_budget_of_an_episode() -> None:
    assert spec(section_of(budget=0.25, horizon=40)).cost_limits == (10.0,)
