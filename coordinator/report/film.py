"""A film of a trained team: the world, and beside it what agents send each other meanwhile.

Theory of operation. One deployment plays once more, in this process and without exploration, in rounds of one step: what a
round books on a link is then what crossed it in that step. The world is wrapped by one that takes a picture of it before each
step that is to be seen, and notes what the episode has cost; reports bring the traffic. Pictures and traffic are put side by
side at the end.

There are three cameras. One is for robots: it also shows the ground from above, with walls, obstacles and where standing costs.
One is for worlds that say what a picture of them shows (`envs.scene`), and one for worlds that draw themselves
(`envs.interface.Drawable`). Agents of a scene stand in the graph as they stand in the world.

Rendering of robots needs no window: MuJoCo draws by EGL unless the environment variable MUJOCO_GL says otherwise.
"""

import contextlib
import itertools
import math
import os
import shutil
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import networkx as nx
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageOps

from coordinator.records.database import Recorder
from coordinator.records.plan import Plan, make_run_dir, plan
from coordinator.report import scenes
from coordinator.run import in_process
from envs.checked import WorldError
from envs.interface import Drawable, EnvSpec, Floats, Transition, VecEnv
from envs.registry import make, world_of
from envs.robots.tasks import TASKS
from envs.scene import Scene
from scenarios.loading import ScenarioError
from scenarios.schema import Env, Scenario
from topology.graph.drawing import layout
from topology.planes.control import Control, RoundReport
from topology.snapshot import State

if TYPE_CHECKING:
    from envs.robots.mujoco_world import MujocoWorld

FILM_S = 10.0  # virtual seconds of the modelled deployment, which is as long as the film takes
PER_SECOND = 20  # pictures; fewer if control periods are longer
STEPS = 100  # at least, where control periods are long; the film then runs faster than the deployment
SLOWEST_S = 0.2  # a picture stands no longer
WIDE, HIGH = 480, 360  # of the world's picture, in pixels
DISTANCE = 5.0  # of the camera from the robot, in metres
TITLE, DEEP, ASIDE, MARGIN = 24, 150, 420, 40  # heights of words and ground, width of the graph and of its edge, in pixels
PER_METRE = 12  # pixels of the ground
RADII, NAMED_FROM = (3.0, 11.0), 6.0  # of an agent, by how near the next one is; a smaller circle holds no number
APART = 4  # of a link from the middle of its edge, in pixels
SKY, GROUND, COSTLY = (214, 226, 236), (236, 238, 240), (244, 205, 200)
NODE, LINK = (0, 32, 76), (127, 140, 141)
FINE, INK, LOST = scenes.FINE, scenes.INK, scenes.MARKED

Picture = NDArray[np.uint8]
Load = tuple[int, int]  # wire bytes and lost messages of a link in one step


def check(scenario: Scenario, path: Path) -> None:
    """Make sure that such a film can be made, before MuJoCo is imported: it then looks how to draw.

    Raises:
        ScenarioError: its folder does not exist, the world cannot be drawn, there is nothing to write such a file with, the clock
            is the wall's, or MuJoCo cannot draw on this machine.
    """
    if not path.absolute().parent.is_dir():
        raise ScenarioError(f"--film: got {path}; there is no folder {path.parent}")
    if path.suffix not in (".gif", ".mp4"):
        raise ScenarioError(f"--film: got {path.name}; expected a name that ends in .gif or .mp4")
    if path.suffix == ".mp4" and shutil.which("ffmpeg") is None:
        raise ScenarioError(f"--film: got {path.name}; that needs ffmpeg, which is not installed here")
    world = world_of(scenario.env)
    if scenario.env.name not in TASKS and world.scene is None and world.drawable is None:
        raise ScenarioError(f"--film: {scenario.env.name} has no pictures; robots have, and worlds with a `scene` or a `frame`")
    if scenario.clock == "wall":
        raise ScenarioError("--film: clock: got 'wall'; a film is made in virtual time")
    os.environ.setdefault("MUJOCO_GL", "egl")  # for imported environments too
    if scenario.env.name not in TASKS:
        return
    try:
        import mujoco  # type: ignore[import-untyped]

        mujoco.Renderer(mujoco.MjModel.from_xml_string("<mujoco/>"), HIGH, WIDE).close()
    except Exception as error:  # noqa: BLE001  (whatever the graphics library of this machine raises)
        raise ScenarioError(
            f"--film: MuJoCo cannot draw here ({' '.join(str(error).split()) or type(error).__name__}); "
            "MUJOCO_GL chooses how: egl, osmesa or glfw"
        ) from None


