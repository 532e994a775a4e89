"""Every check of the package refuses the attacks it ships, and only it does: without it they succeed.

A new check is added to CASES together with a legitimate request it lets through.
"""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Awaitable, Callable, Iterator
from importlib import import_module
from typing import Any

import pytest

import routeguard.protection.traffic
from routeguard.core.policy import Attack, Check, Policy, public
from routeguard.core.problem import Problem
from routeguard.core.services import Services
from routeguard.protection.traffic.body_limit import body_limit
from routeguard.protection.traffic.clients import clients
from routeguard.protection.traffic.content_types import content_types
from routeguard.protection.traffic.csrf import csrf
from routeguard.protection.traffic.hosts import hosts
from routeguard.protection.traffic.idempotent import idempotent
from routeguard.protection.traffic.method import method
from routeguard.protection.traffic.rate_limit import rate_limit, user
from routeguard.protection.traffic.strict_json import StrictJson

from .conftest import Caller

COVERS = ("protection/traffic/strict_json",)

pytestmark = pytest.mark.anyio

Case = tuple[Policy, tuple[str, dict[str, str]]]
SESSION = {"cookie": "__Host-routeguard=abc"}

CASES: list[Case] = [
    (csrf(), ("POST", {**SESSION, "origin": "https://app.example.com"})),
    (method("GET", "POST"), ("POST", {})),
    (method("PATCH"), ("PATCH", {})),
    (hosts("api.example.com"), ("GET", {"host": "api.example.com"})),
    (hosts("127.0.0.1:8000", "[::1]:8000"), ("GET", {"host": "[::1]:8000"})),
    (clients(deny=["sqlmap", "^curl/"], named=True), ("GET", {"user-agent": "Mozilla/5.0 like curl/8"})),
    (body_limit("2 KB"), ("POST", {"content-length": "2048"})),
    (body_limit(0), ("POST", {"content-length": "0"})),
    (content_types("application/json"), ("POST", {"content-type": "application/json", "content-length": "2"})),
    (rate_limit("3/minute"), ("GET", {})),
    (rate_limit("3/minute", algorithm="sliding", by=user), ("GET", {})),
    (idempotent(), ("POST", {"idempotency-key": "a"})),
    (Policy((StrictJson(),)), ("POST", {"content-type": "application/json"})),
    (content_types("image/*"), ("PUT", {"content-type": "image/png", "content-length": "2"})),
]


def body_of(body: bytes) -> Callable[[], Awaitable[bytes]]:
    async def read_body() -> bytes:
        return body

    return read_body


def attacks() -> Iterator[Any]:
    for policy, legitimate in CASES:
        for check in policy.checks:
            for attack in check.attacks():
                yield pytest.param(policy, legitimate, attack, id=f"{type(check).__name__}: {attack.name[:60]}")


@pytest.mark.parametrize(("policy", "legitimate"), CASES, ids=[policy.describe() for policy, _ in CASES])
async def test_the_legitimate_request_passes(
    make_exchange: Any, services: Services, policy: Policy, legitimate: Any
) -> None:
    exchange = make_exchange(legitimate[0], *legitimate[1].items(), principal=Caller())
    exchange.read_body = body_of(b"{}")
    assert await policy.bind(services)(exchange) is None


@pytest.mark.parametrize(("policy", "legitimate", "attack"), list(attacks()))
async def test_refuses_its_attacks(
    make_exchange: Any, services: Services, policy: Policy, legitimate: tuple[str, dict[str, str]], attack: Attack
) -> None:
    headers = {**legitimate[1], **dict(attack.headers)}
    if attack.body:
        headers["content-length"] = str(len(attack.body))
    check = policy.bind(services)
    refused: Any = None
    for _ in range(attack.repeat):
        exchange = make_exchange(attack.method, *headers.items(), principal=Caller())
        exchange.read_body = body_of(attack.body)
        refused = await check(exchange)
    assert isinstance(refused, Problem)
    assert refused.status == attack.status
    # No input in what the caller is told, which may be the media types that are taken.
    told = str(refused.body()).replace("application/json", "")
    for value in dict(attack.headers).values():
        assert len(value) < 4 or value not in told
    twin = await public.bind(services)(make_exchange(attack.method, *headers.items(), principal=Caller()))
    assert twin is None


def test_no_check_is_forgotten() -> None:
    """Whatever in the package ships attacks stands in CASES."""
    found = set()
    for module in pkgutil.iter_modules(routeguard.protection.traffic.__path__):
        loaded = import_module(f"routeguard.protection.traffic.{module.name}")
        for name, kind in inspect.getmembers(loaded, inspect.isclass):
            if kind.__module__ != loaded.__name__ or not issubclass(kind, Check):
                continue
            if kind.attacks is not Check.attacks:
                found.add(name)
    assert found == {type(check).__name__ for policy, _ in CASES for check in policy.checks}
