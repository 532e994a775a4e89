"""The feed says again what it said: an answer by a process that had not heard of it yet does not last."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from routeguard.core.clock import SteadyClock, SystemClock
from routeguard.core.errors import Unavailable
from routeguard.foundation.invalidation.feed import Feed, Row
from routeguard.foundation.signatures.keys import new_secret
from routeguard.remote.answers import Answers, Finding
from routeguard.remote.breaker import Away
from routeguard.remote.feed import RemoteFeed
from routeguard.remote.models import RemoteSettings
from routeguard.remote.transport import Transport
from tests.fakes import FakeClock
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
    feed = RemoteFeed(transport, clock=clock, poll=0.01, trust=600, keep=1500)
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


async def test_closed_it_says_nothing_more(feed: RemoteFeed):
    feed.learn("ses_a")
    timers = tuple(feed._timers)
    assert len(timers) == len(feed._again)
    await feed.close()
    assert not feed._timers
    assert all(timer.cancelled() for timer in timers)


@pytest.mark.parametrize(
    "body",
    [
        b'{"rows": [[1, "\xff", 1.0]]}',
        b'{"rows": ' + b"[" * 100_000,
        b"\xff",
        b'{"rows": [[1e400, "a", 1.0]]}',
        b'{"rows": [[' + b"9" * 5000 + b', "a", 1.0]]}',
        b'{"rows": [[9223372036854775808, "a", 1.0]]}',
    ],
)
async def test_no_answer_ends_the_polling(stub: Stub, feed: RemoteFeed, body: bytes):
    """SES-18"""
    stub.say(body)
    await feed.start()
    asked = len(stub.asked)
    await until(lambda: len(stub.asked) > asked + 2)
    with pytest.raises(Unavailable):
        await feed.poll()
    stub.say(b'{"rows": [[7, "ses_a", 1.5]], "now": 2}')
    await until(lambda: "ses_a" in feed.stale)


async def test_nothing_at_all_ends_the_polling_and_each_outage_is_told_once(
    feed: RemoteFeed, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """SES-18"""
    broken, polled = True, 0
    read = feed._read

    async def reads(*, window: float, after_id: int) -> list[Row]:
        nonlocal polled
        polled += 1
        if broken:
            raise LookupError("a mistake of ours")
        return await read(window=window, after_id=after_id)

    def told() -> list[str]:
        return [one.getMessage() for one in caplog.records if one.name == "routeguard.sessions"]

    monkeypatch.setattr(feed, "_read", reads)
    await feed.start()
    await until(lambda: polled > 3)
    assert len(told()) == 1
    assert "cookie" not in told()[0]
    broken = False
    await until(lambda: feed.heard)
    broken, polled = True, 0
    await until(lambda: polled > 3)
    assert len(told()) == 2


async def test_it_reads_page_after_page(stub: Stub, feed: RemoteFeed):
    """SES-18"""
    pages = [b'{"rows": [[5, "ses_a", 1.5], [7, "ses_b", 1.5]], "more": true}', b'{"rows": [[9, "ses_c", 1.5]]}']
    stub.script = [pages[0], pages[1]]
    await feed.poll()
    assert {"ses_a", "ses_b", "ses_c"} <= feed.stale.keys()
    assert stub.asked == ["/oauth/invalidations?window=1530", "/oauth/invalidations?window=1530&beyond=7"]


@pytest.mark.parametrize("rows", [b"[]", b'[[5, "ses_a", 1.5]]'])
async def test_a_feed_that_goes_round_in_circles_is_an_outage(stub: Stub, feed: RemoteFeed, rows: bytes):
    stub.say(b'{"rows": ' + rows + b', "more": true}')
    with pytest.raises(Unavailable):
        await feed.poll()
    assert not feed.heard
    assert len(stub.asked) <= 2


async def test_a_gap_longer_than_the_feed_reaches_makes_everything_stale(clock: FakeClock):
    """SES-18 WS-05"""

    async def nothing(*, window: float, after_id: int) -> list[Row]:
        assert window > after_id
        return []

    feed = Feed(nothing, clock=clock, poll=1, trust=4, keep=100)
    woken: list[str] = []
    feed.listen("ses_a", lambda: woken.append("ses_a"))
    feed.listen("usr_b", lambda: woken.append("usr_b"))
    await feed.poll()
    clock.advance(99)
    await feed.poll()
    assert (woken, feed.floor) == ([], 0)
    answers: Answers[str] = Answers(clock=SteadyClock(clock), feed=feed, life=1000)
    asked = 0

    async def ask() -> Finding[str]:
        nonlocal asked
        asked += 1
        return Finding("good", ("ses_a",))

    for _ in range(2):
        await answers.get(b"key", ask)
    assert asked == 1
    clock.advance(101)
    await feed.poll()
    assert sorted(woken) == ["ses_a", "usr_b"]
    for _ in range(2):
        await answers.get(b"key", ask)
    assert asked == 2


@pytest.mark.parametrize("status", ["401 Unauthorized", "429 Too Many Requests", "500 Internal Server Error"])
async def test_a_feed_that_is_refused_closes_no_other_way(stub: Stub, feed: RemoteFeed, status: str):
    """SES-18"""
    stub.say(b"{}", status)
    for _ in range(5):
        with pytest.raises(Unavailable) as caught:
            await feed.poll()
        assert not isinstance(caught.value, Away)
    transport: Transport = feed._read._transport  # type: ignore[attr-defined]
    assert not transport.breaker.open
    assert not transport.feed_breaker.open


async def test_an_answer_too_long_opens_no_breaker(stub: Stub, feed: RemoteFeed):
    stub.say(b" " * (4 * 1024 * 1024 + 1))
    for _ in range(4):
        with pytest.raises(Unavailable) as caught:
            await feed.poll()
        assert not isinstance(caught.value, Away)


@pytest.mark.parametrize("status", ["502 Bad Gateway", "503 Service Unavailable", "504 Gateway Timeout"])
async def test_a_service_that_is_away_is_found_out_by_the_feed(stub: Stub, feed: RemoteFeed, status: str):
    stub.say(b"{}", status)
    transport: Transport = feed._read._transport  # type: ignore[attr-defined]
    for _ in range(3):
        with pytest.raises(Away):
            await feed.poll()
    assert transport.breaker.open
    assert transport.feed_breaker.open


async def test_a_feed_that_alone_is_away_is_not_the_service(stub: Stub, feed: RemoteFeed):
    """SES-18"""
    stub.say(b"{}")
    stub.only["/oauth/invalidations"] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"
    transport: Transport = feed._read._transport  # type: ignore[attr-defined]
    for _ in range(4):
        with pytest.raises(Away):
            await feed.poll()
    assert transport.feed_breaker.open
    assert not transport.breaker.open
