"""What traffic checks know of the place they run in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from routeguard.core.address import Address, Network, client_address

if TYPE_CHECKING:
    from routeguard.core.exchange import Exchange
    from routeguard.core.services import Services

_UNKNOWN: Final = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Registered once by the composition root; without it nothing is trusted and nothing is https.

    `https` says that browsers reach us by https only. `trusted_proxies` are the networks whose word about the
    client's address counts.
    """

    https: bool = False
    trusted_proxies: tuple[Network, ...] = ()

    def address(self, exchange: Exchange) -> Address | None:
        """Return the client's address, worked out once an exchange; None behind a Unix socket without proxies."""
        known: object = exchange.facts.get(Site, _UNKNOWN)
        if known is _UNKNOWN:
            known = exchange.facts[Site] = client_address(exchange.request.scope, self.trusted_proxies)
        return known  # type: ignore[return-value]


def site_of(services: Services) -> Site:
    """Return the registered site, or one that trusts nobody."""
    return services.find(Site) or Site()
