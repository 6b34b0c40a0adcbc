"""Radial distribution feeders: their data, and the power flow on them.

Theory of operation. A feeder is a tree of buses that hangs from a substation, bus 0, whose voltage is fixed at 1 p.u. Each
other bus has one line to its upstream bus. Let P and Q be what a line delivers at its lower end. Then v_up² = v² + 2 (r P + x
Q) + |z|² l, where l = (P² + Q²)/v² is the squared current (DistFlow). Without the terms in l this is linear (LinDistFlow): v² =
1 + R p + X q, where p and q are net injections and R_ij is twice the resistance of the part that the paths of i and j to the
substation share; X likewise. `Feeder.voltages` starts there and takes the losses in by a fixed number of sweeps, each a few
products of matrices that are constants of the feeder, for all copies at once. Without them the voltages of a feeder with strong
reactive flows are 0.03 p.u. too high.

Source: Baran & Wu 1989 (IEEE Transactions on Power Delivery 4(1), 725-734), equations of DistFlow, solved by fixed-point
sweeps. `ieee33`: their 33-bus feeder, as in pandapower's case33bw (BSD). `caracas141`: a zone of Caracas, Khodr et al. 2008
(Electric Power Systems Research 78(7), 1192-1203), as in MATPOWER's case141 with the corrections made there; loads have power
factor 0.85. Buses count from 0.
"""

import csv
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import networkx as nx
import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
Buses = NDArray[np.intp]
BASE_KV = {"ieee33": 12.66, "caracas141": 12.47}
SWEEPS = (
    2  # the error is 0.014 p.u. without, 4e-6 with two of them where buses are within limits, 6e-4 with voltages down to 0.78
)
MOST_CURRENT = 1e6  # (MVA per p.u.)²: squared currents end here, so that an absurd load stays a number
LEAST_SQUARE = 0.01  # p.u.²: a feeder that is loaded beyond what it can carry has this squared voltage


@dataclass(frozen=True, slots=True, kw_only=True)
class Feeder:
    """A radial feeder of K buses besides the substation; index k of every array is bus k + 1.

    Attributes:
        upstream: (K,) the bus that feeds each bus; always a smaller number.
        resistance: (K,) of the line to the upstream bus [per unit per MW].
        reactance: (K,) likewise [per unit per Mvar].
        load: (K,) nominal active load [MW].
        reactive_load: (K,) nominal reactive load [Mvar].
        r: (K, K) effect of injected active power on squared voltages [p.u.² per MW].
        x: (K, K) effect of injected reactive power on squared voltages [p.u.² per Mvar].
    """

    upstream: Buses
    resistance: Matrix
    reactance: Matrix
    load: Matrix
    reactive_load: Matrix
    r: Matrix
    x: Matrix
    _of_active: Matrix  # what an injection adds to squared voltages, and to the flow of each line: (K, 2K)
    _of_reactive: Matrix
    _of_current: Matrix  # what a squared current takes from squared voltages, and adds to active and reactive flows: (K, 3K)

    def __len__(self) -> int:
        """How many buses there are, the substation among them."""
        return len(self.upstream) + 1

    def voltages(self, active: Matrix, reactive: Matrix) -> Matrix:
        """The power flow.

        Args:
            active: Net injection at every bus but the substation [MW], (E, K).
            reactive: Likewise [Mvar], (E, K).

        Returns:
            Voltages, (E, K) [p.u.].
        """
        buses, lost = active.shape[1], np.empty((0, 0))
        raised_p, p_plain = np.split(active @ self._of_active, 2, axis=1)
        raised_q, q_plain = np.split(reactive @ self._of_reactive, 2, axis=1)
        linear = 1.0 + raised_p + raised_q
        p, q, square = p_plain, q_plain, np.maximum(linear, LEAST_SQUARE)
        for sweep in range(SWEEPS):
            if sweep:
                p, q = p_plain + lost[:, buses : 2 * buses], q_plain + lost[:, 2 * buses :]
            current = np.minimum((p * p + q * q) / square, MOST_CURRENT)
            lost = current @ (self._of_current if sweep < SWEEPS - 1 else self._of_current[:, :buses])
            square = np.maximum(linear - lost[:, :buses], LEAST_SQUARE)
        return np.asarray(np.sqrt(square))

    @property
    def tree(self) -> nx.Graph:
        """The feeder as a graph on 0..K; an edge's `length` is the impedance of its line [per unit per MVA]."""
        length = np.hypot(self.resistance, self.reactance)
        graph = nx.Graph()
        graph.add_node(0)
        graph.add_weighted_edges_from(((int(up), k + 1, float(length[k])) for k, up in enumerate(self.upstream)), weight="length")
        return graph


