"""Comparing cells: figures worked out by hand from runs that were written by hand."""

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import yaml

from coordinator.records.run_sqlite import DATABASE
from coordinator.report import tables
from coordinator.study.comparison import compare
from coordinator.study.runs import find
from scenarios.loading import ScenarioError
from tests.builders import printed
from topology.deployment import Deployment

RecordRun = Callable[..., Path]


def cell(record: RecordRun, root: Path, kappa: int, finals: list[float], n_bytes: int, *words: str) -> None:
    """Runs whose last known return rises to `finals`, one seed each."""
    for seed, final in enumerate(finals):
        rising = [final - 30, final - 20, final - 10, final]
        returns = [value for ret in rising for value in (None, ret)]
        folder = root / "-".join([str(kappa), str(seed), *words]).replace("/", "")
        record(folder, f"kappa={kappa}", f"seed={seed}", *words, returns=returns, round_bytes=[n_bytes] * 4)


@pytest.fixture
def runs(tmp_path: Path, record_run: RecordRun) -> Path:
    cell(record_run, tmp_path, 0, [10.0, 12.0, 14.0], 0)
    cell(record_run, tmp_path, 1, [50.0, 52.0, 54.0], 100)
    cell(record_run, tmp_path, 3, [51.0, 53.0, 55.0], 300)
    return tmp_path


def test_a_cells_figures_are_those_of_its_runs(runs: Path) -> None:
    found = compare([runs])
    assert [row.cell.settings for row in found.rows] == [{"kappa": kappa} for kappa in (0, 1, 3)]
    one = found.rows[1]
    assert one.ret.tolist() == [[50.0], [52.0], [54.0]]
    assert one.iqm == 52.0
    assert one.interval.low < 50.0
    assert one.interval.high - 52.0 == pytest.approx(52.0 - one.interval.low)
    assert one.cost == 0.5
    assert one.bytes_per_agent_step == 400 / (2 * 40)
    assert one.reached is None


def test_cells_are_compared_at_what_the_least_spent(runs: Path) -> None:
    found = compare([runs])
    assert found.positions == {"env_step": 40.0, "wire_bytes": 400.0, "virtual_s": 10.0}
    assert found.uneven == ["wire_bytes"]
    # 400 bytes: κ = 0 has them to spare, κ = 1 has just spent them, κ = 3 had spent 300 after its first round
    assert [row.equal["wire_bytes"] for row in found.rows] == [(12.0, 0.5), (52.0, 0.5), (23.0, 0.5)]
    assert [row.equal["env_step"].ret for row in found.rows] == [row.iqm for row in found.rows]


def test_who_stopped_sooner_sets_the_steps(runs: Path, record_run: RecordRun) -> None:
    record_run(runs / "short", "kappa=9", returns=[None, 1.0, None, 2.0], round_bytes=(5, 5))
    found = compare([runs])
    assert found.positions == {"env_step": 20.0, "wire_bytes": 10.0, "virtual_s": 5.0}
    assert found.uneven == ["env_step", "wire_bytes", "virtual_s"]
    long = next(row for row in found.rows if row.cell.settings["kappa"] == 3)
    assert long.equal["env_step"] == long.equal["virtual_s"] == (33.0, 0.5)
    assert np.isnan(long.equal["wire_bytes"].ret)
    assert "–" in printed(tables.comparison(found))


def test_the_answer_is_the_best_kappa_and_the_cheapest_that_it_does_not_surely_beat(runs: Path) -> None:
    (answer,) = compare([runs]).answers
    assert answer.group == ""
    assert answer.best.cell.settings == {"kappa": 3}
    assert answer.frugal.cell.settings == {"kappa": 1}
    assert answer.improvement == pytest.approx(6 / 9)
    (told,) = tables.answers(compare([runs]))
    assert "with κ=3 at 15.0 B per agent and step; no significant difference: 52.0 " in told
    assert told.endswith("with κ=1 at 5.0 B per agent and step, P(best > this) = 0.67")


def test_every_graph_gets_its_own_answer(tmp_path: Path, record_run: RecordRun) -> None:
    for kind, better in (("ring", 0.0), ("line", 40.0)):
        words = ["env.name=stochastic_game", f"topology.kind={kind}"]
        cell(record_run, tmp_path, 0, [10.0, 12.0], 0, *words)
        cell(record_run, tmp_path, 1, [5 + better, 6 + better], 100, *words)
    found = compare([tmp_path])
    best = {answer.group: answer.best.cell.settings["kappa"] for answer in found.answers}
    assert best == {"topology.kind=line": 1, "topology.kind=ring": 0}
    line, ring, overall = tables.answers(found)
    assert line.startswith("topology.kind=line: highest return 45.5 [")
    assert ring.startswith("topology.kind=ring: highest return 11.0 [")
    assert overall.startswith("of all: highest return 45.5 [")
    assert overall.endswith("with topology.kind=line kappa=1 at 5.0 B per agent and step")
    assert found.as_json()["overall"]["best"] == "topology.kind=line kappa=1"


