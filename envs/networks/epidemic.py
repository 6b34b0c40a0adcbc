"""A disease on a network of contacts: nodes recover and fall ill again, and a vaccine protects for one step (SIS).

Theory of operation. A node is infected or not. In a step a healthy node with k infected contacts falls ill with probability
1 - (1 - outside)·(1 - infect_prob)^k, times 1 - efficacy if it takes a dose; an infected node recovers with probability
recover_prob, and a dose does nothing for it. All nodes change at the same time, from the state before the step. What a dose is
worth depends on the contacts, which a node sees only with messages: without them it knows whether it is ill itself.

A node's change depends on its own dose only, so under any policy that gives each node a probability of a dose in each state the
next state of every node is independent of the others'. `chain` has that as a table, for as few nodes as that is possible with.

Source: SIS in discrete time after Wang et al. 2003 (doi:10.1109/RELDIS.2003.1238052), equation 4, with recovery before new
infection; as a problem of networked agents in Lin et al. 2021 (arXiv:2006.06555). Parameters are our own.
"""

from collections.abc import Callable, Sequence
from itertools import product
from typing import Annotated, ClassVar, Literal

import networkx as nx
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from envs.actions import at_random, taken
from envs.copies import Ahead, Copies, uniform
from envs.episodes import dealt
from envs.interface import Controller, EnvSpec, Floats, Measure, Transition, VecEnv, World
from envs.networks.contacts import ContactsEnv, ring
from envs.scene import Layer, Scale, Scene, ends, graph_places, upper
from envs.settings import team
from scenarios.schema import setting

Matrix = NDArray[np.float64]
Indices = NDArray[np.intp]
Mask = NDArray[np.bool_]
Prob = Annotated[float, Field(ge=0, le=1)]
EPISODE = 100  # steps
BLOCK = 32  # steps of random numbers drawn at once per copy
MAX_NODES = 1024
MAX_EXACT = 10  # nodes of `chain`: 1024 states
MEASURES = (
    Measure(name="infected", unit="1", meaning="Part of the nodes that are infected after a step."),
    Measure(name="doses", unit="1", meaning="Part of the nodes that take a dose in a step."),
)


class EpidemicEnv(ContactsEnv):
    """Nodes of a network of contacts that fall ill, recover and may take a dose of vaccine per step, an agent each."""

    default_agents: ClassVar[int] = 20

    name: str = setting("sis", "Which world.")
    agents: int | None = team(default_agents, 2, MAX_NODES)
    infect_prob: Prob = setting(0.4, "Probability that an infected contact infects a healthy node in a step.")
    recover_prob: Prob = setting(0.25, "Probability that an infected node recovers in a step.")
    outside_prob: Prob = setting(0.01, "Probability that a healthy node is infected from outside the network in a step.")
    efficacy: Prob = setting(0.9, "Part of the infections that a dose prevents in the step in which it is taken.")
    start_prob: Prob = setting(0.3, "Probability that a node is infected at the start of an episode.")
    budget: Prob = setting(0.1, "Doses per node and step that the limit of the cost allows.", unit="doses/step")
    dose_price: float = setting(0.0, "What a dose takes off the reward.", ge=0, le=1)
    reward: Literal["team", "local"] = setting("team", "The mean over nodes for all agents, or each node its own.")
    cost: Literal["team", "local"] = setting("team", "The mean over nodes for all agents, or each node its own.")


def spec(env: EpidemicEnv) -> EnvSpec:
    """Shape of the world; without a graph given, `kinematic` means the ring.

    Args:
        env: The scenario's section.

    Returns:
        Two numbers sensed and two choices per node; one cost with a limit of budget x horizon.
    """
    n, horizon = env.n_agents, EPISODE if env.horizon is None else env.horizon
    return EnvSpec(
        obs_dims=(2,) * n,
        act_dims=(1,) * n,
        n_discrete=(2,) * n,
        cost_limits=(env.budget * horizon,),
        horizon=horizon,
        dt=1.0,
        edges=ring(n),
        own_costs=env.cost == "local",
        measures=MEASURES,
    )


