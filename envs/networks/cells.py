"""Base stations of a mobile network that sleep, or send with more or less power: coverage against energy.

Theory of operation. Cells stand on a hexagonal grid. In the area of each lie a few places with users, and every place is served
by the cell that it receives best. A cell gives each place that it serves an equal part of its time, so that the rate of a place
falls with their number, and with the interference of all other cells that are awake, in proportion to their load. Loads and
rates depend on each other; `Radio.served` goes from full load so many times around, which approaches the solution from the safe
side. Demand follows the time of day and wanders from area to area; what is not served in a step waits. A cell that sleeps saves
most of its power, and needs one step to wake, in which it sends nothing.

More power alone buys nothing where all cells send with more: the interference grows with the signal. What a cell's sleep does to
the coverage of others falls off with every hop, which makes this a demonstration of decay.

Source: problem and parameters of environments note, section 5.5; path loss and noise of 3GPP TR 36.814 (macro cells), power of a
station after Auer et al. 2011 (doi:10.1109/MWC.2011.6056691). Ours differs in that demand is that of places, not of cells.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from envs.actions import at_random, taken
from envs.copies import Ahead, Copies, normal
from envs.episodes import dealt
from envs.interface import Controller, EnvSpec, Floats, Measure, Transition, VecEnv, World
from envs.scene import Layer, Scale, Scene
from scenarios.schema import Env, setting

Matrix = NDArray[np.float64]
Counts = NDArray[np.int64]
Indices = NDArray[np.intp]
Mask = NDArray[np.bool_]
DAY = 96  # steps of 15 minutes, and an episode
STEP_S = 900.0
BLOCK = 16  # steps of random numbers drawn at once per copy
APART_M = 500.0  # between the sites of neighbours
NEAREST_M = 35.0  # the path loss holds from there on
BANDWIDTH_MHZ = 10.0
NOISE_W = 10.0 ** ((-174.0 + 70.0 + 9.0 - 30.0) / 10.0)  # thermal noise of 10 MHz, and the receiver's 9 dB
LEVELS_W = np.array([0.0, 5.0, 20.0, 40.0])  # what a cell can send; 0: it sleeps
ASLEEP_W, AWAKE_W, PER_SENT_W = 75.0, 130.0, 4.7  # what it draws
MOST_W = AWAKE_W + PER_SENT_W * LEVELS_W[-1]
LEAST_SINR = 10.0 ** (-4.0 / 10.0)
LEAST_RATE = 0.4  # Mb/s
ROUNDS = 2  # of loads and rates that depend on each other
QUIET, TROUGH_H = 0.2, 4.0  # demand at its least, part of the peak, and the hour
HOT_SPREAD, HOT_MEMORY = 0.4, 0.9  # of the wandering demand: standard deviation of its logarithm, autocorrelation per step
OUTAGE_PRICE = 2.0  # of the plan `descent`; the reward as the world pays it has none
OBSERVED = 10
MEASURES = (
    Measure(name="power", unit="W", meaning="What a cell draws, mean over cells."),
    Measure(name="outage", unit="1", meaning="Part of the places that are in outage in a step."),
    Measure(name="asleep", unit="1", meaning="Part of the cells that sleep in a step."),
)


class CellsEnv(Env):
    """Base stations that choose to sleep or how much power to send with, an agent each."""

    rings: ClassVar[int]
    places: int = setting(12, "Places with users in the area of each cell.", unit="places", ge=1, le=100)
    shadowing_db: float = setting(6.0, "Standard deviation of the shadowing between a site and a place.", unit="dB", ge=0, le=20)
    demand: float = setting(0.75, "Mean demand of a place at the busiest hour.", unit="Mb/s", ge=0, le=100)
    backlog_limit: float = setting(450.0, "A place for which more than that waits is in outage.", unit="Mbit", ge=0)
    rate_weight: float = setting(0.05, "Weight of the rates in the reward.", ge=0, le=10)
    seed: int = setting(0, "Seed of places and shadowing; they are the same for every `seed` of the run.", ge=0)
    reward: Literal["team", "local"] = setting("team", "The mean over cells for all agents, or each cell its own.")
    cost: Literal["team", "local"] = setting("team", "The mean over cells for all agents, or each cell its own.")


class Cells7(CellsEnv):
    """A cell and its six neighbours."""

    name: str = setting("cells_7", "Which world.")
    rings = 1


class Cells19(CellsEnv):
    """A cell and two rings around it."""

    name: str = setting("cells_19", "Which world.")
    rings = 2


def sites(rings: int) -> Matrix:
    """Where the cells of so many rings around one stand, row by row, (n, 2), m."""
    reach = range(-rings, rings + 1)
    return APART_M * np.array([(q + r / 2, r * np.sqrt(3) / 2) for r in reach for q in reach if abs(q + r) <= rings])


def spec(env: CellsEnv) -> EnvSpec:
    """Shape of the network; without a graph given, `kinematic` joins cells that are neighbours.

    Args:
        env: The scenario's section.

    Returns:
        Ten numbers sensed and four choices per cell; one cost with a limit of 0.05 per step.
    """
    where = sites(env.rings)
    n, horizon = len(where), DAY if env.horizon is None else env.horizon
    distance = np.linalg.norm(where[:, None] - where, axis=2)
    return EnvSpec(
        obs_dims=(OBSERVED,) * n,
        act_dims=(1,) * n,
        n_discrete=(len(LEVELS_W),) * n,
        cost_limits=(0.05 * horizon,),
        horizon=horizon,
        dt=STEP_S,
        edges=tuple((i, j) for i in range(n) for j in range(i + 1, n) if distance[i, j] < 1.01 * APART_M),
        own_costs=env.cost == "local",
        measures=MEASURES,
    )


# --- the physics ----------------------------------------------------------------------------------------------------


def busyness(step: NDArray[np.int64]) -> Matrix:
    """Demand at a step of the day as a part of the peak's: least at 4 o'clock, most at 16."""
    angle = 2.0 * np.pi * (step / DAY - TROUGH_H / 24.0)
    return np.asarray(0.5 * (1.0 + QUIET) - 0.5 * (1.0 - QUIET) * np.cos(angle))


@dataclass(frozen=True, slots=True)
class Service:
    """What places get, P of them, from n cells, in B cases.

    Attributes:
        server: The cell that serves each place, (B, P); n for none.
        sinr: Signal over noise and interference, (B, P).
        rate: Mb/s, (B, P).
        load: Part of its time that each cell sends, (B, n).
        attached: Places that each cell serves, (B, n).
    """

    server: Indices
    sinr: Matrix
    rate: Matrix
    load: Matrix
    attached: Counts


class Radio:
    """The network's geometry and what follows from it for signals.

    Attributes:
        sites: (n, 2), m.
        places: (P, 2), m; those of a cell's area stand together, in the order of the cells.
        gain: Part of the power sent by each cell that each place receives, (n, P).
    """

    def __init__(self, env: CellsEnv) -> None:
        """Draw places, even over the hexagon of each cell, and shadowing, from `env.seed`."""
        self.sites = sites(env.rings)
        rng, n = np.random.default_rng(env.seed), len(self.sites)
        corner = 2.0 * np.pi * np.arange(3) / 3.0 + np.pi / 2.0
        corners = APART_M / np.sqrt(3.0) * np.stack([np.cos(corner), np.sin(corner)], axis=1)
        part, third = rng.random((n, env.places, 2, 1)), rng.integers(3, size=(n, env.places))  # a hexagon is three rhombi
        within = part[:, :, 0] * corners[third] + part[:, :, 1] * corners[(third + 1) % 3]
        self.places = (self.sites[:, None] + within).reshape(-1, 2)
        far_km = np.maximum(np.linalg.norm(self.sites[:, None] - self.places, axis=2), NEAREST_M) / 1000.0
        shadow = env.shadowing_db * rng.standard_normal(far_km.shape)
        self.gain = 10.0 ** (-(128.1 + 37.6 * np.log10(far_km) + shadow) / 10.0)

    def served(self, power: Matrix, needed: Matrix) -> Service:
        """What places get.

        Args:
            power: Sent by each cell, (B, n), W; 0: none.
            needed: By each place, (B, P), Mb/s; a cell sends only as long as it takes.

        Returns:
            Rates as if each place took all of its part of the time, and loads by what is needed.
        """
        cases, n = power.shape
        best, server = np.zeros_like(needed), np.full(needed.shape, n)
        for cell in range(n):
            signal = power[:, cell, None] * self.gain[cell]
            np.copyto(server, cell, where=signal > best)
            np.maximum(best, signal, out=best)
        at = np.arange(cases)[:, None] * (n + 1) + server
        attached = np.bincount(at.ravel(), minlength=cases * (n + 1))
        shared = np.maximum(attached, 1)
        part = BANDWIDTH_MHZ / shared[at]
        load, sinr, rate = np.ones(cases * (n + 1)), np.zeros_like(needed), np.zeros_like(needed)
        for _ in range(ROUNDS):
            sinr = best / (NOISE_W + np.maximum(self._received(power * load.reshape(cases, n + 1)[:, :n]) - best * load[at], 0.0))
            rate = part * np.log2(1.0 + sinr)
            busy = np.minimum(needed / np.maximum(rate, 1e-9), 1.0)
            load = np.bincount(at.ravel(), busy.ravel(), minlength=cases * (n + 1)) / shared
        found = load.reshape(cases, n + 1)[:, :n], attached.reshape(cases, n + 1)[:, :n]
        return Service(server, sinr, rate, *found)

    def _received(self, power: Matrix) -> Matrix:
        """All that reaches each place, (B, P), added up in the order of the cells: the same bits on any processor."""
        found = np.zeros((len(power), self.gain.shape[1]))
        for cell, gain in enumerate(self.gain):
            found += power[:, cell, None] * gain
        return found


def left(service: Service, needed: Matrix) -> Matrix:
    """What still waits after a step in which places needed so much, (B, P), Mb/s; in Mbit."""
    return STEP_S * np.maximum(needed - service.rate, 0.0)


def drawn(power: Matrix, awake: Mask) -> Matrix:
    """What cells draw that send with a power, W, or sleep."""
    return np.where(awake, AWAKE_W + PER_SENT_W * power, ASLEEP_W)


def in_outage(service: Service, backlog: Matrix, limit: float) -> Mask:
    """Places in outage, (B, P): SINR below -4 dB, rate below 0.4 Mb/s, or more than `limit` Mbit that wait."""
    return (service.sinr < LEAST_SINR) | (service.rate < LEAST_RATE) | (backlog > limit)


class Cells(Copies):
    """E copies of a network.

    Observation of a cell, all but the last three of the last step and 0 at the start: the power sent, of 40 W; whether it was
    awake; its load; the places that it served, of those of an area; of its own area the part of the places in outage, the mean
    of ln(1 + rate/0.4 Mb/s), and what waits, in limits of the backlog and at most 4. Then the demand of its area in the step to
    come, of the peak's mean; sine and cosine of the time of day. Action: 0 sleeps; 1, 2, 3 send with 5, 20, 40 W. Reward: minus
    the power drawn, of the most that a cell can draw, plus `rate_weight` times the mean of ln(1 + rate/0.4 Mb/s) over its area.
    Cost: part of the places of its area in outage. Ends: truncation at the horizon. Start: any time of day, all cells awake,
    nothing waits.
    """

    STATE: ClassVar[tuple[str, ...]] = ("chosen", "clock", "backlog", "_hot", "_seen", "_noise")

    def __init__(self, env: CellsEnv, graph: nx.Graph, seed: int) -> None:
        """Set up all copies; call `reset` before `step`.

        Args:
            env: The scenario's section.
            graph: Communication graph, on which the physics does not depend.
            seed: Root of the copies' random streams; places and shadowing come from `env.seed`.
        """
        super().__init__(spec(env), env.num_envs, seed)
        self.env, self.radio = env, Radio(env)
        e, n = self.num_envs, self.spec.n_agents
        self.chosen: Indices = np.ones((e, n), np.intp)  # in the last step: cells that were awake can send in the next
        self.clock: Counts = np.zeros(e, np.int64)
        self.backlog: Matrix = np.zeros((e, self.radio.places.shape[0]))  # of each place, Mbit
        self._hot: Matrix = np.zeros((e, n))  # wandering demand, of standard normal distribution
        self._seen: Matrix = np.zeros((7, e, n))  # of the last step
        self._noise = Ahead(self._rngs, (n,), normal, steps=BLOCK)

    def step(self, actions: Sequence[Floats]) -> Transition:
        """Advance all copies by a quarter of an hour under each cell's choice, (E, 1)."""
        chosen = np.stack(taken(actions, self.spec.n_discrete), axis=1)
        awake = chosen > 0
        power = np.where(self.chosen > 0, LEVELS_W[chosen], 0.0)
        needed = self.needed()
        service = self.radio.served(power, needed)
        self.backlog = left(service, needed)
        out = self._by_area(in_outage(service, self.backlog, self.env.backlog_limit))
        watts, rates = drawn(power, awake), self._by_area(np.log1p(service.rate / LEAST_RATE))
        waits = np.minimum(self._by_area(self.backlog) / max(self.env.backlog_limit, 1.0), 4.0)
        attached = service.attached / self.env.places
        self._seen = np.stack([power / LEVELS_W[-1], awake, service.load, attached, out, rates, waits])
        self.chosen = chosen
        self._hot = HOT_MEMORY * self._hot + np.sqrt(1.0 - HOT_MEMORY**2) * self._noise.step()
        self.clock = (self.clock + 1) % DAY
        own, never = self.env.rate_weight * rates - watts / MOST_W, np.zeros(self.num_envs, bool)
        spent = out.mean(axis=1)
        return self._episodes.conclude(
            own.mean(axis=1), dealt(own, self.env.reward == "local"), never, never,
            spent=spent[:, None], cost=dealt(out, self.env.cost == "local")[:, :, None],
            measured=np.stack([watts.mean(axis=1), spent, 1.0 - awake.mean(axis=1)], axis=1),
        )  # fmt: skip

    def demand(self) -> Matrix:
        """Demand of each place of a cell's area in the step to come, (E, n), Mb/s."""
        wandering = np.exp(HOT_SPREAD * self._hot - HOT_SPREAD**2 / 2.0)
        return self.env.demand * busyness(self.clock)[:, None] * wandering

    def needed(self) -> Matrix:
        """What would serve each place in the step to come, with what waits, (E, P), Mb/s."""
        return np.repeat(self.demand(), self.env.places, axis=1) + self.backlog / STEP_S

    def _by_area(self, of_places: NDArray[np.generic]) -> Matrix:
        """Means over the places of each cell's area, (E, n)."""
        return np.asarray(of_places.reshape(self.num_envs, -1, self.env.places).mean(axis=2))

    def _restart(self, ids: Indices) -> None:
        self.chosen[ids], self.backlog[ids], self._seen[:, ids] = 1, 0.0, 0.0
        for e in ids:
            self.clock[e] = self._rngs[e].integers(DAY)
            self._hot[e] = self._rngs[e].standard_normal(self._hot.shape[1])

    def _observe(self) -> list[Floats]:
        e, n = self.chosen.shape
        angle = 2.0 * np.pi * self.clock / DAY
        obs = np.empty((n, e, OBSERVED), np.float32)
        obs[:, :, :7] = self._seen.transpose(2, 1, 0)
        obs[:, :, 7] = self.demand().T / max(self.env.demand, 1e-9)
        obs[:, :, 8], obs[:, :, 9] = np.sin(angle), np.cos(angle)
        return list(obs)


