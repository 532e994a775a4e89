"""The client's address: the peer's, until somebody trusted says otherwise."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routeguard.core.address import address_key, client_address, parse_address, parse_networks
from routeguard.core.errors import ConfigError

PROXIES = parse_networks(["10.0.0.0/8", "2001:db8:ff::/48"])
PROXY = "10.0.0.1"
CLIENT = "203.0.113.7"


def scope(peer: str | None, *headers: tuple[str, str]) -> dict[str, Any]:
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    return {"client": (peer, 1) if peer else None, "headers": raw}


def seen(peer: str | None, *headers: tuple[str, str], proxies: Any = PROXIES, header: str = "X-Forwarded-For") -> str:
    return str(client_address(scope(peer, *headers), proxies, header=header))


@pytest.mark.parametrize("header", ["x-forwarded-for", "forwarded", "x-real-ip", "cf-connecting-ip", "true-client-ip"])
def test_nobody_is_believed_by_default(header: str) -> None:
    """RL-01: whatever rotates in front, one bucket."""
    values = ["1.2.3.4", "for=1.2.3.4", "1.2.3.4, 10.0.0.1", "for=1.2.3.4;proto=https"]
    assert {seen(CLIENT, (header, value), proxies=()) for value in values} == {CLIENT}
    # Nor when proxies are configured and the peer is none of them.
    assert {seen(CLIENT, (header, value)) for value in values} == {CLIENT}


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        (CLIENT, CLIENT),
        (f"6.6.6.6, {CLIENT}", CLIENT),
        (f"6.6.6.6,{CLIENT},10.2.2.2", CLIENT),
        (f"{CLIENT}, 10.1.1.1, 10.2.2.2", CLIENT),
        ("10.1.1.1, 10.2.2.2", "10.1.1.1"),
        (f"{CLIENT}:443", CLIENT),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("::ffff:203.0.113.7", CLIENT),
        (f" \t{CLIENT}\t ", CLIENT),
        ("2001:db8:ff::1", "2001:db8:ff::1"),
        # Unreadable: the walk ends at the last hop that was trusted.
        ("", PROXY),
        ("unknown", PROXY),
        ("_hidden", PROXY),
        (f"{CLIENT}, unknown", PROXY),
        (f"{CLIENT}, ", PROXY),
        (f"{CLIENT}, garbage, 10.2.2.2", "10.2.2.2"),
        ("1.2.3", PROXY),
        ("0x01020304", PROXY),
        ("01.2.3.4", PROXY),
        (f"{CLIENT}:", PROXY),
        (f"{CLIENT}:999999", PROXY),
        (f"{CLIENT}:x", PROXY),
        ("[2001:db8::1", PROXY),
        ("[2001:db8::1]x", PROXY),
        ("[]", PROXY),
        ("fe80::1%eth0", PROXY),
        ("\x00", PROXY),
        ("\xff", PROXY),
        (f"{CLIENT} 10.1.1.1", PROXY),
        ("localhost", PROXY),
        ("²03.0.113.7", PROXY),
        ("1.2.3.4\u00a0", PROXY),
    ],
)
def test_x_forwarded_for(stated: str, expected: str) -> None:
    """RL-02."""
    assert seen(PROXY, ("x-forwarded-for", stated)) == expected


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        (f"for={CLIENT}", CLIENT),
        (f"For={CLIENT};proto=https;by=10.0.0.1", CLIENT),
        (f'for="{CLIENT}"', CLIENT),
        (f'proto=http; for="{CLIENT}:80"', CLIENT),
        ('for="[2001:db8::1]:443"', "2001:db8::1"),
        (f"for=6.6.6.6, for={CLIENT}", CLIENT),
        (f"for={CLIENT}, for=10.1.1.1", CLIENT),
        (f'for={CLIENT}, for="_hidden"', PROXY),
        ("for=unknown", PROXY),
        ("proto=https", PROXY),
        ("", PROXY),
        (f"for=6.6.6.6;for={CLIENT}", PROXY),
        ('for="', PROXY),
        ("for", PROXY),
        (f'for="{CLIENT}', PROXY),
        ('for=""', PROXY),
    ],
)
def test_forwarded(stated: str, expected: str) -> None:
    """RL-02, RFC 7239."""
    assert seen(PROXY, ("forwarded", stated), header="Forwarded") == expected


SPOOFS = [
    ("forwarded", "for=6.6.6.6"),
    ("x-real-ip", "6.6.6.6"),
    ("x-client-ip", "6.6.6.6"),
    ("true-client-ip", "6.6.6.6"),
    ("cf-connecting-ip", "6.6.6.6"),
    ("x-forwarded", "6.6.6.6"),
    ("forwarded-for", "6.6.6.6"),
    ("x_forwarded_for", "6.6.6.6"),
    ("x-forwarded-for ", "6.6.6.6"),
    ("x-forwarded-by", "6.6.6.6"),
]


@pytest.mark.parametrize("spoof", SPOOFS, ids=[name for name, _ in SPOOFS])
def test_one_header_is_read_and_no_other(spoof: tuple[str, str]) -> None:
    """RL-01: a proxy that writes one header passes on what a client wrote into another."""
    real = ("x-forwarded-for", CLIENT)
    assert seen(PROXY, real, spoof) == seen(PROXY, spoof, real) == CLIENT
    assert seen(PROXY, spoof) == seen(PROXY, ("x-forwarded-for", ""), spoof) == PROXY


def test_the_header_is_the_one_the_proxy_writes() -> None:
    both = [("x-forwarded-for", "6.6.6.6"), ("forwarded", f"for={CLIENT}")]
    assert seen(PROXY, *both, header="Forwarded") == seen(PROXY, *both[::-1], header="forwarded") == CLIENT
    assert seen(PROXY, *both) == "6.6.6.6"
    assert seen(PROXY, ("x-forwarded-for", CLIENT), ("forwarded", "for=unknown"), header="FORWARDED") == PROXY
    assert seen(PROXY, ("x-forwarded-for", CLIENT), header="Forwarded") == PROXY
    for header in ("X-Real-IP", "", "x_forwarded_for", "X-Forwarded-For, Forwarded"):
        with pytest.raises(ConfigError):
            seen(PROXY, ("x-forwarded-for", CLIENT), header=header)


def test_a_trailer_is_not_the_proxys_word() -> None:
    """HTTP-07: uvicorn's httptools appends trailers to the header fields, after what the proxy wrote."""
    chunked = ("transfer-encoding", "chunked")
    for name, value in (("x-forwarded-for", "{}"), ("forwarded", "for={}")):
        proxied, trailer = (name, value.format(CLIENT)), (name, value.format("6.6.6.6"))
        assert seen(PROXY, chunked, proxied, trailer, header=name) == "None"
        # uvicorn has taken the trailer for the peer.
        assert seen("6.6.6.6", chunked, proxied, trailer, header=name) == "None"
        assert seen(PROXY, chunked, proxied, header=name) == CLIENT
        assert seen(PROXY, proxied, proxied, header=name) == CLIENT


