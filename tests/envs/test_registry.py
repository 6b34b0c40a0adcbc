"""Names, shapes and refusals of the registry."""

import subprocess
import sys
from typing import Any

import networkx as nx
import pytest

from envs.registry import make, spec
from scenarios.schema import Env


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "safe_halfcheetah", "partition": "5x1"}, r"env\.partition: got '5x1'; safe_halfcheetah has 2x3, 3x2, 6x1"),
        ({"name": "safe_ant", "partition": "6x1"}, r"env\.partition: got '6x1'; safe_ant has 2x4, 2x4d, 4x2, 8x1"),
        ({"name": "safe_halfcheetah", "walls": "static"}, r"env\.walls: got 'static'; safe_halfcheetah has none"),
        ({"name": "velocity_ant", "partition": "4x2", "walls": "free"}, r"env\.walls: got 'free'"),
        ({"name": "network_lq", "partition": "20x1", "walls": "static"}, r"env\.walls: got 'static'; network_lq has none"),
        ({"name": "network_lq", "partition": "20x1", "observation": "reference"}, r"env\.observation: got 'reference'"),
        ({"name": "network_lq", "partition": "20x1", "cost": "local"}, r"env\.cost: got 'local'"),
        ({"name": "network_lq", "partition": "20x1", "action_map": "reference"}, r"env\.action_map: got 'reference'"),
        ({"name": "mamujoco_ant", "partition": "4x2", "observation": "reference"}, r"'reference'; mamujoco_ant has own, full"),
        (
            {"name": "mamujoco_hopper", "partition": "3x1", "cost": "local"},
            r"env\.cost: got 'local'; mamujoco_hopper has no cost",
        ),
        ({"name": "mamujoco_swimmer", "partition": "2x1", "walls": "free"}, r"env\.walls: got 'free'; mamujoco_swimmer has none"),
        ({"name": "mamujoco_humanoid", "partition": "8|9"}, r"env\.partition: got '8\|9'; mamujoco_humanoid has 9\|8, 17x1"),
        ({"name": "matrix_game", "partition": "3x1"}, r"env\.partition: got '3x1'; matrix_game has 2x1"),
        ({"name": "sharing_game", "partition": "13x1"}, r"env\.partition: got '13x1'; sharing_game has Nx1 with N in 2\.\.12"),
        ({"name": "truncation_chain", "partition": "7x1"}, r"2\.\.6"),
        ({"name": "stochastic_game", "partition": "8x1"}, r"env\.partition: got '8x1'; with env\.game\.states=30"),
        ({"name": "stage_game", "partition": "2x1", "game": {"stages": 5}}, r"env\.game\.encoding: got 'one_hot'; 66430 states"),
        ({"name": "stage_game", "partition": "2x1", "observation": "reference"}, r"env\.observation: got 'reference'"),
        (
            {"name": "differential_game", "partition": "6x1"},
            r"env\.partition: got '6x1'; differential_game has Nx1 with N in 1\.\.5",
        ),
        ({"name": "differential_game", "partition": "3x1", "game": {"landscape": "basin"}}, r"differential_game has 2x1"),
        ({"name": "network_lq", "partition": "0x1"}, r"env\.partition: got '0x1'"),
        ({"name": "network_lq", "partition": "1025x1"}, r"1\.\.1024"),
        ({"name": "network_lq", "partition": "5x2"}, r"env\.partition: got '5x2'"),
        ({"name": "network_lq", "partition": "5x"}, r"env\.partition: got '5x'"),
        ({"name": "network_lq", "partition": "²x1"}, r"env\.partition"),
    ],
)
def test_senseless_knobs_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        spec(Env.model_validate(settings))


def test_graph_must_have_the_agents_as_nodes() -> None:
    with pytest.raises(ValueError, match=r"nodes 0\.\.5"):
        make(Env(), nx.path_graph(5), 0)


