"""The facts of a request that policies may look at. No body: policies decide before a byte of it is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import quote

from routeguard.core.cookies import find_cookie

if TYPE_CHECKING:
    from typing_extensions import Self

SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
"""RFC 9110 section 9.2.1: methods that change nothing, so that no forgery matters."""

_EMPTY: Final[frozenset[bytes]] = frozenset()


class RequestView:
    """Frozen facts about one request, read once from the raw header list.

    `headers` maps lower-case names to values as bytes; a name that occurs twice is in `repeated` and keeps its
    first value (Cookie lines are joined instead, RFC 9113 section 8.2.3). `path` is for the log only: no decision
    reads it.
    """

    __slots__ = ("headers", "kind", "method", "path", "raw_headers", "repeated", "scope")

    def __init__(self, scope: Mapping[str, Any]) -> None:
        kind = scope["type"]
        raw = scope["headers"]
        self.scope = scope
        self.kind: Literal["http", "websocket"] = kind
        self.method: str = scope["method"] if kind == "http" else "GET"
        self.path: str = scope["path"]
        self.raw_headers: list[tuple[bytes, bytes]] = raw
        headers = dict(raw)
        self.repeated: frozenset[bytes] | set[bytes] = _EMPTY
        # One pass in C for the common case; only a request with a repeated name pays for the second.
        if len(headers) != len(raw):
            headers, self.repeated = _collapse(raw)
        self.headers: Mapping[bytes, bytes] = headers

    @classmethod
    def from_scope(cls, scope: Mapping[str, Any]) -> Self:
        """Read an ASGI `http` or `websocket` scope. Header names arrive lower-cased by the ASGI specification."""
        return cls(scope)

    @classmethod
    def from_environ(cls, environ: Mapping[str, Any]) -> Self:
        """Read a WSGI environment (PEP 3333)."""
        raw = [
            (name[5:].replace("_", "-").lower().encode("latin-1"), value.encode("latin-1"))
            for name, value in environ.items()
            if name.startswith("HTTP_")
        ]
        for key in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            value = environ.get(key)
            raw += [(key.replace("_", "-").lower().encode(), value.encode("latin-1"))] if value else []
        peer = environ.get("REMOTE_ADDR")
        return cls(
            {
                "type": "http",
                "method": environ["REQUEST_METHOD"],
                "path": quote(environ.get("PATH_INFO", "/"), safe="/", encoding="latin-1"),
                "scheme": environ.get("wsgi.url_scheme", "http"),
                "query_string": environ.get("QUERY_STRING", "").encode("latin-1"),
                "client": (peer, 0) if peer else None,
                "headers": raw,
            }
        )

    @property
    def scheme(self) -> str:
        """What the server says it spoke; behind a proxy that is not what the client spoke."""
        scheme: str = self.scope.get("scheme", "http")
        return scheme

    @property
    def is_safe(self) -> bool:
        """Whether the method changes nothing. A WebSocket handshake is a GET but opens a channel: not safe."""
        return self.kind == "http" and self.method in SAFE_METHODS

    @property
    def path_params(self) -> Mapping[str, Any]:
        """What the framework's router took from the path."""
        params: Mapping[str, Any] = self.scope.get("path_params") or {}
        return params

    def header(self, name: str) -> str | None:
        """Return a header's first value as latin-1 text, or None. `name` in any case."""
        value = self.headers.get(name.lower().encode("latin-1"))
        return None if value is None else value.decode("latin-1")

    def cookie(self, name: str) -> str | None:
        """Return the only cookie called exactly `name`; None when there is none, or two (attack CSRF-16)."""
        value, doubled = find_cookie(self.headers.get(b"cookie", b""), name.encode("latin-1"))
        return None if value is None or doubled else value.decode("latin-1")


def is_preflight(request: RequestView) -> bool:
    """Return whether a browser asks for leave instead of an answer (Fetch standard, section 3.2.2)."""
    if request.method != "OPTIONS" or request.kind != "http":
        return False
    return b"access-control-request-method" in request.headers and b"origin" in request.headers


def _collapse(raw: list[tuple[bytes, bytes]]) -> tuple[dict[bytes, bytes], set[bytes]]:
    headers: dict[bytes, bytes] = {}
    repeated: set[bytes] = set()
    for name, value in raw:
        if name not in headers:
            headers[name] = value
        elif name == b"cookie":
            headers[name] += b"; " + value
        else:
            repeated.add(name)
    return headers, repeated
