"""A run from its plan to its end: what the command and the Python API have in common.

Theory of operation. Whatever starts a run does three things. It makes a plan (`coordinator.records.plan.plan_of`, `evaluation` or
`resumption`). It opens a `Session` with the plan, which checks, makes and claims the run's folder. It calls `Session.run`. A
session prints nothing, ends no process but its own children, and installs no signal handler: a `Spectator` receives what a person
may want to know, a `StopFlag` brings the request to stop, and an `Ended` says how the run ended.
"""

import contextlib
import itertools
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from coordinator.evaluation.evaluations import Evaluations, EvaluationWatcher, are_missing
from coordinator.evaluation.evaluations import ignore as ignore_evaluation
from coordinator.records import sinks
from coordinator.records.checkpoints import claim_run, complete_rounds, drop_others, extend, latest_good
from coordinator.records.database import Recorder, RecordingError, Results
from coordinator.records.plan import (
    Plan,
    changes_since,
    check_start,
    first_free,
    frozen,
    make_run_dir,
    reopened,
    retold,
)
from coordinator.records.weights import without_weights
from coordinator.run import supervisor
from coordinator.run.collector import Outcome, Watcher, spoken
from coordinator.run.idle import above_their_limits, measure
from coordinator.run.metrics import Report, made_up, report
from coordinator.study.forecast import warnings
from coordinator.study.runs import Run, reading
from scenarios.loading import ScenarioError, load
from scenarios.schema import Scenario
from topology.deployment import CHECKPOINTS, SCENARIO_FILE
from topology.planes.control import Control
from topology.process import STOP, StopFlag

PACKS = "supervision.agents_per_process"  # changes no result, so a run may go on with another


def _ignore_report(report: Control) -> None:
    """Watch no report."""


def _ignore_text(text: str) -> None:
    """Say nothing."""


