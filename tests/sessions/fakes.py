"""Requests as sessions see them, and a sign-in method that takes anybody's word."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from routeguard.core.exchange import Exchange
from routeguard.core.request import RequestView
from routeguard.identity.sessions.proof import Pending, Proof, Refused

if TYPE_CHECKING:
    from routeguard.foundation.db.database import Transaction
    from routeguard.identity.sessions.models import UserSession
    from routeguard.identity.sessions.sign_in import SignIn


def make_exchange(*cookies: str, method: str = "GET", headers: dict[str, str] | None = None) -> Exchange:
    """An exchange whose request carries `cookies`, each in a Cookie line of its own."""
    raw = [(b"cookie", cookie.encode("latin-1")) for cookie in cookies]
    raw += [(name.encode(), value.encode("latin-1")) for name, value in (headers or {}).items()]
    scope = {"type": "http", "method": method, "path": "/", "headers": raw, "client": ("192.0.2.7", 1234)}
    return Exchange(RequestView.from_scope(scope))


def cookie_of(exchange: Exchange) -> str | None:
    """The `name=value` of the only session cookie on the response, or None."""
    found = [value for name, value in exchange.effects if name == b"set-cookie" and b"routeguard=" in value]
    assert len(found) <= 1
    return found[0].decode().partition(";")[0] if found else None


async def enter(
    sign_in: SignIn[Any], user_id: str, exchange: Exchange, *, account: str | None = None, **proof: Any
) -> UserSession[Any] | Pending | Refused:
    """Sign in a user of whom nothing was asked."""

    async def check(tx: Transaction) -> Proof:
        return Proof(user_id=user_id, **{"amr": ("pwd",)} | proof)

    async with sign_in.attempt(account, exchange) as attempt:
        return await attempt.enter(check)
