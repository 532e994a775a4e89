"""What was revoked at the identity service, asked for over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
from math import ceil
from typing import TYPE_CHECKING, Annotated, Final

import msgspec

from routeguard.core.errors import Unavailable
from routeguard.foundation.invalidation.feed import Feed
from routeguard.remote.breaker import SERVICE, Away
from routeguard.remote.transport import decode

if TYPE_CHECKING:
    from routeguard.core.clock import Clock
    from routeguard.foundation.invalidation.feed import Row
    from routeguard.remote.transport import Transport

LONGEST_WINDOW: Final = 3600
"""Seconds the service tells of."""
_LIMIT: Final = 4 * 1024 * 1024
"""Bytes of one answer; a full one of the service has about half of that."""
_PAGES: Final = 200
"""Answers of one reading: two million revocations. A service that sends more does not come to an end."""
_LOOK: Final = "/.well-known/jwks.json"
_LOOK_LIMIT: Final = 64 * 1024
_OK: Final = 200
_SOON: Final = 1.0
"""Seconds by which a process of the service has usually heard what another one revoked."""


class _Rows(msgspec.Struct):
    rows: list[tuple[Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)], str, float]]
    more: bool = False


class RemoteRead:
    """Reads invalidations as `invalidation.feed.Read` has it, from `GET /oauth/invalidations`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._decoder = msgspec.json.Decoder(_Rows)

    async def __call__(self, *, window: float, after_id: int) -> list[Row]:
        """Return what the last `window` seconds brought and all numbered after `after_id`. Raises Unavailable."""
        target = f"/oauth/invalidations?window={min(ceil(window), LONGEST_WINDOW)}"
        try:
            # A process that knows nothing yet needs only what its own cache could hold.
            rows = await self._pages(target + (f"&after={after_id}" if after_id else ""))
        except Away:
            await self._look()
            raise
        if self._transport.breaker.open:
            await self._look()
        return rows

    async def _pages(self, target: str) -> list[Row]:
        """Ask for one answer after the other: after a mass revocation there is more than one could hold."""
        rows: list[Row] = []
        beyond = 0
        for _ in range(_PAGES):
            answer = await self._transport.call_feed(target + (f"&beyond={beyond}" if beyond else ""), limit=_LIMIT)
            if answer.status != _OK:
                raise Unavailable(f"{SERVICE} (the feed answered {answer.status})")
            page = decode(self._decoder, answer, "the feed")
            rows += page.rows
            if not page.more:
                return rows
            last = max((number for number, _, _ in page.rows), default=0)
            if last <= beyond:
                break
            beyond = last
        raise Unavailable(f"{SERVICE} (the feed does not end)")

    async def _look(self) -> None:
        """Ask for something cheap, so that it is known without anybody waiting whether all of the service is away."""
        with contextlib.suppress(Unavailable):
            await self._transport.fetch(_LOOK, limit=_LOOK_LIMIT)


class RemoteFeed(Feed):
    """The feed of an app, which says everything again after a while.

    What was revoked is told as soon as it is stored; the process of the service that is asked next may not have heard
    of it yet, and answer from its own memory. So what is remembered here of a subject is void once more when the
    process has usually heard, and for good when it would trust no memory without having heard (attack SES-18).
    """

    def __init__(self, transport: Transport, *, clock: Clock, poll: float, trust: float, keep: float) -> None:
        """`trust` is also how long a process of the service believes its memory. All are in seconds."""
        super().__init__(RemoteRead(transport), clock=clock, poll=poll, trust=trust, keep=keep)
        self._again = sorted({min(_SOON, trust), trust})
        self._timers: set[asyncio.TimerHandle] = set()

    def learn(self, *subjects: str) -> None:
        """Distrust what is remembered of `subjects`: now, soon, and when every process must have heard."""
        super().learn(*subjects)
        for delay in self._again:
            self._repeat(delay, subjects)

    async def close(self) -> None:
        """Stop polling; from now on nothing is trusted."""
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        await super().close()

    def _repeat(self, delay: float, subjects: tuple[str, ...]) -> None:
        def repeat() -> None:
            self._timers.discard(timer)
            self.repeats = True
            super(RemoteFeed, self).learn(*subjects)
            self.repeats = False

        timer = asyncio.get_running_loop().call_later(delay, repeat)
        self._timers.add(timer)
