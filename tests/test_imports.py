"""What `import routeguard` loads: no framework, no database, and nothing that only an extra brings."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import packages_distributions, requires

from packaging.requirements import Requirement

_REFUSED = """
import sys

class Refused:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {refused!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Refused())
"""
_LOADED = """
import json
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules} - {"__main__", *sys.stdlib_module_names})))
"""


def base_install():
    """Return the distributions that `pip install routeguard` brings."""
    found, pending = set(), ["routeguard"]
    while pending:
        name = pending.pop()
        if name not in found:
            found.add(name)
            needed = map(Requirement, requires(name) or ())
            pending += [one.name for one in needed if one.marker is None or one.marker.evaluate({"extra": ""})]
    return {name.lower().replace("_", "-") for name in found}


def refused():
    """Return the modules here that the base install would not have."""
    base = base_install()
    return {
        module
        for module, distributions in packages_distributions().items()
        if not any(name.lower().replace("_", "-") in base for name in distributions)
    } - set(sys.stdlib_module_names)


def run(code, *, refusing=frozenset()):
    code = _REFUSED.format(refused=refusing) + code
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_the_package_by_itself_loads_nothing():
    assert run("import routeguard" + _LOADED) == ["routeguard"]
    code = "import routeguard, json; print(json.dumps([name for name in sys.modules if name.startswith('routeguard')]))"
    assert run(code) == ["routeguard"]


def test_a_guard_is_imported_without_a_framework_or_a_database():
    loaded = run("from routeguard import *; Routeguard" + _LOADED)
    assert set(loaded) & refused() <= {"sniffio"}  # By anyio, where there is one.
    assert set(loaded) >= {"anyio", "msgspec"}


def test_every_public_name_is_there_in_the_base_install():
    absent = refused()
    assert {"starlette", "fastapi", "sqlalchemy", "cryptography", "joserfc", "pydantic"} <= absent
    code = "import routeguard, json; print(json.dumps([str(getattr(routeguard, n)) for n in routeguard.__all__]))"
    assert len(run(code, refusing=absent)) > 50
    testing = "from routeguard.testing import acting_as, key_for, session_for; print('[]')"
    assert run(testing, refusing=absent) == []


_GUARDED = """
import asyncio, json
from types import SimpleNamespace
from routeguard import ConfigError, GuardNotApplied, Routeguard, Secret, Settings, public

async def identify(request):
    return SimpleNamespace(id="ada") if request.header("x-user") else None

guard = Routeguard(Settings(secret=Secret("s" * 32), environment="test"), identify=identify)

class Connection:
    def __init__(self, scope):
        self.scope = scope

async def app(scope, receive, send):
    if scope["path"] == "/open":
        await guard.require(Connection(scope), public)
    elif scope["path"] == "/mine":
        await guard.require(Connection(scope), guard.session())
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"told"})

async def ask(app, path, headers=()):
    sent = []
    async def receive():
        return {"type": "http.request", "body": b""}
    async def send(message):
        sent.append(message)
    scope = {"type": "http", "method": "GET", "path": path, "headers": list(headers), "http_version": "1.1"}
    await app(scope, receive, send)
    return sent[0]["status"]

async def main():
    guarded = guard.asgi(app)
    answers = [await ask(guarded, "/undecided"), await ask(guarded, "/mine")]
    answers.append(await ask(guarded, "/mine", [(b"x-user", b"ada")]))
    try:
        await ask(app, "/mine")
    except GuardNotApplied:
        answers.append("not installed")
    try:
        guard.install(app)
    except ConfigError:
        answers.append("no application")
    await guard.close()
    print(json.dumps(answers))

asyncio.run(main())
"""


def test_the_base_install_guards_an_application_of_no_framework():
    assert run(_GUARDED, refusing=refused()) == [500, 401, 200, "not installed", "no application"]


_FORGOTTEN = """
import json
from routeguard import Routeguard, Secret, Settings

guard = Routeguard(Settings(secret=Secret("s" * 32)), identify=lambda request: None)

@guard(guard.session())
async def marked(request):
    raise SystemExit("ran")

from starlette.applications import Starlette
from starlette.routing import Route
from starlette.testclient import TestClient

print(json.dumps(TestClient(Starlette(routes=[Route("/", marked)])).get("/").status_code))
"""


def test_a_mark_that_is_older_than_the_framework_holds_without_install():
    """AZ-13: what a handler was marked with does not depend on which module was imported first."""
    assert run(_FORGOTTEN) == 500
