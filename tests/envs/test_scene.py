"""What pictures of worlds show: the shapes of all layers, and for each world what is marked."""

from collections.abc import Iterator
from typing import Any

import networkx as nx
import numpy as np
import pytest

from envs.interface import VecEnv
from envs.registry import make, section, spec, world_of
from envs.scene import Layer, Scene, tree_places
from scenarios.loading import world_settings
from scenarios.registry import WORLDS
from topology.snapshot import State

DRAWN = (
    "network_lq", "cacc_catchup", "cacc_slowdown", "traffic_grid", "wireless", "sis", "supply", "sysadmin", "cells_7", "cells_19",
    "voltage_33", "voltage_141",
)  # fmt: skip


def world(name: str, **settings: Any) -> VecEnv:
    env = section(name, **{"num_envs": 2, **settings})
    graph = nx.path_graph(spec(env).n_agents)
    made = make(env, graph, 0)
    made.reset()
    return made


def scene(made: VecEnv, name: str, copy: int = 1) -> Scene:
    found = world_of(section(name)).scene
    assert found is not None
    return found(made, copy)


def step(made: VecEnv, rng: np.random.Generator) -> None:
    made.step([
        (rng.integers(count, size=(2, 1)) if count else rng.normal(size=(2, width))).astype(np.float32)
        for count, width in zip(made.spec.n_discrete, made.spec.act_dims, strict=True)
    ])


def flat(state: State) -> Iterator[Any]:
    for value in state.values():
        yield from flat(value) if isinstance(value, dict) else [np.asarray(value)]


def test_every_networked_world_has_pictures() -> None:
    ours = [name for name in WORLDS.own if world_settings(name).__module__.startswith("envs.networks")]
    assert sorted(ours) == sorted(DRAWN)


@pytest.mark.parametrize("name", DRAWN)
def test_a_scene_has_as_many_values_as_places_and_leaves_the_world_alone(name: str) -> None:
    made, rng = world(name), np.random.default_rng(0)
    shown = set()
    for _ in range(6):
        before = made.state()
        found = scene(made, name)
        assert all(np.array_equal(a, b) for a, b in zip(flat(before), flat(made.state()), strict=True))
        assert found.agents.shape == (made.spec.n_agents, 2)
        for layer in found.layers:
            assert layer.at.shape == (len(layer.values), *((2, 2) if layer.is_lines else (2,)))
            assert layer.marked is None or layer.marked.shape == layer.values.shape
            assert np.isfinite(layer.at).all()
            assert np.isfinite(layer.values).all()
            assert layer.scale.low < layer.scale.high
            assert (layer.marked is None) == (not layer.mark)
        shown.add(tuple(layer.values.tobytes() + layer.at.tobytes() for layer in found.layers))
        step(made, rng)
    assert len(shown) > 2


def marks(found: Scene) -> dict[str, list[int]]:
    return {layer.mark: np.flatnonzero(layer.marked).tolist() for layer in found.layers if layer.marked is not None}


def layer(found: Scene, what: str) -> Layer:
    return next(each for each in found.layers if each.scale.what == what)


def test_marks_are_what_costs(subtests: pytest.Subtests) -> None:
    made: Any = world("cacc_slowdown")
    made.headway[1, 3] = 9.0
    with subtests.test("platoon"):
        found = scene(made, "cacc_slowdown")
        assert marks(found) == {"gap that is unsafe": [3]}
        assert found.agents[3, 0] == pytest.approx(-69.0)
    made = world("traffic_grid")
    made.queue[1, 4 * 7 + 2] = 7  # 21 vehicles that go south wait at intersection 7
    with subtests.test("traffic"):
        found = scene(made, "traffic_grid")
        assert marks(found) == {"more than half a street": [30]}
        ahead, behind = found.layers[0].at[30, 1], found.layers[0].at[30, 0]
        assert ahead[1] < behind[1]
        assert abs(ahead - found.agents[7]).max() < 0.2
    made = world("voltage_33")
    made.reactive[1] = 1.2
    made._injected += 0.3
    with subtests.test("voltage"):
        found = scene(made, "voltage_33")
        out = np.flatnonzero(abs(made.voltages(made.reactive)[1] - 1) > 0.05) + 1  # bus 0 is the substation
        assert marks(found) == {"out of limits": out.tolist()}
        assert out.size > 5
    made = world("supply")
    made.unmet[1, 0] = 3
    with subtests.test("supply"):
        found = scene(made, "supply")
        assert marks(found) == {"owes goods": [0]}
        assert found.agents[:, 0].tolist() == [4, 3, 2, 1]
    made = world("sis")
    made._dosed[1, [2, 5]] = True
    with subtests.test("sis"):
        assert marks(scene(made, "sis")) == {"took a dose": [2, 5]}
    made = world("sysadmin")
    made.status[1, 4] = 2
    with subtests.test("sysadmin"):
        assert marks(scene(made, "sysadmin")) == {"dead": [4]}


def test_users_are_joined_to_the_access_point_that_they_sent_to() -> None:
    made: Any = world("wireless", rows=2, columns=3, success_prob=1.0)
    made.packets[:, :, 0] = True
    made.step([np.full((2, 1), choice, np.float32) for choice in (1, 2, 1, 0, 0, 0)])  # users 1 and 2 meet
    found = layer(scene(made, "wireless"), "sent")
    assert found.at.tolist() == [[[0, 0], [0.5, -0.5]], [[1, 0], [1.5, -0.5]], [[2, 0], [1.5, -0.5]]]
    assert found.values.tolist() == [1, -1, -1]


def test_places_are_joined_to_the_cell_that_serves_them() -> None:
    made: Any = world("cells_7", shadowing_db=0.0)
    found = layer(scene(made, "cells_7"), "rate of a place")
    assert found.at[:, 1].tolist() == np.repeat(made.radio.sites, 12, axis=0).tolist()  # alike: the nearest
    made.chosen[1, 1:] = 0
    alone = scene(made, "cells_7")
    served = layer(alone, "rate of a place").at[:, 1]
    assert (served == made.radio.sites[0]).all()
    assert len(marks(alone)["in outage"]) > 20


def test_lines_of_a_tree_do_not_cross() -> None:
    upstream = [0, 1, 0, 1, 3, 3, 2, 0]
    places = tree_places(upstream)
    lines = [(places[before], places[node]) for node, before in enumerate(upstream, start=1)]
    for a, b in lines:
        for c, d in lines:
            turns = [np.linalg.det([q - p, r - p]) for p, q, r in ((a, b, c), (a, b, d), (c, d, a), (c, d, b))]
            assert not (turns[0] * turns[1] < -1e-9 and turns[2] * turns[3] < -1e-9)
