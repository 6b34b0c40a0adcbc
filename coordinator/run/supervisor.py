"""Starting a run's processes, watching them, and ending them, whatever happens.

Theory of operation. Three sources feed one queue: the control plane (what processes report), the fork server (births and
deaths), and requests to stop (`topology.process.StopFlag`). It installs no signal handler, so it runs in any thread. The
supervisor takes one item after the other and moves through

    starting ─all have sent Hello──► running ─all Finished and exited with 0──► done
        └───── a process died, reported a Fault, was late, or a request to stop ────────► failed

and on failure ends every process: SIGTERM, then after `supervision.stop_s` SIGKILL. What was recorded stays readable. When a
process exits, the supervisor waits briefly for its Fault message: it explains the failure better than the exit code.

Evaluations (`coordinator.evaluation.evaluations`) are made one after the other by a process of their own, which takes of the
processor only what the training leaves. When the training is over, the one under way is begun again as a process like any
other, and the rest follow. One that fails is told and left out; the run goes on. One that does not get on for
`supervision.deadline_s` is ended. Beside the training the machine may have left it no processor time, so it is begun again when
the training is over, and so are all others; then it is left out too.
"""

import asyncio
import contextlib
import errno
import itertools
import json
import os
import resource
import signal
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from coordinator.evaluation.evaluations import ROLE as EVALUATION
from coordinator.evaluation.evaluations import EvaluationWatcher, ignore
from coordinator.evaluation.evaluator import Evaluator
from coordinator.records.database import Recorder, RecordingError
from coordinator.records.plan import Plan
from coordinator.run.collector import Collector, Outcome, Watcher
from coordinator.run.processes import Processes
from coordinator.run.scheduling import REVIEW_S
from node.protocol.kinds import averaged
from topology.deployment import LOGS
from topology.planes.control import (
    Control,
    ControlHub,
    Fault,
    Gone,
    Hello,
    Progress,
    Refused,
    RoundReport,
    Stop,
    largest_report,
    refused_at,
    start_of,
)
from topology.process import STOP, StopFlag, how_it_ended
from topology.wire.keys import COORDINATOR, WORLD_ROLE, Keyring, role_of
from topology.wire.socket_folder import socket_folder

LAST_WORDS_S = 0.5  # how long a death waits for the Fault that may explain it
NAMED = 8  # of processes that are not up so many are named one by one
KILL_S = 2.0  # how long a killed process may take to be reaped


def run(
    ready: Plan,
    run_dir: Path,
    recorder: Recorder,
    watch: Watcher,
    *,
    by_hand: Collection[int] = (),
    say: Callable[[str], None] = print,
    watch_evaluations: EvaluationWatcher = ignore,
    stop: StopFlag = STOP,
) -> Outcome:
    """Run a plan to its end.

    Args:
        ready: The plan; its run directory exists.
        run_dir: Where it is.
        recorder: Takes what processes report.
        watch: Called with every report, for a progress display.
        by_hand: Agents whose nodes are started from outside; the run waits for their hello like for all others'.
        say: Called with the command that starts each of them.
        watch_evaluations: Called with every evaluation, for the same display.
        stop: Ends the run when it is asked to; asked again while processes are ending, it kills them.
    """
    collector = Collector(ready, run_dir, recorder, watch, watch_evaluations)
    asyncio.run(_Supervisor(ready, run_dir, collector, by_hand, say, stop).run())
    return collector.outcome


class _Failure(Exception):
    """The run cannot go on; the text is for the user."""


class _InterruptedError(_Failure):
    """A request to stop ended the run."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request to stop, and where it comes from."""

    reason: str


_Item = Control | dict[str, Any] | _Asked | _Failure


