"""The peer plane as one node uses it: messages in and out, routed, numbered and booked.

Theory of operation. `send` puts one message on one outgoing socket and books it on every link of the graph that it
crosses: with relay routing that is the edge itself, with direct routing (an overlay) each edge of the shortest path.
Its application bytes are booked on the link where they reach an addressee. `receive` decodes, checks who may speak, and
books the arrival on the same links. Anything malformed is refused, counted and forgotten: a bad frame harms nobody.
"""

from collections.abc import Sequence
from itertools import pairwise

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from topology.ledger import Ledger, Row, wire_bytes
from topology.links import Links
from topology.neighbourhood import path
from topology.wire import FLOAT32, KIND_NAMES, VERSION, Header, Kind, Message, ProtocolError, decode, encode_header


class PeerPlane:
    """One node's view of the peer plane.

    Args:
        agent: This node's id.
        graph: The topology.
        links: Carrier of the frames.
        hears: Agents whose frames this node accepts: its neighbours (relay) or its ball (direct).
        direct: Whether sockets form an overlay, so that a message crosses several links of the graph.
        copies: E.
    """

    def __init__(
        self, agent: int, graph: "nx.Graph[int]", links: Links, *, hears: Sequence[int], direct: bool, copies: int
    ) -> None:
        self._agent = agent
        self._graph = graph
        self._links = links
        self._hears = frozenset(hears)
        self._direct = direct
        self._copies = copies
        self._ledger = Ledger("peer")
        self._hops: dict[tuple[int, int], tuple[tuple[str, str], ...]] = {}
        self._seq: dict[int, int] = {}
        self.refused: list[str] = []

    def send(
        self,
        kind: Kind,
        payload: NDArray[np.float32] | bytes,
        *,
        to: int,
        origin: int,
        round_: int,
        step: int,
        hops_left: int,
        send_time: float,
        addressed: bool,
        copy_bytes: Sequence[int] | None = None,
    ) -> None:
        """Send one message over one outgoing socket.

        Args:
            kind: What it says.
            payload: float32 numbers of all copies.
            to: The node at the other end.
            origin: Whose data it is; another agent's when relaying.
            round_: Round it belongs to.
            step: Step within the round.
            hops_left: Further edges it may cross after this one.
            send_time: Virtual time, in seconds.
            addressed: Whether `to` is meant to use it, not only to pass it on.
            copy_bytes: Bytes per copy where copies differ; by default the payload is divided evenly.

        Raises:
            PeerLostError: the peer took nothing before the deadline.
        """
        seq = self._seq.get(to, 0)
        self._seq[to] = seq + 1
        header = encode_header(Header(VERSION, int(kind), FLOAT32, self._agent, origin, round_, step, hops_left, seq, send_time))
        body = payload if isinstance(payload, bytes) else payload.tobytes()
        self._links.send(to, (header, body))
        if copy_bytes is None:
            on_wire = wire_bytes(len(header), len(body) // self._copies, copies=self._copies)
        else:
            on_wire = sum(wire_bytes(len(header), size) for size in copy_bytes)
        hops = self._crossed(self._agent, to)
        for src, dst in hops[:-1]:
            self._ledger.sent(round_, src, dst, KIND_NAMES[kind], 0, on_wire)
        self._ledger.sent(round_, *hops[-1], KIND_NAMES[kind], len(body) if addressed else 0, on_wire)

    def receive(self, timeout_s: float) -> Message | None:
        """The next acceptable message, or None if none came within `timeout_s`."""  # noqa: DOC501  (caught inside)
        while True:
            frames = self._links.receive(timeout_s)
            if frames is None:
                return None
            try:
                message = decode(frames)
                if self._links.sender not in (None, message.header.sender):
                    raise ProtocolError(f"message of {self._links.sender} that claims to be from {message.header.sender}")
                if message.header.sender not in self._hears:
                    raise ProtocolError(f"message from {message.header.sender}, whom agent {self._agent} may not hear")
            except ProtocolError as error:
                self.refused.append(str(error))
                continue
            return message

    def taken(self, header: Header) -> None:
        """Book a received message as delivered."""
        for src, dst in self._crossed(header.sender, self._agent):
            self._ledger.delivered(header.round, src, dst, KIND_NAMES[header.kind])

    def refuse(self, header: Header, reason: str) -> None:
        """Book a received message as dropped, and keep the reason."""
        self.refused.append(reason)
        for src, dst in self._crossed(header.sender, self._agent):
            self._ledger.dropped(header.round, src, dst, KIND_NAMES[header.kind])

    def drain(self) -> list[Row]:
        """The ledger rows since the last call."""
        return self._ledger.drain()

    def close(self) -> None:
        """Give the links up."""
        self._links.close()

    def _crossed(self, src: int, dst: int) -> tuple[tuple[str, str], ...]:
        hops = self._hops.get((src, dst))
        if hops is None:
            nodes = path(self._graph, src, dst) if self._direct else (src, dst)
            hops = tuple((str(a), str(b)) for a, b in pairwise(nodes))
            self._hops[src, dst] = hops
        return hops
