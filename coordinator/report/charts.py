"""Charts as inline SVG: curves with intervals, and what a return costs with the front of what is worth its price.

Theory of operation. A chart is a string of SVG in a fixed box of `WIDTH` by `HEIGHT` units, which a page scales; text
stays legible because pages give a chart between 320 and 600 pixels. Nothing in it names a colour: series have classes
(`s0`, `s1`, …) that the page's style sheet paints, light or dark, and each also has a dash and a mark of its own, so that
colour never is all that tells two apart. Ticks are round numbers, and an axis ends where the data end. Text never lies on
text: ticks are spaced by the width of their words, and a mark whose name has no free place near it goes without (the
legend has it).

`templates/charts.js` draws the same charts once more. Two drawers are needed: a page is read without a script too (in print, in
mail, where scripts are refused), and a script that answers a reader cannot ask Python. A test holds what both must agree on,
dashes, colours and units, against each other.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

Array = NDArray[np.float64]
Box = tuple[float, float, float, float]  # left, top, right, bottom

WIDTH, HEIGHT = 420.0, 250.0
PLOT: Box = (40.0, 28.0, 404.0, 206.0)  # its left edge makes way for wide words
FONT = 12.0  # units; the style sheet must agree
_LETTER = 0.72 * FONT  # widest mean width of a letter in the fonts that pages fall back to
COLOURS = 7
DASHES = ("", "7 3", "2 3", "9 3 2 3")
_UNITS = ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k"), (1.0, ""), (1e-3, " m"), (1e-6, " µ"), (1e-9, " n"), (1e-12, " p"))
_MARKS = {
    "circle": "M-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0 -9 0Z",
    "square": "M-4 -4H4V4H-4Z",
    "triangle": "M0 -5.2L5 4H-5Z",
    "diamond": "M0 -5.8L5.2 0L0 5.8L-5.2 0Z",
    "drop": "M0 5.2L5 -4H-5Z",
    "plus": "M-1.7 -5H1.7V-1.7H5V1.7H1.7V5H-1.7V1.7H-5V-1.7H-1.7Z",
    "bow": "M-5 -4.5L5 4.5V-4.5L-5 4.5Z",
}
_SHAPES = tuple(_MARKS.values())


@dataclass(frozen=True, slots=True)
class Line:
    """A curve.

    Attributes:
        style: Number of its colour, dash and mark.
        name: What it is of.
        x: Ascending, shape (points,).
        y: Shape (points,); nan is not drawn.
        low: Lower end of its interval, shape (points,); nan where there is none.
        high: Upper end.
    """

    style: int
    name: str
    x: Array
    y: Array
    low: Array
    high: Array


@dataclass(frozen=True, slots=True)
class Point:
    """A mark with a whisker.

    Attributes:
        style: Number of its colour and mark.
        name: What it is of.
        x: What it costs, at least 0.
        y: What it brings.
        low: Lower end of the interval of `y`; nan: none.
        high: Upper end.
        hollow: Whether it breaks a limit; such marks are outlines and never on the front.
    """

    style: int
    name: str
    x: float
    y: float
    low: float
    high: float
    hollow: bool


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers within a range: multiples of 1, 2, 2.5 or 5 times a power of ten, at most so many.

    Example:
        >>> ticks(0.0, 1.05e6)
        [0.0, 250000.0, 500000.0, 750000.0, 1000000.0]
    """
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    ranges = []
    for factor in (1.0, 2.0, 2.5, 5.0, 10.0):
        step = factor * power
        ranges.append([place * step for place in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)])
    return next((values for values in ranges if len(values) <= most), ranges[-1])


def rounded_up(value: float) -> float:
    """The least of 1, 2, 2.5 and 5 times a power of ten that is not less than a positive value.

    Example:
        >>> [rounded_up(value) for value in (100.0, 101.0, 0.21)]
        [100.0, 200.0, 0.25]
    """
    power = 10.0 ** math.floor(math.log10(value))
    return next((factor * power for factor in (1.0, 2.0, 2.5, 5.0) if factor * power >= value), 10.0 * power)


