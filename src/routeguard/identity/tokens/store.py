"""Where signing keys and refresh families are kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, get_type_hints

import sqlalchemy as sa

from routeguard.foundation.db.schema import metadata
from routeguard.foundation.db.time import database_time
from routeguard.identity.sessions.models import SessionState
from routeguard.identity.sessions.store import read_state, sessions
from routeguard.identity.tokens.rows import FamilyRow, KeyRow, Reused, Rotation
from routeguard.identity.users.store import users

if TYPE_CHECKING:
    from collections.abc import Sequence

    from routeguard.foundation.db.database import Database, Transaction

signing_keys: Final = sa.Table(
    "routeguard_signing_keys",
    metadata,
    # Of several processes that make the next key at once, one can insert its number (attack class of SES-05).
    sa.Column("generation", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("kid", sa.String(64), nullable=False, unique=True),
    sa.Column("algorithm", sa.String(10), nullable=False),
    # Sealed with a key derived from the secret: a dump of this table signs nothing.
    sa.Column("sealed", sa.LargeBinary, nullable=False),
    sa.Column("public", sa.Text, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("signs_from", sa.Float, nullable=False),
    sa.Column("revoked_at", sa.Float),
)

refresh_families: Final = sa.Table(
    "routeguard_refresh_families",
    metadata,
    sa.Column("user_id", sa.String(40), primary_key=True),
    sa.Column("id", sa.String(40), primary_key=True),
    sa.Column("session_id", sa.String(40), nullable=False),
    sa.Column("client_id", sa.String(40), nullable=False),
    # One row a family, and in it one live token: two live leaves cannot be written down (attacks SES-04, SES-14).
    sa.Column("generation", sa.Integer, nullable=False),
    sa.Column("current_hash", sa.LargeBinary(32), nullable=False),
    sa.Column("binding", sa.LargeBinary(32), nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
    # By the database's clock, which all processes share: two clocks would tell two graces (attack OPS-10).
    sa.Column("rotated_at", sa.Float, nullable=False),
    sa.Column("expires_at", sa.Float, nullable=False),
    # Whatever ends the session ends its families, in the same transaction (attacks SES-08, SES-09).
    sa.ForeignKeyConstraint(
        ["user_id", "session_id"],
        ["routeguard_sessions.user_id", "routeguard_sessions.id"],
        ondelete="CASCADE",
        name="fk_routeguard_refresh_families_session",
    ),
    # And none by expiry: without it no index changes at a rotation, so PostgreSQL keeps the row in its page (HOT).
    sa.Index("routeguard_refresh_families_by_session", "user_id", "session_id"),
)


# -- signing keys ----------------------------------------------------------------------------------------------------


async def read_keys(database: Database) -> tuple[list[KeyRow], float]:
    """Return every signing key, oldest first, and the time by the database's clock. Raises Unavailable."""
    columns = [signing_keys.c[name] for name in KeyRow._fields]
    async with database.read() as tx:
        now = await tx.scalar(sa.select(database_time()))
        return [KeyRow._make(row) for row in await tx.all(sa.select(*columns).order_by(signing_keys.c.generation))], now


async def insert_key(tx: Transaction, *, ahead: float, **values: Any) -> None:
    """Store a key that signs in `ahead` seconds. Raises UniqueViolation when another has made its generation."""
    times = {"created_at": database_time(), "signs_from": database_time() + ahead}
    await tx.execute(sa.insert(signing_keys).values(**values, **times))


async def revoke_keys(tx: Transaction, *, before: int, label: str) -> None:
    """Revoke every key of a deployment whose generation is before that one."""
    older = _is_of(signing_keys, label) & (signing_keys.c.generation < before) & signing_keys.c.revoked_at.is_(None)
    await tx.execute(sa.update(signing_keys).where(older).values(revoked_at=database_time()))


async def delete_old_keys(tx: Transaction, *, keep: float, label: str) -> None:
    """Delete keys of a deployment whose successor has signed for `keep` seconds: their last tokens have expired."""
    later = signing_keys.alias("later")
    newer = _is_of(later, label) & (later.c.generation > signing_keys.c.generation)
    replaced = sa.exists().where(newer, later.c.signs_from < database_time() - keep)
    await tx.execute(sa.delete(signing_keys).where(_is_of(signing_keys, label), replaced))


