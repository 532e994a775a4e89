"""What a refresh takes: ``python -m benchmarks.refresh [--count 500] [--rounds 5]``. On SQLite and on PostgreSQL.

The line is 900 microseconds for a refresh with rotation on PostgreSQL, one at a time. The server's disk is left out
(`fsync` is off): whoever waits for it adds one flush of his own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import sqlalchemy as sa

from benchmarks.apps import fastapi_app, running
from benchmarks.harness import BODY, BROWSER, JSON_POST
from benchmarks.harness import call as ask
from routeguard.core.secret import digest
from routeguard.foundation.db.database import Database
from routeguard.identity.tokens.families import RefreshFamilies
from routeguard.protection.traffic.models import TrafficSettings
from tests.backends import PostgresServer

LINE = 900
BINDING = digest("benchmark")
_WIDE = 16


async def answer(app: Any, path: str, cookie: bytes, body: dict[str, Any]) -> dict[str, Any]:
    """Send one POST and return the JSON it is answered with."""
    headers = [(b"content-type", b"application/json"), (b"origin", b"http://127.0.0.1:8000"), (b"cookie", cookie)]
    sent, given = False, json.dumps(body).encode()
    parts: list[bytes] = []

    async def receive() -> dict[str, Any]:
        nonlocal sent
        if sent:
            return {"type": "http.disconnect"}
        sent = True
        return {"type": "http.request", "body": given, "more_body": False}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            assert message["status"] == 200, message
        parts.append(message.get("body", b""))

    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "scheme": "http",
        "headers": [*BROWSER, *headers],
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 8000),
        "state": {},
    }
    await app(scope, receive, send)
    found: dict[str, Any] = json.loads(b"".join(parts))
    return found


async def median(work: Callable[[], Awaitable[Any]], count: int) -> float:
    """Return the median microseconds of doing `work`, one at a time."""
    times = []
    for _ in range(count):
        begin = time.perf_counter()
        await work()
        times.append(time.perf_counter() - begin)
    return statistics.median(times) * 1e6


async def measure(url: str, *, count: int, rounds: int) -> None:
    """Print one database's figures: each the median of `rounds`, taken by turns."""
    traffic = TrafficSettings(refresh="off", identity="off")
    async with running(fastapi_app, lambda guard: guard.session(), database_url=url, traffic=traffic) as ours:
        database = ours.guard.services.get(Database)
        families: RefreshFamilies[Any] = ours.guard.services.get(RefreshFamilies)
        trip = database.prepare(sa.select(sa.literal(1)))
        pair = await answer(ours.app, "/auth/token", ours.cookie, {})
        bare_app = fastapi_app(None, None)
        held, used = [pair["refresh_token"]], (await answer(ours.app, "/auth/token", ours.cookie, {}))["refresh_token"]
        chains = [(await answer(ours.app, "/auth/token", ours.cookie, {}))["refresh_token"] for _ in range(_WIDE)]

        async def rotate() -> None:
            nonlocal used
            found = await families.rotate(used, binding=BINDING)
            assert found is not None
            used = found.refresh_token

        async def refresh() -> None:
            held[0] = (await answer(ours.app, "/auth/token/refresh", b"", {"refresh_token": held[0]}))["refresh_token"]

        async def one_of(number: int) -> None:
            found = await families.rotate(chains[number], binding=BINDING)
            assert found is not None
            chains[number] = found.refresh_token

        async def wide() -> None:
            await asyncio.gather(*(one_of(number) for number in range(_WIDE)))

        async def bare() -> None:
            await ask(bare_app, "POST", "/x", [*BROWSER, *JSON_POST], BODY)

        works = {"one bare query": trip.one, "rotation": rotate, "bare POST": bare, "POST /auth/token/refresh": refresh}
        found: dict[str, list[float]] = {name: [] for name in (*works, "rotation, 16 at once, each")}
        for _ in range(rounds):
            for name, work in works.items():
                found[name].append(await median(work, count))
            found["rotation, 16 at once, each"].append(await median(wide, max(count // _WIDE, 5)) / _WIDE)
        for name, values in found.items():
            say(f"{database.dialect:11} {name:28} {statistics.median(values):8.0f} us")
        if database.dialect == "postgresql":
            figure = statistics.median(found["POST /auth/token/refresh"])
            say(f"{'':11} line: {LINE} us: {'held' if figure <= LINE else 'MISSED'}")


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


async def main() -> None:
    """Measure both databases."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    say(f"load average {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores")
    await measure("", count=given.count, rounds=given.rounds)
    server = PostgresServer()
    try:
        await measure(server.create(), count=given.count, rounds=given.rounds)
    finally:
        server.close()


if __name__ == "__main__":
    asyncio.run(main())
