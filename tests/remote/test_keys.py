"""The service's keys: fetched narrowly, kept through whatever comes in their place."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from joserfc.jwk import OKPKey

from routeguard.core.errors import Unavailable
from routeguard.foundation.invalidation.feed import Feed, Row
from routeguard.foundation.signatures.keys import new_secret
from routeguard.remote.keys import SUBJECT, RemoteKeys
from routeguard.remote.models import RemoteSettings
from routeguard.remote.transport import Transport
from tests.fakes import FakeClock
from tests.remote.stub import Stub

pytestmark = pytest.mark.anyio


def jwk(kid: str) -> dict[str, Any]:
    return {**OKPKey.generate_key("Ed25519").as_dict(private=False), "kid": kid, "alg": "EdDSA", "use": "sig"}


def jwks(*keys: Any) -> bytes:
    return json.dumps({"keys": list(keys)}).encode()


async def _nothing(**_: Any) -> list[Row]:
    return []


class Scene:
    def __init__(self, stub: Stub, transport: Transport, clock: FakeClock) -> None:
        self.stub, self.transport, self.clock = stub, transport, clock
        self.feed = Feed(_nothing, clock=clock, poll=1, trust=4, keep=1500)
        self.keys = RemoteKeys(transport, clock=clock, feed=self.feed)

    async def refreshed(self) -> str:
        try:
            await self.keys.refresh()
        except Unavailable:
            return "cannot tell"
        return "asked"


@pytest.fixture
async def scene(clock: FakeClock) -> AsyncIterator[Scene]:
    async with Stub.open() as stub:
        transport = Transport(stub.url, "cli_test", new_secret(), clock=clock, settings=RemoteSettings())
        await transport.start()
        yield Scene(stub, transport, clock)
        await transport.close()


async def test_a_flood_of_unknown_ids_is_one_fetch_per_cool_down(scene: Scene):
    """JWT-11"""
    scene.stub.say(jwks(jwk("a")))
    assert await scene.refreshed() == "asked"
    assert scene.keys.find("a") is not None
    for _ in range(200):
        assert await scene.refreshed() == "asked"
        assert scene.keys.find("b") is None
    assert len(scene.stub.asked) == 1
    scene.clock.advance(31)
    scene.stub.say(jwks(jwk("a"), jwk("b")))
    for _ in range(200):
        await scene.refreshed()
    assert len(scene.stub.asked) == 2
    assert scene.keys.find("b") is not None


RUBBISH = {
    "empty set": (b'{"keys": []}', "200 OK"),
    "no set": (b'{"keys": 1}', "200 OK"),
    "a page": (b"<html>", "200 OK"),
    "nothing": (b"", "200 OK"),
    "secrets": (
        b'{"keys": [{"kty": "oct", "kid": "a", "k": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0MTIzNDU"}]}',
        "200 OK",
    ),
    "too long": (b'{"keys": [' + b" " * 100_000 + b"]}", "200 OK"),
    "broken": (b"", "500 Internal Server Error"),
    "not there": (b"", "404 Not Found"),
    "twice": (b'{"keys": [], "keys": []}', "200 OK"),
}


@pytest.mark.parametrize("name", RUBBISH)
async def test_rubbish_leaves_the_keys_of_before_and_the_cool_down(scene: Scene, name: str):
    """JWT-12"""
    first = jwk("a")
    scene.stub.say(jwks(first))
    await scene.keys.refresh()
    scene.clock.advance(31)
    scene.stub.say(*RUBBISH[name])
    epoch = scene.keys.epoch
    for _ in range(50):
        assert await scene.refreshed() == "cannot tell"
        assert scene.keys.find("a") is not None
    assert scene.keys.epoch == epoch
    assert len(scene.stub.asked) == 2


BAD_KEYS: list[dict[str, Any]] = [
    {"kty": "RSA", "kid": "x", "n": None, "e": "AQAB"},
    {"kty": "RSA", "kid": "x", "n": 5, "e": "AQAB"},
    {"kty": "OKP", "crv": "Ed25519", "x": "AAAA", "kid": "x", "alg": ["EdDSA"]},
    {"kty": "EC", "crv": ["P-256"], "x": 5, "y": {}, "kid": "x"},
    {"kty": "EC", "kid": "x", "key_ops": [[]]},
]


@pytest.mark.parametrize("bad", BAD_KEYS, ids=repr)
async def test_a_key_that_is_none_beside_good_ones_is_left_out(scene: Scene, bad: dict[str, Any]):
    """JWT-12: and no member of any type ends the task that looks after the keys."""
    scene.stub.say(jwks(bad))
    await scene.keys.start()
    try:
        # Nothing but that one: as unreadable as a proxy's page, at start-up too.
        assert scene.keys.find("x") is None
        assert not scene.keys.none_published
        scene.stub.say(jwks(bad, jwk("good"), bad))
        await _until(lambda: scene.keys.find("good") is not None)
        scene.stub.say(jwks(jwk("good"), jwk("better")))
        scene.feed.learn(SUBJECT)
        await _until(lambda: scene.keys.find("better") is not None)
        assert scene.keys.find("x") is None
    finally:
        await scene.keys.close()


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not holds():
            await asyncio.sleep(0.01)


async def test_a_redirect_is_not_followed(scene: Scene):
    async with Stub.open() as elsewhere:
        elsewhere.say(jwks(jwk("evil")))
        scene.stub.say(b"", "302 Found", f"location: {elsewhere.url}/.well-known/jwks.json")
        assert await scene.refreshed() == "cannot tell"
        assert elsewhere.asked == []
    assert scene.keys.find("evil") is None


async def test_keys_that_changed_count_no_more_until_they_are_fetched(scene: Scene):
    scene.stub.say(jwks(jwk("stolen"), jwk("good")))
    await scene.keys.refresh()
    epoch = scene.keys.epoch
    scene.stub.say(b"", "500 Internal Server Error")
    scene.feed.learn(SUBJECT)
    assert scene.keys.find("stolen") is scene.keys.find("good") is None
    assert scene.keys.epoch > epoch
    scene.clock.advance(1)
    assert await scene.refreshed() == "cannot tell"
    # However long that lasts: what the feed has forgotten, this has not.
    scene.clock.advance(10_000)
    await scene.feed.poll()
    assert scene.keys.find("stolen") is None
    scene.stub.say(jwks(jwk("good")))
    await scene.keys.refresh()
    assert scene.keys.find("stolen") is None
    assert scene.keys.find("good") is not None


async def test_a_fetch_that_began_before_the_change_does_not_settle_it(scene: Scene):
    scene.stub.say(jwks(jwk("stolen")))
    scene.stub.held = asyncio.Event()
    fetching = asyncio.ensure_future(scene.keys.refresh())
    while not scene.stub.asked:
        await asyncio.sleep(0.01)
    scene.feed.learn(SUBJECT)
    scene.stub.held.set()
    await fetching
    assert scene.keys.find("stolen") is None


async def test_many_who_wait_are_one_fetch(scene: Scene):
    scene.stub.say(jwks(jwk("a")))
    await asyncio.gather(*(scene.keys.refresh() for _ in range(100)))
    assert len(scene.stub.asked) == 1


async def test_it_signs_nothing(scene: Scene):
    with pytest.raises(Unavailable):
        scene.keys.signer()
