"""What happens to addresses."""

from __future__ import annotations

from dataclasses import dataclass

from routeguard.core.events import Event


@dataclass(frozen=True, slots=True, kw_only=True)
class VerificationRequested(Event):
    """A caller asked for a new link to prove an address that may or may not be a user's.

    Handled from the outbox, so that the request does the same work either way (attack ENUM-04).
    """

    email_key: str
