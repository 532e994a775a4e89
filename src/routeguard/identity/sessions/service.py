"""Starts, rotates and revokes sessions."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar

from routeguard.core.errors import Unavailable
from routeguard.core.problem import Problem, authentication_required
from routeguard.core.secret import digest, new_token
from routeguard.core.security_log import note
from routeguard.identity.sessions import store
from routeguard.identity.sessions.by_id import is_last_proof
from routeguard.identity.sessions.models import (
    SessionEnded,
    SessionId,
    SessionRecord,
    SessionStarted,
    SessionState,
    UserSession,
)
from routeguard.identity.sessions.problems import USER_SUSPENDED
from routeguard.protection.traffic.site import Site

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from routeguard.core.clock import SteadyClock
    from routeguard.core.exchange import Exchange
    from routeguard.foundation.db.database import Database, Transaction
    from routeguard.foundation.invalidation.service import Invalidations
    from routeguard.identity.sessions.models import SessionSettings
    from routeguard.identity.sessions.resolver import CookieSessions
    from routeguard.identity.users.models import UserChange
    from routeguard.identity.users.store import UserReader

U = TypeVar("U")

_SECRET_BYTES: Final = 32
_USER_AGENT_LENGTH: Final = 200
_RETRY: Final = 1.0


class LinkedCredential(Protocol):
    """Other credentials of a session in a browser (the cookies of tokens), which end and rotate with it."""

    async def end_presented(self, tx: Transaction, exchange: Exchange, *, reason: str) -> None:
        """End the session that was presented with the request, if it lives."""
        ...

    async def end_named(self, tx: Transaction, token: str, *, reason: str) -> None:
        """End the session of a token that a program sent, if it lives."""
        ...

    async def replace(self, tx: Transaction, exchange: Exchange, session: UserSession[Any]) -> None:
        """Make void what was given out for a session so far, which goes on; the browser's own gets anew."""
        ...

    def clear(self, exchange: Exchange) -> None:
        """Take from the browser what it sent."""
        ...


