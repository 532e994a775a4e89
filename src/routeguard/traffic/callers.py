"""Under which name a caller is counted: by address, user, API key, plan, or a function of one's own.

Each key turns an exchange into the tagged subject of a counter, so that all counters of one subject share a slot in
a cluster.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Protocol

from routeguard.core.address import Address, address_key, parse_address
from routeguard.core.policy import Stage
from routeguard.core.secret import digest
from routeguard.ephemeral.protocol import hash_tag
from routeguard.traffic.site import site_of

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
        """Return the function from an exchange to the subject of the counter."""
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
    """The principal's id when it starts with `prefix`; everybody else by address, so that nobody is unlimited."""

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
            return hash_tag(known) if not prefix or known.startswith(prefix) else by_address(exchange)

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
        by_address, function, prefix = ip.bind(services), self.function, f"{self.name}:"

        def subject(exchange: Exchange) -> str:
            found = function(exchange)
            if found is None:
                return by_address(exchange)
            # A caller may choose what the function reads: keys stay short whatever he sends (attack RL-16).
            return hash_tag(prefix + (found if len(found) <= _LONGEST else digest(found).hex()))

        return subject


ip: Final = ByAddress()
"""By the client's address."""
user: Final = ByPrincipal("user")
"""By principal: all sessions of a user together."""
api_key: Final = ByPrincipal("API key", "key_")
"""By API key."""
plan: Final = ByPrincipal("plan")
"""By principal, with the rate of his plan: `principal.plan`, else `principal.user.plan`."""


def plan_of(exchange: Exchange) -> str | None:
    """Return the name of the caller's plan, or None."""
    principal: Any = exchange.principal
    found = getattr(principal, "plan", None)
    if found is None:
        found = getattr(getattr(principal, "user", None), "plan", None)
    return found if isinstance(found, str) else None


def key_of(by: Key | Callable[[Exchange], str | None]) -> Key | None:
    """Return `by` as a key, or None when it is neither a key nor a function."""
    if isinstance(by, (ByAddress, ByPrincipal, ByFunction)):
        return by
    if callable(getattr(by, "bind", None)) and isinstance(getattr(by, "stage", None), Stage):
        return by  # type: ignore[return-value]
    return ByFunction(by) if callable(by) and not isinstance(by, type) else None


def _tag_of_address(address: Address | None) -> str:
    return hash_tag(f"ip:{address_key(address)}")


def _tag_of_peer(peer: str | None) -> str:
    return _tag_of_address(parse_address(peer) if peer is not None else None)
