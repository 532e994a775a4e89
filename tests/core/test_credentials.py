"""Tests of core/credentials.py."""

from __future__ import annotations

import pytest

from routeguard.core.credentials import Credential, credential_of
from routeguard.core.errors import ProblemError
from routeguard.core.request import RequestView


def request(*headers: tuple[bytes, bytes], query: bytes = b"") -> RequestView:
    return RequestView({"type": "http", "method": "GET", "path": "/", "headers": list(headers), "query_string": query})


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ((b"cookie", b"routeguard=x"), None),
        ((b"authorization", b"Basic eDp5"), None),
        ((b"authorization", b"Basic"), None),
        ((b"authorization", b""), None),
        ((b"authorization", b"Bearer"), ("token", b"")),
        ((b"authorization", b"Bearer "), ("token", b"")),
        ((b"authorization", b"Bearer " + b" " * 100), ("token", b"")),
        ((b"authorization", b"Bearer a b"), ("token", b"")),
        ((b"authorization", b"Bearer \xff\x00"), ("token", b"")),
        ((b"authorization", b"bearer a.b.c"), ("token", b"a.b.c")),
        ((b"authorization", b"BEARER   a.b.c"), ("token", b"a.b.c")),
        ((b"authorization", b"Bearer rg_test_a_b"), ("key", b"rg_test_a_b")),
        ((b"x-api-key", b"rg_test_a_b"), ("key", b"rg_test_a_b")),
        ((b"x-api-key", b"whatever"), ("key", b"whatever")),
    ],
)
def test_what_a_header_field_carries(header: tuple[bytes, bytes], found: tuple[str, bytes] | None) -> None:
    """JWT-40"""
    assert credential_of(request(header)) == (None if found is None else Credential(*found))


@pytest.mark.parametrize(
    "headers",
    [
        [(b"x-api-key", b"a"), (b"x-api-key", b"b")],
        [(b"x-api-key", b"a"), (b"authorization", b"Bearer b")],
        [(b"authorization", b"Bearer a"), (b"authorization", b"Bearer b")],
    ],
)
def test_two_credentials_are_malformed(headers: list[tuple[bytes, bytes]]) -> None:
    """KEY-08, JWT-39"""
    with pytest.raises(ProblemError) as refused:
        credential_of(request(*headers))
    assert refused.value.problem.type.status == 400


@pytest.mark.parametrize(
    "query",
    [
        b"access_token=a.b.c",
        b"x=1&ACCESS_TOKEN=a",
        b"api_key=rg_test_a_b",
        b"anything=rg_live_a",
        b"api%5Fkey=a",
        b"x=1;apikey=2",
        b"access_token",
        b"a=%72g_test_x",
    ],
)
def test_a_credential_in_the_url_is_malformed(query: bytes) -> None:
    """KEY-07, JWT-39"""
    with pytest.raises(ProblemError) as refused:
        credential_of(request(query=query))
    detail = refused.value.problem.detail
    assert detail is not None
    assert "Authorization or X-API-Key" in detail


@pytest.mark.parametrize(
    "query", [b"key=value&page=2", b"api_key_id=1", b"access_tokens=1", b"apikeys=1&my_api_key=2", b"org=rg_tests"]
)
def test_a_query_of_another_kind_is_nobody_s_business(query: bytes) -> None:
    assert credential_of(request(query=query)) is None


def test_it_never_shows_its_value() -> None:
    assert "secret" not in repr(Credential("key", b"rg_secret"))
