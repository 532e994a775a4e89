"""Where registered clients are kept, and every statement on them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import sqlalchemy as sa

from routeguard.foundation.db.schema import metadata
from routeguard.foundation.db.time import database_time
from routeguard.identity.oauth_server.models import Client

if TYPE_CHECKING:
    from routeguard.foundation.db.database import Database, Transaction

clients: Final = sa.Table(
    "routeguard_clients",
    metadata,
    # `cli_...`: never to be taken for a user's id (RFC 9700 section 4.15).
    sa.Column("id", sa.String(40), primary_key=True),
    sa.Column("name", sa.String(100), nullable=False),
    # Ed25519, derived from the secret that was shown once: a dump of this table signs nothing.
    sa.Column("public_key", sa.LargeBinary(32), nullable=False),
    sa.Column("previous_public_key", sa.LargeBinary(32)),
    sa.Column("previous_until", sa.Float),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("revoked_at", sa.Float),
)


class ClientKeys(NamedTuple):
    """What verifies a client's signatures. `previous_for` is in seconds from now; zero or less is over."""

    id: str
    name: str
    public_key: bytes
    previous_public_key: bytes | None
    previous_for: float


async def insert(tx: Transaction, client_id: str, name: str, public_key: bytes) -> None:
    """Store a new client."""
    values = {"id": client_id, "name": name, "public_key": public_key, "created_at": database_time()}
    await tx.execute(sa.insert(clients).values(**values))


async def replace_key(tx: Transaction, client_id: str, public_key: bytes, *, overlap: float) -> bool:
    """Give a client another key; the one before counts for `overlap` seconds. False for one unknown or revoked.

    One statement: of two rotations at once the later keeps the earlier's key as the previous one, and none is lost.
    """
    kept: dict[str, Any] = {"previous_public_key": None, "previous_until": None}
    if overlap > 0:
        kept = {"previous_public_key": clients.c.public_key, "previous_until": database_time() + overlap}
    statement = sa.update(clients).where(_is(client_id)).values(public_key=public_key, **kept).returning(clients.c.id)
    return await tx.one(statement) is not None


async def revoke(tx: Transaction, client_id: str) -> bool:
    """End a client for good. False for one unknown or revoked already."""
    statement = sa.update(clients).where(_is(client_id)).values(revoked_at=database_time()).returning(clients.c.id)
    return await tx.one(statement) is not None


async def find_all(tx: Transaction) -> list[Client]:
    """Return the clients that are not revoked, the oldest first."""
    statement = (
        sa.select(clients, (clients.c.previous_until > database_time()).label("overlaps"))
        .where(clients.c.revoked_at.is_(None))
        .order_by(clients.c.created_at, clients.c.id)
    )
    return [
        Client(row.id, row.name, _time(row.created_at), _time(row.previous_until) if row.overlaps else None)
        for row in await tx.all(statement)
    ]


async def load_keys(database: Database, *, limit: int) -> list[ClientKeys]:
    """Return what verifies the signatures of all clients that are not revoked, at most `limit` of them."""
    left = clients.c.previous_until - database_time()
    live = sa.select(clients, left.label("previous_for")).where(clients.c.revoked_at.is_(None))
    async with database.read() as tx:
        rows = await tx.all(live.order_by(clients.c.created_at).limit(limit))
    return [
        ClientKeys(row.id, row.name, row.public_key, row.previous_public_key, row.previous_for or 0.0) for row in rows
    ]


async def count(tx: Transaction) -> int:
    """Return how many clients are not revoked."""
    found = await tx.scalar(sa.select(sa.func.count()).select_from(clients).where(clients.c.revoked_at.is_(None)))
    return int(found)


def _is(client_id: str) -> sa.ColumnElement[bool]:
    return sa.and_(clients.c.id == client_id, clients.c.revoked_at.is_(None))


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
