"""PostgreSQL and Valkey stopped, frozen and reset under load, again and again (attacks OPS-03, AZ-16, SES-17).

Two real processes, with people in good standing and others who must never get in. While a store is away nobody is let
in who would not be otherwise, and nobody is told that he is not signed in; 503 it is. Then it goes on by itself.

Longer, with the two seconds that are promised on a machine that does nothing else:
``ROUTEGUARD_OUTAGES=50 ROUTEGUARD_BACK_WITHIN=2 pytest -m long tests/replicas/test_outages.py``
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.backends import PostgresServer, ValkeyServer
from tests.replicas.proxy import Proxy
from tests.replicas.world import PATIENCE, Deployment, Person, deployed, eventually
from tests.rounds import rounds as repeated

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(400)]

again_and_again = repeated(1, 5, variable="ROUTEGUARD_OUTAGES")
BACK_WITHIN = float(os.environ.get("ROUTEGUARD_BACK_WITHIN", "120"))
"""Seconds. Two are promised (and measured: see above); a CI machine under load is no place to measure."""


@dataclass
class World:
    """Two replicas that reach their stores through proxies."""

    postgres: PostgresServer
    valkey: ValkeyServer
    to_postgres: Proxy
    to_valkey: Proxy
    deployment: Deployment


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    directory: Path = tmp_path_factory.mktemp("outages")
    postgres, valkey = PostgresServer(), ValkeyServer()
    to_postgres, to_valkey = Proxy(postgres.port), Proxy(valkey.port)
    try:
        url = postgres.create().replace(f":{postgres.port}/", f":{to_postgres.port}/")
        # Cookies speak for themselves for so short a time that the store is asked nearly always.
        with deployed(
            directory,
            database_url=url,
            ephemeral_url=f"valkey://127.0.0.1:{to_valkey.port}",
            ROUTEGUARD_SESSIONS_ENVELOPE_LIFE="50ms",
            ROUTEGUARD_SESSIONS_POLL="200ms",
            ROUTEGUARD_DATABASE_TIMEOUT="1s",
            ROUTEGUARD_DATABASE_STATEMENT_TIMEOUT="800ms",
        ) as deployment:
            yield World(postgres, valkey, to_postgres, to_valkey, deployment)
    finally:
        for one in (to_postgres, to_valkey, postgres, valkey):
            one.close()


ALLOWED = {
    "signed in": {200, 503},
    "signed out": {401, 503},
    "forged": {401},
    "nobody": {401},
    "tampered token": {401, 503},
    "revoked key": {401, 429, 503},
    "spent refresh token": {401, 503},
    # 409 for a moment: the sign-in before was answered, and the store left before its claim could be given back.
    "right password": {200, 409, 503},
    "wrong password": {401, 429, 503},
}


@dataclass
class Load:
    """People who go on asking, and what they were told: each kind of them may be told only so much."""

    deployment: Deployment
    told: Counter[tuple[str, int]] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    async def ask(self, kind: str, request: Callable[[], Awaitable], pause: float) -> None:
        while True:
            answer = await request()
            self.told[kind, answer.status_code] += 1
            if answer.status_code not in ALLOWED[kind]:
                self.wrong.append(f"{kind}: {answer.status_code} {answer.text}")
            if answer.status_code == 503 and not int(answer.headers["retry-after"]):
                self.wrong.append(f"{kind}: 503 without Retry-After")
            await asyncio.sleep(pause)

    async def more(self, kind: str, status: int, count: int) -> None:
        """Wait until so many more of a kind were told this."""
        enough = self.told[kind, status] + count

        async def told() -> bool:
            return self.told[kind, status] >= enough

        await eventually(told)


@pytest.fixture
async def load(world: World) -> AsyncIterator[Load]:
    deployment = world.deployment
    found = Load(deployment)
    good, gone, forged, nobody, arriving, guessing, robbed = people = [Person(deployment) for _ in range(7)]
    await good.arrive()
    await robbed.arrive()
    await gone.arrive()
    stolen = gone.copy()
    assert (await gone.post("/auth/sign-out")).status_code == 204
    await arriving.sign_up()
    await guessing.sign_up()
    noise = base64.urlsafe_b64encode(bytes(80)).decode().rstrip("=")
    forged.cookies["routeguard"] = f"{noise}.{noise[:43]}"
    tampered, key, spent = await _worthless(good, robbed)

    async def refused() -> bool:
        return {(await stolen.get(to=one, keep=False)).status_code for one in deployment.replicas} == {401}

    await eventually(refused)
    first, second = deployment.replicas
    kinds: list[tuple[str, Callable[[], Awaitable], float]] = [
        ("signed in", lambda: good.get(patient=False, to=first, keep=False), 0.01),
        ("signed in", lambda: good.get(patient=False, to=second, keep=False), 0.01),
        ("signed out", lambda: stolen.get(patient=False, keep=False), 0.01),
        ("forged", lambda: forged.get(patient=False, keep=False), 0.02),
        ("nobody", lambda: nobody.get(patient=False, keep=False), 0.05),
        ("tampered token", lambda: good.bearer(tampered, patient=False), 0.02),
        (
            "revoked key",
            lambda: nobody.post(
                "/auth/api-keys/verify", headers={"x-api-key": key}, cookies=False, keep=False, patient=False
            ),
            0.05,
        ),
        ("spent refresh token", lambda: robbed.refresh(spent, keep=False, patient=False), 0.05),
        ("right password", lambda: arriving.sign_in(keep=False, patient=False), 0.1),
        ("wrong password", lambda: guessing.sign_in("not this one", keep=False, patient=False), 0.1),
    ]
    tasks = [asyncio.create_task(found.ask(*kind)) for kind in kinds]
    # Each kind is what it is called, before anything is taken away.
    await found.more("signed in", 200, 1)
    for kind in ("signed out", "forged", "tampered token", "revoked key", "spent refresh token"):
        await found.more(kind, 401, 1)
    yield found
    for task in tasks:
        task.cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    for person in (*people, stolen):
        await person.__aexit__()
    assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes), outcomes
    assert not found.wrong


async def _worthless(good: Person, robbed: Person) -> tuple[str, str, str]:
    """Return an access token that says more than was signed, a revoked API key and a refresh token that was stolen."""
    head, claims, signature = (await good.tokens())["access_token"].split(".")
    said = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
    said["exp"] += 1
    more = base64.urlsafe_b64encode(json.dumps(said).encode()).decode().rstrip("=")
    made = (await good.post("/auth/api-keys", {"name": "revoked"})).json()
    assert (await good.send("DELETE", f"/auth/api-keys/{made['id']}")).status_code == 204
    spent = (await robbed.tokens())["refresh_token"]
    assert (await robbed.refresh(spent)).status_code == 200
    thief = {"user-agent": "a thief's"}
    stolen = {"refresh_token": spent}
    assert (await robbed.post("/auth/token/refresh", stolen, headers=thief, cookies=False)).status_code == 401
    return f"{head}.{more}.{signature}", made["key"], spent


async def is_back(load: Load) -> bool:
    """Whether each replica says that it is ready, and does what it says."""
    for replica in load.deployment.replicas:
        async with Person(load.deployment) as person:
            if (await person.get("/readyz", to=replica, patient=False)).status_code != 200:
                return False
    return True


async def cycles(
    load: Load, rounds: int, sign: tuple[str, int], away: Callable[[], object], back: Callable[[], object]
) -> None:
    """Take a store away until it shows (`sign`), and give it back, again and again."""
    slowest = 0.0
    for _ in range(rounds):
        await asyncio.to_thread(away)
        try:
            await load.more(*sign, 2)
        finally:
            await asyncio.to_thread(back)
        returned = time.monotonic()
        await eventually(lambda: is_back(load), within=PATIENCE)
        await load.more("signed in", 200, 2)
        await load.more("right password", 200, 1)
        slowest = max(slowest, time.monotonic() - returned)
    print(f"back after {slowest:.2f} s at most")  # noqa: T201 - with -s, for the record
    assert slowest < BACK_WITHIN
    assert not load.wrong


DATABASE_AWAY = ("signed in", 503)
VALKEY_AWAY = ("right password", 503)


@again_and_again
async def test_postgresql_stopped(world: World, load: Load, rounds: int) -> None:
    await cycles(load, rounds, DATABASE_AWAY, world.postgres.stop, world.postgres.start)


@again_and_again
async def test_postgresql_frozen(world: World, load: Load, rounds: int) -> None:
    await cycles(load, rounds, DATABASE_AWAY, world.postgres.freeze, world.postgres.thaw)


@again_and_again
async def test_postgresql_reset(world: World, load: Load, rounds: int) -> None:
    """Connections end by RST and new ones too; then the server ends its back ends itself. The pool leaks nothing."""
    await cycles(load, rounds, DATABASE_AWAY, world.to_postgres.reset, world.to_postgres.restore)
    terminate = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'routeguard'"
    for _ in range(rounds):
        assert await asyncio.to_thread(world.postgres.execute, terminate)
        await load.more("signed in", 200, 20)
    count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'routeguard'"
    # Two processes, two pools each, ten connections at most in each.
    assert world.postgres.execute(count)[0][0] <= 40


@again_and_again
async def test_valkey_stopped(world: World, load: Load, rounds: int) -> None:
    await cycles(load, rounds, VALKEY_AWAY, world.valkey.stop, world.valkey.start)


@again_and_again
async def test_valkey_frozen(world: World, load: Load, rounds: int) -> None:
    await cycles(load, rounds, VALKEY_AWAY, world.valkey.freeze, world.valkey.thaw)


@again_and_again
async def test_valkey_reset(world: World, load: Load, rounds: int) -> None:
    await cycles(load, rounds, VALKEY_AWAY, world.to_valkey.reset, world.to_valkey.restore)


@again_and_again
async def test_valkey_flushed(world: World, load: Load, rounds: int) -> None:
    """R7: what was counted is counted anew; nobody is let in by it, and nobody is put out."""
    for _ in range(rounds):
        await asyncio.to_thread(world.valkey.flush)
        await load.more("signed in", 200, 5)
        for kind in ("signed out", "forged", "tampered token", "spent refresh token"):
            await load.more(kind, 401, 1)
        # An answer to the right password, or to a wrong one, is what it was: only the counts are gone.
        await load.more("right password", 200, 1)
        await load.more("wrong password", 401, 1)
    assert not load.wrong