@pytest.mark.parametrize("words", [("env.horizon=10", "env.horizon=20"), ("topology.kind=line", "topology.kind=ring")])
def test_cells_of_different_worlds_are_not_ranked(tmp_path: Path, record_run: RecordRun, words: tuple[str, str]) -> None:
    for word in words:  # the graph is part of a linear network
        for kappa in (0, 1):
            cell(record_run, tmp_path, kappa, [10.0, 12.0], kappa, word)
    found = compare([tmp_path])
    assert len(found.answers) == 2
    assert found.overall is None


def test_where_kappa_is_not_varied_every_world_gets_its_own_answer(tmp_path: Path, record_run: RecordRun) -> None:
    worlds = (["env.name=stochastic_game"], ["env.name=safe_ant", "env.partition=2x4"])
    for scale, words in zip((1.0, 1000.0), worlds, strict=True):
        for lr, returns in (("0.1", [1.0, 2.0]), ("0.2", [5.0, 6.0])):
            cell(record_run, tmp_path, 1, [scale * ret for ret in returns], 5, *words, f"algorithm.actor_lr={lr}")
    found = compare([tmp_path])
    assert found.overall is None
    assert [answer.best.cell.settings["algorithm.actor_lr"] for answer in found.answers] == [0.2, 0.2]
    assert {answer.best.cell.settings["env.name"] for answer in found.answers} == {"stochastic_game", "safe_ant"}
    assert all(told.startswith("env.name=") for told in tables.answers(found))


def test_how_many_threads_step_a_world_makes_it_no_other(tmp_path: Path, record_run: RecordRun) -> None:
    for threads in (1, 2):
        cell(
            record_run, tmp_path, 1, [10.0 * threads, 12.0], 5, "env.name=safe_ant", "env.partition=2x4", f"env.threads={threads}"
        )
    assert len(compare([tmp_path]).answers) == 1


def test_an_answer_says_when_its_cost_is_above_the_limit(tmp_path: Path, record_run: RecordRun) -> None:
    for kappa in (0, 1):
        words = ["env.name=safe_ant", "env.partition=2x4", "algorithm.cost_limit=0.6", f"kappa={kappa}"]
        folder = record_run(tmp_path / str(kappa), *words, returns=[10.0 * (kappa + 1)] * 8, round_bytes=[kappa] * 4)
        with closing(sqlite3.connect(folder / DATABASE)) as database:
            database.execute("UPDATE meta SET value = ? WHERE key = 'cost_mean'", (str(0.5 + kappa),))
            database.commit()
    (told,) = tables.answers(compare([tmp_path]))
    assert "with κ=1 at 0.1 B per agent and step (its cost 1.5 is above the limit 0.6); no significant difference: 10.0 –" in told
    assert told.endswith("with κ=0 at 0.0 B per agent and step, a single seed gives no probability")


def test_where_kappa_is_not_varied_all_cells_are_one_group(tmp_path: Path, record_run: RecordRun) -> None:
    for kind, returns, n_bytes in (("ring", [10.0, 12.0], 7), ("line", [20.0, 22.0], 5)):
        cell(record_run, tmp_path, 1, returns, n_bytes, "env.name=stochastic_game", f"topology.kind={kind}")
    (answer,) = compare([tmp_path]).answers
    assert answer.best is answer.frugal
    assert answer.best.cell.name == "topology.kind=line"
    (told,) = tables.answers(compare([tmp_path]))
    assert "with topology.kind=line at" in told


def test_of_single_runs_nothing_is_sure(tmp_path: Path, record_run: RecordRun) -> None:
    cell(record_run, tmp_path, 0, [10.0], 0)
    cell(record_run, tmp_path, 1, [90.0], 7)
    found = compare([tmp_path])
    assert np.isnan(found.rows[0].interval).all()
    assert found.answers[0].frugal.cell.settings == {"kappa": 0}
    assert found.answers[0].improvement is None
    assert found.as_json()["cells"][0]["improves_on"] == {"kappa=0": None, "kappa=1": None}
    (told,) = tables.answers(found)
    assert told.endswith("a single seed gives no probability")
    json.dumps(found.as_json(), allow_nan=False)


