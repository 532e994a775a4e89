"""The applications that are measured: bare, and guarded by what is named."""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, FastAPI
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.requests import Request  # noqa: TC002 - FastAPI and Starlette look at it
from starlette.responses import JSONResponse
from starlette.routing import Route

from benchmarks.harness import BROWSER, call
from routeguard import Policy, Routeguard, Settings, UserSession, body_limit, csrf, rate_limit, user
from routeguard.core.clock import SystemClock
from routeguard.core.secret import Secret
from routeguard.foundation.db.database import Database
from routeguard.foundation.db.migrate import migrate
from routeguard.foundation.mail.console import ConsoleMailer
from routeguard.foundation.mail.queue import MailQueue

EMAIL, PASSWORD = "bench@example.com", "benchmark-only-9431"
SECRET = Secret(b"benchmark-only 8f3a61c2-5d70-4e9b")
Make = Callable[[Routeguard | None, Policy | None], Any]


class Item(BaseModel):
    """The body of the POST."""

    title: str
    amount: int


def _fastapi(guard: Routeguard | None, policy: Policy | None, read: Any) -> FastAPI:
    app = FastAPI(openapi_url=None)

    async def write(item: Item) -> dict[str, int]:
        return {"amount": item.amount}

    if guard is not None and policy is not None:
        guard.install(app)
        read, write = guard(policy)(read), guard(policy)(write)
    app.get("/x")(read)
    app.post("/x")(write)
    return app


def fastapi_app(guard: Routeguard | None, policy: Policy | None) -> FastAPI:
    """Return an application with GET and POST /x, guarded or bare."""

    async def read() -> dict[str, bool]:
        return {"ok": True}

    return _fastapi(guard, policy, read)


def injected_app(guard: Routeguard | None, policy: Policy | None) -> FastAPI:
    """The same, but GET takes the session as a parameter."""
    if guard is None:
        return fastapi_app(None, None)
    current = guard.current_session

    async def read(session: Annotated[UserSession[Any], Depends(current)]) -> dict[str, bool]:
        return {"ok": session.user is not None}

    # FastAPI resolves the text of an annotation among globals, where `current` is not.
    read.__annotations__["session"] = Annotated[UserSession[Any], Depends(current)]
    return _fastapi(guard, policy, read)


def starlette_app(guard: Routeguard | None, policy: Policy | None) -> Starlette:
    """The same on Starlette."""

    async def read(_: Request) -> JSONResponse:
        return JSONResponse({"ok": True})

    async def write(request: Request) -> JSONResponse:
        return JSONResponse({"amount": (await request.json())["amount"]})

    if guard is not None and policy is not None:
        read, write = guard(policy)(read), guard(policy)(write)
    app = Starlette(routes=[Route("/x", read), Route("/x", write, methods=["POST"])])
    if guard is not None:
        guard.install(app)
    return app


def six(guard: Routeguard) -> Policy:
    """Session, role, forged requests, rate limit and body limit; the sixth, security headers, is on by itself."""
    policy: Policy = (
        guard.session(user={"role": ["user", "admin"]})
        & csrf()
        & rate_limit("1000000/minute", by=user)
        & body_limit("2 KB")
    )
    return policy


def session_and_limit(guard: Routeguard) -> Policy:
    """What costs one trip to Valkey."""
    policy: Policy = guard.session() & rate_limit("1000000/minute", by=user)
    return policy


@dataclass(frozen=True)
class Running:
    """An application with somebody signed in."""

    guard: Routeguard
    app: Any
    cookie: bytes


@contextlib.asynccontextmanager
async def running(
    make: Make, policy_of: Callable[[Routeguard], Policy], *, database_url: str = "", **settings: Any
) -> AsyncIterator[Running]:
    """Start an application on an empty database (SQLite unless told otherwise) and sign somebody in over HTTP."""
    with tempfile.TemporaryDirectory() as folder:
        url = database_url or f"sqlite:///{folder}/bench.db"
        database = Database(url, clock=SystemClock())
        await database.start()
        await migrate(database)
        await database.close()
        guard = Routeguard(Settings(database_url=url, secret=SECRET, **settings))
        guard.services.get(MailQueue).mailer = ConsoleMailer(io.StringIO())
        app = make(guard, policy_of(guard))
        try:
            await post(app, "sign-up", email=EMAIL, password=PASSWORD, name="Bench")
            answered = await post(app, "sign-in", email=EMAIL, password=PASSWORD)
            cookie = next(value.partition(b";")[0] for name, value in answered if name == b"set-cookie")
            yield Running(guard, app, cookie)
        finally:
            await guard.close()


async def post(app: Any, operation: str, **content: str) -> list[tuple[bytes, bytes]]:
    """Call an identity route; return the headers of its answer."""
    headers = [*BROWSER, (b"content-type", b"application/json"), (b"origin", b"http://127.0.0.1:8000")]
    status, answered = await call(app, "POST", f"/auth/{operation}", headers, json.dumps(content).encode())
    assert status in {200, 201}, f"{operation} answered {status}"
    return answered
