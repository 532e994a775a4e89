"""`dependency_overrides` of the guard in test mode: they say who is calling, and every policy still decides."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import httpx2
import pytest
from fastapi import APIRouter, Body, Depends, FastAPI, Header, HTTPException, Request, WebSocket
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from routeguard import (
    ApiKey,
    Check,
    Policy,
    Routeguard,
    Settings,
    User,
    UserSession,
    csrf,
    deferred,
    public,
    rate_limit,
)
from routeguard import user as by_user
from routeguard.core.exchange import Exchange
from routeguard.core.policy import BoundCheck, Outcome, Stage
from routeguard.core.principal import PrincipalWatcher
from routeguard.core.problem import PERMISSION_DENIED
from routeguard.core.secret import Secret
from routeguard.core.services import Services
from routeguard.testing import key_for, session_for

COVERS = (
    "core/overrides",
    "protection/adapters/fastapi/overrides",
    "protection/adapters/overrides",
    "protection/guard/overrides",
)

SETTINGS = Settings(environment="test", secret=Secret("0123456789abcdef" * 2))
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Person:
    id: str
    role: str = "user"


ANN, BOB = Person("1", "admin"), Person("2")


@pytest.fixture
def guard() -> Routeguard[Any]:
    """A guard in test mode over an application's own users: nobody is signed in."""
    return Routeguard(SETTINGS, user=Person, identify=lambda _: None)


@pytest.fixture
def full(sqlite_url: str) -> Routeguard[Any]:
    """A guard in test mode with the identity service: our sessions, and API keys."""
    return Routeguard(replace(SETTINGS, database_url=sqlite_url))


def user(name: str, role: str = "user") -> User:
    return User(id=f"usr_{name}", email=f"{name}@example.com", role=role, created_at=LONG_AGO)  # type: ignore[arg-type]


def served(guard: Routeguard[Any]) -> FastAPI:
    """Return a guarded application that has a route of each kind."""
    app = FastAPI()

    @app.get("/taken")
    async def taken(session: UserSession[Any] = Depends(guard.current_session)) -> str:
        return str(session.user.id)

    @app.get("/marked")
    @guard(guard.session())
    async def marked() -> str:
        return "in"

    @app.get("/admin")
    @guard(guard.session(user={"role": "admin"}))
    async def admin() -> str:
        return "in"

    @app.get("/rule")
    @guard(guard.session(rule=lambda session: session.user.id == "1"))
    async def rule() -> str:
        return "in"

    @app.get("/fresh")
    @guard(guard.session() & guard.fresh(minutes=5))
    async def fresh() -> str:
        return "in"

    @app.post("/change")
    @guard(guard.session())
    async def change(body: dict[str, str]) -> dict[str, str]:
        return body

    @app.post("/token")
    @guard(guard.session() & csrf(token=True))
    async def token() -> str:
        return "in"

    @app.get("/perhaps")
    @guard(guard.optional_session())
    async def perhaps(session: UserSession[Any] | None = Depends(guard.current_session_or_none)) -> str:
        return "guest" if session is None else str(session.user.id)

    @app.get("/found")
    @guard(public)
    async def found(request: Request) -> str:
        session = await guard.find_session(request)
        return "guest" if session is None else str(session.user.id)

    @app.get("/deferred")
    @guard(deferred)
    async def decided(request: Request) -> str:
        return str((await guard.require(request, guard.session(user={"role": "admin"}))).user.id)

    @app.get("/twice")
    @guard(guard.session() & rate_limit("1/hour", by=by_user))
    async def twice() -> str:
        return "in"

    @app.get("/items/{item}")
    @guard(guard.session())
    async def item(item: str) -> str:
        return item

    @app.websocket("/ws")
    @guard(guard.session(user={"role": "admin"}))
    async def socket(websocket: WebSocket, session: UserSession[Any] = Depends(guard.current_session)) -> None:
        await websocket.accept()
        await websocket.send_text(str(session.user.id))

    @app.websocket("/ws-found")
    @guard(public)
    async def found_socket(websocket: WebSocket) -> None:
        await websocket.accept()
        session = await guard.find_session(websocket)
        await websocket.send_text("guest" if session is None else str(session.user.id))

    guard.install(app)
    return app


