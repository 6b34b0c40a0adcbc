"""The life of a node process: settle, say hello, wait for the start, take part, store the weights, report."""

import hashlib
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from node.learners.beginning import load_weights, origin_of
from node.learners.interface import AgentLearner
from node.learners.making import make_learner
from node.protocol.kinds import largest_peer_body
from node.protocol.routing import CENTRAL, AgentRouting
from node.runtime.loop import Runtime
from scenarios.loading import load
from scenarios.schema import Scenario
from topology.deployment import CHECKPOINTS, LOGS, SCENARIO_FILE, Deployment, policies_folder
from topology.files import replace
from topology.link.schedule import Schedule
from topology.link.treatment import reliable_kinds
from topology.planes.control import ControlPort, Finished, Hello, Reports, Start, Stop, Stored, refused_at, store
from topology.planes.peer import PeerPlane, link_paths
from topology.planes.world import WorldPort, largest_world_body
from topology.process import StopRequested, settle
from topology.snapshot import State, read
from topology.wire.frame import WORLD
from topology.wire.keys import Keyring, frame_extra, role_of
from topology.wire.sockets import Context, DealerLinks, Links, PeerLostError, ZmqLinks, new_context


def run_node(run_dir: Path, agent: int, control: str, bind: str) -> int:
    """Be one agent of a run, from hello to farewell.

    Args:
        run_dir: The run's directory, with scenario and deployment.
        agent: Which agent.
        control: Address of the coordinator's control plane.
        bind: Where this node's inbox listens.

    Returns:
        The process's exit code: 0 done or asked to stop, 1 failed (and a message to the coordinator gave the cause).

    Raises:
        ValueError: the run's directory lacks the scenario or this node's keys, without which no error can be reported.
    """
    scenario = load(str(run_dir / SCENARIO_FILE), resolve_worlds=False)
    keys = Keyring.of(run_dir, role_of(agent), scenario.network)
    log = run_dir / LOGS / f"node-{agent}.log"
    settle(f"node {agent}", log)
    torch.set_num_threads(1)
    context = new_context(lockstep=scenario.clock == "virtual")
    port = ControlPort(context, role_of(agent), control, keys=keys)
    try:
        return port.perform(lambda: _take_part(run_dir, scenario, agent, port, context, bind, keys), log)
    finally:
        port.close()
        context.destroy()  # whatever has kept a socket from being closed: an open one would hold the process here


def _take_part(
    run_dir: Path, scenario: Scenario, agent: int, port: ControlPort, context: Context, bind: str, keys: Keyring | None
) -> None:
    deployment = Deployment.read(run_dir)
    node = Node(run_dir, scenario, deployment, agent)
    links = peer_links(scenario, deployment, node, context, bind, keys)
    to_world: DealerLinks | None = None
    try:
        hello(port, agent, links.endpoint, node.routing.sends_to())
        start = started(port, agent, scenario.supervision.start_limit_s(deployment.n_agents))
        links.connect(dict(zip(node.routing.sends_to(), start.peers, strict=True)))
        to_world = world_links(scenario, deployment, agent, context, start.world, keys)
        node.join(links, to_world, port).run()
        finished = node.conclude()
    finally:
        for refused in refused_at(links.gate, role_of(agent)):  # before the last report, which may end the run
            port.send(refused)
        if to_world is not None:
            to_world.close()
        links.close()
    port.send(finished)


def peer_links(
    scenario: Scenario,
    deployment: Deployment,
    node: "Node",
    context: Context,
    bind: str,
    keys: Keyring | None,
    mates: Collection[int] = (),
) -> ZmqLinks:
    """A node's links to its peers in other processes, not yet connected.

    Args:
        scenario: The scenario.
        deployment: Sizes.
        node: The node.
        context: The ZeroMQ context.
        bind: Where its inbox listens.
        keys: Its keys, if any.
        mates: The nodes of its own process, which do not come in here.
    """
    return ZmqLinks(
        context,
        bind,
        deadline_s=scenario.supervision.deadline_s,
        # Lockstep lets a link hold at most two steps' frames of every origin; twice that means a peer that does not read.
        depth=4 * deployment.n_agents + 16,
        keys=keys,
        receives_from=[peer for peer in node.routing.receives_from() if peer not in mates],
        largest=largest_peer_body(scenario, deployment),
    )


def world_links(
    scenario: Scenario, deployment: Deployment, agent: int, context: Context, world: str, keys: Keyring | None
) -> DealerLinks:
    """A node's link to the world at an address."""
    largest = largest_world_body(deployment, scenario.env.num_envs)
    return DealerLinks(context, agent, world, deadline_s=scenario.supervision.deadline_s, keys=keys, largest=largest)


