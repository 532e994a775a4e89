"""One guard, any number of starts: one after the other, side by side, in any event loop, and nothing left by any."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest
import uvicorn
from fastapi import FastAPI, WebSocket
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from starlette.testclient import TestClient

from routeguard import ConfigError, Routeguard, Settings, defaults, public, rate_limit
from routeguard.core.feature import Feature
from routeguard.core.secret import Secret
from routeguard.core.setup import Setup
from routeguard.foundation.db.database import Database
from routeguard.foundation.db.migrate import migrate
from routeguard.foundation.signatures.keys import new_secret
from routeguard.protection.traffic.deduplicate import deduplicate
from routeguard.protection.traffic.idempotent import idempotent
from tests.rounds import rounds
from tests.test_app import AppUser, resolver

PASSWORD = "correct horse battery staple 9"
ORIGIN = {"origin": "http://localhost:8000"}
SETTINGS = Settings(secret=Secret("0123456789abcdef" * 2))


@pytest.fixture(params=["sqlite", "postgresql"])
def settings(request: pytest.FixtureRequest) -> Settings:
    """Everything on this machine, or everything on servers."""
    if request.param == "sqlite":
        return replace(SETTINGS, database_url=request.getfixturevalue("sqlite_url"))
    return replace(
        SETTINGS,
        database_url=request.getfixturevalue("postgresql_url"),
        ephemeral_url=request.getfixturevalue("valkey_url"),
    )


@pytest.fixture
def lite(sqlite_url: str) -> Settings:
    """Everything on this machine."""
    return replace(SETTINGS, database_url=sqlite_url)


def served(guard: Routeguard[Any], **options: Any) -> FastAPI:
    """Return an application with a route of each kind."""
    app = FastAPI()

    @app.get("/public")
    @guard(public & rate_limit("1000/minute"))
    async def anybody() -> str:
        return "anybody"

    @app.get("/me")
    @guard(guard.session())
    async def me() -> str:
        return "known"

    @app.post("/once")
    @guard(public & deduplicate() & idempotent())
    async def once() -> str:
        return "once"

    @app.websocket("/ws")
    @guard(guard.session())
    async def socket(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text("known")
        await websocket.close()

    guard.install(app, **options)
    return app


def sign_up(client: TestClient, name: str) -> None:
    body = {"email": f"{name}@example.com", "password": PASSWORD, "name": name}
    assert client.post("/auth/sign-up", json=body, headers=ORIGIN).status_code == 201


def sign_in(client: TestClient, name: str) -> None:
    body = {"email": f"{name}@example.com", "password": PASSWORD}
    assert client.post("/auth/sign-in", json=body, headers=ORIGIN).status_code == 200


def works(client: TestClient) -> None:
    """Use the database, the ephemeral store, the hashing pool and the outbox."""
    assert client.get("/public").status_code == 200
    client.cookies.clear()
    assert client.get("/me").status_code == 401
    assert client.post("/once", headers={"idempotency-key": "a" * 20}).status_code == 200
    sign_in(client, "ann")
    assert client.get("/me").status_code == 200
    with client.websocket_connect("ws://localhost:8000/ws", headers=ORIGIN) as socket:
        assert socket.receive_text() == "known"


def held(*, collected: bool = True) -> dict[str, int]:
    """Return how many threads, file descriptors and sockets this process has, when what is not used was `collected`."""
    if collected:
        gc.collect()
    process = psutil.Process()
    return {"threads": threading.active_count(), "descriptors": process.num_fds()}


def settles(before: dict[str, int]) -> None:
    """Wait until nothing more is held than `before`: a thread that was told to end may still be ending."""
    deadline = time.monotonic() + 30
    now = held(collected=False)
    while any(now[name] > before[name] for name in now) and time.monotonic() < deadline:
        time.sleep(0.02)
        now = held()
    assert all(now[name] <= before[name] for name in now), (before, now, threading.enumerate())


@asynccontextmanager
async def calls(app: Any) -> AsyncIterator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost:8000") as client:
        yield client


def client_of(app: Any, **options: Any) -> TestClient:
    return TestClient(app, base_url="http://localhost:8000", **options)


# -- one after the other -----------------------------------------------------------------------------------------------


def test_test_clients_one_after_the_other(settings: Settings) -> None:
    app = served(Routeguard(settings))
    with client_of(app) as client:
        sign_up(client, "ann")
        works(client)
    before = held()
    for _ in range(4):
        with client_of(app) as client:
            works(client)
        settles(before)


def test_one_test_client_entered_again(lite: Settings) -> None:
    client = client_of(served(Routeguard(lite)))
    for turn in range(3):
        with client:
            if not turn:
                sign_up(client, "ann")
            works(client)


def test_runs_of_asyncio_leave_no_task_and_no_descriptor(settings: Settings) -> None:
    guard: Routeguard[Any] = Routeguard(settings)
    app = served(guard)

    async def run() -> None:
        async with guard.lifespan(app), calls(app) as client:
            assert [(await client.get(path)).status_code for path in ("/public", "/me")] == [200, 401]
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(run())
    before = held()
    for _ in range(3):
        asyncio.run(run())
        settles(before)


def test_an_event_loop_that_ends_without_a_stop(settings: Settings) -> None:
    """What it left open is closed by the next one."""
    guard: Routeguard[Any] = Routeguard(settings)
    app = served(guard)

    async def ask() -> None:
        async with calls(app) as client:
            assert [(await client.get(path)).status_code for path in ("/public", "/me")] == [200, 401]

    async def orderly() -> None:
        async with guard.lifespan(app):
            await ask()

    asyncio.run(orderly())
    before = held()
    for _ in range(3):
        asyncio.run(ask())
    asyncio.run(orderly())
    settles(before)
    asyncio.run(ask())
    asyncio.run(guard.close())
    settles(before)


def test_an_event_loop_that_is_closed_with_tasks_that_were_never_cancelled(valkey_url: str) -> None:
    settings = replace(SETTINGS, ephemeral_url=valkey_url)
    guard: Routeguard[AppUser] = Routeguard(settings, user=AppUser, identify=resolver)
    client = client_of(served(guard))
    with client:
        asks(client)
    before = held()
    loop = asyncio.new_event_loop()
    loop.run_until_complete(guard.start())
    loop.close()
    asks(client)
    with client:
        asks(client)
    settles(before)


@rounds(20, 120)
def test_requests_without_a_lifespan_then_with_one_then_without(settings: Settings, rounds: int) -> None:
    # Without a lifespan each request has a loop of its own, which is closed under whatever runs in it: here under a
    # feed that is asked all the time, and so in the middle of statements.
    busy = replace(settings.sessions, poll=timedelta(milliseconds=1))
    client = client_of(served(Routeguard(replace(settings, sessions=busy))))
    sign_up(client, "ann")
    works(client)
    works(client)
    with client:
        works(client)
    works(client)
    with client:
        works(client)
    for _ in range(rounds):
        assert client.get("/public").status_code == 200
        assert client.get("/me").status_code == 200


def test_a_private_file_keeps_its_tables_from_start_to_start() -> None:
    guard: Routeguard[Any] = Routeguard(replace(SETTINGS, database_url="sqlite://"))

    async def prepare() -> None:
        database = guard.services.get(Database)
        await migrate(database)
        await database.close()

    asyncio.run(prepare())
    app = served(guard)
    with client_of(app) as client:
        sign_up(client, "ann")
    first, second = ExitStack(), ExitStack()
    client, other = first.enter_context(client_of(app)), second.enter_context(client_of(app))
    works(client)
    works(other)
    first.close()
    works(other)
    second.close()
    path = Path(guard.services.get(Database).url.removeprefix("sqlite:///"))
    # Nothing of it lies about while nobody uses it.
    assert not path.exists()
    asyncio.run(prepare())
    assert not path.exists()


def test_servers_one_after_the_other(lite: Settings) -> None:
    app = served(Routeguard(lite))
    for _ in range(3):
        with serving(app) as url:
            assert httpx2.get(url + "/public").status_code == 200
            assert httpx2.get(url + "/me").status_code == 401


@contextmanager
def serving(app: Any) -> Iterator[str]:
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", lifespan="on"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        deadline = time.monotonic() + 30
        while not server.started and thread.is_alive() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert server.started
        host, port = server.servers[0].sockets[0].getsockname()[:2]
        yield f"http://{host}:{port}"
    finally:
        server.should_exit = True
        thread.join(30)
    assert not thread.is_alive()


# -- side by side ------------------------------------------------------------------------------------------------------


def test_test_clients_inside_each_other(settings: Settings) -> None:
    app = served(Routeguard(settings))
    with client_of(app) as client:
        sign_up(client, "ann")
    before = held()
    with client_of(app) as outer:
        works(outer)
        with client_of(app) as inner:
            works(inner)
            works(outer)
            # Who signs out in one is out in the other.
            inner.cookies.update(outer.cookies)
            assert inner.get("/me").status_code == 200
            assert inner.post("/auth/sign-out", headers=ORIGIN).status_code == 204
        works(outer)
    settles(before)


def test_the_first_to_start_may_be_the_first_to_stop(settings: Settings) -> None:
    app = served(Routeguard(settings))
    with client_of(app) as client:
        sign_up(client, "ann")
    before = held()
    first, second, third = ExitStack(), ExitStack(), ExitStack()
    a = first.enter_context(client_of(app))
    b = second.enter_context(client_of(app))
    works(a)
    works(b)
    first.close()
    works(b)
    c = third.enter_context(client_of(app))
    works(c)
    works(b)
    second.close()
    works(c)
    third.close()
    settles(before)


def test_the_loop_of_another_thread(lite: Settings) -> None:
    guard: Routeguard[Any] = Routeguard(lite)
    app = served(guard)

    async def ask() -> None:
        async with calls(app) as client:
            assert [(await client.get(path)).status_code for path in ("/public", "/me")] == [200, 401]

    async def main() -> None:
        async with guard.lifespan(app):
            first = guard.services
            await ask()
            await asyncio.to_thread(asyncio.run, ask())
            await asyncio.to_thread(asyncio.run, ask())
            await ask()
            assert guard.services is first

    asyncio.run(main())
    asyncio.run(main())


def test_a_server_in_a_thread_beside_a_test_client(lite: Settings) -> None:
    app = served(Routeguard(lite))
    with client_of(app) as client:
        sign_up(client, "ann")
    with serving(app) as url, client_of(app) as client:
        works(client)
        assert httpx2.get(url + "/me", cookies=dict(client.cookies)).status_code == 200


def test_many_loops_at_once(lite: Settings) -> None:
    app = served(Routeguard(lite))
    failures: list[BaseException] = []
    everybody = threading.Barrier(5)

    def use() -> None:
        try:
            for _ in range(3):
                with client_of(app) as client:
                    everybody.wait(60)
                    assert client.get("/public").status_code == 200
                    assert client.get("/me").status_code == 401
        except BaseException as error:
            failures.append(error)
            everybody.abort()

    threads = [threading.Thread(target=use) for _ in range(5)]
    before = held()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not failures
    settles(before)


# -- starts that fail --------------------------------------------------------------------------------------------------


class Late:
    """A service that fails at its first starts."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.open = 0

    async def start(self) -> None:
        self.open += 1
        if self.failures:
            self.failures -= 1
            raise OSError("not yet")

    async def close(self) -> None:
        self.open -= 1


