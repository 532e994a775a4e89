"""Patterns of origins through the guard: requests, sockets and foreign readers are judged by the same rule."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from fastapi import FastAPI, WebSocket
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from routeguard import Routeguard, Settings, cors, public
from routeguard.core.errors import ConfigError
from routeguard.core.request import RequestView

PATTERN = "https://*-team.example.app"
PREVIEW = "https://pr-7-team.example.app"
FOREIGN = [
    "https://evil-team.example.app.attacker.com",
    "https://a.b-team.example.app",
    "https://-team.example.app",
    "https://X-team.example.app",
    "https://x-team.example.app.",
    "https://u@x-team.example.app",
    "https://x-team.example.app:443",
    "https://x-team.example.app:8443",
    "http://x-team.example.app",
    "https://%78-team.example.app",
    "https://xn--e-team.example.app",
    f"https://{'a' * 5000}-team.example.app",
    "null",
]


@dataclass(frozen=True)
class Ann:
    id: str = "ann"


async def signed_in(request: RequestView) -> Ann | None:
    return Ann() if request.cookie("application") else None


@pytest.fixture
def client(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    monkeypatch.chdir(tmp_path)
    guard: Routeguard[Any] = Routeguard(Settings(trusted_origins=(PATTERN,)), identify=signed_in)
    app = FastAPI()

    @app.post("/change")
    @guard(guard.session(), cors(origins=[PATTERN], credentials=True, methods=["POST"]))
    async def change() -> str:
        return "changed"

    @app.websocket("/ws")
    @guard(guard.session())
    async def socket(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text("hello")

    guard.install(app)
    with TestClient(app, base_url="http://127.0.0.1:8000", cookies={"application": "1"}) as client:
        yield client


def test_a_preview_changes_and_reads(client: TestClient) -> None:
    answer = client.post("/change", headers={"origin": PREVIEW, "sec-fetch-site": "cross-site"})
    assert (answer.status_code, answer.json()) == (200, "changed")
    assert answer.headers["access-control-allow-origin"] == PREVIEW
    assert answer.headers["access-control-allow-credentials"] == "true"
    assert "Origin" in answer.headers["vary"]


def test_a_preflight_of_a_preview_is_answered(client: TestClient) -> None:
    answer = client.options("/change", headers={"origin": PREVIEW, "access-control-request-method": "POST"})
    assert answer.status_code == 204
    assert answer.headers["access-control-allow-origin"] == PREVIEW
    assert "Origin" in answer.headers["vary"]


def test_a_preview_opens_a_socket(client: TestClient) -> None:
    with client.websocket_connect("/ws", headers={"origin": PREVIEW}) as socket:
        assert socket.receive_text() == "hello"


@pytest.mark.parametrize("origin", FOREIGN, ids=lambda origin: origin[:50])
def test_a_look_alike_does_none_of_it(client: TestClient, origin: str) -> None:
    """CSRF-07, CSRF-21, WS-01."""
    changed = client.post("/change", headers={"origin": origin})
    asked = client.options("/change", headers={"origin": origin, "access-control-request-method": "POST"})
    for answer in (changed, asked):
        assert answer.status_code == 403
        assert "access-control-allow-origin" not in answer.headers
        assert "Origin" in answer.headers["vary"]
    with pytest.raises(Exception) as caught, client.websocket_connect("/ws", headers={"origin": origin}):
        pass
    assert getattr(caught.value, "status_code", None) == 403 or isinstance(caught.value, WebSocketDisconnect)


def test_all_patterns_that_others_could_match_are_found_at_once(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as refused:
        Routeguard(
            Settings(
                trusted_origins=("https://*.vercel.app", PATTERN, "https://*.*.example.app"),
                cors_origins=("https://*.co.uk", PATTERN),
            )
        )
    for words in (
        "trusted origin 'https://*.vercel.app'",
        "https://*.*.example.app",
        "cors_origins: origin 'https://*.co",
    ):
        assert sum(words in finding for finding in refused.value.findings) == 1
    assert not any(PATTERN in finding.partition(", such as")[0] for finding in refused.value.findings)


def test_a_cors_policy_with_such_a_pattern_is_found_at_start_up(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    guard: Routeguard[Any] = Routeguard(Settings(), identify=signed_in)
    app = FastAPI()

    @app.get("/open")
    @guard(public, cors(origins=["https://*.github.io"], credentials=True))
    async def shared() -> None: ...

    guard.install(app)
    with pytest.raises(ConfigError, match="public suffix"), TestClient(app):
        pass
