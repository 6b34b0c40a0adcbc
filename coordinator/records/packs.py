"""Which agents share a process."""

import math
import os
from collections.abc import Collection

from topology.deployment import Deployment
from topology.wire.keys import WORLD_ROLE, pack_role, role_of


def packs(n_agents: int, size: int, alone: Collection[int] = ()) -> list[list[int]]:
    """The agents of each process: blocks of consecutive agents, none larger than the size.

    Args:
        n_agents: n.
        size: Agents per process.
        alone: Agents that have a process of their own whatever the size.

    Example:
        >>> packs(5, 2), packs(5, 3, alone={1})
        ([[0, 1], [2, 3], [4]], [[0], [1], [2], [3, 4]])
    """
    found: list[list[int]] = []
    for agent in range(n_agents):
        if agent % size == 0 or agent in alone or agent - 1 in alone:
            found.append([])
        found[-1].append(agent)
    return found


def pack_size(asked: int | str, n_agents: int) -> int:
    """How many agents a process has at most on this machine; see `supervision.agents_per_process`."""
    if isinstance(asked, int):
        return min(asked, n_agents)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return math.ceil(n_agents / cores)


def processes(asked: int | str, deployment: Deployment, by_hand: Collection[int] = ()) -> dict[str, list[str]]:
    """The processes of a run, and the roles of each: the world, the agents, and the central critic if there is one.

    Args:
        asked: `supervision.agents_per_process`.
        deployment: Sizes.
        by_hand: Agents whose nodes are started from outside; each has a process of its own.
    """
    n = deployment.n_agents
    blocks = packs(n, pack_size(asked, n), by_hand) + [[critic] for critic in range(n, deployment.n_nodes)]
    return {WORLD_ROLE: [WORLD_ROLE]} | {pack_role(block): [role_of(agent) for agent in block] for block in blocks}
