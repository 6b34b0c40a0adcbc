"""Runs that must agree, or differ: the same bytes in messages, the same weights bit for bit."""

from typing import Any

import networkx as nx
import pytest

from tests.system.stage import Done, Stage
from topology.graph.neighbourhood import audiences, ball, diameter, visible
from topology.graph.routes import routes

pytestmark = [pytest.mark.exact, pytest.mark.system, pytest.mark.timeout(120)]

CHEETAH = ["env.name=safe_halfcheetah", "env.partition=3x2", "topology.kind=kinematic", "env.threads=1"]


# ------------------------------------------------------------------------------------------ closed forms of traffic

GRAPHS: "dict[str, nx.Graph]" = {"line": nx.path_graph(5), "ring": nx.cycle_graph(5), "star": nx.star_graph(4)}
TALKS = [
    (name, kappa, routing, copies)
    for name, graph in GRAPHS.items()
    for kappa in range(diameter(graph) + 1)
    for routing, copies in (("relay", 3), ("direct", 1) if kappa % 2 else ("relay", 1))
]
TALKS += [("line", 4, "direct", 3), ("star", 2, "direct", 2)]


def talk(stage: Stage, name: str, kappa: int, routing: str, copies: int) -> Done:
    return stage.run(
        f"topology.kind={name}", f"kappa={kappa}", f"routing={routing}", f"env.num_envs={copies}", "rollout.steps=7",
        f"budget.env_steps={14 * copies}", "algorithm.minibatches=1", "algorithm.epochs=1",
    )  # fmt: skip


@pytest.mark.parametrize(("name", "kappa", "routing", "copies"), TALKS)
def test_state_payload_is_four_bytes_per_number_sample_and_peer_exactly(
    stage: Stage, name: str, kappa: int, routing: str, copies: int
) -> None:
    done = talk(stage, name, kappa, routing, copies)
    graph = GRAPHS[name]
    samples = 14 * copies
    (width,) = set(done.deployment.obs_dims)
    assert done.payload("STATE") == 4 * width * samples * sum(len(ball(graph, j, kappa)) - 1 for j in graph)
    needed_by = audiences(visible(graph, kappa, "hops"))
    parts = [routes(graph, i, needed_by, direct=False) for i in graph]
    for src, dst in graph.to_directed().edges:
        on_link = [row.messages for row in done.peer_rows if (row.src, row.dst, row.kind) == (str(src), str(dst), "STATE")]
        if routing == "relay":
            assert sum(on_link) == samples * sum(dst in hops for hops in parts[src].next_hops.values())
    for row in done.rows:
        assert row.messages == row.delivered + row.dropped, row
        assert row.dropped == 0
    assert {row.kind for row in done.peer_rows} == ({"STATE", "BOOTSTRAP"} if kappa else set())


@pytest.mark.parametrize("routing", ["relay", "direct"])
def test_ratio_payload_is_four_bytes_per_sample_and_pair_within_kappa_whatever_the_order(stage: Stage, routing: str) -> None:
    # nodes between an origin and a later agent may themselves be earlier: they pass on what is not meant for them
    done = stage.run("kappa=2", "algorithm.factor=khop", "algorithm.order=random", f"routing={routing}")
    pairs = sum(len(ball(GRAPHS["line"], j, 2)) - 1 for j in range(5)) // 2
    assert done.payload("RATIO") == 4 * 80 * pairs


def test_relay_and_direct_routing_carry_the_same_payload_and_teach_the_same(stage: Stage) -> None:
    relay, direct = (talk(stage, "line", 4, routing, 3) for routing in ("relay", "direct"))
    assert relay.weights == direct.weights
    for kind in ("STATE", "BOOTSTRAP"):
        assert relay.payload(kind) == direct.payload(kind)
    assert sum(row.wire_bytes for row in relay.peer_rows) < sum(row.wire_bytes for row in direct.peer_rows)


# ------------------------------------------------------------------------------------------ the same, twice


def test_the_same_seed_gives_the_same_weights_and_ledger_and_another_seed_others(stage: Stage) -> None:
    once, again, other = stage.run(), stage.perform(), stage.run("seed=1")
    assert (once.weights, once.rows) == (again.weights, again.rows)
    assert once.metrics == again.metrics
    assert not set(once.weights.values()) & set(other.weights.values())
    assert len(set(once.weights.values())) == 5


def test_tcp_gives_the_same_weights_and_ledger_as_ipc(stage: Stage) -> None:
    # with keys, tcp goes through the command: tests/system/test_hostile.py
    ipc, tcp = stage.run(), stage.run("network.transport=tcp", "network.curve=false")
    assert (ipc.weights, ipc.rows) == (tcp.weights, tcp.rows)


