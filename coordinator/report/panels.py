"""What the report draws, as numbers: curves with their bands, what returns cost, and what links carried.

Theory of operation. Panels are computed once and drawn by others: as SVG in the page (`charts`, and the page's script), as
files for a paper (`figures`), and as rows of its tables. So the three can never differ. A panel holds the cells that differ in
κ only. A cell's curve is the interquartile mean of its runs at up to `POINTS` of the places where any of them learnt something
new, with its 95 % interval at each. Return and cost are given against every axis of `X`: what was known by so many steps,
bytes, virtual seconds or seconds of wall time.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from coordinator.report import maps
from coordinator.report.charts import Line, Point, rounded_up
from coordinator.study.comparison import Comparison, compare_runs, complete, grouped, world_of
from coordinator.study.runs import Cell, Curve, Judged, Run, Traffic, cells, find, judged_by
from coordinator.study.statistics import curve_interval, interquartile_mean, known_at
from topology.deployment import Deployment

POINTS = 100  # of a curve, at most
STRETCHES = 20  # of a run, between which a map can be switched, at most
MAPS = 12  # on a page; where there are more cells, those that the answers name are drawn

X = Literal["steps", "bytes", "virtual", "wall", "rounds", "age"]
X_TITLES: dict[X, str] = {
    "steps": "environment steps",
    "bytes": "wire bytes between agents",
    "virtual": "virtual seconds",
    "wall": "seconds of wall time",
    "rounds": "round",
    "age": "mean age in ms",
}
_POSITIONS: dict[X, Callable[[Curve], NDArray[np.float64]]] = {
    "steps": lambda curve: curve.env_step,
    "bytes": lambda curve: curve.wire_bytes,
    "virtual": lambda curve: curve.virtual_s,
    "wall": lambda curve: curve.wall_s,
}

Array = NDArray[np.float64]
Styles = Mapping[str, int]  # number of colour, dash and mark by the label of a cell


@dataclass(frozen=True, slots=True)
class Curves:
    """A panel of curves.

    Attributes:
        heading: What its cells have in common; "" if nothing was varied besides κ.
        y_title: What the values are.
        over: The curves by what they are drawn against; the first is what a page begins with. Never without a point.
        limit: What values should stay below; None: nothing.
        optimum: The best that a team can be expected to reach; None: not known.
    """

    heading: str
    y_title: str
    over: Mapping[X, Sequence[Line]]
    limit: float | None = None
    optimum: float | None = None

    def title(self, x: X) -> str:
        """What is shown, in words."""
        return f"{self.y_title} against {X_TITLES[x]}" + (f", {self.heading}" if self.heading else "")


@dataclass(frozen=True, slots=True)
class Prices:
    """A panel of marks: what cells bring against what they cost.

    Attributes:
        heading: What its cells have in common; "" if nothing was varied besides κ.
        points: One per cell, at least one.
    """

    heading: str
    points: Sequence[Point]

    x_title = "wire bytes per agent and step"
    y_title = "return of an episode"

    @property
    def title(self) -> str:
        """What is shown, in words."""
        return f"return against bytes, {self.heading}" if self.heading else "return against bytes"

    @property
    def marks(self) -> list[Line]:
        """The points as curves of one point."""
        return [
            Line(one.style, one.name, *(np.array([value]) for value in (one.x, one.y, one.low, one.high))) for one in self.points
        ]


@dataclass(frozen=True, slots=True)
class Section:
    """Panels of the same thing, one per group of cells, and words about them.

    Attributes:
        key: A short name of its own.
        heading: What stands above them.
        words: What is to be known of them.
        panels: At least one.
    """

    key: str
    heading: str
    words: str
    panels: Sequence[Curves | Prices]


@dataclass(frozen=True, slots=True)
class Carried:
    """What the links of a cell carried.

    Attributes:
        cell: The cell.
        graph: Its graph.
        links: By directed link, wire bytes per round in each stretch of the run, mean over runs, shape (stretches,).
        edges: First round of each stretch, and the end of the last, shape (stretches + 1,).
        runs: Over how many runs the mean is: those of one graph and one length.
    """

    cell: Cell
    graph: nx.Graph
    links: dict[tuple[int, int], Array]
    edges: NDArray[np.int64]
    runs: int


@dataclass(frozen=True, slots=True)
class Material:
    """What there is to show of some runs.

    Attributes:
        of: The cells, as far as they have come to a return; if none has, all there are.
        found: How they compare; None: none has come to a return.
        diverged: Runs that diverged.
        traffic: What the runs of `of` sent, by folder, all in equally many stretches.
        styles: Number of colour, dash and mark by the label of a cell.
    """

    of: Sequence[Cell]
    found: Comparison | None
    diverged: Sequence[Run]
    traffic: Mapping[Path, Traffic]
    styles: Styles


def gathered(places: Sequence[Path], *, training: bool = False) -> Material:
    """Read the runs of some folders: the complete ones, or if there are none, those that go on as far as they have come.

    Args:
        places: Runs, sweeps, or folders of such.
        training: Whether runs are judged by the episodes of their training, even if they have evaluations.

    Raises:
        ScenarioError: there is no run in one of the places, or one cannot be read.
    """
    runs = find(places)
    whole = complete(runs, training=training)
    diverged = [run for run in runs if run.diverged]
    going_on = [run for run in runs if not run.is_complete and not run.diverged]
    under_way = [run for run in going_on if run.is_judged(judged_by(going_on, training=training))]
    told = whole or under_way
    left_out = [run.folder for run in runs if run not in told and run not in diverged]
    found = compare_runs(told, left_out=left_out, diverged=diverged, training=training) if told else None
    of = [row.cell for row in found.rows] if found else cells(runs)
    parts = min([STRETCHES, *(len(run.curve.env_step) for cell in of for run in cell.runs)])
    traffic = {run.folder: run.traffic(parts) for cell in of for run in cell.runs}
    styles = {name: style for style, name in enumerate(dict.fromkeys(label(cell) for cell in of))}
    return Material(of, found, diverged, traffic, styles)


def sections(material: Material) -> list[Section]:
    """Everything that is drawn against axes, in the order of the page."""
    of, found, styles = material.of, material.found, material.styles
    drawn = [*learning(of, styles), *ages(of, styles)]
    if found is None:
        return drawn
    priced = prices(found, styles)
    return [
        *([Section("prices", "What a return costs on the links", "", priced)] if priced else []),
        *courses(found, styles),
        *drawn,
        *(violations(found, styles) if found.ages_differ else []),
    ]


def label(cell: Cell) -> str:
    """What a cell is called among those that differ in κ only."""
    return f"κ={cell.settings['kappa']}" if "kappa" in cell.settings else cell.name


def prices(found: Comparison, styles: Styles) -> list[Prices]:
    """What a return costs on the links; nothing of a single cell."""
    if len(found.rows) == 1:
        return []
    return [
        Prices(
            group,
            [
                Point(
                    style=styles[label(row.cell)],
                    name=label(row.cell),
                    x=row.bytes_per_agent_step,
                    y=row.iqm,
                    low=row.interval.low,
                    high=row.interval.high,
                    hollow=row.exceeds,
                )
                for row in rows
            ],
        )
        for group, rows in grouped(found.rows).items()
    ]


def courses(found: Comparison, styles: Styles) -> Iterator[Section]:
    """Return and, where there is any, cost while learning."""
    several = max(len(row.ret) for row in found.rows) > 1
    seeds = "; interquartile mean over seeds, with its 95 % interval at each point." if several else "."
    ends = " Where a curve ends is the return that the answers and the tables speak of."
    if found.knows_optimum:
        ends += " The dotted line is the best return that a team can be expected to reach, with the largest κ of the figure."
    trained = "Mean over the training episodes that ended in the last tenth of the steps so far, or where none did, just before"
    if found.judged == "evaluated":
        how = f"Mean over the episodes of the latest evaluation, {found.how.removeprefix('evaluated ')}{seeds}{ends}"
    else:
        how = f"{trained}, exploration included{seeds}{ends}"
    yield Section("return", "Return while learning", how, list(_courses(found, found.judged, styles, "return")))
    if found.has_costs:
        unlimited = all(row.cost_limit is None for row in found.rows)
        limits = "" if unlimited else " The dashed line is the limit; below it is allowed."
        costs = list(_courses(found, found.judged, styles, "cost"))
        yield Section("cost", "Cost while learning", f"The same of costs.{limits}", costs)
    if found.judged == "evaluated" and all(run.deployment.learns for row in found.rows for run in row.cell.runs):
        words = f"{trained}{seeds} These episodes pay for exploration, so they say little of which team is better."
        if panels := list(_courses(found, "training", styles, "return")):
            yield Section("training-return", "Return in training", words, panels)


def _courses(found: Comparison, judged: Judged, styles: Styles, what: Literal["return", "cost"]) -> Iterator[Curves]:
    of_training = judged == "training" and found.judged != "training"
    y_title = f"{what} of {'a training' if of_training else 'an'} episode"
    for group, rows in grouped(found.rows).items():
        of = [(row.cell, [run.course(judged) for run in row.cell.runs]) for row in rows]
        over: dict[X, list[Line]] = {}
        for x, positions in _POSITIONS.items():
            if any(positions(curve).any() for _, curves in of for curve in curves):
                lines = [
                    _line(cell, styles, [(positions(one), one.ret if what == "return" else one.cost) for one in curves])
                    for cell, curves in of
                ]
                if not any(np.isfinite(line.y).any() for line in lines):  # no episode of the training has ended
                    continue
                known = found.baselines.get(world_of(found.rows, rows[0]), {})
                levels = {name: one.ret if what == "return" else one.cost for name, one in known.items()}
                over[x] = [*lines, *_levels(levels, lines, first_style=len(styles))]
        best = max((row.optimum for row in rows if row.optimum is not None), default=None)
        limit = next((row.cost_limit for row in rows), None)
        if over:
            yield Curves(group, y_title, over, limit if what == "cost" else None, best if what == "return" else None)


def _levels(levels: Mapping[str, float], lines: Sequence[Line], *, first_style: int) -> list[Line]:
    """What does not change, such as a baseline, as a line as long as the longest of some."""
    ends = np.array([0.0, max(float(line.x[-1]) for line in lines)])
    none = np.full(2, np.nan)
    return [
        Line(first_style + place, f"baseline {name}", ends, np.full(2, level), none, none)
        for place, (name, level) in enumerate(levels.items())
    ]


def _line(cell: Cell, styles: Styles, known: Sequence[tuple[Array, Array]]) -> Line:
    """What a cell's runs knew, at up to `POINTS` of the places where any of them learnt something new."""
    every = np.unique(np.concatenate([positions for positions, _ in known]))
    asked = every[np.unique(np.linspace(0, len(every) - 1, min(POINTS, len(every))).round().astype(np.int64))]
    at = np.stack([known_at(positions, values, asked) for positions, values in known])
    low, high = curve_interval(at, np.random.default_rng(0))
    return Line(styles[label(cell)], label(cell), asked, interquartile_mean(at.T[..., None]), low, high)


