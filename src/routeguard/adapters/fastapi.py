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

if TYPE_CHECKING:
    from routeguard.adapters.openapi_security import Credentials
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


def describe_mounted(app: Any, guard: Guard, credentials: Credentials) -> None:
    """Complete what the descriptions of mounted FastAPI applications say. Safe to repeat.

    Versions of an API are often mounted applications, each with a description of its own.
    """
    for mounted, above in applications_below(app):
        if isinstance(mounted, FastAPI):
            describe(mounted, guard, credentials, above=above)
