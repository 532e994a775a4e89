"""Refused WebSocket handshakes on real servers: an answer for the client, and no error in the server's log."""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
import time
import warnings
from typing import Any

import pytest
import uvicorn
import websockets
from fastapi import FastAPI, HTTPException, WebSocket
from uvicorn.protocols.websockets import websockets_sansio_impl

from routeguard import Routeguard, Secret, Settings, public

COVERS = ("protection/guard/denial",)

SETTINGS = Settings(secret=Secret("0123456789abcdef" * 2))


def needs_denial(implementation: str, *, extension: bool) -> None:
    """Skip where uvicorn doubles Content-Length in a denial response: in 0.35, where that is not its default."""
    sent = inspect.getsource(websockets_sansio_impl.WebSocketsSansIOProtocol.send)
    if implementation == "websockets-sansio" and extension and 'setdefault("Content-Length"' not in sent:
        pytest.skip(f"uvicorn {uvicorn.__version__} sends no valid denial response by websockets-sansio")


def application() -> FastAPI:
    guard: Routeguard[Any] = Routeguard(SETTINGS, identify=lambda request: None)
    app = FastAPI()

    async def accepts(socket: WebSocket) -> None:
        await socket.accept()

    async def closes(socket: WebSocket) -> None:
        await socket.close(1008)

    async def denies(socket: WebSocket) -> None:
        raise HTTPException(418, "said by the handler")

    app.add_api_websocket_route("/session", guard(guard.session())(accepts))
    app.add_api_websocket_route("/closes", guard(public)(closes))
    app.add_api_websocket_route("/denies", guard(public)(denies))
    guard.install(app)
    return app


def unguarded() -> FastAPI:
    """A marked handler in an application without a guard."""
    guard: Routeguard[Any] = Routeguard(SETTINGS, identify=lambda request: None)
    app = FastAPI()

    async def accepts(socket: WebSocket) -> None:
        await socket.accept()

    app.add_api_websocket_route("/session", guard(guard.session())(accepts))
    return app


def without_extension(app: Any) -> Any:
    async def plain(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "extensions": {}}, receive, send)

    return plain


def refusals(app: Any, implementation: str, loop: Any, *paths: str) -> list[int]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = uvicorn.Config(
            app, host="127.0.0.1", port=0, ws=implementation, loop=loop, log_config=None, lifespan="off"
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run)
        thread.start()
        try:
            deadline = time.monotonic() + 60
            while not server.started and thread.is_alive() and time.monotonic() < deadline:
                time.sleep(0.01)
            port = server.servers[0].sockets[0].getsockname()[1]
            return [asyncio.run(refusal(f"ws://127.0.0.1:{port}{path}")) for path in paths]
        finally:
            server.should_exit = True
            thread.join(60)


async def refusal(url: str) -> int:
    try:
        async with websockets.connect(url, open_timeout=60):
            return 101
    except websockets.InvalidStatus as error:
        return error.response.status_code


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("implementation", ["websockets", "websockets-sansio", "wsproto"])
@pytest.mark.parametrize("extension", [True, False], ids=["denial", "no denial"])
def test_a_refused_handshake_is_no_error(
    implementation: str, loop: str, extension: bool, caplog: pytest.LogCaptureFixture
) -> None:
    needs_denial(implementation, extension=extension)
    caplog.set_level(logging.INFO, "uvicorn")
    app = application()
    found = refusals(
        app if extension else without_extension(app),
        implementation,
        loop,
        "/session",
        "/session",
        "/nothing",
        "/closes",
        "/denies",
    )
    assert found == ([401, 401, 403, 403, 418] if extension else [403] * 5)
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


@pytest.mark.parametrize("implementation", ["websockets-sansio", "wsproto"])
@pytest.mark.parametrize("extension", [True, False], ids=["denial", "no denial"])
def test_nor_is_one_without_a_guard(implementation: str, extension: bool, caplog: pytest.LogCaptureFixture) -> None:
    needs_denial(implementation, extension=extension)
    app = unguarded()
    found = refusals(app if extension else without_extension(app), implementation, "asyncio", "/session")
    assert found == [500 if extension else 403]
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []
