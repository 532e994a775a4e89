"""Sessions end to end on real databases: begun, resumed, renewed, ended; here and in other processes."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from msgspec import structs

from routeguard.core.clock import SystemClock
from routeguard.core.errors import Unavailable
from routeguard.core.problem import PERMISSION_DENIED, Problem
from routeguard.core.secret import digest
from routeguard.foundation.db.database import Database
from routeguard.foundation.db.migrate import migrate
from routeguard.identity.sessions import store
from routeguard.identity.sessions.envelope import EnvelopeCodec
from routeguard.identity.sessions.models import SessionSettings
from routeguard.identity.users.models import User
from tests.backends import PostgresServer
from tests.fakes import Unbound
from tests.sessions.fakes import cookie_of, make_exchange
from tests.sessions.world import KEYS, Browser, World

COVERS = ("identity/sessions/by_id", "identity/sessions/live", "identity/sessions/store")

pytestmark = pytest.mark.anyio

IDLE = SessionSettings().idle.total_seconds()
ABSOLUTE = SessionSettings().absolute.total_seconds()
LIFE = SessionSettings().envelope_life.total_seconds()


@dataclass(frozen=True, slots=True)
class Rated(User):
    """The user class of the next release."""

    rating: str = field(default="good", metadata={"public": True})


@dataclass(frozen=True, slots=True)
class Rerated(User):
    """The one after it."""

    rating: str = field(default="bad", metadata={"public": True})


async def test_a_user_class_that_gained_a_field_does_not_read_its_default_from_older_cookies(world: World) -> None:
    """SES-26: while two releases run side by side, for as long as a cookie speaks for itself."""
    user = await world.user()
    async with world.another(Rated) as newer, world.another(Rated) as twin, world.another(Rerated) as newest:
        async with newer.database.transaction() as tx:
            await newer.users.update(tx, user.id, rating="banned")
        for process in (world, newer, twin, newest):
            # Until the change itself is no reason to ask the store.
            await process.feed.poll()
            await process.wait(LIFE + 601)
            assert not process.feed.stale
        for before, after in ((world, newer), (newer, newest), (newest, world)):
            browser = await before.sign_in(user)
            found = await after.cookies.resume(make_exchange(browser.cookie or ""))
            assert found is not None
            assert type(found.user) is (User if after is world else Rated if after is newer else Rerated)
            assert getattr(found.user, "rating", "banned") == "banned"
        # Of the same class a cookie still speaks for itself.
        browser = await newer.sign_in(user)
        await newer.delete_rows_behind_its_back()
        found = await twin.cookies.resume(make_exchange(browser.cookie or ""))
        assert found is not None
        assert getattr(found.user, "rating", None) == "banned"


async def test_no_cookie_is_nobody(world: World) -> None:
    assert await world.cookies.resume(make_exchange()) is None


async def test_a_session_is_resumed_with_its_user(world: World) -> None:
    user = await world.user(role="moderator")
    browser = await world.sign_in(user)
    found = await browser.visit()
    assert found is not None
    assert found.user == user
    assert found.principal_id == user.id
    assert found.role is None
    assert found.assurance.amr == ("pwd",)
    assert found.expires_at - found.created_at == timedelta(days=30)


async def test_sign_in_makes_a_new_id_and_ends_the_presented_session(world: World) -> None:
    """SES-01."""
    victim, other = await world.user(), await world.user()
    browser = await world.sign_in(victim)
    before, old = await browser.visit(), browser.cookie
    await world.sign_in(victim, browser)
    after = await browser.visit()
    assert before is not None
    assert after is not None
    assert before.id != after.id
    assert browser.cookie != old
    assert await Browser(world, old).visit() is None
    # The same with a session of somebody else in the browser.
    old = browser.cookie
    await world.sign_in(other, browser)
    assert (await browser.session()).user == other
    assert await Browser(world, old).visit() is None


async def test_a_session_planted_before_sign_in_dies_with_it(world: World) -> None:
    """SES-01: the attacker's own session, planted in the victim's browser, does not become the victim's."""
    attacker, victim = await world.user(), await world.user()
    planted = await world.sign_in(attacker)
    browser = Browser(world, planted.cookie)
    await world.sign_in(victim, browser)
    assert await planted.visit() is None


