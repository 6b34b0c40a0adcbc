"""The process that makes a run's evaluations one after the other, as the supervisor sees it.

Theory of operation. The fork server starts it on an order and reports its birth, what it has done, and its end. While the
training goes on, the machine may leave it no processor time; `is_late` then says that it has to be ended. An evaluation that
was ended on purpose has no result and no fault: it may be begun again.
"""

import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from coordinator.evaluation.evaluations import ROLE, Evaluations, Job, Result, order
from topology.deployment import LOGS
from topology.process import how_it_ended


class Evaluator:
    """One process at a time, for one evaluation.

    Args:
        run_dir: The run's directory.
        evaluations: What there is to evaluate; takes the results.
        deadline_s: How long an evaluation may take from one sign of progress to the next.

    Attributes:
        job: The evaluation under way.
        pid: Its process, from its birth to its death.
    """

    def __init__(self, run_dir: Path, evaluations: Evaluations, deadline_s: float) -> None:
        self.job: Job | None = None
        self.pid: int | None = None
        self._run_dir = run_dir
        self._evaluations = evaluations
        self._deadline_s = deadline_s
        self._got_on = 0.0  # when there was a sign of progress
        self._problem = ""  # why the evaluation could not be made, as its process reported

    def begin(self, send: Callable[[dict[str, Any]], None], *, beside_training: bool) -> None:
        """Order the next evaluation, if there is one and no other is under way.

        Args:
            send: Sends an order to the fork server.
            beside_training: Whether the process leaves the processor to the training.
        """
        if self.job is None and (job := self._evaluations.next()) is not None:
            send(order(self._run_dir, job, beside_training=beside_training))
            self.job, self._problem, self._got_on = job, "", time.monotonic()

    def is_late(self) -> bool:
        """Whether an evaluation is under way that has not got on within the deadline."""
        return self.job is not None and time.monotonic() - self._got_on > self._deadline_s

    def has_work(self) -> bool:
        """Whether an evaluation is under way or still to be made."""
        return self.job is not None or self._evaluations.next() is not None

    def kill(self) -> None:
        """End the process, if it is born."""
        if self.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    @staticmethod
    def is_meant(item: dict[str, Any]) -> bool:
        """Whether a report of the fork server is about this process."""
        return ROLE in (item.get("born"), item.get("dead")) or "evaluating" in item

    def take(self, item: dict[str, Any]) -> None:
        """Take in what the fork server reports of the process."""
        self._got_on = time.monotonic()
        match item:
            case {"born": _, "pid": pid}:
                self.pid = pid
            case {"dead": _, "status": status}:
                self.pid = None
                self._end(status)
            case {"evaluating": str(problem)}:
                self._problem = problem
            case {"evaluating": done} if self.job is not None:
                self._evaluations.progress(self.job, done)

    def _end(self, status: int) -> None:
        job, self.job = self.job, None
        result = Result.take(self._run_dir)
        if job is None:  # ended on purpose
            return
        if result is not None:
            self._evaluations.record(job, result)
        else:
            why = self._problem or f"its process {how_it_ended(status)} (see {LOGS}/evaluation.log)"
            self._evaluations.fail(job, why)
