"""The control plane: start, progress, reports, stop; between the coordinator and every process it started.

Theory of operation. The coordinator is the server of a ROUTER socket, driven by asyncio; every node and the world are
DEALERs. A process sends Hello with the address it listens on and the nodes that it opens links to; when all have, each gets
Start with the addresses of these nodes, and of no others. From then on processes only report; nothing on the hot path waits for
the coordinator. Messages are msgpack maps checked against the models below; a frame that does not fit is ignored and counted.

On tcp every process proves with its key which it is (`topology.wire.keys`), and the role it speaks for must be that one.
"""

import contextlib
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, Protocol, runtime_checkable

import msgpack
import zmq
import zmq.asyncio
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from scenarios.kinds import Kind
from topology.deployment import state_folder
from topology.finite import DivergedError
from topology.process import SLICE_S, STOP, StopRequested, heed_stop
from topology.snapshot import State, write
from topology.wire.frame import ProtocolError, frame_limit
from topology.wire.keys import COORDINATOR, Gate, Keyring, role_of
from topology.wire.ledger import Row
from topology.wire.refusals import Refusals
from topology.wire.sockets import PeerLostError, Sender

MAX_CONTROL_BYTES = 1 << 24  # 16 MiB: a round's report of a node with 1000 links is under 1 MiB
MAX_WEIGHTS = 1 << 21  # on which agents are to agree: half of what a report may have
CONTROL_DEPTH = 1000  # reports that may wait for the coordinator, or from it: minutes of a stalled command
MAX_EPISODES = 256  # in one report of the world's
_ROW_BYTES, _INCIDENT_BYTES = 256, 128  # at most, of a line of the ledger or an episode, and of what befell an agent
_OTHER_BYTES = 1 << 16  # of metrics, reasons of refusals, the story of a fault
SEND_S = 10.0  # how long a report may wait for room before its sender gives up


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Hello(_Message):
    """A process is up: its role, its pid, where its inbox listens, and the nodes that it opens a link to."""

    type: Literal["hello"] = "hello"
    role: str
    pid: int
    endpoint: str
    peers: tuple[Annotated[int, Field(ge=0)], ...] = ()


class Start(_Message):
    """All processes are up: where the world listens, and each node that the process has named in its Hello, in that order."""

    type: Literal["start"] = "start"
    world: str
    peers: tuple[str, ...]


class Stop(_Message):
    """End now."""

    type: Literal["stop"] = "stop"
    reason: str


class Gone(_Message):
    """An agent's process has died, and the run goes on without it."""

    type: Literal["gone"] = "gone"
    agent: int


class EpisodeRow(_Message):
    """One finished episode; env_step counts over all copies.

    `cost` is the team's, an entry per cost. `own` is there in evaluations with `env.cost: local`: of each cost what each agent
    was charged with.
    """

    round: int
    env_step: int
    copy_index: int
    ret: float
    cost: tuple[float, ...]
    length: int
    measures: tuple[float, ...] = ()
    own: tuple[tuple[float, ...], ...] = ()

    @property
    def charged(self) -> tuple[float, ...] | tuple[tuple[float, ...], ...]:
        """What limits are about: of each cost the team's, or that of every agent."""
        return self.own or self.cost


class AgeRow(NamedTuple):
    """How old the news of one origin was when an agent used it, over a round; see `node.protocol.neighbour_cache.Age`."""

    origin: int
    used: int
    missing: int
    mean_s: float
    max_s: float


class Progress(_Message):
    """The world is at env_step; the episodes that ended since the last report, and what went over the world plane."""

    type: Literal["progress"] = "progress"
    role: str = "world"
    round: int
    env_step: int
    episodes: tuple[EpisodeRow, ...] = ()
    traffic: tuple[Row, ...] = ()
    faults: tuple[str, ...] = ()
    refused: int = 0
    refusals: tuple[str, ...] = ()


class RoundReport(_Message):
    """A node has ended a round: what it met in virtual time, and, of the frames it refused, number and first reasons.

    `agreeing` holds the weights on which agents are to agree, as float32 by network: no agent can know how far apart they are.
    """

    type: Literal["round"] = "round"
    role: str
    agent: int
    round: int
    virtual_s: float
    metrics: dict[str, float]
    traffic: tuple[Row, ...]
    ages: tuple[AgeRow, ...] = ()
    incidents: tuple[tuple[float, str], ...] = ()
    agreeing: dict[str, bytes] = {}
    refused: int = 0
    refusals: tuple[str, ...] = ()


