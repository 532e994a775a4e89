from __future__ import annotations

import asyncio
import logging
import statistics
import time
from collections.abc import AsyncIterator

import bcrypt
import pytest

from routeguard.core.errors import ProblemError
from routeguard.identity.passwords.hashing import HashingPool
from routeguard.identity.passwords.models import PasswordSettings
from tests.steady import alike

pytestmark = pytest.mark.anyio


@pytest.fixture
async def pool() -> AsyncIterator[HashingPool]:
    pool = HashingPool(PasswordSettings(time_cost=1, memory=64))
    yield pool
    await pool.close()


async def test_a_hash_is_argon2id_with_its_own_salt(pool: HashingPool):
    one, other = await pool.hash("seven grey herons"), await pool.hash("seven grey herons")
    assert one.startswith("$argon2id$v=19$m=64,t=1,p=1$")
    assert one != other
    assert (await pool.verify(one, "seven grey herons")).correct
    assert not (await pool.verify(one, "seven grey heron")).correct


def test_the_defaults_are_those_of_owasp():
    settings = PasswordSettings()
    assert (settings.time_cost, settings.memory, settings.parallelism) == (2, 19 * 1024, 1)


async def test_two_long_passwords_with_one_beginning_differ(pool: HashingPool):
    """PW-05"""
    encoded = await pool.hash("a" * 72 + "b" * 28)
    assert (await pool.verify(encoded, "a" * 72 + "b" * 28)).correct
    assert not (await pool.verify(encoded, "a" * 72 + "c" * 28)).correct
    assert not (await pool.verify(encoded, "a" * 72)).correct


async def test_an_outdated_hash_is_replaced_and_a_current_one_is_not(pool: HashingPool):
    other = HashingPool(PasswordSettings(time_cost=2, memory=64))
    for outdated in (await other.hash("herons"), bcrypt.hashpw(b"herons", bcrypt.gensalt(4)).decode()):
        verdict = await pool.verify(outdated, "herons")
        assert verdict.correct
        assert verdict.replacement is not None
        again = await pool.verify(verdict.replacement, "herons")
        assert again.correct
        assert again.replacement is None
        assert (await pool.verify(outdated, "heron")).replacement is None
    await other.close()


async def test_a_foreign_hash_of_the_text_as_typed_opens(pool: HashingPool):
    typed, normalized = "cafe\u0301 au lait", "caf\u00e9 au lait"
    encoded = bcrypt.hashpw(typed.encode(), bcrypt.gensalt(4)).decode()
    assert (await pool.verify(encoded, normalized, typed=typed)).correct


@pytest.mark.parametrize(
    "encoded", ["", "plain", "$argon2id$broken", "$2b$", "!", "\x00", "$argon2id$v=19$m=9999999999,t=1,p=1$c2Fs$AA"]
)
async def test_a_broken_hash_is_a_wrong_password_and_an_alarm(
    pool: HashingPool, encoded: str, caplog: pytest.LogCaptureFixture
):
    """PW-10"""
    for password in ("", "plain", encoded, "canary-5f2e"):
        with caplog.at_level(logging.ERROR, "routeguard.passwords"):
            caplog.clear()
            assert not (await pool.verify(encoded, password)).correct
        assert [record.levelname for record in caplog.records] == ["ERROR"]
        assert "canary-5f2e" not in caplog.text
        assert encoded not in caplog.text or not encoded or encoded == "!"


async def test_nobody_and_a_wrong_password_cost_the_same():
    """ENUM-01: the median of each within a quarter of the other."""
    pool = HashingPool(PasswordSettings(workers=1))
    encoded = await pool.hash("seven grey herons")

    async def spent(stored: str | None) -> float:
        started = time.perf_counter()
        assert not (await pool.verify(stored, "another password")).correct
        return time.perf_counter() - started

    async def medians() -> dict[str, float]:
        pairs = [(await spent(None), await spent(encoded)) for _ in range(15)]
        unknown, known = (sorted(side)[7] for side in zip(*pairs, strict=True))
        return {"unknown": unknown, "known": known}

    await alike(medians, within=1.25)
    await pool.close()


async def test_past_the_queue_is_503_and_the_loop_goes_on():
    """PW-12"""
    pool = HashingPool(PasswordSettings(workers=2, queue=10))
    encoded = await pool.hash("seven grey herons")
    lags: list[float] = []

    async def watch() -> None:
        while True:
            started = time.perf_counter()
            await asyncio.sleep(0.005)
            lags.append(time.perf_counter() - started - 0.005)

    watcher = asyncio.create_task(watch())
    results = await asyncio.gather(*(pool.verify(encoded, "wrong") for _ in range(500)), return_exceptions=True)
    watcher.cancel()
    refused = [result for result in results if isinstance(result, ProblemError)]
    # Twelve have a place; one that is done while the others arrive makes room for another.
    assert 400 < len(refused) <= 488
    assert {error.problem.status for error in refused} == {503}
    assert dict(refused[0].problem.headers)["retry-after"] == "2"
    # The loop had its turns all along: with the work on it there would be one, after all of it.
    assert len(lags) >= 5
    assert statistics.median(lags) < 0.5
    # Room again at once.
    assert (await pool.verify(encoded, "seven grey herons")).correct
    await pool.close()


async def test_callers_who_hang_up_make_no_room_until_the_work_ends():
    """PW-12"""
    pool = HashingPool(PasswordSettings(workers=1, queue=1))
    tasks = [asyncio.create_task(pool.hash("seven grey herons")) for _ in range(2)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    with pytest.raises(ProblemError):
        await pool.hash("one more")
    await tasks[1]
    await pool.hash("now there is room")
    await pool.close()
