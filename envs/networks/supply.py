"""Stock on a supply network: every node orders from its supplier, goods travel for some steps, and customers wait or do not.

Theory of operation. Each node has one supplier; nodes without one in the network order from a source that never runs out. Nodes
without customers in the network are retailers, with Poisson demand. In a step a node receives what arrives, all nodes order at
the same time, demand and orders become requests, each node sends what it has of what it owes (to the customer with the lowest
number first), and the rest stays owed. Goods that are sent arrive `lead_time` steps later. Stock at hand costs by how near it is
to the customers, what a retailer owes costs much more. All amounts are whole numbers.

A node's *echelon* is itself and everything behind it on the way to the customers. On a chain the best policy is to keep the
stock of every echelon at a level of its own (Clark & Scarf), which takes knowledge of the whole echelon; `optimum` has levels
and cost by the recursion of that proof. On a tree `levels` treats a node's customers as one, which is a rule of thumb.

Source: chain and parameters as in environments note, section 5.6; Clark & Scarf 1960 (doi:10.1287/mnsc.6.4.475), with the
average cost of Federgruen & Zipkin 1984 (doi:10.1287/opre.32.4.818). Ours differs in that goods on their way cost nothing.
"""

from collections.abc import Callable, Sequence
from typing import ClassVar, Literal

import networkx as nx
import numpy as np
from numpy.typing import NDArray
from scipy import stats

from envs.actions import at_random, taken
from envs.copies import Ahead, Copies
from envs.episodes import dealt
from envs.interface import Controller, EnvSpec, Floats, Measure, Transition, VecEnv, World
from envs.scene import Layer, Scale, Scene, ends, tree_places
from envs.settings import TeamEnv, team
from scenarios.schema import setting

Counts = NDArray[np.int64]
Matrix = NDArray[np.float64]
EPISODE = 100  # steps
BLOCK = 32  # steps of demand drawn at once per copy
MAX_NODES = 256
SCALE = 10.0  # units of goods per unit of the observation
TAIL = 1e-12  # probability of demand that the recursion leaves out
MEASURES = (
    Measure(name="expense", unit="cost/step", meaning="Cost of stock and of what retailers owe in a step, summed over nodes."),
    Measure(name="stockouts", unit="1", meaning="Part of the retailers that owe their customers something after a step."),
    Measure(
        name="bullwhip",
        unit="1",
        meaning="Variance of what is ordered from the source, over the variance of all customers' demand.",
    ),
)


class SupplyEnv(TeamEnv):
    """Nodes of a supply network that order from their suppliers, an agent each."""

    default_agents: ClassVar[int] = 4

    name: str = setting("supply", "Which world.")
    agents: int | None = team(default_agents, 1, MAX_NODES)
    suppliers: Literal["serial", "links"] = setting(
        "serial",
        "The supply network. serial: node i + 1 supplies node i, and the source the last; links: the shortest ways to the last "
        "node on the communication graph, which may come from a file.",
    )
    demand: float = setting(8.0, "Mean demand at a retailer, Poisson.", unit="goods/step", gt=0, le=100)
    lead_time: int = setting(2, "Steps until goods that are sent arrive.", unit="steps", ge=1, le=8)
    most: int = setting(
        24, "Most that a node can order in a step; it has one action for each amount.", unit="goods", ge=1, le=200
    )
    holding: float = setting(
        1.0, "Cost of stock at the retailers furthest from the source per step; upstream it falls in equal parts.", gt=0
    )
    backorder: float = setting(5.0, "Cost of what a retailer owes, per unit and step.", gt=0)
    start_stock: int = setting(16, "Stock of every node at the start.", unit="goods", ge=0, le=1000)
    reward: Literal["team", "local"] = setting("team", "The mean over nodes for all agents, or each node its own.")
    cost: Literal["team", "local"] = setting("team", "The mean over retailers for all agents, or each retailer its own.")


