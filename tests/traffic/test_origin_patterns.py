"""Patterns of origins: the labels of one owner match, and no other origin does."""

from __future__ import annotations

import string
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from routeguard.core.errors import ConfigError
from routeguard.core.redaction import quoted
from routeguard.core.services import Services
from routeguard.protection.traffic.cors import cors, preflight
from routeguard.protection.traffic.csrf import CsrfTokens, csrf
from routeguard.protection.traffic.origins import parse_origins, read_origins
from tests.fakes import deployment

from .conftest import Caller, SetClock

COVERS = ("protection/traffic/origins",)

TEAM = "https://*-team.example.app"
PREVIEW = "https://*.preview.example.com:8443"

MATCHES = [
    "https://x-team.example.app",
    "https://pr-12-team.example.app",
    "https://a--b-team.example.app",
    "https://0-team.example.app",
    f"https://{'a' * 58}-team.example.app",
    "https://team-team.example.app",
    "https://ab--c-team.example.app",
    "https://x.preview.example.com:8443",
]
FOREIGN = [
    "https://x-team.example.app.attacker.com",
    "https://attacker.com/.x-team.example.app",
    "https://x-team.example.com",
    "https://a.b-team.example.app",
    "https://a.x.preview.example.com:8443",
    "https://.x-team.example.app",
    "https://-team.example.app",
    "https://.preview.example.com:8443",
    "https://preview.example.com:8443",
    "https://X-team.example.app",
    "https://x-TEAM.example.app",
    "HTTPS://x-team.example.app",
    "https://x-team.example.app.",
    "https://x-team.example.app:443",
    "https://x-team.example.app:8443",
    "https://x.preview.example.com",
    "https://x.preview.example.com:84430",
    "https://x.preview.example.com:08443",
    "https://u@x-team.example.app",
    "https://u:x-team.example.app",
    "https://attacker.com#-team.example.app",
    "https://attacker.com\\-team.example.app",
    "https://attacker.com?-team.example.app",
    "https://attacker.com/-team.example.app",
    "https://attacker.com:1-team.example.app",
    "http://x-team.example.app",
    "https://x-teamXexample.app",
    "https://*-team.example.app",
    "https://x_y-team.example.app",
    "https://%78-team.example.app",
    "https://x%2e-team.example.app",
    "https://x\0-team.example.app",
    "https://x-team.example.app\0",
    "https://x\n-team.example.app",
    "https://x-team.example.app\n",
    " https://x-team.example.app",
    "https://x -team.example.app",
    "https://x-team.example.app https://a.com",
    "https://é-team.example.app",
    "https://xn--e-team.example.app",
    "https://xn---team.example.app",
    "https://xn--80ak6aa92e.preview.example.com:8443",
    "https://--team.example.app",
    "https://-x-team.example.app",
    "https://x-.preview.example.com:8443",
    f"https://{'a' * 59}-team.example.app",
    f"https://{'a' * 64}.preview.example.com:8443",
    f"https://{'a' * 1_000_000}-team.example.app",
    "https://[::1]-team.example.app",
    "x-team.example.app",
    "//x-team.example.app",
    "null",
    "",
    "*",
    "https://",
]


@pytest.mark.parametrize("origin", MATCHES)
def test_a_label_of_the_pattern_is_trusted(origin: str) -> None:
    assert read_origins([TEAM, PREVIEW]).trusts(origin.encode())


@pytest.mark.parametrize("origin", FOREIGN, ids=lambda origin: origin[:60])
def test_a_look_alike_of_a_pattern_is_not(origin: str) -> None:
    """CSRF-06, CSRF-07."""
    assert not read_origins([TEAM, PREVIEW]).trusts(origin.encode("latin-1"))


def test_a_request_without_an_origin_matches_nothing() -> None:
    assert not read_origins([TEAM]).trusts(None)
    assert not read_origins([]).trusts(None)


def test_a_name_longer_than_names_may_be_does_not_match() -> None:
    parent = ".".join(["a" * 60] * 3 + ["b" * 44, "com"])
    trusts = read_origins([f"https://*.{parent}:8443"]).trusts
    room = 253 - len(parent) - 1
    assert trusts(f"https://{'x' * room}.{parent}:8443".encode())
    assert not trusts(f"https://{'x' * (room + 1)}.{parent}:8443".encode())


