"""Games with finitely many states and actions: small enough to know everything about, and a world that plays any of them.

Theory of operation. Each builder returns a `tabular.Game`, which is data; `GameWorld` steps E copies of whatever game it is
given, and `envs.games.tabular` answers questions about the same data exactly. A state is a tuple of *parts*: in most games one
part that every agent sees, in the chain one part per agent, of which an agent sees its own. Payoffs are drawn from `env.seed`,
never from the run's seed: a game stays the same game while runs of it differ.

What must not change: the order in which a builder draws its numbers, because published and stored results belong to instances.
`tests/envs/games/test_games.py` notices.

Sources: climbing and penalty game, "The dynamics of reinforcement learning in cooperative multiagent systems" (AAAI 1998);
sharing game, Kuba et al. 2022 (arXiv:2109.11251), proposition 1; stage games, Jiang & Lu 2022 (I2Q); random stochastic games,
Su & Lu 2022 (DPO), whose distribution was inferred from the published instance; the non-monotone game is the one of the QMIX
papers with -20 for -12; the chain is ours, after Qu et al. 2020.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from envs.actions import taken
from envs.copies import Ahead, Copies, uniform
from envs.games import tabular
from envs.games.settings import MatrixGame, SharingGame, StageGame, StochasticGame, TabularGame, TruncationChain
from envs.games.tabular import Array, Game, Indices
from envs.interface import Bools, EnvSpec, Floats, Transition, World

STAGE_CHOICES = 3
MAX_TABLE = 1 << 24  # transition probabilities of a game: 128 MiB
MAX_ONE_HOT = 10_000  # numbers in a one-hot state: the stage game of 4 stages has 7381 states, that of 5 has 66 430
RANDOM_BLOCK = 64  # steps of random numbers drawn at once per copy: one Python loop over copies in 64 steps

PAYOFFS: dict[str, Callable[[MatrixGame], list[list[float]]]] = {
    "climbing": lambda _: [[11, -30, 0], [-30, 7, 6], [0, 0, 5]],
    "penalty": lambda settings: [[10, 0, settings.penalty], [0, 2, 0], [settings.penalty, 0, 10]],
    "miscoordination": lambda _: [[0, 1], [1, 0]],
    "non_monotone": lambda _: [[8, -20, -20], [-20, 0, 0], [-20, 0, 0]],
}


# --- the games ------------------------------------------------------------------------------------------------------


def one_shot(payoff: Array) -> Game:
    """A game of one step in which all are paid the same.

    Args:
        payoff: What each combination of actions pays, one axis per agent.

    Returns:
        One state, which ends.
    """
    n, joint = payoff.ndim, payoff.size
    return Game(
        n_discrete=payoff.shape,
        reward=np.broadcast_to(payoff.reshape(1, 1, joint), (n, 1, joint)),
        successor=np.zeros((1, joint, 1), np.intp),
        probability=np.zeros((1, joint, 1)),
        start=np.ones(1),
    )


def matrix_game(settings: MatrixGame) -> Game:
    """The 2-agent game named by `settings.payoff`: rows are agent 0's actions, columns agent 1's."""
    return one_shot(np.array(PAYOFFS[settings.payoff](settings), np.float64))


def sharing_game(n: int) -> Game:
    """Pays 1 if the first ⌊n/2⌋ agents take one of two actions and the others the other, else 0.

    Agents that share one stochastic policy can earn 2/2^n at most, agents of their own policies 1.
    """
    payoff = np.zeros((2,) * n)
    halves = np.arange(n) >= n // 2
    payoff[tuple(halves.astype(int))] = payoff[tuple(1 - halves)] = 1.0
    return one_shot(payoff)


def stage_game(stages: int, seed: int) -> Game:
    """A tree of joint actions of two agents with three actions each: every one of `stages` steps pays the node that it leaves.

    The child of node s under (a, b) is 9s + 3a + b + 1; nodes pay U(-1, 1), drawn in ascending order; the last joint action only
    ends the episode. The best joint plan is the best path from the root.

    Args:
        stages: L, depth of the tree.
        seed: Of the payoffs.

    Returns:
        (9^(L+1) - 1) / 8 states, the leaves included, where no decision is taken.
    """
    width = STAGE_CHOICES**2
    inner, nodes = (width**stages - 1) // (width - 1), (width ** (stages + 1) - 1) // (width - 1)
    paid = np.random.default_rng(seed).uniform(-1.0, 1.0, nodes)
    paid[inner:] = 0.0  # no path leaves a leaf
    child = width * np.arange(nodes)[:, None] + np.arange(width) + 1
    goes_on = np.arange(nodes) < (inner - 1) // width  # the children of the others are leaves
    return Game(
        n_discrete=(STAGE_CHOICES, STAGE_CHOICES),
        reward=np.broadcast_to(paid[:, None], (2, nodes, width)),
        successor=np.minimum(child, nodes - 1)[:, :, None],
        probability=np.broadcast_to(goes_on[:, None, None].astype(np.float64), (nodes, width, 1)),
        start=(np.arange(nodes) == 0).astype(np.float64),
    )


def stochastic_game(n: int, settings: StochasticGame) -> Game:
    """A random cooperative stochastic game: shared rewards U(-range, range), random transitions from every joint action.

    Transitions are the softmax of U(-2, 2) logits, or Dirichlet(1); rewards are drawn first. With the defaults and three agents
    it has the sizes and the distribution of the DPO paper's instance, whose payoffs it does not repeat.
    """
    states, count, rng = settings.states, settings.n_discrete, np.random.default_rng(settings.seed)
    reward = rng.uniform(-settings.reward_range, settings.reward_range, (states, count**n))
    if settings.transition == "dirichlet":
        probability = rng.dirichlet(np.ones(states), (states, count**n))
    else:
        probability = np.exp(rng.uniform(-2.0, 2.0, (states, count**n, states)))
        probability /= probability.sum(axis=-1, keepdims=True)
    first = np.full(states, 1.0 / states) if settings.start == "uniform" else np.eye(states)[0]
    return Game(
        n_discrete=(count,) * n,
        reward=np.broadcast_to(reward, (n, *reward.shape)),
        successor=np.broadcast_to(np.arange(states), probability.shape),
        probability=probability,
        start=first,
    )


def bits(n: int) -> Indices:
    """The chain's agents' parts of every state, (2^n, n); agent 0's is the most significant digit."""
    return np.stack(np.unravel_index(np.arange(2**n), (2,) * n), axis=1).astype(np.intp)