def try_out(evaluated: Plan) -> None:
    """Make sure that a world which can be drawn is, before the evaluation.

    Raises:
        ScenarioError: it does not; the text says why.
    """
    scenario = evaluated.scenario
    if scenario.env.name in TASKS:
        return
    env = scenario.env.model_copy(update={"num_envs": 1})
    try:
        world, camera = _watched(env, evaluated.deployment.graph(), evaluated.deployment.seed(scenario))
        try:
            world.reset()
            camera.view()
        finally:
            world.close()
    except ValueError as error:
        raise ScenarioError(f"--film: {error}") from None


def film(evaluated: Plan, path: Path) -> None:
    """Film the first seconds of an episode.

    Args:
        evaluated: The evaluation's plan; one copy is filmed.
        path: What to write, .gif or .mp4.

    Raises:
        ScenarioError: a node could not go on, or the file cannot be written.
    """
    scenario, graph, weights = evaluated.scenario, evaluated.deployment.graph(), evaluated.deployment.weights
    assert weights is not None, "an evaluated agent has weights"
    horizon, dt = evaluated.spec.horizon, evaluated.spec.dt
    every = max(1, round(1.0 / (PER_SECOND * dt)))
    steps = min(horizon, max(every, round(FILM_S / dt), STEPS))
    ready = plan(
        scenario.model_copy(
            update={
                "env": scenario.env.model_copy(update={"num_envs": 1, "threads": 1}),
                "rollout": scenario.rollout.model_copy(update={"steps": 1}),
                "budget": scenario.budget.model_copy(update={"env_steps": steps}),
            }
        ),
        weights=Path(weights),
        graph=graph,
    )
    loads: list[dict[tuple[int, int], Load]] = [defaultdict(lambda: (0, 0)) for _ in range(steps)]

    def note(report: Control) -> None:
        if isinstance(report, RoundReport):
            for row in report.traffic:
                if row.plane == "peer":
                    link = int(row.src), int(row.dst)
                    sent, lost = loads[row.round][link]
                    loads[row.round][link] = sent + row.wire_bytes, lost + row.dropped

    with tempfile.TemporaryDirectory(prefix="kappahop-film-") as folder:
        run_dir = Path(folder) / "run"
        make_run_dir(run_dir, ready)
        recorder = Recorder(run_dir, env_steps_per_round=1)
        world = _Filmed(*_watched(ready.scenario.env, graph, ready.deployment.seed(ready.scenario)), every)
        outcome = in_process.run(ready, run_dir, recorder, note, env=world)
        recorder.close()
    if outcome.error is not None:
        raise ScenarioError(f"--film: {outcome.error}")
    steps_seen = range(0, steps, every)
    shots = [Shot(view, cost, loads[step]) for view, cost, step in zip(world.views, world.costs, steps_seen, strict=True)]
    limits = evaluated.deployment.cost_limits
    _write(path, shots, graph, dt * every, cost_limit=limits[0] if limits else None)


@dataclass(frozen=True, slots=True)
class View:
    """What is seen of a world at one moment.

    Attributes:
        picture: Of the world, (HIGH, WIDE, 3).
        ground: The ground around a robot from above, (DEEP, WIDE, 3); None where there is nothing on it and no place costs
            anything, and without a robot.
        agents: Where agents are in the picture, (n, 2), to the right and up in any unit; None: nowhere.
    """

    picture: Picture
    ground: Picture | None = None
    agents: NDArray[np.float64] | None = None


class Camera(Protocol):
    """Looks at a world of one copy."""

    def view(self) -> View:
        """What it sees now."""
        ...

    def close(self) -> None:
        """Release it."""
        ...


@dataclass(frozen=True, slots=True)
class Shot:
    """One picture of a film: what is seen, the team's cost in the episode so far, and by link what crosses it in that step."""

    view: View
    cost: float
    loads: Mapping[tuple[int, int], Load]


