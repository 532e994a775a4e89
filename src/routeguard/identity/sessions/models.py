"""What a session is, what may be set about it, and what happens to it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Generic, NewType, Protocol, TypeVar

import msgspec

from routeguard.core.errors import ConfigError
from routeguard.core.events import Event
from routeguard.core.principal import Assurance

if TYPE_CHECKING:
    from routeguard.core.exchange import Exchange

SessionId = NewType("SessionId", str)
"""`ses_` and 128 random bits: names a session to its owner. Knowing it grants nothing."""

COOKIE_NAME: Final = "__Host-routeguard"
PLAIN_COOKIE_NAME: Final = "routeguard"
"""Only where a browser would refuse the prefix: an issuer that is http on loopback. Decided once, at start-up: were
both accepted, a neighbour on http could plant the plain one (attack SES-34)."""

U = TypeVar("U")


@dataclass(frozen=True, slots=True)
class UserSession(Generic[U]):
    """A signed-in user: the principal of every route guarded by a session.

    `user` is the application's user record as of at most `SessionSettings.envelope_life` ago, and never older than
    a change of role or suspension. `organization` and `role` are those of the session; `role` here is the role in
    the organization and never the site-wide `user.role`. `expires_at` is the absolute end, fixed at sign-in.
    """

    id: SessionId
    user: U
    created_at: datetime
    authenticated_at: datetime
    expires_at: datetime
    organization: Any = None
    role: str | None = None
    assurance: Assurance = field(default_factory=Assurance)
    lasting: bool = True
    """Whether its cookies outlive the browser: the user asked to stay signed in."""

    @property
    def principal_id(self) -> str:
        """The user's id: quotas and ownership count the person, not the browser."""
        user: Any = self.user
        return str(user.id)


class SessionState(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What is stored about a session, but for its secret. Times are seconds since the epoch (UTC)."""

    user_id: str
    id: str
    created_at: float
    authenticated_at: float
    last_seen_at: float
    idle_expires_at: float
    expires_at: float
    amr: str
    """Authentication methods (RFC 8176), separated by spaces."""
    aal: int
    lasting: bool = True
    """Whether its cookies outlive the browser, until they expire."""

    @property
    def ends_at(self) -> float:
        """When it ends unless it is used."""
        return min(self.idle_expires_at, self.expires_at)

    def session(self, user: U) -> UserSession[U]:
        """Return the principal it makes of `user`."""
        authenticated_at = datetime.fromtimestamp(self.authenticated_at, UTC)
        return UserSession(
            id=SessionId(self.id),
            user=user,
            created_at=datetime.fromtimestamp(self.created_at, UTC),
            authenticated_at=authenticated_at,
            expires_at=datetime.fromtimestamp(self.expires_at, UTC),
            assurance=Assurance(self.aal, tuple(self.amr.split()), authenticated_at),
            lasting=self.lasting,
        )


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """A live session as its owner sees it in the list. Holds nothing that grants access."""

    id: SessionId
    created_at: datetime
    last_seen_at: datetime
    expires_at: datetime
    user_agent: str | None
    address: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSettings:
    """How long sessions live.

    `idle` ends an unused session; `absolute` ends every session, used or not (ASVS v5.0.0-7.3.1, 7.3.2).
    `envelope_life` is how long a signed cookie answers without the store; the other processes learn of a revocation
    by asking every `poll`, and trust what they know for `trust` after the last answer. `skew` is how far clocks of
    two machines may differ. `maximum` is the number of sessions a user may have at once: the one longest unused ends.
    """

    idle: timedelta = timedelta(days=7)
    absolute: timedelta = timedelta(days=30)
    envelope_life: timedelta = timedelta(seconds=60)
    poll: timedelta = timedelta(milliseconds=500)
    trust: timedelta = timedelta(seconds=4)
    skew: timedelta = timedelta(minutes=10)
    maximum: int = 100

    def __post_init__(self) -> None:
        """Refuse settings that contradict each other. Raises ConfigError with all of them."""
        findings = [
            f"sessions.{name} must be positive"
            for name in ("idle", "absolute", "envelope_life", "poll", "trust", "skew")
            if getattr(self, name) <= timedelta(0)
        ]
        if self.idle > self.absolute:
            findings.append("sessions.idle is longer than sessions.absolute")
        if self.envelope_life > timedelta(minutes=5):
            findings.append("sessions.envelope_life is over 5 minutes: that long a lost feed would keep sessions")
        if self.maximum < 1:
            findings.append("sessions.maximum must be at least 1")
        if findings:
            raise ConfigError(findings)


class SessionResolver(Protocol):
    """Finds the session of a request: by our cookie, or by the application's own credential (`identify=`).

    Session policies use only this, so they work without our tables. `user_class` lets field matches be checked at
    start-up; None leaves them unchecked.
    """

    @property
    def user_class(self) -> type[Any] | None:
        """The class of `UserSession.user`."""
        ...

    async def resume(self, exchange: Exchange) -> UserSession[Any] | None:
        """Return the live session, or None when there is none. Raises Unavailable when that cannot be told."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionStarted(Event):
    """A user signed in."""

    session_id: str
    user_id: str
    address: str | None
    user_agent: str | None
    amr: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionEnded(Event):
    """A session was ended on purpose.

    `reason` is sign-out, revoked, replaced, too-many, user-changed, password-changed or token-reused.
    """

    session_id: str
    user_id: str
    reason: str
