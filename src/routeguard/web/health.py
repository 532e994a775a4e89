"""Whether the process lives, and whether it can work: for whatever restarts and balances."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from routeguard.core.policy import public
from routeguard.web.reply import reply
from routeguard.web.routes import get

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route


def health_routes(ready: Callable[[], Awaitable[None]]) -> list[Route]:
    """Return `/healthz` (200 while the process answers) and `/readyz` (200, or 503 when `ready` raises Unavailable).

    They say nothing else: which part is away is for the log (attack OPS-22).
    """

    async def healthy(request: Request) -> Response:  # noqa: ARG001, RUF029 - a handler's shape
        return reply({"status": "ok"})

    async def able(request: Request) -> Response:  # noqa: ARG001 - a handler's shape
        await ready()
        return reply({"status": "ok"})

    return [get("/healthz", healthy, public), get("/readyz", able, public)]
