"""How long a principal stands that another service vouched for."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Final

from routeguard.identity.api_keys.models import ApiKey

if TYPE_CHECKING:
    from datetime import datetime

    from routeguard.core.clock import SteadyClock
    from routeguard.foundation.invalidation.feed import Feed


_LONGEST: Final = 3600.0
"""Seconds waited at a time, so that no session however long asks too much of the loop's timer."""


class RemotePrincipalWatcher:
    """Ends an open WebSocket at the first word of the feed about its session, key or user (attack WS-05).

    It ends as well once the feed was silent for longer than `silence` seconds: nothing would tell of a revocation.
    What changed is not asked: the client comes back with its credential, and is let in or not.
    """

    def __init__(self, feed: Feed, *, clock: SteadyClock, silence: float) -> None:
        """`silence` is counted from when the feed's word stopped being trusted."""
        self._feed = feed
        self._clock = clock
        self._silence = silence

    async def wait_until_revoked(self, principal: Any) -> None:
        """Return once a session or key was invalidated, has come to its end, or can no longer be asked about."""
        user_id = principal.user_id if isinstance(principal, ApiKey) else principal.principal_id
        end: datetime | None = principal.expires_at
        ended = asyncio.Event()
        begun = self._clock.monotonic()
        stop = [self._feed.listen(subject, ended.set) for subject in (principal.id, user_id)]
        try:
            while not ended.is_set():
                # A caller let in by the service's answer, without a feed, has the same time.
                left = self._silence - min(self._feed.silent_for(), self._clock.monotonic() - begun)
                if end is not None:
                    left = min(left, end.timestamp() - self._clock.time())
                if left <= 0:
                    return
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(left, _LONGEST)):
                        await ended.wait()
        finally:
            for one in stop:
                one()
