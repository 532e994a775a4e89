"""The one way in, taken by a sign-in method and by a second factor that exist in these tests only."""

from __future__ import annotations

import ast
import asyncio
import logging
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest
import sqlalchemy as sa

import routeguard
from routeguard.core.errors import ProblemError, Unavailable
from routeguard.core.exchange import Exchange
from routeguard.core.problem import Problem
from routeguard.core.request import RequestView
from routeguard.foundation.db.database import Transaction
from routeguard.identity.sessions import store
from routeguard.identity.sessions.models import UserSession
from routeguard.identity.sessions.problems import step_up_required
from routeguard.identity.sessions.proof import Pending, Proof, ProvenUser, Refused, Unproven, WaitingStep, Wanted
from routeguard.identity.sessions.service import Sessions
from routeguard.identity.sessions.sign_in import SignIn
from routeguard.identity.users.one_time import one_time_tokens
from tests.passwords.world import GOOD, VERIFIED_ONLY, World
from tests.sessions.fakes import enter

COVERS = ("identity/sessions/pending", "identity/sessions/problems", "identity/sessions/proof")

pytestmark = pytest.mark.anyio

ADA, BOB = "ada@example.com", "bob@example.com"
CODE: Final = "test-code"
Outcome = UserSession[Any] | Pending | Refused


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Any:
    """Return a function from an event's name to what was logged of it."""
    caplog.set_level(logging.INFO)

    def of(event: str) -> list[dict[str, str]]:
        records: list[Any] = [one for one in caplog.records if one.name == "routeguard.security"]
        return [one.routeguard for one in records if one.routeguard["event"] == event]

    return of


def exchange() -> Exchange:
    scope = {"type": "http", "method": "POST", "path": "/in", "headers": [], "client": ("192.0.2.7", 1234)}
    return Exchange(RequestView.from_scope(scope))


def service(world: World) -> SignIn[Any]:
    return world.guard.services.get(SignIn)


async def by_word(world: World, email: str, word: str, *, uniform: bool = True) -> Outcome:
    """A sign-in method in full: everybody's word is "friend"."""
    async with service(world).attempt(email, exchange()) as attempt:
        async with world.database.read() as tx:
            user = await world.users.find_by_email(tx, email)
        if user is None or word != "friend":
            return attempt.refuse("no such user" if user is None else "wrong word")

        async def check(tx: Transaction) -> Proof:
            return Proof(user_id=user.id, amr=("kba",), uniform=uniform)

        return await attempt.enter(check)


