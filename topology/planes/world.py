"""The world plane: sensing and acting, between the world process and each node.

Theory of operation. The world has links to and from every node. A node first sends JOIN; when all have, the world sends
each its SENSE of step 0, and from then on one step is one SENSE to every agent and one ACT from every agent. A SENSE
carries one row per copy: the agent's observation, then its reward, its costs and the end flag of the step before (0
none, 1 terminated, 2 truncated, 3 ended by a fault of the simulation); if an episode ended, a second array holds the
observations before the restart. The world stands still while agents learn: a node that has ended its round says READY, and
when all have, the world sends GO. Both carry virtual time: READY when the agent was done, GO when the round begins, which is
when the slowest was. Nothing here is emulated: the world plane stands for an agent's own sensors and motors, but its bytes are
counted, apart from the peer plane's.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from scenarios.kinds import Kind
from topology.deployment import Deployment
from topology.snapshot import Stateful
from topology.wire.frame import FLOAT32, KIND_NAMES, VERSION, WORLD, Header, Message, ProtocolError, decode, encode_header, table
from topology.wire.ledger import Ledger, Row, wire_bytes
from topology.wire.refusals import Refusals
from topology.wire.sockets import STRANGER, Links, PeerLostError

END_NONE, END_TERMINATED, END_TRUNCATED, END_FAULT = 0.0, 1.0, 2.0, 3.0


class WorldHub(Stateful):
    """The world's end of the plane.

    Args:
        links: Carrier to and from all nodes.
        n_agents: n.
        copies: E.
        frame_extra: Bytes that encryption adds to each frame.
        forgiving: Whether an agent that cannot be reached is passed over, since another process will report its death.
    """

    STATE = ("_ledger",)

    def __init__(self, links: Links, *, n_agents: int, copies: int, frame_extra: int = 0, forgiving: bool = False) -> None:
        self._forgiving = forgiving
        self._links = links
        self._n_agents = n_agents
        self._copies = copies
        self._extra = frame_extra
        self._ledger = Ledger("world")
        self._lost: set[int] = set()
        self.refused = Refusals()

    def show(self, arrays: Iterable[Sequence[NDArray[np.float32]]], *, round_: int, step: int, send_time: float) -> None:
        """Send every agent its SENSE: per agent the rows of `pack_sense` and, where an episode ended, the final observations.

        Each leaves before the next is asked for, and the books wait until all have left: meanwhile processors stand still.

        Raises:
            PeerLostError: a node is gone or takes nothing.
        """
        header = encode_header(Header(VERSION, int(Kind.SENSE), FLOAT32, WORLD, WORLD, round_, step, 0, 0, send_time))
        shown = []
        for agent, own in enumerate(arrays):
            bodies = [array.tobytes() for array in own]
            if self._reached(agent, (header, *bodies)):
                shown.append((agent, [len(body) for body in bodies]))
        for agent, sizes in shown:
            per_copy = (size // self._copies for size in sizes)
            wire = wire_bytes(len(header), *per_copy, copies=self._copies, frame_extra=self._extra)
            self._ledger.sent(round_, "world", str(agent), "SENSE", self._copies, sum(sizes), wire)

    def go(self, *, round_: int, send_time: float) -> None:
        """Tell every agent that the round begins, at `send_time`.

        Raises:
            PeerLostError: a node is gone or takes nothing.
        """
        header = encode_header(Header(VERSION, int(Kind.GO), FLOAT32, WORLD, WORLD, round_, 0, 0, 0, send_time))
        wire = wire_bytes(len(header), 0, copies=self._copies, frame_extra=self._extra)
        for agent in range(self._n_agents):
            if not self._reached(agent, (header, b"")):
                continue
            self._ledger.sent(round_, "world", str(agent), "GO", self._copies, 0, wire)

    def lose(self, agent: int) -> None:
        """Send an agent that is gone nothing more."""
        self._lost.add(agent)

    def receive(self, timeout_s: float) -> Message | None:
        """The next message, or None if none came within `timeout_s` or what came was refused."""  # noqa: DOC501  (caught inside)
        frames = self._links.receive(timeout_s)
        if frames is None:
            return None
        try:
            message = decode(frames)
            sender = message.header.sender
            if self._links.sender not in (None, sender):
                who = "a stranger" if self._links.sender == STRANGER else f"node {self._links.sender}"
                raise ProtocolError(f"world plane: {who} claims to be from agent {sender}")
            if sender >= self._n_agents:
                raise ProtocolError(f"world plane: there is no agent {sender}")
        except ProtocolError as error:
            self.refused.add(str(error))
            return None
        return message

    def taken(self, header: Header) -> None:
        """Book a received message as delivered."""
        self._ledger.delivered(header.round, str(header.sender), "world", KIND_NAMES[header.kind], self._copies)

    def _reached(self, agent: int, frames: Sequence[bytes]) -> bool:
        if agent in self._lost:
            return False
        try:
            self._links.send(agent, frames)
        except PeerLostError:
            if not self._forgiving:
                raise
            return False
        return True

    def drain(self, through: int | None = None) -> list[Row]:
        """The ledger rows since the last call; those of rounds after `through` are kept for the next."""
        return self._ledger.drain(through)

    def close(self) -> None:
        """Give the links up; what was sent still leaves."""
        self._links.close()


class WorldPort(Stateful):
    """A node's end of the plane.

    Args:
        links: Carrier to and from the world.
        agent: This node's id.
        world: Where the world is on that carrier.
        copies: E.
        frame_extra: Bytes that encryption adds to each frame.
    """

    STATE = ("_ledger",)

    def __init__(self, links: Links, agent: int, *, world: int, copies: int, frame_extra: int = 0) -> None:
        self._links = links
        self._agent = agent
        self._world = world
        self._copies = copies
        self._extra = frame_extra
        self._ledger = Ledger("world")

    def send(self, kind: Kind, actions: NDArray[np.float32], *, round_: int, step: int, send_time: float) -> None:
        """Send JOIN, ACT or READY."""
        header = encode_header(Header(VERSION, int(kind), FLOAT32, self._agent, self._agent, round_, step, 0, 0, send_time))
        body = actions.tobytes()
        self._links.send(self._world, (header, body))
        wire = wire_bytes(len(header), len(body) // self._copies, copies=self._copies, frame_extra=self._extra)
        self._ledger.sent(round_, str(self._agent), "world", KIND_NAMES[kind], self._copies, len(body), wire)

    def receive(self, timeout_s: float) -> Message | None:
        """The next message of the world, or None if none came within `timeout_s`.

        Raises:
            ProtocolError: the world sent something malformed; without its world an agent cannot go on.
        """
        frames = self._links.receive(timeout_s)
        if frames is None:
            return None
        message = decode(frames)
        kind = KIND_NAMES[message.header.kind]
        self._ledger.delivered(message.header.round, "world", str(self._agent), kind, self._copies)
        return message

    def drain(self, through: int | None = None) -> list[Row]:
        """The ledger rows since the last call; those of rounds after `through` are kept for the next."""
        return self._ledger.drain(through)

    def close(self) -> None:
        """Give the links up; what was sent still leaves."""
        self._links.close()


def largest_world_body(deployment: Deployment, copies: int) -> int:
    """Bytes of the largest buffer on the plane: a SENSE, or an ACT."""
    return 4 * copies * max(*(dim + len(deployment.cost_limits) + 2 for dim in deployment.obs_dims), *deployment.act_dims)


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
        time: Virtual time of the observation, in seconds.
        obs: (E, d) what the agent senses now.
        reward: (E,) of the step before.
        cost: (E, m) of the step before.
        end: (E,) 0 none, 1 terminated, 2 truncated, 3 ended by a fault of the simulation.
        final_obs: (E, d) before the restart, rows valid where an episode ended; None if none did.
    """

    __slots__ = ("cost", "end", "final_obs", "obs", "reward", "round", "step", "time")

    def __init__(self, message: Message, *, copies: int, obs_dim: int, n_costs: int) -> None:
        rows = table(message, copies, obs_dim + n_costs + 2)
        self.round = message.header.round
        self.step = message.header.step
        self.time = message.header.send_time
        self.obs = rows[:, :obs_dim]
        self.reward = rows[:, obs_dim]
        self.cost = rows[:, obs_dim + 1 : -1]
        self.end = rows[:, -1]
        self.final_obs = table(message, copies, obs_dim, index=1) if len(message.bodies) > 1 else None