def tick_words(values: Sequence[float]) -> list[str]:
    """Ticks in words: the same unit and as many decimals for all, no more than tell them apart.

    Example:
        >>> tick_words([0.0, 500_000.0, 1_000_000.0])
        ['0', '0.5 M', '1 M']
        >>> tick_words([-0.5, 0.0, 0.5])
        ['−0.5', '0', '0.5']
    """
    largest = max((abs(value) for value in values), default=0.0)
    scale, unit = (1.0, "")
    if largest and not 1e-3 <= largest < 1e4:
        scale, unit = next((one for one in _UNITS if largest >= one[0]), _UNITS[-1])
    decimals = next(
        d for d in range(9) if all(abs(v / scale - round(v / scale, d)) < 1e-6 * largest / scale for v in values) or d == 8
    )
    told = []
    for value in values:
        words = f"{value / scale:.{decimals}f}"
        words = words.rstrip("0").rstrip(".") if "." in words else words
        told.append(_signed(words) + unit if float(words) else "0")
    return told


def curves(
    lines: Sequence[Line], *, title: str, x_title: str, y_title: str, limit: float | None = None, optimum: float | None = None
) -> Markup:
    """Curves over one axis, each with its band (a single point with a whisker), and a limit to stay below if there is one.

    The axis of values holds every curve, the limit, and the band at each curve's end; an earlier band may leave it and is
    cut off there.

    Raises:
        ValueError: there is no point to draw.
    """
    known = np.concatenate([line.y for line in lines] or [np.empty(0)])
    known = known[np.isfinite(known)]
    if not len(known):
        raise ValueError("lines: no point to draw")
    ends = [end[-1] for line in lines for end in (line.low, line.high) if len(end) and np.isfinite(end[-1])]
    low, high = _padded([*known, *ends, *(level for level in (limit, optimum) if level is not None)])
    right = max(float(line.x[-1]) for line in lines if len(line.x)) or 1.0  # all at 0 have an axis too
    frame = _Frame(0.0, right, low, high)
    parts = [frame.axes(x_title, y_title)]
    inside = []
    for line in lines:
        banded = np.isfinite(line.low) & np.isfinite(line.high)
        if banded.sum() > 1:
            there = _places(frame, line.x[banded], line.high[banded])
            back = _places(frame, line.x[banded][::-1], line.low[banded][::-1])
            inside.append(Markup('<path class="band s{}" d="M{}Z"/>').format(line.style % COLOURS, "L".join(there + back)))
    for name, level in (("limit", limit), ("optimum", optimum)):
        if level is not None:
            path = Markup('<path class="{0}" d="M{1:.1f} {2:.1f}H{3:.1f}"/>')
            inside.append(path.format(name, frame.edge, frame.y(level), PLOT[2]))
    for line in lines:
        seen = np.isfinite(line.y)
        if seen.sum() == 1:
            x, y, low, high = (float(values[seen][0]) for values in (line.x, line.y, line.low, line.high))
            inside += [_whisker(line.style, frame, x, low, high)] if math.isfinite(low) else []
            inside.append(_mark(line.style, frame, x, y, line.name))
        elif seen.any():
            d = "L".join(_places(frame, line.x[seen], line.y[seen]))
            inside.append(
                Markup('<path class="line s{}" stroke-dasharray="{}" d="M{}"><title>{}</title></path>').format(
                    line.style % COLOURS, dash(line.style), d, line.name
                )
            )
    # a svg of its own cuts off at its edges, without an id that would have to be unique on the page
    parts.append(_clipped(frame, inside))
    return _svg(title, parts)