def test_a_peer_that_the_server_took_from_a_header_is_not_believed() -> None:
    """RL-01: `uvicorn main:app` believes X-Forwarded-For, whatever we are told to read."""
    spoofed = [("forwarded", f"for={CLIENT}"), ("x-forwarded-for", "6.6.6.6")]
    assert seen("6.6.6.6", *spoofed, header="Forwarded") == "None"
    assert seen("6.6.6.6", spoofed[0], ("x-forwarded-for", "9.9.9.9, 6.6.6.6:80"), header="Forwarded") == "None"
    # Those who come past the proxies are who they are.
    assert seen(CLIENT, *spoofed, header="Forwarded") == CLIENT
    assert seen(CLIENT, ("x-forwarded-for", CLIENT)) == CLIENT


def test_several_lines_are_one_list() -> None:
    assert seen(PROXY, ("x-forwarded-for", "6.6.6.6"), ("x-forwarded-for", CLIENT)) == CLIENT
    assert seen(PROXY, ("x-forwarded-for", CLIENT), ("x-forwarded-for", "10.1.1.1")) == CLIENT


def test_long_chains_are_cut_on_the_attackers_side() -> None:
    assert seen(PROXY, ("x-forwarded-for", "6.6.6.6, " * 5000 + CLIENT)) == CLIENT
    assert seen(PROXY, ("x-forwarded-for", "6.6.6.6" + ", 10.1.1.1" * 100)) == "10.1.1.1"


