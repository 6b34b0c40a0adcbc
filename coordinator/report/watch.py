"""The page of a run that goes on, served to a browser on this machine.

Theory of operation. A server on loopback answers for the page, for the part of it that changes, and for nothing else.
Both stand behind a path with a random token, without which it answers 404 to everything, so that other users of the
machine do not see the page; a request that names another host than this one is refused, so that no web site can have a
name of its own lead here. What it serves is made in memory from the run's database; no path of a request ever becomes one
of the file system. The page asks every two seconds whether there is anything new, and names what it has (an entity tag);
the server looks whether the database has changed since it last read it, and reads it again only then. Requests that come
while it reads share the next reading, so a crowd costs two readings and not one each.

A client has `REQUEST_S` to say what it wants, however slowly it says it, and `ANSWER_S` to take the answer; then it is cut
off. At most `CLIENTS` are served at a time, the others wait in the system's queue.

Nothing waits on the run, and the run does not know: it may end, or be killed, and the page stays until Ctrl-C.
"""

import contextlib
import hashlib
import hmac
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from coordinator.records.run_sqlite import DATABASE
from coordinator.report.page import both
from coordinator.study.runs import find, reading
from scenarios.loading import ScenarioError
from topology.process import SLICE_S, StopRequested, heed_stop, stopped_by

LOOPBACK = "127.0.0.1"
REQUEST_S = 10.0  # for a browser to say what it wants
ANSWER_S = 60.0  # for the page to be made, and for a browser to take it
CLIENTS = 64  # a browser that shows the page has one connection at a time
_LOOK_S = 0.1  # how often a full server looks for clients that are late

Signature = tuple[tuple[int, int], ...]


