"""Links: how a frame gets from one node to another. One interface, two carriers.

Theory of operation. A node has one inbox and one outbox per node it may send to. `send` hands a multipart to one
outbox, `receive` takes the next multipart from the inbox. Per directed link the order is kept and nothing is lost or
doubled; between links there is no order. A full outbox blocks until its deadline and then raises `PeerLostError`:
nothing is dropped silently.

`ZmqLinks` carries frames between processes (PUSH to PULL, one connection per directed link), `MemoryLinks` within one
process; `RouterLinks` and `DealerLinks` join the world to its nodes. All meet the same contract, sentence by sentence
(tests/topology/wire/test_sockets.py).

With keys (`topology.wire.keys`, tcp only) every connection is encrypted and authenticated: an inbox admits those whom its node
may receive from and no others, and `sender` is the role of the connection's key.

Depths. A link that holds more unread messages than lockstep can leave there leads to a process that does not read: it is
full, and its sender gets an error when the deadline passes. So every socket has a depth of its own, and none is left
to ZeroMQ's thousand.

What may be changed freely: the socket types. What must not: the order per link, and that `receive` never blocks beyond
its timeout.
"""

import math
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import zmq

from topology.process import LONG_TURN_NS, SHORT_TURN_NS, SLICE_S, STOP, StopRequested, heed_stop, take_turns
from topology.wire.frame import frame_limit
from topology.wire.keys import WORLD_ROLE, Keyring, role_of

Frames = Sequence[bytes]
_MORE = int(zmq.SNDMORE)
_PREFIX = role_of(0).removesuffix("0").encode()
STRANGER = -1  # a sender that gave itself no node's name, or another's
WORLD_DEPTH = 16  # messages between world and node: lockstep leaves two unread there, a round's end a third
Socket = zmq.Socket[bytes]
Context = zmq.Context[Socket]


class PeerLostError(Exception):
    """A peer did not take or send a message before its deadline; the text names it."""


@runtime_checkable
class Links(Protocol):
    """A process's access to its links.

    Attributes:
        sender: The node that put the multipart received last on its link, where the carrier knows; None where it does not.
    """

    sender: int | None

    def send(self, to: int, frames: Frames) -> None:
        """Put a multipart on the link to node `to`; raises PeerLostError if the link stays full past the deadline."""
        ...

    def receive(self, timeout_s: float) -> list[bytes] | None:
        """The next multipart from any link, or None if none came within `timeout_s` seconds (0: do not wait)."""
        ...

    def close(self) -> None:
        """Give the links up; frames already sent still arrive."""
        ...


class ZmqLinks:
    """Links over ZeroMQ sockets, ipc or tcp.

    Args:
        context: The process's ZeroMQ context.
        bind: Where the inbox listens, e.g. `ipc:///run/node-3` or `tcp://127.0.0.1:*`.
        deadline_s: How long a full outbox may block.
        depth: Frames that a link may hold unread. Lockstep bounds them by two steps' worth of every origin.
        keys: This node's keys; None: connections are neither encrypted nor authenticated.
        receives_from: Agents whose connections are admitted, where there are keys.
        largest: Bytes of the largest buffer in a message that comes here; a connection that sends a larger frame is cut.

    Attributes:
        gate: What stands before the inbox, where there are keys.
    """

    def __init__(
        self,
        context: Context,
        bind: str,
        *,
        deadline_s: float,
        depth: int,
        keys: Keyring | None = None,
        receives_from: Collection[int] = (),
        largest: int = 0,
    ) -> None:
        self._context = context
        self._keys = keys
        self._deadline_s = deadline_s
        self._depth = depth
        self._inbox = context.socket(zmq.PULL)
        self._inbox.setsockopt(zmq.RCVHWM, depth)
        self._inbox.setsockopt(zmq.MAXMSGSIZE, frame_limit(largest))
        self._inbox.setsockopt(zmq.LINGER, 0)
        self.gate = None if keys is None else keys.guard(context, self._inbox, [role_of(agent) for agent in receives_from])
        self._inbox.bind(bind)
        self.endpoint: str = self._inbox.getsockopt_string(zmq.LAST_ENDPOINT)
        self._received = Receiver(self._inbox) if keys is None else KeyedReceiver(self._inbox)
        self.sender: int | None = None
        self._outboxes: dict[int, Sender] = {}

    @property
    def socket(self) -> zmq.Socket[bytes]:
        """What a poller of several nodes looks at: the inbox."""
        return self._inbox

    def connect(self, endpoints: Mapping[int, str]) -> None:
        """Open one outbox per node of `endpoints`."""
        for to, endpoint in sorted(endpoints.items()):
            socket = self._context.socket(zmq.PUSH)
            socket.setsockopt(zmq.SNDHWM, self._depth)
            socket.setsockopt(zmq.LINGER, 2000)  # the last frames of a run still leave; ending takes at most this long
            if self._keys is not None:
                self._keys.dial(socket, role_of(to))
            socket.connect(endpoint)
            self._outboxes[to] = Sender(socket, self._deadline_s)

    def send(self, to: int, frames: Frames) -> None:
        """Put a multipart on the link to node `to`.

        Raises:
            PeerLostError: the link stayed full past the deadline.
        """
        try:
            self._outboxes[to](frames)
        except zmq.Again:
            raise PeerLostError(f"agent {to} took no message for {self._deadline_s:g} s") from None

    def receive(self, timeout_s: float) -> list[bytes] | None:
        """See `Links.receive`."""
        frames = self._received(timeout_s)
        if self._keys is not None and frames is not None:
            self.sender = _agent(self._received.role)
        return frames

    def close(self) -> None:
        """See `Links.close`."""
        for outbox in self._outboxes.values():
            outbox.socket.close()
        self._inbox.close()


