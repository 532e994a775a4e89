"""BODY: what is sent after the fields, to the routes of ours and to those of an application with forms and files."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import Request
from starlette.responses import FileResponse

from routeguard import body_limit, public
from tests.attacks.test_az import filled, fresh
from tests.attacks.world import Browser, World, good_body
from tests.conformance.wire import Result, send
from tests.steady import work_within

pytestmark = pytest.mark.anyio

JSON = ("content-type", "application/json")
IDENTITY = (
    "/auth/sign-up",
    "/auth/sign-in",
    "/auth/password/forgot",
    "/auth/password/reset",
    "/auth/email/verify",
    "/auth/email/resend",
)
BOUNDARY = b"xYzZy"
PART = b'--xYzZy\r\nContent-Disposition: form-data; name="f"\r\n\r\nv\r\n'

MULTIPART: dict[str, bytes] = {
    "10000 parts": PART * 10_000 + b"--xYzZy--\r\n",
    "10000 part headers": b"--xYzZy\r\n" + b"X-A: b\r\n" * 10_000 + b"\r\nv\r\n--xYzZy--\r\n",
    "1 MB part header": b"--xYzZy\r\nX-A: " + b"a" * 1_000_000 + b"\r\n\r\nv\r\n--xYzZy--\r\n",
    "preamble": b"a" * 900_000 + b"\r\n" + PART + b"--xYzZy--\r\n",
    "preamble of line ends": b"\r\n" * 450_000 + PART + b"--xYzZy--\r\n",
    "epilogue": PART + b"--xYzZy--\r\n" + b"a" * 900_000,
    "epilogue of line ends": PART + b"--xYzZy--" + b"\r\n" * 450_000,
    "boundary almost": b"--xYzZ" * 150_000,
    "boundary twice": PART + b"--xYzZy--\r\n" + PART + b"--xYzZy--\r\n",
    "no end": PART * 10,
    "no header end": b"--xYzZy\r\nContent-Disposition: form-data",
    "100 MB": b"",
}


@pytest.fixture(scope="module")
async def files(world: World, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Any]:
    """An application of somebody else's: a form, and a file."""
    path = tmp_path_factory.mktemp("files") / "file.bin"
    path.write_bytes(bytes(range(256)) * 4000)
    async with fresh(world) as (app, guard):

        @app.post("/form")
        @guard(public, body_limit("1 MB"))
        async def form(request: Request) -> int:
            # How parts are told apart is the application's library's; how much it is given to read is ours.
            return len(await request.body())

        @app.get("/file")
        @guard(public)
        async def file() -> FileResponse:
            return FileResponse(Path(path))

        yield app


async def post_form(app: Any, body: Any) -> Result:
    kind = b"multipart/form-data; boundary=" + BOUNDARY
    return await send(app, "POST", "/form", [(b"content-type", kind)], body)


@pytest.mark.parametrize("case", MULTIPART)
async def test_multipart(world: World, files: Any, case: str) -> None:
    """BODY-15: refused by ours unread; and an application that takes forms is never handed more than its limit."""
    chunk = b"a" * 1_000_000
    body: Any = MULTIPART[case] or [chunk] * 100
    kind = ("content-type", f"multipart/form-data; boundary={BOUNDARY.decode()}")
    for path in IDENTITY:
        answer: Result = await Browser(world).ask("POST", path, kind, body=body)
        assert answer.status in {413, 415}, path
    with work_within(1):
        answer = await post_form(files, body)
    assert answer.status in {200, 400, 413}, (case, answer.status, answer.body)
    assert (answer.status == 413) == (case == "100 MB" or len(body) > 1024 * 1024)
    assert answer.received <= 4


RANGES = {
    "10000 ranges": ",".join(f"{n}-{n}" for n in range(10_000)),
    "overlapping": ",".join(["0-"] * 10_000),
    "descending": ",".join(f"{n}-" for n in range(9_999, 0, -1)),
    "beyond": "9999999999999-",
    "backwards": "5-1",
    "negative": "-0",
    "letters": "a-b",
    "digits": "0-" + "9" * 5_000,
    "commas": "," * 30_000,
    "blanks": " " * 30_000,
}


@pytest.mark.parametrize("case", RANGES)
async def test_ranges(world: World, files: Any, case: str) -> None:
    """BODY-25: on a file, and on every page of ours: refused or ignored, in linear time, never more than the file."""
    value = f"bytes={RANGES[case]}"
    with work_within(0.5):
        answer = await send(files, "GET", "/file", [(b"range", value.encode())])
    assert answer.status in {200, 206, 400, 416}, answer.status
    assert len(answer.body) <= 256 * 4000 + 200_000
    for path in ("/", "/auth/sign-in", "/openapi.json", "/healthz"):
        assert (await Browser(world).get(path, ("range", value))).status == 200
    # The twin: one honest range is served.
    assert (await send(files, "GET", "/file", [(b"range", b"bytes=0-9")])).status == 206


