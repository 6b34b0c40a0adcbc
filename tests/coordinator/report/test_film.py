"""Films: what cannot be filmed is refused before anything starts, and what is shown is what was played."""

import shutil
import subprocess
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mujoco  # type: ignore[import-untyped]
import networkx as nx
import numpy as np
import pytest
from PIL import Image, ImageSequence

from coordinator.records.database import Recorder
from coordinator.records.plan import Plan, make_run_dir, plan
from coordinator.report import film as filming
from coordinator.run import in_process
from envs.checked import WorldError
from envs.registry import make
from scenarios.loading import ScenarioError, load

SMALL = [
    "env.partition=3x2", "env.name=safe_halfcheetah", "env.num_envs=1", "env.horizon=4", "rollout.steps=4", "budget.env_steps=4",
    "algorithm.hidden=[4]", "algorithm.minibatches=1", "algorithm.epochs=1", "record.tensorboard=false",
]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "name", "told"),
    [
        ([], "film.avi", r"^--film: got film.avi; expected a name that ends in .gif or .mp4$"),
        (["env.name=matrix_game"], "film.gif", r"^--film: matrix_game has no pictures; robots have"),
        (["clock=wall"], "film.gif", r"a film is made in virtual time$"),
    ],
)
def test_what_cannot_be_filmed_is_refused(words: list[str], name: str, told: str) -> None:
    with pytest.raises(ScenarioError, match=told):
        filming.check(load("quickstart", words), Path(name))


def test_a_film_of_a_kind_that_nothing_here_can_write_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ScenarioError, match=r"^--film: got film.mp4; that needs ffmpeg, which is not installed here$"):
        filming.check(load("quickstart"), Path("film.mp4"))


class Blind:
    """A camera that takes pictures of nothing, on machines that cannot draw too; each is brighter than the one before."""

    def __init__(self, world: Any) -> None:
        self._n = 0

    def view(self) -> filming.View:
        self._n += 1
        return filming.View(np.full((filming.HIGH, filming.WIDE, 3), 40 * (self._n - 1), np.uint8))

    def close(self) -> None:
        pass


def trained(folder: Path, *words: str, scenario: str = "quickstart", small: Sequence[str] = SMALL) -> Plan:
    """The plan of its evaluation."""
    ready = plan(load(scenario, [*small, "topology.kind=line", *words]))
    make_run_dir(folder, ready)
    recorder = Recorder(folder, env_steps_per_round=4)
    assert in_process.run(ready, folder, recorder, lambda report: None).error is None
    recorder.close()
    return plan(ready.scenario, weights=folder / "checkpoints" / "final")


@pytest.mark.parametrize(("loss", "lost"), [(0.0, 0), (1.0, 1)])
def test_each_picture_stands_beside_what_crossed_the_links_in_its_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loss: float, lost: int
) -> None:
    told: list[Any] = []
    write = filming._write

    def tell(path: Path, shots: Any, *words: Any, **more: Any) -> None:
        told.append([shot.loads for shot in shots])
        write(path, shots, *words, **more)

    ready = trained(tmp_path / "run", f"network.loss_prob={loss}", "network.latency_ms=10")
    monkeypatch.setattr(filming, "_write", tell)
    monkeypatch.setattr(filming, "_Robot", Blind)
    filming.film(ready, tmp_path / "film.gif")
    (loads,) = told
    links = {(0, 1), (1, 0), (1, 2), (2, 1)}
    assert len(loads) == 4
    assert all(set(load) == links and all(sent > 0 and gone == lost for sent, gone in load.values()) for load in loads)
    assert len(frames(tmp_path / "film.gif")) == 4


def test_a_networked_world_is_drawn_and_its_agents_stand_in_the_graph_as_in_the_world(tmp_path: Path) -> None:
    ready = trained(
        tmp_path / "run", scenario="cells_7", small=[word for word in SMALL if "partition" not in word and "name" not in word]
    )
    filming.check(ready.scenario, tmp_path / "film.gif")
    filming.try_out(ready)
    filming.film(ready, tmp_path / "film.gif")
    seen = frames(tmp_path / "film.gif")
    assert len(set(seen)) == len(seen) == 4
    with Image.open(tmp_path / "film.gif") as film:
        picture = np.asarray(film.convert("RGB"), int)
    assert (picture[filming.TITLE :, : filming.WIDE] < 200).any()
    blue = np.abs(picture[filming.TITLE :, filming.WIDE :] - filming.NODE).max(axis=2) < 12
    rows = np.flatnonzero(np.diff(np.concatenate([[0], blue.sum(axis=1) > 3, [0]]).astype(int)) == 1)
    assert len(rows) == 3  # of two, three and two cells, where a line would have one


