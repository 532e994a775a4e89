"""An application with a guard of its own, mounted in a guarded one: the policies around it see what it gets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from starlette.applications import Starlette
from starlette.routing import Host, Mount

from routeguard.app import Routeguard
from routeguard.core.policy import public
from routeguard.protection.traffic.csrf import unsafe_without_csrf
from routeguard.protection.traffic.idempotent import idempotent
from routeguard.protection.traffic.rate_limit import rate_limit
from tests.adapters.test_changed_requests import FROM_AFAR, Changes, as_function, fresh, override, ran, routes, use
from tests.adapters.test_routeguard import SETTINGS, Person, identify
from tests.conformance.wire import send

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _nothing_ran() -> None:
    ran.clear()


def guard() -> Routeguard[Person]:
    return Routeguard(SETTINGS, user=Person, identify=identify)


def guarded(*, change: Any = None, deep: bool = False) -> Starlette:
    """An application with a guard of its own, in which everybody may call."""
    own = guard()
    served: list[Any] = routes(own(public)(fresh()))
    if deep:
        served = [Mount("/", app=Starlette(routes=served, middleware=use(change)))]
    app = Starlette(routes=served, middleware=use(change) if change is not None and not deep else None)
    own.install(app)
    return app


def twice(change: Any) -> Starlette:
    """Another guarded application between the outer one and that with the handler."""
    middle, own = Starlette(), guard()
    middle.router.routes.append(own(public)(Mount("/", app=guarded(), middleware=use(change))))
    own.install(middle)
    return middle


AROUND: dict[str, Callable[[Any, Any], Any]] = {
    "middleware of the mount": lambda mark, change: mark(Mount("/", app=guarded(), middleware=use(change))),
    "middleware around the inner application": lambda mark, change: mark(Mount("/", app=Changes(guarded(), change))),
    "a function around the inner application": lambda mark, change: mark(
        Mount("/", app=as_function(guarded(), change))
    ),
    "below Host": lambda mark, change: mark(Host("{any:str}", Changes(guarded(), change))),
    "middleware of the inner application": lambda mark, change: mark(Mount("/", app=guarded(change=change))),
    "middleware of a mount in the inner application": lambda mark, change: mark(
        Mount("/", app=guarded(change=change, deep=True))
    ),
    "two applications further in": lambda mark, change: mark(Mount("/", app=twice(change))),
}


@pytest.mark.parametrize("name", AROUND)
async def test_the_outer_policy_is_asked_about_what_the_inner_application_gets(name: str) -> None:
    """CSRF-11: a method override behind the outer policy makes a POST of a cross-site link."""
    outer = guard()
    app = Starlette(routes=[AROUND[name](outer(outer.session()), override)])
    outer.install(app)
    host = (b"host", b"app.example")
    forged = await send(app, path="/x", headers=[*FROM_AFAR, host, (b"x-http-method-override", b"POST")])
    assert (forged.status, forged.problem, ran) == (403, "forgery-suspected", [])
    assert (await send(app, path="/x", headers=[*FROM_AFAR, host])).canary
    own = [(b"cookie", b"user=ann"), (b"origin", b"https://app.example"), host]
    assert (await send(app, path="/x", headers=[*own, (b"x-http-method-override", b"POST")])).canary
    assert ran == ["GET", "POST"]


def drop_cookie(scope: Any) -> Any:
    return dict(scope, headers=[pair for pair in scope["headers"] if pair[0] != b"cookie"])


@pytest.mark.parametrize("name", AROUND)
async def test_the_outer_policy_sees_the_caller_that_the_inner_application_gets(name: str) -> None:
    outer = guard()
    app = Starlette(routes=[AROUND[name](outer(outer.session()), drop_cookie)])
    outer.install(app)
    answer = await send(app, path="/x", headers=[(b"cookie", b"user=ann"), (b"host", b"app.example")])
    assert (answer.status, ran) == (401, [])


@pytest.mark.parametrize("name", AROUND)
async def test_limits_around_the_inner_application_count_once(name: str) -> None:
    outer = guard()
    policy = outer.session() & rate_limit("2/minute") & idempotent() & unsafe_without_csrf()
    app = Starlette(routes=[AROUND[name](outer(policy), override)])
    outer.install(app)
    headers = [(b"x-user", b"ann"), (b"host", b"app.example"), (b"x-http-method-override", b"POST")]
    refused = await send(app, path="/x", headers=headers)
    assert (refused.status, refused.problem, ran) == (400, "idempotency-key-missing", [])
    headers.append((b"idempotency-key", b"k1"))
    assert (await send(app, path="/x", headers=headers)).canary
    assert ran == ["POST"]
    assert (await send(app, path="/x", headers=headers)).status == 429


@pytest.mark.parametrize("name", AROUND)
async def test_an_answer_of_the_inner_application_is_kept_for_a_retry(name: str) -> None:
    outer = guard()
    policy = outer.session() & idempotent() & unsafe_without_csrf()
    app = Starlette(routes=[AROUND[name](outer(policy), override)])
    outer.install(app)
    headers = [(b"x-user", b"ann"), (b"host", b"app.example"), (b"x-http-method-override", b"POST")]
    headers.append((b"idempotency-key", b"k1"))
    assert (await send(app, path="/x", headers=headers)).canary
    again = await send(app, path="/x", headers=headers)
    assert (again.status, again.body, again.header("idempotency-replayed"), ran) == (200, b"secret", "true", ["POST"])
