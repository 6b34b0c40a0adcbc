"""Exact answers about games with finitely many states and actions.

Theory of operation. A `Game` is arrays: what each joint action pays every agent in every state, and where it leads. A joint
action is one number, agent 0's action its most significant digit; a transition is a short list of *branches*, so that a
deterministic game of thousands of states and a dense one of thirty are the same kind of data. What the branches' probabilities
lack to 1 is the probability that the episode ends there: a one-shot game is a state whose branches have probability 0, and no
formula needs to know about ends. Policies are products: agent i's is an array (S, A_i) of probabilities, and agents randomise
independently. The team's reward is the mean of the agents'; agents that share one reward each get it whole, so the mean is it.

Values are discounted by gamma, except where a number of steps is given. With gamma = 1 every episode must end.

Source: definitions as in Kakade & Langford 2002 (occupancy, performance difference) and Littman 1994 (Markov games).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Indices = NDArray[np.intp]
Policies = Sequence[Array]
SWEEPS = 100_000
REST = 1e-13  # of the largest value: a sweep that moves nothing by more is the last
TIE = 1e-10  # of the largest value: a better action must be better by more, so that rounding cannot make turns go on for ever


@dataclass(frozen=True, slots=True, kw_only=True)
class Game:
    """A finite game.

    Attributes:
        n_discrete: Number of actions of each agent, A_i; there are J = product of A_i joint actions.
        reward: What each agent is paid, (n, S, J).
        successor: State at the end of each branch, (S, J, B).
        probability: Of each branch, (S, J, B); the rest to 1 is the probability that the episode ends.
        start: Distribution of the first state, (S,).
    """

    n_discrete: tuple[int, ...]
    reward: Array
    successor: Indices
    probability: Array
    start: Array

    @property
    def n_agents(self) -> int:
        """How many agents, n."""
        return len(self.n_discrete)

    @property
    def n_states(self) -> int:
        """How many states, S."""
        return len(self.start)

    def team(self) -> Array:
        """The team's reward, (S, J)."""
        return np.asarray(self.reward.mean(axis=0), np.float64)

    def expect(self, values: Array) -> Array:
        """Expected value of the next state, 0 where the episode ended, from values (S,) to (S, J)."""
        return np.asarray(np.einsum("sjb,sjb->sj", self.probability, values[self.successor]), np.float64)


def constant(game: Game, actions: Sequence[Indices]) -> tuple[Array, ...]:
    """Deterministic policies: agent i takes actions[i][s], (S,), in state s."""
    return tuple(np.eye(count)[chosen] for count, chosen in zip(game.n_discrete, actions, strict=True))


def uniform(game: Game) -> tuple[Array, ...]:
    """Policies that prefer nothing."""
    return tuple(np.full((game.n_states, count), 1.0 / count) for count in game.n_discrete)


def joint(policies: Policies) -> Array:
    """Probability of each joint action, (S, J)."""
    weights = np.ones((len(policies[0]), 1))
    for policy in policies:
        weights = (weights[:, :, None] * policy[:, None, :]).reshape(len(policy), -1)
    return weights


# --- values of given policies ---------------------------------------------------------------------------------------


def chain(game: Game, weights: Array) -> Array:
    """Transition matrix under a joint policy (S, J), (S, S); rows lack to 1 what ends."""
    size = game.n_states
    s, j = np.nonzero(weights)  # most joint actions have weight 0 where policies are deterministic
    flow = weights[s, j, None] * game.probability[s, j]
    place = s[:, None] * size + game.successor[s, j]
    return np.bincount(place.ravel(), flow.ravel(), minlength=size * size).reshape(size, size).astype(np.float64)


def values(game: Game, policies: Policies, gamma: float) -> Array:
    """V of each agent's own reward, (n, S).

    Args:
        game: The game.
        policies: One (S, A_i) per agent.
        gamma: Discount.

    Returns:
        The solution of V = r_π + gamma P_π V.
    """
    weights = joint(policies)
    paid = np.einsum("sj,nsj->ns", weights, game.reward)
    return np.linalg.solve(np.eye(game.n_states) - gamma * chain(game, weights), paid.T).T


def action_values(game: Game, policies: Policies, gamma: float) -> Array:
    """Q of each agent's own reward, (n, S, J); arguments as for `values`."""
    return game.reward + gamma * np.stack([game.expect(v) for v in values(game, policies, gamma)])


def occupancy(game: Game, policies: Policies, gamma: float) -> Array:
    """Expected discounted number of visits to each state, (S,), sum_t gamma^t Pr(s_t = s); arguments as for `values`."""
    moves = chain(game, joint(policies))
    return np.asarray(np.linalg.solve(np.eye(game.n_states) - gamma * moves.T, game.start), np.float64)


def performance(game: Game, policies: Policies, gamma: float) -> float:
    """J, the team's expected discounted return from the start; arguments as for `values`."""
    return float(game.start @ values(game, policies, gamma).mean(axis=0))


