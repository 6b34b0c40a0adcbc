"""Pictures of scenes: colours stand where things are, and marks have a red edge."""

import numpy as np
import pytest

from coordinator.report.scenes import BAR, MARGIN, MARKED, ROW, picture
from envs.scene import Layer, Scale, Scene

LOW, HIGH = (0, 34, 78), (254, 232, 56)  # the ends of cividis
WIDE, TALL = 200, 160
SCALE = Scale("heat", 0.0, 10.0, "K")


def scene(**more: object) -> Scene:
    points = Layer(scale=SCALE, at=np.array([[0.0, 0.0], [2.0, 0.0]]), values=np.array([-3.0, 10.0]), size=2.0, **more)  # type: ignore[arg-type]
    lines = Layer(scale=SCALE, at=np.array([[[0.0, 0.0], [2.0, 0.0]]]), values=np.array([10.0]), size=2.0)
    return Scene(layers=[lines, points], agents=np.zeros((0, 2)))


def near(colour: np.ndarray, expected: tuple[int, int, int]) -> bool:
    return bool(np.abs(colour.astype(int) - expected).max() <= 8)


def test_values_are_colours_where_things_are() -> None:
    seen = picture(scene(), WIDE, TALL)
    assert seen.shape == (TALL, WIDE, 3)
    assert seen.dtype == np.uint8
    middle = (TALL - ROW - 6) // 2
    assert near(seen[middle, MARGIN], LOW)  # a value below the scale looks like its end
    assert near(seen[middle, WIDE - MARGIN], HIGH)
    assert near(seen[middle, WIDE // 2], HIGH)  # the line
    legend = TALL - ROW // 2 - 4
    assert near(seen[legend, MARGIN + 1], LOW)
    assert near(seen[legend, MARGIN + BAR - 2], HIGH)


def test_what_is_marked_has_a_red_edge_and_its_words() -> None:
    plain = picture(scene(), WIDE, TALL)
    marked = picture(scene(marked=np.array([False, True]), mark="hot"), WIDE, TALL)
    assert not (plain == MARKED).all(axis=2).any()
    red = np.argwhere((marked == MARKED).all(axis=2))
    above = red[red[:, 0] < TALL - 2 * ROW - 6]
    assert above[:, 1].min() > WIDE // 2  # the second point alone
    assert red[:, 0].max() > TALL - ROW - 6  # and in the legend


def test_a_box_decides_what_is_seen() -> None:
    wider = Scene(layers=scene().layers, agents=np.zeros((0, 2)), box=(0.0, -1.0, 4.0, 1.0))
    seen = picture(wider, WIDE, TALL)
    middle = (TALL - ROW - 6) // 2
    assert near(seen[middle, WIDE // 2], HIGH)
    assert near(seen[middle, WIDE - MARGIN], (255, 255, 255))


@pytest.mark.parametrize("n", [3, 100])
def test_agents_have_their_numbers_unless_they_are_too_many(n: int) -> None:
    agents = np.stack([np.linspace(0.0, 2.0, n), np.ones(n)], axis=1)
    box = (0.0, 0.0, 2.0, 1.0)
    without = picture(Scene(layers=scene().layers, agents=agents[:0], box=box), WIDE, TALL)
    with_agents = picture(Scene(layers=scene().layers, agents=agents, box=box), WIDE, TALL)
    assert (without != with_agents).any() == (n == 3)
