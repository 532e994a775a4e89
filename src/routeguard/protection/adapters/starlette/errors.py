"""The frameworks' own errors as problems: 404, 405, 422 and 500 look like every other refusal (attack HTTP-19)."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from routeguard.core.errors import GuardNotApplied
from routeguard.core.problem import (
    INTERNAL_ERROR,
    MALFORMED_REQUEST,
    METHOD_NOT_ALLOWED,
    NOT_FOUND,
    VALIDATION_FAILED,
    Problem,
    ProblemType,
)
from routeguard.core.request import RequestView
from routeguard.core.secret import new_token
from routeguard.protection.adapters.connections import found_in
from routeguard.protection.guard.refusals import page
from routeguard.protection.guard.render import render

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import HTTPConnection, Request

_STATUSES: Final = frozenset(HTTPStatus)
_KNOWN: Final = {kind.status: kind for kind in (MALFORMED_REQUEST, NOT_FOUND, METHOD_NOT_ALLOWED, INTERNAL_ERROR)}


class NotInstalled(GuardNotApplied, HTTPException):
    """A handler took a value of the guard where it is not installed: answered by the framework, and no traceback."""


async def respond(connection: HTTPConnection, problem: Problem) -> Response:
    """Return a problem as a Starlette response; the edge adds what every response carries."""
    exchange = found_in(connection.scope)
    if exchange is not None and exchange.refusal is not None:
        # The edge answers with that instead, and says so: the framework's idea of an interrupted body is no news.
        return Response(status_code=exchange.refusal.type.status)
    if exchange is not None:
        instance = exchange.log(problem, "", "answered")
        reply = await page(exchange, problem, instance) or render(problem, exchange.request, instance)
    else:
        reply = render(problem, RequestView.from_scope(connection.scope), "req_" + new_token(9))
    response = Response(reply.body, reply.status)
    response.raw_headers = list(reply.headers)
    return response


async def http_error(request: Request, error: Exception) -> Response:
    """Answer an `HTTPException`: its status and headers, and its words where the application chose them."""
    assert isinstance(error, HTTPException)
    if error.status_code in {204, 304}:
        return Response(status_code=error.status_code, headers=error.headers)
    said: Any = error.detail  # FastAPI allows any JSON here.
    detail = said if isinstance(said, str) else None
    members: dict[str, Any] = {"errors": said} if detail is None and said else {}
    status = error.status_code
    kind = _KNOWN.get(status) or ProblemType("blank", status, _phrase(status), uri="about:blank")
    headers = tuple((error.headers or {}).items())
    return await respond(
        request, Problem(kind, detail if detail != kind.title else None, members=members, headers=headers)
    )


async def invalid(request: Request, error: Exception) -> Response:
    """Answer FastAPI's `RequestValidationError`: every error with its place, and never the input (RFC 9457)."""
    found: list[dict[str, Any]] = list(error.errors())  # type: ignore[attr-defined]
    if any(item.get("type") == "json_invalid" for item in found):
        return await respond(request, MALFORMED_REQUEST("The body is not valid JSON."))
    errors = [_error(item.get("loc", ()), str(item.get("msg", ""))) for item in found]
    return await respond(request, VALIDATION_FAILED(errors=errors))


async def broken(request: Request, error: Exception) -> Response:  # noqa: ARG001 - the handler's shape
    """Answer an unhandled exception: generic words, whatever it says (attacks HTTP-17, OPS-22)."""
    return await respond(request, INTERNAL_ERROR())


async def left(request: Request, error: Exception) -> Response:  # noqa: ARG001 - the handler's shape
    """Send no answer: the client went away before its body ended. Not an error of ours (attack HTTP-10)."""
    return await respond(request, MALFORMED_REQUEST("The body ended early."))


def _phrase(status: int) -> str:
    """Return the status's own words: the title of a problem without a type (RFC 9457 section 4.2.1)."""
    return HTTPStatus(status).phrase if status in _STATUSES else "Error"


def _error(location: Any, detail: str) -> dict[str, str]:
    """Return what is wrong and where: the part of the request, and a JSON pointer (RFC 6901) into it.

    ``{"in": "body", "pointer": "/amount"}``; a field of the query, path or header has its name for a pointer.
    """
    part, *inside = location or ("body",)
    pointer = "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in inside)
    return {"in": str(part), "pointer": pointer, "detail": detail}


def answer_errors(app: Starlette) -> None:
    """Answer the framework's errors as problems, unless the application has handlers of its own for them."""
    app.exception_handlers.setdefault(HTTPException, http_error)
    app.exception_handlers.setdefault(ClientDisconnect, left)
    if 500 not in app.exception_handlers:
        app.exception_handlers.setdefault(Exception, broken)
