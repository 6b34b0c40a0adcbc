"""Settings of the robots: what each kind of task has."""

from typing import Literal

from scenarios.schema import DEFAULT_WORLD, Env, setting

Walls = Literal["none", "static", "free"]


class Robot(Env):
    """A robot whose joints are dealt to agents."""

    name: str = setting(DEFAULT_WORLD, "Which world.")
    partition: str = setting("6x1", "How the robot's joints are dealt to agents, as agents x joints, e.g. 4x2.")
    observation: Literal["own", "full", "reference"] = setting(
        "own",
        "What a node senses itself: own joints and the torso's globals; the whole state; or the public code's "
        "standardised vector, where there is one.",
    )
    reward: Literal["team", "local"] = setting(
        "team", "One reward for all, or each agent its own share (shares sum to the team's)."
    )
    action_map: Literal["by_name", "reference"] = setting(
        "by_name", "Whether agents drive the joints their partition names, or consecutive actuators as the public code does."
    )
    threads: int = setting(0, "Native threads that step MuJoCo; 0: one per core.", unit="threads", ge=0, le=256)


class LimitedRobot(Robot):
    """A robot with a cost."""

    cost: Literal["team", "local"] = setting(
        "team", "One cost for all, or from the agent's own foot where the robot has feet, or own body where it has two."
    )


class CorridorRobot(LimitedRobot):
    """A robot in a folded corridor."""

    walls: Walls = setting(
        "none",
        "Physical corridor walls: none (only the cost lines), static (they confine), free (they topple, as in the public code).",
    )
