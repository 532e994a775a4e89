"""Problems on the wire."""

from __future__ import annotations

import json
from typing import Any

import pytest

from routeguard.core.problem import NOT_FOUND, Problem, ProblemType, authentication_required
from routeguard.core.request import RequestView
from routeguard.protection.guard.log import escape
from routeguard.protection.guard.render import is_navigation, render, to_sign_in


def view(method: str = "GET", path: str = "/x", headers: Any = (), kind: str = "http", **scope: Any) -> RequestView:
    return RequestView.from_scope(
        {
            "type": kind,
            "method": method,
            "path": path,
            "headers": list(headers),
            "query_string": b"",
            "scheme": "http",
        }
        | scope
    )


def test_problem_json() -> None:
    """RFC 9457 section 3; the cause stays inside."""
    problem = authentication_required("expired at 12:00")
    reply = render(problem, view(), "req_1")
    headers = dict(reply.headers)
    assert json.loads(reply.body) == {
        "type": "https://routeguard.dev/problems/authentication-required",
        "title": "Authentication required",
        "status": 401,
        "detail": "Sign in, or send a valid credential.",
        "instance": "req_1",
    }
    assert headers[b"content-type"] == b"application/problem+json"
    assert headers[b"content-length"] == str(len(reply.body)).encode()
    assert headers[b"www-authenticate"] == b"Bearer"
    assert headers[b"cache-control"] == b"private, no-store"
    assert headers[b"x-content-type-options"] == b"nosniff"
    assert b"expired" not in reply.body


def test_head_has_the_headers_of_get_and_no_body() -> None:
    get, head = (render(NOT_FOUND(), view(method), "req_1") for method in ("GET", "HEAD"))
    assert (head.body, head.headers) == (b"", get.headers)


def test_half_a_character_does_not_break_the_answer() -> None:
    reply = render(NOT_FOUND("\ud800 \u20ac"), view(), "req_1")
    assert json.loads(reply.body)["detail"] == "? \u20ac"


@pytest.mark.parametrize("value", ["a\r\nb: c", "a\nb", "a\x00", "a\x7f"])
def test_headers_cannot_be_injected(value: str) -> None:
    """HTTP-03."""
    problem = Problem(ProblemType("x", 400, "X"), headers=(("x-said", value),))
    with pytest.raises(ValueError, match="control"):
        render(problem, view(), "req_1")


def location(**scope: Any) -> str:
    return dict(to_sign_in(view(**scope), "/auth/sign-in").headers)[b"location"].decode()


@pytest.mark.parametrize(
    ("scope", "due"),
    [
        ({"path": "/a"}, "?next=/a"),
        ({"path": "/a", "query_string": b"b=1&c=%26"}, "?next=/a%3Fb%3D1%26c%3D%2526"),
        ({"path": "/a b", "raw_path": b"/a%20b"}, "?next=/a%2520b"),
        ({"path": "/a?b", "raw_path": b"/a%3Fb"}, "?next=/a%253Fb"),
        ({"path": "/\udc80"}, "?next=/%253F"),
        ({"path": "//evil.example"}, ""),
        ({"path": "//evil.example", "raw_path": b"/%2Fevil.example"}, ""),
        ({"path": "/\\evil.example"}, ""),
        ({"path": "/\\evil.example", "raw_path": b"/%5Cevil.example"}, ""),
        ({"path": "/a\nb"}, ""),
        ({"path": "http://evil.example/"}, ""),
        ({"path": "*"}, ""),
        ({"path": ""}, ""),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_the_way_back_is_a_path_here(scope: dict[str, Any], due: str) -> None:
    """RED-02, RED-07, RED-08: nothing that any reader could take for another host."""
    assert location(**scope) == "/auth/sign-in" + due


def test_base_path() -> None:
    """AZ-24, HTTP-05: with the prefix, whether the proxy takes it away or not, and outside any mount."""
    assert location(path="/base/a", root_path="/base") == "/base/auth/sign-in?next=/base/a"
    assert location(path="/a", root_path="/base") == "/base/auth/sign-in?next=/base/a"
    assert location(path="/basement", root_path="/base") == "/base/auth/sign-in?next=/base/basement"
    assert location(path="/m/a", root_path="/m", app_root_path="") == "/auth/sign-in?next=/m/a"


@pytest.mark.parametrize(
    ("request_", "due"),
    [
        (view(headers=[(b"accept", b"text/html,*/*")]), True),
        (view("HEAD", headers=[(b"accept", b"text/html")]), True),
        (view(headers=[(b"accept", b"*/*,text/html"), (b"sec-fetch-mode", b"navigate")]), True),
        (view("POST", headers=[(b"accept", b"text/html")]), False),
        (view(headers=[(b"accept", b"application/json, text/html")]), False),
        (view(headers=[(b"accept", b"*/*")]), False),
        (view(), False),
        (view(headers=[(b"accept", b"text/html"), (b"sec-fetch-mode", b"cors")]), False),
        (view(headers=[(b"accept", b"text/html")], kind="websocket"), False),
    ],
)
def test_navigation(request_: RequestView, due: bool) -> None:
    assert is_navigation(request_) is due


def test_log_lines_are_one_line() -> None:
    """JWT-09."""
    assert escape('a\r\n"b\x1b[31m\u2028') == 'a\\r\\n\\"b\\u001b[31m\\u2028'
    assert len(escape("a" * 10_000)) == 200
