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
import json
import os
import resource
import shlex
import signal
import sys
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from coordinator.evaluation.evaluations import ROLE as EVALUATION
from coordinator.evaluation.evaluations import EvaluationWatcher, ignore
from coordinator.evaluation.evaluator import Evaluator
from coordinator.records.database import Recorder, RecordingError
from coordinator.records.plan import Plan
from coordinator.run.collector import Collector, Outcome, Watcher
from coordinator.run.scheduling import REVIEW_S, Scheduling
from node.protocol.kinds import averaged
from scenarios.registry import environment
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
    Start,
    Stop,
    largest_report,
    refused_at,
)
from topology.process import STOP, StopFlag, how_it_ended
from topology.wire.keys import COORDINATOR, Keyring, role_of
from topology.wire.socket_folder import socket_folder
from topology.wire.sockets import ipc_endpoint

FORK_SERVER = "fork server"
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
        self._alive: dict[str, int] = {}
        self._fork_server_pid = 0
        self._roles = ["world", *map(role_of, range(ready.deployment.n_nodes))]
        self._largest = largest_report(len(self._roles), self._scenario.rollout.steps, averaged(ready.scenario, ready.deployment))
        self._critic = None if ready.deployment.critic is None else role_of(ready.deployment.critic)
        self._diverged: dict[str, str] = {}  # what is said of a process's numbers, by role
        self._orphaned = False
        self._hub: ControlHub | None = None  # once all processes are up
        self._evaluator = Evaluator(run_dir, collector.evaluations, self._scenario.supervision.deadline_s)
        self._evaluates_beside = True  # the training
        self._by_hand = [f"node-{agent}" for agent in sorted(by_hand)]
        self._say = say
        self._stop = stop

    async def run(self) -> None:
        loop = asyncio.get_running_loop()

        def wake(reason: str) -> None:
            loop.call_soon_threadsafe(self._inbox.put_nowait, _Asked(reason))

        with self._stop.waking(wake), socket_folder() as (folder, lock):
            keys = Keyring.of(self._run_dir, COORDINATOR, self._scenario.network)
            hub = ControlHub(self._address(folder, "control", len(self._roles)), keys=keys, largest=self._largest)
            fork_server = await _open_fork_server(self._run_dir, folder, lock)
            self._fork_server_pid = fork_server.pid
            sources = (self._listen(hub), self._mind(fork_server), self._share(fork_server), self._count_descriptors(hub))
            tasks = [asyncio.create_task(source) for source in sources]
            error: _Failure | RecordingError | None = None
            try:
                await self._supervise(hub, fork_server, folder)
            except (_Failure, RecordingError) as failure:
                error = failure
            finally:
                try:
                    self._collector.close(None if error is None else str(error), interrupted=isinstance(error, _InterruptedError))
                finally:
                    await self._end_all(hub)
                for task in tasks:
                    task.cancel()
                await _close_fork_server(fork_server)
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

    async def _share(self, fork_server: asyncio.subprocess.Process) -> None:
        """Let the run use the cores as it may while it is alone, or in company (`coordinator.run.scheduling`)."""
        if self._scenario.clock != "virtual" or sys.platform != "linux":
            return
        cores = Scheduling(self._n, sorted(os.sched_getaffinity(0)))
        looked = time.monotonic()
        while True:
            await asyncio.sleep(REVIEW_S)
            agents = {place: self._alive[role] for place, role in enumerate(self._roles[1 : 1 + self._n]) if role in self._alive}
            helpers = set(self._alive.values()) - set(agents.values())
            idlers = {os.getpid(), fork_server.pid, *([] if self._evaluator.pid is None else [self._evaluator.pid])}
            now = time.monotonic()
            with contextlib.suppress(OSError):  # the system does not tell what it does
                cores.review(agents, helpers, idlers, now - looked)
            looked = now

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

    async def _supervise(self, hub: ControlHub, fork_server: asyncio.subprocess.Process, folder: Path) -> None:
        limit_s = self._scenario.supervision.start_limit_s(self._n)
        deadline = time.monotonic() + limit_s
        while len(self._hellos) < len(self._roles):
            left = deadline - time.monotonic()
            item = await self._next(left)
            if item is None:
                absent = [self._spoken(role) for role in self._roles if role not in self._hellos]
                raise _Failure(not_up(absent, len(self._roles), limit_s) + self._halted())
            if isinstance(item, dict) and "ready" in item:
                self._order_births(fork_server, hub, folder)
            else:
                await self._on(item)
        self._collector.begin()
        self._hub = hub
        start = Start(
            world=self._hellos["world"].endpoint,
            peers=tuple(self._hellos[role].endpoint for role in self._roles[1:]),
        )
        for role in self._roles:
            if not await hub.send(role, start):
                raise _Failure(f"{self._spoken(role)} said hello, and cannot be reached")
        silence_s = 2 * self._scenario.supervision.deadline_s
        while self._alive or not self._collector.finished.issuperset(self._by_hand):
            item = await self._next(silence_s)
            if item is None:
                raise _Failure(f"no process reported anything for {silence_s:g} s{self._halted()}")
            await self._on(item)
            if self._alive and self._evaluates_beside:
                self._evaluator.begin(partial(_send, fork_server), beside_training=True)
                await self._heed_evaluator()
        await self._evaluate_rest(fork_server)

    async def _heed_evaluator(self) -> None:
        """End the evaluation under way, and leave all others for the end, if it has not got on within the deadline."""
        if self._evaluator.is_late():
            deadline_s = self._scenario.supervision.deadline_s
            told = f"{self._evaluator.job} did not get on for {deadline_s:g} s beside the training"
            self._collector.note(EVALUATION, f"{told}; evaluations are made when it is over")
            self._evaluates_beside = False
            await self._end_evaluator()

    async def _evaluate_rest(self, fork_server: asyncio.subprocess.Process) -> None:
        """Training is over: make the evaluations that are left, with no training to leave the processor to."""
        self._collector.end_training()
        if self._evaluator.job is not None:
            await self._end_evaluator()
        deadline_s = self._scenario.supervision.deadline_s
        while True:
            self._evaluator.begin(partial(_send, fork_server), beside_training=False)
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

    def _order_births(self, fork_server: asyncio.subprocess.Process, hub: ControlHub, folder: Path) -> None:
        for place, role in enumerate(self._roles):
            if role in self._by_hand:
                agent, bind = place - 1, self._address(folder, role, place)
                words = ["--run", str(self._run_dir.resolve()), "--agent", str(agent), "--control", hub.endpoint, "--bind", bind]
                known = [f"{name}={value}" for name, value in environment().items()]
                self._say(shlex.join([*(["env", *known] if known else []), sys.executable, "-P", "-m", "node", *words]))
                continue
            order: dict[str, Any] = {
                "role": role,
                "run_dir": str(self._run_dir.resolve()),
                "control": hub.endpoint,
                "bind": self._address(folder, role, place),
            }
            if role != "world":
                order |= {"agent": place - 1, "critic": role == self._critic}
            _send(fork_server, order)

    async def _on(self, item: "_Item") -> None:
        if isinstance(item, _Asked):
            raise _InterruptedError(f"{item.reason}{self._collector.where()}")
        if isinstance(item, _Failure):
            raise item
        if isinstance(item, dict):
            await self._on_fork_server(item)
            return
        if isinstance(item, Fault) and item.diverged_at is not None:
            self._on_diverged(item, item.diverged_at)
            return
        if isinstance(item, Fault):
            raise _Failure(f"{self._spoken(item.role)} gave up{self._collector.where()}: {item.text}{self._halted()}")
        if isinstance(item, Refused):
            self._note_refused(item)
            return
        if isinstance(item, Hello):
            self._hellos[item.role] = item
        self._collector.take(item)

    def _on_diverged(self, item: Fault, env_step: int) -> None:
        """Numbers of a process are no longer finite: it exits, which ends the run, or the others go on without it."""  # noqa: DOC501
        agent = None if item.role == self._critic else self._roles.index(item.role) - 1
        story = self._collector.diverge(agent, env_step, item.text)
        if not self._may_go_on_without(item.role):
            raise _Failure(story)
        self._diverged[item.role] = story

    async def _on_fork_server(self, item: dict[str, Any]) -> None:
        if self._evaluator.is_meant(item):
            self._evaluator.take(item)
        elif "born" in item:
            self._alive[item["born"]] = item["pid"]
        elif "dead" in item:
            role, status = item["dead"], item["status"]
            pid = self._alive.pop(role, 0)
            await self._handle_last_words()
            if status != 0 or role not in self._collector.finished:
                story = (
                    self._diverged.get(role)
                    or f"{self._spoken(role)} (pid {pid}) {how_it_ended(status)}{self._collector.where()}"
                )
                if not self._may_go_on_without(role):
                    raise _Failure(story)
                await self._tell_gone(role, story)
        elif "closed" in item and self._needs_fork_server():
            self._orphaned = True
            raise _Failure(
                f"the fork server, the parent of all processes, has died{self._collector.where()} (see {LOGS}/fork_server.log)"
            )

    def _needs_fork_server(self) -> bool:
        has_to_start = len(self._hellos) < len(self._roles)
        return has_to_start or bool(self._alive) or self._evaluator.has_work()

    def _may_go_on_without(self, role: str) -> bool:
        wanted = self._scenario.supervision.on_node_death == "continue"
        return wanted and self._hub is not None and role != "world" and len(self._collector.outcome.gone) < self._n - 1

    async def _tell_gone(self, role: str, story: str) -> None:
        """Let the others go on without an agent."""
        assert self._hub is not None
        agent = int(role.removeprefix("node-"))
        self._collector.lose(agent, story)
        for other in self._alive:
            if other not in self._collector.finished:
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
        for role in self._by_hand:
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
                    self._alive = {role: pid for role, pid in self._alive.items() if psutil.pid_exists(pid)}
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

    def _address(self, folder: Path, name: str, place: int) -> str:
        network = self._scenario.network
        if network.transport == "ipc":
            return ipc_endpoint(folder, name)
        return f"tcp://{network.host}:{network.port + place if network.port else '*'}"

    def _spoken(self, role: str) -> str:
        if role == self._critic:
            return "the central critic"
        return f"the {role}" if role == FORK_SERVER else role.replace("-", " ")

    def _halted(self) -> str:
        """The processes that were stopped from outside (SIGSTOP, a debugger): they explain a silence best."""
        processes = {**self._alive, FORK_SERVER: self._fork_server_pid}
        halted = [f"{self._spoken(role)} (pid {pid})" for role, pid in processes.items() if _is_halted(pid)]
        return f"; stopped from outside: {', '.join(halted)}" if halted else ""


