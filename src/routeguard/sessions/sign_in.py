"""From proof to session: the one way in, whatever the proof was."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from routeguard.core.problem import Problem

if TYPE_CHECKING:
    from collections.abc import Iterable

    from routeguard.core.exchange import Exchange
    from routeguard.db.database import Transaction
    from routeguard.sessions.models import UserSession
    from routeguard.sessions.service import Sessions

U = TypeVar("U")


@dataclass(frozen=True, slots=True)
class SignInAttempt(Generic[U]):
    """Somebody who has proved to be `user`, and is not signed in yet.

    `amr` are the methods of proof (RFC 8176: pwd, otp, hwk), `aal` the assurance level they make.
    """

    user: U
    amr: tuple[str, ...]
    aal: int
    exchange: Exchange


class SignInStep(Protocol):
    """What may stand between proof and session: a verified address, a second factor.

    Returns None to let the attempt pass, or the Problem that refuses it or asks for more. Runs in the transaction of
    the sign-in, which commits either way.
    """

    async def __call__(self, tx: Transaction, attempt: SignInAttempt[Any], /) -> Problem | None:
        """Look at the attempt."""
        ...


class SignIn(Generic[U]):
    """Takes every sign-in method through the same steps, so that a new method cannot forget one."""

    def __init__(self, sessions: Sessions[U], steps: Iterable[SignInStep] = ()) -> None:
        self._sessions = sessions
        self._steps: list[SignInStep] = list(steps)

    def add_step(self, step: SignInStep) -> None:
        """Ask `step` after those added before. Called before the first request."""
        self._steps.append(step)

    async def complete(
        self, tx: Transaction, user_id: str, *, exchange: Exchange, amr: tuple[str, ...], aal: int = 1,
        lasting: bool = True,
    ) -> UserSession[U] | Problem:  # fmt: skip
        """Take a user whose proof was just accepted through all steps, and start his session.

        Returns the session, or the Problem of the step that refused: commit, then raise ``problem.error()``. Call it
        in the transaction that checked (or consumed) the proof, so that a password changed meanwhile counts.
        """
        user = await self._sessions.sign_in_user(tx, user_id)
        if isinstance(user, Problem):
            return user
        attempt = SignInAttempt(user, amr, aal, exchange)
        for step in self._steps:
            refused = await step(tx, attempt)
            if refused is not None:
                return refused
        return await self._sessions.start(tx, user, exchange=exchange, amr=amr, aal=aal, lasting=lasting)
