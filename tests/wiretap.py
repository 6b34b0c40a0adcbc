"""A wiretap: what passes over a socket, byte by byte."""

import select
import socket
import threading
import time
from types import TracebackType
from typing import Self

SOON_S = 10.0


class Wiretap:
    """Passes bytes between one tcp client and a server, and keeps those of the client.

    Args:
        server: Address of the server, `tcp://host:port`.

    Attributes:
        endpoint: Where the client is to connect instead.
        heard: What the client has sent so far; a byte is kept before it is passed on.
    """

    def __init__(self, server: str) -> None:
        self._server = ("127.0.0.1", int(server.rpartition(":")[2]))
        self._door = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"tcp://127.0.0.1:{self._door.getsockname()[1]}"
        self.heard = b""
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._end.set()
        self._thread.join()

    def settled(self, quiet_s: float = 0.3) -> int:
        """How many bytes have been heard, once that has stood still for a while."""
        deadline = time.monotonic() + SOON_S
        before, since = len(self.heard), time.monotonic()
        while time.monotonic() < deadline and time.monotonic() - since < quiet_s:
            self._end.wait(0.02)
            if len(self.heard) != before:
                before, since = len(self.heard), time.monotonic()
        return before

    def _serve(self) -> None:
        with self._door:
            self._door.settimeout(SOON_S)
            client, _ = self._door.accept()
        with client, socket.create_connection(self._server) as server:
            while not self._end.is_set():
                for readable in select.select([client, server], [], [], 0.02)[0]:
                    data = readable.recv(1 << 16)
                    if not data:
                        return
                    if readable is client:
                        self.heard += data
                    (server if readable is client else client).sendall(data)
