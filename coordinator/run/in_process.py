"""A run within one process: every node and the world over links in memory, one after the other.

Theory of operation. The same parts as in a run with processes, on other carriers: the protocol, the learner, the planes
and the ledger cannot tell the difference, and so the same scenario and seed give the same weights and the same ledger,
byte for byte (tests/system/test_processes.py). Whoever has a message it waits for takes a turn, the world first, then
the nodes in ascending id, the central critic last; if nobody has, nobody ever will, and that is a fault of ours. For
debugging (one stack, one debugger), for teaching, and as the reference that processes are compared with.
"""

import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from coordinator.central.node import Central
from coordinator.central.process import make_central
from coordinator.run.checkpoints import States
from coordinator.run.collector import Desk, Outcome, Watcher
from coordinator.run.database import Recorder, RecordingError
from coordinator.run.plan import Plan
from envs.interface import VecEnv
from envs.process import ROLE, World
from envs.registry import make
from node.process import Node
from node.runtime.loop import Runtime
from topology.finite import DivergedError
from topology.planes.control import Control, Finished, Hello
from topology.planes.world import WorldHub
from topology.process import StopRequested, heed_stop, stopped_by
from topology.wire.keys import frame_extra, role_of
from topology.wire.sockets import MemoryLinks


class _Reports:
    """The control plane where no process has to be crossed."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def send(self, message: Control) -> None:
        self._desk.take(message)

    def receive(self, timeout_s: float) -> Control | None:
        return None


def run(ready: Plan, run_dir: Path, recorder: Recorder, watch: Watcher, *, env: VecEnv | None = None) -> Outcome:
    """Run a plan to its end, in this process.

    Args:
        ready: The plan; its run directory exists.
        run_dir: Where it is.
        recorder: Takes what nodes and world report.
        watch: Called with every report, for a progress display.
        env: The world's copies, if the caller has made them; closed at the end.

    Returns:
        How it ended; its pids are all this process's own.
    """
    torch.set_num_threads(1)
    scenario, deployment = ready.scenario, ready.deployment
    n = deployment.n_agents
    desk = Desk(recorder, watch, States(run_dir))
    reports = _Reports(desk)
    env = env or make(scenario.env, deployment.graph(), deployment.seed(scenario))
    to_agents = MemoryLinks.mesh(n + 1)  # the world sits behind the last agent
    hub = WorldHub(to_agents[n], n_agents=n, copies=scenario.env.copies, frame_extra=frame_extra(scenario.network))
    try:
        world = World(run_dir, scenario, deployment, env, hub, reports)
        nodes = [Node(run_dir, scenario, deployment, agent) for agent in range(n)]
        peers = MemoryLinks.mesh(deployment.n_nodes)
        critics = [make_central(run_dir, scenario, deployment, links, reports) for links in peers[n:]]
    except ValueError as error:  # stored weights that do not fit, or a stored state that cannot be read
        env.close()
        desk.close(str(error))
        return desk.outcome
    runtimes = [
        node.join(links, to_world, reports, world=n) for node, links, to_world in zip(nodes, peers, to_agents, strict=False)
    ]
    for role in (ROLE, *map(role_of, range(deployment.n_nodes))):
        desk.take(Hello(role=role, pid=os.getpid(), endpoint="memory"))
    try:
        with stopped_by(signal.SIGINT, signal.SIGTERM):
            desk.begin()
            for runtime in runtimes:
                runtime.begin()
            everybody = _Everybody(world, dict(enumerate(runtimes)), dict(enumerate(critics, start=n)), desk)
            everybody.take_turns(goes_on=scenario.supervision.on_node_death == "continue", links=(peers, to_agents))
            left = [nodes[agent] for agent in everybody.runtimes]
            for finished in (*(node.conclude() for node in left), *(critic.conclude() for critic in critics)):
                heed_stop()
                desk.take(finished)
            desk.take(Finished(role=ROLE))
            desk.close()
    except _Diverged as error:
        desk.close(str(error))
    except StopRequested:
        desk.close(f"interrupted{desk.where()}", interrupted=True)
    except (RecordingError, OSError) as error:
        desk.close(str(error))
    finally:
        env.close()
    return desk.outcome


class _Diverged(Exception):
    """Numbers of a node are no longer finite, and the run cannot go on without it; the text is for the user."""


@dataclass(frozen=True, slots=True)
class _Everybody:
    """All that take turns, nodes by id; of agents those that are not gone."""

    world: World
    runtimes: dict[int, Runtime]
    critics: dict[int, Central]
    desk: Desk

    def take_turns(self, *, goes_on: bool, links: Sequence[Sequence[MemoryLinks]]) -> None:
        """Let all have their turns until all are done.

        Args:
            goes_on: Whether the others go on without an agent whose numbers are no longer finite.
            links: By agent, on each plane; those of an agent that is gone are closed.

        Raises:
            _Diverged: numbers are no longer finite, and that ends the run.
        """
        while not (self.world.is_over and all(node.is_over for _, node in self._nodes())):
            moved = False
            while not self.world.is_over and self.world.turn():
                heed_stop()
                moved = True
            for agent, node in self._nodes():
                try:
                    while not node.is_over and node.turn():
                        heed_stop()
                        moved = True
                except DivergedError as error:
                    self._leave(agent, error, goes_on=goes_on and agent in self.runtimes and len(self.runtimes) > 1)
                    for plane in links:
                        plane[agent].close()
                    moved = True
            assert moved, "everybody waits and nothing is on its way"

    def _nodes(self) -> "list[tuple[int, Runtime | Central]]":
        return [*self.runtimes.items(), *self.critics.items()]

    def _leave(self, agent: int, error: DivergedError, *, goes_on: bool) -> None:
        """An agent's numbers are no longer finite: the others go on without it, or the run is over."""  # noqa: DOC501
        story = self.desk.diverge(None if agent in self.critics else agent, error.env_step, str(error))
        if not goes_on:
            raise _Diverged(story)
        self.desk.note("coordinator", f"{story}; the others go on")
        self.desk.outcome.gone.add(agent)
        del self.runtimes[agent]
        self.world.lose(agent)
        for other in self.runtimes.values():
            other.lose(agent)
