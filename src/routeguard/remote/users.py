"""From what the service tells of a user to the application's own user class."""

from __future__ import annotations

import logging
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, cast

import msgspec

from routeguard.core.errors import Unavailable
from routeguard.identity.users.reader import UserCodec

if TYPE_CHECKING:
    from collections.abc import Mapping

U = TypeVar("U")

logger = logging.getLogger("routeguard.remote")

_NOT_TOLD: Final = frozenset({"suspended_at"})
"""Who is suspended has no session."""


class RemoteUsers(Generic[U]):
    """Reads users of `user_class`. Raises ConfigError for a class that is no frozen subclass of `User`."""

    def __init__(self, user_class: type[U]) -> None:
        self.user_class = UserCodec(user_class).user_class
        self._needed = frozenset(field.name for field in fields(self.user_class)) - _NOT_TOLD  # type: ignore[arg-type]

    def read(self, told: Mapping[str, Any]) -> U:
        """Return the user. Raises Unavailable for one that lacks a field of the class, or has another type in it.

        A default in its place would quietly be the user's role or limit (attack SES-26).
        """
        missing = sorted(self._needed - told.keys())
        try:
            if not missing:
                kind: Any = self.user_class
                return cast("U", msgspec.convert({name: told[name] for name in self._needed}, kind))
            cause = f"are not told: {', '.join(missing)} (the service shows fields it declares public)"
        except msgspec.ValidationError:
            cause = "have another type there"
        logger.error("fields of %s %s", self.user_class.__name__, cause)
        raise Unavailable("the fields of a user")
