"""What may be set about mail."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class MailSettings:
    """Where mail goes.

    `url` is `console://` (printed; development only), `smtp://user:password@host:587` (STARTTLS) or
    `smtps://...` (TLS from the start). `sender` is the address mail comes from.
    """

    url: str = field(default="console://", repr=False)
    sender: str = "Routeguard <no-reply@localhost>"
