"""Accounts made by hand: with a confirmed address, and a password that is shown once and kept as a hash."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from routeguard.core.clock import Clock
from routeguard.core.security_log import note
from routeguard.foundation.db.database import Database
from routeguard.identity.passwords import store
from routeguard.identity.passwords.hashing import HashingPool
from routeguard.identity.passwords.models import PasswordChanged
from routeguard.identity.passwords.policy import PasswordPolicy, normalize
from routeguard.identity.sessions.service import Sessions
from routeguard.identity.users.addresses import read_email
from routeguard.identity.users.service import Users
from routeguard.settings import Settings

if TYPE_CHECKING:
    from routeguard.core.services import Services

_LETTERS: Final = "abcdefghijkmnpqrstuvwxyz23456789"
"""Without look-alikes: people copy these from a screen."""


@dataclass(frozen=True, slots=True)
class Made:
    """A new account; `password` is nowhere else in the clear."""

    id: str
    email: str
    role: str
    password: str = field(repr=False)


def new_password() -> str:
    """Return four groups of five letters: 100 random bits."""
    return "-".join("".join(secrets.choice(_LETTERS) for _ in range(5)) for _ in range(4))


async def make_account(
    services: Services, email: str, *, name: str = "", role: str | None = None, password: str | None = None
) -> Made | None:
    """Create a user with a confirmed address; None when it is taken. A password is made unless given.

    Raises ProblemError for an invalid address, name, role or password.
    """
    database, settings = services.get(Database), services.get(Settings)
    address = read_email(email)
    chosen = normalize(new_password() if password is None else password, settings.passwords)
    services.get(PasswordPolicy).check(chosen, context=(email, name))
    encoded = await services.get(HashingPool).hash(chosen)
    now = services.get(Clock).time()
    async with database.transaction() as tx:
        user: Any = await services.get(Users).create(tx, address, name=name, role=role, email_verified=True)
        if user is None:
            return None
        await store.put(tx, database.dialect, user.id, encoded, now=now)
    return Made(user.id, user.email, user.role, chosen)


async def set_password(services: Services, user: Any, password: str) -> int:
    """Give a user another password, by the same policy as for everybody; return how many sessions ended by it.

    Raises ProblemError for an invalid password.
    """
    database, settings = services.get(Database), services.get(Settings)
    chosen = normalize(password, settings.passwords)
    services.get(PasswordPolicy).check(chosen, context=(user.email, user.name))
    encoded = await services.get(HashingPool).hash(chosen)
    now = services.get(Clock).time()
    async with database.transaction() as tx:
        await services.get(Users).password_changes(tx, user.id)
        await store.put(tx, database.dialect, user.id, encoded, now=now)
        ended: int = await services.get(Sessions).revoke_all(tx, user.id, reason="password-reset")
        tx.record(PasswordChanged(user_id=user.id, reason="reset"))
        tx.after_commit(lambda: note("password-changed", user=user.id, reason="reset"))
    return ended
