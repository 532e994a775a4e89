"""Which credential a request carries in its header fields: an access token, an API key or a ticket, and never two."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import unquote_to_bytes

from routeguard.core.problem import MALFORMED_REQUEST

if TYPE_CHECKING:
    from routeguard.core.errors import ProblemError
    from routeguard.core.request import RequestView

SUBPROTOCOL: Final = "routeguard"
"""What a server selects where a client offered a credential as subprotocol: browsers demand a selection."""
_BEARER_SUBPROTOCOL: Final = b"routeguard.bearer."
_TICKET_SUBPROTOCOL: Final = b"routeguard.ticket."
CREDENTIAL_SUBPROTOCOLS: Final = (_BEARER_SUBPROTOCOL, _TICKET_SUBPROTOCOL)
"""How the subprotocols begin that carry a credential (RFC 6455 section 1.9 lets clients offer any names)."""

KEY_PREFIX: Final = b"rg_"
"""How every API key of ours begins, in `X-API-Key` and as Bearer."""

_EXPLICIT_SCHEMES: Final = (b"bearer ", b"dpop ")
_TOKEN68: Final = re.compile(rb"[A-Za-z0-9\-._~+/]+=*")
_IN_QUERY: Final = re.compile(
    rb"(?:^|[&;])(?:access_token|api_key|apikey|x-api-key)(?:[=&;]|$)|=rg_(?:live|test)_", re.IGNORECASE
)

_NOT_IN_URLS: Final = (
    "A credential belongs into the field Authorization or X-API-Key and not into a URL, which is kept in logs."
)


class Credential(NamedTuple):
    """By what a caller says who it is. Its value is a secret, and empty where it is not needed again.

    `kind` is ``token`` (access token), ``key`` (API key), ``ticket``, ``signature``, or a name of a check's own.
    `ambient` says that browsers add it by themselves, as they do cookies, so that a foreign page can use it.
    """

    kind: str
    value: bytes = b""
    ambient: bool = False

    def __repr__(self) -> str:
        return f"Credential({self.kind})"


def may_carry(request: RequestView) -> bool:
    """Return whether `credential_of` has anything to look at. Most requests of browsers have not, and all are asked."""
    headers = request.headers
    if b"authorization" in headers or b"x-api-key" in headers or request.scope.get("query_string"):
        return True
    return request.kind == "websocket" and b"sec-websocket-protocol" in headers


def has_explicit_field(request: RequestView) -> bool:
    """Return whether a field came that only a program sends: `X-API-Key`, or `Authorization` by Bearer or DPoP.

    Not by `Basic`, `Digest` or `Negotiate`: browsers repeat those by themselves, like cookies, and with the requests of
    foreign pages too (attacks CSRF-01, WS-01).
    """
    scheme = request.headers.get(b"authorization", b"")[:7].lower()
    return scheme.startswith(_EXPLICIT_SCHEMES) or b"x-api-key" in request.headers


def credential_of(request: RequestView) -> Credential | None:
    """Return the access token or API key of a request (RFC 6750 section 2.1), or None when it carries neither.

    Raises ProblemError 400 `malformed-request` for two of them, or one in the URL, where logs and histories keep it
    (attacks JWT-39, KEY-07, KEY-08). A malformed Bearer is an invalid credential: its value is empty (attack
    JWT-40). Other schemes are not ours: a proxy in front may ask for Basic.
    """
    query: bytes = request.scope.get("query_string", b"")
    if query and _IN_QUERY.search(unquote_to_bytes(query) if b"%" in query else query):
        raise MALFORMED_REQUEST(_NOT_IN_URLS, debug="a credential in the query").error()
    offered = _offered(request) if request.kind == "websocket" else None
    headers, repeated = request.headers, request.repeated
    authorization, key = headers.get(b"authorization"), headers.get(b"x-api-key")
    if authorization is None and key is None:
        return offered
    if (
        b"authorization" in repeated
        or b"x-api-key" in repeated
        or (authorization is not None and key is not None)
        or offered is not None
    ):
        raise _two_credentials()
    if key is not None:
        return Credential("key", key)
    assert authorization is not None
    scheme, _, value = authorization.partition(b" ")
    if scheme.lower() != b"bearer":
        return None
    return _bearer(value.strip(b" "))


def _bearer(value: bytes) -> Credential:
    if not _TOKEN68.fullmatch(value):
        return Credential("token", b"")
    return Credential("key" if value.startswith(KEY_PREFIX) else "token", value)


def _offered(request: RequestView) -> Credential | None:
    """Return the credential among the subprotocols of a WebSocket handshake, or None.

    It is for clients that cannot set a header field: the `WebSocket` of browsers. Raises ProblemError 400 for two.
    """
    lines = [value for name, value in request.raw_headers if name == b"sec-websocket-protocol"]
    names = [part.strip(b" \t") for line in lines for part in line.split(b",")]
    carriers = [name for name in names if name.startswith(CREDENTIAL_SUBPROTOCOLS)]
    if not carriers:
        return None
    if len(carriers) > 1:
        raise _two_credentials()
    if carriers[0].startswith(_TICKET_SUBPROTOCOL):
        return Credential("ticket", carriers[0].removeprefix(_TICKET_SUBPROTOCOL))
    return _bearer(carriers[0].removeprefix(_BEARER_SUBPROTOCOL))


def _two_credentials() -> ProblemError:
    return MALFORMED_REQUEST("Send one credential, once.", debug="two credentials").error()
