"""SES-31: what the secret signs or seals for one deployment counts in no other that has the same secret."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest
import sqlalchemy as sa

import routeguard
from routeguard.app import Routeguard
from routeguard.core.secret import DeploymentKeys, Purpose, new_token
from routeguard.core.security_log import AccountPseudonyms
from routeguard.foundation.db.database import Database
from routeguard.foundation.db.outbox import Outbox, outbox
from routeguard.identity.sessions.models import UserSession
from routeguard.identity.sessions.resolver import CookieSessions
from routeguard.identity.sessions.sign_in import SignIn
from routeguard.identity.tokens.access import AccessTokens
from routeguard.identity.tokens.families import RefreshFamilies
from routeguard.identity.tokens.keys import SigningKeys
from routeguard.identity.users.addresses import read_email
from routeguard.identity.users.one_time import OneTimeTokens
from routeguard.identity.users.service import Users
from routeguard.protection.traffic.csrf import CsrfTokens
from routeguard.settings import Settings
from tests.attacks.world import SECRET
from tests.passwords.world import CHEAP, PATIENT
from tests.sessions.fakes import cookie_of, enter, make_exchange

pytestmark = pytest.mark.anyio

ISSUER: Final = "https://id.example.com"
OTHERS: Final = (
    "https://id.staging.example.com",
    "https://id.example.com:8443",
    "https://id.example.com/",
    "http://id.example.com",
)
BINDING: Final = bytes(32)


@dataclass
class Deployment:
    """A guard over a database, with one signed-in user."""

    guard: Routeguard[Any]

    def get(self, kind: type[Any]) -> Any:
        return self.guard.services.get(kind)

    @classmethod
    @asynccontextmanager
    async def open(cls, issuer: str, database_url: str) -> AsyncIterator[Deployment]:
        settings = Settings(
            secret=SECRET,
            issuer=issuer,
            environment="development",
            database_url=database_url,
            passwords=CHEAP,
            database=PATIENT,
        )
        guard: Routeguard[Any] = Routeguard(settings)
        await guard.start()
        # What is put into the outbox is delivered when a test says so.
        await guard.services.get(Outbox).close()
        try:
            yield cls(guard)
        finally:
            await guard.close()

    async def sign_in(self) -> tuple[UserSession[Any], str]:
        """Return the session of a new user, and its cookie."""
        exchange = make_exchange()
        async with self.get(Database).transaction() as tx:
            user = await self.get(Users).create(
                tx, read_email(f"ada-{new_token(8).lower()}@example.com"), email_verified=True
            )
        session = await enter(self.get(SignIn), user.id, exchange)
        assert isinstance(session, UserSession)
        cookie = cookie_of(exchange)
        assert cookie is not None
        return session, cookie


async def session_cookie(ours: Deployment, other: Deployment) -> None:
    session, cookie = await ours.sign_in()
    assert await other.get(CookieSessions).resume(make_exchange(cookie)) is None
    assert other.get(CookieSessions).presented(make_exchange(cookie)) is None
    assert await ours.get(CookieSessions).resume(make_exchange(cookie)) == session


async def csrf_token(ours: Deployment, other: Deployment) -> None:
    exchange = make_exchange()
    exchange.principal, _ = await ours.sign_in()
    token = (await ours.get(CsrfTokens).issue(exchange)).encode()
    assert not await other.get(CsrfTokens).verify(exchange, token)
    assert await ours.get(CsrfTokens).verify(exchange, token)


async def refresh_token(ours: Deployment, other: Deployment) -> None:
    session, _ = await ours.sign_in()
    families = ours.get(RefreshFamilies)
    started = await families.start(session, client_id="test", binding=BINDING)
    assert await other.get(RefreshFamilies).rotate(started.refresh_token, binding=BINDING) is None
    assert await families.rotate(started.refresh_token, binding=BINDING) is not None


async def refresh_successor(ours: Deployment, other: Deployment) -> None:
    codecs = [one.get(RefreshFamilies)._codec for one in (ours, other)]
    token = codecs[0].read(codecs[0].first("usr_1", "fam_1"))
    secrets = {codec.read(codec.successor(token)).secret for codec in codecs}
    assert len(secrets) == 2


async def one_time_token(ours: Deployment, other: Deployment) -> None:
    session, _ = await ours.sign_in()
    found: list[Any] = []
    async with ours.get(Database).transaction() as tx:
        token = await ours.get(OneTimeTokens).issue(tx, "reset", session.principal_id, ttl=timedelta(hours=1))
    for one in (other, ours):
        async with one.get(Database).transaction() as tx:
            assert (await one.get(OneTimeTokens).peek(tx, "reset", token) is None) is (one is other)
            found.append(await one.get(OneTimeTokens).redeem(tx, "reset", token))
    assert found[0] is None
    assert found[1].user_id == session.principal_id


async def signing_keys(ours: Deployment, other: Deployment) -> None:
    """Each has keys of its own, and neither revokes nor replaces the other's."""
    session, _ = await ours.sign_in()
    token = ours.get(AccessTokens).mint(session, client_id="test").encode()
    keys, others = ours.get(SigningKeys), other.get(SigningKeys)
    kid = keys.signer().kid
    assert kid != others.signer().kid
    assert others.find(kid) is None
    assert other.get(AccessTokens).verify(token) is None
    await others.rotate(now=True)
    await keys._tend()
    assert keys.signer().kid == kid
    assert ours.get(AccessTokens).verify(token) is not None
    assert [one.key.kid for one, _ in keys.in_force()] == [kid]


