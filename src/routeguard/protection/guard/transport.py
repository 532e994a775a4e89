"""What makes a request unreadable as one request: refused before any policy, and before the body."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

from typing_extensions import override

from routeguard.core.policy import Check, Stage
from routeguard.core.problem import CONTENT_TOO_LARGE, MALFORMED_REQUEST, UNSUPPORTED_MEDIA_TYPE

if TYPE_CHECKING:
    from routeguard.core.exchange import Exchange
    from routeguard.core.policy import BoundCheck, Outcome
    from routeguard.core.problem import Problem
    from routeguard.core.request import RequestView
    from routeguard.core.services import Services

SINGULAR: Final = frozenset(
    {
        b"authorization",
        b"content-length",
        b"content-type",
        b"host",
        b"idempotency-key",
        b"origin",
        b"sec-fetch-site",
        b"x-api-key",
        b"x-csrf-token",
    }
)
"""Fields that mean nothing certain when sent twice: 400 (attacks HTTP-01, KEY-08)."""

_DIGITS: Final = 18
"""Of a Content-Length; more would be an exabyte, and a chance for a slow conversion."""
_DISCARDED: Final = 8 * 1024 * 1024
"""Bytes of a refused body that a server may read and drop to keep the connection: a client that sends them all before
it reads then finds the answer. For more, connecting again is cheaper."""


class BodyLimited(Check):
    """The base of checks that state a body limit in bytes, which the guard reads before the request is answered.

    Only such a check states one: an attribute `body_limit` of any other check is its own.
    """

    __slots__ = ()

    stage = Stage.TRANSPORT
    statuses: ClassVar[tuple[int, ...]] = (413,)
    unsafe_only = True

    body_limit: int

    @override
    def bind(self, services: Services) -> BoundCheck:
        """Return the check for one side of `|`. Elsewhere the guard holds every request to the limit by itself."""
        limit = self.body_limit

        async def bounded(exchange: Exchange) -> Outcome:
            if exchange.body_limit is None or exchange.body_limit > limit:
                exchange.body_limit = limit
            return transport(exchange.request, limit)

        return bounded


def transport(request: RequestView, limit: int) -> Problem | None:
    """Refuse what is not one request (400), a compressed body (415) and a declared body over `limit` (413)."""
    headers = request.headers
    if request.repeated and not request.repeated.isdisjoint(SINGULAR):
        return _REPEATED
    if b"content-length" in headers:
        refused = refuse_framing(request)
        if refused is None and b"content-encoding" in headers:
            refused = refuse_coding(request)
        if refused is not None:
            return refused
        return _TOO_LARGE if int(headers[b"content-length"]) > limit else None
    return refuse_coding(request) if b"content-encoding" in headers else None


def refuse_framing(request: RequestView) -> Problem | None:
    """Return 400 unless everybody on the way must agree where the body ends (RFC 9112 section 6, ASVS 4.2.1)."""
    headers = request.headers
    length = headers.get(b"content-length")
    coding = headers.get(b"transfer-encoding")
    # What nearly every body comes with.
    if coding is None and length is not None and not request.repeated and length.isdigit() and len(length) <= _DIGITS:
        return None
    # Read by one party as chunked and by another by its length, one request becomes two: smuggling.
    if length is not None and (coding is not None or b"content-length" in request.repeated):
        return _AMBIGUOUS
    if coding is not None:
        # A server that looks for the word `chunked` only, or at the last line only, reads `gzip, chunked` as it likes;
        # HTTP/1.0 and HTTP/2 have no such field (RFC 9112 section 6.1, RFC 9113 section 8.2.2).
        exact = coding.strip(b" \t").lower() == b"chunked" and b"transfer-encoding" not in request.repeated
        return None if exact and request.scope.get("http_version", "1.1") == "1.1" else _CODING
    return None if length is None or (len(length) <= _DIGITS and length.isdigit()) else _NO_LENGTH


def must_close(request: RequestView, *, ended: bool) -> bool:
    """Whether a refusal has to end the connection; `ended` says that the whole body has been read.

    Else what follows on it could be taken for the next request (RFC 9112 section 6.1), or the server would go on
    reading an unwanted body without a known end (attack BODY-01). Only HTTP/1 has a field that says so.
    """
    if request.kind != "http" or not request.scope.get("http_version", "1.1").startswith("1"):
        return False
    headers = request.headers
    if b"content-length" not in headers and b"transfer-encoding" not in headers:
        return False
    if refuse_framing(request) is not None:
        return True
    return not ended and (b"transfer-encoding" in headers or int(headers[b"content-length"]) > _DISCARDED)


def refuse_coding(request: RequestView) -> Problem | None:
    """Return 415 for a compressed body: a limit on its bytes says nothing of what it becomes (BODY-05, BODY-06)."""
    coding = request.headers.get(b"content-encoding")
    if coding is None or (coding.strip().lower() == b"identity" and b"content-encoding" not in request.repeated):
        return None
    return _CODED


_REPEATED: Final = MALFORMED_REQUEST("A header that may occur once was sent more than once.")
_TOO_LARGE: Final = CONTENT_TOO_LARGE()
_AMBIGUOUS: Final = MALFORMED_REQUEST("The length of the body is stated twice.")
_NO_LENGTH: Final = MALFORMED_REQUEST("Content-Length is not a number.")
_CODING: Final = MALFORMED_REQUEST("Transfer-Encoding may be chunked, once, and nothing else.")
# RFC 9110 section 15.5.16: an Accept-Encoding in the answer says which codings would do.
_CODED: Final = UNSUPPORTED_MEDIA_TYPE("Send the body uncompressed.", headers=(("accept-encoding", "identity"),))
