"""From a row to the application's own user class, and back."""

from __future__ import annotations

import dataclasses
import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, cast, get_type_hints

import msgspec

from routeguard.core.errors import ConfigError, Unavailable
from routeguard.identity.users.models import User, UserId

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

U = TypeVar("U")

logger = logging.getLogger("routeguard.users")

COLUMNS: Final = ("id", "email", "name", "email_verified", "image", "role", "created_at", "suspended_at", "fields")
"""The order in which `UserCodec.decode` takes a row's values."""
_BUILT_IN: Final = frozenset(field.name for field in dataclasses.fields(User))


class UserCodec(Generic[U]):
    """Decodes rows into `user_class`: `User`, or the application's subclass with its fields from one JSON column.

    Raises ConfigError for a class that is no frozen subclass of `User`, or whose own fields lack a default (users of
    before could not be read) or have no JSON form.
    """

    def __init__(self, user_class: type[U]) -> None:
        if not (issubclass(user_class, User) and dataclasses.is_dataclass(user_class)):
            raise ConfigError(f"{user_class!r} must be a frozen dataclass that extends routeguard.User")
        self.user_class = user_class
        self._make: Any = user_class
        self.extra = tuple(field for field in dataclasses.fields(user_class) if field.name not in _BUILT_IN)
        self._fields = _struct(user_class, self.extra)
        self._decoder = None if self._fields is None else msgspec.json.Decoder(self._fields)

    def decode(self, row: Sequence[Any]) -> U:
        """Return the user of a row in the order of COLUMNS. Raises Unavailable for fields that cannot be read."""
        user_id, email, name, verified, image, role, created_at, suspended_at, fields = row
        own: dict[str, Any] = {}
        if self._decoder is not None:
            try:
                own = msgspec.structs.asdict(self._decoder.decode(fields or "{}"))
            except msgspec.DecodeError as error:
                # Cannot tell who it is: neither a guest nor a user with default fields (attack AZ-16).
                name = self.user_class.__name__
                logger.error("fields of user %s do not fit %s", user_id, name)  # noqa: TRY400 - values stay out
                raise Unavailable("the fields of a user") from error
        return cast(
            "U",
            self._make(
                id=UserId(user_id),
                email=email,
                name=name,
                email_verified=bool(verified),
                image=image,
                role=role,
                created_at=datetime.fromtimestamp(created_at, UTC),
                suspended_at=None if suspended_at is None else datetime.fromtimestamp(suspended_at, UTC),
                **own,
            ),
        )

    def encode_fields(self, values: Mapping[str, Any], old: str = "{}") -> str:
        """Return the JSON of the application's own fields: `old` with `values` put in. Raises TypeError for others."""
        if unknown := values.keys() - {field.name for field in self.extra}:
            raise TypeError(f"{self.user_class.__name__} has no field {', '.join(sorted(unknown))}")
        merged = msgspec.json.decode(old or "{}") | msgspec.to_builtins(dict(values))
        if self._fields is not None:
            msgspec.convert(merged, self._fields)
        return msgspec.json.encode(merged).decode()


def _struct(user_class: type[Any], extra: tuple[dataclasses.Field[Any], ...]) -> type[msgspec.Struct] | None:
    if not extra:
        return None
    missing = dataclasses.MISSING
    bare = [field.name for field in extra if field.default is missing and field.default_factory is missing]
    if bare:
        raise ConfigError([f"{user_class.__name__}.{name} needs a default: stored users lack it" for name in bare])
    hints = get_type_hints(user_class)
    members: list[tuple[str, Any, Any]] = []
    for field in extra:
        make: Any = field.default_factory
        default = msgspec.field(default_factory=make) if field.default is missing else field.default
        members.append((field.name, hints[field.name], default))
    try:
        made = msgspec.defstruct(f"{user_class.__name__}Fields", members, kw_only=True)
        msgspec.json.Decoder(made)
    except TypeError as error:
        raise ConfigError(f"a field of {user_class.__name__} has no JSON form: {error}") from None
    return made