@dataclass(frozen=True, slots=True)
class _ChainDraw:
    """The chain's random numbers, drawn in the order of the fields."""

    own: Array  # (n, 2, 2) of s_i, a_i
    coupling: Array  # (n, n, 2, 2, 2) of i, j, s_i, a_i, s_j
    habit: Array  # (n, 2) of s_i
    regard: Array  # (n, n, 2, 2) of i, j, s_i, s_j
    reward: Array  # (n, 2, 2) of s_i, a_i


def _draw_chain(n: int, seed: int) -> _ChainDraw:
    rng = np.random.default_rng(seed)
    return _ChainDraw(
        own=rng.normal(size=(n, 2, 2)),
        coupling=rng.normal(size=(n, n, 2, 2, 2)),
        habit=rng.normal(size=(n, 2)),
        regard=rng.normal(size=(n, n, 2, 2)),
        reward=rng.uniform(0.0, 1.0, (n, 2, 2)),
    )


def _logistic(x: Array) -> Array:
    return np.asarray(1.0 / (1.0 + np.exp(-x)), np.float64)


def truncation_chain(n: int, coupling: float, seed: int) -> Game:
    """A path of agents with a bit each, where a bit feels only the neighbours' bits: influence decays with every hop.

    Agent i's bit becomes 1 with probability logistic(b[s_i, a_i] + coupling · sum over its neighbours j of c_j[s_i, a_i, s_j]);
    it is paid U(0, 1) of (s_i, a_i), drawn once. Bits are independent given state and actions.

    Args:
        n: Agents.
        coupling: w.
        seed: Of all random numbers.

    Returns:
        2^n states and joint actions; rewards are local; the start is uniform.
    """
    draw, bit, agents = _draw_chain(n, seed), bits(n), np.arange(n)
    state, action = bit.T[:, :, None], bit.T[:, None, :]  # (n, S, 1), (n, 1, J)
    drive = draw.own[agents[:, None, None], state, action]
    for i in range(n):
        for j in {i - 1, i + 1} & set(range(n)):
            drive[i] += coupling * draw.coupling[i, j][state[i], action[i], state[j]]
    one = _logistic(drive)
    probability = np.ones((2**n, 2**n, 1))
    for i in range(n):
        own = np.stack([1.0 - one[i], one[i]], axis=-1)
        probability = (probability[..., :, None] * own[..., None, :]).reshape(2**n, 2**n, -1)
    return Game(
        n_discrete=(2,) * n,
        reward=draw.reward[agents[:, None, None], state, action],
        successor=np.broadcast_to(np.arange(2**n), probability.shape),
        probability=probability,
        start=np.full(2**n, 1.0 / 2**n),
    )


