"""HTTP: strange requests, strange servers and callers who leave, against the whole example application."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi import BackgroundTasks, Depends, FastAPI
from starlette.responses import Response

from routeguard import Routeguard, public
from routeguard.example.store import invoices
from routeguard.identity.users.store import users
from routeguard.settings import Settings
from tests.attacks.test_az import filled, fresh, hit
from tests.attacks.test_inj import settle
from tests.attacks.world import COOKIE, ORIGIN, SECRET, Browser, World, good_body
from tests.conformance.framing import KINDLY_READ, MISFRAMED, request
from tests.conformance.wire import life, send
from tests.servers import Running, running
from tests.steady import cancelled_after, quiet

pytestmark = pytest.mark.anyio

CONTROL = set(range(9)) | set(range(10, 32)) | {127}


# -- header injection -------------------------------------------------------------------------------------------------

SPLITS = (
    "/x\r\nset-cookie: a=b",
    "/x\nset-cookie: a=b",
    "/x\r",
    "/x\x00",
    "/x%0d%0aset-cookie:%20a=b",
    "/x%0aset-cookie:b",
    "/x\u560a\u560dset-cookie: a=b",
    "/x\u2028set-cookie: a=b",
    "/x%E5%98%8A%E5%98%8Dset-cookie",
    "/x\x85y",
    "/x\x0b",
)


@pytest.mark.parametrize("text", SPLITS, ids=repr)
async def test_no_text_splits_a_header(world: World, alice: Browser, text: str) -> None:
    """HTTP-03, RED-07, CK-10: in each field, parameter and cookie of each route."""
    from urllib.parse import quote, urlencode

    form = urlencode(
        {"email": "nobody@example.com", "password": "x", "next": text, "name": text, "token": text}
    ).encode()
    page = (("accept", "text/html"), ("sec-fetch-mode", "navigate"), ("sec-fetch-site", "same-origin"))
    latin = text.encode("latin-1", "ignore").decode("latin-1")
    for row in world.routes():
        target = filled(row.path, quote(text, ""))
        answers = [
            await Browser(world).ask(
                row.method,
                f"{target}?next={quote(text)}&notice={quote(text)}",
                ("content-type", "application/x-www-form-urlencoded"),
                *page,
                body=form,
            ),
            await Browser(world).ask(row.method, filled(row.path, "x"), ("referer", latin), ("x-request-id", latin)),
            await Browser(world, {"a": latin, COOKIE: latin}).ask(row.method, filled(row.path, "x")),
        ]
        for answer in answers:
            assert answer.error is None, (row, answer.error)
            assert answer.status < 500, (row, answer.status)
            for name, value in answer.headers:
                assert not CONTROL & set(value), (row, name, value)
                assert (name, value.partition(b"=")[0]) != (b"set-cookie", b"a")
    world.calm()
    for next_path in (text, "/api/me"):
        body = urlencode({"email": "bob@example.com", "password": world.passwords["bob"], "next": next_path}).encode()
        form_type = ("content-type", "application/x-www-form-urlencoded")
        answer = await Browser(world).ask("POST", "/auth/sign-in", form_type, *page, body=body)
        assert answer.status == 303
        # The twin: an honest place is gone to.
        location = answer.header("location") or ""
        assert location == next_path or "set-cookie" not in location, location


# -- the scheme -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["https", "http", "https,http", "javascript", "", "HTTPS", "https\t", "wss"])
async def test_nobody_states_the_scheme(world: World, value: str) -> None:
    """HTTP-14, CK-13: neither the field nor the server's own idea changes cookies, headers or links."""
    world.calm()
    plain = await Browser(world).post("/auth/sign-in", {"email": "bob@example.com", "password": world.passwords["bob"]})
    for fields in (
        [("x-forwarded-proto", value)],
        [("x-forwarded-proto", value), ("x-forwarded-proto", "https")],
        [("forwarded", f'for=1.2.3.4;proto="{value}"'), ("x-forwarded-ssl", "on"), ("front-end-https", "on")],
    ):
        for scheme in ("http", "https"):
            body = json.dumps({"email": "bob@example.com", "password": world.passwords["bob"]}).encode()
            answer = await Browser(world).ask(
                "POST", "/auth/sign-in", ("content-type", "application/json"), *fields, body=body, scheme=scheme
            )
            assert answer.status == 200
            attributes = {part.partition("=")[0] for part in (answer.header("set-cookie") or "").split("; ")}
            assert attributes == {part.partition("=")[0] for part in (plain.header("set-cookie") or "").split("; ")}
            assert answer.header("strict-transport-security") is None
            assert answer.header("location") is None


