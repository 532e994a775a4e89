"""The composition root: one object that guards an application and, unless told otherwise, runs its identity service."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, cast, get_args, overload

from starlette.requests import HTTPConnection, Request  # noqa: TC002 - FastAPI reads it from the signatures below
from typing_extensions import Self, TypeVar

from routeguard.adapters.attach import attach, listed
from routeguard.adapters.connections import connection_of
from routeguard.adapters.overrides import Overrides
from routeguard.adapters.section import Section
from routeguard.adapters.starlette import hook_routes, wrap
from routeguard.adapters.wrapping import is_router
from routeguard.api_keys import checks as key_checks
from routeguard.api_keys.models import PRIVILEGES, ApiKey, Privilege
from routeguard.assembly import (
    asks,
    assemble,
    assemble_again,
    check_identify,
    checked_settings,
    credentials_of,
    defaults,
    guard_over,
    overridable,
    remote_feature,
    session_of,
    warn_at_start,
)
from routeguard.core.decision import ALLOW
from routeguard.core.errors import ConfigError, GuardNotApplied
from routeguard.core.features import arranged
from routeguard.core.marks import mark, needs_guard, policy_of
from routeguard.core.policy import Policy, check_options
from routeguard.core.problem import Problem, authentication_required
from routeguard.guard.edge import Edge
from routeguard.guard.guard import Compiled, Guard, Mode, handler_name
from routeguard.guard.inventory import Installed, Row, matrix
from routeguard.guard.refusals import check_shape
from routeguard.guard.runs import Run, Runs
from routeguard.sessions import checks
from routeguard.sessions.models import UserSession
from routeguard.settings import Settings
from routeguard.traffic.body_limit import body_limit
from routeguard.traffic.cors import identity_cors
from routeguard.traffic.csrf import csrf, is_foreign_socket
from routeguard.traffic.security_headers import header_bytes
from routeguard.users.models import User

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.applications import Starlette
    from starlette.routing import BaseRoute

    from routeguard.core.feature import Feature
    from routeguard.core.principal import Principal
    from routeguard.core.services import Services
    from routeguard.guard.connection import App
    from routeguard.guard.refusals import Shape
    from routeguard.remote.models import ClientTls
    from routeguard.sessions.identify import Resolver
    from routeguard.sessions.match import Match
    from routeguard.traffic.streams import StreamEnd

U = TypeVar("U", default=User)
H = TypeVar("H")

logger = logging.getLogger("routeguard")

PREFIX: Final = "/auth"
_PAGE_CSP: Final = "object-src 'none'; base-uri 'none'; frame-ancestors 'none'"
_REMEMBERED: Final = 256
"""Policies compiled for `require`; one made anew in each request must not fill the memory."""


class Routeguard(Generic[U]):
    """Guards every route of an application, and serves sign-in to it.

    ``guard = Routeguard(Settings(...))`` does no network I/O; `install` makes an application guarded, and the first
    lifespan event (or request) starts the services. `user` is the application's own user dataclass, `identify` its
    own sign-in in place of ours, `features` the slices to run (``[*defaults(), Mine()]``).
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        user: type[U] | None = None,
        identify: Resolver | None = None,
        features: Sequence[Feature] | None = None,
    ) -> None:
        if features is None:
            features = [] if identify is not None else defaults()
        if identify is not None:
            check_identify(identify, features)
        self.features = tuple(arranged(features))
        self.settings = checked_settings(settings, self.features, user or User)
        values = overridable(self)
        overrides = Overrides(values) if self.settings.testing else None
        services = assemble(self.settings, self.features, user=user or User, identify=identify, overrides=overrides)
        self._runs = Runs(
            services, lambda: assemble_again(services, self.features, user=user or User, identify=identify)
        )
        self._guard = guard_over(services, self.features, sign_in=f"{PREFIX}/sign-in")
        self._guard.asks = asks(self)
        self._guard.overridable = tuple(one.call for one in values)
        self._installed: list[Installed] = []
        self._required: dict[tuple[Policy, str, Services], Compiled] = {}
        hook_routes()

    @classmethod
    def remote(
        cls, url: str, client_id: str, secret: str, *, user: type[U] | None = None, audience: str | None = None,
        tls: ClientTls | None = None, settings: Settings | None = None,
    ) -> Self:  # fmt: skip
        """Return the guard of an app whose identity service runs at `url`: the same policies, and no database here.

        `client_id` and `secret` are what ``routeguard client create`` printed there. `audience` is the one of the
        service's access tokens where that is not its issuer. `tls` is the certificate to show it. The app's own
        `issuer` in `settings` is its own origin. Raises ConfigError.
        """
        settings = settings if settings is not None else Settings.load()
        feature, settings = remote_feature(settings, (url, client_id, secret), user or User, audience, tls)
        return cls(settings, user=user, features=[feature])

    # -- policies ---------------------------------------------------------------------------------------------------

    def __call__(self, *policies: Any) -> Callable[[H], H]:
        """Mark a handler with what it requires: ``@guard(guard.session(), csrf())``. All of them must pass."""
        return self._guard(*policies)

    def session(
        self, *, user: Match | None = None, rule: Callable[[UserSession[U]], bool | Awaitable[bool]] | None = None,
        stream: StreamEnd = "end",
    ) -> Policy:  # fmt: skip
        """Ask for a signed-in user: 401 without one, 403 when `user` fields or `rule` do not hold.

        A list of values means any of them; dotted or nested names reach inside; a missing field never matches and
        a misspelt one is a ConfigError at start-up. `rule` is called only after the fields match. A streamed response
        (server-sent events, a long download) ends when the session does; ``stream="finish"`` lets it finish.
        """
        return checks.session(user=user, rule=rule, stream=stream)

    def optional_session(self, *, stream: StreamEnd = "end") -> Policy:
        """Let everybody in, and say who it is when somebody is signed in. An outage is 503, never a guest."""
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
        """Let a signed-in user manage his own keys at a POST route of yours whose path ends in ``{action}``.

        `allowed` are the actions offered (404 for others): create, list, metadata, rotate, revoke, networks and
        privilege; `update_to` the privileges his keys may be given. `managed_key` does it. A key cannot: 403.
        """
        by_hand = Policy((key_checks.NoApiKey(),)) & self.session() & csrf() & body_limit("2 KB")
        return by_hand & key_checks.managed_keys(allowed=allowed, update_to=update_to)

    # -- values for handlers ------------------------------------------------------------------------------------------

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
        """Return whoever calls: a session, or another principal the policy accepts."""
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

    @needs_guard
    async def managed_key(self, request: Request) -> dict[str, Any]:
        """Do what `manage_api_keys` let through, and return the result; a new key's text is in it once, as `key`.

        Raises ProblemError for what the action refuses.
        """
        from routeguard.api_keys.routes import perform  # noqa: PLC0415 - the identity extra

        return await perform(connection_of(request, self._runs).guard.services, request)

    @needs_guard
    async def find_session(self, connection: HTTPConnection) -> UserSession[U] | None:
        """Return the session of any request, or None. Decides nothing. Raises Unavailable when it cannot be told.

        None, too, for a WebSocket that a page of a foreign origin opened with our cookie (attack WS-01).
        """
        exchange = connection_of(connection, self._runs)
        # What is said to somebody known is for him alone, on a public route too: no shared cache keeps it.
        exchange.guarded = True
        if isinstance(exchange.principal, UserSession):
            return cast("UserSession[U]", exchange.principal)
        found = await session_of(exchange.guard.services)(exchange)
        if exchange.principal is None:
            exchange.principal = found
            if is_foreign_socket(exchange, exchange.guard.services):
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

    # -- wiring ---------------------------------------------------------------------------------------------------

    def install(
        self,
        app: Starlette | FastAPI,
        *,
        default: Policy | None = None,
        docs: Policy | None = None,
        frontend: Policy | None = None,
        headers: bool = True,
        mode: Literal["enforce", "observe"] = "enforce",
        refusal: Shape | None = None,
    ) -> None:
        """Guard an application, and mount the identity service's routes in it.

        `default` is the policy of handlers without a mark; without it they are refused, and start-up fails naming
        them. `docs` is that of FastAPI's own documentation pages (signed in, unless told), those of mounted
        applications too, `frontend` that of the files of ``app.frontend()``. With `headers`, every response, errors
        too, carries the security headers its handler did not set. ``mode="observe"`` only logs what would be refused,
        and never in production without `unsafe_observe_in_production`; handlers that ask for a session nobody has
        still get none, and answer 401.
        `refusal` gives the guard's refusals the application's own form (`as_detail` is one); those of the identity
        routes stay problems.
        """
        check_shape(refusal)
        check_options("install", default=default, docs=docs, frontend=frontend)
        if mode not in get_args(Mode):
            raise ConfigError(f"install(mode={mode!r}): the modes are {' and '.join(map(repr, get_args(Mode)))}")
        if mode == "observe":
            if self.settings.production and not self.settings.unsafe_observe_in_production:
                raise ConfigError("observe mode refuses nothing; production needs unsafe_observe_in_production=true")
            logger.warning("OBSERVE MODE: nothing is refused. What would be is logged as 'would be refused'.")
        # Each application has options of its own: enforced here and observed there must not become observed here.
        guard = replace(self._guard, default=None, headers=(), page_headers=()) if self._installed else self._guard
        self._attach(app, guard, self.session() if docs is None else docs)
        if headers and mode == "enforce":
            https = self.settings.secure_cookies
            guard.headers = header_bytes("api", https=https)
            # HTML keeps its styles and scripts, whose places we cannot know; nothing may frame it or change its base.
            page = {"content-security-policy": _PAGE_CSP, "referrer-policy": "strict-origin-when-cross-origin"}
            guard.page_headers = header_bytes("api", https=https, change=page)
        guard.mode = mode
        guard.refusal = refusal
        guard.frontend = frontend
        guard.default = default if default is not None else guard.default
        app.router.routes.extend(self.routes())

    def _attach(self, app: Any, guard: Guard, docs: Policy) -> None:
        """Take the seam of the framework `app` is made with."""
        credentials = partial(credentials_of, self.services)  # Later: it loads FastAPI.
        installed = Installed(guard, partial(listed, app, guard, credentials))
        # First: what cannot be installed must leave no trace.
        wrap(app, partial(self._edge, installed))
        self._installed.append(installed)
        attach(app, guard, docs, credentials)
        hook_routes()

    def routes(self) -> list[BaseRoute]:
        """Return the routes of all features, for an application's router."""
        section = Section(self._runs.services, self._feature_routes)
        return [section] if section.routes else []

    def _feature_routes(self, services: Services) -> list[BaseRoute]:
        made = [route for feature in self.features if feature.routes for route in feature.routes(services)]
        if self.settings.cors_origins:
            readable = identity_cors(self.settings.cors_origins)
            for route in made:
                mark(route.endpoint, readable)
        return made

    def asgi(self, app: App) -> Edge:
        """Return `app` behind the edge: nothing leaves it without a decision. Raises ConfigError for a lost mark."""
        if not is_router(app) and policy_of(app) is not None:
            raise ConfigError(f"{handler_name(app)} carries a policy that nothing asks: mount it in an application")
        return self._edge(Installed(self._guard, list), app)

    def _edge(self, installed: Installed, app: App) -> Edge:
        start = partial(self._start, apps=(installed,), holder=installed)
        return Edge(installed.guard, app, start=start, stop=partial(self._runs.leave, installed))

    @asynccontextmanager
    async def lifespan(self, app: Any = None) -> AsyncIterator[None]:  # noqa: ARG002 - the frameworks' shape
        """Start and stop with the application: ``FastAPI(lifespan=guard.lifespan)``. `install` does so by itself."""
        await self._start(True)  # noqa: FBT003 - whether there is a lifespan
        try:
            yield
        finally:
            await self.close()

    def matrix(self) -> list[Row]:
        """Return what every route of the installed applications requires, in words."""
        return [row for one in self._installed for row in matrix(one.guard, one.entries())]

    @property
    def services(self) -> Services:
        """The services of the running event loop, or of the first one where it has none.

        One guard runs in any number of event loops: in one after the other, and in several at once (each then has
        services of its own, like another process over the same database).
        """
        return self._runs.services()

    async def start(self) -> None:
        """Start the services in the running event loop without an application, as the command line does."""
        await self._runs.enter(self)

    async def _start(self, lifespan: bool, *, apps: Iterable[Installed] = (), holder: object = None) -> Run:  # noqa: FBT001 - the edge's shape
        """Verify everything that can be known before the first request, then start.

        Raises ConfigError with all findings. Without a lifespan nobody is there to stop the server, so undecided
        handlers are only logged; they are refused one by one.
        """
        if findings := [finding for one in apps or self._installed for finding in one.verify(lifespan=lifespan)]:
            raise ConfigError(findings)
        run = await self._runs.enter((holder or self) if lifespan else None)
        warn_at_start(run.services)
        return run

    async def close(self) -> None:
        """Stop the services in the running event loop once all that started them there have; safe to call twice."""
        await self._runs.leave(self)
