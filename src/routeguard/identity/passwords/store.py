"""The table of password hashes, and every statement on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from routeguard.foundation.db.schema import metadata
from routeguard.identity.users.store import users

if TYPE_CHECKING:
    from routeguard.foundation.db.database import Transaction

password_hashes: Final = sa.Table(
    "routeguard_password_hashes",
    metadata,
    sa.Column("user_id", sa.String(40), sa.ForeignKey("routeguard_users.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("hash", sa.Text, nullable=False),
    sa.Column("changed_at", sa.Float, nullable=False),
)


class Found(NamedTuple):
    """What checking a password needs to know."""

    user_id: str
    email: str
    hash: str | None
    """None for a user without a password."""


async def find(tx: Transaction, *, email_key: str | None = None, user_id: str | None = None) -> Found | None:
    """Return a user and the user's hash, found by one of the two keys in one query."""
    whose = users.c.email_key == email_key if user_id is None else users.c.id == user_id
    joined = users.outerjoin(password_hashes, password_hashes.c.user_id == users.c.id)
    row: Any = await tx.one(
        sa.select(users.c.id, users.c.email, password_hashes.c.hash).select_from(joined).where(whose)
    )
    return None if row is None else Found(*row)


async def put(tx: Transaction, dialect: str, user_id: str, encoded: str, *, now: float) -> None:
    """Set the hash of a user, whatever it was."""
    values = {"hash": encoded, "changed_at": now}
    statement: Any = (postgresql if dialect == "postgresql" else sqlite).insert(password_hashes)
    statement = statement.values(user_id=user_id, **values)
    await tx.execute(statement.on_conflict_do_update(index_elements=["user_id"], set_=values))


async def find_foreign(tx: Transaction, *, limit: int) -> list[str]:
    """Return some hashes that are not our own argon2id: one of each beginning, which names scheme and cost."""
    encoded = password_hashes.c.hash
    # bcrypt's salt follows its cost at once.
    bcrypt = sa.func.substr(encoded, 1, 2) == "$2"
    beginning = sa.case((bcrypt, sa.func.substr(encoded, 1, 7)), else_=sa.func.substr(encoded, 1, 20)).label("kind")
    foreign = sa.func.substr(encoded, 1, 10) != "$argon2id$"
    kinds = sa.select(encoded, beginning).where(foreign).subquery()
    statement = sa.select(sa.func.min(kinds.c.hash)).group_by(kinds.c.kind).limit(limit)
    return [str(row[0]) for row in await tx.all(statement)]


async def remove(tx: Transaction, user_id: str) -> None:
    """Leave a user without a password."""
    await tx.execute(sa.delete(password_hashes).where(password_hashes.c.user_id == user_id))


async def replace(tx: Transaction, user_id: str, *, old: str, new: str, now: float | None = None) -> bool:
    """Set the hash if it still is `old`. `now` marks a new password; without it only its hash is renewed."""
    statement = sa.update(password_hashes).where(password_hashes.c.user_id == user_id, password_hashes.c.hash == old)
    values: dict[str, Any] = {"hash": new} if now is None else {"hash": new, "changed_at": now}
    return await tx.one(statement.values(**values).returning(password_hashes.c.user_id)) is not None


async def holds(tx: Transaction, user_id: str, *, encoded: str) -> bool:
    """Return whether the hash still is `encoded`, and keep it so until `tx` ends."""
    statement = sa.select(password_hashes.c.user_id).where(
        password_hashes.c.user_id == user_id, password_hashes.c.hash == encoded
    )
    return await tx.one(statement.with_for_update(key_share=True)) is not None
