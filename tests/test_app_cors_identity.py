"""Identity routes for pages of other origins, and refusals of a body that such a page can read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.testclient import TestClient

from routeguard import Feature, Routeguard, Settings, body_limit, public
from routeguard.builtin.features import defaults
from routeguard.core.errors import ConfigError
from routeguard.foundation.db.database import Database
from routeguard.foundation.db.migrate import migrate

APP = "https://app.example"
OTHER = "https://other.example"


def settings(**changes: Any) -> Settings:
    return Settings(database_url="sqlite:///test.db", **changes)


@pytest.fixture
def client(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    monkeypatch.chdir(tmp_path)
    guard: Routeguard[Any] = Routeguard(settings(cors_origins=(APP,), trusted_origins=(APP,)))
    app = FastAPI()
    guard.install(app)
    asyncio.run(migrated(guard))
    with TestClient(app, base_url="http://127.0.0.1:8000") as client:
        yield client


async def migrated(guard: Routeguard[Any]) -> None:
    database = guard.services.get(Database)
    await database.start()
    await migrate(database)
    await database.close()


def preflight(method: str, origin: str = APP, headers: str = "content-type") -> dict[str, str]:
    return {"origin": origin, "access-control-request-method": method, "access-control-request-headers": headers}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/auth/sign-in"),
        ("POST", "/auth/token/refresh"),
        ("GET", "/auth/session"),
        ("GET", "/auth/api-keys"),
        ("POST", "/auth/api-keys"),
        ("PATCH", "/auth/api-keys/key_1"),
        ("DELETE", "/auth/sessions/ses_1"),
    ],
)
def test_a_preflight_for_an_identity_route_is_answered(client: TestClient, method: str, path: str) -> None:
    answer = client.options(path, headers=preflight(method, headers="authorization, content-type, x-csrf-token"))
    assert answer.status_code == 204
    assert answer.headers["access-control-allow-origin"] == APP
    assert answer.headers["access-control-allow-credentials"] == "true"
    assert method in answer.headers["access-control-allow-methods"].split(", ")


@pytest.mark.parametrize("origin", [OTHER, "null", "https://app.example.evil.example", "http://app.example"])
def test_a_preflight_of_another_origin_is_refused(client: TestClient, origin: str) -> None:
    answer = client.options("/auth/sign-in", headers=preflight("POST", origin))
    assert answer.status_code == 403
    assert "access-control-allow-origin" not in answer.headers


def test_a_refusal_of_an_identity_route_can_be_read(client: TestClient) -> None:
    answer = client.get("/auth/session", headers={"origin": APP})
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (401, APP)
    answer = client.get("/auth/session", headers={"origin": OTHER})
    assert (answer.status_code, "access-control-allow-origin" in answer.headers) == (401, False)


def test_without_the_setting_nothing_is_shared(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    app = FastAPI()
    guard: Routeguard[Any] = Routeguard(settings(trusted_origins=(APP,)))
    guard.install(app)
    asyncio.run(migrated(guard))
    with TestClient(app, base_url="http://127.0.0.1:8000") as plain:
        answer = plain.options("/auth/sign-in", headers=preflight("POST"))
    assert (answer.status_code, "access-control-allow-origin" in answer.headers) == (405, False)


@pytest.mark.parametrize(
    "wrong", ["*", "app.example", "https://app.example/", "https://*.example", "HTTPS://app.example"]
)
def test_an_origin_no_browser_sends_is_a_finding(tmp_path: Any, monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="cors_origins"):
        Routeguard(settings(cors_origins=(wrong,)))


async def read(request: Request) -> Response:
    return PlainTextResponse(str(len(await request.body())))


class Reader(HTTPEndpoint):
    async def post(self, request: Request) -> Response:
        return await read(request)


def fastapi_app(guard: Routeguard[Any]) -> FastAPI:
    app = FastAPI()
    guard.install(app)

    @app.post("/parsed")
    @guard(public, body_limit("1 KB"))
    async def parsed(body: dict[str, str]) -> None: ...

    @app.post("/read")
    @guard(public, body_limit("1 KB"))
    async def handler(request: Request) -> Response:
        return await read(request)

    return app


def starlette_app(guard: Routeguard[Any]) -> Starlette:
    limited = guard(public, body_limit("1 KB"))

    async def handler(request: Request) -> Response:
        return await read(request)

    app = Starlette(routes=[Route("/read", limited(handler), methods=["POST"]), Route("/parsed", limited(Reader))])
    guard.install(app)
    return app


@pytest.mark.anyio
@pytest.mark.parametrize("make", [fastapi_app, starlette_app])
@pytest.mark.parametrize("path", ["/read", "/parsed"])
@pytest.mark.parametrize("chunked", [True, False])
async def test_a_body_over_the_limit_is_refused_through_the_middleware(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, make: Any, path: str, chunked: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    app = make(Routeguard(settings(), identify=lambda _: None))
    app.add_middleware(CORSMiddleware, allow_origins=[APP])

    async def parts() -> AsyncIterator[bytes]:
        for _ in range(4):
            yield b"x" * 1000

    headers = {"origin": APP, "content-type": "application/json"}
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://127.0.0.1:8000") as caller:
        answer = await caller.post(path, content=parts() if chunked else b"x" * 4000, headers=headers)
    assert answer.status_code == 413
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["access-control-allow-origin"] == APP


def test_a_mount_of_a_feature_is_for_those_pages_too(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    async def shown(request: Request) -> Response:
        return PlainTextResponse("shown")

    def routes(_services: Any) -> list[Any]:
        return [Mount("/reports", routes=[Route("/x", public_route(shown))])]

    guard: Routeguard[Any] = Routeguard(
        settings(cors_origins=(APP,), trusted_origins=(APP,)),
        features=[*defaults(), Feature(name="mine", routes=routes)],
    )
    public_route = guard(public)
    app = Starlette()
    guard.install(app)
    asyncio.run(migrated(guard))
    with TestClient(app, base_url="http://127.0.0.1:8000") as client:
        answer = client.get("/reports/x", headers={"origin": APP})
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, APP)
        assert client.options("/reports/x", headers=preflight("GET")).status_code == 204
        assert "access-control-allow-origin" not in client.get("/reports/x", headers={"origin": OTHER}).headers
