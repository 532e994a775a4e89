"""A second process that rotates what it is told, many times at once: ``python -m tests.tokens.racer DATABASE_URL``."""

from __future__ import annotations

import asyncio
import json
import sys

from routeguard.core.clock import SystemClock
from routeguard.foundation.db.database import Database
from tests.steady import PATIENT
from tests.tokens.world import World


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


async def main(url: str) -> None:
    database = Database(url, clock=SystemClock(), settings=PATIENT)
    await database.start()
    async with World.of(database) as world:
        say("ready")
        while line := await asyncio.to_thread(sys.stdin.readline):
            text, times = json.loads(line)
            answers = await asyncio.gather(*(world.rotate(text) for _ in range(times)))
            say(json.dumps(answers))
    await database.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
