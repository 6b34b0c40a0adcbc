"""What fails where a run is recorded: nothing recorded is lost, the run waits or ends with one sentence, children included."""

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from coordinator.cli.app import app
from coordinator.records import database
from coordinator.records.database import Recorder, RecordingError
from coordinator.records.plan import Plan, make_run_dir, plan
from coordinator.records.run_sqlite import DATABASE, VERSION, Reader
from coordinator.run import in_process
from coordinator.run.collector import Outcome
from scenarios.loading import ScenarioError, load
from topology.deployment import DEPLOYMENT_FILE, SCENARIO_FILE
from topology.planes.control import Control, RoundReport
from topology.process import StopRequested

SMALL = [
    "env.name=network_lq", "env.agents=3", "topology.kind=line", "env.num_envs=2", "env.horizon=10", "rollout.steps=10",
    "algorithm.hidden=[8]", "algorithm.epochs=1", "algorithm.minibatches=1", "record.tensorboard=false",
]  # fmt: skip
COMMAND = [sys.executable, "-P", "-m", "kappahop"]


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    opened = Recorder(tmp_path, env_steps_per_round=40)
    yield opened
    with contextlib.suppress(RecordingError, sqlite3.Error):
        opened.close()


def say(recorder: Recorder, *texts: str) -> bool:
    for text in texts:
        recorder.event(0.0, "x", text)
    return recorder.commit()


def said(folder: Path) -> list[str]:
    with closing(sqlite3.connect(folder / DATABASE)) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return [text for (text,) in database.execute("SELECT text FROM events ORDER BY rowid")]


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Another program writes, and takes its time."""
    with closing(sqlite3.connect(folder / DATABASE, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


def test_what_is_reported_while_another_program_has_the_lock_is_written_afterwards(recorder: Recorder, tmp_path: Path) -> None:
    assert say(recorder, "before")
    with locked(tmp_path):
        assert not say(recorder, "while 1")
        assert not say(recorder, "while 2")
    assert say(recorder, "after")
    assert said(tmp_path) == ["before", "while 1", "while 2", "after"]


def test_a_lock_that_is_never_given_up_ends_the_run(recorder: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with locked(tmp_path):
        assert not say(recorder, "while")
        monkeypatch.setattr(database, "LOCKED_S", 0.0)
        with pytest.raises(RecordingError, match=f"{tmp_path}/run.sqlite: cannot be written .another program .* locked"):
            recorder.commit()
    assert recorder.commit()
    assert said(tmp_path) == ["while"]


def fill(recorder: Recorder) -> None:
    """Leave no page for another row."""
    pages = recorder._database.execute("PRAGMA page_count").fetchone()[0]
    recorder._database.execute(f"PRAGMA max_page_count={pages}")


def test_what_is_reported_while_the_disk_is_full_is_written_once_there_is_room(recorder: Recorder, tmp_path: Path) -> None:
    assert say(recorder, "before")
    fill(recorder)
    with pytest.raises(RecordingError, match=r"run.sqlite: cannot be written \(database or disk is full\); make room"):
        say(recorder, "x" * 10_000, "y")
    assert said(tmp_path) == ["before"]
    recorder._database.execute("PRAGMA max_page_count=100000")
    assert recorder.commit()
    assert said(tmp_path) == ["before", "x" * 10_000, "y"]


@pytest.mark.parametrize("victims", [[DATABASE], [DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm"]])
def test_a_deleted_database_is_written_again(recorder: Recorder, tmp_path: Path, victims: list[str]) -> None:
    assert say(recorder, "before")
    for name in victims:
        (tmp_path / name).unlink()
    assert say(recorder, "after")
    assert said(tmp_path)[:2] == ["before", "after"]
    assert say(recorder, "later")
    recorder.close()
    assert said(tmp_path) == [
        "before",
        "after",
        "run.sqlite was deleted while the run went on, and has been written again",
        "later",
    ]
    assert [path.name for path in tmp_path.iterdir()] == [DATABASE]


def test_another_file_in_its_place_is_left_alone(recorder: Recorder, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("somebody's")
    other.replace(tmp_path / DATABASE)
    with pytest.raises(RecordingError, match="another file was put in its place while the run went on"):
        say(recorder, "after")
    assert (tmp_path / DATABASE).read_text() == "somebody's"


def test_a_deleted_folder_is_said(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    recorder = Recorder(folder, env_steps_per_round=40)
    shutil.rmtree(folder)
    with pytest.raises(RecordingError, match=f"{folder}/run.sqlite: cannot be written .the run's folder was deleted"):
        say(recorder, "after")
    assert not folder.exists()
    with pytest.raises(RecordingError):
        recorder.close()


def test_a_sink_that_cannot_write_is_left_out(tmp_path: Path) -> None:
    class Full:
        def scalars(self, step: int, values: object) -> None:
            raise OSError(28, "No space left on device")

        def flush(self) -> None:
            raise AssertionError

        def close(self) -> None:
            raise AssertionError

    with closing(Recorder(tmp_path, env_steps_per_round=40, sinks=[Full()])) as recorder:
        recorder.round(RoundReport(role="node-0", agent=0, round=0, virtual_s=1.0, metrics={}, traffic=()), 1.0)
    assert said(tmp_path) == ["Full gets no more scalars (No space left on device)"]


# ------------------------------------------------------------------ reading


def recorded(folder: Path) -> Path:
    with closing(Recorder(folder, env_steps_per_round=40)) as recorder:
        say(recorder, "x")
    return folder


def as_another_user(work: Callable[[], object]) -> str:
    """What work says that is done by a user who may write nothing here; a skip where there is no such user."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    read, write = os.pipe()
    if (child := os.fork()) == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        try:
            told = str(work())
        except Exception as error:  # noqa: BLE001  (a child must not return into the test)
            told = f"{type(error).__name__}: {error}"
        os.write(write, told.encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        told = pipe.read()
    os.waitpid(child, 0)
    return told


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that everybody may read."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


def read(folder: Path) -> object:
    with closing(Reader(folder)) as reader:
        return reader.query("SELECT text FROM events")[1]


def test_a_finished_run_is_read_by_a_user_who_cannot_write_its_folder(public: Path) -> None:
    recorded(public)
    assert as_another_user(lambda: read(public)) == "[('x',)]"


def test_so_is_one_that_is_still_marked_as_wal(public: Path) -> None:
    recorded(public)
    with closing(sqlite3.connect(public / DATABASE)) as database:
        database.execute("PRAGMA journal_mode=WAL")
    assert sorted(path.name for path in public.iterdir()) == [DATABASE]
    assert as_another_user(lambda: read(public)) == "[('x',)]"


def test_one_that_did_not_end_by_itself_says_what_is_missing(public: Path) -> None:
    recorder = Recorder(public, env_steps_per_round=40)
    say(recorder, "x")
    copy = public / "copy"
    copy.mkdir()
    for name in (DATABASE, f"{DATABASE}-wal"):
        shutil.copy(public / name, copy)
    recorder.close()
    assert "run.sqlite-wal holds a part of it" in as_another_user(lambda: read(copy))
    assert read(copy) == [("x",)]


def test_a_database_that_is_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"run.sqlite: no such file"):
        Reader(tmp_path)
    with pytest.raises(ScenarioError, match=r"run.sqlite: no such file"):
        Recorder(tmp_path, env_steps_per_round=40, resumed_after=1)
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------ runs


