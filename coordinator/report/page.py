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
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray

from coordinator.records.database import Results
from coordinator.records.plan import MANIFEST_FILE
from coordinator.report import charts, maps, tables
from coordinator.report.panels import (
    X_TITLES,
    Carried,
    Curves,
    Prices,
    Section,
    Styles,
    ages,
    carried,
    courses,
    gathered,
    label,
    learning,
    level_step,
    prices,
    violations,
)
from coordinator.report.words import size
from coordinator.run.collector import spoken
from coordinator.study.comparison import Answer, Comparison, Row, grouped
from coordinator.study.runs import Cell, Run, Traffic
from coordinator.study.sweep import MANIFEST_FILE as SWEEP_FILE
from coordinator.study.sweep import read_manifest
from scenarios.loading import ScenarioError
from scenarios.plugins import allowance
from scenarios.registry import METRICS
from topology.deployment import SCENARIO_FILE
from topology.files import read_json, replace
from topology.wire.ledger import REASONS

_GLOSS = {
    "loss": "lost on the way",
    "queue": "refused by a full queue",
    "outage": "sent while the link was down",
    "crash": "sent to a node that was down",
    "gave_up": "retransmitted as often as allowed, without success",
    "late": "too late to be of use",
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
    style, *scripts = (
        files("coordinator.report").joinpath("templates", name).read_text(encoding="utf-8")
        for name in ("page.css", "charts.js", "page.js")
    )
    script = "".join(scripts)
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
    material = gathered(places, training=training)
    of, found, diverged, styles = material.of, material.found, material.diverged, material.styles
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
        "judged": found.how if found else "",
        "matrix": _matrix(found) if found else None,
        "overall": found is not None and found.overall is not None,
        "limited": found is not None and any(row.cost_limit is not None for row in found.rows),
        "prices": [_figure(panel) for panel in prices(found, styles)] if found else [],
        "courses": [_drawn(section) for section in courses(found, styles)] if found else [],
        "learning": [_drawn(section) for section in learning(of, styles)],
        "maps": _maps(of, carried(of, found, material.traffic)),
        "ages": [_drawn(section) for section in ages(of, styles)],
        "violations": [_drawn(section) for section in violations(found, styles)] if found and found.ages_differ else [],
        "violating": [(row.cell.name, tables.violation_words(one)) for row in found.rows for one in row.violations]
        if found
        else [],
        "drops": _drops(of, material.traffic),
        "glosses": _GLOSS,
        "table": _table(found, styles) if found else None,
        "cells": [_details(cell) for cell in of],
        "measured": METRICS.names(),
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


# ------------------------------------------------------------------ what it says


def _answers(found: Comparison) -> list[str]:
    if len(found.rows) > 1:
        sentences = tables.answers(found)
        return sentences if found.overall is None else [sentences[-1], *sentences[:-1]]  # on a page what matters most comes first
    (row,) = found.rows
    told = f"Return {tables.figure(row.iqm)}, {found.how}"
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
    for verdict in run.metrics.get("limits") or ():
        text = verdict["text"]
        yield f"Seed {run.scenario.seed}: {text}" if several else text[0].upper() + text[1:]


def _divergences(found: Comparison | None, diverged: Sequence[Run]) -> list[str]:
    if found is not None:
        return tables.divergences(found)
    return [f"Seed {run.scenario.seed}: {spoken(run.diverged[0])}." for run in diverged]


def _matrix(found: Comparison) -> dict[str, Any] | None:
    """Groups by κ, where both vary or κ does: what each brings and costs, the best and the frugal marked."""
    kappas = sorted({row.cell.settings["kappa"] for row in found.rows if "kappa" in row.cell.settings})
    if not kappas:
        return None
    lines = []
    for answer, (group, rows) in zip(found.answers, grouped(found.rows).items(), strict=True):
        by_kappa = {row.cell.settings["kappa"]: row for row in rows}
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
    """A panel as it is drawn, with the legend of what is in it."""

    heading: str
    chart: Markup
    legend: list[tuple[int, str]]
    data: str


def _drawn(section: Section) -> dict[str, Any]:
    figures = [_figure(panel) for panel in section.panels]
    return {"key": section.key, "heading": section.heading, "words": section.words, "figures": figures}


def _figure(panel: Curves | Prices) -> _Figure:
    data = json.dumps(_data(panel), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    if isinstance(panel, Prices):
        chart = charts.prices(panel.points, title=panel.title, x_title=panel.x_title, y_title=panel.y_title)
        return _Figure(panel.heading, chart, [(point.style, point.name) for point in panel.points], data)
    x, lines = next(iter(panel.over.items()))
    chart = charts.curves(
        lines, title=panel.title(x), x_title=X_TITLES[x], y_title=panel.y_title, limit=panel.limit, optimum=panel.optimum
    )
    return _Figure(panel.heading, chart, [(line.style, line.name) for line in lines], data)


def _data(panel: Curves | Prices) -> dict[str, Any]:
    """A panel for the page's script: what it needs to draw it against any of its axes."""
    if isinstance(panel, Prices):
        marks = [_numbers(mark) | {"hollow": point.hollow} for mark, point in zip(panel.marks, panel.points, strict=True)]
        return {"kind": "prices", "y": panel.y_title, "over": [{"x": "price", "title": panel.x_title, "lines": marks}]}
    return {
        "kind": "curves",
        "y": panel.y_title,
        "limit": panel.limit,
        "optimum": panel.optimum,
        "over": [{"x": x, "title": X_TITLES[x], "lines": list(map(_numbers, lines))} for x, lines in panel.over.items()],
    }


def _numbers(line: charts.Line) -> dict[str, Any]:
    banded = np.isfinite(line.low).any()
    return {
        "style": line.style,
        "name": line.name,
        "mark": charts.mark(line.style),
        "x": _rounded(line.x),
        "y": _rounded(line.y),
        "low": _rounded(line.low) if banded else [],
        "high": _rounded(line.high) if banded else [],
    }


def _rounded(values: Array) -> list[float | int | None]:
    """To six digits, which is more than a screen shows; whole numbers without a point, to be short."""
    known = (float(f"{value:.6g}") if np.isfinite(value) else None for value in values.tolist())
    return [int(value) if value is not None and value == int(value) else value for value in known]


def _maps(of: Sequence[Cell], pictures: Sequence[Carried]) -> dict[str, Any]:
    step = level_step(pictures)
    drawn = []
    for one in pictures:
        title = f"{one.cell.name}: links by bytes per round"
        picture = maps.traffic_map(one.graph, one.links, np.diff(one.edges), maps.LEVELS * step, title)
        labels = [f"{i} {one.graph.nodes[i]['label']}" for i in sorted(one.graph) if "label" in one.graph.nodes[i]]
        drawn.append({"name": one.cell.name, "picture": picture, "runs": one.runs, "labels": labels})
    return {
        "drawn": drawn,
        "levels": [f"up to {size(level * step)}" for level in range(1, maps.LEVELS + 1)] if step else [],
        "stretches": json.dumps(["whole run", *_stretches([one.edges for one in pictures])], ensure_ascii=False),
        "n_stretches": len(pictures[0].edges) - 1,
        "left_out": len(of) - len(pictures),
    }


def _stretches(edges: Sequence[NDArray[np.int64]]) -> list[str]:
    """What the stretches of the maps are called: by rounds, or by parts of the run where runs are not equally long."""
    first = edges[0]
    if all(np.array_equal(one, first) for one in edges):
        return [f"rounds {a + 1}–{b}" if b > a + 1 else f"round {b}" for a, b in pairwise(first)]
    parts = len(first) - 1
    return [f"{100 * part / parts:.0f}–{100 * (part + 1) / parts:.0f} % of each run" for part in range(parts)]


def _drops(of: Sequence[Cell], traffic: Mapping[Path, Traffic]) -> list[dict[str, Any]]:
    """Messages that did not arrive, by cell and reason; nothing where all did."""
    lines: list[dict[str, Any]] = []
    for cell in of:
        ledgers = [traffic[run.folder] for run in cell.runs]
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


def _table(found: Comparison, styles: Styles) -> dict[str, Any]:
    headings, lines = tables.cell_words(found)
    drawn = [styles[label(row.cell)] for row in found.rows] + [None] * (len(lines) - len(found.rows))
    told = [{"name": name, "style": style, "words": words} for style, (name, words) in zip(drawn, lines, strict=True)]
    return {"headings": headings, "lines": told}


def _details(cell: Cell) -> dict[str, Any]:
    lines = []
    for run in cell.runs:
        metrics, so_far, judged = run.metrics, run.so_far, run.reached("evaluated")
        lines.append([
            str(run.scenario.seed),
            f"{run.steps_done:,}",
            *(tables.figure(one.get(name)) for one in (judged, so_far) for name in ("return_mean", "cost_mean")),
            _known(so_far.get("bytes_per_agent_step"), tables.figure),
            _known(metrics.get("delivered_frac"), lambda frac: f"{100 * frac:.2f} %"),
            _known(metrics.get("virtual_s"), lambda value: f"{value:,.4g} s"),
            _known(metrics.get("wall_s"), lambda value: f"{value:,.1f} s"),
            *(_measured(name, run) for name in METRICS.names()),
        ])
    results = Results(cell.runs[0].folder)
    traffic = [
        (row.plane, row.kind, f"{row.messages:,}", size(row.payload_bytes), size(row.wire_bytes)) for row in results.by_kind()
    ]
    results.close()
    return {"name": cell.name, "lines": lines, "traffic": traffic, "seed": cell.runs[0].scenario.seed}


def _measured(name: str, run: Run) -> str:
    """What a report metric of a package or of the calling program comes to in a run; where it fails, why."""
    try:
        return _known(METRICS.resolve(name)(run), tables.figure)
    except Exception as error:  # noqa: BLE001  (a mistake in it must not cost the report)
        return f"{type(error).__name__}: {error}"


def _known(value: float | None, words: Callable[[float], str]) -> str:
    return "–" if value is None else words(value)


# ------------------------------------------------------------------ how to repeat it


def _commands(places: Sequence[Path], runs: Sequence[Run]) -> list[str]:
    """Those that made the sweeps among the places; of runs that are in none, what runs their scenarios again."""
    sweeps = [place for place in places if (place / SWEEP_FILE).is_file()]
    told = [command for place in sweeps for command in read_manifest(place)["commands"]]
    alone = [run for run in runs if not any(run.folder.is_relative_to(place) for place in sweeps)]
    return told + [shlex.join(["kappahop", "run", str(run.folder / SCENARIO_FILE), *allowance(run.scenario)]) for run in alone]


def _versions(run: Run) -> str:
    path = run.folder / MANIFEST_FILE
    if not path.is_file():
        return ""
    facts = read_json(path)
    try:
        packages = ", ".join(f"{name} {version}" for name, version in facts["packages"].items())
        plugins = "".join(f"; {one['kind']} {one['name']} of {one['origin']}" for one in facts.get("plugins", ()))
        commit = f", commit {facts['commit']}" if facts["commit"] else ""
        cores = _counted(facts["cores"], "core")
        return f"Python {facts['python']}, {packages}{commit}; {facts['system']} {facts['machine']}, {cores}{plugins}"
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError):
        raise ScenarioError(f"{path}: cannot be read (it is not as a run writes it)") from None
