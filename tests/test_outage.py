"""PostgreSQL stopped, killed and frozen under a guarded application: 503 while it is away, and back without a restart.

Never a guest, never an allowed request, and nothing lost (R6; attacks OPS-03, AZ-16, SES-17).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import Depends, FastAPI

from routeguard import Routeguard, Settings, UserSession
from routeguard.core.clock import SystemClock
from routeguard.foundation.db.database import Database
from routeguard.foundation.db.migrate import migrate
from tests.backends import PostgresServer
from tests.steady import PATIENCE

pytestmark = pytest.mark.anyio

ORIGIN = "http://127.0.0.1:8000"
ACCOUNT = {"email": "ann@example.com", "password": "correct horse battery 7", "name": "Ann"}


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    """A server of our own, to be stopped at will."""
    own = PostgresServer()
    yield own
    own.close()


@pytest.fixture
async def guard(server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Routeguard]:
    monkeypatch.chdir(tmp_path)
    url = server.create()
    database = Database(url, clock=SystemClock())
    await database.start()
    await migrate(database)
    await database.close()
    settings = Settings(database_url=url)
    # Cookies speak for themselves for so short a time that the store is asked nearly always.
    short = replace(settings.sessions, envelope_life=timedelta(milliseconds=50), poll=timedelta(milliseconds=200))
    found = Routeguard(replace(settings, sessions=short))
    yield found
    await found.close()


@pytest.fixture
async def client(guard: Routeguard) -> AsyncIterator[httpx2.AsyncClient]:
    app = FastAPI()
    guard.install(app)
    current = Depends(guard.current_session)

    @app.get("/me")
    async def me(session: UserSession = current) -> str:
        return session.user.email

    transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url=ORIGIN, headers={"origin": ORIGIN}, timeout=20) as made:
        await answered(made.post, "/auth/sign-up", 201, json=ACCOUNT)
        signed_in = {"email": ACCOUNT["email"], "password": ACCOUNT["password"]}
        await answered(made.post, "/auth/sign-in", 200, json=signed_in)
        await answered(made.get, "/me", 200)
        yield made


async def answered(send: Callable[..., Awaitable[httpx2.Response]], path: str, status: int, **more: Any) -> None:
    """Send a request until it is answered with `status`; until then with 503, as on a machine that is slow."""
    deadline = time.monotonic() + PATIENCE
    while (answer := await send(path, **more)).status_code != status:
        assert answer.status_code == 503, answer.text
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


def kill(server: PostgresServer) -> None:
    """End the server without good-bye. The test server commits lazily, so what it promised is written first."""
    server.execute("CHECKPOINT")
    server.kill()


async def returns(client: httpx2.AsyncClient, within: float = 60) -> float:
    """Wait until the application answers as before. Returns the seconds that took."""
    begin = time.monotonic()
    while time.monotonic() - begin < within:
        if (await client.get("/me")).status_code == 200:
            return time.monotonic() - begin
        await asyncio.sleep(0.05)
    raise AssertionError("the application did not come back")


async def cookie_is_old(client: httpx2.AsyncClient) -> None:
    """Wait until the store is asked about the session."""
    deadline = time.monotonic() + PATIENCE
    while (await client.get("/me")).status_code == 200:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def refuses(client: httpx2.AsyncClient) -> None:
    """Everything that needs the database is 503 with Retry-After; what does not is answered."""
    # Until then the cookie speaks for itself.
    await cookie_is_old(client)
    forged: dict[str, Any] = {"headers": {"cookie": "routeguard=" + "A" * 80 + "." + "A" * 43}}
    for answer in await asyncio.gather(*(client.get("/me") for _ in range(20))):
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) >= 1
        assert answer.headers["content-type"] == "application/problem+json"
    sign_in = await client.post("/auth/sign-in", json={"email": "ann@example.com", "password": "wrong"})
    assert sign_in.status_code == 503
    fresh = httpx2.AsyncClient(transport=client._transport, base_url=ORIGIN)
    assert (await fresh.get("/me")).status_code == 401
    assert (await fresh.get("/me", **forged)).status_code == 401


async def test_killed_and_started_again(client: httpx2.AsyncClient, server: PostgresServer) -> None:
    for _ in range(3):
        kill(server)
        await refuses(client)
        server.start()
        await returns(client)


async def test_frozen_and_thawed(client: httpx2.AsyncClient, server: PostgresServer) -> None:
    """A server that hangs is no reason to hang with it."""
    server.freeze()
    try:
        await cookie_is_old(client)
        begin = time.monotonic()
        answers = await asyncio.gather(*(client.get("/me") for _ in range(20)))
        assert {answer.status_code for answer in answers} == {503}
        assert time.monotonic() - begin < PATIENCE
    finally:
        server.thaw()
    await returns(client)


async def test_signed_out_stays_signed_out_over_an_outage(client: httpx2.AsyncClient, server: PostgresServer) -> None:
    """SES-17: what was revoked before the outage is not revived by it."""
    cookie = client.cookies["routeguard"]
    assert (await client.post("/auth/sign-out")).status_code == 204
    kill(server)
    client.cookies.clear()
    client.cookies.set("routeguard", cookie)
    assert (await client.get("/me")).status_code in {401, 503}
    server.start()
    for _ in range(1000):
        status = (await client.get("/me")).status_code
        assert status in {401, 503}
        if status == 401:
            return
        await asyncio.sleep(0.05)
    raise AssertionError("the store did not come back")
