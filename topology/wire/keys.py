"""Keys: which process is which on tcp sockets, and which may connect.

Theory of operation. Every run has CURVE key pairs of its own, one per role (the coordinator, the world, each node), made
together with the run's directory:

    keys/               0700
      public.json       public keys by role, for all to read
      ROLE.secret       0600, for that role alone

A role reads all public keys and its own secret, and nothing else. A connecting role knows from the public key which role it
will reach, and proves its own. A listening role has a `Gate`: libzmq holds every handshake until the gate has said
whether that key may come in, and under which name. The name then rides on every frame that comes over the connection
(ZMTP calls it the User-Id), so a sender is what its key says, whatever its messages claim. What is not admitted is counted.

Keys are good for one run. Its sockets are the only ones that ever knew them, so afterwards they open nothing; the next
run makes its own. To start a node on another machine take there the run's directory without the others' secrets.

What must not change: that a socket whose gate is gone refuses every connection (ZAP_ENFORCE_DOMAIN); without it libzmq would
let all in.

Source: CurveZMQ (ZeroMQ RFC 26) and the ZeroMQ Authentication Protocol (RFC 27).
"""

import json
import os
import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zmq
from zmq.utils import z85
from zmq.utils.monitor import parse_monitor_message

from scenarios.schema import Network
from topology.wire.frame import CURVE_BYTES
from topology.wire.refusals import Refusals

KEYS = "keys"
PUBLIC_FILE = "public.json"
COORDINATOR = "coordinator"
WORLD_ROLE = "world"
_DOMAIN = b"kappahop"
_ZAP = "inproc://zeromq.zap.01"  # where libzmq asks, by RFC 27
_SEEN = "inproc://gate"
_ZAP_VERSION = b"1.0"


def role_of(agent: int) -> str:
    """A node's role: its name on the control plane, and on its keys."""
    return f"node-{agent}"


def pack_role(agents: Sequence[int]) -> str:
    """The name of a process that holds these agents, which follow each other.

    Example:
        >>> pack_role([3]), pack_role([3, 4, 5])
        ('node-3', 'nodes-3-5')
    """
    return role_of(agents[0]) if len(agents) == 1 else f"nodes-{agents[0]}-{agents[-1]}"


def spoken_role(role: str) -> str:
    """A role or process as it is called in a sentence.

    Example:
        >>> spoken_role("node-3"), spoken_role("nodes-3-5")
        ('node 3', 'nodes 3-5')
    """
    return role.replace("-", " ", 1)


def is_secured(network: Network) -> bool:
    """Whether a run's sockets use keys. ipc sockets do not: they lie in a folder that only the user can enter."""
    return network.transport == "tcp" and network.curve


def frame_extra(network: Network) -> int:
    """Bytes that keys add to every frame of a run."""
    return CURVE_BYTES if is_secured(network) else 0


