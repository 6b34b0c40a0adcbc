"""Names, shapes and refusals of the registry."""

import subprocess
import sys
from typing import Any

import networkx as nx
import pytest
from pydantic import ValidationError

from envs.adapters.settings import ImportedEnv
from envs.interface import World
from envs.registry import make, section, spec, world_of
from envs.robots.tasks import TASKS
from envs.settings import TeamEnv
from scenarios.loading import world_settings
from scenarios.registry import WORLDS
from scenarios.schema import OpaqueEnv


def test_what_a_world_cannot_do_is_refused(subtests: pytest.Subtests) -> None:
    rows: list[tuple[str, dict[str, Any], str]] = [
        ("safe_halfcheetah", {"partition": "5x1"}, r"env\.partition: got '5x1'; safe_halfcheetah has 2x3, 3x2, 6x1"),
        ("safe_ant", {"partition": "6x1"}, r"env\.partition: got '6x1'; safe_ant has 2x4, 2x4d, 4x2, 8x1"),
        ("mamujoco_humanoid", {"partition": "8|9"}, r"env\.partition: got '8\|9'; mamujoco_humanoid has 9\|8, 17x1"),
        ("mamujoco_ant", {"partition": "4x2", "observation": "reference"}, r"'reference'; mamujoco_ant has own, full"),
        ("stochastic_game", {"agents": 8}, r"env\.agents: got 8; with env\.states=30"),
        ("stage_game", {"stages": 5}, r"env\.encoding: got 'one_hot'; 66430 states"),
    ]
    for name, settings, message in rows:
        with subtests.test(settings=settings), pytest.raises(ValueError, match=message):
            spec(section(name, **settings))


def test_a_world_has_only_so_many_agents(subtests: pytest.Subtests) -> None:
    rows: list[tuple[str, int, int]] = [
        ("network_lq", 1, 1024),
        ("matrix_game", 2, 2),
        ("sharing_game", 2, 12),
        ("stage_game", 2, 2),
        ("stochastic_game", 1, 8),
        ("truncation_chain", 2, 6),
        ("differential_game", 1, 5),
    ]
    for name, least, most in rows:
        with subtests.test(name=name):
            assert spec(section(name, agents=least)).n_agents == least
            for agents in (least - 1, most + 1):
                with pytest.raises(ValidationError, match=rf"agents\n.* equal to .*input_value={agents},"):
                    section(name, agents=agents)


def test_the_basin_is_for_two() -> None:
    with pytest.raises(ValueError, match="agents: got 3; with landscape 'basin' there are 2"):
        section("differential_game", agents=3, landscape="basin")


def test_a_world_has_no_settings_of_others(subtests: pytest.Subtests) -> None:
    rows: list[tuple[str, str]] = [
        ("safe_halfcheetah", "walls"),
        ("velocity_ant", "walls"),
        ("mamujoco_hopper", "cost"),
        ("mamujoco_swimmer", "agents"),
        ("network_lq", "walls"),
        ("network_lq", "partition"),
        ("network_lq", "action_map"),
        ("matrix_game", "seed"),
        ("stage_game", "observation"),
        ("stochastic_game", "payoff"),
        ("differential_game", "encoding"),
    ]
    for name, setting in rows:
        told = rf"{setting}\n.*not permitted"
        with subtests.test(name=name, setting=setting), pytest.raises(ValidationError, match=told):
            section(name, **{setting: "none"})


def test_every_world_of_ours_can_be_described_with_its_default_number_of_agents(subtests: pytest.Subtests) -> None:
    for name in WORLDS.own:
        with subtests.test(name=name):
            if issubclass(world_settings(name), ImportedEnv):
                with pytest.raises(ValueError, match=r"env\.make: got ''; expected a registered name"):
                    spec(section(name))
                continue
            settings = section(name, **({"partition": next(iter(TASKS[name].partitions))} if name in TASKS else {}))
            assert isinstance(world_of(settings), World)
            assert spec(settings).n_agents == (
                settings.n_agents if isinstance(settings, TeamEnv) else len(spec(settings).act_dims)
            )


def test_a_section_that_was_not_read_with_the_worlds_settings_is_refused() -> None:
    with pytest.raises(ValueError, match="env: got OpaqueEnv; the settings of network_lq are LQ"):
        spec(OpaqueEnv(name="network_lq"))


