"""Equal requests at once: one run, over the real edge, in memory and across replicas on Valkey."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount

from routeguard.core.errors import ConfigError, Unavailable
from routeguard.core.policy import Policy, public
from routeguard.core.problem import AUTHENTICATION_REQUIRED
from routeguard.core.services import Services
from routeguard.foundation.ephemeral.memory import MemoryEphemeral
from routeguard.foundation.ephemeral.protocol import Ephemeral
from routeguard.foundation.ephemeral.redis import RedisEphemeral
from routeguard.protection.guard.guard import Guard
from routeguard.protection.traffic import deduplicate as deduplicating
from routeguard.protection.traffic.answers import Flight
from routeguard.protection.traffic.deduplicate import deduplicate
from routeguard.protection.traffic.idempotent import idempotent
from tests.ephemeral.server import ValkeyProcess
from tests.steady import DEADLINE, until

from .harness import Identified, calling, guarded

COVERS = ("protection/traffic/answers", "protection/traffic/streams")

pytestmark = pytest.mark.anyio

ALICE = {"x-user": "usr_alice"}


class Shop:
    """A handler that counts, and answers when it is let."""

    def __init__(self, size: int = 10) -> None:
        self.runs = 0
        self.size = size
        self.open = asyncio.Event()
        self.fail: Any = None
        self.cookie = False

    async def __call__(self, request: Request) -> Response:
        self.runs += 1
        run = self.runs
        await request.body()
        await self.open.wait()
        if self.fail is not None:
            fail, self.fail = self.fail, None
            raise fail
        response = PlainTextResponse(f"run {run} ".ljust(self.size, "."), status_code=201)
        if self.cookie:
            response.set_cookie("cart", str(run))
        return response

    def handler(self) -> Any:
        async def checkout(request: Request) -> Response:
            return await self(request)

        return checkout


async def post(client: Any, count: int, shop: Shop, *, of: int = 0, **options: Any) -> list[Any]:
    """Send `count` requests at once, let the handler answer once all have arrived, return the answers.

    `of` are all that must have arrived, where others send some of them.
    """
    options = {"content": b"order 7", "headers": ALICE, "method": "POST", **options}
    running = [asyncio.create_task(client.request(url="/", **options)) for _ in range(count)]
    await until(lambda: shop.runs + len(_followers) >= (of or count) or all(one.done() for one in running))
    shop.open.set()
    return list(await asyncio.gather(*running))


_followers: list[object] = []
"""Who waits for another's answer, in the same process or elsewhere."""


@pytest.fixture(autouse=True)
def _counted(monkeypatch: pytest.MonkeyPatch) -> None:
    _followers.clear()
    for of, name in ((Flight, "wait"), (deduplicating._Joiner, "_follow")):

        async def counted(self: Any, *options: Any, real: Any = getattr(of, name)) -> Any:
            _followers.append(self)
            return await real(self, *options)

        monkeypatch.setattr(of, name, counted)


@pytest.fixture(scope="module")
def valkey() -> Iterator[ValkeyProcess]:
    server = ValkeyProcess()
    server.start()
    yield server
    server.stop()


@pytest.fixture(params=["memory", "valkey"])
async def stores(request: pytest.FixtureRequest) -> AsyncIterator[list[Ephemeral]]:
    """The stores of two replicas, or of one process."""
    if request.param == "memory":
        yield [MemoryEphemeral()]
        return
    server: ValkeyProcess = request.getfixturevalue("valkey")
    server.call("FLUSHALL")
    made = [RedisEphemeral.from_url(server.url, deadline=DEADLINE) for _ in range(2)]
    for store in made:
        await store.start()
    yield list(made)
    for store in made:
        await store.close()


