"""What an API key is, who verifies one, what may be set about them, and what happens to them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, Literal, Protocol, runtime_checkable

from routeguard.core.errors import ConfigError
from routeguard.core.events import Event
from routeguard.core.rate import parse_rate

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from routeguard.core.address import Address
    from routeguard.core.problem import Problem

ID_PREFIX: Final = "key_"

Privilege = Literal["custom", "demo", "restricted", "protected", "full"]

LADDER: Final[tuple[Privilege, ...]] = ("demo", "restricted", "protected", "full")
"""From the least to the most a key may be for: one passes wherever no more than its own is asked."""
MOST_SCOPES: Final = 50
"""Of one key, and of one question about it."""
_SCOPE: Final = re.compile(r"[A-Za-z0-9_.\-/]{1,40}(?::(?:[A-Za-z0-9_.\-/:]{1,40}|\*))?", re.ASCII)
CUSTOM: Final[Privilege] = "custom"
"""Outside the ladder: for keys whose scopes say what they are for. It passes only where custom is asked."""
PRIVILEGES: Final[tuple[Privilege, ...]] = (CUSTOM, *LADDER)


def are_scopes(scopes: Sequence[str]) -> bool:
    """Return whether these are at most 50 words such as ``reports:read`` or ``reports:*``, fit for a header too."""
    return len(scopes) <= MOST_SCOPES and all(_SCOPE.fullmatch(scope) is not None for scope in scopes)


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """A live API key: the principal of routes guarded by `guard.api_key()`. Holds nothing of the key's secret.

    `user_id` is who made it, `owner_id` whose it is: the same user, or an organization. `networks` are the addresses
    and CIDR ranges it may be used from, all when empty. `remaining` is how many uses are left, None for no end;
    `rate` such as "60/minute". `last_used_at` and `usage_count` are what is written and what this process has counted.

    Its owner sets `privilege` and `scopes`: they limit the key, and prove nothing about the owner.
    """

    id: str
    name: str
    owner_id: str
    user_id: str
    created_at: datetime
    expires_at: datetime | None = None
    last_used_at: datetime | None = None
    usage_count: int = 0
    privilege: Privilege = "demo"
    scopes: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    rate: str | None = None
    remaining: int | None = None
    last_four: str = ""
    revoked_at: datetime | None = None

    @property
    def principal_id(self) -> str:
        """The key's id (`key_`): quotas and the log tell two keys of one owner apart."""
        return self.id

    def has_privilege(self, asked: Privilege) -> bool:
        """Return whether the key's privilege is at least the one asked; `custom` and the ladder never mix."""
        if CUSTOM in {asked, self.privilege}:
            return asked == self.privilege
        return LADDER.index(self.privilege) >= LADDER.index(asked)

    def missing_scopes(self, asked: Iterable[str]) -> tuple[str, ...]:
        """Return the scopes asked that the key has neither by name nor by ``resource:*``."""
        held = frozenset(self.scopes)
        return tuple(scope for scope in asked if scope not in held and f"{scope.partition(':')[0]}:*" not in held)


@runtime_checkable
class KeyVerifier(Protocol):
    """Tells whose an API key is. Checks use only this: the service asks its store, a remote guard asks the service."""

    async def verify(self, key: bytes, *, address: Address | None) -> ApiKey | Problem:
        """Return the key as presented from `address`, and count this use; or why not.

        401 `invalid-api-key` (one body whatever the cause), 403 `network-not-allowed`, 429 `quota-exceeded`.
        Raises Unavailable when it cannot be told.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKeySettings:
    """How API keys are kept.

    `maximum` is how many live keys an owner may have. `overlap` is the longest time an old secret may be asked to
    work on after a rotation. Uses are counted in memory and written every `flush`. `failures` is how often an
    address may present an invalid key. `privileges` are those a key may be given.
    """

    maximum: int = 50
    overlap: timedelta = timedelta(days=7)
    flush: timedelta = timedelta(seconds=5)
    failures: str = "10/minute"
    privileges: tuple[str, ...] = PRIVILEGES

    def __post_init__(self) -> None:
        """Refuse settings that contradict each other. Raises ConfigError with all of them."""
        findings = ["api_keys.maximum must be at least 1"] if self.maximum < 1 else []
        findings += [f"api_keys.{name} must be positive" for name in ("flush",) if getattr(self, name) <= timedelta(0)]
        if self.overlap < timedelta(0):
            findings.append("api_keys.overlap cannot be negative")
        if unknown := sorted(set(self.privileges) - set(PRIVILEGES)):
            findings.append(f"api_keys.privileges: there is no {', '.join(unknown)}")
        try:
            parse_rate(self.failures)
        except ConfigError as error:
            findings += [f"api_keys.failures: {finding}" for finding in error.findings]
        if findings:
            raise ConfigError(findings)


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKeyCreated(Event):
    """An API key was made."""

    key_id: str
    owner_id: str
    user_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKeyRotated(Event):
    """An API key has a new secret; the old one works on until `overlap_until` (seconds since the epoch), if said."""

    key_id: str
    owner_id: str
    overlap_until: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKeyChanged(Event):
    """What an API key may do changed; the names of the fields, never their values."""

    key_id: str
    owner_id: str
    fields: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKeyRevoked(Event):
    """An API key was revoked."""

    key_id: str
    owner_id: str


EVENTS: Final = (ApiKeyCreated, ApiKeyRotated, ApiKeyChanged, ApiKeyRevoked)
