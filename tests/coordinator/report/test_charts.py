"""Charts: where things are drawn, measured in the SVG, and that no text lies on another."""

import itertools
import json
import math
import re
from importlib.resources import files
from xml.etree import ElementTree

import matplotlib.font_manager
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.ft2font import FT2Font

from coordinator.report.charts import (
    _UNITS,
    COLOURS,
    DASHES,
    FONT,
    HEIGHT,
    PLOT,
    WIDTH,
    Line,
    Point,
    curves,
    dash,
    front,
    prices,
    tick_words,
    ticks,
    width,
)

NAN = float("nan")
FACE = FT2Font(matplotlib.font_manager.findfont("DejaVu Sans"))  # wider than what most systems fall back to
ranges = st.tuples(st.floats(-1e9, 1e9), st.floats(1e-9, 1e9)).filter(lambda pair: pair[1] > 1e-3 * abs(pair[0]))


def line(x: list[float], y: list[float], low: list[float] | None = None, high: list[float] | None = None, style: int = 0) -> Line:
    empty = [NAN] * len(x)
    return Line(style, f"line {style}", *(np.array(values) for values in (x, y, low or empty, high or empty)))


def point(x: float, y: float, *, style: int = 0, hollow: bool = False) -> Point:
    return Point(style, f"κ={style}", x, y, y - 1.0, y + 1.0, hollow)


def found(svg: str, kind: str) -> list[ElementTree.Element]:
    return [one for one in ElementTree.fromstring(svg).iter() if kind in one.get("class", "").split()]


def numbers(path: ElementTree.Element) -> list[float]:
    return [float(word) for word in re.findall(r"-?[\d.]+", path.get("d", ""))]


def boxes(svg: str) -> list[tuple[float, float, float, float]]:
    """Where texts are, by the metrics of a real font."""
    FACE.set_size(FONT, 72)
    places = []
    for text in ElementTree.fromstring(svg).iter("text"):
        FACE.set_text(text.text or "")
        wide = FACE.get_width_height()[0] / 64
        x, y = float(text.get("x", "")), float(text.get("y", ""))
        x -= {"start": 0.0, "middle": wide / 2, "end": wide}[text.get("text-anchor", "")]
        places.append((x, y - 0.75 * FONT, x + wide, y + 0.2 * FONT))
    return places


def assert_readable(svg: str) -> None:
    places = boxes(svg)
    for left, top, right, bottom in places:
        assert left >= 0
        assert top >= 0
        assert right <= WIDTH
        assert bottom <= HEIGHT
    for one, other in itertools.combinations(places, 2):
        assert one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1], (one, other)


@given(ranges, st.integers(2, 8))
def test_ticks_are_few_evenly_spaced_and_within_the_range(pair: tuple[float, float], most: int) -> None:
    low, high = pair[0], pair[0] + pair[1]
    values = ticks(low, high, most)
    assert 1 <= len(values) <= most
    assert low - 1e-6 * pair[1] <= values[0] <= values[-1] <= high + 1e-6 * pair[1]
    steps = np.diff(values)
    assert np.allclose(steps, steps[:1].sum() if len(steps) else 0.0)


@given(ranges)
def test_words_tell_ticks_apart(pair: tuple[float, float]) -> None:
    words = tick_words(ticks(pair[0], pair[0] + pair[1]))
    assert len(set(words)) == len(words)


def test_words_are_the_numbers() -> None:
    assert tick_words([0.0, 0.25, 0.5]) == ["0", "0.25", "0.5"]
    assert tick_words([-20_000.0, 0.0]) == ["−20 k", "0"]
    assert tick_words([0.0, 2e-5]) == ["0", "20 µ"]
    assert tick_words([1500.0]) == ["1500"]


def test_a_curve_is_drawn_in_proportion() -> None:
    (path,) = found(curves([line([0.0, 50.0, 100.0], [10.0, 20.0, 40.0])], title="t", x_title="x", y_title="y"), "line")
    x0, y0, x1, y1, x2, y2 = numbers(path)
    assert (x0, x2) == (PLOT[0], PLOT[2])
    assert x1 == pytest.approx((x0 + x2) / 2)
    assert y0 - y1 == pytest.approx((y1 - y2) / 2, abs=0.1)
    assert y0 > y1 > y2, "up is more"


def test_the_axis_of_steps_begins_at_none_done() -> None:
    (path,) = found(curves([line([50.0, 100.0], [1.0, 2.0])], title="t", x_title="x", y_title="y"), "line")
    assert numbers(path)[0] == pytest.approx((PLOT[0] + PLOT[2]) / 2, abs=3.0)


def test_values_near_nothing_are_seen_from_nothing() -> None:
    svg = curves([line([0.0, 1.0], [1.0, 10.0])], title="t", x_title="x", y_title="y")
    (path,) = found(svg, "line")
    _, low, _, high = numbers(path)
    assert PLOT[3] - low == pytest.approx((PLOT[3] - high) / 10, abs=0.2)


