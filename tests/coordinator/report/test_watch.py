"""The live page's server: who gets an answer, what it answers, and how it ends."""

import contextlib
import http.client
import os
import select
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from coordinator.records.run_sqlite import DATABASE
from coordinator.report import watch
from coordinator.report.page import both, document, fragment
from coordinator.report.watch import LivePage, Server, serve
from scenarios.loading import ScenarioError
from topology.deployment import DEPLOYMENT_FILE

RecordRun = Callable[..., Path]


@pytest.fixture
def folder(tmp_path: Path, record_run: RecordRun) -> Path:
    """A run half done."""
    words = "budget.env_steps=80"
    return record_run(tmp_path / "run", words, returns=[None, 1.0] * 4, round_bytes=[100] * 4, ended=False)


@pytest.fixture
def server(folder: Path) -> Iterator[Server]:
    with Server(LivePage(folder), 0) as one:
        thread = threading.Thread(target=one.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield one
        one.shutdown()
        thread.join()


def ask(server: Server, path: str, method: str = "GET", **headers: str) -> tuple[int, str, http.client.HTTPMessage]:
    with closing(http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)) as connection:
        connection.request(method, path, headers={key.replace("_", "-"): value for key, value in headers.items()})
        answer = connection.getresponse()
        return answer.status, answer.read().decode(), answer.headers


def change(folder: Path, *statements: str) -> None:
    with closing(sqlite3.connect(folder / DATABASE)) as database:
        for sql in statements:
            database.execute(sql)
        database.commit()


