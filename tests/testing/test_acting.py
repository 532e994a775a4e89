"""`acting_as`: any application of a guard in test mode, those without `dependency_overrides` too."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket

from routeguard import ConfigError, Routeguard, public
from routeguard.testing import acting_as, key_for, session_for
from tests.testing.test_overrides import ANN, BOB, SETTINGS, Person, act, guard, served, small, user

__all__ = ["guard"]


def starlette(guard: Routeguard[Any]) -> Starlette:
    @guard(guard.session(user={"role": "admin"}))
    async def admin(request: Request) -> Response:
        return JSONResponse((await guard.current_session(request)).user.id)

    @guard(public)
    async def found(request: Request) -> Response:
        session = await guard.find_session(request)
        return JSONResponse(None if session is None else session.user.id)

    @guard(guard.session())
    async def socket(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text((await guard.current_session(websocket)).user.id)

    app = Starlette(
        routes=[
            Route("/admin", admin),
            WebSocketRoute("/ws", socket),
            Mount("/below", routes=[Route("/found", found)]),
        ]
    )
    guard.install(app)
    return app


def test_a_starlette_application_is_called_as_the_user(guard: Routeguard[Any]) -> None:
    with TestClient(starlette(guard)) as client:
        assert client.get("/admin").status_code == 401
        with acting_as(guard, ANN):
            assert client.get("/admin").json() == client.get("/below/found").json() == "1"
            with client.websocket_connect("/ws") as socket:
                assert socket.receive_text() == "1"
            with acting_as(guard, BOB):
                assert client.get("/admin").status_code == 403
            with acting_as(guard, None):
                assert client.get("/below/found").json() is None
            assert client.get("/admin").status_code == 200
        assert client.get("/admin").status_code == 401


def test_it_ends_with_a_test_that_fails(guard: Routeguard[Any]) -> None:
    with pytest.raises(LookupError), acting_as(guard, ANN):
        raise LookupError
    with TestClient(starlette(guard)) as client:
        assert client.get("/admin").status_code == 401


def test_it_holds_for_every_application_that_overrides_nothing(guard: Routeguard[Any]) -> None:
    app, inner = served(guard), small(guard)
    app.mount("/inner", inner)
    session = session_for(ANN)
    with TestClient(app) as client, acting_as(guard, session) as caller:
        assert caller is session
        assert client.get("/taken").json() == client.get("/inner/me").json() == "1"
        act(inner, guard.current_session, BOB)
        assert (client.get("/taken").json(), client.get("/inner/me").json()) == ("1", "2")


def test_a_key_acts_too(sqlite_url: str) -> None:
    guard: Routeguard[Any] = Routeguard(replace(SETTINGS, database_url=sqlite_url))
    app = FastAPI()

    @app.get("/reports")
    @guard(guard.api_key("reports:read"))
    async def reports() -> str:
        return "in"

    guard.install(app)
    with TestClient(app) as client:
        with acting_as(guard, key_for(user("ann"), "reports:*")):
            assert client.get("/reports").status_code == 200
        with acting_as(guard, user("ann")):
            assert client.get("/reports").status_code == 401


@pytest.mark.parametrize("environment", ["", "development"])
def test_outside_test_mode_it_is_refused(environment: str) -> None:
    guard: Routeguard[Any] = Routeguard(
        replace(SETTINGS, environment=environment), user=Person, identify=lambda _: None
    )
    with pytest.raises(ConfigError, match='environment="test"'), acting_as(guard, ANN):
        pytest.fail("it let somebody act")
