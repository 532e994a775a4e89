"""TLS for the server our commands run, with client certificates where the operator asks for them."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, NoReturn

from routeguard.core.errors import ConfigError

if TYPE_CHECKING:
    from routeguard.foundation.web.models import TlsSettings


def server_context(settings: TlsSettings) -> ssl.SSLContext | None:
    """Return what makes a server speak TLS 1.2 or 1.3, or None for plain HTTP.

    Raises ConfigError for files that cannot be read, do not belong together or are locked by a passphrase.
    """
    if not settings.certificate:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(settings.certificate, settings.key, password=_no_passphrase)
    except (OSError, ValueError) as error:
        raise ConfigError(f"tls: {settings.certificate} and {settings.key} are no pair: {_words(error)}") from None
    if settings.client_ca:
        # Asked for by the server itself: what a proxy says of a certificate is a header, and anybody writes headers.
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            context.load_verify_locations(settings.client_ca)
        except (OSError, ValueError) as error:
            raise ConfigError(f"tls: {settings.client_ca} holds no certificates: {_words(error)}") from None
    return context


def _no_passphrase() -> NoReturn:
    """Refuse to prompt for a passphrase: a server starts by itself."""
    raise ValueError("the key is locked by a passphrase")


def _words(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
