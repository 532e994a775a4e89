"""Signing keys: one in every process, published ahead, replaced in time, revoked at once."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from routeguard.core.clock import SystemClock
from routeguard.core.errors import Unavailable
from routeguard.core.secret import Purpose, Secret
from routeguard.foundation.db.database import Database
from routeguard.foundation.db.migrate import migrate
from routeguard.foundation.db.sealing import Sealer
from routeguard.foundation.jose.jwt import verify_jwt
from routeguard.foundation.jose.models import InvalidToken
from routeguard.identity.tokens import keys as module
from routeguard.identity.tokens import store
from routeguard.identity.tokens.models import ALGORITHMS
from tests.backends import PostgresServer
from tests.fakes import Unbound, deployment
from tests.sessions.world import SECRET
from tests.steady import PATIENT
from tests.tokens.forge import token as forged
from tests.tokens.key_world import ISSUER, KEPT, KeyWorld

pytestmark = pytest.mark.anyio

MONTH = 30 * 86400.0
AHEAD = 600.0
PRIVATE = {"d", "p", "q", "dp", "dq", "qi", "k", "oth"}
OTHER = Secret(b"another secret of thirty-two bytes and more")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_the_first_key_signs_at_once(database: Database, algorithm: str) -> None:
    async with KeyWorld.of(database, algorithm=algorithm) as world, KeyWorld.of(database, algorithm=algorithm) as other:
        token = world.mint()
        assert world.access.verify(token) == other.access.verify(token)
        assert (await world.access.find(token)).sub == "usr_1"
        published = json.loads(json.dumps(world.keys.jwks()))["keys"]
        assert published == other.keys.jwks()["keys"]
        assert not PRIVATE & {member for key in published for member in key}
        if algorithm == "HS256":
            assert published == []
            return
        # Others verify it with what is published and nothing else.
        assert verify_jwt(token, {"keys": published}, issuer=ISSUER, audience=ISSUER)["sid"] == "ses_1"
        assert {name: published[0][name] for name in ("alg", "use")} == {"alg": algorithm, "use": "sig"}


async def test_of_many_that_start_at_once_one_makes_the_key(database: Database) -> None:
    """SES-05's class: whoever loses uses the winner's."""
    worlds = [KeyWorld(database) for _ in range(12)]
    await asyncio.gather(*(world.tend() for world in worlds))
    assert len(await worlds[0].rows()) == 1
    tokens = [world.mint() for world in worlds]
    assert all(world.access.verify(token) for world in worlds for token in tokens)


async def test_the_next_key_is_published_before_it_signs_and_the_old_one_long_after(database: Database) -> None:
    async with KeyWorld.of(database) as world:
        first = world.keys.signer().kid
        old = world.mint()
        await world.age(MONTH - AHEAD - 60)
        await world.tend()
        assert len(await world.rows()) == 1
        await world.age(60)
        await world.tend()
        published = [key["kid"] for key in world.keys.jwks()["keys"]]
        assert len(published) == 2
        assert published[1] == first == world.keys.signer().kid
        await world.age(AHEAD)
        assert world.keys.signer().kid == published[0] != first
        assert world.access.verify(old) is not None
        assert world.access.verify(world.mint()) is not None
        await world.age(KEPT - 60)
        assert [key["kid"] for key in world.keys.jwks()["keys"]] == published
        await world.age(60)
        assert [key["kid"] for key in world.keys.jwks()["keys"]] == published[:1]
        assert world.keys.find(first or "") is None
        # It is deleted with a later rotation, and not before its tokens have long expired.
        await world.age(86400 + 60)
        await world.keys.rotate()
        assert [row.generation for row in await world.rows()] == [2, 3]


async def test_of_many_that_find_it_is_time_one_makes_the_next(database: Database) -> None:
    worlds = [KeyWorld(database) for _ in range(12)]
    await worlds[0].tend()
    await worlds[0].age(MONTH)
    await asyncio.gather(*(world.tend() for world in worlds))
    assert [row.generation for row in await worlds[0].rows()] == [1, 2]
    # And one that is asked for, or that comes by itself, while one waits is that one.
    made = await asyncio.gather(*(world.keys.rotate() for world in worlds))
    assert {one.generation for one in made} == {2}


async def test_a_revoked_key_is_refused_everywhere(database: Database) -> None:
    """`key rotate --now`: also what was verified before, in the process that did it and in those that hear of it."""
    async with KeyWorld.of(database) as world, KeyWorld.of(database) as other:
        token = world.mint()
        assert world.access.verify(token)
        assert other.access.verify(token)
        await world.keys.rotate()
        made = await world.keys.rotate(now=True)
        assert world.keys.signer() == made.key
        assert [key["kid"] for key in world.keys.jwks()["keys"]] == [made.key.kid]
        assert world.access.verify(token) is None
        await other.keys.refresh()
        assert other.access.verify(token) is None
        fresh = world.mint()
        assert other.access.verify(fresh)


async def test_the_feed_says_that_keys_changed(database: Database) -> None:
    """Others need not wait for their next look."""
    world, other = KeyWorld(database), KeyWorld(database)
    for one in (world, other):
        await one.feed.poll()
        await one.keys.start()
    try:
        token = world.mint()
        assert other.access.verify(token)
        await world.keys.rotate(now=True)
        await other.feed.poll()
        async with asyncio.timeout(30):
            while other.access.verify(token) is not None:
                await asyncio.sleep(0.01)
    finally:
        for one in (world, other):
            await one.keys.close()


async def test_a_key_nobody_told_of_is_looked_for(database: Database) -> None:
    async with KeyWorld.of(database) as world, KeyWorld.of(database) as other:
        await world.keys.rotate(now=True)
        token = world.mint()
        assert other.access.verify(token) is None
        assert (await other.access.find(token)).sub == "usr_1"


async def test_a_flood_of_unknown_key_ids_is_none_for_the_database(database: Database, monkeypatch: Any) -> None:
    """JWT-11: and good tokens pass meanwhile."""
    async with KeyWorld.of(database) as world:
        looks = 0
        read = store.read_keys

        async def counted(database: Database) -> Any:
            nonlocal looks
            looks += 1
            return await read(database)

        monkeypatch.setattr(store, "read_keys", counted)
        began = time.monotonic()
        bad = [forged("HS256", header={"kid": f"unknown-{number}"}).encode() for number in range(2_000)]
        results = await asyncio.gather(*(world.access.find(one) for one in bad), return_exceptions=True)
        assert all(isinstance(result, InvalidToken) for result in results)
        assert looks <= 2 + (time.monotonic() - began) / 0.25
        # A wrong algorithm or signature under a known id asks for nothing.
        looks, kid = 0, world.keys.signer().kid
        for one in (forged("HS256", header={"kid": kid}), forged("EdDSA", header={"kid": kid})):
            with pytest.raises(InvalidToken):
                await world.access.find(one.encode())
        assert looks == 0
        assert world.access.verify(world.mint())


async def test_what_is_stored_signs_nothing(database: Database) -> None:
    """A dump of the table holds no private key in clear, and a row moved or renamed opens no more."""
    async with KeyWorld.of(database) as world:
        (row,) = await world.rows()
        native: Any = world.keys.signer().native
        secret = native.as_dict(private=True)["d"]
        assert secret.encode() not in b"|".join(str(value).encode() for value in row) + bytes(row.sealed)
        assert secret not in repr(world.keys._keys) + repr(world.keys.signer())
        for change in ({"kid": "other"}, {"algorithm": "ES256"}, {"public": "{}"}, {"generation": 7}):
            async with database.transaction() as tx:
                await tx.execute(sa.update(store.signing_keys).values(**change))
            fresh = KeyWorld(database)
            await fresh.keys._read()
            assert fresh.keys.in_force() == []
            async with database.transaction() as tx:
                await tx.execute(sa.update(store.signing_keys).values({name: getattr(row, name) for name in change}))


async def test_another_secret_reads_the_keys_of_the_older_one(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    async with KeyWorld.of(database) as old:
        token = old.mint()
        async with KeyWorld.of(database, secret=OTHER, older=[SECRET]) as both:
            assert both.access.verify(token)
            assert len(await old.rows()) == 1
        # Without the older one, its tokens are not ours, and another key is made.
        async with KeyWorld.of(database, secret=OTHER) as new:
            assert new.access.verify(token) is None
            assert new.access.verify(new.mint())
            assert [row.generation for row in await new.rows()] == [1, 2]
            assert "another secret, or for another issuer" in caplog.text
            await old.tend()
            assert old.access.verify(old.mint())
            assert len(await new.rows()) == 2


async def test_another_algorithm_takes_over_in_time(database: Database) -> None:
    async with KeyWorld.of(database) as old:
        token = old.mint()
        async with KeyWorld.of(database, algorithm="ES256") as new:
            assert [one.key.algorithms for one, _ in new.keys.in_force()] == [("ES256",), ("EdDSA",)]
            assert new.keys.signer().algorithms == ("EdDSA",)
            # Two processes with two settings do not take turns.
            for _ in range(3):
                await old.tend()
                await new.tend()
            assert len(await new.rows()) == 2
            await new.age(AHEAD)
            assert new.keys.signer().algorithms == ("ES256",)
            await old.keys.refresh()
            assert old.access.verify(new.mint())
            assert new.access.verify(token)


async def test_known_keys_go_on_while_the_database_is_away() -> None:
    server = PostgresServer()
    try:
        database = Database(server.create(), clock=SystemClock(), settings=PATIENT)
        await database.start()
        await migrate(database)
        async with KeyWorld.of(database) as world:
            token = world.mint()
            server.kill()
            with pytest.raises(Unavailable):
                await world.keys.refresh()
            assert world.access.verify(token)
            assert world.access.verify(world.mint())
            unknown = KeyWorld(database)
            await unknown.keys.start()
            with pytest.raises(Unavailable):
                unknown.mint()
            with pytest.raises(Unavailable):
                await unknown.keys.ready()
            # Cannot tell is not no (attack AZ-16).
            with pytest.raises(Unavailable):
                await unknown.access.find(token)
            await unknown.keys.close()
        await database.close()
    finally:
        server.close()


# -- processes ---------------------------------------------------------------------------------------------------------


class Process:
    """One process of `key_world`."""

    def __init__(self, url: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.tokens.key_world", url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        assert self.read() == "ready"

    def read(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def tell(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def ask(self, line: str) -> str:
        self.tell(line)
        return self.read()


@contextmanager
def processes(url: str, count: int) -> Iterator[list[Process]]:
    made: list[Process] = []
    try:
        made.extend(Process(url) for _ in range(count))
        yield made
    finally:
        for one in made:
            one.process.kill()
            one.process.communicate()


def test_rotation_under_load_in_two_processes(database_url: str) -> None:
    """Whatever one signs the other accepts, through rotations that either asks for; revoked ones end in both."""
    with processes(database_url, 2) as (left, right):
        for turn in range(6):
            first, second = (left, right) if turn % 2 else (right, left)
            before = first.ask("mint")
            first.tell("now" if turn % 3 == 2 else "rotate")
            tokens = [second.ask("mint") for _ in range(10)]
            first.read()
            after = first.ask("mint")
            assert second.ask(f"verify {after}") == "usr_1"
            if turn % 3 == 2:
                assert first.ask(f"verify {before}") == "refused: unknown-key"
                continue
            assert [first.ask(f"verify {token}") for token in [*tokens, before]] == ["usr_1"] * 11


async def test_killed_while_rotating(database: Database, database_url: str) -> None:
    """kill -9 at any moment of a rotation: there is a key before, there is a key after, and no half of one."""
    command = [sys.executable, "-m", "tests.tokens.key_world", database_url, "8"]
    async with KeyWorld.of(database) as world:
        await asyncio.to_thread(subprocess.run, command, cwd=Path(__file__).parents[2], check=True)
        rows = await world.rows()
        assert [row.generation for row in rows] == list(range(1, len(rows) + 1))
        assert [row for row in rows if row.revoked_at is None] == rows[-1:]
        await world.keys.refresh()
        assert world.access.verify(world.mint())
        assert (await world.keys.rotate(now=True)).generation == len(rows) + 1


async def test_keys_from_before_they_had_an_issuer_go_on(database: Database) -> None:
    """SES-31: a key that is stored opens after an upgrade, and what it signed counts."""
    keys = deployment(SECRET, issuer=ISSUER)
    async with KeyWorld.of(database) as before:
        [row] = await before.rows()
        place = module._bound_to(row.generation, "old", row.algorithm, row.public)
        public = module._bound_to(row.generation, row.kid, row.algorithm, row.public)
        plain = Sealer(Purpose.SIGNING_KEYS, keys).open(row.sealed, public)
        assert plain is not None
        sealed = Sealer(Purpose.SIGNING_KEYS, Unbound(keys)).seal(plain, place)  # type: ignore[arg-type]
        async with database.transaction() as tx:
            await tx.execute(sa.update(store.signing_keys).values(kid="old", sealed=sealed))
    async with KeyWorld.of(database) as upgraded:
        assert upgraded.keys.signer().kid == "old"
        token = upgraded.mint()
        assert upgraded.access.verify(token) is not None
        following = await upgraded.keys.rotate()
        assert following.generation == row.generation + 1
        assert following.key.kid is not None
        assert following.key.kid.startswith(f"{keys.label}.")
        assert upgraded.access.verify(token) is not None
