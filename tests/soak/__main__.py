"""Two replicas under mixed load for minutes, legal and hostile; memory, files, threads and tasks watched (OPS-23).

``python -m tests.soak`` runs three minutes, as `.ci/run` does; ``ROUTEGUARD_SOAK_SECONDS=1800`` half an hour. Exit
code 0 when everything stays flat, nothing fails (500) and hardly anything is put off (503). ``SOAK_TRACE=1`` says
which lines hold what grew.
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

import psutil

from tests.backends import PostgresServer, ValkeyServer
from tests.replicas.world import PASSWORD, Deployment, Person, deployed
from tests.soak.verdict import MEGABYTE, Sample, findings

SECONDS = float(os.environ.get("ROUTEGUARD_SOAK_SECONDS", "180"))
TRACE = bool(os.environ.get("SOAK_TRACE"))
PEOPLE = 12
PAUSE = 0.05
"""Seconds between two requests of one person: far from saturation, for that is not what is asked here."""

told: Counter[tuple[str, int]] = Counter()


class Visitor:
    """Somebody who does now this, now that. What he does is drawn from a seed of his own."""

    def __init__(self, deployment: Deployment, number: int) -> None:
        self.random = random.Random(number)
        self.person = Person(deployment)
        self.refresh_token: str | None = None
        self.key: str | None = None
        self.acts = [
            (30, self.look), (4, self.come_again), (3, self.tokens), (6, self.refresh), (3, self.guess),
            (6, self.forge), (2, self.too_large), (4, self.malformed), (3, self.elsewhere), (4, self.use_key),
            (1, self.health), (1, self.forgotten), (1, self.sessions),
        ]  # fmt: skip

    async def live(self, until: float) -> None:
        await self.person.arrive()
        acts, weights = [act for _, act in self.acts], [weight for weight, _ in self.acts]
        while time.monotonic() < until:
            await self.random.choices(acts, weights)[0]()
            await asyncio.sleep(PAUSE)
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
        elsewhere = {"x-forwarded-for": f"203.0.113.{self.random.randrange(1, 250)}"}
        await self.do("guess", "POST", "/auth/sign-in", json=body, headers=elsewhere, keep=False)

    async def forge(self) -> None:
        value = self.random.randbytes(120).hex()
        headers = self.random.choice([
            {"cookie": f"routeguard={value}.{value[:43]}"}, {"authorization": f"Bearer {value}"},
            {"authorization": "Bearer eyJhbGciOiJub25lIn0.e30."}, {"x-api-key": value},
        ])  # fmt: skip
        await self.do("forged", "GET", "/auth/session", headers=headers, cookies=False)

    async def too_large(self) -> None:
        body = {"email": "a@example.com", "password": "x" * 200_000}
        await self.do("too large", "POST", "/auth/sign-in", json=body, keep=False)

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


def sample(process: psutil.Process, counted: Path, at: float) -> Sample:
    tasks = int(counted.read_text() or 0) if counted.exists() else 0
    return Sample(at, process.memory_info().rss, process.num_fds(), process.num_threads(), tasks)


async def watch(process: psutil.Process, counted: Path, until: float) -> list[Sample]:
    samples: list[Sample] = []
    begin = time.monotonic()
    while time.monotonic() < until:
        process.send_signal(signal.SIGUSR1)
        await asyncio.sleep(1)
        if TRACE and len(samples) in {int(SECONDS / 3), int(SECONDS * 0.9)}:
            process.send_signal(signal.SIGUSR2)
        samples.append(sample(process, counted, time.monotonic() - begin))
    return samples


async def soak(deployment: Deployment) -> list[str]:
    until = time.monotonic() + SECONDS
    visitors = [Visitor(deployment, number) for number in range(PEOPLE)]
    watching = [
        watch(psutil.Process(replica.pid), replica.directory / "tasks", until) for replica in deployment.replicas
    ]
    everything = await asyncio.gather(*watching, *(visitor.live(until) for visitor in visitors))
    found: list[str] = []
    for number, samples in enumerate(everything[: len(watching)]):
        say(f"replica {number}:")
        for one in samples[:: max(len(samples) // 8, 1)]:
            memory = f"{one.rss / MEGABYTE:7.1f} MB"
            say(f"  {one.at:6.0f} s {memory} {one.files:4} files {one.threads:3} threads {one.tasks:4} tasks")
        found += [f"replica {number}: {finding}" for finding in findings(samples, seconds=SECONDS)]
    for (name, status), count in sorted(told.items()):
        say(f"  {count:7} {name} {status}")
    found += [
        f"{count} times {status} for {name}" for (name, status), count in told.items() if status in {500, 502, 504}
    ]
    # "Come back in a second" is what a machine says that has more to do than it can: now and then, not as a rule.
    busy = sum(count for (_, status), count in told.items() if status == 503)
    if busy > sum(told.values()) / 100:
        found.append(f"{busy} times 503")
    if not told["session", 200]:
        found.append("nobody was served")
    for replica in deployment.replicas:
        if TRACE:
            say((replica.directory / "tasks.trace").read_text())
        if await replica.stop() != 0 or "Traceback" in replica.output():
            found.append(f"a replica did not end well:\n{replica.output()[-3000:]}")
    return found


def main() -> int:
    postgres, valkey = PostgresServer(), ValkeyServer()
    try:
        with tempfile.TemporaryDirectory(prefix="routeguard-soak-") as folder:
            values = {"database_url": postgres.create(), "ephemeral_url": valkey.url, "program": "tests.soak.server"}
            with deployed(Path(folder), **values) as deployment:
                found = asyncio.run(soak(deployment))
    finally:
        postgres.close()
        valkey.close()
    say("\n".join(found) or f"flat for {SECONDS:.0f} seconds, {sum(told.values())} requests")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
