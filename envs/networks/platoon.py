"""A platoon of vehicles behind a leader: cooperative adaptive cruise control (CACC) with the published reward and collision rule.

Theory of operation. Follower i drives behind follower i-1, follower 0 behind a virtual leader that is no agent. With headway h,
speed v and the speed w of the vehicle ahead, a step of 0.1 s is

    v' = clip(v + 0.1·clip(u, ±2.5), 0, 30),   h' = h + 0.05·(w + w' - v - v'),

and the control is that of the optimal-velocity law, u = α·(v°(h) - v) + β·(w - v), whose gains an agent chooses. In
`cacc_catchup` the first follower starts too far behind, in `cacc_slowdown` all vehicles start too fast and the leader brakes
for 300 steps. A headway below 1 m is a collision: the whole platoon stands, every agent is paid -1000 per step, and the episode
terminates at the next multiple of 60 steps.

The physical graph is a path. What a follower sees of the vehicle ahead is a setting: with `sensors: radar` its speed, with
`sensors: odometer` only the distance, so that the speeds of others reach an agent as messages or not at all.

Source: the problem of Chu et al. 2020 (arXiv:2004.01339), four pairs of gains, T = 600; environments note, section 5.2. The
public code's latest version has other actions (five values of the full-speed headway) and other starts;
`docs/reference/worlds.md` lists them.
"""

from collections.abc import Callable, Sequence
from typing import ClassVar, Literal

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from envs.actions import at_random, controls, taken
from envs.copies import Copies
from envs.episodes import dealt
from envs.interface import Bools, Controller, EnvSpec, Floats, Measure, Transition, VecEnv, World
from envs.scene import Layer, Scale, Scene, ends
from envs.settings import TeamEnv, team
from scenarios.schema import setting

Matrix = NDArray[np.float64]
EPISODE = 600  # steps
STEP_S = 0.1
HEADWAY, SPEED = 20.0, 15.0  # m, m/s: the goal
STOP_HEADWAY, GO_HEADWAY, TOP_SPEED = 5.0, 35.0, 30.0  # of the optimal-velocity law
MOST_ACCELERATION = 2.5  # m/s²
COLLISION_HEADWAY, COLLISION_REWARD, COLLISION_BLOCK = 1.0, -1000.0, 60
UNSAFE_HEADWAY, UNSAFE_STEPS = 10.0, 10.0  # m; limit of the cost: so many steps of an episode
BRAKING = 300  # steps in which the leader of cacc_slowdown reaches the goal's speed
GAINS = np.array([(0.0, 0.0), (0.5, 0.0), (0.0, 0.5), (0.5, 0.5)])  # (α, β) by action
MAX_VEHICLES = 256
MEASURES = (
    Measure(name="collisions", unit="episodes", meaning="Whether the platoon collided.", is_sum=True),
    Measure(name="headway_error", unit="m", meaning="Mean of |h - 20 m| over vehicles and steps."),
)


class PlatoonEnv(TeamEnv):
    """Vehicles behind a leader, which close a gap or slow down; agents are the followers."""

    default_agents: ClassVar[int] = 8

    name: str = setting("cacc_catchup", "Which world.")
    agents: int | None = team(default_agents, 1, MAX_VEHICLES)
    actions: Literal["gains", "continuous", "acceleration"] = setting(
        "gains",
        "What an agent chooses. gains: one of the four published pairs (α, β); continuous: both gains, -1 meaning 0 and +1 "
        "meaning 1; acceleration: the control itself, ±1 meaning ±2.5 m/s².",
    )
    sensors: Literal["radar", "odometer"] = setting(
        "radar",
        "What a vehicle senses. radar: also the speed of the vehicle ahead (5 numbers); odometer: own speed, headway and "
        "acceleration (3 numbers).",
    )
    headway_penalty: float = setting(
        0.0, "Weight of an extra reward -weight·min(h - 10 m, 0)²; the published training uses 5, its tests 0.", unit="1/m²", ge=0
    )
    reward: Literal["team", "local"] = setting("team", "The mean over vehicles for all agents, or each vehicle its own.")
    cost: Literal["team", "local"] = setting("team", "The mean over vehicles for all agents, or each vehicle its own.")


