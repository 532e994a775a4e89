"""Reading and writing cookies, byte for byte (RFC 6265bis)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

_OCTETS: Final = re.compile(r"[\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]*", re.ASCII)
_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+", re.ASCII)
_PATH: Final = re.compile(r"/[\x20-\x3a\x3c-\x7e]*", re.ASCII)
_DOMAIN: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)+", re.ASCII)
_BLANKS: Final = frozenset(b" \t")
_SEMICOLON: Final = ord(";")
SameSite = Literal["Lax", "Strict", "None"]
MAXIMUM_SIZE: Final = 4096
"""Browsers ignore a cookie whose name and value are longer (RFC 6265bis section 5.6, attack CK-09)."""


def parse_cookies(header: bytes | str) -> list[tuple[str, str]]:
    """Split a Cookie header into (name, value) pairs, in order, duplicates included (RFC 6265bis section 4.2).

    Never raises and never unescapes: a quoted or backslashed value is taken literally, so that no second
    spelling of a session exists (attack CK-05). Only space and tab are trimmed; other white space belongs to
    the name, so that U+2000 before `__Host-` names another cookie (attack CK-03). Linear in the header's length.
    """
    text = header.decode("latin-1") if isinstance(header, bytes) else header
    pairs: list[tuple[str, str]] = []
    for part in text.split(";"):
        name, separator, value = part.partition("=")
        if separator:
            pairs.append((name.strip(" \t"), value.strip(" \t")))
    return pairs


def find_cookie(header: bytes, name: bytes) -> tuple[bytes | None, bool]:
    """Return the value of the cookie called exactly `name`, and whether it occurs more than once.

    The fast path of the session guard: one search, no list of pairs. Stricter than `parse_cookies` in one point: a
    blank between name and `=`, which no browser sends, makes it another name.
    """
    needle = name + b"="
    start = _begin(header, needle, 0)
    if start == -1:
        return None, False
    start += len(needle)
    end = header.find(b";", start)
    if end == -1:
        return header[start:].strip(b" \t"), False
    return header[start:end].strip(b" \t"), _begin(header, needle, end) != -1


def _begin(header: bytes, needle: bytes, start: int) -> int:
    """Return where `needle` begins the header or follows ';' and blanks; elsewhere it is a longer name's tail."""
    while (start := header.find(needle, start)) > 0:
        before = start - 1
        while before >= 0 and header[before] in _BLANKS:
            before -= 1
        if before < 0 or header[before] == _SEMICOLON:
            return start
        start += 1
    return start


def format_cookie(
    name: str,
    value: str,
    *,
    max_age: int | None = None,
    path: str = "/",
    http_only: bool = True,
    attributes: CookieAttributes | None = None,
) -> bytes:
    """Return a Set-Cookie value with `attributes`, by default those of a cookie that no sibling host sees.

    Raises ValueError for CR, LF, NUL, ';' or other octets a cookie cannot hold (attack CK-10), for a pair over
    4,096 bytes (CK-09) and for a name that breaks the terms of its prefix (RFC 6265bis section 4.1.3).
    """
    carried = attributes or _CLOSED
    if not _TOKEN.fullmatch(name) or not _OCTETS.fullmatch(value) or not _PATH.fullmatch(path):
        raise ValueError("a cookie's name, value or path holds an octet that is not allowed there")
    if len(name) + len(value) + 1 > MAXIMUM_SIZE:
        raise ValueError("a cookie's name and value together exceed 4096 bytes")
    if name.startswith("__Host-") and (not carried.secure or path != "/" or carried.domain):
        raise ValueError("a __Host- cookie is Secure, has Path=/ and no Domain")
    if name.startswith("__Secure-") and not carried.secure:
        raise ValueError("a __Secure- cookie is Secure")
    parts = [f"{name}={value}", f"Path={path}"]
    if carried.domain:
        parts.append(f"Domain={carried.domain}")
    if max_age is not None:
        parts.append(f"Max-Age={max_age}")
    if carried.secure:
        parts.append("Secure")
    if http_only:
        parts.append("HttpOnly")
    parts.append(f"SameSite={carried.same_site}")
    if carried.partitioned:
        parts.append("Partitioned")
    return "; ".join(parts).encode("ascii")


