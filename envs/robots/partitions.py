"""Robots as their joints, and how joints are dealt to agents.

Theory of operation. A robot is data: its actuated joints in tree order, its motors' order, the channels of its root that every
agent senses, and *hyperedges*: sets of joints that are mutually adjacent. A partition deals the joints to agents; two agents
are adjacent iff a joint of one shares a hyperedge with a joint of the other. Everything is named, nothing is numbered: walls
and obstacles add coordinates to a model, and a number that was right without them would silently point elsewhere. Nothing here
needs MuJoCo.

Source: hyperedges after schroederdewitt/multiagent_mujoco, with the segment chain of its ManyAgent Ant. The partitions Ant 8x1,
Walker2d 3x2 and 6x1 and Humanoid 17x1 are ours: dealt along the chain, or in tree order.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations, pairwise
from typing import Any, Literal, NamedTuple

Partition = tuple[tuple[str, ...], ...]
FREE_POSE, FREE_MOTION = 7, 6  # numbers of a free joint: position and quaternion; linear and angular velocity


class Channel(NamedTuple):
    """One number of an observation.

    Attributes:
        field: Where it lives: a joint's position or velocity, or computed by the world's rule.
        name: Of the joint or of the computed number.
        part: Which component of a joint with several.
    """

    field: Literal["qpos", "qvel", "extra"]
    name: str
    part: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Robot:
    """A robot without its world.

    Attributes:
        joints: Actuated joints in tree order.
        motors: The same joints in the order of the model's motors.
        pose: The root's position channels that agents sense (never x and y).
        motion: The root's velocity channels.
        forward: The channel of x.
        sideways: The channel of y; None for a planar robot.
        hyperedges: Sets of mutually adjacent joints.
        parts: The robots that it is made of, where they are several bodies; each has a root of its own.
        prefix: What all its names begin with, where it is a part of a robot.
        segments: Body segments, for the robots that have a choice.
        blind: How many leading (qpos, qvel) numbers after x and y the public code's state vector really holds; None: all.
    """

    joints: tuple[str, ...]
    motors: tuple[str, ...]
    pose: tuple[Channel, ...]
    motion: tuple[Channel, ...]
    forward: Channel
    sideways: Channel | None
    hyperedges: tuple[frozenset[str], ...]
    parts: "tuple[Robot, ...]" = ()
    prefix: str = ""
    segments: int = 1
    blind: tuple[int, int] | None = field(default=None)

    @property
    def state(self) -> tuple[Channel, ...]:
        """The whole state vector but x and y: positions, then velocities, root first."""
        return (
            *self.pose, *(Channel("qpos", j) for j in self.joints),
            *self.motion, *(Channel("qvel", j) for j in self.joints),
        )  # fmt: skip

    @property
    def blind_state(self) -> tuple[Channel, ...]:
        """The state vector as the public code cuts it; the whole one where it cuts nothing."""
        if self.blind is None:
            return self.state
        positions = [c for c in self.state if c.field == "qpos"]
        velocities = [c for c in self.state if c.field == "qvel"]
        return (*positions[: self.blind[0]], *velocities[: self.blind[1]])

    @property
    def bodies(self) -> "tuple[Robot, ...]":
        """Its parts, or itself where it is one body."""
        return self.parts or (self,)

    def carriers(self, joints: Sequence[str]) -> tuple[int, ...]:
        """Which bodies have any of the joints."""
        return tuple(k for k, body in enumerate(self.bodies) if not set(body.joints).isdisjoint(joints))

    def own(self, joints: Sequence[str]) -> tuple[Channel, ...]:
        """What an agent senses of its joints, then of the root; body by body where it has joints of several."""
        if self.parts:
            bodies = [self.parts[k] for k in self.carriers(joints)]
            return tuple(channel for body in bodies for channel in body.own([j for j in joints if j in body.joints]))
        return (
            *(Channel("qpos", j) for j in joints), *(Channel("qvel", j) for j in joints),
            *self.pose, *self.motion,
        )  # fmt: skip

    def edges(self, partition: Partition) -> tuple[tuple[int, int], ...]:
        """The agent graph: pairs i < j whose joints share a hyperedge.

        Args:
            partition: Joints of each agent, n tuples.

        Returns:
            Sorted pairs.
        """
        owner = {joint: agent for agent, joints in enumerate(partition) for joint in joints}
        pairs = {tuple(sorted((owner[a], owner[b]))) for edge in self.hyperedges for a, b in combinations(sorted(edge), 2)}
        return tuple(sorted((i, j) for i, j in pairs if i != j))

    def named(self, prefix: str) -> "Robot":
        """The same robot with all its names behind a prefix."""

        def channels(old: Iterable[Channel]) -> tuple[Channel, ...]:
            return tuple(channel._replace(name=prefix + channel.name) for channel in old)

        (forward,) = channels([self.forward])
        return replace(
            self, joints=tuple(prefix + joint for joint in self.joints), motors=tuple(prefix + joint for joint in self.motors),
            pose=channels(self.pose), motion=channels(self.motion), forward=forward,
            sideways=None if self.sideways is None else channels([self.sideways])[0],
            hyperedges=tuple(frozenset(prefix + joint for joint in edge) for edge in self.hyperedges), prefix=prefix,
        )  # fmt: skip

    @classmethod
    def tied(cls, parts: "Sequence[Robot]", tie: Iterable[str]) -> "Robot":
        """Several bodies as one robot; the joints at both ends of what ties them are mutually adjacent."""
        first = parts[0]
        return cls(
            joints=tuple(joint for part in parts for joint in part.joints),
            motors=tuple(joint for part in parts for joint in part.motors),
            pose=tuple(channel for part in parts for channel in part.pose),
            motion=tuple(channel for part in parts for channel in part.motion),
            forward=first.forward, sideways=first.sideways,
            hyperedges=(*(edge for part in parts for edge in part.hyperedges), frozenset(tie)),
            parts=tuple(parts),
        )  # fmt: skip


def _free_root(name: str) -> dict[str, Any]:
    return {
        "pose": tuple(Channel("qpos", name, k) for k in range(2, FREE_POSE)),
        "motion": tuple(Channel("qvel", name, k) for k in range(FREE_MOTION)),
        "forward": Channel("qpos", name, 0),
        "sideways": Channel("qpos", name, 1),
    }


def _planar_root() -> dict[str, Any]:
    return {
        "pose": (Channel("qpos", "rootz"), Channel("qpos", "rooty")),
        "motion": (Channel("qvel", "rootx"), Channel("qvel", "rootz"), Channel("qvel", "rooty")),
        "forward": Channel("qpos", "rootx"),
        "sideways": None,
    }


def _chain(joints: Sequence[str]) -> tuple[frozenset[str], ...]:
    return tuple(frozenset(pair) for pair in pairwise(joints))


def _dealt(joints: Sequence[str], size: int) -> Partition:
    return tuple(tuple(joints[k : k + size]) for k in range(0, len(joints), size))


def _legs(*groups: str) -> Partition:
    """Each group of leg digits is one agent, e.g. "12" the agent with legs 1 and 2."""
    return tuple(tuple(joint for leg in group for joint in (f"hip_{leg}", f"ankle_{leg}")) for group in groups)


_ANT_JOINTS = tuple(f"{part}_{leg}" for leg in (1, 2, 3, 4) for part in ("hip", "ankle"))

ANT = Robot(
    joints=_ANT_JOINTS,
    motors=tuple(f"{part}_{leg}" for leg in (4, 1, 2, 3) for part in ("hip", "ankle")),
    **_free_root("root"),
    hyperedges=(
        *(frozenset({f"hip_{leg}", f"ankle_{leg}"}) for leg in (1, 2, 3, 4)),
        frozenset(f"hip_{leg}" for leg in (1, 2, 3, 4)),
    ),
)
ANT_PARTITIONS: Mapping[str, Partition] = {
    "2x4": _legs("12", "34"),
    "2x4d": _legs("13", "24"),
    "4x2": _legs("1", "2", "3", "4"),
    "8x1": _dealt(_ANT_JOINTS, 1),
}

_CHEETAH_JOINTS = ("bthigh", "bshin", "bfoot", "fthigh", "fshin", "ffoot")
_CHEETAH_CHAIN = ("bfoot", "bshin", "bthigh", "fthigh", "fshin", "ffoot")

HALF_CHEETAH = Robot(
    joints=_CHEETAH_JOINTS,
    motors=_CHEETAH_JOINTS,
    **_planar_root(),
    hyperedges=_chain(_CHEETAH_CHAIN),
)
CHEETAH_PARTITIONS: Mapping[str, Partition] = {
    "2x3": _dealt(_CHEETAH_JOINTS, 3),
    "3x2": (("bfoot", "bshin"), ("bthigh", "ffoot"), ("fshin", "fthigh")),
    "6x1": _dealt(_CHEETAH_JOINTS, 1),
}

FIRST, SECOND = "first_", "second_"  # what names of the two cheetahs begin with
COUPLED_CHEETAHS = Robot.tied(
    [HALF_CHEETAH.named(FIRST), HALF_CHEETAH.named(SECOND)],
    tie=[cheetah + thigh for cheetah in (FIRST, SECOND) for thigh in ("bthigh", "fthigh")],
)
COUPLED_PARTITIONS: Mapping[str, Partition] = {
    "1p1": _dealt(COUPLED_CHEETAHS.joints, 6),
    "4x3": _dealt(COUPLED_CHEETAHS.joints, 3),
    "12x1": _dealt(COUPLED_CHEETAHS.joints, 1),
}


def _many_ant(segments: int) -> Robot:
    joints = tuple(f"{part}_{s}" for s in range(segments) for part in ("hip1", "ankle1", "hip2", "ankle2"))
    within = (
        frozenset(f"{part}_{s}" for part in pair)
        for s in range(segments)
        for pair in (("hip1", "ankle1"), ("hip2", "ankle2"), ("hip1", "hip2"))
    )
    between = (frozenset(f"hip{leg}_{k}" for leg in (1, 2) for k in (s - 1, s)) for s in range(1, segments))
    return Robot(
        joints=joints,
        motors=joints,
        **_free_root("root"),
        hyperedges=(*within, *between),
        segments=segments,
        # the public code cuts 42 positions and 36 velocities off a vector that holds only 14 and 12 of walls
        blind=(FREE_POSE + len(joints) - 28 - 2, FREE_MOTION + len(joints) - 24),
    )


MANY_ANT: Mapping[int, Robot] = {6: _many_ant(6), 8: _many_ant(8)}
MANY_ANT_SEGMENTS: Mapping[str, int] = {"2x3": 6, "3x2": 6, "6x1": 6, "2x4": 8, "4x2": 8, "8x1": 8}
MANY_ANT_PARTITIONS: Mapping[str, Partition] = {
    name: _dealt(MANY_ANT[segments].joints, 4 * segments // int(name.split("x")[0]))
    for name, segments in MANY_ANT_SEGMENTS.items()
}

_HOPPER_JOINTS = ("thigh_joint", "leg_joint", "foot_joint")

HOPPER = Robot(joints=_HOPPER_JOINTS, motors=_HOPPER_JOINTS, **_planar_root(), hyperedges=_chain(_HOPPER_JOINTS))
HOPPER_PARTITIONS: Mapping[str, Partition] = {"3x1": _dealt(_HOPPER_JOINTS, 1)}

_WALKER_JOINTS = (*_HOPPER_JOINTS, "thigh_left_joint", "leg_left_joint", "foot_left_joint")
_WALKER_CHAIN = ("foot_joint", "leg_joint", "thigh_joint", "thigh_left_joint", "leg_left_joint", "foot_left_joint")

WALKER = Robot(joints=_WALKER_JOINTS, motors=_WALKER_JOINTS, **_planar_root(), hyperedges=_chain(_WALKER_CHAIN))
WALKER_PARTITIONS: Mapping[str, Partition] = {
    "2x3": _dealt(_WALKER_CHAIN, 3),
    "3x2": _dealt(_WALKER_CHAIN, 2),
    "6x1": _dealt(_WALKER_CHAIN, 1),
}

_SWIMMER_JOINTS = ("motor1_rot", "motor2_rot")

SWIMMER = Robot(
    joints=_SWIMMER_JOINTS,
    motors=_SWIMMER_JOINTS,
    pose=(Channel("qpos", "free_body_rot"),),
    motion=(Channel("qvel", "slider1"), Channel("qvel", "slider2"), Channel("qvel", "free_body_rot")),
    forward=Channel("qpos", "slider1"),
    sideways=Channel("qpos", "slider2"),
    hyperedges=_chain(_SWIMMER_JOINTS),
)
SWIMMER_PARTITIONS: Mapping[str, Partition] = {"2x1": _dealt(_SWIMMER_JOINTS, 1)}

_ABDOMEN = ("abdomen_z", "abdomen_y", "abdomen_x")
_SIDES = ("right", "left")
_HIPS = {side: tuple(f"{side}_hip_{axis}" for axis in "xzy") for side in _SIDES}
_SHOULDERS = {side: (f"{side}_shoulder1", f"{side}_shoulder2") for side in _SIDES}
_LOWER_BODY = tuple(joint for side in _SIDES for joint in (*_HIPS[side], f"{side}_knee"))
_ARMS = tuple(joint for side in _SIDES for joint in (*_SHOULDERS[side], f"{side}_elbow"))
_HUMANOID_JOINTS = (*_ABDOMEN, *_LOWER_BODY, *_ARMS)

HUMANOID = Robot(
    joints=_HUMANOID_JOINTS,
    motors=("abdomen_y", "abdomen_z", "abdomen_x", *_LOWER_BODY, *_ARMS),
    **_free_root("root"),
    hyperedges=(
        frozenset(_ABDOMEN),
        *(
            frozenset(edge)
            for side in _SIDES
            for edge in (
                (*_HIPS[side], f"{side}_knee"),
                (*_SHOULDERS[side], f"{side}_elbow"),
                (*_ABDOMEN, *_HIPS[side]),
                (*_ABDOMEN, *_SHOULDERS[side]),
            )
        ),
    ),
)
HUMANOID_PARTITIONS: Mapping[str, Partition] = {
    "9|8": ((*_ABDOMEN, *_ARMS), _LOWER_BODY),
    "17x1": _dealt(_HUMANOID_JOINTS, 1),
}