def _is_of(keys: sa.FromClause, label: str) -> sa.ColumnElement[bool]:
    """Whether a key was made by the deployment of this label, or before key ids began with one."""
    return sa.or_(keys.c.kid.startswith(f"{label}.", autoescape=True), ~keys.c.kid.contains("."))


# -- refresh families ------------------------------------------------------------------------------------------------


class FamilyStatements:
    """The statements on the way of every refresh, prepared once."""

    def __init__(self, database: Database, user_columns: Sequence[sa.ColumnElement[Any]]) -> None:
        self._database = database
        self._columns = tuple(user_columns)
        # SQLite's hot path only reads, and it knows no WITH that writes: there it is a short transaction.
        self._rotate = database.prepare(_rotation(self._columns)) if database.dialect == "postgresql" else None
        self._find = database.prepare(_family(self._columns))

    async def rotate(self, rotation: Rotation) -> FamilyRow | None:
        """Put the successor in the place of the presented token, if that is the current one and its session lives.

        One statement decides and writes, so of all who present a token at once one wins (attacks SES-04, SES-05). A
        genuine token of a higher generation than the stored one counts as current: a fail-over lost the last writes
        (attack OPS-05). It counts as a use of the session. None when nothing was rotated. Raises Unavailable.
        """
        if self._rotate is not None:
            row = await self._rotate.one(**rotation.params())
        else:
            row = await self._rotate_in_line(rotation)
        return None if row is None else _read_family(row)

    async def _rotate_in_line(self, rotation: Rotation) -> Any:
        found = await self.find(rotation)
        # A spent token never becomes current again, so those who present one need not wait for the write lock.
        if found is None or not found.current:
            return None
        async with self._database.transaction() as tx:
            return await _rotate_in_steps(tx, self._columns, rotation)

    async def find(self, rotation: Rotation) -> FamilyRow | None:
        """Return a family whose session lives. Raises Unavailable."""
        row = await self._find.one(**rotation.params())
        return None if row is None else _read_family(row)


async def insert_family(tx: Transaction, *, session_id: str, token: Rotation, client_id: str) -> float | None:
    """Begin the family of a live session; return when it expires, or None when the session lives no longer.

    Raises ConstraintViolation when the session ends at this very moment.
    """
    now = database_time()
    values: dict[str, Any] = {
        "user_id": sessions.c.user_id,
        "id": sa.literal(token.family_id),
        "session_id": sessions.c.id,
        "client_id": sa.literal(client_id),
        "generation": sa.literal(token.generation),
        "current_hash": sa.literal(token.presented),
        "binding": sa.literal(token.binding),
        "created_at": now,
        "rotated_at": now,
        "expires_at": _least(now + token.life, sessions.c.expires_at),
    }
    row = sa.select(*(value.label(name) for name, value in values.items())).where(
        sessions.c.user_id == token.user_id, sessions.c.id == session_id, _session_lives(sa.literal(token.now))
    )
    statement = sa.insert(refresh_families).from_select(list(values), row)
    expires_at: float | None = await tx.scalar(statement.returning(refresh_families.c.expires_at))
    return expires_at


async def delete_old_families(tx: Transaction, user_id: str, session_id: str, *, maximum: int) -> None:
    """Drop a user's expired families, and those of one session that are longest unused over `maximum`."""
    mine = refresh_families.c.user_id == user_id
    await tx.execute(sa.delete(refresh_families).where(mine, refresh_families.c.expires_at <= database_time()))
    over = (
        sa.select(refresh_families.c.id)
        .where(mine, refresh_families.c.session_id == session_id)
        .order_by(refresh_families.c.rotated_at.desc(), refresh_families.c.created_at.desc())
        .limit(_MANY)
        .offset(maximum)
    )
    await tx.execute(sa.delete(refresh_families).where(mine, refresh_families.c.id.in_(over)))


