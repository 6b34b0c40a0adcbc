"""Runs that begin with what another run has learnt: the same team at first, and independent of the other run afterwards."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kappahop as kh
from coordinator.records.plan import make_run_dir, plan
from node.learners.beginning import load_weights
from node.learners.policy import Policy
from node.process import Node
from topology.deployment import CENTRAL_WEIGHTS

SMALL: dict[str, Any] = {
    "env.num_envs": 2, "env.horizon": 11, "rollout.steps": 8, "budget.env_steps": 48, "topology.kind": "line",
    "algorithm.hidden": [6], "algorithm.epochs": 2, "algorithm.minibatches": 2, "record.tensorboard": False,
    "record.state_rounds": 1, "evaluation.every_rounds": 0,
}  # fmt: skip
LQ: dict[str, Any] = {"env.name": "network_lq", "env.agents": 4}
GAME: dict[str, Any] = {"env.name": "stochastic_game", "env.agents": 4, "env.horizon": 5}
VALUES: dict[str, Any] = {
    "algorithm.off_policy.warm_up_steps": 16, "algorithm.off_policy.batch": 8, "algorithm.off_policy.buffer": 50,
    "algorithm.actor_scope": "khop", "algorithm.critic_scope": "khop",
}  # fmt: skip
RECURRENT = {"algorithm.off_policy.representation": "recurrent", "algorithm.off_policy.burn_in": 3}
TEAMS: dict[str, dict[str, Any]] = {
    "numbers": LQ | {"algorithm.name": "scal_mappo_l"},
    "choices": GAME | {"algorithm.name": "dpo", "algorithm.actor_scope": "khop", "algorithm.input_norm": "none"},
    "model": LQ | {"algorithm.name": "mdpo", "algorithm.objective": "clip", "algorithm.world_model.passes": 1}
        | {"algorithm.actor_scope": "khop", "algorithm.critic_scope": "khop"},
    "values of choices": GAME | VALUES | {"algorithm.name": "iql"},
    "values of numbers": LQ | VALUES | {"algorithm.name": "iql"},
    "memories": GAME | VALUES | RECURRENT | {"algorithm.name": "iql"},
}  # fmt: skip


def trained(folder: Path, **settings: Any) -> kh.Run:
    return kh.run("quickstart", out=folder, in_process=True, **SMALL | settings)


def begun(folder: Path, origin: kh.Run, **settings: Any) -> list[Policy]:
    """The policies of a run before its first round; its weights then are stored as its final ones."""
    ready = plan(kh.load_scenario("quickstart", init_from=origin, **SMALL | settings))
    make_run_dir(folder, ready)
    agents = range(ready.deployment.n_agents)
    for agent in agents:
        Node(folder, ready.scenario, ready.deployment, agent).conclude()
    final = folder / "checkpoints" / "final"
    return [Policy(ready.scenario, ready.deployment, agent, load_weights(final, agent)) for agent in agents]


def blocks(run: kh.Run, seed: int = 0) -> list[np.ndarray]:
    """Observations (9, d_i) of every agent."""
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((9, width), np.float32) for width in run._stored.deployment.obs_dims]


@pytest.mark.parametrize("team", TEAMS)
def test_with_more_neighbours_agents_first_act_as_the_others_did(tmp_path: Path, team: str) -> None:
    origin = trained(tmp_path / "origin", kappa=0, **TEAMS[team])
    policies = begun(tmp_path / "run", origin, kappa=2, **TEAMS[team])
    assert [policy.agents for policy in policies] == [(0, 1, 2), (0, 1, 2, 3), (0, 1, 2, 3), (1, 2, 3)]
    seen = blocks(origin)
    for policy in policies:
        before = origin.policy(policy.agent)
        np.testing.assert_allclose(policy(policy.gather(seen)), before(before.gather(seen)), rtol=1e-4, atol=1e-5)


def test_with_fewer_neighbours_agents_first_act_as_if_those_gone_were_at_their_mean(tmp_path: Path) -> None:
    origin = trained(tmp_path / "origin", kappa=1, **TEAMS["numbers"])
    policies = begun(tmp_path / "run", origin, kappa=0, **TEAMS["numbers"])
    seen = blocks(origin)
    for policy in policies:
        before = origin.policy(policy.agent)
        offset, scale = load_weights(origin.folder / "checkpoints" / "final", policy.agent)["actor_inputs"].numpy()
        means = np.split(-offset / scale, np.cumsum([seen[i].shape[1] for i in before.agents])[:-1])
        rows = list(seen)
        for agent, mean in zip(before.agents, means, strict=True):
            if agent != policy.agent:
                rows[agent] = np.tile(mean.astype(np.float32), (9, 1))
        np.testing.assert_allclose(policy(policy.gather(seen)), before(before.gather(rows)), rtol=1e-4, atol=1e-4)


def test_on_another_graph_blocks_are_found_by_the_agent_that_they_are_of(tmp_path: Path) -> None:
    origin = trained(tmp_path / "origin", kappa=1, **TEAMS["numbers"])
    policies = begun(tmp_path / "run", origin, kappa=1, **TEAMS["numbers"] | {"topology.kind": "ring"})
    seen, other = blocks(origin), blocks(origin, seed=1)
    policy, before = policies[3], origin.policy(3)
    assert (before.agents, policy.agents) == ((2, 3), (0, 2, 3))
    seen[0] = other[0]  # which the policy of the line has never seen
    np.testing.assert_allclose(policy(policy.gather(seen)), before(before.gather(seen)), rtol=1e-4, atol=1e-5)


EQUAL: dict[str, dict[str, Any]] = {
    "numbers": TEAMS["numbers"] | {"env.control_limit": 0.1},
    "model": {key: value for key, value in TEAMS["model"].items() if "scope" not in key},
    "tables": GAME | VALUES | {"algorithm.name": "i2q", "algorithm.off_policy.representation": "table"},
    "ideal numbers": LQ | VALUES | {"algorithm.name": "i2q"},
    "memories": TEAMS["memories"],
}


@pytest.mark.exact
@pytest.mark.parametrize("team", EQUAL)
def test_on_other_links_the_first_weights_are_those_of_the_other_run_byte_for_byte(tmp_path: Path, team: str) -> None:
    origin = trained(tmp_path / "origin", kappa=1, **EQUAL[team])
    other = {"network.preset": "wifi-busy", "seed": 3, "algorithm.mult_init": 7.0}
    begun(tmp_path / "run", origin, kappa=1, **EQUAL[team] | other)
    for agent in range(4):
        found, expected = (
            load_weights(folder / "checkpoints" / "final", agent) for folder in (tmp_path / "run", tmp_path / "origin")
        )
        assert found.keys() == expected.keys()
        for name, tensor in found.items():
            if team != "model" or name.startswith(("actor", "critic", "multipliers")):  # the model begins afresh
                assert tensor.numpy().tobytes() == expected[name].numpy().tobytes(), name


@pytest.mark.exact
@pytest.mark.parametrize(
    "team",
    [LQ | {"algorithm.name": "mappo"}, GAME | {"algorithm.name": "qmix", "algorithm.off_policy.warm_up_steps": 1000}],
    ids=["central critic", "qmix"],
)
def test_the_central_node_begins_with_what_it_had_learnt(tmp_path: Path, team: dict[str, Any]) -> None:
    central = team | {"algorithm.critic_scope": "central", "algorithm.input_norm": "none", "algorithm.value_norm": False}
    fast = central | {"algorithm.off_policy.warm_up_steps": 0}
    origin = trained(tmp_path / "origin", **fast)
    still = {"algorithm.critic_lr": 0, "algorithm.actor_lr": 0, "algorithm.off_policy.target_keep": 0.5}
    run = trained(tmp_path / "run", init_from=origin, **central | still)
    names = [CENTRAL_WEIGHTS, "agent-0.safetensors", "agent-3.safetensors"]
    for name in names:
        found, expected = ((one.folder / "checkpoints" / "final" / name).read_bytes() for one in (run, origin))
        assert found == expected, name


def test_critics_value_as_before_whatever_new_neighbours_do(tmp_path: Path) -> None:
    priced = TEAMS["numbers"] | {"algorithm.actor_lr": 0, "algorithm.critic_lr": 0, "env.control_limit": 0.22}
    origin = trained(tmp_path / "origin", kappa=0, **TEAMS["numbers"] | {"env.control_limit": 0.22})
    alone, together = (trained(tmp_path / str(kappa), kappa=kappa, init_from=origin, **priced) for kappa in (0, 1))
    np.testing.assert_allclose(alone.returns(), together.returns(), rtol=1e-4)
    for name in ("value_loss", "cost_value_loss_0", "multiplier_0"):
        np.testing.assert_allclose(alone.rounds()[name], together.rounds()[name], rtol=1e-3, err_msg=name)
    fresh = trained(tmp_path / "fresh", kappa=0, **priced)
    assert not np.allclose(alone.rounds()["value_loss"], fresh.rounds()["value_loss"], rtol=0.05)


@pytest.mark.exact
@pytest.mark.system
def test_in_processes_the_run_is_the_same(tmp_path: Path) -> None:
    team = TEAMS["numbers"] | {"env.agents": 2}
    origin = trained(tmp_path / "origin", kappa=0, **team)
    one = trained(tmp_path / "one", kappa=1, init_from=origin, **team)
    many = kh.run("quickstart", out=tmp_path / "many", **SMALL | team | {"kappa": 1, "init_from": origin.folder})
    for key in ("weights_sha256", "ledger_sha256"):
        assert one.metrics[key] == many.metrics[key]


@pytest.mark.exact
def test_once_begun_a_run_does_without_the_other_one(tmp_path: Path) -> None:
    team = TEAMS["numbers"]
    origin = trained(tmp_path / "origin", kappa=0, **team)
    unbroken = trained(tmp_path / "unbroken", kappa=1, init_from=origin, **team)
    facts = json.loads((unbroken.folder / "manifest.json").read_text())["init_from"]
    assert facts["path"] == str(origin.folder.resolve())
    assert len(facts["sha256"]) == 64
    settings = SMALL | team | {"kappa": 1, "init_from": origin.folder}
    kh.run("quickstart", out=tmp_path / "broken", in_process=True, on_round=lambda one: one.round < 1, **settings)
    shutil.rmtree(origin.folder)
    shutil.rmtree(tmp_path / "broken" / "initial")  # from a state on nothing of it is needed
    resumed = kh.resume(tmp_path / "broken", in_process=True)
    again = kh.run(str(unbroken.folder / "scenario.yaml"), out=tmp_path / "again", in_process=True)
    for run in (resumed, again):
        assert run.metrics["weights_sha256"] == unbroken.metrics["weights_sha256"]
        assert run.metrics["ledger_sha256"] == unbroken.metrics["ledger_sha256"]
    assert json.loads((again.folder / "manifest.json").read_text())["init_from"] == facts
    assert kh.evaluate(again, episodes=2, in_process=True).is_complete
