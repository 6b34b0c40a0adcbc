"""How a run's processes use the cores: undisturbed while they are alone on the machine, like all other processes otherwise.

Theory of operation. In lockstep no process gains by preempting another, every agent has the same amount to do, and agents with
close ids exchange most. The scheduler knows none of that: it lets a process that wakes cut in on one that computes, and moves
it to a core that is idle at that instant; caches grow cold. So while a run is alone its processes are set not to cut in
(SCHED_BATCH), and agents are dealt to cores in blocks of equal size. Each takes a tenth or more off the time of rollouts.

When other programs use the machine, both settings slow the run. SCHED_BATCH processes wait even for work of the lowest
priority: beside two processes at nice 19 a run would be seven times slower. Pinned processes cannot move away from a busy
core: beside one busy process a run would be half as slow again. So once a second the coordinator measures what other programs
have used of the cores: the busy time of the cores less the time of the run's own processes. If that is more than a little,
both settings are taken back. They return only after some quiet seconds, twice as many each time, since programs that wait for
their turn are quiet too.
"""

import contextlib
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import psutil

REVIEW_S = 1.0
CROWD = 0.25  # cores that others may use: a busy process takes at least half of one, what runs on an idle desktop a tenth
QUIET_REVIEWS = 5  # after company, before a run counts as alone
MOST_QUIET_REVIEWS = 80


class Scheduling:
    """The cores of one run.

    Args:
        n_agents: n.
        cores: Those that this run may use.
    """

    def __init__(self, n_agents: int, cores: Sequence[int]) -> None:
        self._cores = cores
        self._seats = deal(n_agents, cores) or (cores,) * n_agents
        self._alone: bool | None = False  # None: some processes are treated so and some not
        self._wanted = QUIET_REVIEWS
        self._quiet = QUIET_REVIEWS - 1  # the first quiet second is enough to begin with
        self._last: tuple[frozenset[int], float] | None = None  # whose time, and what others had used by then

    def review(self, agents: Mapping[int, int], helpers: Collection[int], idlers: Collection[int], elapsed_s: float) -> None:
        """See whether the run is alone on the machine, and treat its processes accordingly.

        Args:
            agents: Process of each agent that lives on this machine.
            helpers: The processes that agents wait for, and which need every core in turn.
            idlers: The run's other processes, which are left as they are.
            elapsed_s: Since the last review.
        """
        own = frozenset((*agents.values(), *helpers, *idlers))
        last, self._last = self._last, (own, others_s(self._cores, own))
        if last is None or last[0] != own:
            self._alone = None
            return
        if self._last[1] - last[1] > CROWD * elapsed_s:
            if self._alone:
                self._wanted = min(2 * self._wanted, MOST_QUIET_REVIEWS)
            self._quiet = 0
        else:
            self._quiet += 1
        alone = self._quiet >= self._wanted
        if alone != self._alone:
            self._alone = alone
            for agent, pid in agents.items():
                treat(pid, self._seats[agent] if alone else self._cores, cuts_in=not alone)
            for pid in helpers:
                treat(pid, self._cores, cuts_in=not alone)


def deal(n_agents: int, cores: Sequence[int]) -> tuple[tuple[int], ...]:
    """The core of every agent; nothing where blocks would differ in size.

    Example:
        >>> deal(4, [0, 1]), deal(5, [0, 1])
        (((0,), (0,), (1,), (1,)), ())
    """
    size, left_over = divmod(n_agents, len(cores))
    return () if left_over else tuple((core,) for core in cores for _ in range(size))


def others_s(cores: Collection[int], own: Collection[int]) -> float:
    """Processor seconds that these cores have spent since the machine started on anything but the processes given."""
    busy = 0.0
    for core, times in enumerate(psutil.cpu_times(percpu=True)):
        if core in cores:
            busy += times.user + times.nice + times.system + times.irq + times.softirq
    for pid in own:
        with contextlib.suppress(psutil.Error):
            own_times = psutil.Process(pid).cpu_times()
            busy -= own_times.user + own_times.system
    return busy


def treat(pid: int, cores: Collection[int], *, cuts_in: bool) -> None:
    """Let all threads of a process run on these cores, and cut in or not; else (it is gone, or it is forbidden) do without."""
    policy = os.SCHED_OTHER if cuts_in else os.SCHED_BATCH
    with contextlib.suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), cores)
            if os.sched_getscheduler(int(thread.name)) in (os.SCHED_OTHER, os.SCHED_BATCH):  # else the user has chosen
                os.sched_setscheduler(int(thread.name), policy, os.sched_param(0))
