"""The header fields a response leaves with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from routeguard.guard.caching import keep_private

if TYPE_CHECKING:
    from routeguard.guard.connection import Connection


def finish(connection: Connection, headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Append effects, then the defaults whose names are still free. Nothing is rebuilt or doubled (HDR-02)."""
    effects = connection.effects
    # A cookie of ours is one caller's, on a public route too: no shared cache hands it to the next (attack SES-18).
    if connection.guarded or (effects and any(name == b"set-cookie" for name, _ in effects)):
        keep_private(headers)
    headers += effects
    defaults = connection.defaults
    if defaults:
        present = dict(headers)
        if defaults is connection.guard.headers and present.get(b"content-type", b"").startswith(b"text/html"):
            defaults = connection.guard.page_headers
        headers += [pair for pair in defaults if pair[0] not in present]
    return headers