async def test_ids_from_elsewhere_are_ignored(world: World) -> None:
    """SES-02."""
    browser = await world.sign_in(await world.user())
    assert browser.cookie is not None
    value = browser.cookie.partition("=")[2]
    for headers in (
        {"x-session": value},
        {"authorization": f"Bearer {value}"},
        {"authorization": f"Session {value}"},
        {"set-cookie": browser.cookie},
        {"cookie2": browser.cookie},
    ):
        assert await world.cookies.resume(make_exchange(headers=headers)) is None
    exchange = make_exchange()
    exchange.request.scope["query_string"] = f"__Host-routeguard={value}".encode()  # type: ignore[index]
    assert await world.cookies.resume(exchange) is None


@pytest.mark.parametrize(
    "name",
    [
        "routeguard",
        "__host-routeguard",
        "__HOST-routeguard",
        "__Host-Routeguard",
        "__Secure-routeguard",
        "x__Host-routeguard",
        "__Host-routeguard2",
        "\u00a0__Host-routeguard",
        "\x0b__Host-routeguard",
    ],
)
async def test_only_the_exact_name_is_ours(world: World, name: str) -> None:
    """CK-02, CK-03, SES-34: the plain name among them."""
    browser = await world.sign_in(await world.user())
    assert browser.cookie is not None
    value = browser.cookie.partition("=")[2]
    assert await world.cookies.resume(make_exchange(f"{name}={value}")) is None


async def test_a_plain_cookie_beside_ours_is_ignored(world: World) -> None:
    """SES-34."""
    mine, theirs = await world.sign_in(await world.user()), await world.sign_in(await world.user())
    assert theirs.cookie is not None
    plain = f"routeguard={theirs.cookie.partition('=')[2]}"
    expected = await mine.session()
    for line in (f"{plain}; {mine.cookie}", f"{mine.cookie}; {plain}"):
        assert await world.cookies.resume(make_exchange(line)) == expected


async def test_two_cookies_of_our_name_are_nobody(world: World) -> None:
    """CSRF-16: whichever comes first."""
    mine, theirs = await world.sign_in(await world.user()), await world.sign_in(await world.user())
    for cookies in ([mine.cookie, theirs.cookie], [theirs.cookie, mine.cookie], [mine.cookie, mine.cookie]):
        joined = "; ".join(str(cookie) for cookie in cookies)
        assert await world.cookies.resume(make_exchange(joined)) is None
        assert await world.cookies.resume(make_exchange(*(str(cookie) for cookie in cookies))) is None


@pytest.mark.parametrize("spelling", ['"{}"', "{}=", "\\{}", "%41{}", "{}.", " {}\x0b"])
async def test_other_spellings_are_nobody(world: World, spelling: str) -> None:
    """CK-05."""
    browser = await world.sign_in(await world.user())
    assert browser.cookie is not None
    name, _, value = browser.cookie.partition("=")
    assert await world.cookies.resume(make_exchange(f"{name}={spelling.format(value)}")) is None
    assert await world.cookies.resume(make_exchange(f'a="\x01\xff"; {browser.cookie} ; b')) is not None


async def test_forged_cookies_are_nobody(world: World) -> None:
    """SES-30: also when the session behind them lives and is remembered."""
    browser = await world.sign_in(await world.user())
    await browser.visit()
    assert browser.cookie is not None
    name, _, value = browser.cookie.partition("=")
    for place in range(0, len(value), 7):
        forged = value[:place] + ("A" if value[place] != "A" else "B") + value[place + 1 :]
        assert await world.cookies.resume(make_exchange(f"{name}={forged}")) is None
        assert await world.cookies.resume(make_exchange(f"{name}={value[:place]}")) is None