class RouterLinks:
    """The world's links: one socket that every node dials, each known by the name it gives itself, which its key must bear.

    Args:
        context: The process's ZeroMQ context.
        bind: Where to listen.
        deadline_s: How long a node may take nothing.
        keys: The world's keys; None: connections are neither encrypted nor authenticated.
        largest: As of `ZmqLinks`.

    Attributes:
        gate: What stands before the socket, where there are keys.
    """

    def __init__(self, context: Context, bind: str, *, deadline_s: float, keys: Keyring | None = None, largest: int = 0) -> None:
        self._socket = context.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.ROUTER_MANDATORY, 1)  # what cannot be sent is an error, not silence
        self._socket.setsockopt(zmq.SNDHWM, WORLD_DEPTH)
        self._socket.setsockopt(zmq.RCVHWM, WORLD_DEPTH)
        self._socket.setsockopt(zmq.MAXMSGSIZE, frame_limit(largest))
        self._socket.setsockopt(zmq.LINGER, 2000)
        self._sent = Sender(self._socket, deadline_s)
        self._keys = keys
        self.gate = None if keys is None else keys.guard(context, self._socket, keys.nodes())
        self._socket.bind(bind)
        self.endpoint: str = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
        self._received = Receiver(self._socket) if keys is None else KeyedReceiver(self._socket)
        self.sender: int | None = None

    def send(self, to: int, frames: Frames) -> None:
        """Put a multipart on the link to node `to`.

        Raises:
            PeerLostError: the node is gone or takes nothing.
        """
        try:
            self._sent((_name(to), *frames))
        except zmq.ZMQError as error:
            raise PeerLostError(f"agent {to} cannot be reached: {error}") from None

    def receive(self, timeout_s: float) -> list[bytes] | None:
        """See `Links.receive`."""
        received = self._received(timeout_s)
        if received is None:
            return None
        name, *frames = received
        is_own = self._keys is None or name == self._received.role
        self.sender = _agent(name) if is_own else STRANGER
        return frames

    def close(self) -> None:
        """See `Links.close`."""
        self._socket.close()


