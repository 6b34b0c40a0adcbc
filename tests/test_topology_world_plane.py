"""The world plane: what the world shows arrives, what agents do is heard, and strangers are refused and harm nobody."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq

from topology.ledger import merge
from topology.links import Context, DealerLinks, PeerLostError, RouterLinks, new_context
from topology.wire import FLOAT32, VERSION, WORLD, Header, Kind, Message, ProtocolError, encode_header
from topology.world_plane import END_TRUNCATED, Sense, WorldHub, WorldPort, pack_sense


class Plane:
    """A world's end and the ends that dial it."""

    def __init__(self, context: Context, folder: Path) -> None:
        self._context = context
        self._links = RouterLinks(context, f"ipc://{folder}/w", deadline_s=5.0)
        self.hub = WorldHub(self._links, n_agents=2, copies=2)
        self._open: list[Any] = [self.hub]

    def port(self, agent: int) -> WorldPort:
        self._open.append(WorldPort(DealerLinks(self._context, agent, self._links.endpoint), agent, world=WORLD, copies=2))
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
    message = end.receive(10.0)
    assert message is not None
    return message


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


def test_both_ends_book_the_same_messages(plane: Plane) -> None:
    ports = plane.joined()
    plane.hub.show([[pack_sense(OBS, REWARD, COST, END)]] * 2, round_=0, step=0, send_time=0.0)
    for port in ports:
        heard(port)
        port.send(Kind.ACT, OBS, round_=0, step=0, send_time=0.1)
        assert heard(plane.hub).arrays[0].tobytes() == OBS.tobytes()
    rows = merge([*plane.hub.drain(), *ports[0].drain(), *ports[1].drain()])
    assert {(row.src, row.dst, row.kind) for row in rows} == {
        *(("world", str(i), "SENSE") for i in range(2)),
        *((str(i), "world", kind) for i in range(2) for kind in ("JOIN", "ACT")),
    }
    assert all(row.messages == row.delivered == 1 and row.dropped == 0 for row in rows)
    assert {row.payload_bytes for row in rows if row.kind == "SENSE"} == {4 * 2 * (3 + 1 + 1 + 1)}


def test_strangers_garbage_and_false_names_are_refused_and_harm_nobody(plane: Plane) -> None:
    def frames(sender: int) -> list[bytes]:
        return [encode_header(Header(VERSION, int(Kind.ACT), FLOAT32, sender, sender, 0, 0, 0, 0, 0.0)), b""]

    for name, sent in ((b"node-9", frames(9)), (b"rogue", frames(1)), (b"other", [b"\xc1", b""]), (b"third", [b""])):
        plane.rogue(name, sent)
    port = plane.port(1)
    port.send(Kind.ACT, OBS, round_=0, step=0, send_time=0.0)
    assert heard(plane.hub).header.sender == 1
    plane.hub.receive(0.5)
    assert len(plane.hub.refused) == 4
    assert any("there is no agent 9" in text for text in plane.hub.refused)
    assert any("a stranger claims to be from agent 1" in text for text in plane.hub.refused)


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
    with pytest.raises(ProtocolError, match="expected 14 numbers"):
        Sense(heard(port), copies=2, obs_dim=4, n_costs=1)
