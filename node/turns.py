"""Who updates next: A2PO's semi-greedy order and the turns of alternating learners.

Every agent works these out alike from the shared seed and what has been told to all.
"""

from collections.abc import Collection, Mapping

import numpy as np


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


def holder(round_: int, n: int) -> int:
    """The agent that learns in a round of alternating learners: each in turn, ascending.

    Example:
        >>> [holder(round_, 3) for round_ in range(4)]
        [0, 1, 2, 0]
    """
    return round_ % n
