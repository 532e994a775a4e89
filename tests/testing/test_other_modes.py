"""Test mode is no accident (attack OPS-11), and outside of it overrides let nobody in and say so."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import pytest
from fastapi import Depends
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from routeguard import ConfigError, Routeguard, Settings, UserSession
from routeguard.core.secret import Secret
from routeguard.testing import key_for
from tests.testing.test_overrides import ANN, SETTINGS, Person, act, served, small, user, with_keys

DEPLOYED = Settings(issuer="https://id.example.com", secret=Secret("y3Lk8Qw1Zr7Vn5Xc2Bm9Tf4Hg6Jd0Sp-"))


def of(settings: Settings) -> Routeguard[Any]:
    return Routeguard(settings, user=Person, identify=lambda _: None)


@pytest.mark.parametrize(
    "issuer",
    [
        "https://id.example.com",
        "http://id.example.com",
        "http://10.0.0.7:8000",
        "https://localhost.example.com",
        "http://testserver",
    ],
)
def test_test_mode_is_refused_where_others_come_in(issuer: str) -> None:
    with pytest.raises(ConfigError) as caught:
        of(replace(DEPLOYED, issuer=issuer, environment="test"))
    assert any("environment 'test'" in finding and issuer in finding for finding in caught.value.findings)


@pytest.mark.parametrize(
    "issuer", ["http://127.0.0.1:8000", "http://localhost", "https://[::1]:8443", "https://app.localhost"]
)
def test_test_mode_is_for_this_machine(issuer: str) -> None:
    settings = replace(SETTINGS, issuer=issuer)
    assert settings.findings() == []
    assert (settings.testing, settings.production) == (True, False)
    of(settings)


def test_test_mode_is_in_the_log_at_each_start(caplog: pytest.LogCaptureFixture) -> None:
    app = served(of(SETTINGS))
    for _ in range(2):
        caplog.clear()
        with TestClient(app):
            pass
        assert [record.levelname for record in caplog.records if "TEST MODE" in record.getMessage()] == ["WARNING"]
    caplog.clear()
    with TestClient(served(of(replace(SETTINGS, environment="development")))):
        assert "TEST MODE" not in caplog.text


@pytest.mark.parametrize(
    "settings", [replace(SETTINGS, environment="development"), DEPLOYED], ids=["local", "deployed"]
)
def test_outside_test_mode_an_override_lets_nobody_in(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "routeguard")
    guard = of(settings)
    app = served(guard)
    with TestClient(app) as client:
        for value in (guard.current_session, guard.current_session_or_none, guard.current):
            app.dependency_overrides.clear()
            caplog.clear()
            act(app, value, ANN)
            paths = ("/taken", "/marked", "/admin", "/rule", "/fresh", "/deferred")
            assert [client.get(path).status_code for path in paths] == [401] * len(paths)
            assert client.get("/found").json() == "guest"
            told = [record.getMessage() for record in caplog.records if "refused: GET /taken" in record.getMessage()]
            assert len(told) == 1
            assert f"guard.{value.__name__}" in told[0]
            assert "ROUTEGUARD_ENVIRONMENT=test" in told[0]
        with pytest.raises(WebSocketDisconnect), client.websocket_connect("/ws"):
            pytest.fail("the socket was opened")


def told_of_overrides(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the warnings about overrides; there may be others, such as that of another process on memory://."""
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    return [message for message in told if "dependency_overrides" in message]


def test_an_override_that_comes_after_the_start_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    # At the level that is shown without any configuration: refusals themselves are not.
    guard = of(replace(SETTINGS, environment="development"))
    app = served(guard)
    with TestClient(app) as client:
        act(app, guard.current_session, ANN)
        assert [client.get("/taken").status_code for _ in range(2)] == [401, 401]
        told = told_of_overrides(caplog)
        assert len(told) == 1
        assert 'set environment="test"' in told[0]


def test_outside_test_mode_a_key_lets_nobody_in(sqlite_url: str) -> None:
    guard: Routeguard[Any] = Routeguard(replace(SETTINGS, environment="development", database_url=sqlite_url))
    app = with_keys(guard)
    with TestClient(app) as client:
        key = key_for(user("ann"), "reports:*", privilege="full")
        app.dependency_overrides[guard.current_key] = lambda: key
        assert [client.get(path).status_code for path in ("/key", "/reports", "/either")] == [401] * 3


@pytest.mark.parametrize("mounted", [False, True])
def test_overrides_that_say_nothing_are_told_at_the_start(caplog: pytest.LogCaptureFixture, mounted: bool) -> None:
    guard = of(replace(SETTINGS, environment="development"))
    app, inner = small(guard), small(guard)
    app.mount("/inner", inner)
    act(inner if mounted else app, guard.current_session, ANN)
    guard.install(app)
    with TestClient(app) as client:
        told = told_of_overrides(caplog)
        assert len(told) == 1
        assert (
            'dependency_overrides of guard.current_session are not asked outside test mode: set environment="test"'
            in told[0]
        )
        assert client.get("/me").status_code == 401
    guard.matrix()
    assert len(told_of_overrides(caplog)) == 1


def test_other_overrides_are_no_reason_for_a_word(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "routeguard")
    guard = of(replace(SETTINGS, environment="development"))

    def database() -> str:
        return "real"

    app = small(guard)

    @app.get("/records")
    async def records(
        session: UserSession[Any] = Depends(guard.current_session), database: str = Depends(database)
    ) -> str:
        return database

    app.dependency_overrides[database] = lambda: "fake"
    guard.install(app)
    with TestClient(app) as client:
        assert client.get("/records").status_code == 401
    assert "environment=" not in caplog.text


def test_with_a_guard_of_another_application_an_override_is_a_stranger() -> None:
    guard, other = of(SETTINGS), of(SETTINGS)
    app = served(guard)
    act(app, other.current_session, ANN)
    with TestClient(app) as client:
        assert client.get("/marked").status_code == 401
