"""The world process: steps all copies, shows each agent its own part, gathers the actions.

Theory of operation. One loop: SENSE to every agent, ACT from every agent, step. It waits for all agents before it
steps, so it is the barrier that keeps steps apart: the world cannot move without all agents. After the last step of a
round it shows the first observation of the next, which closes the old round too; then it stands still until every agent
is READY, and says GO.

It keeps virtual time. A step lasts one control period, or until the slowest agent has acted if computing takes longer; a
round begins when the slowest agent has ended the one before. On the wall clock it keeps real time instead, counted from
the first step: a step is shown no earlier than one control period after the last, or after GO.

An agent that has died (`Gone`) is waited for no longer; its joints go limp. It tells the coordinator how far it is a few
times per second, and never waits for it.
"""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from envs.interface import Transition, VecEnv
from envs.registry import make
from scenarios.kinds import Kind
from scenarios.loading import load
from scenarios.schema import Scenario
from topology.deployment import LOGS, SCENARIO_FILE, Deployment
from topology.planes.control import (
    MAX_EPISODES,
    ControlPort,
    EpisodeRow,
    Finished,
    Gone,
    Hello,
    Progress,
    Reports,
    Start,
    Stop,
    refused_at,
    store,
)
from topology.planes.world import END_FAULT, END_NONE, END_TERMINATED, END_TRUNCATED, WorldHub, largest_world_body, pack_sense
from topology.process import SLICE_S, StopRequested, settle
from topology.snapshot import State, read
from topology.wire.frame import KIND_NAMES, Message, ProtocolError, table
from topology.wire.keys import WORLD_ROLE, Keyring, frame_extra
from topology.wire.sockets import Context, PeerLostError, RouterLinks, new_context

ROLE = WORLD_ROLE
REPORT_S = 0.5
FAULTS_TOLD = 100  # faults of the simulation that a run tells one by one
PATIENCE = 1.25  # the world waits a quarter longer than the nodes, so that a node names the silent one first


def run_world(run_dir: Path, control: str, bind: str) -> int:
    """Be the world of a run, from hello to farewell.

    Args:
        run_dir: The run's directory, with scenario and deployment.
        control: Address of the coordinator's control plane.
        bind: Where the world plane listens.

    Returns:
        The process's exit code: 0 done or asked to stop, 1 failed (and a message to the coordinator gave the cause).
    """
    log = run_dir / LOGS / "world.log"
    scenario = load(str(run_dir / SCENARIO_FILE))
    settle(ROLE, log)
    keys = Keyring.of(run_dir, ROLE, scenario.network)
    context = new_context(lockstep=scenario.clock == "virtual")
    port = ControlPort(context, ROLE, control, keys=keys)
    try:
        return port.perform(lambda: _take_part(run_dir, scenario, port, context, bind, keys), log)
    finally:
        port.close()
        context.destroy()  # whatever has kept a socket from being closed: an open one would hold the process here


def _take_part(run_dir: Path, scenario: Scenario, port: ControlPort, context: Context, bind: str, keys: Keyring | None) -> None:
    deployment = Deployment.read(run_dir)
    env = make(scenario.env, deployment.graph(), deployment.seed(scenario))
    links = RouterLinks(
        context,
        bind,
        deadline_s=scenario.supervision.deadline_s,
        keys=keys,
        largest=largest_world_body(deployment, scenario.env.num_envs),
    )
    try:
        hub = WorldHub(
            links,
            n_agents=deployment.n_agents,
            copies=scenario.env.num_envs,
            frame_extra=frame_extra(scenario.network),
            forgiving=scenario.supervision.on_node_death == "continue",
        )
        port.send(Hello(role=ROLE, pid=os.getpid(), endpoint=links.endpoint))
        if not isinstance(port.receive(scenario.supervision.start_limit_s(deployment.n_agents)), Start):
            raise StopRequested
        World(run_dir, scenario, deployment, env, hub, port).run()
    finally:
        env.close()
        for refused in refused_at(links.gate, ROLE):  # before the last report, which may end the run
            port.send(refused)
        links.close()
    port.send(Finished(role=ROLE))


