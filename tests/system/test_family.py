"""Every row of the recipe table, as whole runs: what agents tell each other, who gets through, what agrees with what."""

import contextlib
import sqlite3
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from node.numerics.seeds import Purpose, stream
from scenarios.kinds import Kind, sent_by
from scenarios.recipes import RECIPES, Recipe
from tests.system.stage import Stage
from tests.system.test_limits import LOSSY, Alone, told
from topology.planes.peer import PeerPlane

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]

N, EDGES, COPIES, ROUNDS, B, EPOCHS, MINIBATCHES = 5, 4, 2, 2, 80, 2, 2  # of SMALL on a line; B over both rounds
PAIRS = N * (N - 1)
GLOBAL_STATE, KHOP_STATE = 4 * B * PAIRS, 4 * B * 2 * EDGES  # a state is one number
EACH_TO_LATER = 4 * B * PAIRS // 2
SEQUENTIAL = {"STATE": GLOBAL_STATE, "RATIO": EACH_TO_LATER}

SEEN = 3  # numbers that an agent sees of the game, which has two choices
GAME = ["env.name=stochastic_game", f"env.states={SEEN}", "env.n_discrete=2", "algorithm.off_policy.warm_up_steps=0"]
WORLD = {"qmix": GAME}  # values of choices are mixed; all others play SMALL's

# bytes of payload per run: closed forms, where every agent keeps a critic of its own (decisions 0005, 0012)
PAYLOAD: dict[str, dict[str, int]] = {
    "scal_mappo_l": {"STATE": KHOP_STATE},
    "mappo_l": SEQUENTIAL,
    "ippo": {},
    "mappo": {"STATE": GLOBAL_STATE},
    "happo": SEQUENTIAL,
    "hatrpo": SEQUENTIAL,
    "macpo": SEQUENTIAL,
    "mafocops": SEQUENTIAL,
    "dpo": {},
    "mdpo": {},
    "coppo": {"STATE": GLOBAL_STATE, "RATIO_MB": EPOCHS * 4 * B * PAIRS},
    "a2po": {**SEQUENTIAL, "SCORE": 4 * PAIRS * COPIES * ROUNDS},
    "alternating_ppo": {"TOKEN": 32 * COPIES * ROUNDS},
    "iql": {},
    "ma2ql": {"TOKEN": 32 * COPIES * ROUNDS},
    "i2q": {},
    "qmix": {"JOINT": 4 * (SEEN + 3) * B * N, "POLICY": 4 * (SEEN * 8 + 8 + 8 * 2 + 2 + 2 * SEEN) * COPIES * ROUNDS * N},
}
TALKATIVE = ["coppo", "a2po", "alternating_ppo", "ma2ql"]


def payload(run: Alone) -> Counter[str]:
    found: Counter[str] = Counter()
    for row in run.rows:
        if row.plane != "world":
            found[row.kind] += row.payload_bytes
    return found


def names(recipe: Recipe) -> set[str]:
    return {kind.name for kind in sent_by(recipe)}


@pytest.mark.parametrize("name", RECIPES)
def test_what_agents_tell_each_other_is_as_much_as_the_closed_form_says(tmp_path: Path, name: str) -> None:
    found = payload(Alone(tmp_path / "run", f"algorithm.name={name}", *WORLD.get(name, [])))
    assert {*found} == names(RECIPES[name])
    found.pop("BOOTSTRAP", None)
    assert found == PAYLOAD[name]


def test_a_turn_costs_one_deployment_32_bytes(tmp_path: Path) -> None:
    run = Alone(tmp_path / "run", "algorithm.name=alternating_ppo", "env.num_envs=1", "budget.env_steps=140")
    assert payload(run) == {"TOKEN": 32 * 7}
    # from 0 to 1, to 2, …, and from 4 across the whole line back to 0
    assert [sum(row.messages for row in run.rows if row.kind == "TOKEN" and row.round == k) for k in range(7)] == [1] * 4 + [
        4,
        1,
        1,
    ]


def test_turns_of_several_rounds_hold_for_policies_too(tmp_path: Path) -> None:
    words = ["algorithm.name=alternating_ppo", "env.num_envs=1", "budget.env_steps=140", "algorithm.off_policy.turn_rounds=3"]
    run = Alone(tmp_path / "run", *words)
    assert [row.round for row in run.rows if row.kind == "TOKEN"] == [2, 5]
    with contextlib.closing(sqlite3.connect(tmp_path / "run" / "run.sqlite")) as database:
        learnt = database.execute("SELECT round, agent FROM rounds WHERE kl IS NOT NULL ORDER BY round").fetchall()
    assert learnt == [(0, 0), (1, 0), (2, 0), (3, 1), (4, 1), (5, 1), (6, 2)]


