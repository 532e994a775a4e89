"""How long a principal stands that another service vouched for."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from routeguard.api_keys.models import ApiKey

if TYPE_CHECKING:
    from datetime import datetime

    from routeguard.sessions.clock import SteadyClock
    from routeguard.sessions.feed import Feed


class RemoteStanding:
    """Ends an open WebSocket at the first word of the feed about its session, key or user (attack WS-05).

    What changed is not asked: the client comes back with its credential, and is let in or not.
    """

    def __init__(self, feed: Feed, *, clock: SteadyClock) -> None:
        self._feed = feed
        self._clock = clock

    async def until_ended(self, principal: Any) -> None:
        """Return once a session or key was invalidated, or has come to its end."""
        user_id = principal.user_id if isinstance(principal, ApiKey) else principal.principal_id
        end: datetime | None = principal.expires_at
        ended = asyncio.Event()
        stop = [self._feed.listen(subject, ended.set) for subject in (principal.id, user_id)]
        try:
            left = None if end is None else max(end.timestamp() - self._clock.time(), 0.0)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await ended.wait()
        finally:
            for one in stop:
                one()