def learning(of: Sequence[Cell], styles: Styles) -> Iterator[Section]:
    """How agents learn, against environment steps: a section per metric that any run has recorded."""
    costs = range(max(len(run.deployment.cost_limits) for cell in of for run in cell.runs))
    which = {u: f" of cost {u}" if len(costs) > 1 else "" for u in costs}
    gaps = _gaps(of)
    price = "what a unit of a cost's scaled advantage counts against one of the reward's"
    metrics = [
        *((f"multiplier_{u}", f"Multiplier{which[u]}", price) for u in costs),
        ("kl", "KL divergence", "of the policy before a round's update to the one after it, in nats"),
        ("std", "Spread", "standard deviation of an action, in action units"),
        *(
            (
                f"disagreement_{network}",
                f"Disagreement of {plural}",
                f"distance of an agent's weights from the mean over agents{gaps}",
            )
            for network, plural in (("policy", "policies"), ("critic", "critics"))
        ),
        ("value_loss", "Loss of the value critic", "mean over the minibatches of a round"),
        *((f"cost_value_loss_{u}", f"Loss of the cost critic{which[u]}", "the same") for u in costs),
    ]
    for metric, heading, words in metrics:
        panels = _panels(of, styles, _lowered(heading), "steps", partial(Run.learning, metric=metric))
        if panels:
            yield Section(metric, heading, f"Mean over agents: {words}.", panels)
    panels = _panels(of, styles, "steps per second", "steps", partial(Run.rates, stretches=STRETCHES))
    if panels:
        yield Section("rate", "Steps per second", "Environment steps per second of wall time, over all copies.", panels)


