"""The processes of a run: which roles each has, who is alive, and the fork server that starts them.

Theory of operation. A role is the world, an agent or the central critic: it reports under its own name. A process has one role,
or several agents (`supervision.agents_per_process`). Births and deaths are of processes, reports are of roles. The supervisor
decides what follows from them; here is only what there is, and how an order reaches the fork server.
"""

import asyncio
import contextlib
import json
import os
import shlex
import sys
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import psutil

from coordinator.records.packs import processes
from coordinator.records.plan import Plan
from coordinator.run.scheduling import REVIEW_S, Scheduling
from scenarios.registry import environment
from topology.deployment import LOGS
from topology.wire.keys import WORLD_ROLE, role_of, spoken_role
from topology.wire.sockets import ipc_endpoint

FORK_SERVER = "fork server"
CLOSE_S = 2.0  # what the fork server is given to end by itself


class Processes:
    """The processes of a run.

    Args:
        ready: The plan.
        run_dir: The run's directory.
        by_hand: Agents whose nodes are started from outside.

    Attributes:
        roles: Every role, the world first, then agents and critic by id.
        by_hand: The roles of the nodes that are started from outside.
        critic: The role of the central critic, if there is one.
        alive: Process ids of the processes that the fork server has started and that have not ended, by name.
    """

    def __init__(self, ready: Plan, run_dir: Path, by_hand: Collection[int]) -> None:
        self._scenario = ready.scenario
        self._run_dir = run_dir
        self._roles_of = processes(ready.scenario.supervision.agents_per_process, ready.deployment, by_hand)
        self._server: asyncio.subprocess.Process | None = None
        self.roles = [role for roles in self._roles_of.values() for role in roles]
        self.by_hand = [role_of(agent) for agent in sorted(by_hand)]
        self.critic = None if ready.deployment.critic is None else role_of(ready.deployment.critic)
        self.alive: dict[str, int] = {}

    def roles_of(self, name: str) -> list[str]:
        """The roles of a process."""
        return self._roles_of[name]

    def holder(self, role: str) -> str:
        """The process that has a role."""
        return next(name for name, roles in self._roles_of.items() if role in roles)

    def roles_alive(self) -> list[str]:
        """The roles of the processes that are alive."""
        return [role for name in self.alive for role in self._roles_of[name]]

    # ------------------------------------------------------------ fork server

    @property
    def server(self) -> asyncio.subprocess.Process:
        """The fork server, once it is open."""
        assert self._server is not None
        return self._server

    async def open(self, sockets: Path, lock: int) -> None:
        """Start the fork server.

        Args:
            sockets: The folder of the sockets.
            lock: Descriptor of its lock, which the fork server keeps.
        """
        with (self._run_dir / LOGS / "fork_server.log").open("ab") as log:
            self._server = await asyncio.create_subprocess_exec(
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

    def send(self, order: dict[str, Any]) -> None:
        """Give the fork server an order."""
        assert self.server.stdin is not None
        self.server.stdin.write(json.dumps(order).encode() + b"\n")

    def start(self, control: str, sockets: Path, say: Callable[[str], None]) -> None:
        """Order the births of all processes.

        Args:
            control: Address of the control plane.
            sockets: The folder of the sockets.
            say: Called with the command that starts each node that is started from outside.
        """
        binds = {role: self.address(sockets, role, place) for place, role in enumerate(self.roles)}
        for name, roles in self._roles_of.items():
            order = {
                "role": name,
                "run_dir": str(self._run_dir.resolve()),
                "control": control,
                "binds": [binds[role] for role in roles],
                "agents": [int(role.removeprefix("node-")) for role in roles if role != WORLD_ROLE],
                "critic": name == self.critic,
            }
            if name in self.by_hand:
                say(_command(order))
            else:
                self.send(order)

    async def close(self) -> None:
        """End the fork server."""
        assert self.server.stdin is not None
        self.server.stdin.close()
        try:
            await asyncio.wait_for(self.server.wait(), CLOSE_S)
        except TimeoutError:
            self.server.kill()
            await self.server.wait()

    def address(self, sockets: Path, name: str, place: int) -> str:
        """Where a role listens; with fixed ports, the one at its place."""
        network = self._scenario.network
        if network.transport == "ipc":
            return ipc_endpoint(sockets, name)
        return f"tcp://{network.host}:{network.port + place if network.port else '*'}"

    # ---------------------------------------------------------- while they run

    async def share_cores(self, evaluator: Callable[[], int | None]) -> None:
        """Let the run use the cores as it may while it is alone, or in company (`coordinator.run.scheduling`), without end.

        Args:
            evaluator: Gives the process id of the evaluation under way, if there is one.
        """
        if self._scenario.clock != "virtual" or sys.platform != "linux":
            return
        packs = [name for name in self._roles_of if name not in (WORLD_ROLE, self.critic)]
        cores = Scheduling(len(packs), sorted(os.sched_getaffinity(0)))
        looked = time.monotonic()
        while True:
            await asyncio.sleep(REVIEW_S)
            agents = {place: self.alive[name] for place, name in enumerate(packs) if name in self.alive}
            helpers = set(self.alive.values()) - set(agents.values())
            idle = evaluator()
            idlers = {os.getpid(), self.server.pid, *([] if idle is None else [idle])}
            now = time.monotonic()
            with contextlib.suppress(OSError):  # the system does not tell what it does
                cores.review(agents, helpers, idlers, now - looked)
            looked = now

    def spoken(self, name: str) -> str:
        """A process or role as it is called in a sentence."""
        if name == self.critic:
            return "the central critic"
        return f"the {name}" if name == FORK_SERVER else spoken_role(name)

    def halted(self) -> str:
        """The processes that were stopped from outside (SIGSTOP, a debugger): they explain a silence best."""
        every = {**self.alive, FORK_SERVER: self.server.pid}
        halted = [f"{self.spoken(name)} (pid {pid})" for name, pid in every.items() if _is_halted(pid)]
        return f"; stopped from outside: {', '.join(halted)}" if halted else ""


def _command(order: dict[str, Any]) -> str:
    """The command that means the same as an order of one agent."""
    words = {"run": order["run_dir"], "agent": order["agents"][0], "control": order["control"], "bind": order["binds"][0]}
    options = [word for name, value in words.items() for word in (f"--{name}", str(value))]
    known = [f"{name}={value}" for name, value in environment().items()]
    return shlex.join([*(["env", *known] if known else []), sys.executable, "-P", "-m", "node", *options])


def _is_halted(pid: int) -> bool:
    with contextlib.suppress(psutil.Error, OSError):  # it has ended, or there is no descriptor left to look with
        return psutil.Process(pid).status() in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)
    return False
