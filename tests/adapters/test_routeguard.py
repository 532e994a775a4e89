"""The suite again through `Routeguard(identify=...)`, and what only the composed guard does."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from fastapi import Depends
from starlette.requests import HTTPConnection
from starlette.staticfiles import StaticFiles

from routeguard.app import Routeguard
from routeguard.core.errors import ConfigError, Unavailable
from routeguard.core.policy import BoundCheck, Check, Outcome, Stage, deferred, public
from routeguard.core.problem import PERMISSION_DENIED
from routeguard.core.secret import Secret
from routeguard.foundation.mail.models import MailSettings
from routeguard.settings import Settings
from tests.adapters.starlette_app import FastAPIApp, StarletteApp
from tests.adapters.starlette_like import StarletteLike
from tests.conformance.adapters import AdapterSuite, raiser
from tests.conformance.wire import Answer, Call, Spy, connect, key, life, send

if TYPE_CHECKING:
    from routeguard.core.exchange import Exchange
    from routeguard.core.services import Services

COVERS = (
    "protection/adapters/connections",
    "protection/guard/runs",
    "protection/guard/subprotocols",
    "protection/guard/watch",
)

pytestmark = pytest.mark.anyio

SETTINGS = Settings(issuer="https://app.example", secret=Secret("0123456789abcdef" * 2), environment="development")
OWN = (b"origin", b"https://app.example")
USER = (b"x-user", b"ann")


@dataclass(frozen=True)
class Person:
    """The application's own user."""

    id: str
    role: str = "member"


async def identify(request: Any) -> Person | None:
    """Stand for an application's own sign-in."""
    cookie = request.cookie("user")
    name = request.headers.get(b"x-user") or (cookie.encode() if cookie else None)
    if name == b"broken":
        raise Unavailable("directory")
    return None if name is None else Person(name.decode(), "admin" if name == b"root" else "member")


class _Routed:
    """Installs by the public way."""

    app: Any
    guard: Any
    headers = False

    def __init__(self) -> None:
        super().__init__()
        self.routeguard: Routeguard[Person] = Routeguard(SETTINGS, user=Person, identify=identify)
        self.guard = self.routeguard._guard

    def install(self, *, mode: Any = "enforce", started: list[Any] | None = None) -> None:
        if started is not None:

            async def start() -> None:
                started.append("start")

            async def close() -> None:
                started.append("close")

            self.routeguard.services.add(list, started, start=start, close=close)
        self.routeguard.install(self.app, mode=mode, headers=self.headers)


class RoutedStarlette(_Routed, StarletteApp):
    """Starlette."""


class RoutedFastAPI(_Routed, FastAPIApp):
    """FastAPI."""


class _Suite(AdapterSuite, StarletteLike):
    async def test_a_good_start_and_a_lazy_one(self) -> None:
        started: list[Any] = []
        app = self.guarded(lambda app: app.route("/x", Spy(), key), started=started)
        assert (await send(app, path="/x")).status == 401
        await send(app, path="/x")
        assert started == ["start"]
        assert [m["type"] for m in await life(app)] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
        assert started == ["start", "close"]


class TestRoutedStarlette(_Suite):
    """The suite on Starlette."""

    make = RoutedStarlette


class TestRoutedFastAPI(_Suite):
    """The suite on FastAPI."""

    make = RoutedFastAPI


@pytest.fixture(params=[RoutedStarlette, RoutedFastAPI], ids=["starlette", "fastapi"])
def app(request: pytest.FixtureRequest) -> Any:
    return request.param()


async def test_session_with_the_applications_own_sign_in(app: Any) -> None:
    app.route("/x", Spy(), app.routeguard.session())
    app.route("/admin", Spy(), app.routeguard.session(user={"role": "admin"}))
    app.route("/maybe", Spy(), app.routeguard.optional_session())
    app.install()
    for path, headers, status in (
        ("/x", [], 401),
        ("/x", [USER], 200),
        ("/admin", [USER], 403),
        ("/admin", [(b"x-user", b"root")], 200),
        ("/maybe", [], 200),
        ("/x", [(b"x-user", b"broken")], 503),
        ("/maybe", [(b"x-user", b"broken")], 503),
    ):
        assert (await send(app.asgi(), path=path, headers=headers)).status == status, (path, headers)


