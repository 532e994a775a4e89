"""Drives ASGI applications in process and pairs their timings. Standard library only: the peers' environments use it.

Every figure is what a protected handler takes beyond the same framework's bare one, measured in alternating rounds
of one run; the median of the rounds' differences is reported, so that a noisy neighbour hits both alike. Wall time is
what callers wait; processor time of the loop's thread is what a neighbour cannot lengthen, and is printed beside it.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

App = Callable[[Any, Any, Any], Awaitable[None]]

WIDE = 16
BODY = b'{"title":"chair","amount":12}'
BROWSER = [
    (b"host", b"127.0.0.1:8000"),
    (b"user-agent", b"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0"),
    (b"accept", b"application/json"),
    (b"accept-language", b"en"),
    (b"accept-encoding", b"gzip, deflate, br"),
    (b"sec-fetch-site", b"same-origin"),
    (b"sec-fetch-mode", b"cors"),
]
JSON_POST = [
    (b"content-type", b"application/json"),
    (b"content-length", str(len(BODY)).encode()),
    (b"origin", b"http://127.0.0.1:8000"),
]


class Time(NamedTuple):
    """Microseconds a request: on the wall clock, and of the processor by this thread."""

    wall: float
    cpu: float


@dataclass
class Case:
    """One protected application beside its bare twin."""

    name: str
    bare: App
    guarded: App
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    post_headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    path: str = "/x"
    before: Callable[[], None] | None = None

    def headers_of(self, method: str) -> list[tuple[bytes, bytes]]:
        """Return what the client sends: a browser of today, signed in."""
        common = [*BROWSER, *self.headers]
        return [*common, *JSON_POST, *self.post_headers] if method == "POST" else common


@dataclass
class Figure:
    """Microseconds a request, and what the protection adds to them."""

    name: str
    method: str
    bare: float
    over: float
    over_cpu: float
    ratio: float
    wide_over: float
    wide_over_cpu: float


def scope(method: str, path: str, headers: list[tuple[bytes, bytes]]) -> dict[str, Any]:
    """Return a fresh ASGI scope, as a server makes one for each request."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "scheme": "http",
        "headers": list(headers),
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 8000),
        "state": {},
    }


async def call(
    app: App, method: str, path: str, headers: list[tuple[bytes, bytes]], body: bytes = b""
) -> tuple[int, list[tuple[bytes, bytes]]]:
    """Send one request; return the status and the headers of the answer."""
    status, answered = 0, []
    fed = False

    async def receive() -> dict[str, Any]:
        nonlocal fed
        if fed:
            return {"type": "http.disconnect"}
        fed = True
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        nonlocal status, answered
        if message["type"] == "http.response.start":
            status, answered = message["status"], message["headers"]

    await app(scope(method, path, headers), receive, send)
    return status, answered


async def timed(app: App, case: Case, method: str, *, count: int, wide: int) -> Time:
    """Send `count` requests, `wide` at a time."""
    headers, path, body = case.headers_of(method), case.path, BODY if method == "POST" else b""

    async def one() -> None:
        for _ in range(count // wide):
            await call(app, method, path, headers, body)

    cpu, wall = time.thread_time(), time.perf_counter()
    if wide == 1:
        await one()
    else:
        await asyncio.gather(*(one() for _ in range(wide)))
    scale = 1e6 / (count // wide * wide)
    return Time((time.perf_counter() - wall) * scale, (time.thread_time() - cpu) * scale)


async def measure(case: Case, method: str, *, count: int, rounds: int) -> Figure:
    """Time bare and guarded in turns, one request at a time and sixteen at once."""
    for app in (case.bare, case.guarded):
        status, _ = await call(app, method, case.path, case.headers_of(method), BODY if method == "POST" else b"")
        assert status == 200, f"{case.name}: {method} answered {status}"
        await timed(app, case, method, count=count, wide=1)
    bare: list[float] = []
    over: dict[int, list[Time]] = {1: [], WIDE: []}
    for _ in range(rounds):
        gc.collect()
        for wide, found in over.items():
            without = await timed(case.bare, case, method, count=count, wide=wide)
            guarded = await timed(case.guarded, case, method, count=count, wide=wide)
            found.append(Time(guarded.wall - without.wall, guarded.cpu - without.cpu))
            if wide == 1:
                bare.append(without.wall)
    base, one, several = statistics.median(bare), _median(over[1]), _median(over[WIDE])
    return Figure(case.name, method, base, one.wall, one.cpu, (base + one.wall) / base, several.wall, several.cpu)


def _median(times: list[Time]) -> Time:
    return Time(statistics.median(one.wall for one in times), statistics.median(one.cpu for one in times))


async def measure_all(cases: list[Case], *, count: int, rounds: int) -> list[dict[str, Any]]:
    """Measure GET and POST of every case."""
    return [
        asdict(await measure(case, method, count=count, rounds=rounds)) for case in cases for method in ("GET", "POST")
    ]


async def stall(work: list[Awaitable[Any]]) -> Time:
    """Return for how many milliseconds the loop stood still at most while `work` was done, and worked at most."""
    wall, cpu = 0.0, 0.0
    done = asyncio.Event()

    async def tick() -> None:
        nonlocal wall, cpu
        while not done.is_set():
            begin, used = time.perf_counter(), time.thread_time()
            await asyncio.sleep(0.001)
            wall = max(wall, time.perf_counter() - begin - 0.001)
            cpu = max(cpu, time.thread_time() - used)

    ticker = asyncio.create_task(tick())
    await asyncio.sleep(0.01)
    await asyncio.gather(*work)
    done.set()
    await ticker
    return Time(wall * 1000, cpu * 1000)
