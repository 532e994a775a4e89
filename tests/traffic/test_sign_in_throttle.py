"""Guessing gets slow, the owner gets in, and nobody learns who exists."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from ipaddress import ip_address

import pytest

from routeguard.core.errors import ConfigError, Unavailable
from routeguard.core.problem import Problem
from routeguard.foundation.ephemeral.memory import MemoryEphemeral
from routeguard.foundation.ephemeral.protocol import Ephemeral
from routeguard.foundation.ephemeral.redis import RedisEphemeral
from routeguard.protection.traffic.models import ThrottleSettings
from routeguard.protection.traffic.sign_in_throttle import Guess, SignInThrottle, account_key
from tests.ephemeral.server import ValkeyProcess
from tests.steady import DEADLINE

pytestmark = pytest.mark.anyio

HOME = ip_address("203.0.113.7")


class Hand:
    at = 1000.0

    def __call__(self) -> float:
        return self.at


@pytest.fixture(scope="module")
def valkey() -> Iterator[ValkeyProcess]:
    server = ValkeyProcess()
    server.start()
    yield server
    server.stop()


@pytest.fixture(params=["memory", "valkey"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Ephemeral]:
    if request.param == "memory":
        yield MemoryEphemeral()
        return
    server: ValkeyProcess = request.getfixturevalue("valkey")
    server.call("FLUSHALL")
    store = RedisEphemeral.from_url(server.url, deadline=DEADLINE)
    await store.start()
    yield store
    await store.close()


def wait_of(problem: Problem | None) -> int:
    assert problem is not None
    assert problem.status == 429
    return int(dict(problem.headers)["retry-after"])


async def wrong(throttle: SignInThrottle, email: str, address: object) -> Problem | None:
    """Try a wrong password; return the refusal when it was not let through."""
    reserved = await throttle.reserve(email, address)  # type: ignore[arg-type]
    if isinstance(reserved, Guess):
        async with reserved as guess:
            guess.failed()
        return None
    return reserved


async def right(throttle: SignInThrottle, email: str, address: object) -> Problem | None:
    """Try the right password; return the refusal when it was not let through."""
    reserved = await throttle.reserve(email, address)  # type: ignore[arg-type]
    if isinstance(reserved, Guess):
        async with reserved as guess:
            await guess.succeeded()
        return None
    return reserved


async def tries(throttle: SignInThrottle, email: str, address: object, count: int) -> int:
    """Return how many of `count` failing tries were let through."""
    return sum([await wrong(throttle, email, address) is None for _ in range(count)])


async def test_ten_of_a_thousand_at_once(store: Ephemeral) -> None:
    """RL-07, RL-22: the account is counted over all addresses, in the step that lets the try through."""
    throttle = SignInThrottle(store)
    answers = await asyncio.gather(
        *[wrong(throttle, "alice@example.com", ip_address(0x0A000000 + n)) for n in range(1000)]
    )
    assert answers.count(None) == 10


async def test_address_and_account_both_count(store: Ephemeral) -> None:
    """RL-22: one address over many accounts."""
    throttle = SignInThrottle(store)
    passed = sum([await wrong(throttle, f"user{n}@example.com", HOME) is None for n in range(150)])
    assert passed == 100
    assert await wrong(throttle, "another@example.com", ip_address("198.51.100.1")) is None


@pytest.mark.parametrize(
    "spelling",
    [
        "Alice@Example.com",
        " alice@example.com ",
        "ALICE+x@example.com",
        "alice+1+2@example.com",
        "\uff41lice@example.com",
        "\U0001d41alice@example.com",
        "alice@EXAMPLE.COM",
    ],
)
async def test_spellings_share_a_budget(store: Ephemeral, spelling: str) -> None:
    """RL-20."""
    throttle = SignInThrottle(store)
    assert await tries(throttle, "alice@example.com", HOME, 6) == 6
    assert await tries(throttle, spelling, HOME, 10) == 4


@pytest.mark.parametrize(
    ("one", "other"),
    [("a.b@example.com", "ab@example.com"), ("a@example.com", "a@example.org"), ("+x@example.com", "+y@example.com")],
)
def test_other_mailboxes_do_not(one: str, other: str) -> None:
    """RL-20: the twin."""
    assert account_key(one) != account_key(other)


@pytest.mark.parametrize("text", ["", "@", "+", "a@", "\ud800@x", "a" * 100_000, "\x00", "ﬃ" * 5000])
def test_any_text_has_a_key(text: str) -> None:
    assert len(account_key(text)) == 32


async def test_unknown_accounts_answer_the_same(store: Ephemeral) -> None:
    """ENUM-07: the throttle never asks who exists; nothing in its answer tells a count."""
    throttle = SignInThrottle(store)
    answers = []
    for email in ("exists@example.com", "never-was@example.com"):
        await tries(throttle, email, HOME, 10)
        answers.append(await wrong(throttle, email, ip_address("198.51.100.7")))
    assert None not in answers
    first, second = answers
    assert first is not None
    assert second is not None
    assert first.body() == second.body()
    assert [name for name, _ in first.headers] == [name for name, _ in second.headers] == ["retry-after"]


async def test_the_delay_grows_and_never_locks() -> None:
    """RL-11."""
    clock = Hand()
    throttle = SignInThrottle(MemoryEphemeral(clock=clock))
    waits = []
    for n in range(60):
        # From ever new addresses, so that only the account counts.
        address = ip_address(0x0A000000 + n)
        problem = await wrong(throttle, "alice@example.com", address)
        if problem is not None:
            waits.append(wait_of(problem))
            clock.at += waits[-1] + 0.01
            assert await wrong(throttle, "alice@example.com", address) is None, "the right password enters now"
    assert len(waits) > 40
    assert waits[0] == 30
    assert max(waits) <= 900
    assert waits[-1] == 900
    steps = [waits[0], waits[10], waits[20], waits[-1]]
    assert steps == sorted(set(steps))


async def test_tries_during_the_delay_do_not_lengthen_it(store: Ephemeral) -> None:
    """RL-11."""
    throttle = SignInThrottle(store)
    await tries(throttle, "alice@example.com", HOME, 10)
    first = wait_of(await wrong(throttle, "alice@example.com", HOME))
    for n in range(500):
        await wrong(throttle, "alice@example.com", ip_address(0x0A000000 + n))
    assert wait_of(await wrong(throttle, "alice@example.com", HOME)) <= first


async def test_the_owner_enters_from_home_during_an_attack(store: Ephemeral) -> None:
    """RL-11: strangers use up the account's tries, not those from where it signed in before."""
    throttle = SignInThrottle(store)
    assert await right(throttle, "alice@example.com", HOME) is None
    passed = [await wrong(throttle, "alice@example.com", ip_address(0x0A000000 + n)) is None for n in range(50)]
    assert sum(passed) == 10
    assert await right(throttle, "Alice@example.com", HOME) is None
    stranger = ip_address("198.51.100.99")
    assert await wrong(throttle, "alice@example.com", stranger) is not None, "the twin: from elsewhere she waits"
    assert await tries(throttle, "alice@example.com", HOME, 20) == 10, "home has a budget too"


