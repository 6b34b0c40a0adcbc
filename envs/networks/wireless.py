"""Multi-access ALOHA with deadlines: users on a grid share access points, and two that choose one at once both fail.

Theory of operation. Users stand on a grid of rows x columns, access points at the inner corners of its cells, so that a user
reaches one, two or four of them. A packet reaches user i with probability p_i per step and must be sent within d steps. In each
step a user is silent or sends its most urgent packet to one of its access points. If it is the only user that chose access
point y, it succeeds with probability q_y and is paid 1; where two or more chose y, all of them fail, also where one of them had
no packet. What is left over with one step to live is dropped. Users decide at the same time, from what they know: without
messages each knows its own packets only.

Neighbours are users that share an access point: a grid with diagonals. `as_game` gives the same world as a table of
probabilities, for as few users as that is possible with, so that `envs.games.tabular` has exact answers.

Source: Qu, Wierman & Li 2020 (arXiv:1912.02906), section 5, and Lin et al. 2021 (arXiv:2006.06555); parameters as in environments
note, section 5.1.
"""

from collections.abc import Callable, Sequence
from itertools import product
from typing import Annotated, ClassVar, Literal

import networkx as nx
import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from envs.actions import at_random, taken
from envs.copies import Ahead, Copies, uniform
from envs.episodes import dealt
from envs.games.tabular import Game
from envs.interface import Controller, EnvSpec, Floats, Measure, Transition, VecEnv, World
from envs.scene import Layer, Scale, Scene
from scenarios.schema import Env, setting

Matrix = NDArray[np.float64]
Indices = NDArray[np.intp]
Mask = NDArray[np.bool_]
Prob = Annotated[float, Field(ge=0, le=1)]
EPISODE = 50  # steps
BLOCK = 32  # steps of random numbers drawn at once per copy
MAX_SIDE = 32
LIMITS = {"energy": 0.4, "drops": 0.2}  # of the cost, per step
MEASURES = (
    Measure(name="sent", unit="1", meaning="Part of the users that send in a step, with a packet or without."),
    Measure(name="dropped", unit="1", meaning="Part of the users that lose a packet in a step because its time is up."),
)
MAX_BITS = 10  # packets that `as_game` can tell apart: 1024 states


class WirelessEnv(Env):
    """Users on a grid that share access points and send packets before a deadline, an agent each."""

    name: str = setting("wireless", "Which world.")
    rows: int = setting(5, "Rows of users; there are rows x columns agents.", unit="users", ge=2, le=MAX_SIDE)
    columns: int = setting(5, "Users per row.", unit="users", ge=2, le=MAX_SIDE)
    deadline: int = setting(2, "Steps in which a packet can be sent.", unit="steps", ge=1, le=8)
    arrival_prob: Prob | Literal["uniform"] = setting(
        0.5, "Probability that a packet reaches a user in a step; uniform: one number from [0, 1) per user."
    )
    success_prob: Prob | Literal["uniform"] = setting(
        "uniform", "Probability that an access point takes a packet; uniform: one number from [0, 1) each."
    )
    charged: Literal["energy", "drops"] | None = setting(
        None,
        "What costs 1. energy: a step in which a user sends; drops: a packet not sent in time. null: the world has no cost.",
    )
    seed: int = setting(0, "Seed of the uniform probabilities; they are the same for every `seed` of the run.", ge=0)
    reward: Literal["team", "local"] = setting("team", "The mean over users for all agents, or each user its own.")
    cost: Literal["team", "local"] = setting("team", "With charged: the mean over users for all agents, or each user its own.")

    @model_validator(mode="after")
    def _fits_together(self) -> "WirelessEnv":
        if self.cost == "local" and self.charged is None:
            raise ValueError("cost: got 'local'; without charged this world has no cost")
        return self


def access(rows: int, columns: int) -> list[list[int]]:
    """The access points of each user, both numbered row by row."""
    return [
        [
            y * (columns - 1) + x
            for y in (row - 1, row)
            for x in (column - 1, column)
            if 0 <= y < rows - 1 and 0 <= x < columns - 1
        ]
        for row in range(rows)
        for column in range(columns)
    ]


