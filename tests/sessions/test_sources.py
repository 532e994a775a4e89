"""Which credential of a request counts, where it carries several."""

from __future__ import annotations

from typing import Any

import pytest

from routeguard.core.credentials import Credential
from routeguard.core.errors import ConfigError, ProblemError
from routeguard.core.exchange import Exchange
from routeguard.core.request import RequestView
from routeguard.identity.sessions.sources import SessionSources

pytestmark = pytest.mark.anyio


class Cookie:
    """Finds whoever the cookie `name` names."""

    user_class = object

    def __init__(self, name: bytes) -> None:
        self.name = name

    def access(self, exchange: Exchange) -> bytes | None:
        value = exchange.request.cookie(self.name.decode())
        return None if value is None else value.encode()

    def presents(self, exchange: Exchange) -> bool:
        return self.access(exchange) is not None

    async def resume(self, exchange: Exchange) -> Any:
        value = self.access(exchange)
        return None if value in {None, b"dead"} else (self.name, value)


class Header:
    """Finds whoever a header credential names."""

    async def resume(self, exchange: Exchange, credential: Credential) -> Any:
        return None if credential.value == b"dead" else (credential.kind, credential.value)


@pytest.fixture
def sources() -> SessionSources[Any]:
    made: SessionSources[Any] = SessionSources(Cookie(b"own"))
    made.add("token", Header())
    made.add_token_cookies(Cookie(b"access"))
    return made


def sent(*headers: tuple[str, str]) -> Exchange:
    raw = [(name.encode(), value.encode()) for name, value in headers]
    return Exchange(RequestView({"type": "http", "method": "GET", "path": "/", "headers": raw}))


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ([], None),
        ([("cookie", "own=a")], (b"own", b"a")),
        ([("cookie", "own=a; access=b")], (b"own", b"a")),
        ([("cookie", "own=dead; access=b")], (b"access", b"b")),
        ([("cookie", "access=b")], (b"access", b"b")),
        ([("authorization", "Bearer t"), ("cookie", "own=a; access=b")], ("token", b"t")),
        # Put there on purpose: the cookies beside it do not save a token that is revoked.
        ([("authorization", "Bearer dead"), ("cookie", "own=a; access=b")], None),
        # No source takes API keys: that is for a policy of its own.
        ([("x-api-key", "rg_live_x"), ("cookie", "own=a")], (b"own", b"a")),
        ([("authorization", "Basic x"), ("cookie", "own=a")], (b"own", b"a")),
    ],
)
async def test_which_credential_counts(sources: SessionSources[Any], headers: Any, found: Any) -> None:
    exchange = sent(*headers)
    assert await sources.resume(exchange) == found
    assert sources.presents(exchange) == (bool(headers) and headers[0][0] in {"cookie", "authorization", "x-api-key"})


async def test_a_header_credential_is_recorded_and_a_cookie_is_not(sources: SessionSources[Any]) -> None:
    by_header, by_cookie = sent(("authorization", "Bearer t")), sent(("cookie", "own=a"))
    by_header.principal = await sources.resume(by_header)
    by_cookie.principal = await sources.resume(by_cookie)
    assert by_header.credential == Credential("token", b"t")
    assert by_cookie.credential is None


async def test_one_token_in_two_ways_is_refused(sources: SessionSources[Any]) -> None:
    """JWT-39 (RFC 6750 section 2)."""
    with pytest.raises(ProblemError) as refused:
        await sources.resume(sent(("authorization", "Bearer t"), ("cookie", "access=t")))
    assert refused.value.problem.status == 400


def test_two_sources_of_one_kind_are_a_finding(sources: SessionSources[Any]) -> None:
    with pytest.raises(ConfigError, match="'token'"):
        sources.add("token", Header())
    with pytest.raises(ConfigError, match="cookies of tokens"):
        sources.add_token_cookies(Cookie(b"other"))


def test_cookies_of_sessions_are_known_to_their_sources(sources: SessionSources[Any]) -> None:
    assert sources.presents_cookie(sent(("cookie", "access=b")))
    assert not sources.presents_cookie(sent(("cookie", "sid=b"), ("authorization", "Bearer t")))
