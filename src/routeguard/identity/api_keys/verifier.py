"""Whose an API key is, from the text of the key: from memory, else by one query."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache
from math import ceil
from typing import TYPE_CHECKING, Any, Final

from routeguard.core.address import Address, address_key, parse_networks
from routeguard.core.errors import Unavailable
from routeguard.core.rate import parse_rate
from routeguard.core.secret import digest, equal
from routeguard.foundation.ephemeral.protocol import Attempt, Ephemeral, Quota, hash_tag
from routeguard.foundation.invalidation.remembered import Remembered
from routeguard.identity.api_keys import store
from routeguard.identity.api_keys.problems import invalid_api_key
from routeguard.identity.api_keys.text import parse_key
from routeguard.protection.traffic.problems import NETWORK_NOT_ALLOWED, QUOTA_EXCEEDED

if TYPE_CHECKING:
    from routeguard.core.address import Network
    from routeguard.core.clock import SteadyClock
    from routeguard.core.problem import Problem
    from routeguard.foundation.db.database import Database
    from routeguard.foundation.invalidation.service import Invalidations
    from routeguard.identity.api_keys.models import ApiKey, ApiKeySettings
    from routeguard.identity.api_keys.uses import UseCounter
    from routeguard.identity.sessions.models import SessionSettings

_CAPACITY: Final = 8192
"""Keys remembered by a process; the oldest makes room. About 2 KB each."""
_NOBODY: Final = bytes(32)
"""What a secret is compared with where there is none, so that an unknown id costs the same (attack KEY-01)."""
_RETRY: Final = 0.5
"""Seconds."""


class StoredKeys:
    """The `KeyVerifier` of the identity service.

    A key is answered from memory for `envelope_life`, while this process hears of what is invalidated and neither
    the key nor its user was; else it is one query, the same for a wrong secret and an id that never was. What is
    remembered is the key, never a decision about it: networks, scopes and limits are asked each time (attack KEY-19).
    """

    def __init__(
        self,
        database: Database,
        ephemeral: Ephemeral,
        *,
        clock: SteadyClock,
        settings: ApiKeySettings,
        sessions: SessionSettings,
        invalidations: Invalidations,
        uses: UseCounter,
    ) -> None:
        self._database = database
        self._ephemeral = ephemeral
        self._clock = clock
        self._feed = invalidations
        self._uses = uses
        self._failures = _quota(settings.failures)
        self._lookup = database.prepare(store.lookup())
        # By the digest of the whole text, so that memory holds no key.
        self._known: Remembered[bytes, tuple[store.StoredKey, ApiKey]] = Remembered(
            invalidations, clock, capacity=_CAPACITY, life=sessions.envelope_life.total_seconds()
        )

    async def verify(self, key: bytes, *, address: Address | None) -> ApiKey | Problem:
        """Return the key as presented from `address`, and count this use; or why not. Raises Unavailable."""
        parsed = parse_key(key)
        known = None if parsed is None else await self._find(parsed.id, digest(key))
        if known is None:
            return await self._failed(address, "no such key" if parsed is not None else "not the form of a key")
        stored, found = known
        # Before anything is spent: a stolen key cannot be used up from another network.
        if found.networks and not _within(address, found.networks):
            return NETWORK_NOT_ALLOWED(debug="the key may not be used from this address")
        if stored.rate is not None and (refused := await self._spend(stored.id, stored.rate)) is not None:
            return refused
        if stored.remaining is not None:
            # One statement spends the use: of many at once, no more pass than were left (attack KEY-13).
            try:
                async with self._database.transaction() as tx:
                    left = await store.consume(tx, stored, now=self._clock.time())
            except Unavailable:
                await self._give_back(stored)
                raise
            if left is None:
                return await self._failed(address, "used up")
            found = replace(found, remaining=left)
        return self._count(digest(key), stored.owner_id, found)

    async def wait_until_revoked(self, principal: Any) -> None:
        """Return once a key was revoked, has expired, was rotated or may do something else (attack WS-05)."""
        key: ApiKey = principal
        changed = asyncio.Event()
        stop = [self._feed.listen(subject, changed.set) for subject in (key.id, key.user_id)]
        try:
            while True:
                changed.clear()
                stored = await self._look(key.id)
                if stored is None or not _stands(stored, key, self._clock.time()):
                    return
                left = None if stored.expires_at is None else max(stored.expires_at - self._clock.time(), 0.0)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(left):
                        await changed.wait()
        finally:
            for end in stop:
                end()

    async def _find(self, key_id: str, presented: bytes) -> tuple[store.StoredKey, ApiKey] | None:
        known = self._known.get(presented)
        if known is not None:
            return known
        asked_at = self._known.began()
        row = await self._lookup.one(id=key_id)
        stored = None if row is None else store.StoredKey(*row)
        ends_at = _matches(stored, presented, self._clock.time())
        if stored is None or ends_at is None:
            self._known.forget(presented)
            return None
        key = self._uses.added_to(stored).key()
        found = (stored, key)
        self._known.put(presented, found, subjects=(stored.id, stored.user_id), ends_at=ends_at, asked_at=asked_at)
        return found

    def _count(self, presented: bytes, owner_id: str, found: ApiKey) -> ApiKey:
        """Count a use, and return the key with it, and with those before it that are not written yet."""
        self._uses.count(found.id, owner_id)
        known, now = self._known.get(presented), datetime.fromtimestamp(self._clock.time(), UTC)
        number = (found if known is None else known[1]).usage_count + 1
        if known is not None:
            stored, key = known
            self._known.amend(presented, (stored, replace(key, usage_count=number, last_used_at=now)))
        return replace(found, usage_count=number, last_used_at=now)

    async def _look(self, key_id: str) -> store.StoredKey | None:
        while True:
            try:
                row = await self._lookup.one(id=key_id)
            except Unavailable:
                await asyncio.sleep(_RETRY)
            else:
                return None if row is None else store.StoredKey(*row)

    async def _spend(self, key_id: str, rate: str) -> Problem | None:
        """Count one use against the key's own limit."""
        [hit] = await self._ephemeral.hit([_own_use(key_id, rate)])
        return None if hit.allowed else _exceeded("api-key", hit.reset)

    async def _give_back(self, stored: store.StoredKey) -> None:
        """Count a use no more that an outage kept from being made."""
        if stored.rate is not None:
            with contextlib.suppress(Unavailable):
                await self._ephemeral.hit([_own_use(stored.id, stored.rate)._replace(cost=-1)])

    async def _failed(self, address: Address | None, debug: str) -> Problem:
        """Return 401, and 429 to an address that goes on presenting what is no key (attack KEY-16)."""
        # The key is invalid, whatever the counter says: with the counter away the answer is known all the same.
        with contextlib.suppress(Unavailable):
            name = f"{hash_tag(f'ip:{address_key(address)}')}:api-key"
            [hit] = await self._ephemeral.hit([Attempt(name, self._failures)])
            if not hit.allowed:
                return _exceeded("api-key-failures", hit.reset)
        return invalid_api_key(debug)


