"""A decorator without `functools.wraps` hides the mark of what it wraps: a finding, and no answer by the default."""

from __future__ import annotations

import functools
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from routeguard.core.policy import public
from routeguard.protection.guard.matrix import verify
from tests.adapters.starlette_app import FastAPIApp, StarletteApp, entries
from tests.conformance.wire import KEY, key, send

pytestmark = pytest.mark.anyio

ran: list[str] = []


@pytest.fixture(autouse=True)
def _nothing_ran() -> None:
    ran.clear()


@pytest.fixture(params=[StarletteApp, FastAPIApp], ids=["starlette", "fastapi"])
def made(request: pytest.FixtureRequest) -> Any:
    return request.param()


async def handler(request: Request) -> Response:
    ran.append("handler")
    return PlainTextResponse("secret")


def logged(function: Any) -> Any:
    async def run(request: Request) -> Response:
        found: Response = await function(request)
        return found

    return run


def synchronous(function: Any) -> Any:
    def run(request: Request) -> Response:
        assert function is not None
        return PlainTextResponse("secret")

    return run


def wrapped(function: Any) -> Any:
    return functools.wraps(function)(logged(function))


def marked(guard: Any) -> Any:
    async def copy(request: Request) -> Response:
        return await handler(request)

    return guard(key)(copy)


HIDDEN = {
    "a decorator": logged,
    "of another kind": synchronous,
    "two decorators": lambda function: logged(logged(function)),
    "around one that keeps it": lambda function: logged(wrapped(function)),
    "around a partial": lambda function: logged(functools.partial(function)),
}


@pytest.mark.parametrize("name", HIDDEN)
async def test_a_hidden_mark_is_a_finding_and_the_handler_does_not_run(made: Any, name: str) -> None:
    made.guard.default = public
    made.add(made.app.router, "/x", HIDDEN[name](marked(made.guard)), ["GET"])
    made.install()
    [finding] = verify(made.guard, entries(made.guard, made.app), undecided_is_fatal=True)
    assert "marked.<locals>.copy in it carries a policy that nothing asks" in finding
    assert "functools.wraps" in finding
    answer = await send(made.asgi(), path="/x", headers=[KEY])
    assert (answer.status, answer.problem, ran) == (500, "internal-error", [])


@pytest.mark.parametrize("name", HIDDEN)
async def test_a_hidden_mark_is_seen_where_no_guard_is_installed(made: Any, name: str) -> None:
    made.add(made.app.router, "/x", HIDDEN[name](marked(made.guard)), ["GET"])
    answer = await send(made.app, path="/x", headers=[KEY])
    assert (answer.status, answer.problem, ran) == (500, "guard-not-applied", [])


@pytest.mark.parametrize("name", HIDDEN)
async def test_a_mark_above_the_decorator_counts(made: Any, name: str) -> None:
    made.add(made.app.router, "/x", made.guard(key)(HIDDEN[name](marked(made.guard))), ["GET"])
    made.install()
    assert verify(made.guard, entries(made.guard, made.app), undecided_is_fatal=True) == []
    assert (await send(made.asgi(), path="/x")).status == 401
    assert (await send(made.asgi(), path="/x", headers=[KEY])).status == 200


async def test_a_handler_may_call_a_marked_one_beside_it(made: Any) -> None:
    made.guard.default = public

    @made.guard(key)  # type: ignore[untyped-decorator]
    async def beside(request: Request) -> Response:
        return await handler(request)

    async def calls(request: Request) -> Response:
        found: Response = await beside(request)
        return found

    made.add(made.app.router, "/x", calls, ["GET"])
    made.install()
    assert verify(made.guard, entries(made.guard, made.app), undecided_is_fatal=True) == []
    assert (await send(made.asgi(), path="/x")).status == 200
