"""Voltage control: the inverters of photovoltaic plants on a distribution feeder choose their reactive power.

Theory of operation. Every agent is the inverter of one plant. The active power of plants and loads follows a day of 480 steps
of three minutes (`sunshine`, `demand`, with clouds and noise that wander as autoregressive processes of order one); the agents
choose the reactive power alone. Voltages come from the power flow of `envs.networks.feeder`, a few products of small matrices
for all copies at once. Influence falls off with the part of the path to the substation that two inverters share.

A step settles the action at the present powers, pays and charges by the voltages that follow, and then moves the powers on. The
next observation shows the new powers, and the voltages that hold if inverters keep their reactive power.

What must not change: a copy draws from its own stream, in blocks of fixed size, and copies never mix.

Source: problem, barrier functions, price of reactive power and the two metrics that are reported (controllable ratio, share of
buses out of limits) as in MAPDN (Wang et al. 2021, arXiv:2110.14300). Different: the profiles are synthetic (the published ones
are not redistributable), the costs are apart from the reward, and agents are neighbours where a line joins their zones.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from envs.copies import Ahead, Copies, normal
from envs.interface import Bools, Controller, EnvSpec, Floats, Measure, Transition, VecEnv, World
from envs.networks.feeder import Feeder, feeder, spread, zone_graph, zones
from envs.scene import Layer, Scale, Scene, ends, tree_places
from envs.settings import TeamEnv
from scenarios.schema.base import setting
from topology.snapshot import State

Matrix = NDArray[np.float64]
DAY = 480  # steps of three minutes
EPISODE = 240  # steps
ALLOWED_OUT = 0.01  # default limit: share of buses out of limits, on average over an episode
DT = 180.0  # s
BAND = 0.05  # p.u.: voltages may deviate so much from 1
OVERSIZE = 1.2  # an inverter's rating as a multiple of its plant's peak power
CLOUD_SPREAD, CLOUD_MEMORY, CLOUD_SHARED = 0.25, 0.95, 0.8  # clouds: standard deviation, autocorrelation per step, shared part
LEAST_SUN = 0.1  # what the thickest cloud lets through
LOAD_SPREAD, LOAD_MEMORY = 0.1, 0.9  # noise of loads likewise
NOISE_BLOCK = 16  # steps of noise drawn at once per copy
DROOP_GAIN = 0.3  # part of the way to the droop curve that an inverter goes per step
CENTRAL_STEPS = 50
MARGIN = 1e-3  # p.u.: how far within limits the linear program stays, as it knows voltages to about that
EXCESS_PRICE = 1e3  # Mvar per p.u.² of the bus that is furthest beyond its limit
# by hour, from midnight; chosen so that buses out of limits without control come to the published shares within 4 %
HOURLY_DEMAND = (
    0.59, 0.54, 0.51, 0.49, 0.49, 0.51, 0.58, 0.64, 0.65, 0.55, 0.52, 0.51,
    0.51, 0.51, 0.52, 0.55, 0.69, 0.84, 0.97, 1.02, 1.01, 0.95, 0.83, 0.69,
)  # fmt: skip


def sunshine() -> Matrix:
    """The part of its peak power that a plant gives under a clear sky, (DAY,): sin^1.5 between 6 and 18 o'clock."""
    hours = 24.0 * np.arange(DAY) / DAY
    return np.clip(np.sin(np.pi * (hours - 6.0) / 12.0), 0.0, None) ** 1.5


def demand() -> Matrix:
    """The part of their nominal power that loads draw, (DAY,): two peaks, the evening's the higher one."""
    hours = 24.0 * np.arange(DAY) / DAY
    return np.interp(hours, np.arange(25), (*HOURLY_DEMAND, HOURLY_DEMAND[0]))


def _bowl(deviation: Matrix) -> Matrix:
    """2|d| - 0.095 outside the band; within it 0.04 - 0.01 times the normal density of standard deviation 0.1."""
    inside = 0.04 - 0.01 * np.exp(-0.5 * (deviation / 0.1) ** 2) / (0.1 * np.sqrt(2.0 * np.pi))
    return np.where(np.abs(deviation) > BAND, 2.0 * np.abs(deviation) - 0.095, inside)


