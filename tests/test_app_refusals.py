"""Refusals in the application's own form."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from routeguard import ConfigError, Problem, Reply, RequestView, Routeguard, Settings, as_detail, public, rate_limit

COVERS = ("protection/guard/refusals",)

BROWSER = {"accept": "text/html", "sec-fetch-mode": "navigate", "sec-fetch-site": "none"}


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], TestClient]:
    monkeypatch.chdir(tmp_path)

    def with_shape(shape: Any) -> TestClient:
        guard: Routeguard[Any] = Routeguard(Settings(), identify=lambda request: None)
        app = FastAPI()
        guard.install(app, refusal=shape)

        @app.get("/me")
        @guard(guard.session())
        async def me() -> None: ...

        @app.get("/limited")
        @guard(public, rate_limit("1/hour"))
        async def limited() -> None: ...

        return TestClient(app, base_url="http://127.0.0.1:8000")

    return with_shape


def test_the_shape_that_fastapi_has(served: Any) -> None:
    with served(as_detail) as client:
        answer = client.get("/me")
        assert (answer.status_code, answer.headers["content-type"]) == (401, "application/json")
        assert answer.json() == {"detail": "Sign in, or send a valid credential."}
        assert answer.headers["www-authenticate"]
        assert "no-store" in answer.headers["cache-control"]
        assert client.get("/limited").status_code == 200
        answer = client.get("/limited")
        assert (answer.status_code, list(answer.json())) == (429, ["detail"])
        assert int(answer.headers["retry-after"]) > 0
        assert client.head("/me").content == b""


def test_the_applications_own_shape(served: Any) -> None:
    def shape(problem: Problem, request: RequestView) -> Any:
        if problem.status == 401 and request.headers.get(b"accept") == b"text/html":
            return Reply(303, ((b"location", b"/login"), (b"content-length", b"0")))
        if problem.status == 429:
            return None
        return {"error": {"code": problem.type.code, "path": request.path}}

    with served(shape) as client:
        assert client.get("/me").json() == {"error": {"code": "authentication-required", "path": "/me"}}
        answer = client.get("/me", headers=BROWSER, follow_redirects=False)
        assert (answer.status_code, answer.headers["location"]) == (303, "/login")
        client.get("/limited")
        assert client.get("/limited").headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    "shape",
    [
        lambda problem, request: Reply(200, (), b"welcome"),
        lambda problem, request: Reply(204),
        lambda problem, request: Reply(304),
        lambda problem, request: Reply(1000),
        lambda problem, request: Reply(403.0),  # type: ignore[arg-type]
        lambda problem, request: Reply(403, (("x-a", "text"),)),  # type: ignore[arg-type]
        lambda problem, request: Reply(403, ((b"x-a", b"1\r\nx-b: 2"),)),
        lambda problem, request: {"number": float("nan")},
        lambda problem, request: "text",
        lambda problem, request: {"not": object()},
        lambda problem, request: 1 / 0,
        lambda problem, request: Reply(401, ((b"x-a", b"1"),), "text"),  # type: ignore[arg-type]
    ],
)
def test_a_shape_that_breaks_refuses_all_the_same(served: Any, shape: Any) -> None:
    """AZ-11, AZ-16: a refusal never becomes a success."""
    with served(shape) as client:
        answer = client.get("/me")
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("wrong", ["detail", {"detail": 1}, 7])
def test_what_is_no_function_is_found_at_start_up(served: Any, wrong: Any) -> None:
    with pytest.raises(ConfigError, match="refusal"):
        served(wrong)


def test_nor_a_coroutine_function(served: Any) -> None:
    async def shape(problem: Problem, request: RequestView) -> None: ...

    with pytest.raises(ConfigError, match="refusal"):
        served(shape)


def test_nor_an_instance_that_has_to_be_awaited(served: Any) -> None:
    class Shape:
        async def __call__(self, problem: Problem, request: RequestView) -> None: ...

    with pytest.raises(ConfigError, match="refusal"):
        served(Shape())