class TestOnce:
    async def test_a_hundred_checkouts_of_one_session(self, stores: list[Ephemeral]) -> None:
        """DDP-08."""
        shop = Shop()
        async with calling(guarded(stores[0], deduplicate(), shop.handler())) as client:
            answers = await post(client, 100, shop, headers={**ALICE, "cookie": "session=1"})
        assert shop.runs == 1
        assert {(answer.status_code, answer.text) for answer in answers} == {(201, "run 1 ....")}

    async def test_unguarded_twin(self) -> None:
        """DDP-08: without it each click is an order."""
        shop = Shop()
        async with calling(guarded(MemoryEphemeral(), public, shop.handler())) as client:
            await post(client, 100, shop)
        assert shop.runs == 100

    async def test_across_replicas(self, stores: list[Ephemeral]) -> None:
        """DDP-08."""
        shop = Shop()
        apps = [guarded(store, deduplicate(), shop.handler()) for store in stores]
        async with calling(apps[0]) as first, calling(apps[-1]) as second:
            answers = await asyncio.gather(post(first, 20, shop, of=40), post(second, 20, shop, of=40))
        assert shop.runs == 1
        assert {answer.text for part in answers for answer in part} == {"run 1 ...."}

    async def test_one_after_the_other_are_two(self, stores: list[Ephemeral]) -> None:
        shop = Shop()
        shop.open.set()
        async with calling(guarded(stores[0], deduplicate(), shop.handler())) as client:
            first = (await post(client, 1, shop))[0]
            await asyncio.sleep(0.02)
            second = (await post(client, 1, shop))[0]
        assert (first.text, second.text) == ("run 1 ....", "run 2 ....")


class TestNeverShared:
    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ({"headers": ALICE}, {"headers": {"x-user": "usr_bob"}}),
            ({"headers": {**ALICE, "cookie": "s=1"}}, {"headers": {**ALICE, "cookie": "s=2"}}),
            ({"headers": {"authorization": "Bearer a"}}, {"headers": {"authorization": "Bearer b"}}),
            ({"headers": {"x-api-key": "a"}}, {"headers": {"x-api-key": "b"}}),
            ({"headers": ALICE}, {"headers": {}}),
            ({"content": b"a"}, {"content": b"b"}),
            ({"params": {"a": "1"}}, {"params": {"a": "2"}}),
            ({"headers": {**ALICE, "accept": "text/html"}}, {"headers": {**ALICE, "accept": "text/plain"}}),
            ({"headers": {**ALICE, "x-tenant": "1"}}, {"headers": {**ALICE, "x-tenant": "2"}}),
        ],
        ids=["user", "cookie", "bearer", "key", "guest", "body", "query", "accept", "any header"],
    )
    async def test_other_requests(self, stores: list[Ephemeral], one: Any, other: Any) -> None:
        """DDP-01."""
        shop = Shop()
        async with calling(guarded(stores[0], deduplicate(), shop.handler())) as client:
            answers = await asyncio.gather(post(client, 1, shop, **one), post(client, 1, shop, **other))
        assert shop.runs == 2
        assert len({part[0].text for part in answers}) == 2

    async def test_guests_of_two_addresses(self) -> None:
        """DDP-01."""
        shop = Shop()
        app = guarded(MemoryEphemeral(), deduplicate(), shop.handler())
        async with calling(app) as here, calling(app, peer="198.51.100.1") as there:
            await asyncio.gather(post(here, 1, shop, headers={}), post(there, 1, shop, headers={}))
        assert shop.runs == 2

    async def test_guests_of_one_address_with_credentials_of_their_own(self, stores: list[Ephemeral]) -> None:
        """DDP-01: which headers a front end may change on the way does not matter to who is asking."""
        shop = Shop()
        async with calling(guarded(stores[0], deduplicate(), shop.handler())) as client:
            answers = await asyncio.gather(
                post(client, 1, shop, headers={"cookie": "sid=alice"}),
                post(client, 1, shop, headers={"cookie": "sid=bob"}),
            )
        assert shop.runs == 2
        assert len({part[0].text for part in answers}) == 2

    async def test_cookies_are_not_for_followers(self, stores: list[Ephemeral]) -> None:
        """DDP-01: two guests behind one address must not get one cart."""
        shop = Shop()
        shop.cookie = True
        async with calling(guarded(stores[0], deduplicate(), shop.handler())) as client:
            answers = await post(client, 5, shop)
        assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409, 409]
        assert sum("set-cookie" in answer.headers for answer in answers) == 1
        assert shop.runs == 1

    async def test_cookies_where_the_body_proves_who_it_is(self) -> None:
        shop = Shop()
        shop.cookie = True
        async with calling(guarded(MemoryEphemeral(), deduplicate(share_cookies=True), shop.handler())) as client:
            answers = await post(client, 5, shop)
        assert shop.runs == 1
        assert {answer.headers["set-cookie"] for answer in answers} == {"cart=1; Path=/; SameSite=lax"}


