"""A real service on a real port: the identity routes, some handlers to call, and a page that may run modules."""

from __future__ import annotations

import asyncio
import re
import socket
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from routeguard import Routeguard, Settings, content_types, csrf, public, security_headers
from routeguard.cli.accounts import make_account
from routeguard.core.secret import Secret
from routeguard.foundation.db.database import Database
from routeguard.foundation.db.migrate import migrate
from routeguard.foundation.db.models import DatabaseSettings
from routeguard.identity.tokens.models import TokenSettings
from routeguard.protection.traffic.models import TrafficSettings

PATIENCE = 60.0
"""Seconds that a client waits for an answer, on however busy a machine."""
PASSWORD = "plum tractor wobble seventeen"
PEOPLE = ("ada@example.com", "bob@example.com", "eve@example.com")
HOW_TO = Path(__file__).parents[2] / "docs" / "how-to" / "use-the-clients.md"


def block(language: str) -> str:
    """Return the first block of a language on the page about the clients."""
    found = re.search(rf"^```{language}\n(.*?)^```$", HOW_TO.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1]


class Service:
    """An application in a thread of its own, and a record of what reached it."""

    def __init__(self, directory: Path) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        off = TrafficSettings(sign_in="off", sign_up="off", identity="off", refresh="off")
        settings = Settings(
            issuer=self.url,
            secret=Secret("s" * 32),
            environment="development",
            traffic=off,
            database_url=f"sqlite:///{directory / 'test.db'}",
            tokens=TokenSettings(grace=timedelta(seconds=10)),
            database=DatabaseSettings(timeout=timedelta(seconds=20), statement_timeout=timedelta(seconds=20)),
        )
        self.guard = Routeguard(settings)
        self.seen: list[tuple[str, str, dict[str, str]]] = []
        """Method, path and headers of every request."""
        self.stale: str | None = None
        """An access cookie that `/api/probe` takes for spent."""
        self.together = 1
        """How many requests with that cookie it waits for before it refuses them all."""
        self._waiting = 0
        config = uvicorn.Config(self._recorded(self._app()), log_level="warning", lifespan="on", access_log=False)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True)

    def _app(self) -> Starlette:
        guard = self.guard

        @guard(public)
        async def page(request: Request) -> Response:
            return Response("<!doctype html><title>page</title>", media_type="text/html")

        @guard(public & security_headers("pages"))
        async def example(request: Request) -> Response:
            return Response(block("html"), media_type="text/html")

        @guard(guard.session())
        async def greet(socket: WebSocket) -> None:
            await socket.accept()
            await socket.send_text((await guard.current_session(socket)).user.email)
            await socket.close()

        @guard(public)
        async def script(request: Request) -> Response:
            return Response(block("js"), media_type="text/javascript")

        @guard(guard.session() & content_types("application/json"))
        async def invoices(request: Request) -> Response:
            return JSONResponse({"got": await request.json()}, 201)

        @guard(guard.session())
        async def me(request: Request) -> Response:
            session = await guard.current_session(request)
            return JSONResponse({"email": session.user.email})

        @guard(guard.session() & csrf(token=True))
        async def strict(request: Request) -> Response:
            return JSONResponse({"got": (await request.body()).decode()})

        @guard(guard.session() & guard.fresh(timedelta(microseconds=1)))
        async def transfer(request: Request) -> Response:
            return PlainTextResponse("never")

        @guard(public)
        async def away(request: Request) -> Response:
            return RedirectResponse(request.query_params["to"], 307)

        @guard(public)
        async def probe(request: Request) -> Response:
            if request.cookies.get("routeguard-access") == self.stale:
                await self._refused_together()
                return JSONResponse({}, 401)
            return JSONResponse({"got": (await request.body()).decode()})

        app = Starlette(
            routes=[
                Route("/api/probe", probe, methods=["GET", "POST"]),
                WebSocketRoute("/ws/greet", greet),
                Route("/page", page),
                Route("/example", example),
                Route("/static/invoices.js", script),
                Route("/api/invoices", invoices, methods=["POST"]),
                Route("/api/me", me),
                Route("/api/strict", strict, methods=["POST"]),
                Route("/api/transfer", transfer, methods=["POST"]),
                Route("/api/away", away, methods=["GET", "POST"]),
            ]
        )
        guard.install(app)
        return app

    async def _refused_together(self) -> None:
        self._waiting += 1
        while self._waiting < self.together:
            await asyncio.sleep(0.01)

    def _recorded(self, app: Any) -> Any:
        async def recorded(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http":
                headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
                self.seen.append((scope["method"], scope["path"], headers))
            await app(scope, receive, send)

        return recorded

    def start(self) -> None:
        asyncio.run(self._prepare())
        self._thread.start()
        # Connections wait in the socket's queue until the server takes them, so there is nothing to wait for here.

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(30)
        self._socket.close()
        assert not self._thread.is_alive()

    async def _prepare(self) -> None:
        guard = Routeguard(self.guard.settings)
        await migrate(guard.services.get(Database))
        await guard.start()
        try:
            for email in PEOPLE:
                await make_account(guard.services, email, name=email[:3], role="user", password=PASSWORD)
        finally:
            await guard.close()

    def calls(self, path: str) -> list[dict[str, str]]:
        """Return the headers of every request for a path."""
        return [headers for _, one, headers in self.seen if one == path]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    started = Service(tmp_path_factory.mktemp("service"))
    started.start()
    yield started
    started.stop()


@pytest.fixture(autouse=True)
def forgotten(service: Service) -> None:
    service.seen.clear()
    service.stale, service.together, service._waiting = None, 1, 0
