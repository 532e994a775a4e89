"""Proof that a user reads the mail of the address."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from routeguard.identity.users.addresses import Email, parse_email

if TYPE_CHECKING:
    from routeguard.foundation.db.database import Transaction
    from routeguard.foundation.mail.queue import MailQueue
    from routeguard.identity.users.composer import EmailComposer
    from routeguard.identity.users.one_time import OneTimeTokens
    from routeguard.identity.users.service import Users

PURPOSE: Final = "email-verify"
_RESENT_AFTER: Final = timedelta(minutes=5)
PATH: Final = "/auth/email/verify"


class EmailVerification:
    """Mails the link that proves an address, and takes the proof."""

    def __init__(self, users: Users[Any], tokens: OneTimeTokens, mails: MailQueue, *, composer: EmailComposer) -> None:
        self._users = users
        self._tokens = tokens
        self._mails = mails
        self._composer = composer

    async def send_unless_pending(self, tx: Transaction, user: Any, *, resend: bool = False) -> None:
        """Mail a link for the user's address unless one is under way that works: no number of calls floods a mailbox.

        With `resend`, unless one is under way of the last five minutes (or half a life): asking again mails a new link,
        but a stranger who asks does not void the one its owner is about to open.
        """
        life = self._users.settings.verification_life
        left = life - min(_RESENT_AFTER, life / 2) if resend else timedelta(0)
        token = await self._tokens.issue_unless_pending(
            tx, PURPOSE, user.id, ttl=life, left=left, data={"email": user.email}
        )
        if token is None:
            return
        message = self._composer.write(
            user.email,
            "Confirm your e-mail address",
            "Please confirm that this is your e-mail address.",
            "If you did not ask for an account, ignore this mail.",
            link=self._composer.link(PATH, token=token),
            label="Confirm this address",
        )
        await self._mails.queue(tx, message)

    async def redeem(self, tx: Transaction, token: str) -> bool:
        """Take a proof. False for a link that no longer counts, or an address the user no longer has (attack ML-15)."""
        redeemed = await self._tokens.redeem(tx, PURPOSE, token)
        if redeemed is None:
            return False
        proven: Email | None = parse_email(redeemed.data["email"])
        return proven is not None and await self._users.verify_email(tx, redeemed.user_id, proven)
