"""The table of sessions, and every statement on it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec
import sqlalchemy as sa

from routeguard.foundation.db.schema import metadata
from routeguard.identity.sessions.models import SessionId, SessionRecord, SessionState
from routeguard.identity.users.store import users

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from routeguard.foundation.db.database import Transaction

sessions: Final = sa.Table(
    "routeguard_sessions",
    metadata,
    sa.Column("user_id", sa.String(40), sa.ForeignKey("routeguard_users.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("id", sa.String(40), primary_key=True),
    # Of 256 random bits, so that a dump of this table opens nothing (attack SES-22).
    sa.Column("secret_hash", sa.LargeBinary(32), nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("authenticated_at", sa.Float, nullable=False),
    sa.Column("last_seen_at", sa.Float, nullable=False),
    sa.Column("idle_expires_at", sa.Float, nullable=False),
    sa.Column("expires_at", sa.Float, nullable=False),
    sa.Column("amr", sa.String(200), nullable=False),
    sa.Column("aal", sa.Integer, nullable=False),
    sa.Column("lasting", sa.Boolean, nullable=False, server_default=sa.true()),
    sa.Column("user_agent", sa.String(200)),
    sa.Column("address", sa.String(45)),
    sa.Index("routeguard_sessions_by_expiry", "idle_expires_at"),
)

_MANY: Final = 1_000_000
"""SQLite takes no OFFSET without a LIMIT."""
_LATER: Final = 0.001
"""Seconds by which a proof is later than the one before it, where the clock does not tell them apart."""

_STATE: Final = tuple(sessions.c[name] for name in SessionState.__struct_fields__)
WIDTH: Final = len(_STATE)
"""How many columns of a looked-up row are the session's; those of its user follow."""


def read_state(row: Sequence[Any]) -> SessionState:
    """Return the session in the first `WIDTH` values of a row of `lookup`."""
    # SQLite has no booleans, and its driver is asked directly.
    values: Any = (*row[: WIDTH - 1], bool(row[WIDTH - 1]))
    return SessionState(*values)


def lookup(user_columns: Iterable[sa.ColumnElement[Any]]) -> sa.Select[Any]:
    """Return the hot query: a session by its cookie, with its user, in one row."""
    return (
        sa.select(*_STATE, *user_columns)
        .join(users, users.c.id == sessions.c.user_id)
        .where(
            sessions.c.user_id == sa.bindparam("user_id", type_=sa.String),
            sessions.c.id == sa.bindparam("id", type_=sa.String),
            sessions.c.secret_hash == sa.bindparam("secret_hash", type_=sa.LargeBinary),
        )
    )


def lookup_by_id(user_columns: Iterable[sa.ColumnElement[Any]]) -> sa.Select[Any]:
    """Return the query for a session whose owner was proven otherwise, with its user, in one row."""
    return (
        sa.select(*_STATE, *user_columns)
        .join(users, users.c.id == sessions.c.user_id)
        .where(
            sessions.c.user_id == sa.bindparam("user_id", type_=sa.String),
            sessions.c.id == sa.bindparam("id", type_=sa.String),
        )
    )


async def insert(tx: Transaction, state: SessionState, **more: Any) -> None:
    """Store a new session. `more` is its secret's hash, user agent and address."""
    await tx.execute(sa.insert(sessions).values(**msgspec.structs.asdict(state), **more))


async def lock_user(tx: Transaction, user_id: str) -> None:
    """Make sign-ins, and endings of all sessions, of one user happen one after the other (attack SES-09)."""
    await tx.execute(sa.select(users.c.id).where(users.c.id == user_id).with_for_update(key_share=True))


async def touch(tx: Transaction, state: SessionState, *, before: float) -> bool:
    """Note that a session was used. False when it was ended, or when its use was noted since `before`."""
    statement = (
        sa.update(sessions)
        .where(_is(state.user_id, state.id), sessions.c.last_seen_at == before)
        .values(last_seen_at=state.last_seen_at, idle_expires_at=state.idle_expires_at)
        .returning(sessions.c.id)
    )
    return await tx.one(statement) is not None


