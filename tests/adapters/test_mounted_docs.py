"""Versions of an API as mounted FastAPI applications, each with documentation pages of its own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount
from starlette.testclient import TestClient

from routeguard import Policy, Routeguard, Settings, public

COVERS = ("protection/adapters/starlette/pages",)


@dataclass(frozen=True)
class Person:
    id: str


PAGES = ["/docs", "/redoc", "/openapi.json", "/docs/oauth2-redirect"]


@pytest.fixture
def guard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Routeguard[Any]:
    monkeypatch.chdir(tmp_path)
    return Routeguard(Settings(), identify=lambda request: Person("1") if b"x-user" in request.headers else None)


def version(guard: Routeguard[Any]) -> FastAPI:
    sub = FastAPI(title="v1")

    @sub.get("/items")
    @guard(guard.session())
    async def items() -> list[str]:
        return []

    @sub.get("/open")
    @guard(public)
    async def open_() -> str:
        return ""

    return sub


def in_fastapi(guard: Routeguard[Any], docs: Policy | None, sub: FastAPI) -> Any:
    app = FastAPI()
    guard.install(app, docs=docs)
    app.mount("/v1", sub)
    return app


def in_starlette(guard: Routeguard[Any], docs: Policy | None, sub: FastAPI) -> Any:
    app = Starlette(routes=[Mount("/v1", app=sub)])
    guard.install(app, docs=docs)
    return app


def deeper(guard: Routeguard[Any], docs: Policy | None, sub: FastAPI) -> Any:
    app, middle = FastAPI(), Starlette(routes=[Mount("/v1", app=sub)])
    app.mount("/", middle)
    guard.install(app, docs=docs)
    return app


@pytest.fixture(params=[in_fastapi, in_starlette, deeper])
def served(request: pytest.FixtureRequest, guard: Routeguard[Any]) -> Any:
    def serve(docs: Policy | None) -> TestClient:
        return TestClient(request.param(guard, docs, version(guard)), base_url="http://127.0.0.1:8000")

    return serve


@pytest.mark.parametrize("page", PAGES)
def test_docs_reaches_the_pages_of_mounted_applications(served: Any, page: str) -> None:
    with served(public) as client:
        assert client.get("/v1" + page).status_code == 200
        assert client.get("/v1/items").status_code == 401


@pytest.mark.parametrize("page", PAGES)
def test_they_ask_for_a_sign_in_unless_told(served: Any, page: str) -> None:
    with served(None) as client:
        assert client.get("/v1" + page).status_code == 401
        assert client.get("/v1" + page, headers={"x-user": "1"}).status_code == 200


def test_their_descriptions_say_what_the_guard_answers(served: Any) -> None:
    with served(public) as client:
        schema = client.get("/v1/openapi.json").json()
    assert {"401", "503"} <= set(schema["paths"]["/items"]["get"]["responses"])
    assert "401" not in schema["paths"]["/open"]["get"]["responses"]
    assert "Problem" in schema["components"]["schemas"]


def test_a_policy_around_the_mount_is_in_the_description(guard: Routeguard[Any]) -> None:
    app, sub = FastAPI(), version(guard)
    guard.install(app, docs=public)
    app.mount("/v1", guard(guard.session())(sub))
    with TestClient(app, base_url="http://127.0.0.1:8000") as client:
        # The mount asks before its pages do.
        assert client.get("/v1/openapi.json").status_code == 401
        schema = client.get("/v1/openapi.json", headers={"x-user": "1"}).json()
    assert "401" in schema["paths"]["/open"]["get"]["responses"]


def test_a_mark_on_such_a_page_stays(guard: Routeguard[Any]) -> None:
    app, sub = FastAPI(), FastAPI(docs_url=None)

    @sub.get("/docs")
    @guard(guard.session())
    async def own_docs() -> str:
        return "ours"

    guard.install(app, docs=public)
    app.mount("/v1", sub)
    with TestClient(app, base_url="http://127.0.0.1:8000") as client:
        assert client.get("/v1/docs").status_code == 401


def test_a_mounted_application_with_its_own_guard_keeps_its_own_pages(guard: Routeguard[Any]) -> None:
    app, sub = FastAPI(), FastAPI()
    Routeguard(Settings(), identify=lambda _: None).install(sub)
    guard.install(app, docs=public)
    app.mount("/v1", guard(public)(sub))
    with TestClient(app, base_url="http://127.0.0.1:8000") as client:
        assert client.get("/v1/docs").status_code == 401


PLACES: dict[str, Any] = {
    "behind a middleware": lambda guard, app, sub: app.mount("/v1", GZipMiddleware(sub)),
    "behind a middleware in an open mount": lambda guard, app, sub: app.router.routes.append(
        guard(public)(Mount("/v1", app=GZipMiddleware(sub)))
    ),
    "the router of the application mounted": lambda guard, app, sub: app.mount("/v1", sub.router),
    "the router of the application included": lambda guard, app, sub: app.include_router(sub.router, prefix="/v1"),
}


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("place", PLACES)
def test_pages_keep_their_policy_wherever_they_stand(guard: Routeguard[Any], place: str, late: bool, page: str) -> None:
    app = FastAPI(openapi_url=None)
    guard.install(app, default=public)
    if not late:
        PLACES[place](guard, app, version(guard))
    with TestClient(app, base_url="http://127.0.0.1:8000") as client:
        if late:
            PLACES[place](guard, app, version(guard))
        assert client.get("/v1" + page).status_code == 401
        assert client.get("/v1" + page, headers={"x-user": "1"}).status_code == 200
        assert client.get("/v1/open").status_code == 200


def test_the_matrix_names_the_policy_of_included_pages(guard: Routeguard[Any]) -> None:
    app = FastAPI(openapi_url=None)
    app.include_router(version(guard).router, prefix="/v1")
    guard.install(app, default=public)
    rows = {row.path: row.policy for row in guard.matrix()}
    assert rows["/v1/docs"] == rows["/v1/items"]
    assert rows["/v1/docs"] != rows["/v1/open"]


class WithRoutes(FastAPI):
    """Replaces a page of documentation, and adds a route beside it."""

    def setup(self) -> None:
        super().setup()

        async def own(_request: Request) -> PlainTextResponse:
            return PlainTextResponse("ours")

        self.add_route("/own-docs", own)
        self.add_route("/beside", own)


@pytest.mark.parametrize("mounted", [False, True])
def test_what_a_subclass_sets_up_is_a_handler_like_any_other(guard: Routeguard[Any], mounted: bool) -> None:
    """AZ-13: a policy for documentation opens no handler, whatever path it stands at."""
    sub = WithRoutes(docs_url=None)
    sub.docs_url = "/own-docs"
    app = FastAPI() if mounted else sub
    if mounted:
        app.mount("/v1", sub)
    guard.install(app, docs=public)
    prefix = "/v1" if mounted else ""
    undecided = {row.path for row in guard.matrix() if row.source == "undecided"}
    assert undecided == {f"{prefix}/own-docs", f"{prefix}/beside"}
    client = TestClient(app, base_url="http://127.0.0.1:8000")
    assert [client.get(prefix + path).status_code for path in ("/own-docs", "/beside", "/redoc")] == [500, 500, 200]
