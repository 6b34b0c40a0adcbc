"""The control plane: what fits a model passes, everything else is ignored and counted."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from topology.planes import control
from topology.planes.control import (
    Control,
    ControlHub,
    ControlPort,
    EpisodeRow,
    Fault,
    Finished,
    Hello,
    Progress,
    Refused,
    RoundReport,
    Start,
    Stop,
    decode_control,
    encode_control,
    refused_at,
    start_of,
)
from topology.process import STOP
from topology.wire.keys import COORDINATOR, Keyring, make_keys
from topology.wire.ledger import Row
from topology.wire.sockets import Context, PeerLostError, new_context

ROW = Row(2, "peer", "0", "1", "STATE", 5, 260, 430, 5, 0)
EPISODE = EpisodeRow(round=1, env_step=40, copy_index=1, ret=-3.5, cost=(1.0, 2.0), length=20)
MESSAGES: list[Control] = [
    Hello(role="node-3", pid=17, endpoint="ipc:///tmp/x", peers=(2, 4)),
    Start(world="ipc:///tmp/w", peers=("a", "b")),
    Stop(reason="enough"),
    Progress(
        round=1,
        env_step=40,
        episodes=(EpisodeRow(round=1, env_step=40, copy_index=1, ret=-3.5, cost=(1.0, 2.0), length=20),),
        traffic=(ROW,),
    ),
    RoundReport(
        role="node-0", agent=0, round=2, virtual_s=1.5, metrics={"kl": 0.1}, traffic=(ROW,), refused=3, refusals=("why",)
    ),
    Finished(role="world", traffic=(ROW,)),
    Refused(role="node-2", connections=7, reasons=("why",)),
    Fault(role="node-1", text="κ"),
]


def test_what_goes_in_comes_out(subtests: pytest.Subtests) -> None:
    for message in MESSAGES:
        with subtests.test(message=message):
            assert decode_control(encode_control(message)) == message


def test_not_a_number_survives_for_it_is_what_a_diverged_learner_reports() -> None:
    report = decode_control(encode_control(MESSAGES[4].model_copy(update={"metrics": {"kl": float("nan")}})))
    assert isinstance(report, RoundReport)
    assert report.metrics["kl"] != report.metrics["kl"]


def test_the_start_tells_a_process_of_the_nodes_that_it_names_and_of_no_others() -> None:
    hellos = {f"node-{i}": Hello(role=f"node-{i}", pid=i, endpoint=f"ipc://{i}") for i in range(4)}
    for named, told in (((3, 1), ("ipc://3", "ipc://1")), ((), ()), ((2, 99), ("ipc://2",))):
        hello = hellos["node-0"].model_copy(update={"peers": named})
        assert start_of(hello, hellos, "ipc://w") == Start(world="ipc://w", peers=told)


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


def test_what_fits_no_message_is_refused(subtests: pytest.Subtests) -> None:
    rows: list[bytes] = [
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
    ]
    for frame in rows:
        with subtests.test(frame=frame), pytest.raises(ValueError, match=r"^control frame"):
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


@pytest.fixture(params=["ipc", "tcp with keys"])
async def hub(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ControlHub]:
    make_keys(tmp_path, 4)
    if request.param == "ipc":
        opened = ControlHub(f"ipc://{tmp_path}/control")
    else:
        opened = ControlHub("tcp://127.0.0.1:*", keys=Keyring.read(tmp_path, COORDINATOR))
    yield opened
    opened.close()


def port_of(role: str, hub: ControlHub, context: Context, folder: Path) -> ControlPort:
    return ControlPort(context, role, hub.endpoint, keys=None if hub.gate is None else Keyring.read(folder, role))


async def heard(hub: ControlHub) -> Control:
    return await asyncio.wait_for(hub.receive(), 10)


async def test_hub_and_port_talk_both_ways(hub: ControlHub, context: Context, tmp_path: Path) -> None:
    port = port_of("node-3", hub, context, tmp_path)
    port.send(MESSAGES[0])
    assert await heard(hub) == MESSAGES[0]
    assert await hub.send("node-3", Stop(reason="enough"))
    assert await asyncio.to_thread(port.receive, 10.0) == Stop(reason="enough")
    assert port.receive(0.0) is None
    port.close()


async def test_strangers_garbage_and_false_names_are_ignored_and_counted(
    hub: ControlHub, context: Context, tmp_path: Path
) -> None:
    port = port_of("node-1", hub, context, tmp_path)
    rogue: Any = port._socket
    rogue.send(b"\xc1")
    rogue.send_multipart([b"a", b"b"])
    rogue.send(encode_control(Fault(role="world", text="in another's name")))
    rogue.send(encode_control(Stop(reason="only the coordinator says so")))
    rogue.send(encode_control(Fault(role="node-1", text="honest")))
    assert await heard(hub) == Fault(role="node-1", text="honest")
    assert hub.refused.total == 4
    assert "in another's name" in hub.refused.texts[2]
    port.close()


async def test_telling_somebody_who_is_gone_does_not_block_and_says_so(hub: ControlHub) -> None:
    assert not await asyncio.wait_for(hub.send("node-9", Stop(reason="x")), 10)


async def test_a_key_speaks_for_no_other_role_than_its_own(context: Context, tmp_path: Path) -> None:
    make_keys(tmp_path, 2)
    hub = ControlHub("tcp://127.0.0.1:*", keys=Keyring.read(tmp_path, COORDINATOR))
    rogue = ControlPort(context, "node-1", hub.endpoint, keys=Keyring.read(tmp_path, "node-0"))
    honest = port_of("node-0", hub, context, tmp_path)
    rogue.send(Fault(role="node-1", text="I give up"))
    for _ in range(500):  # the rogue's handshake may take longer than the honest one's
        honest.send(Fault(role="node-0", text="honest"))
        assert await heard(hub) == Fault(role="node-0", text="honest")
        if hub.refused.total:
            break
        await asyncio.sleep(0.01)
    assert hub.refused.texts == ["control message of node-0 from a socket that calls itself 'node-1'"]
    for port in (rogue, honest):
        port.close()
    hub.close()


async def test_what_a_gate_kept_out_is_reported_once_there_is_something(context: Context, tmp_path: Path) -> None:
    for folder in ("ours", "theirs"):
        (tmp_path / folder).mkdir()
        make_keys(tmp_path / folder, 1)
    ours, theirs = (Keyring.read(tmp_path / folder, "node-0") for folder in ("ours", "theirs"))
    hub = ControlHub("tcp://127.0.0.1:*", keys=Keyring.read(tmp_path / "ours", COORDINATOR))
    assert refused_at(hub.gate, COORDINATOR) == refused_at(None, COORDINATOR) == []
    mixed = Keyring("node-0", theirs.secret, {**theirs.public, COORDINATOR: ours.public[COORDINATOR]})
    rogue = ControlPort(context, "node-0", hub.endpoint, keys=mixed)
    for _ in range(500):
        if refused_at(hub.gate, COORDINATOR):
            break
        await asyncio.sleep(0.01)
    (refused,) = refused_at(hub.gate, COORDINATOR)
    assert (refused.role, refused.connections) == (COORDINATOR, 1)
    assert len(refused.reasons) <= 1
    rogue.close()
    hub.close()


async def test_what_was_sent_before_closing_still_arrives(hub: ControlHub, context: Context, tmp_path: Path) -> None:
    port = port_of("node-1", hub, context, tmp_path)
    port.send(Fault(role="node-1", text="last words"))
    port.close()
    assert await heard(hub) == Fault(role="node-1", text="last words")


@pytest.mark.parametrize(("asked", "status", "told"), [(True, 0, []), (False, 1, ["Fault"])])
def test_a_peer_that_is_gone_is_no_fault_of_a_process_that_was_asked_to_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: bool, status: int, told: list[str]
) -> None:
    sent: list[str] = []
    port = ControlPort.__new__(ControlPort)
    port._role = "world"
    monkeypatch.setattr(port, "send", lambda message: sent.append(type(message).__name__), raising=False)
    monkeypatch.setattr(STOP, "asked", asked)

    def work() -> None:
        raise PeerLostError("agent 3 cannot be reached")

    assert port.perform(work, tmp_path / "world.log") == status
    assert sent == told
