"""Problems on the wire: problem+json, a redirect to sign-in for browsers, a refused handshake for WebSockets."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from routeguard.core.decision import Reply
from routeguard.protection.guard.caching import NO_STORE
from routeguard.protection.guard.place import public_path, public_root

if TYPE_CHECKING:
    from routeguard.core.problem import Problem
    from routeguard.core.request import RequestView

_JSON: Final = ((b"content-type", b"application/problem+json"), (b"x-content-type-options", b"nosniff"), NO_STORE)
CONTROL: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
LOCAL_PATH: Final = re.compile(r"/(?![/\\])[^\\\x00-\x1f\x7f]*")


def render(problem: Problem, request: RequestView, instance: str) -> Reply:
    """Return the refusal as problem+json (RFC 9457 section 3). A HEAD answer has headers only."""
    body = json.dumps(problem.body(instance), ensure_ascii=False, separators=(",", ":")).encode(errors="replace")
    extra = tuple((name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in problem.headers)
    if any(CONTROL.search(value) for _, value in extra):
        raise ValueError("a header value holds a control character")  # Attack HTTP-03.
    headers = (*_JSON, (b"content-length", str(len(body)).encode()), *extra)
    return Reply(problem.status, headers, b"" if request.method == "HEAD" else body)


def to_sign_in(request: RequestView, sign_in: str, *, entered: str | None = None, root: str | None = None) -> Reply:
    """Return 303 to the sign-in page with the place to come back to (never 307: attack RED-14).

    `entered` is the `root_path` with which the application was entered, `root` the prefix browsers use; unless given,
    both are read from the scope. Only a path on this origin is carried, and the sign-in page validates it again
    (attacks RED-02 to RED-08).
    """
    scope = request.scope
    if entered is None:
        # A mount changes root_path on the way in; the application's own is kept beside it.
        entered = str(scope.get("app_root_path", scope.get("root_path", "")))
    root = public_root(entered) if root is None else root
    path = public_path(request.path, scope.get("raw_path"), entered=entered, root=root)
    query = scope.get("query_string", b"").decode("latin-1")
    target = f"{path}?{query}" if query else path
    # Read both as sent and as decoded: neither may name another host.
    local = LOCAL_PATH.fullmatch(target) and LOCAL_PATH.fullmatch(request.path)
    suffix = f"?next={quote(target, safe='/')}" if local else ""
    location = (root + sign_in + suffix).encode("ascii", "ignore")
    return Reply(303, ((b"location", location), (b"content-length", b"0"), NO_STORE, (b"vary", b"Accept, Cookie")))


def is_navigation(request: RequestView) -> bool:
    """Whether a person's browser asked for a page: only then is a redirect an answer anybody can use.

    Fetch Metadata decides where it is sent; else a preference for HTML does.
    """
    if request.kind != "http" or request.method not in {"GET", "HEAD"}:
        return False
    mode = request.headers.get(b"sec-fetch-mode")
    if mode is not None and mode != b"navigate":
        return False
    accept = request.headers.get(b"accept", b"")
    return accept.lstrip().startswith(b"text/html") or (mode == b"navigate" and b"text/html" in accept)
