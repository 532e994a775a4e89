"""What may be set about the connections that `routeguard serve` takes."""

from __future__ import annotations

from dataclasses import dataclass

from routeguard.core.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsSettings:
    """TLS without a proxy in front: files in PEM, read once, when the server starts.

    `certificate` is the chain, its own first, and `key` its private key, without a passphrase. With `client_ca` a
    connection has to show a certificate that one of these authorities signed, or it is not made (RFC 8446 4.3.2).
    """

    certificate: str = ""
    key: str = ""
    client_ca: str = ""

    def __post_init__(self) -> None:
        """Refuse half a pair, and authorities without a certificate of our own. Raises ConfigError."""
        if bool(self.certificate) != bool(self.key):
            raise ConfigError("tls.certificate and tls.key go together")
        if self.client_ca and not self.certificate:
            # It would look like a check and be none: over plain HTTP no certificate is requested.
            raise ConfigError(
                "tls.client_ca needs tls.certificate and tls.key: without TLS no client presents a certificate"
            )
