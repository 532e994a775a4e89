"""The policies and the values of a `Routeguard`: its API, each with types and words of its own.

They are methods, and not looked up by name, so that an editor completes them and a type checker knows the user class.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, cast, overload

from typing_extensions import TypeVar

from routeguard.core.caller import principal_as
from routeguard.core.decision import ALLOW
from routeguard.core.errors import ConfigError, GuardNotApplied
from routeguard.core.marks import mark, needs_guard
from routeguard.core.overrides import resumed
from routeguard.core.policy import Policy, public
from routeguard.core.problem import Problem, authentication_required
from routeguard.identity.api_keys import checks as key_checks
from routeguard.identity.api_keys.models import PRIVILEGES, ApiKey, Privilege
from routeguard.identity.sessions import checks
from routeguard.identity.sessions.forgery import is_ambient, open_across_sites
from routeguard.identity.sessions.models import SessionResolver, UserSession
from routeguard.identity.users.models import User
from routeguard.protection.adapters.connections import connection_of
from routeguard.protection.adapters.overrides import Overridable
from routeguard.protection.guard.guard import Ask
from routeguard.protection.traffic.body_limit import body_limit
from routeguard.protection.traffic.cors import identity_cors, preflight
from routeguard.protection.traffic.csrf import csrf, is_foreign, with_csrf
from routeguard.protection.traffic.security_headers import header_bytes

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection, Request  # Put into the signatures below by the adapter.

    from routeguard.core.check import Check
    from routeguard.core.exchange import Exchange
    from routeguard.core.feature import Feature
    from routeguard.core.principal import Principal
    from routeguard.core.provided import Provided
    from routeguard.core.services import Services
    from routeguard.identity.sessions.match import Match
    from routeguard.protection.guard.guard import Compiled, Guard
    from routeguard.protection.guard.runs import Runs
    from routeguard.protection.traffic.streams import StreamEnd

__all__ = [
    "Policies",
    "U",
    "User",
    "Values",
    "add_headers",
    "asks",
    "bind_rules",
    "kinds_of",
    "mark_readable",
    "overridable",
    "provide",
    "session_of",
]

U = TypeVar("U", default=User)
T = TypeVar("T")

_PAGE_CSP: Final = "object-src 'none'; base-uri 'none'; frame-ancestors 'none'"
_REMEMBERED: Final = 256
"""Policies compiled for `require`; one made anew in each request must not fill the memory."""


class Policies(Generic[U]):
    """The policies for handlers."""

    def session(
        self,
        *,
        user: Match | None = None,
        rule: Callable[[UserSession[U]], bool | Awaitable[bool]] | None = None,
        stream: StreamEnd = "end",
    ) -> Policy:
        """Ask for a signed-in user: 401 without one, 403 when `user` fields or `rule` do not hold.

        A list of values means any of them; dotted or nested names reach inside; a missing field never matches and
        a misspelt one is a ConfigError at start-up. `rule` is called only after the fields match. A streamed response
        (server-sent events, a long download) ends when the session does; ``stream="finish"`` lets it finish.
        """
        return checks.session(user=user, rule=rule, stream=stream)

    def optional_session(self, *, stream: StreamEnd = "end") -> Policy:
        """Let every caller in, and say who it is when a user is signed in. An outage is 503, never a guest."""
        return checks.optional_session(stream=stream)

    @overload
    def fresh(self, within: timedelta, /) -> Policy: ...
    @overload
    def fresh(self, *, minutes: float) -> Policy: ...
    def fresh(self, within: timedelta | None = None, *, minutes: float = 0) -> Policy:
        """Ask for a sign-in no older than this: 401 step-up-required (RFC 9470) otherwise."""
        return checks.fresh(within if within is not None else timedelta(minutes=minutes))

    def api_key(self, *scopes: str, privilege: Privilege | None = None, stream: StreamEnd = "end") -> Policy:
        """Ask for an API key in `X-API-Key` or as Bearer: 401 without a valid one, 403 without all `scopes`.

        `privilege` is the least the key must have: demo < restricted < protected < full; `custom` stands by itself.
        ``guard.session() | guard.api_key("reports:read")`` lets both in.
        """
        return key_checks.api_key(*scopes, privilege=privilege, stream=stream)

    def manage_api_keys(
        self, *, allowed: Iterable[str] = key_checks.ACTIONS, update_to: Iterable[str] = PRIVILEGES
    ) -> Policy:
        """Let a signed-in user manage the user's own keys at a POST route of yours whose path ends in ``{action}``.

        `allowed` are the actions offered (404 for others): create, list, metadata, rotate, revoke, networks and
        privilege; `update_to` the privileges those keys may be given. `managed_key` does it. A key cannot: 403.
        """
        by_hand = Policy((key_checks.NoApiKey(),)) & self.session() & csrf() & body_limit("2 KB")
        return by_hand & key_checks.managed_keys(allowed=allowed, update_to=update_to)


class Values(Generic[U]):
    """The values that handlers take."""

    _runs: Runs
    _required: dict[tuple[Policy, str, Services], Compiled]
    _provided: dict[type[Any], Callable[[HTTPConnection], Awaitable[Any]]]

    @needs_guard
    async def current_session(self, connection: HTTPConnection) -> UserSession[U]:
        """Return the session the guard found. A FastAPI dependency; asking for it requires it.

        Raises GuardNotApplied when the route's policy provides none.
        """
        principal = connection_of(connection, self._runs).principal
        if isinstance(principal, UserSession):
            return cast("UserSession[U]", principal)
        raise authentication_required("a handler took a session its policy did not provide").error()

    @needs_guard
    async def current_session_or_none(self, connection: HTTPConnection) -> UserSession[U] | None:
        """Return the session, or None for guests. For routes under `optional_session()`."""
        principal = connection_of(connection, self._runs).principal
        return cast("UserSession[U]", principal) if isinstance(principal, UserSession) else None

    @needs_guard
    async def current(self, connection: HTTPConnection) -> Principal:
        """Return the caller: a session, or another principal the policy accepts."""
        principal = connection_of(connection, self._runs).principal
        if principal is None:
            raise authentication_required("a handler took a principal its policy did not provide").error()
        return principal

    @needs_guard
    async def current_key(self, connection: HTTPConnection) -> ApiKey:
        """Return the API key the guard found. A FastAPI dependency; asking for it requires one."""
        principal = connection_of(connection, self._runs).principal
        if isinstance(principal, ApiKey):
            return principal
        raise authentication_required("a handler took an API key its policy did not provide").error()

    def provided(self, kind: type[T]) -> Callable[[HTTPConnection], Awaitable[T]]:
        """Return the FastAPI dependency that gives the caller as a `kind`; asking for it requires one.

        For what a feature declares in `Feature.provides`. Raises ConfigError for any other class.
        """
        found = self._provided.get(kind)
        if found is None:
            raise ConfigError(f"no feature in features provides {kind.__qualname__}")
        return found

    @needs_guard
    async def managed_key(self, request: Request) -> dict[str, Any]:
        """Do what `manage_api_keys` let through, and return the result; a new key's text is in it once, as `key`.

        Raises ProblemError for what the action refuses.
        """
        from routeguard.identity.api_keys.routes import perform  # noqa: PLC0415 - the identity extra

        return await perform(connection_of(request, self._runs).guard.services, request)

    @needs_guard
    async def find_session(self, connection: HTTPConnection) -> UserSession[U] | None:
        """Return the session of any request, or None. Decides nothing. Raises Unavailable when it cannot be told.

        None, too, for a WebSocket that a page of a foreign origin opened with our cookie (attack WS-01), and for an
        unsafe request that it sent with it (attack CSRF-01): of a sibling host, or of any site with
        `cookies.same_site` "none". Trust the page's origin by `trusted_origins` if it is yours.
        """
        exchange = connection_of(connection, self._runs)
        # What a known user is told is for that user alone, on a public route too: no shared cache keeps it.
        exchange.guarded = True
        if isinstance(exchange.principal, UserSession):
            return cast("UserSession[U]", exchange.principal)
        found = await session_of(exchange.guard.services)(exchange)
        if exchange.principal is None:
            exchange.principal = found
            if found is not None and await is_foreign(exchange, exchange.guard.services):
                exchange.principal = None
                return None
            exchange.watch()
        return found

    @needs_guard
    async def require(self, connection: HTTPConnection, policy: Policy) -> UserSession[U]:
        """Decide inside a handler, when only its body can tell what is needed. Counts as the decision.

        Returns the session. Raises ProblemError when the policy refuses, Unavailable when it cannot be told.
        """
        exchange = connection_of(connection, self._runs)
        key = (policy, exchange.request.kind, exchange.guard.services)
        compiled = self._required.get(key)
        if compiled is None:
            compiled = exchange.guard.compile(policy, self.require, exchange.request.kind)
            if len(self._required) < _REMEMBERED:
                self._required[key] = compiled
        limit = exchange.body_limit
        outcome = await exchange.decide(compiled)
        exchange.body_limit = limit  # The body may have been read by now.
        if isinstance(outcome, Problem):
            raise outcome.error()
        if outcome is not None:
            raise GuardNotApplied("a policy that answers by itself cannot be required inside a handler")
        exchange.decision = ALLOW
        exchange.watch()
        return await self.current_session(connection)


def provide(guard: Values[Any], features: Iterable[Feature]) -> list[Provided[Any]]:
    """Let handlers take the principals of features by `guard.provided`. Returns those that are not built in."""
    own = [checks.PROVIDED, key_checks.PROVIDED]
    others = [each for feature in features for each in feature.provides if each not in own]
    guard._provided = {UserSession: guard.current_session, ApiKey: guard.current_key}  # noqa: SLF001 - made here
    for each in others:
        guard._provided[each.kind] = _dependency(each.kind, guard)  # noqa: SLF001 - made here
    return others


def overridable(guard: Values[Any], others: Iterable[Provided[Any]]) -> list[Overridable]:
    """Return the values of a `Routeguard` that tests may override to say who is calling: the first one counts."""
    return [
        Overridable(guard.current_session, (UserSession,)),
        Overridable(guard.current_session_or_none, (UserSession,), guest=True),
        Overridable(guard.current, (UserSession, ApiKey)),
        Overridable(guard.current_key, (ApiKey,)),
        *(Overridable(guard.provided(each.kind), (each.kind,)) for each in others),
    ]


def kinds_of(others: Iterable[Provided[Any]]) -> dict[type[Check], type[Any]]:
    """Return the class of principals that each identity check of these finds."""
    return {type(check): each.kind for each in others for check in each.identifying()}


def asks(guard: Values[Any], others: Iterable[Provided[Any]]) -> list[Ask]:
    """Return the values of a `Routeguard` that a handler can take, and the policy that each of them requires."""
    return [
        _ask(guard.current_session, checks.PROVIDED),
        Ask(guard.current, checks.session(), _provides_principal),
        _ask(guard.current_key, key_checks.PROVIDED),
        *(_ask(guard.provided(each.kind), each) for each in others),
    ]


def _dependency(kind: type[T], guard: Values[Any]) -> Callable[[HTTPConnection], Awaitable[T]]:
    @needs_guard
    async def provided(connection: HTTPConnection) -> T:
        return principal_as(connection_of(connection, guard._runs), kind)  # noqa: SLF001 - made here

    provided.__name__ = f"provided({kind.__name__})"  # In messages.
    return provided


def _ask(call: Callable[..., Any], provided: Provided[Any]) -> Ask:
    return Ask(call, provided.by, provided.held_by)


def _provides_principal(policy: Policy) -> bool:
    return policy != public and bool(policy.checks)


def bind_rules(guard: Guard, *, cross_site: bool) -> None:
    """Let a guard add to policies, answer and refuse what our own checks make necessary.

    With `cross_site`, pages of other sites send our cookies.
    """
    guard.augment = _with_csrf
    guard.preflight = preflight
    guard.asks_for_session = checks.asks_for_session
    if cross_site:
        guard.objections = open_across_sites


def _with_csrf(policy: Policy, _kind: Literal["http", "websocket"]) -> Policy:
    """Add the forgery check wherever a session cookie may be the credential: on by default, for sockets too."""
    return with_csrf(policy) if is_ambient(policy) else policy


def add_headers(guard: Guard, *, https: bool) -> None:
    """Let a guard send the security headers that a handler did not set."""
    guard.headers = header_bytes("api", https=https)
    # HTML keeps its styles and scripts, whose places we cannot know; nothing may frame it or change its base.
    page = {"content-security-policy": _PAGE_CSP, "referrer-policy": "strict-origin-when-cross-origin"}
    guard.page_headers = header_bytes("api", https=https, change=page)


def mark_readable(endpoints: Iterable[Any], origins: tuple[str, ...]) -> None:
    """Let pages of these origins read the answers of the identity routes."""
    readable = identity_cors(origins)
    for endpoint in endpoints:
        mark(endpoint, readable)


def session_of(services: Services) -> Callable[[Exchange], Awaitable[UserSession[Any] | None]]:
    """Return what finds the session of any request, as its policies would. Raises ConfigError without sessions."""
    return resumed(services, UserSession, services.get(SessionResolver).resume)
