"""Exchanges without a server: decisions need no HTTP."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from routeguard.core.clock import Clock
from routeguard.core.exchange import Exchange
from routeguard.core.policy import Policy
from routeguard.core.problem import Problem
from routeguard.core.request import RequestView
from routeguard.core.services import Services
from routeguard.foundation.ephemeral.memory import MemoryEphemeral
from routeguard.foundation.ephemeral.protocol import Ephemeral
from routeguard.protection.traffic.csrf import CsrfTokens
from tests.fakes import deployment

ORIGINS = ("https://app.example.com", "http://127.0.0.1:8000")


@dataclass
class SetClock:
    """A clock that stands where it is put."""

    at: float = 1_800_000_000.0

    def time(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.at, UTC)


@dataclass(frozen=True)
class Caller:
    """A principal with an id of its session."""

    id: str = "ses_1"
    principal_id: str = "usr_1"


MakeExchange = Callable[..., Exchange]


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
def make_exchange() -> MakeExchange:
    """Return a maker of exchanges: method, headers as pairs, kind, peer address, principal."""

    def make(
        method: str = "POST",
        *headers: tuple[str, str],
        kind: str = "http",
        peer: str | None = "203.0.113.7",
        principal: Any = None,
        **scope: Any,
    ) -> Exchange:
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        whole = {
            "type": kind,
            "method": method,
            "path": "/",
            "headers": raw,
            "client": (peer, 5000) if peer else None,
            **scope,
        }
        if kind == "websocket":
            del whole["method"]
        exchange = Exchange(RequestView.from_scope(whole))
        exchange.principal = principal
        return exchange

    return make


@pytest.fixture
def services(clock: SetClock) -> Services:
    """Return services as the composition root registers them."""
    services = Services()
    services.add(Clock, clock)
    services.add(Ephemeral, MemoryEphemeral())
    services.add(CsrfTokens, CsrfTokens(deployment(), origins=ORIGINS, clock=clock))
    return services


@pytest.fixture
def outcome(services: Services) -> Callable[[Policy, Exchange], Any]:
    """Return a coroutine function: the status a policy refuses with, else what it answered."""

    async def run(policy: Policy, exchange: Exchange) -> Any:
        found = await policy.bind(services)(exchange)
        return found.status if isinstance(found, Problem) else found

    return run
