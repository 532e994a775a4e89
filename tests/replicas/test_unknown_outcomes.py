"""The connection to PostgreSQL, or the process, ends in the middle of a COMMIT: nobody is told how that went.

Every flow that writes, cut before the server gets the COMMIT and after it has done it. Whoever asks again gets what he
asked for, once; nothing that was ended lives, and nothing lives twice (R3; attacks OPS-04 and OPS-08).

The marker `long` has each flow killed on both sides of its COMMIT.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import psycopg
import pytest

from tests.backends import PostgresServer, ValkeyServer
from tests.replicas.cutting import CuttingProxy, Trap
from tests.replicas.world import PASSWORD, PATIENCE, Deployment, Person, Replica, deployed, eventually

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(400)]

OTHER = "quiet lantern over seven bridges"
_numbers = itertools.count(1)


@dataclass
class World:
    """One process that reaches PostgreSQL by a proxy, which can be told to fail at one place."""

    proxy: CuttingProxy
    deployment: Deployment
    url: str
    """Of the database itself, past the proxy."""

    @property
    def replica(self) -> Replica:
        return self.deployment.replicas[0]

    def disconnect(self) -> None:
        """End every connection of the process, which makes new ones as it needs them."""
        others = "pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        with psycopg.connect(self.url, autocommit=True) as connection:
            ended = [
                row[0] for row in connection.execute(f"SELECT pid, pg_terminate_backend(pid) FROM {others}".encode())
            ]
            left = b"SELECT count(*) FROM pg_stat_activity WHERE pid = ANY(%s)"
            while (connection.execute(left, [ended]).fetchone() or [0])[0]:
                time.sleep(0.02)

    def count(self, query: str, *values: object) -> int:
        with psycopg.connect(self.url) as connection:
            row = connection.execute(query.encode(), values).fetchone()
        assert row is not None
        return int(row[0])


@pytest.fixture(scope="module")
def world(
    tmp_path_factory: pytest.TempPathFactory, postgres_server: PostgresServer, valkey_server: ValkeyServer
) -> Iterator[World]:
    directory: Path = tmp_path_factory.mktemp("unknown")
    proxy = CuttingProxy(postgres_server.port)
    url = postgres_server.create()
    by_proxy = url.replace(f":{postgres_server.port}/", f":{proxy.port}/")
    try:
        with deployed(directory, count=1, database_url=by_proxy, ephemeral_url=valkey_server.url) as deployment:
            yield World(proxy, deployment, url)
    finally:
        proxy.close()
        postgres_server.drop(url)


@dataclass
class Actor:
    """Somebody in the middle of a flow, and what he remembers of its beginning."""

    world: World
    person: Person
    kept: dict[str, Any] = field(default_factory=dict)

    async def works(self, cookies: bool = True) -> int:
        return (await self.person.get(keep=False, cookies=cookies)).status_code

    async def signs_in(self, password: str = PASSWORD) -> int:
        async with self.person.twin() as other:
            return (await other.sign_in(password)).status_code

    async def key_works(self, key: str) -> int:
        shown = {"x-api-key": key}
        return (await self.person.post("/auth/api-keys/verify", headers=shown, cookies=False)).status_code

    def sessions(self) -> int:
        return self.world.count(
            "SELECT count(*) FROM routeguard_sessions s JOIN routeguard_users u ON u.id = s.user_id WHERE u.email = %s",
            self.person.email,
        )


Step = Callable[[Actor], Awaitable[Any]]
Ask = Callable[[Actor], Awaitable[httpx2.Response]]
Check = Callable[[Actor, bool], Awaitable[None]]


@dataclass(frozen=True)
class Flow:
    """What is prepared, what is asked (and asked again), the statement that does it, and what must hold at the end."""

    name: str
    statement: str
    ask: Ask
    again: set[int]
    """What may be said to the same request a second time."""
    check: Check
    prepare: Step | None = None
    alone: bool = False
    new: bool = False
    """Whether it begins with nobody signed in."""


def sign_up(actor: Actor) -> Awaitable[httpx2.Response]:
    account = {"email": actor.person.email, "password": PASSWORD, "name": "Somebody"}
    return actor.person.post("/auth/sign-up", account, patient=False)


async def one_account(actor: Actor, committed: bool) -> None:
    assert actor.world.count("SELECT count(*) FROM routeguard_users WHERE email = %s", actor.person.email) == 1
    assert await actor.signs_in() == 200


async def signed_in_afresh(actor: Actor, committed: bool) -> None:
    assert await actor.works() == 200
    # The one whose secret nobody was told, where it was written; nobody can use it, and it can be ended.
    assert actor.sessions() == 2 + committed
    assert (await actor.person.post("/auth/sign-out-everywhere")).status_code == 204
    assert actor.sessions() == 0


def sign_out(actor: Actor) -> Awaitable[httpx2.Response]:
    language = {"accept-language": actor.kept.get("language", "en")}
    return actor.person.post("/auth/sign-out", headers=language, patient=False)


async def copy_cookies(actor: Actor) -> None:
    actor.kept["cookies"] = dict(actor.person.cookies)


async def out(actor: Actor, committed: bool) -> None:
    """What was in the browser opens nothing, on no way."""
    actor.person.cookies = actor.kept["cookies"]
    assert await actor.works() == 401
    assert actor.sessions() == 0


async def other_password(actor: Actor, committed: bool) -> None:
    assert await actor.signs_in() == 401
    assert await actor.signs_in(OTHER) == 200


async def change_password(actor: Actor) -> httpx2.Response:
    found = await actor.person.post(
        "/auth/password/change", {"current_password": PASSWORD, "new_password": OTHER}, patient=False
    )
    if found.status_code in {401, 403, 422}:  # It was changed: then he signs in with the new one.
        assert await actor.signs_in(OTHER) == 200
    return found


async def ask_for_reset(actor: Actor) -> None:
    assert (await actor.person.post("/auth/password/forgot", {"email": actor.person.email})).status_code == 202
    actor.kept["token"] = await actor.person.mailed(r"reset\S*token=([\w.~-]+)")


def reset(actor: Actor) -> Awaitable[httpx2.Response]:
    body = {"token": actor.kept["token"], "password": OTHER}
    return actor.person.post("/auth/password/reset", body, patient=False)


async def reset_once(actor: Actor, committed: bool) -> None:
    await other_password(actor, committed)
    assert (await reset(actor)).status_code in {400, 401, 403, 404, 410, 422}


def change_email(actor: Actor) -> Awaitable[httpx2.Response]:
    actor.kept.setdefault("email", f"new-{actor.person.email}")
    return actor.person.post("/auth/email/change", {"email": actor.kept["email"], "password": PASSWORD}, patient=False)


async def mail_to_the_new_address(actor: Actor, committed: bool) -> None:
    """The address stays until the link is used; and the link comes, whatever the first answer was."""
    old, actor.person.email = actor.person.email, actor.kept["email"]
    tried: set[str] = set()

    async def proved() -> bool:
        # Asked twice, told twice, maybe: the last link is the one that counts.
        token = await actor.person.mailed(rf"token=((?!{'|'.join(tried) or '!'})[\w.~-]+)")
        tried.add(token)
        return (await actor.person.post("/auth/email/verify", {"token": token})).status_code == 204

    await eventually(proved)
    assert await actor.signs_in() == 200
    actor.person.email = old
    assert await actor.signs_in() == 401


def issue(actor: Actor) -> Awaitable[httpx2.Response]:
    return actor.person.post("/auth/token", patient=False)


async def tokens_work(actor: Actor, committed: bool) -> None:
    pair = await actor.person.tokens()
    assert (await actor.person.bearer(pair["access_token"])).status_code == 200
    assert (await actor.person.refresh(pair["refresh_token"])).status_code == 200


async def one_family(actor: Actor) -> None:
    # A connection that has run a statement three times sends its name alone, which the trap does not know.
    await asyncio.to_thread(actor.world.disconnect)
    actor.kept["token"] = (await actor.person.tokens())["refresh_token"]


def refresh(actor: Actor) -> Awaitable[httpx2.Response]:
    return actor.person.refresh(actor.kept["token"], patient=False)


async def one_successor(actor: Actor, committed: bool) -> None:
    answers = await asyncio.gather(*(refresh(actor) for _ in range(4)))
    assert {answer.status_code for answer in answers} == {200}
    [successor] = {answer.json()["refresh_token"] for answer in answers}
    families = (
        "SELECT count(*) FROM routeguard_refresh_families f JOIN routeguard_users u ON u.id = f.user_id"
        " WHERE u.email = %s"
    )
    assert actor.world.count(families, actor.person.email) == 1
    # Moved once, not once for each time it was asked.
    assert actor.world.count(families + " AND f.generation = 1", actor.person.email) == 1
    assert (await actor.person.refresh(successor)).status_code == 200


def create_key(actor: Actor) -> Awaitable[httpx2.Response]:
    return actor.person.post("/auth/api-keys", {"name": "robot"}, patient=False)


async def keys_that_are_listed(actor: Actor, committed: bool) -> None:
    """One that nobody was shown is in the list, to be revoked; nothing else is."""
    listed = (await actor.person.get("/auth/api-keys")).json()
    keys = listed if isinstance(listed, list) else next(value for value in listed.values() if isinstance(value, list))
    assert len(keys) == 1 + committed
    for one in keys:
        assert (await actor.person.send("DELETE", f"/auth/api-keys/{one['id']}")).status_code == 204


async def one_key(actor: Actor) -> None:
    actor.kept = (await create_key(actor)).json()


async def rotate_key(actor: Actor) -> httpx2.Response:
    """Rotate the key he knows; when that has been rotated away, the one in the list that took its place."""
    found = await actor.person.post(f"/auth/api-keys/{actor.kept['id']}/rotate", {"overlap": 0}, patient=False)
    if found.is_success:
        actor.kept["new"] = found.json()["key"]
    return found


async def rotated(actor: Actor, committed: bool) -> None:
    assert await actor.key_works(actor.kept["key"]) == 401
    if "new" in actor.kept:
        assert await actor.key_works(actor.kept["new"]) == 200


def revoke_key(actor: Actor) -> Awaitable[httpx2.Response]:
    return actor.person.send("DELETE", f"/auth/api-keys/{actor.kept['id']}", patient=False)


async def revoked(actor: Actor, committed: bool) -> None:
    assert await actor.key_works(actor.kept["key"]) == 401


_ENDED = r"DELETE FROM routeguard_sessions WHERE routeguard_sessions\.user_id"
FLOWS = [
    Flow("sign-up", r"INSERT INTO routeguard_users", sign_up, {201}, one_account, new=True),
    Flow(
        "sign-in",
        r"INSERT INTO routeguard_sessions",
        lambda actor: actor.person.twin().sign_in(patient=False),
        {200},
        signed_in_afresh,
    ),
    Flow("sign-out", _ENDED, sign_out, {204, 401}, out, copy_cookies),
    Flow(
        "sign-out-everywhere",
        _ENDED,
        lambda actor: actor.person.post("/auth/sign-out-everywhere", patient=False),
        {204, 401},
        out,
        copy_cookies,
    ),
    Flow("password-change", r"password_hashes", change_password, {204, 401, 403, 422}, other_password),
    Flow("password-reset", r"password_hashes", reset, {204, 400, 401, 403, 404, 410, 422}, reset_once, ask_for_reset),
    Flow(
        "email-change", r"INSERT INTO routeguard_(outbox|one_time_tokens)", change_email, {202}, mail_to_the_new_address
    ),
    Flow("token-issue", r"INSERT INTO routeguard_refresh_families", issue, {200}, tokens_work),
    Flow("refresh", r"UPDATE routeguard_refresh_families", refresh, {200}, one_successor, one_family, alone=True),
    Flow("key-create", r"INSERT INTO routeguard_api_keys", create_key, {201}, keys_that_are_listed),
    Flow("key-rotate", r"(INSERT INTO|UPDATE) routeguard_api_keys", rotate_key, {200, 201, 404}, rotated, one_key),
    Flow("key-revoke", r"(UPDATE|DELETE FROM) routeguard_api_keys", revoke_key, {204, 404}, revoked, one_key),
]


@pytest.fixture
async def actor(world: World, flow: Flow) -> AsyncIterator[Actor]:
    async with Person(world.deployment) as person:
        found = Actor(world, person)
        if not flow.new:
            await person.sign_up()
            token = await person.mailed(r"token=([\w.~-]+)")
            assert (await person.post("/auth/email/verify", {"token": token})).status_code == 204
            assert (await person.sign_in()).status_code == 200
        if flow.prepare is not None:
            await flow.prepare(found)
        yield found


@pytest.mark.parametrize("committed", [False, True], ids=["undone", "done"])
@pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: flow.name)
async def test_reset_during_the_commit(world: World, flow: Flow, actor: Actor, committed: bool) -> None:
    """OPS-04: 503 to whoever asked; he asks again."""
    trap = Trap(flow.statement, committed, alone=flow.alone)
    world.proxy.trap = trap
    answer = await flow.ask(actor)
    assert await asyncio.to_thread(trap.done.wait, PATIENCE), f"{flow.name} sent no such statement: {answer.text}"
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) >= 1
    await goes_on(flow, actor, committed)


@pytest.mark.parametrize(
    ("flow", "committed"),
    [
        pytest.param(flow, side, id=f"{flow.name}-{'done' if side else 'undone'}", marks=long)
        for at, flow in enumerate(FLOWS)
        for side, long in ((bool(at % 2), ()), (not at % 2, pytest.mark.long))
    ],
)
async def test_killed_during_the_commit(world: World, flow: Flow, actor: Actor, committed: bool) -> None:
    """OPS-08: kill -9 at that very place; the next process goes on."""
    trap = Trap(flow.statement, committed, sprung=world.replica.kill, alone=flow.alone)
    world.proxy.trap = trap
    with pytest.raises(httpx2.TransportError):
        await flow.ask(actor)
    assert await asyncio.to_thread(trap.done.wait, PATIENCE)
    await asyncio.to_thread(world.deployment.heal)
    # In other words and from elsewhere: until the lease of the dead process ends (30 seconds), the very same request
    # counts as under way.
    actor.kept["language"] = "fr"
    actor.person.address = f"198.19.0.{next(_numbers)}"
    await goes_on(flow, actor, committed)


async def goes_on(flow: Flow, actor: Actor, committed: bool) -> None:
    again = await flow.ask(actor)
    assert again.status_code in flow.again, again.text
    await flow.check(actor, committed)
