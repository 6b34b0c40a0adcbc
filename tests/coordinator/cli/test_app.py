"""The command line: what it prints, and that wrong input costs one line and exit code 2, no process and no folder."""

import ast
import json
import os
import shlex
import signal
import socket
import sqlite3
import subprocess
import sys
from contextlib import closing
from importlib import metadata
from pathlib import Path
from typing import Any

import networkx as nx
import pytest
import typer

from coordinator.cli import app as command
from coordinator.cli import guard
from coordinator.cli.app import app
from coordinator.cli.examples import EXAMPLES
from coordinator.evaluation import play
from coordinator.records.plan import first_free
from coordinator.records.run_sqlite import DATABASE
from coordinator.run import supervisor
from coordinator.run.metrics import Report
from coordinator.session import new_folders
from coordinator.study import sweep
from coordinator.study.grid import cells
from scenarios.loading import all_keys, load, shipped
from scenarios.recipes import RECIPES
from topology.graph import drawing

LQ = ["env.name=network_lq", "env.agents=4", "topology.kind=line"]
SMALL = [
    "env.num_envs=1", "rollout.steps=20", "budget.env_steps=20", "env.horizon=10", "algorithm.hidden=[4]",
    "algorithm.minibatches=1", "record.tensorboard=false", "--in-process",
]  # fmt: skip


