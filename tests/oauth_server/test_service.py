"""Clients are made, given another secret and revoked, and every process learns of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest
import sqlalchemy as sa

from routeguard.core.clock import SteadyClock
from routeguard.core.errors import ConfigError, Unavailable
from routeguard.foundation.db.database import Database
from routeguard.foundation.invalidation.store import invalidations
from routeguard.foundation.signatures.keys import public_key
from routeguard.identity.oauth_server import service as clients_module
from routeguard.identity.oauth_server import store
from routeguard.identity.oauth_server.models import ClientPrincipal
from routeguard.identity.oauth_server.service import Clients
from routeguard.identity.sessions.invalidation import invalidations_of
from routeguard.identity.sessions.models import SessionSettings
from tests.fakes import FakeClock
from tests.oauth_server.world import Service, World

COVERS = ("identity/oauth_server/models", "identity/oauth_server/store")

pytestmark = pytest.mark.anyio


class Process:
    """One process's view: own memory and clock, the shared database."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.clock = FakeClock()
        steady = SteadyClock(self.clock)
        self.feed = invalidations_of(database, clock=self.clock, settings=SessionSettings())
        self.clients = Clients(database, clock=steady, invalidations=self.feed)

    async def wait(self, seconds: float) -> None:
        """Let time pass in which this process polled as it should."""
        self.clock.advance(seconds)
        await self.feed.poll()

    async def create(self, name: str = "shop") -> tuple[str, str]:
        async with self.database.transaction() as tx:
            return await self.clients.create(tx, name)

    async def rotate(self, client_id: str, overlap: float = 0) -> str | None:
        async with self.database.transaction() as tx:
            return await self.clients.rotate(tx, client_id, overlap=timedelta(seconds=overlap))

    async def revoke(self, client_id: str) -> bool:
        async with self.database.transaction() as tx:
            return await self.clients.revoke(tx, client_id)

    async def keys(self, client_id: str) -> tuple[bytes, ...]:
        """Return the public keys that count now; none for an unknown client."""
        found = await self.clients.find(client_id)
        return () if found is None else found.keys(self.clock.monotonic())


@pytest.fixture
async def here(database: Database) -> AsyncIterator[Process]:
    """A process that has caught up."""
    process = Process(database)
    await process.feed.poll()
    yield process
    await process.feed.close()


@pytest.fixture
async def there(database: Database) -> AsyncIterator[Process]:
    """Another one."""
    process = Process(database)
    process.clock.steady = 5.0
    await process.feed.poll()
    yield process
    await process.feed.close()


async def test_a_client_is_known_by_the_key_of_its_secret(here: Process, there: Process) -> None:
    client_id, secret = await here.create()
    for process in (here, there):
        assert await process.keys(client_id) == (public_key(secret),)
    found = await here.clients.find(client_id)
    assert found is not None
    assert found.principal == ClientPrincipal(client_id, "shop")
    assert found.principal.principal_id == client_id


async def test_what_is_stored_signs_nothing(here: Process) -> None:
    """SES-22: of the secret the table has no part."""
    client_id, secret = await here.create()
    async with here.database.read() as tx:
        (row,) = await tx.all(sa.select(store.clients))
    assert row.id == client_id
    assert row.public_key == public_key(secret)
    assert secret[4:] not in repr(tuple(row))


async def test_nothing_secret_is_logged(here: Process, caplog: pytest.LogCaptureFixture) -> None:
    """OPS-22"""
    caplog.set_level(logging.DEBUG)
    client_id, secret = await here.create()
    other = await here.rotate(client_id, 60)
    await here.revoke(client_id)
    assert other is not None
    assert client_id in caplog.text
    assert [event for event in ("client-created", "client-secret-rotated", "client-revoked") if event in caplog.text]
    assert secret[4:] not in caplog.text
    assert other[4:] not in caplog.text


async def test_both_secrets_count_for_the_overlap(here: Process, there: Process) -> None:
    """WH-17"""
    client_id, first = await here.create()
    assert await there.keys(client_id) == (public_key(first),)
    second = await here.rotate(client_id, 3600)
    assert second is not None
    await there.wait(1)
    for process in (here, there):
        assert await process.keys(client_id) == (public_key(second), public_key(first))
    # By what this process read; it need not read again for that to end.
    known = await there.clients.find(client_id)
    assert known is not None
    assert known.keys(there.clock.monotonic() + 3000) == (public_key(second), public_key(first))
    assert known.keys(there.clock.monotonic() + 4000) == (public_key(second),)


async def test_without_overlap_the_old_secret_is_void(here: Process, there: Process) -> None:
    client_id, first = await here.create()
    assert await there.keys(client_id) == (public_key(first),)
    second = await here.rotate(client_id)
    await there.wait(1)
    assert second is not None
    for process in (here, there):
        assert await process.keys(client_id) == (public_key(second),)


