"""Headers on every response, each once."""

from __future__ import annotations

from typing import Any

import pytest

from routeguard.core.errors import ConfigError
from routeguard.core.services import Services
from routeguard.protection.traffic.security_headers import (
    PRESETS,
    SecurityHeaders,
    csp_nonce,
    header_bytes,
    security_headers,
)
from routeguard.protection.traffic.site import Site

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("preset", ["api", "pages", "strict"])
def test_presets(preset: Any) -> None:
    """HDR-01, HDR-03, HDR-06."""
    found = dict(header_bytes(preset, https=True))
    assert len(found) == len(header_bytes(preset, https=True))
    assert b"frame-ancestors 'none'" in found[b"content-security-policy"]
    assert b"unsafe" not in found[b"content-security-policy"]
    assert b"{" not in found[b"content-security-policy"]
    assert found[b"x-content-type-options"] == b"nosniff"
    assert found[b"cross-origin-opener-policy"] == b"same-origin"
    assert found[b"cross-origin-resource-policy"] == b"same-origin"
    assert found[b"strict-transport-security"] == b"max-age=63072000; includeSubDomains"
    assert {b"referrer-policy", b"permissions-policy"} <= set(found)
    assert b"x-xss-protection" not in found
    assert b"strict-transport-security" not in dict(header_bytes(preset, https=False))


def test_changes() -> None:
    found = dict(
        header_bytes(
            "api",
            https=True,
            change={
                "referrer-policy": "origin",
                "permissions-policy": None,
                "strict-transport-security": "max-age=1",
                "x-own": "1",
            },
        )
    )
    assert found[b"referrer-policy"] == b"origin"
    assert found[b"x-own"] == b"1"
    assert found[b"strict-transport-security"] == b"max-age=1"
    assert b"permissions-policy" not in found


@pytest.mark.parametrize(
    "change", [{"x": "a\r\nb: c"}, {"X-Upper": "1"}, {"x y": "1"}, {"x": ""}, {"x": "ä"}, {"": "1"}]
)
def test_bad_changes_are_found_at_start_up(services: Services, change: dict[str, str]) -> None:
    """HTTP-03."""
    with pytest.raises(ConfigError):
        security_headers(change=change).bind(services)


def test_unknown_presets_are_found_at_start_up(services: Services) -> None:
    with pytest.raises(ConfigError, match="api, pages, strict"):
        security_headers("none").bind(services)  # type: ignore[arg-type]


async def test_on_a_route(make_exchange: Any, services: Services) -> None:
    exchange = make_exchange("GET")
    exchange.defaults = ((b"x-frame-options", b"DENY"), (b"referrer-policy", b"origin"))
    run = security_headers("pages").bind(services)
    assert await run(exchange) is None
    names = [name for name, _ in exchange.defaults]
    assert len(names) == len(set(names))
    assert dict(exchange.defaults)[b"referrer-policy"] == b"strict-origin-when-cross-origin"
    assert dict(exchange.defaults)[b"x-frame-options"] == b"DENY"
    assert b"strict-transport-security" not in names
    assert exchange.effects == []


async def test_nothing_is_built_twice(make_exchange: Any, services: Services) -> None:
    run = security_headers().bind(services)
    shared = ((b"x-a", b"1"),)
    first, second = make_exchange("GET"), make_exchange("GET")
    first.defaults = second.defaults = shared
    await run(first)
    await run(second)
    assert first.defaults is second.defaults


async def test_many_defaults_do_not_fill_the_memory(make_exchange: Any, services: Services) -> None:
    run = security_headers().bind(services)
    for number in range(50):
        exchange = make_exchange("GET")
        exchange.defaults = ((b"x-%d" % number, b"1"),)
        await run(exchange)
        assert dict(exchange.defaults)[b"x-%d" % number] == b"1"
    kept = [cell.cell_contents for cell in run.__closure__ or () if isinstance(cell.cell_contents, dict)]  # type: ignore[attr-defined]
    assert [len(one) for one in kept] == [8]


@pytest.mark.parametrize(
    ("https", "scheme", "sent"), [(False, "http", False), (False, "https", True), (True, "http", True)]
)
async def test_hsts_on_https_only(make_exchange: Any, https: bool, scheme: str, sent: bool) -> None:
    """CK-13's sibling: behind a proxy that ends TLS the site is still https."""
    services = Services()
    services.add(Site, Site(https=https))
    exchange = make_exchange("GET", ("x-forwarded-proto", "https"), scheme=scheme)
    await security_headers().bind(services)(exchange)
    assert (b"strict-transport-security" in dict(exchange.defaults)) is sent


async def test_nonces(make_exchange: Any, services: Services) -> None:
    run = security_headers("strict").bind(services)
    exchange, other = make_exchange("GET"), make_exchange("GET")
    await run(exchange)
    await run(other)
    nonce = csp_nonce(exchange)
    assert csp_nonce(exchange) == nonce
    assert csp_nonce(other) != nonce
    ((name, value),) = exchange.effects
    assert name == b"content-security-policy"
    assert value.count(f"'nonce-{nonce}'".encode()) == 2
    assert value.startswith(b"default-src 'none'")


async def test_nonces_without_a_preset(make_exchange: Any) -> None:
    exchange = make_exchange("GET")
    nonce = csp_nonce(exchange)
    assert f"script-src 'self' 'nonce-{nonce}'".encode() in exchange.effects[0][1]


def test_a_policy_of_its_own_takes_nonces(services: Services) -> None:
    assert security_headers(change={"content-security-policy": "script-src{nonce}"}).describe() == "api headers"
    assert SecurityHeaders().preset in PRESETS
