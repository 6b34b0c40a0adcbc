"""The robot tasks as data: which robot, which rule, which prices, which limits. Adding a task is adding a row.

Source: rules and limits of Safe MAMuJoCo after the public code, limits of the MAFOCOPS paper; velocity thresholds of SafePO;
rewards, ends and starts of the tasks without cost are those of gymnasium's v5 environments.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from envs.interface import EnvSpec
from envs.robots.partitions import (
    ANT,
    ANT_PARTITIONS,
    CHEETAH_PARTITIONS,
    COUPLED_CHEETAHS,
    COUPLED_PARTITIONS,
    HALF_CHEETAH,
    HOPPER,
    HOPPER_PARTITIONS,
    HUMANOID,
    HUMANOID_PARTITIONS,
    MANY_ANT,
    MANY_ANT_PARTITIONS,
    MANY_ANT_SEGMENTS,
    SWIMMER,
    SWIMMER_PARTITIONS,
    WALKER,
    WALKER_PARTITIONS,
    Channel,
    Partition,
    Robot,
)
from envs.robots.rules import (
    MIN_UPRIGHT,
    Array,
    CorridorRule,
    FreePosture,
    GapRule,
    NoRule,
    PairGapRule,
    PlanarPosture,
    Posture,
    Rule,
    SpeedRule,
    TiedRule,
    capped_contact_price,
    contact_price,
)
from envs.robots.settings import CorridorRobot, LimitedRobot, Walls
from envs.robots.settings import Robot as Settings

EPISODE = 1000  # steps


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A robot task.

    Attributes:
        model: Which builder of `envs.robots.models`.
        robots: Robot of each partition.
        partitions: Joints of each agent, per partition.
        rules: Safety rule of each partition.
        dt: Control period [s].
        frame_skip: Physics steps per control period.
        control_price: Times the squared control.
        cost_limits: Default limit on an episode's cost, per partition; empty: the task has no cost.
        reference: Whether the public code's observation is offered; not where it holds more than coordinates and velocities.
        alive_bonus: Per step.
        falls_forfeit: Whether the step that loses the posture is paid no bonus.
        contact_price: From contact forces (E, bodies, 6) to their price (E,); None: free.
        posture: What must be kept; None: the task never terminates.
        progress_price: Times the speed along x.
        by_mass_centre: Whether x and y are those of the mass centre.
        control_scale: Control of a motor per unit of action.
        sensed_speed: Velocities are sensed clipped to ± this [m/s, rad/s]; None: as they are.
        start_noise: Positions start uniformly within ± this of the model's; velocities with this as standard deviation or bound.
        start_motion: Distribution of the velocities at the start.
        obstacle: Whether the model has the moving obstacle.
    """

    model: Literal["ant", "half_cheetah", "coupled_half_cheetah", "many_ant", "hopper", "walker2d", "humanoid", "swimmer"]
    robots: Mapping[str, Robot]
    partitions: Mapping[str, Partition]
    rules: Mapping[str, Rule]
    dt: float
    frame_skip: int
    control_price: float
    cost_limits: Mapping[str, float] = field(default_factory=dict)
    reference: bool = True
    alive_bonus: float = 0.0
    falls_forfeit: bool = False
    contact_price: Callable[[Array], Array] | None = None
    posture: Posture | None = None
    progress_price: float = 1.0
    by_mass_centre: bool = False
    control_scale: float = 1.0
    sensed_speed: float | None = None
    start_noise: float = 0.1
    start_motion: Literal["normal", "uniform"] = "normal"
    obstacle: bool = False


_ANT_BODY: dict[str, Any] = {
    "model": "ant",
    "robots": dict.fromkeys(ANT_PARTITIONS, ANT),
    "partitions": ANT_PARTITIONS,
    "dt": 0.05,
    "frame_skip": 5,
    "control_price": 0.5,
    "alive_bonus": 1.0,
    "contact_price": contact_price,
}
_ANT_HEIGHTS = (0.2, 1.0)  # m
_ON_ITS_LEGS = FreePosture(_ANT_HEIGHTS, MIN_UPRIGHT)
_CHEETAH_BODY: dict[str, Any] = {
    "model": "half_cheetah",
    "robots": dict.fromkeys(CHEETAH_PARTITIONS, HALF_CHEETAH),
    "partitions": CHEETAH_PARTITIONS,
    "dt": 0.05,
    "frame_skip": 5,
    "control_price": 0.1,
}
_COUPLED_BODY: dict[str, Any] = {
    "model": "coupled_half_cheetah",
    "robots": dict.fromkeys(COUPLED_PARTITIONS, COUPLED_CHEETAHS),
    "partitions": COUPLED_PARTITIONS,
    "dt": 0.05,
    "frame_skip": 5,
    "control_price": 0.05,  # the reward is the mean of both cheetahs'
    "reference": False,
}
_PLANAR_HOP: dict[str, Any] = {
    "dt": 0.008,
    "frame_skip": 4,
    "control_price": 1e-3,
    "alive_bonus": 1.0,
    "falls_forfeit": True,
    "sensed_speed": 10.0,
    "start_noise": 5e-3,
    "start_motion": "uniform",
}

