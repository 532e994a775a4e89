"""What a client says it is."""

from __future__ import annotations

from typing import Any

import pytest

from routeguard.core.errors import ConfigError
from routeguard.core.services import Services
from routeguard.protection.traffic.clients import clients
from tests.steady import work_within

pytestmark = pytest.mark.anyio

RULES = clients(deny=["bot", "^curl/", "sqlmap"], allow=["Googlebot", "^our-bot/"])


@pytest.mark.parametrize(
    ("agent", "status"),
    [
        ("Mozilla/5.0 (X11; Linux)", None),
        ("BadBOT/1.0", 403),
        ("curl/8.0", 403),
        ("Mozilla curl/8.0", None),
        ("Mozilla (compatible; Googlebot/2.1)", None),
        ("our-bot/1", None),
        ("x our-bot/1", 403),
        ("SQLmap", 403),
        ("", None),
        ("x" * 1024, None),
        ("x" * 1025, 403),
        ("\xff\x00", None),
        ("googlebot sqlmap", None),
    ],
)
async def test_rules(make_exchange: Any, outcome: Any, agent: str, status: int | None) -> None:
    assert await outcome(RULES, make_exchange("GET", ("user-agent", agent))) == status


async def test_without_a_name(make_exchange: Any, outcome: Any) -> None:
    assert await outcome(RULES, make_exchange("GET")) is None
    assert await outcome(clients(named=True), make_exchange("GET")) == 403
    assert await outcome(clients(named=True), make_exchange("GET", ("user-agent", ""))) == 403
    assert await outcome(clients(named=True), make_exchange("GET", ("user-agent", "x"))) is None


@pytest.mark.parametrize("agent", ["a" * 100_000, "ab" * 50_000, "aaab" * 25_000])
async def test_long_names_cost_nothing(make_exchange: Any, services: Services, agent: str) -> None:
    """INJ-04: 100 KB in a few milliseconds, whatever the rules."""
    run = clients(deny=["a" * 200 + "b", "(a+)+$", "(.*a){20}"]).bind(services)
    exchange = make_exchange("GET", ("user-agent", agent))
    with work_within(0.1):
        await run(exchange)


@pytest.mark.parametrize(
    "rules", [{}, {"deny": [""]}, {"deny": ["^"]}, {"deny": [" "]}, {"deny": ["bö"]}, {"allow": ["x"]}]
)
def test_useless_rules_are_found_at_start_up(services: Services, rules: dict[str, list[str]]) -> None:
    with pytest.raises(ConfigError):
        clients(**rules).bind(services)
