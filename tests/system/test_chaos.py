"""One signal to one process of a run, at a random time: the run ends with an explanation, leaves nothing, and goes on from there.

`KAPPAHOP_CHAOS` says how many runs (`make chaos`: 60). Each is a test with a seed of its own, so that one can be repeated:
`KAPPAHOP_CHAOS=60 pytest tests/system/test_chaos.py -k '[17]'`.
"""

import contextlib
import functools
import io
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from coordinator.cli.app import app
from coordinator.records.checkpoints import complete_rounds

RUNS = int(os.environ.get("KAPPAHOP_CHAOS", "12"))
UP_S = 90.0
END_S = 60.0  # a silence is told after 2 x 5 s, ending takes 5 s, and a busy machine
ROUNDS = 60
WORDS = [
    "env.name=network_lq", "env.agents=3", "topology.kind=line", "env.num_envs=2", "rollout.steps=20", "env.horizon=15",
    "algorithm.hidden=[8]", "algorithm.minibatches=2", "algorithm.epochs=2", "record.tensorboard=false", "record.state_rounds=2",
    "supervision.deadline_s=5", f"budget.env_steps={ROUNDS * 40}",
]  # fmt: skip
CENTRAL = ("algorithm.name=mappo", "algorithm.critic_scope=central")
SCENARIOS: dict[str, tuple[str, ...]] = {
    "relay, ipc": (),
    "relay, tcp": ("network.transport=tcp",),
    "direct, ipc": ("routing=direct", "kappa=2"),
    "direct, tcp": ("routing=direct", "kappa=2", "network.transport=tcp"),
    "uav-mesh": ("network.preset=uav-mesh",),
    "central critic": CENTRAL,
    "on_node_death": ("supervision.on_node_death=continue",),
    "two hops in turn": ("kappa=2", "algorithm.factor=khop"),
    "random turns": ("kappa=2", "algorithm.factor=khop", "algorithm.order=random"),
}
SIGNALS = ("KILL", "STOP", "STOP+CONT", "TERM", "INT")
SAME = ("weights_sha256", "ledger_sha256", "env_steps", "return_mean", "virtual_s", "wire_bytes")

pytestmark = [pytest.mark.slow, pytest.mark.system, pytest.mark.timeout(400)]


