"""A run on tcp among enemies: ten thousand attempts on every socket it has, none of which gets anywhere.

The enemy knows every address, has read every file of the run, and holds the stolen secrets of some nodes; what it lacks
are the secrets of those whom it attacks. It works while the run goes on. One node is made to stand still again and again
meanwhile, so that the run outlasts the attack.
"""

import contextlib
import json
import random
import re
import shlex
import shutil
import signal
import socket
import sqlite3
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
import pytest
import zmq
from zmq.utils.monitor import parse_monitor_message

from scenarios.kinds import Kind
from topology.planes.control import Fault, encode_control
from topology.wire.frame import FLOAT32, VERSION, Header, encode_header
from topology.wire.keys import COORDINATOR, KEYS, PUBLIC_FILE, WORLD_ROLE, Keyring, make_keys, role_of
from topology.wire.sockets import Context, new_context

pytestmark = [pytest.mark.slow, pytest.mark.system, pytest.mark.timeout(300)]

UP_S = 90.0
END_S = 120.0
WORDS = [
    "env.name=network_lq", "env.agents=4", "env.horizon=10", "env.num_envs=2", "topology.kind=line", "kappa=3",
    "rollout.steps=20", "budget.env_steps=4000", "algorithm.hidden=[8]", "algorithm.minibatches=1", "algorithm.epochs=1",
    "record.tensorboard=false", "network.transport=tcp", "evaluation.every_rounds=0",  # an evaluator comes and goes
]  # fmt: skip
FRAMES = 1500  # attempts per class of frame
MAX_GROWTH_BYTES = 64e6  # of a process under attack; what was sent would fill twice that if it were kept


def command(out: Path, *more: str) -> "subprocess.Popen[str]":
    words = ["run", "quickstart", *WORDS, *more, "--json", "-q", "--out", str(out)]
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "kappahop", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def ended(process: "subprocess.Popen[str]") -> dict[str, Any]:
    out, err = process.communicate(timeout=END_S)
    assert (process.returncode, err) == (0, "")
    found: dict[str, Any] = json.loads(out)
    return found


def query(run_dir: Path, sql: str) -> list[tuple[Any, ...]]:
    with contextlib.closing(sqlite3.connect(f"file:{run_dir / 'run.sqlite'}?mode=ro", uri=True)) as database:
        return database.execute(sql).fetchall()


def pause(seconds: float) -> None:
    threading.Event().wait(seconds)


def under_way(process: "subprocess.Popen[str]", run_dir: Path) -> dict[str, psutil.Process]:
    """The processes of a run by role, once a round of it is over."""
    deadline = time.monotonic() + UP_S
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        with contextlib.suppress(sqlite3.OperationalError):
            if query(run_dir, "SELECT count(*) FROM rounds")[0][0] >= 4:
                break
        pause(0.02)
    else:
        pytest.fail("not running")
    found = {COORDINATOR: psutil.Process(process.pid)}
    for child in found[COORDINATOR].children(recursive=True):
        title = " ".join(child.cmdline()).strip().removeprefix("kappahop: ").replace(" ", "-")
        found[title] = child
    return found


def port_of(process: psutil.Process) -> int:
    """Where it listens; only one of its tcp sockets does."""
    (port,) = {item.laddr.port for item in process.net_connections("tcp") if item.status == psutil.CONN_LISTEN}
    return int(port)


class Hobble:
    """Lets a process run for one moment in twenty only."""

    def __init__(self, process: psutil.Process) -> None:
        self._process = process
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._work)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._end.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._end.is_set():
            self._process.send_signal(signal.SIGSTOP)
            self._end.wait(0.6)
            self._process.send_signal(signal.SIGCONT)
            self._end.wait(0.03)