def begun(folder: Path, *words: str) -> Plan:
    ready = plan(load("quickstart", [*SMALL, *words]))
    make_run_dir(folder, ready)
    return ready


def perform(folder: Path, ready: Plan, disturb: Callable[[Recorder, Control], None]) -> Outcome:
    recorder = Recorder(folder, env_steps_per_round=20)
    outcome = in_process.run(ready, folder, recorder, lambda report: disturb(recorder, report))
    with contextlib.suppress(RecordingError):
        recorder.close()
    return outcome


def test_in_one_process_a_full_disk_ends_the_run_with_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coordinator.run.collector.COMMIT_S", 0.0)

    def disturb(recorder: Recorder, report: Control) -> None:
        if isinstance(report, RoundReport) and report.round == 3:
            recorder.commit()
            fill(recorder)

    outcome = perform(tmp_path, begun(tmp_path, "budget.env_steps=2000"), disturb)
    assert outcome.error == f"{tmp_path}/run.sqlite: cannot be written (database or disk is full); make room on its disk"
    assert outcome.env_steps < 2000
    with closing(Reader(tmp_path)) as reader:
        assert reader.query("SELECT max(round) FROM rounds")[1][0][0] >= 3


def test_in_one_process_a_lock_holds_nothing_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coordinator.run.collector.COMMIT_S", 0.0)
    with contextlib.ExitStack() as stack:

        def disturb(recorder: Recorder, report: Control) -> None:
            if isinstance(report, RoundReport) and report.agent == 0:
                if report.round == 1:
                    stack.enter_context(locked(tmp_path))
                if report.round == 8:
                    stack.close()

        outcome = perform(tmp_path, begun(tmp_path, "budget.env_steps=240", "record.state_rounds=2"), disturb)
    assert outcome.error is None
    with closing(Reader(tmp_path)) as reader:
        assert reader.query("SELECT count(*) FROM rounds")[1] == [(12 * 3,)]


def half_done(folder: Path) -> None:
    """A run that was interrupted in its sixth round."""

    def stop(recorder: Recorder, report: Control) -> None:
        if isinstance(report, RoundReport) and report.round == 5:
            raise StopRequested

    assert perform(folder, begun(folder, "budget.env_steps=240", "record.state_rounds=2"), stop).interrupted


