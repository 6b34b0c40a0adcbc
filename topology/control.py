"""The control plane: start, progress, reports, stop; between the coordinator and every process it started.

Theory of operation. The coordinator is the server of a ROUTER socket, driven by asyncio; every node and the world are
DEALERs. A process says Hello with the address it listens on; when all have, each gets Start with everybody's addresses.
From then on processes only report; nothing on the hot path waits for the coordinator. Messages are msgpack maps checked
against the models below; a frame that does not fit is ignored and counted.
"""

from typing import Annotated, Literal, Protocol

import msgpack
import zmq
import zmq.asyncio
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from topology.ledger import Row

MAX_CONTROL_BYTES = 1 << 24  # 16 MiB: a round's report of a node with 1000 links is under 1 MiB


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Hello(_Message):
    """A process is up: who it is, its pid, and where its inbox listens."""

    type: Literal["hello"] = "hello"
    role: str
    pid: int
    endpoint: str


class Start(_Message):
    """Everybody is up: where the world and every node listen."""

    type: Literal["start"] = "start"
    world: str
    peers: tuple[str, ...]


class Stop(_Message):
    """End now."""

    type: Literal["stop"] = "stop"
    reason: str


class EpisodeRow(_Message):
    """One finished episode; env_step counts over all copies."""

    round: int
    env_step: int
    copy_index: int
    ret: float
    cost: tuple[float, ...]
    length: int


class Progress(_Message):
    """The world is at env_step; the episodes that ended since the last report, and what went over the world plane."""

    type: Literal["progress"] = "progress"
    role: str = "world"
    round: int
    env_step: int
    episodes: tuple[EpisodeRow, ...] = ()
    traffic: tuple[Row, ...] = ()
    faults: tuple[str, ...] = ()


class RoundReport(_Message):
    """A node has ended a round."""

    type: Literal["round"] = "round"
    role: str
    agent: int
    round: int
    virtual_s: float
    metrics: dict[str, float]
    traffic: tuple[Row, ...]
    refused: tuple[str, ...]


class Finished(_Message):
    """A process has done all its work; a node adds the digest of its final weights."""

    type: Literal["finished"] = "finished"
    role: str
    weights_sha256: str = ""
    traffic: tuple[Row, ...] = ()


class Fault(_Message):
    """A process cannot go on."""

    type: Literal["fault"] = "fault"
    role: str
    text: str


Control = Annotated[Hello | Start | Stop | Progress | RoundReport | Finished | Fault, Field(discriminator="type")]
_CONTROL: TypeAdapter[Control] = TypeAdapter(Control)


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


class Reports(Protocol):
    """What a node and the world need of the control plane: to report, and to hear whether they should stop."""

    def send(self, message: Control) -> None:
        """Report something."""
        ...

    def receive(self, timeout_s: float) -> Control | None:
        """The coordinator's next message, or None if none came within `timeout_s`."""
        ...


class ControlPort:
    """A process's end of the control plane."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], role: str, connect: str) -> None:
        self._socket = context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.ROUTING_ID, role.encode())
        self._socket.setsockopt(zmq.LINGER, 2000)
        self._socket.connect(connect)

    def send(self, message: Control) -> None:
        """Report something."""
        self._socket.send(encode_control(message))

    def receive(self, timeout_s: float) -> Control | None:
        """The coordinator's next message, or None if none came within `timeout_s`.

        Raises:
            ValueError: the message does not decode.
        """
        if not self._socket.poll(int(timeout_s * 1000)):
            return None
        return decode_control(self._socket.recv())

    def close(self) -> None:
        """Close the socket; what was sent still leaves."""
        self._socket.close()


class ControlHub:
    """The coordinator's end of the control plane."""

    def __init__(self, bind: str) -> None:
        self._context = zmq.asyncio.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.LINGER, 500)
        self._socket.setsockopt(zmq.MAXMSGSIZE, MAX_CONTROL_BYTES)
        self._socket.bind(bind)
        self.endpoint: str = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
        self.refused: list[str] = []

    async def send(self, role: str, message: Control) -> None:
        """Tell one process something; a process that is gone is simply not told."""
        await self._socket.send_multipart([role.encode(), encode_control(message)])

    async def receive(self) -> Control:
        """The next well-formed message; its role is the socket's own."""  # noqa: DOC501  (caught inside)
        while True:
            frames = await self._socket.recv_multipart()
            try:
                if len(frames) != 2:
                    raise ValueError(f"control message of {len(frames)} frames")
                message = decode_control(frames[1])
                if getattr(message, "role", None) != frames[0].decode(errors="replace"):
                    raise ValueError(f"control message of {frames[0]!r} in another's name")
            except ValueError as error:
                self.refused.append(str(error))
                continue
            return message

    def close(self) -> None:
        """Close the socket and the context."""
        self._socket.close()
        self._context.term()