@dataclass(frozen=True, slots=True)
class Spectator:
    """What is told of a run while it goes on.

    Attributes:
        report: Called with every report of a process.
        evaluation: Called with every evaluation.
        say: Called with what a person must see: how to start a node by hand.
    """

    report: Watcher = _ignore_report
    evaluation: EvaluationWatcher = ignore_evaluation
    say: Callable[[str], None] = _ignore_text


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run ended.

    Attributes:
        folder: Where it is.
        metrics: What it came to; None where that cannot be known.
        error: Why it did not do all its work, as a sentence; None: it did.
        interrupted: Whether it was asked to stop.
        can_go_on: Whether `kappahop resume` can go on with it.
    """

    folder: Path
    metrics: Report | None
    error: str | None
    interrupted: bool
    can_go_on: bool

    @property
    def has_diverged(self) -> bool:
        """Whether numbers of it are no longer finite."""
        return self.metrics is not None and bool(self.metrics["diverged"])


class Session:
    """A run whose folder is made and claimed; `run` carries it out. Leaving the block gives the folder up.

    Args:
        ready: The plan.
        place: The run's folder, or folders of which the first that is free is taken.
        in_process: Whether all agents run in this process.
        by_hand: Agents whose nodes are started from outside.

    Raises:
        ScenarioError: the plan cannot be carried out here and now, or its folder cannot be had. Another ValueError: as
            `make_run_dir`.

    Attributes:
        folder: The run's folder.
        doubts: What is worth a warning, a sentence each.
    """

    def __init__(
        self, ready: Plan, place: Path | Iterator[Path], *, in_process: bool = False, by_hand: frozenset[int] = frozenset()
    ) -> None:
        self._ready = ready
        self._in_process = in_process
        self._by_hand = by_hand
        if in_process and by_hand:
            raise ScenarioError("--by-hand: in one process (--in-process) there is no node to start by hand")
        check_start(ready, in_process=in_process)
        self._idle = measure(ready)
        self.doubts = [*warnings(ready), *above_their_limits(ready, self._idle and self._idle.costs)]
        with contextlib.ExitStack() as opened:
            try:
                self.folder = place if isinstance(place, Path) else first_free(place)
                self._recorder = self._open(opened)
            except RecordingError as error:
                raise ScenarioError(str(error)) from None
            except OSError as error:
                raise ScenarioError(f"{error.filename}: cannot be written ({error.strerror})") from None
            self._opened = opened.pop_all()

    def __enter__(self) -> Self:
        """The session."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close the database, if the run has not, and give the folder up."""
        with contextlib.suppress(RecordingError):
            self._opened.close()

    def run(self, spectator: Spectator, stop: StopFlag = STOP) -> Ended:
        """Carry the run out; once.

        Args:
            spectator: What is told of it meanwhile.
            stop: Ends the run when it is asked to.
        """
        metrics = None
        try:
            outcome = self._carried_out(spectator, stop)
            metrics = self._concluded(outcome)
        finally:
            lost = ""
            try:
                self._opened.close()
            except RecordingError as problem:
                lost = str(problem)
        error = outcome.error or lost or None
        is_trained = outcome.env_steps >= self._per_round * self._ready.scenario.n_rounds  # and evaluations are missing
        has_diverged = metrics is not None and bool(metrics["diverged"])
        return Ended(
            folder=self.folder,
            metrics=metrics,
            error=error,
            interrupted=outcome.interrupted,
            can_go_on=error is not None and not has_diverged and (is_trained or bool(complete_rounds(self.folder))),
        )

    @property
    def _per_round(self) -> int:
        return self._ready.scenario.env.num_envs * self._ready.scenario.rollout.steps

    def _open(self, opened: contextlib.ExitStack) -> Recorder:
        """Make the folder, or take it up again, claim it, and open its database."""
        ready, resumed_after = self._ready, self._ready.deployment.resumed_after
        if resumed_after is None:
            make_run_dir(self.folder, ready)
        opened.enter_context(claim_run(self.folder))
        if resumed_after is not None and load(str(self.folder / SCENARIO_FILE)) != ready.scenario:
            extend(self.folder, resumed_after, ready.scenario)
        after = None if resumed_after is None else (resumed_after + 1) * self._per_round
        recorder = Recorder(
            self.folder,
            env_steps_per_round=self._per_round,
            measures=[measure.name for measure in ready.spec.measures],
            sinks=sinks.open_sinks(ready.scenario.record, self.folder, after=after),
            resumed_after=resumed_after,
        )
        opened.callback(recorder.close)
        if resumed_after is not None:
            drop_others(self.folder, resumed_after)
            ready.deployment.write(self.folder)
        return recorder

    def _carried_out(self, spectator: Spectator, stop: StopFlag) -> Outcome:
        if self._in_process:
            from coordinator.run import in_process as here  # pays for torch, which a run with processes does without

            return here.run(
                self._ready,
                self.folder,
                self._recorder,
                spectator.report,
                watch_evaluations=spectator.evaluation,
                stop=stop,
            )
        return supervisor.run(
            self._ready,
            self.folder,
            self._recorder,
            spectator.report,
            by_hand=self._by_hand,
            say=spectator.say,
            watch_evaluations=spectator.evaluation,
            stop=stop,
        )

    def _concluded(self, outcome: Outcome) -> Report | None:
        """Write the rest of what a run reported, and its metrics; None if that fails, and then the outcome says why."""
        ready = self._ready
        try:
            self._recorder.commit_at_last()
            with contextlib.closing(Results(self.folder)) as results:
                # what the dead had sent to others over their neighbours' links is in no ledger
                complete = ready.scenario.clock == "virtual" and not (outcome.gone and ready.scenario.routing == "direct")
                if outcome.error is None and complete:
                    outcome.error = results.imbalance(outcome.gone)
                final = report(ready, self.folder, results, outcome, idle=self._idle)
            if outcome.error is None and final["diverged"]:
                outcome.error = spoken(final["diverged"][0])
            self._recorder.meta(**final)
            self._recorder.commit_at_last()
            outcome.conclude()
            return final
        except (RecordingError, ValueError) as error:
            outcome.error = outcome.error or str(error)
            return None