BARRIERS: Mapping[str, Callable[[Matrix], Matrix]] = {
    "l1": np.abs,
    "l2": lambda deviation: 2.0 * deviation**2,
    "bowl": _bowl,
    "courant_beltrami": lambda deviation: np.maximum(np.abs(deviation) - BAND, 0.0) ** 2,
}


class VoltageEnv(TeamEnv):
    """Voltage control on a feeder: one agent per inverter."""

    feeder: ClassVar[str]
    default_seats: ClassVar[tuple[int, ...] | None]
    pv_mw: float = setting(1.0, "Peak active power of each plant; its inverter is rated 1.2 times that.", unit="MW", gt=0, le=100)
    observation: Literal["own", "full"] = setting(
        "own", "What an agent senses itself: its plant and its zone; or what all agents sense of theirs."
    )
    reward: Literal["team", "local"] = setting(
        "team", "One reward for all, or each agent that of its own zone and inverter (they average to the team's)."
    )
    cost: Literal["team", "local"] = setting("team", "The share of all buses that are out of limits, or of the agent's zone.")
    barrier: Literal["l1", "l2", "bowl", "courant_beltrami"] = setting(
        "bowl", "Price of a bus's voltage deviation in the reward."
    )
    reactive_price: float = setting(0.1, "Price of a Mvar of reactive power, averaged over inverters.", unit="1/Mvar", ge=0)

    @property
    def seats(self) -> tuple[int, ...]:
        """The bus of each agent."""
        if self.default_seats is not None and self.n_agents == self.default_agents:
            return self.default_seats
        return spread(feeder(self.feeder), self.n_agents)


class Voltage33(VoltageEnv):
    """The 33-bus feeder."""

    agents: int | None = setting(
        None, "Inverters, one agent each; null: 6. Any other number takes buses that lie far apart.", unit="agents", ge=1, le=32
    )
    feeder = "ieee33"
    default_agents = 6
    default_seats = (12, 17, 21, 24, 28, 32)


class Voltage141(VoltageEnv):
    """The 141-bus feeder."""

    agents: int | None = setting(
        None, "Inverters, one agent each, on buses that lie far apart; null: 22.", unit="agents", ge=1, le=140
    )
    pv_mw: float = setting(1.5, "Peak active power of each plant; its inverter is rated 1.2 times that.", unit="MW", gt=0, le=100)
    feeder = "caracas141"
    default_agents = 22
    default_seats = None


MEASURES = (
    Measure(name="out of limits", unit="share of buses", meaning="Buses whose voltage is out of limits."),
    Measure(name="controllable", unit="share of steps", meaning="Steps at which no bus is out of limits."),
    Measure(name="voltage deviation", unit="p.u.", meaning="|v - 1|, averaged over buses."),
    Measure(name="reactive power", unit="Mvar", meaning="|q|, averaged over inverters."),
)
OBSERVED = 9


def spec(env: VoltageEnv) -> EnvSpec:
    """Shape of voltage control.

    Args:
        env: The scenario's section.

    Returns:
        One cost, the share of buses out of limits, whose limit is one bus in a hundred; agents are adjacent where a line joins
        their zones.
    """
    n = env.n_agents
    grid = feeder(env.feeder)
    horizon = EPISODE if env.horizon is None else env.horizon
    return EnvSpec(
        obs_dims=(OBSERVED if env.observation == "own" else OBSERVED * n,) * n,
        act_dims=(1,) * n,
        n_discrete=(0,) * n,
        cost_limits=(ALLOWED_OUT * horizon,),
        horizon=horizon,
        dt=DT,
        edges=zone_graph(grid, zones(grid, env.seats)),
        own_costs=env.cost == "local",
        measures=MEASURES,
    )


