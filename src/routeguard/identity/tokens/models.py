"""What may be set about access and refresh tokens."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from routeguard.core.errors import ConfigError
from routeguard.core.events import Event

ALGORITHMS: Final = ("EdDSA", "ES256", "RS256", "HS256")


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenSettings:
    """How tokens are made.

    `algorithm` signs access tokens: EdDSA, ES256, RS256, or HS256, whose tokens only this service can verify.
    `audience` is who they are for (the issuer unless said). `refresh` is how long an unused refresh token lives; its
    session's end ends it too. Within `grace` after its use, the same client gets the same successor again; within
    `retry` likewise, for clients whose network loses answers. Both end when the successor is used. A signing key is
    replaced every `rotation`; the next one is published `publish_ahead` before it signs.
    """

    algorithm: str = "EdDSA"
    audience: str = ""
    access: timedelta = timedelta(minutes=15)
    refresh: timedelta = timedelta(days=7)
    grace: timedelta = timedelta(seconds=5)
    retry: timedelta = timedelta(0)
    rotation: timedelta = timedelta(days=30)
    publish_ahead: timedelta = timedelta(minutes=10)

    def __post_init__(self) -> None:
        """Refuse settings that are unsafe or contradict each other. Raises ConfigError with all of them."""
        findings = [
            f"tokens.{name} must be positive"
            for name in ("access", "refresh", "rotation", "publish_ahead")
            if getattr(self, name) <= timedelta(0)
        ]
        if self.algorithm not in ALGORITHMS:
            findings.append(f"tokens.algorithm must be one of {', '.join(ALGORITHMS)}")
        if self.access > timedelta(hours=1):
            findings.append("tokens.access is over an hour: that long others would accept one after a sign-out")
        if not timedelta(0) <= self.grace <= timedelta(seconds=10):
            findings.append("tokens.grace must be between 0 and 10 seconds: longer hides a thief")
        if not timedelta(0) <= self.retry <= timedelta(days=1):
            findings.append("tokens.retry must be between 0 and 1 day: as long a copied token would go unnoticed")
        if self.publish_ahead >= self.rotation:
            findings.append("tokens.publish_ahead must be shorter than tokens.rotation")
        if findings:
            raise ConfigError(findings)


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshTokenReused(Event):
    """A refresh token that was spent came again: there is a copy of it. Its family and session ended; once a family."""

    user_id: str
    session_id: str
    client_id: str
