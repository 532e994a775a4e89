"""The same policies, decided in an app that has no database."""

from __future__ import annotations

import json

import anyio
import pytest

from routeguard.core.problem import authentication_required
from routeguard.identity.api_keys.service import ApiKeys
from tests.remote.world import App, Service, until

pytestmark = pytest.mark.anyio


async def test_everything_one_may_show_is_understood(service: Service, app: App):
    ann = await service.person()
    _, key = await service.key(ann)
    for header in (ann.bearer, ann.cookies):
        answer = await app.send("/me", header)
        assert answer.status == 200, answer.body
        said = json.loads(answer.body)
        assert (said["id"], said["email"], said["sid"]) == (ann.user.id, ann.user.email, ann.session.id)
        assert await app.status("/staff", header) == 403
        assert await app.status("/either", header) == 200
        assert await app.status("/key", header) == 401
    for header in (("x-api-key", key), ("authorization", f"Bearer {key}")):
        assert await app.status("/key", header) == 200
        assert await app.status("/either", header) == 200
        assert await app.status("/me", header) == 401
    assert await app.status("/perhaps") == 200


async def test_a_token_costs_no_call_and_the_rest_one(service: Service, app: App):
    ann = await service.person()
    _, key = await service.key(ann)
    for _ in range(5):
        assert await app.status("/me", ann.bearer) == 200
    assert app.asked == 0
    for _ in range(5):
        assert await app.status("/me", ann.cookies) == 200
        assert await app.status("/key", ("x-api-key", key)) == 200
    assert app.asked == 2


@pytest.mark.parametrize("name", ["nothing", "garbage", "forged-token", "cookie", "other-cookie", "key"])
async def test_what_is_no_good_is_401_and_looks_the_same(service: Service, app: App, name: str):
    """ENUM-01"""
    ann = await service.person()
    head, _, tail = ann.token.rpartition(".")
    shown = {
        "nothing": (),
        "garbage": (("authorization", "Bearer abc"),),
        "forged-token": (("authorization", f"Bearer {head}.{tail[::-1]}"),),
        "cookie": (("cookie", f"routeguard={'A' * 120}.{'A' * 43}"),),
        "other-cookie": (("cookie", "routeguard=x"),),
        "key": (("x-api-key", "rg_test_" + "0" * 22 + "_" + "0" * 43 + "06b1RS"),),
    }[name]
    answer = await app.send("/me", *shown)
    assert answer.status == 401
    assert json.loads(answer.body)["type"].endswith(authentication_required().type.code)
    if name == "key":
        assert await app.status("/key", *shown) == 401


async def test_a_cookie_sent_by_a_foreign_page_does_nothing(service: Service, app: App):
    """CSRF-01"""
    ann = await service.person()
    foreign = (("origin", "https://evil.example"), ("sec-fetch-site", "cross-site"))
    assert (await app.send("/me", ann.cookies, *foreign, method="POST")).status == 403
    assert (await app.send("/me", ann.bearer, *foreign, method="POST")).status == 200


async def test_what_is_revoked_is_refused_soon(service: Service, app: App):
    """SES-18"""
    ann, bob = await service.person(), await service.person()
    key_id, key = await service.key(bob)
    for header in (ann.bearer, ann.cookies):
        assert await app.status("/me", header) == 200
    assert await app.status("/key", ("x-api-key", key)) == 200
    await service.end(ann)
    await service.get(ApiKeys).revoke(bob.user.id, key_id)

    async def refused() -> bool:
        shown = [await app.status("/me", header) for header in (ann.bearer, ann.cookies)]
        return [*shown, await app.status("/key", ("x-api-key", key))] == [401, 401, 401]

    await until(refused)
    # And it stays so, when every process of the service has heard of it and all is asked anew.
    tick = app.feed.stale[ann.session.id]
    await until(lambda: app.feed.stale[ann.session.id] > tick)
    assert await refused()
    assert await app.status("/me", bob.bearer) == 200


async def test_a_suspended_user_and_a_new_role_are_seen(service: Service, app: App):
    """SES-26"""
    ann, bob = await service.person(), await service.person()
    for person in (ann, bob):
        assert await app.status("/staff", person.bearer) == 403
        assert await app.status("/staff", person.cookies) == 403
    await service.change("set_role", ann, "admin")
    await service.change("suspend", bob)
    fresh = await service.person()

    async def seen() -> bool:
        statuses = [await app.status("/me", header) for header in (bob.bearer, bob.cookies)]
        return statuses == [401, 401] and ann.user.id in app.feed.stale

    await until(seen)

    async def new() -> bool:
        # Whether her session goes on with a new role is the service's decision; she does not keep the old one.
        return 403 not in [await app.status("/staff", header) for header in (ann.bearer, ann.cookies)]

    await until(new)
    assert await app.status("/me", fresh.bearer) == 200


async def test_a_crowd_asks_once(service: Service, app: App):
    ann = await service.person()
    answers: list[int] = []

    async def one() -> None:
        answers.append(await app.status("/me", ann.cookies))

    async with anyio.create_task_group() as group:
        for _ in range(200):
            group.start_soon(one)
    assert answers == [200] * 200
    # Once more where the feed tells of the sign-in only now: what was asked before that does not count.
    assert app.asked <= 2


async def test_a_key_with_uses_of_its_own_is_never_shared(service: Service, app: App):
    """KEY-13"""
    ann = await service.person()
    _, key = await service.key(ann, remaining=5)
    answers: list[int] = []

    async def one() -> None:
        answers.append(await app.status("/key", ("x-api-key", key)))

    async with anyio.create_task_group() as group:
        for _ in range(9):
            group.start_soon(one)
    assert sorted(answers) == [200] * 5 + [401] * 4


async def test_a_key_is_good_only_from_its_networks(service: Service, app: App):
    """KEY-19"""
    ann = await service.person()
    _, key = await service.key(ann, networks=["198.51.100.0/24"])
    shown = ("x-api-key", key)
    assert (await app.send("/key", shown, address="203.0.113.7")).status == 403
    assert (await app.send("/key", shown, address="198.51.100.7")).status == 200
    # Remembered by now, and judged by the address all the same.
    asked = app.asked
    assert (await app.send("/key", shown, address="203.0.113.7")).status == 403
    assert (await app.send("/key", shown, address="198.51.100.8")).status == 200
    assert app.asked == asked


async def test_an_app_with_a_wrong_secret_knows_nobody(service: Service):
    ann = await service.person()
    client_id, _ = await service.client()
    _, foreign = await service.client()
    async with App.of(service, known=False, client=(client_id, foreign)) as app:
        # Without the feed nobody knows what was revoked: neither guest nor user.
        assert await app.status("/me", ann.bearer) == 503
        assert await app.status("/perhaps", ann.cookies) == 503
        assert await app.status("/me") == 401
