"""The application's own credential in place of our cookie: ``Routeguard(identify=resolver)``."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from routeguard.sessions.models import SessionId, UserSession
from routeguard.traffic.csrf import came_by_header

if TYPE_CHECKING:
    from routeguard.core.exchange import Exchange
    from routeguard.core.request import RequestView

Resolver = Callable[["RequestView"], "Any | Awaitable[Any]"]
"""From the facts of a request to its user (or `UserSession`, or `ByHeader` of either), or None.

Raise `Unavailable` when it cannot be told.
"""

_ABSENT: Final = object()
_LONG_AGO: Final = datetime.fromtimestamp(0, UTC)
_NO_END: Final = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class ByHeader:
    """What a resolver may wrap a user in whom it found by `Authorization` or `X-API-Key` and by nothing else.

    No page can set those on a foreign request without leave, so cookies that came along (a load balancer's) are no
    reason to ask where the request comes from. Never wrap one who was found by a cookie.
    """

    user: Any


class ResolvedSessions:
    """A `SessionResolver` over the application's own users and sign-in. Asked once a request."""

    def __init__(self, resolver: Resolver, user_class: type[Any] | None) -> None:
        self._resolver = resolver
        self._user_class = user_class

    @property
    def user_class(self) -> type[Any] | None:
        """The application's user class, so that misspelt field matches are found at start-up."""
        return self._user_class

    async def resume(self, exchange: Exchange) -> UserSession[Any] | None:
        """Return the session the resolver found, or None. Raises TypeError for what cannot be a user."""
        known = exchange.facts.get(ResolvedSessions, _ABSENT)
        if known is _ABSENT:
            answer = self._resolver(exchange.request)
            answer = await answer if inspect.isawaitable(answer) else answer
            if isinstance(answer, ByHeader):
                came_by_header(exchange)
                answer = answer.user
            known = _session_of(answer)
            exchange.facts[ResolvedSessions] = known
        found: UserSession[Any] | None = known
        return found


def _session_of(answer: Any) -> UserSession[Any] | None:
    """Wrap the application's user. True, a dict or a name would otherwise count as signed in (attack AZ-16)."""
    if answer is None or isinstance(answer, UserSession):
        return answer
    user_id = getattr(answer, "id", None)
    # An empty id is what a lookup leaves that found nobody.
    if not isinstance(user_id, (str, int)) or isinstance(user_id, bool) or user_id == "":
        raise TypeError(f"identify answered {type(answer).__name__}; it must be None or a user with an `id`")
    # When he proved himself is not known, so `fresh` asks him again.
    return UserSession(SessionId(f"ses_{user_id}"), answer, _LONG_AGO, _LONG_AGO, _NO_END)
