"""The wire format: what goes in comes out, and nothing that comes in raises anything but ProtocolError."""

from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from scenarios.kinds import Kind
from topology.wire import frame
from topology.wire.codec import DType, encode
from topology.wire.frame import FLOAT32, MAX_COUNT, MAX_ID, VERSION, Delivery, Header, Message, ProtocolError

HEADER = Header(VERSION, int(Kind.STATE), FLOAT32, 3, 1, 7, 12, 2, 99, 0.05)

TOPS = (VERSION, 255, max(DType), MAX_ID, MAX_ID, MAX_COUNT, MAX_COUNT, MAX_ID, MAX_COUNT)

headers = st.builds(
    Header,
    version=st.just(VERSION),
    kind=st.sampled_from([int(kind) for kind in Kind]),
    dtype=st.sampled_from([int(dtype) for dtype in DType]),
    sender=st.integers(0, MAX_ID),
    origin=st.integers(0, MAX_ID),
    round=st.integers(0, MAX_COUNT),
    step=st.integers(0, MAX_COUNT),
    hops_left=st.integers(0, MAX_ID),
    seq=st.integers(0, MAX_COUNT),
    send_time=st.floats(0, allow_infinity=False),
)


def frames_of(header: Header, *arrays: bytes) -> list[bytes]:
    return [frame.encode_header(header), *arrays]


@given(header=headers, bodies=st.lists(st.binary(max_size=40), min_size=1, max_size=2))
def test_what_goes_in_comes_out(header: Header, bodies: list[bytes]) -> None:
    assert frame.decode(frames_of(header, *bodies)) == Message(header, tuple(bodies))


@given(header=headers)
def test_no_header_is_longer_than_its_cap(header: Header) -> None:
    assert len(frame.encode_header(header)) <= frame.MAX_HEADER_BYTES


def only_protocol_error(frames: list[bytes]) -> frame.Message | None:
    try:
        return frame.decode(frames)
    except ProtocolError as error:
        told = str(error)
    assert told
    assert "\n" not in told
    assert len(told) < 500
    return None


@given(frames=st.lists(st.binary(max_size=200), max_size=5))
def test_random_bytes_raise_nothing_but_protocol_errors(frames: list[bytes]) -> None:
    only_protocol_error(frames)


values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=3) | st.binary(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2) | st.integers(0, 9), inner, max_size=2),
    max_leaves=6,
)


@given(place=st.integers(0, 9), value=values)
@example(place=9, value=float("nan"))
@example(place=9, value=float("inf"))
@example(place=9, value=-0.5)
@example(place=9, value=1)
@example(place=3, value=True)
def test_a_field_of_another_type_or_range_is_refused(place: int, value: Any) -> None:
    fields = [*HEADER]
    fields[place] = value
    message = only_protocol_error([msgpack.packb(fields), bytes(8)])
    if message is not None:
        assert type(message.header[place]) is (float if place == 9 else int)
        assert message.header[place] == value


@given(data=st.data())
def test_a_mutated_frame_decodes_to_numbers_in_range_or_is_refused(data: st.DataObject) -> None:
    raw = bytearray(frame.encode_header(HEADER))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(raw) - 1))
        how = data.draw(st.sampled_from(["flip", "cut", "insert", "double"]))
        if how == "flip":
            raw[place] = data.draw(st.integers(0, 255))
        elif how == "cut":
            raw = raw[: max(place, 1)]
        elif how == "insert":
            raw[place:place] = data.draw(st.binary(min_size=1, max_size=4))
        else:
            raw = raw + raw
    message = only_protocol_error([bytes(raw), bytes(8)])
    if message is not None:
        for field, top in zip(message.header[:-1], TOPS, strict=True):
            assert type(field) is int
            assert 0 <= field <= top


GOOD = frame.encode_header(HEADER)


