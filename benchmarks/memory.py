"""Without a store in the way: what the guard itself costs, and how long signing in holds up the loop."""

from __future__ import annotations

import asyncio
from typing import Any

from benchmarks.apps import PASSWORD, fastapi_app, injected_app, post, running, six, starlette_app
from benchmarks.harness import Case, Time, measure_all, stall
from routeguard import public

SIGN_INS = 8


async def figures(count: int, rounds: int) -> list[dict[str, Any]]:
    """Measure our cases one after the other, each against its bare twin."""
    found: list[dict[str, Any]] = []
    plans: list[tuple[str, Any, Any]] = [
        ("session", fastapi_app, lambda guard: guard.session()),
        ("session, injected as parameter", injected_app, lambda guard: guard.session()),
        ("all six", fastapi_app, six),
        ("all six, Starlette", starlette_app, six),
        ("public route", fastapi_app, lambda _: public),
    ]
    for name, make, policy_of in plans:
        async with running(make, policy_of) as ours:
            case = Case(name, make(None, None), ours.app, headers=[(b"cookie", ours.cookie)])
            found += await measure_all([case], count=count, rounds=rounds)
    return found


async def sign_in_stall() -> tuple[Time, Time]:
    """Return the longest stall in milliseconds while eight sign in at once (the median of five tries), and idle."""
    busy = []
    for _ in range(5):
        async with running(fastapi_app, lambda guard: guard.session()) as ours:
            # Different people: the same sign-in sent twice is run once.
            emails = [f"bench{number}@example.com" for number in range(SIGN_INS)]
            for email in emails:
                await post(ours.app, "sign-up", email=email, password=PASSWORD, name="Bench")
            busy.append(await stall([post(ours.app, "sign-in", email=email, password=PASSWORD) for email in emails]))
    return sorted(busy)[2], await stall([_idle()])


async def _idle() -> None:
    await asyncio.sleep(0.2)
