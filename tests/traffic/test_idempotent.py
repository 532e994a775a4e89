"""Idempotency keys: one run, the same answer again, and never another caller's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import Response

from routeguard.core.errors import ConfigError
from routeguard.core.policy import Policy, deferred, public
from routeguard.foundation.ephemeral.memory import MemoryEphemeral
from routeguard.foundation.ephemeral.protocol import Ephemeral
from routeguard.foundation.ephemeral.redis import RedisEphemeral
from routeguard.protection.traffic.deduplicate import deduplicate
from routeguard.protection.traffic.idempotent import idempotent
from tests.ephemeral.server import ValkeyProcess
from tests.steady import DEADLINE, until

from .harness import calling, guarded

pytestmark = pytest.mark.anyio

ALICE = {"x-user": "usr_alice", "idempotency-key": '"8e03978e-40d5-43dd-bc93-6894a57f9324"'}


class Payments:
    """A handler that pays, and counts what it paid."""

    def __init__(
        self, *, status: int = 201, pause: float = 0.0, size: int = 0, until: asyncio.Event | None = None
    ) -> None:
        self.runs = 0
        self.until = until
        self.status = status
        self.pause = pause
        self.size = size

    def handler(self) -> Any:
        async def pay(request: Request) -> Response:
            self.runs += 1
            run = self.runs
            body = await request.body()
            await asyncio.sleep(self.pause)
            if self.until is not None:
                await self.until.wait()
            text = b"paid %d for " % run + body + b"." * self.size
            headers = {"x-receipt": str(run), "set-cookie": f"seen={run}", "content-type": "text/plain"}
            return Response(text, self.status, headers)

        return pay


@pytest.fixture(scope="module")
def valkey() -> Iterator[ValkeyProcess]:
    server = ValkeyProcess()
    server.start()
    yield server
    server.stop()


@pytest.fixture(params=["memory", "valkey"])
async def stores(request: pytest.FixtureRequest) -> AsyncIterator[list[Ephemeral]]:
    """The stores of two replicas, or one process twice."""
    if request.param == "memory":
        store = MemoryEphemeral()
        yield [store, store]
        return
    server: ValkeyProcess = request.getfixturevalue("valkey")
    server.call("FLUSHALL")
    made = [RedisEphemeral.from_url(server.url, deadline=DEADLINE) for _ in range(2)]
    for store in made:
        await store.start()
    yield list(made)
    for store in made:
        await store.close()


async def test_a_retry_gets_the_same_answer_without_cookies(stores: list[Ephemeral]) -> None:
    bank = Payments()
    apps = [guarded(store, idempotent(), bank.handler()) for store in stores]
    async with calling(apps[0]) as here, calling(apps[1]) as there:
        first = await here.post("/", content=b"7", headers=ALICE)
        again = await there.post("/", content=b"7", headers=ALICE)
    assert bank.runs == 1
    assert (first.status_code, first.text, first.headers["x-receipt"]) == (201, "paid 1 for 7", "1")
    assert (again.status_code, again.text, again.headers["x-receipt"]) == (201, "paid 1 for 7", "1")
    assert first.headers["set-cookie"] == "seen=1"
    assert "set-cookie" not in again.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert again.headers["content-length"] == first.headers["content-length"]


async def test_unguarded_twin_pays_twice() -> None:
    bank = Payments()
    async with calling(guarded(MemoryEphemeral(), public, bank.handler())) as client:
        await asyncio.gather(*[client.post("/", content=b"7", headers=ALICE) for _ in range(2)])
    assert bank.runs == 2


async def test_at_once_they_join(stores: list[Ephemeral]) -> None:
    """DDP-08: with a key, across replicas."""
    bank = Payments(pause=0.2)
    apps = [guarded(store, idempotent(), bank.handler()) for store in stores]
    async with calling(apps[0]) as here, calling(apps[1]) as there:
        answers = await asyncio.gather(
            *[(here, there)[n % 2].post("/", content=b"7", headers=ALICE) for n in range(40)]
        )
    assert bank.runs == 1
    assert {(answer.status_code, answer.text) for answer in answers} == {(201, "paid 1 for 7")}


async def test_waiting_too_long_is_409(stores: list[Ephemeral]) -> None:
    paid = asyncio.Event()
    bank = Payments(until=paid)
    apps = [guarded(store, idempotent(wait="1s"), bank.handler()) for store in stores]
    async with calling(apps[0]) as here, calling(apps[1]) as there:
        first = asyncio.create_task(here.post("/", content=b"7", headers=ALICE))
        await until(lambda: bank.runs)
        second = await there.post("/", content=b"7", headers=ALICE)
        assert (second.status_code, second.headers["retry-after"]) == (409, "1")
        paid.set()
        assert (await first).status_code == 201
        assert (await there.post("/", content=b"7", headers=ALICE)).status_code == 201
    assert bank.runs == 1


@pytest.mark.parametrize(
    "other",
    [{"content": b"8"}, {"url": "/?to=mallory"}, {"headers": {**ALICE, "content-type": "application/xml"}}],
    ids=["body", "query", "content type"],
)
async def test_another_request_with_the_same_key(stores: list[Ephemeral], other: Any) -> None:
    """DDP-02."""
    bank = Payments()
    async with calling(guarded(stores[0], idempotent(), bank.handler())) as client:
        await client.post("/", content=b"7", headers=ALICE)
        refused = await client.post(**{"url": "/", "content": b"7", "headers": ALICE, **other})
    assert refused.status_code == 422
    assert refused.json()["type"].endswith("/idempotency-key-reused")
    assert "paid" not in refused.text
    assert bank.runs == 1


async def test_another_body_while_the_first_is_worked_on(stores: list[Ephemeral]) -> None:
    """DDP-02."""
    paid = asyncio.Event()
    bank = Payments(until=paid)
    async with calling(guarded(stores[0], idempotent(), bank.handler())) as client:
        first = asyncio.create_task(client.post("/", content=b"7", headers=ALICE))
        await until(lambda: bank.runs)
        assert (await client.post("/", content=b"8", headers=ALICE)).status_code == 422
        paid.set()
        assert (await first).status_code == 201


async def test_another_caller_never_shares(stores: list[Ephemeral]) -> None:
    """DDP-01."""
    bank = Payments()
    app = guarded(stores[0], idempotent(), bank.handler())
    async with calling(app) as client, calling(app, peer="198.51.100.9") as stranger:
        texts = [
            (await client.post("/", content=b"7", headers=ALICE)).text,
            (await client.post("/", content=b"7", headers={**ALICE, "x-user": "usr_bob"})).text,
            (await client.post("/", content=b"7", headers={**ALICE, "x-user": ""})).text,
            (await stranger.post("/", content=b"7", headers={**ALICE, "x-user": ""})).text,
        ]
    assert len(set(texts)) == bank.runs == 4


@pytest.mark.parametrize(
    ("mine", "yours"),
    [
        ({"cookie": "sid=alice"}, {"cookie": "sid=bob"}),
        ({"cookie": "sid=alice"}, {}),
        ({"authorization": "Bearer A"}, {"authorization": "Bearer B"}),
        ({"x-api-key": "A"}, {"x-api-key": "B"}),
        ({"x-amz-security-token": "A"}, {"x-amz-security-token": "B"}),
        ({"authorization": "Bearer A"}, {"x-api-key": "Bearer A"}),
    ],
    ids=["cookie", "no-cookie", "bearer", "api-key", "one-of-its-own", "elsewhere"],
)
async def test_a_caller_no_check_has_named_is_told_by_what_he_sends(
    stores: list[Ephemeral], mine: dict[str, str], yours: dict[str, str]
) -> None:
    """DDP-01: behind `public` the handler may still answer by a credential; here both come from one address."""
    bank = Payments()
    key = {"idempotency-key": "order-1", "x-csrf-token": "1"}
    async with calling(guarded(stores[0], public & idempotent(), bank.handler())) as client:
        first = await client.post("/", content=b"7", headers={**key, **mine})
        client.cookies.clear()
        other = await client.post("/", content=b"7", headers={**key, **yours})
        client.cookies.clear()
        again = await client.post("/", content=b"7", headers={**key, **mine, "x-csrf-token": "2"})
    assert first.text != other.text
    assert "idempotency-replayed" not in other.headers
    assert again.text == first.text
    assert bank.runs == 2


@pytest.mark.parametrize("there", [{"host": "b.example"}, {"x-forwarded-host": "b.example"}], ids=["host", "forwarded"])
async def test_another_host_is_another_request(stores: list[Ephemeral], there: dict[str, str]) -> None:
    """DDP-02: tenants by host; the same key at another one must not get the first one's answer."""
    bank = Payments()
    async with calling(guarded(stores[0], idempotent(), bank.handler())) as client:
        assert (await client.post("/", content=b"7", headers={**ALICE, "host": "a.example"})).status_code == 201
        assert (
            await client.post("/", content=b"7", headers={**ALICE, "host": "a.example", **there})
        ).status_code == 422
    assert bank.runs == 1


