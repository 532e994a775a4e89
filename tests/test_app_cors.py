"""`cors()` through the guard: preflights are answered before anybody is asked who he is."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from routeguard import Routeguard, Settings, cors

ORIGIN = "https://app.example"
ASKING = {"origin": ORIGIN, "access-control-request-method": "POST", "access-control-request-headers": "content-type"}


@pytest.fixture
def client(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> TestClient:
    monkeypatch.chdir(tmp_path)
    guard: Routeguard[Any] = Routeguard(Settings(), identify=lambda _: None)
    app = FastAPI()
    guard.install(app)

    @app.post("/open-to-app")
    @guard(guard.session(), cors(origins=[ORIGIN], methods=["POST"], headers=["content-type"]))
    async def shared() -> None: ...

    @app.post("/own")
    @guard(guard.session())
    async def own() -> None: ...

    return TestClient(app, base_url="http://127.0.0.1:8000")


def test_a_preflight_from_a_named_origin_is_answered(client: TestClient) -> None:
    answer = client.options("/open-to-app", headers=ASKING)
    assert answer.status_code in {200, 204}
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    assert "Origin" in answer.headers["vary"]


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "https://app.example.evil.example"])
def test_other_origins_get_no_leave(client: TestClient, origin: str) -> None:
    """CSRF-21."""
    answer = client.options("/open-to-app", headers={**ASKING, "origin": origin})
    assert "access-control-allow-origin" not in answer.headers
    assert "access-control-allow-credentials" not in answer.headers


def test_a_route_without_cors_answers_no_preflight(client: TestClient) -> None:
    answer = client.options("/own", headers=ASKING)
    assert answer.status_code == 405
    assert "access-control-allow-origin" not in answer.headers


def test_refusals_can_be_read_by_the_named_origin(client: TestClient) -> None:
    answer = client.post("/open-to-app", headers={"origin": ORIGIN})
    assert answer.status_code in {401, 403}
    assert answer.headers["access-control-allow-origin"] == ORIGIN