async def sealed_rows(ours: Deployment, other: Deployment) -> None:
    """A row waits for the deployment that wrote it: the other one does not even try."""
    got: dict[str, list[bytes]] = {"ours": [], "other": []}
    for name, one in (("ours", ours), ("other", other)):

        async def keep(payload: bytes, name: str = name) -> None:
            got[name].append(payload)

        one.get(Outbox).handle("test", keep)
    async with ours.get(Database).transaction() as tx:
        await ours.get(Outbox).put(tx, "test", b"one")
    assert await other.get(Outbox).deliver_due() == 0
    async with ours.get(Database).read() as tx:
        assert await tx.scalar(sa.select(outbox.c.attempts)) == 0
    assert await ours.get(Outbox).deliver_due() == 1
    assert got == {"ours": [b"one"], "other": []}


async def log_subject(ours: Deployment, other: Deployment) -> None:
    names = {AccountPseudonyms(one.get(DeploymentKeys)).of(b"ada@example.com") for one in (ours, other)}
    assert len(names) == 2


CASES: Final[dict[Purpose, Callable[[Deployment, Deployment], Awaitable[None]]]] = {
    Purpose.SESSION_COOKIE: session_cookie,
    Purpose.CSRF: csrf_token,
    Purpose.REFRESH: refresh_token,
    Purpose.REFRESH_SUCCESSOR: refresh_successor,
    Purpose.ONE_TIME: one_time_token,
    Purpose.SIGNING_KEYS: signing_keys,
    Purpose.OUTBOX: sealed_rows,
    Purpose.LOG_SUBJECT: log_subject,
}


@pytest.mark.parametrize("purpose", Purpose, ids=lambda purpose: purpose.value)
async def test_another_issuer_with_the_same_secret_and_database(sqlite_url: str, purpose: Purpose) -> None:
    """SES-31: a purpose without a case fails here."""
    async with Deployment.open(ISSUER, sqlite_url) as ours, Deployment.open(OTHERS[0], sqlite_url) as other:
        await CASES[purpose](ours, other)


@pytest.mark.parametrize(
    ("issuer", "another"),
    # Only on this machine may an issuer be http.
    [*((ISSUER, one) for one in OTHERS[:-1]), ("https://localhost:8000", "http://localhost:8000")],
)
async def test_issuers_are_compared_exactly(database_url: str, issuer: str, another: str) -> None:
    """SES-31: another port, scheme or trailing slash is another deployment."""
    async with Deployment.open(issuer, database_url) as ours, Deployment.open(another, database_url) as other:
        for case in CASES.values():
            await case(ours, other)


async def test_the_same_issuer_in_another_process(sqlite_url: str) -> None:
    """Replicas of one deployment share all of it."""
    async with Deployment.open(ISSUER, sqlite_url) as ours, Deployment.open(ISSUER, sqlite_url) as other:
        session, cookie = await ours.sign_in()
        assert await other.get(CookieSessions).resume(make_exchange(cookie)) == session
        assert other.get(SigningKeys).signer().kid == ours.get(SigningKeys).signer().kid


async def test_keys_differ_by_secret_issuer_and_purpose() -> None:
    pairs = [(issuer, secret) for issuer in (ISSUER, *OTHERS, ISSUER.upper()) for secret in (b"k" * 32, b"l" * 32)]
    keys = [DeploymentKeys(issuer, routeguard.Secret(secret)) for issuer, secret in pairs]
    found = {key for one in keys for purpose in Purpose for key in one.derive(purpose)}
    assert len(found) == len(pairs) * len(Purpose)
    assert not found & {key for one in keys for purpose in Purpose for key in one.derive_unbound(purpose)}


def test_nothing_is_keyed_past_the_issuer() -> None:
    """The secret itself is read where the keys of the deployment are made, and nowhere else."""
    source = Path(routeguard.__file__).parent
    found = {
        path.relative_to(source).as_posix()
        for path in source.rglob("*.py")
        if re.search(r"settings\.secret|older_secrets", path.read_text("utf-8"))
    }
    allowed = {"assembly.py", "builtin/features.py", "cli/config.py", "cli/dev.py"}
    assert {one for one in found if not one.startswith("settings")} <= allowed
