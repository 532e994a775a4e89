from __future__ import annotations

import asyncio
import multiprocessing
import sys
from datetime import timedelta
from typing import Any

import anyio
import pytest
import sqlalchemy as sa

from routeguard import Feature, Routeguard, Settings, Setup
from routeguard.builtin.features import defaults
from routeguard.core.changes import Changes
from routeguard.core.clock import SystemClock
from routeguard.core.endings import Ending
from routeguard.core.errors import ConfigError
from routeguard.core.secret import Secret, digest, new_token
from routeguard.foundation.db.database import Database
from routeguard.identity.users.addresses import read_email
from routeguard.identity.users.models import PasswordChange, User, UserChange
from routeguard.identity.users.one_time import OneTimeTokens, one_time_tokens
from routeguard.identity.users.service import Users
from routeguard.identity.users.store import UserReader
from tests.fakes import FakeClock, deployment
from tests.rounds import rounds
from tests.steady import PATIENT

COVERS = ("core/endings", "identity/users/store")

pytestmark = pytest.mark.anyio

HOUR = timedelta(hours=1)
KEYS = deployment()


class World:
    def __init__(self, database: Database, clock: FakeClock) -> None:
        self.database = database
        self.tokens = OneTimeTokens(database, KEYS, clock=clock)
        changes = Changes()
        changes.add(UserChange, self.tokens.on_user_change)
        changes.add(PasswordChange, self.tokens.on_password_change)
        self.users: Users[User] = Users(database, UserReader(User), clock=clock, changes=changes)
        self.clock = clock
        self.ids: list[str] = []

    async def issue(self, purpose: str = "reset", user: int = 0, **more: Any) -> str:
        async with self.database.transaction() as tx:
            return await self.tokens.issue(tx, purpose, self.ids[user], ttl=HOUR, data=more)

    async def redeem(self, token: str, purpose: str = "reset") -> dict[str, Any] | None:
        async with self.database.transaction() as tx:
            found = await self.tokens.redeem(tx, purpose, token)
        return None if found is None else {"user": found.user_id, **found.data}


@pytest.fixture
async def world(database: Database, clock: FakeClock) -> World:
    world = World(database, clock)
    async with database.transaction() as tx:
        for name in ("ada", "bob"):
            user = await world.users.create(tx, read_email(f"{name}@example.com"))
            assert user is not None
            world.ids.append(user.id)
    return world


async def test_a_token_works_once(world: World):
    token = await world.issue(email="ada@example.com")
    assert await world.redeem(token) == {"user": world.ids[0], "email": "ada@example.com"}
    assert await world.redeem(token) is None


async def test_of_64_who_redeem_at_once_one_gets_it(world: World):
    """ML-02"""
    token = await world.issue()
    results = await asyncio.gather(*(world.redeem(token) for _ in range(64)))
    assert sum(result is not None for result in results) == 1


@pytest.mark.parametrize("after", ["verify", "reset "])
async def test_a_purpose_is_a_name_space(world: World, after: str):
    """ML-05 SES-31"""
    token = await world.issue("reset")
    other = await world.issue("verify")
    assert await world.redeem(token, after) is None
    assert await world.redeem(other, "reset") is None
    assert await world.redeem(token, "reset") is not None
    assert await world.redeem(other, "verify") is not None


@pytest.mark.parametrize(("seconds", "works"), [(-1, True), (0, False), (1, False)])
async def test_a_token_ends_at_its_second(world: World, seconds: int, works: bool):
    """ML-15"""
    token = await world.issue()
    world.clock.advance(HOUR + timedelta(seconds=seconds))
    assert (await world.redeem(token) is not None) is works


async def test_a_newer_token_voids_the_older_of_its_user_and_purpose_only(world: World):
    """ML-15"""
    older, other_user, other_purpose = await world.issue(), await world.issue(user=1), await world.issue("verify")
    newer = await world.issue()
    assert await world.redeem(older) is None
    assert await world.redeem(newer) is not None
    assert await world.redeem(other_user) is not None
    assert await world.redeem(other_purpose, "verify") is not None


@pytest.mark.parametrize(
    "pasted",
    [
        "https://id.example.com/auth/email/verify#token={}",
        "<https://id.example.com/x?token={}>",
        " {} ",
        "{}\n",
        "https://id.example.com/x?token={}&y=z",
    ],
)
async def test_the_link_counts_as_its_token(world: World, pasted: str):
    token = await world.issue()
    assert await world.redeem(pasted.format(token), "verify") is None
    assert await world.redeem(pasted.format(token + "x")) is None
    assert await world.redeem(pasted.format(token)) is not None


async def test_looking_consumes_nothing(world: World):
    """ML-03"""
    token = await world.issue()
    async with world.database.read() as tx:
        for _ in range(3):
            assert await world.tokens.peek(tx, "reset", token) is not None
        assert await world.tokens.peek(tx, "verify", token) is None
    assert await world.redeem(token) is not None


