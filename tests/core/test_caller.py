"""Who the policy of a handler let in, for handlers without a guard at hand."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket

from routeguard import ApiKey, GuardNotApplied, Routeguard, Settings, UserSession, principal_of, public
from tests.sessions.test_identify import Person


def who(request: Any) -> Person | None:
    return Person("ann") if request.cookie("user") == "ann" else None


async def me(request: Request) -> Response:
    return PlainTextResponse(principal_of(request, UserSession).principal_id)


async def key(request: Request) -> Response:
    return PlainTextResponse(principal_of(request, ApiKey).principal_id)


async def socket(connection: WebSocket) -> None:
    await connection.accept()
    await connection.send_text(principal_of(connection, UserSession).principal_id)


def test_a_handler_is_told_who_calls() -> None:
    guard: Routeguard[Person] = Routeguard(Settings(), user=Person, identify=who)
    session = guard.session()

    async def open_to_all(request: Request) -> Response:
        return await me(request)

    routes = [
        Route("/me", guard(session)(me)),
        Route("/key", guard(session)(key)),
        Route("/open", guard(public)(open_to_all)),
        WebSocketRoute("/ws", guard(session)(socket)),
    ]
    app = Starlette(routes=routes)
    guard.install(app)
    with TestClient(app, base_url="http://127.0.0.1:8000", cookies={"user": "ann"}) as client:
        assert client.get("/me").text == "ann"
        # Of another class than the policy gave, and where the policy gave none.
        assert client.get("/key").status_code == 401
        assert client.get("/open").status_code == 401
        with client.websocket_connect("/ws", headers={"origin": "http://127.0.0.1:8000"}) as opened:
            assert opened.receive_text() == "ann"


def test_without_a_decision_there_is_no_caller() -> None:
    async def undecided(request: Request) -> Response:
        with pytest.raises(GuardNotApplied, match="guarded route"):
            principal_of(request, UserSession)
        return PlainTextResponse("")

    with TestClient(Starlette(routes=[Route("/x", undecided)])) as client:
        assert client.get("/x").status_code == 200
