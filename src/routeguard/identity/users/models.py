"""What a user is, what may be set about users, and what happens to them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any, Final, NewType

from routeguard.core.errors import ConfigError
from routeguard.core.events import Event

UserId = NewType("UserId", str)
"""`usr_` and 128 random bits. Never reused, so that no user inherits what was another's (ASVS v5.0.0-10.3.3)."""

NAME_LENGTH: Final = 100
IMAGE_LENGTH: Final = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """A person with an account.

    An application adds fields by a subclass whose fields have defaults; they are kept in one JSON column::

        @dataclass(frozen=True, slots=True, kw_only=True)
        class AppUser(User):
            plan: Literal["free", "pro"] = "free"

    `email` is the address as given (and as mail is sent to it), `role` the site-wide role. Only fields declared with
    ``field(metadata={"public": True})`` are shown by `public_user`.
    """

    id: UserId
    email: str
    name: str = ""
    email_verified: bool = False
    image: str | None = None
    role: str = "user"
    created_at: datetime
    suspended_at: datetime | None = None


_PUBLIC: Final = ("id", "name", "email", "email_verified", "image", "role", "created_at")


def public_user(user: Any) -> dict[str, Any]:
    """Return what users are told about themselves: the built-in fields and those the application calls public.

    Anything else stays inside, so that an internal note does not leave by default (ASVS v5.0.0-8.2.3).
    """
    shown = {name: getattr(user, name) for name in _PUBLIC if hasattr(user, name)}
    for field in fields(user):
        if field.metadata.get("public"):
            shown[field.name] = getattr(user, field.name)
    return shown


@dataclass(frozen=True, slots=True, kw_only=True)
class UserSettings:
    """What is decided about users.

    `roles` are the site-wide roles, the first being that of new users and `admin_role` the one the site can never
    be without. `require_verified_email` asks for a proven address before a session starts; when not said it is on
    in production and off in development. `verification_life` is how long a mailed link proves an address.
    """

    roles: tuple[str, ...] = ("user", "moderator", "admin")
    admin_role: str = "admin"
    require_verified_email: bool | None = None
    verification_life: timedelta = timedelta(hours=24)

    def __post_init__(self) -> None:
        findings: list[str] = []
        if not self.roles or any(not role or len(role) > 40 for role in self.roles):
            findings.append("users.roles must be names of 1 to 40 characters")
        if self.admin_role not in self.roles:
            findings.append(f"users.admin_role {self.admin_role!r} is not among users.roles")
        elif self.roles[0] == self.admin_role:
            findings.append("users.roles begins with the role of new users, which cannot be the admin's")
        if self.verification_life <= timedelta(0):
            findings.append("users.verification_life must be positive")
        if findings:
            raise ConfigError(findings)

    def verified_email_required(self, *, production: bool) -> bool:
        """Return whether an unproven address keeps its owner out."""
        return production if self.require_verified_email is None else self.require_verified_email


@dataclass(frozen=True, slots=True)
class UserChange:
    """A change that sessions and caches must learn of, told inside the transaction that makes it.

    `fields` are the names of what changed. `ended` says that the user may no longer act: suspended or deleted.
    """

    user_id: UserId
    fields: frozenset[str]
    ended: bool = False


@dataclass(frozen=True, slots=True)
class UserAdded:
    """A user is made, told inside the transaction that makes the user: for what every user has from the start."""

    user: Any


@dataclass(frozen=True, slots=True)
class PasswordChange:
    """A user gets another password, or loses it; told inside the transaction, before the new one is written."""

    user_id: UserId


@dataclass(frozen=True, slots=True, kw_only=True)
class UserCreated(Event):
    """An account came to be."""

    user_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UserUpdated(Event):
    """Fields of a user changed; their names, never their values."""

    user_id: str
    fields: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class UserRoleChanged(Event):
    """A user has another site-wide role."""

    user_id: str
    role: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UserSuspended(Event):
    """A user may no longer sign in."""

    user_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UserRestored(Event):
    """A suspension ended."""

    user_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UserDeleted(Event):
    """An account is gone."""

    user_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EmailVerified(Event):
    """A user proved to read the mail of the address."""

    user_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EmailChanged(Event):
    """A user has another address."""

    user_id: str


EVENTS: Final = (
    UserCreated,
    UserUpdated,
    UserRoleChanged,
    UserSuspended,
    UserRestored,
    UserDeleted,
    EmailVerified,
    EmailChanged,
)
