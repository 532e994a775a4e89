"""Key policies on routes of an application, and its own route for managing keys."""

# Annotations are evaluated here, not postponed: FastAPI reads them, and `Key` is a variable inside a function.
# pyright: reportInvalidTypeForm=false

import json
from collections.abc import AsyncIterator
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Request

from routeguard.api_keys.checks import ApiKeyRequired, api_key
from routeguard.api_keys.models import ApiKey
from routeguard.app import Routeguard
from routeguard.core.errors import ConfigError
from tests.attacks.world import Browser, World

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    async with World.open(tmp_path_factory.mktemp("keys")) as opened:
        _add_routes(opened.app, opened.guard)
        yield opened


def _add_routes(app: FastAPI, guard: Routeguard[Any]) -> None:
    Key = Annotated[ApiKey, Depends(guard.current_key)]  # noqa: N806 - a type

    @app.get("/reports")
    @guard(guard.api_key("reports:read"))
    async def reports(key: Key) -> dict[str, Any]:
        return {"key": key.id, "by": key.user_id}

    @app.get("/protected")
    @guard(guard.api_key(privilege="protected"))
    async def protected() -> dict[str, Any]:
        return {}

    @app.get("/custom")
    @guard(guard.api_key(privilege="custom"))
    async def custom() -> dict[str, Any]:
        return {}

    @app.get("/either")
    @guard(guard.api_key("reports:read") | guard.session())
    async def either() -> dict[str, Any]:
        return {}

    @app.post("/keys/{action}")
    @guard(guard.manage_api_keys(allowed=("create", "list", "rotate", "privilege"), update_to=("demo", "restricted")))
    async def keys(request: Request) -> dict[str, Any]:
        return {"result": await guard.managed_key(request)}

    @app.post("/every-key/{action}")
    @guard(guard.manage_api_keys())
    async def every_key(result: Annotated[dict[str, Any], Depends(guard.managed_key)]) -> dict[str, Any]:
        return {"result": result}


async def key_of(browser: Browser, **wished: Any) -> str:
    answer = await browser.post("/auth/api-keys", {"name": "robot"} | wished)
    assert answer.status == 201, answer.body
    return str(json.loads(answer.body)["key"])


@pytest.mark.parametrize(
    ("wished", "passes"),
    [
        ({"scopes": ["reports:read"]}, {"/reports", "/either", "/custom"}),
        ({"scopes": ["reports:*"], "privilege": "full"}, {"/reports", "/either", "/protected"}),
        ({"scopes": ["reports:write"]}, {"/custom"}),
        ({"privilege": "restricted"}, set()),
        ({"privilege": "protected"}, {"/protected"}),
        ({}, set()),
    ],
)
async def test_scopes_and_privileges_decide(
    world: World, alice: Browser, wished: dict[str, Any], passes: set[str]
) -> None:
    text = await key_of(alice, **wished)
    for path in ("/reports", "/either", "/protected", "/custom"):
        answer = await world.ask("GET", path, [("x-api-key", text)])
        assert answer.status == (200 if path in passes else 403), path
        if answer.status == 403:
            assert answer.problem == "insufficient-scope"


async def test_a_session_opens_what_either_opens_and_no_route_for_keys(world: World, alice: Browser) -> None:
    assert (await alice.get("/either")).status == 200
    assert (await alice.get("/reports")).status == 401
    assert (await world.ask("GET", "/either")).status == 401


async def test_the_check_ships_its_attacks(world: World) -> None:
    for attack in ApiKeyRequired().attacks():
        assert (await world.ask("GET", "/reports", attack.headers)).status == attack.status, attack.name


async def test_a_route_of_one_s_own_manages_the_caller_s_keys(world: World, alice: Browser, bob: Browser) -> None:
    made = await alice.post("/keys/create", {"name": "own"})
    assert made.status == 200
    key = json.loads(made.body)["result"]
    assert (await world.ask("GET", "/api/v1/data", [("x-api-key", key["key"])])).status == 200
    listed = json.loads((await alice.post("/keys/list", {})).body)["result"]
    assert key["id"] in {one["id"] for one in listed["api_keys"]}
    assert key["key"] not in json.dumps(listed)
    raised = await alice.post("/keys/privilege", {"id": key["id"], "privilege": "restricted"})
    assert json.loads(raised.body)["result"]["privilege"] == "restricted"
    for data in ({"id": key["id"], "privilege": "full"}, {"id": key["id"], "privilege": "custom"}):
        assert (await alice.post("/keys/privilege", data)).status == 403
    assert (await alice.post("/keys/create", {"name": "own", "privilege": "full"})).status == 403
    assert (await bob.post("/keys/rotate", {"id": key["id"]})).status == 404
    again = json.loads((await alice.post("/keys/rotate", {"id": key["id"]})).body)["result"]
    assert again["key"] != key["key"]


async def test_what_is_not_offered_is_404_and_nobody_else_gets_in(world: World, alice: Browser, guest: Browser) -> None:
    for action in ("revoke", "metadata", "networks", "destroy"):
        assert (await alice.post(f"/keys/{action}", {"id": "key_x"})).status == 404
    assert (await guest.post("/keys/list", {})).status == 401
    text = await key_of(alice, privilege="full")
    sent = [("x-api-key", text), ("content-type", "application/json")]
    assert (await world.ask("POST", "/keys/create", sent, body=b'{"name": "child"}')).status == 403
    assert (await alice.ask("POST", "/keys/list", origin="https://evil.example")).status == 403
    assert (await alice.post("/keys/create", {"name": "a" * 2048})).status == 413


async def test_every_action_works_as_a_dependency_too(alice: Browser) -> None:
    key = json.loads((await alice.post("/every-key/create", {"name": "own"})).body)["result"]

    async def did(action: str, **data: Any) -> Any:
        answer = await alice.post(f"/every-key/{action}", {"id": key["id"]} | data)
        assert answer.status == 200, (action, answer.body)
        return json.loads(answer.body)["result"]

    assert (await did("networks", networks=["192.0.2.1"]))["networks"] == ["192.0.2.1/32"]
    assert (await did("privilege", privilege="full"))["privilege"] == "full"
    assert (await did("rotate", overlap=60))["key"] != key["key"]
    assert (await did("metadata"))["valid"] is True
    assert (await did("revoke"))["valid"] is False


@pytest.mark.parametrize("wrong", [("two words",), ("*",), ("",)])
def test_words_that_are_no_scope_are_refused_at_once(wrong: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError):
        api_key(*wrong)


def test_a_policy_says_itself_in_words() -> None:
    assert api_key().describe() == "API key"
    assert api_key("a:b", privilege="demo").describe() == "API key, scope a:b, privilege demo or more"
    with pytest.raises(ConfigError):
        api_key(privilege="root")  # type: ignore[arg-type]
