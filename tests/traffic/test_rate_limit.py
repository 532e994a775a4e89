"""Rates: exact, per caller, told in fields that parse, and declared when the store is away."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote

import pytest
from starlette.requests import Request
from starlette.responses import Response

from routeguard.core.address import parse_networks
from routeguard.core.errors import ConfigError, Unavailable
from routeguard.core.exchange import Exchange
from routeguard.core.policy import Policy, public
from routeguard.core.problem import Problem
from routeguard.core.services import Services
from routeguard.foundation.ephemeral.memory import MemoryEphemeral
from routeguard.foundation.ephemeral.protocol import Ephemeral
from routeguard.foundation.ephemeral.redis import RedisEphemeral
from routeguard.protection.traffic.rate_limit import api_key, ip, plan, rate_limit, user
from routeguard.protection.traffic.site import Site
from tests.ephemeral.server import ValkeyProcess
from tests.steady import DEADLINE

from .conftest import Caller, MakeExchange
from .harness import guarded

COVERS = ("protection/traffic/problems", "protection/traffic/site")

pytestmark = pytest.mark.anyio

_ITEM = re.compile(r'"[ -!#-\[\]-~]*"(;[a-z]+(=\d+)?)*')


def parse_list(value: str) -> list[tuple[str, dict[str, int | bool]]]:
    """Read an RFC 9651 list of strings with integer or true parameters; refuses anything else."""
    members = []
    for member in value.split(", "):
        assert _ITEM.fullmatch(member), member
        label, *parameters = member.split(";")
        pairs = (parameter.partition("=") for parameter in parameters)
        members.append((label[1:-1], {name: int(value) if sign else True for name, sign, value in pairs}))
    return members


def fields(exchange: Exchange, outcome: Any = None) -> dict[str, str]:
    found = {name.decode(): value.decode() for name, value in exchange.effects}
    return found | dict(outcome.headers) if isinstance(outcome, Problem) else found


async def passed(policy: Policy, services: Services, exchanges: list[Exchange]) -> int:
    check = policy.bind(services)
    return sum([await check(exchange) is None for exchange in exchanges])


def on_valkey(url: str) -> tuple[Services, RedisEphemeral]:
    services = Services()
    store = RedisEphemeral.from_url(url, deadline=DEADLINE)
    services.add(Ephemeral, store)
    return services, store


@pytest.fixture(scope="module")
def valkey() -> Iterator[ValkeyProcess]:
    server = ValkeyProcess()
    server.start()
    yield server
    server.stop()


class TestExact:
    @pytest.mark.parametrize("algorithm", ["gcra", "sliding"])
    async def test_ten_of_a_thousand_in_memory(
        self, make_exchange: MakeExchange, services: Services, algorithm: Any
    ) -> None:
        """RL-07."""
        check = rate_limit("10/minute", algorithm=algorithm).bind(services)
        outcomes = await asyncio.gather(*[check(make_exchange()) for _ in range(1000)])
        assert outcomes.count(None) == 10
        assert {outcome.status for outcome in outcomes if outcome is not None} == {429}

    async def test_unguarded_twin(self, make_exchange: MakeExchange, services: Services) -> None:
        """RL-07: without the limit all pass."""
        assert await passed(public, services, [make_exchange() for _ in range(1000)]) == 1000

    @pytest.mark.parametrize("algorithm", ["gcra", "sliding"])
    async def test_ten_of_a_thousand_in_two_processes(self, valkey: ValkeyProcess, algorithm: str) -> None:
        """RL-07: two replicas on one Valkey."""
        code = f"""
import asyncio, sys
from routeguard.core.exchange import Exchange
from routeguard.core.request import RequestView
from routeguard.core.services import Services
from routeguard.foundation.ephemeral.protocol import Ephemeral
from routeguard.foundation.ephemeral.redis import RedisEphemeral
from routeguard.protection.traffic.rate_limit import rate_limit

async def main():
    services = Services()
    store = services.add(Ephemeral, RedisEphemeral.from_url({valkey.url!r}, deadline=20))
    await store.start()
    check = rate_limit("10/minute", algorithm={algorithm!r}, name="shared").bind(services)
    sys.stdout.write("ready\\n"); sys.stdout.flush(); sys.stdin.readline()
    scope = {{"type": "http", "method": "GET", "path": "/", "headers": [], "client": ("203.0.113.9", 1)}}
    outcomes = await asyncio.gather(*[check(Exchange(RequestView(scope))) for _ in range(500)])
    print(outcomes.count(None), len(outcomes))
    await store.close()

