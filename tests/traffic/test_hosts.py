"""Only our own names are served."""

from __future__ import annotations

from typing import Any

import pytest

from routeguard.core.errors import ConfigError
from routeguard.core.services import Services
from routeguard.protection.traffic.hosts import hosts

pytestmark = pytest.mark.anyio

OURS = hosts("api.example.com", "127.0.0.1:8000")


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("api.example.com", None),
        ("API.Example.COM", None),
        ("127.0.0.1:8000", None),
        ("127.0.0.1", 400),
        ("api.example.com:443", 400),
        ("api.example.com.", 400),
        ("api.example.com@evil.com", 400),
        ("", 400),
        ("evil.com", 400),
        ("api.example.com.evil.com", 400),
        ("api.example.com\x00", 400),
        ("xapi.example.com", 400),
        ("api.example.com, evil.com", 400),
        ("api\u2024example.com".encode().decode("latin-1"), 400),
    ],
)
async def test_exact(make_exchange: Any, outcome: Any, host: str, status: int | None) -> None:
    assert await outcome(OURS, make_exchange("GET", ("host", host))) == status


async def test_missing_doubled_and_forwarded(make_exchange: Any, outcome: Any) -> None:
    assert await outcome(OURS, make_exchange("GET")) == 400
    assert await outcome(OURS, make_exchange("GET", ("host", "api.example.com"), ("host", "evil.com"))) == 400
    forwarded = [("host", "evil.com"), ("x-forwarded-host", "api.example.com"), ("forwarded", "host=api.example.com")]
    assert await outcome(OURS, make_exchange("GET", *forwarded)) == 400


@pytest.mark.parametrize("name", ["*.example.com", "API.example.com", "https://api.example.com", "a.com/", "", "a b"])
def test_bad_names_are_found_at_start_up(services: Services, name: str) -> None:
    with pytest.raises(ConfigError):
        hosts("ok.example", name).bind(services)


def test_no_name_is_found_at_start_up(services: Services) -> None:
    with pytest.raises(ConfigError):
        hosts().bind(services)