class VoltageControl(Copies):
    """E copies of a feeder.

    Observation of an agent: its plant's active and reactive power (fractions of its rating), the load of its zone (fraction of
    nominal), the voltage deviation of its own bus and the mean, least and greatest of its zone (in half-widths of the band),
    sine and cosine of the time of day. Action: reactive power as a fraction of what the rating leaves beside the active power,
    clipped to ±1. Ends: truncation at the horizon; an action that is no finite number is a fault. Start: any time of day, no
    reactive power.
    """

    STATE: ClassVar[tuple[str, ...]] = ("_clock", "_wander", "reactive", "_noise")

    def __init__(self, env: VoltageEnv, graph: nx.Graph, seed: int) -> None:
        """Set up all copies; call `reset` before `step`.

        Args:
            env: The scenario's section.
            graph: Communication graph on 0..n-1; the physics does not depend on it.
            seed: Root of the copies' random streams.
        """
        super().__init__(spec(env), env.num_envs, seed)
        self.feeder: Feeder = feeder(env.feeder)
        self.rating = OVERSIZE * env.pv_mw
        self._peak, self._barrier, self._price = env.pv_mw, BARRIERS[env.barrier], env.reactive_price
        self._full, self._local, self._own_cost = env.observation == "full", env.reward == "local", env.cost == "local"
        self.seats = np.array(env.seats) - 1
        self.influence: Matrix = self.feeder.x[self.seats]
        zone = zones(self.feeder, env.seats)[1:]
        self._order = np.argsort(zone, kind="stable")  # buses zone by zone
        self._sizes = np.bincount(zone)
        self._starts = np.cumsum([0, *self._sizes[:-1]])
        nominal = self._by_zone(np.add, self.feeder.load)
        self._zone_load = np.where(nominal > 0.0, nominal, 1.0)  # a zone without load draws 0 of anything
        self._sun, self._demand = sunshine(), demand()
        n, buses = self.spec.n_agents, len(self.feeder.upstream)
        self._noise = Ahead(self._rngs, (n + 1 + buses,), normal, steps=NOISE_BLOCK)
        self._clock = np.zeros(self.num_envs, np.int64)
        self._wander = np.zeros((self.num_envs, n + 1 + buses))  # clouds, the shared one first, then loads
        self.reactive: Matrix = np.zeros((self.num_envs, n))

    def step(self, actions: Sequence[Floats]) -> Transition:
        """Settle each inverter's reactive power, (E, 1) as a fraction of what it could give, and move on three minutes."""
        share = np.concatenate(actions, axis=1, dtype=np.float64)
        faults: Bools = np.any(~np.isfinite(share), axis=1)
        self.reactive = np.clip(np.nan_to_num(share), -1.0, 1.0) * self.capability
        deviation = self.voltages(self.reactive) - 1.0
        out = np.abs(deviation) > BAND
        priced, reactive = self._barrier(deviation), np.abs(self.reactive)
        n, buses = self.spec.n_agents, deviation.shape[1]
        paid = -(n / buses * self._by_zone(np.add, priced) + self._price * reactive)
        share_out = out.mean(axis=1)
        reward, cost = np.empty((n, self.num_envs), np.float32), np.empty((n, self.num_envs, 1), np.float32)
        reward[:] = paid.T if self._local else paid.mean(axis=1)
        cost[:, :, 0] = (self._by_zone(np.add, out.astype(np.float64)) / self._sizes).T if self._own_cost else share_out
        measured = np.stack(
            [share_out, share_out == 0.0, np.abs(deviation).mean(axis=1), reactive.mean(axis=1)], axis=1, dtype=np.float64
        )
        self._advance()
        return self._episodes.conclude(
            paid.mean(axis=1), reward, faults, faults, spent=share_out[:, None], cost=cost, measured=measured
        )

    def restore(self, state: State) -> None:
        """See `VecEnv.restore`."""
        super().restore(state)
        self._inject()

    # --- the physics; what a controller may look at -------------------------------------------------------------------

    def voltages(self, reactive: Matrix) -> Matrix:
        """Voltage of every bus but the substation at the present powers.

        Args:
            reactive: Each inverter's reactive power [Mvar], (E, n).

        Returns:
            (E, K) [p.u.].
        """
        injected = self._reactive_passive.copy()
        injected[:, self.seats] += reactive
        return self.feeder.voltages(self._injected, injected)

    def actions(self, reactive: Matrix) -> list[Floats]:
        """The actions that settle reactive powers [Mvar], (E, n), as far as the inverters can give them."""
        share = np.clip(reactive / self.capability, -1.0, 1.0).astype(np.float32)
        return [column.reshape(-1, 1) for column in np.ascontiguousarray(share.T)]

    def _advance(self) -> None:
        """Three minutes later: other powers, and inverters that keep their reactive power where they still can."""
        shock = self._noise.step()
        memory = self._memory
        self._wander = memory * self._wander + np.sqrt(1.0 - memory**2) * shock
        self._clock = (self._clock + 1) % DAY
        self._inject()

    @property
    def _memory(self) -> Matrix:
        return np.where(np.arange(self._wander.shape[1]) <= self.spec.n_agents, CLOUD_MEMORY, LOAD_MEMORY)

    def _inject(self) -> None:
        """Powers at the present time, and what follows from them but for the inverters' reactive power."""
        n = self.spec.n_agents
        clouds = CLOUD_SHARED * self._wander[:, :1] + np.sqrt(1.0 - CLOUD_SHARED**2) * self._wander[:, 1 : n + 1]
        clear = np.clip(1.0 + CLOUD_SPREAD * clouds, LEAST_SUN, 1.0)
        self.active: Matrix = self._peak * self._sun[self._clock, None] * clear
        self.capability: Matrix = np.sqrt(self.rating**2 - self.active**2)
        drawn = self._demand[self._clock, None] * np.maximum(1.0 + LOAD_SPREAD * self._wander[:, n + 1 :], 0.0)
        self._load = drawn * self.feeder.load
        self._reactive_passive = -drawn * self.feeder.reactive_load
        self._injected = -self._load
        self._injected[:, self.seats] += self.active
        self.reactive = np.clip(self.reactive, -self.capability, self.capability)

    def _restart(self, ids: NDArray[np.intp]) -> None:
        for e in ids:
            self._clock[e] = self._rngs[e].integers(DAY)
            self._wander[e] = self._rngs[e].standard_normal(self._wander.shape[1])
        self.reactive[ids] = 0.0
        self._inject()

    def _observe(self) -> list[Floats]:
        deviation = (self.voltages(self.reactive) - 1.0) / BAND
        angle = 2.0 * np.pi * self._clock / DAY
        table = np.empty((self.spec.n_agents, self.num_envs, OBSERVED), np.float32)
        table[..., 0] = (self.active / self.rating).T
        table[..., 1] = (self.reactive / self.rating).T
        table[..., 2] = (self._by_zone(np.add, self._load) / self._zone_load).T
        table[..., 3] = deviation[:, self.seats].T
        table[..., 4] = (self._by_zone(np.add, deviation) / self._sizes).T
        table[..., 5] = self._by_zone(np.minimum, deviation).T
        table[..., 6] = self._by_zone(np.maximum, deviation).T
        table[..., 7], table[..., 8] = np.sin(angle), np.cos(angle)
        if not self._full:
            return [block.copy() for block in table]
        whole = np.ascontiguousarray(table.transpose(1, 0, 2)).reshape(self.num_envs, -1)
        return [whole.copy() for _ in table]

    def _by_zone(self, how: np.ufunc, values: NDArray[Any]) -> Matrix:
        """Sum, least or greatest over each zone's buses of values per bus, (..., K) -> (..., n)."""
        return np.asarray(how.reduceat(values[..., self._order], self._starts, axis=-1))


