"""API keys in an app without their store: the service says whose a key is, and each use keeps to what it said."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from routeguard.core.address import parse_networks
from routeguard.core.errors import Unavailable
from routeguard.core.problem import Problem
from routeguard.core.secret import digest
from routeguard.identity.api_keys.models import ApiKey
from routeguard.identity.api_keys.problems import invalid_api_key
from routeguard.identity.api_keys.text import parse_key
from routeguard.protection.traffic.problems import NETWORK_NOT_ALLOWED, QUOTA_EXCEEDED
from routeguard.remote.answers import Answers, Finding
from routeguard.remote.breaker import SERVICE

if TYPE_CHECKING:
    from routeguard.core.address import Address, Network
    from routeguard.remote.introspection import IntrospectionResult, Introspector

Verdict: TypeAlias = ApiKey | Problem

_LAST: Final = 4


class RemoteKeyVerifier:
    """The `KeyVerifier` of an app.

    A key is remembered for a minute at most and while the feed has nothing against it or its user; where it may be
    used from is looked at each time (attack KEY-19). One with a rate or a number of uses of its own is asked about
    at every use, for only the service can count them over all apps.
    """

    def __init__(self, introspector: Introspector, *, answers: Answers[Verdict]) -> None:
        self._introspector = introspector
        self._answers = answers

    async def verify(self, key: bytes, *, address: Address | None) -> ApiKey | Problem:
        """Return the key as presented from `address`, or why not. Raises Unavailable when it cannot be told."""
        if parse_key(key) is None:
            # A typo, or made up: no call is needed to say so (attack KEY-16).
            return invalid_api_key("not the form of a key")

        async def ask() -> Finding[Verdict]:
            known = self._answers.was_good(name)
            return _finding(await self._introspector.ask(key.decode("ascii"), address=address, known=known), key)

        name = digest(key)
        found = await self._answers.get(name, ask)
        if isinstance(found, ApiKey) and found.networks and not _within(address, found.networks):
            return NETWORK_NOT_ALLOWED(debug="the key may not be used from this address")
        return found


def _finding(result: IntrospectionResult, presented: bytes) -> Finding[Verdict]:
    found = result.key
    if result.active and found is not None:
        # Spent at each use; and of a secret that was replaced, only the service knows how long it still counts.
        counted = found.rate is not None or found.remaining is not None
        replaced = found.last_four.encode() != presented[-_LAST:]
        ends_at = float("inf") if found.expires_at is None else found.expires_at.timestamp()
        return Finding(found, (found.id, found.user_id), ends_at, shared=not (counted or replaced))
    if result.active:
        raise Unavailable(f"{SERVICE} (its answer lacks the key)")
    if result.reason == NETWORK_NOT_ALLOWED.code:
        # Of this address only: from elsewhere the key may be good.
        return Finding(NETWORK_NOT_ALLOWED(debug="the service says so"), refused=True, shared=False)
    if result.reason:
        members: dict[str, Any] = {"violated-policies": ["api-key"]}
        refused = QUOTA_EXCEEDED(headers=(("retry-after", str(max(result.retry_after, 1))),), **members)
        return Finding(refused, refused=True, shared=False)
    return Finding(invalid_api_key("the service does not know it"), refused=True)


@lru_cache(maxsize=1024)
def _ranges(networks: tuple[str, ...]) -> tuple[Network, ...]:
    return parse_networks(networks)


def _within(address: Address | None, networks: tuple[str, ...]) -> bool:
    # An unknown address is inside no network.
    return address is not None and any(address in network for network in _ranges(networks))
