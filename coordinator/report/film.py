"""A film of a trained team: the robot, and beside it what agents tell each other meanwhile.

Theory of operation. One deployment plays once more, in this process and without exploration, in rounds of one step: what a
round books on a link is then what crossed it in that step. The world is wrapped by one that takes a picture of the robot
before each step that is to be seen; reports bring the traffic. Pictures and traffic are put side by side at the end.

Rendering needs no window: MuJoCo draws by EGL unless the environment variable MUJOCO_GL says otherwise.
"""

import os
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from coordinator.run import in_process
from coordinator.run.database import Recorder
from coordinator.run.plan import Plan, make_run_dir, plan
from envs.interface import EnvSpec, Floats, Transition
from envs.registry import make
from envs.robots.tasks import TASKS
from scenarios.loading import ScenarioError
from scenarios.schema import Scenario
from topology.graph.drawing import layout
from topology.planes.control import Control, RoundReport
from topology.snapshot import State

if TYPE_CHECKING:
    from envs.robots.mujoco_world import MujocoWorld

FILM_S = 10.0  # virtual seconds of the modelled deployment, which is as long as the film takes
PER_SECOND = 20  # pictures; fewer if control periods are longer
WIDE, HIGH = 480, 360  # of the robot's picture, in pixels
DISTANCE = 5.0  # of the camera from the robot, in metres
WRITERS = {".gif": "pillow", ".mp4": "ffmpeg"}

Picture = NDArray[np.uint8]
Load = tuple[int, int]  # wire bytes and lost messages of a link in one step


def check(scenario: Scenario, path: Path) -> None:
    """Make sure that such a film can be made, before MuJoCo is imported: it then looks how to draw.

    Raises:
        ScenarioError: its folder does not exist, the world has no robot, there is nothing to write such a file with, the clock
            is the wall's, or MuJoCo cannot draw on this machine.
    """
    from matplotlib.animation import writers

    if not path.absolute().parent.is_dir():
        raise ScenarioError(f"--film: got {path}; there is no folder {path.parent}")
    if path.suffix not in WRITERS:
        raise ScenarioError(f"--film: got {path.name}; expected a name that ends in {' or '.join(WRITERS)}")
    if not writers.is_available(WRITERS[path.suffix]):
        raise ScenarioError(f"--film: got {path.name}; that needs {WRITERS[path.suffix]}, which is not installed here")
    if scenario.env.name not in TASKS:
        raise ScenarioError(f"--film: {scenario.env.name} has no robot to look at")
    if scenario.clock == "wall":
        raise ScenarioError("--film: clock: got 'wall'; a film is made in virtual time")
    os.environ.setdefault("MUJOCO_GL", "egl")
    try:
        import mujoco  # type: ignore[import-untyped]

        mujoco.Renderer(mujoco.MjModel.from_xml_string("<mujoco/>"), HIGH, WIDE).close()
    except Exception as error:  # noqa: BLE001  (whatever the graphics library of this machine raises)
        raise ScenarioError(
            f"--film: MuJoCo cannot draw here ({' '.join(str(error).split()) or type(error).__name__}); "
            "MUJOCO_GL chooses how: egl, osmesa or glfw"
        ) from None


