"""Who works on which core: agents in blocks of equal size, a core per block, for as long as nobody else wants the machine.

Theory of operation. In lockstep every agent has the same amount to do, and agents with ids close to each other talk most, so
a fair deal of agents to cores is known beforehand. The scheduler knows none of that: it moves a process whenever one wakes,
to wherever nobody runs at that instant, and caches grow cold. Seats take a tenth off the time of rollouts.

Whoever may use one core only suffers from whoever else uses that core: beside a process that keeps one busy, seats make a
run half as slow again. So once a second it is measured how much of the cores others have used, which is what they were busy
less what the run's own processes took. If that is more than a little, all get up, and sit down again only after some quiet
seconds. The world, which needs every core in turn, has no seat.
"""

import contextlib
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import psutil

REVIEW_S = 1.0
CROWD = 0.25  # cores that others may use: a busy process takes at least half of one, what runs on an idle desktop a tenth
QUIET_REVIEWS = 5  # without a crowd before agents sit down again


class Seats:
    """The seats of one run.

    Args:
        n_agents: n.
        cores: Those that this run may use; with fewer than two, or where blocks would differ in size, nobody sits.
    """

    def __init__(self, n_agents: int, cores: Sequence[int]) -> None:
        self._cores = cores
        self._seats = deal(n_agents, cores)
        self._seated: bool | None = False  # None: some may be and some not
        self._quiet = QUIET_REVIEWS - 1  # the first quiet second is enough to begin with
        self._last: tuple[frozenset[int], float] | None = None  # whose time, and what others had used by then

    def review(self, agents: Mapping[int, int], others: Collection[int], elapsed_s: float) -> None:
        """See whether the machine is crowded, and let agents sit or stand accordingly.

        Args:
            agents: Process of each agent that lives on this machine.
            others: The run's other processes.
            elapsed_s: Since the last review.
        """
        if not self._seats:
            return
        own = frozenset(agents.values()) | frozenset(others)
        used = (own, others_s(self._cores, own))
        last, self._last = self._last, used
        if last is None or last[0] != own:
            self._seated = None
            return
        crowded = used[1] - last[1] > CROWD * elapsed_s
        self._quiet = 0 if crowded else self._quiet + 1
        seated = self._quiet >= QUIET_REVIEWS
        if seated != self._seated:
            self._seated = seated
            for agent, pid in agents.items():
                confine(pid, [self._seats[agent]] if seated else self._cores)


def deal(n_agents: int, cores: Sequence[int]) -> tuple[int, ...]:
    """The core of every agent; nothing where there is no choice, or no fair one.

    Example:
        >>> deal(6, [0, 1]), deal(5, [0, 1]), deal(6, [3])
        ((0, 0, 0, 1, 1, 1), (), ())
    """
    size, left_over = divmod(n_agents, len(cores))
    if len(cores) < 2 or left_over:
        return ()
    return tuple(core for core in cores for _ in range(size))


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


def confine(pid: int, cores: Collection[int]) -> None:
    """Let all threads of a process run on these cores only; else (it is gone, or it is forbidden) do without."""
    with contextlib.suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), cores)