class Ran:
    """What a command line did."""

    def __init__(self, code: object, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


class Call:
    """Calls the command in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def __call__(self, *words: str) -> Ran:
        self._monkeypatch.setattr(sys, "argv", ["kappahop", *words])
        with pytest.raises(SystemExit) as left:
            command.main()
        out, err = self._capsys.readouterr()
        return Ran(left.value.code, out, err)


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Call:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setattr(supervisor, "run", lambda *_: pytest.fail("a process was about to be started"))
    return Call(monkeypatch, capsys)


def test_list_names_every_shipped_scenario(call: Call) -> None:
    ran = call("list")
    assert not ran.code
    assert all(name in ran.out for name in shipped())


def test_schema_is_json_schema_with_every_section_and_setting(call: Call) -> None:
    ran = call("schema")
    assert not ran.code
    found = json.loads(ran.out)
    settings = {name for part in (found, *found["$defs"].values()) for name in part["properties"]}
    assert {key.rpartition(".")[2] for key in all_keys()} <= settings
    described = [
        setting for part in found["$defs"].values() for setting in part["properties"].values() if "description" in setting
    ]
    assert all(setting["unit"] for setting in described)
    assert len(described) > 50


def test_graph_prints_a_line_per_kappa_and_draws(call: Call, tmp_path: Path) -> None:
    ran = call("graph", "quickstart", *LQ, "kappa=2", "--out", "net.svg")
    assert not ran.code
    assert "diameter 3" in ran.out
    assert "2 ◂" in ran.out
    assert "2 3 3 2" in ran.out
    assert (tmp_path / "net.svg").stat().st_size > 1000


def test_graph_marks_the_last_line_where_kappa_reaches_beyond_it(call: Call) -> None:
    assert "3 ◂" in call("graph", "quickstart", *LQ, "kappa=9").out


def test_an_unstable_network_is_told_by_graph_and_run_and_once_per_graph_by_sweep(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["env.name=network_lq", "env.agents=6", "env.beta=0.27"]
    told = "warning: the linear network is unstable with env.beta = 0.27"
    ran = call("graph", "quickstart", *words, "topology.kind=star")
    assert "linear network: env.beta = 0.27, spectral radius ρ(αI + βA) = 1.104, stable for 0 ≤ β < 0.2236" in ran.out
    assert told in ran.out
    assert told not in call("graph", "quickstart", *words[:2], "topology.kind=star").out
    assert told in call("run", "quickstart", *words, *SMALL, "topology.kind=star").err
    assert told not in call("run", "quickstart", *words, *SMALL, "topology.kind=star", "--quiet").err
    assert told not in call("run", "quickstart", *words[:2], *SMALL, "topology.kind=star").err
    monkeypatch.setattr(sweep, "run", lambda *_, **__: False)
    ran = call("sweep", "quickstart", *words, "topology.kind=line,star,complete", "kappa=0,1,2")
    assert ran.err.count(told) == 2


@pytest.mark.parametrize("kind", ["grid", "random_geometric"])
def test_graphs_with_places_are_drawn_there(call: Call, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    drawn: list[nx.Graph] = []
    monkeypatch.setattr(drawing, "draw", lambda graph, *_: drawn.append(graph))
    ran = call("graph", "quickstart", "env.name=network_lq", "env.agents=6", f"topology.kind={kind}")
    assert not ran.code, ran.err
    (graph,) = drawn
    assert len(set(nx.get_node_attributes(graph, "pos").values())) == 6


def test_help_names_every_command(call: Call) -> None:
    ran = call("--help")
    assert not ran.code
    assert all(word in ran.out for word in ("run", "evaluate", "sweep", "compare", "export", "graph", "list", "schema", "doctor"))


@pytest.mark.parametrize(("verb", "line"), [(verb, line) for verb, lines in EXAMPLES.items() for line in lines])
def test_help_names_examples_that_the_verb_understands(call: Call, verb: str, line: str) -> None:
    program, named, *words = shlex.split(line)
    assert (program, named) == ("kappahop", verb)
    assert line in " ".join(call(verb, "--help").out.split())
    group: Any = typer.main.get_group(app)
    command = group.get_command(group.context_class(group), verb)
    with command.make_context(verb, list(words)) as context:
        scenario, overrides = context.params.get("scenario"), context.params.get("overrides") or []
    if scenario:
        assert len(cells(scenario, overrides, [0])) >= 1


def test_without_words_it_prints_help(call: Call) -> None:
    ran = call()
    assert "Usage" in ran.out + ran.err


@pytest.mark.parametrize(("ok", "code"), [(True, 0), (False, 1)])
def test_doctor_prints_each_check_and_fails_if_one_does(call: Call, monkeypatch: pytest.MonkeyPatch, ok: bool, code: int) -> None:
    from coordinator.cli import doctor

    monkeypatch.setattr(doctor, "checks", lambda: [doctor.Check("first", True, "fine"), doctor.Check("second", ok, "so so")])
    ran = call("doctor")
    assert (ran.code or 0) == code
    assert "first" in ran.out
    assert "so so" in ran.out


WRONG = {
    "unknown scenario": (["run", "quikstart"], "unknown scenario 'quikstart', did you mean 'quickstart'?"),
    "no such file": (["run", "none.yaml"], "none.yaml: no such file"),
    "unknown key": (["run", "quickstart", "env.num_env=3"], "env.num_env: unknown key, did you mean 'env.num_envs'?"),
    "wrong type": (["run", "quickstart", "env.num_envs=many"], "env.num_envs: got 'many'; input should be a valid integer"),
    "out of range": (["run", "quickstart", "env.num_envs=0"], "env.num_envs: got 0; input should be greater than or equal to 1"),
    "kappa negative": (["run", "quickstart", "kappa=-1"], "kappa: got -1; input should be greater than or equal to 0"),
    "kappa no number": (["run", "quickstart", "kappa=two"], "kappa: got 'two'; input should be a valid integer"),
    "seed no number": (["run", "quickstart", "--seed", "x"], "Invalid value for '--seed'"),
    "seed negative": (["run", "quickstart", "--seed", "-1"], "seed: got -1; input should be greater than or equal to 0"),
    "agent by hand": (["run", "quickstart", "--by-hand", "1,6"], "--by-hand: got '6', expected agents from 0 to 5"),
    "no scenario": (["run"], "Missing argument 'SCENARIO'"),
    "unknown command": (["walk"], "No such command 'walk'"),
    "unknown option": (["run", "quickstart", "--fast"], "No such option: --fast"),
    "no value": (["run", "quickstart", "kappa"], "override 'kappa': expected key=value"),
    "unknown partition": (["run", "quickstart", "env.partition=5x1"], "env.partition: got '5x1'"),
    "graph does not fit": (["run", "quickstart", *LQ, "topology.kind=grid", "topology.rows=3"], "topology.rows: got 3"),
    "occupied": (["run", "quickstart", *LQ, "--out", "occupied"], "--out: occupied already holds something"),
    "below a file": (["run", "quickstart", *LQ, "--out", "file/run"], "--out: cannot write file/run"),
    "a file": (["run", "quickstart", *LQ, "--out", "file"], "--out: file already holds something"),
    "nothing to evaluate": (["evaluate", "nowhere"], "nowhere: no weights in nowhere/checkpoints/final"),
    "too few episodes": (["evaluate", "nowhere", "--episodes", "0"], "Invalid value for '--episodes'"),
    "graph of what": (["graph", "quikstart"], "did you mean 'quickstart'?"),
    "picture of a kind unknown": (["graph", "quickstart", "--out", "x.xyz"], "--out: got x.xyz; expected"),
    "picture below a file": (["graph", "quickstart", "--out", "file/x.svg"], "--out: cannot write file/x.svg (Not a directory)"),
    "wrong nodes": (["run", "quickstart", *LQ, "topology.kind=file", "topology.file=three.edges"], "three.edges"),
    "disconnected": (["run", "quickstart", *LQ, "topology.kind=file", "topology.file=apart.edges"], "falls into 2 parts"),
    "no agents": (["run", "quickstart", *LQ[:1], "env.agents=0"], "env.agents: got 0; input should be greater"),
    "too few devices": (
        ["run", "quickstart", *LQ, "compute.devices.pi.forward_ms=3", "compute.agents=[pi,pi]"],
        "compute.agents: got 2 devices; this network_lq has 4 agents, and each has one",
    ),
    "held without threshold": (["compare", "nowhere", "--held", "2"], "--held: got 2 without --threshold"),
    "no graph file": (["graph", "quickstart", *LQ, "topology.kind=file", "topology.file=none.edges"], "none.edges"),
    "broken yaml": (["run", "broken.yaml"], "broken.yaml: cannot be read as YAML"),
    "sweep of what": (["sweep", "quikstart"], "did you mean 'quickstart'?"),
    "sweep over nothing known": (["sweep", "quickstart", "kapa=1,2"], "kapa=1: kapa: unknown key, did you mean 'kappa'?"),
    "a cell that does not fit": (["sweep", "quickstart", *LQ, "kappa=0,-1"], "kappa=-1: quickstart: kappa: got -1"),
    "no seeds": (["sweep", "quickstart", *LQ, "--seeds", "a"], "--seeds: got 'a'"),
    "no jobs": (["sweep", "quickstart", *LQ, "--jobs", "0"], "Invalid value for '--jobs'"),
    "sweep into something else": (["sweep", "quickstart", *LQ, "--out", "occupied"], "--out: occupied already holds"),
    "nothing to compare": (["compare", "occupied"], "no run in occupied"),
    "compare what": (["compare"], "Missing argument 'RUN|SWEEP...'. (see kappahop compare --help)"),
    "run what": (["run"], "Missing argument 'SCENARIO'. (see kappahop run --help)"),
    "a name that is a path": (["run", "quickstart", *LQ, "name=../elsewhere"], "name: got '../elsewhere'; folders are called"),
    "a name that is a path, of a graph": (["graph", "quickstart", *LQ, "name=/tmp/x"], "name: got '/tmp/x'"),
    "a name that is a path, of a sweep": (["sweep", "quickstart", *LQ, "name=a/b"], "name: got 'a/b'"),
    "graph of links unknown": (["graph", "quickstart", *LQ, "network.preset=moon"], "network.preset: got 'moon'"),
    "sweep of links unknown": (["sweep", "quickstart", *LQ, "network.preset=lan,moon"], "network.preset=moon: network.preset"),
    "sweep of links that are not there": (
        ["sweep", "quickstart", *LQ[:2], "topology.kind=ring,line", "network.edges=[{between: [0, 3]}]"],
        "topology.kind=line: network.edges[0].between: got [0, 3]; no edge joins them",
    ),
    "sweep in real time in one process": (["sweep", "quickstart", *LQ, "clock=wall", "--in-process"], "got 'wall'; in one"),
    "sweep on ports that are none": (
        ["sweep", "quickstart", *LQ, "network.transport=tcp", "network.port=65533", "env.num_envs=1,2", "--jobs", "1"],
        "env.num_envs=1: network.port: got 65533; 6 ports from there end at 65538",
    ),
    "nothing to export": (["export", "occupied", "--out", "tables"], "no run in occupied"),
    "export whereto": (["export", "occupied"], "Missing option '--out'"),
    "export as what": (["export", "occupied", "--out", "x", "--format", "xls"], "--format: got 'xls', expected csv, "),
    "a line break in a name": (["run", "no\nsuch\nthing"], "unknown scenario"),
}  # fmt: skip


def contents(folder: Path) -> list[tuple[str, int]]:
    return sorted((str(path.relative_to(folder)), path.stat().st_mtime_ns) for path in folder.rglob("*"))


def test_wrong_input_costs_one_line_and_exit_code_2_no_process_and_no_folder(
    call: Call, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    (tmp_path / "occupied").mkdir()
    (tmp_path / "occupied" / "thesis.txt").write_text("all of it")
    (tmp_path / "file").write_text("x")
    (tmp_path / "three.edges").write_text("0 1\n1 2\n")
    (tmp_path / "apart.edges").write_text("0 1\n2 3\n")
    (tmp_path / "broken.yaml").write_text("kappa: [1\n")
    for case, (words, told) in WRONG.items():
        with subtests.test(case):
            before = contents(tmp_path)
            ran = call(*words)
            assert ran.code == 2
            assert ran.out.strip() == ""
            assert ran.err.startswith("kappahop: ")
            assert ran.err.count("\n") == 1
            assert told in ran.err
            assert contents(tmp_path) == before


def test_a_port_in_use_is_told_in_one_line(call: Call, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ran = call("run", "quickstart", *LQ, "network.transport=tcp", f"network.port={port}", "--out", "run")
    assert ran.code == 2
    assert ran.err.count("\n") == 1
    assert f"network.port: port {port} on 127.0.0.1 cannot be used" in ran.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("horizon", "table", "line"), [(100, False, "no episode ended: 40 steps per copy"), (5, True, "return ")]
)
def test_a_run_that_ends_no_episode_says_so_instead_of_an_empty_table(call: Call, horizon: int, table: bool, line: str) -> None:
    small = ["env.num_envs=2", "rollout.steps=20", "budget.env_steps=80", "algorithm.hidden=[8]", "algorithm.minibatches=2"]
    ran = call("run", "quickstart", *LQ, *small, f"env.horizon={horizon}", "record.tensorboard=false", "--in-process")
    assert not ran.code, ran.err
    assert ("by quarter" in ran.out) == table
    assert any(text.startswith(line) for text in ran.out.splitlines())


MARKUP = "[red]x [@click=y] [/ :smile:"


def test_a_policy_of_the_worlds_own_plays_a_scenario_and_needs_no_folder(call: Call, tmp_path: Path) -> None:
    ran = call("evaluate", "voltage_33", "env.horizon=4", "--policy", "droop", "--episodes", "2", "--json")
    assert not ran.code
    told = json.loads(ran.out)
    assert (told["policy"], told["episodes"]) == ("droop", 2)
    assert told["measures"].keys() == {"out of limits", "controllable", "voltage deviation", "reactive power"}
    assert "reactive power" in call("evaluate", "voltage_33", "env.horizon=4", "--policy", "none").out
    refused = call("evaluate", "voltage_33", "--policy", "none", "--in-process")
    assert (refused.code, refused.err.startswith("kappahop: --in-process: means nothing with --policy")) == (2, True)
    assert not list(tmp_path.iterdir())


def test_names_with_markup_are_shown_as_they_are(call: Call, tmp_path: Path) -> None:
    name = MARKUP.replace("/", "")
    for verb in ("graph", "links"):
        ran = call(verb, "quickstart", *LQ, f"name='{name}'", "kappa=0")
        assert not ran.code, ran.err
        assert f"{name}: " in ran.out
    assert (tmp_path / f"{name}-graph.svg").is_file()
    ran = call("run", "quickstart", *LQ, *SMALL, f"name='{name}'")
    assert not ran.code, ran.err
    (run,) = (tmp_path / "runs").iterdir()
    assert run.name.startswith(name)
    assert f"runs/{name}" in ran.out
    ran = call("compare", str(run))
    assert not ran.code, ran.err
    assert name in ran.out


def test_whatever_people_wrote_is_refused_as_it_is(call: Call) -> None:
    assert MARKUP in call("run", MARKUP).err
    assert MARKUP in call("compare", MARKUP).err


def test_every_console_of_the_command_takes_text_as_it_is() -> None:
    for path in Path(command.__file__).parents[1].rglob("*.py"):
        found = [node.func for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
        made = [one for one in found if isinstance(one, ast.Name) and one.id == "Console"]
        assert not made or path.name == "terminal.py", f"{path.name} makes a console of its own"


@pytest.mark.parametrize(
    "words",
    [["list"], ["--help"], ["graph", "quickstart", *LQ, "name=κ"], ["links", "κ"]],
)
def test_what_a_terminal_cannot_show_is_replaced(tmp_path: Path, words: list[str]) -> None:
    ran = subprocess.run(
        [sys.executable, "-P", "-m", "kappahop", *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(command.__file__).parents[2]), "PYTHONIOENCODING": "ascii", "LANG": "C"},
        capture_output=True,
        check=False,
    )
    said = (ran.stdout + ran.stderr).decode("ascii")
    assert "Traceback" not in said
    assert "?" in said
    assert ran.returncode == (2 if words[0] == "links" else 0)


def test_the_version_is_told(call: Call) -> None:
    ran = call("--version")
    assert not ran.code
    assert ran.out == f"kappahop {metadata.version('kappahop')}\n"


def test_a_mistake_of_ours_is_not_dressed_up_as_one_of_the_users(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "load", lambda *_: 1 / 0)
    monkeypatch.setattr(sys, "argv", ["kappahop", "run", "quickstart"])
    with pytest.raises(ZeroDivisionError):
        command.main()


def test_interrupted_before_anything_was_started(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "load", interrupted)
    ran = call("run", "quickstart")
    assert ran.code == 130
    assert ran.err == "kappahop: interrupted\n"


@pytest.mark.system
@pytest.mark.parametrize(
    ("module", "number"),
    [("typer", signal.SIGINT), ("pydantic", signal.SIGINT), ("networkx", signal.SIGINT), ("typer", signal.SIGTERM)],
)
def test_interrupted_while_it_imports_it_says_so_in_one_line(module: str, number: signal.Signals, no_leaks: None) -> None:
    words = [sys.executable, "-X", "importtime", "-P", "-m", "kappahop", "graph", "quickstart", "--out", "/nowhere/graph.svg"]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        while not (line := process.stderr.readline()).split("|")[-1].strip().startswith(module):
            assert line, f"{module} is not imported"
        process.send_signal(number)
        told = [line for line in process.stderr.read().splitlines() if not line.startswith("import time:")]
    assert told == ["kappahop: interrupted"]
    assert process.returncode == 130


def test_a_run_without_a_folder_of_its_own_gets_a_new_one_each_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    scenario = load("quickstart")
    first = first_free(new_folders(scenario))
    assert first.parent == Path("runs")
    assert first.name.startswith("quickstart-s0-")
    assert first.is_dir()
    assert first_free(iter([first, first, second := Path("runs") / "second"])) == second


@pytest.fixture
def finished(call: Call) -> str:
    """A finished run's folder."""
    ran = call("run", "quickstart", *LQ, *SMALL, "--out", "run")
    assert not ran.code, ran.err
    return "run"


@pytest.mark.parametrize(
    ("override", "told"),
    [
        (
            "kappa=2",
            "kappa: got 2 on a graph of kind line; agent 0 would see 3 numbers, and its policy was trained on 2 (kappa=1, ",
        ),
        ("topology.kind=star", "agent 0 would see 4 numbers, and its policy was trained on 2 (kappa=1, topology.kind=line)"),
        ("env.agents=5", "env: got network_lq with actions of 5 agents (1 numbers each); the team was trained in network_lq"),
        ("algorithm.activation=tanh", "algorithm.activation: got tanh; the team was trained with relu and stays as it is"),
    ],
)
def test_a_team_is_not_evaluated_where_its_policies_do_not_fit(call: Call, finished: str, override: str, told: str) -> None:
    before = contents(Path(finished))
    ran = call("evaluate", finished, override, "--in-process")
    assert ran.code == 2
    assert ran.err.startswith("kappahop: ")
    assert told in ran.err
    assert ran.err.count("\n") == 1
    assert contents(Path(finished)) == before


def test_a_team_is_evaluated_on_other_links_and_with_another_limit(call: Call, finished: str) -> None:
    words = ["network.loss_prob=0.5", "algorithm.cost_limit=3", "env.num_envs=2", "topology.kind=line", "--in-process", "--json"]
    ran = call("evaluate", finished, *words)
    assert not ran.code, ran.err
    assert 0 < json.loads(ran.out)["delivered_frac"] < 1


def test_who_hears_everybody_may_be_given_any_kappa(call: Call) -> None:
    assert not call("run", "quickstart", *LQ, *SMALL, "algorithm.actor_scope=global", "--out", "all").code
    ran = call("evaluate", "all", "kappa=2", "--in-process")
    assert not ran.code, ran.err


def test_a_run_on_a_graph_file_keeps_its_graph(call: Call, tmp_path: Path) -> None:
    file = tmp_path / "net.edges"
    file.write_text("0 1\n1 2\n2 3\n")
    ran = call("run", "quickstart", *LQ[:2], *SMALL, "topology.kind=file", f"topology.file={file}", "--out", "[i]run")
    assert ran.out.endswith("results in [i]run\n")
    file.unlink()
    Path("[i]run").rename("moved")
    assert not call("evaluate", "moved", "network.loss_prob=0.5", "env.num_envs=2", "--in-process").code
    assert not call("decay", "moved", "--episodes", "1").code
    assert "none.edges does not exist" in call("evaluate", "moved", "topology.file=none.edges").err
    assert call("resume", "moved").out.endswith("results in moved\n")


def test_a_scenarios_folder_may_be_moved_and_its_run_repeats_without_the_graphs_file(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = tmp_path / "first"
    (first / "below").mkdir(parents=True)
    nx.write_edgelist(nx.star_graph(3), first / "star.edges", data=False)
    words = "env: {name: network_lq, agents: 4}\ntopology: {kind: file, file: star.edges}\n"
    (first / "mine.yaml").write_text(words)
    monkeypatch.chdir(first / "below")
    assert "3 edges, diameter 2" in call("graph", "../mine.yaml").out
    moved = first.rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    ran = call("run", "moved/mine.yaml", *SMALL, "--out", "run", "--json")
    assert not ran.code, ran.err
    before = json.loads(ran.out)
    (moved / "star.edges").unlink()
    (tmp_path / "run").rename(tmp_path / "elsewhere")
    ran = call("run", "elsewhere/scenario.yaml", "--in-process", "--out", "again", "--json")
    assert not ran.code, ran.err
    assert all(json.loads(ran.out)[key] == before[key] for key in ("weights_sha256", "ledger_sha256"))
    assert "3 edges, diameter 2" in call("graph", "elsewhere/scenario.yaml", "--out", "g.svg").out
    assert "star.edges does not exist" in call("run", "elsewhere/scenario.yaml", "topology.seed=1").err


@pytest.mark.parametrize("verb", ["evaluate", "resume", "watch"])
def test_a_sweep_is_not_taken_for_a_run(call: Call, tmp_path: Path, verb: str) -> None:
    (tmp_path / "all" / "kappa=1" / "seed=0").mkdir(parents=True)
    (tmp_path / "all" / "sweep.json").write_text("{}")
    ran = call(verb, "all")
    assert ran.code == 2
    assert ran.err == "kappahop: all: a sweep, not a run; give one of its runs, e.g. all/kappa=1/seed=0\n"


def test_a_film_that_cannot_be_written_is_told_before_anything_is_played(call: Call, finished: str) -> None:
    before = contents(Path(finished))
    ran = call("evaluate", finished, "--film", "nowhere/team.gif", "--in-process")
    assert ran.code == 2
    assert ran.err == "kappahop: --film: got nowhere/team.gif; there is no folder nowhere\n"
    assert contents(Path(finished)) == before


def test_limits_are_judged_again_by_evaluations_that_resume_makes_up_for(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("no time")

    words = [*LQ, *SMALL, "env.control_limit=0.25", "evaluation.every_rounds=1", "evaluation.episodes=1"]
    with monkeypatch.context() as while_running:
        while_running.setattr(play, "play", fails)
        before = json.loads(call("run", "quickstart", *words, "--out", "run", "--json", "-q").out)
    assert "evaluated" not in before["limits"][0]["text"]
    after = json.loads(call("resume", "run", "--json", "-q").out)
    assert "10 episodes evaluated with drawn actions" in after["limits"][0]["text"]
    assert after["limits"][0]["mean"] == pytest.approx(after["eval_cost_mean"])
    assert json.loads(call("resume", "run", "--json", "-q").out) == after


def test_a_finished_run_that_lost_an_agent_is_finished(call: Call, finished: str) -> None:
    """It is not taken back to before the agent's death."""
    weights = Path(finished) / "checkpoints" / "final" / "agent-3.safetensors"
    weights.unlink()
    assert call("resume", finished).code == 2  # these were deleted
    with closing(sqlite3.connect(Path(finished) / DATABASE)) as database:
        database.execute("DELETE FROM rounds WHERE agent = 3")
        database.execute("DELETE FROM evaluations")
        database.commit()
    ran = call("resume", finished)
    assert not ran.code, ran.err
    assert "could not be evaluated" not in ran.err
    assert f"results in {finished}" in ran.out


def test_to_resume_a_finished_run_is_to_be_told_its_results(call: Call, finished: str) -> None:
    before = contents(Path(finished, "checkpoints"))
    ran = call("resume", finished, "--json")
    assert not ran.code, ran.err
    found = json.loads(ran.out)
    assert (found["run_dir"], found["env_steps"]) == (finished, 20)
    assert list(found) == list(Report.__annotations__)
    assert "20 environment steps in " in call("resume", finished).out
    assert contents(Path(finished, "checkpoints")) == before
    (Path(finished) / "checkpoints" / "final" / "agent-2.safetensors").unlink()  # as if it had died before it stored them
    ran = call("resume", finished)
    assert ran.code == 2
    assert ran.err.endswith("; to begin again: kappahop run run/scenario.yaml\n")


@pytest.mark.parametrize("module", ["coordinator/cli/guard.py", "coordinator/cli/app.py", "coordinator/__init__.py"])
def test_what_runs_before_the_guard_has_spoken_parses_in_old_pythons(module: str) -> None:
    source = (Path(guard.__file__).parents[2] / module).read_text(encoding="utf-8")
    ast.parse(source, feature_version=(3, 8))


@pytest.mark.system
def test_a_foreign_package_of_our_name_stops_the_command_before_it_does_anything(tmp_path: Path, no_leaks: None) -> None:
    (tmp_path / "node").mkdir()
    (tmp_path / "node" / "__init__.py").write_text("raise SystemExit('foreign code ran')")
    for program in (["-c", "from coordinator.cli.app import main; main()"], ["-m", "kappahop"]):
        done = subprocess.run(
            [sys.executable, "-P", *program, "run", "quickstart", "--out", "run"],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )
        assert done.returncode != 0
        assert done.stdout == ""
        assert done.stderr.count("\n") == 1, done.stderr
        assert f"'node' would be imported from {tmp_path.resolve() / 'node'}" in done.stderr
        assert not (tmp_path / "run").exists()


@pytest.mark.system
def test_an_old_python_stops_the_command_before_it_does_anything(tmp_path: Path, no_leaks: None) -> None:
    program = "import sys; sys.version_info = (3, 9, 18, 'final', 0); import coordinator.cli.app"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode != 0
    assert done.stderr.count("\n") == 1
    assert "kappahop needs Python 3.11 or newer, this is 3.9" in done.stderr


def test_algorithms_are_listed_with_what_their_agents_say(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "240")
    shown = call("algorithms")
    assert shown.code in (0, None)
    rows = {
        words[0]: words for line in shown.out.splitlines() if len(words := [cell.strip() for cell in line.split("│")[1:-1]]) > 3
    }
    assert rows.keys() == RECIPES.keys()
    assert rows["a2po"][3:5] == ["semi_greedy", "global"]
    assert rows["a2po"][-2:] == ["STATE BOOTSTRAP SCORE RATIO", "cannot"]
    assert rows["ippo"][-2:] == ["nothing", "may"]
    assert rows["qmix"][-2:] == ["BOOTSTRAP JOINT POLICY", "needed"]
    monkeypatch.setenv("COLUMNS", "80")
    narrow = call("algorithms").out
    assert max(map(len, narrow.splitlines())) <= 80
    assert all(word in narrow.split() for word in ("order=semi_greedy", "BOOTSTRAP", "alternating_ppo", "order=alternating"))