async def test_forgery_check_is_on_by_default(app: Any) -> None:
    app.route("/x", Spy(), app.routeguard.session(), methods=["POST"])
    app.route("/key", Spy(), key, methods=["POST"])
    app.install()
    cross = [(b"origin", b"https://evil.example"), (b"sec-fetch-site", b"cross-site")]
    assert (await send(app.asgi(), "POST", "/x", [USER, *cross])).status == 403
    assert (await send(app.asgi(), "POST", "/x", [USER, OWN])).canary
    assert (await send(app.asgi(), "POST", "/key", [(b"x-key", b"ok"), *cross])).canary


@pytest.mark.parametrize(
    ("headers", "opened"),
    [
        ([OWN], True),
        ([(b"origin", b"https://evil.example")], False),
        ([(b"origin", b"null")], False),
        ([(b"origin", b"https://app.example.evil.example")], False),
        ([(b"origin", b"http://app.example")], False),
        ([], False),
    ],
    ids=["own", "foreign", "null", "suffix", "scheme", "none"],
)
@pytest.mark.parametrize("denial", [True, False])
async def test_websocket_origins(app: Any, headers: list[Any], opened: bool, denial: bool) -> None:
    """WS-01, WS-02: a page elsewhere cannot open a channel with an ambient credential."""
    app.websocket("/ws", app.routeguard.session())
    app.websocket("/bare", public)
    app.install()
    result = await connect(app.asgi(), "/ws", [(b"cookie", b"user=ann"), *headers], denial=denial)
    if opened:
        assert result.sent[0]["type"] == "websocket.accept"
    elif denial:
        assert (result.sent[0]["type"], result.status, result.received) == ("websocket.http.response.start", 403, 0)
    else:
        assert (result.sent[0]["type"], result.sent[0]["code"]) == ("websocket.close", 1008)
    assert (await connect(app.asgi(), "/bare", headers)).sent[0]["type"] == "websocket.accept"
    # A field that a proxy may have added for this browser, as for any page's handshake. Only programs send no Origin.
    told = await connect(app.asgi(), "/ws", [USER, *headers], denial=True)
    assert (told.status == 403) == (bool(headers) and not opened)
    assert (told.sent[0]["type"] == "websocket.accept") == (opened or not headers)


async def test_websocket_takes_no_credential_from_its_address(app: Any) -> None:
    """WS-04."""
    app.websocket("/ws", app.routeguard.session())
    app.install()
    for query in (b"x-user=ann", b"token=ann", b"access_token=ann"):
        assert (await connect(app.asgi(), "/ws", [OWN], query_string=query)).status == 401


async def test_deferred_and_require(app: Any) -> None:
    guard = app.routeguard

    async def decides(call: Call) -> Answer:
        session = await guard.require(HTTPConnection(call.scope), guard.session(user={"role": "admin"}))
        return Answer(session.user.id.encode())

    async def peeks(call: Call) -> Answer:
        found = await guard.find_session(HTTPConnection(call.scope))
        return Answer(b"nobody" if found is None else b"somebody")

    app.route("/x", decides, deferred)
    app.route("/peeks", peeks, deferred)
    app.route("/open", peeks, public)
    app.install()
    assert (await send(app.asgi(), path="/x")).status == 401
    assert (await send(app.asgi(), path="/x", headers=[USER])).status == 403
    allowed = await send(app.asgi(), path="/x", headers=[(b"x-user", b"root")])
    assert (allowed.status, allowed.body, allowed.header("cache-control")) == (200, b"root", "private, no-store")
    # Finding a session decides nothing.
    assert (await send(app.asgi(), path="/peeks", headers=[USER])).problem == "guard-not-applied"
    assert (await send(app.asgi(), path="/open", headers=[USER])).body == b"somebody"
    assert (await send(app.asgi(), path="/open")).body == b"nobody"


@dataclass(frozen=True)
class HasRole(Check):
    """Asks for a role; equal to the check of any other role."""

    stage = Stage.ACCESS

    role: str = field(compare=False)

    def bind(self, services: Services) -> BoundCheck:
        async def asked(exchange: Exchange) -> Outcome:
            person = getattr(exchange.principal, "user", None)
            return None if isinstance(person, Person) and person.role == self.role else PERMISSION_DENIED()

        return asked


