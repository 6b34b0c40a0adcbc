"""A run within one process: every node and the world over links in memory, one after the other.

Theory of operation. The same parts as in a run with processes, on other carriers: the protocol, the learner, the planes
and the ledger cannot tell the difference, and so the same scenario and seed give the same weights and the same ledger,
byte for byte (tests/system/test_processes.py). A process whose awaited message is there takes a turn, the world first, then
the nodes in ascending id, the central critic last; if no process has one, none ever will, and that is a fault of ours. For
debugging (one stack, one debugger), for teaching, and as the reference that processes are compared with.

Evaluations are always made so: in the run's own process between two turns, or in a process of their own beside a run with
processes (`coordinator.evaluation.process`).
"""

import contextlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterator
from operator import add
from pathlib import Path

import torch

from coordinator.central.node import Central
from coordinator.central.process import make_central
from coordinator.evaluation.evaluations import PROBLEMS, Evaluations, EvaluationWatcher, Job, Result, ignore
from coordinator.run.collector import Collector, Outcome, Watcher
from coordinator.run.database import Recorder, RecordingError
from coordinator.run.plan import Plan, frozen
from envs.checked import WorldError
from envs.interface import VecEnv
from envs.process import ROLE, World
from envs.registry import make
from node.process import Node
from node.runtime.loop import Runtime
from topology.deployment import CHECKPOINTS
from topology.finite import DivergedError
from topology.planes.control import Control, EpisodeRow, Finished, Hello, Progress, Reports, RoundReport
from topology.planes.world import WorldHub
from topology.process import STOP, StopFlag, StopRequested
from topology.wire.keys import frame_extra, role_of
from topology.wire.ledger import Row, imbalance
from topology.wire.sockets import MemoryLinks


class _Reports:
    """The control plane where no process has to be crossed."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    def send(self, message: Control) -> None:
        self._collector.take(message)

    def receive(self, timeout_s: float) -> Control | None:
        return None


@contextlib.contextmanager
def _on_one_thread() -> Iterator[None]:
    """Let torch compute on one thread within the block, as nodes do, and then on as many as its caller has set."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@_on_one_thread()
def run(
    ready: Plan,
    run_dir: Path,
    recorder: Recorder,
    watch: Watcher,
    *,
    env: VecEnv | None = None,
    watch_evaluations: EvaluationWatcher = ignore,
    stop: StopFlag = STOP,
) -> Outcome:
    """Run a plan to its end, in this process.

    Args:
        ready: The plan; its run directory exists.
        run_dir: Where it is.
        recorder: Takes what nodes and world report.
        watch: Called with every report, for a progress display.
        env: The world's copies, if the caller has made them; closed at the end.
        watch_evaluations: Called with every evaluation, for the same.
        stop: Ends the run between two turns when it is asked to.

    Returns:
        How it ended; its pids are all this process's own.
    """
    n_nodes = ready.deployment.n_nodes
    collector = Collector(ready, run_dir, recorder, watch, watch_evaluations)
    env = env or make(ready.scenario.env, ready.deployment.graph(), ready.deployment.seed(ready.scenario))
    try:
        company = _Company(ready, run_dir, env, _Reports(collector))
    except ValueError as error:  # stored weights that do not fit, or a stored state that cannot be read
        env.close()
        collector.close(str(error))
        return collector.outcome
    for role in (ROLE, *map(role_of, range(n_nodes))):
        collector.take(Hello(role=role, pid=os.getpid(), endpoint="memory"))
    goes_on = ready.scenario.supervision.on_node_death == "continue"

    def diverged(agent: int, error: DivergedError) -> None:
        story = collector.diverge(agent if company.is_agent(agent) else None, error.env_step, str(error))
        if not (goes_on and company.may_lose(agent)):
            raise _Diverged(story)
        collector.lose(agent, story)

    try:
        collector.begin()
        company.play(diverged, stop, between=lambda: make_evaluations(ready, run_dir, collector.evaluations, stop))
        for finished in company.conclude():
            stop.heed()
            collector.take(finished)
        collector.take(Finished(role=ROLE))
        collector.end_training()
        make_evaluations(ready, run_dir, collector.evaluations, stop)
        collector.close()
    except _Diverged as error:
        collector.close(str(error))
    except StopRequested:
        collector.close(f"{stop.reason}{collector.where()}", interrupted=True)
    except WorldError as error:
        collector.close(f"world gave up{collector.where()}: {error}")
    except (RecordingError, OSError) as error:
        collector.close(str(error))
    finally:
        env.close()
    return collector.outcome


class _Diverged(Exception):
    """Numbers of a node are no longer finite, and the run cannot go on without it; the text is for the user."""


