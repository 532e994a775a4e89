"""Streamed responses end when their principal does, over a real server; a route may let them finish."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import uvicorn
from fastapi import FastAPI
from starlette.responses import FileResponse, StreamingResponse

from routeguard import Routeguard, Settings, public
from routeguard.core.errors import ConfigError
from routeguard.core.secret import Secret
from routeguard.protection.traffic.models import TrafficSettings
from tests.accounts import EMAIL, PASSWORD, prepare
from tests.steady import PATIENCE


class Handlers:
    """Streams that go on until the test lets them end."""

    def __init__(self) -> None:
        self.enough = threading.Event()
        self.left: list[str] = []

    async def ticks(self) -> AsyncIterator[bytes]:
        while not self.enough.is_set():
            yield b"data: tick\n\n"
            await asyncio.sleep(0.01)

    async def silence(self) -> AsyncIterator[bytes]:
        yield b": connected\n\n"
        while not self.enough.is_set():
            await asyncio.sleep(0.01)


class Told(StreamingResponse):
    """A stream that notes when it is over: told by an error of `send`, or cancelled by its framework."""

    def __init__(self, handlers: Handlers, path: str, content: AsyncIterator[bytes], **options: Any) -> None:
        super().__init__(content, **options)
        self.handlers, self.path = handlers, path

    async def stream_response(self, send: Any) -> None:
        try:
            await super().stream_response(send)
        finally:
            self.handlers.left.append(self.path)


@contextmanager
def serving(app: Any) -> Iterator[None]:
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="on", access_log=False))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [app.state.socket]}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        app.state.handlers.enough.set()
        server.should_exit = True
        thread.join(PATIENCE)
        app.state.socket.close()


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FastAPI]:
    directory = tmp_path_factory.mktemp("streams")
    listening = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    settings = Settings(
        issuer=url,
        secret=Secret("s" * 32),
        database_url=f"sqlite:///{directory / 'test.db'}",
        traffic=TrafficSettings(sign_in="off", identity="off"),
    )
    asyncio.run(prepare(settings))
    app = streaming_app(Routeguard(settings), Handlers(), directory)
    app.state.url, app.state.socket = url, listening
    with serving(app):
        yield app


def streaming_app(guard: Routeguard[Any], handlers: Handlers, directory: Path) -> FastAPI:
    app = FastAPI()
    guard.install(app)
    app.state.handlers = handlers
    large = directory / "large.bin"
    large.write_bytes(b"x" * 64 * 1024 * 1024)

    def stream(path: str, policy: Any, content: Any, media_type: str) -> None:
        async def handler() -> StreamingResponse:
            return Told(handlers, path, content(), media_type=media_type)

        app.get(path)(guard(policy)(handler))

    events, plain = "text/event-stream", "text/plain"
    stream("/events", guard.session(), handlers.ticks, events)
    stream("/silent", guard.session(), handlers.silence, events)
    stream("/key", guard.api_key(), handlers.ticks, events)
    stream("/maybe", guard.optional_session(), handlers.ticks, events)
    stream("/either", guard.api_key() | guard.session(), handlers.ticks, events)
    stream("/download", guard.session(), handlers.ticks, plain)
    stream("/finish", guard.session(stream="finish"), handlers.ticks, events)
    stream("/alone", guard.session(), handlers.ticks, events)
    stream("/public", public, handlers.ticks, events)

    @app.get("/file")
    @guard(guard.session())
    async def file() -> FileResponse:
        return FileResponse(large)

    return app


@pytest.fixture
def client(app: FastAPI) -> Iterator[httpx2.Client]:
    app.state.handlers.enough.clear()
    app.state.handlers.left.clear()
    with httpx2.Client(base_url=app.state.url, headers={"origin": app.state.url}, timeout=PATIENCE) as client:
        assert client.post("/auth/sign-in", json={"email": EMAIL, "password": PASSWORD}).status_code == 200
        yield client


def sign_out_everywhere(app: FastAPI, client: httpx2.Client) -> None:
    with httpx2.Client(base_url=app.state.url, headers={"origin": app.state.url}, cookies=client.cookies) as other:
        assert other.post("/auth/sign-out-everywhere").status_code == 204


@pytest.mark.parametrize("path", ["/events", "/silent", "/maybe", "/either"])
def test_an_event_stream_ends_with_its_session(app: FastAPI, client: httpx2.Client, path: str) -> None:
    """WS-05, SES-18: after "sign out everywhere" no event arrives any more, also where none was due."""
    with client.stream("GET", path) as response:
        assert response.status_code == 200
        parts = response.iter_raw()
        next(parts)
        sign_out_everywhere(app, client)
        for _ in parts:
            pass
    assert not app.state.handlers.enough.is_set()
    assert client.get("/events").status_code == 401


def test_the_handler_of_a_stream_is_ended(app: FastAPI, client: httpx2.Client) -> None:
    # Of a path that no other test asks for: their handlers may leave late.
    with client.stream("GET", "/alone") as response:
        parts = response.iter_raw()
        next(parts)
        sign_out_everywhere(app, client)
        for _ in parts:
            pass
        wait(lambda: "/alone" in app.state.handlers.left)


def test_an_event_stream_ends_with_its_key(app: FastAPI, client: httpx2.Client) -> None:
    made = client.post("/auth/api-keys", json={"name": "reader"}).json()
    with client.stream("GET", "/key", headers={"x-api-key": made["key"], "cookie": ""}) as response:
        assert response.status_code == 200
        parts = response.iter_raw()
        next(parts)
        own = {"origin": app.state.url, "cookie": cookie_of(client)}
        assert httpx2.delete(f"{app.state.url}/auth/api-keys/{made['id']}", headers=own).status_code == 204
        for _ in parts:
            pass
    assert not app.state.handlers.enough.is_set()


@pytest.mark.parametrize("path", ["/download", "/file"])
def test_a_download_is_cut_off_and_not_completed(app: FastAPI, client: httpx2.Client, path: str) -> None:
    with client.stream("GET", path) as response:
        parts = response.iter_raw(1024)
        next(parts)
        sign_out_everywhere(app, client)
        with pytest.raises(httpx2.RemoteProtocolError):
            for _ in parts:
                pass


@pytest.mark.parametrize("path", ["/finish", "/public"])
def test_a_stream_that_may_finish(app: FastAPI, client: httpx2.Client, path: str) -> None:
    with client.stream("GET", path) as response:
        parts = response.iter_raw()
        next(parts)
        sign_out_everywhere(app, client)
        wait(lambda: httpx2.get(app.state.url + "/events", headers={"cookie": cookie_of(client)}).status_code == 401)
        for _ in range(20):
            next(parts)
        app.state.handlers.enough.set()
        for _ in parts:
            pass


def test_another_word_is_refused(app: FastAPI) -> None:
    guard: Routeguard[Any] = Routeguard(Settings(secret=Secret("s" * 32)), identify=lambda _: None)
    with pytest.raises(ConfigError, match="neither 'end' nor 'finish'"):
        guard.session(stream="stop")  # type: ignore[arg-type]


def cookie_of(client: httpx2.Client) -> str:
    return "; ".join(f"{name}={value}" for name, value in client.cookies.items())


def wait(condition: Any) -> None:
    gone = threading.Event()
    for _ in range(int(PATIENCE / 0.01)):
        if condition():
            return
        gone.wait(0.01)
    raise AssertionError("what must come did not come")
