"""Sockets that are asked about more than once, and those whose handler looks for a session by itself."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI, WebSocket
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from routeguard import Routeguard, Settings, deferred, public
from routeguard.core.secret import Secret
from routeguard.protection.traffic.models import TrafficSettings
from tests.accounts import EMAIL, PASSWORD, prepare

URL = "http://127.0.0.1:8000"
EVIL = "https://evil.example"


def sockets(guard: Routeguard[Any]) -> FastAPI:
    app, router = FastAPI(), guard(guard.session())(APIRouter())
    guard.install(app)

    async def greet(socket: WebSocket) -> None:
        await socket.accept()
        found = await guard.find_session(socket)
        await socket.send_text(found.user.email if found else "nobody")
        with contextlib.suppress(WebSocketDisconnect):
            while True:
                await socket.send_text(await socket.receive_text())

    router.websocket("/twice")(guard(guard.session())(greet))
    app.include_router(router)

    @app.websocket("/required")
    @guard(deferred)
    async def required(socket: WebSocket) -> None:
        await guard.require(socket, guard.session())
        await guard.require(socket, guard.session(rule=lambda session: True))
        await greet(socket)

    @app.websocket("/found")
    @guard(public)
    async def found(socket: WebSocket) -> None:
        await greet(socket)

    @app.websocket("/echoes")
    @guard(guard.session())
    async def echoes(socket: WebSocket) -> None:
        offered = socket.headers["sec-websocket-protocol"]
        await socket.accept(subprotocol=offered, headers=[(b"sec-websocket-protocol", offered.encode())])
        await socket.send_text("open")

    return app


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    file = tmp_path_factory.mktemp("twice") / "test.db"
    limits = TrafficSettings(sign_in="off", identity="off")
    settings = Settings(secret=Secret("s" * 32), database_url=f"sqlite:///{file}", traffic=limits)
    asyncio.run(prepare(settings))
    with TestClient(sockets(Routeguard(settings)), base_url=URL, headers={"origin": URL}) as client:
        yield client


@pytest.fixture(autouse=True)
def _signed_in(client: TestClient) -> None:
    client.cookies.clear()
    assert client.post("/auth/sign-in", json={"email": EMAIL, "password": PASSWORD}).status_code == 200


def offered(client: TestClient, path: str) -> list[str]:
    ticket = client.post("/auth/ticket", json={"path": path}).json()["ticket"]
    client.cookies.clear()
    return ["routeguard", f"routeguard.ticket.{ticket}"]


@pytest.mark.parametrize("path", ["/twice", "/required"])
def test_one_handshake_spends_its_ticket_once(client: TestClient, path: str) -> None:
    names = offered(client, path)
    with client.websocket_connect(path, subprotocols=names, headers={"origin": EVIL}) as socket:
        assert socket.receive_text() == EMAIL
    with pytest.raises(WebSocketDisconnect), client.websocket_connect(path, subprotocols=names):
        pass


def test_a_ticket_is_not_sent_back(client: TestClient) -> None:
    """WS-04: whatever of the handshake a handler repeats."""
    with client.websocket_connect("/echoes", subprotocols=offered(client, "/echoes")) as socket:
        assert socket.receive_text() == "open"
        assert socket.accepted_subprotocol == "routeguard"
        assert "ticket" not in str(socket.extra_headers)


def test_a_socket_that_found_its_session_ends_with_it(client: TestClient) -> None:
    """WS-05: on a public route, too."""
    with client.websocket_connect("ws://127.0.0.1:8000/found") as socket:
        assert socket.receive_text() == EMAIL
        assert client.post("/auth/sign-out-everywhere").status_code == 204
        with pytest.raises(WebSocketDisconnect):
            socket.receive_text()


def test_a_page_of_a_foreign_origin_finds_no_session(client: TestClient) -> None:
    """WS-01: the browser adds the cookie, and the route is public."""
    with client.websocket_connect("ws://127.0.0.1:8000/found", headers={"origin": EVIL}) as socket:
        assert socket.receive_text() == "nobody"
