"""Bad input, swept over every route and then made up by Hypothesis: never 500, nothing changed, nothing echoed.

Longer: ``ROUTEGUARD_MADE_UP_REQUESTS=1000000 python -m pytest -m long tests/attacks/test_sweep.py``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.attacks.test_az import filled
from tests.attacks.world import COOKIE, ORIGIN, Browser, World, good_body
from tests.conformance.wire import Result
from tests.steady import work_within

pytestmark = pytest.mark.anyio

REFUSALS: Final = {400, 401, 403, 404, 405, 409, 413, 415, 422, 429}
CANARY: Final = "cAnArY7351"
FORM = "application/x-www-form-urlencoded"


def assert_sound(answer: Result, why: Any, *, fine: bool = False) -> None:
    """Nothing broke, nothing leaked, and the answer is one of those that are documented."""
    assert answer.error is None, (why, answer.error)
    assert answer.status in REFUSALS or fine, (why, answer.status, answer.body[:300])
    assert answer.status < 500, (why, answer.status)
    assert CANARY.encode() not in answer.body, (why, answer.body[:300])
    for word in (b"Traceback", b"sqlalchemy", b"sqlite3", b"site-packages", b'File "', b"password_hashes"):
        assert word not in answer.body, (why, word)
    for name, value in answer.headers:
        assert CANARY.encode() not in value, (why, name)
        assert b"\r" not in value, (why, name)
        assert b"\n" not in value, (why, name)
    if answer.status >= 400 and (answer.header("content-type") or "").startswith("application/problem"):
        assert answer.problem


MEMBERS = ("email", "password", "name", "token", "title", "amount", "current_password", "new_password")
BODIES: dict[str, tuple[str, bytes]] = {
    "nothing": ("application/json", b""),
    "open": ("application/json", b'{"email": "' + CANARY.encode()),
    "list": ("application/json", json.dumps([CANARY]).encode()),
    "text": ("application/json", json.dumps(CANARY).encode()),
    "unknown member": ("application/json", json.dumps({"unknown": CANARY}).encode()),
    "wrong types": ("application/json", json.dumps({name: [CANARY] for name in MEMBERS}).encode()),
    "nulls": ("application/json", json.dumps(dict.fromkeys(MEMBERS)).encode()),
    "huge": ("application/json", b'{"email":"' + b"a" * 2_000_000 + b'"}'),
    "deep": ("application/json", b"[" * 30_000),
    "bytes": ("application/json", bytes(range(256))),
    "UTF-16": ("application/json; charset=utf-16", "{}".encode("utf-16")),
    "form as JSON": ("application/json", f"email={CANARY}".encode()),
    "JSON as form": (FORM, json.dumps({"email": CANARY}).encode()),
    "form twice": (
        FORM,
        f"email=a%40b.co&email={CANARY}&token=a&token=b&title=a&title=b&name=a&name=b&password=a"
        f"&password=b&current_password=a&current_password=b".encode(),
    ),
    "form bytes": (
        FORM,
        b"email=%ff%fe&password=%00&token=%ff&name=%ff&title=%ff&current_password=%ff&new_password=%ff",
    ),
    "form fields": (FORM, b"&".join(b"f%d=v" % n for n in range(1000))),
    "multipart": ("multipart/form-data; boundary=x", b"--x\r\n\r\n\r\n--x--"),
    "text/plain": ("text/plain", b"{}"),
    "XML": ("application/xml", b'<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>'),
    "no type": ("", b"{}"),
    "strange type": ('application/json; charset="', b"{}"),
    "two types": ("application/json, text/plain", b"{}"),
}


@pytest.mark.parametrize("case", BODIES)
async def test_malformed_bodies(world: World, case: str) -> None:
    """Every route that takes a body, signed in: refused as documented, and no row changes."""
    kind, body = BODIES[case]
    alice = await world.browser("alice")
    before = await world.rows()
    for row in world.routes():
        if row.method not in {"GET", "HEAD"} and good_body(row.path) != b"{}":
            answer = await alice.ask(row.method, filled(row.path, "inv_x"), ("content-type", kind), body=body)
            assert_sound(answer, (row, case))
    assert await world.rows() == before


FIELDS: dict[str, list[tuple[str, str]]] = {
    "two authorizations": [("authorization", "Bearer a"), ("authorization", "Bearer b")],
    "two types": [("content-type", "application/json"), ("content-type", "text/plain")],
    "two hosts": [("host", "127.0.0.1:8000"), ("host", "evil.example")],
    "two origins": [("origin", ORIGIN), ("origin", "https://evil.example")],
    "strange host": [("host", "\x00\xff")],
    "strange accept": [("accept", "text/html;q=NaN, */*;q=" + "9" * 400)],
    "strange language": [("accept-language", "\xff" * 1000)],
    "strange forwarded": [("forwarded", 'for="[::1'), ("x-forwarded-for", "a, b,, ,\x7f")],
    "strange range": [("range", "bytes=" + "0-," * 5000)],
    "strange dates": [("if-modified-since", "Sat, 99 Nov 99999 99:99:99 GMT"), ("if-none-match", '"' * 1000)],
    "strange agent": [("user-agent", "\x00\x1b[31m" * 100)],
    "strange length": [("content-length", "0"), ("transfer-encoding", "chunked")],
    "strange site": [("sec-fetch-site", "same-origin, cross-site"), ("sec-fetch-mode", CANARY)],
    "strange key": [("idempotency-key", "\x00" * 300), ("x-api-key", "k" * 5000)],
    "strange token": [("x-csrf-token", "%00" * 500)],
    "expect": [("expect", "200-ok"), ("upgrade", "h2c"), ("connection", "upgrade, http2-settings")],
    "two keys": [("idempotency-key", "a"), ("idempotency-key", "b")],
    "empty names": [("", "x"), (" ", "x"), ("a b", "c")],
    "digits": [("content-length", "\u0661".encode().decode("latin-1"))],
    "auth schemes": [("authorization", "Basic \xff\xff"), ("proxy-authorization", CANARY)],
    "only bearer": [("authorization", "Bearer")],
    "huge bearer": [("authorization", "Bearer " + "A" * 30_000)],
}


@pytest.mark.parametrize("case", FIELDS)
async def test_malformed_fields(world: World, case: str) -> None:
    """Every route, as a guest and signed in."""
    alice = await world.browser("alice")
    for row in world.routes():
        if "sign-out" in row.path:
            continue
        for browser in (alice, Browser(world)):
            answer = await browser.ask(row.method, filled(row.path, "inv_x"), *FIELDS[case], body=good_body(row.path))
            # Fields that mean nothing here change nothing: a page stays a page.
            assert_sound(answer, (row, case), fine=True)


COOKIES = (
    f"{COOKIE}=",
    f"{COOKIE}=.",
    f"{COOKIE}=..",
    f"{COOKIE}=" + "A" * 4000,
    f"{COOKIE}=\xff\xfe",
    f'{COOKIE}="{CANARY}"',
    f"{COOKIE}=a.b; {COOKIE}=c.d",
    f"{COOKIE}={CANARY}.{CANARY}",
    f"{COOKIE}=v1.{'A' * 43}",
    f"{COOKIE}=\x00",
    f"{COOKIE}",
    f"__Host-{COOKIE}={CANARY}",
    f"{COOKIE}-csrf={CANARY}",
    f"{COOKIE}={{}}",
    f"{COOKIE}=e30.e30.e30",
    f"{COOKIE}=-1.-1",
)


@pytest.mark.parametrize("cookie", COOKIES, ids=range(len(COOKIES)))
async def test_malformed_cookies(world: World, cookie: str) -> None:
    """Every route: a guest, and never more."""
    before = await world.rows()
    for row in world.routes():
        headers = [("cookie", cookie), ("origin", ORIGIN), ("content-type", "application/json")]
        answer = await world.ask(row.method, filled(row.path, "inv_x"), headers, body=b'{"name":""}')
        assert_sound(answer, (row, cookie), fine=True)
        if row.policy.find("signed in,") != -1 and "anyone" not in row.policy:
            assert answer.status == 401, (row, answer.status)
    assert await world.rows() == before


IDS = (
    "",
    " ",
    ".",
    "..",
    "%2e%2e",
    "%2F",
    "%00",
    "%ff",
    "%E2%80%AE",
    "a" * 5000,
    "-1",
    "0",
    "1e9",
    "NaN",
    "null",
    "*",
    "%25",
    "inv_%00",
    "ses_" + "A" * 22,
    "usr_x",
    "inv_'--",
    "[object%20Object]",
    "{}",
    "$ne",
    "%0d%0a",
    ";",
    "?",
    "%3f",
    CANARY,
    "\u0661".encode().decode("latin-1"),
    "inv_x/..",
    "inv_x%2f..",
    "ses_%C3%28",
)


@pytest.mark.parametrize("value", IDS, ids=range(len(IDS)))
async def test_malformed_ids(world: World, value: str) -> None:
    """Every route with an id in it, and every method: 404, or no route."""
    alice = await world.browser("alice")
    before = await world.rows()
    for row in world.routes():
        if "{" in row.path:
            for method in ("GET", "PUT", "DELETE", "POST", "PATCH"):
                target = filled(row.path, value if value.isascii() else quote(value))
                answer = await alice.ask(method, target, ("content-type", "application/json"), body=good_body(row.path))
                # Without an id the path may be that of the list, or lead there.
                assert_sound(
                    answer, (row, method, value), fine=answer.status in {200, 201, 303, 307} and len(value) < 10
                )
    after = await world.rows()
    after["example_invoices"] = before["example_invoices"]  # "/api/invoices/" and kin may reach the list's POST.
    assert after == before


# -- made up ----------------------------------------------------------------------------------------------------------

NAMES = (
    "email",
    "password",
    "name",
    "token",
    "title",
    "amount",
    "current_password",
    "new_password",
    "next",
    "id",
    "role",
)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
objects = st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=8), values, max_size=6)
bodies = (
    st.binary(max_size=200)
    | objects.map(lambda data: json.dumps(data).encode())
    | objects.map(
        lambda data: "&".join(f"{quote(str(k))}={quote(str(v))}" for k, v in data.items()).encode("utf-8", "replace")
    )
    | objects.map(lambda data: json.dumps(data).encode()[:-1])
)
line = st.text(st.characters(min_codepoint=0, max_codepoint=255, blacklist_characters="\r\n"), max_size=60)
FIELD_NAMES = (
    "accept",
    "authorization",
    "content-length",
    "content-type",
    "content-encoding",
    "cookie",
    "forwarded",
    "host",
    "idempotency-key",
    "if-none-match",
    "origin",
    "range",
    "referer",
    "sec-fetch-mode",
    "sec-fetch-site",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "x-api-key",
    "x-csrf-token",
    "x-forwarded-for",
    "x-forwarded-proto",
)
KNOWN = st.sampled_from(
    [
        "application/json",
        FORM,
        "text/html",
        "navigate",
        "same-origin",
        "cross-site",
        ORIGIN,
        "null",
        "gzip",
        "chunked",
        "bytes=0-",
        "Bearer x",
        f"{COOKIE}=a.b",
        "127.0.0.1:8000",
        "5",
        "for=1.2.3.4",
    ]
)
field_lists = st.lists(st.tuples(st.sampled_from(FIELD_NAMES), KNOWN | line), max_size=6)
tails = st.lists(st.text(max_size=12).map(lambda text: quote(text.encode("utf-8", "replace"), "")), max_size=3)
methods = st.sampled_from(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "FOO", ""])

MANY: Final = int(os.environ.get("ROUTEGUARD_MADE_UP_REQUESTS", "2400"))
_tried: set[str] = set()


@pytest.fixture(scope="module")
async def fuzzed(world: World) -> tuple[World, Browser, list[str]]:
    paths = sorted({row.path for row in world.routes()})
    return world, await world.browser("alice"), paths


def made_up(count: int) -> Callable[[Callable[..., Any]], Any]:
    """Return a decorator that calls a test with so many requests."""

    def decorate(test: Callable[..., Any]) -> Any:
        given_requests = given(
            place=st.integers(0, 1000),
            method=methods,
            fields=field_lists,
            body=bodies,
            tail=tails,
            signed_in=st.booleans(),
            query=st.text(max_size=20),
        )
        return settings(
            max_examples=count,
            deadline=None,
            derandomize=count <= 10_000,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=(Phase.generate, Phase.shrink),
        )(given_requests(test))

    return decorate


@made_up(300)
async def test_made_up_requests(
    fuzzed: tuple[World, Browser, list[str]],
    place: int,
    method: str,
    fields: list[tuple[str, str]],
    body: bytes,
    tail: list[str],
    signed_in: bool,
    query: str,
) -> None:
    """R11: any method, path, fields and body."""
    await one_request(fuzzed, place, method, fields, body, tail, signed_in, query)


@pytest.mark.long
@pytest.mark.timeout(MANY)
@made_up(MANY)
async def test_many_made_up_requests(
    fuzzed: tuple[World, Browser, list[str]],
    place: int,
    method: str,
    fields: list[tuple[str, str]],
    body: bytes,
    tail: list[str],
    signed_in: bool,
    query: str,
) -> None:
    """R11"""
    await one_request(fuzzed, place, method, fields, body, tail, signed_in, query)


async def one_request(
    fuzzed: tuple[World, Browser, list[str]],
    place: int,
    method: str,
    fields: list[tuple[str, str]],
    body: bytes,
    tail: list[str],
    signed_in: bool,
    query: str,
) -> None:
    world, alice, paths = fuzzed
    _tried.add(method)
    target = filled(paths[place % len(paths)], "/".join(tail) or "x")
    headers = list(fields)
    if signed_in and "sign-out" not in target:
        headers.append(("cookie", f"{COOKIE}={alice.cookies[COOKIE]}"))
    if not any(name == "origin" for name, _ in headers):
        headers.append(("origin", ORIGIN))
    with work_within(1):
        answer = await world.ask(method, f"{target}?{quote(query.encode('utf-8', 'replace'))}", headers, body=body)
    assert answer.error is None, answer.error
    assert 200 <= answer.status < 500, (answer.status, answer.body)
    for _, value in answer.headers:
        assert b"\n" not in value
        assert b"\r" not in value


async def test_the_made_up_requests_ran_and_the_session_lives(fuzzed: tuple[World, Browser, list[str]]) -> None:
    """The twin of the above."""
    world, alice, _ = fuzzed
    assert len(_tried) > 5
    assert (await alice.get("/api/me")).status == 200
    assert {row[1] for row in (await world.rows())["users"]} >= {"alice@example.com", "bob@example.com"}
