from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Literal

import pytest

from routeguard.core.changes import Changes
from routeguard.core.errors import ConfigError, ProblemError, Unavailable
from routeguard.foundation.db.database import Database, Transaction
from routeguard.identity.users import store
from routeguard.identity.users.addresses import read_email
from routeguard.identity.users.models import User, UserChange, UserSettings, public_user
from routeguard.identity.users.service import Users
from routeguard.identity.users.store import UserReader
from tests.fakes import FakeClock

COVERS = ("identity/users/feature", "identity/users/models", "identity/users/problems", "identity/users/reader")

pytestmark = pytest.mark.anyio


@dataclass(frozen=True, slots=True, kw_only=True)
class AppUser(User):
    plan: Literal["free", "pro"] = field(default="free", metadata={"public": True})
    notes: list[str] = field(default_factory=list)


@pytest.fixture
def changes() -> Changes:
    return Changes()


@pytest.fixture
def users(database: Database, clock: FakeClock, changes: Changes) -> Users[AppUser]:
    return Users(database, UserReader(AppUser), clock=clock, changes=changes)


async def make(users: Users[AppUser], database: Database, email: str, **values: object) -> AppUser:
    async with database.transaction() as tx:
        user = await users.create(tx, read_email(email), **values)  # type: ignore[arg-type]
    assert user is not None
    return user


async def change(database: Database, work: object, *arguments: object) -> str:
    """Run one change in a transaction of its own. Returns 'done', or the code of the refusal."""
    try:
        async with database.transaction() as tx:
            await work(tx, *arguments)  # type: ignore[operator]
    except ProblemError as error:
        return error.problem.type.code
    return "done"


async def test_a_user_keeps_the_fields_of_the_application(users: Users[AppUser], database: Database):
    made = await make(users, database, "ada@example.com", name="Ada", fields={"plan": "pro", "notes": ["a", "b"]})
    async with database.transaction() as tx:
        assert await users.get(tx, made.id) == made
        changed = await users.update(tx, made.id, plan="free", name="Ada L.")
    assert (changed.plan, changed.notes, changed.name, changed.role) == ("free", ["a", "b"], "Ada L.", "user")


async def test_only_public_fields_are_shown(users: Users[AppUser], database: Database):
    shown = public_user(await make(users, database, "ada@example.com", fields={"notes": ["secret note"]}))
    assert shown["plan"] == "free"
    assert "notes" not in shown
    assert "suspended_at" not in shown


async def test_fields_the_class_lacks_are_refused(users: Users[AppUser], database: Database):
    made = await make(users, database, "ada@example.com")
    for bad in ({"plam": "pro"}, {"role": "admin"}, {"email": "x@example.com"}, {"email_verified": True}):
        with pytest.raises(TypeError):
            await users_update(users, database, made.id, **bad)


async def users_update(users: Users[AppUser], database: Database, user_id: str, **values: object) -> None:
    async with database.transaction() as tx:
        await users.update(tx, user_id, **values)


async def test_stored_fields_that_do_not_fit_are_an_outage_and_not_a_default(users: Users[AppUser], database: Database):
    made = await make(users, database, "ada@example.com")
    async with database.transaction() as tx:
        await store.update(tx, made.id, fields='{"plan": 7}')
    async with database.read() as tx:
        with pytest.raises(Unavailable):
            await users.get(tx, made.id)


def test_a_user_class_that_could_not_be_read_is_found_at_start_up():
    @dataclass(frozen=True, slots=True, kw_only=True)
    class Bare(User):
        plan: str

    class Other:
        pass

    for bad in (Bare, Other):
        with pytest.raises(ConfigError):
            UserReader(bad)


@pytest.mark.parametrize("twin", ["ada@example.com", "ADA@EXAMPLE.COM", " Ada@Example.com "])
async def test_one_mailbox_is_one_user(users: Users[AppUser], database: Database, twin: str):
    await make(users, database, "Ada@example.com")
    async with database.transaction() as tx:
        assert await users.create(tx, read_email(twin)) is None
        # The transaction goes on: a taken address is an answer and not an error.
        found = await users.find_by_email(tx, twin)
    assert found is not None
    assert found.email == "Ada@example.com"


