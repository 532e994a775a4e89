"""Addresses are proven by a mailed link, and changed only to one that is proven."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from routeguard.foundation.db.errors import UniqueViolation
from routeguard.identity.emails.models import VerificationRequested
from routeguard.identity.sessions import store as sessions
from routeguard.identity.users import verification
from routeguard.identity.users.addresses import Email, parse_email, read_email
from routeguard.identity.users.problems import LINK_EXPIRED

if TYPE_CHECKING:
    from routeguard.core.exchange import Exchange
    from routeguard.foundation.db.database import Database, Transaction
    from routeguard.foundation.mail.queue import MailQueue
    from routeguard.identity.sessions.models import UserSession
    from routeguard.identity.users.composer import EmailComposer
    from routeguard.identity.users.one_time import OneTimeTokens
    from routeguard.identity.users.proof import PasswordProof
    from routeguard.identity.users.quota import MailQuota
    from routeguard.identity.users.service import Users
    from routeguard.identity.users.verification import EmailVerification

CHANGE: Final = "email-change"
"""The purpose of tokens that prove a new address."""
_CHANGE_LIFE: Final = timedelta(hours=1)


class Emails:
    """Proves and changes addresses. Raises ProblemError: 400 link-expired, 401 invalid-credentials, 422, 429, 503."""

    def __init__(
        self,
        database: Database,
        users: Users[Any],
        *,
        tokens: OneTimeTokens,
        verification: EmailVerification,
        mails: MailQueue,
        composer: EmailComposer,
        proof: PasswordProof,
        quota: MailQuota,
    ) -> None:
        self._database = database
        self._users = users
        self._tokens = tokens
        self._verification = verification
        self._mails = mails
        self._composer = composer
        self._proof = proof
        self._quota = quota

    async def verify(self, token: str) -> None:
        """Take the proof of a first address or of a new one; the token is used up."""
        try:
            proven = await self._database.run(partial(self._verify, token=token))
        except UniqueViolation:
            # Taken since the link was mailed. Its holder reads that mailbox, but the other account had it first.
            proven = False
        if not proven:
            raise LINK_EXPIRED().error()

    async def _verify(self, tx: Transaction, token: str) -> bool:
        if await self._verification.redeem(tx, token):
            return True
        redeemed = await self._tokens.redeem(tx, CHANGE, token)
        user = None if redeemed is None else await self._users.get(tx, redeemed.user_id)
        if redeemed is None or user is None or user.suspended_at is not None:
            return False
        address = parse_email(redeemed.data["email"])
        # Asked for under another address: a change in between won, and there is one final value (attack ML-17).
        if address is None or redeemed.data["old"] != user.email:
            return False
        # A thief's change ends with the stolen session: by sign-out everywhere, a new password, or a look at /account.
        if await sessions.find(tx, user.id, redeemed.data["session"]) is None:
            return False
        await self._users.set_email(tx, user.id, address)
        await self._tell_old(tx, user)
        return True

    async def change(self, exchange: Exchange, session: UserSession[Any], *, email: str, password: str) -> None:
        """Mail a link to the new address; nothing changes until it is opened. Takes the password.

        The old address is told at once, and the link works for as long as the session that asked for it.
        Alike for an address that is another user's, who is told by mail (attack ENUM-05).
        """
        address = read_email(email)
        await self._proof.prove(session.principal_id, password, exchange=exchange)
        async with self._quota.spend("change", address.key) as allowed:
            if allowed:
                await self._database.run(partial(self._change, session=session, address=address))

    async def _change(self, tx: Transaction, session: UserSession[Any], address: Email) -> None:
        user_id = session.principal_id
        user = await self._users.get(tx, user_id)
        owner = await self._users.find_by_email(tx, address)
        if user is None:
            return
        data = {"email": address.text, "old": user.email, "session": session.id}
        token = await self._tokens.issue(tx, CHANGE, user_id, ttl=_CHANGE_LIFE, data=data)
        if owner is not None and owner.id != user_id:
            message = self._composer.write(
                owner.email,
                "Your address is in use already",
                "We were asked to use your e-mail address for another account. Nothing was changed.",
            )
        else:
            message = self._composer.write(
                address.text,
                "Confirm your new e-mail address",
                "Please confirm that this is your new e-mail address. The link works once, for an hour.",
                "If you did not ask for this, ignore this mail.",
                link=self._composer.link(verification.PATH, token=token),
                label="Confirm this address",
            )
        await self._mails.queue(tx, message)
        await self._tell_asked(tx, user)

    async def _tell_asked(self, tx: Transaction, user: Any) -> None:
        """Tell the present address while there still is something to stop (ASVS v5.0.0-6.3.7)."""
        message = self._composer.write(
            user.email,
            "We were asked to change your e-mail address",
            "We were asked, hopefully by you, to give your account another e-mail address. Nothing is changed yet.",
            "If it was not you, choose a new password at once, which also makes the link void that was mailed:",
            link=self._composer.link("/auth/password/forgot"),
            label="Reset the password",
            name=user.name if user.email_verified else "",
        )
        await self._mails.queue(tx, message)

    async def resend(self, *, email: str) -> None:
        """Mail a new link to prove an address, if it is a user's who has not proven it. The same work for all."""
        address = read_email(email)
        async with self._database.transaction() as tx:
            tx.record(VerificationRequested(email_key=address.key))

    async def send_again(self, event: VerificationRequested) -> None:
        """Mail the link asked for, unless one was mailed lately. Listens to VerificationRequested."""
        async with self._quota.spend("verify", event.email_key) as allowed:
            if allowed:
                await self._database.run(partial(self._send_again, email_key=event.email_key))

    async def _send_again(self, tx: Transaction, email_key: str) -> None:
        user = await self._users.find_by_email(tx, email_key)
        if user is not None and user.suspended_at is None and not user.email_verified:
            await self._verification.send_unless_pending(tx, user, resend=True)

    async def _tell_old(self, tx: Transaction, user: Any) -> None:
        """Tell the old address: who lost an account this way learns of it there (ASVS v5.0.0-6.3.7)."""
        message = self._composer.write(
            user.email,
            "Your e-mail address was changed",
            "Your account has another e-mail address now; this one is not used any more.",
            "If it was not you, tell us at once.",
            name=user.name if user.email_verified else "",
        )
        await self._mails.queue(tx, message)
