"""Tokens, signing keys and API keys are the same in both processes."""

from __future__ import annotations

import asyncio
import base64
import json
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.replicas.world import Deployment, Person, deployed, eventually
from tests.servers import run

COVERS = ("cli/key",)

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(400)]


def kid_of(token: str) -> str:
    head = token.partition(".")[0]
    kid: str = json.loads(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))["kid"]
    return kid


async def test_tokens_of_one_count_at_the_other(person: Person) -> None:
    first, second = person.deployment.replicas
    made = await person.tokens(to=first)
    for replica in (second, first):
        answer = await person.bearer(made["access_token"], to=replica)
        assert answer.json()["user"]["email"] == person.email
    keys = [(await person.get("/.well-known/jwks.json", to=replica)).json() for replica in (first, second)]
    assert keys[0] == keys[1]


async def test_one_refresh_token_has_one_successor(person: Person) -> None:
    """SES-04: thirty-two at once on two replicas; the successor is the only one, and goes on."""
    replicas = person.deployment.replicas
    token = (await person.tokens())["refresh_token"]
    for _ in range(3):
        answers = await asyncio.gather(*(person.refresh(token, to=replicas[at % 2]) for at in range(32)))
        assert [answer.status_code for answer in answers] == [200] * 32
        successors = {answer.json()["refresh_token"] for answer in answers}
        assert len(successors) == 1
        token = successors.pop()


async def test_a_stolen_refresh_token_ends_everything_at_both(person: Person) -> None:
    """SES-13: another client comes with a spent token; family, session and access tokens are dead at both replicas."""
    first, second = person.deployment.replicas
    old = await person.tokens(to=first)
    new = (await person.refresh(old["refresh_token"], to=first)).json()
    assert (await person.bearer(new["access_token"], to=second)).status_code == 200
    stolen = await person.send(
        "POST",
        "/auth/token/refresh",
        to=second,
        json={"refresh_token": old["refresh_token"]},
        headers={"user-agent": "a thief's"},
        cookies=False,
    )
    assert stolen.status_code == 401

    async def dead() -> bool:
        statuses = [
            (await person.bearer(new["access_token"], to=replica)).status_code for replica in (first, second)
        ] + [(await person.get(to=replica, keep=False)).status_code for replica in (first, second)]
        return set(statuses) == {401}

    await eventually(dead)
    for replica in (first, second):
        assert (await person.refresh(new["refresh_token"], to=replica)).status_code == 401


async def test_signing_keys_rotate_under_load(person: Person) -> None:
    """R25: a new key, made by hand while tokens are minted and verified at both; nobody is refused."""
    deployment = person.deployment
    told: Counter[int] = Counter()
    kids: set[str] = set()
    done = asyncio.Event()

    async def use() -> None:
        while not done.is_set():
            made = await person.tokens()
            kids.add(kid_of(made["access_token"]))
            for replica in deployment.replicas:
                told[(await person.bearer(made["access_token"], to=replica)).status_code] += 1

    load = [asyncio.create_task(use()) for _ in range(3)]
    before = (await person.tokens())["access_token"]
    rotated = await asyncio.to_thread(run, deployment.directory, "key", "rotate", **deployment.values)
    assert rotated.returncode == 0, rotated.stderr

    async def new_key_signs() -> bool:
        return len(kids) > 1

    try:
        await eventually(new_key_signs)
    finally:
        done.set()
        await asyncio.gather(*load)
    assert set(told) == {200}
    # A token of the former key still counts, at both.
    for replica in deployment.replicas:
        assert (await person.bearer(before, to=replica)).status_code == 200


async def test_a_compromised_signing_key_is_out_at_both(person: Person) -> None:
    deployment = person.deployment
    before = (await person.tokens())["access_token"]
    for replica in deployment.replicas:
        assert (await person.bearer(before, to=replica)).status_code == 200
    rotated = await asyncio.to_thread(run, deployment.directory, "key", "rotate", "--now", **deployment.values)
    assert rotated.returncode == 0, rotated.stderr

    async def out() -> bool:
        return {(await person.bearer(before, to=one)).status_code for one in deployment.replicas} == {401}

    await eventually(out)
    after = (await person.tokens())["access_token"]
    for replica in deployment.replicas:
        assert (await person.bearer(after, to=replica)).status_code == 200


async def test_api_keys_are_one_and_uses_are_counted_exactly(person: Person) -> None:
    """KEY-12, OPS-14: used at both, counted in the memory of each, written when they end; nothing is lost."""
    deployment = person.deployment
    made = (await person.post("/auth/api-keys", {"name": "counted"})).json()
    shown = {"x-api-key": made["key"]}
    for replica in deployment.replicas:
        for answer in await asyncio.gather(
            *(person.post("/auth/api-keys/verify", to=replica, headers=shown, cookies=False) for _ in range(20))
        ):
            assert answer.status_code == 200, answer.text
    assert [await replica.stop() for replica in deployment.replicas] == [0, 0]
    await asyncio.to_thread(deployment.heal)
    counted = (await person.get(f"/auth/api-keys/{made['id']}")).json()
    # Whoever was put off has used it, or has not.
    assert counted["usage_count"] == 40 or (person.put_off and 40 < counted["usage_count"] <= 40 + person.put_off)
    assert (await person.send("DELETE", f"/auth/api-keys/{made['id']}")).status_code == 204

    async def refused() -> bool:
        return {
            (await person.post("/auth/api-keys/verify", to=replica, headers=shown, cookies=False)).status_code
            for replica in deployment.replicas
        } == {401}

    await eventually(refused)


@pytest.fixture(scope="module")
def apart(tmp_path_factory: pytest.TempPathFactory, _deployment: Deployment) -> Iterator[Deployment]:
    """The same stores, and a third process whose clock is five minutes ahead of the others'."""
    values = _deployment.values
    with deployed(
        tmp_path_factory.mktemp("apart"),
        count=1,
        program="tests.replicas.ahead",
        database_url=values["ROUTEGUARD_DATABASE_URL"],
        ephemeral_url=values["ROUTEGUARD_EPHEMERAL_URL"],
        ROUTEGUARD_SECRET=values["ROUTEGUARD_SECRET"],
    ) as ahead:
        yield ahead


async def test_clocks_five_minutes_apart(apart: Deployment, person: Person) -> None:
    """OPS-10: sessions and tokens of each count at the other, and no refresh is taken for theft."""
    here, ahead = person.deployment.replicas[0], apart.replicas[0]
    for replica in (here, ahead, here):
        assert (await person.get(to=replica)).status_code == 200
    pair = await person.tokens(to=ahead)
    for at in range(6):
        assert (await person.bearer(pair["access_token"], to=(here, ahead)[at % 2])).status_code == 200
        # Twice at once: told by two clocks, the grace would be over at one of them.
        twice = await asyncio.gather(*(person.refresh(pair["refresh_token"], to=to) for to in (here, ahead)))
        assert [answer.status_code for answer in twice] == [200, 200]
        assert len({answer.json()["refresh_token"] for answer in twice}) == 1
        pair = twice[at % 2].json()
    async with person.twin() as other:
        assert (await other.sign_in(to=ahead)).status_code == 200
        assert (await other.get(to=here)).status_code == 200