def test_a_start_that_failed_half_way_is_tried_again(settings: Settings) -> None:
    late = Late(2)

    def set_up(setup: Setup) -> None:
        setup.services.add(Late, late, start=late.start, close=late.close)

    app = served(Routeguard(settings, features=[*defaults(), Feature(name="late", setup=set_up)]))
    before = held()
    for _ in range(2):
        with pytest.raises(OSError, match="not yet"), client_of(app):
            pass
        assert late.open == 0
        settles(before)
    with client_of(app) as client:
        sign_up(client, "ann")
        works(client)
    assert late.open == 0


def test_a_database_that_is_migrated_after_the_first_try(empty_sqlite_url: str) -> None:
    app = served(Routeguard(replace(SETTINGS, database_url=empty_sqlite_url)))
    with pytest.raises(ConfigError, match="routeguard migrate"), client_of(app):
        pass

    async def prepare() -> None:
        database = Database(empty_sqlite_url, clock=_clock())
        await migrate(database)
        await database.close()

    asyncio.run(prepare())
    with client_of(app) as client:
        sign_up(client, "ann")
        works(client)


def _clock() -> Any:
    from routeguard.core.clock import SystemClock

    return SystemClock()


# -- several applications ----------------------------------------------------------------------------------------------


def test_a_guard_shared_by_two_applications(lite: Settings) -> None:
    guard: Routeguard[Any] = Routeguard(lite)
    one, two = served(guard), served(guard)
    with client_of(one) as client:
        sign_up(client, "ann")
        with client_of(two) as other:
            works(client)
            works(other)
        works(client)
    assert [row.path for row in guard.matrix()].count("/me") == 2