class _Filmed:
    """A world of one copy that is looked at through a camera."""

    def __init__(self, world: VecEnv, camera: Camera, every: int) -> None:
        self.spec: EnvSpec = world.spec
        self.num_envs: int = world.num_envs
        self.views: list[View] = []
        self.costs: list[float] = []
        self._world, self._every, self._camera = world, every, camera
        self._step, self._spent = 0, 0.0

    def reset(self, limits: Sequence[int] | None = None) -> list[Floats]:
        """See `VecEnv.reset`."""
        return self._world.reset(limits)

    def step(self, actions: Sequence[Floats]) -> Transition:
        """See `VecEnv.step`; a picture first, if it is time for one."""
        if self._step % self._every == 0:
            self.views.append(self._camera.view())
            self.costs.append(self._spent)
        self._step += 1
        found = self._world.step(actions)
        has_ended = bool(found.terminated[0] or found.truncated[0])
        self._spent = 0.0 if has_ended else self._spent + float(found.cost[:, 0].mean(axis=0)[:1].sum())
        return found

    def state(self) -> State:
        """See `VecEnv.state`."""
        return self._world.state()

    def restore(self, state: State) -> None:
        """See `VecEnv.restore`."""
        self._world.restore(state)

    def close(self) -> None:
        """See `VecEnv.close`."""
        self._camera.close()
        self._world.close()


def _watched(env: Env, graph: nx.Graph, seed: int) -> tuple[VecEnv, Camera]:
    """A world and the camera for it.

    Raises:
        ValueError: as `envs.registry.make`.
    """
    kind = world_of(env)
    world: Any = make(env, graph, seed, drawable=env.name not in TASKS and kind.scene is None)
    if env.name in TASKS:
        return world, _Robot(world)
    return world, _Self(world) if kind.scene is None else _Sketch(env.name, world, kind.scene)


class _Sketch:
    """Draws what the world says that a picture of it shows."""

    def __init__(self, name: str, world: VecEnv, scene: Callable[[Any, int], Scene]) -> None:
        self._name, self._world, self._scene = name, world, scene

    def view(self) -> View:
        """The scene of the only copy.

        Raises:
            WorldError: the world gave none that can be drawn.
        """
        try:
            found = self._scene(self._world, 0)
            return View(scenes.picture(found, WIDE, HIGH), agents=found.agents)
        except Exception as error:
            raise WorldError(f"world {self._name!r}: scene raised {type(error).__name__}: {error}; expected a Scene") from error

    def close(self) -> None:
        """Nothing to release."""


class _Self:
    """Has the world draw itself."""

    def __init__(self, world: Drawable) -> None:
        self._world = world

    def view(self) -> View:
        """The world's own picture, as large as it can be here, in the middle of a white one."""
        picture = Image.fromarray(self._world.frame(0))
        return View(np.asarray(ImageOps.pad(picture, (WIDE, HIGH), color="white")))

    def close(self) -> None:
        """Nothing to release."""


class _Robot:
    """Looks at a robot, and at the ground from above."""

    def __init__(self, world: "MujocoWorld") -> None:
        import mujoco

        self._world = world
        self._has_ground: bool | None = None  # not known yet
        model = world.model
        # two thirds of the time go into shadows and mirrors, a fifth into the sky, and none of them tells anything
        model.vis.quality.offsamples = 0
        self._renderer = mujoco.Renderer(model, HIGH, WIDE)
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION, mujoco.mjtRndFlag.mjRND_SKYBOX):
            self._renderer.scene.flags[flag] = 0
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_TRACKING
        self._camera.trackbodyid = int(model.jnt_bodyid[0])
        self._camera.distance, self._camera.elevation, self._camera.azimuth = DISTANCE, -20.0, 90.0
        bodies = [model.body(int(body)).name for body in model.geom_bodyid]
        self._boxes = [geom for geom, name in enumerate(bodies) if name.startswith(("wall", "obstacle"))]

    def close(self) -> None:
        """Release the renderer."""
        self._renderer.close()

    def view(self) -> View:
        """The robot and the ground."""
        import mujoco

        data = self._world.batch.get_data(0)
        mujoco.mj_forward(self._world.model, data)
        self._renderer.update_scene(data, self._camera)
        robot = np.asarray(self._renderer.render()).copy()
        robot[np.logical_and.accumulate(~robot.any(axis=-1), axis=0)] = SKY  # black down to the first thing that is seen
        return View(robot, self._ground(data))

    def _ground(self, data: Any) -> Picture | None:
        """The ground from above: the robot in the middle, walls and obstacles, red where standing costs."""
        x, y = self._world.place(0)
        across, up = np.meshgrid(x + (np.arange(WIDE) - WIDE / 2) / PER_METRE, y - (np.arange(DEEP) - DEEP / 2) / PER_METRE)
        costly = self._world.charged_at(across.ravel(), up.ravel(), 0).reshape(DEEP, WIDE)
        if self._has_ground is None:  # pictures of a film are all alike: at the start it shows whether there is anything to see
            self._has_ground = bool(self._boxes) or bool(costly.any())
        if not self._has_ground:
            return None
        image = Image.fromarray(np.where(costly[..., None], COSTLY, GROUND).astype(np.uint8))
        pen = ImageDraw.Draw(image)

        def on(place: NDArray[np.float64]) -> tuple[float, float]:
            return float((place[0] - x) * PER_METRE + WIDE / 2), float((y - place[1]) * PER_METRE + DEEP / 2)

        for geom in self._boxes:
            turn, half = data.geom_xmat[geom].reshape(3, 3), self._world.model.geom_size[geom]
            corners = [on(data.geom_xpos[geom] + turn @ (half * (a, b, 0.0))) for a, b in ((1, 1), (1, -1), (-1, -1), (-1, 1))]
            pen.polygon(corners, fill=INK)
            pen.line([*corners, corners[0]], fill=INK, width=3)
        pen.ellipse([WIDE / 2 - 5, DEEP / 2 - 5, WIDE / 2 + 5, DEEP / 2 + 5], fill=NODE)
        return np.asarray(image)