class Chains:
    """The supply network as indices.

    Attributes:
        supplier: Of each node, (n,); n for the source.
        customers: Of each node, ascending.
        retailers: Nodes without customers, ascending.
        top: Nodes that the source supplies.
        holding: Cost of a unit of stock per step, (n,).
        echelon: (n, n) 1 where the second node is in the first one's echelon.
    """

    def __init__(self, env: SupplyEnv, graph: nx.Graph) -> None:
        """Find out which node supplies each node.

        Args:
            env: The scenario's section.
            graph: Communication graph on 0..n-1, connected.
        """
        n = env.n_agents
        found = nx.path_graph(n) if env.suppliers == "serial" else graph
        tree = nx.Graph()
        tree.add_nodes_from(range(n))
        tree.add_edges_from(sorted(tuple(sorted(edge)) for edge in found.edges))
        paths = {node: min(nx.all_shortest_paths(tree, node, n - 1)) for node in range(n)} if n > 1 else {0: [0]}
        self.supplier = np.array([paths[node][1] if len(paths[node]) > 1 else n for node in range(n)])
        self.customers = [np.flatnonzero(self.supplier == node).tolist() for node in range(n)]
        self.retailers = np.array([node for node in range(n) if not self.customers[node]])
        self.top = np.flatnonzero(self.supplier == n)
        level = np.array([len(paths[node]) for node in range(n)])
        self.holding = env.holding * level / level.max()
        self.echelon = np.eye(n)
        for node in range(n):
            for above in self.above(node):
                self.echelon[above, node] = 1

    def above(self, node: int) -> list[int]:
        """The nodes between a node and the source, the nearest first."""
        found = []
        while (node := int(self.supplier[node])) < len(self.supplier):
            found.append(node)
        return found


def spec(env: SupplyEnv) -> EnvSpec:
    """Shape of the world; without a graph given, `kinematic` means the chain.

    Args:
        env: The scenario's section.

    Returns:
        lead_time + 4 numbers sensed and most + 1 choices per node; one cost with a limit of 0.05 per step.
    """
    n, horizon = env.n_agents, EPISODE if env.horizon is None else env.horizon
    return EnvSpec(
        obs_dims=(env.lead_time + 4,) * n,
        act_dims=(1,) * n,
        n_discrete=(env.most + 1,) * n,
        cost_limits=(0.05 * horizon,),
        horizon=horizon,
        dt=1.0,
        edges=tuple((i, i + 1) for i in range(n - 1)),
        own_costs=env.cost == "local",
        measures=MEASURES,
    )


class SupplyNetwork(Copies):
    """E copies of the network.

    Observation of a node, in tens: stock; what it owes; what its supplier owes it; what arrives in 1, …, L steps; what was
    requested of it in the last step. Action: how much to order. Reward: minus the cost of its stock and, at a retailer, of what
    it owes. Cost: 1 at a retailer that owes something after the step. Ends: truncation at the horizon. Start: `start_stock`
    everywhere, and in every step of the lead times the mean demand of the retailers behind a node on its way to it.
    """

    STATE: ClassVar[tuple[str, ...]] = ("stock", "awaited", "unmet", "pipeline", "requested", "_demand")

    def __init__(self, env: SupplyEnv, graph: nx.Graph, seed: int) -> None:
        """Set up all copies; call `reset` before `step`.

        Args:
            env: The scenario's section.
            graph: Communication graph; the supply network follows from it if `env.suppliers` is links.
            seed: Root of the copies' random streams.
        """
        super().__init__(spec(env), env.num_envs, seed)
        self.env = env
        self.chains = Chains(env, graph)
        e, n = self.num_envs, self.spec.n_agents
        retailers = self.chains.retailers
        self.mean = env.demand * self.chains.echelon[:, retailers].sum(axis=1)  # of what passes a node
        ranks = [[c[k] for c in self.chains.customers if len(c) > k] for k in range(max(map(len, self.chains.customers)))]
        self._ranks = [np.array(rank) for rank in ranks]  # of customers: no two of a rank have the same supplier
        self.stock: Counts = np.zeros((e, n), np.int64)
        self.awaited: Counts = np.zeros((e, n), np.int64)  # what its supplier owes each node
        self.unmet: Counts = np.zeros((e, n), np.int64)  # what retailers owe their customers
        self.pipeline: Counts = np.zeros((e, n, env.lead_time), np.int64)  # by steps still to go
        self.requested: Counts = np.zeros((e, n), np.int64)
        self._demand = Ahead(self._rngs, retailers.shape, self._draw, steps=BLOCK, dtype=np.int64)

    def step(self, actions: Sequence[Floats]) -> Transition:
        """Advance all copies one step under each node's order, (E, 1)."""
        ordered = np.stack(taken(actions, self.spec.n_discrete), axis=1).astype(np.int64)
        chains, total = self.chains, self.env.demand * len(self.chains.retailers)
        self.stock = self.stock + self.pipeline[:, :, 0]
        self.requested = self.to_suppliers(ordered)
        self.requested[:, chains.retailers] = self._demand.step()
        self.awaited = self.awaited + ordered
        self.unmet[:, chains.retailers] += self.requested[:, chains.retailers]
        self.pipeline = np.concatenate([self.pipeline[:, :, 1:], self._send()[:, :, None]], axis=2)
        own = -(chains.holding * self.stock + self.env.backorder * self.unmet)
        owing = (self.unmet > 0).astype(np.float64)
        spent = owing[:, chains.retailers].mean(axis=1)
        cost = np.empty((own.shape[1], self.num_envs, 1), np.float32)
        cost[:, :, 0] = owing.T if self.env.cost == "local" else spent
        swing = (ordered[:, chains.top].sum(axis=1) - total) ** 2 / total
        never = np.zeros(self.num_envs, bool)
        return self._episodes.conclude(
            own.mean(axis=1), dealt(own, self.env.reward == "local"), never, never,
            spent=spent[:, None], cost=cost, measured=np.stack([-own.sum(axis=1), spent, swing], axis=1),
        )  # fmt: skip

    def to_suppliers(self, amounts: Counts) -> Counts:
        """Sum over each node's customers in the network, (E, n), of something that each node has, (E, n)."""
        found = np.zeros_like(amounts)
        for rank in self._ranks:
            found[:, self.chains.supplier[rank]] += amounts[:, rank]
        return found

    def owed(self) -> Counts:
        """What each node owes its customers, in the network or outside, (E, n)."""
        return self.to_suppliers(self.awaited) + self.unmet

    def _draw(self, rng: np.random.Generator, out: Counts) -> None:
        out[:] = rng.poisson(self.env.demand, out.shape)

    def _send(self) -> Counts:
        """Send what is at hand of what is owed; what is now on its way to each node, (E, n)."""
        sent = np.zeros_like(self.stock)
        sent[:, self.chains.top] = self.awaited[:, self.chains.top]
        stock = self.stock.copy()
        for rank in self._ranks:
            supplier = self.chains.supplier[rank]
            sent[:, rank] = np.minimum(stock[:, supplier], self.awaited[:, rank])
            stock[:, supplier] -= sent[:, rank]
        sold = np.minimum(stock, self.unmet)
        self.stock, self.awaited, self.unmet = stock - sold, self.awaited - sent, self.unmet - sold
        return sent

    def _restart(self, ids: NDArray[np.intp]) -> None:
        self.stock[ids] = self.env.start_stock
        self.awaited[ids], self.unmet[ids] = 0, 0
        usual = np.rint(self.mean).astype(np.int64)
        self.requested[ids], self.pipeline[ids] = usual, usual[:, None]

    def _observe(self) -> list[Floats]:
        e, n = self.stock.shape
        obs = np.empty((n, e, 4 + self.env.lead_time), np.float32)
        obs[:, :, 0], obs[:, :, 1], obs[:, :, 2] = self.stock.T, self.owed().T, self.awaited.T
        obs[:, :, 3:-1] = self.pipeline.swapaxes(0, 1)
        obs[:, :, -1] = self.requested.T
        obs /= SCALE
        return list(obs)


