"""The service's public keys: fetched, kept while it is away, and never more of them than it publishes."""

from __future__ import annotations

import contextlib
import logging
import math
import random
from typing import TYPE_CHECKING, Any, Final

from routeguard.core.errors import Unavailable
from routeguard.core.periodic import Periodic
from routeguard.core.single_flight import SingleFlight
from routeguard.core.strict_json import JSONRefused, load_json
from routeguard.foundation.jose.jwk import KeySet
from routeguard.foundation.jose.models import InvalidToken
from routeguard.remote.breaker import SERVICE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from routeguard.core.clock import Clock
    from routeguard.foundation.invalidation.feed import Feed
    from routeguard.foundation.jose.jwk import Key
    from routeguard.remote.transport import Transport

logger = logging.getLogger("routeguard.remote")

SUBJECT: Final = "signing-keys"
"""What the service's feed says when its keys changed (`tokens.keys.SUBJECT`)."""
_TARGET: Final = "/.well-known/jwks.json"
_LIMIT: Final = 64 * 1024
_MOST: Final = 100
_COOL_DOWN: Final = 30.0
"""Seconds between two fetches for unknown key ids: any caller can make those up (attack JWT-11)."""
_EVERY: Final = 240.0
"""Seconds between two fetches, give or take a quarter; a key is published ten minutes before it signs."""
_RETRY: Final = 0.5
_OK: Final = 200
_KINDS: Final = frozenset({"OKP", "EC", "RSA"})
"""A set that is published has no secrets in it, so a symmetric key was not put there by the service (JWT-03)."""
_UNREADABLE: Final = (JSONRefused, InvalidToken, ValueError, TypeError, LookupError, AttributeError, RecursionError)
"""What an answer that cannot be read raises: whatever it is, the task that looks after the keys goes on."""


class RemoteKeys:
    """The `VerificationKeys` of an app. While the service is away, the keys it had go on verifying.

    Once the feed has said that they changed, none of them counts until they were fetched anew: one may have been
    stolen. `epoch` changes when a key is gone, so that what it verified before is void.
    """

    def __init__(self, transport: Transport, *, clock: Clock, feed: Feed) -> None:
        self._transport = transport
        self._clock = clock
        self._feed = feed
        self._by_kid: Mapping[str, tuple[Any, KeySet]] = {}
        self._due = True
        self._changed_at = 0
        self._asked_at = -math.inf
        self._failed = False
        self._fetches: SingleFlight[None, None] = SingleFlight("routeguard-remote-keys-fetch")
        self._fetching = Periodic("routeguard-remote-keys", self._fetch, pause=self._pause)
        self.epoch = 0
        feed.listen(SUBJECT, self._changed)

    @property
    def none_published(self) -> bool:
        """Whether the service publishes no key at all, as with HS256: then only it can verify."""
        return not self._due and not self._by_kid

    async def start(self) -> None:
        """Fetch the keys and look after them. A service that is away is waited for, verifying nothing."""
        with contextlib.suppress(Unavailable):
            await self._fetch()
        self._fetching.start()

    async def close(self) -> None:
        """Stop looking after them."""
        await self._fetching.close()
        await self._fetches.close()

    def find(self, kid: str) -> KeySet | None:
        """Return the key of this id, if it is published."""
        if self._due:
            return None
        found = self._by_kid.get(kid)
        return None if found is None else found[1]

    async def refresh(self) -> None:
        """Fetch the keys again for an id that is not known, if that was not done just now.

        Raises Unavailable when it cannot be told whether there is such a key.
        """
        # Attack JWT-12: a set that cannot be read is no reason to ask for it with every request.
        if self._clock.monotonic() - self._asked_at >= (_RETRY if self._due else _COOL_DOWN):
            await self._fetch()
        elif self._due or self._failed:
            raise Unavailable(f"{SERVICE} (keys)")

    def signer(self) -> Key:
        """Raise Unavailable: only the service signs."""
        raise Unavailable(f"{SERVICE} (only it signs)")

    def _changed(self) -> None:
        if self._feed.repeats:
            # They were fetched since. Looked at once more, they count meanwhile, should the service go away just now.
            self._fetching.wake()
            return
        self._due = True
        self._changed_at = self._feed.tick
        self.epoch += 1
        self._fetching.wake()

    def _pause(self) -> float:
        return _RETRY if self._due or self._failed else _EVERY * random.uniform(0.75, 1.25)  # noqa: S311 - spreads load

    async def _fetch(self) -> None:
        """Fetch once for everybody who waits. Raises Unavailable."""
        await self._fetches.run(None, self._fetch_now)

    async def _fetch_now(self) -> None:
        failed = True
        try:
            await self._replace()
            failed = False
        finally:
            self._failed = failed

    async def _replace(self) -> None:
        tick, self._asked_at = self._feed.tick, self._clock.monotonic()
        answer = await self._transport.fetch(_TARGET, limit=_LIMIT)
        try:
            found = _read(answer.body) if answer.status == _OK else None
        except _UNREADABLE:
            found = None
        if found is None or (self._by_kid and not found and not self._due):
            # A proxy's page, or an empty set: the keys of before are better than none (attack JWT-12). A service that
            # has changed to HS256 publishes none, and its feed has said that they changed.
            logger.error("the identity service's keys cannot be read; those known before are kept")
            raise Unavailable(f"{SERVICE} (keys)")
        if any(kid not in found or found[kid][0] != jwk for kid, (jwk, _) in self._by_kid.items()):
            self.epoch += 1
        self._by_kid = found
        if self._changed_at <= tick:
            self._due = False


def _read(body: bytes) -> dict[str, tuple[Any, KeySet]] | None:
    """Return the keys of a JWKS by their ids (RFC 7517 section 5); None for anything else."""
    document = load_json(body, max_depth=8)
    keys = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(keys, list) or len(keys) > _MOST:
        return None
    found: dict[str, tuple[Any, KeySet]] = {}
    for jwk in keys:
        if isinstance(jwk, dict) and jwk.get("kty") in _KINDS and isinstance(jwk.get("kid"), str):
            with contextlib.suppress(InvalidToken):
                found[jwk["kid"]] = (jwk, KeySet.load(jwk))
    # Keys, and none that we understand: not the same as none at all.
    return found if found or not keys else None