def film(evaluated: Plan, path: Path) -> None:
    """Film the first seconds of an episode.

    Args:
        evaluated: The evaluation's plan; one copy is filmed.
        path: What to write, .gif or .mp4.

    Raises:
        ScenarioError: a node could not go on, or the file cannot be written.
    """
    scenario, graph, weights = evaluated.scenario, evaluated.deployment.graph(), evaluated.deployment.weights
    assert weights is not None, "whoever is evaluated has weights"
    horizon, dt = evaluated.spec.horizon, evaluated.spec.dt
    every = max(1, round(1.0 / (PER_SECOND * dt)))
    steps = min(horizon, max(every, round(FILM_S / dt)))
    ready = plan(
        scenario.model_copy(
            update={
                "env": scenario.env.model_copy(update={"copies": 1, "threads": 1}),
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
        world = _Filmed(make(ready.scenario.env, graph, ready.deployment.seed(ready.scenario)), every)
        outcome = in_process.run(ready, run_dir, recorder, note, env=world)
        recorder.close()
    if outcome.error is not None:
        raise ScenarioError(f"--film: {outcome.error}")
    _write(path, world.pictures, [loads[step] for step in range(0, steps, every)], graph, dt * every)


class _Filmed:
    """A world of one robot that takes pictures of it."""

    def __init__(self, world: Any, every: int) -> None:
        import mujoco

        self.spec: EnvSpec = world.spec
        self.copies: int = world.copies
        self.pictures: list[Picture] = []
        self._world: MujocoWorld = world
        self._every = every
        self._step = 0
        self._renderer = mujoco.Renderer(self._world.model, HIGH, WIDE)
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_TRACKING
        self._camera.trackbodyid = int(self._world.model.jnt_bodyid[0])
        self._camera.distance, self._camera.elevation, self._camera.azimuth = DISTANCE, -20.0, 90.0

    def reset(self, limits: Sequence[int] | None = None) -> list[Floats]:
        """See `VecEnv.reset`."""
        return self._world.reset(limits)

    def step(self, actions: Sequence[Floats]) -> Transition:
        """See `VecEnv.step`; a picture first, if it is time for one."""
        if self._step % self._every == 0:
            self.pictures.append(self._picture())
        self._step += 1
        return self._world.step(actions)

    def state(self) -> State:
        """See `VecEnv.state`."""
        return self._world.state()

    def restore(self, state: State) -> None:
        """See `VecEnv.restore`."""
        self._world.restore(state)

    def close(self) -> None:
        """See `VecEnv.close`."""
        self._renderer.close()
        self._world.close()

    def _picture(self) -> Picture:
        import mujoco

        data = self._world.batch.get_data(0)
        mujoco.mj_forward(self._world.model, data)
        self._renderer.update_scene(data, self._camera)
        return np.asarray(self._renderer.render()).copy()


def _write(
    path: Path, pictures: Sequence[Picture], loads: Sequence[dict[tuple[int, int], Load]], graph: nx.Graph, period_s: float
) -> None:
    """Draw robot and traffic side by side: links as wide as what crosses them, red where something is lost.

    Raises:
        ScenarioError: the file cannot be written.
    """
    from matplotlib.animation import writers
    from matplotlib.collections import LineCollection
    from matplotlib.figure import Figure

    places = layout(graph)
    links = sorted(link for edge in graph.edges for link in (edge, edge[::-1]))
    most = max((sent for load in loads for sent, _ in load.values()), default=0) or 1
    figure = Figure(figsize=(9.0, 3.6), dpi=100, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(WIDE, HIGH))
    for axes in (left, right):
        axes.set_axis_off()
    right.set_aspect("equal", adjustable="datalim")
    right.margins(0.2)
    shown = left.imshow(pictures[0])
    right.scatter(*zip(*(places[i] for i in sorted(graph)), strict=True), s=300, c="#00204c", zorder=2)
    for i in sorted(graph):
        right.annotate(str(i), places[i], color="white", ha="center", va="center", zorder=3)
    lines = LineCollection([_beside(places[a], places[b]) for a, b in links], zorder=1)
    right.add_collection(lines)
    try:
        writer = writers[WRITERS[path.suffix]](fps=round(1.0 / period_s) or 1)
        with writer.saving(figure, str(path), 100):
            for number, (picture, load) in enumerate(zip(pictures, loads, strict=True)):
                now = [load.get(link, (0, 0)) for link in links]
                shown.set_data(picture)
                lines.set_linewidth([0.3 + 4.0 * sent / most for sent, _ in now])
                lines.set_color(["#c0392b" if lost else "#7f8c8d" for _, lost in now])
                total, lost = (sum(column) for column in zip(*now, strict=True))
                left.set_title(f"{number * period_s:.2f} s", fontsize=10)
                right.set_title(f"{total} bytes between agents, {lost} messages lost", fontsize=10)
                writer.grab_frame()
    except OSError as error:
        raise ScenarioError(f"--film: cannot write {path} ({error.strerror})") from None


def _beside(a: tuple[float, float], b: tuple[float, float]) -> list[tuple[float, float]]:
    """The line from a to b, moved to its right a little: the way back is another link."""
    across, up = b[0] - a[0], b[1] - a[1]
    shift = 0.05 * up, -0.05 * across
    return [(x + shift[0], y + shift[1]) for x, y in (a, b)]
