"""Learners of values on games whose best is known: `python benchmarks/values.py`.

Plays the stage games of I2Q with independent and with ideal Q-learning, and the random stochastic game with MA2QL, whose turns
are converged, cut short, or taken by all at once; prints how near each comes to the optimum, and what QMIX makes of a game that
it cannot describe.
"""

import argparse
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from envs.games.games import PAYOFFS, STAGE_CHOICES, stage_game, stochastic_game
from envs.games.settings import MatrixGame, StochasticGame
from envs.games.tabular import Game, constant, nash_gap, optimum, performance
from node.learners.off_policy.mixer import Team
from node.learners.off_policy.tables import IdealQ, Transitions, iterate, replay
from scenarios.schema import Algorithm

Indices = NDArray[np.intp]
Array = NDArray[np.float64]
COPIES, GAMMA = 10, 0.99
WARM_UP = 2000  # env steps before learning begins
UPDATES, BATCH = 10, 100  # minibatches after some env steps, transitions in each: the stage games' published settings


def stage_ratios(
    learner: Literal["iql", "i2q"], games: Sequence[Game], env_steps: int, seed: int, *, every: int = 50, step: float = 0.1
) -> Array:
    """Greedy return of two learners in each of many stage games, as a part of the best.

    The agents' tables of all games lie below each other in one; ε is ½ throughout, Q starts from U(-½, ½).

    Args:
        learner: Which.
        games: Stage games of one depth.
        env_steps: Steps in each game.
        seed: Of exploration, minibatches and tables.
        every: Steps between two learnings, of ten minibatches each; the first comes after 2000 steps.
        step: Of the tables.

    Returns:
        One ratio per game.
    """
    rng = np.random.default_rng(seed)
    count, size, agents = len(games), games[0].n_states, 2
    reward = np.stack([game.reward[0, :, 0] for game in games])  # a stage game pays by the state alone
    successor, last = games[0].successor[:, :, 0], games[0].probability[:, :, 0].sum(axis=1) == 0
    q = rng.uniform(-0.5, 0.5, (agents * count * size, STAGE_CHOICES))
    ideal = IdealQ(q, rng) if learner == "i2q" else None
    below = np.arange(agents * count).reshape(agents, 1, count) * size  # where a learner's own rows begin
    past = np.zeros((env_steps // COPIES, 5, COPIES, count), np.int32)  # state, two actions, following, terminated
    places = np.zeros((env_steps // COPIES, COPIES, agents * count), np.int8)  # where ideal learners keep the successor
    state, game = np.zeros((COPIES, count), np.intp), np.arange(count)

    def told(entry: NDArray[np.int32], mine: Indices, whose: Indices) -> Transitions:
        """Transitions as learners see them, from entries (..., 5, learners)."""
        s, following = entry[..., 0, :].astype(np.intp), entry[..., 3, :].astype(np.intp)
        return Transitions(
            state=(s + mine).ravel(),
            action=np.where(mine < count * size, entry[..., 1, :], entry[..., 2, :]).astype(np.intp).ravel(),
            reward=reward[whose, s].ravel(),
            following=(following + mine).ravel(),
            terminated=entry[..., 4, :].ravel() > 0,
        )

    lanes, whose = below.reshape(-1), np.tile(game, agents)
    for t in range(env_steps // COPIES):
        action = q[state + below].argmax(axis=-1)
        chance = rng.random(action.shape)
        action = np.where(chance < 0.5, rng.integers(STAGE_CHOICES, size=action.shape), action)
        following = successor[state, action[0] * STAGE_CHOICES + action[1]]
        ended = last[state]
        past[t] = np.stack((state, *action, following, ended))
        state = np.where(ended, 0, following)
        steps = (t + 1) * COPIES
        if steps % every:
            continue
        if ideal is not None:
            fresh = slice(t + 1 - every // COPIES, t + 1)
            entry = np.tile(past[fresh].transpose(0, 2, 1, 3), agents)
            places[fresh] = ideal.note(told(entry, lanes, whose)).reshape(places[fresh].shape)
        if steps <= WARM_UP:
            continue
        for _ in range(UPDATES):
            pick = rng.integers((t + 1) * COPIES, size=(BATCH, agents * count))
            entry = past[pick // COPIES, :, pick % COPIES, whose].transpose(0, 2, 1)
            batch = told(entry, lanes, whose)
            if ideal is None:
                replay(q, batch, gamma=1.0, step=step)
            else:
                place = places[pick // COPIES, pick % COPIES, np.arange(agents * count)].ravel().astype(np.intp)
                ideal.replay(batch, place, gamma=1.0, step=step)
    greedy = q.reshape(agents, count, size, STAGE_CHOICES).argmax(axis=-1)
    found, place = np.zeros(count), np.zeros(count, np.intp)
    while True:
        found += reward[game, place]
        if last[place].all():  # all lie at one depth
            break
        place = successor[place, greedy[0, game, place] * STAGE_CHOICES + greedy[1, game, place]]
    return np.asarray(found / [each.start @ optimum(each, 1.0)[0] for each in games], np.float64)


def played(
    game: Game, q: Sequence[Array], epsilon: Array, *, copies: int, steps: int, rng: np.random.Generator
) -> Iterator[list[Transitions]]:
    """Step copies of a finite game under ε-greedy agents; per step what each agent sees of it.

    Args:
        game: Agents share its rewards.
        q: Each agent's table as it is at every step, (S, A).
        epsilon: Of each agent, (n,).
        copies: Copies that are stepped at once.
        steps: After which all episodes are truncated.
        rng: Chance.

    Yields:
        One `Transitions` per agent, of all copies.
    """
    state = rng.choice(game.n_states, size=copies, p=game.start)
    reached = np.cumsum(game.probability, axis=-1)
    for _ in range(steps):
        greedy = np.stack([table[state].argmax(axis=1) for table in q])
        random = np.stack([rng.integers(count, size=copies) for count in game.n_discrete])
        action = np.where(rng.random(greedy.shape) < epsilon[:, None], random, greedy)
        joint = np.ravel_multi_index(tuple(action), game.n_discrete)
        branch = (rng.random(copies)[:, None] >= reached[state, joint]).sum(axis=1)
        branch = np.minimum(branch, game.successor.shape[-1] - 1)
        following = game.successor[state, joint, branch]
        never = np.zeros(copies, np.bool_)
        yield [
            Transitions(state=state, action=mine, reward=game.reward[i, state, joint], following=following, terminated=never)
            for i, mine in enumerate(action)
        ]
        state = following


def joined(past: Sequence[Transitions]) -> Transitions:
    """Transitions one after the other."""
    return Transitions(**{
        name: np.concatenate([getattr(each, name) for each in past])
        for name in ("state", "action", "reward", "following", "terminated")
    })  # fmt: skip


def turns(
    game: Game, kind: Literal["converged", "one_step", "simultaneous"], n_turns: int, seed: int, *, episodes: int = 400
) -> Iterator[tuple[float, float]]:
    """MA2QL on a game without end, in episodes of 30 steps, with fresh data in every turn.

    In a converged turn the holder explores with ε = ½ and takes Q to the fixed point of what it saw; one_step: Q-learning
    with step 0.1 on every transition once, ε = 0.2; simultaneous: all explore and converge in every turn.

    Args:
        game: The game.
        kind: What a turn is.
        n_turns: How many.
        seed: Of exploration, chance and tables, U(0, 1).
        episodes: In each turn.

    Yields:
        After every turn the greedy policies' return from the start and their Nash gap.
    """
    rng = np.random.default_rng(seed)
    q = [rng.uniform(0.0, 1.0, (game.n_states, count)) for count in game.n_discrete]
    for turn in range(n_turns):
        learners = range(game.n_agents) if kind == "simultaneous" else [turn % game.n_agents]
        epsilon = np.zeros(game.n_agents)
        epsilon[list(learners)] = 0.2 if kind == "one_step" else 0.5
        if kind == "one_step":
            for _ in range(episodes // COPIES):
                for told in played(game, q, epsilon, copies=COPIES, steps=30, rng=rng):
                    replay(q[learners[0]], told[learners[0]], gamma=GAMMA, step=0.1)
        else:
            past = list(played(game, q, epsilon, copies=episodes, steps=30, rng=rng))
            for i in learners:
                iterate(q[i], joined([told[i] for told in past]), gamma=GAMMA, accuracy=1e-3, sweeps=1500)
        policies = constant(game, [table.argmax(axis=1) for table in q])
        yield performance(game, policies, GAMMA), nash_gap(game, policies, GAMMA)


def mixed_fit(payoff: Array, seed: int, *, steps: int = 800) -> Array:
    """QMIX on one-shot games: the table Q_tot that two agents' values and the mixer come to under uniform data.

    Args:
        payoff: (A, A).
        seed: Of the networks' weights.
        steps: Of Adam, 0.02, each on all joint actions.

    Returns:
        Q_tot of every joint action, (A, A).
    """
    settings = {"name": "qmix", "hidden": [], "input_norm": "none", "critic_lr": 0.02, "max_grad_norm": 1e3, "head_gain": 0.1}
    team = Team((1, 1), payoff.shape, Algorithm.model_validate(settings), seed)
    action = np.argwhere(np.ones_like(payoff)).astype(np.float32)
    observation, ends = np.ones_like(action), np.ones(len(action), np.bool_)
    for _ in range(steps):
        team.step(observation, action, payoff.astype(np.float32).ravel(), observation, ends)
    with torch.no_grad():
        table = team.value(torch.from_numpy(observation), torch.from_numpy(action).long())
    return np.asarray(table.numpy().reshape(payoff.shape), np.float64)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--games", type=int, default=100, help="stage games of each depth (default %(default)s)")
    parser.add_argument("--env-steps", type=int, default=100_000, help="steps in each (default %(default)s, as published)")
    parser.add_argument("--every", type=int, default=50, help="steps between two learnings (default %(default)s, as published)")
    parser.add_argument("--step", type=float, default=0.1, help="α of the tables (default %(default)s, as published)")
    given = parser.parse_args()
    print("| stages | learner | mean of return / best | in the optimum |\n|---|---|---|---|")
    for stages in (3, 4):
        games = [stage_game(stages, seed) for seed in range(given.games)]
        for learner in ("iql", "i2q"):
            parts = [games[k : k + 20] for k in range(0, len(games), 20)]  # more at once no longer fit the processor's cache
            found = [
                stage_ratios(learner, part, given.env_steps, seed, every=given.every, step=given.step)
                for seed, part in enumerate(parts)
            ]
            ratios = np.concatenate(found)
            print(f"| {stages} | {learner} | {ratios.mean():.3f} | {int(np.isclose(ratios, 1.0).sum())} of {len(ratios)} |")
    print("\n| turns | return / best after 15 turns | Nash gap / best |\n|---|---|---|")
    game = stochastic_game(3, StochasticGame())
    best = float(game.start @ optimum(game, GAMMA)[0])
    for kind in ("converged", "one_step", "simultaneous"):
        ends = [list(turns(game, kind, 15, seed))[-1] for seed in range(3)]
        told = " / ".join(f"{value / best:.3f}" for value, _ in ends), " / ".join(f"{gap / best:.3f}" for _, gap in ends)
        print(f"| {kind} | {told[0]} | {told[1]} |")
    payoff = np.array(PAYOFFS["non_monotone"](MatrixGame()), np.float64)
    table = mixed_fit(payoff, 0)
    error, taken = float(((table - payoff) ** 2).sum()), payoff.flat[table.argmax()]
    print(f"\nnon_monotone: QMIX fits it with squared error {error:.1f} and takes a cell that pays {taken:g}")


if __name__ == "__main__":
    main()
