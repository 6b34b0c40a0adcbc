"""What recording costs: `python benchmarks/recording.py`.

The same training, with all of it on (database, TensorBoard, states to go on from, a progress bar that is
drawn) and with all of it off: nothing is put into the database either, for which there is no setting, so the recorder is
replaced from here. Safe HalfCheetah 6x1, κ = 1, 10 copies x 100 steps a round, everything else by default. On and off take turns
within one go, in changing order, so that whatever else the machine does falls on both; each pair gives one ratio. CPU
seconds are those of all its processes, and the better figure where the machine is shared.
"""

import argparse
import contextlib
import os
import tempfile
from pathlib import Path
from unittest import mock

import kappahop
from benchmarks.runs import Reading, reading, show, turns
from coordinator.records.database import Recorder
from scenarios.loading import load

SETTINGS = ("kappa=1", "env.num_envs=10", "rollout.steps=100")
OFF = ("record.tensorboard=false", "record.state_rounds=0")
TERMINAL = {"FORCE_COLOR": "1", "TERM": "xterm-256color", "COLUMNS": "120"}  # with which rich draws


def measure(folder: Path, steps: int, *, on: bool) -> Reading:
    """What one run took."""
    chosen = load("safe_halfcheetah_6x1", [*SETTINGS, f"budget.env_steps={steps}", *(() if on else OFF)])
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.dict(os.environ, TERMINAL))
        stack.enter_context(contextlib.redirect_stderr(stack.enter_context(open(os.devnull, "w"))))
        if not on:  # the recorder keeps nothing but what the run ends with
            for name in ("episodes", "round", "traffic", "refusals", "event"):
                stack.enter_context(mock.patch.object(Recorder, name, return_value=None))
        return reading(lambda: kappahop.run(chosen, out=folder, progress=on))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=5, help="pairs of runs (default %(default)s)")
    parser.add_argument("--steps", type=int, default=15_000, help="environment steps per run (default %(default)s)")
    arguments = parser.parse_args()
    found: dict[bool, list[Reading]] = {True: [], False: []}
    with tempfile.TemporaryDirectory() as folder:
        for turn, on in turns(arguments.turns):
            found[on].append(measure(Path(folder) / f"{turn}-{on}", arguments.steps, on=on))
    show(f"{arguments.steps:,} steps", found[True], found[False])


if __name__ == "__main__":
    main()
