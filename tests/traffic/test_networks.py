"""Addresses decide, and nobody states his own."""

from __future__ import annotations

from typing import Any

import pytest

from routeguard.core.address import parse_networks
from routeguard.core.errors import ConfigError
from routeguard.core.problem import Problem
from routeguard.core.services import Services
from routeguard.protection.traffic.networks import networks
from routeguard.protection.traffic.site import Site

pytestmark = pytest.mark.anyio

OFFICE = networks(allow=["192.0.2.0/24", "2001:db8::/32", "10.0.0.1"])


@pytest.mark.parametrize(
    ("peer", "status"),
    [
        ("192.0.2.0", None),
        ("192.0.2.255", None),
        ("192.0.3.0", 403),
        ("10.0.0.1", None),
        ("10.0.0.2", 403),
        ("2001:db8::1", None),
        ("2001:db9::", 403),
        ("::ffff:192.0.2.7", None),
        ("::ffff:192.0.3.7", 403),
        ("::c000:0207", 403),
        ("fe80::1%eth0", 403),
        (None, 403),
        ("unix", 403),
        ("0300.0000.0002.0001", 403),
    ],
)
async def test_allowed_only(make_exchange: Any, outcome: Any, peer: str | None, status: int | None) -> None:
    """RL-05: one client has one name, mapped or not."""
    assert await outcome(OFFICE, make_exchange("GET", peer=peer)) == status


@pytest.mark.parametrize("entry", ["::ffff:192.0.2.0/120", "::ffff:c000:200/120"])
async def test_a_range_of_mapped_addresses(make_exchange: Any, outcome: Any, entry: str) -> None:
    """RL-05: it was taken and never matched, so an allow-list let nobody in and a list of those denied let all."""
    for peer, inside in (("192.0.2.7", True), ("::ffff:192.0.2.7", True), ("192.0.3.7", False), ("::c000:207", False)):
        assert (await outcome(networks(allow=[entry]), make_exchange("GET", peer=peer)) is None) == inside
        assert (await outcome(networks(deny=[entry]), make_exchange("GET", peer=peer)) == 403) == inside


async def test_denied_wins(make_exchange: Any, outcome: Any) -> None:
    both = networks(allow=["192.0.2.0/24"], deny=["192.0.2.66"])
    assert await outcome(both, make_exchange("GET", peer="192.0.2.65")) is None
    assert await outcome(both, make_exchange("GET", peer="192.0.2.66")) == 403
    assert await outcome(networks(deny=["192.0.2.66"]), make_exchange("GET", peer="198.51.100.1")) is None
    assert await outcome(networks(deny=["192.0.2.66"]), make_exchange("GET", peer="::ffff:192.0.2.66")) == 403
    assert await outcome(networks(deny=["192.0.2.66"]), make_exchange("GET", peer=None)) is None


@pytest.mark.parametrize(
    "headers",
    [
        [("x-forwarded-for", "192.0.2.1")],
        [("forwarded", "for=192.0.2.1")],
        [("x-real-ip", "192.0.2.1")],
        [("x-client-ip", "192.0.2.1")],
        [("true-client-ip", "192.0.2.1")],
        [("x-forwarded-for", "10.0.0.1, 192.0.2.1")],
    ],
)
async def test_headers_are_not_believed(make_exchange: Any, outcome: Any, headers: Any) -> None:
    """RL-01."""
    assert await outcome(OFFICE, make_exchange("GET", *headers, peer="203.0.113.7")) == 403


async def test_behind_a_proxy(make_exchange: Any) -> None:
    """RL-02: the proxy's word counts, what stands left of it does not."""
    services = Services()
    services.add(Site, Site(trusted_proxies=parse_networks(["10.9.0.0/16"])))
    run = OFFICE.bind(services)
    for stated, status in (
        ("192.0.2.1", None),
        ("203.0.113.7", 403),
        ("192.0.2.1, 203.0.113.7", 403),
        ("203.0.113.7, 192.0.2.1", None),
        ("192.0.2.1, 10.9.1.1", None),
        ("unknown", 403),
        ("", 403),
        ("192.0.2.1, garbage", 403),
        ("192.0.2.1,", 403),
    ):
        answer = await run(make_exchange("GET", ("x-forwarded-for", stated), peer="10.9.0.1"))
        assert (answer.status if isinstance(answer, Problem) else answer) == status, stated


async def test_who_hides_behind_a_proxy_is_denied(make_exchange: Any) -> None:
    """RL-01: with a list of those denied, an address that cannot be known would be the way round it."""
    services = Services()
    services.add(Site, Site(trusted_proxies=parse_networks(["10.9.0.0/16"])))
    run = networks(deny=["203.0.113.0/24"]).bind(services)
    hidden = [("transfer-encoding", "chunked"), ("x-forwarded-for", "203.0.113.7"), ("x-forwarded-for", "192.0.2.1")]
    for exchange in (make_exchange("POST", *hidden, peer="10.9.0.1"), make_exchange("GET", peer=None)):
        refused = await run(exchange)
        assert isinstance(refused, Problem)
        assert refused.status == 403
    assert await run(make_exchange("POST", ("x-forwarded-for", "192.0.2.1"), peer="10.9.0.1")) is None


async def test_the_address_is_worked_out_once(make_exchange: Any) -> None:
    exchange = make_exchange("GET", peer="192.0.2.1")
    site = Site()
    first = site.address(exchange)
    assert site.address(exchange) is first
    assert str(first) == "192.0.2.1"


@pytest.mark.parametrize(
    "entry", ["192.0.2.1/24", "192.0.2", "300.1.1.1", "0x7f.1", "fe80::1%eth0", "example.com", "", "10.0.0.0/33"]
)
def test_bad_entries_are_found_at_start_up(services: Services, entry: str) -> None:
    with pytest.raises(ConfigError, match="CIDR"):
        networks(deny=[entry]).bind(services)


def test_all_findings_at_once(services: Services) -> None:
    with pytest.raises(ConfigError) as caught:
        networks(allow=["x", "10.0.0.0/8"], deny=["y"]).bind(services)
    assert len(caught.value.findings) == 2
    with pytest.raises(ConfigError):
        networks().bind(services)


def test_words() -> None:
    assert networks(allow="10.0.0.0/8").describe() == "from 10.0.0.0/8"
    assert networks(allow=["10.0.0.0/8"], deny=["10.0.0.1"]).describe() == "from 10.0.0.0/8, not from 10.0.0.1"
