"""Which policies of a run are to be evaluated, what has come of it, and which were the best.

Theory of operation. Training goes on as if there were no evaluations: all that nodes do for them is to store their policies
after every so many rounds, in `RUN/checkpoints/policies-N/`, and after the last one in `final/`. An evaluation is a pure
function of the run's plan and those weights (`coordinator.evaluation.play.play`), so it does not matter when it is made, by which
process, or how often: the episodes are the same. Policies lie in the run's directory until their evaluation is recorded; a run
that goes on finds there what is still to be done. What was recorded is not done again.

These evaluations choose the best policies: those of the highest mean return; with a recipe that heeds limits, of those that kept
them in the mean; if none did, those that exceeded them least. With `env.cost: local` the agent that pays most decides. The best
stay in `RUN/checkpoints/best/`.

When training is over, the last policies play ten times as many episodes, and so do the best ones, if they are earlier ones
(the "absolute metric" of Gorsane et al. 2022, arXiv:2209.10485). These episodes come from other random streams than those that
chose: the best of several is in part the luckiest, and on the episodes that chose it, its mean would be too high.
"""

import json
import math
import shutil
from collections import Counter, deque
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from coordinator.records.checkpoints import BEST, complete_rounds, keep_best
from coordinator.records.database import Mean, Recorder, Results
from coordinator.records.plan import Plan
from coordinator.records.weights import FINAL
from topology.deployment import CHECKPOINTS, Deployment, policies_folder
from topology.planes.control import EpisodeRow, RoundReport
from topology.wire.ledger import Row

ROLE = "evaluation"  # of the process, and of what it says
AT_END = 10  # times as many episodes
PROBLEMS = (ValueError, RuntimeError, OSError)  # for which one cannot be made, and the run goes on without it
_RESULT_FILE = "evaluation.json"


@dataclass(frozen=True, slots=True)
class Job:
    """One evaluation to be made.

    Attributes:
        round: After which round the policies were stored.
        at_end: Whether it is one of the larger ones when training is over, which judge; the others choose the best.
        episodes: How many.
        weights: Name of the checkpoint.
    """

    round: int
    at_end: bool
    episodes: int
    weights: str

    def __str__(self) -> str:
        """Which one, in words."""
        return f"the policies after round {self.round}{', at the end' if self.at_end else ''}"


@dataclass(frozen=True, slots=True)
class Result:
    """What an evaluation came to.

    Attributes:
        episodes: One per copy, ascending.
        traffic: What agents and world sent each other for it, one row per plane and kind.
    """

    episodes: tuple[EpisodeRow, ...]
    traffic: tuple[Row, ...]

    def write(self, run_dir: Path) -> None:
        """Leave it in a run's directory for the coordinator, whole or not at all."""
        path = run_dir / _RESULT_FILE
        told = {"episodes": [episode.model_dump() for episode in self.episodes], "traffic": self.traffic}
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(told), encoding="utf-8")
        partial.replace(path)

    @classmethod
    def take(cls, run_dir: Path) -> "Result | None":
        """What an evaluation's process has left, which is then no longer there; None: it has left nothing."""
        path = run_dir / _RESULT_FILE
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        path.unlink()
        return cls(
            episodes=tuple(EpisodeRow.model_validate(one) for one in told["episodes"]),
            traffic=tuple(Row(*row) for row in told["traffic"]),
        )


@dataclass(frozen=True, slots=True)
class Evaluated:
    """What a person is told of an evaluation.

    Attributes:
        job: Which.
        done: The part of it that is done.
        ret: Mean return; None before it is done, nan if no episode has any.
        cost: Mean cost.
        problem: Why it could not be made, as a sentence.
    """

    job: Job
    done: float
    ret: float | None = None
    cost: float | None = None
    problem: str | None = None


EvaluationWatcher = Callable[[Evaluated], None]


def ignore(evaluated: Evaluated) -> None:
    """Watch no evaluation."""