def probabilities(env: WirelessEnv) -> tuple[Matrix, Matrix]:
    """Arrival probability p of each user and success probability q of each access point.

    Args:
        env: The scenario's section.

    Returns:
        (n,) and (A,). The uniform ones come from `env.seed`: first those of access points, then those of users.
    """
    rng = np.random.default_rng(env.seed)
    drawn = rng.random((env.rows - 1) * (env.columns - 1)), rng.random(env.rows * env.columns)
    q, p = (
        uniform if chosen == "uniform" else np.full(len(uniform), chosen)
        for uniform, chosen in zip(drawn, (env.success_prob, env.arrival_prob), strict=True)
    )
    return p, q


def spec(env: WirelessEnv) -> EnvSpec:
    """Shape of the grid; without a graph given, `kinematic` joins users that share an access point.

    Args:
        env: The scenario's section.

    Returns:
        Agents row by row; a cost if one is charged, with a limit of 0.4 (energy) or 0.2 (drops) per step.
    """
    reach = access(env.rows, env.columns)
    n, horizon = len(reach), EPISODE if env.horizon is None else env.horizon
    return EnvSpec(
        obs_dims=tuple(env.deadline + len(points) + 1 for points in reach),
        act_dims=(1,) * n,
        n_discrete=tuple(1 + len(points) for points in reach),
        cost_limits=() if env.charged is None else (LIMITS[env.charged] * horizon,),
        horizon=horizon,
        dt=1.0,
        edges=tuple((i, j) for i in range(n) for j in range(i + 1, n) if set(reach[i]) & set(reach[j])),
        own_costs=env.cost == "local",
        measures=MEASURES,
    )


class WirelessAccess(Copies):
    """E copies of the grid.

    Observation of a user: whether it holds a packet with 1, …, d steps to live; the success probabilities of its access points;
    how its last step went (1 sent, -1 failed, 0 silent). Action: 0 is silent, k sends to its k-th access point. Reward: 1 for a
    packet sent. Cost: see `WirelessEnv.charged`. Ends: truncation at the horizon. Start: nothing but new packets.
    """

    STATE: ClassVar[tuple[str, ...]] = ("packets", "_outcome", "_chance")

    def __init__(self, env: WirelessEnv, graph: nx.Graph, seed: int) -> None:
        """Set up all copies; call `reset` before `step`.

        Args:
            env: The scenario's section.
            graph: Communication graph, on which the physics does not depend.
            seed: Root of the copies' random streams; p and q come from `env.seed`.
        """
        super().__init__(spec(env), env.num_envs, seed)
        self.reach = access(env.rows, env.columns)
        self.arrival_prob, self.success_prob = probabilities(env)
        self._env, n, e = env, self.spec.n_agents, self.num_envs
        self._silent = len(self.success_prob)  # stands for no access point
        self._target = np.full((n, 5), self._silent)
        for user, points in enumerate(self.reach):
            self._target[user, 1 : 1 + len(points)] = points
        self._takes = np.append(self.success_prob, 0.0)
        self.packets: Mask = np.zeros((e, n, env.deadline), bool)  # by steps to live, the most urgent first
        self._outcome = np.zeros((e, n), np.float32)
        self._sent = np.full((e, n), self._silent)  # the access points of the last step, which only pictures show
        self._chance = Ahead(self._rngs, (2, n), uniform, steps=BLOCK)

    def step(self, actions: Sequence[Floats]) -> Transition:
        """Advance all copies one step under each user's choice, (E, 1)."""
        chosen = np.stack(taken(actions, self.spec.n_discrete), axis=1)
        target = self._target[np.arange(chosen.shape[1]), chosen]
        takes, arrives = np.moveaxis(self._chance.step(), 1, 0)
        sends, self._sent = chosen > 0, target
        place = np.arange(self.num_envs)[:, None] * (self._silent + 1) + target
        users = np.bincount(place.ravel(), minlength=self.num_envs * (self._silent + 1))
        succeeds = sends & (users[place] == 1) & self.packets.any(axis=2) & (takes < self._takes[target])
        drops = self._advance(succeeds, arrives < self.arrival_prob)
        self._outcome = np.where(sends, np.where(succeeds, 1.0, -1.0), 0.0).astype(np.float32)
        own = succeeds.astype(np.float64)
        never = np.zeros(self.num_envs, bool)
        paid, reward = own.mean(axis=1), dealt(own, self._env.reward == "local")
        measured = np.stack([sends.mean(axis=1), drops.mean(axis=1)], axis=1)
        if self._env.charged is None:
            return self._episodes.conclude(paid, reward, never, never, measured=measured)
        cost = (sends if self._env.charged == "energy" else drops).astype(np.float64)
        told = dealt(cost, self._env.cost == "local")[:, :, None]
        spent = cost.mean(axis=1, keepdims=True)
        return self._episodes.conclude(paid, reward, never, never, spent=spent, cost=told, measured=measured)

    def _advance(self, succeeds: Mask, arrives: Mask) -> Mask:
        """Take away what was sent, age what was not, add what is new; whose packet was dropped, (E, n)."""
        packets = self.packets.copy()
        e, user = np.nonzero(succeeds)
        packets[e, user, packets[e, user].argmax(axis=1)] = False
        self.packets = np.concatenate([packets[:, :, 1:], arrives[:, :, None]], axis=2)
        return packets[:, :, 0]

    def _restart(self, ids: Indices) -> None:
        self.packets[ids], self._outcome[ids], self._sent[ids] = False, 0.0, self._silent
        for e in ids:
            self.packets[e, :, -1] = self._rngs[e].random(self.packets.shape[1]) < self.arrival_prob

    def _observe(self) -> list[Floats]:
        packets = self.packets.astype(np.float32)
        return [
            np.concatenate(
                [
                    packets[:, user],
                    np.broadcast_to(self.success_prob[points].astype(np.float32), (self.num_envs, len(points))),
                    self._outcome[:, user, None],
                ],
                axis=1,
            )
            for user, points in enumerate(self.reach)
        ]


