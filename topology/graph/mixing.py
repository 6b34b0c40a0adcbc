"""How neighbours average numbers with each other, and how fast that brings all agents together.

Theory of operation. In a step of gossip every agent replaces its number by a weighted mean of its own and its neighbours',
x <- W·x. With the Metropolis-Hastings weights

    W_ij = 1 / (1 + max(d_i, d_j)) on an edge,      W_ii = 1 - sum_j W_ij,      d the degrees,

W is symmetric and its rows add up to 1, so the mean over all agents stays, and two neighbours need to know of each other no more
than their degrees. What is not the mean shrinks per step by the second largest modulus of W's eigenvalues.

Source:
    Xiao, Boyd, Lall 2005, "A scheme for robust distributed sensor fusion based on average consensus", section III.
"""

import networkx as nx
import numpy as np
from numpy.typing import NDArray


def metropolis_weight(degree: float, other: float) -> float:
    """W_ij of two neighbours with these degrees.

    Example:
        >>> metropolis_weight(1.0, 3.0)
        0.25
    """
    return 1.0 / (1.0 + max(degree, other))


def mixing_matrix(graph: nx.Graph) -> NDArray[np.float64]:
    """W, (n, n), of a graph on 0..n-1."""
    n = len(graph)
    found = np.zeros((n, n))
    for i, j in graph.edges:
        found[i, j] = found[j, i] = metropolis_weight(float(graph.degree[i]), float(graph.degree[j]))
    found[np.diag_indices(n)] = 1.0 - found.sum(axis=1)
    return found


def spectral_gap(graph: nx.Graph) -> float:
    """1 less the second largest modulus of W's eigenvalues: 1, a step brings all to the mean; near 0, many steps do.

    Example:
        >>> round(spectral_gap(nx.complete_graph(4)), 9), round(spectral_gap(nx.path_graph(3)), 9)
        (1.0, 0.333333333)
    """
    if len(graph) < 2:
        return 1.0
    return 1.0 - float(np.sort(np.abs(np.linalg.eigvalsh(mixing_matrix(graph))))[-2])
