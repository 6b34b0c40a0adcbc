"""The contract of `topology.wire.sockets.Links`, sentence by sentence, on both carriers; and what ZeroMQ adds to it."""

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq

from topology.planes.control import ControlHub
from topology.wire.frame import frame_limit
from topology.wire.keys import COORDINATOR, WORLD_ROLE, Keyring, make_keys, role_of
from topology.wire.sockets import (
    STRANGER,
    Context,
    DealerLinks,
    Links,
    MemoryLinks,
    PeerLostError,
    RouterLinks,
    ZmqLinks,
    ipc_endpoint,
    new_context,
)

DEADLINE_S = 0.2  # what a full link is given
SOON_S = 5.0  # what takes microseconds, on a machine that is busy with other things
Mesh = list[Links]
MakeMesh = Callable[[int], Mesh]


@pytest.fixture
def context() -> Iterator[Context]:
    opened = new_context()
    yield opened
    opened.destroy(linger=0)  # also what a failing test left open


@pytest.fixture(params=["ipc", "tcp", "tcp with keys", "memory"])
def mesh(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeMesh]:
    """Makes n nodes that all reach each other."""
    open_: Mesh = []
    contexts: list[Context] = []
    folder = tmp_path_factory.mktemp("s")

    def opened(agent: int, n: int) -> ZmqLinks:
        contexts.append(new_context())  # as in a process of its own
        bind = ipc_endpoint(folder, str(agent)) if request.param == "ipc" else "tcp://127.0.0.1:*"
        keys = Keyring.read(folder, role_of(agent)) if request.param == "tcp with keys" else None
        return ZmqLinks(contexts[-1], bind, deadline_s=SOON_S, depth=1000, keys=keys, receives_from=range(n))

    def make(n: int) -> Mesh:
        if request.param == "memory":
            open_.extend(MemoryLinks.mesh(n))
            return open_
        make_keys(folder, n)
        nodes = [opened(agent, n) for agent in range(n)]
        for i, node in enumerate(nodes):
            node.connect({j: other.endpoint for j, other in enumerate(nodes) if j != i})
        open_.extend(nodes)
        return open_

    yield make
    for links_ in open_:
        links_.close()
    for context in contexts:
        context.destroy(linger=0)


def received(node: Links, count: int) -> list[list[bytes]]:
    found: list[list[bytes]] = []
    deadline = time.monotonic() + SOON_S
    while len(found) < count and time.monotonic() < deadline:
        frames = node.receive(0.2)
        if frames is not None:
            found.append(frames)
    return found


def test_per_link_the_order_is_kept_and_nothing_is_lost_or_doubled(mesh: MakeMesh) -> None:
    nodes = mesh(3)
    for number in range(200):
        for sender in (0, 1):
            nodes[sender].send(2, (b"%d" % sender, b"%d" % number))
    found = received(nodes[2], 400)
    for sender in (0, 1):
        assert [int(number) for who, number in found if int(who) == sender] == list(range(200))
    assert [node.receive(0.0) for node in nodes] == [None] * 3


def test_a_multipart_arrives_whole_frame_by_frame(mesh: MakeMesh) -> None:
    nodes = mesh(2)
    sent = [b"head", b"", bytes(300), b"\x00" * 60_000]
    nodes[0].send(1, sent)
    assert received(nodes[1], 1) == [sent]


def test_what_arrives_does_not_change_with_what_was_sent(mesh: MakeMesh) -> None:
    nodes = mesh(2)
    buffer = bytearray(b"before")
    nodes[0].send(1, (b"head", bytes(buffer)))
    buffer[:] = b"after!"
    assert received(nodes[1], 1) == [[b"head", b"before"]]


def test_a_message_reaches_only_the_node_it_was_sent_to(mesh: MakeMesh) -> None:
    nodes = mesh(3)
    nodes[0].send(1, (b"x", b"y"))
    assert received(nodes[1], 1) == [[b"x", b"y"]]
    assert nodes[2].receive(0.0) is None
    assert nodes[0].receive(0.0) is None


