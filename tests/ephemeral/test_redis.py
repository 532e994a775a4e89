"""Valkey for real: batching, one command, and what happens when it stops, freezes or forgets."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from routeguard.core.errors import ConfigError, Unavailable
from routeguard.foundation.ephemeral.connection import Address
from routeguard.foundation.ephemeral.factory import open_ephemeral
from routeguard.foundation.ephemeral.memory import MemoryEphemeral
from routeguard.foundation.ephemeral.protocol import Attempt, Quota
from routeguard.foundation.ephemeral.redis import RedisEphemeral, slot_of
from tests.ephemeral.server import ValkeyProcess
from tests.steady import PATIENCE, until

COVERS = (
    "foundation/ephemeral/connection",
    "foundation/ephemeral/factory",
    "foundation/ephemeral/protocol",
    "foundation/ephemeral/script",
)

pytestmark = pytest.mark.anyio

DEADLINE = 1.0
"""Of a command, in seconds: no server that is alive takes so long, however busy the machine."""

TEN = Quota(limit=10, period=60, burst=10)


@pytest.fixture
def server() -> Iterator[ValkeyProcess]:
    """A server of the test's own, to have faults with."""
    server = ValkeyProcess()
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def store(server: ValkeyProcess) -> AsyncIterator[RedisEphemeral]:
    store = RedisEphemeral.from_url(server.url, deadline=DEADLINE)
    await store.start()
    yield store
    await store.close()


async def comes_back(store: RedisEphemeral, seconds: float = 60) -> None:
    start = time.monotonic()
    while time.monotonic() - start < seconds:
        try:
            await store.get("k")
        except Unavailable:
            await asyncio.sleep(0.01)
        else:
            return
    raise AssertionError(f"not back within {seconds} s")