class _Supervisor:
    def __init__(
        self,
        ready: Plan,
        run_dir: Path,
        collector: Collector,
        by_hand: Collection[int],
        say: Callable[[str], None],
        stop: StopFlag,
    ) -> None:
        self._scenario = ready.scenario
        self._n = ready.deployment.n_agents
        self._run_dir = run_dir
        self._collector = collector
        self._inbox: asyncio.Queue[_Item] = asyncio.Queue()
        self._hellos: dict[str, Hello] = {}
        self._processes = Processes(ready, run_dir, by_hand)
        self._roles = self._processes.roles
        self._alive = self._processes.alive
        self._largest = largest_report(len(self._roles), self._scenario.rollout.steps, averaged(ready.scenario, ready.deployment))
        self._diverged: dict[str, str] = {}  # what is said of a process's numbers, by role
        self._orphaned = False
        self._hub: ControlHub | None = None  # once all processes are up
        self._evaluator = Evaluator(run_dir, collector.evaluations, self._scenario.supervision.deadline_s)
        self._evaluates_beside = True  # the training
        self._say = say
        self._stop = stop

    async def run(self) -> None:
        loop = asyncio.get_running_loop()

        def wake(reason: str) -> None:
            loop.call_soon_threadsafe(self._inbox.put_nowait, _Asked(reason))

        with self._stop.waking(wake), socket_folder() as (folder, lock):
            keys = Keyring.of(self._run_dir, COORDINATOR, self._scenario.network)
            hub = ControlHub(self._processes.address(folder, "control", len(self._roles)), keys=keys, largest=self._largest)
            await self._processes.open(folder, lock)
            sharing = self._processes.share_cores(lambda: self._evaluator.pid)
            sources = (self._listen(hub), self._mind(self._processes.server), sharing, self._count_descriptors(hub))
            tasks = [asyncio.create_task(source) for source in sources]
            error: _Failure | RecordingError | None = None
            try:
                await self._supervise(hub, folder)
            except (_Failure, RecordingError) as failure:
                error = failure
            finally:
                try:
                    self._collector.close(None if error is None else str(error), interrupted=isinstance(error, _InterruptedError))
                finally:
                    await self._end_all(hub)
                for task in tasks:
                    task.cancel()
                await self._processes.close()
                self._conclude(hub)

    # -------------------------------------------------------------- sources

    async def _listen(self, hub: ControlHub) -> None:
        while True:
            await self._inbox.put(await hub.receive())

    async def _mind(self, fork_server: asyncio.subprocess.Process) -> None:
        assert fork_server.stdout is not None
        while line := await fork_server.stdout.readline():
            await self._inbox.put(json.loads(line))
        await self._inbox.put({"closed": True})

    async def _count_descriptors(self, hub: ControlHub) -> None:
        """End the run when no file can be opened any more, before that shows somewhere where it can hardly be told."""
        while True:
            await asyncio.sleep(REVIEW_S)
            try:
                os.close(os.dup(0))
            except OSError as error:
                if error.errno not in (errno.EMFILE, errno.ENFILE):
                    return  # there is no standard input to try it with
                outside = 0 if hub.gate is None else hub.gate.outside
                limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
                text = f"no file descriptor is left (ulimit -n is {limit}, {outside} connections of strangers to {hub.endpoint})"
                await self._inbox.put(_Failure(text + self._collector.where()))
                return

    # ------------------------------------------------------------- the course

    async def _supervise(self, hub: ControlHub, folder: Path) -> None:
        limit_s = self._scenario.supervision.start_limit_s(self._n)
        deadline = time.monotonic() + limit_s
        while len(self._hellos) < len(self._roles):
            left = deadline - time.monotonic()
            item = await self._next(left)
            if item is None:
                absent = [self._processes.spoken(role) for role in self._roles if role not in self._hellos]
                raise _Failure(not_up(absent, len(self._roles), limit_s) + self._processes.halted())
            if isinstance(item, dict) and "ready" in item:
                self._processes.start(hub.endpoint, folder, self._say)
            else:
                await self._on(item)
        self._collector.begin()
        self._hub = hub
        for role in self._roles:
            if not await hub.send(role, start_of(self._hellos[role], self._hellos, self._hellos[WORLD_ROLE].endpoint)):
                raise _Failure(f"{self._processes.spoken(role)} said hello, and cannot be reached")
        silence_s = 2 * self._scenario.supervision.deadline_s
        while self._alive or not self._collector.finished.issuperset(self._processes.by_hand):
            item = await self._next(silence_s)
            if item is None:
                raise _Failure(f"no process reported anything for {silence_s:g} s{self._processes.halted()}")
            await self._on(item)
            if self._alive and self._evaluates_beside:
                self._evaluator.begin(self._processes.send, beside_training=True)
                await self._heed_evaluator()
        await self._evaluate_rest()

    async def _heed_evaluator(self) -> None:
        """End the evaluation under way, and leave all others for the end, if it has not got on within the deadline."""
        if self._evaluator.is_late():
            deadline_s = self._scenario.supervision.deadline_s
            told = f"{self._evaluator.job} did not get on for {deadline_s:g} s beside the training"
            self._collector.note(EVALUATION, f"{told}; evaluations are made when it is over")
            self._evaluates_beside = False
            await self._end_evaluator()

    async def _evaluate_rest(self) -> None:
        """Training is over: make the evaluations that are left, with no training to leave the processor to."""
        self._collector.end_training()
        if self._evaluator.job is not None:
            await self._end_evaluator()
        deadline_s = self._scenario.supervision.deadline_s
        while True:
            self._evaluator.begin(self._processes.send, beside_training=False)
            if (job := self._evaluator.job) is None:
                return
            item = await self._next(deadline_s)
            if item is not None:
                await self._on(item)
            else:
                self._collector.evaluations.fail(job, f"it did not get on for {deadline_s:g} s")
                await self._end_evaluator()

    async def _end_evaluator(self) -> None:
        """End the evaluation under way, which then is one that may be begun again."""
        self._evaluator.job = None
        while self._evaluator.pid is None:  # ordered, and not born yet
            item = await self._next(KILL_S)
            if item is None:
                return
            await self._on(item)
        self._evaluator.kill()
        while self._evaluator.pid is not None and (item := await self._next(KILL_S)) is not None:
            await self._on(item)

    async def _next(self, timeout_s: float) -> "_Item | None":
        try:
            return await asyncio.wait_for(self._inbox.get(), max(0.0, timeout_s))
        except TimeoutError:
            return None

    async def _on(self, item: "_Item") -> None:
        if isinstance(item, _Asked):
            raise _InterruptedError(f"{item.reason}{self._collector.where()}")
        if isinstance(item, _Failure):
            raise item
        if isinstance(item, dict):
            await self._on_fork_server(item)
            return
        if isinstance(item, Fault) and item.diverged_at is not None:
            await self._on_diverged(item, item.diverged_at)
            return
        if isinstance(item, Fault):
            raise _Failure(
                f"{self._processes.spoken(item.role)} gave up{self._collector.where()}: {item.text}{self._processes.halted()}"
            )
        if isinstance(item, Refused):
            self._note_refused(item)
            return
        if isinstance(item, Hello):
            self._hellos[item.role] = item
        self._collector.take(item)

    async def _on_diverged(self, item: Fault, env_step: int) -> None:
        """Numbers of a node are no longer finite: the run ends, or the others go on without it, also those of its process."""  # noqa: DOC501
        agent = None if item.role == self._processes.critic else self._roles.index(item.role) - 1
        story = self._collector.diverge(agent, env_step, item.text)
        if not self._may_go_on_without([item.role]):
            raise _Failure(story)
        if len(self._left(self._processes.roles_of(self._processes.holder(item.role)))) > 1:
            await self._tell_gone([item.role], story)
        else:  # its process exits
            self._diverged[item.role] = story

    async def _on_fork_server(self, item: dict[str, Any]) -> None:
        if self._evaluator.is_meant(item):
            self._evaluator.take(item)
        elif "born" in item:
            self._alive[item["born"]] = item["pid"]
        elif "dead" in item:
            name, status = item["dead"], item["status"]
            pid = self._alive.pop(name, 0)
            await self._handle_last_words()
            lost = self._left(self._processes.roles_of(name))
            if lost and (status != 0 or not self._collector.finished.issuperset(lost)):
                how = f"{self._processes.spoken(name)} (pid {pid}) {how_it_ended(status)}{self._collector.where()}"
                story = next((self._diverged[role] for role in lost if role in self._diverged), how)
                if not self._may_go_on_without(lost):
                    raise _Failure(story)
                await self._tell_gone(lost, story)
        elif "closed" in item and self._needs_fork_server():
            self._orphaned = True
            raise _Failure(
                f"the fork server, the parent of all processes, has died{self._collector.where()} (see {LOGS}/fork_server.log)"
            )

    def _needs_fork_server(self) -> bool:
        has_to_start = len(self._hellos) < len(self._roles)
        return has_to_start or bool(self._alive) or self._evaluator.has_work()

    def _left(self, roles: Sequence[str]) -> list[str]:
        """Those without which the run has not gone on already."""
        gone = {role_of(agent) for agent in self._collector.outcome.gone}
        return [role for role in roles if role not in gone]

    def _may_go_on_without(self, lost: Sequence[str]) -> bool:
        wanted = self._scenario.supervision.on_node_death == "continue" and self._hub is not None
        return wanted and WORLD_ROLE not in lost and len(self._collector.outcome.gone) + len(lost) < self._n

    async def _tell_gone(self, lost: Sequence[str], story: str) -> None:
        """Let the others go on without some agents."""
        assert self._hub is not None
        agents = [int(role.removeprefix("node-")) for role in lost]
        for agent in agents:
            self._collector.lose(agent, story)
        there = set(self._left(self._processes.roles_alive()))
        for agent, other in itertools.product(agents, sorted(there - self._collector.finished)):
            await self._hub.send(other, Gone(agent=agent))

    async def _handle_last_words(self) -> None:
        """Handle what the control plane still holds, so that a Fault is handled before the death that it explains."""
        deadline = time.monotonic() + LAST_WORDS_S
        later: list[Any] = []
        while not self._collector.finished.issuperset(self._roles):
            item = await self._next(deadline - time.monotonic())
            if item is None:
                break
            if isinstance(item, dict | _Asked):
                later.append(item)
            else:
                await self._on(item)
        for item in later:
            self._inbox.put_nowait(item)

    # ----------------------------------------------------------------- ending

    async def _end_all(self, hub: ControlHub) -> None:
        """End every process that is still there; nothing is waited for longer than stop_s and KILL_S."""
        for role in self._processes.by_hand:
            if role in self._hellos and role not in self._collector.finished:
                await hub.send(role, Stop(reason="the run is over"))
        if self._evaluator.pid is not None:
            self._alive[EVALUATION] = self._evaluator.pid
        for number, patience_s in ((signal.SIGTERM, self._scenario.supervision.stop_s), (signal.SIGKILL, KILL_S)):
            for pid in self._alive.values():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            deadline = time.monotonic() + patience_s
            while self._alive and time.monotonic() < deadline:
                item = await self._next(min(0.1, deadline - time.monotonic()))
                if self._orphaned:  # no deaths are reported any more
                    for name in [name for name, pid in self._alive.items() if not psutil.pid_exists(pid)]:
                        del self._alive[name]
                match item:
                    case {"born": role, "pid": pid}:  # born while the run was failing
                        self._alive[role] = pid
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(pid, number)
                    case {"dead": role}:
                        self._alive.pop(role, None)
                    case {"closed": True}:
                        self._orphaned = True
                    case Progress() | RoundReport():
                        self._collector.take(item)
                    case Refused():
                        self._note_refused(item)
                    case _Asked():  # a second request: at once
                        break
                    case _:
                        pass

    def _conclude(self, hub: ControlHub) -> None:
        for refused in refused_at(hub.gate, COORDINATOR):
            self._note_refused(refused)
        if hub.refused.total:
            self._collector.note(COORDINATOR, f"refused {hub.refused.total} frames")
        for text in hub.refused.texts:
            self._collector.note(COORDINATOR, f"refused: {text}")
        hub.close()

    # ----------------------------------------------------------------- pieces

    def _note_refused(self, refused: Refused) -> None:
        self._collector.note(refused.role, f"kept out {refused.connections} connections")
        for reason in refused.reasons:
            self._collector.note(refused.role, f"kept out: {reason}")


def not_up(absent: Sequence[str], of: int, limit_s: float) -> str:
    """Which processes did not come up in time, and what to change.

    Example:
        >>> not_up(["node 1"], 4, 61.2)
        '1 of 4 processes not up within 61.2 s: node 1; supervision.start_s gives them longer'
    """
    named = ", ".join(absent) if len(absent) <= NAMED else f"first {absent[0]}"
    return f"{len(absent)} of {of} processes not up within {limit_s:g} s: {named}; supervision.start_s gives them longer"
