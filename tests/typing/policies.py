"""What mypy and pyright must see, and must refuse. Checked by `.ci/run`, never executed."""

# A comment that ignores an error which is not there is an error in both: so each of them proves a refusal twice.
# pyright: reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Literal

from fastapi import FastAPI, Request
from typing_extensions import assert_type

from routeguard import Policy, Routeguard, Settings, User, UserSession, csrf, public


@dataclass(frozen=True, slots=True, kw_only=True)
class AppUser(User):
    plan: Literal["free", "pro"] = "free"


plain = Routeguard(Settings())
guard = Routeguard(Settings(), user=AppUser)
assert_type(plain, Routeguard[User])
assert_type(guard, Routeguard[AppUser])

# Policies are values.
assert_type(guard.session() & csrf(), Policy)
assert_type(guard.session() | public, Policy)

# A rule sees the application's own user.
paying = guard.session(rule=lambda session: session.user.plan == "pro")
misspelt = guard.session(rule=lambda session: session.user.plann == "pro")  # type: ignore[attr-defined]
never = guard.session(rule=lambda session: session.user.plan == "gold")  # type: ignore[comparison-overlap]


# The options of a framework are known, too.
guard.install(FastAPI(), default=public, docs=public)
guard.install(FastAPI(), doc=public)  # type: ignore[call-arg]


# A marker leaves the signature as it is.
@guard(paying)
async def report(number: int, *, title: str) -> str:
    return title * number


signature: Callable[..., Coroutine[Any, Any, str]] = report
answer = report(1, title="x")
wrong = report("1", title="x")  # type: ignore[arg-type]


async def handler(request: Request) -> None:
    assert_type(await guard.current_session(request), UserSession[AppUser])
    assert_type(await guard.find_session(request), UserSession[AppUser] | None)
    session = await guard.require(request, paying)
    assert_type(session, UserSession[AppUser])
    assert_type(session.user.plan, Literal["free", "pro"])