class Stored(_Message):
    """A process has stored what it needs to go on after a round; it has reported all of that round before.

    `sha256` is the file's; `problem` says why there is no file, and the process goes on without.
    """

    type: Literal["stored"] = "stored"
    role: str
    round: int
    sha256: str = ""
    problem: str = ""


class Finished(_Message):
    """A process has done all its work; a node adds the digest of its final weights."""

    type: Literal["finished"] = "finished"
    role: str
    weights_sha256: str = ""
    traffic: tuple[Row, ...] = ()


class Refused(_Message):
    """How many connections a process did not let in, over the run, and the first of the keys that it turned away."""

    type: Literal["refused"] = "refused"
    role: str
    connections: int
    reasons: tuple[str, ...]


class Fault(_Message):
    """A process cannot go on; `diverged_at` is the env step at which its numbers were found not to be finite, if that is why."""

    type: Literal["fault"] = "fault"
    role: str
    text: str
    diverged_at: int | None = None


Control = Annotated[
    Hello | Start | Stop | Gone | Progress | RoundReport | Stored | Finished | Refused | Fault, Field(discriminator="type")
]
_CONTROL: TypeAdapter[Control] = TypeAdapter(Control)


def start_of(hello: Hello, hellos: Mapping[str, Hello], world: str) -> Start:
    """The answer to a Hello once all have come.

    Args:
        hello: It.
        hellos: All of them, by role.
        world: Where the world listens.
    """
    peers = map(role_of, hello.peers)
    return Start(world=world, peers=tuple(hellos[peer].endpoint for peer in peers if peer in hellos))


def store(run_dir: Path, role: str, round_: int, state: State) -> Stored:
    """Store what a process needs to go on after a round; what there is to report of it."""
    path = state_folder(run_dir, round_) / f"{role}.safetensors"
    try:
        return Stored(role=role, round=round_, sha256=write(path, state))
    except OSError as error:
        return Stored(role=role, round=round_, problem=f"{path.parent.name}/{path.name}: {error.strerror or error}")


def encode_control(message: Control) -> bytes:
    """A control message as msgpack."""
    packed: bytes = msgpack.packb(message.model_dump())
    return packed


def decode_control(frame: bytes) -> Control:
    """The control message in a frame.

    Raises:
        ValueError: the frame is too large, is not msgpack, or fits no message.
    """
    if len(frame) > MAX_CONTROL_BYTES:
        raise ValueError(f"control frame of {len(frame)} bytes, at most {MAX_CONTROL_BYTES}")
    try:
        return _CONTROL.validate_python(msgpack.unpackb(frame, use_list=False))
    except (ValidationError, msgpack.exceptions.UnpackException, ValueError, RecursionError) as error:
        raise ValueError(f"control frame: {error}") from None


@runtime_checkable
class Reports(Protocol):
    """What a node and the world need of the control plane: to report, and to learn whether they should stop."""

    def send(self, message: Control) -> None:
        """Report something."""
        ...

    def receive(self, timeout_s: float) -> Control | None:
        """The coordinator's next message, or None if none came within `timeout_s`."""
        ...


def largest_report(n_nodes: int, steps: int, weights: int = 0) -> int:
    """Bytes that no honest report of a run exceeds: two rounds' traffic with every node both ways, and what befell an agent.

    Args:
        n_nodes: Nodes of the run.
        steps: T.
        weights: Numbers on which agents are to agree.
    """
    rows = 2 * 2 * n_nodes * len(Kind) + MAX_EPISODES
    return min(
        rows * _ROW_BYTES + (n_nodes * len(Kind) + 2 * steps) * _INCIDENT_BYTES + _OTHER_BYTES + 4 * weights, MAX_CONTROL_BYTES
    )


def refused_at(gate: Gate | None, role: str) -> list[Refused]:
    """What there is to report of a process's gate: nothing, if there is none or no connection was kept out."""
    if gate is None or gate.outside == 0:
        return []
    return [Refused(role=role, connections=gate.outside, reasons=tuple(gate.refused.texts))]