def test_two_applications_in_one_event_loop(lite: Settings) -> None:
    """Services stop with the last one; what fails to start stops nobody else's."""
    guard: Routeguard[Any] = Routeguard(lite)
    one, two, bad = served(guard), served(guard), FastAPI()
    bad.add_api_route("/undecided", lambda: "x")
    guard.install(bad)

    async def main() -> None:
        async with life(one), calls(one) as client:
            async with life(two), calls(two) as other:
                assert (await other.get("/me")).status_code == 401
            assert (await client.get("/me")).status_code == 401
            with pytest.raises(RuntimeError, match="GET /undecided"):
                async with life(bad):
                    pass
            assert asyncio.all_tasks() != {asyncio.current_task()}
            assert (await client.get("/me")).status_code == 401
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


@asynccontextmanager
async def life(app: Any) -> AsyncIterator[None]:
    """Drive an application's lifespan as a server does. Raises RuntimeError with what a failed start says."""
    to_app: asyncio.Queue[Any] = asyncio.Queue()
    from_app: asyncio.Queue[Any] = asyncio.Queue()
    task = asyncio.create_task(app({"type": "lifespan", "asgi": {"version": "3.0"}}, to_app.get, from_app.put))
    await to_app.put({"type": "lifespan.startup"})
    answer = await from_app.get()
    if answer["type"] != "lifespan.startup.complete":
        await asyncio.wait({task})
        task.exception()
        raise RuntimeError(answer["message"])
    try:
        yield
    finally:
        await to_app.put({"type": "lifespan.shutdown"})
        assert (await from_app.get())["type"] == "lifespan.shutdown.complete"
        await task