TASKS: Mapping[str, Task] = {
    "safe_ant": Task(
        **_ANT_BODY,
        rules=dict.fromkeys(ANT_PARTITIONS, CorridorRule(5.0)),
        cost_limits={"2x4": 50.0, "2x4d": 50.0, "4x2": 50.0, "8x1": 70.0},
        posture=_ON_ITS_LEGS,
    ),
    "safe_halfcheetah": Task(
        **_CHEETAH_BODY,
        rules=dict.fromkeys(CHEETAH_PARTITIONS, GapRule()),
        cost_limits=dict.fromkeys(CHEETAH_PARTITIONS, 30.0),
        obstacle=True,
    ),
    "safe_coupled_halfcheetah": Task(
        **_COUPLED_BODY,
        rules=dict.fromkeys(COUPLED_PARTITIONS, PairGapRule()),
        cost_limits=dict.fromkeys(COUPLED_PARTITIONS, 30.0),
        obstacle=True,
    ),
    "safe_manyagent_ant": Task(
        model="many_ant",
        robots={name: MANY_ANT[segments] for name, segments in MANY_ANT_SEGMENTS.items()},
        partitions=MANY_ANT_PARTITIONS,
        rules=dict.fromkeys(MANY_ANT_PARTITIONS, CorridorRule(4.5)),
        cost_limits={"2x3": 25.0, "3x2": 25.0, "6x1": 25.0, "2x4": 80.0, "4x2": 80.0, "8x1": 80.0},
        dt=0.02,
        frame_skip=4,
        control_price=0.5,
        alive_bonus=1.0,
        contact_price=contact_price,
        posture=_ON_ITS_LEGS,
    ),
    # thresholds [m/s] as published for 2x4 and 4x2, 2x3 and 6x1; the others take the one of the nearest number of agents
    "velocity_ant": Task(
        **_ANT_BODY,
        rules={"2x4": SpeedRule(2.522), "2x4d": SpeedRule(2.522), "4x2": SpeedRule(2.418), "8x1": SpeedRule(2.418)},
        cost_limits=dict.fromkeys(ANT_PARTITIONS, 25.0),
        posture=FreePosture(_ANT_HEIGHTS),
    ),
    "velocity_halfcheetah": Task(
        **_CHEETAH_BODY,
        rules={"2x3": SpeedRule(3.227), "3x2": SpeedRule(3.227), "6x1": SpeedRule(2.932)},
        cost_limits=dict.fromkeys(CHEETAH_PARTITIONS, 25.0),
    ),
    "mamujoco_ant": Task(
        **_ANT_BODY,
        rules=dict.fromkeys(ANT_PARTITIONS, NoRule()),
        posture=FreePosture(_ANT_HEIGHTS),
        falls_forfeit=True,
        reference=False,
    ),
    "mamujoco_halfcheetah": Task(**_CHEETAH_BODY, rules=dict.fromkeys(CHEETAH_PARTITIONS, NoRule())),
    "coupled_halfcheetah": Task(**_COUPLED_BODY, rules=dict.fromkeys(COUPLED_PARTITIONS, TiedRule())),
    "mamujoco_hopper": Task(
        **_PLANAR_HOP,
        model="hopper",
        robots=dict.fromkeys(HOPPER_PARTITIONS, HOPPER),
        partitions=HOPPER_PARTITIONS,
        rules=dict.fromkeys(HOPPER_PARTITIONS, NoRule()),
        posture=PlanarPosture((0.7, math.inf), 0.2, bound=100.0),
    ),
    "mamujoco_walker2d": Task(
        **_PLANAR_HOP,
        model="walker2d",
        robots=dict.fromkeys(WALKER_PARTITIONS, WALKER),
        partitions=WALKER_PARTITIONS,
        rules=dict.fromkeys(WALKER_PARTITIONS, NoRule()),
        posture=PlanarPosture((0.8, 2.0), 1.0),
    ),
    "mamujoco_humanoid": Task(
        model="humanoid",
        robots=dict.fromkeys(HUMANOID_PARTITIONS, HUMANOID),
        partitions=HUMANOID_PARTITIONS,
        rules=dict.fromkeys(HUMANOID_PARTITIONS, NoRule()),
        dt=0.015,
        frame_skip=5,
        control_price=0.1,
        reference=False,
        alive_bonus=5.0,
        falls_forfeit=True,
        contact_price=capped_contact_price,
        posture=FreePosture((1.0, 2.0)),
        progress_price=1.25,
        by_mass_centre=True,
        control_scale=0.4,
        start_noise=0.01,
        start_motion="uniform",
    ),
    "mamujoco_swimmer": Task(
        model="swimmer",
        robots=dict.fromkeys(SWIMMER_PARTITIONS, SWIMMER),
        partitions=SWIMMER_PARTITIONS,
        rules=dict.fromkeys(SWIMMER_PARTITIONS, NoRule()),
        dt=0.04,
        frame_skip=4,
        control_price=1e-4,
        start_motion="uniform",
    ),
}


