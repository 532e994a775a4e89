"""FastAPI's description of an application says what the guard answers, and handlers are as they were."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any, ClassVar

import pytest
from fastapi import APIRouter, Depends, FastAPI
from fastapi.openapi.models import OpenAPI
from fastapi.security import APIKeyQuery
from pydantic import BaseModel

from routeguard import (
    Attack,
    Check,
    Policy,
    Routeguard,
    Settings,
    Stage,
    UserSession,
    csrf,
    deferred,
    public,
    rate_limit,
)
from routeguard.identity.oauth_server.checks import signed_client

COVERS = ("protection/adapters/fastapi/openapi", "protection/adapters/security")

SCHEMES = {
    "session": {"type": "apiKey", "in": "cookie", "name": "routeguard"},
    "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
    "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "apiKeyBearer": {"type": "http", "scheme": "bearer", "bearerFormat": "API key"},
}


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
    assert write["security"] == [{"session": []}, {"bearer": []}]
    assert statuses(paths["/inner/staff"]["get"]) == {"200", "401", "403", "429", "503"}
    assert paths["/menu"]["get"]["security"] == [{}, {"session": []}, {"bearer": []}]
    assert schema["components"]["schemas"]["Problem"]["required"] == ["type", "title", "status"]
    assert schema["components"]["securitySchemes"] == SCHEMES


def test_own_sign_in_reads_a_cookie_of_a_name_nobody_told() -> None:
    async def identify(exchange: Any) -> None:
        return None

    app, _ = build(identify=identify)
    schema = app.openapi()
    assert "securitySchemes" not in schema["components"]
    assert all("security" not in operation for path in schema["paths"].values() for operation in path.values())
    assert statuses(schema["paths"]["/notes/{number}"]["post"]) == {"200", "401", "403", "422", "503"}


def test_a_check_of_any_kind_is_asked_for_its_attacks() -> None:
    app, guard = build()

    @app.put("/late")
    @guard(public, csrf(token=True))
    async def late() -> str:
        return ""

    assert statuses(app.openapi()["paths"]["/late"]["put"]) == {"200", "403"}


class Allows(Check):
    """A check of the application's, which refuses nobody here."""

    stage = Stage.ACCESS

    def bind(self, services: Any) -> Any:
        async def passes(exchange: Any) -> None: ...

        return passes

    def attacks(self) -> list[Attack]:
        return [Attack(name="shown", status=410)]


class States(Allows):
    statuses: ClassVar[tuple[int, ...]] = (418, 451)


class StatesForUnsafe(States):
    unsafe_only = True


