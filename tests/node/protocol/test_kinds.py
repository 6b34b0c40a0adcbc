"""Sizes of peer messages: as told beforehand, and none larger than the largest."""

import contextlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from coordinator.records.database import Recorder
from coordinator.records.plan import make_run_dir, plan
from coordinator.run import in_process
from node.learners.on_policy.learner import make_actor
from node.protocol.kinds import averaged, largest_peer_body, policy_size, sent
from scenarios.kinds import Kind
from scenarios.loading import ScenarioError, load
from scenarios.recipes import RECIPES
from tests.builders import shape
from topology.planes.control import Control, encode_control, largest_report
from topology.planes.world import largest_world_body
from topology.wire.frame import LEAST_LIMIT, MAX_ARRAY_BYTES, decode_header, frame_limit
from topology.wire.sockets import MemoryLinks

LQ = [
    "env.name=network_lq", "env.agents=3", "topology.kind=line", "env.num_envs=3", "env.horizon=4", "rollout.steps=10",
    "algorithm.hidden=[4]", "algorithm.minibatches=7", "algorithm.epochs=1", "record.tensorboard=false", "budget.env_steps=60",
    "evaluation.every_rounds=0",
]  # fmt: skip
GAME = ["env.name=stage_game", "env.agents=2", *LQ[2:4], *LQ[5:], "algorithm.off_policy.warm_up_steps=0"]
CASES = {
    **{name: [*(LQ if row.target == "advantage" else GAME), f"algorithm.name={name}"] for name, row in RECIPES.items()},
    "costs, relays, links": [*LQ, "env.control_limit=1", "kappa=2", "network.preset=wifi-busy"],
    "rewards": [*LQ, "algorithm.name=happo", "algorithm.reward=khop_mean"],
    "central critic": [*LQ, "algorithm.name=mappo", "algorithm.critic_scope=central"],
    "shared policy": [
        *LQ, "algorithm.name=mappo", "algorithm.critic_scope=central", "algorithm.share_policy=true", "algorithm.input_norm=none",
    ],
    "consensus": [*LQ, "algorithm.critic_scope=global", "algorithm.actor_scope=local", "algorithm.consensus=both",
                  "env.control_limit=1", "algorithm.layer_norm=true"],
    "shared budget": [*LQ, "env.control_limit=1", "env.cost=local", "algorithm.constraint_scope=consensus"],
    "small numbers": [*LQ, "network.codec.state=int8", "network.codec.bootstrap=float16"],
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_no_message_of_a_run_is_larger_than_its_sockets_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    ready = plan(load("quickstart", CASES[case]))
    seen = Counter[Kind]()

    def send(self: MemoryLinks, to: int, frames: Sequence[bytes]) -> None:
        kind = Kind(decode_header(frames[0]).kind)
        seen[kind] = max(seen[kind], *(len(frame) for frame in frames[1:]))
        self._inboxes[to].append((self._agent, [bytes(frame) for frame in frames]))

    def watch(report: Control) -> None:
        weights = averaged(ready.scenario, ready.deployment)
        assert len(encode_control(report)) <= largest_report(1 + ready.deployment.n_nodes, 10, weights)

    monkeypatch.setattr(MemoryLinks, "send", send)
    make_run_dir(tmp_path / "run", ready)
    with contextlib.closing(Recorder(tmp_path / "run", env_steps_per_round=30)) as recorder:
        assert in_process.run(ready, tmp_path / "run", recorder, watch).error is None
    by_peers = {kind: size for kind, size in seen.items() if kind < Kind.SENSE}
    assert set(by_peers) == set(sent(ready.scenario, ready.deployment))
    largest = max(by_peers.values(), default=0)
    assert largest <= largest_peer_body(ready.scenario, ready.deployment) <= max(2 * largest, 3 * 9)
    of_world = max(seen[Kind.SENSE], seen[Kind.ACT])
    assert of_world == largest_world_body(ready.deployment, 3)


def test_an_evaluation_says_states_alone(subtests: pytest.Subtests) -> None:
    for case in CASES:
        with subtests.test(case=case):
            ready = plan(load("quickstart", CASES[case]))
            judged = ready.deployment.model_copy(update={"learns": False})
            assert set(sent(ready.scenario, judged)) <= {Kind.STATE}
            assert largest_peer_body(ready.scenario, judged) <= largest_peer_body(ready.scenario, ready.deployment)


def test_a_policy_has_as_many_weights_as_counted(subtests: pytest.Subtests) -> None:
    nets: list[list[str]] = [[], ["layer_norm=true"], ["input_norm=layer"], ["hidden=[]"], ["hidden=[3,9]", "activation=tanh"]]
    for words in nets:
        for act_dim, n_discrete in ((3, 0), (1, 5)):
            with subtests.test(words=words, act_dim=act_dim):
                algorithm = load("quickstart", [f"algorithm.{word}" for word in words]).algorithm
                sizes = shape(width=7, act_dim=act_dim, n_discrete=n_discrete)
                counted = sum(parameter.numel() for parameter in make_actor(sizes, algorithm).parameters())
                assert policy_size(7, act_dim, n_discrete, algorithm) == counted


def test_shipped_scenarios_need_little() -> None:
    ready = plan(load("quickstart"))
    assert frame_limit(largest_peer_body(ready.scenario, ready.deployment)) == LEAST_LIMIT
    assert largest_report(7, ready.scenario.rollout.steps) < 1 << 19


def test_messages_that_no_socket_takes_are_refused_before_a_run() -> None:
    with pytest.raises(
        ScenarioError, match=r"env.num_envs: got 4096 with rollout.steps=100000; the largest message .* at most 268,"
    ):
        plan(load("quickstart", [*LQ, "algorithm.name=happo", "env.num_envs=4096", "rollout.steps=100000"]))
    assert MAX_ARRAY_BYTES < 4 * 4096 * 100_000
