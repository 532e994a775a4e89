"""The client's address: a trust decision, made in one place."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from itertools import islice
from typing import Any, Final

from routeguard.core.errors import ConfigError
from routeguard.core.forwarded import forwarded_for

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

X_FORWARDED_FOR: Final = "X-Forwarded-For"
FORWARDED: Final = "Forwarded"

_MAPPED_BITS: Final = 96
"""Before the IPv4 address in an IPv4-mapped one (RFC 4291 section 2.5.5.2)."""
_MAXIMUM_HOPS: Final = 32
_LONGEST: Final = 45
"""Characters of the longest address: IPv6 in full with an IPv4 end."""


def parse_networks(entries: Iterable[str]) -> tuple[Network, ...]:
    """Read addresses and CIDR ranges strictly: no host bits, zone ids or old number forms (attack KEY-06).

    A range of IPv4-mapped IPv6 (`::ffff:10.0.0.0/104`) is the IPv4 range it stands for, as `parse_address` reads the
    addresses in it (attack RL-05).
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
        network = None if "%" in entry else ip_network(entry, strict=True)
    except ValueError:
        return None
    if isinstance(network, IPv6Network) and network.prefixlen >= _MAPPED_BITS:
        mapped = network.network_address.ipv4_mapped
        if mapped is not None:
            return IPv4Network((mapped, network.prefixlen - _MAPPED_BITS))
    return network


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


def client_address(
    scope: Mapping[str, Any], trusted_proxies: Sequence[Network] = (), *, header: str = X_FORWARDED_FOR
) -> Address | None:
    """Return the address that counts as the client's: the peer's, until proxies are configured.

    `scope` is an ASGI scope. When the peer is a trusted proxy, the hops stated in `header` are read right to left, and
    the first one that is not trusted is the client. `header` is `X-Forwarded-For` or `Forwarded` (RFC 7239), whichever
    the proxies write; the other one is never read, because a proxy passes on what it does not write (attack RL-01). A
    hop that cannot be read ends the walk at the last trusted hop (attack RL-02).

    None when the server names no peer (a Unix socket), and when it has put a client's word in the peer's place or
    among the header fields (uvicorn does, see docs/how-to/behind-a-proxy.md). Raises ConfigError for another header.
    """
    client = scope.get("client")
    peer = parse_address(client[0]) if client else None
    if peer is None or not trusted_proxies:
        return peer
    name = header.lower()
    if name not in _READERS:
        raise ConfigError(f"{header!r} is neither {X_FORWARDED_FOR} nor {FORWARDED}")
    lines = _lines(scope["headers"], name.encode())
    # uvicorn's httptools parser appends trailers to the header fields, so in a chunked body a second line may be the
    # client's, to the right of the proxy's own (attack HTTP-07).
    if len(lines) > 1 and _lines(scope["headers"], b"transfer-encoding"):
        return None
    if not _within(peer, trusted_proxies):
        return None if name == _STANDARD and _replaced(peer, scope["headers"]) else peer
    nearest = peer
    for address in _READERS[name](lines):
        if address is None:
            return nearest
        if not _within(address, trusted_proxies):
            return address
        nearest = address
    return nearest


def is_loopback(host: str) -> bool:
    """Return whether a host (an address without brackets, or a name) is this machine: 127.0.0.0/8, ::1, localhost."""
    address = parse_address(host)
    return host == "localhost" if address is None else address.is_loopback


def address_key(address: Address | None) -> str:
    """Return the name an address is counted under: IPv6 by its /64, which one subscriber holds (attack RL-05)."""
    if isinstance(address, IPv6Address):
        return f"{IPv6Address(int(address) >> 64 << 64)}/64"
    return str(address)


def _within(address: Address, networks: Sequence[Network]) -> bool:
    return any(address in network for network in networks)


def _lines(headers: Iterable[tuple[bytes, bytes]], wanted: bytes) -> list[str]:
    """Return the last lines of a field: each holds a hop, and no more hops than the longest chain are read."""
    found = [value for name, value in headers if name == wanted]
    return [value.decode("latin-1") for value in found[-_MAXIMUM_HOPS:]]


def _replaced(peer: Address, headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether `peer` may be a word of X-Forwarded-For, which `uvicorn main:app` believes unless told not to."""
    return peer in _x_forwarded_for(_lines(headers, _LEGACY.encode()))


def _forwarded(lines: Sequence[str]) -> Iterator[Address | None]:
    """Yield the hops of Forwarded, nearest first; None for one that cannot be read."""
    for hop in islice(forwarded_for(lines), _MAXIMUM_HOPS):
        yield None if hop is None else parse_address(hop)


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


_LEGACY: Final = X_FORWARDED_FOR.lower()
_STANDARD: Final = FORWARDED.lower()
_READERS: Final[Mapping[str, Callable[[Sequence[str]], Iterable[Address | None]]]] = {
    _LEGACY: _x_forwarded_for,
    _STANDARD: _forwarded,
}