@pytest.mark.parametrize(
    ("check", "read", "written"),
    [
        (Allows(), {"200", "410"}, {"200", "410"}),
        (States(), {"200", "418", "451"}, {"200", "418", "451"}),
        (StatesForUnsafe(), {"200"}, {"200", "418", "451"}),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("nested", [False, True])
def test_a_check_of_ones_own_says_what_it_refuses_with(
    check: Check, read: set[str], written: set[str], nested: bool
) -> None:
    app, guard = build()

    @guard((public | Policy.of(check)) if nested else Policy.of(check))
    async def own() -> str:
        return ""

    app.get("/own")(own)
    app.post("/own")(own)

    described = app.openapi()["paths"]["/own"]
    assert (statuses(described["get"]), statuses(described["post"])) == (read, written)


@dataclass(frozen=True)
class Hook(Check):
    """A check of the application's, which reads a credential of its own."""

    stage = Stage.IDENTITY

    def bind(self, services: Any) -> Any:
        async def passes(exchange: Any) -> None: ...

        return passes


SESSION = [{"session"}, {"bearer"}]
KEY = [{"apiKey"}, {"apiKeyBearer"}]
NEEDS: dict[str, tuple[Callable[[Routeguard[Any]], Any], list[set[str]] | None]] = {
    "session": (lambda guard: guard.session(), SESSION),
    "session-limited": (lambda guard: guard.session(user={"role": "admin"}) & rate_limit("9/minute"), SESSION),
    "session-fresh": (lambda guard: guard.session() & guard.fresh(timedelta(minutes=5)), SESSION),
    "key": (lambda guard: guard.api_key(), KEY),
    "key-scope": (lambda guard: guard.api_key("reports:read"), KEY),
    "either": (lambda guard: guard.session() | guard.api_key(), [*SESSION, *KEY]),
    "either-limited": (lambda guard: rate_limit("9/minute") & (guard.api_key() | guard.session()), [*KEY, *SESSION]),
    "both": (lambda guard: guard.session() & guard.api_key(), [{"session", "apiKey"}, {"session", "apiKeyBearer"}]),
    "either-and-one": (lambda guard: (guard.session() | guard.api_key()) & guard.session(), SESSION),
    "one-of-both": (
        lambda guard: (guard.session() & guard.api_key()) | guard.api_key("reports:read"),
        [{"session", "apiKey"}, {"session", "apiKeyBearer"}, *KEY],
    ),
    "optional": (lambda guard: guard.optional_session(), [set(), *SESSION]),
    "optional-fresh": (lambda guard: guard.optional_session() & guard.fresh(timedelta(minutes=5)), SESSION),
    "optional-and-key": (lambda guard: guard.optional_session() & guard.api_key(), KEY),
    "key-or-optional": (lambda guard: guard.api_key() | guard.optional_session(), [set(), *KEY, *SESSION]),
    "public-or-key": (lambda guard: public | guard.api_key(), [set(), *KEY]),
    "public": (lambda guard: public, None),
    "public-limited": (lambda guard: public & rate_limit("9/minute"), None),
    "deferred": (lambda guard: deferred, None),
    "deferred-or-session": (lambda guard: deferred | guard.session(), None),
    "deferred-and-session": (lambda guard: deferred & guard.session(), SESSION),
    "own": (lambda guard: Policy.of(Hook()), None),
    "own-or-key": (lambda guard: Policy.of(Hook()) | guard.api_key(), KEY),
    "own-and-key": (lambda guard: Policy.of(Hook()) & guard.api_key(), KEY),
    "signed": (lambda guard: signed_client(), [{"signature"}]),
}


def served(guard: Routeguard[Any], app: FastAPI) -> FastAPI:
    def route(name: str, policy: Any) -> None:
        @app.get(f"/{name}")
        @guard(policy)
        async def handler() -> str:
            return ""

    for name, (policy, _) in NEEDS.items():
        route(name, policy(guard))
    return app


def said(schema: dict[str, Any], name: str) -> list[set[str]] | None:
    """The alternatives of an operation, after a look at their form: each scheme is described, none has scopes."""
    security = schema["paths"][f"/{name}"]["get"].get("security")
    for one in security or ():
        assert set(one) <= set(schema["components"]["securitySchemes"])
        assert all(scopes == [] for scopes in one.values())
    return None if security is None else [set(one) for one in security]


def test_security_says_what_opens_each_operation() -> None:
    app, guard = build()
    schema = served(guard, app).openapi()
    assert {name: said(schema, name) for name in NEEDS} == {name: ways for name, (_, ways) in NEEDS.items()}
    OpenAPI.model_validate(schema)


def test_a_mounted_application_says_the_same() -> None:
    app, guard = build()
    sub, around = served(guard, FastAPI()), FastAPI()

    @around.get("/open")
    @guard(public)
    async def open_() -> str:
        return ""

    app.mount("/v1", sub)
    app.mount("/v2", guard(guard.api_key())(around))
    guard.matrix()
    schema = sub.openapi()
    assert {name: said(schema, name) for name in NEEDS} == {name: ways for name, (_, ways) in NEEDS.items()}
    assert said(around.openapi(), "open") == KEY


def test_an_operation_is_exempt_from_a_rule_for_all() -> None:
    app, guard = build()
    sub = served(guard, FastAPI())
    made = sub.openapi
    sub.openapi = lambda: {**made(), "security": [{"session": []}]}  # type: ignore[method-assign]
    app.mount("/v1", sub)
    guard.matrix()
    schema = sub.openapi()
    assert said(schema, "public") == said(schema, "public-limited") == []
    assert said(schema, "deferred") is None
    assert said(schema, "own") is None
    assert said(schema, "optional") == [set(), *SESSION]


def test_what_the_application_declares_itself_is_kept() -> None:
    app, guard = build()
    own = APIKeyQuery(name="ticket", scheme_name="session")

    @app.get("/own", dependencies=[Depends(own)])
    @guard(guard.session())
    async def handler() -> str:
        return ""

    @app.get("/none", openapi_extra={"security": []})
    @guard(guard.session())
    async def none() -> str:
        return ""

    @app.get("/ours")
    @guard(guard.session())
    async def ours() -> str:
        return ""

    schema = app.openapi()
    assert said(schema, "own") == [{"session"}]
    assert said(schema, "none") == []
    assert said(schema, "ours") == [{"routeguard-session"}, {"bearer"}]
    schemes = schema["components"]["securitySchemes"]
    assert schemes["session"] == {"type": "apiKey", "in": "query", "name": "ticket"}
    assert schemes["routeguard-session"] == SCHEMES["session"]


def test_the_matrix_says_what_a_limit_alone_lacks() -> None:
    app, guard = build()

    @app.get("/limited")
    @guard(rate_limit("60/minute"))
    async def limited() -> str:
        return ""

    @app.get("/bare")
    async def bare() -> str:
        return ""

    rows = {row.path: row for row in guard.matrix()}
    words = rate_limit("60/minute").describe()
    assert rows["/limited"].source == "undecided"
    assert rows["/limited"].policy.startswith(
        f"refused: {words}, but who may call is missing. Add that to it, as in @guard("
    )
    assert rows["/bare"].policy == "refused: no decision"