def test_receive_does_not_wait_when_told_not_to_and_never_beyond_its_timeout(mesh: MakeMesh) -> None:
    (node, _) = mesh(2)
    for timeout_s in (0.0, 0.1, 0.0):  # 0 after 0.1: a timeout is not remembered
        start = time.monotonic()
        assert node.receive(timeout_s) is None
        assert time.monotonic() - start < timeout_s + 1.0  # no wait at all would take 0 s; a hang would take for ever


def test_frames_already_sent_still_arrive_after_the_sender_gave_its_links_up(mesh: MakeMesh) -> None:
    nodes = mesh(2)
    for number in range(20):
        nodes[0].send(1, (b"last", b"%d" % number))
    nodes[0].close()
    assert [int(number) for _, number in received(nodes[1], 20)] == list(range(20))


def test_closing_twice_does_no_harm(mesh: MakeMesh) -> None:
    for node in mesh(2):
        node.close()
        node.close()


# ------------------------------------------------------------------------------------------------------------- ZeroMQ alone


@pytest.fixture
def pair(context: Context, tmp_path: Path) -> Iterator[tuple[ZmqLinks, ZmqLinks]]:
    sender = ZmqLinks(context, f"ipc://{tmp_path}/a", deadline_s=DEADLINE_S, depth=4)
    receiver = ZmqLinks(context, f"ipc://{tmp_path}/b", deadline_s=DEADLINE_S, depth=4)
    sender.connect({7: receiver.endpoint, 8: f"ipc://{tmp_path}/nobody"})
    yield sender, receiver
    for outbox in sender._outboxes.values():
        outbox.socket.setsockopt(zmq.LINGER, 0)  # what nobody takes shall not hold the test up
    sender.close()
    receiver.close()


def fill(sender: ZmqLinks, to: int) -> int:
    """How many frames a link takes before it is full."""
    for number in range(500):
        try:
            sender.send(to, (b"%d" % number, bytes(65536)))
        except PeerLostError as error:
            told = str(error)
        else:
            continue
        assert told == f"agent {to} took no message for 0.2 s"
        return number
    pytest.fail("a link that nobody reads took 32 MB")


def test_a_full_outbox_blocks_until_its_deadline_and_then_names_the_peer(pair: tuple[ZmqLinks, ZmqLinks]) -> None:
    start = time.monotonic()
    assert fill(pair[0], 7) >= 4
    assert time.monotonic() - start >= 0.9 * DEADLINE_S  # ZeroMQ counts whole milliseconds


def test_a_peer_that_was_never_there_is_lost_too(pair: tuple[ZmqLinks, ZmqLinks]) -> None:
    assert fill(pair[0], 8) == 4


def test_nothing_of_a_full_link_is_dropped_silently(pair: tuple[ZmqLinks, ZmqLinks]) -> None:
    sender, receiver = pair
    taken = fill(sender, 7)
    assert [int(frames[0]) for frames in received(receiver, taken)] == list(range(taken))
    sender.send(7, (b"again", b""))
    assert received(receiver, 1) == [[b"again", b""]]


def test_a_full_link_blocks_no_other(pair: tuple[ZmqLinks, ZmqLinks]) -> None:
    sender, receiver = pair
    fill(sender, 8)
    sender.send(7, (b"x", b"y"))
    assert received(receiver, 1) == [[b"x", b"y"]]


def test_a_frame_beyond_the_limit_is_never_delivered_and_others_still_are(context: Context, tmp_path: Path) -> None:
    receiver = ZmqLinks(context, f"ipc://{tmp_path}/r", deadline_s=1.0, depth=10, largest=100_000)
    rogue, honest = (ZmqLinks(context, f"ipc://{tmp_path}/{name}", deadline_s=1.0, depth=10) for name in "ab")
    rogue.connect({0: receiver.endpoint})
    honest.connect({0: receiver.endpoint})
    rogue.send(0, (b"big", bytes(frame_limit(100_000) + 1)))
    honest.send(0, (b"small", bytes(100_000)))
    assert received(receiver, 1) == [[b"small", bytes(100_000)]]
    assert receiver.receive(0.1) is None
    for node in (rogue, honest, receiver):
        for outbox in node._outboxes.values():
            outbox.socket.setsockopt(zmq.LINGER, 0)
        node.close()


GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x01CURVE" + bytes(15) + b"\x00" + bytes(31)


def cut_after(endpoint: str, frame_bytes: int) -> bool:
    """Whether a connection without a key is cut as soon as it announces a frame of that size."""
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    with socket.create_connection((host, int(port)), timeout=SOON_S) as stranger:
        stranger.sendall(GREETING + b"\x06" + struct.pack(">Q", frame_bytes))  # a command, of eight bytes of length
        stranger.settimeout(0.5)
        try:
            while stranger.recv(1 << 12):  # its greeting comes first
                pass
        except TimeoutError:
            return False
        except ConnectionResetError:
            pass
        return True


@pytest.mark.parametrize("which", ["inbox", "world", "control"])
def test_whoever_shows_no_key_yet_cannot_make_a_process_hold_more_than_the_limit(
    context: Context, tmp_path: Path, which: str
) -> None:
    make_keys(tmp_path, 2)
    tcp, limit = "tcp://127.0.0.1:*", frame_limit(100_000)
    opened: ZmqLinks | RouterLinks | ControlHub
    if which == "inbox":
        keys = Keyring.read(tmp_path, role_of(0))
        opened = ZmqLinks(context, tcp, deadline_s=1.0, depth=9, keys=keys, receives_from=[1], largest=100_000)
    elif which == "world":
        opened = RouterLinks(context, tcp, deadline_s=1.0, keys=Keyring.read(tmp_path, WORLD_ROLE), largest=100_000)
    else:
        opened = ControlHub(tcp, keys=Keyring.read(tmp_path, COORDINATOR), largest=100_000)
    try:
        assert not cut_after(opened.endpoint, limit)
        assert cut_after(opened.endpoint, limit + 1)
        assert cut_after(opened.endpoint, 255 << 20)
    finally:
        opened.close()


def test_a_neighbour_with_its_key_cannot_send_more_than_the_limit_either(context: Context, tmp_path: Path) -> None:
    make_keys(tmp_path, 3)
    tcp = "tcp://127.0.0.1:*"
    inbox = ZmqLinks(
        context, tcp, deadline_s=1.0, depth=10, keys=Keyring.read(tmp_path, role_of(0)), receives_from=[1, 2], largest=100_000
    )
    other = new_context()  # a gate each
    rogue = ZmqLinks(other, tcp, deadline_s=1.0, depth=10, keys=Keyring.read(tmp_path, role_of(1)))
    rogue.connect({0: inbox.endpoint})
    third = new_context()
    honest = ZmqLinks(third, tcp, deadline_s=1.0, depth=10, keys=Keyring.read(tmp_path, role_of(2)))
    honest.connect({0: inbox.endpoint})
    rogue.send(0, (b"first", bytes(100_000)))
    assert received(inbox, 1) == [[b"first", bytes(100_000)]]
    rogue.send(0, (b"big", bytes(frame_limit(100_000))))
    honest.send(0, (b"small", bytes(100_000)))
    assert received(inbox, 1) == [[b"small", bytes(100_000)]]
    assert inbox.receive(0.2) is None
    for one in (other, third):
        one.destroy(linger=0)
    inbox.close()


def test_a_wait_lasts_as_long_as_it_was_told_whatever_was_told_before(pair: tuple[ZmqLinks, ZmqLinks]) -> None:
    for timeout_s in (0.0, 0.2, 0.05, 0.0, 0.2):
        start = time.monotonic()
        assert pair[1].receive(timeout_s) is None
        assert time.monotonic() - start >= 0.9 * timeout_s


def test_a_wait_ends_as_soon_as_a_message_comes(pair: tuple[ZmqLinks, ZmqLinks]) -> None:
    sender, receiver = pair
    timer = threading.Timer(0.1, sender.send, (7, (b"x", b"y")))
    timer.start()
    start = time.monotonic()
    assert receiver.receive(30.0) == [b"x", b"y"]
    assert time.monotonic() - start < 10
    timer.join()


# ---------------------------------------------------------------------------------------------------------- world and nodes


