"""A handler answers to its methods."""

from __future__ import annotations

from typing import Any

import pytest

from routeguard.core.errors import ConfigError
from routeguard.core.problem import Problem
from routeguard.core.services import Services
from routeguard.protection.traffic.method import method

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("name", ["TRACE", "CONNECT", "FOO", "post", "POST ", "", "X" * 1_000_000])
async def test_others_get_405_with_allow(make_exchange: Any, services: Services, name: str) -> None:
    """HTTP-11."""
    answer = await method("POST").bind(services)(make_exchange(name))
    assert isinstance(answer, Problem)
    assert answer.status == 405
    assert answer.headers == (("allow", "POST"),)


async def test_get_includes_head(make_exchange: Any, outcome: Any, services: Services) -> None:
    assert await outcome(method("GET"), make_exchange("HEAD")) is None
    assert await outcome(method("POST"), make_exchange("HEAD")) == 405
    answer = await method("GET", "POST").bind(services)(make_exchange("PUT"))
    assert isinstance(answer, Problem)
    assert answer.headers == (("allow", "GET, POST, HEAD"),)


async def test_a_socket_has_no_method(make_exchange: Any, outcome: Any) -> None:
    assert await outcome(method("GET"), make_exchange("GET", kind="websocket")) == 405


@pytest.mark.parametrize("names", [(), ("post",), ("POST, GET",), ("",)])
def test_bad_names_are_found_at_start_up(services: Services, names: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError):
        method(*names).bind(services)
