"""Networks that neighbours average: the mean on a complete graph, in units that are the same for all, and what stays."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from node.learners.on_policy.learner import Learner
from node.numerics.rollout import Rollout
from scenarios.kinds import Kind
from tests.builders import shape
from tests.node.learners.on_policy.test_axes import T, algorithm, learn, rollout_of, snapshot

N, D, E = 4, 5, 4


def team(degrees: Sequence[int] = (3, 3, 3, 3), **settings: Any) -> list[Learner]:
    """Agents that have learnt from two rounds, each in a world of its own, in other units than the others."""
    found = []
    for agent, degree in enumerate(degrees):
        sizes = {"act_dim": 2, "cost_limits": (0.5,), "degree": degree, "rounds": 10, "width": D, "steps": T, "copies": E}
        learner = Learner(shape(agent=agent, **sizes), algorithm(**{"name": "ippo", "constraint": "lagrangian", **settings}))
        for round_ in range(2):
            rollout = rollout_of(learner, seed=10 * agent + round_, n_costs=1, round_=round_)
            rollout.reward[:] = rollout.reward * 3.0**agent + 10.0 * agent
            rollout.observation[:, :, 0] = 5.0 * agent + (1 + agent) * rollout.observation[:, :, 0]
            learn(learner, rollout, round_=round_)
        found.append(learner)
    return found


def gossip(learners: Sequence[Learner], came: Mapping[tuple[int, int], NDArray[np.bool_]] | None = None) -> None:
    """A step on the complete graph; `came` says in which copies the message of one agent reaches another."""
    told = [learner.gives(Kind.CONSENSUS) for learner in learners]
    for i, learner in enumerate(learners):
        for j, data in enumerate(told):
            if i != j:
                learner.takes(Kind.CONSENSUS, j, data, (came or {}).get((j, i), np.ones(E, np.bool_)))


def values(learner: Learner, rollout: Rollout) -> list[NDArray[np.float64]]:
    """What its critics predict of a round, in units of the return."""
    critics = learner._critics
    assert critics is not None
    critics.begin(rollout)
    return [one.returns - one.advantage for one in critics.advantages(rollout, rollout.reward)]


def test_on_a_complete_graph_one_step_brings_all_policies_to_their_mean() -> None:
    learners = team(consensus="policy")
    before = [snapshot(learner) for learner in learners]
    gossip(learners)
    mean = torch.stack([weights["actor"] for weights in before]).double().mean(0)
    for learner, own in zip(learners, before, strict=True):
        torch.testing.assert_close(learner.weights()["actor"].double(), mean, rtol=0, atol=1e-7)
        assert (own["actor"] - mean).abs().max() > 1e-4
        assert all(torch.equal(learner.weights()[name], own[name]) for name in own if "critic" in name)


def test_critics_without_hidden_layers_predict_the_mean_of_what_they_predicted() -> None:
    learners = team(consensus="critic", hidden=())
    rollout = rollout_of(learners[0], seed=99, n_costs=1)
    before = np.stack([values(learner, rollout) for learner in learners])
    assert np.ptp(before[:, 0], axis=0).min() > 0.1
    statistics = [snapshot(learner)["critic_0_returns"] for learner in learners]
    assert statistics[-1][1] > 5 * statistics[0][1]  # agents are paid in other units
    gossip(learners)
    for learner, own in zip(learners, statistics, strict=True):
        np.testing.assert_allclose(values(learner, rollout), before.mean(axis=0), rtol=1e-5, atol=1e-5)
        assert torch.equal(learner.weights()["critic_0_returns"], own)  # units stay the agent's own


def test_statistics_of_inputs_become_those_of_all_that_was_seen() -> None:
    learners = team(consensus="policy", input_norm="running")
    seen = []
    for agent in range(N):
        rows = [rollout_of(learners[agent], seed=10 * agent + k, n_costs=1).observation.reshape(-1, D) for k in range(2)]
        each = np.concatenate(rows).astype(np.float64)
        each[:, 0] = 5.0 * agent + (1 + agent) * each[:, 0]
        seen.append(each)
    gossip(learners)
    together = np.concatenate(seen)
    for learner in learners:
        offset, scale = learner.weights()["actor_inputs"].double().numpy()
        np.testing.assert_allclose(1 / scale, together.std(axis=0), rtol=1e-4)
        np.testing.assert_allclose(-offset / scale, together.mean(axis=0), rtol=1e-4, atol=1e-4)


def test_what_does_not_come_leaves_its_weight_with_the_receiver() -> None:
    none = {(j, i): np.zeros(E, np.bool_) for i in range(N) for j in range(N)}
    half = np.array([True, False, True, False])
    learners = team(consensus="both", input_norm="running")
    before = [snapshot(learner) for learner in learners]
    gossip(learners, none)
    for learner, own in zip(learners, before, strict=True):
        assert all(torch.equal(learner.weights()[name], own[name]) for name in own)
    gossip(learners, none | {(2, 0): half})  # of agent 2's message agent 0 has half the copies
    moved, (first, third) = learners[0].weights()["actor"], (before[0]["actor"], before[2]["actor"])
    torch.testing.assert_close(moved, first + (third - first) / 8, rtol=0, atol=1e-7)


def test_an_edge_has_the_weight_of_its_larger_degree() -> None:
    learners = team((1, 3, 2, 3), consensus="policy")
    own, other = (snapshot(learners[i])["actor"] for i in (0, 1))
    told = [learner.gives(Kind.CONSENSUS) for learner in learners]
    learners[0].takes(Kind.CONSENSUS, 1, told[1], np.ones(E, np.bool_))
    torch.testing.assert_close(learners[0].weights()["actor"], own + (other - own) / 4, rtol=0, atol=1e-7)


@pytest.mark.parametrize("degree", [-1e30, 0.0, 1e30])
def test_no_degree_that_a_neighbour_claims_moves_an_agent_beyond_it(degree: float) -> None:
    learners = team(consensus="policy")
    before, other = (snapshot(learners[i])["actor"] for i in (0, 1))
    learners[0].gives(Kind.CONSENSUS)
    claimed = learners[1].gives(Kind.CONSENSUS).copy()
    claimed[:, 0] = degree
    learners[0].takes(Kind.CONSENSUS, 1, claimed, np.ones(E, np.bool_))
    moved = learners[0].weights()["actor"] - before
    assert moved.norm() <= (other - before).norm() / 4 + 1e-7


def test_networks_that_are_averaged_start_alike(subtests: pytest.Subtests) -> None:
    def start(agent: int, **settings: Any) -> dict[str, Tensor]:
        return snapshot(Learner(shape(agent=agent, width=D), algorithm(name="ippo", **settings)))

    for consensus, alike in (("none", set()), ("critic", {"critic_0"}), ("policy", {"actor"}), ("both", {"actor", "critic_0"})):
        with subtests.test(consensus=consensus):
            one, other = start(0, consensus=consensus), start(3, consensus=consensus)
            assert {name for name in ("actor", "critic_0") if torch.equal(one[name], other[name])} == alike
