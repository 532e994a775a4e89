"""A small guarded Starlette application over the real edge, with a store in memory or on Valkey."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
from starlette.applications import Starlette
from starlette.routing import Route

from routeguard.core.exchange import Exchange
from routeguard.core.policy import BoundCheck, Check, Outcome, Policy, Stage
from routeguard.core.services import Services
from routeguard.foundation.ephemeral.protocol import Ephemeral
from routeguard.protection.adapters.starlette.hook import hook_routes, wrap
from routeguard.protection.guard.edge import Edge
from routeguard.protection.guard.guard import Guard


@dataclass(frozen=True)
class Named:
    """A principal by the word of a header: who calls is not what is tested here."""

    principal_id: str


@dataclass(frozen=True)
class Identified(Check):
    """Believe `x-user`."""

    stage = Stage.IDENTITY

    def bind(self, services: Services) -> BoundCheck:
        async def run(exchange: Exchange) -> Outcome:
            name = exchange.request.header("x-user")
            exchange.principal = Named(name) if name else None
            return None

        return run


def guarded(store: Ephemeral, policy: Policy, handler: Any, *, path: str = "/") -> Starlette:
    """Return an application with `handler` at `path`."""
    services = Services()
    services.add(Ephemeral, store)
    guard = Guard(services)
    hook_routes()
    app = Starlette(routes=[Route(path, guard(policy & Identified())(handler), methods=["GET", "POST"])])

    async def start(lifespan: bool) -> None: ...
    async def stop() -> None: ...

    wrap(app, lambda inner: Edge(guard, inner, start=start, stop=stop))
    return app


@asynccontextmanager
async def calling(app: Starlette, *, peer: str = "203.0.113.7") -> AsyncIterator[httpx2.AsyncClient]:
    """Yield a client that calls the application in process."""
    transport = httpx2.ASGITransport(app=app, client=(peer, 1), raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client
