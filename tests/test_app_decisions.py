"""What counts as a decision: only what says who may call. A limit, a size or a header opens no route (AZ-13)."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import Any

import pytest
from fastapi import Depends, FastAPI, Request, WebSocket
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from routeguard import (
    ConfigError,
    Policy,
    ProblemError,
    Routeguard,
    Settings,
    UserSession,
    body_limit,
    content_types,
    cors,
    csrf,
    deferred,
    hosts,
    idempotent,
    ip,
    rate_limit,
    security_headers,
    strict_json,
    unsafe_without_csrf,
)
from routeguard.core.principal import PrincipalWatcher
from tests.test_app import AppUser, resolver

COVERS = ("builtin/api",)

LIMITS: dict[str, Policy] = {
    "rate_limit": rate_limit("100/minute", by=ip),
    "body_limit": body_limit("1 KB"),
    "csrf": csrf(),
    "cors": cors(origins=["https://app.example"]),
    "security_headers": security_headers(),
    "hosts": hosts("127.0.0.1:8000", "testserver"),
    "content_types": content_types("application/json"),
    "unsafe_without_csrf": unsafe_without_csrf(),
    "strict_json": strict_json(),
}


@pytest.fixture
def guard(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Routeguard[AppUser]:
    monkeypatch.chdir(tmp_path)
    return Routeguard(Settings(), user=AppUser, identify=resolver)


@pytest.mark.parametrize("name", LIMITS)
def test_a_limit_alone_is_no_decision(guard: Routeguard[AppUser], name: str) -> None:
    ran: list[str] = []
    app = FastAPI()
    guard.install(app)

    @app.get("/x")
    @guard(LIMITS[name])
    async def handler() -> str:
        ran.append("x")
        return "secret"

    with pytest.raises(ConfigError, match="no policy"), TestClient(app):
        pass
    assert TestClient(app, base_url="http://127.0.0.1:8000").get("/x").status_code == 500
    assert ran == []


@pytest.mark.parametrize("name", LIMITS)
def test_a_limit_adds_to_the_default(guard: Routeguard[AppUser], name: str) -> None:
    app = FastAPI()
    guard.install(app, default=guard.session())

    @app.get("/x")
    @guard(LIMITS[name])
    async def handler() -> str:
        return "yes"

    with TestClient(app, base_url="http://127.0.0.1:8000") as client:
        assert client.get("/x").status_code == 401
        assert client.get("/x", headers={"x-user": "ann"}).status_code in {200, 415}
    row = next(row for row in guard.matrix() if row.path == "/x")
    assert "signed in" in row.policy


def test_a_limit_adds_to_what_parameters_ask(guard: Routeguard[AppUser]) -> None:
    app = FastAPI()
    guard.install(app)
    current = Depends(guard.current_session)

    @app.post("/x")
    @guard(body_limit("10"))
    async def handler(request: Request, session: UserSession[AppUser] = current) -> str:
        return session.user.id

    with TestClient(app, base_url="http://127.0.0.1:8000") as client:
        assert client.post("/x").status_code == 401
        assert client.post("/x", headers={"x-user": "ann"}).json() == "1"
        assert client.post("/x", headers={"x-user": "ann"}, content=b"x" * 11).status_code == 413


def test_a_handler_that_swallows_a_refusal_does_not_answer(guard: Routeguard[AppUser]) -> None:
    """AZ-16: what `require` refused is no decision to let in."""
    app = FastAPI()
    guard.install(app)

    @app.get("/x")
    @guard(deferred)
    async def handler(request: Request) -> str:
        try:
            await guard.require(request, guard.session(user={"role": "admin"}))
        except ProblemError:
            return "secret all the same"
        return "for admins"

    client = TestClient(app, base_url="http://127.0.0.1:8000", raise_server_exceptions=False)
    refused = client.get("/x", headers={"x-user": "bob"})
    assert refused.status_code == 500
    assert "secret" not in refused.text
    assert client.get("/x", headers={"x-user": "ann"}).json() == "for admins"


def test_a_route_class_that_changes_the_method_is_asked_for_the_new_one(guard: Routeguard[AppUser]) -> None:
    """CSRF-11, AZ-06: the policy of one method must not admit to another."""
    ran: list[str] = []

    class Overriding(Route):
        async def handle(self, scope: Any, receive: Any, send: Any) -> None:
            scope["method"] = "DELETE"
            await super().handle(scope, receive, send)

    class Thing(HTTPEndpoint):
        @guard(guard.optional_session())
        async def get(self, request: Request) -> PlainTextResponse:
            return PlainTextResponse("read")

        @guard(guard.session(user={"role": "admin"}))
        async def delete(self, request: Request) -> PlainTextResponse:
            ran.append("deleted")
            return PlainTextResponse("deleted")

    app = Starlette(routes=[Overriding("/x", Thing)])
    guard.install(app)
    assert TestClient(app, base_url="http://127.0.0.1:8000").get("/x").status_code == 401
    assert ran == []


def test_a_policy_that_wants_a_read_body_says_so(guard: Routeguard[AppUser]) -> None:
    """It must not wait for bytes that will never come."""
    app = FastAPI()
    guard.install(app)

    @app.post("/x")
    @guard(deferred)
    async def handler(request: Request) -> str:
        await request.body()
        await guard.require(request, guard.session() & strict_json())
        return "never"

    client = TestClient(app, base_url="http://127.0.0.1:8000", raise_server_exceptions=False)
    answer = client.post("/x", json={"a": 1}, headers={"x-user": "ann"})
    assert answer.status_code == 500


def test_an_answer_is_not_kept_where_the_handler_decides_who_asks(guard: Routeguard[AppUser]) -> None:
    """DDP-01: it would be replayed before the handler has asked who wants it."""
    app = FastAPI()
    guard.install(app)

    @app.post("/x")
    @guard(deferred, idempotent())
    async def handler() -> None: ...

    with pytest.raises(ConfigError), TestClient(app):
        pass


def test_a_socket_that_decides_in_its_handler_ends_with_its_principal(guard: Routeguard[AppUser]) -> None:
    """WS-05."""

    end = threading.Event()

    class Ending:
        async def wait_until_revoked(self, principal: Any) -> None:
            assert principal.user.id == "1"
            await asyncio.to_thread(end.wait, 60)

    guard.services.add(PrincipalWatcher, Ending())
    app = FastAPI()
    guard.install(app)

    @app.websocket("/ws")
    @guard(deferred)
    async def socket(websocket: WebSocket) -> None:
        await guard.require(websocket, guard.session())
        await websocket.accept()
        with contextlib.suppress(WebSocketDisconnect):
            while True:
                await websocket.send_text(await websocket.receive_text())

    client = TestClient(app, base_url="http://127.0.0.1:8000")
    with client, client.websocket_connect("/ws", headers={"x-user": "ann"}) as found:
        found.send_text("hello")
        assert found.receive_text() == "hello"
        end.set()
        with pytest.raises(WebSocketDisconnect) as caught:
            found.receive_text()
        assert caught.value.code == 1008