# --- controllers that learn nothing ---------------------------------------------------------------------------------


def all_at(level: int) -> Callable[[CellsEnv, nx.Graph], Controller]:
    """The baseline in which all cells always send with the same power."""

    def control(world: VecEnv) -> list[Floats]:
        return [np.full((world.num_envs, 1), level, np.float32) for _ in range(world.spec.n_agents)]

    return lambda env, graph: control


def descend(price: Callable[[Indices], Matrix], start: Indices, choices: Sequence[int], sweeps: int = 1) -> Indices:
    """Choices of all cells at which a price is low: one cell after the other takes what is cheapest as the others are.

    Args:
        price: Of choices (B, n) of B cases: (B,).
        start: Choices to begin with, (B, n).
        choices: Of each cell.
        sweeps: How many times each cell chooses, at most.

    Returns:
        (B, n), at the same price or a lower one.
    """
    chosen, least = start.copy(), price(start)
    for _ in range(sweeps):
        before = chosen.copy()
        for cell in range(chosen.shape[1]):
            for choice in choices:
                tried = chosen.copy()
                tried[:, cell] = choice
                cost = price(tried)
                chosen[:, cell] = np.where(cost < least, choice, chosen[:, cell])
                least = np.minimum(cost, least)
        if (chosen == before).all():
            break
    return chosen


