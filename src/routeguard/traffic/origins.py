"""Origins: scheme, host and port, compared as the exact strings browsers send (RFC 6454 section 7)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from routeguard.core.address import parse_address
from routeguard.core.errors import ConfigError
from routeguard.core.ports import PORT_RANGE, is_port

_LABEL: Final = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_ORIGIN: Final = re.compile(
    rf"(?P<scheme>https?)://(?P<host>{_LABEL}(?:\.{_LABEL})*|\[[0-9a-f:]+\])(?::(?P<port>[1-9][0-9]{{0,4}}))?",
    re.ASCII,
)
_HEXADECIMAL: Final = re.compile(r"0x[0-9a-f]*", re.ASCII)
_PORT: Final = re.compile(r"\A[a-z]{1,8}://[^/]*:([0-9]++)\Z", re.ASCII | re.IGNORECASE)
_DEFAULT_PORTS: Final = {"http": "80", "https": "443"}


def parse_origins(origins: Iterable[Any]) -> frozenset[bytes]:
    """Read origins as browsers write them: ``"https://app.example.com"`` or ``"http://127.0.0.1:8000"``.

    They are compared byte for byte later, so anything a browser would never send is an error here: a path, upper
    case, a wildcard, a default port, user information, a trailing dot, letters outside ASCII (attacks CSRF-06,
    CSRF-07). Raises ConfigError naming every bad entry.
    """
    if isinstance(origins, str):
        raise ConfigError(f"origins must be a list, not the single string {origins!r}")
    parsed: set[bytes] = set()
    findings: list[str] = []
    for origin in origins:
        match = _ORIGIN.fullmatch(origin) if isinstance(origin, str) else None
        words = f"origin {origin!r} must be scheme://host[:port], written exactly as browsers send it"
        if isinstance(origin, str) and not _port_is_one(origin):
            findings.append(f"{words}: {PORT_RANGE}")
        elif match is None or match["port"] == _DEFAULT_PORTS[match["scheme"]] or not _is_canonical(match["host"]):
            # Browsers leave the scheme's own port out.
            findings.append(words)
        else:
            parsed.add(origin.encode("ascii"))
    if findings:
        raise ConfigError(findings)
    return frozenset(parsed)


def _is_canonical(host: str) -> bool:
    """Whether a browser would write this host: of an address there is one spelling (URL standard, section 3.5)."""
    if host.startswith("["):
        address = parse_address(host[1:-1])
        # One that holds an IPv4 address is read as that, and has a spelling of its own.
        return address is not None and (address.version == 4 or str(address) == host[1:-1])
    last = host.rpartition(".")[2]
    return not (last.isdigit() or _HEXADECIMAL.fullmatch(last)) or parse_address(host) is not None


def _port_is_one(origin: str) -> bool:
    """Whether the port, if what looks like an origin ends with one, is in the range of ports."""
    port = _PORT.search(origin)
    return port is None or is_port(port[1])