class Sessions(Generic[U]):
    """Starts and ends sessions. Every method that takes a transaction takes effect when that commits."""

    def __init__(
        self,
        database: Database,
        users: UserReader[U],
        *,
        clock: SteadyClock,
        settings: SessionSettings,
        invalidations: Invalidations,
        cookies: CookieSessions[U],
        site: Site | None = None,
    ) -> None:
        self._database = database
        self._users = users
        self._clock = clock
        self._settings = settings
        self._feed = invalidations
        self._cookies = cookies
        self._site = site or Site()
        self._linked: list[LinkedCredential] = []
        self._after_revoke_all: list[Callable[[Transaction, str], Awaitable[None]]] = []

    def link(self, linked: LinkedCredential) -> None:
        """End and rotate `linked` with the sessions it stands for. Called before the first request."""
        self._linked.append(linked)

    def after_revoke_all(self, end: Callable[[Transaction, str], Awaitable[None]]) -> None:
        """Call `end` in the transaction that ends all sessions of a user, for what might still become one."""
        self._after_revoke_all.append(end)

    async def sign_in_user(self, tx: Transaction, user_id: str) -> U | Problem:
        """Return the user who may sign in, locked until `tx` ends; a Problem for one who is suspended or gone.

        The lock makes a sign-in and an ending of all the user's sessions happen one after the other (attack SES-09).
        """
        await store.lock_user(tx, user_id)
        user = await self._users.find(tx, user_id)
        return USER_SUSPENDED() if user is None else user

    async def start(
        self, tx: Transaction, user: U, *, exchange: Exchange, amr: tuple[str, ...], aal: int = 1, lasting: bool = True
    ) -> UserSession[U]:
        """Start a session with a new id and secret, and put its cookie on the response once `tx` commits.

        The session presented with the request ends: an id known before sign-in opens nothing after it (attack
        SES-01). Over the maximum, the one longest unused ends. `amr` are the methods of proof (RFC 8176). With
        `lasting` its cookies outlive the browser. `user` is from `sign_in_user`. Sign-in methods call
        `SignIn.attempt` instead, which asks the steps.
        """
        user_id = self._users.id_of(user)
        await self._end_presented(tx, exchange)
        now, secret = self._clock.time(), secrets.token_bytes(_SECRET_BYTES)
        expires_at = now + self._settings.absolute.total_seconds()
        state = SessionState(
            user_id=user_id,
            id=f"ses_{new_token(16)}",
            created_at=now,
            authenticated_at=now,
            last_seen_at=now,
            idle_expires_at=min(now + self._settings.idle.total_seconds(), expires_at),
            expires_at=expires_at,
            amr=" ".join(amr),
            aal=aal,
            lasting=lasting,
        )
        agent, address = self._facts(exchange)
        await store.insert(tx, state, secret_hash=digest(secret), user_agent=agent, address=address)
        for ended in await store.delete_over(tx, user_id, maximum=self._settings.maximum):
            await self._ended(tx, user_id, ended, reason="too-many")
        tx.record(SessionStarted(session_id=state.id, user_id=user_id, address=address, user_agent=agent, amr=amr))
        self._hand_out(tx, exchange, state, user, secret)
        for linked in self._linked:
            # Left in the browser, they would count again when this session ends.
            tx.after_commit(partial(linked.clear, exchange))
        return state.session(user)

    async def rotate(
        self, tx: Transaction, exchange: Exchange, *, amr: tuple[str, ...] | None = None, aal: int | None = None
    ) -> UserSession[U]:
        """Give the presented session a new secret: its cookies of before open nothing from now on.

        Called on every change of privilege. `amr` and `aal`, when given, are those of a proof made just now and make
        the session freshly authenticated. A session that came by an access token gets no cookie; its refresh tokens
        of before are void all the same. Raises ProblemError 401 when the presented session no longer lives.
        """
        named, old_hash = self._to_rotate(exchange)
        now, secret = self._clock.time(), secrets.token_bytes(_SECRET_BYTES)
        values: dict[str, Any] = {"last_seen_at": now}
        if old_hash is not None:
            values["secret_hash"] = digest(secret)
        if amr is not None:
            values |= {"authenticated_at": now, "amr": " ".join(amr)}
        if aal is not None:
            values["aal"] = aal
        state = await store.replace_secret(tx, *named, old_hash=old_hash, now=now, **values)
        user = None if state is None else await self._users.find(tx, state.user_id)
        if state is None or user is None:
            raise authentication_required("the session to rotate has ended").error()
        await self._feed.invalidate(tx, state.id)
        if old_hash is not None:
            self._hand_out(tx, exchange, state, user, secret)
        session = state.session(user)
        for linked in self._linked:
            await linked.replace(tx, exchange, session)
        return session

    def _to_rotate(self, exchange: Exchange) -> tuple[tuple[str, str], bytes | None]:
        """Return whose session is presented and its id, and the hash of its secret when it came by our cookie.

        Beside an access token a cookie counts only if it is of the same session.
        """
        envelope, current = self._cookies.presented(exchange), _principal_of(exchange)
        if envelope is not None and (current is None or envelope.state.id == current.id):
            return (envelope.state.user_id, envelope.state.id), digest(envelope.secret)
        if current is None:
            raise authentication_required("no session to rotate").error()
        return (current.principal_id, current.id), None

    async def revoke(self, tx: Transaction, user_id: str, session_id: str, *, reason: str = "revoked") -> bool:
        """End one session of a user. False when it is not a session of that user (attack SES-24)."""
        if not await store.delete(tx, user_id, session_id):
            return False
        await self._ended(tx, user_id, session_id, reason=reason)
        return True

    async def revoke_proven(
        self, tx: Transaction, user_id: str, session_id: str, *, proven_at: float, whole_seconds: bool, reason: str
    ) -> bool:
        """End the session a verified token names, unless the token is from before the user's last proof."""
        state = await store.find(tx, user_id, session_id)
        if state is None or not is_last_proof(state.session(None), proven_at, whole_seconds=whole_seconds):
            return False
        return await self.revoke(tx, user_id, session_id, reason=reason)

    async def revoke_own(self, exchange: Exchange, current: UserSession[U], session_id: str) -> bool:
        """End one of the caller's sessions, and clear the cookie when it is the present one. False for others'."""
        async with self._database.transaction() as tx:
            found = await self.revoke(tx, current.principal_id, session_id)
        if found and session_id == current.id:
            self._clear(exchange)
        return found

    async def revoke_all(
        self, tx: Transaction, user_id: str, *, keep: SessionId | None = None, reason: str = "revoked"
    ) -> int:
        """End all sessions of a user, except `keep`. Returns how many ended."""
        await store.lock_user(tx, user_id)
        ended = await store.delete_all(tx, user_id, keep=keep)
        for session_id in ended:
            tx.record(SessionEnded(session_id=session_id, user_id=user_id, reason=reason))
        for end in self._after_revoke_all:
            await end(tx, user_id)
        tx.after_commit(lambda: note("sessions-ended", user=user_id, count=str(len(ended)), reason=reason))
        # By user as well as by session: also for cookies of sessions that a restored database no longer knows.
        await self._feed.invalidate(tx, user_id, *ended)
        return len(ended)

    async def on_user_change(self, tx: Transaction, change: UserChange) -> None:
        """Make every process read a user anew when a role or another field changed (SES-26).

        The sessions of a suspended or deleted user end (ASVS v5.0.0-7.4.2). A hook of `UserChange`.
        """
        if change.ended:
            await self.revoke_all(tx, change.user_id, reason="user-changed")
        else:
            await self._feed.invalidate(tx, change.user_id)

    async def list(self, user_id: str) -> list[SessionRecord]:
        """Return a user's live sessions, the last used first."""
        async with self._database.read() as tx:
            return await store.find_live(tx, user_id, now=self._clock.time())

    async def sign_out(self, exchange: Exchange, *, token: str | None = None) -> None:
        """End the presented session, if it lives, by whatever it was presented, and take its cookies away.

        `token` is a refresh token whose session ends too.
        """
        current, envelope = _principal_of(exchange), self._cookies.presented(exchange)
        async with self._database.transaction() as tx:
            await self._end_presented(tx, exchange, reason="sign-out")
            if current is not None:
                await self.revoke(tx, current.principal_id, current.id, reason="sign-out")
            if token is not None:
                for linked in self._linked:
                    await linked.end_named(tx, token, reason="sign-out")
        self._clear(exchange)
        ended = (envelope.state.user_id, envelope.state.id) if envelope is not None else (None, None)
        user, session = (current.principal_id, current.id) if current is not None else ended
        note("signed-out", exchange, user=user, session=session)

    async def sign_out_everywhere(self, exchange: Exchange, user_id: str) -> None:
        """End all sessions of a user and take the cookies from this browser."""
        async with self._database.transaction() as tx:
            count = await self.revoke_all(tx, user_id, reason="sign-out")
        self._clear(exchange)
        note("signed-out-everywhere", exchange, user=user_id, count=str(count))

    async def wait_until_revoked(self, session: UserSession[Any]) -> None:
        """Return once a session has ended or its user has changed: what a WebSocket waits for (attack WS-05).

        An unused session lives on for as long as its connection is open, though not past its absolute end.
        """
        user_id = session.principal_id
        changed = asyncio.Event()
        stop = [self._feed.listen(subject, changed.set) for subject in (user_id, session.id)]
        try:
            while True:
                changed.clear()
                if not await self._still(user_id, session):
                    return
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(max(session.expires_at.timestamp() - self._clock.time(), 0.0)):
                        await changed.wait()
        finally:
            for end in stop:
                end()

    async def _still(self, user_id: str, session: UserSession[Any]) -> bool:
        while True:
            try:
                async with self._database.read() as tx:
                    state = await store.find(tx, user_id, session.id)
                    user = await self._users.find(tx, user_id)
            except Unavailable:
                await asyncio.sleep(_RETRY)
            else:
                return state is not None and state.expires_at > self._clock.time() and user == session.user

    async def _end_presented(self, tx: Transaction, exchange: Exchange, *, reason: str = "replaced") -> None:
        envelope = self._cookies.presented(exchange)
        if envelope is not None:
            state = envelope.state
            if await store.delete(tx, state.user_id, state.id, secret_hash=digest(envelope.secret)):
                await self._ended(tx, state.user_id, state.id, reason=reason)
        for linked in self._linked:
            await linked.end_presented(tx, exchange, reason=reason)

    def _clear(self, exchange: Exchange) -> None:
        self._cookies.clear(exchange)
        for linked in self._linked:
            linked.clear(exchange)

    async def _ended(self, tx: Transaction, user_id: str, session_id: str, *, reason: str) -> None:
        tx.record(SessionEnded(session_id=session_id, user_id=user_id, reason=reason))
        tx.after_commit(lambda: note("session-ended", user=user_id, session=session_id, reason=reason))
        await self._feed.invalidate(tx, session_id)

    def _hand_out(self, tx: Transaction, exchange: Exchange, state: SessionState, user: U, secret: bytes) -> None:
        """Put the cookie on the response at the commit: none for a session that was rolled back."""

        def issue() -> None:
            self._cookies.issue(exchange, state, user, secret=secret)

        tx.after_commit(issue)

    def _facts(self, exchange: Exchange) -> tuple[str | None, str | None]:
        agent = exchange.request.header("user-agent")
        address = self._site.address(exchange)
        return None if agent is None else agent[:_USER_AGENT_LENGTH], None if address is None else str(address)


def _principal_of(exchange: Exchange) -> UserSession[Any] | None:
    """Return the session a policy found, by whatever credential."""
    principal = exchange.principal
    return principal if isinstance(principal, UserSession) else None