class DealerLinks:
    """A node's one link to the world.

    Args:
        context: The process's ZeroMQ context.
        agent: This node's id, from which it takes its name.
        connect: The world's address.
        deadline_s: How long the world may take nothing.
        keys: This node's keys; None: the connection is neither encrypted nor authenticated.
        largest: As of `ZmqLinks`.
    """

    def __init__(
        self, context: Context, agent: int, connect: str, *, deadline_s: float, keys: Keyring | None = None, largest: int = 0
    ) -> None:
        self._deadline_s = deadline_s
        self._socket = context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.ROUTING_ID, _name(agent))
        self._socket.setsockopt(zmq.SNDHWM, WORLD_DEPTH)
        self._socket.setsockopt(zmq.RCVHWM, WORLD_DEPTH)
        self._socket.setsockopt(zmq.MAXMSGSIZE, frame_limit(largest))
        self._socket.setsockopt(zmq.LINGER, 2000)
        self._sent = Sender(self._socket, deadline_s)
        if keys is not None:
            keys.dial(self._socket, WORLD_ROLE)
        self._socket.connect(connect)
        self._received = Receiver(self._socket)
        self.sender: int | None = None

    @property
    def socket(self) -> zmq.Socket[bytes]:
        """What a poller of several nodes looks at."""
        return self._socket

    def send(self, to: int, frames: Frames) -> None:
        """Put a multipart on the link to the world; there is no other process at the other end.

        Raises:
            PeerLostError: the link stayed full past the deadline.
        """
        try:
            self._sent(frames)
        except zmq.Again:
            raise PeerLostError(f"the world took no message for {self._deadline_s:g} s") from None

    def receive(self, timeout_s: float) -> list[bytes] | None:
        """See `Links.receive`."""
        return self._received(timeout_s)

    def close(self) -> None:
        """See `Links.close`."""
        self._socket.close()


class MemoryLinks:
    """Links within one process: `MemoryLinks.mesh(n)` gives n nodes that all reach each other."""

    def __init__(self, agent: int, inboxes: dict[int, deque[tuple[int, list[bytes]]]]) -> None:
        self._agent = agent
        self._inbox = inboxes[agent]
        self._inboxes = inboxes
        self.sender: int | None = None

    @classmethod
    def mesh(cls, n: int) -> "list[MemoryLinks]":
        """The links of n nodes, by id."""
        return list(cls.among(range(n)).values())

    @classmethod
    def among(cls, agents: Collection[int]) -> "dict[int, MemoryLinks]":
        """The links of some nodes that all reach each other, by id."""
        inboxes: dict[int, deque[tuple[int, list[bytes]]]] = {agent: deque() for agent in agents}
        return {agent: cls(agent, inboxes) for agent in agents}

    @property
    def holds_any(self) -> bool:
        """Whether there is something to receive."""
        return bool(self._inbox)

    def send(self, to: int, frames: Frames) -> None:
        """See `Links.send`."""
        self._inboxes[to].append((self._agent, [bytes(frame) for frame in frames]))

    def receive(self, timeout_s: float) -> list[bytes] | None:
        """See `Links.receive`; never waits, since no other role could run meanwhile."""
        if not self._inbox:
            return None
        self.sender, frames = self._inbox.popleft()
        return frames

    def close(self) -> None:
        """See `Links.close`; what others still send here is dropped."""
        self._inboxes[self._agent] = deque(maxlen=0)


class PackLinks:
    """Links of a node in a pack: through memory to the nodes of its own process, over ZeroMQ to all others.

    Args:
        near: Its links to the nodes of its process.
        far: Its links to the others.
        mates: The nodes of its process.
    """

    def __init__(self, near: MemoryLinks, far: ZmqLinks, mates: Collection[int]) -> None:
        self.near = near
        self.far = far
        self._mates = frozenset(mates)
        self.sender: int | None = None

    def send(self, to: int, frames: Frames) -> None:
        """See `Links.send`."""
        (self.near if to in self._mates else self.far).send(to, frames)

    def receive(self, timeout_s: float) -> list[bytes] | None:
        """See `Links.receive`."""
        frames = self.near.receive(0.0)
        if frames is not None:
            self.sender = self.near.sender
            return frames
        frames = self.far.receive(timeout_s)
        self.sender = self.far.sender
        return frames

    def close(self) -> None:
        """See `Links.close`."""
        self.near.close()
        self.far.close()


