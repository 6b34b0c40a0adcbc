"""Who updates next: A2PO's semi-greedy order and the turns of alternating learners.

Every agent works these out alike from the shared seed and what has been told to all.
"""

from collections.abc import Collection, Mapping

import numpy as np
from numpy.typing import NDArray

TOKEN_WIDTH = 8  # numbers of a token: 32 bytes


def semi_greedy(remaining: Collection[int], scores: Mapping[int, float], place: int, draw: np.random.Generator) -> int:
    """The agent that updates at `place` (from 1): drawn at odd places, the one with the largest score at even ones.

    Args:
        remaining: Agents that have not updated in this round; not empty.
        scores: Mean absolute advantage of each of them as it stands now, or as it stood when the round's updates began
            (A2PO's paper and code); ties go to the lower id.
        place: Place in the order.
        draw: The round's shared stream, asked at odd places alone.

    Source:
        Wang et al. 2023 (arXiv:2302.06205), section 4.3.

    Example:
        >>> semi_greedy({0, 2, 3}, {0: 0.1, 2: 0.7, 3: 0.2}, 2, np.random.default_rng(0))
        2
    """
    candidates = sorted(remaining)
    if place % 2:
        return candidates[int(draw.integers(len(candidates)))]
    return max(candidates, key=lambda agent: scores[agent])


def semi_greedy_order(scores: Mapping[int, float], draw: np.random.Generator) -> tuple[int, ...]:
    """The order of a whole round, by scores as they stood when its updates began.

    Args:
        scores: Of every agent.
        draw: The round's shared stream.
    """
    order: list[int] = []
    while remaining := scores.keys() - set(order):
        order.append(semi_greedy(remaining, scores, len(order) + 1, draw))
    return tuple(order)


def token(round_: int, n: int, turn_rounds: int = 1) -> NDArray[np.float32]:
    """What an agent sends the next when its turn ends: round, agent that has learnt, agent whose turn it is, n; and room, (8,).

    Example:
        >>> token(7, 3).tolist()
        [7.0, 1.0, 2.0, 3.0, 0.0, 0.0, 0.0, 0.0]
    """
    told = np.zeros(TOKEN_WIDTH, np.float32)
    told[:4] = round_, holder(round_, n, turn_rounds), holder(round_ + 1, n, turn_rounds), n
    return told


def holder(round_: int, n: int, turn_rounds: int = 1) -> int:
    """The agent that learns in a round of alternating learners: each in turn, ascending, for `turn_rounds` rounds.

    Example:
        >>> [holder(round_, 3) for round_ in range(4)], [holder(round_, 3, 2) for round_ in range(4)]
        ([0, 1, 2, 0], [0, 0, 1, 1])
    """
    return round_ // turn_rounds % n


def rounds_held(round_: int, agent: int, n: int, turn_rounds: int = 1) -> int:
    """In how many of the rounds before this one an agent has held the turn.

    Example:
        >>> [rounds_held(round_, 1, 3, 2) for round_ in range(10)]
        [0, 0, 0, 1, 2, 2, 2, 2, 2, 3]
    """
    cycles, rest = divmod(round_, n * turn_rounds)
    return cycles * turn_rounds + min(max(rest - agent * turn_rounds, 0), turn_rounds)
