"""Whether limits were kept, and why not: the decision alone, what it is made from, and what it says of whole runs."""

import contextlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from coordinator.records.database import Recorder, Results
from coordinator.records.plan import make_run_dir, plan
from coordinator.run import idle, in_process
from coordinator.run.idle import Idle, above_their_limits, measure
from coordinator.run.metrics import report
from coordinator.run.verdict import Evidence, Verdict, judge
from envs.interface import Episode
from scenarios.loading import load


def verdict(costs: list[float], **known: Any) -> Verdict:
    settings: dict[str, Any] = {"name": "cost", "limit": 30.0, "algorithm": "mappo_l"} | known
    return judge(Evidence(costs=costs, **settings))


def test_a_limit_that_was_kept_has_an_interval_over_episodes() -> None:
    costs = [20.0, 22.0, 24.0, 26.0]
    found = verdict(costs)
    reach = stats.t.ppf(0.975, 3) * np.std(costs, ddof=1) / 2.0
    assert (found["mean"], found["episodes"], found["kept"], found["because"]) == (23.0, 4, True, [])
    assert [found["low"], found["high"]] == pytest.approx([23.0 - reach, 23.0 + reach])
    assert found["text"] == "limit 30 on cost kept: 23 on average over 4 episodes, 95 % interval 18.9 to 27.1"


def test_what_is_not_sure_is_said_to_be_so() -> None:
    assert "limit 30 on cost kept, but not surely: " in verdict([20.0, 39.0])["text"]
    assert "limit 30 on cost exceeded, but not surely: " in verdict([22.0, 41.0])["text"]
    assert verdict([29.0])["text"] == "limit 30 on cost kept: 29 on average over 1 episode"
    assert verdict([30.0, 30.0])["kept"]


@pytest.mark.parametrize(
    ("costs", "why"),
    [
        ([], "no whole episode ended"),
        ([float("nan")], "1 of 1 episodes ended in a fault"),
        ([float("nan"), 3.0, 4.0], "1 of 3 episodes ended in a fault"),  # a mean over those that went well is not the team's
    ],
)
def test_without_whole_episodes_or_with_faults_there_is_no_verdict(costs: list[float], why: str) -> None:
    found = verdict(costs)
    assert (found["kept"], found["mean"]) == (None, None)
    assert found["text"] == f"limit 30 on cost: {why}, so it cannot be judged"


RISING = [0.1 * k for k in range(40)]
REST = [1.5] * 40


def test_causes_of_an_exceeded_limit(subtests: pytest.Subtests) -> None:
    rows: list[tuple[dict[str, Any], list[str]]] = [
        ({"heeds": False, "idle": 34.1}, ["mappo_l minds no costs"]),
        ({"idle": 34.1, "multipliers": REST}, ["the limit is below what doing nothing costs (34.1)"]),
        ({"idle": 29.0, "multipliers": REST}, []),
        ({"multipliers": RISING, "mult_max": 20.0}, ["the multiplier was still rising (3.4 to 3.8)"]),
        ({"multipliers": [1.0, 20.0, 20.0, 20.0], "mult_max": 20.0}, ["the multiplier is at its bound (20)"]),
        ({"spreads": [0.5, 0.3, 0.04]}, ["actions have hardly any spread left to learn by (0.04 of 0.5)"]),
        ({"spreads": [0.5, 0.3, 0.06]}, []),
        ({"multipliers": [2.0]}, []),
        (
            {"idle": 34.1, "multipliers": RISING, "spreads": [0.5] * 30 + [0.01] * 10},
            [
                "the limit is below what doing nothing costs (34.1)",
                "the multiplier was still rising (3.4 to 3.8)",
                "actions have hardly any spread left to learn by (0.01 of 0.5)",
            ],
        ),
    ]
    for known, because in rows:
        with subtests.test(known=known):
            found = verdict([44.0, 45.0, 46.0], **known)
            assert found["kept"] is False
            assert found["because"] == because
            last = " and ".join(because) if because else "no cause found, a longer run may keep it"
            assert (
                found["text"] == f"limit 30 on cost exceeded: 45 on average over 3 episodes, 95 % interval 42.5 to 47.5; {last}"
            )


def test_causes_are_told_only_where_the_limit_was_exceeded() -> None:
    assert verdict([10.0, 11.0], idle=34.1, multipliers=RISING)["because"] == []


def test_a_team_that_does_not_learn_is_not_promised_to_keep_its_limit_in_a_longer_run() -> None:
    assert verdict([44.0], learns=False)["text"] == "limit 30 on cost exceeded: 44 on average over 1 episode"
    assert verdict([44.0], learns=False, idle=34.1)["text"].endswith("; the limit is below what doing nothing costs (34.1)")


