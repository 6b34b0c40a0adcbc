"""Traffic lights on a grid of streets, where vehicles are counted and stored: the store-and-forward model of signal control.

Theory of operation. A vehicle that travels in heading d (0 north, 1 east, 2 south, 3 west) waits at an intersection in one of
the three queues of its approach: left, through, right. The light shows one of four phases: north-south through and right,
north-south left, and the same for east-west. In a step of 5 s a green queue lets up to 2, 4 or 2 vehicles go (left, through,
right), in the step after a change of phase 1, 2 or 1. Vehicles that go reach the next intersection three steps later and are
then split over its queues (0.2, 0.6, 0.2). A street between two intersections holds at most 40 vehicles, queued and on their
way: when it is full, the queue behind it waits. Vehicles enter on the streets at the border, which have no limit, as a Poisson
process, and leave over the border. In one phase no street is fed by two queues, so the order of queues does not matter.

All counts are whole numbers. Random numbers are drawn ahead, for several steps at once and per copy.

Source: our own model with the parameters of environments note, section 5.4; store-and-forward after Gazis 1964, max-pressure
after Varaiya 2013 (doi:10.1016/j.trc.2013.08.014).
"""

from collections.abc import Callable, Sequence
from typing import ClassVar, Literal

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from envs.actions import at_random, taken
from envs.copies import Ahead, Copies
from envs.episodes import dealt
from envs.interface import Controller, EnvSpec, Floats, Measure, Transition, VecEnv, World
from envs.scene import Layer, Scale, Scene
from scenarios.schema import Env, setting

Counts = NDArray[np.int64]
Matrix = NDArray[np.float64]
EPISODE = 360  # steps
STEP_S = 5.0
HEADINGS = ((-1, 0), (0, 1), (1, 0), (0, -1))  # north, east, south, west as (rows, columns)
SATURATION = np.array([2, 4, 2])  # vehicles per step: left, through, right
AFTER_CHANGE = np.array([1, 2, 1])  # 0.6 of them, rounded down
TURNS = np.array([0.2, 0.6, 0.2])
TRAVEL = 3  # steps between two intersections
PHASES = np.zeros((4, 4, 3), bool)  # which queues (heading, turn) are green
PHASES[0, 0::2, 1:] = PHASES[1, 0::2, 0] = PHASES[2, 1::2, 1:] = PHASES[3, 1::2, 0] = True
CYCLE = np.repeat([0, 1, 2, 3], [6, 3, 6, 3])  # of the fixed-time light
LONG_WAIT = 12  # steps: 60 s
BLOCK = 16  # steps of random numbers drawn at once per copy
SCALE = 10.0  # vehicles per unit of the observation
MAX_SIDE = 32
MEASURES = (
    Measure(name="waiting", unit="vehicles", meaning="Mean number of vehicles that wait at an intersection."),
    Measure(name="changes", unit="1", meaning="Part of the lights that change their phase in a step."),
)


class TrafficEnv(Env):
    """Traffic lights on a grid of streets, an agent each."""

    name: str = setting("traffic_grid", "Which world.")
    rows: int = setting(5, "Streets from west to east; there are rows x columns agents.", unit="streets", ge=1, le=MAX_SIDE)
    columns: int = setting(5, "Streets from north to south.", unit="streets", ge=1, le=MAX_SIDE)
    arrivals: float = setting(
        0.7, "Mean number of vehicles that enter on each street at the border per step.", unit="vehicles/step", ge=0, le=10
    )
    capacity: int = setting(40, "Most vehicles on a street between two intersections.", unit="vehicles", ge=4, le=10_000)
    charged: Literal["spill", "wait"] = setting(
        "spill",
        "What costs 1 per step at an intersection. spill: an approach with a queue of more than half a street's capacity; wait: "
        "an approach with a queue that has had no green for more than 60 s.",
    )
    reward: Literal["team", "local"] = setting("team", "The mean over intersections for all agents, or each its own.")
    cost: Literal["team", "local"] = setting("team", "The mean over intersections for all agents, or each its own.")