def test_when_a_threshold_was_reached_on_every_axis(runs: Path) -> None:
    found = compare([runs], threshold=42.0)
    # curves of κ = 1 rise by 10 a round to 50, 52, 54: at 42 the first is there in round 4, the others in round 3
    none, one, three = (row.reached for row in found.rows)
    assert none is not None
    assert one is not None
    assert three is not None
    assert none.runs == 0
    assert all(np.isinf(place) for place in none.median.values())
    assert one.runs == 3
    assert one.median == {"env_step": 30.0, "wire_bytes": 300.0, "virtual_s": 7.5}
    assert three.median["wire_bytes"] == 900.0
    text = printed(tables.reaching(found))
    assert "never" in text
    assert "3 of 3" in text
    held = compare([runs], threshold=42.0, held=2).rows[1].reached
    assert held is not None
    assert held.runs == 2


def test_unfinished_runs_and_those_without_an_episode_are_left_out_and_named(runs: Path, record_run: RecordRun) -> None:
    record_run(runs / "going-on", "kappa=7", returns=[1.0], ended=False)
    record_run(runs / "mute", "kappa=8")
    found = compare([runs])
    assert {folder.name for folder in found.left_out} == {"going-on", "mute"}
    assert len(found.rows) == 3


def test_without_a_complete_run_there_is_nothing_to_compare(tmp_path: Path, record_run: RecordRun) -> None:
    record_run(tmp_path / "going-on", ended=False)
    with pytest.raises(ScenarioError, match=r"no complete run in .*; 1 unfinished or without an episode"):
        compare([tmp_path])


def test_the_same_runs_give_the_same_object_and_it_is_json(runs: Path) -> None:
    first, second = (json.dumps(compare([runs], threshold=0.0).as_json(), allow_nan=False) for _ in range(2))
    assert first == second
    found = json.loads(first)
    assert found["profile_levels"] == [10.0, 12.0, 14.0, 50.0, 51.0, 52.0, 53.0, 54.0, 55.0]
    zero, one, three = found["cells"]
    assert zero["profile"] == pytest.approx([2 / 3, 1 / 3, 0, 0, 0, 0, 0, 0, 0])
    assert one["improves_on"] == {"kappa=0": 1.0, "kappa=1": 0.5, "kappa=3": pytest.approx(3 / 9)}
    assert three["seeds"] == [0, 1, 2]


def test_the_table_has_a_column_per_setting_and_costs_where_there_are_any(tmp_path: Path, record_run: RecordRun) -> None:
    for kappa in (0, 1):
        record_run(tmp_path / f"{kappa}", f"kappa={kappa}", returns=[1.0] * 8, round_bytes=[5 * kappa] * 4, cost=0.0)
    free = compare([tmp_path])
    assert "κ" in printed(tables.comparison(free))
    assert "return at 20 B" in printed(tables.comparison(free))
    record_run(tmp_path / "2", "kappa=2", returns=[1.0] * 8, round_bytes=[9] * 4)
    priced = compare([tmp_path])  # of a world without a limit
    for found, costs in ((free, False), (priced, True)):
        headings, lines = tables.cell_words(found)
        assert ("cost (limit)" in headings) == ("cost (limit)" in printed(tables.comparison(found))) == costs
        assert all(word in printed(tables.comparison(found)) for _, words in lines for word in words)


def test_trainings_and_evaluations_are_not_compared(tmp_path: Path, record_run: RecordRun) -> None:
    record_run(tmp_path / "run", returns=[1.0] * 8)
    folder = record_run(tmp_path / "run" / "evaluation-1", "rollout.steps=20", returns=[1.0] * 8)
    Deployment.read(folder).model_copy(update={"learns": False}).write(folder)
    with pytest.raises(ScenarioError, match=rf"^{tmp_path}/run is a training and {folder} an evaluation; compare one kind"):
        compare([folder, tmp_path / "run"])


def test_where_lines_are_short_the_table_cuts_nothing_off(tmp_path: Path, record_run: RecordRun) -> None:
    for preset in ("ideal", "wifi-busy"):
        record_run(tmp_path / preset, f"network.preset={preset}", returns=[12345.6] * 8, cost=0.0)
    text = printed(tables.comparison(compare([tmp_path])), width=36)
    lines = [[part.strip() for part in line.split("│")[1:-1]] for line in text.splitlines() if "│" in line]
    columns = ["".join(parts) for parts in zip(*lines, strict=True)]
    assert columns[0] == "idealwifi-busy"
    assert columns[2] == "12345.6" * 2


