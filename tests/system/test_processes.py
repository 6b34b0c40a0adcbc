"""Real runs through the command: what can be seen of them, and that nothing of them stays, however they end."""

import contextlib
import json
import os
import resource
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]

COMMAND = [sys.executable, "-P", "-m", "kappahop"]
UP_S = 90.0  # processes take 3 s to be up on a machine of their own
END_S = 10.0  # what is promised
ORPHANS_END_S = 30.0  # without a command: 3 s to end, 2 s for what is still to be sent, and a busy machine
SMALL = [
    "env.name=network_lq", "topology.kind=line", "env.num_envs=2", "rollout.steps=20", "algorithm.hidden=[8]",
    "algorithm.minibatches=2", "algorithm.epochs=2", "record.tensorboard=false",
    "record.state_rounds=0",
]  # fmt: skip
FINITE = ["budget.env_steps=400", "env.horizon=10"]
EVALUATED = [
    "eval_return_mean", "eval_cost_mean", "eval_episodes", "eval_drawn", "eval_measures", "best_return_mean", "best_cost_mean",
    "best_round",
]  # fmt: skip
KEYS = [
    "run_dir", "scenario", "seed", "env_steps", "wall_s", "env_steps_per_s", "return_mean", "progress_mean", "cost_mean",
    "cost_limit", "limits", "idle_costs", "idle_return", "spectral_gap", *EVALUATED, "faulty_episodes", "diverged",
    "payload_bytes", "wire_bytes", "bytes_per_agent_step", "delivered_frac", "mean_age_s", "virtual_s", "node_pids",
    "weights_sha256", "ledger_sha256",
]  # fmt: skip


class Run:
    """A run of 4 agents, long enough to be disturbed, unless told otherwise."""

    def __init__(self, folder: Path, *more: str) -> None:
        self.dir = folder / "run"
        words = ["quickstart", *SMALL, "env.agents=4", "budget.env_steps=1e8", *more, "--json", "-q", "--out", str(self.dir)]
        self.command = subprocess.Popen(
            [*COMMAND, "run", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            cwd=folder,
        )
        self.seen: set[psutil.Process] = set()

    def members(self) -> dict[str, psutil.Process]:
        """The processes of this run that have taken a title, by title."""
        found = {}
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self.command.pid).children(recursive=True):
                self.seen.add(child)
                with contextlib.suppress(psutil.Error):
                    found[" ".join(child.cmdline())] = child
        return {title.strip(): process for title, process in found.items() if title.startswith("kappahop: ")}

    def until_running(self, rounds: int = 2) -> dict[str, psutil.Process]:
        """Its processes, once some rounds are in the database."""
        deadline = time.monotonic() + UP_S
        pause = 0.05
        while time.monotonic() < deadline:
            assert self.command.poll() is None, self.command.communicate()
            with contextlib.suppress(sqlite3.OperationalError):
                (done,) = self.query("SELECT count(DISTINCT round) FROM rounds")[0]
                if done >= rounds:
                    return self.members()
            select_nothing(pause)
        pytest.fail(f"not running after {UP_S} s; logs: {self.logs()}")

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        with contextlib.closing(sqlite3.connect(f"file:{self.dir / 'run.sqlite'}?mode=ro", uri=True)) as database:
            return database.execute(sql).fetchall()

    def logs(self) -> dict[str, str]:
        return {path.name: path.read_text() for path in (self.dir / "logs").glob("*")}

    def ended(self, within_s: float) -> tuple[int, str, str]:
        """Exit code, output and errors of the command; every process of the run is gone within the time."""
        deadline = time.monotonic() + within_s
        out, err = self.command.communicate(timeout=within_s)
        self.gone(deadline - time.monotonic())
        return self.command.returncode, out, err

    def gone(self, within_s: float) -> None:
        _, alive = psutil.wait_procs([process for process in self.seen if is_there(process)], timeout=max(0.1, within_s))
        assert not [process for process in alive if is_there(process)]

    def clean_up(self) -> None:
        for process in [*self.seen, psutil.Process(self.command.pid)] if self.command.poll() is None else self.seen:
            with contextlib.suppress(psutil.Error):
                process.kill()
        self.command.communicate(timeout=10)


