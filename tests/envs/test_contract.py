"""Every world and partition through every sentence of the contract."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import networkx as nx
import numpy as np
import pytest

from envs.contract import Nature, Share, broken
from envs.games.settings import DifferentialGame
from envs.interface import Floats, Transition, VecEnv
from envs.registry import make, section, spec
from envs.robots.tasks import TASKS
from scenarios.registry import WORLDS
from scenarios.schema import Env
from topology.snapshot import State

Team = str | int | tuple[int, int] | None  # a partition of a robot, a number of agents, rows and columns, or no choice
TEAMS: list[tuple[str, Team]] = [
    *((name, partition) for name, task in TASKS.items() for partition in task.partitions),
    ("network_lq", 6),
    ("network_lq", 1),
    ("cacc_catchup", 8),
    ("cacc_slowdown", 1),
    ("traffic_grid", (5, 5)),
    ("traffic_grid", (1, 1)),
    ("wireless", (5, 5)),
    ("sis", 8),
    ("sis", 2),
    ("sysadmin", 10),
    ("supply", 4),
    ("supply", 1),
    ("cells_7", None),
    ("cells_19", None),
    ("voltage_33", 6),
    ("voltage_141", 22),
    ("matrix_game", 2),
    *(("sharing_game", n) for n in (2, 3, 6)),
    ("stage_game", 2),
    *(("stochastic_game", n) for n in (1, 2, 3)),
    *(("truncation_chain", n) for n in (2, 5)),
    *(("differential_game", n) for n in range(1, 6)),
]
VARIANTS: list[tuple[str, Team, dict[str, Any]]] = [
    ("safe_ant", "8x1", {"reward": "local", "cost": "local", "walls": "static"}),
    ("safe_ant", "4x2", {"walls": "free", "observation": "full", "action_map": "reference"}),
    ("safe_halfcheetah", "3x2", {"reward": "local", "cost": "local", "observation": "reference"}),
    ("safe_manyagent_ant", "3x2", {"reward": "local", "cost": "local", "observation": "reference"}),
    ("velocity_ant", "2x4", {"reward": "local", "observation": "full"}),
    ("network_lq", 5, {"reward": "local", "observation": "full"}),
    ("network_lq", 3, {"control_limit": 0.1}),
    ("network_lq", 3, {"reward": "local", "cost": "local", "control_limit": 0.1}),
    ("cacc_catchup", 3, {"reward": "local", "cost": "local", "actions": "continuous", "headway_penalty": 5.0}),
    ("cacc_slowdown", 3, {"actions": "acceleration", "sensors": "odometer"}),
    ("traffic_grid", (2, 3), {"reward": "local", "cost": "local", "charged": "wait", "capacity": 4, "arrivals": 4.0}),
    ("wireless", (2, 3), {"reward": "local", "cost": "local", "charged": "drops", "deadline": 3, "arrival_prob": "uniform"}),
    ("sis", 5, {"reward": "local", "cost": "local", "contacts": "links", "dose_price": 0.2}),
    ("sysadmin", 4, {"reward": "local", "contacts": "links"}),
    ("cells_7", None, {"reward": "local", "cost": "local", "places": 3}),
    ("supply", 5, {"reward": "local", "cost": "local", "suppliers": "links", "lead_time": 3}),
    ("voltage_33", 1, {"reward": "local", "cost": "local", "barrier": "l1"}),
    ("voltage_33", 32, {"observation": "full"}),
    ("safe_coupled_halfcheetah", "1p1", {"reward": "local", "cost": "local", "observation": "full"}),
    ("mamujoco_humanoid", "17x1", {"reward": "local", "observation": "full", "action_map": "reference"}),
    ("mamujoco_walker2d", "3x2", {"reward": "local", "observation": "reference"}),
    *(("matrix_game", 2, {"payoff": payoff}) for payoff in ("penalty", "miscoordination", "non_monotone")),
    ("stage_game", 2, {"stages": 5, "encoding": "index"}),
    ("stochastic_game", 2, {"states": 7, "n_discrete": 2, "transition": "dirichlet", "start": "uniform"}),
    ("truncation_chain", 4, {"reward": "local", "observation": "full"}),
    ("truncation_chain", 4, {"reward": "local", "observation": "full", "encoding": "index"}),
    ("differential_game", 3, {"observation": "full"}),
    ("differential_game", 2, {"landscape": "basin"}),
]


def share(env: Env) -> Share:
    if getattr(env, "reward", "team") == "team":
        return "team"
    return "sum" if env.name in TASKS else "mean"


def nature(env: Env) -> Nature:
    if env.name in ("matrix_game", "sharing_game") or (isinstance(env, DifferentialGame) and env.landscape == "basin"):
        return "still"
    return "determined" if env.name == "stage_game" else "random"


CASES: list[tuple[str, Team, dict[str, Any]]] = [*((name, team, {}) for name, team in TEAMS), *VARIANTS]


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join([case[0], str(case[1]), *map(str, case[2].values())]))
def test_world_keeps_the_contract(case: tuple[str, Team, dict[str, Any]]) -> None:
    name, team, settings = case
    how_many: dict[str, Any] = dict(zip(("rows", "columns"), team, strict=True)) if isinstance(team, tuple) else {}
    how_many |= {"agents": team} if isinstance(team, int) else {"partition": team} if isinstance(team, str) else {}
    env = section(name, **{"num_envs": 3, "horizon": 7, **how_many, **settings})
    graph = nx.path_graph(spec(env).n_agents)

    def build(seed: int, threads: int) -> VecEnv:
        return make(env.model_copy(update={"threads": threads} if "threads" in type(env).model_fields else {}), graph, seed)

    assert broken(build, share(env), nature=nature(env)) == []


def test_every_registered_world_is_rehearsed() -> None:
    imported = {"pettingzoo", "gymnasium"}  # tests/envs/adapters/test_imported.py rehearses these
    assert {name for name, _ in TEAMS} == set(WORLDS.own) - imported


class Careless:
    """A world that reuses its buffers, ends every step in both ways, pays nan, and starts over where it should go on."""

    def __init__(self, world: VecEnv) -> None:
        self.spec, self.num_envs, self._world = world.spec, world.num_envs, world

    def reset(self, limits: Sequence[int] | None = None) -> list[Floats]:
        self._obs = self._world.reset()
        return self._obs

    def step(self, actions: Sequence[Floats]) -> Transition:
        out = self._world.step(actions)
        for mine, new in zip(self._obs, out.obs, strict=True):
            mine[:] = new
        always = np.ones(self.num_envs, bool)
        return replace(out, obs=self._obs, reward=out.reward * np.float32(np.nan), truncated=always, terminated=always)

    def state(self) -> State:
        return self._world.state()

    def restore(self, state: State) -> None:
        self.reset()

    def close(self) -> None:
        self._world.close()


@pytest.mark.parametrize("told", [((3, 3),) * 2, ((7,),) * 2, ((6,),)], ids=str)
def test_contract_notices_what_is_not_one_hot_as_told(told: tuple[tuple[int, ...], ...]) -> None:
    env = section("stochastic_game", agents=2, num_envs=2, states=6, n_discrete=2)

    class Boasting(Careless):
        def __init__(self, world: VecEnv) -> None:
            super().__init__(world)
            self.spec = replace(world.spec, one_hot=told)

    found = broken(lambda seed, threads: Boasting(make(env, nx.path_graph(2), seed)), "team")
    assert "What the spec calls one-hot is zeros but for a single one, and all of an observation if any of it." in found


def test_contract_notices_a_careless_world() -> None:
    env = section("network_lq", agents=3, num_envs=2, horizon=5)
    found = broken(lambda seed, threads: Careless(make(env, nx.path_graph(3), seed)), "team")
    for sentence in (
        "What was returned is never written again.",
        "No copy is terminated and truncated at once.",
        "Rewards are (n, E), float32, contiguous and finite.",
        "episodes names exactly the copies that ended, ascending.",
        "final_obs is None if no episode ended, and shaped like obs if one did.",
        "A limit given for a copy's first episode truncates that one, marks it where it is below the horizon, and changes "
        "nothing before.",
        "A world made again that takes the stored state of another goes on as that would have.",
    ):
        assert sentence in found
