"""The peers, composed as their documentation says, in an environment of their own.

Run by `benchmarks.guard` through `uv run --no-project --with ...`; prints its figures as JSON on the last line. It
imports the harness from beside it and nothing of ours.
"""
# ruff: noqa: ARG001, B008 - as their documentation writes handlers

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import jwt
import limits
import limits.aio.storage
import limits.aio.strategies
import secure
from fastapi import Depends, FastAPI, HTTPException, Request
from itsdangerous.url_safe import URLSafeSerializer
from litestar import Litestar, get, post
from litestar.config.csrf import CSRFConfig
from litestar.connection import ASGIConnection  # noqa: TC002 - Litestar looks at it
from litestar.middleware.csrf import generate_csrf_token
from litestar.middleware.rate_limit import RateLimitConfig
from litestar.security.jwt import JWTAuth, Token
from pydantic import BaseModel
from secure.middleware import SecureASGIMiddleware
from slowapi import Limiter
from slowapi.middleware import SlowAPIASGIMiddleware
from slowapi.util import get_remote_address
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette_csrf import CSRFMiddleware

from benchmarks.harness import Case, measure_all

KEY = "benchmark-only-benchmark-only-benchmark-only"
CSRF_COOKIE = "csrftoken"


class Callers:
    """Names a new caller every fifty requests: windows that keep each moment must not grow as no real one would."""

    def __init__(self) -> None:
        self._served = 0

    def name(self) -> str:
        self._served += 1
        return f"usr_{self._served // 50}"


class Item(BaseModel):
    title: str
    amount: int


def bare_fastapi() -> FastAPI:
    app = FastAPI(openapi_url=None)

    @app.get("/x")
    async def read() -> dict[str, bool]:
        return {"ok": True}

    @app.post("/x")
    async def write(item: Item) -> dict[str, int]:
        return {"amount": item.amount}

    return app


def csrf_pair() -> list[tuple[bytes, bytes]]:
    """Return the headers starlette-csrf wants: a signed cookie and its copy."""
    value = URLSafeSerializer(KEY, "csrftoken").dumps("x" * 32)
    text = value if isinstance(value, str) else value.decode()
    return [(b"cookie", f"{CSRF_COOKIE}={text}".encode()), (b"x-csrftoken", text.encode())]


def composed() -> Case:
    """PyJWT + limits (memory) + starlette-csrf + secure + Starlette's body limit."""
    storage = limits.aio.storage.MemoryStorage()
    limiter = limits.aio.strategies.MovingWindowRateLimiter(storage)
    rate = limits.parse("1000000/minute")
    callers = Callers()
    headers = secure.Secure.with_default_headers()

    async def user(request: Request) -> dict[str, Any]:
        try:
            claims = jwt.decode(request.headers["authorization"][7:], KEY, algorithms=["HS256"], audience="api")
        except (KeyError, jwt.PyJWTError):
            raise HTTPException(401) from None
        if "admin" not in claims["roles"]:
            raise HTTPException(403)
        if not await limiter.hit(rate, callers.name()):
            raise HTTPException(429)
        return claims

    app = FastAPI(openapi_url=None)

    @app.get("/x")
    async def read(who: Any = Depends(user)) -> dict[str, bool]:
        return {"ok": True}

    @app.post("/x")
    async def write(item: Item, who: Any = Depends(user)) -> dict[str, int]:
        return {"amount": item.amount}

    app.add_middleware(RequestBodyLimitMiddleware, max_body_size=1024 * 1024)
    app.add_middleware(CSRFMiddleware, secret=KEY)
    app.add_middleware(SecureASGIMiddleware, secure=headers)
    token = jwt.encode({"sub": "usr_1", "roles": ["admin"], "aud": "api", "exp": time.time() + 3600}, KEY, "HS256")
    return Case(
        "PyJWT + limits + starlette-csrf + secure + body limit",
        bare_fastapi(),
        app,
        headers=[(b"authorization", f"Bearer {token}".encode())],
        post_headers=csrf_pair(),
    )


def slowapi_limit() -> Case:
    """slowapi alone: one rate limit in memory by its ASGI middleware."""
    app = bare_fastapi()
    app.state.limiter = Limiter(key_func=get_remote_address, default_limits=["1000000/minute"])
    app.add_middleware(SlowAPIASGIMiddleware)
    return Case("slowapi alone (rate limit)", bare_fastapi(), app)


def litestar_all() -> Case:
    """Litestar with all its own: JWT, rate limit, CSRF."""

    @get("/x")
    async def bare_read() -> dict[str, bool]:
        return {"ok": True}

    @post("/x", status_code=200)
    async def bare_write(data: dict[str, Any]) -> dict[str, Any]:
        return {"amount": data["amount"]}

    async def retrieve(token: Token, connection: ASGIConnection[Any, Any, Any, Any]) -> str:
        return token.sub

    auth = JWTAuth[str](retrieve_user_handler=retrieve, token_secret=KEY)
    callers = Callers()
    limit = RateLimitConfig(rate_limit=("minute", 1000000), identifier_for_request=lambda _: callers.name())
    guarded = Litestar(
        [bare_read, bare_write],
        on_app_init=[auth.on_app_init],
        openapi_config=None,
        request_max_body_size=1024 * 1024,
        csrf_config=CSRFConfig(secret=KEY, cookie_name=CSRF_COOKIE, header_name="x-csrftoken"),
        middleware=[limit.middleware],
    )
    copy = generate_csrf_token(KEY)
    pair = [(b"cookie", f"{CSRF_COOKIE}={copy}".encode()), (b"x-csrftoken", copy.encode())]
    token = auth.create_token("usr_1")
    return Case(
        "Litestar: its JWT + rate limit + CSRF + body limit",
        Litestar([bare_read, bare_write], openapi_config=None),
        guarded,
        headers=[(b"authorization", f"Bearer {token}".encode())],
        post_headers=pair,
    )


def main() -> None:
    """Measure and print."""
    count, rounds = int(sys.argv[1]), int(sys.argv[2])
    figures = asyncio.run(measure_all([composed(), slowapi_limit(), litestar_all()], count=count, rounds=rounds))
    names = ("fastapi", "starlette", "PyJWT", "limits", "starlette-csrf", "secure", "slowapi", "litestar")
    versions = {name: importlib.metadata.version(name) for name in names}
    print(json.dumps({"figures": figures, "versions": versions}))


if __name__ == "__main__":
    main()