def chain_policies(n: int, seed: int, regard: float = 0.1) -> tuple[Array, ...]:
    """Policies for the chain that heed others the less the farther they are, by e^-distance.

    Args:
        n: Agents.
        seed: That of the chain.
        regard: v, how much others count at all.

    Returns:
        logistic(p[s_i] + v · sum_j e^-|i-j| q_j[s_i, s_j]) as the probability of action 1, n arrays (2^n, 2).
    """
    draw, bit = _draw_chain(n, seed), bits(n)
    policies = []
    for i in range(n):
        lean = draw.habit[i][bit[:, i]]
        for j in set(range(n)) - {i}:
            lean = lean + regard * np.exp(-abs(i - j)) * draw.regard[i, j][bit[:, i], bit[:, j]]
        policies.append(np.stack([1.0 - _logistic(lean), _logistic(lean)], axis=-1))
    return tuple(policies)


def spread(table: Array, near: Sequence[int]) -> float:
    """How much a table over the chain's states and joint actions still varies once the near agents' are known.

    Args:
        table: An advantage of one agent, (2^n, 2^n).
        near: The agents whose bits and actions are known.

    Returns:
        The greatest difference between two entries that agree on them.
    """
    n = len(table).bit_length() - 1
    axes = tuple(axis for k in range(n) if k not in near for axis in (k, n + k))
    cube = table.reshape((2,) * (2 * n))
    return float(np.max(cube.max(axis=axes) - cube.min(axis=axes)))


def advantage_spreads(game: Game, policies: tabular.Policies, agent: int, gamma: float) -> list[float]:
    """What an agent of the chain cannot know of the advantage of its own reward, for kappa = 0, 1, … hops.

    Args:
        game: A chain.
        policies: One (S, 2) per agent.
        agent: The agent.
        gamma: Discount.

    Returns:
        n spreads, the last one 0.
    """
    own = tabular.values(game, policies, gamma)[agent]
    advantage = game.reward[agent] + gamma * game.expect(own) - own[:, None]
    agents = range(game.n_agents)
    return [spread(advantage, [k for k in agents if abs(k - agent) <= kappa]) for kappa in agents]


# --- which game, which shape ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Table:
    """A kind of game: how long it lasts, its sizes before it is built, and how it is built from the game's own settings."""

    horizon: Callable[[Any], int]
    n_discrete: Callable[[int, Any], tuple[int, ...]]
    parts: Callable[[int, Any], tuple[int, ...]]
    build: Callable[[int, Any], Game]
    is_path: bool = False