async def test_own_success_does_not_clear_the_addresss_failures(store: Ephemeral) -> None:
    """RL-10."""
    throttle = SignInThrottle(store)
    failures = 0
    for n in range(200):
        if await wrong(throttle, f"victim{n}@example.com", HOME) is None:
            failures += 1
        await right(throttle, "mallory@example.com", HOME)
    assert failures == 100


async def test_own_success_does_not_clear_the_accounts_failures(store: Ephemeral) -> None:
    throttle = SignInThrottle(store)
    attacker = ip_address("198.51.100.1")
    assert await tries(throttle, "alice@example.com", attacker, 9) == 9
    assert await right(throttle, "alice@example.com", HOME) is None
    assert await tries(throttle, "alice@example.com", attacker, 9) == 1


async def test_a_busy_honest_user_is_never_slowed(store: Ephemeral) -> None:
    throttle = SignInThrottle(store)
    for _ in range(300):
        assert await right(throttle, "alice@example.com", HOME) is None


async def test_store_away_fails_closed() -> None:
    store = RedisEphemeral.from_url("redis://127.0.0.1:1")
    await store.start()
    throttle = SignInThrottle(store)
    with pytest.raises(Unavailable):
        await throttle.reserve("alice@example.com", HOME)
    await store.close()


async def test_a_guess_without_a_verdict_is_given_back(store: Ephemeral) -> None:
    throttle = SignInThrottle(store)
    for error in (Unavailable("database"), OSError("gone"), KeyError("a fault of ours")) * 20:
        reserved = await throttle.reserve("alice@example.com", HOME)
        assert isinstance(reserved, Guess)
        with pytest.raises(type(error)):
            async with reserved:
                raise error
    assert await tries(throttle, "alice@example.com", HOME, 20) == 10


