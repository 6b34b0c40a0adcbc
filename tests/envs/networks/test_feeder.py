"""Feeders: published figures, and the power flow against an exact solver written another way."""

import networkx as nx
import numpy as np
import pytest
from numpy.typing import NDArray

from envs.networks.feeder import BASE_KV, Feeder, feeder, spread, zone_graph, zones

DEFAULT_33 = (12, 17, 21, 24, 28, 32)


def exact_voltages(grid: Feeder, active: NDArray[np.float64], reactive: NDArray[np.float64]) -> NDArray[np.float64]:
    """AC power flow by backward-forward sweeps over complex currents, from the leaves up and down again, until nothing moves."""
    power, line = active + 1j * reactive, grid.resistance + 1j * grid.reactance
    voltage = np.ones(power.shape, complex)
    for _ in range(1000):
        current = np.conj(power / voltage)
        for k in reversed(range(len(line))):
            if grid.upstream[k]:
                current[..., grid.upstream[k] - 1] += current[..., k]
        before, voltage = voltage, np.ones_like(voltage)
        for k, up in enumerate(grid.upstream):
            voltage[..., k] = (voltage[..., up - 1] if up else 1.0) + line[k] * current[..., k]
        if np.abs(voltage - before).max() < 1e-12:
            return np.abs(voltage)
    pytest.fail("the sweeps do not settle")


def random_states(grid: Feeder, count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Loads of 0 to 120 %, six plants that make up to 1.6 times the nominal load, and reactive power of either sign."""
    rng = np.random.default_rng(0)
    share = rng.uniform(0.0, 1.2, (count, len(grid.load)))
    active, reactive = -share * grid.load, -share * grid.reactive_load
    plants = np.array(spread(grid, 6)) - 1
    peak = 1.6 * grid.load.sum() / 6
    active[:, plants] += rng.uniform(0.0, peak, (count, 6))
    reactive[:, plants] += rng.uniform(-0.6 * peak, 0.6 * peak, (count, 6))
    return active, reactive


@pytest.mark.parametrize(
    ("name", "load", "reactive", "lowest"), [("ieee33", 3.715, 2.3, 0.9131), ("caracas141", 11.945, 7.403, 0.9279)]
)
def test_nominal_load_has_the_published_totals_and_lowest_voltage(name: str, load: float, reactive: float, lowest: float) -> None:
    grid = feeder(name)
    assert [grid.load.sum(), grid.reactive_load.sum()] == pytest.approx([load, reactive], abs=1e-3)
    assert grid.voltages(-grid.load[None], -grid.reactive_load[None]).min() == pytest.approx(lowest, abs=1e-4)


def test_without_losses_the_lowest_voltage_is_that_of_the_linear_power_flow() -> None:
    grid = feeder("ieee33")
    linear = np.sqrt(1.0 - grid.r @ grid.load - grid.x @ grid.reactive_load)
    assert linear.min() == pytest.approx(0.9159, abs=1e-4)


@pytest.mark.parametrize("name", BASE_KV)
def test_voltages_are_those_of_the_exact_power_flow(name: str) -> None:
    grid = feeder(name)
    active, reactive = random_states(grid, 200)
    error = np.abs(grid.voltages(active, reactive) - exact_voltages(grid, active, reactive)).max()
    assert error < 3e-4  # the linear power flow misses by 0.01


@pytest.mark.slow
def test_exact_power_flow_is_that_of_pandapower() -> None:
    pp, networks = pytest.importorskip("pandapower"), pytest.importorskip("pandapower.networks")
    grid, net = feeder("ieee33"), networks.case33bw()
    active, reactive = random_states(grid, 200)
    expected = exact_voltages(grid, active, reactive)
    net.load.drop(net.load.index, inplace=True)
    loads = [pp.create_load(net, bus, 0.0, 0.0) for bus in range(1, len(grid))]
    for state in range(len(active)):
        net.load.loc[loads, "p_mw"], net.load.loc[loads, "q_mvar"] = -active[state], -reactive[state]
        pp.runpp(net, numba=False)
        np.testing.assert_allclose(net.res_bus.vm_pu.to_numpy()[1:], expected[state], atol=1e-7)


def test_influence_is_the_part_of_the_path_that_two_buses_share() -> None:
    grid = feeder("ieee33")
    seats = np.array(DEFAULT_33) - 1
    half = grid.x[np.ix_(seats, seats)] / 2
    assert [half.diagonal().min(), half.diagonal().max()] == pytest.approx([0.0126, 0.057], abs=1e-4)
    assert [half[0, 2], half[0, 4]] == pytest.approx([0.0003, 0.0086], abs=1e-4)  # on other branches
    assert half[0, 1] == pytest.approx(half[0, 0])  # bus 12 lies on the path to bus 17


@pytest.mark.parametrize(("name", "count"), [("ieee33", 1), ("ieee33", 6), ("ieee33", 32), ("caracas141", 22)])
def test_zones_are_connected_and_hang_together_as_a_tree(name: str, count: int) -> None:
    grid = feeder(name)
    seats = spread(grid, count)
    assert len(set(seats)) == count
    assert 0 not in seats
    zone = zones(grid, seats)
    assert [int(zone[seat]) for seat in seats] == list(range(count))
    assert all(nx.is_connected(grid.tree.subgraph(np.flatnonzero(zone == agent).tolist())) for agent in range(count))
    agents = nx.empty_graph(count)
    agents.add_edges_from(zone_graph(grid, zone))
    assert nx.is_tree(agents)
