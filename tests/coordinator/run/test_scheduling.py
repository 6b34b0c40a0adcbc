"""How the processes of a run use the cores, alone on the machine and in company."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import pytest

from coordinator.records.database import Recorder
from coordinator.records.plan import make_run_dir, plan
from coordinator.run import scheduling as cores
from coordinator.run import supervisor
from coordinator.run.scheduling import CROWD, MOST_QUIET_REVIEWS, QUIET_REVIEWS, Scheduling, deal, others_s, treat
from scenarios.loading import load
from topology.planes.control import Control, Hello, RoundReport

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems are not asked for anything")
CORES = sorted(os.sched_getaffinity(0)) if sys.platform == "linux" else []
UP_S = 20.0
two_cores = pytest.mark.skipif(len(CORES) < 2, reason="needs two cores")


def test_blocks_are_of_one_size_or_none(subtests: pytest.Subtests) -> None:
    rows: list[tuple[int, list[int], list[int]]] = [
        (6, [0, 1], [0, 0, 0, 1, 1, 1]),
        (4, [2, 5, 6, 7], [2, 5, 6, 7]),
        (5, [0, 1], []),  # a core with three would keep the other waiting
        (3, [0, 1, 2, 3], []),
    ]
    for n_agents, free, dealt in rows:
        with subtests.test(n_agents=n_agents):
            assert deal(n_agents, free) == tuple((core,) for core in dealt)


def treatment(pid: int) -> set[tuple[frozenset[int], bool]]:
    """The cores that each of its threads may run on, and whether it cuts in, those alike once."""
    threads = [int(task.name) for task in Path(f"/proc/{pid}/task").iterdir()]
    return {(frozenset(os.sched_getaffinity(thread)), os.sched_getscheduler(thread) == os.SCHED_OTHER) for thread in threads}


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
def test_every_thread_is_treated_alike(busy: int) -> None:
    assert len(list(Path(f"/proc/{busy}/task").iterdir())) == 2
    treat(busy, CORES[1:2], cuts_in=False)
    assert treatment(busy) == {(frozenset(CORES[1:2]), False)}
    treat(busy, CORES, cuts_in=True)
    assert treatment(busy) == {(frozenset(CORES), True)}


def test_what_the_user_has_chosen_stays(busy: int) -> None:
    os.sched_setscheduler(busy, os.SCHED_IDLE, os.sched_param(0))
    treat(busy, CORES, cuts_in=True)
    assert os.sched_getscheduler(busy) == os.SCHED_IDLE


def test_who_is_gone_is_passed_over() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    treat(process.pid, CORES[:1], cuts_in=False)


def test_what_others_use_is_what_is_not_the_runs_own(busy: int) -> None:
    all_before, without_before = others_s(CORES, ()), others_s(CORES, {busy})
    own_before, deadline = psutil.Process(busy).cpu_times().user, time.monotonic() + UP_S
    while (own := psutil.Process(busy).cpu_times().user - own_before) < 0.5 and time.monotonic() < deadline:
        pass
    all_, without = others_s(CORES, ()) - all_before, others_s(CORES, {busy}) - without_before
    assert all_ >= 0.4  # who else there may be only adds to it
    assert all_ - without == pytest.approx(own, abs=0.1)


WORLD = 80
FREE = {70: ([0, 1], True), 71: ([0, 1], True), WORLD: ([0, 1], True)}
ALONE = {70: ((0,), False), 71: ((1,), False), WORLD: ([0, 1], False)}


class Machine:
    """A run of two agents, reviewed once a second on a machine of two cores that others use as the test says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.agents = {0: 70, 1: 71}
        self.treated: dict[int, tuple[Sequence[int], bool]] = dict(FREE)
        self._used_s = 100.0
        self.cores = Scheduling(2, [0, 1])
        monkeypatch.setattr(cores, "others_s", lambda cores, own: self._used_s)
        monkeypatch.setattr(cores, "treat", self._treat)

    def _treat(self, pid: int, cores: Sequence[int], *, cuts_in: bool) -> None:
        self.treated[pid] = cores, cuts_in

    def second(self, share: float, *idlers: int) -> bool:
        """Whether all are treated as if alone after a second in which others used this share of a core."""
        self._used_s += share
        self.cores.review(self.agents, {WORLD}, {1, 2, *idlers}, 1.0)
        assert self.treated in (FREE, ALONE)
        return self.treated == ALONE


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


