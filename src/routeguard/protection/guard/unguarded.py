"""What happens to a handler that carries a policy where no guard is: it is refused, and the log says what to call."""

from __future__ import annotations

from typing import TYPE_CHECKING

from routeguard.core.problem import GUARD_NOT_APPLIED
from routeguard.core.request import RequestView
from routeguard.core.secret import new_token
from routeguard.protection.guard.denial import let_server_close
from routeguard.protection.guard.log import escape, logger
from routeguard.protection.guard.render import render

if TYPE_CHECKING:
    from routeguard.protection.guard.asgi import Scope, Send


async def refuse_unguarded(handler: str, scope: Scope, send: Send) -> None:
    """Answer 500 `guard-not-applied` in the place of a handler, and refuse a WebSocket before it is accepted.

    A mark is a promise. Were it only kept after ``guard.install(app)``, forgetting that call would open every route.
    """
    request, instance = RequestView(scope), "req_" + new_token(9)
    warn_of_missing_guard(handler, request, instance)
    reply = render(GUARD_NOT_APPLIED(), request, instance)
    if request.kind == "websocket" and "websocket.http.response" not in (scope.get("extensions") or {}):
        await send({"type": "websocket.close", "code": 1008, "reason": ""})
        return
    prefix = "http" if request.kind == "http" else "websocket.http"
    await send({"type": f"{prefix}.response.start", "status": reply.status, "headers": list(reply.headers)})
    await send({"type": f"{prefix}.response.body", "body": reply.body})
    if request.kind == "websocket":
        await let_server_close()


def warn_of_missing_guard(handler: str, request: RequestView, instance: str) -> None:
    """Log which handler did not run, and why."""
    logger.warning(
        "refused: %s %s 500 guard-not-applied: %s needs a guard, and none is installed in the application it runs in:"
        " call guard.install(app) %s",
        escape(request.method, 20),
        escape(request.path),
        handler,
        instance,
    )
