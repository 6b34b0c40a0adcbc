"""What agents sent, checked, as the arrays that a world computes with."""

from collections.abc import Sequence

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from envs.interface import Bools, Controller, Floats, VecEnv
from scenarios.schema import Env
from topology.wire.frame import ProtocolError


def taken(actions: Sequence[Floats], n_discrete: Sequence[int]) -> tuple[NDArray[np.intp], ...]:
    """The indices that agents chose.

    Args:
        actions: Per agent (E, 1).
        n_discrete: How many each agent has; 0: its actions are numbers.

    Returns:
        Per agent (E,); of an agent whose actions are numbers, (0,).

    Raises:
        ProtocolError: An agent sent what is none of its choices; the text names it.
    """
    chosen = []
    for agent, (action, count) in enumerate(zip(actions, n_discrete, strict=True)):
        if not count:
            chosen.append(np.zeros(0, np.intp))
            continue
        index = action[:, 0]
        wrong = ~((index >= 0) & (index < count) & (index == np.floor(index)))
        if wrong.any():
            copy = int(np.argmax(wrong))
            raise ProtocolError(f"agent {agent} chose {index[copy]:g} in copy {copy}; its choices are 0..{count - 1}")
        chosen.append(index.astype(np.intp))
    return tuple(chosen)


def controls(actions: Sequence[Floats]) -> tuple[NDArray[np.float64], Bools]:
    """Controls of agents that have equally many.

    Args:
        actions: Per agent (E, a).

    Returns:
        (E, n, a), 0 in place of what is not a number and the greatest number in place of infinity; and (E,) True in copies where
        something was not finite, which is a fault.
    """
    given = np.stack(actions, axis=1).astype(np.float64)
    faults: Bools = np.logical_not(np.isfinite(given).all(axis=(1, 2)), dtype=np.bool_)
    return np.nan_to_num(given), faults


def at_random(env: Env, graph: nx.Graph) -> Controller:
    """The baseline of every world: each agent draws one of its choices, or numbers from [-1, 1], in every step."""
    rng = np.random.default_rng(0)

    def control(world: VecEnv) -> list[Floats]:
        return [
            (rng.integers(count, size=(world.num_envs, 1)) if count else rng.uniform(-1, 1, (world.num_envs, width))).astype(
                np.float32
            )
            for count, width in zip(world.spec.n_discrete, world.spec.act_dims, strict=True)
        ]

    return control