def test_what_is_observed_in_one_application_is_enforced_in_the_other() -> None:
    guard: Routeguard[AppUser] = Routeguard(SETTINGS, user=AppUser, identify=resolver)
    strict, loose = served(guard), served(guard, mode="observe", headers=False)
    default = FastAPI()
    default.add_api_route("/plain", lambda: "x")
    guard.install(default, default=public)
    with client_of(strict) as client, client_of(loose) as other, client_of(default) as third:
        assert client.get("/me").status_code == 401
        assert other.get("/me").status_code == 200
        assert client.get("/me").headers["x-content-type-options"] == "nosniff"
        assert "x-frame-options" not in other.get("/public").headers
        assert third.get("/plain").status_code == 200
    undecided = FastAPI()
    undecided.add_api_route("/plain", lambda: "x")
    guard.install(undecided)
    with pytest.raises(ConfigError, match="no policy"), client_of(undecided):
        pass


def test_a_second_install_that_fails_changes_nothing() -> None:
    guard: Routeguard[AppUser] = Routeguard(SETTINGS, user=AppUser, identify=resolver)
    app = served(guard)
    with pytest.raises(RuntimeError):
        guard.install(app, mode="observe", default=public)
    with client_of(app) as client:
        assert client.get("/me").status_code == 401


def test_the_lifespan_of_a_mounted_application(lite: Settings) -> None:
    guard: Routeguard[Any] = Routeguard(lite)
    sub = served(guard)

    @asynccontextmanager
    async def both(app: Any) -> AsyncIterator[None]:
        async with guard.lifespan(app):
            yield

    async def plain(request: Any) -> PlainTextResponse:
        return PlainTextResponse("outside")

    outer = Starlette(routes=[Route("/plain", plain), Mount("/sub", sub)], lifespan=both)
    for turn in range(3):
        with client_of(outer) as client:
            assert client.get("/plain").status_code == 200
            assert client.get("/sub/me").status_code == 401
            if not turn:
                body = {"email": "ann@example.com", "password": PASSWORD, "name": "ann"}
                assert client.post("/sub/auth/sign-up", json=body, headers=ORIGIN).status_code == 201


def test_the_lifespan_given_to_the_framework_as_well(lite: Settings) -> None:
    guard: Routeguard[Any] = Routeguard(lite)
    app = FastAPI(lifespan=guard.lifespan)
    app.add_api_route("/me", guard(guard.session())(lambda: "known"))
    guard.install(app)
    for _ in range(3):
        with client_of(app) as client:
            assert client.get("/me").status_code == 401


# -- trio --------------------------------------------------------------------------------------------------------------


def own(**options: Any) -> FastAPI:
    return served(Routeguard(SETTINGS, user=AppUser, identify=resolver, **options))


def asks(client: TestClient) -> None:
    assert client.get("/public").status_code == 200
    assert client.get("/me").status_code == 401
    assert client.get("/me", headers={"x-user": "ann"}).status_code == 200
    assert client.post("/once", headers={"idempotency-key": "a" * 20}).status_code == 200
    with client.websocket_connect("ws://localhost:8000/ws", headers={"x-user": "ann"}) as socket:
        assert socket.receive_text() == "known"


