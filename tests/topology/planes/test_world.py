"""The world plane: what the world shows arrives, what agents do is heard, and strangers are refused and harm nobody."""

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq

from scenarios.kinds import Kind
from topology.planes.world import END_TRUNCATED, Sense, WorldHub, WorldPort, pack_sense
from topology.wire.frame import FLOAT32, VERSION, WORLD, Header, Message, ProtocolError, encode_header
from topology.wire.ledger import Row, wire_bytes
from topology.wire.refusals import KEPT
from topology.wire.sockets import Context, DealerLinks, MemoryLinks, PeerLostError, RouterLinks, new_context


class Plane:
    """A world's end and the ends that dial it."""

    def __init__(self, context: Context, folder: Path) -> None:
        self._context = context
        self._links = RouterLinks(context, f"ipc://{folder}/w", deadline_s=5.0)
        self.hub = WorldHub(self._links, n_agents=2, copies=2)
        self._open: list[Any] = [self.hub]

    def port(self, agent: int) -> WorldPort:
        self._open.append(
            WorldPort(DealerLinks(self._context, agent, self._links.endpoint, deadline_s=5.0), agent, world=WORLD, copies=2)
        )
        port: WorldPort = self._open[-1]
        return port

    def joined(self) -> list[WorldPort]:
        ports = [self.port(agent) for agent in range(2)]
        for port in ports:
            port.send(Kind.JOIN, np.zeros(0, np.float32), round_=0, step=0, send_time=0.0)
            assert heard(self.hub).header.kind == Kind.JOIN
        return ports

    def rogue(self, name: bytes, frames: list[bytes]) -> None:
        socket = self._context.socket(zmq.DEALER)
        self._open.append(socket)
        socket.setsockopt(zmq.ROUTING_ID, name)
        socket.connect(self._links.endpoint)
        socket.send_multipart(frames)

    def close(self) -> None:
        for end in self._open:
            end.close()


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[Plane]:
    context = new_context()
    opened = Plane(context, tmp_path)
    yield opened
    opened.close()
    context.destroy(linger=0)


def heard(end: WorldHub | WorldPort) -> Message:
    """The next acceptable message, booked."""
    for _ in range(1000):
        message = end.receive(10.0)
        if message is not None:
            if isinstance(end, WorldHub):
                end.taken(message.header)
            return message
    pytest.fail("nothing acceptable came")


OBS = np.arange(6, dtype=np.float32).reshape(2, 3)
REWARD = np.array([0.5, -1.5], np.float32)
COST = np.array([[1.0], [0.0]], np.float32)
END = np.array([0.0, END_TRUNCATED], np.float32)


@pytest.mark.parametrize("ended", [False, True])
def test_what_the_world_shows_is_what_the_agent_senses(plane: Plane, ended: bool) -> None:
    ports = plane.joined()
    rows = pack_sense(OBS, REWARD, COST, END)
    last = [OBS + 10] if ended else []
    plane.hub.show([[rows, *last], [rows + 1, *last]], round_=3, step=4, send_time=0.2)
    sense = Sense(heard(ports[0]), copies=2, obs_dim=3, n_costs=1)
    assert (sense.round, sense.step) == (3, 4)
    for found, shown in ((sense.obs, OBS), (sense.reward, REWARD), (sense.cost, COST), (sense.end, END)):
        assert found.tobytes() == shown.tobytes()
    assert (sense.final_obs is None) != ended
    if sense.final_obs is not None:
        assert sense.final_obs.tobytes() == (OBS + 10).tobytes()
    other = Sense(heard(ports[1]), copies=2, obs_dim=3, n_costs=1)
    assert other.obs.tobytes() == (OBS + 1).tobytes()


def counts(row: Row) -> tuple[tuple[str, str, str, int], int, int]:
    assert row.dropped == row.in_flight == row.resent_bytes == 0
    return (row.src, row.dst, row.kind, row.round), row.messages, row.delivered


def test_both_ends_book_the_same_messages(plane: Plane) -> None:
    ports = plane.joined()
    plane.hub.show([[pack_sense(OBS, REWARD, COST, END)]] * 2, round_=0, step=0, send_time=0.0)
    for port in ports:
        heard(port)
        port.send(Kind.ACT, OBS, round_=0, step=0, send_time=0.1)
        assert heard(plane.hub).bodies[0] == OBS.tobytes()
        port.send(Kind.READY, np.zeros(0, np.float32), round_=1, step=0, send_time=0.7)
        assert heard(plane.hub).header.kind == Kind.READY
    plane.hub.go(round_=1, send_time=0.75)
    for port in ports:
        header = heard(port).header
        assert (header.kind, header.sender, header.round, header.step, header.send_time) == (Kind.GO, WORLD, 1, 0, 0.75)
    rows = [counts(row) for page in (plane.hub.drain(), *(port.drain() for port in ports)) for row in page]
    sent = Counter({key: messages for key, messages, _ in rows if messages})
    came = Counter({key: delivered for key, _, delivered in rows if delivered})
    assert sent == came
    assert sent == Counter({
        **{("world", str(i), kind, int(kind == "GO")): 2 for i in range(2) for kind in ("SENSE", "GO")},
        **{(str(i), "world", kind, int(kind == "READY")): 2 for i in range(2) for kind in ("JOIN", "ACT", "READY")},
    })


