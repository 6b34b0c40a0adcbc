"""All that take part in a run, in one process, on links in memory."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from coordinator.central.process import make_central
from coordinator.records.plan import Plan
from envs.interface import VecEnv
from envs.process import World
from node.process import Node
from node.runtime.round_robin import Player, take_turns
from topology.finite import DivergedError
from topology.planes.control import Finished, Reports
from topology.planes.world import WorldHub
from topology.process import StopFlag
from topology.wire.frame import WORLD
from topology.wire.keys import frame_extra
from topology.wire.sockets import MemoryLinks


@contextlib.contextmanager
def on_one_thread() -> Iterator[None]:
    """Let torch compute on one thread within the block, as nodes do, and then on as many as its caller has set."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Company:
    """All that take part in a run, on links in memory; nodes by id, and of agents those that are not gone."""

    def __init__(self, ready: Plan, run_dir: Path, env: VecEnv, reports: Reports) -> None:
        scenario, deployment = ready.scenario, ready.deployment
        self._n = n = deployment.n_agents
        peers, to_agents = MemoryLinks.mesh(deployment.n_nodes), MemoryLinks.mesh(n + 1)  # the world sits behind the last agent
        hub = WorldHub(to_agents[n], n_agents=n, copies=scenario.env.num_envs, frame_extra=frame_extra(scenario.network))
        self._world = World(run_dir, scenario, deployment, env, hub, reports)
        self._nodes = [Node(run_dir, scenario, deployment, agent) for agent in range(n)]
        critics = [make_central(run_dir, scenario, deployment, links, reports) for links in peers[n:]]
        self._critics = dict(enumerate(critics, start=n))
        self._runtimes = {
            agent: node.join(peers[agent], to_agents[agent], reports, world=n) for agent, node in enumerate(self._nodes)
        }
        self._links = (peers, to_agents)

    def is_agent(self, node: int) -> bool:
        """Whether a node is an agent, not the central critic."""
        return node < self._n

    def may_lose(self, node: int) -> bool:
        """Whether there are others that could go on without a node."""
        return self.is_agent(node) and len(self._runtimes) > 1

    def conclude(self) -> Iterator[Finished]:
        """What each agent and the central critic have to report when all is over."""
        yield from (self._nodes[agent].conclude() for agent in self._runtimes)
        yield from (critic.conclude() for critic in self._critics.values())

    def play(
        self, diverged: Callable[[int, DivergedError], None], stop: StopFlag, between: Callable[[], None] = lambda: None
    ) -> None:
        """Let all have their turns until all are done: the world first, then the nodes in ascending id, the critic last.

        Args:
            diverged: Called when numbers of a node are no longer finite; unless it raises, the others go on without the node.
            stop: Looked at between two turns.
            between: Called whenever all have had a turn.
        """

        def after(moved: bool) -> None:
            assert moved, "all processes wait and nothing is on its way"
            between()

        self._players: dict[int, Player] = {WORLD: self._world, **self._runtimes, **self._critics}
        for runtime in self._runtimes.values():
            runtime.begin()
        take_turns(
            self._players,
            due=lambda present: present,
            lose=lambda agent, error: self._lose(agent, error, diverged),
            heed=stop.heed,
            between=after,
        )

    def _lose(self, agent: int, error: DivergedError, diverged: Callable[[int, DivergedError], None]) -> None:
        """Go on without an agent, and without those whose numbers turn out not to be finite once they need not wait for it."""
        gone = []

        def drop(lost: int, why: DivergedError) -> None:
            diverged(lost, why)
            del self._runtimes[lost], self._players[lost]
            gone.append(lost)

        drop(agent, error)
        for lost in gone:
            self._world.lose(lost)
            for other, runtime in list(self._runtimes.items()):
                try:
                    runtime.lose(lost)
                except DivergedError as why:
                    drop(other, why)
            for plane in self._links:
                plane[lost].close()
