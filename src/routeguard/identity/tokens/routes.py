"""Tokens over HTTP, under /auth: as JSON for programs, as cookies for browsers that should hold none."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from routeguard.core.credentials import credential_of
from routeguard.core.policy import public
from routeguard.core.problem import PERMISSION_DENIED
from routeguard.foundation.web.body import read
from routeguard.foundation.web.reply import reply
from routeguard.foundation.web.routes import get, post
from routeguard.identity.sessions import checks
from routeguard.identity.sessions.routes import exchange_of, session_of
from routeguard.identity.tokens.ambient import CookieTokens
from routeguard.identity.tokens.checks import csrf_for_refresh
from routeguard.identity.tokens.keys import SigningKeys
from routeguard.identity.tokens.problems import invalid_token
from routeguard.identity.tokens.service import Tokens
from routeguard.protection.traffic.operations import REFRESH, operation

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    from routeguard.core.services import Services
    from routeguard.identity.tokens.service import TokenPair

_JWKS_AGE: Final = 60
"""Seconds; far below `tokens.publish_ahead`."""


def routes(services: Services) -> list[Route]:
    """Return the endpoints over the registered `Tokens`."""
    endpoints = _Endpoints(services.get(Tokens), services.get(CookieTokens))
    published = partial(_published, services.get(SigningKeys))
    refresh = public & csrf_for_refresh() & operation(services, REFRESH)
    return [
        post(
            "/auth/token",
            endpoints.issue,
            checks.session() & operation(services, "token", show_remaining=True, on_outage="local"),
        ),
        post("/auth/token/refresh", endpoints.refresh, refresh),
        get("/.well-known/jwks.json", published, public),
    ]


async def _published(keys: SigningKeys, request: Request) -> Response:  # noqa: ARG001 - a handler's shape
    response = reply(keys.jwks())
    response.headers["content-type"] = "application/jwk-set+json"
    # Of no caller, so every cache may keep it; not for long, so that a revoked key is soon gone from all.
    response.headers["cache-control"] = f"public, max-age={_JWKS_AGE}"
    return response


@dataclass(frozen=True, slots=True)
class _Issue:
    cookies: bool = False


@dataclass(frozen=True, slots=True)
class _Refresh:
    refresh_token: str | None = field(default=None, repr=False)


class _Endpoints:
    def __init__(self, tokens: Tokens[Any], cookies: CookieTokens[Any]) -> None:
        self._tokens = tokens
        self._cookies = cookies

    async def issue(self, request: Request) -> Response:
        exchange = exchange_of(request)
        # A copied access token is good for minutes; it must not become a refresh token that is good for days.
        credential = credential_of(exchange.request)
        if credential is not None and credential.kind == "token":
            raise PERMISSION_DENIED(debug="tokens are for who came by a cookie").error()
        wanted = await read(request, _Issue)
        pair = await self._tokens.issue(session_of(request), exchange, include_user=not wanted.cookies)
        if not wanted.cookies:
            return _answer(pair, shown=True)
        self._cookies.put(exchange, pair)
        return _answer(pair, shown=False)

    async def refresh(self, request: Request) -> Response:
        given = await read(request, _Refresh)
        exchange = exchange_of(request)
        if given.refresh_token is None:
            pair = await self._cookies.refresh(exchange)
        else:
            pair = await self._tokens.refresh(given.refresh_token, exchange)
        if pair is None:
            raise invalid_token("no live refresh token").error()
        return _answer(pair, shown=given.refresh_token is not None)


def _answer(pair: TokenPair[Any], *, shown: bool) -> Response:
    body: dict[str, Any] = {"token_type": "Bearer", "expires_in": pair.expires_in}
    if shown:
        body = {"access_token": pair.access_token, "refresh_token": pair.refresh_token} | body
    response = reply(body)
    # RFC 6749 section 5.1: no cache keeps tokens.
    response.headers["cache-control"] = "no-store"
    return response