async def test_of_three_secrets_two_count(here: Process) -> None:
    client_id, first = await here.create()
    second, third = await here.rotate(client_id, 3600), await here.rotate(client_id, 3600)
    assert second is not None
    assert third is not None
    assert await here.keys(client_id) == (public_key(third), public_key(second))
    assert public_key(first) not in await here.keys(client_id)


async def test_racing_rotations_lose_no_secret(here: Process) -> None:
    """One statement each: of two at once the later keeps the earlier's key, and both secrets work."""
    client_id, _ = await here.create()
    made = await asyncio.gather(*(here.rotate(client_id, 3600) for _ in range(2)))
    keys = await here.keys(client_id)
    assert sorted(keys) == sorted(public_key(one) for one in made if one is not None)
    assert len(keys) == 2


async def test_a_revoked_client_is_unknown_everywhere_after_the_next_poll(here: Process, there: Process) -> None:
    client_id, _ = await here.create()
    assert await there.keys(client_id)
    assert await here.revoke(client_id)
    assert not await here.keys(client_id)
    await there.wait(0.5)
    assert not await there.keys(client_id)
    assert not await here.revoke(client_id)
    assert await here.rotate(client_id, 60) is None


async def test_a_rollback_changes_nothing(here: Process) -> None:
    client_id, secret = await here.create()
    tick = here.feed.tick
    with pytest.raises(KeyError):
        async with here.database.transaction() as tx:
            await here.clients.revoke(tx, client_id)
            raise KeyError
    assert here.feed.tick == tick
    assert await here.keys(client_id) == (public_key(secret),)


async def test_a_client_made_a_moment_ago_elsewhere_is_found(here: Process, there: Process) -> None:
    assert not await there.keys("cli_unknown")
    client_id, _ = await here.create()
    there.clock.advance(0.3)  # Not polled since.
    assert await there.keys(client_id)


async def test_made_up_ids_cost_no_query_each(here: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    """DOS: 500 unknown clients at one moment are one look."""
    client_id, _ = await here.create()
    looks = 0
    load = store.load_keys

    async def counted(*arguments: object, **more: object) -> object:
        nonlocal looks
        looks += 1
        return await load(*arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(store, "load_keys", counted)
    assert await here.keys(client_id)
    before = looks
    here.clock.advance(1)
    await here.feed.poll()
    for number in range(500):
        assert not await here.keys(f"cli_{number}")
    assert looks - before == 1
    # And a herd that finds nothing in memory waits for one reading.
    here.clock.advance(61)
    await here.feed.poll()
    before = looks
    assert all(await asyncio.gather(*(here.keys(client_id) for _ in range(50))))
    assert looks - before == 1


async def test_a_process_that_heard_nothing_for_long_asks_the_store(
    here: Process, there: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OPS-03: cut off from the feed it trusts no memory, and without the store it cannot tell."""
    client_id, _ = await here.create()
    assert await there.keys(client_id)
    await here.revoke(client_id)
    there.clock.advance(5)  # Longer than `trust`, without a poll.
    assert not await there.keys(client_id)

    async def away(*_: object, **__: object) -> None:
        raise Unavailable("the database")

    monkeypatch.setattr(store, "load_keys", away)
    there.clock.advance(5)
    with pytest.raises(Unavailable):
        await there.keys(client_id)


async def test_there_is_an_end_to_clients(here: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients_module, "MAXIMUM", 2)
    first, _ = await here.create()
    await here.create()
    with pytest.raises(ConfigError, match="2 clients already"):
        await here.create()
    await here.revoke(first)
    await here.create()


@pytest.mark.parametrize("name", ["", "  ", "x" * 101, "a\nb", "a\x00b"])
async def test_a_name_is_for_people(here: Process, name: str) -> None:
    with pytest.raises(ConfigError, match="printable"):
        await here.create(name)


async def test_a_revoked_client_is_refused_at_its_next_call(world: World, shop: Service) -> None:
    assert (await shop.call("GET", "/service")).status == 200
    async with world.database.transaction() as tx:
        new = await world.clients.rotate(tx, shop.id, overlap=timedelta(hours=1))
    assert new is not None
    for secret in (shop.secret, new):
        assert (await replace(shop, secret=secret).call("GET", "/service")).status == 200
    async with world.database.transaction() as tx:
        assert await world.clients.revoke(tx, shop.id)
    for secret in (shop.secret, new):
        assert (await replace(shop, secret=secret).call("GET", "/service")).status == 401


@pytest.mark.parametrize("polled", [True, False])
async def test_a_client_revoked_while_the_machine_was_suspended(here: Process, there: Process, polled: bool) -> None:
    """SES-18"""
    client_id, _ = await here.create()
    assert await there.keys(client_id)
    assert await here.revoke(client_id)
    async with here.database.transaction() as tx:
        await tx.execute(sa.delete(invalidations))
    there.clock.step(7200)
    if polled:
        await there.feed.poll()
    assert not await there.keys(client_id)