def test_a_file_that_goes_while_it_is_looked_at_is_one_that_is_not_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the write-ahead log does when the run ends."""
    live = LivePage(folder)
    monkeypatch.setattr(Path, "exists", lambda path: True)
    assert not (folder / f"{DATABASE}-wal").is_file()
    assert live.content()[1] == LivePage(folder).content()[1]


def test_the_page_and_its_content_are_those_of_the_run(server: Server, folder: Path) -> None:
    status, text, headers = ask(server, f"/{server.token}/")
    assert status == 200
    assert text == document([folder], live=True)
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    status, text, headers = ask(server, f"/{server.token}/content")
    assert (status, text) == (200, fragment([folder]))
    assert headers["Run-Ended"] == "no"
    assert ask(server, f"/{server.token}/", "HEAD")[:2] == (200, "")


def test_without_the_token_there_is_nothing(server: Server) -> None:
    wrong = server.token[:-1] + ("A" if server.token[-1] != "A" else "B")
    for path in (
        "/",
        "/content",
        f"/{wrong}/",
        f"/{wrong}/content",
        f"/{server.token[:-1]}/",
        "//",
        "/%ff/",
    ):
        status, text, headers = ask(server, path)
        assert (status, text) == (404, "nothing here"), path
        assert "ETag" not in headers
    assert len(server.token) >= 32


def test_no_path_leads_to_a_file(server: Server) -> None:
    for name in ("run.sqlite", "scenario.yaml", "../run.sqlite", "..%2frun.sqlite", "content/..", "content?x"):
        assert ask(server, f"/{server.token}/{name}")[0] == 404


def test_other_hosts_names_are_refused(server: Server) -> None:
    assert ask(server, f"/{server.token}/", Host="example.org")[0] == 421
    assert ask(server, f"/{server.token}/", Host=f"example.org:{server.server_port}")[0] == 421
    assert ask(server, f"/{server.token}/", Host=f"localhost:{server.server_port}")[0] == 200


def test_it_listens_on_loopback_only_and_only_shows(server: Server) -> None:
    assert server.socket.getsockname()[0] == "127.0.0.1"
    assert server.url == f"http://127.0.0.1:{server.server_port}/{server.token}/"
    for method in ("POST", "PUT", "DELETE"):
        assert ask(server, f"/{server.token}/", method)[0] == 501


def test_what_has_not_changed_is_not_sent_again_and_what_has_is(server: Server, folder: Path) -> None:
    path = f"/{server.token}/content"
    tag = ask(server, path)[2]["ETag"]
    assert ask(server, path, If_None_Match=tag)[:2] == (304, "")
    change(folder, "INSERT INTO episodes VALUES (4, 40, 1, 99.0, 0.5, '[]', 5, '{}')")
    status, text, headers = ask(server, path, If_None_Match=tag)
    assert status == 200
    assert headers["ETag"] != tag
    assert "Return 50.0" in text, "(1 + 99) / 2 in the last tenth"


def test_the_end_of_the_run_is_told(server: Server, folder: Path) -> None:
    figures = {"env_steps": "80", "return_mean": "1.0", "cost_mean": "0.5", "cost_limit": "null", "bytes_per_agent_step": "1.0"}
    change(folder, *(f"INSERT INTO meta VALUES ('{key}', '{value}')" for key, value in figures.items()))
    status, text, headers = ask(server, f"/{server.token}/content")
    assert (status, headers["Run-Ended"]) == (200, "yes")
    assert "Unfinished" not in text


def test_a_run_that_cannot_be_read_any_more_is_told(server: Server, folder: Path) -> None:
    (folder / DATABASE).write_bytes(b"no database at all" * 100)
    status, text, _ = ask(server, f"/{server.token}/content")
    assert status == 503
    assert "cannot be read" in text


def test_a_deployment_that_is_removed_is_told(server: Server, folder: Path) -> None:
    (folder / DEPLOYMENT_FILE).unlink()
    change(folder, "INSERT INTO episodes VALUES (4, 40, 1, 99.0, 0.5, '[]', 5, '{}')")
    for name in ("", "content"):
        status, text, _ = ask(server, f"/{server.token}/{name}")
        assert (status, text) == (503, f"{folder}/deployment.json: cannot be read (No such file or directory)")


def test_two_hundred_clients_at_once_are_all_answered_and_cost_few_readings(
    server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readings = []

    def counted(places: Sequence[Path]) -> tuple[str, str]:
        readings.append(places)
        return both(places)

    monkeypatch.setattr(watch, "both", counted)
    request = f"GET /{server.token}/ HTTP/1.1\r\nHost: 127.0.0.1:{server.server_port}\r\n\r\n".encode()
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(socket.create_connection(("127.0.0.1", server.server_port), 60)) for _ in range(200)]
        change(folder, "INSERT INTO episodes VALUES (4, 40, 1, 99.0, 0.5, '[]', 5, '{}')")
        for client in clients:
            client.sendall(request)
        answers = [stack.enter_context(client.makefile("rb")).read() for client in clients]
    assert {answer.split(b"\r\n")[0] for answer in answers} == {b"HTTP/1.0 200 OK"}
    assert len({answer[answer.index(b"\r\n\r\n") :] for answer in answers}) == 1
    assert 1 <= len(readings) <= 3


@pytest.mark.parametrize("drip", [b"", b"x"], ids=["silent", "byte by byte"])
def test_who_does_not_come_to_the_point_is_cut_off_and_holds_up_nobody(
    folder: Path, monkeypatch: pytest.MonkeyPatch, drip: bytes
) -> None:
    monkeypatch.setattr(watch, "CLIENTS", 2)
    monkeypatch.setattr(watch, "REQUEST_S", 0.5)
    with Server(LivePage(folder), 0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        slow = [socket.create_connection(("127.0.0.1", server.server_port), 30) for _ in range(3)]
        began, open_ = time.monotonic(), list(slow)
        while open_:
            assert time.monotonic() - began < 20
            for client in list(open_):
                try:
                    if drip:
                        client.sendall(drip)
                    if select.select([client], [], [], 0.05)[0] and not client.recv(100):
                        open_.remove(client)
                except OSError:
                    open_.remove(client)
        assert ask(server, f"/{server.token}/content")[0] == 200
        for client in slow:
            client.close()
        server.shutdown()
        thread.join()


def test_where_there_is_no_run_or_no_port_nothing_is_served(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(ScenarioError, match=r": no run, or one that has only begun; expected a folder with run.sqlite$"):
        serve(tmp_path, 0, print)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ScenarioError, match=r"^--port: cannot have \d+ \(Address already in use\)$"):
            serve(folder, taken.getsockname()[1], print)


@pytest.mark.system
def test_the_command_prints_an_address_that_answers_and_ends_with_ctrl_c(folder: Path) -> None:
    words = [sys.executable, "-P", "-m", "kappahop", "watch", str(folder)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "COLUMNS": "200"}) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            assert select.select([process.stdout], [], [], 50)[0], "no address"
            address = process.stdout.readline().decode().split()[0]
            host, _, path = address.removeprefix("http://").partition("/")
            with closing(http.client.HTTPConnection(host, timeout=30)) as connection:
                connection.request("GET", f"/{path}")
                assert connection.getresponse().status == 200
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=20) == 0
            assert process.stderr.read() == b""
        finally:
            process.kill()
