"""MuJoCo models of the robots in their worlds, built from gymnasium's assets or from scratch; no XML from elsewhere.

Each builder returns a compiled model. Names are the contract: the joints of `envs.robots.partitions`, "obstacle" for the
cheetah's moving wall, "wall0".."wall5" for the corridor's. Where contact forces are priced an accelerometer is mounted on the
torso, because MuJoCo fills `cfrc_ext` only if some sensor needs accelerations.
"""

import importlib.util
import math
from pathlib import Path
from typing import Any, Literal

import mujoco  # type: ignore[import-untyped]

from envs.robots.corridor import FREE_HEIGHT, STATIC_HEIGHT, WALL_DENSITY, WALL_HALF_SIZE, wall_poses

STATIC_PIECES = 4  # short boxes pass the bounding-sphere test less often than one of 40 m: a quarter faster (more are slower)
CHEETAH_MASS = 14.0  # kg, obstacle included: half_cheetah.xml's settotalmass
Walls = Literal["none", "static", "free"]


def _asset(name: str) -> Path:
    """Path of one of gymnasium's models, without importing gymnasium.

    Raises:
        RuntimeError: gymnasium is not installed.
    """
    found = importlib.util.find_spec("gymnasium")
    if found is None or not found.submodule_search_locations:
        raise RuntimeError(f"envs: {name} comes with gymnasium, which is not installed")
    return Path(found.submodule_search_locations[0]) / "envs" / "mujoco" / "assets" / name


def _add_walls(spec: Any, half_width: float, walls: Walls, count: int) -> None:
    if walls == "none":
        return
    for k, (x, y, yaw) in enumerate(wall_poses(half_width, count)):
        height = FREE_HEIGHT if walls == "free" else STATIC_HEIGHT
        turn = [math.cos(yaw / 2), 0.0, 0.0, math.sin(yaw / 2)]
        wall = spec.worldbody.add_body(name=f"wall{k}", pos=[x, y, height], quat=turn)
        if walls == "free":
            wall.add_freejoint(name=f"wall{k}")
        pieces = 1 if walls == "free" else STATIC_PIECES
        length = WALL_HALF_SIZE[0] / pieces
        for piece in range(pieces):
            along = (2 * piece + 1 - pieces) * length
            wall.add_geom(
                name=f"wall{k}_{piece}", type=mujoco.mjtGeom.mjGEOM_BOX, pos=[along, 0, 0], size=[length, *WALL_HALF_SIZE[1:]],
                density=WALL_DENSITY, contype=1, conaffinity=1,
            )  # fmt: skip


def _mount_accelerometer(spec: Any, torso: Any) -> None:
    torso.add_site(name="accelerometer")
    spec.add_sensor(
        name="accelerometer",
        type=mujoco.mjtSensor.mjSENS_ACCELEROMETER,
        objtype=mujoco.mjtObj.mjOBJ_SITE,
        objname="accelerometer",
    )


def ant(walls: Walls = "none", half_width: float = 5.0) -> Any:
    """The ant of gymnasium, with a long floor and six walls of the corridor if wanted.

    Args:
        walls: none, static (welded to the world) or free (each on a free joint).
        half_width: h [m].

    Returns:
        The compiled model: nq 15, nv 14, or 57 and 50 with free walls.
    """
    spec = mujoco.MjSpec.from_file(str(_asset("ant.xml")))
    floor = spec.geom("floor")
    floor.pos, floor.size = [30.0, 0.0, 0.0], [70.0, 25.0, 40.0]
    _add_walls(spec, half_width, walls, 6)
    _mount_accelerometer(spec, spec.body("torso"))
    return spec.compile()


def half_cheetah(obstacle: bool = True) -> Any:
    """The half cheetah of gymnasium, with the moving obstacle if wanted.

    The public model also has eight static boxes beside the track; the cheetah is planar and cannot touch them, so they are left
    out.

    Args:
        obstacle: Whether to add the box on its slide joint and motor, both named "obstacle" (the last motor).

    Returns:
        The compiled model: nq = nv = 10 with the obstacle, 9 without.
    """
    return _cheetahs(mujoco.MjSpec.from_file(str(_asset("half_cheetah.xml"))), obstacle)