def spec(env: PlatoonEnv) -> EnvSpec:
    """Shape of a platoon; without a graph given, `kinematic` means the path of the vehicles.

    Args:
        env: The scenario's section.

    Returns:
        One cost, the steps at an unsafe headway, with a limit of 10 per episode.
    """
    n = env.n_agents
    return EnvSpec(
        obs_dims=(5 if env.sensors == "radar" else 3,) * n,
        act_dims=(2 if env.actions == "continuous" else 1,) * n,
        n_discrete=(len(GAINS) if env.actions == "gains" else 0,) * n,
        cost_limits=(UNSAFE_STEPS,),
        horizon=EPISODE if env.horizon is None else env.horizon,
        dt=STEP_S,
        edges=tuple((i, i + 1) for i in range(n - 1)),
        own_costs=env.cost == "local",
        measures=MEASURES,
    )


# --- the physics ----------------------------------------------------------------------------------------------------


def optimal_speed(headway: Matrix) -> Matrix:
    """v°(h) of the optimal-velocity law: the speed that a headway allows.

    Args:
        headway: h, m, any shape.

    Returns:
        0 up to 5 m, 15·(1 - cos(π·(h - 5)/30)) between, 30 from 35 m on, m/s.
    """
    part = np.clip((headway - STOP_HEADWAY) / (GO_HEADWAY - STOP_HEADWAY), 0.0, 1.0)
    return np.asarray(TOP_SPEED / 2 * (1.0 - np.cos(np.pi * part)))


def ahead(speed: Matrix, leader: Matrix) -> Matrix:
    """The speed of the vehicle ahead of each follower.

    Args:
        speed: v of the followers, (E, n), m/s.
        leader: Of the leader, (E,), m/s.

    Returns:
        (E, n), m/s.
    """
    return np.concatenate([leader[:, None], speed[:, :-1]], axis=1)


def advance(
    headway: Matrix, speed: Matrix, control: Matrix, leader: Matrix, leader_next: Matrix
) -> tuple[Matrix, Matrix, Matrix]:
    """One step of 0.1 s.

    Args:
        headway: h, (E, n), m.
        speed: v, (E, n), m/s.
        control: u, (E, n), m/s², before the limits of ±2.5 m/s² and of 0..30 m/s.
        leader: Speed of the leader now, (E,), m/s.
        leader_next: The same after the step.

    Returns:
        h', v' and the acceleration that came of the control, (E, n) each.
    """
    limited = np.clip(control, -MOST_ACCELERATION, MOST_ACCELERATION)
    after = np.clip(speed + STEP_S * limited, 0.0, TOP_SPEED)
    gap = ahead(speed, leader) + ahead(after, leader_next) - speed - after
    return headway + STEP_S / 2 * gap, after, (after - speed) / STEP_S


# --- the world ------------------------------------------------------------------------------------------------------


