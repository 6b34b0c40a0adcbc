"""The page of an experiment, from its numbers: what came out, a figure, a table, and the command."""

import csv
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from benchmarks.experiments.catalogue import Experiment
from benchmarks.experiments.claims import row_interval
from coordinator.study.statistics import Interval

Numbers = Mapping[str, Mapping[str, NDArray[np.float64]]]
"""By measure and row: what each seed came to, by ascending seed."""

ENOUGH = 10  # seeds for a statement
_FIXED = ("|", "![", "```", "# ")  # parts of a page whose lines stay as they are


def write(name: str, experiment: Experiment, numbers: Numbers, out: Path, *, processor: str) -> None:
    """Write `out/NAME.md`, and numbers and figure to `out/data`."""
    data = out / "data"
    data.mkdir(parents=True, exist_ok=True)
    with (data / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["row", "seed", *experiment.measures])
        for row in experiment.rows:
            columns = [numbers[measure][row.name] for measure in experiment.measures]
            table.writerows([row.name, seed, *(repr(float(value)) for value in values)] for seed, values in _by_seed(columns))
    (data / f"{name}.processor").write_text(processor + "\n", encoding="utf-8")
    draw(experiment, numbers, data / f"{name}.svg")
    (out / f"{name}.md").write_text(page(name, experiment, numbers, processor=processor), encoding="utf-8")


def read(name: str, experiment: Experiment, out: Path) -> tuple[Numbers, str]:
    """The numbers of an experiment as they were stored, and the processor that they were made on."""
    with (out / "data" / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    numbers = {
        measure: {row.name: _column(lines, row.name, measure) for row in experiment.rows} for measure in experiment.measures
    }
    return numbers, (out / "data" / f"{name}.processor").read_text(encoding="utf-8").strip()


def page(name: str, experiment: Experiment, numbers: Numbers, *, processor: str) -> str:
    """The page's text."""
    seeds = min(len(scores) for rows in numbers.values() for scores in rows.values())
    parts = [
        f"# {experiment.title}",
        f"{_how_sure(seeds)} Last policies, evaluated on fresh episodes; {processor}, another processor rounds differently.",
        experiment.text,
        _claims(experiment, numbers),
    ]
    if experiment.reading:
        parts.append(experiment.reading)
    measures = list(experiment.measures)
    head = ["row", *measures, "overrides"]
    rows = []
    for row in experiment.rows:
        cells = [_mean(*row_interval(numbers[measure][row.name])) for measure in measures]
        rows.append([row.name, *cells, " ".join(f"`{word}`" for word in row.words) or "none"])
    parts += [
        f"![{', '.join(measures)} by row](data/{name}.svg)",
        _table(head, rows),
        f"Interquartile means over seeds with 95 % intervals. Scenario `{experiment.scenario}`"
        + (f", with {' '.join(f'`{word}`' for word in experiment.common)} in all rows" if experiment.common else "")
        + f". Every seed's numbers: [data](data/{name}.csv).",
        f"About {_span(experiment.hours)} on two cores; the command goes on where it was stopped:",
        f"```sh\npython -m benchmarks.experiments {name}\n```",
    ]
    filled = (part if part.startswith(_FIXED) else textwrap.fill(part, 118, break_on_hyphens=False) for part in parts)
    return "\n\n".join(filled) + "\n"


def draw(experiment: Experiment, numbers: Numbers, path: Path) -> None:
    """A panel per measure: seeds as dots, interquartile mean and interval of each row."""
    rows = [row.name for row in experiment.rows]
    places = np.arange(len(rows))[::-1]
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "kappahop", "font.size": 9}):
        figure = Figure(figsize=(3.6 * len(experiment.measures) + 1.2, 0.38 * len(rows) + 1.0), layout="constrained")
        panels = figure.subplots(1, len(experiment.measures), sharey=True, squeeze=False)[0]
        for panel, measure in zip(panels, experiment.measures, strict=True):
            for place, row in zip(places, rows, strict=True):
                scores = numbers[measure][row]
                centre, interval = row_interval(scores)
                panel.plot(scores, np.full(len(scores), place), "o", color="#999999", markersize=3, alpha=0.7)
                if np.isfinite(interval.low):
                    panel.plot([interval.low, interval.high], [place, place], color="#0072B2", linewidth=2)
                panel.plot([centre], [place], "|", color="#0072B2", markersize=12, markeredgewidth=2)
            panel.set_xlabel(measure)
            panel.grid(axis="x", alpha=0.3)
        panels[0].set_yticks(places, rows)
        figure.savefig(path, metadata={"Date": None, "Creator": None})


def _column(lines: Sequence[Mapping[str, str]], row: str, measure: str) -> NDArray[np.float64]:
    return np.array([float(line[measure]) for line in lines if line["row"] == row])


def _by_seed(columns: Sequence[NDArray[np.float64]]) -> list[tuple[int, tuple[float, ...]]]:
    return list(enumerate(zip(*columns, strict=True)))


def _how_sure(seeds: int) -> str:
    if seeds == 1:
        return "**A single run per row: no claim is decided by it.**"
    return f"{seeds} seeds per row." if seeds >= ENOUGH else f"**Only {seeds} seeds per row.**"


def _claims(experiment: Experiment, numbers: Numbers) -> str:
    lines = [
        [f"{claim.measure}: {found.text}", f"**{found.outcome}**", _mean(found.difference, found.interval)]
        for claim in experiment.claims
        for found in claim.findings(numbers[claim.measure])
    ]
    return _table(["expected", "came out", "ahead by"], lines)


def _mean(mean: float, interval: Interval) -> str:
    if np.isnan(interval.low):
        return f"{mean:.4g}"
    return f"{mean:.4g} ({interval.low:.4g} to {interval.high:.4g})"


def _span(hours: float) -> str:
    return f"{hours:g} hours" if hours > 1 else f"{round(60 * hours)} minutes"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows))
