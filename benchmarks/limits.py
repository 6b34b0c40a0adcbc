"""What limits on links cost: `python benchmarks/limits.py`.

First the line of eight linear systems whose optimum is known: teams trained for several κ, codecs and event thresholds,
and on lossy links in four modes, each evaluated without exploration on the links that it was trained on. The measure is
the average cost per node and step as a multiple of the exact optimum, against the wire bytes per agent and step of the
evaluation. Then Safe HalfCheetah 6x1, whose states are wider: teams trained on links without limits, evaluated with other
codecs and thresholds.

Every row is two commands that can be run by themselves; what is finished in the folder is kept and not made again.
The figures go to `docs/figures/`, the tables to standard output; docs/results/index.md quotes them.
"""

import argparse
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path
from statistics import mean

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import kappahop
from benchmarks.runs import made
from coordinator.records.plan import plan
from envs.networks.lq import dynamics, kappa_curve, optimal_cost
from scenarios.loading import load

FIGURES = Path(__file__).resolve().parent.parent / "docs" / "figures"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")  # Okabe and Ito: told apart by colour-blind readers
MARKERS, LINES = "osD^", ("-", "--", "-.", ":")  # and without any colour
LENGTH = 1000  # steps of an episode when a linear team is judged
FORMAT = "number format"


@dataclass(frozen=True, slots=True)
class Task:
    """What is trained, and how it is judged.

    Attributes:
        scenario: Its name, with what is the same in all rows.
        judged: Words of the evaluation that are the same in all rows.
        seeds: One team each.
    """

    scenario: tuple[str, ...]
    judged: tuple[str, ...]
    seeds: tuple[int, ...]


LQ = Task(("lq_line20", "env.agents=8", "budget.env_steps=160_000"), (f"env.horizon={LENGTH}", "--episodes", "64"), (0,))
CHEETAH = Task(("safe_halfcheetah_6x1",), ("--episodes", "40"), (0, 1))


@dataclass(frozen=True, slots=True)
class Row:
    """One point of a figure: a team, and the links it is judged on.

    Attributes:
        task: The task.
        label: What stands at the point.
        trained: Overrides of the training, which hold in the evaluation as well.
        judged: Further overrides of the evaluation.
    """

    task: Task
    label: str
    trained: tuple[str, ...]
    judged: tuple[str, ...] = ()

    def run(self, seed: int) -> tuple[str, ...]:
        """Words that train it."""
        return ("run", *self.task.scenario, *self.trained, "--seed", str(seed))

    def evaluate(self, folder: str) -> tuple[str, ...]:
        """Words that judge it."""
        return ("evaluate", folder, *self.judged, *self.task.judged)

    @property
    def command(self) -> str:
        """What to type for this row; the other of the two commands is the same in many rows."""
        words = self.evaluate("RUN") if self.judged else self.run(self.task.seeds[0])
        return f"kappahop {' '.join(words)}"

    def folder(self, root: Path, seed: int) -> Path:
        """Where the run lies."""
        return root / "_".join((*self.task.scenario, *self.trained, f"s{seed}")).replace("/", "-")

    def verdict(self, root: Path, seed: int) -> Path:
        """Folder of the evaluation; what it printed lies beside it."""
        folder = self.folder(root, seed)
        return folder.with_name("_".join(("judged", folder.name, *self.judged)))


KAPPA = [Row(LQ, f"κ = {kappa}", (f"kappa={kappa}",)) for kappa in (0, 1, 2, 3)]
CODEC = [
    Row(LQ, codec, ("kappa=1", f"network.codec.state={codec}")) for codec in ("float16", "bfloat16", "int8")
]  # float32 is κ = 1 above
THRESHOLD = [Row(LQ, f"{level:g}", ("kappa=1", f"network.state_threshold={level:g}")) for level in (0.3, 0.75, 1.5, 3.0)]
LOSSES = (0.0, 0.2, 0.4, 0.6)
# A repeat comes 0.1 s after the first transmission and the next 0.2 s after that: two of them make it before the 0.5 s after
# which an agent acts. Where nothing is lost, what is done about it makes no difference.
MODES: dict[str, list[tuple[float, tuple[str, ...]]]] = {
    "hold the last state": [(prob, ()) for prob in LOSSES],
    "zeros instead": [(prob, ("network.on_missing=zero",) if prob else ()) for prob in LOSSES],
    "sent again": [(prob, ("network.delivery.state=reliable",) if prob else ()) for prob in LOSSES],
    "local actor": [(prob, ("algorithm.actor_scope=local",)) for prob in (LOSSES[0], LOSSES[-1])],
}
LOSS = {
    mode: {
        prob: Row(LQ, f"{prob:.0%}", ("kappa=1", "network.latency_ms=50", f"network.loss_prob={prob:g}", *words))
        for prob, words in points
    }
    for mode, points in MODES.items()
}
WIDE_KAPPA = [Row(CHEETAH, f"κ = {kappa}", (f"kappa={kappa}",)) for kappa in (0, 1, 5)]
WIDE_CODEC = [Row(CHEETAH, codec, ("kappa=1",), (f"network.codec.state={codec}",)) for codec in ("float16", "bfloat16", "int8")]
WIDE_THRESHOLD = [
    Row(CHEETAH, f"{level:g}", ("kappa=1",), (f"network.state_threshold={level:g}",)) for level in (0.1, 0.5, 1.0, 2.0, 4.0)
]


