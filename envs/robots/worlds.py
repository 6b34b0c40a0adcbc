"""The robot tasks as worlds: their settings, their shape, and what makes them."""

import networkx as nx

from envs.interface import VecEnv, World
from envs.robots.settings import CorridorRobot, LimitedRobot
from envs.robots.settings import Robot as Settings
from envs.robots.tasks import spec


def _make(env: Settings, graph: nx.Graph, seed: int) -> VecEnv:
    from envs.robots.mujoco_world import MujocoWorld  # MuJoCo costs 0.15 s and 30 MB, which only the world's process should pay

    return MujocoWorld(env, seed)


ROBOT: World[Settings] = World(settings=Settings, spec=spec, make=_make)
LIMITED: World[LimitedRobot] = World(settings=LimitedRobot, spec=spec, make=_make)
CORRIDOR: World[CorridorRobot] = World(settings=CorridorRobot, spec=spec, make=_make)
