"""The breaker: open after some failures, one probe at a time, closed by the first that succeeds."""

from __future__ import annotations

import asyncio

import pytest

from routeguard.core.errors import Unavailable
from routeguard.remote.breaker import Away, Breaker
from tests.fakes import FakeClock


def attempt(breaker: Breaker, *, fails: bool) -> bool:
    """Return whether the call was let through."""
    passed = False
    try:
        with breaker.call():
            passed = True
            if fails:
                raise Away("it")
    except Unavailable:
        pass
    return passed


@pytest.fixture
def breaker(clock: FakeClock) -> Breaker:
    return Breaker(clock=clock, draw=lambda _low, high: high)


def test_three_in_a_row_open_it(breaker: Breaker):
    assert [attempt(breaker, fails=True) for _ in range(5)] == [True, True, True, False, False]
    assert breaker.open


def test_a_success_between_them_begins_anew(breaker: Breaker):
    for fails in (True, True, False, True, True):
        assert attempt(breaker, fails=fails)
    assert not breaker.open


def test_one_probe_now_and_then_until_one_succeeds(breaker: Breaker, clock: FakeClock):
    for _ in range(3):
        attempt(breaker, fails=True)
    clock.advance(0.8)
    with pytest.raises(Unavailable), breaker.call():
        # While the probe is under way nobody else is let through.
        assert not attempt(breaker, fails=False)
        raise Away("still away")
    assert not attempt(breaker, fails=False)
    clock.advance(0.8)
    assert attempt(breaker, fails=False)
    assert attempt(breaker, fails=False)


def test_a_probe_that_was_given_up_leaves_room_for_the_next(breaker: Breaker, clock: FakeClock):
    for _ in range(3):
        attempt(breaker, fails=True)
    clock.advance(0.8)
    with pytest.raises(asyncio.CancelledError), breaker.call():
        raise asyncio.CancelledError
    assert breaker.open
    assert attempt(breaker, fails=False)
    assert not breaker.open
