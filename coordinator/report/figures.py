"""The report's figures as files for a paper: each as SVG, PDF and PNG, and the numbers in them as tables.

Theory of operation. What is drawn are the panels of the page (`panels`), drawn by Matplotlib for white paper: as wide as a
column of a two-column page, in the colours of Okabe and Ito, which are told apart with any colour vision, and with a dash and a
mark besides, so that a print in grey can be read too. A PDF embeds its font as TrueType (type 42), which journals ask for,
and a SVG holds text as text, so that both can be searched and edited. No file holds a date or a random name: the same runs
give the same files, byte for byte, with the same versions.

Beside the figures lie their numbers: `curves` has a row per point of each curve and of each mark, `cells` one per cell, and
`cells.tex` is the table of the page for LaTeX.
"""

import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import Formatter

from coordinator.report import maps, tables
from coordinator.report.charts import COLOURS, Line, front, tick_words
from coordinator.report.panels import (
    X_TITLES,
    Carried,
    Curves,
    Material,
    Prices,
    Section,
    X,
    carried,
    gathered,
    level_step,
    sections,
)
from coordinator.report.words import size
from coordinator.study.comparison import Comparison
from coordinator.study.export import setting
from scenarios.loading import ScenarioError
from topology.files import replace
from topology.graph.drawing import layout

