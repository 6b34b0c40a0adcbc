"""Machines of a network that work on jobs, become faulty and die, and may be rebooted; faults spread (SysAdmin).

Theory of operation. A machine is good, faulty or dead, and its job is absent, running or done. A step has five parts. Machines
that are rebooted become good and lose their job. Machines that are not dead are paid 1 for a job that is done, which then is
absent. A running job of a machine that is not dead makes progress, a random part of the whole that has a beta distribution; it
is done when the sum of parts reaches 1. A good machine without a job gets one with probability arrival_prob. At last good
machines become faulty and faulty ones die, both more likely with every neighbour that is not good, all from the statuses before.

Status depends on reboots and other statuses alone, never on jobs: under a policy that looks at statuses it is a Markov chain.

Source: Guestrin, Koller & Parr 2001, in the version with jobs of Sintes 2025 (COGNAC), whose rates are the defaults.
"""

from collections.abc import Callable, Sequence
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
Counts = NDArray[np.int64]
Indices = NDArray[np.intp]
Mask = NDArray[np.bool_]
Prob = Annotated[float, Field(ge=0, le=1)]
EPISODE = 100  # steps
BLOCK = 32  # steps of random numbers drawn at once per copy
MAX_NODES = 1024
GOOD, FAULTY, DEAD = range(3)
ABSENT, RUNNING, DONE = range(3)
CONCENTRATION = 10.0  # of the beta distribution of a step's progress: the sum of its two parameters
MEASURES = (
    Measure(name="jobs", unit="1", meaning="Jobs done and paid in a step, per machine."),
    Measure(name="dead", unit="1", meaning="Part of the machines that are dead after a step."),
    Measure(name="reboots", unit="1", meaning="Part of the machines that are rebooted in a step."),
)


class SysAdminEnv(ContactsEnv):
    """Machines of a network that work on jobs and may be rebooted, an agent each."""

    default_agents: ClassVar[int] = 10

    name: str = setting("sysadmin", "Which world.")
    agents: int | None = team(default_agents, 2, MAX_NODES)
    arrival_prob: Prob = setting(0.4, "Probability that a good machine without a job gets one in a step.")
    fault_prob: Prob = setting(0.15, "Probability that a good machine becomes faulty by itself in a step.")
    spread_prob: Prob = setting(0.2, "Probability that a neighbour that is not good makes a good machine faulty in a step.")
    death_factor: Prob = setting(0.05, "What these two are multiplied by for a faulty machine to die.")
    good_time: float = setting(4.0, "Mean steps that progress of a job on a good machine is set for.", unit="steps", ge=1.25)
    faulty_time: float = setting(8.0, "The same on a faulty machine.", unit="steps", ge=1.25)
    reward: Literal["team", "local"] = setting("team", "The mean over machines for all agents, or each machine its own.")


def spec(env: SysAdminEnv) -> EnvSpec:
    """Shape of the world; without a graph given, `kinematic` means the ring.

    Args:
        env: The scenario's section.

    Returns:
        Status and job one-hot and two choices per machine; no cost.
    """
    n = env.n_agents
    return EnvSpec(
        obs_dims=(6,) * n,
        act_dims=(1,) * n,
        n_discrete=(2,) * n,
        cost_limits=(),
        horizon=EPISODE if env.horizon is None else env.horizon,
        dt=1.0,
        edges=ring(n),
        one_hot=((3, 3),) * n,
        measures=MEASURES,
    )