def spec(env: TrafficEnv) -> EnvSpec:
    """Shape of a grid; without a graph given, `kinematic` means the streets.

    Args:
        env: The scenario's section.

    Returns:
        Agents row by row; one cost with a limit of 0.05 per step.
    """
    n = env.rows * env.columns
    horizon = EPISODE if env.horizon is None else env.horizon
    node = np.arange(n).reshape(env.rows, env.columns)
    east = zip(node[:, :-1].ravel().tolist(), node[:, 1:].ravel().tolist(), strict=True)
    south = zip(node[:-1].ravel().tolist(), node[1:].ravel().tolist(), strict=True)
    return EnvSpec(
        obs_dims=(20,) * n,
        act_dims=(1,) * n,
        n_discrete=(len(PHASES),) * n,
        cost_limits=(0.05 * horizon,),
        horizon=horizon,
        dt=STEP_S,
        edges=tuple(sorted([*east, *south])),
        own_costs=env.cost == "local",
        measures=MEASURES,
    )


class Streets:
    """The grid as indices: a *street* is one heading at one intersection, 4·n of them, and ends there.

    Attributes:
        next: Where a vehicle goes that leaves a queue, (4n, 3): a street, or 4n for the world outside.
        border: The streets that vehicles enter on, ascending.
        fed: (4n,) True for the streets between two intersections.
    """

    def __init__(self, rows: int, columns: int) -> None:
        """Number the streets of a grid."""
        n = rows * columns
        self.next = np.full((4 * n, 3), 4 * n)
        for node in range(n):
            for heading in range(4):
                for turn in range(3):
                    out = (heading + turn - 1) % 4
                    row, column = node // columns + HEADINGS[out][0], node % columns + HEADINGS[out][1]
                    if 0 <= row < rows and 0 <= column < columns:
                        self.next[4 * node + heading, turn] = 4 * (row * columns + column) + out
        self.fed = np.isin(np.arange(4 * n), self.next)
        self.border = np.flatnonzero(~self.fed)


