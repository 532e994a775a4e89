"""From proof to session: the one way in, whatever the proof was."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from routeguard.core.problem import Problem, authentication_required
from routeguard.core.secret import digest
from routeguard.core.security_log import network_of, note
from routeguard.identity.sessions.pending import LIFE, Begun
from routeguard.identity.sessions.problems import USER_SUSPENDED, invalid_credentials
from routeguard.identity.sessions.proof import Pending, Proof, ProvenUser, Refused, Unproven, WaitingStep, Wanted
from routeguard.identity.users.problems import EMAIL_UNVERIFIED
from routeguard.protection.traffic.sign_in_throttle import account_key

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from routeguard.core.exchange import Exchange
    from routeguard.core.security_log import AccountPseudonyms
    from routeguard.foundation.db.database import Database, Transaction
    from routeguard.identity.sessions.models import UserSession
    from routeguard.identity.sessions.pending import PendingSignIns
    from routeguard.identity.sessions.proof import ProofCheck, SignInStep
    from routeguard.identity.sessions.service import Sessions
    from routeguard.identity.users.verification import EmailVerification
    from routeguard.protection.traffic.sign_in_throttle import Guess, SignInThrottle
    from routeguard.protection.traffic.site import Site

U = TypeVar("U")

_UNTOLD: Final = frozenset({USER_SUSPENDED, EMAIL_UNVERIFIED})
"""Refusals that say there is such an account: told only for a proof that reaches its owner alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignInParts(Generic[U]):
    """What signing in is made of. `steps` are in the order they are asked, complete before the first request."""

    database: Database
    sessions: Sessions[U]
    pending: PendingSignIns
    throttle: SignInThrottle
    verification: EmailVerification
    site: Site
    pseudonyms: AccountPseudonyms
    steps: list[SignInStep | WaitingStep] = field(default_factory=list)


class SignIn(Generic[U]):
    """Takes every sign-in method the same way, so that a new method cannot forget a part of it.

    A method begins an attempt, looks at the proof, and either refuses or enters::

        async with sign_in.attempt(email, exchange) as attempt:
            outcome = await attempt.enter(check) if right else attempt.refuse("wrong password")

    Counting guesses and giving them back, the one refusal for all that must not be told apart, the mail that says
    why, the lines of the security log, the steps and the session are done here and nowhere else.
    """

    def __init__(self, parts: SignInParts[U]) -> None:
        self._parts = parts

    def add_step(self, step: SignInStep | WaitingStep) -> None:
        """Ask `step` after those added before. Called before the first request."""
        self._parts.steps.append(step)

    @asynccontextmanager
    async def attempt(self, account: str | None, exchange: Exchange) -> AsyncIterator[SignInAttempt[U]]:
        """Count a guess before the proof is looked at, whether the account exists or not (attack ENUM-07).

        `account` is the address as it was typed; None for a proof that names none and cannot be guessed, which counts
        for the client's address alone. Raises ProblemError 429, and Unavailable.
        """
        async with self._begin(exchange, account) as attempt:
            yield attempt

    @asynccontextmanager
    async def resume(self, handle: str, exchange: Exchange) -> AsyncIterator[SignInAttempt[U]]:
        """Go on with a pending sign-in: check a further proof of `attempt.user_id`, then refuse or enter.

        `enter` consumes the handle and adds to what was proven before. A wrong proof leaves the handle as it is: five
        may be tried with it, and the account counts them over all its handles (attacks MFA-01, MFA-02). They are
        counted apart from the guesses at first proofs, so that no caller who lacks one slows the owner (attack MFA-15).
        Raises ProblemError 401 authentication-required for a handle that no longer counts, 429, and Unavailable.
        """
        async with self._parts.database.read() as tx:
            begun = await self._parts.pending.find(tx, handle)
        if begun is None:
            note("proof-failed", exchange, cause="no such pending sign-in", network=self._network(exchange))
            raise authentication_required("no such pending sign-in").error()
        async with self._begin(exchange, begun.account, begun=begun, handle=handle) as attempt:
            yield attempt

    @asynccontextmanager
    async def _begin(
        self, exchange: Exchange, account: str | None, *, begun: Begun | None = None, handle: str = ""
    ) -> AsyncIterator[SignInAttempt[U]]:
        subject = None if account is None else self._parts.pseudonyms.of(account_key(account))
        pending = None if begun is None else digest(handle).hex()[:32]
        reserved = await self._parts.throttle.reserve(account, self._parts.site.address(exchange), pending=pending)
        if isinstance(reserved, Problem):
            level, network = logging.WARNING, self._network(exchange)
            note("guessing-slowed", exchange, level=level, subject=subject, network=network)
            raise reserved.error()
        async with reserved as guess:
            yield SignInAttempt(self._parts, exchange, guess, account=account, begun=begun, handle=handle)

    def _network(self, exchange: Exchange) -> str | None:
        return network_of(self._parts.site.address(exchange))


