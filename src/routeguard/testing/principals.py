"""Callers as values: a session and an API key as the guard itself would have found them."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, TypeVar
from uuid import UUID

from routeguard.core.clock import SystemClock
from routeguard.core.principal import Assurance
from routeguard.core.secret import new_token
from routeguard.identity.api_keys.models import ID_PREFIX, PRIVILEGES, ApiKey, Privilege, are_scopes
from routeguard.identity.sessions.models import SessionId, SessionSettings, UserSession

U = TypeVar("U")

_CLOCK: Final = SystemClock()
_LIFE: Final = SessionSettings().absolute


def session_for(
    user: U, *, authenticated_at: datetime | None = None, amr: tuple[str, ...] = ("pwd",), aal: int = 1, **facts: Any
) -> UserSession[U]:
    """Return a live session of `user`, who has signed in just now with a password.

    `authenticated_at` (with a time zone) is what `fresh` looks at, `amr` are authentication methods (RFC 8176), `aal`
    is the level (NIST SP 800-63B). `facts` are other fields of `UserSession`: `organization`, `role`, `expires_at`.
    Raises TypeError for a user without an id and for what is no such field, ValueError for a time without a zone.
    """
    _id_of(user)
    at = _CLOCK.now() if authenticated_at is None else authenticated_at
    values: dict[str, Any] = {
        "id": SessionId(f"ses_{new_token(16)}"),
        "created_at": at,
        "expires_at": _CLOCK.now() + _LIFE,
        "assurance": Assurance(aal, tuple(amr), at),
    }
    session = UserSession(user=user, authenticated_at=at, **(values | facts))
    _require_zones(session.created_at, session.authenticated_at, session.expires_at)
    return session


def key_for(user: Any, *scopes: str, privilege: Privilege = "demo", **facts: Any) -> ApiKey:
    """Return a live API key of `user` with `scopes` and `privilege`.

    `facts` are other fields of `ApiKey`: `name`, `owner_id`, `expires_at`, `rate`. Raises TypeError for a user without
    an id and for what is no such field, ValueError for scopes and privileges that no key can have.
    """
    user_id = _id_of(user)
    if not are_scopes(scopes):
        raise ValueError(f"{scopes!r} are not scopes such as 'reports:read'")
    if privilege not in PRIVILEGES:
        raise ValueError(f"privilege {privilege!r} is none of {', '.join(PRIVILEGES)}")
    values: dict[str, Any] = {
        "id": ID_PREFIX + new_token(16),
        "name": "test",
        "owner_id": user_id,
        "user_id": user_id,
        "created_at": _CLOCK.now(),
    }
    key = ApiKey(privilege=privilege, scopes=scopes, **(values | facts))
    _require_zones(*(at for at in (key.created_at, key.expires_at) if at is not None))
    return key


def _id_of(user: Any) -> str:
    user_id = getattr(user, "id", None)
    if not isinstance(user_id, (str, int, UUID)) or isinstance(user_id, bool) or user_id == "":
        raise TypeError(f"a user has an `id` (str, int or UUID), and this {type(user).__name__} has none")
    return str(user_id)


def _require_zones(*times: datetime) -> None:
    if any(at.utcoffset() is None for at in times):
        raise ValueError("times have a zone: datetime.now(UTC), not datetime.now()")
