"""The application's own credential in place of our cookie: ``Routeguard(identify=resolver)``."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar
from uuid import UUID

import anyio
from anyio import to_thread

from routeguard.core.credentials import Credential, has_explicit_field
from routeguard.core.functions import is_coroutine_function
from routeguard.identity.sessions.models import SessionId, UserSession

if TYPE_CHECKING:
    from routeguard.core.exchange import Exchange
    from routeguard.core.request import RequestView
    from routeguard.identity.sessions.match import FieldMatch

U = TypeVar("U")
_Found: TypeAlias = "tuple[UserSession[Any] | None, bool]"

THREADS: Final = 40
"""How many plain functions may be asked at the same time."""
Resolver = Callable[["RequestView"], "Any | Awaitable[Any]"]
"""From the facts of a request to its user (or `UserSession`, or `ByHeader` of either), or None.

Raise `Unavailable` when it cannot be told.
"""

_ABSENT: Final = object()
_BY_HEADER: Final = Credential("identify")
_BY_BROWSER: Final = Credential("identify", ambient=True)
_LONG_AGO: Final = datetime.fromtimestamp(0, UTC)
_NOBODY: Final = SessionId("")
_NO_END: Final = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class ByHeader:
    """What a resolver may wrap a user in whom it found by `Authorization` or `X-API-Key` and by nothing else.

    No page can set those on a foreign request without leave, so cookies that came along (a load balancer's) are no
    reason to ask where the request comes from. Counts for the schemes `Bearer` and `DPoP` only: browsers repeat
    `Basic`, `Digest` and `Negotiate` by themselves (attack WS-01). Never wrap one who was found by a cookie.
    """

    user: Any


@dataclass(frozen=True, slots=True)
class IdentifiedSession(UserSession[U]):
    """What `identify` returned, with all that policies, limits and the log need of its user: read once, at once.

    A model of an ORM may not be read later: its database session has been closed by then, or belongs to a thread.
    """

    user_id: str = ""
    copied: Mapping[tuple[str, ...], Any] = field(default_factory=dict, repr=False, compare=False)
    """The values of matched fields by their paths; what could not be read is left out."""
    plan: str | None = field(default=None, repr=False, compare=False)

    @property
    def principal_id(self) -> str:
        """The user's id as text."""
        return self.user_id


class ResolvedSessions:
    """A `SessionResolver` over the application's own users and sign-in. Asked once a request.

    A coroutine function runs on the event loop, any other in a worker thread: it may wait for a connection pool, and
    the requests that hold the connections need the loop to give them back. The threads are of our own number, so that
    the application's handlers keep theirs.
    """

    def __init__(self, resolver: Resolver, user_class: type[Any] | None) -> None:
        self._resolver = resolver
        self._user_class = user_class
        self._on_loop = is_coroutine_function(resolver)
        self._threads = anyio.CapacityLimiter(THREADS)
        self._fields: dict[tuple[str, ...], FieldMatch] = {}

    @property
    def user_class(self) -> type[Any] | None:
        """The application's user class, so that misspelt field matches are found at start-up."""
        return self._user_class

    async def start(self) -> None:
        """Count threads anew: an event loop that has ended gives none back."""
        self._threads = anyio.CapacityLimiter(THREADS)

    def copy(self, fields: Iterable[FieldMatch]) -> None:
        """Read these fields of every user from now on, as soon as `identify` has returned it."""
        self._fields.update((one.path, one) for one in fields)

    async def resume(self, exchange: Exchange) -> UserSession[Any] | None:
        """Return the session the resolver found, or None. Raises TypeError for what cannot be a user."""
        request = exchange.request
        # The resolver may look at these too, and a middleware may have changed them since: a user who was found for GET
        # must not count for the DELETE that a method override made of it.
        key = (ResolvedSessions, request.method, request.path, request.scope.get("query_string"))
        known = exchange.facts.get(key, _ABSENT)
        if known is _ABSENT:
            known, by_header = await self._find(request)
            if by_header and known is not None:
                exchange.record_credential(known, _BY_HEADER if has_explicit_field(request) else _BY_BROWSER)
            exchange.facts[key] = known
        found: UserSession[Any] | None = known
        return found

    async def _find(self, request: RequestView) -> _Found:
        if self._on_loop:
            answer = self._resolver(request)
        else:
            answer = await to_thread.run_sync(self._ask, request, abandon_on_cancel=True, limiter=self._threads)
        if inspect.isawaitable(answer):
            answer = self._read(await answer)
        found: _Found = answer
        return found

    def _ask(self, request: RequestView) -> Any:
        """Ask in a worker thread, and read the answer there; what has to be awaited goes back to the event loop."""
        answer = self._resolver(request)
        return answer if inspect.isawaitable(answer) else self._read(answer)

    def _read(self, answer: Any) -> _Found:
        by_header = isinstance(answer, ByHeader)
        found = answer.user if by_header else answer
        if found is None:
            return None, by_header
        # The time of the user's last proof is not known, so `fresh` asks again.
        made = found if isinstance(found, UserSession) else UserSession(_NOBODY, found, _LONG_AGO, _LONG_AGO, _NO_END)
        user_id = str(made.user.id) if made is found else _id_of(found)
        if type(made) is not UserSession:
            return made, by_header
        copied: dict[tuple[str, ...], Any] = {}
        for path, one in self._fields.items():
            # What cannot be read is looked at again when it is needed, and its error is the answer then: 500.
            with suppress(Exception):
                copied[path] = one.read(made.user)
        plan = None
        with suppress(Exception):
            plan = getattr(made.user, "plan", None)
        session_id = SessionId(f"ses_{user_id}") if made.id == _NOBODY else made.id
        values: dict[str, Any] = {one.name: getattr(made, one.name) for one in fields(made)} | {"id": session_id}
        plan = plan if isinstance(plan, str) else None
        return IdentifiedSession(**values, user_id=user_id, copied=copied, plan=plan), by_header


def _id_of(user: Any) -> str:
    """Return the user's id as text. True, a dict or a name would otherwise count as signed in (attack AZ-16)."""
    user_id = getattr(user, "id", None)
    # An empty id is what a lookup leaves that found no user.
    if not isinstance(user_id, (str, int, UUID)) or isinstance(user_id, bool) or user_id == "":
        raise TypeError(
            f"identify answered {type(user).__name__}; it must be None or a user with an `id` (str, int or UUID)"
        )
    return str(user_id)