def resumed(folder: Path) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["resume", str(folder), "--in-process", "-q"], env={"COLUMNS": "1000"})
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stderr


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_run_in_a_folder_that_cannot_be_written_is_not_resumed_and_stays_as_it_was(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    half_done(folder)
    before = everything(folder)
    if os.geteuid() == 0:
        mount = ["mount", "--bind", str(folder), str(folder)], ["mount", "-o", "remount,bind,ro", str(folder)]
        if any(subprocess.run(words, capture_output=True, check=False).returncode for words in mount):
            pytest.skip("nothing can be mounted read-only here")
        end: Callable[[], object] = lambda: subprocess.run(["umount", "-l", str(folder)], check=True)  # noqa: E731
    else:
        folder.chmod(0o555)
        (folder / DATABASE).chmod(0o444)
        end = lambda: folder.chmod(0o755)  # noqa: E731
    try:
        code, words = resumed(folder)
    finally:
        end()
    assert code == 2
    assert len(words.splitlines()) == 1
    assert f"{folder}/run.sqlite: cannot be written (" in words
    assert everything(folder) == before


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        (DATABASE, None, "no such file"),
        (DATABASE, b"noise" * 1000, "file is not a database"),
        (DEPLOYMENT_FILE, None, "No such file"),
        (SCENARIO_FILE, None, "no such file"),
    ],
)
def test_a_run_that_lacks_a_file_is_not_resumed_and_says_so(tmp_path: Path, name: str, content: bytes | None, why: str) -> None:
    folder = tmp_path / "run"
    half_done(folder)
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    before = everything(folder)
    code, words = resumed(folder)
    assert code == 2
    assert len(words.splitlines()) == 1
    assert f"{folder}/{name}: " in words
    assert why in words
    assert everything(folder) == before


@pytest.mark.parametrize("name", [DATABASE, "logs/node-0.log"])
def test_a_run_that_would_write_through_a_link_is_not_resumed(tmp_path: Path, name: str) -> None:
    folder, mine = tmp_path / "run", tmp_path / "mine"
    half_done(folder)
    (folder / name).unlink(missing_ok=True)
    mine.write_text("kept")
    (folder / name).symlink_to(mine)
    code, words = resumed(folder)
    assert (code, mine.read_text()) == (2, "kept")
    assert name == DATABASE or f"{folder}/{name}: a symbolic link" in words


def test_an_older_run_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    half_done(folder)
    with closing(sqlite3.connect(folder / DATABASE)) as database:
        database.execute("PRAGMA user_version=0")
    assert resumed(folder)[0] == 0
    with closing(sqlite3.connect(folder / DATABASE)) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (VERSION,)
        assert database.execute("PRAGMA journal_mode").fetchone() == ("delete",)


@pytest.mark.slow
@pytest.mark.system
@pytest.mark.timeout(240)
@pytest.mark.parametrize("how", [[], ["--in-process"]], ids=["processes", "in one"])
def test_a_command_on_a_full_disk_ends_with_a_sentence_and_its_processes(tmp_path: Path, how: list[str], no_leaks: None) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        words = ["run", "quickstart", *SMALL, "budget.env_steps=400000", "--out", str(disk / "run"), "-q", *how]
        done = subprocess.run([*COMMAND, *words], cwd=tmp_path, capture_output=True, text=True, timeout=200, check=False)
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        assert "run.sqlite: cannot be written (database or disk is full); make room on its disk" in done.stderr
        assert f"to go on: kappahop resume {disk / 'run'}" in done.stderr
        with closing(Reader(disk / "run")) as reader:
            assert reader.query("SELECT max(round) FROM rounds")[1][0][0] > 3
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.slow
@pytest.mark.system
@pytest.mark.timeout(240)
@pytest.mark.parametrize("how", [[], ["--in-process"]], ids=["processes", "in one"])
@pytest.mark.parametrize("harm", ["locked for 30 s", "deleted", "folder deleted"])
def test_a_command_whose_database_is_harmed(tmp_path: Path, how: list[str], harm: str, no_leaks: None) -> None:
    folder = tmp_path / "run"
    words = ["run", "quickstart", *SMALL, "budget.env_steps=6000", "--out", str(folder), "-q", *how]
    with subprocess.Popen([*COMMAND, *words], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as command:
        for _ in range(1200):
            with contextlib.suppress(ScenarioError), closing(Reader(folder)) as reader:
                if reader.query("SELECT max(round) FROM rounds")[1][0][0]:
                    break
            with contextlib.suppress(subprocess.TimeoutExpired):
                command.wait(0.05)
        if harm == "locked for 30 s":
            with locked(folder), contextlib.suppress(subprocess.TimeoutExpired):
                command.wait(30.0)
        elif harm == "deleted":
            (folder / DATABASE).unlink()
        else:
            shutil.rmtree(folder)
        _, err = command.communicate(timeout=200)
    assert "Traceback" not in err
    if harm == "folder deleted":
        assert command.returncode == 1
        assert len(err.splitlines()) == 1
        assert "the run's folder was deleted while the run went on" in err
        assert not folder.exists()
        return
    assert (command.returncode, err) == (0, "")
    with closing(Reader(folder)) as reader:
        assert reader.query("SELECT count(*) FROM rounds")[1] == [(300 * 3,)]
