"""Refresh families: one live token each, spent by its use, and dead with its session when a spent one comes back."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from routeguard.core.problem import authentication_required
from routeguard.core.secret import digest, equal, new_token
from routeguard.core.security_log import network_of, note
from routeguard.foundation.db.errors import ConstraintViolation, Contended
from routeguard.identity.tokens import store
from routeguard.identity.tokens.models import RefreshTokenReused
from routeguard.identity.tokens.refresh import hash_of
from routeguard.identity.tokens.rows import FamilyRow, Reused, Rotation

if TYPE_CHECKING:
    from routeguard.core.clock import SteadyClock
    from routeguard.core.exchange import Exchange
    from routeguard.foundation.db.database import Database, Transaction
    from routeguard.identity.sessions.models import SessionSettings, UserSession
    from routeguard.identity.sessions.service import Sessions
    from routeguard.identity.tokens.models import TokenSettings
    from routeguard.identity.tokens.refresh import RefreshCodec, RefreshToken
    from routeguard.identity.users.store import UserReader
    from routeguard.protection.traffic.site import Site

U = TypeVar("U")

_MAXIMUM: Final = 20
"""Families of one session: a client that asks again and again without using them loses the oldest."""
_TRIES: Final = 4
_NOBODY: Final = b""
_ENDED: Final = authentication_required("the session has ended")


@dataclass(frozen=True, slots=True)
class Refreshed(Generic[U]):
    """A family's live token, and the session it stands for. `expires_at` is in seconds since the epoch."""

    refresh_token: str
    expires_at: float
    client_id: str
    session: UserSession[U]

    def __repr__(self) -> str:
        return f"Refreshed({self.session.id})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lives:
    """Seconds: an unused refresh token, the grace after its use, and an unused session."""

    refresh: float
    grace: float
    idle: float

    @classmethod
    def of(cls, tokens: TokenSettings, sessions: SessionSettings) -> Lives:
        """Take them from the settings."""
        return cls(
            refresh=tokens.refresh.total_seconds(),
            grace=max(tokens.grace, tokens.retry).total_seconds(),
            idle=sessions.idle.total_seconds(),
        )


