"""What Swagger's Authorize sends for each security scheme opens the operations that name it, and no others."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any, Final

import pytest
from fastapi import FastAPI

from routeguard import Routeguard, Settings, public
from routeguard.protection.traffic.models import OFF, TrafficSettings
from tests.attacks.world import ORIGIN, SECRET
from tests.passwords.world import CHEAP, Mailbox
from tests.steady import PATIENT
from tests.tokens.app import SESSION, App

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from pathlib import Path

pytestmark = pytest.mark.anyio

SENT: Final = [
    (),
    ("session",),
    ("bearer",),
    ("apiKey",),
    ("apiKeyBearer",),
    ("session", "apiKey"),
    ("session", "apiKeyBearer"),
]
"""What may be filled in together."""
ROUTES: Final = ["session", "key", "either", "both", "optional", "public"]


def application(guard: Routeguard[Any]) -> FastAPI:
    app = FastAPI()
    policies = {
        "session": guard.session(),
        "key": guard.api_key(),
        "either": guard.session() | guard.api_key(),
        "both": guard.session() & guard.api_key(),
        "optional": guard.optional_session(),
        "public": public,
    }

    def route(name: str) -> None:
        @app.get(f"/{name}")
        @app.post(f"/{name}")
        @guard(policies[name])
        async def handler() -> str:
            return name

    for name in ROUTES:
        route(name)
    guard.install(app, docs=public)
    return app


@pytest.fixture(scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory, _migrated_sqlite: Path) -> AsyncIterator[App]:
    directory = tmp_path_factory.mktemp("authorize")
    path = shutil.copyfile(_migrated_sqlite, directory / "routeguard.db")
    guard: Routeguard[Any] = Routeguard(
        Settings(
            secret=SECRET,
            database_url=f"sqlite:///{path}",
            issuer=ORIGIN,
            passwords=CHEAP,
            environment="development",
            database=PATIENT,
            traffic=TrafficSettings(refresh=OFF, identity=OFF),
        )
    )
    made = App(application(guard), guard, directory, {}, Mailbox())
    await guard._start(True)
    try:
        yield made
    finally:
        await guard.close()


@pytest.fixture(scope="module")
async def values(world: App) -> dict[str, str]:
    """What somebody has for each scheme."""
    browser = await world.signed_in()
    token = json.loads((await browser.post("/auth/token", {})).body)["access_token"]
    made = await browser.post("/auth/api-keys", {"name": "robot"})
    assert made.status == 201, made.body
    key = json.loads(made.body)["key"]
    return {"session": browser.cookies[SESSION], "bearer": token, "apiKey": key, "apiKeyBearer": key}


def authorize(schemes: dict[str, Any], values: dict[str, str], names: Iterable[str]) -> list[tuple[str, str]]:
    """Return the fields that follow from the description alone."""
    fields = [("host", "127.0.0.1:8000"), ("origin", ORIGIN)]
    for name in names:
        scheme = schemes[name]
        if scheme["type"] == "http":
            assert scheme["scheme"] == "bearer"
            fields.append(("authorization", f"Bearer {values[name]}"))
        elif scheme["in"] == "cookie":
            fields.append(("cookie", f"{scheme['name']}={values[name]}"))
        else:
            assert scheme["in"] == "header"
            fields.append((scheme["name"], values[name]))
    return fields


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("route", ROUTES)
async def test_a_credential_opens_what_the_description_says(
    world: App, values: dict[str, str], route: str, method: str
) -> None:
    schema = json.loads((await world.ask("GET", "/openapi.json", authorize({}, {}, ()))).body)
    schemes = schema["components"]["securitySchemes"]
    assert set(schemes) == set(values)
    ways = schema["paths"][f"/{route}"][method.lower()].get("security", [{}])
    for names in SENT:
        answer = await world.ask(method, f"/{route}", authorize(schemes, values, names))
        expected = 200 if any(set(way) <= set(names) for way in ways) else 401
        assert answer.status == expected, (names, answer.body)
