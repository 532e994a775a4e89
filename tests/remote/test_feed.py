"""The feed says again what it said: an answer by a process that had not heard of it yet does not last."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from routeguard.core.clock import SystemClock
from routeguard.core.errors import Unavailable
from routeguard.remote.answers import Answers, Finding
from routeguard.remote.feed import RemoteFeed
from routeguard.remote.models import RemoteSettings
from routeguard.remote.transport import Transport
from routeguard.sessions.clock import SteadyClock
from routeguard.signatures.keys import new_secret
from tests.remote.stub import Stub
from tests.remote.world import until

pytestmark = pytest.mark.anyio

NOW = b'{"rows": [], "now": 1}'


@pytest.fixture
async def stub() -> AsyncIterator[Stub]:
    async with Stub.open() as stub:
        stub.say(NOW)
        yield stub


@pytest.fixture
async def feed(stub: Stub) -> AsyncIterator[RemoteFeed]:
    """A feed whose service is trusted for a short while, so that a test need not wait long; polled by hand."""
    clock = SteadyClock(SystemClock())
    transport = Transport(stub.url, "cli_test", new_secret(), clock=clock, settings=RemoteSettings())
    await transport.start()
    feed = RemoteFeed(transport, clock=clock, poll=1, trust=600, keep=1500)
    feed._again = [0.05, 0.3]
    yield feed
    await feed.close()
    await transport.close()


async def test_an_answer_of_a_process_that_had_not_heard_is_asked_again(stub: Stub, feed: RemoteFeed):
    """SES-18"""
    asked = 0

    async def ask() -> Finding[str]:
        nonlocal asked
        asked += 1
        return Finding("still good", ("ses_a",))

    answers: Answers[str] = Answers(clock=feed._clock, feed=feed, life=60)  # type: ignore[arg-type]
    stub.say(b'{"rows": [[7, "ses_a", 1.5]], "now": 2}')
    await feed.poll()
    await answers.get(b"key", ask)
    first = feed.stale["ses_a"]
    for again in (1, 2):
        await until(lambda again=again: feed.stale["ses_a"] >= first + again)
        await answers.get(b"key", ask)
        assert asked == again + 1
    await feed.poll()
    await answers.get(b"key", ask)
    assert asked == 3, "the same row is not news"


async def test_it_asks_from_the_number_it_knows(stub: Stub, feed: RemoteFeed):
    await feed.poll()
    assert stub.asked == ["/oauth/invalidations?window=1530"]
    stub.say(b'{"rows": [[7, "ses_a", 1.5]], "now": 2}')
    await feed.poll()
    await feed.poll()
    assert stub.asked[-1].endswith("&after=7")


@pytest.mark.parametrize(
    "body", [b"", b"{}", b'{"rows": [[1, 2, 3]]}', b'{"rows": 5}', b"<html>", b'{"rows": [[1, "a"]]}']
)
async def test_rubbish_is_an_outage(stub: Stub, feed: RemoteFeed, body: bytes):
    stub.say(body)
    with pytest.raises(Unavailable):
        await feed.poll()
    assert not feed.heard


async def test_closed_it_says_nothing_more(stub: Stub, feed: RemoteFeed):
    feed.learn("ses_a")
    tick = feed.tick
    await feed.close()
    await asyncio.sleep(0.4)
    assert feed.tick == tick
