"""What an application serves, one `Handler` each, as an adapter finds it: facts only, and no policy.

Only ever a list to look at. Enforcement happens where the framework has chosen a handler, never by walking routes.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator

HandlerKind = Literal["http", "websocket", "docs", "static", "frontend", "mount", "fallback", "unknown"]
"""A handler of requests or of WebSockets; a page of documentation that the framework makes; files of a directory; those
of a front end; an application of another kind, whose handlers are not known; what a router answers where no route
matches; a route of a class that is not known."""


@dataclass(frozen=True, slots=True)
class Dependency:
    """A function that the framework calls before the handler, with those that it calls before that one."""

    call: Any
    dependencies: tuple[Dependency, ...] = ()


@dataclass(frozen=True, slots=True)
class Handler:
    """One handler, at one path and for one method."""

    method: str
    """An HTTP method, `WS`, `MOUNT`, or `*` for any."""
    path: str
    """The application's own template, mounts included."""
    endpoint: Any
    """The function, the class or its method, or the application that is mounted."""
    kind: HandlerKind = "http"
    name: str = ""
    """That of the route."""
    host: str = ""
    """The template of the host it is served for; empty for any."""
    dependencies: tuple[Dependency, ...] = ()
    """What the framework calls first, that of routers and of the application included; empty where it has no such."""
    include_in_schema: bool = False
    """Whether the framework's own description lists it."""
    around: tuple[Any, ...] = ()
    """The applications, routers and mounts it stands in, outermost first."""
    route: Any = None
    """The framework's own object for it."""

    @property
    def calls(self) -> tuple[Any, ...]:
        """Every dependency, those of dependencies included."""
        return tuple(_calls(self.dependencies))

    @property
    def file(self) -> str | None:
        """The path of the file with the handler's source; None where Python does not know it."""
        return _place(self.endpoint)[0]

    @property
    def line(self) -> int | None:
        """The line its source begins at, decorators included; None where Python does not know it."""
        return _place(self.endpoint)[1]


def _calls(dependencies: tuple[Dependency, ...]) -> Iterator[Any]:
    for each in dependencies:
        yield each.call
        yield from _calls(each.dependencies)


def _place(endpoint: Any) -> tuple[str | None, int | None]:
    """Return file and line of a function, or of the class of anything else."""
    while (inner := endpoint.func if isinstance(endpoint, partial) else inspect.unwrap(endpoint)) is not endpoint:
        endpoint = inner
    if (code := getattr(endpoint, "__code__", None)) is not None:
        return code.co_filename, code.co_firstlineno
    try:
        kind = endpoint if isinstance(endpoint, type) else type(endpoint)
        return inspect.getsourcefile(kind), inspect.getsourcelines(kind)[1]
    except (OSError, TypeError):
        return None, None
