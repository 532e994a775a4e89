"""The application's own sign-in, and what it may say of how it found somebody."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

from routeguard import ByHeader, ConfigError, Routeguard, Secret, Settings, public, rate_limit
from routeguard.core.policy import Check, Stage
from routeguard.protection.traffic.callers import user
from routeguard.protection.traffic.idempotent import idempotent
from tests.backends import free_port

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


SETTINGS = Settings(secret=Secret("0123456789abcdef" * 2))


class Account:
    """A model of an ORM whose database session is closed as soon as `identify` has returned it."""

    def __init__(self, key: Any, role: str = "admin") -> None:
        self.key, self.kind, self.open = key, role, True
        self.threads: set[int] = set()

    def _read(self, value: Any) -> Any:
        if not self.open:
            raise RuntimeError("detached")
        return value

    @property
    def id(self) -> Any:
        return self._read(self.key)

    @property
    def role(self) -> str:
        return str(self._read(self.kind))


class Awaited:
    """An instance whose call is a coroutine function."""

    async def __call__(self, request: Any) -> Person:
        return Person(threading.current_thread().name)


async def on_loop(request: Any) -> Person:
    return Person(threading.current_thread().name)


def gives_awaitable(request: Any) -> Any:
    return on_loop(request)


def in_thread(request: Any) -> Person:
    return Person(threading.current_thread().name)


def who_is(identify: Any) -> str:
    guard: Routeguard[Any] = Routeguard(SETTINGS, identify=identify)

    async def me(request: Request) -> PlainTextResponse:
        found = await guard.current_session(request)
        loop = threading.current_thread().name
        return PlainTextResponse("loop" if found.user.id == loop else "thread")

    app = Starlette(routes=[Route("/x", guard(guard.session())(me))])
    guard.install(app)
    with TestClient(app) as client:
        return client.get("/x").text


@pytest.mark.parametrize(
    ("identify", "place"),
    [
        (on_loop, "loop"),
        (partial(on_loop), "loop"),
        (Awaited(), "loop"),
        (Awaited().__call__, "loop"),
        (gives_awaitable, "loop"),
        (in_thread, "thread"),
        (partial(in_thread), "thread"),
        (lambda request: in_thread(request) or None, "thread"),
    ],
    ids=["async", "partial", "instance", "method", "lambda of async", "plain", "plain partial", "lambda"],
)
def test_coroutine_functions_run_on_the_loop_and_all_others_in_a_thread(identify: Any, place: str) -> None:
    assert who_is(identify) == place


@pytest.mark.parametrize("key", [UUID(int=7), 7, "7"], ids=["uuid", "int", "str"])
def test_an_id_becomes_text_once_and_the_model_is_not_read_again(key: Any) -> None:
    made: list[Account] = []

    def identify(request: Any) -> Account:
        made.append(Account(key))
        return made[-1]

    @dataclass(frozen=True)
    class Closes(Check):
        stage = Stage.IDENTITY

        def bind(self, services: Any) -> Any:
            async def close(exchange: Any) -> None:
                made[-1].open = False

            return close

    guard: Routeguard[Any] = Routeguard(SETTINGS, identify=identify)
    found: list[str] = []

    async def me(request: Request) -> PlainTextResponse:
        session = await guard.current_session(request)
        found.append(session.principal_id)
        return PlainTextResponse(session.principal_id)

    limits = rate_limit("9/hour", by=user) & idempotent()
    policy = guard.session(user={"role": "admin"}) & limits
    app = Starlette(routes=[Route("/x", guard(policy, Closes())(me), methods=["POST"])])
    guard.install(app)
    with TestClient(app) as client:
        answer = client.post("/x", headers={"idempotency-key": "a" * 20})
        assert (answer.status_code, answer.text) == (200, str(key))
    assert found == [str(key)]


@pytest.mark.parametrize(
    "key", [True, "", None, b"x", 1.5, object()], ids=["true", "empty", "none", "bytes", "float", "object"]
)
def test_what_is_no_id_is_no_user(key: Any) -> None:
    guard: Routeguard[Any] = Routeguard(SETTINGS, identify=lambda request: Account(key))

    async def me(request: Request) -> PlainTextResponse:
        return PlainTextResponse("in")

    app = Starlette(routes=[Route("/x", guard(guard.session())(me))])
    guard.install(app)
    with TestClient(app, raise_server_exceptions=False) as client:
        assert client.get("/x").status_code == 500


def test_a_rate_may_be_counted_by_a_number_and_not_by_a_coroutine() -> None:
    guard: Routeguard[Any] = Routeguard(SETTINGS, identify=lambda request: Account(UUID(int=7)))

    async def me(request: Request) -> PlainTextResponse:
        return PlainTextResponse("in")

    policy = guard.session() & rate_limit("1/hour", by=lambda exchange: exchange.principal.user.id)
    app = Starlette(routes=[Route("/x", guard(policy)(me))])
    guard.install(app)
    with TestClient(app) as client:
        assert [client.get("/x").status_code for _ in range(2)] == [200, 429]

    async def later(exchange: Any) -> str:
        return "x"

    with pytest.raises(ConfigError, match="coroutine function"):
        rate_limit("1/hour", by=later)  # type: ignore[arg-type]


PAGES: Final = {
    "Basic": {"authorization": "Basic YWxpY2U6cHc="},
    "Digest": {"authorization": 'Digest username="alice"'},
    "Negotiate": {"authorization": "Negotiate YII"},
    "a proxy's field": {"x-forwarded-user": "alice"},
    "an address": {},
}


@pytest.mark.parametrize("wrapped", [False, True], ids=["a user", "ByHeader"])
@pytest.mark.parametrize("name", PAGES)
def test_what_any_page_makes_a_browser_send_opens_no_socket(name: str, wrapped: bool) -> None:
    """WS-01: HTTP authentication is repeated in handshakes, and a proxy adds its fields for every page's request."""

    def found(_request: Any) -> Any:
        return ByHeader(Person("alice")) if wrapped else Person("alice")

    guard: Routeguard[Person] = Routeguard(Settings(), user=Person, identify=found)

    async def guarded(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text("open")

    async def known(socket: WebSocket) -> None:
        session = await guard.find_session(socket)
        await socket.accept()
        await socket.send_text("nobody" if session is None else session.user.id)

    routes = [
        WebSocketRoute("/guarded", guard(guard.session())(guarded)),
        WebSocketRoute("/known", guard(public)(known)),
    ]
    app = Starlette(routes=routes)
    guard.install(app)
    sent = PAGES[name]
    evil = sent | {"origin": "https://evil.example"}
    with TestClient(app, base_url="http://127.0.0.1:8000") as client:
        for offered in (None, ["chat"]):
            with (
                pytest.raises(WebSocketDisconnect),
                client.websocket_connect("/guarded", offered, headers=evil),
            ):
                pass
            with client.websocket_connect("/known", offered, headers=evil) as socket:
                assert socket.receive_text() == "nobody"
        ours = sent | {"origin": "http://127.0.0.1:8000"}
        with client.websocket_connect("/guarded", headers=ours) as socket:
            assert socket.receive_text() == "open"
        with client.websocket_connect("/known", headers=ours) as socket:
            assert socket.receive_text() == "alice"


@pytest.mark.parametrize("sent", [{"authorization": "Bearer good"}, {"authorization": "DPoP x"}, {"x-api-key": "k"}])
def test_a_program_opens_a_socket_from_anywhere(sent: dict[str, str]) -> None:
    """No page can set these fields in a handshake."""
    guard: Routeguard[Person] = Routeguard(Settings(), user=Person, identify=lambda _request: ByHeader(Person("alice")))

    async def guarded(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text("open")

    app = Starlette(routes=[WebSocketRoute("/guarded", guard(guard.session())(guarded))])
    guard.install(app)
    sent = sent | {"origin": "https://evil.example", "cookie": "balancer=1"}
    with (
        TestClient(app, base_url="http://127.0.0.1:8000") as client,
        client.websocket_connect("/guarded", headers=sent) as socket,
    ):
        assert socket.receive_text() == "open"


def test_who_was_found_for_one_method_is_not_known_for_another() -> None:
    """A method override behind a marked mount, and a resolver that looks at the method."""

    def readers(request: Any) -> Any:
        return Person("reader") if request.method == "GET" else None

    guard: Routeguard[Person] = Routeguard(Settings(), user=Person, identify=readers)

    async def handler(request: Request) -> PlainTextResponse:
        return PlainTextResponse(request.method)

    class Override:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            override = dict(scope["headers"]).get(b"x-http-method-override", scope["method"].encode())
            await self.app({**scope, "method": override.decode()}, receive, send)

    inner = guard(guard.session())(handler)
    mount = Mount("/api", routes=[Route("/x", inner, methods=["GET", "POST"])], middleware=[Middleware(Override)])
    app = Starlette(routes=[guard(guard.session())(mount)])
    guard.install(app)
    with TestClient(app, base_url="http://127.0.0.1:8000") as client:
        assert client.get("/api/x").text == "GET"
        ours = {"origin": "http://127.0.0.1:8000", "x-http-method-override": "POST"}
        assert client.get("/api/x", headers=ours).status_code == 401


POOLED = """
import asyncio, sys, uvicorn
import sqlalchemy as sa
from fastapi import Depends, FastAPI
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from routeguard import Routeguard, Secret, Settings, public

engine = sa.create_engine("sqlite:///app.db", poolclass=sa.QueuePool, pool_size=5, max_overflow=0, pool_timeout=20)
entered, held = [], []

class Base(DeclarativeBase): ...

class Employee(Base):
    __tablename__ = "employee"
    id: Mapped[int] = mapped_column(primary_key=True)
    role: Mapped[str]

Base.metadata.create_all(engine)
with Session(engine) as session, session.begin():
    session.add(Employee(id=1, role="admin"))

def identify(request):
    entered.append(request)
    with Session(engine) as session:
        return session.get(Employee, 1) if request.header("x-user") else None

def connection():
    with Session(engine) as session:
        session.execute(sa.text("select 1"))
        yield session

app = FastAPI()
guard = Routeguard(Settings(secret=Secret("0123456789abcdef" * 2)), identify=identify)
guard.install(app)

@app.get("/x")
@guard(guard.session(user={"role": "admin"}))
async def handler(session=Depends(connection)):
    # All connections are held until others wait for one in `identify`; only the event loop can give them back.
    held.append(1)
    while len(entered) < 16:
        await asyncio.sleep(0.01)
    return "known"

@app.get("/held")
@guard(public)
async def count():
    return len(held)

uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
"""


def test_a_connection_pool_is_waited_for_beside_the_loop(tmp_path: Path) -> None:
    """Many more requests at once than connections; and the server still ends when it is told to."""
    (tmp_path / "pooled.py").write_text(POOLED)
    port = free_port()
    process = subprocess.Popen([sys.executable, "pooled.py", str(port)], cwd=tmp_path)
    try:
        url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                if httpx2.get(url + "/held").status_code == 200:
                    break
            except httpx2.TransportError:
                time.sleep(0.05)

        async def crowd() -> list[int]:
            limits = httpx2.Limits(max_connections=60)
            async with httpx2.AsyncClient(timeout=60, limits=limits, headers={"x-user": "1"}) as client:
                first = [asyncio.create_task(client.get(url + "/x")) for _ in range(5)]
                while (await client.get(url + "/held")).json() < 5:
                    await asyncio.sleep(0.01)
                others = [asyncio.create_task(client.get(url + "/x")) for _ in range(43)]
                return [one.status_code for one in await asyncio.gather(*first, *others)]

        assert set(asyncio.run(crowd())) == {200}
        process.terminate()
        assert process.wait(30) in {0, -15}
    finally:
        process.kill()
        process.wait()