def prices(points: Sequence[Point], *, title: str, x_title: str, y_title: str) -> Markup:
    """What marks bring against what they cost, with the staircase of the best that can be had for as much.

    Raises:
        ValueError: there is no point.
    """
    if not points:
        raise ValueError("points: none given")
    low, high = _padded([value for point in points for value in (point.y, point.low, point.high) if math.isfinite(value)])
    right = max(point.x for point in points)
    frame = _Frame(0.0, 1.08 * right if right else 1.0, low, high)
    parts = [frame.axes(x_title, y_title)]
    best = front([point for point in points if not point.hollow])
    if best:
        steps = "".join(f"H{frame.x(point.x):.1f}V{frame.y(point.y):.1f}" for point in best[1:])
        parts.append(
            Markup('<path class="front" d="M{:.1f} {:.1f}{}H{:.1f}"/>').format(
                frame.x(best[0].x), frame.y(best[0].y), steps, PLOT[2]
            )
        )
    taken: list[Box] = []
    for here, after in pairwise([(frame.x(point.x), frame.y(point.y)) for point in best] + [(PLOT[2], 0.0)] * bool(best)):
        taken.append((here[0], here[1] - 1, after[0], here[1] + 1))
    for point in points:
        x, y = frame.x(point.x), frame.y(point.y)
        taken.append((x - 7, y - 7, x + 7, y + 7))
        if math.isfinite(point.low):
            taken.append((x - 3, frame.y(point.high), x + 3, frame.y(point.low)))
            parts.append(_whisker(point.style, frame, point.x, point.low, point.high))
    parts += [_mark(point.style, frame, point.x, point.y, point.name, hollow=point.hollow) for point in points]
    for point in points:
        parts.append(_named(point.name, frame, frame.x(point.x), frame.y(point.y), taken))
    return _svg(title, parts)


def front(points: Sequence[Point]) -> list[Point]:
    """Those that nothing as cheap or cheaper matches or beats, in ascending order of price.

    Of several that cost and bring the same, the first.
    """
    best: list[Point] = []
    for point in sorted(points, key=lambda point: (point.x, -point.y)):
        if not best or point.y > best[-1].y:
            best.append(point)
    return best


