"""FastAPI: the same seam on its own route classes. Parameters that ask for a session are read from its dependants."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from fastapi.exception_handlers import http_exception_handler, request_validation_exception_handler
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from routeguard.adapters.errors import answer_errors, http_error, invalid
from routeguard.adapters.listing import applications_below
from routeguard.adapters.openapi import describe
from routeguard.core.marks import mark, policy_of

if TYPE_CHECKING:
    from routeguard.adapters.openapi import Facts
    from routeguard.core.policy import Policy
    from routeguard.guard.guard import Guard


def answer_fastapi_errors(app: FastAPI) -> None:
    """Put our answers in the place of FastAPI's own, never in the place of the application's."""
    ours = (
        (HTTPException, http_exception_handler, http_error),
        (RequestValidationError, request_validation_exception_handler, invalid),
    )
    for kind, theirs, handler in ours:
        if app.exception_handlers.get(kind) is theirs:
            app.exception_handlers[kind] = handler
    answer_errors(app)


def adopt_mounted(app: Any, guard: Guard, docs: Policy, facts: Facts) -> None:
    """Guard the documentation pages of mounted FastAPI applications as those of `app`, and complete what they say.

    Versions of an API are often mounted applications, each with pages of its own. Safe to repeat. The marks are for
    pages that a subclass of FastAPI makes itself; FastAPI's own get their policy wherever they stand (`docs_policy`).
    """
    for mounted, above in applications_below(app):
        if isinstance(mounted, FastAPI):
            mark_docs(mounted, docs)
            describe(mounted, guard, facts, above=above)


def mark_docs(app: FastAPI, policy: Policy) -> None:
    """Give FastAPI's own documentation routes a policy; they are handlers like any other."""
    paths = {app.openapi_url, app.docs_url, app.redoc_url, app.swagger_ui_oauth2_redirect_url} - {None}
    for route in app.router.routes:
        endpoint = getattr(route, "endpoint", None)
        if getattr(route, "path", None) in paths and endpoint is not None and policy_of(endpoint) is None:
            mark(endpoint, policy)
