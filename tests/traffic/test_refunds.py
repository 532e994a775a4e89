"""What an outage kept from being done counts towards no limit: PostgreSQL and Valkey stopped for real."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any

import anyio
import httpx2 as httpx
import pytest

from routeguard.core.clock import SystemClock
from routeguard.core.errors import Unavailable
from routeguard.foundation.db.database import Database
from routeguard.foundation.db.migrate import migrate
from routeguard.foundation.db.models import DatabaseSettings
from routeguard.foundation.ephemeral.protocol import Ephemeral
from routeguard.identity.passwords.hashing import HashingPool
from routeguard.identity.passwords.models import PasswordResetRequested
from routeguard.identity.passwords.service import Passwords
from routeguard.identity.users.quota import MailQuota
from routeguard.protection.traffic.models import TrafficSettings
from tests.backends import PostgresServer
from tests.ephemeral.server import ValkeyProcess
from tests.passwords.world import GOOD, UNLIMITED, World
from tests.steady import until

pytestmark = pytest.mark.anyio

ADA = {"email": "ada@example.com", "password": GOOD}
HASTY = DatabaseSettings(timeout=timedelta(seconds=2), statement_timeout=timedelta(seconds=5))
FEW = TrafficSettings(sign_in="5/hour", sign_up="5/hour", identity="5/hour", refresh="5/hour")


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A server of our own, to be stopped at will."""
    own = PostgresServer()
    yield own
    own.close()


@pytest.fixture(scope="module")
def valkey() -> Iterator[ValkeyProcess]:
    own = ValkeyProcess()
    own.start()
    yield own
    own.stop()


@pytest.fixture
async def url(server: PostgresServer) -> AsyncIterator[str]:
    made = server.create()
    database = Database(made, clock=SystemClock())
    await database.start()
    await migrate(database)
    await database.close()
    yield made
    server.drop(made)


@pytest.fixture(params=["memory", "valkey"])
def store(request: pytest.FixtureRequest) -> str:
    if request.param == "memory":
        return "memory://"
    server: ValkeyProcess = request.getfixturevalue("valkey")
    server.call("FLUSHALL")
    return server.url


class Away:
    """The database is stopped inside, and answers again after it."""

    def __init__(self, server: PostgresServer, world: World) -> None:
        self.server, self.world = server, world

    async def __aenter__(self) -> None:
        await asyncio.to_thread(self.server.stop)

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.server.start)
        with anyio.fail_after(60):
            while True:
                try:
                    return await self.world.database.ping()
                except Unavailable:
                    await anyio.sleep(0.02)


async def statuses(client: httpx.AsyncClient, path: str, body: dict[str, Any], count: int) -> set[int]:
    return {(await client.post(f"/auth/{path}", json=body)).status_code for _ in range(count)}


async def test_the_owner_signs_in_after_an_outage(server: PostgresServer, url: str, store: str) -> None:
    """With the limits as they are by default: neither the account nor the address is slowed down."""
    async with World.open(url, ephemeral_url=store, traffic=TrafficSettings(), database=HASTY) as world:
        await world.sign_up(ADA["email"])
        async with world.client() as client:
            async with Away(server, world):
                assert await statuses(client, "sign-in", ADA, 25) == {503}
            answer = await client.post("/auth/sign-in", json=ADA)
            assert answer.status_code == 200, answer.text


async def test_wrong_passwords_count_as_ever_after_an_outage(server: PostgresServer, url: str) -> None:
    """RL-07: an outage gives a guesser nothing: ten wrong tries, racing or not, before and after it together."""
    async with World.open(url, traffic=UNLIMITED, database=HASTY) as world:
        await world.sign_up(ADA["email"])
        async with world.client() as client:
            bad = ADA | {"password": GOOD + "!"}
            assert await statuses(client, "sign-in", bad, 4) == {401}
            async with Away(server, world):
                assert await statuses(client, "sign-in", bad, 12) == {503}
            # Each differs, or one would do the work of all.
            posts = [client.post("/auth/sign-in", json=ADA | {"password": f"{GOOD} {number}"}) for number in range(30)]
            codes = [answer.status_code for answer in await asyncio.gather(*posts)]
            assert (codes.count(401), codes.count(429)) == (6, 24)