def test_no_peer() -> None:
    assert client_address(scope(None), PROXIES) is None
    assert client_address(scope("unix:/run/x"), PROXIES) is None


def test_one_client_has_one_name() -> None:
    """RL-05."""
    assert seen("::ffff:203.0.113.7") == seen(CLIENT) == CLIENT
    assert seen("::ffff:10.0.0.1", ("x-forwarded-for", CLIENT)) == CLIENT
    keys = {address_key(parse_address(f"::ffff:203.0.113.{n}")) for n in range(50)}
    assert len(keys) == 50


def test_ipv6_is_counted_by_64() -> None:
    """RL-05: one subscriber holds 2**64 addresses."""
    assert address_key(parse_address("2001:db8:1:2:3:4:5:6")) == "2001:db8:1:2::/64"
    assert address_key(parse_address("2001:db8:1:2::")) == "2001:db8:1:2::/64"
    assert address_key(parse_address("2001:db8:1:3::")) != "2001:db8:1:2::/64"
    assert address_key(parse_address(CLIENT)) == CLIENT
    assert address_key(None) == "None"


@pytest.mark.parametrize(
    "entry", ["10.0.0.1/8", "10.0.0", "10.0.0.0/33", "::/129", "fe80::1%eth0", "", "x", "010.0.0.1", "1.2.3.4/0x8"]
)
def test_networks_are_strict(entry: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_networks([entry, "10.0.0.0/8", "bad too"])
    assert len(caught.value.findings) == 2


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
        ("::ffff:10.1.2.3", "10.1.2.3/32"),
        ("::ffff:0:0/96", "0.0.0.0/0"),
        ("::ffff:a00:0/104", "10.0.0.0/8"),
        ("0:0:0:0:0:FFFF:203.0.113.7/128", "203.0.113.7/32"),
        ("::ffff:203.0.113.6/127", "203.0.113.6/31"),
        ("::/0", "::/0"),
        ("::/95", "::/95"),
        ("::fffe:0:0/96",) * 2,
        ("64:ff9b::/96",) * 2,
    ],
)
def test_ranges_of_mapped_addresses_are_ipv4(entry: str, expected: str) -> None:
    """RL-05: an address in them is read as IPv4, so that nothing would ever match."""
    assert [str(one) for one in parse_networks([entry])] == [expected]
    mapped = parse_networks(["::ffff:10.0.0.0/104"])
    assert seen("::ffff:10.0.0.1", ("x-forwarded-for", CLIENT), proxies=mapped) == CLIENT


def test_ranges_of_mapped_addresses_have_no_host_bits() -> None:
    with pytest.raises(ConfigError):
        parse_networks(["::ffff:10.0.0.1/104"])


@given(st.ip_addresses())
def test_addresses_come_back(address: IPv4Address | IPv6Address) -> None:
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    assert parse_address(str(address)) == (mapped or address)
    assert parse_address(f"{address}%1") is None
    assert ip_address(address_key(address).removesuffix("/64")).version == address.version


HOPS = st.lists(
    st.sampled_from(
        [CLIENT, "6.6.6.6", "10.1.1.1", "unknown", "", "[2001:db8::1]:80", "for=", '"', "for=10.9.9.9", ";"]
    ),
    max_size=6,
)


@given(HOPS, HOPS, st.sampled_from([PROXY, CLIENT, "2001:db8:ff::1"]))
def test_never_an_attackers_word(left: list[str], right: list[str], peer: str) -> None:
    """RL-01, RL-02: what an attacker writes left of the hop our proxy appended changes nothing."""
    appended = f"{CLIENT}, 10.3.3.3"
    for name, entry in (("x-forwarded-for", appended), ("forwarded", f"for={CLIENT}, for=10.3.3.3")):
        answers = {seen(peer, (name, ", ".join([*forged, entry])), header=name) for forged in (left, right, [])}
        assert answers == {CLIENT}
