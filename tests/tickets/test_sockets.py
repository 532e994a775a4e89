"""Sockets of clients that can set no header field: the example application over real HTTP and WebSockets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import httpx2 as httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.servers import Running, running

COVERS = ("identity/tickets/feature", "identity/tickets/routes", "identity/tickets/source")

pytestmark = pytest.mark.anyio

CHAT = "/ws/chat"
ELSEWHERE = "https://elsewhere.example"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("tickets"), "dev", "--port", "0") as started:
        yield started


def signed_in(server: Running) -> httpx.Client:
    client = httpx.Client(base_url=server.url, headers={"origin": server.url})
    email = "alice@example.com"
    answer = client.post("/auth/sign-in", json={"email": email, "password": server.passwords[email]})
    assert answer.status_code == 200, answer.text
    return client


@pytest.fixture(scope="module")
def alice(server: Running) -> Iterator[httpx.Client]:
    with closing(signed_in(server)) as client:
        yield client


def ticket(client: httpx.Client, path: str = CHAT) -> str:
    answer = client.post("/auth/ticket", json={"path": path})
    assert answer.status_code == 201, answer.text
    assert answer.headers["cache-control"] == "no-store"
    assert answer.json()["expires_in"] == 30
    found: str = answer.json()["ticket"]
    return found


def access_token(client: httpx.Client) -> str:
    found: str = client.post("/auth/token").json()["access_token"]
    return found


def socket(server: Running, *offered: str, origin: str | None = ELSEWHERE, path: str = CHAT, **headers: str) -> connect:
    return connect(
        server.url.replace("http", "ws") + path,
        subprotocols=[*offered],
        origin=origin,
        proxy=None,
        additional_headers=headers,
    )


async def refused(server: Running, *offered: str, **more: Any) -> int:
    with pytest.raises(InvalidStatus) as error:
        async with socket(server, *offered, **more):
            pass
    assert not any(name.split(".")[-1] in str(error.value.response.headers) for name in offered if len(name) > 40)
    status: int = error.value.response.status_code
    return status


async def speaks_as_alice(open_socket: connect) -> str | None:
    async with open_socket as opened:
        await opened.send("hello")
        assert json.loads(await opened.recv())["name"] == "Alice"
        return opened.subprotocol


@pytest.mark.parametrize("origin", [ELSEWHERE, None])
async def test_a_ticket_opens_a_socket_for_a_page_of_another_origin(
    server: Running, alice: httpx.Client, origin: str | None
) -> None:
    selected = await speaks_as_alice(socket(server, "routeguard", f"routeguard.ticket.{ticket(alice)}", origin=origin))
    assert selected == "routeguard"


async def test_an_access_token_may_come_as_subprotocol(server: Running, alice: httpx.Client) -> None:
    offered = ("routeguard", f"routeguard.bearer.{access_token(alice)}")
    assert await speaks_as_alice(socket(server, *offered)) == "routeguard"


async def test_a_ticket_opens_once(server: Running, alice: httpx.Client) -> None:
    offered = f"routeguard.ticket.{ticket(alice)}"
    await speaks_as_alice(socket(server, "routeguard", offered))
    assert await refused(server, "routeguard", offered) == 401


async def test_of_many_at_once_one_is_opened(server: Running, alice: httpx.Client) -> None:
    offered = f"routeguard.ticket.{ticket(alice)}"

    async def attempt() -> int:
        try:
            async with socket(server, "routeguard", offered):
                return 101
        except InvalidStatus as error:
            return error.response.status_code

    statuses = await asyncio.gather(*[attempt() for _ in range(16)])
    assert sorted(statuses) == [101] + [401] * 15


async def test_a_ticket_ends_with_its_session(server: Running) -> None:
    with closing(signed_in(server)) as client:
        offered = f"routeguard.ticket.{ticket(client)}"
        assert client.post("/auth/sign-out").status_code == 204
    assert await refused(server, "routeguard", offered) == 401


async def test_a_ticket_of_another_path(server: Running, alice: httpx.Client) -> None:
    assert await refused(server, "routeguard", f"routeguard.ticket.{ticket(alice, '/ws/other')}") == 401


@pytest.mark.parametrize(
    "invented", ["routeguard.ticket.", "routeguard.ticket." + "A" * 43, "routeguard.bearer.", "routeguard.bearer.a.b.c"]
)
async def test_an_invented_credential(server: Running, alice: httpx.Client, invented: str) -> None:
    """Nor does the cookie that came along count then (SES-02), whatever page opened the socket (CSRF-01)."""
    cookies = "; ".join(f"{name}={value}" for name, value in alice.cookies.items())
    assert await refused(server, "routeguard", invented) == 401
    assert await refused(server, "routeguard", invented, cookie=cookies) == 401


async def test_two_credentials(server: Running, alice: httpx.Client) -> None:
    """JWT-39"""
    one, token = f"routeguard.ticket.{ticket(alice)}", access_token(alice)
    assert await refused(server, one, f"routeguard.bearer.{token}") == 400
    assert await refused(server, one, authorization=f"Bearer {token}") == 400
    # Neither was looked at, so the ticket is not spent.
    await speaks_as_alice(socket(server, "routeguard", one))


@pytest.mark.parametrize("name", ["ticket", "access_token"])
async def test_never_in_the_query(server: Running, alice: httpx.Client, name: str) -> None:
    """WS-04"""
    secret = ticket(alice) if name == "ticket" else access_token(alice)
    assert await refused(server, path=f"{CHAT}?{name}={secret}") in {400, 401}


async def test_a_subprotocol_of_the_page_alone_proves_nothing(server: Running, alice: httpx.Client) -> None:
    """WS-01: a foreign page may offer any names, and its browser adds the cookie."""
    cookies = "; ".join(f"{name}={value}" for name, value in alice.cookies.items())
    assert await refused(server, "routeguard", "chat", cookie=cookies) == 403


def test_no_http_request_is_opened_by_a_subprotocol(server: Running, alice: httpx.Client) -> None:
    offered = {"sec-websocket-protocol": f"routeguard, routeguard.ticket.{ticket(alice)}"}
    assert httpx.get(server.url + "/api/me", headers=offered).status_code == 401


@pytest.mark.parametrize("path", ["", "ws", "https://evil.example/ws", "/ws?x=1", "/ws#x", "/" + "a" * 2048])
def test_what_is_no_path(alice: httpx.Client, path: str) -> None:
    answer = alice.post("/auth/ticket", json={"path": path})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/path"


def test_tickets_are_for_the_signed_in(server: Running, alice: httpx.Client) -> None:
    assert httpx.post(server.url + "/auth/ticket", json={"path": CHAT}).status_code == 401
    foreign = {"origin": ELSEWHERE, "sec-fetch-site": "cross-site"}
    assert alice.post("/auth/ticket", json={"path": CHAT}, headers=foreign).status_code == 403