async def test_the_database_goes_away_after_the_password_was_right(
    server: PostgresServer, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with World.open(url, traffic=UNLIMITED, database=HASTY) as world:
        await world.sign_up(ADA["email"])
        pool = world.guard.services.get(HashingPool)
        verify, stop = pool.verify, asyncio.Event()
        judged: list[bool] = []

        async def slow(*args: Any, **named: Any) -> Any:
            verdict = await verify(*args, **named)
            judged.append(verdict.correct)
            await stop.wait()
            return verdict

        monkeypatch.setattr(pool, "verify", slow)
        async with world.client() as client:
            # Ten tries under way, all of which have read the hash.
            tries = [
                asyncio.create_task(client.post("/auth/sign-in", json=ADA, headers={"x-number": str(number)}))
                for number in range(10)
            ]
            await until(lambda: judged == [True] * 10)
            async with Away(server, world):
                stop.set()
                assert {answer.status_code for answer in await asyncio.gather(*tries)} == {503}
            assert await statuses(client, "sign-in", ADA, 3) == {200}


async def test_a_full_hashing_queue_is_no_wrong_password(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with World.open(sqlite_url, traffic=FEW) as world:
        await world.sign_up(ADA["email"])
        pool = world.guard.services.get(HashingPool)
        async with world.client() as client:
            with monkeypatch.context() as full:
                full.setattr(pool, "_room", 0)
                assert await statuses(client, "sign-in", ADA, 20) == {503}
                sign_up = {"email": "eve@example.com", "password": GOOD, "name": "Eve"}
                assert await statuses(client, "sign-up", sign_up, 20) == {503}
            assert await statuses(client, "sign-in", ADA, 5) == {200}
            assert await statuses(client, "sign-in", ADA, 1) == {429}, "answers count as ever"


async def test_every_operation_counts_what_it_has_done(server: PostgresServer, url: str, store: str) -> None:
    """Sign-up, mails, links, tokens and sessions: five an hour, none of them spent by the outage."""
    async with (
        World.open(url, ephemeral_url=store, traffic=FEW, database=HASTY) as world,
        world.signed_in(ADA["email"]) as client,
    ):
        pair = (await client.post("/auth/token", json={})).json()
        calls: list[tuple[str, dict[str, Any], int]] = [
            ("sign-up", {"email": "eve@example.com", "password": GOOD, "name": "Eve"}, 201),
            ("password/forgot", {"email": ADA["email"]}, 202),
            ("password/reset", {"token": "usr_x.y", "password": GOOD}, 400),
            ("email/verify", {"token": "usr_x.y"}, 400),
            ("email/resend", {"email": ADA["email"]}, 202),
            ("token/refresh", {"refresh_token": pair["refresh_token"]}, 200),
            ("api-keys", {"name": "robot"}, 201),
            ("password/change", {"current_password": GOOD, "new_password": GOOD + " 2"}, 204),
        ]
        async with Away(server, world):
            for path, body, _ in calls:
                assert await statuses(client, path, body, 8) == {503}, path
            got = {(await client.get("/auth/sessions")).status_code for _ in range(8)}
            assert got == {503}
        for path, body, wanted in calls:
            answer = await client.post(f"/auth/{path}", json=body)
            assert answer.status_code == wanted, (path, answer.text)
        assert (await client.get("/auth/sessions")).status_code == 200


async def test_a_rotation_on_the_way_counts_what_it_has_done(server: PostgresServer, url: str) -> None:
    """With nothing but a refresh cookie: each request asks for a rotation."""
    async with World.open(url, traffic=FEW, database=HASTY) as world:
        async with world.signed_in(ADA["email"]) as client:
            assert (await client.post("/auth/token", json={"cookies": True})).status_code == 200
            cookies = {name: value for name, value in client.cookies.items() if name.endswith("-refresh")}
        jar = {"cookie": "; ".join(f"{name}={value}" for name, value in cookies.items())}
        async with world.client() as other:
            async with Away(server, world):
                got = {(await other.get("/auth/sessions", headers=jar)).status_code for _ in range(12)}
                assert got == {503}
            assert (await other.get("/auth/sessions", headers=jar)).status_code == 200


async def test_mail_is_not_used_up_by_an_outage(server: PostgresServer, url: str) -> None:
    """A listener is called again after a failure: five of these must not be the five mails of an hour."""
    async with World.open(url, traffic=UNLIMITED, database=HASTY) as world:
        await world.sign_up(ADA["email"])
        await world.settle()
        event = PasswordResetRequested(email_key=ADA["email"])
        passwords = world.guard.services.get(Passwords)
        async with Away(server, world):
            for _ in range(8):
                with pytest.raises(Unavailable):
                    await passwords.send_reset(event)
        await passwords.send_reset(event)
        await world.settle()
        assert any("password" in message.subject for message in world.mailbox.to(ADA["email"]))


async def test_the_mail_quota_holds_among_racing_failures(sqlite_url: str) -> None:
    async with World.open(sqlite_url, traffic=UNLIMITED) as world:
        quota = world.guard.services.get(MailQuota)
        inside, most = 0, 0

        async def mail(*, fails: bool) -> bool:
            nonlocal inside, most
            async with quota.spend("test", "ada@example.com") as allowed:
                if allowed:
                    inside += 1
                    most = max(most, inside)
                    await asyncio.sleep(0)
                    inside -= 1
                    if fails:
                        raise Unavailable("mail")
                return allowed

        with_errors = await asyncio.gather(*(mail(fails=True) for _ in range(40)), return_exceptions=True)
        assert most == 5
        assert any(isinstance(one, Unavailable) for one in with_errors)
        assert [await mail(fails=False) for _ in range(7)] == [True] * 5 + [False] * 2


async def test_a_use_of_a_key_that_an_outage_prevented(server: PostgresServer, url: str) -> None:
    """The key's own rate is spent before one of its remaining uses is."""
    async with World.open(url, traffic=UNLIMITED, database=HASTY) as world:
        async with world.signed_in(ADA["email"]) as client:
            made = await client.post("/auth/api-keys", json={"name": "robot", "rate": "3/hour", "remaining": 50})
            assert made.status_code == 201, made.text
            key = made.json()["key"]
        body = {"key": key}
        async with world.client() as client:
            assert await statuses(client, "api-keys/verify", body, 1) == {200}
            async with Away(server, world):
                assert await statuses(client, "api-keys/verify", body, 8) == {503}
            assert await statuses(client, "api-keys/verify", body, 2) == {200}


async def test_leaving_early_is_no_way_around_a_limit(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The guess is given back, for nobody saw a verdict; the request counts, for its caller ended it."""
    async with World.open(sqlite_url, traffic=FEW) as world:
        await world.sign_up(ADA["email"])
        pool = world.guard.services.get(HashingPool)
        verify, entered = pool.verify, asyncio.Semaphore(0)

        async def hangs(*_: Any, **__: Any) -> Any:
            entered.release()
            await asyncio.Event().wait()

        monkeypatch.setattr(pool, "verify", hangs)
        async with world.client() as client:
            for number in range(5):
                one = asyncio.create_task(client.post("/auth/sign-in", json=ADA, headers={"x-number": str(number)}))
                await entered.acquire()
                one.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await one
            monkeypatch.setattr(pool, "verify", verify)
            assert await statuses(client, "sign-in", ADA, 1) == {429}


async def test_counters_that_go_away_in_the_middle(url: str) -> None:
    """The verdict stands; what could not be given back is gone with the store."""
    valkey = ValkeyProcess()
    valkey.start()
    try:
        async with World.open(url, ephemeral_url=valkey.url, traffic=FEW, database=HASTY) as world:
            await world.sign_up(ADA["email"])
            pool = world.guard.services.get(HashingPool)
            verify = pool.verify

            async def stops(*args: Any, **named: Any) -> Any:
                valkey.stop()
                return await verify(*args, **named)

            pool.verify = stops  # type: ignore[method-assign]
            async with world.client() as client:
                answer = await client.post("/auth/sign-in", json=ADA)
                assert answer.status_code in {200, 503}, "503 where the answer could not be shared"
                pool.verify = verify  # type: ignore[method-assign]
                assert await statuses(client, "sign-in", ADA, 3) == {503}, "without counters nobody guesses"
                valkey.start()
                store = world.guard.services.get(Ephemeral)
                await until(lambda: store.is_up)  # type: ignore[attr-defined]
                assert await statuses(client, "sign-in", ADA, 3) == {200}
    finally:
        valkey.stop()
