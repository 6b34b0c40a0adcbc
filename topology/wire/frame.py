"""The bytes of a link frame, and how many of them a link carries.

Theory of operation. A message is one ZeroMQ multipart: a header frame, a small msgpack array of numbers, then raw
little-endian array buffers, one frame each. The header names sender, origin, round, step and so on; what the buffers
mean follows from the kind, and how their numbers are written from the header's dtype. Every field has a type and a
range, sizes are capped *before* anything is decoded, and whatever does not fit raises `ProtocolError`, never anything
else. Nothing is ever unpickled.

Delivery. A frame carries all E copies of a message, and on real links they fare differently: one is lost, another late.
Such a frame travels all the same, so that no agent waits for what will not come, with one more buffer that says per copy
when it arrives in virtual time, if ever, and whether it says anything (`Delivery`). Delivery times belong to the simulation, not
to the modelled traffic, and are charged to no link; links without limits need none.

Sizes. `framed` gives what ZMTP 3.1 puts on the socket for one frame without encryption: a flags byte and a length of
one byte up to 255 bytes of body, of eight above. `ledger.wire_bytes` is what one deployed copy's message would occupy; a
frame that carries E copies is charged E times that, which with E = 1 is exactly what passes over the socket
(tests/topology/planes/test_peer.py counts it on a wire that it taps).

What must not change without raising VERSION: the order and the types of the header fields, and the numbers of the
kinds (`scenarios.kinds`).
"""

from collections.abc import Sequence
from operator import le
from sys import float_info
from typing import NamedTuple

import msgpack
import numpy as np
from numpy.typing import NDArray

from scenarios.kinds import Kind
from topology.wire import codec
from topology.wire.codec import DType

VERSION = 1
MAX_HEADER_BYTES = 128  # ten fields of at most nine bytes and the array mark
MAX_ARRAY_BYTES = 1 << 28  # 256 MiB: 4096 copies x 16384 floats, far above any shipped scenario
LEAST_LIMIT = 1 << 16  # no socket takes less in a frame: room for handshakes, headers and what is small anyway
DELIVERY_BYTES = 9  # of each copy: when, and whether it says anything
MAX_ARRAYS = 2
FLOAT32 = int(DType.FLOAT32)
CURVE_BYTES = 33  # what CURVE adds to every frame: command name, nonce, authenticator and flags
WORLD = 0xFFFE  # the world's place in `sender` and `origin`
MAX_ID = 0xFFFF
MAX_COUNT = 2**53


KINDS = {int(kind): kind for kind in Kind}  # to look a number up in an enum costs ten times as much
KIND_NAMES = {int(kind): kind.name for kind in Kind}


class ProtocolError(Exception):
    """A peer broke the protocol; the text names the sender, the message and what was expected."""


class Header(NamedTuple):
    """The first frame of every message.

    Attributes:
        version: Wire format version, `VERSION`.
        kind: One of `Kind`.
        dtype: Code of the arrays' element type, one of `codec.DType`.
        sender: The node that put it on this link: an agent id, or `WORLD`.
        origin: Whose data it is.
        round: Round k, from 0.
        step: Environment step within the round, 0..T.
        hops_left: Further edges it may cross.
        seq: Number of this message on its directed link, from 0.
        send_time: Virtual time, in seconds, of the step or the moment that it tells of.
    """

    version: int
    kind: int
    dtype: int
    sender: int
    origin: int
    round: int
    step: int
    hops_left: int
    seq: int
    send_time: float


class Message(NamedTuple):
    """A message: its header, and its buffers as they came."""

    header: Header
    bodies: tuple[bytes, ...]


class Delivery(NamedTuple):
    """What became of a message on its way here, per copy.

    Attributes:
        arrive: (E,) virtual seconds of arrival; inf: never.
        null: (E,) whether it says only that nothing has changed.
    """

    arrive: NDArray[np.float64]
    null: NDArray[np.bool_]


_TOPS = (255, 255, 255, MAX_ID, MAX_ID, MAX_COUNT, MAX_COUNT, MAX_ID, MAX_COUNT, float_info.max)  # NaN and inf exceed it
_TYPES = [*[int] * 9, float]
_DTYPES = {int(dtype): dtype for dtype in DType}
_pack = msgpack.Packer(autoreset=True, use_single_float=False).pack


def encode_header(header: Header) -> bytes:
    """The header frame."""
    packed: bytes = _pack(header)
    return packed