def new_folders(scenario: Scenario) -> Iterator[Path]:
    """Where a run lies if nothing else is asked for: `runs/SCENARIO-sSEED-TIME`, then the same with -2 and so on."""
    stem = f"{scenario.name}-s{scenario.seed}-{datetime.now():%Y%m%d-%H%M%S}"
    return (Path("runs") / (stem if i == 1 else f"{stem}-{i}") for i in itertools.count(1))


def evaluation_folders(folder: Path) -> Iterator[Path]:
    """Where evaluations of a run lie if nothing else is asked for: `RUN/evaluation-1`, -2 and so on."""
    return (folder / f"evaluation-{i}" for i in itertools.count(1))


def weights_of(folder: Path, checkpoint: str) -> Path:
    """The folder of a run's stored weights.

    Raises:
        ScenarioError: there are none of this name.
    """
    weights = folder / CHECKPOINTS / checkpoint
    if not weights.is_dir():
        there = sorted(path.parent.name for path in (folder / CHECKPOINTS).glob("*/agent-0.safetensors"))
        raise ScenarioError(f"{folder}: no weights in {weights}; there are {', '.join(there) or 'none'} (--checkpoint)")
    return weights


def evaluation(folder: Path, asked: Scenario, *, checkpoint: str, episodes: int) -> Plan:
    """The plan by which a run's team plays without learning.

    Args:
        folder: The run.
        asked: Its scenario, with other settings of world and links.
        checkpoint: Which weights.
        episodes: At least so many.

    Raises:
        ScenarioError: there are no such weights, or the team does not fit the settings. Another ValueError: as `plan`.
    """
    weights = weights_of(folder, checkpoint)
    with reading(folder):
        return frozen(retold(folder, asked), weights, copies=asked.env.num_envs, episodes=episodes)


@dataclass(frozen=True, slots=True)
class Resumption:
    """How a run goes on.

    Attributes:
        plan: From where; None: its training is over.
        skipped: What is wrong with states that were stored later than the one that is taken, a sentence each.
        changed: In what versions, commit and host are others than those that the run was begun with.
        lacks_evaluations: Whether the training is over and evaluations are missing.
    """

    plan: Plan | None
    skipped: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    lacks_evaluations: bool = False


def resumption(folder: Path, overrides: Iterable[str] = ()) -> Resumption:
    """How a run that was interrupted, that failed or that is finished goes on.

    Args:
        folder: The run.
        overrides: A larger budget, `budget.env_steps=N`, or another `supervision.agents_per_process`, if any.

    Raises:
        ScenarioError: it cannot: it diverged, is an evaluation, or has no stored state that is good; or the overrides are not a
            larger budget. Another ValueError: what its folder says of it cannot be read.
    """
    with reading(folder):
        run = Run(folder, load(str(folder / SCENARIO_FILE)))
        asked = load(str(folder / SCENARIO_FILE), overrides)
        is_extended, is_repacked = _is_longer(run.scenario, asked), run.scenario.supervision != asked.supervision
        lost = without_weights(folder / CHECKPOINTS / "final", run.deployment.n_agents)
        if not is_extended and run.is_complete and run.finishers and run.finishers.isdisjoint(lost):
            # without all weights there is no whole team to evaluate
            return Resumption(None, lacks_evaluations=not lost and are_missing(folder, run.deployment, run.scenario.n_rounds))
        if run.diverged:
            raise ScenarioError(f"{folder}: {spoken(run.diverged[0])}; it would again, so there is nothing to go on with")
        if not run.deployment.learns:
            raise ScenarioError(f"{folder}: an evaluation that did not end; run it again: kappahop evaluate RUN")
        round_, wrong = latest_good(folder)
        if round_ is None:
            why = "; ".join(wrong) or "record.state_rounds says how often a run stores one"
            command = shlex.join(["kappahop", "run", str(folder / SCENARIO_FILE)])
            raise ScenarioError(f"{folder}: no stored state to go on from ({why}); to begin again: {command}")
        goes_on = _extended(run.scenario, asked, round_ + 1) if is_extended else run.scenario
        goes_on = goes_on.model_copy(update={"supervision": asked.supervision})
        ready = reopened(folder, round_, goes_on if is_extended or is_repacked else None)
        return Resumption(ready, wrong, changes_since(folder, ready.scenario))