def test_a_band_and_the_limit_are_where_they_belong() -> None:
    svg = curves([line([0.0, 1.0], [2.0, 4.0], [1.0, 3.0], [3.0, 5.0])], title="t", x_title="x", y_title="y", limit=4.0)
    (path,), (band,), (limit,) = found(svg, "line"), found(svg, "band"), found(svg, "limit")
    end = numbers(path)[3]
    assert numbers(limit)[1] == pytest.approx(end)
    assert numbers(band)[3] < end < numbers(band)[5]


def test_the_band_of_a_single_point_is_a_whisker() -> None:
    svg = curves([line([1.0], [2.0], [1.0], [4.0]), line([0.0, 1.0], [1.0, 4.0], style=1)], title="t", x_title="x", y_title="y")
    (path,), (whisker,) = found(svg, "line"), found(svg, "whisker")
    _, low, right, high = numbers(path)
    assert numbers(whisker)[:3] == pytest.approx([right, high, low], abs=0.1)
    assert found(svg, "band") == []


def test_what_is_all_at_nothing_is_drawn_at_the_left() -> None:
    (whisker,) = found(curves([line([0.0], [2.0], [1.0], [4.0])], title="t", x_title="x", y_title="y"), "whisker")
    assert numbers(whisker)[0] == pytest.approx(PLOT[0], abs=10.0)


def test_what_is_not_known_is_not_drawn() -> None:
    svg = curves([line([0.0, 1.0, 2.0], [NAN, 2.0, 3.0]), line([1.0], [2.5], style=1)], title="t", x_title="x", y_title="y")
    (path,) = found(svg, "line")
    assert len(numbers(path)) == 4
    assert len(found(svg, "mark")) == 1, "a single point is a mark"
    assert found(svg, "whisker") == []
    with pytest.raises(ValueError, match="no point to draw"):
        curves([line([1.0], [NAN])], title="t", x_title="x", y_title="y")


@given(st.lists(st.tuples(st.floats(0, 1e6), st.floats(-1e6, 1e6)), min_size=1, max_size=8))
def test_the_front_is_what_nothing_else_is_at_least_as_good_as(pairs: list[tuple[float, float]]) -> None:
    points = [point(x, y, style=i) for i, (x, y) in enumerate(pairs)]
    best = front(points)
    for one in points:
        beaten = any(
            (other.x <= one.x and other.y >= one.y) and ((other.x, other.y) != (one.x, one.y) or other.style < one.style)
            for other in points
        )
        assert (one in best) is not beaten


def test_marks_over_their_limit_are_hollow_and_not_on_the_front() -> None:
    svg = prices([point(0.0, 1.0), point(5.0, 9.0, style=1, hollow=True)], title="t", x_title="x", y_title="y")
    assert ["hollow" in mark.get("class", "") for mark in found(svg, "mark")] == [False, True]
    (stairs,) = found(svg, "front")
    assert "V" not in stairs.get("d", "")


@given(st.lists(st.tuples(st.floats(0, 1e6), st.floats(-1e5, 1e5)), min_size=1, max_size=12))
def test_no_text_of_prices_lies_on_another_or_outside(pairs: list[tuple[float, float]]) -> None:
    points = [point(x, y, style=i) for i, (x, y) in enumerate(pairs)]
    assert_readable(prices(points, title="t", x_title="wire bytes per agent and step", y_title="return of an episode"))


@given(st.floats(-1e9, 1e9), st.floats(1e-6, 1e9), st.floats(1.0, 1e12))
def test_no_text_of_curves_lies_on_another_or_outside(start: float, rise: float, steps: float) -> None:
    if rise > 1e-3 * abs(start):
        svg = curves(
            [line([0.0, steps], [start, start + rise])], title="t", x_title="environment steps", y_title="return of an episode"
        )
        assert_readable(svg)


def test_names_are_text_and_not_markup() -> None:
    svg = prices([Point(0, "<script>&", 1.0, 1.0, NAN, NAN, False)], title='"><b', x_title="<i>", y_title="y")
    root = ElementTree.fromstring(svg)
    assert root.get("aria-label") == '"><b'
    assert {one.tag for one in root.iter()} == {"svg", "path", "text", "title"}


def test_styles_differ_in_more_than_colour() -> None:
    assert len({(i % 7, dash(i)) for i in range(28)}) == 28
    assert len({dash(i) for i in range(4)}) == 4


def test_widths_are_not_underestimated() -> None:
    FACE.set_size(FONT, 72)
    for words in ("κ=3", "environment steps", "−0.25 M", "algorithm.name=mappo_l"):
        FACE.set_text(words)
        assert width(words) >= FACE.get_width_height()[0] / 64 > 0.5 * width(words)
    assert math.isclose(width("ab"), 2 * width("a"))


def test_the_script_names_series_and_units_as_the_charts_without_it_do() -> None:
    script = files("coordinator.report").joinpath("templates", "charts.js").read_text(encoding="utf-8")
    found = {name: json.loads(value) for name, value in re.findall(r"(COLOURS|DASHES|UNITS) = ([^;]*?)(?=, [A-Z]+ =|;)", script)}
    assert found == {
        "COLOURS": COLOURS,
        "DASHES": list(DASHES),
        "UNITS": [list(unit) for unit in _UNITS],
    }
