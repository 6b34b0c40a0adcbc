"""Networks that something spreads on: a ring, or the communication graph."""

from collections.abc import Iterable
from typing import Literal

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from envs.settings import TeamEnv
from scenarios.schema import setting


class ContactsEnv(TeamEnv):
    """A world whose physics spreads between neighbours of a network."""

    contacts: Literal["ring", "links"] = setting(
        "ring",
        "The network of the physics. ring: node i and node i + 1, the last and the first; links: the communication graph, which "
        "may come from a file.",
    )

    def neighbours(self, graph: nx.Graph) -> NDArray[np.float64]:
        """`adjacency` of the network, given the communication graph on 0..n-1."""
        n = self.n_agents
        return adjacency(n, ring(n) if self.contacts == "ring" else graph.edges)


def ring(n: int) -> tuple[tuple[int, int], ...]:
    """The pairs of a ring of n nodes, n at least 2."""
    return tuple(sorted({(min(i, (i + 1) % n), max(i, (i + 1) % n)) for i in range(n)}))


def adjacency(n: int, edges: Iterable[tuple[int, int]]) -> NDArray[np.float64]:
    """Which nodes of 0..n-1 are neighbours, (n, n), 0 or 1."""
    found = np.zeros((n, n))
    for i, j in edges:
        found[i, j] = found[j, i] = 1.0
    return found
