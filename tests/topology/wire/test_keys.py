"""Keys and gates: whoever holds a key that may come in does, under its own name; everybody else stays outside and is counted."""

import contextlib
import json
import os
import random
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq

from scenarios.loading import load
from tests.wiretap import Wiretap
from topology.wire.keys import COORDINATOR, KEYS, PUBLIC_FILE, WORLD_ROLE, Gate, Keyring, is_secured, make_keys, role_of
from topology.wire.sockets import Context, ZmqLinks, new_context

SOON_S = 5.0
ROLES = [COORDINATOR, WORLD_ROLE, "node-0", "node-1", "node-2"]


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    before = os.umask(0)  # even where everybody may do everything
    try:
        make_keys(folder, 3)
    finally:
        os.umask(before)
    return folder


@pytest.fixture
def context() -> Iterator[Context]:
    opened = new_context()
    yield opened
    opened.destroy(linger=0)


@pytest.fixture
def inbox(context: Context, run_dir: Path) -> Iterator[ZmqLinks]:
    """The inbox of node 0, which may hear node 1 and nobody else."""
    links = ZmqLinks(context, "tcp://127.0.0.1:*", deadline_s=SOON_S, depth=100, keys=ring(run_dir, 0), receives_from=[1])
    yield links
    links.close()


def ring(run_dir: Path, agent: int) -> Keyring:
    return Keyring.read(run_dir, role_of(agent))


def pair(one: Keyring) -> tuple[bytes, bytes]:
    return one.public[one.role], one.secret


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# ------------------------------------------------------------------------------------------------------------------- files


def test_secrets_are_for_their_owner_alone(run_dir: Path) -> None:
    folder = run_dir / KEYS
    assert mode(folder) == 0o700
    assert {path.name for path in folder.iterdir()} == {PUBLIC_FILE, *(f"{role}.secret" for role in ROLES)}
    assert {mode(folder / f"{role}.secret") for role in ROLES} == {0o600}


def test_every_role_has_a_pair_of_its_own_and_every_run_other_ones(run_dir: Path, tmp_path: Path) -> None:
    rings = [Keyring.read(run_dir, role) for role in ROLES]
    assert all(zmq.curve_public(one.secret) == one.public[one.role] for one in rings)
    assert len({one.secret for one in rings}) == len(set(rings[0].public.values())) == len(ROLES)
    make_keys(tmp_path, 3)
    assert not set(Keyring.read(tmp_path, WORLD_ROLE).public.values()) & set(rings[0].public.values())


def test_a_role_needs_no_secret_but_its_own(tmp_path: Path) -> None:
    make_keys(tmp_path, 3)
    for path in (tmp_path / KEYS).glob("*.secret"):
        if path.name != "node-1.secret":
            path.unlink()
    assert ring(tmp_path, 1).nodes() == ["node-0", "node-1", "node-2"]
    assert ring(tmp_path, 1).others() == [COORDINATOR, WORLD_ROLE, "node-0", "node-2"]
    with pytest.raises(ValueError, match=r"^node-2: cannot read its keys: No such file .*node-2\.secret"):
        ring(tmp_path, 2)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: (folder / "node-1.secret").write_bytes((folder / "node-0.secret").read_bytes()),
        lambda folder: (folder / "node-1.secret").write_bytes(b""),
        lambda folder: (folder / "node-1.secret").write_bytes(b"\xff" * 40),
        lambda folder: (folder / PUBLIC_FILE).write_text("not json"),
        lambda folder: (folder / PUBLIC_FILE).write_text("[]"),
        lambda folder: (folder / PUBLIC_FILE).write_text("{}"),
        lambda folder: (folder / PUBLIC_FILE).write_text(json.dumps({"node-1": 7})),
    ],
    ids=range(7),
)
def test_files_that_do_not_belong_together_are_told(tmp_path: Path, spoil: Callable[[Path], object]) -> None:
    make_keys(tmp_path, 3)
    spoil(tmp_path / KEYS)
    with pytest.raises(
        ValueError,
        match=r"^node-1: .*node-1\.secret does not match the public key of node-1 in public\.json; generate the keys again$",
    ):
        ring(tmp_path, 1)


def test_a_secret_is_not_printed_with_its_ring(run_dir: Path) -> None:
    one = ring(run_dir, 1)
    assert one.secret.decode() not in repr(one)
    assert one.public["node-2"].decode() in repr(one)