@dataclass(frozen=True, slots=True, kw_only=True)
class CookieAttributes:
    """What a cookie carries beside its value. Raises ValueError for what no browser would keep.

    `domain` opens it to every host at or below (RFC 6265bis section 4.1.2.3); '' keeps it to the one that set it.
    `partitioned` gives it a jar of its own for each top-level site (CHIPS).
    """

    secure: bool = True
    domain: str = ""
    same_site: SameSite = "Lax"
    partitioned: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot stand in a Set-Cookie (attack CK-10), or stand together."""
        if self.domain and not _DOMAIN.fullmatch(self.domain):
            raise ValueError("a cookie's domain holds an octet that is not allowed there")
        if self.same_site not in {"Lax", "Strict", "None"}:
            raise ValueError("same_site must be Lax, Strict or None")
        if not self.secure and (self.same_site == "None" or self.partitioned):
            raise ValueError("a cookie that is SameSite=None or Partitioned is Secure")


_CLOSED: Final = CookieAttributes()


class Cookie:
    """One of our cookies: its name and attributes are worked out once, at start-up."""

    __slots__ = ("_attributes", "_former", "name", "raw")

    def __init__(self, scheme: CookieScheme, part: str = "") -> None:
        self._attributes = scheme.attributes
        self.name = scheme.name(part)
        self.raw = self.name.encode("ascii")
        self._former: dict[bytes, list[bytes]] = {}
        for name, attributes in scheme.former(part):
            gone = format_cookie(name, "", max_age=0, attributes=attributes)
            self._former.setdefault(name.encode("ascii"), []).append(gone)

    def find(self, header: bytes) -> tuple[bytes | None, bool]:
        """Return its value in a Cookie header, and whether it occurs more than once."""
        return find_cookie(header, self.raw)

    def setting(self, value: str, *, max_age: int | None) -> bytes:
        """Return the Set-Cookie value; `max_age` in seconds, None for one that ends with the browser."""
        return format_cookie(self.name, value, max_age=max_age, attributes=self._attributes)

    def clearing(self) -> bytes:
        """Return the Set-Cookie value that takes it from the browser: same attributes, or it would stay (CK-12)."""
        return self.setting("", max_age=0)

    def clearing_former(self, header: bytes) -> list[bytes]:
        """Return what takes away the cookies that this one was under other settings, where a request sent one.

        One of another Domain has the present name, and does not say so: beside the new one it would be a second
        cookie, and two are refused until one expires. So all of that name but the new one are taken away.
        """
        return [
            gone
            for name, clearings in self._former.items()
            if find_cookie(header, name)[0] is not None
            for gone in clearings
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class CookieScheme:
    """How all of our cookies are called and what they carry: decided once, at start-up.

    `prefixed` says that browsers reach us by https, so that they hold the name to its prefix: `__Host-` to this host,
    `__Secure-` with a domain (RFC 6265bis section 4.1.3). `host` is the issuer's. Secure follows from here, never from
    the scheme a request seems to have (attack CK-13).
    """

    base: str = "routeguard"
    prefixed: bool = True
    host: str = ""
    attributes: CookieAttributes = _CLOSED

    def name(self, part: str = "") -> str:
        """Return the name of the cookie `part`, '' for the session's own."""
        return self._name(part, domain=self.attributes.domain, partitioned=self.attributes.partitioned)

    def cookie(self, part: str = "") -> Cookie:
        """Return the cookie `part`, ready for use."""
        return Cookie(self, part)

    def former(self, part: str) -> list[tuple[str, CookieAttributes]]:
        """Return the names and attributes that the cookie `part` has under every other setting for this issuer."""
        found: list[tuple[str, CookieAttributes]] = []
        now = self.attributes
        for partitioned in (False, True):
            for domain in ("", *_at_or_above(self.host)):
                if (domain, partitioned) != (now.domain, now.partitioned):
                    same_site: SameSite = "None" if partitioned else now.same_site
                    secure = now.secure or partitioned
                    attributes = CookieAttributes(
                        secure=secure, domain=domain, same_site=same_site, partitioned=partitioned
                    )
                    found.append((self._name(part, domain=domain, partitioned=partitioned), attributes))
        return found

    def _name(self, part: str, *, domain: str, partitioned: bool) -> str:
        # A name of its own: a browser sends a partitioned cookie and the one from before the setting side by side.
        name = "-".join(word for word in (self.base, "partitioned" if partitioned else "", part) if word)
        prefix = "__Secure-" if domain else "__Host-"
        return f"{prefix}{name}" if self.prefixed else name


def _at_or_above(host: str) -> list[str]:
    """Return every domain that a cookie of `host` may name, and some that browsers refuse as public suffixes."""
    labels = host.split(".")
    names = [".".join(labels[place:]) for place in range(len(labels) - 1)]
    return [name for name in names if _DOMAIN.fullmatch(name) and not labels[-1].isdigit()]