@dataclass(frozen=True, slots=True)
class Point:
    """What came of one row and seed, by the names that the command prints."""

    return_mean: float
    cost_mean: float
    bytes_per_agent_step: float
    payload_bytes: int
    delivered_frac: float | None
    mean_age_s: float | None


Found = dict[Row, list[Point]]
Value = Callable[[Point], float]
Spot = tuple[float, float]


def train(row: Row, seed: int, root: Path) -> None:
    """Make the run of a row unless it is there."""
    made(row.run(seed)[1:], row.folder(root, seed), in_process=True)


def judge(row: Row, seed: int, root: Path) -> Point:
    """The evaluation of a row, made now or before."""
    folder = row.verdict(root, seed)
    if not (folder / "run.sqlite").exists() or not kappahop.open_run(folder).is_complete:
        shutil.rmtree(folder, ignore_errors=True)
        *words, _, episodes = (*row.judged, *row.task.judged)
        settings = dict(word.split("=", 1) for word in words)
        kappahop.evaluate(row.folder(root, seed), out=folder, episodes=int(episodes), in_process=True, **settings)
    found = kappahop.open_run(folder).metrics
    return Point(**{field.name: found[field.name] for field in fields(Point)})


def everything(rows: Sequence[Row], root: Path, jobs: int) -> Found:
    """The points of each row, a point per seed; what is missing is made, so many at a time."""
    points = [(row, seed) for row in rows for seed in row.task.seeds]
    teams = {row.folder(root, seed): (row, seed) for row, seed in points}  # several rows may share one
    verdicts = {row.verdict(root, seed): (row, seed) for row, seed in points}
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        for _ in pool.map(train, *zip(*teams.values(), strict=True), repeat(root)):
            pass
        found = dict(zip(verdicts, pool.map(judge, *zip(*verdicts.values(), strict=True), repeat(root)), strict=True))
    return {row: [found[row.verdict(root, seed)] for seed in row.task.seeds] for row in rows}


def line(axis: Axes, along: Sequence[tuple[float, Row]], found: Found, which: int, label: str, value: Value) -> None:
    """One curve: the means over seeds joined up, each seed a small dot."""
    for x, row in along:
        axis.plot([x] * len(found[row]), [value(point) for point in found[row]], ".", color=COLOURS[which], markersize=4)
    means = [mean(value(point) for point in found[row]) for _, row in along]
    joined = LINES[which] if label != FORMAT else "none"  # formats have no order
    axis.plot(
        [x for x, _ in along], means, linestyle=joined, marker=MARKERS[which], color=COLOURS[which], markersize=5, label=label
    )


def by_bytes(axis: Axes, rows: Sequence[Row], found: Found, which: int, label: str, value: Value, spots: Sequence[Spot]) -> None:
    """A curve over bytes, each point with its label at its spot, in points of type from the mark."""
    along = [(mean(point.bytes_per_agent_step for point in found[row]), row) for row in rows]
    line(axis, along, found, which, label, value)
    for (x, row), spot in zip(along, spots, strict=True):
        at = x, mean(value(point) for point in found[row])
        axis.annotate(row.label, at, xytext=spot, textcoords="offset points", fontsize=8, color=COLOURS[which], ha="center")


def formats(axis: Axes, kappa: Row, codec: Sequence[Row], threshold: Sequence[Row], found: Found, value: Value) -> None:
    """What one κ costs in other formats and with silence."""
    by_bytes(axis, [kappa], found, 0, "always sent, float32", value, [(12, 8)])
    by_bytes(axis, codec, found, 1, FORMAT, value, [(-18, 9), (-18, -16), (0, 9)])
    by_bytes(axis, threshold, found, 2, "event threshold", value, [(0, -14)] * len(threshold))


