"""The answers a framework gives by itself, without any handler: a slash redirect, a preflight, a way to https."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, urlsplit, urlunsplit

from routeguard.protection.guard.place import route_path
from routeguard.protection.guard.render import LOCAL_PATH

if TYPE_CHECKING:
    from routeguard.core.request import RequestView

_UNRESERVED: Final = "/:%#?=@[]!$&'()*+,;~"
_PREFLIGHT: Final = frozenset({200, 204})
_DEFAULT_PORT: Final = re.compile(r":(?:80|443)\Z")


def answered_by_framework(
    request: RequestView, status: int, headers: list[tuple[bytes, bytes]], *, entered: str = "", root: str = ""
) -> bool:
    """Whether an answer without a decision is one that a router or a known middleware gives by itself.

    A router's redirect to the other spelling of a slash keeps only its path in `headers`: frameworks build it from
    Host, which the caller chooses. Where a proxy took a prefix away, the path gets it back: `entered` is the
    `root_path` with which the application was entered, `root` the prefix browsers use.
    """
    if status == 307:
        return _redirected(request, headers, entered, root)
    asked = request.headers.get(b"access-control-request-method")
    return request.method == "OPTIONS" and asked is not None and status in _PREFLIGHT


def is_unsafe_slash_redirect(request: RequestView, status: int) -> bool:
    """Whether an answer is a router's redirect of a path that holds `?` or `#`.

    Routers write them into Location as they are, where they end the path: it leads to another one. Not found, then;
    anybody can ask for such a path, so it is no fault of ours (500) either.
    """
    return status == 307 and ("?" in request.path or "#" in request.path)


def _redirected(request: RequestView, headers: list[tuple[bytes, bytes]], entered: str, root: str) -> bool:
    places = [place for place, (name, _) in enumerate(headers) if name.lower() == b"location"]
    if len(places) != 1:
        return False
    name, value = headers[places[0]]
    parts = urlsplit(value.decode("latin-1"))
    if _to_https(request, parts.scheme, parts.netloc, parts.path):
        return True
    target = urlunsplit(("", "", parts.path, parts.query, ""))
    asked, given = (quote(path, safe=_UNRESERVED) for path in (request.path, parts.path))
    # Two leading slashes would name a host (attack RED-01), and the slash at the end is the only difference allowed.
    if not LOCAL_PATH.fullmatch(target) or given == asked or given.rstrip("/") != asked.rstrip("/"):
        return False
    if root:
        target = urlunsplit(("", "", root + route_path(parts.path, quote(entered, safe=_UNRESERVED)), parts.query, ""))
    headers[places[0]] = (name, target.encode("latin-1"))
    return True


def _to_https(request: RequestView, scheme: str, netloc: str, path: str) -> bool:
    """Whether this is Starlette's HTTPSRedirectMiddleware: the same place, over TLS."""
    host = request.headers.get(b"host", b"").decode("latin-1")
    same = _DEFAULT_PORT.sub("", netloc.lower()) == _DEFAULT_PORT.sub("", host.lower())
    return scheme == "https" and request.scheme == "http" and same and path == quote(request.path, safe=_UNRESERVED)
