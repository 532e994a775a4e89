"""A parser sees only what was meant for it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routeguard.core.errors import ConfigError
from routeguard.protection.traffic.content_types import content_types, media_type

pytestmark = pytest.mark.anyio

JSON = content_types("application/json", "application/vnd.api+json")


@pytest.mark.parametrize(
    ("value", "status"),
    [
        ("application/json", None),
        ("APPLICATION/Json", None),
        ("application/json; charset=utf-8", None),
        ("application/json;charset=utf-8", None),
        ("application/json ; x=y", None),
        ("application/vnd.api+json", None),
        pytest.param("text/plain", 415, id="CSRF-08"),
        pytest.param("application/x-www-form-urlencoded", 415, id="CSRF-09"),
        pytest.param("Application/X-WWW-Form-Urlencoded; application/json", 415, id="CSRF-09 mixed case"),
        pytest.param("multipart/form-data; boundary=application/json", 415, id="CSRF-09 multipart"),
        pytest.param("", 415, id="CSRF-10 empty"),
        pytest.param("application/json\t; charset=utf-8", 415, id="BODY-17 tab before"),
        pytest.param("application/json;\tcharset=utf-8", None, id="BODY-17 tab in parameters"),
        ("application/json;", None),
        ("application/json; ; a=b", None),
        ('application/json; a="; =b"; c=d ', None),
        pytest.param("application/json; =utf-8", 415, id="BODY-17 no name"),
        pytest.param("application/json;=", 415, id="BODY-17 neither"),
        pytest.param("application/json; charset=utf-8; =x", 415, id="BODY-17 no name, second"),
        pytest.param("application/json; charset", 415, id="BODY-17 no value"),
        pytest.param("application/json; charset=", 415, id="BODY-17 empty value"),
        pytest.param('application/json; "utf-8"', 415, id="BODY-17 value alone"),
        pytest.param("application/json; charset =utf-8", 415, id="BODY-17 space before ="),
        pytest.param("application/json; charset= utf-8", 415, id="BODY-17 space after ="),
        pytest.param("application/json; a=b c=d", 415, id="BODY-17 no semicolon"),
        pytest.param("application/json; a=b, text/plain", 415, id="BODY-17 list after a parameter"),
        pytest.param('application/json; a="b', 415, id="BODY-17 open quote"),
        pytest.param("application/json; text/plain", 415, id="BODY-17 a type for a parameter"),
        pytest.param("application/json; \u00e4=b", 415, id="BODY-17 name outside ASCII"),
        pytest.param("application/json, application/json", 415, id="BODY-17 list"),
        pytest.param("application/json text/plain", 415, id="BODY-17 blank"),
        pytest.param("application/jsonx", 415, id="longer"),
        pytest.param("application/", 415, id="no subtype"),
        pytest.param("json", 415, id="no slash"),
        pytest.param("*/*", 415, id="a range"),
        pytest.param("application/json\x00", 415, id="NUL"),
        pytest.param("\u00a0application/json", 415, id="NBSP"),
        pytest.param("application/Kson".replace("K", "\xe4"), 415, id="letters"),
    ],
)
async def test_types(make_exchange: Any, outcome: Any, value: str, status: int | None) -> None:
    headers = [("content-type", value), ("content-length", "2")]
    assert await outcome(JSON, make_exchange("POST", *headers)) == status


async def test_two_fields(make_exchange: Any, outcome: Any) -> None:
    """BODY-17: two values, in both orders."""
    for pair in (("application/json", "text/plain"), ("text/plain", "application/json"), ("application/json",) * 2):
        assert await outcome(JSON, make_exchange("POST", *(("content-type", one) for one in pair))) == 415


async def test_no_type(make_exchange: Any, outcome: Any) -> None:
    """CSRF-10: only when there is a body."""
    assert await outcome(JSON, make_exchange("POST")) is None
    assert await outcome(JSON, make_exchange("POST", ("content-length", "0"))) is None
    assert await outcome(JSON, make_exchange("POST", ("content-length", "2"))) == 415
    assert await outcome(JSON, make_exchange("POST", ("transfer-encoding", "chunked"))) == 415
    unannounced = make_exchange("POST", http_version="2")
    assert await outcome(JSON, unannounced) is None
    assert unannounced.body_limit == 0


async def test_families(make_exchange: Any, outcome: Any) -> None:
    images = content_types("image/*")
    assert await outcome(images, make_exchange("PUT", ("content-type", "image/webp"))) is None
    assert await outcome(images, make_exchange("PUT", ("content-type", "imagex/webp"))) == 415
    assert await outcome(images, make_exchange("PUT", ("content-type", "image"))) == 415


@pytest.mark.parametrize("bad", ["json", "Application/JSON", "application/json; charset=utf-8", "*/*", "", "a/b, c/d"])
def test_bad_types_are_found_at_start_up(services: Any, bad: str) -> None:
    with pytest.raises(ConfigError):
        content_types(bad).bind(services)


def test_none_is_found_at_start_up(services: Any) -> None:
    with pytest.raises(ConfigError):
        content_types().bind(services)


@given(st.binary(max_size=300))
def test_media_type_never_raises(value: bytes) -> None:
    found = media_type(value)
    assert found == b"" or found in value.lower()
