"""The life of a process that makes one evaluation beside a run with processes, and leaves the result in its directory."""

import contextlib
import json
import os
import sys
from pathlib import Path

from coordinator.evaluation.evaluations import PROBLEMS, ROLE, Job
from coordinator.evaluation.play import play
from coordinator.records.plan import Plan
from envs.registry import spec as env_spec
from scenarios.loading import load
from topology.deployment import LOGS, SCENARIO_FILE, Deployment
from topology.process import settle

MAX_PROBLEM = 500  # characters, so that a line stays one write to the pipe


def run_evaluator(run_dir: Path, job: Job, *, beside_training: bool) -> int:
    """Make an evaluation and leave the result.

    Args:
        run_dir: The run's directory.
        job: Which evaluation.
        beside_training: Whether to use only what the training leaves of the processor.

    Returns:
        The process's exit code: 0 done, 1 it could not be made (and a message to the coordinator gave the cause).
    """
    coordinator = os.dup(1)  # the fork server's pipe, by which the coordinator learns that this process is getting on
    settle(ROLE, run_dir / LOGS / "evaluation.log")
    if beside_training:
        os.nice(19)
        if sys.platform == "linux":
            with contextlib.suppress(OSError):  # it is forbidden, as in some containers
                os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))

    def tell(done: float | str) -> None:
        os.write(coordinator, json.dumps({"evaluating": done}).encode() + b"\n")

    try:
        scenario = load(str(run_dir / SCENARIO_FILE))
        ready = Plan(scenario, env_spec(scenario.env), Deployment.read(run_dir))
        play(ready, run_dir, job, tell).write(run_dir)
    except PROBLEMS as error:
        tell(str(error)[:MAX_PROBLEM])
        return 1
    return 0
