"""The world process: steps all copies, shows each agent its own part, gathers the actions.

Theory of operation. One loop: SENSE to every agent, ACT from every agent, step. It waits for all agents before it
steps, so it is the barrier
that keeps rounds apart: nobody acts in a new round before having learned from the old one, and the world cannot move
    without everybody. After the last step of a round it shows the first observation of the next, which closes the old
    round too. It tells the coordinator how far it is a few times per second, and never waits for it.
"""

import os
import time
import traceback
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from envs.interface import Transition, VecEnv
from envs.registry import make
from scenarios.loading import load
from scenarios.schema import Scenario
from topology.control import ControlPort, EpisodeRow, Fault, Finished, Hello, Progress, Start, Stop
from topology.deployment import LOGS, SCENARIO_FILE, Deployment
from topology.links import PeerLostError, new_context
from topology.process import StopRequested, settle
from topology.wire import Kind, ProtocolError, shaped
from topology.world_plane import END_NONE, END_TERMINATED, END_TRUNCATED, WorldHub, pack_sense

ROLE = "world"
REPORT_S = 0.5
SLICE_S = 0.25
PATIENCE = 1.25  # the world waits a quarter longer than the nodes, so that a node names the silent one first


def run_world(run_dir: Path, control: str, bind: str) -> int:
    """Be the world of a run, from hello to farewell.

    Args:
        run_dir: The run's directory, with scenario and deployment.
        control: Address of the coordinator's control plane.
        bind: Where the world plane listens.

    Returns:
        The process's exit code: 0 done or asked to stop, 1 failed (and the coordinator was told why).
    """  # noqa: DOC501  (what is raised inside is caught inside)
    settle(ROLE, run_dir / LOGS / "world.log")
    context = new_context()
    port = ControlPort(context, ROLE, control)
    hub: WorldHub | None = None
    try:
        scenario = load(str(run_dir / SCENARIO_FILE))
        deployment = Deployment.read(run_dir)
        env = make(scenario.env, deployment.graph(), scenario.seed)
        hub = WorldHub(
            context,
            bind,
            n_agents=deployment.n_agents,
            copies=scenario.env.copies,
            deadline_s=scenario.supervision.deadline_s,
        )
        port.send(Hello(role=ROLE, pid=os.getpid(), endpoint=hub.endpoint))
        if not isinstance(port.receive(scenario.supervision.start_s), Start):
            raise StopRequested
        try:
            World(scenario, deployment, env, hub, port).run()
        finally:
            env.close()
        port.send(Finished(role=ROLE))
    except StopRequested:
        return 0
    except (PeerLostError, ProtocolError) as error:
        port.send(Fault(role=ROLE, text=str(error)))
        return 1
    except Exception as error:  # noqa: BLE001  (the last line of defence: the coordinator must learn why)
        traceback.print_exc()
        port.send(Fault(role=ROLE, text=f"{type(error).__name__}: {error} (see {LOGS}/world.log)"))
        return 1
    finally:
        if hub is not None:
            hub.close()
        port.close()
        context.term()
    return 0


class World:
    """The loop around an environment."""

    def __init__(self, scenario: Scenario, deployment: Deployment, env: VecEnv, hub: WorldHub, port: ControlPort) -> None:
        self._env = env
        self._hub = hub
        self._port = port
        self._n = deployment.n_agents
        self._act_dims = deployment.act_dims
        self._copies = scenario.env.copies
        self._steps = scenario.rollout.steps
        self._rounds = scenario.n_rounds
        self._dt = deployment.dt
        self._patience_s = PATIENCE * scenario.supervision.deadline_s
        self._episodes: list[EpisodeRow] = []
        self._faults: list[str] = []
        self._reported = time.monotonic()

    def run(self) -> None:
        """Step through every round of the run.

        Raises:
            PeerLostError: an agent was silent or out of reach.
            StopRequested: the coordinator said stop.
        """
        self._gather(Kind.JOIN, 0, 0)
        self._show_first(self._env.reset())
        for round_ in range(self._rounds):
            for step in range(self._steps):
                actions = self._gather(Kind.ACT, round_, step)
                transition = self._env.step(actions)
                self._note(transition, round_, step)
                self._show(transition, *divmod(round_ * self._steps + step + 1, self._steps))
            self._report(round_, self._steps, end=True)

    def _gather(self, kind: Kind, round_: int, step: int) -> list[NDArray[np.float32]]:
        """One message of the kind from every agent, in agent order.

        Raises:
            PeerLostError: an agent was silent beyond the deadline.
            ProtocolError: an agent sent something else.
            StopRequested: the coordinator said stop.
        """
        found: dict[int, NDArray[np.float32]] = {}
        waited = 0.0
        while len(found) < self._n:
            message = self._hub.receive(SLICE_S)
            if message is None:
                waited += SLICE_S
                if isinstance(self._port.receive(0), Stop):
                    raise StopRequested
                if waited >= self._patience_s:
                    silent = sorted(set(range(self._n)) - found.keys())
                    raise PeerLostError(f"world, round {round_}, step {step}: no {kind.name} in time from agents {silent}")
                continue
            header = message.header
            if (header.kind, header.round, header.step) != (kind, round_, step) or header.sender in found:
                raise ProtocolError(
                    f"world, round {round_}, step {step}: agent {header.sender} sent {Kind(header.kind).name} "
                    f"of round {header.round}, step {header.step}"
                )
            size = self._act_dims[header.sender] if kind is Kind.ACT else 0
            found[header.sender] = shaped(message, self._copies, size)
        return [found[agent] for agent in range(self._n)]

    def _show_first(self, obs: list[NDArray[np.float32]]) -> None:
        zeros = np.zeros(self._copies, np.float32)
        no_cost = np.zeros((self._copies, self._env.spec.n_costs), np.float32)
        self._hub.show([[pack_sense(block, zeros, no_cost, zeros)] for block in obs], round_=0, step=0, send_time=0.0)

    def _show(self, transition: Transition, round_: int, step: int) -> None:
        end = np.full(self._copies, END_NONE, np.float32)
        end[transition.terminated] = END_TERMINATED
        end[transition.truncated] = END_TRUNCATED
        arrays = [
            [pack_sense(transition.obs[agent], transition.reward[agent], transition.cost[agent], end)] for agent in range(self._n)
        ]
        if transition.final_obs is not None:
            for own, final_obs in zip(arrays, transition.final_obs, strict=True):
                own.append(final_obs)
        self._hub.show(arrays, round_=round_, step=step, send_time=(round_ * self._steps + step) * self._dt)

    def _note(self, transition: Transition, round_: int, step: int) -> None:
        env_step = (round_ * self._steps + step + 1) * self._copies
        for episode in transition.episodes:
            self._episodes.append(
                EpisodeRow(
                    round=round_,
                    env_step=env_step,
                    copy_index=episode.copy,
                    ret=episode.ret,
                    cost=episode.cost,
                    length=episode.length,
                )
            )
        for copy in np.flatnonzero(transition.faults):
            self._faults.append(f"simulation of copy {copy} diverged at env step {env_step}; the copy was restarted")
        if step % 16 == 0 and time.monotonic() - self._reported > REPORT_S:
            self._report(round_, step + 1)

    def _report(self, round_: int, steps: int, *, end: bool = False) -> None:
        self._port.send(
            Progress(
                round=round_,
                env_step=(round_ * self._steps + steps) * self._copies,
                episodes=tuple(self._episodes),
                traffic=tuple(self._hub.drain()) if end else (),
                faults=tuple(self._faults[:100]),
            )
        )
        self._episodes, self._faults = [], []
        self._reported = time.monotonic()