class Platoon(Copies):
    """E copies of a platoon.

    Observation of follower i with a radar, in this order: (v - 15)/15; (w - v)/5 and (v°(h) - v)/5, both clipped to ±2;
    (h + 0.1·(w - v) - 20)/20; u/2.5. With an odometer: (v - 15)/15, (h - 20)/20, u/2.5. Action: see `PlatoonEnv.actions`. Reward:
    -(h - 20)² - (v - 15)² - 0.1·u² after the step, or -1000 from a collision on. Cost: 1 where h < 10 m. Ends: truncation at the
    horizon; termination of a collided copy at the next multiple of 60 steps.
    """

    STATE: ClassVar[tuple[str, ...]] = ("headway", "speed", "acceleration", "_entry", "_collided")

    def __init__(self, env: PlatoonEnv, graph: nx.Graph, seed: int) -> None:
        """Set up all copies; call `reset` before `step`.

        Args:
            env: The scenario's section.
            graph: Communication graph, on which the physics does not depend.
            seed: Root of the copies' random streams.
        """
        super().__init__(spec(env), env.num_envs, seed)
        self.actions, self._env, self._slows = env.actions, env, env.name == "cacc_slowdown"
        shape = (self.num_envs, env.n_agents)
        self.headway, self.speed, self.acceleration = np.full(shape, HEADWAY), np.full(shape, SPEED), np.zeros(shape)
        self._entry = np.full(self.num_envs, SPEED)  # the leader's speed at the start
        self._collided = np.zeros(self.num_envs, bool)

    def step(self, actions: Sequence[Floats]) -> Transition:
        """Advance all copies by 0.1 s under each agent's action, (E, 1) or (E, 2)."""
        control, faults = self._control(actions)
        h, v, u = advance(self.headway, self.speed, control, self.leader(0), self.leader(1))
        drives = ~self._collided[:, None]
        self.headway, self.speed = np.where(drives, h, self.headway), np.where(drives, v, self.speed)
        self.acceleration = np.where(drives, u, 0.0)
        collides = ~self._collided & (self.headway < COLLISION_HEADWAY).any(axis=1)
        self._collided |= collides
        paid = np.where(self._collided[:, None], COLLISION_REWARD, self._reward())
        unsafe = (self.headway < UNSAFE_HEADWAY).astype(np.float64)
        terminated: Bools = faults | (self._collided & ((self._episodes.age + 1) % COLLISION_BLOCK == 0))
        return self._episodes.conclude(
            paid.mean(axis=1), dealt(paid, self._env.reward == "local"), terminated, faults,
            spent=unsafe.mean(axis=1, keepdims=True), cost=dealt(unsafe, self._env.cost == "local")[:, :, None],
            measured=np.stack([collides, np.abs(self.headway - HEADWAY).mean(axis=1)], axis=1),
        )  # fmt: skip

    def leader(self, later: int = 0) -> Matrix:
        """The leader's speed so many steps from now, (E,), m/s; it slows down linearly from its first speed to 15 m/s."""
        left = np.maximum(0.0, 1.0 - (self._episodes.age + later) / BRAKING)
        return np.asarray(SPEED + (self._entry - SPEED) * left)

    def _control(self, actions: Sequence[Floats]) -> tuple[Matrix, Bools]:
        """Control before its limits, (E, n), and the copies that were given a number that is not finite."""
        if self.actions == "gains":
            gains = GAINS[np.stack(taken(actions, self.spec.n_discrete), axis=1)]
            return self.law(gains[..., 0], gains[..., 1]), np.zeros(self.num_envs, bool)
        given, faults = controls(actions)
        if self.actions == "acceleration":
            return MOST_ACCELERATION * given[..., 0], faults
        alpha, beta = np.moveaxis(np.clip((given + 1.0) / 2.0, 0.0, 1.0), -1, 0)
        return self.law(alpha, beta), faults

    def law(self, alpha: Matrix, beta: Matrix) -> Matrix:
        """The optimal-velocity law with these gains, (E, n), m/s²; before the limits."""
        speed = self.speed
        return np.asarray(alpha * (optimal_speed(self.headway) - speed) + beta * (ahead(speed, self.leader()) - speed))

    def _reward(self) -> Matrix:
        close = np.minimum(self.headway - UNSAFE_HEADWAY, 0.0)
        return np.asarray(
            -(
                (self.headway - HEADWAY) ** 2
                + (self.speed - SPEED) ** 2
                + 0.1 * self.acceleration**2
                + self._env.headway_penalty * close**2
            )
        )

    def _restart(self, ids: NDArray[np.intp]) -> None:
        """Every copy draws one number from its own stream: how far from the goal it starts."""
        excess = np.array([self._rngs[e].uniform(1.5, 2.5) for e in ids])
        self._collided[ids] = False
        self.acceleration[ids], self.headway[ids] = 0.0, HEADWAY
        if self._slows:
            self._entry[ids] = SPEED * excess
            self.speed[ids] = self._entry[ids, None]
        else:
            self.speed[ids] = SPEED
            self.headway[ids, 0] = HEADWAY * excess

    def _observe(self) -> list[Floats]:
        h, v, u = self.headway, self.speed, self.acceleration / MOST_ACCELERATION
        if self._env.sensors == "odometer":
            columns = [v / SPEED - 1.0, h / HEADWAY - 1.0, u]
        else:
            closing = ahead(v, self.leader()) - v
            columns = [
                v / SPEED - 1.0,
                np.clip(closing / 5.0, -2.0, 2.0),
                np.clip((optimal_speed(h) - v) / 5.0, -2.0, 2.0),
                (h + STEP_S * closing) / HEADWAY - 1.0,
                u,
            ]
        obs = np.empty((*h.T.shape, len(columns)), np.float32)
        for k, column in enumerate(columns):
            obs[:, :, k] = column.T
        return list(obs)


