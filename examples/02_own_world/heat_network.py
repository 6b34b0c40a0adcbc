"""Rooms that share their heat: a world with settings, reward, cost and a graph of its own, in one file.

Each agent heats one room. Heat flows along the edges of the communication graph, so the graph is part of the physics:

    x_i' = x_i + exchange * sum_j (x_j - x_i) - leak * x_i + heat * u_i + noise        for the neighbours j of i

x is the temperature above the outside in kelvin, u the heater's power from 0 to 1. The reward asks for `target` kelvin. The cost
is the power that is used.
"""

from collections.abc import Sequence

import networkx as nx
import numpy as np

from envs.episodes import Episodes, dealt
from envs.interface import EnvSpec, Floats, Transition, VecEnv, World
from envs.scene import Layer, Scale, Scene
from envs.settings import TeamEnv, team
from scenarios.schema import setting
from topology.snapshot import State, restore_streams, streams

HORIZON = 60
HALLWAY = {"preset": "wifi-campus", "latency_ms": 5, "loss_prob": 0.02}  # a link preset, as `presets` of a scenario has them


class RoomsEnv(TeamEnv):
    """Rooms that share their heat, an agent each."""

    default_agents = 4

    name: str = setting("heat_network", "Which world.")
    agents: int | None = team(4, 2, 64)
    target: float = setting(20.0, "Temperature above the outside that is asked for.", unit="K", gt=0)
    exchange: float = setting(0.05, "Part of a difference in temperature that flows between two rooms per step.", ge=0, le=0.1)
    leak: float = setting(0.1, "Part of the heat that a room loses per step.", gt=0, lt=0.5)
    noise_std: float = setting(0.2, "Standard deviation of what draughts do per step.", unit="K", ge=0)


def spec(env: RoomsEnv) -> EnvSpec:
    """The shape of the world; `topology.kind=kinematic` puts the rooms along a corridor."""
    n = env.n_agents
    horizon = HORIZON if env.horizon is None else env.horizon
    return EnvSpec(
        obs_dims=(1,) * n,
        act_dims=(1,) * n,
        n_discrete=(0,) * n,
        cost_limits=(0.5 * horizon,),  # half of the full power, on average
        horizon=horizon,
        dt=60.0,
        edges=tuple((i, i + 1) for i in range(n - 1)),
    )


class Rooms:
    """E copies of the building; see `envs.interface.VecEnv` for what each method promises."""

    def __init__(self, env: RoomsEnv, graph: nx.Graph, seed: int) -> None:
        self.spec: EnvSpec = spec(env)
        self.num_envs = env.num_envs
        self._env = env
        n = self.spec.n_agents
        self._flow = env.exchange * (nx.to_numpy_array(graph, range(n)) - np.diag([float(graph.degree[i]) for i in range(n)]))
        self._rngs = [np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(env.num_envs)]
        self._x = np.zeros((env.num_envs, n))
        self._episodes = Episodes(env.num_envs, self.spec.horizon, restart=self._restart, observe=self._observe, n_costs=1)

    def reset(self, limits: Sequence[int] | None = None) -> list[Floats]:
        return self._episodes.begin(limits)

    def step(self, actions: Sequence[Floats]) -> Transition:
        env, n = self._env, self.spec.n_agents
        power = np.clip(0.5 + 0.5 * np.stack([action[:, 0] for action in actions], axis=1).astype(np.float64), 0.0, 1.0)  # (E, n)
        noise = env.noise_std * np.stack([rng.standard_normal(n) for rng in self._rngs])
        self._x = self._x + self._x @ self._flow - env.leak * self._x + 2 * env.leak * env.target * power + noise
        reward = -(((self._x - env.target) / env.target) ** 2)
        never = np.zeros(self.num_envs, bool)
        return self._episodes.conclude(
            reward.mean(axis=1),
            dealt(reward, is_local=False),
            never,
            never,
            spent=power.mean(axis=1, keepdims=True),
            cost=dealt(power, is_local=False)[:, :, None],
        )

    def state(self) -> State:
        return {"x": self._x.copy(), "episodes": self._episodes.state(), "streams": streams(self._rngs)}

    def restore(self, state: State) -> None:
        self._x = state["x"]
        self._episodes.restore(state["episodes"])
        restore_streams(self._rngs, state["streams"])

    def close(self) -> None:
        pass

    def _restart(self, copies: np.ndarray) -> None:
        for copy in copies:
            self._x[copy] = self._rngs[copy].uniform(0.0, self._env.target, self.spec.n_agents)

    def _observe(self) -> list[Floats]:
        seen = (self._x / self._env.target - 1.0).astype(np.float32)
        return [np.ascontiguousarray(seen[:, i : i + 1]) for i in range(self.spec.n_agents)]


def thermostat(env: RoomsEnv, graph: nx.Graph):
    """A baseline to compare with: full power below the target (`kappahop evaluate SCENARIO --policy thermostat`)."""

    def act(world: VecEnv) -> list[Floats]:
        return [np.where(seen < 0, 1.0, -1.0).astype(np.float32) for seen in world._observe()]

    return act


def scene(world, copy: int) -> Scene:
    """What a film shows (`kappahop evaluate RUN --film team.gif`): rooms in a row, coloured by their temperature."""
    rooms = np.stack([np.arange(world.spec.n_agents), np.zeros(world.spec.n_agents)], axis=1)
    warmth = Layer(scale=Scale("warmth", 0.0, 2 * world._env.target, "K"), at=rooms, values=world._x[copy], size=3.0)
    return Scene(layers=[warmth], agents=rooms)


WORLD = World(settings=RoomsEnv, spec=spec, make=Rooms, baselines={"thermostat": thermostat}, scene=scene)
