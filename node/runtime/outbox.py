"""What one node puts on its links: its own messages, and those of others that it passes on as they came."""

import numpy as np

from node.protocol.machine import Send
from node.runtime.clock import Clock
from node.runtime.exchange import Exchange
from node.runtime.mailbox import Floats, Mailbox
from scenarios.kinds import Kind
from topology.finite import require_finite
from topology.planes.peer import PeerPlane
from topology.wire.codec import encode, row_bytes
from topology.wire.frame import Delivery


class Outbox:
    """The messages that leave one node for its peers.

    Args:
        agent: This agent.
        copies: E.
        exchange: What its own messages are made of.
        mailbox: What peers have sent, to be passed on.
        clock: Its clock.
        peers: Its end of the peer plane.
    """

    def __init__(self, agent: int, copies: int, *, exchange: Exchange, mailbox: Mailbox, clock: Clock, peers: PeerPlane) -> None:
        self._agent = agent
        self._copies = copies
        self._exchange = exchange
        self._mailbox = mailbox
        self._clock = clock
        self._peers = peers
        self._own: tuple[tuple[Kind, int, int], Floats, bytes] | None = None  # the last own message: it goes to many

    def send(self, effect: Send) -> None:
        """Send what the protocol says.

        Raises:
            NotFiniteError: what this agent itself has to send is not finite.
            PeerLostError: the peer took nothing before the deadline.
        """
        kind, origin = effect.kind, effect.origin
        dtype = self._mailbox.forms[kind].dtype
        if origin == self._agent:
            data, body = self._written(kind, effect.round, effect.step)
            null, sent_at = self._exchange.null if kind is Kind.STATE else None, self._clock.now
            delivery = None if null is None else Delivery(np.full(self._copies, sent_at), null)
        else:
            received = self._mailbox.get(kind, origin, effect.round, effect.step)
            assert received is not None, "the protocol passes on what has arrived"
            data, body, sent_at, delivery = received.data, received.body, received.time, received.delivery
            if delivery is not None and not body:
                body = bytes(len(data) * row_bytes(data.shape[1], dtype))
        size = row_bytes(data.shape[1], dtype)
        row_copy = self._mailbox.row_copies(kind, effect.step)
        self._peers.send(
            kind,
            body,
            dtype=dtype,
            to=effect.to,
            origin=origin,
            round_=effect.round,
            step=effect.step,
            hops_left=effect.hops_left,
            time=sent_at,
            addressed=effect.addressed,
            copy_bytes=size if row_copy is None else np.bincount(row_copy, minlength=self._copies) * size,
            row_copy=row_copy,
            delivery=delivery,
        )

    def _written(self, kind: Kind, round_: int, step: int) -> tuple[Floats, bytes]:
        """An own message as numbers and as bytes."""
        if self._own is None or self._own[0] != (kind, round_, step):
            data = self._exchange.own(kind, round_, step)
            if kind is not Kind.STATE:  # which is what the world has shown; the learner has no part in it
                require_finite(data, f"its {kind.name}")
            self._own = (kind, round_, step), data, encode(data, self._mailbox.forms[kind].dtype)
        return self._own[1], self._own[2]
