"""The robot tasks as data: which robot, which rule, which prices, which limits. Adding a task is adding a row.

Source: rules and limits of Safe MAMuJoCo after the public code, limits of the MAFOCOPS paper; velocity thresholds of SafePO.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from envs.interface import EnvSpec
from envs.robots import (
    ANT,
    ANT_PARTITIONS,
    CHEETAH_PARTITIONS,
    HALF_CHEETAH,
    MANY_ANT,
    MANY_ANT_PARTITIONS,
    MANY_ANT_SEGMENTS,
    Channel,
    Partition,
    Robot,
)
from envs.rules import MIN_UPRIGHT, CorridorRule, GapRule, Rule, SpeedRule
from scenarios.schema import Env

EPISODE = 1000  # steps


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A robot task.

    Attributes:
        model: Which builder of `envs.models`.
        robots: Robot of each partition.
        partitions: Joints of each agent, per partition.
        rules: Safety rule of each partition.
        cost_limits: Default limit on an episode's cost, per partition.
        walls: Which values of the knob make sense.
        dt: Control period [s].
        frame_skip: Physics steps per control period.
        control_price: Times the squared action.
        alive_bonus: Per step.
        contacts: Whether contact forces are priced.
        min_upright: Least R_zz of a going episode; -inf: tilt is free; None: the task never terminates.
        obstacle: Whether the model has the moving obstacle.
    """

    model: Literal["ant", "half_cheetah", "many_ant"]
    robots: Mapping[str, Robot]
    partitions: Mapping[str, Partition]
    rules: Mapping[str, Rule]
    cost_limits: Mapping[str, float]
    walls: tuple[str, ...]
    dt: float
    frame_skip: int
    control_price: float
    alive_bonus: float
    contacts: bool
    min_upright: float | None
    obstacle: bool = False


_ANT_BODY: dict[str, Any] = {
    "model": "ant",
    "robots": dict.fromkeys(ANT_PARTITIONS, ANT),
    "partitions": ANT_PARTITIONS,
    "dt": 0.05,
    "frame_skip": 5,
    "control_price": 0.5,
    "alive_bonus": 1.0,
    "contacts": True,
}
_CHEETAH_BODY: dict[str, Any] = {
    "model": "half_cheetah",
    "robots": dict.fromkeys(CHEETAH_PARTITIONS, HALF_CHEETAH),
    "partitions": CHEETAH_PARTITIONS,
    "walls": ("none",),
    "dt": 0.05,
    "frame_skip": 5,
    "control_price": 0.1,
    "alive_bonus": 0.0,
    "contacts": False,
    "min_upright": None,
}

TASKS: Mapping[str, Task] = {
    "safe_ant": Task(
        **_ANT_BODY,
        rules=dict.fromkeys(ANT_PARTITIONS, CorridorRule(5.0)),
        cost_limits={"2x4": 50.0, "2x4d": 50.0, "4x2": 50.0, "8x1": 70.0},
        walls=("none", "static", "free"),
        min_upright=MIN_UPRIGHT,
    ),
    "safe_halfcheetah": Task(
        **_CHEETAH_BODY,
        rules=dict.fromkeys(CHEETAH_PARTITIONS, GapRule()),
        cost_limits=dict.fromkeys(CHEETAH_PARTITIONS, 30.0),
        obstacle=True,
    ),
    "safe_manyagent_ant": Task(
        model="many_ant",
        robots={name: MANY_ANT[segments] for name, segments in MANY_ANT_SEGMENTS.items()},
        partitions=MANY_ANT_PARTITIONS,
        rules=dict.fromkeys(MANY_ANT_PARTITIONS, CorridorRule(4.5)),
        cost_limits={"2x3": 25.0, "3x2": 25.0, "6x1": 25.0, "2x4": 80.0, "4x2": 80.0, "8x1": 80.0},
        walls=("none", "static", "free"),
        dt=0.02,
        frame_skip=4,
        control_price=0.5,
        alive_bonus=1.0,
        contacts=True,
        min_upright=MIN_UPRIGHT,
    ),
    # thresholds [m/s] as published for 2x4 and 4x2, 2x3 and 6x1; the others take the one of the nearest number of agents
    "velocity_ant": Task(
        **_ANT_BODY,
        rules={"2x4": SpeedRule(2.522), "2x4d": SpeedRule(2.522), "4x2": SpeedRule(2.418), "8x1": SpeedRule(2.418)},
        cost_limits=dict.fromkeys(ANT_PARTITIONS, 25.0),
        walls=("none",),
        min_upright=-math.inf,
    ),
    "velocity_halfcheetah": Task(
        **_CHEETAH_BODY,
        rules={"2x3": SpeedRule(3.227), "3x2": SpeedRule(3.227), "6x1": SpeedRule(2.932)},
        cost_limits=dict.fromkeys(CHEETAH_PARTITIONS, 25.0),
    ),
}


def check(env: Env) -> None:
    """Refuse what a robot task cannot do.

    Args:
        env: The scenario's section, `name` one of `TASKS`.

    Raises:
        ValueError: The partition or the walls are none of this task's.
    """
    task = TASKS[env.name]
    if env.partition not in task.partitions:
        raise ValueError(f"env.partition: got {env.partition!r}; {env.name} has {', '.join(task.partitions)}")
    if env.walls not in task.walls:
        raise ValueError(f"env.walls: got {env.walls!r}; {env.name} has {', '.join(task.walls)}")


def state(env: Env) -> tuple[Channel, ...]:
    """The whole state vector of a task, as `observation: full` and `reference` have it."""
    task = TASKS[env.name]
    robot = task.robots[env.partition]
    sensed = robot.blind_state if env.observation == "reference" else robot.state
    return (*sensed, *_safety(task, env.partition))


def senses(env: Env) -> tuple[tuple[Channel, ...], ...]:
    """Which numbers each agent senses, without the one-hot id of `observation: reference`.

    Args:
        env: A checked section.

    Returns:
        n tuples of channels.
    """
    task = TASKS[env.name]
    robot, deal = task.robots[env.partition], task.partitions[env.partition]
    if env.observation == "own":
        return tuple((*robot.own(joints), *_safety(task, env.partition)) for joints in deal)
    return (state(env),) * len(deal)


def _safety(task: Task, partition: str) -> tuple[Channel, ...]:
    speed = (Channel("qvel", "obstacle"),) if task.obstacle else ()
    return (*speed, *(Channel("extra", name) for name in task.rules[partition].extras))


def spec(env: Env) -> EnvSpec:
    """Shape of a robot task; builds nothing.

    Args:
        env: The scenario's section, `name` one of `TASKS`.

    Returns:
        One cost; the time limit is 1000 steps unless the scenario says otherwise.

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
        cost_limits=(task.cost_limits[env.partition],),
        horizon=EPISODE if env.horizon is None else env.horizon,
        dt=task.dt,
        edges=task.robots[env.partition].edges(deal),
    )
