"""The example's own table, in the same database. The owner stands in every WHERE, so nothing else is ever found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import sqlalchemy as sa
from sqlalchemy.schema import CreateTable

from routeguard.core.secret import new_token
from routeguard.example.models import Invoice
from routeguard.identity.users.store import users

if TYPE_CHECKING:
    from routeguard.foundation.db.database import Database, Transaction

_NEWEST: Final = 100

_metadata: Final = sa.MetaData()
# The user's id comes first in the key: all rows of a user lie together, wherever the database is split.
invoices: Final = sa.Table(
    "example_invoices",
    _metadata,
    sa.Column("user_id", sa.String(40), primary_key=True),
    sa.Column("id", sa.String(40), primary_key=True),
    sa.Column("title", sa.String(200), nullable=False),
    sa.Column("amount", sa.Float, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
)
_SHOWN: Final = (invoices.c.id, invoices.c.title, invoices.c.amount)


async def create_table(database: Database) -> None:
    """Make the table when it is not there."""
    async with database.transaction() as tx:
        await tx.execute(CreateTable(invoices, if_not_exists=True))


async def newest(tx: Transaction, user_id: str) -> list[Invoice]:
    """Return a user's newest invoices, at most 100."""
    found = await tx.all(
        sa.select(*_SHOWN)
        .where(invoices.c.user_id == user_id)
        .order_by(invoices.c.created_at.desc(), invoices.c.id)
        .limit(_NEWEST)
    )
    return [Invoice.model_validate(row._asdict()) for row in found]


async def find(tx: Transaction, user_id: str, invoice_id: str) -> Invoice | None:
    """Return an invoice of this user; None for everybody else's."""
    row = await tx.one(sa.select(*_SHOWN).where(invoices.c.user_id == user_id, invoices.c.id == invoice_id))
    return None if row is None else Invoice.model_validate(row._asdict())


async def insert(tx: Transaction, user_id: str, *, title: str, amount: float, now: float) -> Invoice:
    """Store an invoice of this user."""
    made = Invoice(id=f"inv_{new_token(16)}", title=title, amount=amount)
    await tx.execute(sa.insert(invoices).values(user_id=user_id, created_at=now, **made.model_dump()))
    return made


async def update(tx: Transaction, user_id: str, invoice_id: str, *, title: str, amount: float) -> Invoice | None:
    """Change an invoice of this user; None when the user has no such invoice."""
    row = await tx.one(
        sa.update(invoices)
        .where(invoices.c.user_id == user_id, invoices.c.id == invoice_id)
        .values(title=title, amount=amount)
        .returning(*_SHOWN)
    )
    return None if row is None else Invoice.model_validate(row._asdict())


async def delete(tx: Transaction, user_id: str, invoice_id: str) -> bool:
    """Delete an invoice of this user; False when the user has no such invoice."""
    row = await tx.one(
        sa.delete(invoices).where(invoices.c.user_id == user_id, invoices.c.id == invoice_id).returning(invoices.c.id)
    )
    return row is not None


async def totals(tx: Transaction) -> tuple[int, float]:
    """Return how many invoices there are, and their sum. For staff only: it looks at everybody's."""
    row = await tx.one(sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(invoices.c.amount), 0.0)))
    return (0, 0.0) if row is None else (int(row[0]), float(row[-1]))


async def count_users(tx: Transaction) -> int:
    """Return how many people have an account."""
    row = await tx.one(sa.select(sa.func.count()).select_from(users))
    return int(row[0]) if row is not None else 0