FORMATS = ("svg", "pdf", "png")
WIDE, HIGH = 3.4, 2.5  # inches; a column of a two-column page is about 3.4 wide
DPI = 300  # of a PNG
INKS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b58900", "#56b4e9", "#000000")
_DASHES = ("-", (0, (5, 2)), (0, (1, 1.4)), (0, (5, 1.6, 1, 1.6)))
_MARKS = ("o", "s", "^", "D", "v", "P", "X")
_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with Matplotlib, so it is there on every machine
    "font.size": 7.5,
    "axes.labelsize": 8,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.unicode_minus": True,
    "grid.color": "#d8dee4",
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.3,
    "lines.markersize": 4.0,
    "legend.frameon": False,
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "kappahop",
    "savefig.facecolor": "white",
}
_DATELESS: dict[str, dict[str, Any]] = {
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Producer": None, "Creator": None},
    "png": {"Software": None},
}
_LATEX = {
    **{one: f"\\{one}" for one in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "κ": r"$\kappa$",
    "–": "--",
    "−": "$-$",
}


def write(places: Sequence[Path], out: Path, *, training: bool = False) -> list[Path]:
    """Write every figure and every table; files of the same names are replaced.

    Args:
        places: Runs, sweeps, or folders of such.
        out: The folder; it is made if need be.
        training: Whether runs are judged by the episodes of their training, even if they have evaluations.

    Returns:
        The files written.

    Raises:
        ScenarioError: there is no run in one of the places, one cannot be read, none has ended an episode, or a file cannot be
            written.
    """
    material = gathered(places, training=training)
    if material.found is None:
        raise ScenarioError(f"no episode has ended in {', '.join(map(str, places))}, so there is nothing to draw")
    written = []
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, content in _files(material, material.found):
            replace(out / name, content)
            written.append(out / name)
    except OSError as error:
        raise ScenarioError(f"--out: cannot write {out} ({error.strerror or error})") from None
    return written


def _files(material: Material, found: Comparison) -> Iterator[tuple[str, bytes]]:
    yield from _tables("cells", cells_table(found))
    yield "cells.tex", latex(found).encode()
    drawn = sections(material)
    yield from _tables("curves", curves_table(drawn))
    taken: set[str] = set()
    with matplotlib.rc_context(_STYLE):
        for words, figure in _figures(material, drawn):
            name = _free(words, taken)
            for form in FORMATS:
                file = io.BytesIO()
                figure.savefig(file, format=form, dpi=DPI, metadata=_DATELESS[form])
                yield f"{name}.{form}", file.getvalue()


def _free(words: Sequence[str], taken: set[str]) -> str:
    """A name for a file that has not been taken yet, of letters, digits and hyphens."""
    name = "-".join(part for word in words if (part := re.sub(r"[^A-Za-z0-9]+", "-", word).strip("-")))[:100]
    count = 2
    free = name
    while free in taken:
        free, count = f"{name}-{count}", count + 1
    taken.add(free)
    return free


def _tables(name: str, table: pa.Table) -> Iterator[tuple[str, bytes]]:
    text, binary = pa.BufferOutputStream(), pa.BufferOutputStream()
    pyarrow.csv.write_csv(table, text)
    pyarrow.parquet.write_table(table, binary)
    yield f"{name}.csv", text.getvalue().to_pybytes()
    yield f"{name}.parquet", binary.getvalue().to_pybytes()


# ------------------------------------------------------------------ tables


def cells_table(found: Comparison) -> pa.Table:
    """A row per cell: what sets it apart, return with its interval, cost, bytes, and return and cost at equal spending."""
    return pa.Table.from_pylist([
        {
            "cell": row.cell.name,
            **{key: setting(value) for key, value in row.cell.settings.items()},
            "seeds": len(row.ret),
            "diverged": row.diverged,
            "judged_by": found.judged,
            "return_iqm": row.iqm,
            "return_low": _known(row.interval.low),
            "return_high": _known(row.interval.high),
            "best_possible": row.optimum,
            "progress_iqm": row.progress,
            "cost_iqm": row.cost,
            "cost_limit": row.cost_limit,
            "bytes_per_agent_step": row.bytes_per_agent_step,
            **{f"equal_{axis}": place for axis, place in found.positions.items()},
            **{f"return_at_equal_{axis}": _known(known.ret) for axis, known in row.equal.items()},
            **{f"cost_at_equal_{axis}": _known(known.cost) for axis, known in row.equal.items()},
        }
        for row in found.rows
    ])  # fmt: skip


def curves_table(drawn: Sequence[Section]) -> pa.Table:
    """A row per point of every curve and per mark: its figure, group, name, what it is drawn against, and its interval."""
    columns: dict[str, list[Any]] = {name: [] for name in ("figure", "group", "name", "against", "x", "y", "low", "high")}
    for section in drawn:
        for panel in section.panels:
            for against, lines in _drawn(panel):
                for line in lines:
                    words = {"figure": section.key, "group": panel.heading, "name": line.name, "against": against}
                    for name, word in words.items():
                        columns[name] += [word] * len(line.x)
                    for name, values in (("x", line.x), ("y", line.y), ("low", line.low), ("high", line.high)):
                        columns[name] += values.tolist()
    types = {name: pa.float64() if name in ("x", "y", "low", "high") else pa.string() for name in columns}
    return pa.table({name: pa.array(values, type=types[name], from_pandas=True) for name, values in columns.items()})


def _drawn(panel: Curves | Prices) -> Iterator[tuple[str, Sequence[Line]]]:
    if isinstance(panel, Curves):
        yield from panel.over.items()
    else:
        yield panel.x_title, panel.marks


def latex(found: Comparison) -> str:
    """The table of cells for LaTeX, with rules of the package booktabs."""
    headings, lines = tables.cell_words(found)
    body = [" & ".join(map(escaped, [name, *words])) for name, words in lines]
    return "\n".join([
        "% needs \\usepackage{booktabs}; made by `kappahop figures`",
        f"\\begin{{tabular}}{{l{'r' * len(headings)}}}",
        "\\toprule",
        " & ".join(map(escaped, ["cell", *headings])) + r" \\",
        "\\midrule",
        *(f"{line} \\\\" for line in body),
        "\\bottomrule",
        "\\end{tabular}",
        "",
    ])  # fmt: skip


def escaped(words: str) -> str:
    """A text as LaTeX sets it: what is special there stands for itself, and minus signs are those of numbers."""
    signed = re.sub(r"(?<![\w.])-(?=\d)", "−", words)
    return "".join(_LATEX.get(one, one) for one in signed)


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


# ------------------------------------------------------------------ figures


def _figures(material: Material, drawn: Sequence[Section]) -> Iterator[tuple[list[str], Figure]]:
    for section in drawn:
        for panel in section.panels:
            if isinstance(panel, Prices):
                yield [section.key, panel.heading], _prices(panel)
                continue
            for x in panel.over:
                yield [section.key, f"over-{x}", panel.heading], _curves(panel, x)
    pictures = carried(material.of, material.found, material.traffic)
    step = level_step(pictures)
    for one in pictures:
        yield ["links", one.cell.name], _map(one, step)


def _curves(panel: Curves, x: X) -> Figure:
    figure, axes = _sheet(X_TITLES[x], panel.y_title)
    lines = panel.over[x]
    for line in lines:
        seen = np.isfinite(line.y)
        banded = np.isfinite(line.low) & np.isfinite(line.high)
        ink, dash = INKS[line.style % COLOURS], _dash(line.style)
        if seen.sum() == 1:
            reach = np.nan_to_num(np.stack([line.y - line.low, line.high - line.y])[:, seen])
            mark = _MARKS[line.style % len(_MARKS)]
            axes.errorbar(line.x[seen], line.y[seen], yerr=reach, fmt=mark, color=ink, capsize=2, clip_on=False, label=line.name)
            continue
        axes.fill_between(line.x, line.low, line.high, where=banded.tolist(), color=ink, alpha=0.15, linewidth=0)
        axes.plot(line.x[seen], line.y[seen], color=ink, linestyle=dash, label=line.name)
    _fit(axes, lines, [one for one in (panel.limit, panel.optimum) if one is not None])
    if panel.limit is not None:
        axes.axhline(panel.limit, color="#333333", linewidth=0.9, linestyle=(0, (4, 3)), zorder=1, label="limit")
    if panel.optimum is not None:
        axes.axhline(panel.optimum, color="#333333", linewidth=0.9, linestyle=(0, (1, 2)), zorder=1, label="best possible")
    _legend(figure, axes, [line.name for line in lines])
    return figure


def _prices(panel: Prices) -> Figure:
    figure, axes = _sheet(panel.x_title, panel.y_title)
    for point in panel.points:
        reach = np.nan_to_num(np.array([[point.y - point.low], [point.high - point.y]]))
        axes.errorbar(
            [point.x],
            [point.y],
            yerr=reach,
            fmt=_MARKS[point.style % len(_MARKS)],
            color=INKS[point.style % COLOURS],
            markerfacecolor="white" if point.hollow else INKS[point.style % COLOURS],
            capsize=2,
            label=point.name,
        )
    right = max(point.x for point in panel.points)
    best = front([point for point in panel.points if not point.hollow])
    if best:
        steps = [*best, best[-1]]
        across = [*(point.x for point in best), 1.05 * right]
        axes.step(across, [point.y for point in steps], where="post", color="#57606a", linewidth=0.9, linestyle=":", zorder=1)
    axes.set_xlim(left=-0.03 * right if right else None)
    _legend(figure, axes, [point.name for point in panel.points])
    return figure


def _sheet(x_title: str, y_title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDE, HIGH), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(x_title, parse_math=False)
    axes.set_ylabel(y_title, parse_math=False)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(_Words())
    return figure, axes


class _Words(Formatter):
    """Ticks in the words of the page."""

    def format_ticks(self, values: Any) -> list[str]:
        return tick_words([float(value) for value in values])


def _fit(axes: Axes, lines: Sequence[Line], levels: Sequence[float]) -> None:
    """The axis of values as on the page: every curve, limit and optimum, and the band at each curve's end."""
    ends = [end[-1] for line in lines for end in (line.low, line.high) if len(end)]
    values = np.array([*np.concatenate([line.y for line in lines]), *ends, *levels])
    known = values[np.isfinite(values)]
    low, high = float(known.min()), float(known.max())
    room = 0.06 * (high - low) or 0.06 * abs(high) or 1.0
    axes.set_ylim(low - room, high + room)
    axes.set_xlim(left=0.0, right=max(float(line.x[-1]) for line in lines) or 1.0)
    if all(len(line.x) == 1 for line in lines):
        axes.margins(x=0.1)
        axes.autoscale(axis="x")


def _legend(figure: Figure, axes: Axes, order: Sequence[str]) -> None:
    """Below the axes, in the order of the page; nothing where there is one thing to see."""
    by_name = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    if len(by_name) < 2:
        return
    names = [*order, *(name for name in by_name if name not in order)]
    columns = max(1, min(len(names), 58 // (max(map(len, names)) + 6)))
    handles = [by_name[name] for name in names]
    legend = figure.legend(handles, names, loc="outside lower center", ncols=columns, fontsize=7, handlelength=2.6)
    for text in legend.get_texts():
        text.set_parse_math(False)


def _dash(style: int) -> Any:
    return _DASHES[(style % COLOURS + style // COLOURS) % len(_DASHES)]


def _map(one: Carried, step: float) -> Figure:
    """The graph, an edge as two links that keep left, as wide and as dark as what they carried over the whole run."""
    places = {node: np.array(place) for node, place in layout(one.graph).items()}
    points = np.stack([places[node] for node in sorted(one.graph)])
    low, spread = points.min(axis=0), np.ptp(points, axis=0)
    room = 0.12 * float(spread.max() or 1.0)
    high = WIDE * float(np.clip((spread[1] + 2 * room) / (spread[0] + 2 * room), 0.2, 1.0)) + 0.5
    figure = Figure(figsize=(WIDE, high), layout="constrained")
    axes = figure.add_subplot()
    axes.set_axis_off()
    axes.set_aspect("equal")
    inks = matplotlib.colormaps["cividis_r"](np.linspace(0.15, 1.0, maps.LEVELS))
    apart = 0.012 * float(max(spread.max(), 1e-9))
    lengths = np.diff(one.edges)
    segments, widths, colours = [], [], []
    for src, dst in ((a, b) for edge in sorted(one.graph.edges) for a, b in (edge, edge[::-1])):
        rates = one.links.get((src, dst), np.zeros(len(lengths)))
        mean = float(np.average(rates, weights=lengths)) if len(lengths) else 0.0
        level = int(maps.levels(np.array(mean), maps.LEVELS * step))
        along = places[dst] - places[src]
        left = apart * np.array([-along[1], along[0]]) / (float(np.hypot(*along)) or 1.0)
        segments.append([places[src] + left, places[dst] + left])
        widths.append(0.5 if level == 0 else 0.4 + 0.45 * level)
        colours.append("#b0b6bd" if level == 0 else inks[level - 1])
    axes.add_collection(LineCollection(segments, linewidths=widths, colors=colours, zorder=1))
    n = len(one.graph)
    diameter = float(np.clip(60 / np.sqrt(n), 4, 13))
    axes.scatter(points[:, 0], points[:, 1], s=diameter**2, facecolor="white", edgecolor="#57606a", linewidth=0.8, zorder=2)
    if diameter >= 7:
        for node in sorted(one.graph):
            axes.annotate(str(node), tuple(places[node]), ha="center", va="center", fontsize=0.55 * diameter, zorder=3)
    axes.set_xlim(low[0] - room, low[0] + spread[0] + room)
    axes.set_ylim(low[1] - room, low[1] + spread[1] + room)
    if step:
        handles = [
            Line2D([], [], color=inks[place], linewidth=0.4 + 0.45 * (place + 1), label=f"up to {size((place + 1) * step)}")
            for place in range(maps.LEVELS)
        ]
        words = "wire bytes per round"
        figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=6.5, title=words, title_fontsize=6.5)
    return figure
