"""What recording costs: `python benchmarks/recording.py`.

The same training as a whole command, with all of it on (database, TensorBoard, states to go on from, a progress bar that is
drawn) and with all of it off: nothing is put into the database either, for which there is no setting, so the command is told
so from here. Safe HalfCheetah 6x1, κ = 1, 10 copies x 100 steps a round, everything else by default. On and off take turns
within one go, in changing order, so that whatever else the machine does falls on both; each pair gives one ratio. CPU
seconds are those of all processes of the command, and the better figure where the machine is shared.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from coordinator.cli.app import main as command
from coordinator.run.database import Recorder

SETTINGS = ("safe_halfcheetah_6x1", "kappa=1", "env.num_envs=10", "rollout.steps=100")
OFF = ("record.tensorboard=false", "record.state_rounds=0", "--quiet")
UNRECORDED = "unrecorded"  # first word of this script when it stands for the command


def measure(folder: Path, steps: int, *, on: bool) -> tuple[float, float]:
    """Wall and CPU seconds of one run."""
    words = ["run", *SETTINGS, f"budget.env_steps={steps}", "--out", str(folder), *(() if on else OFF)]
    start = [sys.executable, "-m", "kappahop"] if on else [sys.executable, __file__, UNRECORDED]
    began, before = time.perf_counter(), os.times()
    # rich draws where it is told of a terminal
    told = os.environ | {"FORCE_COLOR": "1", "TERM": "xterm-256color", "COLUMNS": "120"}
    subprocess.run([*start, *words], env=told, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    after = os.times()
    cpu_s = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - began, cpu_s


def run_unrecorded(words: list[str]) -> None:
    """Stand for the command, with a recorder that keeps nothing but what the run ends with."""
    for name in ("episodes", "round", "traffic", "refusals", "event"):
        setattr(Recorder, name, lambda *words, **more: None)
    sys.argv = ["kappahop", *words]
    command()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=5, help="pairs of runs (default %(default)s)")
    parser.add_argument("--steps", type=int, default=15_000, help="environment steps per run (default %(default)s)")
    arguments = parser.parse_args()
    found: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(arguments.turns):
            for on in (True, False) if turn % 2 == 0 else (False, True):
                found[on].append(measure(Path(folder) / f"{turn}-{on}", arguments.steps, on=on))
    table = Table(title=f"{arguments.steps:,} steps, {len(os.sched_getaffinity(0))} cores, {arguments.turns} pairs")
    for heading in ("seconds", "off: median", "on: median", "on / off: median", "least", "greatest"):
        table.add_column(heading, justify="left" if heading == "seconds" else "right")
    for place, name in enumerate(("wall", "CPU")):
        on_s, off_s = ([seconds[place] for seconds in found[on]] for on in (True, False))
        ratios = [one / other for one, other in zip(on_s, off_s, strict=True)]
        figures = [median(off_s), median(on_s)]
        table.add_row(name, *(f"{s:.1f}" for s in figures), *(f"{r:.3f}" for r in (median(ratios), min(ratios), max(ratios))))
    Console(width=100).print(table)


if __name__ == "__main__":
    if sys.argv[1:2] == [UNRECORDED]:
        run_unrecorded(sys.argv[2:])
    else:
        main()
