"""The identity service over a real database, its mail caught, and browsers that call it over ASGI."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import anyio
import httpx2 as httpx
import sqlalchemy as sa
from starlette.applications import Starlette

from routeguard.app import Routeguard
from routeguard.core.secret import Secret
from routeguard.foundation.db.database import Database
from routeguard.foundation.db.outbox import Outbox, outbox
from routeguard.foundation.mail.protocol import Message
from routeguard.foundation.mail.queue import MailQueue
from routeguard.identity.passwords.models import PasswordSettings
from routeguard.identity.users.models import UserSettings
from routeguard.identity.users.one_time import OneTimeTokens, one_time_tokens
from routeguard.identity.users.service import Users
from routeguard.protection.traffic.models import TrafficSettings
from routeguard.settings import Settings
from tests.steady import PATIENT

ORIGIN: Final = "http://127.0.0.1:8000"
GOOD: Final = "seven grey herons at dawn"
"""A password nobody has a reason to refuse."""
CHEAP: Final = PasswordSettings(time_cost=1, memory=64)
UNLIMITED: Final = TrafficSettings(sign_in="off", sign_up="off", identity="off", refresh="off")
"""All browsers of a test share one address."""
SECRET: Final = Secret(bytes(range(32)))


class Mailbox:
    """A mailer that keeps what it is given."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.broken = False
        self.refused = 0

    async def send(self, message: Message) -> None:
        if self.broken:
            self.refused += 1
            raise OSError("the mail server is down")
        self.messages.append(message)

    def to(self, address: str) -> list[Message]:
        return [message for message in self.messages if message.to == address]

    def token(self, address: str) -> str:
        """Return the token in the newest mail with a link."""
        for message in reversed(self.to(address)):
            found = re.search(r"token=([\w.-]+)", message.text)
            if found is not None:
                return found[1]
        raise AssertionError(f"no link was mailed to {address}")


class World:
    """One process of the service. `client()` is a browser with a cookie jar of its own."""

    def __init__(self, guard: Routeguard[Any], app: Starlette) -> None:
        self.guard = guard
        self.app = app
        self.mailbox = Mailbox()
        guard.services.get(MailQueue).mailer = self.mailbox
        self.database = guard.services.get(Database)
        self.users: Users[Any] = guard.services.get(Users)
        self.tokens = guard.services.get(OneTimeTokens)

    @classmethod
    @asynccontextmanager
    async def open(cls, database_url: str, **settings: Any) -> AsyncIterator[World]:
        given: dict[str, Any] = {
            "issuer": ORIGIN,
            "passwords": CHEAP,
            "traffic": UNLIMITED,
            "database": PATIENT,
        } | settings
        guard = Routeguard(Settings(secret=SECRET, database_url=database_url, **given))
        app = Starlette()
        guard.install(app)
        world = cls(guard, app)
        async with guard.lifespan():
            yield world

    def client(self, **headers: str) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(self.app)
        return httpx.AsyncClient(transport=transport, base_url=ORIGIN, headers={"origin": ORIGIN, **headers})

    async def post(self, path: str, body: Mapping[str, Any]) -> httpx.Response:
        """Post as a new browser does."""
        async with self.client() as client:
            return await client.post(f"/auth/{path}", json=dict(body))

    async def sign_up(self, email: str, password: str = GOOD, name: str = "Ada") -> httpx.Response:
        return await self.post("sign-up", {"email": email, "password": password, "name": name})

    async def sign_in(self, email: str, password: str = GOOD) -> httpx.Response:
        return await self.post("sign-in", {"email": email, "password": password})

    @asynccontextmanager
    async def signed_in(self, email: str, password: str = GOOD) -> AsyncIterator[httpx.AsyncClient]:
        """A browser whose user signed up and in, and has the mail of the sign-up."""
        await self.sign_up(email, password)
        await self.settle()
        async with self.client() as client:
            response = await client.post("/auth/sign-in", json={"email": email, "password": password})
            assert response.status_code == 200, response.text
            yield client

    async def settle(self) -> None:
        """Wait until everything in the outbox is delivered."""
        box = self.guard.services.get(Outbox)
        with anyio.fail_after(60):
            while True:
                await box.deliver_due()
                async with self.database.read() as tx:
                    if not await tx.scalar(sa.select(sa.func.count()).select_from(outbox)):
                        return
                await anyio.sleep(0.005)

    async def pass_time(self, minutes: float) -> None:
        """Make the mailed links older."""
        async with self.database.transaction() as tx:
            later = one_time_tokens.c.expires_at - minutes * 60
            await tx.execute(sa.update(one_time_tokens).values(expires_at=later))

    async def user(self, email: str) -> Any:
        async with self.database.read() as tx:
            found = await self.users.find_by_email(tx, email)
        assert found is not None
        return found

    async def suspend(self, email: str) -> None:
        user = await self.user(email)
        async with self.database.transaction() as tx:
            await self.users.suspend(tx, user.id)


VERIFIED_ONLY: Final = UserSettings(require_verified_email=True)


def seen(response: httpx.Response) -> tuple[int, bytes, list[tuple[str, str]]]:
    """Return all that a stranger can see of an answer, but for what differs between any two requests."""
    body = re.sub(rb'"instance":"[^"]*"', b"", response.content)
    headers = [(name, value) for name, value in response.headers.multi_items() if name != "content-length"]
    return response.status_code, body, headers