def _cheetahs(spec: Any, obstacle: bool) -> Any:
    """A model with one cheetah or two, with the obstacle if wanted."""
    if obstacle:
        floor = spec.geom("floor")
        floor.pos, floor.size = [65.0, 0.0, 0.0], [150.0, 40.0, 40.0]
        body = spec.worldbody.add_body(name="obstacle", pos=[5.0, 0.0, 0.7])
        body.add_joint(
            name="obstacle", type=mujoco.mjtJoint.mjJNT_SLIDE, axis=[1, 0, 0], range=[-5000, 5000],
            damping=[0.2, 0, 0], stiffness=[0, 0, 0], armature=0.1,
        )  # fmt: skip
        body.add_geom(
            name="obstacle", type=mujoco.mjtGeom.mjGEOM_BOX, pos=[5.0, 0.0, 0.7], size=[0.1, 2.3, 1.3], density=1e-4,
            contype=1, conaffinity=1,
        )  # fmt: skip
        motor = spec.add_actuator(
            name="obstacle", target="obstacle", trntype=mujoco.mjtTrn.mjTRN_JOINT, ctrllimited=True, ctrlrange=[-1, 1]
        )
        motor.gear[0] = 120.0
    spec.compiler.settotalmass = -1  # deprecated attribute of the asset; what it did is done below
    model = spec.compile()
    mujoco.mj_setTotalmass(model, CHEETAH_MASS)
    mujoco.mj_setConst(model, mujoco.MjData(model))
    return model


def coupled_half_cheetah(obstacle: bool = False) -> Any:
    """Two half cheetahs of gymnasium abreast, tied by a tendon between their torsos, with the moving obstacle if wanted.

    Names of bodies, joints and motors begin with "first_" (at y = -1 m) or "second_" (at y = +1 m). As in multi-agent MuJoCo
    both weigh 14 kg together, and the tendon pulls weakly wherever it is and strongly when stretched beyond 3.5 m (or pressed
    below 1.5 m).

    Args:
        obstacle: As of `half_cheetah`; it is wide enough for both.

    Returns:
        The compiled model: nq = nv = 18, or 19 with the obstacle.

    Source:
        Tendon and places after schroederdewitt/multiagent_mujoco, as gymnasium-robotics has them.
    """
    spec = mujoco.MjSpec.from_file(str(_asset("half_cheetah.xml")))
    spec.delete(spec.body("torso"))
    tendon = spec.add_tendon(name="tendon", limited=True, range=[1.5, 3.5], stiffness=[0.1, 0, 0])
    for cheetah, y in (("first_", -1.0), ("second_", 1.0)):
        one = mujoco.MjSpec.from_file(str(_asset("half_cheetah.xml")))
        one.compiler.settotalmass = -1
        for spare in (one.geom("floor"), *one.lights, *one.materials, *one.textures):
            one.delete(spare)
        spec.attach(one, frame=spec.worldbody.add_frame(pos=[0.0, y, 0.0]), prefix=cheetah)
        spec.body(f"{cheetah}torso").add_site(name=f"{cheetah}torso")
        tendon.wrap_site(f"{cheetah}torso")
    return _cheetahs(spec, obstacle)


def plain(asset: str, *, contacts: bool = False) -> Any:
    """One of gymnasium's models as it is.

    Args:
        asset: Its file name, e.g. "hopper.xml".
        contacts: Whether contact forces are wanted; then the torso gets the accelerometer.

    Returns:
        The compiled model.
    """
    spec = mujoco.MjSpec.from_file(str(_asset(asset)))
    if contacts:
        _mount_accelerometer(spec, spec.body("torso"))
    return spec.compile()