# --- the best that can be done on a chain ---------------------------------------------------------------------------


def optimum(holding: Sequence[float], backorder: float, demand: float, lead_time: int) -> tuple[list[int], float]:
    """The best levels of a chain and what they cost, by the recursion of Clark and Scarf.

    With y units in the echelon of node i or on their way to it, echelon cost C_i(y) = (h_i - h_{i+1})·(y - (L + 1)·m) plus
    what is to come of it further down: for the retailer (b + h_0)·E[(D_{L+1} - y)+], else E[C_{i-1}(min(S_{i-1}, y - D_L))].
    S_i is where it is least.

    Args:
        holding: Cost of stock per unit and step, the retailer's first.
        backorder: Cost of what the retailer owes, per unit and step.
        demand: Mean demand m, Poisson.
        lead_time: L, the same everywhere.

    Returns:
        Echelon levels S_i, the retailer's first, and the average cost of a step in the long run.
    """
    lead = np.arange(int(stats.poisson.isf(TAIL, lead_time * demand)) + 1)
    chance = stats.poisson.pmf(lead, lead_time * demand)
    whole = np.arange(int(stats.poisson.isf(TAIL, (lead_time + 1) * demand)) + 1)
    whole_chance = stats.poisson.pmf(whole, (lead_time + 1) * demand)
    down, up = len(lead) * (len(holding) - 1), len(whole) + len(lead) * (len(holding) - 1)
    y = np.arange(-down, up)
    own = np.array([h - above for h, above in zip(holding, [*holding[1:], 0.0], strict=True)])
    drift = y - (lead_time + 1) * demand
    short = np.maximum(whole[None, :] - y[:, None], 0) @ whole_chance
    value = own[0] * drift + (backorder + holding[0]) * short
    levels = [int(y[value.argmin()])]
    for e in own[1:]:
        before = np.minimum(y[:, None] - lead, levels[-1]) + down  # as indices of y; below it the cost is never the least
        value = e * drift + value[np.maximum(before, 0)] @ chance
        levels.append(int(y[value.argmin()]))
    return levels, float(value.min() - lead_time * demand * sum(holding[1:]))


