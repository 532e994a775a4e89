"""How much mail anybody can make us send to one address."""

from __future__ import annotations

import contextlib
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import anyio

from routeguard.core.errors import Unavailable
from routeguard.core.secret import digest
from routeguard.foundation.ephemeral.protocol import Attempt, Quota, hash_tag

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from routeguard.foundation.ephemeral.protocol import Ephemeral

_QUOTA: Final = Quota(limit=5, period=3600.0, burst=5)


class MailQuota:
    """Counts the mails a stranger can ask for, each kind by itself: five an hour to one address.

    Counted before it is known whether the address is a user's, so that nothing differs for those that are not. What is
    over is not mailed, and that is not told: the answer was given before. Notices of what has happened to an account
    are not counted, or a stranger could keep them from its owner.
    """

    def __init__(self, store: Ephemeral) -> None:
        self._store = store

    @asynccontextmanager
    async def spend(self, kind: str, email_key: str) -> AsyncIterator[bool]:
        """Count one mail for the work inside; False when it is over. Raises Unavailable while the counters are away.

        Given back when the work raises: then nothing was mailed, and the same request may come again.
        """
        # By digest: no address stands in the store of the counters.
        key = f"{hash_tag(f'mail:{digest(email_key).hex()}')}:{kind}"
        attempt = Attempt(key, _QUOTA)
        (hit,) = await self._store.hit([attempt])
        done = False
        try:
            yield hit.allowed
            done = True
        finally:
            if hit.allowed and not done:
                with anyio.CancelScope(shield=True), contextlib.suppress(Unavailable):
                    await self._store.hit([attempt._replace(cost=-1)])
