"""Whether sockets work on this machine: one round trip over each kind that a run may use."""

import tempfile
import time
from pathlib import Path
from typing import Literal

import zmq

_PING = b"kappahop"


class ProbeError(Exception):
    """A socket could not be made, or what was sent did not come back in time."""


def round_trip(transport: Literal["ipc", "tcp"], *, timeout_s: float = 2.0) -> float:
    """Sends a few bytes to and fro between two sockets of this process.

    Args:
        transport: ipc: through a socket file in a temporary folder; tcp: over the loopback interface, any free port.
        timeout_s: Longest wait in either direction [s].

    Returns:
        Seconds from sending to the answer, the connection being up.

    Raises:
        ProbeError: the system refuses the sockets, or nothing came within `timeout_s`.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="kappahop-") as folder:
            address = f"ipc://{Path(folder) / 'probe'}" if transport == "ipc" else "tcp://127.0.0.1:*"
            return _ping(address, int(timeout_s * 1000))
    except (zmq.ZMQError, OSError) as error:
        raise ProbeError(f"{transport}: {error}") from error


def _ping(address: str, timeout_ms: int) -> float:
    with zmq.Context() as context, context.socket(zmq.PAIR) as here, context.socket(zmq.PAIR) as there:
        for socket in (here, there):
            socket.setsockopt(zmq.LINGER, 0)
            socket.setsockopt(zmq.SNDTIMEO, timeout_ms)
            socket.setsockopt(zmq.RCVTIMEO, timeout_ms)
        here.bind(address)
        there.connect(here.getsockopt_string(zmq.LAST_ENDPOINT))
        took = 0.0
        for _ in range(2):  # the first round trip also waits for the connection
            start = time.perf_counter()
            here.send(_PING)
            there.send(there.recv())
            if here.recv() != _PING:
                raise ProbeError(f"{address}: sent {_PING!r} and something else came back")
            took = time.perf_counter() - start
        return took
