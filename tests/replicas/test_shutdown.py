"""The end of a process: announced, refused, finished, flushed (attack OPS-14); and a deploy under load (R25)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import time
from collections import Counter

import httpx2
import pytest

from tests.replicas.world import PASSWORD, PATIENCE, Deployment, Person, Replica, eventually

COVERS = ("cli/graceful",)

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(400)]


class Line:
    """A connection on which a request can be begun and ended later."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def to(cls, replica: Replica) -> Line:
        return cls(*await asyncio.open_connection("127.0.0.1", replica.port))

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()

    async def answer(self) -> tuple[int, dict[str, str]]:
        """Return status and header fields; the body is read and left."""
        head = (await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 60)).decode("latin-1")
        first, *lines = head.split("\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
        await self.reader.readexactly(int(fields.get("content-length", "0")))
        return int(first.split()[1]), fields

    async def get(self, path: str) -> tuple[int, dict[str, str]]:
        self.writer.write(f"GET {path} HTTP/1.1\r\nHost: id\r\n\r\n".encode())
        return await self.answer()


async def test_a_process_says_so_finishes_and_ends(deployment: Deployment) -> None:
    """OPS-14: not ready at once, everybody still served while it drains, then refused; what was begun is answered."""
    replica = Replica(deployment.directory / "slow", deployment.values, "--drain", "4s")
    replica.start()
    try:
        async with Person(deployment) as person:
            await person.sign_up()
            body = json.dumps({"email": person.email, "password": PASSWORD}).encode()
            begun, kept = await Line.to(replica), await Line.to(replica)
            assert (await kept.get("/readyz"))[0] == 200
            begun.writer.write(
                b"POST /auth/sign-in HTTP/1.1\r\nHost: id\r\nOrigin: http://127.0.0.1:8000\r\n"
                b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body[:10]
            )
            await begun.writer.drain()

            replica.signal(signal.SIGTERM)
            status, fields = await kept.get("/readyz")
            while (
                status == 200
            ):  # The signal has not come through yet; whatever it answers then is the end of the line.
                status, fields = await kept.get("/readyz")
            assert status == 503
            assert int(fields["retry-after"]) >= 1
            while fields.get("connection") != "close":
                await kept.close()
                kept = await Line.to(replica)
                status, fields = await kept.get("/healthz")
                assert status == 200

            begun.writer.write(body[10:])
            status, fields = await begun.answer()
            assert status == 200
            assert "routeguard=" in fields["set-cookie"]
            await kept.close()
            await begun.close()

            async def refused() -> bool:
                try:
                    line = await Line.to(replica)
                except ConnectionRefusedError:
                    return True
                await line.close()
                return False

            await eventually(refused)
            assert await replica.ended() == 0
            person.cookies["routeguard"] = fields["set-cookie"].partition("routeguard=")[2].partition(";")[0]
            assert (await person.get()).status_code == 200
        assert "Traceback" not in replica.output(), replica.output()
    finally:
        replica.kill()


async def test_a_deploy_under_load_fails_nobody(deployment: Deployment) -> None:
    """R25, OPS-14: both processes replaced one after the other; people with sessions, and arriving, notice nothing."""
    answers: Counter[tuple[str, int]] = Counter()
    done = asyncio.Event()

    async def look(person: Person) -> None:
        while not done.is_set():
            answer = await person.balanced("GET", "/auth/session")
            answers["session", answer.status_code] += 1
            await asyncio.sleep(0.01)

    async def come_and_go(person: Person) -> None:
        while not done.is_set():
            async with person.twin() as other:
                body = {"email": other.email, "password": PASSWORD}
                answers["sign-in", (await other.balanced("POST", "/auth/sign-in", json=body)).status_code] += 1
                answers["then", (await other.balanced("GET", "/auth/session")).status_code] += 1
                answers["sign-out", (await other.balanced("POST", "/auth/sign-out")).status_code] += 1
            await asyncio.sleep(0.1)

    people = [await Person(deployment).arrive() for _ in range(4)]
    load = [asyncio.create_task(look(person)) for person in people]
    load += [asyncio.create_task(come_and_go(person)) for person in people[:2]]
    slowest = 0.0
    for replica in deployment.replicas:
        begin = time.monotonic()
        assert await replica.stop() == 0
        slowest = max(slowest, time.monotonic() - begin)
        await asyncio.to_thread(replica.start)
    done.set()
    await asyncio.gather(*load)
    assert set(answers) == {("session", 200), ("sign-in", 200), ("then", 200), ("sign-out", 204)}
    assert min(answers.values()) > 3
    assert slowest < PATIENCE, "a second of draining and what was under way"
    for person in people:
        assert (await person.get()).status_code == 200
        await person.__aexit__()


async def test_what_was_queued_is_not_lost(deployment: Deployment) -> None:
    """OPS-08, OPS-14: a mail queued by a process that is told to stop is sent, by it or by the other."""
    first, _ = deployment.replicas
    people = [Person(deployment) for _ in range(8)]
    for person in people:
        await person.sign_up()
    asked = [person.post("/auth/password/forgot", {"email": person.email}, to=first) for person in people]
    assert {answer.status_code for answer in await asyncio.gather(*asked)} == {202}
    assert await first.stop() == 0
    for person in people:
        assert await person.mailed(r"reset\S*token=([\w.~-]+)")
        await person.__aexit__()


async def test_a_process_that_dies_takes_nobody_with_it(deployment: Deployment) -> None:
    """OPS-08: kill -9 under load; sessions go on at the other process."""
    first, second = deployment.replicas
    async with Person(deployment) as person:
        await person.arrive()
        flying = [asyncio.create_task(person.get(to=first, keep=False)) for _ in range(50)]
        await asyncio.wait(flying, return_when=asyncio.FIRST_COMPLETED)
        first.kill()
        for outcome in await asyncio.gather(*flying, return_exceptions=True):
            assert isinstance(outcome, httpx2.TransportError) or outcome.status_code == 200
        assert (await person.get(to=second)).status_code == 200
