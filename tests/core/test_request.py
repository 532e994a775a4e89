"""The facts of a request, read once from what the server hands over."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routeguard.core.request import RequestView


def view(*headers: tuple[bytes, bytes], **scope: object) -> RequestView:
    return RequestView.from_scope({"type": "http", "method": "GET", "path": "/a", "headers": list(headers), **scope})


def test_from_scope() -> None:
    made = view((b"host", b"a"), (b"x-id", b"1"), scheme="https", path_params={"id": 3})
    assert (made.kind, made.method, made.path, made.scheme) == ("http", "GET", "/a", "https")
    assert made.header("X-ID") == "1"
    assert made.header("x-none") is None
    assert made.path_params == {"id": 3}
    assert made.repeated == frozenset()


def test_a_repeated_name_keeps_its_first_value_and_is_noted() -> None:
    """HTTP-01."""
    made = view((b"authorization", b"Bearer a"), (b"authorization", b"Bearer b"), (b"x", b"1"))
    assert made.header("authorization") == "Bearer a"
    assert made.repeated == {b"authorization"}


def test_cookie_lines_are_joined() -> None:
    made = view((b"cookie", b"a=1"), (b"x", b"1"), (b"cookie", b"b=2; a=3"))
    assert made.cookie("b") == "2"
    assert made.cookie("a") is None
    assert b"cookie" not in made.repeated


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "TRACE"])
def test_safe(method: str) -> None:
    assert view(method=method).is_safe


@pytest.mark.parametrize("method", ["POST", "get", "", "FOO", "GET "])
def test_not_safe(method: str) -> None:
    assert not view(method=method).is_safe


def test_a_handshake_is_not_safe() -> None:
    made = RequestView.from_scope({"type": "websocket", "path": "/", "headers": []})
    assert (made.kind, made.method, made.is_safe) == ("websocket", "GET", False)


def test_bytes_are_opaque() -> None:
    """HTTP-13: no header is a UnicodeDecodeError."""
    made = view((b"x", bytes(range(256))), (b"\xff", b"1"))
    assert made.header("x") == bytes(range(256)).decode("latin-1")
    assert made.header("\xff") == "1"


def test_from_environ() -> None:
    made = RequestView.from_environ(
        {
            "REQUEST_METHOD": "POST",
            "PATH_INFO": "/\xc3\xa9",
            "wsgi.url_scheme": "https",
            "REMOTE_ADDR": "192.0.2.1",
            "HTTP_COOKIE": "a=1",
            "HTTP_X_CSRF_TOKEN": "t",
            "CONTENT_TYPE": "application/json",
            "CONTENT_LENGTH": "2",
        }
    )
    assert (made.method, made.scheme, made.path) == ("POST", "https", "/%C3%A9")
    assert made.header("x-csrf-token") == "t"
    assert made.header("content-type") == "application/json"
    assert made.header("content-length") == "2"
    assert made.cookie("a") == "1"
    assert made.scope["client"] == ("192.0.2.1", 0)


@given(st.lists(st.tuples(st.sampled_from([b"a", b"b", b"cookie"]), st.binary(max_size=20)), max_size=8))
def test_every_header_is_accounted_for(headers: list[tuple[bytes, bytes]]) -> None:
    made = view(*headers)
    names = [name for name, _ in headers]
    assert set(made.headers) == set(names)
    assert made.repeated == {name for name in names if names.count(name) > 1} - {b"cookie"}
    for name in set(names) - {b"cookie"}:
        assert made.headers[name] == next(value for other, value in headers if other == name)
    assert made.headers.get(b"cookie", b"") == b"; ".join(value for name, value in headers if name == b"cookie")