class ControlPort:
    """A process's end of the control plane.

    Args:
        context: The process's ZeroMQ context.
        role: Which process.
        connect: The coordinator's address.
        keys: The process's keys; None: the connection is neither encrypted nor authenticated.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], role: str, connect: str, *, keys: Keyring | None = None) -> None:
        self._role = role
        self._socket = context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.ROUTING_ID, role.encode())
        self._socket.setsockopt(zmq.SNDHWM, CONTROL_DEPTH)
        self._socket.setsockopt(zmq.RCVHWM, CONTROL_DEPTH)
        self._socket.setsockopt(zmq.MAXMSGSIZE, MAX_CONTROL_BYTES)
        self._socket.setsockopt(zmq.LINGER, 2000)
        self._sent = Sender(self._socket, SEND_S)
        if keys is not None:
            keys.dial(self._socket, COORDINATOR)
        self._socket.connect(connect)

    def send(self, message: Control) -> None:
        """Report something.

        Raises:
            ConnectionError: the coordinator has taken nothing for so long that no more can wait.
        """
        try:
            self._sent((encode_control(message),))
        except zmq.Again:
            raise ConnectionError(f"the coordinator took no report for {SEND_S:g} s") from None

    def receive(self, timeout_s: float) -> Control | None:
        """The coordinator's next message, or None if none came within `timeout_s`.

        Raises:
            StopRequested: the process has been asked to stop.
            ValueError: the message does not decode.
        """
        left_s = timeout_s
        while True:
            heed_stop()
            if self._socket.poll(int(1000 * min(left_s, SLICE_S))):
                return decode_control(self._socket.recv())
            left_s -= SLICE_S
            if left_s <= 0:
                return None

    def perform(self, work: Callable[[], None], log: Path) -> int:
        """Do what the process is there for, and tell the coordinator why if that fails.

        Args:
            work: It.
            log: Where more can be read of an unforeseen error.

        Returns:
            The process's exit code: 0 done or asked to stop, 1 failed.
        """
        try:
            work()
        except StopRequested:
            return 0
        except Exception as error:  # noqa: BLE001  (the last line of defence: the coordinator must learn why)
            return self.fail(error, log)
        return 0

    def fail(self, error: Exception, log: Path) -> int:
        """Tell the coordinator why the process cannot go on; the process's exit code.

        Args:
            error: Why; to be called where it is being handled.
            log: Where more can be read of an unforeseen error.
        """
        match error:
            case DivergedError():
                fault = Fault(role=self._role, text=str(error), diverged_at=error.env_step)
            case PeerLostError() if STOP.asked:  # so were the others, and one of them was sooner gone
                return 0
            case PeerLostError() | ProtocolError():
                fault = Fault(role=self._role, text=str(error))
            case _:
                traceback.print_exc()
                fault = Fault(role=self._role, text=f"{type(error).__name__}: {error} (see {log.parent.name}/{log.name})")
        with contextlib.suppress(ConnectionError, StopRequested):  # the coordinator is gone, or wants no more
            self.send(fault)
        return 1

    def close(self) -> None:
        """Close the socket; what was sent still leaves."""
        self._socket.close()


class ControlHub:
    """The coordinator's end of the control plane.

    Args:
        bind: Where to listen.
        keys: The coordinator's keys; None: connections are neither encrypted nor authenticated.
        largest: Bytes of the largest report; a connection that sends a larger frame is cut.

    Attributes:
        gate: What stands before the socket, where there are keys.
        refused: Messages that were ignored.
    """

    def __init__(self, bind: str, *, keys: Keyring | None = None, largest: int = 0) -> None:
        self._context = zmq.asyncio.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.ROUTER_MANDATORY, 1)  # what cannot be sent is an error, not silence
        self._socket.setsockopt(zmq.SNDHWM, CONTROL_DEPTH)
        self._socket.setsockopt(zmq.RCVHWM, CONTROL_DEPTH)
        self._socket.setsockopt(zmq.LINGER, 500)
        self._socket.setsockopt(zmq.MAXMSGSIZE, frame_limit(largest))
        self.gate = None if keys is None else keys.guard(self._context, self._socket, keys.others())
        self._socket.bind(bind)
        self.endpoint: str = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
        self.refused = Refusals()

    async def send(self, role: str, message: Control) -> bool:
        """Tell one process something; whether it is there to be told."""
        try:
            await self._socket.send_multipart([role.encode(), encode_control(message)], zmq.DONTWAIT)
        except zmq.ZMQError:
            return False
        return True

    async def receive(self) -> Control:
        """The next well-formed message; its role is the socket's own."""  # noqa: DOC501  (caught inside)
        while True:
            name, *frames = await self._socket.recv_multipart(copy=False)
            try:
                role = name.bytes.decode(errors="replace")
                if self.gate is not None and role != (key_of := name.get("User-Id")):
                    raise ValueError(f"control message of {key_of} from a socket that calls itself {role!r}")
                if len(frames) != 1:
                    raise ValueError(f"control message of {1 + len(frames)} frames")
                message = decode_control(frames[0].bytes)
                if getattr(message, "role", None) != role:
                    raise ValueError(f"control message of {role!r} in another's name")
            except ValueError as error:
                self.refused.add(str(error))
                continue
            return message

    def close(self) -> None:
        """Close the socket and the context."""
        self._socket.close()
        self._context.term()
