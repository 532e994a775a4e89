"""Session policies against an application's own sessions: no store is needed to decide."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from routeguard.core.clock import Clock
from routeguard.core.errors import ConfigError, ProblemError, Unavailable
from routeguard.core.exchange import Exchange
from routeguard.core.policy import Outcome, Policy
from routeguard.core.problem import NOT_FOUND, Problem
from routeguard.core.services import Services
from routeguard.identity.sessions import checks
from routeguard.identity.sessions.checks import SessionRequired, fresh, optional_session, session
from routeguard.identity.sessions.models import SessionId, SessionResolver, UserSession
from routeguard.identity.sessions.resolver import CookieSessions
from tests.fakes import FakeClock
from tests.sessions.fakes import make_exchange

pytestmark = pytest.mark.anyio


@dataclass(frozen=True, slots=True)
class Member:
    id: str = "usr_1"
    role: str = "user"


class OneSession:
    """An application's resolver: one session, none, or a store that is down."""

    user_class = Member

    def __init__(self, found: UserSession[Member] | None = None, *, down: bool = False) -> None:
        self.found = found
        self.down = down

    async def resume(self, exchange: Exchange) -> UserSession[Any] | None:
        if self.down:
            raise Unavailable("sessions")
        return self.found


def signed_in(role: str = "user", *, at: float = 0.0) -> UserSession[Member]:
    moment = datetime.fromtimestamp(at, UTC)
    return UserSession(SessionId("ses_1"), Member(role=role), moment, moment, moment + timedelta(days=1))


def services(resolver: OneSession, clock: FakeClock | None = None) -> Services:
    found = Services()
    found.add(SessionResolver, resolver)
    found.add(Clock, clock or FakeClock())
    return found


async def ask(policy: Policy, resolver: OneSession, clock: FakeClock | None = None) -> tuple[Outcome, Exchange]:
    exchange = make_exchange()
    return await policy.bind(services(resolver, clock))(exchange), exchange


def status(outcome: Outcome) -> int:
    return outcome.status if isinstance(outcome, Problem) else 200


async def test_nobody_is_401_and_somebody_is_the_principal() -> None:
    outcome, exchange = await ask(session(), OneSession())
    assert status(outcome) == 401
    assert exchange.principal is None
    outcome, exchange = await ask(session(), OneSession(signed_in()))
    assert outcome is None
    assert exchange.principal is not None
    assert exchange.principal.principal_id == "usr_1"


async def test_401_comes_before_403() -> None:
    outcome, _ = await ask(session(user={"role": "admin"}, rule=lambda _: False), OneSession())
    assert status(outcome) == 401


async def test_the_rule_is_not_called_after_a_mismatch() -> None:
    called: list[object] = []
    policy = session(user={"role": "admin"}, rule=lambda found: called.append(found) or True)  # type: ignore[func-returns-value]
    outcome, _ = await ask(policy, OneSession(signed_in("user")))
    assert status(outcome) == 403
    assert called == []


async def test_a_mismatch_and_a_refusing_rule_are_told_apart_by_nobody() -> None:
    mismatch, _ = await ask(session(user={"role": "admin"}), OneSession(signed_in()))
    refused, _ = await ask(session(rule=lambda _: False), OneSession(signed_in()))
    assert isinstance(mismatch, Problem)
    assert isinstance(refused, Problem)
    assert mismatch.body() == refused.body()
    assert mismatch.debug != refused.debug


async def sync_yes(_: object) -> bool:
    return True


async def broken(_: object) -> bool:
    await asyncio.sleep(0)
    raise KeyError("role")


async def nothing(_: object) -> None:
    return None


async def forbidden(_: object) -> bool:
    raise NOT_FOUND().error()


async def outage(_: object) -> bool:
    raise Unavailable("the rule's database")


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        pytest.param(lambda _: True, 200, id="True"),
        pytest.param(sync_yes, 200, id="async True"),
        pytest.param(lambda _: False, 403, id="False"),
        pytest.param(lambda _: None, 403, id="AZ-16 None"),
        pytest.param(lambda _: "yes", 403, id="AZ-16 truthy text"),
        pytest.param(lambda _: 1, 403, id="AZ-16 one"),
        pytest.param(lambda _: [0], 403, id="AZ-16 list"),
        pytest.param(nothing, 403, id="AZ-16 async None"),
        pytest.param(lambda found: found.user.no_such, 403, id="AZ-16 raises"),
        pytest.param(broken, 403, id="AZ-16 async raises"),
    ],
)
async def test_only_true_passes(rule: Callable[[Any], Any], expected: int) -> None:
    outcome, _ = await ask(session(rule=rule), OneSession(signed_in()))
    assert status(outcome) == expected


