"""A process that signs and verifies access tokens over a real database; also one by itself, told what to do by lines.

``python -m tests.tokens.key_world DATABASE_URL`` answers `mint` with a token, `verify TOKEN` with its subject or why
not, `rotate` and `now` with the newest key's generation. A number after the URL: so many processes that rotate without
end are started one after the other, and each is killed at some moment.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, Final

import sqlalchemy as sa

from routeguard.core.clock import SteadyClock, SystemClock
from routeguard.core.secret import Secret
from routeguard.foundation.db.database import Database
from routeguard.foundation.jose.models import InvalidToken
from routeguard.identity.sessions.invalidation import invalidations_of
from routeguard.identity.sessions.models import SessionId, SessionSettings, UserSession
from routeguard.identity.tokens import store
from routeguard.identity.tokens.access import AccessTokens
from routeguard.identity.tokens.keys import SigningKeys
from routeguard.identity.tokens.models import TokenSettings
from routeguard.identity.users.models import User, UserId
from tests.fakes import deployment
from tests.sessions.world import SECRET
from tests.steady import PATIENT

ISSUER: Final = "https://id.example.com"
SKEW: Final = 600.0
KEPT: Final = 900.0 + SKEW
"""Seconds that a key verifies after its successor began to sign."""


class KeyWorld:
    """One process. Nothing runs in the background unless `keys.start` is called."""

    def __init__(
        self,
        database: Database,
        *,
        clock: Any = None,
        secret: Secret = SECRET,
        older: Sequence[Secret] = (),
        issuer: str = ISSUER,
        **settings: Any,
    ) -> None:
        self.database = database
        self.clock = clock or SystemClock()
        steady, tokens = SteadyClock(self.clock), TokenSettings(**settings)
        self.feed = invalidations_of(database, clock=steady, settings=SessionSettings())
        self.keys = SigningKeys(
            database,
            deployment(secret, *older, issuer=issuer),
            clock=steady,
            settings=tokens,
            feed=self.feed,
            skew=SKEW,
        )
        self.access = AccessTokens(self.keys, clock=steady, settings=tokens, issuer=issuer, skew=SKEW)

    @classmethod
    @asynccontextmanager
    async def of(cls, database: Database, **given: Any) -> AsyncIterator[KeyWorld]:
        """A process that has looked at the keys as its start does."""
        world = cls(database, **given)
        await world.tend()
        yield world

    async def tend(self) -> None:
        """Do what is done every few seconds."""
        await self.keys._tend()

    def mint(self, **change: Any) -> bytes:
        return self.access.mint(session(self.clock.time(), **change), client_id="test").encode()

    async def age(self, seconds: float) -> None:
        """Let every key be that much older, by the database's clock."""
        table = store.signing_keys
        async with self.database.transaction() as tx:
            await tx.execute(sa.update(table).values(signs_from=table.c.signs_from - seconds))
        await self.keys._read()

    async def rows(self) -> list[Any]:
        async with self.database.read() as tx:
            return await tx.all(sa.select(store.signing_keys).order_by(store.signing_keys.c.generation))


def session(now: float, *, user_id: str = "usr_1", session_id: str = "ses_1", **change: Any) -> UserSession[User]:
    at = datetime.fromtimestamp(now, UTC)
    user = User(id=UserId(user_id), email="ada@example.com", name="Ada", created_at=at)
    end = datetime.fromtimestamp(now + 86400, UTC)
    return UserSession(
        SessionId(session_id), user, **({"created_at": at, "authenticated_at": at, "expires_at": end} | change)
    )


async def main(url: str) -> None:
    database = Database(url, clock=SystemClock(), settings=PATIENT)
    await database.start()
    world = KeyWorld(database)
    await world.feed.start()
    await world.keys.start()
    loop = asyncio.get_running_loop()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        word, _, rest = line.strip().partition(" ")
        answer: Any
        if word == "mint":
            answer = world.mint().decode()
        elif word == "verify":
            try:
                answer = (await world.access.find(rest.encode())).sub
            except InvalidToken as error:
                answer = f"refused: {error.reason}"
        else:
            answer = (await world.keys.rotate(now=word == "now")).generation
        sys.stdout.write(f"{answer}\n")
        sys.stdout.flush()


async def turn(url: str, pipe: int) -> None:
    database = Database(url, clock=SystemClock(), settings=PATIENT)
    await database.start()
    world = KeyWorld(database)
    await world.tend()
    assert world.access.verify(world.mint())
    os.write(pipe, b".")
    while True:
        await world.keys.rotate(now=True)


def kill(url: str, count: int) -> None:
    chance = random.Random(20_261_121)
    for _ in range(count):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            asyncio.run(turn(url, writing))
        os.close(writing)
        # Nothing comes from one that failed: then this fails.
        assert os.read(reading, 1) == b"."
        time.sleep(chance.random() * 0.03)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reading)


if __name__ == "__main__":
    if len(sys.argv) > 2:
        kill(sys.argv[1], int(sys.argv[2]))
    else:
        asyncio.run(main(sys.argv[1]))
