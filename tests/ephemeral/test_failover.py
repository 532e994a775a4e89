"""Fail-over for real: two Valkeys behind one name, the first of which is demoted and goes on answering."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from routeguard.core.errors import Unavailable
from routeguard.foundation.ephemeral import replies
from routeguard.foundation.ephemeral.protocol import Attempt, Quota
from routeguard.foundation.ephemeral.redis import RedisEphemeral
from tests.ephemeral.server import ValkeyProcess
from tests.replicas.proxy import Proxy

COVERS = ("foundation/ephemeral/replies",)

pytestmark = pytest.mark.anyio

MANY = Quota(limit=1000, period=3600, burst=1000)
DEADLINE = 2.0


@pytest.fixture
def pair() -> Iterator[tuple[ValkeyProcess, ValkeyProcess]]:
    first, second = ValkeyProcess(), ValkeyProcess()
    first.start()
    second.start()
    yield first, second
    first.stop()
    second.stop()


@pytest.fixture
def name(pair: tuple[ValkeyProcess, ValkeyProcess]) -> Iterator[Proxy]:
    """What both are reached by: new connections go to its target, those that are open stay where they are."""
    found = Proxy(pair[0].port)
    yield found
    found.close()


def demote(server: ValkeyProcess, successor: ValkeyProcess) -> None:
    """Make a server the replica of another; its clients stay connected and are told READONLY."""
    server.call("REPLICAOF", "127.0.0.1", successor.port)


@contextlib.asynccontextmanager
async def store_at(url: str) -> AsyncIterator[RedisEphemeral]:
    store = RedisEphemeral.from_url(url, deadline=DEADLINE)
    await store.start()
    try:
        yield store
    finally:
        await store.close()


async def works(store: RedisEphemeral) -> None:
    """Wait until limits are counted again."""

    async def counted() -> bool:
        try:
            await store.hit([Attempt("{again}", MANY)])
        except Unavailable:
            return False
        return True

    async with asyncio.timeout(60):
        while not await counted():
            await asyncio.sleep(0.01)


OPERATIONS: dict[str, Callable[[RedisEphemeral], Awaitable[Any]]] = {
    "hit": lambda store: store.hit([Attempt("{k}", MANY)]),
    "put": lambda store: store.put("k", b"v", ttl=60),
    "put if": lambda store: store.put("old", b"w", ttl=60, expected=b"v"),
    "delete": lambda store: store.delete("old"),
    "delete if": lambda store: store.delete("old", expected=b"v"),
    "claim": lambda store: store.claim("k", b"v", ttl=60),
}


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_the_name_moves_before_the_next_command(
    pair: tuple[ValkeyProcess, ValkeyProcess], name: Proxy, operation: str
) -> None:
    """Nobody notices: the command that was refused is carried out by the new server."""
    first, second = pair
    async with store_at(f"redis://127.0.0.1:{name.port}/0") as store:
        await store.put("old", b"v", ttl=60)
        second.call("SET", "old", "v")
        demote(first, second)
        name.target = second.port
        await OPERATIONS[operation](store)
        await OPERATIONS["hit"](store)
        assert second.call("EXISTS", "{k}") == 1


async def test_commands_under_way_are_neither_lost_nor_doubled(
    pair: tuple[ValkeyProcess, ValkeyProcess], name: Proxy
) -> None:
    first, second = pair
    async with store_at(f"redis://127.0.0.1:{name.port}/0") as store:
        await store.get("warm")
        demote(first, second)
        name.target = second.port
        hits = await asyncio.gather(*[store.hit([Attempt("{k}", MANY)]) for _ in range(200)])
        assert sorted(hit.remaining for (hit,) in hits) == list(range(800, 1000))


async def test_the_name_moves_later(pair: tuple[ValkeyProcess, ValkeyProcess], name: Proxy) -> None:
    """Until then it is 503, and the demoted server is not taken for one that works."""
    first, second = pair
    async with store_at(f"redis://127.0.0.1:{name.port}/0") as store:
        demote(first, second)
        for _ in range(3):
            with pytest.raises(Unavailable):
                await store.hit([Attempt("{k}", MANY)])
        assert not store.is_up
        name.target = second.port
        await works(store)
        assert second.call("EXISTS", "{again}") == 1


async def test_a_replica_at_the_start_is_not_taken(pair: tuple[ValkeyProcess, ValkeyProcess], name: Proxy) -> None:
    first, second = pair
    demote(first, second)
    async with store_at(f"redis://127.0.0.1:{name.port}/0") as store:
        assert not store.is_up
        name.target = second.port
        await works(store)


async def test_it_is_promoted_in_place(pair: tuple[ValkeyProcess, ValkeyProcess]) -> None:
    first, second = pair
    async with store_at(first.url) as store:
        demote(first, second)
        with pytest.raises(Unavailable):
            await store.put("k", b"v", ttl=60)
        first.call("REPLICAOF", "NO", "ONE")
        await works(store)


async def test_a_name_of_several_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A headless Service: all servers have an address each, and the demoted one may come first."""
    first = ValkeyProcess()
    second = ValkeyProcess(host="127.0.0.2", port=first.port)
    loop = asyncio.get_running_loop()
    resolve = loop.getaddrinfo

    async def both(host: str, port: int, **named: Any) -> Any:
        if host != "valkey.test":
            return await resolve(host, port, **named)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one.host, port)) for one in (first, second)]

    monkeypatch.setattr(loop, "getaddrinfo", both)
    first.start()
    second.start()
    try:
        async with store_at(f"redis://valkey.test:{first.port}/0") as store:
            await store.put("k", b"v", ttl=60)
            assert first.call("EXISTS", "k") == 1
            first.call("REPLICAOF", second.host, second.port)
            await store.put("j", b"v", ttl=60)
            assert second.call("EXISTS", "j") == 1
    finally:
        first.stop()
        second.stop()


