"""Routes carry their policy, whatever their handler is; a form that worked leads on."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from routeguard.core.exchange import SCOPE_KEY, Exchange
from routeguard.core.marks import policy_of
from routeguard.core.policy import Policy, public
from routeguard.core.request import RequestView
from routeguard.foundation.web import routes
from routeguard.foundation.web.body import TypedForm
from routeguard.foundation.web.reply import no_content, reply

pytestmark = pytest.mark.anyio

OTHER = Policy(name="other")
BROWSER = [(b"accept", b"text/html"), (b"content-type", b"application/x-www-form-urlencoded")]


class Endpoints:
    async def show(self, request: Request) -> Response:
        response = no_content()
        response.set_cookie("a", "b")
        return response

    async def refuse(self, request: Request) -> Response:
        return reply({}, 409)


async def with_word(word: str, request: Request) -> Response:
    return reply(word)


async def answer(route: Route, headers: list[tuple[bytes, bytes]], target: str | None = None) -> Response:
    scope: dict[str, Any] = {"type": "http", "method": "POST", "path": "/", "headers": headers, "query_string": b""}
    exchange = scope[SCOPE_KEY] = Exchange(RequestView.from_scope(scope))
    if target is not None:
        exchange.facts[TypedForm] = TypedForm({"next": target})
    response: Response = await route.endpoint(Request(scope))
    return response


@pytest.mark.parametrize("make", [routes.get, routes.post, routes.put, routes.patch, routes.delete])
def test_bound_methods_and_partials_carry_a_mark_of_their_own(make: Any) -> None:
    endpoints = Endpoints()
    first, second = make("/a", endpoints.show, public), make("/b", endpoints.show, OTHER)
    assert policy_of(first.endpoint) == public
    assert policy_of(second.endpoint) == OTHER
    assert policy_of(endpoints.show) is None
    assert make.__name__.upper() in first.methods
    assert first.endpoint.__qualname__ == "Endpoints.show"
    assert make("/c", partial(with_word, "x"), public).endpoint.__qualname__ == "with_word"


@pytest.mark.parametrize(
    ("target", "location"),
    [(None, "/then"), ("/next?a=b", "/next?a=b"), ("//evil.example", "/then"), ("https://evil.example", "/then")],
)
async def test_a_form_that_worked_leads_on_with_its_cookies(target: str | None, location: str) -> None:
    """RED-14: 303; RED-02: only on this origin."""
    route = routes.post("/a", Endpoints().show, public, redirect_to="/then")
    response = await answer(route, BROWSER, target)
    assert (response.status_code, response.headers["location"]) == (303, location)
    assert response.headers["set-cookie"].startswith("a=b")


async def test_programs_and_refusals_are_answered_as_they_are() -> None:
    show = routes.post("/a", Endpoints().show, public, redirect_to="/then")
    assert (await answer(show, [(b"content-type", b"application/json")])).status_code == 204
    assert (await answer(routes.post("/a", Endpoints().show, public), BROWSER)).status_code == 204
    assert (
        await answer(routes.post("/a", Endpoints().refuse, public, redirect_to="/then"), BROWSER)
    ).status_code == 409