def test_one_agent_has_nobody_to_tell_anything(tmp_path: Path) -> None:
    for name in TALKATIVE:
        assert not payload(Alone(tmp_path / name, f"algorithm.name={name}", "env.agents=1"))


@pytest.mark.parametrize("routing", ["relay", "direct"])
@pytest.mark.parametrize("name", TALKATIVE)
def test_routing_changes_neither_what_is_told_nor_what_is_learnt(tmp_path: Path, name: str, routing: str) -> None:
    here = ["algorithm.factor=khop", "kappa=2"] if RECIPES[name].order != "alternating" else []
    run = Alone(tmp_path / "run", f"algorithm.name={name}", f"routing={routing}", *here)
    other = Alone(tmp_path / "other", f"algorithm.name={name}", *here)
    assert (payload(run), run.weights) == (payload(other), other.weights)


def test_ratios_on_a_minibatch_are_charged_to_the_copies_whose_samples_are_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    charged: dict[tuple[int, int], list[int]] = {}
    send = PeerPlane.send

    def noted(self: PeerPlane, kind: Kind, body: bytes, **more: Any) -> None:
        if kind is Kind.RATIO_MB:
            sizes = charged.setdefault((more["round_"], more["step"]), list(map(int, more["copy_bytes"])))
            assert sizes == list(map(int, more["copy_bytes"]))
            assert len(body) == sum(sizes)
        send(self, kind, body, **more)

    monkeypatch.setattr(PeerPlane, "send", noted)
    Alone(tmp_path / "run", "algorithm.name=coppo", "env.num_envs=4", "budget.env_steps=160")
    for round_ in range(2):
        draw = stream(0, round_, Purpose.JOINT_SHUFFLE)
        halves = [half for _ in range(EPOCHS) for half in np.split(draw.permutation(80), MINIBATCHES)]
        expected = [[4 * sum(int(row) % 4 == copy for row in half) for copy in range(4)] for half in halves]
        assert [charged[round_, m] for m in range(EPOCHS * MINIBATCHES)] == expected
        assert expected[0] != expected[1]


# ------------------------------------------------------------------------------------------ who gets through

HARD = ["network.loss_prob=0.1", "network.delivery.bootstrap=datagram", "network.delivery.ratio=datagram",
        "network.delivery.score=datagram", "network.delivery.token=datagram"]  # fmt: skip


@pytest.mark.parametrize("name", RECIPES)
def test_a_run_with_losses_and_an_agent_down_completes(tmp_path: Path, name: str) -> None:
    crash = "network.events=[{do: crash, agent: 2, from_s: 5}]"
    run = Alone(tmp_path / "run", f"algorithm.name={name}", *WORLD.get(name, []), "kappa=2", "topology.kind=ring", *HARD, crash)
    assert len(run.reports) == (N + RECIPES[name].is_led) * ROUNDS
    figure = "kl" if RECIPES[name].target == "advantage" else "replay"
    learned = {key for key, report in run.reports.items() if figure in report.metrics}
    in_turns = RECIPES[name].order == "alternating"
    if RECIPES[name].is_led:
        assert learned == {(N, k) for k in range(ROUNDS)}
        return
    assert learned == {(i, k) for i in range(N) for k in range(ROUNDS) if i != 2 and (not in_turns or i == k)}


def test_agents_that_miss_most_scores_find_the_same_order_all_the_same(tmp_path: Path) -> None:
    lost = ["algorithm.name=a2po", "network.loss_prob=0.9", "network.delivery.score=datagram", "budget.env_steps=160"]
    run = Alone(tmp_path / "run", *lost)
    assert sum(row.dropped for row in run.rows if row.kind == "SCORE") > 0.5 * sum(
        row.messages for row in run.rows if row.kind == "SCORE"
    )
    assert all(report.metrics["missing_score"] > 0 for report in run.reports.values())