def test_brackets_in_values_are_shown(tmp_path: Path, record_run: RecordRun) -> None:
    for name, events in (("crash", "[{do: crash, agent: 0, from_s: 1}]"), ("none", "[]")):
        record_run(tmp_path / name, f"network.events={events}", returns=[1.0] * 8)
    text = printed(tables.comparison(compare([tmp_path])))
    assert "[{from_s: 1.0, do: crash, agent: 0}]" in text
    assert "│ [] " in text


def test_costs_are_shown_against_their_limit(tmp_path: Path, record_run: RecordRun) -> None:
    for kappa in (0, 1):
        record_run(
            tmp_path / str(kappa),
            "env.name=safe_ant",
            "env.partition=2x4",
            f"kappa={kappa}",
            returns=[1.0] * 8,
            round_bytes=[kappa] * 4,
        )
    text = printed(tables.comparison(compare([tmp_path])))
    assert "cost (limit)" in text
    assert "0.5 (50)" in text
    assert "return, cost" in text
    assert "1, 0.5" in text


def aging(record: RecordRun, root: Path, kappa: int, ages_s: tuple[float, float], seed: int) -> None:
    """A run with a cost limit of 0.4 whose first half was acted on news of one age at a cost of 0.5, its second of another."""
    words = ["env.name=safe_ant", "env.partition=2x4", "algorithm.cost_limit=0.4", f"kappa={kappa}", f"seed={seed}"]
    folder = record(root / f"{kappa}-{seed}", *words, returns=[1.0] * 8)
    with closing(sqlite3.connect(folder / DATABASE)) as database:
        for place in range(4):
            database.execute("INSERT INTO ages VALUES (?, 0, 1, 10, 0, ?, 1.0)", (place, ages_s[place // 2]))
        database.execute("UPDATE episodes SET cost = 0.3 WHERE round > 1")
        database.execute("UPDATE episodes SET cost = 0.5 WHERE round > 1 AND env_step = 25 + 5 * ?", (seed,))
        database.commit()


def test_violations_are_told_by_age_where_ages_differ(tmp_path: Path, record_run: RecordRun) -> None:
    record_run(tmp_path / "mute", "env.name=safe_ant", "env.partition=2x4", "algorithm.cost_limit=0.4", "kappa=0", returns=[1.0])
    for seed in (0, 7):  # where the one breaks the limit in the second half, the other never does
        aging(record_run, tmp_path, 1, (0.2, 0.1), seed)
    found = compare([tmp_path])
    mute, heard = found.rows
    assert mute.violations == []
    young, old = heard.violations
    assert (young.age_s, young.rate, young.episodes) == (0.1, 0.125, 8)
    assert (old.age_s, old.rate, old.episodes) == (0.2, 1.0, 8)
    assert found.ages_differ
    told = printed(tables.violating(found))
    assert "100 ms" in told
    assert "12.5 %" in told
    assert json.loads(json.dumps(found.as_json(), allow_nan=False))["cells"][1]["violations"][1] == {
        "age_s": 0.2, "rate": 1.0, "interval": [None, None], "episodes": 8,
    }  # fmt: skip


def test_of_one_age_there_is_nothing_to_tell(tmp_path: Path, record_run: RecordRun) -> None:
    aging(record_run, tmp_path, 1, (0.1, 0.1 + 1e-12), 0)
    assert [one.episodes for one in compare([tmp_path]).rows[0].violations] == [8]
    assert not compare([tmp_path]).ages_differ


# ------------------------------------------------------------------ by evaluations


@pytest.fixture
def evaluated(tmp_path: Path, record_run: RecordRun) -> Path:
    """Two cells of which the one that explores less looks better in training and is worse."""
    for kappa, trained, worth in ((0, 9.0, 1.0), (1, 5.0, 7.0)):
        for seed in (0, 1):
            words = [f"kappa={kappa}", f"seed={seed}", "evaluation.episodes=2"]
            judged = {1: worth - 3 + seed, 3: worth + seed}
            record_run(
                tmp_path / f"{kappa}-{seed}", *words, returns=[trained + seed] * 8, round_bytes=[10 * kappa] * 4, evaluated=judged
            )
    return tmp_path


def test_teams_are_judged_by_evaluations_and_training_returns_stay_available(evaluated: Path) -> None:
    found = compare([evaluated])
    assert found.judged == found.as_json()["judged"] == "evaluated"
    assert [row.iqm for row in found.rows] == [1.5, 7.5]
    assert [row.cost for row in found.rows] == [0.25, 0.25]
    assert found.answers[0].best.cell.settings == {"kappa": 1}
    assert "evaluated without exploration" in printed(tables.comparison(found))
    trained = compare([evaluated], training=True)
    assert trained.judged == "training"
    assert trained.unevaluated == []
    assert [row.iqm for row in trained.rows] == [9.5, 5.5]
    assert trained.answers[0].best.cell.settings == {"kappa": 0}
    assert "in training, exploration included" in printed(tables.comparison(trained))


def test_a_course_is_known_from_its_evaluations_on(evaluated: Path) -> None:
    (row, _) = compare([evaluated]).rows
    assert row.cell.runs[0].course("evaluated").ret.tolist()[1:] == [-2.0, -2.0, 1.0]
    assert np.isnan(row.cell.runs[0].course("evaluated").ret[0])
    assert row.cell.runs[0].course("training").ret.tolist() == [9.0] * 4


def test_a_run_without_an_evaluation_is_left_out_and_named(evaluated: Path, record_run: RecordRun) -> None:
    record_run(evaluated / "old", "kappa=2", "seed=0", "evaluation.episodes=2", returns=[30.0] * 8)
    found = compare([evaluated])
    assert found.judged == "evaluated"
    assert [row.iqm for row in found.rows] == [1.5, 7.5]
    assert tables.unevaluated(found) == [
        f"left out: {evaluated / 'old'} has no evaluation (--training compares all by their training returns)"
    ]
    assert [row.iqm for row in compare([evaluated], training=True).rows] == [9.5, 5.5, 30.0]
    alone = compare([evaluated / "old"])
    assert (alone.judged, alone.rows[0].iqm) == ("training", 30.0)
    assert tables.unevaluated(alone) == ["judged by training returns, exploration included: no run has an evaluation"]


def test_a_setting_that_an_older_run_did_not_know_is_not_recorded(tmp_path: Path, record_run: RecordRun) -> None:
    """Today's default need not be what that version did, so the two are not runs of one cell."""
    for seed in (0, 1):
        record_run(tmp_path / f"{seed}", f"seed={seed}", returns=[1.0] * 8)
    older = tmp_path / "1" / "scenario.yaml"
    written = yaml.safe_load(older.read_text())
    del written["env"]["stagger"], written["evaluation"]
    older.write_text(yaml.safe_dump(written))
    found = compare([tmp_path])
    assert {row.cell.words["env.stagger"] for row in found.rows} == {"true", "not recorded"}
    assert {row.cell.words["evaluation.episodes"] for row in found.rows} == {"4", "not recorded"}


def test_a_comparison_says_whether_policies_drew_their_actions(evaluated: Path, record_run: RecordRun) -> None:
    drawn = {"returns": [3.0] * 8, "evaluated": {3: 4.0}}
    record_run(evaluated / "more" / "drawn", "kappa=2", "seed=0", "evaluation.deterministic=false", **drawn)
    assert compare([evaluated / "more"]).how == "evaluated with drawn actions"
    assert compare([evaluated]).how == "evaluated some without exploration, some with drawn actions"


def test_a_team_that_does_nothing_has_a_line_per_world(tmp_path: Path, record_run: RecordRun) -> None:
    for kind, still in (("line", -40.0), ("ring", -60.0)):
        for kappa in (0, 1):
            record_run(tmp_path / f"{kind}{kappa}", f"topology.kind={kind}", f"kappa={kappa}", returns=[1.0] * 8, idle=still)
    found = compare([tmp_path])
    assert found.idle == {"topology.kind=line": (-40.0, 0.0), "topology.kind=ring": (-60.0, 0.0)}
    lines = [line for line in printed(tables.comparison(found)).splitlines() if "does nothing" in line]
    assert ["-40.0" in line or "-60.0" in line for line in lines] == [True, True]
    assert found.as_json()["idle"]["topology.kind=ring"] == {"ret": -60.0, "cost": 0.0}


def test_a_run_whose_last_policies_were_not_evaluated_is_not_judged_by_earlier_ones(
    tmp_path: Path, record_run: Callable[..., Path]
) -> None:
    """As when the evaluation at the end was interrupted, or an agent was lost."""
    record_run(tmp_path / "a", "kappa=0", returns=[1.0] * 8, evaluated={1: 9.0})
    record_run(tmp_path / "b", "kappa=1", returns=[2.0] * 8, evaluated={1: 5.0, 3: 6.0})
    found = compare([tmp_path])
    assert [row.cell.runs[0].folder for row in found.rows] == [tmp_path / "b"]
    assert found.unevaluated == [tmp_path / "a"]
    record_run(tmp_path / "on" / "a", "kappa=0", returns=[1.0] * 8, evaluated={1: 9.0}, ended=False)
    (going_on,) = find([tmp_path / "on"])
    assert going_on.is_judged("evaluated")