# --- controllers that learn nothing ---------------------------------------------------------------------------------


def constant(world: Platoon, alpha: float, beta: float) -> list[Floats]:
    """The same gains for all vehicles and for ever, in whatever form the world takes actions.

    Args:
        world: Where.
        alpha: Gain of v°(h) - v, 0 or 0.5 where actions are `gains`.
        beta: Gain of w - v, likewise.

    Returns:
        Per vehicle (E, 1) or (E, 2).
    """
    e, n = world.speed.shape
    if world.actions == "acceleration":
        control = np.clip(world.law(np.full((e, n), alpha), np.full((e, n), beta)) / MOST_ACCELERATION, -1.0, 1.0)
        return list(np.ascontiguousarray(control.T[:, :, None], np.float32))
    if world.actions == "continuous":
        return list(np.broadcast_to(np.array([2 * alpha - 1, 2 * beta - 1], np.float32), (n, e, 2)).copy())
    index = GAINS.tolist().index([alpha, beta])
    return list(np.full((n, e, 1), index, np.float32))


def gains(alpha: float, beta: float) -> Callable[[PlatoonEnv, nx.Graph], Controller]:
    """The baseline that keeps to these gains; see `constant`."""

    def control(world: VecEnv) -> list[Floats]:
        assert isinstance(world, Platoon)
        return constant(world, alpha, beta)

    return lambda env, graph: control


def scene(world: Platoon, copy: int) -> Scene:
    """The vehicles on their lane, seen from the leader, and the gaps between them."""
    gaps, n = world.headway[copy], world.spec.n_agents
    along = np.append(0.0, -np.cumsum(gaps))
    places = np.stack([along, np.zeros(n + 1)], axis=1)
    speeds = np.append(world.leader()[copy], world.speed[copy])
    gap = Layer(
        scale=Scale("gap", 0.0, 2.0 * HEADWAY, "m"), at=ends(places, [(i, i + 1) for i in range(n)]), values=gaps,
        marked=gaps < UNSAFE_HEADWAY, mark="gap that is unsafe",
    )  # fmt: skip
    speed = Layer(scale=Scale("speed", 0.0, TOP_SPEED, "m/s"), at=places, values=speeds, size=2.0)
    reach = 1.5 * HEADWAY * (n + 1)
    return Scene(layers=[gap, speed], agents=places[1:], box=(-reach, -1.0, 0.0, 1.0))


BASELINES = {"random": at_random, "hold": gains(0.0, 0.0), "constant": gains(0.5, 0.5)}
WORLD: World[PlatoonEnv] = World(settings=PlatoonEnv, spec=spec, make=Platoon, baselines=BASELINES, scene=scene)