def descent(env: CellsEnv, graph: nx.Graph) -> Controller:
    """Central coordinate descent from the choices in force: it knows gains, demand and what waits, and looks one step ahead.

    Its price is minus the reward plus `OUTAGE_PRICE` times the part of the places in outage, as if every cell were awake already.
    """

    def control(world: VecEnv) -> list[Floats]:
        assert isinstance(world, Cells)
        needed = world.needed()

        def price(chosen: Indices) -> Matrix:
            power = LEVELS_W[chosen]
            service = world.radio.served(power, needed)
            out = in_outage(service, left(service, needed), env.backlog_limit)
            rates = np.log1p(service.rate / LEAST_RATE).mean(axis=1)
            watts = drawn(power, chosen > 0).mean(axis=1)
            return np.asarray(watts / MOST_W - env.rate_weight * rates + OUTAGE_PRICE * out.mean(axis=1))

        plan = descend(price, world.chosen, range(len(LEVELS_W)))
        return list(np.ascontiguousarray(plan.T, np.float32)[:, :, None])

    return control


def scene(world: Cells, copy: int) -> Scene:
    """Places by their rates, joined to the cell that serves them, and the power that cells send."""
    radio, n = world.radio, world.spec.n_agents
    power = LEVELS_W[world.chosen]
    service = radio.served(power[[copy]], world.needed()[[copy]])
    out = in_outage(service, world.backlog[[copy]], world.env.backlog_limit)[0]
    server, rate = service.server[0], service.rate[0]
    served = np.flatnonzero(server < n)
    lines = np.stack([radio.places[served], radio.sites[server[served]]], axis=1)
    scale = Scale("rate of a place", 0.0, 4.0, "Mb/s")
    return Scene(
        layers=[
            Layer(scale=scale, at=lines, values=rate[served], size=0.5),
            Layer(scale=scale, at=radio.places, values=rate, marked=out, mark="in outage"),
            Layer(scale=Scale("power sent", 0.0, float(LEVELS_W[-1]), "W"), at=radio.sites, values=power[copy], size=2.5),
        ],
        agents=radio.sites,
    )


BASELINES = {"random": at_random, "all_5": all_at(1), "all_20": all_at(2), "all_40": all_at(3), "descent": descent}
CELLS_7: World[Cells7] = World(settings=Cells7, spec=spec, make=Cells, baselines=BASELINES, scene=scene)
CELLS_19: World[Cells19] = World(settings=Cells19, spec=spec, make=Cells, baselines=BASELINES, scene=scene)
