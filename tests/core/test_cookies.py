"""Cookies are read byte for byte, and written within the rules of RFC 6265bis."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routeguard.core.cookies import CookieAttributes, CookieScheme, find_cookie, format_cookie, parse_cookies
from tests.steady import work_of

NAME = b"__Host-routeguard"


@pytest.mark.parametrize(
    ("header", "pairs"),
    [
        ("", []),
        ("a=1", [("a", "1")]),
        ("a=1; b=2", [("a", "1"), ("b", "2")]),
        ("a=1;b=2", [("a", "1"), ("b", "2")]),
        ("a=", [("a", "")]),
        ("=1", [("", "1")]),
        ("a", []),
        (";;", []),
        ("a=1;;b=2", [("a", "1"), ("b", "2")]),
        ("a=b=c", [("a", "b=c")]),
        (" \ta= 1\t ", [("a", "1")]),
        ("a =1", [("a", "1")]),
        ("a=1; a=2", [("a", "1"), ("a", "2")]),
        ('a="1; b=2"', [("a", '"1'), ("b", '2"')]),
        ("a=1, b=2", [("a", "1, b=2")]),
        ("A=1; a=2", [("A", "1"), ("a", "2")]),
        pytest.param('a="1"', [("a", '"1"')], id="CK-05 quoted"),
        pytest.param('a="\\061"', [("a", '"\\061"')], id="CK-05 octal"),
        pytest.param("a=%31", [("a", "%31")], id="CK-05 percent"),
        pytest.param("a=\\1", [("a", "\\1")], id="CK-05 backslash"),
        pytest.param("$Version=1; a=1; $Path=/", [("$Version", "1"), ("a", "1"), ("$Path", "/")], id="RFC 2965"),
    ],
)
def test_pairs(header: str, pairs: list[tuple[str, str]]) -> None:
    assert parse_cookies(header) == pairs
    assert parse_cookies(header.encode()) == pairs


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(b"__host-routeguard", id="CK-02"),
        pytest.param(b"__HOST-routeguard", id="CK-02 upper"),
        pytest.param(b"__Host-Routeguard", id="CK-02 mixed"),
        pytest.param(b"\xe2\x80\x80__Host-routeguard", id="CK-03 U+2000"),
        pytest.param(b"\xa0__Host-routeguard", id="CK-03 NBSP"),
        pytest.param(b"\xc2\xa0__Host-routeguard", id="CK-03 NBSP UTF-8"),
        pytest.param(b"\x0b__Host-routeguard", id="CK-03 VT"),
        pytest.param(b"\x85__Host-routeguard", id="CK-03 NEL"),
        pytest.param(b"__Host-routeguard\xa0", id="CK-03 after"),
        pytest.param(b"x__Host-routeguard", id="longer"),
        pytest.param(b'"__Host-routeguard', id="quoted"),
        pytest.param(b"x=__Host-routeguard", id="in a value"),
        pytest.param(b"__Host%2Drouteguard", id="escaped"),
        pytest.param(b"__Host-routeguard[]", id="array"),
        pytest.param(b"\x00__Host-routeguard", id="NUL"),
        pytest.param(b"a,__Host-routeguard", id="comma"),
    ],
)
def test_not_our_cookie(name: bytes) -> None:
    assert find_cookie(name + b"=forged", NAME) == (None, False)
    assert find_cookie(name + b"=forged; __Host-routeguard=ours", NAME) == (b"ours", False)


@pytest.mark.parametrize("other", [b"a=\xff\xfe", b"a=\x00", "ä=ö".encode(), b"=;=;", b"a=\x01\x7f", b'a="', b"\r\n"])
def test_ours_is_found_behind_garbage(other: bytes) -> None:
    """CK-07."""
    assert find_cookie(other + b"; __Host-routeguard=ours", NAME) == (b"ours", False)
    assert find_cookie(b"__Host-routeguard=ours; " + other, NAME) == (b"ours", False)


def test_two_are_told_apart_from_one() -> None:
    """CSRF-16, SES: two cookies of the name, in both orders."""
    assert find_cookie(b"__Host-routeguard=a; __Host-routeguard=b", NAME) == (b"a", True)
    assert find_cookie(b"__Host-routeguard=b; x=1; __Host-routeguard=a", NAME) == (b"b", True)
    assert find_cookie(b"__Host-routeguard=a; __Host-routeguard=a", NAME) == (b"a", True)
    assert find_cookie(b"", NAME) == (None, False)
    assert find_cookie(b"__Host-routeguard=", NAME) == (b"", False)


SOUP = st.lists(
    st.sampled_from([b"n", b"xn", b"n=", b"=", b";", b" ", b"\t", b"1", b"\xa0", b"\x0b", b'"', b"N="]), max_size=30
).map(b"".join)


@given(SOUP | st.binary(max_size=200))
def test_both_readers_agree(header: bytes) -> None:
    """CK-15: the fast search finds exactly what splitting finds, and neither raises."""
    listed = [value for name, value in parse_cookies(without_blanks(header)) if name == "n"]
    found, doubled = find_cookie(without_blanks(header), b"n")
    assert (None if found is None else found.decode("latin-1")) == (listed[0] if listed else None)
    assert doubled == (len(listed) > 1)
    assert len(parse_cookies(header)) == len(parse_cookies(without_blanks(header)))


def without_blanks(header: bytes) -> bytes:
    """Return the header without blanks before '=', the one point in which the two differ."""
    return re.sub(rb"(?<![ \t])[ \t]++=", b"=", header)


def test_a_blank_before_the_equals_sign() -> None:
    assert find_cookie(b"__Host-routeguard =planted; __Host-routeguard=ours", NAME) == (b"ours", False)


@pytest.mark.parametrize(
    "part",
    [
        b"a=1; ",
        b"%s=",
        b" ",
        b";",
        b"x%s=",
        b"; %s",
        b"%s; ",
        b"%s=1;",
        b" " * 60 + b"%s=",
        b"\t" * 2000 + b"%s=",
        b"__Host-",
    ],
)
def test_64_kilobytes_are_read_in_5_milliseconds(part: bytes) -> None:
    """CK-08."""
    part = part.replace(b"%s", NAME)
    header = (part * (65_536 // len(part)))[:65_000] + b";" + NAME + b"=1"
    for read, limit in ((lambda: find_cookie(header, NAME), 0.005), (lambda: parse_cookies(header), 0.05)):
        assert work_of(read, tries=5) < limit


PLAIN = CookieAttributes(secure=False)


def test_written() -> None:
    assert format_cookie("__Host-a", "v") == b"__Host-a=v; Path=/; Secure; HttpOnly; SameSite=Lax"
    assert format_cookie("a", "", max_age=0, attributes=PLAIN) == b"a=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax"
    strict = format_cookie("a", "v", path="/auth", http_only=False, attributes=CookieAttributes(same_site="Strict"))
    assert strict == b"a=v; Path=/auth; Secure; SameSite=Strict"
    shared = format_cookie("__Secure-a", "v", attributes=CookieAttributes(domain="example.com"))
    assert shared == b"__Secure-a=v; Path=/; Domain=example.com; Secure; HttpOnly; SameSite=Lax"
    framed = format_cookie("__Host-a", "v", attributes=CookieAttributes(same_site="None", partitioned=True))
    assert framed == b"__Host-a=v; Path=/; Secure; HttpOnly; SameSite=None; Partitioned"


def test_a_deletion_has_the_same_attributes() -> None:
    """CK-12."""
    made, gone = format_cookie("__Host-a", "v"), format_cookie("__Host-a", "", max_age=0)
    assert gone.split(b"; ", 1)[1].replace(b"Max-Age=0; ", b"") == made.split(b"; ", 1)[1]


@pytest.mark.parametrize(
    ("name", "value", "path"),
    [
        (name.replace("?", bad), value.replace("?", bad), path.replace("?", bad))
        for bad in ("\r", "\n", "\x00", ";", "\r\nSet-Cookie: x=y", "\x7f", "\u2028", "é")
        for name, value, path in (("a?", "v", "/"), ("a", "v?", "/"), ("a", "v", "/?"))
    ]
    + [
        ("a b", "v", "/"),
        ("a=b", "v", "/"),
        ("", "v", "/"),
        ("a", "v w", "/"),
        ("a", 'v"', "/"),
        ("a", "v\\", "/"),
        ("a", "v,", "/"),
        ("a", "v", ""),
        ("a", "v", "x"),
        ("a\n", "v", "/"),
        ("a", "v\n", "/"),
        ("a", "v", "/\n"),
    ],
)
def test_what_would_break_the_header_is_an_error(name: str, value: str, path: str) -> None:
    """CK-10, HTTP-03."""
    with pytest.raises(ValueError, match="octet"):
        format_cookie(name, value, path=path)


def test_size() -> None:
    """CK-09."""
    assert len(format_cookie("a", "v" * 4094)) > 4094
    with pytest.raises(ValueError, match="4096"):
        format_cookie("a", "v" * 4095)


@pytest.mark.parametrize(
    "terms", [{"attributes": PLAIN}, {"path": "/a"}, {"attributes": CookieAttributes(domain="example.com")}]
)
def test_the_host_prefix_has_terms(terms: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="__Host-"):
        format_cookie("__Host-a", "v", **terms)


def test_the_secure_prefix_has_one_term() -> None:
    with pytest.raises(ValueError, match="__Secure-"):
        format_cookie("__Secure-a", "v", attributes=PLAIN)


@pytest.mark.parametrize(
    ("attributes", "why"),
    [
        ({"same_site": "lax"}, "same_site"),
        ({"same_site": "None", "secure": False}, "Secure"),
        ({"partitioned": True, "secure": False}, "Secure"),
        *(
            ({"domain": bad}, "octet")
            for bad in (
                "a\r\nb.c",
                "a.b; Secure",
                "a b.c",
                ".a.b",
                "a.b.",
                "A.b",
                "ä.b",
                "a..b",
                "b",
                "a.b\n",
                "\x00.b",
            )
        ),
    ],
)
def test_attributes_no_browser_would_keep_are_an_error(attributes: dict[str, Any], why: str) -> None:
    """CK-10, CK-14."""
    with pytest.raises(ValueError, match=why):
        CookieAttributes(**attributes)


def test_no_two_settings_share_a_name_that_a_browser_would_send_twice() -> None:
    """A partitioned cookie and one that is not are two to a browser, and so are those of two domains."""
    host = "a.id.example.com"
    for domain in ("", "example.com", "id.example.com", host):
        for partitioned in (False, True):
            attributes = CookieAttributes(domain=domain, same_site="None", partitioned=partitioned)
            scheme = CookieScheme(host=host, attributes=attributes)
            others = scheme.former("access")
            assert len({(name, one.domain, one.partitioned) for name, one in others}) == 7
            for name, one in others:
                # Of one name are only those that differ by their domain: a scheme takes the other ones away.
                alike = one.partitioned == partitioned and bool(one.domain) == bool(domain)
                assert (name == scheme.name("access")) == alike


def test_a_former_cookie_is_cleared_where_it_was_sent_and_never_for_nothing() -> None:
    cookie = CookieScheme(host="id.example.com", attributes=CookieAttributes(domain="example.com")).cookie()
    assert cookie.name == "__Secure-routeguard"
    assert cookie.clearing_former(b"") == cookie.clearing_former(b"a=b; x__Host-routeguard=b") == []
    (gone,) = cookie.clearing_former(b"__Host-routeguard=a")
    assert gone == b"__Host-routeguard=; Path=/; Max-Age=0; Secure; HttpOnly; SameSite=Lax"
    (gone,) = cookie.clearing_former(b"__Secure-routeguard=a")
    assert b"; Domain=id.example.com; " in gone


@given(st.text(max_size=20), st.text(max_size=40))
def test_what_is_written_is_read_back(name: str, value: str) -> None:
    try:
        made = format_cookie(name, value, attributes=PLAIN)
    except ValueError:
        return
    assert parse_cookies(made.split(b";")[0]) == [(name, value)]
    assert find_cookie(made.split(b";")[0], name.encode()) == (value.encode(), False)