def over_memory(copies: int = 2, *, forgiving: bool = False) -> tuple[WorldHub, list[WorldPort], list[MemoryLinks]]:
    """Two agents and their world within one process."""
    *carriers, of_world = MemoryLinks.mesh(3)
    hub = WorldHub(of_world, n_agents=2, copies=copies, forgiving=forgiving)
    return hub, [WorldPort(carrier, i, world=2, copies=copies) for i, carrier in enumerate(carriers)], carriers


def header_bytes(kind: Kind, *, sender: int = WORLD, round_: int = 0, step: int = 0, time: float = 0.0) -> int:
    return len(encode_header(Header(VERSION, int(kind), FLOAT32, sender, sender, round_, step, 0, 0, time)))


def test_each_copy_is_charged_its_own_frames_and_only_numbers_are_payload() -> None:
    hub, (port, _), _ = over_memory()
    rows = pack_sense(OBS, REWARD, COST, END)
    hub.show([[rows, OBS], [rows]], round_=0, step=0, send_time=0.0)
    hub.go(round_=0, send_time=0.0)
    port.send(Kind.ACT, OBS, round_=0, step=0, send_time=0.0)
    told = {(row.dst, row.kind): (row.messages, row.payload_bytes, row.wire_bytes) for row in [*hub.drain(), *port.drain()]}
    sense, empty = header_bytes(Kind.SENSE), wire_bytes(header_bytes(Kind.GO), 0, copies=2)
    assert told == {
        ("0", "SENSE"): (2, 72, wire_bytes(sense, 24, 12, copies=2)),
        ("1", "SENSE"): (2, 48, wire_bytes(sense, 24, copies=2)),
        ("0", "GO"): (2, 0, empty),
        ("1", "GO"): (2, 0, empty),
        ("world", "ACT"): (2, 24, wire_bytes(header_bytes(Kind.ACT, sender=0), 12, copies=2)),
    }


def test_an_agent_that_is_lost_is_sent_nothing_more_and_nothing_is_booked() -> None:
    hub, ports, _ = over_memory()
    rows = pack_sense(OBS, REWARD, COST, END)
    hub.lose(1)
    hub.show([[rows], [rows]], round_=0, step=0, send_time=0.0)
    hub.go(round_=1, send_time=0.0)
    assert [message.header.kind for message in iter(lambda: ports[0].receive(0.0), None)] == [Kind.SENSE, Kind.GO]
    assert ports[1].receive(0.0) is None
    assert {row.dst for row in hub.drain()} == {"0"}


@pytest.mark.parametrize("forgiving", [False, True])
def test_an_agent_out_of_reach_ends_the_run_unless_somebody_will_tell_of_its_death(
    forgiving: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub, ports, _ = over_memory(forgiving=forgiving)
    to_all = MemoryLinks.send

    def send(self: MemoryLinks, to: int, frames: list[bytes]) -> None:
        if to == 0:
            raise PeerLostError("agent 0 cannot be reached")
        to_all(self, to, frames)

    monkeypatch.setattr(MemoryLinks, "send", send)
    if not forgiving:
        with pytest.raises(PeerLostError):
            hub.go(round_=1, send_time=0.0)
        return
    hub.go(round_=1, send_time=0.0)
    assert heard(ports[1]).header.kind == Kind.GO
    assert {row.dst for row in hub.drain()} == {"1"}


def test_a_flood_of_bad_frames_is_counted_and_forgotten() -> None:
    hub, ports, carriers = over_memory()
    for _ in range(3 * KEPT):
        carriers[0].send(2, [b"\xc1", b""])
    ports[1].send(Kind.ACT, OBS, round_=0, step=0, send_time=0.0)
    assert heard(hub).header.sender == 1
    total, texts = hub.refused.drain()
    assert (total, len(texts)) == (3 * KEPT, KEPT)
    assert all("not msgpack" in text for text in texts)


def test_strangers_garbage_and_false_names_are_refused_and_harm_nobody(plane: Plane) -> None:
    def frames(sender: int) -> list[bytes]:
        return [encode_header(Header(VERSION, int(Kind.ACT), FLOAT32, sender, sender, 0, 0, 0, 0, 0.0)), b""]

    for name, sent in ((b"node-9", frames(9)), (b"rogue", frames(1)), (b"other", [b"\xc1", b""]), (b"third", [b""])):
        plane.rogue(name, sent)
    port = plane.port(1)
    port.send(Kind.ACT, OBS, round_=0, step=0, send_time=0.0)
    assert heard(plane.hub).header.sender == 1
    deadline = time.monotonic() + 10
    while plane.hub.refused.total < 4 and time.monotonic() < deadline:
        assert plane.hub.receive(0.5) is None
    total, texts = plane.hub.refused.drain()
    assert total == len(texts) == 4
    assert any("there is no agent 9" in text for text in texts)
    assert any("a stranger claims to be from agent 1" in text for text in texts)


def test_an_agent_that_is_gone_is_named(plane: Plane) -> None:
    plane.joined()[1].close()
    rows = pack_sense(OBS, REWARD, COST, END)

    def show_on() -> None:
        for step in range(2000):
            plane.hub.show([[rows], [rows]], round_=0, step=step, send_time=0.0)

    with pytest.raises(PeerLostError, match="agent 1 cannot be reached"):
        show_on()


def test_an_observation_of_another_size_is_a_protocol_error(plane: Plane) -> None:
    port = plane.joined()[0]
    plane.hub.show([[pack_sense(OBS, REWARD, COST, END)]], round_=0, step=0, send_time=0.0)
    with pytest.raises(ProtocolError, match="expected 2 rows of 7 numbers as float32, got 48 bytes"):
        Sense(heard(port), copies=2, obs_dim=4, n_costs=1)