# ------------------------------------------------------------------------------------------ equal algorithms


@pytest.mark.parametrize("world", [[], CHEETAH], ids=["lq", "cheetah"])
def test_kappa_of_the_diameter_is_global_bit_for_bit(stage: Stage, world: list[str]) -> None:
    wide = stage.run(*world, "kappa=4")
    everything = stage.run(*world, "kappa=0", "algorithm.critic_scope=global", "algorithm.actor_scope=global")
    assert wide.weights == everything.weights
    assert wide.rows == everything.rows
    assert stage.run(*world).weights != wide.weights


def test_scal_mappo_l_with_a_factor_and_kappa_of_the_diameter_is_mappo_l(stage: Stage) -> None:
    scal = stage.run(*CHEETAH, "kappa=4", "algorithm.name=scal_mappo_l", "algorithm.factor=khop")
    mappo = stage.run(*CHEETAH, "kappa=0", "algorithm.name=mappo_l", "algorithm.order=fixed")
    assert scal.weights == mappo.weights
    assert scal.rows == mappo.rows
    assert scal.payload("RATIO") == 4 * 80 * (2 + 1)  # every agent to all later ones
    without = stage.run(*CHEETAH, "kappa=0", "algorithm.name=mappo_l", "algorithm.order=fixed", "algorithm.factor=none")
    assert without.weights == stage.run(*CHEETAH, "kappa=4").weights != mappo.weights


def test_without_a_factor_the_order_changes_nothing_with_one_it_does(stage: Stage) -> None:
    assert stage.run("algorithm.order=random").weights == stage.run("algorithm.order=fixed").weights
    assert stage.run("algorithm.order=random").rows == stage.run("algorithm.order=fixed").rows
    fixed, random = (
        stage.run(f"algorithm.order={order}", "algorithm.factor=khop", "seed=3").weights for order in ("fixed", "random")
    )
    assert fixed != random


# ------------------------------------------------------------------------------------------ locality

SHAPE: dict[str, Any] = {"obs_dims": (2, 3, 1, 2, 4), "act_dims": (1, 2, 1, 1, 3), "cost_limits": (5.0, 1.0)}


@pytest.fixture(scope="module")
def undisturbed(stage: Stage) -> Done:
    return stage.perform("kappa=1", shape=SHAPE, disturbed=[])


def changed(a: Done, b: Done) -> tuple[set[int], set[int]]:
    """Agents whose weights differ, and agents whose actions differ."""
    return (
        {i for i in a.weights if a.weights[i] != b.weights[i]},
        {i for i in a.actions if a.actions[i].digest() != b.actions[i].digest()},
    )


def test_what_an_agent_senses_changes_its_ball_and_nobody_else_bit_for_bit(stage: Stage, undisturbed: Done) -> None:
    disturbed = stage.perform("kappa=1", shape=SHAPE, disturbed=[4])
    assert changed(undisturbed, disturbed) == ({3, 4}, {3, 4})
    both = stage.perform("kappa=1", shape=SHAPE, disturbed=[0])
    assert changed(undisturbed, both) == ({0, 1}, {0, 1})


def test_at_kappa_zero_it_changes_the_agent_alone(stage: Stage) -> None:
    runs = [stage.perform("kappa=0", shape=SHAPE, disturbed=who) for who in ([], [2])]
    assert changed(*runs) == ({2}, {2})


def test_ratios_carry_a_disturbance_to_later_neighbours_and_no_further_within_a_round(stage: Stage) -> None:
    # agent 4 is disturbed; 3 sees it, but updates before it in ascending order; 2 does not see it and hears ratios of 1 only
    one_round = ("kappa=1", "algorithm.factor=khop", "budget.env_steps=40")
    runs = [stage.perform(*one_round, shape=SHAPE, disturbed=who) for who in ([], [4])]
    assert changed(*runs) == ({3, 4}, {3, 4})
    # agent 0 comes first: its own change is in its ratio, so 1 changes by observation and ratio, 2 by 1's ratio, and so on
    runs = [runs[0], stage.perform(*one_round, shape=SHAPE, disturbed=[0])]
    assert changed(*runs)[0] == {0, 1, 2, 3, 4}
    assert changed(*runs)[1] == {0, 1}


def test_a_node_started_by_hand_takes_part_like_any_other(stage: Stage, undisturbed: Done) -> None:
    again = stage.perform("kappa=1", shape=SHAPE, disturbed=[], by_hand=[2])
    assert changed(undisturbed, again) == (set(), set())
    assert again.rows == undisturbed.rows
    log = (again.run_dir / "logs" / "node-2.log").read_text()
    assert log == ""
