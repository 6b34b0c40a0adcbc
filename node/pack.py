"""The life of a pack: a process with several nodes, which take turns.

Theory of operation. Every node of a pack is what it would be in a process of its own: it has its learner, its random streams, its
books, its keys, its inbox, and its ends of the world plane and the control plane. Two things differ. Messages between nodes of
the pack go through memory (`topology.wire.sockets.PackLinks`), and no node waits by itself. A node has a turn while what it
waits for is there. If no node has a message, the pack waits for all of their sockets at once.

The order of the turns changes no result: in lockstep what a node does depends on which messages have arrived in virtual time, not
on when they came in. So packs need `clock: virtual`.

A node keeps the keys of its own agent. An inbox admits the peers of its node and nothing else, as without packs. On tcp with keys
each node has a ZeroMQ context of its own, since a context has one gate (`topology.wire.keys`).
"""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from node.process import Node, hello, peer_links, started, world_links
from node.runtime.loop import Runtime
from node.runtime.round_robin import take_turns
from scenarios.loading import load
from scenarios.schema import Scenario
from topology.deployment import LOGS, SCENARIO_FILE, Deployment
from topology.finite import DivergedError
from topology.planes.control import ControlPort, Start, refused_at
from topology.process import SLICE_S, StopRequested, heed_stop, settle
from topology.wire.keys import Keyring, is_secured, pack_role, role_of, spoken_role
from topology.wire.sockets import Context, DealerLinks, MemoryLinks, PackLinks, Socket, new_context, wait_for_any

MANY_LINKS = 60_000  # sockets of a pack towards peers in other processes; ZeroMQ has room for no more


def run_pack(run_dir: Path, agents: Sequence[int], control: str, binds: Sequence[str]) -> int:
    """Be several agents of a run, from hello to farewell.

    Args:
        run_dir: The run's directory, with scenario and deployment.
        agents: Which agents.
        control: Address of the coordinator's control plane.
        binds: Where each node's inbox listens.

    Returns:
        The process's exit code: 0 done or asked to stop, 1 failed (and the coordinator was told why).

    Raises:
        ValueError: the run's directory lacks the scenario or a node's keys, without which no error can be reported.
    """
    scenario = load(str(run_dir / SCENARIO_FILE), resolve_worlds=False)
    title = pack_role(agents)
    log = run_dir / LOGS / f"{title}.log"
    settle(spoken_role(title), log)
    torch.set_num_threads(1)
    if is_secured(scenario.network):
        contexts = [new_context(lockstep=True) for _ in agents]
    else:
        contexts = [new_context(lockstep=True, max_sockets=MANY_LINKS)] * len(agents)
    members = [Member(run_dir, scenario, agent, control, context) for agent, context in zip(agents, contexts, strict=True)]
    pack = Pack(members, goes_on=scenario.supervision.on_node_death == "continue", log=log)
    try:
        deployment, near = Deployment.read(run_dir), MemoryLinks.among(agents)
        for member, bind in zip(pack.each(), binds, strict=True):
            member.settle(deployment, near[member.agent], agents, bind)
        for member in pack.each():
            member.join()
        pack.play()
        for member in pack.each():
            member.conclude()
    except StopRequested:
        return 0
    except Exception as error:  # noqa: BLE001  (the last line of defence: the coordinator must learn why)
        return pack.speaker.port.fail(error, log)
    finally:
        for member in members:
            member.close()
            member.port.close()
        for context in set(contexts):
            context.destroy()  # whatever has kept a socket from being closed: an open one would hold the process here
    return 0