class _Screen:
    """Draws shots: on the left the world and the ground around a robot, on the right the graph with its traffic.

    Args:
        graph: The communication graph.
        most: Wire bytes of a link in a step that are drawn widest.
        cost_limit: What an episode's cost should stay below; None: nothing costs anything.
        agents: Where agents are, as `View` has it; None: the graph decides.
    """

    def __init__(self, graph: nx.Graph, most: int, cost_limit: float | None, agents: NDArray[np.float64] | None = None) -> None:
        places = layout(graph)
        points = np.array([places[i] for i in sorted(graph)]) if agents is None else agents
        low, size = points.min(axis=0), np.maximum(np.ptp(points, axis=0).max(), 1e-9)
        room, margin = min(ASIDE, HIGH) - 2 * MARGIN, MARGIN + (np.array([ASIDE, HIGH]) - min(ASIDE, HIGH)) / 2
        spread = (room - np.ptp(points, axis=0) / size * room) / 2
        scaled = (points - low) / size * room + margin + spread
        self._places = {i: (float(a) * FINE, float(HIGH - b) * FINE) for i, (a, b) in enumerate(scaled)}
        between = np.linalg.norm(scaled[:, None] - scaled, axis=2) + np.diag(np.full(len(scaled), np.inf))
        self._radius = float(np.clip(0.45 * between.min(initial=np.inf), *RADII))
        self._links = sorted(link for edge in graph.edges for link in (edge, edge[::-1]))
        self._most, self._cost_limit = most, cost_limit
        self._small, self._large = scenes.font(13), scenes.font(round(1.2 * self._radius * FINE))

    def drawn(self, shot: Shot, time_s: float, *, charged: bool) -> Image.Image:
        """A shot; `charged`: whether it has cost anything since the one before."""
        view = shot.view
        deep = TITLE + HIGH + (0 if view.ground is None else DEEP)
        image = Image.new("RGB", (WIDE + ASIDE, deep), "white")
        pen = ImageDraw.Draw(image)
        image.paste(Image.fromarray(view.picture), (0, TITLE))
        if view.ground is not None:
            image.paste(Image.fromarray(view.ground), (0, TITLE + HIGH))
            pen.text((6, TITLE + HIGH + 3), "from above; red: standing there costs", fill=INK, font=self._small)
        if charged:
            pen.rectangle([0, TITLE, WIDE - 1, TITLE + HIGH - 1], outline=LOST, width=4)
        told = f"{time_s:.2f} s" if time_s < 600 else f"{time_s / 60:.0f} min"
        if self._cost_limit is not None:
            told += f"    cost {shot.cost:.4g} so far, limit {self._cost_limit:g}"
        pen.text((6, 4), told, fill=LOST if charged else INK, font=self._small)
        now = [shot.loads.get(link, (0, 0)) for link in self._links]
        total, lost = (sum(column) for column in zip(*now, strict=True)) if now else (0, 0)
        pen.text(
            (WIDE + 6, 4),
            f"{total:,} bytes between agents, {lost} {'message' if lost == 1 else 'messages'} lost",
            fill=INK,
            font=self._small,
        )
        image.paste(self._traffic(now), (WIDE, TITLE))
        return image

    def _traffic(self, now: Sequence[Load]) -> Image.Image:
        image = Image.new("RGB", (ASIDE * FINE, HIGH * FINE), "white")
        pen = ImageDraw.Draw(image)
        for (a, b), (sent, lost) in zip(self._links, now, strict=True):
            width = max(1, round(FINE * (0.5 + 5.0 * sent / self._most)))
            pen.line(_beside(self._places[a], self._places[b]), fill=LOST if lost else LINK, width=width)
        radius = self._radius * FINE
        for i, (x, y) in self._places.items():
            pen.ellipse([x - radius, y - radius, x + radius, y + radius], fill=NODE)
            if self._radius >= NAMED_FROM:
                pen.text((x, y), str(i), fill="white", font=self._large, anchor="mm")
        return image.reduce(FINE)


