"""A process with its sessions over a real database, and browsers that visit it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from routeguard.core.changes import Changes
from routeguard.core.clock import SteadyClock
from routeguard.core.problem import Problem
from routeguard.core.secret import Secret, new_token
from routeguard.core.security_log import AccountPseudonyms
from routeguard.foundation.db.outbox import Outbox
from routeguard.foundation.ephemeral.memory import MemoryEphemeral
from routeguard.foundation.invalidation.store import invalidations
from routeguard.foundation.mail.queue import MailQueue
from routeguard.identity.sessions import store
from routeguard.identity.sessions.cookies import SessionCookie
from routeguard.identity.sessions.envelope import Envelope, EnvelopeCodec
from routeguard.identity.sessions.invalidation import invalidations_of
from routeguard.identity.sessions.models import SessionSettings, SessionState, UserSession
from routeguard.identity.sessions.pending import PendingSignIns
from routeguard.identity.sessions.proof import Pending, Refused
from routeguard.identity.sessions.resolver import CookieSessions
from routeguard.identity.sessions.service import Sessions
from routeguard.identity.sessions.sign_in import SignIn, SignInParts
from routeguard.identity.users.addresses import read_email
from routeguard.identity.users.composer import EmailComposer
from routeguard.identity.users.models import User, UserChange
from routeguard.identity.users.one_time import OneTimeTokens
from routeguard.identity.users.service import Users
from routeguard.identity.users.store import UserReader
from routeguard.identity.users.verification import EmailVerification
from routeguard.protection.traffic.sign_in_throttle import SignInThrottle
from routeguard.protection.traffic.site import Site
from tests.fakes import FakeClock, deployment
from tests.passwords.world import Mailbox
from tests.sessions.fakes import cookie_of, enter, make_exchange

if TYPE_CHECKING:
    from routeguard.core.exchange import Exchange
    from routeguard.foundation.db.database import Database

SECRET: Final = Secret(b"0123456789abcdef0123456789abcdef")
KEYS: Final = deployment(SECRET)


class World:
    """One process. `another` is a second one over the same database."""

    def __init__(
        self, database: Database, clock: FakeClock, settings: SessionSettings, user_class: type[Any] = User
    ) -> None:
        self.database = database
        self.clock = clock
        self.settings = settings
        steady = SteadyClock(clock)
        reader: UserReader[User] = UserReader(user_class)
        self.changes = Changes()
        self.users = Users(database, reader, clock=clock, changes=self.changes)
        self.feed = invalidations_of(database, clock=steady, settings=settings)
        self.codec = EnvelopeCodec(KEYS)
        self.cookies: CookieSessions[User] = CookieSessions(
            database,
            reader,
            clock=steady,
            codec=self.codec,
            cookie=SessionCookie(),
            settings=settings,
            invalidations=self.feed,
        )
        self.sessions: Sessions[User] = Sessions(
            database, reader, clock=steady, settings=settings, invalidations=self.feed, cookies=self.cookies
        )
        self.changes.add(UserChange, self.sessions.on_user_change)
        self.sign_in_service: SignIn[User] = self._sign_in_service()

    def _sign_in_service(self) -> SignIn[User]:
        self.outbox = Outbox(self.database, KEYS, clock=self.clock)
        mails = MailQueue(self.outbox, Mailbox())
        tokens = OneTimeTokens(self.database, KEYS, clock=self.clock)
        composer = EmailComposer("https://example.test")
        pending = PendingSignIns(tokens)
        self.sessions.after_revoke_all(pending.void)
        return SignIn(
            SignInParts(
                database=self.database,
                sessions=self.sessions,
                pending=pending,
                throttle=SignInThrottle(MemoryEphemeral()),
                verification=EmailVerification(self.users, tokens, mails, composer=composer),
                site=Site(),
                pseudonyms=AccountPseudonyms(KEYS),
            )
        )

    @classmethod
    @asynccontextmanager
    async def open(
        cls, database: Database, *, clock: FakeClock | None = None, user_class: type[Any] = User, **settings: Any
    ) -> AsyncIterator[World]:
        """A process that has caught up and polls only when told to."""
        world = cls(database, clock or FakeClock(), SessionSettings(**settings), user_class)
        await world.feed.poll()
        try:
            yield world
        finally:
            await world.feed.close()

    @asynccontextmanager
    async def another(self, user_class: type[Any] = User) -> AsyncIterator[World]:
        """Another process: own memory, own monotonic clock, the same wall time and database."""
        clock = FakeClock(self.clock.time())
        clock.steady = 5.0
        async with World.open(self.database, clock=clock, user_class=user_class) as world:
            yield world

    async def wait(self, seconds: float) -> None:
        """Let time pass in which this process polled as it should."""
        self.clock.advance(seconds)
        await self.feed.poll()

    async def user(self, *, role: str = "user", image: str | None = None) -> User:
        async with self.database.transaction() as tx:
            email = read_email(f"user-{new_token(8).lower()}-x@example.test")
            user = await self.users.create(tx, email, name="Somebody", role=role, email_verified=True)
            assert user is not None
            return user if image is None else await self.users.update(tx, user.id, image=image)

    async def try_sign_in(self, user: User, browser: Browser | None = None) -> UserSession[User] | Problem:
        browser = browser or Browser(self)
        exchange = browser.exchange()
        found = await enter(self.sign_in_service, user.id, exchange)
        assert not isinstance(found, Pending)
        browser.cookie = cookie_of(exchange) or browser.cookie
        return found.problem if isinstance(found, Refused) else found

    async def sign_in(self, user: User, browser: Browser | None = None) -> Browser:
        browser = browser or Browser(self)
        assert isinstance(await self.try_sign_in(user, browser), UserSession)
        return browser

    async def set_role(self, user: User, role: str) -> None:
        async with self.database.transaction() as tx:
            await self.users.set_role(tx, user.id, role)

    async def suspend(self, user: User) -> None:
        async with self.database.transaction() as tx:
            await self.users.suspend(tx, user.id)

    async def restore(self, user: User) -> None:
        async with self.database.transaction() as tx:
            await self.users.restore(tx, user.id)

    async def rows(self) -> list[Any]:
        async with self.database.read() as tx:
            return list(await tx.all(sa.select(store.sessions).order_by(store.sessions.c.id)))

    async def delete_rows_behind_its_back(self) -> None:
        """Empty the table without a word to anybody: whoever still knows a session did not read the store."""
        async with self.database.transaction() as tx:
            await tx.execute(sa.delete(store.sessions))

    async def suspend_machine(self, *, polled: bool) -> None:
        """Let two hours pass unnoticed, in which what was invalidated was deleted again.

        The monotonic clock stood still meanwhile. With `polled` the feed was asked since.
        """
        async with self.database.transaction() as tx:
            await tx.execute(sa.delete(invalidations))
        self.clock.step(7200)
        if polled:
            await self.feed.poll()

    def envelope(self, state: SessionState, secret: bytes) -> Envelope:
        return Envelope(state, secret, self.clock.time())


class Browser:
    """Holds one cookie and takes the next from each answer."""

    def __init__(self, world: World, cookie: str | None = None) -> None:
        self.world = world
        self.cookie = cookie

    def exchange(self) -> Exchange:
        return make_exchange(*([self.cookie] if self.cookie else []))

    async def visit(self) -> UserSession[User] | None:
        exchange = self.exchange()
        found = await self.world.cookies.resume(exchange)
        self.cookie = cookie_of(exchange) or self.cookie
        return found

    async def session(self) -> UserSession[User]:
        found = await self.visit()
        assert found is not None
        return found
