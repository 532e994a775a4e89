"""What was revoked at the identity service, asked for over HTTP."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Final

import msgspec

from routeguard.core.errors import Unavailable
from routeguard.remote.breaker import SERVICE

if TYPE_CHECKING:
    from routeguard.remote.transport import Transport
    from routeguard.sessions.feed import Row

LONGEST_WINDOW: Final = 3600
"""Seconds the service tells of."""
_LIMIT: Final = 8 * 1024 * 1024
_OK: Final = 200


class _Rows(msgspec.Struct):
    rows: list[tuple[int, str, float]]


class RemoteRead:
    """Reads invalidations as `sessions.feed.Read` has it, from `GET /oauth/invalidations`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._decoder = msgspec.json.Decoder(_Rows)

    async def __call__(self, *, window: float, after_id: int) -> list[Row]:
        """Return what the last `window` seconds brought and all numbered after `after_id`. Raises Unavailable."""
        target = f"/oauth/invalidations?window={min(ceil(window), LONGEST_WINDOW)}"
        # Whoever knows nothing yet needs only what his own cache could hold.
        answer = await self._transport.call("GET", target + (f"&after={after_id}" if after_id else ""), limit=_LIMIT)
        if answer.status != _OK:
            raise Unavailable(f"{SERVICE} (the feed answered {answer.status})")
        try:
            return self._decoder.decode(answer.body).rows
        except msgspec.DecodeError as error:
            raise Unavailable(f"{SERVICE} (the feed cannot be read)") from error