def test_a_lost_token_costs_patience_and_holds_nobody_up(tmp_path: Path) -> None:
    lost = ["network.events=[{do: outage, between: [0, 1], from_s: 0}]", "network.patience_s=7"]
    run = Alone(tmp_path / "run", "algorithm.name=alternating_ppo", *lost)
    assert run.reports[1, 0].metrics["missing_token"] == COPIES
    assert [run.reports[agent, 0].virtual_s for agent in range(N)] == pytest.approx([20, 27, 20, 20, 20])
    assert "kl" in run.reports[1, 1].metrics


def test_whoever_is_missing_in_coupled_learning_is_waited_for_once_a_round(tmp_path: Path) -> None:
    crash = ["network.events=[{do: crash, agent: 4, from_s: 5}]", "network.patience_s=7", "budget.env_steps=40"]
    run = Alone(tmp_path / "run", "algorithm.name=coppo", *crash)
    for agent in range(4):
        report = run.reports[agent, 0]
        assert report.virtual_s == pytest.approx(20 + 7 + 7)  # for the last states, and for the ratios
        assert report.metrics["missing_ratio_mb"] == COPIES * EPOCHS * MINIBATCHES


# ------------------------------------------------------------------------------------------ the central critic

CENTRAL = ["algorithm.name=mappo", "algorithm.critic_scope=central"]
WIDTH = 1 + 1 + 1  # a sample of a JOINT: observation, reward, end flag


def on_plane(run: Alone, plane: str) -> Counter[str]:
    found: Counter[str] = Counter()
    for row in run.rows:
        if row.plane == plane:
            found[row.kind] += row.payload_bytes
    found.pop("BOOTSTRAP", None)
    return found


@pytest.mark.parametrize("place", [None, 0, 2])
def test_centralisation_costs_its_closed_form_wherever_the_critic_is(tmp_path: Path, place: int | None) -> None:
    run = Alone(tmp_path / "run", *CENTRAL, *([] if place is None else [f"central.at={place}"]))
    assert on_plane(run, "central") == {"JOINT": 4 * WIDTH * B * N, "ADVANTAGE": 4 * B * N}
    assert on_plane(run, "peer") == {}
    assert {row.kind for row in run.rows if row.plane == "central"} == {
        kind.name for kind in sent_by(replace(RECIPES["mappo"], critic_scope="central"))
    }
    hops = N if place is None else sum(1 + abs(i - place) for i in range(N))
    for kind in ("JOINT", "ADVANTAGE", "BOOTSTRAP"):
        assert sum(row.messages for row in run.rows if row.kind == kind) == hops * COPIES * ROUNDS
    assert {row.src for row in run.rows if row.dst == "critic"} == {str(i) for i in ([place] if place is not None else range(N))}


def test_where_the_critic_is_changes_what_it_costs_and_not_what_is_learnt(tmp_path: Path) -> None:
    star, hung = (Alone(tmp_path / str(i), *CENTRAL, *more) for i, more in enumerate([[], ["central.at=4"]]))
    assert star.weights == hung.weights
    assert on_plane(star, "central") == on_plane(hung, "central")


def test_all_agents_get_the_same_advantages_and_costs_count_where_the_recipe_minds_them(tmp_path: Path) -> None:
    world = ["env.name=safe_halfcheetah", "env.partition=3x2", "topology.kind=kinematic", "env.threads=1"]
    run = Alone(tmp_path / "run", *world, "algorithm.name=mappo_l", "algorithm.critic_scope=central")
    for round_ in range(ROUNDS):
        assert len({run.reports[agent, round_].metrics["advantage_std"] for agent in range(3)}) == 1
        assert run.reports[3, round_].metrics.keys() >= {"value_loss", "cost_value_loss_0"}
    assert on_plane(run, "central")["ADVANTAGE"] == 4 * 2 * B * 3


def test_on_slow_links_a_round_waits_for_the_critic(tmp_path: Path) -> None:
    one_round = [*CENTRAL, "budget.env_steps=40", "network.latency_ms=500", "compute.values_ms=3000"]
    run = Alone(tmp_path / "run", *one_round)
    assert run.reports[N, 0].virtual_s == pytest.approx(20 + 0.5 + 3)
    assert [run.reports[agent, 0].virtual_s for agent in range(N)] == pytest.approx([20 + 0.5 + 3 + 0.5] * N)


