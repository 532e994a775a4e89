"""The application's own sign-in, and what it may say of how it found somebody."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from routeguard import ByHeader, Routeguard, Settings

EVIL = {"origin": "https://evil.example", "sec-fetch-site": "cross-site"}


@dataclass(frozen=True)
class Person:
    id: str


def who(request: Any) -> Any:
    if request.cookie("sid") == "alice":
        return Person("alice")
    return ByHeader(Person("program")) if request.headers.get(b"authorization") == b"Bearer good" else None


@pytest.fixture
def client(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> TestClient:
    monkeypatch.chdir(tmp_path)
    guard: Routeguard[Person] = Routeguard(Settings(), user=Person, identify=who)

    async def transfer(request: Request) -> PlainTextResponse:
        found = await guard.current_session(request)
        return PlainTextResponse(found.user.id)

    app = Starlette(routes=[Route("/x", guard(guard.session())(transfer), methods=["POST"])])
    guard.install(app)
    return TestClient(app, base_url="http://127.0.0.1:8000")


@pytest.mark.parametrize(
    "junk", [{}, {"authorization": "Bearer junk"}, {"authorization": "Bearer good"}, {"x-api-key": "x"}]
)
def test_a_cookie_of_its_own_is_a_browsers(client: TestClient, junk: dict[str, str]) -> None:
    """CSRF-01: an invented header beside it changes nothing."""
    cookie = {"cookie": "sid=alice"}
    assert client.post("/x", headers={**cookie, **junk, **EVIL}).status_code == 403
    assert client.post("/x", headers={**cookie, **junk}).status_code == 403
    own = client.post("/x", headers={**cookie, **junk, "origin": "http://127.0.0.1:8000"})
    assert (own.status_code, own.text) == (200, "alice")


def test_found_by_header(client: TestClient) -> None:
    for cookie in ({}, {"cookie": "AWSALB=1"}):
        answer = client.post("/x", headers={"authorization": "Bearer good", **cookie})
        assert (answer.status_code, answer.text) == (200, "program")
    assert client.post("/x", headers={"authorization": "Bearer bad", "cookie": "AWSALB=1"}).status_code == 401
