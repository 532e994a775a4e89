"""Single-use tokens for mailed links: each for one user, one purpose, once, and not for long."""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from routeguard.core.endings import Ending
from routeguard.core.errors import ConfigError
from routeguard.core.secret import Purpose, digest, new_token
from routeguard.foundation.db.schema import metadata

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from routeguard.core.clock import Clock
    from routeguard.core.secret import DeploymentKeys
    from routeguard.foundation.db.database import Database, Transaction
    from routeguard.identity.users.models import PasswordChange, UserChange

one_time_tokens: Final = sa.Table(
    "routeguard_one_time_tokens",
    metadata,
    # One row for a user and purpose: a newer token takes the place of the older by itself (attack ML-15).
    sa.Column("user_id", sa.String(40), sa.ForeignKey("routeguard_users.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("purpose", sa.String(40), primary_key=True),
    sa.Column("token_hash", sa.LargeBinary(32), nullable=False),
    sa.Column("expires_at", sa.Float, nullable=False),
    sa.Column("data", sa.Text, nullable=False),
    # Bits of `Ending`. The default is for rows of processes that do not know the column.
    sa.Column("ends_with", sa.Integer, nullable=False, server_default=sa.text("2")),
)

_LONGEST: Final = 2048
"""Characters that are looked at; tokens have 70, and the links they are mailed in some more."""
_NAME: Final = re.compile(r"[a-z][a-z0-9_-]{0,39}", re.ASCII)
_AFTER: Final = re.compile(r"[&\s>]")


@dataclass(frozen=True, slots=True)
class Redeemed:
    """Whom a token was for, and what was kept with it."""

    user_id: str
    data: Mapping[str, Any]
    expires_at: datetime


class OneTimeTokens:
    """Issues and redeems tokens. 256 random bits; the database holds an HMAC (RFC 2104) of purpose and token only.

    A purpose is a name space of its own: a token of one is unknown to every other (attacks ML-05, SES-31). The HMAC
    is keyed for the deployment: a token mailed by another issuer over the same database is unknown too. In place of a
    token the link it was mailed in is accepted, because users without scripts paste it into the page.
    """

    def __init__(self, database: Database, keys: DeploymentKeys, *, clock: Clock) -> None:
        self._database = database
        self._keys = keys.derive(Purpose.ONE_TIME)
        self._clock = clock
        self._ends_with: dict[str, int] = {}

    def purpose(self, name: str, ends_with: Iterable[Ending]) -> None:
        """Register a purpose and what voids its tokens. Raises ConfigError for a name that is taken or no name.

        Purposes of one family, `name:...`, are registered by the name of the family. One that is not registered ends
        with every ending.
        """
        if not _NAME.fullmatch(name):
            raise ConfigError(f"the purpose {name!r} of one-time tokens must be at most 40 of a to z, 0 to 9, - and _")
        if name in self._ends_with:
            raise ConfigError(f"two features register the purpose {name!r} of one-time tokens")
        self._ends_with[name] = _bits(ends_with)

    async def issue(
        self, tx: Transaction, purpose: str, user_id: str, *, ttl: timedelta, data: Mapping[str, Any] | None = None
    ) -> str:
        """Return a new token, valid for `ttl`. Those of before for this user and purpose are void."""
        token = await self._store(tx, purpose, user_id, ttl, data)
        assert token is not None
        return token

    async def issue_unless_pending(
        self,
        tx: Transaction,
        purpose: str,
        user_id: str,
        *,
        ttl: timedelta,
        left: timedelta = timedelta(0),
        data: Mapping[str, Any] | None = None,
    ) -> str | None:
        """Return a new token as `issue` does; None while the user holds one that works for more than `left` from now.

        One statement: of any number who ask at once one gets a token, and none voids the token of another.
        """
        return await self._store(tx, purpose, user_id, ttl, data, one_time_tokens.c.expires_at <= self._later(left))

    async def _store(
        self,
        tx: Transaction,
        purpose: str,
        user_id: str,
        ttl: timedelta,
        data: Mapping[str, Any] | None,
        replaces: sa.ColumnElement[bool] | None = None,
    ) -> str | None:
        token = f"{user_id}.{new_token()}"
        values = {
            "token_hash": _hash(self._keys[0], purpose, token),
            "expires_at": self._later(ttl),
            "data": msgspec.json.encode(dict(data or {})).decode(),
            "ends_with": self._ends_with.get(purpose.partition(":")[0], _bits(Ending)),
        }
        made: Any = (postgresql if self._database.dialect == "postgresql" else sqlite).insert(one_time_tokens)
        made = made.values(user_id=user_id, purpose=purpose, **values)
        made = made.on_conflict_do_update(index_elements=["user_id", "purpose"], set_=values, where=replaces)
        return token if await tx.one(made.returning(one_time_tokens.c.user_id)) is not None else None

    def _later(self, by: timedelta) -> float:
        return self._clock.time() + by.total_seconds()

    async def peek(self, tx: Transaction, purpose: str, token: str) -> Redeemed | None:
        """Return what `redeem` would, consuming nothing: to refuse before costly work. Proves nothing later."""
        matches = self._matches(purpose, token)
        row = None if matches is None else await tx.one(sa.select(*_RETURNED).where(matches))
        return None if row is None else _redeemed(row)

    async def redeem(self, tx: Transaction, purpose: str, token: str) -> Redeemed | None:
        """Consume a token; None when it is used, expired, replaced, for another purpose or made up.

        One statement: of any number who redeem at once, one gets it (attack ML-02).
        """
        matches = self._matches(purpose, token)
        if matches is None:
            return None
        row = await tx.one(sa.delete(one_time_tokens).where(matches).returning(*_RETURNED))
        return None if row is None else _redeemed(row)

    async def is_pending(self, tx: Transaction, purpose: str, user_id: str) -> bool:
        """Return whether a user holds a token of this purpose that works now."""
        statement = sa.select(one_time_tokens.c.user_id).where(
            one_time_tokens.c.user_id == user_id,
            one_time_tokens.c.purpose == purpose,
            one_time_tokens.c.expires_at > self._clock.time(),
        )
        return await tx.one(statement) is not None

    async def void(self, tx: Transaction, user_id: str, *purposes: str) -> None:
        """Make the tokens of a user void: those of `purposes`, or all."""
        statement = sa.delete(one_time_tokens).where(one_time_tokens.c.user_id == user_id)
        if purposes:
            statement = statement.where(one_time_tokens.c.purpose.in_(purposes))
        await tx.execute(statement)

    async def end(self, tx: Transaction, user_id: str, *endings: Ending) -> int:
        """Make the tokens of a user void that end with one of these, and return how many there were.

        One statement, as in `redeem`: a token is either redeemed or found here, and never both.
        """
        bits = _bits(endings)
        # Beside the stored bits: a process from before there were any may have issued it.
        known = [name for name, ends_with in self._ends_with.items() if ends_with & bits]
        ended = sa.or_(one_time_tokens.c.ends_with.bitwise_and(bits) != 0, one_time_tokens.c.purpose.in_(known))
        result = await tx.execute(sa.delete(one_time_tokens).where(one_time_tokens.c.user_id == user_id, ended))
        return result.rowcount

    async def on_user_change(self, tx: Transaction, change: UserChange) -> None:
        """End what a suspension or another address ends (attack ML-15). A hook of `UserChange`."""
        endings: list[Ending] = []
        if change.ended and "suspended_at" in change.fields:
            endings.append(Ending.SUSPENSION)
        if "email" in change.fields:
            endings.append(Ending.EMAIL)
        if endings:
            await self.end(tx, change.user_id, *endings)

    async def on_password_change(self, tx: Transaction, change: PasswordChange) -> None:
        """End what an attacker who knew the old password may have asked for. A hook of `PasswordChange`."""
        await self.end(tx, change.user_id, Ending.PASSWORD)

    async def void_family(self, tx: Transaction, user_id: str, family: str, *, expired_only: bool = False) -> None:
        """Make void the tokens of a user whose purpose is `family`, a colon and a name, which each has for itself."""
        statement = sa.delete(one_time_tokens).where(
            one_time_tokens.c.user_id == user_id,
            one_time_tokens.c.purpose.startswith(f"{family}:", autoescape=True),
        )
        if expired_only:
            statement = statement.where(one_time_tokens.c.expires_at <= self._clock.time())
        await tx.execute(statement)

    def _matches(self, purpose: str, token: str) -> sa.ColumnElement[bool] | None:
        if len(token) > _LONGEST or not token.isascii() or "\x00" in token:
            return None
        token = _unpacked(token)
        user_id, dot, _ = token.partition(".")
        if not dot:
            return None
        # Found by key and hash alone: how long a look-up takes says nothing about a token's characters.
        return sa.and_(
            one_time_tokens.c.user_id == user_id,
            one_time_tokens.c.purpose == purpose,
            one_time_tokens.c.token_hash.in_(self._hashes(purpose, token)),
            one_time_tokens.c.expires_at > self._clock.time(),
        )

    def _hashes(self, purpose: str, token: str) -> list[bytes]:
        """Return what may be stored of a token: under each secret, and as it was before the hash had a key."""
        return [*(_hash(key, purpose, token) for key in self._keys), digest(f"{purpose}:{token}")]


_RETURNED: Final = (one_time_tokens.c.user_id, one_time_tokens.c.data, one_time_tokens.c.expires_at)


def _bits(endings: Iterable[Ending]) -> int:
    return sum(ending.value for ending in frozenset(endings))


def _redeemed(row: Any) -> Redeemed:
    return Redeemed(row[0], msgspec.json.decode(row[1]), datetime.fromtimestamp(row[2], UTC))


def _unpacked(text: str) -> str:
    """Return the token in `text`: a token, or a link that holds one, perhaps in angle brackets."""
    _, found, rest = text.strip().rpartition("token=")
    return _AFTER.split(rest, maxsplit=1)[0] if found else text.strip()


def _hash(key: bytes, purpose: str, token: str) -> bytes:
    return hmac.digest(key, f"{purpose}:{token}".encode(), "sha256")