@pytest.mark.parametrize("once", [idempotent(), deduplicate()], ids=["idempotent", "deduplicate"])
@pytest.mark.parametrize("nested", [False, True])
def test_not_where_the_handler_decides(once: Policy, nested: bool) -> None:
    """DDP-01: a kept answer would be given before the handler has decided who may have it."""
    policy = once & ((deferred | public) if nested else deferred)
    [check] = once.checks
    assert "deferred" in str(check.conflicts(policy, test_without_a_key, "http"))
    assert check.conflicts(public & once, test_without_a_key, "http") is None


async def test_without_a_key(stores: list[Ephemeral]) -> None:
    bank = Payments()
    async with calling(guarded(stores[0], idempotent(), bank.handler())) as client:
        refused = await client.post("/", content=b"7")
        assert (refused.status_code, refused.json()["type"].rpartition("/")[2]) == (400, "idempotency-key-missing")
        assert (await client.get("/")).status_code == 201, "safe methods need none"
    assert bank.runs == 1


@pytest.mark.parametrize(
    "key", ["", '""', "k" * 10_240, "k" * 256, 'a"b', '"a', "a b", "a\\b", b"a\x00b", b"a\r\nb", b"\xff", "é".encode()]
)
async def test_keys_that_are_none(key: Any) -> None:
    """DDP-05."""
    bank = Payments()
    app = guarded(MemoryEphemeral(), idempotent(), bank.handler())
    raw = key if isinstance(key, bytes) else key.encode()
    status, body = await send(app, raw)
    assert status == 400
    assert len(raw) < 4 or raw not in body
    assert bank.runs == 0
    assert (await send(guarded(MemoryEphemeral(), public, bank.handler()), raw))[0] == 201, "the unguarded twin"


