"""Takes the seam of the framework an application is made with."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from routeguard.adapters import listing, starlette
from routeguard.guard.inventory import Installed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from routeguard.adapters.openapi import Facts
    from routeguard.core.policy import Policy
    from routeguard.guard.edge import Edge
    from routeguard.guard.guard import Guard
    from routeguard.guard.inventory import Entry


def attach(
    app: Any, guard: Guard, *, docs: Policy, edge: Callable[[Installed, Any], Edge], facts: Callable[[], Facts]
) -> Installed:
    """Guard `app`: the edge around it, its documentation pages under `docs`, its errors as problems.

    `facts` returns what FastAPI's description has to be told of our checks. Raises RuntimeError for an application
    that has served a request or has a guard, and leaves no trace in it then.
    """

    def listed() -> Iterable[Entry]:
        # At each start: applications may be mounted after this, and FastAPI loaded.
        if "fastapi" in sys.modules:
            from routeguard.adapters.fastapi import adopt_mounted  # noqa: PLC0415 - loads FastAPI

            adopt_mounted(app, guard, docs, facts())
        return listing.entries(guard, app)

    installed = Installed(guard, listed)
    starlette.wrap(app, lambda inner: edge(installed, inner))
    framework = sys.modules.get("fastapi")
    if framework is not None and isinstance(app, framework.FastAPI):
        from routeguard.adapters import fastapi, openapi  # noqa: PLC0415 - loads FastAPI

        fastapi.answer_fastapi_errors(app)
        fastapi.mark_docs(app, docs)
        openapi.describe(app, guard, facts())
    else:
        from routeguard.adapters.errors import answer_errors  # noqa: PLC0415 - only where it is needed

        answer_errors(app)
    starlette.hook_routes()
    return installed
