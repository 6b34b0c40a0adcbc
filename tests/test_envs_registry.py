"""Names, shapes and refusals of the registry."""

import subprocess
import sys

import networkx as nx
import pytest

from envs.registry import make, spec
from scenarios.schema import Env


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"name": "safe_halfcheetah", "partition": "5x1"}, r"env\.partition: got '5x1'; safe_halfcheetah has 2x3, 3x2, 6x1"),
        ({"name": "safe_ant", "partition": "6x1"}, r"env\.partition: got '6x1'; safe_ant has 2x4, 2x4d, 4x2, 8x1"),
        ({"name": "safe_halfcheetah", "walls": "static"}, r"env\.walls: got 'static'; safe_halfcheetah has none"),
        ({"name": "velocity_ant", "partition": "4x2", "walls": "free"}, r"env\.walls: got 'free'"),
        ({"name": "network_lq", "partition": "20x1", "walls": "static"}, r"env\.walls: got 'static'; network_lq has none"),
        ({"name": "network_lq", "partition": "20x1", "observation": "reference"}, r"env\.observation: got 'reference'"),
        ({"name": "network_lq", "partition": "20x1", "cost": "local"}, r"env\.cost: got 'local'"),
        ({"name": "network_lq", "partition": "20x1", "action_map": "reference"}, r"env\.action_map: got 'reference'"),
        ({"name": "network_lq", "partition": "0x1"}, r"env\.partition: got '0x1'"),
        ({"name": "network_lq", "partition": "1025x1"}, r"1\.\.1024"),
        ({"name": "network_lq", "partition": "5x2"}, r"env\.partition: got '5x2'"),
        ({"name": "network_lq", "partition": "5x"}, r"env\.partition: got '5x'"),
        ({"name": "network_lq", "partition": "²x1"}, r"env\.partition"),
    ],
)
def test_senseless_knobs_are_refused(knobs: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        spec(Env.model_validate(knobs))


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
    ],
)
def test_widths_of_observations(name: str, partition: str, own: int, full: int, reference: int) -> None:
    for observation, width in (("own", own), ("full", full), ("reference", reference)):
        shape = spec(Env.model_validate({"name": name, "partition": partition, "observation": observation}))
        assert set(shape.obs_dims) == {width}


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