@pytest.mark.parametrize("life", [True, False], ids=["lifespan", "requests only"])
def test_trio_and_asyncio_in_turn(life: bool) -> None:
    app = own()
    for backend in ("trio", "asyncio", "trio"):
        client = client_of(app, backend=backend)
        if life:
            with client:
                asks(client)
        else:
            asks(client)


def test_trio_and_asyncio_at_once() -> None:
    app = own()
    with client_of(app, backend="trio") as one, client_of(app) as other:
        asks(one)
        asks(other)
        asks(one)


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda url: Routeguard(replace(SETTINGS, database_url=url)), "the identity service"),
        (
            lambda _: Routeguard(replace(SETTINGS, ephemeral_url="redis://127.0.0.1:1"), identify=resolver),
            "the store of ephemeral_url",
        ),
        (
            lambda _: Routeguard.remote("https://id.example", "cli_a", new_secret(), settings=SETTINGS),
            "Routeguard.remote",
        ),
    ],
    ids=["identity", "redis", "remote"],
)
def test_what_cannot_run_on_trio_says_so_at_the_start(make: Callable[[str], Any], what: str, sqlite_url: str) -> None:
    guard = make(sqlite_url)
    app = FastAPI()
    guard.install(app)
    with pytest.raises(ConfigError, match=f"{what}.*cannot run on it") as caught, client_of(app, backend="trio"):
        pass
    assert len(caught.value.findings) == 1
    # It is not broken by that.
    with client_of(app) as client:
        assert client.get("/nothing").status_code == 404


def test_hypercorn_with_trio(free_tcp_port: int) -> None:
    import trio
    from hypercorn.config import Config
    from hypercorn.trio import serve

    app = own()
    config = Config()
    config.bind = [f"127.0.0.1:{free_tcp_port}"]
    config.graceful_timeout = 5.0
    answers: list[int] = []

    async def main() -> None:
        stopping = trio.Event()
        async with trio.open_nursery() as nursery:
            urls = await nursery.start(partial_serve(serve, app, config, stopping.wait))
            async with httpx2.AsyncClient() as client:
                answers.append((await client.get(f"{urls[0]}/me")).status_code)
                answers.append((await client.get(f"{urls[0]}/me", headers={"x-user": "ann"})).status_code)
            stopping.set()

    for _ in range(2):
        trio.run(main)
    assert answers == [401, 200, 401, 200]


def partial_serve(serve: Any, app: Any, config: Any, stopping: Any) -> Any:
    async def run(*, task_status: Any) -> None:
        await serve(app, config, shutdown_trigger=stopping, task_status=task_status)

    return run


# -- another service ---------------------------------------------------------------------------------------------------


def test_a_guard_of_a_service_that_is_away(free_tcp_port: int) -> None:
    settings = replace(SETTINGS, remote=replace(SETTINGS.remote, unsafe_http=True))
    url = f"http://127.0.0.1:{free_tcp_port}"
    app = served(Routeguard.remote(url, "cli_a", new_secret(), settings=settings))

    def ask() -> None:
        with client_of(app) as client:
            assert client.get("/public").status_code == 200
            assert client.get("/me", headers={"authorization": "Bearer abc"}).status_code in {401, 503}

    ask()
    before = held()
    for _ in range(3):
        ask()
        settles(before)


@pytest.fixture
def free_tcp_port() -> int:
    from tests.backends import free_port

    return free_port()


def test_counts_of_requests_stay_from_start_to_start() -> None:
    guard: Routeguard[AppUser] = Routeguard(SETTINGS, user=AppUser, identify=resolver)
    app = FastAPI()
    app.add_api_route("/few", guard(public & rate_limit("2/hour"))(lambda: "x"))
    guard.install(app)
    found = []
    for _ in range(3):
        with client_of(app) as client:
            found.append(client.get("/few").status_code)
    assert found == [200, 200, 429]


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:"])
def test_a_temporary_database_has_its_tables_from_the_start(url: str) -> None:
    """No `routeguard migrate` reaches it, so an application over it could never start."""
    guard = Routeguard(replace(SETTINGS, database_url=url))
    app = served(guard)
    ada = {"email": "ada@example.com", "password": PASSWORD}
    with TestClient(app, base_url="http://localhost:8000", headers=ORIGIN) as client:
        assert client.post("/auth/sign-up", json=ada).status_code == 201
    # One start after the other has the same data.
    with TestClient(app, base_url="http://localhost:8000", headers=ORIGIN) as client:
        assert client.post("/auth/sign-in", json=ada).status_code == 200