def test_where_agents_pay_for_themselves_the_worst_one_decides() -> None:
    found = verdict([10.0, 11.0], worst=("2", 31.5))
    assert (found["kept"], found["mean"], found["low"]) == (False, 31.5, None)
    assert found["text"].startswith("limit 30 on cost exceeded: 31.5 on average for agent 2, which pays most")


# --- what doing nothing costs ---------------------------------------------------------------------------------------------


def test_standing_still_costs_more_than_the_limit_of_the_half_cheetah() -> None:
    ready = plan(load("quickstart"))
    measured = measure(ready)
    assert measured is not None
    (found,) = measured.costs
    assert found == pytest.approx(34.1, abs=1.5)
    assert measure(ready) == measured
    (text,) = above_their_limits(ready, [found])
    assert text == f"doing nothing costs {found:.3g} per episode, above the limit of 30: agents must act to keep it"
    assert above_their_limits(ready, [29.9]) == above_their_limits(ready, None) == []


@pytest.mark.parametrize("words", [
    ("quickstart", "budget.env_steps=19_999"),  # a twentieth of it is no episode
    ("lq_line20", "budget.env_steps=1900"),
    ("stochastic_game",),
], ids=str)  # fmt: skip
def test_nothing_is_measured_where_it_means_nothing_or_is_too_dear(words: tuple[str, ...]) -> None:
    assert measure(plan(load(words[0], words[1:]))) is None


def test_doing_nothing_is_measured_where_there_is_no_limit_too() -> None:
    measured = measure(plan(load("lq_line20")))
    assert measured is not None
    assert measured.costs == []
    assert measured.ret < 0


class Falling:
    """A world of two copies: the first falls after every step, the second ends with the horizon of four."""

    def __init__(self, fault: bool = False) -> None:
        self._fault, self._steps = fault, 0

    def reset(self) -> None: ...

    def close(self) -> None: ...

    def step(self, actions: object) -> Any:
        self._steps += 1
        ended = [Episode(copy=0, ret=1.0, cost=(0.0,), length=1)]
        if self._steps == 4:
            ended.append(Episode(copy=1, ret=np.nan if self._fault else 4.0, cost=(8.0,), length=4))
        return SimpleNamespace(episodes=ended)


def test_of_a_team_that_does_nothing_each_copy_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ready = plan(load("quickstart", ["env.name=network_lq", "env.horizon=4", "budget.env_steps=160"]))
    monkeypatch.setattr(idle, "make", lambda *_: Falling())
    assert measure(ready) == Idle(2.5, [4.0] * ready.spec.n_costs)
    monkeypatch.setattr(idle, "make", lambda *_: Falling(fault=True))
    assert measure(ready) is None


# --- whole runs -----------------------------------------------------------------------------------------------------------

LQ = [
    "env.name=network_lq", "env.agents=3", "topology.kind=line", "env.num_envs=4", "env.horizon=6", "rollout.steps=12",
    "budget.env_steps=480", "algorithm.hidden=[4]", "algorithm.epochs=1", "algorithm.minibatches=1", "record.tensorboard=false",
    "evaluation.every_rounds=0",
]  # fmt: skip


def told(folder: Path, *words: str) -> tuple[Any, list[tuple[int, float]]]:
    ready = plan(load("quickstart", [*LQ, *words]))
    make_run_dir(folder, ready)
    with contextlib.closing(Recorder(folder, env_steps_per_round=48)) as recorder:
        outcome = in_process.run(ready, folder, recorder, lambda report: None)
    assert outcome.error is None
    with contextlib.closing(Results(folder)) as results:
        return report(ready, folder, results, outcome, idle=Idle(0.0, [0.0])), results.episodes("cost")


def test_a_team_is_judged_by_the_episodes_of_its_figures(tmp_path: Path) -> None:
    for limit, kept in (("1e-3", False), ("9.0", True)):
        final, episodes = told(tmp_path / limit, f"env.control_limit={limit}")
        (found,) = final["limits"]
        assert found["mean"] == pytest.approx(final["cost_mean"])
        assert found["episodes"] == 8  # two per copy in the last of ten rounds
        assert found["kept"] is kept
        assert final["idle_costs"] == [0.0]
        assert len(episodes) == 80


def test_agents_that_pay_for_themselves_are_judged_one_by_one(tmp_path: Path) -> None:
    """Each has the whole limit for its own cost; the team's mean may hide who exceeds it."""
    final, _ = told(tmp_path / "own", "env.control_limit=0.25", "env.cost=local")
    (found,) = final["limits"]
    assert found["mean"] is not None
    assert found["mean"] >= final["cost_mean"]
    assert "which pays most" in found["text"]