async def test_a_dump_of_the_database_opens_nothing(world: World) -> None:
    """SES-22: with all that is stored one still cannot make, nor even with our key guess, a cookie that opens."""
    user = await world.user()
    await world.sign_in(user)
    async with world.database.read() as tx:
        (row,) = await tx.all(store.sessions.select().where(store.sessions.c.user_id == user.id))
        state = await store.find(tx, user.id, row.id)
    assert state is not None
    stored = bytes(row.secret_hash)
    assert len(stored) == 32
    world.clock.advance(LIFE + 1)
    for secret in (stored, digest(stored), b"", row.id.encode()):
        value = EnvelopeCodec(KEYS).seal(world.envelope(state, secret))
        assert await world.cookies.resume(make_exchange(f"__Host-routeguard={value}")) is None


@pytest.mark.parametrize(("age", "alive"), [(IDLE - 1, True), (IDLE, False), (IDLE + 1, False)])
async def test_idle_end(world: World, age: float, alive: bool) -> None:
    """SES-23."""
    browser = await world.sign_in(await world.user())
    world.clock.advance(age)
    assert (await browser.visit() is not None) is alive


@pytest.mark.parametrize(("early", "alive"), [(1, True), (0, False), (-1, False)])
async def test_activity_does_not_move_the_absolute_end(world: World, early: float, alive: bool) -> None:
    """SES-23."""
    browser = await world.sign_in(await world.user())
    for _ in range(5):
        world.clock.advance(ABSOLUTE / 6)
        assert await browser.visit() is not None
    world.clock.advance(ABSOLUTE / 6 - early)
    assert (await browser.visit() is not None) is alive


async def test_the_short_idle_time_of_a_session_in_use_moves(database: Any) -> None:
    async with World.open(database, idle=timedelta(seconds=30)) as world:
        browser = await world.sign_in(await world.user())
        for _ in range(40):
            world.clock.advance(10)
            assert await browser.visit() is not None
        world.clock.advance(31)
        assert await browser.visit() is None


async def test_reading_writes_nothing_and_sets_nothing(world: World) -> None:
    browser = await world.sign_in(await world.user())
    before = await world.rows()
    for number in range(20):
        world.clock.advance(2)
        if number < 10:
            await world.feed.poll()
        exchange = browser.exchange()
        assert await world.cookies.resume(exchange) is not None
        assert exchange.effects == []
    assert await world.rows() == before


async def test_a_used_session_is_renewed_once_a_minute(world: World) -> None:
    browser = await world.sign_in(await world.user())
    await world.wait(LIFE + 1)
    first = browser.cookie
    exchanges = [browser.exchange() for _ in range(3)]
    for exchange in exchanges:
        assert await world.cookies.resume(exchange) is not None
    assert [cookie_of(exchange) is not None for exchange in exchanges] == [True, False, False]
    browser.cookie = cookie_of(exchanges[0])
    assert browser.cookie != first
    (row,) = await world.rows()
    assert row.last_seen_at == world.clock.time()
    assert row.idle_expires_at == world.clock.time() + IDLE
    assert await browser.visit() is not None


async def test_a_cookie_speaks_for_itself_in_another_process(world: World) -> None:
    """No store is read for a young cookie, in a process that has never seen it."""
    browser = await world.sign_in(await world.user())
    async with world.another() as other:
        await world.delete_rows_behind_its_back()
        assert await other.cookies.resume(browser.exchange()) is not None
        other.clock.advance(LIFE + 1)
        assert await other.cookies.resume(browser.exchange()) is None


async def test_a_large_user_is_kept_out_of_the_cookie(world: World) -> None:
    """CK-09."""
    user = await world.user(image="https://images.test/" + "x" * 1900)
    browser = await world.sign_in(user)
    assert browser.cookie is not None
    assert len(browser.cookie) < 4096
    found = await browser.visit()
    assert found is not None
    assert found.user == user