def make_keys(run_dir: Path, n_nodes: int) -> None:
    """Make a run's keys.

    Raises:
        ValueError: this ZeroMQ was built without CURVE.
    """
    if not zmq.has("curve"):
        raise ValueError("network.curve: this ZeroMQ was built without encryption; network.curve=false does without")
    folder = run_dir / KEYS
    folder.mkdir(mode=0o700)
    public = {}
    for role in (COORDINATOR, WORLD_ROLE, *map(role_of, range(n_nodes))):
        key, secret = zmq.curve_keypair()
        public[role] = key.decode()
        with os.fdopen(os.open(_secret_file(folder, role), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secret)
    (folder / PUBLIC_FILE).write_text(json.dumps(public, indent=1), encoding="utf-8")


@dataclass(frozen=True, slots=True)
class Keyring:
    """One role's keys: its own secret, and all public keys.

    Attributes:
        role: Whose.
        secret: Its secret key, in Z85.
        public: Public keys in Z85, by role.
    """

    role: str
    secret: bytes = field(repr=False)
    public: Mapping[str, bytes]

    @classmethod
    def of(cls, run_dir: Path, role: str, network: Network) -> "Keyring | None":
        """A role's keys if the scenario asks for any, that is, on tcp and unless `network.curve` is off; else None.

        Raises:
            ValueError: see `read`.
        """
        return cls.read(run_dir, role) if is_secured(network) else None

    @classmethod
    def read(cls, run_dir: Path, role: str) -> "Keyring":
        """A role's keys from the directory of its run.

        Raises:
            ValueError: a file is missing or does not hold what it should.
        """
        folder = run_dir / KEYS
        file = _secret_file(folder, role)
        try:
            public = {name: key.encode() for name, key in json.loads((folder / PUBLIC_FILE).read_bytes()).items()}
            secret = file.read_bytes()
            if zmq.curve_public(secret) == public[role]:
                return cls(role, secret, public)
        except OSError as error:
            raise ValueError(f"{role}: cannot read its keys: {error.strerror} ({error.filename})") from None
        except (AttributeError, KeyError, ValueError, zmq.ZMQError):
            pass
        raise ValueError(f"{role}: {file} does not match the public key of {role} in {PUBLIC_FILE}; generate the keys again")

    def others(self) -> list[str]:
        """All roles but this one."""
        return [role for role in self.public if role != self.role]

    def nodes(self) -> list[str]:
        """The roles that are nodes."""
        return [role for role in self.public if role not in (COORDINATOR, WORLD_ROLE)]

    def dial(self, socket: "zmq.Socket[Any]", role: str) -> None:
        """Let a socket that is about to connect reach `role` and no other."""
        socket.setsockopt(zmq.CURVE_SECRETKEY, self.secret)
        socket.setsockopt(zmq.CURVE_PUBLICKEY, self.public[self.role])
        socket.setsockopt(zmq.CURVE_SERVERKEY, self.public[role])

    def guard(self, context: "zmq.Context[Any]", socket: "zmq.Socket[Any]", admits: Collection[str]) -> "Gate":
        """Put a gate before a socket that is about to bind, the only such socket of its context.

        Args:
            context: The socket's.
            socket: The socket.
            admits: Roles that may come in.
        """
        gate = Gate(context, socket, {z85.decode(key): role for role, key in self.public.items()}, admits)
        socket.setsockopt(zmq.CURVE_SERVER, 1)
        socket.setsockopt(zmq.CURVE_SECRETKEY, self.secret)
        socket.setsockopt(zmq.ZAP_DOMAIN, _DOMAIN)
        socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
        return gate


class Gate:
    """Answers, for every handshake at one socket, whether that key may come in. Ends with the socket's context.

    It works in a thread of its own: libzmq asks at any time, and the handshakes of a run that starts must not wait for
    an agent that learns.

    Args:
        context: The socket's.
        socket: The socket, not yet bound.
        roles: Names of the run's raw public keys.
        admits: Roles that may come in.

    Attributes:
        refused: Keys that were turned away, and from where.
    """

    def __init__(
        self, context: "zmq.Context[Any]", socket: "zmq.Socket[Any]", roles: Mapping[bytes, str], admits: Collection[str]
    ) -> None:
        own: zmq.Context[zmq.Socket[bytes]] = zmq.Context.shadow(context.underlying)  # its sockets are this thread's alone
        self._roles = roles
        self._admits = frozenset(admits)
        self._accepted = self._entered = 0
        self.refused = Refusals()
        self._asked = own.socket(zmq.REP)
        self._asked.bind(_ZAP)
        socket.monitor(_SEEN, zmq.EVENT_ACCEPTED | zmq.EVENT_HANDSHAKE_SUCCEEDED)
        self._seen = own.socket(zmq.PAIR)
        self._seen.connect(_SEEN)
        threading.Thread(target=self._serve, name="gate", daemon=True).start()

    @property
    def outside(self) -> int:
        """Connections that were made and have not come in: refused keys, and whatever speaks no CURVE, or nothing at all."""
        return self._accepted - self._entered

    def _serve(self) -> None:
        poller = zmq.Poller()
        poller.register(self._asked, zmq.POLLIN)
        poller.register(self._seen, zmq.POLLIN)
        try:
            while True:
                for socket, _ in poller.poll():
                    if socket is self._asked:
                        self._answer(self._asked.recv_multipart())
                    elif parse_monitor_message(self._seen.recv_multipart())["event"] == zmq.EVENT_ACCEPTED:
                        self._accepted += 1
                    else:
                        self._entered += 1
        except zmq.ContextTerminated:
            self._asked.close(0)
            self._seen.close(0)

    def _answer(self, question: list[bytes]) -> None:
        _, request, _, address, _, _, key = question  # RFC 27; only libzmq can ask, and only for CURVE
        role = self._roles.get(key)
        if role in self._admits:
            reply = (b"200", b"OK", role.encode())
        else:
            who = f"unknown key {z85.encode(key)[:8].decode()}…" if role is None else f"key of {role}, which has no business here"
            self.refused.add(f"{who}, from {address.decode(errors='replace')}")
            reply = (b"400", b"no access", b"")
        self._asked.send_multipart((_ZAP_VERSION, request, *reply, b""))


def _secret_file(folder: Path, role: str) -> Path:
    return folder / f"{role}.secret"
