"""What may be set about a guard whose identity service runs elsewhere."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

from routeguard.core.errors import ConfigError
from routeguard.core.ports import PORT_RANGE, port_of


@dataclass(frozen=True, slots=True)
class ClientTls:
    """The certificate and key (PEM files) an app shows the service, and the CA that signed the service's own.

    Without `ca` the system's authorities count. Nothing of the key shows in `repr`.
    """

    certificate: str
    key: str = field(repr=False)
    ca: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteSettings:
    """How an app asks its identity service; nothing here is used by the service itself.

    `timeout` is how long one call may take. `offline` is how long, after the service was last heard of, access tokens
    verified here still count; what else is remembered counts for `sessions.trust`. `issuer` is who signs the tokens,
    when the service is called by another URL than its issuer's. `unsafe_http` permits http to another machine, inside
    a network you trust.
    """

    timeout: timedelta = timedelta(seconds=2)
    offline: timedelta = timedelta(minutes=15)
    issuer: str = ""
    unsafe_http: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be. Raises ConfigError with all of it."""
        findings: list[str] = []
        if not timedelta(0) < self.timeout <= timedelta(seconds=30):
            findings.append("remote.timeout must be positive and at most 30 seconds")
        if not timedelta(0) <= self.offline <= timedelta(hours=1):
            findings.append("remote.offline is at most an hour: that long a lost feed would keep what was revoked")
        try:
            port_of(self.issuer)
        except ValueError:
            findings.append(f"remote.issuer: {PORT_RANGE}")
        if findings:
            raise ConfigError(findings)