async def test_what_was_required_before_is_no_answer_for_a_policy_that_only_equals_it(app: Any) -> None:
    """AZ-16."""
    guard = app.routeguard

    def requiring(role: str) -> Any:
        async def decides(call: Call) -> Answer:
            await guard.require(HTTPConnection(call.scope), guard.session() & HasRole(role))
            return Answer(role.encode())

        return decides

    app.route("/member", requiring("member"), deferred)
    app.route("/admin", requiring("admin"), deferred)
    app.install()
    assert (await send(app.asgi(), path="/member", headers=[USER])).body == b"member"
    assert (await send(app.asgi(), path="/admin", headers=[USER])).status == 403


async def test_fastapi_parameter_is_a_requirement() -> None:
    app = RoutedFastAPI()
    guard = app.routeguard

    @app.app.post("/me")
    async def me(body: dict[str, Any], session: Any = Depends(guard.current_session)) -> str:
        return str(session.user.id)

    app.install()
    refused = await send(app.asgi(), "POST", "/me", body=b"{bad")
    assert (refused.status, refused.received) == (401, 0)
    json_ = (b"content-type", b"application/json")
    assert (await send(app.asgi(), "POST", "/me", [USER, OWN, json_], b"{}")).body == b'"ann"'
    assert [row.source for row in guard.matrix() if row.path == "/me"] == ["parameter"]


@pytest.mark.parametrize("explicit", [False, True])
def test_observe_mode_needs_the_word_in_production(explicit: bool) -> None:
    settings = Settings(
        issuer="https://app.example",
        secret=SETTINGS.secret,
        environment="production",
        mail=MailSettings(url="smtp://127.0.0.1:25"),
        unsafe_observe_in_production=explicit,
    )
    guard: Any = None
    try:
        guard = Routeguard(settings, identify=identify)
    except ConfigError as error:  # production asks for more than this test is about
        pytest.fail(str(error))
    app = StarletteApp()
    if explicit:
        guard.install(app.app, mode="observe")
        assert guard._guard.mode == "observe"
    else:
        with pytest.raises(ConfigError, match="unsafe_observe_in_production"):
            guard.install(app.app, mode="observe")


async def test_security_headers_on_everything(app: Any, tmp_path: Any) -> None:
    """HDR-01: each once, on successes, refusals and errors, streams and files."""
    (tmp_path / "a.txt").write_text("text")
    app.headers = True
    app.route("/x", Spy(), key)
    app.route("/redirect", Spy(Answer(status=303, headers=(("location", "/x"),))), key)
    app.route("/unchanged", Spy(Answer(b"", 304)), key)
    app.route("/slash/", Spy(), key)
    app.route("/own", Spy(Answer(headers=(("X-Content-Type-Options", "nosniff"), ("referrer-policy", "origin")))), key)
    app.route("/broken", raiser(RuntimeError()), key)
    app.route("/unmarked", Spy())
    app.app.mount("/static", app.guard(public)(StaticFiles(directory=tmp_path)))
    app.install()
    key_ = (b"x-key", b"ok")
    for path, headers, status in (
        ("/x", [key_], 200),
        ("/x", [], 401),
        ("/redirect", [key_], 303),
        ("/unchanged", [key_], 304),
        ("/slash", [], 307),
        ("/own", [key_], 200),
        ("/broken", [key_], 500),
        ("/unmarked", [], 500),
        ("/missing", [], 404),
        ("/static/a.txt", [], 200),
        ("/x", [key_, (b"host", b"a"), (b"host", b"b")], 400),
    ):
        result = await send(app.asgi(), path=path, headers=headers, scheme="https")
        assert result.status == status, path
        names = [name for name, _ in result.headers]
        for name in (
            b"content-security-policy",
            b"x-content-type-options",
            b"referrer-policy",
            b"strict-transport-security",
            b"cross-origin-resource-policy",
        ):
            assert names.count(name) == 1, (path, name, names)
    assert (await send(app.asgi(), path="/own", headers=[key_])).header("referrer-policy") == "origin"
