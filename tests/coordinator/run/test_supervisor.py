"""What the supervisor makes of processes that do not come up, die, or do not want to end."""

import asyncio
import itertools
import signal
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from coordinator.records.database import Recorder
from coordinator.records.plan import make_run_dir, plan
from coordinator.run import supervisor
from coordinator.run.collector import Outcome
from coordinator.run.supervisor import not_up
from scenarios.loading import load
from scenarios.schema import Supervision
from topology.process import StopFlag

# Speaks as the fork server does; every order starts a shell that does no work. `%s` says which, and what becomes of them.
STAND_IN = """
import json, subprocess, sys
def say(**message): print(json.dumps(message), flush=True)
def born(role, does="exec sleep 60"):
    child = subprocess.Popen(["sh", "-c", "echo; " + does], stdout=subprocess.PIPE)
    child.stdout.read(1)
    say(born=role, pid=child.pid)
    return role, child
def dead(role, child): say(dead=role, status=child.wait())
say(ready=True)
roles = [json.loads(sys.stdin.readline())["role"] for _ in range(3)]
%s
"""


def test_the_wait_for_processes_grows_with_their_number_unless_it_is_set() -> None:
    assert Supervision().start_limit_s(0) == 60.0
    assert Supervision().start_limit_s(256) == pytest.approx(136.8)
    assert Supervision(start_s=7.0).start_limit_s(256) == 7.0


def test_few_absent_processes_are_named_and_of_many_the_first_and_the_number() -> None:
    assert "2 of 258 processes not up within 136.8 s: node 3, node 181;" in not_up(["node 3", "node 181"], 258, 136.8)
    many = not_up([f"node {i}" for i in range(181, 256)], 258, 136.8)
    assert many == "75 of 258 processes not up within 136.8 s: first node 181; supervision.start_s gives them longer"


@pytest.fixture
def supervised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_leaks: None) -> Any:
    """Supervises a run of two agents whose fork server is the stand-in that does what a script says."""
    create = asyncio.create_subprocess_exec
    folders = (tmp_path / f"run-{i}" for i in itertools.count())

    def run(script: str, *words: str, stop: StopFlag | None = None) -> Outcome:
        async def stand_in(python: str, *_: Any, **settings: Any) -> Any:
            return await create(python, "-c", STAND_IN % script, **settings)

        monkeypatch.setattr(asyncio, "create_subprocess_exec", stand_in)
        ready = plan(load("stage_game", ["supervision.stop_s=0.3", "record.tensorboard=false", *words]))
        make_run_dir(folder := next(folders), ready)
        with closing(Recorder(folder, env_steps_per_round=10, sinks=[])) as recorder:
            return supervisor.run(ready, folder, recorder, lambda report: None, stop=stop or StopFlag())

    return run


def test_processes_that_never_say_hello_are_named_and_ended(supervised: Any) -> None:
    outcome = supervised("for child in [born(role) for role in roles]: dead(*child)", "supervision.start_s=0.3")
    assert outcome.error.startswith("3 of 3 processes not up within 0.3 s: world, node 0, node 1; supervision.start_s")


def test_a_process_that_was_stopped_from_outside_is_named(supervised: Any) -> None:
    outcome = supervised("dead(*born('node-1', 'kill -STOP $$; exec sleep 60'))", "supervision.start_s=2")
    assert "; stopped from outside: node 1 (pid " in outcome.error


def test_a_death_is_told_with_its_cause(supervised: Any, subtests: pytest.Subtests) -> None:
    for does, told in (
        ("kill -KILL $$", "was killed by SIGKILL while starting"),
        ("exit 3", "exited with status 3 while starting"),
        ("exit 0", "ended before its work was done while starting"),
    ):
        with subtests.test(does=does):
            outcome = supervised(f"dead(*born('node-0', {does!r}))")
            assert outcome.error.startswith("node 0 (pid ")
            assert outcome.error.endswith(told)


def test_without_its_fork_server_a_run_that_starts_is_over(supervised: Any) -> None:
    outcome = supervised("sys.exit()")
    assert outcome.error == "the fork server, the parent of all processes, has died while starting (see logs/fork_server.log)"


def test_what_does_not_end_when_it_is_asked_to_is_killed(supervised: Any, tmp_path: Path) -> None:
    note = tmp_path / "status"
    script = f"""
role, child = born('node-0', 'trap "" TERM; exec sleep 60')
open({str(note)!r}, 'w').write(str(child.wait()))
dead(role, child)"""
    assert supervised(script, "supervision.start_s=2").error.startswith("3 of 3 processes not up")
    assert int(note.read_text()) == -signal.SIGKILL


def test_a_request_to_stop_ends_a_run_that_is_starting(supervised: Any) -> None:
    stop = StopFlag()
    stop.ask("interrupted")
    outcome = supervised("dead(*born('world'))", stop=stop)
    assert (outcome.interrupted, outcome.error) == (True, "interrupted while starting")