def test_a_run_is_alone_after_the_first_quiet_second_and_in_company_at_once(machine: Machine) -> None:
    assert not machine.second(0.0)  # there was no second yet
    assert machine.second(CROWD - 0.01)
    assert machine.second(CROWD - 0.01)
    assert not machine.second(CROWD + 0.01)


def test_a_run_that_begins_in_company_is_alone_after_some_quiet_seconds(machine: Machine) -> None:
    assert not any(machine.second(1.0) for _ in range(2 * QUIET_REVIEWS))
    assert [machine.second(0.0) for _ in range(QUIET_REVIEWS)] == [False] * (QUIET_REVIEWS - 1) + [True]


def test_each_return_of_company_makes_a_run_wait_longer_up_to_a_bound(machine: Machine) -> None:
    assert [machine.second(0.0) for _ in range(2)] == [False, True]
    waits = []
    for _ in range(6):
        assert not machine.second(1.0)
        waits.append(1)
        while not machine.second(0.0):
            waits[-1] += 1
    assert waits[0] == 2 * QUIET_REVIEWS
    assert waits == [min(2 ** (1 + times) * QUIET_REVIEWS, MOST_QUIET_REVIEWS) for times in range(6)]


def test_the_time_of_a_process_that_has_come_or_gone_is_no_company(machine: Machine) -> None:
    machine.second(0.0)
    assert machine.second(0.0)
    assert machine.second(5.0, 3)
    assert machine.second(-5.0)
    assert not machine.second(5.0)


@pytest.mark.parametrize("share", [0.0, 5.0])
def test_all_are_treated_alike_where_some_have_come_later(machine: Machine, share: float) -> None:
    machine.agents = {0: 70}
    machine.treated = {70: FREE[70], WORLD: FREE[WORLD]}
    for _ in range(2):
        machine.cores.review(machine.agents, {WORLD}, {1, 2}, 1.0)
    assert machine.treated == {70: ALONE[70], WORLD: ALONE[WORLD]}
    machine.agents[1] = 71
    machine.treated[71] = FREE[71]
    machine.cores.review(machine.agents, {WORLD}, {1, 2}, 1.0)  # whose time is another's: nothing is known of this second
    assert machine.second(share) == (share == 0.0)


@two_cores
@pytest.mark.system
@pytest.mark.slow
@pytest.mark.timeout(180)
def test_the_agents_of_a_run_keep_to_cores_and_nobody_cuts_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "others_s", lambda cores, own: 0.0)  # other tests run beside this one
    monkeypatch.setattr(supervisor, "REVIEW_S", 0.01)
    n = 2 * len(CORES)
    words = ["topology.kind=line", "env.num_envs=2", "rollout.steps=20", "algorithm.hidden=[8]", "record.tensorboard=false"]
    ready = plan(load("quickstart", ["env.name=network_lq", f"env.agents={n}", "budget.env_steps=1200", *words]))
    pids: dict[str, int] = {}
    seen: list[dict[str, set[tuple[frozenset[int], bool]]]] = []

    def look(report: Control) -> None:
        if isinstance(report, Hello):
            pids[report.role] = report.pid
        elif isinstance(report, RoundReport) and report.round < 20:  # whoever has sent the last of 30 may be gone
            seen.append({role: treatment(pid) for role, pid in pids.items()})

    run_dir = tmp_path / "run"
    make_run_dir(run_dir, ready)
    recorder = Recorder(run_dir, env_steps_per_round=40)
    outcome = supervisor.run(ready, run_dir, recorder, look)
    recorder.close()
    assert outcome.error is None
    seats = {f"node-{agent}": {(frozenset([CORES[agent // 2]]), False)} for agent in range(n)}
    assert seen[-1] == {"world": {(frozenset(CORES), False)}, **seats}
