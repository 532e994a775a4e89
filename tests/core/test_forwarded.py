"""`Forwarded` as RFC 7239 section 4 has it: what a client writes never becomes a hop that a proxy stated."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routeguard.core.address import client_address, parse_networks
from routeguard.core.forwarded import forwarded_for

PROXIES = parse_networks(["10.0.0.0/8"])
PROXY = "10.0.0.1"
CLIENT = "203.0.113.7"
SPOOFED = "6.6.6.6"


def seen(*lines: str) -> str:
    scope: dict[str, Any] = {
        "client": (PROXY, 1),
        "headers": [(b"forwarded", line.encode("latin-1")) for line in lines],
    }
    return str(client_address(scope, PROXIES, header="Forwarded"))


@pytest.mark.parametrize(
    "line",
    [
        # RFC 7239 section 4: separators inside a quoted string separate nothing.
        f'for={CLIENT};host="a,for={SPOOFED}"',
        f'for={CLIENT};host="a;for={SPOOFED}"',
        f'for={CLIENT};host="a, for={SPOOFED}, b"',
        f'host="a,for={SPOOFED}";for={CLIENT}',
        f'host="\\", for={SPOOFED}";for={CLIENT}',
        f'for={CLIENT};host="a\\",for={SPOOFED}"',
        f'for={CLIENT};host="\\\\"',
        f'for={CLIENT};host="\\\\\\", for={SPOOFED}"',
        f'for={SPOOFED};host=",";proto=http, for={CLIENT};host=","',
        # A quoted string that the client leaves open swallows nothing.
        f'for="{SPOOFED}, for={CLIENT}',
        f'for={SPOOFED};host=", for={CLIENT}',
        f'for={SPOOFED};host="\\, for={CLIENT}',
        f'for={SPOOFED};host=",for="{CLIENT}"',
        f'"""", for="{CLIENT}:80"',
        f",,for={SPOOFED},,, for={CLIENT}",
        f";;;=, for={CLIENT};",
        f";for={CLIENT};;proto=https",
        'FOR="\\2\\03.0.113.7"',
        f'for="{CLIENT}:_port"',
        f'for={CLIENT};by="_x";proto=https;host="[2001:db8::1]:8080"',
        f"for={CLIENT}\t;\tproto=https",
    ],
)
def test_the_address_is_the_one_the_proxy_wrote(line: str) -> None:
    assert seen(line) == CLIENT


@pytest.mark.parametrize(
    "element",
    [
        "",
        "  ",
        ";",
        "unknown",
        "for=unknown",
        "for=_hidden",
        'for="_hidden:80"',
        'for="unknown:80"',
        "proto=https",
        # Of two equal parameters one reader takes the first and the next the last.
        f"for={CLIENT};for={CLIENT}",
        f"for={CLIENT};For={SPOOFED}",
        f"for={CLIENT};host=a;host=b",
        # Not of the grammar: no token, no quoted string, space around "=", an IPv6 address without brackets or quotes.
        f"for={CLIENT}:80",
        "for=[2001:db8::1]",
        'for="2001:db8::1"',
        "for=2001:db8::1",
        f"for = {CLIENT}",
        f"for= {CLIENT}",
        f"for ={CLIENT}",
        f"for={CLIENT} x",
        f"for={CLIENT} proto=https",
        f'for="{CLIENT}"x',
        f'for="{CLIENT}""{CLIENT}"',
        f'for="{CLIENT}',
        f'for={CLIENT}"',
        f'x"for={CLIENT}"',
        "for",
        "for=",
        '="x"',
        f"={CLIENT}",
        f"f\xf6r={CLIENT}",
        f"for='{CLIENT}'",
        f'for="{CLIENT}\x7f"',
        f'for="{CLIENT}\x00"',
        # Not an address, or not written as one.
        'for=""',
        'for="[]"',
        f'for="[{CLIENT}]"',
        'for="[::1"',
        f'for="{CLIENT}:"',
        f'for="{CLIENT}:123456"',
        'for="[fe80::1%eth0]"',
        "for=01.2.3.4",
        "for=1.2.3",
        "for=0x01020304",
        "for=localhost",
        f'for=" {CLIENT}"',
        f'for="{CLIENT}, {CLIENT}"',
        f'for={CLIENT};host="\\"',
        f'for={CLIENT};host=\\"a"',
    ],
)
def test_what_cannot_be_read_names_nobody(element: str) -> None:
    """RL-02: the walk ends at the proxy, and what stands to the left is not looked at."""
    assert seen(element) == PROXY
    assert seen(f"for={SPOOFED}, {element}") == PROXY
    assert seen(f"for={SPOOFED}", element) == PROXY
    assert seen(f"{element}, for={CLIENT}") == CLIENT
    assert seen(element, f"for={CLIENT}") == CLIENT
    assert seen(f"for={SPOOFED}, {element}, for=10.1.1.1") == "10.1.1.1"


