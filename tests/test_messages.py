"""What a newcomer gets wrong at first is said in words that name the way out."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest
from fastapi import APIRouter, Depends, FastAPI
from starlette.routing import Router
from starlette.testclient import TestClient

from routeguard import (
    Check,
    ConfigError,
    Exchange,
    Outcome,
    Policy,
    ProblemType,
    Routeguard,
    Services,
    Settings,
    Stage,
    body_limit,
    content_types,
    cors,
    defaults,
    deferred,
    hosts,
    method,
    public,
    rate_limit,
)


@pytest.fixture
def guard(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Routeguard[Any]:
    monkeypatch.chdir(tmp_path)
    return Routeguard(Settings(database_url="sqlite://"))


def test_a_policy_that_was_not_called(guard: Routeguard[Any]) -> None:
    with pytest.raises(ConfigError, match=r"Routeguard\.session is a function, not a policy: did you mean session\("):
        Policy.of(guard.session)
    with pytest.raises(ConfigError, match="neither a policy nor a check"):
        Policy.of(7)


def test_fields_that_are_no_table(guard: Routeguard[Any]) -> None:
    wrong: Any = "admin"
    with pytest.raises(ConfigError, match=r"write session\(user=\{'role': 'admin'\}\)"):
        guard.session(user=wrong)


def test_a_rate_without_a_time() -> None:
    wrong: Any = 60
    with pytest.raises(ConfigError, match="write rate_limit\\('60/minute'\\)"):
        rate_limit(wrong)


def started(guard: Routeguard[Any], *policies: Any) -> list[str]:
    """Return the findings of an application with one handler under `policies`."""
    app = FastAPI()
    guard.install(app)

    @app.get("/x")
    @guard(*policies)
    async def handler() -> None: ...

    with pytest.raises(ConfigError) as found, TestClient(app):
        pass
    return list(found.value.findings)


def test_a_mark_without_its_call(guard: Routeguard[Any]) -> None:
    async def handler() -> None: ...

    with pytest.raises(ConfigError, match=r"handler is a function, not a policy: write @guard\(policy\) above"):
        guard(handler)
    with pytest.raises(ConfigError, match="needs at least one policy"):
        guard()


def test_a_limit_alone_decides_nothing(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    [finding] = started(Routeguard(Settings(), identify=lambda _: None), rate_limit("5/minute"))
    assert "(at most 5/minute by address) does not say who may call" in finding
    assert "@guard(public, ...)" in finding


def test_keys_without_the_identity_service(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    own: Routeguard[Any] = Routeguard(Settings(), identify=lambda _: None)
    [finding] = started(own, own.api_key("reports:read"))
    assert "with identify= the application signs its callers in by itself" in finding


def test_identify_beside_our_sessions(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="leave one of the two out"):
        Routeguard(Settings(database_url="sqlite://"), identify=lambda _: None, features=defaults())
    wrong: Any = "get_user"
    with pytest.raises(ConfigError, match="takes the request and returns the caller"):
        Routeguard(Settings(), identify=wrong)


@pytest.mark.parametrize("wrong", [FastAPI, APIRouter(), Router(), "app", None])
def test_what_is_no_application(guard: Routeguard[Any], wrong: Any) -> None:
    with pytest.raises(ConfigError, match=r"takes a Starlette or FastAPI application.*guard\(policy\)\(router\)"):
        guard.install(wrong)


@pytest.mark.parametrize("option", ["default", "docs", "frontend"])
def test_options_that_are_no_policies(guard: Routeguard[Any], option: str) -> None:
    with pytest.raises(ConfigError, match=rf"install\({option}=\.\.\.\): Routeguard\.session is a function"):
        guard.install(FastAPI(), **{option: guard.session})
    with pytest.raises(ConfigError, match="neither a policy nor a check"):
        guard.install(FastAPI(), **{option: "public"})


@pytest.mark.parametrize(
    ("module", "code", "words"),
    [
        ("sqlalchemy", "from routeguard import Routeguard; Routeguard()", "routeguard[identity]"),
        ("cyclopts", "import routeguard.cli.main", "routeguard[cli,identity]"),
    ],
)
def test_an_extra_that_is_missing_is_named(tmp_path: Any, module: str, code: str, words: str) -> None:
    lines = f"import sys; sys.modules[{module!r}] = None; {code}"
    ended = subprocess.run([sys.executable, "-c", lines], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert words in ended.stderr.splitlines()[-1]


def bare_handler() -> str:
    return "x"


def test_a_mark_without_its_call_names_the_line_of_the_handler(guard: Routeguard[Any]) -> None:
    line = bare_handler.__code__.co_firstlineno
    with pytest.raises(ConfigError, match=rf"write @guard\(policy\) .* \(.*test_messages\.py:{line}\)$"):
        guard(bare_handler)


def test_a_mode_that_is_none(guard: Routeguard[Any]) -> None:
    """It would be neither: not observing, and not verifying at start-up that every handler is decided."""
    wrong: Any = "observer"
    app = FastAPI()
    with pytest.raises(ConfigError, match=r"mode='observer'\): the modes are 'enforce' and 'observe'"):
        guard.install(app, mode=wrong)
    guard.install(app)


def test_api_keys_alone_beside_identify(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    keys = [feature for feature in defaults() if feature.name == "api_keys"]
    with pytest.raises(ConfigError, match=r"features=\[\.\.\.\] without api_keys") as caught:
        Routeguard(Settings(), identify=lambda request: None, features=keys)
    assert len(caught.value.findings) == 1


def own(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Routeguard[Any]:
    """Return a guard that needs no database."""
    monkeypatch.chdir(tmp_path)
    return Routeguard(Settings(), identify=lambda _: None)


WRONG: Any = ["POST"]


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        (method(WRONG), "['POST'] is not a method in capitals: write method('POST', 'PUT')"),
        (hosts(WRONG), "host ['POST'] must be a lower-case name or address"),
        (content_types(WRONG), "['POST'] is not a lower-case media type without parameters, such as 'image/png'"),
        (cors(origins=["https://a.example.com"], methods=["get"]), "cors() method 'get' is not in capitals"),
    ],
    ids=["method", "hosts", "content_types", "cors"],
)
def test_a_name_of_another_form_is_a_finding(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, policy: Policy, words: str
) -> None:
    [finding] = started(own(tmp_path, monkeypatch), public, policy)
    assert words in finding


def test_a_duration_that_is_a_number_and_a_rule_without_the_session(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    guard = own(tmp_path, monkeypatch)
    wrong: Any = lambda: True  # noqa: E731 - its form is the subject
    seconds: Any = 5
    findings = started(guard, guard.session(rule=wrong), guard.fresh(seconds))
    assert "fresh() needs a positive duration, such as fresh(minutes=5)" in findings[0] + findings[1]
    assert "does not take what it is called with: the session" in findings[0] + findings[1]


def test_a_side_of_an_alternative_that_says_nothing(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other side does say who may call, so that is not what is missing."""
    guard = own(tmp_path, monkeypatch)
    [finding] = started(guard, guard.session() | body_limit("2 KB"))
    assert "one side of '|' (body up to 2 KB) does not say who may call: use '&'" in finding


