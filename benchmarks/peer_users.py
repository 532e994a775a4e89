"""fastapi-users with sessions in SQLite, and slowapi: composed as their documentation says.

Apart from the other peers because it wants SQLAlchemy before 2.1. Prints its figures as JSON on the last line.
"""
# ruff: noqa: ARG001, B008 - as their documentation writes handlers
# Annotations are objects here: slowapi's wrapper hides from FastAPI the globals that their texts would name.

import asyncio
import importlib.metadata
import json
import logging
import sys
import tempfile
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

sys.path.insert(0, str(Path(__file__).parent.parent))

from fastapi import Depends, FastAPI, Request
from fastapi_users import BaseUserManager, FastAPIUsers, UUIDIDMixin, schemas
from fastapi_users.authentication import AuthenticationBackend, CookieTransport
from fastapi_users.authentication.strategy.db import DatabaseStrategy
from fastapi_users.db import SQLAlchemyBaseUserTableUUID, SQLAlchemyUserDatabase
from fastapi_users_db_sqlalchemy.access_token import SQLAlchemyAccessTokenDatabase, SQLAlchemyBaseAccessTokenTableUUID
from pydantic import BaseModel
from slowapi import Limiter
from slowapi.util import get_remote_address
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase

from benchmarks.harness import Case, call, measure_all, stall

KEY = "benchmark-only-benchmark-only-benchmark-only"
PASSWORD = "benchmark-only-9431"
EMAIL = "bench@example.com"
NAMES = ("fastapi", "fastapi-users", "fastapi-users-db-sqlalchemy", "slowapi", "sqlalchemy")
FORM = [(b"content-type", b"application/x-www-form-urlencoded")]


class Item(BaseModel):
    title: str
    amount: int


class Base(DeclarativeBase):
    pass


class User(SQLAlchemyBaseUserTableUUID, Base):
    pass


class AccessToken(SQLAlchemyBaseAccessTokenTableUUID, Base):
    pass


class UserCreate(schemas.BaseUserCreate):
    pass


class UserManager(UUIDIDMixin, BaseUserManager[User, uuid.UUID]):
    reset_password_token_secret = KEY
    verification_token_secret = KEY


def bare() -> FastAPI:
    app = FastAPI(openapi_url=None)

    @app.get("/x")
    async def read() -> dict[str, bool]:
        return {"ok": True}

    @app.post("/x")
    async def write(item: Item) -> dict[str, int]:
        return {"amount": item.amount}

    return app


def composed(maker: Any) -> FastAPI:
    """Return the application of its tutorial, with a rate limit by slowapi's decorator."""

    async def session() -> Any:
        async with maker() as opened:
            yield opened

    async def users_of(opened: Any = Depends(session)) -> Any:
        yield SQLAlchemyUserDatabase(opened, User)

    async def tokens_of(opened: Any = Depends(session)) -> Any:
        yield SQLAlchemyAccessTokenDatabase(opened, AccessToken)

    async def manager_of(database: Any = Depends(users_of)) -> Any:
        yield UserManager(database)

    def strategy_of(database: Any = Depends(tokens_of)) -> Any:
        return DatabaseStrategy(database, lifetime_seconds=3600)

    backend = AuthenticationBackend("cookie", CookieTransport(cookie_secure=False), strategy_of)
    users = FastAPIUsers[User, uuid.UUID](manager_of, [backend])
    current = users.current_user(active=True)
    limiter = Limiter(key_func=get_remote_address)
    app = FastAPI(openapi_url=None)
    app.state.limiter = limiter
    app.include_router(users.get_auth_router(backend), prefix="/auth")
    app.state.manager_of = manager_of

    @app.get("/x")
    @limiter.limit("1000000/minute")
    async def read(request: Request, user: Any = Depends(current)) -> dict[str, bool]:
        return {"ok": True}

    @app.post("/x")
    @limiter.limit("1000000/minute")
    async def write(request: Request, item: Item, user: Any = Depends(current)) -> dict[str, int]:
        return {"amount": item.amount}

    return app


async def sign_in(app: FastAPI) -> bytes:
    """Return the session cookie."""
    body = urlencode({"username": EMAIL, "password": PASSWORD}).encode()
    status, headers = await call(app, "POST", "/auth/login", FORM, body)
    assert status == 204, status
    return next(value.partition(b";")[0] for name, value in headers if name == b"set-cookie")


async def run(count: int, rounds: int) -> dict[str, Any]:
    """Measure requests, and the stall of eight sign-ins at once."""
    with tempfile.TemporaryDirectory() as folder:
        engine = create_async_engine(f"sqlite+aiosqlite:///{folder}/bench.db")
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        maker = async_sessionmaker(engine, expire_on_commit=False)
        app = composed(maker)
        async with maker() as opened:
            await UserManager(SQLAlchemyUserDatabase(opened, User)).create(UserCreate(email=EMAIL, password=PASSWORD))
        cookie = await sign_in(app)
        case = Case("fastapi-users (sessions in SQLite) + slowapi", bare(), app, [(b"cookie", cookie)])
        figures = await measure_all([case], count=count, rounds=rounds)
        worst = await stall([sign_in(app) for _ in range(8)])
        await engine.dispose()
    versions = {name: importlib.metadata.version(name) for name in NAMES}
    return {"figures": figures, "versions": versions, "stall": worst.wall}


def main() -> None:
    """Measure and print."""
    logging.disable(logging.CRITICAL)
    print(json.dumps(asyncio.run(run(int(sys.argv[1]), int(sys.argv[2])))))


if __name__ == "__main__":
    main()