async def test_a_failed_transaction_leaves_the_token_whole(world: World):
    token = await world.issue()

    async def fail() -> None:
        async with world.database.transaction() as tx:
            assert await world.tokens.redeem(tx, "reset", token) is not None
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await fail()
    assert await world.redeem(token) is not None


async def test_void_takes_the_purposes_named_or_all(world: World):
    token, kept = await world.issue("reset"), await world.issue("verify")
    async with world.database.transaction() as tx:
        await world.tokens.void(tx, world.ids[0], "reset")
    assert await world.redeem(token) is None
    async with world.database.read() as tx:
        assert await world.tokens.is_pending(tx, "verify", world.ids[0])
    async with world.database.transaction() as tx:
        await world.tokens.void(tx, world.ids[0])
    assert await world.redeem(kept, "verify") is None


async def change(world: World, ending: str) -> None:
    async with world.database.transaction() as tx:
        match ending:
            case "password":
                await world.users.password_changes(tx, world.ids[0])
            case "email":
                await world.users.set_email(tx, world.ids[0], read_email("new@example.com"))
            case "suspension":
                await world.users.suspend(tx, world.ids[0])
            case "deletion":
                await world.users.delete(tx, world.ids[0])
            case _:
                await world.users.update(tx, world.ids[0], name="Ada")
                await world.users.set_role(tx, world.ids[0], "moderator")
                await world.users.verify_email(tx, world.ids[0], read_email("ada@example.com"))
                await world.users.restore(tx, world.ids[0])


PURPOSES = {
    "reset": {Ending.PASSWORD, Ending.EMAIL, Ending.SUSPENSION},
    "verify": {Ending.EMAIL},
    "approve": {Ending.PASSWORD},
    "unlock": {Ending.SUSPENSION},
    "note": set(),
}


@pytest.mark.parametrize(
    ("ending", "left"),
    [
        ("password", ["verify", "unlock", "note"]),
        ("email", ["approve", "unlock", "note"]),
        ("suspension", ["verify", "approve", "note"]),
        ("deletion", []),
        ("none of them", [*PURPOSES, "unregistered"]),
    ],
)
@pytest.mark.parametrize("issued_by", ["a process that knows them", "one of another version", "before the column"])
async def test_a_change_voids_what_ends_with_it(world: World, ending: str, left: list[str], issued_by: str):
    """ML-15: in the transaction of the change, whichever process makes it, and what nobody registered with each."""
    knowing = OneTimeTokens(world.database, KEYS, clock=world.clock)
    for tokens in (knowing, world.tokens)[: 1 if issued_by == "one of another version" else 2]:
        for name, endings in PURPOSES.items():
            tokens.purpose(name, endings)
    held = {}
    for name in (*PURPOSES, "unregistered"):
        async with world.database.transaction() as tx:
            held[name] = await knowing.issue(tx, name, world.ids[0], ttl=HOUR)
    other = await world.issue(user=1)
    if issued_by == "before the column":
        async with world.database.transaction() as tx:
            await tx.execute(sa.update(one_time_tokens).values(ends_with=2))
        # Of these nothing says what ends them but the address, which ended all before.
        left = [name for name in left if ending != "email"]
        left += [] if ending in {"email", "deletion"} else ["unregistered"] * ("unregistered" not in left)
    await change(world, ending)
    assert [name for name, token in held.items() if await world.redeem(token, name) is not None] == left
    assert await world.redeem(other) is not None


async def test_a_change_that_fails_voids_nothing(world: World):
    world.tokens.purpose("reset", {Ending.PASSWORD})
    token = await world.issue()

    async def fail() -> None:
        async with world.database.transaction() as tx:
            await world.users.password_changes(tx, world.ids[0])
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await fail()
    assert await world.redeem(token) is not None


async def test_a_family_ends_as_its_name_says(world: World):
    world.tokens.purpose("pending", {Ending.SUSPENSION})
    tokens = [await world.issue(f"pending:{number}") for number in range(2)]
    await change(world, "password")
    assert await world.redeem(tokens[0], "pending:0") is not None
    await change(world, "suspension")
    assert await world.redeem(tokens[1], "pending:1") is None


@pytest.mark.parametrize("name", ["", "Reset", "a:b", "a" * 41, "a b", "é"])
def test_a_purpose_has_a_plain_name_once(name: str):
    tokens = OneTimeTokens(Database("sqlite://", clock=SystemClock()), KEYS, clock=SystemClock())
    with pytest.raises(ConfigError, match="must be at most 40 of a to z"):
        tokens.purpose(name, {Ending.EMAIL})
    tokens.purpose("reset", {Ending.EMAIL})
    with pytest.raises(ConfigError, match="two features register the purpose 'reset'"):
        tokens.purpose("reset", {Ending.EMAIL})