def levels(env: SupplyEnv, chains: Chains) -> NDArray[np.int64]:
    """A level for the echelon of every node, (n,): on a chain the best; on a tree as if a node's retailers were one."""
    found = []
    for node in range(len(chains.supplier)):
        down = [node]
        while chains.customers[down[0]]:
            down.insert(0, chains.customers[down[0]][0])
        holding = chains.holding[[*down, *chains.above(node)]].tolist()
        behind = chains.echelon[node, chains.retailers].sum()
        found.append(optimum(holding, env.backorder, env.demand * behind, env.lead_time)[0][len(down) - 1])
    return np.array(found)


# --- controllers that learn nothing ---------------------------------------------------------------------------------


def pass_on(world: SupplyNetwork) -> Matrix:
    """Every node orders what was requested of it in the last step."""
    return world.requested.astype(np.float64)


def fill_up(world: SupplyNetwork, target: Sequence[float]) -> Matrix:
    """Every node orders up to a level of its own stock, less what it owes, plus what it awaits: it knows itself only.

    Args:
        world: Where.
        target: Level of each node, (n,).
    """
    position = world.stock + world.awaited + world.pipeline.sum(axis=2) - world.owed()
    return np.asarray(np.asarray(target) - position)


def fill_echelons(world: SupplyNetwork, target: Sequence[float]) -> Matrix:
    """Every node orders up to a level of its echelon's stock: it knows everything behind it; arguments as for `fill_up`."""
    within = (world.stock - world.unmet + world.pipeline.sum(axis=2)) @ world.chains.echelon.T
    return np.asarray(np.asarray(target) - within - world.awaited)


def orders(world: SupplyNetwork, amounts: Matrix) -> list[Floats]:
    """Orders as actions: rounded, and within what a node can order."""
    chosen = np.clip(np.rint(amounts), 0, world.env.most).astype(np.float32)
    return list(np.ascontiguousarray(chosen.T)[:, :, None])


def baseline(policy: Callable[[SupplyNetwork, NDArray[np.int64]], Matrix]) -> Callable[[SupplyEnv, nx.Graph], Controller]:
    """A policy of a world and the levels of its echelons, as a world's baseline."""

    def made(env: SupplyEnv, graph: nx.Graph) -> Controller:
        known = levels(env, Chains(env, graph))

        def control(world: VecEnv) -> list[Floats]:
            assert isinstance(world, SupplyNetwork)
            return orders(world, policy(world, known))

        return control

    return made


def _local(world: SupplyNetwork, known: NDArray[np.int64]) -> Matrix:
    """Levels of the node alone: its echelon's, less those behind it, plus a step's orders that it does not know yet."""
    behind = world.to_suppliers(known[None])[0]
    return fill_up(world, (known - behind + np.where(behind > 0, world.mean, 0.0)).tolist())


def scene(world: SupplyNetwork, copy: int) -> Scene:
    """Stock at the nodes, from the source on, and goods on their way to them."""
    supplier, n = world.chains.supplier, world.spec.n_agents
    order = sorted(range(n), key=lambda node: (len(world.chains.above(node)), node))
    rank = {n: 0} | {node: k for k, node in enumerate(order, start=1)}  # the source is the root of the tree
    places = tree_places([rank[int(supplier[node])] for node in order])
    found, pairs = places[[rank[node] for node in range(n)]], [(rank[int(supplier[node])], rank[node]) for node in range(n)]
    steps = world.env.lead_time + 1
    return Scene(
        layers=[
            Layer(
                scale=Scale("goods on their way, in steps of demand", 0.0, 2.0 * steps), at=ends(places, pairs), size=1.5,
                values=world.pipeline[copy].sum(axis=1) / world.mean,
            ),
            Layer(
                scale=Scale("stock, in steps of demand", 0.0, 2.0 * steps), at=found, values=world.stock[copy] / world.mean,
                size=2.5, marked=world.owed()[copy] > 0, mark="owes goods",
            ),
        ],
        agents=found,
    )  # fmt: skip


BASELINES = {
    "random": at_random,
    "pass_on": baseline(lambda world, known: pass_on(world)),
    "base_stock": baseline(_local),
    "echelon": baseline(lambda world, known: fill_echelons(world, known.tolist())),
}
WORLD: World[SupplyEnv] = World(settings=SupplyEnv, spec=spec, make=SupplyNetwork, baselines=BASELINES, scene=scene)