def draw_lq(found: Found, value: Value, exact: Sequence[float]) -> None:
    """The linear network: κ, formats at κ = 1, loss."""
    figure = Figure(figsize=(13, 4), layout="constrained")
    whole, zoom, loss = figure.subplots(1, 3)
    by_bytes(whole, KAPPA, found, 0, "learned", value, [(20, 0), *[(0, 8)] * 3])
    at = [mean(point.bytes_per_agent_step for point in found[row]) for row in KAPPA]
    whole.plot(at, exact, "k_", markersize=14, label="best linear policy with κ hops")
    formats(zoom, KAPPA[1], CODEC, THRESHOLD, found, value)
    for which, (mode, points) in enumerate(LOSS.items()):
        line(loss, [(100 * prob, row) for prob, row in points.items()], found, which, mode, value)
    loss.set_xlabel("messages lost on each link, %")
    for axis, title in (
        (whole, "how far states travel"),
        (zoom, "what they say, κ = 1 (bytes not from 0)"),
        (loss, "what is lost"),
    ):
        axis.axhline(1, color="black", linewidth=1, linestyle=":")
        axis.set(title=title, ylabel="average cost / optimum")
    finish(figure, "limits_lq")


def draw_cheetah(found: Found) -> None:
    """The half-cheetah: κ, formats at κ = 1."""
    figure = Figure(figsize=(9.5, 4), layout="constrained")
    whole, zoom = figure.subplots(1, 2)
    by_bytes(whole, WIDE_KAPPA, found, 0, "trained and evaluated", reward, [(0, 10)] * 3)
    whole.set_ylim(bottom=0)
    formats(zoom, WIDE_KAPPA[1], WIDE_CODEC, WIDE_THRESHOLD, found, reward)
    for axis, title in ((whole, "how far states travel"), (zoom, "what is said otherwise, κ = 1 (bytes not from 0)")):
        axis.set(title=title, ylabel="return of an episode")
    finish(figure, "limits_halfcheetah")


def finish(figure: Figure, name: str) -> None:
    """Legends, grids; written so that the same numbers give the same file."""
    for axis in figure.axes:
        axis.set_xlabel(axis.get_xlabel() or "wire bytes per agent and step")
        axis.margins(0.1)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    FIGURES.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context({"svg.hashsalt": name}):
        figure.savefig(FIGURES / f"{name}.svg", metadata={"Date": None})
    figure.savefig(FIGURES / f"{name}.png", dpi=110)


def reward(point: Point) -> float:
    """The return of an episode."""
    return point.return_mean


def table(rows: dict[str, Sequence[Row]], found: Found, value: Value, heading: str, form: str) -> str:
    """Rows as Markdown, each once; what is silent is silent beside the same team on links without limits."""
    lines = [
        f"| what | {heading}, by seed | wire B per agent, step | payload, part of κ = 1 | delivered | age, s | command |",
        "|---|---|---|---|---|---|---|",
    ]
    told: set[Row] = set()
    full = next(row for group in rows.values() for row in group if row.label == "κ = 1")
    for group, members in rows.items():
        for row in members:
            if row in told:
                continue
            told.add(row)
            points = found[row]
            said = mean(point.payload_bytes for point in points) / mean(point.payload_bytes for point in found[full])
            delivered = [f"{point.delivered_frac:.2f}" for point in points[:1] if point.delivered_frac is not None]
            age = [f"{point.mean_age_s:.2f}" for point in points[:1] if point.mean_age_s is not None]
            lines.append(
                f"| {f'{group} {row.label}'.strip()} | {', '.join(format(value(point), form) for point in points)} "
                f"| {mean(point.bytes_per_agent_step for point in points):.1f} | {said:.2f} "
                f"| {''.join(delivered) or '–'} | {''.join(age) or '–'} | `{row.command}` |"
            )
    return "\n".join(lines)


def main() -> None:
    """Run what is missing, draw, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path("runs/limits"), help="folder of the runs (default %(default)s)")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time (default %(default)s)")
    arguments = parser.parse_args()
    arguments.root.mkdir(parents=True, exist_ok=True)
    narrow: dict[str, Sequence[Row]] = {"": KAPPA, "format": CODEC, "threshold": THRESHOLD}
    narrow |= {f"{mode}, loss": list(points.values()) for mode, points in LOSS.items()}
    wide: dict[str, Sequence[Row]] = {"": WIDE_KAPPA, "format": WIDE_CODEC, "threshold": WIDE_THRESHOLD}
    found = everything([row for rows in (*narrow.values(), *wide.values()) for row in rows], arguments.root, arguments.jobs)
    scenario = load(LQ.scenario[0], LQ.scenario[1:])
    graph, lq = plan(scenario).deployment.graph(), scenario.env
    optimum, _ = optimal_cost(dynamics(graph, lq), lq.control_weight, lq.noise_std)

    def multiple(point: Point) -> float:
        return -point.return_mean / LENGTH / optimum

    draw_lq(found, multiple, kappa_curve(graph, lq, range(len(KAPPA))))
    draw_cheetah(found)
    print(table(narrow, found, multiple, "cost / optimum", ".3f"))
    print()
    print(table(wide, found, reward, "return", ".0f"))


if __name__ == "__main__":
    main()