async def send(app: Any, key: bytes) -> tuple[int, bytes]:
    """Call an application with header bytes no client library would send."""
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"7", "more_body": False}

    async def keep(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/",
        "raw_path": b"/",
        "query_string": b"",
        "root_path": "",
        "scheme": "http",
        "server": ("test", 80),
        "client": ("203.0.113.7", 1),
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "headers": [(b"host", b"test"), (b"idempotency-key", key)],
    }
    await app(scope, receive, keep)
    return sent[0]["status"], sent[1]["body"]


async def test_a_quoted_key_and_a_bare_one_are_the_same(stores: list[Ephemeral]) -> None:
    bank = Payments()
    async with calling(guarded(stores[0], idempotent(), bank.handler())) as client:
        for key in ('"abc"', "abc"):
            await client.post("/", content=b"7", headers={"idempotency-key": key})
            client.cookies.clear()
    assert bank.runs == 1


async def test_server_errors_are_not_kept(stores: list[Ephemeral]) -> None:
    bank = Payments(status=503)
    async with calling(guarded(stores[0], idempotent(), bank.handler())) as client:
        assert (await client.post("/", content=b"7", headers=ALICE)).status_code == 503
        bank.status = 200
        assert (await client.post("/", content=b"7", headers=ALICE)).text == "paid 2 for 7"


