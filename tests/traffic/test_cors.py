"""Foreign pages read what they were allowed to, and nothing else."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from routeguard.core.decision import Reply
from routeguard.core.errors import ConfigError
from routeguard.core.policy import Check, Policy, Stage, public
from routeguard.core.services import Services
from routeguard.protection.traffic.cors import Cors, cors, preflight
from routeguard.protection.traffic.csrf import csrf

pytestmark = pytest.mark.anyio

PAGE = "https://page.example"
POLICY = cors(
    origins=[PAGE, "http://localhost:3000"],
    credentials=True,
    methods=["GET", "PUT"],
    headers=["X-Trace"],
    expose=["X-Total"],
    max_age=timedelta(minutes=1),
)
FOREIGN = [
    "https://evil.example",
    "null",
    "https://page.example.evil.com",
    "https://pageXexample",
    "http://page.example",
    "https://page.example:444",
    "https://PAGE.example",
    "https://sub.page.example",
    "*",
    "",
    "https://page.example/",
]


def asked(origin: str, method: str = "PUT", *headers: str) -> list[tuple[str, str]]:
    return [
        ("origin", origin),
        ("access-control-request-method", method),
        *(("access-control-request-headers", one) for one in headers),
    ]


async def test_a_named_origin_reads(make_exchange: Any, services: Services) -> None:
    exchange = make_exchange("GET", ("origin", PAGE))
    assert await POLICY.bind(services)(exchange) is None
    assert exchange.effects == [
        (b"access-control-allow-origin", PAGE.encode()),
        (b"access-control-allow-credentials", b"true"),
        (b"access-control-expose-headers", b"X-Total"),
        (b"vary", b"Origin"),
    ]


@pytest.mark.parametrize("origin", FOREIGN)
async def test_a_foreign_origin_does_not(make_exchange: Any, services: Services, origin: str) -> None:
    """CSRF-21: no ACAO, no ACAC; Vary: Origin."""
    exchange = make_exchange("GET", ("origin", origin))
    assert await POLICY.bind(services)(exchange) is None
    assert exchange.effects == [(b"vary", b"Origin")]
    answer = preflight(POLICY, make_exchange("OPTIONS", *asked(origin)).request)
    assert isinstance(answer, Reply)
    assert answer.status == 403
    assert [name for name, _ in answer.headers if name.startswith(b"access-control")] == []
    assert b"Origin" in dict(answer.headers)[b"vary"]


async def test_two_origins_are_foreign(make_exchange: Any, services: Services) -> None:
    exchange = make_exchange("GET", ("origin", PAGE), ("origin", "https://evil.example"))
    await POLICY.bind(services)(exchange)
    assert exchange.effects == [(b"vary", b"Origin")]


async def test_no_origin(make_exchange: Any, services: Services) -> None:
    exchange = make_exchange("GET")
    await POLICY.bind(services)(exchange)
    assert exchange.effects == [(b"vary", b"Origin")]


async def test_preflight_answers_in_the_handlers_place(make_exchange: Any, services: Services) -> None:
    exchange = make_exchange("OPTIONS", *asked(PAGE, "PUT", "content-type, X-TRACE"))
    answer = await (NoBody() & POLICY).bind(services)(exchange)
    assert isinstance(answer, Reply)
    assert answer.status == 204
    assert answer.body == b""
    assert dict(answer.headers) == {
        b"access-control-allow-origin": PAGE.encode(),
        b"access-control-allow-credentials": b"true",
        b"access-control-allow-methods": b"GET, PUT",
        b"access-control-allow-headers": b"X-Trace",
        b"access-control-max-age": b"60",
        b"vary": b"Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
    }
    assert exchange.effects == []


class NoBody(Check):
    """Stands for an identity check: a preflight must be answered before it is asked (CSRF-21)."""

    stage = Stage.IDENTITY

    def bind(self, services: Services) -> Any:
        async def fails(exchange: Any) -> None:
            raise AssertionError("the preflight reached the identity check")

        return fails

    def __and__(self, other: Policy) -> Policy:
        return Policy.of(self, other)


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("DELETE", []),
        ("put", []),
        ("", []),
        ("PUT", ["X-Other"]),
        ("PUT", ["X-Trace, Authorization"]),
        ("PUT", ["*"]),
        ("PUT", ["x-trace," * 10_000]),
        ("PUT", ["x-trace\x00"]),
    ],
)
async def test_preflight_refuses(make_exchange: Any, method: str, headers: list[str]) -> None:
    answer = preflight(POLICY, make_exchange("OPTIONS", *asked(PAGE, method, *headers)).request)
    assert isinstance(answer, Reply)
    assert answer.status == 403


async def test_what_is_no_preflight(make_exchange: Any, services: Services) -> None:
    for exchange in (
        make_exchange("OPTIONS", ("origin", PAGE)),
        make_exchange("OPTIONS", ("access-control-request-method", "PUT")),
        make_exchange("GET", *asked(PAGE)),
        make_exchange("GET", *asked(PAGE), kind="websocket"),
    ):
        assert preflight(POLICY, exchange.request) is None
        assert await POLICY.bind(services)(exchange) is None
    assert preflight(public, make_exchange("OPTIONS", *asked(PAGE)).request) is None


async def test_everybody(make_exchange: Any, services: Services) -> None:
    anyone = cors(origins=["*"])
    exchange = make_exchange("GET", ("origin", "https://any.example"))
    await anyone.bind(services)(exchange)
    assert exchange.effects[0] == (b"access-control-allow-origin", b"*")
    answer = preflight(anyone, make_exchange("OPTIONS", *asked("null", "POST")).request)
    assert isinstance(answer, Reply)
    assert answer.status == 204
    assert b"access-control-allow-credentials" not in dict(answer.headers)


async def test_reading_is_not_trusting(make_exchange: Any, outcome: Any) -> None:
    """A page that may read is still foreign to csrf()."""
    headers = [("origin", PAGE), ("cookie", "__Host-routeguard=x")]
    assert await outcome(POLICY & csrf(), make_exchange("POST", *headers)) == 403


@pytest.mark.parametrize(
    "wrong",
    [
        {"origins": ["*"], "credentials": True},
        {"origins": ["*", PAGE]},
        {"origins": []},
        {"origins": ["null"]},
        {"origins": ["https://*.example"]},
        {"origins": [PAGE + "/"]},
        {"origins": [PAGE], "methods": ["GET, PUT"]},
        {"origins": [PAGE], "headers": ["*"]},
        {"origins": [PAGE], "expose": ["a\r\nb"]},
        {"origins": [PAGE], "max_age": timedelta(seconds=-1)},
    ],
)
def test_mistakes_are_found_at_start_up(services: Services, wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        cors(**wrong).bind(services)


def test_it_refuses_nothing() -> None:
    assert Cors.attacks is Check.attacks
    assert POLICY.describe() == f"readable by {PAGE} and http://localhost:3000"
    assert cors(origins=["*"]).describe() == "readable by any page"
