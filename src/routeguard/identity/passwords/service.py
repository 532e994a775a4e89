"""Sign up, sign in, change and reset: the only place that sets a password."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from routeguard.core.errors import Unavailable
from routeguard.core.security_log import network_of, note
from routeguard.identity.passwords import store
from routeguard.identity.passwords.models import PasswordChanged, PasswordResetRequested, SignedUp
from routeguard.identity.passwords.policy import normalize
from routeguard.identity.sessions.models import UserSession
from routeguard.identity.sessions.problems import invalid_credentials
from routeguard.identity.sessions.proof import Proof, Unproven
from routeguard.identity.users.addresses import Email, parse_email, read_email, read_name
from routeguard.identity.users.problems import LINK_EXPIRED
from routeguard.protection.traffic.sign_in_throttle import account_key

if TYPE_CHECKING:
    from routeguard.core.clock import Clock
    from routeguard.core.exchange import Exchange
    from routeguard.core.security_log import AccountPseudonyms
    from routeguard.foundation.db.database import Database, Transaction
    from routeguard.foundation.mail.queue import MailQueue
    from routeguard.identity.passwords.hashing import HashingPool, Verdict
    from routeguard.identity.passwords.models import PasswordSettings
    from routeguard.identity.passwords.policy import PasswordPolicy
    from routeguard.identity.passwords.store import Found
    from routeguard.identity.sessions.proof import Pending, Refused
    from routeguard.identity.sessions.service import Sessions
    from routeguard.identity.sessions.sign_in import SignIn
    from routeguard.identity.users.composer import EmailComposer
    from routeguard.identity.users.models import UserChange
    from routeguard.identity.users.one_time import OneTimeTokens
    from routeguard.identity.users.quota import MailQuota
    from routeguard.identity.users.service import Users
    from routeguard.identity.users.verification import EmailVerification
    from routeguard.protection.traffic.site import Site

RESET: Final = "password-reset"
"""The purpose of tokens in reset links."""
CONTESTED: Final = "sign-up-contested"
"""The purpose of the note that more than one sign-up came for an unproven address. Its token is never mailed."""
DECOY: Final = "sign-up-decoy"
_SAMPLES: Final = 8
_UNTIL_PROVEN: Final = timedelta(days=3650)
RESET_PATH: Final = "/auth/password/reset"
FORGOT_PATH: Final = "/auth/password/forgot"


@dataclass(frozen=True, slots=True, kw_only=True)
class Foundations:
    """What passwords stand on."""

    database: Database
    clock: Clock
    users: Users[Any]
    tokens: OneTimeTokens
    verification: EmailVerification
    sessions: Sessions[Any]
    sign_in: SignIn[Any]
    mails: MailQueue
    composer: EmailComposer
    quota: MailQuota
    site: Site
    pseudonyms: AccountPseudonyms


class Passwords:
    """Accounts with a password. Addresses, names and passwords come as they were typed.

    Raises ProblemError: 422 for invalid input, 401 invalid-credentials, 400 link-expired, 429 for too many
    tries and 503 when too many hashes wait.
    """

    def __init__(
        self, foundations: Foundations, *, settings: PasswordSettings, hashing: HashingPool, policy: PasswordPolicy
    ) -> None:
        self._on = foundations
        self._database = foundations.database
        self._settings = settings
        self._hashing = hashing
        self._policy = policy

    async def start(self) -> None:
        """Learn how slow the hashes imported from other systems are. A database that is away says nothing."""
        with contextlib.suppress(Unavailable):
            async with self._database.read() as tx:
                foreign = await store.find_foreign(tx, limit=_SAMPLES)
            for encoded in foreign:
                await self._hashing.learn(encoded)

    async def sign_up(self, *, email: str, password: str, name: str = "", exchange: Exchange | None = None) -> None:
        """Create an account and mail the link that proves its address. Starts no session.

        For a taken address nothing changes, its owner is told by mail, and the caller learns nothing: the password is
        judged and hashed before it is known whether there is an account (attack ENUM-03).
        """
        address, name = read_email(email), read_name(name)
        normalized = normalize(password, self._settings)
        self._policy.check(normalized, context=(address.text, name))
        encoded = await self._hashing.hash(normalized)
        user_id = await self._database.run(lambda tx: self._sign_up(tx, address, name, encoded))
        subject = self._on.pseudonyms.of(account_key(email)) if user_id is None else None
        network = None if exchange is None else network_of(self._on.site.address(exchange))
        note("signed-up" if user_id else "sign-up-repeated", exchange, user=user_id, subject=subject, network=network)

    async def _sign_up(self, tx: Transaction, address: Email, name: str, encoded: str) -> str | None:
        """Return the id of the new user, or None for a taken address."""
        user = await self._on.users.create(tx, address, name=name)
        tx.record(SignedUp(email_key=address.key, made=user is not None))
        if user is not None:
            await self._put(tx, user.id, encoded)
            return str(user.id)
        owner = await self._on.users.find_by_email(tx, address)
        if owner is not None:
            # These tokens are never given out: they are the writes that a new account would have cost (attack ENUM-03).
            purpose = DECOY if owner.email_verified else CONTESTED
            for written in (purpose, DECOY):
                await self._on.tokens.issue(tx, written, owner.id, ttl=_UNTIL_PROVEN)
        return None

    async def send_sign_up(self, event: SignedUp) -> None:
        """Mail the link that proves the address, or tell its owner that there is an account. Listens to SignedUp."""
        async with self._on.quota.spend("sign-up", event.email_key) as allowed:
            if allowed:
                await self._database.run(lambda tx: self._send_sign_up(tx, event))

    async def _send_sign_up(self, tx: Transaction, event: SignedUp) -> None:
        user = await self._on.users.find_by_email(tx, event.email_key)
        if user is None:
            return
        if user.email_verified and not event.made:
            await self._tell_owner(tx, user)
        elif not user.email_verified and user.suspended_at is None:
            await self._on.verification.send_unless_pending(tx, user, resend=True)

    async def on_user_change(self, tx: Transaction, change: UserChange) -> None:
        """Take the password of an account several signed up for, once its address is proven. Listens to users.

        The reader of the mailbox is the owner, but the password may be that of a stranger who signed up first and
        waited for the owner to open the link (account pre-hijacking). The owner is mailed a link to choose one.
        """
        if "email_verified" not in change.fields or "email" in change.fields:
            return
        if not await self._on.tokens.is_pending(tx, CONTESTED, change.user_id):
            return
        await self._on.users.password_changes(tx, change.user_id)
        await store.remove(tx, change.user_id)
        await self._on.sessions.revoke_all(tx, change.user_id, reason="sign-up-contested")
        await self._on.tokens.void(tx, change.user_id)
        user = await self._on.users.update(tx, change.user_id, name="", image=None)
        life, data = self._settings.reset_life, {"email": user.email}
        await self._mail_reset(
            tx,
            user,
            await self._on.tokens.issue(tx, RESET, user.id, ttl=life, data=data),
            "You have confirmed your e-mail address. There was more than one sign-up with it, so that no "
            "password counts that was given then: choose yours now.",
        )

    async def sign_in(self, exchange: Exchange, *, email: str, password: str, lasting: bool = True) -> UserSession[Any]:
        """Start a session, its cookie being put on the response; with `lasting` it outlives the browser.

        One 401 for an unknown address, a wrong password, a suspended user and an unproven address, after the same
        work (attack ENUM-01). Asks no more of a password than that it is short enough to be one.
        """
        address = read_email(email)
        normalized = normalize(password, self._settings)
        async with self._on.sign_in.attempt(address.text, exchange) as attempt:
            async with self._database.read() as tx:
                found = await store.find(tx, email_key=address.key)
            verdict = await self._hashing.verify(None if found is None else found.hash, normalized, typed=password)
            outcome: UserSession[Any] | Pending | Refused
            if found is None:
                outcome = attempt.refuse("no such user")
            elif not verdict.correct:
                outcome = attempt.refuse("wrong password", user_id=found.user_id)
            else:
                outcome = await attempt.enter(partial(self._proof, found=found, verdict=verdict, lasting=lasting))
        if not isinstance(outcome, UserSession):
            raise outcome.error()
        return outcome

    async def _proof(self, tx: Transaction, found: Found, verdict: Verdict, *, lasting: bool) -> Proof | Unproven:
        """Return the proof that the right password is, if it still is the right one."""
        if not await self._still(tx, found, verdict):
            return Unproven(cause="the password was changed meanwhile", user_id=found.user_id)
        return Proof(user_id=found.user_id, amr=("pwd",), lasting=lasting)

    async def prove(self, user_id: str, password: str, *, exchange: Exchange, field: str = "password") -> None:
        """Return if it is the user's password; 401 otherwise. Implements `users.proof.PasswordProof`."""
        found, verdict = await self._prove(user_id, password, exchange, field)
        if verdict.replacement is not None:
            await self._database.run(partial(self._still, found=found, verdict=verdict))

    async def change(
        self, exchange: Exchange, session: UserSession[Any], *, current_password: str, new_password: str
    ) -> None:
        """Set another password, which takes the current one (attack PW-14).

        All other sessions end and this one gets a new secret; the user is told by mail.
        """
        user = session.user
        normalized = normalize(new_password, self._settings, field="new_password")
        found, _ = await self._prove(user.id, current_password, exchange, "current_password")
        self._policy.check(normalized, context=(user.email, user.name), field="new_password")
        encoded = await self._hashing.hash(normalized)
        await self._database.run(partial(self._change, session=session, exchange=exchange, old=found, new=encoded))

    async def _change(
        self, tx: Transaction, session: UserSession[Any], exchange: Exchange, *, old: Found, new: str
    ) -> None:
        user, now = session.user, self._on.clock.time()
        await self._on.users.password_changes(tx, user.id)
        if not await store.replace(tx, user.id, old=old.hash or "", new=new, now=now):
            raise invalid_credentials("the password was changed meanwhile").error()
        await self._on.sessions.revoke_all(tx, user.id, keep=session.id, reason="password-changed")
        # The user has just given the old one: a proof. Access tokens from before it are invalid now.
        await self._on.sessions.rotate(tx, exchange, amr=("pwd",))
        await self._changed(tx, user, reason="change")

    async def forgot(self, *, email: str) -> None:
        """Mail a reset link, if the address is a user's.

        Writes the same one row for every address; the look-up runs later, in the outbox, so that the time of the
        response does not tell whether the account exists (attack ENUM-04).
        """
        address = read_email(email)
        async with self._database.transaction() as tx:
            tx.record(PasswordResetRequested(email_key=address.key))

    async def send_reset(self, event: PasswordResetRequested) -> None:
        """Mail the link asked for. Listens to PasswordResetRequested.

        A repeat mails a new link and voids the old, but not within the first half of its life: a stranger who asks must
        not keep the owner from the link that is about to be opened.
        """
        async with self._on.quota.spend("reset", event.email_key) as allowed:
            if allowed:
                await self._database.run(lambda tx: self._send_reset(tx, event.email_key))

    async def _send_reset(self, tx: Transaction, email_key: str) -> None:
        user = await self._on.users.find_by_email(tx, email_key)
        if user is None or user.suspended_at is not None:
            return
        life, data = self._settings.reset_life, {"email": user.email}
        token = await self._on.tokens.issue_unless_pending(tx, RESET, user.id, ttl=life, left=life / 2, data=data)
        if token is None:
            return
        await self._mail_reset(
            tx,
            user,
            token,
            "We were asked, hopefully by you, to reset your password.",
            "If it was not you, ignore this mail: your password stays as it is.",
        )

    async def _mail_reset(self, tx: Transaction, user: Any, token: str, why: str, *more: str) -> None:
        minutes = max(int(self._settings.reset_life.total_seconds() // 60), 1)
        # To the stored address, not to the one typed: a case twin is another mailbox (attack ML-11).
        message = self._on.composer.write(
            user.email,
            "Choose a new password",
            f"{why} The link works once, for {minutes} minutes.",
            *more,
            link=self._on.composer.link(RESET_PATH, token=token),
            label="Choose a new password",
            name=user.name if user.email_verified else "",
        )
        await self._on.mails.queue(tx, message)

    async def reset(self, *, token: str, password: str) -> None:
        """Set another password with the token of a reset link. All sessions end; starts none.

        So a second factor is still asked for (ASVS v5.0.0-6.4.3). A password that is refused leaves the token whole.
        """
        normalized = normalize(password, self._settings)
        # A look first: a made-up token makes us hash nothing.
        async with self._database.read() as tx:
            looked_at = await self._on.tokens.peek(tx, RESET, token)
            user = None if looked_at is None else await self._on.users.get(tx, looked_at.user_id)
        if user is None:
            raise LINK_EXPIRED().error()
        self._policy.check(normalized, context=(user.email, user.name))
        encoded = await self._hashing.hash(normalized)
        await self._database.run(lambda tx: self._reset(tx, token, encoded))

    async def _reset(self, tx: Transaction, token: str, encoded: str) -> None:
        redeemed = await self._on.tokens.redeem(tx, RESET, token)
        user = None if redeemed is None else await self._on.users.get(tx, redeemed.user_id)
        # Bound to the address it was mailed to: after a change of address it is void (attack ML-15).
        if redeemed is None or user is None or user.suspended_at is not None or user.email != redeemed.data["email"]:
            raise LINK_EXPIRED().error()
        await self._on.users.password_changes(tx, user.id)
        await self._put(tx, user.id, encoded)
        await self._on.tokens.void(tx, user.id, CONTESTED)
        email = parse_email(user.email)
        if not user.email_verified and email is not None:
            await self._on.users.verify_email(tx, user.id, email)
        await self._on.sessions.revoke_all(tx, user.id, reason="password-reset")
        await self._changed(tx, user, reason="reset")

    async def _prove(self, user_id: str, password: str, exchange: Exchange, field: str) -> tuple[Found, Verdict]:
        normalized = normalize(password, self._settings, field=field)
        async with self._database.read() as tx:
            found = await store.find(tx, user_id=user_id)
        async with self._on.sign_in.attempt("" if found is None else found.email, exchange) as attempt:
            verdict = await self._hashing.verify(None if found is None else found.hash, normalized, typed=password)
            if found is None or not verdict.correct:
                raise attempt.refuse("wrong password", user_id=None if found is None else found.user_id).error()
            await attempt.confirm()
        return found, verdict

    async def _still(self, tx: Transaction, found: Found, verdict: Verdict) -> bool:
        """Return whether the hash that was verified is the stored one, and renew it if it is outdated."""
        encoded = found.hash or ""
        if verdict.replacement is not None:
            return await store.replace(tx, found.user_id, old=encoded, new=verdict.replacement)
        return await store.holds(tx, found.user_id, encoded=encoded)

    async def _put(self, tx: Transaction, user_id: str, encoded: str) -> None:
        await store.put(tx, self._database.dialect, user_id, encoded, now=self._on.clock.time())

    async def _changed(self, tx: Transaction, user: Any, *, reason: str) -> None:
        """Tell the world and the user (ASVS v5.0.0-6.3.7)."""
        tx.record(PasswordChanged(user_id=user.id, reason=reason))
        tx.after_commit(lambda: note("password-changed", user=user.id, reason=reason))
        message = self._on.composer.write(
            user.email,
            "Your password was changed",
            "Your password was just changed, and all other browsers were signed out.",
            "If it was not you, choose a new password at once:",
            link=self._on.composer.link(FORGOT_PATH),
            label="Reset the password",
            name=user.name if user.email_verified else "",
        )
        await self._on.mails.queue(tx, message)

    async def _tell_owner(self, tx: Transaction, owner: Any) -> None:
        message = self._on.composer.write(
            owner.email,
            "You have an account already",
            "We were asked, perhaps by you, to open an account with this address. You have one already.",
            "If you forgot your password, you can reset it. If it was not you, ignore this mail.",
            link=self._on.composer.link(FORGOT_PATH),
            label="Reset the password",
            name=owner.name if owner.email_verified else "",
        )
        await self._on.mails.queue(tx, message)
