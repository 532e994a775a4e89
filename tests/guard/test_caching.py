"""What a handler may say about caching a guarded answer (AZ-23)."""

from __future__ import annotations

import pytest

from routeguard.protection.guard.caching import keep_private


def kept(*values: bytes) -> list[bytes]:
    headers = [(b"content-type", b"text/plain"), *((b"Cache-Control", value) for value in values)]
    keep_private(headers)
    assert headers[0] == (b"content-type", b"text/plain")
    return [value for name, value in headers if name == b"cache-control"]


@pytest.mark.parametrize(
    "value",
    [
        b"private",
        b"PRIVATE , max-age = 60",
        b"no-store",
        b"no-cache,no-store",
        b'private, max-age="60"',
        b"private,,no-store",
        b"private, immutable",
    ],
)
def test_what_keeps_shared_caches_out_stays(value: bytes) -> None:
    assert kept(value) == [value]


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"public",
        b"max-age=60",
        b"no-cache",
        b"must-revalidate",
        b"private, public",
        b"no-store, public",
        b"private, s-maxage=60",
        b'private="x"',
        b'private="x", max-age=1',
        b"private;public",
        b"x-private",
        b"privately",
        b'"private"',
        b"private, new-directive",
        b"private, max-age=-1",
        b"private, max-age=\xd9\xa1",
        b"no-store\npublic",
    ],
)
def test_anything_else_is_replaced(value: bytes) -> None:
    assert kept(value) == [b"private, no-store"]


def test_lines_are_read_as_one() -> None:
    assert kept(b"private", b"max-age=60") == [b"private, max-age=60"]
    assert kept(b"private", b"public") == [b"private, no-store"]
    assert kept() == [b"private, no-store"]


@pytest.mark.parametrize(
    "name", [b"CDN-Cache-Control", b"Cloudflare-CDN-Cache-Control", b"Surrogate-Control", b"X-Accel-Expires"]
)
def test_fields_for_shared_caches_go(name: bytes) -> None:
    headers = [(name, b"max-age=60")]
    keep_private(headers)
    assert headers == [(b"cache-control", b"private, no-store")]
