"""Run folders that come from somewhere else, broken or made to harm: every verb ends with one sentence, and soon."""

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from coordinator.cli.app import app
from coordinator.records import run_sqlite
from coordinator.records.plan import MANIFEST_FILE
from coordinator.records.run_sqlite import DATABASE, VERSION
from coordinator.study.sweep import MANIFEST_FILE as SWEEP_FILE
from topology.deployment import DEPLOYMENT_FILE, SCENARIO_FILE

Harm = Callable[[Path], object]
NESTED = "[" * 20_000 + "]" * 20_000


def sql(*statements: str) -> Harm:
    def harm(folder: Path) -> None:
        with closing(sqlite3.connect(folder / DATABASE)) as database:
            for statement in statements:
                database.execute(statement)
            database.commit()

    return harm


def text(name: str, content: str) -> Harm:
    return lambda folder: (folder / name).write_text(content)


def deployment(**changes: object) -> Harm:
    def harm(folder: Path) -> None:
        found = json.loads((folder / DEPLOYMENT_FILE).read_text())
        (folder / DEPLOYMENT_FILE).write_text(json.dumps(found | changes))

    return harm


def figure(name: str, value: str) -> Harm:
    return sql(f"UPDATE meta SET value = '{value}' WHERE key = '{name}'")


ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n)"
COLUMNS = "round, agent, env_step, wall_s, virtual_s, value_loss, advantage_std, kl, entropy, std, clip_frac, grad_norm"
HARMS: dict[str, tuple[Harm, str]] = {
    "an endless view": (
        sql("DROP TABLE rounds", f"CREATE VIEW rounds AS {ENDLESS} SELECT i AS round, 0 AS agent, 10 AS env_step FROM n"),
        "run.sqlite: 'rounds' is a view, expected tables",
    ),
    "a view by another case": (
        sql("DROP TABLE ages", f"CREATE VIEW Ages AS {ENDLESS} SELECT i AS round FROM n"),
        "run.sqlite: 'Ages' is a view, expected tables",
    ),
    "a trigger": (
        sql("CREATE TRIGGER t AFTER DELETE ON meta BEGIN DELETE FROM rounds; END"),
        "run.sqlite: 't' is a trigger, expected tables",
    ),
    "a virtual table": (
        sql("DROP TABLE events", "CREATE VIRTUAL TABLE events USING fts5(wall_s, role, text)"),
        "run.sqlite: 'events' is a virtual table, expected tables",
    ),
    "a generated column": (
        sql("ALTER TABLE events ADD COLUMN x AS (zeroblob(1000000000))"),
        "run.sqlite: table 'events' has generated columns, expected none",
    ),
    "a newer schema": (
        sql(f"PRAGMA user_version={VERSION + 1}"),
        f"run.sqlite: recorded by a newer kappahop (schema {VERSION + 1}; this one knows {VERSION})",
    ),
    "an older schema": (
        sql("PRAGMA user_version=0", "ALTER TABLE traffic RENAME COLUMN in_flight TO under_way"),
        "run.sqlite: cannot be read (no such column: in_flight; an older kappahop recorded it",
    ),
    "noise": (text(DATABASE, "no database " * 500), "run.sqlite: cannot be read (file is not a database)"),
    "negative rounds": (
        sql("UPDATE traffic SET round = round - 9"),
        "run.sqlite: cannot be read (table traffic: a round is '-9')",
    ),
    "rounds that are words": (
        sql("INSERT INTO ages VALUES ('x', 0, 1, 1, 0, 0.1, 0.1)"),
        "run.sqlite: cannot be read (table ages: a round is 'x')",
    ),
    "words for numbers": (sql("UPDATE episodes SET \"return\" = 'much'"), "run.sqlite: cannot be read (table episodes: "),
    "no rounds": (sql("DELETE FROM rounds"), ""),
    "a figure that is an object": (figure("return_mean", '{"a": 1}'), "run.sqlite: cannot be read (meta: return_mean: "),
    "a figure that is nested": (figure("return_mean", NESTED), "run.sqlite: cannot be read ("),
    "a figure that is no JSON": (figure("cost_mean", "1,"), "run.sqlite: cannot be read (table meta: "),
    "a divergence that is none": (
        figure("diverged", '[{"who": "me"}]'),
        "run.sqlite: cannot be read (meta: diverged: it lacks 'agent'",
    ),
    "a verdict that is none": (figure("limits", '[{"cost": 3}]'), "run.sqlite: cannot be read (meta: limits: "),
    "no cost": (sql("DELETE FROM meta WHERE key = 'cost_mean'"), "cannot be read as a run (KeyError: 'cost_mean'; "),
    "no bytes": (sql("DELETE FROM meta WHERE key = 'bytes_per_agent_step'"), "cannot be read as a run (KeyError: "),
    "a manifest that is a list": (
        text(MANIFEST_FILE, "[]"),
        "manifest.json: cannot be read (it holds a list, expected an object)",
    ),
    "a manifest that is nested": (text(MANIFEST_FILE, NESTED), "manifest.json: cannot be read ("),
    "a manifest with other packages": (text(MANIFEST_FILE, '{"packages": 3}'), "manifest.json: cannot be read (it is not"),
    "a deployment that is nested": (text(DEPLOYMENT_FILE, NESTED), "deployment.json: cannot be read ("),
    "a deployment without sizes": (text(DEPLOYMENT_FILE, "{}"), "deployment.json: cannot be read ("),
    "a deployment of other sizes": (deployment(act_dims=[1]), "deployment.json: cannot be read (the whole: "),
    "a deployment with edges to nowhere": (deployment(edges=[[0, 7]]), "deployment.json: cannot be read (the whole: "),
    "no deployment": (lambda folder: (folder / DEPLOYMENT_FILE).unlink(), "deployment.json: cannot be read (No such file"),
    "a scenario that is nested": (text(SCENARIO_FILE, NESTED), "scenario.yaml: "),
}
VERBS = {
    "report": ["report", "{}"],
    "figures": ["figures", "{}"],
    "compare": ["compare", "{}"],
    "compare as JSON": ["compare", "{}", "--json"],
    "export": ["export", "{}", "--out", "{}/tables"],
    "evaluate": ["evaluate", "{}", "--in-process", "-q"],
    "decay": ["decay", "{}"],
    "resume": ["resume", "{}", "--in-process", "-q"],
}


