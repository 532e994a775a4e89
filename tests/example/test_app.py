"""The example over real HTTP and sockets: what each caller gets, and what nobody does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import httpx2 as httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from tests.servers import Running, running

COVERS = ("example/chat", "example/models", "example/origin", "example/people", "example/store")

pytestmark = pytest.mark.anyio

JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("dev"), "dev", "--port", "0") as started:
        yield started


def signed_in(server: Running, name: str) -> httpx.Client:
    client = httpx.Client(base_url=server.url, headers={"origin": server.url})
    email = f"{name}@example.com"
    answer = client.post("/auth/sign-in", json={"email": email, "password": server.passwords[email]})
    assert answer.status_code == 200, answer.text
    return client


@pytest.fixture(scope="module")
def alice(server: Running) -> Iterator[httpx.Client]:
    with closing(signed_in(server, "alice")) as client:
        yield client


@pytest.fixture(scope="module")
def bob(server: Running) -> Iterator[httpx.Client]:
    with closing(signed_in(server, "bob")) as client:
        yield client


def test_the_start_page_shows_the_protection_of_this_very_application(server: Running) -> None:
    page = httpx.get(server.url)
    assert page.status_code == 200
    described = httpx.get(server.url + "/openapi.json").json()["paths"]
    for path in described:
        assert f"<code>{path}</code>" in page.text
    assert "user.role is admin or moderator" in page.text
    assert "/ws/chat" in page.text
    assert "/auth/sign-in" in page.text


def test_guests_get_401_everywhere_but_there(server: Running) -> None:
    for method, path in (
        ("GET", "/api/me"),
        ("GET", "/api/admin/report"),
        ("GET", "/api/invoices"),
        ("POST", "/api/invoices"),
        ("GET", "/api/invoices/inv_x"),
        ("PUT", "/api/invoices/inv_x"),
        ("DELETE", "/api/invoices/inv_x"),
    ):
        assert httpx.request(method, server.url + path).status_code == 401, path


def test_the_report_is_for_staff(server: Running, alice: httpx.Client) -> None:
    assert alice.get("/api/admin/report").status_code == 403
    for name in ("admin", "moderator"):
        with closing(signed_in(server, name)) as client:
            report = client.get("/api/admin/report")
        assert report.status_code == 200
        assert report.json()["users"] == 4


def test_an_invoice_belongs_to_whoever_made_it(alice: httpx.Client, bob: httpx.Client) -> None:
    """AZ-01: another user's invoice and none at all are the same 404."""
    made = alice.post("/api/invoices", json={"title": "Paper", "amount": 12.5})
    assert made.status_code == 201
    invoice = made.json()
    path = f"/api/invoices/{invoice['id']}"
    assert invoice == {"id": invoice["id"], "title": "Paper", "amount": 12.5}
    assert alice.get(path).json() == invoice
    assert invoice in alice.get("/api/invoices").json()

    nobodys = bob.get("/api/invoices/inv_none")
    for answer in (bob.get(path), bob.put(path, json={"title": "Mine", "amount": 1}), bob.delete(path)):
        assert answer.status_code == 404
        assert answer.json()["type"] == nobodys.json()["type"]
    assert invoice not in bob.get("/api/invoices").json()

    assert alice.put(path, json={"title": "Ink", "amount": 3}).json() == {**invoice, "title": "Ink", "amount": 3}
    assert alice.delete(path).status_code == 204
    assert alice.get(path).status_code == 404
    assert alice.delete(path).status_code == 404


@pytest.mark.parametrize(
    ("body", "statuses"),
    [
        pytest.param('{"title":"a","amount":1,"user_id":"usr_x"}', {422}, id="mass assignment"),
        pytest.param('{"title":"a","amount":1,"id":"inv_x"}', {422}, id="own id"),
        pytest.param('{"title":"a","amount":"1"}', {422}, id="BODY-24-text"),
        pytest.param('{"title":"a","amount":true}', {422}, id="BODY-24-flag"),
        pytest.param('{"title":"a","amount":[1]}', {422}, id="BODY-24-list"),
        pytest.param('{"title":"a","amount":1,"amount":2}', {400}, id="BODY-08"),
        pytest.param('{"title":"a","amount":NaN}', {400}, id="BODY-09"),
        pytest.param('{"title":"a","amount":1e400}', {400}, id="BODY-10-exponent"),
        pytest.param('{"title":"a","amount":' + "9" * 10_000 + "}", {400}, id="BODY-10-digits"),
        pytest.param('{"title":"\\ud800","amount":1}', {400}, id="BODY-11"),
        pytest.param('{"title":"a\\u0000","amount":1}', {400, 422}, id="BODY-12"),
        pytest.param('{"title":"","amount":1}', {422}, id="empty"),
        pytest.param('{"title":"a","amount":-1}', {422}, id="negative"),
        pytest.param("[]", {422}, id="BODY-14"),
        pytest.param("{", {400}, id="malformed"),
    ],
)
def test_a_bad_invoice_is_refused_and_not_kept(alice: httpx.Client, body: str, statuses: set[int]) -> None:
    before = alice.get("/api/invoices").json()
    answer = alice.post("/api/invoices", content=body, headers=JSON)
    assert answer.status_code in statuses, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert alice.get("/api/invoices").json() == before


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_json_under_another_name_is_415(alice: httpx.Client, kind: str) -> None:
    """CSRF-08."""
    body = b'{"title":"a","amount":1}'
    assert alice.post("/api/invoices", content=body, headers={"content-type": kind}).status_code == 415