@pytest.mark.parametrize("value", ["http", "https,http", "javascript", ""])
async def test_behind_tls_the_cookie_stays_secure(tmp_path: Any, value: str) -> None:
    """CK-13, HTTP-14: TLS ends at a proxy, trusted or not, and the application sees http."""
    async with World.open(tmp_path, issuer="https://id.example.com", trusted_proxies=("198.18.0.0/15",)) as world:
        body = json.dumps({"email": "bob@example.com", "password": world.passwords["bob"]}).encode()
        for fields in ([], [("x-forwarded-proto", value)], [("forwarded", f'proto="{value}"')]):
            headers = [("content-type", "application/json"), ("origin", "https://id.example.com"), *fields]
            answer = await world.ask("POST", "/auth/sign-in", headers, body=body)
            assert answer.status == 200, answer.body
            cookie = answer.header("set-cookie") or ""
            assert cookie.startswith("__Host-routeguard=")
            assert "; Secure" in cookie
            assert "max-age=" in (answer.header("strict-transport-security") or "")


# -- callers who leave --------------------------------------------------------------------------------------------


async def left_after(steps: int, work: Any) -> bool:
    """Run `work` for some turns of the loop, slow ones where they are many. True if it ended."""
    return await cancelled_after(steps, work, pause=0.0005 if steps > 40 else 0.0)


STEPS = [*range(0, 40, 3), 44, 50, 60, 80, 120, 100_000]


async def test_a_client_who_leaves_leaves_no_half_state(world: World, alice: Browser) -> None:
    """HTTP-10: cancelled anywhere in a handler, a row is there whole or not at all, and nothing stays locked."""
    before = await world.rows()
    ended = 0
    for steps in STEPS:
        ended += await left_after(steps, alice.post("/api/invoices", {"title": f"t{steps}", "amount": steps}))
        async with asyncio.timeout(60):
            assert (await alice.post("/api/invoices", {"title": "after", "amount": 0})).status == 201
    assert 0 < ended < len(STEPS)
    async with world.database.transaction() as tx:
        made = await tx.all(sa.select(invoices.c.title, invoices.c.amount).where(invoices.c.user_id == alice.id))
        await tx.execute(sa.delete(invoices).where(invoices.c.user_id == alice.id))
    for title, amount in made:
        assert title in {"after", f"t{amount:.0f}"}
    after = await world.rows()
    assert {name: rows for name, rows in after.items() if name != invoices.name} == {
        name: rows for name, rows in before.items() if name != invoices.name
    }


async def test_a_sign_up_that_was_cut_is_no_half_account(world: World) -> None:
    """HTTP-10: a user has a password and a link to prove the address, or there is no user."""
    guest = Browser(world)
    before = asyncio.all_tasks()
    for steps in STEPS:
        body = {"email": f"cut{steps}@example.com", "password": "seven grey herons at dawn", "name": "Cut"}
        await left_after(steps, guest.post("/auth/sign-up", body))
    await quiet(before)
    await settle(world)
    rows = await world.rows()
    made = {row[0] for row in rows["users"] if str(row[1]).startswith("cut")}
    assert made <= {row[0] for row in rows["password_hashes"]}
    assert made <= {row[0] for row in rows["one_time_tokens"]}
    mailed = {message.to for message in world.mailbox.messages if message.to.startswith("cut")}
    assert mailed == {str(row[1]) for row in rows["users"] if str(row[1]).startswith("cut")}


async def test_a_reset_that_was_cut_is_whole_or_can_be_tried_again(world: World) -> None:
    """HTTP-10: the token is used up exactly when the password is the new one."""
    guest, password = Browser(world), "seven grey herons at dawn"
    for steps in (2, 8, 14, 20, 26, 32, 44, 60, 120):
        # Somebody else each time: one address gets so many links in an hour, and no more.
        email = f"resets{steps}@example.com"
        assert (await guest.post("/auth/sign-up", {"email": email, "password": password, "name": "R"})).status == 201
        await guest.post("/auth/password/forgot", {"email": email})
        await settle(world)
        token = world.mailbox.token(email)
        new = f"{password} {steps}"
        before = asyncio.all_tasks()
        await left_after(steps, guest.post("/auth/password/reset", {"token": token, "password": new}))
        await quiet(before)
        changed = (await guest.post("/auth/sign-in", {"email": email, "password": new})).status == 200
        again = await guest.post("/auth/password/reset", {"token": token, "password": new})
        assert again.status == (400 if changed else 204), (steps, changed, again.body)


