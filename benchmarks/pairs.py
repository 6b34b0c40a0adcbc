"""How fast two versions train, one against the other: `python benchmarks/pairs.py OLD NEW`.

OLD and NEW are two checkouts, each with its own environment in `.venv`. The same training runs in both in turns, so that
whatever else the machine does falls on both; which comes first changes from pair to pair. Each pair gives the ratio of NEW's
rate to OLD's, with processes and within one. A rate is environment steps per second of wall time, from the end of the first
round to the end of the last, so that starting is left out. CPU seconds are those of the whole command; they suffer less
where the machine is shared.
"""

import argparse
import os
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

WAYS = {"processes": (), "in one process": ("--in-process",)}


@dataclass(frozen=True, slots=True)
class Reading:
    """One training: environment steps per second, and CPU seconds of the command."""

    rate: float
    cpu_s: float


def measure(tree: Path, words: list[str]) -> Reading:
    """Train once with the code of a checkout."""
    with tempfile.TemporaryDirectory() as folder:
        run_dir = Path(folder) / "run"
        before = os.times()
        command = [str(tree / ".venv/bin/kappahop"), "run", *words, "record.tensorboard=false", "--quiet", "--out", str(run_dir)]
        done = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False)
        after = os.times()
        if done.returncode:
            sys.exit(f"{tree}: {done.stderr.strip() or done.stdout.strip()}")
        with closing(sqlite3.connect(run_dir / "run.sqlite")) as database:
            rows = database.execute("SELECT max(env_step), max(wall_s) FROM rounds GROUP BY round ORDER BY round").fetchall()
    (first_step, first_s), (last_step, last_s) = rows[0], rows[-1]
    cpu_s = after.children_user + after.children_system - before.children_user - before.children_system
    return Reading((last_step - first_step) / (last_s - first_s), cpu_s)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path, help="checkout of the version to compare with")
    parser.add_argument("new", type=Path, help="checkout of the version in question")
    parser.add_argument("--pairs", type=int, default=7, help="pairs of runs each way (default %(default)s)")
    parser.add_argument("--steps", type=int, default=40_000, help="environment steps per run (default %(default)s)")
    parser.add_argument("--scenario", default="quickstart", help="what to train (default %(default)s)")
    parser.add_argument("overrides", nargs="*", help="settings of it, e.g. algorithm.name=hatrpo")
    arguments = parser.parse_args()
    trees = {"old": arguments.old.resolve(), "new": arguments.new.resolve()}
    words = [arguments.scenario, *arguments.overrides, f"budget.env_steps={arguments.steps}"]
    console = Console(width=110)
    for way, more in WAYS.items():
        table = Table(title=f"{way}: {' '.join(words)}, {len(os.sched_getaffinity(0))} cores")
        for heading in ("pair", "old, steps/s", "new, steps/s", "new / old", "old, CPU s", "new, CPU s", "old / new"):
            table.add_column(heading, justify="right")
        ratios = []
        for pair in range(arguments.pairs):
            order = ("old", "new") if pair % 2 == 0 else ("new", "old")
            found = {name: measure(trees[name], [*words, *more]) for name in order}
            old, new = found["old"], found["new"]
            ratios.append((new.rate / old.rate, old.cpu_s / new.cpu_s))
            rates = f"{old.rate:,.0f}", f"{new.rate:,.0f}", f"{ratios[-1][0]:.3f}"
            table.add_row(str(pair + 1), *rates, f"{old.cpu_s:.1f}", f"{new.cpu_s:.1f}", f"{ratios[-1][1]:.3f}")
        wall, cpu = (median(column) for column in zip(*ratios, strict=True))
        table.add_row("median", "", "", f"{wall:.3f}", "", "", f"{cpu:.3f}")
        console.print(table)


if __name__ == "__main__":
    main()
