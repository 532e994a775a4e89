"""Links that are under way end with the password, the address and the standing of their user, on both databases."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from routeguard.cli.accounts import set_password
from routeguard.core.endings import Ending
from routeguard.identity.emails.service import CHANGE
from routeguard.identity.passwords.service import RESET
from routeguard.identity.users.addresses import read_email
from tests.passwords.world import GOOD, World
from tests.rounds import rounds

pytestmark = pytest.mark.anyio

NEW = "nine slow otters at dusk"


async def issue_reset(world: World) -> str:
    await world.post("password/forgot", {"email": "ada@example.com"})
    await world.settle()
    return world.mailbox.token("ada@example.com")


@rounds(4, 60)
async def test_of_a_reset_and_a_change_at_once_one_wins(world: World, rounds: int):
    """ML-15: the owner changes the password while somebody opens a link from before."""
    password = GOOD
    async with world.signed_in("ada@example.com"):
        pass
    user = await world.user("ada@example.com")
    for number in range(rounds):
        # Not by mail, of which a mailbox gets five an hour.
        async with world.database.transaction() as tx:
            data = {"email": user.email}
            token = await world.tokens.issue(tx, RESET, user.id, ttl=timedelta(hours=1), data=data)
        async with world.client() as client:
            await client.post("/auth/sign-in", json={"email": "ada@example.com", "password": password})
            changed, reset = f"{NEW} {number} changed", f"{NEW} {number} reset"
            works = [
                client.post("/auth/password/change", json={"current_password": password, "new_password": changed}),
                world.post("password/reset", {"token": token, "password": reset}),
            ]
            answers = await asyncio.gather(*works)
        codes = [answer.status_code for answer in answers]
        assert codes in ([204, 400], [401, 204]), [answer.text for answer in answers]
        password = changed if codes[0] == 204 else reset
        assert (await world.sign_in("ada@example.com", password)).status_code == 200
        assert (await world.post("password/reset", {"token": token, "password": NEW})).status_code == 400


@pytest.mark.parametrize("way", ["change", "reset", "by hand", "contested"])
async def test_another_password_voids_all_that_ends_with_it(world: World, way: str):
    """ML-15: whichever way it is changed, for purposes of any feature."""
    world.tokens.purpose("approve", {Ending.PASSWORD})
    world.tokens.purpose("lasting", {Ending.EMAIL})
    if way == "contested":
        for _ in range(2):
            await world.sign_up("ada@example.com")
    async with world.signed_in("ada@example.com") as client:
        user = await world.user("ada@example.com")
        reset = await issue_reset(world)
        held: dict[str, str] = {}
        async with world.database.transaction() as tx:
            for purpose in ("approve", "lasting", CHANGE):
                held[purpose] = await world.tokens.issue(tx, purpose, user.id, ttl=timedelta(hours=1))
        if way == "change":
            await client.post("/auth/password/change", json={"current_password": GOOD, "new_password": NEW})
        elif way == "reset":
            await world.post("password/reset", {"token": reset, "password": NEW})
        elif way == "by hand":
            await set_password(world.guard.services, user, NEW)
        else:
            async with world.database.transaction() as tx:
                await world.users.verify_email(tx, user.id, read_email("ada@example.com"))
    async with world.database.transaction() as tx:
        left = [purpose for purpose, token in held.items() if await world.tokens.redeem(tx, purpose, token)]
    # What a stranger may have asked for before the owner proved the address ends whatever it is.
    assert left == ([] if way == "contested" else ["lasting"])
    assert (await world.post("password/reset", {"token": reset, "password": NEW})).status_code == 400


async def test_a_suspension_voids_the_links_under_way_also_for_later(world: World):
    """ML-15: restored, the user asks for a new one."""
    await world.sign_up("ada@example.com")
    token = await issue_reset(world)
    await world.suspend("ada@example.com")
    async with world.database.transaction() as tx:
        await world.users.restore(tx, (await world.user("ada@example.com")).id)
    assert (await world.post("password/reset", {"token": token, "password": NEW})).status_code == 400
    token = await issue_reset(world)
    assert (await world.post("password/reset", {"token": token, "password": NEW})).status_code == 204