async def test_signing_out_ends_the_session_here_at_once(world: World) -> None:
    """SES-17."""
    browser = await world.sign_in(await world.user())
    stolen = Browser(world, browser.cookie)
    assert await stolen.visit() is not None
    exchange = browser.exchange()
    await world.sessions.sign_out(exchange)
    assert await stolen.visit() is None
    assert cookie_of(exchange) == "__Host-routeguard="
    await world.sessions.sign_out(browser.exchange())
    await world.sessions.sign_out(make_exchange())
    await world.sessions.sign_out(make_exchange("__Host-routeguard=forged.cookie"))


async def test_signing_out_does_not_end_what_a_forged_cookie_names(world: World) -> None:
    browser = await world.sign_in(await world.user())
    assert browser.cookie is not None
    envelope = world.codec.open(browser.cookie.partition("=")[2].encode())
    assert envelope is not None
    value = world.codec.seal(world.envelope(envelope.state, b"guess" * 6))
    await world.sessions.sign_out(make_exchange(f"__Host-routeguard={value}"))
    world.clock.advance(LIFE + 1)
    assert await browser.visit() is not None


async def test_signing_out_everywhere_reaches_warm_caches_of_other_processes(world: World) -> None:
    """SES-18, SES-17: with one poll, which happens every second."""
    user = await world.user()
    browsers = [await world.sign_in(user) for _ in range(3)]
    bystander = await world.sign_in(await world.user())
    async with world.another() as other:
        for browser in [*browsers, bystander]:
            assert await other.cookies.resume(browser.exchange()) is not None
        await world.sessions.sign_out_everywhere(browsers[0].exchange(), user.id)
        for browser in browsers:
            assert await browser.visit() is None
        await other.feed.poll()
        for browser in browsers:
            assert await other.cookies.resume(browser.exchange()) is None
        assert await other.cookies.resume(bystander.exchange()) is not None
    assert await bystander.visit() is not None


async def test_a_revoked_session_stays_dead_after_a_restart(world: World) -> None:
    browser = await world.sign_in(await world.user())
    await world.sessions.sign_out(browser.exchange())
    async with world.another() as restarted:
        assert await restarted.cookies.resume(browser.exchange()) is None


async def test_a_role_changes_with_the_next_request(world: World) -> None:
    """SES-26: the cookie of before still says admin, and is not believed."""
    user = await world.user(role="admin")
    await world.user(role="admin")
    browser = await world.sign_in(user)
    old = Browser(world, browser.cookie)
    assert (await browser.session()).user.role == "admin"
    async with world.another() as other:
        assert await other.cookies.resume(browser.exchange()) is not None
        await world.set_role(user, "user")
        assert (await browser.session()).user.role == "user"
        assert (await old.session()).user.role == "user"
        await other.feed.poll()
        found = await other.cookies.resume(old.exchange())
        assert found is not None
        assert found.user.role == "user"


async def test_after_a_change_cookies_are_soon_trusted_again(world: World) -> None:
    """One read of the store a process, not one a request, for as long as the change is remembered."""
    user = await world.user()
    browser = await world.sign_in(user)
    await world.set_role(user, "moderator")
    await browser.visit()
    await world.delete_rows_behind_its_back()
    assert (await browser.session()).user.role == "moderator"


async def test_suspension_ends_all_sessions(world: World) -> None:
    user = await world.user()
    browser = await world.sign_in(user)
    assert await browser.visit() is not None
    await world.suspend(user)
    assert await browser.visit() is None
    assert await world.rows() == []
    assert isinstance(await world.try_sign_in(user), Problem)
    await world.restore(user)
    assert await browser.visit() is None
    assert await (await world.sign_in(user)).visit() is not None