async def test_answers_of_the_handler_below_500_are_kept() -> None:
    bank = Payments(status=402)
    async with calling(guarded(MemoryEphemeral(), idempotent(), bank.handler())) as client:
        assert [(await client.post("/", content=b"7", headers=ALICE)).status_code for _ in range(2)] == [402, 402]
    assert bank.runs == 1


async def test_a_dead_leader_frees_the_key_when_its_lease_ends(valkey: ValkeyProcess) -> None:
    valkey.call("FLUSHALL")
    paid = asyncio.Event()
    bank = Payments(until=paid)
    stores = [RedisEphemeral.from_url(valkey.url, deadline=DEADLINE) for _ in range(2)]
    for store in stores:
        await store.start()
    apps = [guarded(store, idempotent(lease="1s"), bank.handler()) for store in stores]
    async with calling(apps[0]) as dead, calling(apps[1]) as alive:
        stuck = asyncio.create_task(dead.post("/", content=b"7", headers=ALICE))
        await until(lambda: bank.runs)
        await stores[0].close()
        answering = asyncio.create_task(alive.post("/", content=b"7", headers=ALICE))
        await until(lambda: bank.runs == 2)
        paid.set()
        answer = await answering
        await stuck
    assert answer.text == "paid 2 for 7"
    await stores[1].close()


async def test_an_answer_too_long_to_keep_is_not_paid_twice() -> None:
    bank = Payments(size=2_000_000)
    async with calling(guarded(MemoryEphemeral(), idempotent(), bank.handler())) as client:
        statuses = [(await client.post("/", content=b"7", headers=ALICE)).status_code for _ in range(2)]
    assert statuses == [201, 409]
    assert bank.runs == 1


async def test_an_answer_there_is_no_room_for_is_not_paid_twice() -> None:
    """DDP-08: the caller's share is too small for the answer, and the lease long over."""
    bank = Payments(size=5_000)
    store = MemoryEphemeral(capacity_bytes=16 * 2_000)
    async with calling(guarded(store, idempotent(lease="1s"), bank.handler())) as client:
        assert (await client.post("/", content=b"7", headers=ALICE)).status_code == 201
        await asyncio.sleep(1.1)
        assert (await client.post("/", content=b"7", headers=ALICE)).status_code == 409
    assert bank.runs == 1


async def test_one_caller_cannot_take_the_keys_of_all() -> None:
    """RL-16."""
    bank = Payments()
    async with calling(guarded(MemoryEphemeral(capacity=500), idempotent(), bank.handler())) as client:
        mallory = [
            (await client.post("/", headers={"x-user": "usr_mallory", "idempotency-key": f"k{n}"})).status_code
            for n in range(10)
        ]
        assert mallory == [201] * 5 + [503] * 5
        assert (await client.post("/", headers=ALICE)).status_code == 201


async def test_kept_only_so_long() -> None:
    bank = Payments()
    async with calling(guarded(MemoryEphemeral(), idempotent(keep="1s"), bank.handler())) as client:
        await client.post("/", content=b"7", headers=ALICE)
        await asyncio.sleep(1.05)
        await client.post("/", content=b"7", headers=ALICE)
    assert bank.runs == 2


async def test_store_away_pays_nothing() -> None:
    store = RedisEphemeral.from_url("redis://127.0.0.1:1")
    await store.start()
    bank = Payments()
    async with calling(guarded(store, idempotent(), bank.handler())) as client:
        assert (await client.post("/", content=b"7", headers=ALICE)).status_code == 503
    assert bank.runs == 0
    await store.close()


@pytest.mark.parametrize("options", [{"keep": "x"}, {"wait": "0s"}, {"lease": ""}])
def test_malformed_options(options: Any) -> None:
    with pytest.raises(ConfigError):
        idempotent(**options)
