"""The life of a node process: settle, say hello, wait for the start, take part, store the weights, report."""

import hashlib
import os
import traceback
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from node.agenda import Agenda
from node.learner import Learner
from node.runtime import Runtime, make_learner
from scenarios.loading import load
from scenarios.schema import Scenario
from topology.control import ControlPort, Fault, Finished, Hello, Start, Stop
from topology.deployment import CHECKPOINTS, LOGS, SCENARIO_FILE, Deployment
from topology.links import Context, PeerLostError, ZmqLinks, new_context
from topology.peer_plane import PeerPlane
from topology.process import StopRequested, settle
from topology.wire import ProtocolError
from topology.world_plane import WorldPort


def role_of(agent: int) -> str:
    """A node's name on the control plane."""
    return f"node-{agent}"


def run_node(run_dir: Path, agent: int, control: str, bind: str) -> int:
    """Be one agent of a run, from hello to farewell.

    Args:
        run_dir: The run's directory, with scenario and deployment.
        agent: Which agent.
        control: Address of the coordinator's control plane.
        bind: Where this node's inbox listens.

    Returns:
        The process's exit code: 0 done or asked to stop, 1 failed (and the coordinator was told why).
    """
    settle(f"node {agent}", run_dir / LOGS / f"node-{agent}.log")
    torch.set_num_threads(1)
    context = new_context()
    port = ControlPort(context, role_of(agent), control)
    try:
        _take_part(run_dir, agent, port, context, bind)
    except StopRequested:
        return 0
    except (PeerLostError, ProtocolError) as error:
        port.send(Fault(role=role_of(agent), text=str(error)))
        return 1
    except Exception as error:  # noqa: BLE001  (the last line of defence: the coordinator must learn why)
        traceback.print_exc()
        port.send(Fault(role=role_of(agent), text=f"{type(error).__name__}: {error} (see {LOGS}/node-{agent}.log)"))
        return 1
    finally:
        port.close()
        context.term()
    return 0


def _take_part(run_dir: Path, agent: int, port: ControlPort, context: Context, bind: str) -> None:
    scenario = load(str(run_dir / SCENARIO_FILE))
    deployment = Deployment.read(run_dir)
    deadline_s = scenario.supervision.deadline_s
    agenda = Agenda(scenario, deployment, agent)
    learner = make_learner(scenario, deployment, agent, agenda)
    if deployment.weights is not None:
        learner.load_policy(load_file(Path(deployment.weights) / f"agent-{agent}.safetensors"))
    # Lockstep lets a link hold at most two steps' frames of every origin; one that is fuller leads to a peer that does not read.
    links = ZmqLinks(context, bind, deadline_s=deadline_s, depth=4 * deployment.n_agents + 16)
    world: WorldPort | None = None
    try:
        start = _hello(port, agent, links.endpoint, scenario)
        links.connect({to: start.peers[to] for to in agenda.speaks_to()})
        peers = PeerPlane(
            agent,
            deployment.graph(),
            links,
            hears=agenda.hears(),
            direct=scenario.routing == "direct",
            copies=scenario.env.copies,
        )
        world = WorldPort(context, agent, start.world, copies=scenario.env.copies)

        def checkpoint(round_: int) -> None:
            every = scenario.record.checkpoint_rounds
            if every and (round_ + 1) % every == 0:
                _store(learner, run_dir / CHECKPOINTS / f"round-{round_ + 1}", agent)

        runtime = Runtime(
            scenario, deployment, agent, agenda, learner=learner, peers=peers, world=world, control=port, checkpoint=checkpoint
        )
        runtime.run()
        if deployment.learns:
            _store(learner, run_dir / CHECKPOINTS / "final", agent)
        port.send(Finished(role=role_of(agent), weights_sha256=digest(learner.weights())))
    finally:
        if world is not None:
            world.close()
        links.close()


def _hello(port: ControlPort, agent: int, endpoint: str, scenario: Scenario) -> Start:

    port.send(Hello(role=role_of(agent), pid=os.getpid(), endpoint=endpoint))
    order = port.receive(scenario.supervision.start_s)
    if isinstance(order, Start):
        return order
    if isinstance(order, Stop):
        raise StopRequested
    raise PeerLostError(f"agent {agent}: the coordinator said nothing for {scenario.supervision.start_s:g} s after hello")


def _store(learner: Learner, folder: Path, agent: int) -> None:
    """Write an agent's tensors, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"agent-{agent}.safetensors"
    partial = path.with_suffix(".partial")
    save_file({name: tensor.contiguous() for name, tensor in learner.weights().items()}, partial)
    partial.replace(path)


def digest(tensors: dict[str, Tensor]) -> str:
    """SHA-256 over names, shapes and bytes, in the order given."""
    sha = hashlib.sha256()
    for name, tensor in tensors.items():
        sha.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        sha.update(tensor.contiguous().numpy().tobytes())
    return sha.hexdigest()
