"""A kept answer is what the handler said, whatever content coding the first caller took."""

from __future__ import annotations

import gzip
import zlib
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import Response

from routeguard.foundation.ephemeral.memory import MemoryEphemeral
from routeguard.protection.traffic.idempotent import idempotent

from .harness import calling, guarded

pytestmark = pytest.mark.anyio

RECEIPT = b"receipt " * 500
CODINGS = ["identity", "gzip", "gzip, br", ""]


def headers(coding: str) -> dict[str, str]:
    return {"x-user": "usr_alice", "idempotency-key": "k1", "accept-encoding": coding}


def answering(content: bytes, **fields: str) -> Any:
    async def pay(request: Request) -> Response:
        return Response(
            content, 201, {"content-type": "text/plain", **{k.replace("_", "-"): v for k, v in fields.items()}}
        )

    return pay


def compressing_app() -> Starlette:
    app = guarded(MemoryEphemeral(), idempotent(), answering(RECEIPT))
    app.add_middleware(GZipMiddleware, minimum_size=1)
    return app


def compressing_route() -> Starlette:
    app = guarded(MemoryEphemeral(), idempotent(), answering(RECEIPT))
    route: Any = app.router.routes[0]
    route.app = GZipMiddleware(route.app, minimum_size=1)
    return app


@pytest.mark.parametrize("first", CODINGS)
@pytest.mark.parametrize("second", CODINGS)
@pytest.mark.parametrize("app", [compressing_app, compressing_route])
async def test_a_retry_is_answered_in_a_coding_it_takes(app: Any, first: str, second: str) -> None:
    async with calling(app()) as client:
        begun = await client.post("/", headers=headers(first))
        again = await client.post("/", headers=headers(second))
    assert (begun.content, again.content) == (RECEIPT, RECEIPT)
    assert again.headers["idempotency-replayed"] == "true"
    assert "gzip" in second or "content-encoding" not in again.headers


@pytest.mark.parametrize(
    ("coding", "content"),
    [("gzip", gzip.compress(RECEIPT)), ("deflate", zlib.compress(RECEIPT)), ("GZip", gzip.compress(RECEIPT))],
)
async def test_what_the_handler_compressed_is_kept_plain(coding: str, content: bytes) -> None:
    app = guarded(MemoryEphemeral(), idempotent(), answering(content, content_encoding=coding))
    async with calling(app) as client:
        await client.post("/", headers=headers(coding))
        again = await client.post("/", headers=headers("identity"))
    assert (again.status_code, again.content) == (201, RECEIPT)
    assert "content-encoding" not in again.headers
    assert again.headers["content-length"] == str(len(RECEIPT))


@pytest.mark.parametrize(
    ("taken", "status"), [("br", 201), ("*", 201), ("gzip, br;q=0.5", 201), ("br;q=0", 409), ("gzip", 409), ("", 409)]
)
async def test_a_coding_that_cannot_be_removed_is_not_given_to_one_who_takes_none(taken: str, status: int) -> None:
    app = guarded(MemoryEphemeral(), idempotent(), answering(b"\x0b\x02\x80abc\x03", content_encoding="br"))
    async with calling(app) as client:
        # The bytes are no Brotli, and httpx would try to read them.
        async with client.stream("POST", "/", headers=headers("br")) as begun:
            assert begun.status_code == 201
        async with client.stream("POST", "/", headers=headers(taken)) as again:
            assert again.status_code == status


async def test_a_small_answer_that_stands_for_much_is_not_kept() -> None:
    app = guarded(MemoryEphemeral(), idempotent(), answering(gzip.compress(b"0" * 50_000_000), content_encoding="gzip"))
    async with calling(app) as client:
        async with client.stream("POST", "/", headers=headers("gzip")) as begun:
            assert begun.status_code == 201
        again = await client.post("/", headers=headers("gzip"))
    assert again.status_code == 409


@pytest.mark.parametrize("content", [b"not gzip at all", gzip.compress(RECEIPT)[:-9]])
async def test_a_false_coding_is_kept_as_it_is(content: bytes) -> None:
    app = guarded(MemoryEphemeral(), idempotent(), answering(content, content_encoding="gzip"))
    async with calling(app) as client:
        async with client.stream("POST", "/", headers=headers("gzip")) as begun:
            first = b"".join([part async for part in begun.aiter_raw()])
        async with client.stream("POST", "/", headers=headers("gzip")) as again:
            second = b"".join([part async for part in again.aiter_raw()])
    assert first == second == content
