"""Whose word counts: the service's while it answers, a token's own only while nobody does, none for another app."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from routeguard.core.clock import SteadyClock, SystemClock
from routeguard.core.errors import Unavailable
from routeguard.core.exchange import Exchange
from routeguard.core.request import RequestView
from routeguard.core.secret import digest
from routeguard.foundation.invalidation.feed import Feed, Row
from routeguard.foundation.signatures.keys import new_secret
from routeguard.identity.tokens.access import Claims
from routeguard.identity.users.models import User, public_user
from routeguard.remote.answers import Answers
from routeguard.remote.breaker import Away
from routeguard.remote.introspection import Introspector
from routeguard.remote.models import RemoteSettings
from routeguard.remote.sessions import ExpectedToken, OfflinePolicy, RemoteSessions, TokenSessions
from routeguard.remote.transport import Transport
from routeguard.remote.users import RemoteUsers
from tests.fakes import FakeClock
from tests.remote.stub import Stub

COVERS = ("remote/introspection", "remote/models", "remote/transport", "remote/users")

pytestmark = pytest.mark.anyio

TOKEN = b"aaaa.bbbb.cccc"
COOKIE = b"aaaa.bbbb"
EXCHANGE = Exchange(RequestView({"type": "http", "method": "GET", "path": "/", "headers": []}))


class Verified:
    """Stands for the check of signatures, which has tests of its own."""

    def __init__(self, claims: Claims) -> None:
        self.claims = claims

    def verify(self, token: bytes) -> Claims:
        assert token == TOKEN
        return self.claims


class Scene:
    def __init__(self, stub: Stub, clock: FakeClock) -> None:
        self.stub, self.clock = stub, clock
        steady = SteadyClock(clock)
        self.rows: list[Row] = []
        self.feed = Feed(self._read, clock=steady, poll=1, trust=4, keep=1500)
        self.transport = Transport(
            stub.url,
            "cli_test",
            new_secret(),
            clock=SystemClock(),
            settings=RemoteSettings(timeout=timedelta(seconds=30)),
        )
        self.introspector = Introspector(self.transport, timeout=30)
        self.answers: Answers[Any] = Answers(clock=steady, feed=self.feed, life=60)
        users = RemoteUsers(User)
        self.sessions = RemoteSessions(
            self.introspector,
            users,
            answers=self.answers,
            expected=ExpectedToken("https://app.test", "https://id.test"),
        )
        now = int(clock.time())
        self.user = User(id="usr_a", created_at=clock.now(), email="ann@example.test", name="Ann")
        self.worth = {
            "active": True,
            "token_type": "access_token",
            "sub": "usr_a",
            "sid": "ses_a",
            "auth_time": now,
            "aud": "https://app.test",
            "iss": "https://id.test",
            "user": public_user(self.user),
            "created_at": clock.now(),
            "expires_at": "2999-01-01T00:00:00Z",
        }
        claims = Claims(
            iss="https://id.test",
            sub="usr_a",
            aud="https://app.test",
            client_id="x",
            iat=now,
            exp=now + 900,
            jti="jti_a",
            sid="ses_a",
            auth_time=now,
            session_created_at=now,
            session_expires_at=now + 9000,
            user=json.loads(encoded(public_user(self.user))),
        )
        self.tokens: TokenSessions[Any] = TokenSessions(
            Verified(claims),
            None,
            users,
            sessions=self.sessions,  # type: ignore[arg-type]
            feed=self.feed,
            clock=steady,
            policy=OfflinePolicy(1000, 900),
        )

    async def _read(self, *, window: float, after_id: int) -> list[Row]:
        assert window > 0 <= after_id
        return self.rows

    def say(self, **other: Any) -> None:
        self.stub.say(encoded(self.worth | other))

    async def find(self) -> Any:
        return await self.tokens.find(EXCHANGE, TOKEN)


def encoded(value: Any) -> bytes:
    return msgspec.json.encode(value)


@pytest.fixture
async def scene(clock: FakeClock) -> AsyncIterator[Scene]:
    async with Stub.open() as stub:
        scene = Scene(stub, clock)
        await scene.transport.start()
        await scene.feed.poll()
        scene.say()
        yield scene
        await scene.answers.close()
        await scene.transport.close()


async def test_while_the_feed_is_heard_a_token_speaks_for_itself(scene: Scene):
    assert (await scene.find()).id == "ses_a"
    assert scene.stub.asked == []


async def test_without_a_feed_a_service_that_answers_is_asked(scene: Scene):
    """SES-18"""
    scene.clock.advance(5)
    assert (await scene.find()).id == "ses_a"
    assert scene.stub.asked == ["/oauth/introspect"]
    scene.stub.say(b'{"active": false}')
    assert await scene.find() is None


@pytest.mark.parametrize("status", ["401 Unauthorized", "429 Too Many Requests", "500 Internal Server Error"])
async def test_a_service_that_is_there_and_does_not_tell_is_503(scene: Scene, status: str):
    """SES-18 AZ-16"""
    scene.clock.advance(5)
    scene.stub.say(b"{}", status)
    for _ in range(5):
        with pytest.raises(Unavailable):
            await scene.find()
    assert not scene.transport.breaker.open


@pytest.mark.parametrize("harm", ["502 Bad Gateway", "503 Service Unavailable", "504 Gateway Timeout", "gone"])
async def test_while_nobody_can_be_reached_it_goes_on_for_as_long_as_is_set(scene: Scene, harm: str):
    """SES-18"""
    scene.clock.advance(5)
    if harm == "gone":
        await scene.stub.close()
    else:
        scene.stub.say(b"", harm)
    for _ in range(5):
        assert (await scene.find()).id == "ses_a"
    assert scene.transport.breaker.open
    scene.feed.learn("ses_a")
    with pytest.raises(Unavailable):
        await scene.find()


async def test_it_does_not_outlive_what_is_set(scene: Scene):
    """SES-18"""
    scene.stub.say(b"", "503 Service Unavailable")
    scene.clock.advance(4 + 901)
    with pytest.raises(Away):
        await scene.find()


@pytest.mark.parametrize(
    "told",
    [
        {"aud": "https://another.test"},
        {"aud": ""},
        {"iss": "https://another.test"},
        {"iss": ""},
        {"token_type": "api_key"},
        {"token_type": ""},
    ],
)
async def test_a_token_for_another_app_is_refused_whatever_the_service_vouches(scene: Scene, told: dict[str, Any]):
    """JWT-21"""
    assert (await scene.sessions.find(TOKEN)).id == "ses_a"  # type: ignore[union-attr]
    scene.say(**told)
    assert await scene.sessions.find(b"x.y.z") is None


async def test_a_cookie_is_for_nobody_in_particular(scene: Scene):
    scene.say(token_type="session", aud="", iss="")
    assert (await scene.sessions.find(COOKIE)).id == "ses_a"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "body",
    [
        b"\xff",
        b'{"active": true, "sub": "\xff"}',
        b'{"active": true, "user": ' + b'{"a":' * 60_000,
        b'{"active": true, "organization": ' + b"[" * 60_000,
        b'{"active": true, "organization": [1]}',
        b'{"active": true, "auth_time": 99999999999999999}',
        b'{"active": true, "auth_time": -1}',
        b'{"active": false, "retry_after": 1' + b"0" * 6000 + b"}",
    ],
)
async def test_an_answer_that_is_none_is_503(scene: Scene, body: bytes):
    """AZ-16"""
    scene.stub.say(body)
    with pytest.raises(Unavailable):
        await scene.sessions.find(COOKIE)
    assert not scene.transport.breaker.open


async def test_that_our_calls_are_refused_is_told_once_each_time(scene: Scene, caplog: pytest.LogCaptureFixture):
    def told() -> int:
        return sum("refuses our calls" in one.getMessage() for one in caplog.records)

    caplog.set_level(logging.ERROR, "routeguard.remote")
    for expected in (1, 2):
        scene.stub.say(b"{}", "401 Unauthorized")
        for _ in range(3):
            with pytest.raises(Unavailable):
                await scene.introspector.ask("x")
        assert told() == expected
        scene.say()
        await scene.introspector.ask("x")


async def test_who_makes_up_credentials_does_not_take_all_turns(scene: Scene):
    """RL-16"""
    scene.say(token_type="session")
    assert await scene.sessions.find(COOKIE) is not None
    scene.feed.learn("ses_a")
    assert scene.answers.was_good(digest(COOKIE))
    scene.stub.asked.clear()
    scene.stub.held = asyncio.Event()
    crowd = [asyncio.ensure_future(scene.sessions.find(b"made.up%d" % number)) for number in range(40)]
    while len(scene.stub.asked) < 12:
        await asyncio.sleep(0.01)
    assert scene.introspector._for_strangers.locked()
    assert not scene.introspector._turns.locked()
    before = len(scene.stub.asked)
    one = asyncio.ensure_future(scene.sessions.find(COOKIE))
    while len(scene.stub.asked) == before:
        await asyncio.sleep(0.01)
    scene.stub.held.set()
    assert await one is not None
    for task in crowd:
        task.cancel()
    await asyncio.gather(*crowd, return_exceptions=True)


@pytest.mark.parametrize("polled", [True, False])
async def test_a_token_revoked_while_the_machine_was_suspended(scene: Scene, polled: bool):
    """SES-18: its own word does not do for a time in which nothing was heard."""
    assert (await scene.find()).id == "ses_a"
    scene.stub.say(b'{"active": false}')
    scene.clock.step(800)
    if polled:
        scene.rows = [(1, "ses_a", scene.clock.time() - 700)]
        await scene.feed.poll()
    assert await scene.find() is None
