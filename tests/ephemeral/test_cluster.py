"""A cluster of three real servers: the same contract, slots that move, and a server that dies."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator

import hiredis
import pytest

from routeguard.core.errors import ConfigError, Unavailable
from routeguard.foundation.ephemeral.connection import Address
from routeguard.foundation.ephemeral.protocol import Attempt, Ephemeral, Quota
from routeguard.foundation.ephemeral.redis import RedisEphemeral, slot_of
from tests.backends import free_port
from tests.conformance.ephemeral import EphemeralConformance
from tests.ephemeral.server import ValkeyProcess
from tests.steady import DEADLINE

pytestmark = pytest.mark.anyio

SLOTS = [(0, 5460), (5461, 10922), (10923, 16383)]
PATIENCE = 30.0


class Servers:
    """Three masters, each with a third of the slots, and a replica of the first."""

    def __init__(self, directory: str) -> None:
        self.servers = [
            ValkeyProcess(
                "--cluster-enabled",
                "yes",
                "--cluster-config-file",
                f"{directory}/nodes{number}.conf",
                "--cluster-node-timeout",
                "1000",
                "--cluster-require-full-coverage",
                "no",
            )
            for number in range(4)
        ]

    def start(self) -> None:
        for server in self.servers:
            server.start()
        for server, (first, last) in zip(self.servers, SLOTS, strict=False):
            server.call("CLUSTER", "ADDSLOTSRANGE", first, last)
        for server in self.servers[1:]:
            server.call("CLUSTER", "MEET", "127.0.0.1", self.servers[0].port)
        self.wait(lambda: all(self.info(server, b"cluster_known_nodes") == b"4" for server in self.servers))
        replica = self.servers[3]
        self.wait(lambda: replica.call("CLUSTER", "REPLICATE", self.id(0)) == b"OK")
        self.wait(lambda: all(self.info(server, b"cluster_state") == b"ok" for server in self.servers))
        self.wait(lambda: b"master_link_status:up" in replica.call("INFO", "replication"))

    def stop(self) -> None:
        for server in self.servers:
            server.stop()

    def id(self, number: int) -> bytes:
        found: bytes = self.servers[number].call("CLUSTER", "MYID")
        return found

    @property
    def url(self) -> str:
        nodes = "".join(f"&node=127.0.0.1:{server.port}" for server in self.servers[1:])
        return f"valkey://127.0.0.1:{self.servers[0].port}?cluster=1{nodes}"

    @staticmethod
    def info(server: ValkeyProcess, name: bytes) -> bytes:
        told: bytes = server.call("CLUSTER", "INFO")
        return dict(line.split(b":", 1) for line in told.split(b"\r\n") if b":" in line)[name]

    @staticmethod
    def wait(until: object) -> None:
        deadline = time.monotonic() + PATIENCE
        while not until():  # type: ignore[operator]
            assert time.monotonic() < deadline, "the cluster does not form"
            time.sleep(0.02)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    servers = Servers(str(tmp_path_factory.mktemp("cluster")))
    servers.start()
    yield servers
    servers.stop()


@pytest.fixture
async def store(cluster: Servers) -> AsyncIterator[RedisEphemeral]:
    for server in cluster.servers[:3]:
        server.call("FLUSHALL")
    store = RedisEphemeral.from_url(cluster.url, deadline=DEADLINE)
    await store.start()
    yield store
    await store.close()


class TestContract(EphemeralConformance):
    """What every store must do."""


async def test_keys_of_all_slots_in_one_call(store: Ephemeral) -> None:
    quota = Quota(limit=10, period=60, burst=10)
    keys = [f"{{user{number}}}:n" for number in range(50)]
    for key in keys:
        await store.put(key, key.encode(), ttl=60)
    assert await store.get_all([*keys, "{none}"]) == [*(key.encode() for key in keys), None]
    hits = await store.hit([Attempt(key + ":count", quota) for key in keys])
    assert [hit.remaining for hit in hits] == [9] * 50


async def test_a_slot_that_moves_takes_its_callers_along(cluster: Servers, store: RedisEphemeral) -> None:
    key = "{moving}:key"
    slot = slot_of(key)
    origin = next(n for n, (first, last) in enumerate(SLOTS) if first <= slot <= last)
    target = (origin + 1) % 3
    await store.put(key, b"before", ttl=60)
    cluster.servers[target].call("CLUSTER", "SETSLOT", slot, "IMPORTING", cluster.id(origin))
    cluster.servers[origin].call("CLUSTER", "SETSLOT", slot, "MIGRATING", cluster.id(target))
    try:
        assert await store.get(key) == b"before"
        # A key that is not there any more is asked of the new server: ASK, and ASKING before the command.
        assert await store.put("{moving}:new", b"asked", ttl=60)
        assert cluster.servers[origin].call("EXISTS", "{moving}:new") != 1
        moved = cluster.servers[origin].call("MIGRATE", "127.0.0.1", cluster.servers[target].port, key, 0, 5000)
        assert moved == b"OK"
        for server in (cluster.servers[target], cluster.servers[origin]):
            server.call("CLUSTER", "SETSLOT", slot, "NODE", cluster.id(target))
        assert await store.get(key) == b"before"
        assert await store.get("{moving}:new") == b"asked"
    finally:
        for server in cluster.servers[:3]:
            server.call("CLUSTER", "SETSLOT", slot, "STABLE")


async def test_nothing_is_counted_twice_by_a_redirection(cluster: Servers, store: RedisEphemeral) -> None:
    quota = Quota(limit=1000, period=3600, burst=1000)
    attempts = [Attempt(f"{{many{number}}}:n", quota) for number in range(40)]
    for _ in range(5):
        await asyncio.gather(*[store.hit([attempt]) for attempt in attempts])
    left = [(await store.hit([attempt]))[0].remaining for attempt in attempts]
    assert set(left) == {994}


async def test_a_server_that_dies_is_replaced_by_its_replica(cluster: Servers) -> None:
    """Last: it takes the first server with it."""
    store = RedisEphemeral.from_url(cluster.url, deadline=DEADLINE)
    await store.start()
    try:
        lost = next(f"k{n}" for n in range(1000) if slot_of(f"k{n}") <= SLOTS[0][1])
        kept = next(f"k{n}" for n in range(1000) if slot_of(f"k{n}") >= SLOTS[2][0])
        await store.put(lost, b"1", ttl=600)
        await store.put(kept, b"2", ttl=600)
        cluster.servers[0].call("WAIT", 1, 5000)
        cluster.servers[0].stop()
        with pytest.raises(Unavailable):
            for _ in range(1000):
                await store.get(lost)
                await asyncio.sleep(0.01)
        assert await store.get(kept) == b"2"
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                assert await store.get(lost) == b"1"
                break
            except Unavailable:
                assert time.monotonic() < deadline, "the replica never took over"
                await asyncio.sleep(0.05)
    finally:
        await store.close()


async def answering(*answers: bytes, port: int = 0) -> asyncio.Server:
    """Return a server that takes any greeting and answers CLUSTER SLOTS and then everything else as given."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        parser = hiredis.Reader()
        while data := await reader.read(65536):
            parser.feed(data)
            while (command := parser.gets()) is not False:
                name = command[0].upper()
                known = {b"CLUSTER": answers[0], b"GET": answers[1]}
                writer.write(known.get(name, b"+OK\r\n"))
        writer.close()

    return await asyncio.start_server(talk, "127.0.0.1", port)


