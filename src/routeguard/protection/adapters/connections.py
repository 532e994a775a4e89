"""From what a framework hands to its handlers to the connection that the guard made of the request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from routeguard.core.errors import GuardNotApplied
from routeguard.core.exchange import SCOPE_KEY
from routeguard.core.request import RequestView
from routeguard.protection.adapters.known import adapters
from routeguard.protection.guard.asgi import Connection
from routeguard.protection.guard.guard import handler_name
from routeguard.protection.guard.log import logger
from routeguard.protection.guard.unguarded import warn_of_missing_guard

if TYPE_CHECKING:
    from collections.abc import Mapping

    from routeguard.protection.guard.runs import Runs


def found_in(scope: Mapping[str, Any]) -> Connection | None:
    """Return the connection that a guard made of an ASGI request, whichever guard."""
    found = scope.get(SCOPE_KEY)
    return found if isinstance(found, Connection) else None


def connection_of(connection: Any, runs: Runs) -> Connection:
    """Return the connection that the guard with `runs` made of a request. Raises GuardNotApplied where it made none.

    Another guard's will not do: a user who is known to one is unknown to the other, and this one has neither its
    services started for the request nor its answers in the response.
    """
    found = connection.scope.get(SCOPE_KEY)
    if isinstance(found, Connection) and runs.has(found.guard.services):
        return found
    handler = handler_name(connection.scope.get("endpoint", "a handler"))
    if isinstance(found, Connection):
        logger.error("%s asks a guard that is not installed in its application, where another one is", handler)
        raise _not_installed("The guard that was asked is not installed in the application of this handler.")
    warn_of_missing_guard(handler, RequestView(connection.scope), "")
    raise _not_installed("No guard is installed in the application that this request came through.")


def _not_installed(words: str) -> GuardNotApplied:
    return next((adapter.not_installed(words) for adapter in adapters()), GuardNotApplied(words))