def is_there(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def select_nothing(seconds: float) -> None:
    """Look again after a while: what is waited for is in other processes."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        subprocess.run(["sleep", "60"], timeout=seconds, check=False)


@pytest.fixture
def start(tmp_path: Path, no_leaks: None) -> Iterator[Any]:
    runs: list[Run] = []

    def begin(*more: str) -> Run:
        runs.append(Run(tmp_path, *more))
        return runs[-1]

    yield begin
    for run in runs:
        run.clean_up()


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder for temporary files, whose path leaves room for sockets."""
    with tempfile.TemporaryDirectory(prefix="k") as folder:
        yield Path(folder)


def test_a_run_is_one_process_per_agent_and_one_world_and_can_be_read_meanwhile(start: Any) -> None:
    run = start("env.agents=6")
    members = run.until_running()
    assert set(members) == {"kappahop: fork server", "kappahop: world", *(f"kappahop: node {i}" for i in range(6))}
    assert len({process.pid for process in members.values()}) == 8
    assert {process.ppid() for title, process in members.items() if title != "kappahop: fork server"} == {
        members["kappahop: fork server"].pid
    }
    for table in ("meta", "episodes", "rounds", "traffic", "events"):
        run.query(f"SELECT * FROM {table}")
    before = run.query("SELECT count(*) FROM rounds")[0][0]
    run.until_running(before // 6 + 3)
    assert run.query("SELECT max(round) FROM traffic")[0][0] >= 2
    # Ctrl-C at a terminal goes to the command's whole process group
    os.killpg(run.command.pid, signal.SIGINT)
    code, out, err = run.ended(END_S)
    assert code == 130
    assert out == ""
    assert err.startswith("kappahop: interrupted by SIGINT in round ")
    assert err.count("\n") == 1
    assert run.query("SELECT count(*) FROM rounds")[0][0] >= before
    assert set(run.logs()) == {"fork_server.log", "world.log", *(f"node-{i}.log" for i in range(6))}
    assert not any(run.logs().values()), "an interrupted process has nothing to complain of"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Run, dict[str, Any]]]:
    """A run that has done all its work, and the object that it printed."""
    run = Run(tmp_path_factory.mktemp("f"), *FINITE)
    code, out, err = run.ended(UP_S)
    assert (code, err, out.count("\n")) == (0, "", 1)
    yield run, json.loads(out)
    run.clean_up()


def test_json_is_one_object_with_exactly_these_keys(finished: tuple[Run, dict[str, Any]]) -> None:
    run, found = finished
    assert list(found) == KEYS
    assert (found["env_steps"], found["seed"], found["run_dir"]) == (400, 0, str(run.dir))
    assert len(set(found["node_pids"])) == 4
    assert {path.name for path in (run.dir / "checkpoints" / "final").iterdir()} == {f"agent-{i}.safetensors" for i in range(4)}
    assert {key: json.loads(value) for key, value in run.query("SELECT * FROM meta")} == found
    assert run.query("SELECT count(*) FROM traffic WHERE messages != delivered + dropped") == [(0,)]
    assert not any(run.logs().values())


def test_a_second_run_on_a_busy_machine_gives_the_same_weights_and_ledger(
    start: Any, finished: tuple[Run, dict[str, Any]]
) -> None:
    spinner = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        code, out, _ = start(*FINITE).ended(UP_S)
    finally:
        spinner.kill()
        spinner.wait()
    assert code == 0
    for key in ("weights_sha256", "ledger_sha256", "env_steps", "return_mean", "payload_bytes", "wire_bytes"):
        assert json.loads(out)[key] == finished[1][key]