class TrafficGrid(Copies):
    """E copies of a grid.

    Observation of an intersection: 12 queues (north, east, south, west heading; left, through, right) and 4 numbers of vehicles
    on their way to it (by heading), each divided by 10; the phase shown, one-hot (4). Action: the phase to show. Reward: minus
    the vehicles that wait at the intersection after the step. Cost: see `TrafficEnv.charged`. Ends: truncation at the horizon.
    Start: empty streets, phase 0.
    """

    STATE: ClassVar[tuple[str, ...]] = ("queue", "travelling", "phase", "_waited", "_entering", "_turning")

    def __init__(self, env: TrafficEnv, graph: nx.Graph, seed: int) -> None:
        """Set up all copies; call `reset` before `step`.

        Args:
            env: The scenario's section.
            graph: Communication graph, on which the physics does not depend.
            seed: Root of the copies' random streams.
        """
        super().__init__(spec(env), env.num_envs, seed)
        self.streets = Streets(env.rows, env.columns)
        self._env, n, e = env, self.spec.n_agents, self.num_envs
        self.queue: Counts = np.zeros((e, 4 * n, 3), np.int64)
        self.travelling: Counts = np.zeros((e, 4 * n, TRAVEL), np.int64)  # by steps still to go
        self.phase: Counts = np.zeros((e, n), np.int64)
        self._waited: Counts = np.zeros((e, 4 * n), np.int64)  # steps since the last green, of approaches with a queue
        self._entering = Ahead(self._rngs, (len(self.streets.border), 3), self._let_in, steps=BLOCK, dtype=np.uint8)
        self._turning = Ahead(self._rngs, (4 * n, int(SATURATION.max())), _turn, steps=BLOCK, dtype=np.uint8)

    def step(self, actions: Sequence[Floats]) -> Transition:
        """Advance all copies by 5 s under each light's phase, (E, 1)."""
        chosen = np.stack(taken(actions, self.spec.n_discrete), axis=1)
        served = self._served(chosen)
        changes, self.phase = (chosen != self.phase).mean(axis=1), chosen
        arrived = self._travel(served)
        self._enter(arrived)
        waiting = self.queue.sum(axis=2)
        seen_to = PHASES[chosen].any(axis=3).reshape(waiting.shape)
        self._waited = np.where(seen_to | (waiting == 0), 0, self._waited + 1)
        own = np.asarray(-waiting.reshape(*chosen.shape, 4).sum(axis=2), np.float64)
        charged = waiting > self._env.capacity / 2 if self._env.charged == "spill" else self._waited > LONG_WAIT
        cost = np.asarray(charged.reshape(*chosen.shape, 4).any(axis=2), np.float64)
        never = np.zeros(self.num_envs, bool)
        return self._episodes.conclude(
            own.mean(axis=1), dealt(own, self._env.reward == "local"), never, never,
            spent=cost.mean(axis=1, keepdims=True), cost=dealt(cost, self._env.cost == "local")[:, :, None],
            measured=np.stack([-own.mean(axis=1), changes], axis=1),
        )  # fmt: skip

    @property
    def age(self) -> NDArray[np.int64]:
        """Steps that each copy's episode has made, (E,)."""
        return self._episodes.age

    def downstream(self) -> Counts:
        """Vehicles that wait at the end of the street that each queue leads into, (E, 4n, 3); 0 outside the grid."""
        waiting = self.queue.sum(axis=2)
        return np.pad(waiting, ((0, 0), (0, 1)))[:, self.streets.next]

    def _served(self, chosen: Counts) -> Counts:
        """How many vehicles leave each queue in this step, (E, 4n, 3)."""
        most = np.where((chosen == self.phase)[..., None], SATURATION, AFTER_CHANGE)  # (E, n, 3)
        most = np.where(PHASES[chosen], most[:, :, None], 0).reshape(self.queue.shape)
        held = self.queue.sum(axis=2) + self.travelling.sum(axis=2)
        room = np.full((self.num_envs, self.queue.shape[1] + 1), np.iinfo(np.int64).max)
        room[:, :-1] = np.where(self.streets.fed, np.maximum(self._env.capacity - held, 0), room[:, :-1])
        return np.minimum(np.minimum(self.queue, most), room[:, self.streets.next])

    def _travel(self, served: Counts) -> Counts:
        """Move vehicles out of the queues and along the streets; how many reach the end of each street, (E, 4n)."""
        self.queue = self.queue - served
        arrived = self.travelling[:, :, 0]
        departed = np.zeros((self.num_envs, served.shape[1] + 1), np.int64)
        for turn in range(3):  # within a turn no two queues lead into one street
            departed[:, self.streets.next[:, turn]] += served[:, :, turn]
        self.travelling = np.concatenate([self.travelling[:, :, 1:], departed[:, :-1, None]], axis=2)
        return arrived

    def _enter(self, arrived: Counts) -> None:
        """Split what reached an intersection over its queues, and let new vehicles in at the border."""
        entering, turning = self._entering.step(), self._turning.step()
        counts = np.arange(SATURATION.max()) < arrived[:, :, None]
        for turn in range(3):
            self.queue[:, :, turn] += (counts & (turning == turn)).sum(axis=2)
        self.queue[:, self.streets.border] += entering

    def _let_in(self, rng: np.random.Generator, out: NDArray[np.uint8]) -> None:
        out[:] = rng.poisson(self._env.arrivals * TURNS, out.shape)

    def _restart(self, ids: NDArray[np.intp]) -> None:
        self.queue[ids], self.travelling[ids], self._waited[ids] = 0, 0, 0
        self.phase[ids] = 0

    def _observe(self) -> list[Floats]:
        e, n = self.phase.shape
        obs = np.empty((n, e, 20), np.float32)
        obs[:, :, :12] = self.queue.reshape(e, n, 12).swapaxes(0, 1) / SCALE
        obs[:, :, 12:16] = self.travelling.sum(axis=2).reshape(e, n, 4).swapaxes(0, 1) / SCALE
        obs[:, :, 16:] = np.eye(4, dtype=np.float32)[self.phase.T]
        return list(obs)


