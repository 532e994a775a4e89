"""Where API keys are kept, and every statement on them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

import sqlalchemy as sa

from routeguard.foundation.db.schema import metadata
from routeguard.identity.api_keys.models import ApiKey, Privilege
from routeguard.identity.users.store import users

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from routeguard.foundation.db.database import Transaction

api_keys: Final = sa.Table(
    "routeguard_api_keys",
    metadata,
    sa.Column("owner_id", sa.String(40), primary_key=True),
    sa.Column("id", sa.String(40), primary_key=True),
    # Who made it, or whose it is: a key dies with its maker (attack KEY-18).
    sa.Column("user_id", sa.String(40), sa.ForeignKey("routeguard_users.id", ondelete="CASCADE"), nullable=False),
    sa.Column("name", sa.String(100), nullable=False),
    # Of over 256 random bits, so that a dump of this table opens nothing.
    sa.Column("secret_hash", sa.LargeBinary(32), nullable=False),
    sa.Column("previous_hash", sa.LargeBinary(32)),
    sa.Column("previous_until", sa.Float),
    sa.Column("last_four", sa.String(4), nullable=False),
    sa.Column("privilege", sa.String(10), nullable=False),
    sa.Column("scopes", sa.Text, nullable=False),
    sa.Column("networks", sa.Text, nullable=False),
    sa.Column("rate", sa.String(60)),
    sa.Column("remaining", sa.Integer),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("expires_at", sa.Float),
    sa.Column("revoked_at", sa.Float),
    sa.Column("last_used_at", sa.Float),
    sa.Column("usage_count", sa.BigInteger, nullable=False, server_default="0"),
    sa.Index("routeguard_api_keys_by_id", "id", unique=True),
    sa.Index("routeguard_api_keys_by_user", "user_id"),
)

_MANY: Final = 1_000_000
"""SQLite takes no OFFSET without a LIMIT."""


class StoredKey(NamedTuple):
    """A row, in the order of `_COLUMNS`. Times are seconds since the epoch."""

    id: str
    owner_id: str
    user_id: str
    name: str
    secret_hash: bytes
    previous_hash: bytes | None
    previous_until: float | None
    last_four: str
    privilege: str
    scopes: str
    networks: str
    rate: str | None
    remaining: int | None
    created_at: float
    expires_at: float | None
    revoked_at: float | None
    last_used_at: float | None
    usage_count: int
    suspended_at: float | None
    """When the user behind it was suspended."""

    def __repr__(self) -> str:
        return f"StoredKey({self.id})"

    def live(self, now: float) -> bool:
        """Return whether it may be used at all: not revoked, expired or used up, and its user may act."""
        ended = self.revoked_at is not None or self.suspended_at is not None or self.remaining == 0
        return not ended and (self.expires_at is None or now < self.expires_at)

    def key(self) -> ApiKey:
        """Return what may be known of it: all but the hashes."""
        return ApiKey(
            id=self.id,
            name=self.name,
            owner_id=self.owner_id,
            user_id=self.user_id,
            created_at=datetime.fromtimestamp(self.created_at, UTC),
            expires_at=_moment(self.expires_at),
            last_used_at=_moment(self.last_used_at),
            usage_count=self.usage_count,
            privilege=cast("Privilege", self.privilege),
            scopes=tuple(self.scopes.split()),
            networks=tuple(self.networks.split()),
            rate=self.rate,
            remaining=self.remaining,
            last_four=self.last_four,
            revoked_at=_moment(self.revoked_at),
        )


class Uses(NamedTuple):
    """How often a key was used, and when last."""

    owner_id: str
    number: int
    last: float


_COLUMNS: Final = (
    *(api_keys.c[name] for name in StoredKey._fields if name != "suspended_at"),
    users.c.suspended_at,
)


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def _select() -> sa.Select[Any]:
    return sa.select(*_COLUMNS).join(users, users.c.id == api_keys.c.user_id)


def lookup() -> sa.Select[Any]:
    """Return the hot query: a key by its id, with its user's standing, in one row."""
    return _select().where(api_keys.c.id == sa.bindparam("id", type_=sa.String))


def _is(owner_id: str, key_id: str) -> sa.ColumnElement[bool]:
    return sa.and_(api_keys.c.owner_id == owner_id, api_keys.c.id == key_id)


