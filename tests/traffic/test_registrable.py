"""Names with an owner, and names below which anybody can register one."""

from __future__ import annotations

import subprocess
import sys

import pytest

from routeguard.protection.traffic.registrable import is_public_suffix, registrable_domain


@pytest.mark.parametrize(
    ("host", "domain"),
    [
        ("example.com", "example.com"),
        ("a.b.example.com", "example.com"),
        ("a.example.co.uk", "example.co.uk"),
        ("app.vercel.app", "app.vercel.app"),
        ("x.app.vercel.app", "app.vercel.app"),
        ("www.ck", "www.ck"),
        ("a.b.xn--p1ai", "b.xn--p1ai"),
        ("a.team.internal", "team.internal"),
    ],
)
def test_a_name_has_one_owner(host: str, domain: str) -> None:
    assert registrable_domain(host) == domain
    assert not is_public_suffix(host)


@pytest.mark.parametrize(
    "host",
    [
        "com",
        "co.uk",
        "github.io",
        "vercel.app",
        "kawasaki.jp",
        "x.kawasaki.jp",
        "xn--p1ai",
        "internal",
        "localhost",
        "compute.amazonaws.com",
    ],
)
def test_a_public_suffix_has_none(host: str) -> None:
    assert registrable_domain(host) is None
    assert is_public_suffix(host)


@pytest.mark.parametrize(
    "host", ["", ".", "example.com.", ".example.com", "a..com", "EXAMPLE.com", "exämple.com", "127.0.0.1", "::1"]
)
def test_what_is_no_name_is_neither(host: str) -> None:
    assert registrable_domain(host) is None
    assert not is_public_suffix(host)


def test_the_list_is_loaded_only_when_a_name_is_asked_about() -> None:
    code = (
        "import sys, routeguard, routeguard.protection.traffic.registrable as names\n"
        "assert 'publicsuffixlist' not in sys.modules\n"
        "assert names.is_public_suffix('co.uk')\n"
        "assert 'publicsuffixlist' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
