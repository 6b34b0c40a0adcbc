"""The world plane: sensing and acting, between the world process and each node.

Theory of operation. The world is the server of a ROUTER socket, every node a DEALER. A node first says JOIN; when all
have, the world sends each its SENSE of step 0, and from then on one step is one SENSE to every agent and one ACT from
every agent. A SENSE
carries one row per copy: the agent's observation, then its reward, its costs and the end flag of the step before (0
    none, 1 terminated, 2 truncated); if an episode ended, a second array holds the observations before the restart.
    Nothing here is emulated: the world plane stands for an agent's own sensors and motors, but its bytes are counted,
    apart from the peer plane's.
"""

from collections.abc import Sequence

import numpy as np
import zmq
from numpy.typing import NDArray

from topology.ledger import Ledger, Row, wire_bytes
from topology.links import Context, PeerLostError, Receiver, send_frames
from topology.wire import FLOAT32, KIND_NAMES, VERSION, WORLD, Header, Kind, Message, ProtocolError, decode, encode_header, shaped

END_NONE, END_TERMINATED, END_TRUNCATED = 0.0, 1.0, 2.0


class WorldHub:
    """The world's end: one socket to all nodes.

    Args:
        context: The process's ZeroMQ context.
        bind: Where to listen.
        n_agents: n.
        copies: E.
        deadline_s: Longest wait for one node.
    """

    def __init__(self, context: Context, bind: str, *, n_agents: int, copies: int, deadline_s: float) -> None:
        self._socket = context.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._socket.setsockopt(zmq.SNDTIMEO, int(deadline_s * 1000))
        self._socket.setsockopt(zmq.LINGER, 2000)
        self._socket.bind(bind)
        self.endpoint: str = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
        self._received = Receiver(self._socket)
        self._identities = [_identity(agent) for agent in range(n_agents)]
        self._copies = copies
        self._ledger = Ledger("world")
        self.refused: list[str] = []

    def show(self, arrays: Sequence[Sequence[NDArray[np.float32]]], *, round_: int, step: int, send_time: float) -> None:
        """Send every agent its SENSE: per agent the rows of `pack_sense` and, where an episode ended, the final observations.

        Raises:
            PeerLostError: a node is gone or takes nothing.
        """
        header = encode_header(Header(VERSION, int(Kind.SENSE), FLOAT32, WORLD, WORLD, round_, step, 0, 0, send_time))
        for agent, own in enumerate(arrays):
            bodies = [array.tobytes() for array in own]
            try:
                send_frames(self._socket, (self._identities[agent], header, *bodies))
            except zmq.ZMQError as error:
                raise PeerLostError(f"the world cannot reach agent {agent}: {error}") from None
            wire = wire_bytes(len(header), *(len(body) // self._copies for body in bodies), copies=self._copies)
            self._ledger.sent(round_, "world", str(agent), "SENSE", sum(map(len, bodies)), wire)

    def receive(self, timeout_s: float) -> Message | None:
        """The next well-formed message of a node, or None if none came within `timeout_s`."""  # noqa: DOC501  (caught inside)
        while (received := self._received(timeout_s)) is not None:
            identity, *frames = received
            try:
                message = decode(frames)
                if identity != _identity(message.header.sender):
                    raise ProtocolError(f"world plane: a frame of {identity!r} claims to be from agent {message.header.sender}")
                if message.header.sender >= len(self._identities):
                    raise ProtocolError(f"world plane: there is no agent {message.header.sender}")
            except ProtocolError as error:
                self.refused.append(str(error))
                continue
            self._ledger.delivered(message.header.round, str(message.header.sender), "world", KIND_NAMES[message.header.kind])
            return message
        return None

    def drain(self) -> list[Row]:
        """The ledger rows since the last call."""
        return self._ledger.drain()

    def close(self) -> None:
        """Close the socket; what was sent still leaves."""
        self._socket.close()


class WorldPort:
    """A node's end of the world plane.

    Args:
        context: The process's ZeroMQ context.
        agent: This node's id.
        connect: The world's address.
        copies: E.
    """

    def __init__(self, context: Context, agent: int, connect: str, *, copies: int) -> None:
        self._socket = context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.ROUTING_ID, _identity(agent))
        self._socket.setsockopt(zmq.LINGER, 2000)
        self._socket.connect(connect)
        self._received = Receiver(self._socket)
        self._agent = agent
        self._copies = copies
        self._ledger = Ledger("world")

    def send(self, kind: Kind, actions: NDArray[np.float32], *, round_: int, step: int, send_time: float) -> None:
        """Send JOIN or ACT."""
        header = encode_header(Header(VERSION, int(kind), FLOAT32, self._agent, self._agent, round_, step, 0, 0, send_time))
        body = actions.tobytes()
        send_frames(self._socket, (header, body))
        wire = wire_bytes(len(header), len(body) // self._copies, copies=self._copies)
        self._ledger.sent(round_, str(self._agent), "world", KIND_NAMES[kind], len(body), wire)

    def receive(self, timeout_s: float) -> Message | None:
        """The next message of the world, or None if none came within `timeout_s`.

        Raises:
            ProtocolError: the world sent something malformed; without its world an agent cannot go on.
        """
        frames = self._received(timeout_s)
        if frames is None:
            return None
        message = decode(frames)
        self._ledger.delivered(message.header.round, "world", str(self._agent), KIND_NAMES[message.header.kind])
        return message

    def drain(self) -> list[Row]:
        """The ledger rows since the last call."""
        return self._ledger.drain()

    def close(self) -> None:
        """Close the socket; what was sent still leaves."""
        self._socket.close()


def pack_sense(
    obs: NDArray[np.float32], reward: NDArray[np.float32], cost: NDArray[np.float32], end: NDArray[np.float32]
) -> NDArray[np.float32]:
    """One agent's SENSE rows: (E, d) observation, (E,) reward, (E, m) cost, (E,) end flag side by side."""
    return np.concatenate((obs, reward[:, None], cost, end[:, None]), axis=1, dtype=np.float32)


class Sense:
    """One SENSE, unpacked.

    Attributes:
        round: Round of the observation.
        step: Step of the observation.
        obs: (E, d) what the agent senses now.
        reward: (E,) of the step before.
        cost: (E, m) of the step before.
        end: (E,) 0 none, 1 terminated, 2 truncated.
        final_obs: (E, d) before the restart, rows valid where an episode ended; None if none did.
    """

    __slots__ = ("cost", "end", "final_obs", "obs", "reward", "round", "step")

    def __init__(self, message: Message, *, copies: int, obs_dim: int, n_costs: int) -> None:
        rows = shaped(message, copies, obs_dim + n_costs + 2)
        self.round = message.header.round
        self.step = message.header.step
        self.obs = rows[:, :obs_dim]
        self.reward = rows[:, obs_dim]
        self.cost = rows[:, obs_dim + 1 : -1]
        self.end = rows[:, -1]
        self.final_obs = shaped(message, copies, obs_dim, index=1) if len(message.arrays) > 1 else None


def _identity(agent: int) -> bytes:
    return b"node-%d" % agent