class Enemy:
    """Makes attempts, and remembers how many of which class."""

    def __init__(self, context: Context, run_dir: Path, members: dict[str, psutil.Process]) -> None:
        self._context = context
        self._run_dir = run_dir
        self._ports = {role: port_of(process) for role, process in members.items() if role != "fork-server"}
        self._chance = random.Random(0)
        self.tried: Counter[str] = Counter()
        self.connections = 0

    def strangers(self, count: int) -> None:
        """Wrong keys, at every socket."""
        public = Keyring.read(self._run_dir, WORLD_ROLE).public
        for role in self._ports:
            for _ in range(count):
                key, secret = zmq.curve_keypair()
                self._knock(role, Keyring("me", secret, {**public, "me": key}))
            self._tell("wrong key", count)

    def neighbours_of_others(self, count: int) -> None:
        """The right keys of nodes that have no business there."""
        for thief, role in ((3, "node-0"), (2, "node-0"), (0, "node-2"), (0, WORLD_ROLE), (0, COORDINATOR)):
            stolen = Keyring.read(self._run_dir, WORLD_ROLE if role == COORDINATOR else role_of(thief))
            if role in (WORLD_ROLE, COORDINATOR):  # whoever may come in there may not in another's name
                self._insider(role, stolen, count)
                continue
            for _ in range(count):
                self._knock(role, stolen)
            self._tell("right key of a non-neighbour", count)

    def raw(self, count: int) -> None:
        """Bytes that are no handshake: at random, of absurd size, cut short."""
        greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"CURVE".ljust(20, b"\0") + bytes(32)
        for port in self._ports.values():
            for number in range(count):
                what, told = (
                    (self._chance.randbytes(400), "random bytes"),
                    (greeting + b"\x06" + struct.pack(">Q", 1 << 40) + bytes(99), "oversize"),
                    (greeting[: self._chance.randrange(1, 64)], "truncated"),
                )[number % 3]
                with socket.create_connection(("127.0.0.1", port), timeout=10) as rogue, contextlib.suppress(OSError):
                    rogue.sendall(what)
                    rogue.shutdown(socket.SHUT_WR)
                    rogue.recv(1 << 16)
                self.connections += 1
                self._tell(told, 1)

    def frames(self, thief: int, victim: int) -> int:
        """Messages over a connection with the stolen key of a neighbour, none of them right; how many."""
        keys = Keyring.read(self._run_dir, role_of(thief))
        socket_ = self._made(role_of(victim), keys)
        self._connect(socket_, role_of(victim))
        made = list(self._messages(thief))
        self._chance.shuffle(made)
        for what, frames in made:
            socket_.send_multipart(frames)
            self._tell(what, 1)
        socket_.close(60_000)  # milliseconds; the rest still leaves
        return len(made)

    def _messages(self, thief: int) -> Iterator[tuple[str, list[bytes]]]:
        chance = self._chance

        def header(kind: Kind = Kind.STATE, sender: int = thief, origin: int = thief, round_: int = 0, step: int = 0) -> bytes:
            hops = 2 if origin == thief else 1
            return encode_header(Header(VERSION, int(kind), FLOAT32, sender, origin, round_, step, hops, 0, 0.0))

        block = struct.pack("<2f", 1e6, -1e6)  # what a state of two copies looks like
        for _ in range(FRAMES):
            yield "replay", [header(step=3), block]
            yield "old round", [header(chance.choice((Kind.STATE, Kind.BOOTSTRAP)), step=chance.randrange(20)), block]
            yield "another's name", [header(sender=(thief + 1) % 4, round_=99), block]
            whole = header()
            yield (
                "truncated",
                chance.choice(([whole[: chance.randrange(len(whole))], block], [whole], [header(step=5), block[:5]])),
            )
            yield "random bytes", [chance.randbytes(chance.randrange(60)) for _ in range(chance.randrange(1, 5))]
        for _ in range(FRAMES // 10):
            yield "oversize", [header(round_=99), bytes(60_000)]  # what is above the limit of the socket cuts its connection

    def _knock(self, role: str, keys: Keyring) -> None:
        """Try to come in with keys that are not admitted."""
        socket_ = self._made(role, keys)
        monitor = socket_.get_monitor_socket(zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_SUCCEEDED)
        self._connect(socket_, role)
        assert monitor.poll(60_000), f"{role} does not answer"
        assert parse_monitor_message(monitor.recv_multipart())["event"] == zmq.EVENT_HANDSHAKE_FAILED_AUTH, f"{role} let it in"
        socket_.disable_monitor()
        monitor.close(0)
        socket_.close(0)
        self.connections += 1

    def _insider(self, role: str, keys: Keyring, count: int) -> None:
        """Come in by a key that is admitted there, and speak in another's name."""
        socket_ = self._made(role, keys)
        socket_.setsockopt(zmq.ROUTING_ID, b"node-1-bis")
        self._connect(socket_, role)
        lie = [encode_control(Fault(role="node-1", text="I give up"))] if role == COORDINATOR else []
        act = [encode_header(Header(VERSION, int(Kind.ACT), FLOAT32, 1, 1, 0, 0, 0, 0, 0.0)), bytes(8)]
        for _ in range(count):
            socket_.send_multipart(lie or act)
        self._tell("another's name", count)
        socket_.close(60_000)

    def _made(self, role: str, keys: Keyring) -> "zmq.Socket[bytes]":
        socket_ = self._context.socket(zmq.PUSH if role.startswith("node") else zmq.DEALER)
        socket_.setsockopt(zmq.SNDHWM, 100)
        socket_.setsockopt(zmq.SNDTIMEO, 60_000)
        keys.dial(socket_, role)
        return socket_

    def _connect(self, socket_: "zmq.Socket[bytes]", role: str) -> None:
        socket_.connect(f"tcp://127.0.0.1:{self._ports[role]}")

    def _tell(self, what: str, count: int) -> None:
        self.tried[what] += count


@pytest.fixture
def context(no_leaks: None) -> Iterator[Context]:
    opened = new_context()
    yield opened
    opened.destroy(linger=0)


def counted(run_dir: Path, pattern: str) -> Counter[str]:
    """Sums, by role, of the numbers in those events that fit the pattern."""
    found: Counter[str] = Counter()
    for role, text in query(run_dir, "SELECT role, text FROM events"):
        if match := re.fullmatch(pattern, text):
            found[role] += int(match[1])
    return found


def test_ten_thousand_hostile_attempts_are_counted_and_change_nothing(tmp_path: Path, context: Context) -> None:
    in_peace = ended(command(tmp_path / "peace"))
    assert query(tmp_path / "peace", "SELECT * FROM events") == []
    run_dir = tmp_path / "war"
    process = command(run_dir)
    try:
        members = under_way(process, run_dir)
        before = {role: member.memory_info().rss for role, member in members.items()}
        enemy = Enemy(context, run_dir, members)
        with Hobble(members["node-3"]):
            sent = {victim: enemy.frames(thief, victim) for thief, victim in ((1, 0), (2, 1))}
            enemy.neighbours_of_others(40)
            enemy.strangers(40)
            enemy.raw(60)
            context.term()  # until all has left
            after = {role: member.memory_info().rss for role, member in members.items()}
        at_war = ended(process)
    finally:
        process.kill()
        process.communicate()
    assert sum(enemy.tried.values()) > 10_000
    assert set(enemy.tried) == {
        "wrong key", "right key of a non-neighbour", "another's name", "replay", "old round", "oversize", "truncated",
        "random bytes",
    }  # fmt: skip
    for key in ("weights_sha256", "ledger_sha256", "return_mean", "env_steps", "wire_bytes"):
        assert at_war[key] == in_peace[key]
    refused = counted(run_dir, r"refused (\d+) frames")
    assert {role: refused[role] for role in ("node-0", "node-1")} == {role_of(victim): count for victim, count in sent.items()}
    assert refused[WORLD_ROLE] == refused[COORDINATOR] == 40
    assert counted(run_dir, r"kept out (\d+) connections").total() == enemy.connections
    assert len(query(run_dir, "SELECT * FROM events")) < 5000
    grown = {role: after[role] - before[role] for role in before}
    assert max(grown.values()) < MAX_GROWTH_BYTES, grown


@pytest.fixture
def by_hand(tmp_path: Path, no_leaks: None) -> Iterator[tuple["subprocess.Popen[str]", list[str], Path]]:
    """A run that waits for node 1, the line that starts it, and a copy of its directory such as one takes to another machine."""
    process = command(tmp_path / "run", "budget.env_steps=400", "supervision.start_s=40", "--by-hand", "1")
    assert process.stderr is not None
    line = shlex.split(process.stderr.readline())
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(tmp_path / "run", elsewhere, ignore=shutil.ignore_patterns("run.sqlite*", "[!n]*.secret", "node-[!1].secret"))
    assert [path.name for path in elsewhere.rglob("*.secret")] == ["node-1.secret"]
    line[line.index("--run") + 1] = str(elsewhere)
    yield process, line, elsewhere
    process.kill()
    process.communicate()


def test_a_node_started_elsewhere_needs_no_secret_but_its_own(
    by_hand: tuple["subprocess.Popen[str]", list[str], Path],
) -> None:
    process, line, _ = by_hand
    assert subprocess.run(line, timeout=UP_S, check=False).returncode == 0
    out, err = process.communicate(timeout=UP_S)
    assert (process.returncode, err) == (0, "")
    assert json.loads(out)["env_steps"] == 400


def test_a_node_with_another_runs_keys_is_kept_out_and_the_run_says_who_is_missing(
    by_hand: tuple["subprocess.Popen[str]", list[str], Path], tmp_path: Path
) -> None:
    process, line, elsewhere = by_hand
    (tmp_path / "other").mkdir()
    make_keys(tmp_path / "other", 4)
    theirs, ours = (json.loads((folder / KEYS / PUBLIC_FILE).read_text()) for folder in (tmp_path / "other", elsewhere))
    shutil.copy(tmp_path / "other" / KEYS / "node-1.secret", elsewhere / KEYS)
    (elsewhere / KEYS / PUBLIC_FILE).write_text(json.dumps({**ours, "node-1": theirs["node-1"]}))
    node = subprocess.Popen(line)
    try:
        _, err = process.communicate(timeout=UP_S)
    finally:
        node.kill()
        node.wait()
    assert process.returncode == 1
    assert "1 of 5 processes not up within 40 s: node 1; supervision.start_s" in err
    told = dict(query(tmp_path / "run", "SELECT text, role FROM events WHERE text LIKE 'kept out%'"))
    assert told == {
        "kept out 1 connections": COORDINATOR,
        f"kept out: unknown key {theirs['node-1'][:8]}…, from 127.0.0.1": COORDINATOR,
    }


def test_a_run_with_keys_is_interrupted_as_quickly_as_any(tmp_path: Path, no_leaks: None) -> None:
    process = command(tmp_path / "run", "budget.env_steps=1e8")
    try:
        under_way(process, tmp_path / "run")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=10)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 130
    assert err.startswith("kappahop: interrupted by SIGINT in round ")