@pytest.mark.parametrize(
    ("name", "partition", "own", "full", "reference"),
    [
        ("safe_ant", "4x2", 2 * 2 + 13, 29, 29 + 4),
        ("safe_ant", "8x1", 2 * 1 + 13, 29, 29 + 8),
        ("safe_halfcheetah", "6x1", 2 * 1 + 8, 20, 20 + 6),
        ("safe_manyagent_ant", "6x1", 2 * 4 + 13, 13 + 8 * 6, 9 + 6),
        ("safe_manyagent_ant", "4x2", 2 * 8 + 13, 13 + 8 * 8, 25 + 4),
        ("velocity_ant", "2x4", 2 * 4 + 11, 27, 27 + 2),
        ("velocity_halfcheetah", "2x3", 2 * 3 + 5, 17, 17 + 2),
        ("mamujoco_halfcheetah", "6x1", 2 * 1 + 5, 17, 17 + 6),
        ("mamujoco_walker2d", "3x2", 2 * 2 + 5, 17, 17 + 3),
        ("mamujoco_hopper", "3x1", 2 * 1 + 5, 11, 11 + 3),
        ("mamujoco_swimmer", "2x1", 2 * 1 + 4, 8, 8 + 2),
    ],
)
def test_widths_of_observations(name: str, partition: str, own: int, full: int, reference: int) -> None:
    for observation, width in (("own", own), ("full", full), ("reference", reference)):
        shape = spec(Env.model_validate({"name": name, "partition": partition, "observation": observation}))
        assert set(shape.obs_dims) == {width}


@pytest.mark.parametrize(
    ("name", "partition", "settings", "widths", "n_discrete", "horizon"),
    [
        ("mamujoco_ant", "4x2", {}, (2 * 2 + 11,) * 4, (0,) * 4, 1000),
        ("mamujoco_humanoid", "9|8", {}, (2 * 9 + 11, 2 * 8 + 11), (0, 0), 1000),
        ("mamujoco_humanoid", "17x1", {"observation": "full"}, (45,) * 17, (0,) * 17, 1000),
        ("matrix_game", "2x1", {}, (1, 1), (3, 3), 1),
        ("matrix_game", "2", {"game": {"payoff": "miscoordination", "encoding": "index"}}, (1, 1), (2, 2), 1),
        ("sharing_game", "4x1", {}, (1,) * 4, (2,) * 4, 1),
        ("stage_game", "2x1", {}, (820, 820), (3, 3), 3),
        ("stage_game", "2x1", {"game": {"stages": 4}}, (7381, 7381), (3, 3), 4),
        ("stage_game", "2x1", {"game": {"stages": 5, "encoding": "index"}}, (1, 1), (3, 3), 5),
        ("stochastic_game", "3x1", {}, (30,) * 3, (5,) * 3, 30),
        ("truncation_chain", "5x1", {}, (2,) * 5, (2,) * 5, 50),
        ("truncation_chain", "5x1", {"observation": "full"}, (10,) * 5, (2,) * 5, 50),
        ("truncation_chain", "5x1", {"observation": "full", "game": {"encoding": "index"}}, (5,) * 5, (2,) * 5, 50),
        ("differential_game", "4x1", {}, (1,) * 4, (0,) * 4, 100),
        ("differential_game", "4x1", {"observation": "full"}, (4,) * 4, (0,) * 4, 100),
        ("differential_game", "2x1", {"observation": "full", "game": {"landscape": "basin"}}, (1, 1), (0, 0), 1),
    ],
)
def test_shapes_of_worlds_without_cost(
    name: str, partition: str, settings: dict[str, Any], widths: tuple[int, ...], n_discrete: tuple[int, ...], horizon: int
) -> None:
    shape = spec(Env.model_validate({"name": name, "partition": partition, **settings}))
    assert (shape.obs_dims, shape.n_discrete, shape.horizon) == (widths, n_discrete, horizon)
    assert (shape.cost_limits, shape.n_costs) == ((), 0)


@pytest.mark.parametrize(
    ("name", "partition", "edges"),
    [
        ("stochastic_game", "3x1", ((0, 1), (0, 2), (1, 2))),
        ("truncation_chain", "4x1", ((0, 1), (1, 2), (2, 3))),
        ("differential_game", "3x1", ((0, 1), (0, 2), (1, 2))),
    ],
)
def test_games_are_complete_graphs_and_the_chain_a_path(name: str, partition: str, edges: tuple[tuple[int, int], ...]) -> None:
    assert spec(Env.model_validate({"name": name, "partition": partition})).edges == edges


@pytest.mark.parametrize(
    ("name", "partition", "limit"),
    [
        ("safe_ant", "4x2", 50.0), ("safe_ant", "8x1", 70.0), ("safe_halfcheetah", "2x3", 30.0),
        ("safe_manyagent_ant", "3x2", 25.0), ("safe_manyagent_ant", "2x4", 80.0), ("velocity_ant", "8x1", 25.0),
    ],
)  # fmt: skip
def test_cost_limits(name: str, partition: str, limit: float) -> None:
    assert spec(Env.model_validate({"name": name, "partition": partition})).cost_limits == (limit,)


def test_describing_a_world_does_not_load_mujoco() -> None:
    code = (
        "import sys; from envs.registry import spec; from scenarios.schema import Env; "
        "spec(Env()); assert 'mujoco' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)