@pytest.fixture(params=["ipc", "tcp with keys"])
def world(request: pytest.FixtureRequest, context: Context, tmp_path: Path) -> Iterator[tuple[RouterLinks, Path | None]]:
    """The world's links, and the folder of the keys, if it has any."""
    make_keys(tmp_path, 3)
    keyed = request.param == "tcp with keys"
    opened = RouterLinks(
        context,
        "tcp://127.0.0.1:*" if keyed else f"ipc://{tmp_path}/w",
        deadline_s=0.3,
        keys=Keyring.read(tmp_path, WORLD_ROLE) if keyed else None,
    )
    yield opened, tmp_path if keyed else None
    opened.close()


def dealer(context: Context, world: tuple[RouterLinks, Path | None], agent: int, key_of: int | None = None) -> DealerLinks:
    """A node's link to the world, by another node's key if told so."""
    links_, folder = world
    keys = None if folder is None else Keyring.read(folder, role_of(agent if key_of is None else key_of))
    return DealerLinks(context, agent, links_.endpoint, deadline_s=0.3, keys=keys)


def overwhelm(links_: Links, to: int) -> None:
    """Send more than somebody who reads nothing can be sent."""
    for _ in range(1000):
        links_.send(to, (b"x", bytes(65536)))


def test_world_and_nodes_talk_both_ways_and_the_world_knows_who_speaks(
    context: Context, world: tuple[RouterLinks, Path | None]
) -> None:
    hub = world[0]
    nodes = [dealer(context, world, agent) for agent in range(3)]
    for agent in (2, 0, 1):
        nodes[agent].send(0, (b"here is", b"%d" % agent))
        assert hub.receive(SOON_S) == [b"here is", b"%d" % agent]
        assert hub.sender == agent
    for agent, node in enumerate(nodes):
        hub.send(agent, (b"hello", b"%d" % agent))
        assert node.receive(SOON_S) == [b"hello", b"%d" % agent]
        node.close()


def test_what_the_world_cannot_send_is_told_not_swallowed(context: Context, world: tuple[RouterLinks, Path | None]) -> None:
    hub = world[0]
    with pytest.raises(PeerLostError, match=r"^agent 1 cannot be reached"):
        hub.send(1, (b"x", b""))
    node = dealer(context, world, 1)
    node.send(0, (b"x", b""))
    assert hub.receive(SOON_S) is not None
    with pytest.raises(PeerLostError, match=r"^agent 1 cannot be reached"):
        overwhelm(hub, 1)
    node.close()


def test_a_world_that_takes_nothing_is_lost(context: Context, world: tuple[RouterLinks, Path | None]) -> None:
    node = dealer(context, world, 1)
    with pytest.raises(PeerLostError, match=r"^the world took no message for 0\.3 s$"):
        overwhelm(node, 0)
    node._socket.setsockopt(zmq.LINGER, 0)
    node.close()


def test_a_key_speaks_for_no_other_node_than_its_own(context: Context, tmp_path: Path) -> None:
    make_keys(tmp_path, 3)
    hub = RouterLinks(context, "tcp://127.0.0.1:*", deadline_s=1.0, keys=Keyring.read(tmp_path, WORLD_ROLE))
    rogue = dealer(context, (hub, tmp_path), 0, key_of=1)
    rogue.send(0, (b"I am", b"node 0"))
    assert hub.receive(SOON_S) == [b"I am", b"node 0"]
    assert hub.sender == STRANGER
    for node in (rogue, hub):
        node.close()


def test_a_node_talks_to_no_other_world_than_its_own(context: Context, tmp_path: Path) -> None:
    for folder in ("ours", "theirs"):
        (tmp_path / folder).mkdir()
        make_keys(tmp_path / folder, 1)
    impostor = RouterLinks(context, "tcp://127.0.0.1:*", deadline_s=1.0, keys=Keyring.read(tmp_path / "theirs", WORLD_ROLE))
    node = DealerLinks(context, 0, impostor.endpoint, deadline_s=1.0, keys=Keyring.read(tmp_path / "ours", role_of(0)))
    node.send(0, (b"my", b"observation"))
    assert impostor.receive(0.3) is None
    node._socket.setsockopt(zmq.LINGER, 0)
    for links_ in (node, impostor):
        links_.close()