class World:
    """The loop around an environment.

    Args:
        run_dir: The run's directory.
        scenario: The scenario.
        deployment: Sizes and graph, and whether the run goes on from a stored state.
        env: The environment.
        hub: The world's end of the world plane.
        port: Where it reports.

    Raises:
        ValueError: the stored state cannot be read.

    Attributes:
        is_over: Whether every round of the run has been stepped through.
    """

    def __init__(
        self, run_dir: Path, scenario: Scenario, deployment: Deployment, env: VecEnv, hub: WorldHub, port: Reports
    ) -> None:
        self._run_dir = run_dir
        self._scenario = scenario
        self._env = env
        self._hub = hub
        self._port = port
        self._n = deployment.n_agents
        self._act_dims = deployment.act_dims
        self._copies = scenario.env.num_envs
        self._steps = scenario.rollout.steps
        self._rounds = scenario.n_rounds
        self._dt = deployment.dt
        # training needs no sums of its own here: every agent keeps those of what it is charged with
        sums = np.zeros((self._n, self._copies, env.spec.n_costs))
        self._own = sums if env.spec.own_costs and not deployment.learns else None
        self._shares_budget = scenario.algorithm.shares_budget
        self._first_limits = deployment.first_limits or None
        self._paced = scenario.clock == "wall"
        self._patience_s = PATIENCE * scenario.supervision.deadline_s
        self._episodes: list[EpisodeRow] = []
        self._faults: list[str] = []
        self._faults_told = 0
        self._reported = time.monotonic()
        self._due = Kind.JOIN
        self._round = self._step = 0
        self._now = 0.0  # time of the step
        self._began = 0.0  # virtual time of step 0 of the round, later if steps have been held up
        self._latest = 0.0  # when the last of those that have sent was done
        self._start = 0.0  # on the wall clock: when the run began
        self._gone: set[int] = set()
        self._received: dict[int, NDArray[np.float32]] = {}
        self.is_over = False
        stored = deployment.state_file(run_dir, ROLE)
        if deployment.resumed_after is not None and stored is not None:
            self._restore(deployment.resumed_after, read(stored))

    def run(self) -> None:
        """Step through every round of the run.

        Raises:
            PeerLostError: an agent was silent or out of reach.
            StopRequested: the coordinator said stop.
        """
        while not self.is_over:
            message = self._wait()
            if message is not None:
                self._handle(message)

    def turn(self) -> bool:
        """Handle the next message, if it is there; whether it was."""
        message = self._hub.receive(0.0)
        if message is not None:
            self._handle(message)
        return message is not None

    def _wait(self) -> Message | None:
        """The next message; None if an agent has died meanwhile."""  # noqa: DOC501  (what `run` raises)
        began = time.monotonic()
        while (message := self._hub.receive(SLICE_S)) is None:
            if self._heed_control(0.0):
                return None
            if time.monotonic() - began >= self._patience_s:
                silent = sorted(set(range(self._n)) - self._received.keys() - self._gone)
                raise PeerLostError(f"{self._story()}: no {self._due.name} in time from agents {silent}")
        return message

    def lose(self, agent: int) -> None:
        """An agent is gone for good, and the run goes on without it: its joints go limp."""
        self._gone.add(agent)
        self._hub.lose(agent)
        self._go_on()

    def _heed_control(self, timeout_s: float) -> bool:
        """Read what the coordinator has sent; whether an agent has died."""  # noqa: DOC501  (what `run` raises)
        order = self._port.receive(timeout_s)
        if isinstance(order, Stop):
            raise StopRequested
        if isinstance(order, Gone):
            self.lose(order.agent)
            return True
        return False

    def _handle(self, message: Message) -> None:
        """Take in what is due from an agent, and nothing else; once all have sent, go on."""  # noqa: DOC501  (caught inside)
        header = message.header
        try:
            if (header.kind, header.round, header.step) != (self._due, self._round, self._step):
                raise ProtocolError(
                    f"{self._story()}: agent {header.sender} sent {KIND_NAMES[header.kind]} "
                    f"of round {header.round}, step {header.step}"
                )
            if header.sender in self._received or header.sender in self._gone:
                raise ProtocolError(f"{self._story()}: agent {header.sender} has sent already, or is gone")
            received = table(message, self._copies, self._act_dims[header.sender] if self._due is Kind.ACT else 0)
        except ProtocolError as error:
            self._hub.refused.add(str(error))
            return
        self._hub.taken(header)
        self._received[header.sender] = received
        self._latest = max(self._latest, header.send_time)
        self._go_on()

    def _go_on(self) -> None:
        """If all living agents have sent: the next thing that happens."""
        if len(self._received.keys() | self._gone) < self._n:
            return
        received, self._received = self._received, {}
        if self._due is Kind.JOIN:
            self._due = Kind.ACT
            first = self._env.reset(self._first_limits)
            self._start = time.monotonic()
            self._show_first(first)
        elif self._due is Kind.READY:
            self._due = Kind.ACT
            self._now = self._began = time.monotonic() - self._start if self._paced else self._latest
            self._hub.go(round_=self._round, send_time=self._now)
        else:
            self._advance([
                received[agent] if agent in received else np.zeros((self._copies, size), np.float32)
                for agent, size in enumerate(self._act_dims)
            ])

    def _advance(self, actions: list[NDArray[np.float32]]) -> None:
        """One step of the environment, and what follows from it for all agents."""
        transition = self._env.step(actions)
        round_, step = self._round, self._step
        self._round, self._step = divmod(round_ * self._steps + step + 1, self._steps)
        if self._paced:
            self._pace()
        else:
            due = self._began + (step + 1) * self._dt
            self._now = max(due, self._latest)
            self._began += self._now - due
        self._show(transition, self._round, self._step)  # first of all: until then all agents wait
        self._note(transition, round_, step)
        if self._step == 0:
            self._report(round_, self._steps, end=True)
            self._due = Kind.READY
            self.is_over = self._round == self._rounds
            if self._scenario.stores_after(round_):
                self._port.send(store(self._run_dir, ROLE, round_, self._state()))

    def _state(self) -> State:
        """All that later rounds depend on, as it is when a round has just been shown to its end and no agent is ready."""
        return {
            "now": self._now, "began": self._began, "latest": self._latest, "env": self._env.state(), "hub": self._hub.state(),
        }  # fmt: skip

    def _restore(self, round_: int, state: State) -> None:
        """Be as the world of the same scenario was after a round."""
        self._round, self._due = round_ + 1, Kind.READY
        self._now, self._began, self._latest = state["now"], state["began"], state["latest"]
        self._env.restore(state["env"])
        self._hub.restore(state["hub"])

    def _pace(self) -> None:
        """Wait until a control period has passed since the last step."""
        due = self._now + self._dt
        while (now := time.monotonic() - self._start) < due:
            self._heed_control(due - now)
        self._now = now

    def _story(self) -> str:
        return f"world, round {self._round}, step {self._step}"

    def _show_first(self, obs: list[NDArray[np.float32]]) -> None:
        zeros = np.zeros(self._copies, np.float32)
        no_cost = np.zeros((self._copies, self._env.spec.n_costs), np.float32)
        self._hub.show(([pack_sense(block, zeros, no_cost, zeros)] for block in obs), round_=0, step=0, send_time=0.0)

    def _show(self, transition: Transition, round_: int, step: int) -> None:
        self._hub.show(self._senses(transition), round_=round_, step=step, send_time=self._now)

    def _senses(self, transition: Transition) -> Iterator[list[NDArray[np.float32]]]:
        end = np.full(self._copies, END_NONE, np.float32)
        end[transition.terminated] = END_TERMINATED
        end[transition.truncated] = END_TRUNCATED
        end[transition.faults] = END_FAULT
        final_obs = transition.final_obs
        for agent, obs in enumerate(transition.obs):
            rows = pack_sense(obs, transition.reward[agent], transition.cost[agent], end)
            yield [rows] if final_obs is None else [rows, final_obs[agent]]

    def _note(self, transition: Transition, round_: int, step: int) -> None:
        env_step = (round_ * self._steps + step + 1) * self._copies
        if self._own is not None:
            self._own += transition.cost
        for episode in transition.episodes:
            own: tuple[tuple[float, ...], ...] = ()
            if self._own is not None:
                sums = np.where(transition.faults[episode.copy], np.nan, self._own[:, episode.copy])
                if self._shares_budget:  # then what counts against an agent's limit is the mean over all
                    sums[:] = sums.mean(axis=0)
                own = tuple(tuple(map(float, each)) for each in sums.T)
                self._own[:, episode.copy] = 0.0
            if not episode.is_whole and not transition.faults[episode.copy]:
                continue
            self._episodes.append(
                EpisodeRow(
                    round=round_,
                    env_step=env_step,
                    copy_index=episode.copy,
                    ret=episode.ret,
                    cost=episode.cost,
                    length=episode.length,
                    measures=episode.measures,
                    own=own,
                )
            )
        for copy in np.flatnonzero(transition.faults)[: FAULTS_TOLD - self._faults_told]:  # all are among the episodes
            self._faults.append(f"simulation of copy {copy} diverged at env step {env_step}; the copy was restarted")
            self._faults_told += 1
        if (step % 16 == 0 or self._paced) and time.monotonic() - self._reported > REPORT_S:
            self._report(round_, step + 1)

    def _report(self, round_: int, steps: int, *, end: bool = False) -> None:
        env_step = (round_ * self._steps + steps) * self._copies
        while len(self._episodes) > MAX_EPISODES:
            self._port.send(Progress(round=round_, env_step=env_step, episodes=tuple(self._episodes[:MAX_EPISODES])))
            del self._episodes[:MAX_EPISODES]
        refused, texts = self._hub.refused.drain()
        self._port.send(
            Progress(
                round=round_,
                env_step=env_step,
                episodes=tuple(self._episodes),
                traffic=tuple(self._hub.drain(None if self._round == self._rounds else round_)) if end else (),
                faults=tuple(self._faults),
                refused=refused,
                refusals=texts,
            )
        )
        self._episodes, self._faults = [], []
        self._reported = time.monotonic()
