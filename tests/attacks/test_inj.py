"""INJ: what is typed stays text, everywhere it goes; and what is secret is found nowhere."""

from __future__ import annotations

import ast
import base64
import binascii
import json
import logging
import pickle
import secrets
from pathlib import Path
from typing import ClassVar
from urllib.parse import quote, urlencode

import pytest
import sqlalchemy as sa

import routeguard
from routeguard.core.exchange import Exchange
from routeguard.core.request import RequestView
from routeguard.identity.sessions.resolver import CookieSessions
from routeguard.identity.users.store import users
from tests.attacks.world import COOKIE, Browser, World
from tests.conformance.wire import Result
from tests.steady import work_within

pytestmark = pytest.mark.anyio

SOURCE = Path(routeguard.__file__).parent
FORM = ("content-type", "application/x-www-form-urlencoded")
PAGE = (("accept", "text/html"), ("sec-fetch-mode", "navigate"), ("sec-fetch-site", "same-origin"))

SQL = (
    "' OR '1'='1",
    "'; DROP TABLE users; --",
    '" OR ""="',
    "1; SELECT pg_sleep(5)",
    "%' OR 1=1 --",
    "%",
    "_",
    "\\",
    "') UNION SELECT hash FROM password_hashes --",
    "/**/OR/**/1",
    "' || (SELECT secret_hash FROM sessions) || '",
    "$1",
    ":id",
    "?",
    "%s",
    "%(id)s",
    "{id}",
    "0x27",
    "''''",
    "\u02bc OR 1",
    "\uff07 OR 1",
)


@pytest.mark.parametrize("text", SQL)
async def test_sql_in_every_string(world: World, text: str) -> None:
    """INJ-02: kept to the letter where text is taken, nobody where somebody is looked for."""
    alice, guest = await world.browser("alice"), Browser(world)
    world.calm()
    before = await world.rows()
    made = await alice.post("/api/invoices", {"title": text, "amount": 1})
    assert made.status == 201
    invoice = json.loads(made.body)
    assert invoice["title"] == text
    assert json.loads((await alice.get(f"/api/invoices/{invoice['id']}")).body)["title"] == text
    for target in (f"/api/invoices/{quote(text, '')}", f"/api/invoices/{invoice['id']}{quote(text, '')}"):
        assert (await alice.get(target)).status in {404, 405}
        assert (await alice.ask("DELETE", target)).status in {404, 405}
    assert (await alice.ask("DELETE", f"/auth/sessions/{quote(text, '')}")).status in {404, 405}
    assert (await alice.ask("DELETE", f"/api/invoices/{invoice['id']}")).status == 204
    for path, body in (
        ("/auth/sign-in", {"email": text, "password": text}),
        ("/auth/sign-in", {"email": f"bob{text}@example.com", "password": text}),
        ("/auth/sign-in", {"email": "bob@example.com", "password": text}),
        ("/auth/password/reset", {"token": text, "password": "seven grey herons at dawn"}),
        ("/auth/password/reset", {"token": f"{alice.id}.{text}", "password": "seven grey herons at dawn"}),
        ("/auth/email/verify", {"token": f"{alice.id}{text}.{text}"}),
    ):
        answer = await guest.post(path, body)
        assert answer.status in {400, 401, 422}, (path, answer.status, answer.body)
        assert b"SELECT" not in answer.body
    guest.cookies = {COOKIE: quote(text)}
    assert (await guest.get("/api/me")).status == 401
    assert await world.rows() == before


async def test_wildcards_find_nobody(world: World) -> None:
    """INJ-02: `%` and `_` stand for themselves in every look-up; there is none with LIKE."""
    guest = Browser(world)
    for email in ("%@example.com", "b_b@example.com", "bo%@example.com", "%%@%%.com"):
        answer = await guest.post("/auth/sign-in", {"email": email, "password": world.passwords["bob"]})
        assert answer.status in {401, 422}
    text = "".join(path.read_text("utf-8") for path in SOURCE.rglob("*.py"))
    assert ".like(" not in text
    assert ".ilike(" not in text


def trees() -> list[tuple[Path, ast.Module]]:
    return [(path, ast.parse(path.read_text("utf-8"))) for path in SOURCE.rglob("*.py")]