async def test_a_rule_may_refuse_in_its_own_words_or_be_unable_to_tell() -> None:
    with pytest.raises(ProblemError):
        await ask(session(rule=forbidden), OneSession(signed_in()))
    with pytest.raises(Unavailable):
        await ask(session(rule=outage), OneSession(signed_in()))


async def test_a_rule_that_hangs_is_an_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    """AZ-16: times out."""
    monkeypatch.setattr(checks, "_RULE_DEADLINE", 0.01)

    async def hang(_: object) -> bool:
        await asyncio.sleep(60)
        return True

    with pytest.raises(Unavailable):
        await ask(session(rule=hang), OneSession(signed_in()))


@pytest.mark.parametrize("policy", [session(), optional_session()], ids=["session", "optional"])
async def test_an_outage_is_never_a_guest(policy: Policy) -> None:
    with pytest.raises(Unavailable):
        await ask(policy, OneSession(down=True))


async def test_optional_says_who_it_is() -> None:
    outcome, exchange = await ask(optional_session(), OneSession())
    assert outcome is None
    assert exchange.principal is None
    outcome, exchange = await ask(optional_session(), OneSession(signed_in()))
    assert outcome is None
    assert exchange.principal is not None


@pytest.mark.parametrize(("age", "expected"), [(0, 200), (299, 200), (300, 200), (301, 401), (-30, 200), (-3600, 401)])
async def test_fresh(age: float, expected: int) -> None:
    """SES-28; an authentication in the future is that of a clock set back (SES-27)."""
    clock = FakeClock()
    policy = session() & fresh(timedelta(minutes=5))
    outcome, _ = await ask(policy, OneSession(signed_in(at=clock.time() - age)), clock)
    assert status(outcome) == expected


async def test_step_up_says_what_is_needed() -> None:
    """SES-28: RFC 9470 section 3."""
    outcome, _ = await ask(session() & fresh(timedelta(minutes=5)), OneSession(signed_in()))
    assert isinstance(outcome, Problem)
    assert outcome.type.code == "step-up-required"
    assert outcome.body()["max_age"] == 300
    (challenge,) = [value for name, value in outcome.headers if name == "www-authenticate"]
    assert challenge == 'Bearer error="insufficient_user_authentication", max_age="300"'


async def test_fresh_says_of_what_is_no_session_that_it_is_none() -> None:
    exchange = make_exchange()
    program: Any = Member()
    exchange.principal = program
    outcome = await fresh(timedelta(minutes=5)).bind(services(OneSession()))(exchange)
    assert isinstance(outcome, Problem)
    assert outcome.debug == "the caller is not a user session"


async def test_fresh_alone_asks_for_a_session() -> None:
    outcome, _ = await ask(fresh(timedelta(minutes=5)), OneSession(signed_in()))
    assert status(outcome) == 401
    with pytest.raises(ConfigError):
        await ask(fresh(timedelta(0)), OneSession())


def test_mistakes_are_found_at_start_up_and_all_at_once() -> None:
    policy = session(user={"roel": "admin", "role": None}, rule="no function")  # type: ignore[arg-type]
    with pytest.raises(ConfigError) as caught:
        policy.bind(services(OneSession()))
    assert len(caught.value.findings) == 3
    assert "Member has no field 'roel'" in caught.value.findings[0]


def test_policies_are_values_in_plain_words() -> None:
    def is_owner(found: UserSession[Member]) -> bool:
        return found.user.role == "owner"

    policy = session(user={"role": ["admin", "moderator"]}, rule=is_owner) & fresh(timedelta(minutes=5))
    again = session(user={"role": ["admin", "moderator"]}, rule=is_owner) & fresh(timedelta(minutes=5))
    assert policy == again
    assert hash(policy) == hash(again)
    assert policy.describe() == (
        "signed in, authenticated within 5 minutes, user.role is admin or moderator, rule is_owner"
    )


async def test_the_shipped_attacks_are_refused() -> None:
    """Each counter-example of `session()` gets the status it names."""
    for attack in SessionRequired().attacks():
        assert attack.anonymous
        outcome, _ = await ask(session(), OneSession())
        assert status(outcome) == attack.status


@pytest.mark.parametrize(
    ("headers", "sent"),
    [
        ({}, False),
        ({"cookie": "a=b"}, False),
        ({"cookie": "a=b; routeguard=x"}, True),
        ({"cookie": "__Host-routeguard=x"}, True),
        ({"authorization": "Bearer x"}, False),
    ],
)
def test_presents(headers: dict[str, str], sent: bool) -> None:
    exchange = make_exchange(headers=headers)
    sessions = object.__new__(CookieSessions)
    sessions._name = b"routeguard"
    assert sessions.presents(exchange) is sent
    # The application's own sign-in may read anything: it is asked whatever was sent.
    services = Services()
    services.add(SessionResolver, OneSession())
    assert SessionRequired().presents(services)(exchange)