class TestLargeAndSlow:
    async def test_large_answers_to_unsafe_requests_are_409(self, stores: list[Ephemeral]) -> None:
        shop = Shop(size=70_000)
        async with calling(guarded(stores[0], deduplicate(), shop.handler())) as client:
            answers = await post(client, 4, shop)
        assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409]
        refused = next(answer for answer in answers if answer.status_code == 409)
        assert refused.json()["type"].endswith("/request-in-progress")
        assert shop.runs == 1

    async def test_large_answers_to_safe_requests_are_shared(self) -> None:
        shop = Shop(size=70_000)
        async with calling(guarded(MemoryEphemeral(), deduplicate(), shop.handler())) as client:
            answers = await post(client, 4, shop, method="GET")
        assert {answer.status_code for answer in answers} == {201}
        assert shop.runs == 1

    async def test_work_done_is_not_done_again_because_its_answer_is_huge(self) -> None:
        shop = Shop(size=2_000_000)
        async with calling(guarded(MemoryEphemeral(), deduplicate(), shop.handler())) as client:
            answers = await post(client, 3, shop)
        assert sorted(answer.status_code for answer in answers) == [201, 409, 409]
        assert shop.runs == 1

    async def test_waits_only_so_long(self, stores: list[Ephemeral]) -> None:
        shop = Shop()
        apps = [guarded(store, deduplicate(wait="1s"), shop.handler()) for store in stores]
        async with calling(apps[0]) as leader, calling(apps[-1]) as follower:
            first = asyncio.create_task(leader.post("/", content=b"order 7", headers=ALICE))
            await until(lambda: shop.runs)
            second = await follower.post("/", content=b"order 7", headers=ALICE)
            shop.open.set()
            assert (await first).status_code == 201
        assert (second.status_code, second.headers["retry-after"]) == (409, "1")


