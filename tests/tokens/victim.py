"""Processes that rotate what they are told until they are killed, at a named point or anywhere.

``python -m tests.tokens.victim SOCKET DATABASE_URL`` loads everything once and forks one victim for each line it reads,
which names the point it halts at. A victim connects to SOCKET, says its process id, reads tokens and answers each with
its successor; at its point it says `halted` and waits for its end.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from typing import Any, Final

from routeguard.core.clock import SystemClock
from routeguard.foundation.db.database import Database, Transaction
from tests.steady import PATIENT
from tests.tokens.racer import say
from tests.tokens.world import World

POINTS: Final = {
    "sqlite": ("before", "moved", "used", "uncommitted", "committed"),
    "postgresql": ("before", "committed"),
}
"""Before the statement; in the transaction after its first, second and last statement; after the commit."""
_STATEMENTS: Final = {"moved": 1, "used": 2, "uncommitted": 3}


def main(socket: str, url: str) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    say("ready")
    for line in sys.stdin:
        if os.fork() == 0:
            asyncio.run(victim(socket, url, line.strip()))
            os._exit(0)


async def victim(socket: str, url: str, point: str) -> None:
    reader, writer = await asyncio.open_unix_connection(socket)
    database = Database(url, clock=SystemClock(), settings=PATIENT)
    await database.start()
    world = World(database)

    def halt() -> None:
        os.write(writer.get_extra_info("socket").fileno(), b"halted\n")
        time.sleep(600)

    _halt_at(point, world, halt)
    writer.write(f"{os.getpid()}\n".encode())
    while line := await reader.readline():
        found = await world.rotate(line.decode().strip())
        writer.write(f"{found}\n".encode())
        await writer.drain()


def _halt_at(point: str, world: World, halt: Any) -> None:
    statements = world.families._statements
    rotate: Any = statements.rotate
    execute: Any = Transaction.execute
    count = 0

    async def around(turn: Any) -> Any:
        if point == "before":
            halt()
        found = await rotate(turn)
        if point == "committed":
            halt()
        return found

    async def counted(tx: Transaction, *given: Any) -> Any:
        nonlocal count
        result = await execute(tx, *given)
        count += 1
        if count == _STATEMENTS.get(point):
            halt()
        return result

    statements.rotate = around  # type: ignore[method-assign]
    if point in _STATEMENTS:
        Transaction.execute = counted  # type: ignore[method-assign, assignment]


if __name__ == "__main__":
    main(*sys.argv[1:])