async def test_a_body_that_never_ends_changes_nothing(world: World, alice: Browser) -> None:
    """HTTP-10: the client leaves in the middle of its body."""
    before = await world.rows()
    for row in world.routes():
        if row.method in {"POST", "PUT", "DELETE"} and "sign-out" not in row.path:
            half = [
                {"type": "http.request", "body": good_body(row.path)[:-3], "more_body": True},
                {"type": "http.disconnect"},
            ]
            answer = await alice.ask(
                row.method, filled(row.path, "x_none"), ("content-type", "application/json"), body=half
            )
            # Of a call that no registered client signed, no byte of the body is read.
            assert answer.status in ({401} if "signed by" in row.policy else {0, 400, 404}), (row, answer.status)
            assert answer.error is None
    assert await world.rows() == before


# -- exceptions -----------------------------------------------------------------------------------------------------


class Boom(Exception):
    """Its words must not get out."""


async def test_an_exception_anywhere_is_generic_and_the_process_lives(world: World, alice: Browser) -> None:
    """HTTP-17, OPS-22: in the guard, in a dependency, in the handler, after the answer."""
    async with fresh(world) as (app, guard):

        def explode() -> None:
            raise Boom("canary /etc/passwd SELECT")

        def rule(_: Any) -> bool:
            explode()
            return True

        @app.get("/guard")
        @guard(guard.session(rule=rule))
        async def in_guard() -> str:
            return "secret"

        @app.get("/dependency", dependencies=[Depends(explode)])
        @guard(public)
        async def in_dependency() -> str:
            return "secret"

        @app.get("/handler")
        @guard(public)
        async def in_handler() -> str:
            raise Boom("canary /etc/passwd SELECT")

        @app.get("/background")
        @guard(public)
        async def after(tasks: BackgroundTasks) -> Response:
            tasks.add_task(explode)
            return Response("fine", background=tasks)

        @app.get("/fine")
        @guard(public)
        async def fine() -> str:
            return "fine"

        for path, statuses in (
            ("/guard", {403, 500}),
            ("/dependency", {500}),
            ("/handler", {500}),
            ("/background", {200}),
        ):
            answer = await hit(app, path, alice)
            assert answer.status in statuses, (path, answer.status)
            assert b"canary" not in answer.body
            assert b"Traceback" not in answer.body
            if answer.status >= 400:
                assert answer.problem in {"internal-error", "permission-denied"}
            assert (await hit(app, "/fine", alice)).status == 200


async def test_a_lifespan_that_fails_is_no_start(world: World) -> None:
    """HTTP-17: of the application, and of ours."""

    @contextlib.asynccontextmanager
    async def broken(_: Any) -> Any:
        raise Boom("canary")
        yield

    url = f"sqlite:///{world.directory / 'routeguard.db'}"
    for lifespan, database in ((broken, url), (None, "sqlite:////proc/nowhere/x.db")):
        guard = Routeguard(Settings(secret=SECRET, issuer=ORIGIN, database_url=database))
        app = FastAPI(lifespan=lifespan)
        guard.install(app)
        messages = await life(app)
        assert messages[0]["type"] == "lifespan.startup.failed", (database, messages)
        await guard.close()


async def test_errors_are_problems_that_no_browser_sniffs(world: World, alice: Browser) -> None:
    """HTTP-19: 400, 401, 403, 404, 405, 413, 415, 422 alike, and HEAD without a body."""
    guest = Browser(world)
    json_type = ("content-type", "application/json")
    answers = [
        await guest.ask("POST", "/auth/sign-in", json_type, body=b"{"),
        await guest.get("/api/me"),
        await alice.get("/api/admin/report"),
        await guest.get("/nowhere"),
        await guest.ask("DELETE", "/auth/sign-in"),
        await guest.ask("POST", "/auth/sign-in", json_type, body=b"x" * 70_000),
        await guest.ask("POST", "/auth/sign-in", ("content-type", "text/plain"), body=b"{}"),
        await guest.ask("POST", "/auth/sign-in", json_type, body=b"{}"),
    ]
    assert [answer.status for answer in answers] == [400, 401, 403, 404, 405, 413, 415, 422]
    assert all(answer.problem for answer in answers)
    for path in ("/api/me", "/nowhere"):
        head = await guest.ask("HEAD", path)
        assert head.body == b""
        assert head.header("x-content-type-options") == "nosniff"