class Sender:
    """Sending on one socket with a deadline, in slices, so that a request to stop is noticed.

    Args:
        socket: The socket.
        deadline_s: How long it may take nothing.
    """

    __slots__ = ("_slices", "socket")

    def __init__(self, socket: zmq.Socket[bytes], deadline_s: float) -> None:
        self.socket = socket
        self._slices = max(1, math.ceil(deadline_s / SLICE_S))
        socket.setsockopt(zmq.SNDTIMEO, math.ceil(1000 * deadline_s / self._slices))

    def __call__(self, frames: Frames) -> None:
        """Send a multipart as `send_multipart` does, but without its checks, which cost more than the sending.

        Raises:
            Again: the deadline has passed. Another zmq.ZMQError: the socket's own. In either case no frame was taken.
            StopRequested: the process was asked to stop while the socket took nothing.
        """
        socket, left, last = self.socket, self._slices, len(frames) - 1
        while True:
            try:
                for place, frame in enumerate(frames):
                    socket.send(frame, 0 if place == last else _MORE)
                return
            except zmq.Again:
                left -= 1
                if not left:
                    raise
            heed_stop()


class Receiver:
    """Receiving from one socket with a timeout kept on the socket: a blocking receive is cheaper than polling first.

    A request to stop that comes while it waits is noticed at the next call; so callers wait for a slice (`SLICE_S`) at a time.
    """

    __slots__ = ("_socket", "_timeout_ms", "role")

    def __init__(self, socket: zmq.Socket[bytes]) -> None:
        self._socket = socket
        self._timeout_ms = -1
        self.role = b""  # by whose key the last multipart came, where there are keys

    def __call__(self, timeout_s: float) -> list[bytes] | None:
        """The next multipart, or None if none came within `timeout_s` seconds (0: do not wait).

        Raises:
            StopRequested: the process has been asked to stop.
        """
        if STOP.asked:
            raise StopRequested
        timeout_ms = int(timeout_s * 1000)
        if timeout_ms != self._timeout_ms:
            self._socket.setsockopt(zmq.RCVTIMEO, timeout_ms)
            self._timeout_ms = timeout_ms
        try:
            frame = self._socket.recv(copy=False)  # a frame knows whether more follow; asking the socket costs as much again
        except zmq.Again:
            return None
        self._note(frame)
        frames = [frame.bytes]
        while frame.more:
            frame = self._socket.recv(copy=False)
            frames.append(frame.bytes)
        return frames

    def _note(self, first: zmq.Frame) -> None:
        """Look at what the connection says of a multipart."""


class KeyedReceiver(Receiver):
    """Receiving from a socket behind a gate, which knows whose key the connection was made with."""

    __slots__ = ()

    def _note(self, first: zmq.Frame) -> None:
        self.role = str(first.get("User-Id")).encode()


def wait_for_any(sockets: Collection[zmq.Socket[bytes]], timeout_s: float) -> list[zmq.Socket[bytes]]:
    """Those of the sockets that have something to receive, as soon as one has; none, if that takes longer than the timeout.

    Raises:
        StopRequested: the process has been asked to stop.
    """
    ready = {socket for socket, _ in zmq.zmq_poll([(socket, zmq.POLLIN) for socket in sockets], int(1000 * timeout_s))}
    heed_stop()
    return [socket for socket in sockets if socket in ready]


def _name(agent: int) -> bytes:
    return _PREFIX + b"%d" % agent


def _agent(name: bytes) -> int:
    digits = name.removeprefix(_PREFIX)
    return int(digits) if digits.isdigit() and name == _name(int(digits)) else STRANGER


def ipc_endpoint(folder: Path, name: str) -> str:
    """The ipc address of a process's socket inside a run's private socket folder."""
    return f"ipc://{folder / name}"


def new_context(*, lockstep: bool = False, max_sockets: int | None = None) -> Context:
    """A ZeroMQ context: the one of this process, or of a node in a pack with keys. Open it after forking, never before.

    Args:
        lockstep: Whether this thread and ZeroMQ's share the processor with others as lockstep has it (`topology.process`).
        max_sockets: How many sockets it may hold; None: ZeroMQ's thousand.
    """
    context = zmq.Context(io_threads=1)
    if max_sockets is not None:
        context.set(zmq.MAX_SOCKETS, min(max_sockets, context.get(zmq.SOCKET_LIMIT)))
    if lockstep:
        take_turns(SHORT_TURN_NS)
        context.socket(zmq.PAIR).close()  # starts ZeroMQ's thread, which inherits them
        take_turns(LONG_TURN_NS)
    return context