def test_keys_are_for_tcp_and_may_be_declined(run_dir: Path) -> None:
    secured = {
        words: load("quickstart", list(words)).network
        for words in [(), ("network.transport=tcp",), ("network.transport=tcp", "network.curve=false"), ("network.curve=true",)]
    }
    assert [is_secured(network) for network in secured.values()] == [False, True, False, False]
    assert [Keyring.of(run_dir, "node-0", network) is not None for network in secured.values()] == [False, True, False, False]


def test_a_zeromq_without_encryption_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zmq, "has", lambda capability: False)
    with pytest.raises(ValueError, match=r"^network\.curve: .*network\.curve=false"):
        make_keys(tmp_path, 1)


# ------------------------------------------------------------------------------------------------------------------- gates


def heard(inbox: ZmqLinks) -> list[bytes] | None:
    return inbox.receive(SOON_S)


def until(so: Callable[[], bool]) -> None:
    """Wait, within reason, for what happens in another thread."""
    pause = threading.Event()
    for _ in range(int(SOON_S / 0.01)):
        if so():
            return
        pause.wait(0.01)
    pytest.fail("it did not come about")


class Clients:
    """Makes sockets with keys of their choice, and closes them."""

    def __init__(self, context: Context, run_dir: Path) -> None:
        self._context = context
        self._run_dir = run_dir
        self._open: list[zmq.Socket[bytes]] = []

    def dial(self, to: str, *, own: tuple[bytes, bytes] | None, server: bytes | None) -> "zmq.Socket[bytes]":
        """A client of any keys, or none, with any idea of whom it talks to."""
        client = self._context.socket(zmq.PUSH)
        self._open.append(client)
        client.setsockopt(zmq.LINGER, 0)
        client.setsockopt(zmq.SNDTIMEO, int(SOON_S * 1000))
        if own is not None and server is not None:
            client.curve_publickey, client.curve_secretkey, client.curve_serverkey = *own, server
        client.connect(to)
        return client

    def friend(self, to: str) -> "zmq.Socket[bytes]":
        """A client with the keys of node 1 that takes `to` for node 0."""
        one = ring(self._run_dir, 1)
        return self.dial(to, own=pair(one), server=one.public["node-0"])

    def knock(self, to: str, *, own: tuple[bytes, bytes] | None, server: bytes | None) -> None:
        """Dial where nobody will let it in, with a message at hand. Whoever was refused by then has no link to put it on."""
        with contextlib.suppress(zmq.Again):
            self.dial(to, own=own, server=server).send(b"x", zmq.NOBLOCK)

    def close(self) -> None:
        for client in self._open:
            client.close()


@pytest.fixture
def clients(context: Context, run_dir: Path) -> Iterator[Clients]:
    made = Clients(context, run_dir)
    yield made
    made.close()


def gate_of(inbox: ZmqLinks) -> Gate:
    assert inbox.gate is not None
    return inbox.gate


def test_whoever_may_be_heard_comes_in_under_its_own_name(inbox: ZmqLinks, clients: Clients) -> None:
    friend = clients.friend(inbox.endpoint)
    friend.send_multipart([b"I am node-2", b"honestly"])
    assert heard(inbox) == [b"I am node-2", b"honestly"]
    assert inbox.sender == 1
    until(lambda: gate_of(inbox).outside == 0)  # the gate may read of the handshake after its first message was here
    assert gate_of(inbox).refused.total == 0


def test_the_key_of_a_node_out_of_earshot_stays_outside_and_is_named(inbox: ZmqLinks, clients: Clients, run_dir: Path) -> None:
    one = ring(run_dir, 2)
    for _ in range(2):
        clients.knock(inbox.endpoint, own=pair(one), server=one.public["node-0"])
    until(lambda: gate_of(inbox).refused.total == 2)
    assert gate_of(inbox).refused.texts == ["key of node-2, which has no business here, from 127.0.0.1"] * 2
    until(lambda: gate_of(inbox).outside == 2)
    assert inbox.receive(0.2) is None


def test_keys_of_nobody_stay_outside_and_only_the_first_of_them_are_kept(
    inbox: ZmqLinks, clients: Clients, run_dir: Path
) -> None:
    public = ring(run_dir, 0).public["node-0"]
    made = [zmq.curve_keypair() for _ in range(110)]
    for own in made:
        clients.knock(inbox.endpoint, own=own, server=public)
    until(lambda: gate_of(inbox).refused.total == 110)
    texts = gate_of(inbox).refused.texts
    assert len(texts) == 100
    assert set(texts) <= {f"unknown key {public[:8].decode()}…, from 127.0.0.1" for public, _ in made}
    assert inbox.receive(0.2) is None


