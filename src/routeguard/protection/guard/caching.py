"""Guarded answers stay out of shared caches, whatever their handlers say (RFC 9111, RFC 9213; attack AZ-23)."""

from __future__ import annotations

import re
from typing import Final

NO_STORE: Final = (b"cache-control", b"private, no-store")

_ALLOWED: Final = re.compile(
    rb"(?i)[ \t]*+(?:private|no-store|no-cache|no-transform|must-revalidate|proxy-revalidate|immutable"
    rb"|(?:max-age|stale-while-revalidate|stale-if-error)[ \t]*+=[ \t]*+\"?[0-9]++\"?)?[ \t]*+"
)
_PRIVATE: Final = re.compile(rb"(?i)(?:^|,)[ \t]*+(?:private|no-store)[ \t]*+(?:,|$)")
_FOR_SHARED: Final = frozenset({b"surrogate-control", b"x-accel-expires", b"x-litespeed-cache-control"})
"""Fields that speak to shared caches only and win over Cache-Control there."""


_MAXIMUM: Final = 512
_plain: set[bytes] = set()
"""Header names seen that say nothing about caches, so that most responses cost one comparison of sets."""


def keep_private(headers: list[tuple[bytes, bytes]]) -> None:
    """Leave a handler's Cache-Control only where it keeps every shared cache out; else say `private, no-store`.

    A handler may shorten to `no-store` or allow the browser itself (`private, max-age=60`). `public`, `s-maxage`,
    the qualified ``private="field"`` and anything unknown would let one caller's answer be served to another.
    """
    names = {name for name, _ in headers}
    if names <= _plain:
        headers.append(NO_STORE)
        return
    kept: list[tuple[bytes, bytes]] = []
    lines: list[bytes] = []
    for name, value in headers:
        lower = name.lower()
        if lower == b"cache-control":
            lines.append(value)
        elif lower not in _FOR_SHARED and not lower.endswith(b"cdn-cache-control"):
            kept.append((name, value))
            if len(_plain) < _MAXIMUM:
                _plain.add(name)
    line = b", ".join(lines)
    if not lines or not _PRIVATE.search(line) or not all(_ALLOWED.fullmatch(part) for part in line.split(b",")):
        line = NO_STORE[1]
    headers[:] = [*kept, (b"cache-control", line)]