class LivePage:
    """A run's page as it is now, made again when the run's database has changed.

    Args:
        folder: The run.

    Raises:
        ScenarioError: there is no run, or it cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._guard = threading.Lock()
        self._read()

    def content(self) -> tuple[str, str, bool]:
        """What of the page changes, its entity tag, and whether the run has ended.

        Raises:
            ScenarioError: the run cannot be read any more.
        """
        asked = time.monotonic()
        with self._guard:
            self._renew(asked)
            return self._content, self._tag, self._ended

    def page(self) -> str:
        """The whole page.

        Raises:
            ScenarioError: the run cannot be read any more.
        """
        asked = time.monotonic()
        with self._guard:
            self._renew(asked)
            return self._page

    def _renew(self, asked: float) -> None:
        """Read the run again if it has changed, unless it was read after the request."""
        if self._began < asked and self._signature() != self._seen:
            self._read()

    def _read(self) -> None:
        self._began = time.monotonic()
        seen = self._signature()  # before reading: what changes meanwhile is seen the next time
        with reading(self._folder):
            self._page, self._content = both([self._folder])
        self._tag = f'"{hashlib.sha256(self._content.encode()).hexdigest()}"'
        self._ended = all(run.is_complete or run.diverged for run in find([self._folder]))
        self._seen = seen

    def _signature(self) -> Signature:
        found = []
        for path in (self._folder / DATABASE, self._folder / f"{DATABASE}-wal"):
            with contextlib.suppress(FileNotFoundError):  # the second one goes when the run ends
                one = path.stat()
                found.append((one.st_mtime_ns, one.st_size))
        return tuple(found)


class Server(ThreadingHTTPServer):
    """A server of one live page, on loopback.

    Args:
        live: The page.
        port: Where; 0: any that is free.

    Raises:
        OSError: the port cannot be had.
    """

    daemon_threads = True
    request_queue_size = 1024  # connections that may wait for their turn

    def __init__(self, live: LivePage, port: int) -> None:
        super().__init__((LOOPBACK, port), _Handler)
        self.live = live
        self.token = secrets.token_urlsafe(24)
        self._turns = threading.Semaphore(CLIENTS)
        self._guard = threading.Lock()
        self._until: dict[Any, float] = {}  # when each client that is being served is cut off

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a client in a thread, when it is its turn."""
        while not self._turns.acquire(timeout=_LOOK_S):
            self.service_actions()
        self.give(request, REQUEST_S)
        super().process_request(request, client_address)

    def give(self, request: Any, patience_s: float) -> None:
        """Give a client so much time from now on."""
        with self._guard:
            self._until[request] = time.monotonic() + patience_s

    def service_actions(self) -> None:
        """Look whether the user wants no more, and cut off the clients whose time is over; called several times a second."""
        heed_stop()
        now = time.monotonic()
        with self._guard:
            late = [request for request, until in self._until.items() if now > until]
        for request in late:
            with contextlib.suppress(OSError):
                request.shutdown(socket.SHUT_RDWR)

    def shutdown_request(self, request: Any) -> None:
        """A client has been served, or has gone: it is the next one's turn."""
        with self._guard:
            was_served = self._until.pop(request, None) is not None
        super().shutdown_request(request)
        if was_served:
            self._turns.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away or is cut off is nothing to tell the user."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)

    @property
    def url(self) -> str:
        """The page's address, token included."""
        return f"http://{LOOPBACK}:{self.server_port}/{self.token}/"


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    timeout = REQUEST_S
    server: Server
    server_version = "kappahop"
    sys_version = ""

    def do_GET(self) -> None:
        """Answer with the page or the part of it that changes."""
        self._answer()

    def do_HEAD(self) -> None:
        """Answer without a body."""
        self._answer()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the console is the user's."""

    def _answer(self) -> None:
        self.server.give(self.connection, ANSWER_S)
        hosts = {f"{name}:{self.server.server_port}" for name in (LOOPBACK, "localhost")}
        if self.headers.get("Host") not in hosts:
            return self._send(HTTPStatus.MISDIRECTED_REQUEST, "this server answers to 127.0.0.1 only")
        token, _, name = self.path.removeprefix("/").partition("/")
        if not hmac.compare_digest(token.encode(), self.server.token.encode()) or name not in ("", "content"):
            return self._send(HTTPStatus.NOT_FOUND, "nothing here")
        try:
            if not name:
                return self._send(HTTPStatus.OK, self.server.live.page())
            content, tag, ended = self.server.live.content()
        except ScenarioError as error:
            return self._send(HTTPStatus.SERVICE_UNAVAILABLE, str(error))
        headers = {"ETag": tag, "Run-Ended": "yes" if ended else "no"}
        if self.headers.get("If-None-Match") == tag:
            return self._send(HTTPStatus.NOT_MODIFIED, "", headers)
        return self._send(HTTPStatus.OK, content, headers)

    def _send(self, status: HTTPStatus, text: str, headers: dict[str, str] | None = None) -> None:
        body = text.encode()
        kind = "html" if status == HTTPStatus.OK else "plain"
        self.send_response(status)
        for key, value in {
            "Content-Type": f"text/{kind}; charset=utf-8",
            "Content-Length": str(len(body)),
            "Cache-Control": "no-store",
            "Content-Security-Policy": "frame-ancestors 'none'",  # what a page cannot say of itself; the rest it does
            "Cross-Origin-Resource-Policy": "same-origin",
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            **(headers or {}),
        }.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def serve(folder: Path, port: int, announce: Callable[[str], None]) -> None:
    """Serve a run's page until Ctrl-C.

    Args:
        folder: The run.
        port: Where on loopback; 0: any that is free.
        announce: Takes the page's address.

    Raises:
        ScenarioError: there is no run in the folder, it cannot be read, or the port cannot be had.
    """
    if not (folder / DATABASE).is_file():
        raise ScenarioError(f"{folder}: no run, or one that has only begun; expected a folder with {DATABASE}")
    live = LivePage(folder)
    try:
        server = Server(live, port)
    except OSError as error:
        raise ScenarioError(f"--port: cannot have {port} ({error.strerror or error})") from None
    with server, contextlib.suppress(StopRequested), stopped_by(signal.SIGINT, signal.SIGTERM):
        announce(server.url)
        server.serve_forever(SLICE_S)