async def delete_families(tx: Transaction, user_id: str, session_id: str) -> None:
    """Drop every family of a session."""
    family = refresh_families.c
    mine = sa.delete(refresh_families).where(family.user_id == user_id, family.session_id == session_id)
    await tx.execute(mine)


async def delete_reused(tx: Transaction, rotation: Rotation) -> Reused | None:
    """End the family of a genuine token that is spent and that no grace covers. Returns whose it was.

    None when it is no reuse, or when another request has ended the family already: so one reports it.
    """
    # The session first, as everybody does who ends or rotates: two who lock in two orders would wait for each other.
    held = sa.select(sessions.c.id).join_from(refresh_families, sessions, _ITS_SESSION).where(_ITS_FAMILY)
    await tx.execute(held.with_for_update(of=sessions), rotation.params())
    statement = (
        sa.delete(refresh_families)
        .where(_ITS_FAMILY, _NOT_EXPIRED, sa.not_(_current()), sa.not_(_within_grace()))
        .returning(refresh_families.c.session_id, refresh_families.c.client_id)
    )
    row = await tx.one(statement, rotation.params())
    return None if row is None else Reused(row.session_id, row.client_id)


async def find_session_of(tx: Transaction, rotation: Rotation) -> str | None:
    """Return the session whose family's current token is presented."""
    statement = sa.select(refresh_families.c.session_id).where(_ITS_FAMILY, _current())
    session_id: str | None = await tx.scalar(statement, rotation.params())
    return session_id


def _param(name: str) -> sa.BindParameter[Any]:
    kinds: dict[type[Any], sa.types.TypeEngine[Any]] = {
        str: sa.String(),
        int: sa.Integer(),
        bytes: sa.LargeBinary(),
        float: sa.Float(),
    }
    return sa.bindparam(f"the_{name}", type_=kinds[get_type_hints(Rotation)[name]])


_MANY: Final = 1_000_000
"""SQLite takes no OFFSET without a LIMIT."""
_STATE: Final = tuple(sessions.c[name] for name in SessionState.__struct_fields__)
_TOLD: Final = 5
"""Columns of a row that are the family's; the session's and the user's follow."""
_ITS_FAMILY: Final = sa.and_(
    refresh_families.c.user_id == _param("user_id"), refresh_families.c.id == _param("family_id")
)
_ITS_SESSION: Final = sa.and_(
    sessions.c.user_id == refresh_families.c.user_id, sessions.c.id == refresh_families.c.session_id
)
_SLACK: Final = 1.0
"""Seconds by which a rotation may lie in the future: what two readings of the database's clock may differ."""
_NOT_EXPIRED: Final = refresh_families.c.expires_at > database_time()


def _current() -> sa.ColumnElement[bool]:
    """Whether the presented token is the family's live one."""
    family = refresh_families.c
    return sa.or_(family.current_hash == _param("presented"), family.generation < _param("generation"))


def _within_grace() -> sa.ColumnElement[bool]:
    """Whether the presented token was used a moment ago by the client that presents it again.

    By the database's clock, which all processes share (attack OPS-10), and for the same binding only (SES-13).
    """
    family = refresh_families.c
    return sa.and_(
        family.generation == _param("generation") + 1,
        family.binding == _param("binding"),
        family.rotated_at > database_time() - _param("grace"),
        # A clock that was set back must not make the grace as long as the step (attack OPS-10).
        family.rotated_at <= database_time() + _SLACK,
    )


def _session_lives(now: sa.ColumnElement[float]) -> sa.ColumnElement[bool]:
    return sa.and_(sessions.c.idle_expires_at > now, sessions.c.expires_at > now)


def _user_may_act() -> sa.ColumnElement[bool]:
    return sa.exists().where(users.c.id == _param("user_id"), users.c.suspended_at.is_(None))


def _least(left: sa.ColumnElement[float], right: sa.ColumnElement[float]) -> sa.ColumnElement[float]:
    """Return the smaller one; the two products call that function by two names."""
    return sa.case((left < right, left), else_=right)


def _use() -> dict[str, sa.ColumnElement[float]]:
    """Return what a use of the session changes. It never moves its absolute end (attack SES-23)."""
    now = _param("now")
    seen = sa.case((sessions.c.last_seen_at < now, now), else_=sessions.c.last_seen_at)
    return {"last_seen_at": seen, "idle_expires_at": _least(now + _param("idle"), sessions.c.expires_at)}


