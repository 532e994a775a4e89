"""The table of invalidations, and every statement on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from routeguard.foundation.db.schema import metadata
from routeguard.foundation.db.time import database_time

if TYPE_CHECKING:
    from collections.abc import Iterable

    from routeguard.foundation.db.database import Database, Transaction

# Named after sessions, which were the first to be invalidated.
invalidations: Final = sa.Table(
    "routeguard_session_invalidations",
    metadata,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
    sa.Column("subject", sa.String(40), nullable=False),
    sa.Column("at", sa.Float, nullable=False),
    sa.Index("routeguard_session_invalidations_by_time", "at"),
    sqlite_autoincrement=True,
)


async def insert_invalidations(tx: Transaction, subjects: Iterable[str]) -> None:
    """Record that nothing remembered about `subjects` counts any more."""
    await tx.execute(
        sa.insert(invalidations).values([{"subject": subject, "at": database_time()} for subject in subjects])
    )


async def read_invalidations(
    database: Database, *, window: float, after_id: int, beyond: int = 0, limit: int | None = None
) -> list[tuple[int, str, float]]:
    """Return what the last `window` seconds brought, and everything numbered after `after_id`, by number.

    Of these no more than `limit`, and only those numbered above `beyond`: the next page of them.
    """
    recent = sa.or_(invalidations.c.at > database_time() - window, invalidations.c.id > after_id)
    async with database.read() as tx:
        rows = await tx.all(
            sa.select(invalidations)
            .where(recent, invalidations.c.id > beyond)
            .order_by(invalidations.c.id)
            .limit(limit)
        )
    return [(row.id, row.subject, row.at) for row in rows]


async def delete_invalidations(tx: Transaction, *, older_than: float) -> None:
    """Drop what was invalidated more than `older_than` seconds ago: no process remembers anything that old."""
    await tx.execute(sa.delete(invalidations).where(invalidations.c.at < database_time() - older_than))
