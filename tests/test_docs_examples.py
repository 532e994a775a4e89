"""The examples, and every block of Python in README and docs, run as they stand; what they guard is guarded.

A block marked `python` is executed, after the blocks above it on its page; `python fragment` is only compiled.
"""

from __future__ import annotations

import ast
import importlib.util
import logging
import os
import re
import sys
from pathlib import Path
from types import ModuleType

import anyio
import pytest
from starlette.testclient import TestClient

from routeguard import Routeguard, Settings
from routeguard.core.clock import SystemClock
from routeguard.foundation.db.database import Database
from routeguard.foundation.db.migrate import migrate

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
BLOCK = re.compile(r"^```python( fragment)?\n(.*?)^```$", re.DOTALL | re.MULTILINE)
ORIGIN = "http://127.0.0.1:8000"
PASSWORD = "staple battery horse"


def blocks(page):
    return [(bool(fragment), code) for fragment, code in BLOCK.findall(page.read_text("utf-8"))]


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path, monkeypatch):
    """Work where a newcomer would: no settings, no database, no secret."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("ROUTEGUARD_")]:
        monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _logging_as_it_was():
    """Take back what pages say about logging: it is set for the whole process."""
    loggers = [logging.getLogger(name) for name in (None, "routeguard")]
    before = [(one.level, [*one.handlers]) for one in loggers]
    yield
    for one, (level, handlers) in zip(loggers, before, strict=True):
        one.setLevel(level)
        one.handlers[:] = handlers


def with_tables():
    async def work():
        database = Database(Settings().database_url, clock=SystemClock())
        await database.start()
        await migrate(database)
        await database.close()

    anyio.run(work)


def client(app):
    # A browser says where its requests come from; CSRF protection wants to know.
    return TestClient(app, base_url=ORIGIN, headers={"origin": ORIGIN})


def sign_up(http, email="ada@example.com"):
    made = http.post("/auth/sign-up", json={"email": email, "password": PASSWORD, "name": "Ada"})
    assert made.status_code == 201, made.text
    entered = http.post("/auth/sign-in", json={"email": email, "password": PASSWORD})
    assert entered.status_code == 200, entered.text


def run_page(page):
    module = ModuleType(f"docs_{page.stem.replace('-', '_')}")
    sys.modules[module.__name__] = module  # Dataclasses and FastAPI look up where a name was written.
    space = vars(module)
    space["made"] = []
    for number, (fragment, code) in enumerate(blocks(page), 1):
        compiled = compile(
            code, f"{page.name} block {number}", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT if fragment else 0
        )
        if not fragment:
            exec(compiled, space)
            if (pair := (space.get("guard"), space.get("app"))) not in space["made"]:
                space["made"].append(pair)
    return space


def load(name):
    path = ROOT / "examples" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"examples_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def is_undecided(guard):
    return [row for row in guard.matrix() if row.source == "undecided"]


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=lambda path: str(path.relative_to(ROOT)))
def test_the_code_of_a_page_runs_and_its_application_starts(page):
    with_tables()
    for guard, app in run_page(page)["made"]:
        if isinstance(guard, Routeguard) and app is not None and guard.matrix():
            with client(app) as http:  # Start-up verification finds no hole, or this raises.
                assert http.get("/no-such-page").status_code == 404


def test_the_tests_of_a_page_pass():
    space = run_page(ROOT / "docs" / "how-to" / "start-stop-and-test.md")
    tests = [value for name, value in space.items() if name.startswith("test_")]
    assert [test.__name__ for test in tests] == ["test_home", "test_orders", "test_notes"]
    for test in tests:
        test()


def test_the_readme_example_does_what_it_says():
    with_tables()
    with client(run_page(ROOT / "README.md")["app"]) as http:
        assert http.get("/me").status_code == 401
        sign_up(http)
        assert http.get("/me").json() == {"email": "ada@example.com"}
        assert http.get("/admin").status_code == 403
        http.post("/auth/sign-out")
        assert http.get("/me").status_code == 401


def test_the_fastapi_example():
    with_tables()
    example = load("fastapi")
    with client(example.app) as http:
        assert is_undecided(example.guard) == []
        assert http.get("/").status_code == 200
        assert http.get("/notes").status_code == 401
        assert http.post("/notes", content=b"{").status_code == 401, "the body is not even read"
        sign_up(http)
        assert http.post("/notes", json={"text": "milk"}).status_code == 201
        assert http.post("/notes", json={"text": "x" * 5000}).status_code == 413
        assert http.post("/notes", json={"text": "x"}, headers={"origin": "https://evil.example"}).status_code == 403
        assert http.get("/notes").json() == [{"text": "milk"}]
        assert http.get("/report").status_code == 403
        with http.websocket_connect("ws://127.0.0.1:8000/echo") as socket:
            socket.send_text("hello")
            assert socket.receive_text() == "ada@example.com: hello"
        assert http.delete("/notes").status_code == 204
        assert http.get("/notes").json() == []


def test_the_starlette_example():
    example = load("starlette")
    ada, bob = ({"authorization": f"Bearer key-of-{name}"} for name in ("ada", "bob"))
    with client(example.app) as http:
        assert is_undecided(example.guard) == []
        assert http.get("/me").status_code == 401
        assert http.get("/me", headers=bob).json() == {"name": "Bob"}
        assert [http.get("/menu", headers=who).json()["for"] for who in ({}, ada)] == ["guests", "Ada"]
        assert [http.get("/admin/report", headers=who).status_code for who in ({}, bob, ada)] == [401, 403, 200]
        assert http.post("/transfers", json={"amount": 5}).status_code == 401
        assert http.post("/transfers", json={"amount": 5000}, headers=bob).status_code == 403
        assert http.post("/transfers", json={"amount": 5000}, headers=ada).status_code == 201
        assert http.post("/transfers", content=b"{", headers=ada).status_code == 422


@pytest.mark.parametrize("name", ["fastapi", "starlette"])
def test_an_example_is_short(name):
    assert len((ROOT / "examples" / f"{name}.py").read_text("utf-8").splitlines()) <= 80
