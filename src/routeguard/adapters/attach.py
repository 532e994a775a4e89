"""What `install` changes in an application beside its edge: errors, documentation pages, description; and its list."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from routeguard.adapters import listing
from routeguard.adapters.errors import answer_errors
from routeguard.guard.overrides import warn_of_overrides

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from routeguard.adapters.openapi_security import Credentials
    from routeguard.core.policy import Policy
    from routeguard.guard.guard import Guard
    from routeguard.guard.inventory import Entry


def attach(app: Any, guard: Guard, docs: Policy, credentials: Callable[[], Credentials]) -> None:
    """Answer errors as problems, and describe the guard's refusals; `docs` is the policy of documentation pages."""
    guard.docs = docs
    framework = sys.modules.get("fastapi")
    if framework is not None and isinstance(app, framework.FastAPI):
        from routeguard.adapters import fastapi, openapi  # noqa: PLC0415 - adapters load their framework

        fastapi.answer_fastapi_errors(app)
        openapi.describe(app, guard, credentials())
    else:
        answer_errors(app)


def listed(app: Any, guard: Guard, credentials: Callable[[], Credentials]) -> Iterable[Entry]:
    """Return every handler. Asked at each start: applications may be mounted after `install`, and FastAPI loaded."""
    if "fastapi" in sys.modules:
        from routeguard.adapters.fastapi import describe_mounted  # noqa: PLC0415 - adapters load their framework

        describe_mounted(app, guard, credentials())
        warn_of_overrides(guard, [app, *(mounted for mounted, _ in listing.applications_below(app))])
    return listing.entries(guard, app)
