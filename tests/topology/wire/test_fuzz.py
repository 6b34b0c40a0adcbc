"""The decoders of everything that comes off a socket, fed with 100 000 inputs each that no honest process sends."""

import random
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import msgpack
import numpy as np

from scenarios.kinds import Kind
from topology.planes.control import (
    EpisodeRow,
    Fault,
    Hello,
    Progress,
    Refused,
    RoundReport,
    Start,
    decode_control,
    encode_control,
)
from topology.wire.frame import (
    FLOAT32,
    VERSION,
    Delivery,
    Header,
    ProtocolError,
    decode,
    decode_delivery,
    encode_delivery,
    encode_header,
    table,
)
from topology.wire.ledger import Row

INPUTS = 100_000
ROW = Row(2, "peer", "0", "1", "STATE", 5, 260, 430)
EPISODE = EpisodeRow(round=1, env_step=40, copy_index=1, ret=-3.5, cost=(1.0, 2.0), length=20)
CONTROL = [
    encode_control(message)
    for message in (
        Hello(role="node-3", pid=17, endpoint="tcp://127.0.0.1:5"),
        Start(world="w", peers=("a", "b")),
        Progress(round=1, env_step=40, episodes=(EPISODE,), traffic=(ROW,)),
        RoundReport(role="node-0", agent=0, round=2, virtual_s=1.5, metrics={"kl": 0.1}, traffic=(ROW,)),
        Refused(role="node-2", connections=7, reasons=("why",)),
        Fault(role="node-1", text="κ"),
    )
]
COPIES, WIDTH = 2, 3
BODY = np.arange(COPIES * WIDTH, dtype="<f4").tobytes()
MARKS = encode_delivery(Delivery(np.array([0.5, np.inf]), np.array([False, True])))
HEADERS = [
    encode_header(Header(VERSION, int(kind), FLOAT32, 3, 1, 7, 12, 2, seq, 0.05))
    for kind in Kind
    for seq in (0, 200, 70_000, 2**40)
]
ODD: list[Any] = [None, True, -1, 2**63, 2**64 - 1, 0.5, float("nan"), "", "x" * 40, b"", b"\xff" * 40, [], [[]] * 9, {}, {1: 2}]


def spoilt(frame: bytes, chance: random.Random) -> bytes:
    """The frame with one to three bytes changed, taken out or put in, cut short, doubled, or as random bytes."""
    found = bytearray(frame)
    for _ in range(chance.randint(1, 3)):
        place = chance.randrange(len(found) + 1)
        match chance.randrange(6):
            case 0:
                found[place : place + 1] = chance.randbytes(1)
            case 1:
                del found[place : place + chance.randint(1, 4)]
            case 2:
                found[place:place] = chance.randbytes(chance.randint(1, 4))
            case 3:
                del found[place:]
            case 4:
                found += found[:place]
            case _:
                found[:] = chance.randbytes(chance.randrange(100))
    return bytes(found)


def odd_fields(frame: bytes, chance: random.Random) -> bytes:
    """The frame as well-formed msgpack, with one of its values replaced by something odd."""
    fields = msgpack.unpackb(frame)
    place = chance.choice(list(fields) if isinstance(fields, dict) else range(len(fields)))
    fields[place] = chance.choice(ODD)
    packed: bytes = msgpack.packb(fields)
    return packed


def hostile(valid: list[bytes], chance: random.Random) -> Iterator[bytes]:
    for _ in range(INPUTS):
        frame = chance.choice(valid)
        yield odd_fields(frame, chance) if chance.random() < 0.2 else spoilt(frame, chance)


def outcomes(inputs: Iterator[bytes], read: Callable[[bytes], object]) -> Counter[str]:
    """How many inputs were read, and how many raised what."""
    found: Counter[str] = Counter()
    for frame in inputs:
        try:
            read(frame)
        except Exception as error:  # noqa: BLE001  (which ones there are is the question)
            found[type(error).__name__] += 1
        else:
            found["read"] += 1
    return found


def only(error: type[Exception], found: Counter[str]) -> None:
    assert set(found) == {"read", error.__name__}
    assert found.total() == INPUTS
    assert found["read"] > 1000, "a change that leaves the message valid is part of the game"
    assert found[error.__name__] > INPUTS / 2


def test_link_frames_raise_nothing_but_protocol_errors() -> None:
    chance = random.Random(0)

    def read(frame: bytes) -> None:
        frames = [frame, BODY, MARKS]
        if chance.random() < 0.3:
            frames = [chance.choice(HEADERS), spoilt(BODY, chance), spoilt(MARKS, chance)]
        message = decode(frames[: chance.choice((0, 1, 2, 2, 3, 3, 3, 3))] + [b""] * chance.choice((0, 0, 0, 0, 1)))
        table(message, COPIES, WIDTH)
        decode_delivery(message, COPIES)

    only(ProtocolError, outcomes(hostile(HEADERS, chance), read))


def test_control_frames_raise_nothing_but_value_errors() -> None:
    only(ValueError, outcomes(hostile(CONTROL, random.Random(0)), decode_control))
