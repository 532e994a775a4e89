"""Families by themselves: what moves them on, what the grace forgives, and what ends them."""

from __future__ import annotations

import logging
from datetime import timedelta

import pytest
import sqlalchemy as sa

from routeguard.core.errors import ConfigError, ProblemError
from routeguard.core.secret import Secret
from routeguard.identity.sessions import store as session_store
from routeguard.identity.tokens import store
from routeguard.identity.tokens.families import _MAXIMUM
from routeguard.identity.tokens.models import TokenSettings
from routeguard.identity.tokens.refresh import RefreshCodec, hash_of
from tests.fakes import Unbound, deployment
from tests.sessions.world import KEYS, SECRET
from tests.tokens.world import LAPTOP, PHONE, World

COVERS = ("identity/tokens/models", "identity/tokens/refresh", "identity/tokens/rows", "identity/tokens/store")

pytestmark = pytest.mark.anyio

OTHER = Secret(b"another secret of thirty-two byt")


async def test_a_token_is_good_once_and_each_leads_to_the_next(world: World) -> None:
    family = await world.family()
    text = family.refresh_token
    seen = {text}
    for generation in range(1, 5):
        found = await world.families.rotate(text, binding=PHONE)
        assert found is not None
        assert found.session == family.session
        text = found.refresh_token
        assert text not in seen
        seen.add(text)
        [row] = await world.family_rows()
        assert (row.generation, row.current_hash) == (generation, hash_of(text))


async def test_nothing_stored_opens_anything(world: World) -> None:
    """SES-22"""
    family = await world.family()
    [row] = await world.family_rows()
    for value in row:
        if isinstance(value, str | bytes):
            assert await world.families.rotate(value, binding=PHONE) is None
    assert family.refresh_token not in repr(row)
    assert await world.rotate(family.refresh_token) is not None


async def test_a_token_we_did_not_write_ends_no_family(world: World) -> None:
    """SES-30: each character changed, each length, another service's key: 401, and the owner goes on."""
    family = await world.family()
    text = family.refresh_token
    async with World.of(world.database, secret=OTHER) as stranger:
        token = world.refresh_codec.read(text)
        assert token is not None
        forged = [stranger.refresh_codec.first(token.user_id, token.family_id), stranger.refresh_codec.successor(token)]
    forged += [text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :] for at in range(len(text))]
    forged += [text[:size] for size in range(len(text))]
    forged += [text + "=", text + "A", " " + text, text.replace(".", ".."), "x" * 10_000, "\udce4" * 40, "\x00"]
    for one in forged:
        assert await world.rotate(one) is None
    assert await world.rotate(text) is not None


async def test_a_lost_answer_is_given_again(world: World) -> None:
    """SES-12"""
    first = (await world.family()).refresh_token
    second = await world.rotate(first)
    assert [await world.rotate(first) for _ in range(3)] == [second] * 3
    assert second is not None
    third = await world.rotate(second)
    assert await world.rotate(second) == third
    assert len(await world.family_rows()) == 1
    assert await world.events() == []


