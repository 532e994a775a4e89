"""What one operation costs each machine, and what one row takes: ``python -m benchmarks.capacity [--count 2000]``.

The figures docs/explanation/capacity.md counts with: processor time, which adds up over machines as wall time does not,
of our process, of PostgreSQL's and of Valkey's. Everything runs on this machine, so a network's waiting is not in them.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import secrets
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import psycopg

from routeguard import Settings
from routeguard.cli.serve import create
from routeguard.core.clock import SystemClock
from routeguard.core.secret import Secret
from routeguard.foundation.db.database import Database
from routeguard.foundation.db.migrate import migrate
from tests.backends import PostgresServer, ValkeyServer

ORIGIN = "http://127.0.0.1:8000"
ACCOUNT = {"email": "capacity@example.com", "password": "benchmark-only-9431"}
ROWS = 50_000


class Caller:
    """A client that speaks ASGI, with a cookie."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.cookie = b""

    async def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> dict[str, Any]:
        given = b"" if body is None else json.dumps(body).encode()
        fields = [(b"host", b"127.0.0.1:8000"), (b"origin", ORIGIN.encode()), (b"user-agent", b"capacity")]
        fields += [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        fields += [(b"cookie", self.cookie)] if self.cookie and "authorization" not in headers else []
        fields += [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(given))] if given else []
        messages = iter([{"type": "http.request", "body": given, "more_body": False}])
        parts: list[bytes] = []

        async def receive() -> Any:
            return next(messages, {"type": "http.disconnect"})

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                assert message["status"] < 300, (path, message)
                for name, value in message["headers"]:
                    if name == b"set-cookie" and value.startswith(b"routeguard="):
                        self.cookie = value.partition(b";")[0]
            parts.append(message.get("body", b""))

        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "scheme": "http",
            "headers": fields,
            "client": ("127.0.0.1", 50000),
            "server": ("127.0.0.1", 8000),
            "state": {},
        }
        await self.app(scope, receive, send)
        return json.loads(b"".join(parts) or b"{}")  # type: ignore[no-any-return]


def spent(pid: int) -> float:
    """Return the processor seconds of a process and its children."""
    root = psutil.Process(pid)
    total = 0.0
    for process in (root, *root.children(recursive=True)):
        used = process.cpu_times()
        total += used.user + used.system
    return total


async def cost(name: str, work: Callable[[], Awaitable[Any]], *, count: int, others: tuple[int, int]) -> None:
    """Print microseconds an operation, of our process and of the two others."""
    for _ in range(50):
        await work()
    before, own, begin = [spent(pid) for pid in others], time.process_time(), time.perf_counter()
    for _ in range(count):
        await work()
    took = time.perf_counter() - begin
    own = time.process_time() - own
    servers = [spent(pid) - used for pid, used in zip(others, before, strict=True)]
    figures = [f"{seconds / count * 1e6:9.0f}" for seconds in (took, own, *servers)]
    print(f"| {name:34} |" + " |".join(figures) + " |")


async def operations(postgres: PostgresServer, valkey: ValkeyServer, count: int) -> str:
    """Measure one operation after the other. Returns the database's URL."""
    url = postgres.create()
    database = Database(url, clock=SystemClock())
    await database.start()
    await migrate(database)
    await database.close()
    settings = Settings(
        issuer=ORIGIN,
        environment="development",
        secret=Secret(secrets.token_bytes(48)),
        database_url=url,
        ephemeral_url=valkey.url,
    )
    off = {field.name: "off" for field in dataclasses.fields(settings.traffic)}
    settings = dataclasses.replace(settings, traffic=dataclasses.replace(settings.traffic, **off))
    asking = dataclasses.replace(settings.sessions, envelope_life=timedelta(microseconds=1))
    others = (postgres.pid, valkey.pid)
    print(f"| {'microseconds an operation':34} |     wall |      ours | PostgreSQL |   Valkey |")
    for label, one in (("", settings), (", from the store", dataclasses.replace(settings, sessions=asking))):
        app = create(one)
        await app.state.guard.start()
        call = Caller(app)
        if not label:
            await call("POST", "/auth/sign-up", ACCOUNT | {"name": "Capacity"})
            await cost("sign-in", lambda: call("POST", "/auth/sign-in", ACCOUNT), count=count // 10, others=others)  # noqa: B023 - used at once
        await call("POST", "/auth/sign-in", ACCOUNT)
        await cost("session" + label, lambda: call("GET", "/auth/session"), count=count, others=others)  # noqa: B023 - used at once
        if not label:
            await tokens(call, count, others)
        await app.state.guard.close()
    limited = dataclasses.replace(settings, traffic=dataclasses.replace(settings.traffic, identity="9999999/minute"))
    app = create(limited)
    await app.state.guard.start()
    call = Caller(app)
    await call("POST", "/auth/sign-in", ACCOUNT)
    await cost("session, limited", lambda: call("GET", "/auth/session"), count=count, others=others)
    await app.state.guard.close()
    return url


async def tokens(call: Caller, count: int, others: tuple[int, int]) -> None:
    """Measure access and refresh tokens."""
    pair = await call("POST", "/auth/token")
    bearer = f"Bearer {pair['access_token']}"
    await cost(
        "session by access token",
        lambda: call("GET", "/auth/session", authorization=bearer),
        count=count,
        others=others,
    )

    async def refresh() -> None:
        pair.update(await call("POST", "/auth/token/refresh", {"refresh_token": pair["refresh_token"]}))

    await cost("refresh", refresh, count=count, others=others)


_KEYS = {
    "routeguard_users": {"id": "usr_", "email": "", "email_key": ""},
    "routeguard_password_hashes": {"user_id": "usr_"},
    "routeguard_sessions": {"user_id": "usr_", "id": "ses_"},
    "routeguard_refresh_families": {"user_id": "usr_", "session_id": "ses_", "id": "fam_", "current_hash": "\\x"},
}
"""Tables with a row to copy, parents first, and what has to differ in each copy."""


def rows(url: str) -> None:
    """Print bytes a row with its indexes, of each table a user's records are in."""
    with psycopg.connect(url, autocommit=True) as connection:

        def size(table: str) -> int:
            return int(connection.execute(f"SELECT pg_total_relation_size('{table}')".encode()).fetchall()[0][0])

        for table, keys in _KEYS.items():
            # Random, as ids are: what is inserted in order would fill its index pages better.
            differs = ", ".join(f"'{name}', '{prefix}' || md5(n::text || 'x')" for name, prefix in keys.items())
            before = size(table)
            connection.execute(
                f"INSERT INTO {table} SELECT (jsonb_populate_record(NULL::{table}, to_jsonb(t) ||"
                f" jsonb_build_object({differs}))).* FROM (SELECT * FROM {table} LIMIT 1) t,"
                f" generate_series(1, {ROWS}) n".encode()
            )
            print(f"{table}: {(size(table) - before) / ROWS:.0f} bytes a row with its indexes")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=2000)
    count = parser.parse_args().count
    postgres, valkey = PostgresServer(), ValkeyServer()
    try:
        with tempfile.TemporaryDirectory() as folder:
            Path(folder).chmod(0o700)
            rows(asyncio.run(operations(postgres, valkey, count)))
    finally:
        postgres.close()
        valkey.close()


if __name__ == "__main__":
    main()
