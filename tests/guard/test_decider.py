"""Deciding without any wire: a request of WSGI, which has no ASGI messages, gets the same decisions."""

from __future__ import annotations

import json
from typing import Any

import pytest

from routeguard.core.check import Check, Stage
from routeguard.core.decision import ALLOW
from routeguard.core.policy import Policy, public
from routeguard.core.problem import CONTENT_TOO_LARGE
from routeguard.core.request import RequestView
from routeguard.core.services import Services
from routeguard.protection.guard.decider import NO_DECISION, Decider
from routeguard.protection.guard.guard import Guard
from tests.conformance.wire import KEY, key

pytestmark = pytest.mark.anyio


def environ(**changed: Any) -> dict[str, Any]:
    usual = {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "/app",
        "PATH_INFO": "/x",
        "QUERY_STRING": "",
        "REMOTE_ADDR": "192.0.2.1",
        "wsgi.url_scheme": "https",
        "HTTP_HOST": "example.org",
    }
    return usual | changed


def decider(guard: Guard, **changed: Any) -> Decider:
    given = environ(**changed)
    return Decider(guard, RequestView.from_environ(given), given["SCRIPT_NAME"])


async def handler() -> None:
    """Stand for any handler."""


@pytest.fixture
def guard() -> Guard:
    made = Guard(Services())
    made.headers = ((b"x-content-type-options", b"nosniff"),)
    return made


class Greeting(Check):
    stage = Stage.TRANSPORT

    def bind(self, services: Services) -> Any:
        async def run(exchange: Any) -> None:
            exchange.add_header(b"x-greeting", b"hello")

        return run


async def test_a_request_of_wsgi_is_decided(guard: Guard) -> None:
    compiled = guard.compile(Policy.of(key, Greeting()), handler, "http")
    known = decider(guard, **{"HTTP_" + KEY[0].decode().upper().replace("-", "_"): KEY[1].decode()})
    assert await known.decide(compiled) is None
    assert known.decision is ALLOW
    assert known.withheld(200, []) is None
    headers = known.finish([(b"content-type", b"text/plain")])
    assert {b"x-greeting": b"hello", b"x-content-type-options": b"nosniff"}.items() <= dict(headers).items()
    # What policies were asked about is nothing for shared caches.
    assert b"private" in dict(headers)[b"cache-control"] or b"no-store" in dict(headers)[b"cache-control"]


async def test_a_refusal_is_a_reply(guard: Guard) -> None:
    unknown = decider(guard)
    outcome: Any = await unknown.decide(guard.compile(key, handler, "http"))
    assert outcome.status == 401
    reply = await unknown.refused(outcome, "app.handler")
    assert reply.status == 401
    assert json.loads(reply.body)["instance"] == unknown.request_id
    assert unknown.withheld(200, []) is outcome


async def test_no_decision_no_response(guard: Guard) -> None:
    """AZ-11: whatever the wire."""
    undecided = decider(guard)
    assert undecided.withheld(200, []) is NO_DECISION
    assert undecided.withheld(404, []) is None
    guard.mode = "observe"
    assert undecided.withheld(200, []) is None
    assert undecided.decision is ALLOW


async def test_what_was_refused_meanwhile_wins(guard: Guard) -> None:
    one = decider(guard)
    assert await one.decide(guard.compile(public, handler, "http")) is None
    one.refusal = CONTENT_TOO_LARGE()
    assert one.withheld(500, []) is one.refusal


async def test_the_path_below_which_it_is_served(guard: Guard) -> None:
    assert (decider(guard).root, decider(guard, SCRIPT_NAME="").root) == ("/app", "")
