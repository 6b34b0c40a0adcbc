"""The control plane: what fits a model passes, everything else is ignored and counted."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st

from topology import control
from topology.control import (
    Control,
    ControlHub,
    ControlPort,
    EpisodeRow,
    Fault,
    Finished,
    Hello,
    Progress,
    RoundReport,
    Start,
    Stop,
    decode_control,
    encode_control,
)
from topology.ledger import Row
from topology.links import Context, new_context

ROW = Row(2, "peer", "0", "1", "STATE", 5, 260, 430, 5, 0)
EPISODE = EpisodeRow(round=1, env_step=40, copy_index=1, ret=-3.5, cost=(1.0, 2.0), length=20)
MESSAGES: list[Control] = [
    Hello(role="node-3", pid=17, endpoint="ipc:///tmp/x"),
    Start(world="ipc:///tmp/w", peers=("a", "b")),
    Stop(reason="enough"),
    Progress(
        round=1,
        env_step=40,
        episodes=(EpisodeRow(round=1, env_step=40, copy_index=1, ret=-3.5, cost=(1.0, 2.0), length=20),),
        traffic=(ROW,),
    ),
    RoundReport(role="node-0", agent=0, round=2, virtual_s=1.5, metrics={"kl": 0.1}, traffic=(ROW,), refused=("why",)),
    Finished(role="world", traffic=(ROW,)),
    Fault(role="node-1", text="κ"),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message.type)
def test_what_goes_in_comes_out(message: Control) -> None:
    assert decode_control(encode_control(message)) == message


def test_not_a_number_survives_for_it_is_what_a_diverged_learner_reports() -> None:
    report = decode_control(encode_control(MESSAGES[4].model_copy(update={"metrics": {"kl": float("nan")}})))
    assert isinstance(report, RoundReport)
    assert report.metrics["kl"] != report.metrics["kl"]


def only_value_error(frame: bytes) -> None:
    told = "control frame"
    try:
        decode_control(frame)
    except ValueError as error:
        told = str(error)
    assert told.startswith("control frame")


@given(frame=st.binary(max_size=300))
def test_random_bytes_raise_nothing_but_value_errors(frame: bytes) -> None:
    only_value_error(frame)


@given(data=st.data(), which=st.integers(0, len(MESSAGES) - 1))
def test_mutated_messages_raise_nothing_but_value_errors(data: st.DataObject, which: int) -> None:
    frame = bytearray(encode_control(MESSAGES[which]))
    for _ in range(data.draw(st.integers(1, 3))):
        frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    only_value_error(bytes(frame))


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\x91" * 100_000,  # nested a hundred thousand deep
        msgpack.packb([]),
        msgpack.packb({"type": "order", "role": "world"}),
        msgpack.packb({"type": "fault", "role": "world"}),
        msgpack.packb({"type": "fault", "role": "world", "text": "x", "more": 1}),
        msgpack.packb({"type": "hello", "role": "node-0", "pid": "many", "endpoint": "x"}),
        msgpack.packb({"type": "finished", "role": "world", "traffic": [[1, 2, 3]]}),
        msgpack.packb({1: 2}),
        msgpack.packb({"type": {}}),
        b"\xdf\xff\xff\xff\xff",
        b"\xc7\x03\xff\x00\x00\x00",  # a timestamp of no valid length
    ],
    ids=range(12),
)
def test_what_fits_no_message_is_refused(frame: bytes) -> None:
    with pytest.raises(ValueError, match=r"^control frame"):
        decode_control(frame)


def test_an_oversized_frame_is_refused_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "MAX_CONTROL_BYTES", 10)
    with pytest.raises(ValueError, match="11 bytes, at most 10"):
        decode_control(bytes(11))


@pytest.fixture
def context() -> Iterator[Context]:
    opened = new_context()
    yield opened
    opened.destroy(linger=0)  # also what a failing test left open


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[ControlHub]:
    opened = ControlHub(f"ipc://{tmp_path}/control")
    yield opened
    opened.close()


async def heard(hub: ControlHub) -> Control:
    return await asyncio.wait_for(hub.receive(), 10)


async def test_hub_and_port_talk_both_ways(hub: ControlHub, context: Context) -> None:
    port = ControlPort(context, "node-3", hub.endpoint)
    port.send(MESSAGES[0])
    assert await heard(hub) == MESSAGES[0]
    await hub.send("node-3", Stop(reason="enough"))
    assert await asyncio.to_thread(port.receive, 10.0) == Stop(reason="enough")
    assert port.receive(0.0) is None
    port.close()


async def test_strangers_garbage_and_false_names_are_ignored_and_counted(hub: ControlHub, context: Context) -> None:
    rogue: Any = context.socket(zmq.DEALER)
    rogue.setsockopt(zmq.ROUTING_ID, b"node-1")
    rogue.connect(hub.endpoint)
    rogue.send(b"\xc1")
    rogue.send_multipart([b"a", b"b"])
    rogue.send(encode_control(Fault(role="world", text="in another's name")))
    rogue.send(encode_control(Stop(reason="only the coordinator says so")))
    rogue.send(encode_control(Fault(role="node-1", text="honest")))
    assert await heard(hub) == Fault(role="node-1", text="honest")
    assert len(hub.refused) == 4
    assert "in another's name" in hub.refused[2]
    rogue.close()


async def test_telling_somebody_who_is_gone_neither_blocks_nor_fails(hub: ControlHub) -> None:
    await asyncio.wait_for(hub.send("node-9", Stop(reason="x")), 10)


async def test_what_was_sent_before_closing_still_arrives(hub: ControlHub, context: Context) -> None:
    port = ControlPort(context, "node-1", hub.endpoint)
    port.send(Fault(role="node-1", text="last words"))
    port.close()
    assert await heard(hub) == Fault(role="node-1", text="last words")
