"""Which nodes are near: hop distances, balls, and the trees along which messages flood.

Theory of operation. Everything follows from breadth-first search on the communication graph, so the same call gives the same
answer on every node of a run: results are in ascending agent id, and wherever several shortest paths tie, the lowest id wins.
The *tree of an origin* joins each node j to its lowest-id neighbour one hop nearer to the origin (`tree_parents`). A message
floods along that tree, cut back to the paths that lead to its audience (`relay_tree`): each member gets it exactly
once, over a shortest path, and a node on the way passes it on whether or not it may use it itself. Where the
audience is all that see the origin, by κ in hops or in agents, all relays belong to it; where it is some of them, relays may not.

A search ends as soon as it has found what it is asked for, so a tree costs what lies within its audience's radius, not the graph.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import networkx as nx


def distances(graph: nx.Graph, i: int) -> dict[int, int]:
    """Hop distance d(i, j) of every node j that i can reach, itself (0) included, ascending by id.

    Raises:
        ValueError: i is not a node.
    """
    found = _search(graph, i, None)
    return {j: found[j] for j in sorted(found)}


def ball(graph: nx.Graph, i: int, kappa: int) -> tuple[int, ...]:
    """N_i^κ: all j with d(i, j) ≤ κ, i included, ascending.

    Raises:
        ValueError: i is not a node, or kappa is negative.

    Example:
        >>> ball(nx.path_graph(5), 1, 2)
        (0, 1, 2, 3)
    """
    _natural("kappa", kappa, 0)
    return tuple(sorted(_search(graph, i, kappa)))


def diameter(graph: nx.Graph) -> int:
    """The largest hop distance between any two nodes; 0 for a single node.

    Raises:
        ValueError: the graph is empty or not connected.
    """
    n = len(graph)
    if n == 0:
        raise ValueError("graph: has no nodes; a diameter needs at least 1")
    found = [_search(graph, i, None) for i in graph]
    if any(len(hops) < n for hops in found):
        raise ValueError(f"graph: not connected; of {n} nodes the first reaches {len(found[0])}")
    return max(max(hops.values()) for hops in found)


def nearest(graph: nx.Graph, i: int, count: int) -> tuple[int, ...]:
    """The `count` agents nearest to i, itself included: fewest hops first, ties to the lower id; returned ascending.

    All reachable agents if there are fewer.

    Raises:
        ValueError: i is not a node, or count is below 1.

    Example:
        >>> nearest(nx.path_graph(5), 2, 2)
        (1, 2)
    """
    _natural("count", count, 1)
    found = _search(graph, i, None)
    ranked = sorted(found, key=lambda j: (found[j], j))
    return tuple(sorted(ranked[:count]))


def tree_parents(graph: nx.Graph, origin: int) -> dict[int, int]:
    """The breadth-first tree of `origin`: for every other reachable node the next one towards the origin.

    Returns:
        j → its lowest-id neighbour with d(origin, ·) = d(origin, j) − 1, ascending by j; the origin itself is no key.

    Raises:
        ValueError: origin is not a node.
    """
    hops = distances(graph, origin)
    return {j: min(p for p in graph.adj[j] if hops[p] == hops[j] - 1) for j in hops if j != origin}


def path(graph: nx.Graph, a: int, b: int) -> tuple[int, ...]:
    """The nodes from a to b, both included, along b's place in the tree of a.

    Raises:
        ValueError: a or b is not a node, or b cannot be reached.
    """
    tree = relay_tree(graph, a, (b,))
    return tuple(sorted(tree.children, key=tree.depth.__getitem__))


def visible(graph: nx.Graph, kappa: int, unit: Literal["hops", "agents"]) -> tuple[tuple[int, ...], ...]:
    """For each agent, whose blocks it sees, itself included, ascending.

    Args:
        graph: Nodes 0..n-1.
        kappa: κ, at least 0 in hops and at least 1 in agents.
        unit: Whether κ is the radius of the ball, or the number of nearest agents (itself included).

    Returns:
        One tuple per agent, in ascending id. In hops "i sees j" is symmetric; in agents it need not be.

    Raises:
        ValueError: kappa is too small.
    """
    if unit == "hops":
        return tuple(ball(graph, i, kappa) for i in sorted(graph))
    return tuple(nearest(graph, i, kappa) for i in sorted(graph))


def audiences(visible: Sequence[Iterable[int]]) -> tuple[tuple[int, ...], ...]:
    """For each origin, which other agents see it, ascending.

    Args:
        visible: Per agent whose blocks it sees, as from `visible`.

    Example:
        >>> audiences([(0, 1), (0, 1), (1, 2)])
        ((1,), (0, 2), ())
    """
    heard_by: list[list[int]] = [[] for _ in visible]
    for listener, seen in enumerate(visible):
        for origin in seen:
            if origin != listener:
                heard_by[origin].append(listener)
    return tuple(tuple(listeners) for listeners in heard_by)


@dataclass(frozen=True, slots=True)
class Tree:
    """The tree along which a message of one origin floods.

    Attributes:
        children: For each node on the tree, ascending, those it passes the message on to, ascending. Leaves have ().
        above: For each of them but the origin, the next one towards the origin.
        depth: For each of them, hops from the origin.
        relays: Nodes that pass the message on without belonging to the audience, the origin apart.
        radius: Hops to the farthest of the audience.
    """

    children: dict[int, tuple[int, ...]]
    above: dict[int, int]
    depth: dict[int, int]
    relays: frozenset[int]
    radius: int

    def before(self, node: int) -> frozenset[int]:
        """The nodes that the message crosses on its way to a node of the tree, the origin included, that node not."""
        crossed = []
        while node in self.above:
            node = self.above[node]
            crossed.append(node)
        return frozenset(crossed)


def relay_tree(graph: nx.Graph, origin: int, audience: Iterable[int]) -> Tree:
    """The breadth-first tree of `origin`, cut back to the paths to the audience.

    Args:
        graph: The communication graph.
        origin: The node that sends first.
        audience: The nodes that need the message; the origin itself may be among them and changes nothing.

    Returns:
        The tree, for the search of which the graph is read no further than to the farthest of the audience.

    Raises:
        ValueError: origin or a member of the audience is not a node, or cannot be reached.

    Example:
        >>> relay_tree(nx.path_graph(4), 1, [0, 3]).children
        {0: (), 1: (0, 2), 2: (3,), 3: ()}
    """
    members = frozenset(audience) - {origin}
    hops = _search(graph, origin, None, members)
    above: dict[int, int] = {}
    children: dict[int, list[int]] = {origin: []}
    for member in sorted(members):
        if member not in hops:
            raise ValueError(f"agent: got {member}; not reachable from {origin}")
        node = member
        while node not in children:
            children[node] = []
            nearer = hops[node] - 1
            above[node] = node = min(p for p in graph.adj[node] if hops.get(p) == nearer)
    for node, parent in above.items():
        children[parent].append(node)
    return Tree(
        children={node: tuple(sorted(children[node])) for node in sorted(children)},
        above=above,
        depth={node: hops[node] for node in children},
        relays=frozenset(children) - members - {origin},
        radius=max((hops[member] for member in members), default=0),
    )


def direct_tree(origin: int, audience: Iterable[int]) -> Tree:
    """The tree of a message that its origin sends to each of its audience itself.

    Example:
        >>> direct_tree(1, [0, 3]).children
        {1: (0, 3), 0: (), 3: ()}
    """
    members = sorted(audience)
    return Tree(
        children={origin: tuple(members)} | dict.fromkeys(members, ()),
        above=dict.fromkeys(members, origin),
        depth={origin: 0} | dict.fromkeys(members, 1),
        relays=frozenset(),
        radius=1,
    )


def critical_path(order: Sequence[int], visible: Sequence[Iterable[int]]) -> int:
    """How many agents must update one after another: the longest chain j → i with j before i in the order and seen by i.

    Args:
        order: The agents in their order of updates, each at most once.
        visible: Per agent whose blocks it sees.

    Returns:
        Number of agents on the longest chain: 1 if no agent waits, len(order) if all update in turn, 0 for an empty order.

    Example:
        >>> critical_path([0, 2, 1], [(0, 1), (0, 1, 2), (1, 2)])
        2
    """
    length: dict[int, int] = {}
    for i in order:
        length[i] = 1 + max((length[j] for j in visible[i] if j in length), default=0)
    return max(length.values(), default=0)


def _search(graph: nx.Graph, source: int, limit: int | None, wanted: Collection[int] | None = None) -> dict[int, int]:
    # hop distances from the source up to the limit, nearest first; over once every node is found, which spares dense graphs,
    # or every node that is wanted: those less far than the farthest of them are then found too
    if source not in graph:
        raise ValueError(f"agent: got {source}; not one of the {len(graph)} nodes")
    hops = {source: 0}
    frontier = [source]
    depth = 0
    missing = None if wanted is None else set(wanted) - {source}
    while frontier and len(hops) < len(graph) and (limit is None or depth < limit) and (missing is None or missing):
        depth += 1
        reached: list[int] = []
        for node in frontier:
            for neighbour in graph.adj[node]:
                if neighbour not in hops:
                    hops[neighbour] = depth
                    reached.append(neighbour)
                    if missing is not None:
                        missing.discard(neighbour)
            if len(hops) == len(graph) or (missing is not None and not missing):
                break
        frontier = reached
    return hops


def _natural(name: str, value: int, least: int) -> None:
    if value < least:
        raise ValueError(f"{name}: got {value}; must be at least {least}")
