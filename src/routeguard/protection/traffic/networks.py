"""Which networks may call."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from typing import TYPE_CHECKING, Final

from typing_extensions import override

from routeguard.core.address import Address, Network, parse_networks
from routeguard.core.errors import ConfigError
from routeguard.core.policy import BoundCheck, Check, Outcome, Policy, Stage
from routeguard.protection.traffic.problems import NETWORK_NOT_ALLOWED
from routeguard.protection.traffic.site import site_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from routeguard.core.exchange import Exchange
    from routeguard.core.services import Services


def networks(*, allow: Iterable[str] = (), deny: Iterable[str] = ()) -> Policy:
    """Return the policy that answers 403 `network-not-allowed` by the client's address.

    `allow` and `deny` hold addresses and CIDR ranges (``"10.0.0.0/8"``, ``"2001:db8::/32"``) without host bits. A
    denied address is refused even if also allowed; with `allow`, every other address is refused too, one that cannot
    be known included; behind configured proxies such a one is refused by `deny` alone, too. The address is the peer's
    until proxies are configured (attacks RL-01, RL-02).
    """
    return Policy((Networks(_entries(allow), _entries(deny)),))


@dataclass(frozen=True, slots=True)
class Networks(Check):
    """The client's address is in `allow`, when there is one, and not in `deny`."""

    stage = Stage.NETWORK

    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()

    @override
    def bind(self, services: Services) -> BoundCheck:
        """Compile against the trusted proxies. Raises ConfigError naming every bad entry."""
        if not self.allow and not self.deny:
            raise ConfigError("networks() needs an address or a range in allow or deny")
        findings: list[str] = []
        parsed: list[tuple[Network, ...]] = []
        for entries in (self.allow, self.deny):
            try:
                parsed.append(parse_networks(entries))
            except ConfigError as error:
                findings += error.findings
        if findings:
            raise ConfigError(findings)
        allowed, denied = _matcher(parsed[0]), _matcher(parsed[1])
        site = site_of(services)
        only_allowed, denies, address_of = bool(self.allow), bool(self.deny), site.address
        # Behind proxies a client may hide its address, and would so pass a list of those denied.
        unknown = _UNKNOWN if self.allow or site.trusted_proxies else None

        async def admitted(exchange: Exchange) -> Outcome:
            address = address_of(exchange)
            if address is None:
                return unknown
            if (denies and denied(address)) or (only_allowed and not allowed(address)):
                return _REFUSED
            return None

        return admitted

    @override
    def describe(self) -> str:
        words = [f"from {' or '.join(self.allow)}"] if self.allow else []
        return ", ".join([*words, f"not from {' or '.join(self.deny)}"] if self.deny else words)


def _entries(entries: Iterable[str]) -> tuple[str, ...]:
    return (entries,) if isinstance(entries, str) else tuple(entries)


def _matcher(ranges: tuple[Network, ...]) -> Callable[[Address], bool]:
    """Return a test for membership on whole numbers: three times as fast as asking each network object."""
    fours = tuple(_bounds(one) for one in ranges if isinstance(one, IPv4Network))
    sixes = tuple(_bounds(one) for one in ranges if isinstance(one, IPv6Network))

    def inside(address: Address) -> bool:
        number = int(address)
        # No generator: this is on every request.
        for low, high in fours if isinstance(address, IPv4Address) else sixes:  # noqa: SIM110
            if low <= number <= high:
                return True
        return False

    return inside


def _bounds(network: Network) -> tuple[int, int]:
    return int(network.network_address), int(network.broadcast_address)


_REFUSED: Final = NETWORK_NOT_ALLOWED(debug="the client's address is not allowed")
_UNKNOWN: Final = NETWORK_NOT_ALLOWED(debug="the server named no peer address")
