"""Routes: for one agent, which messages it sends on, to whom, and which it must have handled before it goes on.

Theory of operation. A message of `origin` is meant for an audience. With relay routing it floods along the BFS tree of
its origin, pruned to the union of the paths to the audience, so each node on it receives it exactly once and passes it
to its children. A node may lie on such a path without belonging to the audience (ratios are for later agents only); it relays
without using. With direct routing the origin sends to each of its audience itself. An agent must not go on to the next
step before it has handled, used or relayed, every message that comes its way: `awaited` says which, and that rule is
what keeps a relay from starving those behind it.

Over each link the messages of one kind and moment leave in one order, the same in every run however the processes are
scheduled: by how far they have come, then by origin (or in a given order of origins). A link's queue and its random
numbers depend on that order. Nobody can wait in a circle for it: a message waits only for such as have come less far, or
as far on the same link.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import networkx as nx

from topology.graph.neighbourhood import distances, path, relay_children


@dataclass(frozen=True, slots=True, kw_only=True)
class Routes:
    """One agent's part in one kind of message.

    Attributes:
        awaited: Origins whose message comes to this agent, to be used or relayed.
        uses: Those of them that are meant for it.
        next_hops: Per origin, itself included, whom to send the message on to; ascending.
        hops_left: Per origin, the hop budget of the message as it arrives here (for the agent itself: as if it had
            arrived).
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


NOBODY = Routes(awaited=frozenset(), uses=frozenset(), next_hops={}, hops_left={}, addressed=frozenset(), outgoing=(), via={})


def routes(
    graph: nx.Graph,
    agent: int,
    audiences: Sequence[Sequence[int]],
    *,
    direct: bool,
    order: Sequence[int] | None = None,
) -> Routes:
    """The part that `agent` has in bringing every origin's message to its audience.

    Args:
        graph: The topology.
        agent: Whose part.
        audiences: Per origin, the agents that need its message, without itself.
        direct: Overlay sockets instead of relaying.
        order: Origins in the order in which their messages come into being, where that is not all at once.

    Example:
        >>> line = nx.path_graph(3)
        >>> part = routes(line, 1, [(1, 2), (), ()], direct=False)
        >>> sorted(part.awaited), part.next_hops
        ([0], {0: (2,)})
    """
    awaited: set[int] = set()
    uses: set[int] = set()
    next_hops: dict[int, tuple[int, ...]] = {}
    hops_left: dict[int, int] = {}
    addressed: set[tuple[int, int]] = set()
    outgoing: dict[int, list[tuple[int, int]]] = {}
    via: dict[int, frozenset[int]] = {}
    for origin, audience in enumerate(audiences):
        if not audience:
            continue
        members = frozenset(audience)
        if direct:
            children = {origin: tuple(sorted(members))}
            depth, radius = (0 if agent == origin else 1), 1
        else:
            children = relay_children(graph, origin, audience)
            hops = distances(graph, origin)
            depth, radius = hops[agent], max(hops[member] for member in members)
        mine = children.get(agent, ())
        if mine:
            next_hops[origin] = mine
            for child in mine:
                outgoing.setdefault(child, []).append((depth if order is None else order.index(origin), origin))
            addressed.update((origin, child) for child in mine if child in members)
        if agent in members:
            uses.add(origin)
        if agent != origin and (mine or agent in members):
            awaited.add(origin)
            via[origin] = frozenset((origin,)) if direct else frozenset(path(graph, origin, agent)[:-1])
        hops_left[origin] = radius - depth
    return Routes(
        awaited=frozenset(awaited),
        uses=frozenset(uses),
        next_hops=next_hops,
        hops_left=hops_left,
        addressed=frozenset(addressed),
        outgoing=tuple((to, tuple(origin for _, origin in sorted(outgoing[to]))) for to in sorted(outgoing)),
        via=via,
    )


def answers(graph: nx.Graph, agent: int, root: int) -> Routes:
    """The part that `agent` has in bringing each node an answer of its own from `root`, along the tree of `root`.

    Here the origin of a message is the node that it is for.

    Example:
        >>> part = answers(nx.path_graph(4), 1, root=0)
        >>> sorted(part.awaited), sorted(part.uses), part.next_hops
        ([1, 2, 3], [1], {2: (2,), 3: (2,)})
    """
    awaited: set[int] = set()
    next_hops: dict[int, tuple[int, ...]] = {}
    hops_left: dict[int, int] = {}
    addressed: set[tuple[int, int]] = set()
    outgoing: dict[int, list[int]] = {}
    via: dict[int, frozenset[int]] = {}
    for addressee in sorted(set(graph) - {root}):
        way = path(graph, root, addressee)
        if agent not in way:
            continue
        place = way.index(agent)
        hops_left[addressee] = len(way) - 1 - place
        if agent != root:
            awaited.add(addressee)
            via[addressee] = frozenset(way[:place])
        if agent != addressee:
            child = way[place + 1]
            next_hops[addressee] = (child,)
            outgoing.setdefault(child, []).append(addressee)
            if child == addressee:
                addressed.add((addressee, child))
    return Routes(
        awaited=frozenset(awaited),
        uses=frozenset({agent} & awaited),
        next_hops=next_hops,
        hops_left=hops_left,
        addressed=frozenset(addressed),
        outgoing=tuple((to, tuple(outgoing[to])) for to in sorted(outgoing)),
        via=via,
    )
