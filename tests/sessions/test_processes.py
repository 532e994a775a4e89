"""Several processes over one database."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

import pytest

from routeguard.core.clock import SystemClock
from routeguard.identity.sessions.models import SessionSettings
from tests.sessions.world import World

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(240)]


async def test_processes_see_each_other_s_revocations_within_5_seconds(world: World, database_url: str) -> None:
    """SES-17, SES-18: two real processes with warm caches; one signs out, the other two find out."""
    here = World(world.database, SystemClock(), SessionSettings())  # type: ignore[arg-type]
    await here.feed.poll()
    browser = await here.sign_in(await here.user())
    assert browser.cookie is not None
    command = [sys.executable, "-m", "tests.sessions.replica", database_url, browser.cookie]
    others = [
        await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[2])
        for _ in range(2)
    ]
    try:
        for other in others:
            assert other.stdout is not None
            assert await asyncio.wait_for(other.stdout.readline(), 60) == b"alive\n"
        await asyncio.sleep(0.5)
        await here.sessions.sign_out(browser.exchange())
        signed_out_at = time.time()
        for other in others:
            assert other.stdout is not None
            word, _, at = (await asyncio.wait_for(other.stdout.readline(), 60)).decode().partition(" ")
            assert word == "ended"
            # It takes half a second: the rest is for a busy machine. By itself the envelope would end after a minute.
            assert float(at) - signed_out_at < 45
            assert await other.wait() == 0
    finally:
        for other in others:
            if other.returncode is None:
                other.kill()
