"""Pictures of worlds that say what a picture of them shows (`envs.scene`): points and lines in colours, and what these mean.

A value is a colour of *cividis*, which reads alike with and without colour vision; what a layer marks has a red edge. The legend
below has every scale with its ends and every mark with its words. The same scene gives the same picture, byte for byte.
"""

from functools import lru_cache
from pathlib import Path

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from envs.scene import Layer, Scene

Picture = NDArray[np.uint8]
Place = tuple[float, float]
Colour = tuple[int, int, int]

FINE = 2  # pictures are drawn so many times as large, for smooth lines
MARGIN, ROW, BAR, LETTERS = 26, 16, 60, 11  # of the picture, of the legend's rows and colours, and of its words, in pixels
RADIUS, WIDTH, EDGE = 4.0, 2.0, 2.0  # of a point, a line and a mark of size 1, in pixels
CROWD = 80  # points of a layer; if it has more they are smaller
NAMED_UP_TO = 60  # agents; the numbers of more would cover each other
INK, MARKED = (40, 40, 40), (192, 57, 43)


def picture(scene: Scene, wide: int, high: int) -> Picture:
    """A picture of a scene.

    Args:
        scene: What it shows.
        wide: Width in pixels.
        high: Height in pixels, the legend's among them.

    Returns:
        (high, wide, 3), red, green and blue.
    """
    scales = list(dict.fromkeys(layer.scale for layer in scene.layers))
    marks = list(dict.fromkeys(layer.mark for layer in scene.layers if layer.mark))
    legend = (len(scales) + len(marks)) * ROW + 6
    image = Image.new("RGB", (wide * FINE, high * FINE), "white")
    pen = ImageDraw.Draw(image)
    on = _Map(scene, wide, high - legend)
    for layer in scene.layers:
        _draw(pen, layer, on)
    if len(scene.agents) <= NAMED_UP_TO:
        for agent, (x, y) in enumerate(on(scene.agents)):
            pen.text((x + 8 * FINE, y - 8 * FINE), str(agent), fill=INK, font=font(LETTERS * FINE), anchor="lb")
    row = float((high - legend + 3) * FINE)
    for scale in scales:
        _bar(pen, row)
        unit = f" ({scale.unit})" if scale.unit else ""
        _told(pen, row, f"{scale.what}{unit}: {scale.low:g} to {scale.high:g}")
        row += ROW * FINE
    for mark in marks:
        x, y, radius = (MARGIN + BAR - 8) * FINE, row + ROW * FINE / 2, RADIUS * FINE
        pen.ellipse([x - radius, y - radius, x + radius, y + radius], outline=MARKED, width=round(EDGE * FINE))
        _told(pen, row, mark)
        row += ROW * FINE
    return np.asarray(image.reduce(FINE))


@lru_cache(maxsize=4)
def font(size: int) -> ImageFont.FreeTypeFont:
    """The font of pictures, which comes with matplotlib."""
    return ImageFont.truetype(Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)


@lru_cache(maxsize=1)
def _colours() -> NDArray[np.uint8]:
    return np.asarray(np.rint(255 * mpl.colormaps["cividis"](np.arange(256))[:, :3]), np.uint8)


class _Map:
    """From a scene's places to pixels: as large as fits, one unit as long to the right as up, the whole in the middle."""

    def __init__(self, scene: Scene, wide: int, high: int) -> None:
        if scene.box is None:
            places = np.concatenate([layer.at.reshape(-1, 2) for layer in scene.layers] + [scene.agents])
            low, up = places.min(axis=0), places.max(axis=0)
        else:
            low, up = np.array(scene.box[:2]), np.array(scene.box[2:])
        room = np.array([wide, high], float) - 2 * MARGIN
        self._middle, self._size = (low + up) / 2, np.array([wide, high]) / 2
        self._scale = float(np.min(room / np.maximum(up - low, 1e-9)))

    def __call__(self, places: NDArray[np.float64]) -> list[Place]:
        """Pixels of places, (..., 2)."""
        found = (places - self._middle) * self._scale * (1, -1) + self._size
        return [(float(x), float(y)) for x, y in found.reshape(-1, 2) * FINE]


def _draw(pen: ImageDraw.ImageDraw, layer: Layer, on: _Map) -> None:
    scale, places = layer.scale, on(layer.at)
    part = np.clip((layer.values - scale.low) / (scale.high - scale.low), 0.0, 1.0)
    colours: list[Colour] = [(int(r), int(g), int(b)) for r, g, b in _colours()[np.rint(255 * part).astype(int)]]
    marked = np.zeros(len(colours), bool) if layer.marked is None else layer.marked
    size = layer.size * FINE * min(1.0, (CROWD / max(len(colours), 1)) ** 0.5)
    if layer.is_lines:
        width, edge = max(1, round(WIDTH * size)), 2 * round(EDGE * FINE / 2)
        for k, colour in enumerate(colours):
            ends = places[2 * k : 2 * k + 2]
            if marked[k]:
                pen.line(ends, fill=MARKED, width=width + 2 * edge)
            pen.line(ends, fill=colour, width=width)
        return
    for (x, y), colour, is_marked in zip(places, colours, marked, strict=True):
        rim, fill = (EDGE, MARKED) if is_marked else (EDGE / 4, (255, 255, 255))
        for radius, inside in ((RADIUS * size + rim * FINE, fill), (RADIUS * size, colour)):
            pen.ellipse([x - radius, y - radius, x + radius, y + radius], fill=inside)


def _bar(pen: ImageDraw.ImageDraw, row: float) -> None:
    """The colours of a scale, from its low end to its high one."""
    for x in range(BAR * FINE):
        colour = tuple(map(int, _colours()[x * 255 // (BAR * FINE - 1)]))
        pen.line([(MARGIN * FINE + x, row + 3 * FINE), (MARGIN * FINE + x, row + (ROW - 4) * FINE)], fill=colour)


def _told(pen: ImageDraw.ImageDraw, row: float, words: str) -> None:
    pen.text(((MARGIN + BAR + 8) * FINE, row + ROW * FINE / 2), words, fill=INK, font=font(LETTERS * FINE), anchor="lm")
