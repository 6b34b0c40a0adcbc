"""The contract of `topology.links.Links`, sentence by sentence, on both carriers; and what ZeroMQ adds to it."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq

from topology import links
from topology.links import Context, Links, MemoryLinks, PeerLostError, ZmqLinks, ipc_endpoint, new_context

SOON_S = 5.0  # what takes microseconds, on a machine that is busy with other things
Mesh = list[Links]
MakeMesh = Callable[[int], Mesh]


@pytest.fixture
def context() -> Iterator[Context]:
    opened = new_context()
    yield opened
    opened.destroy(linger=0)  # also what a failing test left open


@pytest.fixture(params=["ipc", "tcp", "memory"])
def mesh(request: pytest.FixtureRequest, context: Context, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeMesh]:
    """Makes n nodes that all reach each other."""
    open_: Mesh = []
    folder = tmp_path_factory.mktemp("s")

    def make(n: int) -> Mesh:
        if request.param == "memory":
            open_.extend(MemoryLinks.mesh(n))
            return open_
        binds = [ipc_endpoint(folder, str(i)) if request.param == "ipc" else "tcp://127.0.0.1:*" for i in range(n)]
        nodes = [ZmqLinks(context, bind, deadline_s=SOON_S, depth=1000) for bind in binds]
        for i, node in enumerate(nodes):
            node.connect({j: other.endpoint for j, other in enumerate(nodes) if j != i})
        open_.extend(nodes)
        return open_

    yield make
    for node in open_:
        node.close()


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
    sent = [b"head", b"", bytes(300), b"\x00" * 70_000]
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
    sender = ZmqLinks(context, f"ipc://{tmp_path}/a", deadline_s=0.2, depth=4)
    receiver = ZmqLinks(context, f"ipc://{tmp_path}/b", deadline_s=0.2, depth=4)
    sender.connect({7: receiver.endpoint, 8: f"ipc://{tmp_path}/nobody"})
    yield sender, receiver
    for socket in sender._outboxes.values():
        socket.setsockopt(zmq.LINGER, 0)  # what nobody takes shall not hold the test up
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
    assert time.monotonic() - start >= 0.2


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


def test_a_frame_beyond_the_cap_is_never_delivered_and_others_still_are(
    context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(links, "MAX_ARRAY_BYTES", 1000)
    receiver = ZmqLinks(context, f"ipc://{tmp_path}/r", deadline_s=1.0, depth=10)
    rogue, honest = (ZmqLinks(context, f"ipc://{tmp_path}/{name}", deadline_s=1.0, depth=10) for name in "ab")
    rogue.connect({0: receiver.endpoint})
    honest.connect({0: receiver.endpoint})
    rogue.send(0, (b"big", bytes(1001)))
    honest.send(0, (b"small", bytes(1000)))
    assert received(receiver, 1) == [[b"small", bytes(1000)]]
    assert receiver.receive(0.1) is None
    for node in (rogue, honest, receiver):
        for socket in node._outboxes.values():
            socket.setsockopt(zmq.LINGER, 0)
        node.close()


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