def test_no_query_is_made_of_text() -> None:
    """INJ-02, INJ-03: `text()` and `execute` take constants only; no name of a column comes from a caller."""
    looked = 0
    for path, tree in trees():
        if {"migrations", "migrate.py"} & set(path.parts):
            continue  # Run by operators, over names of our own.
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            if node.func.attr in {"text", "exec_driver_sql", "literal_column", "column", "getattr"} and node.args:
                if not (isinstance(node.func.value, ast.Name) and node.func.value.id in {"sa", "sqlalchemy"}):
                    continue
                looked += 1
                assert isinstance(node.args[0], ast.Constant), f"{path}:{node.lineno}"
    assert looked


def test_nothing_stored_is_ever_run() -> None:
    """INJ-09: no pickle, marshal, shelve, yaml; no eval, exec, compile; no format string that is not our own."""
    forbidden = {"pickle", "marshal", "shelve", "yaml", "dill", "jsonpickle", "cloudpickle"}
    for path, tree in trees():
        for node in ast.walk(tree):
            where = f"{path}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Import):
                assert not forbidden & {alias.name.partition(".")[0] for alias in node.names}, where
            if isinstance(node, ast.ImportFrom):
                assert (node.module or "").partition(".")[0] not in forbidden, where
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in {"eval", "exec", "__import__"}, where
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "format":
                own = isinstance(node.func.value, ast.Subscript) and ast.unparse(node.func.value.value).isupper()
                assert own or isinstance(node.func.value, ast.Constant), where


class Bomb:
    ran: ClassVar[list[str]] = []

    def __reduce__(self) -> object:
        return (Bomb.ran.append, ("ran",))


async def test_pickle_in_a_cookie_is_no_session(world: World) -> None:
    """INJ-09: whole, in base64, and in the place of an envelope's content."""
    alice = await world.browser("alice")
    whole = alice.cookies[COOKIE]
    head, _, mac = whole.rpartition(".")
    bomb = pickle.dumps(Bomb())
    for value in (bomb, base64.b64encode(bomb), base64.urlsafe_b64encode(bomb).rstrip(b"=")):
        text = value.decode("latin-1")
        for cookie in (text, f"{text}.{mac}", f"{head.partition('.')[0]}.{text}.{mac}"):
            guest = Browser(world, {COOKIE: cookie})
            assert (await guest.get("/api/me")).status == 401
    assert Bomb.ran == []


LONG = {
    "a": "a" * 50_000,
    "at": "@" * 50_000,
    "dots": "." * 50_000,
    "address": "a@" + "a." * 25_000 + "com",
    "quoted": '"' * 50_000,
    "blanks": " " * 50_000 + "x",
    "idn": "xn--" * 12_000 + ".com",
    "marks": "e\u0301" * 20_000,
    "ua": "Mozilla/5.0 (" + "Windows NT 10.0; " * 3_000,
    "slashes": "/" * 50_000,
    "percent": "%25" * 16_000,
    "nfkc": "\ufdfa" * 16_000,
}


@pytest.mark.parametrize("name", LONG)
async def test_long_input_takes_no_time(world: World, name: str) -> None:
    """INJ-04: 50 KB at every parser a stranger reaches, each in less time than one password hash takes."""
    guest, text = Browser(world), LONG[name]
    ascii_text = text.encode("ascii", "ignore").decode()
    with work_within(1):
        for path, body in (
            ("/auth/sign-in", {"email": text, "password": "x"}),
            ("/auth/sign-up", {"email": text, "password": "x", "name": text}),
            ("/auth/sign-up", {"email": "a@example.com", "password": "x", "name": text}),
            ("/auth/password/forgot", {"email": f"{text}@example.com"}),
            ("/auth/email/verify", {"token": text}),
            ("/auth/password/reset", {"token": text, "password": text}),
        ):
            # An address that is good but for the blanks before it is one, and may be nobody's.
            assert (await guest.post(path, body)).status in {202, 400, 401, 413, 422}, path
        for field in ("user-agent", "accept", "origin", "cookie", "authorization", "x-csrf-token", "forwarded", "host"):
            headers = [("x-forwarded-for", ascii_text), (field, ascii_text)]
            assert (await world.ask("GET", "/auth/sign-in", headers)).status < 500
            assert (await world.ask("POST", "/auth/sign-out", headers)).status < 500
        assert (await guest.get(f"/auth/sign-in?next=/{quote(text)}")).status == 200


