"""The section `env`: read with the settings of the world that it names, and by whom it is left unread."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from coordinator.records.plan import make_run_dir, plan
from scenarios.loading import ScenarioError, check, dump, load
from scenarios.reference import json_schema
from scenarios.registry import WORLDS
from scenarios.schema import Env

LQ = ["env.name=network_lq", "env.agents=3"]


def env(scenario: Any) -> dict[str, Any]:
    found: dict[str, Any] = scenario.env.model_dump()
    return found


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["env.walls=static"], "env.walls: unknown key; this world has name, num_envs, horizon, stagger, partition, "),
        (["env.name=network_lq", "env.alphas=1"], "env.alphas: unknown key, did you mean 'env.alpha'?; this world has "),
        (["env.name=network_lqq"], "env.name: got 'network_lqq', did you mean 'network_lq'?; expected one of safe_ant, "),
        (["env.name=3"], "env.name: got 3; input should be a valid string"),
        (["env.copies=4"], "env.copies: no longer a setting; it is called env.num_envs now, so write env.num_envs=4"),
        (["env.name=stochastic_game", "env.choices=4"], "env.choices: no longer a setting; it is called env.n_discrete now, so "
         "write env.n_discrete=4"),
        ([*LQ, "env.lq.beta=1"], "env.lq.beta: no longer a setting; settings of a world stand in env itself now, so"),
        ([*LQ, "env.game.seed=1"], "env.game.seed: no longer a setting; settings of a world stand in env itself now, so"),
        ([*LQ, "env.partition=4x1"], "env.partition: no longer a setting; a world without robots has a number of agents now, so "
         "write env.agents=4"),
    ],
)  # fmt: skip
def test_a_key_that_the_world_does_not_have_is_told(words: list[str], message: str) -> None:
    with pytest.raises(ScenarioError) as told:
        load("quickstart", words)
    assert message in str(told.value)


def test_in_a_file_they_are_told_as_well() -> None:
    with pytest.raises(ScenarioError) as told:
        check({"env": {"name": "network_lq", "copies": 4, "lq": {"beta": 1}, "partition": "4x1", "wals": 1}}, where="here")
    for part in ("write env.num_envs=4", "write env.KEY, without 'lq'", "write env.agents=4", "env.wals: unknown key"):
        assert part in str(told.value)


def test_another_world_on_the_command_line_takes_over_what_both_have(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("env: {name: safe_ant, partition: 2x4, walls: free, num_envs: 3, reward: local}\n")
    other = env(load(str(path), ["env.name=velocity_ant"]))
    assert (other["partition"], other["num_envs"], other["reward"]) == ("2x4", 3, "local")
    assert "walls" not in other
    assert "partition" not in env(load(str(path), ["env.name=network_lq"]))
    there_and_back = ["env.name=network_lq", "env.agents=3", "env.name=velocity_ant"]
    assert env(load(str(path), there_and_back)) == other
    with pytest.raises(ScenarioError, match=r"env\.agents: unknown key"):
        load(str(path), ["env.name=velocity_ant", "env.agents=3"])
    path.write_text("env: {name: safe_ant, wals: free}\n")
    with pytest.raises(ScenarioError, match=r"env\.wals: unknown key"):  # what neither has is a mistake still
        load(str(path), ["env.name=network_lq"])


def test_without_its_world_a_section_keeps_what_it_does_not_know(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(dump(load("lq_limited")))
    unread = load(str(path), resolve_worlds=False)
    assert unread.env.num_envs == 32
    assert env(unread) == env(load("lq_limited"))
    assert dump(unread) == dump(load("lq_limited"))


def test_a_node_imports_no_world(tmp_path: Path) -> None:
    make_run_dir(tmp_path / "run", plan(load("quickstart", LQ)))
    code = (
        "import sys; from pathlib import Path; sys.modules['envs'] = None\n"  # importing it raises ImportError
        "from node import process\nfrom topology.deployment import Deployment\n"
        "run = Path(sys.argv[1])\n"
        "process.Node(run, process.load(str(run / 'scenario.yaml'), resolve_worlds=False), Deployment.read(run), 0)\n"
        "def stop(*_): raise SystemExit(7)\n"
        "process.settle = stop\n"  # what comes after the scenario has been read
        "process.run_node(run, 0, 'ipc://nowhere', 'ipc://nowhere')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "run")], timeout=60, check=False, capture_output=True, text=True
    )
    assert done.returncode == 7, done.stderr


OLDER = {
    "name": "network_lq", "partition": "4x1", "copies": 7, "horizon": 20, "stagger": True, "walls": "none", "observation": "own",
    "reward": "local", "cost": "team", "action_map": "by_name", "threads": 0,
    "lq": {"alpha": 0.4, "beta": "auto", "control_weight": 30.0, "noise_std": 1.0, "control_limit": None},
    "game": {"payoff": "climbing", "penalty": -100.0, "stages": 3, "states": 12, "choices": 5, "reward_range": 5.0,
             "transition": "softmax", "start": "first", "coupling": 0.15, "landscape": "ring", "encoding": "one_hot", "seed": 4},
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, {"name": "network_lq", "agents": 4, "num_envs": 7, "horizon": 20, "reward": "local", "alpha": 0.4}),
        (
            {"name": "stochastic_game"},
            {"name": "stochastic_game", "agents": 4, "num_envs": 7, "states": 12, "n_discrete": 5, "seed": 4},
        ),
        ({"name": "safe_ant", "partition": "2x4"}, {"name": "safe_ant", "partition": "2x4", "num_envs": 7, "walls": "none"}),
        ({"name": "mamujoco_humanoid", "partition": "9|8"}, {"name": "mamujoco_humanoid", "partition": "9|8", "num_envs": 7}),
    ],
)
def test_the_scenario_of_an_older_run_is_read(changes: dict[str, Any], found: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "scenario.yaml"
    path.write_text(yaml.safe_dump({"env": OLDER | changes}))
    assert found.items() <= env(load(str(path))).items()
    assert load(str(path), resolve_worlds=False).env.num_envs == 7


def test_runs_in_different_worlds_are_told_apart_by_what_either_has(tmp_path: Path, record_run: Callable[..., Path]) -> None:
    from coordinator.study.runs import cells, find

    record_run(tmp_path / "a", "env.beta=0.1", returns=[1.0] * 8)
    record_run(tmp_path / "b", "env.name=matrix_game", "env.payoff=penalty", "algorithm.name=ippo", returns=[1.0] * 8)
    first, second = cells(find([tmp_path]))
    told = {cell.settings["env.name"]: cell.settings for cell in (first, second)}
    assert told["network_lq"]["env.beta"] == 0.1
    assert told["network_lq"]["env.payoff"] is None
    assert told["matrix_game"]["env.payoff"] == "penalty"
    assert told["matrix_game"]["env.beta"] is None


def test_the_json_schema_tells_worlds_apart_by_name() -> None:
    schema = json_schema()
    sections = [schema["$defs"][one["$ref"].rpartition("/")[2]] for one in schema["properties"]["env"]["anyOf"]]
    names = [name for section in sections for name in section["properties"]["name"]["enum"]]
    assert sorted(names) == sorted(WORLDS.own)
    by_name = {name: section for section in sections for name in section["properties"]["name"]["enum"]}
    assert "name" not in by_name["safe_halfcheetah"].get("required", ())
    assert "name" in by_name["network_lq"]["required"]
    assert "beta" in by_name["network_lq"]["properties"]
    assert "beta" not in by_name["stage_game"]["properties"]
    assert all(not section["additionalProperties"] for section in sections)
    assert Env.model_fields.keys() <= by_name["stage_game"]["properties"].keys()
