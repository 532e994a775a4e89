"""What a refusal looks like: in the application's own shape, a redirect to sign-in, a page, or problem+json."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from routeguard.core.decision import Reply
from routeguard.core.errors import ConfigError
from routeguard.core.functions import is_coroutine_function
from routeguard.core.problem import Problem
from routeguard.core.refusal import RefusalPages
from routeguard.core.request import RequestView
from routeguard.protection.guard.caching import NO_STORE
from routeguard.protection.guard.log import logger
from routeguard.protection.guard.render import CONTROL, is_navigation, render, to_sign_in

if TYPE_CHECKING:
    from routeguard.protection.guard.decider import Decider

Shape: TypeAlias = Callable[[Problem, RequestView], "Reply | Mapping[str, Any] | None"]
"""The application's own form of a refusal: the members of a JSON body, a whole `Reply`, or None for the usual form."""

_OURS: Final = "routeguard."


def as_detail(problem: Problem, request: RequestView) -> Mapping[str, Any]:  # noqa: ARG001 - a shape's parameters
    """Return `{"detail": ...}`, as FastAPI's own errors look: ``guard.install(app, refusal=as_detail)``."""
    return {"detail": problem.detail or problem.type.title}


def check_shape(shape: Shape | None) -> None:
    """Raise ConfigError for a shape that cannot be called for a refusal. It is not awaited."""
    if shape is not None and (not callable(shape) or is_coroutine_function(shape)):
        raise ConfigError("install(refusal=...) takes a plain function of a Problem and a RequestView")


async def reply_to(decider: Decider, problem: Problem, instance: str, handler: str) -> Reply:
    """Return a refusal of `handler` in the form its caller can use."""
    shaped = _shaped(decider, problem, instance, handler)
    if shaped is not None:
        return shaped
    request, sign_in = decider.request, decider.guard.sign_in
    if problem.status == 401 and sign_in is not None and is_navigation(request):
        return to_sign_in(request, sign_in, entered=decider.entered, root=decider.root)
    return await page(decider, problem, instance) or render(problem, request, instance)


async def page(decider: Decider, problem: Problem, instance: str) -> Reply | None:
    """Return the refusal as a page where a person waits for one, and a feature draws pages."""
    pages = decider.guard.services.find(RefusalPages)
    try:
        return await pages.page(decider, problem, instance) if pages is not None else None
    except Exception:  # noqa: BLE001 - a page that cannot be drawn must not undo the refusal
        logger.exception("a refusal could not be shown as a page")
        return None


def _shaped(decider: Decider, problem: Problem, instance: str, handler: str) -> Reply | None:
    """Return the refusal in the application's own shape; None for identity routes, whose clients read problems."""
    shape, request = decider.guard.refusal, decider.request
    if shape is None or handler.startswith(_OURS) or request.kind != "http":
        return None
    try:
        given = shape(problem, request)
        return None if given is None else _reply(given, problem, request, instance)
    except Exception:  # noqa: BLE001 - a shape that breaks must not undo the refusal
        logger.exception("install(refusal=...) failed, and the refusal is sent as a problem")
        return None


def _reply(given: Reply | Mapping[str, Any], problem: Problem, request: RequestView, instance: str) -> Reply:
    """Return the reply with what the protocol demands of it. Raises ValueError for one that would not refuse."""
    usual = render(problem, request, instance)
    if isinstance(given, Reply):
        status, headers, body = given.status, list(given.headers), given.body
        _check(status, headers, body)
    else:
        text = json.dumps(dict(given), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        status, body = problem.status, text.encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)), NO_STORE]
    present = {name for name, _ in headers} | {b"content-type", b"content-length"}
    # WWW-Authenticate, Retry-After, and the request's id, whatever the body says.
    headers += [pair for pair in usual.headers if pair[0] not in present]
    return Reply(status, tuple(headers), b"" if request.method == "HEAD" else body)


def _check(status: Any, headers: list[Any], body: Any) -> None:
    """Raise ValueError or TypeError for a reply that would not refuse, or that no server could send."""
    # A success would be an answer without a decision (attack AZ-11); 304 has no body of its own.
    if type(status) is not int or not 300 <= status <= 599 or status == HTTPStatus.NOT_MODIFIED:
        raise ValueError("a refusal needs a status from 300 to 599")
    if not isinstance(body, bytes):
        raise TypeError("the body of a reply is bytes")
    for name, value in headers:
        if CONTROL.search(name) or CONTROL.search(value):
            raise ValueError("a header holds a control character")  # Attack HTTP-03.
