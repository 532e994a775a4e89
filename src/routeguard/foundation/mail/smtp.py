"""Mail through an SMTP server."""

from __future__ import annotations

from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

import aiosmtplib

from routeguard.core.address import is_loopback
from routeguard.core.errors import ConfigError
from routeguard.core.ports import PORT_RANGE, port_of
from routeguard.foundation.mail.addresses import parse_sender

if TYPE_CHECKING:
    import ssl

    from routeguard.foundation.mail.models import MailSettings
    from routeguard.foundation.mail.protocol import Message

_SECONDS: Final = 20.0
_FORM: Final = "mail.url must be console://, smtp://host:port or smtps://host:port"


class SmtpMailer:
    """Sends by `smtp://` (STARTTLS, required off this machine) or `smtps://`. Certificates are verified (RFC 8314).

    `tls` replaces the system's certificate authorities. Raises ConfigError for an address it cannot use.
    """

    def __init__(self, settings: MailSettings, *, tls: ssl.SSLContext | None = None) -> None:
        try:
            parts = urlsplit(settings.url)
        except ValueError:
            raise ConfigError(_FORM) from None
        try:
            port = port_of(settings.url)
        except ValueError:
            raise ConfigError(f"mail.url: {PORT_RANGE}") from None
        if parts.scheme not in {"smtp", "smtps"} or not parts.hostname:
            raise ConfigError(_FORM)
        sender = parse_sender(settings.sender)
        if sender is None:
            raise ConfigError("mail.sender must be an address such as 'Example <no-reply@example.com>'")
        name, address = sender
        local, _, domain = address.text.rpartition("@")
        self._sender = Address(name, local, domain)
        self._host = parts.hostname
        self._tls = parts.scheme == "smtps"
        self._context = tls
        self._port = port or (465 if self._tls else 587)
        self._username = unquote(parts.username) if parts.username else None
        self._password = unquote(parts.password) if parts.password else None
        # Links that sign people in do not cross a network in clear; on this machine there is none to cross.
        self._start_tls = None if self._tls else (not is_loopback(parts.hostname) or None)

    async def send(self, message: Message) -> None:
        """Send. Raises aiosmtplib.SMTPException or OSError; the outbox tries again."""
        mail = EmailMessage()
        mail["From"] = self._sender
        local, _, domain = message.to.rpartition("@")
        mail["To"] = Address(message.name, local, domain)
        mail["Subject"] = message.subject
        mail["Date"] = formatdate(localtime=False)
        mail["Message-ID"] = make_msgid(domain=self._sender.domain)
        mail["Auto-Submitted"] = "auto-generated"
        mail.set_content(message.text)
        if message.html is not None:
            mail.add_alternative(message.html, subtype="html")
        await aiosmtplib.send(
            mail,
            hostname=self._host,
            port=self._port,
            username=self._username,
            password=self._password,
            use_tls=self._tls,
            start_tls=False if self._tls else self._start_tls,
            timeout=_SECONDS,
            validate_certs=True,
            tls_context=self._context,
        )