def expected_return(game: Game, policies: Policies, steps: int) -> float:
    """The team's expected undiscounted return of the first `steps` steps."""
    weights = joint(policies)
    paid, moves = (weights * game.team()).sum(axis=1), chain(game, weights)
    value = np.zeros(game.n_states)
    for _ in range(steps):
        value = paid + moves @ value
    return float(game.start @ value)


# --- the best that can be done --------------------------------------------------------------------------------------


def optimum(game: Game, gamma: float) -> tuple[Array, Indices]:
    """The best that the team can do, by value iteration.

    Even agents that could correlate their actions would do no better: one of the best joint policies is deterministic.

    Args:
        game: The game.
        gamma: Discount; 1 needs a game that ends after finitely many steps.

    Returns:
        V* (S,) and a best joint action of each state, (S,), the first among equals.

    Raises:
        ArithmeticError: The iteration did not come to rest.
    """
    paid = game.team()
    value = np.zeros(game.n_states)
    for _ in range(SWEEPS):
        gain = paid + gamma * game.expect(value)
        following = gain.max(axis=1)
        if np.max(np.abs(following - value)) <= REST * np.max(np.abs(following)):
            return following, gain.argmax(axis=1)
        value = following
    raise ArithmeticError(f"optimum: no rest after {SWEEPS} sweeps, gamma={gamma}")


def best_return(game: Game, steps: int) -> float:
    """The team's greatest expected undiscounted return of the first `steps` steps, by backward induction."""
    paid = game.team()
    value = np.zeros(game.n_states)
    for _ in range(steps):
        value = (paid + game.expect(value)).max(axis=1)
    return float(game.start @ value)


def split(game: Game, actions: Indices) -> tuple[Indices, ...]:
    """Each agent's action of joint actions, any shape."""
    return tuple(np.asarray(part, np.intp) for part in np.unravel_index(actions, game.n_discrete))


def best_response(game: Game, policies: Policies, agent: int, gamma: float) -> tuple[Array, Array]:
    """What one agent can make of its own reward while the others keep their policies, by policy iteration.

    Args:
        game: The game.
        policies: One (S, A_i) per agent; the agent's own is where the search starts, and what it keeps where nothing is better.
        agent: The agent.
        gamma: Discount.

    Returns:
        Its value (S,) and the policy (S, A_agent) that has it, deterministic wherever it differs from the one given.
    """
    rows, count = np.arange(game.n_states), game.n_discrete[agent]
    forced = [[*policies[:agent], np.tile(np.eye(count)[a], (game.n_states, 1)), *policies[agent + 1 :]] for a in range(count)]
    weights = [joint(each) for each in forced]
    paid = np.stack([(w * game.reward[agent]).sum(axis=1) for w in weights], axis=1)
    moves = np.stack([chain(game, w) for w in weights], axis=1)
    mine = policies[agent]
    while True:
        flow = np.einsum("sa,sat->st", mine, moves)
        value = np.linalg.solve(np.eye(game.n_states) - gamma * flow, (mine * paid).sum(axis=1))
        gain = paid + gamma * moves @ value
        better = gain.max(axis=1) > (mine * gain).sum(axis=1) + TIE * (1.0 + np.max(np.abs(value)))
        if not better.any():
            return value, mine
        mine = mine.copy()
        mine[better] = np.eye(count)[gain.argmax(axis=1)[rows[better]]]


def nash_gap(game: Game, policies: Policies, gamma: float) -> float:
    """The most that any one agent could gain alone, on its own return from the start; 0 in a Nash equilibrium."""
    own = values(game, policies, gamma) @ game.start
    best = [best_response(game, policies, agent, gamma)[0] @ game.start for agent in range(game.n_agents)]
    return max(0.0, float(np.max(np.asarray(best) - own)))


def respond(
    game: Game, policies: Policies, gamma: float, *, turns: Literal["alternating", "simultaneous"]
) -> Iterator[tuple[Array, ...]]:
    """Let agents best-respond until no agent changes anything: one at a time in ascending order, or all at once.

    One at a time the return never decreases where all share one reward, and it ends in a Nash equilibrium; all at once
    neither holds and the iteration may never end, so the caller must set a limit.

    Args:
        game: The game.
        policies: Where to start.
        gamma: Discount.
        turns: Which agents change between two yields.

    Yields:
        The policies after every turn, i.e. n times per sweep or once.
    """
    now = tuple(policies)
    groups = [[agent] for agent in range(game.n_agents)] if turns == "alternating" else [list(range(game.n_agents))]
    while True:
        before = now
        for group in groups:
            new = {agent: best_response(game, now, agent, gamma)[1] for agent in group}
            now = tuple(new.get(agent, policy) for agent, policy in enumerate(now))
            yield now
        if all(np.array_equal(a, b) for a, b in zip(before, now, strict=True)):
            return