def _is_longer(before: Scenario, asked: Scenario) -> bool:
    """Whether a run is to go on to a larger budget.

    Raises:
        ScenarioError: something else is to be other than it was, or the budget is smaller.
    """
    was, wanted = (dict(_leaves(one.model_dump(exclude={"description"}))) for one in (before, asked))
    for key in (was | wanted).keys() - {"budget.env_steps", PACKS}:
        if was.get(key) != wanted.get(key):
            raise ScenarioError(
                f"{key}: got {wanted.get(key)}; a run goes on with {was.get(key)}, with which it began; only budget.env_steps "
                f"(upwards) and {PACKS} may change"
            )
    had, has = before.budget.env_steps, asked.budget.env_steps
    if has < had:
        raise ScenarioError(f"budget.env_steps: got {has:,}; expected at least the {had:,} that the run was begun with")
    return asked.n_rounds > before.n_rounds


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _extended(before: Scenario, asked: Scenario, first: int) -> Scenario:
    """The scenario of a run that goes on to a larger budget with round `first`.

    Extensions that have not begun by then never take effect; the budget in force before `first` is that which they ended.
    """
    begun = tuple(pair for pair in before.budget.extended if pair[0] < first)
    rest = before.budget.extended[len(begun) :]
    planned = rest[0][1] if rest else before.n_rounds
    budget = asked.budget.model_copy(update={"extended": (*begun, (first, planned))})
    return before.model_copy(update={"budget": budget})


def make_missing_evaluations(folder: Path, spectator: Spectator, stop: StopFlag = STOP) -> None:
    """Make up for the evaluations of a finished run that were interrupted, or failed, in this process.

    Raises:
        RecordingError: they cannot be written down.
        ScenarioError: another command is at work there. Another ValueError: as `reopened`.
        StopRequested: it was asked to stop; what has been made is kept.
    """
    from coordinator.evaluation.play import make_evaluations

    with reading(folder):
        run = Run(folder, load(str(folder / SCENARIO_FILE)))
        ready, wall_s = reopened(folder, None), run.metrics["wall_s"]
    with contextlib.ExitStack() as stack:
        stack.enter_context(claim_run(folder))
        names = [measure.name for measure in ready.spec.measures]
        recorder = Recorder(folder, env_steps_per_round=0, measures=names, reopened=True)
        stack.enter_context(contextlib.closing(recorder))
        evaluations = Evaluations(
            ready,
            folder,
            recorder,
            note=lambda text: recorder.event(wall_s, "evaluation", text),
            watch=spectator.evaluation,
            rounds_done=run.scenario.n_rounds,
        )
        evaluations.end_training()
        make_evaluations(ready, folder, evaluations, stop)
        recorder.commit_at_last()
        with contextlib.closing(Results(folder)) as results:
            recorder.meta(**made_up(ready, results, run.metrics, evaluations.best()))
        recorder.commit_at_last()
        evaluations.conclude()


class RunFailedError(RuntimeError):
    """A run or a sweep did not do all its work.

    Attributes:
        cause: Why, as a sentence.
        folder: Where what was recorded is; None: nothing was.
    """

    def __init__(self, cause: str, folder: Path | None) -> None:
        super().__init__(cause if folder is None else f"{cause}; what was recorded is in {folder}")
        self.cause = cause
        self.folder = folder
