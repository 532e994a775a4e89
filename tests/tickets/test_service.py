"""Tickets over real stores: one socket each, for a short time, at one path, while the session lives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from routeguard.foundation.db.database import Database
from routeguard.foundation.ephemeral.memory import MemoryEphemeral
from routeguard.foundation.ephemeral.protocol import Ephemeral
from routeguard.foundation.ephemeral.redis import RedisEphemeral
from routeguard.identity.sessions.by_id import SessionsById
from routeguard.identity.sessions.models import UserSession
from routeguard.identity.tickets.service import LIFE, Tickets
from routeguard.identity.users.models import User
from tests.ephemeral.server import ValkeyProcess
from tests.sessions.world import World

pytestmark = pytest.mark.anyio

PATH = "/ws/chat"


def tickets(world: World, store: Ephemeral) -> Tickets[User]:
    by_id = SessionsById(
        world.database,
        world.users.reader,
        clock=world.sessions._clock,
        settings=world.settings,
        invalidations=world.feed,
    )
    return Tickets(store, by_id)


@asynccontextmanager
async def opened(database: Database, store: Ephemeral) -> AsyncIterator[tuple[World, Tickets[User], UserSession[User]]]:
    async with World.open(database) as world:
        session = await world.try_sign_in(await world.user())
        assert isinstance(session, UserSession)
        yield world, tickets(world, store), session


async def test_a_ticket_opens_one_socket(database: Database) -> None:
    async with opened(database, MemoryEphemeral()) as (_, service, session):
        ticket = (await service.issue(session, PATH)).encode()
        found = await service.redeem(ticket, PATH)
        assert found is not None
        assert (found.id, found.user.id) == (session.id, session.user.id)
        assert await service.redeem(ticket, PATH) is None


async def test_a_ticket_is_of_one_path_and_spent_at_another(database: Database) -> None:
    async with opened(database, MemoryEphemeral()) as (_, service, session):
        ticket = (await service.issue(session, PATH)).encode()
        assert await service.redeem(ticket, "/ws/admin") is None
        assert await service.redeem(ticket, PATH) is None


async def test_a_ticket_expires(database: Database) -> None:
    now = 1000.0
    store = MemoryEphemeral(clock=lambda: now)
    async with opened(database, store) as (_, service, session):
        first, second = [(await service.issue(session, PATH)).encode() for _ in range(2)]
        now += LIFE - 0.01
        assert await service.redeem(first, PATH) is not None
        now += 0.02
        assert await service.redeem(second, PATH) is None


async def test_a_ticket_ends_with_its_session(database: Database) -> None:
    async with opened(database, MemoryEphemeral()) as (world, service, session):
        ticket = (await service.issue(session, PATH)).encode()
        await world.suspend(session.user)
        assert await service.redeem(ticket, PATH) is None


@pytest.mark.parametrize("ticket", [b"", b"A", b"A" * 43, b"\x00" * 43, "é".encode(), b"A" * 10_000])
async def test_an_invented_ticket_opens_nothing(database: Database, ticket: bytes) -> None:
    async with opened(database, MemoryEphemeral()) as (_, service, session):
        await service.issue(session, PATH)
        assert await service.redeem(ticket, PATH) is None


async def test_the_store_holds_no_ticket_in_clear(database: Database) -> None:
    store = MemoryEphemeral()
    async with opened(database, store) as (_, service, session):
        ticket = await service.issue(session, PATH)
        assert ticket not in repr(store._values.items)


async def test_of_many_handshakes_one_is_served(database: Database) -> None:
    """Two processes, one Valkey, 32 handshakes with each of ten tickets."""
    server = ValkeyProcess()
    server.start()
    stores = [RedisEphemeral.from_url(server.url, deadline=10) for _ in range(2)]
    try:
        for store in stores:
            await store.start()
        async with opened(database, stores[0]) as (world, here, session):
            there = tickets(world, stores[1])
            for _ in range(10):
                ticket = (await here.issue(session, PATH)).encode()
                found = await asyncio.gather(*[service.redeem(ticket, PATH) for service in (here, there) * 16])
                assert sum(one is not None for one in found) == 1
    finally:
        for store in stores:
            await store.close()
        server.stop()
