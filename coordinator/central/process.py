"""The life of the central node's process, and which mind it has."""

import os
from pathlib import Path

import torch

from coordinator.central.critic import CentralCritic
from coordinator.central.node import Central
from coordinator.central.qmix import CentralMixer
from node.learners.beginning import central_origin_of
from node.protocol.kinds import largest_peer_body
from scenarios.loading import load
from scenarios.schema import Scenario
from topology.deployment import LOGS, SCENARIO_FILE, Deployment
from topology.planes.control import ControlPort, Hello, Reports, Start, refused_at
from topology.process import StopRequested, settle
from topology.wire.keys import Keyring, role_of
from topology.wire.sockets import Context, Links, ZmqLinks, new_context


def make_central(run_dir: Path, scenario: Scenario, deployment: Deployment, links: Links, control: Reports) -> Central:
    """The central node that a scenario's recipe wants.

    Raises:
        ValueError: a stored state or what the run begins with cannot be read.
    """
    make = CentralMixer if scenario.algorithm.recipe.is_led else CentralCritic
    mind = make(scenario, deployment)
    if (kept := deployment.begins_from(scenario, run_dir)) is not None:
        mind.inherit(central_origin_of(kept, deployment))
    return Central(run_dir, scenario, deployment, mind, links, control)


def run_central(run_dir: Path, control: str, bind: str) -> int:
    """Be the central node of a run, from hello to farewell.

    Args:
        run_dir: The run's directory, with scenario and deployment.
        control: Address of the coordinator's control plane.
        bind: Where its inbox listens.

    Returns:
        The process's exit code: 0 done or asked to stop, 1 failed (and a message to the coordinator gave the cause).
    """
    scenario = load(str(run_dir / SCENARIO_FILE), resolve_worlds=False)
    deployment = Deployment.read(run_dir)
    log = run_dir / LOGS / "critic.log"
    settle("critic", log)
    torch.set_num_threads(1)
    role = role_of(deployment.n_agents)
    keys = Keyring.of(run_dir, role, scenario.network)
    context = new_context(lockstep=scenario.clock == "virtual")
    port = ControlPort(context, role, control, keys=keys)
    try:
        return port.perform(lambda: _take_part(run_dir, scenario, deployment, port, context, bind, keys), log)
    finally:
        port.close()
        context.destroy()  # whatever has kept a socket from being closed: an open one would hold the process here


def _take_part(
    run_dir: Path,
    scenario: Scenario,
    deployment: Deployment,
    port: ControlPort,
    context: Context,
    bind: str,
    keys: Keyring | None,
) -> None:
    role, depth = role_of(deployment.n_agents), 4 * deployment.n_agents + 16
    deadline_s = scenario.supervision.deadline_s
    links = ZmqLinks(
        context,
        bind,
        deadline_s=deadline_s,
        depth=depth,
        keys=keys,
        receives_from=deployment.critic_edges,
        largest=largest_peer_body(scenario, deployment),
    )
    try:
        central = make_central(run_dir, scenario, deployment, links, port)
        port.send(Hello(role=role, pid=os.getpid(), endpoint=links.endpoint, peers=deployment.critic_edges))
        start = port.receive(scenario.supervision.start_limit_s(deployment.n_agents))
        if not isinstance(start, Start):
            raise StopRequested
        links.connect(dict(zip(deployment.critic_edges, start.peers, strict=True)))
        central.run()
        finished = central.conclude()
    finally:
        for refused in refused_at(links.gate, role):  # before the last report, which may end the run
            port.send(refused)
        links.close()
    port.send(finished)