def test_a_world_whose_scene_is_none_is_named() -> None:
    camera = filming._Sketch("mine", Blind(None), lambda world, copy: None)  # type: ignore[arg-type, return-value]
    with pytest.raises(WorldError, match=r"world 'mine': scene raised AttributeError: .*; expected a Scene"):
        camera.view()


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")
def test_a_film_may_be_an_mp4(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ready = trained(tmp_path / "run")
    monkeypatch.setattr(filming, "_Robot", Blind)
    filming.film(ready, tmp_path / "film.mp4")
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    decoded = subprocess.run(
        ["ffmpeg", "-v", "error", "-i", str(tmp_path / "film.mp4"), *raw], stdout=subprocess.PIPE, check=True, timeout=50
    )
    pictures = np.frombuffer(decoded.stdout, np.uint8).reshape(-1, filming.TITLE + filming.HIGH, 900, 3)
    robot = pictures[:, 200, 225].mean(axis=-1)  # in the middle of the left half: as bright as `Blind` took it
    assert robot == pytest.approx([0, 40, 80, 120], abs=8)


@pytest.mark.parametrize(
    ("words", "free", "costly", "n_boxes"),
    [
        (["env.name=safe_halfcheetah", "env.partition=2x3"], [(0.0, 0.0)], [(2.0, 0.0), (10.0, 3.0), (15.0, 1.0)], 1),
        (["env.name=safe_ant", "env.partition=4x2"], [(0.0, 0.0)], [(0.0, 5.0), (0.0, -5.0)], 0),
        (["env.name=safe_ant", "env.partition=4x2", "env.walls=static"], [(0.0, 0.0)], [(0.0, 3.5)], 24),
        (["env.name=mamujoco_ant", "env.partition=4x2"], [(0.0, 0.0), (0.0, 5.0)], [], 0),
    ],
)
def test_the_ground_shows_where_standing_costs_and_what_stands_there(
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    free: list[tuple[float, float]],
    costly: list[tuple[float, float]],
    n_boxes: int,
) -> None:
    scene = types.SimpleNamespace(flags={})
    monkeypatch.setattr(mujoco, "Renderer", lambda *_: types.SimpleNamespace(scene=scene, close=lambda: None))
    ready = plan(load("quickstart", [*words, "env.num_envs=1"]))
    world: Any = make(ready.scenario.env, ready.deployment.graph(), 0)
    world.reset()
    robot = filming._Robot(world)
    data = world.batch.get_data(0)
    mujoco.mj_forward(world.model, data)
    ground = robot._ground(data)
    assert len(robot._boxes) == n_boxes
    assert (ground is None) == (not costly and not n_boxes)
    if ground is not None:
        x, y = world.place(0)
        for places, colour in ((free, filming.GROUND), (costly, filming.COSTLY)):
            for a, b in places:
                row, column = (y - b - 0.6) * filming.PER_METRE + filming.DEEP / 2, (a - x) * filming.PER_METRE + filming.WIDE / 2
                assert tuple(ground[round(row), round(column)]) == colour
        assert (ground == filming.INK).all(axis=-1).any() == bool(n_boxes)
    world.close()


def test_a_picture_that_cost_something_is_framed_and_the_cost_so_far_is_told() -> None:
    screen = filming._Screen(nx.path_graph(3), 10, 30.0)
    view = filming.View(np.zeros((filming.HIGH, filming.WIDE, 3), np.uint8))
    shot = filming.Shot(view, 3.0, {(0, 1): (10, 0), (1, 2): (5, 1)})
    calm, charged = (np.asarray(screen.drawn(shot, 1.0, charged=one)) for one in (False, True))
    at = filming.TITLE + filming.HIGH // 2, 1
    assert tuple(calm[at]) == (0, 0, 0)
    assert tuple(charged[at]) == filming.LOST
    without = np.asarray(filming._Screen(nx.path_graph(3), 10, None).drawn(shot, 1.0, charged=False))
    assert (calm[: filming.TITLE] != without[: filming.TITLE]).any()
    for colour in (filming.LINK, filming.LOST, filming.NODE):
        assert (calm[:, filming.WIDE :] == colour).all(axis=-1).any()


@pytest.mark.parametrize("n", [3, 20, 200])
def test_agents_that_stand_close_are_drawn_smaller(n: int) -> None:
    screen = filming._Screen(nx.path_graph(n), 10, None, np.stack([np.arange(float(n)), np.zeros(n)], axis=1))
    shot = filming.Shot(filming.View(np.zeros((filming.HIGH, filming.WIDE, 3), np.uint8)), 0.0, {})
    right = np.asarray(screen.drawn(shot, 0.0, charged=False))[filming.TITLE :, filming.WIDE :].astype(int)
    blue = np.abs(right - filming.NODE).max(axis=2) < 12
    rows = np.flatnonzero(blue.any(axis=1))
    across = np.flatnonzero(np.diff(np.concatenate([[0], blue.any(axis=0), [0]]).astype(int)) == 1)
    assert np.ptp(rows) == pytest.approx({3: 22, 20: 13, 200: 6}[n], abs=2)
    assert n == 200 or len(across) == n


@pytest.mark.system
@pytest.mark.timeout(120)
@pytest.mark.slow
def test_the_robot_is_seen_to_move(tmp_path: Path) -> None:
    trained(tmp_path / "run")
    words = ["evaluate", "run", "--episodes", "1", "--in-process", "--json", "-q", "--film", "film.gif"]
    done = subprocess.run(
        [sys.executable, "-P", "-m", "kappahop", *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    if "MuJoCo cannot draw here" in done.stderr:
        pytest.skip(done.stderr)
    assert (done.returncode, done.stderr) == (0, "film: film.gif\n")
    seen = frames(tmp_path / "film.gif")
    assert len(set(seen)) == len(seen) == 4


def frames(path: Path) -> list[bytes]:
    with Image.open(path) as film:
        return [frame.convert("RGB").tobytes() for frame in ImageSequence.Iterator(film)]
