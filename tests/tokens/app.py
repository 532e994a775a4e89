"""An application whose handlers do all that a handler can do while tokens are renewed on the way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI, WebSocket
from starlette.responses import StreamingResponse

from routeguard import Routeguard, Settings, UserSession
from routeguard.core.secret import new_token
from routeguard.identity.sessions.models import SessionId
from routeguard.identity.sessions.sign_in import SignIn
from routeguard.identity.tokens.access import AccessTokens
from routeguard.identity.tokens.models import TokenSettings
from routeguard.identity.tokens.service import FIRST_PARTY
from routeguard.identity.users.addresses import read_email
from routeguard.identity.users.models import User
from routeguard.identity.users.service import Users
from routeguard.protection.traffic.models import OFF, TrafficSettings
from tests.attacks.world import ORIGIN, SECRET, Browser, World
from tests.passwords.world import CHEAP, Mailbox
from tests.sessions.fakes import cookie_of, enter, make_exchange
from tests.steady import PATIENT
from tests.tokens.world import GRACE

ACCESS: Final = "routeguard-access"
REFRESH: Final = "routeguard-refresh"
SESSION: Final = "routeguard"
GATES: Final[dict[str, asyncio.Event]] = {}
"""What `/held/{name}` waits for before it answers."""
AGENT: Final = ("user-agent", "Browser/1.0")


class App(World):
    """One process of the application."""

    @classmethod
    @asynccontextmanager
    async def run(cls, url: str, directory: Path, *, user: type[Any] = User, **settings: Any) -> AsyncIterator[App]:
        given: dict[str, Any] = {
            "issuer": ORIGIN,
            "passwords": CHEAP,
            "environment": "development",
            "database": PATIENT,
            "traffic": TrafficSettings(refresh=OFF, identity=OFF),
            "tokens": TokenSettings(grace=GRACE),
        } | settings
        guard: Routeguard[Any] = Routeguard(Settings(secret=SECRET, database_url=url, **given), user=user)
        world = cls(_application(guard), guard, directory, {}, Mailbox())
        await guard._start(True)
        try:
            yield world
        finally:
            await guard.close()

    async def user(self, **more: Any) -> User:
        users = self.guard.services.get(Users)
        async with self.database.transaction() as tx:
            email = read_email(f"user-{new_token(8).lower()}-x@example.test")
            user = await users.create(tx, email, name="Somebody", role="user", email_verified=True)
            assert user is not None
            updated: User = await users.update(tx, user.id, **more) if more else user
            return updated

    async def signed_in(self, user: User | None = None) -> TokenBrowser:
        """A browser with a session cookie."""
        user = user or await self.user()
        exchange = make_exchange()
        found = await enter(self.guard.services.get(SignIn), user.id, exchange)
        assert isinstance(found, UserSession)
        name, _, value = (cookie_of(exchange) or "").partition("=")
        return TokenBrowser(self, {name: value}, user.id, session=found)

    async def with_tokens(self, user: User | None = None) -> TokenBrowser:
        """A browser that has the cookies of tokens and no other."""
        browser = await self.signed_in(user)
        answer = await browser.post("/auth/token", {"cookies": True})
        assert answer.status == 200, answer.body
        del browser.cookies[SESSION]
        assert set(browser.cookies) == {ACCESS, REFRESH}
        return browser


class TokenBrowser(Browser):
    """A browser that says which it is, and whose access token can be made older."""

    def __init__(self, world: App, cookies: dict[str, str], user_id: str, *, session: UserSession[Any]) -> None:
        super().__init__(world, cookies, user_id)
        self.app = world
        self.session = session
        self.agent = AGENT

    @property
    def session_id(self) -> SessionId:
        return self.session.id

    def headers(self, *more: tuple[str, str], origin: str | None = ORIGIN) -> list[tuple[str, str]]:
        return [*super().headers(*more, origin=origin), self.agent]

    def copy(self) -> TokenBrowser:
        """The same browser before it has seen the next answer: another tab, or a thief."""
        other = TokenBrowser(self.app, dict(self.cookies), self.id, session=self.session)
        other.agent = self.agent
        return other

    def age(self, seconds: float) -> None:
        """Let its access token have been made so long ago."""
        services = self.app.guard.services
        access = services.get(AccessTokens)
        now = self.app.database.clock.time() - seconds
        self.cookies[ACCESS] = access.mint(self.session, client_id=FIRST_PARTY, now=now)


def _application(guard: Routeguard[Any]) -> FastAPI:
    app = FastAPI(openapi_url=None)
    admin = guard.session(user={"role": "admin"})

    @app.get("/me")
    @guard(guard.session())
    async def me() -> dict[str, bool]:
        return {"ok": True}

    @app.get("/perhaps")
    @guard(guard.optional_session())
    async def perhaps() -> dict[str, bool]:
        return {"ok": True}

    @app.get("/held/{name}")
    @guard(guard.session())
    async def held(name: str) -> dict[str, bool]:
        await GATES[name].wait()
        return {"ok": True}

    @app.get("/fails")
    @guard(guard.session())
    async def fails() -> None:
        raise RuntimeError("on purpose")

    @app.get("/stream")
    @guard(guard.session())
    async def stream() -> StreamingResponse:
        async def parts() -> AsyncIterator[bytes]:
            for number in range(3):
                yield str(number).encode()
                await asyncio.sleep(0)

        return StreamingResponse(parts())

    @app.get("/admin")
    @guard(admin)
    async def admins() -> None: ...

    @app.get("/either")
    @guard(admin | guard.session(user={"role": "moderator"}))
    async def either() -> None: ...

    @app.get("/mine")
    @guard(admin | guard.session(user={"role": "user"}))
    async def mine() -> dict[str, bool]:
        return {"ok": True}

    @app.post("/write")
    @guard(guard.session())
    async def write() -> dict[str, bool]:
        return {"ok": True}

    @app.websocket("/ws")
    @guard(guard.session())
    async def socket(websocket: WebSocket) -> None:
        await websocket.accept()
        await asyncio.sleep(0)
        await websocket.close()

    guard.install(app)
    return app
