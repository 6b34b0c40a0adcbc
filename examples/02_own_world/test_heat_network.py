"""The world keeps the contract, and its physics is what its first lines say."""

import networkx as nx
import numpy as np

from envs.contract import broken
from envs.registry import make, section, world_of

GRAPH = nx.path_graph(3)


def env(**settings):
    return section("heat_network", agents=3, **settings)


def test_the_contract_holds():
    assert broken(lambda seed, threads: make(env(num_envs=2, horizon=5), GRAPH, seed), "team") == []


def test_heat_flows_from_warm_rooms_to_cold_ones_and_is_kept():
    world = make(env(num_envs=1, leak=1e-9, noise_std=0.0), GRAPH, seed=0)
    world.reset()
    world._x[:] = [[30.0, 0.0, 0.0]]
    world.step([np.full((1, 1), -1.0, np.float32)] * 3)
    assert np.allclose(world._x, [[28.5, 1.5, 0.0]])


def test_the_thermostat_is_better_than_no_heating():
    thermostat = world_of(env()).baselines["thermostat"](env(), GRAPH)
    off = [np.full((4, 1), -1.0, np.float32)] * 3

    def score(act):
        world = make(env(num_envs=4), GRAPH, seed=0)
        world.reset()
        return sum(float(world.step(act(world)).reward.mean()) for _ in range(50))

    assert score(thermostat) > score(lambda world: off) + 10
