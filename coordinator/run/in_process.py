"""A run within one process: every node and the world over links in memory, one after the other.

Theory of operation. The same parts as in a run with processes, on other carriers: the protocol, the learner, the planes
and the ledger cannot tell the difference, and so the same scenario and seed give the same weights and the same ledger,
byte for byte (tests/system/test_processes.py). A process whose awaited message is there takes a turn, the world first, then
the nodes in ascending id, the central critic last; if no process has one, none ever will, and that is a fault of ours. For
debugging (one stack, one debugger), for teaching, and as the reference that processes are compared with.

Evaluations are always made so (`coordinator.evaluation.play`): in the run's own process between two turns, or in a process of
their own beside a run with processes (`coordinator.evaluation.process`).
"""

import os
from pathlib import Path

from coordinator.evaluation.company import Company, on_one_thread
from coordinator.evaluation.evaluations import EvaluationWatcher, ignore
from coordinator.evaluation.play import make_evaluations
from coordinator.records.database import Recorder, RecordingError
from coordinator.records.plan import Plan
from coordinator.run.collector import Collector, Outcome, Watcher
from envs.checked import WorldError
from envs.interface import VecEnv
from envs.process import ROLE
from envs.registry import make
from topology.finite import DivergedError
from topology.planes.control import Control, Finished, Hello
from topology.process import STOP, StopFlag, StopRequested
from topology.wire.keys import role_of


class _Reports:
    """The control plane where no process has to be crossed."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    def send(self, message: Control) -> None:
        self._collector.take(message)

    def receive(self, timeout_s: float) -> Control | None:
        return None


@on_one_thread()
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
        company = Company(ready, run_dir, env, _Reports(collector))
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
