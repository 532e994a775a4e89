"""Routes of the identity service: path, handler and policy said together, so that none is without one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial, wraps
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from routeguard.core.endpoint import Endpoint
from routeguard.core.exchange import SCOPE_KEY
from routeguard.core.marks import mark
from routeguard.foundation.web.body import TypedForm
from routeguard.foundation.web.onward import Then
from routeguard.foundation.web.reply import see_other, wants_page

if TYPE_CHECKING:
    from routeguard.core.exchange import Exchange
    from routeguard.core.policy import Policy

Handler = Callable[[Request], Awaitable[Response]]


def as_route(made: Any) -> Any:
    """Return an endpoint of a feature as a route; what is a route already stays one."""
    return _route(made.method, made.path, made.handler, made.policy, None) if isinstance(made, Endpoint) else made


def get(path: str, handler: Handler, policy: Policy) -> Route:
    """Return a GET (and HEAD) route."""
    return _route("GET", path, handler, policy, None)


def post(path: str, handler: Handler, policy: Policy, *, redirect_to: str | Then | None = None) -> Route:
    """Return a POST route. After a form post that succeeded, the browser goes where `then` says.

    A path stands for ``Then(path)``. Without `redirect_to` a form is answered like any other client.
    """
    return _route("POST", path, handler, policy, Then(redirect_to) if isinstance(redirect_to, str) else redirect_to)


def put(path: str, handler: Handler, policy: Policy) -> Route:
    """Return a PUT route."""
    return _route("PUT", path, handler, policy, None)


def patch(path: str, handler: Handler, policy: Policy) -> Route:
    """Return a PATCH route."""
    return _route("PATCH", path, handler, policy, None)


def delete(path: str, handler: Handler, policy: Policy) -> Route:
    """Return a DELETE route."""
    return _route("DELETE", path, handler, policy, None)


def _route(method: str, path: str, handler: Handler, policy: Policy, redirect_to: Then | None) -> Route:
    named: Any = handler
    while isinstance(named, partial):
        named = named.func

    # A function of its own carries the mark: bound methods cannot, and one handler may serve two routes.
    @wraps(named)
    async def endpoint(request: Request) -> Response:
        response = await handler(request)
        if redirect_to is not None and response.status_code < 300 and wants_page(request):
            return _go_on(request, response, redirect_to)
        return response

    # Python's own machinery looks through this; the mark must stay on this function.
    del endpoint.__wrapped__
    return Route(path, mark(endpoint, policy), methods=[method])


def _go_on(request: Request, response: Response, redirect_to: Then) -> Response:
    exchange: Exchange = request.scope[SCOPE_KEY]
    form = exchange.facts.get(TypedForm)
    onward = see_other(redirect_to.location(exchange, form.fields.get("next") if form is not None else None))
    onward.raw_headers += [pair for pair in response.raw_headers if pair[0] == b"set-cookie"]
    return onward