def test_every_malformed_message_is_refused_with_a_reason(subtests: pytest.Subtests) -> None:
    rows: list[tuple[list[bytes], str]] = [
        ([], "got 0 frames"),
        ([GOOD], "got 1 frames"),
        ([GOOD, b"", b"", b""], "got 4 frames"),
        ([b"", b""], "header"),
        ([b"\xc1", b""], "not msgpack"),
        ([GOOD + b"\x00", b""], "not msgpack"),
        ([GOOD[:-1], b""], "not msgpack"),
        ([bytes(129), b""], "129 bytes"),
        ([b"\x91" * 128, b""], "not msgpack"),  # 128 nested arrays
        ([msgpack.packb([*HEADER][:-1]), b""], "array of 10 numbers"),
        ([msgpack.packb([*HEADER, 0]), b""], "not msgpack"),  # the array cap, before anything is built
        ([b"\xdd\xff\xff\xff\xff", b""], "not msgpack"),  # claims 4 G elements
        ([b"\xc6\xff\xff\xff\xff", b""], "not msgpack"),  # claims 4 GB of bytes
        ([b"\xdf\xff\xff\xff\xff", b""], "not msgpack"),
        ([msgpack.packb({1: 2}), b""], "not msgpack"),
        ([msgpack.packb("x"), b""], "not msgpack"),
        ([msgpack.packb(7), b""], "array of 10 numbers"),
        ([msgpack.packb(msgpack.ExtType(5, b"")), b""], "array of 10 numbers"),
        (frames_of(HEADER._replace(version=0), b""), "header: version 0, kind 1, dtype 1; expected 1, one of"),
        (frames_of(HEADER._replace(version=2), b""), "header: version 2,"),
        (frames_of(HEADER._replace(kind=15), b""), "header: version 1, kind 15,"),
        (frames_of(HEADER._replace(dtype=0), b""), "dtype 0;"),
        (
            frames_of(HEADER._replace(dtype=5), b""),
            f"dtype 5; expected 1, one of {[*map(int, Kind)]}, one of [1, 2, 3, 4]",
        ),
        (frames_of(HEADER._replace(sender=MAX_ID + 1), b""), "header.sender: expected an int in 0..65535, got 65536"),
        (frames_of(HEADER._replace(round=-1), b""), "header.round"),
        (frames_of(HEADER._replace(send_time=-0.5), b""), "header.send_time: expected seconds from 0, got -0.5"),
        (frames_of(HEADER._replace(send_time=float("nan")), b""), "header.send_time"),
        (frames_of(HEADER._replace(send_time=float("inf")), b""), "header.send_time"),
        (frames_of(HEADER._replace(send_time=1), b""), "header.send_time"),
        (frames_of(HEADER._replace(step=MAX_COUNT + 1), b""), "header.step"),
    ]
    for frames, told in rows:
        with subtests.test(told=told), pytest.raises(ProtocolError, match=told.replace("[", r"\[")):
            frame.decode(frames)


def test_sizes_are_checked_before_anything_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame, "MAX_ARRAY_BYTES", 8)
    monkeypatch.setattr(frame, "decode_header", lambda frame: pytest.fail("decoded too early"))
    with pytest.raises(ProtocolError, match="array: 12 bytes"):
        frame.decode([GOOD, bytes(12)])


TABLE = np.arange(6, dtype=np.float32).reshape(2, 3)


def test_a_buffer_is_read_as_the_header_says(subtests: pytest.Subtests) -> None:
    for dtype in DType:
        with subtests.test(dtype=dtype):
            frames = frames_of(HEADER._replace(dtype=int(dtype)), b"", encode(TABLE, dtype))
            assert np.abs(frame.table(frame.decode(frames), 2, 3, index=1) - TABLE).max() <= (0.02 if dtype is DType.INT8 else 0)


def test_an_array_of_another_size_than_its_kind_demands_is_refused(subtests: pytest.Subtests) -> None:
    for dtype in DType:
        with subtests.test(dtype=dtype):
            message = frame.decode(frames_of(HEADER._replace(dtype=int(dtype)), encode(TABLE, dtype)))
            for rows, width in ((2, 4), (1, 3), (0, 3), (3, 3)):
                told = (
                    f"STATE of 1 from 3, round 7, step 12: expected {rows} rows of {width} numbers as {dtype.name.lower()}, got "
                )
                with pytest.raises(ProtocolError, match=told):
                    frame.table(message, rows, width)
            with pytest.raises(ProtocolError, match="STATE of 1 from 3, round 7, step 12: expected 2 buffers, got 1"):
                frame.table(message, 2, 3, index=1)


