"""A second process that presents keys, many times at once: ``python -m tests.api_keys.racer DATABASE_URL``.

Reads lines ``["verify", TEXT, TIMES]`` and ``["create", USER, TIMES]`` and answers each with the number of successes.
At the end of its input it shuts down in order.
"""

from __future__ import annotations

import asyncio
import json
import sys

from routeguard.core.clock import SystemClock
from routeguard.core.errors import ProblemError
from routeguard.foundation.db.database import Database
from tests.api_keys.world import World
from tests.steady import PATIENT


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


async def work(world: World, verb: str, subject: str) -> bool:
    if verb == "verify":
        return await world.status(subject) == 200
    try:
        await world.keys.create(subject, {"name": "robot"})
    except ProblemError:
        return False
    return True


async def main(url: str) -> None:
    database = Database(url, clock=SystemClock(), settings=PATIENT)
    await database.start()
    async with World.of(database, SystemClock(), maximum=5) as world:
        await world.uses.start()
        say("ready")
        while line := await asyncio.to_thread(sys.stdin.readline):
            verb, subject, times = json.loads(line)
            say(str(sum(await asyncio.gather(*(work(world, verb, subject) for _ in range(times))))))
        await world.uses.close()
    await database.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