def many_ant(segments: int, walls: Walls = "none", half_width: float = 4.5) -> Any:
    """A chain of ants on a rigid spine.

    Args:
        segments: How many pairs of legs.
        walls: none, static (all six) or free (the first two, as the public model has).
        half_width: h [m].

    Returns:
        The compiled model: nq = 7 + 4·segments, nv = 6 + 4·segments, and 14 and 12 more with free walls.
    """
    spec = mujoco.MjSpec()
    spec.compiler.inertiafromgeom = mujoco.mjtInertiaFromGeom.mjINERTIAFROMGEOM_TRUE
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_RK4
    spec.option.timestep = 0.005
    joint, geom = spec.default.joint, spec.default.geom
    joint.armature, joint.damping, joint.limited = 1.0, [1.0, 0, 0], mujoco.mjtLimited.mjLIMITED_TRUE
    geom.conaffinity, geom.condim, geom.density, geom.friction, geom.margin = 0, 3, 5.0, [1.0, 0.5, 0.5], 0.01
    spec.worldbody.add_geom(name="floor", type=mujoco.mjtGeom.mjGEOM_PLANE, pos=[30, 0, 0], size=[70, 25, 40], conaffinity=1)

    torso = spec.worldbody.add_body(name="torso_0", pos=[0, 0, 0.75])
    torso.add_joint(
        name="root",
        type=mujoco.mjtJoint.mjJNT_FREE,
        armature=0,
        damping=[0, 0, 0],
        limited=mujoco.mjtLimited.mjLIMITED_FALSE,
        margin=0.01,
    )
    first = torso
    for s in range(segments):
        if s:
            torso = torso.add_body(name=f"torso_{s}", pos=[-1, 0, 0])
            _capsule(torso, (1.0, 0.0, 0.0), (0.0, 0.0, 0.0), radius=0.1, density=100.0)
        reach = 0.2 if s == 0 else -0.2
        for leg, side in ((1, 0.2), (2, -0.2)):
            root = (0.2, side, 0.0) if s == 0 else (0.0, side, 0.0)
            slant = -1.0 if (leg == 1) == (s == 0) else 1.0
            bend = (30.0, 70.0) if s == 0 else (-70.0, -30.0)
            _leg(spec, torso, f"{leg}_{s}", root=root, along=(reach, side, 0.0), slant=slant, bend=bend)
    _add_walls(spec, half_width, walls, 2 if walls == "free" else 6)
    _mount_accelerometer(spec, first)
    return spec.compile()


def _capsule(body: Any, start: tuple[float, ...], end: tuple[float, ...], *, radius: float, density: float | None = None) -> None:
    extra = {} if density is None else {"density": density}
    body.add_geom(type=mujoco.mjtGeom.mjGEOM_CAPSULE, fromto=[*start, *end], size=[radius, 0, 0], **extra)


def _leg(
    spec: Any,
    torso: Any,
    name: str,
    *,
    root: tuple[float, ...],
    along: tuple[float, ...],
    slant: float,
    bend: tuple[float, float],
) -> None:
    """A stub on the torso, a thigh on a vertical hinge and a twice as long shin on a horizontal one, with their motors."""
    stub = torso.add_body(name=f"leg{name}")
    _capsule(stub, (0.0, 0.0, 0.0), root, radius=0.08)
    thigh = stub.add_body(name=f"thigh{name}", pos=list(root))
    thigh.add_joint(name=f"hip{name}", type=mujoco.mjtJoint.mjJNT_HINGE, axis=[0, 0, 1], range=[-30, 30])
    _capsule(thigh, (0.0, 0.0, 0.0), along, radius=0.08)
    shin = thigh.add_body(name=f"shin{name}", pos=list(along))
    shin.add_joint(name=f"ankle{name}", type=mujoco.mjtJoint.mjJNT_HINGE, axis=[slant, 1, 0], range=list(bend))
    _capsule(shin, (0.0, 0.0, 0.0), tuple(2 * c for c in along), radius=0.08)
    for part in ("hip", "ankle"):
        motor = spec.add_actuator(
            name=f"{part}{name}", target=f"{part}{name}", trntype=mujoco.mjtTrn.mjTRN_JOINT, ctrllimited=True, ctrlrange=[-1, 1]
        )
        motor.gear[0] = 150.0
