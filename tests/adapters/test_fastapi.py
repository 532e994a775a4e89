"""FastAPI: the suite, and what only FastAPI has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, HTTPException
from pydantic import BaseModel
from starlette.requests import HTTPConnection

from routeguard.core.policy import Policy, public
from routeguard.protection.adapters.starlette.listing import entries
from routeguard.protection.guard.guard import Ask
from routeguard.protection.guard.matrix import matrix, verify
from tests.adapters.starlette_app import FastAPIApp
from tests.adapters.starlette_like import StarletteLike
from tests.conformance.adapters import AdapterSuite
from tests.conformance.wire import KEY, Key, connect, key, send

COVERS = ("protection/adapters/fastapi/adapter", "protection/adapters/fastapi/errors")

pytestmark = pytest.mark.anyio


class TestFastAPI(AdapterSuite):
    """The suite on FastAPI."""

    make = FastAPIApp


class TestFastAPILike(StarletteLike):
    """Route objects and middleware on FastAPI."""

    make = FastAPIApp


class Item(BaseModel):
    amount: int


class WithDocs(FastAPIApp):
    def empty(self) -> Any:
        return FastAPI()


async def test_documentation_pages_have_a_policy() -> None:
    """AZ-13: docs are handlers too."""
    app, open_, bare = WithDocs(), WithDocs(), WithDocs()
    app.guard.docs = key
    app.install()
    open_.guard.docs = public
    open_.install()
    unmarked = WithDocs()
    unmarked.install()
    for path in ("/docs", "/redoc", "/openapi.json", "/docs/oauth2-redirect"):
        assert (await send(app.asgi(), path=path)).status == 401
        assert (await send(app.asgi(), path=path, headers=[KEY])).status == 200
        assert (await send(open_.asgi(), path=path)).status == 200
        assert (await send(unmarked.asgi(), path=path)).status == 500
        assert (await send(bare.asgi(), path=path)).status == 200


@pytest.mark.parametrize("included", [False, True])
async def test_frontend(tmp_path: Path, included: bool) -> None:
    (tmp_path / "index.html").write_text("secret")

    def build(default: Policy | None) -> FastAPIApp:
        app = FastAPIApp()
        app.guard.default = default
        if included:
            router = APIRouter(prefix="/ui")
            router.frontend("/", directory=tmp_path)
            app.app.include_router(router)
        else:
            app.app.frontend("/ui", directory=tmp_path)
        return app

    undecided, guarded, bare = build(None), build(key), build(None)
    undecided.install()
    guarded.install()
    assert b"secret" not in (await send(undecided.asgi(), path="/ui/index.html")).body
    assert (await send(guarded.asgi(), path="/ui/index.html")).status == 401
    assert (await send(guarded.asgi(), path="/ui/index.html", headers=[KEY])).body == b"secret"
    assert (await send(bare.asgi(), path="/ui/index.html")).body == b"secret"
    findings = verify(undecided.guard, entries(undecided.guard, undecided.app), undecided_is_fatal=True)
    assert any("/ui" in line for line in findings)

    # A policy of its own: without a default, and beside a stricter one.
    for default, frontend, status in ((None, public, 200), (key, public, 200), (public, key, 401)):
        own = build(default)
        own.guard.frontend = frontend
        own.install()
        assert (await send(own.asgi(), path="/ui/index.html")).status == status
        listed = [row for row in matrix(own.guard, entries(own.guard, own.app)) if row.path.startswith("/ui")]
        assert [row.policy for row in listed] == [frontend.describe()]
        assert not verify(own.guard, entries(own.guard, own.app), undecided_is_fatal=True)


async def test_dependencies_run_after_the_guard_and_may_raise() -> None:
    app = FastAPIApp()
    ran: list[str] = []

    async def fails() -> None:
        ran.append("fails")
        raise RuntimeError("secret")

    async def refuses() -> None:
        ran.append("refuses")
        raise HTTPException(402, {"why": "money"}, {"x-why": "1"})

    @app.app.get("/fails", dependencies=[Depends(fails)])
    @app.guard_with_key
    async def one() -> str:
        return "secret"

    @app.app.get("/refuses", dependencies=[Depends(refuses)])
    @app.guard_with_key
    async def two() -> str:
        return "secret"

    app.install()
    for path in ("/fails", "/refuses"):
        assert (await send(app.asgi(), path=path)).status == 401
    assert ran == []
    failed = await send(app.asgi(), path="/fails", headers=[KEY])
    assert (failed.problem, b"secret" in failed.body) == ("internal-error", False)
    refused = await send(app.asgi(), path="/refuses", headers=[KEY])
    assert (refused.status, refused.header("x-why")) == (402, "1")
    assert b'"title":"Payment Required"' in refused.body


async def test_validation_is_after_the_guard_and_echoes_nothing() -> None:
    app = FastAPIApp()

    @app.app.post("/x/{number}")
    @app.guard_with_key
    async def handler(number: int, item: Item) -> str:
        return "fine"

    app.install()
    json_ = (b"content-type", b"application/json")
    assert (await send(app.asgi(), "POST", "/x/abc", [json_], b'{"amount":"hunter2"}')).status == 401
    result = await send(app.asgi(), "POST", "/x/abc", [KEY, json_], b'{"amount":"hunter2"}')
    assert (result.status, result.problem) == (422, "validation-failed")
    assert b"hunter2" not in result.body
    assert b'{"in":"path","pointer":"/number",' in result.body
    assert b'{"in":"body","pointer":"/amount",' in result.body
    assert (await send(app.asgi(), "POST", "/x/1", [KEY, json_], b"{bad")).problem == "malformed-request"
    assert (await send(app.asgi(), "POST", "/x/1", [KEY, json_], b'{"amount":1}')).status == 200


async def who(connection: HTTPConnection) -> str:
    """Stand for `guard.current_session`."""
    return "somebody"


@pytest.mark.parametrize("place", ["handler", "nested", "route", "router", "include", "app", "websocket"])
async def test_asking_is_requiring(place: str) -> None:
    """A parameter or dependency that takes what only a policy provides, at any level, before the body is read."""

    class App(FastAPIApp):
        def empty(self) -> Any:
            return FastAPI(openapi_url=None, dependencies=[Depends(who)] if place == "app" else None)

    async def nested(value: str = Depends(who)) -> str:
        return value

    app = App()
    app.guard.asks.append(Ask(who, key, lambda policy: any(policy.find(Key))))
    router = APIRouter(dependencies=[Depends(who)] if place == "router" else None)

    if place == "handler":

        @router.post("/x")
        async def handler(item: Item, value: str = Depends(who)) -> str:
            return value

    elif place == "nested":

        @router.post("/x")
        async def handler_nested(item: Item, value: str = Depends(nested)) -> str:
            return value

    elif place == "websocket":

        @router.websocket("/ws")
        async def socket(websocket: Any, value: str = Depends(who)) -> None:
            return None

    else:

        @router.post("/x", dependencies=[Depends(who)] if place == "route" else None)
        async def plain(item: Item) -> str:
            return "somebody"

    app.app.include_router(router, prefix="/a", dependencies=[Depends(who)] if place == "include" else None)
    if place == "include":
        app.app.include_router(router, prefix="/undecided")
    app.install()
    findings = verify(app.guard, entries(app.guard, app.app), undecided_is_fatal=True)
    if place == "websocket":
        assert (await connect(app.asgi(), "/a/ws")).status == 401
        return
    refused = await send(app.asgi(), "POST", "/a/x", body=b"{bad")
    assert (refused.status, refused.received) == (401, 0)
    sent = await send(app.asgi(), "POST", "/a/x", [KEY, (b"content-type", b"application/json")], b'{"amount":1}')
    assert sent.body == b'"somebody"'
    if place == "include":
        assert (await send(app.asgi(), "POST", "/undecided/x", [KEY])).status == 500
        assert len(findings) == 1
        assert "/undecided/x" in findings[0]
    else:
        assert findings == []


async def test_asking_for_what_the_policy_does_not_provide_is_a_finding() -> None:
    app = FastAPIApp()
    app.guard.asks.append(Ask(who, key, lambda policy: any(policy.find(Key))))

    @app.app.get("/x")
    @app.guard(public)
    async def handler(value: str = Depends(who)) -> str:
        return value

    app.install()
    findings = verify(app.guard, entries(app.guard, app.app), undecided_is_fatal=True)
    assert len(findings) == 1
    assert "does not provide" in findings[0]