async def test_a_cancelled_guess_is_given_back(store: Ephemeral) -> None:
    throttle = SignInThrottle(store)

    async def hangs(reserved: Guess, inside: asyncio.Event) -> None:
        async with reserved:
            inside.set()
            await asyncio.Event().wait()

    for _ in range(20):
        reserved, inside = await throttle.reserve("alice@example.com", HOME), asyncio.Event()
        assert isinstance(reserved, Guess)
        task = asyncio.create_task(hangs(reserved, inside))
        await inside.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert await tries(throttle, "alice@example.com", HOME, 20) == 10


async def test_guesses_under_way_hold_their_places(store: Ephemeral) -> None:
    """RL-07: no more than ten without a verdict at once, so that racing wrong ones count like any others."""
    throttle = SignInThrottle(store)
    held = [await throttle.reserve("alice@example.com", HOME) for _ in range(15)]
    guesses = [one for one in held if isinstance(one, Guess)]
    assert len(guesses) == 10
    for guess in guesses[:7]:
        async with guess:
            guess.failed()
    for guess in guesses[7:]:
        async with guess:
            pass
    assert await tries(throttle, "alice@example.com", HOME, 20) == 3


async def test_a_first_sign_in_beside_another_gives_back_what_it_took(store: Ephemeral) -> None:
    """The address becomes known in between: the account's own counter must not keep what this one took."""
    throttle = SignInThrottle(store)
    for _ in range(20):
        await store.delete(f"{{acc:{account_key('alice@example.com')[:16].hex()}}}:known:{HOME}")
        first = await throttle.reserve("alice@example.com", HOME)
        second = await throttle.reserve("alice@example.com", HOME)
        for one in (first, second):
            assert isinstance(one, Guess)
            async with one as guess:
                await guess.succeeded()
    assert await tries(throttle, "alice@example.com", ip_address("198.51.100.9"), 20) == 10


async def test_a_store_that_goes_away_in_the_middle_takes_no_success() -> None:
    server = ValkeyProcess()
    server.start()
    store = RedisEphemeral.from_url(server.url, deadline=DEADLINE)
    await store.start()
    throttle = SignInThrottle(store)
    try:
        reserved = await throttle.reserve("alice@example.com", HOME)
        assert isinstance(reserved, Guess)
        async with reserved as guess:
            server.stop()
            await guess.succeeded()
    finally:
        await store.close()
        server.stop()


def test_settings_refuse_a_lock() -> None:
    with pytest.raises(ConfigError) as caught:
        ThrottleSettings(free=0, longest_delay=timedelta(days=1), address_burst=0, address_hourly=0)
    assert len(caught.value.findings) == 4