class TestFailures:
    async def test_a_crash_frees_the_followers(self, stores: list[Ephemeral]) -> None:
        shop = Shop()
        shop.fail = RuntimeError("boom")
        apps = [guarded(store, deduplicate(), shop.handler()) for store in stores]
        async with calling(apps[0]) as first, calling(apps[-1]) as second:
            parts = await asyncio.gather(post(first, 3, shop, of=6), post(second, 3, shop, of=6))
        statuses = sorted(answer.status_code for part in parts for answer in part)
        assert statuses == [201] * 5 + [500]
        assert shop.runs >= 2

    async def test_a_refusal_by_the_handler_is_an_answer(self) -> None:
        shop = Shop()
        shop.fail = AUTHENTICATION_REQUIRED().error()
        async with calling(guarded(MemoryEphemeral(), deduplicate(), shop.handler())) as client:
            answers = await post(client, 4, shop)
        assert {answer.status_code for answer in answers} == {401}
        assert shop.runs == 1

    async def test_a_cancelled_leader_frees_the_followers(self) -> None:
        shop = Shop()
        async with calling(guarded(MemoryEphemeral(), deduplicate(), shop.handler())) as client:
            leader = asyncio.create_task(client.post("/", content=b"order 7", headers=ALICE))
            await until(lambda: shop.runs)
            follower = asyncio.create_task(client.post("/", content=b"order 7", headers=ALICE))
            await until(lambda: _followers)
            leader.cancel()
            shop.open.set()
            assert (await follower).text == "run 2 ...."

    async def test_a_dead_replica_frees_the_others_when_its_lease_ends(self, valkey: ValkeyProcess) -> None:
        valkey.call("FLUSHALL")
        shop = Shop()
        stores = [RedisEphemeral.from_url(valkey.url, deadline=DEADLINE) for _ in range(2)]
        for store in stores:
            await store.start()
        apps = [guarded(store, deduplicate(lease="1s"), shop.handler()) for store in stores]
        async with calling(apps[0]) as dead, calling(apps[1]) as alive:
            stuck = asyncio.create_task(dead.post("/", content=b"order 7", headers=ALICE))
            await until(lambda: shop.runs)
            await stores[0].close()  # Killed, as far as the others can tell: it never says that it is done.
            shop.open.set()
            answer = await alive.post("/", content=b"order 7", headers=ALICE)
            await stuck
        assert answer.text == "run 2 ...."
        await stores[1].close()

    async def test_store_away_is_unavailable(self) -> None:
        store = RedisEphemeral.from_url("redis://127.0.0.1:1")
        await store.start()
        shop = Shop()
        async with calling(guarded(store, deduplicate(), shop.handler())) as client:
            answers = await post(client, 3, shop)
        assert {answer.status_code for answer in answers} == {503}
        assert shop.runs == 0
        await store.close()


class TestBind:
    """DDP-07."""

    @staticmethod
    def compile(policy: Policy, handler: Any, kind: Any = "http") -> None:
        services = Services()
        services.add(Ephemeral, MemoryEphemeral())
        Guard(services).compile(policy, handler, kind)

    @pytest.mark.parametrize("policy", [deduplicate(), idempotent(), public & deduplicate()])
    def test_streams_and_sockets_are_refused(self, policy: Policy) -> None:
        async def generator() -> Any:
            yield b""

        def stream(request: Any) -> StreamingResponse: ...
        async def socket(socket: Any) -> None: ...
        async def fine(request: Any) -> Response: ...

        for handler, kind in ((generator, "http"), (stream, "http"), (socket, "websocket")):
            with pytest.raises(ConfigError):
                self.compile(policy, handler, kind)
            self.compile(public, handler, kind)
        self.compile(policy, fine)

    @pytest.mark.parametrize("options", [{"wait": "x"}, {"lease": "0s"}, {"small": "many"}])
    def test_malformed_options(self, options: Any) -> None:
        with pytest.raises(ConfigError):
            deduplicate(**options)


async def test_the_store_going_away_meanwhile_spoils_no_answer(valkey: ValkeyProcess) -> None:
    server = ValkeyProcess()
    server.start()
    store = RedisEphemeral.from_url(server.url, deadline=0.3)
    await store.start()
    shop = Shop()
    async with calling(guarded(store, deduplicate(), shop.handler())) as client:
        running = asyncio.create_task(client.post("/", content=b"x"))
        await until(lambda: shop.runs)
        server.stop()
        shop.open.set()
        assert (await running).status_code == 201
    with pytest.raises(Unavailable):
        await store.get("k")
    await store.close()


async def test_a_mount_and_a_route_that_both_say_it_run_a_request_once(stores: list[Ephemeral]) -> None:
    shop, policy = Shop(), deduplicate(wait="200 ms")
    app = guarded(stores[0], policy, shop.handler())
    app.router.routes[:] = [Guard(Services())(policy & Identified())(Mount("", routes=list(app.router.routes)))]
    async with calling(app) as client:
        answers = await post(client, 3, shop)
    assert [(one.status_code, one.text) for one in answers] == [(201, "run 1 ....")] * 3