@pytest.fixture
def app(guard: Routeguard[Any]) -> FastAPI:
    return served(guard)


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app) as client:
        yield client


def act(app: FastAPI, value: Any, person: Any) -> None:
    app.dependency_overrides[value] = lambda: session_for(person)


# -- the policies decide about that user ----------------------------------------------------------------------------


def test_without_an_override_nobody_is_signed_in(client: TestClient) -> None:
    assert client.get("/taken").status_code == 401


@pytest.mark.parametrize("path", ["/taken", "/marked", "/admin", "/rule", "/fresh", "/perhaps", "/found", "/deferred"])
@pytest.mark.parametrize("value", ["current_session", "current_session_or_none", "current"])
def test_an_override_acts_as_its_user(
    guard: Routeguard[Any], app: FastAPI, client: TestClient, value: str, path: str
) -> None:
    act(app, getattr(guard, value), ANN)
    answer = client.get(path)
    assert answer.status_code == 200
    assert answer.json() in {"in", "1"}


def test_policies_refuse_an_overridden_user_like_any_other(
    guard: Routeguard[Any], app: FastAPI, client: TestClient
) -> None:
    act(app, guard.current_session, BOB)
    assert [client.get(path).status_code for path in ("/marked", "/admin", "/rule", "/deferred")] == [
        200,
        403,
        403,
        403,
    ]
    old = session_for(BOB, authenticated_at=LONG_AGO)
    app.dependency_overrides[guard.current_session] = lambda: old
    assert client.get("/fresh").status_code == 401
    assert client.get("/fresh").json()["type"].endswith("step-up-required")


def test_a_user_without_the_field_is_refused(guard: Routeguard[Any], app: FastAPI, client: TestClient) -> None:
    @dataclass(frozen=True)
    class Bare:
        id: str

    act(app, guard.current_session, Bare("1"))
    assert client.get("/admin").status_code == 403
    assert client.get("/rule").status_code == 200


def test_limits_count_the_overridden_user(guard: Routeguard[Any], app: FastAPI, client: TestClient) -> None:
    act(app, guard.current_session, ANN)
    assert [client.get("/twice").status_code for _ in range(2)] == [200, 429]
    act(app, guard.current_session, BOB)
    assert client.get("/twice").status_code == 200


def test_an_overridden_user_needs_no_token_against_forgery(
    guard: Routeguard[Any], app: FastAPI, client: TestClient
) -> None:
    act(app, guard.current_session, ANN)
    client.cookies.set("theme", "dark")
    assert client.post("/change", json={"a": "b"}).json() == {"a": "b"}
    assert client.post("/token").status_code == 200


def test_none_is_a_guest(guard: Routeguard[Any], app: FastAPI, client: TestClient) -> None:
    app.dependency_overrides[guard.current_session_or_none] = lambda: None
    assert client.get("/perhaps").json() == client.get("/found").json() == "guest"
    assert client.get("/marked").status_code == 401


def test_a_guest_is_one_whatever_the_credential(sqlite_url: str) -> None:
    guard = Routeguard(replace(SETTINGS, database_url=sqlite_url), user=Person, identify=lambda _: ANN, features=[])
    app = served(guard)
    with TestClient(app) as client:
        assert client.get("/perhaps").json() == "1"
        app.dependency_overrides[guard.current_session_or_none] = lambda: None
        assert client.get("/perhaps").json() == "guest"


def test_a_socket_is_opened_as_the_overridden_user(full: Routeguard[Any]) -> None:
    app = served(full)
    with TestClient(app) as client:
        app.dependency_overrides[full.current_session] = lambda: session_for(user("ann", "admin"))
        with client.websocket_connect("/ws", headers={"cookie": "theme=dark"}) as socket:
            assert socket.receive_text() == "usr_ann"
        with client.websocket_connect("/ws-found", headers={"cookie": "theme=dark"}) as socket:
            assert socket.receive_text() == "usr_ann"
        app.dependency_overrides[full.current_session] = lambda: session_for(user("bob"))
        with pytest.raises(WebSocketDisconnect), client.websocket_connect("/ws") as socket:
            socket.receive_text()


