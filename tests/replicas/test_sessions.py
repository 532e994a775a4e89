"""Two processes behave as one: what one of them is told, the other one knows."""

from __future__ import annotations

import asyncio

import pytest

from tests.replicas.world import PASSWORD, Deployment, Person, eventually

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(400)]


async def both(person: Person) -> list[int]:
    """Return what each replica answers to the person's session."""
    return [(await person.get(to=replica, keep=False)).status_code for replica in person.deployment.replicas]


async def test_a_session_is_one_everywhere(person: Person) -> None:
    for replica in person.deployment.replicas * 2:
        answer = await person.get(to=replica)
        assert answer.status_code == 200
        assert answer.json()["user"]["email"] == person.email


async def test_a_revoked_session_is_refused_everywhere(person: Person) -> None:
    """SES-17, SES-18: warm in both processes, ended by way of one."""
    first, second = person.deployment.replicas
    assert await both(person) == [200, 200]
    async with person.copy() as thief:
        assert (await person.post("/auth/sign-out", to=first)).status_code == 204
        assert (await thief.get(to=first, keep=False)).status_code == 401

        async def refused() -> bool:
            return (await thief.get(to=second, keep=False)).status_code == 401

        await eventually(refused)
        assert await both(thief) == [401, 401]


async def test_sign_out_everywhere_ends_every_browser(person: Person) -> None:
    first, second = person.deployment.replicas
    async with person.twin() as other:
        assert (await other.sign_in(to=second)).status_code == 200
        assert await both(other) == [200, 200]
        assert (await person.post("/auth/sign-out-everywhere", to=first)).status_code == 204

        async def refused() -> bool:
            return await both(other) == [401, 401]

        await eventually(refused)


async def test_a_limit_holds_over_both(deployment: Deployment) -> None:
    """RL-01, R8: a burst of 30 sign-ups an hour from one address, 200 at once on two replicas: 30 get through."""
    async with Person(deployment) as person:
        # Without a body they cost nothing; the limit comes before anybody looks at it.
        answers = await asyncio.gather(
            *(person.post("/auth/sign-up", {}, to=deployment.replicas[number % 2]) for number in range(200))
        )
        statuses = [answer.status_code for answer in answers]
        assert set(statuses) == {422, 429}
        # Whoever was put off may have been counted, and counted again.
        assert statuses.count(422) == 30 or (person.put_off and statuses.count(422) < 30)
        assert all(int(answer.headers["retry-after"]) > 0 for answer in answers if answer.status_code == 429)


async def test_a_mailed_link_works_once_over_both(person: Person) -> None:
    """PW-08: one reset link, twenty tries at once on two replicas, one success."""
    assert (await person.post("/auth/password/forgot", {"email": person.email})).status_code == 202
    token = await person.mailed(r"reset\S*[?#&]token=([\w.~-]+)")
    replicas = person.deployment.replicas
    attempts = [{"token": token, "password": f"{PASSWORD} {number}"} for number in range(20)]
    answers = await asyncio.gather(
        *(
            person.post("/auth/password/reset", body, to=replicas[at % 2], keep=False)
            for at, body in enumerate(attempts)
        )
    )
    good = [at for at, answer in enumerate(answers) if answer.status_code < 300]
    assert len(good) == 1 or (person.put_off and not good), [answer.status_code for answer in answers]
    for answer in answers:
        assert answer.status_code in {204, 429} or answer.json()["type"].endswith("/link-expired"), answer.text
    if not good:
        return
    async with person.twin() as again:
        for replica in replicas:
            assert (await again.sign_in(attempts[good[0]]["password"], to=replica)).status_code == 200
            assert (await again.sign_in(PASSWORD, to=replica)).status_code == 401