def _gaps(of: Sequence[Cell]) -> str:
    """Spectral gaps of the matrices by which neighbours average, as the end of a sentence; "" where none do."""
    found: dict[str, list[str]] = {}
    for cell in of:
        for gap in {run.metrics.get("spectral_gap") for run in cell.runs} - {None}:
            found.setdefault(f"{gap:.3g}", []).append(label(cell))
    each = [gap if len(found) == 1 else f"{gap} ({', '.join(dict.fromkeys(names))})" for gap, names in found.items()]
    return f"; spectral gap of the mixing matrix {', '.join(each)}" if each else ""


def ages(of: Sequence[Cell], styles: Styles) -> list[Section]:
    """Mean age of what was acted on, in groups in which agents received states; nothing where all is of the moment."""
    panels = _panels(of, styles, "mean age in ms", "rounds", _ages_ms)
    if not any(line.y.any() for panel in panels for line in panel.over["rounds"]):
        return []
    words = "How old the states of others were that agents acted on, mean over agents, steps and copies."
    return [Section("ages", "Age of information", words, panels)]


def _lowered(heading: str) -> str:
    return heading if heading[:2].isupper() else heading[0].lower() + heading[1:]


def _ages_ms(run: Run) -> tuple[Array, Array]:
    rounds, ages_s = run.ages(POINTS)
    return rounds, 1000 * ages_s


