"""Two guards in one process, one application mounted in the other: each guard answers for its own applications only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from routeguard.app import Routeguard
from routeguard.core.policy import deferred
from tests.adapters.test_routeguard import SETTINGS, Person
from tests.conformance.wire import send

if TYPE_CHECKING:
    from starlette.requests import Request

pytestmark = pytest.mark.anyio

ASKS: dict[str, Any] = {
    "require": lambda guard, request: guard.require(request, guard.session()),
    "current_session": lambda guard, request: guard.current_session(request),
    "current_session_or_none": lambda guard, request: guard.current_session_or_none(request),
    "current": lambda guard, request: guard.current(request),
    "find_session": lambda guard, request: guard.find_session(request),
}


def of_everybody() -> Routeguard[Person]:
    """A guard that takes whoever calls for ann."""
    return Routeguard(SETTINGS, user=Person, identify=lambda _: Person(id="ann"))


def of_nobody() -> Routeguard[Person]:
    return Routeguard(SETTINGS, user=Person, identify=lambda _: None)


def application(own: Routeguard[Person], asked: Routeguard[Person], ask: Any, seen: list[Any]) -> Starlette:
    async def handler(request: Request) -> PlainTextResponse:
        await own.require(request, own.session())
        seen.append(await ask(asked, request))
        return PlainTextResponse("known")

    app = Starlette(routes=[Route("/x", own(deferred)(handler))])
    own.install(app)
    return app


@pytest.mark.parametrize("name", ASKS)
@pytest.mark.parametrize("around", ["alone", "in an application of the other", "the other way round"])
async def test_a_guard_that_is_asked_below_another_one_knows_nobody(name: str, around: str) -> None:
    """Whom one guard let in is nobody to the other."""
    strict, loose, seen = of_nobody(), of_everybody(), []
    app = application(loose, strict, ASKS[name], seen)
    if around != "alone":
        outer = Starlette(routes=[Mount("/in", app)])
        (strict if around == "in an application of the other" else of_everybody()).install(outer)
        app = outer
    path = "/x" if around == "alone" else "/in/x"
    answer = await send(app, path=path, headers=[(b"host", b"app.example")])
    assert (answer.status, seen) == (500, [])
    assert b"known" not in answer.body


@pytest.mark.parametrize("name", ASKS)
async def test_a_guard_that_is_asked_in_its_own_application_below_another_one_answers(name: str) -> None:
    own, seen = of_everybody(), []
    outer = Starlette(routes=[Mount("/in", application(own, own, ASKS[name], seen))])
    of_nobody().install(outer)
    answer = await send(outer, path="/in/x", headers=[(b"host", b"app.example")])
    assert (answer.status, [session.user.id for session in seen]) == (200, ["ann"])
