"""Reading and writing cookies, byte for byte (RFC 6265bis)."""

from __future__ import annotations

import re
from typing import Final

_OCTETS: Final = re.compile(r"[\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]*", re.ASCII)
_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+", re.ASCII)
_PATH: Final = re.compile(r"/[\x20-\x3a\x3c-\x7e]*", re.ASCII)
_BLANKS: Final = frozenset(b" \t")
_SEMICOLON: Final = ord(";")
MAXIMUM_SIZE: Final = 4096
"""Browsers ignore a cookie whose name and value are longer (RFC 6265bis section 5.6, attack CK-09)."""


def cookie_name(base: str, part: str = "", *, secure: bool) -> str:
    """Return the name of one of our cookies: with the prefix that browsers hold to this host, where they take it."""
    name = f"{base}-{part}" if part else base
    return f"__Host-{name}" if secure else name


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
    secure: bool = True,
    http_only: bool = True,
    same_site: str = "Lax",
) -> bytes:
    """Return a Set-Cookie value without Domain, so that no sibling host sees it.

    Raises ValueError for CR, LF, NUL, ';' or other octets a cookie cannot hold (attack CK-10), for a pair over
    4,096 bytes (CK-09) and for a `__Host-` name that breaks the prefix's terms (RFC 6265bis section 4.1.3.2).
    """
    if not _TOKEN.fullmatch(name) or not _OCTETS.fullmatch(value) or not _PATH.fullmatch(path):
        raise ValueError("a cookie's name, value or path holds an octet that is not allowed there")
    if len(name) + len(value) + 1 > MAXIMUM_SIZE:
        raise ValueError("a cookie's name and value together exceed 4096 bytes")
    if same_site not in {"Lax", "Strict", "None"}:
        raise ValueError("same_site must be Lax, Strict or None")
    if name.startswith("__Host-") and not (secure and path == "/"):
        raise ValueError("a __Host- cookie is Secure and has Path=/")
    parts = [f"{name}={value}", f"Path={path}"]
    if max_age is not None:
        parts.append(f"Max-Age={max_age}")
    if secure:
        parts.append("Secure")
    if http_only:
        parts.append("HttpOnly")
    parts.append(f"SameSite={same_site}")
    return "; ".join(parts).encode("ascii")
