"""Random streams: one per purpose, keyed by what it is for, so that none depends on another, on κ, or on timing."""

from enum import IntEnum

import numpy as np


class Purpose(IntEnum):
    """What a stream is drawn for."""

    INIT = 1
    NOISE = 2
    SHUFFLE = 3
    MODEL = 4
    ORDER = 0xA11  # shared by all agents: the same permutation everywhere without a message
    JOINT_SHUFFLE = 0xA12  # shared too: the same minibatches everywhere, for agents that learn on each other's ratios


def stream(seed: int, *key: int) -> np.random.Generator:
    """The generator of a key; equal keys give equal streams, different keys independent ones.

    Example:
        >>> stream(0, Purpose.NOISE, 3, 7).random() == stream(0, Purpose.NOISE, 3, 7).random()
        True
    """
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, *key])))