def test_graph_must_have_the_agents_as_nodes() -> None:
    with pytest.raises(ValueError, match=r"nodes 0\.\.5"):
        make(section(), nx.path_graph(5), 0)


def test_widths_of_observations(subtests: pytest.Subtests) -> None:
    rows: list[tuple[str, str, int, int, int]] = [
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
    ]
    for name, partition, own, full, reference in rows:
        with subtests.test(name=name):
            for observation, width in (("own", own), ("full", full), ("reference", reference)):
                shape = spec(section(name, partition=partition, observation=observation))
                assert set(shape.obs_dims) == {width}


def test_shapes_of_worlds_without_cost(subtests: pytest.Subtests) -> None:
    rows: list[tuple[str, dict[str, Any], tuple[int, ...], tuple[int, ...], int]] = [
        ("mamujoco_ant", {"partition": "4x2"}, (2 * 2 + 11,) * 4, (0,) * 4, 1000),
        ("mamujoco_humanoid", {"partition": "9|8"}, (2 * 9 + 11, 2 * 8 + 11), (0, 0), 1000),
        ("mamujoco_humanoid", {"partition": "17x1", "observation": "full"}, (45,) * 17, (0,) * 17, 1000),
        ("matrix_game", {"agents": 2}, (1, 1), (3, 3), 1),
        ("matrix_game", {"agents": 2, "payoff": "miscoordination", "encoding": "index"}, (1, 1), (2, 2), 1),
        ("sharing_game", {"agents": 4}, (1,) * 4, (2,) * 4, 1),
        ("stage_game", {"agents": 2}, (820, 820), (3, 3), 3),
        ("stage_game", {"agents": 2, "stages": 4}, (7381, 7381), (3, 3), 4),
        ("stage_game", {"agents": 2, "stages": 5, "encoding": "index"}, (1, 1), (3, 3), 5),
        ("stochastic_game", {"agents": 3}, (30,) * 3, (5,) * 3, 30),
        ("truncation_chain", {"agents": 5}, (2,) * 5, (2,) * 5, 50),
        ("truncation_chain", {"agents": 5, "observation": "full"}, (10,) * 5, (2,) * 5, 50),
        ("truncation_chain", {"agents": 5, "observation": "full", "encoding": "index"}, (5,) * 5, (2,) * 5, 50),
        ("differential_game", {"agents": 4}, (1,) * 4, (0,) * 4, 100),
        ("differential_game", {"agents": 4, "observation": "full"}, (4,) * 4, (0,) * 4, 100),
        ("differential_game", {"agents": 2, "observation": "full", "landscape": "basin"}, (1, 1), (0, 0), 1),
    ]
    for name, settings, widths, n_discrete, horizon in rows:
        with subtests.test(name=name):
            shape = spec(section(name, **settings))
            assert (shape.obs_dims, shape.n_discrete, shape.horizon) == (widths, n_discrete, horizon)
            assert (shape.cost_limits, shape.n_costs) == ((), 0)


def test_games_are_complete_graphs_and_the_chain_a_path(subtests: pytest.Subtests) -> None:
    rows: list[tuple[str, int, tuple[tuple[int, int], ...]]] = [
        ("stochastic_game", 3, ((0, 1), (0, 2), (1, 2))),
        ("truncation_chain", 4, ((0, 1), (1, 2), (2, 3))),
        ("differential_game", 3, ((0, 1), (0, 2), (1, 2))),
    ]
    for name, agents, edges in rows:
        with subtests.test(name=name):
            assert spec(section(name, agents=agents)).edges == edges


def test_cost_limits(subtests: pytest.Subtests) -> None:
    rows: list[tuple[str, str, float]] = [
        ("safe_ant", "4x2", 50.0),
        ("safe_ant", "8x1", 70.0),
        ("safe_halfcheetah", "2x3", 30.0),
        ("safe_manyagent_ant", "3x2", 25.0),
        ("safe_manyagent_ant", "2x4", 80.0),
        ("velocity_ant", "8x1", 25.0),
    ]
    for name, partition, limit in rows:
        with subtests.test(name=name):
            assert spec(section(name, partition=partition)).cost_limits == (limit,)


def test_describing_a_world_does_not_load_mujoco() -> None:
    code = "import sys; from envs.registry import section, spec; spec(section()); assert 'mujoco' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)