def make_evaluations(ready: Plan, run_dir: Path, evaluations: Evaluations, stop: StopFlag = STOP) -> None:
    """Make every evaluation that can be made by now, in this process."""
    while (job := evaluations.next()) is not None:
        try:
            result = play(ready, run_dir, job, lambda done: evaluations.progress(job, done), stop)
        except PROBLEMS as error:
            evaluations.fail(job, str(error))
        else:
            evaluations.record(job, result)


@_on_one_thread()
def play(ready: Plan, run_dir: Path, job: Job, tell: Callable[[float], None], stop: StopFlag = STOP) -> Result:
    """Make one evaluation: a team as it was stored plays episodes of its own, all at once.

    Everything is as in the run, links and virtual time included, which begins at 0; but nothing is learnt, and each environment
    copy counts with the first episode that it ends. Random streams are not the training's. They are the same for every evaluation
    of a seed that chooses, and for every one that judges, whatever round, κ and graph: all teams meet the same chance, so their
    difference is known better than each of them is.

    Args:
        ready: The run's plan.
        run_dir: Its directory, with the policies.
        job: Which evaluation.
        tell: Called now and then with the part that is done.
        stop: Looked at between two turns.

    Raises:
        ValueError: policies are missing or do not fit.
        RuntimeError: numbers are no longer finite, or the books of its traffic do not balance.
    """
    weights = run_dir / CHECKPOINTS / job.weights
    planned = frozen(ready, weights, copies=job.episodes, episodes=job.episodes, chooses=not job.at_end)
    scenario, deployment = planned.scenario, planned.deployment
    reports = _Judgement(job.episodes * planned.spec.horizon, tell)
    env = make(scenario.env, deployment.graph(), deployment.seed(scenario))

    def diverged(agent: int, error: DivergedError) -> None:
        raise RuntimeError(f"agent {agent}: {error}")

    try:
        company = _Company(planned, run_dir, env, reports)
        company.play(diverged, stop)
    finally:
        env.close()
    for finished in company.conclude():
        reports.send(finished)
    rows = [Row(*key, *counts) for key, counts in sorted(reports.traffic.items())]
    if (uneven := imbalance(rows)) is not None:
        raise RuntimeError(uneven)
    return Result(tuple(reports.episodes[copy] for copy in sorted(reports.episodes)), tuple(rows))


class _Judgement:
    """The control plane of an evaluation: of each copy the first episode, and the traffic by plane and kind."""

    def __init__(self, env_steps: int, tell: Callable[[float], None]) -> None:
        self.episodes: dict[int, EpisodeRow] = {}
        self.traffic: defaultdict[tuple[int, str, str, str, str], list[int]] = defaultdict(lambda: [0] * len(Row._field_defaults))
        self._env_steps = env_steps
        self._tell = tell

    def send(self, message: Control) -> None:
        if isinstance(message, Progress):
            for episode in message.episodes:
                self.episodes.setdefault(episode.copy_index, episode)
            self._tell(message.env_step / self._env_steps)
        if isinstance(message, Progress | RoundReport | Finished):
            for row in message.traffic:
                sums = self.traffic[0, row.plane, "", "", row.kind]
                sums[:] = map(add, sums, row.counts)

    def receive(self, timeout_s: float) -> Control | None:
        return None


class _Company:
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
        """Let all have their turns until all are done.

        Args:
            diverged: Called when numbers of a node are no longer finite; unless it raises, the others go on without the node.
            stop: Looked at between two turns.
            between: Called whenever all have had a turn.
        """
        for runtime in self._runtimes.values():
            runtime.begin()
        while not (self._world.is_over and all(node.is_over for _, node in self._present())):
            moved = False
            while not self._world.is_over and self._world.turn():
                stop.heed()
                moved = True
            for agent, node in self._present():
                try:
                    while not node.is_over and node.turn():
                        stop.heed()
                        moved = True
                except DivergedError as error:
                    diverged(agent, error)
                    self._lose(agent, diverged)
                    moved = True
            assert moved, "all processes wait and nothing is on its way"
            between()

    def _present(self) -> "list[tuple[int, Runtime | Central]]":
        return [*self._runtimes.items(), *self._critics.items()]

    def _lose(self, agent: int, diverged: Callable[[int, DivergedError], None]) -> None:
        """Go on without an agent, and without those whose numbers turn out not to be finite once they need not wait for it."""
        del self._runtimes[agent]
        gone = [agent]
        for lost in gone:
            self._world.lose(lost)
            for other, runtime in list(self._runtimes.items()):
                try:
                    runtime.lose(lost)
                except DivergedError as error:
                    diverged(other, error)
                    del self._runtimes[other]
                    gone.append(other)
            for plane in self._links:
                plane[lost].close()
