"""FastAPI's description of an application says what the guard answers, and handlers are as they were."""

from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI
from pydantic import BaseModel

from routeguard import Routeguard, Settings, UserSession, csrf, public, rate_limit


class Note(BaseModel):
    text: str


def build(**options: Any) -> tuple[FastAPI, Routeguard[Any]]:
    app = FastAPI()
    guard: Routeguard[Any] = Routeguard(Settings(database_url="sqlite://"), **options)
    guard.install(app)
    session = Annotated[UserSession[Any], Depends(guard.current_session)]
    inner = APIRouter(prefix="/inner")

    @app.get("/open")
    @guard(public)
    async def open_() -> str:
        return ""

    @app.post("/notes/{number:int}", responses={503: {"description": "Own words"}})
    async def write(number: int, note: Note, session: session) -> str:
        return ""

    @inner.get("/staff")
    @guard(guard.session(user={"role": "admin"}) & rate_limit("60/minute"))
    async def staff() -> str:
        return ""

    @app.get("/menu")
    @guard(guard.optional_session())
    async def menu() -> str:
        return ""

    app.include_router(inner)
    return app, guard


def statuses(operation: dict[str, Any]) -> set[str]:
    return set(operation["responses"])


@pytest.fixture(autouse=True)
def _folder(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_each_operation_says_what_its_policy_refuses_with() -> None:
    app, _ = build()
    schema = app.openapi()
    assert app.openapi() is schema, "made once"
    paths = schema["paths"]
    assert statuses(paths["/open"]["get"]) == {"200"}
    assert "security" not in paths["/open"]["get"]
    write = paths["/notes/{number}"]["post"]
    assert statuses(write) == {"200", "401", "403", "422", "503"}
    assert write["responses"]["503"] == {"description": "Own words"}
    for status in ("401", "422"):
        content = write["responses"][status]["content"]
        assert content == {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    assert write["security"] == [{"session": []}]
    assert statuses(paths["/inner/staff"]["get"]) == {"200", "401", "403", "429", "503"}
    assert paths["/menu"]["get"]["security"] == [{}, {"session": []}]
    assert schema["components"]["schemas"]["Problem"]["required"] == ["type", "title", "status"]
    cookie = schema["components"]["securitySchemes"]["session"]
    assert cookie == {"type": "apiKey", "in": "cookie", "name": "routeguard"}


def test_own_sign_in_reads_a_cookie_of_a_name_nobody_told() -> None:
    async def identify(exchange: Any) -> None:
        return None

    app, _ = build(identify=identify)
    schema = app.openapi()
    assert "securitySchemes" not in schema["components"]
    assert statuses(schema["paths"]["/notes/{number}"]["post"]) == {"200", "401", "403", "422", "503"}


def test_a_check_of_any_kind_is_asked_for_its_attacks() -> None:
    app, guard = build()

    @app.put("/late")
    @guard(public, csrf(token=True))
    async def late() -> str:
        return ""

    assert statuses(app.openapi()["paths"]["/late"]["put"]) == {"200", "403"}