def _turn(rng: np.random.Generator, out: NDArray[np.uint8]) -> None:
    out[:] = np.searchsorted(np.cumsum(TURNS[:-1]), rng.random(out.shape))


# --- controllers that learn nothing ---------------------------------------------------------------------------------


def fixed(world: TrafficGrid) -> list[Floats]:
    """A cycle of 18 steps: 6 through and 3 left for north-south, then for east-west, in step everywhere."""
    shown = CYCLE[world.age % len(CYCLE)].astype(np.float32)
    return [shown[:, None].copy() for _ in range(world.spec.n_agents)]


def greedy(world: TrafficGrid) -> list[Floats]:
    """The phase for which most vehicles wait at the intersection itself."""
    return _most(world, world.queue.astype(np.float64))


def max_pressure(world: TrafficGrid) -> list[Floats]:
    """The phase of the greatest pressure, sum over its queues of (queue - mean queue it leads to) x vehicles it may let go.

    Knows the queues one hop away. Differs from Varaiya 2013 in the loss after a change of phase, which counts here.
    """
    return _most(world, world.queue - world.downstream() / 3.0, counts_change=True)


def _most(world: TrafficGrid, weight: Matrix, *, counts_change: bool = False) -> list[Floats]:
    e, n = world.phase.shape
    weight = weight.reshape(e, n, 1, 4, 3) * PHASES
    if counts_change:
        shown = world.phase[:, :, None, None, None] == np.arange(4)[:, None, None]
        weight = weight * np.where(shown, SATURATION, AFTER_CHANGE)
    best = weight.sum(axis=(3, 4)).argmax(axis=2).astype(np.float32)
    return list(np.ascontiguousarray(best.T)[:, :, None])


def baseline(policy: Callable[[TrafficGrid], list[Floats]]) -> Callable[[TrafficEnv, nx.Graph], Controller]:
    """One of the policies above, as a world's baseline."""

    def control(world: VecEnv) -> list[Floats]:
        assert isinstance(world, TrafficGrid)
        return policy(world)

    return lambda env, graph: control


def scene(world: TrafficGrid, copy: int) -> Scene:
    """The approaches of every intersection, coloured by the vehicles that wait, and which way the light is green."""
    n, columns = world.spec.n_agents, world._env.columns
    node = np.arange(n)
    places = np.stack([node % columns, -(node // columns)], axis=1).astype(float)
    ahead = np.array([(column, -row) for row, column in HEADINGS], float)  # of a vehicle, to the right and up
    side = 0.07 * np.stack([ahead[:, 1], -ahead[:, 0]], axis=1)  # traffic keeps right
    streets = places[:, None] + side
    approaches = np.stack([streets - 0.85 * ahead, streets - 0.15 * ahead], axis=2).reshape(-1, 2, 2)
    waiting = world.queue[copy].sum(axis=1).astype(float)
    along = np.where((world.phase[copy] < 2)[:, None], [[0.0, 0.13]], [[0.13, 0.0]])
    return Scene(
        layers=[
            Layer(
                scale=Scale("vehicles that wait", 0.0, world._env.capacity / 2), at=approaches, values=waiting, size=1.5,
                marked=waiting > world._env.capacity / 2, mark="more than half a street",
            ),
            Layer(
                scale=Scale("green", 0.0, 1.0, "0 through, 1 left"), at=np.stack([places - along, places + along], axis=1),
                values=(world.phase[copy] % 2).astype(float), size=2.0,
            ),
        ],
        agents=places,
    )  # fmt: skip


BASELINES = {"random": at_random, "fixed": baseline(fixed), "greedy": baseline(greedy), "max_pressure": baseline(max_pressure)}
WORLD: World[TrafficEnv] = World(settings=TrafficEnv, spec=spec, make=TrafficGrid, baselines=BASELINES, scene=scene)