asyncio.run(main())
"""
        pipe = asyncio.subprocess.PIPE
        running = [
            await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdin=pipe, stdout=pipe) for _ in range(2)
        ]
        for process in running:
            assert process.stdout is not None
            assert await process.stdout.readline() == b"ready\n"
        answers = await asyncio.gather(*[process.communicate(b"go\n") for process in running])
        counts = [list(map(int, out.split())) for out, _ in answers]
        assert sum(count for count, _ in counts) == 10
        assert [total for _, total in counts] == [500, 500]


class TestWho:
    async def test_one_address_one_bucket(self, make_exchange: MakeExchange, services: Services) -> None:
        """RL-01: rotating X-Forwarded-For changes nothing while no proxy is trusted."""
        exchanges = [make_exchange("GET", ("x-forwarded-for", f"198.51.100.{n}")) for n in range(20)]
        assert await passed(rate_limit("5/minute"), services, exchanges) == 5

    async def test_believing_the_header_would_let_all_in(self, make_exchange: MakeExchange, services: Services) -> None:
        """RL-01: the twin that trusts whoever connects."""
        services.add(Site, Site(trusted_proxies=parse_networks(["0.0.0.0/0"])))
        exchanges = [make_exchange("GET", ("x-forwarded-for", f"2001:db8:{n:x}::1")) for n in range(20)]
        assert await passed(rate_limit("5/minute"), services, exchanges) == 20

    @pytest.mark.parametrize(
        "header",
        [
            "",
            ",",
            "unknown",
            "10.0.0.1, ",
            "198.51.100.{n}, garbage",
            '"198.51.100.{n}',
            "[2001:db8::{n}",
            "1.2.3.{n}:x",
            "198.51.100.{n}, 10.0.0.1:99999999",
            "_hidden{n}",
            ", , ,",
        ],
    )
    async def test_a_chain_that_cannot_be_read_is_the_proxy_itself(
        self, make_exchange: MakeExchange, services: Services, header: str
    ) -> None:
        """RL-02."""
        services.add(Site, Site(trusted_proxies=parse_networks(["10.0.0.0/8"])))
        exchanges = [make_exchange("GET", ("x-forwarded-for", header.format(n=n)), peer="10.0.0.2") for n in range(10)]
        assert await passed(rate_limit("5/minute"), services, exchanges) == 5

    async def test_the_right_hop_behind_proxies(self, make_exchange: MakeExchange, services: Services) -> None:
        """RL-02: what the client wrote stands left of what our proxy wrote."""
        services.add(Site, Site(trusted_proxies=parse_networks(["10.0.0.0/8"])))
        header = "198.51.100.{n}, 203.0.113.1, 10.0.0.1"
        exchanges = [make_exchange("GET", ("x-forwarded-for", header.format(n=n)), peer="10.0.0.2") for n in range(10)]
        assert await passed(rate_limit("5/minute"), services, exchanges) == 5

    async def test_mapped_and_plain_ipv4_are_one(self, make_exchange: MakeExchange, services: Services) -> None:
        """RL-05."""
        exchanges = [
            make_exchange(peer=("203.0.113.7", "::ffff:203.0.113.7", "::ffff:cb00:7107")[n % 3]) for n in range(9)
        ]
        assert await passed(rate_limit("5/minute"), services, exchanges) == 5

    async def test_many_ipv4_clients_on_a_dual_stack_are_many(
        self, make_exchange: MakeExchange, services: Services
    ) -> None:
        """RL-05."""
        exchanges = [make_exchange(peer=f"::ffff:203.0.113.{n}") for n in range(20)]
        assert await passed(rate_limit("1/minute"), services, exchanges) == 20

    async def test_a_subscriber_is_a_64(self, make_exchange: MakeExchange, services: Services) -> None:
        """RL-05."""
        same = [make_exchange(peer=f"2001:db8:1:2::{n:x}") for n in range(20)]
        assert await passed(rate_limit("5/minute"), services, same) == 5
        other = [make_exchange(peer=f"2001:db8:1:{n:x}::1") for n in range(10, 30)]
        assert await passed(rate_limit("5/minute"), services, other) == 20

    @pytest.mark.parametrize("algorithm", ["gcra", "sliding"])
    async def test_a_race_within_a_64(self, make_exchange: MakeExchange, algorithm: Any) -> None:
        """RL-05, RL-07: exactly the limit; a token bucket regains units while a race lasts, a sliding window none."""
        now = [1000.0]
        services = Services()
        services.add(Ephemeral, MemoryEphemeral(clock=lambda: now[0]))
        check = rate_limit("20/minute", algorithm=algorithm).bind(services)
        numbers = iter(range(10_000))

        async def race() -> int:
            together = [check(make_exchange(peer=f"2001:db8:1:2::{next(numbers):x}")) for _ in range(100)]
            return (await asyncio.gather(*together)).count(None)

        regained = {"gcra": (0, 1, 18), "sliding": (0, 0, 0)}[algorithm]
        assert await race() == 20
        for second, more in zip((1002.9, 1003.1, 1059.9), regained, strict=True):
            now[0] = second
            assert await race() == more

    async def test_by_user(self, make_exchange: MakeExchange, services: Services) -> None:
        policy = rate_limit("3/minute", by=user)
        exchanges = [make_exchange(peer=f"203.0.113.{n}", principal=Caller(f"ses_{n}", "usr_1")) for n in range(9)]
        assert await passed(policy, services, exchanges) == 3
        assert await passed(policy, services, [make_exchange(principal=Caller("ses_x", "usr_2"))]) == 1

    async def test_guests_are_counted_by_address(self, make_exchange: MakeExchange, services: Services) -> None:
        for n, by in enumerate((user, api_key, lambda exchange: None)):
            assert await passed(rate_limit("3/minute", by=by, name=f"{n}"), services, [make_exchange()] * 9) == 3

    async def test_by_api_key(self, make_exchange: MakeExchange, services: Services) -> None:
        exchanges = [make_exchange(principal=Caller("x", f"key_{n % 2}")) for n in range(20)]
        assert await passed(rate_limit("3/minute", by=api_key), services, exchanges) == 6

    async def test_by_plan(self, make_exchange: MakeExchange, services: Services) -> None:
        @dataclass(frozen=True)
        class Customer:
            principal_id: str
            plan: str

        policy = rate_limit({"free": "2/minute", "pro": "6/minute", "big": ["8/minute", "9/hour"]}, by=plan)
        for name, most in (("free", 2), ("pro", 6), ("big", 8), ("made up", 2)):
            exchanges = [make_exchange(principal=Customer(f"usr_{name}", name)) for _ in range(20)]
            assert await passed(policy, services, exchanges) == most, name

    async def test_by_a_function(self, make_exchange: MakeExchange, services: Services) -> None:
        def tenant(exchange: Exchange) -> str | None:
            return exchange.request.header("x-tenant")

        policy = rate_limit("2/minute", by=tenant)
        exchanges = [make_exchange("GET", ("x-tenant", f"{'}' * 3}{n % 2}" + "x" * 5000)) for n in range(10)]
        assert await passed(policy, services, exchanges) == 4
        assert policy.describe() == "at most 2/minute by tenant"
        store = services.get(Ephemeral)
        assert isinstance(store, MemoryEphemeral)
        assert max(map(len, store._tats.items)) < 200

    async def test_handlers_have_budgets_of_their_own_unless_named(
        self, make_exchange: MakeExchange, services: Services
    ) -> None:
        """RL-19: one operation behind several handlers has one budget."""

        def form() -> None: ...
        def json() -> None: ...

        exchanges = [make_exchange(endpoint=(form, json)[n % 2]) for n in range(20)]
        assert await passed(rate_limit("3/minute", name="sign-in"), services, exchanges) == 3
        assert await passed(rate_limit("3/minute"), services, exchanges) == 6

    @pytest.mark.parametrize("kind", ["closure", "lambda", "partial", "method", "instance"])
    async def test_handlers_made_alike_do_not_share(
        self, make_exchange: MakeExchange, services: Services, kind: str
    ) -> None:
        """RL-19: whoever uses up one must not use up the other; in a second process both are called the same."""

        def made() -> list[Any]:
            return [Made().of(kind) for _ in range(2)]

        routes = [SimpleNamespace(path=path) for path in ("/a/{id}", "/b")]
        here, there = made(), made()
        exchanges = [make_exchange(endpoint=here[n % 2], route=routes[n % 2]) for n in range(20)]
        assert await passed(rate_limit("3/minute"), services, exchanges) == 6
        exchanges = [make_exchange(endpoint=there[n % 2], route=routes[n % 2]) for n in range(20)]
        assert await passed(rate_limit("3/minute"), services, exchanges) == 0

    async def test_one_function_at_two_paths_has_one_budget(
        self, make_exchange: MakeExchange, services: Services
    ) -> None:
        """RL-19."""
        routes = [SimpleNamespace(path=path) for path in ("/v1/pay", "/v2/pay")]
        handlers: list[Any] = [passed, Made]
        for handler in handlers:
            exchanges = [make_exchange(endpoint=handler, route=routes[n % 2]) for n in range(20)]
            assert await passed(rate_limit("3/minute"), services, exchanges) == 3


class Made:
    """Handlers that differ in nothing but what they were made with."""

    def of(self, kind: str) -> Any:
        def closure() -> Made:
            return self

        return {
            "closure": closure,
            "lambda": lambda: self,
            "partial": partial(print, self),
            "method": self.of,
            "instance": self,
        }[kind]


class TestFields:
    async def test_on_passes_and_refusals(self, make_exchange: MakeExchange, services: Services) -> None:
        """RL-18."""
        check = rate_limit("2/minute", name="login").bind(services)
        left = []
        for _ in range(2):
            exchange = make_exchange()
            assert await check(exchange) is None
            [(name, told)] = parse_list(fields(exchange)["ratelimit"])
            assert name == "login"
            left.append(told["r"])
            assert parse_list(fields(exchange)["ratelimit-policy"]) == [("login", {"q": 2, "w": 60})]
        assert left == [1, 0]
        exchange = make_exchange()
        refused = await check(exchange)
        assert isinstance(refused, Problem)
        told = parse_list(fields(exchange, refused)["ratelimit"])[0][1]
        assert told["r"] == 0
        assert int(fields(exchange, refused)["retry-after"]) >= told["t"] > 0
        body = refused.body()
        assert body["type"] == "https://iana.org/assignments/http-problem-types#quota-exceeded"
        assert (body["status"], body["violated-policies"]) == (429, ["login"])

    async def test_several_rates(self, make_exchange: MakeExchange, services: Services) -> None:
        """RL-18."""
        check = rate_limit(["2/second", "3/hour"], name="50%").bind(services)
        exchange = make_exchange()
        await check(exchange)
        assert parse_list(fields(exchange)["ratelimit-policy"]) == [
            ("50% 2/second", {"q": 2, "w": 1}),
            ("50% 3/hour", {"q": 3, "w": 3600}),
        ]
        assert [told["r"] for _, told in parse_list(fields(exchange)["ratelimit"])] == [1, 2]
        await check(exchange)
        refused = await check(make_exchange())
        assert isinstance(refused, Problem)
        assert refused.members["violated-policies"] == ["50% 2/second"]

    async def test_an_oracle_is_not_told(self, make_exchange: MakeExchange, services: Services) -> None:
        check = rate_limit("1/minute", remaining=False).bind(services)
        exchange = make_exchange()
        await check(exchange)
        assert set(fields(exchange)) == {"ratelimit-policy"}
        refused = await check(make_exchange())
        assert isinstance(refused, Problem)
        assert set(dict(refused.headers)) == {"retry-after"}

    async def test_a_percent_sign_in_a_name(self, make_exchange: MakeExchange, services: Services) -> None:
        exchange = make_exchange()
        assert await rate_limit("2/minute", name="100%d").bind(services)(exchange) is None
        assert parse_list(fields(exchange)["ratelimit"])[0][0] == "100%d"

    async def test_waiting_as_told_lets_in(self, make_exchange: MakeExchange) -> None:
        now = [1000.0]
        services = Services()
        services.add(Ephemeral, MemoryEphemeral(clock=lambda: now[0]))
        check = rate_limit("1/s").bind(services)
        await check(make_exchange())
        refused = await check(make_exchange())
        assert isinstance(refused, Problem)
        now[0] += int(dict(refused.headers)["retry-after"])
        assert await check(make_exchange()) is None


class TestOutage:
    async def test_refuse(self, make_exchange: MakeExchange) -> None:
        """RL-13: nobody passes uncounted; the policy field stands on the 503 too (RL-18)."""
        services, store = on_valkey("valkey://127.0.0.1:1")
        await store.start()
        exchange = make_exchange()
        with pytest.raises(Unavailable) as caught:
            await rate_limit("5/minute").bind(services)(exchange)
        assert caught.value.retry_after >= 1
        assert parse_list(fields(exchange)["ratelimit-policy"])
        await store.close()

    async def test_local(self, make_exchange: MakeExchange) -> None:
        """RL-13: counted in the process, and said so."""
        services, store = on_valkey("valkey://127.0.0.1:1")
        await store.start()
        exchanges = [make_exchange() for _ in range(20)]
        assert await passed(rate_limit("5/minute", on_outage="local"), services, exchanges) == 5
        assert all(parse_list(fields(one)["ratelimit-policy"])[0][1]["degraded"] for one in exchanges)
        await store.close()

    async def test_counts_in_the_store_again_when_it_is_back(self, make_exchange: MakeExchange) -> None:
        """RL-13."""
        server = ValkeyProcess()
        server.start()
        services, store = on_valkey(server.url)
        await store.start()
        check = rate_limit("5/minute", on_outage="local").bind(services)
        try:
            exchange = make_exchange()
            await check(exchange)
            assert "degraded" not in fields(exchange)["ratelimit-policy"]
            server.stop()
            exchange = make_exchange()
            await check(exchange)
            assert "degraded" in fields(exchange)["ratelimit-policy"]
            server.start()
            for _ in range(3000):
                exchange = make_exchange()
                await check(exchange)
                if "degraded" not in fields(exchange)["ratelimit-policy"]:
                    break
                await asyncio.sleep(0.01)
            else:
                pytest.fail("still degraded long after the store was back")
        finally:
            await store.close()
            server.stop()


class TestDefinition:
    @pytest.mark.parametrize(
        "make",
        [
            lambda: rate_limit("often"),
            lambda: rate_limit("0/minute"),
            lambda: rate_limit(""),
            lambda: rate_limit([]),
            lambda: rate_limit({}, by=plan),
            lambda: rate_limit({"free": "x"}, by=plan),
            lambda: rate_limit({"free": "1/minute"}),
            lambda: rate_limit("1/minute", by=plan),
            lambda: rate_limit("1/minute", by="ip"),  # type: ignore[arg-type]
            lambda: rate_limit("1/minute", algorithm="fixed"),  # type: ignore[arg-type]
            lambda: rate_limit("1/minute", burst=0),
            lambda: rate_limit("1/minute", burst=1.5),  # type: ignore[arg-type]
            lambda: rate_limit("5/minute", algorithm="sliding", burst=10),
            lambda: rate_limit("1/minute", cost=0),
            lambda: rate_limit("1/minute", cost=2),
            lambda: rate_limit("1/minute", on_outage="open"),  # type: ignore[arg-type]
            lambda: rate_limit("1/minute", name='a"b'),
            lambda: rate_limit("1/minute", name="a\r\nb"),
        ],
    )
    def test_refuses(self, make: Any) -> None:
        with pytest.raises(ConfigError):
            make()

    def test_all_findings_at_once(self) -> None:
        with pytest.raises(ConfigError) as caught:
            rate_limit({"free": "x", "pro": "y"}, by=plan, name="é")
        assert len(caught.value.findings) == 3

    def test_without_a_store_it_does_not_start(self) -> None:
        with pytest.raises(ConfigError, match="Ephemeral"):
            rate_limit("1/minute").bind(Services())

    def test_words(self) -> None:
        assert rate_limit("60/minute").describe() == "at most 60/minute by address"
        tiers = rate_limit({"free": "1/minute", "pro": ["2/second", "9/hour"]}, by=plan)
        assert tiers.describe() == "at most free 1/minute, pro 2/second and 9/hour by plan"
        assert rate_limit("1/minute", by=ip) == rate_limit("1/m")


class TestSpellings:
    """RL-06."""

    PATHS = ("/login", "/login/", "//login", "/LOGIN", "/%6cogin", "/login;x", "/./login", "/login?x=1", "/x/../login")

    async def test_no_spelling_has_a_bucket_of_its_own(self) -> None:
        assert await self.passes(rate_limit("5/minute")) == 5

    async def test_unguarded_twin(self) -> None:
        assert await self.passes(public) > 5

    async def passes(self, policy: Policy) -> int:
        async def login(request: Request) -> Response:
            return Response("in")

        app = guarded(MemoryEphemeral(), policy, login, path="/login")
        sent: list[int] = []

        async def receive() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def keep(message: Any) -> None:
            if message["type"] == "http.response.start":
                sent.append(message["status"])

        for _ in range(4):
            for spelling in self.PATHS:
                path, _, query = spelling.partition("?")
                await app(
                    {
                        "type": "http",
                        "method": "POST",
                        "path": unquote(path),
                        "raw_path": path.encode(),
                        "query_string": query.encode(),
                        "root_path": "",
                        "scheme": "http",
                        "server": ("test", 80),
                        "client": ("203.0.113.7", 1),
                        "asgi": {"version": "3.0"},
                        "http_version": "1.1",
                        "headers": [],
                    },
                    receive,
                    keep,
                )
        assert set(sent) <= {200, 307, 404, 429}
        return sent.count(200)
