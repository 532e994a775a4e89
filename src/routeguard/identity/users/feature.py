"""What users contribute to the identity service."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from routeguard.core.changes import Changes
from routeguard.core.clock import Clock
from routeguard.core.endings import Ending
from routeguard.core.errors import ConfigError
from routeguard.core.feature import Feature
from routeguard.core.secret import DeploymentKeys
from routeguard.core.setup import Place
from routeguard.foundation.db.database import Database
from routeguard.foundation.ephemeral.memory import MemoryEphemeral
from routeguard.foundation.ephemeral.protocol import Ephemeral
from routeguard.foundation.mail.queue import MailQueue
from routeguard.identity.users import store
from routeguard.identity.users.composer import EmailComposer
from routeguard.identity.users.models import EVENTS, PasswordChange, UserAdded, UserChange, UserSettings
from routeguard.identity.users.one_time import OneTimeTokens, one_time_tokens
from routeguard.identity.users.problems import PROBLEMS
from routeguard.identity.users.quota import MailQuota
from routeguard.identity.users.reader import UserCodec
from routeguard.identity.users.service import Users
from routeguard.identity.users.store import UserReader
from routeguard.identity.users.verification import PURPOSE, EmailVerification

if TYPE_CHECKING:
    from routeguard.core.setup import Setup


def set_up(setup: Setup[UserSettings]) -> None:
    """Register users, their tokens and letters and the `UserReader` that says which class users have."""
    services, settings = setup.services, setup.deployment
    database, clock = services.get(Database), services.get(Clock)
    services.add(UserSettings, setup.settings)
    services.add(UserReader, UserReader(setup.user_class))
    users = services.add(
        Users,
        Users(database, services.get(UserReader), clock=clock, settings=setup.settings, changes=services.get(Changes)),
    )
    tokens = services.add(OneTimeTokens, OneTimeTokens(database, services.get(DeploymentKeys), clock=clock))
    setup.own(Place.PURPOSE, tokens.purpose)
    setup.purpose(PURPOSE, ends_with={Ending.EMAIL, Ending.SUSPENSION})
    setup.within(UserChange, tokens.on_user_change)
    setup.within(PasswordChange, tokens.on_password_change)
    store = services.find(Ephemeral)
    # Not `or`: an empty store in memory is false.
    services.add(MailQuota, MailQuota(MemoryEphemeral() if store is None else store))
    composer = services.add(EmailComposer, EmailComposer.of(settings.issuer, settings.root_path))
    services.add(EmailVerification, EmailVerification(users, tokens, services.get(MailQueue), composer=composer))


def verify(settings: Any, user_class: type[Any]) -> list[str]:  # noqa: ARG001 - the seam's shape
    """Return what is wrong with the application's class of users."""
    try:
        UserCodec(user_class)
    except ConfigError as error:
        return list(error.findings)
    return []


feature: Final = Feature(
    name="users",
    settings=UserSettings,
    setup=set_up,
    verify=verify,
    tables=(store.users, one_time_tokens),
    migrations=Path(__file__).parent / "migrations",
    problems=PROBLEMS,
    events=EVENTS,
    changes=(UserAdded, UserChange, PasswordChange),
)
