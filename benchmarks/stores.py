"""With a store in the way: real Valkey and real PostgreSQL on loopback, what they are asked counted by themselves."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import statistics
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from benchmarks.apps import fastapi_app, running, session_and_limit
from benchmarks.harness import Case, call, measure_all
from routeguard.foundation.ephemeral.connection import Address, Connection
from routeguard.identity.sessions.models import SessionSettings
from tests.backends import PostgresServer, ValkeyServer

COUNTED = 200


@dataclass
class Stored:
    """Figures of one store."""

    figures: list[dict[str, Any]]
    per_request: float
    """Commands or queries of clients, as the store counted them."""
    trip: float = 0.0
    """Microseconds of one bare round trip, one at a time."""
    seen: set[str] = field(default_factory=set)
    """What was asked, without arguments."""


def _name(line: bytes) -> str:
    return line.split(b"] ", 1)[1].split()[0].decode().strip('"').upper()


@contextlib.contextmanager
def monitored(port: int) -> Iterator[list[str]]:
    """Collect the commands of clients, as the server's MONITOR tells them.

    INFO commandstats would count what a script calls as well, and those are no trips.
    """
    lines: list[str] = []
    connection = socket.create_connection(("127.0.0.1", port), timeout=5)
    connection.sendall(b"MONITOR\r\n")
    reader = connection.makefile("rb")
    assert reader.readline() == b"+OK\r\n"

    def read() -> None:
        with contextlib.suppress(OSError, ValueError):
            lines.extend(_name(line) for line in reader if b" lua] " not in line)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    try:
        yield lines
        time.sleep(0.2)
    finally:
        connection.shutdown(socket.SHUT_RDWR)
        thread.join(5)
        connection.close()


async def valkey(count: int, rounds: int) -> Stored:
    """Session and rate limit, limit on Valkey."""
    server = ValkeyServer()
    try:
        url = server.url.replace("redis:", "valkey:")
        async with running(fastapi_app, session_and_limit, ephemeral_url=url) as ours:
            case = Case("session + limit on Valkey", fastapi_app(None, None), ours.app, [(b"cookie", ours.cookie)])
            with monitored(server.port) as commands:
                for _ in range(COUNTED):
                    await call(ours.app, "GET", "/x", case.headers_of("GET"))
            found = await measure_all([case], count=count, rounds=rounds)
            return Stored(found, len(commands) / COUNTED, await _trip(url, count), set(commands))
    finally:
        server.close()


async def _trip(url: str, count: int) -> float:
    connection = Connection(Address.parse(url))
    await connection.start()
    times = []
    for _ in range(count):
        begin = time.perf_counter()
        await connection.command("GET", "nothing")
        times.append(time.perf_counter() - begin)
    await connection.close()
    return statistics.median(times) * 1e6


async def postgresql(count: int, rounds: int) -> Stored:
    """A session read from PostgreSQL at every request: nothing a process remembers is trusted here."""
    server = PostgresServer()
    # `trust` this short makes every request ask the store, as when the news of revocations do not come through.
    sessions = SessionSettings(
        trust=timedelta(microseconds=1), poll=timedelta(hours=1), envelope_life=timedelta(minutes=5)
    )
    try:
        async with running(
            fastapi_app, lambda guard: guard.session(), database_url=server.create(), sessions=sessions
        ) as ours:
            case = Case("session on PostgreSQL", fastapi_app(None, None), ours.app, [(b"cookie", ours.cookie)])
            found = await measure_all([case], count=count, rounds=rounds)
        url = server.create()
        server.execute(f"ALTER DATABASE \"{url.rpartition('/')[2]}\" SET log_statement = 'all'")
        async with running(fastapi_app, lambda guard: guard.session(), database_url=url, sessions=sessions) as ours:
            headers = [*case.headers_of("GET")[:-1], (b"cookie", ours.cookie)]
            await asyncio.sleep(2)  # The outbox has sent what signing up put there.
            seen = await _logged(server, lambda: call(ours.app, "GET", "/x", headers))
        return Stored(found, len(seen) / COUNTED, seen=set(seen))
    finally:
        server.close()


async def _logged(server: PostgresServer, ask: Any) -> list[str]:
    log = server.folder / "log"
    before = len(log.read_bytes())
    for _ in range(COUNTED):
        status, _ = await ask()
        assert status == 200
    lines = log.read_bytes()[before:].decode().splitlines()
    texts = [line.split(": ", 2)[2] for line in lines if "LOG:  statement: " in line or "LOG:  execute " in line]
    return [text[:60] for text in texts]