class RefreshFamilies(Generic[U]):
    """Starts families, moves them on, and ends those whose spent token is presented again.

    A client that lost an answer asks again with the token it has: for `grace` seconds of the database's clock, and as
    the same client, it gets the very successor it missed (attacks SES-12, SES-16). Anybody else who presents a spent
    token has a copy of it, or the other one has: the family, its session and all that came of them end (RFC 9700
    section 4.14.2). Nothing of this is in memory, so it holds across processes and restarts (attack SES-06).
    """

    def __init__(
        self,
        database: Database,
        users: UserReader[U],
        *,
        sessions: Sessions[U],
        codec: RefreshCodec,
        clock: SteadyClock,
        lives: Lives,
        site: Site,
    ) -> None:
        self._database = database
        self._users = users
        self._sessions = sessions
        self._codec = codec
        self._clock = clock
        self._lives = lives
        self._site = site
        self._statements = store.FamilyStatements(database, users.columns)

    async def start(self, session: UserSession[U], *, client_id: str, binding: bytes) -> Refreshed[U]:
        """Begin a family of a live session. Raises ProblemError 401 when it has ended, and Unavailable."""
        try:
            return await self._database.run(partial(self.begin, session=session, client_id=client_id, binding=binding))
        except ConstraintViolation:
            # It ended between the look and the write.
            raise _ENDED.error() from None

    async def begin(self, tx: Transaction, session: UserSession[U], *, client_id: str, binding: bytes) -> Refreshed[U]:
        """Begin a family when `tx` commits. Raises ProblemError 401 when the session has ended."""
        text = self._codec.first(session.principal_id, "fam_" + new_token(16))
        token = self._codec.read(text)
        assert token is not None
        rotation = self._rotation(token, text, binding)
        expires_at = await store.insert_family(tx, session_id=session.id, token=rotation, client_id=client_id)
        if expires_at is None:
            raise _ENDED.error()
        await store.delete_old_families(tx, rotation.user_id, session.id, maximum=_MAXIMUM)
        return Refreshed(text, expires_at, client_id, session)

    async def end_all(self, tx: Transaction, session: UserSession[U]) -> None:
        """Make every refresh token of a session void; the session goes on."""
        await store.delete_families(tx, session.principal_id, session.id)

    async def rotate(
        self, text: str | bytes, *, binding: bytes, exchange: Exchange | None = None, revoke_on_reuse: bool = True
    ) -> Refreshed[U] | None:
        """Return the successor of a refresh token, or None when it is unknown or spent, or its session has ended.

        `binding` says which client presents it. A reused token revokes its family and session unless
        `revoke_on_reuse` is False: beside a valid access token, a slow answer explains reuse as well as theft.
        Raises Unavailable when the outcome is unknown; then the same token may be tried again: nothing was done, or
        what was done is done again the same.
        """
        token = self._codec.read(text)
        if token is None:
            return None
        successor = self._codec.successor(token)
        rotation = self._rotation(token, text, binding, successor)
        row = await self._move(rotation)
        if row is None:
            row, successor = await self._replay_within_grace(token, rotation, exchange, revoke_on_reuse=revoke_on_reuse)
        user = None if row is None else self._users.read(row.user)
        if row is None or user is None:
            return None
        return Refreshed(successor, row.expires_at, row.client_id, row.state.session(user))

    async def find(self, text: str | bytes, *, binding: bytes, allow_grace: bool = False) -> Refreshed[U] | None:
        """Return what a live refresh token stands for, and rotate nothing; None when it is not its family's live one.

        With `allow_grace`, a token that the grace covers for this `binding` counts as well. Raises Unavailable.
        """
        token = self._codec.read(text)
        if token is None:
            return None
        row = await self._statements.find(self._rotation(token, text, binding))
        user = None if row is None else self._users.read(row.user)
        if row is None or user is None or not (row.current or (allow_grace and row.within_grace)):
            return None
        same = text if isinstance(text, str) else text.decode("ascii")
        return Refreshed(same, row.expires_at, row.client_id, row.state.session(user))

    def owner_of(self, text: str | bytes) -> str | None:
        """Return the id of the user a token was written for, whether it still is good or not."""
        token = self._codec.read(text)
        return None if token is None else token.user_id

    async def end_presented(self, tx: Transaction, text: str | bytes, *, reason: str) -> None:
        """End the session whose family's live token is presented; a spent or foreign token ends nothing."""
        token = self._codec.read(text)
        if token is not None:
            session_id = await store.find_session_of(tx, self._rotation(token, text, _NOBODY))
            if session_id is not None:
                await self._sessions.revoke(tx, token.user_id, session_id, reason=reason)

    async def _move(self, rotation: Rotation) -> FamilyRow | None:
        for attempt in range(_TRIES):
            try:
                return await self._statements.rotate(rotation)
            except Contended:
                # Rolled back in favour of another (attack OPS-16): nothing was done, so it is tried again.
                if attempt == _TRIES - 1:
                    raise
            await asyncio.sleep(0.01 * 2**attempt)
        raise AssertionError

    async def _replay_within_grace(
        self, token: RefreshToken, rotation: Rotation, exchange: Exchange | None, *, revoke_on_reuse: bool
    ) -> tuple[FamilyRow | None, str]:
        """Return the successor given before, where the grace covers it; else the token was copied."""
        row = await self._statements.find(rotation)
        if row is None:
            return None, ""
        if not row.within_grace:
            if revoke_on_reuse:
                await self._end_reused(rotation, exchange)
            return None, ""
        for successor in self._codec.successors(token):
            if equal(hash_of(successor), row.current_hash):
                return row, successor
        return None, ""  # Made with a key that is configured no more.

    async def _end_reused(self, rotation: Rotation, exchange: Exchange | None) -> None:
        async def end(tx: Transaction) -> Reused | None:
            reused = await store.delete_reused(tx, rotation)
            if reused is not None:
                await self._sessions.revoke(tx, rotation.user_id, reused.session_id, reason="token-reused")
                tx.record(RefreshTokenReused(user_id=rotation.user_id, **reused._asdict()))
            return reused

        # Of many who present it at once one deletes the row, and that one alone reports it.
        reused = await self._database.run(end)
        if reused is not None:
            network = None if exchange is None else network_of(self._site.address(exchange))
            note(
                "refresh-token-reused",
                exchange,
                level=logging.WARNING,
                user=rotation.user_id,
                session=reused.session_id,
                client=reused.client_id,
                network=network,
            )

    def _rotation(self, token: RefreshToken, text: str | bytes, binding: bytes, successor: str = "") -> Rotation:
        return Rotation(
            user_id=token.user_id,
            family_id=token.family_id,
            generation=token.generation,
            presented=hash_of(text),
            successor=hash_of(successor),
            binding=binding,
            now=self._clock.time(),
            idle=self._lives.idle,
            life=self._lives.refresh,
            grace=self._lives.grace,
        )


def binding_of(exchange: Exchange) -> bytes:
    """Return what tells one client from another: the digest of its User-Agent, 32 bytes.

    A copy in other hands seldom comes with it (attack SES-13). It only decides about the few seconds of the grace.
    """
    agent: Any = exchange.request.headers.get(b"user-agent", b"")
    return digest(b"user-agent:" + agent)
