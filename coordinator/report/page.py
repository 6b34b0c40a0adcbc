"""The report of some runs as one page of HTML: what they say first, then figures, then tables, then how to repeat them.

Theory of operation. Everything on the page follows from the runs' folders, read as `kappahop compare` reads them: complete
runs only, cell by cell. If none is complete, those that have ended an episode are shown as far as they have come, and the
page says so; so the page of a run that goes on is the page of a run, only earlier. Numbers are those of the tables of
`kappahop compare`; curves are the same means, asked at up to `POINTS` places.

The page holds all that it needs. Its policy lets it load nothing, run only the one script that comes with it (known by its
digest) and, while it is live, ask only the server that it came from. What comes from runs is escaped by the template.
"""

import base64
import hashlib
import json
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray

from coordinator.cli.progress import size
from coordinator.report import charts, maps, tables
from coordinator.run.collector import spoken
from coordinator.run.database import Results
from coordinator.run.plan import MANIFEST_FILE
from coordinator.study.comparison import Answer, Comparison, Row, compare_runs, complete, grouped
from coordinator.study.runs import Cell, Curve, Judged, Run, Traffic, cells, find, judged_by
from coordinator.study.statistics import curve_interval, interquartile_mean, known_at
from coordinator.study.sweep import MANIFEST_FILE as SWEEP_FILE
from coordinator.study.sweep import read_manifest
from scenarios.loading import ScenarioError
from topology.deployment import SCENARIO_FILE, Deployment
from topology.files import read_json, replace
from topology.wire.ledger import REASONS

POINTS = 100  # of a curve, at most
STRETCHES = 20  # of a run, between which a map can be switched, at most
MAPS = 12  # on a page; where there are more cells, those that the answers name are drawn
_GLOSS = {
    "loss": "lost on the way",
    "queue": "refused by a full queue",
    "outage": "sent while the link was down",
    "crash": "sent to a node that was down",
    "gave_up": "retransmitted as often as allowed, in vain",
    "late": "too late to be of use to anybody",
}

Array = NDArray[np.float64]


def write(places: Sequence[Path], out: Path, *, training: bool = False) -> None:
    """Write the page; an old file is replaced at once or not at all.

    Args:
        places: Runs, sweeps, or folders of such.
        out: The file.
        training: Whether runs are judged by the episodes of their training, even if they have evaluations.

    Raises:
        ScenarioError: there is no run in one of the places, one cannot be read, or the file cannot be written.
    """
    text = document(places, training=training)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        replace(out, text.encode())
    except OSError as error:
        raise ScenarioError(f"--out: cannot write {out} ({error.strerror or error})") from None


def document(places: Sequence[Path], *, live: bool = False, training: bool = False) -> str:
    """The whole page.

    Args:
        places: Runs, sweeps, or folders of such.
        live: Whether the page shall keep asking its server for its newest content.
        training: Whether runs are judged by the episodes of their training, even if they have evaluations.

    Raises:
        ScenarioError: there is no run in one of them, or one cannot be read.
    """
    return _whole(_content(places, training=training), live=live)


def fragment(places: Sequence[Path]) -> str:
    """What of the page changes while runs go on.

    Raises:
        ScenarioError: there is no run in one of the places, or one cannot be read.
    """
    return _changing(_content(places))


def both(places: Sequence[Path]) -> tuple[str, str]:
    """The whole live page, and what of it changes, from one reading of the runs.

    Raises:
        ScenarioError: there is no run in one of the places, or one cannot be read.
    """
    content = _content(places)
    return _whole(content, live=True), _changing(content)


def _whole(content: dict[str, Any], *, live: bool) -> str:
    style, script = (
        files("coordinator.report").joinpath("templates", name).read_text(encoding="utf-8") for name in ("page.css", "page.js")
    )
    return (
        _templates()
        .get_template("page.html")
        .render(**content, style=Markup(style), script=Markup(script), policy=_policy(style, script, live=live), live=live)
    )


def _changing(content: dict[str, Any]) -> str:
    return _templates().get_template("content.html").render(**content)


