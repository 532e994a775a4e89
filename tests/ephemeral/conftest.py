"""The two stores, and a server to have faults with."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from routeguard.foundation.ephemeral.memory import MemoryEphemeral
from routeguard.foundation.ephemeral.protocol import Ephemeral
from routeguard.foundation.ephemeral.redis import RedisEphemeral
from tests.ephemeral.server import ValkeyProcess
from tests.steady import DEADLINE


@pytest.fixture(scope="session")
def valkey() -> Iterator[ValkeyProcess]:
    server = ValkeyProcess()
    server.start()
    yield server
    server.stop()


@pytest.fixture(params=["memory", "valkey"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Ephemeral]:
    store: Ephemeral
    if request.param == "memory":
        store = MemoryEphemeral()
    else:
        server: ValkeyProcess = request.getfixturevalue("valkey")
        server.call("FLUSHALL")
        store = RedisEphemeral.from_url(server.url, deadline=DEADLINE)
    await store.start()
    yield store
    await store.close()
