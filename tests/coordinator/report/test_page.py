"""The report page: what it says of runs, that it needs nothing else, and that what runs say stays text."""

import base64
import hashlib
import json
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

from coordinator.records.run_sqlite import DATABASE
from coordinator.report.page import document, fragment, write
from coordinator.report.panels import MAPS
from coordinator.report.tables import figure
from coordinator.study.runs import find
from scenarios.loading import ScenarioError
from scenarios.plugins import register_metric
from scenarios.registry import METRICS
from topology.deployment import DEPLOYMENT_FILE, SCENARIO_FILE
from topology.wire.ledger import REASONS

RecordRun = Callable[..., Path]
VOID = {"meta", "link", "input", "br"}


class Outline(HTMLParser):
    """What is in a page; fails on tags that do not close."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self.open):
            self.text.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())

    def count(self, kind: str) -> int:
        return sum(kind in (attributes.get("class") or "").split() for _, attributes in self.tags)

    def ids(self) -> list[str]:
        return [name for _, attributes in self.tags if (name := attributes.get("id"))]


def rising(final: float) -> list[float | None]:
    return [value for ret in (final - 30, final - 20, final - 10, final) for value in (None, ret)]


@pytest.fixture
def runs(tmp_path: Path, record_run: RecordRun) -> Path:
    """Two graphs (of two agents they are the same), κ = 0 and 1, two seeds: on the line κ = 1 is worth its bytes."""
    for kind, best in (("line", 50.0), ("complete", 12.0)):
        for seed in (0, 1):
            for kappa, final, n_bytes in ((0, 10.0, 0), (1, best, 100)):
                words = ["env.name=stochastic_game", f"topology.kind={kind}", f"kappa={kappa}", f"seed={seed}"]
                record_run(tmp_path / "-".join(words), *words, returns=rising(final + seed), round_bytes=[n_bytes] * 4)
    return tmp_path


def change(folder: Path, sql: str) -> None:
    with closing(sqlite3.connect(folder / DATABASE)) as database:
        database.execute(sql)
        database.commit()


def policy_of(text: str) -> str:
    return next(a["content"] or "" for _, a in Outline(text).tags if a.get("http-equiv") == "Content-Security-Policy")


def test_the_page_is_well_formed_and_every_id_is_its_own(runs: Path) -> None:
    page = Outline(document([runs]))
    assert len(set(page.ids())) == len(page.ids())


def test_the_page_needs_nothing_but_itself(runs: Path) -> None:
    text = document([runs])
    page = Outline(text)
    for _, attributes in page.tags:
        for key, value in attributes.items():
            assert key not in ("src", "srcset", "action", "style"), key
            assert key != "href" or value == "data:,"
            assert not key.startswith("on")
    assert "//" not in re.sub(r"// .*", "", text), "an address of another place, besides comments of the script"
    assert not re.search(r"@import|url\(", text)


def test_the_policy_lets_nothing_run_but_the_pages_own_script(runs: Path) -> None:
    text = document([runs])
    policy = policy_of(text)
    told = {part.split()[0]: part.split()[1:] for part in policy.split("; ")}
    for tag, rule in (("style", "style-src"), ("script", "script-src")):
        (inside,) = re.findall(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        assert told[rule] == [f"'sha256-{base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()}'"]
    assert told["default-src"] == told["connect-src"] == ["'none'"]
    assert "connect-src 'self'" in policy_of(document([runs], live=True))


def test_the_answer_comes_first_and_every_cell_has_its_place(runs: Path) -> None:
    page = Outline(document([runs]))
    assert page.ids()[0] == "answers"
    assert "quickstart: 4 cells, 8 runs" in page.words
    assert "topology.kind=line: highest return 50.5" in page.words
    assert "of all: highest return 50.5" in page.words
    assert page.words.count("best of all worth its bytes among all") == page.words.count("best worth its bytes ") == 1
    assert page.count("best") == page.count("frugal") == 2
    assert "100.0 B" not in page.words
    assert page.words.count("topology.kind=complete kappa=1") >= 3, "map, table, runs"
    # two groups: prices, return, cost, divergence and steps per second of each; four maps of three links' lines each
    assert page.count("chart") == 10
    assert page.count("map") == 4
    assert page.count("front") == 2


def test_a_single_run_is_told_without_comparison(tmp_path: Path, record_run: RecordRun) -> None:
    folder = record_run(tmp_path / "run", returns=rising(50.0), round_bytes=[100] * 4)
    change(folder, "UPDATE meta SET value = '0.4' WHERE key = 'cost_limit'")
    page = Outline(document([folder]))
    assert "quickstart, seed 0" in page.words
    assert (
        "Return 50.0, in training, exploration included; cost 0.5, limit 0.4: exceeded; 5.0 B per agent and step between agents."
        in page.words
    )
    assert page.count("front") == 0
    assert page.count("limit") == 1
    assert f"kappahop run {tmp_path / 'run' / SCENARIO_FILE}" in page.words


def test_an_unfinished_run_is_shown_as_far_as_it_has_come(tmp_path: Path, record_run: RecordRun) -> None:
    folder = record_run(tmp_path / "run", "budget.env_steps=80", returns=rising(50.0), round_bytes=[100] * 4, ended=False)
    page = Outline(document([folder]))
    assert "Unfinished: 40 of 80 environment steps" in page.words
    assert "Return 50.0" in page.words
    assert page.count("chart") == 4  # return, cost, divergence, steps per second
    assert page.count("map") == 1


def test_unfinished_runs_are_left_out_beside_finished_ones(tmp_path: Path, record_run: RecordRun) -> None:
    record_run(tmp_path / "a", returns=rising(50.0))
    record_run(tmp_path / "b", "kappa=2", "budget.env_steps=80", returns=rising(90.0), ended=False)
    page = Outline(document([tmp_path]))
    assert "quickstart, seed 0" in page.words
    assert f"Left out, unfinished or without an episode: {tmp_path / 'b'}." in page.words


def test_what_is_judged_by_evaluations_shows_training_returns_besides(tmp_path: Path, record_run: RecordRun) -> None:
    words = ["kappa=1", "evaluation.episodes=2"]
    record_run(tmp_path / "run", *words, returns=[5.0] * 8, evaluated={1: -9.0, 3: -7.0})
    told = Outline(document([tmp_path])).words
    assert "Return -7, evaluated without exploration; " in told
    assert "Mean over the episodes of the latest evaluation, without exploration." in told
    assert "Return in training Mean over the training episodes that ended" in told
    assert "The dotted line is the best return that a team can be expected to reach" in told
    trained = Outline(document([tmp_path], training=True)).words
    assert "Return 5, in training, exploration included; " in trained
    assert "Return in training Mean" not in trained


def test_a_run_in_which_no_training_episode_ended_is_shown_by_its_evaluations(tmp_path: Path, record_run: RecordRun) -> None:
    record_run(tmp_path / "run", "kappa=1", "evaluation.episodes=2", evaluated={1: -9.0, 3: -7.0})
    told = Outline(document([tmp_path])).words
    assert "Return -7, evaluated without exploration; " in told
    assert "Return in training" not in told


def test_a_run_without_an_episode_says_so_and_shows_its_links(tmp_path: Path, record_run: RecordRun) -> None:
    for ended in (False, True):
        page = Outline(document([record_run(tmp_path / str(ended), round_bytes=[100] * 4, ended=ended)]))
        assert "No episode has ended yet" in page.words
        assert page.count("map") == 1
    begun = tmp_path / "True"
    change(begun, "DELETE FROM rounds")
    page = Outline(document([begun]))
    assert page.count("map") == 1
    assert "No agent sent anything" in page.words


def test_ages_and_drops_are_shown_where_there_are_any(runs: Path) -> None:
    assert not {"ages", "drops"} & set(Outline(document([runs])).ids())
    for run in find([runs]):
        if run.scenario.kappa:
            change(
                run.folder,
                "INSERT INTO ages VALUES (0, 0, 1, 10, 0, 0.2, 0.5), (2, 0, 1, 30, 0, 0.1, 0.5), (2, 1, 0, 10, 0, 0.5, 0.5)",
            )
            change(
                run.folder,
                "UPDATE traffic SET messages = 100, dropped = 5, loss = 3, late = 2 WHERE plane = 'peer' AND round = 0",
            )
            assert [values.tolist() for values in run.ages(4)] == [[1.0, 3.0], [pytest.approx(0.2), pytest.approx(0.2)]]
    page = Outline(document([runs]))
    assert {"ages", "drops"} <= set(page.ids())
    # a hundred in the first round, one in each of the three others
    drops = page.words.partition("Messages that did not arrive")[2]
    assert "topology.kind=complete kappa=1 206 4.85 % 2.91 % – – – – 1.94 %" in drops
    assert all(reason.replace("_", " ") in drops for reason in REASONS)


def test_violations_against_age_are_shown_where_there_are_limits_and_ages_differ(tmp_path: Path, record_run: RecordRun) -> None:
    for seed in (0, 1):
        words = ("env.name=safe_ant", "env.partition=2x4", "algorithm.cost_limit=0.6", f"seed={seed}")
        folder = record_run(tmp_path / str(seed), *words, returns=[1.0] * 8)
        change(folder, "INSERT INTO ages SELECT round, 0, 1, 10, 0, 0.1, 0.5 FROM rounds WHERE agent = 0")
    assert "violations" not in Outline(document([tmp_path])).ids()
    for seed in (0, 1):
        change(tmp_path / str(seed), f"UPDATE episodes SET cost = 0.7 WHERE env_step = 5 * {seed + 1}")
        change(tmp_path / str(seed), "UPDATE ages SET mean_s = 0.3 WHERE round = 0")
    page = Outline(document([tmp_path]))
    assert "violations" in page.ids()
    told = page.words.partition("Limits broken")[2]
    assert "quickstart 100 ms 12 0.0 % – quickstart 300 ms 4 50.0 % –" in told


def test_traffic_is_by_link_per_round_in_each_stretch(tmp_path: Path, record_run: RecordRun) -> None:
    (run,) = find([record_run(tmp_path / "run", round_bytes=[10, 20, 60, 100, 100])])
    found = run.traffic(2)
    assert found.edges.tolist() == [0, 3, 5]
    assert {key: rates.tolist() for key, rates in found.links.items()} == {(0, 1): [30.0, 100.0]}
    assert found.messages == 5
    assert run.traffic(99).links[0, 1].tolist() == [10.0, 20.0, 60.0, 100.0, 100.0]


def test_only_cells_that_the_answers_name_are_drawn_where_there_are_many(tmp_path: Path, record_run: RecordRun) -> None:
    for kappa in range(MAPS + 1):
        record_run(tmp_path / str(kappa), f"kappa={kappa}", returns=rising(float(kappa)), round_bytes=[100 + kappa] * 4)
    page = Outline(document([tmp_path]))
    assert page.count("map") == 2
    assert f"{MAPS - 1} others are left out" in page.words


def test_what_a_scenario_says_of_itself_stays_text(tmp_path: Path, record_run: RecordRun) -> None:
    folder = record_run(tmp_path / "run", returns=rising(1.0))
    path = folder / SCENARIO_FILE
    path.write_text(
        yaml.safe_dump({**yaml.safe_load(path.read_text()), "description": "</p><script>alert(1)</script>", "name": '"><b>'})
    )
    text = document([folder])
    assert "<script>alert" not in text
    page = Outline(text)
    assert sum(tag == "script" for tag, _ in page.tags) == 1
    assert "</p><script>alert(1)</script>" in page.words
    assert '"><b>, seed 0' in page.words


def test_runs_on_different_graphs_are_not_averaged(tmp_path: Path, record_run: RecordRun) -> None:
    one, other = (record_run(tmp_path / str(seed), f"seed={seed}", returns=rising(1.0), round_bytes=[9] * 4) for seed in (0, 1))
    assert "mean over runs" in fragment([tmp_path])
    deployment = json.loads((other / DEPLOYMENT_FILE).read_text())
    (other / DEPLOYMENT_FILE).write_text(json.dumps({**deployment, "edges": []}))
    assert "mean over runs" not in fragment([tmp_path])
    assert one != other


def test_the_same_runs_make_the_same_page(runs: Path) -> None:
    assert document([runs]) == document([runs])


def test_a_link_in_the_file_s_place_is_replaced_and_one_beside_it_is_not_written_through(tmp_path: Path, runs: Path) -> None:
    mine = tmp_path / "mine"
    mine.write_text("kept")
    for name in ("report.html", "report.html.part", "report.html.partial"):
        (runs / name).symlink_to(mine)
    write([runs], runs / "report.html")
    assert mine.read_text() == "kept"
    assert not (runs / "report.html").is_symlink()
    assert (runs / "report.html").read_text(encoding="utf-8") == document([runs])


def test_the_file_is_written_whole_or_not_at_all(runs: Path) -> None:
    write([runs], runs / "below" / "report.html")
    assert (runs / "below" / "report.html").read_text(encoding="utf-8") == document([runs])
    assert [path.name for path in (runs / "below").iterdir()] == ["report.html"]
    with pytest.raises(ScenarioError, match=r"^--out: cannot write .*run.sqlite/report.html \(.*\)$"):
        write([runs], next(runs.rglob(DATABASE)) / "report.html")
    (runs / "folder").mkdir()
    with pytest.raises(ScenarioError, match=r"^--out: cannot write .*folder \(Is a directory\)$"):
        write([runs], runs / "folder")
    assert not list(runs.rglob("*.partial"))
    with pytest.raises(ScenarioError, match="no run in"):
        write([runs / "below"], runs / "report.html")


def test_how_agents_learn_has_a_panel_per_metric_and_a_limit_its_sentence(tmp_path: Path, record_run: RecordRun) -> None:
    folder = record_run(tmp_path / "run", "env.control_limit=0.01", returns=rising(50.0), round_bytes=[100] * 4)
    told = {"multiplier_0": "0.1 * round", "std": "0.5 - 0.1 * round", "value_loss": "1.0", "cost_value_loss_0": "2.0"}
    change(
        folder, f"UPDATE rounds SET {', '.join(f'{name} = {value}' for name, value in told.items())}, wall_s = 2.0 * round + 2.0"
    )
    page = Outline(document([folder]))
    for heading in (
        "Multiplier",
        "KL divergence",
        "Spread",
        "Loss of the value critic",
        "Loss of the cost critic",
        "Steps per second",
    ):
        assert f"{heading} Mean over agents: " in page.words or f"{heading} Environment steps per second" in page.words
    assert page.count("chart") == 2 + 6
    assert "Limit 1 on cost kept: 0.5 on average over 1 episode." in page.words
    (run,) = find([folder])
    assert run.learning("multiplier_0")[1].tolist() == pytest.approx([0.0, 0.1, 0.2, 0.3])
    assert run.learning("margin_0")[1].tolist() == []
    assert [values.tolist() for values in run.rates(2)] == [[20.0, 40.0], [5.0, 5.0]]


def test_a_registered_metric_is_a_column_of_every_run_and_its_mistake_costs_no_report(
    tmp_path: Path, record_run: RecordRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(METRICS, "_added", {})
    folder = record_run(tmp_path / "run", returns=rising(50.0))
    register_metric("steps squared", lambda run: run.steps_done**2)
    register_metric("unknown", lambda run: None)
    register_metric("broken", lambda run: 1 / 0)
    text = document([folder])
    assert '<th scope="col" class="number">steps squared</th>' in text
    (run,) = find([folder])
    steps = run.steps_done
    assert f'<td class="number">{figure(steps**2)}</td>' in text
    assert "ZeroDivisionError: division by zero" in text


def test_agents_that_average_their_networks_have_their_disagreement_and_the_spectral_gap(
    tmp_path: Path, record_run: RecordRun
) -> None:
    folder = record_run(tmp_path / "run", returns=rising(50.0), round_bytes=[100] * 4)
    change(folder, """UPDATE rounds SET more = json_patch(more, '{"disagreement_critic": 0.5}')""")
    change(folder, "INSERT OR REPLACE INTO meta VALUES ('spectral_gap', '0.25')")
    words = Outline(document([folder])).words
    assert "Disagreement of critics Mean over agents: distance" in words
    assert "spectral gap of the mixing matrix 0.25." in words
    assert "Disagreement of policies" not in words