def _move(session_end: sa.ColumnElement[float]) -> dict[str, sa.ColumnElement[Any]]:
    """Return what a rotation changes in the family."""
    now = database_time()
    return {
        "generation": _param("generation") + 1,
        "current_hash": _param("successor"),
        "binding": _param("binding"),
        "rotated_at": now,
        "expires_at": _least(now + _param("life"), session_end),
    }


def _rotation(user_columns: Sequence[sa.ColumnElement[Any]]) -> sa.Select[Any]:
    """Return PostgreSQL's rotation: one statement, one round trip, no BEGIN.

    The session's row is locked before the family's, in the order in which a sign-out deletes them. One that waited
    there sees in the second step that another has rotated, and goes away with nothing.
    """
    presented = sa.select(refresh_families.c.session_id).where(_ITS_FAMILY, _NOT_EXPIRED, _current())
    used = (
        sa.update(sessions)
        .where(
            sessions.c.user_id == _param("user_id"),
            sessions.c.id == presented.scalar_subquery(),
            _session_lives(_param("now")),
            _user_may_act(),
        )
        .values(_use())
        .returning(*_STATE)
        .cte("used")
    )
    family = refresh_families.c
    moved = (
        sa.update(refresh_families)
        .where(_ITS_FAMILY, _NOT_EXPIRED, _current(), family.session_id == used.c.id)
        .values(_move(used.c.expires_at))
        .returning(family.user_id, family.client_id, family.expires_at, family.current_hash)
        .cte("moved")
    )
    told = (moved.c.client_id, moved.c.expires_at, moved.c.current_hash, sa.true(), sa.false())
    columns: list[sa.ColumnElement[Any]] = [*told, *(used.c[column.name] for column in _STATE), *user_columns]
    rows = moved.join(used, used.c.user_id == moved.c.user_id).join(users, users.c.id == moved.c.user_id)
    return sa.select(*columns).select_from(rows)


async def _rotate_in_steps(tx: Transaction, columns: Sequence[sa.ColumnElement[Any]], rotation: Rotation) -> Any:
    """Rotate in a transaction beside which there is no other writer: SQLite's."""
    family, params = refresh_families.c, rotation.params()
    session = sa.select(sessions.c.id).where(_ITS_SESSION, _session_lives(_param("now")))
    end = sa.select(sessions.c.expires_at).where(_ITS_SESSION).scalar_subquery()
    moved = await tx.one(
        sa.update(refresh_families)
        .where(_ITS_FAMILY, _NOT_EXPIRED, _current(), sa.exists(session), _user_may_act())
        .values(_move(end))
        .returning(family.session_id),
        params,
    )
    if moved is None:
        return None
    mine = sa.and_(sessions.c.user_id == _param("user_id"), sessions.c.id == sa.bindparam("the_session"))
    await tx.execute(sa.update(sessions).where(mine).values(_use()), {**params, "the_session": moved.session_id})
    return await tx.one(_family(columns), params)


def _family(user_columns: Sequence[sa.ColumnElement[Any]]) -> sa.Select[Any]:
    """Return the query for a family, its live session and its user."""
    family = refresh_families.c
    told = (family.client_id, family.expires_at, family.current_hash, _current(), _within_grace())
    columns: list[sa.ColumnElement[Any]] = [*told, *_STATE, *user_columns]
    return (
        sa.select(*columns)
        .join_from(refresh_families, sessions, _ITS_SESSION)
        .join(users, users.c.id == sessions.c.user_id)
        .where(_ITS_FAMILY, _NOT_EXPIRED, _session_lives(_param("now")))
    )


def _read_family(row: Sequence[Any]) -> FamilyRow:
    client_id, expires_at, current_hash, current, within_grace = row[:_TOLD]
    state, user = read_state(row[_TOLD:]), tuple(row[_TOLD + len(_STATE) :])
    return FamilyRow(state, user, client_id, expires_at, bytes(current_hash), bool(current), bool(within_grace))
