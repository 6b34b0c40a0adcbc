"""What a run cannot begin with is refused before anything starts, in a sentence that names both sides."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import kappahop as kh
from coordinator.records.plan import plan
from coordinator.study.grid import cells
from scenarios.loading import ScenarioError

SMALL: dict[str, Any] = {
    "env.name": "network_lq", "env.agents": 3, "env.num_envs": 2, "rollout.steps": 4, "budget.env_steps": 8,
    "topology.kind": "line", "algorithm.hidden": [6], "algorithm.minibatches": 1, "record.tensorboard": False,
    "evaluation.every_rounds": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> kh.Run:
    return kh.run("quickstart", out=tmp_path_factory.mktemp("origin") / "run", in_process=True, **SMALL)


def refusal(origin: kh.Run | Path, **settings: Any) -> str:
    with pytest.raises(ScenarioError) as told:
        plan(kh.load_scenario("quickstart", **SMALL | {"init_from": origin} | settings))
    return str(told.value)


GAME = {"env.name": "stochastic_game", "env.agents": 3, "algorithm.name": "dpo"}
REFUSED: list[tuple[dict[str, Any], str]] = [
    (GAME, "a run with env.name network_lq; expected stochastic_game, as this run has"),
    ({"env.agents": 4}, "a run with a number of agents of 3; expected 4"),
    ({"algorithm.hidden": [6, 6]}, r"a run with algorithm.hidden \[6\]; expected \[6, 6\]"),
    ({"algorithm.input_norm": "none"}, "a run with algorithm.input_norm running; expected none"),
    ({"algorithm.name": "iql"}, "a run with algorithm.target advantage; expected q"),
    ({"algorithm.name": "mappo", "algorithm.critic_scope": "central"}, r"a run with a central critic \(.*\): no; expected yes"),
    ({"algorithm.consensus": "critic", "topology.kind": "ring"}, r"a run with critics in consensus \(.*\): no; expected yes"),
    ({"env.control_limit": 0.22}, r"a run with a number of cost critics \(algorithm.constraint\) of 0; expected 1"),
]


@pytest.mark.parametrize(("settings", "told"), REFUSED)
def test_what_does_not_fit_is_refused(origin: kh.Run, settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ScenarioError, match=f"^init_from: got {origin.folder.resolve()}, {told}"):
        plan(kh.load_scenario("quickstart", **SMALL | {"init_from": origin} | settings))


def test_another_algorithm_of_the_same_networks_is_taken(origin: kh.Run) -> None:
    ready = plan(kh.load_scenario("quickstart", **SMALL | {"init_from": origin, "algorithm.name": "mappo_l"}))
    assert ready.origin == origin.folder.resolve()


@pytest.mark.parametrize(
    ("team", "told"),
    [
        ({"algorithm.input_norm": "layer"}, "algorithm.input_norm layer"),
        (
            GAME | {"algorithm.name": "iql", "algorithm.actor_scope": "khop", "algorithm.critic_scope": "khop"}
            | {"algorithm.off_policy.representation": "table"},
            "algorithm.off_policy.representation table",
        ),
    ],
)  # fmt: skip
def test_networks_that_take_all_inputs_as_one_need_the_same_ones(tmp_path: Path, team: dict[str, Any], told: str) -> None:
    origin = kh.run("quickstart", out=tmp_path / "run", in_process=True, **SMALL | team | {"kappa": 0})
    said = refusal(origin, **team, kappa=1)
    assert f"a run with {told} where agent 0 takes the states of agents [0]; expected [0, 1], as this run has" in said
    assert plan(kh.load_scenario("quickstart", **SMALL | team | {"kappa": 0, "init_from": origin})).origin is not None


def test_only_a_finished_run_whose_numbers_are_finite_is_taken(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    assert refusal(nowhere) == f"init_from: got {nowhere}; expected the folder of a finished run, with its scenario.yaml"
    stopped = kh.run(
        "quickstart", out=tmp_path / "stopped", in_process=True, on_round=lambda one: False, **SMALL | {"budget.env_steps": 80}
    )
    assert "lacks weights of agents [0, 1, 2]" in refusal(stopped)
    broken = kh.run("quickstart", out=tmp_path / "broken", in_process=True, **SMALL)
    path = broken.folder / "checkpoints" / "final" / "agent-1.safetensors"
    tensors = load_file(path)
    tensors["actor"][0] = np.nan
    save_file(tensors, path)
    assert refusal(broken).endswith("weights of its agents [1] are not finite, so it has diverged")


def test_a_sweep_may_vary_what_its_runs_begin_with(origin: kh.Run) -> None:
    words = [f"{key}={value}".replace(" ", "") for key, value in SMALL.items()]
    found = cells("quickstart", [*words, f"init_from={origin.folder},null", "kappa=0,1"], [0])
    assert [cell.keys["init_from"] for cell in found] == [str(origin.folder.resolve())] * 2 + [None] * 2
