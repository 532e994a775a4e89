"""What traffic checks know of the place they run in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from routeguard.core.address import X_FORWARDED_FOR, Address, Network, client_address

if TYPE_CHECKING:
    from routeguard.core.exchange import Exchange
    from routeguard.core.services import Services

_UNKNOWN: Final = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Registered once by the composition root; without it nothing is trusted and nothing is https.

    `https` says that browsers reach us by https only. `trusted_proxies` are the networks whose word about the
    client's address counts, and `trusted_proxy_header` is the only header field it is read from.
    """

    https: bool = False
    trusted_proxies: tuple[Network, ...] = ()
    trusted_proxy_header: str = X_FORWARDED_FOR

    def address(self, exchange: Exchange) -> Address | None:
        """Return the client's address, worked out once an exchange; None when it is not known (`client_address`)."""
        known: object = exchange.facts.get(Site, _UNKNOWN)
        if known is _UNKNOWN:
            scope, header = exchange.request.scope, self.trusted_proxy_header
            known = exchange.facts[Site] = client_address(scope, self.trusted_proxies, header=header)
        return known  # type: ignore[return-value]


def site_of(services: Services) -> Site:
    """Return the registered site, or one that trusts no proxy."""
    return services.find(Site) or Site()
