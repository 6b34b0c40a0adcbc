"""Metropolis-Hastings weights: what they keep, and how fast they mix on graphs whose eigenvalues are known."""

import math

import networkx as nx
import numpy as np
import pytest

from topology.graph.mixing import mixing_matrix, spectral_gap

GAPS = {
    "complete": (nx.complete_graph(7), 1.0),
    "ring": (nx.cycle_graph(8), 1.0 - (1.0 + 2.0 * math.cos(2 * math.pi / 8)) / 3.0),  # circulant, all weights 1/3
    "star": (nx.star_graph(5), 1.0 / 6.0),  # leaves keep 5/6 of what they differ by
    "one edge": (nx.path_graph(2), 1.0),
    "alone": (nx.empty_graph(1), 1.0),
}


@pytest.mark.parametrize("name", GAPS)
def test_the_spectral_gap_is_that_of_the_known_eigenvalues(name: str) -> None:
    graph, gap = GAPS[name]
    assert spectral_gap(graph) == pytest.approx(gap, abs=1e-12)


def test_the_mean_stays_and_all_come_to_it_at_the_rate_of_the_gap() -> None:
    graph = nx.convert_node_labels_to_integers(nx.barabasi_albert_graph(20, 2, seed=3))
    mixing = mixing_matrix(graph)
    assert (mixing >= 0).all()
    np.testing.assert_allclose(mixing, mixing.T, rtol=0, atol=0)
    x = np.random.default_rng(0).normal(size=20)
    apart = np.linalg.norm(x - x.mean())
    for _ in range(50):
        mixed = mixing @ x
        assert mixed.mean() == pytest.approx(x.mean(), abs=1e-12)
        now = np.linalg.norm(mixed - mixed.mean())
        assert now <= (1.0 - spectral_gap(graph)) * apart + 1e-12
        x, apart = mixed, now