class Epidemic(Copies):
    """E copies of the network.

    Observation of a node: whether it is infected; whether it took a dose in the last step. Action: 1 takes a dose. Reward: -1 if
    the node is infected after the step, less the price of its dose. Cost: 1 for a dose. Ends: truncation at the horizon. Start:
    each node is infected with `start_prob`.
    """

    STATE: ClassVar[tuple[str, ...]] = ("infected", "_dosed", "_chance")

    def __init__(self, env: EpidemicEnv, graph: nx.Graph, seed: int) -> None:
        """Set up all copies; call `reset` before `step`.

        Args:
            env: The scenario's section.
            graph: Communication graph; the disease spreads on it if `env.contacts` is links.
            seed: Root of the copies' random streams.
        """
        super().__init__(spec(env), env.num_envs, seed)
        self.env = env
        e, n = self.num_envs, self.spec.n_agents
        self._adjacency = env.neighbours(graph).astype(np.float32)  # sums of ones are exact
        self._risk = risks(env, int(self._adjacency.sum(axis=0).max()))
        self.infected: Mask = np.zeros((e, n), bool)
        self._dosed: Mask = np.zeros((e, n), bool)
        self._chance = Ahead(self._rngs, (n,), uniform, steps=BLOCK)

    def step(self, actions: Sequence[Floats]) -> Transition:
        """Advance all copies one step under each node's choice, (E, 1)."""
        self._dosed = np.stack(taken(actions, self.spec.n_discrete), axis=1) == 1
        falls_ill = self.risk() * np.where(self._dosed, 1.0 - self.env.efficacy, 1.0)
        self.infected = self._chance.step() < np.where(self.infected, 1.0 - self.env.recover_prob, falls_ill)
        cost = self._dosed.astype(np.float64)
        own = -self.infected.astype(np.float64) - self.env.dose_price * cost
        never, spent = np.zeros(self.num_envs, bool), cost.mean(axis=1, keepdims=True)
        return self._episodes.conclude(
            own.mean(axis=1), dealt(own, self.env.reward == "local"), never, never,
            spent=spent, cost=dealt(cost, self.env.cost == "local")[:, :, None],
            measured=np.concatenate([self.infected.mean(axis=1, keepdims=True), spent], axis=1),
        )  # fmt: skip

    def ill_contacts(self) -> Indices:
        """How many contacts of each node are infected, (E, n)."""
        return (self.infected.astype(np.float32) @ self._adjacency).astype(np.intp)

    def risk(self) -> Matrix:
        """Probability with which each node would fall ill in this step without a dose, were it healthy, (E, n)."""
        return self._risk[self.ill_contacts()]

    def _restart(self, ids: Indices) -> None:
        self._dosed[ids] = False
        for e in ids:
            self.infected[e] = self._rngs[e].random(self.infected.shape[1]) < self.env.start_prob

    def _observe(self) -> list[Floats]:
        obs = np.empty((self.infected.shape[1], self.num_envs, 2), np.float32)
        obs[:, :, 0], obs[:, :, 1] = self.infected.T, self._dosed.T
        return list(obs)


def risks(env: EpidemicEnv, most: int) -> Matrix:
    """Probability that a healthy node without a dose falls ill, by its number of infected contacts 0..most."""
    return np.asarray(1.0 - (1.0 - env.outside_prob) * (1.0 - env.infect_prob) ** np.arange(most + 1))


# --- controllers that learn nothing ---------------------------------------------------------------------------------


def none(world: Epidemic) -> Mask:
    """No dose at all."""
    return np.zeros_like(world.infected)


def everyone(world: Epidemic) -> Mask:
    """A dose for every node in every step."""
    return np.ones_like(world.infected)


def exposed(world: Epidemic) -> Mask:
    """A dose for every healthy node with an infected contact: what a node can do that receives the states of its contacts."""
    return ~world.infected & (world.ill_contacts() > 0)


