"""The table of users, and every statement on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from routeguard.foundation.db.schema import metadata
from routeguard.identity.users.reader import COLUMNS, UserCodec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from routeguard.foundation.db.database import Transaction

U = TypeVar("U")

users: Final = sa.Table(
    "routeguard_users",
    metadata,
    sa.Column("id", sa.String(40), primary_key=True),
    sa.Column("email", sa.String(320), nullable=False),
    # One mailbox, one user, whatever the spelling: kept by the database, so that no race gets past it.
    sa.Column("email_key", sa.String(320), nullable=False, unique=True),
    sa.Column("name", sa.String(400), nullable=False),
    sa.Column("email_verified", sa.Boolean, nullable=False),
    sa.Column("image", sa.Text),
    sa.Column("role", sa.String(40), nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("suspended_at", sa.Float),
    sa.Column("fields", sa.Text, nullable=False, server_default="{}"),
    sa.Index("routeguard_users_by_role", "role"),
)

_USER: Final = tuple(users.c[name] for name in COLUMNS)
_SUSPENDED: Final = COLUMNS.index("suspended_at")


class UserReader(Generic[U]):
    """Reads users as the application's class."""

    columns: Final = _USER
    """What to select for `read`, in a query of another slice."""

    def __init__(self, user_class: type[U]) -> None:
        self.codec = UserCodec(user_class)
        self.user_class = user_class

    def read(self, row: Sequence[Any]) -> U | None:
        """Return the user of a row of `columns`; None for one who is suspended and may not act."""
        return None if row[_SUSPENDED] is not None else self.codec.decode(row)

    def id_of(self, user: U) -> str:
        """Return the id of a user."""
        found: Any = user
        return str(found.id)

    async def find(self, tx: Transaction, user_id: str) -> U | None:
        """Return a user who may act; None for one who is suspended or gone."""
        row = await tx.one(sa.select(*_USER).where(users.c.id == user_id))
        return None if row is None else self.read(row)

    async def find_any(self, tx: Transaction, user_id: str) -> U | None:
        """Return a user, suspended or not."""
        row = await tx.one(sa.select(*_USER).where(users.c.id == user_id))
        return None if row is None else self.codec.decode(row)

    async def find_by_key(self, tx: Transaction, email_key: str) -> U | None:
        """Return the user whose address has this key, suspended or not."""
        row = await tx.one(sa.select(*_USER).where(users.c.email_key == email_key))
        return None if row is None else self.codec.decode(row)

    async def page(self, tx: Transaction, *, after: str = "", limit: int = 100) -> list[U]:
        """Return users in the order of their ids, beginning after one of them."""
        statement = sa.select(*_USER).where(users.c.id > after).order_by(users.c.id).limit(limit)
        return [self.codec.decode(row) for row in await tx.all(statement)]


async def insert(tx: Transaction, dialect: str, **values: Any) -> bool:
    """Store a new user. False when the address is taken: told without an error, so that the transaction goes on."""
    statement: Any = postgresql.insert(users) if dialect == "postgresql" else sqlite.insert(users)
    statement = statement.values(**values).on_conflict_do_nothing(index_elements=["email_key"]).returning(users.c.id)
    return await tx.one(statement) is not None


async def update(tx: Transaction, user_id: str, **values: Any) -> bool:
    """Change columns of a user. False when there is none."""
    statement = sa.update(users).where(users.c.id == user_id).values(**values).returning(users.c.id)
    return await tx.one(statement) is not None


async def verify_email(tx: Transaction, user_id: str, email_key: str) -> bool:
    """Note that an address is proven, if it still is the user's."""
    statement = sa.update(users).where(users.c.id == user_id, users.c.email_key == email_key)
    return await tx.one(statement.values(email_verified=True).returning(users.c.id)) is not None


async def lock(tx: Transaction, user_id: str) -> str | None:
    """Lock a user until `tx` ends, and return the JSON of the application's fields; None when there is no such user."""
    statement = sa.select(users.c.fields).where(users.c.id == user_id).with_for_update(key_share=True)
    row = await tx.one(statement)
    return None if row is None else str(row[0])


async def update_keeping_admin(tx: Transaction, user_id: str, *, admin_role: str, **values: Any) -> bool:
    """Change a user, but not the last active admin. One statement: two who demote each other cannot both win."""
    statement = sa.update(users).where(users.c.id == user_id, _another_admin(user_id, admin_role))
    return await tx.one(statement.values(**values).returning(users.c.id)) is not None


async def delete_keeping_admin(tx: Transaction, user_id: str, *, admin_role: str) -> bool:
    """Delete a user, but not the last active admin, in one statement."""
    statement = sa.delete(users).where(users.c.id == user_id, _another_admin(user_id, admin_role))
    return await tx.one(statement.returning(users.c.id)) is not None


def _another_admin(user_id: str, admin_role: str) -> sa.ColumnElement[bool]:
    """Return the condition that `user_id` is no active admin, or not the only one.

    The rows are locked in the order of their ids, so that PostgreSQL looks again after waiting for another change of
    them; SQLite has one writer at a time anyway.
    """
    admins = (
        sa.select(users.c.id)
        .where(users.c.role == admin_role, users.c.suspended_at.is_(None))
        .order_by(users.c.id)
        .with_for_update(key_share=True)
        .cte("admins")
    )
    is_admin = sa.exists(sa.select(admins.c.id).where(admins.c.id == user_id))
    others = sa.exists(sa.select(admins.c.id).where(admins.c.id != user_id))
    return sa.or_(sa.not_(is_admin), others)