TABLES: dict[str, _Table] = {
    "matrix_game": _Table(
        lambda _: 1, lambda n, g: (len(PAYOFFS[g.payoff](g)),) * n, lambda n, g: (1,), lambda n, g: matrix_game(g)
    ),
    "sharing_game": _Table(
        lambda _: 1, lambda n, g: (2,) * n, lambda n, g: (1,), lambda n, g: sharing_game(n)
    ),
    "stage_game": _Table(
        lambda g: g.stages, lambda n, g: (STAGE_CHOICES,) * n,
        lambda n, g: ((STAGE_CHOICES ** (2 * (g.stages + 1)) - 1) // (STAGE_CHOICES**2 - 1),),
        lambda n, g: stage_game(g.stages, g.seed),
    ),
    "stochastic_game": _Table(
        lambda _: 30, lambda n, g: (g.n_discrete,) * n, lambda n, g: (g.states,), stochastic_game
    ),
    "truncation_chain": _Table(
        lambda _: 50, lambda n, g: (2,) * n, lambda n, g: (2,) * n,
        lambda n, g: truncation_chain(n, g.coupling, g.seed), is_path=True,
    ),
}  # fmt: skip


def spec(env: TabularGame) -> EnvSpec:
    """Shape of a game; without a graph given, `kinematic` means the complete one, or the chain's path.

    Args:
        env: The scenario's section, `name` one of `TABLES`.

    Returns:
        No costs; one action, an index, per agent; time unit 1.

    Raises:
        ValueError: The tables would be too large.
    """
    table, n = TABLES[env.name], env.n_agents
    parts, n_discrete = table.parts(n, env), table.n_discrete(n, env)
    if isinstance(env, StochasticGame) and env.states**2 * env.n_discrete**n > MAX_TABLE:
        raise ValueError(
            f"env.agents: got {n}; with env.states={env.states} and env.n_discrete={env.n_discrete} a table of transitions "
            f"would have {env.states**2 * env.n_discrete**n} entries, at most {MAX_TABLE} are allowed"
        )
    if env.encoding == "one_hot" and max(parts) > MAX_ONE_HOT:
        raise ValueError(f"env.encoding: got 'one_hot'; {max(parts)} states are more than {MAX_ONE_HOT}, use index")
    widths = parts if env.encoding == "one_hot" else (1,) * len(parts)
    pairs = [(i, j) for j in range(n) for i in range(j) if not table.is_path or j == i + 1]
    shown = tuple(tuple(widths[k] for k in seen) for seen in _seen(env, n, len(parts)))
    return EnvSpec(
        obs_dims=tuple(map(sum, shown)),
        act_dims=(1,) * n,
        n_discrete=n_discrete,
        cost_limits=(),
        horizon=table.horizon(env) if env.horizon is None else env.horizon,
        dt=1.0,
        edges=tuple(sorted(pairs)),
        one_hot=shown if env.encoding == "one_hot" else (),
    )


def build(env: TabularGame) -> Game:
    """The game of a scenario, for `envs.games.tabular` to answer questions about.

    Args:
        env: The scenario's section, `name` one of `TABLES`.

    Returns:
        The game whose copies `GameWorld` steps.

    Raises:
        ValueError: As `spec`.
    """
    return TABLES[env.name].build(spec(env).n_agents, env)


def _seen(env: TabularGame, n: int, n_parts: int) -> list[list[int]]:
    """Which parts of the state each agent sees."""
    if isinstance(env, TruncationChain) and env.observation == "own":
        return [[i] for i in range(n)]
    return [list(range(n_parts))] * n


# --- the world ------------------------------------------------------------------------------------------------------


class GameWorld(Copies):
    """E copies of a game.

    Observation: the parts of the state that the agent sees, each one-hot or as its number (`env.encoding`). Action: the
    index of one of the agent's choices. Reward: each agent's own (`local`) or the mean over agents (`team`). Ends: termination
    where the game ends, truncation at the horizon.
    """

    STATE: ClassVar[tuple[str, ...]] = ("_state", "_chance")

    def __init__(self, env: TabularGame, graph: nx.Graph, seed: int) -> None:
        """Build the game; call `reset` before `step`.

        Args:
            env: The scenario's section.
            graph: Communication graph, which no game depends on.
            seed: Root of the copies' random streams; payoffs come from `env.seed`.
        """
        super().__init__(spec(env), env.num_envs, seed)
        game = build(env)
        n, parts = self.spec.n_agents, TABLES[env.name].parts(self.spec.n_agents, env)
        self._parts, self._seen = parts, _seen(env, n, len(parts))
        self._one_hot = env.encoding == "one_hot"
        is_local = isinstance(env, TruncationChain) and env.reward == "local"
        self._reward = np.ascontiguousarray(game.reward if is_local else game.reward.mean(axis=0, keepdims=True))
        self._team = game.team()
        self._successor = game.successor
        self._reached = np.cumsum(game.probability, axis=-1)
        self._reached[np.abs(self._reached - 1.0) < 1e-9] = 1.0  # rounding must not end an episode
        self._first = np.cumsum(game.start)
        self._first[-1] = 1.0
        self._chance = Ahead(self._rngs, (), uniform, steps=RANDOM_BLOCK)
        self._state = np.zeros(env.num_envs, np.intp)

    def step(self, actions: Sequence[Floats]) -> Transition:
        """Advance all copies one step under each agent's choice, (E, 1)."""
        state, act = self._state, np.ravel_multi_index(taken(actions, self.spec.n_discrete), self.spec.n_discrete)
        chance, reached = self._chance.step(), self._reached[state, act]
        branch = np.minimum((chance[:, None] >= reached).sum(axis=1), reached.shape[1] - 1)
        reward = np.empty((self.spec.n_agents, self.num_envs), np.float32)
        reward[:] = self._reward[:, state, act]
        self._state = self._successor[state, act, branch]
        terminated: Bools = chance >= reached[:, -1]
        return self._episodes.conclude(self._team[state, act], reward, terminated, np.zeros(self.num_envs, bool))

    def _restart(self, ids: NDArray[np.intp]) -> None:
        for e in ids:
            self._state[e] = np.searchsorted(self._first, self._rngs[e].random(), side="right")

    def _observe(self) -> list[Floats]:
        digits = np.unravel_index(self._state, self._parts)
        if self._one_hot:
            shown = [_one_hot(digit, size) for digit, size in zip(digits, self._parts, strict=True)]
        else:
            shown = [digit.astype(np.float32)[:, None] for digit in digits]
        return [np.concatenate([shown[k] for k in seen], axis=1) for seen in self._seen]


MATRIX_GAME: World[MatrixGame] = World(settings=MatrixGame, spec=spec, make=GameWorld)
SHARING_GAME: World[SharingGame] = World(settings=SharingGame, spec=spec, make=GameWorld)
STAGE_GAME: World[StageGame] = World(settings=StageGame, spec=spec, make=GameWorld)
STOCHASTIC_GAME: World[StochasticGame] = World(settings=StochasticGame, spec=spec, make=GameWorld)
TRUNCATION_CHAIN: World[TruncationChain] = World(settings=TruncationChain, spec=spec, make=GameWorld)


def _one_hot(digit: Indices, size: int) -> Floats:
    rows = np.zeros((len(digit), size), np.float32)
    rows[np.arange(len(digit)), digit] = 1.0
    return rows
