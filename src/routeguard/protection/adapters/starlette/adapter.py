"""The adapter of Starlette. It stands before FastAPI's routes too, whose applications may be mounted anywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from starlette import requests

from routeguard.core.marks import values
from routeguard.protection.adapters.connections import found_in
from routeguard.protection.adapters.known import adapter_for
from routeguard.protection.adapters.protocol import Options
from routeguard.protection.adapters.starlette.errors import NotInstalled, answer_errors
from routeguard.protection.adapters.starlette.hook import hook_routes, wrap
from routeguard.protection.adapters.starlette.inventory import handlers
from routeguard.protection.adapters.starlette.listing import applications_below, entries
from routeguard.protection.adapters.starlette.wrapping import is_router
from routeguard.protection.guard.overrides import warn_of_overrides

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from routeguard.protection.adapters.protocol import Adapter, Parts
    from routeguard.protection.guard.asgi import Connection
    from routeguard.protection.guard.guard import Guard
    from routeguard.protection.guard.inventory import Handler
    from routeguard.protection.guard.matrix import Entry


class StarletteAdapter:
    """`docs` and `frontend` are options here too: applications of FastAPI may be mounted in one of Starlette."""

    options = frozenset(Options.__annotations__)

    def take_seam(self) -> None:
        """Let the guard stand before `handle` of every route class, and name the framework's types in signatures."""
        hook_routes()
        for value in values():
            # FastAPI reads from a signature what a value is made of; the package itself loads no framework.
            for name, annotation in value.__annotations__.items():
                if name != "return" and isinstance(annotation, str) and hasattr(requests, annotation):
                    value.__annotations__[name] = getattr(requests, annotation)

    def handles(self, app: Any) -> bool:
        """Return whether `app` is an application or a router."""
        return is_router(app)

    def inventory(self, app: Any) -> Iterator[Handler]:
        """Yield every handler, those of mounted applications included."""
        return handlers(app)

    def entries(self, app: Any, guard: Guard, parts: Parts) -> Iterable[Entry]:
        """Return every handler with its marks, and complete the descriptions of mounted applications.

        Asked at each start: they may be mounted after `install`. Versions of an API often are, each with its own.
        """
        below = list(applications_below(app))
        for mounted, around in below:
            adapter_for(mounted).describe(mounted, guard, parts, around)
        warn_of_overrides(guard, [app, *(mounted for mounted, _ in below)])
        return entries(guard, app)

    def describe(self, app: Any, guard: Guard, parts: Parts, around: tuple[Any, ...] = ()) -> None:
        """Do nothing: Starlette's applications have no description."""

    def install(self, app: Any, guard: Guard, options: Options, parts: Parts) -> None:
        """Put the edge around an application, answer its errors as problems, and add the routes of `parts`."""
        # First: what cannot be installed must leave no trace.
        wrap(app, parts.edge)
        docs = options.get("docs")
        guard.docs, guard.frontend = parts.signed_in if docs is None else docs, options.get("frontend")
        self.answer_errors(app)
        self.describe(app, guard, parts)
        app.router.routes.extend(parts.routes)
        self.take_seam()

    def answer_errors(self, app: Any) -> None:
        """Answer the framework's errors as problems."""
        answer_errors(app)

    def connection_of(self, value: Any) -> Connection | None:
        """Return the connection that a guard made of a request or WebSocket."""
        return found_in(value.scope)

    def not_installed(self, words: str) -> NotInstalled:
        """Return an error that the framework answers with 500, and without a traceback."""
        return NotInstalled(500, words)


ADAPTER: Final[Adapter] = StarletteAdapter()
