"""Fakes of what a test must be able to set: time, and the keys of a deployment."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from routeguard.core.secret import DeploymentKeys, Secret


def deployment(secret: Secret | bytes = b"k" * 32, *older: Secret, issuer: str = "https://id.example.com"):
    """The keys of a deployment with this secret."""
    return DeploymentKeys(issuer, secret if isinstance(secret, Secret) else Secret(secret), older)


class FakeClock:
    """Both clocks of `core.clock.Clock`, standing still until told otherwise."""

    def __init__(self, start: float = 1_800_000_000.0) -> None:
        self.seconds = start
        self.steady = 1_000.0

    def time(self) -> float:
        return self.seconds

    def monotonic(self) -> float:
        return self.steady

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.seconds, UTC)

    def advance(self, by: float | timedelta) -> None:
        """Let both clocks run."""
        seconds = by.total_seconds() if isinstance(by, timedelta) else by
        self.seconds += seconds
        self.steady += seconds

    def step(self, by: float) -> None:
        """Set the wall clock only, as NTP or an operator does."""
        self.seconds += by


class Unbound:
    """The keys of a deployment as they were derived before they were bound to the issuer."""

    def __init__(self, keys: DeploymentKeys) -> None:
        self.derive = keys.derive_unbound
        self.derive_unbound = keys.derive_unbound