class Evaluations:
    """The evaluations of one run.

    Args:
        ready: The run's plan.
        run_dir: Its directory.
        recorder: Where they are recorded.
        note: Called with a sentence when one could not be made.
        watch: Called with each that has been made.
        rounds_done: Rounds that the run has behind it where it goes on.
    """

    def __init__(
        self,
        ready: Plan,
        run_dir: Path,
        recorder: Recorder,
        *,
        note: Callable[[str], None],
        watch: EvaluationWatcher = ignore,
        rounds_done: int = 0,
    ) -> None:
        scenario, self._deployment = ready.scenario, ready.deployment
        self._run_dir = run_dir
        self._recorder = recorder
        self._note = note
        self._watch = watch
        self._n_rounds = scenario.n_rounds
        self._per_round = scenario.env.num_envs * scenario.rollout.steps
        self._episodes = scenario.evaluation.episodes
        heeds = scenario.algorithm.recipe.constraint != "none"
        self._limits = np.array(ready.deployment.cost_limits if heeds else ())
        self._stored: Counter[int] = Counter()
        self._is_over = False
        self._is_whole = True
        self._failed: set[tuple[int, bool]] = set()
        self._means = recorder.evaluated()
        due = filter(self._evaluates_after, range(rounds_done))
        self._waiting = deque(round_ for round_ in due if (round_, False) not in self._means)
        _result_of_nobody(run_dir)
        for folder, round_ in self._policies():
            if round_ >= rounds_done:  # the run goes on from before, and will store them again
                shutil.rmtree(folder, ignore_errors=True)

    def stored(self, report: RoundReport) -> None:
        """Take in that an agent has ended a round, and so has stored its policy if it was to."""
        if report.agent < self._deployment.n_agents and self._evaluates_after(report.round):
            self._stored[report.round] += 1
            if self._stored[report.round] == self._deployment.n_agents:
                self._waiting.append(report.round)

    def lose(self) -> None:
        """An agent is gone for good: what the others store from now on is no whole team's, so it is not evaluated."""
        self._is_whole = False

    def end_training(self) -> None:
        """The final policies are stored: from now on there are the larger evaluations too."""
        self._is_over = self._deployment.learns and bool(self._deployment.evaluate_rounds)
        if self._is_over and not self._is_whole:
            self._note("the last policies are not evaluated: the team is no longer whole")

    def next(self) -> Job | None:
        """The next that can be made, the same until it was recorded or failed; None: there is nothing to do."""
        if self._waiting:
            round_ = self._waiting[0]
            return Job(round_, False, self._episodes, policies_folder(self._run_dir, round_).name)
        if not (self._is_over and self._is_whole):
            return None
        last = self._n_rounds - 1
        has_choice = any(not at_end for _, at_end in self._means)
        if has_choice and not self._has_done(last, at_end=False):
            return Job(last, False, self._episodes, FINAL)
        if not self._has_done(last, at_end=True):
            return Job(last, True, AT_END * self._episodes, FINAL)
        best = self.best()
        if best is not None and not self._has_done(best, at_end=True):
            return Job(best, True, AT_END * self._episodes, policies_folder(self._run_dir, best).name)
        return None

    def record(self, job: Job, result: Result) -> None:
        """Keep what has come of one.

        Raises:
            RecordingError: it cannot be written down.
        """
        env_step = (job.round + 1) * self._per_round
        self._recorder.evaluation(job.round, env_step, result.episodes, result.traffic, at_end=job.at_end)
        mean = self._means[job.round, job.at_end] = Mean.of([(episode.ret, episode.charged) for episode in result.episodes])
        self._leave(job)
        if self._recorder.commit():
            for folder, round_ in self._policies():
                if (round_, False) in self._means and round_ not in self._kept():
                    shutil.rmtree(folder, ignore_errors=True)
        self._watch(Evaluated(job, 1.0, mean.ret, sum(mean.costs, 0.0)))

    def progress(self, job: Job, done: float) -> None:
        """Pass on how far one is."""
        self._watch(Evaluated(job, done))

    def fail(self, job: Job, why: str) -> None:
        """One could not be made: the run does without, and its policies stay where they are."""
        self._failed.add((job.round, job.at_end))
        self._leave(job)
        told = f"{job} could not be evaluated: {why}"
        self._note(told)
        self._watch(Evaluated(job, 0.0, problem=told))

    def conclude(self) -> None:
        """All is done: keep the best policies by a name of their own, and drop those that are no longer needed."""
        if not self._is_over or self._failed or self.next() is not None:
            return
        best = self.best()
        if best is not None:
            name = FINAL if best == self._n_rounds - 1 else policies_folder(self._run_dir, best).name
            try:
                if (self._run_dir / CHECKPOINTS / name).is_dir():
                    shutil.copytree(self._run_dir / CHECKPOINTS / name, self._run_dir / CHECKPOINTS / BEST, dirs_exist_ok=True)
                for state in complete_rounds(self._run_dir):  # a larger budget would go on from one of them
                    by_then = self.best(state)
                    if by_then is not None and (source := policies_folder(self._run_dir, by_then)).is_dir():
                        keep_best(self._run_dir, state, by_then, source)
            except OSError as error:
                self._note(f"the best policies stay in {name}, as {BEST} cannot be written: {error.strerror or error}")
                return
        for folder, _ in self._policies():
            shutil.rmtree(folder, ignore_errors=True)

    def best(self, by: int | None = None) -> int | None:
        """After which round the policies were best, of those evaluated up to a round; None if nothing is known."""
        choosing = {round_: mean for (round_, at_end), mean in self._means.items() if not at_end}
        every = choosing or {round_: mean for (round_, at_end), mean in self._means.items() if round_ == self._n_rounds - 1}
        known = {round_: mean for round_, mean in every.items() if (by is None or round_ <= by) and not math.isnan(mean.ret)}
        if not known:
            return None
        excess = {round_: self._excess(mean.costs) for round_, mean in known.items()}
        least = min(excess.values())
        return max((round_ for round_ in known if excess[round_] == least), key=lambda round_: (known[round_].ret, round_))

    def _excess(self, costs: tuple[float, ...]) -> float:
        over = np.array(costs)[: len(self._limits)] - self._limits
        return float(np.maximum(over, 0.0).sum())

    def _evaluates_after(self, round_: int) -> bool:
        return self._deployment.evaluates_after(round_, self._n_rounds)

    def _has_done(self, round_: int, *, at_end: bool) -> bool:
        return (round_, at_end) in self._means or (round_, at_end) in self._failed

    def _leave(self, job: Job) -> None:
        if self._waiting and job.round == self._waiting[0]:
            self._waiting.popleft()

    def _policies(self) -> list[tuple[Path, int]]:
        """The folders of stored policies, and of which round they are."""
        found = (self._run_dir / CHECKPOINTS).glob("policies-*")
        return [(path, int(path.name.removeprefix("policies-")) - 1) for path in found if path.name[9:].isdecimal()]

    def _kept(self) -> set[int | None]:
        """Best policies so far, and those as of the states that the run may have to go on from."""
        return {self.best(), *(self.best(by) for by in complete_rounds(self._run_dir))}


def are_missing(run_dir: Path, deployment: Deployment, n_rounds: int) -> bool:
    """Whether a run whose training is over lacks evaluations that were to be made."""
    if not deployment.evaluate_rounds:
        return False
    with closing(Results(run_dir)) as results:
        has_last = (n_rounds - 1, True) in results.evaluations()
    return not has_last or any((run_dir / CHECKPOINTS).glob("policies-*"))


def _result_of_nobody(run_dir: Path) -> None:
    (run_dir / _RESULT_FILE).unlink(missing_ok=True)  # of a process whose coordinator was killed


def order(run_dir: Path, job: Job, *, beside_training: bool) -> dict[str, object]:
    """What is sent to the fork server, so that a process makes an evaluation."""
    return {"role": ROLE, "run_dir": str(run_dir.resolve()), "job": asdict(job), "beside_training": beside_training}