def dash(style: int) -> str:
    """A style's dash pattern; "" draws through."""
    return DASHES[(style % COLOURS + style // COLOURS) % len(DASHES)]


def mark(style: int) -> str:
    """A style's mark as a path around 0, 0."""
    return _SHAPES[style % len(_SHAPES)]


def sample(style: int) -> Markup:
    """A style's line and mark, for a legend."""
    return Markup(
        '<svg class="sample" viewBox="0 0 36 14" aria-hidden="true"><path class="line s{0}" stroke-dasharray="{1}" d="M1 7H35"/>'
        '<path class="mark s{0}" transform="translate(18 7)" d="{2}"/></svg>'
    ).format(style % COLOURS, dash(style), mark(style))


@dataclass(frozen=True)
class _Frame:
    """The range of data that fills `PLOT`."""

    left: float
    right: float
    low: float
    high: float

    @cached_property
    def edge(self) -> float:
        return max(PLOT[0], max(map(width, tick_words(ticks(self.low, self.high)))) + 8)

    def x(self, value: float) -> float:
        return self.edge + (value - self.left) / (self.right - self.left) * (PLOT[2] - self.edge)

    def y(self, value: float) -> float:
        return PLOT[3] - (value - self.low) / (self.high - self.low) * (PLOT[3] - PLOT[1])

    def axes(self, x_title: str, y_title: str) -> Markup:
        parts = []
        ups = ticks(self.low, self.high)
        for value, words in zip(ups, tick_words(ups), strict=True):
            y = self.y(value)
            parts.append(Markup('<path class="grid" d="M{:.1f} {:.1f}H{:.1f}"/>').format(self.edge, y, PLOT[2]))
            parts.append(_text(words, self.edge - 6, y + 4, "end"))
        acrosses = self._acrosses()
        for value, words in zip(acrosses, tick_words(acrosses), strict=True):
            x = self.x(value)
            at = min(x, WIDTH - 1 - width(words) / 2)  # the last one stays within the picture
            parts.append(Markup('<path class="axis" d="M{:.1f} {:.1f}v4"/>').format(x, PLOT[3]))
            parts.append(_text(words, at, PLOT[3] + 17, "middle"))
        parts.append(Markup('<path class="axis" d="M{:.1f} {:.1f}H{:.1f}"/>').format(self.edge, PLOT[3], PLOT[2]))
        parts.append(_text(x_title, PLOT[2], HEIGHT - 8, "end", "title"))
        parts.append(_text(y_title, 2.0, 14.0, "start", "title"))
        return Markup("").join(parts)

    def _acrosses(self) -> list[float]:
        for most in (6, 5, 4, 3):
            values = ticks(self.left, self.right, most)
            room = (self.x(values[1]) - self.x(values[0])) if len(values) > 1 else math.inf
            if room > max(map(width, tick_words(values))) + 10:
                return values
        return [self.left, self.right]


def width(words: str) -> float:
    """At most how wide a text is, in units."""
    return len(words) * _LETTER


def _padded(values: Sequence[float]) -> tuple[float, float]:
    low, high = float(min(values)), float(max(values))
    room = 0.06 * (high - low) or 0.06 * abs(high) or 1.0
    if low >= 0 and low <= 0.4 * high:  # near enough to nothing to show where that is
        return 0.0, high + room
    return low - room, high + room


def _places(frame: _Frame, x: Array, y: Array) -> list[str]:
    # far outside is as good as outside, and shorter
    return [
        f"{frame.x(a):.1f} {min(max(frame.y(b), -HEIGHT), 2 * HEIGHT):.1f}" for a, b in zip(x.tolist(), y.tolist(), strict=True)
    ]


def _clipped(frame: _Frame, parts: Sequence[Markup]) -> Markup:
    left, top, right, bottom = (frame.edge, *PLOT[1:])
    return Markup('<svg x="{0}" y="{1}" width="{2}" height="{3}" viewBox="{0} {1} {2} {3}">{4}</svg>').format(
        left, top, right - left, bottom - top, Markup("").join(parts)
    )


def _mark(style: int, frame: _Frame, x: float, y: float, name: str, *, hollow: bool = False) -> Markup:
    return Markup('<path class="mark s{}{}" transform="translate({:.1f} {:.1f})" d="{}"><title>{}</title></path>').format(
        style % COLOURS, " hollow" if hollow else "", frame.x(x), frame.y(y), mark(style), name
    )


def _whisker(style: int, frame: _Frame, x: float, low: float, high: float) -> Markup:
    return Markup('<path class="whisker s{0}" d="M{1:.1f} {2:.1f}V{3:.1f}M{4:.1f} {2:.1f}h6M{4:.1f} {3:.1f}h6"/>').format(
        style % COLOURS, frame.x(x), frame.y(high), frame.y(low), frame.x(x) - 3
    )


def _named(name: str, frame: _Frame, x: float, y: float, taken: list[Box]) -> Markup:
    wide = width(name)
    for left, middle in (
        (x + 10, y),
        (x - 10 - wide, y),
        (x + 6, y - 14),
        (x + 6, y + 14),
        (x - 6 - wide, y - 14),
        (x - 6 - wide, y + 14),
    ):
        box = (left, middle - FONT / 2 - 1, left + wide, middle + FONT / 2 + 1)
        inside = box[0] > frame.edge and box[2] < WIDTH and box[1] > PLOT[1] and box[3] < PLOT[3]
        if inside and not any(_meet(box, other) for other in taken):
            taken.append(box)
            return _text(name, left, middle + 4, "start", "name")
    return Markup("")


def _meet(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _text(words: str, x: float, y: float, anchor: str, kind: str = "tick") -> Markup:
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(kind, x, y, anchor, words)


def _svg(title: str, parts: Sequence[Markup]) -> Markup:
    return Markup('<svg class="chart" viewBox="0 0 {:.0f} {:.0f}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, HEIGHT, title, Markup("").join(parts)
    )


def _signed(words: str) -> str:
    return words.replace("-", "−", 1)