async def replace_secret(
    tx: Transaction, user_id: str, session_id: str, *, old_hash: bytes | None, now: float, **values: Any
) -> SessionState | None:
    """Give a live session a new secret in place of the one presented. None when that one no longer counts.

    Without `old_hash` the session was not presented by its secret, and keeps it. `authenticated_at`, when given, is
    always later than before, whatever the clock says: it tells what was proven before from what was proven after.
    """
    if "authenticated_at" in values:
        given, before = values["authenticated_at"], sessions.c.authenticated_at
        values["authenticated_at"] = sa.case((before >= given, before + _LATER), else_=given)
    statement = sa.update(sessions).where(_is(user_id, session_id), _live(now)).values(**values).returning(*_STATE)
    if old_hash is not None:
        statement = statement.where(sessions.c.secret_hash == old_hash)
    row = await tx.one(statement)
    return None if row is None else read_state(row)


async def delete(tx: Transaction, user_id: str, session_id: str, *, secret_hash: bytes | None = None) -> bool:
    """End one session of one user; with `secret_hash`, only if it is the session's own."""
    statement = sa.delete(sessions).where(_is(user_id, session_id)).returning(sessions.c.id)
    if secret_hash is not None:
        statement = statement.where(sessions.c.secret_hash == secret_hash)
    return await tx.one(statement) is not None


async def delete_all(tx: Transaction, user_id: str, *, keep: str | None = None) -> list[str]:
    """End all sessions of a user except `keep`. Returns their ids."""
    statement = sa.delete(sessions).where(sessions.c.user_id == user_id).returning(sessions.c.id)
    if keep is not None:
        statement = statement.where(sessions.c.id != keep)
    return [row.id for row in await tx.all(statement)]


async def delete_over(tx: Transaction, user_id: str, *, maximum: int) -> list[str]:
    """End the longest unused sessions of a user over `maximum`. Returns their ids."""
    over = (
        sa.select(sessions.c.id)
        .where(sessions.c.user_id == user_id)
        .order_by(sessions.c.last_seen_at.desc(), sessions.c.created_at.desc())
        .limit(_MANY)
        .offset(maximum)
    )
    statement = sa.delete(sessions).where(sessions.c.user_id == user_id, sessions.c.id.in_(over))
    return [row.id for row in await tx.all(statement.returning(sessions.c.id))]


async def delete_expired(tx: Transaction, state: SessionState, *, now: float) -> bool:
    """End a session if it has expired by `now`."""
    statement = sa.delete(sessions).where(_is(state.user_id, state.id), sa.not_(_live(now)))
    return await tx.one(statement.returning(sessions.c.id)) is not None


async def find(tx: Transaction, user_id: str, session_id: str) -> SessionState | None:
    """Return a session, expired or not."""
    row = await tx.one(sa.select(*_STATE).where(_is(user_id, session_id)))
    return None if row is None else read_state(row)


async def find_live(tx: Transaction, user_id: str, *, now: float) -> list[SessionRecord]:
    """Return a user's live sessions, the last used first."""
    statement = (
        sa.select(sessions)
        .where(sessions.c.user_id == user_id, _live(now))
        .order_by(sessions.c.last_seen_at.desc(), sessions.c.id)
    )
    return [
        SessionRecord(
            id=SessionId(row.id),
            created_at=datetime.fromtimestamp(row.created_at, UTC),
            last_seen_at=datetime.fromtimestamp(row.last_seen_at, UTC),
            expires_at=datetime.fromtimestamp(row.expires_at, UTC),
            user_agent=row.user_agent,
            address=row.address,
        )
        for row in await tx.all(statement)
    ]


def _is(user_id: str, session_id: str) -> sa.ColumnElement[bool]:
    return sa.and_(sessions.c.user_id == user_id, sessions.c.id == session_id)


def _live(now: float) -> sa.ColumnElement[bool]:
    return sa.and_(sessions.c.idle_expires_at > now, sessions.c.expires_at > now)


async def delete_long_expired(tx: Transaction, *, before: float) -> None:
    """Delete the sessions that have been expired since `before`."""
    await tx.execute(sa.delete(sessions).where(sessions.c.idle_expires_at < before))