async def test_one_that_was_restarted_and_reads_its_file(tmp_path: Path) -> None:
    """LOADING: away until it has read it, and then used without a restart of ours."""
    options = ("--dir", str(tmp_path), "--dbfilename", "dump.rdb")
    server = ValkeyProcess(*options)
    server.start()
    for number in range(400):
        server.call("SET", f"key{number}", "x" * 1000)
    server.call("SAVE")
    async with store_at(server.url) as store:
        await store.put("k", b"v", ttl=60)
        server.stop()
        slow = ValkeyProcess(
            *options, "--key-load-delay", "5000", "--loading-process-events-interval-bytes", "1024", port=server.port
        )
        slow.start()
        try:
            assert str(slow.call("PING")).startswith("LOADING")
            await works(store)
        finally:
            slow.stop()


@pytest.mark.parametrize(
    ("wrong", "mended", "asked", "said"),
    [
        (
            (("REPLICAOF", "127.0.0.1", "1"), ("CONFIG", "SET", "replica-serve-stale-data", "no")),
            (("REPLICAOF", "NO", "ONE"),),
            ("GET", "k"),
            "MASTERDOWN",
        ),
        (
            (("CONFIG", "SET", "min-replicas-to-write", "1"),),
            (("CONFIG", "SET", "min-replicas-to-write", "0"),),
            ("SET", "k", "v"),
            "NOREPLICAS",
        ),
    ],
)
async def test_other_ways_to_say_that_it_takes_no_writes(
    wrong: tuple[Any, ...], mended: tuple[Any, ...], asked: tuple[Any, ...], said: str
) -> None:
    server = ValkeyProcess()
    server.start()
    try:
        async with store_at(server.url) as store:
            await store.put("k", b"v", ttl=60)
            for command in wrong:
                server.call(*command)
            with pytest.raises(Unavailable):
                await store.hit([Attempt("{k}", MANY)])
            assert said in str(server.call(*asked))
            assert not store.is_up
            for command in mended:
                server.call(*command)
            await works(store)
    finally:
        server.stop()


async def test_a_connection_that_was_forgotten_is_made_anew() -> None:
    """NOAUTH: RESET does to the connection what a reload of the users does."""
    server = ValkeyProcess("--requirepass", "secret")
    server.start()
    try:
        async with store_at(f"redis://:secret@127.0.0.1:{server.port}/0") as store:
            await store._connection.command("RESET")
            assert await store.put("k", b"v", ttl=60)
            assert await store.get("k") == b"v"
    finally:
        server.stop()


async def test_one_without_room_is_kept_and_said(tmp_path: Path) -> None:
    """OOM and MISCONF: another connection would say the same. What makes room is still let through."""
    server = ValkeyProcess("--dir", str(tmp_path))
    server.start()
    try:
        async with store_at(server.url) as store:
            await store.put("k", b"v", ttl=60)
            wire = store._connection._wire
            server.call("CONFIG", "SET", "maxmemory", "1")
            with pytest.raises(Unavailable, match="OOM"):
                await store.put("j", b"v", ttl=60)
            assert await store.get("k") == b"v"
            assert await store.delete("k")
            assert store._connection._wire is wire
            server.call("CONFIG", "SET", "maxmemory", "0")
            await works(store)
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("READONLY You can't write against a read only replica.", True),
        ("READONLY You can't write against a read only replica. script: ab12, on @user_script:64.", True),
        ("ERR Error running script (call to f_ab): @user_script:64: -READONLY You can't write against it", True),
        ("LOADING Valkey is loading the dataset in memory", True),
        ("MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.", True),
        ("NOAUTH Authentication required.", True),
        ("OOM command not allowed when used memory > 'maxmemory'.", False),
        ("ERR READONLY is no command", False),
        ("READONLYISH nothing of the kind", False),
        ("WRONGTYPE Operation against a key holding the wrong kind of value", False),
    ],
)
def test_what_replies_mean(text: str, expected: bool) -> None:
    import hiredis

    assert replies.gives_up(hiredis.ReplyError(text)) is expected