TEMPLATES = "{{7*7}} ${7*7} #{7*7} <%= 7*7 %> {% raw %} %s %(email)s {email} {0.__class__} <b>x</b> \u202e &amp;"


async def test_template_syntax_in_a_name_is_a_name(world: World) -> None:
    """INJ-05: on every page and in every mail that shows it."""
    password = "seven grey herons at dawn"
    guest = Browser(world)
    answer = await guest.post("/auth/sign-up", {"email": "tem@example.com", "password": password, "name": TEMPLATES})
    if answer.status == 422:  # Of this very text only the direction mark is refused.
        name = TEMPLATES.replace("\u202e ", "")
        answer = await guest.post("/auth/sign-up", {"email": "tem@example.com", "password": password, "name": name})
    assert answer.status == 201, answer.body
    async with world.database.transaction() as tx:
        await tx.execute(sa.update(users).where(users.c.email == "tem@example.com").values(email_verified=True))
        name = await tx.scalar(sa.select(users.c.name).where(users.c.email == "tem@example.com"))
    assert "{{7*7}}" in name
    assert (await guest.post("/auth/sign-in", {"email": "tem@example.com", "password": password})).status == 200
    for path in ("/", "/account", "/account/name"):
        page = await guest.get(path, *PAGE)
        assert page.status == 200
        assert b"<b>x</b>" not in page.body
        assert b"49" not in page.body.replace(b"nonce", b"").split(b"{{7*7}}")[0][-40:]
        if path != "/":
            assert b"{{7*7}} ${7*7} #{7*7} &lt;%= 7*7 %&gt;" in page.body, path
    world.mailbox.messages.clear()
    changed = {"current_password": password, "new_password": password + " again"}
    assert (await guest.post("/auth/password/change", changed)).status == 204
    await settle(world)
    (mail,) = world.mailbox.to("tem@example.com")
    assert name in mail.text
    assert "<b>x</b>" not in (mail.html or "")
    assert "{{7*7}}" in (mail.html or "")


async def settle(world: World) -> None:
    from routeguard.foundation.db.outbox import Outbox, outbox

    box = world.guard.services.get(Outbox)
    for _ in range(200):
        await box.deliver_due()
        async with world.database.read() as tx:
            if not await tx.scalar(sa.select(sa.func.count()).select_from(outbox)):
                return
    raise AssertionError("the outbox did not empty")


# -- the canary -----------------------------------------------------------------------------------------------------


def spellings(secret: str | bytes) -> set[bytes]:
    """Return a secret as it would look in a log, a dump or an answer, whoever encoded it."""
    raw = secret.encode() if isinstance(secret, str) else secret
    found = {raw, binascii.hexlify(raw), binascii.hexlify(raw).upper(), quote(raw).encode(), quote(raw, "").encode()}
    for lead in range(3):  # base64 of a text that holds it somewhere
        # The two letters at each end are made of what stands around.
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            encoded = encode(b"\x00" * lead + raw).rstrip(b"=")
            found.add(encoded[4 if lead else 0 : -2])
    found.add(json.dumps(raw.decode("latin-1"))[1:-1].encode())
    return {one for one in found if len(one) >= 12}


def assert_clean(where: str, text: bytes, planted: dict[str, set[bytes]]) -> None:
    for name, forms in planted.items():
        for form in forms:
            assert form not in text, f"{name} as {form[:12]!r}... is in {where}"


def test_the_search_finds_what_it_looks_for() -> None:
    """INJ-07: the twin; a search that finds nothing anywhere proves nothing."""
    secret = secrets.token_urlsafe(24)
    for text in (
        secret,
        secret.encode().hex(),
        base64.b64encode(f"ab{secret}cd".encode()).decode(),
        quote(secret),
        base64.urlsafe_b64encode(f"x{secret}".encode()).decode(),
    ):
        with pytest.raises(AssertionError):
            assert_clean("here", f"<{text}>".encode(), {"secret": spellings(secret)})


