"""A process with refresh families over a real database, and clients that refresh."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from routeguard.core.clock import SystemClock
from routeguard.core.secret import Secret, digest
from routeguard.foundation.db.outbox import Outbox
from routeguard.identity.sessions.models import SessionSettings, UserSession
from routeguard.identity.tokens import store
from routeguard.identity.tokens.families import Lives, Refreshed, RefreshFamilies
from routeguard.identity.tokens.models import RefreshTokenReused, TokenSettings
from routeguard.identity.tokens.refresh import RefreshCodec
from routeguard.protection.traffic.site import Site
from tests.fakes import deployment
from tests.sessions.fakes import make_exchange
from tests.sessions.world import KEYS, SECRET
from tests.sessions.world import World as Sessions

if TYPE_CHECKING:
    from routeguard.foundation.db.database import Database
    from routeguard.identity.users.models import User

PHONE: Final = digest("a phone")
LAPTOP: Final = digest("a laptop")
GRACE: Final = timedelta(seconds=10)
"""The longest there is, for a machine that runs many tests at once."""


class World(Sessions):
    """One process on the system's clock, whose families and the database agree on the time."""

    def __init__(
        self,
        database: Database,
        *,
        tokens: TokenSettings | None = None,
        older: tuple[Secret, ...] = (),
        secret: Secret = SECRET,
    ) -> None:
        settings = SessionSettings()
        super().__init__(database, SystemClock(), settings)  # type: ignore[arg-type]
        self.tokens = tokens or TokenSettings(grace=GRACE)
        self.refresh_codec = RefreshCodec(deployment(secret, *older))
        self.families: RefreshFamilies[User] = RefreshFamilies(
            database,
            self.users.reader,
            sessions=self.sessions,
            codec=self.refresh_codec,
            clock=self.sessions._clock,
            lives=Lives.of(self.tokens, settings),
            site=Site(),
        )
        self.outbox = Outbox(database, KEYS, clock=SystemClock())
        self.reused: list[RefreshTokenReused] = []
        self.outbox.on(RefreshTokenReused, self._hear, name="test")

    async def _hear(self, event: RefreshTokenReused) -> None:
        self.reused.append(event)

    @classmethod
    @asynccontextmanager
    async def of(cls, database: Database, **given: Any) -> AsyncIterator[World]:
        world = cls(database, **given)
        await world.feed.poll()
        try:
            yield world
        finally:
            await world.feed.close()

    async def session(self, user: User | None = None) -> UserSession[User]:
        found = await self.try_sign_in(user or await self.user())
        assert isinstance(found, UserSession)
        return found

    async def family(self, session: UserSession[User] | None = None, binding: bytes = PHONE) -> Refreshed[User]:
        return await self.families.start(session or await self.session(), client_id="test", binding=binding)

    async def rotate(self, text: str, binding: bytes = PHONE) -> str | None:
        """Return the successor, or None for 401."""
        found = await self.families.rotate(text, binding=binding, exchange=make_exchange())
        return None if found is None else found.refresh_token

    async def events(self) -> list[RefreshTokenReused]:
        await self.outbox.deliver_due()
        return self.reused

    async def family_rows(self) -> list[Any]:
        async with self.database.read() as tx:
            return list(await tx.all(sa.select(store.refresh_families).order_by(store.refresh_families.c.id)))

    async def age(self, seconds: float) -> None:
        """Let the last rotation of every family be longer ago, by the database's clock."""
        family = store.refresh_families
        async with self.database.transaction() as tx:
            await tx.execute(sa.update(family).values(rotated_at=family.c.rotated_at - seconds))