class SecondFactor(WaitingStep):
    """Wants a code beside whatever was proven."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []

    async def __call__(self, tx: Transaction, proven: ProvenUser[Any], /) -> Wanted | None:
        self.asked.append(proven.amr)
        return None if "otp" in proven.amr else Wanted(("code", "recovery-code"))

    def ask(self, pending: Pending, exchange: Exchange) -> Problem:
        problem = step_up_required(acr_values="aal2")
        return Problem(
            problem.type, headers=problem.headers, members={"missing": pending.missing, "handle": pending.handle}
        )


async def more(world: World, handle: str, code: str, *, user_id: str | None = None) -> Outcome:
    """Resume with a code, which is a one-time token of the user."""
    async with service(world).resume(handle, exchange()) as attempt:
        assert attempt.user_id is not None

        async def check(tx: Transaction) -> Proof | Unproven:
            redeemed = await world.tokens.redeem(tx, code.partition(" ")[0], code.partition(" ")[2])
            if redeemed is None:
                return Unproven(cause="wrong code", user_id=attempt.user_id)
            return Proof(user_id=redeemed.user_id, amr=("otp",), aal=2)

        return await attempt.enter(check)


async def code_of(world: World, email: str, name: str = CODE) -> str:
    user = await world.user(email)
    async with world.database.transaction() as tx:
        return f"{name} {await world.tokens.issue(tx, name, user.id, ttl=timedelta(minutes=5))}"


async def pending(world: World, email: str = ADA) -> str:
    """Sign in by password with a second factor asked for; return the handle."""
    answer = await world.sign_in(email)
    assert answer.status_code == 401, answer.text
    assert "set-cookie" not in answer.headers
    handle: str = answer.json()["handle"]
    return handle


async def rows(world: World) -> int:
    async with world.database.read() as tx:
        found: int = await tx.scalar(sa.select(sa.func.count()).select_from(store.sessions))
    return found


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    """The whole service, on both databases."""
    async with World.open(database_url) as world:
        yield world


@pytest.fixture
async def guarded(world: World) -> World:
    """A service that asks Ada and Bob for a code."""
    service(world).add_step(SecondFactor())
    for email in (ADA, BOB):
        await world.sign_up(email)
    return world


# -- a method of its own ----------------------------------------------------------------------------------------------


async def test_a_method_refuses_everybody_alike_and_mails_why(database_url: str, lines: Any) -> None:
    """ENUM-01."""
    async with World.open(database_url, users=VERIFIED_ONLY) as world:
        for name in ("known", "suspended", "unverified"):
            await world.sign_up(f"{name}@example.com")
        await world.settle()
        for name in ("known", "suspended"):
            await world.post("email/verify", {"token": world.mailbox.token(f"{name}@example.com")})
        await world.suspend("suspended@example.com")
        unverified = await world.user("unverified@example.com")
        async with world.database.transaction() as tx:
            await world.tokens.void(tx, unverified.id)
        world.mailbox.messages.clear()
        assert isinstance(await by_word(world, "known@example.com", "friend"), UserSession)
        refused = [
            await by_word(world, "nobody@example.com", "friend"),
            await by_word(world, "known@example.com", "wrong"),
            await by_word(world, "suspended@example.com", "friend"),
            await by_word(world, "unverified@example.com", "friend"),
        ]
        assert all(isinstance(one, Refused) for one in refused)
        told = {repr((one.problem.body(), one.problem.headers)) for one in refused if isinstance(one, Refused)}
        assert len(told) == 1
        causes = ["no such user", "wrong word", "user-suspended", "email-unverified"]
        assert [one["cause"] for one in lines("proof-failed")] == causes
        assert all(one["network"] == "192.0.2.0/24" and one["subject"] for one in lines("proof-failed"))
        (entered,) = lines("signed-in")
        assert (entered["user"], entered["network"]) == ((await world.user("known@example.com")).id, "192.0.2.0/24")
        await world.settle()
        assert [mail.to for mail in world.mailbox.messages] == ["unverified@example.com"]
        assert world.mailbox.token("unverified@example.com")


async def test_a_proof_that_reaches_the_owner_alone_is_told_why(world: World) -> None:
    await world.sign_up(ADA)
    await world.suspend(ADA)
    outcome = await by_word(world, ADA, "friend", uniform=False)
    assert isinstance(outcome, Refused)
    assert (outcome.problem.status, outcome.problem.type.code) == (403, "user-suspended")


async def test_a_methods_guesses_slow_down_with_those_of_passwords(world: World, lines: Any) -> None:
    """RL-22."""
    await world.sign_up(ADA)
    for _ in range(30):
        assert isinstance(await by_word(world, ADA, "friend"), UserSession)
    for number in range(5):
        assert (await world.sign_in(BOB, f"wrong {number}")).status_code == 401
        assert isinstance(await by_word(world, BOB, "wrong"), Refused)
    with pytest.raises(ProblemError) as slowed:
        await by_word(world, BOB, "friend")
    assert slowed.value.problem.status == 429
    assert (await world.sign_in(BOB)).status_code == 429
    assert lines("guessing-slowed")[0]["subject"] == lines("proof-failed")[0]["subject"]


async def test_what_cannot_be_told_counts_against_nobody(world: World, lines: Any) -> None:
    await world.sign_up(ADA)

    async def away(tx: Transaction) -> Proof:
        raise Unavailable("the database")

    for _ in range(25):
        with pytest.raises(Unavailable):
            async with service(world).attempt(ADA, exchange()) as attempt:
                await attempt.enter(away)
    assert lines("proof-failed") == []
    assert isinstance(await by_word(world, ADA, "friend"), UserSession)


async def test_a_proof_that_names_no_account_counts_for_the_address_alone(world: World) -> None:
    """RL-22."""
    await world.sign_up(ADA)
    passed = 0
    with pytest.raises(ProblemError):
        for _ in range(200):
            async with service(world).attempt(None, exchange()) as attempt:
                attempt.refuse("made up")
            passed += 1
    assert passed == 100
    assert (await world.sign_in(ADA)).status_code == 200


async def test_what_a_proof_consumed_is_whole_when_no_session_begins(world: World) -> None:
    await world.sign_up(ADA)
    code, user = await code_of(world, ADA), await world.user(ADA)

    async def fails(tx: Transaction, proven: ProvenUser[Any]) -> Problem | None:
        raise KeyError

    async def check(tx: Transaction) -> Proof:
        assert await world.tokens.redeem(tx, CODE, code.partition(" ")[2]) is not None
        return Proof(user_id=user.id, amr=("otp",))

    service(world).add_step(fails)
    with pytest.raises(KeyError):
        async with service(world).attempt(ADA, exchange()) as attempt:
            await attempt.enter(check)
    async with world.database.read() as tx:
        assert await world.tokens.peek(tx, CODE, code.partition(" ")[2]) is not None


# -- a step that wants more -------------------------------------------------------------------------------------------


async def test_a_sign_in_waits_and_is_resumed(guarded: World, lines: Any) -> None:
    answer = await guarded.post("sign-in", {"email": ADA, "password": GOOD, "remember": False})
    assert (answer.status_code, answer.json()["missing"]) == (401, ["code", "recovery-code"])
    assert "insufficient_user_authentication" in answer.headers["www-authenticate"]
    assert await rows(guarded) == 0
    assert lines("signed-in") == lines("proof-failed") == []
    (waits,) = lines("sign-in-pending")
    assert (waits["user"], waits["missing"]) == ((await guarded.user(ADA)).id, "code recovery-code")
    outcome = await more(guarded, answer.json()["handle"], await code_of(guarded, ADA))
    assert isinstance(outcome, UserSession)
    assert (outcome.assurance.amr, outcome.assurance.aal, outcome.lasting) == (("pwd", "otp"), 2, False)
    assert (await rows(guarded), len(lines("signed-in"))) == (1, 1)


async def test_a_handle_is_hashed_and_opens_nothing_by_itself(guarded: World) -> None:
    """MFA-09."""
    handle = await pending(guarded)
    async with guarded.database.read() as tx:
        kept = repr(await tx.all(sa.select(one_time_tokens)))
    assert handle not in kept
    assert handle.rpartition(".")[2] not in kept
    for headers in ({"authorization": f"Bearer {handle}"}, {"cookie": f"routeguard={handle}"}):
        async with guarded.client(**headers) as client:
            assert (await client.get("/auth/session")).status_code == 401


@pytest.mark.parametrize(
    "handle", ["", ".", "x", "a" * 5000, "abcdefgh.\x00", "abcdefgh.x.y", "\ud800.x", "%'_____.x.y"]
)
async def test_a_handle_that_was_made_up_is_401(guarded: World, handle: str, lines: Any) -> None:
    with pytest.raises(ProblemError) as refused:
        await more(guarded, handle, await code_of(guarded, ADA))
    assert refused.value.problem.type.code == "authentication-required"
    assert [one["cause"] for one in lines("proof-failed")] == ["no such pending sign-in"]


async def test_of_sixteen_who_resume_at_once_one_is_signed_in(guarded: World) -> None:
    """Each with a code of its own: one is used up with the handle, the others' are whole again."""
    handle = await pending(guarded)
    codes = [await code_of(guarded, ADA, f"code-{number}") for number in range(5)]

    async def resume(code: str) -> str:
        try:
            outcome = await more(guarded, handle, code)
        except ProblemError as error:
            return error.problem.type.code
        return outcome.problem.type.code if isinstance(outcome, Refused) else type(outcome).__name__

    entered = await asyncio.gather(*(resume(codes[number % 5]) for number in range(16)))
    assert entered.count("UserSession") == 1
    assert set(entered) <= {"UserSession", "authentication-required", "invalid-credentials", "quota-exceeded"}
    assert await rows(guarded) == 1
    async with guarded.database.read() as tx:
        left = [await guarded.tokens.peek(tx, *code.split(" ")) for code in codes]
    assert sum(one is None for one in left) == 1
    with pytest.raises(ProblemError):
        await more(guarded, handle, await code_of(guarded, ADA))


