"""The documentation pages that FastAPI makes, wherever their routes stand."""

from __future__ import annotations

from inspect import isfunction
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from routeguard.core.policy import Policy
    from routeguard.protection.guard.guard import Guard


def docs_policy(guard: Guard, handler: Any, policy: Policy | None) -> Policy | None:
    """Return the policy of a handler that carries `policy`: for an unmarked documentation page, that of `docs`.

    Recognised by the handler and not by walking applications: those behind a middleware, mounted late or included by
    their router are not found that way (attack: a default of `public` opens the description of a mounted version).
    """
    return guard.docs if policy is None and is_docs(handler) else policy


def is_docs(handler: Any) -> bool:
    """Whether a handler is one that `FastAPI.setup` makes: a documentation page, or the description behind it.

    What a subclass makes in a `setup` of its own is a handler like any other: it may be anything, and a `docs` that is
    public must not open it.
    """
    return (
        isfunction(handler)
        and handler.__module__ == "fastapi.applications"
        and handler.__qualname__.startswith("FastAPI.setup.<locals>.")
    )
