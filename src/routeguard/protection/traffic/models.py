"""What may be set about the limits that identity routes have by default, and about guesses at passwords."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import timedelta
from typing import Final

from routeguard.core.errors import ConfigError
from routeguard.core.rate import parse_rate

OFF: Final = "off"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficSettings:
    """How often identity routes may be called from one address, each written "20/minute", or "off" for no limit.

    `sign_in` is for signing in, `sign_up` for opening an account, `refresh` for new tokens; every other operation has
    a budget of `identity` of its own. The burst is the whole limit, for `refresh` at most 60. Slowing down guesses at
    one account is apart from these, and stays on.
    """

    sign_in: str = "20/minute"
    sign_up: str = "30/hour"
    identity: str = "120/minute"
    refresh: str = "300/minute"

    def __post_init__(self) -> None:
        """Raise ConfigError with every rate that cannot be read."""
        findings: list[str] = []
        for field in fields(self):
            rate: str = getattr(self, field.name)
            if rate == OFF:
                continue
            try:
                parse_rate(rate)
            except ConfigError as error:
                findings += [f"traffic.{field.name}: {finding}, nor 'off'" for finding in error.findings]
        if findings:
            raise ConfigError(findings)


@dataclass(frozen=True, slots=True, kw_only=True)
class ThrottleSettings:
    """When guesses at passwords get slow.

    `free` tries of one account fail without a delay; then each must wait 30 s, after some more 2 minutes, then
    10, and never longer than `longest_delay`. `address_burst` tries from one address fail before it must slow down to
    `address_hourly` an hour.
    """

    free: int = 10
    longest_delay: timedelta = timedelta(minutes=15)
    address_burst: int = 100
    address_hourly: int = 100

    def __post_init__(self) -> None:
        """Refuse what would lock every user out, or none. Raises ConfigError with every finding."""
        findings = [
            f"throttle.{name} must be at least 1"
            for name in ("free", "address_burst", "address_hourly")
            if getattr(self, name) < 1
        ]
        if not timedelta(seconds=1) <= self.longest_delay <= timedelta(hours=1):
            findings.append("throttle.longest_delay must be between a second and an hour: longer is a lock")
        if findings:
            raise ConfigError(findings)