def check(env: Settings) -> None:
    """Refuse what a robot task cannot do.

    Args:
        env: The scenario's section, `name` one of `TASKS`.

    Raises:
        ValueError: The partition or the observation is none of this task's.
    """
    task = TASKS[env.name]
    if env.partition not in task.partitions:
        raise ValueError(f"env.partition: got {env.partition!r}; {env.name} has {', '.join(task.partitions)}")
    if env.observation == "reference" and not task.reference:
        raise ValueError(f"env.observation: got 'reference'; {env.name} has own, full")


def state(env: Settings) -> tuple[Channel, ...]:
    """The whole state vector of a task, as `observation: full` and `reference` have it."""
    task = TASKS[env.name]
    robot = task.robots[env.partition]
    sensed = robot.blind_state if env.observation == "reference" else robot.state
    return (*sensed, *_safety(task, env.partition))


def senses(env: Settings) -> tuple[tuple[Channel, ...], ...]:
    """Which numbers each agent senses, without the one-hot id of `observation: reference`.

    Args:
        env: A checked section.

    Returns:
        n tuples of channels.
    """
    task = TASKS[env.name]
    robot, deal = task.robots[env.partition], task.partitions[env.partition]
    if env.observation == "own":
        return tuple((*robot.own(joints), *_safety_of(joints, task, env.partition)) for joints in deal)
    return (state(env),) * len(deal)


def _safety_of(joints: Sequence[str], task: Task, partition: str) -> tuple[Channel, ...]:
    """The safety channels without those of bodies that an agent has no joint of."""
    robot = task.robots[partition]
    carriers = robot.carriers(joints)
    others = tuple(body.prefix for k, body in enumerate(robot.bodies) if k not in carriers)
    return tuple(channel for channel in _safety(task, partition) if not channel.name.startswith(others))


def _safety(task: Task, partition: str) -> tuple[Channel, ...]:
    speed = (Channel("qvel", "obstacle"),) if task.obstacle else ()
    return (*speed, *(Channel("extra", name) for name in task.rules[partition].extras))


def spec(env: Settings) -> EnvSpec:
    """Shape of a robot task; builds nothing.

    Args:
        env: The scenario's section, `name` one of `TASKS`.

    Returns:
        One cost, or none; the time limit is 1000 steps unless the scenario says otherwise.

    Raises:
        ValueError: As `check`.
    """
    check(env)
    task = TASKS[env.name]
    deal = task.partitions[env.partition]
    identity = len(deal) if env.observation == "reference" else 0
    return EnvSpec(
        obs_dims=tuple(len(channels) + identity for channels in senses(env)),
        act_dims=tuple(len(joints) for joints in deal),
        n_discrete=(0,) * len(deal),
        cost_limits=(task.cost_limits[env.partition],) if task.cost_limits else (),
        horizon=EPISODE if env.horizon is None else env.horizon,
        dt=task.dt,
        edges=task.robots[env.partition].edges(deal),
        alive_bonus=task.alive_bonus,
        own_costs=has_own_costs(env),
    )


def walls(env: Settings) -> Walls:
    """Which walls a robot has around it: of tasks without a corridor "none"."""
    return env.walls if isinstance(env, CorridorRobot) else "none"


def has_own_costs(env: Settings) -> bool:
    """Whether each agent is charged for its own foot."""
    return isinstance(env, LimitedRobot) and env.cost == "local"