def decode_header(frame: bytes) -> Header:
    """The header in a frame.

    Raises:
        ProtocolError: the frame is too long, is not a msgpack array of ten numbers, or a field is out of range.
    """
    if len(frame) > MAX_HEADER_BYTES:
        raise ProtocolError(f"header: {len(frame)} bytes, at most {MAX_HEADER_BYTES}")
    try:
        fields = msgpack.unpackb(
            frame, use_list=False, max_str_len=0, max_bin_len=0, max_map_len=0, max_ext_len=0, max_array_len=len(Header._fields)
        )
    except (ValueError, msgpack.exceptions.UnpackException, RecursionError) as error:
        raise ProtocolError(f"header: not msgpack: {error}") from None
    if type(fields) is not tuple or len(fields) != len(Header._fields):
        raise ProtocolError(f"header: expected an array of {len(Header._fields)} numbers")
    # the ten-thousandfold path: without a loop of our own, and the story is told only when it fails
    if [*map(type, fields)] != _TYPES or not all(map(le, fields, _TOPS)) or min(fields) < 0:
        raise ProtocolError(_first_objection(fields))
    header = Header._make(fields)
    if header.version != VERSION or header.kind not in KINDS or header.dtype not in _DTYPES:
        raise ProtocolError(
            f"header: version {header.version}, kind {header.kind}, dtype {header.dtype}; "
            f"expected {VERSION}, one of {sorted(KINDS)}, one of {sorted(_DTYPES)}"
        )
    return header


def _first_objection(fields: Sequence[object]) -> str:
    for name, value, type_, top in zip(Header._fields, fields, _TYPES, _TOPS, strict=True):
        if not (isinstance(value, int | float) and type(value) is type_ and 0 <= value <= top):
            what = f"an int in 0..{top}" if type_ is int else "seconds from 0"
            return f"header.{name}: expected {what}, got {value!r}"
    raise AssertionError(f"nothing is wrong with {fields}")


def decode(frames: Sequence[bytes]) -> Message:
    """The message in a multipart.

    Raises:
        ProtocolError: wrong number of frames, a frame over its cap, or a header that does not decode.
    """
    if not 2 <= len(frames) <= 1 + MAX_ARRAYS:
        raise ProtocolError(f"message: expected a header and 1..{MAX_ARRAYS} arrays, got {len(frames)} frames")
    for frame in frames[1:]:
        if len(frame) > MAX_ARRAY_BYTES:
            raise ProtocolError(f"array: {len(frame)} bytes; at most {MAX_ARRAY_BYTES}")
    return Message(decode_header(frames[0]), tuple(frames[1:]))


def table(message: Message, rows: int, width: int, index: int = 0) -> NDArray[np.float32]:
    """One buffer of a message as the table (rows, width) that its kind demands.

    Raises:
        ProtocolError: the buffer is missing, of another size, or holds a number that is not finite.
    """
    header = message.header
    if index >= len(message.bodies):
        raise ProtocolError(f"{_told(header)}: expected {index + 1} buffers, got {len(message.bodies)}")
    try:
        return codec.decode(message.bodies[index], rows, width, _DTYPES[header.dtype])
    except ValueError as error:
        raise ProtocolError(f"{_told(header)}: {error}") from None


def encode_delivery(delivery: Delivery) -> bytes:
    """The buffer that says when a message arrives in which copy, and where it says nothing new."""
    return delivery.arrive.astype("<f8", copy=False).tobytes() + delivery.null.tobytes()


def decode_delivery(message: Message, copies: int) -> Delivery | None:
    """When a peer message arrives in each copy; None: in all at once.

    Raises:
        ProtocolError: they are not E times from 0 on and E flags.
    """
    if len(message.bodies) < 2:
        return None
    body = message.bodies[1]
    if len(body) != DELIVERY_BYTES * copies:
        raise ProtocolError(f"{_told(message.header)}: expected a delivery of {DELIVERY_BYTES * copies} bytes, got {len(body)}")
    arrive = np.frombuffer(body, "<f8", count=copies)
    null = np.frombuffer(body, np.uint8, offset=8 * copies)
    if not arrive.min() >= 0.0 or null.max() > 1:  # NaN is not at least 0
        raise ProtocolError(f"{_told(message.header)}: delivery out of range")
    return Delivery(arrive, null.view(np.bool_))


def _told(header: Header) -> str:
    return f"{KIND_NAMES[header.kind]} of {header.origin} from {header.sender}, round {header.round}, step {header.step}"


def frame_limit(body_bytes: int) -> int:
    """The largest frame that a socket takes whose messages have buffers of so many bytes.

    libzmq holds as much for every connection, from its first byte on and whatever key it will show, so it should be no more than
    the run needs.
    """
    return max(body_bytes + CURVE_BYTES, LEAST_LIMIT)


def framed(size_bytes: int) -> int:
    """Bytes on the socket of one frame with a body of `size_bytes`, by ZMTP 3.1 with the NULL mechanism.

    Example:
        >>> framed(255), framed(256)
        (257, 265)
    """
    return size_bytes + (2 if size_bytes <= 255 else 9)
