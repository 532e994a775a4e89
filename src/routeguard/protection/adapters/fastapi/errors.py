"""FastAPI's own answers to errors as problems."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi.exception_handlers import http_exception_handler, request_validation_exception_handler
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from routeguard.protection.adapters.starlette.errors import answer_errors, http_error, invalid

if TYPE_CHECKING:
    from fastapi import FastAPI


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