async def test_rotation_replaces_the_secret(world: World) -> None:
    """SES-01: what was known before a change of privilege opens nothing after it."""
    browser = await world.sign_in(await world.user())
    before, old = await browser.session(), Browser(world, browser.cookie)
    async with world.another() as other:
        assert await other.cookies.resume(old.exchange()) is not None
        world.clock.advance(10)
        exchange = browser.exchange()
        async with world.database.transaction() as tx:
            rotated = await world.sessions.rotate(tx, exchange, amr=("pwd", "otp"), aal=2)
        browser.cookie = cookie_of(exchange)
        assert rotated.id == before.id
        assert rotated.assurance.aal == 2
        assert (rotated.authenticated_at - before.authenticated_at).total_seconds() == 10
        assert rotated.expires_at == before.expires_at
        assert await old.visit() is None
        assert await browser.session() == rotated
        await other.feed.poll()
        assert await other.cookies.resume(old.exchange()) is None
        assert await other.cookies.resume(browser.exchange()) == rotated


async def test_an_aborted_change_leaves_everything_as_it_was(world: World) -> None:
    """No cookie for a session that was rolled back, no distrust for a revocation that was."""
    user = await world.user()
    browser = await world.sign_in(user)
    exchange = browser.exchange()
    with contextlib.suppress(KeyError):
        async with world.database.transaction() as tx:
            found = await world.sessions.sign_in_user(tx, user.id)
            assert not isinstance(found, Problem)
            await world.sessions.start(tx, found, exchange=exchange, amr=("pwd",))
            await world.sessions.revoke_all(tx, user.id)
            raise KeyError
    assert exchange.effects == []
    assert await browser.visit() is not None
    assert len(await world.rows()) == 1


async def test_the_longest_unused_session_makes_room(database: Any) -> None:
    async with World.open(database, maximum=3) as world:
        user = await world.user()
        browsers = []
        for _ in range(3):
            browsers.append(await world.sign_in(user))
            world.clock.advance(LIFE + 1)
        assert await browsers[0].visit() is not None
        browsers.append(await world.sign_in(user))
        assert [await browser.visit() is not None for browser in browsers] == [True, False, True, True]


async def test_only_own_sessions_are_listed_and_revoked(world: World) -> None:
    """SES-24."""
    user, other = await world.user(), await world.user()
    mine, second, theirs = await world.sign_in(user), await world.sign_in(user), await world.sign_in(other)
    listed = await world.sessions.list(user.id)
    assert {one.id for one in listed} == {(await mine.session()).id, (await second.session()).id}
    assert listed[0].address == "192.0.2.7"
    current, target = await mine.session(), await theirs.session()
    assert not await world.sessions.revoke_own(mine.exchange(), current, target.id)
    assert not await world.sessions.revoke_own(mine.exchange(), current, "ses_none")
    assert await theirs.visit() is not None
    assert await world.sessions.revoke_own(mine.exchange(), current, (await second.session()).id)
    assert await second.visit() is None
    assert await mine.visit() is not None


async def test_a_step_may_refuse_sign_in(world: World) -> None:
    seen: list[Any] = []

    async def refuse(_: Any, attempt: Any) -> Problem | None:
        seen.append(attempt)
        return PERMISSION_DENIED()

    user = await world.user()
    world.sign_in_service.add_step(refuse)
    assert isinstance(await world.try_sign_in(user), Problem)
    assert await world.rows() == []
    assert seen[0].user == user
    assert seen[0].amr == ("pwd",)


@pytest.mark.parametrize("step", [-3600.0, -86400.0, 3600.0, 86400.0, -1.0, 1.0])
async def test_a_stepping_clock_revives_nothing(world: World, step: float) -> None:
    """SES-27."""
    user = await world.user()
    ended, lapsed, alive = [await world.sign_in(user) for _ in range(3)]
    await world.sessions.sign_out(ended.exchange())
    world.clock.advance(IDLE - 100)
    assert await alive.visit() is not None
    world.clock.advance(200)
    assert await lapsed.visit() is None
    world.clock.step(step)
    assert await ended.visit() is None
    assert await lapsed.visit() is None
    assert await alive.visit() is not None
    async with world.another() as restarted:
        assert await restarted.cookies.resume(ended.exchange()) is None
        assert await restarted.cookies.resume(lapsed.exchange()) is None
        assert await restarted.cookies.resume(alive.exchange()) is not None


