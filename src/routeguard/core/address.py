"""The client's address: a trust decision, made in one place."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from itertools import islice
from typing import Any, Final

from routeguard.core.errors import ConfigError
from routeguard.core.forwarded import forwarded_for

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_MAXIMUM_HOPS: Final = 32
_LONGEST: Final = 45
"""Characters of the longest address: IPv6 in full with an IPv4 end."""


def parse_networks(entries: Iterable[str]) -> tuple[Network, ...]:
    """Read addresses and CIDR ranges strictly: no host bits, zone ids or old number forms (attack KEY-06).

    Raises ConfigError naming every bad entry.
    """
    networks: list[Network] = []
    bad: list[str] = []
    for entry in entries:
        network = _network(entry)
        if network is None:
            bad.append(f"{entry!r} is not an IP address or a CIDR range without host bits")
        else:
            networks.append(network)
    if bad:
        raise ConfigError(bad)
    return tuple(networks)


def _network(entry: str) -> Network | None:
    try:
        return None if "%" in entry else ip_network(entry, strict=True)
    except ValueError:
        return None


def parse_address(text: str) -> Address | None:
    """Read one address; IPv4-mapped IPv6 becomes IPv4, so that one client has one name (attack RL-05)."""
    return _parse(text) if len(text) <= _LONGEST else None


@lru_cache(maxsize=4096)
def _parse(text: str) -> Address | None:
    """Read what is short enough to remember: clients come back, and reading costs more than the rest of a check."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            return None
        return address.ipv4_mapped or address
    return address


def client_address(scope: Mapping[str, Any], trusted_proxies: Sequence[Network] = ()) -> Address | None:
    """Return the address that counts as the client's: the peer, until proxies are configured.

    `scope` is an ASGI scope. When the peer is a trusted proxy, the hops of `Forwarded` (RFC 7239 section 5.2) or,
    without it, `X-Forwarded-For` are read right to left and the first one that is not trusted is the client. A hop
    that cannot be read ends the walk at the last trusted hop: never an attacker's word (attacks RL-01, RL-02).
    None when the server names no peer (a Unix socket).
    """
    client = scope.get("client")
    peer = parse_address(client[0]) if client else None
    if peer is None or not trusted_proxies or not _within(peer, trusted_proxies):
        return peer
    nearest = peer
    for address in _hops(scope["headers"]):
        if address is None:
            return nearest
        if not _within(address, trusted_proxies):
            return address
        nearest = address
    return nearest


def address_key(address: Address | None) -> str:
    """Return the name an address is counted under: IPv6 by its /64, which one subscriber holds (attack RL-05)."""
    if isinstance(address, IPv6Address):
        return f"{IPv6Address(int(address) >> 64 << 64)}/64"
    return str(address)


def _within(address: Address, networks: Sequence[Network]) -> bool:
    return any(address in network for network in networks)


def _hops(headers: Iterable[tuple[bytes, bytes]]) -> Iterator[Address | None]:
    """Yield the stated hops, nearest first; None for one that cannot be read. `Forwarded` wins; never mixed."""
    standard = [value.decode("latin-1") for name, value in headers if name == b"forwarded"]
    if standard:
        stated = (None if hop is None else parse_address(hop) for hop in forwarded_for(standard))
        return islice(stated, _MAXIMUM_HOPS)
    return _x_forwarded_for([value.decode("latin-1") for name, value in headers if name == b"x-forwarded-for"])


def _x_forwarded_for(lines: Sequence[str]) -> Iterator[Address | None]:
    """Yield the hops of X-Forwarded-For, nearest first; None for one that cannot be read."""
    for hop in ",".join(lines).rsplit(",", _MAXIMUM_HOPS)[::-1][:_MAXIMUM_HOPS]:
        yield _hop_address(hop.strip(" \t"))


def _hop_address(hop: str) -> Address | None:
    """Read `1.2.3.4`, `1.2.3.4:80`, `::1`, `[::1]` or `[::1]:80`; anything else (`unknown`, `_x`) is None."""
    if hop.startswith("["):
        inside, bracket, port = hop[1:].partition("]")
        if not bracket or (port and not _is_port(port)):
            return None
        return parse_address(inside)
    host, colon, port = hop.partition(":")
    if colon and ":" not in port:
        return parse_address(host) if _is_port(":" + port) else None
    return parse_address(hop)


def _is_port(text: str) -> bool:
    return text.startswith(":") and 1 <= len(text) - 1 <= 5 and text[1:].isascii() and text[1:].isdigit()