def _live(now: float) -> sa.ColumnElement[bool]:
    return sa.and_(
        api_keys.c.revoked_at.is_(None),
        sa.or_(api_keys.c.expires_at.is_(None), api_keys.c.expires_at > now),
        sa.or_(api_keys.c.remaining.is_(None), api_keys.c.remaining > 0),
    )


async def insert(tx: Transaction, **values: Any) -> None:
    """Store a new key."""
    await tx.execute(sa.insert(api_keys).values(usage_count=0, **values))


async def lock_user(tx: Transaction, user_id: str) -> None:
    """Make the creations of one user happen one after the other, so that counting them means something."""
    await tx.execute(sa.select(users.c.id).where(users.c.id == user_id).with_for_update(key_share=True))


async def count_live(tx: Transaction, owner_id: str, *, now: float) -> int:
    """Return how many keys of an owner may be used."""
    statement = sa.select(sa.func.count()).select_from(api_keys).where(api_keys.c.owner_id == owner_id, _live(now))
    return int(await tx.scalar(statement) or 0)


async def delete_ended(tx: Transaction, owner_id: str, *, now: float, keep: int) -> None:
    """Drop the ended keys of an owner but for the `keep` made last: an owner cannot fill the table by revoking."""
    ended = sa.and_(api_keys.c.owner_id == owner_id, sa.not_(_live(now)))
    newest = sa.select(api_keys.c.id).where(ended).order_by(api_keys.c.created_at.desc(), api_keys.c.id)
    await tx.execute(sa.delete(api_keys).where(ended, api_keys.c.id.in_(newest.limit(_MANY).offset(keep))))


async def find(tx: Transaction, owner_id: str, key_id: str) -> StoredKey | None:
    """Return a key of an owner, ended or not."""
    row = await tx.one(_select().where(_is(owner_id, key_id)))
    return None if row is None else StoredKey._make(row)


async def find_all(tx: Transaction, owner_id: str) -> list[StoredKey]:
    """Return the keys of an owner, ended ones too, the newest first."""
    statement = _select().where(api_keys.c.owner_id == owner_id)
    statement = statement.order_by(api_keys.c.created_at.desc(), api_keys.c.id)
    return [StoredKey._make(row) for row in await tx.all(statement)]


async def change(
    tx: Transaction, owner_id: str, key_id: str, *, now: float, instead_of: bytes | None = None, **values: Any
) -> bool:
    """Change a key that may be used, with `instead_of` only while that is its secret's hash. False for any other."""
    statement = sa.update(api_keys).where(_is(owner_id, key_id), _live(now)).values(**values)
    if instead_of is not None:
        statement = statement.where(api_keys.c.secret_hash == instead_of)
    return await tx.one(statement.returning(api_keys.c.id)) is not None


async def revoke(tx: Transaction, owner_id: str, key_id: str, *, now: float) -> bool:
    """Revoke a key, expired or not. False for one that is unknown or was revoked before."""
    statement = sa.update(api_keys).where(_is(owner_id, key_id), api_keys.c.revoked_at.is_(None))
    values = {"revoked_at": now, "previous_hash": None, "previous_until": None}
    return await tx.one(statement.values(**values).returning(api_keys.c.id)) is not None


async def consume(tx: Transaction, stored: StoredKey, *, now: float) -> int | None:
    """Spend one of a key's remaining uses; None when there is none left. Never below zero (attack KEY-13)."""
    statement = (
        sa.update(api_keys)
        .where(_is(stored.owner_id, stored.id), _live(now))
        .values(remaining=api_keys.c.remaining - 1)
        .returning(api_keys.c.remaining)
    )
    row = await tx.one(statement)
    return None if row is None else int(row[0])


async def add_uses(tx: Transaction, uses: Iterable[tuple[str, Uses]]) -> None:
    """Add what was counted in memory: one statement for all keys, in the order given."""
    last = sa.bindparam("last", type_=sa.Float)
    statement = (
        sa.update(api_keys)
        .where(api_keys.c.owner_id == sa.bindparam("owner"), api_keys.c.id == sa.bindparam("key"))
        .values(
            usage_count=api_keys.c.usage_count + sa.bindparam("count", type_=sa.BigInteger),
            last_used_at=sa.case((api_keys.c.last_used_at > last, api_keys.c.last_used_at), else_=last),
        )
    )
    rows: Sequence[dict[str, Any]] = [
        {"owner": use.owner_id, "key": key_id, "count": use.number, "last": use.last} for key_id, use in uses
    ]
    await tx.execute(statement, rows)
