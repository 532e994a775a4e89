"""Problems: what a caller is told, and what only the log is."""

from __future__ import annotations

import json

import pytest

from routeguard.core import problem as module
from routeguard.core.errors import ProblemError
from routeguard.core.problem import Problem, ProblemType, authentication_required, unavailable

OWN = ProblemType("too-odd", 422, "Too odd", "That was odd.")


def test_the_body_has_the_members_of_rfc_9457() -> None:
    body = OWN(errors=[{"pointer": "/a", "detail": "no"}]).body("req_1")
    assert body == {
        "type": "https://routeguard.dev/problems/too-odd",
        "title": "Too odd",
        "status": 422,
        "detail": "That was odd.",
        "instance": "req_1",
        "errors": [{"pointer": "/a", "detail": "no"}],
    }
    json.dumps(body)


def test_what_is_absent_is_left_out() -> None:
    assert ProblemType("x", 404, "X")().body() == {"type": ProblemType("x", 404, "X").type, "title": "X", "status": 404}


def test_a_registered_type_keeps_its_uri() -> None:
    assert ProblemType("q", 429, "Q", uri="https://iana.org/q").type == "https://iana.org/q"


def test_debug_is_for_the_log_only() -> None:
    secret = "the password was hunter2"
    for told in (OWN(debug=secret), OWN().with_debug(secret)):
        assert told.debug == secret
        assert secret not in json.dumps(told.body("req_1"))
        assert told.headers == ()
    assert OWN().with_debug("x").body() == OWN().body()


def test_a_detail_of_its_own() -> None:
    assert OWN("Other words.").detail == "Other words."
    assert OWN("").detail == ""


def test_leaving_a_transaction() -> None:
    told = OWN()
    with pytest.raises(ProblemError) as caught:
        raise told.error()
    assert caught.value.problem is told
    assert str(caught.value) == "too-odd"


def test_401_is_the_same_whatever_the_cause() -> None:
    """ENUM-01: byte-identical but for the log's part."""
    first, second = authentication_required("no cookie"), authentication_required("expired")
    assert first.body("req_1") == second.body("req_1")
    assert first.headers == second.headers == (("www-authenticate", "Bearer"),)
    assert first.status == 401


def test_503_says_when() -> None:
    told = unavailable("postgresql: refused", 7)
    assert (told.status, told.headers) == (503, (("retry-after", "7"),))
    assert "postgresql" not in json.dumps(told.body())


def test_codes_are_unique_and_statuses_are_refusals() -> None:
    types = [value for value in vars(module).values() if isinstance(value, ProblemType)]
    assert len({one.code for one in types}) == len(types) > 5
    assert all(400 <= one.status <= 599 for one in types)
    assert isinstance(types[0](), Problem)
