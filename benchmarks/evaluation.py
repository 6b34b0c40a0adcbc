"""What evaluations cost: `python benchmarks/evaluation.py`.

The same run as a whole command, evaluated as it is by default and not at all. On and off take turns within one go, in changing
order, so that whatever else the machine does falls on both; each pair gives one ratio. CPU seconds are those of all processes
of the command, and the better figure where the machine is shared. The larger evaluations at the end are part of it. Weights and
ledger must be the same, or it ends with an error.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

OFF = "evaluation.every_rounds=0"


def measure(folder: Path, words: list[str], *, on: bool) -> tuple[float, float, dict[str, object]]:
    """Wall and CPU seconds of one run, and what it says."""
    began, before = time.perf_counter(), os.times()
    command = [
        sys.executable,
        "-P",
        "-m",
        "kappahop",
        "run",
        *words,
        *(() if on else (OFF,)),
        "--json",
        "-q",
        "--out",
        str(folder),
    ]
    said = subprocess.run(command, check=True, capture_output=True, text=True)
    after = os.times()
    cpu_s = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - began, cpu_s, json.loads(said.stdout)


def main() -> None:
    """Measure and print.

    Raises:
        SystemExit: evaluating changed what was learnt, or what was sent.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", default=["quickstart"], help="scenario and overrides (default: quickstart)")
    parser.add_argument("--pairs", type=int, default=7, help="pairs of runs (default %(default)s)")
    arguments = parser.parse_args()
    found: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
    digests = set()
    with tempfile.TemporaryDirectory() as folder:
        for pair in range(arguments.pairs):
            for on in (True, False) if pair % 2 == 0 else (False, True):
                wall_s, cpu_s, told = measure(Path(folder) / f"{pair}-{on}", arguments.words, on=on)
                found[on].append((wall_s, cpu_s))
                digests.add((told["weights_sha256"], told["ledger_sha256"]))
    if len(digests) > 1:
        raise SystemExit(f"runs differ in weights or ledger: {digests}")
    table = Table(title=f"{' '.join(arguments.words)}, {len(os.sched_getaffinity(0))} cores, {arguments.pairs} pairs")
    for heading in ("seconds", "off: median", "on: median", "on / off: median", "least", "greatest"):
        table.add_column(heading, justify="left" if heading == "seconds" else "right")
    for place, name in enumerate(("wall", "CPU")):
        on_s, off_s = ([seconds[place] for seconds in found[on]] for on in (True, False))
        ratios = [one / other for one, other in zip(on_s, off_s, strict=True)]
        figures = [median(off_s), median(on_s)]
        table.add_row(name, *(f"{s:.1f}" for s in figures), *(f"{r:.3f}" for r in (median(ratios), min(ratios), max(ratios))))
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
