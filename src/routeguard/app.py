"""The composition root: one object that guards an application and, unless told otherwise, runs its identity service."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

from typing_extensions import Self, Unpack

from routeguard.assembly import (
    assemble,
    assemble_again,
    check_settings,
    credentials_of,
    guard_over,
    read_settings,
    warn_at_start,
)
from routeguard.builtin.api import (
    Policies,
    U,
    User,
    Values,
    add_headers,
    asks,
    bind_rules,
    kinds_of,
    mark_readable,
    overridable,
    provide,
)
from routeguard.builtin.features import chosen, remote_feature, whole
from routeguard.core.errors import ConfigError
from routeguard.core.features import route_clashes
from routeguard.core.marks import policy_of
from routeguard.core.policy import Policy, check_options
from routeguard.protection.adapters.known import adapter_for, is_routed, take_seams
from routeguard.protection.adapters.overrides import Overrides
from routeguard.protection.adapters.protocol import Options, Parts
from routeguard.protection.guard.edge import Edge
from routeguard.protection.guard.guard import Compiled, Mode, handler_name
from routeguard.protection.guard.matrix import Installed, Row, matrix
from routeguard.protection.guard.refusals import check_shape
from routeguard.protection.guard.runs import Run, Runs
from routeguard.settings import Settings

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.applications import Starlette
    from starlette.routing import BaseRoute

    from routeguard.builtin.features import ClientTls, Resolver
    from routeguard.core.feature import Feature
    from routeguard.core.services import Services
    from routeguard.protection.guard.asgi import App
    from routeguard.protection.guard.refusals import Shape

H = TypeVar("H")

logger = logging.getLogger("routeguard")


class Routeguard(Policies[U], Values[U]):
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
        self.settings, also, findings = read_settings(settings, features or ())
        self.features = tuple(chosen(features, identify, also, findings))
        check_settings(self.settings, findings, self.features, user or User)
        every = whole(self.features, identify)
        others = provide(self, every)
        values = overridable(self, others)
        overrides = Overrides(values, kinds_of(others)) if self.settings.testing else None
        services = assemble(self.settings, every, user=user or User, overrides=overrides)
        self._runs = Runs(services, lambda: assemble_again(services, every, user=user or User))
        self._guard = guard_over(services)
        bind_rules(self._guard, cross_site=self.settings.cookies.cross_site)
        self._guard.asks = asks(self, others)
        self._guard.overridable = tuple(one.call for one in values)
        self._installed: list[Installed] = []
        self._required: dict[tuple[Policy, str, Services], Compiled] = {}
        take_seams()

    @classmethod
    def remote(
        cls,
        url: str,
        client_id: str,
        secret: str,
        *,
        user: type[U] | None = None,
        audience: str | None = None,
        tls: ClientTls | None = None,
        settings: Settings | None = None,
    ) -> Self:
        """Return the guard of an app whose identity service runs at `url`: the same policies, and no database here.

        `client_id` and `secret` are what ``routeguard client create`` printed there. `audience` is the one of the
        service's access tokens where that is not its issuer. `tls` is the certificate to show it. The app's own
        `issuer` in `settings` is its own origin. Raises ConfigError.
        """
        settings = settings if settings is not None else Settings.load()
        feature, settings = remote_feature(settings, (url, client_id, secret), user or User, audience, tls)
        return cls(settings, user=user, features=[feature])

    # -- marks ------------------------------------------------------------------------------------------------------

    def __call__(self, *policies: Any) -> Callable[[H], H]:
        """Mark a handler with what it requires: ``@guard(guard.session(), csrf())``. All of them must pass."""
        return self._guard(*policies)

    # -- wiring ---------------------------------------------------------------------------------------------------

    def install(
        self,
        app: Starlette | FastAPI,
        *,
        default: Policy | None = None,
        headers: bool = True,
        mode: Literal["enforce", "observe"] = "enforce",
        refusal: Shape | None = None,
        **options: Unpack[Options],
    ) -> None:
        """Guard an application, and mount the identity service's routes in it.

        `default` is the policy of handlers without a mark; without it they are refused, and start-up fails naming
        them. `docs` is that of FastAPI's own documentation pages (signed in, unless told), those of mounted
        applications too, `frontend` that of the files of ``app.frontend()``. With `headers`, every response, errors
        too, carries the security headers its handler did not set. ``mode="observe"`` only logs what would be refused,
        and never in production without `unsafe_observe_in_production`; handlers that ask for a session there is not
        still get none, and answer 401.
        `refusal` gives the guard's refusals the application's own form (`as_detail` is one); those of the identity
        routes stay problems.
        """
        check_shape(refusal)
        adapter = adapter_for(app)
        if unknown := sorted(options.keys() - adapter.options):
            raise TypeError(f"install() got an unexpected keyword argument {unknown[0]!r}")
        check_options("install", default=default, **options)
        if mode not in get_args(Mode):
            raise ConfigError(f"install(mode={mode!r}): the modes are {' and '.join(map(repr, get_args(Mode)))}")
        if mode == "observe":
            if self.settings.production and not self.settings.unsafe_observe_in_production:
                raise ConfigError("observe mode refuses nothing; production needs unsafe_observe_in_production=true")
            logger.warning("OBSERVE MODE: nothing is refused. What would be is logged as 'would be refused'.")
        # Each application has options of its own: enforced here and observed there must not become observed here.
        guard = replace(self._guard, default=None, headers=(), page_headers=()) if self._installed else self._guard
        credentials = partial(credentials_of, self.services)  # Later: it is for descriptions only.
        installed = Installed(guard, lambda: adapter.entries(app, guard, parts))
        parts = Parts(partial(self._edge, installed), self.routes(), credentials, self.session())
        adapter.install(app, guard, options, parts)
        self._installed.append(installed)
        if headers and mode == "enforce":
            add_headers(guard, https=self.settings.secure_cookies)
        guard.mode = mode
        guard.refusal = refusal
        guard.default = default if default is not None else guard.default

    def routes(self) -> list[BaseRoute]:
        """Return the routes of all features, for an application's router."""
        if not any(feature.routes for feature in self.features):
            return []
        from routeguard.protection.adapters.starlette.section import Section  # noqa: PLC0415 - the identity extra

        section = Section(self._runs.services, self._feature_routes)
        return [section] if section.routes else []

    def _feature_routes(self, services: Services) -> list[BaseRoute]:
        from routeguard.foundation.web.routes import as_route  # noqa: PLC0415 - the identity extra

        named = [
            (feature.name, as_route(each))
            for feature in self.features
            if feature.routes is not None
            for each in feature.routes(services)
        ]
        if findings := route_clashes(named):
            raise ConfigError(findings)
        made = [route for _, route in named]
        if self.settings.cors_origins:
            mark_readable((getattr(route, "endpoint", route) for route in made), self.settings.cors_origins)
        return made

    def asgi(self, app: App) -> Edge:
        """Return `app` behind the edge: nothing leaves it without a decision. Raises ConfigError for a lost mark."""
        if not is_routed(app) and policy_of(app) is not None:
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

        Raises ConfigError with all findings. Without a lifespan nothing could stop the server, so undecided
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
