"""What passwords contribute to the identity service."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from routeguard.core.clock import Clock
from routeguard.core.endings import Ending
from routeguard.core.feature import Feature
from routeguard.core.secret import DeploymentKeys
from routeguard.core.security_log import AccountPseudonyms
from routeguard.foundation.db.database import Database
from routeguard.foundation.mail.queue import MailQueue
from routeguard.identity.passwords import store
from routeguard.identity.passwords.hashing import HashingPool
from routeguard.identity.passwords.models import PasswordChanged, PasswordResetRequested, PasswordSettings, SignedUp
from routeguard.identity.passwords.policy import PasswordPolicy
from routeguard.identity.passwords.problems import PROBLEMS
from routeguard.identity.passwords.routes import routes
from routeguard.identity.passwords.service import CONTESTED, DECOY, RESET, Foundations, Passwords
from routeguard.identity.sessions.service import Sessions
from routeguard.identity.sessions.sign_in import SignIn
from routeguard.identity.users.composer import EmailComposer
from routeguard.identity.users.models import UserChange
from routeguard.identity.users.one_time import OneTimeTokens
from routeguard.identity.users.proof import PasswordProof
from routeguard.identity.users.quota import MailQuota
from routeguard.identity.users.service import Users
from routeguard.identity.users.verification import EmailVerification
from routeguard.protection.traffic.site import site_of

if TYPE_CHECKING:
    from routeguard.core.setup import Setup


def set_up(setup: Setup[PasswordSettings]) -> None:
    """Register `Passwords`, its hashing pool and policy, and the `PasswordProof` other slices ask for."""
    services, settings = setup.services, setup.deployment
    own = setup.settings
    hashing = HashingPool(own)
    services.add(HashingPool, hashing, start=hashing.start, close=hashing.close)
    policy = services.add(PasswordPolicy, PasswordPolicy(own, words=_words(settings.issuer)))
    foundations = Foundations(
        database=services.get(Database),
        clock=services.get(Clock),
        users=services.get(Users),
        tokens=services.get(OneTimeTokens),
        verification=services.get(EmailVerification),
        sessions=services.get(Sessions),
        sign_in=services.get(SignIn),
        mails=services.get(MailQueue),
        composer=services.get(EmailComposer),
        quota=services.get(MailQuota),
        site=site_of(services),
        pseudonyms=AccountPseudonyms(services.get(DeploymentKeys)),
    )
    passwords = Passwords(foundations, settings=own, hashing=hashing, policy=policy)
    services.add(Passwords, passwords, start=passwords.start)
    services.add(PasswordProof, passwords)
    setup.within(UserChange, passwords.on_user_change)
    setup.purpose(RESET, ends_with={Ending.PASSWORD, Ending.EMAIL, Ending.SUSPENSION})
    # About the address, and no link: who can sign in, and changes the password, must not get rid of it.
    for note in (CONTESTED, DECOY):
        setup.purpose(note, ends_with={Ending.EMAIL})
    setup.on(PasswordResetRequested, passwords.send_reset)
    setup.on(SignedUp, passwords.send_sign_up)


def _words(issuer: str) -> tuple[str, ...]:
    """Return the host name, whose words make poor passwords; an address of numbers has none."""
    host = urlsplit(issuer).hostname or ""
    return () if host.replace(".", "").isdigit() else (host,)


feature: Final = Feature(
    name="passwords",
    requires=("sessions",),
    settings=PasswordSettings,
    setup=set_up,
    routes=routes,
    tables=(store.password_hashes,),
    problems=PROBLEMS,
    events=(PasswordChanged, PasswordResetRequested, SignedUp),
)
