"""What benchmarks share: runs made through the Python API, kept for the next call, and readings taken in pairs."""

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

import kappahop
from scenarios.loading import load


def made(words: Sequence[str], folder: Path, *, in_process: bool = False) -> kappahop.Run:
    """A finished run, made now unless it was made before; an interrupted one is not continued but made again.

    Args:
        words: Scenario and overrides as they are typed, `--seed N` among them.
        folder: Where it lies.
        in_process: Whether all agents run in this process: the same bytes, and faster for many small agents.
    """
    if (folder / "run.sqlite").exists() and (found := kappahop.open_run(folder)).is_complete:
        return found
    print(" ".join(("kappahop run", *words)), file=sys.stderr, flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    return kappahop.run(load(words[0], _overrides(words[1:])), out=folder, in_process=in_process)


def _overrides(words: Sequence[str]) -> list[str]:
    rest = iter(words)
    return [f"seed={next(rest)}" if word == "--seed" else word for word in rest]


@dataclass(frozen=True, slots=True)
class Reading:
    """What one call took, in seconds: on the clock, and of the processor, that of processes it started and awaited included."""

    wall_s: float
    cpu_s: float


def reading(call: Callable[[], object]) -> Reading:
    """Call once and measure."""
    began, before = time.perf_counter(), os.times()
    call()
    after = os.times()
    return Reading(time.perf_counter() - began, sum(after[:4]) - sum(before[:4]))


def turns(pairs: int) -> Iterator[tuple[int, bool]]:
    """Number of the pair and which of the two: both within one go, in changing order, so that other load falls on both."""
    for pair in range(pairs):
        for on in (True, False) if pair % 2 == 0 else (False, True):
            yield pair, on


def show(title: str, on: Sequence[Reading], off: Sequence[Reading]) -> None:
    """Print medians and the ratios of the pairs."""
    table = Table(title=f"{title}, {len(os.sched_getaffinity(0))} cores, {len(on)} pairs")
    for heading in ("seconds", "off: median", "on: median", "on / off: median", "least", "greatest"):
        table.add_column(heading, justify="left" if heading == "seconds" else "right")
    for name, pick in (("wall", "wall_s"), ("CPU", "cpu_s")):
        ones, others = ([getattr(one, pick) for one in found] for found in (on, off))
        ratios = [one / other for one, other in zip(ones, others, strict=True)]
        cells = [f"{median(others):.1f}", f"{median(ones):.1f}"]
        table.add_row(name, *cells, *(f"{ratio:.3f}" for ratio in (median(ratios), min(ratios), max(ratios))))
    Console(width=100).print(table)
