"""`GET /auth/client.js`: the module that pages of the application import."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Final

from starlette.responses import Response

from routeguard.core.policy import public
from routeguard.foundation.web.routes import get

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.routing import Route

_FILE: Final = Path(__file__).parent / "static" / "client.js"


def script_routes() -> list[Route]:
    """Return the route of the module. It is the same for everybody, so every cache may keep it for an hour."""
    content = _FILE.read_bytes()
    tag = f'"{sha256(content).hexdigest()[:32]}"'
    headers = {
        "cache-control": "public, max-age=3600",
        "etag": tag,
        # A module under any other type is not run, and nothing else is ever taken for one.
        "x-content-type-options": "nosniff",
    }

    async def script(request: Request) -> Response:
        if _is_known(request.headers.get("if-none-match", ""), tag):
            return Response(status_code=304, headers=headers)
        return Response(content, headers=headers, media_type="text/javascript")

    return [get("/auth/client.js", script, public)]


def _is_known(sent: str, tag: str) -> bool:
    """Return whether a cache has this version: the weak comparison of RFC 9110 section 13.1.2."""
    return any(one.strip().removeprefix("W/") in {tag, "*"} for one in sent.split(","))