async def test_after_the_grace_the_family_dies(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """SES-12: the family, its session, what it could become; told once, without a word of the token."""
    caplog.set_level(logging.DEBUG)
    family = await world.family()
    second = await world.rotate(family.refresh_token)
    assert second is not None
    await world.age(10.5)
    assert await world.rotate(family.refresh_token) is None
    assert await world.family_rows() == []
    assert await world.rows() == []
    for _ in range(3):
        assert await world.rotate(second) is None
        assert await world.rotate(family.refresh_token) is None
    session = family.session
    [event] = await world.events()
    assert (event.user_id, event.session_id, event.client_id) == (session.principal_id, session.id, "test")
    lines = [record for record in caplog.records if "refresh-token-reused" in record.getMessage()]
    assert len(lines) == 1
    assert session.id in lines[0].getMessage()
    for text in (family.refresh_token, second):
        assert text not in caplog.text
        assert text.split(".")[1] not in caplog.text


async def test_a_lost_answer_may_be_asked_for_until_the_successor_is_used(world: World) -> None:
    """SES-12: for `retry`, as the same client, and never past the successor's own use."""
    settings = TokenSettings(retry=timedelta(hours=1))
    async with World.of(world.database, tokens=settings) as mobile:
        family = await mobile.family()
        successor = await mobile.rotate(family.refresh_token)
        assert successor is not None
        await mobile.age(3500)
        assert await mobile.rotate(family.refresh_token) == successor
        assert await mobile.rotate(successor) is not None
        assert await mobile.rotate(family.refresh_token) is None, "the successor was used"
        assert await mobile.family_rows() == []


@pytest.mark.parametrize("later", ["another client", "after an hour"])
async def test_a_retry_is_for_the_same_client_and_for_a_time(world: World, later: str) -> None:
    async with World.of(world.database, tokens=TokenSettings(retry=timedelta(hours=1))) as mobile:
        family = await mobile.family()
        assert await mobile.rotate(family.refresh_token) is not None
        await mobile.age(3601 if later == "after an hour" else 60)
        binding = LAPTOP if later == "another client" else PHONE
        assert await mobile.rotate(family.refresh_token, binding) is None
        assert await mobile.family_rows() == []


@pytest.mark.parametrize("retry", [timedelta(seconds=-1), timedelta(days=1, seconds=1)])
def test_a_retry_has_bounds(retry: timedelta) -> None:
    with pytest.raises(ConfigError, match=r"tokens\.retry"):
        TokenSettings(retry=retry)


async def test_another_client_has_no_grace(world: World) -> None:
    """SES-13"""
    first = (await world.family()).refresh_token
    second = await world.rotate(first, PHONE)
    assert second is not None
    assert await world.rotate(first, LAPTOP) is None
    assert await world.family_rows() == []
    assert await world.rotate(second, PHONE) is None
    assert len(await world.events()) == 1


async def test_the_binding_is_that_of_the_last_rotation(world: World) -> None:
    """A browser that was updated rotates, and has the grace from then on."""
    first = (await world.family(binding=LAPTOP)).refresh_token
    second = await world.rotate(first, PHONE)
    assert second is not None
    assert await world.rotate(first, PHONE) == second


async def test_the_grace_is_for_the_last_token_only(world: World) -> None:
    """SES-14: two rotations back is reuse, however quickly."""
    first = (await world.family()).refresh_token
    second = await world.rotate(first)
    assert second is not None
    third = await world.rotate(second)
    assert third is not None
    assert await world.rotate(first) is None
    assert await world.rotate(third) is None
    assert await world.family_rows() == []


async def test_a_grace_does_not_grow_by_its_use(world: World) -> None:
    """SES-14"""
    first = (await world.family()).refresh_token
    second = await world.rotate(first)
    await world.age(6)
    assert await world.rotate(first) == second
    await world.age(6)
    assert await world.rotate(first) is None


async def test_no_grace_when_so_configured(world: World) -> None:
    async with World.of(world.database, tokens=TokenSettings(grace=timedelta(0))) as strict:
        first = (await strict.family()).refresh_token
        second = await strict.rotate(first)
        assert second is not None
        assert await strict.rotate(first) is None
        assert await strict.rotate(second) is None


async def test_a_restart_forgets_nothing(world: World) -> None:
    """SES-06: what a new process knows is what the database says."""
    first = (await world.family()).refresh_token
    second = await world.rotate(first)
    async with World.of(world.database) as restarted:
        assert await restarted.rotate(first) == second
        await world.age(11)
        assert await restarted.rotate(first) is None
        assert second is not None
        assert await restarted.rotate(second) is None
        assert await restarted.family_rows() == []


async def test_a_new_secret_takes_over_the_tokens_of_the_old(world: World) -> None:
    first = (await world.family()).refresh_token
    second = await world.rotate(first)
    assert second is not None
    async with World.of(world.database, secret=OTHER, older=(SECRET,)) as renewed:
        # The successor was made with the old key, and is found with it.
        assert await renewed.rotate(first) == second
        third = await renewed.rotate(second)
        assert third is not None
        assert await renewed.rotate(second) == third
        assert await world.rotate(third) is None
        assert await renewed.rotate(third) is not None
    async with World.of(world.database, secret=OTHER) as forgetful:
        before = await world.family_rows()
        assert await forgetful.rotate(second) is None
        assert await world.family_rows() == before


async def test_the_end_of_a_session_ends_its_families(world: World) -> None:
    """SES-08, SES-09, SES-17"""
    user = await world.user()
    ended = [await world.session(user) for _ in range(3)]
    families = [await world.family(one) for one in ended]
    other = await world.family()
    async with world.database.transaction() as tx:
        await world.sessions.revoke(tx, user.id, ended[0].id)
    assert [await world.rotate(one.refresh_token) is None for one in families] == [True, False, False]
    async with world.database.transaction() as tx:
        await world.sessions.revoke_all(tx, user.id)
    assert [one.user_id for one in await world.family_rows()] == [other.session.principal_id]
    for one in families:
        assert await world.rotate(one.refresh_token) is None
    assert await world.rotate(other.refresh_token) is not None
    assert await world.events() == []


async def test_suspension_ends_them_too(world: World) -> None:
    user = await world.user()
    family = await world.family(await world.session(user))
    await world.suspend(user)
    await world.restore(user)
    assert await world.rotate(family.refresh_token) is None


async def test_an_unused_token_expires(world: World) -> None:
    family = await world.family()
    refresh = world.tokens.refresh.total_seconds()
    [row] = await world.family_rows()
    assert row.expires_at - row.rotated_at == pytest.approx(refresh, abs=1)
    table = store.refresh_families
    async with world.database.transaction() as tx:
        await tx.execute(sa.update(table).values(expires_at=table.c.expires_at - refresh - 1))
    assert await world.rotate(family.refresh_token) is None
    # It is nobody's fault, so the session goes on; the row is dropped with the next family.
    assert len(await world.rows()) == 1
    again = await world.family(family.session)
    assert [row.current_hash for row in await world.family_rows()] == [hash_of(again.refresh_token)]


async def test_no_token_outlives_its_session(world: World) -> None:
    """SES-23: refreshing counts as use, and moves the absolute end by nothing."""
    family = await world.family()
    sessions = session_store.sessions
    end = world.clock.time() + 3600
    async with world.database.transaction() as tx:
        await tx.execute(sa.update(sessions).values(expires_at=end, idle_expires_at=end - 1800, last_seen_at=1.0))
    text = await world.rotate(family.refresh_token)
    assert text is not None
    [row] = await world.family_rows()
    [session] = await world.rows()
    assert row.expires_at == end == session.expires_at == session.idle_expires_at
    assert session.last_seen_at == pytest.approx(world.clock.time(), abs=60)
    async with world.database.transaction() as tx:
        await tx.execute(sa.update(sessions).values(expires_at=1.0))
    assert await world.rotate(text) is None
    with pytest.raises(ProblemError):
        await world.family(family.session)


async def test_no_family_begins_in_a_session_that_ended(world: World) -> None:
    session = await world.session()
    async with world.database.transaction() as tx:
        await world.sessions.revoke(tx, session.principal_id, session.id)
    with pytest.raises(ProblemError) as caught:
        await world.family(session)
    assert caught.value.problem.status == 401


async def test_a_session_has_so_many_families_and_no_more(world: World) -> None:
    session = await world.session()
    first = await world.family(session)
    last = [await world.family(session) for _ in range(_MAXIMUM + 3)][-1]
    assert len(await world.family_rows()) == _MAXIMUM
    assert await world.rotate(first.refresh_token) is None
    assert await world.rotate(last.refresh_token) is not None
    assert len(await world.rows()) == 1


async def test_a_database_that_lost_the_last_writes(world: World) -> None:
    """OPS-05: the newest token goes on, and reuse of an older one is still reuse."""
    texts = [(await world.family()).refresh_token]
    for _ in range(4):
        found = await world.rotate(texts[-1])
        assert found is not None
        texts.append(found)
    table = store.refresh_families
    async with world.database.transaction() as tx:
        await tx.execute(sa.update(table).values(generation=2, current_hash=hash_of(texts[2])))
    after = await world.rotate(texts[4])
    assert after is not None
    [row] = await world.family_rows()
    assert (row.generation, row.current_hash) == (5, hash_of(after))
    assert await world.rotate(texts[2]) is None
    assert await world.rotate(after) is None


async def test_a_clock_of_another_machine_raises_no_alarm(world: World) -> None:
    """OPS-10: five minutes ahead or behind, the grace is told by the database."""
    first = (await world.family()).refresh_token
    second = await world.rotate(first)
    for offset in (300, -300):
        async with World.of(world.database) as skewed:
            real = skewed.families._clock.time
            skewed.families._clock = type("Skewed", (), {"time": staticmethod(lambda: real() + offset)})()  # noqa: B023
            assert await skewed.rotate(first) == second
    await world.age(11)
    assert await world.rotate(first) is None


async def test_nothing_secret_is_shown(world: World) -> None:
    family = await world.family()
    token = world.refresh_codec.read(family.refresh_token)
    assert token is not None
    assert repr(token) == f"RefreshToken({token.family_id} 0)"
    assert repr(family) == f"Refreshed({family.session.id})"


async def test_a_clock_that_was_set_back_makes_the_grace_no_longer(world: World) -> None:
    """OPS-10: a use in the future is covered by none."""
    first = (await world.family()).refresh_token
    assert await world.rotate(first) is not None
    await world.age(-60)
    assert await world.rotate(first) is None
    assert await world.family_rows() == []


async def test_tokens_from_before_keys_had_an_issuer_are_rotated_once(world: World) -> None:
    """SES-31: the store decides about such a token, and its successor is bound to the issuer."""
    bound, world.families._codec = world.families._codec, RefreshCodec(Unbound(KEYS))  # type: ignore[arg-type]
    old = (await world.family()).refresh_token
    world.families._codec = bound
    other = RefreshCodec(deployment(SECRET, issuer="https://other.example.com"))
    assert other.read(old) is not None
    successor = await world.rotate(old)
    assert successor is not None
    assert other.read(successor) is None
    assert await world.rotate(successor) is not None
    assert await world.rotate(old, LAPTOP) is None