@pytest.mark.slow
def test_evaluating_learns_nothing_and_gives_the_same_twice(finished: tuple[Run, dict[str, Any]], no_leaks: None) -> None:
    run, trained = finished
    weights = {path.name: path.read_bytes() for path in (run.dir / "checkpoints" / "final").iterdir()}
    found = []
    for number in (1, 2):
        done = evaluate(run.dir, "--json", "--episodes", "5")
        assert (done.returncode, done.stderr) == (0, "")
        found.append(json.loads(done.stdout))
        assert found[-1]["run_dir"] == str(run.dir / f"evaluation-{number}")
        with contextlib.closing(sqlite3.connect(run.dir / f"evaluation-{number}" / "run.sqlite")) as database:
            assert database.execute("SELECT count(*) FROM episodes").fetchone()[0] == 6  # 5 asked for, in 2 copies
            assert database.execute("SELECT DISTINCT kind FROM traffic WHERE plane = 'peer'").fetchall() == [("STATE",)]
            assert database.execute("SELECT DISTINCT kl, value_loss FROM rounds").fetchall() == [(None, None)]
    for key in ("weights_sha256", "ledger_sha256", "return_mean", "env_steps"):
        assert found[0][key] == found[1][key]
    assert found[0]["env_steps"] == 6 * 10
    assert {path.name: path.read_bytes() for path in (run.dir / "checkpoints" / "final").iterdir()} == weights
    assert list(found[0]) == KEYS
    assert trained["seed"] == found[0]["seed"]


@pytest.mark.slow
def test_weights_that_are_none_are_told_in_one_line(finished: tuple[Run, dict[str, Any]], no_leaks: None, tmp_path: Path) -> None:
    final = tmp_path / "checkpoints" / "final"
    final.mkdir(parents=True)
    for name in ("scenario.yaml", "deployment.json"):
        shutil.copy(finished[0].dir / name, tmp_path)
    for agent in range(4):
        (final / f"agent-{agent}.safetensors").write_bytes(b"not weights")
    done = evaluate(tmp_path)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "gave up while starting: " in done.stderr


def evaluate(run_dir: Path, *more: str) -> subprocess.CompletedProcess[str]:
    words = ["evaluate", str(run_dir), "-q", *more]
    return subprocess.run([*COMMAND, *words], capture_output=True, text=True, timeout=UP_S, check=False)


@pytest.mark.slow
def test_a_command_that_is_asked_to_terminate_ends_as_cleanly(start: Any) -> None:
    run = start()
    run.until_running()
    run.command.terminate()
    code, _, err = run.ended(END_S)
    assert code == 130
    assert err.startswith("kappahop: interrupted by SIGTERM in round ")