@pytest.mark.parametrize("down", range(N + 1))
@pytest.mark.parametrize("place", ["null", "2"])
def test_a_centralised_run_completes_with_losses_and_anybody_down(tmp_path: Path, down: int, place: str) -> None:
    hard = [*HARD, "network.delivery.joint=datagram", "network.delivery.advantage=datagram", "network.patience_s=8"]
    crash = f"network.events=[{{do: crash, agent: {down}, from_s: 5, until_s: 45}}]"
    run = Alone(tmp_path / "run", *CENTRAL, f"central.at={place}", *hard, crash, "budget.env_steps=120")
    assert len(run.reports) == (N + 1) * 3
    assert ("value_loss" in run.reports[N, 0].metrics) == (down != N)
    assert "value_loss" in run.reports[N, 2].metrics


def test_the_critic_gives_a_silent_agent_up_in_time_for_the_others(tmp_path: Path) -> None:
    crash = ["network.events=[{do: crash, agent: 3, from_s: 5}]", "network.patience_s=8", "budget.env_steps=40"]
    run = Alone(tmp_path / "run", *CENTRAL, *crash)
    for agent in {*range(N)} - {3}:
        assert run.reports[agent, 0].virtual_s == pytest.approx(20 + 8 / 2)
        assert "missing_advantage" not in run.reports[agent, 0].metrics
    assert run.reports[N, 0].metrics["missing_joint"] == 2 * COPIES  # JOINT and BOOTSTRAP


@pytest.mark.parametrize("place", [[], ["central.at=1"]], ids=["star", "at 1"])
@pytest.mark.parametrize("links", [pytest.param([], id="ideal", marks=pytest.mark.slow), pytest.param(LOSSY, id="lossy")])
def test_processes_with_a_central_critic_do_what_one_process_does(
    stage: Stage, tmp_path: Path, links: list[str], place: list[str]
) -> None:
    overrides = [*links, *place, "algorithm.name=mappo_l", "algorithm.critic_scope=central", "algorithm.actor_scope=khop"]
    alone, many = Alone(tmp_path / "run", *overrides), stage.perform(*overrides, shuffle=1)
    assert many.weights == alone.weights
    assert many.rows == alone.rows
    assert {key: told(report) for key, report in many.reports.items()} == alone.told()


# ------------------------------------------------------------------------------------------ the coordinator learns for all

QMIX = ["algorithm.name=qmix", *GAME]


@pytest.mark.parametrize("place", ["null", "2"])
def test_weights_come_back_to_everybody_once_a_round_over_all_links_between(tmp_path: Path, place: str) -> None:
    run = Alone(tmp_path / "run", *QMIX, f"central.at={place}")
    hops = N if place == "null" else sum(1 + abs(i - 2) for i in range(N))
    for kind in ("JOINT", "BOOTSTRAP", "POLICY"):
        assert sum(row.messages for row in run.rows if row.kind == kind) == hops * COPIES * ROUNDS
    assert on_plane(run, "peer") == {}
    assert [run.reports[N, k].metrics["replay"] for k in range(ROUNDS)] == [B / 2, B]
    assert len({*run.weights.values()}) == N + 1


def test_copies_that_weights_do_not_reach_act_by_those_that_they_have(tmp_path: Path) -> None:
    lost = ["network.delivery.policy=datagram", "network.loss_prob=0.5", "network.patience_s=4", "budget.env_steps=320"]
    run = Alone(tmp_path / "run", *QMIX, *lost)
    agents = [run.reports[i, k].metrics for i in range(N) for k in range(8)]
    assert {metrics["versions"] for metrics in agents} == {1.0, 2.0}
    assert 0.3 < sum(metrics.get("missing_policy", 0.0) for metrics in agents) / (COPIES * len(agents)) < 0.7
    # what is lost costs patience, on the agents' side, and the world waits for the slowest
    assert all(run.reports[i, 0].virtual_s == pytest.approx(24 if "missing_policy" in m else 20) for i, m in first(run))


def first(run: Alone) -> list[tuple[int, dict[str, float]]]:
    return [(agent, run.reports[agent, 0].metrics) for agent in range(N)]


def test_a_round_that_somebody_did_not_tell_of_teaches_nothing(tmp_path: Path) -> None:
    run = Alone(tmp_path / "run", *QMIX, "network.events=[{do: crash, agent: 3, from_s: 5, until_s: 25}]", "network.patience_s=8")
    assert run.reports[N, 0].virtual_s == pytest.approx(20 + 8 / 2)
    assert [run.reports[N, k].metrics["replay"] for k in range(ROUNDS)] == [0, B / 2]
    assert [run.reports[N, k].metrics.get("missing_joint") for k in range(ROUNDS)] == [2 * COPIES, None]
    assert [run.reports[3, k].metrics.keys() >= {"epsilon"} for k in range(ROUNDS)] == [False, True]