@pytest.mark.parametrize(
    "coding", ["gzip", "deflate", "br", "gzip, gzip", "x-gzip", "zstd", "compress", "chunked", "GZIP"]
)
async def test_nothing_is_unpacked(world: World, coding: str) -> None:
    """BODY-05, BODY-06: a bomb of a thousandfold, for every route that takes a body."""
    bomb = gzip.compress(b"a" * 10_000_000) if "gzip" in coding.lower() else zlib.compress(b"a" * 10_000_000)
    alice = await world.browser("alice")
    for row in world.routes():
        if row.method in {"POST", "PUT", "DELETE"}:
            answer = await alice.ask(row.method, filled(row.path, "x"), JSON, ("content-encoding", coding), body=bomb)
            assert answer.status == 415, row


async def test_every_route_has_a_limit(world: World) -> None:
    """BODY-01, BODY-20: declared, in chunks and lying; for every method; and not a chunk more is read than needed."""
    alice = await world.browser("alice")
    before = await world.rows()
    for row in world.routes():
        for length in ("2000000", "99999999999999999999", "-1", "0x10", "1e3", "+5", "1,2", ""):
            answer = await alice.ask(row.method, filled(row.path, "x"), JSON, ("content-length", length), body=b"{}")
            assert answer.status in {400, 413}, (row, length, answer.status)
            assert answer.received == 0
        if row.method in {"POST", "PUT"} and "sign-out" not in row.path and "{id" not in row.path:
            answer = await alice.ask(row.method, filled(row.path, "x"), JSON, body=[b"a" * 100_000] * 100)
            # Of a call that no registered client signed, no byte of the body is read.
            assert answer.status == (401 if "signed by" in row.policy else 413), (row, answer.status)
            assert answer.received <= 12
    assert await world.rows() == before


BAD: dict[str, bytes] = {
    "BODY-08": b'{"email":"a@example.com","email":"b@example.com","password":"x"}',
    "BODY-08 escaped": b'{"email":"a@example.com","em\\u0061il":"b@example.com","password":"x"}',
    "BODY-09": b'{"email":NaN,"password":Infinity}',
    "BODY-10": b'{"email":' + b"9" * 10_000 + b"}",
    "BODY-10 exponent": b'{"amount":1e400,"title":"a"}',
    "BODY-11": b'{"email":"\\ud800","password":"x","title":"\\udc00"}',
    "BODY-11 key": b'{"\\ud800":1}',
    "BODY-12": b'{"email":"a\\u0000@example.com","password":"\\u0000",'
    b'"title":"\\u0000","name":"\\u0000","token":"a.\\u0000"}',
    "BODY-14 list": b"[]",
    "BODY-14 text": b'""',
    "BODY-14 number": b"1",
    "BODY-14 null": b"null",
    "BODY-14 true": b"true",
    "BODY-22": b"{}{}",
    "BODY-22 comment": b"{}/**/",
    "BODY-22 comma": b'{"email":"a",}',
    "BODY-22 quotes": b"{'email':1}",
    "BODY-24": b'{"email":["a@example.com"],"password":1,"title":true,"amount":"1","token":{},"name":1}',
    "BODY-26 deep": b"[" * 60_000,
    "BODY-26 objects": b'{"a":' * 12_000,
    "BODY-26 BOM": b"\xef\xbb\xbf{}",
    # n_structure_100000_opening_arrays and n_structure_open_array_object: longer than identity routes take, too.
    "BODY-26 100000 arrays": b"[" * 100_000,
    "BODY-26 50000 pairs": b'[{"":' * 50_000,
    "BODY-26 UTF-16": "{}".encode("utf-16"),
    "BODY-26 nothing": b" ",
    "not UTF-8": b'{"email":"\xff"}',
}


@pytest.mark.parametrize("case", BAD)
async def test_bad_json_on_every_route_that_takes_any(world: World, case: str) -> None:
    """Never 500, nothing kept, nothing echoed; and the same body well made is taken."""
    alice = await world.browser("alice")
    before = await world.rows()
    asked = 0
    for row in world.routes():
        if row.method not in {"POST", "PUT"} or good_body(row.path) == b"{}":
            continue
        answer = await alice.ask(row.method, filled(row.path, "inv_x"), JSON, body=BAD[case])
        too_long = len(BAD[case]) > 2048 and "body up to 2 KB" in row.policy
        assert answer.status in ({413} if too_long else {400, 422}), (row, answer.status, answer.body)
        assert answer.problem
        for value in (b"b@example.com", b"\\ud800", b"9999999", b"a@example.com"):
            assert value not in answer.body
        asked += 1
    assert asked >= 11
    assert await world.rows() == before
    made = await alice.post("/api/invoices", {"title": "Paper", "amount": 1})
    assert made.status == 201
    assert (await alice.ask("DELETE", f"/api/invoices/{json.loads(made.body)['id']}")).status == 204
