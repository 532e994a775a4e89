"""A message, and the protocol of a sender."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Protocol

from routeguard.core.problem import VALIDATION_FAILED
from routeguard.foundation.mail.addresses import parse_email

# What ends a header line, for any reader; joiners, which names and emoji are written with, do not.
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A mail to one person. `html`, when given, says the same as `text`.

    Raises ProblemError 422 for a control character in an address, a name or the subject (attack ML-12), and for an
    address that `parse_email` refuses.
    """

    to: str
    subject: str
    text: str
    html: str | None = None
    name: str = ""

    def __post_init__(self) -> None:
        bad = [
            {"pointer": f"/{field}", "detail": "must not hold control characters"}
            for field in ("to", "subject", "name")
            if _CONTROL.search(getattr(self, field))
        ]
        if not bad and parse_email(self.to) is None:
            bad = [{"pointer": "/to", "detail": "is not an address"}]
        if bad:
            raise VALIDATION_FAILED(errors=bad).error()


class Mailer(Protocol):
    """Sends a message, or raises; then it is tried again later."""

    async def send(self, message: Message) -> None:
        """Hand the message over. Raises OSError or a driver's error when that failed."""
        ...
