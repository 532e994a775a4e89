"""Bodies have a size, stated once."""

from __future__ import annotations

from typing import Any

import pytest

from routeguard.core.errors import ConfigError
from routeguard.core.policy import Stage
from routeguard.core.problem import Problem
from routeguard.core.services import Services
from routeguard.protection.guard.transport import refuse_coding, refuse_framing
from routeguard.protection.traffic.body_limit import BodyLimit, body_limit

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        pytest.param([("content-length", "2048")], None, id="exactly the limit"),
        pytest.param([("content-length", "0002048")], None, id="leading zeros"),
        pytest.param([("content-length", "2049")], 413, id="BODY-01"),
        pytest.param([("content-length", "2049"), ("expect", "100-continue")], 413, id="HTTP-15"),
        pytest.param([("transfer-encoding", "chunked")], None, id="chunked: counted by the edge"),
        pytest.param([("content-length", "5"), ("content-length", "5")], 400, id="length twice, equal"),
        pytest.param([("content-length", "5"), ("content-length", "9999")], 400, id="length twice"),
        pytest.param([("content-length", "5, 5")], 400, id="length list"),
        pytest.param([("content-length", "5"), ("transfer-encoding", "chunked")], 400, id="length and chunked"),
        pytest.param([("content-length", "99999"), ("transfer-encoding", "chunked")], 400, id="long and chunked"),
        pytest.param([("content-length", " 5")], 400, id="blank"),
        pytest.param([("content-length", "five")], 400, id="a word"),
        pytest.param([("content-length", "²")], 400, id="superscript"),
        pytest.param([("content-length", "9" * 100_000)], 400, id="100 000 digits"),
        pytest.param([("content-encoding", "gzip")], 415, id="BODY-05"),
        pytest.param([("content-encoding", "gzip, gzip"), ("content-length", "5")], 415, id="BODY-06"),
        pytest.param([("content-encoding", "br"), ("transfer-encoding", "chunked")], 415, id="BODY-06 br"),
        pytest.param([("content-encoding", "identity"), ("content-encoding", "gzip")], 415, id="BODY-06 two fields"),
        pytest.param([("content-encoding", "gzip"), ("content-length", "x")], 400, id="coded, malformed"),
        pytest.param([("content-encoding", "Identity"), ("content-length", "5")], None, id="identity"),
        pytest.param([], None, id="no body"),
    ],
)
@pytest.mark.parametrize("method", ["POST", "GET", "DELETE"])
async def test_what_is_declared(
    make_exchange: Any, outcome: Any, method: str, headers: Any, status: int | None
) -> None:
    """BODY-20: for every method."""
    assert await outcome(body_limit("2 KB"), make_exchange(method, *headers)) == status


async def test_coded_and_too_long(make_exchange: Any, outcome: Any) -> None:
    coded = make_exchange("POST", ("content-encoding", "identity"), ("content-length", "9999"))
    assert await outcome(body_limit("2 KB"), coded) == 413


async def test_tells_the_edge(make_exchange: Any, services: Services) -> None:
    """The smallest of several counts, whoever stated it."""
    exchange = make_exchange("POST")
    await body_limit("2 KB").bind(services)(exchange)
    assert exchange.body_limit == 2048
    await (body_limit("1 MB") & body_limit(100)).bind(services)(exchange)
    assert exchange.body_limit == 100
    assert BodyLimit(7).body_limit == 7


async def test_415_says_what_would_do(make_exchange: Any, services: Services) -> None:
    answer = await body_limit(1).bind(services)(make_exchange("POST", ("content-encoding", "zstd")))
    assert isinstance(answer, Problem)
    assert answer.headers == (("accept-encoding", "identity"),)


def test_sizes_are_read_at_once() -> None:
    for size in ("two KB", "-1", "1.5 KB", True, -1):
        with pytest.raises(ConfigError):
            body_limit(size)


@pytest.mark.parametrize(
    ("size", "words"),
    [
        ("2 KB", "body up to 2 KB"),
        (1500, "body up to 1500 bytes"),
        ("3 mb", "body up to 3 MB"),
        (0, "body up to 0 bytes"),
    ],
)
def test_words(size: str | int, words: str) -> None:
    assert body_limit(size).describe() == words
    assert BodyLimit(1).stage is Stage.TRANSPORT


def test_the_parts_alone(make_exchange: Any) -> None:
    """The edge asks them for routes without a limit of their own."""
    fine = make_exchange("POST", ("content-length", "5")).request
    assert refuse_framing(fine) is None
    assert refuse_coding(fine) is None
    both = make_exchange("POST", ("content-length", "5"), ("transfer-encoding", "chunked")).request
    assert refuse_framing(both) is not None
