"""A second process: says when it finds a session alive, and when it finds it ended.

``python -m tests.sessions.replica DATABASE_URL COOKIE``
"""

from __future__ import annotations

import asyncio
import sys
import time

from routeguard.core.clock import SystemClock
from routeguard.foundation.db.database import Database
from routeguard.identity.sessions.models import SessionSettings
from tests.sessions.world import Browser, World
from tests.steady import PATIENT


async def main(url: str, cookie: str) -> None:
    clock = SystemClock()
    database = Database(url, clock=clock, settings=PATIENT)
    await database.start()
    world = World(database, clock, SessionSettings())  # type: ignore[arg-type]
    await world.feed.start()
    assert await Browser(world, cookie).visit() is not None
    sys.stdout.write("alive\n")
    sys.stdout.flush()
    while await Browser(world, cookie).visit() is not None:
        await asyncio.sleep(0.02)
    sys.stdout.write(f"ended {time.time()}\n")
    sys.stdout.flush()
    await world.feed.close()
    await database.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
