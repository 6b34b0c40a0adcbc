"""Make the results page's runs, figures and tables: `python benchmarks/results.py`.

Every row is one command that can be run by itself; finished runs in the folder are kept and not run again. The
figures and a table of rows go to `docs/figures/` and to standard output; docs/results/index.md quotes the table.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from benchmarks.runs import made
from coordinator.records.database import Results

BINS = 50
COLOURS = {0: "#D55E00", 1: "#0072B2", 5: "#009E73"}  # Okabe and Ito: told apart by colour-blind readers
FIGURES = Path(__file__).resolve().parent.parent / "docs" / "figures"


@dataclass(frozen=True, slots=True)
class Row:
    """One run of the page."""

    task: str
    scenario: str
    kappa: int
    seed: int

    @property
    def command(self) -> str:
        """What to type."""
        return f"kappahop run {self.scenario} kappa={self.kappa} --seed {self.seed}"

    def folder(self, root: Path) -> Path:
        """Where the run lies."""
        return root / f"{self.scenario}-k{self.kappa}-s{self.seed}"


ROWS = [
    *(Row("Safe HalfCheetah 6x1", "safe_halfcheetah_6x1", kappa, seed) for kappa in (0, 1, 5) for seed in (0, 1)),
    Row("Safe Ant 4x2", "safe_ant_4x2", 1, 0),
]


def make(row: Row, root: Path) -> dict[str, float]:
    """The figures of a row, from a run made now or before."""
    _, _, *words = row.command.split()
    return made(words, row.folder(root)).metrics


def curve(folder: Path, column: Literal["return", "cost"]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Environment steps and means of a column of the episodes, in at most `BINS` bins of equal numbers of episodes."""
    results = Results(folder)
    rows = np.array(results.episodes(column))
    results.close()
    parts = np.array_split(rows, min(BINS, max(1, len(rows) // 10)))
    return np.array([part[:, 0].mean() for part in parts]), np.array([part[:, 1].mean() for part in parts])


def draw(rows: Sequence[Row], root: Path, found: dict[Row, dict[str, float]], name: str) -> None:
    """Return, cost against its limit, and return against bytes, for the rows of one task."""
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    axes = figure.subplots(1, 3)
    for row in rows:
        colour, style = COLOURS[row.kappa], ("-", "--")[row.seed]
        steps, returns = curve(row.folder(root), "return")
        _, costs = curve(row.folder(root), "cost")
        per_step = found[row]["wire_bytes"] / found[row]["env_steps"]
        label = f"κ = {row.kappa}, seed {row.seed}"
        axes[0].plot(steps / 1e6, returns, style, color=colour, label=label)
        axes[1].plot(steps / 1e6, costs, style, color=colour)
        if per_step:
            axes[2].plot(steps * per_step / 1e6, returns, style, color=colour)
    axes[1].axhline(found[rows[0]]["cost_limit"], color="black", linewidth=1, linestyle=":")
    axes[1].annotate("limit", (0.0, found[rows[0]]["cost_limit"]), va="bottom")
    axes[0].legend(fontsize=8)
    for axis, x, y in zip(
        axes,
        ("environment steps, millions",) * 2 + ("MB on all links together (κ = 0 sends nothing)",),
        ("return of an episode", "cost of an episode", "return of an episode"),
        strict=True,
    ):
        axis.set(xlabel=x, ylabel=y)
        axis.grid(alpha=0.3)
    figure.suptitle(rows[0].task)
    FIGURES.mkdir(parents=True, exist_ok=True)
    figure.savefig(FIGURES / f"{name}.svg", metadata={"Date": None})
    figure.savefig(FIGURES / f"{name}.png", dpi=110)


def table(found: dict[Row, dict[str, float]], root: Path) -> str:
    """The rows as a Markdown table."""
    lines = [
        "| task | κ | seed | return, first → last tenth | cost (limit) | wire MB | wire B per agent, step | steps/s | command |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row, figures in found.items():
        _, returns = curve(row.folder(root), "return")
        first = returns[: len(returns) // 10].mean()
        lines.append(
            f"| {row.task} | {row.kappa} | {row.seed} | {first:.0f} → {figures['return_mean']:.0f} "
            f"| {figures['cost_mean']:.1f} ({figures['cost_limit']:g}) | {figures['wire_bytes'] / 1e6:.0f} "
            f"| {figures['bytes_per_agent_step']:.1f} | {figures['env_steps_per_s']:,.0f} | `{row.command}` |"
        )
    return "\n".join(lines)


def main() -> None:
    """Run what is missing, draw, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path("runs/results"), help="folder of the runs (default %(default)s)")
    root = parser.parse_args().root
    root.mkdir(parents=True, exist_ok=True)
    found = {row: make(row, root) for row in ROWS}
    for task in dict.fromkeys(row.task for row in ROWS):
        rows = [row for row in ROWS if row.task == task]
        draw(rows, root, found, rows[0].scenario)
    print(table(found, root))


if __name__ == "__main__":
    main()
