"""What may be set about API keys."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from routeguard.core.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKeySettings:
    """How API keys are kept.

    `maximum` is how many live keys an owner may have. `overlap` is the longest time an old secret may be asked to
    work on after a rotation. Uses are counted in memory and written every `flush`. `failures` is how often an
    address may present a key that is none.
    """

    maximum: int = 50
    overlap: timedelta = timedelta(days=7)
    flush: timedelta = timedelta(seconds=5)
    failures: str = "10/minute"

    def __post_init__(self) -> None:
        """Refuse settings that contradict each other. Raises ConfigError with all of them."""
        findings = ["api_keys.maximum must be at least 1"] if self.maximum < 1 else []
        findings += [f"api_keys.{name} must be positive" for name in ("flush",) if getattr(self, name) <= timedelta(0)]
        if findings:
            raise ConfigError(findings)