@pytest.mark.parametrize("slots", [b"*1\r\n:1\r\n", b"+OK\r\n", b"*1\r\n*3\r\n:0\r\n:99999\r\n*2\r\n$1\r\na\r\n:1\r\n"])
async def test_a_map_that_makes_no_sense_is_an_outage_and_is_asked_for_again(slots: bytes) -> None:
    server = await answering(slots, b"$-1\r\n")
    store = RedisEphemeral.from_url(
        f"valkey://127.0.0.1:{server.sockets[0].getsockname()[1]}?cluster=1", deadline=DEADLINE
    )
    await store.start()
    try:
        for _ in range(3):
            with pytest.raises(Unavailable):
                await store.get("k")
            await asyncio.sleep(0.15)
        assert store._cluster is not None
        assert store._cluster._keeping.running
    finally:
        await store.close()
        server.close()
        await server.wait_closed()
        await asyncio.sleep(0.05)  # For its connections to see that we have gone.


@pytest.mark.parametrize(
    "answer", [b"-MOVED garbage\r\n", b"-MOVED 1 host:port\r\n", b"-ASK\r\n", b"-MOVED 1 h:99999\r\n"]
)
async def test_a_redirection_that_makes_no_sense_is_an_outage(answer: bytes) -> None:
    port = free_port()
    slots = b"*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$0\r\n\r\n:%d\r\n" % port
    server = await answering(slots, answer, port=port)
    store = RedisEphemeral.from_url(f"valkey://127.0.0.1:{port}?cluster=1", deadline=DEADLINE)
    await store.start()
    try:
        with pytest.raises(Unavailable):
            await store.get("k")
    finally:
        await store.close()
        server.close()
        await server.wait_closed()
        await asyncio.sleep(0.05)  # For its connections to see that we have gone.


def test_servers_to_begin_with_are_read_from_the_url() -> None:
    found = Address.parse_all("valkey://me:pw@a:1/?cluster=1&node=b:2&node=c:3")
    assert [(one.host, one.port, one.password) for one in found] == [("a", 1, "pw"), ("b", 2, "pw"), ("c", 3, "pw")]
    with pytest.raises(ConfigError):
        Address.parse_all("valkey://a?cluster=1&node=b")