def test_who_minds_no_costs_is_told_apart(tmp_path: Path) -> None:
    final, _ = told(tmp_path / "ippo", "env.control_limit=1e-3", "algorithm.name=ippo")
    (found,) = final["limits"]
    assert found["because"] == ["ippo minds no costs"]


def test_an_evaluation_at_the_end_is_what_counts(tmp_path: Path) -> None:
    final, _ = told(tmp_path / "run", "env.control_limit=0.25", "evaluation.every_rounds=5", "evaluation.episodes=2")
    (found,) = final["limits"]
    assert found["mean"] == pytest.approx(final["eval_cost_mean"])
    assert found["episodes"] == final["eval_episodes"] == 20
    assert "on average over 20 episodes evaluated with drawn actions, " in found["text"]


def test_evaluations_judge_the_agent_that_pays_most_of_its_own_cost(tmp_path: Path) -> None:
    """Its mean over the episodes, which is neither the team's nor the mean of each episode's greatest."""
    words = ["env.control_limit=0.25", "env.cost=local", "evaluation.every_rounds=5", "evaluation.episodes=2"]
    final, _ = told(tmp_path / "run", *words)
    with contextlib.closing(Results(tmp_path / "run")) as results:
        charged = np.array(results.costs_at_end(9))
    assert charged.shape == (20, 1, 3)
    assert charged.mean() == pytest.approx(final["eval_cost_mean"], rel=1e-5)  # in this world the team's cost is the agents' mean
    (found,) = final["limits"]
    assert found["mean"] == pytest.approx(charged.mean(axis=0).max())
    assert found["low"] < found["mean"] < found["high"]
    assert f" for agent {charged.mean(axis=0)[0].argmax()}, which pays most, over 20 episodes evaluated with " in found["text"]


class Charging(Falling):
    """Agent i is charged with i in every step; the team's cost is said to be 8 at most."""

    def step(self, actions: object) -> Any:
        charged = np.broadcast_to(np.arange(3.0)[:, None, None], (3, 4, 1))
        return SimpleNamespace(episodes=super().step(actions).episodes, cost=charged)


def test_of_idle_agents_the_one_that_pays_most_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    ready = plan(load("quickstart", [*LQ, "env.control_limit=0.25", "env.cost=local", "budget.env_steps=480"]))

    monkeypatch.setattr(idle, "make", lambda *_: Charging())
    measured = measure(ready)
    assert measured is not None
    assert measured.costs == pytest.approx([2 * (1 + 4 + 6 + 6) / 4])  # copies end after 1, 4, and not in 6 steps


def test_of_a_shared_budget_the_mean_over_agents_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = ["env.control_limit=0.25", "env.cost=local", "algorithm.constraint_scope=consensus"]
    final, _ = told(tmp_path / "evaluated", *shared, "evaluation.every_rounds=5", "evaluation.episodes=2")
    (found,) = final["limits"]
    assert found["mean"] == pytest.approx(final["eval_cost_mean"], rel=1e-5)
    assert found["text"].startswith("limit 1.5 on cost (mean over agents) ")
    final, _ = told(tmp_path / "trained", *shared)
    (found,) = final["limits"]
    assert found["mean"] == pytest.approx(final["cost_mean"], rel=1e-5)
    assert "which pays most" not in found["text"]
    monkeypatch.setattr(idle, "make", lambda *_: Charging())
    measured = measure(plan(load("quickstart", [*LQ, *shared])))
    assert measured is not None
    assert measured.costs == pytest.approx([(1 + 4 + 6 + 6) / 4])  # of agents that are charged with 0, 1 and 2 a step


@pytest.mark.parametrize("cost", ["team", "local"])
def test_who_is_charged_with_what(tmp_path: Path, cost: str) -> None:
    """The team's cost: all agents are charged with the same sum. Costs of their own: the team's is their mean."""
    final, episodes = told(tmp_path / cost, "env.control_limit=0.25", f"env.cost={cost}")
    with contextlib.closing(Results(tmp_path / cost)) as results:
        own, prices = results.by_agent("episode_cost_0"), results.by_agent("multiplier_0")
    assert set(own) == set(prices) == {0, 1, 2}
    assert len(set(own.values())) == (1 if cost == "team" else 3)
    last = np.mean([value for _, value in episodes[-8:]])  # those of the last tenth of the rounds
    assert np.mean([*own.values()]) == pytest.approx(last, rel=1e-5)
    assert final["cost_limit"] == pytest.approx(0.25 * 6)  # each agent's, whole
    for agent, price in prices.items():
        assert (price > 0) == (own[agent] > 0.25 * 6)
