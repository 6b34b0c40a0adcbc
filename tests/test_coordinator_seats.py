"""Which cores the agents of a run work on, alone on the machine and in a crowd."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from coordinator import launch, seats
from coordinator.plan import make_run_dir, plan
from coordinator.record import Recorder
from coordinator.seats import CROWD, QUIET_REVIEWS, Seats, confine, deal, others_s
from scenarios.loading import load
from topology.control import Control, Hello, RoundReport

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems let no thread be confined")
CORES = sorted(os.sched_getaffinity(0)) if sys.platform == "linux" else []
UP_S = 20.0
two_cores = pytest.mark.skipif(len(CORES) < 2, reason="needs two cores")


@pytest.mark.parametrize(
    ("n_agents", "cores", "seated"),
    [
        (6, [0, 1], (0, 0, 0, 1, 1, 1)),
        (4, [2, 5, 6, 7], (2, 5, 6, 7)),
        (5, [0, 1], ()),  # a core with three would keep the other waiting
        (3, [0, 1, 2, 3], ()),
        (6, [0], ()),
    ],
)
def test_blocks_are_of_one_size_or_none(n_agents: int, cores: list[int], seated: tuple[int, ...]) -> None:
    assert deal(n_agents, cores) == seated


def threads(pid: int) -> set[frozenset[int]]:
    """The cores that each of its threads may run on, those alike once."""
    return {frozenset(os.sched_getaffinity(int(task.name))) for task in Path(f"/proc/{pid}/task").iterdir()}


@pytest.fixture
def busy() -> Iterator[int]:
    """A process of two threads, one of which computes."""
    waiting = "import threading; threading.Thread(target=threading.Event().wait, daemon=True).start()"
    code = f"{waiting}\nprint(flush=True)\nwhile True: pass"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid
        process.kill()


@two_cores
def test_a_seat_holds_every_thread(busy: int) -> None:
    confine(busy, CORES[1:2])
    assert threads(busy) == {frozenset(CORES[1:2])}
    assert len(list(Path(f"/proc/{busy}/task").iterdir())) == 2
    confine(busy, CORES)
    assert threads(busy) == {frozenset(CORES)}


def test_who_is_gone_needs_no_seat() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    confine(process.pid, CORES[:1])


def test_what_others_use_is_what_is_not_the_runs_own(busy: int) -> None:
    all_before, without_before = others_s(CORES, ()), others_s(CORES, {busy})
    own_before, deadline = psutil.Process(busy).cpu_times().user, time.monotonic() + UP_S
    while (own := psutil.Process(busy).cpu_times().user - own_before) < 0.5 and time.monotonic() < deadline:
        pass
    all_, without = others_s(CORES, ()) - all_before, others_s(CORES, {busy}) - without_before
    assert all_ >= 0.4  # who else there may be only adds to it
    assert all_ - without == pytest.approx(own, abs=0.1)


ALL = {0, 1}


class Machine:
    """A run of two agents, reviewed once a second on a machine of two cores that others use as the test says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.agents = {0: 70, 1: 71}
        self._used_s = 100.0
        self._sitting: set[int] = set()
        self._seats = Seats(2, [0, 1])
        monkeypatch.setattr(seats, "others_s", lambda cores, own: self._used_s)
        monkeypatch.setattr(seats, "confine", self._confine)

    def _confine(self, pid: int, cores: list[int]) -> None:
        agent = pid - 70
        assert cores in ([agent], [0, 1])
        (self._sitting.add if len(cores) == 1 else self._sitting.discard)(agent)

    def second(self, share: float, *others: int) -> set[int]:
        """Who sits after a second in which others used this share of a core."""
        self._used_s += share
        self._seats.review(self.agents, {1, 2, *others}, 1.0)
        return self._sitting.copy()


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


def test_agents_sit_after_the_first_quiet_second_and_get_up_in_a_crowd(machine: Machine) -> None:
    assert machine.second(0.0) == set()  # there was no second yet
    assert machine.second(CROWD - 0.01) == ALL
    assert machine.second(CROWD - 0.01) == ALL
    assert machine.second(CROWD + 0.01) == set()
    assert [machine.second(0.0) for _ in range(QUIET_REVIEWS)] == [set()] * (QUIET_REVIEWS - 1) + [ALL]


def test_agents_stand_who_begin_in_a_crowd(machine: Machine) -> None:
    assert not any(machine.second(1.0) for _ in range(2 * QUIET_REVIEWS))
    assert [machine.second(0.0) for _ in range(QUIET_REVIEWS)] == [set()] * (QUIET_REVIEWS - 1) + [ALL]


def test_the_time_of_a_process_that_has_come_or_gone_is_no_crowd(machine: Machine) -> None:
    machine.second(0.0)
    assert machine.second(0.0) == ALL
    assert machine.second(5.0, 3) == ALL
    assert machine.second(-5.0) == ALL
    assert machine.second(5.0) == set()


@pytest.mark.parametrize(("share", "sitting"), [(0.0, ALL), (5.0, set())])
def test_all_do_the_same_where_some_have_come_later(machine: Machine, share: float, sitting: set[int]) -> None:
    del machine.agents[1]
    machine.second(0.0)
    assert machine.second(0.0) == {0}
    machine.agents[1] = 71
    assert machine.second(0.0) == {0}
    assert machine.second(share) == sitting


@two_cores
@pytest.mark.system
@pytest.mark.timeout(180)
def test_the_agents_of_a_run_sit_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seats, "others_s", lambda cores, own: 0.0)  # other tests run beside this one
    monkeypatch.setattr(launch, "REVIEW_S", 0.01)
    n = 2 * len(CORES)
    words = ["topology.kind=line", "env.copies=2", "rollout.steps=20", "algorithm.hidden=[8]", "record.tensorboard=false"]
    ready = plan(load("quickstart", ["env.name=network_lq", f"env.partition={n}x1", "budget.env_steps=1200", *words]))
    pids: dict[str, int] = {}
    seen: list[list[set[frozenset[int]]]] = []

    def look(report: Control) -> None:
        if isinstance(report, Hello):
            pids[report.role] = report.pid
        elif isinstance(report, RoundReport) and report.round < 20:  # whoever has sent the last of 30 may be gone
            seen.append([threads(pids[f"node-{agent}"]) for agent in range(n)])

    run_dir = tmp_path / "run"
    make_run_dir(run_dir, ready)
    recorder = Recorder(run_dir, env_steps_per_round=40)
    outcome = launch.run(ready, run_dir, recorder, look)
    recorder.close()
    assert outcome.error is None
    assert seen[-1] == [{frozenset([CORES[agent // 2]])} for agent in range(n)]
