"""Routes: for one agent, which messages it sends on, to which agents, and which it must have handled before it goes on.

Theory of operation. A message of `origin` is meant for an audience. With relay routing it floods along the BFS tree of
its origin, pruned to the union of the paths to the audience, so each node on it receives it exactly once and passes it
to its children. A node may lie on such a path without belonging to the audience (ratios are for later agents only); it relays
without using. With direct routing the origin sends to each of its audience itself. An agent must not go on to the next
step before it has handled, used or relayed, every message that comes its way: `awaited` says which, and that rule is
what keeps a relay from starving those behind it.

Over each link the messages of one kind and moment leave in one order, the same in every run however the processes are
scheduled: by how far they have come, then by origin (or in a given order of origins). A link's queue and its random
numbers depend on that order. This order cannot deadlock: a message waits only for such as have come less far, or
as far on the same link.

The trees of a kind of message are the same for all agents, so `Routing` works them out once and gives each agent its part.
What that costs grows with the trees, not with the graph: with a fixed number of neighbours and a fixed κ, linearly with n.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import networkx as nx

from topology.graph.neighbourhood import direct_tree, relay_tree


@dataclass(frozen=True, slots=True, kw_only=True)
class Routes:
    """One agent's part in one kind of message.

    Attributes:
        awaited: Origins whose message comes to this agent, to be used or relayed.
        uses: Those of them that are meant for it.
        next_hops: Per origin, itself included, the agents to send the message on to; ascending.
        hops_left: Per awaited origin, the hop budget of the message as it arrives here (for the agent itself, if its message
            is meant for any agent: as if it had arrived).
        addressed: Pairs (origin, neighbour) where the neighbour is one of the origin's audience.
        outgoing: Per node to send to, ascending, the origins whose messages go there, in the order in which they leave.
        via: Per awaited origin, the nodes that its message crosses on its way here, the origin included.
    """

    awaited: frozenset[int]
    uses: frozenset[int]
    next_hops: dict[int, tuple[int, ...]]
    hops_left: dict[int, int]
    addressed: frozenset[tuple[int, int]]
    outgoing: tuple[tuple[int, tuple[int, ...]], ...]
    via: dict[int, frozenset[int]]


NO_ROUTES = Routes(awaited=frozenset(), uses=frozenset(), next_hops={}, hops_left={}, addressed=frozenset(), outgoing=(), via={})


class Routing:
    """The trees of one kind of message, from which every agent gets its part.

    Args:
        graph: The topology.
        audiences: Per origin, the agents that need its message, without itself.
        direct: Overlay sockets instead of relaying.

    Raises:
        ValueError: one of an audience is not a node, or cannot be reached.
    """

    def __init__(self, graph: nx.Graph, audiences: Sequence[Sequence[int]], *, direct: bool) -> None:
        self._trees = {
            origin: direct_tree(origin, audience) if direct else relay_tree(graph, origin, audience)
            for origin, audience in enumerate(audiences)
            if audience
        }
        self._through: dict[int, list[int]] = {}  # per node, the origins whose tree it is on, ascending
        for origin, tree in self._trees.items():
            for node in tree.children:
                self._through.setdefault(node, []).append(origin)

    def part(self, agent: int, order: Sequence[int] | None = None) -> Routes:
        """The part that `agent` has in bringing every origin's message to its audience.

        Args:
            agent: Whose part.
            order: Origins in the order in which their messages come into being, where that is not all at once.
        """
        place = None if order is None else {origin: place for place, origin in enumerate(order)}
        awaited: set[int] = set()
        uses: set[int] = set()
        next_hops: dict[int, tuple[int, ...]] = {}
        hops_left: dict[int, int] = {}
        addressed: set[tuple[int, int]] = set()
        outgoing: dict[int, list[tuple[int, int]]] = {}
        via: dict[int, frozenset[int]] = {}
        for origin in self._through.get(agent, ()):
            tree = self._trees[origin]
            depth = tree.depth[agent]
            if mine := tree.children[agent]:
                next_hops[origin] = mine
                rank = depth if place is None else place[origin]
                for child in mine:
                    outgoing.setdefault(child, []).append((rank, origin))
                addressed.update((origin, child) for child in mine if child not in tree.relays)
            if agent != origin:
                awaited.add(origin)
                via[origin] = tree.before(agent)
                if agent not in tree.relays:
                    uses.add(origin)
            hops_left[origin] = tree.radius - depth
        return Routes(
            awaited=frozenset(awaited),
            uses=frozenset(uses),
            next_hops=next_hops,
            hops_left=hops_left,
            addressed=frozenset(addressed),
            outgoing=tuple((to, tuple(origin for _, origin in sorted(outgoing[to]))) for to in sorted(outgoing)),
            via=via,
        )


def routes(
    graph: nx.Graph,
    agent: int,
    audiences: Sequence[Sequence[int]],
    *,
    direct: bool,
    order: Sequence[int] | None = None,
) -> Routes:
    """One agent's part alone, see `Routing`.

    Raises:
        ValueError: as `Routing`.

    Example:
        >>> line = nx.path_graph(3)
        >>> part = routes(line, 1, [(1, 2), (), ()], direct=False)
        >>> sorted(part.awaited), part.next_hops
        ([0], {0: (2,)})
    """
    return Routing(graph, audiences, direct=direct).part(agent, order)


class Answering:
    """The tree along which `root` brings each other node an answer of its own.

    Here the origin of a message is the node that it is for.

    Args:
        graph: The topology.
        root: The node that answers.

    Raises:
        ValueError: root is not a node, or another cannot be reached from it.
    """

    def __init__(self, graph: nx.Graph, root: int) -> None:
        self._root = root
        self._tree = relay_tree(graph, root, graph)

    def part(self, agent: int) -> Routes:
        """The part that `agent` has in bringing the answers to those behind it."""
        tree = self._tree
        towards = {node: child for child in tree.children[agent] for node in self._behind(child)}
        comes_here = agent != self._root
        awaited = sorted({agent, *towards} if comes_here else towards)
        outgoing: dict[int, list[int]] = {}
        for addressee in sorted(towards):
            outgoing.setdefault(towards[addressee], []).append(addressee)
        crossed = tree.before(agent)
        return Routes(
            awaited=frozenset(awaited if comes_here else ()),
            uses=frozenset({agent} if comes_here else ()),
            next_hops={addressee: (towards[addressee],) for addressee in sorted(towards)},
            hops_left={addressee: tree.depth[addressee] - tree.depth[agent] for addressee in awaited},
            addressed=frozenset((child, child) for child in tree.children[agent]),
            outgoing=tuple((to, tuple(outgoing[to])) for to in sorted(outgoing)),
            via=dict.fromkeys(awaited, crossed) if comes_here else {},
        )

    def _behind(self, node: int) -> list[int]:
        """A node of the tree and all those below it."""
        found = [node]
        for one in found:
            found.extend(self._tree.children[one])
        return found


def answers(graph: nx.Graph, agent: int, root: int) -> Routes:
    """One agent's part alone, see `Answering`.

    Raises:
        ValueError: as `Answering`.

    Example:
        >>> part = answers(nx.path_graph(4), 1, root=0)
        >>> sorted(part.awaited), sorted(part.uses), part.next_hops
        ([1, 2, 3], [1], {2: (2,), 3: (2,)})
    """
    return Answering(graph, root).part(agent)
