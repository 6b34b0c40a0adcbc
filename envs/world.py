"""The world process: steps all copies, shows each agent its own part, gathers the actions.

Theory of operation. One loop: SENSE to every agent, ACT from every agent, step. It waits for all agents before it
steps, so it is the barrier that keeps rounds apart: nobody acts in a new round before having learned from the old one,
and the world cannot move without everybody. After the last step of a round it shows the first observation of the next,
which closes the old round too. It tells the coordinator how far it is a few times per second, and never waits for it.
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
from topology.control import ControlPort, EpisodeRow, Fault, Finished, Hello, Progress, Reports, Start, Stop
from topology.deployment import LOGS, SCENARIO_FILE, Deployment
from topology.links import PeerLostError, RouterLinks, new_context
from topology.process import StopRequested, settle
from topology.wire import KIND_NAMES, Kind, Message, ProtocolError, shaped
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
    links: RouterLinks | None = None
    try:
        scenario = load(str(run_dir / SCENARIO_FILE))
        deployment = Deployment.read(run_dir)
        env = make(scenario.env, deployment.graph(), scenario.seed)
        links = RouterLinks(context, bind, deadline_s=scenario.supervision.deadline_s)
        hub = WorldHub(links, n_agents=deployment.n_agents, copies=scenario.env.copies)
        port.send(Hello(role=ROLE, pid=os.getpid(), endpoint=links.endpoint))
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
        if links is not None:
            links.close()
        port.close()
        context.term()
    return 0


class World:
    """The loop around an environment.

    Attributes:
        is_over: Whether every round of the run has been stepped through.
    """

    def __init__(self, scenario: Scenario, deployment: Deployment, env: VecEnv, hub: WorldHub, port: Reports) -> None:
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
        self._due = Kind.JOIN
        self._round = self._step = 0
        self._heard: dict[int, NDArray[np.float32]] = {}
        self.is_over = False

    def run(self) -> None:
        """Step through every round of the run.

        Raises:
            PeerLostError: an agent was silent or out of reach.
            StopRequested: the coordinator said stop.
        """
        while not self.is_over:
            self._handle(self._wait())

    def turn(self) -> bool:
        """Handle the next message, if it is there; whether it was."""
        message = self._hub.receive(0.0)
        if message is not None:
            self._handle(message)
        return message is not None

    def _wait(self) -> Message:
        waited = 0.0
        while (message := self._hub.receive(SLICE_S)) is None:
            waited += SLICE_S
            if isinstance(self._port.receive(0.0), Stop):
                raise StopRequested
            if waited >= self._patience_s:
                silent = sorted(set(range(self._n)) - self._heard.keys())
                raise PeerLostError(f"{self._story()}: no {self._due.name} in time from agents {silent}")
        return message

    def _handle(self, message: Message) -> None:
        """Take in what is due from an agent; once all are heard, go on.

        Raises:
            ProtocolError: the agent sent something else.
        """
        header = message.header
        if (header.kind, header.round, header.step) != (self._due, self._round, self._step) or header.sender in self._heard:
            raise ProtocolError(
                f"{self._story()}: agent {header.sender} sent {KIND_NAMES[header.kind]} "
                f"of round {header.round}, step {header.step}"
            )
        size = self._act_dims[header.sender] if self._due is Kind.ACT else 0
        self._heard[header.sender] = shaped(message, self._copies, size)
        if len(self._heard) == self._n:
            actions = [self._heard[agent] for agent in range(self._n)]
            self._heard.clear()
            if self._due is Kind.JOIN:
                self._due = Kind.ACT
                self._show_first(self._env.reset())
            else:
                self._advance(actions)

    def _advance(self, actions: list[NDArray[np.float32]]) -> None:
        """One step of the environment, and what follows from it for everybody."""
        transition = self._env.step(actions)
        round_, step = self._round, self._step
        self._round, self._step = divmod(round_ * self._steps + step + 1, self._steps)
        self._note(transition, round_, step)
        self._show(transition, self._round, self._step)
        if self._step == 0:
            self._report(round_, self._steps, end=True)
            self.is_over = self._round == self._rounds

    def _story(self) -> str:
        return f"world, round {self._round}, step {self._step}"

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