def _panels(of: Sequence[Cell], styles: Styles, y_title: str, x: X, course: Callable[[Run], tuple[Array, Array]]) -> list[Curves]:
    """A panel per group, of the cells all of whose runs have such a course."""
    groups: dict[str, list[Line]] = {}
    for cell in of:
        known = [course(run) for run in cell.runs]
        if all(len(values) for _, values in known):
            groups.setdefault(cell.group if "kappa" in cell.settings else "", []).append(_line(cell, styles, known))
    return [Curves(group, y_title, {x: lines}) for group, lines in groups.items()]


def violations(found: Comparison, styles: Styles) -> list[Section]:
    """Share of episodes above the cost limit against age, in groups that have such episodes."""
    panels = []
    for group, rows in grouped(found.rows).items():
        lines = [
            Line(
                styles[label(row.cell)],
                label(row.cell),
                np.array([1000 * one.age_s for one in row.violations]),
                *(100 * np.array(values) for values in zip(*((one.rate, *one.interval) for one in row.violations), strict=True)),
            )
            for row in rows
            if row.violations
        ]
        if lines:
            panels.append(Curves(group, "episodes above the limit in %", {"age": lines}))
    words = (
        "Share of the episodes that cost more than their limit, against the mean age of the states of others that agents acted "
        "on in the rounds of the episode. All episodes count, those before anything was learnt too. They are sorted by age into "
        "at most four bins that hold about as many each; a bin's share is the mean over seeds, with its 95 % interval by "
        "Student's t. What makes information old may raise costs by itself, so this shows what goes together, not what causes "
        "what."
    )
    return [Section("violations", "Limits broken, and how old information was", words, panels)] if panels else []


def carried(of: Sequence[Cell], found: Comparison | None, traffic: Mapping[Path, Traffic]) -> list[Carried]:
    """What links carried, in every cell; of more than `MAPS` of them in those that the answers name."""
    chosen = list(of)
    if len(of) > MAPS:
        named = [row.cell for answer in found.answers for row in (answer.best, answer.frugal)] if found else []
        chosen = [cell for cell in of if any(cell is one for one in named)][:MAPS]
    pictures = []
    for cell in chosen:
        deployments = {run.folder: Deployment.read(run.folder) for run in cell.runs}
        first = cell.runs[0].folder
        alike = [
            traffic[run.folder]
            for run in cell.runs
            if deployments[run.folder].edges == deployments[first].edges
            and np.array_equal(traffic[run.folder].edges, traffic[first].edges)
        ]
        keys = sorted({key for one in alike for key in one.links})
        unused = np.zeros(len(alike[0].edges) - 1)
        links = {key: np.mean([one.links.get(key, unused) for one in alike], axis=0) for key in keys}
        pictures.append(Carried(cell, deployments[first].graph(), links, alike[0].edges, len(alike)))
    return pictures


def level_step(pictures: Sequence[Carried]) -> float:
    """How many bytes per round one level of width and colour is, alike in all maps; 0 if nothing was sent."""
    most = max((float(rates.max(initial=0.0)) for one in pictures for rates in one.links.values()), default=0.0)
    return rounded_up(most / maps.LEVELS) if most else 0.0
