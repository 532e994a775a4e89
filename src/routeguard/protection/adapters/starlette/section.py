"""Routes of our own inside an application, at almost no cost to the requests that are not for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.routing import Match, Mount, Router

from routeguard.core.exchange import SCOPE_KEY

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from routeguard.core.services import Services


class _Routers(Router):
    """The same routes over each set of services; `current` returns the set of the running event loop."""

    def __init__(self, current: Callable[[], Services], make: Callable[[Services], Sequence[Any]]) -> None:
        first = current()
        # Our paths have one spelling each: a redirect to the other would be a 307 that resends a password (RED-14).
        super().__init__(make(first), redirect_slashes=False)
        self._current = current
        self._make = make
        self._by_services: dict[Services, Router] = {first: self}

    def of_this_loop(self) -> Router:
        """Return the router over the services of the running event loop."""
        services = self._current()
        found = self._by_services.get(services)
        if found is None:
            found = self._by_services[services] = Router(self._make(services), redirect_slashes=False)
        return found

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Hand the request on."""
        router = self.of_this_loop()
        await (super().__call__(scope, receive, send) if router is self else router(scope, receive, send))


class Section(Mount):
    """A mount without a prefix of its own: its routes have whole paths, and only those paths are taken.

    One look at a path's first segment tells the application's requests apart, where each of our routes would cost
    them a regular expression. What matches none of the routes goes on to the application.
    """

    def __init__(self, current: Callable[[], Services], make: Callable[[Services], Sequence[Any]]) -> None:
        """`current` returns the services of the running event loop, `make` the routes over services."""
        routers = _Routers(current, make)
        super().__init__("", app=routers)
        self._routers = routers
        self._segments = frozenset(_segment(str(getattr(route, "path", ""))) for route in routers.routes)
        self._starts = tuple(self._segments)

    def matches(self, scope: Any) -> tuple[Match, Any]:
        """Return whether one of the routes is asked for."""
        path: str = scope["path"]
        root: str = scope.get("root_path", "")
        # Only whole segments: below `/acc`, a path `/account` whose prefix a proxy took away is not `ount`.
        if root and path.startswith(f"{root}/"):
            path = path[len(root) :]
        if not path.startswith(self._starts) or _segment(path) not in self._segments:
            return Match.NONE, {}
        # The application's router asks once more, without the slash, to send the caller there by 307: a POST of a
        # password would be sent again (attack RED-14). Our paths have one spelling, and this request has another.
        exchange = scope.get(SCOPE_KEY)
        asked = exchange.request.path if exchange is not None else scope["path"]
        if asked != scope["path"] and asked.rstrip("/") == scope["path"]:
            return Match.NONE, {}
        best = Match.NONE
        for route in self._routers.of_this_loop().routes:
            found, _ = route.matches(scope)
            if found is Match.FULL:
                return found, {}
            best = found if best is Match.NONE else best
        return best, {}


def _segment(path: str) -> str:
    end = path.find("/", 1)
    return path if end == -1 else path[:end]
