"""Two replicas under mixed load for minutes, legal and hostile; memory, files, threads and tasks watched (OPS-23).

``python -m tests.soak`` runs three minutes, as `.ci/run` does; ``ROUTEGUARD_SOAK_SECONDS=1800`` half an hour. Exit
code 0 when after a third of that everything stays flat, and no request at all is answered with 500 or more.
``SOAK_LEAK=1024`` plants a leak of 1 KB a request, which has to fail it; ``SOAK_TRACE=1`` says which lines hold what
grew.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import httpx2
import psutil

from tests.backends import PostgresServer, ValkeyServer
from tests.replicas.world import PASSWORD, PATIENCE, Deployment, Person, deployed, eventually
from tests.soak.verdict import MEGABYTE, Sample, findings, memory

SECONDS = float(os.environ.get("ROUTEGUARD_SOAK_SECONDS", "180"))
TRACE = bool(os.environ.get("SOAK_TRACE"))
PEOPLE = 8
PERIOD = 0.15
"""Seconds from one act of a person to his next: far from saturation, for that is not what is asked here.

He waits for his answers, so that however slow the machine is, no more than one request of each is under way.
"""
EVERY = 2.0
"""Seconds between two samples."""
VALUES = {
    "program": "tests.soak.server",
    # What is remembered for a time is remembered for a short one, so that after the warm-up it is at its most.
    "ROUTEGUARD_SESSIONS_ENVELOPE_LIFE": "10s",
    "ROUTEGUARD_SESSIONS_SKEW": "10s",
    "ROUTEGUARD_DATABASE_POOL_SIZE": "4",
    # A neighbour on the machine may take both cores for a while.
    "ROUTEGUARD_DATABASE_TIMEOUT": "60s",
    "ROUTEGUARD_DATABASE_STATEMENT_TIMEOUT": "60s",
}

told: Counter[tuple[str, int]] = Counter()


class Visitor:
    """Somebody who does now this, now that. What he does is drawn from a seed of his own."""

    def __init__(self, deployment: Deployment, number: int) -> None:
        self.random = random.Random(number)
        self.person = Person(deployment)
        # The server closes what was idle for five seconds: no request is to cross that on its way.
        limits = httpx2.Limits(max_connections=10, keepalive_expiry=1)
        self.person._client = httpx2.AsyncClient(timeout=PATIENCE, limits=limits)
        self.refresh_token: str | None = None
        self.key: str | None = None
        self.acts = [
            (30, self.look),
            (4, self.come_again),
            (3, self.tokens),
            (6, self.refresh),
            (3, self.guess),
            (6, self.forge),
            (2, self.too_large),
            (4, self.malformed),
            (3, self.elsewhere),
            (4, self.use_key),
            (1, self.health),
            (1, self.forgotten),
            (1, self.sessions),
        ]

    async def live(self, until: float) -> None:
        account = {"email": self.person.email, "password": PASSWORD, "name": "Somebody"}
        await self.do("sign up", "POST", "/auth/sign-up", json=account)
        await self.come_again()
        acts, weights = [act for _, act in self.acts], [weight for weight, _ in self.acts]
        while time.monotonic() < until:
            begun = time.monotonic()
            await self.random.choices(acts, weights)[0]()
            await asyncio.sleep(max(begun + PERIOD - time.monotonic(), 0))
        await self.person.__aexit__()

    async def do(self, name: str, method: str, path: str, **rest):
        answer = await self.person.send(method, path, patient=False, **rest)
        told[name, answer.status_code] += 1
        return answer

    async def look(self) -> None:
        answer = await self.do("session", "GET", "/auth/session")
        if answer.status_code == 401:
            await self.come_again()

    async def come_again(self) -> None:
        await self.do("sign out", "POST", "/auth/sign-out")
        self.refresh_token = None
        await self.do("sign in", "POST", "/auth/sign-in", json={"email": self.person.email, "password": PASSWORD})

    async def tokens(self) -> None:
        answer = await self.do("token", "POST", "/auth/token")
        if answer.status_code == 200:
            self.refresh_token = answer.json()["refresh_token"]
            bearer = {"authorization": f"Bearer {answer.json()['access_token']}"}
            await self.do("bearer", "GET", "/auth/session", headers=bearer, cookies=False)

    async def refresh(self) -> None:
        if self.refresh_token is not None:
            body = {"refresh_token": self.refresh_token}
            answer = await self.do("refresh", "POST", "/auth/token/refresh", json=body)
            if answer.status_code != 503:
                self.refresh_token = answer.json().get("refresh_token")
        else:
            await self.do("refresh", "POST", "/auth/token/refresh", json={"refresh_token": "A" * 100})

    async def use_key(self) -> None:
        if self.key is None:
            answer = await self.do("key", "POST", "/auth/api-keys", json={"name": "soak"})
            self.key = answer.json().get("key")
        await self.do(
            "use key", "POST", "/auth/api-keys/verify", headers={"x-api-key": self.key or "none"}, cookies=False
        )

    async def guess(self) -> None:
        # From other addresses, at accounts of others: guesses at his own would slow himself down.
        body = {"email": f"nobody{self.random.randrange(20)}@example.com", "password": f"{self.random.random()}"}
        elsewhere = {"x-forwarded-for": f"203.0.113.{self.random.randrange(1, 25)}"}
        await self.do("guess", "POST", "/auth/sign-in", json=body, headers=elsewhere, keep=False)

    async def forge(self) -> None:
        value = self.random.randbytes(120).hex()
        headers = self.random.choice(
            [
                {"cookie": f"routeguard={value}.{value[:43]}"},
                {"authorization": f"Bearer {value}"},
                {"authorization": "Bearer eyJhbGciOiJub25lIn0.e30."},
                {"x-api-key": value},
            ]
        )
        await self.do("forged", "GET", "/auth/session", headers=headers, cookies=False)

    async def too_large(self) -> None:
        body = {"email": "a@example.com", "password": "x" * 200_000}
        try:
            await self.do("too large", "POST", "/auth/sign-in", json=body, keep=False)
        except (httpx2.WriteError, httpx2.ReadError, httpx2.RemoteProtocolError):
            # Who refuses a body before its end may close the connection, and the answer may be lost with it (RFC
            # 9110, section 15.5.14; RFC 9112, section 9.6).
            told["too large, cut off", 413] += 1

    async def malformed(self) -> None:
        body = self.random.choice(
            [[], {}, {"email": 1}, "text", {"email": "a" * 500, "password": "\0"}, [[[[[]]]]] * 50]
        )
        await self.do("malformed", "POST", "/auth/sign-in", json=body, keep=False)

    async def elsewhere(self) -> None:
        await self.do("elsewhere", "GET", f"/{self.random.randbytes(30).hex()}", keep=False)

    async def health(self) -> None:
        await self.do("health", "GET", "/readyz")

    async def forgotten(self) -> None:
        await self.do("forgot", "POST", "/auth/password/forgot", json={"email": self.person.email})

    async def sessions(self) -> None:
        await self.do("sessions", "GET", "/auth/sessions")


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


async def sample(process: psutil.Process, report: Path, *, number: int, begin: float) -> Sample:
    """Ask a replica for its report of this number, and count what can be seen from outside."""

    def read() -> list[int]:
        return [int(word) for word in report.read_text().split()] if report.exists() else [0]

    process.send_signal(signal.SIGUSR1)
    said: list[int] = []

    async def reported() -> bool:
        said[:] = read()
        return said[0] >= number

    await eventually(reported)
    _, rss, tasks = said
    return Sample(time.monotonic() - begin, rss, process.num_fds(), process.num_threads(), tasks)


async def watch(process: psutil.Process, report: Path, until: float) -> list[Sample]:
    samples: list[Sample] = []
    begin, snapshots = time.monotonic(), [SECONDS / 3, SECONDS * 0.9]
    while time.monotonic() < until:
        samples.append(await sample(process, report, number=len(samples) + 1, begin=begin))
        if TRACE and snapshots and samples[-1].at > snapshots[0]:
            process.send_signal(signal.SIGUSR2)
            del snapshots[0]
        await asyncio.sleep(EVERY)
    return samples


async def soak(deployment: Deployment) -> list[str]:
    until = time.monotonic() + SECONDS
    visitors = [Visitor(deployment, number) for number in range(PEOPLE)]
    watching = [
        watch(psutil.Process(replica.pid), replica.directory / "tasks", until) for replica in deployment.replicas
    ]
    living = [visitor.live(until) for visitor in visitors]
    replicas, _ = await asyncio.gather(asyncio.gather(*watching), asyncio.gather(*living))
    for number, samples in enumerate(replicas):
        say(f"replica {number}: {memory(samples, seconds=SECONDS):+.2f} MB in ten minutes after the warm-up")
        for one in samples[:: max(len(samples) // 12, 1)]:
            held = f"{one.rss / MEGABYTE:8.2f} MB"
            say(f"  {one.at:6.0f} s {held} {one.files:4} files {one.threads:3} threads {one.tasks:4} tasks")
    for (name, status), count in sorted(told.items()):
        say(f"  {count:7} {name} {status}")
    found = findings(replicas, seconds=SECONDS)
    # None is planned: nothing is taken away here, and nobody asks for more than a machine can do.
    found += [f"{count} times {status} for {name}" for (name, status), count in told.items() if status >= 500]
    if not told["session", 200]:
        found.append("nobody was served")
    for replica in deployment.replicas:
        if TRACE:
            say((replica.directory / "tasks.trace").read_text())
        if await replica.stop() != 0 or "Traceback" in replica.output():
            found.append(f"a replica did not end well:\n{replica.output()[-3000:]}")
    return found


def main() -> int:
    # Servers are ended too when this is (SIGTERM), as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    postgres, valkey = PostgresServer(), ValkeyServer()
    try:
        with tempfile.TemporaryDirectory(prefix="routeguard-soak-") as folder:
            where = {"database_url": postgres.create(), "ephemeral_url": valkey.url}
            with deployed(Path(folder), **where, **VALUES) as deployment:
                found = asyncio.run(soak(deployment))
    finally:
        postgres.close()
        valkey.close()
    say("\n".join(found) or f"flat for {SECONDS:.0f} seconds, {sum(told.values())} requests")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