def test_several_lines_are_one_list() -> None:
    assert seen(f"for={SPOOFED}", f"for={CLIENT}") == CLIENT
    assert seen(f"for={CLIENT}", 'for="10.1.1.1:80"', "for=10.2.2.2") == CLIENT
    # A string does not go on in the next line.
    assert seen(f'for={SPOOFED};host="', f'for={CLIENT};host="a"') == CLIENT
    assert seen(f'for={CLIENT};host="', f'for={SPOOFED}"') == PROXY


def test_ipv6() -> None:
    for node in ("[2001:db8::7]", "[2001:DB8::7]:443", "[2001:db8:0:0::7]:_x"):
        assert seen(f'for={SPOOFED}, for="{node}"') == "2001:db8::7"
    assert seen(f'for="[::ffff:{CLIENT}]"') == CLIENT


def test_only_the_end_of_a_long_line_is_read() -> None:
    assert seen(f'for={SPOOFED};x="{"a" * 100_000}", for={CLIENT}') == CLIENT
    assert seen(f"{',' * 100_000}, for={CLIENT}") == CLIENT
    assert seen("\\" * 100_000 + f", for={CLIENT}") == CLIENT
    # What is cut in the middle is not an element.
    assert seen(f'for={CLIENT};x="{"a" * 5_000}"') == PROXY
    inside = f"for={SPOOFED};y=" + "a" * (4096 - len(f"for={SPOOFED};y=,for=10.1.1.1"))
    assert seen(f'for={CLIENT};x=",{inside},for=10.1.1.1') == "10.1.1.1"
    assert list(forwarded_for(["x" * 5_000])) == [None]


TEXT = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=12)
ADDRESSES = st.one_of(st.ip_addresses(v=4).map(str), st.ip_addresses(v=6).map(lambda one: f"[{one}]"))


def quoted(text: str) -> str:
    return '"' + "".join(f"\\{one}" if one in '"\\' else one for one in text) + '"'


@st.composite
def elements(draw: st.DrawFn) -> tuple[str, str]:
    """Return an element that a proxy may write, and the address it states."""
    address = draw(ADDRESSES)
    pairs = [f"for={quoted(address)}"]
    pairs += [f"{name}={quoted(draw(TEXT))}" for name in draw(st.sets(st.sampled_from(["by", "host", "proto", "x"])))]
    return ";".join(draw(st.permutations(pairs))), address.strip("[]")


@given(st.lists(elements(), min_size=1, max_size=5), st.text(st.characters(max_codepoint=0xFF), max_size=60))
def test_whatever_is_quoted_and_whatever_stands_before(written: list[tuple[str, str]], before: str) -> None:
    """RL-02: every element a proxy wrote is read as it was meant, in either way of appending it."""
    wanted = [address for _, address in reversed(written)]
    texts = [element for element, _ in written]
    for lines in ([", ".join([before, *texts])], [before, *texts], [before, ",".join(texts)]):
        assert list(forwarded_for(lines))[: len(wanted)] == wanted
