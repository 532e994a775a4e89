"""The table of devices."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

from routeguard.records import Transaction, metadata

table: Final = sa.Table(
    "routeguard_devices",
    metadata,
    sa.Column("id", sa.String(40), primary_key=True),
    sa.Column("user_id", sa.String(40), nullable=False),
)


async def insert(tx: Transaction, device_id: str, user_id: str) -> None:
    await tx.execute(sa.insert(table).values(id=device_id, user_id=user_id))


async def owner_of(tx: Transaction, device_id: str) -> str | None:
    rows = await tx.all(sa.select(table.c.user_id).where(table.c.id == device_id))
    return rows[0].user_id if rows else None


async def count(tx: Transaction) -> int:
    rows = await tx.all(sa.select(sa.func.count()).select_from(table))
    return int(rows[0][0])
