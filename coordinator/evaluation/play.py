"""One evaluation: a team as it was stored plays, in the process that asks for it."""

from collections import defaultdict
from collections.abc import Callable
from operator import add
from pathlib import Path

from coordinator.evaluation.company import Company, on_one_thread
from coordinator.evaluation.evaluations import PROBLEMS, Evaluations, Job, Result
from coordinator.records.plan import Plan, frozen
from envs.registry import make
from topology.deployment import CHECKPOINTS
from topology.finite import DivergedError
from topology.planes.control import Control, EpisodeRow, Finished, Progress, RoundReport
from topology.process import STOP, StopFlag
from topology.wire.ledger import Row, imbalance


def make_evaluations(ready: Plan, run_dir: Path, evaluations: Evaluations, stop: StopFlag = STOP) -> None:
    """Make every evaluation that can be made by now, in this process."""
    while (job := evaluations.next()) is not None:
        try:
            result = play(ready, run_dir, job, lambda done: evaluations.progress(job, done), stop)
        except PROBLEMS as error:
            evaluations.fail(job, str(error))
        else:
            evaluations.record(job, result)


@on_one_thread()
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
        company = Company(planned, run_dir, env, reports)
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
