"""OPS: every ending against every way in, listeners that fail, and a database that forgot its last writes."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import pytest
import sqlalchemy as sa

from routeguard.foundation.db.outbox import Outbox, outbox
from routeguard.identity.sessions.models import SessionStarted
from routeguard.identity.sessions.store import sessions
from routeguard.identity.users.service import Users
from tests.attacks.world import COOKIE, Browser, World
from tests.conformance.wire import Result, connect
from tests.steady import until

pytestmark = pytest.mark.anyio

ACCESS, REFRESH = f"{COOKIE}-access", f"{COOKIE}-refresh"
OTHER: Final = "seven grey herons at dawn"


class Loot:
    """All that can be copied from one browser."""

    def __init__(self, world: World, cookies: dict[str, str], pairs: list[dict[str, str]]) -> None:
        self.world = world
        self.cookies = cookies
        self.pairs = pairs

    @classmethod
    async def of(cls, browser: Browser) -> Loot:
        answer = await browser.post("/auth/token", {"cookies": True})
        assert {ACCESS, REFRESH} <= browser.cookies.keys(), answer.body
        pairs = [json.loads((await browser.post("/auth/token", {})).body) for _ in range(2)]
        return cls(browser.world, dict(browser.cookies), pairs)

    def thief(self, *names: str) -> Browser:
        return Browser(self.world, {name: self.cookies[name] for name in names})

    def bearer(self) -> tuple[str, str]:
        return ("authorization", f"Bearer {self.pairs[0]['access_token']}")

    async def bearer_socket(self) -> Result:
        raw = [(name.encode(), value.encode()) for name, value in Browser(self.world).headers(self.bearer())]
        return await connect(self.world.app, "/ws/chat", raw)

    def spend(self) -> Awaitable[Result]:
        return Browser(self.world).post("/auth/token/refresh", {"refresh_token": self.pairs.pop()["refresh_token"]})


WAYS_IN: dict[str, Callable[[Loot], Awaitable[Result]]] = {
    "cookie": lambda loot: loot.thief(COOKIE).get("/api/me"),
    "cookie on a mixed route": lambda loot: loot.thief(COOKIE).get("/api/v1/data"),
    "cookie on our own route": lambda loot: loot.thief(COOKIE).get("/auth/session"),
    "cookie for tokens": lambda loot: loot.thief(COOKIE).post("/auth/token", {}),
    "cookie for a key": lambda loot: loot.thief(COOKIE).post("/auth/api-keys", {"name": "robot"}),
    "bearer": lambda loot: Browser(loot.world).get("/api/me", loot.bearer()),
    "bearer on a mixed route": lambda loot: Browser(loot.world).get("/api/v1/data", loot.bearer()),
    "bearer on our own route": lambda loot: Browser(loot.world).get("/auth/session", loot.bearer()),
    "access cookie": lambda loot: loot.thief(ACCESS).get("/api/me"),
    "both token cookies": lambda loot: loot.thief(ACCESS, REFRESH).get("/api/me"),
    "all cookies": lambda loot: loot.thief(COOKIE, ACCESS, REFRESH).get("/api/me"),
    "refresh token": lambda loot: loot.spend(),
    "socket by cookie": lambda loot: loot.thief(COOKIE).socket(),
    "socket by access cookie": lambda loot: loot.thief(ACCESS).socket(),
    "socket by bearer": lambda loot: loot.bearer_socket(),
    # Last of the twins, for it spends what the copy holds; afterwards the copy has the spent one.
    "refresh cookie": lambda loot: loot.thief(REFRESH).get("/api/me"),
}


def let_in(answer: Result) -> bool:
    return answer.status in {200, 201} or answer.sent[0]["type"] == "websocket.accept"


async def _user(world: World, browser: Browser, change: str) -> None:
    async with world.database.transaction() as tx:
        await getattr(world.guard.services.get(Users), change)(tx, browser.id)


async def _one_of_the_list(world: World, browser: Browser) -> None:
    async with world.database.read() as tx:
        mine = await tx.scalar(sa.select(sessions.c.id).where(sessions.c.user_id == browser.id))
    other = await world.browser("alice")
    assert (await other.ask("DELETE", f"/auth/sessions/{mine}")).status == 204


async def _password(world: World, browser: Browser) -> None:
    other = await world.browser("alice")
    body = {"current_password": world.passwords["alice"], "new_password": OTHER}
    assert (await other.post("/auth/password/change", body)).status == 204


async def _sign_out(world: World, browser: Browser, way: str) -> None:
    assert (await browser.post(way, {})).status == 204


ENDINGS: dict[str, Callable[[World, Browser], Awaitable[None]]] = {
    "sign-out": lambda world, browser: _sign_out(world, browser, "/auth/sign-out"),
    "sign-out-everywhere": lambda world, browser: _sign_out(world, browser, "/auth/sign-out-everywhere"),
    "revoked in the list": _one_of_the_list,
    "password changed": _password,
    "suspended": lambda world, browser: _user(world, browser, "suspend"),
    "deleted": lambda world, browser: _user(world, browser, "delete"),
}


@pytest.mark.parametrize("ending", ENDINGS)
async def test_what_has_ended_has_ended_on_every_way(ending: str, tmp_path: Path) -> None:
    """OPS-24: the hole in one of them is looked for in all of them; each was open before."""
    async with World.open(tmp_path) as world:
        browser = await world.browser("alice")
        loot = await Loot.of(browser)
        for name, way in WAYS_IN.items():
            assert let_in(await way(loot)), name
        # Unspent ones, for the second round.
        loot = await Loot.of(browser)
        await ENDINGS[ending](world, browser)
        for name, way in WAYS_IN.items():
            world.calm()
            answer = await way(loot)
            assert not let_in(answer), name
            assert answer.status in {0, 401}, (name, answer.status)


KEY_WAYS: dict[str, Callable[[World, str], Awaitable[Result]]] = {
    "x-api-key": lambda world, key: Browser(world).get("/api/v1/data", ("x-api-key", key)),
    "bearer": lambda world, key: Browser(world).get("/api/v1/data", ("authorization", f"Bearer {key}")),
    "verify by header": lambda world, key: Browser(world).post("/auth/api-keys/verify", {}, ("x-api-key", key)),
    "verify by bearer": lambda world, key: Browser(world).post(
        "/auth/api-keys/verify", {}, ("authorization", f"Bearer {key}")
    ),
    "verify by body": lambda world, key: Browser(world).post("/auth/api-keys/verify", {"key": key}),
}


@pytest.mark.parametrize("ending", ["revoked", "rotated", "suspend", "delete"])
async def test_an_ended_key_is_ended_on_every_way(ending: str, tmp_path: Path) -> None:
    """OPS-24"""
    async with World.open(tmp_path) as world:
        alice = await world.browser("alice")
        made = json.loads((await alice.post("/auth/api-keys", {"name": "robot"})).body)
        for name, way in KEY_WAYS.items():
            assert (await way(world, made["key"])).status == 200, name
        if ending == "revoked":
            assert (await alice.ask("DELETE", f"/auth/api-keys/{made['id']}")).status == 204
        elif ending == "rotated":
            assert let_in(await alice.post(f"/auth/api-keys/{made['id']}/rotate", {"overlap": 0}))
        else:
            await _user(world, alice, ending)
        for name, way in KEY_WAYS.items():
            world.calm()
            assert (await way(world, made["key"])).status == 401, name


async def test_a_listener_that_fails_blocks_nobody(tmp_path: Path) -> None:
    """OPS-18: one that raises and one that hangs; people sign in, others hear of it, and what is kept is bounded."""
    async with World.open(tmp_path) as world:
        box = world.guard.services.get(Outbox)
        away, heard, late = True, [], []
        flying, most, release = 0, 0, asyncio.Event()

        async def good(event: SessionStarted) -> None:
            heard.append(event.session_id)

        async def fails(event: SessionStarted) -> None:
            if away:
                raise ConnectionError("the sink is away")
            late.append(event.session_id)

        async def hangs(event: SessionStarted) -> None:
            nonlocal flying, most
            flying += 1
            most = max(most, flying)
            await release.wait()
            flying -= 1

        for number, listener in enumerate((good, fails, hangs)):
            box.on(SessionStarted, listener, name=f"test-{number}")
        for _ in range(12):
            assert (await (await world.browser("alice")).get("/api/me")).status == 200
        await until(lambda: len(set(heard)) == 12)
        assert most <= 16
        # One row for each of them that has not heard, and no more.
        for _ in range(1000):
            if len(await _rows(world)) == 24:
                break
            await asyncio.sleep(0.02)
        assert len(await _rows(world)) == 24
        release.set()
        away = False
        for _ in range(1000):
            async with world.database.transaction() as tx:
                await tx.execute(sa.update(outbox).where(outbox.c.kind.contains("test-1")).values(due_at=0.0))
            await box.deliver_due()
            if not await _rows(world):
                break
            await asyncio.sleep(0.05)
        assert await _rows(world) == []
        assert set(late) == set(heard)


async def _rows(world: World) -> list[Any]:
    async with world.database.read() as tx:
        return list(await tx.all(sa.select(outbox.c.id).where(outbox.c.kind.contains("test-"))))


async def test_a_copy_that_missed_the_last_writes(tmp_path: Path) -> None:
    """OPS-05: clients go on with the tokens they hold, theft is told, and what was revoked since is undone, as said."""
    before, after = tmp_path / "before", tmp_path / "after"
    before.mkdir()
    async with World.open(before) as world:
        alice, gone = await world.browser("alice"), await world.browser("bob")
        first = json.loads((await alice.post("/auth/token", {})).body)["refresh_token"]
    shutil.copytree(before, after)
    async with World.open(before) as world:
        second = await _successor(world, first)
        third = await _successor(world, second)
        gone.world = world
        copy = Browser(world, dict(gone.cookies))
        await _sign_out(world, gone, "/auth/sign-out")
        assert (await copy.get("/api/me")).status == 401
    async with World.open(after) as world:
        # Lost with the writes (docs/explanation/threat-model.md), and ended again by whoever knows of it.
        copy.world = world
        assert (await copy.get("/api/me")).status == 200
        await _sign_out(world, Browser(world, dict(copy.cookies)), "/auth/sign-out")
        assert (await copy.get("/api/me")).status == 401
        fourth = await _successor(world, third)
        assert len({first, second, third, fourth}) == 4
        stolen = await _refresh(world, second)
        assert stolen.status == 401
        assert (await _refresh(world, fourth)).status == 401


def _refresh(world: World, token: str) -> Awaitable[Result]:
    return Browser(world).post("/auth/token/refresh", {"refresh_token": token})


async def _successor(world: World, token: str) -> str:
    answer = await _refresh(world, token)
    assert answer.status == 200, answer.body
    found: str = json.loads(answer.body)["refresh_token"]
    return found