async def test_five_wrong_codes_end_a_handle_and_ten_slow_the_account(guarded: World) -> None:
    """MFA-01, MFA-02, MFA-03: exactly so when they race."""

    async def wrong(handle: str) -> int:
        try:
            outcome = await more(guarded, handle, f"{CODE} usr.wrong")
        except ProblemError as error:
            return error.problem.status
        assert isinstance(outcome, Refused)
        return outcome.problem.status

    codes = []
    for _ in range(3):
        handle = await pending(guarded)
        codes.append(await asyncio.gather(*(wrong(handle) for _ in range(30))))
    assert [one.count(401) for one in codes] == [5, 5, 0]
    assert {status for one in codes for status in one} == {401, 429}
    with pytest.raises(ProblemError) as slowed:
        await more(guarded, await pending(guarded), await code_of(guarded, ADA))
    assert slowed.value.problem.status == 429


async def test_a_wrong_code_leaves_the_handle(guarded: World) -> None:
    handle = await pending(guarded)
    assert isinstance(await more(guarded, handle, f"{CODE} usr.wrong"), Refused)
    assert isinstance(await more(guarded, handle, await code_of(guarded, ADA)), UserSession)


async def test_who_lacks_the_password_does_not_slow_the_second_factor(guarded: World) -> None:
    """RL-11, MFA-15."""
    handle = await pending(guarded)
    assert [(await guarded.sign_in(ADA, f"wrong {number}")).status_code for number in range(11)][-1] == 429
    assert isinstance(await more(guarded, handle, await code_of(guarded, ADA)), UserSession)