def _write(path: Path, shots: Sequence[Shot], graph: nx.Graph, period_s: float, *, cost_limit: float | None) -> None:
    """Draw world and traffic side by side: links as wide as what crosses them, red where something is lost.

    Raises:
        ScenarioError: the file cannot be written.
    """
    most = max((sent for shot in shots for sent, _ in shot.loads.values()), default=0) or 1
    screen = _Screen(graph, most, cost_limit, shots[0].view.agents)
    shown_s = min(period_s, SLOWEST_S)
    costs = [0.0, *(shot.cost for shot in shots)]

    def drawn(number: int) -> Image.Image:
        return screen.drawn(shots[number], number * period_s, charged=costs[number + 1] > costs[number])

    try:
        if path.suffix == ".gif":
            _write_gif(path, [drawn(number) for number in range(len(shots))], shown_s)
        else:
            _write_mp4(path, map(drawn, range(len(shots))), shown_s)
    except OSError as error:
        raise ScenarioError(f"--film: cannot write {path} ({error.strerror or error})") from None


def _write_gif(path: Path, pictures: Sequence[Image.Image], period_s: float) -> None:
    """A GIF of one palette, chosen from some of the pictures: a palette for each takes longer than all the rest."""
    some = [pictures[place] for place in sorted({0, len(pictures) // 3, 2 * len(pictures) // 3, len(pictures) - 1})]
    sheet = Image.new("RGB", (some[0].width, len(some) * some[0].height + 8), LOST)
    for row, picture in enumerate(some):
        sheet.paste(picture, (0, row * picture.height))
    colours = sheet.reduce(2).quantize(255)
    first, *others = (picture.quantize(palette=colours, dither=Image.Dither.NONE) for picture in pictures)
    first.save(path, save_all=True, append_images=others, duration=round(1000 * period_s), loop=0, optimize=False)


def _write_mp4(path: Path, pictures: Iterable[Image.Image], period_s: float) -> None:
    """A film by ffmpeg.

    Raises:
        OSError: ffmpeg does not take it; the text is its own.
    """
    rest = iter(pictures)
    first = next(rest)
    size, rate = f"{first.width}x{first.height}", str(round(1.0 / period_s) or 1)
    words = ["-y", "-v", "error", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", size, "-r", rate, "-i", "-", "-an"]
    words += ["-vcodec", "h264", "-pix_fmt", "yuv420p", str(path.absolute())]
    with subprocess.Popen(["ffmpeg", *words], stdin=subprocess.PIPE, stderr=subprocess.PIPE) as ffmpeg:
        assert ffmpeg.stdin is not None
        assert ffmpeg.stderr is not None
        with contextlib.suppress(BrokenPipeError):  # it says why
            for picture in itertools.chain([first], rest):
                ffmpeg.stdin.write(picture.tobytes())
            ffmpeg.stdin.close()
        said = ffmpeg.stderr.read().decode(errors="replace").strip()
    if ffmpeg.returncode:
        raise OSError(said or f"ffmpeg ended with status {ffmpeg.returncode}")


def _beside(a: tuple[float, float], b: tuple[float, float]) -> list[tuple[float, float]]:
    """The line from a to b, moved to its right a little: the way back is another link."""
    across, up = b[0] - a[0], b[1] - a[1]
    length = math.hypot(across, up) or 1.0
    shift = -APART * FINE * up / length, APART * FINE * across / length
    return [(x + shift[0], y + shift[1]) for x, y in (a, b)]
