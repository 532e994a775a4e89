"""Users come, change and go. The only place that changes them."""

from __future__ import annotations

from logging import WARNING
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from routeguard.core.changes import Changes
from routeguard.core.problem import NOT_FOUND
from routeguard.core.secret import new_token
from routeguard.core.security_log import note
from routeguard.identity.users import store
from routeguard.identity.users.addresses import Email, parse_email, read_name
from routeguard.identity.users.models import (
    IMAGE_LENGTH,
    EmailChanged,
    EmailVerified,
    PasswordChange,
    UserAdded,
    UserChange,
    UserCreated,
    UserDeleted,
    UserId,
    UserRestored,
    UserRoleChanged,
    UserSettings,
    UserSuspended,
    UserUpdated,
)
from routeguard.identity.users.problems import LAST_ADMIN, invalid

if TYPE_CHECKING:
    from collections.abc import Mapping

    from routeguard.core.clock import Clock
    from routeguard.core.events import Event
    from routeguard.foundation.db.database import Database, Transaction
    from routeguard.identity.users.store import UserReader

U = TypeVar("U")

_OWN: Final = frozenset({"name", "image"})


class Users(Generic[U]):
    """The users of the site. Every method that takes a transaction takes effect when that commits."""

    def __init__(
        self,
        database: Database,
        reader: UserReader[U],
        *,
        clock: Clock,
        settings: UserSettings | None = None,
        changes: Changes | None = None,
    ) -> None:
        self._database = database
        self._clock = clock
        self.reader = reader
        self.settings = settings if settings is not None else UserSettings()
        # In the transaction of the change, so that the two are one (attack SES-26).
        self._changes = changes if changes is not None else Changes()

    async def create(
        self,
        tx: Transaction,
        email: Email,
        *,
        name: str = "",
        role: str | None = None,
        email_verified: bool = False,
        fields: Mapping[str, Any] | None = None,
    ) -> U | None:
        """Store and return a new user; None when the address is taken.

        `role` is the first of the settings unless given; a request never gives it. Raises ProblemError 422 for a bad
        name, TypeError for a field the user class lacks.
        """
        user_id = UserId(f"usr_{new_token(16)}")
        made = await store.insert(
            tx,
            self._database.dialect,
            id=user_id,
            email=email.text,
            email_key=email.key,
            name=read_name(name),
            email_verified=email_verified,
            role=self._role(role or self.settings.roles[0]),
            created_at=self._clock.time(),
            fields=self.reader.codec.encode_fields(fields or {}),
        )
        if not made:
            return None
        tx.record(UserCreated(user_id=user_id))
        user = await self._required(tx, user_id)
        await self._changes.run(tx, UserAdded(user))
        return user

    async def get(self, tx: Transaction, user_id: str) -> U | None:
        """Return a user, suspended or not."""
        return await self.reader.find_any(tx, user_id)

    async def find_by_email(self, tx: Transaction, email: Email | str) -> U | None:
        """Return the user who has this address, suspended or not. None too for what is no address.

        Mail goes to the `email` of the user found, never to the text that was asked for (attack ML-11).
        """
        address = parse_email(email) if isinstance(email, str) else email
        return None if address is None else await self.reader.find_by_key(tx, address.key)

    async def list(self, tx: Transaction, *, after: str = "", limit: int = 100) -> list[U]:
        """Return users in the order of their ids, beginning after the id `after`."""
        return await self.reader.page(tx, after=after, limit=limit)

    async def update(self, tx: Transaction, user_id: str, **values: Any) -> U:
        """Change `name`, `image` or fields of the application's own. Returns the user.

        Raises ProblemError 404 without such a user and 422 for a bad value, TypeError for any other field: role,
        address and suspension have methods of their own.
        """
        old = await store.lock(tx, user_id)
        if old is None:
            raise NOT_FOUND().error()
        columns: dict[str, Any] = {}
        if "name" in values:
            columns["name"] = read_name(values["name"])
        if "image" in values:
            columns["image"] = _image(values["image"])
        own = {name: value for name, value in values.items() if name not in _OWN}
        if own:
            columns["fields"] = self.reader.codec.encode_fields(own, old)
        if columns:
            await store.update(tx, user_id, **columns)
            await self._changed(tx, user_id, *values, event=UserUpdated(user_id=user_id, fields=tuple(values)))
        return await self._required(tx, user_id)

    async def set_role(self, tx: Transaction, user_id: str, role: str) -> None:
        """Give a user another site-wide role. Raises ProblemError 404, 409 last-admin, 422 for an unknown role."""
        role = self._role(role)
        if role == self.settings.admin_role:
            done = await store.update(tx, user_id, role=role)
        else:
            done = await store.update_keeping_admin(tx, user_id, admin_role=self.settings.admin_role, role=role)
        if not done:
            raise await self._refusal(tx, user_id)
        await self._changed(tx, user_id, "role", event=UserRoleChanged(user_id=user_id, role=role))
        tx.after_commit(lambda: note("role-changed", user=user_id, role=role))

    async def suspend(self, tx: Transaction, user_id: str) -> None:
        """Suspend a user, and end what stands for one. Raises ProblemError 404, 409 last-admin."""
        done = await store.update_keeping_admin(
            tx, user_id, admin_role=self.settings.admin_role, suspended_at=self._clock.time()
        )
        if not done:
            raise await self._refusal(tx, user_id)
        await self._changed(tx, user_id, "suspended_at", event=UserSuspended(user_id=user_id), ended=True)
        tx.after_commit(lambda: note("user-suspended", level=WARNING, user=user_id))

    async def restore(self, tx: Transaction, user_id: str) -> None:
        """Let a suspended user in again. Raises ProblemError 404."""
        if not await store.update(tx, user_id, suspended_at=None):
            raise NOT_FOUND().error()
        await self._changed(tx, user_id, "suspended_at", event=UserRestored(user_id=user_id))
        tx.after_commit(lambda: note("user-restored", user=user_id))

    async def verify_email(self, tx: Transaction, user_id: str, email: Email) -> bool:
        """Note that a user proved `email`. False when the user has another address now."""
        if not await store.verify_email(tx, user_id, email.key):
            return False
        await self._changed(tx, user_id, "email_verified", event=EmailVerified(user_id=user_id))
        tx.after_commit(lambda: note("email-verified", user=user_id))
        return True

    async def set_email(self, tx: Transaction, user_id: str, email: Email) -> None:
        """Give a user another, proven address. Raises db.errors.UniqueViolation when it is taken."""
        if not await store.update(tx, user_id, email=email.text, email_key=email.key, email_verified=True):
            raise NOT_FOUND().error()
        await self._changed(tx, user_id, "email", "email_verified", event=EmailChanged(user_id=user_id))
        tx.after_commit(lambda: note("email-changed", user=user_id))

    async def password_changes(self, tx: Transaction, user_id: str) -> None:
        """Tell the hooks of `PasswordChange`. For code that sets or removes a password, before the password is written.

        Redeeming a link locks its token first and the password then: in the other order, two transactions would wait
        for each other.
        """
        await self._changes.run(tx, PasswordChange(UserId(user_id)))

    async def delete(self, tx: Transaction, user_id: str) -> None:
        """Delete a user and, by the database, what belongs to the user. Raises ProblemError 404, 409 last-admin."""
        # Before the row is gone, so that listeners can still end what hangs on it.
        await self._changed(tx, user_id, "id", event=UserDeleted(user_id=user_id), ended=True)
        if not await store.delete_keeping_admin(tx, user_id, admin_role=self.settings.admin_role):
            raise await self._refusal(tx, user_id)
        tx.after_commit(lambda: note("user-deleted", level=WARNING, user=user_id))

    def _role(self, role: str) -> str:
        if role not in self.settings.roles:
            raise invalid("role", f"This role does not exist: choose {', '.join(self.settings.roles)}.").error()
        return role

    async def _required(self, tx: Transaction, user_id: str) -> U:
        user = await self.reader.find_any(tx, user_id)
        if user is None:
            raise NOT_FOUND().error()
        return user

    async def _refusal(self, tx: Transaction, user_id: str) -> Exception:
        known = await self.reader.find_any(tx, user_id)
        return (NOT_FOUND if known is None else LAST_ADMIN)().error()

    async def _changed(self, tx: Transaction, user_id: str, *fields: str, event: Event, ended: bool = False) -> None:
        tx.record(event)
        change = UserChange(UserId(user_id), frozenset(fields), ended)
        await self._changes.run(tx, change)


def _image(value: Any) -> str | None:
    if value is None:
        return None
    # Shown as a picture in pages: no script, no local file (ASVS v5.0.0-1.2.2).
    if not isinstance(value, str) or not value.startswith("https://") or len(value) > IMAGE_LENGTH:
        raise invalid("image", f"An https address of at most {IMAGE_LENGTH} characters.").error()
    if not value.isascii() or not value.isprintable() or " " in value:
        raise invalid("image", "This is not an address.").error()
    return value
