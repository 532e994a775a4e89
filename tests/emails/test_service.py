"""Addresses over HTTP, end to end, on both databases."""

from __future__ import annotations

import asyncio

import pytest

from tests.passwords.world import GOOD, VERIFIED_ONLY, World, seen

COVERS = (
    "identity/emails/feature",
    "identity/emails/models",
    "identity/emails/routes",
    "identity/users/proof",
    "identity/users/quota",
    "identity/users/verification",
)

pytestmark = pytest.mark.anyio


async def ask_to_change(client: object, email: str, password: str = GOOD) -> object:
    return await client.post("/auth/email/change", json={"email": email, "password": password})  # type: ignore[attr-defined]


async def test_verify_proves_the_address_once(world: World):
    await world.sign_up("ada@example.com")
    await world.settle()
    token = world.mailbox.token("ada@example.com")
    assert not (await world.user("ada@example.com")).email_verified
    answers = [await world.post("email/verify", {"token": token}) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [204, 400]
    assert (await world.user("ada@example.com")).email_verified


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_mail_scanner_uses_nothing_up(world: World, method: str):
    """ML-03"""
    await world.sign_up("ada@example.com")
    await world.settle()
    token = world.mailbox.token("ada@example.com")
    async with world.client(accept="text/html") as scanner:
        response = await scanner.request(method, "/auth/email/verify", params={"token": token})
        assert response.status_code == 200
        assert "set-cookie" not in response.headers
    assert not (await world.user("ada@example.com")).email_verified
    assert (await world.post("email/verify", {"token": token})).status_code == 204


async def test_where_it_is_required_an_unproven_address_keeps_its_owner_out(database_url: str):
    async with World.open(database_url, users=VERIFIED_ONLY) as world:
        first = await world.sign_up("ada@example.com")
        assert first.status_code == 201
        assert "set-cookie" not in first.headers
        await world.settle()
        assert (await world.sign_in("ada@example.com")).status_code == 401
        # The link under way still works, so the right password alone floods no mailbox.
        await world.settle()
        assert len(world.mailbox.to("ada@example.com")) == 1
        await world.post("email/verify", {"token": world.mailbox.token("ada@example.com")})
        assert (await world.sign_in("ada@example.com")).status_code == 200


async def test_resend_is_alike_for_all_and_mails_who_has_not_proven_his_address(world: World):
    """ENUM-09"""
    for name in ("proven", "unproven"):
        await world.sign_up(f"{name}@example.com")
    await world.settle()
    await world.post("email/verify", {"token": world.mailbox.token("proven@example.com")})
    older = world.mailbox.token("unproven@example.com")
    await world.pass_time(6)
    world.mailbox.messages.clear()
    answers = [
        await world.post("email/resend", {"email": f"{n}@example.com"}) for n in ("proven", "unproven", "nobody")
    ]
    assert all(seen(answer) == seen(answers[0]) for answer in answers)
    assert answers[0].status_code == 202
    await world.settle()
    assert [mail.to for mail in world.mailbox.messages] == ["unproven@example.com"]
    # ML-15: the older link is void.
    assert (await world.post("email/verify", {"token": older})).status_code == 400
    assert (await world.post("email/verify", {"token": world.mailbox.token("unproven@example.com")})).status_code == 204


async def test_only_the_new_address_proves_and_the_old_one_is_told(world: World):
    """ML-17"""
    async with world.signed_in("ada@example.com") as client:
        await world.settle()
        first_link = world.mailbox.token("ada@example.com")
        world.mailbox.messages.clear()
        response = await ask_to_change(client, "ada@new.example")
        assert response.status_code == 202  # type: ignore[attr-defined]
        await world.settle()
        assert sorted(mail.to for mail in world.mailbox.messages) == ["ada@example.com", "ada@new.example"]
        asked = world.mailbox.to("ada@example.com")[0]
        assert "asked to change" in asked.subject
        assert "token=" not in asked.text
        assert (await world.user("ada@example.com")).name == "Ada"
        token = world.mailbox.token("ada@new.example")
        reset_before = await forgot(world, "ada@example.com")
        assert (await world.post("email/verify", {"token": token})).status_code == 204
        user = await world.user("ada@new.example")
        assert user.email_verified
        await world.settle()
        assert "address was changed" in world.mailbox.to("ada@example.com")[-1].subject
        shown = (await client.get("/auth/session")).json()
        assert shown["user"]["email"] == "ada@new.example"
    # ML-15: links of before the change, for any purpose, open nothing.
    assert (await world.post("email/verify", {"token": first_link})).status_code == 400
    assert (
        await world.post("password/reset", {"token": reset_before, "password": "another good one"})
    ).status_code == 400
    assert (await world.sign_in("ada@example.com")).status_code == 401
    assert (await world.sign_in("ada@new.example")).status_code == 200


async def forgot(world: World, email: str) -> str:
    await world.settle()
    await world.post("password/forgot", {"email": email})
    await world.settle()
    return world.mailbox.token(email)


async def test_a_taken_address_gets_the_same_answer(world: World):
    """ENUM-05"""
    await world.sign_up("bob@example.com")
    async with world.signed_in("ada@example.com") as client:
        await world.settle()
        world.mailbox.messages.clear()
        answers = [await ask_to_change(client, email) for email in ("free@example.com", "bob@example.com")]
        assert seen(answers[0]) == seen(answers[1])  # type: ignore[arg-type]
        await world.settle()
    told = ["ada@example.com", "ada@example.com", "bob@example.com", "free@example.com"]
    assert sorted(mail.to for mail in world.mailbox.messages) == told
    assert "token=" not in world.mailbox.to("bob@example.com")[0].text


async def test_an_address_taken_meanwhile_stays_with_its_owner(world: World):
    async with world.signed_in("ada@example.com") as client:
        await ask_to_change(client, "wanted@example.com")
        await world.settle()
        token = world.mailbox.token("wanted@example.com")
        await world.sign_up("wanted@example.com", "the owner came first")
        assert (await world.post("email/verify", {"token": token})).status_code == 400
    assert (await world.sign_in("wanted@example.com", "the owner came first")).status_code == 200
    assert (await world.sign_in("ada@example.com")).status_code == 200


async def test_two_changes_at_once_leave_one_final_address(world: World):
    """ML-17"""
    async with world.signed_in("ada@example.com") as client:
        wanted = [f"ada{number}@example.com" for number in range(6)]
        await asyncio.gather(*(ask_to_change(client, email) for email in wanted))
        await world.settle()
        tokens = [world.mailbox.token(email) for email in wanted]
        answers = await asyncio.gather(*(world.post("email/verify", {"token": token}) for token in tokens))
    codes = [answer.status_code for answer in answers]
    assert sorted(codes) == [204] + [400] * 5
    assert (await world.user(wanted[codes.index(204)])).name == "Ada"


async def test_of_16_who_redeem_a_change_at_once_one_does(world: World):
    async with world.signed_in("ada@example.com") as client:
        await ask_to_change(client, "new@example.com")
        await world.settle()
        token = world.mailbox.token("new@example.com")
        answers = await asyncio.gather(*(world.post("email/verify", {"token": token}) for _ in range(16)))
    assert sorted(answer.status_code for answer in answers) == [204] + [400] * 15


@pytest.mark.parametrize("password", ["", "wrong password"])
async def test_a_stolen_session_cannot_change_the_address(world: World, password: str):
    """PW-14"""
    async with world.signed_in("ada@example.com") as thief:
        await world.settle()
        world.mailbox.messages.clear()
        response = await ask_to_change(thief, "eve@example.com", password)
        assert response.status_code == 401  # type: ignore[attr-defined]
        assert (await thief.post("/auth/email/change", json={"email": "eve@example.com"})).status_code == 422
    await world.settle()
    assert world.mailbox.messages == []
    async with world.client() as nobody:
        response = await ask_to_change(nobody, "eve@example.com")
        assert response.status_code == 401  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "email", ["ada\uff20evil.example", "a\u200bda@example.com", "ada@example.com\r\nBcc: eve@example.com", "x"]
)
async def test_an_address_that_is_none_is_422(world: World, email: str):
    """ML-10 ML-12"""
    async with world.signed_in("ada@example.com") as client:
        response = await ask_to_change(client, email)
    assert response.status_code == 422  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["<b>Ada</b>", "{{7*7}}", "<a href=//evil.example>click</a>"])