@lru_cache(maxsize=1)
def _templates() -> Environment:
    return Environment(
        loader=PackageLoader("coordinator.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _policy(style: str, script: str, *, live: bool) -> str:
    def digest(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    asks = "'self'" if live else "'none'"
    return (
        f"default-src 'none'; style-src {digest(style)}; script-src {digest(script)}; connect-src {asks}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _content(places: Sequence[Path], *, training: bool = False) -> dict[str, Any]:
    runs = find(places)
    whole = complete(runs, training=training)
    diverged = [run for run in runs if run.diverged]
    going_on = [run for run in runs if not run.is_complete and not run.diverged]
    under_way = [run for run in going_on if run.is_judged(judged_by(going_on, training=training))]
    told = whole or under_way
    left_out = [run.folder for run in runs if run not in told and run not in diverged]
    found = compare_runs(told, left_out=left_out, diverged=diverged, training=training) if told else None
    of = [row.cell for row in found.rows] if found else cells(runs)
    styles = {name: style for style, name in enumerate(dict.fromkeys(_label(cell) for cell in of))}
    parts = min([STRETCHES, *(len(run.curve.env_step) for cell in of for run in cell.runs)])
    carried = {run.folder: run.traffic(parts) for cell in of for run in cell.runs}
    return {
        "title": _title(of),
        "description": _description([run for cell in of for run in cell.runs]),
        "under_way": _under_way([run for cell in of for run in cell.runs]),
        "left_out": [str(folder) for folder in found.left_out] if found else [],
        "answers": [
            *(tables.unevaluated(found) if found else []),
            *(_answers(found) if found else []),
            *_divergences(found, diverged),
        ],
        "judged": tables.JUDGED[found.judged] if found else "",
        "matrix": _matrix(found) if found else None,
        "overall": found is not None and found.overall is not None,
        "limited": found is not None and any(row.cost_limit is not None for row in found.rows),
        "prices": _prices(found, styles) if found else [],
        "courses": list(_courses(found, styles)) if found else [],
        "learning": list(_learning(of, styles)),
        "maps": _maps(of, found, carried),
        "ages": list(_ages(of, styles)),
        "violations": _violations(found, styles) if found and found.ages_differ else None,
        "drops": _drops(of, carried),
        "glosses": _GLOSS,
        "table": _table(found, styles) if found else None,
        "cells": [_details(cell) for cell in of],
        "commands": _commands(places, [run for cell in of for run in cell.runs]),
        "scenario": (of[0].runs[0].folder / SCENARIO_FILE).read_text(encoding="utf-8"),
        "versions": _versions(of[0].runs[0]),
        "sample": charts.sample,
    }


def _title(of: Sequence[Cell]) -> str:
    names = " and ".join(dict.fromkeys(run.scenario.name for cell in of for run in cell.runs))
    n_runs = sum(len(cell.runs) for cell in of)
    if n_runs == 1:
        return f"{names}, seed {of[0].runs[0].scenario.seed}"
    return f"{names}: {_counted(len(of), 'cell')}, {n_runs} runs" if len(of) > 1 else f"{names}: {n_runs} runs"


def _description(runs: Sequence[Run]) -> str:
    """What all the runs are said to be, if the same is said of all."""
    said = {run.scenario.description for run in runs}
    return said.pop() if len(said) == 1 else ""


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _under_way(runs: Sequence[Run]) -> dict[str, int] | None:
    if all(run.is_complete or run.diverged for run in runs):
        return None
    return {"done": sum(run.steps_done for run in runs), "planned": sum(run.planned_steps for run in runs)}


def _label(cell: Cell) -> str:
    return f"κ={cell.knobs['kappa']}" if "kappa" in cell.knobs else cell.name


# ------------------------------------------------------------------ what it says


def _answers(found: Comparison) -> list[str]:
    if len(found.rows) > 1:
        sentences = tables.answers(found)
        return sentences if found.overall is None else [sentences[-1], *sentences[:-1]]  # on a page what matters most comes first
    (row,) = found.rows
    told = f"Return {tables.figure(row.iqm)}, {tables.JUDGED[found.judged]}"
    if len(row.ret) > 1:
        told += f", 95 % interval {tables.interval(row.interval)} over {len(row.ret)} seeds"
    verdicts = [words for run in row.cell.runs for words in _limits(run, several=len(row.cell.runs) > 1)]
    if row.cost_limit is not None:
        told += f"; cost {tables.figure(row.cost)}, limit {row.cost_limit:g}"
        told += "" if verdicts else f": {'exceeded' if row.exceeds else 'kept'}"
    told += f"; {row.bytes_per_agent_step:.1f} B per agent and step between agents"
    return [told, *verdicts]


def _limits(run: Run, *, several: bool) -> Iterator[str]:
    """What became of each limit of a run."""
    for verdict in run.figures.get("limits") or ():
        text = verdict["text"]
        yield f"Seed {run.scenario.seed}: {text}" if several else text[0].upper() + text[1:]


def _divergences(found: Comparison | None, diverged: Sequence[Run]) -> list[str]:
    if found is not None:
        return tables.divergences(found)
    return [f"Seed {run.scenario.seed}: {spoken(run.diverged[0])}." for run in diverged]


def _matrix(found: Comparison) -> dict[str, Any] | None:
    """Groups by κ, where both vary or κ does: what each brings and costs, the best and the frugal marked."""
    kappas = sorted({row.cell.knobs["kappa"] for row in found.rows if "kappa" in row.cell.knobs})
    if not kappas:
        return None
    lines = []
    for answer, (group, rows) in zip(found.answers, grouped(found.rows).items(), strict=True):
        by_kappa = {row.cell.knobs["kappa"]: row for row in rows}
        entries = [
            {
                "ret": tables.figure(row.iqm),
                "bytes": f"{row.bytes_per_agent_step:.1f} B",
                "cost": None if row.cost_limit is None else tables.figure(row.cost),
                "exceeds": row.exceeds,
                "best": row is answer.best,
                "frugal": row is answer.frugal,
                "verdicts": _verdicts(row, answer, found.overall),
            }
            if (row := by_kappa.get(kappa))
            else None
            for kappa in kappas
        ]
        lines.append({"group": group or found.rows[0].cell.runs[0].scenario.name, "entries": entries})
    return {"kappas": kappas, "lines": lines}


def _verdicts(row: Row, answer: Answer, overall: Answer | None) -> list[str]:
    told = [] if row is not answer.best else ["best of all" if overall is not None and row is overall.best else "best"]
    if overall is not None and row is overall.frugal:
        return [*told, "worth its bytes among all"]
    return [*told, "worth its bytes"] if row is answer.frugal else told


# ------------------------------------------------------------------ figures


@dataclass(frozen=True, slots=True)
class _Figure:
    """A chart with its heading and the legend of what is in it."""

    heading: str
    chart: Markup
    legend: list[tuple[int, str]]


@dataclass(frozen=True, slots=True)
class _Section:
    """Charts of the same thing, one per group, and words about them."""

    heading: str
    words: str
    figures: list[_Figure]


def _prices(found: Comparison, styles: dict[str, int]) -> list[_Figure]:
    if len(found.rows) == 1:
        return []
    figures = []
    for group, rows in grouped(found.rows).items():
        points = [
            charts.Point(
                style=styles[_label(row.cell)],
                name=_label(row.cell),
                x=row.bytes_per_agent_step,
                y=row.iqm,
                low=row.interval.low,
                high=row.interval.high,
                hollow=row.exceeds,
            )
            for row in rows
        ]
        chart = charts.prices(
            points,
            title=f"return against bytes, {group}" if group else "return against bytes",
            x_title="wire bytes per agent and step",
            y_title="return of an episode",
        )
        figures.append(_Figure(group, chart, _legend(points)))
    return figures


def _courses(found: Comparison, styles: dict[str, int]) -> Iterator[_Section]:
    several = max(len(row.ret) for row in found.rows) > 1
    seeds = "; interquartile mean over seeds, with its 95 % interval at each point." if several else "."
    ends = " Where a curve ends is the return that the answers and the tables speak of."
    if found.knows_optimum:
        ends += " The dotted line is the best return that a team can be expected to reach, with the largest κ of the figure."
    trained = "Mean over the training episodes that ended in the last tenth of the steps so far, or where none did, just before"
    if found.judged == "evaluated":
        how = f"Mean over the episodes of the latest evaluation, without exploration{seeds}{ends}"
    else:
        how = f"{trained}, exploration included{seeds}{ends}"
    yield _Section(
        "Return while learning",
        how,
        list(_curves(found, found.judged, styles, lambda course: course.ret, "return of an episode", limited=False)),
    )
    if any(row.cost_limit is not None or row.cost for row in found.rows):
        limits = (
            "" if all(row.cost_limit is None for row in found.rows) else " The dashed line is the limit; below it is allowed."
        )
        yield _Section(
            "Cost while learning",
            f"The same of costs.{limits}",
            list(_curves(found, found.judged, styles, lambda course: course.cost, "cost of an episode", limited=True)),
        )
    if found.judged == "evaluated" and all(run.deployment.learns for row in found.rows for run in row.cell.runs):
        yield _Section(
            "Return in training",
            f"{trained}{seeds} These episodes pay for exploration, so they say little of which team is better.",
            list(_curves(found, "training", styles, lambda course: course.ret, "return of a training episode", limited=False)),
        )


def _curves(
    found: Comparison,
    judged: Judged,
    styles: dict[str, int],
    values: Callable[[Curve], Array],
    y_title: str,
    *,
    limited: bool,
) -> Iterator[_Figure]:
    for group, rows in grouped(found.rows).items():
        lines = []
        for row in rows:
            courses = [run.course(judged) for run in row.cell.runs]
            lines.append(_line(row.cell, styles, [(course.env_step, values(course)) for course in courses]))
        best = max((row.optimum for row in rows if row.optimum is not None), default=None)
        limit = next((row.cost_limit for row in rows), None) if limited else None
        title = f"{y_title} against environment steps" + (f", {group}" if group else "")
        chart = charts.curves(
            lines, title=title, x_title="environment steps", y_title=y_title, limit=limit, optimum=None if limited else best
        )
        yield _Figure(group, chart, _legend(lines))


def _line(cell: Cell, styles: dict[str, int], courses: Sequence[tuple[Array, Array]]) -> charts.Line:
    """What a cell's runs knew, at up to `POINTS` of the places where any of them learnt something new."""
    every = np.unique(np.concatenate([positions for positions, _ in courses]))
    asked = every[np.unique(np.linspace(0, len(every) - 1, min(POINTS, len(every))).round().astype(np.int64))]
    known = np.stack([known_at(positions, values, asked) for positions, values in courses])
    low, high = curve_interval(known, np.random.default_rng(0))
    return charts.Line(styles[_label(cell)], _label(cell), asked, interquartile_mean(known.T[..., None]), low, high)


def _learning(of: Sequence[Cell], styles: dict[str, int]) -> Iterator[_Section]:
    """How agents learn, against environment steps: a section per metric that any run has recorded."""
    costs = range(max(len(run.deployment.cost_limits) for cell in of for run in cell.runs))
    which = {u: f" of cost {u}" if len(costs) > 1 else "" for u in costs}
    price = "what a unit of a cost's scaled advantage counts against one of the reward's"
    metrics = [
        *((f"multiplier_{u}", f"Multiplier{which[u]}", price) for u in costs),
        ("kl", "KL divergence", "of the policy before a round's update to the one after it, in nats"),
        ("std", "Spread", "standard deviation of an action, in action units"),
        ("value_loss", "Loss of the value critic", "mean over the minibatches of a round"),
        *((f"cost_value_loss_{u}", f"Loss of the cost critic{which[u]}", "the same") for u in costs),
    ]
    for metric, heading, words in metrics:
        figures = list(_learning_figures(of, styles, heading, partial(Run.learning, metric=metric)))
        if figures:
            yield _Section(heading, f"Mean over agents: {words}.", figures)
    figures = list(_learning_figures(of, styles, "Steps per second", partial(Run.rates, stretches=STRETCHES)))
    if figures:
        yield _Section("Steps per second", "Environment steps per second of wall time, over all copies.", figures)


def _learning_figures(
    of: Sequence[Cell], styles: dict[str, int], y_title: str, course: Callable[[Run], tuple[Array, Array]]
) -> Iterator[_Figure]:
    groups: dict[str, list[charts.Line]] = {}
    for cell in of:
        courses = [course(run) for run in cell.runs]
        if all(len(values) for _, values in courses):
            groups.setdefault(_group(cell), []).append(_line(cell, styles, courses))
    for group, lines in groups.items():
        title = f"{y_title.lower()} against environment steps" + (f", {group}" if group else "")
        yield _Figure(
            group, charts.curves(lines, title=title, x_title="environment steps", y_title=y_title.lower()), _legend(lines)
        )


def _group(cell: Cell) -> str:
    """Of cells that differ in κ, what else they differ in: those alike share a figure."""
    return cell.group if "kappa" in cell.knobs else ""


def _ages(of: Sequence[Cell], styles: dict[str, int]) -> Iterator[_Figure]:
    """Mean age of what was acted on, against rounds: one figure per group in which agents heard of each other."""
    groups: dict[str, list[charts.Line]] = {}
    for cell in of:
        courses = [run.ages(POINTS) for run in cell.runs]
        if all(len(ages) for _, ages in courses):
            line = _line(cell, styles, [(rounds, 1000 * ages) for rounds, ages in courses])
            groups.setdefault(_group(cell), []).append(line)
    if not any(line.y.any() for lines in groups.values() for line in lines):
        return
    for group, lines in groups.items():
        title = "mean age of information against rounds" + (f", {group}" if group else "")
        yield _Figure(group, charts.curves(lines, title=title, x_title="round", y_title="mean age in ms"), _legend(lines))


def _violations(found: Comparison, styles: dict[str, int]) -> dict[str, Any]:
    """Share of episodes above the cost limit against age: one figure per group that has such episodes, and a table."""
    figures = []
    for group, rows in grouped(found.rows).items():
        lines = [
            charts.Line(
                styles[_label(row.cell)],
                _label(row.cell),
                np.array([1000 * one.age_s for one in row.violations]),
                *(100 * np.array(values) for values in zip(*((one.rate, *one.interval) for one in row.violations), strict=True)),
            )
            for row in rows
            if row.violations
        ]
        if lines:
            title = "episodes above the cost limit against age of information" + (f", {group}" if group else "")
            chart = charts.curves(lines, title=title, x_title="mean age in ms", y_title="episodes above the limit in %")
            figures.append(_Figure(group, chart, _legend(lines)))
    return {
        "figures": figures,
        "lines": [{"name": row.cell.name, "words": tables.violation_words(one)} for row in found.rows for one in row.violations],
    }


def _legend(drawn: Sequence[charts.Line | charts.Point]) -> list[tuple[int, str]]:
    return [(one.style, one.name) for one in drawn]


def _maps(of: Sequence[Cell], found: Comparison | None, carried: dict[Path, Traffic]) -> dict[str, Any]:
    chosen = list(of)
    if len(of) > MAPS:
        named = [row.cell for answer in found.answers for row in (answer.best, answer.frugal)] if found else []
        chosen = [cell for cell in of if any(cell is one for one in named)][:MAPS]
    pictures = []
    for cell in chosen:
        deployments = {run.folder: Deployment.read(run.folder) for run in cell.runs}
        first = cell.runs[0].folder
        alike = [
            carried[run.folder]
            for run in cell.runs
            if deployments[run.folder].edges == deployments[first].edges
            and np.array_equal(carried[run.folder].edges, carried[first].edges)
        ]
        keys = sorted({key for one in alike for key in one.links})
        unused = np.zeros(len(alike[0].edges) - 1)
        links = {key: np.mean([one.links.get(key, unused) for one in alike], axis=0) for key in keys}
        pictures.append((cell, deployments[first].graph(), links, alike[0].edges, len(alike)))
    most = max((float(rates.max(initial=0.0)) for _, _, links, _, _ in pictures for rates in links.values()), default=0.0)
    step = charts.rounded_up(most / maps.LEVELS) if most else 0.0
    top = maps.LEVELS * step
    drawn = []
    for cell, graph, links, edges, n_runs in pictures:
        title = f"{cell.name}: links by bytes per round"
        drawn.append({"name": cell.name, "picture": maps.traffic_map(graph, links, np.diff(edges), top, title), "runs": n_runs})
    return {
        "drawn": drawn,
        "levels": [f"up to {size(level * step)}" for level in range(1, maps.LEVELS + 1)] if most else [],
        "stretches": json.dumps(["whole run", *_stretches([edges for *_, edges, _ in pictures])], ensure_ascii=False),
        "n_stretches": len(pictures[0][3]) - 1,
        "left_out": len(of) - len(chosen),
    }


def _stretches(edges: Sequence[NDArray[np.int64]]) -> list[str]:
    """What the stretches of the maps are called: by rounds, or by parts of the run where runs are not equally long."""
    first = edges[0]
    if all(np.array_equal(one, first) for one in edges):
        return [f"rounds {a + 1}–{b}" if b > a + 1 else f"round {b}" for a, b in pairwise(first)]
    parts = len(first) - 1
    return [f"{100 * part / parts:.0f}–{100 * (part + 1) / parts:.0f} % of each run" for part in range(parts)]


def _drops(of: Sequence[Cell], carried: dict[Path, Traffic]) -> list[dict[str, Any]]:
    """Messages that did not arrive, by cell and reason; nothing where all did."""
    lines: list[dict[str, Any]] = []
    for cell in of:
        ledgers = [carried[run.folder] for run in cell.runs]
        messages = sum(one.messages for one in ledgers)
        dropped = [sum(one.dropped[reason] for one in ledgers) for reason in REASONS]
        if messages:
            fracs = [100 * count / messages for count in dropped]
            starts = np.concatenate([[0.0], np.cumsum(fracs)])
            bars = [(place, float(starts[place]), frac) for place, frac in enumerate(fracs) if frac]
            lines.append({"name": cell.name, "messages": messages, "percent": sum(fracs), "fracs": fracs, "bars": bars})
    widest = max((line["percent"] for line in lines), default=0.0)
    return [{**line, "widest": widest} for line in lines] if widest else []


# ------------------------------------------------------------------ tables


def _table(found: Comparison, styles: dict[str, int]) -> dict[str, Any]:
    with_cost = any(row.cost_limit is not None or row.cost for row in found.rows)
    what = "return, cost" if with_cost else "return"
    headings = [
        "seeds",
        "return",
        "95 % interval",
        *(["best possible"] if found.knows_optimum else []),
        *(["progress"] if found.has_progress else []),
        "B per agent, step",
    ]
    headings += [f"{what} at {tables.amount(axis, found.positions[axis])}" for axis in found.uneven]
    headings += ["cost (limit)"] * with_cost
    lines = []
    for row in found.rows:
        words = [str(len(row.ret)), tables.figure(row.iqm), tables.interval(row.interval)]
        words += [tables.figure(row.optimum)] if found.knows_optimum else []
        words += [tables.figure(row.progress)] if found.has_progress else []
        words.append(f"{row.bytes_per_agent_step:.1f}")
        for axis in found.uneven:
            known = row.equal[axis]
            words.append(", ".join(tables.figure(value) for value in (known if with_cost else known[:1])))
        if with_cost:
            words.append(tables.figure(row.cost) + ("" if row.cost_limit is None else f" ({row.cost_limit:g})"))
        lines.append({"name": row.cell.name, "style": styles[_label(row.cell)], "words": words})
    for world, idle in found.idle.items():
        blank = ["–"] * (1 + found.knows_optimum + found.has_progress)
        words = ["–", tables.figure(idle.ret), *blank, "0.0", *["–"] * len(found.uneven)]
        words += [tables.figure(idle.cost)] if with_cost else []
        lines.append({"name": f"does nothing{f' ({world})' if world else ''}", "style": None, "words": words})
    return {"headings": headings, "lines": lines}


def _details(cell: Cell) -> dict[str, Any]:
    lines = []
    for run in cell.runs:
        figures, so_far, judged = run.figures, run.so_far, run.reached("evaluated")
        lines.append([
            str(run.scenario.seed),
            f"{run.steps_done:,}",
            *(tables.figure(one.get(name)) for one in (judged, so_far) for name in ("return_mean", "cost_mean")),
            _known(so_far.get("bytes_per_agent_step"), tables.figure),
            _known(figures.get("delivered_frac"), lambda frac: f"{100 * frac:.2f} %"),
            _known(figures.get("virtual_s"), lambda value: f"{value:,.4g} s"),
            _known(figures.get("wall_s"), lambda value: f"{value:,.1f} s"),
        ])
    results = Results(cell.runs[0].folder)
    traffic = [
        (row.plane, row.kind, f"{row.messages:,}", size(row.payload_bytes), size(row.wire_bytes)) for row in results.by_kind()
    ]
    results.close()
    return {"name": cell.name, "lines": lines, "traffic": traffic, "seed": cell.runs[0].scenario.seed}


def _known(value: float | None, words: Callable[[float], str]) -> str:
    return "–" if value is None else words(value)


# ------------------------------------------------------------------ how to repeat it


def _commands(places: Sequence[Path], runs: Sequence[Run]) -> list[str]:
    """Those that made the sweeps among the places; of runs that are in none, what runs their scenarios again."""
    sweeps = [place for place in places if (place / SWEEP_FILE).is_file()]
    told = [command for place in sweeps for command in read_manifest(place)["commands"]]
    alone = [run for run in runs if not any(run.folder.is_relative_to(place) for place in sweeps)]
    return told + [shlex.join(["kappahop", "run", str(run.folder / SCENARIO_FILE)]) for run in alone]


def _versions(run: Run) -> str:
    path = run.folder / MANIFEST_FILE
    if not path.is_file():
        return ""
    facts = read_json(path)
    try:
        packages = ", ".join(f"{name} {version}" for name, version in facts["packages"].items())
        commit = f", commit {facts['commit']}" if facts["commit"] else ""
        cores = _counted(facts["cores"], "core")
        return f"Python {facts['python']}, {packages}{commit}; {facts['system']} {facts['machine']}, {cores}"
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError):
        raise ScenarioError(f"{path}: cannot be read (it is not as a run writes it)") from None