@lru_cache(maxsize=4)
def feeder(name: str) -> Feeder:
    """Read a feeder's table.

    Args:
        name: A key of `BASE_KV`.

    Returns:
        The feeder; its arrays are shared between callers and read-only.
    """
    with (Path(__file__).parent / "feeders" / f"{name}.csv").open(newline="", encoding="ascii") as file:
        rows = [[float(value) for value in row.values()] for row in csv.DictReader(file)]
    table = np.array(rows)
    upstream = table[:, 1].astype(np.intp)
    resistance, reactance = table[:, 2] / BASE_KV[name] ** 2, table[:, 3] / BASE_KV[name] ** 2
    below = _paths(upstream)
    r, x = 2.0 * (below * resistance) @ below.T, 2.0 * (below * reactance) @ below.T
    # what a line loses is drawn at its upper end: rows of the upstream buses, zeros for the substation
    below_up, r_up, x_up = (np.vstack([np.zeros(len(upstream)), matrix])[upstream] for matrix in (below, r, x))
    of_line, of_loop = resistance[:, None], reactance[:, None]
    drop = of_line * r_up + of_loop * x_up + (of_line**2 + of_loop**2) * below.T
    found = Feeder(
        upstream=upstream, resistance=resistance, reactance=reactance, load=table[:, 4] / 1e3, reactive_load=table[:, 5] / 1e3,
        r=r, x=x, _of_active=np.hstack([r, -below]), _of_reactive=np.hstack([x, -below]),
        _of_current=np.hstack([drop, of_line * below_up, of_loop * below_up]),
    )  # fmt: skip
    for array in (
        upstream,
        resistance,
        reactance,
        found.load,
        found.reactive_load,
        r,
        x,
        found._of_active,
        found._of_reactive,
        found._of_current,
    ):
        array.flags.writeable = False
    return found


def _paths(upstream: Buses) -> Matrix:
    """Which lines lie between a bus and the substation, (K, K): 1 at (k, l) if the line above bus l + 1 feeds bus k + 1."""
    found = np.eye(len(upstream))
    for k, up in enumerate(upstream):  # upstream buses have smaller numbers, so their rows are complete
        if up:
            found[k] += found[up - 1]
    return found


def spread(grid: Feeder, count: int) -> tuple[int, ...]:
    """Buses far from each other: first the one farthest from the substation, then always the one farthest from all so far.

    Args:
        grid: The feeder.
        count: How many, at most one per bus besides the substation.

    Returns:
        Buses, ascending.
    """
    distance = _distances(grid)
    chosen = [0]
    for _ in range(count):
        chosen.append(int(distance[chosen].min(axis=0).argmax()))
    return tuple(sorted(chosen[1:]))


def zones(grid: Feeder, seats: tuple[int, ...]) -> Buses:
    """Whose bus each bus is: that of the electrically nearest seat, the first one of equals.

    Args:
        grid: The feeder.
        seats: One bus per agent.

    Returns:
        (K + 1,) agent of every bus, the substation among them. In a tree each zone is connected.
    """
    return np.asarray(_distances(grid)[list(seats)].argmin(axis=0))


def zone_graph(grid: Feeder, zone: Buses) -> tuple[tuple[int, int], ...]:
    """The agents' graph: two are adjacent if a line joins their zones.

    Args:
        grid: The feeder.
        zone: (K + 1,) agent of every bus.

    Returns:
        Sorted pairs i < j, a tree on all agents, because connected parts of a tree hang together as a tree.
    """
    ends = ((int(zone[up]), int(zone[k + 1])) for k, up in enumerate(grid.upstream))
    return tuple(sorted({(min(i, j), max(i, j)) for i, j in ends if i != j}))


def _distances(grid: Feeder) -> Matrix:
    """Impedance of the path between each two buses, (K + 1, K + 1) [per unit per MVA], rounded against last bits."""
    lengths = dict(nx.all_pairs_dijkstra_path_length(grid.tree, weight="length"))
    return np.array([[round(lengths[i][j], 12) for j in range(len(grid))] for i in range(len(grid))])