async def test_a_session_found_expired_stays_so_when_the_clock_was_wrong(world: World) -> None:
    """SES-27: a week ahead and back again, its cookie would be young once more."""
    browser = await world.sign_in(await world.user())
    world.clock.step(IDLE + 60)
    assert await browser.visit() is None
    world.clock.step(-IDLE - 60)
    assert await browser.visit() is None
    async with world.another() as other:
        assert await other.cookies.resume(browser.exchange()) is None


async def test_an_ended_session_stays_ended_when_the_clock_keeps_stepping_back(world: World) -> None:
    """SES-27: long after the revocation is forgotten, its cookie is again "young" by the wall clock."""
    browser = await world.sign_in(await world.user())
    await world.sessions.sign_out(browser.exchange())
    for _ in range(6):
        world.clock.advance(300)
        world.clock.step(-300)
        await world.feed.poll()
        assert await browser.visit() is None
    assert not world.feed.stale


async def test_the_database_down_is_unavailable_and_never_nobody() -> None:
    """AZ-16: young cookies answer for the few seconds in which nothing can have been missed; then nothing does."""
    server = PostgresServer()
    database = Database(server.create(), clock=SystemClock())
    await database.start()
    await migrate(database)
    async with World.open(database) as world:
        browser, stranger = await world.sign_in(await world.user()), Browser(world)
        server.execute("CHECKPOINT")  # It is run without fsync, and would forget what it said it knew.
        server.kill()
        world.clock.advance(3)
        assert await browser.visit() is not None
        world.clock.advance(2)
        with pytest.raises(Unavailable):
            await browser.visit()
        with pytest.raises(Unavailable):
            await world.sessions.sign_out(browser.exchange())
        with pytest.raises(Unavailable):
            await world.feed.poll()
        assert await stranger.visit() is None
        server.start()
        # The very same objects go on.
        assert await browser.visit() is not None
        await world.sessions.sign_out(browser.exchange())
        await world.feed.poll()
        assert await browser.visit() is None
    await database.close()
    server.close()


# -- cookies from before keys were bound to the issuer -------------------------------------------------------------


async def test_an_unbound_cookie_is_asked_of_the_store_and_replaced(world: World) -> None:
    """SES-31: what it says is not believed; the session it proves goes on."""
    user = await world.user()
    browser = await world.sign_in(user)
    before = await browser.session()
    envelope = world.codec.open((browser.cookie or "").partition("=")[2].encode())
    assert envelope is not None
    told = structs.replace(envelope, state=structs.replace(envelope.state, aal=3, amr="hwk"))
    old = EnvelopeCodec(Unbound(KEYS)).seal(told)  # type: ignore[arg-type]
    async with world.another() as upgraded:
        visitor = Browser(upgraded, f"__Host-routeguard={old}")
        assert await visitor.session() == before
        assert visitor.cookie != f"__Host-routeguard={old}"
        replaced = upgraded.codec.open((visitor.cookie or "").partition("=")[2].encode())
        assert replaced is not None
        assert replaced.user
        await visitor.session()
    await world.delete_rows_behind_its_back()
    async with world.another() as upgraded:
        assert await Browser(upgraded, f"__Host-routeguard={old}").visit() is None


# -- a machine that was suspended ------------------------------------------------------------------------------------


@pytest.mark.parametrize("polled", [True, False])
async def test_a_session_revoked_while_the_machine_was_suspended(world: World, polled: bool) -> None:
    """SES-18: the feed forgot the revocation before this process could hear of it."""
    user = await world.user()
    browser, kept = await world.sign_in(user), await world.sign_in(user)
    revoked = await browser.session()
    await kept.session()
    async with world.another() as other, other.database.transaction() as tx:
        await other.sessions.revoke(tx, user.id, revoked.id)
    await world.suspend_machine(polled=polled)
    assert await browser.visit() is None
    assert await kept.visit() is not None
