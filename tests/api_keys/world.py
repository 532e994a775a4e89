"""A process with API keys over a real database, and programs that present them."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from routeguard.core.address import parse_address
from routeguard.core.clock import SteadyClock
from routeguard.foundation.ephemeral.memory import MemoryEphemeral
from routeguard.identity.api_keys.models import ApiKey, ApiKeySettings
from routeguard.identity.api_keys.service import ApiKeys
from routeguard.identity.api_keys.uses import UseCounter
from routeguard.identity.api_keys.verifier import StoredKeys
from routeguard.identity.sessions.models import SessionSettings
from tests.fakes import FakeClock
from tests.sessions.world import World as Sessions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from routeguard.core.clock import Clock
    from routeguard.core.problem import Problem
    from routeguard.foundation.db.database import Database
    from routeguard.identity.api_keys.service import NewKey
    from routeguard.identity.users.models import User


class World(Sessions):
    """One process that polls only when told to."""

    def __init__(self, database: Database, clock: Clock, **settings: Any) -> None:
        super().__init__(database, clock, SessionSettings())  # type: ignore[arg-type]
        steady = SteadyClock(clock)
        given: dict[str, Any] = {"failures": "1000000/minute"} | settings
        own = ApiKeySettings(**given)
        self.ephemeral = MemoryEphemeral()
        self.uses = UseCounter(database, clock=steady, flush=own.flush)
        self.verifier = StoredKeys(
            database,
            self.ephemeral,
            clock=steady,
            settings=own,
            sessions=SessionSettings(),
            invalidations=self.feed,
            uses=self.uses,
        )
        self.keys = ApiKeys(
            database, clock=steady, settings=own, invalidations=self.feed, uses=self.uses, environment="test"
        )

    @classmethod
    @asynccontextmanager
    async def of(cls, database: Database, clock: Clock | None = None, **settings: Any) -> AsyncIterator[World]:
        world = cls(database, clock or FakeClock(), **settings)
        await world.feed.poll()
        try:
            yield world
        finally:
            await world.feed.close()

    async def key(self, user: User | None = None, **wished: Any) -> NewKey:
        user = user or await self.user()
        return await self.keys.create(user.id, {"name": "robot"} | wished)

    async def verify(self, text: str, address: str | None = "192.0.2.1") -> ApiKey | Problem:
        return await self.verifier.verify(text.encode(), address=None if address is None else parse_address(address))

    async def status(self, text: str, address: str | None = "192.0.2.1") -> int:
        """Return 200, or the status of the refusal."""
        found = await self.verify(text, address)
        return 200 if isinstance(found, ApiKey) else found.status