def said(answer: Result) -> bytes:
    return answer.body + repr(answer.sent[0].get("headers")).encode()


async def test_no_secret_is_found_anywhere(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """INJ-07, PW-13, SES-22: planted in every place of every route, found in no log, answer, mail or dump."""
    caplog.set_level(logging.DEBUG)
    password = f"pw-{secrets.token_urlsafe(24)}"
    email = "canary@example.com"
    guest = Browser(world)
    assert (await guest.post("/auth/sign-up", {"email": email, "password": password, "name": "C"})).status == 201
    browser = Browser(world)
    assert (await browser.post("/auth/sign-in", {"email": email, "password": password})).status == 200
    cookie = browser.cookies[COOKIE]
    csrf = json.loads((await browser.get("/auth/csrf")).body)["csrf_token"]
    assert (await guest.post("/auth/password/forgot", {"email": email})).status == 202
    # While the link is under way: the outbox holds it, sealed.
    waiting = await world.dump()
    await settle(world)
    token = world.mailbox.token(email)
    world.mailbox.messages.clear()
    raw = [(b"cookie", f"{COOKIE}={cookie}".encode())]
    view = RequestView.from_scope({"type": "http", "method": "GET", "path": "/", "headers": raw})
    envelope = world.guard.services.get(CookieSessions).presented(Exchange(view))
    assert envelope is not None
    planted = {
        "the password": spellings(password),
        "the cookie": spellings(cookie),
        "the session's secret": spellings(envelope.secret),
        "the reset token": spellings(token.partition(".")[2]),
        "the CSRF token": spellings(csrf),
        "our own secret": spellings(b"kR2v_9qLm4tXw7Zs-Jd81hPbNfYcVuGa0oE5iT3"),
    }
    assert_clean("the database while mail waits", waiting, planted)
    asked = 0
    for row in world.routes():
        path = row.path.replace("{invoice_id}", "x").replace("{id:str}", "x").replace("{id}", "x")
        for secret in (password, cookie, token, csrf):
            # In every field a client might put it by mistake, and in those it belongs in.
            fields = ("password", "token", "current_password", "new_password", "title", "amount", secret)
            body = json.dumps(dict.fromkeys(fields, secret)).encode()
            form = urlencode(dict.fromkeys(("password", "new_password", "current_password", secret), secret)).encode()
            answers = [
                await guest.ask(row.method, path, ("content-type", "application/json"), body=body),
                await guest.ask(row.method, path, FORM, *PAGE, body=form),
                await guest.ask(row.method, f"{path}?password={secret}&session={secret}"),
                await guest.ask(row.method, path, ("authorization", f"Bearer {secret}"), ("x-csrf-token", secret)),
                await guest.ask(row.method, path, ("x-api-key", secret), ("user-agent", "x"), ("x-request-id", secret)),
                await Browser(world, {COOKIE: secret + "x", "routeguard-csrf": secret}).ask(row.method, path),
            ]
            for answer in answers:
                asked += 1
                assert answer.status < 500, (row, answer.status)
                assert answer.error is None
                shown = dict(planted)
                if answer.status == 303 and b"next=" in said(answer):
                    continue  # To sign-in and back to the very address the caller asked for.
                assert_clean(f"{row.method} {path}: {answer.status}", said(answer), shown)
    assert asked > 500
    # And where they belong: the answers are right, and hold no secret but the next cookie.
    refused = {"email": email, "password": password + "x"}
    assert_clean("a refusal", said(await guest.post("/auth/sign-in", refused)), planted)
    assert (await browser.get("/api/me")).status == 200
    answer = await guest.post("/auth/password/reset", {"token": token, "password": password + "-new"})
    assert answer.status == 204
    assert_clean("the reset", said(answer), planted)
    await settle(world)
    assert_clean("the mails", repr(world.mailbox.messages).encode(), planted)
    assert_clean("the database", await world.dump(), planted)
    logs = caplog.text + "".join(repr(vars(record)) for record in caplog.records)
    assert caplog.records
    assert_clean("the log", logs.encode(), planted)
    services = repr([vars(world.guard.settings) if hasattr(world.guard.settings, "__dict__") else world.guard.settings])
    assert_clean("what objects print", services.encode(), planted)
