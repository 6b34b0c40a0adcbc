"""The life of the central node's process, and which mind it has."""

import os
import traceback
from pathlib import Path

import torch

from coordinator.central import Central
from coordinator.critic import CentralCritic
from coordinator.mixer import CentralMixer
from scenarios.loading import load
from scenarios.schema import Scenario
from topology.control import ControlPort, Fault, Hello, Reports, Start, refused_at
from topology.deployment import LOGS, SCENARIO_FILE, Deployment
from topology.keys import Keyring, role_of
from topology.links import Links, PeerLostError, ZmqLinks, new_context
from topology.process import StopRequested, settle
from topology.wire import ProtocolError


def make_central(run_dir: Path, scenario: Scenario, deployment: Deployment, links: Links, control: Reports) -> Central:
    """The central node that a scenario's recipe wants.

    Raises:
        ValueError: a stored state cannot be read.
    """
    make = CentralMixer if scenario.algorithm.recipe.is_led else CentralCritic
    return Central(run_dir, scenario, deployment, make(scenario, deployment), links, control)


def run_central(run_dir: Path, control: str, bind: str) -> int:
    """Be the central node of a run, from hello to farewell.

    Args:
        run_dir: The run's directory, with scenario and deployment.
        control: Address of the coordinator's control plane.
        bind: Where its inbox listens.

    Returns:
        The process's exit code: 0 done or asked to stop, 1 failed (and the coordinator was told why).
    """  # noqa: DOC501  (what is raised inside is caught inside)
    scenario = load(str(run_dir / SCENARIO_FILE))
    deployment = Deployment.read(run_dir)
    role = role_of(deployment.n_agents)
    settle("critic", run_dir / LOGS / "critic.log")
    torch.set_num_threads(1)
    keys = Keyring.of(run_dir, role, scenario.network)
    context = new_context()
    port = ControlPort(context, role, control, keys=keys)
    links: ZmqLinks | None = None
    try:
        deadline_s, depth = scenario.supervision.deadline_s, 4 * deployment.n_agents + 16
        links = ZmqLinks(context, bind, deadline_s=deadline_s, depth=depth, keys=keys, hears=deployment.critic_edges)
        central = make_central(run_dir, scenario, deployment, links, port)
        port.send(Hello(role=role, pid=os.getpid(), endpoint=links.endpoint))
        start = port.receive(scenario.supervision.start_s)
        if not isinstance(start, Start):
            raise StopRequested
        links.connect({to: start.peers[to] for to in deployment.critic_edges})
        central.run()
        for refused in refused_at(links.gate, role):  # before the last report, which may end the run
            port.send(refused)
        port.send(central.conclude())
    except StopRequested:
        return 0
    except (PeerLostError, ProtocolError) as error:
        port.send(Fault(role=role, text=str(error)))
        return 1
    except Exception as error:  # noqa: BLE001  (the last line of defence: the coordinator must learn why)
        traceback.print_exc()
        port.send(Fault(role=role, text=f"{type(error).__name__}: {error} (see {LOGS}/critic.log)"))
        return 1
    finally:
        if links is not None:
            links.close()
        port.close()
        context.term()
    return 0
