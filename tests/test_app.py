"""`Routeguard` over an application's own users (`identify=`): every session policy, without any table of ours."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fastapi import Depends, FastAPI, Request, WebSocket
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from routeguard import (
    ConfigError,
    Policy,
    RequestView,
    Routeguard,
    Settings,
    Unavailable,
    UserSession,
    deferred,
    public,
)
from routeguard.core.exchange import Exchange
from routeguard.core.policy import Check, Stage
from routeguard.core.problem import Problem, authentication_required
from routeguard.core.services import Services
from routeguard.foundation.db.database import Database
from routeguard.foundation.db.migrate import migrate
from routeguard.identity.passwords.hashing import HashingPool
from routeguard.identity.sessions.models import SessionId
from routeguard.identity.users.models import UserSettings

COVERS = ("assembly",)


@dataclass(frozen=True)
class Profile:
    plan: str


@dataclass(frozen=True)
class AppUser:
    id: str
    role: str
    email_verified: bool = False
    teams: tuple[str, ...] = ()
    profile: Profile = field(default_factory=lambda: Profile("free"))
    nickname: str | None = None


USERS = {
    "ann": AppUser("1", "admin", email_verified=True, teams=("red", "blue"), profile=Profile("pro")),
    "bob": AppUser("2", "user"),
    "eve": AppUser("3", "admin,moderator"),
}


def resolver(request: RequestView) -> AppUser | None:
    name = request.header("x-user")
    if name == "down":
        raise Unavailable("the user service")
    return USERS.get(name) if name else None


@pytest.fixture
def guard(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Routeguard[AppUser]:
    monkeypatch.chdir(tmp_path)
    return Routeguard(Settings(), user=AppUser, identify=resolver)


def serve(guard: Routeguard[AppUser], policy: Policy, **install: Any) -> TestClient:
    app = FastAPI()
    guard.install(app, **install)

    @app.get("/x")
    @guard(policy)
    async def handler() -> dict[str, bool]:
        return {"ran": True}

    return TestClient(app, base_url="http://127.0.0.1:8000")


def ask(client: TestClient, user: str | None = None, **headers: str) -> int:
    return client.get("/x", headers={**({"x-user": user} if user else {}), **headers}).status_code


@pytest.mark.parametrize(
    ("match", "ann", "bob"),
    [
        ({"role": "admin"}, 200, 403),
        ({"role": ["admin", "moderator"]}, 200, 403),
        ({"role": "admin", "email_verified": True}, 200, 403),
        ({"role": "admin", "email_verified": False}, 403, 403),
        ({"profile.plan": "pro"}, 200, 403),
        ({"profile": {"plan": "pro"}}, 200, 403),
        ({"teams": "red"}, 200, 403),
        ({"role": []}, 403, 403),
        ({"role": "Admin"}, 403, 403),
        ({}, 200, 200),
    ],
)
def test_user_fields(guard: Routeguard[AppUser], match: dict[str, Any], ann: int, bob: int) -> None:
    client = serve(guard, guard.session(user=match))
    assert (ask(client, "ann"), ask(client, "bob"), ask(client)) == (ann, bob, 401)


def test_a_role_in_a_list_of_words_is_no_role(guard: Routeguard[AppUser]) -> None:
    assert ask(serve(guard, guard.session(user={"role": "admin"})), "eve") == 403


@pytest.mark.parametrize(
    "match",
    [
        {"rol": "admin"},
        {"role": None},
        {"profile.plann": "x"},
        {"nickname": None},
        {"role": ["admin", None]},
        {"email_verified": 1},
    ],
)
def test_a_misspelt_field_or_a_missing_expectation_stops_start_up(
    guard: Routeguard[AppUser], match: dict[str, Any]
) -> None:
    client = serve(guard, guard.session(user=match))
    with pytest.raises(ConfigError), client:
        pass


@pytest.mark.parametrize("match", [{"role": "adminn"}, {"role": ["admin", "owner"]}, {"role": {"Admin"}}])
def test_a_role_that_is_none_of_the_site_s_stops_start_up(match: dict[str, Any]) -> None:
    guard: Routeguard[Any] = Routeguard(Settings(database_url="sqlite://"))
    with pytest.raises(ConfigError, match="holds 'user' or 'moderator' or 'admin' and never equals"):
        serve(guard, guard.session(user=match)).__enter__()


def test_roles_are_those_of_the_settings_and_of_an_application_s_own_users() -> None:
    settings = Settings(database_url="sqlite://", users=UserSettings(roles=("member", "owner"), admin_role="owner"))
    for one in (Routeguard(settings), Routeguard(Settings(), identify=lambda _: None)):
        one.session(user={"role": "owner"}).bind(one.services)


def test_the_rule_is_asked_only_after_the_fields(guard: Routeguard[AppUser]) -> None:
    asked: list[str] = []

    def rule(session: UserSession[AppUser]) -> bool:
        asked.append(session.user.id)
        return session.user.email_verified

    client = serve(guard, guard.session(user={"role": "admin"}, rule=rule))
    assert (ask(client, "bob"), asked) == (403, [])
    assert (ask(client, "ann"), asked) == (200, ["1"])


def test_mismatch_and_rule_refuse_alike(guard: Routeguard[AppUser]) -> None:
    client = serve(guard, guard.session(user={"role": "admin"}, rule=lambda _: False))
    bodies = [client.get("/x", headers={"x-user": name}).json() for name in ("ann", "bob")]
    for body in bodies:
        body.pop("instance")
    assert bodies[0] == bodies[1]


@pytest.mark.parametrize(
    "answer",
    [1, "yes", [True], None, pytest.param(object(), id="object")],
    ids=repr,
)
def test_a_rule_that_answers_no_bool_refuses(guard: Routeguard[AppUser], answer: Any) -> None:
    """AZ-16: truthy is not allowed."""
    assert ask(serve(guard, guard.session(rule=lambda _: answer)), "ann") in {403, 500}


def test_a_rule_that_raises_refuses(guard: Routeguard[AppUser], caplog: pytest.LogCaptureFixture) -> None:
    """AZ-16."""

    async def rule(_: UserSession[AppUser]) -> bool:
        raise ZeroDivisionError

    assert ask(serve(guard, guard.session(rule=rule)), "ann") in {403, 500}
    assert caplog.records


def test_cannot_tell_is_503_and_never_a_guest(guard: Routeguard[AppUser]) -> None:
    for policy in (guard.session(), guard.optional_session()):
        answer = serve(guard, policy).get("/x", headers={"x-user": "down"})
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")


@pytest.mark.parametrize("answer", [True, "ann", {"id": "1"}, 1, AppUser("", "admin")], ids=repr)
def test_what_is_no_user_is_not_signed_in(tmp_path: Any, monkeypatch: pytest.MonkeyPatch, answer: Any) -> None:
    """AZ-16: a resolver that answers True for everybody lets nobody in."""
    monkeypatch.chdir(tmp_path)
    guard: Routeguard[AppUser] = Routeguard(Settings(), user=AppUser, identify=lambda _: answer)
    assert ask(serve(guard, guard.session())) == 500


def test_fresh_asks_again_where_the_time_of_sign_in_is_unknown(guard: Routeguard[AppUser]) -> None:
    """SES-28."""
    answer = serve(guard, guard.session() & guard.fresh(minutes=5)).get("/x", headers={"x-user": "ann"})
    assert answer.status_code == 401
    assert answer.json()["type"].endswith("/step-up-required")
    assert 'error="insufficient_user_authentication"' in answer.headers["www-authenticate"]


def test_fresh_accepts_a_session_that_says_when(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def recent(_: RequestView) -> UserSession[AppUser]:
        now = datetime.now(UTC)
        return UserSession(SessionId("ses_1"), USERS["ann"], now, now, now + timedelta(hours=1))

    guard: Routeguard[AppUser] = Routeguard(Settings(), user=AppUser, identify=recent)
    assert ask(serve(guard, guard.session() & guard.fresh(minutes=5))) == 200


@pytest.fixture
def many(guard: Routeguard[AppUser]) -> Iterator[TestClient]:
    """An application that uses every way to get at a session."""
    app = FastAPI()
    guard.install(app, docs=public)
    session = Depends(guard.current_session)
    or_none = Depends(guard.current_session_or_none)

    @app.post("/asked")
    async def asked(item: dict[str, int], session: UserSession[AppUser] = session) -> str:
        return session.user.id

    @app.get("/maybe")
    @guard(guard.optional_session())
    async def maybe(session: UserSession[AppUser] | None = or_none) -> str | None:
        return session.user.id if session else None

    @app.get("/found")
    @guard(public)
    async def found(request: Request) -> str | None:
        session = await guard.find_session(request)
        return session.user.id if session else None

    @app.post("/decides")
    @guard(deferred)
    async def decides(request: Request) -> str:
        large = (await request.json())["amount"] > 100
        policy = guard.session(user={"role": "admin"}) if large else guard.session()
        return (await guard.require(request, policy)).user.id

    @app.get("/forgets")
    @guard(deferred)
    async def forgets() -> str:
        return "secret"

    @app.websocket("/ws")
    @guard(guard.session(user={"role": "admin"}))
    async def socket(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text("hello")

    with TestClient(app, base_url="http://127.0.0.1:8000", raise_server_exceptions=False) as client:
        yield client


def test_asking_is_requiring_and_before_the_body(many: TestClient, guard: Routeguard[AppUser]) -> None:
    broken = {"content": b"{broken", "headers": {"content-type": "application/json"}}
    assert many.post("/asked", **broken).status_code == 401  # type: ignore[arg-type]
    assert many.post("/asked", json={"a": 1}, headers={"x-user": "bob"}).json() == "2"
    row = next(row for row in guard.matrix() if row.path == "/asked")
    assert (row.source, row.policy.partition(",")[0]) == ("parameter", "signed in")


def test_guests_are_welcome_where_the_policy_says_so(many: TestClient) -> None:
    for path in ("/maybe", "/found"):
        assert many.get(path).json() is None
        assert many.get(path, headers={"x-user": "bob"}).json() == "2"
        assert many.get(path, headers={"x-user": "down"}).status_code == 503


@pytest.mark.parametrize(
    ("user", "amount", "status"), [(None, 1, 401), ("bob", 1, 200), ("bob", 101, 403), ("ann", 101, 200)]
)
def test_a_handler_can_decide_by_the_body(many: TestClient, user: str | None, amount: int, status: int) -> None:
    headers = {"x-user": user} if user else {}
    assert many.post("/decides", json={"amount": amount}, headers=headers).status_code == status


def test_a_handler_that_forgets_to_decide_does_not_answer(many: TestClient) -> None:
    answer = many.get("/forgets", headers={"x-user": "ann"})
    assert answer.status_code == 500
    assert "secret" not in answer.text


def test_a_websocket_is_refused_before_accept(many: TestClient) -> None:
    """AZ-14, WS-10."""
    for user in (None, "bob"):
        with (
            pytest.raises((WebSocketDisconnect, Exception)) as caught,
            many.websocket_connect("/ws", headers={"x-user": user} if user else {}),
        ):
            pass
        assert "hello" not in str(caught.value)
    with many.websocket_connect("/ws", headers={"x-user": "ann"}) as socket:
        assert socket.receive_text() == "hello"


def test_start_up_names_every_undecided_handler(guard: Routeguard[AppUser]) -> None:
    app = FastAPI()
    guard.install(app)
    current = Depends(guard.current_session)

    @app.get("/one")
    async def one() -> None: ...

    @app.get("/two")
    @guard(public)
    async def two(session: UserSession[AppUser] = current) -> None: ...

    with pytest.raises(ConfigError) as caught, TestClient(app):
        pass
    findings = "\n".join(caught.value.findings)
    assert "/one" in findings
    assert "/two" in findings
    assert "does not provide" in findings


def test_a_default_decides_for_the_unmarked(guard: Routeguard[AppUser]) -> None:
    app = FastAPI()
    guard.install(app, default=guard.session())

    @app.get("/one")
    async def one() -> int:
        return 1

    with TestClient(app) as client:
        assert client.get("/one").status_code == 401
        assert client.get("/one", headers={"x-user": "bob"}).status_code == 200


def test_observe_refuses_nothing_and_says_what_it_would(
    guard: Routeguard[AppUser], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "routeguard"):
        client = serve(guard, guard.session(), mode="observe")
        assert ask(client) == 200
    assert "OBSERVE MODE" in caplog.text
    assert "would be refused" in caplog.text


def test_observe_needs_an_explicit_word_in_production(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    from tests.test_settings import production

    guard: Routeguard[AppUser] = Routeguard(production(), user=AppUser, identify=resolver)
    with pytest.raises(ConfigError, match="observe"):
        guard.install(FastAPI(), mode="observe")
    allowed: Routeguard[AppUser] = Routeguard(
        production(unsafe_observe_in_production=True), user=AppUser, identify=resolver
    )
    allowed.install(FastAPI(), mode="observe")


def test_unsafe_settings_stop_construction(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        Routeguard(Settings(issuer="https://id.example.com"))
    assert len(caught.value.findings) >= 2


def test_responses_carry_security_headers_once(guard: Routeguard[AppUser]) -> None:
    """HDR-01 for 200, 401 and 404."""
    client = serve(guard, guard.session())
    for path, headers in (("/x", {"x-user": "ann"}), ("/x", {}), ("/nope", {})):
        answer = client.get(path, headers=headers)
        for name in (
            "content-security-policy",
            "x-content-type-options",
            "referrer-policy",
            "cross-origin-opener-policy",
        ):
            assert len(answer.headers.get_list(name)) == 1, (path, name)
        assert "strict-transport-security" not in answer.headers  # Plain http on loopback.
        assert "x-xss-protection" not in answer.headers


@dataclass(frozen=True, slots=True)
class KeyHeader(Check):
    """A credential of another kind, as an extension would add it."""

    stage = Stage.IDENTITY

    def bind(self, services: Services) -> Any:
        async def check(exchange: Exchange) -> Problem | None:
            return None if exchange.request.header("x-key") == "good" else authentication_required("no key")

        return check

    def presents(self, services: Services) -> Callable[[Exchange], bool]:
        return lambda exchange: exchange.request.header("x-key") is not None


@pytest.mark.parametrize("own_sign_in_first", [True, False])
def test_the_own_sign_in_is_one_side_of_or_wherever_it_stands(
    guard: Routeguard[AppUser], own_sign_in_first: bool
) -> None:
    key, admin = Policy.of(KeyHeader()), guard.session(user={"role": "admin"})
    client = serve(guard, (admin | key) if own_sign_in_first else (key | admin))
    assert ask(client, "ann") == 200
    assert ask(client, **{"x-key": "good"}) == 200
    assert ask(client, "bob", **{"x-key": "good"}) == 200
    assert ask(client, "bob") == 403
    assert ask(client, "bob", **{"x-key": "bad"}) == 403
    assert ask(client, **{"x-key": "bad"}) == 401
    assert ask(client) == 401
    assert ask(client, "down") == 503


def test_production_with_an_own_sign_in_needs_neither_mail_nor_database(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    from tests.test_settings import production

    bare = production(database_url="sqlite://", mail=Settings().mail)
    Routeguard(bare, user=AppUser, identify=resolver)
    with pytest.raises(ConfigError) as caught:
        Routeguard(bare)
    assert [finding.partition(" ")[0] for finding in caught.value.findings] == ["database_url", "mail.url"]
    with pytest.raises(ConfigError, match="secret is missing"):
        Routeguard(production(secret=None), user=AppUser, identify=resolver)


def test_a_front_end_has_a_policy_of_its_own(guard: Routeguard[AppUser], tmp_path: Any) -> None:
    (tmp_path / "index.html").write_text("the front end")
    app = FastAPI()
    guard.install(app, default=guard.session(), frontend=public)
    app.frontend("/", directory=tmp_path)

    @app.get("/api")
    async def api() -> str:
        return "data"

    with TestClient(app, base_url="http://127.0.0.1:8000") as client:
        assert client.get("/").text == "the front end"
        assert client.get("/api").status_code == 401
        assert client.get("/api", headers={"x-user": "bob"}).status_code == 200


def test_a_start_that_fails_can_be_tried_again(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a start leaves no worker behind, and the next one has all of them."""
    monkeypatch.chdir(tmp_path)
    directory = tmp_path / "data"
    guard = Routeguard(Settings(database_url=f"sqlite:///{directory}/routeguard.db"))

    async def work() -> None:
        before = asyncio.all_tasks()
        with pytest.raises(ConfigError, match="its folder must exist"):
            await guard.start()
        assert asyncio.all_tasks() == before
        directory.mkdir()
        with pytest.raises(ConfigError, match=r"the database lacks 0001.*: run `routeguard migrate`"):
            await guard.start()
        assert asyncio.all_tasks() == before
        await migrate(guard.services.get(Database))
        await guard.start()
        await guard.services.get(HashingPool).hash("seven grey herons")
        await guard.close()
        await guard.start()
        await guard.services.get(HashingPool).hash("seven grey herons")
        await guard.close()
        assert asyncio.all_tasks() == before

    asyncio.run(work())