def test_a_body_without_end_is_413(alice: httpx.Client) -> None:
    """BODY-01: announced or not."""
    long = b'{"title":"' + b"a" * 1_200_000
    assert alice.post("/api/invoices", content=long, headers=JSON).status_code == 413
    assert alice.post("/api/invoices", content=iter([long[:600_000], long]), headers=JSON).status_code == 413


def test_health_is_public_and_says_nothing_more(server: Running) -> None:
    for path in ("/healthz", "/readyz"):
        answer = httpx.get(server.url + path)
        assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


def test_a_browser_sees_refusals_as_pages_and_programs_as_problems(alice: httpx.Client) -> None:
    browser = {"accept": "text/html", "sec-fetch-mode": "navigate"}
    for path, status in (("/api/admin/report", 403), ("/nothing-here", 404)):
        page = alice.get(path, headers=browser)
        assert page.status_code == status
        assert page.headers["content-type"].startswith("text/html")
        assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
        assert alice.get(path).headers["content-type"] == "application/problem+json"


def test_a_form_is_answered_with_303_and_its_refusal_with_the_page(server: Running) -> None:
    """RED-14: never 307 after credentials."""
    browser = {"accept": "text/html", "sec-fetch-mode": "navigate", "sec-fetch-site": "same-origin"}
    form = {"email": "bob@example.com", "password": "not-the-password", "next": "/api/me"}
    refused = httpx.post(server.url + "/auth/sign-in", data=form, headers=browser)
    assert refused.status_code == 401
    assert 'value="bob@example.com"' in refused.text
    assert 'value="/api/me"' in refused.text
    assert "not-the-password" not in refused.text
    form["password"] = server.passwords["bob@example.com"]
    accepted = httpx.post(server.url + "/auth/sign-in", data=form, headers=browser)
    assert (accepted.status_code, accepted.headers["location"]) == (303, "/api/me")
    assert "set-cookie" in accepted.headers
    form["next"] = "//evil.example"
    assert httpx.post(server.url + "/auth/sign-in", data=form, headers=browser).headers["location"] == "/account"
    foreign = browser | {"sec-fetch-site": "cross-site", "origin": "https://evil.example"}
    assert httpx.post(server.url + "/auth/sign-in", data=form, headers=foreign).status_code == 403


def chat(server: Running, client: httpx.Client | None, **more: Any) -> connect:
    cookies = "; ".join(f"{name}={value}" for name, value in client.cookies.items()) if client else ""
    return connect(
        server.url.replace("http", "ws") + "/ws/chat",
        additional_headers={"cookie": cookies} if cookies else {},
        origin=more.pop("origin", server.url),
        proxy=None,
        **more,
    )


async def test_the_chat_speaks_in_the_name_of_the_session(
    server: Running, alice: httpx.Client, bob: httpx.Client
) -> None:
    async with chat(server, alice) as first, chat(server, bob) as second:
        await first.send(json.dumps({"name": "Bob", "text": "hello"}))
        said = json.loads(await second.recv())
        assert said["name"] == "Alice"
        assert "hello" in said["text"]


@pytest.mark.parametrize("origin", [None, "own"])
async def test_the_chat_refuses_guests_before_accepting(server: Running, origin: str | None) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with chat(server, None, origin=server.url if origin else None):
            pass
    assert refused.value.response.status_code in {401, 403}


async def test_the_chat_refuses_a_foreign_page(server: Running, alice: httpx.Client) -> None:
    """WS-01."""
    with pytest.raises(InvalidStatus) as refused:
        async with chat(server, alice, origin="https://evil.example"):
            pass
    assert refused.value.response.status_code == 403


async def closed_with(socket: ClientConnection) -> int:
    async with asyncio.timeout(60):
        await socket.wait_closed()
    return int(socket.close_code or 0)


@pytest.mark.parametrize(
    ("messages", "code"),
    [(["x" * 2001], 1009), ([b"\x00"], 1003), (["again"] * 50, 1008)],
    ids=["long", "binary", "flood"],
)
async def test_the_chat_lets_go_of_who_misbehaves(
    server: Running, bob: httpx.Client, messages: list[Any], code: int
) -> None:
    async with chat(server, bob) as socket:
        for message in messages:
            await socket.send(message)
        assert await closed_with(socket) == code


async def test_the_chat_ends_with_the_session(server: Running) -> None:
    """WS-05."""
    with closing(await asyncio.to_thread(signed_in, server, "moderator")) as client:
        await _until_closed(server, client)


async def _until_closed(server: Running, client: httpx.Client) -> None:
    async with chat(server, client) as socket:
        await socket.send("still here")
        assert json.loads(await socket.recv())["text"] == "still here"
        assert (await asyncio.to_thread(client.post, "/auth/sign-out")).status_code == 204
        assert await closed_with(socket) == 1008