def _matches(stored: store.StoredKey | None, presented: bytes, now: float) -> float | None:
    """Return until when the presented secret counts (wall seconds), or None when it is no live key's.

    Both hashes are compared whatever the first comparison says, with or without a row.
    """
    current = equal(presented, stored.secret_hash if stored is not None else _NOBODY)
    before = equal(presented, (stored.previous_hash if stored is not None else None) or _NOBODY)
    if stored is None or not stored.live(now):
        return None
    end = stored.expires_at if stored.expires_at is not None else float("inf")
    if current:
        return end
    if before and stored.previous_until is not None and now < stored.previous_until:
        return min(end, stored.previous_until)
    return None


def _stands(stored: store.StoredKey, key: ApiKey, now: float) -> bool:
    """Return whether an open connection may go on: the key lives, has its secret of then, and may do the same."""
    # The last use may be this very connection. The last characters change with the secret: after the rotation of a
    # stolen key, the connection of the thief must close.
    if not stored._replace(remaining=None).live(now):
        return False
    then = (key.privilege, key.scopes, key.networks, key.last_four)
    found = stored.key()
    return (found.privilege, found.scopes, found.networks, found.last_four) == then


@lru_cache(maxsize=1024)
def _ranges(networks: tuple[str, ...]) -> tuple[Network, ...]:
    return parse_networks(networks)


def _within(address: Address | None, networks: tuple[str, ...]) -> bool:
    # An unknown address is inside no network.
    return address is not None and any(address in network for network in _ranges(networks))


@lru_cache(maxsize=1024)
def _quota(text: str) -> Quota:
    rate = parse_rate(text)
    return Quota(limit=rate.limit, period=rate.seconds, burst=rate.limit)


def _own_use(key_id: str, rate: str) -> Attempt:
    return Attempt(f"{hash_tag(key_id)}:own:{rate}", _quota(rate))


def _exceeded(policy: str, reset: float) -> Problem:
    members: dict[str, Any] = {"violated-policies": [policy]}
    return QUOTA_EXCEEDED(headers=(("retry-after", str(max(ceil(reset), 1))),), **members)
