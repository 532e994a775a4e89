"""From what a framework hands to its handlers to the connection that the guard made of the request."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException

from routeguard.core.errors import GuardNotApplied
from routeguard.core.exchange import SCOPE_KEY
from routeguard.core.request import RequestView
from routeguard.guard.connection import Connection
from routeguard.guard.guard import handler_name
from routeguard.guard.unguarded import warn_of_missing_guard

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection


class NotInstalled(GuardNotApplied, HTTPException):
    """A handler took a value of the guard where none is installed: answered by the framework, and no traceback."""


def connection_of(connection: HTTPConnection) -> Connection:
    """Return the guard's connection. Raises NotInstalled where no guard is."""
    found = connection.scope.get(SCOPE_KEY)
    if not isinstance(found, Connection):
        handler = handler_name(connection.scope.get("endpoint", "a handler"))
        warn_of_missing_guard(handler, RequestView(connection.scope), "")
        raise NotInstalled(500, "No guard is installed in the application that this request came through.")
    return found