@pytest.mark.parametrize(
    ("victim", "told"),
    [
        pytest.param("node 2", "kappahop: node 2 (pid {pid}) was killed by SIGKILL in round ", id="node"),
        pytest.param("world", "kappahop: world (pid {pid}) was killed by SIGKILL in round ", id="world", marks=pytest.mark.slow),
        pytest.param(
            "fork_server",
            "kappahop: the fork server, the parent of all processes, has died in round ",
            id="fork_server",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "critic",
            "kappahop: the central critic (pid {pid}) was killed by SIGKILL in round ",
            id="critic",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_whoever_is_killed_the_run_ends_soon_and_says_who_died_and_how(start: Any, victim: str, told: str) -> None:
    run = start(*(["algorithm.name=mappo", "algorithm.critic_scope=central"] if victim == "critic" else []))
    killed = run.until_running()[f"kappahop: {victim.replace('_', ' ')}"]
    killed.kill()
    code, out, err = run.ended(END_S)
    assert code == 1
    assert out == ""
    assert err.startswith(told.format(pid=killed.pid)), err
    assert err.splitlines()[1:] == [f"replay: kappahop run {run.dir}/scenario.yaml"]
    assert str(run.dir) in err
    assert run.query("SELECT count(*) FROM rounds")[0][0] >= 2 * 4
    assert run.query("SELECT role FROM events") == [("coordinator",)]
    assert [path for path in (run.dir / "checkpoints").rglob("*.partial")] == []


def test_a_killed_evaluation_is_told_and_made_up_for_by_resume(start: Any) -> None:
    words = ["evaluation.every_rounds=10", "evaluation.episodes=2", "env.horizon=400", "budget.env_steps=2000"]
    whole = start(*words, "--in-process")
    assert whole.ended(UP_S)[0] == 0
    query = "SELECT * FROM evaluations ORDER BY round, at_end, copy"
    expected = whole.query(query)
    shutil.rmtree(whole.dir)
    run = start(*words)
    deadline = time.monotonic() + UP_S
    while "kappahop: evaluation" not in (members := run.members()):
        assert time.monotonic() < deadline
        assert run.command.poll() is None, run.command.communicate()
        select_nothing(0.02)
    members["kappahop: evaluation"].kill()
    code, out, err = run.ended(UP_S)
    assert (code, err) == (0, "")
    assert json.loads(out)["env_steps"] == 2000
    ((told,),) = run.query("SELECT text FROM events WHERE role = 'evaluation'")
    assert told.endswith("could not be evaluated: its process was killed by SIGKILL (see logs/evaluation.log)")
    again = subprocess.run(
        [*COMMAND, "resume", str(run.dir), "--json", "-q"], capture_output=True, text=True, timeout=UP_S, check=False
    )
    assert (again.returncode, again.stderr) == (0, "")
    assert run.query(query) == expected


def until_evaluating_alone(run: Run) -> psutil.Process:
    """The process that evaluates the last policies, once the training is over."""
    deadline = time.monotonic() + UP_S
    while {"kappahop: evaluation", "kappahop: world"} & (members := run.members()).keys() != {"kappahop: evaluation"}:
        assert time.monotonic() < deadline
        assert run.command.poll() is None, run.command.communicate()
        select_nothing(0.02)
    return members["kappahop: evaluation"]


@pytest.mark.slow
def test_an_evaluation_that_stands_still_beside_the_training_is_begun_again_when_that_is_over(start: Any) -> None:
    words = ["evaluation.every_rounds=75", "evaluation.episodes=2", "env.horizon=400", "supervision.deadline_s=3"]
    run = start(*words, "budget.env_steps=12000")
    deadline = time.monotonic() + UP_S
    while "kappahop: evaluation" not in (members := run.members()):
        assert time.monotonic() < deadline
        select_nothing(0.02)
    members["kappahop: evaluation"].suspend()
    while "kappahop: evaluation" in run.members():
        assert time.monotonic() < deadline
        assert "kappahop: world" in run.members(), "the training was over before"
        select_nothing(0.1)
    ended = run.ended(2 * UP_S)
    assert ended[::2] == (0, "")
    ((told,),) = run.query("SELECT text FROM events WHERE role = 'evaluation'")
    assert told.endswith("did not get on for 3 s beside the training; evaluations are made when it is over")
    n_rounds = 1 + run.query("SELECT max(round) FROM rounds")[0][0]
    assert [round_ for (round_,) in run.query("SELECT DISTINCT round FROM evaluations")] == [
        *range(74, n_rounds - 1, 75), n_rounds - 1
    ]  # fmt: skip


@pytest.mark.slow
def test_a_run_that_is_interrupted_while_the_last_policies_are_evaluated_goes_on_with_that_alone(start: Any) -> None:
    run = start("evaluation.every_rounds=100", "evaluation.episodes=4", "env.horizon=1000", "budget.env_steps=800")
    until_evaluating_alone(run)
    run.command.send_signal(signal.SIGINT)
    code, _, err = run.ended(END_S)
    assert code == 130
    assert err.startswith("kappahop: interrupted by SIGINT while evaluating")
    assert f"to go on: kappahop resume {run.dir}" in err
    rounds = run.query("SELECT * FROM rounds")
    words = ["resume", str(run.dir), "--json", "-q"]
    again = subprocess.run([*COMMAND, *words], capture_output=True, text=True, timeout=UP_S, check=False)
    assert (again.returncode, again.stderr) == (0, "")
    assert json.loads(again.stdout)["eval_episodes"] == 40
    assert run.query("SELECT * FROM rounds") == rounds


@pytest.mark.slow
def test_an_evaluation_that_stands_still_is_left_out(start: Any) -> None:
    run = start(
        "evaluation.every_rounds=100", "evaluation.episodes=4", "env.horizon=1000", "budget.env_steps=800",
        "supervision.deadline_s=10",
    )  # fmt: skip
    until_evaluating_alone(run).suspend()
    code, out, err = run.ended(UP_S)
    assert (code, err) == (0, "")
    assert json.loads(out)["eval_return_mean"] is None
    ((told,),) = run.query("SELECT text FROM events WHERE role = 'evaluation'")
    assert told.endswith("could not be evaluated: it did not get on for 10 s")


def test_a_fork_server_that_is_killed_while_the_last_policies_are_evaluated_ends_the_run_at_once(start: Any) -> None:
    run = start("evaluation.every_rounds=100", "evaluation.episodes=40", "env.horizon=1000", "budget.env_steps=800")
    until_evaluating_alone(run)
    run.members()["kappahop: fork server"].kill()
    code, _, err = run.ended(END_S)
    assert code == 1
    assert err.startswith("kappahop: the fork server, the parent of all processes, has died while evaluating")
    assert f"to go on: kappahop resume {run.dir}" in err


@pytest.mark.slow
@pytest.mark.parametrize(("graph", "victim"), [("line", 1), ("ring", 3)])
def test_others_go_on_without_a_node_that_was_killed_if_they_are_told_to(start: Any, graph: str, victim: int) -> None:
    rounds = 150
    run = start(
        f"topology.kind={graph}", "kappa=2", "algorithm.factor=khop", "supervision.on_node_death=continue",
        f"budget.env_steps={rounds * 40}",
    )  # fmt: skip
    killed = run.until_running()[f"kappahop: node {victim}"]
    killed.kill()
    code, out, err = run.ended(UP_S)
    assert (code, err) == (0, "")
    assert json.loads(out)["env_steps"] == rounds * 40
    ((text,),) = run.query("SELECT text FROM events WHERE role = 'coordinator'")
    assert text.startswith(f"node {victim} (pid {killed.pid}) was killed by SIGKILL in round ")
    assert text.endswith("; the others go on")
    done = dict(run.query("SELECT agent, count(*) FROM rounds GROUP BY agent"))
    assert 2 <= done.pop(victim) < rounds
    assert set(done.values()) == {rounds}
    last = f"round = {rounds - 1} AND plane = 'peer'"
    assert run.query(f"SELECT count(*) FROM traffic WHERE {last} AND '{victim}' IN (src, dst)") == [(0,)]
    assert run.query(f"SELECT sum(messages) > 0 FROM traffic WHERE {last}") == [(1,)]


@pytest.mark.slow
def test_turns_go_round_without_a_holder_that_was_killed_in_its_turn(start: Any) -> None:
    n, turn, rounds = 3, 30, 135  # a turn takes some seconds of learning; the killed agent's second one is within the run
    run = start(
        "env.name=stochastic_game", "env.agents=3", "env.states=4", "env.n_discrete=2", "algorithm.name=ma2ql",
        f"algorithm.off_policy.turn_rounds={turn}", "algorithm.off_policy.updates_per_step=5", "algorithm.hidden=[64,64]",
        "algorithm.off_policy.warm_up_steps=0", "network.loss_prob=0.2", "network.delivery.token=datagram",
        "network.patience_s=5", "supervision.on_node_death=continue", f"budget.env_steps={rounds * 40}",
    )  # fmt: skip
    run.until_running()["kappahop: node 0"].kill()
    code, out, err = run.ended(UP_S)
    assert (code, err) == (0, "")
    assert json.loads(out)["env_steps"] == rounds * 40
    done = dict(run.query("SELECT agent, count(*) FROM rounds GROUP BY agent"))
    died = done.pop(0)
    assert 2 <= died < turn
    assert done == {1: rounds, 2: rounds}
    learned = run.query("SELECT round, agent FROM rounds WHERE value_loss IS NOT NULL ORDER BY round, agent")
    holders = [(round_, round_ // turn % n) for round_ in range(rounds)]
    assert learned == [(round_, agent) for round_, agent in holders if agent != 0 or round_ < died]
    told = run.query("SELECT virtual_s, round, role, text FROM events WHERE text LIKE 'turn %' ORDER BY virtual_s, round")
    assert [(role, text.split()[1]) for _, _, role, text in told] == [
        ("node-0", "begins"), ("node-1", "begins"), ("node-1", "ends"), ("node-2", "begins"), ("node-2", "ends"),
        ("node-1", "begins"),
    ]  # fmt: skip
    times = {(role, text, round_): virtual_s for virtual_s, round_, role, text in told}
    ((last_seen_s,),) = run.query("SELECT max(virtual_s) FROM rounds WHERE agent = 0")
    assert last_seen_s < times["node-1", "turn begins", turn]
    assert times["node-1", "turn ends", 2 * turn - 1] <= times["node-2", "turn begins", 2 * turn]
    # the token that the dead agent would have passed on is waited for in vain, once, and nothing else is of it
    waited = run.query(f"SELECT role FROM events WHERE text LIKE 'TOKEN of agent 0 missing%' AND round = {turn - 1}")
    assert waited == [("node-1",)]
    assert run.query(f"SELECT count(*) FROM traffic WHERE kind = 'TOKEN' AND src = '0' AND round >= {turn - 1}") == [(0,)]


@pytest.mark.parametrize(
    "stopped",
    [
        None,
        pytest.param("fork_server", marks=pytest.mark.slow),
        pytest.param("node 1", marks=pytest.mark.slow),
    ],
)
def test_a_killed_command_leaves_no_orphan(start: Any, stopped: str | None) -> None:
    run = start()
    members = run.until_running()
    assert len(members) == 6
    folders = {Path(str(item.laddr)).parent for item in psutil.Process(run.command.pid).net_connections("unix") if item.laddr}
    assert len(folders) == 1
    if stopped is not None:
        members[f"kappahop: {stopped.replace('_', ' ')}"].suspend()
    run.command.kill()
    run.command.wait(END_S)
    run.gone(ORPHANS_END_S)
    assert not any(folder.exists() for folder in folders)
    assert run.query("SELECT count(*) FROM rounds")[0][0] >= 2 * 4
    assert not any(run.logs().values())


@pytest.mark.slow
def test_a_killed_fork_server_takes_with_it_what_hears_nothing(start: Any) -> None:
    run = start()
    members = run.until_running()
    members["kappahop: node 1"].suspend()
    psutil.Process(run.command.pid).suspend()
    members["kappahop: fork server"].kill()
    _, alive = psutil.wait_procs(
        [process for title, process in members.items() if title != "kappahop: fork server"], timeout=END_S
    )
    psutil.Process(run.command.pid).resume()
    assert not [process for process in alive if is_there(process)]
    code, _, err = run.ended(END_S)
    assert code == 1
    assert "has died in round " in err


def importing(run: Run) -> psutil.Process:
    """A run's fork server, while it imports."""
    deadline = time.monotonic() + UP_S
    while time.monotonic() < deadline:
        if (found := run.members().get("kappahop: fork server")) is not None:
            return found
        select_nothing(0.01)
    pytest.fail(f"no fork server after {UP_S} s")


def test_a_command_that_is_killed_while_the_fork_server_imports_leaves_nothing(
    start: Any, short_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(short_folder))
    run = start()
    importing(run)
    assert list(short_folder.iterdir()) != []
    run.command.kill()
    run.command.wait(END_S)
    run.gone(ORPHANS_END_S)
    assert list(short_folder.iterdir()) == []
    assert not any(run.logs().values())


@pytest.mark.slow
def test_a_fork_server_that_stands_still_is_named(start: Any) -> None:
    run = start("supervision.start_s=6")
    fork_server = importing(run)
    fork_server.suspend()
    code, _, err = run.ended(ORPHANS_END_S)
    assert code == 1
    assert err.startswith("kappahop: 5 of 5 processes not up within 6 s: world, node 0, ")
    assert f"; stopped from outside: the fork server (pid {fork_server.pid})" in err


def test_a_node_that_stands_still_is_named(start: Any) -> None:
    run = start("supervision.deadline_s=2")
    members = run.until_running()
    members["kappahop: node 1"].suspend()
    code, _, err = run.ended(END_S)
    assert code == 1
    assert "in time from agents [1]" in err  # a peer says so, or the world, if node 1 had told its peers but not yet acted
    assert f"stopped from outside: node 1 (pid {members['kappahop: node 1'].pid})" in err
    assert err.count("\n") == 2


def test_a_command_without_descriptors_left_says_so(start: Any, short_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(short_folder))
    run = start("network.transport=tcp", "record.state_rounds=1")
    run.until_running()
    command = psutil.Process(run.command.pid)
    limit = command.num_fds() + 8
    resource.prlimit(command.pid, resource.RLIMIT_NOFILE, (limit, limit))
    (port,) = {item.laddr.port for item in command.net_connections("tcp") if item.status == psutil.CONN_LISTEN}
    with contextlib.ExitStack() as idle:
        for _ in range(20):
            idle.enter_context(socket.create_connection(("127.0.0.1", port), timeout=END_S))
        code, _, err = run.ended(ORPHANS_END_S)
    assert code == 1
    first, *others = err.splitlines()
    assert first.startswith(f"kappahop: no file descriptor is left (ulimit -n is {limit}, "), err
    assert f"connections of strangers to tcp://127.0.0.1:{port}) in round " in first
    assert all(line.startswith(("to go on: ", "replay: ")) for line in others), err
    assert list(short_folder.iterdir()) == []


@pytest.mark.slow
def test_sixty_four_agents_on_a_ring_are_up_and_stepping_within_a_minute_and_4_gb(start: Any) -> None:
    began = time.monotonic()
    run = start("env.agents=64", "topology.kind=ring")
    members = run.until_running(1)
    assert time.monotonic() - began < 60
    assert len(members) == 66
    used = sum(process.memory_full_info().pss for process in (*members.values(), psutil.Process(run.command.pid)))
    assert used < 4e9
    run.command.send_signal(signal.SIGINT)
    code, _, err = run.ended(END_S)
    assert code == 130
    assert err.count("\n") == 1


@pytest.mark.slow
def test_a_run_waits_for_nodes_that_are_started_by_hand_and_is_the_same_run(
    start: Any, finished: tuple[Run, dict[str, Any]]
) -> None:
    run = start(*FINITE, "--by-hand", "1")
    assert run.command.stderr is not None
    line = run.command.stderr.readline().split()
    assert line[:4] == [sys.executable, "-P", "-m", "node"]
    node = subprocess.run(line, timeout=UP_S, check=False)
    said = run.command.communicate(timeout=UP_S)[0]
    assert node.returncode == 0
    assert run.command.returncode == 0
    told = json.loads(said)
    assert (told["weights_sha256"], told["ledger_sha256"]) == (finished[1]["weights_sha256"], finished[1]["ledger_sha256"])
    assert len(told["node_pids"]) == 4


GAME = ["env.name=stochastic_game", "env.states=6", "env.n_discrete=3", "algorithm.off_policy.warm_up_steps=0"]
TABLE = [*GAME, "algorithm.off_policy.representation=table"]


@pytest.mark.parametrize(
    "more",
    [
        [],
        pytest.param(["algorithm.factor=khop", "algorithm.order=random", "kappa=2"], marks=pytest.mark.slow),
        pytest.param(["routing=direct", "kappa=3"], marks=pytest.mark.slow),
        pytest.param([*TABLE, "algorithm.name=iql"], marks=pytest.mark.slow),
        pytest.param([*TABLE, "algorithm.name=i2q"], marks=pytest.mark.slow),
        pytest.param(
            [*TABLE, "algorithm.name=ma2ql", "algorithm.off_policy.turn_accuracy=0.01", "network.loss_prob=0.2"],
            marks=pytest.mark.slow,
        ),
        pytest.param([*GAME, "algorithm.name=i2q"], marks=pytest.mark.slow),
        pytest.param([*GAME, "algorithm.name=ma2ql", "algorithm.off_policy.representation=recurrent"], marks=pytest.mark.slow),
        pytest.param([*GAME, "algorithm.name=qmix", "central.at=2"], marks=pytest.mark.slow),
        pytest.param(["algorithm.name=i2q", "algorithm.off_policy.warm_up_steps=0"], marks=pytest.mark.slow),
    ],
)
def test_one_process_and_many_give_the_same_weights_and_ledger(start: Any, more: list[str]) -> None:
    told = []
    for way in ([], ["--in-process"]):
        code, out, err = start(*FINITE, *more, *way).ended(UP_S)
        assert (code, err) == (0, "")
        told.append(json.loads(out))
        shutil.rmtree(told[-1]["run_dir"])
    apart, together = told
    for key in ("weights_sha256", "ledger_sha256", "return_mean", "env_steps", "wire_bytes", *EVALUATED):
        assert apart[key] == together[key]
    assert apart["eval_episodes"] == 40
    assert len(set(apart["node_pids"])) == 4
    assert len(set(together["node_pids"])) == 1
