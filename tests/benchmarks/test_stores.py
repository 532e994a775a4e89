"""What a guarded request asks of the stores, counted by the stores. No timing: that is for `benchmarks.guard`."""

from __future__ import annotations

from functools import partial

import anyio
import pytest

from benchmarks.apps import fastapi_app, running, session_and_limit
from benchmarks.harness import BROWSER, call
from benchmarks.stores import monitored
from routeguard.foundation.ephemeral.redis import RedisEphemeral
from tests.backends import ValkeyServer
from tests.steady import DEADLINE

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is asked is counted here, and not how long a busy machine takes for it."""
    monkeypatch.setattr(RedisEphemeral, "from_url", partial(RedisEphemeral.from_url, deadline=DEADLINE))


@pytest.mark.parametrize("wide", [1, 16])
async def test_a_session_and_a_limit_are_one_command(valkey_server: ValkeyServer, valkey_url: str, wide: int) -> None:
    url = valkey_url.replace("redis:", "valkey:")
    async with running(fastapi_app, session_and_limit, ephemeral_url=url) as ours:
        headers = [*BROWSER, (b"cookie", ours.cookie)]
        statuses: list[int] = []

        async def some() -> None:
            for _ in range(32 // wide):
                status, _ = await call(ours.app, "GET", "/x", headers)
                statuses.append(status)

        with monitored(valkey_server.port) as commands:
            async with anyio.create_task_group() as group:
                for _ in range(wide):
                    group.start_soon(some)
        assert statuses == [200] * 32
        assert commands == ["EVALSHA"] * 32


async def test_an_anonymous_request_asks_nothing(valkey_server: ValkeyServer, valkey_url: str) -> None:
    async with running(fastapi_app, session_and_limit, ephemeral_url=valkey_url) as ours:
        with monitored(valkey_server.port) as commands:
            status, _ = await call(ours.app, "GET", "/x", BROWSER)
        assert status == 401
        assert commands == []