@pytest.mark.parametrize("down", [0, N])
def test_agents_go_on_while_the_mixer_is_down_or_one_of_them(tmp_path: Path, down: int) -> None:
    hard = [*HARD, "network.delivery.joint=datagram", "network.delivery.policy=datagram", "network.patience_s=8"]
    crash = f"network.events=[{{do: crash, agent: {down}, from_s: 5, until_s: 45}}]"
    run = Alone(tmp_path / "run", *QMIX, *hard, crash, "budget.env_steps=120")
    assert len(run.reports) == (N + 1) * 3
    assert ("value_loss" in run.reports[N, 0].metrics) == (down != N)


# ------------------------------------------------------------------------------------------ what agrees with what


@pytest.mark.parametrize("links", [pytest.param([], id="ideal", marks=pytest.mark.slow), pytest.param(LOSSY, id="lossy")])
@pytest.mark.parametrize("name", [*TALKATIVE, "qmix"])
def test_processes_do_what_one_process_does(stage: Stage, tmp_path: Path, name: str, links: list[str]) -> None:
    overrides = [*links, f"algorithm.name={name}", *WORLD.get(name, []), "compute.policy_ms=80"]
    alone, many = Alone(tmp_path / "run", *overrides), stage.perform(*overrides, shuffle=1)
    assert many.weights == alone.weights
    assert many.rows == alone.rows
    assert {key: told(report) for key, report in many.reports.items()} == alone.told()


def test_processes_make_up_what_one_process_makes_up(stage: Stage, tmp_path: Path) -> None:
    small = ["latent=2", "window=2", "hidden=[8]", "passes=2"]
    overrides = ["algorithm.name=mdpo", *(f"algorithm.world_model.{setting}" for setting in small), "budget.env_steps=120"]
    alone, many = Alone(tmp_path / "run", *overrides), stage.perform(*overrides, shuffle=1)
    assert many.weights == alone.weights
    assert {key: told(report) for key, report in many.reports.items()} == alone.told()
    assert not payload(alone)
    assert alone.reports[0, 2].metrics["model_rounds"] == 2
    assert alone.reports[0, 2].metrics["predictor_passes"] == 2


CHEETAH = ["env.name=safe_halfcheetah", "env.partition=3x2", "topology.kind=kinematic", "env.threads=1"]


def test_mappo_l_with_no_price_on_costs_is_happo_that_sees_as_much(stage: Stage) -> None:
    free = stage.run(*CHEETAH, "algorithm.name=mappo_l", "algorithm.mult_init=0", "algorithm.mult_kp=0", "algorithm.mult_ki=0")
    happo = stage.run(*CHEETAH, "algorithm.name=happo", "algorithm.actor_scope=global")
    for key, mine in happo.metrics.items():
        assert mine.items() <= free.metrics[key].items()  # MAPPO-L has cost critics and multipliers besides
    assert free.rows == happo.rows


def test_the_first_agent_in_the_order_takes_mappos_update(stage: Stage) -> None:
    one_round = [*CHEETAH, "budget.env_steps=40"]
    happo = stage.run(*one_round, "algorithm.name=happo", "algorithm.order=fixed")
    mappo = stage.run(*one_round, "algorithm.name=mappo")
    assert {i for i in range(3) if happo.weights[i] == mappo.weights[i]} == {0}


def test_one_agent_alternating_with_nobody_is_ppo(stage: Stage) -> None:
    alone = ["env.agents=1"]
    turns, ippo = (stage.run(*alone, f"algorithm.name={name}") for name in ("alternating_ppo", "ippo"))
    assert turns.weights == ippo.weights
    assert turns.rows == ippo.rows


def test_agents_learn_in_turn_and_rest_unchanged_otherwise(tmp_path: Path) -> None:
    short = ["algorithm.name=alternating_ppo", "algorithm.lr_decay=none", "budget.env_steps=40"]
    one = Alone(tmp_path / "one", *short)
    rest = Alone(tmp_path / "rest", *short, "algorithm.entropy_coef=0.1")  # shows in whoever learns
    assert {i for i in range(N) if one.weights[i] != rest.weights[i]} == {0}
