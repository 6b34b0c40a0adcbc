"""Errors of a person's own world: told by world, agent, step and what was expected, soon, and nothing is left behind."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import psutil
import pytest
from typer.testing import CliRunner

import kappahop as kh
from coordinator.cli.app import app
from envs.checked import WorldError
from envs.interface import Drawable
from envs.registry import make, section
from scenarios.registry import WORLDS, allowing_code
from tests.envs.faulty import FAULTS

NAME = "tests.envs.faulty:WORLD"
SMALL: dict[str, Any] = {
    "rollout": {"steps": 10}, "budget": {"env_steps": 40}, "evaluation": {"every_rounds": 0}, "record": {"tensorboard": False},
    "algorithm": {"hidden": [8], "epochs": 1, "minibatches": 1},
}  # fmt: skip
WRONG = {
    "shape": "agent 1, step 7: observation: got shape (1, 2); expected (2, 2)",
    "width": "agent 1, step 7: observation: got shape (2, 4); expected (2, 2)",
    "dtype": "agent 1, step 7: observation: got float64; expected float32",
    "nan": "agent 1, step 7: observation: got nan in copy 1; expected finite numbers",
    "a list": "agent 1, step 7: observation: got list; expected an array (2, 2) of float32",
    "an agent less": "step 7: observation: got 2 blocks; expected a list of 3, one per agent",
    "reward": "step 7: reward: got shape (2,); expected (3, 2)",
    "infinite reward": "agent 2, step 7: reward: got inf in copy 1; expected finite numbers",
    "cost": "step 7: cost: got shape (3, 2, 1); expected (3, 2, 0)",
    "flags": "step 7: terminated: got int64; expected bool",
    "no end": "step 7: final_obs: got None where 2 episodes ended; expected observations where an episode ended, else None",
    "a tuple": "step 7: step: got tuple; expected an envs.interface.Transition",
    "exception": "step 7: step raised ZeroDivisionError: division by zero; expected no error",
    "first shape": "agent 0, step 0: observation: got shape (2, 1); expected (2, 2)",
    "another spec": "spec: got EnvSpec(obs_dims=(3, 3, 3)",
    "make raises": "make raised FileNotFoundError: map.json; expected no error",
    "spec raises": "spec raised KeyError: 'agents'; expected an EnvSpec",
    "spec": "expected an entry per agent in each list, edges that join all",
}


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    yield
    forget()


def forget() -> None:
    WORLDS._added.pop(NAME, None)
    WORLDS._resolved.pop(NAME, None)


def play(fault: str) -> None:
    with allowing_code():
        env = section(NAME, num_envs=2, fault=fault)
        world = make(env, nx.path_graph(3), seed=0)
    world.reset()
    for _ in range(9):
        world.step([np.ones((2, 1), np.float32)] * 3)


def test_every_fault_is_told_by_world_agent_step_and_what_was_expected(subtests: pytest.Subtests) -> None:
    assert FAULTS.keys() < WRONG.keys()
    play("none")
    for fault, told in WRONG.items():
        with subtests.test(fault=fault), pytest.raises(WorldError) as raised:
            play(fault)
        assert str(raised.value).startswith(f"world {NAME!r}")
        assert told in str(raised.value)


def test_a_picture_is_watched_too() -> None:
    with allowing_code():
        fine, wrong = (
            make(section(NAME, num_envs=2, fault=fault), nx.path_graph(3), seed=0, drawable=True) for fault in ("none", "frame")
        )
    assert isinstance(fine, Drawable)
    assert isinstance(wrong, Drawable)
    assert fine.frame(1).tolist() == np.ones((2, 3, 3)).tolist()
    with pytest.raises(WorldError, match=r"step 0: frame: got float64 \(2, 3, 3\); expected a picture, uint8"):
        wrong.frame(1)


def test_a_world_that_is_watched_goes_on_from_its_state() -> None:
    with allowing_code():
        env = section(NAME, num_envs=2)
        first, second = (make(env, nx.path_graph(3), seed=0) for _ in range(2))
    first.reset()
    act = [np.ones((2, 1), np.float32)] * 3
    first.step(act)
    second.restore(first.state())
    assert np.array_equal(first.step(act).obs[0], second.step(act).obs[0])


@pytest.mark.system
@pytest.mark.parametrize(("fault", "in_process"), [("nan", True), ("exception", False)])
def test_a_run_ends_with_the_same_sentence_soon_and_leaves_no_process(fault: str, in_process: bool, tmp_path: Path) -> None:
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    env = {"name": NAME, "num_envs": 2, "fault": fault, "noted": str(tmp_path / "noted")}
    with pytest.raises(kh.RunFailedError) as failed:
        kh.run("quickstart", out=tmp_path / "run", env=env, in_process=in_process, **SMALL)
    assert time.monotonic() - float((tmp_path / "noted").read_text(encoding="ascii")) < 10
    assert f"world {NAME!r}" in str(failed.value)
    assert WRONG[fault] in str(failed.value)
    assert {process.pid for process in psutil.Process().children(recursive=True)} <= before


def test_a_run_in_a_broken_environment_of_others_ends_so_too(tmp_path: Path) -> None:
    pytest.importorskip("pettingzoo")
    noted = tmp_path / "noted"
    make_kwargs = {"fault": "nan", "noted": str(noted)}
    env = {"name": "pettingzoo", "num_envs": 2, "make": "tests.envs.adapters.fakes:Faulty", "make_kwargs": make_kwargs}
    with pytest.raises(kh.RunFailedError, match="agent timed, copy 0, episode 1, step 2: observation: got nan; expected finite"):
        kh.run("quickstart", out=tmp_path / "run", env=env, in_process=True, **SMALL)
    assert time.monotonic() - float(noted.read_text(encoding="ascii")) < 10


def test_check_world_says_which_clause_is_broken() -> None:
    def checked(*words: str) -> Any:
        return CliRunner().invoke(app, ["check", "world", NAME, "--allow-code", *words])

    told = checked("env.fault=nan")
    assert told.exit_code == 1
    assert "agent 1, step 7: observation: got nan in copy 1; expected finite numbers" in told.stderr.replace("\n", " ")
    fine = checked("env.num_envs=2")
    assert fine.output == f"world {NAME}: all 27 clauses hold (3 agents, one reward for all, random)\n"
    forget()
    refused = CliRunner().invoke(app, ["check", "world", NAME])
    assert refused.exit_code == 2
    assert "reading a scenario must not run code" in refused.stderr.replace("\n", " ")
