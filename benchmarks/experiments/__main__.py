"""Make the runs of experiments and write their pages: `python -m benchmarks.experiments NAME...`, without names: list them.

An experiment is a sweep per row. The same command goes on where it was stopped, and keeps runs that are done. When all runs of an
experiment are there, its page, numbers and figure are written. `--pages` writes the pages from stored numbers and runs nothing.
"""

import argparse
from pathlib import Path

import numpy as np
import yaml

import kappahop
from benchmarks.experiments import pages
from benchmarks.experiments.catalogue import EXPERIMENTS, Experiment
from scenarios.loading import load

DOCS = Path(__file__).resolve().parents[2] / "docs" / "results"


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.experiments", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", choices=[*EXPERIMENTS, []], metavar="NAME", help="which experiments")
    parser.add_argument("--seeds", type=int, help="how many (default: as the experiment says)")
    parser.add_argument("--rounds", type=int, help="rounds per run, to try it out (default: as the experiment says)")
    parser.add_argument("--jobs", type=int, help="runs at a time (default: what the cores carry)")
    parser.add_argument("--root", type=Path, default=Path("runs/experiments"), help="folder of the runs (default %(default)s)")
    parser.add_argument("--out", type=Path, default=DOCS, help="folder of the pages (default docs/results)")
    parser.add_argument("--pages", action="store_true", help="write the pages anew from the stored numbers")
    given = parser.parse_args()
    if not given.names:
        for name, experiment in EXPERIMENTS.items():
            print(f"{name:24} {len(experiment.rows)} rows, {experiment.seeds} seeds, {experiment.hours:g} h: {experiment.title}")
    for name in given.names:
        experiment = EXPERIMENTS[name]
        if given.pages:
            numbers, processor = pages.read(name, experiment, given.out)
        else:
            folder = given.root / name
            numbers = make(experiment, folder, seeds=given.seeds or experiment.seeds, rounds=given.rounds, jobs=given.jobs)
            processor = processor_name()
        pages.write(name, experiment, numbers, given.out, processor=processor)
        print(given.out / f"{name}.md")


def make(
    experiment: Experiment, folder: Path, *, seeds: int, rounds: int | None = None, jobs: int | None = None
) -> pages.Numbers:
    """Make what is missing of an experiment's runs; their numbers.

    Args:
        experiment: Which.
        folder: Where its runs lie.
        seeds: Seeds 0, 1, … of every row.
        rounds: Rounds per run instead of the row's budget.
        jobs: Runs at a time.
    """
    numbers: dict[str, dict[str, np.ndarray]] = {measure: {} for measure in experiment.measures}
    for place, row in enumerate(experiment.rows):
        source, words = row.scenario or experiment.scenario, [*experiment.common, *row.words]
        if rounds is not None:
            scenario = load(source, words)
            words += [f"budget.env_steps={rounds * scenario.rollout.steps * scenario.env.num_envs}", "evaluation.episodes=1"]
        values = {key: [yaml.safe_load(value)] for key, _, value in (word.partition("=") for word in words)}
        swept = kappahop.sweep(
            source, values, seeds=range(seeds), jobs=jobs, out=folder / f"{place}", in_process=True, progress=rounds is None
        )
        for measure, read in experiment.measures.items():
            numbers[measure][row.name] = np.array([read(run) for run in swept.runs])
    return numbers


def processor_name() -> str:
    """What the processor calls itself."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return "an unknown processor"


if __name__ == "__main__":
    main()