def test_a_purpose_that_two_features_register_is_a_finding():
    def set_up(setup: Setup) -> None:
        setup.purpose("password-reset", ends_with={Ending.SUSPENSION})

    settings = Settings(issuer="http://localhost:8000", database_url="sqlite://")
    with pytest.raises(ConfigError, match="two features register the purpose 'password-reset'"):
        Routeguard(settings, features=[*defaults(), Feature(name="mine", setup=set_up)])


@rounds(10, 200)
async def test_of_a_redeemer_and_a_change_at_once_one_wins(world: World, rounds: int):
    """ML-15 ML-02: what the change finds is never redeemed after it, and what was redeemed it does not find."""
    world.tokens.purpose("reset", {Ending.PASSWORD})

    async def void() -> bool:
        async with world.database.transaction() as tx:
            return await world.tokens.end(tx, world.ids[0], Ending.PASSWORD) == 1

    async def redeem(token: str) -> bool:
        return await world.redeem(token) is not None

    for number in range(rounds):
        token = await world.issue()
        works = [redeem(token), void()]
        won = await asyncio.gather(*(works if number % 2 else works[::-1]))
        assert sorted(won) == [False, True]
        assert await world.redeem(token) is None


async def ask(world: World) -> str | None:
    async with world.database.transaction() as tx:
        left = timedelta(minutes=15)
        return await world.tokens.issue_unless_pending(tx, "reset", world.ids[0], ttl=HOUR, left=left)


async def test_of_many_who_ask_at_once_one_gets_a_token_and_it_works(world: World):
    """ML-02: two who both saw none pending would each be mailed a link, one of them void."""
    for _ in range(5):
        [token] = [token for token in await asyncio.gather(*(ask(world) for _ in range(12))) if token is not None]
        assert await world.redeem(token) is not None


async def test_a_token_is_replaced_when_little_of_its_life_is_left(world: World):
    former = await world.issue()
    assert await ask(world) is None
    world.clock.advance(50 * 60)
    token = await ask(world)
    assert token is not None
    assert await world.redeem(former) is None
    assert await world.redeem(token) is not None


async def test_the_database_holds_no_token(world: World):
    token = await world.issue()
    async with world.database.read() as tx:
        rows = await tx.all(sa.select(one_time_tokens))
    assert len(rows) == 1
    secret = token.partition(".")[2]
    assert len(secret) == 43
    assert secret not in repr(rows)
    assert len(rows[0].token_hash) == 32


MADE_UP = ["", ".", "x", "a.b", "usr_x." + "A" * 43, "\x00.\x00", "é.é", "." * 9999, "a" * 99999]


@pytest.mark.parametrize("made_up", MADE_UP)
async def test_made_up_tokens_are_unknown(world: World, made_up: str):
    await world.issue()
    assert await world.redeem(made_up) is None
    assert await world.redeem(f"{world.ids[0]}.{made_up}") is None


def _redeem_elsewhere(url: str, token: str, barrier: Any, results: Any) -> None:
    async def work() -> int:
        database = Database(url, clock=SystemClock(), settings=PATIENT)
        await database.start()
        tokens = OneTimeTokens(database, KEYS, clock=SystemClock())

        async def once() -> bool:
            async with database.transaction() as tx:
                return await tokens.redeem(tx, "reset", token) is not None

        barrier.wait(60)
        found = await asyncio.gather(*(once() for _ in range(16)))
        await database.close()
        return sum(found)

    results.put(anyio.run(work))


async def test_two_processes_redeem_a_token_once(database: Database, database_url: str):
    """ML-02, over processes"""
    clock = SystemClock()
    users: Users[User] = Users(database, UserReader(User), clock=clock)
    async with database.transaction() as tx:
        user = await users.create(tx, read_email("ada@example.com"))
        assert user is not None
        token = await OneTimeTokens(database, KEYS, clock=clock).issue(tx, "reset", user.id, ttl=HOUR)
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(2), context.Queue()
    processes = [
        context.Process(target=_redeem_elsewhere, args=(database_url, token, barrier, results)) for _ in range(2)
    ]
    for process in processes:
        process.start()
    found = [await asyncio.to_thread(results.get, timeout=60) for _ in processes]
    for process in processes:
        await asyncio.to_thread(process.join, 60)
    assert sorted(found) == [0, 1], sys.platform


async def test_a_token_mailed_before_the_hash_had_a_key_works_once(world: World):
    token = f"{world.ids[0]}.{new_token()}"
    await world.issue()
    async with world.database.transaction() as tx:
        await tx.execute(sa.update(one_time_tokens).values(token_hash=digest(f"reset:{token}")))
    assert await world.redeem(token, "verify") is None
    assert await world.redeem(token) == {"user": world.ids[0]}
    assert await world.redeem(token) is None


async def test_a_token_survives_a_change_of_the_secret(world: World):
    token = await world.issue()
    new = OneTimeTokens(world.database, deployment(b"n" * 32, Secret(b"k" * 32)), clock=world.clock)
    async with world.database.transaction() as tx:
        assert await new.redeem(tx, "reset", token) is not None
