"""A password that is changed while somebody signs in with the old one: no session of it is left."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import anyio
import pytest
import sqlalchemy as sa

from routeguard.identity.sessions.service import Sessions
from routeguard.identity.sessions.store import sessions
from tests.passwords.world import GOOD, World

pytestmark = pytest.mark.anyio

ADA = "ada@example.com"
NEW = "nine blue herons at dusk"


async def test_a_reset_waits_for_whoever_just_gave_the_old_password(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SES-09: between the look at the hash and the lock on the user nobody gets in; the reset ends what came of it."""
    await world.sign_up(ADA)
    token = await reset_token(world, ADA)
    service: Any = world.guard.services.get(Sessions)
    checked, go_on, real = anyio.Event(), anyio.Event(), service.sign_in_user

    async def slowly(tx: Any, user_id: str) -> Any:
        checked.set()
        await go_on.wait()
        return await real(tx, user_id)

    monkeypatch.setattr(service, "sign_in_user", slowly)
    signing_in = asyncio.ensure_future(world.sign_in(ADA))
    await checked.wait()
    resetting = asyncio.ensure_future(world.post("password/reset", {"token": token, "password": NEW}))
    # Long enough for a reset that does not wait to be over.
    await asyncio.wait([resetting], timeout=0.5)
    go_on.set()
    assert (await resetting).status_code == 204
    assert (await signing_in).status_code in {200, 401}
    assert await count(world) == 0


async def test_sign_ins_race_with_resets(world: World) -> None:
    """SES-09: whichever comes first, the old password opens nothing after the reset."""
    dice = random.Random(7)
    for number in range(12):
        # An account a round: the tries that fail would slow down the next round's.
        email = f"ada{number}@example.com"
        await world.sign_up(email)
        token = await reset_token(world, email)

        async def reset(token: str = token) -> int:
            await asyncio.sleep(dice.random() / 50)
            return (await world.post("password/reset", {"token": token, "password": NEW})).status_code

        done, *entered = await asyncio.gather(reset(), *(enter(world, email, browser) for browser in range(8)))
        assert done == 204
        assert set(entered) <= {200, 401}
        assert await count(world) == 0


async def test_a_change_leaves_only_the_session_it_was_made_in(world: World) -> None:
    """SES-09."""
    async with world.signed_in(ADA) as client:

        async def change() -> int:
            body = {"current_password": GOOD, "new_password": NEW}
            return (await client.post("/auth/password/change", json=body)).status_code

        done, *entered = await asyncio.gather(change(), *(enter(world, ADA, browser) for browser in range(8)))
        assert done == 204
        assert set(entered) <= {200, 401}
        assert await count(world) == 1
        assert (await client.get("/auth/session")).status_code == 200


async def enter(world: World, email: str, browser: int) -> int:
    """Sign in from a browser of its own, so that it joins nobody else's request."""
    async with world.client(**{"user-agent": f"browser {browser}"}) as client:
        return (await client.post("/auth/sign-in", json={"email": email, "password": GOOD})).status_code


async def reset_token(world: World, email: str) -> str:
    # The mail of the sign-up first: it holds a token too.
    await world.settle()
    await world.post("password/forgot", {"email": email})
    await world.settle()
    return world.mailbox.token(email)


async def count(world: World) -> int:
    async with world.database.read() as tx:
        found: int = await tx.scalar(sa.select(sa.func.count()).select_from(sessions))
    return found