def told(folder: Path, verb: str) -> tuple[int, str]:
    """A verb's exit code and what it said, which is at most one line."""
    done = CliRunner().invoke(app, [word.format(folder) for word in VERBS[verb]], env={"COLUMNS": "1000"})
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stderr.strip()


@pytest.mark.parametrize("name", HARMS)
def test_a_broken_folder_is_told_by_every_verb(
    tmp_path: Path, record_run: Callable[..., Path], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_sqlite, "QUERY_S", 5.0)
    folder = record_run(tmp_path / "run", returns=[1.0] * 8, round_bytes=[9] * 4)
    weights = folder / "checkpoints" / "final"
    weights.mkdir(parents=True)
    for agent in (0, 1):
        (weights / f"agent-{agent}.safetensors").write_bytes(b"no weights")
    harm, why = HARMS[name]
    harm(folder)
    said = {verb: told(folder, verb) for verb in VERBS}
    for verb, (code, words) in said.items():
        assert code in (0, 1, 2), (verb, code, words)
        assert "Traceback" not in words
        if code:
            assert words.startswith("kappahop: "), (verb, words)
            assert len(words) < 1000
    assert any(why in words for _, words in said.values()), said
    assert said["evaluate"][0] != 0
    assert said["decay"][0] != 0


@pytest.mark.parametrize(
    "content", [b"", b"\xff" * 8, b"\x00" * 100, (2**62).to_bytes(8, "little") + b"{}", b"\x02" + b"\0" * 7 + b"{}"]
)
@pytest.mark.parametrize("verb", ["evaluate", "decay"])
def test_broken_weights_are_told_with_their_name(
    tmp_path: Path, record_run: Callable[..., Path], content: bytes, verb: str
) -> None:
    folder = record_run(tmp_path / "run", "algorithm.actor_scope=khop", returns=[1.0] * 8, round_bytes=[9] * 4)
    weights = folder / "checkpoints" / "final"
    weights.mkdir(parents=True)
    for agent in (0, 1):
        (weights / f"agent-{agent}.safetensors").write_bytes(content)
    code, words = told(folder, verb)
    assert code in (1, 2)
    assert "agent-0" in words or "agent 0" in words


def test_a_query_that_takes_too_long_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_run: Callable[..., Path]
) -> None:
    monkeypatch.setattr(run_sqlite, "QUERY_S", 0.2)
    folder = record_run(tmp_path / "run", returns=[1.0] * 8, round_bytes=[9] * 4)
    with closing(run_sqlite.Reader(folder)) as reader:
        with pytest.raises(ValueError, match=r"run.sqlite: cannot be read \(a query took more than 0.2 s: WITH"):
            reader.query(f"{ENDLESS} SELECT max(i) FROM n")
        monkeypatch.setattr(run_sqlite, "MAX_ROWS", 1000)
        with pytest.raises(ValueError, match=r"run.sqlite: cannot be read \(more than 1,000 rows: WITH"):
            reader.query(f"{ENDLESS} SELECT i FROM n")
        assert reader.query("SELECT count(*) FROM rounds")[1] == [(8,)]


@pytest.mark.parametrize(
    "content", ["", "[]", NESTED, '{"format": 1}', '{"format": 1, "scenario": "x", "commands": 3, "cells": []}']
)
def test_a_broken_sweep_is_told(tmp_path: Path, record_run: Callable[..., Path], content: str) -> None:
    record_run(tmp_path / "cell" / "seed=0", returns=[1.0] * 8, round_bytes=[9] * 4)
    (tmp_path / SWEEP_FILE).write_text(content)
    words = ["sweep", "lq_line20", "kappa=0", "--seeds", "0", "--in-process", "-q", "--out", str(tmp_path)]
    for told_by in (words, ["report", str(tmp_path)]):
        done = CliRunner().invoke(app, told_by, env={"COLUMNS": "1000"})
        assert isinstance(done.exception, SystemExit)
        assert done.exit_code == 2
        assert "sweep.json: " in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