class SysAdmin(Copies):
    """E copies of the network.

    Observation of a machine: its status (good, faulty, dead) and its job (absent, running, done), one-hot each; progress is
    hidden. Action: 1 reboots. Reward: 1 for a job done. No cost. Ends: truncation at the horizon. Start: good machines, with a
    job each with `arrival_prob`.
    """

    STATE: ClassVar[tuple[str, ...]] = ("status", "job", "progress", "_chance", "_work")

    def __init__(self, env: SysAdminEnv, graph: nx.Graph, seed: int) -> None:
        """Set up all copies; call `reset` before `step`.

        Args:
            env: The scenario's section.
            graph: Communication graph; faults spread on it if `env.contacts` is links.
            seed: Root of the copies' random streams.
        """
        super().__init__(spec(env), env.num_envs, seed)
        self.env = env
        e, n = self.num_envs, self.spec.n_agents
        self._adjacency = env.neighbours(graph).astype(np.float32)  # sums of ones are exact
        most = np.arange(int(self._adjacency.sum(axis=0).max()) + 1)
        spread = 1.0 - (1.0 - env.spread_prob) ** most  # by how many neighbours are not good
        self._fault = 1.0 - (1.0 - env.fault_prob) * (1.0 - spread)
        self._death = 1.0 - (1.0 - env.death_factor * env.fault_prob) * (1.0 - env.death_factor * spread)
        self.status: Counts = np.zeros((e, n), np.int64)
        self.job: Counts = np.zeros((e, n), np.int64)
        self.progress: Matrix = np.zeros((e, n))
        self._chance = Ahead(self._rngs, (2, n), uniform, steps=BLOCK)  # of jobs and changes
        self._work = Ahead(self._rngs, (2, n), self._draw, steps=BLOCK)  # of progress on good and faulty machines

    def step(self, actions: Sequence[Floats]) -> Transition:
        """Advance all copies one step under each machine's choice, (E, 1)."""
        reboots = np.stack(taken(actions, self.spec.n_discrete), axis=1) == 1
        status, job = np.where(reboots, GOOD, self.status), np.where(reboots, ABSENT, self.job)
        paid = (job == DONE) & (status != DEAD)
        job = np.where(paid, ABSENT, job)
        comes, changes = np.moveaxis(self._chance.step(), 1, 0)
        good, faulty = np.moveaxis(self._work.step(), 1, 0)
        runs = (job == RUNNING) & (status != DEAD)
        self.progress = np.where(runs, self.progress + np.where(status == GOOD, good, faulty), 0.0)
        job = np.where(runs & (self.progress >= 1.0), DONE, job)
        self.job = np.where((job == ABSENT) & (status == GOOD) & (comes < self.env.arrival_prob), RUNNING, job)
        beside = ((status != GOOD).astype(np.float32) @ self._adjacency).astype(np.intp)
        worse = changes < np.where(status == GOOD, self._fault[beside], self._death[beside])
        self.status = np.where(worse, np.minimum(status + 1, DEAD), status)
        own = paid.astype(np.float64)
        never = np.zeros(self.num_envs, bool)
        measured = np.stack([own.mean(axis=1), (self.status == DEAD).mean(axis=1), reboots.mean(axis=1)], axis=1)
        return self._episodes.conclude(own.mean(axis=1), dealt(own, self.env.reward == "local"), never, never, measured=measured)

    def _draw(self, rng: np.random.Generator, out: Matrix) -> None:
        mean = 1.0 / np.array([[self.env.good_time], [self.env.faulty_time]])
        out[:] = rng.beta(CONCENTRATION * mean, CONCENTRATION * (1.0 - mean), out.shape)

    def _restart(self, ids: Indices) -> None:
        self.status[ids], self.progress[ids] = GOOD, 0.0
        for e in ids:
            self.job[e] = np.where(self._rngs[e].random(self.job.shape[1]) < self.env.arrival_prob, RUNNING, ABSENT)

    def _observe(self) -> list[Floats]:
        eye = np.eye(3, dtype=np.float32)
        return list(np.concatenate([eye[self.status.T], eye[self.job.T]], axis=2))


# --- controllers that learn nothing ---------------------------------------------------------------------------------


def baseline(policy: Callable[[SysAdmin], Mask]) -> Callable[[SysAdminEnv, nx.Graph], Controller]:
    """A policy that says which machines are rebooted, (E, n), as a world's baseline."""

    def control(world: VecEnv) -> list[Floats]:
        assert isinstance(world, SysAdmin)
        return list(np.ascontiguousarray(policy(world).T, np.float32)[:, :, None])

    return lambda env, graph: control


def scene(world: SysAdmin, copy: int) -> Scene:
    """Machines by their status, their jobs inside, and the links that faults spread on."""
    edges, status = upper(world._adjacency), world.status[copy].astype(float)
    places = graph_places(world.spec.n_agents, edges)
    worse = (status > 0)[np.array(edges).reshape(-1, 2)].sum(axis=1).astype(float)
    return Scene(
        layers=[
            Layer(scale=Scale("ends that are not good", 0.0, 2.0), at=ends(places, edges), values=worse),
            Layer(
                scale=Scale("status", 0.0, 2.0, "0 good, 1 faulty, 2 dead"), at=places, values=status, size=2.0,
                marked=world.status[copy] == DEAD, mark="dead",
            ),
            Layer(scale=Scale("job", 0.0, 2.0, "0 none, 1 runs, 2 done"), at=places, values=world.job[copy].astype(float)),
        ],
        agents=places,
    )  # fmt: skip


BASELINES = {
    "random": at_random,
    "none": baseline(lambda world: np.zeros(world.status.shape, bool)),
    "dead": baseline(lambda world: world.status == DEAD),
    "faulty": baseline(lambda world: world.status != GOOD),
    "unpaid": baseline(lambda world: (world.status == DEAD) | ((world.status == FAULTY) & (world.job == ABSENT))),
}
WORLD: World[SysAdminEnv] = World(settings=SysAdminEnv, spec=spec, make=SysAdmin, baselines=BASELINES, scene=scene)