def test_a_socket_stays_open_though_no_store_knows_the_session(full: Routeguard[Any]) -> None:
    app = FastAPI()

    @app.websocket("/ws")
    async def waiting(websocket: WebSocket, session: UserSession[Any] = Depends(full.current_session)) -> None:
        await websocket.accept()
        for _ in range(3):
            await full.services.get(PrincipalWatcher).wait_until_revoked(session)
        await websocket.send_text("still")

    full.install(app)
    act(app, full.current_session, user("ann"))
    with TestClient(app) as client, client.websocket_connect("/ws") as socket:
        assert socket.receive_text() == "still"


# -- API keys ---------------------------------------------------------------------------------------------------------


def with_keys(guard: Routeguard[Any]) -> FastAPI:
    app = FastAPI()

    @app.get("/key")
    async def key(key: ApiKey = Depends(guard.current_key)) -> str:
        return key.id

    @app.get("/reports")
    @guard(guard.api_key("reports:read", privilege="protected"))
    async def reports() -> str:
        return "in"

    @app.get("/either")
    @guard(guard.session(user={"role": "admin"}) | guard.api_key("reports:read"))
    async def either(caller: Any = Depends(guard.current)) -> str:
        return str(caller.principal_id)

    guard.install(app)
    return app


@pytest.mark.parametrize("value", ["current_key", "current"])
def test_a_key_is_overridden_too(full: Routeguard[Any], value: str) -> None:
    app = with_keys(full)
    with TestClient(app) as client:
        key = key_for(user("ann"), "reports:read", privilege="full")
        app.dependency_overrides[getattr(full, value)] = lambda: key
        assert client.get("/key").json() == client.get("/either").json() == key.id
        assert client.get("/reports").status_code == 200
        weak = key_for(user("ann"))
        app.dependency_overrides[getattr(full, value)] = lambda: weak
        assert [client.get(path).status_code for path in ("/key", "/reports", "/either")] == [200, 403, 403]


def test_a_session_opens_no_route_for_keys(full: Routeguard[Any]) -> None:
    app = with_keys(full)
    with TestClient(app) as client:
        act(app, full.current_session, user("ann", "admin"))
        assert [client.get(path).status_code for path in ("/key", "/reports", "/either")] == [401, 401, 200]
        act(app, full.current_session, user("bob"))
        assert client.get("/either").status_code == 403


def test_a_session_and_a_key_are_overridden_side_by_side(full: Routeguard[Any]) -> None:
    app = with_keys(full)
    key = key_for(user("ann"), "reports:read")
    with TestClient(app) as client:
        act(app, full.current_session, user("bob"))
        app.dependency_overrides[full.current_key] = lambda: key
        assert client.get("/either").json() == key.id


# -- whatever FastAPI takes as a dependency ---------------------------------------------------------------------------


def test_an_override_may_be_whatever_a_dependency_may_be(
    guard: Routeguard[Any], app: FastAPI, client: TestClient
) -> None:
    async def coroutine() -> UserSession[Person]:
        return session_for(ANN)

    async def with_parameters(
        item: str, request: Request, since: int = 0, x_person: str = Header("1")
    ) -> UserSession[Person]:
        assert request.url.path == f"/items/{item}"
        return session_for(Person(x_person, str(since)))

    def nested(session: UserSession[Person] = Depends(coroutine)) -> UserSession[Person]:
        return session

    class Made(UserSession[Person]):
        def __init__(self) -> None:
            super().__init__(**{name: getattr(session_for(ANN), name) for name in UserSession.__slots__})

    for override in (coroutine, with_parameters, nested, Made):
        app.dependency_overrides[guard.current_session] = override
        assert client.get("/items/7").json() == "7", override
    app.dependency_overrides[guard.current_session] = with_parameters
    assert client.get("/items/7", params={"since": "no number"}).status_code == 422