# --- controllers that learn nothing ---------------------------------------------------------------------------------


def aloha(world: WirelessAccess, rng: np.random.Generator, prob: float, *, weighted: bool = True) -> list[Floats]:
    """Users with a packet send with a probability, to an access point drawn by success probability or evenly.

    Args:
        world: Where.
        rng: Of all draws.
        prob: With which a user that holds a packet sends.
        weighted: Whether access points are drawn in proportion to their success probabilities.

    Returns:
        Per user (E, 1).
    """
    chosen = []
    for user, points in enumerate(world.reach):
        odds = world.success_prob[points] if weighted else np.ones(len(points))
        point = np.minimum(np.searchsorted(np.cumsum(odds) / odds.sum(), rng.random(world.num_envs)), len(points) - 1)
        sends = world.packets[:, user].any(axis=1) & (rng.random(world.num_envs) < prob)
        chosen.append(np.where(sends, 1 + point, 0).astype(np.float32)[:, None])
    return chosen


def matching(world: WirelessAccess) -> list[Floats]:
    """A central plan without collisions: access points, the best first, each take the most urgent packet in reach.

    Among equally urgent ones the user with the fewest access points goes first. It knows everything, and is greedy: a plan for
    several steps may do better.
    """
    e, n = world.packets.shape[:2]
    chosen = np.zeros((n, e), np.float32)
    waits, urgency = np.asarray(world.packets.any(axis=2)), world.packets.argmax(axis=2)
    for point in np.argsort(-world.success_prob, kind="stable"):
        near = [user for user in range(n) if point in world.reach[user]]
        rank = urgency[:, near] * 8.0 + np.array([len(world.reach[user]) for user in near])
        rank[~waits[:, near]] = np.inf
        best = rank.argmin(axis=1)
        for k, user in enumerate(near):
            goes = (best == k) & np.isfinite(rank[:, k])
            chosen[user, goes] = 1 + world.reach[user].index(int(point))
            waits[goes, user] = False
    return list(chosen[:, :, None])


def aloha_with(prob: float, *, weighted: bool = True) -> Callable[[WirelessEnv, nx.Graph], Controller]:
    """The baseline of these arguments of `aloha`; its draws have the seed 0."""

    def made(env: WirelessEnv, graph: nx.Graph) -> Controller:
        rng = np.random.default_rng(0)

        def control(world: VecEnv) -> list[Floats]:
            assert isinstance(world, WirelessAccess)
            return aloha(world, rng, prob, weighted=weighted)

        return control

    return made


