"""Where an application is found: the prefix that its server, a mount or a proxy puts before its paths."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

from routeguard.core.redirect import is_below, safe_redirect

_SAFE: Final = "/!$&'()*+,;=:@-._~"


def route_path(path: str, entered: str) -> str:
    """Return the path as the application's routes have it.

    `entered` is the `root_path` of the ASGI scope. The path begins with it, unless a proxy has taken it away.
    """
    return path[len(entered) :] or "/" if entered and is_below(path, entered) else path


def public_root(entered: str) -> str:
    """Return an ASGI `root_path` as it stands in URLs: percent-encoded, without a slash at its end.

    Empty for what is no plain path: a mount with a parameter, or a middleware that reads `X-Forwarded-Prefix`, takes
    it from the caller, and ``//evil.example`` would lead to another host (attacks RED-01, HTTP-05).
    """
    return safe_redirect(quote(entered.rstrip("/"), safe=_SAFE), "")


def public_path(path: str, raw_path: bytes | None, *, entered: str, root: str) -> str:
    """Return the path browsers used, percent-encoded as they sent it: below `root`, whatever the server was given."""
    local = route_path(path, entered)
    raw = (raw_path or b"").decode("latin-1")
    prefix = "" if local == path else quote(entered, safe=_SAFE)
    if not raw or not raw.startswith(prefix):
        return root + quote(local, "/", errors="replace")
    return root + (raw[len(prefix) :] or "/")