def rationed(world: Epidemic) -> Mask:
    """A central plan within the budget in every step: healthy nodes get the doses, those of the greatest risk first.

    It knows everything, and is greedy: it saves no dose for later. Among equal risks the lower number goes first.
    """
    doses = int(world.env.budget * world.infected.shape[1] + 1e-9)
    need = np.where(world.infected, 0.0, world.risk())
    rank = np.argsort(np.argsort(-need, axis=1, kind="stable"), axis=1, kind="stable")
    return np.asarray((rank < doses) & ~world.infected)


def baseline(policy: Callable[[Epidemic], Mask]) -> Callable[[EpidemicEnv, nx.Graph], Controller]:
    """One of the policies above, as a world's baseline."""

    def control(world: VecEnv) -> list[Floats]:
        assert isinstance(world, Epidemic)
        return list(np.ascontiguousarray(policy(world).T, np.float32)[:, :, None])

    return lambda env, graph: control


def scene(world: Epidemic, copy: int) -> Scene:
    """Nodes, infected or not, and the contacts between them."""
    edges, ill = upper(world._adjacency), world.infected[copy].astype(float)
    places = graph_places(world.spec.n_agents, edges)
    pairs = np.array(edges).reshape(-1, 2)
    contacts = Layer(scale=Scale("ends that are infected", 0.0, 2.0), at=ends(places, edges), values=ill[pairs].sum(axis=1))
    nodes = Layer(
        scale=Scale("infected", 0.0, 1.0), at=places, values=ill, size=2.0, marked=world._dosed[copy], mark="took a dose"
    )
    return Scene(layers=[contacts, nodes], agents=places)


# --- the exact answers ----------------------------------------------------------------------------------------------


def states(n: int) -> Mask:
    """All states of n nodes, (2^n, n): the number of a state has a bit per node, node 0's the most significant."""
    return np.array(list(product((False, True), repeat=n)))


def chain(env: EpidemicEnv, graph: nx.Graph, dose_prob: Matrix) -> Matrix:
    """Probabilities of the next state.

    Args:
        env: The scenario's section, of few nodes.
        graph: Communication graph, as for the world.
        dose_prob: Probability that a node takes a dose, by state, (2^n, n); nodes decide independently.

    Returns:
        (2^n, 2^n), rows sum to 1.

    Raises:
        ValueError: There are more than 10 nodes.
    """
    n = env.n_agents
    if n > MAX_EXACT:
        raise ValueError(f"env.agents: got {n}; exact answers are for at most {MAX_EXACT} nodes")
    infected, contacts = states(n), env.neighbours(graph)
    risk = risks(env, n)[(infected @ contacts).astype(np.intp)]
    ill = np.where(infected, 1.0 - env.recover_prob, risk * (1.0 - env.efficacy * dose_prob))
    found = np.ones((2**n, 2**n))
    for node in range(n):
        found *= np.where(infected[:, node], ill[:, node, None], 1.0 - ill[:, node, None])
    return found


def expected(env: EpidemicEnv, graph: nx.Graph, dose_prob: Matrix, steps: int) -> tuple[float, float]:
    """The two measures of an episode, exactly; arguments as for `chain`.

    Returns:
        The expected part of the nodes that are infected, and that take a dose, mean over `steps` steps.
    """
    infected, moves = states(env.n_agents), chain(env, graph, dose_prob)
    at = np.where(infected, env.start_prob, 1.0 - env.start_prob).prod(axis=1)
    ill, doses = 0.0, 0.0
    for _ in range(steps):
        doses += float(at @ dose_prob.mean(axis=1))
        at = at @ moves
        ill += float(at @ infected.mean(axis=1))
    return ill / steps, doses / steps


BASELINES = {
    "random": at_random,
    "none": baseline(none),
    "everyone": baseline(everyone),
    "exposed": baseline(exposed),
    "rationed": baseline(rationed),
}
WORLD: World[EpidemicEnv] = World(settings=EpidemicEnv, spec=spec, make=Epidemic, baselines=BASELINES, scene=scene)