async def test_of_many_who_take_an_address_at_once_one_gets_it(users: Users[AppUser], database: Database):
    async def take() -> bool:
        async with database.transaction() as tx:
            return await users.create(tx, read_email("ada@example.com")) is not None

    assert sum(await asyncio.gather(*(take() for _ in range(16)))) == 1


@pytest.mark.parametrize("how", ["set_role", "suspend", "delete"])
async def test_the_last_admin_stays(users: Users[AppUser], database: Database, how: str):
    ada = await make(users, database, "ada@example.com", role="admin")
    more = ("user",) if how == "set_role" else ()
    assert await change(database, getattr(users, how), ada.id, *more) == "last-admin"
    bob = await make(users, database, "bob@example.com", role="admin")
    assert await change(database, getattr(users, how), ada.id, *more) == "done"
    assert await change(database, getattr(users, how), bob.id, *more) == "last-admin"


@pytest.mark.parametrize("how", ["set_role", "suspend", "delete"])
async def test_admins_who_remove_each_other_at_once_leave_one(users: Users[AppUser], database: Database, how: str):
    more = ("user",) if how == "set_role" else ()
    for round_ in range(5):
        admins = [await make(users, database, f"a{round_}{n}@example.com", role="admin") for n in range(4)]
        await asyncio.gather(*(change(database, getattr(users, how), admin.id, *more) for admin in admins))
        async with database.read() as tx:
            left = [u for u in await users.list(tx) if u.role == "admin" and u.suspended_at is None]
        assert len(left) == 1


async def test_a_suspended_admin_does_not_count(users: Users[AppUser], database: Database):
    ada = await make(users, database, "ada@example.com", role="admin")
    bob = await make(users, database, "bob@example.com", role="admin")
    assert await change(database, users.suspend, bob.id) == "done"
    assert await change(database, users.set_role, ada.id, "user") == "last-admin"
    assert await change(database, users.restore, bob.id) == "done"
    assert await change(database, users.set_role, ada.id, "user") == "done"


async def test_roles_and_users_that_do_not_exist(users: Users[AppUser], database: Database):
    ada = await make(users, database, "ada@example.com")
    assert await change(database, users.set_role, ada.id, "root") == "validation-failed"
    for work, *more in ((users.set_role, "admin"), (users.set_role, "user"), (users.suspend,), (users.delete,)):
        assert await change(database, work, "usr_nobody", *more) == "not-found"


async def test_listeners_run_inside_the_transaction_of_the_change(
    users: Users[AppUser], database: Database, changes: Changes
):
    """SES-26"""
    heard: list[UserChange] = []

    async def listen(tx: Transaction, change: UserChange) -> None:
        heard.append(change)
        if change.fields == {"role"}:
            raise Unavailable("a listener")

    changes.add(UserChange, listen)
    await make(users, database, "root@example.com", role="admin")
    ada = await make(users, database, "ada@example.com")
    await change(database, users.suspend, ada.id)
    await change(database, users.restore, ada.id)
    assert [(one.user_id, one.ended) for one in heard] == [(ada.id, True), (ada.id, False)]
    with pytest.raises(Unavailable):
        await change(database, users.set_role, ada.id, "moderator")
    async with database.read() as tx:
        found = await users.get(tx, ada.id)
    assert found is not None
    assert found.role == "user"


async def test_a_reader_hides_suspended_users(users: Users[AppUser], database: Database):
    ada = await make(users, database, "ada@example.com")
    await change(database, users.suspend, ada.id)
    async with database.read() as tx:
        assert await users.reader.find(tx, ada.id) is None
        assert await users.get(tx, ada.id) is not None


@pytest.mark.parametrize("image", ["javascript:alert(1)", "http://x.example/a.png", "https://x y", "data:image/png,x"])
async def test_an_image_is_an_https_address(users: Users[AppUser], database: Database, image: str):
    ada = await make(users, database, "ada@example.com")
    with pytest.raises(ProblemError) as refused:
        await users_update(users, database, ada.id, image=image)
    assert refused.value.problem.status == 422


def test_settings_that_contradict_themselves_are_all_named():
    with pytest.raises(ConfigError) as error:
        UserSettings(roles=("admin", ""), admin_role="admin")
    assert len(error.value.findings) == 2