class TestFaults:
    @pytest.mark.parametrize("operation", ["get", "put", "delete", "claim", "hit"])
    async def test_stopped_is_unavailable_at_once(
        self, server: ValkeyProcess, store: RedisEphemeral, operation: str
    ) -> None:
        calls = {
            "get": lambda: store.get("k"),
            "put": lambda: store.put("k", b"v", ttl=1),
            "delete": lambda: store.delete("k"),
            "claim": lambda: store.claim("k", b"v", ttl=1),
            "hit": lambda: store.hit([Attempt("k", TEN)]),
        }
        await calls[operation]()
        server.stop()
        store._connection._deadline = 60.0
        start = time.monotonic()
        with pytest.raises(Unavailable):
            await calls[operation]()
        assert time.monotonic() - start < 30

    async def test_frozen_fails_within_the_deadline_then_at_once(
        self, server: ValkeyProcess, store: RedisEphemeral
    ) -> None:
        await store.get("k")
        server.freeze()
        try:
            start = time.monotonic()
            answers = await asyncio.gather(*[store.hit([Attempt("k", TEN)]) for _ in range(50)], return_exceptions=True)
            assert all(isinstance(answer, Unavailable) for answer in answers)
            # One deadline, not one for each of the fifty.
            assert DEADLINE * 0.9 < time.monotonic() - start < DEADLINE * 25
            quickest = DEADLINE
            for _ in range(5):
                start = time.monotonic()
                with pytest.raises(Unavailable):
                    await store.get("k")
                quickest = min(quickest, time.monotonic() - start)
            assert quickest < DEADLINE / 4, "the circuit is open: nobody waits"
        finally:
            server.thaw()
        await comes_back(store)

    async def test_the_loop_runs_while_the_server_is_frozen(self, server: ValkeyProcess, store: RedisEphemeral) -> None:
        worst = 0.0

        async def watch() -> None:
            nonlocal worst
            while True:
                before = time.monotonic()
                await asyncio.sleep(0.005)
                worst = max(worst, time.monotonic() - before - 0.005)

        watcher = asyncio.create_task(watch())
        server.freeze()
        try:
            for _ in range(5):
                with pytest.raises(Unavailable):
                    await store.get("k")
                await asyncio.sleep(0.05)
        finally:
            server.thaw()
            watcher.cancel()
        assert worst < DEADLINE * 0.8

    async def test_restarted_is_back_soon(self, server: ValkeyProcess, store: RedisEphemeral) -> None:
        for _ in range(2):
            await store.get("k")
            server.stop()
            with pytest.raises(Unavailable):
                await store.get("k")
            server.start()
            await comes_back(store)
            # The script was lost with the server.
            assert (await store.hit([Attempt("k", TEN)]))[0].remaining == 9

    async def test_closed_while_it_greets_leaves_no_connection(self) -> None:
        accepted, ended = asyncio.Event(), asyncio.Event()

        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            accepted.set()
            with contextlib.suppress(OSError):
                while await reader.read(1024):
                    pass
            ended.set()
            writer.close()

        async with await asyncio.start_server(silent, "127.0.0.1", 0) as listener:
            port = listener.sockets[0].getsockname()[1]
            store = RedisEphemeral.from_url(f"valkey://127.0.0.1:{port}", deadline=PATIENCE)
            starting = asyncio.create_task(store.start())
            await accepted.wait()
            starting.cancel()
            await asyncio.wait([starting])
            await store.close()
            await until(ended.is_set)

    async def test_away_at_the_start_is_no_error(self, server: ValkeyProcess) -> None:
        server.stop()
        store = RedisEphemeral.from_url(server.url, deadline=DEADLINE)
        await store.start()
        with pytest.raises(Unavailable):
            await store.get("k")
        server.start()
        await comes_back(store)
        await store.close()
        with pytest.raises(Unavailable):
            await store.get("k")

    async def test_flushed_scripts_are_sent_again(self, server: ValkeyProcess, store: RedisEphemeral) -> None:
        server.call("SCRIPT", "FLUSH")
        assert (await store.hit([Attempt("k", TEN)]))[0].remaining == 9
        assert (await store.hit([Attempt("k", TEN)]))[0].remaining == 8

    async def test_an_error_reply_is_an_outage(self, server: ValkeyProcess, store: RedisEphemeral) -> None:
        server.call("CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(Unavailable, match="OOM"):
            await store.put("k", b"v", ttl=1)

    async def test_a_caller_that_goes_away_disturbs_nobody(self, store: RedisEphemeral) -> None:
        await store.put("a", b"1", ttl=5)
        await store.put("b", b"2", ttl=5)
        first = asyncio.ensure_future(store.get("a"))
        await asyncio.sleep(0)
        first.cancel()
        assert await store.get("b") == b"2"
        assert await store.get("a") == b"1"


class TestTraffic:
    async def test_several_limits_are_one_command(self, server: ValkeyProcess, store: RedisEphemeral) -> None:
        sliding = Quota(limit=5, period=60, burst=5, algorithm="sliding")
        count = _client_commands(server)
        hits = await store.hit([Attempt("{s}:a", TEN), Attempt("{s}:b", sliding)])
        assert [hit.remaining for hit in hits] == [9, 4]
        assert _client_commands(server) - count == 1

    async def test_commands_of_one_turn_share_a_write(self, store: RedisEphemeral) -> None:
        wire = store._connection._wire
        assert wire is not None
        assert wire._transport is not None
        writes = 0
        transport = wire._transport

        class Counting:
            def write(self, data: bytes) -> None:
                nonlocal writes
                writes += 1
                transport.write(data)

            def abort(self) -> None:
                transport.abort()

        wire._transport = Counting()  # type: ignore[assignment]
        await asyncio.gather(*[store.get(str(n)) for n in range(64)])
        assert writes == 1

    async def test_two_stores_share_a_limit(self, server: ValkeyProcess, store: RedisEphemeral) -> None:
        """RL-07: two replicas, 1,000 at once, 10 pass."""
        other = RedisEphemeral.from_url(server.url, deadline=3)
        await other.start()
        store_ = RedisEphemeral.from_url(server.url, deadline=3)
        await store_.start()
        answers = await asyncio.gather(*[(store_, other)[n % 2].hit([Attempt("{x}", TEN)]) for n in range(1000)])
        assert sum(hit.allowed for (hit,) in answers) == 10
        await other.close()
        await store_.close()

    async def test_every_key_has_a_life(self, server: ValkeyProcess, store: RedisEphemeral) -> None:
        """RL-16."""
        sliding = Quota(limit=5, period=60, burst=5, algorithm="sliding")
        await store.put("a", b"1", ttl=60)
        await store.claim("b", b"1", ttl=60)
        await store.hit([Attempt("c", TEN), Attempt("d", sliding)])
        keys = server.call("KEYS", "*")
        assert len(keys) == 4
        assert all(0 < server.call("TTL", key) <= 67 for key in keys)


class TestCluster:
    async def test_one_command_a_slot(self, tmp_path: Path) -> None:
        server = ValkeyProcess("--cluster-enabled", "yes", "--cluster-config-file", str(tmp_path / "nodes.conf"))
        server.start()
        try:
            server.call("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            for _ in range(3000):
                if b"cluster_state:ok" in server.call("CLUSTER", "INFO"):
                    break
                await asyncio.sleep(0.02)
            store = RedisEphemeral.from_url(server.url + "?cluster=1", deadline=1)
            await store.start()
            await store.put("{ses}", b"x", ttl=5)
            count = _client_commands(server)
            hits = await store.hit([Attempt("{ip}", TEN), Attempt("{usr}", TEN), Attempt("{ip}b", TEN)])
            assert [hit.remaining for hit in hits] == [9, 9, 9]
            assert _client_commands(server) - count == 2
            await store.close()
        finally:
            server.stop()

    def test_slots_are_those_of_the_specification(self) -> None:
        assert slot_of("123456789") == 12739
        assert slot_of("{user1000}.following") == slot_of("{user1000}.followers") == slot_of("user1000")
        assert slot_of("foo{}{bar}") != slot_of("bar")


class TestAddress:
    def test_reads_all_parts(self) -> None:
        address = Address.parse("rediss://me:p%40ss@[::1]:6380/3")
        assert address == Address("::1", 6380, True, "me", "p@ss", 3)
        assert "p@ss" not in repr(address)
        assert Address.parse("redis://h") == Address("h", 6379)
        assert Address.parse("valkeys://h").tls
        assert address.greeting()[:2] == [("AUTH", "me", "p@ss"), ("SELECT", 3)]

    @pytest.mark.parametrize("url", ["http://h", "redis://h:99999", "redis://h:x", "redis://h/x", ""])
    def test_refuses(self, url: str) -> None:
        with pytest.raises(ConfigError):
            open_ephemeral(url)

    def test_memory(self) -> None:
        assert isinstance(open_ephemeral("memory://"), MemoryEphemeral)


class TestPassword:
    async def test_authenticates(self) -> None:
        server = ValkeyProcess("--requirepass", "secret")
        server.start()
        try:
            good = RedisEphemeral.from_url(f"redis://:secret@127.0.0.1:{server.port}/1")
            bad = RedisEphemeral.from_url(f"redis://:wrong@127.0.0.1:{server.port}/1")
            for store in (good, bad):
                await store.start()
            assert await good.claim("k", b"v", ttl=1) is None
            with pytest.raises(Unavailable):
                await bad.get("k")
            await good.close()
            await bad.close()
        finally:
            server.stop()


def _client_commands(server: ValkeyProcess) -> int:
    """Return how many commands clients sent: what scripts call inside is not among them."""
    text = server.call("INFO", "commandstats").decode()
    total = 0
    for line in text.splitlines():
        name = line.removeprefix("cmdstat_").split(":")[0]
        if name in {"evalsha", "eval", "mget"}:
            total += int(line.split("calls=")[1].split(",")[0])
    return total


class TestClock:
    """RL-08: the server's clock steps; the application's does not matter, it is never asked."""

    WRITE = "redis.call('SET', KEYS[1], cmsgpack.pack({tonumber(ARGV[1]), redis.call('TIME')[1] * 1000000 + ARGV[2]}))"

    async def test_back_by_a_day_locks_no_longer_than_the_window(
        self, server: ValkeyProcess, store: RedisEphemeral
    ) -> None:
        quick = Quota(limit=10, period=0.5, burst=10)
        server.call("EVAL", self.WRITE, 1, "k", 10, 86_400_000_000)
        hit = (await store.hit([Attempt("k", quick)]))[0]
        assert not hit.allowed
        assert hit.reset <= 0.5

        # An attempt that passes brings the state back to the present.
        server.call("EVAL", self.WRITE, 1, "j", 9, 86_400_000_000)
        assert (await store.hit([Attempt("j", quick)]))[0].allowed
        await asyncio.sleep(0.55)
        assert [(await store.hit([Attempt("j", quick)]))[0].allowed for _ in range(11)].count(True) >= 10

    async def test_a_full_bucket_of_the_future_opens_within_twice_the_window(
        self, server: ValkeyProcess, store: RedisEphemeral
    ) -> None:
        quick = Quota(limit=10, period=0.5, burst=10)
        server.call("EVAL", self.WRITE, 1, "k", 10, 86_400_000_000)
        for _ in range(20):
            if (await store.hit([Attempt("k", quick)]))[0].allowed:
                return
            await asyncio.sleep(0.05)
        pytest.fail("locked for longer than two windows")

    async def test_forward_fills_the_bucket_once(self, server: ValkeyProcess, store: RedisEphemeral) -> None:
        server.call("EVAL", self.WRITE, 1, "k", 10, -86_400_000_000)
        assert [(await store.hit([Attempt("k", TEN)]))[0].allowed for _ in range(30)].count(True) == 10

    async def test_a_window_of_the_future_opens_too(self, server: ValkeyProcess, store: RedisEphemeral) -> None:
        quick = Quota(limit=2, period=0.5, burst=2, algorithm="sliding")
        write = (
            "local t = redis.call('TIME')[1] + 86400 "
            "redis.call('SET', KEYS[1], cmsgpack.pack({math.floor(t / 0.05), 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}))"
        )
        server.call("EVAL", write, 1, "w")
        assert not (await store.hit([Attempt("w", quick)]))[0].allowed
        for _ in range(20):
            await asyncio.sleep(0.05)
            if (await store.hit([Attempt("w", quick)]))[0].allowed:
                return
        pytest.fail("locked for longer than two windows")


def test_on_uvloop(server: ValkeyProcess) -> None:
    """The loop of our own server, whose transports are of classes of their own."""
    uvloop = pytest.importorskip("uvloop")

    async def work() -> bytes | None:
        store = RedisEphemeral.from_url(server.url, deadline=5)
        await store.start()
        try:
            await store.put("k", b"v", ttl=60)
            return await store.get("k")
        finally:
            await store.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(work()) == b"v"
