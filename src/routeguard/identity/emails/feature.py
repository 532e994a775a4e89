"""What addresses contribute to the identity service."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from routeguard.core.endings import Ending
from routeguard.core.feature import Feature
from routeguard.foundation.db.database import Database
from routeguard.foundation.mail.queue import MailQueue
from routeguard.identity.emails.models import VerificationRequested
from routeguard.identity.emails.routes import routes
from routeguard.identity.emails.service import CHANGE, Emails
from routeguard.identity.emails.step import VerifiedEmailRequired
from routeguard.identity.users.composer import EmailComposer
from routeguard.identity.users.one_time import OneTimeTokens
from routeguard.identity.users.proof import PasswordProof
from routeguard.identity.users.quota import MailQuota
from routeguard.identity.users.service import Users
from routeguard.identity.users.verification import EmailVerification

if TYPE_CHECKING:
    from routeguard.core.setup import Setup


def set_up(setup: Setup) -> None:
    """Register `Emails`, and ask for proven addresses where the settings say so."""
    services, settings = setup.services, setup.deployment
    emails = Emails(
        services.get(Database),
        services.get(Users),
        tokens=services.get(OneTimeTokens),
        verification=services.get(EmailVerification),
        mails=services.get(MailQueue),
        composer=services.get(EmailComposer),
        proof=services.get(PasswordProof),
        quota=services.get(MailQuota),
    )
    services.add(Emails, emails)
    # An attacker who knew the old password may have asked for the change.
    setup.purpose(CHANGE, ends_with={Ending.PASSWORD, Ending.EMAIL, Ending.SUSPENSION})
    setup.on(VerificationRequested, emails.send_again)
    if settings.users.verified_email_required(production=settings.production):
        setup.sign_in_step(VerifiedEmailRequired())


feature: Final = Feature(
    name="emails", requires=("passwords",), setup=set_up, routes=routes, events=(VerificationRequested,)
)
