"""The peer plane as one node uses it: messages in and out, routed, numbered, delayed, lost and booked.

Theory of operation. `send` puts one message on one outgoing socket and books it on every link of the graph that it
crosses: with relay routing that is the edge itself, with direct routing (an overlay) each edge of the shortest path. On
links with limits the sender also works out what becomes of it: the link model of each hop says per copy when it arrives,
or why not. That verdict travels with the frame as its delivery, so the frame itself always travels, and at once. Rows of
copies that do not arrive are blanked: what is lost is not merely labelled so. Scores alone are not, since agents would
otherwise find different orders of updates.

Application bytes are booked on the link where they reach an addressee. `receive` decodes and checks which agents may send; what
the node then accepts is booked as delivered (`taken`). Anything malformed is refused, counted and forgotten: a bad frame
harms no other agent.

With direct routing every overlay connection has the links of its path to itself: connections do not queue behind each
other at the nodes between (docs/explanation/limitations.md).
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from scenarios.kinds import Kind
from topology.graph.neighbourhood import path
from topology.link.model import Fate, LinkModel
from topology.snapshot import State
from topology.wire.codec import DType
from topology.wire.frame import (
    KIND_NAMES,
    VERSION,
    Delivery,
    Header,
    Message,
    ProtocolError,
    decode,
    encode_delivery,
    encode_header,
    framed,
)
from topology.wire.ledger import REASONS, Ledger, Row, wire_bytes
from topology.wire.refusals import Refusals
from topology.wire.sockets import Links

Hop = tuple[str, str]
_LATE = REASONS.index("late")


@dataclass(frozen=True, slots=True)
class LinkPath:
    """The way to one node that this one opens a socket to.

    Attributes:
        hops: The links of the graph on the way, by name.
        models: The model of each, or nothing if none of them has limits.
    """

    hops: tuple[Hop, ...]
    models: tuple[LinkModel, ...]


def link_paths(
    graph: nx.Graph,
    agent: int,
    sends_to: Sequence[int],
    *,
    direct: bool,
    model: Callable[[int, int, tuple[int, ...]], LinkModel],
    critic: int | None = None,
) -> dict[int, LinkPath]:
    """The link paths from `agent` to every node that it speaks to.

    Args:
        graph: The topology.
        agent: From where.
        sends_to: Where to.
        direct: Whether a socket crosses several links.
        model: Makes the model of the link (src, dst), given the name of its random stream.
        critic: The central critic's node, if there is one.
    """
    found = {}
    for to in sends_to:
        way = path(graph, agent, to) if direct else (agent, to)
        models = tuple(model(a, b, (agent, to, a, b) if direct else (a, b)) for a, b in pairwise(way))
        found[to] = LinkPath(_names(way, critic), () if all(each.is_ideal for each in models) else models)
    return found


class PeerPlane:
    """One node's view of the peer plane.

    Args:
        agent: This node's id.
        graph: The topology.
        links: Carrier of the frames.
        receives_from: Agents whose frames this node accepts: its neighbours (relay) or its ball (direct).
        direct: Whether sockets form an overlay, so that a message crosses several links of the graph.
        link_paths: The way to every node that this one speaks to.
        reliable: Kinds that are retransmitted when they are lost.
        copies: E.
        frame_extra: Bytes that encryption adds to each frame.
        critic: The central critic's node, if there is one.
        central: Kinds of the central plane, which is booked apart and shares the links.
    """

    def __init__(
        self,
        agent: int,
        graph: nx.Graph,
        links: Links,
        *,
        receives_from: Sequence[int],
        direct: bool,
        link_paths: Mapping[int, LinkPath],
        reliable: frozenset[Kind] = frozenset(),
        copies: int,
        frame_extra: int = 0,
        critic: int | None = None,
        central: Collection[Kind] = (),
    ) -> None:
        self._agent = agent
        self._graph = graph
        self._links = links
        self._receives_from = frozenset(receives_from)
        self._direct = direct
        self._link_paths = link_paths
        self._reliable = reliable
        self._copies = copies
        self._extra = frame_extra
        self._news = np.zeros(copies, np.bool_)  # no copy is null
        self._critic = critic
        self._peer_ledger = Ledger("peer")
        self._central_ledger = Ledger("central")
        self._central = frozenset(central)
        self._last_hop: dict[int, Hop] = {}
        self._seq: dict[int, int] = {}
        self.refused = Refusals()

    def send(
        self,
        kind: Kind,
        body: bytes,
        *,
        dtype: DType,
        to: int,
        origin: int,
        round_: int,
        step: int,
        hops_left: int,
        time: float,
        addressed: bool,
        copy_bytes: int | NDArray[np.int64],
        row_copy: NDArray[np.intp] | None = None,
        delivery: Delivery | None = None,
    ) -> None:
        """Send one message over one outgoing socket.

        Args:
            kind: What it says.
            body: Its numbers, all copies, encoded row by row.
            dtype: How they are encoded.
            to: The node at the other end.
            origin: Whose data it is; another agent's when relaying.
            round_: Round it belongs to.
            step: Step within the round.
            hops_left: Further edges it may cross after this one.
            time: Virtual time of what it tells, in seconds; it leaves then, unless `delivery` say otherwise.
            addressed: Whether `to` is meant to use it, not only to pass it on.
            copy_bytes: Bytes of each copy's part of the body.
            row_copy: The copy that each row belongs to; by default row e is copy e.
            delivery: When each copy leaves (inf: it is not here to be sent), and which say only that nothing has changed.

        Raises:
            PeerLostError: the peer took nothing before the deadline.
        """
        seq = self._seq.get(to, 0)
        self._seq[to] = seq + 1
        header = encode_header(Header(VERSION, int(kind), int(dtype), self._agent, origin, round_, step, hops_left, seq, time))
        link_path = self._link_paths[to]
        name = KIND_NAMES[kind]
        ledger = self._books(kind)
        if delivery is None and not link_path.models:
            self._links.send(to, (header, body))
            if isinstance(copy_bytes, int):
                on_wire = wire_bytes(len(header), copy_bytes, copies=self._copies, frame_extra=self._extra)
            else:
                on_wire = sum(wire_bytes(len(header), int(size), frame_extra=self._extra) for size in copy_bytes)
            for src, dst in link_path.hops[:-1]:
                ledger.sent(round_, src, dst, name, self._copies, 0, on_wire)
                ledger.delivered(round_, src, dst, name, self._copies)
            payload = len(body) if addressed else 0
            ledger.sent(round_, *link_path.hops[-1], name, self._copies, payload, on_wire)
            return
        if delivery is None:
            delivery = Delivery(np.full(self._copies, time), self._news)
        # one size for all copies is the usual case, and the fast one
        sizes = np.where(delivery.null, 0, copy_bytes) if np.count_nonzero(delivery.null) else copy_bytes
        arrive = self._travel(link_path, kind, round_, len(header), sizes, delivery, addressed=addressed)
        silent = delivery.null | (arrive == np.inf)
        if np.count_nonzero(silent) and kind is not Kind.SCORE:  # all must find the same order, whatever links do (decision 0012)
            body = _blanked(body, silent if row_copy is None else silent[row_copy])
        self._links.send(to, (header, body, encode_delivery(Delivery(arrive, delivery.null))))

    def receive(self, timeout_s: float) -> Message | None:
        """The next message, or None if none came within `timeout_s` or what came was refused."""  # noqa: DOC501  (caught inside)
        frames = self._links.receive(timeout_s)
        if frames is None:
            return None
        try:
            message = decode(frames)
            if self._links.sender not in (None, message.header.sender):
                raise ProtocolError(f"message of {self._links.sender} that claims to be from {message.header.sender}")
            if message.header.sender not in self._receives_from:
                raise ProtocolError(f"message from {message.header.sender}, which may not send to agent {self._agent}")
        except ProtocolError as error:
            self.refused.add(str(error))
            return None
        return message

    def taken(self, header: Header, copies: int) -> None:
        """Book that `copies` copies of a received message have been delivered."""
        self._books(header.kind).delivered(header.round, *self._hop_from(header.sender), KIND_NAMES[header.kind], copies)

    def late(self, header: Header, copies: int) -> None:
        """Book that `copies` copies of a received message came too late to be accepted (wall clock, or a death on its way)."""
        self._books(header.kind).dropped(header.round, *self._hop_from(header.sender), KIND_NAMES[header.kind], _LATE, copies)

    def in_flight(self, sender: int, round_: int, kind: Kind, copies: int) -> None:
        """Book that copies which have been received will only arrive after the end of the run."""
        self._peer_ledger.in_flight(round_, *self._hop_from(sender), KIND_NAMES[kind], copies)

    def refuse(self, reason: str) -> None:
        """Count a message that the protocol will not have."""
        self.refused.add(reason)

    def forget(self, before_s: float) -> None:
        """Nothing will be sent that was there before a virtual time."""
        for link_path in self._link_paths.values():
            for model in link_path.models:
                model.forget(before_s)

    def drain(self) -> list[Row]:
        """The ledger rows since the last call."""
        return [*self._peer_ledger.drain(), *self._central_ledger.drain()]

    def state(self) -> State:
        """What later messages depend on: numbers of messages, and the links; its books are empty once drained."""
        return {
            "seq": sorted(self._seq.items()),
            "link_paths": [[model.state() for model in link_path.models] for _, link_path in sorted(self._link_paths.items())],
        }

    def restore(self, state: State) -> None:
        """Take the state of a plane made alike."""
        self._seq = dict(state["seq"])
        for (_, link_path), models in zip(sorted(self._link_paths.items()), state["link_paths"], strict=True):
            for model, own in zip(link_path.models, models, strict=True):
                model.restore(own)

    def close(self) -> None:
        """Give the links up."""
        self._links.close()

    def _travel(
        self,
        link_path: LinkPath,
        kind: Kind,
        round_: int,
        header_bytes: int,
        sizes: int | NDArray[np.int64],
        delivery: Delivery,
        *,
        addressed: bool,
    ) -> NDArray[np.float64]:
        """When each copy arrives at the end of a link path, having booked it on every hop."""
        name = KIND_NAMES[kind]
        ledger = self._books(kind)
        leave, null = delivery
        framing = framed(header_bytes + self._extra)
        wire = framing + (framed(sizes + self._extra) if isinstance(sizes, int) else _framed(sizes + self._extra))
        there, present = _there(leave)
        for place, (src, dst) in enumerate(link_path.hops):
            offered = present
            if not link_path.models:
                arrive, sent, resent = leave, _total(wire, there, present), 0
            else:
                arrive, fate, sent, resent = link_path.models[place].carry(wire, leave, reliable=kind in self._reliable)
                there, present = _there(arrive)
                if present < offered:
                    counts = np.bincount(fate, minlength=Fate.GAVE_UP + 1).tolist()
                    offered = self._copies - counts[Fate.NOT_SENT]
                    for reason, lost in enumerate(counts[Fate.LOSS :]):
                        if lost:
                            ledger.dropped(round_, src, dst, name, reason, lost)
            last = place == len(link_path.hops) - 1
            payload = _total(sizes, there, present) if last and addressed else 0
            if np.count_nonzero(null):
                ledger.nulls(round_, src, dst, name, int(np.count_nonzero(null & (leave < np.inf))))
            if offered:
                ledger.sent(round_, src, dst, name, offered, payload, sent, resent)
            if not last and present:
                ledger.delivered(round_, src, dst, name, present)
            leave = arrive
        return leave

    def _books(self, kind: int) -> Ledger:
        return self._central_ledger if kind in self._central else self._peer_ledger

    def _hop_from(self, sender: int) -> Hop:
        hop = self._last_hop.get(sender)
        if hop is None:
            way = path(self._graph, sender, self._agent) if self._direct else (sender, self._agent)
            hop = self._last_hop[sender] = _names(way, self._critic)[-1]
        return hop


def _names(way: Sequence[int], critic: int | None) -> tuple[Hop, ...]:
    return tuple(pairwise("critic" if node == critic else str(node) for node in way))


def _there(times: NDArray[np.float64]) -> tuple[NDArray[np.bool_], int]:
    """In which copies a message is there at all, and in how many."""
    there = times < np.inf
    return there, int(np.count_nonzero(there))


def _total(sizes: int | NDArray[np.int64], there: NDArray[np.bool_], present: int) -> int:
    return sizes * present if isinstance(sizes, int) else int(sizes[there].sum())


def _framed(sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """`framed`, for many sizes at once."""
    return sizes + np.where(sizes <= 255, 2, 9)


def _blanked(body: bytes, rows: NDArray[np.bool_]) -> bytes:
    """A body with the given rows set to zero; nothing at all if that would be every row."""
    if int(np.count_nonzero(rows)) == len(rows):
        return b""
    table = np.frombuffer(body, np.uint8).reshape(len(rows), -1).copy()
    table[rows] = 0
    return table.tobytes()
