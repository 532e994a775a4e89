"""The example application in process, browsers that attack it, and its database before and after."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

import sqlalchemy as sa
from fastapi import FastAPI

from routeguard.app import Routeguard
from routeguard.cli.seed import prepare
from routeguard.core.secret import Secret
from routeguard.example.app import create
from routeguard.example.store import invoices
from routeguard.foundation.db.database import Database
from routeguard.foundation.db.outbox import outbox
from routeguard.foundation.db.schema import metadata
from routeguard.foundation.ephemeral.protocol import Ephemeral
from routeguard.foundation.mail.queue import MailQueue
from routeguard.protection.guard.matrix import Row
from routeguard.settings import Settings
from tests.conformance.wire import Result, connect, send
from tests.passwords.world import CHEAP, Mailbox
from tests.steady import PATIENT

ORIGIN: Final = "http://127.0.0.1:8000"
SECRET: Final = Secret("kR2v_9qLm4tXw7Zs-Jd81hPbNfYcVuGa0oE5iT3")
COOKIE: Final = "routeguard"
_VOLATILE: Final = {"last_seen_at", "idle_expires_at", "last_used_at", "usage_count"}
"""Columns that reading alone may move."""
_NOTES: Final = {outbox.name}
"""Tables of what has still to be told; rows leave them by themselves."""

Headers = Mapping[str, str] | Sequence[tuple[str, str]]
Rows = dict[str, list[tuple[Any, ...]]]

_peers: Final = itertools.count(1)


def peer() -> str:
    """Return an address nobody called from yet, so that limits by address say nothing here."""
    number = next(_peers)
    return f"198.18.{number // 250 % 256}.{number % 250 + 1}"


@dataclass
class World:
    """One process of the example application over a real database."""

    app: FastAPI
    guard: Routeguard[Any]
    directory: Path
    passwords: dict[str, str]
    mailbox: Mailbox

    @property
    def database(self) -> Database:
        return self.guard.services.get(Database)

    @classmethod
    @asynccontextmanager
    async def open(cls, directory: Path, **settings: Any) -> AsyncIterator[World]:
        given: dict[str, Any] = {
            "issuer": ORIGIN,
            "passwords": CHEAP,
            "environment": "development",
            "database": PATIENT,
        } | settings
        given.setdefault("database_url", f"sqlite:///{directory / 'routeguard.db'}")
        made = Settings(secret=SECRET, **given)
        people = await prepare(made)
        app = create(made)
        guard = app.state.guard
        world = cls(app, guard, directory, {one.email.split("@")[0]: one.password for one in people}, Mailbox())
        guard.services.get(MailQueue).mailer = world.mailbox
        await guard._start(True)
        try:
            yield world
        finally:
            await guard.close()

    async def ask(
        self, method: str, target: str, headers: Headers = (), *, body: bytes | Sequence[Any] = b"", **scope: Any
    ) -> Result:
        """Send one request as a server would hand it on: the path decoded once."""
        pairs = list(headers.items()) if isinstance(headers, Mapping) else list(headers)
        path, _, query = target.partition("?")
        raw = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in pairs]
        more = {"raw_path": path.encode(), "query_string": query.encode(), "client": (peer(), 4000)} | scope
        return await send(self.app, method, unquote(path), raw, body, **more)

    async def browser(self, name: str) -> Browser:
        """Return a browser in which one of the example's people has signed in."""
        browser = Browser(self)
        self.calm()
        answer = await browser.post("/auth/sign-in", {"email": f"{name}@example.com", "password": self.passwords[name]})
        assert answer.status == 200, answer.body
        browser.id = json.loads(answer.body)["user"]["id"]
        return browser

    def calm(self) -> None:
        """Forget who tried how often: throttles have tests of their own, and stand in the way of all others."""
        counters: Any = self.guard.services.get(Ephemeral)
        for kept in (counters._tats, counters._windows):
            kept.items.clear()
            kept.tidy()

    def routes(self) -> Iterator[Row]:
        """Yield every HTTP route of the application."""
        yield from (row for row in self.guard.matrix() if row.method not in {"WS", "MOUNT"})

    async def rows(self) -> Rows:
        """Return all there is in the database, but for the moments of last use and what waits to be told."""
        found: Rows = {}
        async with self.database.read() as tx:
            for table in (*metadata.sorted_tables, invoices):
                if table.name in _NOTES or table.name not in await _existing(tx):
                    continue
                columns = [column for column in table.c if column.name not in _VOLATILE]
                rows = await tx.all(sa.select(*columns))
                found[table.name.removeprefix("routeguard_")] = sorted((tuple(row) for row in rows), key=repr)
        return found

    async def dump(self) -> bytes:
        """Return every byte the database keeps on disk."""
        return b"".join(path.read_bytes() for path in sorted(self.directory.glob("routeguard.db*")))