def matched(env: WirelessEnv, graph: nx.Graph) -> Controller:
    """The baseline `matching`."""

    def control(world: VecEnv) -> list[Floats]:
        assert isinstance(world, WirelessAccess)
        return matching(world)

    return control


def scene(world: WirelessAccess, copy: int) -> Scene:
    """Users coloured by the packets that they hold, access points, and what was sent to them in the last step."""
    rows, columns = world._env.rows, world._env.columns
    users = np.array([(column, -row) for row in range(rows) for column in range(columns)], float)
    points = np.array([(column + 0.5, -row - 0.5) for row in range(rows - 1) for column in range(columns - 1)])
    target = world._sent[copy]
    sends = np.flatnonzero(target < len(points))
    held = world.packets[copy].sum(axis=1).astype(float)
    return Scene(
        layers=[
            Layer(
                scale=Scale("sent", -1.0, 1.0, "-1 failed, 1 got through"), values=world._outcome[copy, sends].astype(float),
                at=np.stack([users[sends], points[target[sends]]], axis=1), marked=world._outcome[copy, sends] < 0, mark="failed",
            ),
            Layer(scale=Scale("success of an access point", 0.0, 1.0), at=points, values=world.success_prob),
            Layer(scale=Scale("packets held", 0.0, world._env.deadline), at=users, values=held, size=2.0),
        ],
        agents=users,
    )  # fmt: skip


# --- the exact answers ----------------------------------------------------------------------------------------------


def as_game(env: WirelessEnv) -> Game:
    """The world as a table, for `envs.games.tabular` to answer questions about.

    A state's number has one bit per packet; the most significant d bits are user 0's, its most urgent packet first.

    Args:
        env: The scenario's section, of few users.

    Returns:
        2^(n·d) states and as many branches each; rewards are the agents' own.

    Raises:
        ValueError: More than 10 packets would have to be told apart.
    """
    reach, (p, q) = access(env.rows, env.columns), probabilities(env)
    n, d = len(reach), env.deadline
    if n * d > MAX_BITS:
        raise ValueError(f"env.deadline: got {d} for {n} users; users x deadline is at most {MAX_BITS} here")
    size, n_discrete = 2 ** (n * d), tuple(1 + len(points) for points in reach)
    states = np.array(list(product((False, True), repeat=n * d))).reshape(size, n, d)
    weight = 2 ** np.arange(n * d)[::-1].reshape(n, d)
    news = np.array(list(product((False, True), repeat=n)))
    news_prob = np.where(news, p, 1.0 - p).prod(axis=1)
    choices = list(product(*map(range, n_discrete)))
    reward, probability = np.zeros((n, size, len(choices))), np.zeros((size, len(choices), size))
    for j, choice in enumerate(choices):
        target = [reach[user][k - 1] if k else None for user, k in enumerate(choice)]
        alone = [user for user, y in enumerate(target) if y is not None and target.count(y) == 1]
        for s, packets in enumerate(states):
            takes = np.array([q[target[user]] if user in alone and packets[user].any() else 0.0 for user in range(n)])
            reward[:, s, j] = takes
            for outcome in product(*((False, True) if chance else (False,) for chance in takes)):
                left = packets.copy()
                for user in np.flatnonzero(outcome):
                    left[user, left[user].argmax()] = False
                aged = (left[:, 1:] * weight[:, :-1]).sum()
                likelihood = np.where(outcome, takes, 1.0 - takes).prod()
                np.add.at(probability[s, j], aged + news @ weight[:, -1], likelihood * news_prob)
    start = np.zeros(size)
    np.add.at(start, news @ weight[:, -1], news_prob)
    successor = np.broadcast_to(np.arange(size), probability.shape)
    return Game(n_discrete=n_discrete, reward=reward, successor=successor, probability=probability, start=start)


BASELINES = {
    "random": at_random,
    "aloha_30": aloha_with(0.3),
    "aloha_50": aloha_with(0.5),
    "aloha_70": aloha_with(0.7),
    "aloha_100": aloha_with(1.0),
    "aloha_even": aloha_with(1.0, weighted=False),
    "matching": matched,
}
WORLD: World[WirelessEnv] = World(settings=WirelessEnv, spec=spec, make=WirelessAccess, baselines=BASELINES, scene=scene)
