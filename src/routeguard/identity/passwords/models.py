"""What may be set about passwords, and what happens to them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from routeguard.core.errors import ConfigError
from routeguard.core.events import Event


@dataclass(frozen=True, slots=True, kw_only=True)
class PasswordSettings:
    """How passwords are chosen, hashed and reset.

    `minimum_length` and `maximum_length` are in characters after normalisation. There is no other rule of
    composition, no expiry and no hint (NIST SP 800-63B-4 section 3.1.1.2, attack PW-08). `context_words` are refused
    as the core of a password, beside the host name and the user's own name and address.

    The hash is argon2id with `time_cost` passes over `memory` KiB in `parallelism` lanes (OWASP: 2, 19 MiB, 1).
    `workers` hashes run at once (0: one for each core), and `queue` more may wait; what is over is refused with 503.
    `reset_life` is how long a mailed reset link works (ASVS v5.0.0-6.5.5).
    """

    minimum_length: int = 8
    advised_length: int = 15
    maximum_length: int = 1024
    context_words: tuple[str, ...] = ("routeguard",)
    time_cost: int = 2
    memory: int = 19 * 1024
    parallelism: int = 1
    workers: int = 0
    queue: int = 64
    reset_life: timedelta = timedelta(minutes=10)

    def __post_init__(self) -> None:
        findings: list[str] = []
        if self.minimum_length < 8:
            findings.append("passwords.minimum_length must be at least 8 (ASVS v5.0.0-6.2.1)")
        if not max(64, self.minimum_length) <= self.maximum_length <= 4096:
            findings.append("passwords.maximum_length must be between 64 and 4096 (ASVS v5.0.0-6.2.9)")
        if self.time_cost < 1 or self.parallelism < 1 or self.memory < 8 * self.parallelism:
            findings.append("passwords.time_cost and parallelism must be positive, memory at least 8 KiB a lane")
        if self.workers < 0 or self.queue < 1:
            findings.append("passwords.workers must not be negative, and queue must be positive")
        if self.reset_life <= timedelta(0):
            findings.append("passwords.reset_life must be positive")
        if findings:
            raise ConfigError(findings)


@dataclass(frozen=True, slots=True, kw_only=True)
class PasswordChanged(Event):
    """A user has another password: `reason` is change or reset."""

    user_id: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedUp(Event):
    """A sign-up came: it `made` an account, or found that there is one. Mailed about from the outbox."""

    email_key: str
    made: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PasswordResetRequested(Event):
    """A caller asked for a reset link for an address that may or may not be a user's.

    Handled from the outbox, so that the request does the same work either way (attack ENUM-04).
    """

    email_key: str
