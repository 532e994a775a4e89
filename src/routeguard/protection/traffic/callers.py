"""Under which name a caller is counted: by address, user, API key, plan, or a function of one's own.

Each key turns an exchange into the tagged subject of a counter, so that all counters of one subject share a slot in
a cluster.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Protocol
from uuid import UUID

from routeguard.core.address import Address, address_key, parse_address
from routeguard.core.policy import Stage
from routeguard.core.secret import digest
from routeguard.foundation.ephemeral.protocol import escape_tag, hash_tag
from routeguard.protection.traffic.site import site_of

if TYPE_CHECKING:
    from routeguard.core.exchange import Exchange
    from routeguard.core.services import Services

Subject = Callable[["Exchange"], str]

_REMEMBERED: Final = 8192
_LONGEST: Final = 80


class Key(Protocol):
    """What `by=` takes. `name` is printed in the matrix; `stage` says what must be known first."""

    @property
    def name(self) -> str:
        """Its word in the matrix."""
        ...

    @property
    def stage(self) -> Stage:
        """NETWORK when the address is enough, else QUOTA."""
        ...

    def bind(self, services: Services) -> Subject:
        """Return the function from an exchange to the subject of the counter, which may be any text."""
        ...


@dataclass(frozen=True, slots=True)
class ByAddress:
    """The client's address: IPv6 by /64, IPv4-mapped IPv6 as IPv4 (attack RL-05)."""

    name: str = "address"
    stage: Stage = Stage.NETWORK

    def bind(self, services: Services) -> Subject:
        """Compile against the trusted proxies; without any, a peer is looked up once and remembered."""
        site = site_of(services)
        if site.trusted_proxies:
            named = lru_cache(_REMEMBERED)(_tag_of_address)
            address_of = site.address
            return lambda exchange: named(address_of(exchange))
        by_peer = lru_cache(_REMEMBERED)(_tag_of_peer)

        def subject(exchange: Exchange) -> str:
            peer = exchange.request.scope.get("client")
            return by_peer(peer[0] if peer else None)

        return subject


@dataclass(frozen=True, slots=True)
class ByPrincipal:
    """The principal's id when it starts with `prefix`; every other by address, so that no caller is unlimited."""

    name: str
    prefix: str = ""
    stage: Stage = Stage.QUOTA

    def bind(self, services: Services) -> Subject:
        """Compile."""
        by_address, prefix = ip.bind(services), self.prefix

        def subject(exchange: Exchange) -> str:
            principal = exchange.principal
            if principal is None:
                return by_address(exchange)
            known = principal.principal_id
            if prefix and not known.startswith(prefix):
                return by_address(exchange)
            # Ids of ours are such; one of an application's own must not be the subject of an address or a function.
            return hash_tag(known) if known.isascii() and ":" not in known else _chosen("", known)

        return subject


@dataclass(frozen=True, slots=True)
class ByFunction:
    """A function of one's own: ``(exchange) -> str | None``. None counts the caller by address."""

    function: Callable[[Exchange], str | None]
    stage: Stage = Stage.QUOTA

    @property
    def name(self) -> str:
        """Its word in the matrix: the function's name."""
        return str(getattr(self.function, "__name__", type(self.function).__name__))

    def bind(self, services: Services) -> Subject:
        """Compile."""
        by_address, function, name = ip.bind(services), self.function, self.name

        def subject(exchange: Exchange) -> str:
            found = function(exchange)
            if found is None:
                return by_address(exchange)
            # True for everybody would be one budget for all.
            if isinstance(found, bool) or not isinstance(found, (str, int, UUID)):
                raise TypeError(f"rate_limit(by={name}) answered {type(found).__name__}: return text, a number or None")
            return _chosen(name, str(found))

        return subject


@dataclass(frozen=True, slots=True)
class ByKey:
    """A key of one's own, whose subjects are any text: a caller may choose what they are made of."""

    key: Key

    @property
    def name(self) -> str:
        """Its word in the matrix."""
        return self.key.name

    @property
    def stage(self) -> Stage:
        """When it can be told."""
        return self.key.stage

    def bind(self, services: Services) -> Subject:
        """Compile."""
        bound, name = self.key.bind(services), self.name
        return lambda exchange: _chosen(name, bound(exchange))


ip: Final = ByAddress()
"""By the client's address."""
user: Final = ByPrincipal("user")
"""By principal: all sessions of a user together."""
api_key: Final = ByPrincipal("API key", "key_")
"""By API key."""
plan: Final = ByPrincipal("plan")
"""By principal, with the rate of the principal's plan: `principal.plan`, else `principal.user.plan`."""


def plan_of(exchange: Exchange) -> str | None:
    """Return the name of the caller's plan, or None."""
    principal: Any = exchange.principal
    found = getattr(principal, "plan", None)
    if found is None:
        found = getattr(getattr(principal, "user", None), "plan", None)
    return found if isinstance(found, str) else None


def key_of(by: Key | Callable[[Exchange], str | None]) -> Key | None:
    """Return `by` as a key, or None when it is neither a key nor a function."""
    if isinstance(by, (ByAddress, ByPrincipal, ByFunction, ByKey)):
        return by
    if callable(getattr(by, "bind", None)) and isinstance(getattr(by, "stage", None), Stage):
        return ByKey(by)  # type: ignore[arg-type]
    return ByFunction(by) if callable(by) and not isinstance(by, type) else None


def _chosen(kind: str, text: str) -> str:
    """Return the tag of a text that a caller may have chosen: its own for each text of each kind, and short (RL-16).

    `kind` is the name of what chose it, empty for ids of principals. A long text is counted by its digest, behind a
    mark that no short text can hold: else who sends the digest of another's text would spend that one's units.
    """
    if len(text) <= _LONGEST and text.isascii():
        return hash_tag(f"by:{kind.replace(':', ' ')}:{text}")
    hashed = digest(text.encode("utf-8", "surrogatepass")).hex()
    return f"{{by:{escape_tag(kind.replace(':', ' '))}:%#{hashed}}}"


def _tag_of_address(address: Address | None) -> str:
    return hash_tag(f"ip:{address_key(address)}")


def _tag_of_peer(peer: str | None) -> str:
    return _tag_of_address(parse_address(peer) if peer is not None else None)