def _is_halted(pid: int) -> bool:
    with contextlib.suppress(psutil.Error, OSError):  # it has ended, or there is no descriptor left to look with
        return psutil.Process(pid).status() in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)
    return False


def not_up(absent: Sequence[str], of: int, limit_s: float) -> str:
    """Which processes did not come up in time, and what to change.

    Example:
        >>> not_up(["node 1"], 4, 61.2)
        '1 of 4 processes not up within 61.2 s: node 1; supervision.start_s gives them longer'
    """
    named = ", ".join(absent) if len(absent) <= NAMED else f"first {absent[0]}"
    return f"{len(absent)} of {of} processes not up within {limit_s:g} s: {named}; supervision.start_s gives them longer"


async def _open_fork_server(run_dir: Path, sockets: Path, lock: int) -> asyncio.subprocess.Process:
    log = (run_dir / LOGS / "fork_server.log").open("ab")
    try:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            "-m",
            "coordinator.run.fork_server",
            sockets,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            env={**os.environ, **environment(), "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            start_new_session=True,
            pass_fds=(lock,),
        )
    finally:
        log.close()


def _send(fork_server: asyncio.subprocess.Process, order: dict[str, Any]) -> None:
    assert fork_server.stdin is not None
    fork_server.stdin.write(json.dumps(order).encode() + b"\n")


async def _close_fork_server(fork_server: asyncio.subprocess.Process) -> None:
    assert fork_server.stdin is not None
    fork_server.stdin.close()
    try:
        await asyncio.wait_for(fork_server.wait(), KILL_S)
    except TimeoutError:
        fork_server.kill()
        await fork_server.wait()