# --- baselines ---------------------------------------------------------------------------------------------------------


def uncontrolled(env: VoltageEnv, graph: nx.Graph) -> Controller:
    """No reactive power at all."""
    return lambda world: [np.zeros((world.num_envs, 1), np.float32)] * env.n_agents


def droop(env: VoltageEnv, graph: nx.Graph) -> Controller:
    """Each inverter against the deviation of its own bus, full reactive power at the band's edge, with a lag against swinging."""

    def control(world: VecEnv) -> list[Floats]:
        assert isinstance(world, VoltageControl)
        deviation = world.voltages(world.reactive)[:, world.seats] - 1.0
        aim = -world.rating * np.clip(deviation / BAND, -1.0, 1.0)
        return world.actions(world.reactive + DROOP_GAIN * (aim - world.reactive))

    return control


def central(env: VoltageEnv, graph: nx.Graph) -> Controller:
    """The least sum of squared voltage deviations, by one that sees all: a convex quadratic program over the inverters' ranges.

    Solved by accelerated projected gradient steps (Beck & Teboulle 2009). Deviations count as v - 1 = (v² - 1)/2, and squared
    voltages as linear around the present reactive powers.
    """

    def control(world: VecEnv) -> list[Floats]:
        assert isinstance(world, VoltageControl)
        x = world.influence / 2.0
        curvature = x @ x.T
        pace = 1.0 / float(np.linalg.eigvalsh(curvature)[-1])
        q = ahead = world.reactive
        pull = ((world.voltages(q) ** 2 - 1.0) / 2.0 - q @ x) @ x.T
        weight = 1.0
        for _ in range(CENTRAL_STEPS):
            new = np.clip(ahead - pace * (ahead @ curvature + pull), -world.capability, world.capability)
            grown = (1.0 + np.sqrt(1.0 + 4.0 * weight**2)) / 2.0
            ahead = new + (weight - 1.0) / grown * (new - q)
            q, weight = new, grown
        return world.actions(q)

    return control


