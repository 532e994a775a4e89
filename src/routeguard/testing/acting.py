"""Acting as a user, whatever the framework: for applications that have no `dependency_overrides`, too."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from routeguard.core.errors import ConfigError
from routeguard.core.overrides import IdentityOverrides
from routeguard.protection.adapters.overrides import Overrides
from routeguard.testing.principals import session_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from routeguard.app import Routeguard


@contextmanager
def acting_as(guard: Routeguard[Any], user: Any) -> Iterator[Any]:
    """Let every request come from `user`: a user, a `UserSession`, an `ApiKey` or other principal, or None for guests.

    Holds for all applications the guard is installed in, until the block ends; blocks may stand in each other. An
    application that overrides a value of the guard keeps what that says. Yields the caller. Raises ConfigError outside
    test mode, TypeError for a user without an id.
    """
    overrides = guard.services.find(IdentityOverrides)
    if not isinstance(overrides, Overrides):
        raise ConfigError('acting_as works in test mode only: Settings(environment="test")')
    caller = user if user is None or hasattr(user, "principal_id") else session_for(user)
    before, overrides.acting = overrides.acting, caller
    try:
        yield caller
    finally:
        overrides.acting = before