# -- many at once ---------------------------------------------------------------------------------------------------


async def test_interleaved_requests_are_never_mixed_up(world: World) -> None:
    """HTTP-21: each gets his own name, whoever else is served meanwhile. ROUTEGUARD_TEST_INTERLEAVINGS for more."""
    people = [await world.browser(name) for name in ("alice", "bob", "moderator", "admin")]
    wrong: list[tuple[str, str]] = []

    async def visitor(browser: Browser, rounds: int) -> None:
        mine = Browser(world, dict(browser.cookies))
        for _ in range(rounds):
            found = json.loads((await mine.get("/api/me")).body)
            if found.get("id") != browser.id:
                wrong.append((browser.id, str(found)))
            await asyncio.sleep(0)

    total = int(os.environ.get("ROUTEGUARD_TEST_INTERLEAVINGS", "2000"))
    async with asyncio.TaskGroup() as group:
        for number in range(40):
            group.create_task(visitor(people[number % 4], total // 40))
    assert wrong == []


# -- over a socket --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("dev"), "dev", "--port", "0") as started:
        yield started


def talk(server: Running, data: bytes, *, wait: float = 15.0) -> bytes:
    """Send bytes and return what comes back until the server closes."""
    host, _, port = server.url.removeprefix("http://").rpartition(":")
    received = b""
    with socket.create_connection((host, int(port)), timeout=wait) as connection:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(data)
        with contextlib.suppress(TimeoutError, ConnectionResetError):
            while part := connection.recv(65536):
                received += part
    return received


def status_of(data: bytes) -> int:
    return int(data.split(b" ", 2)[1]) if data.startswith(b"HTTP/") else 0


END = b"Host: x\r\nConnection: close\r\n\r\n"
REQUESTS: dict[str, tuple[bytes, set[int]]] = {
    "HTTP-08 1.0": (b"GET /api/me HTTP/1.0\r\n\r\n", {401}),
    "HTTP-08 absolute": (b"GET http://evil.example/api/me HTTP/1.1\r\n" + END, {400, 401, 404}),
    "HTTP-08 absolute report": (b"GET http://127.0.0.1/api/admin/report HTTP/1.1\r\n" + END, {400, 401, 404}),
    "HTTP-08 asterisk": (b"OPTIONS * HTTP/1.1\r\n" + END, {400, 404, 405}),
    "HTTP-08 asterisk GET": (b"GET * HTTP/1.1\r\n" + END, {400, 404}),
    "HTTP-08 authority": (b"CONNECT 127.0.0.1:80 HTTP/1.1\r\n" + END, {400, 404, 405, 501}),
    "HTTP-08 no slash": (b"GET api/me HTTP/1.1\r\n" + END, {400, 404}),
    "HTTP-08 fragment": (b"GET /api/me#x HTTP/1.1\r\n" + END, {400, 401, 404}),
    "HTTP-11 TRACE": (b"TRACE /api/me HTTP/1.1\r\nCookie: a=b\r\n" + END, {400, 405, 501}),
    "HTTP-11 FOO": (b"FOO /api/me HTTP/1.1\r\n" + END, {400, 405, 501}),
    "HTTP-11 lower case": (b"get /api/me HTTP/1.1\r\n" + END, {400, 405, 501}),
    "HTTP-11 1 MB": (b"A" * 1_000_000 + b" /api/me HTTP/1.1\r\n" + END, {0, 400, 405, 414, 431, 501}),
    "HTTP-12 10000 fields": (
        b"GET /api/me HTTP/1.1\r\n" + b"".join(b"x-%d: y\r\n" % n for n in range(10_000)) + END,
        {400, 401, 431},
    ),
    "HTTP-12 1 MB field": (b"GET /api/me HTTP/1.1\r\nX-A: " + b"a" * 1_000_000 + b"\r\n" + END, {0, 400, 431}),
    "HTTP-12 100 KB path": (b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n" + END, {0, 400, 404, 414}),
    "HTTP-12 100 KB query": (b"GET /api/me?" + b"a" * 100_000 + b" HTTP/1.1\r\n" + END, {0, 400, 401, 414}),
    "CK-08 64 KB cookies": (b"GET /api/me HTTP/1.1\r\nCookie: " + b"a=b; " * 13_000 + b"\r\n" + END, {400, 401, 431}),
    "HTTP-13 latin-1": (b"GET /api/me HTTP/1.1\r\nX-A: \xe9\xff\r\nCookie: routeguard=\xe9\r\n" + END, {400, 401}),
    "HTTP-13 UTF-8": ("GET /api/me HTTP/1.1\r\nX-A: é\r\nCookie: é=é\r\n".encode() + END, {400, 401}),
    "HTTP-13 NUL": (b"GET /api/me HTTP/1.1\r\nX-A: a\x00b\r\n" + END, {400}),
    "HTTP-13 DEL": (b"GET /api/me HTTP/1.1\r\nX-A: a\x7fb\r\n" + END, {400, 401}),
    "HTTP-13 lone CR": (b"GET /api/me HTTP/1.1\r\nX-A: a\rb: c\r\n" + END, {400}),
    "HTTP-13 path bytes": (b"GET /\xff\xfe HTTP/1.1\r\n" + END, {400, 404}),
    "HTTP-13 path percent": (b"GET /api/invoices/%ff%fe HTTP/1.1\r\n" + END, {400, 401, 404}),
    "HTTP-13 name": (b"GET /api/me HTTP/1.1\r\nX-\xe9: a\r\n" + END, {400, 401}),
    "HTTP-12 no length": (b"POST /auth/sign-in HTTP/1.1\r\nTransfer-Encoding: chunked, chunked\r\n" + END, {400, 501}),
    "HTTP-12 two lengths": (b"POST /auth/sign-in HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: 3\r\n" + END, {400}),
}


@pytest.mark.parametrize("case", REQUESTS)
def test_a_strange_request_to_the_server_we_run(server: Running, case: str) -> None:
    data, statuses = REQUESTS[case]
    answer = talk(server, data)
    assert status_of(answer) in statuses, (status_of(answer), answer[:300])
    assert b"Traceback" not in answer
    assert b"cookie: a=b" not in answer.lower()
    # The twin, and that the process lives.
    assert status_of(talk(server, b"GET /healthz HTTP/1.1\r\n" + END)) == 200


@pytest.mark.parametrize("name", [*MISFRAMED, *KINDLY_READ])
def test_no_request_hides_in_another(server: Running, name: str) -> None:
    """RFC 9112 section 6.1: the server we run refuses what can be divided in two ways, and closes."""
    hidden = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    for target in ("/auth/sign-in", "/nowhere", "/api/me"):
        answer = talk(server, request(target, *(MISFRAMED | KINDLY_READ)[name]) + hidden, wait=60)
        assert status_of(answer) == 400, answer[:300]
        assert answer.count(b"HTTP/1.1 ") == 1, answer
        assert b"connection: close\r\n" in answer.lower()


def test_a_client_who_hangs_up_on_the_server(server: Running) -> None:
    """HTTP-10: in the middle of the line, of the fields and of the body; nobody's answer is anybody's."""
    host, _, port = server.url.removeprefix("http://").rpartition(":")
    body = b'{"email":"bob@example.com","password":"x"}'
    whole = (
        b"POST /auth/sign-in HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: "
        + str(len(body)).encode()
        + b"\r\n\r\n"
        + body
    )
    for cut in (1, 10, 40, len(whole) - len(body), len(whole) - 3, len(whole)):
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(whole[:cut])
    assert status_of(talk(server, b"GET /readyz HTTP/1.1\r\n" + END)) == 200


def test_no_strange_request_left_a_traceback(server: Running) -> None:
    """HTTP-13, HTTP-17: last in this module; the server's own words about all of the above."""
    assert "Traceback" not in server.output()
    assert "Exception" not in server.output()


async def test_the_database_knows_only_whole_people(world: World) -> None:
    """HTTP-10: after all of this module, each user has a hash."""
    async with world.database.read() as tx:
        count = await tx.scalar(sa.select(sa.func.count()).select_from(users))
    rows = await world.rows()
    assert count == len(rows["password_hashes"])
    assert (await send(world.app, "GET", "/healthz")).status == 200