def test_a_value_that_the_policy_does_not_provide_is_named(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    guard = own(tmp_path, monkeypatch)
    app = FastAPI()
    guard.install(app)

    @app.get("/x")
    @guard(public)
    async def handler(session: Any = Depends(guard.current_session)) -> None: ...

    words = r"asks for guard\.current_session, which its policy \(public\) does not provide: guard\.session\(\) does"
    with pytest.raises(ConfigError, match=words), TestClient(app):
        pass


def test_a_policy_in_the_place_of_something_else(guard: Routeguard[Any]) -> None:
    wrong: Any = guard.session()
    with pytest.raises(TypeError, match=r"Depends takes is a value such as guard\.current_session"):
        FastAPI().get("/")(lambda session=Depends(wrong): session)
    check: Any = public.checks[0]
    with pytest.raises(ConfigError, match=r"takes a tuple of checks: write Policy\(\(check,\)\)"):
        Policy(check)


@dataclass(frozen=True)
class Breaks(Check):
    """Cannot be bound, or refuses with what is no refusal."""

    stage = Stage.ACCESS
    status: int

    def bind(self, services: Services) -> Callable[[Exchange], Awaitable[Outcome]]:
        if not self.status:
            raise LookupError("a fault of the check")

        async def done(exchange: Exchange) -> Outcome:
            return ProblemType("done", self.status, "Done")()

        return done


def test_a_check_that_breaks_at_the_start_names_the_handler(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    guard = own(tmp_path, monkeypatch)
    app = FastAPI()
    guard.install(app)

    @app.get("/broken")
    @guard(Breaks(0))
    async def broken() -> None: ...

    with pytest.raises(LookupError) as caught, TestClient(app):
        pass
    [note] = caught.value.__notes__
    assert note.startswith("GET /broken (")
    assert "broken): its policy (Breaks) cannot be bound" in note


@pytest.mark.parametrize("alternative", [False, True])
def test_a_refusal_with_the_status_of_a_success_is_a_fault(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, alternative: bool
) -> None:
    """AZ-16: a client would take 200 for the answer of the handler."""
    guard = own(tmp_path, monkeypatch)
    app = FastAPI()
    guard.install(app)
    policy = Policy((Breaks(200),))

    @app.get("/x")
    @guard(policy | Policy((Breaks(418),)) if alternative else policy)
    async def handler() -> None: ...

    with TestClient(app) as client:
        assert client.get("/x").status_code == 500


@pytest.mark.parametrize("wrong", ["http://127.0.0.1:9000", {"issuer": "http://127.0.0.1:9000"}])
def test_settings_of_another_type(wrong: Any) -> None:
    with pytest.raises(ConfigError, match=r"takes Settings and not (str|dict): write Routeguard\(Settings\("):
        Routeguard(wrong)


def test_a_deferred_handler_without_its_decision_is_told_what_it_lacks(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    guard = own(tmp_path, monkeypatch)
    app = FastAPI()
    guard.install(app)

    @app.get("/x")
    @guard(deferred)
    async def handler() -> None: ...

    with TestClient(app) as client:
        assert client.get("/x").status_code == 500
    assert "has not awaited guard.require(...)" in caplog.text
