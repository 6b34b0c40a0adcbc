"""How influence fades: the published exact curves, a fit against its closed form, and teams whose policies are known."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from coordinator.records.plan import make_run_dir, plan
from coordinator.study.decay import Decay, exact, fitted, of_team
from scenarios.loading import ScenarioError, load

N = 4


def test_the_linear_network_fades_as_published() -> None:
    # J_κ/J* of twenty systems on a line: 1.157, 1.0275, 1.0054, 1.0007, 1.0001
    found = exact(load("lq_line20"))
    assert [1 + left for left in found.remains[:5]] == pytest.approx([1.157, 1.0275, 1.0054, 1.0007, 1.0001], rel=1e-3)
    assert len(found.remains) == 20
    assert found.suggested(0.05) == 2
    assert found.phi == pytest.approx(0.16, abs=0.03)


def test_the_chain_fades_as_published() -> None:
    found = exact(load("truncation_chain", ["env.seed=2", "algorithm.gamma=0.9"]))
    assert found.by_agent[0] == pytest.approx([0.02356, 0.00736, 0.00196, 0.00043, 0.0], abs=5e-6)
    assert found.remains == pytest.approx(np.mean(found.by_agent, axis=0))
    # 5 agents, two numbers each: 8, 6, 4 and 2 ordered pairs at distances 1 to 4
    assert found.payload_bytes == pytest.approx([4 * 2 * pairs / 5 for pairs in (0, 8, 14, 18, 20)])


def test_other_worlds_have_no_exact_answer() -> None:
    with pytest.raises(ScenarioError, match=r"^env.name: got 'safe_halfcheetah'; exact answers exist for network_lq"):
        exact(load("quickstart"))


def test_the_chain_is_a_line() -> None:
    with pytest.raises(ScenarioError, match=r"^topology.kind: got 'ring'"):
        exact(load("truncation_chain", ["topology.kind=ring"]))


def test_where_nobody_matters_to_others_nothing_is_left_and_none_need_be_heard() -> None:
    apart = exact(load("lq_line20", ["env.beta=0", "env.agents=4"]))
    assert apart.remains == (0.0,) * 4
    assert apart.suggested(0.05) == 0
    assert apart.phi is None
    assert exact(load("lq_line20")).remains[-1] == 0.0


@pytest.mark.parametrize("phi", [0.01, 0.5, 0.9])
def test_a_fit_finds_the_rate_and_leaves_out_what_has_vanished(phi: float) -> None:
    assert fitted([3.0 * phi**kappa for kappa in range(5)] + [0.0]) == pytest.approx(phi, rel=1e-6)


def test_nothing_is_fitted_through_one_point() -> None:
    assert fitted([2.0, 0.0]) is None
    assert fitted([0.0, 0.0]) is None


def test_the_smallest_kappa_that_leaves_little_enough_is_suggested() -> None:
    decay = Decay(what="", remains=(8.0, 4.0, 2.0, 1.0), payload_bytes=(0.0,) * 4)
    assert [decay.suggested(part) for part in (1.0, 0.5, 0.3, 0.25, 0.1, 0.0)] == [0, 1, 2, 2, 3, 3]
    assert Decay(what="", remains=(0.0, 0.0), payload_bytes=(0.0, 0.0)).suggested(0.05) == 0


def team(folder: Path, gains: np.ndarray, *words: str) -> Path:
    """A run of linear policies u = -K x on a line of linear systems, as if it had been trained."""
    usual = [
        "env.name=network_lq", f"env.agents={N}", "topology.kind=line", "env.num_envs=3", "env.horizon=20", "kappa=3",
        "algorithm.hidden=[]", "algorithm.input_norm=none", "rollout.steps=5", "budget.env_steps=15", "algorithm.minibatches=1",
    ]  # fmt: skip
    make_run_dir(folder, plan(load("quickstart", [*usual, *words])))
    weights = folder / "checkpoints" / "final"
    weights.mkdir(parents=True)
    for agent in range(N):
        flat = torch.tensor([-0.7, *(-gains[agent]), 0.0], dtype=torch.float32)  # spread, weights, bias
        norm = torch.stack((torch.zeros(N), torch.ones(N)))
        save_file({"actor": flat, "actor_inputs": norm}, weights / f"agent-{agent}.safetensors")
    return folder


def test_a_team_that_heeds_next_neighbours_only_loses_nothing_beyond_one_hop(tmp_path: Path) -> None:
    distance = np.abs(np.subtract.outer(range(N), range(N)))
    found = of_team(team(tmp_path, 0.4 * np.eye(N) + 0.2 * (distance == 1)), episodes=6, seed=1)
    assert found.remains[0] > 0.0
    assert found.remains[1:] == (0.0, 0.0, 0.0)
    assert found.returns[0] != found.returns[1]
    assert len(set(found.returns[1:])) == 1
    assert found.payload_bytes == tuple(4 * pairs / N for pairs in (0, 6, 10, 12))
    assert found.suggested(0.05) == 1


def test_changes_are_those_of_the_gains(tmp_path: Path) -> None:
    # only agent 0 heeds others: the one next to it, and with a tenth of that the farthest
    gains = 0.4 * np.eye(N)
    gains[0, 1], gains[0, 3] = 0.2, 0.02
    found = of_team(team(tmp_path, gains), episodes=60, seed=1)
    (first, second, third, last) = found.by_agent[0]
    assert first > second == third > last == 0.0
    assert second / first == pytest.approx(0.1, rel=0.25)  # states of all agents vary alike, within their coupling
    assert all(one == (0.0,) * N for one in found.by_agent[1:])


def test_a_team_that_hears_nobody_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="its policies use no neighbour"):
        of_team(team(tmp_path, 0.4 * np.eye(N), "algorithm.name=ippo"), episodes=1, seed=0)