def marked(body: bytes) -> Message:
    return frame.decode([GOOD, b"", body])


arrivals = st.lists(st.tuples(st.floats(0, allow_infinity=True, allow_nan=False), st.booleans()), min_size=1, max_size=9)


@given(copies=arrivals)
def test_delivery_comes_out_as_it_went_in(copies: list[tuple[float, bool]]) -> None:
    delivery = Delivery(np.array([arrive for arrive, _ in copies]), np.array([null for _, null in copies]))
    found = frame.decode_delivery(marked(frame.encode_delivery(delivery)), len(copies))
    assert found is not None
    assert (found.arrive.tolist(), found.null.tolist()) == (delivery.arrive.tolist(), delivery.null.tolist())
    assert found.null.dtype == np.bool_


def test_a_message_without_a_second_buffer_has_no_delivery() -> None:
    assert frame.decode_delivery(frame.decode([GOOD, bytes(18)]), 2) is None


def delivery_body(*arrive: float, null: bytes = bytes(2)) -> bytes:
    return np.array(arrive, "<f8").tobytes() + null


def test_delivery_that_cannot_be_is_refused(subtests: pytest.Subtests) -> None:
    rows: list[tuple[bytes, str]] = [
        (b"", "expected a delivery of 18 bytes, got 0"),
        (delivery_body(1.0, null=bytes(1)), "expected a delivery of 18 bytes, got 9"),
        (delivery_body(1.0, 2.0, null=bytes(3)), "expected a delivery of 18 bytes, got 19"),
        (delivery_body(1.0, -1e-300), "delivery out of range"),
        (delivery_body(float("nan"), 1.0), "delivery out of range"),
        (delivery_body(float("-inf"), 1.0), "delivery out of range"),
        (delivery_body(1.0, 2.0, null=b"\x00\x02"), "delivery out of range"),
        (delivery_body(1.0, 2.0, null=b"\xff\x01"), "delivery out of range"),
    ]
    for body, told in rows:
        with subtests.test(told=told), pytest.raises(ProtocolError, match=f"STATE of 1 from 3, round 7, step 12: {told}"):
            frame.decode_delivery(marked(body), 2)


@given(body=st.binary(min_size=16, max_size=20), copies=st.integers(1, 3))
def test_random_delivery_is_in_range_or_refused(body: bytes, copies: int) -> None:
    try:
        found = frame.decode_delivery(marked(body), copies)
    except ProtocolError:
        return
    assert found is not None
    assert len(found.arrive) == len(found.null) == copies
    assert (found.arrive >= 0).all()


def test_framing_costs_two_bytes_up_to_255_and_nine_above() -> None:
    assert [frame.framed(size) - size for size in (0, 1, 255, 256, 1 << 20)] == [2, 2, 2, 9, 9]


def test_kinds_and_version_are_what_is_on_the_wire() -> None:
    # a change here is a change of the format: raise VERSION
    assert VERSION == 1
    assert {kind.name: int(kind) for kind in Kind} == {
        "STATE": 1, "RATIO": 2, "REWARD": 3, "BOOTSTRAP": 4, "RATIO_MB": 5, "SCORE": 6, "TOKEN": 7,
        "JOINT": 8, "ADVANTAGE": 9, "POLICY": 10, "PARAMETERS": 11, "SHARED": 12, "CONSENSUS": 13, "MULTIPLIER": 14,
        "SENSE": 16, "ACT": 17, "JOIN": 18, "READY": 19, "GO": 20,
    }  # fmt: skip
    assert {dtype.name: int(dtype) for dtype in DType} == {"FLOAT32": 1, "FLOAT16": 2, "BFLOAT16": 3, "INT8": 4}
    assert GOOD.hex() == "9a0101010301070c0263cb3fa999999999999a"
