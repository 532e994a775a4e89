"""Time that does not go back."""

from __future__ import annotations

from routeguard.core.clock import SteadyClock
from tests.fakes import FakeClock


def test_a_step_back_is_ridden_out() -> None:
    """SES-27."""
    clock = FakeClock()
    steady = SteadyClock(clock)
    start = steady.time()
    clock.advance(100)
    clock.step(-3600)
    assert steady.time() == start + 100
    clock.advance(10)
    assert steady.time() == start + 110


def test_a_step_forward_counts_and_leaves_nothing_behind() -> None:
    """SES-27."""
    clock = FakeClock()
    steady = SteadyClock(clock)
    start = steady.time()
    clock.step(3600)
    assert steady.time() == start + 3600
    clock.step(-3600)
    assert steady.time() == start


def test_a_corrected_clock_counts() -> None:
    clock = FakeClock()
    steady = SteadyClock(clock)
    start = steady.time()
    clock.step(-30 * 86400)
    assert steady.time() == start - 30 * 86400
    clock.advance(5)
    assert steady.time() == start - 30 * 86400 + 5
    assert steady.now().timestamp() == steady.time()
