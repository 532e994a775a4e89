"""What a registered client is, and what may be set about clients."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from urllib.parse import urlsplit

from routeguard.core.errors import ConfigError
from routeguard.core.ports import PORT_RANGE, port_of
from routeguard.core.rate import parse_rate

NAME_LENGTH: Final = 100


@dataclass(frozen=True, slots=True)
class Client:
    """A service that may ask the identity service, as an operator sees it. Nothing here signs anything.

    `previous_until` is when the secret of before the last rotation stops working; None when it works no more.
    """

    id: str
    name: str
    created_at: datetime
    previous_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class ClientPrincipal:
    """The caller of a route guarded by `signed_client()`: a service, without a user's session."""

    id: str
    name: str

    @property
    def principal_id(self) -> str:
        """`cli_` and 128 random bits: never to be taken for a user's id (RFC 9700 section 4.15)."""
        return self.id


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSettings:
    """How other services call this one.

    `addresses` are origins, beside the issuer's, under which they reach it, such as an internal name: a signature
    counts for the address it was made for. `rate` is how often one client may call each endpoint. `skew` is how far
    its clock may be ahead of ours; the life of a signature, a minute, is all that one behind has.
    """

    addresses: tuple[str, ...] = ()
    rate: str = "60000/minute"
    skew: timedelta = timedelta(seconds=30)

    def __post_init__(self) -> None:
        """Refuse what cannot be. Raises ConfigError with all of it."""
        findings: list[str] = []
        for address in self.addresses:
            try:
                port_of(address)
            except ValueError:
                findings.append(f"clients.addresses: {address!r}: {PORT_RANGE}")
                continue
            parts = urlsplit(address)
            if parts.scheme not in {"http", "https"} or f"{parts.scheme}://{parts.netloc}" != address or "@" in address:
                findings.append(f"clients.addresses: {address!r} must be scheme://host[:port]")
        try:
            parse_rate(self.rate)
        except ConfigError as error:
            findings += [f"clients.rate: {finding}" for finding in error.findings]
        if not timedelta(0) < self.skew <= timedelta(minutes=5):
            findings.append("clients.skew must be positive and at most 5 minutes")
        if findings:
            raise ConfigError(findings)