async def test_a_strangers_name_is_in_no_mail_and_an_owners_is_text(world: World, name: str):
    """ML-13 INJ-05"""
    await world.sign_up("ada@example.com", name=name)
    await world.settle()
    assert name not in world.mailbox.to("ada@example.com")[0].text
    await world.post("email/verify", {"token": world.mailbox.token("ada@example.com")})
    await forgot(world, "ada@example.com")
    mail = world.mailbox.to("ada@example.com")[-1]
    assert name in mail.text
    if "<" in name:
        assert name not in (mail.html or "")


async def test_a_name_with_a_line_break_is_422(world: World):
    """ML-12"""
    assert (await world.sign_up("ada@example.com", name="Ada\r\nBcc: eve@example.com")).status_code == 422


async def test_a_suspended_user_changes_nothing_with_an_old_link(world: World):
    async with world.signed_in("ada@example.com") as client:
        await ask_to_change(client, "new@example.com")
        await world.settle()
    await world.suspend("ada@example.com")
    assert (await world.post("email/verify", {"token": world.mailbox.token("new@example.com")})).status_code == 400


@pytest.mark.parametrize("ending", ["reset", "change", "sign-out-everywhere", "revoke", "sign-out"])
async def test_a_pending_change_ends_with_the_session_and_the_password_it_was_asked_with(world: World, ending: str):
    """ML-15: the owner throws the thief out, who had asked for another address."""
    new = "nine slow otters at dusk"
    async with world.signed_in("ada@example.com") as thief, world.client() as owner:
        await owner.post("/auth/sign-in", json={"email": "ada@example.com", "password": GOOD})
        await ask_to_change(thief, "thief@example.com")
        await world.settle()
        token = world.mailbox.token("thief@example.com")
        if ending == "reset":
            mailed = await forgot(world, "ada@example.com")
            done = await world.post("password/reset", {"token": mailed, "password": new})
        elif ending == "change":
            done = await thief.post("/auth/password/change", json={"current_password": GOOD, "new_password": new})
        elif ending == "revoke":
            listed = (await owner.get("/auth/sessions")).json()["sessions"]
            theirs = [one["id"] for one in listed if not one["current"]]
            done = await owner.delete(f"/auth/sessions/{theirs[0]}")
        else:
            done = await (thief if ending == "sign-out" else owner).post(f"/auth/{ending}")
        assert done.status_code in {200, 204}, done.text
    assert (await world.post("email/verify", {"token": token})).status_code == 400
    assert (await world.user("ada@example.com")).email == "ada@example.com"


@pytest.mark.parametrize(
    "email",
    [
        "=?utf-8?q?e=40attacker.com?=@victim.com",
        '"e@attacker.com"@victim.com',
        "e%attacker.com@victim.com",
        "attacker.com!e@victim.com",
        "e@attacker.com@victim.com",
        "@attacker.com:e@victim.com",
        "e@[127.0.0.1]",
    ],
)
async def test_no_door_takes_an_address_that_is_read_as_another(world: World, email: str):
    """ML-10"""
    async with world.signed_in("ada@example.com") as client:
        answers = [
            await world.sign_up(email),
            await world.sign_in(email),
            await world.post("password/forgot", {"email": email}),
            await world.post("email/resend", {"email": email}),
            await ask_to_change(client, email),
        ]
    for answer in answers:
        assert answer.status_code == 422  # type: ignore[attr-defined]
        assert answer.json()["errors"] == [{"pointer": "/email", "detail": "This is not an e-mail address."}]  # type: ignore[attr-defined]
    await world.settle()
    assert {mail.to for mail in world.mailbox.messages} == {"ada@example.com"}
