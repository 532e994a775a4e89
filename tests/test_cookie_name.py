"""Two applications on one host: browsers give every cookie to every port (RFC 6265 section 8.5)."""

from __future__ import annotations

from http.cookies import SimpleCookie
from typing import Any

import httpx2 as httpx
import pytest

from routeguard.core.errors import ConfigError
from routeguard.settings import Settings
from tests.passwords.world import GOOD, World

FIRST, SECOND = "http://127.0.0.1:8000", "http://127.0.0.1:9000"


def names_of(response: httpx.Response) -> set[str]:
    return {name for line in response.headers.get_list("set-cookie") for name in SimpleCookie(line)}


async def signed_in(world: World, jar: dict[str, str], issuer: str) -> set[str]:
    """Sign in as a browser with `jar`, which knows hosts and no ports; return the names of the cookies it was given."""
    await world.sign_up("ada@example.com")
    given: set[str] = set()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(world.app), base_url=issuer, cookies=jar) as client:
        client.headers["origin"] = issuer
        for path, body in (("csrf", None), ("sign-in", {"email": "ada@example.com", "password": GOOD})):
            answer = await (client.get(f"/auth/{path}") if body is None else client.post(f"/auth/{path}", json=body))
            assert answer.status_code == 200, answer.text
            given |= names_of(answer)
        answer = await client.post("/auth/token", json={"cookies": True})
        assert answer.status_code == 200, answer.text
        given |= names_of(answer)
        jar |= dict(client.cookies)
    return given


async def session(world: World, jar: dict[str, str], issuer: str) -> int:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(world.app), base_url=issuer, cookies=jar) as client:
        # Without an Origin the CSRF token decides, which is bound to this application's own session.
        proof = (await client.get("/auth/csrf")).json()["csrf_token"]
        answer = await client.post("/auth/token", json={"cookies": True}, headers={"x-csrf-token": proof})
        assert answer.status_code == 200, answer.text
        return (await client.get("/auth/session")).status_code


@pytest.mark.anyio
@pytest.mark.parametrize("name", ["routeguard-{port}", None])
async def test_two_applications_on_one_host_leave_each_other_signed_in(
    sqlite_url: str, empty_sqlite_url: str, name: str | None
) -> None:
    names: list[dict[str, Any]] = [{"cookie_name": name}] * 2 if name else [{}, {"cookie_name": "shop"}]
    async with (
        World.open(sqlite_url, issuer=FIRST, **names[0]) as first,
        World.open(sqlite_url, issuer=SECOND, **names[1]) as second,
    ):
        jar: dict[str, str] = {}
        one = await signed_in(first, jar, FIRST)
        other = await signed_in(second, jar, SECOND)
        assert len(one) == len(other) == 4  # the session's, one for each token, and a guest's for CSRF
        assert one.isdisjoint(other)
        assert await session(first, jar, FIRST) == 200
        assert await session(second, jar, SECOND) == 200


@pytest.mark.parametrize(
    ("issuer", "name", "expected"),
    [
        (FIRST, "routeguard", "routeguard"),
        (FIRST, "routeguard-{port}", "routeguard-8000"),
        ("http://localhost", "{port}", None),
        ("http://localhost", "a{port}", "a80"),
        ("https://id.example.com", "a.{port}_b", "a.443_b"),
    ],
)
def test_the_name_may_hold_the_port(issuer: str, name: str, expected: str | None) -> None:
    settings = Settings(issuer=issuer, cookie_name=name)
    if expected is None:
        assert any("cookie_name" in finding for finding in settings.findings())
    else:
        assert settings.cookie_base == expected


@pytest.mark.parametrize(
    "name", ["", "a b", "a;b", "a=b", "__Host-a", "__host-a", "ä", "a" * 41, "a{host}", "-a", "a\n", ".a"]
)
def test_a_name_that_is_no_cookie_s_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="cookie_name"):
        raise ConfigError(Settings(cookie_name=name).findings())
