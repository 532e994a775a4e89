"""The mark a handler carries: its policy, bound to the function itself and never to a path."""

from __future__ import annotations

from functools import partial
from typing import Any, Final, TypeVar

from routeguard.core.errors import ConfigError
from routeguard.core.policy import Policy

ATTRIBUTE: Final = "__routeguard_policy__"

H = TypeVar("H")


def mark(handler: H, policy: Policy) -> H:
    """Attach `policy` to a handler and return the same handler. Marks add up: all of them must pass.

    Raises ConfigError for an object that cannot carry an attribute (a bound method: mark its function instead).
    """
    own = vars(handler).get(ATTRIBUTE) if hasattr(handler, "__dict__") else None
    try:
        setattr(handler, ATTRIBUTE, own & policy if own is not None else policy)
    except AttributeError:
        raise ConfigError(f"{handler!r} cannot carry a policy; mark the function it is made from") from None
    return handler


def policy_of(handler: Any) -> Policy | None:
    """Return the policy a handler carries, or None. Looks through `functools.partial`."""
    found = getattr(handler, ATTRIBUTE, None)
    while found is None and isinstance(handler, partial):
        handler = handler.func
        found = getattr(handler, ATTRIBUTE, None)
    return found if isinstance(found, Policy) else None