class Member:
    """One node of a pack, and its sockets.

    Args:
        run_dir: The run's directory.
        scenario: The scenario.
        agent: Which agent.
        control: Address of the coordinator's control plane.
        context: The ZeroMQ context of its sockets.

    Attributes:
        agent: As given.
        port: Its end of the control plane.
    """

    def __init__(self, run_dir: Path, scenario: Scenario, agent: int, control: str, context: Context) -> None:
        self.agent = agent
        self._run_dir = run_dir
        self._scenario = scenario
        self._context = context
        self._keys = Keyring.of(run_dir, role_of(agent), scenario.network)
        self.port = ControlPort(context, role_of(agent), control, keys=self._keys)
        self._node: Node | None = None
        self._links: PackLinks | None = None
        self._to_world: DealerLinks | None = None
        self._runtime: Runtime | None = None

    def settle(self, deployment: Deployment, near: MemoryLinks, mates: Sequence[int], bind: str) -> None:
        """Make the node and its inbox, and say hello.

        Raises:
            ValueError: stored weights or a stored state do not fit.
        """
        self._deployment = deployment
        self._mates = frozenset(mates)
        self._node = Node(self._run_dir, self._scenario, deployment, self.agent)
        far = peer_links(self._scenario, deployment, self._node, self._context, bind, self._keys, self._mates)
        self._links = PackLinks(near, far, self._mates)
        hello(self.port, self.agent, far.endpoint, self._far_peers(self._node))

    def join(self) -> None:
        """Wait for the start, connect, and begin."""
        assert self._node is not None
        assert self._links is not None
        limit_s = self._scenario.supervision.start_limit_s(self._deployment.n_agents)
        start: Start = started(self.port, self.agent, limit_s)
        self._links.far.connect(dict(zip(self._far_peers(self._node), start.peers, strict=True)))
        self._to_world = world_links(self._scenario, self._deployment, self.agent, self._context, start.world, self._keys)
        self._runtime = self._node.join(self._links, self._to_world, self.port)

    @property
    def is_over(self) -> bool:
        """Whether the node has taken part in every round."""
        return self.runtime.is_over

    def turn(self) -> bool:
        """See `Runtime.turn`."""
        return self.runtime.turn()

    @property
    def runtime(self) -> Runtime:
        """The node at work, once it has joined."""
        assert self._runtime is not None
        return self._runtime

    @property
    def socket(self) -> Socket:
        """Where what this node waits for comes in from other processes."""
        assert self._links is not None
        assert self._to_world is not None
        return self._links.far.socket if self.runtime.waits_for_peers else self._to_world.socket

    @property
    def has_mail(self) -> bool:
        """Whether the pack holds a message that this node waits for."""
        assert self._links is not None
        return self._links.near.holds_any and self.runtime.waits_for_peers

    def conclude(self) -> None:
        """Store the final weights, and report the end."""
        assert self._node is not None
        finished = self._node.conclude()
        self._report_refused()
        self.port.send(finished)

    def close(self) -> None:
        """Give up its links; what was sent still leaves."""
        for links in (self._to_world, self._links):
            if links is not None:
                links.close()
        self._to_world = self._links = None

    def _far_peers(self, node: Node) -> list[int]:
        """The nodes in other processes that it opens links to."""
        return [peer for peer in node.routing.sends_to() if peer not in self._mates]

    def _report_refused(self) -> None:
        """Before the last report, which may end the run."""
        if self._links is not None:
            for refused in refused_at(self._links.far.gate, role_of(self.agent)):
                self.port.send(refused)


class Pack:
    """The nodes of one process.

    Args:
        members: The nodes.
        goes_on: Whether the others go on without a node whose numbers are no longer finite.
        log: Named where the end of a node is reported.

    Attributes:
        members: Those that are still there, by agent.
        speaker: The node that is at work, in whose name an error is reported.
    """

    def __init__(self, members: Sequence[Member], *, goes_on: bool, log: Path) -> None:
        self.members = {member.agent: member for member in members}
        self.speaker = members[0]
        self._goes_on = goes_on
        self._log = log
        self._moved = 0.0  # when a node last had something to do, by `time.monotonic`

    def each(self) -> Iterator[Member]:
        """The nodes one after the other; each speaks for the pack meanwhile."""
        for member in list(self.members.values()):
            self.speaker = member
            yield member

    def play(self) -> None:
        """Let all nodes take part in every round of the run.

        Raises:
            PeerLostError: a peer was silent beyond the deadline.
            StopRequested: the coordinator said stop.
            DivergedError: numbers of a node are no longer finite, and the run does not go on without it.
        """
        for member in self.each():
            member.runtime.begin()
        self._moved = time.monotonic()
        take_turns(self.members, due=self._due, lose=self._lose, heed=heed_stop, between=self._note)

    def _due(self, present: list[int]) -> Iterator[int]:
        """The nodes whose message is there; if there is none, waits a slice for one."""
        here = [member for member in map(self.members.__getitem__, present) if member.has_mail]
        for member in here or self._wait(present):
            self.speaker = member
            yield member.agent

    def _wait(self, present: list[int]) -> list[Member]:
        """Wait until something comes in that a node waits for; those nodes."""
        by_socket = {member.socket: member for member in map(self.members.__getitem__, present)}
        ready = wait_for_any(by_socket, SLICE_S)
        for member in () if ready else by_socket.values():
            self.speaker = member
            try:
                member.runtime.review(self._moved)
            except DivergedError as error:
                self._lose(member.agent, error)
        return [by_socket[socket] for socket in ready]

    def _note(self, moved: bool) -> None:
        if moved:
            self._moved = time.monotonic()

    def _lose(self, agent: int, error: DivergedError) -> None:
        """Go on without a node; the coordinator tells all others so."""
        if not self._goes_on or len(self.members) == 1:
            raise error
        member = self.members.pop(agent)
        member.port.fail(error, self._log)
        member.close()
