"""Registered clients: made, given another secret, revoked; and the keys that verify what they sign."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from routeguard.core.errors import ConfigError
from routeguard.core.secret import new_token
from routeguard.core.security_log import note
from routeguard.foundation.invalidation.remembered import Remembered
from routeguard.foundation.signatures.keys import new_secret, public_key
from routeguard.identity.oauth_server import store
from routeguard.identity.oauth_server.models import NAME_LENGTH, ClientPrincipal

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta

    from routeguard.core.clock import SteadyClock
    from routeguard.foundation.db.database import Database, Transaction
    from routeguard.foundation.invalidation.service import Invalidations
    from routeguard.identity.oauth_server.models import Client

MAXIMUM: Final = 10_000
"""Clients there may be: all of them are kept in memory, so that a made-up id costs no query."""
SUBJECT: Final = "clients"
"""What the invalidation feed calls all clients together."""

_REMEMBERED_FOR: Final = 60.0
_LOOK_AGAIN: Final = 0.2
"""Seconds between two looks for an id that is not known: more of them only show that a caller makes ids up."""


@dataclass(frozen=True, slots=True)
class KnownClient:
    """A client and the keys that verify what it signs; `previous_until` is in monotonic seconds."""

    principal: ClientPrincipal
    public_key: bytes
    previous: bytes | None
    previous_until: float

    def keys(self, now: float) -> tuple[bytes, ...]:
        """Return the keys that count at `now` (monotonic seconds)."""
        return (self.public_key, self.previous) if self.previous and now < self.previous_until else (self.public_key,)


class Clients:
    """The services that may ask this one.

    All are held in memory, for a minute and while the invalidation feed is trusted; each change makes every process
    read them again.
    """

    def __init__(self, database: Database, *, clock: SteadyClock, invalidations: Invalidations) -> None:
        self._database = database
        self._clock = clock
        self._feed = invalidations
        # All of them are one answer: what changes one of them voids it.
        self._known: Remembered[str, Mapping[str, KnownClient]] = Remembered(
            invalidations, clock, capacity=1, life=_REMEMBERED_FOR
        )
        self._last: Mapping[str, KnownClient] = {}
        self._read_at = -math.inf
        self._begun = self._answered = 0
        self._lock = asyncio.Lock()

    async def start(self) -> None:
        """Take turns anew: a lock belongs to one event loop."""
        self._lock = asyncio.Lock()

    async def create(self, tx: Transaction, name: str) -> tuple[str, str]:
        """Register a service; return its id and its secret, which is nowhere else and shown once.

        Raises ConfigError for a name that is empty or too long, and when there are too many clients.
        """
        if not name.strip() or len(name) > NAME_LENGTH or not name.isprintable():
            raise ConfigError(f"the name of a client has 1 to {NAME_LENGTH} printable characters")
        if await store.count(tx) >= MAXIMUM:
            raise ConfigError(f"there are {MAXIMUM} clients already: revoke those that are not used")
        client_id, secret = f"cli_{new_token(16)}", new_secret()
        await store.insert(tx, client_id, name, public_key(secret))
        await self._changed(tx, client_id, "client-created")
        return client_id, secret

    async def list(self, tx: Transaction) -> list[Client]:
        """Return the clients that are not revoked, the oldest first."""
        return await store.find_all(tx)

    async def rotate(self, tx: Transaction, client_id: str, *, overlap: timedelta) -> str | None:
        """Give a client another secret and return it; the old one works on for `overlap`. None for an unknown id.

        Only the last two secrets ever count: a third makes the first void.
        """
        secret = new_secret()
        if not await store.replace_key(tx, client_id, public_key(secret), overlap=overlap.total_seconds()):
            return None
        await self._changed(tx, client_id, "client-secret-rotated")
        return secret

    async def revoke(self, tx: Transaction, client_id: str) -> bool:
        """End a client for good. False for an unknown id."""
        if not await store.revoke(tx, client_id):
            return False
        await self._changed(tx, client_id, "client-revoked")
        return True

    async def find(self, client_id: str) -> KnownClient | None:
        """Return a client that is not revoked, or None. Raises Unavailable when that cannot be told."""
        known = self._known.get(SUBJECT)
        if known is None:
            known = await self._read()
        found = known.get(client_id)
        if found is None and not self._was_just_read():
            # Perhaps it was made a moment ago in another process, and the feed has not said so yet.
            known = await self._read(again=True)
            found = known.get(client_id)
        return found

    def _was_just_read(self) -> bool:
        return self._clock.monotonic() - self._read_at < _LOOK_AGAIN

    async def _read(self, *, again: bool = False) -> Mapping[str, KnownClient]:
        """Read all clients, once for all who wait; with `again` also when what is known counts, unless just read.

        Not a `SingleFlight`: a reading that is under way may have begun before the client was made that is looked
        for, so those who come during it wait for one more, which is theirs together.
        """
        seen = self._begun
        async with self._lock:
            # Begun after this one began to wait, so it is no older than one of our own would be.
            if self._answered > seen:
                return self._last
            known = self._known.get(SUBJECT)
            if known is not None and (not again or self._was_just_read()):
                return known
            self._begun = reading = self._begun + 1
            asked_at, now = self._known.began(), self._clock.monotonic()
            rows = await store.load_keys(self._database, limit=MAXIMUM)
            self._last = {
                row.id: KnownClient(
                    ClientPrincipal(row.id, row.name), row.public_key, row.previous_public_key, now + row.previous_for
                )
                for row in rows
            }
            self._answered, self._read_at = reading, now
            self._known.put(SUBJECT, self._last, subjects=(SUBJECT,), ends_at=math.inf, asked_at=asked_at)
            return self._last

    async def _changed(self, tx: Transaction, client_id: str, event: str) -> None:
        await self._feed.invalidate(tx, SUBJECT)
        tx.after_commit(lambda: note(event, client=client_id))
