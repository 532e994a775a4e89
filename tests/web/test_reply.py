"""Answers: JSON, nothing, or the next page; and who waits for a page."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from starlette.requests import HTTPConnection

from routeguard.core.secret import Secret
from routeguard.foundation.web.reply import no_content, reply, see_other, wants_page

HTML = ("accept", "text/html,application/xhtml+xml")
FORM = ("content-type", "application/x-www-form-urlencoded")
NAVIGATE = ("sec-fetch-mode", "navigate")


def connection(method: str, *headers: tuple[str, str], kind: str = "http") -> HTTPConnection:
    raw = [(name.encode(), value.encode()) for name, value in headers]
    return HTTPConnection({"type": kind, "method": method, "path": "/", "headers": raw})


@pytest.mark.parametrize(
    ("method", "headers", "page"),
    [
        ("GET", [HTML, NAVIGATE], True),
        ("GET", [HTML], True),
        ("HEAD", [HTML], True),
        ("POST", [HTML, FORM, NAVIGATE], True),
        ("POST", [HTML, ("content-type", "Application/X-WWW-Form-Urlencoded; charset=utf-8")], True),
        ("GET", [], False),
        ("GET", [("accept", "application/json")], False),
        ("GET", [("accept", "*/*")], False),
        ("GET", [HTML, ("sec-fetch-mode", "cors")], False),
        ("POST", [FORM], False),
        ("POST", [HTML, FORM, ("sec-fetch-mode", "cors")], False),
        ("POST", [HTML, ("content-type", "application/json")], False),
        ("POST", [HTML, FORM, FORM], False),
        ("PUT", [HTML, FORM], False),
    ],
)
def test_a_page_is_for_who_navigates_or_posts_a_form(method: str, headers: list[Any], page: bool) -> None:
    assert wants_page(connection(method, *headers)) is page


def test_a_socket_wants_no_page() -> None:
    assert not wants_page(connection("GET", HTML, kind="websocket"))


def test_json_holds_data_and_no_secret() -> None:
    @dataclass
    class Data:
        at: datetime

    response = reply({"data": Data(datetime(2026, 11, 21, tzinfo=UTC))}, 201)
    assert response.status_code == 201
    assert response.body == b'{"data":{"at":"2026-11-21T00:00:00Z"}}'
    assert response.headers["content-type"] == "application/json; charset=utf-8"
    with pytest.raises(TypeError):
        reply({"secret": Secret("x" * 32)})
    assert no_content().status_code == 204


@pytest.mark.parametrize("url", ["/a\r\nset-cookie: x=1", "/\x00", "/caf\xe9"])
def test_a_location_is_one_line(url: str) -> None:
    """RED-07."""
    with pytest.raises(ValueError, match="one line"):
        see_other(url)
    assert see_other("/account").status_code == 303