def test_exact_origins_are_one_look_up() -> None:
    origins = read_origins(["https://a.example", TEAM])
    assert origins.trusts(b"https://a.example")
    alone = read_origins(["https://a.example"])
    assert alone.trusts == alone.exact.__contains__


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        *(
            (one, "a public suffix")
            for one in (
                "https://*.vercel.app",
                "https://*-team.vercel.app",
                "https://*.co.uk",
                "https://*.github.io",
                "https://*.com",
                "https://*.xn--p1ai",
                "https://*.kawasaki.jp",
                "https://*.localhost",
                "https://*.internal",
                "https://*.vercel.app:8443",
            )
        ),
        *(
            (one, "one * in the first label")
            for one in (
                "*",
                "https://*",
                "https://*:8443",
                "*.example.com",
                "//*.example.com",
                "*://a.example.com",
                "https://**.a.com",
                "https://*-*.a.com",
                "https://*.*.a.com",
                "https://a.*.example.com",
                "https://a.com:*",
                "https://*.a.com/",
                "https://*.A.com",
                "https://*.a.com.",
                "https://*.a.com:443",
                "https://u@*.a.com",
                "https://-*.a.com",
                "https://*-.a.com",
                "https://*.1.2.3",
                "https://*.1.2.3.4",
                "https://[*::1]",
                "https://*.ä.com",
                "https://*.a..com",
                "https://*\n.a.com",
                "https://*.a.com\n",
                f"https://{'a' * 63}*.a.com",
                f"https://*.{'a.' * 125}com",
            )
        ),
        ("http://*.example.com", "must be https"),
        ("http://*.localhost:3000", "must be https"),
        ("https://xn--*.example.com", "inside punycode"),
        ("https://*.a.com:70000", "65535"),
    ],
)
def test_a_pattern_that_others_could_match_is_refused_at_start_up(pattern: str, words: str) -> None:
    """CSRF-07: a wildcard where anybody can register a name, or without the scheme."""
    with pytest.raises(ConfigError) as refused:
        read_origins(["https://ok.example", pattern, "https://bad.example/"])
    first, second = refused.value.findings
    assert quoted(pattern) in first
    assert words in first
    assert "https://bad.example/" in second


def test_where_one_origin_is_meant_no_pattern_is_read() -> None:
    with pytest.raises(ConfigError, match="written exactly"):
        parse_origins([TEAM])


def naive(pattern: str, origin: str) -> bool:
    """Return the same by taking both apart, label by label."""
    scheme, _, authority = origin.partition("://")
    host, colon, port = authority.partition(":")
    wanted, wanted_colon, wanted_port = pattern.removeprefix("https://").partition(":")
    if scheme != "https" or (colon, port) != (wanted_colon, wanted_port) or len(host) > 253:
        return False
    (label, *parents), (wanted_label, *wanted_parents) = host.split("."), wanted.split(".")
    before, after = wanted_label.split("*")
    letters = string.ascii_lowercase + string.digits + "-"
    pieces = [label[start:end] for start in range(len(label)) for end in range(start + 1, len(label) + 1)]
    return (
        parents == wanted_parents
        and any(before + piece + after == label and set(piece) <= set(letters) for piece in pieces)
        and len(label) < 64
        and label[0] != "-"
        and label[-1] != "-"
        and label[:4] != "xn--"
    )


PATTERNS = st.sampled_from([TEAM, PREVIEW, "https://a*b.example.com", "https://x*.example.com", "https://a-*-a.ab.com"])
PIECES = st.sampled_from(
    [
        "https://",
        "http://",
        "a",
        "b",
        "x",
        "n",
        "-",
        "--",
        "xn--",
        ".",
        ":",
        ":8443",
        "@",
        "*",
        "A",
        "a" * 60,
        "-team",
        "\0",
        ".example.app",
        ".example.com",
        ".preview.example.com:8443",
        ".ab.com",
    ]
)


@given(PATTERNS, st.lists(PIECES, max_size=7))
@example("https://a*b.example.com", ["https://", "a", "b", ".example.com"])
def test_a_pattern_matches_what_a_naive_matcher_does(pattern: str, pieces: list[str]) -> None:
    origins = read_origins([pattern])
    head, _, tail = pattern.partition("*")
    for origin in ("".join(pieces), head + "".join(pieces) + tail, f"https://{''.join(pieces)}{tail}"):
        assert origins.trusts(origin.encode()) is naive(pattern, origin), origin


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("origin", "status"), [(MATCHES[0], None), (MATCHES[-1], None), *((one, 403) for one in FOREIGN[:50])]
)
@pytest.mark.parametrize("kind", ["http", "websocket"])
async def test_requests_and_sockets_are_judged_alike(
    make_exchange: Any, clock: SetClock, kind: str, origin: str, status: int | None
) -> None:
    """CSRF-07, WS-01."""
    services = Services()
    services.add(CsrfTokens, CsrfTokens(deployment(), origins=[TEAM, PREVIEW], clock=clock))
    headers = [("cookie", "__Host-routeguard=abc"), ("origin", origin)]
    refused = await csrf().bind(services)(make_exchange("POST", *headers, kind=kind, principal=Caller()))
    assert getattr(refused, "status", None) == status


@pytest.mark.anyio
@pytest.mark.parametrize("origin", FOREIGN[:50])
async def test_a_foreign_page_reads_nothing_under_a_pattern(
    make_exchange: Any, services: Services, origin: str
) -> None:
    """CSRF-21."""
    policy = cors(origins=[TEAM, PREVIEW], credentials=True)
    exchange = make_exchange("GET", ("origin", origin))
    await policy.bind(services)(exchange)
    assert exchange.effects == [(b"vary", b"Origin")]
    asked = make_exchange("OPTIONS", ("origin", origin), ("access-control-request-method", "POST"))
    answer = preflight(policy, asked.request)
    assert answer is not None
    assert answer.status == 403