class SignInAttempt(Generic[U]):
    """One counted look at a proof. Made by `SignIn.attempt` and `SignIn.resume`, and over with their context.

    Ends with one of `refuse`, `confirm` and `enter`. Without any (the database is away, the hashing queue is full, the
    client left) the caller has not learned whether the proof was right, and the guess is given back.
    """

    def __init__(
        self,
        parts: SignInParts[U],
        exchange: Exchange,
        guess: Guess,
        *,
        account: str | None,
        begun: Begun | None,
        handle: str,
    ) -> None:
        self._parts = parts
        self._exchange = exchange
        self._guess = guess
        self._account = account
        self._begun = begun
        self._handle = handle

    @property
    def user_id(self) -> str | None:
        """Whose further proof to look at, in a sign-in that is resumed."""
        return None if self._begun is None else self._begun.user_id

    def refuse(self, cause: str, *, user_id: str | None = None) -> Refused:
        """Judge the proof wrong: it stays counted, and the answer is that of every other wrong proof.

        `cause` and `user_id`, where there is such a user, are for the logs.
        """
        told = invalid_credentials(cause if user_id is None else f"{cause} ({user_id})")
        return self._refuse(told, cause, user_id)

    async def confirm(self) -> None:
        """Judge the proof right where no session begins with it: a password that is asked for again."""
        await self._guess.succeeded()

    async def enter(self, check: ProofCheck) -> UserSession[U] | Pending | Refused:
        """Judge the proof right unless `check` says otherwise, ask the steps, and start the session.

        `check` looks again at a proof or consumes it, in the transaction that starts the session: a password changed
        meanwhile counts, and no proof is used up without a session (attack SES-09). It may run more than once, each
        time after everything of before was rolled back. Raises Unavailable.
        """
        try:
            outcome = await self._parts.database.run(partial(self._enter, check=check))
        except _HandleSpentError:
            return Refused(authentication_required("the pending sign-in was resumed meanwhile"), "resumed meanwhile")
        if isinstance(outcome, Unproven):
            return self.refuse(outcome.cause, user_id=outcome.user_id)
        if isinstance(outcome, _Stopped):
            return self._refuse(outcome.told, outcome.cause, outcome.user_id)
        if isinstance(outcome, _Waiting):
            # Neither wrong nor done: the guess is given back, and the place is not yet known to be the owner's.
            return replace(outcome.pending, problem=outcome.step.ask(outcome.pending, self._exchange))
        await self._guess.succeeded()
        return outcome

    async def _enter(self, tx: Transaction, *, check: ProofCheck) -> UserSession[U] | Unproven | _Stopped | _Waiting:
        proof = await check(tx)
        if isinstance(proof, Unproven):
            return proof
        if self._begun is not None and proof.user_id != self._begun.user_id:
            # A factor of another account completes nothing (attack MFA-09).
            return Unproven(cause="the proof is of another user", user_id=self._begun.user_id)
        user = await self._parts.sessions.sign_in_user(tx, proof.user_id)
        proof = await self._with_what_was_proven(tx, proof)
        if isinstance(user, Problem):
            return self._stop(user, proof)
        stopped = await self._ask_steps(tx, user, proof)
        if stopped is not None:
            return stopped
        session = await self._parts.sessions.start(
            tx, user, exchange=self._exchange, amr=proof.amr, aal=proof.aal, lasting=proof.lasting
        )
        tx.after_commit(partial(self._note, "signed-in", user=proof.user_id, session=session.id))
        return session

    async def _with_what_was_proven(self, tx: Transaction, proof: Proof) -> Proof:
        """Consume the handle, if there is one, and return all proofs as one.

        The user is locked before the handle's row, in the order in which an ending of all sessions takes them. Of any
        number who resume at once one gets it; what the others' proofs used up is rolled back.
        """
        if self._begun is None:
            return proof
        begun = await self._parts.pending.take(tx, self._handle)
        if begun is None:
            raise _HandleSpentError
        amr = tuple(dict.fromkeys((*begun.amr, *proof.amr)))
        return replace(proof, amr=amr, aal=max(begun.aal, proof.aal), lasting=begun.lasting)

    async def _ask_steps(self, tx: Transaction, user: U, proof: Proof) -> _Stopped | _Waiting | None:
        proven = ProvenUser(user, proof.amr, proof.aal, self._exchange)
        for step in self._parts.steps:
            answer = await step(tx, proven)
            if isinstance(answer, Problem):
                if answer.type is EMAIL_UNVERIFIED:
                    # The answer may not say what is missing, so the mail does.
                    await self._parts.verification.send_unless_pending(tx, user)
                return self._stop(answer, proof)
            if isinstance(step, WaitingStep) and isinstance(answer, Wanted):
                return await self._wait(tx, step, answer, user, proof)
            if answer is not None:
                raise TypeError(f"the sign-in step {step!r} answered {answer!r}; only a WaitingStep may answer Wanted")
        return None

    async def _wait(self, tx: Transaction, step: WaitingStep, wanted: Wanted, user: Any, proof: Proof) -> _Waiting:
        begun = Begun(
            user_id=proof.user_id,
            account=user.email if self._account is None else self._account,
            amr=proof.amr,
            aal=proof.aal,
            lasting=proof.lasting,
        )
        handle = await self._parts.pending.keep(tx, begun)
        tx.after_commit(partial(self._note, "sign-in-pending", user=proof.user_id, missing=" ".join(wanted.methods)))
        return _Waiting(step, Pending(missing=wanted.methods, handle=handle, expires_in=int(LIFE.total_seconds())))

    @staticmethod
    def _stop(problem: Problem, proof: Proof) -> _Stopped:
        """Return the refusal of a user whose proof was right; what tells of the account becomes the one 401."""
        cause = problem.debug or problem.type.code
        untold = proof.uniform and problem.type in _UNTOLD
        return _Stopped(invalid_credentials(cause) if untold else problem, cause, proof.user_id)

    def _refuse(self, told: Problem, cause: str, user_id: str | None) -> Refused:
        subject = None if self._account is None else self._parts.pseudonyms.of(account_key(self._account))
        self._guess.failed()
        self._note("proof-failed", cause=cause, subject=subject, user=user_id)
        return Refused(told, cause)

    def _note(self, event: str, **facts: str | None) -> None:
        network = network_of(self._parts.site.address(self._exchange))
        note(event, self._exchange, level=logging.INFO, **facts, network=network)


@dataclass(frozen=True, slots=True)
class _Stopped:
    """The user may not sign in."""

    told: Problem
    cause: str
    user_id: str


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A step wants more."""

    step: WaitingStep
    pending: Pending


class _HandleSpentError(Exception):
    """Another request resumed this sign-in first: rolls back what was done for this one."""
