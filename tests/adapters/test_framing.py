"""Request smuggling over raw sockets (RFC 9112 section 6.1): with either parser of uvicorn, and with our own."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn

from routeguard.cli.http1 import StrictH11Protocol
from routeguard.core.policy import Policy, public
from tests.adapters.starlette_app import FastAPIApp, StarletteApp
from tests.adapters.test_servers import Running
from tests.conformance.adapters import Reader
from tests.conformance.framing import KINDLY_READ, MISFRAMED, SOUND, request
from tests.conformance.wire import Limit, Spy, key

COVERS = ("cli/http1",)

PARSERS: dict[str, Any] = {"httptools": "httptools", "h11": "h11", "strict": StrictH11Protocol}
HIDDEN = b"GET /hidden HTTP/1.1\r\nHost: testserver\r\n\r\n"
LAST = HIDDEN.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
TARGETS = ("/read", "/key", "/nowhere")
"""A route that reads, one that refuses its caller, and none."""


@pytest.fixture(scope="module", params=PARSERS)
def server(request: pytest.FixtureRequest) -> Iterator[Running]:
    app = (FastAPIApp if request.param == "h11" else StarletteApp)()
    app.route("/hidden", Spy(), public)
    app.route("/read", Reader(), public & Policy.of(Limit(1000)), methods=["GET", "POST"])
    app.route("/key", Reader(), key, methods=["GET", "POST"])
    app.install()
    config = uvicorn.Config(app.asgi(), port=0, http=PARSERS[request.param], log_level="critical", lifespan="on")
    running = uvicorn.Server(config)
    thread = threading.Thread(target=running.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 60
    while not running.started and time.monotonic() < deadline:
        time.sleep(0.01)
    yield Running(running.servers[0].sockets[0].getsockname()[1], str(request.param), [])
    running.should_exit = True
    thread.join(60)


def answers(data: bytes) -> list[bytes]:
    """Return the status of every answer on a connection."""
    return [part[:3] for part in data.replace(b"HTTP/1.0 ", b"HTTP/1.1 ").split(b"HTTP/1.1 ")[1:]]


def refused_and_closed(server: Running, data: bytes) -> None:
    received = server.talk(data + HIDDEN, wait=60)
    assert answers(received) == [b"400"], received[:400]
    assert b"connection: close\r\n" in received.lower()
    assert b"x-canary" not in received


@pytest.mark.parametrize("name", MISFRAMED)
def test_refused_and_closed(server: Running, name: str) -> None:
    """Where a route reads the body, where one refuses its caller, and where no route matches."""
    for target in TARGETS:
        refused_and_closed(server, request(target, *MISFRAMED[name]))
    refused_and_closed(server, request("/read", *MISFRAMED[name], method="GET"))


@pytest.mark.parametrize("name", KINDLY_READ)
def test_what_h11_reads_kindly(server: Running, name: str) -> None:
    """Our own parser refuses it, as httptools does; h11 hides it from every application."""
    if server.parser == "h11":
        assert answers(server.talk(request("/read", *KINDLY_READ[name]) + LAST, wait=60))[0] == b"200"
        return
    for target in TARGETS:
        refused_and_closed(server, request(target, *KINDLY_READ[name]))


def test_lines_that_end_with_lf(server: Running) -> None:
    if server.parser != "h11":
        refused_and_closed(server, b"POST /read HTTP/1.1\nHost: testserver\nContent-Length: 0\n\n")
        refused_and_closed(server, b"GET /read HTTP/1.1\r\n X-Other: a\r\nHost: testserver\r\n\r\n")


def test_http_1_0_has_no_transfer_encoding(server: Running) -> None:
    for fields in (b"Connection: keep-alive\r\n", b"", b"Content-Length: 5\r\n"):
        data = request("/read", fields + b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n").replace(b"/1.1", b"/1.0")
        assert answers(server.talk(data + HIDDEN, wait=60)) == [b"400"]


def test_a_request_that_comes_after_the_refusal(server: Running) -> None:
    """Not only what was sent together with the first one."""
    with socket.create_connection(("127.0.0.1", server.port), 60) as connection:
        connection.sendall(request("/nowhere", *MISFRAMED["length and chunked"]))
        received = connection.recv(65536)
        try:
            connection.sendall(HIDDEN)
            while part := connection.recv(65536):
                received += part
        except (BrokenPipeError, ConnectionResetError):
            pass
    assert answers(received) == [b"400"]


@pytest.mark.parametrize("name", SOUND)
def test_sound_requests_keep_the_connection(server: Running, name: str) -> None:
    for target, status in (("/read", b"200"), ("/nowhere", b"404")):
        assert answers(server.talk(request(target, *SOUND[name]) + LAST, wait=60)) == [status, b"200"]


def test_in_any_pieces(server: Running) -> None:
    """A head that arrives byte by byte is read as one that arrives whole."""
    cases = [(SOUND["length"], b"200"), (MISFRAMED["NUL"], b"400"), (MISFRAMED["length and chunked"], b"400")]
    if server.parser != "h11":
        cases += [(KINDLY_READ["any fold"], b"400"), (KINDLY_READ["LF before the body"], b"400")]
    for data, status in ((request("/read", *case), status) for case, status in cases):
        with socket.create_connection(("127.0.0.1", server.port), 60) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                for place in range(len(data)):
                    connection.sendall(data[place : place + 1])
            except (BrokenPipeError, ConnectionResetError):
                pass
            assert answers(connection.recv(65536)) == [status]


def _chunks(connection: socket.socket, most: int) -> int:
    """Send chunks until the server hangs up; return how many bytes it may have read."""
    chunk = b"4000\r\n" + b"a" * 0x4000 + b"\r\n"
    sent = 0
    try:
        while sent < most:
            connection.sendall(chunk)
            sent += len(chunk)
    except (BrokenPipeError, ConnectionResetError):
        pass
    return sent


@pytest.mark.parametrize(("target", "status"), [("/read", b"413"), ("/key", b"401")])
def test_a_body_without_an_end_is_not_read_on(server: Running, target: str, status: bytes) -> None:
    """BODY-01: the answer comes at once, and the connection ends, however long the client could go on."""
    most = 64 * 1024 * 1024
    with socket.create_connection(("127.0.0.1", server.port), 60) as connection:
        connection.sendall(request(target, b"Transfer-Encoding: chunked\r\n", b""))
        sent = _chunks(connection, most)
        received = b""
        try:
            while part := connection.recv(65536):
                received += part
        except ConnectionResetError:
            pass
    assert sent < most
    # What had arrived before the connection was reset may be lost.
    assert not received or (answers(received) == [status] and b"connection: close\r\n" in received.lower())


def test_one_byte_over_the_limit_in_chunks(server: Running) -> None:
    body = b"3e9\r\n" + b"a" * 1001 + b"\r\n0\r\n\r\n"
    received = server.talk(request("/read", b"Transfer-Encoding: chunked\r\n", body) + LAST, wait=60)
    assert answers(received)[0] == b"413"
    assert b"x-canary" not in received.split(b"\r\n\r\n")[0]


def test_a_declared_body_that_nobody_reads(server: Running) -> None:
    """A short rest is read and dropped, for a client that reads only when it has sent all; a long one is not."""
    refused = request("/read", b"Content-Length: 1001\r\n", b"a" * 1001)
    assert answers(server.talk(refused + LAST, wait=60)) == [b"413", b"200"]
    received = server.talk(request("/read", b"Content-Length: 99999999999\r\n", b"a"), wait=60)
    assert answers(received) == [b"413"]
    assert b"connection: close\r\n" in received.lower()