def test_a_generator_ends_after_the_answer(guard: Routeguard[Any], app: FastAPI, client: TestClient) -> None:
    seen: list[str] = []

    def plain() -> Iterator[UserSession[Person]]:
        seen.append("begins")
        yield session_for(ANN)
        seen.append("ends")

    async def asynchronous() -> AsyncIterator[UserSession[Person]]:
        seen.append("begins")
        yield session_for(ANN)
        seen.append("ends")

    @app.get("/seen")
    @guard(guard.session())
    async def handler() -> list[str]:
        return [*seen]

    for override in (plain, asynchronous):
        seen.clear()
        app.dependency_overrides[guard.current_session] = override
        assert client.get("/seen").json() == ["begins"]
        assert seen == ["begins", "ends"]


def test_an_override_may_read_the_body_which_the_handler_reads_too(
    guard: Routeguard[Any], app: FastAPI, client: TestClient
) -> None:
    async def by_body(request: Request) -> UserSession[Person]:
        return session_for(Person((await request.json())["id"]))

    app.dependency_overrides[guard.current_session] = by_body
    assert client.post("/change", json={"id": "1"}).json() == {"id": "1"}


def test_an_override_runs_once_for_all_policies_of_a_request(
    guard: Routeguard[Any], app: FastAPI, client: TestClient
) -> None:
    calls: list[None] = []

    def counted() -> UserSession[Person]:
        calls.append(None)
        return session_for(ANN)

    router = guard(guard.session())(APIRouter())

    @router.get("/inside")
    @guard(guard.session(user={"role": "admin"}) | guard.session(user={"role": "other"}))
    async def inside() -> str:
        return "in"

    app.include_router(router)
    app.dependency_overrides[guard.current_session] = counted
    assert client.get("/inside").status_code == 200
    assert len(calls) == 1


# -- what cannot be ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "returned", "expected"),
    [
        ("current_session", ANN, "guard.current_session returned Person, and has to return UserSession;"),
        ("current_session", None, "guard.current_session returned NoneType, and has to return UserSession;"),
        ("current_session_or_none", "ann", "returned str, and has to return UserSession or None;"),
        ("current", 1, "returned int, and has to return UserSession or ApiKey"),
    ],
)
def test_a_value_that_is_no_caller_is_an_error(
    guard: Routeguard[Any], app: FastAPI, client: TestClient, value: str, returned: object, expected: str
) -> None:
    app.dependency_overrides[getattr(guard, value)] = lambda: returned
    with pytest.raises(TypeError, match=expected):
        client.get("/marked")


def test_a_caller_without_an_id_is_an_error(guard: Routeguard[Any], app: FastAPI, client: TestClient) -> None:
    nobody = replace(session_for(ANN), user=object())
    app.dependency_overrides[guard.current_session] = lambda: nobody
    with pytest.raises(TypeError, match="a caller without an id"):
        client.get("/marked")


def test_what_an_override_raises_is_what_the_test_sees(
    guard: Routeguard[Any], app: FastAPI, client: TestClient
) -> None:
    def broken() -> None:
        raise LookupError("no such person")

    def refused() -> None:
        raise HTTPException(418, "a teapot")

    app.dependency_overrides[guard.current_session] = broken
    for path in ("/marked", "/found", "/deferred"):
        with pytest.raises(LookupError, match="no such person"):
            client.get(path)
    app.dependency_overrides[guard.current_session] = refused
    assert client.get("/marked").status_code == 418


def test_an_override_that_takes_the_body_is_an_error(guard: Routeguard[Any], app: FastAPI, client: TestClient) -> None:
    def by_body(name: str = Body(embed=True)) -> UserSession[Person]:
        return session_for(Person(name))

    app.dependency_overrides[guard.current_session] = by_body
    with pytest.raises(TypeError, match="takes the body of the request"):
        client.post("/change", json={"name": "1"})


# -- which application's ----------------------------------------------------------------------------------------------


