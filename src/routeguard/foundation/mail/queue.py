"""Mail by way of the outbox: sent when, and only when, what it tells of has been committed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from routeguard.core.errors import ConfigError
from routeguard.foundation.mail.console import ConsoleMailer
from routeguard.foundation.mail.protocol import Mailer, Message

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from routeguard.foundation.mail.models import MailSettings

KIND: Final = "mail"


class Rows(Protocol):
    """What mail needs of the outbox; the two are siblings and do not import each other."""

    def handle(self, kind: str, deliver: Callable[[bytes], Awaitable[None]]) -> None:
        """Register what delivers rows of a kind."""
        ...

    async def put(self, tx: Any, kind: str, payload: bytes) -> None:
        """Write a row in a transaction."""
        ...


class MailQueue:
    """Queues mail in the transaction that causes it; a worker sends it, again and again while the server is away."""

    def __init__(self, rows: Rows, mailer: Mailer) -> None:
        self._rows = rows
        self.mailer = mailer
        self._decoder = msgspec.json.Decoder(Message)
        rows.handle(KIND, self._send)

    async def queue(self, tx: Any, message: Message) -> None:
        """Send `message` once `tx` has committed."""
        await self._rows.put(tx, KIND, msgspec.json.encode(message))

    async def _send(self, payload: bytes) -> None:
        await self.mailer.send(self._decoder.decode(payload))


def mailer_for(settings: MailSettings) -> Mailer:
    """Return the mailer a URL names. Raises ConfigError."""
    if settings.url.startswith("console:"):
        return ConsoleMailer()
    try:
        from routeguard.foundation.mail.smtp import SmtpMailer  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        if error.name != "aiosmtplib":
            raise
        raise ConfigError("mail.url: SMTP needs the extra routeguard[mail]") from None
    return SmtpMailer(settings)