async def test_a_factor_of_another_account_completes_nothing(guarded: World) -> None:
    """MFA-09."""
    handle, code = await pending(guarded, ADA), await code_of(guarded, BOB)
    outcome = await more(guarded, handle, code)
    assert isinstance(outcome, Refused)
    assert outcome.problem.type.code == "invalid-credentials"
    assert await rows(guarded) == 0


async def test_two_may_wait_at_once(guarded: World) -> None:
    """RL-11: whoever else knows the password ends no sign-in of the owner."""
    first, second = await pending(guarded), await pending(guarded)
    for handle in (first, second):
        assert isinstance(await more(guarded, handle, await code_of(guarded, ADA)), UserSession)


@pytest.mark.parametrize("change", ["suspended", "signed out everywhere", "expired"])
async def test_a_sign_in_begun_before_does_not_outlast(guarded: World, change: str) -> None:
    handle, code, user = await pending(guarded), await code_of(guarded, ADA), await guarded.user(ADA)
    if change == "expired":
        await guarded.pass_time(10)
        code = await code_of(guarded, ADA)
    elif change == "suspended":
        await guarded.suspend(ADA)
    else:
        async with guarded.database.transaction() as tx:
            await guarded.guard.services.get(Sessions).revoke_all(tx, user.id)
    with pytest.raises(ProblemError) as refused:
        await more(guarded, handle, code)
    assert refused.value.problem.type.code == "authentication-required"
    # The twin: one begun after it goes on, and leaves no row of those that expired.
    if change != "suspended":
        await pending(guarded)
        async with guarded.database.read() as tx:
            left = await tx.all(sa.select(one_time_tokens).where(one_time_tokens.c.purpose.like("sign-in:%")))
        assert len(left) == 1


async def test_the_steps_are_asked_again_with_all_that_was_proven(world: World) -> None:
    step = SecondFactor()
    service(world).add_step(step)
    await world.sign_up(ADA)
    handle = await pending(world)
    await more(world, handle, await code_of(world, ADA))
    assert step.asked == [("pwd",), ("pwd", "otp")]


async def test_only_a_step_that_says_how_it_goes_on_may_wait(world: World) -> None:
    class Silent(WaitingStep):
        async def __call__(self, tx: Transaction, proven: ProvenUser[Any], /) -> Wanted:
            return Wanted(("code",))

    with pytest.raises(TypeError, match="ask"):
        Silent()  # type: ignore[abstract]

    async def plain(tx: Transaction, proven: ProvenUser[Any]) -> Any:
        return Wanted(("code",))

    await world.sign_up(ADA)
    service(world).add_step(plain)
    user = await world.user(ADA)
    with pytest.raises(TypeError, match="WaitingStep"):
        await enter(service(world), user.id, exchange())
    assert await rows(world) == 0


# -- nowhere else -----------------------------------------------------------------------------------------------------

OWN: Final = {
    "signed-in": {"sign_in.py"},
    "proof-failed": {"sign_in.py"},
    "sign-in-pending": {"sign_in.py"},
    "guessing-slowed": {"sign_in.py"},
    "SignInThrottle": {"sign_in.py", "feature.py", "sign_in_throttle.py"},
    "reserve": {"sign_in.py", "sign_in_throttle.py"},
    "sign_in_user": {"sign_in.py", "service.py"},
    "USER_SUSPENDED": {"sign_in.py", "service.py", "problems.py"},
    "EMAIL_UNVERIFIED": {"sign_in.py", "step.py", "problems.py"},
}
FOLDERS: Final = {"sessions", "traffic", "users", "emails"}


def said(tree: ast.AST) -> set[str]:
    """Return the names and words of a module, but for its annotations' imports."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.add(node.value)
    return found


def test_nothing_else_masks_notes_or_throttles_a_sign_in() -> None:
    root = Path(routeguard.__file__).parent
    seen: dict[str, set[str]] = {}
    for path in sorted(root.rglob("*.py")):
        for word in said(ast.parse(path.read_text())) & OWN.keys():
            assert path.name in OWN[word], f"{path.relative_to(root)}: {word} is for identity/sessions/sign_in.py"
            assert path.parent.name in FOLDERS, f"{path.relative_to(root)}: {word} is for identity/sessions/sign_in.py"
            seen.setdefault(word, set()).add(path.name)
    assert all("sign_in.py" in names for names in seen.values())
    assert seen.keys() == OWN.keys()