@dataclass(frozen=True)
class Trial:
    """What happens to a run.

    Attributes:
        scenario: Which run.
        victim: Which process gets the signal.
        signals: Which, one second apart if there are two.
        after: When the signal comes: so many rounds are stored; -1: while the run starts.
        pause_s: So much later.
    """

    scenario: str
    victim: str
    signals: str
    after: int
    pause_s: float

    @classmethod
    def drawn(cls, seed: int) -> "Trial":
        draw = random.Random(seed)
        scenario = draw.choice(list(SCENARIOS))
        after = -1 if draw.random() < 0.25 else draw.randrange(1, ROUNDS // 2)
        there = ["command", "fork server"]
        if after >= 0:
            there += ["world", f"node {draw.randrange(3)}", *(["critic"] if SCENARIOS[scenario] == CENTRAL else [])]
        victim, signals = draw.choice(there), draw.choice(SIGNALS)
        # a command that is stopped waits for whoever stopped it; and a stopped start takes a minute (test_processes.py)
        if signals == "STOP" and (victim == "command" or after < 0):
            signals = "STOP+CONT"
        return cls(scenario, victim, signals, after, draw.uniform(0.0, 2.0 if after < 0 else 0.2))


def until(holds: Callable[[], Any], within_s: float, what: str) -> Any:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if found := holds():
            return found
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run(["sleep", "60"], timeout=0.01, check=False)
    pytest.fail(what)


def in_process(*words: str) -> dict[str, Any]:
    """What the command prints of a run, in this process."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        app([*words, "--in-process", "--json", "-q"], standalone_mode=False)
    told: dict[str, Any] = json.loads(out.getvalue())
    return told


@functools.cache
def undisturbed(scenario: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        return in_process("run", "quickstart", *WORDS, *SCENARIOS[scenario], "--out", f"{folder}/run")


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where a run happens, with a short path and a folder for temporary files."""
    with tempfile.TemporaryDirectory(prefix="k") as name:
        (Path(name) / "t").mkdir()
        yield Path(name)


class Disturbed:
    """A run in a folder of its own. All its processes work there, by which they are known."""

    def __init__(self, folder: Path, scenario: str) -> None:
        self.folder, self.dir = folder, folder / "run"
        words = ["run", "quickstart", *WORDS, *SCENARIOS[scenario], "--json", "-q", "--out", "run"]
        self.command = subprocess.Popen(
            [sys.executable, "-P", "-m", "kappahop", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            cwd=folder,
            env=os.environ | {"TMPDIR": str(folder / "t"), "OMP_NUM_THREADS": "1", "COLUMNS": "200"},
        )

    def members(self) -> dict[str, psutil.Process]:
        """Its processes, by what they call themselves."""
        found = {}
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.cwd() == str(self.folder) and process.status() != psutil.STATUS_ZOMBIE:
                    title = " ".join(process.cmdline()).strip()
                    found["command" if process.pid == self.command.pid else title.removeprefix("kappahop: ")] = process
        return found

    def is_at(self, trial: Trial) -> bool:
        if trial.after < 0:
            return trial.victim in self.members()
        return (complete_rounds(self.dir) or [-1])[-1] + 1 >= trial.after

    def disturb(self, trial: Trial) -> psutil.Process | None:
        """Send the signal; to whom, if the run has not ended before."""
        until(lambda: self.is_at(trial) or self.command.poll() is not None, UP_S, f"never at {trial}")
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.command.wait(trial.pause_s)
        victim = self.members().get(trial.victim)
        if victim is None:
            return None
        if trial.victim == "command":
            until(lambda: listens(victim) or self.command.poll() is not None, UP_S, "the command never listens to signals")
        with contextlib.suppress(psutil.NoSuchProcess):
            for name in trial.signals.split("+"):
                if name == "CONT":
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        self.command.wait(1.0)
                victim.send_signal(signal.Signals[f"SIG{name}"])
        return victim

    def close(self) -> None:
        for process in self.members().values():
            with contextlib.suppress(psutil.Error):
                process.kill()
        self.command.communicate(timeout=10)


def listens(command: psutil.Process) -> bool:
    """Whether a command has got so far that signals can be told: Python itself takes a moment to start."""
    with contextlib.suppress(OSError):
        status = dict(line.split(":", 1) for line in Path(f"/proc/{command.pid}/status").read_text().splitlines())
        return bool(int(status["SigCgt"], 16) >> (signal.SIGTERM - 1) & 1)
    return False


@pytest.mark.parametrize("seed", range(RUNS))
def test_one_signal_to_one_process_at_a_random_time(seed: int, folder: Path) -> None:
    trial = Trial.drawn(seed)
    with contextlib.closing(Disturbed(folder, trial.scenario)) as run:
        victim = run.disturb(trial)
        out, err = run.command.communicate(timeout=END_S)
        until(lambda: not run.members(), END_S, f"{trial}: still there: {run.members()}")
    code = run.command.returncode
    explained(trial, victim, code, err)
    assert list((folder / "t").iterdir()) == [], trial
    assert not [path for path in Path("/dev/shm").iterdir() if str(run.command.pid) in path.name or "kappahop" in path.name]
    logs = "".join(path.read_text() for path in (run.dir / "logs").glob("*"))
    assert "Traceback" not in logs, trial
    assert "Exception ignored" not in logs, trial
    if code == 0 and "the others go on" not in events(run.dir):
        check(trial, json.loads(out))
    if code != 0 and complete_rounds(run.dir):
        check(trial, in_process("resume", str(run.dir)))
        assert list(run.dir.rglob("*.partial")) == [], trial


def explained(trial: Trial, victim: psutil.Process | None, code: int, err: str) -> None:
    """One message says how it ended, in the words that fit."""
    if trial.victim == "command" and trial.signals == "KILL" and victim is not None:
        assert (code, err) == (-signal.SIGKILL, ""), trial
        return
    first, *others = err.splitlines() or [""]
    assert all(line.startswith(("to go on: ", "replay: ")) for line in others), f"{trial}: {err}"
    if code == 0:
        assert err == "", trial
        return
    assert first.startswith("kappahop: "), f"{trial}: {code} {err}"
    if trial.victim == "command":
        assert code == 130, f"{trial}: {err}"
        assert "interrupted" in first
        return
    assert victim is not None, f"{trial}: {err}"
    assert code == 1, f"{trial}: {err}"
    name = {"critic": "the central critic", "fork server": "the fork server"}.get(trial.victim, trial.victim)
    pid = "" if trial.victim == "fork server" and trial.signals != "STOP" else f" (pid {victim.pid})"
    assert f"{name}{pid}" in first or f"{name}, " in first, f"{trial}: {err}"


def events(run_dir: Path) -> str:
    with contextlib.closing(sqlite3.connect(f"file:{run_dir / 'run.sqlite'}?mode=ro", uri=True)) as database:
        return "; ".join(text for (text,) in database.execute("SELECT text FROM events"))


def check(trial: Trial, found: dict[str, Any]) -> None:
    whole = undisturbed(trial.scenario)
    assert {key: found[key] for key in SAME} == {key: whole[key] for key in SAME}, trial