def small(guard: Routeguard[Any]) -> FastAPI:
    app = FastAPI()

    @app.get("/me")
    async def me(session: UserSession[Any] = Depends(guard.current_session)) -> str:
        return str(session.user.id)

    return app


def test_a_mounted_application_has_overrides_of_its_own(
    guard: Routeguard[Any], app: FastAPI, client: TestClient
) -> None:
    inner = small(guard)
    app.mount("/inner", inner)
    act(app, guard.current_session, ANN)
    assert client.get("/inner/me").status_code == 401
    act(inner, guard.current_session, BOB)
    assert (client.get("/inner/me").json(), client.get("/taken").json()) == ("2", "1")


def test_the_policy_of_a_mount_asks_the_overrides_of_what_is_mounted(
    guard: Routeguard[Any], app: FastAPI, client: TestClient
) -> None:
    inner = guard(guard.session(user={"role": "admin"}))(small(guard))
    app.mount("/inner", inner)
    act(inner, guard.current_session, BOB)
    assert client.get("/inner/me").status_code == 403
    act(inner, guard.current_session, ANN)
    assert client.get("/inner/me").json() == "1"


def test_dependencies_and_policies_of_routers_see_the_overridden_user(
    guard: Routeguard[Any], app: FastAPI, client: TestClient
) -> None:
    asked = APIRouter(dependencies=[Depends(guard.current_session)])
    marked = guard(guard.session(user={"role": "admin"}))(APIRouter())

    @asked.get("/asked")
    @marked.get("/marked-router")
    async def handler() -> str:
        return "in"

    outer = APIRouter(prefix="/deep")
    outer.include_router(asked)
    outer.include_router(marked)
    app.include_router(outer)
    assert [client.get(path).status_code for path in ("/deep/asked", "/deep/marked-router")] == [401, 401]
    act(app, guard.current_session, BOB)
    assert [client.get(path).status_code for path in ("/deep/asked", "/deep/marked-router")] == [200, 403]
    act(app, guard.current_session, ANN)
    assert client.get("/deep/marked-router").status_code == 200


@pytest.mark.anyio
async def test_applications_with_different_overrides_do_not_mix(guard: Routeguard[Any]) -> None:
    applications = [small(guard), small(guard)]
    all_at_once = asyncio.Barrier(20)

    def override(person: Person) -> Any:
        async def slow() -> UserSession[Person]:
            await all_at_once.wait()
            return session_for(person)

        return slow

    for app, person in zip(applications, (ANN, BOB), strict=True):
        app.dependency_overrides[guard.current_session] = override(person)
        guard.install(app)
    one, other = (
        httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://127.0.0.1:8000")
        for app in applications
    )
    async with one, other:
        answers = await asyncio.gather(*(client.get("/me") for _ in range(10) for client in (one, other)))
    assert [answer.json() for answer in answers] == ["1", "2"] * 10
    await guard.close()


def test_both_event_loops_of_a_guard_ask_the_overrides(guard: Routeguard[Any], app: FastAPI) -> None:
    act(app, guard.current_session, ANN)
    with TestClient(app) as one, TestClient(app) as other:
        assert one.get("/taken").json() == other.get("/taken").json() == "1"


@dataclass(frozen=True)
class Owner(Check):
    """The caller's id is the one in the path."""

    stage = Stage.RESOURCE

    def bind(self, services: Services) -> BoundCheck:
        async def owns(exchange: Exchange) -> Outcome:
            caller = exchange.principal
            mine = caller is not None and caller.principal_id == exchange.request.path_params["person"]
            return None if mine else PERMISSION_DENIED()

        return owns


def test_a_check_of_the_application_sees_the_overridden_user(guard: Routeguard[Any], app: FastAPI) -> None:
    @app.get("/people/{person}")
    @guard(guard.session() & Policy((Owner(),)))
    async def person(person: str) -> str:
        return person

    act(app, guard.current_session, ANN)
    with TestClient(app) as client:
        assert [client.get(f"/people/{name}").status_code for name in "12"] == [200, 403]
