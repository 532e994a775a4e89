"""Answers: JSON, nothing, or the next page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
from starlette.responses import Response

from routeguard.foundation.web.body import FORM_TYPE, media_type_of

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection

_JSON: Final = "application/json; charset=utf-8"


def reply(data: Any, status: int = 200) -> Response:
    """Return `data` (dataclasses, Structs, aware datetimes as RFC 3339) as JSON.

    Raises TypeError for values that have no JSON form, secrets included.
    """
    headers = {"x-content-type-options": "nosniff"}
    return Response(msgspec.json.encode(data), status, headers=headers, media_type=_JSON)


def no_content() -> Response:
    """Return 204."""
    return Response(status_code=204)


def see_other(url: str) -> Response:
    """Return 303, which browsers follow with GET: a 307 would send a password on (RFC 9700 4.12, attack RED-14).

    `url` begins with `Exchange.root`, or came out of `core.redirect.safe_redirect`. Raises ValueError when it is not
    one line of ASCII.
    """
    if not url.isascii() or not url.isprintable():
        raise ValueError("a Location is one line of ASCII")
    return Response(status_code=303, headers={"location": url, "cache-control": "no-store"})


def wants_page(connection: HTTPConnection) -> bool:
    """Return whether a person's browser waits for a page: it navigates, or it posted a form.

    Fetch Metadata decides where it is sent, else a preference for HTML does; scripts get JSON.
    """
    scope = connection.scope
    if scope["type"] != "http":
        return False
    headers = dict(reversed(scope["headers"]))
    if headers.get(b"sec-fetch-mode", b"navigate") != b"navigate" or b"text/html" not in headers.get(b"accept", b""):
        return False
    if scope["method"] in {"GET", "HEAD"}:
        return True
    sent = [value for name, value in scope["headers"] if name == b"content-type"]
    return scope["method"] == "POST" and media_type_of(sent) == FORM_TYPE
