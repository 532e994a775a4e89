"""Key policies on routes of an application, and its own route for managing keys."""

# Annotations are evaluated here, not postponed: FastAPI reads them, and `Key` is a variable inside a function.
# pyright: reportInvalidTypeForm=false

import json
from collections.abc import AsyncIterator
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.routing import Mount, Route, Router

from routeguard.app import Routeguard
from routeguard.core.errors import ConfigError
from routeguard.core.policy import Policy
from routeguard.identity.api_keys.checks import ApiKeyRequired, api_key
from routeguard.identity.api_keys.models import ApiKey
from routeguard.protection.traffic.deduplicate import deduplicate
from routeguard.protection.traffic.idempotent import idempotent
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

    @app.post("/full-keys/{action}")
    @guard(guard.manage_api_keys(update_to=("full",)))
    async def full_keys(request: Request) -> dict[str, Any]:
        return await guard.managed_key(request)

    @app.post("/scoped-keys/{action}")
    @guard(guard.manage_api_keys(update_to=("custom",)))
    async def scoped_keys(request: Request) -> dict[str, Any]:
        return await guard.managed_key(request)

    @app.get("/branches")
    @guard(guard.api_key("a:read") | guard.api_key("b:read"))
    async def branches(key: Key) -> dict[str, Any]:
        return {"key": key.id}

    @app.get("/three")
    @guard(guard.api_key(privilege="full") | guard.session() | guard.api_key("a:read") | guard.api_key("b:read"))
    async def three() -> dict[str, Any]:
        return {}

    _add_mounts(app, guard)

    @app.post("/every-key/{action}")
    @guard(guard.manage_api_keys())
    async def every_key(result: Annotated[dict[str, Any], Depends(guard.managed_key)]) -> dict[str, Any]:
        return {"result": result}


def _add_mounts(app: FastAPI, guard: Routeguard[Any]) -> None:
    @guard(guard.api_key("a:read") | guard.api_key("b:read"))
    async def branches(_: Request) -> JSONResponse:
        return JSONResponse({})

    @guard(guard.manage_api_keys())
    async def keys(request: Request) -> JSONResponse:
        return JSONResponse({"total": (await guard.managed_key(request)).get("total")})

    mounted = guard(guard.api_key())(Router([Route("/branches", branches)]))
    kept = guard(guard.session() & idempotent())(Router([Route("/keys/{action}", keys, methods=["POST"])]))
    app.router.routes += [Mount("/mounted", app=mounted), Mount("/kept", app=kept)]


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


@pytest.mark.parametrize(
    ("wished", "status"),
    [
        ({}, 200),
        ({"privilege": "restricted"}, 200),
        ({"scopes": []}, 200),
        # Left out, the privilege of a key with scopes is custom; and no other one carries them in.
        ({"scopes": ["admin:write"]}, 403),
        ({"scopes": ["admin:write"], "privilege": "demo"}, 403),
        ({"scopes": ["admin:write"], "privilege": "custom"}, 403),
        ({"privilege": "protected"}, 403),
    ],
)
async def test_what_is_left_out_is_given_like_what_is_asked_for(
    alice: Browser, wished: dict[str, Any], status: int
) -> None:
    before = json.loads((await alice.get("/auth/api-keys")).body)["total"]
    answer = await alice.post("/keys/create", {"name": "own"} | wished)
    assert answer.status == status, answer.body
    assert json.loads((await alice.get("/auth/api-keys")).body)["total"] == before + (status == 200)


async def test_the_privilege_left_out_is_refused_where_it_is_not_given(alice: Browser) -> None:
    assert (await alice.post("/full-keys/create", {"name": "own"})).status == 403
    assert (await alice.post("/full-keys/create", {"name": "own", "privilege": "full"})).status == 200
    assert (await alice.post("/scoped-keys/create", {"name": "own", "scopes": ["a:b"]})).status == 200
    assert (await alice.post("/scoped-keys/create", {"name": "own"})).status == 403


PATHS = ["/branches", "/three", "/mounted/branches"]


@pytest.mark.parametrize("path", PATHS)
async def test_a_request_is_one_use_whatever_asks_for_its_key(world: World, alice: Browser, path: str) -> None:
    """KEY-13: branches of a `|`, and a mount and its route, look at one verdict; scopes are looked at each time."""
    answer = await alice.post("/auth/api-keys", {"name": "robot", "remaining": 3, "scopes": ["b:read"]})
    made = json.loads(answer.body)
    statuses = [(await world.ask("GET", path, [("x-api-key", made["key"])])).status for _ in range(4)]
    assert statuses == [200, 200, 200, 401]
    found = json.loads((await alice.get(f"/auth/api-keys/{made['id']}")).body)
    assert (found["remaining"], found["usage_count"]) == (0, 3)


@pytest.mark.parametrize("path", PATHS)
async def test_a_refused_request_is_one_use_too(world: World, alice: Browser, path: str) -> None:
    text = await key_of(alice, rate="2/hour", scopes=["c:read"])
    statuses = [(await world.ask("GET", path, [("x-api-key", text)])).status for _ in range(3)]
    assert statuses == [403, 403, 429]


async def test_a_made_up_key_is_one_failure(world: World) -> None:
    from_there = ("203.0.113.77", 4000)
    for expected in [401] * 10 + [429]:
        forged = [("x-api-key", "rg_test_typo")]
        assert (await world.ask("GET", "/branches", forged, client=from_there)).status == expected


@pytest.mark.parametrize("kept", [idempotent(), deduplicate(), deduplicate(share_cookies=True)], ids=["i", "d", "c"])
def test_no_answer_with_a_key_is_kept(world: World, kept: Policy) -> None:
    """KEY-15: it would be in clear in the store, and said again."""
    guard = world.guard
    managed = guard.manage_api_keys(allowed=("create",))
    for policy in (managed & kept, kept & managed, Policy.of(managed | guard.session()) & kept):
        with pytest.raises(ConfigError, match="manage_api_keys"):
            guard._guard.compile(policy, _handler, "http")


async def _handler(request: Request) -> None:
    """Answer nothing."""


async def test_no_mount_keeps_an_answer_with_a_key_either(world: World, alice: Browser) -> None:
    """KEY-15: no key is made there."""
    before = json.loads((await alice.get("/auth/api-keys")).body)["total"]
    sent = ("idempotency-key", '"abcdefgh12345678"')
    for action in ("create", "rotate"):
        assert (await alice.post(f"/kept/keys/{action}", {"name": "own"}, sent)).status == 500
    assert (await alice.post("/kept/keys/list", {}, ("idempotency-key", '"abcdefgh12345679"'))).status == 200
    assert json.loads((await alice.get("/auth/api-keys")).body)["total"] == before


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