class Node:
    """An agent with all its parts, before and after it takes part in a run; the same in a process of its own and among others.

    Args:
        run_dir: The run's directory.
        scenario: The scenario.
        deployment: Sizes and graph.
        agent: Which agent.

    Raises:
        ValueError: stored weights do not fit, or they or a stored state cannot be read.
    """

    def __init__(self, run_dir: Path, scenario: Scenario, deployment: Deployment, agent: int) -> None:
        self._run_dir = run_dir
        self._scenario = scenario
        self._deployment = deployment
        self._agent = agent
        self.routing = AgentRouting(scenario, deployment, agent)
        self._learner = make_learner(scenario, deployment, agent, self.routing)
        if deployment.weights is not None:
            self._learner.load_policy(load_weights(Path(deployment.weights), agent))
        if (kept := deployment.begins_from(scenario, run_dir)) is not None:
            self._learner.inherit(origin_of(kept, scenario, deployment, agent))
        stored = deployment.state_file(run_dir, role_of(agent))
        self._state = None if stored is None else read(stored)

    def join(self, links: Links, to_world: Links, control: Reports, *, world: int = WORLD) -> Runtime:
        """The node at work on its links.

        Args:
            links: Carrier of the peer plane.
            to_world: Carrier of the world plane.
            control: Where it reports.
            world: Where the world is on its carrier.
        """
        scenario, graph, critic = self._scenario, self.routing.wires, self._deployment.critic
        extra = frame_extra(scenario.network)
        direct = scenario.routing == "direct"
        schedule = Schedule(scenario.network, graph, self._deployment.seed(scenario), scenario.presets)
        peers = PeerPlane(
            self._agent,
            graph,
            links,
            receives_from=self.routing.receives_from(),
            direct=direct,
            link_paths=link_paths(
                graph,
                self._agent,
                self.routing.sends_to(),
                direct=direct,
                model=lambda src, dst, stream: schedule.link(src, dst, scenario.env.num_envs, stream),
                critic=critic,
            ),
            reliable=reliable_kinds(scenario.network),
            copies=scenario.env.num_envs,
            frame_extra=extra,
            critic=critic,
            central=() if critic is None else CENTRAL,
        )
        runtime = Runtime(
            self._scenario,
            self._deployment,
            self._agent,
            self.routing,
            learner=self._learner,
            peers=peers,
            world=WorldPort(to_world, self._agent, world=world, copies=scenario.env.num_envs, frame_extra=extra),
            control=control,
            schedule=schedule,
            checkpoint=self._checkpoint,
            store=self._store,
        )
        if self._deployment.resumed_after is not None and self._state is not None:
            runtime.resume(self._deployment.resumed_after, self._state)
        return runtime

    def conclude(self) -> Finished:
        """Store the final weights; what there is to report at the end."""
        if self._deployment.learns:
            _store(self._learner, self._run_dir / CHECKPOINTS / "final", self._agent)
        return Finished(role=role_of(self._agent), weights_sha256=digest(self._learner.weights()))

    def _checkpoint(self, round_: int) -> str:
        every = self._scenario.record.checkpoint_rounds
        if every and (round_ + 1) % every == 0:
            try:
                _store(self._learner, self._run_dir / CHECKPOINTS / f"round-{round_ + 1}", self._agent)
            except OSError as error:
                return f"no weights stored after round {round_}: {error.strerror or error}"
        if self._deployment.evaluates_after(round_, self._scenario.n_rounds):
            try:
                _store(self._learner, policies_folder(self._run_dir, round_), self._agent)
            except OSError as error:
                return f"no policy stored to be evaluated after round {round_}: {error.strerror or error}"
        return ""

    def _store(self, round_: int, state: State) -> Stored:
        return store(self._run_dir, role_of(self._agent), round_, state)


def hello(port: ControlPort, agent: int, endpoint: str, peers: Sequence[int]) -> None:
    """Report that a node is up, and which nodes in other processes it opens links to."""
    port.send(Hello(role=role_of(agent), pid=os.getpid(), endpoint=endpoint, peers=tuple(peers)))


def started(port: ControlPort, agent: int, limit_s: float) -> Start:
    """The start, once the coordinator says so.

    Raises:
        StopRequested: the coordinator said stop.
        PeerLostError: it said nothing in time.
    """
    order = port.receive(limit_s)
    if isinstance(order, Start):
        return order
    if isinstance(order, Stop):
        raise StopRequested
    raise PeerLostError(f"agent {agent}: the coordinator said nothing for {limit_s:g} s after hello")


def store_weights(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors, whole or not at all.

    Raises:
        OSError: they cannot be written.
    """
    for one in (path.parent.parent, path.parent):  # but no run's folder that was deleted
        one.mkdir(exist_ok=True)
    replace(path, save({name: tensor.contiguous() for name, tensor in tensors.items()}))


def _store(learner: AgentLearner, folder: Path, agent: int) -> None:
    store_weights(folder / f"agent-{agent}.safetensors", learner.weights())


def digest(tensors: dict[str, Tensor]) -> str:
    """SHA-256 over names, shapes and bytes, in the order given."""
    sha = hashlib.sha256()
    for name, tensor in tensors.items():
        sha.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        sha.update(tensor.contiguous().numpy().tobytes())
    return sha.hexdigest()
