"""The identity service in process, and services that call it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from routeguard.app import Routeguard
from routeguard.core.clock import SteadyClock
from routeguard.core.exchange import SCOPE_KEY, Exchange
from routeguard.core.request import RequestView
from routeguard.core.secret import Secret, new_token
from routeguard.foundation.db.database import Database
from routeguard.foundation.signatures.models import Message
from routeguard.foundation.signatures.profile import ClientSigner
from routeguard.identity.oauth_server.checks import signed_client
from routeguard.identity.oauth_server.service import Clients
from routeguard.identity.sessions.sign_in import SignIn
from routeguard.identity.users.addresses import read_email
from routeguard.identity.users.models import User
from routeguard.identity.users.service import Users
from routeguard.settings import Settings
from tests.conformance.wire import Result, send
from tests.sessions.fakes import enter
from tests.steady import PATIENT

ISSUER: Final = "https://id.example.com"
SECRET: Final = Secret("kR2v_9qLm4tXw7Zs-Jd81hPbNfYcVuGa0oE5iT3")
JSON: Final = {"content-type": "application/json"}


@dataclass
class Service:
    """A registered client, calling the service by its URL."""

    world: World
    id: str
    secret: str = field(repr=False)
    url: str = ISSUER

    def signed(
        self, method: str, target: str, body: bytes = b"", headers: Mapping[str, str] = {}, *, now: float | None = None
    ) -> dict[str, str]:
        """Return the fields of a signed call."""
        message = Message.of(method, self.url + target, headers=headers, body=body)
        made = ClientSigner.of(self.id, self.secret).headers(message, now=self.now if now is None else now)
        return {**headers, **made}

    @property
    def now(self) -> float:
        """The service's own time: it refuses what was signed before its start, and the wall clock may be behind it."""
        return self.world.guard.services.get(SteadyClock).time()

    async def call(self, method: str, target: str, body: bytes = b"", headers: Mapping[str, str] = {}) -> Result:
        return await self.world.send(method, target, self.signed(method, target, body, headers), body)

    async def introspect(self, token: str, **more: Any) -> Any:
        """Ask about a credential; return the JSON of a 200."""
        body = json.dumps({"token": token, **more}).encode()
        answer = await self.call("POST", "/oauth/introspect", body, JSON)
        assert answer.status == 200, answer.body
        return json.loads(answer.body)


@dataclass
class World:
    """One process of the identity service, with a route of its own that services may call."""

    app: Starlette
    guard: Routeguard[User]

    @classmethod
    @asynccontextmanager
    async def open(cls, database_url: str, **settings: Any) -> AsyncIterator[World]:
        given: dict[str, Any] = {"issuer": ISSUER, "environment": "development", "database": PATIENT} | settings
        guard: Routeguard[User] = Routeguard(Settings(secret=SECRET, database_url=database_url, **given))
        methods = ["GET", "POST"]
        app = Starlette(
            routes=[
                Route("/service", guard(signed_client())(_service), methods=methods),
                Route("/either", guard(guard.session() | signed_client())(_either), methods=methods),
                Route("/twice", guard(signed_client(), guard.session() | signed_client())(_twice), methods=methods),
            ]
        )
        guard.install(app)
        await guard._start(True)
        try:
            yield cls(app, guard)
        finally:
            await guard.close()

    @property
    def database(self) -> Database:
        return self.guard.services.get(Database)

    @property
    def clients(self) -> Clients:
        return self.guard.services.get(Clients)

    async def client(self, name: str = "shop") -> Service:
        async with self.database.transaction() as tx:
            return Service(self, *await self.clients.create(tx, name))

    async def send(self, method: str, target: str, headers: Mapping[str, str] = {}, body: Any = b"") -> Result:
        path, _, query = target.partition("?")
        raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
        more = {"raw_path": path.encode(), "query_string": query.encode(), "client": ("192.0.2.1", 4000)}
        return await send(self.app, method, path, raw, body, **more)

    async def user(self) -> User:
        async with self.database.transaction() as tx:
            email = read_email(f"user-{new_token(8).lower()}-x@example.test")
            user = await self.guard.services.get(Users).create(tx, email, name="Ann", role="user", email_verified=True)
            assert user is not None
            return user  # type: ignore[no-any-return]

    async def cookie(self, user: User) -> str:
        """Sign `user` in; return the value of his session's cookie."""
        exchange = Exchange(RequestView({"type": "http", "method": "POST", "path": "/", "headers": []}))
        await enter(self.guard.services.get(SignIn), user.id, exchange)
        (line,) = [value for name, value in exchange.effects if name == b"set-cookie"]
        return line.decode().partition("=")[2].partition(";")[0]


async def _service(request: Request) -> Response:
    principal = request.scope[SCOPE_KEY].principal
    body = (await request.body()).decode()
    return JSONResponse({"id": principal.principal_id, "kind": type(principal).__name__, "body": body})


async def _either(request: Request) -> Response:
    return await _service(request)


async def _twice(request: Request) -> Response:
    return await _service(request)
