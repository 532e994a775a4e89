"""The identity service stopped, frozen and killed under an app: nothing opens that was shut, and it comes back."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta

import anyio
import pytest

from routeguard.remote.models import RemoteSettings
from routeguard.remote.transport import Transport
from tests.remote.world import HASTY, App, Person, Service, until

pytestmark = [
    pytest.mark.anyio,
    # What is away is the process; its database is not asked meanwhile.
    pytest.mark.parametrize("running", ["sqlite", pytest.param("postgresql", marks=pytest.mark.long)], indirect=True),
]


@pytest.fixture
async def app(service: Service) -> AsyncIterator[App]:
    """An app that notices soon that its service is away."""
    async with App.of(service, settings=HASTY) as app:
        yield app


@pytest.fixture(autouse=True)
async def _healed(service: Service) -> AsyncIterator[None]:
    """Leave the process as it was found."""
    yield
    if service.replica.process is None or service.replica.process.poll() is not None:
        await asyncio.to_thread(service.replica.start)
    service.replica.signal(signal.SIGCONT)


async def freeze(service: Service) -> Callable[[], Awaitable[None]]:
    service.replica.signal(signal.SIGSTOP)

    async def thaw() -> None:
        service.replica.signal(signal.SIGCONT)

    return thaw


async def kill(service: Service) -> Callable[[], Awaitable[None]]:
    service.replica.kill()

    async def start() -> None:
        await asyncio.to_thread(service.replica.start)

    return start


async def stop(service: Service) -> Callable[[], Awaitable[None]]:
    await service.replica.stop()

    async def start() -> None:
        await asyncio.to_thread(service.replica.start)

    return start


def is_away(app: App) -> bool:
    return app.guard.services.get(Transport).breaker.open and app.feed._clock.monotonic() >= app.feed.trusted_until


@pytest.mark.parametrize("harm", [freeze, kill, stop])
async def test_tokens_go_on_and_the_rest_is_503(
    service: Service, app: App, harm: Callable[[Service], Awaitable[Callable[[], Awaitable[None]]]]
):
    """AZ-16 SES-18"""
    ann, bob, eve = [await service.person() for _ in range(3)]
    _, key = await service.key(ann)
    shown = ("x-api-key", key)

    async def known() -> bool:
        return [await app.status("/me", ann.bearer), await app.status("/me", ann.cookies)] == [200, 200] and (
            await app.status("/key", shown) == 200
        )

    # In haste it takes a slow answer for an outage.
    await until(known)
    await service.end(eve)
    await until(lambda: eve.session.id in app.feed.stale)
    heal = await harm(service)
    await until(lambda: is_away(app))

    assert await app.status("/me", ann.bearer) == 200
    # One that was not seen before is verified all the same; one that was revoked is not believed.
    assert await app.status("/me", bob.bearer) == 200
    assert await app.status("/me", eve.bearer) == 503
    assert await app.status("/me", ("authorization", f"Bearer {ann.token[:-4]}AAAA")) == 401
    for header in (ann.cookies, bob.cookies, eve.cookies):
        answer = await app.send("/me", header)
        assert answer.status == 503
        assert int(answer.header("retry-after")) > 0
        assert await app.status("/perhaps", header) == 503
    assert await app.status("/key", shown) == 503
    assert await app.status("/me") == 401

    await heal()
    await back(app, ann)
    await until(known)

    async def refused() -> bool:
        # A process that was frozen may not have heard of it yet; one that was started anew has.
        return [await app.status("/me", header) for header in (eve.bearer, eve.cookies)] == [401, 401]

    await until(refused)


async def back(app: App, person: Person) -> None:
    """Wait until a cookie counts again."""

    async def answered() -> bool:
        return await app.status("/me", person.cookies) == 200

    await until(answered)


async def test_nobody_waits_while_it_is_away(service: Service, app: App):
    ann = await service.person()
    heal = await freeze(service)
    await until(lambda: is_away(app))
    app.calls.clear()
    answers: list[int] = []

    async def one() -> None:
        answers.append(await app.status("/me", ann.cookies))

    async with anyio.create_task_group() as group:
        for _ in range(200):
            group.start_soon(one)
    assert answers == [503] * 200
    # No more than a probe, and the try that one may have besides.
    assert len(app.calls) <= 4
    await heal()
    await back(app, ann)


async def test_an_app_started_meanwhile_comes_up_and_waits(service: Service):
    ann = await service.person()
    client = await service.client()
    heal = await kill(service)
    async with App.of(service, client=client, known=False, settings=HASTY) as app:
        assert await app.status("/me", ann.bearer) == 503
        assert await app.status("/me", ann.cookies) == 503
        assert await app.status("/me") == 401
        await heal()
        await back(app, ann)

        async def verified() -> bool:
            return await app.status("/me", ann.bearer) == 200

        # The keys are asked for twice a second, and may come after the first cookie was.
        await until(verified)


async def test_without_offline_a_token_does_not_outlive_the_feed(service: Service):
    """SES-18"""
    ann = await service.person()
    async with App.of(service, settings=HASTY | {"remote": RemoteSettings(offline=timedelta(0))}) as app:

        async def known() -> bool:
            return await app.status("/me", ann.bearer) == 200

        await until(known)
        heal = await kill(service)
        await until(lambda: is_away(app))
        assert await app.status("/me", ann.bearer) == 503
        await heal()
        await back(app, ann)
