"""Claims whose outcome nobody knows do not outlive the outage (attack OPS-04)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from routeguard.core.errors import Unavailable
from routeguard.foundation.ephemeral.redis import RedisEphemeral
from routeguard.protection.traffic.leases import Leases
from tests.ephemeral.server import ValkeyProcess

pytestmark = pytest.mark.anyio

LONG = 600.0


@pytest.fixture
def server() -> Iterator[ValkeyProcess]:
    server = ValkeyProcess()
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def store(server: ValkeyProcess) -> AsyncIterator[RedisEphemeral]:
    store = RedisEphemeral.from_url(server.url, deadline=1)
    await store.start()
    yield store
    await store.close()


async def is_free(store: RedisEphemeral, key: str) -> None:
    """Wait until a key is gone."""
    while True:
        try:
            if await store.get(key) is None:
                return
        except Unavailable:
            pass
        await asyncio.sleep(0.02)


async def test_one_holder_until_given_back(store: RedisEphemeral) -> None:
    leases = Leases(store)
    assert await leases.claim("k", b"a", ttl=LONG) is None
    assert await leases.claim("k", b"b", ttl=LONG) == b"a"
    await leases.release("k", b"b", ttl=LONG)
    assert await store.get("k") == b"a"
    await leases.release("k", b"a", ttl=LONG)
    assert await store.get("k") is None


async def test_a_claim_carried_out_after_the_thaw_is_given_back(server: ValkeyProcess, store: RedisEphemeral) -> None:
    """The unguarded twin first: asked directly, the frozen server keeps what it was sent."""
    leases = Leases(store)
    server.freeze()
    with pytest.raises(Unavailable):
        await asyncio.gather(store.claim("direct", b"a", ttl=LONG), leases.claim("leased", b"a", ttl=LONG))
    server.thaw()
    await is_free(store, "leased")
    assert await store.get("direct") == b"a"


async def test_a_claim_of_somebody_who_left_is_given_back(server: ValkeyProcess, store: RedisEphemeral) -> None:
    leases = Leases(store)
    server.freeze()
    caller = asyncio.create_task(leases.claim("k", b"a", ttl=LONG))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    server.thaw()
    await is_free(store, "k")


async def test_what_cannot_be_given_back_now_is_later(server: ValkeyProcess, store: RedisEphemeral) -> None:
    leases = Leases(store)
    assert await leases.claim("k", b"a", ttl=LONG) is None
    server.freeze()
    await leases.release("k", b"a", ttl=LONG)
    server.thaw()
    await is_free(store, "k")


async def test_another_s_claim_is_left_alone(server: ValkeyProcess, store: RedisEphemeral) -> None:
    leases = Leases(store)
    assert await leases.claim("theirs", b"b", ttl=LONG) is None
    server.freeze()
    with pytest.raises(Unavailable):
        await leases.claim("theirs", b"a", ttl=LONG)
    with pytest.raises(Unavailable):
        await leases.claim("mine", b"a", ttl=LONG)
    server.thaw()
    await is_free(store, "mine")
    assert await store.get("theirs") == b"b"
