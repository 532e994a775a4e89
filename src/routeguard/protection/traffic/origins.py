"""Origins: scheme, host and port, compared as the exact strings browsers send (RFC 6454 section 7), and patterns."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from routeguard.core.address import parse_address
from routeguard.core.errors import ConfigError
from routeguard.core.ports import PORT_RANGE, is_port
from routeguard.core.redaction import quoted
from routeguard.protection.traffic.registrable import registrable_domain

_LABEL: Final = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_ORIGIN: Final = re.compile(
    rf"(?P<scheme>https?)://(?P<host>{_LABEL}(?:\.{_LABEL})*|\[[0-9a-f:]+\])(?::(?P<port>[1-9][0-9]{{0,4}}))?",
    re.ASCII,
)
_HEXADECIMAL: Final = re.compile(r"0x[0-9a-f]*", re.ASCII)
_PORT: Final = re.compile(r"\A[a-z]{1,8}://[^/]*:([0-9]++)\Z", re.ASCII | re.IGNORECASE)
_DEFAULT_PORTS: Final = {"http": "80", "https": "443"}
_EXACTLY: Final = "must be scheme://host[:port], written exactly as browsers send it"
_HTTPS: Final = b"https://"
_STAR: Final = b"abcdefghijklmnopqrstuvwxyz0123456789-"
_LABEL_SIZE: Final = 63
_NAME_SIZE: Final = 253
"""Characters of a label and of a name (RFC 1035 section 2.3.4), without the dot at the end."""


@dataclass(frozen=True, slots=True)
class OriginPattern:
    """The origins that differ in a part of their first label: ``https://*-team.example.app``.

    The star stands for one or more of ``a-z0-9-``, so for no dot: a label of another owner cannot be put before ours
    (attack CSRF-07: ``https://evil.b-team.example.app``).
    """

    head: bytes
    """The scheme and what stands before the star."""
    tail: bytes
    """What follows the star, to the end, port included."""
    longest: int
    """Bytes of the longest origin with a name that has no more than 253 characters."""

    @classmethod
    def of(cls, text: str) -> OriginPattern:
        """Return the pattern of `text`, which is one."""
        head, _, tail = text.encode("ascii").partition(b"*")
        return cls(head, tail, len(_HTTPS) + _NAME_SIZE + len(tail) - len(tail.partition(b":")[0]))

    def matches(self, origin: bytes) -> bool:
        """Return whether `origin` is what a browser sends for a host of this pattern."""
        head, tail = self.head, self.tail
        if len(origin) > self.longest or not (origin.startswith(head) and origin.endswith(tail)):
            return False
        end = len(origin) - len(tail)
        star = origin[len(head) : end]
        if end <= len(head) or star.translate(None, _STAR):
            return False
        label = origin[len(_HTTPS) : end + tail.index(b".")]
        # Of punycode the end says nothing about the name it stands for, and the name may look like another.
        return len(label) <= _LABEL_SIZE and not (label.startswith((b"-", b"xn--")) or label.endswith(b"-"))


@dataclass(frozen=True, slots=True)
class Origins:
    """Exact origins, and patterns of them."""

    exact: frozenset[bytes]
    patterns: tuple[OriginPattern, ...] = ()
    trusts: Callable[[bytes | None], bool] = field(init=False, compare=False, repr=False)
    """Whether an `Origin` header, None where there is none, is one of them: one look-up, unless patterns were given."""

    def __post_init__(self) -> None:
        """Choose what `trusts` does, once."""
        object.__setattr__(self, "trusts", self._trusts if self.patterns else self.exact.__contains__)

    def written(self) -> list[str]:
        """Return all of them as they were given, sorted."""
        patterns = [pattern.head + b"*" + pattern.tail for pattern in self.patterns]
        return sorted(one.decode("ascii") for one in (*self.exact, *patterns))

    def _trusts(self, origin: bytes | None) -> bool:
        if origin in self.exact:
            return True
        return origin is not None and any(pattern.matches(origin) for pattern in self.patterns)


def parse_origins(origins: Iterable[Any]) -> frozenset[bytes]:
    """Read origins as browsers write them: ``"https://app.example.com"`` or ``"http://127.0.0.1:8000"``.

    They are compared byte for byte later, so anything a browser would never send is an error here: a path, upper
    case, a wildcard, a default port, user information, a trailing dot, letters outside ASCII (attacks CSRF-06,
    CSRF-07). Raises ConfigError naming every bad entry.
    """
    return _read(origins, patterns=False).exact


def read_origins(origins: Iterable[Any]) -> Origins:
    """Read origins as `parse_origins` does, and patterns of them such as ``"https://*-team.example.app"``.

    A pattern is https, has one star, in its first label, and below that label a domain with one owner: below a public
    suffix anybody registers a name that matches. Raises ConfigError naming every bad entry.
    """
    return _read(origins, patterns=True)


def _read(origins: Iterable[Any], *, patterns: bool) -> Origins:
    if isinstance(origins, str):
        raise ConfigError(f"origins must be a list, not the single string {quoted(origins)}")
    exact: set[bytes] = set()
    found: dict[OriginPattern, None] = {}
    findings: list[str] = []
    for origin in origins:
        is_pattern = patterns and isinstance(origin, str) and "*" in origin
        finding = _pattern_finding(origin) if is_pattern else _finding(origin)
        if finding:
            findings.append(f"origin {quoted(origin)} {finding}")
        elif is_pattern:
            found[OriginPattern.of(origin)] = None
        else:
            exact.add(origin.encode("ascii"))
    if findings:
        raise ConfigError(findings)
    return Origins(frozenset(exact), tuple(found))


def _finding(origin: Any) -> str:
    """Return what is wrong with an exact origin, or nothing."""
    if not isinstance(origin, str):
        return _EXACTLY
    if not _port_is_one(origin):
        return f"{_EXACTLY}: {PORT_RANGE}"
    match = _ORIGIN.fullmatch(origin)
    # Browsers leave the scheme's own port out.
    if match is None or match["port"] == _DEFAULT_PORTS[match["scheme"]] or not _is_canonical(match["host"]):
        return _EXACTLY
    return ""


def _pattern_finding(pattern: str) -> str:
    """Return what is wrong with a pattern, or nothing."""
    head, _, tail = pattern.partition("*")
    name = tail.partition(":")[0]
    parent = name.partition(".")[2]
    wrong = _finding(f"{head}a{tail}")
    if wrong and PORT_RANGE in wrong:
        return wrong
    if wrong or not parent or "." in head or len(head) + len(name) >= len(_HTTPS) + _NAME_SIZE:
        return f"{_EXACTLY}, or a pattern with one * in the first label, such as https://*-team.example.com"
    if not head.startswith(_HTTPS.decode()):
        return "is a pattern, which must be https: over http, anybody in the network answers for each of its names"
    if head.startswith("https://xn--"):
        return "has its * inside punycode, where it stands for no part of the name: write out each origin"
    if registrable_domain(parent) is None:
        return (
            f"is a pattern below {parent}, a public suffix, where anybody can register a name that matches: serve "
            "previews below a domain of your own, or write out each origin"
        )
    return ""


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
