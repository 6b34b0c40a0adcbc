"""Runs and sweeps that are killed and gone on with end with the very numbers of those that were left alone."""

import json
import random
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from coordinator.records.checkpoints import complete_rounds

pytestmark = [pytest.mark.slow, pytest.mark.system, pytest.mark.timeout(600)]

COMMAND = [sys.executable, "-P", "-m", "kappahop"]
SMALL = [
    "quickstart", "env.name=network_lq", "env.agents=3", "topology.kind=line", "env.num_envs=2", "rollout.steps=20",
    "env.horizon=15", "algorithm.hidden=[8]", "algorithm.minibatches=2", "algorithm.epochs=2", "record.tensorboard=false",
    "record.state_rounds=2",
]  # fmt: skip
BAD = ["network.preset=wifi-campus", "network.latency_ms=700", "network.rate_bps=2e4", "kappa=2", "algorithm.factor=khop"]


def told(*words: str, cwd: Path) -> dict[str, Any]:
    """What a command prints, that succeeds."""
    done = subprocess.run([*COMMAND, *words, "--json", "-q"], cwd=cwd, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stderr.splitlines() if not line.startswith("report: ")] == []
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def stored_beyond(folder: Path, round_: int) -> bool:
    return (complete_rounds(folder) or [-1])[-1] > round_


def moved(stored: Callable[[], list[int]], before: list[int], sweep: "subprocess.Popen[bytes]") -> bool:
    return stored() > before or sweep.poll() is not None


def all_gone(runs: list[psutil.Process]) -> bool:
    return not any(run.is_running() and run.status() != psutil.STATUS_ZOMBIE for run in runs)


def until(holds: Callable[[], bool]) -> None:
    for _ in range(1200):
        if holds():
            return
        select.select([], [], [], 0.05)
    pytest.fail("it never came to hold")


def victim_of(command: psutil.Process, name: str) -> psutil.Process:
    if name == "command":
        return command
    (found,) = [child for child in command.children(recursive=True) if " ".join(child.cmdline()).strip() == f"kappahop: {name}"]
    return found


@pytest.mark.parametrize("links", [[], BAD], ids=["ideal", "bad links"])
def test_a_run_whose_processes_are_killed_goes_on_as_if_nothing_was(tmp_path: Path, links: list[str], no_leaks: None) -> None:
    words = [*SMALL, *links, "budget.env_steps=16000"]
    whole = told("run", *words, "--out", "whole", "--in-process", cwd=tmp_path)
    folder = tmp_path / "run"
    words = ["run", *words, "--out", "run", "--json", "-q"]
    for name in ("node 1", "command", "world"):
        before = (complete_rounds(folder) or [-1])[-1]
        with subprocess.Popen([*COMMAND, *words], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as command:
            until(partial(stored_beyond, folder, before + 4))
            victim_of(psutil.Process(command.pid), name).kill()
            _, err = command.communicate(timeout=60)
        assert command.returncode == (-signal.SIGKILL if name == "command" else 1)
        assert name == "command" or "to go on: kappahop resume run" in err.decode()
        words = ["resume", "run", "--json", "-q"]
    found = told("resume", "run", cwd=tmp_path)
    for key in (
        "weights_sha256",
        "ledger_sha256",
        "env_steps",
        "return_mean",
        "cost_mean",
        "virtual_s",
        "wire_bytes",
        "mean_age_s",
    ):
        assert found[key] == whole[key], key


def test_what_has_no_state_is_refused(tmp_path: Path) -> None:
    done = subprocess.run([*COMMAND, "resume", "nothing"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr == "kappahop: nothing/scenario.yaml: no such file\n"


def test_a_sweep_that_is_killed_five_times_ends_with_the_same_numbers(tmp_path: Path, no_leaks: None) -> None:
    words = [*SMALL, "budget.env_steps=8000", "kappa=0,1", "--seeds", "0", "--jobs", "2", "--in-process"]
    folders = [tmp_path / "sweep" / f"kappa={kappa}" / "seed=0" for kappa in (0, 1)]
    draw = random.Random(7)

    def stored() -> list[int]:
        return [(complete_rounds(folder) or [-1])[-1] for folder in folders]

    for _ in range(5):
        before = stored()
        with subprocess.Popen(
            [*COMMAND, "sweep", *words, "--out", "sweep", "-q"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as sweep:
            until(partial(moved, stored, before, sweep))
            select.select([], [], [], draw.uniform(0.0, 0.4))
            runs = psutil.Process(sweep.pid).children(recursive=True)
            sweep.kill()
            sweep.communicate(timeout=60)
        until(partial(all_gone, runs))
    told("sweep", *words, "--out", "sweep", cwd=tmp_path)
    for kappa, folder in enumerate(folders):
        found = json.loads((folder.parent / "seed=0.json").read_text())
        whole = told("run", *SMALL, "budget.env_steps=8000", f"kappa={kappa}", "--in-process", "--out", f"{kappa}", cwd=tmp_path)
        for key in ("weights_sha256", "ledger_sha256", "env_steps", "return_mean", "virtual_s", "wire_bytes"):
            assert found[key] == whole[key], key