def frugal(env: VoltageEnv, graph: nx.Graph) -> Controller:
    """The least reactive power in sum that keeps every bus within limits, by one that sees all: a linear program per copy.

    Where limits cannot be kept, the bus that exceeds them most does so as little as can be.
    """
    from scipy.optimize import linprog  # half a second, which only this baseline needs

    low, high = (1.0 - BAND + MARGIN) ** 2, (1.0 + BAND - MARGIN) ** 2

    def control(world: VecEnv) -> list[Floats]:
        assert isinstance(world, VoltageControl)
        n, buses = world.influence.shape
        idle = world.voltages(world.reactive) ** 2 - world.reactive @ world.influence
        raised = np.hstack([world.influence.T, -world.influence.T])  # by what is given, and by what is taken
        excess = np.full((2 * buses, 1), -1.0)
        table = np.hstack([np.vstack([raised, -raised]), excess])
        price = np.append(np.ones(2 * n), EXCESS_PRICE)
        q = np.empty_like(world.reactive)
        for e, most in enumerate(world.capability):
            bounds = [(0.0, float(limit)) for limit in (*most, *most, np.inf)]
            found = linprog(price, table, np.concatenate([high - idle[e], idle[e] - low]), bounds=bounds).x
            q[e] = found[:n] - found[n : 2 * n]
        return world.actions(q)

    return control


def scene(world: VoltageControl, copy: int) -> Scene:
    """The feeder, its buses coloured by voltage, and the reactive power of the inverters."""
    places = tree_places(world.feeder.upstream.tolist())
    volts = np.append(1.0, world.voltages(world.reactive)[copy])
    lines = [(int(up), bus) for bus, up in enumerate(world.feeder.upstream, start=1)]
    scale = Scale("voltage", 0.9, 1.1, "p.u.")
    buses = np.array([bus for _, bus in lines])
    agents = places[world.seats + 1]
    return Scene(
        layers=[
            Layer(scale=scale, at=ends(places, lines), values=volts[buses]),
            Layer(scale=scale, at=places, values=volts, marked=np.abs(volts - 1.0) > BAND, mark="out of limits"),
            Layer(
                scale=Scale("reactive power", -world.rating, world.rating, "Mvar"),
                at=agents, values=world.reactive[copy], size=2.0,
            ),
        ],
        agents=agents,
    )  # fmt: skip


BASELINES = {"none": uncontrolled, "droop": droop, "central": central, "frugal": frugal}
VOLTAGE_33 = World(settings=Voltage33, spec=spec, make=VoltageControl, baselines=BASELINES, scene=scene)
VOLTAGE_141 = World(settings=Voltage141, spec=spec, make=VoltageControl, baselines=BASELINES, scene=scene)