def test_whoever_speaks_no_curve_or_takes_the_server_for_another_stays_outside(
    inbox: ZmqLinks, clients: Clients, run_dir: Path
) -> None:
    one = ring(run_dir, 1)
    clients.knock(inbox.endpoint, own=None, server=None)
    clients.knock(inbox.endpoint, own=pair(one), server=one.public["node-2"])
    until(lambda: gate_of(inbox).outside >= 2)
    assert inbox.receive(0.2) is None
    assert gate_of(inbox).refused.total == 0  # neither came as far as to show a key


GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"CURVE".ljust(20, b"\0") + bytes(32)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xff",
        bytes(300),
        random.Random(0).randbytes(300),
        GREETING,
        GREETING + b"\x06" + (1 << 40).to_bytes(8, "big") + bytes(99),  # a command of a terabyte
        GREETING + b"\x04\xc8\x05HELLO" + random.Random(1).randbytes(194),  # of the right size, and wrong
        GREETING[:12] + b"NULL".ljust(20, b"\0") + bytes(32) + b"\x04\x19\x05READY\x0bSocket-Type\x00\x00\x00\x04PUSH" + b"\0\1x",
    ],
    ids=["silence", "half a greeting", "zeros", "random bytes", "greeting", "oversize", "bad hello", "downgrade"],
)
def test_bytes_that_are_no_handshake_stay_outside_and_disturb_nobody(inbox: ZmqLinks, clients: Clients, raw: bytes) -> None:
    friend = clients.friend(inbox.endpoint)
    friend.send(b"before")
    assert heard(inbox) == [b"before"]
    until(lambda: gate_of(inbox).outside == 0)
    with socket.create_connection(("127.0.0.1", int(inbox.endpoint.rpartition(":")[2]))) as rogue:
        rogue.sendall(raw)
        until(lambda: gate_of(inbox).outside == 1)
        friend.send(b"after")
        assert heard(inbox) == [b"after"]
    assert inbox.receive(0.1) is None
    until(lambda: gate_of(inbox).outside == 1)
    assert gate_of(inbox).refused.total == 0


def test_a_socket_whose_gate_is_gone_lets_nobody_in(
    context: Context, clients: Clients, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Gate, "__init__", lambda self, *_: None)
    unguarded = ZmqLinks(context, "tcp://127.0.0.1:*", deadline_s=1.0, depth=9, keys=ring(run_dir, 0), receives_from=[1])
    one = ring(run_dir, 1)
    clients.knock(unguarded.endpoint, own=pair(one), server=one.public["node-0"])
    assert unguarded.receive(0.5) is None
    unguarded.close()


def test_a_gate_ends_with_its_context(run_dir: Path, no_leaks: None) -> None:
    context = new_context()
    links = ZmqLinks(context, "tcp://127.0.0.1:*", deadline_s=1.0, depth=9, keys=ring(run_dir, 0), receives_from=[1])
    assert "gate" in {thread.name for thread in threading.enumerate()}
    links.close()
    context.term()


# ---------------------------------------------------------------------------------------------- what passes over the socket


def test_a_frame_costs_33_bytes_more_than_without_encryption(inbox: ZmqLinks, clients: Clients) -> None:
    with Wiretap(inbox.endpoint) as tap:
        friend = clients.friend(tap.endpoint)
        friend.send(b"the handshake is over")
        assert heard(inbox) is not None
        for size, extra in ((0, 35), (1, 35), (222, 35), (223, 42), (255, 42), (256, 42), (60_000, 42)):
            before = len(tap.heard)
            friend.send(bytes(size))
            assert heard(inbox) == [bytes(size)]
            assert len(tap.heard) - before == size + extra


def test_a_conversation_that_was_overheard_tells_nothing_and_cannot_be_played_back(inbox: ZmqLinks, clients: Clients) -> None:
    secret = b"nobody but node 0 shall read this"
    with Wiretap(inbox.endpoint) as tap:
        friend = clients.friend(tap.endpoint)
        for _ in range(3):
            friend.send(secret)
            assert heard(inbox) == [secret]
        assert secret not in tap.heard
        with socket.create_connection(("127.0.0.1", int(inbox.endpoint.rpartition(":")[2]))) as rogue:
            rogue.sendall(tap.heard)
            until(lambda: gate_of(inbox).outside == 1)
            assert inbox.receive(0.2) is None
        friend.send(b"still here")
        assert heard(inbox) == [b"still here"]
