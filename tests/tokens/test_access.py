"""Access tokens: what is in them, whose they are, and what is remembered of them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from routeguard.core.clock import SteadyClock
from routeguard.foundation.db.database import Database
from routeguard.foundation.jose.jws import sign_jws
from routeguard.identity.sessions.by_id import SessionsById, proof_time
from routeguard.identity.tokens import access
from routeguard.identity.users.models import User, UserId
from tests.fakes import FakeClock
from tests.sessions.world import World
from tests.tokens.forge import unb64
from tests.tokens.key_world import ISSUER, KeyWorld, session

pytestmark = pytest.mark.anyio


async def test_what_is_in_it(database: Database) -> None:
    """RFC 9068 section 2.2, and for services that keep no users what `public_user` shows."""
    clock = FakeClock()
    async with KeyWorld.of(database, clock=clock) as world:
        header, payload, _ = world.mint().decode().split(".")
        assert json.loads(unb64(header)) == {"alg": "EdDSA", "kid": world.keys.signer().kid, "typ": "at+jwt"}
        found = json.loads(unb64(payload))
        jti = found.pop("jti")
        now = int(clock.time())
        created = found["user"].pop("created_at")
        assert datetime.fromisoformat(created) == datetime.fromtimestamp(clock.time(), UTC)
        assert found == {
            "iss": ISSUER,
            "aud": ISSUER,
            "sub": "usr_1",
            "sid": "ses_1",
            "client_id": "test",
            "iat": now,
            "exp": now + 900,
            "auth_time": now,
            "acr": "aal1",
            "amr": [],
            "session_created_at": clock.time(),
            "session_authenticated_at": clock.time(),
            "session_expires_at": clock.time() + 86400,
            "user": {
                "id": "usr_1",
                "name": "Ada",
                "email": "ada@example.com",
                "email_verified": False,
                "image": None,
                "role": "user",
            },
        }
        again = world.access.verify(world.mint())
        assert again is not None
        assert again.jti != jti
        assert "ada@" not in repr(again)


async def test_an_audience_of_ones_own(database: Database) -> None:
    async with KeyWorld.of(database, audience="https://api.example.com") as world:
        found = world.access.verify(world.mint())
        assert found is not None
        assert found.aud == "https://api.example.com"
        async with KeyWorld.of(database) as other:
            assert other.access.verify(world.mint()) is None


async def test_it_ends_with_the_session(database: Database) -> None:
    clock = FakeClock()
    async with KeyWorld.of(database, clock=clock) as world:
        end = datetime.fromtimestamp(clock.time() + 30, UTC)
        token = world.mint(expires_at=end)
        assert world.access.verify(token)
        clock.advance(31)
        assert world.access.verify(token) is None


async def test_it_expires_also_where_it_is_remembered(database: Database) -> None:
    clock = FakeClock()
    async with KeyWorld.of(database, clock=clock) as world:
        token = world.mint()
        assert world.access.verify(token)
        clock.advance(899)
        assert world.access.verify(token)
        clock.advance(1)
        assert world.access.verify(token) is None
        # A clock that goes back revives nothing (attack SES-27).
        clock.step(-3600)
        assert world.access.verify(token) is None


async def test_what_is_remembered_is_bounded(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "_CAPACITY", 10)
    async with KeyWorld.of(database) as world:
        tokens = [world.mint() for _ in range(30)]
        for token in tokens * 2:
            assert world.access.verify(token)
        assert len(world.access._known) <= 10
        # Neither the token nor what is wrong with it is kept.
        signed, _, signature = tokens[0].rpartition(b".")
        assert world.access.verify(signed + b"." + b"A" * len(signature)) is None
        assert not any(token in repr(world.access._known).encode() for token in tokens)


@pytest.mark.parametrize("lacking", ["sub", "sid", "client_id", "jti", "iat", "auth_time", "iss", "aud"])
async def test_ours_says_everything(database: Database, lacking: str) -> None:
    """Signed with our own key, and still no access token: another part of us may sign other things one day."""
    async with KeyWorld.of(database) as world:
        payload = json.loads(unb64(world.mint().decode().split(".")[1]))
        whole = sign_jws({"typ": "at+jwt"}, json.dumps(payload).encode(), world.keys.signer())
        assert world.access.verify(whole.encode())
        del payload[lacking]
        part = sign_jws({"typ": "at+jwt"}, json.dumps(payload).encode(), world.keys.signer())
        assert world.access.verify(part.encode()) is None
        # Attack JWT-20: another type by the same key.
        for typ in ("JWT", "refresh+jwt", "email+jwt"):
            other = sign_jws({"typ": typ}, unb64(whole.split(".")[1]), world.keys.signer())
            assert world.access.verify(other.encode()) is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Staff(User):
    """Has a field for all to see and one for nobody."""

    plan: str = field(default="free", metadata={"public": True})
    note: str = "watch him"


async def test_only_what_a_user_may_see_is_in_it(database: Database) -> None:
    async with KeyWorld.of(database) as world:
        at = datetime.now(UTC)
        user = Staff(id=UserId("usr_2"), email="a@example.com", created_at=at, plan="pro", note="owes us money")
        short: Any = session(world.clock.time())
        told = world.access.mint(replace(short, user=user), client_id="test")
        payload = unb64(told.split(".")[1])
        assert b"owes us" not in payload
        assert json.loads(payload)["user"]["plan"] == "pro"
        # Too long for a header field: then whoever wants to know asks.
        long = Staff(id=UserId("usr_2"), email="a@example.com", created_at=at, plan="p" * 3000)
        found = world.access.verify(world.access.mint(replace(short, user=long), client_id="test").encode())
        assert found is not None
        assert found.user is None
        without = world.access.verify(world.access.mint(short, client_id="test", include_user=False).encode())
        assert without is not None
        assert without.user is None


# -- the session it names ----------------------------------------------------------------------------------------------


def by_id(world: World) -> SessionsById[User]:
    return SessionsById(
        world.database,
        world.users.reader,
        clock=SteadyClock(world.clock),
        settings=world.settings,
        invalidations=world.feed,
    )


async def test_a_session_by_its_id(database: Database) -> None:
    async with World.open(database) as world:
        user, other = await world.user(), await world.user()
        own = (await world.sign_in(user)).session
        current = await own()
        sessions = by_id(world)
        assert await sessions.find(user.id, current.id, proven_at=proof_time(current)) == current
        for user_id, session_id in ((other.id, current.id), (user.id, "ses_none"), ("", ""), ("usr_none", current.id)):
            assert await sessions.find(user_id, session_id, proven_at=proof_time(current)) is None
        # From memory: the row is gone, and nobody said so.
        await world.delete_rows_behind_its_back()
        assert await sessions.find(user.id, current.id, proven_at=proof_time(current)) == current
        assert await by_id(world).find(user.id, current.id, proven_at=proof_time(current)) is None
        # Not without news of what was revoked, and not for long (attack SES-18).
        world.clock.advance(4.5)
        assert await sessions.find(user.id, current.id, proven_at=proof_time(current)) is None


async def test_its_end_is_known_here_at_once_and_elsewhere_soon(database: Database) -> None:
    """SES-18"""
    async with World.open(database) as world, world.another() as other:
        user = await world.user()
        current = await (await world.sign_in(user)).session()
        here, there = by_id(world), by_id(other)
        assert await here.find(user.id, current.id, proven_at=proof_time(current))
        assert await there.find(user.id, current.id, proven_at=proof_time(current))
        async with database.transaction() as tx:
            await world.sessions.revoke(tx, user.id, current.id)
        assert await here.find(user.id, current.id, proven_at=proof_time(current)) is None
        await other.feed.poll()
        assert await there.find(user.id, current.id, proven_at=proof_time(current)) is None


async def test_the_user_is_as_he_is_now(database: Database) -> None:
    async with World.open(database) as world:
        user = await world.user()
        await world.user(role="admin")
        current = await (await world.sign_in(user)).session()
        sessions = by_id(world)
        assert await sessions.find(user.id, current.id, proven_at=proof_time(current))
        await world.set_role(user, "moderator")
        found = await sessions.find(user.id, current.id, proven_at=proof_time(current))
        assert found is not None
        assert found.user.role == "moderator"
        await world.suspend(user)
        assert await sessions.find(user.id, current.id, proven_at=proof_time(current)) is None


async def test_a_use_is_noted_and_an_unused_one_ends(database: Database) -> None:
    async with World.open(database) as world:
        user = await world.user()
        current = await (await world.sign_in(user)).session()
        sessions = by_id(world)
        idle = world.settings.idle.total_seconds()
        for _ in range(3):
            await world.wait(idle * 0.6)
            assert await sessions.find(user.id, current.id, proven_at=proof_time(current))
        (row,) = await world.rows()
        assert row.last_seen_at == world.clock.time()
        await world.wait(idle + 1)
        assert await sessions.find(user.id, current.id, proven_at=proof_time(current)) is None
        assert await world.rows() == []


@pytest.mark.parametrize("polled", [True, False])
async def test_its_end_while_the_machine_was_suspended(database: Database, polled: bool) -> None:
    """SES-18"""
    async with World.open(database) as world, world.another() as other:
        user = await world.user()
        current = await (await world.sign_in(user)).session()
        sessions = by_id(world)
        assert await sessions.find(user.id, current.id, proven_at=proof_time(current))
        async with database.transaction() as tx:
            await other.sessions.revoke(tx, user.id, current.id)
        await world.suspend_machine(polled=polled)
        assert await sessions.find(user.id, current.id, proven_at=proof_time(current)) is None


@pytest.mark.parametrize("step", [0.0, 0.4, -5.0])
async def test_a_token_from_before_a_later_proof_in_the_same_second(database: Database, step: float) -> None:
    """SES-02: also where the clock stands still, or was put back, between the two."""
    async with World.open(database) as world:
        user = await world.user()
        browser = await world.sign_in(user)
        before, sessions = await browser.session(), by_id(world)
        assert await sessions.find(user.id, before.id, proven_at=proof_time(before))
        world.clock.advance(max(step, 0.0))
        world.clock.step(min(step, 0.0))
        exchange = browser.exchange()
        async with database.transaction() as tx:
            after = await world.sessions.rotate(tx, exchange, amr=("pwd",))
        assert after.id == before.id
        for process in (sessions, by_id(world)):
            assert await process.find(user.id, before.id, proven_at=proof_time(before)) is None
            assert await process.find(user.id, after.id, proven_at=proof_time(after)) is not None
        async with database.transaction() as tx:
            given = {"reason": "test", "whole_seconds": False}
            assert not await world.sessions.revoke_proven(tx, user.id, before.id, proven_at=proof_time(before), **given)
            assert await world.sessions.revoke_proven(tx, user.id, after.id, proven_at=proof_time(after), **given)


async def test_a_token_says_to_the_microsecond_when_its_user_proved_it(database: Database) -> None:
    async with KeyWorld.of(database) as world:
        at = datetime.fromtimestamp(int(world.clock.time()) - 60, UTC)
        found = []
        for later in (0, 1, 999_999):
            claims = world.access.verify(world.mint(authenticated_at=at + timedelta(microseconds=later)))
            assert claims is not None
            assert not claims.whole_seconds
            assert claims.auth_time == int(at.timestamp())
            found.append(claims.proven_at)
        assert len(set(found)) == 3
        old = msgspec.structs.replace(claims, session_authenticated_at=0.0)
        assert (old.proven_at, old.whole_seconds) == (claims.auth_time, True)


async def test_a_token_that_was_seen_does_not_outlive_its_key(database: Database) -> None:
    async with KeyWorld.of(database) as world:
        token = world.mint()
        assert world.access.verify(token) is not None
        # Its end comes with time, and nothing tells of it: the keys and their epoch stay as they are.
        world.keys._keys = tuple(key._replace(until=world.keys._now()) for key in world.keys._keys)
        assert world.access.verify(token) is None
