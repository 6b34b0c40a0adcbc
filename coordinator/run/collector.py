"""The collector where reports arrive, whichever way the run is carried out: it keeps them, and knows how far the run is."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

from coordinator.evaluation.evaluations import ROLE, Evaluations, EvaluationWatcher, ignore
from coordinator.records.checkpoints import Checkpoints
from coordinator.records.database import Recorder, RecordingError
from coordinator.records.plan import Plan
from coordinator.run.disagreement import Disagreement
from topology.planes.control import Control, Finished, Gone, Hello, Progress, RoundReport, Stored

COMMIT_S = 1.0

Watcher = Callable[[Control], None]


class Divergence(TypedDict):
    """Numbers of a run that are no longer finite: whose, which agent that is if it is one, at which env step, which numbers."""

    who: str
    agent: int | None
    env_step: int
    text: str


def spoken(one: Divergence) -> str:
    """A divergence as a sentence.

    Example:
        >>> spoken({"who": "agent 2", "agent": 2, "env_step": 1200, "text": "the gradient of the actor is not finite"})
        'agent 2 diverged at step 1,200: the gradient of the actor is not finite'
    """
    return f"{one['who']} diverged at step {one['env_step']:,}: {one['text']}"


@dataclass(slots=True)
class Outcome:
    """How a run ended.

    Attributes:
        error: None if it did all its work; otherwise what ended it and how.
        interrupted: Whether a signal to the command ended it.
        diverged: Agents, or the central critic, whose numbers are no longer finite.
        pids: Process ids by role.
        weights: Digest of each node's final weights, by role.
        gone: Agents that died while the run went on without them.
        best_round: After which round the policies were best, as far as they were evaluated; None: not known.
        wall_s: Seconds from the start of the first round to the end of the training.
        env_steps: Environment steps done.
        conclude: Drops policies that a finished run no longer needs. It is for the caller to call once the metrics are written:
            until then a run that is stopped goes on from a stored state, and needs them again.
    """

    error: str | None = None
    interrupted: bool = False
    diverged: list[Divergence] = field(default_factory=list)
    pids: dict[str, int] = field(default_factory=dict)
    weights: dict[str, str] = field(default_factory=dict)
    gone: set[int] = field(default_factory=set)
    best_round: int | None = None
    wall_s: float = 0.0
    env_steps: int = 0
    conclude: Callable[[], None] = field(default=lambda: None, compare=False)


class Collector:
    """Takes reports in, records them, and passes them to the display.

    Args:
        ready: The run's plan.
        run_dir: Its directory.
        recorder: Writes them down.
        watch: Called with every report, for a progress display.
        watch_evaluations: Called with every evaluation, for the same.

    Attributes:
        evaluations: Those of the run.
        outcome: What is known of the run so far.
        finished: Roles that have done all their work.
    """

    def __init__(
        self, ready: Plan, run_dir: Path, recorder: Recorder, watch: Watcher, watch_evaluations: EvaluationWatcher = ignore
    ) -> None:
        after = ready.deployment.resumed_after
        self.evaluations = Evaluations(
            ready,
            run_dir,
            recorder,
            note=lambda text: self.note(ROLE, text),
            watch=watch_evaluations,
            rounds_done=0 if after is None else after + 1,
        )
        self._called = ready.deployment.called
        self.outcome = Outcome()
        self.finished: set[str] = set()
        self._recorder = recorder
        self._watch = watch
        self._states = Checkpoints(run_dir)
        self._disagreement = Disagreement(ready.deployment.n_agents)
        self._round = 0
        self._began: float | None = None
        self._ended: float | None = None
        self._committed = 0.0
        self._stored: list[int] = []  # rounds whose states count as soon as the database holds all of these rounds
        self._is_closed = False

    def begin(self) -> None:
        """All processes are up: time counts from now, or goes on."""
        self._began = time.monotonic() - self._recorder.wall_s

    def take(self, message: Control) -> None:
        """Take in one report.

        Raises:
            RecordingError: what has been reported cannot be written down; never once the collector is closed.
        """
        is_due = time.monotonic() - self._committed > COMMIT_S
        match message:
            case Hello():
                self.outcome.pids[message.role] = message.pid
            case Progress():
                self.outcome.env_steps = max(self.outcome.env_steps, message.env_step)
                self._round = message.round
                self._recorder.episodes(message.episodes)
                self._recorder.traffic(message.traffic)
                for text in message.faults:
                    self._recorder.event(self.wall_s(), message.role, text, round_=message.round)
                self._recorder.refusals(self.wall_s(), message.role, message.round, message.refused, message.refusals)
            case RoundReport():
                self._recorder.round(message, self.wall_s())
                self._disagreement.take(message)
                self._record_disagreement()
                self.evaluations.stored(message)
            case Stored() if self._states.has_all(message):
                self._stored.append(message.round)
                is_due = True
            case Finished():
                self.finished.add(message.role)
                self._recorder.traffic(message.traffic)
                if message.weights_sha256:
                    self.outcome.weights[message.role] = message.weights_sha256
        self._watch(message)
        if is_due and not self._is_closed:
            self._commit()

    def note(self, role: str, text: str) -> None:
        """Record something that happened."""
        self._recorder.event(self.wall_s(), role, text)

    def diverge(self, agent: int | None, env_step: int, text: str) -> str:
        """Numbers of an agent, or of the central critic (None), are no longer finite; the same as a sentence."""
        who = "the central critic" if agent is None else f"agent {self._called(agent)}"
        self.outcome.diverged.append(Divergence(who=who, agent=agent, env_step=env_step, text=text))
        return spoken(self.outcome.diverged[-1])

    def lose(self, agent: int, story: str) -> None:
        """An agent is gone for good, and the others go on without it."""
        self.outcome.gone.add(agent)
        self._record_disagreement()
        self._watch(Gone(agent=agent))
        self.note("coordinator", f"{story}; the others go on")
        self.evaluations.lose()

    def end_training(self) -> None:
        """All processes have finished: time stops, and what is left are evaluations."""
        self._ended = time.monotonic()
        self.evaluations.end_training()

    def close(self, error: str | None = None, *, interrupted: bool = False) -> None:
        """The run is over, by itself or by an error; time stops. What cannot be written down now may still be later."""
        self.outcome.error, self.outcome.interrupted = error, interrupted
        if error is not None:
            self.note("coordinator", error)
        self.outcome.wall_s = self.wall_s()
        self.outcome.best_round = self.evaluations.best()
        self._is_closed = True
        try:
            self._commit()
            if error is None:
                self._recorder.commit_at_last()
        except RecordingError as failure:
            self.outcome.error = error or str(failure)
        if self.outcome.error is None:
            self.outcome.conclude = self.evaluations.conclude

    def _record_disagreement(self) -> None:
        for (round_, agent), metrics in self._disagreement.known(self.outcome.gone):
            self._recorder.add(round_, agent, metrics)

    def _commit(self) -> None:
        self._committed = time.monotonic()
        if self._recorder.commit():
            for round_ in self._stored:
                if (failed := self._states.complete(round_)) is not None:
                    self.note(failed.role, f"no state stored: {failed.problem}")
                    self._watch(failed)
            self._stored.clear()

    def wall_s(self) -> float:
        """Seconds since `begin`, up to the end of the training."""
        return 0.0 if self._began is None else (self._ended or time.monotonic()) - self._began

    def where(self) -> str:
        """Where the run is, as the end of a sentence."""
        if self._ended is not None:
            return " while evaluating"
        return f" in round {self._round}, env step {self.outcome.env_steps:,}" if self._began is not None else " while starting"