async def _existing(tx: Any) -> set[str]:
    rows = await tx.all(sa.text("SELECT name FROM sqlite_master WHERE type = 'table'"))
    return {row[0] for row in rows}


@dataclass
class Browser:
    """Keeps cookies and says where its requests come from, as browsers do."""

    world: World
    cookies: dict[str, str] = field(default_factory=dict)
    id: str = ""
    peer: str | None = None
    """Where it calls from; each time from somewhere else when None, so that no limit by address is in the way."""

    def headers(self, *more: tuple[str, str], origin: str | None = ORIGIN) -> list[tuple[str, str]]:
        found = [("host", "127.0.0.1:8000"), *([("origin", origin)] if origin else [])]
        if self.cookies:
            found.append(("cookie", "; ".join(f"{name}={value}" for name, value in self.cookies.items())))
        return [*found, *more]

    async def ask(
        self,
        method: str,
        target: str,
        *more: tuple[str, str],
        body: bytes | Sequence[Any] = b"",
        origin: str | None = ORIGIN,
        **scope: Any,
    ) -> Result:
        scope = {"client": (self.peer or peer(), 4000)} | scope
        answer = await self.world.ask(method, target, self.headers(*more, origin=origin), body=body, **scope)
        for name, value in answer.headers if answer.sent else ():
            if name == b"set-cookie":
                key, _, rest = value.decode().partition("=")
                self.cookies[key] = rest.partition(";")[0]
                if not self.cookies[key]:
                    del self.cookies[key]
        return answer

    async def get(self, target: str, *more: tuple[str, str]) -> Result:
        return await self.ask("GET", target, *more)

    async def send(self, method: str, target: str, data: Any, *more: tuple[str, str]) -> Result:
        return await self.ask(
            method, target, ("content-type", "application/json"), *more, body=json.dumps(data).encode()
        )

    async def post(self, target: str, data: Any, *more: tuple[str, str]) -> Result:
        return await self.send("POST", target, data, *more)

    async def socket(self, target: str = "/ws/chat", *, origin: str | None = ORIGIN, **scope: Any) -> Result:
        raw = [(name.encode(), value.encode()) for name, value in self.headers(origin=origin)]
        return await connect(self.world.app, target, raw, **scope)


def good_body(path: str) -> bytes:
    """Return a body the route at `path` would take, so that only the guard stands in the way."""
    known: dict[str, dict[str, Any]] = {
        "/auth/sign-up": {"email": "new@example.com", "password": "seven grey herons at dawn", "name": "New"},
        "/auth/sign-in": {"email": "nobody@example.com", "password": "not the password"},
        "/auth/password/forgot": {"email": "bob@example.com"},
        "/auth/password/reset": {"token": "usr_x.y", "password": "seven grey herons at dawn"},
        "/auth/password/change": {"current_password": "wrong one", "new_password": "seven grey herons at dawn"},
        "/auth/email/verify": {"token": "usr_x.y"},
        "/auth/email/resend": {"email": "bob@example.com"},
        "/auth/email/change": {"email": "other@example.com", "password": "wrong one"},
        "/auth/api-keys": {"name": "robot"},
        "/auth/api-keys/{id:api_key}": {"name": "robot"},
        "/auth/api-keys/verify": {"key": "rg_test_none"},
        "/account/name": {"name": "Other"},
        "/api/invoices": {"title": "Paper", "amount": 1},
        "/api/invoices/{invoice_id}": {"title": "Paper", "amount": 1},
    }
    return json.dumps(known.get(path, {})).encode()
