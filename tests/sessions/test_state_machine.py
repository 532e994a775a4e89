"""Random histories of sessions in two processes against a model of a few lines (R13)."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from routeguard.core.clock import SystemClock
from routeguard.core.errors import ProblemError
from routeguard.core.problem import Problem
from routeguard.foundation.db.database import Database
from routeguard.identity.sessions.models import SessionSettings
from tests.fakes import FakeClock
from tests.rounds import rounds as repeated
from tests.sessions.fakes import cookie_of
from tests.sessions.world import Browser, World
from tests.steady import PATIENT

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from routeguard.identity.users.models import User

DAY: Final = 86400.0
IDLE: Final = SessionSettings().idle.total_seconds()
ABSOLUTE: Final = SessionSettings().absolute.total_seconds()
MARGIN: Final = 3 * DAY
"""Clocks step by up to a day either way, and two processes may differ in what they make of it."""

PROCESS: Final = st.integers(0, 1)
INDEX: Final = st.integers(0, 10**6)


@dataclass
class ModelSession:
    """What must be true of a session, by time that only advances."""

    user: int
    born_at: float
    used_at: float
    ended: bool = False
    secret: int = 0


class Histories(RuleBasedStateMachine):
    """The sessions of two users in two processes, and every cookie ever handed out."""

    runner: asyncio.Runner
    database: Database

    @initialize()
    def begin(self) -> None:
        self.now = 0.0
        self.offset = 0.0
        self.clocks = [FakeClock(), FakeClock()]
        self.sessions: list[ModelSession] = []
        self.cookies: list[tuple[str, ModelSession, int]] = []
        self.suspended = [False, False]
        self.roles = ["user", "user"]
        self.worlds = [self.process(0), self.process(1)]
        self.users: list[User] = [self.run(self.worlds[0].user()) for _ in range(2)]

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(work)

    def process(self, number: int) -> World:
        world = World(self.database, self.clocks[number], SessionSettings())
        self.run(world.feed.poll())
        return world

    def both_have_polled(self) -> None:
        """What holds within 5 seconds elsewhere holds from here on."""
        for world in self.worlds:
            self.run(world.feed.poll())

    def pick(self, index: int) -> tuple[str, ModelSession, int]:
        return self.cookies[index % len(self.cookies)]

    def keep(self, cookie: str | None, session: ModelSession) -> None:
        if cookie is not None:
            self.cookies.append((cookie, session, session.secret))

    # -- what people do -------------------------------------------------------------------------------------------

    @rule(number=PROCESS, user=PROCESS)
    def sign_in(self, number: int, user: int) -> None:
        browser = Browser(self.worlds[number])
        found = self.run(self.worlds[number].try_sign_in(self.users[user], browser))
        assert isinstance(found, Problem) is self.suspended[user]
        if not self.suspended[user]:
            session = ModelSession(user, self.now, self.now)
            self.sessions.append(session)
            self.keep(browser.cookie, session)

    @precondition(lambda self: self.cookies)
    @rule(number=PROCESS, index=INDEX)
    def visit(self, number: int, index: int) -> None:
        cookie, session, secret = self.pick(index)
        browser = Browser(self.worlds[number], cookie)
        found = self.run(browser.visit())
        if session.ended or secret != session.secret:
            assert found is None
        elif self.now - session.used_at < IDLE - MARGIN and self.now - session.born_at < ABSOLUTE - MARGIN:
            assert found is not None
        elif self.now - session.used_at > IDLE + MARGIN or self.now - session.born_at > ABSOLUTE + MARGIN:
            assert found is None
        if found is not None:
            assert found.user.id == self.users[session.user].id
            assert found.user.role == self.roles[session.user]
            session.used_at = self.now
            if browser.cookie != cookie:
                self.keep(browser.cookie, session)
        elif secret == session.secret:
            session.ended = True
            self.both_have_polled()

    @precondition(lambda self: self.cookies)
    @rule(number=PROCESS, index=INDEX)
    def sign_out(self, number: int, index: int) -> None:
        cookie, session, secret = self.pick(index)
        self.run(self.worlds[number].sessions.sign_out(Browser(self.worlds[number], cookie).exchange()))
        if secret == session.secret:
            session.ended = True
        self.both_have_polled()

    @precondition(lambda self: self.cookies)
    @rule(number=PROCESS, index=INDEX)
    def rotate(self, number: int, index: int) -> None:
        cookie, session, secret = self.pick(index)
        world = self.worlds[number]
        exchange = Browser(world, cookie).exchange()

        async def work() -> bool:
            try:
                async with world.database.transaction() as tx:
                    await world.sessions.rotate(tx, exchange, amr=("pwd",))
            except ProblemError:
                return False
            return True

        done = self.run(work())
        assert not (done and (session.ended or secret != session.secret))
        if done:
            session.secret += 1
            self.keep(cookie_of(exchange), session)
        self.both_have_polled()

    @rule(number=PROCESS, user=PROCESS)
    def sign_out_everywhere(self, number: int, user: int) -> None:
        world = self.worlds[number]
        self.run(world.sessions.sign_out_everywhere(Browser(world).exchange(), self.users[user].id))
        self.end_all(user)

    @rule(number=PROCESS, user=PROCESS)
    def suspend(self, number: int, user: int) -> None:
        self.run(self.worlds[number].suspend(self.users[user]))
        self.suspended[user] = True
        self.end_all(user)

    @rule(number=PROCESS, user=PROCESS)
    def restore(self, number: int, user: int) -> None:
        self.run(self.worlds[number].restore(self.users[user]))
        self.suspended[user] = False
        self.both_have_polled()

    @rule(number=PROCESS, user=PROCESS, role=st.sampled_from(["user", "moderator"]))
    def change_role(self, number: int, user: int, role: str) -> None:
        self.run(self.worlds[number].set_role(self.users[user], role))
        self.roles[user] = role
        self.both_have_polled()

    def end_all(self, user: int) -> None:
        for session in self.sessions:
            session.ended |= session.user == user
        self.both_have_polled()

    # -- what happens to machines ---------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.5, 3.0, 5.0, 30.0, 61.0, 700.0, 4000.0, DAY, 4 * DAY, 11 * DAY]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        for clock in self.clocks:
            clock.advance(seconds)

    @rule(offset=st.sampled_from([-DAY, -3600.0, -300.0, 0.0, 300.0, 3600.0, DAY]))
    def clocks_step(self, offset: float) -> None:
        """SES-27."""
        for clock in self.clocks:
            clock.step(offset - self.offset)
        self.offset = offset

    @rule(number=PROCESS)
    def restart(self, number: int) -> None:
        self.clocks[number] = FakeClock(self.clocks[number].time())
        self.worlds[number] = self.process(number)

    @rule()
    def poll(self) -> None:
        self.both_have_polled()


@repeated(8, 25, variable="ROUTEGUARD_HISTORIES")
def test_histories(sqlite_url: str, rounds: int) -> None:
    """SES-09, SES-17, SES-18, SES-23, SES-26, SES-27 in any order: the model and both processes never disagree."""
    with asyncio.Runner() as runner:
        database = Database(sqlite_url, clock=SystemClock(), settings=PATIENT)
        runner.run(database.start())
        Histories.runner, Histories.database = runner, database
        try:
            run_state_machine_as_test(
                Histories,
                settings=settings(
                    max_examples=rounds,
                    stateful_step_count=50,
                    deadline=None,
                    derandomize=True,
                    # Histories are long by design.
                    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
                ),
            )
        finally:
            runner.run(database.close())
