"""A token is had from one route and used on all."""

from __future__ import annotations

from typing import Any

import httpx2 as httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from routeguard.core.policy import public
from routeguard.core.services import Services
from routeguard.foundation.web import routes
from routeguard.protection.adapters.starlette import hook as adapter
from routeguard.protection.guard.edge import Edge
from routeguard.protection.guard.guard import Guard
from routeguard.protection.traffic.body_limit import body_limit
from routeguard.protection.traffic.content_types import content_types
from routeguard.protection.traffic.cors import cors
from routeguard.protection.traffic.csrf import csrf
from routeguard.protection.traffic.csrf_routes import csrf_routes
from routeguard.protection.traffic.security_headers import security_headers

pytestmark = pytest.mark.anyio

EVERYTHING = (
    public
    & csrf(token=True)
    & body_limit("2 KB")
    & content_types("application/json")
    & security_headers()
    & cors(origins=["https://page.example"])
)


@pytest.fixture
def ran() -> list[bytes]:
    """Return the bodies that reached the handler."""
    return []


@pytest.fixture
def client(services: Services, ran: list[bytes]) -> httpx.AsyncClient:
    """Return a client of a real application behind the real edge."""

    async def handler(request: Request) -> Response:
        ran.append(await request.body())
        return PlainTextResponse("done", headers={"referrer-policy": "origin"})

    async def nothing(*_: Any) -> None:
        return None

    adapter.hook_routes()
    app = Starlette(routes=[*csrf_routes(services), routes.post("/act", handler, EVERYTHING)])
    edge = Edge(Guard(services), app, start=nothing, stop=nothing)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=edge), base_url="https://app.example.com")


async def test_a_guest_gets_a_token_and_uses_it(client: httpx.AsyncClient, ran: list[bytes]) -> None:
    answer = await client.get("/auth/csrf")
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "private, no-store"
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    headers = {"x-csrf-token": answer.json()["csrf_token"], "content-type": "application/json"}
    done = await client.post("/act", content=b"{}", headers=headers)
    assert done.status_code == 200
    assert ran == [b"{}"]
    # HDR-02: the handler's own value stands, once.
    assert done.headers.get_list("referrer-policy") == ["origin"]
    assert done.headers.get_list("content-security-policy")[0].startswith("default-src 'none'")


@pytest.mark.parametrize(
    ("headers", "content", "status"),
    [
        pytest.param({}, b"{}", 403, id="no token"),
        pytest.param({"x-csrf-token": "A" * 64}, b"{}", 403, id="wrong token"),
        pytest.param({"content-length": "2049"}, b"x" * 2049, 413, id="BODY-01"),
        pytest.param({"content-type": "text/plain"}, b"{}", 415, id="CSRF-08"),
        pytest.param({"content-encoding": "gzip"}, b"\x1f\x8b", 415, id="BODY-05"),
        pytest.param({"origin": "https://page.example"}, b"{}", 403, id="readable is not trusted"),
    ],
)
async def test_refusals(
    client: httpx.AsyncClient, ran: list[bytes], headers: dict[str, str], content: bytes, status: int
) -> None:
    """HDR-01: with the headers, and the handler not run."""
    answer = await client.post("/act", content=content, headers={"content-type": "application/json", **headers})
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert ran == []
    assert answer.headers.get_list("x-content-type-options") == ["nosniff"]
    if "content-length" not in headers:  # Refused by the edge before the route's own policy ran.
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"


async def test_chunks_are_counted(client: httpx.AsyncClient, ran: list[bytes]) -> None:
    """BODY-01: a length nobody declared."""
    token = (await client.get("/auth/csrf")).json()["csrf_token"]

    async def chunks() -> Any:
        for _ in range(3):
            yield b"x" * 1000

    headers = {"x-csrf-token": token, "content-type": "application/json"}
    answer = await client.post("/act", content=chunks(), headers=headers)
    assert answer.status_code == 413
    assert ran == []


async def test_the_token_is_no_foreign_pages_to_read(client: httpx.AsyncClient) -> None:
    answer = await client.get("/auth/csrf", headers={"origin": "https://evil.example"})
    assert not [name for name in answer.headers if name.startswith("access-control")]
    # Nor does asking anew take the first page's token away.
    assert "set-cookie" in answer.headers
    assert "set-cookie" not in (await client.get("/auth/csrf")).headers
